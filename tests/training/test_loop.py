"""The training loop: what it learns, where it stops, and that stopping anywhere changes nothing."""

import base64
import json
import math
import os
import signal
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.killing import Killed
from tests.tiny import SilentLog, number_pairs, tiny_config, tiny_values, train_tiny, write_pairs
from torch import Tensor, nn

from zhuyi.config import RunConfig, parse_config
from zhuyi.errors import InputError
from zhuyi.models import MODELS
from zhuyi.run_folder import RunFolder, named_weights, set_weights
from zhuyi.tasks.pair_data import PairBatch, PairBatches
from zhuyi.tasks.translation import TranslationTask
from zhuyi.training import loop
from zhuyi.training.loop import build_model, seed_step

METRICS = {"step", "minutes", "train_loss", "valid_loss", "learning_rate", "tokens_per_second", "bleu", "chrf"}
CLOCKS = {"minutes": 0, "seconds": 0}


def final_bytes(path: Path) -> bytes:
    return RunFolder(path).weights_path.read_bytes()


def timeless(path: Path) -> list[dict[str, Any]]:
    """The metrics without what a clock has written."""
    return [
        {key: value for key, value in row.items() if key not in ("minutes", "tokens_per_second")}
        for row in RunFolder(path).read_metrics()
    ]


