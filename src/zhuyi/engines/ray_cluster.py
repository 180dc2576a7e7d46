"""Workers as actors of Ray, on one machine or on many (extra `ray`).

Ray's actors and not Ray Data, which would read the input in blocks of bytes, in tasks of its own, from a file system
that all machines share. Here the command reads it, cuts it at the windows' bounds, holds no more of it than there are
workers and writes each shard when it comes; machines need zhuyi and nothing else, and one loop serves processes and
Ray alike.
"""

import contextlib
import os
import re
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from zhuyi.engines.work import Job, Outcome, Worker, WorkerFailed, one_line
from zhuyi.errors import InputError

_STORE_BYTES = 128 * 2**20  # of a Ray started here, for windows and lines; the run's files come on top of it
_SECONDS = 10  # for an address to answer


@contextlib.contextmanager
def ray_workers(job: Job, files: Sequence[Path], count: int | None, address: str | None) -> Iterator["RayWorkers"]:
    """Workers on the Ray at `address`, else on one that is started here and ends with this.

    Raises: InputError: Ray is not installed, does not answer, or has not enough cores.
    """
    size = sum(path.stat().st_size for path in files)
    with _running_ray(address) if address else _ray_started_here(count or 1, 2 * size + _STORE_BYTES) as ray:
        machines = [Machine.of(node["Resources"]) for node in ray.nodes() if node["Alive"]]
        workers = RayWorkers(ray, job, files, share_out(machines, count))
        try:
            yield workers
        finally:
            workers.end()


@dataclass(frozen=True)
class Machine:
    """What a machine, or a worker, has."""

    cores: int
    gpus: int

    @classmethod
    def of(cls, resources: dict[str, float]) -> "Machine":
        return cls(int(resources.get("CPU", 0)), int(resources.get("GPU", 0)))


@dataclass(frozen=True)
class Share:
    """How many workers there are, and what each one has."""

    count: int
    each: Machine


