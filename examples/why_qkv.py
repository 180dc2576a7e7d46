"""One small Transformer, and the same without one part at a time: scale, positions, W_Q, W_V, heads, learnt embeddings.

    python examples/why_qkv.py --minutes 6 --data data/tatoeba-zh-en --document

Writes what docs/why-qkv.md shows. `--quick` does all of it within seconds, on made-up pairs. The variants are made
here, of the Transformer's own parts: a projection that gives other queries, keys or values is put in the place of the
paper's, and attention itself is never touched.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from studies import Contender, arguments, conditions, publish, table, test_pairs, trained, translated
from torch import Tensor, nn

from zhuyi.data.normalization import contains_han
from zhuyi.errors import InputError
from zhuyi.metrics.translation_scores import translation_scores
from zhuyi.models import MODELS, Architecture
from zhuyi.models.transformer import Transformer, TransformerConfig
from zhuyi.nn.linear import Linear
from zhuyi.visualize import figures
from zhuyi.visualize.attention_maps import token_labels

BEAM = 5
NEIGHBOURS = 5
WORDS = ("他", "妈妈", "昨天", "喜欢", "三", "北京", "▁he", "▁mother", "▁yesterday", "▁likes", "▁three", "▁Boston")
SENTENCE = "我昨天在图书馆借了一本关于中国历史的书。"
COLOURS = ("#1f4e8c", "#c8511b", "#3f8f5b", "#8a5aa8", "#c79a1e", "#5aa9c7", "#b0446b", "#6b7280", "#9aa1ab")


# Projections: what takes the place of W_Q, W_K and W_V. Each gives what they would, side by side.


class StretchedQueries(Linear):
    """Queries sqrt(d) times as long: what attention divides their products by is taken back before."""

    def __init__(self, like: Linear, num_queries: int, head_dim: int) -> None:
        super().__init__(like.in_features, like.out_features, matrices=like.matrices)
        self.num_queries, self.factor = num_queries, math.sqrt(head_dim)

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return torch.cat([y[..., : self.num_queries] * self.factor, y[..., self.num_queries :]], dim=-1)


class QueriesAsKeys(nn.Module):
    """Self-attention's projection with W_K = W_Q."""

    def __init__(self, d_model: int, width: int) -> None:
        super().__init__()
        self.w_q, self.w_v = Linear(d_model, width), Linear(d_model, width)

    def forward(self, x: Tensor) -> Tensor:
        queries = self.w_q(x)
        return torch.cat([queries, queries, self.w_v(x)], dim=-1)


class KeysByQueries(nn.Module):
    """The memory's projection with the W_K that is its queries' W_Q."""

    def __init__(self, w_q: Linear, d_model: int, width: int) -> None:
        super().__init__()
        self.w_q, self.w_v = w_q, Linear(d_model, width)

    def forward(self, memory: Tensor) -> Tensor:
        return torch.cat([self.w_q(memory), self.w_v(memory)], dim=-1)


class ValuesAsTheyAre(nn.Module):
    """Without W_V: a head's values are its share of the hidden state itself."""

    def __init__(self, d_model: int, width: int, matrices: int) -> None:
        super().__init__()
        self.w = Linear(d_model, matrices * width, matrices=matrices)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.w(x), x], dim=-1)


# What takes the place of positions and of embeddings.


class NoPositions(nn.Module):
    """Zeros."""

    zeros: Tensor

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.register_buffer("zeros", torch.zeros(d_model), persistent=False)

    def forward(self, positions: Tensor) -> Tensor:
        return self.zeros.expand(*positions.shape, -1)


