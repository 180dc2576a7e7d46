"""Finished shards on disk: whole or not there, of one translation only, joined in order."""

import shutil
from pathlib import Path

import pytest
from tests.killing import kill_everywhere

from zhuyi.engines.shards import ShardFolder
from zhuyi.errors import InputError

ORIGIN = {"input": {"bytes": 3}, "window": [2, 3]}
SHARDS = [["一", ""], ["two", "\udcff"], ["三"]]


def written(folder: ShardFolder) -> None:
    for number in (2, 0, 1):  # as they come
        if not folder.has(number):
            folder.write(number, SHARDS[number])


def test_shards_are_joined_in_order_and_the_folder_goes(tmp_path: Path) -> None:
    folder = ShardFolder(tmp_path / "out.txt", ORIGIN)
    assert folder.open() == 0
    assert not folder.has(0)
    written(folder)
    assert folder.has(0)
    folder.join()
    assert (tmp_path / "out.txt").read_bytes() == "一\n\ntwo\n?\n三\n".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]


def test_a_kill_at_any_moment_leaves_the_old_output_or_the_new(tmp_path: Path) -> None:
    output = tmp_path / "out.txt"
    whole = b"".join(line.encode(errors="replace") + b"\n" for shard in SHARDS for line in shard)

    def write() -> None:
        folder = ShardFolder(output, ORIGIN)
        folder.open()
        written(folder)
        folder.join()

    def look(finished: bool) -> None:
        content = output.read_bytes()
        assert content in ((whole,) if finished else (b"precious", whole))
        if content != whole:  # all that is there is whole, and a second life makes the output of it
            again = tmp_path / "again"
            shutil.copytree(tmp_path, again, ignore=shutil.ignore_patterns("again"))
            folder = ShardFolder(again / "out.txt", ORIGIN)
            finished_before = folder.open()
            for number in range(3):
                assert not folder.has(number) or finished_before
            written(folder)
            folder.join()
            assert sorted(path.name for path in again.iterdir() if not path.name.startswith(".")) == ["out.txt"]
            assert (again / "out.txt").read_bytes() == whole
            shutil.rmtree(again)
        else:  # of what is left of the folder, it is still known whose it is
            ShardFolder(output, ORIGIN).open()
        shutil.rmtree(tmp_path / "out.txt.shards", ignore_errors=True)
        output.write_bytes(b"precious")

    output.write_bytes(b"precious")
    assert kill_everywhere(tmp_path, write, look) > 15


def test_half_a_shard_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ShardFolder(tmp_path / "out.txt", ORIGIN)
    folder.open()

    def write_half(path: Path, text: str, **options: object) -> None:
        path.write_bytes(text.encode()[: len(text) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", write_half)
    with pytest.raises(KeyboardInterrupt):
        folder.write(0, SHARDS[0])
    assert not folder.has(0)


def test_finished_shards_are_found_again(tmp_path: Path) -> None:
    first = ShardFolder(tmp_path / "out.txt", ORIGIN)
    first.open()
    first.write(1, SHARDS[1])
    second = ShardFolder(tmp_path / "out.txt", {**ORIGIN})
    assert second.open() == 1
    assert [second.has(number) for number in range(3)] == [False, True, False]


def test_shards_of_another_translation_are_refused_and_kept(tmp_path: Path) -> None:
    first = ShardFolder(tmp_path / "out.txt", ORIGIN)
    first.open()
    first.write(0, SHARDS[0])
    other = ShardFolder(tmp_path / "out.txt", {**ORIGIN, "window": [9, 9], "precision": "bfloat16"})
    with pytest.raises(InputError, match=r"other: precision, window\); repeat the command .* or remove the folder"):
        other.open()
    assert first.open() == 1


def test_where_nothing_is_finished_anything_may_begin(tmp_path: Path) -> None:
    ShardFolder(tmp_path / "out.txt", ORIGIN).open()
    other = ShardFolder(tmp_path / "out.txt", {"input": "another"})
    assert other.open() == 0
    other.write(0, SHARDS[0])
    assert ShardFolder(tmp_path / "out.txt", {"input": "another"}).open() == 1


def test_an_empty_folder_is_not_left_behind_and_a_full_one_is(tmp_path: Path) -> None:
    folder = ShardFolder(tmp_path / "out.txt", ORIGIN)
    folder.open()
    folder.remove_if_empty()
    assert not folder.path.exists()
    folder.open()
    folder.write(0, SHARDS[0])
    folder.remove_if_empty()
    assert folder.has(0)


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out.txt.shards").mkdir()
    (tmp_path / "out.txt.shards" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="in the way"):
        ShardFolder(tmp_path / "out.txt", ORIGIN).open()
    assert (tmp_path / "out.txt.shards" / "thesis.txt").read_text() == "precious"
    (tmp_path / "file.shards").write_text("precious")
    with pytest.raises(InputError, match="cannot keep finished shards"):
        ShardFolder(tmp_path / "file", ORIGIN).open()
