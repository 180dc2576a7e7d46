"""A recipe for sentence pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from zhuyi.data.pairs import CleaningReport, CleaningRules, clean_pairs
from zhuyi.errors import InputError
from zhuyi.machine import memory_gib, num_cores
from zhuyi.training.automatic.given import Given


@dataclass(frozen=True)
class Size:
    """A model, up to how many pairs it suits, and how it is trained.

    The smallest models are regularised most: dropout is what keeps them from learning their few pairs by heart.
    """

    up_to_pairs: float
    d_model: int
    num_heads: int
    layers: tuple[int, int]
    vocab_size: int
    dropout: float
    batch_tokens: int
    learning_rate: float
    warmup_steps: int
    pairs_seen: int


SIZES = (
    Size(3_000, 128, 4, (2, 2), 2_000, 0.3, 768, 2e-3, 300, 150_000),
    Size(20_000, 192, 4, (3, 3), 4_000, 0.3, 1_024, 1.5e-3, 400, 600_000),
    Size(100_000, 256, 4, (4, 3), 8_000, 0.2, 1_536, 1e-3, 600, 2_000_000),
    Size(1_000_000, 384, 6, (6, 3), 16_000, 0.15, 4_096, 1e-3, 2_000, 10_000_000),
    Size(float("inf"), 512, 8, (6, 6), 32_000, 0.1, 8_192, 7e-4, 4_000, 40_000_000),
)
# Without a GPU, a model of the largest size would take weeks: the next smaller one then, unless there are many cores.
CORES_FOR_LARGEST = 32
# A hundred pairs are a batch or two an epoch: eighty epochs would end while the learning rate still rises.
LEAST_STEPS = 1_000


def automatic_recipe(
    source: str, target: str, train: Sequence[str], columns: tuple[int, ...], extra: dict[str, Sequence[str]]
) -> tuple[dict[str, Any], list[str]]:
    """The recipe as plain values, and why each choice was made.

    Args:   extra: the `valid` and `test` files, where given.
    Raises: InputError: a file is missing or holds no usable pair.
    """
    report = CleaningReport()
    pairs = characters = 0
    for pair in clean_pairs(train, CleaningRules(), columns=columns, report=report):
        pairs += 1
        characters += len(pair.source) + len(pair.target)
    size, why_size = _choose_size(pairs)
    vocab_size = min(size.vocab_size, max(200, characters // 40))
    # A processor's memory bounds the batch, some 2 MiB for each padded token and 512 of width at training.
    batch_tokens = min(size.batch_tokens, int(memory_gib() * 2**30 / 4 / (4096 * size.d_model)))
    batch_tokens = max(512, batch_tokens)
    steps_an_epoch = max(1, round(pairs * (characters / pairs / 2 / 2.5 + 2) / batch_tokens))
    epochs = max(8, min(80, size.pairs_seen // pairs), LEAST_STEPS // steps_an_epoch)
    evaluate = max(50, min(2000, steps_an_epoch * epochs // 20))
    values = {
        "task": "translation",
        "model": {
            "name": "transformer",
            "d_model": size.d_model,
            "num_heads": size.num_heads,
            "d_ff": 4 * size.d_model,
            "num_encoder_layers": size.layers[0],
            "num_decoder_layers": size.layers[1],
            "dropout": size.dropout,
            "norm_first": True,
            "max_len": 256,
        },
        "data": {
            "source": source,
            "target": target,
            "train": list(train),
            **{split: list(files) for split, files in extra.items() if files},
            "columns": list(columns),
            "valid_size": max(20, min(1000, pairs // 20)),
            "max_len": 128,
            "tokenizer": {"kind": "unigram", "vocab_size": vocab_size},
        },
        "train": {
            "max_epochs": epochs,
            "batch_tokens": batch_tokens,
            "learning_rate": size.learning_rate,
            "schedule": "inverse-sqrt",
            "warmup_steps": size.warmup_steps,
            "eval_every_steps": evaluate,
            "save_every_steps": evaluate,
            "patience": 8,
            "average": "last",
            "average_checkpoints": 5,
        },
    }
    return values, [
        report.summary(),
        why_size,
        "normalisation before each sublayer: it learns in fewer steps than after it",
        f"vocabulary {vocab_size:,}: at most {size.vocab_size:,} at this size, and a piece for 40 characters of text",
        f"batches of {batch_tokens:,} tokens: few pairs want small ones; {memory_gib():.0f} GiB of memory bear them",
        f"at most {epochs} epochs, about {epochs * pairs:,} pairs seen; fewer if 8 evaluations bring no better BLEU",
    ]


def recipe_for_pairs(given: Given) -> tuple[dict[str, Any], list[str]]:
    """What makes a translator, as plain values, and why each choice was made."""
    if not all(given.languages):
        raise InputError("give the languages too: --source zh --target en, say")
    extra = {split: given.files[split] for split in ("valid", "test")}
    return automatic_recipe(*given.languages, given.files["train"], given.columns or (1, 2), extra)


def _choose_size(pairs: int) -> tuple[Size, str]:
    allowed = SIZES if torch.cuda.is_available() or num_cores() >= CORES_FOR_LARGEST else SIZES[:-1]
    size = next((size for size in allowed if pairs <= size.up_to_pairs), allowed[-1])
    where = "a GPU" if torch.cuda.is_available() else f"{num_cores()} cores, no GPU"
    return size, (
        f"{size.layers[0]} + {size.layers[1]} layers of width {size.d_model}, dropout {size.dropout}: "
        f"for {pairs:,} pairs on {where}"
    )
