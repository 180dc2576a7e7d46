"""Several tasks in one run: trained, resumed, scored and used."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import number_pairs, train_tiny, write_pairs, write_recipe, zhuyi
from torch import Tensor

from zhuyi import load
from zhuyi.config import RunConfig, parse_config, read_recipe
from zhuyi.data.pairs import read_lines
from zhuyi.errors import InputError
from zhuyi.evaluation import Wanted, evaluate_run, score_lines
from zhuyi.metrics.translation_scores import translation_scores
from zhuyi.predict import Translator
from zhuyi.run_folder import RunFolder, named_weights
from zhuyi.tasks.mixture_data import prefix_ids
from zhuyi.tasks.text_to_text import TextToTextTask
from zhuyi.training.loop import build_model

PREFIXES = {"zh-en": "to English: ", "en-zh": "to Chinese: "}
WRITTEN = {"zh-en": 1, "en-zh": 0}  # which side of the pairs


def tiny_values(folder: Path, **settings: Any) -> dict[str, Any]:
    """A recipe of two directions and plain text, for a training of seconds."""
    pairs = number_pairs(70)
    file, test = write_pairs(folder / "pairs.tsv", pairs[:60]), write_pairs(folder / "test.tsv", pairs[60:])
    text = folder / "text.txt"
    text.write_text("\n".join(english for _, english in pairs[:60]) + "\n", encoding="utf-8")
    directions: list[dict[str, Any]] = [
        {"name": name, "train": [str(file)], "test": [str(test)], "prefix": prefix, "target": name[-2:]}
        for name, prefix in PREFIXES.items()
    ]
    directions[1] |= {"columns": [2, 1], "weight": 0.5}
    return {
        "task": "text-to-text",
        "model": {
            "name": "t5", "d_model": 22, "num_heads": 2, "head_dim": 7, "d_ff": 29,
            "num_encoder_layers": 1, "num_decoder_layers": 2, "max_len": 56,
        },
        "data": {
            "mixture": [*directions, {"name": "text", "train": [str(text)], "objective": "spans"}],
            "valid_size": 5, "valid_share": 0.2, "max_len": 48, "sentinels": 9,
            "tokenizer": {"kind": "character", "vocab_size": 64},
        },
        "train": {
            "max_steps": 6, "batch_tokens": 256, "learning_rate": 0.01, "schedule": "constant", "warmup_steps": 2,
            "precision": "float32", "eval_every_steps": 3, "save_every_steps": 3, **settings,
        },
        "decode": {"beam": 2},
    }  # fmt: skip


def tiny_config(folder: Path, **settings: Any) -> RunConfig:
    return parse_config(tiny_values(folder, **settings), "tiny")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run after a few steps, its weights spread so that no two texts have nearly the same score."""
    folder = tmp_path_factory.mktemp("text-to-text")
    train_tiny(tiny_config(folder), folder / "run")
    run = RunFolder(folder / "run")
    model = build_model(run.read_config())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    run.write_weights(named_weights(model))
    return run.path


@pytest.fixture(scope="module")
def translator(run: Path) -> Translator:
    found = load(run)
    assert isinstance(found, Translator)
    return found


@pytest.fixture
def task(run: Path) -> TextToTextTask:
    config = RunFolder(run).read_config()
    return TextToTextTask.prepare(config.data, config.decode, run, 256, config.train.seed, print, begun=True)


# Training.


def test_two_lives_are_one(tmp_path: Path) -> None:
    """Whatever is drawn of the mixture, the spans included, follows from where training stands."""
    config = tiny_config(tmp_path)
    train_tiny(config, tmp_path / "whole")
    train_tiny(replace(config, train=replace(config.train, max_steps=3)), tmp_path / "parts")
    folder = RunFolder(tmp_path / "parts")
    folder.write_config(replace(folder.read_config(), train=replace(folder.read_config().train, max_steps=6)))
    train_tiny(config, tmp_path / "parts", resume=True)
    whole, parts = (RunFolder(tmp_path / name).read_checkpoint(6) for name in ("whole", "parts"))
    for found, expected in ((parts.weights, whole.weights), (parts.optimizer, whole.optimizer)):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)


def test_every_part_is_scored(run: Path) -> None:
    row = RunFolder(run).read_metrics()[-1]
    assert {f"{score}_{name}" for score in ("valid_loss", "bleu", "chrf") for name in PREFIXES} < row.keys()
    assert "valid_loss_text" in row and "bleu_text" not in row
    assert row["bleu"] == pytest.approx((row["bleu_zh-en"] + row["bleu_en-zh"]) / 2, abs=0.011)
    assert row["valid_loss"] < RunFolder(run).read_metrics()[0]["valid_loss"]


