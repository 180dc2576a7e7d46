import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zhuyi.decoding import Beam, Greedy, Hypothesis, RepetitionGuard, Request, Sampling, Suppress, run
from zhuyi.decoding.search import _with_holes_filled

RULES = [
    Greedy(),
    Sampling(),
    Sampling(temperature=0.7, top_k=5, samples=3),
    Sampling(top_p=0.8),
    Sampling(min_p=0.05, samples=2),
    Beam(1),
    Beam(3, n_best=3),
    Beam(4, length_rule="power", alpha=1.0, stop="first", n_best=2),
]


def make_requests(count, *, longest=9):
    return [
        Request(i, inputs=100 + i, max_new_tokens=1 + (7 * i) % longest, min_new_tokens=i % 2, seed=i)
        for i in range(count)
    ]


def assert_same(left, right):
    assert [(h.tokens, h.finished, h.flags) for h in left] == [(h.tokens, h.finished, h.flags) for h in right]
    for a, b in zip(left, right, strict=True):
        assert a.log_prob == pytest.approx(b.log_prob, abs=1e-5)
        assert a.score == pytest.approx(b.score, abs=1e-5)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_alone_is_in_a_batch_is_admitted_late(toys, rule):
    decoder = toys.Decoder(11, seed=3)
    options = {"filters": (Suppress([0, 1]), RepetitionGuard(toys.eos_id, 3, 2, every=1))}
    requests = make_requests(10)
    alone = {r.id: toys.alone(decoder, rule, r, **options) for r in requests}
    batch = toys.search(decoder, rule, **options)
    batch.admit(requests)
    together = toys.results(toys.drain(batch))
    late = toys.search(decoder, rule, **options)
    events = []
    for request in requests:
        late.admit([request])
        events += late.advance()
    one_by_one = toys.results(events + toys.drain(late))
    continuous = toys.results(run(toys.search(decoder, rule, **options), requests, max_rows=13, admit_rows=1))
    for request in requests:
        for other in (together, one_by_one, continuous):
            assert_same(alone[request.id], other[request.id])


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_order_of_coming_and_going_changes_nothing(toys, data):
    rule = data.draw(st.sampled_from(RULES))
    decoder = toys.Decoder(9, seed=data.draw(st.integers(0, 50)))
    waiting = make_requests(8)
    requests = {request.id: request for request in waiting}
    search, events, gone = toys.search(decoder, rule), [], set()
    while waiting or search.active:
        action = data.draw(st.sampled_from(["admit", "advance", "advance", "drop"]))
        if action == "admit" and waiting:
            count = data.draw(st.integers(1, 3))
            search.admit(waiting[:count])
            del waiting[:count]
        elif action == "drop":
            chosen = data.draw(st.sets(st.sampled_from(sorted(requests)), max_size=2))
            done = {event.id for event in events if event.hypotheses is not None}
            gone |= chosen - done - {request.id for request in waiting}
            search.drop(chosen)
        else:
            events += search.advance()
        assert search.rows <= search.active * search.width
    found = toys.results(events)
    assert found.keys() == requests.keys() - gone
    for id, hypotheses in found.items():
        assert_same(hypotheses, toys.alone(decoder, rule, requests[id]))


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_every_hypothesis_has_the_log_prob_that_teacher_forcing_gives(toys, rule):
    decoder = toys.Decoder(12, seed=5)
    requests = make_requests(12)
    search = toys.search(decoder, rule, filters=(Suppress([0, 1]),))
    found = toys.results(run(search, requests, max_rows=16, admit_rows=4))
    assert sum(len(hypotheses) for hypotheses in found.values()) > 10
    for request in requests:
        for hypothesis in found[request.id]:
            assert hypothesis.log_prob == pytest.approx(decoder.score(request, hypothesis), abs=1e-4)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_lengths_are_bounded_on_both_sides(toys, rule):
    decoder = toys.Decoder(8, seed=1, end_bias=1.0)
    requests = [Request(i, i, max_new_tokens=i, min_new_tokens=min(i, 3), seed=i) for i in range(7)]
    search = toys.search(decoder, rule)
    search.admit(requests)
    assert search.active == 7
    found = toys.results(toys.drain(search))
    for request in requests:
        for hypothesis in found[request.id]:
            written = len(hypothesis.tokens) + hypothesis.finished
            assert request.min_new_tokens <= len(hypothesis.tokens)
            assert written == request.max_new_tokens if not hypothesis.finished else written <= request.max_new_tokens
            assert ("length" in hypothesis.flags) == (not hypothesis.finished)
            assert toys.eos_id not in hypothesis.tokens
    assert found[0][0].tokens == ()
    assert found[0][0].log_prob == 0.0


