"""Searches whose states list the largest logits, against those that write all logits down."""

import pytest
import torch
from torch import Tensor

from zhuyi.decoding import Beam, Foreseen, Greedy, Recorded, RepetitionGuard, Request, Sampling, Search, Suppress, run
from zhuyi.decoding.scores import AllScores, ListedScores
from zhuyi.models.transformer import Transformer, TransformerConfig
from zhuyi.nn.packed import pack
from zhuyi.tasks.sentence_search import begin


class Listed:
    def __init__(self, values: list[Tensor], ids: list[Tensor], normalizers: list[Tensor]) -> None:
        self.values, self.ids, self.normalizers = map(torch.stack, (values, ids, normalizers))


class ListingState:
    """A state of the toy decoder that lists, step by step as the kernels promise to."""

    def __init__(self, state, decoder) -> None:
        self.state, self.decoder = state, decoder

    def select(self, rows):
        return ListingState(self.state.select(rows), self.decoder)

    def join(self, other):
        return ListingState(self.state.join(other.state), self.decoder)

    def list_largest(self, tokens, *, steps, count, end, barred, sums_barred):
        self.decoder.asked.append((steps, count))
        values, ids, normalizers = [], [], []
        for _ in range(steps):
            logits, self.state = self.decoder.step(tokens, self.state)
            chosen = logits.clone()
            chosen[:, list(barred)] = -torch.inf
            best = chosen.topk(min(count, logits.shape[1]), -1)
            values.append(best.values)
            ids.append(best.indices)
            normalizers.append((chosen if sums_barred else logits).logsumexp(-1))
            tokens = best.indices[:, 0]
            if bool((tokens == end).any()):
                break
        return Listed(values, ids, normalizers)


def listing_search(toys, decoder, rule, **options) -> Search:
    decoder.asked = []

    def begin(requests):
        state, tokens = decoder.begin(requests)
        return ListingState(state, decoder), tokens

    def step(tokens, state):
        logits, after = decoder.step(tokens, state.state)
        decoder.asked.append(None)
        return logits, ListingState(after, decoder)

    return Search(begin, step, rule, eos_id=toys.eos_id, **{"may_list": True, **options})


def requests(minimum: int = 0) -> list[Request]:
    return [
        Request(i, 100 + i, max_new_tokens=minimum + 3 + i % 23, min_new_tokens=minimum and minimum + i % 3)
        for i in range(30)
    ]


@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize("minimum", [0, 6])
@pytest.mark.parametrize(
    "rule", [Greedy(), Greedy(scores=False), Beam(1), Beam(4), Beam(3, n_best=2, stop="first")], ids=str
)
def test_what_is_listed_is_all_that_is_needed(toys, rule, minimum, renormalize):
    """Rows of all ages, some of which loop until the guard ends them."""
    filters = (Suppress([0, 1, 3]), RepetitionGuard(toys.eos_id, max_period=3, max_repeats=3))
    options = {"filters": filters, "stream": False, "renormalize": renormalize}
    decoder = toys.Decoder(9, 4, sharpness=6.0)
    expected = toys.results(run(toys.search(decoder, rule, **options), requests(minimum), max_rows=12))
    decoder = toys.Decoder(9, 4, sharpness=6.0)
    found = toys.results(run(listing_search(toys, decoder, rule, **options), requests(minimum), max_rows=12))
    flags = {flag for hypotheses in expected.values() for each in hypotheses for flag in each.flags}
    assert "repetition" in flags or rule.looks_at > 1
    asked = [each for each in decoder.asked if each is not None]
    assert {count for _, count in asked} == {rule.looks_at}
    assert None in decoder.asked  # the guard has looked at a row more closely
    assert rule.looks_at > 1 or max(steps for steps, _ in asked) > 1
    for i, hypotheses in expected.items():
        assert [(h.tokens, h.finished, h.flags) for h in found[i]] == [
            (h.tokens, h.finished, h.flags) for h in hypotheses
        ]
        for mine, other in zip(found[i], hypotheses, strict=True):
            assert mine.log_prob == pytest.approx(other.log_prob, abs=1e-4, nan_ok=True)


