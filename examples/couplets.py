"""Score runs that write couplets, beside a baseline that answers every character by itself.

    python examples/couplets.py                                    the baseline alone
    python examples/couplets.py runs/couplets runs/couplets-gru    runs beside it

The test pairs are those of the recipe: the first 500 different upper lines, each with all the lower lines it has there.
Every answer must be as long as its upper line; anything else ends this script with status 1.
"""

import argparse
import math
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import zhuyi
from zhuyi.config import read_recipe
from zhuyi.data.normalization import contains_han
from zhuyi.data.pairs import CleaningReport, read_pairs
from zhuyi.data.special_tokens import UNK_ID
from zhuyi.errors import InputError
from zhuyi.metrics.translation_scores import translation_scores
from zhuyi.predict import Translator
from zhuyi.tasks.pair_data import PairData, PairDataConfig, prepare_pair_data

RECIPE = Path(__file__).parents[1] / "recipes" / "translation_couplets_transformer-small.toml"


class Baseline:
    """What stands below a character in the training pairs, and how often; its neighbours are not looked at."""

    def __init__(self, data: PairData) -> None:
        self._tokenizer = data.target_tokenizer
        self._below: defaultdict[int, Counter[int]] = defaultdict(Counter)
        self._anywhere: Counter[int] = Counter()
        for row in range(len(data.train)):
            upper, lower = (data.train.ids(side, row).tolist() for side in ("source", "target"))
            if len(upper) == len(lower):
                for above, below in zip(upper[:-1], lower[:-1], strict=True):
                    self._below[above][below] += 1
                    self._anywhere[below] += 1
        self._answers = [i for i, label in enumerate(self._tokenizer.labels) if i > UNK_ID and contains_han(label)]

    def answer(self, upper: str) -> str:
        """For each character the likeliest that neither the upper line has nor this one yet."""
        barred = set(self._tokenizer.encode(upper))
        chosen: dict[str, str] = {}
        for character in upper:
            if character not in chosen and contains_han(character):
                below = self._below[self._tokenizer.encode(character)[0]]
                best = max(
                    (i for i in self._answers if i not in barred), key=lambda i: (below[i], self._anywhere[i], -i)
                )
                barred.add(best)
                chosen[character] = self._tokenizer.labels[best]
        return "".join(chosen.get(character, character) for character in upper)

    def log_prob(self, upper: str, lower: str) -> float:
        """In nats, of a lower line whose length is known: each character by the one above it.

        Source: Witten and Bell 1991: what has followed is counted, the rest shared out as characters are anywhere.
        """
        total = 0.0
        sides = (self._tokenizer.encode(text)[:-1] for text in (upper, lower))
        for above, below in zip(*sides, strict=True):
            counts = self._below[above]
            kinds, everything = len(counts), self._anywhere.total() + self._tokenizer.vocab_size
            anywhere = (self._anywhere[below] + 1) / everything
            total += math.log((counts[below] + kinds * anywhere) / (counts.total() + kinds) if kinds else anywhere)
        return total


@dataclass(frozen=True)
class Scores:
    """One row of the table."""

    system: str
    same_length: float
    lower_lines: float
    bleu: float
    chrf: float
    perplexity: float

    def cells(self) -> list[str]:
        """The row, for people."""
        shares = f"{self.same_length:.1f} %", f"{self.lower_lines:.1f} %"
        return [self.system, *shares, f"{self.bleu:.2f}", f"{self.chrf:.2f}", f"{self.perplexity:.1f}"]


def test_lines(config: PairDataConfig, count: int) -> dict[str, list[str]]:
    """The first upper lines of the test files, each with its lower lines."""
    found: dict[str, list[str]] = {}
    for file in config.test:
        for pair in read_pairs(file, columns=config.columns, report=CleaningReport()):
            if pair.source in found or len(found) < count:
                found.setdefault(pair.source, []).append(pair.target)
    return found


def is_lower_line(upper: str, lower: str) -> bool:
    """Whether all that is asked of a lower line's form holds."""
    if len(upper) != len(lower):
        return False
    answered = [pair for pair in zip(upper, lower, strict=True) if contains_han(pair[0])]
    return (
        all(below == above for above, below in zip(upper, lower, strict=True) if not contains_han(above))
        and all(below not in upper for _, below in answered)
        and len(set(answered)) == len({above for above, _ in answered}) == len({below for _, below in answered})
    )


def score(
    system: str, lines: dict[str, list[str]], answers: Sequence[str], log_prob: float, strict: bool = True
) -> Scores:
    """Compare answers with the lower lines; exits where the form is asked for and one is not of its length."""
    equal = [len(answer) == len(upper) for upper, answer in zip(lines, answers, strict=True)]
    if strict and not all(equal):
        upper, answer = list(lines)[equal.index(False)], answers[equal.index(False)]
        sys.exit(f"{system}: {answer} is not as long as {upper}")
    kept = [is_lower_line(upper, answer) for upper, answer in zip(lines, answers, strict=True)]
    scores = translation_scores(answers, list(lines.values()), "zh")
    tokens = sum(len(lower) + 1 for lowers in lines.values() for lower in lowers)  # the end sign is one
    share = 100 / len(lines)
    perplexity = math.exp(-log_prob / tokens)
    return Scores(system, share * sum(equal), share * sum(kept), scores["bleu"], scores["chrf"], perplexity)


def baseline_scores(baseline: Baseline, lines: dict[str, list[str]]) -> Scores:
    """The baseline knows the length; its end sign is certain."""
    log_prob = sum(baseline.log_prob(upper, lower) for upper, lowers in lines.items() for lower in lowers)
    return score("baseline", lines, [baseline.answer(upper) for upper in lines], log_prob)


def run_scores(name: str, run: Translator, lines: dict[str, list[str]]) -> Iterator[Scores]:
    """A run as it is, and what it writes when nothing holds it to the form."""
    pairs = [(upper, lower) for upper, lowers in lines.items() for lower in lowers]
    log_prob = sum(each.log_prob for each in run.score(pairs))
    for constraint in ("couplet", "none"):
        answers = [each.text for each in run.translate(lines, constraint=constraint)]
        yield score(f"{name}, constraint {constraint}", lines, answers, log_prob, strict=constraint != "none")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table, and the answers to the first lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", help="folders of runs")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="whose data to take")
    parser.add_argument("--lines", type=int, default=500, help="upper lines to answer")
    parser.add_argument("--examples", type=int, default=12, help="of them to show")
    options = parser.parse_args(arguments)
    config = read_recipe(options.recipe)
    lines = test_lines(config.data, options.lines)
    with tempfile.TemporaryDirectory() as folder:
        data = prepare_pair_data(
            config.data, Path(folder), config.train.seed, lambda said: print(said, file=sys.stderr)
        )
        baseline = Baseline(data)
    runs = {name: zhuyi.load(name, command="translate") for name in options.runs}
    rows = [
        baseline_scores(baseline, lines),
        *(row for name, run in runs.items() for row in run_scores(name, run, lines)),
    ]
    print(f"{len(lines)} upper lines, {sum(map(len, lines.values()))} lower lines\n")
    table(["system", "same length", "in form", "BLEU", "chrF", "perplexity"], map(Scores.cells, rows))
    shown = list(lines)[: options.examples]
    found = [[each.text for each in run.translate(shown)] for run in runs.values()]
    answers = [[baseline.answer(upper) for upper in shown], *found]
    print()
    table(
        ["upper", "lower", "baseline", *runs], zip(shown, (lines[upper][0] for upper in shown), *answers, strict=True)
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows as Markdown has them."""
    for cells in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
