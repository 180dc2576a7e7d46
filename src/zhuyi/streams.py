"""Answering files and pipes: in order, in bounded memory, each line as soon as it is done."""

import contextlib
import json
import os
import stat
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from zhuyi.atomic import check_file, replacing_named
from zhuyi.data.images import pictures_below
from zhuyi.data.pairs import STANDARD_INPUT, read_lines
from zhuyi.data.windows import windows, windows_as_they_come
from zhuyi.errors import InputError
from zhuyi.predict import Classification, Classifier, PictureClassifier, Translator, WordFiller
from zhuyi.run_names import shipped_models
from zhuyi.tasks.languages import cannot_be_in
from zhuyi.tasks.pair_data import PairDataConfig
from zhuyi.tasks.text_parts import Translation


def translate_stream(
    translator: Translator,
    *,
    texts: list[str] | None,
    input_path: Path | None,
    output_path: Path | None,
    as_json: bool,
    options: dict[str, Any],
    warn: Callable[[str], None],
) -> None:
    """Translate `texts`, else the input file, else standard input, to the output file or standard output.

    Args:   warn: takes a sentence about the first texts, where they cannot be in the source's language.
    Raises: InputError: texts and an input file were both given, or a file cannot be read or written.
    """
    is_first = True

    def answer(window: list[str]) -> Iterable[str]:
        nonlocal is_first
        if is_first and (hint := other_language(translator.config.data, window)):
            warn(hint)
        is_first = False
        return (output_line(each, as_json, options["n_best"]) for each in translator.stream(window, **options))

    answer_lines(
        answer,
        texts=texts,
        input_path=input_path,
        output_path=output_path,
        doing=f"translating in {translator.precision}",
    )


def other_language(data: Any, texts: list[str]) -> str:
    """A sentence for who took the wrong direction; empty where the texts can be in the source's language.

    Args:   data: the section [data] of the run's config.
    """
    if not isinstance(data, PairDataConfig):
        return ""
    source, target = data.source, data.target
    if not (what := cannot_be_in(texts, source)):
        return ""
    other = f"{target}-{source}"
    meant = f"; did you mean {other}?" if other in shipped_models() else ""
    return f"the text {what}, and this model reads {source}{meant}"


def answer_lines(
    answer: Callable[[list[str]], Iterable[str]],
    *,
    texts: list[str] | None,
    input_path: Path | None,
    output_path: Path | None,
    doing: str,
    each: str = "a text",
) -> None:
    """Write a line for each of `texts`, else of the input file, else of standard input.

    Args:   answer: the lines for some texts, as many and in the same order.
            doing: what is being done, to be shown.
            each: what a line of the input is, to be told to who types them.
    Raises: InputError: texts and an input file were both given, or a file cannot be read or written.
    """
    lines, total = _lines_of(texts, input_path, output_path)
    source = str(input_path or STANDARD_INPUT)
    cut = windows if texts or _is_file(source) else windows_as_they_come
    if not texts and source == STANDARD_INPUT and _is_terminal():
        print(f"{each} a line; Ctrl-D ends", file=sys.stderr)
    with contextlib.ExitStack() as stack:
        if output_path:
            path = stack.enter_context(replacing_named(output_path))
            file: IO[str] = stack.enter_context(path.open("w", encoding="utf-8", errors="replace", newline="\n"))
        else:
            file = sys.stdout
        bar, row = progress(stack, doing, total, shown=output_path is not None)
        for window in cut(lines):
            for line in answer(window):
                file.write(line + "\n")
                bar.advance(row)
            file.flush()


def label_lines(
    classifier: Classifier | PictureClassifier,
    *,
    texts: list[str] | None,
    input_path: Path | None,
    output_path: Path | None,
    as_json: bool,
    warn: Callable[[str], None],
) -> None:
    """Write a line of label and probability for each text; for pictures, whose files are named, or their folders.

    A picture's line begins with its file; of one that cannot be read the rest is empty, and the person is told why.

    Raises: InputError: as `answer_lines`, or not one of the pictures can be read.
    """
    errors: list[InputError] = []
    count = 0
    is_one = texts is not None and len(texts) == 1 and not Path(texts[0]).is_dir()

    def answer(window: list[str]) -> Iterable[str]:
        nonlocal count
        if isinstance(classifier, Classifier):
            for each in classifier.classify_lines(window):
                yield each.as_json() if as_json else f"{each.label}\t{each.probability:.4f}"
            return
        paths = [path for name in window for path in (pictures_below(name) if Path(name).is_dir() else [name])]
        count += len(paths)
        for path, found in zip(paths, classifier.stream(paths), strict=True):
            if isinstance(found, InputError):
                errors.append(found)
                if is_one:
                    raise found
                warn(str(found))
            yield _picture_line(path, found, as_json)

    answer_lines(
        answer,
        texts=texts,
        input_path=input_path,
        output_path=output_path,
        doing="classifying",
        each="a text" if isinstance(classifier, Classifier) else "a picture's file, or a folder of them,",
    )
    if errors and len(errors) == count:
        raise InputError(f"none of {count:,} pictures can be read")
    if errors:
        warn(f"{len(errors):,} of {count:,} pictures cannot be read")
    if not count and isinstance(classifier, PictureClassifier):
        raise InputError(f"no picture in {' '.join(texts or [str(input_path or STANDARD_INPUT)])}")


