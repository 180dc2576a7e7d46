"""Which tokens make a word together, so that all of it or nothing is taken away."""

from collections.abc import Callable, Sequence
from itertools import accumulate

from zhuyi.data.normalization import contains_han
from zhuyi.data.tokenizers import SPACE
from zhuyi.errors import InputError

CONTINUES = "##"  # how WordPiece begins a piece that goes on with a word

Segmenter = Callable[[str], list[str]]


def chinese_segmenter() -> Segmenter:
    """What cuts Chinese, which is written without spaces, into words.

    Raises: InputError: the package is not installed.
    """
    try:
        import rjieba
    except ImportError:
        raise InputError(
            "finding Chinese words needs the package rjieba, which is not here: pip install zhuyi[text]; "
            "or set data.words = whole"
        ) from None
    return lambda text: rjieba.cut(text, False)


def word_numbers(labels: Sequence[str], *, wordpiece: bool = False, segmenter: Segmenter | None = None) -> list[int]:
    """For each token of a text, the number of its word, from 0.

    Args:   labels: the tokens as a reader sees them.
            wordpiece: see `Tokenizer.is_wordpiece`.
            segmenter: cuts runs of Chinese into words; without one, each Chinese token is a word.
    """
    if wordpiece:
        starts = [i == 0 or not label.startswith(CONTINUES) for i, label in enumerate(labels)]
    else:
        starts = [i == 0 or _starts_word(labels[i - 1], label) for i, label in enumerate(labels)]
    if segmenter is not None:
        for run in _chinese_runs(labels):
            ends = set(accumulate(map(len, segmenter("".join(map(_letters, labels[run.start : run.stop]))))))
            place = len(_letters(labels[run.start]))
            for i in run[1:]:
                starts[i] = place in ends
                place += len(_letters(labels[i]))
    return [number - 1 for number in accumulate(map(int, starts))]


def _letters(label: str) -> str:
    return label.removeprefix(CONTINUES).replace(SPACE, "")


def _starts_word(before: str, label: str) -> bool:
    """Whether a new word begins between two neighbours: at a space, a mark, a digit, or a Chinese character."""
    last, first = before[-1:], label[:1]
    return not (last.isalpha() and first.isalpha()) or contains_han(last + first)


def _chinese_runs(labels: Sequence[str]) -> list[range]:
    """The longest stretches of tokens that are all Chinese characters."""
    runs: list[range] = []
    for i, label in enumerate(labels):
        if not (letters := _letters(label)) or not all(map(contains_han, letters)):
            continue
        if runs and runs[-1].stop == i and not label.startswith(SPACE):
            runs[-1] = range(runs[-1].start, i + 1)
        else:
            runs.append(range(i, i + 1))
    return runs
