"""How an answer came about, step by step: what the search held, and what the model found likeliest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from zhuyi.data.tokenizers import Tokenizer
from zhuyi.decoding import Beginning, way_to_the_best

LIKELIEST = 6

# Of each step the likeliest tokens with their probabilities, the likeliest first.
Likely = tuple[tuple[tuple[str, float], ...], ...]


@dataclass(frozen=True)
class HeldText:
    """One of the texts that a beam held after a step.

    Args:   parent: which one of the step before it goes on with.
            token: what it goes on by.
            state: `open`, `finished` by the end sign, or `cut` where no more steps were to come.
            leads: whether the answer begins so.
    """

    parent: int
    token: str
    log_prob: float
    score: float
    state: Literal["open", "finished", "cut"]
    leads: bool


def held_texts(steps: Sequence[Sequence[Beginning]], tokenizer: Tokenizer) -> tuple[tuple[HeldText, ...], ...]:
    """What a recorded search held after each step, by the names of its tokens."""
    way = dict(enumerate(way_to_the_best(steps)))
    return tuple(
        tuple(
            HeldText(
                each.parent,
                label(tokenizer, each.token),
                each.log_prob,
                each.score,
                each.state,
                way.get(number) == place,
            )
            for place, each in enumerate(step)
        )
        for number, step in enumerate(steps)
    )


def likeliest(logits: Tensor, tokenizer: Tokenizer) -> Likely:
    """The likeliest tokens of each step. Shape: logits (T, V)."""
    best = logits.float().softmax(dim=-1).topk(min(LIKELIEST, logits.shape[-1]), dim=-1)
    rows = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return tuple(
        tuple((label(tokenizer, i), probability) for i, probability in zip(ids, probabilities, strict=True))
        for ids, probabilities in rows
    )


def label(tokenizer: Tokenizer, token: int) -> str:
    """A token's name; a model may have ids beyond its tokenizer's."""
    return tokenizer.labels[token] if token < len(tokenizer.labels) else f"<{token}>"
