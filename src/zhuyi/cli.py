"""The command `zhuyi`: each sub-command parses its options, loads what it needs and calls one function.

Results go to standard output, everything else to standard error; heavy imports happen inside the commands.
"""

import gc
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from zhuyi import __version__
from zhuyi.errors import InputError

app = typer.Typer(
    name="zhuyi",
    help="zhuyi (注意): train Transformers on your own data, look inside them, put them to work.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Run = Annotated[str, typer.Argument(help="A run's folder, or the name of a shipped model (see `zhuyi info`).")]
Beam = Annotated[int | None, typer.Option(help="Hypotheses held; 1 is greedy. The run's own where not given.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Columns = Annotated[str, typer.Option(help="Which columns of a TSV are source and target.")]
Task = Annotated[str | None, typer.Option(help="Of a run that does several tasks, the name of the one wanted.")]
Prefix = Annotated[str | None, typer.Option(help="What every text is to begin with, in place of a task's own prefix.")]
MaxNewTokens = Annotated[int | None, typer.Option(help="Tokens written at most; the run's own where not given.")]
Temperature = Annotated[float | None, typer.Option(help="Divides the logits; 0 takes the likeliest always.")]
TopK = Annotated[int | None, typer.Option(help="Draw among the K likeliest; 0 is all.")]
TopP = Annotated[float | None, typer.Option(help="Draw among the likeliest that make up P.")]
MinP = Annotated[float | None, typer.Option(help="Draw among those at least P times as likely as the likeliest.")]
RepetitionPenalty = Annotated[float | None, typer.Option(help="Above 1 weakens what is there already.")]
NoRepeatNgram = Annotated[int | None, typer.Option(help="No N tokens in a row come twice; 0 is no such rule.")]
Stop = Annotated[list[str] | None, typer.Option(help="A text to end before; may be given several times.")]
Begin = Annotated[
    str, typer.Option(help="Of a table: the first step to forecast, 2024-01-31T17:05 say; its end otherwise.")
]
Start = Annotated[str, typer.Option(help="Of a table: the time of the first row, where no column has times.")]
DrawSeed = Annotated[int, typer.Option("--seed", help="The same seed draws the same text.")]
Precision = Annotated[str | None, typer.Option(help="float32 (the default), bfloat16, int8, or auto.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of every command; `main` looks for --debug itself."""


@app.command()
def train(
    recipe: Annotated[Path | None, typer.Argument(help="A TOML recipe; without one, --task and --train.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/<recipe> where not given.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="SECTION.KEY=VALUE, in place of the recipe's.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in --out.")] = False,
    task: Annotated[
        str | None, typer.Option(help="Where there is no recipe; that of --init, else translation, where not given.")
    ] = None,
    source: Annotated[str, typer.Option(help="The source's language code, such as zh.")] = "",
    target: Annotated[str, typer.Option(help="The target's language code, such as en.")] = "",
    train_files: Annotated[
        list[str] | None,
        typer.Option("--train", help="Data; of pairs: .tsv, .jsonl or SOURCE_FILE,TARGET_FILE; .gz of each."),
    ] = None,
    valid: Annotated[
        list[str] | None, typer.Option(help="Validation data; held out of --train where not given.")
    ] = None,
    test: Annotated[list[str] | None, typer.Option(help="Test data, for `zhuyi evaluate`.")] = None,
    columns: Annotated[
        str | None, typer.Option(help="Which columns of a TSV are source and target, or label and text (and second).")
    ] = None,
    edges: Annotated[str, typer.Option(help="Of sensors: a list of the roads between them.")] = "",
    seed: Annotated[int | None, typer.Option(help="In place of the recipe's train.seed.")] = None,
    init: Annotated[str, typer.Option(help="A run or shipped model to begin with, in place of random weights.")] = "",
    prefix: Annotated[
        str | None, typer.Option(help="Of a text-to-text run in --init: what the new pairs' sources begin with.")
    ] = None,
) -> None:
    """Train a model by a recipe, or on your own data without one."""
    from zhuyi.run_folder import RunFolder
    from zhuyi.training import start

    files = {"train": train_files or [], "valid": valid or [], "test": test or []}
    folder = RunFolder(out or Path("runs") / (recipe.stem if recipe else task or "translation"))
    changes = [*(set_ or []), *([f"train.seed={seed}"] if seed is not None else [])]
    config = start.choose_config(
        recipe,
        folder,
        resume,
        changes,
        task,
        (source, target),
        files,
        _columns(columns) if columns else None,
        typer_echo_error,
        init=init,
        edges=edges,
        prefix=prefix,
    )
    scores = start.train(config, folder, resume=resume)
    if scores.pop("interrupted"):
        raise typer.Exit(130)
    if scores:  # of several processes the first alone has any
        typer.echo(json.dumps({"run": str(folder.path), **scores}))


@app.command()
def evaluate(
    run: Run,
    pairs: Annotated[
        list[str] | None, typer.Option("--pairs", "--test", help="Data to score on; the run's own test data otherwise.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Which columns of a TSV are source and target, or label and text (and second).")
    ] = None,
    beam: Beam = None,
    alpha: Annotated[float | None, typer.Option(help="Of the length rule.")] = None,
    precision: Precision = None,
    lowercase: Annotated[bool, typer.Option("--lowercase", help="Score without regard to case.")] = False,
    output: Annotated[Path | None, typer.Option(help="Also write the translations here, one a line.")] = None,
    task: Task = None,
    prefix: Prefix = None,
    joined: Annotated[
        int | None, typer.Option(min=1, help="Score so many recordings at a time, joined with pauses.")
    ] = None,
    start: Start = "",
    json_: Json = False,
) -> None:
    """Score a run; of a translation run: BLEU with its signature, chrF, speed."""
    from zhuyi.evaluation import Wanted, evaluate_run
    from zhuyi.predict import load

    asked = _columns(columns) if columns else None
    wanted = Wanted(pairs, asked, beam, alpha, lowercase, output, task, prefix, joined, start or None)
    scores = evaluate_run(load(run, precision, command="evaluate"), wanted, typer_echo_error)
    if json_:
        typer.echo(json.dumps(scores, ensure_ascii=False))
    else:
        for key, value in scores.items():
            typer.echo(f"{key:18} {value}")


@app.command()
def translate(
    run: Run,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Texts; standard input otherwise.")
    ] = None,
    input_: Annotated[Path | None, typer.Option("--input", help="A file of texts, one a line, .gz or not.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where the translations go, one a line.")] = None,
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
    """Translate texts, a file or a pipe: as many lines come out as go in, in order.

    With --workers or --engine ray finished parts are kept in OUTPUT.shards, and after a crash the same command goes on.
    """
    rule = None
    if sample:
        from zhuyi.decoding import Sampling

        rule = _valid(lambda: Sampling(temperature=temperature, top_k=top_k, top_p=top_p, samples=n_best))
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
    }
    if workers or engine != "local" or address:
        from zhuyi.engines.dispatch import translate_file

        translate_file(
            run,
            texts=texts or None,
            input_path=input_,
            output_path=output,
            precision=precision,
            as_json=jsonl,
            options=options,
            engine=engine,
            num_workers=workers,
            address=address,
            warn=typer_echo_error,
        )
        return
    from zhuyi.predict import load
    from zhuyi.streams import translate_stream

    translate_stream(
        load(run, precision, command="translate"),
        texts=texts or None,
        input_path=input_,
        output_path=output,
        as_json=jsonl,
        options=options,
        warn=typer_echo_error,
    )


@app.command()
def score(
    run: Run,
    pairs: Annotated[str, typer.Option(help="Pairs: .tsv, .jsonl or SOURCE_FILE,TARGET_FILE, - for standard input.")],
    columns: Columns = "1,2",
    precision: Precision = None,
    task: Task = None,
    prefix: Prefix = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="One JSON object a line.")] = False,
) -> None:
    """How likely the model finds each given translation: log-probability and perplexity, a line a pair."""
    from zhuyi.evaluation import score_lines
    from zhuyi.predict import load

    translator, options = load(run, precision, command="score"), {"task": task, "prefix": prefix}
    for line in score_lines(translator, pairs, _columns(columns), jsonl, typer_echo_error, options):
        typer.echo(line)


@app.command()
def classify(
    run: Run,
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT]...", help="Texts, or pictures' files and folders; standard input otherwise."),
    ] = None,
    input_: Annotated[Path | None, typer.Option("--input", help="A file of them, one a line, .gz or not.")] = None,
    output: Annotated[Path | None, typer.Option(help="Where the labels go, one a line.")] = None,
    precision: Precision = None,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="One JSON object a line: label, probability, probabilities, flags.")
    ] = False,
) -> None:
    """Label texts or pictures: a line of label and probability for each, of a picture behind its file."""
    from zhuyi.predict import load
    from zhuyi.streams import label_lines

    label_lines(
        load(run, precision, command="classify"),
        texts=texts or None,
        input_path=input_,
        output_path=output,
        as_json=jsonl,
        warn=typer_echo_error,
    )


