"""Which words of a text and its translation belong together, by where the decoder looked."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zhuyi.data.tokenizers import SPACE
from zhuyi.errors import InputError
from zhuyi.predict.translator import TextMaps


@dataclass(frozen=True)
class Alignment:
    """The units of both sides, without the end signs, and the numbers of those that belong together.

    Args:   pairs: (source, target), from 0, in the order of the source.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]

    def __str__(self) -> str:
        return " ".join(f"{source}-{target}" for source, target in self.pairs)


def align(
    maps: TextMaps, *, layer: int | None = None, head: int | None = None, mutual: bool = False, words: bool = True
) -> Alignment:
    """Link each unit of the target to the one of the source that most weight went to as it was written.

    Weights are the mean of a layer's heads; to a word goes what goes to all its tokens, on average over the tokens
    that write the other word. Where nothing else is said it is the last layer's mean: of the shipped zh-en's layers,
    it finds a word of the dictionary most often.

    Args:   layer, head: from 1.
            mutual: keep a link only if, of all the target's units, this one also looked most at that of the source.
            words: False for tokens.
    Raises: InputError: there is no attention from the target to the source, or no such layer or head.
    """
    weights = _cross(maps, layer, head)  # (T, S)
    group = word_tokens if words else _single_tokens
    # The last token of either side is its end sign.
    sources, targets = group(maps.source_tokens[:-1]), group(maps.target_tokens[:-1])
    between = np.array(
        [[weights[np.ix_(target, source)].sum(axis=1).mean() for source in sources] for target in targets]
    ).reshape(len(targets), len(sources))
    pairs = []
    if sources:
        for target, row in enumerate(between):
            source = int(row.argmax())
            if not mutual or int(between[:, source].argmax()) == target:
                pairs.append((source, target))
    return Alignment(
        tuple(_text(maps.source_tokens, tokens) for tokens in sources),
        tuple(_text(maps.target_tokens, tokens) for tokens in targets),
        tuple(sorted(pairs)),
    )


def _cross(maps: TextMaps, layer: int | None, head: int | None) -> np.ndarray:
    count = sum(name.endswith(".cross") for name in maps.maps)
    if not count:
        raise InputError("an alignment needs a model that looks from one text into another; this one does not")
    if layer is not None and not 1 <= layer <= count:
        raise InputError(f"there is no layer {layer}; the decoder has {count}, counted from 1")
    heads = maps.maps[f"decoder.{(layer or count) - 1}.cross"].numpy()  # (H, T, S)
    if head is not None and not 1 <= head <= len(heads):
        raise InputError(f"there is no head {head}; a layer has {len(heads)}, counted from 1")
    return heads.mean(axis=0) if head is None else heads[head - 1]


def word_tokens(tokens: Sequence[str]) -> list[list[int]]:
    """The tokens of each word: letters and digits that no space divides; all else stands for itself, spaces left out.

    Chinese is not written in words: each token of it is one.
    """
    words: list[list[int]] = []
    for number, token in enumerate(tokens):
        if not token.strip(SPACE):
            continue
        if words and words[-1][-1] == number - 1 and continues(token, tokens[number - 1]):
            words[-1].append(number)
        else:
            words.append([number])
    return words


def continues(token: str, before: str) -> bool:
    """Whether a token goes on with the word that the one before it began or went on with."""
    return all(c.isalnum() and not is_chinese(c) for c in (before[-1:], token[:1]))


def is_chinese(token: str) -> bool:
    """Whether all of it is written in full-width signs, which stand upright one below the other."""
    return all("\u2e80" <= c <= "\uffef" for c in token)


def _single_tokens(tokens: Sequence[str]) -> list[list[int]]:
    return [[number] for number in range(len(tokens))]


def _text(tokens: Sequence[str], numbers: Sequence[int]) -> str:
    return "".join(tokens[i] for i in numbers).replace(SPACE, " ").strip(" ") or SPACE
