"""The maps of one forward pass, by the place that they come from."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from torch import Tensor

from zhuyi.errors import InputError
from zhuyi.predict import PictureMaps, SoundMaps, TextMaps
from zhuyi.visualize.rollout import rollout

Place = Literal["encoder", "decoder", "cross"]
PLACES: tuple[Place, ...] = get_args(Place)
_NAMES = {"encoder": r"encoder\.(\d+)\.self", "decoder": r"decoder\.(\d+)\.self", "cross": r"decoder\.(\d+)\.cross"}


@dataclass(frozen=True, eq=False)
class PlaceMaps:
    """The maps of one place, from the first layer to the last, and the tokens they belong to.

    Shape: layers: each (H, T, S), for T rows, the tokens that look, and S columns, those that are looked at.
    """

    place: Place
    rows: list[str]
    columns: list[str]
    layers: list[np.ndarray]

    def layer(self, number: int | None) -> np.ndarray:
        """One layer's maps, counted from 1; None is the last.

        Raises: InputError: there is no such layer.
        """
        if number is not None and not 1 <= number <= len(self.layers):
            raise InputError(f"there is no layer {number} in the {self.place}; it has {_from_1_to(len(self.layers))}")
        return self.layers[-1 if number is None else number - 1]

    def head(self, layer: int | None, number: int | None) -> np.ndarray:
        """One head's map, counted from 1; None is the mean of all.

        Raises: InputError: there is no such layer or head.
        """
        heads = self.layer(layer)
        if number is not None and not 1 <= number <= len(heads):
            raise InputError(f"there is no head {number} in the {self.place}; a layer has {_from_1_to(len(heads))}")
        return heads.mean(axis=0) if number is None else heads[number - 1]

    def rollout(self) -> np.ndarray:
        """What all layers together looked at. Shape: returns (T, T)."""
        return rollout(self.layers)


def _from_1_to(count: int) -> str:
    return f"{count}, counted from 1" if count > 1 else "one, number 1"


def places(maps: TextMaps | SoundMaps | PictureMaps) -> list[PlaceMaps]:
    """Sort maps by place: encoder, decoder, cross, those that are there.

    Of sound and pictures the frames and patches have no names; a sound's encoder, a matrix of all frames, is left out.
    """
    if isinstance(maps, PictureMaps):
        return [PlaceMaps("encoder", [], [], _layers(maps.maps, "encoder"))]
    if isinstance(maps, SoundMaps):
        written = list(maps.tokens)
        sides = {"decoder": (written, list(maps.read_tokens)), "cross": (written, list[str]())}
        found = [PlaceMaps(place, *sides[place], _layers(maps.maps, place)) for place in PLACES if place in sides]
        return [each for each in found if each.layers]
    source, target = list(maps.source_tokens), list(maps.target_tokens)
    tokens = {"encoder": (source, source), "decoder": (target, list(maps.read_tokens)), "cross": (target, source)}
    found = [PlaceMaps(place, *tokens[place], _layers(maps.maps, place)) for place in PLACES]
    return [each for each in found if each.layers]


def _layers(maps: Mapping[str, Tensor], place: Place) -> list[np.ndarray]:
    numbered = {int(match[1]): name for name in maps if (match := re.fullmatch(_NAMES[place], name))}
    return [maps[numbered[number]].numpy() for number in sorted(numbered)]


def choose_place(found: Sequence[PlaceMaps], place: str = "", *, rolled: bool = False) -> PlaceMaps:
    """The maps of one place; where none is named, what the decoder sees of the source, or all that there is.

    Args:   rolled: to be rolled out, which self-attention alone can be.
    Raises: InputError: there are none of that place.
    """
    if rolled and (place == "cross" or all(maps.place == "cross" for maps in found)):
        raise InputError("a rollout is of self-attention, of which every layer reads what the one before it wrote")
    there = {maps.place: maps for maps in found if not (rolled and maps.place == "cross")}
    if not there:
        raise InputError("this model has no attention to show")
    if not place:
        return there.get("cross") or next(iter(there.values()))
    for name, maps in there.items():
        if name == place:
            return maps
    raise InputError(f"there are no maps of the place {place!r}; choose from {', '.join(there)}")
