"""Recordings from tables, folders and tars; what cannot be used is counted and named."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from zhuyi.data.pairs import CleaningReport
from zhuyi.data.recordings import Names, files_of, read_recordings
from zhuyi.errors import InputError

soundfile = pytest.importorskip("soundfile", reason="needs the extra audio")


def write_folder(folder: Path) -> Path:
    """Three recordings, one of them no sound and one without a text."""
    folder.mkdir()
    for number, name in enumerate(("1_ann_0.wav", "2_ann_1.wav", "3_bob_0.flac")):
        soundfile.write(folder / name, np.full(1600, 0.1 * number), 16000)
    (folder / "1_ann_0.txt").write_text("  the   one\n")
    (folder / "2_ann_1.txt").write_text("two")
    (folder / "4_bob_1.wav").write_text("no sound")
    (folder / "4_bob_1.txt").write_text("four")
    (folder / "notes.md").write_text("not a recording")
    return folder


def read(*sources: Path, names: Names | None = None) -> tuple[list[tuple[str, str, int]], CleaningReport]:
    report = CleaningReport(things="recordings")
    found = read_recordings([str(source) for source in sources], names or Names(), report)
    return [(each.name, each.text, len(each.samples)) for each in found], report


def test_a_folder_has_texts_beside_its_recordings(tmp_path: Path) -> None:
    found, report = read(write_folder(tmp_path / "f"))
    assert found == [("1_ann_0.wav", "the one", 1600), ("2_ann_1.wav", "two", 1600)]
    assert (report.total, report.kept) == (4, 2)
    assert "3_bob_0.flac" in report.summary() and "4_bob_1.wav" in report.summary()


def test_a_tar_is_the_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "f")
    with tarfile.open(tmp_path / "f.tar.gz", "w:gz") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name)
    assert read(tmp_path / "f.tar.gz")[0] == read(folder)[0]
    with tarfile.open(tmp_path / "g.tar", "w") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, f"./{path.name}")  # as `tar -C folder .` does
    with tarfile.open(tmp_path / "g.tar") as tar:
        assert all(name.startswith("./") for name in tar.getnames())
    assert read(tmp_path / "g.tar")[0] == read(folder)[0]
    (tmp_path / "bad.tar").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(InputError, match=r"bad\.tar: not a tar"):
        read(tmp_path / "bad.tar")


def test_names_choose_and_tell_texts(tmp_path: Path) -> None:
    names = Names(r"_0\.", r"^(\d)_", {"1": "one"})
    found, report = read(write_folder(tmp_path / "f"), names=names)
    assert [(name, text) for name, text, _ in found] == [("1_ann_0.wav", "one"), ("3_bob_0.flac", "3")]
    assert report.total == 2


def test_a_table_names_files_beside_it(tmp_path: Path) -> None:
    write_folder(tmp_path / "f")
    table = tmp_path / "table.tsv"
    table.write_text("f/1_ann_0.wav\tone\nf/2_ann_1.wav\t\nmissing.wav\tgone\nf/4_bob_1.wav\tfour\nno columns\n")
    found, report = read(table)
    assert found == [("f/1_ann_0.wav", "one", 1600), ("f/2_ann_1.wav", "", 1600)]  # an empty text: no speech
    assert (report.total, report.kept) == (5, 2)
    assert f"{table}:3" in report.summary()
    assert len(files_of([str(table)])) == 4  # the table, and those of its files that are there


def test_nothing_to_use_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("missing.wav\tgone\n")
    with pytest.raises(InputError, match="no recording that could be used"):
        read(tmp_path / "t.tsv")
    with pytest.raises(InputError, match="no recordings"):
        read()


def test_members_of_a_tar_are_never_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = io.BytesIO()
    soundfile.write(content, np.zeros(160), 16000, format="WAV")
    with tarfile.open("t.tar", "w") as tar:
        for name, data in (("../../evil.wav", content.getvalue()), ("../../evil.txt", b"evil")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    assert [text for _, text, _ in read(Path("t.tar"))[0]] == ["evil"]
    assert list(tmp_path.iterdir()) == [tmp_path / "t.tar"]
