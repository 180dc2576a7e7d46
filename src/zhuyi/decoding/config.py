"""How a run's texts are searched for, unless its user says otherwise."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

Constraint = Literal["none", "same-length", "couplet"]
# Logits divided by less, or by such a penalty, are no numbers any longer.
LEAST_TEMPERATURE, LEAST_PENALTY = 1e-3, 1e-2


@dataclass(frozen=True)
class DecodeConfig:
    """The search's options.

    Args:   beam: hypotheses held; 1 is greedy search.
            length_rule: `gnmt` ((5 + n) / 6)^alpha (Wu et al. 2016, eq. 14, the 2017 paper's), `power` n^alpha, `none`.
            stop: `exact` goes on until nothing open can beat what is finished; `first` until `beam` are finished.
            batch_rows: hypotheses advanced together.
            longest_sentence: source tokens; a longer text is cut into sentences (0: found from the training data).
            most_sentences: sentences that are translated together; a text of more is cut even if it is short (0: found
            from the training data; if it cannot be, however many).
            forbidden: ids that are never written; null: the target's signs but for its end.
            renormalize: whether what is forbidden counts as impossible in the scores too, as Marian has it.
            constraint: the form of every answer: `same-length`, as many characters as the text has; `couplet`, a
            couplet's lower line. Both want tokens of one character each.
            placeholders: whether placeholders, URLs, e-mail addresses and tags are kept as they are; null: by runs
            whose task is translation.
    """

    beam: int = 5
    length_rule: Literal["gnmt", "power", "none"] = "gnmt"
    alpha: float = 0.6
    stop: Literal["exact", "first"] = "exact"
    batch_rows: int = 384
    longest_sentence: int = 0
    most_sentences: int = 0
    forbidden: tuple[int, ...] | None = None
    renormalize: bool = False
    constraint: Constraint = "none"
    placeholders: bool | None = None

    def __post_init__(self) -> None:
        if self.beam < 1:
            raise ValueError(f"beam must be at least 1, got {self.beam}")
        if self.alpha < 0:
            raise ValueError(f"alpha must not be negative, got {self.alpha}")
        if self.batch_rows < 1:
            raise ValueError(f"batch_rows must be at least 1, got {self.batch_rows}")
        if self.constraint not in get_args(Constraint):
            raise ValueError(f"constraint is {self.constraint}; choose one of {', '.join(get_args(Constraint))}")
        if self.most_sentences < 0:
            raise ValueError(f"most_sentences must not be negative, got {self.most_sentences}")
        if self.longest_sentence < 0 or self.longest_sentence == 1:
            raise ValueError(f"longest_sentence must be 0 or at least 2, got {self.longest_sentence}")


@dataclass(frozen=True)
class GenerationConfig:
    """How a text is continued.

    Args:   max_new_tokens: tokens written at most; the end sign takes one.
            temperature: divides the logits; 0 always takes the likeliest.
            top_k, top_p, min_p: cuts of what may be drawn; 0, 1 and 0 make none (see `Sampling`).
            repetition_penalty: what tokens that are there already are made less likely by; 1 is none.
            no_repeat_ngram: tokens in a row of which no sequence may come twice; 0 is no such rule.
            stop: texts before which writing ends.
            batch_rows: texts written together.
    """

    max_new_tokens: int = 256
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0
    stop: tuple[str, ...] = ()
    batch_rows: int = 64

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "batch_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.temperature != 0 and not LEAST_TEMPERATURE <= self.temperature < float("inf"):
            raise ValueError(
                f"temperature is {self.temperature}; it must be 0, which always takes the likeliest, or at least "
                f"{LEAST_TEMPERATURE}"
            )
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}; it must be at least 0 (0: no limit)")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p is {self.min_p}; it must be from 0 to 1")
        if not LEAST_PENALTY <= self.repetition_penalty < float("inf"):
            raise ValueError(
                f"repetition_penalty is {self.repetition_penalty}; it must be at least {LEAST_PENALTY} (1: none)"
            )
        if self.no_repeat_ngram < 0:
            raise ValueError(f"no_repeat_ngram is {self.no_repeat_ngram}; it must be at least 0 (0: no such rule)")
        if "" in self.stop:
            raise ValueError("stop holds an empty text, which is everywhere")

    def for_samples(self, max_new_tokens: int) -> "GenerationConfig":
        """The same, for a glance at what a model writes."""
        return replace(self, max_new_tokens=min(max_new_tokens, self.max_new_tokens), stop=())
