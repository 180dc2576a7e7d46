"""Each norm by its formula."""

import torch

from zhuyi.nn.norm import NORMS


def test_formulas() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 3, 7, dtype=torch.float64) + 1, torch.randn(7, dtype=torch.float64)
    variance = (x - x.mean(dim=-1, keepdim=True)).square().mean(dim=-1, keepdim=True)
    expected = {
        "layer": (x - x.mean(dim=-1, keepdim=True)) / (variance + 0.1).sqrt() * weight,
        "rms": x / (x.square().mean(dim=-1, keepdim=True) + 0.1).sqrt() * weight,
    }
    assert NORMS.keys() == expected.keys()
    for kind, make in NORMS.items():
        norm = make(7, eps=0.1).double()
        assert {name for name, _ in norm.named_parameters()} == {"weight"} | ({"bias"} if kind == "layer" else set())
        norm.weight.data.copy_(weight)
        torch.testing.assert_close(norm(x), expected[kind])
