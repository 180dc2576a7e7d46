"""Training with adapters: only they move, what users load is merged, and a run goes on exactly."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.tasks.test_masked_language_modelling import values as encoder_values
from tests.tiny import number_pairs, random_run, tiny_config, tiny_values, train_tiny, write_pairs

import zhuyi
from zhuyi.config import parse_config
from zhuyi.errors import InputError
from zhuyi.run_folder import RunFolder

LORA = {"rank": 2, "alpha": 4.0}


def test_a_run_with_adapters(tmp_path: Path) -> None:
    begun = random_run(tmp_path / "begun")
    pairs = write_pairs(tmp_path / "new.tsv", number_pairs(40, seed=5))
    values = tiny_values(pairs, init=str(begun.path), lora=LORA, max_steps=10)
    values["model"] = begun.read_config().as_dict()["model"]
    _, log = train_tiny(parse_config(values, "here"), tmp_path / "whole")
    assert any("all others stand still" in line for line in log.said)
    before, after = begun.read_weights(), RunFolder(tmp_path / "whole").read_weights()
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {
        name for name in before if name.endswith((".w_qkv.weight", ".w_q.weight", ".w_kv.weight", ".w_o.weight"))
    }
    assert zhuyi.load(tmp_path / "whole").translate(["三五。"])
    half = parse_config({**values, "train": {**values["train"], "max_steps": 5}}, "here")
    train_tiny(half, tmp_path / "halves")
    folder = RunFolder(tmp_path / "halves")
    config = folder.read_config()
    folder.write_config(replace(config, train=replace(config.train, max_steps=10)))
    train_tiny(folder.read_config(), tmp_path / "halves", resume=True)
    for name, weight in RunFolder(tmp_path / "halves").read_checkpoint_weights(10).items():
        assert torch.equal(weight, RunFolder(tmp_path / "whole").read_checkpoint_weights(10)[name]), name


def test_a_new_head_learns_beside_adapters_and_in_the_next_life(tmp_path: Path) -> None:
    """A classifier that begins with a run of words: all of the body stands still but for the adapters."""
    sides = list(zip(*number_pairs(40), strict=True))
    labelled, texts = tmp_path / "labelled.tsv", tmp_path / "texts.txt"
    labelled.write_text("".join(f"{i}\t{text}\n" for i in (0, 1) for text in sides[i]), encoding="utf-8")
    texts.write_text("\n".join([*sides[0], *sides[1]]), encoding="utf-8")
    train_tiny(parse_config(encoder_values(texts, max_steps=3), "here"), tmp_path / "words")
    values = encoder_values(labelled, max_steps=6, init=str(tmp_path / "words"), lora=LORA)
    values["task"] = "text-classification"
    train_tiny(parse_config(values, "here"), tmp_path / "whole")
    half = parse_config({**values, "train": {**values["train"], "max_steps": 3}}, "here")
    train_tiny(half, tmp_path / "halves")
    folder = RunFolder(tmp_path / "halves")
    config = folder.read_config()
    folder.write_config(replace(config, train=replace(config.train, max_steps=6)))
    train_tiny(folder.read_config(), tmp_path / "halves", resume=True)
    early, late, whole = (
        folder.read_checkpoint_weights(3),
        folder.read_checkpoint_weights(6),
        RunFolder(tmp_path / "whole").read_checkpoint_weights(6),
    )
    moved = {name for name in late if not torch.equal(early[name], late[name])}
    heads = {f"{head}.linear.{kind}" for head in ("pooler", "classifier") for kind in ("weight", "bias")}
    assert moved == heads | {name for name in late if name.endswith((".up", ".down"))}
    for name, weight in late.items():
        assert torch.equal(weight, whole[name]), name


def test_adapters_need_something_to_stand_beside() -> None:
    with pytest.raises(InputError, match=r"lora\.rank is set, but adapters need a trained model"):
        tiny_config("nowhere.tsv", lora=LORA)


def test_targets_that_no_model_has(tmp_path: Path) -> None:
    begun = random_run(tmp_path / "begun")
    values = tiny_values(begun.path / "pairs.tsv", init=str(begun.path), lora={**LORA, "targets": ["q_proj"]})
    with pytest.raises(InputError, match=r"train\.lora\.targets: the model has no affine map named q_proj"):
        train_tiny(parse_config(values, "here"), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()
