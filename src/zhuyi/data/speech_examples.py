"""Training examples of speech: recordings joined, made faster, noisy and masked, purely by seed, epoch and row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from zhuyi.data.audio import SAMPLE_RATE_HZ, resampled
from zhuyi.data.normalization import contains_han

LEAST_LEVEL = 1e-4  # of what counts as sound when a noise is measured against it: -80 dB


@dataclass(frozen=True)
class AugmentConfig:
    """What is done to recordings before a model learns from them; by default nothing.

    Args:   joined: so many recordings at most stand in one example, as many as the window holds.
            joined_epochs: their number grows to that over so many epochs, from one: a model learns to hear a word alone
            far sooner than among others. 0: all at once.
            pause_seconds: the shortest and the longest pause before, between and after joined recordings.
            no_speech: of all examples, the share without speech and text: silence, noises.
            speed: recordings are played up to this share faster or slower, and so higher or lower.
            noise: the share of examples with a noise added.
            noise_db: the weakest and the strongest noise, in decibels below the sound.
            frequency_masks, frequency_mask_bins: so many bands of up to so many bins are blanked out.
            time_masks, time_mask_seconds: so many stretches of up to so many seconds are.
    """

    joined: int = 1
    joined_epochs: int = 0
    pause_seconds: tuple[float, float] = (0.05, 0.5)
    no_speech: float = 0.0
    speed: float = 0.0
    noise: float = 0.0
    noise_db: tuple[float, float] = (30.0, 5.0)
    frequency_masks: int = 0
    frequency_mask_bins: int = 15
    time_masks: int = 0
    time_mask_seconds: float = 0.3

    def __post_init__(self) -> None:
        if self.joined < 1:
            raise ValueError(f"joined must be at least 1, got {self.joined}")
        if self.joined_epochs < 0:
            raise ValueError(f"joined_epochs must be at least 0, got {self.joined_epochs}")
        shortest, longest = self.pause_seconds
        if not 0 <= shortest <= longest:
            raise ValueError(f"pause_seconds must rise from at least 0, got {shortest} and {longest}")
        for name in ("no_speech", "speed"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} lies in [0, 1), got {getattr(self, name)}")
        if not 0 <= self.noise <= 1:
            raise ValueError(f"noise lies between 0 and 1, got {self.noise}")
        if self.noise_db[0] < self.noise_db[1]:
            raise ValueError(
                f"noise_db are decibels below the sound, the weakest noise first: 30, 5 say; "
                f"got {self.noise_db[0]}, {self.noise_db[1]}"
            )
        for name in ("frequency_masks", "frequency_mask_bins", "time_masks", "time_mask_seconds"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")

    def in_epoch(self, epoch: int) -> "AugmentConfig":
        """The same with as many recordings joined as there may be by then."""
        if epoch >= self.joined_epochs:
            return self
        return replace(self, joined=1 + (self.joined - 1) * epoch // self.joined_epochs)


# A recording's sound and text, by its row.
Look = Callable[[int], tuple[np.ndarray, str]]


def draws_for(seed: int, epoch: int, row: int) -> Generator:
    """What an example's chances are drawn from."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch, row])))


def speech_example(
    row: int, rows: int, look: Look, config: AugmentConfig, window_seconds: float, rng: Generator, *, most_bytes: int
) -> tuple[np.ndarray, str]:
    """A recording, perhaps with others behind it, and their texts.

    Args:   row: of the recording that is there in any case, at its own speed if it would be too long otherwise.
            rows: how many recordings there are to draw others from.
            most_bytes: no recording is added that would make the text longer: no token has less than a byte.
    """
    room = round(window_seconds * SAMPLE_RATE_HZ)
    samples, text = look(row)
    if len(faster := _at_other_speed(samples, config.speed, rng)) <= room:
        samples = faster
    wanted = int(rng.integers(1, config.joined + 1))
    pieces, texts, used = [samples], [text], len(samples)
    for other in rng.integers(rows, size=wanted - 1).tolist():
        samples, text = look(other)
        samples = _at_other_speed(samples, config.speed, rng)
        pause = _pause(config, rng)
        if used + pause + len(samples) > room or len(join_texts([*texts, text]).encode()) > most_bytes:
            break
        pieces += [np.zeros(pause, np.float32), samples]
        texts.append(text)
        used += pause + len(samples)
    if config.joined > 1:
        pieces.insert(0, np.zeros(min(_pause(config, rng), room - used), np.float32))
    sound = np.concatenate(pieces)
    if rng.random() < config.noise:
        sound = _with_noise(sound, room, config, rng)
    return sound, join_texts(texts)