def test_sizes_follow_from_the_data(run: Path, translator: Translator) -> None:
    config = RunFolder(run).read_config()
    assert config.model.vocab_size == translator.tokenizer.vocab_size + 9
    assert config.decode.longest_sentence >= 16
    assert config.train.monitor == "loss"


def test_spans_alone_have_no_score_of_pairs(tmp_path: Path) -> None:
    """Refused before training, which would come to it at its first evaluation."""
    values = tiny_values(tmp_path)
    of_pairs = parse_config(values | {"train": values["train"] | {"monitor": "bleu"}}, "tiny")
    assert of_pairs.train.monitor == "bleu"
    values["data"]["mixture"] = [part for part in values["data"]["mixture"] if part.get("objective") == "spans"]
    assert parse_config(values, "tiny").train.monitor == "loss"
    for score in ("bleu", "chrf"):
        values["train"]["monitor"] = score
        with pytest.raises(InputError, match=rf"^tiny: train.monitor: {score} is a score of pairs.*; choose loss$"):
            parse_config(values, "tiny")


def test_scores_are_those_of_the_translator(task: TextToTextTask, translator: Translator) -> None:
    """Training's losses and texts are what a user gets for the same pairs."""
    scores = task.evaluate(translator.model)
    log_prob, tokens = 0.0, 0
    for name in PREFIXES:
        sources, targets = dict(task._pairs("valid"))[name].texts()
        found = translator.score(list(zip(sources, targets, strict=True)), task=name)
        total, count = sum(each.log_prob for each in found), sum(each.tokens for each in found)
        assert scores[f"valid_loss_{name}"] == pytest.approx(-total / count, abs=1e-5)
        answers = [each.text for each in translator.translate(sources, beam=1, task=name)]
        assert scores[f"bleu_{name}"] == translation_scores(answers, targets, name[-2:])["bleu"]
        log_prob, tokens = log_prob + total, tokens + count
    batches = task._valid["text"]
    for rows in batches.order(0, shuffle=False):
        _, nll, count = task.loss(translator.model, batches.load(rows))
        log_prob, tokens = log_prob - float(nll), tokens + count
    assert scores["valid_loss"] == pytest.approx(-log_prob / tokens, abs=1e-5)


def test_samples_of_every_part(task: TextToTextTask, translator: Translator) -> None:
    samples = task.samples(translator.model)
    assert samples == task.samples(translator.model)
    for (read, written, expected), (name, prefix) in zip(samples, PREFIXES.items(), strict=False):
        assert read.startswith(prefix)
        source = read.removeprefix(prefix)
        assert written == translator.translate([source], beam=1, task=name)[0].text
        assert (source, expected) in zip(*dict(task._pairs("valid"))[name].texts(), strict=True)
    read, written, expected = samples[2]
    assert "<1>" in read and expected.startswith("<1>")
    whole = read
    for i in range(1, expected.count("<")):
        taken = expected.split(f"<{i}>")[1].split(f"<{i + 1}>")[0]
        whole = whole.replace(f"<{i}>", taken)
    assert whole in " ".join(read_lines(task.config.mixture[2].train[0]))


def test_where_it_looks_is_of_a_part_with_pairs(task: TextToTextTask, translator: Translator) -> None:
    looked = task.cross_attention(translator.model)
    assert looked is not None and looked.weights.shape == (len(looked.target), len(looked.source))
    name, prefix = next(iter(PREFIXES.items()))
    source = "".join(looked.source[:-1]).replace("▁", " ").strip()
    assert source.startswith(prefix.strip())
    target = "".join(looked.target[:-1]).replace("▁", " ").strip()
    maps = translator.attention(source.removeprefix(prefix.strip()).strip(), target=target, task=name)
    assert maps.target_tokens == looked.target
    last = max(name for name in maps.maps if name.endswith("cross"))
    assert torch.allclose(maps.maps[last].mean(dim=0), looked.weights, atol=1e-6)


def test_where_it_looks_is_of_spans_where_there_are_no_pairs(task: TextToTextTask, translator: Translator) -> None:
    task._data = replace(task._data, valid={"text": task._data.valid["text"]})
    task._valid = {"text": task._valid["text"]}
    looked = task.cross_attention(translator.model)
    assert looked is not None and "<1>" in looked.source and looked.target[0] == "<1>"


# Use.


