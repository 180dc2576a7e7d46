"""Which runs there are, by their names alone: to refuse a name takes no time, since nothing heavy is imported."""

import difflib
from pathlib import Path

from zhuyi.errors import InputError

PRETRAINED = Path(__file__).parent / "pretrained"


def shipped_models() -> list[str]:
    """The names of the models inside the package."""
    return sorted(path.parent.name for path in PRETRAINED.glob("*/config.json"))


def check_run_name(given: str) -> None:
    """Refuse what names no run, as `RUN` or `NAME=RUN`.

    Raises: InputError
    """
    name = given if Path(given).is_dir() else given.rpartition("=")[2]
    if not Path(name).is_dir() and name not in shipped_models():
        raise unknown_run(name)


def check_folder(path: Path) -> None:
    """Refuse what is no folder, where runs are looked for.

    Raises: InputError
    """
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; give the folder of a run, or one with runs in it")


def unknown_run(name: str, hint: str = "") -> InputError:
    """What is to be told of a name that no run has."""
    known = shipped_models()
    near = difflib.get_close_matches(name, known, n=1)
    return InputError(
        f"{name}: neither a run folder nor a shipped model ({', '.join(known) or 'none are installed'})"
        + (hint or (f"; did you mean {near[0]}?" if near else ""))
    )