class OneHot(nn.Module):
    """One-hot vectors, turned and squeezed into D dimensions by a fixed matrix of random numbers.

    Nothing is learnt: as with one-hot vectors, no word is nearer to one word than to another, but for chance.
    """

    weight: Tensor

    def __init__(self, vocab_size: int, d_model: int) -> None:
        super().__init__()
        numbers = torch.randn(vocab_size, d_model, generator=torch.Generator().manual_seed(0))
        self.register_buffer("weight", numbers / numbers.norm(dim=1, keepdim=True), persistent=False)
        self.scale = math.sqrt(d_model)

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight) * self.scale


# The variants.

Variant = Literal["published", "no scale", "no positions", "W_Q = W_K", "no W_V", "one-hot"]


@dataclass(frozen=True)
class VariantConfig(TransformerConfig):
    """A Transformer's, and which part is left out."""

    name: Literal["why-qkv"] = "why-qkv"
    variant: Variant = "published"


class VariantTransformer(Transformer):
    """A Transformer in which one kind of part has been replaced."""

    def __init__(self, config: VariantConfig) -> None:
        super().__init__(config)
        if config.variant == "no positions":
            self.source_positions = self.target_positions = NoPositions(config.d_model)
        elif config.variant == "one-hot":
            self.source_embedding = OneHot(config.source_vocab_size, config.d_model)
            self.target_embedding = self.source_embedding
        elif config.variant != "published":
            for layer in [*self.encoder_layers, *self.decoder_layers]:
                replace_projections(layer, config)


def replace_projections(layer: Any, config: VariantConfig) -> None:
    """Give a layer's attention the projections of a variant."""
    d_model, head_dim = config.d_model, config.layer.head_dim
    width = config.num_heads * head_dim
    mine, cross = layer.self_attention, getattr(layer, "cross_attention", None)
    match config.variant:
        case "no scale":
            mine.w_qkv = StretchedQueries(mine.w_qkv, width, head_dim)
            if cross is not None:
                cross.w_q = StretchedQueries(cross.w_q, width, head_dim)
        case "W_Q = W_K":
            mine.w_qkv = QueriesAsKeys(d_model, width)
            if cross is not None:
                cross.w_kv = KeysByQueries(cross.w_q, d_model, width)
        case "no W_V":
            mine.w_qkv = ValuesAsTheyAre(d_model, width, 2)
            if cross is not None:
                cross.w_kv = ValuesAsTheyAre(d_model, width, 1)


SMALL = {
    "name": "why-qkv",
    "d_model": 128,
    "num_heads": 8,
    "d_ff": 512,
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
    "dropout": 0.15,
    "norm_first": True,
}
CONTENDERS: dict[str, dict[str, Any]] = {
    "as published, 8 heads": {},
    "without the scale": {"variant": "no scale"},
    "without positions": {"variant": "no positions"},
    "W_Q = W_K": {"variant": "W_Q = W_K"},
    "without W_V": {"variant": "no W_V"},
    "1 head": {"num_heads": 1},
    "1 head, without the scale": {"num_heads": 1, "variant": "no scale"},
    "three tables of embeddings": {"tie_embeddings": "none"},
    "one-hot embeddings": {"tie_embeddings": "none", "variant": "one-hot"},
}
PUBLISHED, ONE_HOT = "as published, 8 heads", "one-hot embeddings"
SHOWN = (PUBLISHED, "without positions", "W_Q = W_K")


def main() -> None:
    """Train, measure, draw."""
    given = arguments(__doc__.splitlines()[0], "runs/why-qkv", 6.0)
    MODELS["why-qkv"] = Architecture(VariantConfig, VariantTransformer, {})
    size = {"d_model": 32, "d_ff": 40} if given.quick else {}
    contenders = {name: trained(name, {**SMALL, **size, **model}, given) for name, model in CONTENDERS.items()}
    pairs = test_pairs(given.data)
    rows = [_row(contender, pairs) for contender in contenders.values()]
    pictures = [given.out / name for name in ("loss.png", "attention.png")]
    draw_losses(contenders, pictures[0])
    draw_attention({name: contenders[name] for name in SHOWN}, pairs[0][0] if given.quick else SENTENCE, pictures[1])
    neighbours = neighbour_table(contenders[PUBLISHED], contenders[ONE_HOT])
    publish(given, "why-qkv", _report(conditions(given, len(pairs)), rows, neighbours), pictures)


