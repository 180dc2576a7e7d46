"""Whisper (Radford et al. 2022): a Transformer that reads the spectrogram of speech and writes its text."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zhuyi.models.published import drop_copy, parts, refuse_rest, take
from zhuyi.nn.activations import Activation
from zhuyi.nn.blocks import DecoderLayer, EncoderLayer, LayerConfig
from zhuyi.nn.dropout import Dropout
from zhuyi.nn.embeddings import OutputProjection, TokenEmbedding
from zhuyi.nn.maps import Maps
from zhuyi.nn.packed import kept_type
from zhuyi.nn.positions import LearnedPositions
from zhuyi.nn.sequences import run_layers
from zhuyi.nn.state import DecoderState, empty_cache, stack_layers

# Of the spectrogram, as the paper has it (section 2.2): 16,000 samples a second, a frame each 160.
FRAMES_A_SECOND = 100
# The second convolution's stride: so many frames are one position of the encoder.
FRAMES_A_POSITION = 2


@dataclass(frozen=True)
class WhisperConfig:
    """Sizes and options; the defaults are the paper's tiny model (table 1).

    Args:   d_ff: width inside the feed-forward networks; 0 means 4 * d_model.
            num_mel_bins: height of the spectrogram: 80, of the last published model 128; 0 means "from the data".
            window_seconds: what the encoder reads, never more or less; 30 in the published models, 0 means "from the
            data".
            half_positions: whether the encoder's positions are rounded to float16, as published weights hold them.
            max_len: decoder positions.
            vocab_size: 0 means "from the tokenizer".
    """

    name: Literal["whisper"] = "whisper"
    d_model: int = 384
    num_heads: int = 6
    d_ff: int = 0
    num_encoder_layers: int = 4
    num_decoder_layers: int = 4
    dropout: float = 0.0
    attention_dropout: float = 0.0
    feed_forward_dropout: float = 0.0
    activation: Activation = "gelu"
    num_mel_bins: int = 0
    window_seconds: float = 0.0
    half_positions: bool = False
    max_len: int = 448
    vocab_size: int = 0

    def __post_init__(self) -> None:
        for name in ("d_model", "num_heads", "num_encoder_layers", "num_decoder_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("d_ff", "num_mel_bins", "vocab_size"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("dropout", "attention_dropout", "feed_forward_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if self.max_len < 2:
            raise ValueError(f"max_len must be at least 2, got {self.max_len}")
        if self.d_model % self.num_heads:
            raise ValueError(f"d_model = {self.d_model} is not divisible by num_heads = {self.num_heads}")
        if self.d_model % 2 or self.d_model < 4:
            raise ValueError(
                f"d_model = {self.d_model}: half of it are sines and half cosines; make it even, at least 4"
            )
        frames = self.window_seconds * FRAMES_A_SECOND
        if frames < 0 or abs(frames - round(frames)) > 1e-6 or round(frames) % FRAMES_A_POSITION:
            raise ValueError(
                f"window_seconds must be a multiple of {FRAMES_A_POSITION / FRAMES_A_SECOND}, got {self.window_seconds}"
            )

    @property
    def frames(self) -> int:
        """Of the spectrogram of a window."""
        return round(self.window_seconds * FRAMES_A_SECOND)

    @property
    def layer(self) -> LayerConfig:
        return LayerConfig(
            d_model=self.d_model,
            num_heads=self.num_heads,
            head_dim=self.d_model // self.num_heads,
            d_ff=self.d_ff or 4 * self.d_model,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            feed_forward_dropout=self.feed_forward_dropout,
            activation=self.activation,
            norm_first=True,
            key_bias=False,
        )


def _size(d_model: int, num_heads: int, encoder: int, decoder: int, num_mel_bins: int = 80) -> WhisperConfig:
    return WhisperConfig(
        d_model=d_model,
        num_heads=num_heads,
        num_encoder_layers=encoder,
        num_decoder_layers=decoder,
        num_mel_bins=num_mel_bins,
        window_seconds=30.0,
    )


# Table 1; the last two are the authors' later models, of the same paper's architecture.
PUBLISHED_SIZES = {
    "tiny": _size(384, 6, 4, 4),
    "base": _size(512, 8, 6, 6),
    "small": _size(768, 12, 12, 12),
    "medium": _size(1024, 16, 24, 24),
    "large": _size(1280, 20, 32, 32),
    "large-v3": _size(1280, 20, 32, 32, 128),
    "large-v3-turbo": _size(1280, 20, 32, 4, 128),
}


def sines_then_cosines(length: int, d_model: int) -> Tensor:
    """The positions of the encoder: sin(pos * f_i), then cos(pos * f_i), f_i falling from 1 to 1 / 10000.

    Shape:  returns (length, D).
    Source: the authors' code, rounding included (float32 throughout); the paper says "sinusoidal" alone.
    """
    half = d_model // 2
    frequency = torch.exp(-math.log(10000.0) / (half - 1) * torch.arange(half, device="cpu"))
    angle = torch.arange(length, device="cpu")[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


@dataclass(frozen=True)
class Memory:
    """The encoder's output (B, S, D); a window has no padding, and no mask."""

    states: Tensor


