"""Texts continued and conversations, from Python and from the command line."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import zhuyi as in_a_process

import zhuyi
from zhuyi.cli import main
from zhuyi.config import parse_config
from zhuyi.data.tokenizers import TokenizerConfig, train_tokenizer
from zhuyi.errors import InputError
from zhuyi.predict import Conversation, Generator
from zhuyi.run_folder import RunFolder, named_weights
from zhuyi.training.loop import build_model

TEXTS = ["What is it? It is a fox, 你好！\n", "abcdefghijklmnopqrstuvwxyz.Q:A"]


def random_run(path: Path, max_len: int = 24, **data: Any) -> Path:
    """A run as training leaves it, but with weights drawn at random; it hardly ever ends a text."""
    path.mkdir()
    tokenizer = train_tokenizer(TEXTS, TokenizerConfig("byte-bpe", 262, verbatim=True))
    sizes = {"d_model": 14, "num_heads": 2, "num_layers": 2, "max_len": max_len, "vocab_size": tokenizer.vocab_size}
    values = {
        "task": "language-modelling",
        "model": {"name": "gpt", "tie_embeddings": False, **sizes},
        "data": {"train": ["x.txt"], "max_len": max_len, **data},
        "train": {"max_steps": 1, "schedule": "constant"},
        "decode": {"max_new_tokens": 9, "temperature": 1.0},
    }
    config = parse_config(values, "tiny")
    folder = RunFolder(path)
    folder.write_config(config)
    tokenizer.save(path / "tokenizer.json")
    model: Any = build_model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.5)
        model.output_projection.weight[tokenizer.signs.eos] = 0.0
    folder.write_weights(named_weights(model))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_run(tmp_path_factory.mktemp("runs") / "text")


@pytest.fixture(scope="module")
def chat_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = {"documents": "dialogue", "template": "Q:{question} A:"}
    return random_run(tmp_path_factory.mktemp("runs") / "chat", 48, **data)


@pytest.fixture(scope="module")
def generator(run: Path) -> Generator:
    found = zhuyi.load(run)
    assert isinstance(found, Generator)
    return found


# From Python.


def test_samples_of_each_prompt_in_order_and_by_the_seed(generator: Generator) -> None:
    prompts = ["abc", "What is", "你"]
    found = generator.generate(prompts, samples=2, temperature=2.0)
    assert [each.prompt for each in found] == ["abc", "abc", "What is", "What is", "你", "你"]
    assert found[0].text != found[1].text
    assert generator.generate(prompts, samples=2, temperature=2.0) == found
    assert generator.generate(prompts, samples=2, temperature=2.0, seed=2) != found
    assert generator.generate(["你"], temperature=2.0)[0] == found[4]
    assert all(len(each.tokens) == 9 and each.flags == ("length",) for each in found)


def test_options_take_the_runs_place(generator: Generator) -> None:
    (one,) = generator.generate(["abc"], max_new_tokens=3, top_k=1)
    (two,) = generator.generate(["abc"], max_new_tokens=3, temperature=0.0)
    assert len(one.tokens) == 3 and one == two
    with pytest.raises(InputError, match="top_p is 2"):
        generator.generate(["abc"], top_p=2.0)
    with pytest.raises(InputError, match=r"generate\(\[text\]\)"):
        generator.generate("abc")
    with pytest.raises(InputError, match="samples is 0"):
        generator.generate(["abc"], samples=0)


def test_where_a_text_begins(generator: Generator, chat_run: Path) -> None:
    """From within a file anything may follow; of documents, a prompt is a beginning, and so is nothing at all."""
    ids = generator.tokenizer.encode("abc")[:-1]
    assert generator.begin("abc") == ids
    assert generator.begin("") == [2]
    assert zhuyi.load(chat_run).begin("abc") == [2, *ids]
    assert len(generator.generate([""])[0].tokens) == 9


@torch.no_grad()
def test_score(generator: Generator) -> None:
    ids = torch.tensor([[2, *generator.tokenizer.encode("What is it?")]])
    log_probs = generator.model(ids[:, :-1]).log_softmax(-1)
    assert generator.score("What is it?") == pytest.approx(float(log_probs.gather(2, ids[:, 1:, None]).sum()), rel=1e-5)


def test_a_tokenizer_that_does_not_fit(run: Path, tmp_path: Path) -> None:
    other = random_run(tmp_path / "run")
    train_tokenizer(TEXTS, TokenizerConfig("character", 30, verbatim=True)).save(other / "tokenizer.json")
    with pytest.raises(InputError, match="pieces but the model"):
        zhuyi.load(other)


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_other_precisions_write_too(run: Path, precision: str) -> None:
    (found,) = zhuyi.load(run, precision).generate(["abc"])
    assert len(found.tokens) == 9


# Conversations.


def test_a_conversation_keeps_within_the_window(chat_run: Path) -> None:
    generator = zhuyi.load(chat_run)
    conversation = Conversation(generator)
    encode = generator.tokenizer.encode
    room = 48 - 9
    turns = []
    for question in ("a", "b", "c", "d", "e"):
        context = conversation.context(question)
        assert len(context) <= room
        kept = [encode(f"Q:{q} A:")[:-1] + encode(a) for q, a in turns]
        asked = encode(f"Q:{question} A:")[:-1]
        fitting = next(n for n in range(len(kept) + 1) if 1 + len(asked) + sum(map(len, kept[n:])) <= room)
        assert context == [2, *(i for turn in kept[fitting:] for i in turn), *asked]
        answer = "".join(conversation.ask(question))
        turns.append((question, answer))
        assert conversation.turns == turns
        conversation.turns[-1] = turns[-1] = (question, answer[:1])  # short ones, so that some fit
    assert 0 < fitting < len(kept) - 1  # some were dropped, several kept
    long = encode("Q:" + "xyz" * 20 + " A:")[:-1]
    assert conversation.context("xyz" * 20) == long[-room:]


def test_a_run_of_plain_text_does_not_chat(generator: Generator) -> None:
    with pytest.raises(InputError, match="not on dialogues"):
        Conversation(generator)


# From the command line.


class Terminal(io.TextIOWrapper):
    """What is written, each flush apart."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8")
        self.flushed: list[str] = []
        self._before = 0

    def flush(self) -> None:
        super().flush()
        raw = self.buffer.getvalue() if not self.buffer.closed else b""  # type: ignore[attr-defined]
        if len(raw) > self._before:
            self.flushed.append(raw[self._before :].decode("utf-8"))
            self._before = len(raw)


