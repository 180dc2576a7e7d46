"""The engine's work, a step at a time: what a search is given, and when it goes on."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from zhuyi.serving.jobs import END
from zhuyi.serving.searching import Found
from zhuyi.serving.settings import ServeSettings
from zhuyi.serving.work import SearchWork


@dataclass(frozen=True)
class Coming:
    """A job that is let in piece by piece."""

    name: str
    pieces: int


class Steps:
    """A search that is noted: each job is of so many pieces, and is done a step after it is in."""

    def __init__(self) -> None:
        self.noted: list[str] = []
        self._inside: list[Any] = []

    def open(self) -> Any:
        return SimpleNamespace(rows=0)

    def admit(self, search: Any, job: Any) -> Iterator[None]:
        for number in range(job.pieces):
            self.noted.append(f"{job.name}{number}")
            yield
        self._inside.append(job)

    def drop(self, search: Any, job: Any) -> None:
        raise AssertionError("nobody leaves")

    def advance(self, search: Any) -> list[Found]:
        self.noted.append("step")
        found = [Found(job, job.name, 1, is_last=True) for job in self._inside]
        self._inside = []
        return found


@pytest.mark.parametrize(
    ("pieces", "before"),
    [({"a": 3}, "a0 a1 a2"), ({"a": 2, "b": 2}, "a0 b0 a1 b1"), ({"a": 1, "b": 3}, "a0 b0")],
    ids=["one", "alike", "a short and a long one"],
)
def test_a_search_goes_on_once_somebody_is_in_it(
    pieces: dict[str, int], before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts that come together are searched for together, and a long one holds a short one up no further."""
    monkeypatch.setattr("zhuyi.serving.work.READ_SECONDS", 0.0)
    steps, told = Steps(), list[tuple[str, Any]]()
    outbox: Any = SimpleNamespace(put=lambda job, answer: told.append((job.name, answer)))
    work = SearchWork(steps, SimpleNamespace(), ServeSettings(), outbox)  # type: ignore[arg-type]
    for name, count in pieces.items():
        work.add(Coming(name, count))
    while work.active:
        work.step()
    assert " ".join(steps.noted).partition(" step")[0] == before
    assert told == [pair for name in pieces for pair in ((name, name), (name, END))]