@pytest.mark.parametrize("rule", [Greedy(), Beam(3)], ids=str)
@torch.inference_mode()
def test_a_packed_models_search_is_the_same_either_way(toys, rule):
    """Rows come, go and change places between steps of which some are many at once."""
    torch.manual_seed(2)
    sizes = {"num_encoder_layers": 1, "num_decoder_layers": 2, "source_vocab_size": 29, "target_vocab_size": 29}
    model = Transformer(TransformerConfig(d_model=24, num_heads=2, d_ff=32, **sizes)).eval().requires_grad_(False)
    pack(model, "int8")
    sources = [tuple(torch.randint(3, 29, (3 + i % 7,)).tolist()) for i in range(40)]
    wanted = [Request(i, ids, max_new_tokens=4 + i % 23, min_new_tokens=i % 3) for i, ids in enumerate(sources)]
    found = []
    for may_list in (True, False):
        search = Search(
            lambda some: begin(model, some, torch.device("cpu")),
            model.step,
            rule,
            eos_id=toys.eos_id,
            filters=(Suppress([0, 1, 3]), RepetitionGuard(toys.eos_id)),
            stream=False,
            may_list=may_list,
        )
        found.append(toys.results(run(search, wanted, max_rows=18)))
    listed, plain = found
    for i, hypotheses in plain.items():
        assert [(h.tokens, h.flags) for h in listed[i]] == [(h.tokens, h.flags) for h in hypotheses]
        assert [h.log_prob for h in listed[i]] == pytest.approx([h.log_prob for h in hypotheses], abs=1e-3)


def test_many_steps_at_once_where_nothing_comes_between(toys):
    """As many as the first row to reach its limit has left, and no more than sixteen."""
    decoder = toys.Decoder(50, end_bias=-1e9)
    search = listing_search(toys, decoder, Greedy(), stream=False)
    search.admit([Request(0, 7, max_new_tokens=40), Request(1, 8, max_new_tokens=21)])
    events = toys.drain(search)
    assert [steps for steps, _ in decoder.asked] == [16, 5, 16, 3]
    expected = toys.alone(toys.Decoder(50, end_bias=-1e9), Greedy(), Request(0, 7, max_new_tokens=40))
    assert toys.results(events)[0][0].tokens == expected[0].tokens


def test_who_streams_waits_for_no_second_token(toys):
    decoder = toys.Decoder(50, end_bias=-1e9)
    search = listing_search(toys, decoder, Greedy())
    search.admit([Request(0, 7, max_new_tokens=4)])
    assert [event.token for event in search.advance()] == [toys.alone(decoder, Greedy(), Request(0, 7, 4))[0].tokens[0]]
    assert decoder.asked == [(1, 1)]


def test_what_needs_all_logits_gets_them(toys):
    decoder = toys.Decoder(50)
    for rule, filters in ((Sampling(), ()), (Greedy(), (lambda logits, rows: None,))):
        search = listing_search(toys, decoder, rule, filters=filters)
        search.admit([Request(0, 7, max_new_tokens=4)])
        toys.drain(search)
        assert set(decoder.asked) == {None}


def test_nothing_is_listed_unless_the_search_may(toys):
    """Whoever gives a step of its own must be asked for each."""
    decoder = toys.Decoder(50)
    search = listing_search(toys, decoder, Greedy(), may_list=False)
    search.admit([Request(0, 7, max_new_tokens=4)])
    toys.drain(search)
    assert set(decoder.asked) == {None}


def test_a_filter_that_foresees_no_step_is_called(toys):
    class Blind:
        def foresee(self, rows):
            return Foreseen(0)

        def __call__(self, logits, rows):
            logits[:, 3] = -torch.inf

    decoder = toys.Decoder(50)
    search = listing_search(toys, decoder, Greedy(), filters=(Blind(),))
    search.admit([Request(0, 7, max_new_tokens=4)])
    toys.drain(search)
    assert set(decoder.asked) == {None}


def test_what_is_recorded_is_the_same(toys):
    recorded, plain = Recorded(Beam(3)), Recorded(Beam(3))
    decoder = toys.Decoder(20, 3)
    for search in (listing_search(toys, decoder, recorded), toys.search(decoder, plain)):
        search.admit([Request(0, 7, max_new_tokens=12)])
        toys.drain(search)
    assert [[each.token for each in step] for step in recorded.steps[0]] == [
        [each.token for each in step] for step in plain.steps[0]
    ]


def test_scores_are_cut_to_what_there_is():
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    for scores in (AllScores(logits, None), ListedScores(*logits.topk(3, -1), None)):
        assert scores.top(2)[1].tolist() == [[1, 2]]
        assert scores.top(5)[1].tolist() == [[1, 2, 0]]
    with pytest.raises(TypeError, match="looks_at"):
        _ = ListedScores(*logits.topk(1, -1), None).logits
