"""Span corruption: stretches of a text are taken away, each leaves a sign behind, and they are to be written."""

import numpy as np


def count_spans(length: int, share: float, mean_span: float) -> tuple[int, int]:
    """How many of `length` tokens are taken away, and in how many stretches; at least one is, and one is left."""
    taken = min(max(round(length * share), 1), length - 1)
    return taken, min(max(round(taken / mean_span), 1), length - taken)


def corrupted_lengths(length: int, share: float, mean_span: float) -> tuple[int, int]:
    """How many ids `corrupt` makes of so many: what is read, and what is written."""
    taken, spans = count_spans(length, share, mean_span)
    return length - taken + spans + 1, taken + spans + 2


def longest_within(max_len: int, share: float, mean_span: float) -> int:
    """The longest text whose two sides have at most `max_len` ids; 0 where there is none of two tokens."""
    length = 1
    while max(corrupted_lengths(length + 1, share, mean_span)) <= max_len:
        length += 1
    return length if length > 1 else 0


def corrupt(
    ids: np.ndarray, rng: np.random.Generator, *, share: float, mean_span: float, first_sentinel: int, eos_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """Take stretches away; both sides have the same signs, one for each stretch, counted downwards.

    What is read is the text with a sign for each stretch; what is written is each sign and its stretch, then a sign
    more. Both end with the end sign.

    Shape:  ids (T,) of text, at least two; returns two rows of `corrupted_lengths`.
    Args:   rng: where the stretches lie; the text begins with what stays.
            first_sentinel: the id of the first sign; the next is one less.
    Source: Raffel et al. 2020, section 3.1.4; that all ways to cut are equally likely is in the authors' code.
    """
    taken, spans = count_spans(len(ids), share, mean_span)
    # Kept and taken by turns: as many stretches of the one as of the other.
    sizes = np.stack([_parts(len(ids) - taken, spans, rng), _parts(taken, spans, rng)], axis=1)  # (spans, 2)
    cuts = np.split(ids, np.cumsum(sizes.flatten())[:-1])
    read: list[np.ndarray] = []
    written: list[np.ndarray] = []
    for i in range(spans):
        sentinel = np.array([first_sentinel - i])
        read += [cuts[2 * i], sentinel]
        written += [sentinel, cuts[2 * i + 1]]
    written.append(np.array([first_sentinel - spans]))
    end = np.array([eos_id])
    return np.concatenate([*read, end]), np.concatenate([*written, end])


def _parts(total: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Sizes of `count` parts of `total`, none of them empty. Shape: returns (count,)."""
    cuts = np.sort(rng.choice(total - 1, count - 1, replace=False)) + 1 if count > 1 else np.zeros(0, np.int64)
    return np.diff(np.concatenate([[0], cuts, [total]])).astype(np.int64)
