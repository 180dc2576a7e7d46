"""Texts and pictures read a second: zhuyi and Hugging Face, in turn, on the same weights.

    python benchmarks/encoding.py [--data data/sst2/train.txt.gz] [--rounds 3] [--out runs/benchmarks] [--quick]

Random weights of BERT-base and of ViT-B/16, which transformers makes and zhuyi imports. BERT turns 2,000 sentences of
--data (labelled, as `zhuyi train` reads them; their lengths are as they are) into vectors, words cut into pieces
by the tool itself; ViT labels pictures of 224 x 224 pixels, one and eight at a time. zhuyi takes part in its
precisions, Hugging Face in float32 and bfloat16 and, of texts, in batches of 16 and 64 of like length. All have a trial
turn; the fastest few of each tool then take turns. How far each precision's answers are from Hugging Face's in float32
stands beside its speed.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contest import report
from contest.turns import Contestant, Track, Turn, Workers, fastest, measure, results, trial

from decoding import PRECISIONS
from zhuyi.data.labelled_texts import Layout, read_all_texts
from zhuyi.data.pairs import CleaningReport
from zhuyi.doctor import examine
from zhuyi.errors import InputError
from zhuyi.interop import import_run

PEER = "Hugging Face"
KEPT = 2  # settings of each tool that go on after the trial


@dataclass(frozen=True)
class Shape:
    """What is measured; a turn repeats its call for some seconds.

    Args:   bert, vit: sizes where they are not the published ones.
            counts: pictures at a time.
    """

    bert: dict[str, int]
    vit: dict[str, int]
    num_texts: int
    counts: tuple[int, ...]
    batch_rows: tuple[int, ...]
    seconds: float


BASE = Shape({}, {}, 2000, (1, 8), (16, 64), 2.0)
QUICK = Shape(
    {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 32},
    60, (1, 2), (4,), 0.01,
)  # fmt: skip


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/sst2/train.txt.gz"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--quick", action="store_true", help="tiny models, one round: whether it runs, not how fast")
    arguments = parser.parse_args()
    shape, rounds = (QUICK, 1) if arguments.quick else (BASE, arguments.rounds)
    texts = sentences(arguments.data, shape.num_texts, made_up=arguments.quick)
    arguments.out.mkdir(parents=True, exist_ok=True)
    threads, rest = (1, 0.0) if arguments.quick else (None, 0.3)
    workers = Workers(threads, rest, module="contest.encoders")
    try:
        with tempfile.TemporaryDirectory() as folder:
            found = compare(shape, workers, Path(folder), texts, rounds)
    finally:
        workers.close()
    everything = {"machine": examine(), "versions": report.versions(), "encoding": found}
    (arguments.out / "encoding.json").write_text(json.dumps(everything, indent=1), encoding="utf-8")
    text = table(found)
    (arguments.out / "encoding.txt").write_text(text, encoding="utf-8")
    print(text)


def sentences(path: Path, count: int, *, made_up: bool) -> list[str]:
    """The first texts of a file of labelled ones, or made-up ones of numbers."""
    if made_up:
        return [" ".join(str(n * i % 97) for n in range(1, 3 + i % 11)) for i in range(count)]
    try:
        found = read_all_texts([str(path)], Layout("auto", (2,), 1, "auto", "utf-8"), CleaningReport())
        return [each.text for each in islice(found, count)]
    except InputError as error:
        sys.exit(f"{error}; give a file of labelled sentences by --data, or --quick")


def compare(shape: Shape, workers: Workers, folder: Path, texts: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """A trial of all in each cell, then rounds of the fastest."""
    write_bert(shape, folder / "bert", texts)
    write_vit(shape, folder / "vit")
    list_of_texts = folder / "texts.json"
    list_of_texts.write_text(json.dumps(texts), encoding="utf-8")
    size = shape.vit.get("image_size", 224)
    cells: list[tuple[str, int, dict[str, Any], list[Contestant]]] = [
        ("BERT", len(texts), {"do": "embed", "texts": str(list_of_texts)}, list(readers(folder / "bert", shape)))
    ]
    viewers = list(readers(folder / "vit", None))
    cells += [("ViT", count, {"do": "label", "count": count, "size": size}, viewers) for count in shape.counts]
    turns = [a_turn(workers, command, shape.seconds) for _, _, command, _ in cells]
    tracks: list[list[Track]] = []
    for (name, count, _, everyone), turn in zip(cells, turns, strict=True):
        print(f"trial: {name}, {count} at a time", file=sys.stderr)
        tracks.append(trial(everyone, turn, count))
    kept = [fastest(each, KEPT) for each in tracks]
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        for (_, count, _, _), turn, some in zip(cells, turns, kept, strict=True):
            measure(some, turn, count, number)
    return [
        {"model": name, "count": count, "distances": distances(each), **results(each, [PEER])}
        for (name, count, _, _), each in zip(cells, tracks, strict=True)
    ]


def readers(folder: Path, shape: Shape | None) -> Iterator[Contestant]:
    """Every tool in every setting; of texts with its sizes of batches."""
    for precision in PRECISIONS:
        yield Contestant("zhuyi", str(folder / "run"), (("precision", precision),))
    for dtype in ("float32", "bfloat16"):
        for rows in (None,) if shape is None else shape.batch_rows:
            yield Contestant(
                PEER, str(folder / "hf"), (("dtype", dtype), *((("batch_rows", rows),) if rows is not None else ()))
            )


def a_turn(workers: Workers, command: dict[str, Any], seconds: float) -> Turn:
    """One contestant's turn at a command."""

    def turn(contestant: Contestant, warm: bool) -> dict[str, Any]:
        return workers.ask(contestant, **command, setting=dict(contestant.setting), seconds=seconds, warm=warm)

    return turn


