"""The server of the page that watches."""

import json
import signal
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import uvicorn
from tests.serving.watched import evaluated, new_run, watching
from tests.tiny import command

from zhuyi.errors import InputError
from zhuyi.run_folder import RunFolder
from zhuyi.serving.listening import http_config, listening_socket
from zhuyi.serving.settings import ServeSettings
from zhuyi.serving.watch_app import create_watch_app, serve_watch
from zhuyi.serving.watched_runs import Watch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    found = new_run(tmp_path_factory.mktemp("watched") / "run")
    evaluated(found, 10)
    return found


@pytest.fixture(scope="module")
def address(folder: RunFolder) -> Iterator[str]:
    with watching([folder.path]) as found:
        yield found


def ask(address: str, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    connection = HTTPConnection(urlsplit(address).netloc, timeout=30)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read().decode()
    finally:
        connection.close()


def test_the_page_may_run_its_own_modules_alone(address: str) -> None:
    status, headers, page = ask(address, "/")
    assert status == 200 and "@" not in page.partition("<body>")[0]
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self' 'sha256-" in policy and "unsafe" not in policy
    assert ask(address, "/", "HEAD")[0] == 200
    for name in ("watch.js", "curves.js", "style.css", "chinese.css"):
        assert ask(address, f"/page/{name}")[0] == 200
    for path in ("/page/nothing.js", "/page/..%2Fwatch_page.html", "/docs", "/openapi.json", "/config.json"):
        assert ask(address, path)[0] == 404


def test_news_are_of_the_runs(address: str) -> None:
    status, _, body = ask(address, "/news")
    (run,) = json.loads(body)["runs"]
    assert status == 200 and run["name"] == "run" and [row["step"] for row in run["metrics"]["rows"]] == [10]
    told = {"run": {kind: [run[kind]["generation"], run[kind]["count"]] for kind in ("metrics", "samples")}}
    (run,) = json.loads(ask(address, f"/news?known={quote(json.dumps(told))}")[2])["runs"]
    assert run["metrics"]["rows"] == run["samples"]["rows"] == []


@pytest.mark.parametrize(
    "known", ["", "[", "3", '{"run": 3}', '{"run": {"metrics": [1]}}', '{"run": {"metrics": ["x", 1]}}']
)
def test_what_is_wrongly_asked_is_refused(address: str, known: str) -> None:
    status, _, body = ask(address, f"/news?known={quote(known)}")
    assert status == 400 and json.loads(body)["error"]["param"] == "known"


def test_whoever_asks_for_nothing_is_let_go(folder: RunFolder) -> None:
    """The limits of `zhuyi serve`: of a head's time, and of connections."""
    settings = ServeSettings(port=0, read_seconds=0.2, max_connections=3)
    config = http_config(create_watch_app(Watch([folder.path]), settings), settings)
    server = uvicorn.Server(config)
    with listening_socket(settings) as listening:
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        with socket.create_connection(listening.getsockname()[:2], timeout=30) as slow:
            slow.sendall(b"GET / HTTP/1.1\r\n")
            assert slow.recv(100) == b""
        held = [socket.create_connection(listening.getsockname()[:2], timeout=30) for _ in range(4)]
        held[-1].sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert held[-1].recv(100).startswith(b"HTTP/1.1 503")
        for each in held:
            each.close()
        server.should_exit = True
        thread.join(30)


def test_pages_of_others_learn_nothing(address: str) -> None:
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        status, _, body = ask(address, "/news", **headers)
        assert status == 403 and "loss" not in body


def test_a_port_that_is_taken_is_named(address: str, folder: RunFolder) -> None:
    port = urlsplit(address).port
    assert port is not None
    with pytest.raises(InputError, match=rf"cannot listen .*{port}.*--port"):
        serve_watch(Watch([folder.path]), ServeSettings(port=port))


def test_from_the_command_line(folder: RunFolder, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    with subprocess.Popen(
        command("watch", folder.path, "--port", "0"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            address = process.stdout.readline().strip()
            with urllib.request.urlopen(f"{address}/news", timeout=60) as answer:
                assert json.load(answer)["runs"][0]["name"] == "run"
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0 and process.stderr.read() == ""
        finally:
            process.kill()
    done = subprocess.run(
        command("watch", folder.path, "--export", out), capture_output=True, text=True, timeout=240, check=False
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, str(out), "")
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
