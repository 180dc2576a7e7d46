import threading
from collections.abc import Iterator

import pytest
import torch

from zhuyi.decoding import Beam, Greedy, Request, Sampling, Search, num_lanes, run, run_in_lanes


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def requests(count):
    return [Request(i, inputs=100 + i, max_new_tokens=3 + i % 7, seed=i) for i in range(count)]


def search(toys, decoder, rule):
    return Search(decoder.begin, decoder.step, rule, eos_id=toys.eos_id, stream=False)


@pytest.mark.parametrize("rule", [Greedy(), Sampling(samples=2), Beam(3)], ids=str)
@pytest.mark.parametrize("count", [0, 1, 47, 48, 160])
def test_lanes_find_what_one_search_finds(toys, rule, count):
    expected = {e.id: e.hypotheses for e in run(search(toys, toys.Decoder(11), rule), requests(count), max_rows=24)}
    lanes = [search(toys, toys.Decoder(11), rule) for _ in range(3)]
    found = {event.id: event.hypotheses for event in run_in_lanes(lanes, requests(count), max_rows=24)}
    assert sorted(found) == sorted(expected) == list(range(count))
    for i, hypotheses in found.items():
        assert [h.tokens for h in hypotheses] == [h.tokens for h in expected[i]]


def test_each_lane_has_a_thread_and_a_share_of_rows_and_cores(toys):
    threads, cores, decoders = set(), set(), [toys.Decoder(11) for _ in range(2)]
    meeting = threading.Barrier(2, timeout=60)  # lest one lane be done before the other begins, and lend it its thread

    def watched(decoder):
        def step(tokens, state):
            if threading.get_ident() not in threads:
                meeting.wait()
            threads.add(threading.get_ident())
            cores.add(torch.get_num_threads())
            return decoder.step(tokens, state)

        return Search(decoder.begin, step, Greedy(), eos_id=toys.eos_id, stream=False)

    list(run_in_lanes([watched(decoder) for decoder in decoders], requests(100), max_rows=10))
    assert len(threads) == 2 and threading.get_ident() not in threads
    assert cores == {1}
    assert torch.get_num_threads() == 2
    assert all(max(decoder.rows_seen) <= 5 for decoder in decoders)


def test_few_requests_take_few_lanes(toys):
    decoders = [toys.Decoder(11) for _ in range(3)]
    list(run_in_lanes([search(toys, decoder, Greedy()) for decoder in decoders], requests(100), max_rows=10))
    assert [bool(decoder.rows_seen) for decoder in decoders] == [True, True, False]


def test_an_error_in_a_lane_is_everyones(toys):
    def broken(tokens, state):
        raise RuntimeError("a lane is broken")

    decoders = [toys.Decoder(11) for _ in range(2)]
    lanes = [
        search(toys, decoders[0], Greedy()),
        Search(decoders[1].begin, broken, Greedy(), eos_id=toys.eos_id, stream=False),
    ]
    with pytest.raises(RuntimeError, match="a lane is broken"):
        list(run_in_lanes(lanes, requests(100), max_rows=10))
    assert torch.get_num_threads() == 2


def test_rows_for_less_than_one_request_are_refused(toys):
    lanes = [search(toys, toys.Decoder(11), Beam(4)) for _ in range(2)]
    with pytest.raises(ValueError, match="one request alone takes 4 rows"):
        list(run_in_lanes(lanes, requests(100), max_rows=3))


def test_lanes_are_for_processors_and_few():
    assert num_lanes(torch.device("cpu")) == 2
    assert num_lanes(torch.device("cuda")) == 1
    torch.set_num_threads(9)
    assert num_lanes(torch.device("cpu")) == 4
