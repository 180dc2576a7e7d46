"""Target tokens a second of training: zhuyi, torch's own modules, Hugging Face and JoeyNMT, in turn.

    python benchmarks/training.py [--rounds 4] [--only small|tiny|shakespeare] [--out runs/benchmarks] [--quick]

Two shapes of translation. "small": 3 + 3 layers, d_model 256, d_ff 1,024, 8,000 words, 128 pairs of 26 and 26 tokens,
dropout 0.1. "tiny", Multi30k's: 4 + 4 layers, d_model 128, d_ff 256, 10,000 words, 4,088 tokens in pairs of 14 and 14,
dropout 0.3. Every tool takes the same words through as many parameters, in float32 and in bfloat16 (zhuyi end to end,
the peers by autocast, as their users do), with label smoothing 0.1, clipping and AdamW; dropout where the paper has it
and where Hugging Face has it too, so it is taken out of torch's and JoeyNMT's attention weights and feed-forward
networks.

One of a language model, "shakespeare": the GPT and the batch of Tiny Shakespeare's recipe for a processor (4 layers,
d_model 128, 12 segments of 64 characters) beside torch's nn.TransformerEncoder of the same shape under a causal mask.

torch and Hugging Face take part with their fused and with their plain attention; in each precision the faster in its
trial goes on. The rate of products is measured in the same rounds. Tables and raw numbers go to --out, with a picture.

JoeyNMT lives in an environment of its own: make .venv/joeynmt/installed
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from contest import limits, report
from contest.text_trainers import TextShape, gpt_config
from contest.trainers import Shape, zhuyi_config
from contest.turns import Contestant, Track, Workers, fastest, measure, results, trial

from zhuyi.config import read_recipe
from zhuyi.doctor import examine

PEERS = ("torch nn.Transformer", "torch nn.TransformerEncoder", "Hugging Face", "JoeyNMT")
PRECISIONS = ("float32", "bfloat16")
ROOT = Path(__file__).parents[1]
JOEYNMT = ROOT / ".venv" / "joeynmt"
RECIPE = ROOT / "recipes" / "language-modelling_tinyshakespeare_gpt-mini.toml"
CHARACTERS = 69  # of Tiny Shakespeare, with four signs


@dataclass(frozen=True)
class Kind:
    """What is trained.

    Args:   module: what the tools' processes run.
            tools: with their fused and their plain attention.
            most: target tokens a second of a shape and precision, by what the machine does.
    """

    module: str
    tools: tuple[str, ...]
    most: Callable[[Any, str, dict[str, float]], float]


def most_pairs(shape: Shape, precision: str, rates: dict[str, float]) -> float:
    """Of an encoder-decoder."""
    config = zhuyi_config(shape)
    return limits.training_tokens_per_second(config, shape.batch, shape.length, shape.length, precision, rates)


def most_text(shape: TextShape, precision: str, rates: dict[str, float]) -> float:
    """Of a decoder alone."""
    return limits.text_training_tokens_per_second(gpt_config(shape), shape.batch, shape.length, precision, rates)


TRANSLATION = Kind("contest.trainers", ("torch nn.Transformer", "Hugging Face"), most_pairs)
TEXT = Kind("contest.text_trainers", ("torch nn.TransformerEncoder",), most_text)


@dataclass(frozen=True)
class Case:
    """A shape with its name; a turn repeats its step for some seconds."""

    title: str
    shape: Shape | TextShape
    seconds: float
    kind: Kind = TRANSLATION


def of_recipe(path: Path, vocab_size: int) -> TextShape:
    """A language model's shape and batch."""
    recipe = read_recipe(path)
    model, length = recipe.model, recipe.data.max_len
    return TextShape(
        d_model=model.d_model,
        num_heads=model.num_heads,
        d_ff=model.layer.d_ff,
        num_layers=model.num_layers,
        vocab_size=vocab_size,
        dropout=model.dropout,
        bias=model.bias,
        batch=recipe.train.batch_tokens // length,
        length=length,
    )


CASES = {
    "small": Case("3 + 3 layers, d_model 256, 128 pairs of 26 + 26", Shape(256, 4, 1024, 3, 8000, 0.1, 128, 26), 2.0),
    "tiny": Case("4 + 4 layers, d_model 128, 292 pairs of 14 + 14", Shape(128, 4, 256, 4, 10_000, 0.3, 292, 14), 2.0),
    "shakespeare": Case("Tiny Shakespeare's recipe for a processor", of_recipe(RECIPE, CHARACTERS), 2.0, TEXT),
}
QUICK = {
    "quick": Case("a step that shows nothing", Shape(16, 2, 32, 1, 50, 0.1, 3, 5), 0.0),
    "quick-text": Case("another such", TextShape(16, 2, 32, 1, 50, 0.1, False, 3, 5), 0.0, TEXT),
}


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
        cases, rounds = QUICK, 1
    pythons = {"JoeyNMT": str(JOEYNMT / "bin" / "python")}
    found: dict[str, Any] = {"machine": examine(), "versions": versions(), "training": []}
    for name, case in cases.items():
        threads, rest = (1, 0.0) if arguments.quick else (None, 0.3)
        workers = Workers(threads, rest, module=case.kind.module, pythons=pythons)
        try:
            tools = list(contestants(case.kind))
            found["training"].append({"name": name, **compare(case, tools, workers, rounds)})
        finally:
            workers.close()
    text = report.as_text(found)
    (arguments.out / "training.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    (arguments.out / "training.txt").write_text(text, encoding="utf-8")
    report.draw(found, arguments.out / "training.png")
    print(text)


def contestants(kind: Kind) -> Iterator[Contestant]:
    """Every tool in every setting."""
    if kind is TRANSLATION and not JOEYNMT.exists():
        print("JoeyNMT takes no part; it gets its environment by: make .venv/joeynmt/installed", file=sys.stderr)
    for precision in PRECISIONS:
        for attention in ("fused", "plain"):
            for tool in kind.tools:
                yield Contestant(tool, "-", (("precision", precision), ("attention", attention)))
        if kind is TRANSLATION and JOEYNMT.exists():
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
            precision: case.kind.most(shape, precision, typical)
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
