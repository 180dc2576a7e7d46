"""Section 3.4: scaled on the way in, the same table on the way out."""

import math

import torch

from zhuyi.nn.embeddings import OutputProjection, TokenEmbedding


def test_a_row_for_each_id_times_the_root_of_the_width() -> None:
    embedding = TokenEmbedding(11, 7)
    ids = torch.tensor([[0, 10, 3], [3, 3, 0]])
    x = embedding(ids)
    assert x.shape == (2, 3, 7)
    for row in range(2):
        for column in range(3):
            torch.testing.assert_close(x[row, column], embedding.weight[ids[row, column]] * math.sqrt(7))


def test_unscaled_it_is_the_row() -> None:
    embedding = TokenEmbedding(11, 7, scaled=False)
    ids = torch.tensor([[0, 10, 3]])
    assert torch.equal(embedding(ids), embedding.weight[ids])


def test_scaled_embeddings_begin_with_variance_one() -> None:
    torch.manual_seed(0)
    embedding = TokenEmbedding(1000, 64)
    assert abs(float(embedding(torch.arange(1000)).detach().std()) - 1) < 0.02


def test_no_id_is_special() -> None:
    embedding = TokenEmbedding(5, 3)
    embedding(torch.tensor([0, 0, 4])).sum().backward()
    assert embedding.weight.grad is not None
    torch.testing.assert_close(embedding.weight.grad[:, 0], torch.tensor([2.0, 0, 0, 0, 1.0]) * math.sqrt(3))


def test_output_projection_is_the_product_with_the_table() -> None:
    embedding = TokenEmbedding(11, 7)
    projection = OutputProjection(embedding.weight)
    x = torch.randn(2, 3, 7)
    torch.testing.assert_close(projection(x), torch.einsum("btd,vd->btv", x, embedding.weight))
    assert projection.weight is embedding.weight


def test_a_tied_table_gets_both_gradients() -> None:
    embedding = TokenEmbedding(4, 2)
    projection = OutputProjection(embedding.weight)
    x = torch.tensor([[1.0, 2.0]])
    (projection(x).sum() + embedding(torch.tensor([1])).sum()).backward()
    expected = x.expand(4, 2).clone()  # of the output; then sqrt(2) more for the id looked up
    expected[1] += math.sqrt(2)
    torch.testing.assert_close(embedding.weight.grad, expected)
