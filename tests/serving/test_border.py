"""What a request must be like to be let in, and what is told to those who are not."""

import asyncio
import hashlib
import json
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from pydantic import ValidationError
from starlette.testclient import TestClient

from zhuyi.errors import InputError
from zhuyi.serving import bodies
from zhuyi.serving.app import create_app
from zhuyi.serving.bodies import LARGE, check_json
from zhuyi.serving.border import Border
from zhuyi.serving.engine import Engine
from zhuyi.serving.keys import KeyRing, RateLimit, make_key
from zhuyi.serving.openai_forms import CompletionForm, EmbeddingForm
from zhuyi.serving.own_forms import TranslateForm
from zhuyi.serving.refusals import Malformed
from zhuyi.serving.settings import ServeSettings

HERE = "http://127.0.0.1:8000"


def client_of(**settings: Any) -> TestClient:
    """A client of a small application behind the border."""
    chosen = ServeSettings(**settings)
    engine = Engine([], chosen)
    app = create_app(engine, chosen)

    async def echo(request: Request) -> dict[str, Any]:
        return {"size": len(await request.body())}

    async def fail() -> None:
        raise RuntimeError("secret")

    app.add_api_route("/echo", echo, methods=["GET", "POST"], include_in_schema=False)
    app.add_api_route("/fail", fail, include_in_schema=False)
    return TestClient(app, base_url=HERE, client=("127.0.0.1", 5000))


def message(response: Any) -> str:
    error = response.json()["error"]
    text: str = error if isinstance(error, str) else error["message"]
    return text


def test_a_body_of_any_size_but_no_larger() -> None:
    client = client_of(max_body_bytes=1000)
    assert client.post("/echo", content=b"x" * 1000).json() == {"size": 1000}
    refused = client.post("/echo", content=b"x" * 1001)
    assert refused.status_code == 413 and "1,000 bytes" in message(refused)

    def unannounced() -> Iterator[bytes]:
        for _ in range(11):
            yield b"x" * 100

    assert client.post("/echo", content=unannounced()).status_code == 413


def checked(body: bytes, max_depth: int) -> None:
    asyncio.run(check_json(body, max_depth))


def test_a_deep_or_huge_json_is_never_parsed() -> None:
    client = client_of(max_json_depth=5)
    assert client.post("/echo", content=b'{"a": [[[["}}}}\\"{{{{[["]]]]}').status_code == 200
    deep = client.post("/echo", content=b"[" * 6 + b"]" * 6)
    assert deep.status_code == 400 and "deeper than the 5" in message(deep)
    checked(json.dumps({"q": "[" * 100, "r": ['"', "\\", '\\"[[[[[[']}).encode(), 2)
    with pytest.raises(Malformed):
        checked(b'{"a": "\\\\"[[', 2)
    with pytest.raises(Malformed, match="200,000 values"):
        checked(b"[" + b"[]," * 300_000, 5)
    for many in (b"1," * 200_000, b'"",' * 200_000, b'"' * 800_001):
        with pytest.raises(Malformed, match="200,000 values"):
            checked(b"[" + many + b"1]", 5)
    checked(json.dumps(["[,:" * 100_000]).encode(), 5)
    with pytest.raises(Malformed, match="10,000 names"):
        checked(json.dumps({str(i): 1 for i in range(10_001)}).encode(), 5)
    with pytest.raises(Malformed, match="UTF-8"):
        checked("[[]]".encode("utf-16"), 5)
    checked(b"[]," * 40 + b'"' + b'\\"' * 1_000_000, 5)  # hours, where each quote is looked at anew


@pytest.mark.parametrize("before", range(4))
def test_escapes_are_read_wherever_a_long_json_is_cut(before: int) -> None:
    """Backslashes and quotes that are text, and then an array too many that is none, or is one."""
    text = b'["' + b"x" * (LARGE - 8 + before) + b"\\" * 10 + b'\\"'
    checked(text + b'[[["]', 1)
    with pytest.raises(Malformed, match="nested deeper"):
        checked(text + b'\\\\", [[[', 1)


