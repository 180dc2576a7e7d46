"""Pictures: attention maps, positions, training curves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zhuyi.errors import InputError
from zhuyi.predict import (
    Classifier,
    Forecast,
    Forecaster,
    Generator,
    PictureClassifier,
    TextMaps,
    Transcriber,
    Translator,
    WordFiller,
)
from zhuyi.visualize.attention_maps import draw_maps
from zhuyi.visualize.attention_page import write_page
from zhuyi.visualize.forecasts import draw_forecast
from zhuyi.visualize.picture_overlay import draw_overlay
from zhuyi.visualize.positions import draw_positions
from zhuyi.visualize.sensor_maps import draw_sensor_maps
from zhuyi.visualize.sound_maps import draw_sound_maps

SHOWN_POSITIONS = 128
TextRun = Translator | Generator | WordFiller | Classifier


def draw(
    predictor: TextRun | PictureClassifier | Forecaster | Transcriber,
    text: str | None,
    out: Path,
    *,
    target: str | None = None,
    place: str = "",
    layer: int | None = None,
    head: int | None = None,
    positions: bool = False,
    rollout: bool = False,
    sensor: str = "",
    begin: str = "",
    start: str = "",
    options: Mapping[str, Any] | None = None,
) -> None:
    """Draw where a model looks in a text, or its positions, into the kind of file that the name of `out` ends in.

    Args:   text: of a run that labels pictures, the picture's file; such a run has one place and one kind of file.
            target: a translation of the text; None is the model's own.
            place: encoder, decoder or cross; empty: cross, or the only one that the model has. Of the positions,
            decoder means the target's.
            options: `task` or `prefix`, as `Translator.attention` takes them.
            layer, head: from 1; None is the last layer, and the heads' mean beside each head.
            rollout: of a picture, what all layers together looked at, alone.
            sensor, begin, start: of a run that forecasts, whose `text` is a table: which sensor, the first step to
            come, and the time of the first row, where there is no column of times.
    Raises: InputError: no text, no such place, layer or head, another kind of file, or the extra `plot` is missing.
    """
    if isinstance(predictor, Forecaster):
        _check_file(out, (".png",))
        if text is None or target is not None or place or positions or rollout or any((options or {}).values()):
            raise InputError("of a run that forecasts give a table of recent measurements, and no option of texts")
        maps = predictor.attention(predictor.read(text, start=start), begin=begin)
        draw_sensor_maps(maps, out, sensor=sensor, layer=layer, head=head)
        return
    if sensor or begin or start:
        raise InputError("--sensor, --begin and --start are for runs that forecast; leave them out")
    if isinstance(predictor, PictureClassifier):
        _check_file(out, (".png",))
        if text is None or target is not None or place or positions or any((options or {}).values()):
            raise InputError("of a run that labels pictures give the picture's file, and no option of texts")
        draw_overlay(predictor.attention(text), out, layer=layer, head=head, rolled=rollout)
        return
    if rollout:
        raise InputError("--rollout is for runs that label pictures; leave it out")
    if isinstance(predictor, Transcriber):
        _check_file(out, (".png",))
        if text is None or place not in ("", "cross") or positions or any((options or {}).values()):
            raise InputError(
                "of a run that listens give a recording's file, and no option but --target, --layer, --head"
            )
        draw_sound_maps(predictor.attention(text, target), out, layer=layer, head=head)
        return
    _check_file(out, (".png",) if positions else (".png", ".html"))
    if positions:
        _draw_positions(predictor, out, "target" if place == "decoder" else "source")
        return
    if text is None:
        raise InputError("there is no text to look into; give one, or --positions")
    draw_or_write = write_page if out.suffix.lower() == ".html" else draw_maps
    draw_or_write(_maps_of(predictor, text, target, options or {}), out, place=place, layer=layer, head=head)


def _maps_of(predictor: TextRun, text: str, target: str | None, options: Mapping[str, Any]) -> TextMaps:
    if isinstance(predictor, Translator):
        return predictor.attention(text, target, **options)
    if target is not None or any(options.values()):
        raise InputError("--target, --task and --prefix are for runs that write one text for another; leave them out")
    return predictor.attention(text)


def plot_forecast(forecast: Forecast, out: Path, *, sensors: Sequence[str] = ()) -> None:
    """Draw a forecast's curves into a PNG; see `draw_forecast`."""
    _check_file(out, (".png",))
    draw_forecast(forecast, out, sensors=sensors)


def _check_file(out: Path, endings: tuple[str, ...]) -> None:
    if out.suffix.lower() not in endings:
        raise InputError(
            f"{out} ends in {out.suffix or 'nothing'}; this picture can be a file in {' or '.join(endings)}"
        )
    if not out.parent.is_dir():
        raise InputError(f"{out} cannot be written: there is no folder {out.parent}; make it first")


def _draw_positions(predictor: TextRun, out: Path, side: str) -> None:
    config, model = predictor.config.model, predictor.model
    title = "Learned positions"
    if hasattr(model, "positions"):
        positions = model.positions  # of one stack
    elif hasattr(model, "source_positions"):
        positions = model.source_positions if side == "source" else model.target_positions
        whose = "" if config.positions == "sinusoidal" else f" of the {side}"
        title = f"{config.positions.capitalize()} positions{whose}"
    else:
        raise InputError(f"the model {config.name} has no positions to draw")
    draw_positions(positions.table[:SHOWN_POSITIONS], out, title=title)  # of (max_len, D)
