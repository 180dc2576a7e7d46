"""The memory of translating a large file: held at every moment of `zhuyi translate`, from the first line to the last.

    python benchmarks/memory.py [--lines 200000] [--precision auto] [--out runs/benchmarks] [--quick]

A tiny model of random weights (1 + 1 layers, d_model 32, 300 words) translates lines of 1 to 40 characters, greedily,
in a process of its own; one line in a hundred has nothing to translate and one in two thousand is 1,500 characters
long. What the process holds is asked of the system twice a second. As many lines must come out as went in. Table, raw
numbers and a picture go to --out.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from decoding import Shape, write_random_run
from zhuyi.models.transformer import TransformerConfig

MODEL = TransformerConfig(
    d_model=32, num_heads=2, d_ff=64, num_encoder_layers=1, num_decoder_layers=1, max_len=64, source_vocab_size=300,
    target_vocab_size=300,
)  # fmt: skip
SECONDS_BETWEEN = 0.5
PARTS = 10


def main() -> None:
    """Translate, watch and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lines", type=int, default=200_000)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--quick", action="store_true", help="few lines: whether it runs, not what it holds")
    arguments = parser.parse_args()
    count = 3000 if arguments.quick else arguments.lines
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_random_run(Shape(MODEL, 0, (), (), 0.0), folder / "run")
        (folder / "lines.txt").write_text("".join(f"{line}\n" for line in lines(count)), encoding="utf-8")
        samples = watch(folder, arguments.precision)
        written = count_lines(folder / "translations.txt")
    if written != count:
        sys.exit(f"{count:,} lines went in and {written:,} came out")
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = {"lines": count, "precision": arguments.precision, "seconds_and_megabytes": samples}
    text = table(found)
    (arguments.out / "memory.json").write_text(json.dumps(found), encoding="utf-8")
    (arguments.out / "memory.txt").write_text(text, encoding="utf-8")
    draw(found, arguments.out / "memory.png")
    print(text)


def lines(count: int) -> Iterator[str]:
    """The same at each call."""
    rng = random.Random(1)
    characters = [chr(0x4E00 + i) for i in range(MODEL.source_vocab_size - 10)]
    for i in range(count):
        length = 1500 if i % 2000 == 1999 else rng.randint(1, 40)
        yield "……" if i % 100 == 50 else "".join(rng.choices(characters, k=length)) + "。"


def watch(folder: Path, precision: str) -> list[tuple[float, float]]:
    """Translate the lines of the folder; what the process held, in megabytes, and when."""
    files = ["--input", folder / "lines.txt", "--output", folder / "translations.txt"]
    command = [sys.executable, "-m", "zhuyi", "translate", folder / "run", *files]
    samples = []
    started = time.monotonic()
    with (folder / "log").open("w+", encoding="utf-8") as log:
        process = subprocess.Popen([*map(str, command), "--beam", "1", "--precision", precision], stderr=log)
        while process.poll() is None:
            time.sleep(SECONDS_BETWEEN)
            kilobytes = subprocess.run(
                ["ps", "-o", "rss=", "-p", str(process.pid)], stdout=subprocess.PIPE, encoding="ascii", check=False
            ).stdout.split()
            if kilobytes and int(kilobytes[0]):  # 0: it has ended, and its parent does not know yet
                samples.append((round(time.monotonic() - started, 2), int(kilobytes[0]) * 1024 / 1e6))
        if process.returncode:
            log.seek(0)
            sys.exit(f"zhuyi translate ended with status {process.returncode}: {log.read().strip()[-500:]}")
    return samples


def count_lines(path: Path) -> int:
    """Without reading them all at once."""
    with path.open(encoding="utf-8", newline="\n") as file:
        return sum(1 for _ in file)


def parts(samples: list[tuple[float, float]]) -> list[list[float]]:
    """What was held in each tenth of the time."""
    last = samples[-1][0]
    return [
        [held for seconds, held in samples if last * part / PARTS < seconds <= last * (part + 1) / PARTS]
        for part in range(PARTS)
    ]


def table(found: dict[str, Any]) -> str:
    """The tenths of the time, and how much more was held at the end than when the first tenth had passed."""
    samples = found["seconds_and_megabytes"]
    lines = [f"{found['lines']:,} lines in, as many out, in {samples[-1][0]:.0f} s; MB held", ""]
    lines.append(f"{'tenth':>6} {'median':>8} {'least':>8} {'most':>8}")
    held = parts(samples)
    for number, values in enumerate(held, 1):
        if values:
            lines.append(f"{number:6} {statistics.median(values):8.0f} {min(values):8.0f} {max(values):8.0f}")
    if held[1] and held[-1]:
        growth = statistics.median(held[-1]) - statistics.median(held[1])
        lines += ["", f"the last tenth to the second: {growth:+.0f} MB"]
    return "\n".join(lines) + "\n"


def draw(found: dict[str, Any], path: Path) -> None:
    """Megabytes over time."""
    from zhuyi.visualize import figures

    seconds, held = zip(*found["seconds_and_megabytes"], strict=True)
    with figures.style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 2.6), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(seconds, held, color="#b3470f", linewidth=1.2)
        axes.set_title(f"zhuyi translate, {found['lines']:,} lines: MB held", loc="left")
        axes.set_xlabel("seconds")
        axes.set_xlim(left=0)
        axes.set_ylim(0, 1.15 * max(held))
        axes.grid(color=figures.FAINT, linewidth=0.4)
        axes.spines[["top", "right"]].set_visible(False)
        figures.save(figure, path)


if __name__ == "__main__":
    main()
