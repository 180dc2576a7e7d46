"""Which checkpoints are kept, and the average of their weights."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zhuyi.config import TrainConfig
from zhuyi.nn.lora import merged
from zhuyi.run_folder import RunFolder, set_weights


def best_first(evaluations: Sequence[Sequence[float]]) -> list[int]:
    """The evaluated steps, the best first: by score, then by validation loss, then the earlier.

    Args:   evaluations: [step, score, validation loss] of each, the score such that more is better. A young model's
            BLEU is 0 for a while: its loss tells then whether it learns.
    """

    def worse(row: Sequence[float]) -> tuple[float, float, float]:
        step, score, loss = row
        return (math.inf if math.isnan(score) else -score, math.inf if math.isnan(loss) else loss, step)

    return [int(row[0]) for row in sorted(evaluations, key=worse)]


def kept_steps(evaluations: Sequence[Sequence[float]], config: TrainConfig) -> set[int]:
    """The steps whose weights the average or the best still needs: a function of the evaluations alone."""
    return {*best_first(evaluations)[:1], *averaged_steps(evaluations, config)}


def averaged_steps(evaluations: Sequence[Sequence[float]], config: TrainConfig) -> list[int]:
    """The steps to average over."""
    if config.average == "none":
        return best_first(evaluations)[:1]
    ordered = best_first(evaluations) if config.average == "best" else [int(row[0]) for row in reversed(evaluations)]
    return ordered[: config.average_checkpoints]


def average(weights: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each weight, summed in float64."""
    return {
        name: torch.stack([each[name].double() for each in weights]).mean(dim=0).to(first.dtype)
        for name, first in weights[0].items()
    }


def publish_average(
    folder: RunFolder,
    model: nn.Module,
    evaluations: Sequence[Sequence[float]],
    config: TrainConfig,
    evaluate: Callable[[nn.Module], dict[str, Any]],
    monitored: Callable[[dict[str, Any]], float],
) -> dict[str, Any]:
    """Leave in the folder the better of the best evaluated weights and the average; returns its scores.

    The model is left with the weights that were published.
    """
    best = best_first(evaluations)[0]
    steps = averaged_steps(evaluations, config)
    candidates = [folder.read_checkpoint_weights(best)]
    if len(steps) > 1:
        candidates.append(average([folder.read_checkpoint_weights(step) for step in steps]))
    scored = []
    for weights in candidates:
        set_weights(model, weights, folder.path)
        scored.append(evaluate(model))
    winner = max(range(len(candidates)), key=lambda i: (monitored(scored[i]), -i))
    set_weights(model, candidates[winner], folder.path)
    folder.write_weights(merged(candidates[winner], config.lora))
    return scored[winner]
