"""A run's scores on data of its task, and the likelihood of given translations."""

from collections.abc import Callable
from typing import Any

from zhuyi.evaluation.forecasts import evaluate_forecasts
from zhuyi.evaluation.labels import evaluate_labels, evaluate_pictures
from zhuyi.evaluation.likelihoods import score_lines
from zhuyi.evaluation.speech import evaluate_speech
from zhuyi.evaluation.texts import evaluate_masked_words, evaluate_text
from zhuyi.evaluation.translations import evaluate_pairs, evaluate_tasks, evaluate_translations
from zhuyi.evaluation.wanted import Wanted

__all__ = ["Wanted", "evaluate_pairs", "evaluate_run", "score_lines"]


def evaluate_run(predictor: Any, wanted: Wanted, warn: Callable[[str], None] = lambda message: None) -> dict[str, Any]:
    """Score a loaded run as its task is scored.

    Raises: InputError: no data to score on, or an option that is not for the task.
    """
    if predictor.config.task != "speech-recognition":
        wanted.refuse("joined")
    if predictor.config.task != "forecasting":
        wanted.refuse("start")
    return EVALUATIONS[predictor.config.task](predictor, wanted, warn)


EVALUATIONS: dict[str, Callable[[Any, Wanted, Callable[[str], None]], dict[str, Any]]] = {
    "translation": evaluate_translations,
    "text-to-text": evaluate_tasks,
    "language-modelling": evaluate_text,
    "masked-language-modelling": evaluate_masked_words,
    "text-classification": evaluate_labels,
    "image-classification": evaluate_pictures,
    "forecasting": evaluate_forecasts,
    "speech-recognition": evaluate_speech,
}