def samples(path: Path) -> list[dict[str, Any]]:
    return RunFolder(path).read_samples()


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def on_call(number: int, act: Callable[[], None], method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that does something else first when it is called for the `number`th time."""
    calls = 0

    def wrapped(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            act()
        return method(*arguments, **options)

    return wrapped


def die() -> None:
    raise Killed


# What is learnt


def test_a_batch_is_learnt_by_heart(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.tsv", number_pairs(8))
    values = tiny_values(pairs, max_steps=60, eval_every_steps=60, label_smoothing=0.0, batch_tokens=1024)
    values["model"] |= {"dropout": 0.0, "norm_first": True}
    values["data"] |= {"valid": [str(pairs)], "tokenizer": {"kind": "bpe", "vocab_size": 120}}
    scores, _ = train_tiny(parse_config(values, "tiny"), tmp_path / "run")
    assert len(RunFolder(tmp_path / "run").read_metrics()) == 1
    assert scores["bleu"] == 100.0 and scores["valid_loss"] < 0.01
    assert not scores["interrupted"]


def test_valid_loss_is_the_mean_negative_log_likelihood_of_a_token(pairs_file: Path, tmp_path: Path) -> None:
    config = tiny_config(pairs_file, max_steps=5, label_smoothing=0.3)
    train_tiny(config, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    row = folder.read_metrics()[-1]
    assert row.keys() == METRICS
    config = folder.read_config()
    model = MODELS["transformer"].module(config.model).eval()
    set_weights(model, folder.read_checkpoint_weights(5), folder.path)
    task = TranslationTask.prepare(config.data, config.decode, folder.path, 64, 1, print)
    total, count = 0.0, 0
    for rows in task.batches("valid").order(0):
        batch = task.batches("valid").load(rows)
        log_probs = model(batch.src, batch.tgt, batch.src_mask, batch.tgt_mask).log_softmax(-1)
        for row_number, mask in enumerate(batch.tgt_mask):
            for place in range(int(mask.sum())):
                total -= float(log_probs[row_number, place, batch.expected[row_number, place]].detach())
                count += 1
    assert row["valid_loss"] == pytest.approx(total / count, rel=1e-5)


def test_what_is_measured_and_shown(pairs_file: Path, tmp_path: Path) -> None:
    _, log = train_tiny(tiny_config(pairs_file, schedule="linear"), tmp_path / "run")
    rows = RunFolder(tmp_path / "run").read_metrics()
    assert [row["step"] for row in rows] == [5, 10]
    assert all(row.keys() == METRICS for row in rows)
    assert rows[0]["learning_rate"] > rows[1]["learning_rate"] > 0
    assert 0 < rows[0]["minutes"] <= rows[1]["minutes"]
    assert rows[0]["train_loss"] > rows[1]["train_loss"] > 0
    shown = [message for message in log.said if "\n  → " in message and "\n  = " in message]
    assert len(shown) == 2 * 2  # two at each evaluation
    assert any("The largest batch" in message and "GiB" in message for message in log.said)


def test_what_is_written_and_looked_at_is_noted_at_each_evaluation(pairs_file: Path, tmp_path: Path) -> None:
    _, log = train_tiny(tiny_config(pairs_file), tmp_path / "run")
    first, second = samples(tmp_path / "run")
    assert (first["step"], second["step"]) == (5, 10)
    for row in (first, second):
        shown = [f"  {each['source']}\n  → {each['text']}\n  = {each['reference']}" for each in row["samples"]]
        assert len(shown) == 2 and all(message in log.said for message in shown)
    before, after = first["cross_attention"], second["cross_attention"]
    assert before["source"] == after["source"] and before["target"] == after["target"]  # the same words each time
    assert before["weights"] != after["weights"]
    weights = np.frombuffer(zlib.decompress(base64.b64decode(after["weights"])), np.uint8)
    rows = weights.reshape(len(after["target"]), len(after["source"]))
    assert np.allclose(rows.sum(axis=1) / 255, 1, atol=0.03)


def test_a_task_that_cannot_tell_where_it_looks_tells_what_it_writes(
    pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(TranslationTask, "cross_attention")
    monkeypatch.setattr(TranslationTask, "samples", lambda *_: [("长" * 700, "long", "\ud800\u2028")])
    train_tiny(tiny_config(pairs_file, max_steps=1), tmp_path / "run")
    (row,) = samples(tmp_path / "run")
    assert row == {"step": 1, "samples": [{"source": "长" * 599 + "…", "text": "long", "reference": "?\u2028"}]}


def test_evaluations_do_not_change_the_training(pairs_file: Path, tmp_path: Path) -> None:
    for every in (2, 5):
        train_tiny(tiny_config(pairs_file, eval_every_steps=every, average="none"), tmp_path / str(every))
    folders = [RunFolder(tmp_path / str(every)) for every in (2, 5)]
    assert same(*(folder.read_checkpoint(10).weights for folder in folders))


def test_the_trial_of_the_largest_batch_changes_nothing(
    pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_tiny(tiny_config(pairs_file), tmp_path / "tried")
    monkeypatch.setattr(loop._Training, "try_largest_batch", lambda training: None)
    train_tiny(tiny_config(pairs_file), tmp_path / "untried")
    assert final_bytes(tmp_path / "tried") == final_bytes(tmp_path / "untried")


def test_the_seed_decides(pairs_file: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_tiny(tiny_config(pairs_file, seed=seed, max_steps=2), tmp_path / name)
    a, b, c = (final_bytes(tmp_path / name) for name in "abc")
    assert a == b != c


def test_randomness_is_derived_from_seed_step_and_place() -> None:
    def draw(*place: int) -> float:
        seed_step(*place)
        return float(torch.rand(()))

    assert draw(1, 2, 3) == draw(1, 2, 3)
    assert len({draw(seed, step, i) for seed in range(3) for step in range(5) for i in range(4)}) == 60


# Sums and counts


@pytest.fixture
def halves(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Have every epoch be the longest and the shortest pairs, in so many batches."""

    def use(parts: int) -> None:
        def order(batches: PairBatches, epoch: int, *, shuffle: bool = True) -> list[np.ndarray]:
            rows = np.argsort(batches.corpus.lengths("target"), kind="stable")
            return np.array_split(np.concatenate([rows[:4], rows[-4:]]), parts)

        monkeypatch.setattr(PairBatches, "order", order)

    return use


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_two_half_batches_are_one_batch(
    pairs_file: Path, tmp_path: Path, halves: Callable[[int], None], smoothing: float
) -> None:
    for parts in (1, 2):
        halves(parts)
        values = tiny_values(
            pairs_file, max_steps=3, accumulation=parts, precision="float64", label_smoothing=smoothing, average="none"
        )
        values["model"]["dropout"] = 0.0
        train_tiny(parse_config(values, "tiny"), tmp_path / str(parts))
    one, two = (RunFolder(tmp_path / str(parts)).read_checkpoint_weights(3) for parts in (1, 2))
    for name, weight in one.items():
        torch.testing.assert_close(weight, two[name], rtol=1e-9, atol=1e-10)
    first, second = (RunFolder(tmp_path / str(parts)).read_metrics()[0]["train_loss"] for parts in (1, 2))
    assert first == pytest.approx(second, rel=1e-12)


def test_a_step_takes_as_many_batches_as_it_accumulates(
    pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    load = PairBatches.load

    def noting(batches: PairBatches, rows: np.ndarray) -> PairBatch:
        if len(batches) > 6:  # the training pairs
            seen.append(tuple(rows))
        return load(batches, rows)

    monkeypatch.setattr(PairBatches, "load", noting)
    train_tiny(tiny_config(pairs_file, max_steps=4, accumulation=3, batch_tokens=128), tmp_path / "run")
    task = TranslationTask.prepare(
        tiny_config(pairs_file).data, tiny_config(pairs_file).decode, tmp_path / "run", 128, 1, print
    )
    batches = task.batches("train")
    expected = [tuple(rows) for epoch in range(4) for rows in batches.order(epoch)]
    assert seen[1:] == expected[:12]  # the first was the trial of the largest


def test_dropout_differs_between_the_batches_of_a_step(
    pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = []
    loss = TranslationTask.loss

    def noting(task: TranslationTask, *arguments: Any, **options: Any) -> Any:
        if torch.is_grad_enabled():
            draws.append(torch.get_rng_state().numpy().tobytes())
        return loss(task, *arguments, **options)

    monkeypatch.setattr(TranslationTask, "loss", noting)
    train_tiny(tiny_config(pairs_file, max_steps=2, accumulation=2), tmp_path / "run")
    assert len(set(draws[1:])) == 4


# Where it ends


@pytest.mark.parametrize("accumulation", [1, 2])
def test_epochs_end_with_their_last_batch(pairs_file: Path, tmp_path: Path, accumulation: int) -> None:
    config = tiny_config(pairs_file, max_steps=0, max_epochs=2, accumulation=accumulation, eval_every_steps=1000)
    train_tiny(config, tmp_path / "run")
    task = TranslationTask.prepare(config.data, config.decode, tmp_path / "run", config.train.batch_tokens, 1, print)
    batches = sum(len(task.batches("train").order(epoch)) for epoch in range(2))
    folder = RunFolder(tmp_path / "run")
    assert [row["step"] for row in folder.read_metrics()] == [math.ceil(batches / accumulation)]


def test_minutes_count_over_all_lives(pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(pairs_file, max_steps=0, max_minutes=7.5, save_every_steps=1)
    clock = Clock(monkeypatch)
    monkeypatch.setattr(loop._Training, "_step", on_call(4, die, loop._Training._step))
    clock.minute_a_call(loop._Training, "_step")
    with pytest.raises(Killed):
        train_tiny(config, tmp_path / "run")
    clock.now += 1e6
    train_tiny(config, tmp_path / "run", resume=True)
    folder = RunFolder(tmp_path / "run")
    assert folder.checkpoint_steps()[-1] == 8
    assert folder.read_metrics()[-1]["minutes"] == pytest.approx(8, abs=0.01)


class Clock:
    """Stands still unless told to move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self._monkeypatch = monkeypatch
        monkeypatch.setattr("zhuyi.training.loop.time.monotonic", lambda: self.now)

    def minute_a_call(self, owner: type, name: str) -> None:
        method = getattr(owner, name)

        def wrapped(*arguments: Any) -> Any:
            result = method(*arguments)
            self.now += 60
            return result

        self._monkeypatch.setattr(owner, name, wrapped)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[float]], None]:
    """Have evaluations give these BLEUs, one after the other, then 0."""

    def use(scores: list[float]) -> None:
        left: Iterator[float] = iter(scores)

        def evaluate(task: TranslationTask, model: nn.Module) -> dict[str, float]:
            score = next(left, 0.0)
            return {"valid_loss": 10 - score, "bleu": score, "chrf": score}

        monkeypatch.setattr(TranslationTask, "evaluate", evaluate)

    return use


@pytest.mark.parametrize("monitor", ["bleu", "loss"])
def test_patience(pairs_file: Path, tmp_path: Path, scripted: Callable[[list[float]], None], monitor: str) -> None:
    scripted([1, 3, 2, 3, 2.5, 9, 9])
    config = tiny_config(pairs_file, eval_every_steps=1, patience=3, monitor=monitor, average="none")
    train_tiny(config, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    assert [row["step"] for row in folder.read_metrics()] == [1, 2, 3, 4, 5]
    assert same(folder.read_weights(), folder.read_checkpoint_weights(2))


def test_the_best_weights_are_there_from_the_first_evaluation_on(
    pairs_file: Path, tmp_path: Path, scripted: Callable[[list[float]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted([1, 3, 2])
    monkeypatch.setattr(loop._Training, "_finish", lambda training: die())
    with pytest.raises(Killed):
        train_tiny(tiny_config(pairs_file, max_steps=3, eval_every_steps=1), tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    assert same(folder.read_weights(), folder.read_checkpoint_weights(2))


def test_a_score_that_stands_still_halves_the_plateau(
    pairs_file: Path, tmp_path: Path, scripted: Callable[[list[float]], None]
) -> None:
    scripted([1, 1, 2, 0, 1])
    config = tiny_config(
        pairs_file, schedule="plateau", warmup_steps=1, learning_rate=0.008, eval_every_steps=1, max_steps=6
    )
    train_tiny(config, tmp_path / "run")
    rates = [row["learning_rate"] for row in RunFolder(tmp_path / "run").read_metrics()]
    assert rates == pytest.approx([0.008, 0.008, 0.004, 0.004, 0.002, 0.001])


def test_only_the_checkpoints_that_are_needed_stay(
    pairs_file: Path, tmp_path: Path, scripted: Callable[[list[float]], None]
) -> None:
    scripted([9, 1, 2, 3, 4])
    config = tiny_config(pairs_file, eval_every_steps=2, save_every_steps=1, average="last", average_checkpoints=2)
    train_tiny(config, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    assert folder.checkpoint_steps() == [2, 8, 10]
    with_optimizer = [path.parent.name for path in folder.checkpoints_path.glob("*/optimizer.safetensors")]
    assert with_optimizer == ["10"]  # the others are kept for their weights


# Stopping and going on

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"eval_every_steps": 4, "save_every_steps": 3},
    "accumulated": {"eval_every_steps": 5, "accumulation": 3, "batch_tokens": 100, "average": "last"},
    "bfloat16": {"eval_every_steps": 3, "precision": "bfloat16", "schedule": "plateau", "monitor": "loss"},
}


@pytest.fixture(scope="module")
def unkilled(pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The run of a variant that nothing disturbed, made when first asked for."""
    made: dict[str, Path] = {}

    def path_of(variant: str) -> Path:
        if variant not in made:
            made[variant] = tmp_path_factory.mktemp("unkilled") / variant
            train_tiny(tiny_config(pairs_file, **VARIANTS[variant]), made[variant])
        return made[variant]

    return path_of


@pytest.mark.parametrize(
    ("variant", "method", "number"),
    [
        ("plain", "_step", 1),
        ("plain", "_step", 3),  # before the first checkpoint
        ("plain", "_step", 6),
        ("plain", "_step", 10),
        ("plain", "_evaluate", 1),
        ("plain", "_save", 2),  # evaluated, but not saved: its line in metrics.jsonl is written again
        ("plain", "_finish", 1),
        ("accumulated", "_step", 6),
        ("bfloat16", "_step", 8),
    ],
)
def test_ten_steps_are_some_steps_and_a_resume_and_the_rest(
    pairs_file: Path,
    tmp_path: Path,
    unkilled: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    variant: str,
    method: str,
    number: int,
) -> None:
    config = tiny_config(pairs_file, **VARIANTS[variant])
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop._Training, method, on_call(number, die, getattr(loop._Training, method)))
        train_tiny(config, tmp_path / "run")
    train_tiny(config, tmp_path / "run", resume=True)
    assert_equal_runs(tmp_path / "run", unkilled(variant))


def assert_equal_runs(one: Path, other: Path) -> None:
    assert final_bytes(one) == final_bytes(other)
    assert timeless(one) == timeless(other)
    assert samples(one) == samples(other) != []
    assert RunFolder(one).checkpoint_steps() == RunFolder(other).checkpoint_steps()
    *kept, newest = RunFolder(one).checkpoint_steps()
    for step in kept:
        assert same(*(RunFolder(path).read_checkpoint_weights(step) for path in (one, other)))
    ours, theirs = RunFolder(one).read_checkpoint(newest), RunFolder(other).read_checkpoint(newest)
    assert same(ours.weights, theirs.weights) and same(ours.optimizer, theirs.optimizer)
    assert {**ours.progress, **CLOCKS} == {**theirs.progress, **CLOCKS}


def test_a_kill_before_the_last_thinning_leaves_nothing_behind(
    pairs_file: Path, tmp_path: Path, unkilled: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def files(path: Path) -> set[str]:
        return {str(file.relative_to(path)) for file in path.glob("checkpoints/*/*")}

    config = tiny_config(pairs_file, **VARIANTS["plain"])
    with monkeypatch.context() as patch, pytest.raises(Killed):
        # At the beginning, then after steps 3, 4, 6, 8, 9 and 10.
        patch.setattr(RunFolder, "thin_checkpoints", on_call(7, die, RunFolder.thin_checkpoints))
        train_tiny(config, tmp_path / "run")
    assert files(tmp_path / "run") > files(unkilled("plain"))
    train_tiny(config, tmp_path / "run", resume=True)
    assert files(tmp_path / "run") == files(unkilled("plain"))


@pytest.mark.parametrize("change", ["changed", "gone"])
def test_what_became_of_the_data_matters_until_the_first_checkpoint(
    pairs_file: Path,
    tmp_path: Path,
    unkilled: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    pairs = tmp_path / "pairs.tsv"
    config = tiny_config(pairs, **VARIANTS["plain"])
    for name, steps in (("early", 2), ("late", 5)):
        pairs.write_bytes(pairs_file.read_bytes())
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(loop._Training, "_step", on_call(steps, die, loop._Training._step))
            train_tiny(config, tmp_path / name)
    if change == "gone":
        pairs.unlink()
        with pytest.raises(InputError, match=r"cannot read .*pairs.tsv"):
            train_tiny(config, tmp_path / "early", resume=True)
    else:
        write_pairs(pairs, number_pairs(80, digits=(2, 3, 4), seed=5))
        train_tiny(config, tmp_path / "early", resume=True)
        train_tiny(config, tmp_path / "fresh")
        assert final_bytes(tmp_path / "early") == final_bytes(tmp_path / "fresh")
    train_tiny(config, tmp_path / "late", resume=True)
    assert final_bytes(tmp_path / "late") == final_bytes(unkilled("plain"))


def test_a_finished_run_resumed_stays_as_it_is(pairs_file: Path, unkilled: Callable[[str], Path]) -> None:
    path = unkilled("plain")
    before, metrics = final_bytes(path), RunFolder(path).metrics_path.read_bytes()
    scores, _ = train_tiny(RunFolder(path).read_config(), path, resume=True)
    assert final_bytes(path) == before
    assert RunFolder(path).metrics_path.read_bytes() == metrics
    best = max(timeless(path), key=lambda row: row["bleu"])
    assert scores["bleu"] >= best["bleu"]


def test_resume_without_a_run_starts_one(pairs_file: Path, tmp_path: Path, unkilled: Callable[[str], Path]) -> None:
    train_tiny(tiny_config(pairs_file, **VARIANTS["plain"]), tmp_path / "run", resume=True)
    assert_equal_runs(tmp_path / "run", unkilled("plain"))


def test_resume_goes_by_the_folders_config(pairs_file: Path, tmp_path: Path, unkilled: Callable[[str], Path]) -> None:
    config = tiny_config(pairs_file, **VARIANTS["plain"])
    RunFolder(tmp_path / "run").write_config(config)
    other = tiny_config("elsewhere.tsv", max_steps=2, seed=9)
    train_tiny(other, tmp_path / "run", resume=True)
    assert_equal_runs(tmp_path / "run", unkilled("plain"))


def test_a_used_folder_is_refused(pairs_file: Path, unkilled: Callable[[str], Path]) -> None:
    path = unkilled("plain")
    before = final_bytes(path)
    with pytest.raises(InputError, match=rf"{path} holds a run already; .*--resume --out {path}` or choose another"):
        train_tiny(tiny_config(pairs_file), path)
    assert final_bytes(path) == before


@pytest.mark.parametrize("step", [5, 8, 10], ids=["between", "with an evaluation", "the last"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_and_saves(
    pairs_file: Path,
    tmp_path: Path,
    unkilled: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    number: signal.Signals,
) -> None:
    config = tiny_config(pairs_file, **VARIANTS["plain"])
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        stop = on_call(step, lambda: os.kill(os.getpid(), number), loop._Training._step)
        patch.setattr(loop._Training, "_step", stop)
        scores, log = train_tiny(config, tmp_path / "run")
    assert scores == {"interrupted": True}
    assert f"Stopped at step {step}; go on with: zhuyi train --resume --out {tmp_path / 'run'}" in log.said
    assert RunFolder(tmp_path / "run").checkpoint_steps()[-1] == step
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    train_tiny(config, tmp_path / "run", resume=True)
    assert final_bytes(tmp_path / "run") == final_bytes(unkilled("plain"))
    assert timeless(tmp_path / "run") == timeless(unkilled("plain"))
    assert samples(tmp_path / "run") == samples(unkilled("plain"))


def test_a_life_that_begins_with_an_evaluation_notes_it_whole_and_once(
    pairs_file: Path, tmp_path: Path, unkilled: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal came in the step before it, and then a kill between the line in metrics.jsonl and the checkpoint."""
    config = tiny_config(pairs_file, **VARIANTS["plain"])
    with monkeypatch.context() as patch:
        stop = on_call(8, lambda: os.kill(os.getpid(), signal.SIGINT), loop._Training._step)
        patch.setattr(loop._Training, "_step", stop)
        train_tiny(config, tmp_path / "run")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop._Training, "_save", on_call(1, die, loop._Training._save))
        train_tiny(config, tmp_path / "run", resume=True)
    assert [row["step"] for row in timeless(tmp_path / "run")] == [4, 8]
    train_tiny(config, tmp_path / "run", resume=True)
    assert timeless(tmp_path / "run") == timeless(unkilled("plain"))
    assert samples(tmp_path / "run") == samples(unkilled("plain"))
    assert all(0 < row["tokens_per_second"] < 1e8 for row in RunFolder(tmp_path / "run").read_metrics())


def test_a_second_interrupt_ends_at_once(pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(loop._Training, "_step", on_call(2, twice, loop._Training._step))
    with pytest.raises(KeyboardInterrupt):
        train_tiny(tiny_config(pairs_file), tmp_path / "run")


# What is not finite


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, set[int]], list[PairBatch]]:
    """Have the loss or its gradient not be finite at some calls, counted from 1; the trial of the largest is call 0."""

    def use(kind: str, calls: set[int]) -> list[PairBatch]:
        loss, seen = TranslationTask.loss, []

        def bad(task: TranslationTask, model: nn.Module, batch: PairBatch, **options: Any) -> Any:
            value, nll, count = loss(task, model, batch, **options)
            if torch.is_grad_enabled():
                seen.append(batch)
                if len(seen) - 1 in calls:
                    value = {
                        "loss is nan": lambda: value * math.nan,
                        "loss is infinite": lambda: value + math.inf,  # its gradients are finite
                        "gradient is infinite": lambda: value + Infinite.apply(next(model.parameters()).sum()),
                    }[kind]()
            return value, nll, count

        monkeypatch.setattr(TranslationTask, "loss", bad)
        return seen

    return use


class Infinite(torch.autograd.Function):
    """Zero, with an infinite gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.zeros_like(x, dtype=torch.float64)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return torch.full((), math.inf)


@pytest.mark.parametrize("kind", ["loss is nan", "loss is infinite", "gradient is infinite"])
def test_a_step_that_is_not_finite_is_skipped_and_kept(
    pairs_file: Path, tmp_path: Path, poisoned: Callable[[str, set[int]], list[PairBatch]], kind: str
) -> None:
    poisoned(kind, {1})
    config = tiny_config(pairs_file, max_steps=2, save_every_steps=1, eval_every_steps=2, average="last")
    _, log = train_tiny(config, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    report = folder.path / "nonfinite" / "step-1-process-0.tsv"
    assert any("step 1: " in message and str(report) in message for message in log.said)
    lines = report.read_text(encoding="utf-8").splitlines()
    assert lines and set(lines) < set(pairs_file.read_text(encoding="utf-8").splitlines())
    task = TranslationTask.prepare(config.data, config.decode, folder.path, config.train.batch_tokens, 1, print)
    assert lines == task.batches("train").lines(task.batches("train").order(0)[0])
    assert all(bool(torch.isfinite(weight).all()) for weight in folder.read_weights().values())
    assert folder.read_metrics()[-1]["train_loss"] > 0


@pytest.mark.parametrize("kind", ["loss is nan", "loss is infinite", "gradient is infinite"])
def test_a_skipped_step_moves_no_weight(
    pairs_file: Path, tmp_path: Path, poisoned: Callable[[str, set[int]], list[PairBatch]], kind: str
) -> None:
    poisoned(kind, {1})
    train_tiny(tiny_config(pairs_file, max_steps=1), tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    assert same(folder.read_checkpoint_weights(1), named_weights(build_model(folder.read_config())))


def test_several_in_a_row_end_the_training(
    pairs_file: Path, tmp_path: Path, poisoned: Callable[[str, set[int]], list[PairBatch]]
) -> None:
    poisoned("loss is nan", {1, 2, 4, 5, 7, 8, 9, 10})
    config = tiny_config(pairs_file, max_nonfinite=3, save_every_steps=1)
    with pytest.raises(FloatingPointError) as caught:
        train_tiny(config, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    assert "3 steps in a row" in str(caught.value)
    assert str(folder.path / "nonfinite") in str(caught.value)
    assert f"zhuyi train --resume --out {folder.path}" in str(caught.value)
    assert folder.checkpoint_steps()[-1] == 8
    steps = sorted(int(path.name.split("-")[1]) for path in (folder.path / "nonfinite").iterdir())
    assert steps == [1, 2, 4, 5, 7, 8, 9]


# What cannot begin


def test_a_batch_beyond_the_memory_is_refused_before_the_first_step(
    pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_big(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(TranslationTask, "loss", too_big)
    with pytest.raises(InputError, match=r"does not fit the memory; lower train.batch_tokens \(now 256\)"):
        train_tiny(tiny_config(pairs_file), tmp_path / "run")


def test_a_wrong_input_leaves_no_run_in_the_way_of_the_next_try(pairs_file: Path, tmp_path: Path) -> None:
    values = tiny_values(tmp_path / "none.tsv")
    with pytest.raises(InputError, match=r"cannot read .*none.tsv"):
        train_tiny(parse_config(values, "tiny"), tmp_path / "run")
    values = tiny_values(pairs_file)
    values["data"]["max_len"] = 2
    for _ in range(2):
        with pytest.raises(InputError, match=r"no train pair is at most 2 tokens long; raise data.max_len"):
            train_tiny(parse_config(values, "tiny"), tmp_path / "run")
    train_tiny(tiny_config(pairs_file, max_steps=2), tmp_path / "run")
    train_tiny(tiny_config(pairs_file, max_steps=2), tmp_path / "other")
    assert final_bytes(tmp_path / "run") == final_bytes(tmp_path / "other")


def test_a_run_is_known_before_its_data_is_prepared(
    pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unkilled: Callable[[str], Path]
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(TranslationTask, "prepare", lambda *arguments, **options: die())
        train_tiny(tiny_config(pairs_file, **VARIANTS["plain"]), tmp_path / "run")
    saved = RunFolder(tmp_path / "run").read_config()
    train_tiny(saved, tmp_path / "run", resume=True)
    assert_equal_runs(tmp_path / "run", unkilled("plain"))
    resolved = RunFolder(tmp_path / "run").read_config()
    assert resolved.model.source_vocab_size > 0
    assert resolved.decode.longest_sentence > 0 and resolved.decode.most_sentences > 0


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_with_a_link_in_it_is_refused(pairs_file: Path, tmp_path: Path, resume: bool) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match=r"run/checkpoints is a link"):
        train_tiny(tiny_config(pairs_file), tmp_path / "run", resume=resume)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoints"]


def test_a_size_that_contradicts_the_data(pairs_file: Path, tmp_path: Path) -> None:
    values = tiny_values(pairs_file)
    values["model"] |= {"source_vocab_size": 5, "target_vocab_size": 5}
    with pytest.raises(InputError, match=r"model.source_vocab_size = 5, but the tokenizer has \d+; leave it out"):
        train_tiny(parse_config(values, "tiny"), tmp_path / "run")


# Options


def test_training_may_begin_with_another_runs_weights(pairs_file: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    train_tiny(tiny_config(pairs_file, max_steps=2), first)
    config = tiny_config(pairs_file, max_steps=1, learning_rate=1e-9, init=str(first))
    train_tiny(config, tmp_path / "second")
    weights = RunFolder(tmp_path / "second").read_checkpoint_weights(1)
    for name, weight in RunFolder(first).read_weights().items():
        torch.testing.assert_close(weights[name], weight, rtol=1e-5, atol=1e-7)
    tokenizer = (first / "tokenizer.json").read_bytes()
    assert (tmp_path / "second" / "tokenizer.json").read_bytes() == tokenizer
    (tmp_path / "third").mkdir()
    (tmp_path / "third" / "tokenizer.json").write_bytes(tokenizer + b"\n")  # laid there by somebody: it stays
    with pytest.raises(InputError, match=r"train.init = .*first: its tokenizer.json is not this run's"):
        train_tiny(config, tmp_path / "third")


def test_weights_stay_in_float32_where_gradients_are_in_bfloat16(pairs_file: Path, tmp_path: Path) -> None:
    train_tiny(tiny_config(pairs_file, precision="bfloat16", max_steps=3, learning_rate=1e-6), tmp_path / "run")
    weights = RunFolder(tmp_path / "run").read_weights()
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    first = named_weights(build_model(RunFolder(tmp_path / "run").read_config()))
    # Steps of 1e-6 would be lost in bfloat16, whose next number after 1 is 1.008.
    moved = {name: (weights[name] - weight).abs().max() for name, weight in first.items()}
    assert all(0 < float(distance) < 1e-5 for distance in moved.values())


def test_deterministic_asks_torch_for_it(pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", asked.append)
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    train_tiny(tiny_config(pairs_file, max_steps=1), tmp_path / "a")
    assert asked == []
    train_tiny(tiny_config(pairs_file, max_steps=1, deterministic=True, threads=1), tmp_path / "b")
    assert set(asked) == {True}


def test_the_precision_that_was_chosen_is_saved(
    pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "choose_precision", lambda device: "float64")
    train_tiny(tiny_config(pairs_file, max_steps=1, precision="auto"), tmp_path / "run")
    assert RunFolder(tmp_path / "run").read_config().train.precision == "float64"
    assert RunFolder(tmp_path / "run").read_weights().popitem()[1].dtype is torch.float64


def test_curves_are_drawn_where_the_extra_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = RunFolder(tmp_path)
    log = loop.RunLog(folder, quiet=True)
    for step in (5, 10):
        scores = {"valid_loss": 1.0 / step, "bleu": step, "chrf": step}
        log.evaluation({"step": step, "minutes": 1.0, "train_loss": 2.0}, scores, [])
    log.draw_curves()
    assert (folder.path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_config_that_was_used_reads_back_as_json(tmp_path: Path, pairs_file: Path) -> None:
    train_tiny(tiny_config(pairs_file, max_steps=1), tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    values = json.loads(folder.config_path.read_text(encoding="utf-8"))
    config: RunConfig = folder.read_config()
    assert values["train"]["max_steps"] == 1 and values == json.loads(config.as_json())
    assert isinstance(SilentLog(folder), loop.RunLog)


@pytest.mark.parametrize("was_there", [False, True])
def test_what_cannot_begin_leaves_no_trace(was_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, folder = write_pairs(tmp_path / "pairs.tsv", number_pairs(60)), tmp_path / "run"
    if was_there:
        folder.mkdir()
        (folder / "notes.txt").write_text("mine", encoding="utf-8")

    def refuse(self: Any) -> None:
        assert (folder / "cache").exists()
        raise InputError("the largest batch does not fit")

    monkeypatch.setattr(loop._Training, "try_largest_batch", refuse)
    with pytest.raises(InputError, match="does not fit"):
        train_tiny(tiny_config(pairs), folder)
    assert [path.name for path in tmp_path.rglob("*")] == ["pairs.tsv", *(["run", "notes.txt"] if was_there else [])]


def test_what_cannot_begin_takes_nothing_of_others_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, folder = write_pairs(tmp_path / "pairs.tsv", number_pairs(60)), tmp_path / "runs"

    def refuse(self: Any) -> None:
        (folder / "another" / "checkpoints").mkdir(parents=True)
        (folder / "notes.txt").write_text("mine", encoding="utf-8")
        raise InputError("the largest batch does not fit")

    monkeypatch.setattr(loop._Training, "try_largest_batch", refuse)
    with pytest.raises(InputError, match="does not fit"):
        train_tiny(tiny_config(pairs), folder)
    assert {path.name for path in folder.rglob("*")} == {"another", "checkpoints", "notes.txt"}


def test_a_run_that_began_meanwhile_stays(pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_yet(folder: RunFolder) -> None:
        folder.write_config(tiny_config(pairs_file))

    monkeypatch.setattr(RunFolder, "entries", none_yet)
    with pytest.raises(InputError, match="holds a run already"):
        train_tiny(tiny_config(pairs_file), tmp_path / "run")
    assert RunFolder(tmp_path / "run").config_path.exists()
