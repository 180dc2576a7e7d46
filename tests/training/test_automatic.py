"""A recipe for anybody's pairs: from their counts and the machine's alone, and one that suits them."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import number_pairs, write_pairs

from zhuyi.config import RunConfig, parse_config
from zhuyi.errors import InputError
from zhuyi.run_folder import RunFolder
from zhuyi.training.automatic import as_toml, pairs
from zhuyi.training.automatic.pairs import automatic_recipe
from zhuyi.training.start import choose_config

COUNTS = (100, 5_000, 50_000)
NOTHING: dict[str, list[str]] = {"train": [], "valid": [], "test": []}


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cores, 8 GiB, no GPU."""
    monkeypatch.setattr(pairs, "num_cores", lambda: 2)
    monkeypatch.setattr(pairs, "memory_gib", lambda: 8.0)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("pairs")
    pairs = number_pairs(max(COUNTS), digits=range(3, 9))
    return {count: write_pairs(folder / f"{count}.tsv", pairs[:count]) for count in COUNTS}


def made(file: Path, extra: dict[str, list[str]] | None = None) -> tuple[dict[str, Any], list[str]]:
    return automatic_recipe("zh", "en", [str(file)], (1, 2), extra or {})


@pytest.fixture(scope="module")
def configs(files: dict[int, Path]) -> dict[int, RunConfig]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "num_cores", lambda: 2)
        patch.setattr(pairs, "memory_gib", lambda: 8.0)
        patch.setattr("torch.cuda.is_available", lambda: False)
        return {count: parse_config(made(file)[0], "automatic") for count, file in files.items()}


def test_the_same_facts_give_the_same_recipe(files: dict[int, Path], tmp_path: Path) -> None:
    values, reasons = made(files[100])
    assert made(files[100]) == (values, reasons)
    lines = files[100].read_text(encoding="utf-8").splitlines(keepends=True)
    shuffled = tmp_path / files[100].name
    shuffled.write_text("".join(reversed(lines)), encoding="utf-8")
    other, _ = made(shuffled)
    assert {**other, "data": {**other["data"], "train": []}} == {**values, "data": {**values["data"], "train": []}}


def test_it_is_a_recipe(files: dict[int, Path]) -> None:
    values, _ = made(files[100], {"valid": ["v.tsv"], "test": []})
    config = parse_config(tomllib.loads(as_toml(values)), "toml")
    assert config == parse_config(values, "plain")
    assert config.data.train == (str(files[100]),)
    assert config.data.valid == ("v.tsv",) and config.data.test == ()
    assert (config.data.source, config.data.target) == ("zh", "en")


def test_more_pairs_bear_a_larger_model(configs: dict[int, RunConfig]) -> None:
    small, middle, large = (configs[count] for count in COUNTS)
    assert small.model.d_model < middle.model.d_model < large.model.d_model
    assert small.model.dropout >= middle.model.dropout >= large.model.dropout
    assert small.data.tokenizer.vocab_size < middle.data.tokenizer.vocab_size
    assert small.train.max_epochs >= middle.train.max_epochs >= large.train.max_epochs


@pytest.mark.parametrize("count", COUNTS)
def test_it_is_sensible(configs: dict[int, RunConfig], files: dict[int, Path], count: int) -> None:
    config = configs[count]
    held_out = config.data.valid_size
    assert held_out <= count // 5 and held_out >= min(20, count // 5)
    characters = sum(map(len, files[count].read_text(encoding="utf-8").splitlines()))
    tokens = characters / 2  # a guess that errs on the side of many
    assert config.data.tokenizer.vocab_size * 15 < characters
    longest_steps = config.train.max_epochs * max(1.0, tokens / config.train.batch_tokens)
    assert config.train.warmup_steps < longest_steps / 2  # the rate comes to its height, and down again
    assert longest_steps / config.train.eval_every_steps > config.train.average_checkpoints  # enough to average
    assert config.train.patience and config.train.average != "none"


def test_the_reasons_name_the_facts(files: dict[int, Path], configs: dict[int, RunConfig]) -> None:
    reasons = "\n".join(made(files[5_000])[1])
    config = configs[5_000]
    assert "5,000 of 5,000 pairs kept" in reasons
    assert f"width {config.model.d_model}" in reasons and "2 cores, no GPU" in reasons
    assert f"vocabulary {config.data.tokenizer.vocab_size:,}" in reasons
    assert f"batches of {config.train.batch_tokens:,} tokens" in reasons and "8 GiB" in reasons
    assert f"{config.train.max_epochs} epochs, about {5_000 * config.train.max_epochs:,} pairs seen" in reasons


