import functools
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zhuyi.decoding import Beam, Greedy, Request, run

RULES = [("none", 0.0), ("gnmt", 0.0), ("gnmt", 0.6), ("gnmt", 1.5), ("power", 0.3), ("power", 1.0), ("power", 2.0)]


def divisor(rule, alpha, length):
    return {"none": 1.0, "gnmt": ((5 + length) / 6) ** alpha, "power": length**alpha}[rule]


@pytest.fixture(scope="module")
def trees(toys):
    """Decoders that remember what has been asked of them."""
    return functools.cache(lambda vocab_size, seed: toys.Decoder(vocab_size, seed=seed))


def brute_force(toys, decoder, request, rule, alpha):
    """Score every sequence there is, best first."""
    ids = [token for token in range(decoder.vocab_size) if token != toys.eos_id]
    found = []
    for length in range(request.max_new_tokens + 1):
        for tokens in itertools.product(ids, repeat=length):
            finished = length < request.max_new_tokens
            written = [*tokens, toys.eos_id] if finished else tokens
            log_prob = sum(decoder.next_log_probs(request, tokens[:i])[token] for i, token in enumerate(written))
            found.append((log_prob / divisor(rule, alpha, length + finished), tokens, finished))
    return sorted(found, reverse=True)


@pytest.mark.parametrize(("rule", "alpha"), RULES)
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_as_wide_as_the_tree_finds_the_best_there_is(toys, trees, rule, alpha, seed):
    for vocab_size, longest in [(4, 5), (5, 4), (6, 3), (4, 1)]:
        decoder = trees(vocab_size, seed)
        request = Request(0, inputs=seed, max_new_tokens=longest)
        expected = brute_force(toys, decoder, request, rule, alpha)
        size = vocab_size**longest
        n_best = min(3, len(expected))
        found = toys.alone(decoder, Beam(size, rule, alpha, n_best=n_best), request)
        assert [(h.tokens, h.finished) for h in found] == [entry[1:] for entry in expected[:n_best]]
        for hypothesis, (score, _, _) in zip(found, expected, strict=False):
            assert hypothesis.score == pytest.approx(score, abs=1e-5)


def reference_beam(toys, decoder, request, beam, *, endless=False):
    """Beam search of one request as one would write it down: prefixes, lists, no cache.

    Returns what it found and after how many steps.
    """
    size = beam.size
    opened, ended = [((), 0.0)], []
    for length in range(1, request.max_new_tokens + 1):
        candidates = []
        for tokens, log_prob in opened:
            following = enumerate(decoder.next_log_probs(request, tokens))
            candidates += [(log_prob + gained, (*tokens, token)) for token, gained in following]
        candidates = sorted(candidates, reverse=True)[: 2 * size]
        for log_prob, tokens in candidates[:size]:
            if tokens[-1] == toys.eos_id:
                score = log_prob / divisor(beam.length_rule, beam.alpha, length)
                ended.append((score, tokens[:-1], True))
        opened = [(tokens, log_prob) for log_prob, tokens in candidates if tokens[-1] != toys.eos_id][:size]
        ended.sort(reverse=True)
        if endless:
            continue
        if beam.stop == "first" and len(ended) >= size:
            return ended[: beam.n_best], length
        reachable = [length + 1 + more for more in range(request.max_new_tokens - length)]
        if beam.stop == "exact" and len(ended) >= beam.n_best and reachable:
            best = max(opened[0][1] / divisor(beam.length_rule, beam.alpha, n) for n in reachable)
            if best <= ended[beam.n_best - 1][0]:
                return ended[: beam.n_best], length
    longest = request.max_new_tokens
    ended += [(log_prob / divisor(beam.length_rule, beam.alpha, longest), t, False) for t, log_prob in opened]
    return sorted(ended, reverse=True)[: beam.n_best], longest


beams = st.builds(
    lambda size, rule, stop, data: Beam(size, *rule, stop=stop, n_best=1 + data % size),
    st.integers(1, 6),
    st.sampled_from(RULES),
    st.sampled_from(["exact", "first"]),
    st.integers(0, 5),
)


