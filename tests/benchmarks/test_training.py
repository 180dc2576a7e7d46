"""Training steps side by side: that all tools do the same work."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from zhuyi.models.transformer import Transformer


def test_a_step_of_zhuyi_has_the_loss_of_the_plain_formula(module: Callable[[str], Any]) -> None:
    trainers = module("contest.trainers")
    shape = trainers.Shape(12, 3, 20, 2, 40, 0.0, batch=5, length=7)
    found = trainers.Steps("zhuyi").train(vars(shape), {"precision": "float32"}, 0.0, warm=True)
    torch.manual_seed(0)
    model = Transformer(trainers.zhuyi_config(shape))
    source, target = shape.words()
    src, tgt = F.pad(source, (0, 1), value=2), F.pad(target, (1, 0), value=1)
    expected = F.cross_entropy(
        model(src, tgt).flatten(0, 1), F.pad(target, (0, 1), value=2).flatten(), label_smoothing=0.1
    )
    parameters, loss = found["found"]
    assert loss == pytest.approx(float(expected.detach()), rel=1e-6)
    assert parameters == sum(p.numel() for p in model.parameters())
    assert len(found["seconds"]) == 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("tool", ["zhuyi", "torch nn.Transformer"])
def test_steps_learn(module: Callable[[str], Any], tool: str, precision: str) -> None:
    trainers = module("contest.trainers")
    shape = trainers.Shape(16, 2, 32, 1, 50, 0.1, batch=3, length=5)
    torch.manual_seed(0)
    trainer = trainers.BUILDERS[tool](shape, {"precision": precision, "attention": "plain"})
    losses = [trainer.step() for _ in range(50)]
    assert sum(losses[-10:]) < sum(losses[:10]) - 1.0


def test_the_peer_of_torch_drops_out_what_the_paper_says(module: Callable[[str], Any]) -> None:
    trainers = module("contest.trainers")
    model = trainers.TorchTransformer(trainers.Shape(16, 2, 32, 1, 50, 0.3, batch=3, length=5))
    rates = {name: part.p for name, part in model.named_modules() if isinstance(part, torch.nn.Dropout)}
    inside = {name for name, rate in rates.items() if rate == 0.0}
    assert inside == {f"transformer.{side}.layers.0.dropout" for side in ("encoder", "decoder")}
    assert set(rates.values()) == {0.0, 0.3}
    assert {part.dropout for part in model.modules() if isinstance(part, torch.nn.MultiheadAttention)} == {0.0}


@pytest.mark.peers
def test_training_measures_all(tmp_path: Path, module: Callable[[str], Any], run_script: Callable[..., str]) -> None:
    pytest.importorskip("transformers", reason="needs the extra peers")
    printed = run_script("training.py")
    (found,) = json.loads((tmp_path / "training.json").read_text(encoding="utf-8"))["training"]
    assert not any(row["error"] for row in found["rows"]), found["rows"]
    tools = {"zhuyi", *module("training").PEERS} - (set() if module("training").JOEYNMT.exists() else {"JoeyNMT"})
    assert found["best"].keys() == tools
    assert found["ratios"].keys() == {"float32", "bfloat16"}
    parameters = {name: check[0] for name, check in found["checks"].items() if "torch" not in name}
    assert len(set(parameters.values())) == 1, parameters
    assert "zhuyi to the best setting of each peer" in printed
    assert (tmp_path / "training.png").stat().st_size > 5000
