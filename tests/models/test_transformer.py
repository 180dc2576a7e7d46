"""The Transformer against torch's own with the same weights, and against the paper's numbers."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zhuyi.models.transformer import PUBLISHED_SIZES, Memory, Transformer, TransformerConfig
from zhuyi.nn import dropout as dropout_module
from zhuyi.nn import kernels
from zhuyi.nn.attention import CrossAttention, SelfAttention
from zhuyi.nn.blocks import DecoderLayer, EncoderLayer
from zhuyi.nn.maps import Maps
from zhuyi.nn.positions import sinusoidal

CONFIG = TransformerConfig(
    d_model=15,
    num_heads=3,
    d_ff=22,
    num_encoder_layers=2,
    num_decoder_layers=4,
    max_len=11,
    source_vocab_size=19,
    target_vocab_size=23,
    tie_embeddings="decoder",
)
SRC_MASK = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
TGT_MASK = torch.tensor([[True] * 3 + [False] * 2, [True] * 5])


def random_model(config: TransformerConfig) -> Transformer:
    """All parameters random, those too that begin as zeros or ones; in evaluation mode, float32."""
    torch.manual_seed(0)
    model = Transformer(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


def random_ids(config: TransformerConfig) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randint(config.source_vocab_size, (2, 7), generator=generator),
        torch.randint(config.target_vocab_size, (2, 5), generator=generator),
    )


# torch's Transformer with our weights.


def copy_attention(theirs: nn.MultiheadAttention, ours: SelfAttention | CrossAttention) -> None:
    own = [ours.w_qkv] if isinstance(ours, SelfAttention) else [ours.w_q, ours.w_kv]
    theirs.in_proj_weight.copy_(torch.cat([linear.weight for linear in own]))
    theirs.in_proj_bias.copy_(torch.cat([linear.bias for linear in own]))
    theirs.out_proj.load_state_dict(ours.w_o.state_dict())


def copy_layer(theirs: Any, ours: EncoderLayer | DecoderLayer) -> None:
    copy_attention(theirs.self_attn, ours.self_attention)
    norms = [ours.self_residual.norm, ours.feed_forward_residual.norm]
    if isinstance(ours, DecoderLayer):
        copy_attention(theirs.multihead_attn, ours.cross_attention)
        norms.insert(1, ours.cross_residual.norm)
    for i, norm in enumerate(norms):
        getattr(theirs, f"norm{i + 1}").load_state_dict(norm.state_dict())
    theirs.linear1.load_state_dict(ours.feed_forward.w_1.state_dict())
    theirs.linear2.load_state_dict(ours.feed_forward.w_2.state_dict())


@torch.no_grad()
def torchs(ours: Transformer) -> nn.Transformer:
    """torch adds a norm behind each stack in either order; with the norm after the sublayer the paper has none."""
    c = ours.config
    options: dict[str, Any] = {"dropout": 0.0, "activation": c.activation, "batch_first": True}
    options["norm_first"] = c.norm_first
    encoder_norm, decoder_norm = (nn.LayerNorm(c.d_model) if c.norm_first else None for _ in range(2))
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(c.d_model, c.num_heads, c.d_ff, **options),
        c.num_encoder_layers,
        encoder_norm,
        enable_nested_tensor=False,
    )
    decoder = nn.TransformerDecoder(
        nn.TransformerDecoderLayer(c.d_model, c.num_heads, c.d_ff, **options), c.num_decoder_layers, decoder_norm
    )
    # It draws all weights anew, so they are copied only now.
    theirs = nn.Transformer(c.d_model, c.num_heads, custom_encoder=encoder, custom_decoder=decoder, **options)
    for layer, own in zip(encoder.layers, ours.encoder_layers, strict=True):
        copy_layer(layer, own)
    for layer, own in zip(decoder.layers, ours.decoder_layers, strict=True):
        copy_layer(layer, own)
    if encoder_norm is not None and decoder_norm is not None:
        encoder_norm.load_state_dict(ours.encoder_norm.state_dict())
        decoder_norm.load_state_dict(ours.decoder_norm.state_dict())
    return theirs.eval()


def embedded(table: Tensor, ids: Tensor, positions: Tensor) -> Tensor:
    return table[ids] * math.sqrt(table.shape[1]) + positions[: ids.shape[1]]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("num_heads", "d_model"), [(3, 15), (2, 14)])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("norm_first", [False, True])
def test_is_torchs_transformer(
    norm_first: bool, activation: Any, num_heads: int, d_model: int, masked: bool, attention_path: str
) -> None:
    config = replace(CONFIG, norm_first=norm_first, activation=activation, num_heads=num_heads, d_model=d_model)
    model = random_model(config)
    (src, tgt), (src_mask, tgt_mask) = random_ids(config), (SRC_MASK, TGT_MASK) if masked else (None, None)
    theirs = torchs(model)
    x = embedded(model.source_embedding.weight, src, sinusoidal(11, d_model))
    y = embedded(model.target_embedding.weight, tgt, sinusoidal(11, d_model))
    hidden = None if src_mask is None else ~src_mask
    memory = theirs.encoder(x, src_key_padding_mask=hidden)
    states = theirs(
        x,
        y,
        tgt_mask=torch.ones(5, 5, dtype=torch.bool).triu(1),
        src_key_padding_mask=hidden,
        tgt_key_padding_mask=None if tgt_mask is None else ~tgt_mask,
        memory_key_padding_mask=hidden,
    )
    real_src = torch.ones(2, 7, dtype=torch.bool) if src_mask is None else src_mask
    real_tgt = torch.ones(2, 5, dtype=torch.bool) if tgt_mask is None else tgt_mask
    found = model.encode(src, src_mask).of_layer(0)
    torch.testing.assert_close(found[real_src], memory[real_src], rtol=0, atol=1e-5)
    found = model.decoder_states(src, tgt, src_mask, tgt_mask)
    torch.testing.assert_close(found[real_tgt], states[real_tgt], rtol=0, atol=1e-5)
    logits = model(src, tgt, src_mask, tgt_mask)
    expected = states @ model.output_projection.weight.T
    torch.testing.assert_close(logits[real_tgt], expected[real_tgt], rtol=0, atol=1e-5)


def test_gradients_are_those_of_torchs_transformer() -> None:
    model = random_model(CONFIG)
    src, tgt = random_ids(CONFIG)
    theirs = torchs(model)
    tables = [
        embedding.weight.detach().clone().requires_grad_()
        for embedding in (model.source_embedding, model.target_embedding)
    ]
    x, y = (embedded(table, ids, sinusoidal(11, 15)) for table, ids in zip(tables, (src, tgt), strict=True))
    hidden, later = ~SRC_MASK, torch.ones(5, 5, dtype=torch.bool).triu(1)
    states = theirs(x, y, tgt_mask=later, src_key_padding_mask=hidden, memory_key_padding_mask=hidden)
    expected_loss = F.cross_entropy((states @ tables[1].T).flatten(0, 1), tgt.flatten())
    expected_loss.backward()
    loss = F.cross_entropy(model(src, tgt, SRC_MASK).flatten(0, 1), tgt.flatten())
    loss.backward()
    torch.testing.assert_close(loss, expected_loss)
    torch.testing.assert_close(model.source_embedding.weight.grad, tables[0].grad, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.target_embedding.weight.grad, tables[1].grad, rtol=0, atol=1e-5)
    for ours, layer in zip(model.encoder_layers, theirs.encoder.layers, strict=True):
        found, wanted = ours.self_attention.w_qkv.weight.grad, layer.self_attn.in_proj_weight.grad
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    for ours, layer in zip(model.decoder_layers, theirs.decoder.layers, strict=True):
        found, wanted = ours.feed_forward.w_1.weight.grad, layer.linear1.weight.grad
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


# The paper's numbers.


@pytest.mark.parametrize(("size", "millions"), [("base", 65), ("big", 213)])
def test_published_parameter_counts(size: str, millions: float) -> None:
    config = replace(PUBLISHED_SIZES[size], source_vocab_size=37_000, target_vocab_size=37_000)
    with torch.device("meta"):
        model = Transformer(config)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert abs(count / 1e6 / millions - 1) < 0.04


def test_published_sizes_are_table_3() -> None:
    base, big = PUBLISHED_SIZES["base"], PUBLISHED_SIZES["big"]
    for config, d_model, num_heads, d_ff, rate in ((base, 512, 8, 2048, 0.1), (big, 1024, 16, 4096, 0.3)):
        assert (config.d_model, config.num_heads, config.layer.head_dim, config.d_ff) == (d_model, num_heads, 64, d_ff)
        assert (config.num_encoder_layers, config.num_decoder_layers, config.dropout) == (6, 6, rate)
        assert (config.norm_first, config.activation, config.positions) == (False, "relu", "sinusoidal")
        assert (config.memory, config.tie_embeddings) == ("last", "three-way")


def test_dropout_is_where_the_paper_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the sums of embeddings and positions of both stacks, and on the output of each sublayer (section 5.4)."""
    drawn: list[float] = []

    def record(x: Tensor, rate: float) -> Tensor:
        drawn.append(rate)
        return torch.ones_like(x)

    monkeypatch.setattr(dropout_module, "keep_mask", record)
    monkeypatch.setattr(kernels, "_load", lambda: (None, "off"))  # which draw no mask
    rates = {"dropout": 0.1, "attention_dropout": 0.2, "feed_forward_dropout": 0.3}
    model = random_model(replace(CONFIG, **rates)).train()
    src, tgt = random_ids(CONFIG)
    logits = model(src, tgt)
    encoders, decoders = CONFIG.num_encoder_layers, CONFIG.num_decoder_layers
    assert drawn.count(0.1) == 2 + 2 * encoders + 3 * decoders
    assert drawn.count(0.2) == encoders + 2 * decoders
    assert drawn.count(0.3) == encoders + decoders
    assert len(drawn) == 2 + 4 * encoders + 6 * decoders
    drawn.clear()
    torch.testing.assert_close(model.eval()(src, tgt), logits)
    assert not drawn


