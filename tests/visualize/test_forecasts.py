"""Curves of forecasts, and maps of where a sensor looks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from zhuyi.errors import InputError
from zhuyi.predict import Forecast, SensorMaps
from zhuyi.visualize import plot_forecast
from zhuyi.visualize.forecasts import draw_forecast, liveliest
from zhuyi.visualize.sensor_maps import draw_sensor_maps

SENSORS = ("773869", "主路", "s2", "s3", "s4", "s5", "s6")
RNG = np.random.default_rng(0)


@pytest.fixture
def forecast() -> Forecast:
    history = RNG.normal(50, 5, (12, 7)) * [1, 1, 1, 0, 1, 1, 1]
    history[4:7, 1] = history[-1, 2] = history[:, 5] = np.nan
    values = RNG.normal(50, 5, (9, 7))
    return Forecast(SENSORS, 28_474_560, 5, history, values, np.full((9, 7), np.nan))


@pytest.fixture
def maps() -> SensorMaps:
    weights = RNG.random((2, 7, 7))
    weights[:, :, 4] += 9  # all look at one
    spatial = weights / weights.sum(axis=-1, keepdims=True)
    others = RNG.random((2, 7, 7)) ** 8
    others /= others.sum(axis=-1, keepdims=True)
    return SensorMaps(SENSORS, 28_474_560, 5, RNG.normal(size=(7, 2)), [others, spatial], RNG.random((7, 2, 9, 12)))


def different(first: np.ndarray, second: np.ndarray) -> bool:
    return first.shape != second.shape or bool((np.abs(first - second) > 0.1).any())


def test_the_truth_is_drawn_where_it_is_known(
    forecast: Forecast, tmp_path: Path, read: Callable[[Path], np.ndarray]
) -> None:
    truth = forecast.truth.copy()
    truth[:4] = 51.0
    pictures = []
    for name, each in (("unknown", forecast), ("known", replace(forecast, truth=truth))):
        draw_forecast(each, tmp_path / f"{name}.png", sensors=["s2"])
        pictures.append(read(tmp_path / f"{name}.png"))
    orange = [((p[..., 0] > 0.6) & (p[..., 1] < 0.5) & (p[..., 2] < 0.4)).sum() for p in pictures]
    assert orange[0] == 0 < orange[1]


def test_sensors_are_chosen_by_how_much_they_changed(forecast: Forecast, tmp_path: Path) -> None:
    history = np.zeros((3, 8))
    history[1] = [1, 5, 2, 9, np.nan, 3, 4, 6]
    history[:, 4] = np.nan
    assert liveliest(history) == [3, 7, 1, 6, 5, 2]
    draw_forecast(forecast, tmp_path / "six.png")
    assert (tmp_path / "six.png").stat().st_size > 5_000
    with pytest.raises(InputError, match="there is no sensor 's9'; the run has 773869"):
        draw_forecast(forecast, tmp_path / "no.png", sensors=["s9"])
    with pytest.raises(InputError, match=r"no.pdf ends in .pdf; this picture can be a file in .png"):
        plot_forecast(forecast, tmp_path / "no.pdf")


def test_the_map_follows_the_weights(maps: SensorMaps, tmp_path: Path, read: Callable[[Path], np.ndarray]) -> None:
    def drawn(**options: object) -> np.ndarray:
        draw_sensor_maps(maps, tmp_path / "map.png", **options)  # type: ignore[arg-type]
        return read(tmp_path / "map.png")

    assert not different(drawn(), drawn(sensor="s4", layer=2))  # the one that all look at, the last layer
    others = [drawn(sensor="s2"), drawn(sensor="s4", layer=1), drawn(sensor="s4", head=1)]
    assert all(different(drawn(), other) for other in others)
    assert different(drawn(head=1), drawn(head=2))


def test_what_is_not_there_is_refused(maps: SensorMaps, tmp_path: Path) -> None:
    for options, message in (
        ({"sensor": "s9"}, "there is no sensor 's9'"),
        ({"layer": 3}, "there is no layer 3; there are 2, from 1"),
        ({"head": 0}, "there is no head 0; there are 2, from 1"),
    ):
        with pytest.raises(InputError, match=message):
            draw_sensor_maps(maps, tmp_path / "map.png", **options)  # type: ignore[arg-type]
