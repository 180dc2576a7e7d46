"""The recorder that is passed down a forward pass to collect attention weights."""

from torch import Tensor


class Maps:
    """Attention weights by the place they come from: `encoder.0.self`, `decoder.0.self`, `decoder.0.cross`.

    Shape: each (B, H, T, S).
    """

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}

    def add(self, name: str, weights: Tensor) -> None:
        self.weights[name] = weights.detach()
