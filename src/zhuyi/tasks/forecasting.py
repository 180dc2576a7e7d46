"""Forecasting: from tables of sensors to windows of history and what came, their loss, and the errors of forecasts."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from zhuyi.atomic import replacing
from zhuyi.data import batches as batching
from zhuyi.data.origins import forget_unless, origin_of
from zhuyi.data.road_graph import node2vec, read_edges, read_vectors
from zhuyi.data.traffic import MINUTES_A_DAY, SensorTable, TableLayout, days_and_slots, gaps, read_tables, show
from zhuyi.errors import InputError
from zhuyi.metrics.forecast_errors import ForecastErrors
from zhuyi.tasks.announcing import Announce

SPLITS = ("train", "valid")
REPORTED = 4  # horizons, evenly spread: 15, 30, 45 and 60 minutes of 12 steps of 5


class ForecastingModel(Protocol):
    """What forecasting asks of a model."""

    def __call__(self, history: Tensor, times: Tensor) -> Tensor: ...
    @property
    def device(self) -> torch.device: ...


@dataclass(frozen=True)
class SensorDataConfig:
    """Where the tables come from, and how they are cut.

    Args:   train, valid, test: tables, `.csv` or `.parquet`; where there are no `valid` or `test` ones, the last of
            `train` is.
            valid_share, test_share: of the steps of `train`, held out at its end.
            edges: a list of the roads between sensors, from which node2vec makes a vector for each.
            vectors: or such vectors themselves; without either they are learned.
            vector_width: of node2vec's.
            time_column, time_format, start, step_minutes, zeros: see `zhuyi.data.traffic.TableLayout`.
            history_steps, forecast_steps: P and Q.
            slots_a_day: into how many parts the day is cut for the model; 0 is one for each step.
            sensors: their names, in the model's order; the columns of `train` where empty.
    """

    train: tuple[str, ...] = ()
    valid: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    valid_share: float = 0.1
    test_share: float = 0.2
    edges: str = ""
    vectors: str = ""
    vector_width: int = 64
    time_column: str = ""
    time_format: str = ""
    start: str = ""
    step_minutes: int = 0
    zeros: Literal["missing", "values"] = "missing"
    history_steps: int = 12
    forecast_steps: int = 12
    slots_a_day: int = 0
    sensors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _ = self.layout  # checks what is its
        for name in ("history_steps", "forecast_steps", "vector_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.slots_a_day < 0:
            raise ValueError(f"slots_a_day must not be negative, got {self.slots_a_day}")
        if min(self.valid_share, self.test_share) < 0 or self.valid_share + self.test_share >= 1:
            raise ValueError(
                f"valid_share = {self.valid_share} and test_share = {self.test_share} leave nothing to train on"
            )
        if not self.valid and not self.valid_share:
            raise ValueError("valid_share is 0 and there is no valid file: one of them is needed")
        if self.edges and self.vectors:
            raise ValueError("edges and vectors both say where sensors' vectors come from; leave one out")

    @property
    def layout(self) -> TableLayout:
        return TableLayout(**{each.name: getattr(self, each.name) for each in fields(TableLayout)})

    @property
    def reported_steps(self) -> list[int]:
        """How many steps ahead errors are told."""
        return sorted({-(-self.forecast_steps * part // REPORTED) for part in range(1, REPORTED + 1)})

    def describe(self) -> str:
        """The data in a line, for people."""
        what = f"{len(self.sensors):,} sensors every {self.step_minutes} minutes"
        return f"{', '.join(self.train)}: {what}, {self.history_steps} steps to {self.forecast_steps}"


@dataclass(frozen=True)
class WindowBatch:
    """Some windows: what was measured, when, and what came then; NaN was not measured.

    Shape: history (B, P, N), times (B, P + Q, 2), target (B, Q, N).
    """

    history: Tensor
    times: Tensor
    target: Tensor

    @property
    def num_tokens(self) -> int:
        """What was measured of the target."""
        return int((~self.target.isnan()).sum())

    def to(self, device: torch.device) -> "WindowBatch":
        return WindowBatch(*(x.to(device) for x in (self.history, self.times, self.target)))


class Windows:
    """The windows of a table: all places where history and target fit and anything of both was measured."""

    def __init__(self, table: SensorTable, config: SensorDataConfig, batch_tokens: int, seed: int) -> None:
        self.table, self.history_steps, self.forecast_steps = table, config.history_steps, config.forecast_steps
        self.slots_a_day = slots_a_day(config, table.step_minutes)
        self._batch_tokens, self._seed = batch_tokens, seed
        measured = np.concatenate(([0], (~np.isnan(table.values)).any(axis=1).cumsum()))
        starts = np.arange(max(0, len(table) - self.history_steps - self.forecast_steps + 1))
        middle, end = starts + self.history_steps, starts + self.history_steps + self.forecast_steps
        is_usable = (measured[middle] > measured[starts]) & (measured[end] > measured[middle])
        self.starts = starts[is_usable]
        self._lengths = np.full(len(self.starts), len(table.sensors) * max(self.history_steps, self.forecast_steps))

    def __len__(self) -> int:
        return len(self.starts)

    def order(self, epoch: int, *, shuffle: bool = True) -> list[np.ndarray]:
        """The windows of each batch: a pure function of the data, the seed and the epoch."""
        return batching.order(
            self._lengths, batch_tokens=self._batch_tokens, seed=self._seed, epoch=epoch, shuffle=shuffle
        )

    def largest(self) -> np.ndarray:
        return batching.largest(self._lengths, self._batch_tokens)

    def load(self, rows: np.ndarray) -> WindowBatch:
        steps = self.starts[rows][:, None] + np.arange(self.history_steps + self.forecast_steps)  # (B, P + Q)
        values = torch.from_numpy(np.asarray(self.table.values[steps], np.float32))  # (B, P + Q, N)
        times = days_and_slots(self.table.start + self.table.step_minutes * steps, self.slots_a_day)
        history, target = values.split([self.history_steps, self.forecast_steps], dim=1)
        return WindowBatch(history.contiguous(), torch.from_numpy(times), target.contiguous())

    def first_forecast(self, row: int) -> str:
        """The time of the first step that a window's target has."""
        return show(self.table.minutes()[self.starts[row] + self.history_steps])

    def lines(self, rows: np.ndarray) -> list[str]:
        return [f"forecast from {self.first_forecast(row)}" for row in rows]


