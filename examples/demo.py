"""What `make demo` runs: translate with the shipped models, see attention, train a small model from scratch.

    python examples/demo.py [--minutes 2] [--out runs/demo]

Needs no network once the packages are installed; the sentences to train on are those of hsk-sentences-audio.
"""

import argparse
import shutil
import sys
from pathlib import Path

import hsk_sentences_audio
from rich.console import Console
from rich.table import Table

import zhuyi
from zhuyi.config import parse_config
from zhuyi.run_folder import RunFolder, shipped_models
from zhuyi.training.loop import train
from zhuyi.visualize import draw

CHINESE = [
    "你好。",
    "今天天气很好。",
    "你叫什么名字？",
    "我昨天买了一本新书。",
    "汤姆不会说法语。",
    "请把门关上。",
    "你什么时候回来？",
    "我们一起去吃饭吧。",
    "她比她姐姐高。",
    "这个问题很难回答。",
    "我不知道他住在哪里。",
    "如果明天下雨，我就待在家里。",
]
ENGLISH = [
    "Good morning.",
    "What time is it?",
    "I like this song very much.",
    "Where is the train station?",
    "Tom is my best friend.",
    "She has never been to China.",
    "Can you help me?",
    "I have to get up early tomorrow.",
    "This book is too difficult for me.",
    "Please speak more slowly.",
    "We should have stayed at home.",
    "He asked me if I was hungry.",
]
SHOWN = {"zh-en": CHINESE, "en-zh": ENGLISH}
LOOKED_INTO = {"zh-en": CHINESE[3], "en-zh": ENGLISH[3]}


def main() -> None:
    """Show what there is, then train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2.0, help="how long to train (default: 2)")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="where the new run goes")
    arguments = parser.parse_args()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="replace")
    console = Console()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if (arguments.out / "run" / "config.json").exists():  # an earlier demo's
        shutil.rmtree(arguments.out / "run")
    show_shipped_models(console, arguments.out)
    train_from_scratch(console, arguments.out, arguments.minutes)
    console.rule("Try next")
    console.print('  .venv/bin/zhuyi translate zh-en "你今天想做什么？" --n-best 3', highlight=False)
    console.print('  .venv/bin/zhuyi attention en-zh "What do you want to do?" --out map.html', highlight=False)
    console.print(
        "  .venv/bin/zhuyi train --task translation --source zh --target en --train pairs.tsv --out runs/mine",
        highlight=False,
    )


def show_shipped_models(console: Console, out: Path) -> None:
    """Translations both ways and a picture of where the model looked."""
    for name in sorted(set(SHOWN) & set(shipped_models()), reverse=True):
        console.rule(f"The shipped model {name}")
        model = zhuyi.load(name)
        table = Table(show_header=False, box=None, padding=(0, 2))
        for text, translation in zip(SHOWN[name], model.translate(SHOWN[name]), strict=True):
            table.add_row(text, translation.text)
        console.print(table)
        picture = out / f"attention-{name}.png"
        draw(model, LOOKED_INTO[name], picture)
        console.print(f"Where it looked while translating {LOOKED_INTO[name]!r}: {picture}", highlight=False)


def train_from_scratch(console: Console, out: Path, minutes: float) -> None:
    """A Transformer that has never seen a word learns Chinese from 4,354 graded sentences."""
    console.rule(f"Training a Transformer from scratch for about {minutes:g} minutes")
    pairs = out / "pairs.tsv"
    rows = [(row["chinese"], row["translation"]["en"]) for row in hsk_sentences_audio.load_sentences()]
    pairs.write_text("".join(f"{zh}\t{en}\n" for zh, en in rows), encoding="utf-8")
    scores = train(parse_config(recipe(pairs, minutes), "the demo's recipe"), RunFolder(out / "run"))
    if scores["interrupted"]:
        raise SystemExit(130)
    console.print(f"On 200 sentences it has not seen: BLEU {scores['bleu']}, chrF {scores['chrf']}", highlight=False)
    model = zhuyi.load(out / "run")
    table = Table(show_header=False, box=None, padding=(0, 2))
    for text, translation in zip(CHINESE[:6], model.translate(CHINESE[:6]), strict=True):
        table.add_row(text, translation.text)
    console.print(table)
    console.print(
        f"({minutes:g} minutes on 4,000 sentences are little. The run, with its curves, is in {out / 'run'}.)"
    )


def recipe(pairs: Path, minutes: float) -> dict:
    """Small enough to learn something in two minutes on two cores."""
    return {
        "task": "translation",
        "model": {
            "name": "transformer",
            "d_model": 192,
            "num_heads": 4,
            "d_ff": 768,
            "num_encoder_layers": 2,
            "num_decoder_layers": 2,
            "dropout": 0.2,
            "norm_first": True,
            "max_len": 128,
        },
        "data": {
            "source": "zh",
            "target": "en",
            "train": [str(pairs)],
            "valid_size": 200,
            "tokenizer": {"kind": "unigram", "vocab_size": 3000},
        },
        "train": {
            "max_minutes": minutes,
            "batch_tokens": 768,
            "learning_rate": 2e-3,
            "schedule": "inverse-sqrt",
            "warmup_steps": 200,
            "eval_every_steps": 500,
            "save_every_steps": 500,
            "average": "last",
            "average_checkpoints": 3,
        },
    }


if __name__ == "__main__":
    main()
