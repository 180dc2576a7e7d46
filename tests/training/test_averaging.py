"""Which checkpoints are kept and averaged, and which weights a run ends with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import tiny_config, train_tiny
from torch import nn

from zhuyi.config import TrainConfig
from zhuyi.run_folder import RunFolder
from zhuyi.tasks.translation import TranslationTask
from zhuyi.training.averaging import average, averaged_steps, best_first, kept_steps

EVALUATIONS = [[10, 1.0, 3.0], [20, 5.0, 2.5], [30, 3.0, 2.0], [40, 5.0, 2.5], [50, 2.0, 1.5]]


def settings(average: str, count: int = 3) -> TrainConfig:
    return TrainConfig(max_steps=1, average=average, average_checkpoints=count)  # type: ignore[arg-type]


def test_the_best_come_first_and_of_equal_ones_the_earlier() -> None:
    assert best_first(EVALUATIONS) == [20, 40, 30, 50, 10]


def test_where_no_score_has_come_yet_the_loss_tells() -> None:
    assert best_first([[10, 0.0, 3.0], [20, 0.0, 2.0], [30, 0.0, 2.5]]) == [20, 30, 10]


@pytest.mark.parametrize(("kind", "steps"), [("best", [20, 40, 30]), ("last", [50, 40, 30]), ("none", [20])])
def test_what_is_averaged(kind: str, steps: list[int]) -> None:
    assert averaged_steps(EVALUATIONS, settings(kind)) == steps
    assert kept_steps(EVALUATIONS, settings(kind)) == {20, *steps}


def test_before_the_first_evaluation_nothing_is_kept_for_it() -> None:
    for kind in ("best", "last", "none"):
        assert kept_steps([], settings(kind)) == set()


@given(
    st.lists(st.floats(-5, 5), min_size=1, max_size=12), st.sampled_from(["best", "last", "none"]), st.integers(1, 5)
)
def test_nothing_that_is_needed_later_is_thrown_away_early(scores: list[float], kind: str, count: int) -> None:
    evaluations = [[step, score, 0.0] for step, score in enumerate(scores, 1)]
    kept: set[int] = set()
    for done in range(1, len(scores) + 1):
        kept = (kept | {done}) & (kept_steps(evaluations[:done], settings(kind, count)) | {done})
    assert kept >= kept_steps(evaluations, settings(kind, count))


def test_the_average_is_the_mean_of_each_weight() -> None:
    weights = [{"a": torch.tensor([value, 1e8]), "b": torch.full((3, 5), value)} for value in (1.0, 2.0, 6.0)]
    mean = average(weights)
    assert mean["a"].tolist() == [3.0, 1e8] and mean["b"].tolist() == [[3.0] * 5] * 3
    assert mean["a"].dtype is torch.float32
    thirds = average([{"a": torch.full((), 16777216.0 + 2 * i)} for i in range(3)])  # float32's sums would round
    assert float(thirds["a"]) == 16777218.0


@pytest.mark.parametrize(
    ("kind", "final_score", "published"),
    [
        ("last", 9.0, [4, 3]),
        ("best", 9.0, [2, 3]),
        ("last", 1.0, [2]),  # an average that is worse than the best is left
        ("best", 5.0, [2]),  # one that is no better, too
        ("none", 9.0, [2]),
    ],
)
def test_the_better_of_average_and_best_is_published(
    pairs_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    final_score: float,
    published: list[int],
) -> None:
    config = tiny_config(pairs_file, eval_every_steps=1, max_steps=4, average=kind, average_checkpoints=2)
    scores = iter([1.0, 5.0, 3.0, 2.0, 5.0, final_score])  # four evaluations, then the best's and the average's
    monkeypatch.setattr(TranslationTask, "evaluate", scripted(lambda: next(scores)))
    found, _ = train_tiny(config, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    wanted = average([folder.read_checkpoint_weights(step) for step in published])
    assert all(torch.equal(weight, wanted[name]) for name, weight in folder.read_weights().items())
    assert found["bleu"] == (final_score if len(published) > 1 else 5.0)


def scripted(score: Callable[[], float]) -> Callable[[TranslationTask, nn.Module], dict[str, Any]]:
    def evaluate(task: TranslationTask, model: nn.Module) -> dict[str, Any]:
        bleu = score()
        return {"valid_loss": 10 - bleu, "bleu": bleu, "chrf": bleu}

    return evaluate
