"""From what the command line was given to a config, and from a config to a training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zhuyi.atomic import replacing
from zhuyi.config import RunConfig, TrainConfig, apply_change, did_you_mean, parse_config, read_values
from zhuyi.errors import InputError
from zhuyi.run_folder import RunFolder, find_run
from zhuyi.tasks import TASKS
from zhuyi.tasks.languages import check_code
from zhuyi.training.automatic import AUTOMATIC, LABELLING, Given, as_toml, recipe_to_learn_on
from zhuyi.training.loop import train
from zhuyi.training.processes import Processes

__all__ = ["choose_config", "train"]

SPLITS = ("train", "valid", "test")
LEAST_NOAM_FACTOR = 0.05  # whoever gives less means a rate


def choose_config(
    recipe: Path | None,
    folder: RunFolder,
    resume: bool,
    changes: Sequence[str],
    task: str | None,
    languages: tuple[str, str],
    files: dict[str, list[str]],
    columns: tuple[int, ...] | None,
    say: Callable[[str], None],
    *,
    init: str = "",
    prefix: str | None = None,
    edges: str = "",
) -> RunConfig:
    """The run's own config when resuming, else the recipe's with its changes, else one made for the data.

    Args:   task: of the recipe made for the data; None: that of `init`, else translation.
            languages: source and target, each empty where not given.
            files: by split; a given `train` alone drops the recipe's other two.
            init: a run to begin with, empty where not given.
            prefix: of a text-to-text run that learns on, what its sources begin with; None: as they did.
            edges: of sensors, the file of the roads between them, empty where not given.
    Raises: InputError: as the name of each wrong input says.
    """
    if resume and folder.config_path.exists():
        if changes or init:
            raise InputError("--resume goes on by the run's own config; leave --set, --seed and --init out")
        return folder.read_config()
    if resume and recipe is None and not files["train"]:
        raise InputError(
            f"{folder.path}: no run here to go on with (no config.json); give --out the folder that `zhuyi train` "
            "made, or leave --resume out"
        )
    _check_codes(dict(zip(("--source", "--target"), languages, strict=True)))
    folder.check_trainable(resume=False)
    begun = find_run(init).read_config() if init else None
    if prefix is not None and (recipe is not None or begun is None or begun.task != "text-to-text"):
        raise InputError("--prefix is for a text-to-text run in --init that learns on without a recipe; leave it out")
    given = [f"data.{key}={value!r}" for key, value in zip(("source", "target"), languages, strict=True) if value]
    changes = [*([f"data.edges={edges!r}"] if edges else []), *changes]
    if recipe is not None:
        begin = [f"train.init='''{init}'''"] if init else []
        values = read_values(recipe, [*_data_changes(files, columns), *given, *begin, *changes])
        _check_codes({f"{recipe}: data.{key} =": values.get("data", {}).get(key) for key in ("source", "target")})
        config = parse_config(_with_body(values), str(recipe))
        _check_rate(config.train, str(recipe))
        return config
    task = task or (begun.task if begun is not None else "translation")
    # A run learns on at its own task, unless it is to label, which needs the new data's labels.
    if begun is not None and task not in LABELLING:
        if task != begun.task:
            raise InputError(f"--task {task}: {init} is a run of {begun.task} and learns on at that; leave --task out")
        return _learn_on(begun, init, folder, Given(files, languages, columns, prefix=prefix), changes, say)
    if task not in AUTOMATIC:
        raise InputError(f"--task {task}: {_without_recipe(task)}")
    if not files["train"]:
        raise InputError("nothing to train on: give a RECIPE.toml, or --train FILE (pairs with --source and --target)")
    values, reasons = AUTOMATIC[task](Given(files, languages, columns, find_run(init).path if init else None, changes))
    if init:
        values.pop("model", None)
        values["train"]["init"] = init
    return _announced(values, reasons, folder, changes, say)


def _without_recipe(task: str) -> str:
    """What to do for a task whose sizes are not chosen here."""
    if task not in TASKS:
        return f"there is no such task{did_you_mean(task, TASKS)}; choose one of {', '.join(TASKS)}"
    return f"it needs a recipe; those named recipes/{task}_... in zhuyi's source are such, to be copied and changed"


def _check_rate(config: TrainConfig, origin: str) -> None:
    """Refuse a rate that would be taken for a factor, by which next to nothing is learned."""
    if config.schedule == "noam" and config.learning_rate < LEAST_NOAM_FACTOR:
        raise InputError(
            f"{origin}: train.learning_rate is {config.learning_rate:g}, but under the noam schedule it is a factor, "
            '1 being the paper\'s; for a rate give train.schedule = "inverse-sqrt", "cosine", "linear" or "constant"'
        )


def _check_codes(given: Mapping[str, str | None]) -> None:
    """Refuse what is no language's code, by the option or key that has it."""
    for where, code in given.items():
        if code:
            check_code(str(code), where)


def _learn_on(
    begun: RunConfig,
    init: str,
    folder: RunFolder,
    given: Given,
    changes: Sequence[str],
    say: Callable[[str], None],
) -> RunConfig:
    """The config of a run that goes on with another's task on new data."""
    if not given.files["train"]:
        raise InputError(f"nothing to train on: give --train FILE, which {init} is to learn on")
    values, reasons = recipe_to_learn_on(begun, init, given)
    return _announced(values, reasons, folder, changes, say)


def _announced(
    values: dict[str, Any],
    reasons: Sequence[str],
    folder: RunFolder,
    changes: Sequence[str],
    say: Callable[[str], None],
) -> RunConfig:
    """The config of a recipe that was made here, which stays beside it in the folder."""
    for change in changes:
        apply_change(values, change)
    values = _with_body(values)
    config = parse_config(values, "the recipe made for this data")
    if Processes.is_first_here():
        folder.path.mkdir(parents=True, exist_ok=True)
        with replacing(folder.path / "recipe.toml") as path:
            path.write_text(as_toml(values), encoding="utf-8")
        say("\n".join([*reasons, f"The recipe is in {folder.path / 'recipe.toml'}."]))
    return config


def _with_body(values: dict[str, Any]) -> dict[str, Any]:
    """The recipe's values; without a `model.name`, over the model that `train.init` begins with, its heads left out."""
    model, init = values.get("model", {}), values.get("train", {}).get("init")
    if not init or "name" in model:
        return values
    begun = find_run(init).read_config().model
    body = begun.body() if hasattr(begun, "body") else begun
    return {**values, "model": {**asdict(body), **model}}


def _data_changes(files: dict[str, list[str]], columns: tuple[int, ...] | None) -> list[str]:
    """Files given on the command line, as changes of the recipe."""
    changes = [f"data.{split}={_toml_list(files[split])}" for split in SPLITS if files[split]]
    if files["train"]:
        changes += [f"data.{split}=[]" for split in SPLITS[1:] if not files[split]]
    if columns:
        changes += [f"data.columns={list(columns)}"]
    return changes


def _toml_list(values: Sequence[Any]) -> str:
    return "[" + ", ".join(f"'''{value}'''" for value in values) + "]"
