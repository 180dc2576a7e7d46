"""How a run's texts are searched for, unless its user says otherwise."""

from dataclasses import dataclass
from typing import Literal, get_args

Constraint = Literal["none", "same-length", "couplet"]


@dataclass(frozen=True)
class DecodeConfig:
    """The search's options.

    Args:   beam: hypotheses held; 1 is greedy search.
            length_rule: `gnmt` ((5 + n) / 6)^alpha (Wu et al. 2016, eq. 14, the 2017 paper's), `power` n^alpha, `none`.
            stop: `exact` goes on until nothing open can beat what is finished; `first` until `beam` are finished.
            batch_rows: hypotheses advanced together.
            longest_sentence: source tokens; a longer text is cut into sentences (0: found from the training data).
            forbidden: ids that are never written; null: the target's signs but for its end.
            renormalize: whether what is forbidden counts as impossible in the scores too, as Marian has it.
            constraint: the form of every answer: `same-length`, as many characters as the text has; `couplet`, a
            couplet's lower line. Both want tokens of one character each.
    """

    beam: int = 5
    length_rule: Literal["gnmt", "power", "none"] = "gnmt"
    alpha: float = 0.6
    stop: Literal["exact", "first"] = "exact"
    batch_rows: int = 256
    longest_sentence: int = 0
    forbidden: tuple[int, ...] | None = None
    renormalize: bool = False
    constraint: Constraint = "none"

    def __post_init__(self) -> None:
        if self.beam < 1:
            raise ValueError(f"beam must be at least 1, got {self.beam}")
        if self.alpha < 0:
            raise ValueError(f"alpha must not be negative, got {self.alpha}")
        if self.batch_rows < 1:
            raise ValueError(f"batch_rows must be at least 1, got {self.batch_rows}")
        if self.constraint not in get_args(Constraint):
            raise ValueError(f"constraint is {self.constraint}; choose one of {', '.join(get_args(Constraint))}")
        if self.longest_sentence < 0 or self.longest_sentence == 1:
            raise ValueError(f"longest_sentence must be 0 or at least 2, got {self.longest_sentence}")
