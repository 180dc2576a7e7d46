"""Several processes train as one does with that accumulation."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.launching import Launcher, launcher
from tests.tiny import number_pairs, tiny_values, write_pairs, write_recipe

from zhuyi.run_folder import RunFolder

pytestmark = [
    pytest.mark.skipif(
        not (torch.distributed.is_available() and hasattr(os, "fork")), reason="needs fork and torch.distributed"
    ),
    pytest.mark.timeout(1200),
]

PRECISIONS = {"float32": 1e-4, "float64": 1e-10}


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    with launcher(tmp_path_factory.mktemp("launched")) as started:
        yield started


def recipe(folder: Path, accumulation: int, precision: str) -> Path:
    pairs = write_pairs(folder / "pairs.tsv", number_pairs(120))
    values = tiny_values(pairs, accumulation=accumulation, precision=precision, eval_every_steps=10, save_every_steps=4)
    values["model"]["dropout"] = 0.3
    return write_recipe(folder / f"{precision}-{accumulation}.toml", values)


@pytest.fixture(scope="module")
def runs(launch: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one process that accumulates two batches, and of two processes with one each, in both precisions."""
    folder = tmp_path_factory.mktemp("processes")
    for processes in (1, 2):
        for precision in PRECISIONS:
            out = folder / f"{precision}-{processes}"
            command = ["train", str(recipe(folder, 2 // processes, precision)), "--out", str(out)]
            printed = launch.run(processes, command)
            assert [row["run"] for row in printed] == [str(out)]  # by the first process alone
    return folder


def losses(folder: RunFolder) -> list[tuple[int, float, int]]:
    """Step, loss and tokens; every process must have noted the same."""
    noted = [path.read_text().splitlines() for path in sorted(folder.path.glob("losses-*.txt"))]
    assert all(lines == noted[0] for lines in noted)
    rows = [line.split() for line in noted[0]]
    return [(int(step), float(loss), int(tokens)) for step, loss, tokens in rows]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_two_processes_are_one_that_accumulates(runs: Path, precision: str) -> None:
    one, two = (RunFolder(runs / f"{precision}-{processes}") for processes in (1, 2))
    first, second = losses(one), losses(two)
    assert len(first) == len(second) == 10
    assert [(step, tokens) for step, _, tokens in first] == [(step, tokens) for step, _, tokens in second]
    assert first[0][1] == pytest.approx(second[0][1], abs=1e-6)
    ours, theirs = one.read_checkpoint(10), two.read_checkpoint(10)
    assert ours.weights.keys() == theirs.weights.keys() and ours.optimizer.keys() == theirs.optimizer.keys()
    for name, weight in ours.weights.items():
        # A key's bias moves every score of a row alike: its gradient is nought but rounding, which Adam scales up.
        moment = ours.optimizer[f"{name}.exp_avg_sq"].sqrt()
        known = moment > 1e-5 * moment.max()
        assert float(known.double().mean()) > 0.4, name
        distance = (weight - theirs.weights[name])[known].norm() / weight[known].norm()
        assert float(distance) <= PRECISIONS[precision], name
    for key in ("step", "epoch", "batch", "micro_batches"):
        assert ours.progress[key] == theirs.progress[key], key


def test_processes_join_once_for_all_their_trainings(launch: Launcher, tmp_path: Path) -> None:
    """A second group in the same processes waited, now and then for ever, for the first one's peers."""
    file = str(recipe(tmp_path, 1, "float32"))
    commands = [["train", file, "--set", "train.max_steps=1", "--out", str(tmp_path / name)] for name in "ab"]
    printed = launch.run(2, *commands)
    assert [row["run"] for row in printed] == [str(tmp_path / name) for name in "ab"]
    assert [launch.joined(rank) for rank in range(2)] == [1, 1]


def test_torchrun_starts_them(tmp_path: Path) -> None:
    """The command of the documents."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "zhuyi"),
        *("train", str(recipe(tmp_path, 1, "float32")), "--set", "train.max_steps=1", "--out", str(tmp_path / "run")),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["run"] for line in done.stdout.splitlines()] == [str(tmp_path / "run")]
    assert RunFolder(tmp_path / "run").read_checkpoint(1).progress["micro_batches"] == 2


def test_a_run_of_two_processes_is_gone_on_with_by_one(runs: Path, launch: Launcher) -> None:
    """The checkpoint says how many batches a step takes, whoever computes them."""
    two = RunFolder(runs / "float64-2")
    config = json.loads(two.config_path.read_text(encoding="utf-8"))
    config["train"]["max_steps"] = 12
    two.config_path.write_text(json.dumps(config), encoding="utf-8")
    launch.run(1, ["train", "--resume", "--out", str(two.path)])
    assert two.read_checkpoint(12).progress["micro_batches"] == 2
