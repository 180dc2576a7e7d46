"""What was measured, as text and as a picture."""

import dataclasses
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

TOOLS = ("JoeyNMT", "torch nn.Transformer", "torch nn.TransformerEncoder", "Hugging Face", "CTranslate2", "zhuyi")
COLOURS = {
    "JoeyNMT": ["#d8cfe3"],
    "torch nn.Transformer": ["#b9d3bd"],
    "torch nn.TransformerEncoder": ["#b9d3bd"],
    "Hugging Face": ["#c9ced6", "#aab1bc"],
    "CTranslate2": ["#8fb4de"],
    "zhuyi": ["#e7a37f", "#d9773f", "#b3470f"],
}


def plain(config: Any) -> dict[str, Any]:
    """A config's values."""
    return dataclasses.asdict(config)


def versions() -> dict[str, str]:
    """Of all who take part."""
    names = ("zhuyi", "torch", "ctranslate2", "transformers", "tokenizers")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}


def as_text(found: dict[str, Any]) -> str:
    """All tables."""
    machine = ", ".join(f"{name} {value}" for name, value in found["machine"].items())
    lines = [f"machine: {machine}", f"versions: {', '.join(' '.join(pair) for pair in found['versions'].items())}", ""]
    if "random" in found:
        lines += random_tables(found["random"])
    for real in found.get("real", []):
        lines += real_tables(real)
    if "generation" in found:
        lines += generation_tables(found["generation"])
    for training in found.get("training", []):
        lines += training_tables(training)
    return "\n".join(lines) + "\n"


def random_tables(found: dict[str, Any]) -> list[str]:
    """Speeds, then ratios."""
    shape = found["shape"]
    layers = f"{shape['num_encoder_layers']} + {shape['num_decoder_layers']} layers"
    sizes = f"d_model {shape['d_model']}, d_ff {shape['d_ff']}, {shape['target_vocab_size']:,} words"
    head = f"Random weights, {layers}, {sizes}; {found['length']} tokens in, exactly as many out"
    return cells_tables(head, found, "target tokens")


def generation_tables(found: dict[str, Any]) -> list[str]:
    """Speeds, then ratios."""
    shape = found["shape"]
    sizes = f"{shape['num_layers']} layers, d_model {shape['d_model']}, {shape['vocab_size']:,} words"
    head = f"Random weights of a GPT, {sizes}; {found['prompt']} tokens in, exactly {found['length']} out"
    return cells_tables(head, found, "tokens")


def cells_tables(head: str, found: dict[str, Any], counted: str) -> list[str]:
    """What every cell of random weights has to tell."""
    lines = [head, ""]
    lines += ["What the machine does (median of the rounds):"]
    lines += [f"  {name:32} {middle(rates):9,.1f}" for name, rates in found["rates"].items()]
    for cell in found["cells"]:
        lines += ["", f"{search(cell)}, batch {cell['batch']}: {counted} a second", *speeds(cell)]
        most = ", ".join(f"{name} {value:,.0f}" for name, value in cell["limits"].items())
        lines.append(f"  the machine's limit: {most}")
        same = ", ".join(f"{tool} {share:.0%}" for tool, share in cell["agreement"].items())
        lines.append(f"  float32 texts equal to zhuyi's: {same or 'not compared'}")
    lines += ["", "zhuyi to the best setting of each peer, in all cells: median ratio (least - most of a round)"]
    for cell in found["cells"]:
        lines += [f"  {search(cell)}, batch {cell['batch']}", *ratios(cell, cell["limits"])]
    return [*lines, ""]


def real_tables(found: dict[str, Any]) -> list[str]:
    """Speeds with BLEU, then ratios, for each search."""
    head = f"{found['run']} on {found['pairs']}: {found['sentences']} sentences, {found['different']} different"
    lines = [f"{head}, {found['target_tokens']:,} target tokens in the references; text to text"]
    for beam, cell in found["searches"].items():
        title = "greedy" if beam == "1" else f"beam {beam}"
        lines += ["", f"{title}: sentences a second, BLEU", *speeds(cell, cell["bleu"]), *ratios(cell, {})]
        signatures = {scores["signature"] for scores in cell["bleu"].values()}
        lines += [f"  BLEU {signature}" for signature in sorted(signatures)]
    return [*lines, ""]


def training_tables(found: dict[str, Any]) -> list[str]:
    """Speeds of a shape's steps, then ratios, and what shows that all did the same."""
    lines = [f"Training steps, {found['title']}: target tokens a second", *speeds(found)]
    most = ", ".join(f"{name} {value:,.0f}" for name, value in found["limits"].items())
    lines += [f"  what products at the machine's rate allow: {most}", "", "zhuyi to the best setting of each peer"]
    lines += [*ratios(found, found["limits"]), "", "parameters; loss of the first step"]
    for name, (parameters, loss) in found["checks"].items():
        lines.append(f"  {name:48} {parameters:12,}  {loss:.2f}")
    return [*lines, ""]


def search(cell: dict[str, Any]) -> str:
    """A cell's search in words; a text is continued greedily."""
    return "greedy" if cell.get("beam", 1) == 1 else f"beam {cell['beam']}"