@settings(max_examples=40, deadline=None)
@given(beam=beams, seed=st.integers(0, 10_000), vocab_size=st.integers(4, 12), longest=st.integers(1, 8))
def test_the_search_is_the_one_written_down(toys, beam, seed, vocab_size, longest):
    decoder = toys.Decoder(vocab_size, seed=seed, end_bias=(seed % 5) - 2.0)
    requests = [Request(i, inputs=seed + i, max_new_tokens=max(1, longest - i)) for i in range(3)]
    found = toys.results(run(toys.search(decoder, beam), requests, max_rows=2 * beam.size, admit_rows=1))
    for request in requests:
        expected, _ = reference_beam(toys, decoder, request, beam)
        hypotheses = found[request.id]
        assert [(h.tokens, h.finished) for h in hypotheses] == [entry[1:] for entry in expected]
        assert [h.score for h in hypotheses] == pytest.approx([entry[0] for entry in expected], abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(beam=beams, seed=st.integers(0, 10_000), longest=st.integers(1, 12))
def test_exact_stops_early_and_loses_nothing(toys, beam, seed, longest):
    beam = Beam(beam.size, beam.length_rule, beam.alpha, "exact", beam.n_best)
    decoder = toys.Decoder(9, seed=seed, end_bias=1.0)
    request = Request(0, inputs=seed, max_new_tokens=longest)
    found = toys.alone(decoder, beam, request)
    expected, _ = reference_beam(toys, decoder, request, beam, endless=True)
    assert [(h.tokens, h.finished) for h in found] == [entry[1:] for entry in expected]


@pytest.mark.parametrize("n_best", [1, 2])
def test_exact_takes_no_step_too_many(toys, n_best):
    beam, saved = Beam(3, "gnmt", 0.6, n_best=n_best), 0
    for seed in range(50):
        decoder = toys.Decoder(9, seed=seed, end_bias=1.0)
        request = Request(0, inputs=seed, max_new_tokens=12)
        toys.alone(decoder, beam, request)
        taken = len(decoder.rows_seen)
        assert taken == reference_beam(toys, decoder, request, beam)[1]
        saved += 12 - taken
    assert saved > 50


def test_first_can_lose_what_exact_finds(toys):
    lost = 0
    for seed in range(30):
        decoder = toys.Decoder(9, seed=seed, end_bias=1.0)
        request = Request(0, inputs=seed, max_new_tokens=12)
        exact = toys.alone(decoder, Beam(3, "power", 1.0), request)[0]
        first = toys.alone(decoder, Beam(3, "power", 1.0, stop="first"), request)[0]
        assert exact.score >= first.score - 1e-6
        lost += exact.score > first.score + 1e-6
    assert lost > 0


@pytest.mark.parametrize("stop", ["exact", "first"])
def test_beam_of_one_is_greedy(toys, stop):
    decoder = toys.Decoder(13, seed=8)
    for seed in range(20):
        request = Request(0, inputs=seed, max_new_tokens=10)
        (greedy,) = toys.alone(decoder, Greedy(), request)
        (beam,) = toys.alone(decoder, Beam(1, "none", stop=stop), request)
        assert (beam.tokens, beam.finished, beam.flags) == (greedy.tokens, greedy.finished, greedy.flags)
        assert beam.log_prob == pytest.approx(greedy.log_prob, abs=1e-5)


def test_n_best_are_different_sorted_and_as_many_as_asked(toys):
    decoder = toys.Decoder(9, seed=2, end_bias=1.0)
    for seed in range(10):
        found = toys.alone(decoder, Beam(5, n_best=5), Request(0, inputs=seed, max_new_tokens=9))
        assert len(found) == 5
        assert len({(h.tokens, h.finished) for h in found}) == 5
        assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


def test_a_beam_wider_than_the_first_step_has_tokens(toys):
    decoder = toys.Decoder(4, seed=2)
    found = toys.alone(decoder, Beam(40, n_best=40), Request(0, inputs=0, max_new_tokens=2))
    assert {h.tokens for h in found} == {
        (),
        *itertools.product([0, 1, 3], repeat=1),
        *itertools.product([0, 1, 3], repeat=2),
    }
    assert all(math.isfinite(h.score) for h in found)


def test_scores_follow_the_length_rule(toys):
    decoder = toys.Decoder(9, seed=2, end_bias=1.0)
    for rule, alpha in RULES:
        for hypothesis in toys.alone(decoder, Beam(4, rule, alpha, n_best=4), Request(0, 3, max_new_tokens=6)):
            length = len(hypothesis.tokens) + hypothesis.finished
            assert hypothesis.score == pytest.approx(hypothesis.log_prob / divisor(rule, alpha, length))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size is 0"),
        ({"size": 2, "n_best": 3}, "n_best is 3"),
        ({"size": 2, "n_best": 0}, "n_best is 0"),
        ({"size": 2, "length_rule": "wu"}, "length_rule is 'wu'"),
        ({"size": 2, "stop": "late"}, "stop is 'late'"),
        ({"size": 2, "alpha": -0.1}, "alpha is -0.1"),
        ({"size": 2, "alpha": math.nan}, "alpha is nan"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Beam(**options)


def test_equal_scores_do_not_multiply_a_hypothesis(toys):
    """With all tokens equally likely, rows differ by their tokens alone."""

    class Flat(toys.Decoder):
        def step(self, tokens, state):
            logits, state = super().step(tokens, state)
            return torch.zeros_like(logits), state

    found = toys.alone(Flat(6), Beam(4, n_best=4), Request(0, 0, max_new_tokens=4))
    assert len({(h.tokens, h.finished) for h in found}) == 4
