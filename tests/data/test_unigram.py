"""The unigram trainer against a sum over every segmentation, and what it must never depend on."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zhuyi.data import unigram
from zhuyi.data.unigram import train_unigram

words, latin_words = (
    st.dictionaries(st.text(letters, min_size=1, max_size=7), st.integers(1, 9), min_size=1, max_size=12)
    for letters in ("abcd你好", "abcd")
)


def segmentations(stretch: str):
    """Yield every way to cut a stretch into pieces."""
    for cuts in itertools.product([False, True], repeat=len(stretch) - 1):
        places = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), len(stretch)]
        yield [stretch[a:b] for a, b in itertools.pairwise(places)]


def seeded(stretches, many=1000):
    """Return the lattice of some stretches, its pieces' names, and probabilities that are not uniform."""
    text, lattice, seeds = unigram._seed(unigram._shortened(stretches), many)
    names = [text[place : place + length] for place, length in zip(seeds.place, seeds.length, strict=True)]
    probs = np.random.default_rng(0).dirichlet(np.ones(len(names)))
    return lattice, seeds, names, probs


@given(latin_words)
@settings(deadline=None, max_examples=30)
def test_seeds_are_the_strings_that_occur_twice_and_are_no_mere_beginning_of_one_longer(stretches):
    _, seeds, names, _ = seeded(stretches)
    counts: dict[str, int] = {}
    for stretch, count in stretches.items():
        for a, b in itertools.combinations(range(len(stretch) + 1), 2):
            counts[stretch[a:b]] = counts.get(stretch[a:b], 0) + count
    wanted = {
        string: count
        for string, count in counts.items()
        if len(string) == 1 or (count >= 2 and all(counts.get(string + c) != count for c in "abcd"))
    }
    assert {name: int(seeds.frequency[i]) for i, name in enumerate(names)} == wanted


def test_pieces_of_unspaced_scripts_are_words_not_phrases():
    pieces = [piece for piece, _ in train_unigram({"我昨天在图书馆读书": 50, "▁internationally": 50}, 60)]
    assert max(len(piece) for piece in pieces if "▁" not in piece and not piece.isascii()) == 4
    assert "▁internationally" in pieces


@given(words)
@settings(deadline=None, max_examples=30)
def test_expected_counts_are_a_sum_over_all_segmentations(stretches):
    lattice, _, names, probs = seeded(stretches)
    prob = dict(zip(names, probs, strict=True))
    expected = dict.fromkeys(names, 0.0)
    for stretch, count in stretches.items():
        ways = [way for way in segmentations(stretch) if all(piece in prob for piece in way)]
        weights = [math.prod(prob[piece] for piece in way) for way in ways]
        for way, weight in zip(ways, weights, strict=True):
            for piece in way:
                expected[piece] += count * weight / sum(weights)
    ours = unigram._expected_counts(lattice, probs)
    np.testing.assert_allclose(ours, [expected[name] for name in names], rtol=1e-9, atol=1e-12)


@given(words)
@settings(deadline=None, max_examples=30)
def test_the_walk_takes_the_likeliest_segmentation(stretches):
    lattice, _, names, probs = seeded(stretches)
    prob = dict(zip(names, probs, strict=True))
    walked: dict[int, list[str]] = {}
    for rows, pieces in unigram._walk(lattice, probs):
        for row, piece in zip(rows.tolist(), pieces.tolist(), strict=True):
            walked.setdefault(row, []).insert(0, names[piece])
    for way in walked.values():
        stretch = "".join(way)
        best = max(math.prod(prob.get(piece, 0) for piece in other) for other in segmentations(stretch))
        assert math.prod(prob[piece] for piece in way) == pytest.approx(best, rel=1e-9)
    assert sorted("".join(way) for way in walked.values()) == sorted(stretches)


@given(words)
@settings(deadline=None, max_examples=30)
def test_a_piece_stands_for_itself_only_without_itself(stretches):
    lattice, seeds, names, probs = seeded(stretches)
    if len(names) == int((seeds.length == 1).sum()):
        return
    owners, inner = unigram._pieces_as_stretches(lattice, seeds)
    ways: dict[int, list[str]] = {}
    for rows, pieces in unigram._walk(inner, probs):
        for row, piece in zip(rows.tolist(), pieces.tolist(), strict=True):
            ways.setdefault(row, []).insert(0, names[piece])
    for row, owner in enumerate(owners.tolist()):
        assert "".join(ways[row]) == names[owner]
        assert len(ways[row]) >= 2


@given(words, st.integers(1, 30), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=30)
def test_any_order_of_the_stretches_gives_the_same_pieces(stretches, size, rng):
    size = max(size, len(set("".join(stretches))))
    pieces = train_unigram(stretches, size)
    shuffled = list(stretches.items())
    rng.shuffle(shuffled)
    assert train_unigram(dict(shuffled), size) == pieces
    assert len(pieces) <= size
    assert {piece for piece, _ in pieces} >= set("".join(stretches))
    assert len({piece for piece, _ in pieces}) == len(pieces)
    assert [score for _, score in pieces] == sorted((score for _, score in pieces), reverse=True)
    assert all(math.isfinite(score) and score <= 0 for _, score in pieces)


def test_a_common_word_is_a_piece_even_if_it_stands_in_no_other():
    others = {"▁" + "".join(letters): 1 for letters in itertools.permutations("maybe", 3)}
    assert "▁maybe" in [piece for piece, _ in train_unigram({"▁maybe": 100} | others, 12)]


def test_what_words_share_becomes_a_piece():
    roots = ["walk", "talk", "jump", "look", "cook", "play", "rain", "burn", "turn", "want", "call", "kick"]
    stretches = {root + ending: 1 for root in roots for ending in ["", "ing", "ed", "s"]}
    pieces = [piece for piece, _ in train_unigram(stretches, 40)]
    assert {"ing", "ed", "play", "jump", "want"} <= set(pieces)


def test_a_corpus_too_large_loses_its_rarest_stretches_but_no_character(monkeypatch):
    monkeypatch.setattr(unigram, "MAX_CHARACTERS", 40)
    stretches = {f"{a}{b}x": 1 for a in "abcdefgh" for b in "mnop"} | {"common": 50}
    shortened = unigram._shortened(stretches)
    assert "common" in shortened
    assert sum(len(stretch) > 1 for stretch in shortened) < 12
    assert set("".join(shortened)) == set("".join(stretches))


def test_long_stretches_of_rare_characters_stay_finite():
    rare = "".join(chr(0x4E00 + i) for i in range(3000))
    pieces = train_unigram({rare: 1, "的": 10**9, "a" * 1000: 10**6}, 4000)
    assert all(math.isfinite(score) for _, score in pieces)
    assert set(rare) <= {piece for piece, _ in pieces}
