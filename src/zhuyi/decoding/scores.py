"""What a rule sees of a step: the logits that filters leave, or, where it looks at no more, the largest of them."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from zhuyi.decoding.reductions import top
from zhuyi.nn.kernels.program import Listed


class Scores(Protocol):
    """One step's."""

    @property
    def normalizer(self) -> Tensor | None:
        """Log sum exp of each row's logits, before or after the filters as the search is told; None: nobody asks.

        Shape: (R,).
        """
        ...

    @property
    def logits(self) -> Tensor:
        """All of them, for rules whose `looks_at` is None. Shape: (R, V)."""
        ...

    def top(self, count: int) -> tuple[Tensor, Tensor]:
        """The `count` largest logits of each row (of a small vocabulary all), largest first, and whose they are.

        Shape: returns (R, count) twice.
        """
        ...


@dataclass(frozen=True, slots=True)
class AllScores:
    """Every logit."""

    logits: Tensor
    normalizer: Tensor | None

    def top(self, count: int) -> tuple[Tensor, Tensor]:
        """As `Scores`."""
        return top(self.logits, min(count, self.logits.shape[1]))


@dataclass(frozen=True, slots=True)
class ListedScores:
    """Logits that were never written down: of each row the largest alone.

    Shape: values, ids (R, count), normalizer (R,).
    """

    values: Tensor
    ids: Tensor
    normalizer: Tensor | None

    @property
    def logits(self) -> Tensor:
        """There are none."""
        raise TypeError("a rule that needs all logits must say so by looks_at = None")

    def top(self, count: int) -> tuple[Tensor, Tensor]:
        """As `Scores`."""
        return self.values[:, :count], self.ids[:, :count]


@runtime_checkable
class Lister(Protocol):
    """A state that finds a step's largest logits without writing all of them down."""

    def list_largest(
        self, tokens: Tensor, *, steps: int, count: int, end: int, barred: tuple[int, ...], sums_barred: bool
    ) -> Listed | None:
        """Do some steps, in each of which a row goes on with its likeliest token; None where that cannot be.

        Args:   steps: at most; after that in which a row has written `end` none is done.
                barred: ids that may not be written; where `sums_barred`, they have no share of the probability either.
        """
        ...
