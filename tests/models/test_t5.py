"""T5 against the paper's sizes, against its arithmetic written out, and against transformers with the same weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zhuyi.decoding import Beam, Greedy, Request, Rule, Search, run
from zhuyi.models.t5 import (
    PUBLISHED_SIZES,
    T5,
    RelativePositions,
    T5Config,
    from_published,
    published_names,
    to_published,
)
from zhuyi.nn.maps import Maps
from zhuyi.run_folder import named_weights, read_tensors, set_weights
from zhuyi.tasks.sentence_search import begin

TINY = T5Config(
    d_model=14, num_heads=2, head_dim=5, d_ff=22, num_encoder_layers=2, num_decoder_layers=3,
    num_buckets=9, max_distance=13, max_len=41, vocab_size=29,
)  # fmt: skip
GATED = replace(TINY, gated=True, activation="gelu-tanh", tie_embeddings=False)
# Odd widths, unequal depths, both kinds of feed-forward network tied and not, other buckets, vocabularies of odd sizes.
VARIANTS: dict[str, T5Config] = {
    "plain": TINY,
    "gated-untied": GATED,
    "gated-tied": replace(GATED, tie_embeddings=True, head_dim=8, d_model=16, vocab_size=37),
    "plain-untied": replace(TINY, tie_embeddings=False, num_heads=3, head_dim=7, d_model=15),
    "deep-encoder": replace(GATED, num_encoder_layers=4, num_decoder_layers=1, num_buckets=32, max_distance=128),
    "gated-relu": replace(GATED, activation="relu", num_heads=5, head_dim=3, norm_epsilon=1e-3),
    "plain-gelu": replace(TINY, activation="gelu-tanh", num_encoder_layers=1, num_buckets=5, max_distance=40),
}
EOS_ID = 2


def random_model(config: T5Config, *, gain: float = 1.0) -> T5:
    """All weights random; a gain spreads the scores of different texts apart."""
    torch.manual_seed(3)
    model = T5(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(gain).add_(torch.randn_like(parameter), alpha=0.1)
    return model


def padded(side: str, vocab_size: int) -> tuple[Tensor, Tensor]:
    """Sources of 17, 5 and 1 tokens, padded on a side."""
    ids = torch.randint(3, vocab_size, (3, 17), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(17) < torch.tensor([17, 5, 1])[:, None]
    return ids, mask if side == "right" else mask.flip(1)


def test_published_sizes() -> None:
    """The published counts of parameters, at the published vocabulary of 32,128."""
    counts = {}
    with torch.device("meta"):
        for name, size in PUBLISHED_SIZES.items():
            counts[name] = sum(p.numel() for p in T5(replace(size, vocab_size=32128)).parameters())
    assert counts == {
        "small": 60_506_624,
        "base": 222_903_552,
        "large": 737_668_096,
        "v1.1-small": 76_961_152,
        "v1.1-base": 247_577_856,
        "v1.1-large": 783_150_080,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_ff": 0}, "d_ff must be at least 1, got 0"),
        ({"head_dim": 0}, "head_dim must be at least 1, got 0"),
        ({"dropout": 1.0}, "dropout must lie in"),
        ({"norm_epsilon": 0.0}, "norm_epsilon must be above 0"),
        ({"max_len": 2}, "max_len = 2"),
        ({"vocab_size": -1}, "vocab_size must be at least 0"),
        ({"num_buckets": 3}, "num_buckets must be at least 4"),
        ({"max_distance": 16}, "max_distance = 16, but the decoder tells distances up to 16"),
    ],
)
def test_wrong_options_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        T5Config(**changes)


def first_of_each_bucket(positions: RelativePositions, sign: int) -> list[int]:
    """The distances at which a new bucket begins, in a direction."""
    with torch.no_grad():
        positions.table.copy_(torch.arange(len(positions.table))[:, None].expand_as(positions.table))
        found = positions(sign * torch.arange(300)[None])[0, 0].tolist()
    return [distance for distance in range(300) if not distance or found[distance] != found[distance - 1]]


def test_buckets_of_the_paper() -> None:
    """Looking both ways, 8 exact distances and 8 that grow up to 128; the decoder has 16 of each."""
    both, back = RelativePositions(1, 32, 128, both_ways=True), RelativePositions(1, 32, 128, both_ways=False)
    grown = [8, 12, 16, 23, 32, 46, 64, 91]
    assert first_of_each_bucket(both, -1) == [*range(8), *grown]
    assert first_of_each_bucket(both, 1) == [*range(8), *grown]
    assert both(torch.tensor([[-300, -3, 0, 3, 300]]))[0, 0].tolist() == [15, 3, 0, 19, 31]
    assert first_of_each_bucket(back, -1)[:17] == list(range(17))
    assert back(torch.tensor([[-300, -128, -113, -112, -3, 0, 7]]))[0, 0].tolist() == [31, 31, 31, 30, 3, 0, 0]


# The arithmetic written out, over the names that checkpoints have.


def written_out(config: T5Config, w: dict[str, Tensor], src: Tensor, tgt: Tensor) -> Tensor:
    """Logits of one source and one target, head by head. Shape: src (S,), tgt (T,); returns (T, V)."""

    def norm(x: Tensor, name: str) -> Tensor:
        return x / (x.square().mean(dim=-1, keepdim=True) + config.norm_epsilon).sqrt() * w[f"{name}.weight"]

    def attention(x: Tensor, y: Tensor, name: str, bias: Tensor | None) -> Tensor:
        q, k, v = (each @ w[f"{name}.{part}.weight"].T for each, part in ((x, "q"), (y, "k"), (y, "v")))
        heads = []
        for head in range(config.num_heads):
            columns = slice(head * config.head_dim, (head + 1) * config.head_dim)
            logits = q[:, columns] @ k[:, columns].T
            heads.append(torch.softmax(logits if bias is None else logits + bias[head], dim=-1) @ v[:, columns])
        return torch.cat(heads, dim=-1) @ w[f"{name}.o.weight"].T

    def feed_forward(x: Tensor, name: str) -> Tensor:
        act = F.relu if config.activation == "relu" else lambda y: F.gelu(y, approximate="tanh")
        if config.gated:
            hidden = act(x @ w[f"{name}.wi_0.weight"].T) * (x @ w[f"{name}.wi_1.weight"].T)
        else:
            hidden = act(x @ w[f"{name}.wi.weight"].T)
        return hidden @ w[f"{name}.wo.weight"].T

    def stack(x: Tensor, name: str, layers: int, memory: Tensor | None, bias: Tensor) -> Tensor:
        for i in range(layers):
            place = f"{name}.block.{i}.layer"
            y = norm(x, f"{place}.0.layer_norm")
            x = x + attention(y, y, f"{place}.0.SelfAttention", bias)
            if memory is not None:
                x = x + attention(norm(x, f"{place}.1.layer_norm"), memory, f"{place}.1.EncDecAttention", None)
            last = 1 if memory is None else 2
            x = x + feed_forward(norm(x, f"{place}.{last}.layer_norm"), f"{place}.{last}.DenseReluDense")
        return norm(x, f"{name}.final_layer_norm")

    def bias_of(name: str, length: int, both_ways: bool) -> Tensor:
        positions = RelativePositions(config.num_heads, config.num_buckets, config.max_distance, both_ways=both_ways)
        positions.table.data = w[f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        offsets = torch.arange(length) - torch.arange(length)[:, None]
        bias = positions(offsets)
        return bias if both_ways else bias.masked_fill(offsets > 0, float("-inf"))

    table = w["shared.weight"]
    memory = stack(table[src], "encoder", config.num_encoder_layers, None, bias_of("encoder", len(src), True))
    x = stack(table[tgt], "decoder", config.num_decoder_layers, memory, bias_of("decoder", len(tgt), False))
    return x / config.d_model**0.5 @ table.T if config.tie_embeddings else x @ w["lm_head.weight"].T


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS)
def test_is_the_arithmetic_written_out(variant: str) -> None:
    config = VARIANTS[variant]
    model = random_model(config).double()
    src, tgt = torch.arange(3, 22), torch.arange(1, 18)
    expected = written_out(config, to_published(named_weights(model), gated=config.gated), src, tgt)
    torch.testing.assert_close(model(src[None], tgt[None])[0], expected, rtol=0, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side(side: str) -> None:
    model = random_model(TINY).double()
    src, mask = padded(side, TINY.vocab_size)
    tgt = torch.randint(TINY.vocab_size, (3, 6))
    found = model(src, tgt, mask)
    for row in range(3):
        torch.testing.assert_close(found[row], model(src[row][mask[row]][None], tgt[row][None])[0], rtol=0, atol=1e-10)


def test_longer_texts_than_stated_are_refused() -> None:
    model = T5(TINY)
    short, long = torch.zeros(1, 41, dtype=torch.long), torch.zeros(1, 42, dtype=torch.long)
    for src, tgt in ((long, short), (short, long)):
        with pytest.raises(ValueError, match="42 tokens, but max_len = 41: T5 holds 2 numbers for each pair"):
            model(src, tgt)
    assert model(short, short).shape == (1, 41, 29)


@torch.no_grad()
@pytest.mark.parametrize("config", [TINY, GATED], ids=["tied", "untied"])
def test_first_weights(config: T5Config) -> None:
    """What each product gives is as large as what it takes, and so are the logits; attention begins undecided."""
    torch.manual_seed(0)
    sizes = {"d_model": 256, "num_heads": 4, "head_dim": 81, "d_ff": 400, "vocab_size": 500}
    model = T5(replace(config, **sizes)).eval()
    src, tgt = torch.randint(500, (4, 31)), torch.randint(500, (4, 23))
    assert 0.5 < float(model(src, tgt).std()) < 2.0
    layer = model.decoder_layers[0]
    q, k, v = layer.self_attention.w_qkv.weight.chunk(3)
    for weight, std in (
        (q, (256 * 81) ** -0.5),
        (k, 1 / 16),
        (v, 1 / 16),
        (layer.cross_attention.w_q.weight, (256 * 81) ** -0.5),
        (layer.cross_attention.w_kv.weight, 1 / 16),
        (layer.cross_attention.w_o.weight, (4 * 81) ** -0.5),
        (layer.feed_forward.w_1.weight, 1 / 16),
        (layer.feed_forward.w_2.weight, 1 / 20),
        (model.embedding.weight, 1.0),
        (model.decoder_positions.table, 1 / 16),
    ):
        tolerance = 0.05 if weight.numel() > 1000 else 0.5
        assert abs(float(weight.std()) / std - 1) < tolerance


def test_dropout_has_one_rate_everywhere() -> None:
    model = T5(replace(TINY, dropout=0.3))
    rates = [module.rate for module in model.modules() if hasattr(module, "rate")]
    rates += [module.dropout for module in model.modules() if isinstance(getattr(module, "dropout", None), float)]
    assert set(rates) == {0.3}
    assert len(rates) == 1 + 2 * (3 + 1) + 3 * (4 + 2)


def test_maps_have_names() -> None:
    maps, model = Maps(), T5(TINY).eval()
    model.decoder_states(torch.ones(1, 5, dtype=torch.long), torch.ones(1, 3, dtype=torch.long), maps=maps)
    assert {name: tuple(weights.shape) for name, weights in maps.weights.items()} == {
        **{f"encoder.{i}.self": (1, 2, 5, 5) for i in range(2)},
        **{f"decoder.{i}.self": (1, 2, 3, 3) for i in range(3)},
        **{f"decoder.{i}.cross": (1, 2, 3, 5) for i in range(3)},
    }


# Published weights.


@pytest.mark.parametrize("config", [TINY, GATED], ids=["plain", "gated"])
def test_published_weights_there_and_back(config: T5Config) -> None:
    weights = named_weights(random_model(config))
    theirs = to_published(weights, gated=config.gated)
    assert all(weight.is_contiguous() for weight in theirs.values())
    again = from_published(theirs, weights, gated=config.gated)
    assert again.keys() == weights.keys()
    assert all(torch.equal(again[name], weights[name]) for name in weights)
    copies = {f"{stack}.embed_tokens.weight": weights["embedding.weight"].clone() for stack in ("encoder", "decoder")}
    unused = {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": torch.zeros(3, 2)}
    tied = {"lm_head.weight": weights["embedding.weight"].clone()} if config.tie_embeddings else {}
    from_published(theirs | copies | unused | tied, weights, gated=config.gated)


def test_what_does_not_fit_is_named() -> None:
    weights = named_weights(random_model(TINY))
    theirs = to_published(weights, gated=False)
    name = "decoder.block.1.layer.0.SelfAttention.k.weight"
    without = {key: value for key, value in theirs.items() if key != name}
    with pytest.raises(ValueError, match=f"no {name}, which is decoder_layers.1.self_attention.w_qkv.weight here"):
        from_published(without, weights, gated=False)
    for more in ({"lm_head.weight": torch.zeros(29, 14)}, {"classification_head.dense.bias": torch.zeros(2)}):
        with pytest.raises(ValueError, match=f"has {next(iter(more))}, for which the model has no place"):
            from_published(theirs | more, weights, gated=False)


def test_names_of_the_gated_network() -> None:
    name = "encoder_layers.1.feed_forward.w_1.weight"
    assert published_names(name, gated=False) == ("encoder.block.1.layer.1.DenseReluDense.wi.weight",)
    assert published_names(name, gated=True)[1] == "encoder.block.1.layer.1.DenseReluDense.wi_1.weight"


# transformers.


def theirs_of(config: T5Config, weights: dict[str, Tensor]) -> Any:
    """transformers' T5 with our weights."""
    transformers = pytest.importorskip("transformers", reason="needs the extra peers")
    transformers.utils.logging.disable_progress_bar()
    activation = {"gelu-tanh": "gelu_new"}.get(config.activation, config.activation)
    model = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=config.vocab_size,
            d_model=config.d_model,
            d_kv=config.head_dim,
            d_ff=config.d_ff,
            num_layers=config.num_encoder_layers,
            num_decoder_layers=config.num_decoder_layers,
            num_heads=config.num_heads,
            relative_attention_num_buckets=config.num_buckets,
            relative_attention_max_distance=config.max_distance,
            layer_norm_epsilon=config.norm_epsilon,
            feed_forward_proj=f"gated-{activation}" if config.gated else activation,
            tie_word_embeddings=config.tie_embeddings,
            pad_token_id=0,
            eos_token_id=EOS_ID,
            decoder_start_token_id=1,
        )
    ).eval()
    if not config.tie_embeddings:  # transformers ties what its config says is not
        model.lm_head.weight = nn.Parameter(torch.empty(config.vocab_size, config.d_model))
    found = model.load_state_dict(to_published(weights, gated=config.gated), strict=False)
    tied = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    assert set(found.missing_keys) == tied | ({"lm_head.weight"} if config.tie_embeddings else set())
    assert not found.unexpected_keys
    return model


