import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhuyi.decoding import Beam, RepetitionGuard, Request, Term, TermBeam, Terms, Way, WordBorders, occurrences, run
from zhuyi.decoding.terms import DEAD


def term(*ways, exact=False):
    return Term(tuple(way if isinstance(way, Way) else Way(tuple(way)) for way in ways), exact)


def stand_apart(tokens, terms):
    """Whether all terms stand in the tokens without sharing any: tried out in every way."""
    if not terms:
        return True
    first, *others = terms
    for way in first.ways:
        size = len(way.tokens)
        for start in range(len(tokens) - size + 1):
            if tuple(tokens[start : start + size]) == way.tokens:
                taken = [*tokens[:start], *[None] * size, *tokens[start + size :]]
                if stand_apart(taken, others):
                    return True
    return False


SETS = {
    "one": [term([3])],
    "twice": [term([3, 4]), term([3, 4])],
    "a prefix of another": [term([3]), term([3, 4])],
    "overlapping": [term([3, 4]), term([4, 3])],
    "with itself": [term([3, 3]), term([3, 3])],
    "alternatives": [term([3, 4], [4]), term([4, 4])],
    "within another": [term([4]), term([3, 4, 3])],
}


@pytest.mark.parametrize("name", SETS)
def test_terms_are_counted_as_by_trying_out_every_placement(name):
    terms = SETS[name]
    automaton = Terms(terms)
    for length in range(7):
        for tokens in itertools.product((0, 3, 4), repeat=length):
            assert automaton.accepts(tokens) == stand_apart(list(tokens), terms), tokens


@given(
    st.lists(st.lists(st.sampled_from((3, 4)), min_size=1, max_size=3), min_size=1, max_size=3),
    st.lists(st.sampled_from((0, 3, 4)), max_size=10),
)
def test_any_terms_are_counted_as_by_trying_out_every_placement(ways, tokens):
    terms = [term(way) for way in ways]
    assert Terms(terms).accepts(tokens) == stand_apart(tokens, terms)


@pytest.mark.parametrize("name", SETS)
def test_what_is_needed_is_the_fewest_tokens_that_complete_a_text(name):
    automaton = Terms(SETS[name])
    for tokens in itertools.product((0, 3, 4), repeat=3):
        state = 0
        for token in tokens:
            state = automaton.step(state, token)
        needed = automaton.needed(state)
        endings = (more for size in range(6) for more in itertools.product((3, 4), repeat=size))
        fewest = next(len(more) for more in endings if automaton.accepts([*tokens, *more]))
        assert needed == fewest
        assert not needed or any(
            automaton.needed(automaton.step(state, token)) == needed - 1 for token in automaton.wanted(state)
        )


def test_words_are_neither_cut_from_others_nor_gone_on_with():
    borders = WordBorders(joins_left=frozenset({3, 5}), joins_right=frozenset({3, 5, 7}))
    whole = Term((Way((3,), apart_before=True, apart_after=True), Way((7,), apart_after=True)))
    terms = Terms([whole], borders)
    assert terms.accepts([3])
    assert terms.accepts([9, 3, 9])
    assert terms.accepts([5, 7, 9])
    assert not terms.accepts([5, 3])
    assert not terms.accepts([3, 5])
    assert not terms.accepts([7, 5, 9])
    assert terms.accepts([7, 5, 7])
    assert 3 not in terms.wanted(terms.step(0, 5))


def test_capitals_only_begin_sentences():
    borders = WordBorders(ends_sentence=frozenset({8}), silent=frozenset({9}))
    terms = Terms([Term((Way((3,)), Way((4,), at_start=True)))], borders)
    for tokens, accepted in [([4], True), ([9, 4], True), ([5, 8, 9, 4], True), ([5, 4], False), ([5, 9, 4], False)]:
        assert terms.accepts(tokens) is accepted, tokens


def test_an_exact_term_is_not_written_once_more():
    name = term([3, 4], [5], exact=True)
    assert Terms([name]).accepts([3, 3, 4, 3])
    assert not Terms([name]).accepts([3, 4, 5])
    assert Terms([name, name]).accepts([5, 9, 3, 4])
    terms = Terms([name])
    assert terms.step(terms.step(terms.step(0, 5), 3), 4) == DEAD


def test_an_exact_term_lost_within_a_word_ends_the_text():
    borders = WordBorders(joins_left=frozenset({6}), joins_right=frozenset({5}))
    terms = Terms([Term((Way((5,), apart_after=True),), exact=True)], borders)
    assert terms.step(terms.step(0, 5), 6) == DEAD