def test_little_memory_gives_small_batches(
    files: dict[int, Path], configs: dict[int, RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "memory_gib", lambda: 1.0)
    less = parse_config(made(files[50_000])[0], "automatic").train.batch_tokens
    assert 500 < less < configs[50_000].train.batch_tokens


def test_what_is_unusable_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.tsv").write_text("")
    with pytest.raises(InputError, match=r"no pairs in .*empty.tsv"):
        made(tmp_path / "empty.tsv")
    with pytest.raises(InputError, match=r"cannot read .*none.tsv"):
        made(tmp_path / "none.tsv")


# From the command line's options to a config


def chosen(
    folder: RunFolder,
    recipe: Path | None = None,
    *,
    resume: bool = False,
    changes: tuple[str, ...] = (),
    task: str = "translation",
    languages: tuple[str, str] = ("", ""),
    files: dict[str, list[str]] | None = None,
    columns: tuple[int, int] | None = None,
) -> RunConfig:
    said: list[str] = []
    config = choose_config(
        recipe, folder, resume, changes, task, languages, {**NOTHING, **(files or {})}, columns, said.append
    )
    assert bool(said) is (recipe is None and not resume)
    return config


def test_without_a_recipe_one_is_made_said_and_written(files: dict[int, Path], tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    config = chosen(folder, languages=("zh", "en"), files={"train": [str(files[100])]}, changes=("train.max_steps=7",))
    assert config.train.max_steps == 7
    written = parse_config(tomllib.loads((folder.path / "recipe.toml").read_text(encoding="utf-8")), "written")
    assert written == config


def test_text_is_written_by_letters_where_few_suffice(tmp_path: Path) -> None:
    letters, words = tmp_path / "letters.txt", tmp_path / "words.txt"
    letters.write_text("to be or not to be\n" * 200, encoding="utf-8")
    words.write_text("".join(chr(0x4E00 + i % 2_000) for i in range(400_000)), encoding="utf-8")
    files = {"valid": ["v.txt"], "test": []}
    small, large = (
        chosen(RunFolder(tmp_path / path.stem), task="language-modelling", files={"train": [str(path)], **files})
        for path in (letters, words)
    )
    assert (small.task, small.model.name, small.data.valid) == ("language-modelling", "gpt", ("v.txt",))
    assert (small.data.tokenizer.kind, large.data.tokenizer.kind) == ("character", "byte-bpe")
    assert small.data.tokenizer.vocab_size == len(set("to be or not to be\n")) + 4
    assert small.model.d_model < large.model.d_model
    for config in (small, large):
        assert config.data.tokenizer.verbatim and config.data.max_len == config.model.max_len
    letters.write_text("", encoding="utf-8")
    with pytest.raises(InputError, match=r"letters\.txt: no text"):
        chosen(RunFolder(tmp_path / "none"), task="language-modelling", files={"train": [str(letters)], **files})


def test_what_is_missing_is_asked_for(files: dict[int, Path], tmp_path: Path) -> None:
    folder, train = RunFolder(tmp_path / "run"), {"train": [str(files[100])]}
    with pytest.raises(InputError, match=r"nothing to train on: give a RECIPE.toml, or --train"):
        chosen(folder)
    with pytest.raises(InputError, match="give the languages too: --source zh --target en"):
        chosen(folder, files=train, languages=("zh", ""))
    with pytest.raises(InputError, match="--task text-to-text: it needs a recipe; those named recipes/text-to-text_"):
        chosen(folder, files=train, languages=("zh", "en"), task="text-to-text")
    with pytest.raises(InputError, match="--task translating: there is no such task; did you mean 'translation'"):
        chosen(folder, files=train, languages=("zh", "en"), task="translating")
    with pytest.raises(InputError, match=r"^--target english: no language code, .*; did you mean en\?"):
        chosen(folder, files=train, languages=("zh", "english"))
    assert not folder.path.exists()


def test_files_given_take_the_recipes_place(files: dict[int, Path], tmp_path: Path) -> None:
    values, _ = made(files[100], {"valid": ["v.tsv"], "test": ["t.tsv"]})
    values["data"]["columns"] = [3, 4]
    recipe = tmp_path / "r.toml"
    recipe.write_text(as_toml(values), encoding="utf-8")
    folder = RunFolder(tmp_path / "run")
    data = chosen(folder, recipe).data
    assert (data.train, data.valid, data.test) == ((str(files[100]),), ("v.tsv",), ("t.tsv",))
    assert data.columns == (3, 4)
    data = chosen(folder, recipe, files={"train": ["it's.tsv", "b.tsv"]}, columns=(2, 1)).data
    assert (data.train, data.valid, data.test) == (("it's.tsv", "b.tsv"), (), ())  # --train alone drops the others
    assert data.columns == (2, 1)
    data = chosen(folder, recipe, files={"valid": ["w.tsv"]}).data
    assert (data.train, data.valid, data.test) == ((str(files[100]),), ("w.tsv",), ("t.tsv",))
    assert data.columns == (3, 4)
    assert chosen(folder, recipe, languages=("en", "zh")).data.source == "en"
    with pytest.raises(InputError, match=r"r\.toml: data\.source = chinese: no language code, .*; did you mean zh\?"):
        chosen(folder, recipe, changes=("data.source=chinese",))
    rate = ("train.learning_rate=1e-3", "train.schedule=noam")
    with pytest.raises(
        InputError, match=r"r\.toml: train\.learning_rate is 0\.001, but under the noam schedule it is a"
    ):
        chosen(folder, recipe, changes=rate)
    assert chosen(folder, recipe, changes=(rate[0], "train.schedule=constant")).train.learning_rate == 0.001
    assert chosen(folder, recipe, changes=("train.learning_rate=1.0", rate[1])).train.schedule == "noam"


def test_a_run_is_gone_on_with_as_it_was_begun(files: dict[int, Path], tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    begun = parse_config(made(files[100])[0], "automatic")
    folder.write_config(begun)
    assert chosen(folder, tmp_path / "gone.toml", resume=True) == begun
    with pytest.raises(
        InputError, match="--resume goes on by the run's own config; leave --set, --seed and --init out"
    ):
        chosen(folder, resume=True, changes=("train.max_steps=7",))
    with pytest.raises(InputError, match="holds a run already; go on with `zhuyi train --resume --out"):
        chosen(folder, languages=("zh", "en"), files={"train": [str(files[100])]})
