"""A recipe by which a run learns on from new data."""

from collections.abc import Sequence
from typing import Any

from zhuyi.config import RunConfig
from zhuyi.data.pairs import byte_lines
from zhuyi.errors import InputError
from zhuyi.training.automatic.given import Given

# A body that has learnt already is moved carefully, the more so the wider it is: 2.6e-5 at 768, as BERT's authors did.
LEARNING_RATE_TIMES_WIDTH = 0.02
EPOCHS_FROM_INIT = 4


def recipe_to_learn_on(begun: RunConfig, init: str, given: Given) -> tuple[dict[str, Any], list[str]]:
    """A run's own config, with new data and a learning rate for what has learnt already."""
    values = begun.as_dict()
    files = {split: list(given.files[split]) for split in ("train", "valid", "test")}
    data = values["data"]
    if begun.task == "text-to-text":
        part = _part_to_learn_on(data["mixture"], init, given) | files
        part |= {"target": given.languages[1]} if given.languages[1] else {}
        data["mixture"] = [part | ({"columns": list(given.columns)} if given.columns else {})]
    else:
        data |= files
        data |= {"columns": list(given.columns)} if given.columns else {}
        if "source" in data:
            data |= {key: code for key, code in zip(("source", "target"), given.languages, strict=True) if code}
    if "valid_size" in data:
        rows = sum(1 for file in files["train"] for _ in byte_lines(file.partition(",")[0]))
        data["valid_size"] = max(5, min(data["valid_size"], rows // 20))
    rate = LEARNING_RATE_TIMES_WIDTH / values["model"]["d_model"]
    values["train"] = {
        "max_epochs": EPOCHS_FROM_INIT,
        "batch_tokens": 2048,
        "learning_rate": rate,
        "schedule": "constant",
        "warmup_steps": 50,
        "label_smoothing": begun.train.label_smoothing,
        "eval_every_steps": 200,
        "save_every_steps": 200,
        "monitor": "loss",
        "average": "last",
        "average_checkpoints": 3,
        "init": init,
    }
    if begun.task == "forecasting":
        # A window is a thousand tokens, and the new table has a mean of its own; vectors come with the weights.
        data |= {"edges": "", "vectors": "", "start": ""}
        values["model"] |= {"mean": 0.0, "std": 0.0}
        values["train"] |= {"batch_tokens": begun.train.batch_tokens, "precision": begun.train.precision}
    return _without_nothing(values), [f"goes on from {init} at {begun.task}, with a learning rate of {rate:.1e}"]


def _part_to_learn_on(parts: Sequence[dict[str, Any]], init: str, given: Given) -> dict[str, Any]:
    """The part of a mixture that new pairs are of, its language and prefix kept; a new one for a prefix of its own.

    Raises: InputError: there are several, or none, and no prefix was given.
    """
    known = [part for part in parts if part["objective"] == "pairs"]
    wanted = known if given.prefix is None else [part for part in known if part["prefix"] == given.prefix]
    if len(wanted) == 1:
        return wanted[0]
    if given.prefix is None:
        prefixes = " or ".join(f"'{part['prefix']}'" for part in known)
        raise InputError(
            f"{init} does {'several tasks' if known else 'what a text begins with says'}: what do the new pairs begin "
            f"with? give --prefix {prefixes or 'TEXT'}, of no task --prefix ''"
        )
    return {"name": "pairs", "prefix": given.prefix}


def _without_nothing(values: dict[str, Any]) -> dict[str, Any]:
    """The same without what is None, for which TOML has no word."""
    kept = {key: value for key, value in values.items() if value is not None}
    return {key: _without_nothing(value) if isinstance(value, dict) else value for key, value in kept.items()}


# Where the labels of new data are the model's own.
LABELLING = ("text-classification", "image-classification")
