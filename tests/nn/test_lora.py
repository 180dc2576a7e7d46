"""Adapters learn alone, and merged they are the model that they were beside."""

import pytest
import torch
from tests.conftest import TINY, build

from zhuyi.nn.lora import LoraConfig, adapt, merged
from zhuyi.run_folder import named_weights


def adapted(name: str, variant: str, config: LoraConfig) -> torch.nn.Module:
    model = build(name, TINY[name].configs[variant])
    adapt(model, config)
    model.double()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith((".up", ".down")):
                parameter.normal_()
    return model


CASES = [(name, variant) for name, tiny in TINY.items() if name != "seq2seq" for variant in tiny.configs]


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_merged_is_unmerged(name: str, variant: str) -> None:
    kinds = {key.split(".")[-1] for key, _ in build(name, TINY[name].configs[variant]).named_modules()}
    targets = tuple(target for target in ("w_qkv", "w_kv", "w_2", "input_projection") if target in kinds)
    config = LoraConfig(rank=3, alpha=7.0, targets=targets)
    model, plain = adapted(name, variant, config), build(name, TINY[name].configs[variant])
    inputs = TINY[name].inputs(TINY[name].configs[variant])
    with torch.no_grad():
        before = plain(**inputs)
        weights = merged(named_weights(model), config)
        assert weights.keys() == named_weights(plain).keys()
        for key, parameter in plain.named_parameters():
            parameter.copy_(weights[key])
        torch.testing.assert_close(plain(**inputs), model(**inputs), atol=1e-10, rtol=1e-10)
        assert not torch.allclose(plain(**inputs), before, atol=1e-3)


@pytest.mark.parametrize(("name", "variant"), [("transformer", "paper")])
def test_adapters_begin_as_nothing_and_learn_alone(name: str, variant: str) -> None:
    tiny = TINY[name]
    plain, model = (build(name, tiny.configs[variant]) for _ in range(2))
    assert "decoder_layers.0.cross_attention.w_kv" in adapt(model, LoraConfig(rank=2))
    model.double()
    inputs = tiny.inputs(tiny.configs[variant])
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs), plain(**inputs))
    for key, parameter in model.named_parameters():
        assert parameter.requires_grad == key.endswith((".up", ".down"))
    tiny.loss(model, inputs).backward()
    learning = {key for key, parameter in model.named_parameters() if parameter.grad is not None}
    assert learning == {key for key, _ in model.named_parameters() if key.endswith((".up", ".down"))}


def test_a_new_head_learns_as_it_is() -> None:
    model = build("bert", TINY["bert"].configs["classes"])
    anew = ["classifier.linear.weight", "classifier.linear.bias"]
    assert "classifier.linear" not in adapt(model, LoraConfig(rank=2, targets=("linear", "w_o")), anew)
    learning = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {*anew, *(key for key, _ in model.named_parameters() if key.endswith((".up", ".down")))}


def test_what_cannot_be() -> None:
    model = build("transformer", TINY["transformer"].configs["paper"])
    with pytest.raises(ValueError, match="no affine map named q_proj"):
        adapt(model, LoraConfig(rank=2, targets=("q_proj",)))
    with pytest.raises(ValueError, match="no affine map named w_qvk; it has w_1, w_2, w_kv, w_o, w_q, w_qkv"):
        adapt(model, LoraConfig(rank=2, targets=("w_o", "w_qvk")))
    encoder = build("bert", TINY["bert"].configs["classes"])  # which has no w_q and no w_kv
    assert {name.split(".")[-1] for name in adapt(encoder, LoraConfig(rank=2))} == {"w_qkv", "w_o"}
    for wrong in ({"rank": -1}, {"alpha": 0.0}, {"targets": ()}):
        with pytest.raises(ValueError):
            LoraConfig(**wrong)


def test_without_adapters_nothing_is_merged() -> None:
    weights = named_weights(build("transformer", TINY["transformer"].configs["paper"]))
    assert merged(weights, LoraConfig()).keys() == weights.keys()
