"""T5 (Raffel et al. 2020): a Transformer for which every task is text to text, and positions are distances."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zhuyi.models.published import drop_copy, parts, refuse_rest, take
from zhuyi.nn.activations import Activation
from zhuyi.nn.attention import CrossAttention, SelfAttention
from zhuyi.nn.blocks import DecoderLayer, EncoderLayer, LayerConfig
from zhuyi.nn.dropout import Dropout
from zhuyi.nn.embeddings import OutputProjection, TokenEmbedding
from zhuyi.nn.linear import Linear
from zhuyi.nn.maps import Maps
from zhuyi.nn.masks import padding_mask
from zhuyi.nn.norm import NORMS
from zhuyi.nn.state import DecoderState, empty_cache, stack_layers


@dataclass(frozen=True)
class T5Config:
    """Sizes and options; the defaults are the paper's small model. T5 1.1 is `gated`, by `gelu-tanh`, and not tied.

    Args:   head_dim: width of a head, whatever d_model and num_heads are.
            gated: of the feed-forward network.
            tie_embeddings: the output has the embedding's table too, and then the last states are divided by
            sqrt(d_model).
            num_buckets: how many groups of distances, each with a bias of its own for every head.
            max_distance: from which on all distances are one group.
            max_len: longer texts are refused, since a bias for each pair of tokens is held.
            vocab_size: 0 means "from the tokenizer".
    """

    name: Literal["t5"] = "t5"
    d_model: int = 512
    num_heads: int = 8
    head_dim: int = 64
    d_ff: int = 2048
    num_encoder_layers: int = 6
    num_decoder_layers: int = 6
    dropout: float = 0.1
    activation: Activation = "relu"
    gated: bool = False
    norm_epsilon: float = 1e-6
    tie_embeddings: bool = True
    num_buckets: int = 32
    max_distance: int = 128
    max_len: int = 512
    vocab_size: int = 0

    def __post_init__(self) -> None:
        for name in ("d_model", "num_heads", "head_dim", "d_ff", "num_encoder_layers", "num_decoder_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")
        if not 0.0 < self.norm_epsilon < float("inf"):
            raise ValueError(f"norm_epsilon must be above 0, got {self.norm_epsilon}")
        if self.max_len < 3:
            raise ValueError(f"max_len = {self.max_len}, but a text of one token takes 3 with its start and end signs")
        if self.vocab_size < 0:
            raise ValueError(f"vocab_size must be at least 0, got {self.vocab_size}")
        if self.num_buckets < 4:
            raise ValueError(f"num_buckets must be at least 4, two for each direction; got {self.num_buckets}")
        if self.max_distance <= self.num_buckets // 2:
            raise ValueError(
                f"max_distance = {self.max_distance}, but the decoder tells distances up to {self.num_buckets // 2} "
                "apart exactly (half of num_buckets): make it larger"
            )

    @property
    def source_vocab_size(self) -> int:
        """Both sides have the same vocabulary."""
        return self.vocab_size

    @property
    def target_vocab_size(self) -> int:
        """Both sides have the same vocabulary."""
        return self.vocab_size

    @property
    def layer(self) -> LayerConfig:
        return LayerConfig(
            d_model=self.d_model,
            num_heads=self.num_heads,
            head_dim=self.head_dim,
            d_ff=self.d_ff,
            dropout=self.dropout,
            attention_dropout=self.dropout,
            feed_forward_dropout=self.dropout,
            activation=self.activation,
            norm_first=True,
            norm_epsilon=self.norm_epsilon,
            norm="rms",
            bias=False,
            gated=self.gated,
            attention_scale=1.0,
        )


def _size(d_model: int, num_heads: int, d_ff: int, num_layers: int) -> T5Config:
    return T5Config(
        d_model=d_model,
        num_heads=num_heads,
        d_ff=d_ff,
        num_encoder_layers=num_layers,
        num_decoder_layers=num_layers,
    )


def _gated_size(d_model: int, num_heads: int, d_ff: int, num_layers: int) -> T5Config:
    size = _size(d_model, num_heads, d_ff, num_layers)
    return replace(size, activation="gelu-tanh", gated=True, tie_embeddings=False)


# Raffel et al. 2020, section 3.7; those of T5 1.1 (and Flan-T5) are in the authors' repository.
PUBLISHED_SIZES = {
    "small": _size(512, 8, 2048, 6),
    "base": _size(768, 12, 3072, 12),
    "large": _size(1024, 16, 4096, 24),
    "v1.1-small": _gated_size(512, 6, 1024, 8),
    "v1.1-base": _gated_size(768, 12, 2048, 12),
    "v1.1-large": _gated_size(1024, 16, 2816, 24),
}


class RelativePositions(nn.Module):
    """What is added to the logits of attention for the distance between query and key: one number a bucket and head.

    Half of the buckets stand for one distance each, from 0 on; those of the other half grow, as logarithms do, up to
    `max_distance`. Looking both ways, keys behind the query have one half of all buckets and keys ahead the other.

    Shape:  offsets (T, S), the key's position less the query's; returns (H, T, S).
    Source: Raffel et al. 2020, section 2.1; the growth of the buckets is in the authors' code alone.
    """

    buckets: Tensor

    def __init__(self, num_heads: int, num_buckets: int, max_distance: int, *, both_ways: bool) -> None:
        super().__init__()
        self.ahead = num_buckets // 2 if both_ways else 0  # the first bucket of keys ahead; 0: none are attended
        self.table = nn.Parameter(torch.empty(num_buckets, num_heads))
        self.register_buffer("buckets", _buckets(self.ahead or num_buckets, max_distance), persistent=False)

    def forward(self, offsets: Tensor) -> Tensor:
        distances = offsets.abs() if self.ahead else (-offsets).clamp_min(0)
        buckets = self.buckets[distances.clamp_max(len(self.buckets) - 1)]
        if self.ahead:
            buckets = buckets + self.ahead * (offsets > 0)
        return F.embedding(buckets, self.table).movedim(-1, 0)  # (H, T, S)


def _buckets(num_buckets: int, max_distance: int) -> Tensor:
    """The bucket of each distance from 0 to `max_distance`, found in float32 as by the authors, whose rounding decides.

    Shape: returns (max_distance + 1,).
    """
    exact = num_buckets // 2
    distances = torch.arange(max_distance + 1, device="cpu")
    growth = (distances.clamp_min(1).float() / exact).log() / math.log(max_distance / exact)
    grown = exact + (growth * (num_buckets - exact)).long()
    return torch.where(distances < exact, distances, grown.clamp_max(num_buckets - 1))


@dataclass(frozen=True)
class Memory:
    """The encoder's output (B, S, D), and the source's padding mask."""

    states: Tensor
    mask: Tensor | None


class T5(nn.Module):
    """Source ids and the target ids so far, to the logits of each next target id.

    Source: Raffel et al. 2020, section 2.1. Departure: an output table of its own (T5 1.1) begins such that the first
            logits are of size 1.
    """

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        c = config.layer
        self.embedding = TokenEmbedding(config.vocab_size, c.d_model, scaled=False)
        buckets = (c.num_heads, config.num_buckets, config.max_distance)
        self.encoder_positions = RelativePositions(*buckets, both_ways=True)
        self.decoder_positions = RelativePositions(*buckets, both_ways=False)
        self.encoder_layers = nn.ModuleList(EncoderLayer(c) for _ in range(config.num_encoder_layers))
        self.decoder_layers = nn.ModuleList(DecoderLayer(c) for _ in range(config.num_decoder_layers))
        self.encoder_norm = NORMS[c.norm](c.d_model, eps=c.norm_epsilon)
        self.decoder_norm = NORMS[c.norm](c.d_model, eps=c.norm_epsilon)
        self.dropout = Dropout(c.dropout)  # of embeddings, and of both stacks' outputs
        tied = config.tie_embeddings
        self.output_projection = OutputProjection(
            self.embedding.weight if tied else nn.Parameter(torch.empty(config.vocab_size, c.d_model))
        )
        self.output_scale = c.d_model**-0.5 if tied else 1.0
        self._draw()

    @property
    def max_len(self) -> int:
        """The longest source or target, in tokens, end sign included."""
        return self.config.max_len

    def forward(
        self, src: Tensor, tgt: Tensor, src_mask: Tensor | None = None, tgt_mask: Tensor | None = None
    ) -> Tensor:
        """Logits of what follows each target position.

        Shape: src (B, S), tgt (B, T) beginning with the start sign, masks of the same shapes with True = a real
               token (None: all are); returns (B, T, V).
        """
        return self.output_projection(self.decoder_states(src, tgt, src_mask, tgt_mask))

    def decoder_states(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        maps: Maps | None = None,
    ) -> Tensor:
        """What the output's table is multiplied with.

        Shape: as `forward`; returns (B, T, D).
        """
        # tgt_mask is part of the contract; targets are padded on the right and causality hides what comes later.
        return self.decode(tgt, self.encode(src, src_mask, maps), maps)

    def encode(self, src: Tensor, src_mask: Tensor | None = None, maps: Maps | None = None) -> Memory:
        """What the decoder will attend to.

        Shape: src (B, S), src_mask (B, S), on whichever side the padding is.
        """
        mask, bias = padding_mask(src_mask), self.encoder_positions(self._offsets(src))[None]  # (1, H, S, S)
        x = self.dropout(self.embedding(src))  # (B, S, D)
        for i, layer in enumerate(self.encoder_layers):
            x = layer(x, mask, maps, f"encoder.{i}", bias)
        return Memory(self.dropout(self.encoder_norm(x)), mask)

    def decode(self, tgt: Tensor, memory: Memory, maps: Maps | None = None) -> Tensor:
        """`decoder_states` of all target positions at once.

        Shape: tgt (B, T); returns (B, T, D).
        """
        bias = self.decoder_positions(self._offsets(tgt))[None]  # (1, H, T, T)
        x = self.dropout(self.embedding(tgt))  # (B, T, D)
        for i, layer in enumerate(self.decoder_layers):
            x = layer(x, memory.states, memory.mask, maps, f"decoder.{i}", bias)
        return self._output_states(x)

    def start(self, memory: Memory, prefix: Tensor, prefix_mask: Tensor | None = None) -> DecoderState:
        """A state that has consumed all but the last token of each row's prefix.

        Shape: prefix (B, P), right-padded where prefix_mask (B, P) is False.
        """
        c = self.config.layer
        state = DecoderState(
            empty_cache(self.embedding.weight, len(self.decoder_layers), len(prefix), c.num_heads, c.head_dim),
            stack_layers([layer.cross_attention.project_memory(memory.states) for layer in self._decoder()]),
            None if memory.mask is None else memory.mask[:, 0, 0],
            scale=c.attention_scale,
        )
        return state.consume(prefix, prefix_mask, lambda ids: self._advance(ids, state))

    def step(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """One more token a row.

        Shape: tokens (R,); returns logits (R, V) and the state to go on with; the old one is spent.
        """
        x = self._advance(tokens.view(state.groups, state.width), state)  # (G, W, D)
        return self.output_projection(self._output_states(x.flatten(0, 1))), state

    def _advance(self, ids: Tensor, state: DecoderState) -> Tensor:
        """The newest tokens of each row through all layers.

        Shape: ids (G, W * T), of W and T one being 1; returns (G, W * T, D).
        """
        state.begin(ids.shape[1] // state.width)
        state.bias_past(self.decoder_positions(state.offsets))
        x = self.dropout(self.embedding(ids))
        for i, layer in enumerate(self._decoder()):
            x = layer.advance(x, state, i)
        return x

    def _output_states(self, x: Tensor) -> Tensor:
        x = self.dropout(self.decoder_norm(x))
        return x if self.output_scale == 1.0 else x * self.output_scale

    def _offsets(self, ids: Tensor) -> Tensor:
        """The key's position less the query's, of every pair. Shape: ids (B, T); returns (T, T)."""
        length = ids.shape[1]
        if length > self.config.max_len:
            raise ValueError(
                f"{length} tokens, but max_len = {self.config.max_len}: T5 holds {self.config.num_heads} numbers for "
                "each pair of tokens; shorten the text, or load the model with a larger max_len"
            )
        positions = torch.arange(length, device=ids.device)
        return positions - positions[:, None]

    def _decoder(self) -> Iterator[DecoderLayer]:
        for layer in self.decoder_layers:
            assert isinstance(layer, DecoderLayer)
            yield layer

    @torch.no_grad()
    def _draw(self) -> None:
        """First weights, as the authors' code draws them: each product keeps its input's size.

        The queries' weights are smaller by sqrt(d), by which nothing else divides the logits.
        """
        c = self.config.layer
        nn.init.normal_(self.embedding.weight)
        for table in (self.encoder_positions.table, self.decoder_positions.table):
            nn.init.normal_(table, std=c.d_model**-0.5)
        if not self.config.tie_embeddings:
            nn.init.normal_(self.output_projection.weight, std=c.d_model**-0.5)
        for module in self.modules():
            if isinstance(module, Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
        for module in self.modules():
            if isinstance(module, SelfAttention):
                module.w_qkv.weight.chunk(3)[0].mul_(c.head_dim**-0.5)
            elif isinstance(module, CrossAttention):
                module.w_q.weight.mul_(c.head_dim**-0.5)


# Published weights. A name of ours stands for one of theirs, or for several whose rows it has under one another.

_OUTSIDE_LAYERS = {
    "embedding": "shared",
    "output_projection": "lm_head",
    "encoder_norm": "encoder.final_layer_norm",
    "decoder_norm": "decoder.final_layer_norm",
    "encoder_positions": "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
    "decoder_positions": "decoder.block.0.layer.0.SelfAttention.relative_attention_bias",
}
_PROJECTIONS = {"w_qkv": ("q", "k", "v"), "w_q": ("q",), "w_kv": ("k", "v"), "w_o": ("o",), "w_2": ("wo",)}
# Copies of `shared.weight`, and a bias that no one reads.
_REPEATED = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
_UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"


def published_names(name: str, *, gated: bool) -> tuple[str, ...]:
    """What a checkpoint calls one of our weights; of several names, each is a part of its rows."""
    module, _, _ = name.rpartition(".")
    if module in _OUTSIDE_LAYERS:
        return (f"{_OUTSIDE_LAYERS[module]}.weight",)
    stack, number, sublayer, inside = module.split(".")  # encoder_layers.0.self_attention.w_qkv
    part, _, kind = sublayer.partition("_")  # self_attention, feed_forward_residual
    stack = stack.removesuffix("_layers")
    place = {"self": 0, "cross": 1, "feed": 1 if stack == "encoder" else 2}[part]
    prefix = f"{stack}.block.{number}.layer.{place}"
    if kind.endswith("residual"):
        return (f"{prefix}.layer_norm.weight",)
    theirs = {"self": "SelfAttention", "cross": "EncDecAttention", "feed": "DenseReluDense"}[part]
    projections = _PROJECTIONS.get(inside) or (("wi_0", "wi_1") if gated else ("wi",))
    return tuple(f"{prefix}.{theirs}.{projection}.weight" for projection in projections)


def from_published(weights: Mapping[str, Tensor], wanted: Iterable[str], *, gated: bool) -> dict[str, Tensor]:
    """A checkpoint's weights under our names.

    Args:   wanted: our names of all weights of the model that they are for.
    Raises: ValueError: one is not in the checkpoint, or the checkpoint has one that the model lacks.
    """
    left = dict(weights)
    left.pop(_UNUSED, None)
    found = {name: take(left, published_names(name, gated=gated), name) for name in wanted}
    for name in (*_REPEATED, "lm_head.weight"):
        drop_copy(left, name, found["embedding.weight"])
    refuse_rest(left)
    return found


def to_published(weights: Mapping[str, Tensor], *, gated: bool) -> dict[str, Tensor]:
    """Our weights under a checkpoint's names."""
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        found |= parts(weight, published_names(name, gated=gated))
    return found
