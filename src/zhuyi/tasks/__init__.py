"""One file a task: its data, batches, loss and scores. `TASKS` says which names a config may use."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zhuyi.decoding.config import DecodeConfig, GenerationConfig
from zhuyi.tasks.forecasting import ForecastingTask, SensorDataConfig
from zhuyi.tasks.image_classification import ImageClassificationTask
from zhuyi.tasks.language_modelling import LanguageModellingTask
from zhuyi.tasks.masked_language_modelling import MaskedLanguageModellingTask, MaskedTextConfig
from zhuyi.tasks.mixture import MixtureConfig
from zhuyi.tasks.pair_data import PairDataConfig
from zhuyi.tasks.picture_data import PictureDataConfig
from zhuyi.tasks.speech_data import SpeechDataConfig
from zhuyi.tasks.speech_recognition import SpeechRecognitionTask
from zhuyi.tasks.text_classification import LabelledDataConfig, TextClassificationTask
from zhuyi.tasks.text_data import TextDataConfig
from zhuyi.tasks.text_to_text import TextToTextTask
from zhuyi.tasks.transcription import TranscriptionConfig
from zhuyi.tasks.translation import TranslationTask


@dataclass(frozen=True)
class TaskType:
    """What a task is made of, and what its runs are for.

    Args:   data: the class of a config's section [data], with `train`, `valid` and `test` files and `describe()`.
            task: the class that training drives.
            scores: what `train.monitor` may name of the scores that `evaluate` returns, the default first; `loss` is
            `valid_loss`.
            commands: the sub-commands that serve its runs, the main one first.
            decode: the class of the section [decode]; None where nothing is searched for.
            check_score: raises ValueError where a section [data] leads to no such score; None where all lead to all.
    """

    data: type[Any]
    task: type[Any]
    scores: tuple[str, ...]
    commands: tuple[str, ...]
    decode: type[Any] | None = None
    check_score: Callable[[Any, str], None] | None = None


TASKS: dict[str, TaskType] = {
    "translation": TaskType(
        PairDataConfig,
        TranslationTask,
        scores=("bleu", "chrf", "loss"),
        commands=("translate", "evaluate", "score", "attention", "export"),
        decode=DecodeConfig,
    ),
    "text-to-text": TaskType(
        MixtureConfig,
        TextToTextTask,
        scores=("loss", "bleu", "chrf"),
        commands=("translate", "evaluate", "score", "attention", "export"),
        decode=DecodeConfig,
        check_score=MixtureConfig.check_score,
    ),
    "language-modelling": TaskType(
        TextDataConfig,
        LanguageModellingTask,
        scores=("loss",),
        commands=("generate", "chat", "evaluate", "attention", "export"),
        decode=GenerationConfig,
    ),
    "masked-language-modelling": TaskType(
        MaskedTextConfig,
        MaskedLanguageModellingTask,
        scores=("loss", "accuracy"),
        commands=("fill", "embed", "evaluate", "attention", "export"),
    ),
    "speech-recognition": TaskType(
        SpeechDataConfig,
        SpeechRecognitionTask,
        scores=("wer", "cer", "loss"),
        commands=("transcribe", "evaluate", "attention", "export"),
        decode=TranscriptionConfig,
    ),
    "text-classification": TaskType(
        LabelledDataConfig,
        TextClassificationTask,
        scores=("accuracy", "macro_f1", "loss"),
        commands=("classify", "embed", "evaluate", "attention", "export"),
    ),
    "image-classification": TaskType(
        PictureDataConfig,
        ImageClassificationTask,
        scores=("accuracy", "macro_f1", "loss"),
        commands=("classify", "evaluate", "attention", "export"),
    ),
    "forecasting": TaskType(
        SensorDataConfig,
        ForecastingTask,
        scores=("mae", "rmse", "mape", "loss"),
        commands=("forecast", "evaluate", "attention"),
    ),
}
