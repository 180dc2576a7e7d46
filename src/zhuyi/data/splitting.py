"""A held-out part of a corpus of pairs that shares no sentence, of either side, with the rest."""

import re
import unicodedata
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zhuyi.data.normalization import normalize

LARGEST_HELD_OUT_SHARE = 5  # a fifth

_NEITHER_LETTER_NOR_DIGIT = re.compile(r"[\W_]")
_ASCII_DROPPED = dict.fromkeys(code for code in range(128) if unicodedata.category(chr(code))[0] in "PZ")


def comparison_key(text: str) -> str:
    """Give what two texts share when they are the same sentence but for case, punctuation and spaces.

    A text of nothing but punctuation is its own key, lest all such be one sentence.
    """
    text = normalize(text)
    if text.isascii():
        return text.lower().translate(_ASCII_DROPPED) or text
    return _NEITHER_LETTER_NOR_DIGIT.sub(_keep_symbol, text.casefold()) or text


def _keep_symbol(match: re.Match[str]) -> str:
    """Keep marks (the vowels of Hindi) and symbols (the sign of a sum), drop punctuation and spaces."""
    return match[0] if unicodedata.category(match[0])[0] in "MS" else ""


def hash_key(text: str) -> int:
    """Give 64 bits that stand for the text's `comparison_key`, the same in every process."""
    return int.from_bytes(blake2b(comparison_key(text).encode(), digest_size=8).digest(), "little")


def split_off(
    source_keys: NDArray[np.uint64], target_keys: NDArray[np.uint64], size: int, seed: int
) -> NDArray[np.bool_]:
    """Choose about `size` pairs to hold out, such that no key of either side is both held out and not.

    Pairs that share a key, directly or through others, go together; small groups go first, equal ones in an
    order drawn from (keys, seed), never from the position. No more than `size` pairs and no more than a fifth
    are taken; fewer where the groups are too large.

    Shape:  source_keys (N,), target_keys (N,) of `hash_key`; returns (N,), True = held out.
    Raises: ValueError: the arrays differ in length, or the size is negative.
    """
    if source_keys.shape != target_keys.shape or source_keys.ndim != 1:
        raise ValueError(f"source_keys {source_keys.shape} and target_keys {target_keys.shape}: expected one length")
    if size < 0:
        raise ValueError(f"size {size}: expected 0 or more")
    room = min(size, len(source_keys) // LARGEST_HELD_OUT_SHARE)
    if room == 0:
        return np.zeros(len(source_keys), dtype=np.bool_)
    unique_sources, source = _number(source_keys)
    group_of_source = _connected_groups(source, _number(target_keys)[1], len(unique_sources))
    num_groups = int(group_of_source.max()) + 1
    pairs_in_group = np.bincount(group_of_source[source], minlength=num_groups)
    # A group is known by the least of its keys as the seed shuffles them: no two groups share a key.
    draw = np.full(num_groups, np.iinfo(np.uint64).max)
    np.minimum.at(draw, group_of_source, _shuffle(unique_sources, seed))
    order = np.lexsort((draw, pairs_in_group))
    group_is_held_out = np.zeros(num_groups, dtype=np.bool_)
    group_is_held_out[order[np.cumsum(pairs_in_group[order]) <= room]] = True
    held_out: NDArray[np.bool_] = group_is_held_out[group_of_source][source]
    return held_out


def _number(keys: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[Any]]:
    """Give the distinct keys and, for each key, its place among them, in four bytes where that is enough."""
    unique, index = np.unique(keys, return_inverse=True)
    return unique, index.astype(np.int32 if 2 * len(keys) <= np.iinfo(np.int32).max else np.int64)


def _connected_groups(source: NDArray[Any], target: NDArray[Any], num_sources: int) -> NDArray[Any]:
    """Find the connected components of the graph whose edges are the pairs.

    Each round hangs every tree below the least tree it touches and flattens; two rounds at least halve the
    number of trees.

    Shape: source (N,), target (N,) indices from 0; returns the group of each source (num_sources,).
    """
    a, b = source, target + source.dtype.type(num_sources)
    parent = np.arange(int(b.max()) + 1, dtype=b.dtype)
    while True:
        a, b = parent[a], parent[b]
        apart = a != b
        if not apart.any():
            return np.unique(parent[:num_sources], return_inverse=True)[1]
        a, b = a[apart], b[apart]
        np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(flatter := parent[parent], parent):
            parent = flatter


def _shuffle(keys: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Map 64 bits one to one onto 64 other bits, differently for every seed.

    Source: Steele, Lea & Flood 2014, the finaliser of SplitMix64.
    """
    offset = int.from_bytes(blake2b(str(seed).encode(), digest_size=8).digest(), "little")
    x = keys + np.uint64(offset)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
