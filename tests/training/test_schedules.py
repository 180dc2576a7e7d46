"""Learning rates: the paper's formula, rises, falls, and nothing but the step."""

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhuyi.config import TrainConfig
from zhuyi.training.schedules import learning_rate

SCHEDULES = ("noam", "inverse-sqrt", "cosine", "linear", "plateau", "constant")


def rates(steps: int, **settings: Any) -> list[float]:
    config = TrainConfig(max_steps=steps, **{"learning_rate": 0.5, "warmup_steps": 10, **settings})
    return [learning_rate(config, step, 64) for step in range(1, steps + 1)]


def test_noam_is_equation_3() -> None:
    found = rates(50, schedule="noam", learning_rate=2.0)
    for step, rate in enumerate(found, 1):
        assert rate == pytest.approx(2.0 * 64**-0.5 * min(step**-0.5, step * 10**-1.5))
    assert max(found) == found[9]  # where the two meet


@pytest.mark.parametrize("schedule", SCHEDULES[1:])
def test_the_others_rise_along_a_line_to_the_rate_that_was_set(schedule: str) -> None:
    assert rates(100, schedule=schedule)[:10] == pytest.approx([0.05 * step for step in range(1, 11)])


def test_falls() -> None:
    inverse = rates(100, schedule="inverse-sqrt")
    assert inverse[39] == pytest.approx(0.25) and inverse[89] == pytest.approx(0.5 / 3)
    linear = rates(100, schedule="linear")
    differences = [after - before for before, after in pairwise(linear[10:])]
    assert differences == pytest.approx([-0.5 / 91] * 89)
    cosine = rates(109, schedule="cosine")  # 100 steps from the end of the rise to the first step without a rate
    assert cosine[9 + 50] == pytest.approx(0.25)
    assert cosine[9 + 25] == pytest.approx(0.5 * (0.5 + 0.5 * math.cos(math.pi / 4)))
    assert 0 < linear[-1] < 0.01 and 0 < cosine[-1] < 0.01
    assert rates(100, schedule="constant")[10:] == [0.5] * 90


def test_falls_may_end_above_zero() -> None:
    for schedule in ("cosine", "linear"):
        to_zero = rates(100, schedule=schedule)
        above = rates(100, schedule=schedule, final_learning_rate=0.05)
        assert above[:10] == to_zero[:10]  # the rise is the same
        assert above[10:] == pytest.approx([0.05 + 0.9 * rate for rate in to_zero[10:]])


def test_the_plateau_stands_where_its_factor_says() -> None:
    config = TrainConfig(max_steps=9, learning_rate=0.5, warmup_steps=2, schedule="plateau")
    assert learning_rate(config, 7, 64, 0.25) == 0.125
    assert learning_rate(config, 1, 64, 0.25) == 0.0625


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(warmup=st.integers(0, 30), max_steps=st.integers(1, 60), data=st.data())
def test_every_step_has_a_rate(schedule: str, warmup: int, max_steps: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(1, max_steps))
    config = TrainConfig(max_steps=max_steps, schedule=schedule, warmup_steps=warmup, learning_rate=0.3)  # type: ignore[arg-type]
    assert 0 < learning_rate(config, step, 64) <= 0.3
