"""A run on disk: config, weights, tokenizers, metrics and checkpoints, each written whole or not at all."""

import contextlib
import json
import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zhuyi.atomic import replacing, sync
from zhuyi.config import RunConfig, parse_config
from zhuyi.errors import InputError
from zhuyi.run_names import PRETRAINED, is_folder, shipped_models, unknown_run

# Of an imported run's folder: the tokenizer's files as they were published, for an export.
PUBLISHED = "published"
# What a run may have written before its first step.
BEGINNING = ("config.json", "tokenizer*.json", PUBLISHED, "cache", "tensorboard")
MOST_SAMPLES = 400  # even, so that of one more than these every second ends with the newest


@dataclass(frozen=True)
class Checkpoint:
    """One atomic unit: everything that training needs to go on, bit for bit.

    `progress` holds plain values: step, place in the data, best score, patience, minutes.
    """

    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    progress: dict[str, Any]


class RunFolder:
    """Paths inside a run and their reading and writing."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_path = self.path / "config.json"
        self.weights_path = self.path / "model.safetensors"
        self.metrics_path = self.path / "metrics.jsonl"
        self.samples_path = self.path / "samples.jsonl"
        self.card_path = self.path / "card.md"
        self.checkpoints_path = self.path / "checkpoints"

    def check_trainable(self, *, resume: bool) -> None:
        """Refuse a folder that training must not write into.

        Raises: InputError: it holds a run that is not to be gone on with, or a link, which could lead anywhere.
        """
        if self.config_path.exists() and not resume:
            raise InputError(
                f"{self.path} holds a run already; go on with `zhuyi train --resume --out {self.path}` "
                "or choose another --out"
            )
        for parent, folders, files in os.walk(self.path):
            for name in sorted((*folders, *files)):
                _refuse_link(Path(parent, name))

    def write_config(self, config: RunConfig) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        with replacing(self.config_path) as path:
            path.write_text(config.as_json(), encoding="utf-8")

    def read_config(self) -> RunConfig:
        try:
            values = json.loads(self.config_path.read_text(encoding="utf-8"))
        except OSError:
            raise InputError(
                f"{self.path}: no config.json here; give the folder of a run, as `zhuyi train` makes it"
            ) from None
        except ValueError as error:
            raise InputError(f"{self.config_path}: not readable as JSON: {error}") from None
        return parse_config(values, str(self.config_path))

    def write_weights(self, weights: Mapping[str, Tensor]) -> None:
        with replacing(self.weights_path) as path:
            write_tensors(path, weights)

    def read_weights(self) -> dict[str, Tensor]:
        self._check_weights_exist()
        return read_tensors(self.weights_path)

    def needed_files(self) -> list[Path]:
        """What the run is loaded from: config, weights and tokenizers.

        Raises: InputError: no such run, or no weights in it yet.
        """
        self.read_config()
        self._check_weights_exist()
        return [self.config_path, self.weights_path, *sorted(self.path.glob("tokenizer*.json"))]

    def _check_weights_exist(self) -> None:
        if not self.weights_path.exists():
            raise InputError(
                f"{self.path}: no model.safetensors here yet; train on with `zhuyi train --resume --out {self.path}`"
            )

    def append_metrics(self, values: Mapping[str, Any]) -> None:
        _append_line(self.metrics_path, values)

    def read_metrics(self) -> list[dict[str, Any]]:
        return _read_lines(self.metrics_path)

    def append_samples(self, values: Mapping[str, Any]) -> None:
        """Note what the model writes at an evaluation; where there are too many notes, forget every second one.

        Which ones are kept follows from how many were made, so that a resumed run comes to the same.
        """
        _append_line(self.samples_path, values)
        rows = self.read_samples()
        if len(rows) > MOST_SAMPLES:
            _write_lines(self.samples_path, rows[::2])

    def read_samples(self) -> list[dict[str, Any]]:
        return _read_lines(self.samples_path)

    def cut_history(self, step: int) -> None:
        """Forget what was noted after `step`: training goes on from there."""
        for path in (self.metrics_path, self.samples_path):
            if path.exists():
                _write_lines(path, [row for row in _read_lines(path) if row["step"] <= step])

    def write_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Add a checkpoint; one of a step that has one already is of the same state, and only its progress is news."""
        final = self.checkpoints_path / str(checkpoint.progress["step"])
        progress = json.dumps(checkpoint.progress)
        if final.exists():
            with replacing(final / "progress.json") as path:
                path.write_text(progress, encoding="utf-8")
            return
        self.checkpoints_path.mkdir(exist_ok=True)
        self._clear_leftovers()
        unfinished = self.checkpoints_path / f"unfinished-{final.name}"
        unfinished.mkdir()
        write_tensors(unfinished / "model.safetensors", checkpoint.weights)
        write_tensors(unfinished / "optimizer.safetensors", checkpoint.optimizer)
        (unfinished / "progress.json").write_text(progress, encoding="utf-8")
        for file in unfinished.iterdir():
            sync(file)
        sync(unfinished)
        os.rename(unfinished, final)
        sync(self.checkpoints_path)

    def checkpoint_steps(self) -> list[int]:
        """The steps of all complete checkpoints, oldest first; the newest has all that training needs to go on."""
        if not self.checkpoints_path.exists():
            return []
        return sorted(int(path.name) for path in self.checkpoints_path.iterdir() if path.name.isdigit())

    def read_checkpoint(self, step: int) -> Checkpoint:
        folder = self.checkpoints_path / str(step)
        return Checkpoint(
            self.read_checkpoint_weights(step),
            read_tensors(folder / "optimizer.safetensors"),
            json.loads((folder / "progress.json").read_text(encoding="utf-8")),
        )

    def read_checkpoint_weights(self, step: int) -> dict[str, Tensor]:
        return read_tensors(self.checkpoints_path / str(step) / "model.safetensors")

    def thin_checkpoints(self, wanted: Collection[int]) -> None:
        """Of checkpoints before the newest, keep the weights alone of those that are wanted, and of others nothing."""
        self._clear_leftovers()
        for step in self.checkpoint_steps()[:-1]:
            folder = self.checkpoints_path / str(step)
            if step in wanted:
                (folder / "optimizer.safetensors").unlink(missing_ok=True)
                continue
            doomed = self.checkpoints_path / f"unfinished-{step}"  # so that half a removal is never read
            os.rename(folder, doomed)
            shutil.rmtree(doomed)

    def entries(self) -> set[Path] | None:
        """What the folder holds; None where there is no such folder."""
        return set(self.path.iterdir()) if self.path.exists() else None

    def remove_beginning(self, there: set[Path] | None) -> None:
        """Take away what a run writes before its first step: it is not to stand in the way of the next try.

        Others may write into the folder meanwhile, other runs say: what has no name of ours is left alone.

        Args:   there: what `entries` gave before the run.
        """
        for entry in {path for name in BEGINNING for path in self.path.glob(name)} - (there or set()):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
        if there is None:
            with contextlib.suppress(OSError):  # there is something else now
                self.path.rmdir()

    def _clear_leftovers(self) -> None:
        """Remove what a killed writing or removal of a checkpoint has left."""
        for leftover in self.checkpoints_path.glob("unfinished-*"):
            shutil.rmtree(leftover)


