"""What a model's state keeps beside products in int8."""

from typing import Any

import pytest
import torch
from torch import Tensor

from zhuyi.models.gpt import Gpt, GptConfig
from zhuyi.models.transformer import Transformer, TransformerConfig
from zhuyi.models.whisper import Whisper, WhisperConfig
from zhuyi.nn.packed import pack

LENGTH = 12


def whole_and_steps(model: Any, source: Tensor | None, ids: Tensor) -> tuple[Tensor, list[Tensor], Any]:
    """The logits of all positions at once, those of each step, and the state."""
    memory = None if source is None else model.encode(source)
    whole = model(ids) if source is None else model(source, ids)
    state, found = model.start(memory, ids[:, :1]), []
    for place in range(ids.shape[1]):
        logits, state = model.step(ids[:, place], state)
        found.append(logits)
    return whole, found, state


def of_gpt() -> tuple[Any, Tensor | None]:
    return Gpt(GptConfig(d_model=32, num_heads=2, num_layers=2, max_len=LENGTH, vocab_size=50)), None


def of_transformer() -> tuple[Any, Tensor | None]:
    layers = {"num_encoder_layers": 2, "num_decoder_layers": 2}
    config = TransformerConfig(d_model=32, num_heads=2, d_ff=64, source_vocab_size=50, target_vocab_size=50, **layers)
    return Transformer(config), torch.randint(3, 50, (3, 7))


def of_whisper() -> tuple[Any, Tensor | None]:
    layers = {"num_encoder_layers": 2, "num_decoder_layers": 2}
    config = WhisperConfig(
        d_model=32, num_heads=2, d_ff=64, num_mel_bins=8, window_seconds=0.2, max_len=LENGTH, vocab_size=50, **layers
    )
    return Whisper(config), torch.randn(3, 8, 20)


@pytest.mark.parametrize("made", [of_gpt, of_transformer, of_whisper])
@torch.inference_mode()
def test_keys_and_values_are_kept_in_bfloat16_beside_int8_alone(made: Any) -> None:
    """And steps are those of the whole text within what the rounding does, which is something."""
    torch.manual_seed(0)
    model, source = made()
    ids = torch.randint(3, 50, (3, LENGTH))
    model.eval().requires_grad_(False)
    _, _, state = whole_and_steps(model, source, ids)
    assert state.cache.dtype is torch.float32
    whole, steps, state = whole_and_steps(pack(model, "int8"), source, ids)
    assert state.cache.dtype is torch.bfloat16
    assert state.memory is None or state.memory.dtype is torch.bfloat16
    difference = (torch.stack(steps, 1) - whole).abs().max() / whole.std()
    assert 1e-5 < difference < 0.1
