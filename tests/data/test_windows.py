"""Windows of texts: the same at every call for a file, whatever is there for a pipe, never more than they may be."""

import threading
from collections.abc import Iterator
from itertools import chain, count, islice, repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhuyi.data.windows import WINDOW_CHARACTERS, WINDOW_TEXTS, windows, windows_as_they_come

SECONDS = 60  # a thread that hangs fails its test; nothing is measured by it


def lengths_as_texts(lengths: list[int]) -> list[str]:
    return [f"{number % 10}" * length for number, length in enumerate(lengths)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zhuyi.data.windows.WINDOW_TEXTS", 4)
    monkeypatch.setattr("zhuyi.data.windows.WINDOW_CHARACTERS", 10)


@pytest.mark.parametrize(
    ("lengths", "wanted"),
    [
        ([], []),
        ([1] * 9, [4, 4, 1]),
        ([0] * 4, [4]),
        ([3, 3, 3, 3, 3], [4, 1]),
        ([5, 4, 1, 1], [3, 1]),
        ([9, 9, 9], [2, 1]),
        ([99, 1, 99], [1, 2]),
    ],
)
def test_a_window_ends_with_the_text_that_fills_it(small: None, lengths: list[int], wanted: list[int]) -> None:
    assert [len(window) for window in windows(lengths_as_texts(lengths))] == wanted


@given(st.lists(st.integers(0, 12), max_size=40))
def test_nothing_is_lost_and_a_window_cut_again_is_itself(lengths: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zhuyi.data.windows.WINDOW_TEXTS", 4)
        patch.setattr("zhuyi.data.windows.WINDOW_CHARACTERS", 10)
        texts = lengths_as_texts(lengths)
        found = list(windows(texts))
        assert list(chain(*found)) == texts
        for window in found:
            assert list(windows(window)) == [window]
        assert list(chain(*windows_as_they_come(texts))) == texts


def test_the_bounds_of_the_package() -> None:
    assert [len(window) for window in windows(repeat("一", 2 * WINDOW_TEXTS + 1))] == [WINDOW_TEXTS, WINDOW_TEXTS, 1]
    assert [len(window) for window in windows(repeat("一" * (WINDOW_CHARACTERS // 2), 3))] == [2, 1]


def test_no_text_is_read_before_the_full_window_is_given(small: None) -> None:
    texts = count()
    assert next(windows(f"{number}" for number in texts)) == ["0", "1", "2", "3"]
    assert next(texts) == 4


@pytest.mark.parametrize(("text", "ahead"), [("一", 4), ("一二三四五六", 2), ("", 4)])
def test_a_pipe_is_read_ahead_by_one_window_in_lines_and_in_characters(small: None, text: str, ahead: int) -> None:
    read = threading.Semaphore(0)

    def lines() -> Iterator[str]:
        while True:
            read.release()
            yield text

    given = windows_as_they_come(lines())
    for window in islice(given, 3):
        assert 1 <= len(window) <= ahead
    # The thread goes on alone until a window is full, holds one text more in its hand, and waits there.
    taken = 0
    while read.acquire(timeout=0.2):
        taken += 1
    assert taken <= (3 + 1) * ahead + 1


def test_a_pipe_gives_what_is_there(small: None) -> None:
    go_on = [threading.Event() for _ in range(3)]

    def lines() -> Iterator[str]:
        for number, event in enumerate(go_on):
            assert event.wait(SECONDS)
            yield f"{number}"

    given = windows_as_they_come(lines())
    for number, event in enumerate(go_on):
        event.set()
        assert next(given) == [f"{number}"]
    assert next(given, None) is None


def test_what_breaks_a_pipe_is_raised_after_what_came_before(small: None) -> None:
    def lines() -> Iterator[str]:
        yield from "一二三四五"
        raise OSError("the pipe broke")

    given, found = windows_as_they_come(lines()), []
    with pytest.raises(OSError, match="the pipe broke"):
        for window in given:
            found += window
    assert found == list("一二三四五")
