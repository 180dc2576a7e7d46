"""A run's whole configuration: read from TOML, changed by `--set`, validated, written as one JSON."""

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from zhuyi.errors import InputError
from zhuyi.models import MODELS
from zhuyi.nn.lora import LoraConfig
from zhuyi.tasks import TASKS, TaskType


@dataclass(frozen=True)
class TrainConfig:
    """How a run is trained. Whatever limit is reached first ends it; 0 means no such limit.

    Args:   batch_tokens: padded tokens of the longer side in one micro-batch; of pictures, how many.
            accumulation: micro-batches a step, in each process.
            learning_rate: the peak; under `noam` a factor (1 is the paper's).
            precision: `auto` takes bfloat16 where the processor or GPU multiplies faster in it.
            final_learning_rate: what `cosine` and `linear` fall to.
            monitor: the validation score that chooses the best weights and stops early; the task's first where empty.
            patience: evaluations without a better score before stopping; 0 never stops early.
            average: whose weights are averaged into the final ones: the last or the best `average_checkpoints`
            evaluations', or none (then the best alone).
            max_nonfinite: steps in a row with a loss or gradient that is not finite before training gives up.
            sharding: what each of several processes holds of weights, gradients and moments: `none` of it is cut up, or
            `full`: its share of all of it, for models that do not fit one device.
            threads: 0 takes torch's own choice, the cores there are; exact resume needs the same number again.
            init: a run or shipped model whose tokenizers and weights to begin with, and whose sizes where [model] has
            no name; heads that it has not begin anew.
    """

    seed: int = 1
    max_steps: int = 0
    max_epochs: int = 0
    max_minutes: float = 0.0
    batch_tokens: int = 2048
    accumulation: int = 1
    learning_rate: float = 1.0
    final_learning_rate: float = 0.0
    schedule: Literal["noam", "inverse-sqrt", "cosine", "linear", "plateau", "constant"] = "noam"
    warmup_steps: int = 4000
    betas: tuple[float, float] = (0.9, 0.98)
    epsilon: float = 1e-9
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    label_smoothing: float = 0.1
    precision: Literal["auto", "float32", "bfloat16", "float64"] = "auto"
    eval_every_steps: int = 500
    save_every_steps: int = 500
    monitor: str = ""
    patience: int = 0
    average: Literal["last", "best", "none"] = "best"
    average_checkpoints: int = 5
    sharding: Literal["none", "full"] = "none"
    deterministic: bool = False
    max_nonfinite: int = 5
    threads: int = 0
    init: str = ""
    lora: LoraConfig = field(default_factory=LoraConfig)

    def __post_init__(self) -> None:
        if not (self.max_steps or self.max_epochs or self.max_minutes):
            raise ValueError("no limit is set: set max_steps, max_epochs or max_minutes")
        if self.schedule in ("cosine", "linear") and not self.max_steps:
            raise ValueError(
                f"the {self.schedule} schedule falls towards the last step and never reads the clock: set max_steps"
            )
        for name in ("batch_tokens", "accumulation", "eval_every_steps", "save_every_steps", "average_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "epsilon"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        self._check_final_rate()
        self._check_lora()
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing lies in [0, 1), got {self.label_smoothing}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas lie in [0, 1), got {self.betas[0]} and {self.betas[1]}")
        for name in (
            "clip_norm",
            "weight_decay",
            "max_steps",
            "max_epochs",
            "max_minutes",
            "seed",
            "warmup_steps",
            "patience",
            "threads",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    def share_done(self, step: int, epoch: int, minutes: float) -> float:
        """The largest share of a limit that has been used up."""
        shares = [
            step / self.max_steps if self.max_steps else 0.0,
            epoch / self.max_epochs if self.max_epochs else 0.0,
            minutes / self.max_minutes if self.max_minutes else 0.0,
        ]
        return min(1.0, max(shares))

    def _check_final_rate(self) -> None:
        if not 0 <= self.final_learning_rate <= self.learning_rate:
            raise ValueError(
                f"final_learning_rate lies between 0 and learning_rate = {self.learning_rate}, "
                f"got {self.final_learning_rate}"
            )
        if self.final_learning_rate and self.schedule not in ("cosine", "linear"):
            raise ValueError(f"final_learning_rate is where cosine and linear end, but schedule is {self.schedule}")

    def _check_lora(self) -> None:
        if self.lora.rank and not self.init:
            raise ValueError("lora.rank is set, but adapters need a trained model to stand beside: set init")
        if self.lora.rank and self.sharding != "none":
            raise ValueError(f"lora.rank is set, and sharding = {self.sharding}: the two do not go together")


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run is made from; `model`, `data` and `decode` belong to MODELS and TASKS entries.

    `decode` is None where the task searches for nothing.
    """

    task: str
    model: Any
    data: Any
    train: TrainConfig
    decode: Any = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as in the TOML and the JSON."""
        return dataclasses.asdict(self)

    def as_json(self) -> str:
        return json.dumps(self.as_dict(), ensure_ascii=False, indent=2) + "\n"


def read_recipe(path: str | Path, changes: Iterable[str] = ()) -> RunConfig:
    """Read a TOML recipe and apply `section.key=value` changes.

    Raises: InputError: no such file, not TOML, an unknown key or a wrong value; names the file and the key's path.
    """
    return parse_config(read_values(path, changes), str(path))


def read_values(path: str | Path, changes: Iterable[str] = ()) -> dict[str, Any]:
    """The same as plain values, which nobody has looked at yet."""
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot read the recipe ({error.strerror}); give the path of a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a TOML file: {error}") from None
    for change in changes:
        apply_change(values, change)
    return values


def apply_change(values: dict[str, Any], change: str) -> None:
    """Apply one `section.key=value` to nested plain values; the value is read as TOML, else as a string."""
    path, sign, text = change.partition("=")
    keys = path.strip().split(".")
    if not sign or not all(keys):
        raise InputError(f"--set {change}: expected SECTION.KEY=VALUE, such as train.max_minutes=5")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for key in keys[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise InputError(f"--set {change}: {key} is a value, not a section")
    values[keys[-1]] = value


def parse_config(values: Mapping[str, Any], origin: str) -> RunConfig:
    """Validate nested plain values.

    Args:   origin: the file or option the values come from, for messages.
    Raises: InputError: an unknown key (with the nearest known one), a missing one, or a wrong value.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{origin}: holds no sections; expected those of a run's config")
    known = [f.name for f in dataclasses.fields(RunConfig)]
    for key in values:
        if key not in known:
            raise InputError(f"{origin}: unknown section '{key}'{_nearest(key, known)}")
    task = _choice(values.get("task"), TASKS, "task", origin)
    model = values.get("model", {})
    name = _choice(model.get("name") if isinstance(model, dict) else None, MODELS, "model.name", origin)
    data = _parse(TASKS[task].data, values.get("data", {}), "data", origin)
    return RunConfig(
        task=task,
        model=_parse(MODELS[name].config, _sized(model, MODELS[name].sizes, origin), "model", origin),
        data=data,
        train=_monitored(_parse(TrainConfig, values.get("train", {}), "train", origin), TASKS[task], data, origin),
        decode=_parse_decode(task, values.get("decode"), origin),
    )


def _monitored(train: TrainConfig, task: TaskType, data: Any, origin: str) -> TrainConfig:
    """The same with a score that the task has, of such data."""
    name = _choice(train.monitor or task.scores[0], task.scores, "train.monitor", origin)
    if task.check_score is not None:
        try:
            task.check_score(data, name)
        except ValueError as error:
            raise InputError(f"{origin}: train.monitor: {error}") from None
    return dataclasses.replace(train, monitor=name)


def _parse_decode(task: str, section: Any, origin: str) -> Any:
    config = TASKS[task].decode
    if config is not None:
        return _parse(config, {} if section is None else section, "decode", origin)
    if section:
        raise InputError(f"{origin}: section 'decode' is not for the task {task}, which searches for nothing")
    return None


def _sized(model: dict[str, Any], sizes: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """The model's keys over those of the published size it names, if it names one."""
    if "size" not in model:
        return model
    size = _choice(model["size"], sizes, "model.size", origin)
    return {**dataclasses.asdict(sizes[size]), **{key: value for key, value in model.items() if key != "size"}}


def _choice(value: Any, known: Collection[str], key: str, origin: str) -> str:
    if not isinstance(value, str) or value not in known:
        found = "is missing" if value is None else f"is '{value}'"
        raise InputError(f"{origin}: {key} {found}{did_you_mean(str(value), known)}; choose one of {', '.join(known)}")
    return str(value)


def _nearest(key: str, known: Iterable[str]) -> str:
    names = list(known)
    return did_you_mean(key, names) or f"; known are {', '.join(names)}"


def did_you_mean(key: str, known: Iterable[str]) -> str:
    """The nearest of the known words as the end of a message, or nothing."""
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


def _parse(cls: type[Any], section: Any, path: str, origin: str) -> Any:
    """One section to its dataclass; unknown keys are refused at every depth."""
    _check_keys(cls, section, path, origin)
    try:
        # As JSON, because strict Python mode would refuse a TOML array where a tuple is wanted.
        return TypeAdapter(cls).validate_json(json.dumps(section, default=str), strict=True)
    except ValidationError as error:
        raise InputError(f"{origin}: {_explain(error, path)}") from None


def _check_keys(cls: type[Any], section: Any, path: str, origin: str) -> None:
    if not isinstance(section, dict):
        raise InputError(f"{origin}: {path} is a value, but a section [{path}] was expected")
    known = {f.name: f.type for f in dataclasses.fields(cls)}
    for key, value in section.items():
        if key not in known:
            raise InputError(f"{origin}: unknown key '{path}.{key}'{_nearest(key, known)}")
        if dataclasses.is_dataclass(known[key]):
            _check_keys(known[key], value, f"{path}.{key}", origin)  # type: ignore[arg-type]
        tables = [inner for inner in get_args(known[key]) if dataclasses.is_dataclass(inner)]
        for number, item in enumerate(value if tables and isinstance(value, list) else ()):
            _check_keys(tables[0], item, f"{path}.{key}.{number}", origin)  # type: ignore[arg-type]


def _explain(error: ValidationError, path: str) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join([path, *(str(part) for part in first["loc"])])
    if first["type"] == "missing":
        return f"'{where}' is missing"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"{where}: {message}"
    return f"{where} = {json.dumps(first['input'], ensure_ascii=False)}: {message[0].lower() + message[1:]}"
