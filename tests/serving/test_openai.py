"""OpenAI's protocol, by its official client and by hand."""

import base64
import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
import soundfile

import zhuyi
from zhuyi.predict import Conversation
from zhuyi.predict.transcriber import as_srt, as_text, as_vtt

PROMPT = "What is it?"


@pytest.fixture(scope="session")
def run(run_folders: list[Path]) -> dict[str, Any]:
    """The runs themselves, as the command line uses them."""
    return {folder.name: zhuyi.load(folder, "float32") for folder in run_folders}


@pytest.fixture(scope="module")
def api(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as found:
        yield found


def sound(seconds: float = 1.5) -> tuple[bytes, np.ndarray]:
    time = np.arange(int(seconds * 16000)) / 16000
    samples = 0.3 * np.sin(2 * np.pi * 600 * time) * np.abs(np.sin(2 * np.pi * time / 0.35))
    samples += 0.003 * np.random.default_rng(0).standard_normal(len(time))
    file = io.BytesIO()
    soundfile.write(file, samples, 16000, format="WAV", subtype="FLOAT")
    return file.getvalue(), samples.astype(np.float32)


def test_models(api: openai.OpenAI, run: dict[str, Any]) -> None:
    assert {model.id for model in api.models.list()} == set(run)
    assert api.models.retrieve("talker").owned_by == "zhuyi"
    with pytest.raises(openai.NotFoundError) as refused:
        api.models.retrieve("nobody")
    assert refused.value.code == "model_not_found"


def test_completions_are_the_command_lines(api: openai.OpenAI, run: dict[str, Any]) -> None:
    options = {"temperature": 0.9, "top_p": 0.9, "seed": 7}
    answer = api.completions.create(model="writer", prompt=[PROMPT, "A: "], n=2, max_tokens=8, **options)
    found = run["writer"].generate([PROMPT, "A: "], samples=2, max_new_tokens=8, **options)
    assert [choice.text for choice in answer.choices] == [each.text for each in found]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert {choice.finish_reason for choice in answer.choices} <= {"length", "stop"}
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(run["writer"].begin(PROMPT)) + len(run["writer"].begin("A: "))
    assert answer.usage.completion_tokens == sum(len(each.tokens) for each in found)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.model == "writer" and answer.object == "text_completion"


def test_streamed_completions_are_the_whole_ones(api: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "writer", "prompt": PROMPT, "n": 2, "max_tokens": 9, "seed": 3, "echo": True}
    whole = api.completions.create(**asked)
    texts, reasons, usage = ["", ""], ["", ""], None
    for event in api.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        usage = event.usage or usage
        for choice in event.choices:
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [choice.text for choice in whole.choices]
    assert all(text.startswith(PROMPT) for text in texts)
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert usage == whole.usage


def test_ids_are_prompts_too_and_stops_end_a_text(api: openai.OpenAI, run: dict[str, Any]) -> None:
    asked: dict[str, Any] = {"model": "writer", "max_tokens": 8, "temperature": 0}
    text = api.completions.create(prompt=PROMPT, **asked).choices[0].text
    ids = run["writer"].begin(PROMPT)
    assert api.completions.create(prompt=ids, **asked).choices[0].text == text
    assert api.completions.create(prompt=[ids, ids], **asked).choices[1].text == text
    stopped = api.completions.create(prompt=PROMPT, stop=text[2:4], **asked).choices[0]
    assert stopped.text == text[: text.find(text[2:4])] and stopped.finish_reason == "stop"
    drawn = {api.completions.create(model="writer", prompt=PROMPT, max_tokens=8).choices[0].text for _ in range(3)}
    assert len(drawn) > 1


MESSAGES: list[Any] = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "ho"},
    {"role": "user", "content": [{"type": "text", "text": "who"}]},
]


