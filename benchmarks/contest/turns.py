"""Contestants, their processes, and rounds in which they take turns."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# The threads of a tool that has just finished go on spinning for a while: OpenMP's default is 0.2 seconds.
REST_SECONDS = 0.3


@dataclass(frozen=True)
class Contestant:
    """A tool in one of its settings.

    Args:   folder: the model in the tool's own form.
            setting, environment: pairs of name and value.
    """

    tool: str
    folder: str
    setting: tuple[tuple[str, Any], ...]
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        return " ".join(str(value) for _, value in (*self.setting, *self.environment))


@dataclass
class Track:
    """What one contestant showed: a speed a turn.

    Args:   trial: its speed in the trial round; 0 where it failed.
            found: what it wrote then.
            error: why it takes no part.
    """

    contestant: Contestant
    trial: float = 0.0
    speeds: list[float] = field(default_factory=list)
    found: list[Any] = field(default_factory=list)
    error: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.speeds) if self.speeds else self.trial


class Workers:
    """The processes of all contestants; those that differ in their settings alone share one.

    Args:   threads: of the tools that have no such setting; None leaves them their own choice.
            module: what they run.
            pythons: the interpreter of a tool that lives in an environment of its own.
    """

    def __init__(
        self,
        threads: int | None = None,
        rest_seconds: float = REST_SECONDS,
        *,
        module: str = "contest.worker",
        pythons: Mapping[str, str] | None = None,
    ) -> None:
        self._threads = threads
        self._rest_seconds = rest_seconds
        self._module = module
        self._pythons = pythons or {}
        self._processes: dict[tuple[Any, ...], subprocess.Popen[str]] = {}

    def ask(self, contestant: Contestant, **command: Any) -> dict[str, Any]:
        """Have one work while all others wait."""
        time.sleep(self._rest_seconds)
        process = self._process(contestant)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(command) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if line:
            return json.loads(line)
        self._processes.pop(self._key(contestant)).communicate()
        return {"error": f"its process ended with status {process.returncode}"}

    def close(self) -> None:
        """End all processes."""
        for process in self._processes.values():
            process.communicate()  # closes its standard input, at which it ends
        self._processes.clear()

    def _key(self, contestant: Contestant) -> tuple[Any, ...]:
        return contestant.tool, contestant.folder, contestant.environment

    def _environment(self) -> dict[str, str]:
        """This process's own, without what would keep a tool from taking the cores as it does by itself."""
        own = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
        paths = [str(Path(__file__).parents[1]), *filter(None, [own.get("PYTHONPATH")])]
        own["PYTHONPATH"] = os.pathsep.join(paths)
        return own | ({} if self._threads is None else {"OMP_NUM_THREADS": str(self._threads)})

    def _process(self, contestant: Contestant) -> "subprocess.Popen[str]":
        key = self._key(contestant)
        if key not in self._processes:
            python = self._pythons.get(contestant.tool, sys.executable)
            self._processes[key] = subprocess.Popen(
                [python, "-m", self._module, contestant.tool, contestant.folder],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
                env=self._environment() | dict(contestant.environment),
            )
        return self._processes[key]


Turn = Callable[[Contestant, bool], dict[str, Any]]


def trial(contestants: Iterable[Contestant], turn: Turn, work: float) -> list[Track]:
    """A first turn of each, warmed up, with what it wrote.

    Args:   turn: has a contestant work, warmed up if told so, and gives its answer.
            work: tokens, or texts, of one call.
    """
    tracks = []
    for contestant in contestants:
        answer = turn(contestant, True)
        track = Track(contestant, error=answer.get("error", ""), found=answer.get("found", []))
        if not track.error:
            track.trial = work / statistics.median(answer["seconds"])
        tracks.append(track)
    return tracks


def fastest(tracks: Sequence[Track], count: int) -> list[Track]:
    """The fastest few of each tool in their trial, in the order given."""
    kept: list[Track] = []
    for tool in dict.fromkeys(track.contestant.tool for track in tracks):
        own = [track for track in tracks if track.contestant.tool == tool and not track.error]
        kept += sorted(own, key=lambda track: -track.trial)[:count]
    return [track for track in tracks if track in kept]


def measure(tracks: Sequence[Track], turn: Turn, work: float, number: int) -> None:
    """One turn each, backwards in every other round, so that a drift of the machine favours nobody."""
    for track in tracks if number % 2 else list(reversed(tracks)):
        answer = turn(track.contestant, False)
        if "error" in answer:
            track.error = answer["error"]
        else:
            track.speeds.append(work / statistics.median(answer["seconds"]))


def best(tracks: Iterable[Track], tools: Sequence[str]) -> Track | None:
    """The one with the best median among those that were measured in every round."""
    measured = [track for track in tracks if track.contestant.tool in tools and track.speeds and not track.error]
    return max(measured, key=lambda track: track.median, default=None)


def ratio(track: Track, other: Track) -> tuple[float, float, float]:
    """How many times faster: by the medians, and the least and the most of any round."""
    rounds = [mine / theirs for mine, theirs in zip(track.speeds, other.speeds, strict=False)]
    return track.median / other.median, min(rounds), max(rounds)


def results(tracks: Sequence[Track], peers: Sequence[str]) -> dict[str, Any]:
    """All that was measured in a cell, and the ratio of each setting of zhuyi to the best of each peer."""
    rows = [
        {
            "tool": track.contestant.tool,
            "setting": track.contestant.label,
            "trial": track.trial,
            "speeds": track.speeds,
            "error": track.error,
        }
        for track in tracks
    ]
    ratios = {}
    for track in tracks:
        if track.contestant.tool == "zhuyi" and track.speeds:
            found = {peer: winner for peer in peers if (winner := best(tracks, [peer]))}
            ratios[track.contestant.label] = {
                peer: dict(zip(("median", "least", "most"), ratio(track, winner), strict=True))
                for peer, winner in found.items()
            }
    winners = {tool: found.contestant.label for tool in ("zhuyi", *peers) if (found := best(tracks, [tool]))}
    return {"rows": rows, "best": winners, "ratios": ratios}
