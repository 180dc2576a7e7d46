"""Requests that mean harm, or go wrong half-way: each is refused or survived, and others are served on."""

import gzip
import io
import json
import socket
import struct
import time
import wave
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import numpy as np
import pyarrow
import pytest
import soundfile
from PIL import Image
from pyarrow import parquet
from tests.serving.tiny_runs import SENSORS, serving

from zhuyi.serving.engine import Engine

SETTINGS: dict[str, Any] = {"max_audio_seconds": 5.0, "max_picture_pixels": 100_000, "read_seconds": 2.0}


@pytest.fixture(scope="module")
def served(run_folders: list[Path]) -> Iterator[tuple[str, Engine]]:
    with serving(run_folders, **SETTINGS) as found:
        yield found


@pytest.fixture(scope="module")
def ask(served: tuple[str, Engine]) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=served[0], timeout=60) as found:
        yield found


@pytest.fixture(autouse=True)
def others_are_served(ask: httpx2.Client, served: tuple[str, Engine]) -> Iterator[None]:
    """Whatever was asked before."""
    yield
    answer = ask.post("/translate", json={"q": "三五。", "source": "zh", "target": "en"})
    assert answer.status_code == 200 and answer.json()["translatedText"]
    wait_until(lambda: served[1].in_system == 0)


def wait_until(holds: Any, seconds: float = 20.0) -> None:
    """The tests' own time limit is longer."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.01)


@contextmanager
def connected(served: tuple[str, Engine]) -> Iterator[socket.socket]:
    address = urlsplit(served[0])
    with socket.create_connection((address.hostname, address.port), timeout=30) as found:
        yield found


def head(path: str, length: int, kind: str = "application/json") -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n".encode()
    )


# Connections.


def test_a_body_that_never_comes(served: tuple[str, Engine]) -> None:
    with connected(served) as slow:
        slow.sendall(head("/v1/translate", 1000) + b'{"texts": ["')
        answer = slow.recv(4096)
        assert b" 408 " in answer.split(b"\r\n")[0]


def test_a_client_that_leaves_in_mid_stream_frees_its_work(served: tuple[str, Engine]) -> None:
    body = json.dumps(
        {"model": "writer", "prompt": "x", "n": 8, "max_tokens": 500, "stream": True, "temperature": 2}
    ).encode()
    with connected(served) as leaving:
        leaving.sendall(head("/v1/completions", len(body)) + body)
        assert leaving.recv(100).startswith(b"HTTP/1.1 200")
        assert served[1].in_system == 1
    wait_until(lambda: served[1].in_system == 0)


def test_a_client_that_leaves_before_its_answer_frees_its_work(served: tuple[str, Engine]) -> None:
    body = json.dumps({"model": "writer", "prompt": "x", "n": 8, "max_tokens": 500}).encode()
    with connected(served) as leaving:
        leaving.sendall(head("/v1/completions", len(body)) + body)
        wait_until(lambda: served[1].in_system == 1)
    wait_until(lambda: served[1].in_system == 0)


# Bodies.


def test_fifty_megabytes_are_refused(ask: httpx2.Client) -> None:
    for kind in ("application/json", "application/x-www-form-urlencoded", "application/octet-stream"):
        answer = ask.post("/v1/translate", content=b" " * 50_000_000, headers={"Content-Type": kind})
        assert answer.status_code == 413 and "larger than" in answer.json()["error"]["message"]
    answer = ask.post("/translate", files={"q": (None, b"x" * 50_000_000)})
    assert answer.status_code == 413 and isinstance(answer.json()["error"], str)


@pytest.mark.parametrize("path", ["/translate", "/v1/translate", "/v1/completions", "/v1/classify", "/v1/attention"])
@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"q":' * 50_000, b'{"q":' * 50_000 + b"1" + b"}" * 50_000])
def test_a_deep_json_is_refused(ask: httpx2.Client, path: str, body: bytes) -> None:
    answer = ask.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400 and "nested deeper" in answer.text


def test_a_form_of_very_many_fields_is_refused(ask: httpx2.Client) -> None:
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    assert ask.post("/translate", content=b"a=1&" * 100_000, headers=kind).status_code == 400
    for path in ("/v1/classify", "/v1/attention", "/v1/forecast", "/v1/audio/transcriptions"):
        files = [(f"f{i}", ("x", b"x")) for i in range(1500)]
        assert ask.post(path, files=files).status_code == 400


def test_long_texts_are_refused_or_translated(ask: httpx2.Client) -> None:
    json = {"q": "<a " * 30_000, "source": "zh", "target": "en", "format": "html"}
    answer = ask.post("/translate", json=json)
    assert answer.status_code == 200 and answer.json()["translatedText"] == json["q"]
    assert ask.post("/v1/translate", json={"texts": ["一" * 200_000]}).status_code == 400
    assert ask.post("/v1/fill", json={"text": "[MASK]" * 16_000}).status_code == 400


# Pictures.


def png(width: int, height: int, data: bytes) -> bytes:
    """A PNG of one colour channel with this for its packed pixels."""

    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", size) + part(b"IDAT", data) + part(b"IEND", b"")


@pytest.mark.parametrize(
    "picture",
    [
        png(60_000, 60_000, zlib.compress(b"\0" * 10_000_000)),
        png(2**31 - 1, 2**31 - 1, b""),
        png(400, 300, zlib.compress(b"\0" * 100)),  # 120,000 pixels, a little too many
        png(100, 100, b"no zlib"),
        png(0, 0, b""),
        b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0\0\0;",
        b"\x89PNG\r\n\x1a\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"",
    ],
    ids=["bomb", "largest", "too-many", "damaged", "none", "gif", "head", "svg", "postscript", "empty"],
)
@pytest.mark.parametrize("path", ["/v1/classify", "/v1/attention"])
def test_a_picture_that_unpacks_to_too_much_or_is_none(ask: httpx2.Client, path: str, picture: bytes) -> None:
    answer = ask.post(path, files={"file": ("p.png", picture, "image/png")})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("p.png: ")


def test_a_picture_within_the_limit_is_taken(ask: httpx2.Client) -> None:
    file = io.BytesIO()
    Image.new("L", (300, 300), 9).save(file, "PNG")
    name = "../../<script>\n\x00.png"
    answer = ask.post("/v1/classify", files={"file": (name, file.getvalue())})
    assert answer.status_code == 200


# Sounds.


def wav(data: bytes, *, declared: int | None = None, rate: int = 16_000, channels: int = 1) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setparams((channels, 2, rate, 0, "NONE", ""))
        written.writeframes(data)
    content = bytearray(file.getvalue())
    if declared is not None:
        content[40:44] = struct.pack("<I", declared)
    return bytes(content)


def flac(seconds: int) -> bytes:
    """Silence, of which an hour takes some kilobytes."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros(seconds * 16_000, np.int16), 16_000, format="FLAC")
    return file.getvalue()


