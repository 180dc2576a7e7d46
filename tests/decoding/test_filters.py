import pytest
import torch

from zhuyi.decoding import (
    Beam,
    Greedy,
    MinimumLength,
    NoRepeatNgram,
    RepetitionGuard,
    RepetitionPenalty,
    Request,
    Rows,
    Sampling,
    Suppress,
    run,
)
from zhuyi.decoding.rows import NO_TOKEN


def make_rows(texts, *, width=1, requests=None):
    """Rows that have written these tokens, all of which came at different times."""
    rows = Rows(width, torch.device("cpu"))
    longest = max(len(text) for text in texts)
    members = requests or [Request(i, None, max_new_tokens=99) for i in range(len(texts) // width)]
    for column in range(longest + 1):
        for i, member in enumerate(members):
            if len(texts[i * width]) == longest - column:
                rows.join([member])
        order = [i for i, text in enumerate(texts) if len(text) >= longest - column]
        if column < longest:
            rows.append(torch.tensor([texts[i][column - longest] for i in sorted(order, key=lambda i: -len(texts[i]))]))
    return rows


def test_rows_tell_what_each_has_written():
    rows = make_rows([[1, 2, 3, 4], [5, 6], []])
    assert rows.tokens.tolist() == [[1, 2, 3, 4], [NO_TOKEN, NO_TOKEN, 5, 6], [NO_TOKEN] * 4]
    assert rows.lengths.tolist() == rows.member_lengths == [4, 2, 0]
    assert rows.tail(6).tolist()[1] == [NO_TOKEN] * 4 + [5, 6]
    assert rows.tail(3).tolist() == [[2, 3, 4], [NO_TOKEN, 5, 6], [NO_TOKEN] * 3]
    assert [rows.written(row) for row in range(3)] == [[1, 2, 3, 4], [5, 6], []]
    rows.keep([0, 2], torch.tensor([0, 2]))
    assert [request.id for request in rows.requests] == [0, 2]
    assert rows.tokens.tolist() == [[1, 2, 3, 4], [NO_TOKEN] * 4]


def test_a_filter_sees_each_rows_own_past(toys):
    seen = []

    def count(logits, rows):
        for row, request in enumerate(rows.requests):
            length = int(rows.lengths[row])
            if row % rows.width:  # the beam's other rows are not in use: only one token is possible
                continue
            written = rows.tokens[row, rows.tokens.shape[1] - length :].tolist()
            assert written == [4 + request.id % 3 + i for i in range(length)]
            assert not rows.tokens[row, : rows.tokens.shape[1] - length].ge(0).any()
            seen.append(request.id)
            token = toys.eos_id if length >= request.inputs else 4 + request.id % 3 + length
            others = torch.ones(logits.shape[1], dtype=torch.bool)
            others[token] = False
            logits[row : row + rows.width, others] = -torch.inf

    decoder = toys.Decoder(200)
    requests = [Request(i, 1 + (i * 37) % 90, max_new_tokens=100) for i in range(20)]
    for rule in (Greedy(), Beam(2), Sampling(samples=2)):
        found = toys.results(run(toys.search(decoder, rule, filters=(count,)), requests, max_rows=8))
        for request in requests:
            assert len(found[request.id][0].tokens) == request.inputs
    assert len(seen) > 1000


def test_suppressed_ids_are_never_written(toys):
    decoder = toys.Decoder(8, seed=1)
    for rule in (Greedy(), Beam(3, n_best=3), Sampling(samples=4)):
        for seed in range(5):
            request = Request(0, seed, max_new_tokens=12, seed=seed)
            for hypothesis in toys.alone(decoder, rule, request, filters=(Suppress([0, 1, 3, 5]),)):
                assert not {0, 1, 3, 5} & set(hypothesis.tokens)


@pytest.mark.parametrize("stop", ["exact", "first"])
@pytest.mark.parametrize("longest", [1, 2, 3, 5])
def test_what_the_filters_leave_is_all_that_is_found(toys, longest, stop):
    """Rows that the beam has no beginnings for must not turn up as hypotheses."""

    def only_two_ids(logits, rows):
        logits[:, [0, 1, 3, 4, 6, 7]] = -torch.inf

    for seed in range(10):
        found = toys.alone(
            toys.Decoder(8, seed=seed), Beam(8, n_best=8, stop=stop), Request(0, 0, longest), filters=(only_two_ids,)
        )
        assert {(h.tokens, h.finished) for h in found} == {((5,) * n, n < longest) for n in range(longest + 1)}


def test_minimum_length_holds_for_each_row_by_itself():
    requests = [Request(i, None, max_new_tokens=9, min_new_tokens=n) for i, n in enumerate([0, 2, 3])]
    rows = make_rows([[1, 1, 1], [1, 1], [1]], requests=requests)
    logits = torch.zeros(3, 5)
    MinimumLength(2)(logits, rows)
    assert logits[:, 2].tolist() == [0.0, 0.0, -torch.inf]
    assert logits[:, [0, 1, 3, 4]].eq(0).all()


def looping(toys, period, *, end=-3.0):
    """A decoder that repeats the same `period` tokens for ever."""

    class Looping(toys.Decoder):
        def step(self, tokens, state):
            _, state = super().step(tokens, state)
            logits = torch.full((len(tokens), self.vocab_size), -8.0)
            following = torch.where((tokens < 4) | (tokens >= 3 + period), 4, tokens + 1)
            logits[torch.arange(len(tokens)), following] = 0.0
            logits[:, toys.eos_id] = end
            return logits, state

    return Looping(4 + max(period, 2))


@pytest.mark.parametrize("period", range(1, 10))
@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("rule", [Greedy(), Sampling(top_k=1)], ids=["greedy", "sampling"])
def test_a_loop_is_ended_soon_and_trimmed(toys, period, every, rule):
    decoder = looping(toys, period)
    request = Request(0, 0, max_new_tokens=200)
    guard = RepetitionGuard(toys.eos_id, every=every)
    (hypothesis,) = toys.alone(decoder, rule, request, filters=(guard,))
    if period > 8:
        assert hypothesis.flags == ("length",)
        assert len(hypothesis.tokens) == 200
        return
    limit = 8 if period <= 2 else 4
    assert hypothesis.flags == ("repetition",)
    assert hypothesis.finished
    assert hypothesis.tokens == tuple(range(4, 4 + period))
    steps = len(decoder.rows_seen)
    assert period * limit + 1 <= steps <= period * limit + every


def test_when_a_loop_is_ended_does_not_depend_on_the_batch(toys):
    decoder, guard = looping(toys, 5), RepetitionGuard(toys.eos_id, every=7)
    (alone,) = toys.alone(decoder, Greedy(), Request(0, 0, 99), filters=(guard,))
    search, events = toys.search(decoder, Greedy(), filters=(guard,)), []
    for i in range(6):
        search.admit([Request(i, 0, 99)])
        events += search.advance()
    found = toys.results(events + toys.drain(search))
    assert len(found) == 6
    assert all(hypotheses == (alone,) for hypotheses in found.values())


def test_a_loop_that_the_input_has_too_goes_on(toys):
    decoder = looping(toys, 3)
    guard = RepetitionGuard(toys.eos_id)
    (hypothesis,) = toys.alone(decoder, Greedy(), Request(0, 0, 60, repeating=(1,) * 30), filters=(guard,))
    assert hypothesis.flags == ("length",)
    assert len(hypothesis.tokens) == 60
    (hypothesis,) = toys.alone(decoder, Greedy(), Request(0, 0, 60, repeating=(1,) * 3), filters=(guard,))
    assert hypothesis.flags == ("repetition",)


def test_a_loop_cut_by_the_length_limit_is_trimmed_too(toys):
    guard = RepetitionGuard(toys.eos_id, every=100)
    (hypothesis,) = toys.alone(looping(toys, 3), Greedy(), Request(0, 0, 50), filters=(guard,))
    assert hypothesis.flags == ("length", "repetition")
    assert hypothesis.tokens == (4, 5, 6)


def test_a_forced_end_costs_what_the_model_says(toys):
    decoder = looping(toys, 3)
    request = Request(0, 0, 50)
    (hypothesis,) = toys.alone(decoder, Greedy(), request, filters=(RepetitionGuard(toys.eos_id, every=1),))
    table = decoder.log_probs(request, [4, 5, 6] * 4)
    tokens = [4, 5, 6] * 4 + [toys.eos_id]
    assert hypothesis.log_prob == pytest.approx(sum(float(table[i, t]) for i, t in enumerate(tokens)), abs=1e-5)


def test_a_beam_of_loops_ends(toys):
    for rule in (Beam(4, n_best=2), Beam(4, "power", 1.0), Beam(4, stop="first")):
        found = toys.alone(looping(toys, 3), rule, Request(0, 0, 500), filters=(RepetitionGuard(toys.eos_id),))
        assert len({h.tokens for h in found}) == len(found)
        assert all(len(h.tokens) < 100 for h in found)


def test_loops_are_found_in_the_rows_that_have_them():
    texts = [[7, 8, 9] * 4, [1, 7, 8, 9, 7, 8, 9, 7, 8, 9, 7, 8], list(range(10, 22)), [5] * 12]
    rows = make_rows(texts)
    logits = torch.zeros(4, 30)
    RepetitionGuard(2)(logits, rows)
    ended = [bool(torch.isinf(row).any()) for row in logits]
    assert ended == [True, False, False, True]
    assert logits[0, 2] == logits[3, 2] == 0.0


def test_the_guard_never_undoes_what_forbids_the_end(toys):
    decoder = looping(toys, 3)
    request = Request(0, 0, 60, min_new_tokens=40)
    (hypothesis,) = toys.alone(decoder, Greedy(), request, filters=(RepetitionGuard(toys.eos_id, every=1),))
    assert len(decoder.rows_seen) == 41
    assert hypothesis.finished


@pytest.mark.parametrize("options", [{"max_period": 0}, {"max_repeats": 1}, {"every": 0}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(ValueError, match="at least"):
        RepetitionGuard(2, **options)


def test_repetition_penalty_is_the_published_one() -> None:
    """Of a positive logit a part, of a negative one a multiple; each token once, however often it is there."""
    rows = Rows(1, torch.device("cpu"))
    rows.join([Request(0, None, 9, context=(1, 1)), Request(1, None, 9)])
    for tokens in ([2, 3], [2, 0]):
        rows.append(torch.tensor(tokens))
    logits = torch.tensor([[1.0, 2.0, -3.0, 4.0, -5.0]]).repeat(2, 1)
    RepetitionPenalty(2.0)(logits, rows)
    assert logits.tolist() == [[1.0, 1.0, -6.0, 4.0, -5.0], [0.5, 2.0, -3.0, 2.0, -5.0]]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_repeat_ngram_forbids_what_would_end_a_sequence_again(size: int) -> None:
    context, text = (4, 1, 2, 3), [1, 2, 4, 1, 2]
    rows = Rows(1, torch.device("cpu"))
    rows.join([Request(0, None, 9, context=context)])
    for token in text:
        rows.append(torch.tensor([token]))
    logits = torch.zeros(1, 6)
    NoRepeatNgram(size, eos_id=3)(logits, rows)
    whole = [*context, *text]
    ends = {whole[i + size - 1] for i in range(len(whole) - size + 1) if whole[i : i + size - 1] == whole[10 - size :]}
    assert {i for i in range(6) if logits[0, i] == -torch.inf} == ends - {3}
    assert len(ends) > 1


def test_filters_against_repetition_refuse_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="above 0"):
        RepetitionPenalty(0.0)
    with pytest.raises(ValueError, match="at least 1"):
        NoRepeatNgram(0)


@pytest.mark.parametrize("width", [1, 2])
def test_what_filters_foresee_is_what_they_do(width):
    """For as many steps as said the same ids are barred in all rows; and looking ahead is not always impossible."""
    generator = torch.Generator().manual_seed(3)
    filters = Suppress([0, 4]), MinimumLength(2), RepetitionGuard(2, max_period=2, max_repeats=2)
    told = {entry: set() for entry in filters}
    for case in range(60):
        minimum = case % 3 * 4
        rows = Rows(width, torch.device("cpu"))
        for i in range(int(torch.randint(1, 4, (), generator=generator))):
            rows.join([Request(i, None, max_new_tokens=99, min_new_tokens=minimum)])
            for _ in range(int(torch.randint(0, 5, (), generator=generator))):
                rows.append(torch.randint(5, 6 + case % 2, (len(rows.requests),), generator=generator))
        ahead = {entry: entry.foresee(rows) for entry in filters}
        for step in range(6):
            for entry, foreseen in ahead.items():
                told[entry].add(None if foreseen is None else min(foreseen.steps, 6))
                if foreseen is None or step >= foreseen.steps:
                    continue
                logits = torch.zeros(len(rows.requests), 9)
                entry(logits, rows)
                barred = torch.zeros(9)
                barred[list(foreseen.barred)] = -torch.inf
                assert torch.equal(logits, barred.expand_as(logits))
            # No two alike one after the other: what was written before is all that can look like a loop.
            rows.append(torch.full((len(rows.requests),), 10 + step))
    suppress, minimum_length, guard = told.values()
    assert suppress == {6}
    assert {None, 1, 4, 6} <= minimum_length
    assert {None, 1, 2, 3, 4} <= guard
