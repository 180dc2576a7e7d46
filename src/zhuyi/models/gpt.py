"""GPT-2 (Radford et al. 2019): the decoder of a Transformer alone, trained to say what comes next."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from zhuyi.models.published import drop_copy, refuse_rest, take
from zhuyi.nn.activations import Activation
from zhuyi.nn.blocks import DecoderLayer, LayerConfig
from zhuyi.nn.dropout import Dropout
from zhuyi.nn.embeddings import OutputProjection, TokenEmbedding
from zhuyi.nn.maps import Maps
from zhuyi.nn.masks import padding_mask
from zhuyi.nn.packed import kept_type
from zhuyi.nn.positions import LearnedPositions
from zhuyi.nn.state import DecoderState, empty_cache

INITIAL_STD = 0.02


@dataclass(frozen=True)
class GptConfig:
    """Sizes and options; the defaults are GPT-2's smallest model.

    Args:   d_ff: 0 means 4 * d_model.
            embedding_dropout: of the sum of token and position.
            norm_epsilon: of every layer normalisation.
            bias: whether affine maps have one.
            tie_embeddings: the output's table is that of the tokens.
            vocab_size: 0 means "from the tokenizer".
    """

    name: Literal["gpt"] = "gpt"
    d_model: int = 768
    num_heads: int = 12
    d_ff: int = 0
    num_layers: int = 12
    dropout: float = 0.1
    attention_dropout: float = 0.1
    embedding_dropout: float = 0.1
    activation: Activation = "gelu-tanh"
    norm_epsilon: float = 1e-5
    bias: bool = True
    tie_embeddings: bool = True
    max_len: int = 1024
    vocab_size: int = 0

    def __post_init__(self) -> None:
        for name in ("d_model", "num_heads", "num_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("d_ff", "vocab_size"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("dropout", "attention_dropout", "embedding_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if not 0.0 < self.norm_epsilon < float("inf"):
            raise ValueError(f"norm_epsilon must be above 0, got {self.norm_epsilon}")
        if self.max_len < 2:
            raise ValueError(f"max_len must be at least 2, got {self.max_len}")
        if self.d_model % self.num_heads:
            raise ValueError(f"d_model = {self.d_model} is not divisible by num_heads = {self.num_heads}")

    @property
    def layer(self) -> LayerConfig:
        return LayerConfig(
            d_model=self.d_model,
            num_heads=self.num_heads,
            head_dim=self.d_model // self.num_heads,
            d_ff=self.d_ff or 4 * self.d_model,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            feed_forward_dropout=0.0,
            activation=self.activation,
            norm_first=True,
            norm_epsilon=self.norm_epsilon,
            bias=self.bias,
        )


# Radford et al. 2019, table 2, by the names of the published checkpoints.
PUBLISHED_SIZES = {
    "gpt2": GptConfig(),
    "gpt2-medium": GptConfig(d_model=1024, num_heads=16, num_layers=24),
    "gpt2-large": GptConfig(d_model=1280, num_heads=20, num_layers=36),
    "gpt2-xl": GptConfig(d_model=1600, num_heads=25, num_layers=48),
}


class Gpt(nn.Module):
    """Token ids so far, to the logits of each next one.

    Source: Radford et al. 2019, section 2.3: the decoder of Vaswani et al. 2017 without an encoder to attend to,
            normalised before each sublayer and once at the end.
    """

    def __init__(self, config: GptConfig) -> None:
        super().__init__()
        self.config = config
        c = config.layer
        self.token_embedding = TokenEmbedding(config.vocab_size, c.d_model, scaled=False)
        self.positions = LearnedPositions(config.max_len, c.d_model)
        self.embedding_dropout = Dropout(config.embedding_dropout)
        self.decoder_layers = nn.ModuleList(DecoderLayer(c, cross=False) for _ in range(config.num_layers))
        self.decoder_norm = nn.LayerNorm(c.d_model, eps=c.norm_epsilon)
        weight = self.token_embedding.weight
        self.output_projection = OutputProjection(
            weight if config.tie_embeddings else nn.Parameter(weight.detach().clone())
        )
        self._draw()

    @property
    def max_len(self) -> int:
        """The longest text, in tokens, that the positions reach."""
        return self.config.max_len

    def forward(self, ids: Tensor, mask: Tensor | None = None, maps: Maps | None = None) -> Tensor:
        """Logits of what follows each position.

        Shape: ids (B, T), mask (B, T) with True = a real token (None: all are), on whichever side the padding is;
               returns (B, T, V).
        """
        return self.output_projection(self.decoder_states(ids, mask, maps))

    def decoder_states(self, ids: Tensor, mask: Tensor | None = None, maps: Maps | None = None) -> Tensor:
        """The last hidden states, before the output projection.

        Where the padding is on the right, causality alone hides it, and no mask is needed.

        Shape: as `forward`; returns (B, T, D).
        """
        # A text begins at position 0, wherever it begins in the row.
        positions = (
            torch.arange(ids.shape[1], device=ids.device)
            if mask is None
            else (mask.cumsum(dim=1) - 1).clamp_min(0)  # (B, T)
        )
        x, may_attend = self._embed(ids, positions), padding_mask(mask)
        for i, layer in self._layers():
            x = layer(x, None, None, maps, f"decoder.{i}", mask=may_attend)
        return self.decoder_norm(x)

    def start(self, memory: None, prefix: Tensor, prefix_mask: Tensor | None = None) -> DecoderState:
        """A state that has consumed all but the last token of each row's prefix.

        Shape: prefix (B, P), right-padded where prefix_mask (B, P) is False.
        """
        c = self.config.layer
        weight = self.token_embedding.weight
        kept = kept_type(self.output_projection, weight)
        cache = empty_cache(weight, self.config.num_layers, len(prefix), c.num_heads, c.head_dim, kept)
        state = DecoderState(cache, dtype=weight.dtype)
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
        for i, layer in self._layers():
            x = layer.advance(x, state, i)
        return x

    def _embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        return self.embedding_dropout(self.token_embedding(ids) + self.positions(positions))

    def _layers(self) -> Iterator[tuple[int, DecoderLayer]]:
        for i, layer in enumerate(self.decoder_layers):
            assert isinstance(layer, DecoderLayer)
            yield i, layer

    @torch.no_grad()
    def _draw(self) -> None:
        """Every matrix from one narrow normal distribution; what adds to the residual path from a narrower one.

        So the sum of all sublayers begins as wide as one of them, however deep the model.
        """
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                adds = name.endswith(("w_o.weight", "w_2.weight"))
                nn.init.normal_(parameter, std=INITIAL_STD / math.sqrt(2 * self.config.num_layers if adds else 1))


# Published weights. Their affine maps multiply from the left: each matrix is the transpose of ours.

PUBLISHED_NAMES = {
    "token_embedding": "wte",
    "positions": "wpe",
    "decoder_norm": "ln_f",
    "output_projection": "lm_head",
}
PUBLISHED_LAYER_NAMES = {
    "self_residual.norm": "ln_1",
    "self_attention.w_qkv": "attn.c_attn",
    "self_attention.w_o": "attn.c_proj",
    "feed_forward_residual.norm": "ln_2",
    "feed_forward.w_1": "mlp.c_fc",
    "feed_forward.w_2": "mlp.c_proj",
}
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
# Masks, which older files hold among the weights.
NO_WEIGHTS = (".attn.bias", ".attn.masked_bias")


def published_name(name: str) -> str:
    """What a checkpoint calls one of our weights, without the prefix that the body has beside a head."""
    module, _, kind = name.rpartition(".")
    if module in PUBLISHED_NAMES:
        return f"{PUBLISHED_NAMES[module]}.{kind.replace('table', 'weight')}"
    _, number, inside = module.split(".", 2)  # decoder_layers.0.self_attention.w_qkv
    return f"h.{number}.{PUBLISHED_LAYER_NAMES[inside]}.{kind}"


def from_published(weights: Mapping[str, Tensor], wanted: Iterable[str]) -> dict[str, Tensor]:
    """A checkpoint's weights under our names.

    Args:   wanted: our names of all weights of the model that they are for.
    Raises: ValueError: one is not in the checkpoint, or the checkpoint has one that the model lacks.
    """
    left = {name.removeprefix("transformer."): weight for name, weight in weights.items()}
    left = {name: weight for name, weight in left.items() if not name.endswith(NO_WEIGHTS)}
    found = {}
    for name in wanted:
        theirs = published_name(name)
        weight = take(left, (theirs,), name)
        found[name] = weight.T.contiguous() if theirs.endswith(TRANSPOSED) else weight
    drop_copy(left, "lm_head.weight", found["token_embedding.weight"])
    refuse_rest(left)
    return found


def to_published(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under the names of a checkpoint with a head."""
    found = {}
    for name, weight in weights.items():
        theirs = published_name(name)
        prefix = "" if theirs.startswith("lm_head.") else "transformer."
        found[prefix + theirs] = weight.T.contiguous() if theirs.endswith(TRANSPOSED) else weight
    return found
