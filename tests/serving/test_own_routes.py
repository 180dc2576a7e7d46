"""Our own routes: what they answer is what the runs answer in Python."""

import base64
import gzip
import io
import json
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet
from tests.serving.tiny_runs import FORECAST_STEPS, HISTORY_STEPS, SENSORS, STEP_MINUTES

import zhuyi
from zhuyi.decoding import Sampling
from zhuyi.serving.html_text import join, stretches

TEXT = "三五。"


@pytest.fixture(scope="session")
def run(run_folders: list[Path]) -> dict[str, Any]:
    """The runs themselves, as the command line uses them."""
    return {folder.name: zhuyi.load(folder, "float32") for folder in run_folders}


def picture(size: tuple[int, int] = (8, 8)) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(3).integers(0, 255, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def table(rows: int = HISTORY_STEPS + 2) -> str:
    lines = [f"time,{','.join(SENSORS)}"]
    for i in range(rows):
        day, hour = divmod(i * STEP_MINUTES // 60, 24)
        lines.append(f"2024-01-{1 + day:02} {hour:02}:00," + ",".join(str(40 + 3 * i + k) for k in range(len(SENSORS))))
    return "\n".join(lines) + "\n"


def error(answer: httpx2.Response) -> str:
    assert answer.status_code == 400, answer.text
    message: str = answer.json()["error"]["message"]
    assert "\n" not in message and "/tmp" not in message
    return message


def test_runs_tell_what_they_can_do(client: httpx2.Client, run_folders: list[Path]) -> None:
    runs = {each["id"]: each for each in client.get("/v1/runs").json()["runs"]}
    assert set(runs) == {folder.name for folder in run_folders}
    assert runs["zh-en"]["can"] == ["translate", "attention", "glossary"]
    assert (runs["zh-en"]["source"], runs["zh-en"]["target"]) == ("zh-Hans", "en")
    assert (
        runs["talker"]["can"] == ["generate", "attention", "chat"] and runs["talker"]["decode"]["max_new_tokens"] == 9
    )
    assert runs["writer"]["can"] == ["generate", "attention"]
    assert runs["ears"]["can"] == ["transcribe"] and runs["ears"]["languages"] == []
    assert runs["roads"]["sensors"] == list(SENSORS) and runs["roads"]["history_steps"] == HISTORY_STEPS
    assert runs["labels"] | {"labels": ["bad", "good"], "pairs": False} == runs["labels"]


def test_translations_are_the_runs(client: httpx2.Client, run: dict[str, Any]) -> None:
    found = run["zh-en"].translate([TEXT, "!"], n_best=3, beam=4, alpha=1.0)
    json = {"run": "zh-en", "texts": [TEXT, "!"], "n_best": 3, "beam": 4, "alpha": 1.0}
    answer = client.post("/v1/translate", json=json).json()
    assert answer["run"] == "zh-en"
    for given, each in zip(answer["translations"], found, strict=True):
        assert (given["text"], given["tokens"], given["flags"]) == (each.text, list(each.tokens), list(each.flags))
        assert given["score"] == pytest.approx(each.score, abs=1e-4)
        assert [other["text"] for other in given["alternatives"]] == [text for text, _ in each.alternatives]
    by_languages = {"source": "zh-CN", "target": "en", "texts": [TEXT, "!"], "n_best": 3, "beam": 4, "alpha": 1.0}
    assert client.post("/v1/translate", json=by_languages).json() == answer
    assert client.post("/v1/translate", json={"run": "zh-en", "texts": []}).json()["translations"] == []


def test_a_glossary_and_words_to_keep(client: httpx2.Client, run: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"run": "zh-en", "texts": ["三五七。"], "glossary": [{"source": "五", "target": "nine"}]}
    found = run["zh-en"].translate(["三五七。"], glossary={"五": "nine"})[0]
    answer = client.post("/v1/translate", json=asked).json()["translations"][0]
    assert answer["text"] == found.text and "nine" in answer["text"]
    assert client.post("/v1/translate", json=asked | {"glossary": [["五", "nine"]]}).json()["translations"] == [answer]
    kept = client.post("/v1/translate", json={"run": "zh-en", "texts": ["三五七。"], "keep": ["七"]}).json()
    assert "七" in kept["translations"][0]["text"]


def test_drawn_translations(client: httpx2.Client, run: dict[str, Any]) -> None:
    found = run["zh-en"].translate([TEXT], rule=Sampling(temperature=0.9, samples=2), n_best=2, seed=4)[0]
    json = {"run": "zh-en", "texts": [TEXT], "n_best": 2, "sample": {"temperature": 0.9, "seed": 4}}
    answer = client.post("/v1/translate", json=json).json()["translations"][0]
    assert (answer["text"], answer["alternatives"][0]["text"]) == (found.text, found.alternatives[0][0])


def test_alignment(client: httpx2.Client) -> None:
    json = {"run": "zh-en", "texts": [TEXT, "", "一" * 90], "alignment": True}
    found, empty, long = client.post("/v1/translate", json=json).json()["translations"]
    assert found["source_words"] == ["三", "五", "。"]
    pairs = [tuple(map(int, pair.split("-"))) for pair in found["alignment"].split()]
    assert sorted(target for _, target in pairs) == list(range(len(found["target_words"])))
    assert {source for source, _ in pairs} <= {0, 1, 2}
    assert empty["alignment"] is None and long["alignment"] is None


def test_tags_go_where_the_likelihood_of_words_says(
    client: httpx2.Client, run: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zhuyi.tasks.likelihood._LEAST_DROP", -1e9)  # of a random model any word will do
    page, text = "<p>六七<b>二一一</b>零六<i>八四</i>。</p>", "六七二一一零六八四。"
    answer = client.post("/v1/translate", json={"run": "en-zh", "texts": [page], "format": "html"}).json()
    (translation,) = run["en-zh"].translate([text])
    steps, links = run["en-zh"].word_links(text, translation.text), []
    try:
        while True:
            next(steps)
    except StopIteration as end:
        links = end.value
    assert 0 < len(links) < len(run["en-zh"].target_tokenizer.encode(translation.text))
    parts = stretches(page)
    placed, by_chance = (join(parts, [(translation.text, each)]) for each in (links, ()))
    assert answer["translations"][0]["text"] == placed != by_chance
    with pytest.raises(StopIteration, match=r"\[\]"):
        next(run["en-zh"].word_links(text * 100, translation.text))  # beyond its positions


def test_html(client: httpx2.Client, run: dict[str, Any]) -> None:
    pages = ["<p>三五。</p>", "<p>三<b>五</b>七 <code>九</code></p>"]
    answer = client.post("/v1/translate", json={"run": "zh-en", "texts": pages, "format": "html"}).json()
    texts = [each["text"] for each in answer["translations"]]
    assert texts[0] == f"<p>{run['zh-en'].translate([TEXT])[0].text}</p>"
    assert all(texts[1].count(tag) == 1 for tag in ("<b>", "</b>", "<code>九</code>"))
    # What is not translated stands once, and its words not a second time.
    assert texts[1].count("九") == 1
    long = "<p>三五。</p>" * 300  # more texts than a request of texts may have
    assert client.post("/v1/translate", json={"run": "zh-en", "texts": [long], "format": "html"}).status_code == 200
    for option in ({"n_best": 2}, {"keep": ["x"]}):
        json = {"run": "zh-en", "texts": pages, "format": "html"} | option
        assert "without n_best" in error(client.post("/v1/translate", json=json))


def test_classify(client: httpx2.Client, run: dict[str, Any]) -> None:
    texts = ["三五。", "three"]
    found = run["labels"].classify(texts)
    answer = client.post("/v1/classify", json={"texts": texts}).json()
    assert answer["run"] == "labels"
    for given, each in zip(answer["classifications"], found, strict=True):
        assert given["label"] == each.label and given["probabilities"] == pytest.approx(each.probabilities, abs=1e-5)
    assert client.post("/v1/classify", json={"texts": [], "seconds": []}).json()["classifications"] == []
    assert client.post("/v1/classify", json={"texts": []}).json()["classifications"] == []
    assert "1 texts but 2 second" in error(client.post("/v1/classify", json={"texts": ["a"], "seconds": ["b", "c"]}))
    assert "cannot classify in the way of text-classification; choose labels" in error(
        client.post("/v1/classify", json={"run": "pictures", "texts": ["a"]})
    )


def test_classify_a_picture(client: httpx2.Client, run: dict[str, Any]) -> None:
    expected = run["pictures"].classify([Image.open(io.BytesIO(picture()))])[0]
    files = {"file": ("p.png", picture(), "image/png")}
    (found,) = client.post("/v1/classify", files=files).json()["classifications"]
    assert found["label"] == expected.label and found["probability"] == pytest.approx(expected.probability, abs=1e-5)
    assert "overlay" not in found
    (found,) = client.post("/v1/classify", files=files, data={"overlay": "true"}).json()["classifications"]
    overlay = found["overlay"]
    assert overlay["grid"] == [2, 2] and len(overlay["layers"]) == 2 and len(overlay["layers"][0]) == 2
    assert len(overlay["rollout"]) == len(overlay["layers"][0][0]) == 4
    png = base64.b64decode(overlay["picture"].removeprefix("data:image/png;base64,"))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), np.asarray(Image.open(io.BytesIO(picture()))))
    assert "no picture" in error(client.post("/v1/classify", files={"file": ("x.png", b"text")})) or True
    assert "the form has none" in error(client.post("/v1/classify", files={"other": ("x.png", b"text")}))


def test_fill(client: httpx2.Client, run: dict[str, Any]) -> None:
    text = "三[MASK]五[MASK]。"
    found = run["filler"].fill(text, top=3)
    gaps = client.post("/v1/fill", json={"text": text, "top": 3}).json()["gaps"]
    assert [[each["word"] for each in gap] for gap in gaps] == [[each.word for each in gap] for gap in found]
    assert gaps[0][0]["text"] == found[0][0].text
    assert "nothing to fill in" in error(client.post("/v1/fill", json={"text": "三"}))


@pytest.mark.parametrize("form", ["csv", "gz", "parquet"])
def test_forecast(client: httpx2.Client, run: dict[str, Any], form: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(table(), encoding="utf-8")
    expected = run["roads"].forecast(path, 3)
    content = path.read_bytes()
    if form == "gz":
        content = gzip.compress(content)
    if form == "parquet":
        columns = list(zip(*(line.split(",") for line in table().splitlines()), strict=True))
        values = {name: [float(x) for x in rest] for name, *rest in columns[1:]}
        file = io.BytesIO()
        parquet.write_table(pyarrow.table({"time": list(columns[0][1:]), **values}), file)
        content = file.getvalue()
    answer = client.post("/v1/forecast", files={"file": (f"speeds.{form}", content)}, data={"steps": "3"}).json()
    assert answer["sensors"] == list(SENSORS) and answer["times"] == expected.times()
    np.testing.assert_allclose(answer["values"], expected.values, rtol=1e-5)
    np.testing.assert_allclose(answer["history"], expected.history)
    assert len(answer["history_times"]) == HISTORY_STEPS and answer["history_times"][-1] < answer["times"][0]
    assert answer["truth"] == [[None] * len(SENSORS)] * 3
    assert answer["csv"] == expected.as_csv()


def test_what_is_wrong_with_a_table_is_told_by_its_name(client: httpx2.Client) -> None:
    def sent(content: bytes, name: str = "speeds.csv", **data: str) -> str:
        return error(client.post("/v1/forecast", files={"file": (name, content)}, data=data))

    good = table().encode()
    assert sent(good.replace(b"north", b"south-west")).startswith("speeds.csv: no column for the sensor 'north'")
    assert "6" in sent(table(2).encode()) and sent(good, steps="5").startswith("5 steps are asked for")
    assert "no row of names" in sent(b"\r0\n1\n")
    assert "no table" in sent(b"\x89PNG\0") and "empty" in sent(b"")
    assert sent(b"PAR1" + b"x" * 99, "../../etc/x.parquet").startswith("../../etc/x.parquet: not a Parquet file")
    assert "damaged" in sent(gzip.compress(good)[:-9])
    assert "its first line" in sent(b"," * 2_000_000 + b"\n")
    assert len(sent(good, steps="4", begin="2024-01-01")) < 300 and FORECAST_STEPS == 4


def test_attention_of_texts(client: httpx2.Client, run: dict[str, Any]) -> None:
    answer = client.post("/v1/attention", json={"run": "zh-en", "text": TEXT}).json()
    maps = run["zh-en"].attention(TEXT)
    assert answer["source"] == list(maps.source_tokens) and answer["target"] == list(maps.target_tokens)
    given = client.post("/v1/attention", json={"run": "zh-en", "text": TEXT, "target": "one two"}).json()
    assert "".join(given["target"]).startswith("one")
    for name, text in {"writer": "abc", "filler": "三五", "labels": "三五"}.items():
        assert client.post("/v1/attention", json={"run": name, "text": text}).json()["weights"]
    assert "`zhuyi attention` draws" in error(client.post("/v1/attention", json={"run": "ears", "text": "x"}))
    assert "beam: is for runs that translate" in error(
        client.post("/v1/attention", json={"run": "writer", "text": "x", "beam": 2})
    )
    assert "longer than" in error(client.post("/v1/attention", json={"run": "zh-en", "text": "三五七" * 30}))


def test_attention_of_a_picture_is_a_picture(client: httpx2.Client) -> None:
    files = {"file": ("p.png", picture(), "image/png")}
    answer = client.post("/v1/attention", files=files, data={"layer": "1", "head": "2"})
    assert answer.headers["content-type"] == "image/png" and Image.open(io.BytesIO(answer.content)).format == "PNG"
    assert "there is no layer 9" in error(client.post("/v1/attention", files=files, data={"layer": "9"}))
    assert "picture as a form's file" in error(client.post("/v1/attention", json={"run": "pictures", "text": "x"}))


@pytest.mark.parametrize(
    ("path", "values", "message"),
    [
        ("translate", {"texts": [TEXT], "colour": 1}, "colour: is no option here"),
        ("translate", {}, "texts: is missing"),
        ("translate", {"texts": [TEXT], "beam": 0}, "beam: "),
        ("translate", {"run": "zh-en", "texts": [TEXT], "beam": 65}, "beam is 65; it must be from 1 to 16"),
        ("translate", {"run": "zh-en", "texts": [TEXT], "n_best": 65}, "n_best is 65; it must be from 1 to 16"),
        ("attention", {"run": "zh-en", "text": TEXT, "beam": 17}, "beam is 17; it must be from 1 to 16"),
        ("translate", {"run": "zh-en", "texts": [TEXT], "beam": 20}, "beam is 20; it must be from 1 to 16"),
        ("translate", {"texts": ["\ud800"]}, "texts.0: holds half a character"),
        ("translate", {"source": "de", "target": "fr", "texts": ["x"]}, "no run here translates from 'German'"),
        ("translate", {"run": "zh-en", "texts": [TEXT], "task": "x"}, "this run has no task 'x'"),
        (
            "translate",
            {"run": "zh-en", "texts": [TEXT], "glossary": [["a", "b"], ["c", ""]]},
            "glossary.1.target: String",
        ),
        ("translate", {"texts": [TEXT], "glossary": [["a", ["b", ""]]]}, "glossary.0.target.1: String should have at"),
        ("translate", {"texts": [TEXT], "glossary": [["a", 3]]}, "glossary.0.target: Input should be a valid string"),
        ("translate", {"texts": [TEXT], "prefix": "x" * 1001}, "prefix: String should have at most 1000 characters"),
        ("translate", {"texts": [TEXT], "a-b[c]": 1}, "a-b[c]: is no option here"),
        (
            "translate",
            {"run": "writer", "texts": [TEXT]},
            "writer is a run of language-modelling, which cannot translate",
        ),
        ("fill", {"text": "[MASK]" * 99}, "longer than the 32 tokens"),
        ("fill", {"text": "[MASK]", "top": 0}, "top: "),
        ("classify", {"texts": "x"}, "texts: "),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    client: httpx2.Client, path: str, values: dict[str, Any], message: str
) -> None:
    content = json.dumps(values)
    assert message in error(client.post(f"/v1/{path}", content=content, headers={"Content-Type": "application/json"}))


def test_no_run_of_that_name(client: httpx2.Client) -> None:
    answer = client.post("/v1/translate", json={"run": "nobody", "texts": ["x"]})
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "model_not_found"
