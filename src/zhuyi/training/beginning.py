"""What a run takes over from another, with which it begins: tokenizers and weights."""

from torch import nn

from zhuyi.atomic import replacing
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


def take_weights(model: nn.Module, other: RunFolder, folder: RunFolder) -> str:
    """Begin with another run's weights, of the same sizes and over the same pieces; of heads, those that fit.

    Returns: what was done, to say to people.
    Raises: InputError: the tokenizers differ, or weights that must fit do not.
    """
    for path in sorted(folder.path.glob("tokenizer*.json")):
        theirs = other.path / path.name
        if not theirs.exists() or theirs.read_bytes() != path.read_bytes():
            raise InputError(
                f"train.init = {other.path}: its {path.name} is not this run's; the pieces must be the same"
            )
    own, found = named_weights(model), other.read_weights()
    if hasattr(model, "fitted"):  # it knows how to take weights that were made for inputs of another size
        found = model.fitted(found)
    heads = tuple(f"{name}." for name in getattr(model, "HEADS", ()))
    fits = {name for name in own.keys() & found.keys() if own[name].shape == found[name].shape}
    anew = {name: weight for name, weight in own.items() if name.startswith(heads) and name not in fits}
    taken = {name: weight for name, weight in found.items() if name in fits or not name.startswith(heads)}
    set_weights(model, taken | anew, other.weights_path)
    fresh = " and ".join(dict.fromkeys(name.partition(".")[0] for name in anew))
    return f"Beginning with the weights of {other.path}{f', and a new {fresh}' if fresh else ''}."
