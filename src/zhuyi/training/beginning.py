"""What a run takes over from another, with which it begins: tokenizers and weights."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from zhuyi.atomic import replacing
from zhuyi.config import RunConfig
from zhuyi.errors import InputError
from zhuyi.run_folder import PUBLISHED, RunFolder, named_weights, set_weights


def take_tokenizers(other: RunFolder, folder: RunFolder) -> None:
    """Copy another run's tokenizers, where the folder has none of that name."""
    for path in sorted((*other.path.glob("tokenizer*.json"), *other.path.glob(f"{PUBLISHED}/*"))):
        own = folder.path / path.relative_to(other.path)
        if not own.exists():
            own.parent.mkdir(exist_ok=True)
            with replacing(own) as unfinished:
                unfinished.write_bytes(path.read_bytes())


def take_sensors(config: RunConfig, other: RunFolder) -> RunConfig:
    """The config with another run's sensors, in its order: weights know a sensor by its place alone.

    Raises: InputError: the config names others, or says where vectors for them come from.
    """
    data = config.data
    theirs = getattr(other.read_config().data, "sensors", ())
    if not hasattr(data, "sensors") or not theirs:
        return config
    if data.edges or data.vectors:
        raise InputError(
            f"train.init = {other.path} brings its sensors' vectors along; leave data.edges (--edges) and "
            "data.vectors out"
        )
    if data.sensors and data.sensors != theirs:
        raise InputError(
            f"train.init = {other.path}: data.sensors are not its {len(theirs):,} sensors in its order; leave them out"
        )
    return replace(config, data=replace(data, sensors=theirs))


def take_weights(model: nn.Module, other: RunFolder, folder: RunFolder, labels: Sequence[str] = ()) -> list[str]:
    """Begin with another run's weights, of the same sizes and over the same pieces; of heads, those that fit.

    Args:   labels: this run's, in its order. What the other run says of each is taken by the label's name; of other
            labels nothing is.
    Returns: the names of the weights that began anew.
    Raises: InputError: the tokenizers differ, or weights that must fit do not.
    """
    for path in sorted(folder.path.glob("tokenizer*.json")):
        theirs = other.path / path.name
        if not theirs.exists() or theirs.read_bytes() != path.read_bytes():
            raise InputError(
                f"train.init = {other.path}: its {path.name} is not this run's; the pieces must be the same"
            )
    own, found = named_weights(model), other.read_weights()
    fitted = getattr(model, "fitted", None)
    if fitted is not None:  # it knows how to take weights that were made for inputs of another size
        found = fitted(found)
    heads = tuple(f"{name}." for name in getattr(model, "HEADS", ()))
    if labels:
        found = _of_labels(model, found, getattr(other.read_config().data, "labels", ()), labels)
    fits = {name for name in own.keys() & found.keys() if own[name].shape == found[name].shape}
    anew = {name: weight for name, weight in own.items() if name.startswith(heads) and name not in fits}
    taken = {name: weight for name, weight in found.items() if name in fits or not name.startswith(heads)}
    set_weights(model, taken | anew, other.weights_path)
    return list(anew)


def _of_labels(
    model: nn.Module, found: dict[str, Tensor], theirs: Sequence[str], labels: Sequence[str]
) -> dict[str, Tensor]:
    """Another run's weights with those of labels in this run's order, or without them where the labels are others."""
    of_labels = tuple(f"{name}." for name in getattr(model, "LABEL_HEADS", ()))
    if sorted(theirs) != sorted(labels):
        return {name: weight for name, weight in found.items() if not name.startswith(of_labels)}
    order = [list(theirs).index(label) for label in labels]
    return {name: weight[order] if name.startswith(of_labels) else weight for name, weight in found.items()}


def described(other: RunFolder, anew: Sequence[str]) -> str:
    """What a run begins with, for people."""
    fresh = " and ".join(dict.fromkeys(name.partition(".")[0] for name in anew))
    return f"Beginning with the weights of {other.path}{f', and a new {fresh}' if fresh else ''}."
