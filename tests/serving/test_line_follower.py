"""A file that grows: whole lines, new bytes alone, whatever happens to it."""

import os
from pathlib import Path

import pytest

from zhuyi.serving.line_follower import SEEN, LineFollower


def steps(follower: LineFollower) -> list[int]:
    follower.look()
    return [row["step"] for row in follower.rows]


def write(path: Path, *numbers: int, note: str = "") -> None:
    path.write_text("".join(f'{{"step": {number}, "note": "{note}"}}\n' for number in numbers), encoding="utf-8")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def test_lines_are_read_once_they_are_whole(path: Path) -> None:
    follower = LineFollower(path)
    assert steps(follower) == [] and follower.changed == 0
    path.write_text('{"step": 1}\n{"step": 2')
    assert steps(follower) == [1] and follower.changed > 0
    with path.open("a") as file:
        file.write("0}\n\n")
    assert steps(follower) == [1, 20] and follower.generation == 0
    with path.open("ab") as file:
        file.write('{"step": 3, "text": "好\u2028"}\n'.encode()[:-6])  # within a character
    assert steps(follower) == [1, 20]


def test_only_new_bytes_are_read(path: Path) -> None:
    write(path, *range(20), note="x" * SEEN)
    follower = LineFollower(path)
    assert steps(follower) == list(range(20))
    with path.open("r+") as file:  # what was read already may become anything
        file.write("#" * SEEN)
    with path.open("a") as file:
        file.write('{"step": 20}\n')
    assert steps(follower) == list(range(21)) and follower.generation == 0


def test_what_is_cut_back_and_grown_again_is_read_anew(path: Path) -> None:
    follower = LineFollower(path)
    write(path, 1, 2, 3)
    assert steps(follower) == [1, 2, 3]
    write(path, 1, 2, 4)  # cut back to 2 and gone on, between two looks
    assert steps(follower) == [1, 2, 4] and follower.generation == 1
    write(path, 1)
    assert steps(follower) == [1] and follower.generation == 2
    path.unlink()
    assert steps(follower) == [] and follower.generation == 3 and follower.changed == 0
    assert steps(follower) == [] and follower.generation == 3
    write(path, 5, 6)
    assert steps(follower) == [5, 6] and follower.generation == 3


def test_what_is_no_object_is_passed_over(path: Path) -> None:
    path.write_bytes(b'null\n[1]\n"x"\n{"step": 1}\n\xff\xfe\n' + b"[" * 100_000 + b'\n{"step"\n{"step": 2}\n')
    assert steps(LineFollower(path)) == [1, 2]


def test_nothing_but_a_file_is_opened(path: Path) -> None:
    if hasattr(os, "mkfifo"):
        os.mkfifo(path)
        assert steps(LineFollower(path)) == []
        path.unlink()
    path.mkdir()
    assert steps(LineFollower(path)) == []
