"""What `zhuyi evaluate` was asked for, and where its answers go."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from zhuyi.atomic import replacing_named
from zhuyi.errors import InputError


@dataclass(frozen=True)
class Wanted:
    """What `zhuyi evaluate` was asked for.

    Args:   files: what to score on; the run's own test files where None.
            columns: of pairs, source and target; of labelled texts, label, text and perhaps a second text.
            beam, alpha, lowercase: of translations; None or False where not given.
            output: where what the model answers is written too, one a line; of pictures behind the file's name.
            task, prefix: of a run that does several tasks, as `Translator` takes them.
            joined: of recordings, so many are scored as one, with pauses between; None where not given.
            start: of a table without times in `files`, the time of its first row; None where not given.
    """

    files: Sequence[str] | None = None
    columns: tuple[int, ...] | None = None
    beam: int | None = None
    alpha: float | None = None
    lowercase: bool = False
    output: Path | None = None
    task: str | None = None
    prefix: str | None = None
    joined: int | None = None
    start: str | None = None

    def refuse(self, *names: str) -> None:
        """Raise InputError where one of these was given, which the run's task has no use for."""
        for name in names:
            if getattr(self, name) not in (None, False):
                raise InputError(f"--{name} is not for runs of this task; leave it out")


def files_to_score(wanted: Wanted, own: Sequence[str]) -> list[str]:
    """Return the files that were given, or the run's own.

    Raises: InputError: there are neither.
    """
    files = list(wanted.files or own)
    if not files:
        raise InputError("the run has no test data of its own; give some by --test FILE")
    return files


def write_lines(output: Path, lines: Iterable[str]) -> None:
    """Write what the model answers, whole or not at all."""
    with replacing_named(output) as path:
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="replace", newline="\n")
