"""A server of tiny runs of all tasks, for the tests of one file."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from tests.serving.rooms import own_runs, room
from tests.serving.tiny_runs import serving, write_all

__all__ = ["own_runs", "room"]  # fixtures of the page's tests


@pytest.fixture(scope="session")
def run_folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A run of each task, as the server is to load them."""
    folder = tmp_path_factory.mktemp("served")
    write_all(folder)
    return sorted(folder.iterdir())


@pytest.fixture(scope="session")
def address(run_folders: list[Path]) -> Iterator[str]:
    """Where a server of all runs listens; nothing that it is sent changes it."""
    with serving(run_folders) as (found, _):
        yield found


@pytest.fixture(scope="session")
def client(address: str) -> Iterator[httpx2.Client]:
    """Asks that server."""
    with httpx2.Client(base_url=address, timeout=60) as found:
        yield found
