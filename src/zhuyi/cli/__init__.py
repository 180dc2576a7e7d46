"""The command `zhuyi`: each sub-command parses its options, loads what it needs and calls one function.

Results go to standard output, everything else to standard error; heavy imports happen inside the commands.
"""

import gc
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from zhuyi import __version__
from zhuyi.cli import models, pictures, sensors_and_sound, serving, texts, training, watching
from zhuyi.cli.options import say
from zhuyi.errors import InputError

# In the order of the help.
COMMANDS: dict[str, Callable[..., None]] = {
    "train": training.train,
    "evaluate": training.evaluate,
    "translate": texts.translate,
    "score": training.score,
    "generate": texts.generate,
    "chat": texts.chat,
    "fill": texts.fill,
    "classify": texts.classify,
    "embed": texts.embed,
    "transcribe": sensors_and_sound.transcribe,
    "forecast": sensors_and_sound.forecast,
    "attention": pictures.attention,
    "watch": watching.watch,
    "serve": serving.serve,
    "import": models.import_,
    "export": models.export,
    "info": models.info,
    "doctor": models.doctor,
}

app = typer.Typer(
    name="zhuyi",
    help="zhuyi (注意): train Transformers on your own data, look inside them, put them to work.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


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


for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


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
        context = getattr(error, "ctx", None)
        say(f"error: {error.format_message()} (see `{context.command_path if context else 'zhuyi'} --help`)")
        return int(error.exit_code)
    if isinstance(error, BrokenPipeError):  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if isinstance(error, InputError):
        say(f"error: {error}")
        return 2
    message = " ".join(str(error).split())  # a library's may have many lines
    say(f"error: {type(error).__name__}: {message} (run `zhuyi --debug ...` for where)")
    return 1
