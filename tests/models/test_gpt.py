"""GPT-2 against torch's layers, the published counts of weights, and the model of Hugging Face transformers."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zhuyi.models.gpt import PUBLISHED_SIZES, Gpt, GptConfig, from_published, to_published
from zhuyi.run_folder import named_weights

CONFIG = GptConfig(d_model=14, num_heads=2, d_ff=22, num_layers=3, max_len=11, vocab_size=23)
REAL = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
SIDES = {"none": None, "right": REAL, "left": REAL.flip(1)}


def randomised(model: Any) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model.eval()


def random_ids(vocab_size: int) -> Tensor:
    return torch.randint(vocab_size, (2, 7), generator=torch.Generator().manual_seed(1))


def positions_of(mask: Tensor | None) -> Tensor:
    return torch.arange(7).expand(2, 7) if mask is None else (mask.cumsum(1) - 1).clamp_min(0)


# The module.


@torch.no_grad()
def torchs(ours: Gpt) -> nn.TransformerEncoder:
    """torch's name for layers without encoder-decoder attention; causal by its mask."""
    c = ours.config
    layer = nn.TransformerEncoderLayer(
        c.d_model, c.num_heads, c.layer.d_ff, 0.0, nn.GELU("tanh"), c.norm_epsilon, batch_first=True, norm_first=True
    )
    norm = nn.LayerNorm(c.d_model, eps=c.norm_epsilon)
    norm.load_state_dict(ours.decoder_norm.state_dict())
    # In training, without dropout: torch's fast path computes the exact GELU, whichever was asked for.
    theirs: Any = nn.TransformerEncoder(layer, c.num_layers, norm, enable_nested_tensor=False).train()
    for copy, own in zip(theirs.layers, ours.decoder_layers, strict=True):
        copy.self_attn.in_proj_weight.copy_(own.self_attention.w_qkv.weight)
        copy.self_attn.in_proj_bias.copy_(own.self_attention.w_qkv.bias)
        copy.self_attn.out_proj.load_state_dict(own.self_attention.w_o.state_dict())
        copy.norm1.load_state_dict(own.self_residual.norm.state_dict())
        copy.norm2.load_state_dict(own.feed_forward_residual.norm.state_dict())
        copy.linear1.load_state_dict(own.feed_forward.w_1.state_dict())
        copy.linear2.load_state_dict(own.feed_forward.w_2.state_dict())
    return theirs


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("norm_epsilon", [1e-5, 0.1])
@torch.no_grad()
def test_is_torchs_causal_layers(norm_epsilon: float, side: str, attention_path: str) -> None:
    model, ids, mask = randomised(Gpt(replace(CONFIG, norm_epsilon=norm_epsilon))), random_ids(23), SIDES[side]
    x = model.token_embedding.weight[ids] + model.positions.table[positions_of(mask)]
    real = torch.ones(2, 7, dtype=torch.bool) if mask is None else mask
    allowed = torch.ones(7, 7, dtype=torch.bool).tril() & real[:, None] | torch.eye(7, dtype=torch.bool)
    expected = torchs(model)(x, mask=~allowed.repeat_interleave(2, 0)) @ model.token_embedding.weight.T
    torch.testing.assert_close(model(ids, mask)[real], expected[real], rtol=0, atol=1e-5)


def test_a_text_padded_on_the_left_is_the_text() -> None:
    model, ids = randomised(Gpt(CONFIG)), random_ids(23)
    alone = model(ids[:, 3:])
    padded = model(ids, torch.arange(7).expand(2, 7) >= 3)
    torch.testing.assert_close(padded[:, 3:], alone, rtol=0, atol=1e-5)


# Radford et al. give 117 M to 1,542 M; the checkpoints hold these, counted by transformers.
@pytest.mark.parametrize(
    ("size", "count"),
    [("gpt2", 124_439_808), ("gpt2-medium", 354_823_168), ("gpt2-large", 774_030_080), ("gpt2-xl", 1_557_611_200)],
)
def test_published_sizes_have_the_published_counts(size: str, count: int) -> None:
    with torch.device("meta"):
        model = Gpt(replace(PUBLISHED_SIZES[size], vocab_size=50_257))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_first_weights() -> None:
    """All matrices are narrow, those that add to the residual path the narrower the deeper the model."""
    model = Gpt(GptConfig(d_model=96, num_heads=3, num_layers=8, max_len=64, vocab_size=500))
    layer = model.decoder_layers[3]
    for weight, std in (
        (model.token_embedding.weight, 0.02),
        (model.positions.table, 0.02),
        (layer.self_attention.w_qkv.weight, 0.02),
        (layer.feed_forward.w_1.weight, 0.02),
        (layer.self_attention.w_o.weight, 0.02 / 4),
        (layer.feed_forward.w_2.weight, 0.02 / 4),
    ):
        assert float(weight.detach().std()) == pytest.approx(std, rel=0.05)
    assert not layer.self_attention.w_qkv.bias.any()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_heads": 4}, "not divisible"),
        ({"num_layers": 0}, "num_layers must be at least 1"),
        ({"d_ff": -1}, "d_ff must be at least 0"),
        ({"embedding_dropout": 1.0}, "embedding_dropout must lie"),
        ({"norm_epsilon": 0.0}, "norm_epsilon"),
        ({"max_len": 1}, "max_len"),
    ],
)
def test_wrong_sizes(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **wrong)


