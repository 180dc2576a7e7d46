"""Times within a text of speech: signs in pairs, that never fall back (Radford et al. 2022, section 2.3)."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from zhuyi.data.speech_signs import SECONDS_A_STEP, SpeechSigns
from zhuyi.decoding import FOR_EVER, Foreseen, Rows


class SuppressFirst:
    """Let no text begin with these ids."""

    def __init__(self, ids: Iterable[int]) -> None:
        self._ids = sorted(set(ids))

    def __call__(self, logits: Tensor, rows: Rows) -> None:
        """Forbid the ids in rows that have written nothing."""
        if self._ids and 0 in rows.member_lengths:
            fresh = (rows.lengths == 0).nonzero()[:, 0]
            for token in self._ids:
                logits[fresh, token] = -torch.inf

    def foresee(self, rows: Rows) -> Foreseen | None:
        """As `Foreseeing`."""
        if not self._ids or 0 not in rows.member_lengths:
            return Foreseen(FOR_EVER)
        return Foreseen(1, tuple(self._ids)) if not any(rows.member_lengths) else None


class TimeRules:
    """A text begins with a time, has two behind each segment (the last one may have one), and goes forward in time.

    Where all times together are likelier than any word, one of them is written.

    Args:   latest_first: seconds; the first time is no later.
    Source: the authors' code; the paper says what times stand for alone.
    """

    def __init__(self, signs: SpeechSigns, latest_first: float) -> None:
        assert signs.first_time is not None and signs.no_times is not None
        self._first, self._none, self._end = signs.first_time, signs.no_times, signs.end
        self._too_late = self._first + round(latest_first / SECONDS_A_STEP) + 1

    def __call__(self, logits: Tensor, rows: Rows) -> None:
        """Leave to each row what may follow."""
        logits[:, self._none] = -torch.inf
        for row in range(len(logits)):
            self._forbid(logits[row], rows.written(row))
        log_probs = logits.log_softmax(dim=-1)
        of_times = log_probs[:, self._first :].logsumexp(dim=-1)
        likelier = of_times > log_probs[:, : self._first].max(dim=-1).values
        logits[likelier, : self._first] = -torch.inf

    def _forbid(self, logits: Tensor, written: Sequence[int]) -> None:
        first = self._first
        if not written:
            logits[:first] = -torch.inf
            logits[self._too_late :] = -torch.inf
            return
        last_is_time = written[-1] >= first
        is_pair = len(written) < 2 or written[-2] >= first
        if last_is_time and is_pair:  # words follow
            logits[first:] = -torch.inf
        elif last_is_time:  # its second, or the end of all
            logits[: self._end] = -torch.inf
        if times := [token for token in written if token >= first]:
            logits[first : times[-1] + (0 if last_is_time and not is_pair else 1)] = -torch.inf


def read_times(
    tokens: Sequence[int], signs: SpeechSigns, seconds: float
) -> Iterator[tuple[float, float, tuple[int, ...]]]:
    """The segments of a text with times: from when to when, and the tokens between; none lies beyond `seconds`."""
    start, words = 0.0, list[int]()
    for token in tokens:
        time = signs.seconds(token)
        if time is None:
            words.append(token)
            continue
        time = min(time, seconds)
        if words:
            yield start, max(start, time), tuple(words)
            words = []
        start = time
    if words:
        yield start, max(start, seconds), tuple(words)