def test_no_new_tokens_wanted_asks_the_decoder_nothing(toys):
    decoder = toys.Decoder(8)
    search = toys.search(decoder, Beam(2))
    search.admit([Request(5, 0, max_new_tokens=0), Request(6, 0, max_new_tokens=0)])
    assert search.active == 2
    search.drop([6])
    (event,) = search.advance()
    assert event.id == 5
    assert event.hypotheses == (Hypothesis((), 0.0, 0.0, False, ("length",)),)
    assert not decoder.begun
    assert not decoder.rows_seen
    assert search.active == 0


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.streams], ids=str)
def test_streamed_tokens_are_the_hypotheses(toys, rule):
    decoder = toys.Decoder(10, seed=2)
    requests = make_requests(9)
    streamed, found = {}, {}
    for event in run(toys.search(decoder, rule), requests, max_rows=8):
        assert event.id not in found
        if event.hypotheses is None:
            streamed.setdefault((event.id, event.sample), []).append(event.token)
        else:
            found[event.id] = event.hypotheses
    for id, hypotheses in found.items():
        assert len(hypotheses) == rule.width
        for sample, hypothesis in enumerate(hypotheses):
            assert tuple(streamed.get((id, sample), [])) == hypothesis.tokens


def test_without_stream_only_ends_are_reported(toys):
    decoder = toys.Decoder(10, seed=2)
    events = list(run(toys.search(decoder, Greedy(), stream=False), make_requests(9), max_rows=8))
    assert len(events) == 9
    assert all(event.hypotheses is not None for event in events)


def test_finished_rows_leave_and_waiting_ones_take_their_place(toys):
    decoder = toys.Decoder(10, seed=4, end_bias=-20.0)
    lengths = [2, 9, 2, 9, 2, 9, 2, 9]
    requests = [Request(i, i, max_new_tokens=n) for i, n in enumerate(lengths)]
    found = toys.results(run(toys.search(decoder, Beam(2)), requests, max_rows=8, admit_rows=4))
    assert found.keys() == set(range(8))
    assert decoder.begun == [4, 2, 2]
    assert max(decoder.rows_seen) == 8
    assert sum(decoder.rows_seen) == 2 * sum(lengths)


def test_run_takes_no_more_requests_than_it_has_room_for(toys):
    taken = []

    def requests():
        for request in make_requests(50):
            taken.append(request.id)
            yield request

    decoder = toys.Decoder(10, seed=4)
    for event in run(toys.search(decoder, Greedy()), requests(), max_rows=4):
        if event.hypotheses is not None:
            break
    assert len(taken) <= 4
    with pytest.raises(ValueError, match="max_rows is 3"):
        next(run(toys.search(decoder, Beam(4)), [], max_rows=3))


def test_run_of_nothing_ends(toys):
    assert list(run(toys.search(toys.Decoder(5), Greedy()), [], max_rows=4)) == []


def test_drop_of_all_and_admission_of_none(toys):
    decoder = toys.Decoder(10, seed=4, end_bias=-20.0)
    search = toys.search(decoder, Beam(2))
    search.admit([])
    assert search.active == search.rows == 0
    assert search.advance() == []
    search.admit(make_requests(3))
    search.advance()
    search.drop(range(100))
    assert search.active == search.rows == 0
    assert search.advance() == []
    search.drop([1])
    request = Request(1, 7, max_new_tokens=4)
    search.admit([request])
    assert_same(toys.results(toys.drain(search))[1], toys.alone(decoder, Beam(2), request))


def test_ids_in_flight_must_differ(toys):
    search = toys.search(toys.Decoder(5), Greedy())
    search.admit([Request(1, 0, max_new_tokens=5), Request(2, 0, max_new_tokens=0)])
    for id in (1, 2):
        with pytest.raises(ValueError, match=f"request {id} is in flight"):
            search.admit([Request(id, 0, max_new_tokens=5)])
    with pytest.raises(ValueError, match="request 3 is in flight"):
        search.admit([Request(3, 0, max_new_tokens=5), Request(3, 0, max_new_tokens=5)])
    assert search.active == 2


