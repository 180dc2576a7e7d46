"""Translating files and pipes: in order, in bounded memory, each line as soon as it is done."""

import contextlib
import queue
import sys
import threading
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from zhuyi.atomic import replacing
from zhuyi.data.pairs import read_lines
from zhuyi.errors import InputError
from zhuyi.predict import Translator
from zhuyi.tasks.translation import WINDOW_TEXTS, Translation

QUEUE_LINES = 4 * WINDOW_TEXTS


def translate_stream(
    translator: Translator,
    *,
    texts: list[str] | None,
    input_path: Path | None,
    output_path: Path | None,
    as_json: bool,
    options: dict[str, Any],
) -> None:
    """Translate `texts`, else the input file, else standard input, to the output file or standard output.

    Raises: InputError: texts and an input file were both given, or a file cannot be read or written.
    """
    if texts and input_path:
        raise InputError("give texts or --input, not both")
    if output_path and not output_path.parent.is_dir():
        raise InputError(f"{output_path}: its folder does not exist; make it first")
    lines: Iterable[str] = texts or read_lines(str(input_path or "-"))
    if input_path:
        lines = _begun(lines)
    total = _count_lines(input_path) if input_path and str(input_path) != "-" else None
    with contextlib.ExitStack() as stack:
        if output_path:
            path = stack.enter_context(replacing(output_path))
            file: IO[str] = stack.enter_context(path.open("w", encoding="utf-8", errors="replace", newline="\n"))
        else:
            file = sys.stdout
        bar, row = _progress(stack, total, shown=output_path is not None)
        for window in available(lines):
            for translation in translator.stream(window, **options):
                file.write(_line(translation, as_json, options["n_best"]) + "\n")
                bar.advance(row)
            file.flush()


def _begun(lines: Iterable[str]) -> Iterable[str]:
    """The same lines, the first of them read: what is wrong with their file is said before anything is shown."""
    rest = iter(lines)
    return chain(list(islice(rest, 1)), rest)


def available(lines: Iterable[str]) -> Iterator[list[str]]:
    """The lines that are there, up to a window of them: whoever types one line need not type a thousand."""
    waiting: queue.Queue[str | BaseException | None] = queue.Queue(QUEUE_LINES)

    def read() -> None:
        try:
            for line in lines:
                waiting.put(line)
            waiting.put(None)
        except BaseException as error:  # raised again where it is waited for
            waiting.put(error)

    threading.Thread(target=read, daemon=True).start()
    while True:
        window: list[str] = []
        item = waiting.get()
        while isinstance(item, str):
            window.append(item)
            if len(window) == WINDOW_TEXTS:
                break
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                break
        if window:
            yield window
        if isinstance(item, BaseException):
            raise item
        if item is None:
            return


def _line(translation: Translation, as_json: bool, n_best: int) -> str:
    if as_json:
        return translation.as_json()
    if n_best == 1:
        return translation.text
    return "\t".join([translation.text, *(text for text, _ in translation.alternatives)])


def _progress(stack: contextlib.ExitStack, total: int | None, *, shown: bool) -> tuple[Progress, Any]:
    bar = Progress(
        TextColumn("translating"),
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


def _count_lines(path: Path) -> int | None:
    if path.suffix == ".gz":
        return None
    try:
        with open(path, "rb") as file:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
    except OSError:
        return None  # reading it will say what is wrong
