"""Which runs a server has, and under which names they are asked for."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zhuyi.errors import InputError
from zhuyi.predict import load
from zhuyi.run_folder import find_run
from zhuyi.tasks import TASKS

SERVED = ("translate", "generate", "fill", "classify", "embed", "transcribe", "forecast", "attention")


@dataclass(frozen=True)
class RunToServe:
    """A run that a server is to have.

    Args:   name: what it is asked for by.
            run: its folder, or the name of a shipped model.
            precision: see `zhuyi.load`; None: `auto` where texts are translated, otherwise float32.
    """

    name: str
    run: str
    precision: str | None = None

    def load(self) -> "ServedRun":
        """Bring it into memory.

        Raises: InputError: as `zhuyi.load`.
        """
        task = find_run(self.run).read_config().task
        precision = self.precision or ("auto" if "translate" in TASKS[task].commands else None)
        predictor = load(self.run, precision)
        data = predictor.config.data
        return ServedRun(
            self.name,
            task,
            predictor,
            source=getattr(data, "source", "") or "",
            target=getattr(data, "target", "") or "",
        )


@dataclass(frozen=True, eq=False)
class ServedRun:
    """A run in the server's memory. Its predictor is for the engine's thread alone: see `Engine.call`.

    Args:   source, target: languages, where the run's config names them.
            created: when it was loaded, in seconds since 1970.
    """

    name: str
    task: str
    predictor: Any
    source: str = ""
    target: str = ""
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def abilities(self) -> tuple[str, ...]:
        """The sub-commands that it can do over HTTP as well."""
        return tuple(command for command in TASKS[self.task].commands if command in SERVED)


def runs_to_serve(names: Sequence[str], precision: str | None = None) -> list[RunToServe]:
    """What the command line names, `RUN` or `NAME=RUN`; without NAME a folder is asked for by its last part.

    Raises: InputError: no such run, or two of one name.
    """
    found: dict[str, RunToServe] = {}
    for given in names:
        name, _, run = ("", "", given) if Path(given).is_dir() else given.rpartition("=")
        folder = find_run(run)
        folder.read_config()
        name = name or folder.path.resolve().name
        if name in found:
            raise InputError(f"two runs would be asked for as {name}: name one by NAME={run}")
        found[name] = RunToServe(name, run, precision)
    return list(found.values())
