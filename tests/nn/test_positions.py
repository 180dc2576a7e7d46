"""The positions of section 3.5, computed one by one, and what they are made for."""

import math

import pytest
import torch

from zhuyi.nn.positions import LearnedPositions, SinusoidalPositions, sinusoidal


@pytest.mark.parametrize(("max_len", "d_model"), [(1, 2), (37, 16), (600, 14), (11, 15), (5, 1), (0, 4)])
def test_sinusoidal_is_the_papers_formula(max_len: int, d_model: int) -> None:
    table = sinusoidal(max_len, d_model)
    assert table.shape == (max_len, d_model)
    assert table.dtype == torch.float32
    for pos in range(max_len):
        for i in range((d_model + 1) // 2):
            angle = pos / 10000 ** (2 * i / d_model)
            assert abs(float(table[pos, 2 * i]) - math.sin(angle)) < 1e-7
            if 2 * i + 1 < d_model:
                assert abs(float(table[pos, 2 * i + 1]) - math.cos(angle)) < 1e-7


def test_a_shift_is_a_rotation_of_each_pair() -> None:
    """Why the authors chose it: PE(pos + k) is one linear function of PE(pos), whatever pos."""
    d_model, shift = 14, 9
    table = sinusoidal(50, d_model).double()
    for i in range(d_model // 2):
        angle = shift / 10000 ** (2 * i / d_model)
        rotation = torch.tensor(
            [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]], dtype=torch.float64
        )
        pair = table[:, 2 * i : 2 * i + 2]
        torch.testing.assert_close(pair[shift:], pair[:-shift] @ rotation.T, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [SinusoidalPositions, LearnedPositions])
def test_each_position_has_its_row(kind: type[SinusoidalPositions] | type[LearnedPositions]) -> None:
    positions = kind(7, 4)
    assert positions.table.shape == (7, 4)
    assert torch.equal(positions(torch.arange(3)), positions.table[:3])
    ragged = torch.tensor([[0, 1, 2], [4, 5, 6]])
    assert torch.equal(positions(ragged)[1, 2], positions.table[6])
    assert positions(ragged).shape == (2, 3, 4)
    with pytest.raises(IndexError):
        positions(torch.tensor([7]))


def test_sinusoidal_positions_are_neither_trained_nor_stored() -> None:
    positions = SinusoidalPositions(7, 4)
    assert not list(positions.parameters())
    assert not positions.state_dict()
    assert torch.equal(positions.table, sinusoidal(7, 4))


def test_learned_positions_are_both() -> None:
    torch.manual_seed(0)
    positions = LearnedPositions(500, 16)
    assert list(positions.state_dict()) == ["table"]
    assert abs(float(positions.table.detach().std()) * 4 - 1) < 0.05  # 1 / sqrt(D), as the tables of embeddings
    positions(torch.tensor([2, 2, 5])).sum().backward()
    assert positions.table.grad is not None
    assert positions.table.grad.sum(dim=1)[:7].tolist() == [0, 0, 32, 0, 0, 16, 0]
