"""Recipes become configs, configs become JSON and come back; every mistake is named with its place and the way out."""

import dataclasses
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import tiny_values

from zhuyi.config import RunConfig, apply_change, parse_config, read_recipe
from zhuyi.errors import InputError
from zhuyi.models import MODELS
from zhuyi.run_folder import RunFolder
from zhuyi.tasks import TASKS
from zhuyi.training.automatic import as_toml

RECIPES = sorted((Path(__file__).parents[1] / "recipes").rglob("*.toml"))


def changed(*changes: str) -> dict[str, Any]:
    values = tiny_values("pairs.tsv")
    for change in changes:
        apply_change(values, change)
    return values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # unknown names, at each depth, with the nearest known one
        ("trian.max_steps=5", "r.toml: unknown section 'trian'; did you mean 'train'?"),
        ("train.max_step=5", "r.toml: unknown key 'train.max_step'; did you mean 'max_steps'?"),
        ("model.num_head=2", "r.toml: unknown key 'model.num_head'; did you mean 'num_heads'?"),
        ("decode.bem=2", "r.toml: unknown key 'decode.bem'; did you mean 'beam'?"),
        ("data.tokenizer.vocab=9", "r.toml: unknown key 'data.tokenizer.vocab'; did you mean 'vocab_size'?"),
        ("data.cleaning.max_char=9", "r.toml: unknown key 'data.cleaning.max_char'; did you mean 'max_chars'?"),
        ("task=translate", "r.toml: task is 'translate'; did you mean 'translation'?; choose one of translation"),
        (
            "model.name=tranformer",
            "r.toml: model.name is 'tranformer'; did you mean 'transformer'?; choose one of transformer",
        ),
        ("model.size=bigg", "r.toml: model.size is 'bigg'; did you mean 'big'?; choose one of base, big"),
        ("model.size=tiny", "r.toml: model.size is 'tiny'; choose one of base, big"),
        ("model.size=6", "r.toml: model.size is '6'; choose one of base, big"),
        # wrong types, with the key's path
        ("train.max_steps=many", 'r.toml: train.max_steps = "many": input should be a valid integer'),
        ("train.max_steps=1.5", "r.toml: train.max_steps = 1.5: input should be a valid integer"),
        ("train.max_steps=true", "r.toml: train.max_steps = true: input should be a valid integer"),
        ("train.max_steps=2026-01-01", 'r.toml: train.max_steps = "2026-01-01": input should be a valid integer'),
        ("train.deterministic=1", "r.toml: train.deterministic = 1: input should be a valid boolean"),
        ("train.betas=[0.9, 'x']", 'r.toml: train.betas.1 = "x": input should be a valid number'),
        ("data.train='pairs.tsv'", 'r.toml: data.train = "pairs.tsv": input should be a valid array'),
        ("data.tokenizer.kind=bpee", "r.toml: data.tokenizer.kind = \"bpee\": input should be 'unigram', 'bpe'"),
        ("train.monitor=blue", "r.toml: train.monitor is 'blue'; did you mean 'bleu'?; choose one of bleu, chrf, loss"),
        ("train.monitor=accuracy", "r.toml: train.monitor is 'accuracy'; choose one of bleu, chrf, loss"),
        ("train.final_learning_rate=0.1", "r.toml: train: final_learning_rate lies between 0 and learning_rate"),
        ("train.final_learning_rate=1e-3", "r.toml: train: final_learning_rate is where cosine and linear end"),
        ("train.schedule=warm", "r.toml: train.schedule = \"warm\": input should be 'noam'"),
        ("train=5", "r.toml: train is a value, but a section [train] was expected"),
        ("data.tokenizer=unigram", "r.toml: data.tokenizer is a value, but a section [data.tokenizer] was expected"),
        ("model=transformer", "r.toml: model.name is missing"),
        # values that cannot be
        ("train.max_steps=0", "r.toml: train: no limit is set: set max_steps, max_epochs or max_minutes"),
        ("train.max_steps=-3", "r.toml: train: max_steps must not be negative, got -3"),
        ("train.batch_tokens=0", "r.toml: train: batch_tokens must be at least 1, got 0"),
        ("train.accumulation=0", "r.toml: train: accumulation must be at least 1, got 0"),
        ("train.eval_every_steps=0", "r.toml: train: eval_every_steps must be at least 1, got 0"),
        ("model.num_heads=4", "r.toml: model: d_model = 26 is not divisible by num_heads = 4"),
        ("model.num_heads=0", "r.toml: model: num_heads must be at least 1, got 0"),
        ("model.memory=layerwise", "r.toml: model: memory = layerwise needs as many encoder layers (1)"),
        ("data.tokenizer.vocab_size=3", "r.toml: data.tokenizer: vocab_size is 3; a character tokenizer needs"),
        ("decode.beam=0", "r.toml: decode: beam must be at least 1, got 0"),
    ],
)
def test_mistakes_are_named(change: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_config(changed(change), "r.toml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_name_like_no_other_brings_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"unknown key 'decode.zzz'; known are beam, length_rule, alpha, stop"):
        parse_config(changed("decode.zzz=1"), "r.toml")


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_schedules_to_the_last_step_need_its_number(schedule: str) -> None:
    changes = [f"train.schedule={schedule}", "train.max_steps=0", "train.max_minutes=3"]
    with pytest.raises(InputError, match=f"the {schedule} schedule .* set max_steps"):
        parse_config(changed(*changes), "r.toml")


def test_what_must_be_said_is_asked_for() -> None:
    for key in ("task", "model"):
        values = tiny_values("pairs.tsv")
        del values[key]
        with pytest.raises(InputError, match=f"^r.toml: {key}.* is missing; .*choose one of t"):
            parse_config(values, "r.toml")
    values = tiny_values("pairs.tsv")
    del values["train"]
    with pytest.raises(InputError, match=r"r.toml: train: no limit is set"):
        parse_config(values, "r.toml")
    del values["data"], values["decode"]
    values["train"] = {"max_epochs": 3}
    assert parse_config(values, "r.toml").data.train == ()


@pytest.mark.parametrize(
    ("change", "read"),
    [
        ("train.max_minutes=5", lambda c: c.train.max_minutes == 5.0 and isinstance(c.train.max_minutes, float)),
        ("train.learning_rate=1e-3", lambda c: c.train.learning_rate == 0.001),
        ("train.schedule=noam", lambda c: c.train.schedule == "noam"),
        ("train.schedule='noam'", lambda c: c.train.schedule == "noam"),
        (" train.max_steps = 7 ", lambda c: c.train.max_steps == 7),
        ("train.deterministic=true", lambda c: c.train.deterministic is True),
        ("data.train=['a.tsv', \"b=c.tsv\"]", lambda c: c.data.train == ("a.tsv", "b=c.tsv")),
        ("data.columns=[2, 1]", lambda c: c.data.columns == (2, 1)),
        ("data.tokenizer.kind=bpe", lambda c: c.data.tokenizer.kind == "bpe"),
        ("data.cleaning.simplify=true", lambda c: c.data.cleaning.simplify),  # the section was not there
        ("data.source=zh-Hant", lambda c: c.data.source == "zh-Hant"),  # no TOML value: a string
        ("data.source=", lambda c: c.data.source == ""),
    ],
)
def test_set(change: str, read: Any) -> None:
    assert read(parse_config(changed(change), "r.toml"))


@pytest.mark.parametrize("size", ["base", "big"])
def test_a_published_size_may_be_named_and_departed_from(size: str) -> None:
    values = tiny_values("pairs.tsv")
    values["model"] = {"name": "transformer", "size": size}
    published = MODELS["transformer"].sizes[size]
    assert parse_config(values, "r.toml").model == published
    apply_change(values, "model.dropout=0.2")
    apply_change(values, "model.norm_first=true")
    config = parse_config(values, "r.toml")
    assert config.model == dataclasses.replace(published, dropout=0.2, norm_first=True)
    assert parse_config(json.loads(config.as_json()), "json") == config  # the run's own config has every number


def test_a_size_can_be_set() -> None:
    values = tiny_values("pairs.tsv")
    values["model"] = {"name": "transformer"}
    apply_change(values, "model.size=big")
    assert parse_config(values, "r.toml").model.d_model == 1024


def test_the_tasks_first_score_is_monitored() -> None:
    assert parse_config(changed(), "r.toml").train.monitor == "bleu"
    assert parse_config(changed("train.monitor=loss"), "r.toml").train.monitor == "loss"


def test_a_task_that_searches_for_nothing_has_no_such_section(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "translation", dataclasses.replace(TASKS["translation"], decode=None))
    with pytest.raises(InputError, match=r"^r.toml: section 'decode' is not for the task translation"):
        parse_config(changed(), "r.toml")
    values = {name: section for name, section in changed().items() if name != "decode"}
    config = parse_config(values, "r.toml")
    assert config.decode is None
    assert parse_config(json.loads(config.as_json()), "json") == config


def test_later_changes_win() -> None:
    assert parse_config(changed("train.seed=4", "train.seed=5"), "r.toml").train.seed == 5


@pytest.mark.parametrize("change", ["train.max_steps", "=5", ".=5", "train.=5", ".max_steps=5", "train..seed=5", ""])
def test_set_needs_section_key_and_value(change: str) -> None:
    with pytest.raises(InputError, match=r"expected SECTION.KEY=VALUE, such as train.max_minutes=5"):
        changed(change)


def test_set_cannot_reach_into_a_value() -> None:
    with pytest.raises(InputError, match=r"--set train.max_steps.x=5: max_steps is a value, not a section"):
        changed("train.max_steps.x=5")


def test_files_that_are_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.toml: cannot read the recipe \(No such file"):
        read_recipe(tmp_path / "none.toml")
    with pytest.raises(InputError, match=r"cannot read the recipe \(Is a directory"):
        read_recipe(tmp_path)
    (tmp_path / "broken.toml").write_text("task = translation\n")
    with pytest.raises(InputError, match=r"broken.toml: not a TOML file: .*line 1"):
        read_recipe(tmp_path / "broken.toml")
    (tmp_path / "bytes.toml").write_bytes(b"task = '\xff'\n")
    with pytest.raises(InputError, match=r"bytes.toml: not a TOML file"):
        read_recipe(tmp_path / "bytes.toml")


def test_there_are_recipes() -> None:
    assert RECIPES


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_read_whole(recipe: Path, tmp_path: Path) -> None:
    config = read_recipe(recipe)
    written = tomllib.loads(recipe.read_text(encoding="utf-8"))
    assert_contains(json.loads(config.as_json()), written)
    folder = RunFolder(tmp_path / "run")
    folder.write_config(config)
    assert folder.read_config() == config


def assert_contains(whole: Any, part: Any) -> None:
    if isinstance(part, dict):
        for key, value in part.items():
            assert_contains(whole[key], value)
    elif isinstance(part, list):
        assert len(whole) == len(part)
        for each, wanted in zip(whole, part, strict=True):
            assert_contains(each, wanted)
    else:
        assert whole == part


paths = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9), max_size=3)


@given(
    changes=st.fixed_dictionaries(
        {
            "model": st.fixed_dictionaries(
                {"d_model": st.integers(1, 9).map(lambda n: 2 * n), "num_heads": st.just(1)}
            ),
            "data": st.fixed_dictionaries(
                {
                    "train": paths,
                    "source": st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
                    "columns": st.tuples(st.integers(1, 5), st.integers(1, 5)).map(list),
                    "tokenizer": st.fixed_dictionaries({"joint": st.booleans(), "vocab_size": st.integers(300, 9999)}),
                }
            ),
            "train": st.fixed_dictionaries(
                {
                    "max_steps": st.integers(1, 10**9),
                    "learning_rate": st.floats(1e-9, 10, exclude_min=True),
                    "betas": st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)).map(list),
                    "deterministic": st.booleans(),
                }
            ),
            "decode": st.fixed_dictionaries({"beam": st.integers(1, 99), "alpha": st.floats(0, 9)}),
        }
    )
)
def test_toml_config_json_config(changes: dict[str, Any]) -> None:
    values = {"task": "translation", **changes, "model": {"name": "transformer", **changes["model"]}}
    config = parse_config(tomllib.loads(as_toml(values)), "toml")
    assert isinstance(config, RunConfig)
    assert_contains(json.loads(config.as_json()), values)
    assert parse_config(json.loads(config.as_json()), "json") == config
