"""Target tokens a second of a training step: zhuyi and torch's own nn.Transformer, in turn, on the same shape.

    python benchmarks/training.py [--rounds 5]

3 + 3 layers, d_model 256, d_ff 1,024, 8,000 words, 128 pairs of 26 and 26 tokens, dropout 0.1, label smoothing 0.1,
AdamW. Each in float32 and bfloat16 (torch by autocast, as its users do); prints medians and the ratio.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from zhuyi.config import TrainConfig
from zhuyi.models.transformer import Transformer, TransformerConfig
from zhuyi.nn.embeddings import TokenEmbedding
from zhuyi.nn.loss import projected_cross_entropy
from zhuyi.nn.positions import sinusoidal
from zhuyi.training.optimizers import MasterAdam

B, T, D, V = 128, 26, 256, 8000
STEPS = 4


class Peer(nn.Module):
    """What a user of torch writes: its nn.Transformer between an embedding and a tied projection."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = TokenEmbedding(V, D)
        self.transformer = nn.Transformer(D, 4, 3, 3, 1024, dropout=0.1, batch_first=True)
        self.register_buffer("positions", sinusoidal(T, D))
        self.register_buffer("causal", nn.Transformer.generate_square_subsequent_mask(T))

    def forward(self, src: torch.Tensor, tgt: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        """Logits (B, T, V)."""
        hidden = self.transformer(
            self.embedding(src) + self.positions,
            self.embedding(tgt) + self.positions,
            tgt_mask=self.causal,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
            tgt_is_causal=True,
        )
        return F.linear(hidden, self.embedding.weight)


def main() -> None:
    """Measure all four in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.manual_seed(0)
    steps = {
        ("zhuyi", "float32"): our_step(torch.float32),
        ("torch nn.Transformer", "float32"): peer_step(autocast=False),
        ("zhuyi", "bfloat16"): our_step(torch.bfloat16),
        ("torch nn.Transformer", "bfloat16"): peer_step(autocast=True),
    }
    speeds: dict[tuple[str, str], list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            started = time.perf_counter()
            for _ in range(STEPS):
                step()
            if turn:
                speeds[name].append(STEPS * B * T / (time.perf_counter() - started))
    best = max(statistics.median(speeds[name]) for name in steps if name[0] != "zhuyi")
    print(f"{'':22} {'precision':>9} {'tokens/s':>9} {'least':>7} {'most':>7} {'to best peer':>13}")
    for name, found in speeds.items():
        middle = statistics.median(found)
        print(f"{name[0]:22} {name[1]:>9} {middle:9.0f} {min(found):7.0f} {max(found):7.0f} {middle / best:13.2f}")


def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Source, target and which source tokens are real."""
    return torch.randint(4, V, (B, T)), torch.randint(4, V, (B, T)), torch.ones(B, T, dtype=torch.bool)


def our_step(dtype: torch.dtype) -> Callable[[], None]:
    """A step as zhuyi's loop takes it."""
    config = TransformerConfig(
        d_model=D,
        num_heads=4,
        d_ff=1024,
        num_encoder_layers=3,
        num_decoder_layers=3,
        source_vocab_size=V,
        target_vocab_size=V,
    )
    model = Transformer(config)
    compute = copy.deepcopy(model).to(dtype) if dtype != torch.float32 else model
    optimizer = MasterAdam(model, compute, TrainConfig(max_steps=1))
    src, tgt, mask = data()

    def step() -> None:
        states = compute.decoder_states(src, tgt, mask, mask)[mask]
        loss, _ = projected_cross_entropy(states, compute.output_projection.weight, tgt[mask], smoothing=0.1)
        loss.backward()
        optimizer.step(1e-4, 1 / (B * T), 1.0)

    return step


def peer_step(*, autocast: bool) -> Callable[[], None]:
    """A step of the peer."""
    model = Peer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    src, tgt, mask = data()

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = model(src, tgt, ~mask)
            loss = F.cross_entropy(logits.reshape(-1, V), tgt.reshape(-1), label_smoothing=0.1)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


if __name__ == "__main__":
    main()