@pytest.fixture
def zhuyi_here(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, list[str], str]]:
    """The command in this process: its status, what it flushed to standard output, and its standard error."""

    def call(*arguments: str | Path, stdin: str = "") -> tuple[int, list[str], str]:
        out, err = Terminal(), io.StringIO()
        monkeypatch.setattr(sys, "argv", ["zhuyi", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"))
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        with pytest.raises(SystemExit) as ended:
            main()
        out.flush()
        return int(ended.value.code or 0), out.flushed, err.getvalue()

    return call


Here = Callable[..., tuple[int, list[str], str]]


def test_a_single_text_appears_as_it_is_written(run: Path, generator: Generator, zhuyi_here: Here) -> None:
    status, flushed, _ = zhuyi_here("generate", run, "What is", "--seed", "5", "--max-new-tokens", "30")
    assert status == 0 and len(flushed) > 3 and flushed[0] == "What is"
    (wanted,) = generator.generate(["What is"], seed=5, max_new_tokens=30)
    assert "".join(flushed) == "What is" + wanted.text + "\n"


def test_several_texts(run: Path, generator: Generator, zhuyi_here: Here) -> None:
    options = ("--samples", "2", "--temperature", "1.5", "--repetition-penalty", "1.2", "--no-repeat-ngram", "3")
    wanted = generator.generate(
        ["abc", "你"], samples=2, temperature=1.5, repetition_penalty=1.2, no_repeat_ngram=3, top_p=0.9
    )
    _, flushed, _ = zhuyi_here("generate", run, *options, "--top-p", "0.9", stdin="abc\n你\n")
    assert "".join(flushed) == "---\n".join(f"{each.prompt}{each.text}\n" for each in wanted)
    _, flushed, _ = zhuyi_here("generate", run, *options, "--top-p", "0.9", "--jsonl", "abc", "你")
    rows = [json.loads(line) for line in "".join(flushed).splitlines()]
    assert [(row["prompt"], row["text"], row["flags"]) for row in rows] == [
        (each.prompt, each.text, list(each.flags)) for each in wanted
    ]
    assert rows[0].keys() == {"prompt", "text", "tokens", "log_prob", "flags"}
    stop = wanted[0].text[2]
    _, flushed, _ = zhuyi_here("generate", run, *options, "--top-p", "0.9", "--jsonl", "--stop", stop, "abc")
    assert stop not in json.loads("".join(flushed).splitlines()[0])["text"]


def test_chat(chat_run: Path, zhuyi_here: Here) -> None:
    status, flushed, _ = zhuyi_here("chat", chat_run, "--seed", "3", stdin="What?\n\nIt is\n")
    conversation = Conversation(zhuyi.load(chat_run), seed=3)
    wanted = ["".join(conversation.ask(question)) for question in ("What?", "It is")]
    assert status == 0
    assert "".join(flushed) == "".join(f"{answer}\n" for answer in wanted)


def test_in_processes_of_their_own(run: Path, chat_run: Path, generator: Generator) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = in_a_process("generate", run, "--max-new-tokens", "5", stdin="你好\n", **ascii_only)
    (wanted,) = generator.generate(["你好"], max_new_tokens=5)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"你好{wanted.text}\n", "")
    done = in_a_process("chat", chat_run, "--max-new-tokens", "5", stdin="你好\n")
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (0, 1, "")


def test_commands_of_other_runs_are_refused(run: Path, zhuyi_here: Here) -> None:
    status, flushed, err = zhuyi_here("translate", run, "x")
    assert (status, flushed) == (2, [])
    assert err.startswith(f"error: {run} is a run of language-modelling, for `zhuyi generate`, `zhuyi chat`, ")
    assert "`zhuyi translate` needs a run of translation" in err and err.count("\n") == 1
    status, _, err = zhuyi_here("chat", run, stdin="x\n")
    assert status == 2 and "not on dialogues" in err
    status, _, err = zhuyi_here("generate", run, "x", "--min-p", "3")
    assert status == 2 and "min_p is 3" in err


def test_attention(run: Path, tmp_path: Path, zhuyi_here: Here) -> None:
    status, flushed, err = zhuyi_here("attention", run, "你好", "--out", tmp_path / "map.html")
    assert (status, "".join(flushed)) == (0, f"{tmp_path / 'map.html'}\n"), err
    assert '"place": "decoder"' in (tmp_path / "map.html").read_text(encoding="utf-8")


def test_evaluate(run: Path, tmp_path: Path, zhuyi_here: Here) -> None:
    (tmp_path / "test.txt").write_text("What is it?\n" * 9, encoding="utf-8")
    status, flushed, _ = zhuyi_here("evaluate", run, "--test", tmp_path / "test.txt", "--json")
    scores = json.loads("".join(flushed))
    assert status == 0 and scores.keys() >= {"valid_loss", "perplexity", "bits_per_character", "tokens"}
    status, _, err = zhuyi_here("evaluate", run)
    assert status == 2 and "no test text" in err
    status, _, err = zhuyi_here("evaluate", run, "--test", tmp_path / "test.txt", "--beam", "3")
    assert status == 2 and "--beam is not for runs of this task" in err
