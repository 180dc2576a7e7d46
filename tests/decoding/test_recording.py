import pytest

from zhuyi.decoding import Beam, Recorded, Request, Search, run, way_to_the_best

REQUESTS = [Request(id=7, inputs=3, max_new_tokens=6), Request(9, 5, 4), Request(2, 8, 1), Request(4, 11, 9)]


def path(steps, number, place):
    """The tokens of a beginning, the first one first."""
    tokens = []
    for step in reversed(steps[: number + 1]):
        tokens.append(step[place].token)
        place = step[place].parent
    return tokens[::-1]


@pytest.fixture(params=[(3, "exact"), (5, "first")])
def beam(request):
    return Beam(request.param[0], stop=request.param[1], n_best=2)


def found(toys, decoder, rule):
    search = Search(decoder.begin, decoder.step, rule, eos_id=toys.eos_id)
    events = run(search, REQUESTS, max_rows=2 * rule.width)
    return {event.id: event.hypotheses for event in events if event.hypotheses is not None}


@pytest.mark.parametrize("seed", range(4))
def test_it_changes_nothing_and_tells_all(toys, beam, seed):
    decoder = toys.Decoder(7, seed=seed, end_bias=1.0)
    recorded = Recorded(beam)
    hypotheses = found(toys, decoder, recorded)
    assert hypotheses == found(toys, decoder, beam)
    for request in REQUESTS:
        steps = recorded.steps[request.id]
        best = hypotheses[request.id][0]
        way = way_to_the_best(steps)
        end = steps[len(way) - 1][way[-1]]
        assert tuple(path(steps, len(way) - 1, way[-1])) == (*best.tokens, *([toys.eos_id] if best.finished else []))
        assert (end.score, end.log_prob) == (best.score, best.log_prob)


@pytest.mark.parametrize("seed", range(4))
def test_every_beginning_is_as_likely_as_the_model_says(toys, beam, seed):
    decoder = toys.Decoder(7, seed=seed, end_bias=1.0)
    recorded = Recorded(beam)
    found(toys, decoder, recorded)
    seen = set()
    for request in REQUESTS:
        for number, step in enumerate(recorded.steps[request.id]):
            for place, beginning in enumerate(step):
                tokens = path(recorded.steps[request.id], number, place)
                assert len(tokens) == number + 1
                given = [decoder.next_log_probs(request, tuple(tokens[:i]))[token] for i, token in enumerate(tokens)]
                assert beginning.log_prob == pytest.approx(sum(given), abs=1e-4)
                assert beginning.score == beam.score(beginning.log_prob, len(tokens))
                ended = tokens[-1] == toys.eos_id
                is_last = number + 1 == request.max_new_tokens
                assert beginning.state == ("finished" if ended else "cut" if is_last else "open")
                seen.add(beginning.state)
    assert seen == {"open", "finished", "cut"}


def test_nothing_finished_leads_nowhere():
    assert way_to_the_best([]) == []