@pytest.mark.peers
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_logits_are_theirs(variant: str, side: str) -> None:
    config = VARIANTS[variant]
    model = random_model(config)
    theirs = theirs_of(config, named_weights(model))
    src, mask = padded(side, config.vocab_size)
    tgt = torch.randint(config.vocab_size, (3, 19), generator=torch.Generator().manual_seed(2))
    tgt_mask = torch.arange(19) < torch.tensor([4, 19, 7])[:, None]
    expected = theirs(
        input_ids=src, attention_mask=mask.long(), decoder_input_ids=tgt, decoder_attention_mask=tgt_mask.long()
    ).logits
    assert expected.std() > 0.5
    torch.testing.assert_close(model(src, tgt, mask, tgt_mask)[tgt_mask], expected[tgt_mask], rtol=0, atol=1e-5)


@pytest.mark.peers
@pytest.mark.parametrize("config", [TINY, GATED], ids=["plain", "gated"])
def test_what_they_save_is_read(config: T5Config, tmp_path: Path) -> None:
    ours = named_weights(random_model(config))
    theirs_of(config, ours).save_pretrained(tmp_path)
    saved = read_tensors(tmp_path / "model.safetensors")
    other = T5(config)
    set_weights(other, from_published(saved, ours, gated=config.gated), tmp_path)
    assert all(torch.equal(weight, ours[name]) for name, weight in named_weights(other).items())


