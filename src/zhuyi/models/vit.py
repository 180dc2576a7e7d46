"""ViT (Dosovitskiy et al. 2021): a picture cut into patches, which an encoder reads as if they were words."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zhuyi.models.published import parts, refuse_rest, take
from zhuyi.nn.activations import ACTIVATIONS, Activation
from zhuyi.nn.blocks import EncoderLayer, LayerConfig
from zhuyi.nn.dropout import Dropout
from zhuyi.nn.linear import Linear
from zhuyi.nn.maps import Maps
from zhuyi.nn.positions import LearnedPositions
from zhuyi.nn.sequences import run_layers

INITIAL_STD = 0.02
# Of positions, about as wide as what they are added to.
POSITION_STD = 0.5
POOLER_ACTIVATIONS = ACTIVATIONS | {"tanh": torch.tanh}


@dataclass(frozen=True)
class VitConfig:
    """Sizes and options; the defaults are the paper's base model over patches of 16 x 16.

    Args:   patch_size: pixels of a patch's side, which divides the picture's.
            pooling: what is classified: the state of a token of its own before the patches (`class`), or the `mean` of
            the patches' states, and there is no such token.
            stochastic_depth: the chance that a picture goes past the last layer in training; the first layer's is 0,
            and between them it rises evenly.
            d_pooler: width of a layer before the classifier, as in pre-training; 0 has none.
            distillation_token: a second token beside the class's, which DeiT learned a teacher's answers with.
            distillation_head: it has a classifier of its own, and the answer is the mean of both.
            image_size, num_channels: of the pictures; 0 means "from the data".
            num_labels: of the classifier; 0 means "from the data", and has none until then.
    """

    name: Literal["vit"] = "vit"
    patch_size: int = 16
    d_model: int = 768
    num_heads: int = 12
    d_ff: int = 3072
    num_layers: int = 12
    dropout: float = 0.0
    attention_dropout: float = 0.0
    stochastic_depth: float = 0.0
    activation: Activation = "gelu"
    norm_epsilon: float = 1e-6
    pooling: Literal["class", "mean"] = "class"
    d_pooler: int = 0
    pooler_activation: Literal["tanh", "relu", "gelu", "gelu-tanh", "silu"] = "tanh"
    distillation_token: bool = False
    distillation_head: bool = False
    image_size: int = 0
    num_channels: int = 0
    num_labels: int = 0

    def __post_init__(self) -> None:
        for name in ("patch_size", "d_model", "num_heads", "d_ff", "num_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("image_size", "num_channels", "num_labels", "d_pooler"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        for name in ("dropout", "attention_dropout", "stochastic_depth"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if not 0.0 < self.norm_epsilon < float("inf"):
            raise ValueError(f"norm_epsilon must be above 0, got {self.norm_epsilon}")
        if self.d_model % self.num_heads:
            raise ValueError(f"d_model = {self.d_model} is not divisible by num_heads = {self.num_heads}")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size = {self.image_size} is not divisible by patch_size = {self.patch_size}")
        if self.distillation_token and self.pooling == "mean":
            raise ValueError("distillation_token stands beside the class token, but pooling = mean has none")
        if self.distillation_head and not self.distillation_token:
            raise ValueError("distillation_head classifies the distillation token's state: set distillation_token")

    def body(self) -> "VitConfig":
        """The same without the heads that a task brings, for pictures of any size."""
        return replace(self, d_pooler=0, distillation_head=False, num_labels=0, image_size=0)

    @property
    def num_prefix_tokens(self) -> int:
        """How many tokens stand before the patches."""
        return 0 if self.pooling == "mean" else 1 + self.distillation_token

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
            norm_first=True,
            norm_epsilon=self.norm_epsilon,
        )


def _size(patch_size: int, num_layers: int, d_model: int, num_heads: int) -> VitConfig:
    return VitConfig(
        patch_size=patch_size, num_layers=num_layers, d_model=d_model, num_heads=num_heads, d_ff=4 * d_model
    )


# Dosovitskiy et al. 2021, table 1, with the patch sizes of section 4.1; `deit`: Touvron et al. 2021, table 1.
PUBLISHED_SIZES = {
    "base-16": _size(16, 12, 768, 12),
    "base-32": _size(32, 12, 768, 12),
    "large-16": _size(16, 24, 1024, 16),
    "large-32": _size(32, 24, 1024, 16),
    "huge-14": _size(14, 32, 1280, 16),
    "deit-tiny-16": _size(16, 12, 192, 3),
    "deit-small-16": _size(16, 12, 384, 6),
}


class Vit(nn.Module):
    """Pictures to the logits of labels.

    Source: Dosovitskiy et al. 2021, eq. 1 to 4; `pooling = "mean"`: appendix D.3; stochastic depth: Huang et al. 2016,
            a layer (both sublayers) being what is gone past; distillation token: Touvron et al. 2021, section 4.
            Departure: positions begin 25 times as wide as in the authors' code (a deviation of 0.5, not 0.02), with
            which few pictures teach sooner where things are.
    """

    # What begins anew where another task's model is gone on with.
    HEADS: ClassVar[tuple[str, ...]] = ("pooler", "classifier", "distillation_classifier")
    # Of these, whose rows are of labels, one each.
    LABEL_HEADS: ClassVar[tuple[str, ...]] = ("classifier", "distillation_classifier")

    def __init__(self, config: VitConfig) -> None:
        super().__init__()
        self.config = config
        c = config.layer
        side = config.image_size // config.patch_size
        self.patch_projection = Linear(config.num_channels * config.patch_size**2, c.d_model)
        self.class_token = _token(c.d_model) if config.pooling == "class" else None
        self.distillation_token = _token(c.d_model) if config.distillation_token else None
        self.positions = LearnedPositions(config.num_prefix_tokens + side**2, c.d_model)
        nn.init.normal_(self.positions.table, std=POSITION_STD)
        self.embedding_dropout = Dropout(c.dropout)
        self.encoder_layers = nn.ModuleList(EncoderLayer(c) for _ in range(config.num_layers))
        self.encoder_norm = nn.LayerNorm(c.d_model, eps=c.norm_epsilon)
        self.pooler = Linear(c.d_model, config.d_pooler) if config.d_pooler else None
        d_pooled = config.d_pooler or c.d_model
        self.classifier = Linear(d_pooled, config.num_labels) if config.num_labels else None
        has_second = config.num_labels and config.distillation_head
        self.distillation_classifier = Linear(c.d_model, config.num_labels) if has_second else None

    def forward(self, images: Tensor, maps: Maps | None = None) -> Tensor:
        """The labels' logits, or, without labels, the state that they would be of.

        Shape: images (B, C, H, W), of any size that patches fit into; returns (B, num_labels) or (B, D).
        """
        x = self.states(images, maps)
        pooled = x.mean(dim=1) if self.class_token is None else x[:, 0]  # (B, D)
        if self.pooler is not None:
            pooled = POOLER_ACTIVATIONS[self.config.pooler_activation](self.pooler(pooled))
        if self.classifier is None:
            return pooled
        logits = self.classifier(pooled)
        if self.distillation_classifier is None:
            return logits
        return (logits + self.distillation_classifier(x[:, 1])) / 2

    def states(self, images: Tensor, maps: Maps | None = None) -> Tensor:
        """The last layer's hidden states, normalised.

        Shape: images (B, C, H, W); returns (B, T, D): the prefix tokens, then the patches, row by row.
        """
        size = self.config.patch_size
        images = images.to(self.positions.table.dtype)
        x = self.patch_projection(cut_into_patches(images, size))  # (B, N, D)
        before = [token for token in (self.class_token, self.distillation_token) if token is not None]
        x = torch.cat([*(token.expand(len(x), 1, -1) for token in before), x], dim=1)  # (B, T, D)
        grid = (images.shape[-2] // size, images.shape[-1] // size)
        x = self.embedding_dropout(x + resize_positions(self.positions.table, len(before), grid))
        return run_layers(self, self._encode, x, None, maps)

    def _encode(self, x: Tensor, mask: Tensor | None, maps: Maps | None) -> Tensor:
        for i, layer in enumerate(self.encoder_layers):
            y = layer(x, mask, maps, f"encoder.{i}")
            rate = self.config.stochastic_depth * i / max(1, self.config.num_layers - 1)
            x = _some_past(x, y, rate) if self.training and rate else y
        return self.encoder_norm(x)

    def fitted(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Another model's weights with its positions brought to the size of this one's pictures."""
        side, before = self.config.image_size // self.config.patch_size, self.config.num_prefix_tokens
        table = weights.get("positions.table")
        if table is None or math.isqrt(len(table) - before) ** 2 != len(table) - before:
            return dict(weights)  # of another form, which the names and shapes will show
        return {**weights, "positions.table": resize_positions(table, before, (side, side))}


