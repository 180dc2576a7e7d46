"""LibreTranslate's protocol, by the client of its own project and by hand."""

from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import httpx2
import pytest
from libretranslatepy import LibreTranslateAPI
from tests.serving.tiny_runs import serving

import zhuyi
from zhuyi.serving.languages import Detector
from zhuyi.serving.libretranslate import Offer
from zhuyi.tasks.languages import canonical

TEXT = "三五。"


def in_memory(run_folders: list[Path], name: str) -> Any:
    return zhuyi.load(next(folder for folder in run_folders if folder.name == name), "float32")


def post(client: httpx2.Client, **values: Any) -> httpx2.Response:
    return client.post("/translate", json=values)


def test_its_own_client_works_unchanged(address: str, run_folders: list[Path]) -> None:
    lt = LibreTranslateAPI(address)
    assert lt.languages() == [
        {"code": "en", "name": "English", "targets": ["en", "zh-Hans"]},
        {"code": "zh-Hans", "name": "Chinese", "targets": ["en", "zh-Hans"]},
    ]
    assert lt.detect("今天天气真好")[0]["language"] == "zh-Hans"
    expected = in_memory(run_folders, "zh-en").translate([TEXT])[0].text
    assert lt.translate(TEXT, "zh", "en") == expected
    with pytest.raises(HTTPError) as refused:
        lt.translate("x", "zz", "en")
    assert refused.value.code == 400
    refused.value.close()


@pytest.mark.parametrize("code", ["zh", "zh-Hans", "zh-CN", "ZH_hans", "zh-cn"])
def test_chinese_has_many_names(client: httpx2.Client, code: str) -> None:
    assert canonical(code) == "zh"
    assert (
        post(client, q=TEXT, source=code, target="en").json() == post(client, q=TEXT, source="zh", target="en").json()
    )
    assert post(client, q="three five.", source="en", target=code).status_code == 200


def test_json_forms_and_query_strings_are_alike(client: httpx2.Client) -> None:
    values = {"q": TEXT, "source": "zh", "target": "en"}
    answers = [
        client.post("/translate", json=values),
        client.post("/translate", data=values),
        client.post("/translate", files={name: (None, value) for name, value in values.items()}),
        client.post("/translate", params=values),
    ]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len({answer.text for answer in answers}) == 1


def test_a_list_is_answered_by_a_list(client: httpx2.Client, run_folders: list[Path]) -> None:
    texts = [TEXT, "", "!!", "九"]
    found = in_memory(run_folders, "zh-en").translate(texts)
    assert post(client, q=texts, source="zh", target="en").json() == {"translatedText": [each.text for each in found]}


def test_alternatives(client: httpx2.Client, run_folders: list[Path]) -> None:
    found = in_memory(run_folders, "zh-en").translate([TEXT], n_best=3)[0]
    answer = post(client, q=TEXT, source="zh", target="en", alternatives=2).json()
    assert answer == {"translatedText": found.text, "alternatives": [text for text, _ in found.alternatives]}
    answer = client.post("/translate", data={"q": TEXT, "source": "zh", "target": "en", "alternatives": "2"}).json()
    assert len(answer["alternatives"]) == 2
    answer = post(client, q=[TEXT, "!"], source="zh", target="en", alternatives=2).json()
    assert list(map(len, answer["alternatives"])) == [2, 0]


def test_the_source_is_found_out(client: httpx2.Client) -> None:
    answer = post(client, q="今天天气真好，我们去公园吧。", source="auto", target="en").json()
    assert answer["detectedLanguage"]["language"] == "zh-Hans"
    assert answer["detectedLanguage"]["confidence"] > 90
    answer = post(client, q=["one two three", "four"], source="auto", target="zh").json()
    assert [each["language"] for each in answer["detectedLanguage"]] == ["en", "en"]
    # What is in the target's language already comes back, and so does what is in none.
    answer = post(client, q="one two three", source="auto", target="en").json()
    assert answer["translatedText"] == "one two three"
    answer = post(client, q="123 😀", source="auto", target="en").json()
    assert answer == {"translatedText": "123 😀", "detectedLanguage": {"confidence": 0.0, "language": "en"}}


