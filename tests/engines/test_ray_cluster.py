"""Sharing out a cluster's cores and graphics processors, and what is said where there is no Ray to be had."""

import socket
import sys
from pathlib import Path

import pytest

from zhuyi.engines.ray_cluster import Machine, Share, ray_workers, share_out
from zhuyi.engines.work import Job
from zhuyi.errors import InputError

JOB = Job("run", {}, None, {"n_best": 1}, False)


@pytest.mark.parametrize(
    ("machines", "count", "wanted"),
    [
        ([(8, 0)], 3, (3, 2, 0)),
        ([(8, 0)], None, (1, 8, 0)),
        ([(6, 0), (6, 0)], 3, (3, 3, 0)),  # with 4 cores each the third would have no place
        ([(4, 0), (16, 0)], None, (2, 8, 0)),  # both on the larger one
        ([(0, 0), (5, 0)], None, (1, 5, 0)),
        ([(8, 2), (8, 1)], None, (3, 4, 1)),
        ([(8, 2), (32, 0)], 2, (2, 4, 1)),  # where the graphics processors are
        ([(8, 2), (8, 0)], 4, (4, 4, 0)),  # not enough of them for all
    ],
)
def test_every_worker_has_its_place(
    machines: list[tuple[int, int]], count: int | None, wanted: tuple[int, int, int]
) -> None:
    workers, cores, gpus = wanted
    assert share_out([Machine(*each) for each in machines], count) == Share(workers, Machine(cores, gpus))


@pytest.mark.parametrize(("machines", "room"), [([(2, 0), (1, 0)], 3), ([], 0), ([(0, 0)], 0)])
def test_more_workers_than_cores_are_refused(machines: list[tuple[int, int]], room: int) -> None:
    with pytest.raises(InputError, match=f"--workers 4: this Ray has room for {room};"):
        share_out([Machine(*each) for each in machines], 4)


def test_resources_are_rays_own_words() -> None:
    assert Machine.of({"CPU": 4.0, "GPU": 1.0, "memory": 1e9}) == Machine(4, 1)
    assert Machine.of({"memory": 1e9}) == Machine(0, 0)


def refusal(address: str | None, files: list[Path]) -> str:
    with pytest.raises(InputError) as error, ray_workers(JOB, files, 1, address):
        raise AssertionError("there were workers")
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("address", [None, "127.0.0.1:6379"])
def test_without_ray_it_is_said_what_to_install(
    address: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert refusal(address, []).endswith('pip install "zhuyi[ray]"')


def test_an_address_of_another_form_is_refused() -> None:
    assert "expected HOST:PORT" in refusal("somewhere", [])


@pytest.mark.ray
def test_where_nothing_answers_it_is_said_at_once() -> None:
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert f"--address 127.0.0.1:{port}: no Ray to be joined there" in refusal(f"127.0.0.1:{port}", [])
