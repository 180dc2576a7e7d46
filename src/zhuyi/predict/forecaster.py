"""A forecasting run in memory: what sensors measured of late, to what they will measure."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from zhuyi.atomic import replacing_named
from zhuyi.config import RunConfig
from zhuyi.data.traffic import SensorTable, days_and_slots, read_table, show, to_minutes
from zhuyi.errors import InputError
from zhuyi.machine import memory_gib
from zhuyi.nn.maps import Maps
from zhuyi.run_folder import RunFolder
from zhuyi.tasks.forecasting import SensorDataConfig, later_layout, slots_a_day


@dataclass(frozen=True, eq=False)
class Forecast:
    """What is to come, the history it was made from, and, of what has come already, the truth.

    Shape:  history (P, N), values and truth (Q, N); NaN was not measured, or has not come yet.
    Args:   begin: minutes of the first step to come since 1970.
    """

    sensors: tuple[str, ...]
    begin: int
    step_minutes: int
    history: np.ndarray
    values: np.ndarray
    truth: np.ndarray

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """Sensors of which the history has nothing: what is forecast for them follows from the others and the time."""
        nothing = np.isnan(self.history).all(axis=0)
        return tuple(name for name, is_blank in zip(self.sensors, nothing, strict=True) if is_blank)

    def times(self) -> list[str]:
        """Of each step to come."""
        return [show(self.begin + self.step_minutes * step) for step in range(len(self.values))]

    def history_times(self) -> list[str]:
        """Of each step of the history."""
        return [show(self.begin - self.step_minutes * step) for step in range(len(self.history), 0, -1)]

    def as_csv(self) -> str:
        """A table of the form that is read: a column of times, and one of each sensor."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["time", *self.sensors])
        writer.writerows(
            [time, *(f"{x:.6g}" for x in row)] for time, row in zip(self.times(), self.values, strict=True)
        )
        return text.getvalue()

    def write(self, path: Path) -> None:
        """That table into a file, whole or not at all."""
        with replacing_named(path) as unfinished:
            unfinished.write_text(self.as_csv(), encoding="utf-8", newline="\n")


@dataclass(frozen=True, eq=False)
class SensorMaps:
    """Where each sensor looked as a forecast was made.

    Args:   places: where a sensor is drawn: the two main directions of the sensors' vectors.
            spatial: of each layer of the encoder, between sensors, at all times of the history together.
            transform: from the steps to come to those of the history.
    Shape:  places (N, 2), spatial each (H, N, N), transform (N, H, Q, P).
    """

    sensors: tuple[str, ...]
    begin: int
    step_minutes: int
    places: np.ndarray
    spatial: list[np.ndarray]
    transform: np.ndarray


