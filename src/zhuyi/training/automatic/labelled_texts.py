"""A recipe for labelled texts."""

from dataclasses import dataclass
from typing import Any

from zhuyi.config import apply_change, parse_config
from zhuyi.data.labelled_texts import read_all_texts
from zhuyi.data.pairs import CleaningReport
from zhuyi.run_folder import RunFolder
from zhuyi.tasks.text_classification import LabelledDataConfig
from zhuyi.training.automatic.given import Given
from zhuyi.training.automatic.learning_on import EPOCHS_FROM_INIT, LEARNING_RATE_TIMES_WIDTH
from zhuyi.training.automatic.texts import about_tokens


@dataclass(frozen=True)
class EncoderSize:
    """An encoder, up to how many labelled texts it suits, and how it is trained from random weights."""

    up_to_texts: float
    d_model: int
    num_heads: int
    num_layers: int
    vocab_size: int
    dropout: float
    learning_rate: float
    epochs: int


ENCODER_SIZES = (
    EncoderSize(3_000, 128, 4, 2, 2_000, 0.3, 5e-4, 30),
    EncoderSize(30_000, 192, 4, 2, 6_000, 0.3, 5e-4, 15),
    EncoderSize(300_000, 256, 4, 4, 12_000, 0.2, 4e-4, 8),
    EncoderSize(float("inf"), 384, 6, 6, 24_000, 0.1, 3e-4, 4),
)
LONGEST_TEXT = 256  # tokens; attention's cost grows with the square, and a text's drift shows before that


def recipe_for_labelled_texts(given: Given) -> tuple[dict[str, Any], list[str]]:
    """What makes a classifier of texts, as plain values, and why each choice was made."""
    data = _labelled_data(given)
    report = CleaningReport(things="texts")
    texts = read_all_texts(given.files["train"], data.layout, report)
    lengths = [sum(about_tokens(text) for text in (each.text, each.second) if text) for each in texts]
    size = next(size for size in ENCODER_SIZES if len(lengths) <= size.up_to_texts)
    max_len = min(LONGEST_TEXT, max(16, 2 + sorted(lengths)[int(0.98 * (len(lengths) - 1))]))
    vocab_size = min(size.vocab_size, max(300, sum(lengths) // 20))
    model = {
        "name": "bert",
        "d_model": size.d_model,
        "num_heads": size.num_heads,
        "d_ff": 4 * size.d_model,
        "num_layers": size.num_layers,
        "dropout": size.dropout,
        "classifier_dropout": size.dropout,
        "pooling": "mean",
        "max_len": max_len,
    }
    rate, epochs, why = size.learning_rate, size.epochs, f"{size.num_layers} layers of width {size.d_model}"
    if given.init:
        begun = RunFolder(given.init).read_config()
        max_len = min(max_len, begun.model.max_len)
        rate, epochs, why = (
            LEARNING_RATE_TIMES_WIDTH / begun.model.d_model,
            EPOCHS_FROM_INIT,
            f"begins with {given.init}",
        )
    batch_tokens = 32 * max(16, min(max_len, sum(lengths) // len(lengths)))
    steps = max(1, sum(min(length + 2, max_len) for length in lengths) // batch_tokens)  # an epoch
    values = {
        "task": "text-classification",
        **({} if given.init else {"model": model}),
        "data": {
            **{split: list(files) for split, files in given.files.items() if files},
            "columns": list(data.columns),
            "valid_size": max(10, min(1000, len(lengths) // 10)),
            "max_len": max_len,
            "tokenizer": {"kind": "unigram", "vocab_size": vocab_size},
        },
        "train": {
            "max_steps": epochs * steps,
            "batch_tokens": batch_tokens,
            "learning_rate": rate,
            "schedule": "linear",
            "warmup_steps": epochs * steps // 10,
            "betas": [0.9, 0.999],
            "weight_decay": 0.01,
            "label_smoothing": 0.0,
            "eval_every_steps": steps,
            "save_every_steps": steps,
            "patience": max(3, epochs // 3),
            "average_checkpoints": 3,
        },
    }
    return values, [
        report.summary(),
        f"{why}: for {len(lengths):,} texts",
        f"rows of {max_len} tokens at most: of 2 in 100 texts the end is cut",
        f"batches of {batch_tokens:,} tokens, some 32 texts; {epochs} epochs of {steps:,} steps",
    ]


def _labelled_data(given: Given) -> LabelledDataConfig:
    """How the files are to be read, by the options given."""
    asked: dict[str, Any] = {
        "task": "text-classification",
        "model": {"name": "bert"},
        "data": {"columns": list(given.columns)} if given.columns else {},
        "train": {"max_steps": 1},
    }
    for change in given.changes:
        if change.strip().startswith("data."):  # the rest is of a recipe that is not there yet
            apply_change(asked, change)
    data: LabelledDataConfig = parse_config(asked, "the options given").data
    return data
