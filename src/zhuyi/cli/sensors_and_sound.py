"""Tables of sensors and recordings in; forecasts and texts out."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from zhuyi.cli.options import Beam, Begin, Precision, Run, Start, file_or_stream, no_stream, say


def forecast(
    run: Run,
    input_: Annotated[Path, typer.Option("--input", help="Recent measurements: .csv or .parquet, a column a sensor.")],
    steps: Annotated[int | None, typer.Option(help="How many; all that the run was trained for otherwise.")] = None,
    out: Annotated[Path | None, typer.Option(help="The table to write, .csv; - is standard output.")] = None,
    plot: Annotated[Path | None, typer.Option(help="A .png with history, forecast and, where known, truth.")] = None,
    sensor: Annotated[
        list[str] | None, typer.Option(help="A sensor to plot; may be given several times; the liveliest otherwise.")
    ] = None,
    begin: Begin = "",
    start: Start = "",
) -> None:
    """Forecast what sensors will measure. From what they measured of late, in a table."""
    from zhuyi.atomic import check_file
    from zhuyi.predict import load
    from zhuyi.visualize import plot_forecast

    if plot is not None:
        no_stream(plot, "--plot", "a picture goes to a file")
    if (file := file_or_stream(out)) is not None:
        check_file(file, input_)
    forecaster = load(run, command="forecast")
    found = forecaster.forecast(forecaster.read(input_, start=start), steps, begin=begin)
    if found.unmeasured:
        say(
            f"nothing was measured lately by {', '.join(found.unmeasured[:5])}{', ...' * (len(found.unmeasured) > 5)}: "
            "what is forecast for that follows from the other sensors and the time alone"
        )
    if plot is not None:
        plot_forecast(found, plot, sensors=sensor or ())
    if file is not None:
        found.write(file)
    else:
        typer.echo(found.as_csv(), nl=False)


def transcribe(
    run: Run,
    sounds: Annotated[list[str], typer.Argument(metavar="FILE...", help="Recordings of any kind, or folders of them.")],
    format_: Annotated[str, typer.Option("--format", help="txt, srt, vtt, or json: one object a recording.")] = "txt",
    output: Annotated[
        Path | None,
        typer.Option(
            help="A file, - is standard output; for several recordings a folder, where each gets a file of its name."
        ),
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
    """Write down what is said in recordings of any length. Silence and noise have no text."""
    from zhuyi.predict import load
    from zhuyi.writing import write_transcriptions

    options = {"beam": beam, "language": language, "task": "translate" if translate_ else "transcribe", "times": times}
    transcriber = load(run, precision, command="transcribe")
    write_transcriptions(transcriber, sounds, format_, file_or_stream(output), sys.stdout, say, options)
