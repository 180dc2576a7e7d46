"""Target tokens a second of decoding: zhuyi, CTranslate2 and Hugging Face, in turn, on the same weights.

    python benchmarks/decoding.py [--rounds 5] [--out runs/benchmarks] [--only random] [--real zh-en PAIRS]... [--quick]

Two parts. The first takes random weights of the base Transformer (6 + 6 layers, d_model 512, d_ff 2,048, 32,000
words), 24 tokens in and exactly 24 out: nothing but speed. The second translates real test files with real models,
where lengths vary and BLEU stands beside the speed: the shipped zh-en on data/tatoeba-zh-en/test.tsv.gz unless --real
names others (a run and its pairs, as often as wanted).

Each peer takes part in every setting that its users could try (CTranslate2: compute types, thread splits, instruction
sets). All of them have a trial turn in each cell; the fastest few of each tool then take turns, and the best of them is
what zhuyi is compared with. What the machine itself can do is measured in the same rounds. Tables and raw numbers go to
--out as text and JSON, with a picture.
"""

import argparse
import gzip
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from contest import limits, report
from contest.turns import Contestant, Track, Turn, Workers, fastest, measure, results, trial

from zhuyi import predict
from zhuyi.config import parse_config
from zhuyi.data.normalization import contains_han, normalize, simplify
from zhuyi.data.pairs import CleaningReport, read_pairs
from zhuyi.data.special_tokens import EOS_ID, SPECIAL_TOKENS
from zhuyi.data.tokenizers import TokenizerConfig, train_tokenizer
from zhuyi.doctor import examine
from zhuyi.interop import export
from zhuyi.machine import num_cores
from zhuyi.metrics.translation_scores import translation_scores
from zhuyi.models.transformer import TransformerConfig
from zhuyi.run_folder import RunFolder, named_weights
from zhuyi.training.loop import build_model

PEERS = ("CTranslate2", "Hugging Face")
PRECISIONS = tuple(getattr(predict, "PRECISIONS", ("float32", "bfloat16")))
INSTRUCTIONS = ("", "AVX512", "AVX2")  # CT2_FORCE_CPU_ISA; "": its own choice
KEPT = 3  # settings of each tool that go on after the trial


@dataclass(frozen=True)
class Shape:
    """What the random part decodes; a turn repeats its call for some seconds."""

    config: TransformerConfig
    length: int
    batches: tuple[int, ...]
    beams: tuple[int, ...]
    seconds: float


BASE = Shape(TransformerConfig(source_vocab_size=32_000, target_vocab_size=32_000), 24, (1, 8, 32), (1, 4), 0.5)
QUICK = Shape(
    TransformerConfig(
        d_model=64, num_heads=2, d_ff=128, num_encoder_layers=2, num_decoder_layers=2, source_vocab_size=500,
        target_vocab_size=500,
    ),
    6,
    (1, 2),
    (1, 2),
    0.02,
)  # fmt: skip


def main() -> None:
    """Measure what the command line asks for."""
    arguments = parse_arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    workers = Workers(threads=1, rest_seconds=0.0) if arguments.quick else Workers()
    found: dict[str, Any] = {"machine": examine(), "versions": report.versions()}
    try:
        with tempfile.TemporaryDirectory() as folder:
            if arguments.only != "real":
                shape = QUICK if arguments.quick else BASE
                found["random"] = random_part(shape, workers, Path(folder), arguments.rounds, arguments.quick)
            if arguments.only != "random":
                found["real"] = [
                    real_part(run, pairs, workers, Path(folder), arguments.rounds, arguments.quick)
                    for run, pairs in arguments.real
                ]
    finally:
        workers.close()
    text = report.as_text(found)
    (arguments.out / "decoding.json").write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")
    (arguments.out / "decoding.txt").write_text(text, encoding="utf-8")
    report.draw(found, arguments.out / "decoding.png")
    print(text)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--only", choices=("random", "real"))
    parser.add_argument("--real", nargs=2, action="append", metavar=("RUN", "PAIRS"))
    parser.add_argument("--quick", action="store_true", help="a tiny model, one round: whether it runs, not how fast")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds = 1
    default = Path("data/tatoeba-zh-en/test.tsv.gz")
    if arguments.real is None:
        arguments.real = [("zh-en", str(default))] if default.exists() else []
        if not arguments.real and arguments.only != "random":
            print(f"{default} is not here: give the real part's data by --real RUN PAIRS", file=sys.stderr)
    return arguments


