"""Pictures from folders, arrays and idx files; what cannot be read is named."""

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from zhuyi.data.images import (
    BadPicture,
    Shape,
    files_of,
    list_pictures,
    look,
    open_picture,
    pictures_below,
    read_idx,
    to_pixels,
)
from zhuyi.data.pairs import CleaningReport
from zhuyi.errors import InputError

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (20, 30, 3), np.uint8)


def save(path: Path, pixels: np.ndarray = NOISE, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def pixels_of(path: Path, **shape: Any) -> np.ndarray:
    return to_pixels(open_picture(str(path), str(path)), Shape(**({"size": 20, "channels": 3} | shape)))


def test_a_folder_of_classes_is_listed_and_what_is_no_picture_named(tmp_path: Path) -> None:
    for name in ("dog/b.png", "dog/deep/a.JPG", "cat/c.gif"):
        save(tmp_path / "photos" / name, format="PNG")
    for name in ("cat/notes.txt", "cat/Thumbs.db", "dog/.hidden.png", ".git/x/y.png", "stray.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text("text", encoding="utf-8")
    report = CleaningReport(things="pictures")
    found = list_pictures([str(tmp_path / "photos")], (), report)
    assert [(Path(picture.name).name, picture.label) for picture in found] == [
        ("c.gif", "cat"), ("b.png", "dog"), ("a.JPG", "dog"),
    ]  # fmt: skip
    assert report.dropped == {"not a picture": 1}
    assert report.examples["not a picture"] == [str(tmp_path / "photos" / "cat" / "notes.txt")]
    assert str(tmp_path / "photos" / "cat" / "notes.txt") in report.summary()
    below = [Path(path).name for path in pictures_below(str(tmp_path / "photos"))]
    assert below == ["stray.png", "c.gif", "b.png", "a.JPG"]
    assert len(files_of([str(tmp_path / "photos"), "x.npz"])) == 7


def test_a_folder_without_classes_or_pictures_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "flat" / "a.png")
    with pytest.raises(InputError, match="no folder inside; expected one a class"):
        list_pictures([str(tmp_path / "flat")], (), CleaningReport())
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    with pytest.raises(InputError, match="no picture in"):
        list_pictures([str(tmp_path / "empty")], (), CleaningReport())
    with pytest.raises(InputError, match=r"nowhere: there is no such folder; expected a folder with a sub"):
        list_pictures([str(tmp_path / "nowhere")], (), CleaningReport())
    with pytest.raises(InputError, match=r"a\.png: expected a folder with a sub-folder a class"):
        list_pictures([str(tmp_path / "flat" / "a.png")], (), CleaningReport())


def idx(array: np.ndarray, kind: int) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape) + array.tobytes()


