"""Residual connections in both orders, and the layers against torch's with the same weights."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zhuyi.nn.attention import CrossAttention, SelfAttention
from zhuyi.nn.blocks import DecoderLayer, EncoderLayer, LayerConfig, Residual
from zhuyi.nn.dropout import Dropout
from zhuyi.nn.feedforward import FeedForward
from zhuyi.nn.maps import Maps
from zhuyi.nn.masks import padding_mask
from zhuyi.nn.state import DecoderState

REAL = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
CONFIG = LayerConfig(
    d_model=15,
    num_heads=3,
    head_dim=5,
    d_ff=22,
    dropout=0.0,
    attention_dropout=0.0,
    feed_forward_dropout=0.0,
    activation="relu",
    norm_first=False,
)
OPTIONS = pytest.mark.parametrize(
    "config",
    [
        replace(
            CONFIG,
            norm_first=norm_first,
            activation=activation,
            d_model=heads * head_dim,
            num_heads=heads,
            head_dim=head_dim,
            norm_epsilon=norm_epsilon,
        )
        for norm_first in (False, True)
        for activation in ("relu", "gelu")
        for heads, head_dim, norm_epsilon in ((3, 5, 1e-5), (2, 7, 0.1))
    ],
    ids=lambda c: f"{'pre' if c.norm_first else 'post'}-{c.activation}-{c.num_heads}x{c.head_dim}",
)


def randomised(module: nn.Module) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.4)
    return module.eval()


def give_attention(theirs: nn.MultiheadAttention, ours: SelfAttention | CrossAttention) -> None:
    own = [ours.w_qkv] if isinstance(ours, SelfAttention) else [ours.w_q, ours.w_kv]
    theirs.in_proj_weight.copy_(torch.cat([linear.weight for linear in own]))
    theirs.in_proj_bias.copy_(torch.cat([linear.bias for linear in own]))
    theirs.out_proj.load_state_dict(ours.w_o.state_dict())


@torch.no_grad()
def torchs(ours: EncoderLayer | DecoderLayer, c: LayerConfig) -> Any:
    """torch's layer with our layer's weights."""
    kind = nn.TransformerDecoderLayer if isinstance(ours, DecoderLayer) else nn.TransformerEncoderLayer
    theirs: Any = kind(
        c.d_model,
        c.num_heads,
        c.d_ff,
        c.dropout,
        c.activation,
        c.norm_epsilon,
        batch_first=True,
        norm_first=c.norm_first,
    )
    give_attention(theirs.self_attn, ours.self_attention)
    norms = [ours.self_residual.norm, ours.feed_forward_residual.norm]
    if isinstance(ours, DecoderLayer):
        give_attention(theirs.multihead_attn, ours.cross_attention)
        norms.insert(1, ours.cross_residual.norm)
    for i, norm in enumerate(norms):
        getattr(theirs, f"norm{i + 1}").load_state_dict(norm.state_dict())
    theirs.linear1.load_state_dict(ours.feed_forward.w_1.state_dict())
    theirs.linear2.load_state_dict(ours.feed_forward.w_2.state_dict())
    return theirs.eval()


@OPTIONS
def test_encoder_layer_is_torchs(config: LayerConfig, attention_path: str) -> None:
    layer: EncoderLayer = randomised(EncoderLayer(config))
    x = torch.randn(2, 7, config.d_model)
    for real in (None, REAL):
        hidden = None if real is None else ~real
        expected = torchs(layer, config)(x, src_key_padding_mask=hidden)
        torch.testing.assert_close(layer(x, padding_mask(real)), expected, rtol=0, atol=1e-5)


@OPTIONS
def test_decoder_layer_is_torchs(config: LayerConfig, attention_path: str) -> None:
    layer: DecoderLayer = randomised(DecoderLayer(config))
    x, memory = torch.randn(2, 6, config.d_model), torch.randn(2, 7, config.d_model)
    later = torch.ones(6, 6, dtype=torch.bool).triu(1)
    for real in (None, REAL):
        hidden = None if real is None else ~real
        expected = torchs(layer, config)(x, memory, tgt_mask=later, memory_key_padding_mask=hidden)
        torch.testing.assert_close(layer(x, memory, padding_mask(real)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm_first", [False, True])
@torch.no_grad()
def test_advancing_is_the_forward_in_pieces(norm_first: bool) -> None:
    """First three tokens at once, then one by one as two beams of two rows, each over a memory of its own."""
    config = replace(CONFIG, norm_first=norm_first)
    layer: DecoderLayer = randomised(DecoderLayer(config)).double()
    x, memory = torch.randn(4, 6, 15).double(), torch.randn(2, 7, 15).double()
    x[1::2, :3] = x[::2, :3]  # the hypotheses of a beam begin alike
    expected = layer(x, memory.repeat_interleave(2, 0), padding_mask(REAL.repeat_interleave(2, 0)))
    projected = torch.stack(layer.cross_attention.project_memory(memory))[None]
    state = DecoderState(torch.zeros(1, 2, 2, 3, 0, 1, 5).double(), projected, REAL)
    state.begin(3)
    beginnings = layer.advance(x[::2, :3], state, 0)  # (G, T, D)
    torch.testing.assert_close(beginnings, expected[::2, :3])
    state = state.select(torch.tensor([0, 0, 1, 1]))
    for t in range(3, 6):
        state.begin(1)
        newest = layer.advance(x[:, t].view(2, 2, 15), state, 0)  # (G, W, D)
        torch.testing.assert_close(newest.view(4, 15), expected[:, t])


@pytest.mark.parametrize("norm_first", [False, True])
def test_residual_is_its_formula(norm_first: bool) -> None:
    residual: Residual = randomised(Residual(6, 0.5, norm_first))
    x, w = torch.randn(2, 3, 6), torch.randn(6, 6)
    norm = residual.norm
    normalised = F.layer_norm(x if norm_first else x + x @ w, (6,), norm.weight, norm.bias)
    expected = x + normalised @ w if norm_first else normalised
    torch.testing.assert_close(residual(x, lambda y: y @ w), expected)


@pytest.mark.parametrize("norm_first", [False, True])
@torch.no_grad()
def test_residual_with_the_size_alone_as_norm(norm_first: bool) -> None:
    residual: Residual = randomised(Residual(6, 0.5, norm_first, 0.1, "rms"))
    x, w = torch.randn(2, 3, 6), torch.randn(6, 6)
    normalised = F.rms_norm(x if norm_first else x + x @ w, (6,), residual.norm.weight, 0.1)
    torch.testing.assert_close(residual(x, lambda y: y @ w), x + normalised @ w if norm_first else normalised)


@pytest.mark.parametrize("kind", [EncoderLayer, DecoderLayer])
def test_each_option_goes_to_its_own_place(kind: type[EncoderLayer] | type[DecoderLayer]) -> None:
    layer = kind(replace(CONFIG, norm="rms", bias=False, gated=True, attention_scale=0.7))
    assert not [name for name, _ in layer.named_parameters() if name.endswith("bias")]
    assert all(isinstance(m.norm, nn.RMSNorm) for m in layer.modules() if isinstance(m, Residual))
    assert {m.scale for m in layer.modules() if isinstance(m, SelfAttention | CrossAttention)} == {0.7}
    assert layer.feed_forward.w_1.weight.shape == (2 * 22, 15)


@pytest.mark.parametrize("norm_first", [False, True])
def test_only_the_sublayer_is_dropped(norm_first: bool) -> None:
    residual = Residual(6, 0.5, norm_first).train()
    x = torch.randn(40, 50, 6)
    torch.manual_seed(0)
    with torch.no_grad():
        residual.norm.weight.fill_(1.0)
        found = residual(x, torch.ones_like)
    if norm_first:
        added = found - x
        assert {round(value, 3) for value in added.unique().tolist()} == {0.0, 2.0}
        assert 0.45 < float((added > 1).double().mean()) < 0.55
    else:
        torch.manual_seed(0)
        dropped = Dropout(0.5).train()(torch.ones_like(x))
        torch.testing.assert_close(found, F.layer_norm(x + dropped, (6,)))


@pytest.mark.parametrize("kind", [EncoderLayer, DecoderLayer])
def test_each_rate_goes_to_its_own_place(kind: type[EncoderLayer] | type[DecoderLayer]) -> None:
    layer = kind(replace(CONFIG, dropout=0.1, attention_dropout=0.2, feed_forward_dropout=0.3))
    residuals = [module.dropout.rate for module in layer.modules() if isinstance(module, Residual)]
    attentions = [m.dropout for m in layer.modules() if isinstance(m, SelfAttention | CrossAttention)]
    networks = [module.dropout.rate for module in layer.modules() if isinstance(module, FeedForward)]
    count = 2 if kind is EncoderLayer else 3
    assert (residuals, attentions, networks) == ([0.1] * count, [0.2] * (count - 1), [0.3])


def test_maps_are_recorded_under_the_layers_name() -> None:
    maps, x = Maps(), torch.randn(2, 7, 15)
    EncoderLayer(CONFIG)(x, padding_mask(REAL), maps, "encoder.1")
    DecoderLayer(CONFIG)(x[:, :6], x, padding_mask(REAL), maps, "decoder.4")
    shapes: dict[str, tuple[int, ...]] = {name: tuple(weights.shape) for name, weights in maps.weights.items()}
    assert shapes == {
        "encoder.1.self": (2, 3, 7, 7),
        "decoder.4.self": (2, 3, 6, 6),
        "decoder.4.cross": (2, 3, 6, 7),
    }
    assert not any(weights.requires_grad for weights in maps.weights.values())


def gradient_reaches(layer: nn.Module, output: Tensor) -> bool:
    output.square().sum().backward()
    return all(p.grad is not None and bool(p.grad.any()) for p in layer.parameters())


def test_every_parameter_is_used() -> None:
    encoder, decoder = randomised(EncoderLayer(CONFIG)), randomised(DecoderLayer(CONFIG))
    x = torch.randn(2, 7, 15)
    assert gradient_reaches(encoder, encoder(x, None))
    assert gradient_reaches(decoder, decoder(x, x, None))


def test_a_position_bias_is_for_self_attention_alone() -> None:
    """One that leaves each position nothing but itself makes the others' tokens meaningless to it."""
    x, memory = torch.randn(1, 7, 15), torch.randn(1, 7, 15)
    alone = torch.full((1, 3, 7, 7), -1e9).masked_fill(torch.eye(7, dtype=torch.bool), 0.0)
    encoder, decoder = randomised(EncoderLayer(CONFIG)), randomised(DecoderLayer(CONFIG))
    with torch.no_grad():
        for t in range(7):
            token = x[:, t : t + 1]
            torch.testing.assert_close(encoder(x, None, position_bias=alone)[:, t : t + 1], encoder(token, None))
            found = decoder(x, memory, None, position_bias=alone)[:, t : t + 1]
            torch.testing.assert_close(found, decoder(token, memory, None))
