"""Pictures: attention maps, positions, training curves."""

from collections.abc import Sequence
from pathlib import Path

from zhuyi.atomic import check_file
from zhuyi.errors import InputError
from zhuyi.predict import Forecast, PictureMaps, SensorMaps, SoundMaps
from zhuyi.visualize.attention_maps import draw_maps
from zhuyi.visualize.attention_page import write_page
from zhuyi.visualize.forecasts import draw_forecast
from zhuyi.visualize.picture_overlay import draw_overlay
from zhuyi.visualize.positions import draw_model_positions
from zhuyi.visualize.sensor_maps import draw_sensor_maps
from zhuyi.visualize.sound_maps import draw_sound_maps
from zhuyi.visualize.view import AnyMaps, Looking, View, check_view, maps_of


def draw(predictor: Looking, text: str | None, out: Path, view: View | None = None) -> None:
    """Draw where a model looks in a text, or its positions, into the kind of file that the name of `out` ends in.

    Args:   text: of a run that labels pictures the picture's file, of one that listens the recording's, of one that
            forecasts a table's.
    Raises: InputError: no text, no such place, layer or head, an option that such a run has not, another kind of file,
            or the extra `plot` is missing.
    """
    view = view or View()
    check_view(predictor, text, view)
    if view.positions:
        _check_ending(out, (".png",))
        draw_model_positions(predictor.model, predictor.config, out, "target" if view.place == "decoder" else "source")
        return
    assert text is not None
    has_page = predictor.config.task != "forecasting"
    _check_ending(out, (".png", ".html") if has_page else (".png",), text)
    is_page = out.suffix.lower() == ".html"
    maps = maps_of(predictor, text, view, steps=is_page)
    if is_page:
        assert not isinstance(maps, SensorMaps)
        write_page(maps, out, place=view.place, layer=view.layer, head=view.head, rolled=view.rollout)
    else:
        _draw_picture(maps, out, view)


def _draw_picture(maps: AnyMaps, out: Path, view: View) -> None:
    layer, head = view.layer, view.head
    if isinstance(maps, SensorMaps):
        draw_sensor_maps(maps, out, sensor=view.sensor, layer=layer, head=head)
    elif isinstance(maps, PictureMaps):
        draw_overlay(maps, out, layer=layer, head=head, rolled=view.rollout)
    elif isinstance(maps, SoundMaps) and view.place in ("", "cross"):
        draw_sound_maps(maps, out, layer=layer, head=head)
    else:
        draw_maps(maps, out, place=view.place, layer=layer, head=head, rolled=view.rollout)


def plot_forecast(forecast: Forecast, out: Path, *, sensors: Sequence[str] = ()) -> None:
    """Draw a forecast's curves into a PNG; see `draw_forecast`."""
    _check_ending(out, (".png",))
    draw_forecast(forecast, out, sensors=sensors)


def _check_ending(out: Path, endings: tuple[str, ...], source: str | None = None) -> None:
    if out.suffix.lower() not in endings:
        raise InputError(
            f"{out} ends in {out.suffix or 'nothing'}; this picture can be a file in {' or '.join(endings)}"
        )
    check_file(out, source)
