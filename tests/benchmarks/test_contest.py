"""Taking turns, and the floor that a machine sets: what the benchmarks' numbers rest on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import number_pairs, write_pairs

from zhuyi.models.transformer import TransformerConfig
from zhuyi.predict import PRECISIONS

BASE = TransformerConfig(source_vocab_size=32_000, target_vocab_size=32_000)


def test_rounds_go_forwards_and_backwards(module: Callable[[str], Any]) -> None:
    turns = module("contest.turns")
    order = []

    def turn(contestant: Any, warm: bool) -> dict[str, Any]:
        order.append((contestant.tool, warm))
        return {"seconds": [2.0, 1.0, 4.0]}

    tracks = turns.trial([turns.Contestant(name, "", ()) for name in "abc"], turn, 10)
    for number in range(2):
        turns.measure(tracks, turn, 10, number)
    assert [name for name, _ in order] == ["a", "b", "c", "c", "b", "a", "a", "b", "c"]
    assert [warm for _, warm in order] == [True] * 3 + [False] * 6
    assert tracks[0].trial == 5.0  # the median call
    assert tracks[0].speeds == [5.0, 5.0]


def test_the_fastest_of_each_tool_go_on_and_the_best_is_compared_with(module: Callable[[str], Any]) -> None:
    turns = module("contest.turns")

    def track(tool: str, trial: float, speeds: list[float], error: str = "") -> Any:
        return turns.Track(turns.Contestant(tool, "", (("setting", trial),)), trial, speeds, error=error)

    ours = track("zhuyi", 1.0, [6.0, 9.0, 12.0])
    slow, fast, faster = (track("peer", trial, [trial] * 3) for trial in (1.0, 3.0, 4.0))
    broken = track("peer", 9.0, [9.0], error="no such instructions")
    everyone = [slow, broken, ours, faster, fast]
    assert turns.fastest(everyone, 2) == [ours, faster, fast]
    assert turns.best(everyone, ["peer"]) is faster
    assert turns.ratio(ours, faster) == (9.0 / 4.0, 6.0 / 4.0, 12.0 / 4.0)


def test_a_worker_that_fails_or_dies_is_told_of(module: Callable[[str], Any]) -> None:
    turns = module("contest.turns")
    workers = turns.Workers(threads=1, rest_seconds=0.0)
    machine = turns.Contestant("machine", "", ())
    assert workers.ask(machine, do="read", size=4096, seconds=0.0)["found"] > 0
    assert "AttributeError" in workers.ask(machine, do="sing")["error"]
    assert workers.ask(machine, do="read", size=8192, seconds=0.0)["found"] > 0  # it goes on after an error
    assert "ended with status 1" in workers.ask(turns.Contestant("nobody", "", ()), do="read")["error"]
    workers.close()


def test_the_floor_of_the_base_model(module: Callable[[str], Any]) -> None:
    """Counted by hand: a step reads 6 x (6 x 512^2 + 2 x 512 x 2048) weights and the table of 32,000 x 512."""
    limits = module("contest.limits")
    step = 6 * (6 * 512**2 + 2 * 512 * 2048) + 32_000 * 512
    assert limits.weight_bytes_of_a_step(BASE, "bfloat16") == 2 * step == 76_808_192
    rates = {"bfloat16_weights_gb_per_second": 40.0, "bfloat16_gflops": 800.0}
    alone = limits.tokens_per_second(BASE, 1, 1, 24, 24, "bfloat16", rates)
    assert 0.9 * 40e9 / (2 * step) < alone < 40e9 / (2 * step)  # memory, and a little for the source
    bulk = limits.tokens_per_second(BASE, 512, 1, 24, 24, "bfloat16", rates)
    encoder = 6 * (4 * 512**2 + 2 * 512 * 2048)
    assert bulk == pytest.approx(800e9 / (2 * (step + encoder + 6 * 2 * 512**2)), rel=0.05)  # products


def test_the_floor_of_a_training_step(module: Callable[[str], Any]) -> None:
    """Counted by hand: three products for each weight and token, and those of attention, whose rows are short."""
    limits = module("contest.limits")
    config = TransformerConfig(
        d_model=256, num_heads=4, d_ff=1024, num_encoder_layers=3, num_decoder_layers=3, source_vocab_size=8000,
        target_vocab_size=8000,
    )  # fmt: skip
    of_a_pair = 3 * (4 * 256**2 + 2 * 256 * 1024) + 3 * (8 * 256**2 + 2 * 256 * 1024) + 8000 * 256
    found = limits.training_tokens_per_second(config, 128, 26, 26, "bfloat16", {"bfloat16_gflops": 800.0})
    assert found == pytest.approx(800e9 / (3 * 2 * of_a_pair), rel=0.03)
    assert found < 800e9 / (3 * 2 * of_a_pair)


@pytest.mark.peers
def test_decoding_measures_all_in_all_cells(tmp_path: Path, run_script: Callable[..., str]) -> None:
    pytest.importorskip("ctranslate2", reason="needs the extra peers")
    pytest.importorskip("transformers", reason="needs the extra peers")
    pairs = write_pairs(tmp_path / "pairs.tsv", number_pairs(6))
    run_script("decoding.py", "--real", "zh-en", pairs)
    found = json.loads((tmp_path / "decoding.json").read_text(encoding="utf-8"))
    cells = [*found["random"]["cells"], *found["real"][0]["searches"].values()]
    assert len(cells) == 6
    for cell in cells:
        assert not any(row["error"] for row in cell["rows"]), cell["rows"]
        assert cell["best"].keys() == {"zhuyi", "CTranslate2", "Hugging Face"}
        assert cell["ratios"].keys() == set(PRECISIONS)
    assert all(cell["agreement"]["Hugging Face"] == 1.0 for cell in found["random"]["cells"])
    assert (tmp_path / "decoding.png").stat().st_size > 10_000
    assert "x CTranslate2" in (tmp_path / "decoding.txt").read_text(encoding="utf-8")
