"""Several processes train as one does with that accumulation."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
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

# How far a loss may be off in ten steps, of its own size, and a weight. In bfloat16 gradients are added up in float32,
# in whatever order: added up in bfloat16, losses would be off by 1e-4.
PRECISIONS = {"float32": 1e-4, "float64": 1e-10, "bfloat16": 2e-5}
MOVES = [(2, 1), (1, 2), (4, 2)]
IN_FLOAT32 = pytest.param("float32", marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    with launcher(tmp_path_factory.mktemp("launched")) as started:
        yield started


def recipe(folder: Path, accumulation: int, precision: str, sharding: str = "none") -> Path:
    settings = {"accumulation": accumulation, "precision": precision, "sharding": sharding}
    pairs = write_pairs(folder / "pairs.tsv", number_pairs(120))
    values = tiny_values(pairs, **settings, eval_every_steps=10, save_every_steps=4)
    values["model"]["dropout"] = 0.3
    return write_recipe(folder / f"{precision}-{accumulation}-{sharding}.toml", values)


RunOf = Callable[..., RunFolder]


@pytest.fixture(scope="module")
def run_of(launch: Launcher, tmp_path_factory: pytest.TempPathFactory) -> RunOf:
    """The run of so many processes that take so many batches a step, made when first asked for."""
    folder = tmp_path_factory.mktemp("processes")

    def made(precision: str, processes: int, micro_batches: int, sharding: str = "none") -> RunFolder:
        out = folder / f"{precision}-{processes}-{micro_batches}-{sharding}"
        if not out.exists():
            file = recipe(folder, micro_batches // processes, precision, sharding)
            command = ["train", str(file), "--out", str(out)]
            printed = launch.run(processes, command)
            assert [row["run"] for row in printed] == [str(out)]  # by the first process alone
        return RunFolder(out)

    return made


def losses(folder: RunFolder) -> dict[int, tuple[float, int]]:
    """Loss and tokens of each step as it was done last; every process must have noted the same."""
    noted: dict[int, tuple[float, int]] = {}
    for path in folder.path.glob("losses-*.txt"):
        rows = [line.split() for line in path.read_text().splitlines()]
        found = {int(step): (float(loss), int(tokens)) for step, loss, tokens in rows}
        assert all(noted.setdefault(step, row) == row for step, row in found.items())
    return noted


def assert_like(ours: RunFolder, theirs: RunFolder, precision: str) -> None:
    """Ten steps over the same batches came to the same losses and weights."""
    bound, one, other = PRECISIONS[precision], losses(ours), losses(theirs)
    assert sorted(one) == sorted(other) == list(range(1, 11))
    assert one[1][0] == pytest.approx(other[1][0], abs=min(1e-6, bound))
    for step, (loss, tokens) in one.items():
        assert (loss, tokens) == (pytest.approx(other[step][0], rel=bound), other[step][1])
    mine, yours = ours.read_checkpoint(10), theirs.read_checkpoint(10)
    assert mine.weights.keys() == yours.weights.keys() and mine.optimizer.keys() == yours.optimizer.keys()
    for name, weight in mine.weights.items():
        # A key's bias moves every score of a row alike: its gradient is nought but rounding, which Adam scales up.
        moment = mine.optimizer[f"{name}.exp_avg_sq"].sqrt()
        known = moment > 1e-5 * moment.max()
        assert float(known.double().mean()) > 0.4, name
        distance = (weight - yours.weights[name])[known].norm() / weight[known].norm()
        assert float(distance) <= bound, name
    for key in ("step", "epoch", "batch", "micro_batches"):
        assert mine.progress[key] == yours.progress[key], key


@pytest.mark.parametrize(
    ("processes", "micro_batches", "precision"),
    [
        *((2, 2, precision) for precision in PRECISIONS),
        (2, 4, "bfloat16"),
        (4, 4, "float64"),
        pytest.param(4, 4, "float32", marks=pytest.mark.slow),
    ],
)
def test_several_processes_are_one_that_accumulates(
    run_of: RunOf, processes: int, micro_batches: int, precision: str
) -> None:
    assert_like(run_of(precision, 1, micro_batches), run_of(precision, processes, micro_batches), precision)


def killed_and_resumed(
    launch: Launcher, folder: Path, precision: str, before: int, after: int, sharding: str = "none"
) -> RunFolder:
    """A run whose processes were killed in step 7 and gone on with by others."""
    file = recipe(folder, max(before, after) // before, precision, sharding)
    run = RunFolder(folder / "run")
    launch.run(before, ["train", str(file), "--out", str(run.path)], die_at=7)
    assert run.checkpoint_steps() == [4]
    for rank in range(1, before):
        (run.path / f"losses-{rank}.txt").unlink()  # of steps that will be done again, by others
    launch.run(after, ["train", "--resume", "--out", str(run.path)])
    return run


@pytest.mark.parametrize("precision", ["float64", IN_FLOAT32])
@pytest.mark.parametrize(("before", "after"), MOVES)
def test_a_killed_run_is_gone_on_with_by_another_number_of_processes(
    launch: Launcher, run_of: RunOf, tmp_path: Path, precision: str, before: int, after: int
) -> None:
    """The checkpoint says which batches a step takes, whoever computes them."""
    folder = killed_and_resumed(launch, tmp_path, precision, before, after)
    assert_like(run_of(precision, 1, max(before, after)), folder, precision)


@pytest.mark.parametrize("precision", ["float64", "bfloat16", IN_FLOAT32])
def test_shards_train_as_whole_weights_do(run_of: RunOf, precision: str) -> None:
    """And the checkpoint is of the form that one process writes."""
    one, two = run_of(precision, 1, 2), run_of(precision, 2, 2, "full")
    assert_like(one, two, precision)
    mine, yours = one.read_checkpoint(10), two.read_checkpoint(10)
    for ours, theirs in ((mine.weights, yours.weights), (mine.optimizer, yours.optimizer)):
        assert {name: (value.shape, value.dtype) for name, value in ours.items()} == {
            name: (value.shape, value.dtype) for name, value in theirs.items()
        }
    for metric in ("valid_loss", "bleu", "chrf"):
        assert one.read_metrics()[-1][metric] == pytest.approx(two.read_metrics()[-1][metric], rel=1e-4)


def test_each_process_holds_its_shard_alone(run_of: RunOf) -> None:
    def held(folder: RunFolder) -> list[int]:
        return [int(path.read_text()) for path in sorted(folder.path.glob("held-*.txt"))]

    (everything,) = held(run_of("float64", 1, 2))
    shards = held(run_of("float64", 2, 2, "full"))
    tensors = len(run_of("float64", 1, 2).read_checkpoint(10).weights)
    assert len(shards) == 2 and max(shards) < everything // 2 + 200
    assert sum(shards) == everything + tensors  # the step counts are in both


@pytest.mark.parametrize(
    ("precision", "before", "after"),
    [
        ("float64", 2, 1),
        ("float64", 1, 2),
        *(
            pytest.param(precision, *move, marks=pytest.mark.slow)
            for precision, *move in [("float64", 4, 2), ("float64", 2, 2), ("float32", 2, 1), ("float32", 1, 2)]
        ),
    ],
)
def test_shards_are_gone_on_with_by_another_number_of_processes(
    launch: Launcher, run_of: RunOf, tmp_path: Path, precision: str, before: int, after: int
) -> None:
    folder = killed_and_resumed(launch, tmp_path, precision, before, after, "full")
    assert_like(run_of(precision, 1, max(before, after)), folder, precision)


def test_a_step_that_cannot_be_shared_evenly_is_refused(launch: Launcher, run_of: RunOf, tmp_path: Path) -> None:
    shutil.copytree(run_of("float64", 1, 4).path, tmp_path / "run")
    with pytest.raises(RuntimeError, match=r"takes 4 micro-batches a step, .* 3 processes .*; resume with 1, 2 or 4"):
        launch.run(3, ["train", "--resume", "--out", str(tmp_path / "run")])


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
