"""A recipe for somebody's own data, from its counts and the machine's: the same facts, the same recipe."""

from collections.abc import Callable
from typing import Any

from zhuyi.training.automatic.given import Given
from zhuyi.training.automatic.labelled_texts import recipe_for_labelled_texts
from zhuyi.training.automatic.learning_on import LABELLING, recipe_to_learn_on
from zhuyi.training.automatic.pairs import recipe_for_pairs
from zhuyi.training.automatic.pictures import recipe_for_pictures
from zhuyi.training.automatic.recordings import recipe_for_recordings
from zhuyi.training.automatic.sensors import recipe_for_sensors
from zhuyi.training.automatic.texts import recipe_for_text
from zhuyi.training.automatic.toml import as_toml

__all__ = ["AUTOMATIC", "LABELLING", "Given", "as_toml", "recipe_to_learn_on"]

# The tasks that can be trained without a recipe: what makes one, as plain values, and why each choice was made.
AUTOMATIC: dict[str, Callable[[Given], tuple[dict[str, Any], list[str]]]] = {
    "translation": recipe_for_pairs,
    "language-modelling": recipe_for_text,
    "text-classification": recipe_for_labelled_texts,
    "image-classification": recipe_for_pictures,
    "forecasting": recipe_for_sensors,
    "speech-recognition": recipe_for_recordings,
}
