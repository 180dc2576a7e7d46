"""What goes into a search and what comes out of it."""

from dataclasses import dataclass
from typing import Any

from zhuyi.decoding.terms import Terms


@dataclass(frozen=True)
class Form:
    """What a request's text must be, token by token: the end sign stands behind the last position and nowhere else.

    Args:
        fixed: for each position the token that must stand there, or None where one is chosen.
        same_as: for each position the first one whose token stands here too: an earlier one, or itself.
        barred: ids that may not be chosen.
        distinct: a token that stands already may not be chosen again.
    Raises: ValueError: the two tuples differ in length, or a position repeats a later one.
    """

    fixed: tuple[int | None, ...]
    same_as: tuple[int, ...]
    barred: tuple[int, ...] = ()
    distinct: bool = False

    def __post_init__(self) -> None:
        if len(self.fixed) != len(self.same_as):
            raise ValueError(f"fixed has {len(self.fixed)} positions, same_as {len(self.same_as)}; they must agree")
        for position, first in enumerate(self.same_as):
            if not 0 <= first <= position:
                raise ValueError(f"position {position} cannot repeat position {first}: expected 0 to {position}")


@dataclass(frozen=True)
class Request:
    """One sequence to be written.

    Args:
        id: the caller's own number, unique among the requests in flight.
        inputs: what the caller's `begin` needs, source ids for example.
        max_new_tokens: steps the request may take; the end sign takes one.
        min_new_tokens: the end sign may not come before this many tokens.
        seed: what sampling draws from.
        repeating: ids that may repeat themselves, the source's say; `RepetitionGuard` bears so much more.
        form: what `KeepForm` holds the text to; it takes a step a position and one for the end sign.
        context: ids that stand before the text, which filters against repetition count in.
        terms: what the text must contain, if `TermBeam` writes it; with the end sign it must fit.
    Raises: ValueError: the two limits are negative or contradict each other, or the terms do not fit.
    """

    id: int
    inputs: Any
    max_new_tokens: int
    min_new_tokens: int = 0
    seed: int = 0
    repeating: tuple[int, ...] = ()
    form: Form | None = None
    context: tuple[int, ...] = ()
    terms: Terms | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.min_new_tokens <= self.max_new_tokens:
            raise ValueError(
                f"request {self.id}: needs 0 <= min_new_tokens <= max_new_tokens, "
                f"got {self.min_new_tokens} and {self.max_new_tokens}"
            )
        if self.terms is not None and self.terms.total >= self.max_new_tokens:
            raise ValueError(
                f"request {self.id}: its terms take {self.terms.total} tokens and the end sign one, "
                f"but max_new_tokens is {self.max_new_tokens}"
            )


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One written sequence.

    Args:
        tokens: without start and end sign.
        score: what hypotheses are ranked by (for a beam, `log_prob` over the length rule's divisor).
        log_prob: the model's own log-probability, end sign included, before any filter or temperature.
        finished: ended by the end sign; False: cut at `max_new_tokens`.
        flags: why a guard stepped in: "length" (cut), "repetition" (a loop was ended and trimmed), "relaxed" (the
            vocabulary was too small for the request's form).
    """

    tokens: tuple[int, ...]
    score: float
    log_prob: float
    finished: bool
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """One new token of a request, or, with `hypotheses` set, its end."""

    id: int
    token: int | None = None
    sample: int = 0
    hypotheses: tuple[Hypothesis, ...] | None = None