def _picture_line(path: str, found: Classification | InputError, as_json: bool) -> str:
    if isinstance(found, Classification):
        if not as_json:
            return f"{path}\t{found.label}\t{found.probability:.4f}"
        return json.dumps({"file": path, **json.loads(found.as_json())}, ensure_ascii=False)
    if not as_json:
        return f"{path}\t\t"
    return json.dumps({"file": path, "label": None, "error": str(found)}, ensure_ascii=False)


def embed_lines(
    encoder: Classifier | WordFiller,
    *,
    texts: list[str] | None,
    input_path: Path | None,
    output_path: Path | None,
) -> None:
    """Write the embedding of each text as a line of JSON, or all of them as one array where the output is a `.npy`.

    Raises: InputError: texts and an input file were both given, or a file cannot be read or written.
    """
    if output_path is None or output_path.suffix != ".npy":
        answer_lines(
            lambda window: (
                json.dumps({"text": text, "embedding": [round(x, 7) for x in row]}, ensure_ascii=False)
                for text, row in zip(window, encoder.embed(window).tolist(), strict=True)
            ),
            texts=texts,
            input_path=input_path,
            output_path=output_path,
            doing="embedding",
        )
        return
    lines, _ = _lines_of(texts, input_path, output_path)
    rows = [encoder.embed(window) for window in windows(lines)]
    with replacing_named(output_path) as path, path.open("wb") as file:
        np.save(file, np.concatenate([np.zeros((0, encoder.model.config.d_model), np.float32), *rows]))


def _lines_of(
    texts: list[str] | None, input_path: Path | None, output_path: Path | None
) -> tuple[Iterable[str], int | None]:
    """The lines to answer, and how many they are, where they can be counted; a file is read to its end for that.

    Raises: InputError: as `answer_lines`; what is wrong anywhere in a file is said before any of it is answered.
    """
    if texts and input_path:
        raise InputError("give texts or --input, not both")
    if output_path:
        check_file(output_path, input_path)
    source = str(input_path or STANDARD_INPUT)
    is_read_twice = input_path is not None and source != STANDARD_INPUT and (_is_file(source) or _is_unreadable(source))
    return texts or read_lines(source), count_lines(source) if is_read_twice else None


def _is_file(source: str) -> bool:
    """Whether all of its lines are there already, so that it may be cut at the same places every time."""
    try:
        status = os.fstat(sys.stdin.fileno()) if source == STANDARD_INPUT else os.stat(source)
    except OSError:  # a standard input that the system knows nothing of; for a missing file reading says so
        return False
    return stat.S_ISREG(status.st_mode)


def _is_unreadable(source: str) -> bool:
    """Whether reading it fails at once: it is a folder, or not there."""
    return os.path.isdir(source) or not os.path.exists(source)


def _is_terminal() -> bool:
    """Whether somebody types what standard input brings."""
    try:
        return os.isatty(sys.stdin.fileno())
    except OSError:
        return False


def output_line(translation: Translation, as_json: bool, n_best: int) -> str:
    """One line of output: the text, its alternatives behind tabs where they were asked for, or JSON."""
    if as_json:
        return translation.as_json()
    if n_best == 1:
        return translation.text
    return "\t".join([translation.text, *(text for text, _ in translation.alternatives)])


def progress(stack: contextlib.ExitStack, doing: str, total: int | None, *, shown: bool) -> tuple[Progress, Any]:
    """A bar of lines on standard error, which says what is being done, and its row."""
    bar = Progress(
        TextColumn(doing),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("lines"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not shown,
    )
    stack.enter_context(bar)
    return bar, bar.add_task("lines", total=total)


def count_lines(path: str) -> int:
    """How many lines a file has.

    Raises: InputError: as `read_lines`.
    """
    return sum(1 for _ in read_lines(path))
