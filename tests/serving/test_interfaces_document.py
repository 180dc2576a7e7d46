"""The examples of docs/interfaces.md work as they stand, but for the server's address and the runs' names."""

import contextlib
import io
import re
import shutil
import subprocess
from pathlib import Path

import httpx2
import pytest
from tests.serving.test_openai import sound
from tests.serving.test_own_routes import picture, table

DOCUMENT = Path(__file__).parents[2] / "docs" / "interfaces.md"
NAMES = {"my-writer": "writer", "my-chat": "talker", "my-encoder": "filler", "my-ears": "ears", "my-labels": "labels"}


def blocks(language: str, address: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert found
    for shown, own in {"http://127.0.0.1:8000": address, **NAMES}.items():
        found = [block.replace(shown, own) for block in found]
    # The tiny runs know numbers alone, and no word of the examples.
    return [
        block.replace("今天天气很好。", "三五。").replace("今天天气", "三五").replace("北京", "三") for block in found
    ]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "speech.wav").write_bytes(sound()[0])
    (tmp_path / "cat.png").write_bytes(picture())
    (tmp_path / "speeds.csv").write_text(table(), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python(address: str, files: Path) -> None:
    for number, code in enumerate(blocks("python", address)):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, f"{DOCUMENT.name}, Python {number}", "exec"), {})
        assert printed.getvalue().strip()


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_curl(address: str, files: Path) -> None:
    for block in blocks("sh", address):
        found = subprocess.run(
            ["bash", "-e", "-c", block.replace("curl -s", "curl -sS --fail-with-body")],
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
        assert found.returncode == 0, found.stdout + found.stderr
    assert (files / "overlay.png").read_bytes().startswith(b"\x89PNG")


def test_every_route_is_told_of(client: httpx2.Client) -> None:
    text = DOCUMENT.read_text(encoding="utf-8") + DOCUMENT.with_name("serving.md").read_text(encoding="utf-8")
    missing = [path for path in client.get("/openapi.json").json()["paths"] if path.partition("/{")[0] not in text]
    assert not missing
