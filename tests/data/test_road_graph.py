"""Edges and vectors of sensors, and node2vec."""

import gzip
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from zhuyi.data.road_graph import RETURN, Edges, _walks, node2vec, read_edges, read_vectors
from zhuyi.errors import InputError

SENSORS = ("773869", "767541", "x1")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "edges.csv"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


@pytest.mark.parametrize(
    "text",
    [
        "773869,767541,0.5\nx1,773869,2\n",
        "from,to,weight\n773869,767541,0.5\n\nx1,773869,2\n",
        "773869\t767541\t0.5\nx1\t773869\t2.0\n",
        "0 1 0.5\n2 0 2\n1 2 0\n",  # by the columns' numbers; an edge of no weight is none
    ],
)
def test_edges(write: Callable[[str], str], text: str) -> None:
    edges = read_edges(write(text), SENSORS)
    assert (edges.sources.tolist(), edges.targets.tolist(), edges.weights.tolist()) == ([0, 2], [1, 0], [0.5, 2.0])


def test_edges_without_weights(write: Callable[[str], str]) -> None:
    assert read_edges(write("from to\nx1 773869\n"), SENSORS).weights.tolist() == [1.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "edges.csv: no edge in it"),
        ("773869,767541\nx1,y2\n", "edges.csv:2: there is no sensor 'y2'; the table has 773869, 767541, x1"),
        ("0,1\n1,3\n", "edges.csv:2: there is no sensor '3'"),
        ("773869,767541,far\nx1,773869,1\n773869,x1,near\n", "edges.csv:1: '773869 767541 far' is no edge"),
        ("773869,767541,1,2\n", "edges.csv:1: .* is no edge; expected FROM,TO or FROM,TO,WEIGHT"),
        ("773869,767541,-1\n", "edges.csv:1: an edge cannot weigh -1"),
        ("773869,767541,0\n", "edges.csv: no edge in it"),
    ],
)
def test_wrong_edges_are_refused(write: Callable[[str], str], text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_edges(write(text), SENSORS)


def test_vectors_in_any_order(write: Callable[[str], str]) -> None:
    wanted = [[1.0, 2.0], [3.0, -4.5], [0.25, 1e-3]]
    for text in ("3 2\n2 0.25 1e-3\n0 1 2\n1 3 -4.5\n", "x1,0.25,0.001\n773869,1,2\n767541,3,-4.5\n"):
        found = read_vectors(write(text), SENSORS)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3 2\n0 1 2\n1 3 4\n", "no vector for the sensor 'x1'"),
        ("0 1 2\n0 3 4\n", ":2: the sensor '0' has a vector already"),
        ("0 1 2 3\n1 3 4\n", ":2: expected a sensor's name and 3 numbers"),
        ("0 1 2\n7 3 4\n", ":2: there is no sensor '7'"),
        ("3 2\n", "no vector in it"),
    ],
)
def test_wrong_vectors_are_refused(write: Callable[[str], str], text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_vectors(write(text), SENSORS)


def two_towns() -> Edges:
    """Two rings of five, one road between them."""
    pairs = [(town + i, town + (i + 1) % 5) for town in (0, 5) for i in range(5)] + [(0, 5)]
    both = pairs + [(target, source) for source, target in pairs]
    sources, targets = np.array(both).T
    return Edges(sources, targets, np.ones(len(both)))


def test_walks_keep_to_the_edges_and_their_weights() -> None:
    edges = Edges(np.array([0, 0, 1, 2, 2]), np.array([1, 2, 0, 0, 3]), np.array([3.0, 1.0, 1.0, 1.0, 1.0]))
    allowed = set(zip(edges.sources.tolist(), edges.targets.tolist(), strict=True))
    found = list(_walks(edges, 4, seed=1))
    assert all((a, b) in allowed for walk in found for a, b in pairwise(walk))
    assert all(walk[-1] == 3 for walk in found if 3 in walk)  # no road leads on from there
    firsts = [walk[1] for walk in found if walk[0] == 0]
    assert 0.5 < firsts.count(1) / len(firsts) < 1.0  # of 3 to 1
    # From 2, having come from 0: back by 1 / p against 1.
    after = [c for walk in found for a, b, c in zip(walk, walk[1:], walk[2:], strict=False) if (a, b) == (0, 2)]
    share = after.count(0) / len(after)
    assert abs(share - (1 / RETURN) / (1 / RETURN + 1)) < 0.1


def test_node2vec_brings_together_what_is_near() -> None:
    pytest.importorskip("gensim")
    vectors = node2vec(two_towns(), 10, width=8, seed=1)
    assert vectors.shape == (10, 8)
    assert vectors.dtype == np.float32
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    alike = unit @ unit.T
    assert alike[1:5, 1:5].mean() > alike[1:5, 6:].mean() + 0.1
    np.testing.assert_array_equal(vectors, node2vec(two_towns(), 10, width=8, seed=1))
    assert not np.array_equal(vectors, node2vec(two_towns(), 10, width=8, seed=2))


CODE = """
import hashlib
from tests.data.test_road_graph import two_towns
from zhuyi.data.road_graph import node2vec
print(hashlib.sha256(node2vec(two_towns(), 10, width=8, seed=1).tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_node2vec_is_the_same_in_two_processes() -> None:
    pytest.importorskip("gensim")
    root = Path(__file__).parents[2]
    found = {
        subprocess.run(
            [sys.executable, "-c", CODE], cwd=root, env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(found) == 1


LOS_LOOP = Path(__file__).parents[2].parent / "shared" / "data" / "traffic-los-loop"


@pytest.mark.skipif(not LOS_LOOP.exists(), reason="the shared data are not there")
def test_los_loops_files_have_the_sensors_in_one_order() -> None:
    """The edges by numbers, made to go both ways, are the adjacency matrix of the sensors by names."""
    with gzip.open(LOS_LOOP / "los_speed.csv.gz", "rt") as file:
        sensors = file.readline().strip().split(",")
    edges = read_edges(str(LOS_LOOP / "adjacency_edges.txt.gz"), sensors)
    matrix = np.zeros((207, 207))
    matrix[edges.sources, edges.targets] = edges.weights
    with gzip.open(LOS_LOOP / "los_adj.csv.gz", "rt") as file:
        expected = np.loadtxt(file, delimiter=",")
    np.testing.assert_allclose(np.maximum(matrix, matrix.T), expected, rtol=0, atol=1e-6)
    vectors = read_vectors(str(LOS_LOOP / "spatial_embedding.txt.gz"), sensors)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    alike, joined = unit @ unit.T, (matrix > 0) & ~np.eye(207, dtype=bool)
    assert alike[joined].mean() > alike[~joined].mean() + 0.3