def _token(d_model: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(d_model) * INITIAL_STD)


def cut_into_patches(images: Tensor, size: int) -> Tensor:
    """The patches of pictures, row by row, each as its channels' pixels in a row.

    Shape:  images (B, C, H, W); returns (B, H/size * W/size, C * size * size).
    Raises: ValueError: patches do not fit into the pictures; the message holds both sizes.
    """
    height, width = images.shape[-2:]
    if height % size or width % size:
        raise ValueError(f"pictures of {height} x {width} pixels cannot be cut into patches of {size} x {size}")
    cut = images.unflatten(3, (-1, size)).unflatten(2, (-1, size))  # (B, C, H/size, size, W/size, size)
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # (B, N, C * size * size)


def resize_positions(table: Tensor, num_prefix_tokens: int, grid: tuple[int, int]) -> Tensor:
    """A square's positions over another grid of patches, interpolated as a picture's pixels are.

    Shape:  table (prefix + side * side, D), grid of so many rows and columns; returns (prefix + rows * columns, D).
    Source: Dosovitskiy et al. 2021, section 3.2; bicubic, as DeiT (section 5.2 there).
    """
    side = math.isqrt(len(table) - num_prefix_tokens)
    if grid == (side, side):
        return table
    prefix, patches = table[:num_prefix_tokens], table[num_prefix_tokens:]
    picture = patches.T.unflatten(1, (side, side))[None]  # (1, D, side, side)
    resized = F.interpolate(picture, size=grid, mode="bicubic", align_corners=False)
    return torch.cat([prefix, resized[0].flatten(1).T])