def _row(contender: Contender, pairs: Sequence[tuple[str, str]]) -> list[str]:
    found, _ = translated(contender, [source for source, _ in pairs], BEAM)
    bleu = translation_scores(found, [target for _, target in pairs], "en")["bleu"]
    steps, loss = contender.metrics[-1]["step"], contender.scores["valid_loss"]
    return [contender.name, f"{contender.parameters / 1e6:.2f} M", f"{steps:,}", f"{loss:.2f}", f"{bleu:.1f}"]


# Nearest neighbours.


def neighbour_table(learnt: Contender, fixed: Contender) -> str:
    """The tokens whose vectors point most nearly where a word's does, learnt and one-hot."""
    labels = learnt.translator.tokenizer.labels
    words = [word for word in WORDS if word in labels] or [label for label in labels if len(label) == 1][5:9]
    rows = [[word, *(", ".join(neighbours(each, word)) for each in (learnt, fixed))] for word in words]
    return table(["token", "nearest, learnt", "nearest, one-hot"], [[f"`{c}`" for c in row] for row in rows], "---")


def neighbours(contender: Contender, word: str) -> list[str]:
    """By cosine."""
    labels = contender.translator.tokenizer.labels
    directions = F.normalize(contender.translator.model.source_embedding.weight, dim=1)  # (V, D)
    cosines = directions @ directions[labels.index(word)]
    return [labels[i] for i in cosines.topk(NEIGHBOURS + 1).indices.tolist() if labels[i] != word][:NEIGHBOURS]


# Pictures.


def draw_losses(contenders: dict[str, Contender], path: Path) -> None:
    """Validation loss over the steps, a line a contender."""
    with figures.style():
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        figure = Figure(figsize=(8.4, 4.6), layout="constrained")
        axes = figure.add_subplot()
        for (name, contender), colour in zip(contenders.items(), COLOURS, strict=True):
            points = [(row["step"], row["valid_loss"]) for row in contender.metrics]
            width = 2.6 if name == PUBLISHED else 1.4
            axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=3, linewidth=width, label=name)
        axes.set(xlabel="step", ylabel="validation loss, nats a token")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.grid(color="#e8eaee", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside right upper", frameon=False)
        figures.save(figure, path)


def draw_attention(shown: dict[str, Contender], sentence: str, path: Path) -> None:
    """The first encoder layer's self-attention over one sentence, the heads' mean, a panel a contender."""
    with figures.style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4.2 * len(shown), 4.6), layout="constrained")
        for axes, (name, contender) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
            maps = contender.translator.attention(sentence)
            tokens = token_labels(maps.source_tokens)
            axes.imshow(maps.maps["encoder.0.self"].mean(dim=0).numpy(), cmap="Blues", vmin=0)
            axes.set_title(name, loc="left")
            upright = ["\n".join(token) if contains_han(token) else token for token in tokens]
            axes.set_xticks(range(len(tokens)), upright)
            for label, token in zip(axes.get_xticklabels(), tokens, strict=True):
                label.set_rotation(0 if contains_han(token) or len(token) == 1 else 90)
            axes.set_yticks(range(len(tokens)), tokens)
            axes.tick_params(length=0, labelsize=8)
        figures.save(figure, path)


def _report(conditions: str, rows: list[list[str]], neighbours: str) -> str:
    return f"""\
{conditions}

{table(["", "parameters", "steps", "validation loss", f"BLEU, beam {BEAM}"], rows)}
![Validation loss](loss.png)

Where the first encoder layer looks (mean of its heads; a row is the token that looks):

![Attention](attention.png)

The tokens nearest to a token, by the cosine of their embeddings:

{neighbours}"""


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