def speeds(cell: dict[str, Any], bleu: dict[str, Any] | None = None) -> list[str]:
    """Those that were measured in every round; the others by their trial alone."""
    lines = []
    for row in cell["rows"]:
        if row["speeds"] and not row["error"]:
            name = f"{row['tool']} {row['setting']}"
            score = f"  BLEU {bleu[name]['bleu']:.2f}" if bleu else ""
            least, most = min(row["speeds"]), max(row["speeds"])
            lines.append(
                f"  {row['tool']:20} {row['setting']:34} {middle(row['speeds']):10,.1f}  ({least:,.1f} - {most:,.1f})"
                f"{score}"
            )
    for tool in TOOLS:
        rest = [row for row in cell["rows"] if row["tool"] == tool and not row["speeds"] and not row["error"]]
        if rest:
            shown = "; ".join(f"{row['setting']} {row['trial']:,.1f}" for row in rest)
            lines.append(f"  {tool}, trial alone: {shown}")
    failed = [f"  {row['tool']} {row['setting']} took no part: {row['error']}" for row in cell["rows"] if row["error"]]
    return lines + failed


def ratios(cell: dict[str, Any], limits: dict[str, float]) -> list[str]:
    """Of each precision of zhuyi to each peer's best, and to the machine's limit."""
    lines = []
    for precision, found in cell["ratios"].items():
        (own,) = (row for row in cell["rows"] if row["tool"] == "zhuyi" and row["setting"] == precision)
        parts = [
            f"{value['median']:.2f} x {peer} ({value['least']:.2f} - {value['most']:.2f}; {cell['best'][peer]})"
            for peer, value in found.items()
        ]
        if precision in limits:
            parts.append(f"{middle(own['speeds']) / limits[precision]:.0%} of the machine's limit")
        lines.append(f"    {precision:9} {'; '.join(parts)}")
    return lines


def middle(values: list[float]) -> float:
    """The median."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def draw(found: dict[str, Any], path: Path) -> None:
    """Bars of speed, a panel a cell: each peer's best, and zhuyi's precisions with the machine's limit."""
    from zhuyi.visualize import figures

    panels = [
        (f"{search(cell)}, batch {cell['batch']}: tokens a second", cell, {})
        for part in ("random", "generation")
        for cell in found.get(part, {"cells": []})["cells"]
    ]
    for real in found.get("real", []):
        for beam, cell in real["searches"].items():
            title = "greedy" if beam == "1" else f"beam {beam}"
            panels.append((f"{Path(real['run']).name}, {title}: sentences a second", cell, cell["bleu"]))
    panels += [(f"{cell['name']}: tokens a second of training", cell, {}) for cell in found.get("training", [])]
    if not panels:
        return
    columns = 2
    rows = -(-len(panels) // columns)
    with figures.style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.4 * columns, 2.2 * rows + 0.3), layout="constrained")
        note = "thin line: slowest to fastest round; dotted: what memory and matrix rate allow in that precision"
        figure.supxlabel(note, fontsize=8)
        for number, (title, cell, bleu) in enumerate(panels, 1):
            draw_panel(figure.add_subplot(rows, columns, number), title, cell, bleu)
        figures.save(figure, path)


def draw_panel(axes: Any, title: str, cell: dict[str, Any], bleu: dict[str, Any]) -> None:
    """One panel: the spread as a thin line, the limit of the precision as a dotted one where it is near."""
    from zhuyi.visualize.figures import FAINT, INK

    bars = []
    for tool in TOOLS:
        measured = [row for row in cell["rows"] if row["tool"] == tool and row["speeds"] and not row["error"]]
        if tool != "zhuyi":
            measured = [row for row in measured if row["setting"] == cell["best"].get(tool)]
        bars += list(zip(measured, COLOURS[tool], strict=False))
    longest = max((max(row["speeds"]) for row, _ in bars), default=1.0)
    for i, (row, colour) in enumerate(bars):
        width, least, most = middle(row["speeds"]), min(row["speeds"]), max(row["speeds"])
        axes.barh(i, width, color=colour, xerr=[[width - least], [most - width]], error_kw={"ecolor": INK, "lw": 0.8})
        score = bleu.get(f"{row['tool']} {row['setting']}")
        note = f"{width:,.0f}" + (f", BLEU {score['bleu']:.1f}" if score else "")
        axes.annotate(f" {note}", (most, i), va="center", fontsize=7.5)
        limit = cell.get("limits", {}).get(row["setting"]) if row["tool"] == "zhuyi" else None
        if limit is not None and limit < 3 * longest:
            axes.plot([limit, limit], [i - 0.4, i + 0.4], color=INK, linewidth=1.4, linestyle=":")
    axes.set_yticks(range(len(bars)), [f"{row['tool']} {row['setting']}" for row, _ in bars], fontsize=7.5)
    axes.invert_yaxis()
    axes.set_title(title, loc="left")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color=FAINT, linewidth=0.4)
    axes.set_axisbelow(True)
    axes.margins(x=0.4 if bleu else 0.2)


def plain_ratios(cell: dict[str, Any]) -> list[str]:
    """How many times faster zhuyi is than each peer's best, a line a setting."""
    return [
        f"{'':13} zhuyi {setting} / best of {peer}: {found['median']:.2f} ({found['least']:.2f} to {found['most']:.2f})"
        for setting, peers in cell["ratios"].items()
        for peer, found in peers.items()
    ]
