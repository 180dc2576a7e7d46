"""Files and pipes: what is cut at the same places every time, and what as it comes."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.tiny import random_run

import zhuyi
from zhuyi.errors import InputError
from zhuyi.predict import PictureClassifier, Translator
from zhuyi.streams import label_lines, translate_stream

OPTIONS = {"beam": 1, "n_best": 1, "alpha": None, "rule": None, "seed": 1}


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Translator:
    return zhuyi.load(random_run(tmp_path_factory.mktemp("run") / "random").path)


def translated_windows(translator: Translator, monkeypatch: pytest.MonkeyPatch, **source: object) -> list[list[str]]:
    """What the translator was given together."""
    seen: list[list[str]] = []
    monkeypatch.setattr("zhuyi.data.windows.WINDOW_TEXTS", 2)
    monkeypatch.setattr(translator, "stream", lambda window, **options: seen.append(window) or [], raising=True)
    arguments = {"texts": None, "input_path": None, "output_path": None, "warn": pytest.fail, **source}
    translate_stream(translator, **arguments, as_json=False, options=OPTIONS)  # type: ignore[arg-type]
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


@pytest.mark.parametrize(("encoding", "found"), [("gb18030", "reads well as gb18030"), ("big5", "reads well as big5")])
def test_a_file_in_another_encoding_is_refused_before_any_of_it_is_answered(
    translator: Translator, encoding: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.txt").write_bytes(("one\n" * 1500 + "他說：今天你好。\n").encode(encoding))
    with pytest.raises(
        InputError, match=rf"in\.txt: line 1501 is not UTF-8, and {found}.*iconv -f {encoding} -t utf-8"
    ):
        translated_windows(translator, monkeypatch, input_path=tmp_path / "in.txt", output_path=tmp_path / "out.txt")
    assert not (tmp_path / "out.txt").exists()
    monkeypatch.setattr(translator, "stream", pytest.fail)
    with pytest.raises(InputError, match="line 1501 is not UTF-8"):
        translate_stream(
            translator,
            texts=None,
            input_path=tmp_path / "in.txt",
            output_path=None,
            as_json=False,
            options=OPTIONS,
            warn=pytest.fail,
        )


def test_standard_input_in_another_encoding_is_refused(
    translator: Translator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.txt").write_bytes("你好\n".encode("gb18030"))
    with open(tmp_path / "in.txt", "rb", buffering=0) as file:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=file, fileno=file.fileno))
        with pytest.raises(InputError, match=r"standard input: line 1 .* iconv -f gb18030 -t utf-8$"):
            translated_windows(translator, monkeypatch)


def test_a_mark_of_utf_8_and_windows_line_ends_are_no_text(
    translator: Translator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.txt").write_bytes(b"\xef\xbb\xbf" + "一\r\n\ufffd\r\n".encode())
    assert translated_windows(translator, monkeypatch, input_path=tmp_path / "in.txt") == [["一", "\ufffd"]]


def test_a_pipe_by_name_is_not_read_before_it_is_answered(
    translator: Translator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"a\n" * 20_000)
    os.close(writer)
    windows = translated_windows(
        translator, monkeypatch, input_path=Path(f"/dev/fd/{reader}"), output_path=tmp_path / "out.txt"
    )
    os.close(reader)
    assert sum(map(len, windows)) == 20_000


def test_who_took_the_wrong_direction_is_told_once(
    translator: Translator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = replace(translator.config.data, source="zh", target="en")
    monkeypatch.setattr(translator, "config", replace(translator.config, data=data))
    monkeypatch.setattr("zhuyi.streams.shipped_models", lambda: ["en-zh", "zh-en"])
    (tmp_path / "in.txt").write_text("Good morning.\n" * 5, encoding="utf-8")
    for source in ({"texts": ["Hello"]}, {"input_path": tmp_path / "in.txt"}):
        told: list[str] = []
        translated_windows(translator, monkeypatch, warn=told.append, **source)
        assert told == ["the text has no Chinese characters, and this model reads zh; did you mean en-zh?"]
    translated_windows(translator, monkeypatch, texts=["你好", "Hello"])
    monkeypatch.setattr("zhuyi.streams.shipped_models", list)
    told = []
    translated_windows(translator, monkeypatch, warn=told.append, texts=["Hello"])
    assert told == ["the text has no Chinese characters, and this model reads zh"]


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal that is none")
def test_who_types_is_told_how(
    translator: Translator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keyboard, terminal = os.openpty()
    os.write(keyboard, "一\n".encode() + b"\x04")
    with os.fdopen(terminal, "rb", buffering=0) as file:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=file, fileno=file.fileno))
        assert translated_windows(translator, monkeypatch) == [["一"]]
        assert capsys.readouterr().err == "a text a line; Ctrl-D ends\n"
        translated_windows(translator, monkeypatch, texts=["一"])
        assert capsys.readouterr().err == ""
        os.write(keyboard, b"\x04")
        pictures = object.__new__(PictureClassifier)
        with pytest.raises(InputError, match="no picture in -"):
            label_lines(pictures, texts=None, input_path=None, output_path=None, as_json=False, warn=pytest.fail)
        assert capsys.readouterr().err == "a picture's file, or a folder of them, a line; Ctrl-D ends\n"
    os.close(keyboard)


@pytest.mark.parametrize("name", ["folder", "missing.txt"])
def test_an_input_that_cannot_be_read_is_told_without_a_bar(
    translator: Translator,
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=f"cannot read .*{name}"):
        translated_windows(translator, monkeypatch, input_path=tmp_path / name, output_path=tmp_path / "out.txt")
    assert capsys.readouterr().err == ""
    assert not (tmp_path / "out.txt").exists()
