"""What the tests of whole runs share: pairs of numbers in words, a tiny config, a run of random weights."""

import random
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from zhuyi.config import RunConfig, parse_config
from zhuyi.data.tokenizers import TokenizerConfig, train_tokenizer
from zhuyi.run_folder import RunFolder, named_weights
from zhuyi.training.loop import build_model, train
from zhuyi.training.run_log import RunLog

CHINESE = "零一二三四五六七八九"
ENGLISH = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

Pairs = list[tuple[str, str]]


def number_pairs(count: int, *, digits: Sequence[int] = (2, 3, 4, 5, 6), seed: int = 0) -> Pairs:
    """Pairs such as 三五。 and "three five.": all different, the same at each call."""
    rng = random.Random(seed)
    pairs: dict[str, str] = {}
    while len(pairs) < count:
        number = [rng.randrange(10) for _ in range(rng.choice(digits))]
        pairs["".join(CHINESE[digit] for digit in number) + "。"] = " ".join(ENGLISH[digit] for digit in number) + "."
    return list(pairs.items())


def write_pairs(path: Path, pairs: Iterable[tuple[str, str]]) -> Path:
    path.write_text("".join(f"{source}\t{target}\n" for source, target in pairs), encoding="utf-8")
    return path


def tiny_values(train: Path | str, **settings: Any) -> dict[str, Any]:
    """A recipe's plain values, for a training of seconds; `settings` are of the section `train`."""
    return {
        "task": "translation",
        "model": {
            "name": "transformer",
            "d_model": 26,
            "num_heads": 2,
            "d_ff": 41,
            "num_encoder_layers": 1,
            "num_decoder_layers": 2,
            "dropout": 0.1,
            "max_len": 48,
        },
        "data": {
            "source": "zh",
            "target": "en",
            "train": [str(train)],
            "valid_size": 6,
            "max_len": 48,
            "tokenizer": {"kind": "character", "vocab_size": 64},
        },
        "train": {
            "max_steps": 10,
            "batch_tokens": 256,
            "learning_rate": 0.01,
            "schedule": "constant",
            "warmup_steps": 4,
            "precision": "float32",
            "eval_every_steps": 5,
            "save_every_steps": 5,
            **settings,
        },
        "decode": {"beam": 3},
    }


def tiny_config(train: Path | str, **settings: Any) -> RunConfig:
    return parse_config(tiny_values(train, **settings), "tiny")


def write_recipe(path: Path, values: dict[str, Any]) -> Path:
    from zhuyi.training.automatic import as_toml

    path.write_text(as_toml(values), encoding="utf-8")
    return path


def random_run(path: Path, *, seed: int = 3, model: str = "transformer", **sizes: Any) -> RunFolder:
    """A run as training leaves it, but with weights drawn at random.

    Args:   sizes: the model's; a Transformer's are those of `tiny_values` where not given.
    """
    path.mkdir(parents=True, exist_ok=True)
    pairs = number_pairs(60)
    tokenizer = train_tokenizer(
        [side for pair in pairs for side in pair], TokenizerConfig(kind="character", vocab_size=64)
    )
    values = tiny_values(write_pairs(path / "pairs.tsv", pairs), seed=seed)
    values["data"]["test"] = [str(path / "pairs.tsv")]
    if model != "transformer":
        values["model"] = {"name": model, "max_len": 48}
    vocabulary = {"source_vocab_size": tokenizer.vocab_size, "target_vocab_size": tokenizer.vocab_size}
    values["model"] |= {**vocabulary, **sizes}
    config = parse_config(values, "tiny")
    folder = RunFolder(path)
    folder.write_config(config)
    tokenizer.save(path / "tokenizer.json")
    module = build_model(config)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2.0)  # far from uniform, so that no two texts have nearly the same score
    folder.write_weights(named_weights(module))
    return folder


def command(*arguments: str | Path) -> list[str]:
    """The command line of `zhuyi ARGUMENTS`, run by this Python."""
    return [sys.executable, "-W", "error", "-c", "from zhuyi.cli import main; main()", *map(str, arguments)]


def zhuyi(*arguments: str | Path, stdin: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    import os

    return subprocess.run(
        command(*arguments),
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        timeout=240,
        check=False,
    )


class SilentLog(RunLog):
    """Keeps what would have been shown, and draws nothing."""

    def __init__(self, folder: RunFolder) -> None:
        super().__init__(folder, quiet=True)
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)

    def warn(self, message: str) -> None:
        self.said.append(f"warning: {message}")

    def draw_curves(self) -> None:
        pass


def train_tiny(config: RunConfig, path: Path, *, resume: bool = False) -> tuple[dict[str, Any], SilentLog]:
    """Train in this process; the scores, and what was said."""
    log = SilentLog(RunFolder(path))
    return train(config, RunFolder(path), resume=resume, log=log), log
