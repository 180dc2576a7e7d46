"""Examples are drawn purely from seed, epoch and row, fit their window, and hold what their texts say."""

import numpy as np
import pytest

from zhuyi.data.speech_examples import (
    AugmentConfig,
    draws_for,
    join_recordings,
    join_texts,
    mask_features,
    no_speech_example,
    noise_of,
    speech_example,
)

pytest.importorskip("soxr", reason="needs the extra audio")
CONFIG = AugmentConfig(joined=4, pause_seconds=(0.1, 0.2), speed=0.1, noise=0.5)


def look(row: int) -> tuple[np.ndarray, str]:
    return np.full(3200 + 400 * row, 0.1 * (row + 1), np.float32), f"w{row}"


def example(row: int, epoch: int = 0, config: AugmentConfig = CONFIG, seed: int = 1) -> tuple[np.ndarray, str]:
    return speech_example(row, 5, look, config, 2.0, draws_for(seed, epoch, row), most_bytes=100)


def test_the_same_draws_give_the_same_example() -> None:
    for row in range(5):
        first, again = example(row), example(row)
        assert first[1] == again[1] and np.array_equal(first[0], again[0])
    changed = [example(0, epoch=1), example(0, seed=2), example(1)]
    assert all(len(each[0]) != len(example(0)[0]) or not np.array_equal(each[0], example(0)[0]) for each in changed)


def test_examples_fit_and_begin_with_their_own_recording() -> None:
    counts = set()
    for epoch in range(40):
        for row in range(5):
            sound, text = example(row, epoch)
            assert sound.dtype == np.float32 and len(sound) <= 32000
            words = text.split()
            assert words[0] == f"w{row}"
            counts.add(len(words))
    assert counts == {1, 2, 3, 4}


def test_pauses_and_recordings_stand_where_the_text_says() -> None:
    config = AugmentConfig(joined=3, pause_seconds=(0.1, 0.2))
    for epoch in range(20):
        sound, text = example(2, epoch, config)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], sound != 0, [0]]).astype(int)))
        starts, ends = edges[::2], edges[1::2]
        levels = [f"w{round(float(sound[start]) * 10) - 1}" for start in starts]
        assert levels == text.split()
        pauses = starts - np.concatenate([[0], ends[:-1]])
        assert all(1600 <= pause <= 3200 for pause in pauses)


def test_a_text_is_never_too_long() -> None:
    for epoch in range(20):
        assert len(speech_example(0, 5, look, CONFIG, 2.0, draws_for(1, epoch, 0), most_bytes=6)[1]) <= 6


def test_noise_has_power_one_and_an_example_the_level_asked_for() -> None:
    for seed in range(30):
        assert np.mean(noise_of(8000, np.random.default_rng(seed)) ** 2) == pytest.approx(1.0)
    config = AugmentConfig(noise=1.0, noise_db=(20.0, 20.0))
    sound, _ = example(0, 0, config)
    assert len(sound) == 32000  # the noise goes on where nothing is said
    found = np.mean((sound - np.pad(look(0)[0], (0, 32000 - 3200))) ** 2)
    assert 10 * np.log10(0.1**2 / found) == pytest.approx(20, abs=0.01)


def test_no_speech_is_silence_or_noise() -> None:
    found = [no_speech_example(0.5, np.random.default_rng(seed)) for seed in range(60)]
    assert all(each.shape == (8000,) and np.isfinite(each).all() for each in found)
    silent = sum(not each.any() for each in found)
    assert 2 <= silent <= 20


def test_masks_blank_bands_and_stretches_alone() -> None:
    config = AugmentConfig(frequency_masks=1, frequency_mask_bins=3, time_masks=1, time_mask_seconds=0.04)
    widest = (0, 0)
    for seed in range(60):
        features = np.random.default_rng(seed).random((11, 13))
        masked = features.copy()
        mask_features(masked, config, 100, np.random.default_rng(seed + 100))
        changed = masked != features
        bands, stretches = changed.all(axis=1), changed.all(axis=0)
        assert not (changed & ~bands[:, None] & ~stretches[None]).any()
        assert bands.sum() <= 3 and stretches.sum() <= 4
        widest = max(widest[0], int(bands.sum())), max(widest[1], int(stretches.sum()))
        assert np.allclose(masked[changed], features.mean())
    assert widest == (3, 4)


def test_more_are_joined_from_epoch_to_epoch() -> None:
    config = AugmentConfig(joined=5, joined_epochs=8)
    assert [config.in_epoch(epoch).joined for epoch in range(10)] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert AugmentConfig(joined=5).in_epoch(0).joined == 5


def test_texts_are_joined_as_they_are_written() -> None:
    assert join_texts(["one", "", "two"]) == "one two"
    assert join_texts(["一", "二"]) == "一二"


def test_joined_recordings_hold_each_once_in_one_order() -> None:
    recordings = [look(row) for row in range(5)]
    found, again = join_recordings(recordings, 2), join_recordings(recordings, 2)
    assert [text for _, text in found] == [text for _, text in again]
    assert sorted(" ".join(text for _, text in found).split()) == [f"w{row}" for row in range(5)]
    assert len(found) == 3
    for sound, text in found:
        lengths = sum(len(look(int(word[1:]))[0]) for word in text.split())
        assert 1600 * text.count(" ") <= len(sound) - lengths <= 8000 * text.count(" ")


@pytest.mark.parametrize(
    "wrong",
    [
        {"joined": 0},
        {"joined_epochs": -1},
        {"pause_seconds": (0.5, 0.1)},
        {"no_speech": 1.0},
        {"noise_db": (5.0, 30.0)},
    ],
)
def test_wrong_values_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AugmentConfig(**wrong)