def test_chat_is_the_command_lines(api: openai.OpenAI, run: dict[str, Any]) -> None:
    talk = Conversation(run["talker"], run["talker"].decode_config(max_new_tokens=9), seed=5)
    talk.turns = [("hi", "ho")]
    expected = "".join(talk.ask("who"))
    asked: dict[str, Any] = {"model": "talker", "messages": MESSAGES, "seed": 5, "max_completion_tokens": 9}
    answer = api.chat.completions.create(**asked)
    assert answer.choices[0].message.content == expected
    assert answer.choices[0].message.role == "assistant" and answer.object == "chat.completion"
    events = list(api.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(event.choices[0].delta.content or "" for event in events if event.choices) == expected
    assert next(event.choices[0].delta.role for event in events if event.choices) == "assistant"
    assert events[-1].usage == answer.usage and events[-2].choices[0].finish_reason == answer.choices[0].finish_reason


def test_a_translator_answers_by_translations(api: openai.OpenAI, run: dict[str, Any]) -> None:
    found = run["zh-en"].translate(["三五。"], n_best=2)[0]
    messages: list[Any] = [*MESSAGES[:2], {"role": "user", "content": "三五。"}]
    answer = api.chat.completions.create(model="zh-en", messages=messages, n=2)
    assert [choice.message.content for choice in answer.choices] == [found.text, found.alternatives[0][0]]
    assert answer.usage is not None and answer.usage.prompt_tokens == len(
        run["zh-en"].source_tokenizer.encode("三五。")
    )
    events = list(api.chat.completions.create(model="zh-en", messages=messages, stream=True))
    assert "".join(event.choices[0].delta.content or "" for event in events) == found.text
    with pytest.raises(openai.BadRequestError, match="top_p: is not supported by zh-en"):
        api.chat.completions.create(model="zh-en", messages=messages, top_p=0.5)


def test_embeddings(api: openai.OpenAI, run: dict[str, Any]) -> None:
    texts = ["三五。", "three five."]
    expected = run["filler"].embed(texts)
    as_base64 = api.embeddings.create(model="filler", input=texts)  # the client's own choice
    as_floats = api.embeddings.create(model="filler", input=texts, encoding_format="float")
    for answer in (as_base64, as_floats):
        np.testing.assert_allclose([each.embedding for each in answer.data], expected, atol=1e-6)
    assert as_floats.usage.prompt_tokens == sum(len(row.ids) for row in run["filler"].rows(texts))
    assert len(api.embeddings.create(model="filler", input="三", dimensions=15).data) == 1
    with pytest.raises(openai.BadRequestError, match="which is 15"):
        api.embeddings.create(model="filler", input="三", dimensions=16)
    with pytest.raises(openai.BadRequestError, match="input 2 is longer than the 32 tokens"):
        api.embeddings.create(model="filler", input=["三", "三" * 40])


def test_base64_is_little_endian_floats(client: httpx2.Client, run: dict[str, Any]) -> None:
    json = {"model": "filler", "input": "三", "encoding_format": "base64"}
    packed = base64.b64decode(client.post("/v1/embeddings", json=json).json()["data"][0]["embedding"])
    np.testing.assert_allclose(struct.unpack("<15f", packed), run["filler"].embed(["三"])[0], atol=1e-6)


def test_transcriptions(api: openai.OpenAI, run: dict[str, Any]) -> None:
    file, samples = sound()
    found = run["ears"].transcribe([samples])[0]
    assert found.segments, "the sound is to be heard"
    named = ("sound.wav", file)
    assert api.audio.transcriptions.create(model="ears", file=named).text == as_text(found)
    forms: dict[Any, str] = {"text": as_text(found) + "\n", "srt": as_srt(found), "vtt": as_vtt(found)}
    for form, text in forms.items():
        assert api.audio.transcriptions.create(model="ears", file=named, response_format=form) == text
    verbose = api.audio.transcriptions.create(
        model="ears", file=named, response_format="verbose_json", timestamp_granularities=["segment"]
    )
    assert verbose.text == as_text(found) and verbose.duration == pytest.approx(1.5)
    assert verbose.segments is not None and [s.text for s in verbose.segments] == [s.text for s in found.segments]
    for option in (
        {"prompt": "x"},
        {"temperature": 0.5},
        {"include": ["logprobs"]},
        {"timestamp_granularities": ["word"]},
    ):
        with pytest.raises(openai.BadRequestError, match=next(iter(option))) as refused:
            api.audio.transcriptions.create(model="ears", file=named, **option)  # type: ignore[call-overload]
        assert refused.value.param == next(iter(option))


@pytest.mark.parametrize(
    ("path", "values", "param"),
    [
        ("completions", {"logprobs": 3}, "logprobs"),
        ("completions", {"best_of": 2}, "best_of"),
        ("completions", {"suffix": "x"}, "suffix"),
        ("completions", {"logit_bias": {"1": 2}}, "logit_bias"),
        ("completions", {"frequency_penalty": 0.5}, "frequency_penalty"),
        ("completions", {"presence_penalty": -0.5}, "presence_penalty"),
        ("completions", {"temperature": float("nan")}, "temperature"),
        ("completions", {"temperature": 3}, "temperature"),
        ("completions", {"temperature": 5e-324}, "temperature"),
        ("completions", {"repetition_penalty": 5e-324}, "repetition_penalty"),
        ("completions", {"top_p": 0}, "top_p"),
        ("completions", {"n": 0}, "n"),
        ("completions", {"max_tokens": 0}, "max_tokens"),
        ("completions", {"stop": [""]}, "stop"),
        ("completions", {"prompt": []}, "prompt"),
        ("completions", {"prompt": "\ud800"}, "prompt"),
        ("completions", {"unheard": 1}, "unheard"),
        ("chat/completions", {"tools": [{}]}, "tools"),
        ("chat/completions", {"response_format": {"type": "json_object"}}, "response_format"),
        ("chat/completions", {"messages": []}, "messages"),
        ("chat/completions", {"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ("chat/completions", {"messages": [{"role": "user", "content": "x", "tool_calls": [1]}]}, "messages"),
        ("embeddings", {"input": []}, "input"),
        ("embeddings", {"encoding_format": "int8"}, "encoding_format"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    client: httpx2.Client, path: str, values: dict[str, Any], param: str
) -> None:
    whole: dict[str, dict[str, Any]] = {
        "completions": {"model": "writer", "prompt": "x"},
        "chat/completions": {"model": "talker", "messages": [{"role": "user", "content": "x"}]},
        "embeddings": {"model": "filler", "input": "x"},
    }
    content = json.dumps(whole[path] | values)
    answer = client.post(f"/v1/{path}", content=content, headers={"Content-Type": "application/json"})
    error = answer.json()["error"]
    assert answer.status_code == 400 and error["type"] == "invalid_request_error"
    assert error["param"].split(".")[0] == param and error["message"].startswith(param)
    assert "\n" not in error["message"]


@pytest.mark.parametrize(
    ("path", "values", "message"),
    [
        ("completions", {"model": "writer", "prompt": "x", "stop": 3}, "stop: Input should be a valid string"),
        ("completions", {"model": "writer", "prompt": "x", "stop": ["a", ""]}, "stop.1: String should have at least 1"),
        (
            "chat/completions",
            {"model": "talker", "messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages.0.content.0.text: is missing",
        ),
        ("completions", {"model": "zh-en", "prompt": "x"}, "which cannot generate; ask /v1/chat/"),
        ("completions", {"model": "writer", "prompt": [9999]}, "9999 is no id of this run"),
        ("completions", {"model": "writer", "prompt": "x", "n": 17}, "from 1 to 16"),
        ("completions", {"model": "writer", "prompt": "x", "max_tokens": 5000}, "ask for less"),
        ("completions", {"model": "writer", "prompt": "x" * 100_001}, "100,000"),
        ("chat/completions", {"model": "writer", "messages": MESSAGES}, "not on dialogues"),
        ("chat/completions", {"model": "talker", "messages": MESSAGES[:2]}, "must take turns"),
        ("embeddings", {"model": "writer", "input": "x"}, "cannot embed; choose filler or labels"),
    ],
)
def test_what_a_run_cannot_do_is_told(client: httpx2.Client, path: str, values: dict[str, Any], message: str) -> None:
    answer = client.post(f"/v1/{path}", json=values)
    assert answer.status_code == 400 and message in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "values", "param"),
    [
        ("chat/completions", {"model": "zh-en", "messages": MESSAGES[-1:], "temperature": 0.5}, "temperature"),
        ("chat/completions", {"model": "zh-en", "messages": MESSAGES[-1:], "max_tokens": 5}, "max_tokens"),
        ("chat/completions", {"model": "zh-en", "messages": MESSAGES[-1:], "n": 17}, "n"),
        ("chat/completions", {"model": "talker", "messages": MESSAGES[:2]}, "messages"),
        ("completions", {"model": "writer", "prompt": [9999]}, "prompt"),
        ("completions", {"model": "writer", "prompt": "x", "n": 17}, "n"),
        ("embeddings", {"model": "filler", "input": "x", "dimensions": 7}, "dimensions"),
        ("translate", {"run": "zh-en", "texts": ["x"], "beam": 17}, "beam"),
    ],
)
def test_the_option_that_cannot_be_taken_is_named(
    client: httpx2.Client, path: str, values: dict[str, Any], param: str
) -> None:
    answer = client.post(f"/v1/{path}", json=values)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param


def test_a_stream_is_of_events_and_ends_with_done(client: httpx2.Client) -> None:
    json = {"model": "writer", "prompt": "x", "stream": True, "max_tokens": 3}
    answer = client.post("/v1/completions", json=json)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("\n\ndata: [DONE]\n\n")
    assert all(line.startswith("data: ") for line in answer.text.split("\n\n")[:-1])


def test_what_goes_wrong_before_a_stream_is_no_stream(client: httpx2.Client) -> None:
    json = {"model": "writer", "prompt": "x", "stream": True, "max_tokens": 5000}
    answer = client.post("/v1/completions", json=json)
    assert answer.status_code == 400 and answer.headers["content-type"] == "application/json"
