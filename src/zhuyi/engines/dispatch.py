"""One big file by several workers: windows handed out, failures tried again, shards joined in order."""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from zhuyi.atomic import check_file
from zhuyi.data import windows as cutting
from zhuyi.data.pairs import read_lines
from zhuyi.engines.processes import ProcessWorkers
from zhuyi.engines.shards import ShardFolder
from zhuyi.engines.work import Job, WorkerFailed, Workers, file_hashes
from zhuyi.errors import InputError
from zhuyi.machine import choose_translation_precision
from zhuyi.run_folder import find_run
from zhuyi.streams import count_lines, other_language, progress


@dataclass(frozen=True)
class Window:
    """Lines of the input that are translated together; the first window is 0, the first line 1."""

    number: int
    first_line: int
    texts: list[str]

    def __str__(self) -> str:
        return f"lines {self.first_line:,} to {self.first_line + len(self.texts) - 1:,}"


def translate_file(
    run: str,
    *,
    texts: list[str] | None,
    input_path: Path | None,
    output_path: Path | None,
    precision: str | None,
    as_json: bool,
    options: dict[str, Any],
    engine: str,
    num_workers: int | None,
    address: str | None,
    warn: Callable[[str], None],
) -> None:
    """Translate the input file to the output file by several workers; after a crash the same call goes on.

    Args:   engine: `local`, processes of this machine, or `ray`.
            num_workers: where not given one, and on Ray one for each GPU, or for each machine if there is none.
            address: HOST:PORT of a Ray that runs already.
    Raises: InputError: wrong input or usage.
            WorkerFailed: a window failed twice.
    """
    input_path, output_path = _check_usage(texts, input_path, output_path, engine, address)
    total = count_lines(str(input_path))
    folder = find_run(run)
    files = folder.needed_files()
    if precision == "auto" and address:  # nobody here knows those machines
        precision = "float32"
    elif precision == "auto":  # once for all workers
        precision = choose_translation_precision(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    job = Job(str(files[0].parent.resolve()), file_hashes(files), precision, options, as_json)
    before = os.stat(input_path)
    shards = ShardFolder(output_path, _origin(job, input_path))
    for first in islice(cut_into_windows(input_path), 1):
        if hint := other_language(folder.read_config().data, first.texts):
            warn(hint)
    if finished := shards.open():
        warn(f"{finished:,} shards in {shards.path} are finished already")
    with ExitStack() as stack:
        stack.callback(shards.remove_if_empty)
        workers = stack.enter_context(_workers(job, files, engine, num_workers, address))
        bar, row = progress(stack, f"translating in {precision or 'float32'}", total, shown=True)

        def unfinished() -> Iterator[Window]:
            for window in cut_into_windows(input_path):
                if shards.has(window.number):
                    bar.advance(row, len(window.texts))
                else:
                    yield window

        try:
            for window, lines in translate_windows(workers, unfinished(), warn):
                shards.write(window.number, lines)
                bar.advance(row, len(lines))
        except KeyboardInterrupt:
            warn(f"stopped; the same command goes on from the finished shards in {shards.path}")
            raise
    after = os.stat(input_path)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise InputError(f"{input_path} changed while it was translated; remove {shards.path} and start over")
    shards.join()


def translate_windows(
    workers: Workers, cut: Iterator[Window], warn: Callable[[str], None]
) -> Iterator[tuple[Window, list[str]]]:
    """Have every window translated, and give each when it is done; at any time no more are held than workers.

    Raises: InputError: a worker says that the input or the usage is wrong.
            WorkerFailed: a window failed twice, or a worker could not be started twice in a row.
    """
    waiting = deque(islice(cut, workers.count))
    for place in range(len(waiting)):  # no more workers than windows
        workers.start(place)
    held: dict[int, Window] = {}
    idle: list[int] = []
    failures: Counter[str] = Counter()
    while waiting or held:
        place, outcome = workers.receive()
        if isinstance(outcome, InputError):
            raise outcome
        window = held.pop(place, None)
        what = str(window or f"the start of worker {place + 1}")
        if isinstance(outcome, WorkerFailed):
            _count_failure(failures, what, outcome, warn)
            if window:
                waiting.append(window)
            idle = [other for other in idle if other != place]
            workers.start(place)
        else:
            failures.pop(what, None)
            idle.append(place)
        if idle and (following := waiting.popleft() if waiting else next(cut, None)):
            held[idle[-1]] = following
            workers.send(idle.pop(), following.texts)
        if window and isinstance(outcome, list):
            yield window, outcome


def _count_failure(failures: Counter[str], what: str, failure: WorkerFailed, warn: Callable[[str], None]) -> None:
    failures[what] += 1
    if failures[what] == 2:
        raise WorkerFailed(f"{what}, tried twice: {failure}; the same command goes on from the finished shards")
    warn(f"{what}: {failure}; trying once more")


def cut_into_windows(path: Path) -> Iterator[Window]:
    """The windows of a file, the same for every engine."""
    first_line = 1
    for number, texts in enumerate(cutting.windows(read_lines(str(path)))):
        yield Window(number, first_line, texts)
        first_line += len(texts)


def _check_usage(
    texts: list[str] | None, input_path: Path | None, output_path: Path | None, engine: str, address: str | None
) -> tuple[Path, Path]:
    if engine not in ("local", "ray"):
        raise InputError(f"--engine {engine}: choose local or ray")
    if address and engine != "ray":
        raise InputError("--address is that of a running Ray; give --engine ray too")
    if texts or input_path is None or output_path is None:
        raise InputError("several workers translate from a file to a file: give --input and --output, and no texts")
    check_file(output_path, input_path)
    if not input_path.is_file():
        raise InputError(f"{input_path}: no such file; several workers need a file, which is read twice")
    return input_path, output_path


def _origin(job: Job, input_path: Path) -> dict[str, Any]:
    """Everything that the output follows from: shards of another origin are of another output."""
    return {
        "zhuyi": job.version,
        "input": {"bytes": input_path.stat().st_size, "sha256": file_hashes([input_path])[input_path.name]},
        "run": dict(job.run_hashes),
        "options": {key: repr(value) for key, value in job.options.items()},
        "precision": job.precision,
        "jsonl": job.as_json,
        "window": [cutting.WINDOW_TEXTS, cutting.WINDOW_CHARACTERS],
    }


def _workers(
    job: Job, files: list[Path], engine: str, num_workers: int | None, address: str | None
) -> AbstractContextManager[Workers]:
    if engine == "ray":
        from zhuyi.engines.ray_cluster import ray_workers

        return ray_workers(job, files, num_workers, address)
    count = num_workers or 1
    threads = max(1, torch.get_num_threads() // count)
    return ProcessWorkers(replace(job, threads=threads), count, num_gpus=torch.cuda.device_count())
