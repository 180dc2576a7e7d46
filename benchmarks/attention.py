"""Attention by length: the plain and the fused path's speed, and the memory of one forward and backward pass.

    python benchmarks/attention.py [--only speed|learning|memory] [--out runs/benchmarks] [--quick]

Speed: milliseconds (the median of several turns, the paths in turn) and the ratio; `PLAIN_PATH_MAX_LOGITS` in
zhuyi/nn/attention.py is read off these tables.

Learning: the same of forward and backward at some shapes with as many heads as models have, the plain path by the
kernels' softmax. A row has how many times `PLAIN_PATH_MAX_LOGITS` its logits a head are, and which path
`LEARNING_FACTOR` takes there: that limit is read off this table.

Memory: what a process holds at its peak beyond what it held before, measured in a new process for each point: `attend`
on one text of 8 heads of 64 in float32, under a mask of padding and causal; the plain formula beside it, until it would
take more than 12 GB; and a whole small model (3 + 3 layers, d_model 256, 8,000 words), as many tokens on both sides.
Forward and backward in all. Table, raw numbers and a picture go to --out as attention_memory.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from zhuyi.machine import peak_memory_gib
from zhuyi.models.transformer import Transformer, TransformerConfig
from zhuyi.nn import attention, kernels
from zhuyi.nn.loss import projected_cross_entropy

TOKENS, HEADS, HEAD_DIM, TURNS = 4096, 4, 64, 7
LENGTHS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048)
# Around both limits: four times PLAIN_PATH_MAX_LOGITS is a length of 256, sixteen times one of 512.
LEARNING_SHAPES = ((16, 4, 128, 64), (8, 4, 256, 64), (4, 8, 256, 64), (4, 8, 512, 64), (1, 8, 1024, 64))
SMALL_SHAPES = ((2, 2, 16, 8), (1, 2, 300, 8))
MEMORY_LENGTHS = (1024, 2048, 4096, 8192, 16_384)
MEMORY_HEADS = 8
WARM_UP_LENGTH = 256
MOST_MEGABYTES = 12_000
MODEL = TransformerConfig(
    d_model=256,
    num_heads=4,
    d_ff=1024,
    num_encoder_layers=3,
    num_decoder_layers=3,
    max_len=max(MEMORY_LENGTHS),
    source_vocab_size=8000,
    target_vocab_size=8000,
)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("speed", "learning", "memory"))
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--quick", action="store_true", help="short texts: whether it runs, not what it takes")
    parser.add_argument("--point", nargs=2, metavar=("WHAT", "LENGTH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.point:
        what, length = arguments.point
        print(megabytes_of(WORK[what], int(length)))
        return
    if arguments.only in (None, "speed"):
        speed_tables(LENGTHS[:3] if arguments.quick else LENGTHS)
    if arguments.only in (None, "learning"):
        learning_table(SMALL_SHAPES if arguments.quick else LEARNING_SHAPES)
    if arguments.only in (None, "memory"):
        lengths = (256, 512) if arguments.quick else MEMORY_LENGTHS
        found = {what: memory_by_length(what, lengths) for what in WORK}
        arguments.out.mkdir(parents=True, exist_ok=True)
        text = memory_table(found, lengths)
        (arguments.out / "attention_memory.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
        (arguments.out / "attention_memory.txt").write_text(text, encoding="utf-8")
        draw(found, arguments.out / "attention_memory.png")
        print(text)


def speed_tables(lengths: tuple[int, ...]) -> None:
    """Print a table for each number format and for training and inference."""
    for dtype in (torch.bfloat16, torch.float32):
        for training in (True, False):
            print(f"\n{dtype}, {'forward and backward' if training else 'forward'}, {TOKENS} tokens in all, ms")
            print(f"{'length':>7} {'plain':>8} {'fused':>8} {'fused / plain':>14}")
            for length in lengths:
                plain, fused = measure((TOKENS // length, HEADS, length, HEAD_DIM), dtype, training)
                print(f"{length:7} {plain:8.2f} {fused:8.2f} {fused / plain:14.2f}")


def learning_table(shapes: Sequence[tuple[int, int, int, int]]) -> None:
    """Print both ways' milliseconds by the kernels' softmax and by the fused path."""
    if kernels.library_to_train(torch.zeros(1, requires_grad=True)) is None:
        print(f"\nno kernels here ({kernels.status()}): LEARNING_FACTOR is not used")
        return
    limit = attention.PLAIN_PATH_MAX_LOGITS
    print("\nforward and backward, the plain path by the kernels' softmax, ms")
    print(f"{'batch, heads, length, width':>28} {'type':>9} {'logits / limit':>14} {'plain':>8} {'fused':>8}  taken")
    for shape in shapes:
        for dtype, factor in attention.LEARNING_FACTOR.items():
            plain, fused = measure(shape, dtype, training=True)
            share = shape[2] ** 2 / limit
            name = str(dtype).removeprefix("torch.")
            taken = "plain" if share <= factor else "fused"
            print(f"{', '.join(map(str, shape)):>28} {name:>9} {share:14.2f} {plain:8.2f} {fused:8.2f}  {taken}")


def measure(shape: tuple[int, int, int, int], dtype: torch.dtype, training: bool) -> tuple[float, float]:
    """Median milliseconds of the plain and of the fused path, taken in turn. Shape: (batch, heads, length, width)."""
    limit = attention.PLAIN_PATH_MAX_LOGITS
    q, k, v = (torch.randn(shape, dtype=dtype, requires_grad=training) for _ in range(3))
    mask = torch.ones(shape[0], 1, 1, shape[2], dtype=torch.bool)
    times: dict[int, list[float]] = {0: [], 1: []}
    for turn in range(TURNS + 1):
        for path in times:
            attention.PLAIN_PATH_MAX_LOGITS = 10**12 if path == 0 else -1
            milliseconds = once(q, k, v, mask, training)
            if turn:  # the first turn makes kernels
                times[path].append(milliseconds)
    attention.PLAIN_PATH_MAX_LOGITS = limit
    return statistics.median(times[0]), statistics.median(times[1])


def once(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, training: bool) -> float:
    """Milliseconds of one call."""
    started = time.perf_counter()
    output, _ = attention.attend(q, k, v, mask=mask)
    if training:
        output.backward(output)
    return 1e3 * (time.perf_counter() - started)


def attend(length: int, *, causal: bool = False) -> None:
    """One text through `attend`, and back."""
    q, k, v = (torch.randn(1, MEMORY_HEADS, length, HEAD_DIM, requires_grad=True) for _ in range(3))
    mask = None if causal else torch.ones(1, 1, 1, length, dtype=torch.bool)
    output, _ = attention.attend(q, k, v, mask=mask, causal=causal)
    output.backward(output)


def attend_plainly(length: int) -> None:
    """The same by the plain formula."""
    attention.PLAIN_PATH_MAX_LOGITS = 10**12
    attend(length)


def whole_model(length: int) -> None:
    """One pair of texts through a model while it trains, and back."""
    model = Transformer(MODEL)
    ids = torch.randint(4, MODEL.source_vocab_size, (1, length))
    mask = torch.ones_like(ids, dtype=torch.bool)
    states = model.decoder_states(ids, ids, mask, mask)
    loss, _ = projected_cross_entropy(states[0], model.output_projection.weight, ids[0], smoothing=0.1)
    loss.backward()


WORK: dict[str, Callable[[int], None]] = {
    "attend": attend,
    "attend, causal": lambda length: attend(length, causal=True),
    "plain formula": attend_plainly,
    "whole model": whole_model,
}


def megabytes_of(work: Callable[[int], None], length: int) -> float:
    """What this process holds at its peak beyond what it holds now, with all libraries warm."""
    work(WARM_UP_LENGTH)
    status = Path("/proc/self/status")
    if not status.exists():
        before = peak_memory_gib(torch.device("cpu"))
        work(length)
        return (peak_memory_gib(torch.device("cpu")) - before) * 2**30 / 1e6
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins again
    before = kilobytes(status, "VmRSS")
    work(length)
    return (kilobytes(status, "VmHWM") - before) * 1024 / 1e6


def kilobytes(status: Path, name: str) -> int:
    """One entry of a process's status."""
    (line,) = (line for line in status.read_text(encoding="ascii").splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])


