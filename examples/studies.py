"""What `why_attention.py` and `why_qkv.py` share: contenders trained alike, their tables, and the page these go to."""

import argparse
import json
import random
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import zhuyi
from zhuyi.atomic import replacing
from zhuyi.config import parse_config
from zhuyi.data.pairs import CleaningReport, read_pairs
from zhuyi.run_folder import RunFolder
from zhuyi.training.loop import train
from zhuyi.training.run_log import RunLog

ROOT = Path(__file__).parents[1]
DIGITS = {"零": "zero", "一": "one", "二": "two", "三": "three", "四": "four", "五": "five", "六": "six", "七": "seven"}
QUICK = {"max_steps": 4, "max_minutes": 0.0, "eval_every_steps": 4, "average": "none", "batch_tokens": 256}


@dataclass(frozen=True)
class Contender:
    """A model in the comparison, trained.

    Args:   train_speed: target tokens a second of training, evaluations left out; the median over the log's rows.
    """

    name: str
    translator: Any
    scores: dict[str, Any]
    metrics: list[dict[str, Any]]

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.translator.model.parameters())

    @property
    def train_speed(self) -> float:
        return statistics.median(row["tokens_per_second"] for row in self.metrics)


class UndrawnLog(RunLog):
    """Without the picture of a run's curves, which takes most of the time of a run of seconds."""

    def draw_curves(self) -> None:
        """Leave it."""


def arguments(description: str, out: str, minutes: float) -> argparse.Namespace:
    """The options of either script."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("data/tatoeba-zh-en"),
        help="a folder of pairs: train.tsv.gz, valid.tsv.gz, test.tsv.gz (default: %(default)s)",
    )
    parser.add_argument(
        "--minutes", type=float, default=minutes, help="training time of each model (default: %(default)g)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(out),
        help="where runs, tables and pictures go; a run that was trained there just so is used (default: %(default)s)",
    )
    parser.add_argument("--document", action="store_true", help="put tables and pictures into docs/ too")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--quick", action="store_true", help="seconds of training on made-up pairs: does everything work?"
    )
    given = parser.parse_args()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="replace")
    if given.quick and given.document:
        parser.error("--quick makes up its data; it is not for --document")
    given.out.mkdir(parents=True, exist_ok=True)
    if given.quick:
        given.data = made_up_pairs(given.out / "data")
    return given


def made_up_pairs(folder: Path) -> Path:
    """Numbers digit by digit, in Chinese and in English."""
    folder.mkdir(exist_ok=True)
    draws = random.Random(0)
    numbers = {tuple(draws.choices(list(DIGITS), k=draws.randrange(2, 9))) for _ in range(120)}
    lines = [f"{''.join(n)}。\t{' '.join(DIGITS[digit] for digit in n)}.\n" for n in sorted(numbers)]
    draws.shuffle(lines)
    for split, part in (("train", lines[30:]), ("valid", lines[:8]), ("test", lines[8:30])):
        (folder / f"{split}.tsv").write_text("".join(part), encoding="utf-8")
    return folder


def split_file(data: Path, split: str) -> Path:
    """`SPLIT.tsv.gz` or `SPLIT.tsv`, whichever is there."""
    found = [path for path in (data / f"{split}.tsv.gz", data / f"{split}.tsv") if path.exists()]
    if not found:
        raise SystemExit(f"{data}: no {split}.tsv.gz or {split}.tsv there; give the folder of the pairs by --data")
    return found[0]


def test_pairs(data: Path) -> list[tuple[str, str]]:
    """The sources and references that scores are of."""
    return [(pair.source, pair.target) for pair in read_pairs(str(split_file(data, "test")), report=CleaningReport())]


def trained(name: str, model: dict[str, Any], given: argparse.Namespace, **settings: Any) -> Contender:
    """A contender, trained now or read from an earlier call's folder.

    Args:   model: the section [model]; `settings` are of the section [train].
    Raises: SystemExit: the folder's run was trained under other conditions than those asked for, or was interrupted.
    """
    folder = RunFolder(given.out / "runs" / "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-"))
    note = folder.path / "study.json"
    asked = recipe(model, given, settings)
    study = read_study(note, asked)
    if study["scores"] is None:
        print(f"== {name}: {given.minutes:g} minutes", file=sys.stderr)
        folder.path.mkdir(parents=True, exist_ok=True)
        write_study(note, study)
        log = UndrawnLog(folder) if given.quick else None
        study["scores"] = train(parse_config(asked, name), folder, resume=folder.config_path.exists(), log=log)
        if study["scores"]["interrupted"]:
            raise SystemExit(f"stopped; the same command goes on with {folder.path}")
        write_study(note, study)
    return Contender(name, zhuyi.load(folder.path, "float32"), study["scores"], folder.read_metrics())


def read_study(note: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """What a run was asked for, on how many threads, and the scores it came to; None while it has none.

    Raises: SystemExit: it was asked for something else.
    """
    wanted = {**json.loads(json.dumps(asked)), "threads": torch.get_num_threads()}
    if not note.exists():
        return {"asked": wanted, "scores": None}
    study: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
    before, now = _by_path(study.get("asked", {})), _by_path(wanted)
    others = [
        f"{key} was {before.get(key)} and is {now.get(key)}" for key in before | now if before.get(key) != now.get(key)
    ]
    if others:
        raise SystemExit(
            f"{note.parent} was trained otherwise: {'; '.join(others)}. Choose another --out, or delete it"
        )
    return study


def _by_path(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Nested values by the dotted paths of their keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _by_path(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": value}
    return found


def write_study(note: Path, study: dict[str, Any]) -> None:
    """Write the note that `read_study` reads."""
    with replacing(note) as path:
        path.write_text(json.dumps(study), encoding="utf-8")


def recipe(model: dict[str, Any], given: argparse.Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    """A run's plain values: the same data, tokenizer and schedule for every contender."""
    files = {split: [str(split_file(given.data, split))] for split in ("train", "valid", "test")}
    kind = {"kind": "character"} if given.quick else {"kind": "unigram", "vocab_size": 8000}
    return {
        "task": "translation",
        "model": {"tie_embeddings": "three-way", "max_len": 128, **model},
        "data": {"source": "zh", "target": "en", **files, "max_len": 100, "tokenizer": kind},
        "train": {
            "seed": given.seed,
            "max_minutes": given.minutes,
            "batch_tokens": 1536,
            "learning_rate": 2e-3,
            "schedule": "inverse-sqrt",
            "warmup_steps": 400,
            "eval_every_steps": 500,
            "save_every_steps": 500,
            "average": "last",
            "average_checkpoints": 4,
            **settings,
            **(QUICK if given.quick else {}),
        },
    }


