"""Runs from and to other libraries, what they are, and what this machine can do."""

import json
from pathlib import Path
from typing import Annotated

import typer

from zhuyi.cli.options import Json, Run, no_stream, say


def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER", help="A model folder of Hugging Face form, a name on its hub, or a Whisper's .pt file."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The run's folder; a new one.")],
) -> None:
    """Take a published model over as a run. The two are compared where transformers is installed."""
    from zhuyi.interop import import_run

    say(str(import_run(source, no_stream(out, "--out", "a run is a folder"))))
    typer.echo(str(out))


def export(
    run: Run,
    to: Annotated[str, typer.Option(help="hf (Hugging Face transformers), ctranslate2, or onnx (encoders and GPTs).")],
    out: Annotated[Path, typer.Option(help="The folder to write; a new one.")],
) -> None:
    """Write a run as a model folder of another library. Its README says how to use it and what is not carried."""
    from zhuyi.interop import export as write_folder

    say(str(write_folder(run, to, no_stream(out, "--out", "a model folder is written"))))
    typer.echo(str(out))


def info(
    run: Annotated[str | None, typer.Argument(help="A run or shipped model; all shipped ones otherwise.")] = None,
) -> None:
    """Print a run's card, or list the shipped models."""
    from zhuyi.run_card import describe_run, list_models

    typer.echo(describe_run(run) if run else list_models())


def doctor(json_: Json = False) -> None:
    """Print what this machine supports. Also what would be chosen on it, and its measured limits."""
    from zhuyi.doctor import examine

    facts = examine()
    if json_:
        typer.echo(json.dumps(facts))
    else:
        for key, value in facts.items():
            typer.echo(f"{key.replace('_', ' '):24} {', '.join(value) or 'none' if isinstance(value, list) else value}")
