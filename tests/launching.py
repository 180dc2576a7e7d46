"""Trainings by several processes, forked from one that has all imports behind it; each training in processes anew."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

# A process notes in its run each step's loss and, at the end, how many numbers it holds of weights and moments; and how
# often it joined a group. No pictures and no TensorBoard: they take longer than the training.
FORKS = """
import atexit, json, os, signal, sys
sys.modules["torch.utils.tensorboard"] = None
import sacrebleu, torch._dynamo, torch.distributed as dist, torch.distributed.fsdp, torch.distributed.tensor
import zhuyi.training.start
from zhuyi.cli import main
from zhuyi.run_folder import named_weights
from zhuyi.training.loop import _Training
from zhuyi.training.run_log import RunLog

note_step, join, run = RunLog.step, dist.init_process_group, _Training.run

def append(path, line):
    with open(path, "a") as file:
        file.write(line + "\\n")

def live(commands, environment, report, die_at):
    for stream, name in ((1, ".out"), (2, ".err")):
        os.dup2(os.open(report + name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.environ.update(environment)

    def step(log, number, epoch, loss, rate, tokens):
        if number == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        append(log._folder.path / f"losses-{os.environ['RANK']}.txt", f"{number} {loss!r} {tokens}")
        note_step(log, number, epoch, loss, rate, tokens)

    def joining(*arguments, **options):
        append(report + ".joined", "joined")
        join(*arguments, **options)

    def running(training):
        scores = run(training)
        held = [*named_weights(training.model).values(), *training.optimizer.state().values()]
        numbers = sum((tensor.to_local() if hasattr(tensor, "to_local") else tensor).numel() for tensor in held)
        append(training.folder.path / f"held-{os.environ['RANK']}.txt", str(numbers))
        return scores

    RunLog.step, RunLog.draw_curves, dist.init_process_group = step, lambda log: None, joining
    _Training.run = running
    for arguments in commands:
        sys.argv = ["zhuyi", "--debug", *arguments]
        try:
            main()
        except SystemExit as exit:
            if exit.code:
                raise

def wait(children):
    statuses = {}
    while len(statuses) < len(children):
        child, status = os.wait()
        statuses[child] = os.waitstatus_to_exitcode(status)
        if statuses[child]:  # as torchrun does
            for other in set(children) - statuses.keys():
                os.kill(other, signal.SIGKILL)
    return [statuses[child] for child in children]

for line in sys.stdin:
    processes = json.loads(line)
    children = []
    for options in processes:
        children.append(os.fork())
        if children[-1] == 0:
            live(**options)
            atexit._run_exitfuncs()
            sys.stdout.flush()
            os._exit(0)  # taking down all that was imported would take longer than the training
    print(json.dumps(wait(children)), flush=True)
"""


class Launcher:
    """Runs `zhuyi` in so many processes at a time."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._report = folder / "process"

    def run(self, processes: int, *commands: list[str], die_at: int | None = None) -> list[dict[str, Any]]:
        """Run commands one after the other, each in all of the processes; what they print, a line each.

        Args:   die_at: a step in which every process is killed, before its end.
        Raises: RuntimeError: with what they said, if they did not end so.
        """
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
        requests = [
            {
                "commands": commands,
                "environment": {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                "report": self._path(rank),
                "die_at": die_at,
            }
            for rank in range(processes)
        ]
        for path in self._report.parent.glob("*.joined"):
            path.unlink()
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(requests) + "\n")
        self._process.stdin.flush()
        statuses = json.loads(self._process.stdout.readline())
        if set(statuses) != ({0} if die_at is None else {-9}):
            texts = [Path(f"{self._path(rank)}.err").read_text(encoding="utf-8") for rank in range(processes)]
            raise RuntimeError(
                "\n".join(f"status {status}: {text}" for status, text in zip(statuses, texts, strict=True))
            )
        texts = [Path(f"{self._path(rank)}.out").read_text(encoding="utf-8") for rank in range(processes)]
        return [json.loads(line) for text in texts for line in text.splitlines()]

    def joined(self, rank: int) -> int:
        """How often a process of the last run joined the others."""
        path = Path(f"{self._path(rank)}.joined")
        return len(path.read_text().splitlines()) if path.exists() else 0

    def _path(self, rank: int) -> str:
        return f"{self._report}-{rank}"


@contextmanager
def launcher(folder: Path) -> Iterator[Launcher]:
    """A launcher that keeps its processes' output in a folder."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", FORKS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)},
    )
    yield Launcher(process, folder)
    assert process.stdin and process.stdout
    process.stdin.close()
    process.stdout.close()
    process.wait()