def translated(contender: Contender, sources: Sequence[str], beam: int) -> tuple[list[str], float]:
    """Translations, and how many target tokens a second they took."""
    contender.translator.translate(sources[:8], beam=beam)  # what is made at first use is made now
    started = time.perf_counter()
    found = contender.translator.translate(sources, beam=beam)
    seconds = time.perf_counter() - started
    return [each.text for each in found], sum(len(each.tokens) + 1 for each in found) / seconds


def table(header: Sequence[str], rows: Sequence[Sequence[str]], ruler: str = "---:") -> str:
    """A Markdown table whose first column is words; its others are numbers, where no other `ruler` is given."""
    lines = [header, ["---", *[ruler] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def conditions(given: argparse.Namespace, sentences: int) -> str:
    """How the figures came about, in two sentences."""
    threads = torch.get_num_threads()
    budget = f"{QUICK['max_steps']} steps on made-up pairs" if given.quick else f"{given.minutes:g} minutes"
    return (
        f"Each model was trained for {budget} and translated the {sentences:,} sentences of the test part. "
        f"Measured with torch {torch.__version__} and {threads} thread{'s' * (threads > 1)}."
    )


def publish(given: argparse.Namespace, page: str, text: str, pictures: Sequence[Path]) -> None:
    """Write the measured part as a file and, where asked to, into the page and its pictures beside the others.

    Args:   text: Markdown in which a picture stands by its file name.
    """
    (given.out / f"{page}.md").write_text(text, encoding="utf-8")
    print(text)
    print(f"Tables and pictures are in {given.out}.", file=sys.stderr)
    if not given.document:
        return
    document, images = ROOT / "docs" / f"{page}.md", ROOT / "docs" / "images"
    before, _, rest = document.read_text(encoding="utf-8").partition("<!-- measured -->\n")
    _, end, after = rest.partition("<!-- end of measured -->")
    for picture in pictures:
        shutil.copyfile(picture, images / f"{page}-{picture.name}")
        text = text.replace(f"({picture.name})", f"(images/{page}-{picture.name})")
    document.write_text(f"{before}<!-- measured -->\n\n{text}\n{end}{after}", encoding="utf-8")
    print(f"{document} is up to date.", file=sys.stderr)
