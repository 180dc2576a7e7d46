"""A name on the hub in the place of a folder, by a hub that is none."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.tiny import zhuyi

from zhuyi.errors import InputError
from zhuyi.interop.hub import fetch


class Missing(OSError):
    pass


class Unreachable(OSError):
    pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What was asked for, and what there is."""
    state: dict[str, Any] = {"asked": [], "files": ["config.json", "model.safetensors"]}
    module, errors = ModuleType("huggingface_hub"), ModuleType("huggingface_hub.errors")

    def snapshot_download(name: str, *, allow_patterns: list[str]) -> str:
        state["asked"].append((name, allow_patterns))
        if name == "nobody/nothing":
            raise Missing("404\nnot found")
        if name == "far/away":
            raise Unreachable("Got: ConnectError. An error happened while " + "trying " * 50)
        for file in state["files"]:
            if any(Path(file).match(pattern) for pattern in allow_patterns):
                (tmp_path / file).write_text("{}")
        return str(tmp_path)

    module.snapshot_download = snapshot_download  # type: ignore[attr-defined]
    errors.HfHubHTTPError, errors.LocalEntryNotFoundError = Missing, Unreachable  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    return state


def test_a_folder_is_never_asked_for(hub: dict[str, Any], tmp_path: Path) -> None:
    assert fetch(tmp_path) == tmp_path
    assert fetch("./not/there/at-all") == Path("./not/there/at-all")
    assert not hub["asked"]


def test_pickled_weights_only_where_there_are_no_others(hub: dict[str, Any], tmp_path: Path) -> None:
    assert fetch("somebody/opus") == tmp_path
    assert len(hub["asked"]) == 1 and not any("bin" in pattern for pattern in hub["asked"][0][1])
    (tmp_path / "model.safetensors").unlink()
    hub["files"] = ["config.json", "pytorch_model.bin"]
    fetch("somebody/opus")
    assert "pytorch_model*.bin" in hub["asked"][-1][1]
    assert (tmp_path / "pytorch_model.bin").exists()


def test_a_name_that_nobody_has(hub: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="nobody/nothing: no such folder, and the hub does not give it: 404 not found"):
        fetch("nobody/nothing")


def test_a_hub_that_cannot_be_reached(hub: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"^far/away: no such folder, and the hub cannot be reached [\w ]+$"):
        fetch("far/away")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r'no such folder; to take it as a name on the hub: pip install "zhuyi\[hf\]"'):
        fetch("somebody/opus")


def test_the_command_refuses_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "hf").mkdir()
    result = zhuyi("import", tmp_path / "hf", "--out", tmp_path / "run")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1 and "no config.json here" in result.stderr
    assert not (tmp_path / "run").exists()
