"""What each run can do, as the page and other clients are told it."""

from dataclasses import asdict
from typing import Any

from zhuyi.serving.languages import shown
from zhuyi.serving.runs import ServedRun

# Tasks whose maps are drawn by the command line alone.
DRAWN_ALONE = ("speech-recognition", "forecasting")


def facts(run: ServedRun) -> dict[str, Any]:
    """A run's name, task and abilities, and what one must know to use them."""
    data = run.predictor.config.data
    found: dict[str, Any] = {
        "id": run.name,
        "task": run.task,
        "can": _abilities(run),
        "source": shown(run.source) if run.source else "",
        "target": shown(run.target) if run.target else "",
    }
    if "translate" in run.abilities:
        return found | {"constraint": run.predictor.config.decode.constraint, "tasks": list(data.prefixes)}
    if run.task == "language-modelling":
        return found | {"decode": asdict(run.predictor.config.decode)}
    if run.task == "text-classification":
        return found | {"labels": list(run.predictor.labels), "pairs": run.predictor.of_pairs}
    if run.task == "image-classification":
        return found | {"labels": list(run.predictor.labels), "image_size": data.image_size}
    if run.task == "speech-recognition":
        return found | {"languages": list(run.predictor.signs.languages)}
    if run.task == "forecasting":
        names = ("history_steps", "forecast_steps", "step_minutes")
        return found | {"sensors": list(run.predictor.sensors)} | {name: getattr(data, name) for name in names}
    return found


def _abilities(run: ServedRun) -> list[str]:
    found = [each for each in run.abilities if each != "attention" or run.task not in DRAWN_ALONE]
    if run.task == "language-modelling" and run.predictor.config.data.documents == "dialogue":
        found.append("chat")
    if "translate" in found and run.predictor.config.decode.constraint == "none":
        found.append("glossary")
    if "fill" in found and run.predictor.model.masked_word_head is None:
        found.remove("fill")
    return found
