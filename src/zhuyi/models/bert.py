"""BERT (Devlin et al. 2019): the encoder of a Transformer alone, trained to fill in words that were taken away."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from zhuyi.models.published import drop_copy, parts, refuse_rest, take
from zhuyi.nn.activations import ACTIVATIONS, Activation
from zhuyi.nn.blocks import EncoderLayer, LayerConfig
from zhuyi.nn.dropout import Dropout
from zhuyi.nn.embeddings import OutputProjection, TokenEmbedding
from zhuyi.nn.linear import Linear
from zhuyi.nn.maps import Maps
from zhuyi.nn.positions import LearnedPositions
from zhuyi.nn.sequences import run_layers

INITIAL_STD = 0.02


@dataclass(frozen=True)
class BertConfig:
    """Sizes and options; the defaults are the paper's base model, without any head.

    Args:   norm_epsilon: of every layer normalisation.
            num_segments: 2 tells the sentences of a pair apart; 0 has no segments, as DistilBERT.
            pooler: whether a text's state goes through a layer of its own before it is classified.
            pooling: that state is the first token's, as published, or the mean of all, which learns from fewer texts.
            pooler_activation: of that layer; DistilBERT's is `relu`.
            masked_word_head: whether there is one that fills in words.
            tie_embeddings: its table is that of the token embedding.
            next_sentence_head: whether there is one that tells if the second sentence follows the first.
            num_labels: of the classifier; 0 has none.
            vocab_size: 0 means "from the tokenizer".
    """

    name: Literal["bert"] = "bert"
    d_model: int = 768
    num_heads: int = 12
    d_ff: int = 3072
    num_layers: int = 12
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation: Activation = "gelu"
    norm_epsilon: float = 1e-12
    max_len: int = 512
    num_segments: int = 2
    pooler: bool = False
    pooling: Literal["first", "mean"] = "first"
    pooler_activation: Literal["tanh", "relu"] = "tanh"
    masked_word_head: bool = False
    tie_embeddings: bool = True
    next_sentence_head: bool = False
    num_labels: int = 0
    classifier_dropout: float = 0.1
    vocab_size: int = 0

    def __post_init__(self) -> None:
        for name in ("d_model", "num_heads", "d_ff", "num_layers", "max_len"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("num_segments", "num_labels", "vocab_size"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("dropout", "attention_dropout", "classifier_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if not 0.0 < self.norm_epsilon < float("inf"):
            raise ValueError(f"norm_epsilon must be above 0, got {self.norm_epsilon}")
        if self.d_model % self.num_heads:
            raise ValueError(f"d_model = {self.d_model} is not divisible by num_heads = {self.num_heads}")
        if not self.pooler and (self.next_sentence_head or self.num_labels):
            head = "next_sentence_head" if self.next_sentence_head else f"num_labels = {self.num_labels}"
            raise ValueError(f"{head} classifies the pooler's output: set pooler = true")

    def body(self) -> "BertConfig":
        """The same without the heads that a task brings."""
        return replace(self, masked_word_head=False, next_sentence_head=False, num_labels=0)

    @property
    def layer(self) -> LayerConfig:
        return LayerConfig(
            d_model=self.d_model,
            num_heads=self.num_heads,
            head_dim=self.d_model // self.num_heads,
            d_ff=self.d_ff,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            feed_forward_dropout=0.0,
            activation=self.activation,
            norm_first=False,
            norm_epsilon=self.norm_epsilon,
        )


def _size(num_layers: int, d_model: int) -> BertConfig:
    return BertConfig(num_layers=num_layers, d_model=d_model, num_heads=d_model // 64, d_ff=4 * d_model)


# `base` and `large`: Devlin et al. 2019, section 3. The smaller ones: Turc et al. 2019, section 4. `distil-base`: Sanh
# et al. 2019, section 3; in training it has no dropout behind the attention, which we do not follow.
PUBLISHED_SIZES = {
    "tiny": _size(2, 128),
    "mini": _size(4, 256),
    "small": _size(4, 512),
    "medium": _size(8, 512),
    "base": _size(12, 768),
    "large": _size(24, 1024),
    "distil-base": BertConfig(num_layers=6, num_segments=0, pooler_activation="relu", classifier_dropout=0.2),
}


class Bert(nn.Module):
    """Token ids, and which sentence of a pair each belongs to, to hidden states; heads stand beside, as attributes.

    `masked_word_head(x)`, `pooler(x, mask)`, and of what that gives, `next_sentence_head` and `classifier`; each is
    None where the config has none.

    Source: Devlin et al. 2019, figures 1 and 2 and appendix A.2; the embeddings' norm and the word head's own layer and
            bias are in the authors' code alone.
    """

    # What begins anew where another task's model is gone on with.
    HEADS: ClassVar[tuple[str, ...]] = ("masked_word_head", "pooler", "next_sentence_head", "classifier")
    # Of these, whose rows are of labels, one each.
    LABEL_HEADS: ClassVar[tuple[str, ...]] = ("classifier",)

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        c = config.layer
        self.token_embedding = TokenEmbedding(config.vocab_size, c.d_model, scaled=False)
        self.positions = LearnedPositions(config.max_len, c.d_model)
        self.segment_embedding = (
            TokenEmbedding(config.num_segments, c.d_model, scaled=False) if config.num_segments else None
        )
        self.embedding_norm = nn.LayerNorm(c.d_model, eps=c.norm_epsilon)
        self.embedding_dropout = Dropout(c.dropout)
        self.encoder_layers = nn.ModuleList(EncoderLayer(c) for _ in range(config.num_layers))
        self.masked_word_head = MaskedWordHead(config, self.token_embedding) if config.masked_word_head else None
        self.pooler = Pooler(c.d_model, config.pooling, config.pooler_activation) if config.pooler else None
        self.next_sentence_head = Linear(c.d_model, 2) if config.next_sentence_head else None
        self.classifier = (
            Classifier(c.d_model, config.num_labels, config.classifier_dropout) if config.num_labels else None
        )
        self._draw()

    @property
    def max_len(self) -> int:
        """The longest text, in tokens, that the positions reach."""
        return self.config.max_len

    def forward(
        self, ids: Tensor, mask: Tensor | None = None, segments: Tensor | None = None, maps: Maps | None = None
    ) -> Tensor:
        """The last layer's hidden states.

        Shape: ids (B, T), mask (B, T) with True = a real token (None: all are), on whichever side the padding is,
               segments (B, T) with 0 or 1 (None: all 0); returns (B, T, D).
        """
        x = self.token_embedding(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))  # (B, T, D)
        if self.segment_embedding is not None:
            x = x + self.segment_embedding(torch.zeros_like(ids) if segments is None else segments)
        x = self.embedding_dropout(self.embedding_norm(x))
        return run_layers(self, self._encode, x, mask, maps)

    def _encode(self, x: Tensor, mask: Tensor | None, maps: Maps | None) -> Tensor:
        for i, layer in enumerate(self.encoder_layers):
            x = layer(x, mask, maps, f"encoder.{i}")
        return x

    @torch.no_grad()
    def _draw(self) -> None:
        """Every table and matrix from one narrow normal distribution, as the authors' code draws them."""
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.trunc_normal_(parameter, std=INITIAL_STD, a=-2 * INITIAL_STD, b=2 * INITIAL_STD)


