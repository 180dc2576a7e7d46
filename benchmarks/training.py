"""Target tokens a second of training: zhuyi, torch's nn.Transformer, Hugging Face and JoeyNMT, in turn.

    python benchmarks/training.py [--rounds 4] [--only small|tiny] [--out runs/benchmarks] [--quick]

Two shapes. "small": 3 + 3 layers, d_model 256, d_ff 1,024, 8,000 words, 128 pairs of 26 and 26 tokens, dropout 0.1.
"tiny", Multi30k's: 4 + 4 layers, d_model 128, d_ff 256, 10,000 words, 4,088 tokens in pairs of 14 and 14, dropout 0.3.
Every tool takes the same words through as many parameters, in float32 and in bfloat16 (zhuyi end to end, the peers by
autocast, as their users do), with label smoothing 0.1, clipping and AdamW; dropout where the paper has it and where
Hugging Face has it too, so it is taken out of torch's and JoeyNMT's attention weights and feed-forward networks. torch
and Hugging Face take part with their fused and with their plain attention; in each precision the faster in its trial
goes on. The rate of products is measured in the same rounds. Tables and raw numbers go to --out, with a picture.

JoeyNMT lives in an environment of its own: make .venv/joeynmt/installed
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from contest import limits, report
from contest.trainers import Shape, zhuyi_config
from contest.turns import Contestant, Track, Workers, fastest, measure, results, trial

from zhuyi.doctor import examine

PEERS = ("torch nn.Transformer", "Hugging Face", "JoeyNMT")
PRECISIONS = ("float32", "bfloat16")
JOEYNMT = Path(__file__).parents[1] / ".venv" / "joeynmt"


@dataclass(frozen=True)
class Case:
    """A shape with its name; a turn repeats its step for some seconds."""

    title: str
    shape: Shape
    seconds: float


CASES = {
    "small": Case("3 + 3 layers, d_model 256, 128 pairs of 26 + 26", Shape(256, 4, 1024, 3, 8000, 0.1, 128, 26), 2.0),
    "tiny": Case("4 + 4 layers, d_model 128, 292 pairs of 14 + 14", Shape(128, 4, 256, 4, 10_000, 0.3, 292, 14), 2.0),
}
QUICK = Case("a step that shows nothing", Shape(16, 2, 32, 1, 50, 0.1, 3, 5), 0.0)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--only", choices=tuple(CASES))
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--quick", action="store_true", help="a tiny model, one round: whether it runs, not how fast")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    cases = {name: case for name, case in CASES.items() if arguments.only in (None, name)}
    rounds = arguments.rounds
    if arguments.quick:
        cases, rounds = {"quick": QUICK}, 1
    tools = everyone()
    pythons = {"JoeyNMT": str(JOEYNMT / "bin" / "python")}
    found: dict[str, Any] = {"machine": examine(), "versions": versions(), "training": []}
    for name, case in cases.items():
        threads, rest = (1, 0.0) if arguments.quick else (None, 0.3)
        workers = Workers(threads, rest, module="contest.trainers", pythons=pythons)
        try:
            found["training"].append({"name": name, **compare(case, tools, workers, rounds)})
        finally:
            workers.close()
    text = report.as_text(found)
    (arguments.out / "training.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    (arguments.out / "training.txt").write_text(text, encoding="utf-8")
    report.draw(found, arguments.out / "training.png")
    print(text)


def everyone() -> list[Contestant]:
    """Who takes part."""
    if not JOEYNMT.exists():
        print("JoeyNMT takes no part; it gets its environment by: make .venv/joeynmt/installed", file=sys.stderr)
    return list(contestants(with_joeynmt=JOEYNMT.exists()))


def contestants(*, with_joeynmt: bool) -> Iterator[Contestant]:
    """Every tool in every setting."""
    for precision in PRECISIONS:
        for attention in ("fused", "plain"):
            for tool in ("torch nn.Transformer", "Hugging Face"):
                yield Contestant(tool, "-", (("precision", precision), ("attention", attention)))
        if with_joeynmt:
            yield Contestant("JoeyNMT", "-", (("precision", precision),))
        yield Contestant("zhuyi", "-", (("precision", precision),))


def versions() -> dict[str, str]:
    """Of all who take part."""
    found = report.versions()
    sites = [str(path) for path in JOEYNMT.glob("lib/python*/site-packages")]
    return found | {entry.name: entry.version for entry in metadata.distributions(name="joeynmt", path=sites)}


def compare(case: Case, tools: list[Contestant], workers: Workers, rounds: int) -> dict[str, Any]:
    """A trial of all, then rounds of those that are the faster ones in their precision."""
    shape = case.shape

    def turn(contestant: Contestant, warm: bool) -> dict[str, Any]:
        setting = dict(contestant.setting)
        return workers.ask(
            contestant, do="train", shape=asdict(shape), setting=setting, seconds=case.seconds, warm=warm
        )

    work = shape.batch * shape.length
    tracks = trial(tools, turn, work)
    kept = [track for precision in PRECISIONS for track in fastest(of_precision(tracks, precision), 1)]
    machine = Contestant("machine", "-", ())
    rates: dict[str, list[float]] = {}
    for number in range(rounds):
        print(f"{case.title}: round {number + 1} of {rounds}", file=sys.stderr)
        for name, rate in workers.ask(machine, do="limits")["found"].items():
            rates.setdefault(name, []).append(rate)
        measure(kept, turn, work, number)
    typical = {name: statistics.median(values) for name, values in rates.items()}
    checks = {f"{track.contestant.tool} {track.contestant.label}": track.found for track in tracks if track.found}
    return {
        "title": case.title,
        "shape": asdict(shape),
        "rates": rates,
        "limits": {
            precision: limits.training_tokens_per_second(
                zhuyi_config(shape), shape.batch, shape.length, shape.length, precision, typical
            )
            for precision in PRECISIONS
            if limits.PRECISIONS[precision].operations in typical
        },
        "checks": checks,
        **results(tracks, PEERS),
    }


def of_precision(tracks: list[Track], precision: str) -> list[Track]:
    """Those that compute in it."""
    return [track for track in tracks if dict(track.contestant.setting)["precision"] == precision]


if __name__ == "__main__":
    main()
