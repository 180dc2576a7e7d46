"""A run learns on from the command line's words alone: its task, sizes and tokenizers are taken over."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.interop.published import gpt2_folder, marian_folder, t5_folder
from tests.tasks.test_text_to_text import tiny_values as text_to_text_values
from tests.tiny import SilentLog, number_pairs, random_run, write_pairs

import zhuyi
from zhuyi.config import RunConfig, parse_config
from zhuyi.errors import InputError
from zhuyi.interop import import_run
from zhuyi.run_folder import RunFolder
from zhuyi.training.loop import train
from zhuyi.training.start import choose_config


def choose(out: Path, init: Path, file: Path, *changes: str, **options: Any) -> RunConfig:
    files = {"train": [str(file)], "valid": [], "test": []}
    told: list[str] = []
    arguments = {"task": None, "languages": ("", ""), "columns": None, "prefix": None} | options
    return choose_config(
        None, RunFolder(out), False, ["train.precision=float32", *changes], arguments["task"], arguments["languages"],
        files, arguments["columns"], told.append, init=str(init), prefix=arguments["prefix"],
    )  # fmt: skip


def learn(out: Path, config: RunConfig) -> Any:
    train(config, RunFolder(out), log=SilentLog(RunFolder(out)))
    return zhuyi.load(out)


def test_a_translator_learns_on(tmp_path: Path) -> None:
    begun = random_run(tmp_path / "begun")
    pairs = write_pairs(tmp_path / "new.tsv", number_pairs(60, seed=5))
    config = choose(tmp_path / "on", begun.path, pairs, "train.max_steps=2")
    assert config.model == begun.read_config().model
    assert config.data.train == (str(pairs),) and config.data.source == "zh"
    assert config.train.learning_rate < 1e-3
    run = learn(tmp_path / "on", config)
    assert (tmp_path / "on" / "tokenizer.json").read_bytes() == (tmp_path / "begun" / "tokenizer.json").read_bytes()
    moved = (run.model.source_embedding.weight - begun.read_weights()["source_embedding.weight"]).abs()
    assert 0 < float(moved.max()) < 0.1


def test_nothing_to_learn_from(tmp_path: Path) -> None:
    begun = random_run(tmp_path / "begun")
    with pytest.raises(InputError, match="give --train FILE"):
        choose_config(
            None, RunFolder(tmp_path / "on"), False, [], None, ("", ""),
            {"train": [], "valid": [], "test": []}, None, print, init=str(begun.path),
        )  # fmt: skip


def test_a_task_keeps_its_prefix_and_language(tmp_path: Path) -> None:
    values = text_to_text_values(tmp_path)
    pairs = write_pairs(tmp_path / "new.tsv", number_pairs(60, seed=5))
    several, single, none = (RunFolder(tmp_path / name) for name in ("several", "single", "none"))
    several.write_config(parse_config(values, "tiny"))
    parts = values["data"]["mixture"]
    for folder, kept in ((single, parts[1:]), (none, [])):
        folder.write_config(parse_config({**values, "data": {**values["data"], "mixture": kept}}, "tiny"))

    def part_of(init: RunFolder, **options: Any) -> Any:
        (part,) = choose(tmp_path / "on", init.path, pairs, **options).data.mixture
        assert (part.train, part.valid, part.test) == ((str(pairs),), (), ())
        return part

    found = part_of(single)
    assert (found.name, found.prefix, found.columns, found.target) == ("en-zh", "to Chinese: ", (2, 1), "zh")
    assert part_of(several, prefix="to English: ").target == "en"
    found = part_of(several, prefix="sum: ", languages=("", "ja"), columns=(3, 1))
    assert (found.name, found.prefix, found.columns, found.target) == ("pairs", "sum: ", (3, 1), "ja")
    assert part_of(none, prefix="").prefix == ""
    with pytest.raises(InputError, match=r"several tasks: .* give --prefix 'to English: ' or 'to Chinese: '"):
        choose(tmp_path / "on", several.path, pairs)
    with pytest.raises(InputError, match=r"none does what a text begins with says: .* give --prefix TEXT"):
        choose(tmp_path / "on", none.path, pairs)


def test_a_run_of_one_task_cannot_learn_another(tmp_path: Path) -> None:
    begun = random_run(tmp_path / "begun")
    pairs = write_pairs(tmp_path / "new.tsv", number_pairs(9))
    with pytest.raises(
        InputError, match=r"--task language-modelling: .* is a run of translation and learns on at that"
    ):
        choose(tmp_path / "on", begun.path, pairs, task="language-modelling")
    with pytest.raises(InputError, match="--prefix is for a text-to-text run"):
        choose(tmp_path / "on", begun.path, pairs, prefix="x")


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
@pytest.mark.parametrize("family", ["marian", "t5", "gpt2"])
def test_an_imported_model_learns_on(family: str, tmp_path: Path) -> None:
    {"marian": marian_folder, "t5": t5_folder, "gpt2": gpt2_folder}[family](tmp_path / "hf")
    import_run(tmp_path / "hf", tmp_path / "run")
    pairs = [(f"the cat {word}", f"a dog {word}") for word in "abcdefghijklmnopqrstuvwxyz"]
    file = write_pairs(tmp_path / "new.tsv", pairs)
    if family == "gpt2":
        file.write_text("the cat sat on the mat .\n" * 80, encoding="utf-8")
    changes = ("train.max_steps=3", "train.lora.rank=2")
    config = choose(tmp_path / "on", tmp_path / "run", file, *changes, prefix="" if family == "t5" else None)
    run = learn(tmp_path / "on", config)
    before, after = (RunFolder(tmp_path / name).read_weights() for name in ("run", "on"))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert run.config.model == zhuyi.load(tmp_path / "run").config.model
