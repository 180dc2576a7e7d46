"""What the command line tells of somebody's data, where there is no recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Given:
    """What the command line tells of the data where there is no recipe.

    Args:   files: by split; there are some for `train`.
            languages: source and target, each empty where not given.
            columns: which columns of a file hold what is wanted; None where not given.
            init: the folder of a run to begin with.
            changes: of the recipe, as --set has them; of use where the data cannot be read without.
            prefix: of a text-to-text run that learns on; None where not given.
    """

    files: Mapping[str, Sequence[str]]
    languages: tuple[str, str] = ("", "")
    columns: tuple[int, ...] | None = None
    init: Path | None = None
    changes: Sequence[str] = ()
    prefix: str | None = None
