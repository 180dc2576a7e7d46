"""Windows handed out to workers that are slow, die and fail, and what is refused before there are any."""

import random
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import random_run

from zhuyi.decoding import Sampling
from zhuyi.engines.dispatch import Window, translate_file, translate_windows
from zhuyi.engines.shards import ShardFolder
from zhuyi.engines.work import Outcome, WorkerFailed
from zhuyi.errors import InputError


class FakeWorkers:
    """Workers that answer in any order.

    Args:   failing: the windows that fail, each as often as it is named.
            failing_starts: which starts fail, counted from 1.
    """

    def __init__(
        self, count: int, failing: Iterable[int] = (), failing_starts: Collection[int] = (), seed: int = 0
    ) -> None:
        self.count = count
        self.started = 0
        self._failing = list(failing)
        self._failing_starts = failing_starts
        self._random = random.Random(seed)
        self._ready: set[int] = set()
        self._reports: dict[int, Outcome] = {}

    def start(self, place: int) -> None:
        assert 0 <= place < self.count
        self.started += 1
        self._ready.discard(place)
        self._reports[place] = WorkerFailed("it died") if self.started in self._failing_starts else None

    def send(self, place: int, texts: list[str]) -> None:
        assert place in self._ready
        self._ready.remove(place)
        if (number := int(texts[0])) in self._failing:
            self._failing.remove(number)
            self._reports[place] = WorkerFailed("it died")
        else:
            self._reports[place] = [text + "!" for text in texts]

    def receive(self) -> tuple[int, Outcome]:
        place = self._random.choice(sorted(self._reports))
        outcome = self._reports.pop(place)
        if not isinstance(outcome, Exception):
            self._ready.add(place)
        return place, outcome


class EchoingWorkers(FakeWorkers):
    """Workers whose translation is the text."""

    def send(self, place: int, texts: list[str]) -> None:
        self._ready.remove(place)
        self._reports[place] = texts


def numbered(count: int) -> Iterator[Window]:
    return (Window(number, 2 * number + 1, [str(number), "x"]) for number in range(count))


@given(
    windows=st.integers(0, 9),
    count=st.integers(1, 4),
    failing=st.sets(st.integers(0, 8)),
    failing_starts=st.sets(st.just(1)),
    seed=st.integers(0, 99),
)
def test_every_window_comes_out_once(
    windows: int, count: int, failing: set[int], failing_starts: set[int], seed: int
) -> None:
    workers = FakeWorkers(count, failing, failing_starts, seed)
    taken: list[int] = []
    found: list[int] = []
    warnings: list[str] = []

    def cut() -> Iterator[Window]:
        for window in numbered(windows):
            taken.append(window.number)
            assert len(taken) - len(found) <= count + 1  # one for each worker, and the one that is about to be given
            yield window

    for window, lines in translate_windows(workers, cut(), warnings.append):
        assert lines == [f"{window.number}!", "x!"]
        found.append(window.number)
    assert sorted(found) == taken == list(range(windows))
    assert len([warning for warning in warnings if warning.startswith("lines")]) == len(failing & set(taken))
    assert workers.started == min(count, windows) + len(warnings)


def test_who_is_ready_does_not_wait_for_who_starts() -> None:
    """A worker that cannot begin again, its machine being gone, keeps the others from nothing."""

    class NobodyStartsAgain(FakeWorkers):
        def start(self, place: int) -> None:
            super().start(place)
            if self.started > self.count:
                del self._reports[place]

    found = [window.number for window, _ in translate_windows(NobodyStartsAgain(2, [3]), numbered(7), print)]
    assert sorted(found) == list(range(7))


@pytest.mark.parametrize("seed", range(4))
def test_a_worker_that_dies_without_a_window_is_begun_again(seed: int) -> None:
    class TheIdleOneDies(FakeWorkers):
        died = False

        def receive(self) -> tuple[int, Outcome]:
            if self._ready and not self.died:
                self.died = True
                return self._ready.pop(), WorkerFailed("it died")
            return super().receive()

    workers = TheIdleOneDies(2, [2, 3], seed=seed)
    assert sorted(window.number for window, _ in translate_windows(workers, numbered(4), print)) == list(range(4))
    assert workers.died


def test_a_window_that_fails_twice_ends_it_in_one_line() -> None:
    warnings: list[str] = []
    with pytest.raises(WorkerFailed, match=r"^lines 5 to 6, tried twice: it died; the same command goes on") as error:
        list(translate_windows(FakeWorkers(2, [2, 2]), numbered(5), warnings.append))
    assert "\n" not in str(error.value)
    assert warnings == ["lines 5 to 6: it died; trying once more"]


def test_a_worker_that_cannot_be_started_ends_it() -> None:
    with pytest.raises(WorkerFailed, match=r"^the start of worker 1, tried twice: it died"):
        list(translate_windows(FakeWorkers(1, failing_starts=[1, 2]), numbered(5), print))
    never_twice_in_a_row = FakeWorkers(1, [0, 1], failing_starts=[1, 3, 5])
    assert len(list(translate_windows(never_twice_in_a_row, numbered(5), print))) == 5


