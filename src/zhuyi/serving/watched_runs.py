"""Runs that are watched while they train: what has come since a page last asked."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from zhuyi.atomic import replacing_named
from zhuyi.config import RunConfig
from zhuyi.errors import InputError
from zhuyi.run_folder import RunFolder
from zhuyi.run_names import check_folder
from zhuyi.serving.line_follower import LineFollower
from zhuyi.training.averaging import best_first
from zhuyi.training.loop import Progress
from zhuyi.visualize.web_page import self_contained

# How many rows of which generation a page has, by run and kind of row.
Known = Mapping[str, Mapping[str, Sequence[int]]]
Clean = Callable[[dict[str, Any]], dict[str, Any]]


class WatchedRun:
    """One run's folder, which may not have begun yet, or be gone for a while."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self._folder = RunFolder(path)
        self._kinds = {
            "metrics": (LineFollower(self._folder.metrics_path), _numbers),
            "samples": (LineFollower(self._folder.samples_path), _texts),
        }
        self._config: tuple[int, RunConfig | None] = (0, None)

    def news(self, known: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        """What a page needs that knows so many rows of each kind, [generation, count]."""
        rows = {}
        for kind, (follower, clean) in self._kinds.items():
            follower.look()
            rows[kind] = _rows_since(follower, known.get(kind, ()), clean)
        return {"name": self.name, **self._state(), **rows}

    def _state(self) -> dict[str, Any]:
        """What the run is, and how far it has come."""
        follower = self._kinds["metrics"][0]
        state = {"task": "", "model": "", "monitor": "", "best": None, "done": 0.0, "finished": False}
        state["changed"] = max([follower.changed for follower, _ in self._kinds.values()] + [self._checkpointed()])
        config = self._read_config()
        if config is None:
            return state
        state |= {"task": config.task, "model": str(getattr(config.model, "name", "")), "monitor": config.train.monitor}
        progress = self._progress(follower.rows)
        train = config.train
        done = train.share_done(progress.step, progress.epoch, progress.minutes)
        out_of_patience = bool(train.patience and progress.since_best >= train.patience)
        if progress.evaluations:
            state["best"] = best_first(progress.evaluations)[0]
        return state | {"done": done, "minutes": progress.minutes, "finished": done >= 1 or out_of_patience}

    def _checkpointed(self) -> float:
        """When a checkpoint last came or went, in seconds since 1970; 0 where there is none."""
        try:
            return self._folder.checkpoints_path.stat().st_mtime
        except OSError:
            return 0.0

    def _read_config(self) -> RunConfig | None:
        """The config, read again where it has changed; none where there is none that can be read."""
        try:
            changed = self._folder.config_path.stat().st_mtime_ns
            if changed != self._config[0]:
                self._config = (changed, self._folder.read_config())
        except (OSError, InputError):
            self._config = (0, None)
        return self._config[1]

    def _progress(self, rows: Sequence[Mapping[str, Any]]) -> Progress:
        """Where training stands: by its newest checkpoint, or by what it has told since."""
        progress = Progress()
        try:
            newest = self._folder.checkpoint_steps()[-1]
            text = (self._folder.checkpoints_path / str(newest) / "progress.json").read_text(encoding="utf-8")
            progress = Progress(**json.loads(text))
        except (OSError, ValueError, TypeError, IndexError):  # none yet, or just going
            pass
        if rows and _is_number(rows[-1].get("step")) and rows[-1]["step"] > progress.step:
            progress.step = int(rows[-1]["step"])
            progress.minutes = float(_number(rows[-1].get("minutes")) or 0.0)
        return progress


class Watch:
    """The runs that are watched.

    Args:   paths: runs, or folders of runs, whose runs are found anew at each look.
    Raises: InputError: a path is no folder.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        for path in paths:
            check_folder(path)
        self.paths = paths
        self._runs: dict[Path, WatchedRun] = {}

    def news(self, known: Known) -> dict[str, Any]:
        """What a page needs that knows so much of each run."""
        found = [run for path in self.paths for run in _runs_in(path)]
        names = _short_names(list(dict.fromkeys(found)))
        for path, name in names.items():
            if path not in self._runs or self._runs[path].name != name:
                self._runs[path] = WatchedRun(path, name)
        runs = [self._runs[path] for path in names]
        return {"now": time.time(), "runs": [run.news(known.get(run.name, {})) for run in runs]}


def template() -> str:
    """The page, with places for what it is made of."""
    return files("zhuyi.serving").joinpath("watch_page.html").read_text(encoding="utf-8")


def write_watch_page(watch: Watch, path: Path) -> None:
    """Write what there is now as one HTML file that opens offline.

    Raises: InputError: there is no run.
    """
    if not any((run / "config.json").exists() for each in watch.paths for run in _runs_in(each)):
        folders = ", ".join(str(each) for each in watch.paths)
        raise InputError(f"{folders}: no run here, nor right below; give the folder of a run, or one with runs in it")
    with replacing_named(path) as unfinished:
        unfinished.write_text(self_contained(template(), ["watch.js"], watch.news({})), encoding="utf-8")


def _runs_in(path: Path) -> list[Path]:
    """The folder itself if it is a run, or is to be one; else the runs right below it."""
    below: list[Path] = []
    if not (path / "config.json").exists() and path.is_dir():
        below = sorted(each for each in path.iterdir() if (each / "config.json").is_file())
    return below or [path]


def _short_names(paths: Sequence[Path]) -> dict[Path, str]:
    """As much of each path's end as tells it from the others."""
    names = {}
    for path in paths:
        parts = path.resolve().parts
        others = [other.resolve().parts for other in paths if other is not path]
        size = 1
        while size < len(parts) and any(other[-size:] == parts[-size:] for other in others):
            size += 1
        names[path] = "/".join(parts[-size:])
    return names


def _rows_since(follower: LineFollower, known: Sequence[int], clean: Clean) -> dict[str, Any]:
    """The rows that a page lacks; all of them where it has some that are no more."""
    first = known[1] if len(known) == 2 and known[0] == follower.generation else 0
    return {
        "generation": follower.generation,
        "first": first,
        "rows": [clean(row) for row in follower.rows[first:] if _is_number(row.get("step"))],
        "count": len(follower.rows),
    }


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    return {key: _number(value) for key, value in row.items() if value is None or _is_number(value)}


def _number(value: Any) -> float | None:
    """A number that JSON has a form for."""
    return value if _is_number(value) and math.isfinite(value) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _texts(row: dict[str, Any]) -> dict[str, Any]:
    samples = row.get("samples")
    kept = [each for each in samples if isinstance(each, dict)] if isinstance(samples, list) else []
    texts = [{key: str(each.get(key, "")) for key in ("source", "text", "reference")} for each in kept]
    found = {"step": row["step"], "samples": texts}
    if isinstance(row.get("cross_attention"), dict):
        found["cross_attention"] = row["cross_attention"]
    return found