@app.command()
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
    """Continue texts: a single one appears as it is written."""
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


@app.command()
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
    """Talk with a run that was trained on questions and answers: a line in, an answer out."""
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


@app.command()
def fill(
    run: Run,
    texts: Annotated[list[str], typer.Argument(metavar="TEXT...", help="Texts with [MASK] where words are wanted.")],
    top: Annotated[int, typer.Option(min=1, help="Words for each gap.")] = 5,
    precision: Precision = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="One JSON object a gap: text, gap, candidates.")] = False,
) -> None:
    """Fill the gaps of texts: the likeliest words, their probabilities, and the texts with them."""
    from zhuyi.predict import load
    from zhuyi.writing import write_fillings

    write_fillings(load(run, precision, command="fill"), texts, sys.stdout, top=top, as_json=jsonl)


@app.command()
def embed(
    run: Run,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Texts; standard input otherwise.")
    ] = None,
    input_: Annotated[Path | None, typer.Option("--input", help="A file of texts, one a line, .gz or not.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="F.npy: an array of a row a text; any other name: JSON lines.")
    ] = None,
    precision: Precision = None,
) -> None:
    """Turn each text into a vector of length 1, the mean over its tokens: alike texts point alike."""
    from zhuyi.predict import load
    from zhuyi.streams import embed_lines

    embed_lines(
        load(run, precision, command="embed"),
        texts=texts or None,
        input_path=input_,
        output_path=output,
        warn=typer_echo_error,
    )