def _some_past(x: Tensor, y: Tensor, rate: float) -> Tensor:
    """What a layer made of `x`, but `x` itself for a share of the rows; the mean over many draws stays `y`.

    Shape: x, y (B, T, D); returns the same.
    """
    kept = torch.rand(len(x), 1, 1, device=x.device) >= rate
    return x + (y - x) * (kept.to(x.dtype) / (1 - rate))


# Published weights. A name of ours stands for one of theirs, or for several whose rows it has under one another.

BODY = {
    "class_token": "embeddings.cls_token",
    "distillation_token": "embeddings.distillation_token",
    "positions.table": "embeddings.position_embeddings",
    "patch_projection": "embeddings.patch_embeddings.projection",
    "encoder_norm": "layernorm",
    "pooler": "pooler.dense",
}
IN_LAYER = {
    "self_attention.w_qkv": tuple(f"attention.attention.{part}" for part in ("query", "key", "value")),
    "self_attention.w_o": ("attention.output.dense",),
    "self_residual.norm": ("layernorm_before",),
    "feed_forward.w_1": ("intermediate.dense",),
    "feed_forward.w_2": ("output.dense",),
    "feed_forward_residual.norm": ("layernorm_after",),
}


def published_names(name: str, config: VitConfig) -> tuple[str, ...]:
    """What a checkpoint calls one of our weights; of several names, each is a part of its rows.

    The prefix that names of the body have beside a head (`vit.`, `deit.`) is left out.
    """
    first = "cls_classifier" if config.distillation_head else "classifier"
    heads = {"classifier": first, "distillation_classifier": "distillation_classifier"}
    for own, theirs in (*BODY.items(), *heads.items()):
        if name == own or name.startswith(f"{own}."):
            return (theirs + name.removeprefix(own),)
    _, number, inside = name.split(".", 2)  # encoder_layers.0.self_attention.w_qkv.weight
    module, _, kind = inside.rpartition(".")
    return tuple(f"encoder.layer.{number}.{part}.{kind}" for part in IN_LAYER[module])


def from_published(weights: Mapping[str, Tensor], wanted: Iterable[str], config: VitConfig) -> dict[str, Tensor]:
    """A checkpoint's weights under our names; queries, keys and values without a bias get one of zeros.

    Args:   wanted: our names of all weights of the model that they are for.
    Raises: ValueError: one is not in the checkpoint, or the checkpoint has one that the model lacks.
    """
    left = {name.removeprefix("vit.").removeprefix("deit."): weight for name, weight in weights.items()}
    found = {}
    for name in wanted:
        theirs = published_names(name, config)
        if name.endswith("w_qkv.bias") and not any(part in left for part in theirs):
            found[name] = torch.zeros(3 * config.d_model)
            continue
        found[name] = _as_ours(name, take(left, theirs, name))
    refuse_rest(left)
    return found


def _as_ours(name: str, weight: Tensor) -> Tensor:
    """Tokens and positions of one picture, not of a batch of one; a patch's pixels in a row."""
    if name in ("class_token", "distillation_token"):
        return weight.flatten()
    if name == "positions.table":
        return weight.flatten(0, 1)
    return weight.flatten(1) if name == "patch_projection.weight" else weight


def to_published(weights: Mapping[str, Tensor], config: VitConfig, family: str) -> dict[str, Tensor]:
    """Our weights under a checkpoint's names.

    Args: family: `vit` or `deit`, the prefix of the body's names where there is a head beside it.
    """
    size = config.patch_size
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if name in ("class_token", "distillation_token"):
            weight = weight[None, None]
        elif name == "positions.table":
            weight = weight[None]
        elif name == "patch_projection.weight":
            weight = weight.unflatten(1, (config.num_channels, size, size))
        is_head = name.startswith(("classifier", "distillation_classifier"))
        prefix = f"{family}." if config.num_labels and not is_head else ""
        found |= parts(weight, [prefix + part for part in published_names(name, config)])
    return found
