"""GMAN by the number of sensors: the memory and the time of a training step, attention between all pairs and grouped.

    python benchmarks/forecasting.py [--sensors 207 1000 4000] [--turns 3] [--out runs/benchmarks] [--quick]

A step is forward and backward over one window of 12 + 12 steps, without gaps, in float32: one block each side, 4 heads
of 8, the authors' layers. Each point is measured in a process of its own, which first takes a step of a few sensors.
Memory is what it holds at its peak beyond what it held then; time the median of the turns. There are N / (2 N)^(1/3)
groups, the number with the fewest logits. A point for which the memory is too small says so. Table and raw numbers go
to --out.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from zhuyi.machine import peak_memory_gib
from zhuyi.models.gman import Gman, GmanConfig

CONFIG = GmanConfig(
    d_model=32, num_heads=4, num_layers=1, slots_a_day=288, values_read_embedding=True, output_layers=True, mean=59.0,
    std=12.5,
)  # fmt: skip
STEPS, WARM_UP_SENSORS = 12, 16
KINDS = ("all pairs", "grouped")


def main() -> None:
    """Measure each point in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sensors", type=int, nargs="+", default=[207, 1000, 4000])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--quick", action="store_true", help="few sensors: whether it runs, not what it takes")
    parser.add_argument("--point", nargs=3, metavar=("KIND", "SENSORS", "TURNS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.point:
        kind, sensors, turns = arguments.point
        print(json.dumps(measure(kind, int(sensors), int(turns))))
        return
    counts, turns = ([30, 60], 1) if arguments.quick else (arguments.sensors, arguments.turns)
    found = [
        {"sensors": sensors, "kind": kind, "groups": groups_of(kind, sensors), **point(kind, sensors, turns)}
        for sensors in counts
        for kind in KINDS
    ]
    text = table(found)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "forecasting.json").write_text(json.dumps(found), encoding="utf-8")
    (arguments.out / "forecasting.txt").write_text(text, encoding="utf-8")
    print(text)


def groups_of(kind: str, sensors: int) -> int:
    """The number of groups with the fewest logits; 0 is none."""
    return round(sensors / (2 * sensors) ** (1 / 3)) if kind == "grouped" else 0


def point(kind: str, sensors: int, turns: int) -> dict[str, float | str]:
    """What a process of its own measures."""
    command = [sys.executable, __file__, "--point", kind, str(sensors), str(turns)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if done.returncode == 0:
        return dict(json.loads(done.stdout))
    if done.returncode < 0 or "memory" in done.stderr.lower():
        return {"refused": "out of memory"}
    sys.exit(done.stderr)


def measure(kind: str, sensors: int, turns: int) -> dict[str, float]:
    """The seconds of a step, and the megabytes that it held beyond what the process held before."""
    take_step(Gman(replace(CONFIG, num_sensors=WARM_UP_SENSORS)), WARM_UP_SENSORS)
    model = Gman(replace(CONFIG, num_sensors=sensors, num_groups=groups_of(kind, sensors)))
    before = peak_memory_gib(torch.device("cpu"))
    seconds = []
    for _ in range(turns):
        started = time.perf_counter()
        take_step(model, sensors)
        seconds.append(time.perf_counter() - started)
    held = (peak_memory_gib(torch.device("cpu")) - before) * 2**30 / 1e6
    return {"seconds": statistics.median(seconds), "megabytes": held}


def take_step(model: Gman, sensors: int) -> None:
    """Forward and backward over one window."""
    generator = torch.Generator().manual_seed(1)
    history, target = (59 + 12 * torch.randn(1, STEPS, sensors, generator=generator) for _ in range(2))
    slots = torch.arange(2 * STEPS)
    times = torch.stack((torch.full_like(slots, 2), slots), dim=-1)[None]
    (model(history, times) - target).abs().mean().backward()
    model.zero_grad(set_to_none=True)


def table(found: list[dict]) -> str:
    """One line a point."""
    lines = [f"{'sensors':>8}  {'attention':10} {'groups':>6} {'MB':>8} {'s a step':>9}"]
    for each in found:
        groups = each["groups"] or ""
        measured = each.get("refused") or f"{each['megabytes']:8.0f} {each['seconds']:9.3f}"
        lines.append(f"{each['sensors']:8,}  {each['kind']:10} {groups:>6} {measured}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
