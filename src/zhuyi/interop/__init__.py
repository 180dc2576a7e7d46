"""Runs in the forms of other libraries."""

import shutil
from collections.abc import Callable
from pathlib import Path

from zhuyi.errors import InputError
from zhuyi.interop.ctranslate2_folder import write_ctranslate2
from zhuyi.interop.hugging_face import write_hugging_face
from zhuyi.predict import Translator, load

FORMS: dict[str, Callable[[Translator, Path], None]] = {"hf": write_hugging_face, "ctranslate2": write_ctranslate2}


def export(run: str | Path, to: str, out: str | Path) -> None:
    """Write a run's folder, or a shipped model, as a folder of another library; it appears whole or not at all.

    Args:   to: a key of `FORMS`.
    Raises: InputError: no such form, `out` is in use, that library cannot express the model or is not installed.
    """
    if to not in FORMS:
        raise InputError(f"cannot export to {to}; choose {' or '.join(FORMS)}")
    out = Path(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out} exists already; give a new folder by --out, or remove that one")
    if not out.parent.is_dir():
        raise InputError(f"{out} cannot be written: there is no folder {out.parent}; make it first")
    translator = load(run, "float32", "cpu", command="export")
    unfinished = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        FORMS[to](translator, unfinished)
        if out.exists():
            out.rmdir()
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
