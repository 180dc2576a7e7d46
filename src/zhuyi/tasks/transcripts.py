"""What is said in a recording, in stretches with times, and how those of two windows are put together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from zhuyi.data.audio import SAMPLE_RATE_HZ
from zhuyi.data.speech_examples import join_texts
from zhuyi.data.speech_windows import Stretch, cut_at_seam

TIME_TOLERANCE = 0.3  # seconds by which the times of a word differ between two windows


@dataclass(frozen=True)
class Segment:
    """A stretch of speech and its text.

    Args:   start, end: seconds.
            log_prob: the mean of a token's, in nats; of the window, where it has several segments.
            no_speech: the probability that nothing is said in the window.
            temperature: at which it was found.
            flags: why a guard stepped in: `repetition` (a loop was ended, or words come again and again), `length` (it
            was cut), `temperature` (what the search found at first was not believed), `uncertain` (nothing was, and
            this was the best), `joined` (no pause was found, and what the one before has too was left out).
    """

    start: float
    end: float
    text: str
    log_prob: float = 0.0
    no_speech: float = 0.0
    temperature: float = 0.0
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Passage:
    """A part of a recording that has no text, and why.

    Args:   reason: `silence`, `steady` (a sound too even for speech), or `no_speech` (the model hears none).
    """

    start: float
    end: float
    reason: str


@dataclass(frozen=True)
class Transcription:
    """What is said in a recording.

    Args:   seconds: its length.
            language: a code; empty where the model knows of none.
            without_speech: the parts without a text.
    """

    seconds: float
    segments: tuple[Segment, ...] = ()
    language: str = ""
    without_speech: tuple[Passage, ...] = ()

    @property
    def text(self) -> str:
        return join_texts([segment.text for segment in self.segments])


def at_seam_by_times(
    before: list[Segment], after: list[Segment], stretch: Stretch
) -> tuple[list[Segment], list[Segment]]:
    """Segments of two stretches that overlap: of the second what begins behind the last that is kept of the first.

    One time cuts both; a segment that lies across it is cut off by the words.
    """
    middle = (stretch.start + stretch.overlap / 2) / SAMPLE_RATE_HZ
    kept = [each for each in before if (each.start + each.end) / 2 < middle]
    cut = kept[-1].end if kept else 0.0
    behind = [each for each in after if each.end > cut + TIME_TOLERANCE]
    if behind and behind[0].start < cut - TIME_TOLERANCE:
        return at_seam(kept, behind, stretch)
    return kept, behind


def at_seam(before: list[Segment], after: list[Segment], stretch: Stretch) -> tuple[list[Segment], list[Segment]]:
    """Segments of two stretches that overlap, of which the last and the first are cut off by their words."""
    if not before or not after or before[-1].end <= stretch.start / SAMPLE_RATE_HZ:
        return before, after
    first, second = before[-1], after[0]
    overlap = first.end - second.start
    middle = second.start + overlap / 2
    left, right = cut_at_seam(first.text, second.text, overlap / (first.end - first.start + second.end - second.start))
    first = replace(first, end=middle if right else second.end, text=left)
    second = replace(second, start=middle if left else first.start, text=right, flags=(*second.flags, "joined"))
    return [*before[:-1], *([first] if left else [])], [*([second] if right else []), *after[1:]]


def merged(passages: Sequence[Passage]) -> Iterator[Passage]:
    """Neighbours without a text for one reason as one."""
    if not passages:
        return
    current = passages[0]
    for _, following in pairwise(passages):
        if following.reason == current.reason and following.start <= current.end + 1e-9:
            current = replace(current, end=following.end)
        else:
            yield current
            current = following
    yield current