def test_limits_of_a_request_must_agree():
    with pytest.raises(ValueError, match="got 5 and 4"):
        Request(0, None, max_new_tokens=4, min_new_tokens=5)
    with pytest.raises(ValueError, match="got 0 and -1"):
        Request(0, None, max_new_tokens=-1)


@pytest.mark.parametrize("rule", [Beam(3), Sampling(samples=3)], ids=str)
def test_rows_of_a_request_stay_together(toys, rule):
    """The state may rely on it: it keeps one memory a request."""
    decoder = toys.Decoder(10, seed=6)
    groups = []
    step = decoder.step

    def watched(tokens, state):
        groups.append(state.groups.tolist())
        return step(tokens, state)

    decoder.step = watched
    search = toys.search(decoder, rule)
    search.admit(make_requests(6))
    for _ in range(3):
        search.advance()
    search.drop([2])
    search.admit([Request(17, 0, max_new_tokens=6)])
    toys.drain(search)
    for rows in groups:
        assert len(rows) % 3 == 0
        triples = [rows[i : i + 3] for i in range(0, len(rows), 3)]
        assert all(len(set(triple)) == 1 for triple in triples)
        assert len({triple[0] for triple in triples}) == len(triples)


def test_state_is_reordered_only_where_parents_or_members_change(toys):
    decoder = toys.Decoder(10, seed=4, end_bias=-20.0)
    selections = []

    def watched(tokens, state):
        logits, state = decoder.step(tokens, state)
        select = state.select
        state.select = lambda rows: selections.append(rows) or select(rows)
        return logits, state

    decoder_step, decoder.watched = decoder.step, watched
    assert decoder_step is not None
    from zhuyi.decoding import Search

    search = Search(decoder.begin, watched, Beam(1), eos_id=toys.eos_id)
    search.admit([Request(i, i, max_new_tokens=n) for i, n in enumerate([3, 3, 7])])
    toys.drain(search)
    assert len(selections) == 1
    assert selections[0].tolist() == [2]


def test_long_outputs_outgrow_the_first_buffer(toys):
    decoder = toys.Decoder(10, seed=4, end_bias=-20.0)
    requests = [Request(i, i, max_new_tokens=n) for i, n in enumerate([1, 40, 200, 70, 65, 130])]
    found = toys.results(run(toys.search(decoder, Beam(2)), requests, max_rows=4, admit_rows=1))
    for request in requests:
        (hypothesis,) = found[request.id]
        assert len(hypothesis.tokens) == request.max_new_tokens
        assert hypothesis.log_prob == pytest.approx(decoder.score(request, hypothesis), abs=1e-3)


def test_lower_precision_logits_are_summed_in_float32(toys):
    decoder = toys.Decoder(10, seed=4)
    half = toys.search(decoder, Beam(2))
    step = half._step
    half._step = lambda tokens, state: (lambda out: (out[0].bfloat16(), out[1]))(step(tokens, state))
    half.admit([Request(0, 0, max_new_tokens=5)])
    (hypothesis,) = toys.results(toys.drain(half))[0]
    assert hypothesis.log_prob == pytest.approx(decoder.score(Request(0, 0, 5), hypothesis), abs=0.1)


def test_a_filter_that_forbids_everything_ends_the_request(toys):
    def forbid(logits, rows):
        if rows.member_lengths[0] == 2:
            logits.fill_(-torch.inf)

    (hypothesis,) = toys.alone(toys.Decoder(8, end_bias=-20.0), Beam(3), Request(0, 0, 9), filters=(forbid,))
    assert hypothesis.flags == ("stuck",)
    assert len(hypothesis.tokens) == 2
    assert not hypothesis.finished


@given(st.sets(st.integers(0, 12)))
def test_who_stays_keeps_its_place_where_it_can(kept: set[int]) -> None:
    """A state moves only what a leaving request's place is filled with."""
    order = _with_holes_filled(sorted(kept))
    assert sorted(order) == sorted(kept)
    assert all(order[place] == place for place in kept if place < len(kept))