class ForecastingTask:
    """What training asks of forecasting."""

    def __init__(
        self,
        config: SensorDataConfig,
        tables: dict[str, SensorTable],
        vectors: np.ndarray | None,
        batch_tokens: int,
        seed: int,
    ) -> None:
        self.config = config
        self._train = tables["train"]
        self._vectors = vectors
        self._windows = {split: Windows(table, config, batch_tokens, seed) for split, table in tables.items()}

    @classmethod
    def prepare(
        cls,
        config: SensorDataConfig,
        decode: None,
        folder: Path,
        batch_tokens: int,
        seed: int,
        announce: Announce,
        *,
        begun: bool = False,
    ) -> "ForecastingTask":
        """Read or open the run's tables and its sensors' vectors; only open them where training has `begun` on them."""
        cache = folder / "cache"
        cache.mkdir(parents=True, exist_ok=True)
        if not config.train:
            raise InputError("no training data: set data.train or give --train FILE")
        files = [*config.train, *config.valid, *filter(None, (config.edges, config.vectors))]
        made_from = [{**asdict(config), "step_minutes": 0, "sensors": (), "test": bool(config.test)}, seed]
        made = [cache / name for name in ("tables.json", "train.npy", "valid.npy", "vectors.npy")]
        origin = origin_of(made_from, files, cache / "read-from.json", begun)
        forget_unless(cache / "read-from.json", origin, made)
        if not (cache / "tables.json").exists() or config.sensors not in ((), tuple(_told(cache)["sensors"])):
            _read(config, cache, seed, announce)
        told = _told(cache)
        tables = {
            split: SensorTable(
                tuple(told["sensors"]), told[split], told["step_minutes"], np.load(cache / f"{split}.npy", "r")
            )
            for split in SPLITS
        }
        vectors = np.load(cache / "vectors.npy") if (cache / "vectors.npy").exists() else None
        task = cls(config, tables, vectors, batch_tokens, seed)
        for split in SPLITS:
            if not len(task.batches(split)):
                raise InputError(
                    f"{', '.join(config.valid if split == 'valid' and config.valid else config.train)}: its "
                    f"{len(tables[split]):,} steps of {split} hold no window of {config.history_steps} + "
                    f"{config.forecast_steps} steps with anything measured; give more, or make windows shorter"
                )
        announce(", ".join(f"{len(task.batches(split)):,} windows of {split}" for split in SPLITS))
        return task

    def derived_sizes(self) -> dict[str, dict[str, Any]]:
        """What of the configuration follows from the data, by section."""
        values = self._train.values[~np.isnan(self._train.values)].astype(np.float64)
        model: dict[str, Any] = {
            "num_sensors": len(self._train.sensors),
            "slots_a_day": self._windows["train"].slots_a_day,
            "embedding": "learned" if self._vectors is None else "given",
            # As a float32 holds them, in whatever type they are read again.
            "mean": float(np.float32(values.mean())),
            "std": float(np.float32(values.std() or 1.0)),
        }
        if self._vectors is not None:
            model["d_embedding"] = self._vectors.shape[1]
        return {"model": model, "data": {"sensors": self._train.sensors, "step_minutes": self._train.step_minutes}}

    def given_weights(self) -> dict[str, Tensor]:
        """What of a new model is not drawn but known: the sensors' vectors, where the data has them."""
        return {} if self._vectors is None else {"embedding.table": torch.from_numpy(self._vectors)}

    def batches(self, split: str) -> Windows:
        return self._windows[split]

    def loss(
        self, model: ForecastingModel, batch: WindowBatch, *, smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor, int]:
        """The summed absolute error, twice, and of how many measured values it is; there is nothing to smooth.

        Source: Zheng et al. 2020, eq. 16; the mask of what was not measured is in the authors' code.
        """
        forecast = model(batch.history, batch.times)
        measured = ~batch.target.isnan()
        errors = (forecast - batch.target.nan_to_num()).abs() * measured  # (B, Q, N)
        total = errors.sum(dtype=torch.float64)
        return total, total.detach(), int(measured.sum())

    def evaluate(self, model: ForecastingModel) -> dict[str, Any]:
        """`valid_loss`, `mae`, `rmse` and `mape` of the validation windows."""
        scores = forecast_errors(model, self._windows["valid"]).scores()
        return {"valid_loss": scores["mae"], **scores}

    @torch.inference_mode()
    def samples(self, model: ForecastingModel, count: int = 2) -> list[tuple[str, str, str]]:
        """A sensor's history, its forecast and what came, of some validation windows, the same each time."""
        windows = self._windows["valid"]
        rows = np.array([len(windows) * i // count for i in range(count)])
        batch = windows.load(rows).to(model.device)
        forecast = model(batch.history, batch.times)
        found = []
        for i, row in enumerate(rows):
            sensor = (i * len(windows.table.sensors)) // count
            texts = [_numbers(x[i, :, sensor]) for x in (batch.history, forecast, batch.target)]
            name = windows.table.sensors[sensor]
            found.append((f"{name}, before {windows.first_forecast(row)}: {texts[0]}", texts[1], texts[2]))
        return found


def _numbers(values: Tensor) -> str:
    return " ".join("-" if bool(value.isnan()) else f"{float(value):.1f}" for value in values)


def slots_a_day(config: SensorDataConfig, step_minutes: int) -> int:
    """Into how many parts the day is cut: steps, where nothing else is said."""
    return config.slots_a_day or -(-MINUTES_A_DAY // step_minutes)


@torch.inference_mode()
def forecast_errors(model: ForecastingModel, windows: Windows) -> ForecastErrors:
    """The errors of all windows' forecasts."""
    errors = ForecastErrors(windows.forecast_steps)
    for rows in windows.order(0, shuffle=False):
        batch = windows.load(rows).to(model.device)
        forecast = model(batch.history, batch.times)
        errors.add(forecast.float().cpu().numpy(), batch.target.cpu().numpy())
    return errors


def split_tables(config: SensorDataConfig) -> dict[str, SensorTable]:
    """The tables of `train`, `valid` and `test`; of the latter two what there is.

    Raises: InputError: a file cannot be read, or does not have the sensors of the others.
    """
    whole = read_tables(config.train, config.layout, config.sensors)
    tables = {"train": whole}
    for split, files in (("valid", config.valid), ("test", config.test)):
        if files:
            tables[split] = read_tables(files, later_layout(config), whole.sensors, step_minutes=whole.step_minutes)
    # Rounded as the authors' code does.
    test = 0 if config.test else round(config.test_share * len(whole))
    train = len(whole) - test if config.valid else round((1 - config.valid_share) * len(whole)) - test
    if not config.valid:
        tables["valid"] = whole.part(train, len(whole) - test)
    if test:
        tables["test"] = whole.part(len(whole) - test, len(whole))
    return tables | {"train": whole.part(0, train)}


def later_layout(config: SensorDataConfig, start: str = "") -> TableLayout:
    """Of tables other than the first one that was trained on: where they begin is not known from that."""
    return replace(config.layout, start=start)


def _read(config: SensorDataConfig, cache: Path, seed: int, announce: Announce) -> None:
    """Write the tables and the vectors, then what belongs to them, whose presence says that all are there."""
    tables = split_tables(config)
    train = tables["train"]
    announce(
        f"{len(train.sensors):,} sensors every {train.step_minutes} minutes: "
        + "; ".join(f"{name} from {show(each.start)}, {len(each):,} steps" for name, each in tables.items())
    )
    for name, each in tables.items():
        if told := gaps(each):
            announce(f"{name}: {told}")
    if np.isnan(train.values).all():
        raise InputError(f"{', '.join(config.train)}: nothing was measured in the part to train on")
    vectors = None
    if config.vectors:
        vectors = read_vectors(config.vectors, train.sensors)
    elif config.edges:
        edges = read_edges(config.edges, train.sensors)
        announce(f"{len(edges.weights):,} edges; node2vec makes {config.vector_width} numbers a sensor of them")
        vectors = node2vec(edges, len(train.sensors), config.vector_width, seed)
    if vectors is not None:
        # A sensor off all roads, from which no walk leads on, has one twelve times as long as others in the published
        # file for METR-LA, and would outweigh them in every product.
        size = np.sqrt((vectors.astype(np.float64) ** 2).mean(axis=1, keepdims=True))
        vectors = (vectors / np.maximum(size, 1e-12)).astype(np.float32)
    arrays: dict[str, np.ndarray] = {split: tables[split].values for split in SPLITS}
    for name, array in (arrays | ({} if vectors is None else {"vectors": vectors})).items():
        with replacing(cache / f"{name}.npy") as path, open(path, "wb") as file:
            np.save(file, array, allow_pickle=False)
    told_all = {"sensors": train.sensors, "step_minutes": train.step_minutes}
    with replacing(cache / "tables.json") as path:
        starts = {split: tables[split].start for split in SPLITS}
        path.write_text(json.dumps(told_all | starts, ensure_ascii=False), encoding="utf-8")


def _told(cache: Path) -> dict[str, Any]:
    """What `_read` has left beside the tables."""
    found: dict[str, Any] = json.loads((cache / "tables.json").read_text(encoding="utf-8"))
    return found


def horizon_scores(errors: ForecastErrors, config: SensorDataConfig) -> dict[str, float]:
    """`mae`, `rmse` and `mape` of all steps, and `mae_15min` and so on of some."""
    scores = errors.scores()
    for step in config.reported_steps:
        minutes = step * config.step_minutes
        scores |= {f"{name}_{minutes}min": value for name, value in errors.scores(step).items()}
    return scores


def windows_of(tables: Sequence[str], config: SensorDataConfig, batch_tokens: int, start: str = "") -> Windows:
    """The windows of a run's own test part, or of files, to score forecasts on.

    Args:   start: the time of the first row of a file without a column of times.
    Raises: InputError: there is none.
    """
    if start and not tables:
        raise InputError("--start is for a table given by --test FILE; leave it out")
    if tables:
        table = read_tables(tables, later_layout(config, start), config.sensors, step_minutes=config.step_minutes)
    else:
        found = split_tables(config)
        if "test" not in found:
            raise InputError("the run has no test data of its own; give some by --test FILE")
        table = found["test"]
    windows = Windows(table, config, batch_tokens, seed=0)
    if not len(windows):
        raise InputError(
            f"{', '.join(tables or config.train)}: {len(table):,} steps hold no window of {config.history_steps} + "
            f"{config.forecast_steps} with anything measured"
        )
    return windows
