"""Several searches side by side, each with a thread and a share of the processor's cores.

Threads that share each operation meet hundreds of times a step, and when another program takes one's core all wait.
Lanes never meet; and while one chooses tokens, in Python, others multiply.
"""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from zhuyi.decoding.requests import Event, Request
from zhuyi.decoding.search import Search, run

MOST = 4  # Python itself runs in one thread at a time
FEWEST_REQUESTS = 48  # of a lane: for less, weights that each reads for itself cost more than it brings


def num_lanes(device: torch.device) -> int:
    """How many lanes a machine has use for, where there are requests enough."""
    return min(MOST, torch.get_num_threads()) if device.type == "cpu" else 1


def run_in_lanes(searches: Sequence[Search], requests: Sequence[Request], *, max_rows: int) -> Iterator[Event]:
    """As `run`, by as many of the searches as there are requests for; the order of the events is not.

    Args:   searches: of equal rules, at least one; none has requests in flight.
            max_rows: of all lanes together.
    Raises: ValueError: a single request needs more than `max_rows`.
    """
    count = min(len(searches), max(1, len(requests) // FEWEST_REQUESTS))
    if count == 1:
        yield from run(searches[0], requests, max_rows=max_rows)
        return
    if max_rows < searches[0].width:
        raise ValueError(f"max_rows is {max_rows}, but one request alone takes {searches[0].width} rows")
    threads = torch.get_num_threads()
    stopped = threading.Event()

    def drive(lane: int) -> list[Event]:
        torch.set_num_threads(max(1, threads // count))
        events = []
        share = max(searches[lane].width, max_rows // count)
        for event in run(searches[lane], requests[lane::count], max_rows=share):
            events.append(event)
            if stopped.is_set():
                break
        return events

    with ThreadPoolExecutor(count, thread_name_prefix="zhuyi-lane") as pool:
        try:
            for events in pool.map(drive, range(count)):
                yield from events
        finally:
            stopped.set()  # whether an error, an interrupt or a reader who has gone ends it
            torch.set_num_threads(threads)  # some of torch's libraries have one number for all threads
