"""Continued texts, conversations and filled gaps on a terminal or in a pipe, as they are written."""

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from typing import IO

from zhuyi.decoding.config import GenerationConfig
from zhuyi.predict.generator import Conversation, Generation, Generator
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