def contestants(folder: Path, quick: bool, **more: list[Any]) -> Iterator[Contestant]:
    """Every tool in every setting; `more` are settings that peers choose in the real part, by their name."""
    for precision in PRECISIONS:
        yield Contestant("zhuyi", str(folder / "run"), (("precision", precision),))
    cores = num_cores()
    splits = list(dict.fromkeys([f"1x{cores}", f"{cores}x1"]))  # translators x threads of each
    instructions, types = INSTRUCTIONS, compute_types()
    if quick:
        splits, instructions, types = ["1x1"], INSTRUCTIONS[:1], ["float32", "int8"]
    rows = [(("batch_rows", n),) for n in more.get("batch_rows", [])] or [()]
    for dtype, row in product(("float32", "bfloat16"), rows):
        yield Contestant("Hugging Face", str(folder / "hf"), (("dtype", dtype), *row))
    tokens = [(("batch_tokens", n),) for n in more.get("batch_tokens", [])] or [()]
    for isa, kind, threads, token in product(instructions, types, splits, tokens):
        yield Contestant(
            "CTranslate2",
            str(folder / "ctranslate2"),
            (("compute_type", kind), ("threads", threads), *token),
            (("CT2_FORCE_CPU_ISA", isa),) if isa else (),
        )


def compute_types() -> list[str]:
    """What CTranslate2 can compute in on this processor."""
    import ctranslate2

    return sorted(ctranslate2.get_supported_compute_types("cpu"))


def random_part(shape: Shape, workers: Workers, folder: Path, rounds: int, quick: bool) -> dict[str, Any]:
    """Speed alone: every cell of search and batch size."""
    folder = folder / "random"
    write_random_run(shape, folder / "run")
    for form in ("hf", "ctranslate2"):
        export(folder / "run", form, folder / form)
    cells = list(product(shape.beams, shape.batches))
    turns = {cell: random_turn(shape, workers, *cell) for cell in cells}
    everyone = list(contestants(folder, quick))
    tracks = {}
    for (beam, batch), turn in turns.items():
        print(f"trial: beam {beam}, batch {batch}", file=sys.stderr)
        tracks[beam, batch] = trial(everyone, turn, batch * shape.length)
    kept = {cell: fastest(tracks[cell], KEPT) for cell in cells}
    rates: dict[str, list[float]] = {}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        for name, rate in machine_rates(shape, workers).items():
            rates.setdefault(name, []).append(rate)
        for beam, batch in cells:
            measure(kept[beam, batch], turns[beam, batch], batch * shape.length, number)
    workers.close()
    typical = {name: statistics.median(found) for name, found in rates.items()}
    return {
        "shape": report.plain(shape.config),
        "length": shape.length,
        "rates": rates,
        "cells": [
            {
                "beam": beam,
                "batch": batch,
                "limits": {
                    precision: limits.tokens_per_second(
                        shape.config, batch, beam, shape.length, shape.length, precision, typical
                    )
                    for precision in limits.PRECISIONS
                    if limits.PRECISIONS[precision].operations in typical
                },
                "agreement": agreement(tracks[beam, batch]),
                **results(tracks[beam, batch], PEERS),
            }
            for beam, batch in cells
        ],
    }