@pytest.mark.parametrize(
    ("sound", "message"),
    [
        (wav(b"\0" * 1000, declared=0x7FFFFF00), ""),
        (wav(b"\0" * 1000, declared=1_000_000), "its header says 1,000,000 bytes of sound, but 1,000 are there"),
        (wav(b"\0" * 400_000), "longer than the 5 s"),
        (flac(600), "longer than the 5 s"),
        (wav(b"\0" * 1000, rate=2_000_000_000), "samples a second"),
        (wav(b"\0" * 65_000, channels=1024), ""),
        (b"RIFF\xff\xff\xff\xffWAVE", "not sound"),
        (b"ID3" + b"\0" * 500, "not sound"),
        (b"", "not sound"),
    ],
    ids=["endless", "cut", "long", "packed", "rate", "channels", "head", "mp3", "empty"],
)
def test_a_sound_whose_header_lies(ask: httpx2.Client, sound: bytes, message: str) -> None:
    answer = ask.post("/v1/audio/transcriptions", files={"file": ("s.wav", sound)}, data={"model": "ears"})
    assert answer.status_code in ((400,) if message else (200, 400)), answer.text
    assert message in answer.text


# Tables.


def test_tables_that_unpack_to_too_much_are_refused(ask: httpx2.Client) -> None:
    def sent(content: bytes) -> str:
        answer = ask.post("/v1/forecast", files={"file": ("t.csv", content)})
        assert answer.status_code == 400
        return str(answer.json()["error"]["message"])

    assert "unpacks to more than 64 MiB" in sent(gzip.compress(b"time,north\n" + b"1,2\n" * 20_000_000))
    zeros = pyarrow.array(np.zeros(6_000_000))
    file = io.BytesIO()
    parquet.write_table(pyarrow.table({name: zeros for name in ("time", *SENSORS)}), file)
    assert "are more than 20,000,000 values" in sent(file.getvalue())
    file = io.BytesIO()
    texts = pyarrow.DictionaryArray.from_arrays(np.zeros(20_000, np.int32), ["x" * 1_000_000])
    parquet.write_table(pyarrow.table({"time": texts, **{name: zeros[:20_000] for name in SENSORS}}), file)
    assert "may be too long" in sent(file.getvalue())


def test_nothing_is_left_behind(ask: httpx2.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ask.post("/v1/forecast", files={"file": ("t.csv", b"time,north\n")})
    ask.post("/v1/attention", files={"file": ("p.png", png(8, 8, zlib.compress(b"\0" * 72)))})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["/v1/translate", "/translate", "/v1/models/<script>", "/<script>alert(1)</script>"])
def test_nothing_is_reflected_as_markup(ask: httpx2.Client, path: str) -> None:
    """What is told of a request is JSON, which no browser takes for a page."""
    for answer in (ask.get(path), ask.post(path, json={"<script>": "<script>"})):
        assert answer.headers["content-type"].startswith("application/json")
