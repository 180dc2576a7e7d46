"""Load any task's run and use it: text in, text out."""

from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import nn

from zhuyi.config import RunConfig
from zhuyi.errors import InputError
from zhuyi.machine import choose_translation_precision, keep_freed_memory
from zhuyi.models import MODELS
from zhuyi.nn.packed import can_pack_bfloat16, pack
from zhuyi.predict.classifier import Classification, Classifier
from zhuyi.predict.forecaster import Forecast, Forecaster, SensorMaps
from zhuyi.predict.generator import Conversation, Generation, Generator
from zhuyi.predict.picture_classifier import PictureClassifier, PictureMaps
from zhuyi.predict.transcriber import SoundMaps, Transcriber
from zhuyi.predict.translator import PairScore, TextMaps, Translation, Translator
from zhuyi.predict.word_filler import Candidate, WordFiller
from zhuyi.run_folder import RunFolder, find_run, set_weights
from zhuyi.tasks import TASKS
from zhuyi.tasks.transcripts import Transcription

__all__ = [
    "PRECISIONS",
    "PREDICTORS",
    "Candidate",
    "Classification",
    "Classifier",
    "Conversation",
    "Forecast",
    "Forecaster",
    "Generation",
    "Generator",
    "PairScore",
    "PictureClassifier",
    "PictureMaps",
    "Predictor",
    "SensorMaps",
    "SoundMaps",
    "TextMaps",
    "Transcriber",
    "Transcription",
    "Translation",
    "Translator",
    "WordFiller",
    "load",
]

PRECISIONS = ("float32", "bfloat16", "int8")


class Predictor(Protocol):
    """A run in memory, ready for use: `model` is the module, `config` what it was made from."""

    model: Any
    config: RunConfig
    precision: str

    @classmethod
    def from_folder(cls, model: nn.Module, config: RunConfig, folder: RunFolder, precision: str) -> Self:
        """Read whatever else the folder holds for it, tokenizers say.

        Raises: InputError: such a file is missing, broken, or of another model.
        """
        ...


# A run of each task is used by one of these.
PREDICTORS: dict[str, type[Predictor]] = {
    "translation": Translator,
    "text-to-text": Translator,
    "language-modelling": Generator,
    "masked-language-modelling": WordFiller,
    "speech-recognition": Transcriber,
    "text-classification": Classifier,
    "image-classification": PictureClassifier,
    "forecasting": Forecaster,
}


def load(
    name: str | Path, precision: str | None = None, device: str | None = None, *, command: str | None = None
) -> Any:
    """Load a run's folder, or a shipped model by its name, as its task's entry in `PREDICTORS`.

    Args:   precision: `float32` (the default), `bfloat16`, `int8`, or `auto`, the fastest that the machine supports.
            device: `cpu`, `cuda`, ...; a GPU where there is one.
            command: the sub-command that the run is to serve.
    The model is for use without gradients, and packed weights are not among its parameters. glibc is told to keep
    freed memory, for the whole process.
    Raises: InputError: no such run, no weights in it yet, files that are broken or do not belong together, or a run
            that the command is not for.
    """
    keep_freed_memory()
    folder = find_run(name)
    config = folder.read_config()
    if command is not None:
        _check_command(str(name), config.task, command)
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    precision = _chosen(precision, target)
    model = _load_model(folder, config, precision, target)
    return PREDICTORS[config.task].from_folder(model, config, folder, precision)


def _check_command(name: str, task: str, command: str) -> None:
    if command not in TASKS[task].commands:
        own = ", ".join(f"`zhuyi {name}`" for name in TASKS[task].commands)
        others = " or ".join(name for name, kind in TASKS.items() if command in kind.commands)
        raise InputError(
            f"{name} is a run of {task}, for {own}; `zhuyi {command}` needs a run of {others or 'another task'}"
        )


def _load_model(folder: RunFolder, config: RunConfig, precision: str, target: torch.device) -> nn.Module:
    """The module with the folder's weights, packed where that is faster."""
    model = MODELS[config.model.name].module(config.model)
    set_weights(model, folder.read_weights(), folder.weights_path)
    model = model.eval().requires_grad_(False)
    if target.type == "cpu" and (precision == "int8" or (precision == "bfloat16" and can_pack_bfloat16())):
        return pack(model, precision)
    return model.to(target, torch.bfloat16 if precision == "bfloat16" else torch.float32)


def _chosen(precision: str | None, device: torch.device) -> str:
    if precision == "auto":
        return choose_translation_precision(device)
    if precision is not None and precision not in PRECISIONS:
        raise InputError(f"precision is {precision}; choose auto, {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}")
    if precision == "int8" and device.type != "cpu":
        raise InputError(f"precision int8 is for processors; on {device.type} choose bfloat16")
    return precision or "float32"