@app.command()
def forecast(
    run: Run,
    input_: Annotated[Path, typer.Option("--input", help="Recent measurements: .csv or .parquet, a column a sensor.")],
    steps: Annotated[int | None, typer.Option(help="How many; all that the run was trained for otherwise.")] = None,
    out: Annotated[Path | None, typer.Option(help="The table to write, .csv; standard output otherwise.")] = None,
    plot: Annotated[Path | None, typer.Option(help="A .png with history, forecast and, where known, truth.")] = None,
    sensor: Annotated[
        list[str] | None, typer.Option(help="A sensor to plot; may be given several times; the liveliest otherwise.")
    ] = None,
    begin: Begin = "",
    start: Start = "",
) -> None:
    """Forecast what sensors will measure from what they measured of late."""
    from zhuyi.predict import load
    from zhuyi.visualize import plot_forecast

    forecaster = load(run, command="forecast")
    found = forecaster.forecast(forecaster.read(input_, start=start), steps, begin=begin)
    if plot is not None:
        plot_forecast(found, plot, sensors=sensor or ())
    if out is not None:
        found.write(out)
    else:
        typer.echo(found.as_csv(), nl=False)


@app.command()
def transcribe(
    run: Run,
    sounds: Annotated[list[str], typer.Argument(metavar="FILE...", help="Recordings of any kind, or folders of them.")],
    format_: Annotated[str, typer.Option("--format", help="txt, srt, vtt, or json: one object a recording.")] = "txt",
    output: Annotated[
        Path | None, typer.Option(help="A file; for several recordings a folder, where each gets a file of its name.")
    ] = None,
    beam: Beam = None,
    language: Annotated[
        str | None, typer.Option(help="Its code, or auto, where the model knows several; the run's own otherwise.")
    ] = None,
    translate_: Annotated[
        bool, typer.Option("--translate", help="Into English, where the model was taught to.")
    ] = False,
    times: Annotated[
        bool | None,
        typer.Option("--times/--no-times", help="Whether the model writes times; if it can, where not given."),
    ] = None,
    precision: Precision = None,
) -> None:
    """Write down what is said in recordings of any length; silence and noise have no text."""
    from zhuyi.predict import load
    from zhuyi.writing import write_transcriptions

    options = {"beam": beam, "language": language, "task": "translate" if translate_ else "transcribe", "times": times}
    transcriber = load(run, precision, command="transcribe")
    write_transcriptions(transcriber, sounds, format_, output, sys.stdout, typer_echo_error, options)


