"""Learning rates as functions of the step alone; none reads the clock, so that a resumed run repeats them exactly."""

import math

from zhuyi.config import TrainConfig


def learning_rate(config: TrainConfig, step: int, d_model: int, plateau_factor: float = 1.0) -> float:
    """The rate of the step with this number, the first being 1.

    Args:   plateau_factor: what the `plateau` schedule has come down to.
    Source: `noam`: Vaswani et al. 2017, eq. 3, times `learning_rate`. The others rise linearly for `warmup_steps`
            to `learning_rate`; `inverse-sqrt` then falls as warmup_steps^0.5 / step^0.5, `cosine` along half a cosine
            and `linear` along a line to `final_learning_rate` at `max_steps`, `plateau` by halves whenever the score
            stands still.
    """
    warmup = max(1, config.warmup_steps)
    if config.schedule == "noam":
        return config.learning_rate * d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)
    rise = min(1.0, step / warmup)
    return config.learning_rate * rise * _fall(config, step, warmup, plateau_factor)


def _fall(config: TrainConfig, step: int, warmup: int, plateau_factor: float) -> float:
    match config.schedule:
        case "inverse-sqrt":
            return math.sqrt(warmup / max(step, warmup))
        case "cosine":
            return _to_floor(config, 0.5 + 0.5 * math.cos(math.pi * _way_down(config, step, warmup)))
        case "linear":
            return _to_floor(config, 1 - _way_down(config, step, warmup))
        case "plateau":
            return plateau_factor
        case _:
            return 1.0


def _to_floor(config: TrainConfig, fall: float) -> float:
    floor = config.final_learning_rate / config.learning_rate
    return floor + (1 - floor) * fall if floor else fall


def _way_down(config: TrainConfig, step: int, warmup: int) -> float:
    # The last step keeps a little of the rate: max_steps + 1, not max_steps, has none.
    return min(1.0, max(0.0, (step - warmup) / max(1, config.max_steps + 1 - warmup)))
