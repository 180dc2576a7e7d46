"""What is sent of the page: all of it, nothing else, and under a policy that runs nothing foreign."""

import hashlib
import re
from base64 import b64encode

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from zhuyi.serving.page_files import index, page_files, router


@pytest.fixture(scope="module")
def client() -> TestClient:
    app = FastAPI()
    app.include_router(router)
    return TestClient(app)


def modules() -> dict[str, str]:
    return {name: file.content.decode() for name, file in page_files().items() if name.endswith(".js")}


def test_the_page_names_what_is_there(client: TestClient) -> None:
    html = client.get("/").text
    named = re.findall(r'(?:href|src)="(page/[^"]+)"', html)
    assert "page/page.js" in named
    for name in named:
        assert client.get("/" + name).status_code == 200, name


def test_each_module_is_sent_as_one_and_finds_what_it_imports(client: TestClient) -> None:
    assert {"page.js", "language.js", "curves.js"} <= modules().keys()
    for name, code in modules().items():
        assert client.get(f"/page/{name}").headers["content-type"] == "text/javascript; charset=utf-8"
        imported = re.findall(r'^(?:import|\} from|export .* from).*"([^"]+)";$', code, re.M)
        assert {each.partition("/")[0] for each in imported} <= {"zhuyi"}, name
        assert {each.partition("/")[2] for each in imported} <= modules().keys(), name


def test_the_policy_lets_the_import_map_in_and_no_other_script_of_the_page(client: TestClient) -> None:
    answer = client.get("/")
    policy = dict(each.split(" ", 1) for each in answer.headers["content-security-policy"].split("; "))
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", answer.text, re.S)
    inside = [content for _, content in scripts if content]
    assert len(inside) == 1
    known = b64encode(hashlib.sha256(inside[0].encode()).digest()).decode()
    assert policy["script-src"] == f"'self' 'sha256-{known}'"
    assert policy["default-src"] == "'none'"
    assert policy["style-src"] == "'self'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert not re.search(r"\s(style|on\w+)=", answer.text)


def test_no_module_makes_markup_of_texts() -> None:
    for name, code in modules().items():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", code), (
            name
        )


def test_nothing_of_the_page_is_asked_of_another_server() -> None:
    for name, file in {**page_files(), "index.html": index()}.items():
        found = set(re.findall(r"(?:https?:)?//[\w-]+\.[\w.-]+", file.content.decode()))
        assert found <= {"http://www.w3.org"}, name  # the namespace of pictures


@pytest.mark.parametrize(
    "path",
    [
        "/page/",
        "/page/index.html",  # without its policy
        "/page/app.py",
        "/page/../app.py",
        "/page/%2e%2e/app.py",
        "/page/..%2fapp.py",
        "/page/..%5capp.py",
        "/page/%2fetc%2fpasswd",
        "/page/page.js%00",
        "/page/page.js/",
        "/page/attention_page.html/../page.js",
    ],
)
def test_nothing_else_is_sent(client: TestClient, path: str) -> None:
    answer = client.get(path, follow_redirects=False)
    assert answer.status_code in (307, 404) or answer.content == page_files()["page.js"].content
    assert b"import annotations" not in answer.content
    assert b"FastAPI" not in answer.content
    assert b"root:" not in answer.content


def test_what_the_browser_has_is_not_sent_again(client: TestClient) -> None:
    for path in ("/", "/page/page.js"):
        first = client.get(path)
        again = client.get(path, headers={"If-None-Match": f'"other", {first.headers["etag"]}'})
        assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
        assert client.get(path, headers={"If-None-Match": '"other"'}).content == first.content
        assert client.head(path).headers["etag"] == first.headers["etag"]
    assert client.get("/").headers["etag"] != client.get("/page/page.js").headers["etag"]


def test_the_chinese_font_is_there_for_who_has_none(client: TestClient) -> None:
    pytest.importorskip("pylopdf_fonts_zh_cn")
    answer = client.get("/page/chinese.otf", headers={"Range": "bytes=0-3"})
    assert (answer.status_code, answer.content) == (206, b"OTTO")