def random_turn(shape: Shape, workers: Workers, beam: int, batch: int) -> Turn:
    """A turn in a cell: the same sources for all, end sign included."""
    rng = random.Random(batch)
    first, last = len(SPECIAL_TOKENS), shape.config.source_vocab_size - 1
    sources = [[rng.randint(first, last) for _ in range(shape.length - 1)] + [EOS_ID] for _ in range(batch)]

    def turn(contestant: Contestant, warm: bool) -> dict[str, Any]:
        return workers.ask(
            contestant,
            do="write",
            setting=dict(contestant.setting),
            sources=sources,
            beam=beam,
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
        size = limits.weight_bytes_of_a_step(shape.config, precision)
        found[f"{precision}_weights_gb_per_second"] = workers.ask(machine, do="read", size=size, seconds=shape.seconds)[
            "found"
        ]
    return found


def write_random_run(shape: Shape, path: Path) -> None:
    """A run of random weights; its tokenizer has as many characters as the model has words."""
    path.mkdir(parents=True)
    size = shape.config.source_vocab_size
    hanzi_and_hangul = [chr(code) for code in (*range(0x4E00, 0x9FA6), *range(0xAC00, 0xD7A4))]
    config = TokenizerConfig(kind="character", vocab_size=size, character_coverage=1.0)
    tokenizer = train_tokenizer(hanzi_and_hangul, config)
    assert tokenizer.vocab_size == size
    tokenizer.save(path / "tokenizer.json")
    values = {"task": "translation", "model": report.plain(shape.config), "data": {}, "train": {"max_steps": 1}}
    run = parse_config(values, "random")
    folder = RunFolder(path)
    folder.write_config(run)
    model = build_model(run)
    let_answers_vary(model)
    folder.write_weights(named_weights(model))


@torch.no_grad()
def let_answers_vary(model: Any) -> None:
    """Have random weights write different words for different sources, and no word again and again.

    As they are drawn, the mean of the hidden units' outputs and the context drown what a token brings with it, and the
    tied table makes the likeliest next word the one just read: guards would step in that real texts do not call.
    """
    for name, weight in model.named_parameters():
        if name.endswith("w_o.weight"):
            weight.mul_(0.1)
        elif name.endswith("w_2.weight"):
            weight.sub_(weight.mean(dim=1, keepdim=True))
    last = model.decoder_layers[-1].feed_forward_residual.norm.weight
    last.mul_(torch.randint(2, last.shape, generator=torch.Generator().manual_seed(1)) * 2.0 - 1.0)


def agreement(tracks: list[Track]) -> dict[str, float]:
    """What share of the texts each tool writes as zhuyi does, both in float32."""
    of_float32 = {
        track.contestant.tool: track.found
        for track in reversed(tracks)
        if "float32" in dict(track.contestant.setting).values()
    }
    ours = of_float32.pop("zhuyi", [])
    return {
        tool: statistics.fmean(theirs[: len(own)] == own for own, theirs in zip(ours, found, strict=True))
        for tool, found in of_float32.items()
        if found
    }


def real_part(run: str, pairs: str, workers: Workers, folder: Path, rounds: int, quick: bool) -> dict[str, Any]:
    """Translate a test file with a real model: text in, text out."""
    translator = predict.load(run, "float32", "cpu")
    kept = list(read_pairs(pairs, columns=translator.config.data.columns, report=CleaningReport()))
    kept = kept[:20] if quick else kept
    references = [pair.target for pair in kept]
    folder = folder / f"real-{len(list(folder.iterdir()))}"
    folder.mkdir()
    (folder / "run").symlink_to(find_folder(run), target_is_directory=True)
    for form in ("hf", "ctranslate2"):
        export(run, form, folder / form)
    texts = [pair.source for pair in kept]
    write_texts(folder / "as-they-are.gz", texts)
    # Peers get what zhuyi does to a text before it is cut into tokens, for nothing.
    simplified = translator.config.data.cleaning.simplify
    write_texts(
        folder / "prepared.gz", [normalize(simplify(t) if simplified and contains_han(t) else t) for t in texts]
    )
    searches = {}
    for beam in sorted({1, translator.config.decode.beam}):
        print(f"{run}: beam {beam}", file=sys.stderr)
        ask = partial(real_turn, workers, folder, beam, translator.config.decode.alpha)
        tracks = real_trial(folder, ask, len(texts), quick)
        going_on = fastest(tracks, KEPT)
        for number in range(rounds):
            measure(going_on, ask, len(texts), number)
        bleu = {
            f"{track.contestant.tool} {track.contestant.label}": translation_scores(
                track.found, references, translator.config.data.target
            )
            for track in going_on
        }
        searches[str(beam)] = {**results(tracks, PEERS), "bleu": bleu}
    workers.close()
    return {
        "run": run,
        "pairs": pairs,
        "sentences": len(texts),
        "different": len(set(texts)),
        "target_tokens": sum(len(translator.target_tokenizer.encode(text)) for text in references),
        "shape": report.plain(translator.config.model),
        "searches": searches,
    }


def find_folder(run: str) -> Path:
    """Where a run or a shipped model lies."""
    from zhuyi.run_folder import find_run

    return find_run(run).path.resolve()


def write_texts(path: Path, texts: list[str]) -> None:
    """One a line."""
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(text.replace("\n", " ") for text in texts))


def real_turn(
    workers: Workers, folder: Path, beam: int, alpha: float, contestant: Contestant, warm: bool
) -> dict[str, Any]:
    """The whole file, once."""
    return workers.ask(
        contestant,
        do="translate",
        setting=dict(contestant.setting),
        texts=str(folder / ("as-they-are.gz" if contestant.tool == "zhuyi" else "prepared.gz")),
        beam=beam,
        alpha=alpha,
        warm=warm,
    )


def real_trial(folder: Path, ask: Turn, work: int, quick: bool) -> list[Track]:
    """Peers also choose their batches: every other setting in one batch size, then the best of these in others."""
    first = trial(contestants(folder, quick, batch_tokens=[1024], batch_rows=[32]), ask, work)
    again = []
    for track in fastest(first, 1 if quick else 2):
        for name, sizes in (("batch_tokens", (512, 2048, 4096)), ("batch_rows", (8, 128))):
            if name in dict(track.contestant.setting):
                for size in sizes:
                    setting = tuple((key, size if key == name else value) for key, value in track.contestant.setting)
                    own = track.contestant
                    again.append(Contestant(own.tool, own.folder, setting, own.environment))
    return first + trial(again, ask, work)


if __name__ == "__main__":
    main()
