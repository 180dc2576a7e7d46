"""Where in a long recording something is said: stretches that fit a model's window, cut where nobody speaks."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

import numpy as np

from zhuyi.data.audio import SAMPLE_RATE_HZ
from zhuyi.data.normalization import contains_han

FRAME = SAMPLE_RATE_HZ // 50  # 20 ms: shorter than a sound of speech
BELOW_PEAK_DB = 40.0  # what is so much fainter than the loudest nearby is a pause
MARGIN_SECONDS = 0.1  # kept on either side of what is loud: words begin and end softly
OVERLAP = 0.2  # of a window, where there is no pause to cut at
DIP_DB = 8.0  # so much below the middle level a moment is a pause between words
STEADY_SECONDS = 1.0  # speech of this length has syllables, and its level swings
SMOOTHING_FRAMES = 10  # a fifth of a second: a pause between words, not within one

Quiet = Literal["", "silence", "steady"]


@dataclass(frozen=True)
class Stretch:
    """A part of a recording, in samples.

    Args:   quiet: why there is nothing to hear in it: it is silent, or as steady as no speech is; else empty.
            overlap: so many samples of it are those that the one before ends with.
    """

    start: int
    end: int
    quiet: Quiet = ""
    overlap: int = 0


@dataclass(frozen=True)
class Pauses:
    """What counts as nothing said.

    Args:   quiet_db: what is never louder is silence; decibels below full scale.
            steady_db: a sound whose level stays within so many decibels is no speech.
            pause_seconds: at pauses this long a recording is cut in any case.
    """

    quiet_db: float = -60.0
    steady_db: float = 4.0
    pause_seconds: float = 1.0


def cut_into_stretches(samples: np.ndarray, window_seconds: float, pauses: Pauses) -> list[Stretch]:
    """The stretches of a recording in order; silence of less than a second between them is not named."""
    levels = _levels(samples)
    if not len(samples):
        return []
    smooth = np.convolve(levels, np.ones(SMOOTHING_FRAMES) / SMOOTHING_FRAMES, "same")
    found: list[Stretch] = []
    end = 0
    for first, last in _loud_spans(levels, window_seconds, pauses):
        start, stop = first * FRAME, min(len(samples), last * FRAME)
        if start - end >= SAMPLE_RATE_HZ:
            found.append(Stretch(end, start, "silence"))
        steady = False
        for part in _fitting(levels, smooth, first, stop, window_seconds):
            if part.end - part.start >= STEADY_SECONDS * SAMPLE_RATE_HZ:  # a shorter rest is as what it is the rest of
                steady = _is_steady(samples[part.start : part.end], pauses.steady_db)
            found.append(Stretch(part.start, part.end, "steady", part.overlap) if steady else part)
        end = stop
    if len(samples) - end >= SAMPLE_RATE_HZ or not found:
        found.append(Stretch(end, len(samples), "silence"))
    return found


def cut_at_seam(before: str, after: str, share: float) -> tuple[str, str]:
    """Two texts of which the second begins with about what the first ends with: each without what the other keeps.

    They are cut behind what both have where it is to be expected, else in the middle of what overlaps.

    Args:   share: of the sound of both, one behind the other, so much is in both.
    """
    left, right = _units(before), _units(after)
    expected = share * (len(left) + len(right))
    found = _shared_run([_bare(unit) for unit in left], [_bare(unit) for unit in right], expected)
    kept, begun = found or (len(left) - int(expected / 2), int(expected / 2))
    return "".join(left[:kept]).strip(), "".join(right[begun:]).strip()


def _shared_run(left: list[str], right: list[str], expected: float) -> tuple[int, int] | None:
    """Where in both the longest run ends that lies about as an overlap of the expected length would have it."""
    reach = 1 + int(1.5 * expected + 0.5)
    found = (0, 0.0, 0, 0)
    for i in range(max(0, len(left) - reach), len(left)):
        for k in range(min(reach, len(right))):
            off = abs(len(left) - i + k - expected)
            if off <= 1 + expected / 2:
                pairs = zip(left[i:], right[k:], strict=False)
                size = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
                found = max(found, (size, -off, i + size, k + size))
    # One word that both have says little where more are to be expected.
    return found[2:] if found[0] >= (2 if expected >= 3 else 1) else None


def _bare(unit: str) -> str:
    """A word without what is written around it, to compare."""
    return "".join(filter(str.isalnum, unit)).casefold() or unit.strip()


def _units(text: str) -> list[str]:
    """Words with the space before them, Chinese characters one by one."""
    units: list[str] = []
    for word in text.split():
        parts = list(word) if contains_han(word) else [word]
        units += [f" {parts[0]}", *parts[1:]]
    return units


def _levels(samples: np.ndarray, frame: int = FRAME) -> np.ndarray:
    """Decibels of each frame, the last one filled up. Shape: returns (frames,)."""
    padded = np.pad(samples, (0, -len(samples) % frame)).reshape(-1, frame)
    return 10 * np.log10(np.einsum("nf,nf->n", padded, padded, dtype=np.float64) / frame + 1e-12)


def _loud_spans(levels: np.ndarray, window_seconds: float, pauses: Pauses) -> Iterator[tuple[int, int]]:
    """Frames from where to where something is loud, with margins; across pauses that are too short to cut at."""
    loud = levels > np.maximum(pauses.quiet_db, _peaks_nearby(levels, window_seconds) - BELOW_PEAK_DB)
    places = np.flatnonzero(loud)
    if not len(places):
        return
    margin = round(MARGIN_SECONDS * SAMPLE_RATE_HZ / FRAME)
    longest = max(2 * margin, round(pauses.pause_seconds * SAMPLE_RATE_HZ / FRAME))
    for span in np.split(places, np.flatnonzero(np.diff(places) > longest) + 1):
        yield max(0, int(span[0]) - margin), min(len(levels), int(span[-1]) + 1 + margin)


def _peaks_nearby(levels: np.ndarray, window_seconds: float) -> np.ndarray:
    """The loudest level within a window or two of each frame. Shape: (frames,)."""
    block = max(1, round(window_seconds * SAMPLE_RATE_HZ / FRAME))
    padded = np.pad(levels, (0, -len(levels) % block), constant_values=-np.inf)
    peaks = np.pad(padded.reshape(-1, block).max(axis=1), 1, constant_values=-np.inf)
    around = np.maximum(np.maximum(peaks[:-2], peaks[1:-1]), peaks[2:])
    return np.repeat(around, block)[: len(levels)]


def _fitting(levels: np.ndarray, smooth: np.ndarray, first: int, stop: int, window_seconds: float) -> Iterator[Stretch]:
    """Cut a span into stretches that fit a window: at its faintest moments, or overlapping where there is none."""
    window = int(window_seconds * SAMPLE_RATE_HZ)
    start, overlap = first * FRAME, 0
    while stop - start > window:
        frames = slice((start + window // 2) // FRAME, (start + window) // FRAME)
        dip = frames.start + int(smooth[frames].argmin())
        if smooth[dip] < np.median(levels[start // FRAME : frames.stop]) - DIP_DB:
            end, following = dip * FRAME, 0
        else:
            end, following = start + window, int(OVERLAP * window)
        yield Stretch(start, end, overlap=overlap)
        start, overlap = end - following, following
    yield Stretch(start, stop, overlap=overlap)


def _is_steady(samples: np.ndarray, steady_db: float) -> bool:
    """Whether the level hardly swings, by frames of 40 ms, with what hums below the voice taken off.

    A word in a long noise is few of its frames: what is loudest for a fifth of a second counts, however short.
    """
    inner = samples[round(MARGIN_SECONDS * SAMPLE_RATE_HZ) : -round(MARGIN_SECONDS * SAMPLE_RATE_HZ)]
    levels = _levels(inner[1:] - 0.97 * inner[:-1], 2 * FRAME)[:-1]
    low, high = np.percentile(levels, [10, 90])
    width = SMOOTHING_FRAMES // 2
    loudest = np.convolve(levels, np.ones(width) / width, "valid").max()
    return bool(max(high, loudest) - low < steady_db)
