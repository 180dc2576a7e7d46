"""Training steps side by side: that all tools do the same work."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from zhuyi.models.gpt import Gpt
from zhuyi.models.transformer import Transformer
from zhuyi.run_folder import named_weights


def test_a_step_of_zhuyi_has_the_loss_of_the_plain_formula(module: Callable[[str], Any]) -> None:
    trainers = module("contest.trainers")
    shape = trainers.Shape(12, 3, 20, 2, 40, 0.0, batch=5, length=7)
    found = trainers.Steps(trainers.zhuyi).train(vars(shape), {"precision": "float32"}, 0.0, warm=True)
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


def test_a_step_of_a_text_has_the_loss_of_the_plain_formula(module: Callable[[str], Any]) -> None:
    trainers, text = module("contest.trainers"), module("contest.text_trainers")
    shape = text.TextShape(12, 3, 20, 2, 40, 0.0, False, batch=5, length=7)
    found = trainers.Steps(text.zhuyi, text.TextShape).train(vars(shape), {"precision": "float32"}, 0.0, warm=True)
    torch.manual_seed(0)
    model = Gpt(text.gpt_config(shape))
    ids, expected = shape.ids()
    loss = F.cross_entropy(model(ids).flatten(0, 1), expected.flatten())
    assert found["found"][1] == pytest.approx(float(loss.detach()), rel=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("tool", ["zhuyi", "torch nn.TransformerEncoder"])
def test_steps_of_a_text_learn(module: Callable[[str], Any], tool: str, precision: str) -> None:
    text = module("contest.text_trainers")
    torch.manual_seed(0)
    shape = text.TextShape(16, 2, 32, 1, 20, 0.0, False, batch=3, length=5)
    trainer = text.BUILDERS[tool](shape, {"precision": precision, "attention": "plain"})
    losses = [trainer.step() for _ in range(60)]
    assert sum(losses[-10:]) < sum(losses[:10]) - 1.0


def test_the_peer_of_texts_is_the_same_model(module: Callable[[str], Any]) -> None:
    """Our weights in torch's modules give our logits: nobody trains less."""
    text = module("contest.text_trainers")
    shape = text.TextShape(12, 3, 20, 2, 40, 0.0, True, batch=5, length=7)
    torch.manual_seed(0)
    ours, theirs = Gpt(text.gpt_config(shape)), text.TorchEncoder(shape)
    weights = named_weights(ours)
    found = {
        "embedding.weight": weights["token_embedding.weight"],
        "positions.weight": weights["positions.table"],
        "causal": theirs.causal,
        **{f"encoder.norm.{kind}": weights[f"decoder_norm.{kind}"] for kind in ("weight", "bias")},
    }
    names = {
        "self_attn.in_proj_": "self_attention.w_qkv.",
        "self_attn.out_proj.": "self_attention.w_o.",
        "linear1.": "feed_forward.w_1.",
        "linear2.": "feed_forward.w_2.",
        "norm1.": "self_residual.norm.",
        "norm2.": "feed_forward_residual.norm.",
    }
    for layer in range(shape.num_layers):
        for kind in ("weight", "bias"):
            for name, own in names.items():
                found[f"encoder.layers.{layer}.{name}{kind}"] = weights[f"decoder_layers.{layer}.{own}{kind}"]
    theirs.load_state_dict(found)
    ids, _ = shape.ids()
    torch.testing.assert_close(theirs(ids), ours(ids), atol=1e-5, rtol=0)


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
    pairs, text = json.loads((tmp_path / "training.json").read_text(encoding="utf-8"))["training"]
    for found in (pairs, text):
        assert not any(row["error"] for row in found["rows"]), found["rows"]
        assert found["ratios"].keys() == {"float32", "bfloat16"}
        parameters = {name: check[0] for name, check in found["checks"].items() if "torch" not in name}
        assert len(set(parameters.values())) == 1, parameters
    with_joeynmt = {"JoeyNMT"} if module("training").JOEYNMT.exists() else set()
    assert pairs["best"].keys() == {"zhuyi", "torch nn.Transformer", "Hugging Face"} | with_joeynmt
    assert text["best"].keys() == {"zhuyi", "torch nn.TransformerEncoder"}
    assert "zhuyi to the best setting of each peer" in printed
    assert (tmp_path / "training.png").stat().st_size > 5000
