"""Runs in the forms of other libraries."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from zhuyi.atomic import new_folder
from zhuyi.errors import InputError
from zhuyi.interop.ctranslate2_folder import write_ctranslate2
from zhuyi.interop.hugging_face import write_hugging_face
from zhuyi.interop.importing import import_run
from zhuyi.interop.onnx_folder import write_onnx
from zhuyi.interop.probe import Comparison, compare
from zhuyi.interop.published_folder import PublishedFolder
from zhuyi.predict import load
from zhuyi.run_folder import PUBLISHED, find_run

__all__ = ["FORMS", "export", "import_run"]


def _hugging_face(predictor: Any, folder: Path, published: Path | None) -> Comparison:
    write_hugging_face(predictor, folder, published)
    return compare(predictor, PublishedFolder(folder))


FORMS: dict[str, Callable[[Any, Path, Path | None], Comparison]] = {
    "hf": _hugging_face,
    "ctranslate2": write_ctranslate2,
    "onnx": write_onnx,
}


def export(run: str | Path, to: str, out: str | Path) -> Comparison:
    """Write a run's folder, or a shipped model, as a folder of another library; it appears whole or not at all.

    Args:   to: a key of `FORMS`.
    Returns: what comparing it with that library said.
    Raises: InputError: no such form, `out` is in use, that library cannot express the model or is not installed.
            ArithmeticError: it computes something else.
    """
    if to not in FORMS:
        raise InputError(f"cannot export to {to}; choose {' or '.join(FORMS)}")
    with new_folder(Path(out)) as unfinished:
        published = find_run(run).path / PUBLISHED
        predictor = load(run, "float32", "cpu", command="export")
        return FORMS[to](predictor, unfinished, published if published.is_dir() else None)
