"""Continuing texts side by side: the machine's floor, and that all tools write the same."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zhuyi.models.gpt import GptConfig


def test_the_floor_of_gpt2(module: Callable[[str], Any]) -> None:
    """Counted by hand: a step reads 12 x (4 x 768^2 + 2 x 768 x 3072) weights and the table of 50,257 x 768."""
    limits = module("contest.limits")
    layers = 12 * (4 * 768**2 + 2 * 768 * 3072)
    step = layers + 50_257 * 768
    config = GptConfig(vocab_size=50_257)
    assert limits.next_token_work(config, 1, 1, "int8").weight_bytes == step == 123_532_032
    rates = {"int8_weights_gb_per_second": 40.0, "int8_gops": 1000.0}
    alone = limits.continued_tokens_per_second(config, 1, 16, 64, "int8", rates)
    assert 0.9 * 40e9 / step < alone < 40e9 / step  # memory, and a little for prompt and cache
    bulk = limits.continued_tokens_per_second(config, 512, 2, 2, "int8", rates)
    assert bulk == pytest.approx(1000e9 / (2 * (step + layers)), rel=0.05)  # products: as many of the prompt


@pytest.mark.slow
@pytest.mark.peers
def test_generation_measures_all_in_all_cells(tmp_path: Path, run_script: Callable[..., str]) -> None:
    pytest.importorskip("ctranslate2", reason="needs the extra peers")
    pytest.importorskip("transformers", reason="needs the extra peers")
    printed = run_script("generation.py")
    found = json.loads((tmp_path / "generation.json").read_text(encoding="utf-8"))["generation"]
    assert [cell["batch"] for cell in found["cells"]] == [1, 2]
    for cell in found["cells"]:
        assert not any(row["error"] for row in cell["rows"]), cell["rows"]
        assert cell["best"].keys() == {"zhuyi", "CTranslate2", "Hugging Face"}
        assert cell["ratios"].keys() == {"float32", "bfloat16", "int8"}
        assert cell["agreement"] == {"CTranslate2": 1.0, "Hugging Face": 1.0}
    assert "x CTranslate2" in printed
    assert (tmp_path / "generation.png").stat().st_size > 5000