class MaskedWordHead(nn.Module):
    """Hidden states to the logits of each position's word: one more layer, then the table of embeddings turned round.

    Shape: x (..., D); returns (..., V).
    """

    def __init__(self, config: BertConfig, embedding: TokenEmbedding) -> None:
        super().__init__()
        self.transform = Linear(config.d_model, config.d_model)
        self.activation = ACTIVATIONS[config.activation]
        self.norm = nn.LayerNorm(config.d_model, eps=config.norm_epsilon)
        weight = embedding.weight if config.tie_embeddings else nn.Parameter(embedding.weight.detach().clone())
        self.output_projection = OutputProjection(weight)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x: Tensor) -> Tensor:
        return self.output_projection(self.states(x)) + self.bias

    def states(self, x: Tensor) -> Tensor:
        """What the table is multiplied with.

        Shape: x (..., D); returns the same.
        """
        return self.norm(self.activation(self.transform(x)))


class Pooler(nn.Module):
    """The state of the first token, which stands for the whole text, or the mean of all, through a layer of its own.

    Shape: x (B, T, D), mask (B, T) or None (all are real); returns (B, D).
    """

    def __init__(self, d_model: int, pooling: Literal["first", "mean"], activation: Literal["tanh", "relu"]) -> None:
        super().__init__()
        self.linear = Linear(d_model, d_model)
        self.takes_mean = pooling == "mean"
        self.activation = torch.tanh if activation == "tanh" else torch.relu

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        state = mean_over(x, mask) if self.takes_mean else x[:, 0]  # (B, D)
        return self.activation(self.linear(state))


