"""See what a run looks at."""

from pathlib import Path
from typing import Annotated

import typer

from zhuyi.cli.options import Begin, Prefix, Run, Start, Task


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
