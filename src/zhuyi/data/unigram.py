"""Training of a unigram model of pieces in numpy: the same stretches give the same pieces, bit for bit.

It stands here because the trainer of the `tokenizers` library sums in an order that differs from process to
process, and because it looks for pieces among distinct stretches, not among occurrences: however common a
word is, it becomes no piece unless it stands in another one too. (On the English of Tatoeba zh-en, 8,000 pieces
for both languages, a sentence is 10.6 pieces there and 9.0 here.)

Source: Kudo 2018, "Subword regularization", section 3.2; the steps and constants are SentencePiece's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from zlib import crc32

import numpy as np

# A character's probability is above 0.08 / pieces in the corpus: to the 24th power it is a float up to 5e11 pieces.
MAX_STRETCH = 24
MAX_PIECE = 16
# Chinese and Japanese words are short; longer pieces are phrases learned by heart.
MAX_UNSPACED_PIECE = 4
MAX_CHARACTERS = 8_000_000
SEEDS_PER_PIECE = 10
EM_ROUNDS = 2
SHRINKING_FACTOR = 0.75
SPARE = 1.1


@dataclass(frozen=True)
class Lattice:
    """Stretches laid end to end, and which piece of each length begins at each place.

    Shape:  pieces (MAX_PIECE, places): the number of the piece of length row + 1 that begins there, or -1;
        start, length, count (stretches,), the longest stretch first. `MAX_PIECE` places stand empty before
        the first stretch and after the last, and one after each, so that no index needs a test.
    """

    pieces: np.ndarray
    start: np.ndarray
    length: np.ndarray
    count: np.ndarray

    def renumbered(self, number: np.ndarray) -> "Lattice":
        """Return the lattice with piece i called number[i]; number ends with -1, for none."""
        return Lattice(number[self.pieces], self.start, self.length, self.count)


@dataclass(frozen=True)
class Seeds:
    """All pieces that may be learned: how often each occurs, its length, and one place where it stands."""

    frequency: np.ndarray
    length: np.ndarray
    place: np.ndarray

    def kept(self, keep: np.ndarray) -> "Seeds":
        """Return those that `keep` selects."""
        return Seeds(self.frequency[keep], self.length[keep], self.place[keep])


def train_unigram(stretches: Mapping[str, int], size: int) -> list[tuple[str, float]]:
    """Return at most `size` pieces with their log-probabilities, the likeliest first; every character is one.

    Args:   stretches: how often each run of characters occurs that a piece may not reach beyond.
    """
    text, lattice, seeds = _seed(_shortened(stretches), SEEDS_PER_PIECE * size)
    probs = seeds.frequency / seeds.frequency.sum()
    target = max(int(size * SPARE), int((seeds.length == 1).sum()))
    while True:
        for _ in range(EM_ROUNDS):
            expected = _expected_counts(lattice, probs)
            keep = (expected >= 0.5) | (seeds.length == 1)
            lattice, seeds = lattice.renumbered(_numbers(keep)), seeds.kept(keep)
            probs = _maximised(expected[keep])
        if len(probs) <= target:
            break
        keep = _most_useful(lattice, seeds, probs, max(target, int(SHRINKING_FACTOR * len(probs))))
        lattice, seeds, probs = lattice.renumbered(_numbers(keep)), seeds.kept(keep), probs[keep]
    names = [text[place : place + length] for place, length in zip(seeds.place, seeds.length, strict=True)]
    scores = np.log(probs).round(4).tolist()
    ranked = sorted(zip(names, scores, strict=True), key=lambda item: (len(item[0]) > 1, -item[1], item[0]))
    return sorted(ranked[:size], key=lambda item: (-item[1], item[0]))


def _shortened(stretches: Mapping[str, int]) -> dict[str, int]:
    """Cut stretches to a bearable length and number; return the longest first.

    Of a corpus too large the rarest are left out, and of those as rare, some chosen by their hash.
    """
    parts: dict[str, int] = {}
    for stretch, count in stretches.items():
        for begin in range(0, len(stretch), MAX_STRETCH):
            part = stretch[begin : begin + MAX_STRETCH]
            parts[part] = parts.get(part, 0) + count
    ranked = sorted(parts, key=lambda part: (-parts[part], crc32(part.encode()), part))
    places = np.cumsum([len(part) + 1 for part in ranked])
    many = max(1, int(np.searchsorted(places, MAX_CHARACTERS)))
    lost = set().union(*ranked[many:]).difference(*ranked[:many])
    kept = {part: parts[part] for part in ranked[:many]} | dict.fromkeys(lost, 1)
    return {part: kept[part] for part in sorted(kept, key=lambda part: (-len(part), part))}


def _seed(stretches: Mapping[str, int], many: int) -> tuple[str, Lattice, Seeds]:
    """Number the `many` weightiest strings that occur twice or more, and every character."""
    margin = "\0" * MAX_PIECE
    text = margin + "\0".join(stretches) + "\0" + margin
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.int64)  # (places,)
    length = np.array([len(stretch) for stretch in stretches])
    start = MAX_PIECE + np.concatenate([[0], np.cumsum(length + 1)[:-1]])
    count = np.array(list(stretches.values()), np.float64)
    weight = np.zeros(len(codes))
    weight[MAX_PIECE : MAX_PIECE + len(length) + length.sum()] = np.repeat(count, length + 1)

    pieces = np.full((MAX_PIECE, len(codes)), -1, np.int32)
    unspaced = _unspaced(codes)
    alphabet, characters = np.unique(codes, return_inverse=True)
    places = np.flatnonzero(codes)
    found, total = [], 0
    for row in range(MAX_PIECE):
        if row:  # both its beginning and its end must have been found
            before = pieces[row - 1]
            places = places[(before[places] >= 0) & (before[places + 1] >= 0)]
            places = places[~unspaced[places]] if row >= MAX_UNSPACED_PIECE else places
            keys = before[places].astype(np.int64) * len(alphabet) + characters[places + row]
        else:
            keys = characters[places]
        if not len(places):
            break
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        frequency = np.bincount(inverse, weights=weight[places])
        often = (frequency >= 2) | (row == 0)
        pieces[row, places] = (_numbers(often) + np.append(np.where(often, total, 0), 0))[inverse]
        found.append(Seeds(frequency, np.full(len(first), row + 1), places[first]).kept(often))
        total += int(often.sum())
    seeds = Seeds(
        np.concatenate([level.frequency for level in found]),
        np.concatenate([level.length for level in found]),
        np.concatenate([level.place for level in found]),
    )
    keep = _branching(pieces, seeds, many)
    lattice = Lattice(pieces, start, length, count).renumbered(_numbers(keep))
    return text, lattice, seeds.kept(keep)


def _branching(pieces: np.ndarray, seeds: Seeds, many: int) -> np.ndarray:
    """Select characters, and the `many` weightiest strings that no single longer string accounts for."""
    longest_child = np.zeros(len(seeds.length))
    extended = np.flatnonzero(seeds.length > 1)
    prefix = pieces[seeds.length[extended] - 2, seeds.place[extended]]
    np.maximum.at(longest_child, prefix, seeds.frequency[extended])
    weight = np.where(longest_child < seeds.frequency, seeds.frequency * seeds.length, 0)
    single = seeds.length == 1
    weight[single] = np.inf
    keep = np.zeros(len(weight), bool)
    keep[np.argsort(-weight, kind="stable")[: many + int(single.sum())]] = True
    return keep & (weight > 0)


def _numbers(keep: np.ndarray) -> np.ndarray:
    """Return the new number of each old one, -1 for those not kept and, at the end, for none."""
    return np.append(np.where(keep, np.cumsum(keep) - 1, -1), -1).astype(np.int32)


def _unspaced(codes: np.ndarray) -> np.ndarray:
    """Say which characters are Han or kana."""
    basic = [(0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3021, 0x30FF), (0x3400, 0x9FFF), (0xF900, 0xFAFF)]
    ranges = [*basic, (0x20000, 0x3FFFF)]
    return np.logical_or.reduce([(low <= codes) & (codes <= high) for low, high in ranges])


def _expected_counts(lattice: Lattice, probs: np.ndarray) -> np.ndarray:
    """Return how often each piece is expected over all segmentations (the E step)."""
    probs_or_none = np.append(probs, 0.0)  # number -1 is no piece
    pieces, start, end = lattice.pieces, lattice.start, lattice.start + lattice.length
    forward, backward = np.zeros(pieces.shape[1]), np.zeros(pieces.shape[1])
    forward[start] = 1.0
    backward[end] = 1.0
    active = [int(np.count_nonzero(lattice.length >= n)) for n in range(1, lattice.length[0] + 1)]
    for position, many in enumerate(active, 1):
        here = start[:many] + position
        for row in range(min(position, MAX_PIECE)):
            before = here - row - 1
            forward[here] += forward[before] * probs_or_none[pieces[row, before]]
        here = end[:many] - position
        for row in range(min(position, MAX_PIECE)):
            backward[here] += probs_or_none[pieces[row, here]] * backward[here + row + 1]
    weight = np.zeros(pieces.shape[1])
    inside = np.repeat(start - np.cumsum(lattice.length) + lattice.length, lattice.length) + np.arange(
        lattice.length.sum()
    )
    weight[inside] = np.repeat(lattice.count / forward[end], lattice.length)
    expected = np.zeros(len(probs))
    for row in range(MAX_PIECE):
        places = np.flatnonzero(pieces[row] >= 0)
        numbers = pieces[row, places]
        share = forward[places] * probs_or_none[numbers] * backward[places + row + 1] * weight[places]
        expected += np.bincount(numbers, weights=share, minlength=len(probs))
    return expected


def _maximised(expected: np.ndarray) -> np.ndarray:
    """Do the M step; rare pieces get less, by exp(digamma(x)), which is near x - 1/2 + 1/24x."""
    bounded = np.maximum(expected, 0.5)
    lessened = bounded - 0.5 + 1 / (24 * bounded)
    return lessened / lessened.sum()


def _best(lattice: Lattice, probs: np.ndarray) -> np.ndarray:
    """Return for each place the length of the last piece of the likeliest way to it (Viterbi)."""
    probs_or_none = np.append(probs, 0.0)
    forward = np.zeros(lattice.pieces.shape[1])
    forward[lattice.start] = 1.0
    last = np.zeros(lattice.pieces.shape[1], np.int8)
    for position in range(1, lattice.length[0] + 1):
        here = lattice.start[: np.count_nonzero(lattice.length >= position)] + position
        for row in range(min(position, MAX_PIECE)):
            before = here - row - 1
            likelihood = forward[before] * probs_or_none[lattice.pieces[row, before]]
            better = likelihood > forward[here]
            forward[here[better]] = likelihood[better]
            last[here[better]] = row + 1
    return last


def _most_useful(lattice: Lattice, seeds: Seeds, probs: np.ndarray, many: int) -> np.ndarray:
    """Select the characters and the `many` pieces whose loss would cost the likelihood most."""
    used = np.zeros(len(probs))
    for stretches, numbers in _walk(lattice, probs):
        used += np.bincount(numbers, weights=lattice.count[stretches], minlength=len(probs))

    # Were a piece lost, its occurrences would go to the pieces of its own second-best segmentation.
    owners, inner = _pieces_as_stretches(lattice, seeds)
    parts, log_probs_of_parts = np.zeros(len(owners)), np.zeros(len(owners))
    total, own = used.sum(), used[owners]
    with np.errstate(divide="ignore", invalid="ignore"):
        for stretches, numbers in _walk(inner, probs):
            parts[stretches] += 1
            log_probs_of_parts[stretches] += np.log(used[numbers] + own[stretches])
        loss = own * (np.log(own / total) - log_probs_of_parts + parts * np.log(total + own * (parts - 1)))
    loss[own == 0] = -np.inf

    keep = seeds.length == 1
    ranked = owners[np.lexsort((owners, -loss))]
    keep[ranked[: max(0, many - int(keep.sum()))]] = True
    return keep & ((used > 0) | (seeds.length == 1))


def _walk(lattice: Lattice, probs: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield, from the ends backwards, the stretches not yet walked through and the piece that each takes."""
    last = _best(lattice, probs)
    stretches = np.arange(len(lattice.start))
    place = lattice.start + lattice.length
    while len(stretches):
        size = last[place]
        place = place - size
        yield stretches, lattice.pieces[size - 1, place]
        going = place > lattice.start[stretches]
        stretches, place = stretches[going], place[going]


def _pieces_as_stretches(lattice: Lattice, seeds: Seeds) -> tuple[np.ndarray, Lattice]:
    """Return the pieces beyond characters, the longest first, and a lattice of them without themselves."""
    owners = np.flatnonzero(seeds.length > 1)
    owners = owners[np.argsort(-seeds.length[owners], kind="stable")]
    length = seeds.length[owners]
    start = MAX_PIECE + np.concatenate([[0], np.cumsum(length + 1)[:-1]]).astype(int)
    inside = np.repeat(start - np.cumsum(length) + length, length) + np.arange(length.sum())
    offset = inside - np.repeat(start, length)
    pieces = np.full((MAX_PIECE, int(length.sum() + len(length) + 2 * MAX_PIECE)), -1, np.int32)
    pieces[:, inside] = lattice.pieces[:, np.repeat(seeds.place[owners], length) + offset]
    room = np.repeat(length, length) - offset
    too_long = np.arange(1, MAX_PIECE + 1)[:, None] > room
    itself = (np.arange(1, MAX_PIECE + 1)[:, None] == room) & (offset == 0)
    pieces[:, inside] = np.where(too_long | itself, -1, pieces[:, inside])
    return owners, Lattice(pieces, start, length, np.ones(len(owners)))
