"""Transcripts of recordings against what was said."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from zhuyi.data.audio import SAMPLE_RATE_HZ
from zhuyi.data.pairs import CleaningReport
from zhuyi.data.recordings import read_recordings
from zhuyi.data.speech_examples import join_recordings
from zhuyi.evaluation.wanted import Wanted, files_to_score, write_lines
from zhuyi.metrics.speech_scores import speech_scores
from zhuyi.predict import Transcriber


def evaluate_speech(transcriber: Transcriber, wanted: Wanted, warn: Callable[[str], None]) -> dict[str, Any]:
    """`wer` and `cer` of recordings, and how many seconds of them are transcribed in one."""
    wanted.refuse("alpha", "task", "prefix")
    data = transcriber.config.data
    report = CleaningReport(things="recordings")
    names = data.names("test") if not wanted.files else replace(data.names("test"), chosen="")
    files = files_to_score(wanted, data.files("test"))
    read = [(each.samples, each.text) for each in read_recordings(files, names, report, wanted.columns or data.columns)]
    if report.dropped:
        warn(report.summary())
    if wanted.joined:
        read = join_recordings(read, wanted.joined)
    started = time.perf_counter()
    found = [each.text for each in transcriber.stream((samples for samples, _ in read), beam=wanted.beam, times=False)]
    seconds = time.perf_counter() - started
    if wanted.output:
        write_lines(wanted.output, (" ".join(text.split()) for text in found))
    expected = [text for _, text in read]
    if wanted.lowercase:
        found, expected = [text.lower() for text in found], [text.lower() for text in expected]
    scores = {name: round(rate, 5) for name, rate in speech_scores(found, expected).items()}
    heard = sum(len(samples) for samples, _ in read) / SAMPLE_RATE_HZ
    return {**scores, "recordings": len(read), "seconds": round(heard, 1), "times_real_time": round(heard / seconds, 1)}
