"""Tokens a second of continuing texts with a GPT: zhuyi, CTranslate2 and Hugging Face, in turn, on the same weights.

    python benchmarks/generation.py [--rounds 5] [--out runs/benchmarks] [--quick]

Random weights of GPT-2's smallest model (12 layers, d_model 768, 50,257 words, 1,024 positions), which zhuyi exports to
the others; 16 tokens of a prompt are read and exactly 64 written, greedily, for one prompt and for eight. zhuyi takes
part in int8, bfloat16 and float32, Hugging Face's `generate` in float32 and bfloat16, CTranslate2 in the types below
with its threads split either way. All have a trial turn; the fastest few of each tool then take turns, and the best of
them is what zhuyi is compared with. What the machine itself can do is measured in the same rounds. Tables and raw
numbers go to --out as text and JSON, with a picture.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice, product
from pathlib import Path
from typing import Any

import torch
from contest import limits, report
from contest.turns import Contestant, Turn, Workers, fastest, measure, results, trial

from decoding import PEERS, PRECISIONS, agreement, compute_types
from zhuyi.config import parse_config
from zhuyi.data.special_tokens import SPECIAL_TOKENS
from zhuyi.data.tokenizers import TokenizerConfig, train_tokenizer
from zhuyi.doctor import examine
from zhuyi.interop import export
from zhuyi.machine import num_cores
from zhuyi.models.gpt import GptConfig
from zhuyi.run_folder import RunFolder, named_weights
from zhuyi.training.loop import build_model

TYPES = ("int8", "int8_float32", "int8_bfloat16", "bfloat16", "float32")  # of CTranslate2, where the machine has them
KEPT = 3  # settings of each tool that go on after the trial


@dataclass(frozen=True)
class Shape:
    """What is measured; a turn repeats its call for some seconds.

    Args: prompt, length: tokens read and written.
    """

    config: GptConfig
    prompt: int
    length: int
    batches: tuple[int, ...]
    seconds: float


GPT2 = Shape(GptConfig(vocab_size=50_257), 16, 64, (1, 8), 1.0)
QUICK = Shape(GptConfig(d_model=64, num_heads=2, num_layers=2, max_len=40, vocab_size=300), 3, 5, (1, 2), 0.02)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--quick", action="store_true", help="a tiny model, one round: whether it runs, not how fast")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    shape, rounds = (QUICK, 1) if arguments.quick else (GPT2, arguments.rounds)
    threads, rest = (1, 0.0) if arguments.quick else (None, 0.3)
    workers = Workers(threads, rest, module="contest.generators")
    try:
        with tempfile.TemporaryDirectory() as folder:
            generation = compare(shape, workers, Path(folder), rounds)
    finally:
        workers.close()
    found = {"machine": examine(), "versions": report.versions(), "generation": generation}
    text = report.as_text(found)
    (arguments.out / "generation.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    (arguments.out / "generation.txt").write_text(text, encoding="utf-8")
    report.draw(found, arguments.out / "generation.png")
    print(text)


def compare(shape: Shape, workers: Workers, folder: Path, rounds: int) -> dict[str, Any]:
    """A trial of all in each batch size, then rounds of the fastest."""
    write_random_run(shape.config, folder / "run")
    for form in ("hf", "ctranslate2"):
        export(folder / "run", form, folder / form)
    everyone = list(contestants(folder))
    turns = {batch: a_turn(shape, workers, batch) for batch in shape.batches}
    tracks, kept = {}, {}
    for batch, turn in turns.items():
        print(f"trial: batch {batch}", file=sys.stderr)
        tracks[batch] = trial(everyone, turn, batch * shape.length)
        kept[batch] = fastest(tracks[batch], KEPT)
    rates: dict[str, list[float]] = {}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        for name, rate in machine_rates(shape, workers).items():
            rates.setdefault(name, []).append(rate)
        for batch, turn in turns.items():
            measure(kept[batch], turn, batch * shape.length, number)
    typical = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "shape": report.plain(shape.config),
        "prompt": shape.prompt,
        "length": shape.length,
        "rates": rates,
        "cells": [
            {
                "batch": batch,
                "limits": {
                    precision: limits.continued_tokens_per_second(
                        shape.config, batch, shape.prompt, shape.length, precision, typical
                    )
                    for precision in limits.PRECISIONS
                    if limits.PRECISIONS[precision].operations in typical
                },
                "agreement": agreement(tracks[batch]),
                **results(tracks[batch], PEERS),
            }
            for batch in shape.batches
        ],
    }


def contestants(folder: Path) -> Iterator[Contestant]:
    """Every tool in every setting."""
    for precision in PRECISIONS:
        yield Contestant("zhuyi", str(folder / "run"), (("precision", precision),))
    for dtype in ("float32", "bfloat16"):
        yield Contestant("Hugging Face", str(folder / "hf"), (("dtype", dtype),))
    cores, known = num_cores(), compute_types()
    splits = dict.fromkeys([f"1x{cores}", f"{cores}x1"])  # generators x threads of each
    for kind, threads in product((kind for kind in TYPES if kind in known), splits):
        setting = (("compute_type", kind), ("threads", threads))
        yield Contestant("CTranslate2", str(folder / "ctranslate2"), setting)


def a_turn(shape: Shape, workers: Workers, batch: int) -> Turn:
    """A turn with so many prompts, the same for all."""
    rng = random.Random(batch)
    first, last = len(SPECIAL_TOKENS), shape.config.vocab_size - 1
    prompts = [[rng.randint(first, last) for _ in range(shape.prompt)] for _ in range(batch)]

    def turn(contestant: Contestant, warm: bool) -> dict[str, Any]:
        return workers.ask(
            contestant,
            do="write",
            setting=dict(contestant.setting),
            sources=prompts,
            beam=1,
            length=shape.length,
            seconds=shape.seconds,
            warm=warm,
        )

    return turn


def machine_rates(shape: Shape, workers: Workers) -> dict[str, float]:
    """What the machine can do: `zhuyi doctor`'s limits, and reading as many bytes as a step's weights have."""
    machine = Contestant("machine", "", ())
    found = dict(workers.ask(machine, do="limits")["found"])
    for precision in limits.PRECISIONS:
        size = int(limits.next_token_work(shape.config, 1, 1, precision).weight_bytes)
        answer = workers.ask(machine, do="read", size=size, seconds=shape.seconds)
        found[f"{precision}_weights_gb_per_second"] = answer["found"]
    return found


def write_random_run(config: GptConfig, path: Path) -> None:
    """A run of random weights; its tokenizer has as many characters as the model has words."""
    path.mkdir(parents=True)
    plentiful = chain(range(0x4E00, 0x9FA6), range(0xAC00, 0xD7A4), range(0x20000, 0x2A6DE))
    characters = [chr(code) for code in islice(plentiful, config.vocab_size - len(SPECIAL_TOKENS))]
    kind = TokenizerConfig(kind="character", vocab_size=config.vocab_size, character_coverage=1.0, verbatim=True)
    tokenizer = train_tokenizer(characters, kind)
    assert tokenizer.vocab_size == config.vocab_size
    tokenizer.save(path / "tokenizer.json")
    values = {"task": "language-modelling", "model": report.plain(config), "data": {}, "train": {"max_steps": 1}}
    run = parse_config(values, "random")
    folder = RunFolder(path)
    folder.write_config(run)
    model: Any = build_model(run)
    with torch.no_grad():  # else the tied table makes the likeliest next word the one just read, again and again
        gain = model.decoder_norm.weight
        gain.mul_(torch.randint(2, gain.shape, generator=torch.Generator().manual_seed(1)) * 2.0 - 1.0)
    folder.write_weights(named_weights(model))


if __name__ == "__main__":
    main()
