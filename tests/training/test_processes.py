"""Several processes train as one does with that accumulation."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import number_pairs, tiny_values, write_pairs, write_recipe

from zhuyi.run_folder import RunFolder

pytestmark = [
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed"),
    pytest.mark.timeout(1200),
]

# The command, once for each list of arguments; it also writes each step's loss into the run. No pictures and no
# TensorBoard: they take longer than the training.
SCRIPT = """
import json, sys
sys.modules["torch.utils.tensorboard"] = None
from zhuyi.cli import main
from zhuyi.training.run_log import RunLog

step = RunLog.step

def noting(log, number, epoch, loss, rate, tokens):
    with open(log._folder.path / "losses.txt", "a") as file:
        file.write(f"{number} {loss!r} {tokens}\\n")
    step(log, number, epoch, loss, rate, tokens)

RunLog.step = noting
RunLog.draw_curves = lambda log: None
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as exit:
        assert not exit.code, exit.code
"""
PRECISIONS = {"float32": 1e-4, "float64": 1e-10}


def launch(folder: Path, processes: int, *commands: list[str]) -> list[dict[str, Any]]:
    """Run commands in so many processes; what they print, a line each."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [sys.executable, *(launcher if processes > 1 else []), str(script), json.dumps(commands)],
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def recipe(folder: Path, accumulation: int, precision: str) -> Path:
    pairs = write_pairs(folder / "pairs.tsv", number_pairs(120))
    values = tiny_values(pairs, accumulation=accumulation, precision=precision, eval_every_steps=10, save_every_steps=4)
    values["model"]["dropout"] = 0.3
    return write_recipe(folder / f"{precision}-{accumulation}.toml", values)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one process that accumulates two batches, and of two processes with one each, in both precisions."""
    folder = tmp_path_factory.mktemp("processes")
    for processes in (1, 2):
        commands = [
            ["train", str(recipe(folder, 2 // processes, precision)), "--out", str(folder / f"{precision}-{processes}")]
            for precision in PRECISIONS
        ]
        if processes == 1:
            printed = launch(folder, 1, *commands)
        else:  # a launch each: a second process group in the same processes can wait for the first one's peers
            printed = [row for command in commands for row in launch(folder, processes, command)]
        assert [row["run"] for row in printed] == [each[-1] for each in commands]  # by the first process alone
    return folder


def losses(folder: RunFolder) -> list[tuple[int, float, int]]:
    rows = [line.split() for line in (folder.path / "losses.txt").read_text().splitlines()]
    return sorted({(int(step), float(loss), int(tokens)) for step, loss, tokens in rows})


@pytest.mark.parametrize("precision", PRECISIONS)
def test_two_processes_are_one_that_accumulates(runs: Path, precision: str) -> None:
    one, two = (RunFolder(runs / f"{precision}-{processes}") for processes in (1, 2))
    first, second = losses(one), losses(two)
    assert len(first) == len(second) == 10  # and both processes of the second noted the same
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


def test_a_run_of_two_processes_is_gone_on_with_by_one(runs: Path, tmp_path: Path) -> None:
    """The checkpoint says how many batches a step takes, whoever computes them."""
    two = RunFolder(runs / "float64-2")
    config = json.loads(two.config_path.read_text(encoding="utf-8"))
    config["train"]["max_steps"] = 12
    two.config_path.write_text(json.dumps(config), encoding="utf-8")
    launch(tmp_path, 1, ["train", "--resume", "--out", str(two.path)])
    assert two.read_checkpoint(12).progress["micro_batches"] == 2
    tokens = [row[2] for row in losses(two)]
    assert len(tokens) == 12 and min(tokens[10:]) > max(tokens) / 3  # two batches, not one