def test_wrong_input_is_not_tried_again() -> None:
    class Refusing(FakeWorkers):
        def receive(self) -> tuple[int, Outcome]:
            return super().receive()[0], InputError("precision is float8")

    workers = Refusing(2)
    with pytest.raises(InputError, match="float8"):
        list(translate_windows(workers, numbered(5), print))
    assert workers.started == 2


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_run(tmp_path_factory.mktemp("run") / "random").path


USUAL: dict[str, Any] = {
    "texts": None,
    "input_path": None,
    "output_path": None,
    "precision": None,
    "as_json": False,
    "options": {"beam": 1, "n_best": 1},
    "engine": "local",
    "num_workers": 2,
    "address": None,
}


def refused(run: Path, **arguments: Any) -> str:
    """The one line that `translate_file` has before it starts anything."""

    def start(*arguments: object, **more: object) -> None:
        raise AssertionError("workers were started")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zhuyi.engines.dispatch.ProcessWorkers", start)
        with pytest.raises(InputError) as error:
            translate_file(str(run), warn=print, **{**USUAL, **arguments})
    assert "\n" not in str(error.value)
    return str(error.value)


def test_wrong_usage_is_one_line(run: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("一\n", encoding="utf-8")
    files = {"input_path": source, "output_path": output}
    assert "choose local or ray" in refused(run, **files, engine="spark")
    assert "--engine ray" in refused(run, **files, address="10.0.0.5:6379")
    assert "--input and --output" in refused(run, input_path=source)
    assert "--input and --output" in refused(run, output_path=output)
    assert "no texts" in refused(run, **files, texts=["一"])
    assert "there is no folder" in refused(run, input_path=source, output_path=tmp_path / "no" / "out.txt")
    assert "none.txt" in refused(run, input_path=tmp_path / "none.txt", output_path=output)
    assert "no such file" in refused(run, input_path=Path("-"), output_path=output)
    assert "nowhere" in refused(Path("nowhere"), **files)
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]


def other_in(folder: ShardFolder, run: Path, **arguments: Any) -> str:
    message = refused(run, **arguments)
    assert folder.has(0)
    found = re.search(r"\(other: (.*)\)", message)
    assert found, message
    return found[1]


def after_one_window(run: Path, happens: Callable[[], object], **files: Path) -> str:
    """The first window is finished, then something happens, and this is the error."""

    def translate_one(workers: object, cut: Iterator[Window], warn: object) -> Iterator[tuple[Window, list[str]]]:
        yield next(cut), ["one"]
        happens()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zhuyi.data.windows.WINDOW_TEXTS", 1)
        patch.setattr("zhuyi.engines.dispatch.translate_windows", translate_one)
        patch.setattr("zhuyi.engines.dispatch.ProcessWorkers", lambda job, count, num_gpus: nullcontext())
        with pytest.raises(InputError) as error:
            translate_file(str(run), warn=print, **{**USUAL, **files})
    return str(error.value)


def test_who_took_the_wrong_direction_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = random_run(tmp_path / "run")
    config = folder.read_config()
    folder.write_config(replace(config, data=replace(config.data, source="zh", target="en")))
    monkeypatch.setattr("zhuyi.data.windows.WINDOW_TEXTS", 1)
    monkeypatch.setattr("zhuyi.engines.dispatch._workers", lambda *given: nullcontext(EchoingWorkers(1)))
    files = {"input_path": tmp_path / "in.txt", "output_path": tmp_path / "out.txt"}
    for text, wanted in (("Good morning.\nGood night.\n", ["the text has no Chinese characters"]), ("你好\n", [])):
        files["input_path"].write_text(text, encoding="utf-8")
        told: list[str] = []
        translate_file(str(folder.path), warn=told.append, **{**USUAL, **files})
        assert [message.split(",")[0] for message in told] == wanted
        assert files["output_path"].read_text(encoding="utf-8") == text


def test_an_input_that_changes_meanwhile_makes_no_output(run: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("一\n二\n", encoding="utf-8")
    message = after_one_window(run, lambda: source.write_bytes(b""), input_path=source, output_path=output)
    assert "changed while it was translated" in message
    assert not output.exists()


def test_the_manifest_tells_translations_apart(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("一\n二\n", encoding="utf-8")
    arguments: dict[str, Any] = {"input_path": source, "output_path": output}

    def stop() -> None:
        raise InputError("broken off")

    assert after_one_window(run, stop, **arguments) == "broken off"
    folder = ShardFolder(output, {})
    assert other_in(folder, run, **arguments) == "window"
    monkeypatch.setattr("zhuyi.data.windows.WINDOW_TEXTS", 1)
    assert other_in(folder, run, **arguments, precision="bfloat16") == "precision"
    monkeypatch.setattr("zhuyi.engines.dispatch.choose_translation_precision", lambda device: None)
    arguments["precision"] = "auto"  # what it stands for is what counts, and here that is what was
    assert other_in(folder, run, **arguments, as_json=True) == "jsonl"
    assert other_in(folder, run, **arguments, options={"beam": 2, "n_best": 1}) == "options"
    rule = {"beam": 1, "n_best": 1, "rule": Sampling(temperature=0.7)}
    assert other_in(folder, run, **arguments, options=rule) == "options"
    other_run = random_run(tmp_path / "other", seed=4).path
    assert other_in(folder, other_run, **arguments) == "run"
    source.write_text("一\n三\n", encoding="utf-8")
    assert other_in(folder, run, **arguments) == "input"
