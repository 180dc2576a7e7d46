"""What augmentation does to pictures, each against what it is said to do."""

import numpy as np
import pytest
import torch
from torch import Tensor

from zhuyi.data.augmentation import Augmentation, erase, middle, mix, reframe


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed])))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(40, 3, 11, 11, generator=torch.Generator().manual_seed(1))


def test_nothing_asked_changes_nothing(images: Tensor) -> None:
    torch.testing.assert_close(reframe(images, 11, Augmentation(), rng()), images, rtol=0, atol=1e-5)


def test_half_of_the_pictures_are_flipped(images: Tensor) -> None:
    found = reframe(images, 11, Augmentation(flip=True), rng())
    flipped = [torch.allclose(one, other.flip(-1), atol=1e-5) for one, other in zip(found, images, strict=True)]
    same = [torch.allclose(one, other, atol=1e-5) for one, other in zip(found, images, strict=True)]
    assert all(a != b for a, b in zip(flipped, same, strict=True))
    assert 8 < sum(flipped) < 32


def test_pictures_move_by_whole_pixels_and_their_edges_go_on(images: Tensor) -> None:
    found = reframe(images, 11, Augmentation(shift=2), rng())
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2), mode="replicate")
    seen = set()
    for one, wide in zip(found, padded, strict=True):
        places = [
            (y, x) for y in range(5) for x in range(5)
            if torch.allclose(one, wide[:, y : y + 11, x : x + 11], atol=1e-4)
        ]  # fmt: skip
        assert len(places) == 1
        seen |= set(places)
    assert len(seen) > 15 and {y for y, _ in seen} == {x for _, x in seen} == set(range(5))


def test_a_crop_is_a_part_of_the_picture() -> None:
    """Of a picture whose colours tell where they are, a crop's are between the edges, and as far apart as its share."""
    line = torch.linspace(0, 1, 101)
    place = torch.stack([line.expand(101, 101), line[:, None].expand(101, 101)]).expand(300, -1, -1, -1)
    found = reframe(place, 32, Augmentation(crop=0.25), rng())
    assert found.shape == (300, 2, 32, 32)
    width = (found[:, 0, 0, -1] - found[:, 0, 0, 0]) * 32 / 31
    height = (found[:, 1, -1, 0] - found[:, 1, 0, 0]) * 32 / 31
    area = width * height
    assert bool((area > 0.25 * 0.95).all()) and float(area.min()) < 0.3 and float(area.max()) > 0.8
    aspect = width / height
    assert 0.7 < float(aspect.min()) < 0.8 and 1.25 < float(aspect.max()) < 1.4
    assert float(found[:, 0, 0, 0].min()) < 0.05 and float(found[:, 0, 0, -1].max()) > 0.95


def test_what_is_stored_larger_is_read_at_another_place_each_time(images: Tensor) -> None:
    found = reframe(images, 9, Augmentation(), rng())
    assert found.shape == (40, 3, 9, 9)
    assert not torch.allclose(found[0], middle(images, 9)[0], atol=1e-3)
    torch.testing.assert_close(middle(images, 9), images[:, :, 1:10, 1:10])
    assert middle(images, 8).shape == (40, 3, 8, 8)


def test_a_share_of_the_pictures_loses_a_rectangle(images: Tensor) -> None:
    images = images + 1
    found = erase(images, 0.5, rng())
    erased = (found == 0).all(dim=1)  # (B, H, W)
    assert torch.equal(found[~erased[:, None].expand_as(found)], images[~erased[:, None].expand_as(found)])
    hit = erased.flatten(1).any(dim=1)
    assert 8 < int(hit.sum()) < 32
    for mask in erased[hit]:
        rows, columns = mask.any(dim=1), mask.any(dim=0)
        assert torch.equal(mask, rows[:, None] & columns)
        assert int(mask.sum()) <= 0.6 * 121
    assert not (erase(images, 0.0, rng()) == 0).any()


def test_a_picture_is_mixed_with_the_next(images: Tensor) -> None:
    found, shares = mix(images, 0.4, rng())
    assert bool(((shares >= 0) & (shares <= 1)).all()) and float(shares.std()) > 0.2
    for i in range(40):
        expected = shares[i] * images[i] + (1 - shares[i]) * images[(i + 1) % 40]
        torch.testing.assert_close(found[i], expected)


@pytest.mark.parametrize("wrong", [{"shift": -1}, {"crop": 0.0}, {"crop": 1.1}, {"erase": 1.5}, {"mixup": -0.1}])
def test_what_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} .*{next(iter(wrong.values()))}"):
        Augmentation(**wrong)  # type: ignore[arg-type]
