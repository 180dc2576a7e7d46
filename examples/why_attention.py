"""No attention, additive attention, a Transformer: the same data, the same training time, side by side.

    python examples/why_attention.py --minutes 20 --data data/tatoeba-zh-en --document

Writes what docs/why-attention.md shows. `--quick` does all of it within seconds, on made-up pairs.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from studies import Contender, arguments, conditions, publish, table, test_pairs, trained, translated
from torch import Tensor

from zhuyi.data.special_tokens import BOS_ID
from zhuyi.errors import InputError
from zhuyi.metrics.translation_scores import translation_scores
from zhuyi.visualize import draw, figures

GRU = {"name": "seq2seq", "cell": "gru", "d_model": 256, "dropout": 0.3}
# About as many parameters each. The recurrent ones compute in float32: in bfloat16 a state would be rounded each step.
CONTENDERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "GRU without attention": ({**GRU, "attention": "none"}, {"precision": "float32"}),
    "GRU, additive attention": ({**GRU, "attention": "additive"}, {"precision": "float32"}),
    "Transformer": (
        {
            "name": "transformer",
            "d_model": 160,
            "num_heads": 4,
            "d_ff": 640,
            "num_encoder_layers": 3,
            "num_decoder_layers": 3,
            "dropout": 0.2,
            "norm_first": True,
        },
        {},
    ),
}
SMALL = {"GRU without attention": 34, "GRU, additive attention": 30, "Transformer": 28}  # d_model with --quick
COLOURS = {"GRU without attention": "#9aa1ab", "GRU, additive attention": "#1f4e8c", "Transformer": "#c8511b"}
BEAM = 5
SHARES = (0.2, 0.4, 0.6, 0.8, 0.93)  # where the sentences are cut into groups, shortest first
REACH_SENTENCES, SHORTEST, FARTHEST = 120, 9, 24
SENTENCE = "我昨天在图书馆借了一本关于中国历史的书。"


def main() -> None:
    """Train, measure, draw."""
    given = arguments(__doc__.splitlines()[0], "runs/why-attention", 20.0)
    contenders = [_train(name, given) for name in CONTENDERS]
    pairs = test_pairs(given.data)
    sources, references = [source for source, _ in pairs], [target for _, target in pairs]
    rows, answers = [], {}
    for contender in contenders:
        greedy, greedy_speed = translated(contender, sources, 1)
        found, beam_speed = translated(contender, sources, BEAM)
        answers[contender.name] = found
        rows.append(_row(contender, greedy, found, references, (greedy_speed, beam_speed)))
    lengths = [len(contenders[0].translator.source_tokenizer.encode(source)) for source in sources]
    groups = length_groups(lengths)
    by_length = {
        name: [bleu([found[i] for i in group], [references[i] for i in group]) for _, group in groups]
        for name, found in answers.items()
    }
    reaches = {each.name: gradient_reach(each, pairs) for each in contenders}
    pictures = [given.out / name for name in ("bleu-by-length.png", "gradient-reach.png", "alignment.png")]
    draw_by_length([f"{label}\n({len(group)})" for label, group in groups], by_length, pictures[0])
    draw_reach(reaches, pictures[1])
    draw(contenders[1].translator, sources[0] if given.quick else SENTENCE, pictures[2])
    publish(given, "why-attention", _report(conditions(given, len(pairs)), rows, groups, by_length), pictures)


def _train(name: str, given: Any) -> Contender:
    model, settings = CONTENDERS[name]
    if given.quick:
        model = {**model, "d_model": SMALL[name], **({"d_ff": 50} if "d_ff" in model else {})}
    return trained(name, model, given, **settings)


def bleu(found: Sequence[str], references: Sequence[str]) -> float:
    """Of English."""
    return translation_scores(found, references, "en")["bleu"]


def _row(
    contender: Contender, greedy: list[str], found: list[str], references: list[str], speeds: tuple[float, float]
) -> list[str]:
    return [
        contender.name,
        f"{contender.parameters / 1e6:.1f} M",
        f"{contender.metrics[-1]['step']:,}",
        f"{contender.scores['valid_loss']:.2f}",
        f"{bleu(greedy, references):.1f}",
        f"{bleu(found, references):.1f}",
        f"{contender.train_speed:,.0f}",
        *(f"{speed:,.0f}" for speed in speeds),
    ]


# Scores by length.


def length_groups(lengths: list[int]) -> list[tuple[str, list[int]]]:
    """Sentences by how many tokens their source has, in groups that `SHARES` cuts: a label and the sentences."""
    ordered = sorted(lengths)
    ends = sorted({ordered[int(share * (len(ordered) - 1))] for share in SHARES} | {ordered[-1]})
    groups, first = [], ordered[0]
    for end in ends:
        group = [i for i, length in enumerate(lengths) if first <= length <= end]
        groups.append((f"{first}-{end}" if first < end else f"{end}", group))
        first = end + 1
    return groups


def draw_by_length(labels: list[str], by_length: dict[str, list[float]], path: Path) -> None:
    """BLEU over groups of sentences, a line a contender."""
    with figures.style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.2, 4.0), layout="constrained")
        axes = figure.add_subplot()
        for name, scores in by_length.items():
            axes.plot(scores, color=COLOURS[name], marker="o", markersize=4, linewidth=1.8, label=name)
        axes.set_xticks(range(len(labels)), labels)
        axes.set(xlabel="tokens of the source sentence (and how many sentences)", ylabel=f"BLEU, beam {BEAM}")
        axes.set_ylim(bottom=0)
        _finish(axes)
        figures.save(figure, path)


# How far a gradient reaches.


def gradient_reach(contender: Contender, pairs: Sequence[tuple[str, str]]) -> tuple[list[float], list[float]]:
    """Medians over sentences of |d loss / d embedding|, by distance: back in the target, and from the source's end.

    The loss is that of a sentence's last word, -log p; every norm is relative to the nearest token's.
    """
    sides: tuple[list[list[float]], list[list[float]]] = ([], [])
    translator, used = contender.translator, 0
    for source, target in pairs:
        src, tgt = translator.source_tokenizer.encode(source), translator.target_tokenizer.encode(target)[:-2]
        if min(len(src), len(tgt)) < SHORTEST or used == REACH_SENTENCES:
            continue
        used += 1
        for side, norms in zip(sides, embedding_gradients(translator.model, src, tgt), strict=True):
            nearest_first = norms.flip(0)[:FARTHEST]
            for distance, norm in enumerate((nearest_first / nearest_first[0]).tolist()):
                side.extend([] for _ in range(distance + 1 - len(side)))
                side[distance].append(norm)
    source_side, target_side = ([median(norms) for norms in side if 4 * len(norms) >= used] for side in sides)
    return target_side, source_side


def embedding_gradients(model: Any, src: list[int], tgt: list[int]) -> tuple[Tensor, Tensor]:
    """Norms of the gradient of -log p(last of `tgt`), at each embedding read.

    Every position gets a row of its own in a table that stands in for the embeddings; so no word's positions mix.

    Shape: returns (S,) and (T,).
    """
    read = torch.tensor([BOS_ID, *tgt[:-1]])
    source, target = model.source_embedding.weight, model.target_embedding.weight
    rows = torch.cat([source[torch.tensor(src)], target[read]]).detach().requires_grad_()  # (S + T, D)
    places = torch.arange(len(rows))[None]
    # Where both are one module, its table must be replaced, and put back, once.
    names = ["source_embedding"] if source is target else ["source_embedding", "target_embedding"]
    tables = {f"{name}.weight": rows for name in names}
    inputs = places[:, : len(src)], places[:, len(src) :]
    logits = torch.func.functional_call(model, tables, inputs, tie_weights=False)  # (1, T, V)
    loss = F.cross_entropy(logits[0, -1], torch.tensor(tgt[-1]))
    norms = torch.autograd.grad(loss, rows)[0].norm(dim=1)
    return norms[: len(src)], norms[len(src) :]


def draw_reach(reaches: dict[str, tuple[list[float], list[float]]], path: Path) -> None:
    """Two panels on one scale: back in what was written, back in what was read."""
    with figures.style():
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter

        figure = Figure(figsize=(10.4, 4.0), layout="constrained")
        both = figure.subplots(1, 2, sharey=True)
        titles = ("back in the target: words before the last one read", "in the source: words before its end")
        for side, (axes, title) in enumerate(zip(both, titles, strict=True)):
            for name, reach in reaches.items():
                axes.plot(reach[side], color=COLOURS[name], marker="o", markersize=3, linewidth=1.8, label=name)
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda norm, _: f"{norm:g}"))
            axes.set_title(title, loc="left")
            axes.set_xlabel("distance, tokens")
            _finish(axes)
        both[1].get_legend().remove()
        both[0].set_ylabel("|d loss / d embedding|, of the nearest = 1")
        figures.save(figure, path)


def _finish(axes: Any) -> None:
    axes.grid(color="#e8eaee", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def _report(
    conditions: str,
    rows: list[list[str]],
    groups: list[tuple[str, list[int]]],
    by_length: dict[str, list[float]],
) -> str:
    header = ["", "parameters", "steps", "validation loss", "BLEU, greedy", f"BLEU, beam {BEAM}"]
    header += ["training, tokens/s", "greedy, tokens/s", f"beam {BEAM}, tokens/s"]
    lengths = [[name, *(f"{score:.1f}" for score in scores)] for name, scores in by_length.items()]
    return f"""\
{conditions}

{table(header, rows)}
BLEU by the number of tokens in the source sentence (beam {BEAM}):

{table(["", *(label for label, _ in groups)], lengths)}
![BLEU by length](bleu-by-length.png)

![Gradient reach](gradient-reach.png)

What the GRU with additive attention looked at, translating one sentence:

![Alignment](alignment.png)
"""


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
