"""A model's folder by its name on the Hugging Face hub."""

import re
from pathlib import Path

from zhuyi.errors import InputError

WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
PICKLED = ("pytorch_model*.bin", "pytorch_model*.bin.index.json")
FILES = ("*.json", "*.txt", "*.model", "*.spm", "*/config.json")
NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def fetch(source: str | Path) -> Path:
    """The folder itself, or where the hub's folder of that name has been brought to.

    Raises: InputError: neither, or the package that brings it is not installed.
    """
    if Path(source).exists() or not NAME.fullmatch(str(source)):
        return Path(source)
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError:
        raise InputError(
            f'{source}: no such folder; to take it as a name on the hub: pip install "zhuyi[hf]"'
        ) from None
    try:
        path = Path(snapshot_download(str(source), allow_patterns=[*FILES, *WEIGHTS]))
        if not any(path.glob("*.safetensors")):
            path = Path(snapshot_download(str(source), allow_patterns=[*FILES, *PICKLED]))
    except LocalEntryNotFoundError:  # said at length, of which nothing but this helps
        raise InputError(f"{source}: no such folder, and the hub cannot be reached to look for that name") from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{source}: no such folder, and the hub does not give it: {reason}") from None
    return path