@pytest.mark.peers
def test_every_distance_is_in_their_bucket() -> None:
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5", reason="needs the extra peers")
    offsets = torch.arange(-700, 700)
    for num_buckets, max_distance in ((32, 128), (8, 20), (9, 13), (31, 100), (64, 512), (5, 40), (4, 3)):
        for both_ways in (True, False):
            positions = RelativePositions(1, num_buckets, max_distance, both_ways=both_ways)
            with torch.no_grad():
                positions.table.copy_(torch.arange(num_buckets)[:, None])
            expected = t5.T5Attention._relative_position_bucket(offsets, both_ways, num_buckets, max_distance)
            assert torch.equal(positions(offsets[None])[0, 0].long(), expected)


def write(model: T5, sources: list[list[int]], rule: Rule, max_new_tokens: int) -> list[list[int]]:
    """The search alone, without the filters of a task."""
    device = torch.device("cpu")
    search = Search(lambda each: begin(model, each, device), model.step, rule, eos_id=EOS_ID, stream=False)
    requests = [Request(i, tuple(ids), max_new_tokens) for i, ids in enumerate(sources)]
    found = {event.id: event.hypotheses[0] for event in run(search, requests, max_rows=64) if event.hypotheses}
    return [list(found[i].tokens) for i in range(len(sources))]


