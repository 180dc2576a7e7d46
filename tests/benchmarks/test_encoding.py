"""Reading texts and pictures side by side: all tools answer alike, and what is far from float32 shows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def track(module: Callable[[str], Any], tool: str, setting: str, found: list[list[float]]) -> Any:
    turns = module("contest.turns")
    return turns.Track(turns.Contestant(tool, "", (("precision", setting),)), found=found)


def test_distances_are_shares_of_the_peers_float32(module: Callable[[str], Any]) -> None:
    tracks = [
        track(module, "zhuyi", "int8", [[3.0, 4.5], [1.0, 0.0]]),
        track(module, "Hugging Face", "float32", [[3.0, 4.0], [1.0, 0.0]]),
    ]
    found = module("encoding").distances(tracks)
    assert found["zhuyi int8"] == pytest.approx(0.05)  # half of 0.5 / 5
    assert found["Hugging Face float32"] == 0.0


def test_sentences_of_labelled_files(module: Callable[[str], Any], tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("0 no movement , no yuks\n1 a fine one\n1 and more\n", encoding="utf-8")
    assert module("encoding").sentences(path, 2, made_up=False) == ["no movement , no yuks", "a fine one"]
    with pytest.raises(SystemExit, match="missing"):
        module("encoding").sentences(tmp_path / "missing.txt", 2, made_up=False)


@pytest.mark.slow
@pytest.mark.peers
def test_encoding_measures_all_in_all_cells(tmp_path: Path, run_script: Callable[..., str]) -> None:
    pytest.importorskip("transformers", reason="needs the extra peers")
    printed = run_script("encoding.py")
    cells = json.loads((tmp_path / "encoding.json").read_text(encoding="utf-8"))["encoding"]
    assert [(cell["model"], cell["count"]) for cell in cells] == [("BERT", 60), ("ViT", 1), ("ViT", 2)]
    for cell in cells:
        assert not any(row["error"] for row in cell["rows"]), cell["rows"]
        assert cell["best"].keys() == {"zhuyi", "Hugging Face"}
        assert cell["distances"]["zhuyi float32"] < 1e-5
        assert max(cell["distances"].values()) < 0.1
    assert "best of Hugging Face" in printed