def write_bert(shape: Shape, folder: Path, texts: Sequence[str]) -> None:
    """Random weights as transformers has them and as a run; the vocabulary has the published size."""
    import transformers
    from tokenizers import BertWordPieceTokenizer

    library = BertWordPieceTokenizer()
    library.train_from_iterator(texts, vocab_size=30_522, show_progress=False)
    vocabulary = sorted(library.get_vocab(), key=library.get_vocab().__getitem__)
    vocabulary += [f"[unused{i}]" for i in range(30_522 - len(vocabulary))]
    hf = folder / "hf"
    hf.mkdir(parents=True)
    (hf / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    transformers.BertTokenizerFast.from_pretrained(hf).save_pretrained(hf)
    torch.manual_seed(1)
    transformers.BertModel(transformers.BertConfig(**shape.bert)).save_pretrained(hf)
    import_run(hf, folder / "run")


def write_vit(shape: Shape, folder: Path) -> None:
    """The same of a ViT with a thousand labels."""
    import transformers

    hf, size = folder / "hf", shape.vit.get("image_size", 224)
    torch.manual_seed(1)
    labels = {i: f"label {i}" for i in range(1000)}
    config = transformers.ViTConfig(**shape.vit, id2label=labels, label2id={name: i for i, name in labels.items()})
    transformers.ViTForImageClassification(config).save_pretrained(hf)
    preprocessing = {
        "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": size, "width": size},
        "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    }  # fmt: skip
    (hf / "preprocessor_config.json").write_text(json.dumps(preprocessing), encoding="utf-8")
    import_run(hf, folder / "run")


def distances(tracks: Sequence[Track]) -> dict[str, float]:
    """Of each setting, the mean length of the difference to the peer's in float32, by the length of that."""
    exact = next((t for t in tracks if t.contestant.tool == PEER and "float32" in t.contestant.label and t.found), None)
    if exact is None:
        return {}
    truth = np.array(exact.found)
    return {
        f"{track.contestant.tool} {track.contestant.label}": float(
            (np.linalg.norm(np.array(track.found) - truth, axis=-1) / np.linalg.norm(truth, axis=-1)).mean()
        )
        for track in tracks
        if track.found
    }


def table(cells: list[dict[str, Any]]) -> str:
    """Texts or pictures a second, by tool and setting, and how many times faster zhuyi is."""
    lines = [f"{'model':6} {'count':>6}  {'tool':14} {'setting':20} {'a second':>12}  from float32"]
    for cell in cells:
        for row in cell["rows"]:
            speed = statistics.median(row["speeds"]) if row["speeds"] else row["trial"]
            far = cell["distances"].get(f"{row['tool']} {row['setting']}")
            shown = row["error"] or f"{speed:12.2f}  {'' if far is None else f'{far:.1%}'}"
            alone = "" if row["speeds"] or row["error"] else "  (trial)"
            lines.append(f"{cell['model']:6} {cell['count']:6}  {row['tool']:14} {row['setting']:20} {shown}{alone}")
        lines += report.plain_ratios(cell)
    return "\n".join(lines)


if __name__ == "__main__":
    main()
