"""From what the command line was given to a config, and from a config to a training."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from zhuyi.atomic import replacing
from zhuyi.config import RunConfig, apply_change, parse_config, read_recipe
from zhuyi.errors import InputError
from zhuyi.run_folder import RunFolder
from zhuyi.training.automatic import AUTOMATIC, Given, as_toml
from zhuyi.training.loop import train
from zhuyi.training.processes import Processes

__all__ = ["choose_config", "train"]

SPLITS = ("train", "valid", "test")


def choose_config(
    recipe: Path | None,
    folder: RunFolder,
    resume: bool,
    changes: Sequence[str],
    task: str,
    languages: tuple[str, str],
    files: dict[str, list[str]],
    columns: tuple[int, int] | None,
    say: Callable[[str], None],
) -> RunConfig:
    """The run's own config when resuming, else the recipe's with its changes, else one made for the data.

    Args:   languages: source and target, each empty where not given.
            files: by split; a given `train` alone drops the recipe's other two.
    Raises: InputError: as the name of each wrong input says.
    """
    if resume and folder.config_path.exists():
        if changes:
            raise InputError("--resume goes on by the run's own config; leave --set and --seed out")
        return folder.read_config()
    folder.check_trainable(resume=False)
    given = [f"data.{key}={value!r}" for key, value in zip(("source", "target"), languages, strict=True) if value]
    if recipe is not None:
        return read_recipe(recipe, [*_data_changes(files, columns), *given, *changes])
    if task not in AUTOMATIC:
        raise InputError(f"--task {task}: without a recipe only {' or '.join(AUTOMATIC)} can be trained")
    if not files["train"]:
        raise InputError("nothing to train on: give a RECIPE.toml, or --train FILE (pairs with --source and --target)")
    values, reasons = AUTOMATIC[task](Given(files, languages, columns))
    for change in changes:
        apply_change(values, change)
    config = parse_config(values, "the recipe made for this data")
    if Processes.is_first_here():
        folder.path.mkdir(parents=True, exist_ok=True)
        with replacing(folder.path / "recipe.toml") as path:
            path.write_text(as_toml(values), encoding="utf-8")
        say("\n".join([*reasons, f"The recipe is in {folder.path / 'recipe.toml'}."]))
    return config


def _data_changes(files: dict[str, list[str]], columns: tuple[int, int] | None) -> list[str]:
    """Files given on the command line, as changes of the recipe."""
    changes = [f"data.{split}={_toml_list(files[split])}" for split in SPLITS if files[split]]
    if files["train"]:
        changes += [f"data.{split}=[]" for split in SPLITS[1:] if not files[split]]
    if columns:
        changes += [f"data.columns=[{columns[0]}, {columns[1]}]"]
    return changes


def _toml_list(values: Sequence[Any]) -> str:
    return "[" + ", ".join(f"'''{value}'''" for value in values) + "]"
