"""`kill -9` at any moment, `zhuyi train --resume`, and the final weights are those of the run never killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import command, number_pairs, tiny_values, write_pairs, write_recipe

pytestmark = [pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"), pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]

# Each life is a process of its own, forked from one that has all imports behind it; it dies of a true SIGKILL, either
# before its file operation of the given number or after some seconds. No pictures and no TensorBoard: they take longer
# than the training.
LIVES = """
import json, os, signal, sys, time
sys.modules["torch.utils.tensorboard"] = None
import sacrebleu, torch._dynamo, torch.distributed.tensor  # what a first step would import
import zhuyi.training.start
from zhuyi.cli import main
from zhuyi.training.run_log import RunLog
from tests.killing import DEATH

RunLog.draw_curves = lambda log: None
DEATH.die = lambda: os.kill(os.getpid(), signal.SIGKILL)

def live(arguments, folder, operation, report):
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(report + name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    sys.argv = ["zhuyi", *arguments]
    status = 1
    try:
        with DEATH.before(operation, folder):
            main()
    except SystemExit as exit:
        status = exit.code
        open(report + "count", "w").write(str(DEATH.count))
    finally:
        os._exit(status)

for line in sys.stdin:
    request = json.loads(line)
    seconds = request.pop("seconds")
    child = os.fork()
    if child == 0:
        live(**request)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Lives:
    """Trainings that are killed, one after the other."""

    def __init__(self, folder: Path) -> None:
        self._report = str(folder / "report-")
        self._process = subprocess.Popen(
            [sys.executable, "-c", LIVES],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )
        self._recipe = folder / "recipe.toml"

    def train(self, out: Path, *, operation: int = 10**9, seconds: float | None = None) -> int:
        """One life; returns its exit status, -9 for one that was killed."""
        assert self._process.stdin and self._process.stdout
        # Where there is a run already, its own config is enough.
        recipe = [] if (out / "config.json").exists() else [str(self._recipe)]
        request: dict[str, Any] = {
            "arguments": ["train", *recipe, "--resume", "--out", str(out)],
            "folder": str(out),
            "operation": operation,
            "report": self._report,
            "seconds": seconds,
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def count(self) -> int:
        """How many file operations the last life took."""
        return int(Path(self._report + "count").read_text())

    def errors(self) -> str:
        return Path(self._report + "err").read_text(encoding="utf-8")

    def end(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def write_the_recipe(folder: Path) -> Path:
    values = tiny_values(
        write_pairs(folder / "pairs.tsv", number_pairs(80, digits=(1, 2, 3))),
        max_steps=8,
        eval_every_steps=3,
        save_every_steps=2,
        accumulation=2,
        average="last",
        average_checkpoints=3,
    )
    values["data"]["valid_size"] = 3
    values["data"]["tokenizer"] = {"kind": "unigram", "vocab_size": 90, "joint": False}
    values["model"]["tie_embeddings"] = "decoder"
    return write_recipe(folder / "recipe.toml", values)


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lives]:
    folder = tmp_path_factory.mktemp("lives")
    write_the_recipe(folder)
    lives = Lives(folder)
    yield lives
    lives.end()


@pytest.fixture(scope="module")
def unkilled(lives: Lives, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, float]:
    """The run that nothing disturbed, its file operations and its seconds."""
    out = tmp_path_factory.mktemp("unkilled") / "run"
    started = time.monotonic()
    assert lives.train(out) == 0, lives.errors()
    return out, lives.count(), time.monotonic() - started


def assert_same_run(out: Path, wanted: Path) -> None:
    names = ["config.json", "tokenizer.source.json", "tokenizer.target.json", "cache/train.arrow", "cache/valid.arrow"]
    for name in (*names, "model.safetensors"):
        assert (out / name).read_bytes() == (wanted / name).read_bytes(), name
    rows = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (out, wanted)]
    for key in ("step", "train_loss", "valid_loss", "bleu", "chrf"):
        assert [row[key] for row in rows[0]] == [row[key] for row in rows[1]], key
    leftovers = [path for path in out.rglob("*") if "unfinished" in path.name]
    assert not leftovers, leftovers
    kept = [sorted(path.relative_to(run) for path in run.glob("checkpoints/*/*")) for run in (out, wanted)]
    assert kept[0] == kept[1]


@pytest.mark.parametrize("place", ["preparing", "training", "ending"])
def test_killed_once(lives: Lives, unkilled: tuple[Path, int, float], tmp_path: Path, place: str) -> None:
    wanted, operations, _ = unkilled
    share = {"preparing": (0.0, 0.25), "training": (0.3, 0.9), "ending": (0.97, 1.0)}[place]
    rng = random.Random(place)
    operation = rng.randint(1 + round(share[0] * operations), round(share[1] * operations))
    assert lives.train(tmp_path / "run", operation=operation) == -signal.SIGKILL
    assert lives.train(tmp_path / "run") == 0, lives.errors()
    assert_same_run(tmp_path / "run", wanted)


def test_killed_again_and_again(lives: Lives, unkilled: tuple[Path, int, float], tmp_path: Path) -> None:
    """Before random file operations and after random times by turns."""
    wanted, operations, seconds = unkilled
    rng = random.Random(7)
    for kill in range(6):
        if kill % 2:
            status = lives.train(tmp_path / "run", seconds=rng.uniform(0, 0.6 * seconds))
        else:
            status = lives.train(tmp_path / "run", operation=rng.randint(1, operations // 2))
        assert status in (-signal.SIGKILL, 0), lives.errors()  # the last ones may come too late
    assert lives.train(tmp_path / "run") == 0, lives.errors()
    assert_same_run(tmp_path / "run", wanted)


@pytest.mark.slow
def test_killed_at_every_tenth_operation(lives: Lives, unkilled: tuple[Path, int, float], tmp_path: Path) -> None:
    wanted, operations, _ = unkilled
    for operation in range(1, operations, 10):
        out = tmp_path / str(operation)
        assert lives.train(out, operation=operation) == -signal.SIGKILL
        assert lives.train(out) == 0, lives.errors()
        assert_same_run(out, wanted)


@pytest.mark.slow
def test_twenty_kills_of_the_command(tmp_path: Path) -> None:
    """The command itself, imports and all; the whole of a run is about as long as five lives."""
    recipe = write_the_recipe(tmp_path)
    changes = ["--set", "train.max_steps=60"]
    started = time.monotonic()
    subprocess.run(command("train", recipe, "--out", tmp_path / "unkilled", *changes), check=True, capture_output=True)
    seconds = time.monotonic() - started
    rng, out = random.Random(20), tmp_path / "killed"
    for _ in range(20):
        resume = ["--resume"] if (out / "config.json").exists() else [recipe, *changes]
        process = subprocess.Popen(
            command("train", *resume, "--out", out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(timeout=rng.uniform(0.2, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
        process.wait()
    subprocess.run(command("train", "--resume", "--out", out), check=True, capture_output=True)
    assert_same_run(out, tmp_path / "unkilled")
