"""Where results go: a file, or standard output by the name `-`; what nobody named takes nothing's place."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import random_run

from zhuyi.cli import main
from zhuyi.cli.pictures import _free_name

Ended = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_run(tmp_path_factory.mktemp("run")).path


@pytest.fixture
def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ended:
    """The status of a command in an empty folder, its standard output and its standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["zhuyi", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), *capsys.readouterr()

    return call


def test_translations_on_standard_output_by_its_name(run: Path, ended: Ended, tmp_path: Path) -> None:
    status, out, _ = ended("translate", run, "三五。", "--output", "-")
    assert (status, out) == (0, ended("translate", run, "三五。")[1])
    assert out.count("\n") == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "function", "keyword"),
    [
        (["translate", "r", "x", "--output", "-"], "zhuyi.streams.translate_stream", "output_path"),
        (["classify", "r", "x", "--output", "-"], "zhuyi.streams.label_lines", "output_path"),
        (["embed", "r", "x", "--output", "-"], "zhuyi.streams.embed_lines", "output_path"),
        (["transcribe", "r", "x.wav", "--output", "-"], "zhuyi.writing.write_transcriptions", 3),
    ],
)
def test_every_verb_that_writes_lines_knows_it(
    arguments: list[str], function: str, keyword: Any, ended: Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[Any] = []
    monkeypatch.setattr("zhuyi.predict.load", lambda *given, **named: None)
    monkeypatch.setattr(function, lambda *given, **named: called.append(dict(enumerate(given)) | named))
    assert ended(*arguments)[0] == 0
    assert called[0][keyword] is None
    assert ended(*arguments[:-1], "there.txt")[0] == 0
    assert called[1][keyword] == Path("there.txt")


def test_a_forecast_on_standard_output_by_its_name(ended: Ended, monkeypatch: pytest.MonkeyPatch) -> None:
    class Found:
        def as_csv(self) -> str:
            return "a,b\n"

    class Forecaster:
        def read(self, path: Path, start: str) -> None: ...

        def forecast(self, table: None, steps: int | None, begin: str) -> Found:
            return Found()

    monkeypatch.setattr("zhuyi.predict.load", lambda *given, **named: Forecaster())
    assert ended("forecast", "r", "--input", "t.csv", "--out", "-")[:2] == (0, "a,b\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "r", "--output", "-"],
        ["train", "r.toml", "--out", "-"],
        ["import", "r", "--out", "-"],
        ["export", "r", "--to", "hf", "--out", "-"],
        ["forecast", "r", "--input", "t.csv", "--plot", "-"],
        ["watch", ".", "--export", "-"],
    ],
)
def test_what_cannot_go_there_is_refused(arguments: list[str], ended: Ended, tmp_path: Path) -> None:
    status, out, err = ended(*arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: {arguments[-2]} -: ")
    assert not list(tmp_path.iterdir())


def test_a_folder_in_the_place_of_a_file_is_refused_before_any_work(run: Path, ended: Ended) -> None:
    for arguments in (["translate", run, "x"], ["evaluate", run]):
        assert ended(*arguments, "--output", ".")[::2] == (
            2,
            "error: . cannot be written: it is a folder; give a file's name\n",
        )
        assert ended(*arguments, "--output", "no/x.txt")[2].startswith(
            "error: no/x.txt cannot be written: there is no folder no"
        )


def test_a_picture_that_nobody_named_takes_no_others_place(ended: Ended, run: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "map.png").write_bytes(b"mine")
    assert ended("attention", run, "--positions")[:2] == (0, "map-2.png\n")
    assert (tmp_path / "map.png").read_bytes() == b"mine"
    assert _free_name("map.png") == Path("map-3.png")
    assert ended("attention", run, "--positions", "--out", "map.png")[0] == 0
    assert (tmp_path / "map.png").read_bytes() != b"mine"
