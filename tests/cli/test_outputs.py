"""Where results go: a file, or standard output by the name `-`; what nobody named takes nothing's place."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import random_run
from typer.main import get_command

from zhuyi.atomic import check_file, replacing_named
from zhuyi.cli import app, main
from zhuyi.cli.pictures import _free_name
from zhuyi.errors import InputError

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
        unmeasured = ("s1", "s2")

        def as_csv(self) -> str:
            return "a,b\n"

    class Forecaster:
        def read(self, path: Path, start: str) -> None: ...

        def forecast(self, table: None, steps: int | None, begin: str) -> Found:
            return Found()

    monkeypatch.setattr("zhuyi.predict.load", lambda *given, **named: Forecaster())
    status, out, err = ended("forecast", "r", "--input", "t.csv", "--out", "-")
    assert (status, out) == (0, "a,b\n")
    assert err.startswith("nothing was measured lately by s1, s2: what is forecast for that follows from")


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


@pytest.mark.parametrize("more", [[], ["--workers", "2"]])
def test_what_is_read_is_not_written_over(more: list[str], run: Path, ended: Ended, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x y\n")
    (tmp_path / "link.txt").symlink_to("a.txt")
    for name in ("a.txt", "./a.txt", "link.txt"):
        status, out, err = ended("translate", run, "--input", "a.txt", "--output", name, *more)
        assert (status, out) == (2, "")
        assert "is what is read: it would be lost; give another name" in err
    assert (tmp_path / "a.txt").read_text() == "x y\n"
    assert "is what is read" in ended("evaluate", run, "--pairs", "a.txt", "--output", "a.txt")[2]


def test_a_text_as_long_as_no_file_name_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "map.png").touch()
    check_file(tmp_path / "map.png", "字" * 5000)
    check_file(tmp_path / "map.png", "a\0b")
    with pytest.raises(InputError, match=r"map.png is what is read: it would be lost"):
        check_file(tmp_path / "map.png", str(tmp_path / "map.png"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a file of another kind")
@pytest.mark.parametrize("arguments", [["translate", "x"], ["evaluate"]])
def test_what_is_no_regular_file_is_refused_and_stays(
    arguments: list[str], run: Path, ended: Ended, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        status, out, err = ended(arguments[0], run, *arguments[1:], "--output", name)
        assert (status, out) == (2, "")
        assert err == (
            f"error: {name} cannot be written: it is no regular file; give another name, or - for standard output\n"
        )
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "link").is_symlink()
    with pytest.raises(InputError, match="no regular file"), replacing_named(tmp_path / "link"):
        pass


def test_what_a_link_leads_to_is_replaced(run: Path, ended: Ended, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "o.txt").write_text("old")
    (tmp_path / "l.txt").symlink_to("below/o.txt")
    (tmp_path / "new.txt").symlink_to("l2.txt")
    (tmp_path / "l2.txt").symlink_to("below/new.txt")  # where nothing is yet
    wanted = ended("translate", run, "三五。")[1]
    for link, target in (("l.txt", "o.txt"), ("new.txt", "new.txt")):
        assert ended("translate", run, "三五。", "--output", link)[0] == 0
        assert (tmp_path / link).is_symlink()
        assert (tmp_path / "below" / target).read_text(encoding="utf-8") == wanted
    assert sorted(path.name for path in (tmp_path / "below").iterdir()) == ["new.txt", "o.txt"]
    (tmp_path / "lost.txt").symlink_to("nowhere/o.txt")
    assert "there is no folder" in ended("translate", run, "三五。", "--output", "lost.txt")[2]
    assert (tmp_path / "lost.txt").is_symlink()


def test_where_standard_output_goes_nothing_else_does(tmp_path: Path) -> None:
    code = "from pathlib import Path; from zhuyi.atomic import check_file; check_file(Path('log.txt'))"
    with (tmp_path / "log.txt").open("w") as log:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdout=log,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            timeout=240,
            check=False,
        )
    assert "log.txt cannot be written: it is standard output; give another name" in done.stderr


@pytest.mark.parametrize("verb", ["translate", "classify", "embed", "transcribe", "forecast"])
def test_its_name_is_in_the_help(verb: str) -> None:
    commands: dict[str, Any] = vars(get_command(app))["commands"]
    (option,) = (each for each in commands[verb].params if each.name in ("output", "out"))
    assert "- is standard output" in option.help


def test_a_picture_that_nobody_named_takes_no_others_place(ended: Ended, run: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "map.png").write_bytes(b"mine")
    assert ended("attention", run, "--positions")[:2] == (0, "map-2.png\n")
    assert (tmp_path / "map.png").read_bytes() == b"mine"
    assert _free_name("map.png") == Path("map-3.png")
    assert ended("attention", run, "--positions", "--out", "map.png")[0] == 0
    assert (tmp_path / "map.png").read_bytes() != b"mine"