# Files of one JSON object a line, which grow by one at each evaluation.


def _append_line(path: Path, values: Mapping[str, Any]) -> None:
    _refuse_link(path)
    with open(path, "a", encoding="utf-8", errors="replace") as file:
        file.write(_line(values))
        file.flush()
        os.fsync(file.fileno())


def _read_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    rows = []
    for line in path.read_bytes().split(b"\n"):
        with contextlib.suppress(ValueError):  # a kill in the middle of a write leaves half a line
            rows.append(json.loads(line))
    return rows


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with replacing(path) as unfinished:
        unfinished.write_text("".join(map(_line, rows)), encoding="utf-8")


def _line(values: Mapping[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False) + "\n"


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise InputError(f"{path} is a link, and may lead out of the run's folder; put what it leads to in its place")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, for the same people to read as any new file; the library keeps it to its owner."""
    path.touch()
    mode = path.stat().st_mode
    save_file(dict(tensors), path)
    path.chmod(mode)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises: InputError: no such file, or it is truncated or not of that form.
    """
    try:
        return load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: broken or truncated safetensors file ({error}); copy or train it again") from None


def named_weights(module: nn.Module) -> dict[str, Tensor]:
    """A module's parameters, and the buffers that it keeps with them, under their names; a tied one once."""
    weights = {name: parameter.detach() for name, parameter in module.named_parameters()}
    buffers = dict(module.named_buffers())
    if buffers:
        kept = module.state_dict()
        weights |= {name: buffer for name, buffer in buffers.items() if name in kept}
    return weights


def set_weights(module: nn.Module, weights: Mapping[str, Tensor], origin: Path) -> None:
    """Copy weights into a module.

    Raises: InputError: a name is missing or unknown, or a shape differs; names the first.
    """
    own = named_weights(module)
    for name in own.keys() | weights.keys():
        found = tuple(weights[name].shape) if name in weights else "missing"
        wanted = tuple(own[name].shape) if name in own else "unknown to this model"
        if found != wanted:
            raise InputError(
                f"{origin}: the weight {name} is {found} but the config needs {wanted}; "
                "the file belongs to another config"
            )
    with torch.no_grad():
        for name, weight in weights.items():
            own[name].copy_(weight)


def find_run(name: str | Path) -> RunFolder:
    """The run in a folder, or the shipped model of that name.

    Raises: InputError: neither is there.
    """
    if is_folder(name):
        return RunFolder(name)
    shipped = PRETRAINED / str(name)
    if str(name) in shipped_models():
        return RunFolder(shipped)
    raise unknown_run(str(name))