# The options.


def test_layerwise_memory_is_each_encoder_layers_own() -> None:
    config = replace(CONFIG, memory="layerwise", num_encoder_layers=3, num_decoder_layers=3, norm_first=True)
    model = random_model(config)
    src, tgt = random_ids(config)
    theirs = torchs(model)
    x = embedded(model.source_embedding.weight, src, sinusoidal(11, 15))
    y = embedded(model.target_embedding.weight, tgt, sinusoidal(11, 15))
    hidden, later = ~SRC_MASK, torch.ones(5, 5, dtype=torch.bool).triu(1)
    for encoder_layer, decoder_layer in zip(theirs.encoder.layers, theirs.decoder.layers, strict=True):
        x = encoder_layer(x, src_key_padding_mask=hidden)
        memory = model.encoder_norm(x)
        y = decoder_layer(y, memory, tgt_mask=later, memory_key_padding_mask=hidden)
    found = model.decoder_states(src, tgt, SRC_MASK)
    torch.testing.assert_close(found, model.decoder_norm(y), rtol=0, atol=1e-5)
    last = Transformer(replace(config, memory="last")).eval()
    last.load_state_dict(model.state_dict())
    assert not torch.allclose(last.decoder_states(src, tgt, SRC_MASK), found, atol=1e-3)