class Whisper(nn.Module):
    """The spectrogram of a window and the ids so far, to the logits of each next id.

    Source: Radford et al. 2022, section 2.2. Departure: dropout, which the paper has none of.
    """

    encoder_positions: Tensor

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.config = config
        c = config.layer
        self.conv_1 = nn.Conv1d(config.num_mel_bins, c.d_model, kernel_size=3, padding=1)
        self.conv_2 = nn.Conv1d(c.d_model, c.d_model, kernel_size=3, stride=FRAMES_A_POSITION, padding=1)
        positions = sines_then_cosines(config.frames // FRAMES_A_POSITION, c.d_model)
        if config.half_positions:
            positions = positions.half().float()
        self.register_buffer("encoder_positions", positions, persistent=False)
        self.encoder_layers = nn.ModuleList(EncoderLayer(c) for _ in range(config.num_encoder_layers))
        self.encoder_norm = nn.LayerNorm(c.d_model)
        self.token_embedding = TokenEmbedding(config.vocab_size, c.d_model, scaled=False)
        self.decoder_positions = LearnedPositions(config.max_len, c.d_model)
        self.embedding_dropout = Dropout(c.dropout)
        self.decoder_layers = nn.ModuleList(DecoderLayer(c) for _ in range(config.num_decoder_layers))
        self.decoder_norm = nn.LayerNorm(c.d_model)
        self.output_projection = OutputProjection(self.token_embedding.weight)

    @property
    def max_len(self) -> int:
        """The longest text, in tokens, all signs included, that the decoder's positions reach."""
        return self.config.max_len

    def forward(self, features: Tensor, tgt: Tensor, tgt_mask: Tensor | None = None) -> Tensor:
        """Logits of what follows each target position.

        Shape: features (B, num_mel_bins, frames), tgt (B, T) beginning with the start sign, tgt_mask (B, T) with
               True = a real token (None: all are); returns (B, T, V).
        """
        return self.output_projection(self.decoder_states(features, tgt, tgt_mask))

    def decoder_states(
        self, features: Tensor, tgt: Tensor, tgt_mask: Tensor | None = None, maps: Maps | None = None
    ) -> Tensor:
        """The decoder's last hidden states, before the output projection.

        Shape: as `forward`; returns (B, T, D).
        """
        # tgt_mask is part of the contract; targets are padded on the right and causality hides what comes later.
        return self.decode(tgt, self.encode(features, maps), maps)

    def encode(self, features: Tensor, maps: Maps | None = None) -> Memory:
        """What the decoder will attend to.

        Shape: features (B, num_mel_bins, frames).
        """
        if features.shape[1:] != (self.config.num_mel_bins, self.config.frames):
            raise ValueError(
                f"features are of shape {tuple(features.shape)}, but this model reads windows of "
                f"{self.config.num_mel_bins} bins by {self.config.frames} frames"
            )
        x = F.gelu(self.conv_1(features.to(self.conv_1.weight.dtype)))  # (B, D, frames)
        x = F.gelu(self.conv_2(x)).transpose(1, 2)  # (B, S, D)
        x = self.embedding_dropout(x + self.encoder_positions)
        return Memory(run_layers(self, self._encode, x, None, maps))

    def _encode(self, x: Tensor, mask: Tensor | None, maps: Maps | None) -> Tensor:
        for i, layer in enumerate(self.encoder_layers):
            x = layer(x, mask, maps, f"encoder.{i}")
        return self.encoder_norm(x)

    def decode(self, tgt: Tensor, memory: Memory, maps: Maps | None = None) -> Tensor:
        """Hidden states of all target positions at once.

        Shape: tgt (B, T); returns (B, T, D).
        """
        x = self._embed(tgt, torch.arange(tgt.shape[1], device=tgt.device))  # (B, T, D)
        for i, layer in self._decoder():
            x = layer(x, memory.states, None, maps, f"decoder.{i}")
        return self.decoder_norm(x)

    def start(self, memory: Memory, prefix: Tensor, prefix_mask: Tensor | None = None) -> DecoderState:
        """A state that has consumed all but the last token of each row's prefix.

        Shape: prefix (B, P), right-padded where prefix_mask (B, P) is False.
        """
        c = self.config.layer
        projected = [layer.cross_attention.project_memory(memory.states) for _, layer in self._decoder()]
        kept = kept_type(self.output_projection, memory.states)
        state = DecoderState(
            empty_cache(memory.states, len(projected), len(prefix), c.num_heads, c.head_dim, kept),
            stack_layers(projected, kept_type(self.output_projection, projected[0][0])),
            dtype=memory.states.dtype,
        )
        return state.consume(
            prefix, prefix_mask, lambda ids: self._advance(self._embed(ids, state.begin(ids.shape[1])), state)
        )

    def step(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """One more token a row.

        Shape: tokens (R,); returns logits (R, V) and the state to go on with; the old one is spent.
        """
        return state.run(self, self._next_logits, tokens), state

    def _next_logits(self, tokens: Tensor, positions: Tensor, state: DecoderState) -> Tensor:
        x = self._advance(self._embed(tokens, positions), state)  # (G, W, D)
        return self.output_projection(self.decoder_norm(x.flatten(0, 1)))

    def _advance(self, x: Tensor, state: DecoderState) -> Tensor:
        for i, layer in self._decoder():
            x = layer.advance(x, state, i)
        return x

    def _embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        return self.embedding_dropout(self.token_embedding(ids) + self.decoder_positions(positions))

    def _decoder(self) -> Iterator[tuple[int, DecoderLayer]]:
        for i, layer in enumerate(self.decoder_layers):
            assert isinstance(layer, DecoderLayer)
            yield i, layer


# Published weights, by the names of Hugging Face. A name of ours stands for one of theirs, or for several whose rows it
# has under one another.

POSITIONS = "model.encoder.embed_positions.weight"  # fixed, but stored
_OUTSIDE_LAYERS = {
    "conv_1": "encoder.conv1",
    "conv_2": "encoder.conv2",
    "encoder_norm": "encoder.layer_norm",
    "token_embedding": "decoder.embed_tokens",
    "decoder_positions": "decoder.embed_positions",
    "decoder_norm": "decoder.layer_norm",
}
_ATTENTION = {"self": "self_attn", "cross": "encoder_attn"}
_PROJECTIONS = {"w_qkv": ("q", "k", "v"), "w_q": ("q",), "w_kv": ("k", "v"), "w_o": ("out",)}


def published_names(name: str) -> tuple[str, ...]:
    """What a checkpoint calls one of our weights; of several names, each is a part of its rows."""
    module, _, kind = name.rpartition(".")
    if module in _OUTSIDE_LAYERS:
        return (f"model.{_OUTSIDE_LAYERS[module]}.{kind.replace('table', 'weight')}",)
    stack, number, sublayer, inside = module.split(".")  # encoder_layers.0.self_attention.w_qkv
    part = sublayer.partition("_")[0]
    prefix = f"model.{stack.removesuffix('_layers')}.layers.{number}"
    if inside == "norm":
        norm = "final_layer_norm" if part == "feed" else f"{_ATTENTION[part]}_layer_norm"
        return (f"{prefix}.{norm}.{kind}",)
    if part == "feed":
        return (f"{prefix}.fc{inside.removeprefix('w_')}.{kind}",)
    projections = [each for each in _PROJECTIONS[inside] if not (each == "k" and kind == "bias")]
    return tuple(f"{prefix}.{_ATTENTION[part]}.{each}_proj.{kind}" for each in projections)


def from_published(weights: Mapping[str, Tensor], wanted: Iterable[str]) -> dict[str, Tensor]:
    """A checkpoint's weights under our names.

    Args:   wanted: our names of all weights of the model that they are for.
    Raises: ValueError: one is not in the checkpoint, or the checkpoint has one that the model lacks.
    """
    left = {name: weight for name, weight in weights.items() if name != POSITIONS}
    found = {name: take(left, published_names(name), name) for name in wanted}
    drop_copy(left, "proj_out.weight", found["token_embedding.weight"])
    refuse_rest(left)
    return found


def to_published(weights: Mapping[str, Tensor], positions: Tensor) -> dict[str, Tensor]:
    """Our weights under a checkpoint's names, with the encoder's positions, which it stores."""
    found = {POSITIONS: positions}
    for name, weight in weights.items():
        found |= parts(weight, published_names(name))
    return found