def mean_over(x: Tensor, mask: Tensor | None) -> Tensor:
    """The mean state of the real tokens; zeros where there is none.

    Shape: x (B, T, D), mask (B, T) or None (all are real); returns (B, D).
    """
    if mask is None:
        return x.mean(dim=1)
    return (x * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp_min(1)


class Classifier(nn.Module):
    """The pooler's output to the logits of labels.

    Shape: x (B, D); returns (B, num_labels).
    """

    def __init__(self, d_model: int, num_labels: int, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.linear = Linear(d_model, num_labels)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.dropout(x))


# Published weights. A name of ours stands for one of theirs, or for several whose rows it has under one another.


@dataclass(frozen=True)
class PublishedNames:
    """How one family of checkpoints names modules; `layer` is what stands before a layer's number.

    Args: body: whose names begin with `prefix` in a file that holds a head too.
    """

    prefix: str
    body: Mapping[str, str]
    heads: Mapping[str, str]
    layer: str
    in_layer: Mapping[str, tuple[str, ...]]


PUBLISHED_NAMES = {
    "bert": PublishedNames(
        prefix="bert.",
        body={
            "token_embedding.weight": "embeddings.word_embeddings.weight",
            "positions.table": "embeddings.position_embeddings.weight",
            "segment_embedding.weight": "embeddings.token_type_embeddings.weight",
            "embedding_norm": "embeddings.LayerNorm",
            "pooler.linear": "pooler.dense",
        },
        heads={
            "masked_word_head.transform": "cls.predictions.transform.dense",
            "masked_word_head.norm": "cls.predictions.transform.LayerNorm",
            "masked_word_head.output_projection": "cls.predictions.decoder",
            "masked_word_head.bias": "cls.predictions.bias",
            "next_sentence_head": "cls.seq_relationship",
            "classifier.linear": "classifier",
        },
        layer="encoder.layer",
        in_layer={
            "self_attention.w_qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
            "self_attention.w_o": ("attention.output.dense",),
            "self_residual.norm": ("attention.output.LayerNorm",),
            "feed_forward.w_1": ("intermediate.dense",),
            "feed_forward.w_2": ("output.dense",),
            "feed_forward_residual.norm": ("output.LayerNorm",),
        },
    ),
    "distilbert": PublishedNames(
        prefix="distilbert.",
        body={
            "token_embedding.weight": "embeddings.word_embeddings.weight",
            "positions.table": "embeddings.position_embeddings.weight",
            "embedding_norm": "embeddings.LayerNorm",
        },
        heads={
            "masked_word_head.transform": "vocab_transform",
            "masked_word_head.norm": "vocab_layer_norm",
            "masked_word_head.output_projection": "vocab_projector",
            "masked_word_head.bias": "vocab_projector.bias",
            "pooler.linear": "pre_classifier",
            "classifier.linear": "classifier",
        },
        layer="transformer.layer",
        in_layer={
            "self_attention.w_qkv": ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
            "self_attention.w_o": ("attention.out_lin",),
            "self_residual.norm": ("sa_layer_norm",),
            "feed_forward.w_1": ("ffn.lin1",),
            "feed_forward.w_2": ("ffn.lin2",),
            "feed_forward_residual.norm": ("output_layer_norm",),
        },
    ),
}


def published_names(name: str, family: str) -> tuple[str, ...]:
    """What a checkpoint calls one of our weights; of several names, each is a part of its rows.

    Args: family: a key of `PUBLISHED_NAMES`. The prefix that names of the body have beside a head is left out.
    """
    names = PUBLISHED_NAMES[family]
    for own, theirs in (*names.body.items(), *names.heads.items()):
        if name == own or name.startswith(f"{own}."):
            return (theirs + name.removeprefix(own),)
    _, number, inside = name.split(".", 2)  # encoder_layers.0.self_attention.w_qkv.weight
    module, _, kind = inside.rpartition(".")
    return tuple(f"{names.layer}.{number}.{part}.{kind}" for part in names.in_layer[module])


def from_published(weights: Mapping[str, Tensor], wanted: Iterable[str], family: str) -> dict[str, Tensor]:
    """A checkpoint's weights under our names.

    Args:   wanted: our names of all weights of the model that they are for.
    Raises: ValueError: one is not in the checkpoint, or the checkpoint has one that the model lacks.
    """
    # In this order the word head's bias that is read wins over the one that repeats it.
    left = {_current_name(name, family): weights[name] for name in sorted(weights)}
    left.pop("embeddings.position_ids", None)  # 0, 1, 2, ...: older files have them
    found = {name: take(left, published_names(name, family), name) for name in wanted}
    if "masked_word_head.bias" in found:
        (again,) = published_names("masked_word_head.output_projection.weight", family)
        drop_copy(left, again, found["token_embedding.weight"])
    refuse_rest(left)
    return found


def to_published(weights: Mapping[str, Tensor], family: str) -> dict[str, Tensor]:
    """Our weights under a checkpoint's names, the body's with their prefix where there is a head beside it."""
    names = PUBLISHED_NAMES[family]
    prefix = names.prefix if any(name.startswith(tuple(names.heads)) for name in weights) else ""
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        before = "" if name.startswith(tuple(names.heads)) else prefix
        found |= parts(weight, [before + part for part in published_names(name, family)])
    if family == "bert" and "masked_word_head.bias" in weights:
        # One number under two names: where the table is not tied, transformers reads this one.
        found["cls.predictions.decoder.bias"] = weights["masked_word_head.bias"].clone()
    return found


def _current_name(name: str, family: str) -> str:
    """A checkpoint's name without prefix, as newer files have it."""
    name = name.removeprefix(PUBLISHED_NAMES[family].prefix)
    for old, new in ((".gamma", ".weight"), (".beta", ".bias"), ("predictions.decoder.bias", "predictions.bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name