class Forecaster:
    """A forecasting run in memory: `model` is the module, `config` what it was made from."""

    def __init__(self, model: Any, config: RunConfig, precision: str = "float32") -> None:
        self.model: Any = model
        self.config = config
        self.precision = precision

    @classmethod
    def from_folder(cls, model: nn.Module, config: RunConfig, folder: RunFolder, precision: str) -> Self:
        """Everything is in model and config."""
        return cls(model, config, precision)

    @property
    def sensors(self) -> tuple[str, ...]:
        """The sensors' names, in the model's order."""
        return self._data.sensors

    @property
    def _data(self) -> SensorDataConfig:
        return self.config.data

    def read(self, file: str | Path, *, start: str = "") -> SensorTable:
        """A table with a column for each of the run's sensors, in any order; others are left out.

        Args:   start: the time of the first row, where there is no column of times.
        Raises: InputError: it cannot be read, or a sensor is not there.
        """
        return read_table(
            str(file), later_layout(self._data, start), self.sensors, step_minutes=self._data.step_minutes
        )

    def forecast(self, recent: SensorTable | str | Path, steps: int | None = None, *, begin: str = "") -> Forecast:
        """Forecast the next steps of all sensors.

        Args:   recent: a table, or its file, which reaches back as far as the model reads.
                steps: how many; all that the run was trained for where not given.
                begin: the time of the first one; the step after the table's last where empty.
        Raises: InputError: too little history, or more steps than the run was trained for.
        """
        most = self._data.forecast_steps
        steps = most if steps is None else steps
        if not 1 <= steps <= most:
            raise InputError(f"{steps} steps are asked for, and the run was trained for 1 to {most}")
        table, row = self._placed(recent, begin)
        history, times = self._inputs(table, row)
        with torch.inference_mode():
            values = self.model(history, times)[0].float().cpu().numpy()  # (Q, N)
        truth = np.full((steps, len(self.sensors)), np.nan, np.float32)
        known = table.values[row : row + steps]
        truth[: len(known)] = known
        minute = table.start + table.step_minutes * row
        past = table.values[row - self._data.history_steps : row]
        return Forecast(self.sensors, minute, table.step_minutes, past, values[:steps], truth)

    def attention(self, recent: SensorTable | str | Path, *, begin: str = "") -> SensorMaps:
        """Where each sensor looked as that forecast was made; see `forecast`."""
        table, row = self._placed(recent, begin)
        history, times = self._inputs(table, row)
        model, maps = self.model.config, Maps()
        held = 4 * model.num_layers * model.num_heads * history.shape[1] * len(self.sensors) ** 2 / 2**30
        if not model.num_groups and held > memory_gib() / 4:
            raise InputError(
                f"the attention of {len(self.sensors):,} sensors to each other is {held:.0f} GiB to draw from"
            )
        with torch.inference_mode():
            self.model(history, times, maps=maps)
        minute = table.start + table.step_minutes * row
        groups = _members(self.model) if model.num_groups else []
        spatial = [_spatial(maps, layer, groups, history.shape[1]) for layer in range(model.num_layers)]
        vectors = torch.nn.functional.normalize(self.model.embedding.table.float(), dim=-1)
        directions, sizes, _ = torch.linalg.svd(vectors - vectors.mean(dim=0), full_matrices=False)
        places = torch.zeros(len(self.sensors), 2)
        found = (directions * sizes)[:, :2]
        places[:, : found.shape[1]] = found.cpu()
        transform = maps.weights["transform"][0].float().cpu().numpy()
        return SensorMaps(self.sensors, minute, table.step_minutes, places.numpy(), spatial, transform)

    def _placed(self, recent: SensorTable | str | Path, begin: str) -> tuple[SensorTable, int]:
        """The table, and the number of the first step to forecast."""
        table = recent if isinstance(recent, SensorTable) else self.read(recent)
        wanted = self._data.history_steps
        row = len(table)
        if begin:
            row, off = divmod(to_minutes(begin, "the first step to forecast") - table.start, table.step_minutes)
            if off or not wanted <= row <= len(table):
                first, last = (show(table.start + table.step_minutes * each) for each in (wanted, len(table)))
                raise InputError(
                    f"no forecast can begin at {begin}: there are {table.step_minutes}-minute steps from {first} to "
                    f"{last} with {wanted} steps of history before"
                )
        if row < wanted:
            raise InputError(f"{row} steps of history are there, and the run reads {wanted}; give more rows")
        if np.isnan(table.values[row - wanted : row]).all():
            begins = show(table.start + table.step_minutes * row)
            raise InputError(f"nothing was measured in the {wanted} steps before {begins}")
        return table, row

    def _inputs(self, table: SensorTable, row: int) -> tuple[Tensor, Tensor]:
        """Shape: (1, P, N) and (1, P + Q, 2)."""
        data, device = self._data, self.model.device
        steps = np.arange(row - data.history_steps, row + data.forecast_steps)
        history = torch.from_numpy(np.array(table.values[steps[: data.history_steps]], np.float32))
        minutes = table.start + table.step_minutes * steps
        times = torch.from_numpy(days_and_slots(minutes, slots_a_day(data, table.step_minutes)))
        return history[None].to(device), times[None].to(device)


def _members(model: Any) -> list[np.ndarray]:
    """The sensors of each group, in the order of its weights."""
    spatial = model.encoder_blocks[0].spatial
    rows = spatial.members.view_as(spatial.is_filled)
    return [row[filled].cpu().numpy() for row, filled in zip(rows, spatial.is_filled, strict=True)]


def _spatial(maps: Maps, layer: int, groups: list[np.ndarray], steps: int) -> np.ndarray:
    """The weights between sensors of one layer, the mean over the history's steps; of groups, half of either kind.

    Shape: returns (H, N, N).
    """
    name = f"encoder.{layer}.spatial"
    if not groups:
        return maps.weights[name][0].mean(dim=0).float().cpu().numpy()
    between = maps.weights[f"{name}.between"][0].mean(dim=0).float().cpu().numpy()  # (H, G, G)
    within = maps.weights[f"{name}.within"][0].unflatten(0, (steps, -1)).mean(dim=0).float().cpu().numpy()
    number = np.empty(sum(map(len, groups)), np.int64)  # (N,)
    for group, members in enumerate(groups):
        number[members] = group
    found = between[:, number[:, None], number] / np.bincount(number)[number] / 2
    for members, weights in zip(groups, within, strict=True):  # weights (H, M, M)
        found[:, members[:, None], members] += weights[:, : len(members), : len(members)] / 2
    return found
