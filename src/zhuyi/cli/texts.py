"""Texts in, texts out: translate, continue, talk, fill, label, embed."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from zhuyi.cli.options import (
    Beam,
    DrawSeed,
    MaxNewTokens,
    MinP,
    NoRepeatNgram,
    Precision,
    Prefix,
    RepetitionPenalty,
    Run,
    Stop,
    Task,
    Temperature,
    TopK,
    TopP,
    checked,
    file_or_stream,
    say,
)
from zhuyi.errors import InputError


def translate(
    run: Run,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Texts; standard input otherwise.")
    ] = None,
    input_: Annotated[Path | None, typer.Option("--input", help="A file of texts, one a line, .gz or not.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where they go, one a line; - is standard output.")] = None,
    beam: Beam = None,
    n_best: Annotated[int, typer.Option(min=1, help="Translations of each text.")] = 1,
    alpha: Annotated[float | None, typer.Option(help="Of the length rule.")] = None,
    precision: Annotated[
        str, typer.Option(help="float32, bfloat16, int8, or auto: the fastest that this machine supports.")
    ] = "auto",
    jsonl: Annotated[bool, typer.Option("--jsonl", help="One JSON object a line: text, score, tokens, flags.")] = False,
    sample: Annotated[bool, typer.Option("--sample", help="Draw at random instead of searching.")] = False,
    temperature: Annotated[float, typer.Option(help="With --sample.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="With --sample: among the K likeliest; 0 is all.")] = 0,
    top_p: Annotated[float, typer.Option(help="With --sample: among the likeliest that make up P.")] = 1.0,
    seed: Annotated[int, typer.Option(help="With --sample.")] = 1,
    task: Task = None,
    prefix: Prefix = None,
    constraint: Annotated[
        str | None, typer.Option(help="The answers' form: none, same-length or couplet; the run's own where not given.")
    ] = None,
    same_length: Annotated[
        bool, typer.Option("--same-length", help="As many characters as the text has, as in a couplet anyway.")
    ] = False,
    glossary: Annotated[
        Path | None,
        typer.Option(help="A TSV of terms: what words must become; with one column what is not translated."),
    ] = None,
    placeholders: Annotated[
        bool | None,
        typer.Option(
            "--placeholders/--no-placeholders",
            help="Keep {name}, %s, URLs and tags as they are; the run's own where not given.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Translator processes that share --input; each has its part of the cores.")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="Where the workers run: local, or ray, on one or many machines (extra ray).")
    ] = "local",
    address: Annotated[
        str | None, typer.Option(help="With --engine ray: HOST:PORT of a running Ray; otherwise one starts here.")
    ] = None,
) -> None:
    """Translate texts, a file or a pipe. As many lines come out as go in, in order.

    With --workers or --engine ray finished parts are kept in OUTPUT.shards, and after a crash the same command goes on.
    """
    rule = None
    if sample:
        from zhuyi.decoding import Sampling

        rule = checked(lambda: Sampling(temperature=temperature, top_k=top_k, top_p=top_p, samples=n_best))
    if glossary is not None and sample:
        raise InputError("--glossary needs a search that looks for its terms; leave --sample out")
    options = {
        "beam": beam,
        "n_best": n_best,
        "alpha": alpha,
        "rule": rule,
        "seed": seed,
        "task": task,
        "prefix": prefix,
        "constraint": constraint,
        "same_length": same_length,
        "glossary": None if glossary is None else _read_glossary(glossary),
        "placeholders": placeholders,
    }
    if workers or engine != "local" or address:
        from zhuyi.engines.dispatch import translate_file

        translate_file(
            run,
            texts=texts or None,
            input_path=input_,
            output_path=file_or_stream(output),
            precision=precision,
            as_json=jsonl,
            options=options,
            engine=engine,
            num_workers=workers,
            address=address,
            warn=say,
        )
        return
    from zhuyi.predict import load
    from zhuyi.streams import translate_stream

    translate_stream(
        load(run, precision, command="translate"),
        texts=texts or None,
        input_path=input_,
        output_path=file_or_stream(output),
        as_json=jsonl,
        options=options,
        warn=say,
    )


def _read_glossary(path: Path) -> Any:
    from zhuyi.tasks.glossary import read_glossary

    return read_glossary(path)


def generate(
    run: Run,
    prompts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PROMPT]...", help="Beginnings; the lines of standard input otherwise."),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Continuations of each prompt.")] = 1,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = None,
    no_repeat_ngram: NoRepeatNgram = None,
    stop: Stop = None,
    seed: DrawSeed = 1,
    precision: Precision = None,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="One JSON object a line: prompt, text, tokens, log_prob, flags.")
    ] = False,
) -> None:
    """Continue texts. A single one appears as it is written."""
    from zhuyi.data.pairs import STANDARD_INPUT, read_lines
    from zhuyi.predict import load
    from zhuyi.writing import write_texts

    generator = load(run, precision, command="generate")
    decode = generator.decode_config(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        no_repeat_ngram=no_repeat_ngram,
        stop=stop,
    )
    lines = prompts or read_lines(STANDARD_INPUT)
    write_texts(generator, lines, decode, sys.stdout, samples=samples, seed=seed, as_json=jsonl)


def chat(
    run: Run,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = None,
    no_repeat_ngram: NoRepeatNgram = None,
    stop: Stop = None,
    seed: DrawSeed = 1,
    precision: Precision = None,
) -> None:
    """Talk with a run that was trained on questions and answers. A line in, an answer out."""
    from zhuyi.data.pairs import STANDARD_INPUT, read_lines
    from zhuyi.predict import load
    from zhuyi.writing import converse

    generator = load(run, precision, command="chat")
    decode = generator.decode_config(
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        no_repeat_ngram=no_repeat_ngram,
        stop=stop,
    )
    converse(generator, read_lines(STANDARD_INPUT), decode, sys.stdout, seed=seed)


def fill(
    run: Run,
    texts: Annotated[list[str], typer.Argument(metavar="TEXT...", help="Texts with [MASK] where words are wanted.")],
    top: Annotated[int, typer.Option(min=1, help="Words for each gap.")] = 5,
    precision: Precision = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="One JSON object a gap: text, gap, candidates.")] = False,
) -> None:
    """Fill the gaps of texts. The likeliest words, their probabilities, and the texts with them."""
    from zhuyi.predict import load
    from zhuyi.writing import write_fillings

    write_fillings(load(run, precision, command="fill"), texts, sys.stdout, top=top, as_json=jsonl)


def classify(
    run: Run,
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT]...", help="Texts, or pictures' files and folders; standard input otherwise."),
    ] = None,
    input_: Annotated[Path | None, typer.Option("--input", help="A file of them, one a line, .gz or not.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where the labels go, one a line; - is standard output.")] = None,
    precision: Precision = None,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="One JSON object a line: label, probability, probabilities, flags.")
    ] = False,
) -> None:
    """Label texts or pictures. A line of label and probability for each, of a picture behind its file."""
    from zhuyi.predict import load
    from zhuyi.streams import label_lines

    label_lines(
        load(run, precision, command="classify"),
        texts=texts or None,
        input_path=input_,
        output_path=file_or_stream(output),
        as_json=jsonl,
        warn=say,
    )


def embed(
    run: Run,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Texts; standard input otherwise.")
    ] = None,
    input_: Annotated[Path | None, typer.Option("--input", help="A file of texts, one a line, .gz or not.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="F.npy: an array of a row a text; any other name: JSON lines; - is standard output."),
    ] = None,
    precision: Precision = None,
) -> None:
    """Turn each text into a vector of length 1. It is the mean over its tokens: alike texts point alike."""
    from zhuyi.predict import load
    from zhuyi.streams import embed_lines

    embed_lines(
        load(run, precision, command="embed"),
        texts=texts or None,
        input_path=input_,
        output_path=file_or_stream(output),
    )
