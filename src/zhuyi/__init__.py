"""zhuyi (注意, "to pay attention"): train Transformers on your own data, look inside them, put them to work."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# The public names and where they live. They are imported on first use, so that `import zhuyi` is instant
# and `zhuyi --help` need not wait for torch.
_PUBLIC = {
    "load": "zhuyi.predict",
    "Translator": "zhuyi.predict",
    "Translation": "zhuyi.predict",
    "Generator": "zhuyi.predict",
    "attend": "zhuyi.nn.attention",
    "Transformer": "zhuyi.models.transformer",
    "TransformerConfig": "zhuyi.models.transformer",
    "InputError": "zhuyi.errors",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'zhuyi' has no attribute {name!r}; it has {', '.join(sorted(_PUBLIC))}")
    return getattr(import_module(_PUBLIC[name]), name)