def test_a_large_json_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    others_are_served = threading.Event()
    monkeypatch.setattr(bodies, "_check_json", lambda *_: others_are_served.wait(30) or pytest.fail("they were not"))

    async def both() -> None:
        check = asyncio.ensure_future(check_json(b" " * (LARGE + 1), 5))
        await asyncio.sleep(0)
        others_are_served.set()
        await check

    asyncio.run(both())


@pytest.mark.parametrize("prompt", [[1, *["a"] * 9000], [-1] * 9000, [[-1]] * 9000, [["a"]] * 9000])
def test_of_many_wrong_values_few_are_told(prompt: list[object]) -> None:
    """Each would cost a report, whose making holds up all others."""
    for form, values in (
        (CompletionForm, {"model": "", "prompt": prompt}),
        (EmbeddingForm, {"model": "", "input": [[]] * 9000}),
        (TranslateForm, {"texts": [1] * 9000}),
    ):
        with pytest.raises(ValidationError) as error:
            form.model_validate(values)
        assert error.value.error_count() < 10


def test_other_names_and_other_pages_are_turned_away() -> None:
    client = client_of()
    for host in ("localhost", "127.0.0.1:8000", "[::1]:9"):
        assert client.get("/healthz", headers={"host": host}).status_code == 200
    for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8000", "", "[", "a:b:c"):
        refused = client.get("/healthz", headers={"host": host})
        assert refused.status_code in (400, 403), host
    assert client.post("/echo", headers={"origin": "http://127.0.0.1:8000"}).status_code == 200
    for origin in ("http://evil.example", "null", "http://127.0.0.1:8001", "http://localhost:8000"):
        refused = client.post("/echo", headers={"origin": origin})
        assert refused.status_code == 403, origin
    assert "access-control-allow-origin" not in client.get("/healthz").headers


def test_names_and_pages_that_were_allowed() -> None:
    client = client_of(allowed_hosts=("MT.example",), allowed_origins=("https://site.example",))
    assert client.get("/healthz", headers={"host": "mt.example"}).status_code == 200
    origin = {"origin": "https://site.example"}
    assert client.post("/echo", headers=origin).headers["access-control-allow-origin"] == "https://site.example"
    asked = {**origin, "access-control-request-method": "POST"}
    assert client.options("/echo", headers=asked).status_code == 200
    assert client.post("/echo", headers={"origin": "https://other.example"}).status_code == 403


def test_without_a_key_nothing_is_done(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    key, other = make_key(path, "ann"), make_key(path, "bob")
    client = client_of(api_keys=path)
    for open_path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
        assert client.get(open_path).status_code in (200, 503)
    refused = client.get("/metrics")
    assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
    for wrong in ("", "Bearer", f"Bearer {key}x", f"Basic {key}", "Bearer " + hashlib.sha256(key.encode()).hexdigest()):
        assert client.post("/echo", headers={"authorization": wrong}).status_code == 401
    for headers in ({"authorization": f"Bearer {key}"}, {"authorization": f"bearer  {other}"}, {"x-api-key": key}):
        assert client.post("/echo", headers=headers).status_code == 200
    assert client.post(f"/echo?api_key={key}").status_code == 200
    # LibreTranslate's clients send it in the body, its other routes' do not.
    assert client.post("/translate", data={"q": "x", "api_key": key}).status_code != 401
    assert client.post("/translate", json={"q": "x", "api_key": key}).status_code != 401
    half = b'{"api_key": "\\ud800"}'  # of a character
    for body in (b"", b"[1]", b"{", b"\xff", b'{"api_key": {"a": 1}}', b'{"api_key": "x"}', half):
        refused = client.post("/translate", content=body)
        assert refused.status_code == 401 and isinstance(refused.json()["error"], str), body
    assert client.post("/echo", json={"api_key": key}).status_code == 401


def test_a_key_is_kept_as_its_hash_and_goes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    key = make_key(path, "ann")
    assert key not in path.read_text() and hashlib.sha256(key.encode()).hexdigest() in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    ring = KeyRing(path)
    assert ring.owner(key) == "ann" and ring.owner(key.upper()) is None and ring.owner("") is None
    second = make_key(path, "bob")
    assert ring.owner(second) == "bob"
    path.write_text(path.read_text().splitlines()[1] + "\n# a remark\n\n")
    os.utime(path, ns=(1, 1))  # written in the same tick of the clock
    assert ring.owner(key) is None and ring.owner(second) == "bob"
    path.unlink()
    assert ring.owner(second) == "bob"
    for name in ("", "two words", "bell\a"):
        with pytest.raises(InputError, match="no name"):
            make_key(path, name)
    make_key(path, "ann")
    with pytest.raises(InputError, match="already"):
        make_key(path, "ann")
    with pytest.raises(InputError, match="--make-key"):
        KeyRing(tmp_path / "none")
    path.write_text("hello\n")
    with pytest.raises(InputError, match="line 1"):
        KeyRing(path)


def test_so_many_a_minute_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("zhuyi.serving.keys.time.monotonic", lambda: now[0])
    rate = RateLimit(6)
    assert [rate.take("ann") for _ in range(6)] == [0] * 6
    wait = rate.take("ann")
    assert 10 <= wait <= 11 and rate.take("bob") == 0
    now[0] += wait
    assert rate.take("ann") == 0 and rate.take("ann") > 0
    monkeypatch.setattr("zhuyi.serving.keys.MOST_VISITORS", 50)
    for visitor in range(1000):
        rate.take(str(visitor))
    assert len(rate._left) == 50
    assert all(RateLimit(0).take("ann") == 0 for _ in range(1000))
    key = make_key(tmp_path / "keys", "ann")
    client = client_of(api_keys=tmp_path / "keys", requests_per_minute=2)
    headers = {"authorization": f"Bearer {key}"}
    assert [client.post("/echo", headers=headers).status_code for _ in range(3)] == [200, 200, 429]
    refused = client.post("/echo", headers=headers)
    assert int(refused.headers["retry-after"]) >= 1
    assert client.get("/healthz").status_code == 200


def test_what_fails_is_one_line_without_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    client = client_of()
    failed = client.get("/fail")
    assert failed.status_code == 500 and "secret" not in failed.text and "secret" in caplog.text
    assert failed.json()["error"]["type"] == "server_error"
    assert client.get("/healthz").status_code == 200


def test_whatever_is_counted_is_few(tmp_path: Path) -> None:
    client = client_of()
    for i in range(30):
        client.get(f"/no/such/{i}")
        client.request(f"M{i}", "/echo")
    client.get("/echo")
    text = client.get("/metrics").text
    assert 'zhuyi_requests_total{method="GET",route="other",status="404"} 30.0' in text
    assert 'zhuyi_requests_total{method="GET",route="/echo",status="200"} 1.0' in text
    assert "/no/such" not in text and "M3" not in text
    assert "zhuyi_queue_requests 0.0" in text and 'zhuyi_request_seconds_count{route="/echo"}' in text


def test_until_the_runs_are_loaded_the_server_says_so() -> None:
    client = client_of()  # outside its life: nothing is loaded
    assert client.get("/healthz").status_code == 200
    waiting = client.get("/readyz")
    assert waiting.status_code == 503 and waiting.headers["retry-after"] and waiting.json()["ready"] is False


def test_the_docs_are_ours_alone() -> None:
    client = client_of()
    page = client.get("/docs")
    assert page.status_code == 200 and "<script" not in page.text and "http" not in page.text.replace("http-equiv", "")
    assert "/healthz" in page.text and "default-src 'none'" in page.headers["content-security-policy"]
    assert client.get("/openapi.json").json()["info"]["title"] == "zhuyi"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"host": "0.0.0.0"}, "--open-to-all"),
        ({"host": "192.168.1.5"}, "--make-key"),
        ({"port": 70000}, "port"),
        ({"queue_size": 0}, "queue_size"),
        ({"request_seconds": 0}, "request_seconds"),
        ({"batch_wait_seconds": -1}, "batch_wait_seconds"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ServeSettings(**settings)


def test_wider_only_with_keys_or_on_purpose(tmp_path: Path) -> None:
    assert ServeSettings(host="0.0.0.0", open_to_all=True).is_loopback is False
    assert ServeSettings(host="0.0.0.0", api_keys=tmp_path / "keys").is_loopback is False
    assert all(ServeSettings(host=host).is_loopback for host in ("127.0.0.1", "127.0.0.9", "::1", "localhost"))


# The border by itself, message by message.


def passed(messages: list[Any], app: Any, **settings: Any) -> list[dict[str, Any]]:
    """What is sent to a client from whom these messages come: seconds to wait, or a message."""
    chosen = ServeSettings(**settings)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        while messages:
            following = messages.pop(0)
            if isinstance(following, dict):
                return following
            await asyncio.sleep(following)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/echo",
        "headers": [(b"host", b"localhost")],
        "query_string": b"",
    }
    border = Border(app, Engine([], chosen), chosen)
    room = border._room._left
    asyncio.run(border(scope, receive, send))
    assert border._room._left == room
    return sent


