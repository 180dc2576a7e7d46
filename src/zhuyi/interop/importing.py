"""A published model folder to a run, which proves on a probe that it computes the same."""

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zhuyi.atomic import new_folder
from zhuyi.config import RunConfig, parse_config
from zhuyi.errors import InputError
from zhuyi.interop.bert import read_bert
from zhuyi.interop.gpt2 import read_gpt2
from zhuyi.interop.hub import fetch
from zhuyi.interop.marian import read_marian
from zhuyi.interop.probe import Comparison, compare
from zhuyi.interop.published_folder import Imported, PublishedFolder
from zhuyi.interop.t5 import read_t5
from zhuyi.interop.vit import read_vit
from zhuyi.interop.whisper import OpenAICheckpoint, read_whisper
from zhuyi.models import MODELS
from zhuyi.predict import load
from zhuyi.run_folder import PUBLISHED, RunFolder, named_weights

# By what a config.json calls its `model_type`.
FAMILIES: dict[str, Callable[[PublishedFolder], Imported]] = {
    "marian": read_marian,
    "gpt2": read_gpt2,
    "bert": read_bert,
    "distilbert": read_bert,
    "t5": read_t5,
    "vit": read_vit,
    "deit": read_vit,
    "whisper": read_whisper,
}
# How a run goes on learning, unless told otherwise: little, for it knows something already.
FINE_TUNING = {
    "max_epochs": 3,
    "learning_rate": 5e-5,
    "schedule": "constant",
    "warmup_steps": 100,
    "eval_every_steps": 200,
    "save_every_steps": 200,
}


def import_run(source: str | Path, out: str | Path) -> Comparison:
    """Write a published model as a run; it appears whole, after it was compared, or not at all.

    Args:   source: a folder of Hugging Face form, a name on the hub, or a Whisper's .pt file of OpenAI.
    Returns: what the comparison with transformers said, if it could be made.
    Raises: InputError: `out` is in use, or the model is one that cannot be taken over; names the key, file or weight.
            ArithmeticError: what was written computes something else.
    """
    with new_folder(Path(out)) as unfinished:
        is_file = Path(source).suffix == ".pt" and Path(source).is_file()
        folder: Any = OpenAICheckpoint(Path(source)) if is_file else PublishedFolder(fetch(source))
        family = folder.config.get("model_type")
        if family not in FAMILIES:
            raise InputError(f"{folder.config_path}: model_type is {family}; choose a model of {', '.join(FAMILIES)}")
        imported = FAMILIES[family](folder)
        run = write_run(imported, folder, unfinished)
        comparison = compare(load(run.path, "float32", "cpu"), folder)
        run.card_path.write_text(card(str(source), folder, imported, comparison), encoding="utf-8")
        return comparison


def write_run(imported: Imported, folder: PublishedFolder, path: Path) -> RunFolder:
    """Config, weights and tokenizers as a run has them."""
    run = RunFolder(path)
    config = run_config(imported, folder)
    model = MODELS[config.model.name].module(config.model)
    run.write_config(config)
    run.write_weights({name: x.contiguous() for name, x in _our_weights(imported, config, model, folder).items()})
    for name, tokenizer in imported.tokenizers.items():
        tokenizer.save(path / name)
    (path / PUBLISHED).mkdir()
    for name in imported.tokenizer_files:
        if (folder.path / name).exists():
            shutil.copyfile(folder.path / name, path / PUBLISHED / name)
    return run


def run_config(imported: Imported, folder: PublishedFolder) -> RunConfig:
    """The run's whole config; the section [train] says how it would be trained on."""
    values: dict[str, Any] = {
        "task": imported.task,
        "model": imported.model,
        "data": imported.data,
        "train": FINE_TUNING | imported.train,
    }
    return parse_config(values | ({"decode": imported.decode} if imported.decode else {}), str(folder.path))


def _our_weights(imported: Imported, config: RunConfig, model: Any, folder: PublishedFolder) -> dict[str, Any]:
    wanted = named_weights(model)
    try:
        found = imported.our_weights(config.model, wanted)
    except ValueError as error:
        raise InputError(f"{folder.path}: {error}; it cannot be imported") from None
    for name, weight in found.items():
        if weight.shape != wanted[name].shape:
            raise InputError(
                f"{folder.path}: {name} is of shape {tuple(weight.shape)}, but the config asks for "
                f"{tuple(wanted[name].shape)}; the files do not belong together"
            )
    return found


def card(source: str, folder: PublishedFolder, imported: Imported, comparison: Comparison) -> str:
    """What the run is and where it is from."""
    config = asdict(run_config(imported, folder))
    architectures = ", ".join(folder.config.get("architectures") or [str(folder.config["model_type"])])
    lines = [
        f"# {Path(source).name}: {imported.task}, imported",
        "",
        f"- from: {source} ({architectures})",
        f"- model: {', '.join(f'{key} {value}' for key, value in config['model'].items())}",
        f"- compared: {comparison}",
        *(f"- note: {note}" for note in imported.notes),
        "",
        "The licence is that of the published model. `published/` holds its tokenizer's files.",
    ]
    return "\n".join(lines) + "\n"
