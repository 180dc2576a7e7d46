"""The roads between sensors: edges from a file, and a vector for each sensor, read or made by node2vec."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from zhuyi.data.pairs import read_lines
from zhuyi.errors import InputError

# Of the walks, as in the authors' code for GMAN: p, by which going straight back is rarer; q is 1. They took more and
# longer walks and a thousand rounds over them, for the same few sensors.
RETURN = 2.0
WALKS_A_SENSOR, WALK_STEPS, WINDOW, ROUNDS = 30, 40, 10, 10


@dataclass(frozen=True, eq=False)
class Edges:
    """From where to where, by the sensors' numbers, and how near: no weight is 0.

    Shape: sources, targets, weights (E,).
    """

    sources: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


def read_edges(file: str, sensors: Sequence[str]) -> Edges:
    """Read a list of edges: from, to and perhaps a weight, divided by commas, tabs or spaces, with a header or without.

    Sensors are told by their names, or by the numbers of their columns, from 0, where the first line is one of numbers
    and its sensors are not names.

    Raises: InputError: a line is not of that form or names a sensor that is not there; names file and line.
    """
    rows = list(_rows(file))
    known = {*sensors, *map(str, range(len(sensors)))}
    if rows and not known & set(rows[0][1][:2]):  # a header
        rows = rows[1:]
    number = _numbers(sensors, (name for _, row in rows for name in row[:2]))
    found = []
    for line, row in rows:
        if len(row) not in (2, 3) or (len(row) == 3 and not _is_number(row[2])):
            raise InputError(f"{file}:{line}: '{' '.join(row)[:40]}' is no edge; expected FROM,TO or FROM,TO,WEIGHT")
        weight = float(row[2]) if len(row) == 3 else 1.0
        if not 0 <= weight < float("inf"):
            raise InputError(
                f"{file}:{line}: an edge cannot weigh {row[2]}; expected 0 or more, more for what is nearer"
            )
        ends = [_find(name, number, file, line) for name in row[:2]]
        if weight:
            found.append((*ends, weight))
    if not found:
        raise InputError(f"{file}: no edge in it; expected lines of FROM,TO or FROM,TO,WEIGHT")
    sources, targets, weights = (np.array(each) for each in zip(*found, strict=True))
    return Edges(sources, targets, weights)


def read_vectors(file: str, sensors: Sequence[str]) -> np.ndarray:
    """Read a vector for each sensor, as node2vec writes them: a line of a name (or number) and its values.

    Shape:  returns (N, width) float32.
    Raises: InputError: a line is not of that form, or a sensor has none or several.
    """
    rows = list(_rows(file))
    if rows and len(rows[0][1]) == 2:  # how many there are, and how wide
        rows = rows[1:]
    if not rows:
        raise InputError(f"{file}: no vector in it; expected lines of a sensor's name and its values")
    number, width = _numbers(sensors, (row[0] for _, row in rows)), len(rows[0][1]) - 1
    vectors = np.full((len(sensors), width), np.nan, np.float32)
    for line, (name, *values) in rows:
        if len(values) != width or not all(map(_is_number, values)):
            raise InputError(f"{file}:{line}: expected a sensor's name and {width} numbers, as in the line before")
        place = _find(name, number, file, line)
        if not np.isnan(vectors[place]).all():
            raise InputError(f"{file}:{line}: the sensor '{name}' has a vector already")
        vectors[place] = [float(value) for value in values]
    if (missing := np.isnan(vectors).any(axis=1)).any():
        raise InputError(f"{file}: no vector for the sensor '{sensors[int(missing.argmax())]}'")
    return vectors


def node2vec(edges: Edges, num_sensors: int, width: int, seed: int) -> np.ndarray:
    """A vector for each sensor, such that those which walks along the edges bring together are alike.

    Shape:  returns (num_sensors, width) float32.
    Raises: InputError: the extra `traffic` is not installed.
    Source: Grover and Leskovec 2016, algorithm 1, with q = 1; skip-gram with negative sampling by gensim.
    """
    try:
        from gensim.models import Word2Vec
    except ImportError:
        raise InputError(
            "node2vec needs the extra traffic: pip install 'zhuyi[traffic]'; or leave data.edges out, and the sensors' "
            "vectors are learned"
        ) from None
    walks = [list(map(str, walk)) for walk in _walks(edges, num_sensors, seed)]
    # One thread: several would see the walks in another order each time.
    found = Word2Vec(walks, vector_size=width, window=WINDOW, sg=1, min_count=0, workers=1, seed=seed, epochs=ROUNDS).wv
    return np.stack([found[str(sensor)] for sensor in range(num_sensors)]).astype(np.float32)


def _walks(edges: Edges, num_sensors: int, seed: int) -> Iterator[list[int]]:
    """Walks of all sensors at once, each a step at a time; a dead end ends a walk."""
    order = np.lexsort((edges.targets, edges.sources))
    sources, targets, weights = edges.sources[order], edges.targets[order], edges.weights[order]
    totals = np.bincount(sources, weights, minlength=num_sensors)
    # A number above the sensor's own, by as much as its edges up to this one are of all of its edges.
    climbing = np.cumsum(weights)
    before = np.concatenate(([0.0], np.cumsum(totals)))[sources]
    climbing = sources + (climbing - before) / totals[sources]
    rng = np.random.Generator(np.random.Philox(seed))

    def draw(here: np.ndarray) -> np.ndarray:
        found = np.searchsorted(climbing, here + rng.random(len(here)), side="left")
        last = np.searchsorted(sources, here, side="right") - 1
        return targets[np.minimum(found, last)]

    walks = np.full((WALKS_A_SENSOR * num_sensors, WALK_STEPS), -1)
    walks[:, 0] = np.tile(np.arange(num_sensors), WALKS_A_SENSOR)
    for step in range(1, WALK_STEPS):
        going = np.flatnonzero((walks[:, step - 1] >= 0) & (totals[walks[:, step - 1]] > 0))
        while len(going):  # whoever would go straight back draws again, but for one in p
            drawn = draw(walks[going, step - 1])
            goes_back = (drawn == walks[going, step - 2]) if step > 1 else np.zeros(len(going), bool)
            again = goes_back & (rng.random(len(going)) >= 1 / RETURN)
            walks[going[~again], step] = drawn[~again]
            going = going[again]
    for walk in walks[rng.permutation(len(walks))]:
        yield walk[walk >= 0].tolist()


def _rows(file: str) -> Iterator[tuple[int, list[str]]]:
    """The fields of each line that has any, with its number."""
    for number, line in enumerate(read_lines(file), 1):
        fields = [
            field.strip() for field in re.split(r"[,\t;]" if re.search(r"[,\t;]", line) else r"\s+", line.strip())
        ]
        if any(fields):
            yield number, fields


def _numbers(sensors: Sequence[str], used: Iterator[str]) -> dict[str, int]:
    """The number of each sensor by its name, or by its number where no name is used."""
    by_name = {name: number for number, name in enumerate(sensors)}
    is_by_number = not any(name in by_name for name in used)
    return {str(number): number for number in range(len(sensors))} if is_by_number else by_name


def _find(name: str, number: dict[str, int], file: str, line: int) -> int:
    if name not in number:
        known = ", ".join(list(number)[:3])
        raise InputError(f"{file}:{line}: there is no sensor '{name[:30]}'; the table has {known}, ...")
    return number[name]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