def test_exact_terms_are_found_where_they_stand():
    one, other = term([3, 4], [5], exact=True), term([3], exact=True)
    found = occurrences([9, 3, 4, 3, 5], [one, other, one])
    assert found == [(1, 3, one), (3, 4, other), (4, 5, one)]


def test_a_term_that_no_search_could_promise_is_refused():
    with pytest.raises(ValueError, match="may stand anywhere"):
        Term((Way((3,), apart_before=True), Way((4,), at_start=True)))
    with pytest.raises(ValueError, match="at least one token"):
        Way(())
    with pytest.raises(ValueError, match="take 3 tokens and the end sign one, but max_new_tokens is 3"):
        Request(0, None, 3, terms=Terms([term([3, 4, 5])]))


def divisor(alpha, length):
    return ((5 + length) / 6) ** alpha


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("seed", range(2))
def test_a_wide_beam_finds_the_best_text_that_has_its_terms(toys, name, seed):
    decoder = toys.Decoder(5, seed=seed, end_bias=0.5)
    terms = SETS[name]
    request = Request(0, inputs=seed, max_new_tokens=5, terms=Terms(terms))
    ids = [token for token in range(5) if token != toys.eos_id]
    scores = []
    for length in range(5):
        for tokens in itertools.product(ids, repeat=length):
            if stand_apart(list(tokens), terms):
                written = [*tokens, toys.eos_id]
                total = sum(decoder.next_log_probs(request, tokens[:i])[token] for i, token in enumerate(written))
                scores.append((total / divisor(0.6, length + 1), tokens))
    scores.sort(reverse=True)
    found = [h for h in toys.alone(decoder, TermBeam(Beam(300, n_best=30)), request) if h.finished]
    assert [h.tokens for h in found[:3]] == [tokens for _, tokens in scores[:3]]
    for hypothesis, (score, _) in zip(found[:3], scores, strict=False):
        assert hypothesis.score == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("size", [1, 2, 5, 9])
@pytest.mark.parametrize("name", SETS)
def test_every_hypothesis_has_its_terms_however_narrow_the_beam(toys, name, size):
    for seed in range(4):
        decoder = toys.Decoder(9, seed=seed, end_bias=1.0)
        terms = Terms(SETS[name])
        for limit in (terms.total + 1, terms.total + 2, 12):
            request = Request(0, inputs=seed, max_new_tokens=limit, terms=terms)
            found = toys.alone(decoder, TermBeam(Beam(size, n_best=size)), request)
            assert found
            for hypothesis in found:
                assert stand_apart(list(hypothesis.tokens), SETS[name])
                assert len(hypothesis.tokens) + hypothesis.finished <= limit
                assert hypothesis.log_prob == pytest.approx(decoder.score(request, hypothesis), abs=1e-5)


def test_without_terms_it_is_the_beam_itself(toys):
    for seed in range(6):
        decoder = toys.Decoder(23, seed=seed)
        request = Request(0, inputs=seed, max_new_tokens=9)
        for beam in (Beam(1), Beam(4, n_best=3), Beam(5, "power", 1.0, stop="first", n_best=2)):
            expected = toys.alone(decoder, beam, request)
            assert [h.tokens for h in toys.alone(decoder, TermBeam(beam), request)] == [h.tokens for h in expected]


def test_a_text_does_not_depend_on_its_batch(toys):
    decoder = toys.Decoder(17, seed=3)
    sets = [[], *SETS.values()]
    requests = [Request(i, inputs=i % 5, max_new_tokens=8 + i % 4, terms=Terms(sets[i % len(sets)])) for i in range(24)]
    rule = TermBeam(Beam(4, n_best=2))
    together = toys.results(list(run(toys.search(decoder, rule), requests, max_rows=28, admit_rows=4)))
    for request in requests:
        alone = toys.alone(decoder, rule, request)
        assert [h.tokens for h in together[request.id]] == [h.tokens for h in alone]


def test_the_guard_against_loops_takes_no_term_away(toys):
    decoder = toys.Decoder(7, seed=1, end_bias=-9.0)
    wanted = [term([3])] * 9 + [term([4])]
    request = Request(0, inputs=1, max_new_tokens=30, terms=Terms(wanted))
    guard = RepetitionGuard(toys.eos_id)
    for hypothesis in toys.alone(decoder, TermBeam(Beam(3)), request, filters=[guard]):
        counts = Counter(hypothesis.tokens)
        assert counts[3] >= 9
        assert counts[4] >= 1
        assert hypothesis.flags != ("stuck",)
    assert guard.finish([3] * 9, request) == ([3] * 9, ())
    assert guard.finish([4, *[3] * 9, *[5] * 20], request) == ([4, *[3] * 9, 5], ("repetition",))
