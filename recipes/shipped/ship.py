"""Put a finished run into the package as a shipped model: weights in bfloat16, config, tokenizer, card.

    python recipes/shipped/ship.py runs/zh-en --name zh-en --card recipes/shipped/zh-en.md

The card's `{parameters}` and `{megabytes}` are filled in from the weights.
"""

import argparse
import shutil
from pathlib import Path

import torch

from zhuyi.run_folder import RunFolder
from zhuyi.run_names import PRETRAINED


def main() -> None:
    """Copy what a user loads; leave checkpoints, metrics and cache behind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--card", type=Path, required=True)
    arguments = parser.parse_args()
    run, shipped = RunFolder(arguments.run), RunFolder(PRETRAINED / arguments.name)
    shipped.write_config(run.read_config())
    weights = run.read_weights()
    shipped.write_weights({name: weight.to(torch.bfloat16) for name, weight in weights.items()})
    for tokenizer in arguments.run.glob("tokenizer*.json"):
        shutil.copy(tokenizer, shipped.path / tokenizer.name)
    card = arguments.card.read_text(encoding="utf-8")
    facts = {
        "{parameters}": f"{sum(weight.numel() for weight in weights.values()):,}",
        "{megabytes}": f"{shipped.weights_path.stat().st_size / 1e6:.1f}",
    }
    for name, value in facts.items():
        card = card.replace(name, value)
    shipped.card_path.write_text(card, encoding="utf-8")
    print(f"{shipped.path}: {facts['{parameters}']} parameters, {facts['{megabytes}']} MB")


if __name__ == "__main__":
    main()
