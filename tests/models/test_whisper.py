"""Whisper: what its parts are by the paper, beside what the contract of all models asks."""

import math
from dataclasses import replace

import pytest
import torch

from zhuyi.models.whisper import PUBLISHED_SIZES, Whisper, WhisperConfig, published_names, sines_then_cosines
from zhuyi.nn.linear import Linear

SMALL = WhisperConfig(
    d_model=14,
    num_heads=2,
    num_encoder_layers=1,
    num_decoder_layers=2,
    num_mel_bins=5,
    window_seconds=0.26,
    vocab_size=29,
)


@pytest.mark.parametrize(
    ("size", "vocab_size", "millions"), [("tiny", 51865, 37.8), ("base", 51865, 72.6), ("small", 51865, 241.7)]
)
def test_published_sizes_have_the_papers_parameters(size: str, vocab_size: int, millions: float) -> None:
    """Table 1 says 39, 74 and 244; the fixed positions of the encoder are among them."""
    with torch.device("meta"):
        config = replace(PUBLISHED_SIZES[size], vocab_size=vocab_size, window_seconds=0.02)
        model = Whisper(config)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert (count + 1500 * config.d_model) / 1e6 == pytest.approx(millions, abs=0.06)


def test_positions_of_the_encoder() -> None:
    table = sines_then_cosines(50, 12)
    for pos, i in ((0, 0), (3, 2), (49, 5)):
        frequency = 10000 ** (-i / 5)
        assert float(table[pos, i]) == pytest.approx(math.sin(pos * frequency), abs=1e-5)
        assert float(table[pos, 6 + i]) == pytest.approx(math.cos(pos * frequency), abs=1e-5)
    assert torch.equal(
        Whisper(replace(SMALL, half_positions=True)).encoder_positions, sines_then_cosines(13, 14).half().float()
    )


def test_keys_have_no_bias() -> None:
    model = Whisper(SMALL)
    for name, parameter in model.named_parameters():
        if name.endswith("w_qkv.bias"):
            assert parameter.shape == (2 * 14,)
        if name.endswith("w_kv.bias"):
            assert parameter.shape == (14,)
    layer = Linear(3, 6, matrices=3, biased=(True, False, True))
    torch.nn.init.normal_(layer.bias)
    expected = torch.cat([layer.bias[:2], torch.zeros(2), layer.bias[2:]])
    torch.testing.assert_close(layer(torch.zeros(1, 3))[0], expected)


def test_every_weight_has_a_published_name_of_its_own() -> None:
    names = [part for name, _ in Whisper(SMALL).named_parameters() for part in published_names(name)]
    assert len(names) == len(set(names))
    assert not any(name.endswith("k_proj.bias") for name in names)


def test_other_windows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"5 bins by 26 frames"):
        Whisper(SMALL).encode(torch.zeros(1, 5, 28))


@pytest.mark.parametrize(
    ("wrong", "named"), [({"window_seconds": 0.03}, "window_seconds"), ({"d_model": 15, "num_heads": 3}, "even"),
                         ({"num_heads": 4}, "num_heads"), ({"dropout": 1.0}, "dropout"), ({"max_len": 1}, "max_len")]
)  # fmt: skip
def test_wrong_values_are_refused(wrong: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        replace(SMALL, **wrong)