def test_idx_files_are_read_gzipped_or_not(tmp_path: Path) -> None:
    images, labels = RNG.integers(0, 256, (5, 4, 3), np.uint8), np.array([2, 0, 1, 1, 2], np.uint8)
    (tmp_path / "images.gz").write_bytes(gzip.compress(idx(images, 8)))
    (tmp_path / "labels").write_bytes(idx(labels, 8))
    (tmp_path / "wide").write_bytes(idx(np.array([[1, -2], [300, 4]], ">i4"), 12))
    np.testing.assert_array_equal(read_idx(str(tmp_path / "images.gz")), images)
    np.testing.assert_array_equal(read_idx(str(tmp_path / "wide")), [[1, -2], [300, 4]])
    found = list_pictures([f"{tmp_path}/images.gz,{tmp_path}/labels"], ("shirt", "coat", "bag"), CleaningReport())
    assert [picture.label for picture in found] == ["bag", "shirt", "coat", "coat", "bag"]
    assert found[2].name == f"{tmp_path}/images.gz, picture 3"
    np.testing.assert_array_equal(found[2].source, images[2])
    plain = list_pictures([f"{tmp_path}/images.gz,{tmp_path}/labels"], (), CleaningReport())
    assert [picture.label for picture in plain] == ["2", "0", "1", "1", "2"]
    with pytest.raises(InputError, match=r"labels from 0 to 2, but data.labels names 2"):
        list_pictures([f"{tmp_path}/images.gz,{tmp_path}/labels"], ("shirt", "coat"), CleaningReport())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not in the idx form"),
        (b"\x00\x00\x07\x01\x00\x00\x00\x01a", "not in the idx form"),
        (b"PK\x03\x04abcdefgh", "not in the idx form"),
        (b"\x00\x00\x08\x02\x00\x00\x00\x05\x00\x00\x00\x02abc", r"sides \(5, 2\) want 10 bytes, but 3 are there"),
    ],
)
def test_files_that_are_no_idx_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_idx(str(tmp_path / "file"))
    (tmp_path / "file.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match=r"cannot read .*file.gz"):
        read_idx(str(tmp_path / "file.gz"))


def test_arrays_of_a_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=NOISE[None], labels=np.array(["cat"]))
    (found,) = list_pictures([str(tmp_path / "a.npz")], (), CleaningReport())
    assert found.label == "cat" and look(found.source, found.name) == ((30, 20), 3)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": NOISE[None]}, "no array 'labels' in it, but images; expected"),
        ({"x": NOISE, "y": NOISE}, "no array 'images' in it, but x, y"),
        ({"images": NOISE[None] / 255, "labels": np.zeros(1)}, r"images of float64 and shape \(1, 20, 30, 3\)"),
        ({"images": NOISE[None, ..., :2], "labels": np.zeros(1)}, "expected uint8"),
        ({"images": NOISE[None], "labels": np.zeros(2)}, r"1 pictures, but labels of shape \(2,\)"),
        ({"images": NOISE[None], "labels": np.array([{}], object)}, "not readable as a .npz of plain arrays"),
    ],
)
def test_arrays_of_another_form_are_refused(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=message):
        list_pictures([str(tmp_path / "a.npz")], (), CleaningReport())


def test_a_broken_npz_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(InputError, match=r"not readable as a \.npz"):
        list_pictures([str(tmp_path / "a.npz")], (), CleaningReport())


def test_bad_pictures_say_what_is_wrong(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.jpg", RNG.integers(0, 256, (200, 200, 3), np.uint8))
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:3000])
    (tmp_path / "text.png").write_text("this is text", encoding="utf-8")
    (tmp_path / "empty.png").write_bytes(b"")
    save(tmp_path / "dot.gif", NOISE[:1, :1, 0])
    cases = {"cut.jpg": "cut short", "text.png": "not a picture", "empty.png": "not a picture", "dot.gif": "too small"}
    for name, reason in cases.items():
        path = str(tmp_path / name)
        with pytest.raises(BadPicture, match=rf"{name}: {reason}.*; leave it out") as caught:
            open_picture(path, path)
        assert "\n" not in str(caught.value) and caught.value.reason.startswith(reason)
    with pytest.raises(InputError, match=r"nowhere\.png: cannot be opened \(No such file.*check the path"):
        open_picture(str(tmp_path / "nowhere.png"), str(tmp_path / "nowhere.png"))
    assert look(str(tmp_path / "cut.jpg"), "cut.jpg") == ((200, 200), 3)  # its first bytes are good