def no_speech_example(window_seconds: float, rng: Generator) -> np.ndarray:
    """A window without speech: nothing, or one of several noises, steady or swelling, loud or faint."""
    length = round(window_seconds * SAMPLE_RATE_HZ)
    if rng.random() < 0.15:
        return np.zeros(length, np.float32)
    level = 10 ** rng.uniform(-4, -0.7)
    return (level * noise_of(length, rng)).astype(np.float32)


def noise_of(length: int, rng: Generator) -> np.ndarray:
    """Noise of mean power 1: white, pink, brown or anything between; a hum; or clicks; perhaps swelling."""
    kind = rng.random()
    if kind < 0.7:
        spectrum = np.fft.rfft(rng.standard_normal(length))
        spectrum *= np.maximum(np.arange(len(spectrum)), 1.0) ** -rng.uniform(-0.3, 1.0)
        noise = np.fft.irfft(spectrum, length)
    elif kind < 0.85:
        time = np.arange(length) / SAMPLE_RATE_HZ
        tone = rng.uniform(40, 400)
        tones = [np.sin(2 * np.pi * tone * k * time + rng.uniform(0, 6)) / k for k in range(1, 5)]
        noise = np.sum(tones, axis=0) + 0.1 * rng.standard_normal(length)
    else:
        clicks = rng.random(length) < rng.uniform(0.5, 20) / SAMPLE_RATE_HZ
        noise = 0.02 * rng.standard_normal(length) + np.where(clicks, rng.standard_normal(length) * 5, 0.0)
        noise = np.convolve(noise, np.exp(-np.arange(200) / rng.uniform(5, 60)))[:length]
    if rng.random() < 0.4:
        knots = rng.uniform(0.1, 1.0, size=2 + length // (SAMPLE_RATE_HZ // 3))
        noise = noise * np.interp(np.linspace(0, len(knots) - 1, length), np.arange(len(knots)), knots)
    return noise / (np.sqrt(np.mean(noise**2)) + 1e-12)


def mask_features(features: np.ndarray, config: AugmentConfig, frames_a_second: int, rng: Generator) -> None:
    """Blank out bands and stretches of a spectrogram, by its mean, in place.

    Shape:  features (bins, frames).
    Source: Park et al. 2019 (SpecAugment), section 2, without the warping of time.
    """
    bins, frames = features.shape
    blank = features.mean()
    for _ in range(config.frequency_masks):
        width = int(rng.integers(0, min(bins, config.frequency_mask_bins) + 1))
        first = int(rng.integers(0, bins - width + 1))
        features[first : first + width] = blank
    for _ in range(config.time_masks):
        width = int(rng.integers(0, min(frames, round(config.time_mask_seconds * frames_a_second)) + 1))
        first = int(rng.integers(0, frames - width + 1))
        features[:, first : first + width] = blank


def join_recordings(recordings: Sequence[tuple[np.ndarray, str]], count: int) -> list[tuple[np.ndarray, str]]:
    """All recordings in an order always the same, so many as one with pauses of 0.1 to 0.5 seconds between."""
    rng = draws_for(0, 0, len(recordings))
    order = rng.permutation(len(recordings)).tolist()
    found = []
    for first in range(0, len(order), count):
        chosen = [recordings[row] for row in order[first : first + count]]
        pieces = [chosen[0][0]]
        for samples, _ in chosen[1:]:
            pieces += [np.zeros(round(rng.uniform(0.1, 0.5) * SAMPLE_RATE_HZ), np.float32), samples]
        found.append((np.concatenate(pieces), join_texts([text for _, text in chosen])))
    return found


def join_texts(texts: Sequence[str]) -> str:
    """Texts one behind the other, with spaces where their writing has them."""
    joined = ""
    for text in filter(None, texts):
        joined += (" " if joined and not contains_han(joined[-1] + text[0]) else "") + text
    return joined


def _pause(config: AugmentConfig, rng: Generator) -> int:
    return round(rng.uniform(*config.pause_seconds) * SAMPLE_RATE_HZ)


def _at_other_speed(samples: np.ndarray, speed: float, rng: Generator) -> np.ndarray:
    return resampled(samples, 1.0 + rng.uniform(-speed, speed)) if speed and len(samples) else samples


def _with_noise(sound: np.ndarray, room: int, config: AugmentConfig, rng: Generator) -> np.ndarray:
    """The whole window under a noise, also where nothing is said."""
    sound = np.pad(sound, (0, max(0, room - len(sound))))
    loud = np.abs(sound) > LEAST_LEVEL
    power = float(np.mean(sound[loud] ** 2)) if loud.any() else LEAST_LEVEL**2
    level = np.sqrt(power) * 10 ** (-rng.uniform(config.noise_db[1], config.noise_db[0]) / 20)
    return (sound + level * noise_of(len(sound), rng)).astype(np.float32)