@app.command()
def attention(
    run: Run,
    text: Annotated[
        str | None, typer.Argument(help="The text to look into, or the picture's or recording's file.")
    ] = None,
    out: Annotated[Path, typer.Option(help="map.png, or map.html: one page that opens offline.")] = Path("map.png"),
    target: Annotated[str | None, typer.Option(help="A translation of yours; the model's own otherwise.")] = None,
    place: Annotated[
        str, typer.Option(help="cross, encoder or decoder; where not given cross, or the only one there is.")
    ] = "",
    layer: Annotated[int | None, typer.Option(help="From 1; the last where not given.")] = None,
    head: Annotated[int | None, typer.Option(help="From 1; all of them and their mean where not given.")] = None,
    positions: Annotated[bool, typer.Option("--positions", help="Draw the positional encoding instead.")] = False,
    rollout: Annotated[
        bool, typer.Option("--rollout", help="Of a picture: what all layers together looked at.")
    ] = False,
    sensor: Annotated[str, typer.Option(help="Of a table: the one to look from; the most looked at otherwise.")] = "",
    begin: Begin = "",
    start: Start = "",
    task: Task = None,
    prefix: Prefix = None,
) -> None:
    """Draw where every word looks, or what of a picture is looked at."""
    from zhuyi.predict import load
    from zhuyi.visualize import draw

    draw(
        load(run, command="attention"),
        text,
        out,
        target=target,
        place=place,
        layer=layer,
        head=head,
        positions=positions,
        rollout=rollout,
        sensor=sensor,
        begin=begin,
        start=start,
        options={"task": task, "prefix": prefix},
    )
    typer.echo(str(out))


@app.command("import")
def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER", help="A model folder of Hugging Face form, a name on its hub, or a Whisper's .pt file."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The run's folder; a new one.")],
) -> None:
    """Take a published model over as a run, and compare the two where transformers is installed."""
    from zhuyi.interop import import_run

    typer_echo_error(str(import_run(source, out)))
    typer.echo(str(out))


@app.command()
def export(
    run: Run,
    to: Annotated[str, typer.Option(help="hf (Hugging Face transformers), ctranslate2, or onnx (encoders and GPTs).")],
    out: Annotated[Path, typer.Option(help="The folder to write; a new one.")],
) -> None:
    """Write a run as a model folder of another library; its README says how to use it and what is not carried."""
    from zhuyi.interop import export as write_folder

    typer_echo_error(str(write_folder(run, to, out)))
    typer.echo(str(out))


@app.command()
def info(
    run: Annotated[str | None, typer.Argument(help="A run or shipped model; all shipped ones otherwise.")] = None,
) -> None:
    """Print a run's card, or list the shipped models."""
    from zhuyi.run_card import describe_run, list_models

    typer.echo(describe_run(run) if run else list_models())


@app.command()
def doctor(json_: Json = False) -> None:
    """Print what this machine supports, what would be chosen on it, and its measured limits."""
    from zhuyi.doctor import examine

    facts = examine()
    if json_:
        typer.echo(json.dumps(facts))
    else:
        for key, value in facts.items():
            typer.echo(f"{key.replace('_', ' '):24} {', '.join(value) or 'none' if isinstance(value, list) else value}")


def typer_echo_error(message: str) -> None:
    """Say something to the person, not to the pipe."""
    typer.echo(message, err=True)


def _columns(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if len(parts) > 3 or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"--columns {text}: expected two column numbers from 1, such as 2,1; of labelled pairs three")
    return tuple(map(int, parts))


def _valid(make: Any) -> Any:
    try:
        return make()
    except ValueError as error:
        raise InputError(str(error)) from None


def main() -> None:
    """Run a command; a wrong input is one line and exit status 2, anything else that fails one line and 1."""
    # Importing torch makes a million objects and no garbage: looking for it then, and at the end, takes half a second.
    gc.set_threshold(20_000, 50, 50)
    for stream in (sys.stdout, sys.stderr):  # UTF-8, whatever the locale
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    try:
        status = app(sys.argv[1:] or ["--help"], prog_name="zhuyi", standalone_mode=False)
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        status = _report(error)
    except KeyboardInterrupt:
        status = 130
    gc.freeze()
    sys.exit(status if isinstance(status, int) else 0)


def _report(error: Exception) -> int:
    """One line about an error, and the exit status."""
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # wrong usage, found by the parser
        typer_echo_error(f"error: {error.format_message()} (see `zhuyi --help`)")
        return int(error.exit_code)
    if isinstance(error, BrokenPipeError):  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if isinstance(error, InputError):
        typer_echo_error(f"error: {error}")
        return 2
    message = " ".join(str(error).split())  # a library's may have many lines
    typer_echo_error(f"error: {type(error).__name__}: {message} (run `zhuyi --debug ...` for where)")
    return 1
