"""What several sub-commands share: their options, how they are checked, and how a command speaks to the person."""

from pathlib import Path
from typing import Annotated, Any

import typer

from zhuyi.errors import InputError

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


STANDARD_OUTPUT = "-"


def say(message: str) -> None:
    """Say something to the person, not to the pipe."""
    typer.echo(message, err=True)


def file_or_stream(path: Path | None) -> Path | None:
    """The file that a result goes to; None is standard output, which `-` stands for too."""
    return None if str(path) == STANDARD_OUTPUT else path


def no_stream(path: Path, option: str, why: str) -> Path:
    """The same path, for what cannot go to standard output.

    Raises: InputError: it is `-`.
    """
    if str(path) == STANDARD_OUTPUT:
        raise InputError(f"{option} -: {why}; give its name")
    return path


def read_columns(text: str) -> tuple[int, ...]:
    """Column numbers from 1.

    Raises: InputError: it is something else.
    """
    parts = text.split(",")
    if len(parts) > 3 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"--columns {text}: expected two column numbers from 1, such as 2,1; of labelled pairs three")
    return tuple(map(int, parts))


def checked(make: Any) -> Any:
    """What `make` makes.

    Raises: InputError: it refused a value.
    """
    try:
        return make()
    except ValueError as error:
        raise InputError(str(error)) from None