def test_tags_are_kept(client: httpx2.Client) -> None:
    page = '<h1 class="a">三五。</h1><p>九<b>八</b> <code>x</code></p><script>1 < 2</script>'
    answer = post(client, q=page, source="zh", target="en", format="html").json()["translatedText"]
    assert answer.startswith('<h1 class="a">') and answer.endswith("</p><script>1 < 2</script>")
    assert all(answer.count(tag) == 1 for tag in ("<b>", "</b>", "<code>x</code>", "</h1><p>"))
    assert post(client, q=[page], source="zh", target="en", format="html").json() == {"translatedText": [answer]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"source": "zh", "target": "en"}, "Invalid request: missing q parameter"),
        ({"q": [], "source": "zh", "target": "en"}, "Invalid request: missing q parameter"),
        ({"q": TEXT, "target": "en"}, "Invalid request: missing source parameter"),
        ({"q": TEXT, "source": "zh"}, "Invalid request: missing target parameter"),
        ({"q": TEXT, "source": "zz", "target": "en"}, "zz is not supported"),
        (
            {"q": "one", "source": "en", "target": "zh-TW"},
            "zh-tw is not supported; zh is simplified Chinese: ask for that, "
            "and convert the text (opencc -c s2t or t2s)",
        ),
        ({"q": TEXT, "source": "zh", "target": "z" * 90}, "z" * 40 + "... is not supported"),
        ({"q": TEXT, "source": "zh", "target": "\ud800"}, "\ufffd is not supported"),
        ({"q": TEXT, "source": "zh", "target": "auto"}, "auto is not supported"),
        ({"q": TEXT, "source": "zh", "target": "en", "format": "xml"}, "xml format is not supported"),
        (
            {"q": TEXT, "source": "zh", "target": "en", "alternatives": "abc"},
            "Invalid request: alternatives parameter is not a number",
        ),
        (
            {"q": TEXT, "source": "zh", "target": "en", "alternatives": [2]},
            "Invalid request: alternatives parameter is not a number",
        ),
        (
            {"q": TEXT, "source": "zh", "target": "en", "alternatives": 16},
            "Invalid request: alternatives parameter must be <= 15",
        ),
        ({"q": 3, "source": "zh", "target": "en"}, "Invalid request: q parameter is not a text or a list of texts"),
        ({"q": [[]], "source": "zh", "target": "en"}, "Invalid request: q parameter is not a text or a list of texts"),
        (
            {"q": "\ud800", "source": "zh", "target": "en"},
            "Invalid request: q parameter has half a character (an unpaired surrogate)",
        ),
        (
            {"q": ["一"] * 257, "source": "zh", "target": "en"},
            "Invalid request: request (257) exceeds text limit (256)",
        ),
        (
            {"q": "一" * 100_001, "source": "zh", "target": "en"},
            "Invalid request: request (100001) exceeds text limit (100000)",
        ),
    ],
)
def test_what_is_wrong_is_told_as_there(client: httpx2.Client, values: dict[str, Any], message: str) -> None:
    import json

    answer = client.post("/translate", content=json.dumps(values), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()) == (400, {"error": message})


@pytest.mark.parametrize("body", [b"[1]", b'"x"', b"{", b"\xff", b"null", b'{"q": ' + b"9" * 5000 + b"}"])
def test_what_is_no_object_is_refused(client: httpx2.Client, body: bytes) -> None:
    answer = client.post("/translate", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()) == (400, {"error": "Invalid JSON format"})


def test_detect(client: httpx2.Client) -> None:
    assert client.post("/detect", data={"q": "one two three"}).json()[0]["language"] == "en"
    found = client.post("/detect", json={"q": ["今天天气", "今天天气真好", "one two"]}).json()
    assert [each["language"] for each in found] == ["zh-Hans", "en"]
    assert sum(each["confidence"] for each in found) == pytest.approx(100, abs=0.1)
    assert client.post("/detect", json={"q": "12"}).json() == [{"confidence": 0.0, "language": "en"}]
    answer = client.post("/detect")
    assert (answer.status_code, answer.json()) == (400, {"error": "Invalid request: missing q parameter"})
    assert client.get("/detect").status_code == 405


def test_frontend_settings(client: httpx2.Client) -> None:
    assert client.get("/frontend/settings").json() == {
        "apiKeys": False,
        "charLimit": 100_000,
        "filesTranslation": False,
        "frontendTimeout": 500,
        "keyRequired": False,
        "language": {
            "source": {"code": "auto", "name": "Auto Detect"},
            "target": {"code": "zh-Hans", "name": "Chinese"},
        },
        "suggestions": False,
        "supportedFilesFormat": [],
    }


def test_where_nothing_translates_nothing_is_offered(run_folders: list[Path]) -> None:
    writers = [folder for folder in run_folders if folder.name == "writer"]
    with serving(writers) as (address, _), httpx2.Client(base_url=address) as client:
        assert client.get("/languages").json() == []
        answer = post(client, q="x", source="en", target="zh")
        assert (answer.status_code, answer.json()) == (400, {"error": "en is not supported"})
        assert client.post("/detect", data={"q": "one"}).json() == [{"confidence": 0.0, "language": "en"}]


def test_only_what_is_offered_is_detected(client: httpx2.Client) -> None:
    text = "Guten Tag, wie geht es Ihnen?"
    assert client.post("/detect", data={"q": text}).json()[0]["language"] == "en"
    assert Detector(["zh", "en", "de"]).detect([text])[0].language == "de"
    assert Detector(["zh"]).detect([text])[0].language == "zh"
    assert Detector([]).detect([text]) == []


def test_what_tells_nothing_is_guessed_among_the_sources() -> None:
    assert Offer({("fr", "en"): None, ("de", "en"): None}, Detector([])).unknown == ("fr", 0.0)  # type: ignore[dict-item]
    assert Offer({("fr", "en"): None, ("en", "fr"): None}, Detector([])).unknown == ("en", 0.0)  # type: ignore[dict-item]
