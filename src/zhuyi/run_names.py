"""Which runs there are, by their names alone: to refuse a name takes no time, since nothing heavy is imported."""

import difflib
import re
from pathlib import Path

from zhuyi.errors import InputError

PRETRAINED = Path(__file__).parent / "pretrained"
_TRADITIONAL = re.compile(r"(^|-)(zt|zh-(hant|tw|hk|mo))(-|$)")


def shipped_models() -> list[str]:
    """The names of the models inside the package."""
    return sorted(path.parent.name for path in PRETRAINED.glob("*/config.json"))


def check_run_name(given: str) -> None:
    """Refuse what names no run, as `RUN` or `NAME=RUN`.

    Raises: InputError
    """
    name = given if Path(given).is_dir() else given.rpartition("=")[2]
    if not is_folder(name) and name not in shipped_models():
        raise unknown_run(name)


def is_folder(name: str | Path) -> bool:
    """Whether there is a folder of that name; nothing at all is no name, though `Path("")` is the folder one is in."""
    return name != "" and Path(name).is_dir()


def check_folder(path: Path) -> None:
    """Refuse what is no folder, where runs are looked for.

    Raises: InputError
    """
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; give the folder of a run, or one with runs in it")


def unknown_run(name: str) -> InputError:
    """What is to be told of a name that no run has."""
    known = shipped_models()
    near = difflib.get_close_matches(name, known, n=1)
    return InputError(
        f"{name or 'an empty name'}: neither a run folder nor a shipped model "
        f"({', '.join(known) or 'none are installed'})"
        + (of_traditional(name) or (f"; did you mean {near[0]}?" if near else ""))
    )


def of_traditional(code: str) -> str:
    """What to do about traditional Chinese where it is not had, as the end of a sentence; empty for all else.

    Args:   code: a language's, or the name of a run.
    """
    if not _TRADITIONAL.search(code.strip().lower().replace("_", "-")):
        return ""
    return "; zh is simplified Chinese: ask for that, and convert the text (opencc -c s2t or t2s)"