@pytest.mark.peers
@pytest.mark.parametrize(
    ("rule", "options"),
    [
        (Greedy(), {"num_beams": 1}),
        (Beam(4, length_rule="power", alpha=0.0), {"num_beams": 4, "length_penalty": 0.0, "early_stopping": "never"}),
        (Beam(4, length_rule="power", alpha=1.0), {"num_beams": 4, "length_penalty": 1.0, "early_stopping": "never"}),
    ],
    ids=["greedy", "beam-0", "beam-1"],
)
@pytest.mark.parametrize("variant", ["plain", "gated-untied"])
@torch.inference_mode()
def test_generate_writes_the_same(variant: str, rule: Rule, options: dict[str, Any]) -> None:
    """Of 200 sources one may differ, where two texts are about as likely."""
    # transformers keeps no cache for a decoder deeper than its encoder.
    config = replace(VARIANTS[variant], num_encoder_layers=4)
    model = random_model(config, gain=1.7)
    model.output_projection.weight[EOS_ID] *= 3  # so that texts end
    theirs = theirs_of(config, named_weights(model))
    generator = torch.Generator().manual_seed(5)
    lengths = torch.randint(1, 14, (200,), generator=generator)
    src = torch.randint(3, config.vocab_size, (200, 13), generator=generator)
    mask = torch.arange(13) < lengths[:, None]
    expected = theirs.generate(
        input_ids=src * mask, attention_mask=mask.long(), max_new_tokens=12, do_sample=False, **options
    )
    rows = [row[1:].tolist() for row in expected]
    cut = [row[: row.index(EOS_ID)] if EOS_ID in row else row for row in rows]
    found = write(model, [ids[real].tolist() for ids, real in zip(src, mask, strict=True)], rule, 12)
    assert sum(a != b for a, b in zip(found, cut, strict=True)) <= 1
    assert sum(EOS_ID in row for row in rows) > 10
    assert len({tuple(row) for row in cut}) > 30
