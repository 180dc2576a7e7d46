"""What files were made from: noted beside them, so that they are made anew where it has changed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zhuyi.atomic import replacing
from zhuyi.data.pairs import fingerprint


def origin_of(made_from: Any, files: Sequence[str], note: Path, begun: bool) -> str:
    """What something is made from: options, as JSON has them, and what is in the files.

    Where training has `begun`, what the note says of the files holds good: they may have changed, or be gone.

    Raises: InputError: a file cannot be read.
    """
    wanted = json.loads(json.dumps(made_from))
    if begun and note.exists():
        noted = note.read_text(encoding="utf-8")
        if json.loads(noted)[:-1] == wanted:
            return noted
    return json.dumps([*wanted, fingerprint(files)], ensure_ascii=False)


def forget_unless(note: Path, origin: str, made: Sequence[Path]) -> None:
    """Remove what a training that ended before it began has left, where the note beside it names another origin."""
    if not note.exists() or note.read_text(encoding="utf-8") != origin:
        for path in made if note.exists() else ():
            path.unlink(missing_ok=True)
        with replacing(note) as unfinished:
            unfinished.write_text(origin, encoding="utf-8")
