"""`zhuyi serve` as a process of its own, and connections that do not let others wait."""

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.responses import Response
from tests.serving.tiny_runs import write_translations
from tests.tiny import command, number_pairs

import zhuyi
from zhuyi.cli import main
from zhuyi.serving.app import create_app
from zhuyi.serving.connections import TimedProtocol
from zhuyi.serving.engine import Engine
from zhuyi.serving.settings import ServeSettings

LONG = "\n".join(source for source, _ in number_pairs(300, digits=(9,), seed=9))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    write_translations(folder)
    return folder


def ask(address: str, path: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def until_ready(address: str) -> None:
    for _ in range(2000):
        with contextlib.suppress(urllib.error.URLError):
            if ask(address, "/readyz")["ready"]:
                return
        time.sleep(0.05)
    raise AssertionError("never ready")


def test_a_server_translates_and_drains(folder: Path) -> None:
    """Told to end while it works, it answers whom it has let in, takes nobody more, and ends well."""
    arguments = ("serve", folder / "zh-en", f"back={folder / 'en-zh'}", "--port", "0", "--precision", "float32")
    with subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            address = process.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:")
            until_ready(address)
            wanted = zhuyi.load(folder / "zh-en").translate(["三五。"])[0].text
            found = ask(address, "/translate", {"q": "三五。", "source": "zh", "target": "en"})
            assert found["translatedText"] == wanted
            late: list[Any] = []
            asked = {"q": LONG, "source": "zh", "target": "en"}
            thread = threading.Thread(target=lambda: late.append(ask(address, "/translate", asked)))
            thread.start()
            while not ask_count(address):
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            thread.join(120)
            assert late[0]["translatedText"].count("\n") == LONG.count("\n")
            assert process.wait(60) == 0
            assert process.stdout.read() == ""
            said = process.stderr.read()
            assert "serving zh-en: translation, zh to en, in float32" in said and "serving back" in said
            assert "Traceback" not in said and "ERROR" not in said
            with pytest.raises(urllib.error.URLError):
                ask(address, "/healthz")
        finally:
            process.kill()


def ask_count(address: str) -> float:
    """Requests that the server has."""
    with urllib.request.urlopen(f"{address}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line for line in lines if line.startswith("zhuyi_queue_requests ")).split()[1])


Here = Callable[..., tuple[int, str, str]]


@pytest.fixture
def serve_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """The command in this process: its status, its standard output and its standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["zhuyi", "serve", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        found = capsys.readouterr()
        return int(ended.value.code or 0), found.out, found.err

    return call


def test_bad_usage_is_one_line_and_status_2(folder: Path, tmp_path: Path, serve_here: Here) -> None:
    run = folder / "zh-en"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for arguments, reason in (
            ([], "nothing to serve"),
            ([folder / "none"], "neither a run folder"),
            ([run, run], "NAME="),
            ([run, "--host", "0.0.0.0"], "--open-to-all"),
            ([run, "--api-keys", tmp_path / "none"], "--make-key"),
            (["--make-key", "ann"], "--api-keys"),
            ([run, "--port", taken.getsockname()[1]], "cannot listen"),
        ):
            status, out, err = serve_here(*arguments)
            assert (status, out) == (2, ""), err
            assert err.startswith("error: ") and reason in err and err.count("\n") == 1


def test_a_key_is_printed_once(tmp_path: Path, serve_here: Here) -> None:
    status, out, _ = serve_here("--make-key", "ann", "--api-keys", tmp_path / "keys")
    assert status == 0
    assert out.startswith("zhuyi-") and out.strip() not in (tmp_path / "keys").read_text()


def test_a_run_that_cannot_be_loaded_ends_the_server(folder: Path, tmp_path: Path, serve_here: Here) -> None:
    run = tmp_path / "broken"
    shutil.copytree(folder / "zh-en", run)
    (run / "model.safetensors").write_bytes(b"nothing")
    before = signal.getsignal(signal.SIGTERM)
    status, _, err = serve_here(run, "--port", "0")
    assert status == 2 and err.splitlines()[-1].startswith("error: ")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "x="], "an empty name: neither a run folder nor a shipped model"),
        (["serve", "other=no-such-run"], "no-such-run: neither a run folder nor a shipped model"),
        (["watch", "no-such-run"], "no-such-run: no such folder"),
    ],
)
def test_a_name_that_no_run_has_is_refused_before_anything_heavy_is_imported(
    arguments: list[str], message: str
) -> None:
    code = f"""
import sys
from zhuyi.cli import main
sys.argv = ["zhuyi", *{arguments}]
try:
    main()
except SystemExit as end:
    print(end.code, [name for name in ("torch", "fastapi", "uvicorn") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert done.stdout == "2 []\n"
    assert done.stderr.startswith(f"error: {message}")


@contextlib.contextmanager
def connected(**settings: Any) -> Iterator[tuple[str, int]]:
    """An address where the application listens as `zhuyi serve` has it, without a run."""
    chosen = ServeSettings(port=0, **settings)
    app = create_app(Engine([], chosen), chosen)

    app.add_api_route("/large", lambda: Response(b"x" * (64 * 2**20)), include_in_schema=False)
    config = uvicorn.Config(app, http=TimedProtocol, log_config=None, lifespan="on", ws="none")
    server = uvicorn.Server(config)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield listening.getsockname()
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


def test_a_head_that_does_not_come_is_cut_off() -> None:
    with (
        connected(read_seconds=0.4) as address,
        socket.create_connection(address) as silent,
        socket.create_connection(address) as slow,
    ):
        slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
        for _ in range(200):  # a byte now and then does not help
            try:
                slow.sendall(b"x")
                silent.sendall(b"")
            except OSError:
                break
            time.sleep(0.05)
        else:
            raise AssertionError("a head may take as long as it likes")
        silent.settimeout(30)
        with contextlib.suppress(ConnectionResetError):
            assert silent.recv(10) == b""
        assert ask(f"http://127.0.0.1:{address[1]}", "/healthz") == {"status": "ok"}


def test_who_does_not_take_the_answer_is_cut_off() -> None:
    with connected(read_seconds=0.4) as address, socket.create_connection(address) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        time.sleep(0.1)
        assert ask(f"http://127.0.0.1:{address[1]}", "/healthz") == {"status": "ok"}
        client.settimeout(30)
        received = 0
        time.sleep(1.0)
        with contextlib.suppress(ConnectionResetError):
            while chunk := client.recv(2**20):
                received += len(chunk)
        assert received < 64 * 2**20


def test_a_connection_that_is_kept_may_ask_again() -> None:
    with connected(read_seconds=0.5) as address, socket.create_connection(address) as client:
        client.settimeout(30)
        for _ in range(4):  # longer altogether than one head may take
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                answer += client.recv(1000)
            assert answer.startswith(b"HTTP/1.1 200")
            time.sleep(0.2)
