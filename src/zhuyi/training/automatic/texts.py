"""A recipe for plain texts."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from zhuyi.data.normalization import count_han
from zhuyi.data.texts import read_documents
from zhuyi.errors import InputError
from zhuyi.training.automatic.given import Given


@dataclass(frozen=True)
class TextSize:
    """A language model, up to how many tokens of text it suits, and how it is trained."""

    up_to_tokens: float
    d_model: int
    num_heads: int
    num_layers: int
    max_len: int
    dropout: float
    batch_tokens: int
    max_steps: int


TEXT_SIZES = (
    TextSize(300_000, 128, 4, 4, 64, 0.2, 768, 2_000),
    TextSize(3_000_000, 192, 6, 4, 128, 0.1, 2_048, 4_000),
    TextSize(30_000_000, 384, 6, 6, 256, 0.1, 8_192, 10_000),
    TextSize(float("inf"), 512, 8, 8, 512, 0.0, 16_384, 40_000),
)
# A text of few different letters, and not too long, is written letter by letter.
MOST_LETTERS = 300
LONGEST_BY_LETTERS = 3_000_000


def recipe_for_text(given: Given) -> tuple[dict[str, Any], list[str]]:
    """What makes a language model, as plain values, and why each choice was made."""
    counts: Counter[str] = Counter()
    tokens = 0
    for piece in read_documents(given.files["train"], "file"):
        counts.update(piece.text)
        tokens += about_tokens(piece.text)
    characters = counts.total()
    if not characters:
        raise InputError(f"{' '.join(given.files['train'])}: no text; give text files, .gz or not")
    by_letters = len(counts) <= MOST_LETTERS and characters <= LONGEST_BY_LETTERS
    kind, vocab_size = ("character", len(counts) + 4) if by_letters else ("byte-bpe", max(500, characters // 100))
    size = next(size for size in TEXT_SIZES if (characters if by_letters else tokens) <= size.up_to_tokens)
    dropouts = dict.fromkeys(("dropout", "attention_dropout", "embedding_dropout"), size.dropout)
    sizes = {"d_model": size.d_model, "num_heads": size.num_heads, "num_layers": size.num_layers}
    evaluate = size.max_steps // 8
    values = {
        "task": "language-modelling",
        "model": {"name": "gpt", **sizes, **dropouts, "max_len": size.max_len},
        "data": {
            **{split: list(files) for split, files in given.files.items() if files},
            "max_len": size.max_len,
            "tokenizer": {"kind": kind, "vocab_size": min(16_000, vocab_size), "verbatim": True},
        },
        "train": {
            "max_steps": size.max_steps,
            "batch_tokens": size.batch_tokens,
            "learning_rate": 1e-3,
            "final_learning_rate": 1e-4,
            "schedule": "cosine",
            "warmup_steps": 100,
            "betas": [0.9, 0.99],
            "epsilon": 1e-8,
            "weight_decay": 0.1,
            "label_smoothing": 0.0,
            "eval_every_steps": evaluate,
            "save_every_steps": evaluate,
            "patience": 3,
            "average": "none",
        },
    }
    return values, [
        f"{characters:,} characters, {len(counts):,} different ones: written "
        + ("one by one" if by_letters else f"in up to {min(16_000, vocab_size):,} pieces of bytes"),
        f"{size.num_layers} layers of width {size.d_model}, dropout {size.dropout}, over {size.max_len} tokens at once",
        f"{size.max_steps:,} steps of {size.batch_tokens:,} tokens; fewer if 3 evaluations bring no better loss",
    ]


def about_tokens(text: str) -> int:
    """How many tokens a text is likely to have: a Chinese character is most of one, a letter a third."""
    han = count_han(text)
    return han + (len(text) - han) // 3 + 1
