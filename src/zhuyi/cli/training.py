"""Train a run and score it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from zhuyi.atomic import check_file
from zhuyi.cli.options import Beam, Columns, Json, Precision, Prefix, Run, Start, Task, no_stream, read_columns, say


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

    if out is not None:
        no_stream(out, "--out", "a run is a folder")
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
        read_columns(columns) if columns else None,
        say,
        init=init,
        edges=edges,
        prefix=prefix,
    )
    scores = start.train(config, folder, resume=resume)
    if scores.pop("interrupted"):
        raise typer.Exit(130)
    if scores:  # of several processes the first alone has any
        typer.echo(json.dumps({"run": str(folder.path), **scores}))


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
    """Score a run. Of a translation run: BLEU with its signature, chrF, speed."""
    from zhuyi.evaluation import Wanted, evaluate_run
    from zhuyi.predict import load

    if output is not None:
        stream = "standard output has the scores, and the translations go to a file"
        check_file(no_stream(output, "--output", stream), *(name for each in pairs or () for name in each.split(",")))
    asked = read_columns(columns) if columns else None
    wanted = Wanted(pairs, asked, beam, alpha, lowercase, output, task, prefix, joined, start or None)
    scores = evaluate_run(load(run, precision, command="evaluate"), wanted, say)
    if json_:
        typer.echo(json.dumps(scores, ensure_ascii=False))
    else:
        for key, value in scores.items():
            typer.echo(f"{key:18} {value}")


def score(
    run: Run,
    pairs: Annotated[str, typer.Option(help="Pairs: .tsv, .jsonl or SOURCE_FILE,TARGET_FILE, - for standard input.")],
    columns: Columns = "1,2",
    precision: Precision = None,
    task: Task = None,
    prefix: Prefix = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="One JSON object a line.")] = False,
) -> None:
    """Tell how likely the model finds given translations. Log-probability and perplexity, a line a pair."""
    from zhuyi.evaluation import score_lines
    from zhuyi.predict import load

    translator, options = load(run, precision, command="score"), {"task": task, "prefix": prefix}
    for line in score_lines(translator, pairs, read_columns(columns), jsonl, say, options):
        typer.echo(line)
