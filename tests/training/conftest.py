"""Pairs to train on, and one thread: the tensors are too small to share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.tiny import number_pairs, write_pairs


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighty different pairs of numbers; six of them are held out."""
    return write_pairs(tmp_path_factory.mktemp("pairs") / "numbers.tsv", number_pairs(80, digits=(2, 3, 4)))
