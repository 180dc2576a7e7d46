"""Exporting writes a whole folder or nothing, and says in one line why not."""

from pathlib import Path

import pytest
from tests.tiny import random_run

from zhuyi.errors import InputError
from zhuyi.interop import FORMS, export


def test_a_folder_that_is_new_or_empty(tmp_path: Path) -> None:
    run = random_run(tmp_path / "run").path
    export(run, "hf", tmp_path / "new")
    (tmp_path / "empty").mkdir()
    export(run, "hf", tmp_path / "empty")
    names = {"README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    for name in ("new", "empty"):
        assert {path.name for path in (tmp_path / name).iterdir()} == names | {"tokenizer_config.json"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "new", "run"]


def test_folders_above_are_made_and_go_with_a_failure(tmp_path: Path) -> None:
    run = random_run(tmp_path / "run").path
    export(run, "hf", tmp_path / "runs" / "mine" / "hf")
    assert (tmp_path / "runs" / "mine" / "hf" / "config.json").exists()
    for out in ("runs/others/out", "elsewhere/out"):
        with pytest.raises(InputError, match="this is a transformer"):
            export(run, "onnx", tmp_path / out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "runs"]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["mine"]


def test_what_is_there_stays(tmp_path: Path) -> None:
    run = random_run(tmp_path / "run").path
    with pytest.raises(InputError, match="run exists already"):
        export(run, "hf", run)
    with pytest.raises(InputError, match=r"pairs\.tsv exists already"):
        export(run, "hf", run / "pairs.tsv")
    with pytest.raises(InputError, match=r"pairs\.tsv is no folder"):
        export(run, "hf", run / "pairs.tsv" / "out")
    with pytest.raises(InputError, match="cannot export to tflite; choose hf or ctranslate2 or onnx"):
        export(run, "tflite", tmp_path / "out")
    assert sorted(FORMS) == ["ctranslate2", "hf", "onnx"]


def test_what_has_a_memory_does_not_become_onnx(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot export to onnx: encoders and GPTs are written, this is a transformer"):
        export(random_run(tmp_path / "run").path, "onnx", tmp_path / "out")


def test_recurrent_models_stay_here(tmp_path: Path) -> None:
    run = random_run(tmp_path / "run", model="seq2seq").path
    for form, message in (("hf", "this is a seq2seq"), ("ctranslate2", "what it runs is .*, this is a seq2seq")):
        with pytest.raises(InputError, match=message):
            export(run, form, tmp_path / "out")


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    run = random_run(tmp_path / "run", positions="learned").path
    with pytest.raises(InputError, match="positions = learned"):
        export(run, "hf", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
