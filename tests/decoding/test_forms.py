import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zhuyi.decoding import Beam, Form, Greedy, KeepForm, RepetitionGuard, Request, Rows, Sampling, run

EOS_ID, VOCAB_SIZE, CHOICES = 2, 23, tuple(range(8, 23))  # 0 to 3 are signs, 4 to 7 marks that are only ever fixed

RULES = st.one_of(
    st.just(Greedy()),
    st.builds(Beam, st.integers(1, 4), stop=st.sampled_from(["exact", "first"])),
    st.builds(lambda n: Beam(n, n_best=n), st.integers(2, 4)),
    st.builds(Sampling, samples=st.integers(1, 3), top_p=st.sampled_from([1.0, 0.7]), top_k=st.sampled_from([0, 2])),
)


@st.composite
def forms(draw, *, distinct=None, barred=CHOICES):
    """Forms as lines of letters give them: a capital is fixed, a small letter is chosen once and for all."""
    line = draw(st.text("abcdefgABCD", max_size=11))
    return Form(
        fixed=tuple(3 + "ABCD".index(sign) if sign in "ABCD" else None for sign in line),
        same_as=tuple(line.index(sign) if sign.islower() else place for place, sign in enumerate(line)),
        barred=tuple(draw(st.sets(st.sampled_from(barred), max_size=8))),
        distinct=draw(st.booleans()) if distinct is None else distinct,
    )


def request(number, form):
    return Request(number, number, len(form.fixed) + 1, form=form)


def check(form, hypothesis):
    """What the words of `Form` say, each by itself."""
    tokens = hypothesis.tokens
    assert hypothesis.finished
    assert hypothesis.flags == ()
    assert hypothesis.log_prob > -torch.inf
    assert len(tokens) == len(form.fixed)
    for token, fixed, first in zip(tokens, form.fixed, form.same_as, strict=True):
        if fixed is not None:
            assert token == fixed
        else:
            assert token == tokens[first]
            assert token in CHOICES
            assert token not in form.barred
    if form.distinct:
        groups = {first for fixed, first in zip(form.fixed, form.same_as, strict=True) if fixed is None}
        assert len({tokens[first] for first in groups}) == len(groups)


@given(seed=st.integers(0, 99), lines=st.lists(forms(), min_size=1, max_size=7), rule=RULES)
def test_every_hypothesis_has_the_form_of_its_request(toys, seed, lines, rule):
    decoder = toys.Decoder(VOCAB_SIZE, seed, sharpness=9.0)
    search = toys.search(decoder, rule, filters=(KeepForm(EOS_ID, CHOICES), RepetitionGuard(EOS_ID)))
    requests = [request(i, form) for i, form in enumerate(lines)]
    found = toys.results(run(search, requests, max_rows=3 * rule.width))
    assert found.keys() == set(range(len(lines)))
    for i, form in enumerate(lines):
        for hypothesis in found[i]:
            check(form, hypothesis)
            assert hypothesis.log_prob == pytest.approx(decoder.score(requests[i], hypothesis), abs=1e-4)


@given(seed=st.integers(0, 99), form=forms(distinct=True))
def test_a_beam_finds_several_where_there_are_several(toys, seed, form):
    decoder = toys.Decoder(VOCAB_SIZE, seed)
    found = toys.alone(decoder, Beam(3, n_best=3), request(0, form), filters=(KeepForm(EOS_ID, CHOICES),))
    chosen = any(fixed is None for fixed in form.fixed)
    assert len({hypothesis.tokens for hypothesis in found}) == len(found) == (3 if chosen else 1)


@given(
    seed=st.integers(0, 99), form=forms(barred=CHOICES[:4]), choices=st.sets(st.sampled_from(CHOICES[:4]), min_size=1)
)
def test_no_hypothesis_gets_stuck_where_choices_run_out(toys, seed, form, choices):
    """What stands already is let go of before what is barred; length, fixed tokens and repetitions never are."""
    groups = {first for fixed, first in zip(form.fixed, form.same_as, strict=True) if fixed is None}
    left = choices - set(form.barred)
    for rule in (Greedy(), Beam(3), Sampling(samples=2)):
        decoder = toys.Decoder(VOCAB_SIZE, seed)
        keep = KeepForm(EOS_ID, choices)
        for hypothesis in toys.alone(decoder, rule, request(0, form), filters=(keep,)):
            tokens = hypothesis.tokens
            assert hypothesis.finished
            assert len(tokens) == len(form.fixed)
            for token, fixed, first in zip(tokens, form.fixed, form.same_as, strict=True):
                assert token == (fixed if fixed is not None else tokens[first])
                assert fixed is not None or token in (left or choices)
            enough = left and (not form.distinct or len(left) >= len(groups))
            assert hypothesis.flags == (() if enough or not groups else ("relaxed",))


def test_what_is_chosen_is_the_likeliest_of_what_is_left(toys):
    decoder = toys.Decoder(VOCAB_SIZE, seed=5)
    form = Form((None, 4, None, None, None), (0, 1, 2, 0, 4), barred=(9, 12), distinct=True)
    wanted = request(0, form)
    (found,) = toys.alone(decoder, Greedy(), wanted, filters=(KeepForm(EOS_ID, CHOICES),))
    written = []
    for token in found.tokens:
        log_probs = decoder.log_probs(wanted, written)[-1]
        if len(written) not in (1, 3):
            open_ids = [i for i in CHOICES if i not in (9, 12) and i not in written]
            assert token == max(open_ids, key=lambda i: float(log_probs[i]))
        written.append(token)
    assert found.tokens[1] == 4
    assert found.tokens[3] == found.tokens[0]


def test_requests_without_a_form_are_let_be(toys):
    decoder, keep = toys.Decoder(VOCAB_SIZE, seed=4), KeepForm(EOS_ID, CHOICES)
    free, bound = Request(0, 0, 9), request(1, Form((None, 5), (0, 1)))
    found = toys.results(run(toys.search(decoder, Beam(3), filters=(keep,)), [free, bound], max_rows=6))
    assert found[0] == toys.alone(decoder, Beam(3), free)
    check(bound.form, found[1][0])


def test_the_guard_against_loops_lets_a_form_be(toys):
    """A line of one character, eight times and more, is answered by one character as often."""
    form = Form((None,) * 12, (0,) * 12)
    filters = (KeepForm(EOS_ID, CHOICES), RepetitionGuard(EOS_ID, every=1))
    for order in (filters, filters[::-1]):
        (found,) = toys.alone(toys.Decoder(VOCAB_SIZE), Greedy(), request(0, form), filters=order)
        assert len(found.tokens) == 12
        check(form, found)


def test_only_the_forms_own_rows_are_changed():
    rows = Rows(2, torch.device("cpu"))
    rows.join([Request(0, None, 9), request(1, Form((None,), (0,), barred=(8, 9)))])
    logits = torch.zeros(4, VOCAB_SIZE)
    KeepForm(EOS_ID, CHOICES)(logits, rows)
    assert logits[:2].eq(0).all()
    assert logits[2:].eq(0).nonzero()[:, 1].tolist() == [*CHOICES[2:], *CHOICES[2:]]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Form((None, None), (0,)), "fixed has 2 positions, same_as 1"),
        (lambda: Form((None, None), (1, 1)), "position 0 cannot repeat position 1"),
        (lambda: Form((None,), (-1,)), "position 0 cannot repeat position -1"),
        (lambda: KeepForm(EOS_ID, []), "at least one id"),
        (lambda: KeepForm(EOS_ID, [EOS_ID, 5]), "not the end sign 2"),
    ],
)
def test_what_cannot_be_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
