"""What the tasks from text to text ask of a model."""

from collections.abc import Iterator
from typing import Any, Protocol

from torch import Tensor, nn

from zhuyi.nn.embeddings import OutputProjection
from zhuyi.nn.maps import Maps


class TextToTextModel(Protocol):
    """The contracts of an encoder-decoder and of a decoder."""

    output_projection: OutputProjection

    @property
    def max_len(self) -> int: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def decoder_states(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        maps: Maps | None = None,
    ) -> Tensor: ...

    def encode(self, src: Tensor, src_mask: Tensor | None = None) -> Any: ...

    def start(self, memory: Any, prefix: Tensor, prefix_mask: Tensor | None = None) -> Any: ...

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]: ...