def test_memory_of_a_single_layer() -> None:
    layers = tuple(torch.full((1, 1, 1), float(i)) for i in range(3))
    assert [int(Memory(layers, None).of_layer(i)) for i in range(3)] == [0, 1, 2]
    assert [int(Memory(layers[2:], None).of_layer(i)) for i in range(3)] == [2, 2, 2]
    config = replace(CONFIG, memory="layerwise", num_encoder_layers=1, num_decoder_layers=1)
    model, last = random_model(config), random_model(replace(config, memory="last"))
    assert torch.equal(model(*random_ids(config)), last(*random_ids(config)))


def test_learned_positions_are_added_to_both_sides() -> None:
    config = replace(CONFIG, positions="learned")
    model = random_model(config)
    fixed = Transformer(CONFIG).eval()
    fixed.load_state_dict(model.state_dict(), strict=False)
    src, tgt = random_ids(config)
    assert not torch.allclose(model(src, tgt), fixed(src, tgt), atol=1e-3)
    with torch.no_grad():
        model.source_positions.table.copy_(sinusoidal(11, 15))
        model.target_positions.table.copy_(sinusoidal(11, 15))
    assert torch.equal(model(src, tgt), fixed(src, tgt))
    model(src, tgt).sum().backward()
    for positions, length in ((model.source_positions, 7), (model.target_positions, 5)):
        reached = positions.table.grad.abs().sum(dim=1) > 0
        assert reached.tolist() == [pos < length for pos in range(11)]
    assert model.source_positions.table.data_ptr() != model.target_positions.table.data_ptr()


