"""The Transformer of "Attention Is All You Need" (Vaswani et al. 2017): an encoder-decoder made of attention."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from zhuyi.nn.activations import Activation
from zhuyi.nn.blocks import DecoderLayer, EncoderLayer, LayerConfig
from zhuyi.nn.dropout import Dropout
from zhuyi.nn.embeddings import OutputProjection, TokenEmbedding
from zhuyi.nn.maps import Maps
from zhuyi.nn.masks import padding_mask
from zhuyi.nn.packed import kept_type
from zhuyi.nn.positions import LearnedPositions, SinusoidalPositions
from zhuyi.nn.sequences import run_layers
from zhuyi.nn.state import DecoderState, empty_cache, stack_layers


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes and options; the defaults are the paper's base model (table 3).

    Args:   head_dim: width of a head; 0 means d_model / num_heads.
            norm_first: normalise before each sublayer instead of after it (and once at the end of each stack).
            memory: `last`: every decoder layer attends the encoder's last layer, as in the paper;
            `layerwise`: decoder layer i attends encoder layer i.
            tie_embeddings: `three-way`: source, target and output share one table (section 3.4; one joint vocabulary);
            `decoder`: target and output do; `none`.
            scale_embeddings: whether embeddings are multiplied by sqrt(d_model), as in the paper.
            output_bias: whether each token's logit has a bias, as Marian's have.
            source_vocab_size, target_vocab_size: 0 means "from the tokenizers".
    """

    name: Literal["transformer"] = "transformer"
    d_model: int = 512
    num_heads: int = 8
    head_dim: int = 0
    d_ff: int = 2048
    num_encoder_layers: int = 6
    num_decoder_layers: int = 6
    dropout: float = 0.1
    attention_dropout: float = 0.0
    feed_forward_dropout: float = 0.0
    activation: Activation = "relu"
    norm_first: bool = False
    positions: Literal["sinusoidal", "learned"] = "sinusoidal"
    memory: Literal["last", "layerwise"] = "last"
    tie_embeddings: Literal["three-way", "decoder", "none"] = "three-way"
    scale_embeddings: bool = True
    output_bias: bool = False
    max_len: int = 512
    source_vocab_size: int = 0
    target_vocab_size: int = 0

    def __post_init__(self) -> None:
        for name in ("d_model", "num_heads", "d_ff", "num_encoder_layers", "num_decoder_layers", "max_len"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("head_dim", "source_vocab_size", "target_vocab_size"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("dropout", "attention_dropout", "feed_forward_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if self.max_len < 3:
            raise ValueError(f"max_len = {self.max_len}, but a text of one token takes 3 with its start and end signs")
        if not self.head_dim and self.d_model % self.num_heads:
            raise ValueError(
                f"d_model = {self.d_model} is not divisible by num_heads = {self.num_heads}; "
                "choose another number of heads or set head_dim"
            )
        if self.memory == "layerwise" and self.num_encoder_layers != self.num_decoder_layers:
            raise ValueError(
                f"memory = layerwise needs as many encoder layers ({self.num_encoder_layers}) "
                f"as decoder layers ({self.num_decoder_layers})"
            )
        if self.tie_embeddings == "three-way" and self.source_vocab_size != self.target_vocab_size:
            raise ValueError(
                f"tie_embeddings = three-way needs one vocabulary, got {self.source_vocab_size} source and "
                f"{self.target_vocab_size} target tokens; use a joint tokenizer or tie_embeddings = decoder"
            )

    @property
    def layer(self) -> LayerConfig:
        return LayerConfig(
            d_model=self.d_model,
            num_heads=self.num_heads,
            head_dim=self.head_dim or self.d_model // self.num_heads,
            d_ff=self.d_ff,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            feed_forward_dropout=self.feed_forward_dropout,
            activation=self.activation,
            norm_first=self.norm_first,
        )


# Table 3 of the paper; its parameter counts, 65 M and 213 M, hold with the paper's joint vocabulary of 37,000.
PUBLISHED_SIZES = {
    "base": TransformerConfig(),
    "big": TransformerConfig(d_model=1024, num_heads=16, d_ff=4096, dropout=0.3),
}


@dataclass(frozen=True)
class Memory:
    """The encoder's output: its last layer, or one tensor a layer, (B, S, D) each, and the source's padding mask."""

    layers: tuple[Tensor, ...]
    mask: Tensor | None

    def of_layer(self, layer: int) -> Tensor:
        return self.layers[layer if len(self.layers) > 1 else 0]


class Transformer(nn.Module):
    """Source ids and the target ids so far, to the logits of each next target id.

    Source: Vaswani et al. 2017, figure 1.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        c = config.layer
        scaled = config.scale_embeddings
        self.source_embedding = TokenEmbedding(config.source_vocab_size, c.d_model, scaled=scaled)
        self.target_embedding = (
            self.source_embedding
            if config.tie_embeddings == "three-way"
            else TokenEmbedding(config.target_vocab_size, c.d_model, scaled=scaled)
        )
        positions = SinusoidalPositions if config.positions == "sinusoidal" else LearnedPositions
        self.source_positions = positions(config.max_len, c.d_model)
        self.target_positions = positions(config.max_len, c.d_model)
        self.embedding_dropout = Dropout(c.dropout)
        self.encoder_layers = nn.ModuleList(EncoderLayer(c) for _ in range(config.num_encoder_layers))
        self.decoder_layers = nn.ModuleList(DecoderLayer(c) for _ in range(config.num_decoder_layers))
        # With the norm after each sublayer, the last layer's output is normalised already.
        self.encoder_norm = nn.LayerNorm(c.d_model) if c.norm_first else nn.Identity()
        self.decoder_norm = nn.LayerNorm(c.d_model) if c.norm_first else nn.Identity()
        self.output_projection = OutputProjection(
            nn.Parameter(self.target_embedding.weight.detach().clone())
            if config.tie_embeddings == "none"
            else self.target_embedding.weight,
            bias=config.output_bias,
        )

    @property
    def max_len(self) -> int:
        """The longest source or target, in tokens, end sign included, that the positions reach."""
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
        """The decoder's last hidden states, before the output projection.

        Shape: as `forward`; returns (B, T, D).
        """
        # tgt_mask is part of the contract; targets are padded on the right and causality hides what comes later.
        return self.decode(tgt, self.encode(src, src_mask, maps), maps)

    def encode(self, src: Tensor, src_mask: Tensor | None = None, maps: Maps | None = None) -> Memory:
        """What the decoder will attend to.

        Shape: src (B, S), src_mask (B, S).
        """
        positions = torch.arange(src.shape[1], device=src.device)
        x = self.embedding_dropout(self.source_embedding(src) + self.source_positions(positions))  # (B, S, D)
        mask = padding_mask(src_mask)
        if self.config.memory == "layerwise":
            return Memory(tuple(self.encoder_norm(y) for y in self._encode(x, mask, maps)), mask)
        last = run_layers(self, lambda *given: self.encoder_norm(self._encode(*given)[-1]), x, src_mask, maps)
        return Memory((last,), mask)

    def _encode(self, x: Tensor, mask: Tensor | None, maps: Maps | None) -> list[Tensor]:
        """The output of each layer."""
        layers: list[Tensor] = []
        for i, layer in enumerate(self.encoder_layers):
            x = layer(x, mask, maps, f"encoder.{i}")
            layers.append(x)
        return layers

    def decode(self, tgt: Tensor, memory: Memory, maps: Maps | None = None) -> Tensor:
        """Hidden states of all target positions at once.

        Shape: tgt (B, T); returns (B, T, D).
        """
        x = self._embed_targets(tgt, torch.arange(tgt.shape[1], device=tgt.device))  # (B, T, D)
        for i, layer in enumerate(self.decoder_layers):
            x = layer(x, memory.of_layer(i), memory.mask, maps, f"decoder.{i}")
        return self.decoder_norm(x)

    def start(self, memory: Memory, prefix: Tensor, prefix_mask: Tensor | None = None) -> DecoderState:
        """A state that has consumed all but the last token of each row's prefix.

        Shape: prefix (B, P), right-padded where prefix_mask (B, P) is False.
        """
        c = self.config.layer
        weight = self.target_embedding.weight
        kept = kept_type(self.output_projection, weight)
        projected = [layer.cross_attention.project_memory(memory.of_layer(i)) for i, layer in self._decoder()]
        state = DecoderState(
            empty_cache(weight, len(self.decoder_layers), len(prefix), c.num_heads, c.head_dim, kept),
            stack_layers(projected, kept_type(self.output_projection, projected[0][0])),
            None if memory.mask is None else memory.mask[:, 0, 0],
            dtype=weight.dtype,
        )
        return state.consume(
            prefix, prefix_mask, lambda ids: self._advance(self._embed_targets(ids, state.begin(ids.shape[1])), state)
        )

    def step(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """One more token a row.

        Shape: tokens (R,); returns logits (R, V) and the state to go on with; the old one is spent.
        """
        return state.run(self, self._next_logits, tokens), state

    def _next_logits(self, tokens: Tensor, positions: Tensor, state: DecoderState) -> Tensor:
        x = self._advance(self._embed_targets(tokens, positions), state)  # (G, W, D)
        return self.output_projection(self.decoder_norm(x.flatten(0, 1)))

    def _advance(self, x: Tensor, state: DecoderState) -> Tensor:
        for i, layer in self._decoder():
            x = layer.advance(x, state, i)
        return x

    def _embed_targets(self, ids: Tensor, positions: Tensor) -> Tensor:
        return self.embedding_dropout(self.target_embedding(ids) + self.target_positions(positions))

    def _decoder(self) -> Iterator[tuple[int, DecoderLayer]]:
        for i, layer in enumerate(self.decoder_layers):
            assert isinstance(layer, DecoderLayer)
            yield i, layer