def sources_read(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Collects the ids of every source that the model encodes from now on."""
    seen: list[list[int]] = []
    encode = type(translator.model).encode

    def noted(self: Any, src: Tensor, src_mask: Tensor | None = None, maps: Any = None) -> Any:
        mask = torch.ones_like(src, dtype=torch.bool) if src_mask is None else src_mask
        seen.extend(row[real].tolist() for row, real in zip(src, mask, strict=True))
        return encode(self, src, src_mask, maps)

    monkeypatch.setattr(type(translator.model), "encode", noted)
    return seen


@pytest.mark.parametrize(
    ("options", "prefix"),
    [({"task": "zh-en"}, "to English: "), ({"task": "en-zh"}, "to Chinese: "), ({"prefix": "eight: "}, "eight: ")],
)
def test_a_task_or_a_prefix_is_chosen(
    translator: Translator, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], prefix: str
) -> None:
    expected = [*prefix_ids(translator.tokenizer, prefix), *translator.tokenizer.encode("三五。")]
    seen = sources_read(translator, monkeypatch)
    translator.translate(["三五。"], **options)
    translator.score([("三五。", "one.")], **options)
    maps = translator.attention("三五。", "one.", **options)
    translator.attention("三五。", **options)
    assert seen == [expected] * 5
    assert maps.source_tokens == tuple(translator.tokenizer.pieces[i] for i in expected)
    assert maps.maps["decoder.0.cross"].shape[-1] == len(expected)


def test_each_part_of_a_long_text_has_the_prefix(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut at sentences, at clauses, and where there is nothing to cut at; none is longer than the model."""
    seen = sources_read(translator, monkeypatch)
    texts = ["一二三四五。" * 9, "一二三四五，" * 9, "九" * 150]
    found = translator.translate(texts, beam=1, task="en-zh")
    prefix = prefix_ids(translator.tokenizer, "to Chinese: ")
    assert len(seen) > 4
    for ids in seen:
        assert ids[: len(prefix)] == prefix
        assert len(prefix) < len(ids) <= translator.model.max_len
    assert all("split" in each.flags for each in found)
    with pytest.raises(InputError, match="a prefix of 63 tokens leaves no room in the model's 56"):
        translator.translate(["九"], prefix="one two " * 8)


@pytest.mark.parametrize("beam", [1, 3])
def test_signs_are_never_written(run: Path, beam: int) -> None:
    """Not even by a model that would write nothing else."""
    translator = load(run)
    size = translator.tokenizer.vocab_size
    wanted = translator.model.output_projection.weight
    with torch.no_grad():
        wanted[size:] = 50 * wanted[2]
    found = translator.translate(["三五。", "零"], task="zh-en", beam=beam, n_best=beam)
    assert all(set(each.tokens) <= set(translator.tokenizer.pieces) for each in found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "this run does several tasks: choose one by --task zh-en or en-zh"),
        ({"task": "text"}, "no task 'text'; choose zh-en or en-zh"),
        ({"task": "zh-en", "prefix": "x"}, "a task or a prefix, not both"),
    ],
)
def test_unclear_tasks_are_refused(translator: Translator, options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        translator.translate(["三。"], **options)


def test_one_task_needs_no_choice(run: Path, translator: Translator) -> None:
    config = translator.config
    alone = replace(config, data=replace(config.data, mixture=config.data.mixture[1:]))
    other = Translator(translator.model, alone, (translator.tokenizer, translator.tokenizer))
    assert other.prefix() == translator.prefix("en-zh")
    imported = replace(config, data=replace(config.data, mixture=()))
    other = Translator(translator.model, imported, (translator.tokenizer, translator.tokenizer))
    assert other.prefix() == []
    assert other.prefix(prefix="to ") == prefix_ids(translator.tokenizer, "to ")
    with pytest.raises(InputError, match="no task 'x'; leave --task out, or give a --prefix"):
        other.prefix("x")


def test_evaluation_by_task(translator: Translator, tmp_path: Path) -> None:
    scores = evaluate_run(translator, Wanted(beam=1))
    test = translator.config.data.test[0]
    pairs = [tuple(line.split("\t")) for line in read_lines(test)]
    for name, sides in (("zh-en", pairs), ("en-zh", [pair[::-1] for pair in pairs])):
        answers = [each.text for each in translator.translate([side[0] for side in sides], beam=1, task=name)]
        expected = translation_scores(answers, [side[1] for side in sides], name[-2:])
        assert [scores[f"{key}_{name}"] for key in ("bleu", "chrf", "signature")] == list(expected.values())
        found = translator.score(sides, task=name)
        loss = -sum(each.log_prob for each in found) / sum(each.tokens for each in found)
        assert scores[f"valid_loss_{name}"] == pytest.approx(loss, abs=1e-4)
        alone = evaluate_run(translator, Wanted(beam=1, task=name, output=tmp_path / "out.txt"))
        assert (alone["bleu"], alone["sentences"]) == (scores[f"bleu_{name}"], 10)
        assert list(read_lines(str(tmp_path / "out.txt"))) == answers
    assert scores["bleu"] == pytest.approx((scores["bleu_zh-en"] + scores["bleu_en-zh"]) / 2, abs=1e-4)
    counts = {name: sum(len(translator.tokenizer.encode(side[i])) for side in pairs) for name, i in WRITTEN.items()}
    total = sum(scores[f"valid_loss_{name}"] * count for name, count in counts.items())
    assert scores["valid_loss"] == pytest.approx(total / sum(counts.values()), abs=1e-4)  # as in training: by tokens
    assert scores["valid_loss"] != pytest.approx(sum(scores[f"valid_loss_{n}"] for n in counts) / 2, abs=1e-3)
    given = evaluate_run(translator, Wanted(files=[test], columns=(2, 1), beam=1, task="en-zh"))
    assert given["bleu"] == scores["bleu_en-zh"]
    with pytest.raises(InputError, match="for one task; choose it by --task zh-en or en-zh"):
        evaluate_run(translator, Wanted(output=tmp_path / "out.txt"))
    with pytest.raises(InputError, match="no task 'x'"):
        evaluate_run(translator, Wanted(task="x"))


def test_given_pairs_are_scored_in_the_tasks_language(translator: Translator) -> None:
    """Without a word of the task, where there is one alone, or where the prefix tells it."""
    test, tokenizer = translator.config.data.test[0], translator.tokenizer
    alone = replace(translator.config.data, mixture=translator.config.data.mixture[1:])
    single = Translator(translator.model, replace(translator.config, data=alone), (tokenizer, tokenizer))
    wanted = Wanted(files=[test], columns=(2, 1), beam=1)
    expected = evaluate_run(translator, replace(wanted, task="en-zh"))
    assert "tok:zh" in expected["signature"] and expected["bleu"] > 0
    for scores in (evaluate_run(single, wanted), evaluate_run(translator, replace(wanted, prefix=PREFIXES["en-zh"]))):
        assert [scores[key] for key in ("bleu", "chrf", "signature")] == [
            expected[key] for key in ("bleu", "chrf", "signature")
        ]


def test_scores_of_lines(translator: Translator) -> None:
    test = translator.config.data.test[0]
    pairs = [tuple(line.split("\t")) for line in read_lines(test)]
    lines = list(score_lines(translator, test, (1, 2), False, print, {"task": "zh-en"}))
    expected = translator.score(pairs, task="zh-en")
    assert [line.split("\t")[0] for line in lines] == [f"{each.log_prob:.5f}" for each in expected]


def words(*arguments: Any) -> Sequence[str]:
    return [str(argument) for argument in arguments]


def test_from_the_command_line(run: Path, translator: Translator) -> None:
    expected = translator.translate(["三五。"], task="zh-en")[0].text
    found = zhuyi("translate", run, "三五。", "--task", "zh-en", "--precision", "float32")
    assert (found.returncode, found.stdout) == (0, expected + "\n"), found.stderr
    failed = zhuyi("translate", run, "三五。")
    assert failed.returncode == 2
    assert failed.stderr == "error: this run does several tasks: choose one by --task zh-en or en-zh\n"


# Configs.


def test_a_recipe_of_parts(tmp_path: Path) -> None:
    values = tiny_values(tmp_path)
    recipe = write_recipe(tmp_path / "recipe.toml", values)
    config = read_recipe(recipe)
    assert config.data.mixture[1].columns == (2, 1)
    assert parse_config(json.loads(config.as_json()), "again") == config
    values["data"]["mixture"][1]["prefx"] = ""
    with pytest.raises(InputError, match=r"unknown key 'data.mixture.1.prefx'; did you mean 'prefix'\?"):
        parse_config(values, "recipe")
    del values["data"]["mixture"][1]["prefx"]
    values["data"]["mixture"][1]["weight"] = -1.0
    with pytest.raises(InputError, match=r"data.mixture.1: the weight of en-zh must be above 0, got -1.0"):
        parse_config(values, "recipe")
    values["data"]["mixture"][1] = "x"
    with pytest.raises(InputError, match=r"data.mixture.1 is a value, but a section"):
        parse_config(values, "recipe")


def test_models_of_other_tasks_are_refused(tmp_path: Path) -> None:
    values = tiny_values(tmp_path)
    values["model"] = {"name": "transformer", "d_model": 16, "num_heads": 2, "d_ff": 16, "max_len": 56}
    with pytest.raises(InputError, match="transformer is not for the task text-to-text: it has no vocab_size"):
        train_tiny(parse_config(values, "tiny"), tmp_path / "run")