def test_order_means_something() -> None:
    model = random_model(CONFIG)
    src, tgt = random_ids(CONFIG)
    assert not torch.allclose(model(src.flip(1), tgt), model(src, tgt), atol=1e-3)


@pytest.mark.parametrize(("tie", "tables"), [("three-way", "one"), ("decoder", "source apart"), ("none", "three")])
def test_ways_of_tying(tie: Any, tables: str) -> None:
    config = replace(CONFIG, tie_embeddings=tie, source_vocab_size=23)
    model = random_model(config)
    weights = model.source_embedding.weight, model.target_embedding.weight, model.output_projection.weight
    source, target, output = (weight.data_ptr() for weight in weights)
    found = {
        "one": source == target == output,
        "source apart": source != target == output,
        "three": len({source, target, output}) == 3,
    }
    assert found.pop(tables)
    assert not any(found.values())
    sizes = [parameter.shape for parameter in model.parameters()].count(torch.Size([23, 15]))
    assert sizes == {"one": 1, "source apart": 2, "three": 3}[tables]
    with torch.no_grad():  # a step of the optimizer must not untie them
        for parameter in model.parameters():
            parameter.mul_(2)
    assert torch.equal(weights[1], weights[2]) == (tie != "none")
    assert torch.equal(weights[0], weights[1]) == (tie == "three-way")


def test_an_output_table_of_its_own_begins_like_an_embedding() -> None:
    model = Transformer(replace(CONFIG, tie_embeddings="none"))
    assert torch.equal(model.output_projection.weight, model.target_embedding.weight)


def test_maps_are_named_by_place() -> None:
    model, maps = random_model(CONFIG), Maps()
    src, tgt = random_ids(CONFIG)
    model.decoder_states(src, tgt, SRC_MASK, maps=maps)
    shapes = {name: tuple(weights.shape) for name, weights in maps.weights.items()}
    assert shapes == (
        {f"encoder.{i}.self": (2, 3, 7, 7) for i in range(2)}
        | {f"decoder.{i}.self": (2, 3, 5, 5) for i in range(4)}
        | {f"decoder.{i}.cross": (2, 3, 5, 7) for i in range(4)}
    )
    for name, weights in maps.weights.items():
        if name.startswith("decoder") and name.endswith("self"):
            assert not weights.triu(1).any()
        else:
            assert not weights[1, :, :, 4:].any()  # the source's padding


def test_the_limit_of_the_positions() -> None:
    model = random_model(CONFIG)
    assert model.max_len == 11
    ids = torch.zeros(1, 12, dtype=torch.long)
    model(ids[:, :11], ids[:, :11])
    for src, tgt in ((ids, ids[:, :3]), (ids[:, :3], ids)):
        with pytest.raises(IndexError):
            model(src, tgt)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"d_model": 512, "num_heads": 7}, "d_model = 512 is not divisible by num_heads = 7"),
        ({"memory": "layerwise", "num_encoder_layers": 2}, r"encoder layers \(2\) as decoder layers \(6\)"),
        ({"source_vocab_size": 5, "target_vocab_size": 8}, "one vocabulary, got 5 source and 8 target"),
        ({"num_heads": 0}, "num_heads must be at least 1, got 0"),
        ({"d_model": -8}, "d_model must be at least 1, got -8"),
        ({"num_decoder_layers": 0}, "num_decoder_layers must be at least 1, got 0"),
        ({"max_len": 0}, "max_len must be at least 1, got 0"),
        ({"head_dim": -1}, "head_dim must be at least 0, got -1"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"attention_dropout": 1.5}, r"attention_dropout must lie in \[0, 1\), got 1.5"),
        ({"feed_forward_dropout": -0.1}, r"feed_forward_dropout must lie in \[0, 1\), got -0.1"),
    ],
)
def test_wrong_configs_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransformerConfig(**values)


def test_head_dim_need_not_fill_the_model(build_model: Callable[..., nn.Module]) -> None:
    config = replace(CONFIG, d_model=14, num_heads=3, head_dim=5)
    assert config.layer.head_dim == 5
    assert replace(CONFIG, d_model=14, num_heads=7).layer.head_dim == 2
    model = build_model("transformer", config)
    assert model.encoder_layers[0].self_attention.w_qkv.weight.shape == (45, 14)
    assert model.encoder_layers[0].self_attention.w_o.weight.shape == (14, 15)
