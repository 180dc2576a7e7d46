"""Continued texts, conversations, filled gaps and transcriptions on a terminal or in a pipe, as they are written."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from zhuyi.atomic import check_file, replacing_named
from zhuyi.data.audio import read_audio
from zhuyi.data.recordings import sound_files
from zhuyi.decoding.config import GenerationConfig
from zhuyi.errors import InputError
from zhuyi.predict.generator import Conversation, Generation, Generator
from zhuyi.predict.transcriber import FORMATS, Transcriber, as_json
from zhuyi.predict.word_filler import WordFiller

BETWEEN = "---\n"


def write_texts(
    generator: Generator,
    prompts: Iterable[str],
    decode: GenerationConfig,
    out: IO[str],
    *,
    samples: int = 1,
    seed: int = 1,
    as_json: bool = False,
) -> None:
    """Write each prompt and what follows it: a single one as it is written, of several each when it is whole.

    Args:   as_json: one object a line instead, with the prompt beside the text.
    """
    prompts = list(prompts)
    if len(prompts) == 1 and samples == 1 and not as_json:
        out.write(prompts[0])
        out.flush()
        for chunk in generator.stream(prompts, decode, seed=seed):
            out.write(chunk.text)
            out.flush()
        out.write("\n")
        return
    for number, found in enumerate(generator.in_order(prompts, decode, samples=samples, seed=seed)):
        if as_json:
            out.write(json_line(found) + "\n")
        else:
            out.write(f"{BETWEEN if number else ''}{found.prompt}{found.text}\n")
        out.flush()


def json_line(found: Generation) -> str:
    """One object of one line."""
    values = asdict(found)
    if found.log_prob is not None:
        values["log_prob"] = round(found.log_prob, 5)
    return json.dumps(values, ensure_ascii=False)


def converse(
    generator: Generator, questions: Iterable[str], decode: GenerationConfig, out: IO[str], *, seed: int = 1
) -> None:
    """Answer each line that is not empty, in one conversation."""
    conversation = Conversation(generator, decode, seed=seed)
    is_terminal = out is sys.stdout and sys.stdin.isatty()
    _ask_for_more(is_terminal)
    for question in questions:
        if question.strip():
            for piece in conversation.ask(question):
                out.write(piece)
                out.flush()
            out.write("\n")
            out.flush()
        _ask_for_more(is_terminal)


def _ask_for_more(is_terminal: bool) -> None:
    """A sign for a person, not for a pipe."""
    if is_terminal:
        sys.stderr.write("> ")
        sys.stderr.flush()


def write_fillings(filler: WordFiller, texts: Iterable[str], out: IO[str], *, top: int, as_json: bool) -> None:
    """Write for each gap of each text the likeliest words, a line each, or one object a gap."""
    for text in texts:
        for number, candidates in enumerate(filler.fill(text, top=top), 1):
            if as_json:
                found = [{"word": c.word, "probability": round(c.probability, 5), "text": c.text} for c in candidates]
                out.write(json.dumps({"text": text, "gap": number, "candidates": found}, ensure_ascii=False) + "\n")
            else:
                out.writelines(f"{c.probability:.4f}\t{c.word}\t{c.text}\n" for c in candidates)


def write_transcriptions(
    transcriber: Transcriber,
    sounds: Sequence[str],
    form: str,
    output: Path | None,
    out: IO[str],
    warn: Callable[[str], None],
    options: dict[str, Any],
) -> None:
    """Write what is said in each recording, as soon as it is there; those that cannot be read are named and skipped.

    Args:   sounds: files, and folders of them.
            form: a key of `FORMATS`.
            output: a file, or for several recordings a folder, where each gets a file of its name, in its sub-folder.
            options: as `Transcriber.stream` takes them.
    Raises: InputError: no such form or folder, two recordings for one file, no recording, or one that cannot be read:
            at once where it is the only one, else after all others are written.
    """
    if form not in FORMATS:
        raise InputError(f"--format {form}: choose {', '.join(FORMATS)}")
    named = [pair for sound in sounds for pair in _named(sound)]
    if not named:
        raise InputError(f"no recording in {' '.join(sounds)}")
    several = len(named) > 1 or Path(sounds[0]).is_dir()
    if several and output is None and form in ("srt", "vtt"):
        raise InputError(f"{len(named)} recordings cannot share one {form}; give a folder for them by --output")
    places = _places(named, form, output, several=several)
    read, errors = list[str](), list[str]()

    def recordings() -> Iterator[Any]:
        for path, _ in named:
            try:
                samples = read_audio(path)
            except InputError as error:
                if not several:
                    raise
                warn(str(error))
                errors.append(path)
                continue
            read.append(path)
            yield samples

    for number, found in enumerate(transcriber.stream(recordings(), **options)):
        path = read[number]
        text = as_json(found, path) if form == "json" else FORMATS[form](found)
        if several and output is None and form == "txt":
            text = f"{path}\t{text}"
        text += "" if text.endswith("\n") else "\n"
        if output is None:
            out.write(text)
            out.flush()
        else:
            places[path].parent.mkdir(parents=True, exist_ok=True)
            with replacing_named(places[path]) as unfinished:
                unfinished.write_text(text, encoding="utf-8", errors="replace", newline="\n")
    if errors:
        raise InputError(f"{len(errors)} of {len(named)} recordings could not be read, {errors[0]} for one")


def _named(sound: str) -> list[tuple[str, Path]]:
    """A recording, or those of a folder, and what each is called where the transcriptions go."""
    if not Path(sound).is_dir():
        return [(sound, Path(Path(sound).name))]
    return [(path, Path(path).relative_to(sound)) for path in sound_files(sound)]


def _places(named: Sequence[tuple[str, Path]], form: str, output: Path | None, *, several: bool) -> dict[str, Path]:
    """The file that each recording's transcription goes to.

    Raises: InputError: there is no folder for it, or two would go to one.
    """
    if output is None:
        return {}
    if several and not output.is_dir():
        raise InputError(f"{output} is no folder, which several recordings need; make it first")
    if not several:
        check_file(output, named[0][0])
        return {named[0][0]: output}
    stems = Counter(name.with_suffix("") for _, name in named)
    found: dict[str, Path] = {}
    taken: dict[Path, str] = {}
    for path, name in named:
        stem = name.with_suffix("")
        base = name if stems[stem] > 1 else stem  # a.wav beside a.flac
        found[path] = output / f"{base}.{form}"
        if (other := taken.setdefault(found[path], path)) != path:
            raise InputError(
                f"{other} and {path} would both be written to {found[path]}; give the folder that they lie in, "
                "whose sub-folders are kept"
            )
    return found
