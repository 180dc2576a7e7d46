"""One trainer's process, of those that learn what comes next in a text.

    python -m contest.text_trainers TOOL -

Every tool gets the same ids through a model of the same shape, its norms before its sublayers, with one table for
tokens and output, clips the gradients' norm at 1 and moves the weights by AdamW.
"""

import contextlib
import copy
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contest.trainers import CLIP_NORM, LEARNING_RATE, Steps, Trainer, answer, count, usual_step
from contest.worker import Machine, serve


@dataclass(frozen=True)
class TextShape:
    """A GPT's sizes, and its batch."""

    d_model: int
    num_heads: int
    d_ff: int
    num_layers: int
    vocab_size: int
    dropout: float
    bias: bool
    batch: int
    length: int

    def ids(self) -> tuple[Tensor, Tensor]:
        """Ids, and what follows each; the same in every process. Shape: each (B, T)."""
        rng = random.Random(1)
        rows = torch.tensor(
            [[rng.randrange(self.vocab_size) for _ in range(self.length + 1)] for _ in range(self.batch)]
        )
        return rows[:, :-1], rows[:, 1:]


def gpt_config(shape: TextShape) -> Any:
    """The shape as zhuyi's model has it."""
    from zhuyi.models.gpt import GptConfig

    return GptConfig(
        d_model=shape.d_model,
        num_heads=shape.num_heads,
        d_ff=shape.d_ff,
        num_layers=shape.num_layers,
        dropout=shape.dropout,
        attention_dropout=shape.dropout,
        embedding_dropout=shape.dropout,
        bias=shape.bias,
        max_len=shape.length,
        vocab_size=shape.vocab_size,
    )


def zhuyi(shape: TextShape, setting: dict[str, Any]) -> Trainer:
    """A step as zhuyi's loop takes it."""
    from zhuyi.config import TrainConfig
    from zhuyi.machine import keep_freed_memory
    from zhuyi.models.gpt import Gpt
    from zhuyi.nn.loss import projected_cross_entropy
    from zhuyi.training.optimizers import MasterAdam

    keep_freed_memory()
    model = Gpt(gpt_config(shape))
    compute = copy.deepcopy(model).bfloat16() if setting["precision"] == "bfloat16" else model
    optimizer = MasterAdam(model, compute, TrainConfig(max_steps=1))
    ids, expected = shape.ids()
    learned = torch.ones_like(ids, dtype=torch.bool)

    def step() -> float:
        states = compute.decoder_states(ids)[learned]
        loss, _ = projected_cross_entropy(states, compute.output_projection.weight, expected[learned])
        loss.backward()
        optimizer.step(LEARNING_RATE, 1 / len(states), CLIP_NORM)
        return float(loss.detach()) / len(states)

    return Trainer(step, count(model))


class TorchEncoder(nn.Module):
    """What a user of torch writes: its nn.TransformerEncoder, causal, between embeddings and a tied projection."""

    def __init__(self, shape: TextShape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocab_size, shape.d_model)
        self.positions = nn.Embedding(shape.length, shape.d_model)
        for table in (self.embedding, self.positions):
            nn.init.normal_(table.weight, std=0.02)
        self.dropout = nn.Dropout(shape.dropout)
        layer = nn.TransformerEncoderLayer(
            shape.d_model,
            shape.num_heads,
            shape.d_ff,
            dropout=shape.dropout,
            activation=partial(F.gelu, approximate="tanh"),
            batch_first=True,
            norm_first=True,
            bias=shape.bias,
        )
        norm = nn.LayerNorm(shape.d_model, bias=shape.bias)
        self.encoder = nn.TransformerEncoder(layer, shape.num_layers, norm, enable_nested_tensor=False)
        self.register_buffer("causal", nn.Transformer.generate_square_subsequent_mask(shape.length))

    def forward(self, ids: Tensor) -> Tensor:
        """Logits (B, T, V)."""
        places = torch.arange(ids.shape[1])
        x = self.dropout(self.embedding(ids) + self.positions(places))
        return F.linear(self.encoder(x, mask=self.causal, is_causal=True), self.embedding.weight)


def torch_encoder(shape: TextShape, setting: dict[str, Any]) -> Trainer:
    """A step of the model above."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    model = TorchEncoder(shape)
    ids, expected = shape.ids()

    def logits() -> Tensor:
        plain = sdpa_kernel(SDPBackend.MATH) if setting["attention"] == "plain" else contextlib.nullcontext()
        with plain:
            return model(ids)

    return Trainer(usual_step(model, logits, expected, setting["precision"], smoothing=0.0), count(model))


BUILDERS: dict[str, Callable[[TextShape, dict[str, Any]], Trainer]] = {
    "zhuyi": zhuyi,
    "torch nn.TransformerEncoder": torch_encoder,
}
TOOLS: dict[str, Callable[[str], Any]] = {
    **{name: lambda _, build=build: Steps(build, TextShape) for name, build in BUILDERS.items()},
    "machine": Machine,
}

if __name__ == "__main__":
    serve(TOOLS, answer)
