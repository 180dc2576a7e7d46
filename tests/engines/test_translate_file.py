"""A file by several workers, as a person runs it: the text of a single process, whoever is killed on the way."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.tiny import number_pairs, random_run

import zhuyi

WINDOW_TEXTS = 8
LINES = [*(source for source, _ in number_pairs(236, digits=(1, 3, 5, 8), seed=8)), "", "。", "x\u2028y", "a\tb"]
# The command with small windows; it hears Ctrl-C also where the tests run in the background, who ignore it.
COMMAND = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    f"import zhuyi.data.windows as w; w.WINDOW_TEXTS = {WINDOW_TEXTS}; from zhuyi.cli import main; main()"
)
ENGINES = [
    "local",
    pytest.param(
        "ray", marks=[pytest.mark.ray, pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")]
    ),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_run(tmp_path_factory.mktemp("run") / "random").path


@pytest.fixture(scope="module")
def wanted(run: Path) -> str:
    """What a single process writes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zhuyi.data.windows.WINDOW_TEXTS", WINDOW_TEXTS)
        return "".join(each.text + "\n" for each in zhuyi.load(run).translate(LINES, beam=2))


@pytest.fixture
def start(run: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Begin to translate `in.txt` to `out.txt`."""
    (tmp_path / "in.txt").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    begun: list[subprocess.Popen[str]] = []

    def begin(*options: str) -> subprocess.Popen[str]:
        files = ("--input", str(tmp_path / "in.txt"), "--output", str(tmp_path / "out.txt"))
        usual = ("--beam", "2", "--precision", "float32")
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", COMMAND, "translate", str(run), *files, *usual, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        begun.append(process)
        return process

    yield begin
    for process in begun:
        process.kill()
        process.communicate()
        for session in Path("/tmp").glob(f"zhuyi-ray-*/r/session_*_{process.pid}"):  # of a Ray that was killed
            shutil.rmtree(session.parents[1])


def finished_shards(folder: Path) -> dict[str, int]:
    """When each was written."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "out.txt.shards").glob("*.txt")}


def wait_for(happened: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    while not happened():
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.01)


def processes_below(process: subprocess.Popen[str]) -> dict[int, bytes]:
    """The command line of each."""
    parents, lines = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # it has just ended
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                lines[int(folder.name)] = (folder / "cmdline").read_bytes()

    def is_below(pid: int) -> bool:
        return parents.get(pid) == process.pid or (pid in parents and is_below(parents[pid]))

    return {pid: line for pid, line in lines.items() if is_below(pid)}


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """The translating processes below this one."""
    return [pid for pid, line in processes_below(process).items() if b"spawn_main" in line or b"ray::RayWorker" in line]


def addresses_listened_at(process: subprocess.Popen[str]) -> set[str]:
    """By this process and all below it, as the kernel writes them."""
    sockets = set()
    for pid in (process.pid, *processes_below(process)):
        with contextlib.suppress(OSError):
            sockets |= {os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir()}
    found = set()
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, address, _, state, *rest = row.split()
            if state == "0A" and f"socket:[{rest[5]}]" in sockets:
                found.add(address.partition(":")[0])
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers by /proc")
@pytest.mark.parametrize("engine", ENGINES)
def test_killed_and_begun_again_it_is_the_text_of_one_process(
    engine: str, start: Callable[..., subprocess.Popen[str]], wanted: str, tmp_path: Path
) -> None:
    options = ("--engine", engine, "--workers", "2")
    (tmp_path / "out.txt").write_text("precious")

    first = start(*options)
    wait_for(lambda: len(finished_shards(tmp_path)) >= 6, first)
    workers = workers_of(first)
    assert len(workers) == 2
    # 127.0.0.1, and the same in the other table.
    assert addresses_listened_at(first) <= {"0100007F", "0000000000000000FFFF00000100007F"}
    first.kill()
    wait_for(lambda: not any(map(is_alive, workers)))
    kept = finished_shards(tmp_path)
    assert 6 <= len(kept) < len(LINES) // WINDOW_TEXTS
    assert (tmp_path / "out.txt").read_text() == "precious"

    second = start(*options)
    wait_for(lambda: len(finished_shards(tmp_path)) >= len(kept) + 6, second)
    assert kept.items() <= finished_shards(tmp_path).items()  # none of them done again
    os.kill(workers_of(second)[0], signal.SIGKILL)
    printed, said = second.communicate(timeout=120)
    assert second.returncode == 0, said
    assert printed == ""
    assert f"{len(kept)} shards in {tmp_path / 'out.txt.shards'} are finished already" in said
    assert "trying once more" in said and "tried twice" not in said

    assert (tmp_path / "out.txt").read_bytes() == wanted.encode()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.txt", "out.txt"]


def test_ctrl_c_stops_all_quietly(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("\n".join(40 * LINES), encoding="utf-8")  # more than it can finish meanwhile
    process = start("--workers", "1")
    wait_for(lambda: finished_shards(tmp_path), process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the command and its workers
    printed, said = process.communicate(timeout=120)
    assert (process.returncode, printed) == (130, "")
    assert "stopped; the same command goes on from the finished shards" in said
    assert "Traceback" not in said and "trying once more" not in said
    assert finished_shards(tmp_path)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_a_worker_finds_wrong_is_one_line(
    engine: str, start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = start("--engine", engine, "--workers", "1", "--precision", "float8")
    printed, said = process.communicate(timeout=120)
    assert (process.returncode, printed) == (2, "")
    (error,) = (line for line in said.splitlines() if line.startswith("error:"))
    assert "precision is float8" in error
    assert "Traceback" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.txt"]
