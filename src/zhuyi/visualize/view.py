"""What a reader wants to see of a run, and which of it each kind of run can show."""

from dataclasses import dataclass, fields

from zhuyi.errors import InputError
from zhuyi.predict import (
    Classifier,
    Forecaster,
    Generator,
    PictureClassifier,
    PictureMaps,
    SensorMaps,
    SoundMaps,
    TextMaps,
    Transcriber,
    Translator,
    WordFiller,
)

Looking = Translator | Generator | WordFiller | Classifier | PictureClassifier | Transcriber | Forecaster
AnyMaps = TextMaps | SoundMaps | PictureMaps | SensorMaps


@dataclass(frozen=True)
class View:
    """What is to be seen.

    Args:   target: a translation of the text, or what is said in a recording; None is the model's own.
            place: encoder, decoder or cross; empty: cross, or the only one that the model has. Of the positions,
            decoder means the target's.
            layer, head: from 1; None is the last layer, and the heads' mean beside each head.
            positions: the positional encoding in the place of a text's maps.
            rollout: what all layers together looked at, alone.
            sensor, begin, start: of a run that forecasts, whose text is a table: which sensor, the first step to
            come, and the time of the first row, where there is no column of times.
            task, prefix: as `Translator.attention` takes them.
    """

    target: str | None = None
    place: str = ""
    layer: int | None = None
    head: int | None = None
    positions: bool = False
    rollout: bool = False
    sensor: str = ""
    begin: str = ""
    start: str = ""
    task: str | None = None
    prefix: str | None = None

    def given(self) -> list[str]:
        """The names of what was asked for."""
        return [field.name for field in fields(self) if getattr(self, field.name) != field.default]


_OF_TEXTS = frozenset({"place", "layer", "head", "positions", "rollout"})
# What can be asked of each kind of run, and what its text argument is.
_OPTIONS: dict[type, tuple[frozenset[str], str]] = {
    Translator: (_OF_TEXTS | {"target", "task", "prefix"}, "a text"),
    Generator: (_OF_TEXTS, "a text"),
    WordFiller: (_OF_TEXTS, "a text"),
    Classifier: (_OF_TEXTS, "a text"),
    PictureClassifier: (frozenset({"layer", "head", "positions", "rollout"}), "a picture's file"),
    Transcriber: (frozenset({"target", "place", "layer", "head", "positions"}), "a recording's file"),
    Forecaster: (frozenset({"layer", "head", "sensor", "begin", "start"}), "a table of recent measurements"),
}


def check_view(predictor: Looking, text: str | None, view: View) -> None:
    """Refuse what a run cannot show.

    Raises: InputError: an option does not apply to such a run, two exclude each other, or there is no text.
    """
    known, wanted = _OPTIONS[type(predictor)]
    if unknown := [f"--{name}" for name in view.given() if name not in known]:
        does, them = ("does", "it") if len(unknown) == 1 else ("do", "them")
        raise InputError(f"{', '.join(unknown)} {does} not apply to a run of {predictor.config.task}; leave {them} out")
    if view.rollout and not (view.layer is None and view.head is None):
        raise InputError("--rollout is of all layers and heads; leave --layer and --head out")
    if view.positions and view.rollout:
        raise InputError("choose one of --positions and --rollout")
    if text is None and not view.positions:
        raise InputError(
            f"there is nothing to look into; give {wanted}{', or --positions' if 'positions' in known else ''}"
        )


def maps_of(predictor: Looking, text: str, view: View, *, steps: bool = False) -> AnyMaps:
    """Where the model looked.

    Args:   steps: of what writes a text, tell also how it came about.
    """
    if isinstance(predictor, Translator):
        return predictor.attention(text, view.target, task=view.task, prefix=view.prefix, steps=steps)
    if isinstance(predictor, Transcriber):
        return predictor.attention(text, view.target, steps=steps)
    if isinstance(predictor, Forecaster):
        return predictor.attention(predictor.read(text, start=view.start), begin=view.begin)
    if isinstance(predictor, Generator):
        return predictor.attention(text, steps=steps)
    return predictor.attention(text)
