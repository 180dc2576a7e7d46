"""See what a run looks at."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zhuyi.cli.options import Begin, Json, Prefix, Run, Start, Task, say
from zhuyi.errors import InputError

if TYPE_CHECKING:
    from zhuyi.visualize.view import Looking, View


def attention(
    run: Run,
    text: Annotated[
        str | None, typer.Argument(help="The text to look into, or the picture's or recording's file.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="map.html: one page that opens offline; .png; a new map.png otherwise.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="A translation of yours, or what is said; the model's own otherwise.")
    ] = None,
    place: Annotated[
        str, typer.Option(help="cross, encoder or decoder; where not given cross, or the only one there is.")
    ] = "",
    layer: Annotated[int | None, typer.Option(help="From 1; the last where not given.")] = None,
    head: Annotated[int | None, typer.Option(help="From 1; all of them and their mean where not given.")] = None,
    positions: Annotated[bool, typer.Option("--positions", help="Draw the positional encoding instead.")] = False,
    rollout: Annotated[bool, typer.Option("--rollout", help="What all layers together looked at.")] = False,
    alignment: Annotated[
        bool, typer.Option("--alignment", help="Print which words belong together: 0-0 1-2, source and target.")
    ] = False,
    mutual: Annotated[
        bool, typer.Option("--mutual", help="With --alignment: only links that hold from both sides.")
    ] = False,
    tokens: Annotated[bool, typer.Option("--tokens", help="With --alignment: tokens in the place of words.")] = False,
    heads: Annotated[bool, typer.Option("--heads", help="Print a table of what each head does.")] = False,
    sensor: Annotated[str, typer.Option(help="Of a table: the one to look from; the most looked at otherwise.")] = "",
    begin: Begin = "",
    start: Start = "",
    task: Task = None,
    prefix: Prefix = None,
    as_json: Json = False,
) -> None:
    """Draw where a model looks, or say it in numbers. Every word, or what of a picture is looked at."""
    from zhuyi.predict import load
    from zhuyi.visualize.view import View

    wanted = [
        name for name, given in {"--alignment": alignment, "--heads": heads, "--positions": positions}.items() if given
    ]
    if len(wanted) > 1 or (rollout and wanted):
        raise InputError(f"choose one of {', '.join([*wanted, *(['--rollout'] if rollout else [])])}")
    if (mutual or tokens) and not alignment:
        raise InputError("--mutual and --tokens say how to align: add --alignment")
    if as_json and not (alignment or heads):
        raise InputError("--json prints numbers: add --alignment or --heads")
    if out is not None and (alignment or heads):
        raise InputError(f"{wanted[0]} prints its answer; leave --out out")
    view = View(target, place, layer, head, positions, rollout, sensor, begin, start, task, prefix)
    predictor = load(run, command="attention")
    if alignment:
        _print_alignment(predictor, text, view, mutual=mutual, words=not tokens, as_json=as_json)
    elif heads:
        _print_heads(predictor, text, view, as_json=as_json)
    else:
        from zhuyi.visualize import draw

        out = out or _free_name("map.png")
        draw(predictor, text, out, view)
        typer.echo(str(out))


def _free_name(name: str) -> Path:
    """That name, or with the first number that no file has: what nobody named takes nothing's place."""
    path, number = Path(name), 1
    while path.exists():
        number += 1
        path = Path(name).with_stem(f"{Path(name).stem}-{number}")
    return path


def _print_alignment(
    predictor: "Looking", text: str | None, view: "View", *, mutual: bool, words: bool, as_json: bool
) -> None:
    from zhuyi.predict import TextMaps
    from zhuyi.predict.alignment import align
    from zhuyi.visualize.view import check_view, maps_of

    if view.place not in ("", "cross"):
        raise InputError(f"an alignment is of the place cross; leave --place {view.place} out")
    check_view(predictor, text, view)
    assert text is not None
    maps = maps_of(predictor, text, view)
    if not isinstance(maps, TextMaps):
        raise InputError(f"--alignment is for runs from text to text, and this one is of {predictor.config.task}")
    found = align(maps, layer=view.layer, head=view.head, mutual=mutual, words=words)
    if as_json:
        typer.echo(json.dumps(asdict(found), ensure_ascii=False))
        return
    for side, units in (("source", found.source), ("target", found.target)):
        say(f"{side}: " + " ".join(f"{number}:{unit}" for number, unit in enumerate(units)))
    typer.echo(str(found))


def _print_heads(predictor: "Looking", text: str | None, view: "View", *, as_json: bool) -> None:
    from zhuyi.visualize.head_figures import as_table, head_figures
    from zhuyi.visualize.view import check_view, maps_of

    check_view(predictor, text, view)
    if view.sensor:
        raise InputError("--heads is of all sensors; leave --sensor out")
    assert text is not None
    figures = [
        each
        for each in head_figures(maps_of(predictor, text, view))
        if view.place in ("", each.place) and view.layer in (None, each.layer) and view.head in (None, each.head)
    ]
    if not figures:
        raise InputError("there is no such place, layer or head; leave --place, --layer and --head out to see all")
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in figures]))
    else:
        typer.echo(as_table(figures))