@pytest.mark.parametrize("error", [ValueError("odd"), SyntaxError("broken"), MemoryError()])
def test_whatever_a_reader_raises_is_the_pictures_fault(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    path = str(save(tmp_path / "a.png"))
    monkeypatch.setattr(Image, "open", fail)
    for read in (look, open_picture):
        with pytest.raises(BadPicture, match=r"a\.png: cut short or damaged"):
            read(path, path)


def test_pictures_that_unpack_to_too_much_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zhuyi.data.images.MOST_PIXELS", 500)
    with pytest.raises(BadPicture, match=r"too large \(30 x 20 pixels"):
        open_picture(str(save(tmp_path / "a.png")), "a.png")


def test_a_small_file_of_many_pixels_is_not_unpacked(tmp_path: Path) -> None:
    Image.new("1", (8000, 7000)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 20_000
    for read in (look, open_picture):
        with pytest.raises(BadPicture, match=r"too large \(8000 x 7000 pixels; at most 50,000,000 are read"):
            read(str(tmp_path / "bomb.png"), "bomb.png")


def test_no_program_is_called_for_a_form(tmp_path: Path) -> None:
    """A PostScript file would be given to its interpreter."""
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n")
    with pytest.raises(BadPicture, match="not a picture"):
        open_picture(str(tmp_path / "a.png"), "a.png")


def test_the_middle_is_cut_out_or_the_whole_is_stretched(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png")
    np.testing.assert_array_equal(pixels_of(path), NOISE[:, 5:25])
    stretched = np.asarray(Image.fromarray(NOISE).resize((20, 20), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(pixels_of(path, fit="stretch", resample="bicubic"), stretched)
    halved = np.asarray(Image.fromarray(NOISE[:, 5:25]).resize((10, 10), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(pixels_of(path, size=10)[:, 1:-1], halved[:, 1:-1])  # edges look beyond the cut
    assert pixels_of(path, channels=1).shape == (20, 20, 1)
    assert pixels_of(save(tmp_path / "tiny.png", NOISE[:4, :4]), size=9).shape == (9, 9, 3)


def test_colours_of_every_kind(tmp_path: Path) -> None:
    grey = NOISE[:, :20, 0]
    np.testing.assert_array_equal(pixels_of(save(tmp_path / "g.png", grey)), np.stack([grey] * 3, -1))
    wide = grey.astype(np.uint16) * 257  # 16 bits a pixel
    np.testing.assert_array_equal(pixels_of(save(tmp_path / "w.png", wide), channels=1)[..., 0], grey)
    dark = np.array([[0, 1, 128, 129, 200, 255]] * 6, np.uint16)  # however dark the whole is
    for name in ("d.png", "d.pgm", "d.tif"):
        np.testing.assert_array_equal(
            pixels_of(save(tmp_path / name, dark), size=6, channels=1)[..., 0], np.rint(dark / 257)
        )
    for number, pixels in enumerate((grey.astype(np.float32), grey.astype(np.int32) * 1000)):
        with pytest.raises(BadPicture, match="of numbers without a known range"):
            pixels_of(save(tmp_path / f"{number}.tif", pixels))
    clear = np.dstack([NOISE[:, :20], np.zeros((20, 20), np.uint8)])
    assert (pixels_of(save(tmp_path / "c.png", clear)) == 255).all()  # what is transparent is white
    half = np.dstack([NOISE[:, :20], np.full((20, 20), 51, np.uint8)])
    np.testing.assert_allclose(pixels_of(save(tmp_path / "h.png", half)), 0.2 * NOISE[:, :20] + 0.8 * 255, atol=1)
    image = Image.fromarray(NOISE[:, :20]).convert("P", palette=Image.Palette.ADAPTIVE)
    image.save(tmp_path / "p.gif")
    assert pixels_of(tmp_path / "p.gif").shape == (20, 20, 3)
    Image.fromarray(NOISE[:, :20]).convert("CMYK").save(tmp_path / "k.jpg")
    assert pixels_of(tmp_path / "k.jpg").shape == (20, 20, 3)
    assert look(str(tmp_path / "g.png"), "g")[1] == 1 and look(str(tmp_path / "c.png"), "c")[1] == 3


def test_a_picture_is_turned_as_the_camera_noted(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    save(tmp_path / "a.png", NOISE[:, :20], exif=exif)
    np.testing.assert_array_equal(pixels_of(tmp_path / "a.png"), np.rot90(NOISE[:, :20], -1))