# Published weights.


@pytest.mark.parametrize("tie", [True, False])
def test_to_a_checkpoint_and_back(tie: bool) -> None:
    weights = named_weights(randomised(Gpt(replace(CONFIG, tie_embeddings=tie))))
    theirs = to_published(weights)
    assert theirs["transformer.h.2.attn.c_attn.weight"].shape == (14, 42)
    again = from_published(theirs, weights)
    assert again.keys() == weights.keys()
    assert all(torch.equal(again[name], weights[name]) for name in weights)


def test_older_files() -> None:
    """Without prefix, with masks among the weights and the tied table written twice."""
    weights = named_weights(randomised(Gpt(CONFIG)))
    theirs = {name.removeprefix("transformer."): weight for name, weight in to_published(weights).items()}
    theirs |= {"h.0.attn.bias": torch.ones(1, 1, 11, 11), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    theirs["lm_head.weight"] = theirs["wte.weight"].clone()
    again = from_published(theirs, weights)
    assert all(torch.equal(again[name], weights[name]) for name in weights)
    with pytest.raises(ValueError, match=r"has lm_head\.weight, for which the model has no place"):
        from_published(theirs | {"lm_head.weight": theirs["wte.weight"] + 1}, weights)
    with pytest.raises(ValueError, match=r"has no h\.1\.ln_2\.bias, which is decoder_layers\.1\.feed_forward_residual"):
        from_published({name: x for name, x in theirs.items() if name != "h.1.ln_2.bias"}, weights)


# Parity with transformers.

PARITY = {
    "gpt2's shape": {},
    "n_inner": {"n_inner": 37},
    "odd vocabulary": {"vocab_size": 101, "n_head": 3, "n_embd": 21},
    "untied": {"tie_word_embeddings": False, "vocab_size": 57},
    "relu and a large epsilon": {"activation_function": "relu", "layer_norm_epsilon": 1e-2},
    "exact gelu": {"activation_function": "gelu", "n_layer": 1},
    "one head": {"n_head": 1, "n_embd": 13, "n_inner": 8, "n_positions": 7},
}
ACTIVATIONS = {"gelu_new": "gelu-tanh", "relu": "relu", "gelu": "gelu"}


def pair(options: dict[str, Any]) -> tuple[Gpt, Any]:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_embd": 22, "n_head": 2, "n_layer": 3, "n_positions": 19, "vocab_size": 43}
    config = GPT2Config(**{**sizes, "bos_token_id": 0, "eos_token_id": 0, **options})
    theirs = randomised(GPT2LMHeadModel(config))
    ours = Gpt(
        GptConfig(
            d_model=config.n_embd,
            num_heads=config.n_head,
            d_ff=config.n_inner or 0,
            num_layers=config.n_layer,
            activation=ACTIVATIONS[config.activation_function],  # type: ignore[arg-type]
            norm_epsilon=config.layer_norm_epsilon,
            tie_embeddings=config.tie_word_embeddings,
            max_len=config.n_positions,
            vocab_size=config.vocab_size,
        )
    ).eval()
    own = named_weights(ours)
    with torch.no_grad():
        for name, weight in from_published(theirs.state_dict(), own).items():
            own[name].copy_(weight)
    return ours, theirs


@pytest.mark.peers
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("options", PARITY.values(), ids=PARITY.keys())
@torch.no_grad()
def test_logits_are_those_of_transformers(options: dict[str, Any], side: str) -> None:
    ours, theirs = pair(options)
    ids, mask = random_ids(ours.config.vocab_size), SIDES[side]
    expected = theirs(ids, attention_mask=None if mask is None else mask.long(), position_ids=positions_of(mask)).logits
    real = torch.ones(2, 7, dtype=torch.bool) if mask is None else mask
    assert float(expected.abs().max()) > 1
    torch.testing.assert_close(ours(ids, mask)[real], expected[real], rtol=0, atol=1e-5)


@pytest.mark.peers
def test_transformers_reads_what_we_write() -> None:
    ours, theirs = pair({"tie_word_embeddings": False})
    names = {name for name in theirs.state_dict() if not name.endswith((".attn.bias", ".attn.masked_bias"))}
    written = to_published(named_weights(ours))
    assert written.keys() == names
    assert all(torch.equal(written[name], theirs.state_dict()[name]) for name in names)