def memory_by_length(what: str, lengths: tuple[int, ...]) -> dict[int, float]:
    """Megabytes at each length; the longest ones are left out where a square of the length would be too much."""
    found: dict[int, float] = {}
    for length in lengths:
        last = max(found, default=length)
        if what == "plain formula" and found.get(last, 0.0) * (length / last) ** 2 > MOST_MEGABYTES:
            break
        command = [sys.executable, __file__, "--point", what, str(length)]
        done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=True)
        found[length] = float(done.stdout)
        print(f"{what}, {length:,} tokens: {found[length]:,.0f} MB", file=sys.stderr)
    return found


def memory_table(found: dict[str, dict[int, float]], lengths: tuple[int, ...]) -> str:
    """Megabytes, and kilobytes a token: the same number all the way down where memory is a line."""
    lines = ["Peak memory of one forward and backward pass, MB (KB a token)", ""]
    lines.append(f"{'tokens':>8}" + "".join(f"{what:>22}" for what in found))
    for length in lengths:
        cells = [
            f"{by_length[length]:,.0f} ({1e3 * by_length[length] / length:,.0f})" if length in by_length else "-"
            for by_length in found.values()
        ]
        lines.append(f"{length:8,}" + "".join(f"{cell:>22}" for cell in cells))
    return "\n".join(lines) + "\n"


def draw(found: dict[str, dict[int, float]], path: Path) -> None:
    """Beside the plain formula, alone, and the whole model."""
    from zhuyi.visualize import figures

    panels = {
        "attend beside the plain formula": ("attend", "plain formula"),
        "attend": ("attend", "attend, causal"),
        "a whole model": ("whole model",),
    }
    longest = max(length for values in found.values() for length in values)
    with figures.style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(11, 3.2), layout="constrained")
        figure.supxlabel("tokens", fontsize=9)
        for number, (title, names) in enumerate(panels.items(), 1):
            axes = figure.add_subplot(1, len(panels), number)
            for name in names:
                lengths = list(found[name])
                colour = "#8a93a0" if name == "plain formula" else "#b3470f" if name != "attend, causal" else "#e7a37f"
                axes.plot(lengths, list(found[name].values()), marker="o", markersize=3.5, color=colour, label=name)
            axes.set_title(f"{title}: MB", loc="left")
            axes.set_xlim(0, 1.05 * longest)
            axes.set_xticks([longest * quarter // 4 for quarter in range(5)])
            axes.set_ylim(bottom=0)
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            axes.grid(color=figures.FAINT, linewidth=0.4)
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(frameon=False, fontsize=8)
        figures.save(figure, path)


if __name__ == "__main__":
    main()