def share_out(machines: Sequence[Machine], count: int | None) -> Share:
    """Give each worker as many cores as leave room for all, and a GPU where there are enough of them.

    Args:   count: of workers; where not given, one for each GPU, or for each machine if there is none.
    Raises: InputError: there are fewer cores than workers.
    """
    all_gpus = sum(machine.gpus for machine in machines)
    count = count or all_gpus or max(1, sum(machine.cores > 0 for machine in machines))
    gpus = 1 if count <= all_gpus else 0

    def room(cores: int) -> int:
        places = (machine.cores // cores for machine in machines)
        return sum(min(n, machine.gpus) if gpus else n for n, machine in zip(places, machines, strict=True))

    for cores in range(max((machine.cores for machine in machines), default=0), 0, -1):
        if room(cores) >= count:
            return Share(count, Machine(cores, gpus))
    raise InputError(f"--workers {count}: this Ray has room for {room(1)}; ask for no more")


class RayWorkers:
    """An actor at each place; the run's files travel to them through Ray's object store."""

    def __init__(self, ray: Any, job: Job, files: Sequence[Path], share: Share) -> None:
        self.count = share.count
        self._ray = ray
        self._job = replace(job, threads=share.each.cores, device="cuda" if share.each.gpus else "cpu")
        self._contents = ray.put({path.name: path.read_bytes() for path in files})
        # Ray is not to begin a worker or a task again by itself: who hands out windows counts the failures.
        self._actor_class = ray.remote(RayWorker).options(
            num_cpus=share.each.cores, num_gpus=share.each.gpus, max_restarts=0, max_task_retries=0
        )
        self._actors: dict[int, Any] = {}
        self._places: dict[Any, int] = {}  # by what is awaited there

    def start(self, place: int) -> None:
        self._end(place)
        self._actors[place] = actor = self._actor_class.remote(self._job, self._contents)
        self._places[actor.load.remote()] = place

    def send(self, place: int, texts: list[str]) -> None:
        self._places[self._actors[place].translate.remote(texts)] = place

    def receive(self) -> tuple[int, Outcome]:
        (done, *_), _ = self._ray.wait(list(self._places), num_returns=1)
        place = self._places.pop(done)
        errors = self._ray.exceptions
        try:
            return place, self._ray.get(done)
        except errors.RayTaskError as error:  # raised by our code over there; the message is all of its traceback
            return place, error.cause if isinstance(error.cause, InputError) else WorkerFailed(one_line(error.cause))
        except errors.RayError as error:
            first, *_, last = [*str(error).strip().splitlines(), ""]
            return place, WorkerFailed(f"{type(error).__name__}: {first} {last}".strip())

    def end(self) -> None:
        for place in list(self._actors):
            self._end(place)

    def _end(self, place: int) -> None:
        if actor := self._actors.pop(place, None):
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.kill(actor)


class RayWorker:
    """A worker as an actor of Ray, made from the contents of the run's files."""

    def __init__(self, job: Job, contents: dict[str, bytes]) -> None:
        self._job, self._contents = job, contents
        self._worker: Worker | None = None

    def load(self) -> None:
        with tempfile.TemporaryDirectory(prefix="zhuyi-") as folder:
            for name, content in self._contents.items():
                (Path(folder) / name).write_bytes(content)
            try:
                self._worker = Worker(replace(self._job, run=folder))
            except InputError as error:
                raise InputError(str(error).replace(folder, self._job.run)) from None
        self._contents = {}

    def translate(self, texts: list[str]) -> list[str]:
        assert self._worker is not None
        return self._worker.translate(texts)


@contextlib.contextmanager
def _ray_started_here(count: int, store_bytes: int) -> Iterator[Any]:
    """A Ray of this machine alone: it listens to nobody else, reports to nobody, and leaves nothing behind."""
    # Ray's sockets have their place below, and the path of a socket may have a hundred characters. Ray opens its own
    # folder to everybody; the one around it is ours alone.
    folder = tempfile.mkdtemp(prefix="zhuyi-ray-", dir="/tmp" if os.path.isdir("/tmp") else None)
    settings = {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux too: bind to the loopback address, not to all of them
        "RAY_AUTH_MODE": "token",  # other users of this machine reach the loopback address as well
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    try:
        with _ray_with(settings) as ray:
            ray.init(
                "local",
                num_cpus=max(count, torch.get_num_threads()),
                object_store_memory=store_bytes,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                _temp_dir=f"{folder}/r",
            )
            yield ray
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _running_ray(address: str) -> Iterator[Any]:
    if not (match := re.fullmatch(r"(.+):(\d+)", address)):
        raise InputError(f"--address {address}: expected HOST:PORT, such as 10.0.0.5:6379")
    # Ray would ask for a quarter of an hour before it says that nothing answers.
    with _ray_with({"RAY_NUM_REDIS_GET_RETRIES": "1"}) as ray:
        host, port = match[1].strip("[]"), int(match[2])
        try:
            # By a loopback address Ray understands this machine's address among the others.
            is_here = socket.gethostbyname(host).startswith("127.")
            socket.create_connection((ray.util.get_node_ip_address() if is_here else host, port), _SECONDS).close()
            ray.init(address, log_to_driver=False, logging_level="ERROR")
        except Exception as error:  # Ray's are of many classes, some of them bare
            raise InputError(f"--address {address}: no Ray to be joined there ({one_line(error)})") from None
        yield ray


@contextlib.contextmanager
def _ray_with(settings: dict[str, str]) -> Iterator[Any]:
    """Ray, imported under these settings; shut down at the end."""
    settings = {**settings, "RAY_USAGE_STATS_ENABLED": "0"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        try:
            import ray
        except ImportError:
            raise InputError('--engine ray needs Ray, which is not here: pip install "zhuyi[ray]"') from None
        try:
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # Ray says there who has died
                yield ray
        finally:
            ray.shutdown()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
