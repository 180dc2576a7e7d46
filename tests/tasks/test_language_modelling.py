"""Language modelling as a task: what is learned, what is scored, and that stopping changes nothing."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.tiny import train_tiny

from zhuyi.config import RunConfig, parse_config
from zhuyi.data.pairs import CleaningReport
from zhuyi.evaluation import Wanted, evaluate_run
from zhuyi.predict import Generator, load
from zhuyi.run_folder import RunFolder
from zhuyi.tasks.language_modelling import LanguageModellingTask, score_text
from zhuyi.tasks.text_data import TextDataConfig
from zhuyi.training.loop import build_model

TEXT = "".join(f"{n} and {n + 1} is {2 * n + 1}.\n" for n in range(60))


def values(train: Path, data: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    return {
        "task": "language-modelling",
        "model": {"name": "gpt", "d_model": 26, "num_heads": 2, "num_layers": 2, "max_len": 16},
        "data": {
            "train": [str(train)],
            "max_len": 16,
            "tokenizer": {"kind": "character", "vocab_size": 99, "verbatim": True},
            **(data or {}),
        },
        "train": {
            "max_steps": 10,
            "batch_tokens": 96,
            "learning_rate": 0.01,
            "schedule": "constant",
            "warmup_steps": 2,
            "label_smoothing": 0.0,
            "precision": "float32",
            "eval_every_steps": 5,
            "save_every_steps": 5,
            **settings,
        },
        "decode": {"max_new_tokens": 8},
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path / "text.txt"


def config(file: Path, **options: Any) -> RunConfig:
    return parse_config(values(file, **options), "tiny")


def test_a_text_is_learnt_by_heart(tmp_path: Path) -> None:
    text = "abcdefghij"  # each letter says which one is next
    (tmp_path / "text.txt").write_text(text * 60, encoding="utf-8")
    settings = {"max_steps": 60, "eval_every_steps": 60}
    made = values(tmp_path / "text.txt", **settings)
    made["model"] |= {"dropout": 0.0, "attention_dropout": 0.0, "embedding_dropout": 0.0}
    made["train"]["learning_rate"] = 0.02
    scores, _ = train_tiny(parse_config(made, "tiny"), tmp_path / "run")
    assert scores["valid_loss"] < 0.7  # where the text ends is not to be known
    (found,) = load(tmp_path / "run").generate(["defg"], temperature=0.0, max_new_tokens=25)  # beyond the window
    assert found.text == "hijabcdefghijabcdefghijab"


def test_ten_steps_are_five_and_five(file: Path, tmp_path: Path) -> None:
    scores, _ = train_tiny(config(file), tmp_path / "whole")
    train_tiny(config(file, max_steps=5), tmp_path / "cut")
    path = tmp_path / "cut" / "config.json"
    path.write_text(path.read_text().replace('"max_steps": 5', '"max_steps": 10'))
    again, _ = train_tiny(config(file), tmp_path / "cut", resume=True)
    assert again == scores
    weights = [RunFolder(tmp_path / name).weights_path.read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]
    assert RunFolder(tmp_path / "cut").read_config().train.monitor == "loss"


@pytest.mark.parametrize("segments", ["stream", "documents"])
@torch.no_grad()
def test_scores_are_those_of_the_whole_validation_text(file: Path, tmp_path: Path, segments: str) -> None:
    """Window by window, each from where the last one ended, with the token before it."""
    made = config(file, data={"documents": "line", "segments": segments})
    task = LanguageModellingTask.prepare(made.data, made.decode, tmp_path, 96, 1, lambda message: None)
    made = parse_config({**made.as_dict(), "model": {**made.as_dict()["model"], **task.derived_sizes()["model"]}}, "x")
    model = build_model(made).eval()
    data = task._data
    scores = task.evaluate(model)
    ids = torch.from_numpy(data.valid.ids.astype("int64"))
    ends = [len(ids)] if segments == "stream" else (torch.nonzero(ids[1:] == 2)[:, 0] + 2).tolist()
    total, first = 0.0, 1
    for end in ends:
        for start in range(first, end, 16):
            stop = min(start + 16, end)
            logits = model(ids[None, start - 1 : stop - 1])[0]
            total += float(F.cross_entropy(logits.double(), ids[start:stop], reduction="sum"))
        first = end
    assert scores["valid_loss"] == pytest.approx(total / (len(ids) - 1), rel=1e-5)
    assert scores["perplexity"] == pytest.approx(math.exp(scores["valid_loss"]))
    characters = data.valid.counts.characters
    assert scores["bits_per_character"] == pytest.approx(total / math.log(2) / characters, rel=1e-5)
    assert data.tokenizer.decode(ids.tolist()).count("\n") == 0 and characters == len(ids) - 1 - len(
        torch.nonzero(ids[1:] == 2)
    )
    # The same text from a file has the same score.
    lines = TEXT.splitlines()[-data.valid.counts.documents :]
    (tmp_path / "valid.txt").write_text("\n".join(lines), encoding="utf-8")
    again, tokens = score_text(model, data.tokenizer, made.data, [str(tmp_path / "valid.txt")], CleaningReport())
    assert tokens == len(ids) - 1
    assert again == pytest.approx(scores, rel=1e-5)


def test_of_dialogues_answers_alone_have_a_loss(tmp_path: Path) -> None:
    (tmp_path / "pairs.tsv").write_text("".join(f"{i}?\t{i}!\n" for i in range(10, 60)), encoding="utf-8")
    data = {"documents": "dialogue", "template": "Q{question}A"}
    made = config(tmp_path / "pairs.tsv", data=data)
    task = LanguageModellingTask.prepare(made.data, made.decode, tmp_path / "run", 96, 1, lambda message: None)
    batches = task.batches("train")
    batch = batches.load(batches.order(0)[0])
    text = task._data.tokenizer.decode(batch.expected[batch.learned])
    assert set(text) <= set("0123456789!")
    assert batch.num_tokens == int(batch.learned.sum()) < batch.ids.numel()
    kept = batch.expected[batch.learned].tolist()
    assert kept.count(2) in range(kept.count(task._data.tokenizer.encode("!")[0]) - 6, len(kept))

    class Flat(torch.nn.Module):
        """Knows nothing: every token costs the same."""

        def __init__(self) -> None:
            super().__init__()
            from zhuyi.nn.embeddings import OutputProjection

            self.output_projection = OutputProjection(torch.nn.Parameter(torch.zeros(7, 3)))

        def decoder_states(self, ids: torch.Tensor) -> torch.Tensor:
            return torch.zeros(*ids.shape, 3)

    batch.expected.clamp_(max=6)
    loss, nll, count = task.loss(Flat(), batch)  # type: ignore[arg-type]
    assert count == batch.num_tokens
    assert float(loss.detach()) == pytest.approx(count * math.log(7))
    assert float(nll) == pytest.approx(count * math.log(7))
    assert "bits_per_character" not in task.evaluate(_model(made, task))


def test_lines_that_hold_no_dialogue_are_counted_and_said(tmp_path: Path) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_text("".join(f"{i}?\t{i}!\n" for i in range(10, 60)) + "no tab\nno answer\t\n", encoding="utf-8")
    made = config(file, data={"documents": "dialogue"})
    said: list[str] = []
    task = LanguageModellingTask.prepare(made.data, made.decode, tmp_path / "run", 96, 1, said.append)
    expected = f"50 of 52 pairs kept\n  1 left out: missing column ({file}:51)\n  1 left out: empty side ({file}:52)"
    assert said.count(f"train: {expected}") == 1 and sum("left out" in each for each in said) == 1
    warned: list[str] = []
    generator = Generator(_model(made, task), made, task._data.tokenizer)
    evaluate_run(generator, Wanted([str(file)]), warned.append)
    assert warned == [expected]


def _model(made: RunConfig, task: LanguageModellingTask) -> Any:
    sizes = task.derived_sizes()["model"]
    return build_model(parse_config({**made.as_dict(), "model": {**made.as_dict()["model"], **sizes}}, "x")).eval()


def test_samples_are_the_same_each_time(file: Path, tmp_path: Path) -> None:
    made = config(file)
    task = LanguageModellingTask.prepare(made.data, made.decode, tmp_path, 96, 1, lambda message: None)
    model = _model(made, task)
    one, two = task.samples(model), task.samples(model)
    assert one == two and len(one) == 2
    valid = TEXT[int(len(TEXT) * 0.9) :]
    assert valid.startswith(one[0][0] + one[0][2])


def test_options_that_cannot_be() -> None:
    for wrong in ({"valid_share": 1.0}, {"max_len": 1}, {"columns": (0, 1)}, {"train": ("-",)}, {"template": "x"}):
        with pytest.raises(ValueError):
            TextDataConfig(**wrong)  # type: ignore[arg-type]
