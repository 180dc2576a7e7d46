"""Files and pipes: what is cut at the same places every time, and what as it comes."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.tiny import random_run

import zhuyi
from zhuyi.predict import Translator
from zhuyi.streams import translate_stream

OPTIONS = {"beam": 1, "n_best": 1, "alpha": None, "rule": None, "seed": 1}


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Translator:
    return zhuyi.load(random_run(tmp_path_factory.mktemp("run") / "random").path)


def translated_windows(translator: Translator, monkeypatch: pytest.MonkeyPatch, **source: object) -> list[list[str]]:
    """What the translator was given together."""
    seen: list[list[str]] = []
    monkeypatch.setattr("zhuyi.data.windows.WINDOW_TEXTS", 2)
    monkeypatch.setattr(translator, "stream", lambda window, **options: seen.append(window) or [], raising=True)
    arguments = {"texts": None, "input_path": None, "output_path": None, **source}
    translate_stream(translator, **arguments, as_json=False, options=OPTIONS, warn=pytest.fail)  # type: ignore[arg-type]
    return seen


@pytest.mark.parametrize("source", ["texts", "file", "standard input from a file"])
def test_what_is_there_is_cut_at_the_same_places(
    translator: Translator, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwanted(lines: object) -> None:
        raise AssertionError("cut as it came")

    monkeypatch.setattr("zhuyi.streams.windows_as_they_come", unwanted)
    (tmp_path / "in.txt").write_text("一\n二\n三\n四\n五\n", encoding="utf-8")
    arguments: dict[str, object] = {"texts": list("一二三四五")} if source == "texts" else {}
    if source == "file":
        arguments["input_path"] = tmp_path / "in.txt"
    with open(tmp_path / "in.txt", "rb", buffering=0) as file:
        if source.startswith("standard"):
            monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=file, fileno=file.fileno))
        found = translated_windows(translator, monkeypatch, **arguments)
    assert found == [["一", "二"], ["三", "四"], ["五"]]


def test_a_pipe_by_any_name_is_answered_as_it_comes(
    translator: Translator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwanted(lines: object) -> None:
        raise AssertionError("waited for a whole window")

    monkeypatch.setattr("zhuyi.streams.windows", unwanted)
    for named in (False, True):
        reader, writer = os.pipe()
        os.write(writer, "一\n".encode())
        os.close(writer)
        with os.fdopen(reader, "rb", buffering=0) as file:
            monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=file, fileno=file.fileno))
            path = Path(f"/dev/fd/{reader}") if named else None
            with monkeypatch.context() as patch:
                assert translated_windows(translator, patch, input_path=path) == [["一"]]


def test_a_file_in_another_encoding_is_told_of(
    translator: Translator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []
    (tmp_path / "gb.txt").write_bytes("one\n你好。\n\ufffd\n我喜欢茶。\n".encode("gb18030"))
    arguments = {"texts": None, "input_path": tmp_path / "gb.txt", "output_path": None}
    translate_stream(translator, **arguments, as_json=False, options=OPTIONS, warn=told.append)  # type: ignore[arg-type]
    assert len(capsys.readouterr().out.splitlines()) == 4
    (found,) = told
    assert "gb.txt: 3 lines are not UTF-8, line 2 for one" in found
    (tmp_path / "utf.txt").write_text("one\n\ufffd is written so\n", encoding="utf-8")
    arguments["input_path"] = tmp_path / "utf.txt"
    translate_stream(translator, **arguments, as_json=False, options=OPTIONS, warn=told.append)  # type: ignore[arg-type]
    assert len(told) == 1