def part(body: bytes, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


GONE = {"type": "http.disconnect"}


def test_a_body_that_does_not_come_is_given_up() -> None:
    async def never(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("it was let in")

    sent = passed([part(b"x", True), 60], never, read_seconds=0.05)
    assert sent[0]["status"] == 408
    sent = passed([part(b"x", True), *[0.03, part(b"x", True)] * 50], never, read_seconds=0.3, request_seconds=0.2)
    assert sent[0]["status"] == 408  # nor a byte at a time
    assert passed([part(b"x", True), GONE], never) == []


def test_who_leaves_takes_the_request_along() -> None:
    ended: list[str] = []

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["body"] == b"xy"
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    assert passed([part(b"x", True), part(b"y", False), 0.05, GONE], slow) == []
    assert ended == ["cancelled"]


def test_who_leaves_after_the_answer_disturbs_nothing() -> None:
    async def answered(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})
        await asyncio.sleep(0.05)
        ended.append("whole")

    ended: list[str] = []
    assert [each["type"] for each in passed([part(b"", False), 0.01, GONE], answered)][-1] == "http.response.body"
    assert ended == ["whole"]


def test_who_does_not_keep_time_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zhuyi.serving.border.GRACE_SECONDS", 0.05)

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    assert passed([part(b"", False)], endless, request_seconds=0.05)[0]["status"] == 504


def test_an_application_that_listens_hears_of_the_end() -> None:
    heard: list[str] = []

    async def listening(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        heard.append((await receive())["type"])

    passed([part(b"", False), 0.02, GONE], listening)
    assert heard in (["http.disconnect"], [])  # it may be cancelled first


def test_no_more_bodies_at_once_than_memory_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zhuyi.serving.border.BODIES_AT_ONCE", 0)

    async def never(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("it was let in")

    assert passed([part(b"x", False)], never)[0]["status"] == 429
    # A body counts as it comes, not first when all of it is there.
    assert passed([part(b"x", True), 60], never)[0]["status"] == 429


def test_a_line_that_is_no_key_leaves_the_others_as_they_were(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys"
    ann = make_key(path, "ann")
    ring = KeyRing(path)
    path.write_text(path.read_text(encoding="utf-8") + "nonsense", encoding="utf-8")
    assert [ring.owner(ann), ring.owner(ann), ring.owner("other")] == ["ann", "ann", None]
    assert len(caplog.records) == 1
    assert "line 2: expected a hash and a name" in caplog.text
    path.write_text(path.read_text(encoding="utf-8").split("\n")[0], encoding="utf-8")  # without a newline at its end
    bob = make_key(path, "bob")
    assert [ring.owner(ann), ring.owner(bob)] == ["ann", "bob"]
