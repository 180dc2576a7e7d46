"""A recipe for recordings and what is said in them."""

import math
from dataclasses import dataclass
from typing import Any

from zhuyi.config import apply_change
from zhuyi.data.audio import SAMPLE_RATE_HZ
from zhuyi.data.pairs import CleaningReport
from zhuyi.data.recordings import Names, read_recordings
from zhuyi.tasks.speech_data import POSITIONS_A_SECOND
from zhuyi.training.automatic.given import Given
from zhuyi.training.automatic.pairs import LEAST_STEPS


@dataclass(frozen=True)
class SpeechSize:
    """A model of speech, up to how many hours of recordings it suits, and how it is trained."""

    up_to_hours: float
    d_model: int
    num_heads: int
    layers: tuple[int, int]
    dropout: float
    learning_rate: float
    hours_heard: float


SPEECH_SIZES = (
    SpeechSize(2, 128, 4, (3, 2), 0.1, 1.5e-3, 40),
    SpeechSize(20, 192, 4, (4, 2), 0.1, 1e-3, 200),
    SpeechSize(200, 256, 4, (6, 3), 0.1, 1e-3, 1_000),
    SpeechSize(float("inf"), 384, 6, (6, 4), 0.1, 7e-4, 4_000),
)
LONGEST_WINDOW = 30.0
WINDOWS_TOGETHER = 16


def recipe_for_recordings(given: Given) -> tuple[dict[str, Any], list[str]]:
    """What makes a transcriber, as plain values, and why each choice was made."""
    data: dict[str, Any] = {split: list(files) for split, files in given.files.items() if files}
    data |= {"columns": list(given.columns)} if given.columns else {}
    values: dict[str, Any] = {"data": dict(data)}
    for change in given.changes:
        apply_change(values, change)
    said = values["data"]
    names = Names(said.get("train_names", ""), said.get("text_from_name", ""), said.get("words", {}))
    report = CleaningReport(things="recordings")
    lengths, letters = list[float](), 0
    for each in read_recordings(given.files["train"], names, report, given.columns or (1, 2)):
        lengths.append(len(each.samples) / SAMPLE_RATE_HZ)
        letters += len(each.text)
    hours = sum(lengths) / 3600
    size = next(size for size in SPEECH_SIZES if hours <= size.up_to_hours)
    long = sorted(lengths)[int(0.99 * (len(lengths) - 1))]
    # Several short recordings fit one window, so that sequences of them are learned.
    window = min(LONGEST_WINDOW, max(2.0, math.ceil(2 * max(long, 5 * sum(lengths) / len(lengths))) / 2))
    why = "of which 99 of 100 recordings are no longer"
    if "window_seconds" in said:
        window, why = said["window_seconds"], "as --set has it"
    seconds_heard = 0.6 * window * WINDOWS_TOGETHER  # of a step: windows are not full
    steps = max(LEAST_STEPS, round(size.hours_heard * 3600 / seconds_heard))
    evaluate = max(100, steps // 10)
    joined = max(1, min(8, int(window / max(0.3, sum(lengths) / len(lengths)))))
    epochs = steps * WINDOWS_TOGETHER // len(lengths)
    values = {
        "task": "speech-recognition",
        "model": {
            "name": "whisper",
            "d_model": size.d_model,
            "num_heads": size.num_heads,
            "num_encoder_layers": size.layers[0],
            "num_decoder_layers": size.layers[1],
            "dropout": size.dropout,
            "max_len": 256,
        },
        "data": {
            **data,
            "window_seconds": window,
            "max_len": 256,
            "tokenizer": {"kind": "bpe", "vocab_size": max(64, min(4_000, letters // 40))},
            "augment": {
                "joined": joined,
                "joined_epochs": epochs // 2 if joined > 1 else 0,
                "no_speech": 0.05,
                "speed": 0.1,
                "noise": 0.3,
                "frequency_masks": 2,
                "time_masks": 1,
                "time_mask_seconds": min(0.3, window / 40),
            },
        },
        "train": {
            "max_steps": steps,
            "batch_tokens": int(WINDOWS_TOGETHER * window * POSITIONS_A_SECOND),
            "learning_rate": size.learning_rate,
            "final_learning_rate": size.learning_rate / 50,
            "schedule": "cosine",
            "warmup_steps": steps // 12,
            "weight_decay": 0.05,
            "label_smoothing": 0.05,
            "eval_every_steps": evaluate,
            "save_every_steps": evaluate,
            "average": "last",
            "average_checkpoints": 3,
        },
    }
    return values, [
        report.summary(),
        f"{size.layers[0]} + {size.layers[1]} layers of width {size.d_model}: for {hours:.2f} hours of recordings",
        f"windows of {window} seconds, {why}",
        f"{steps:,} steps of {WINDOWS_TOGETHER} windows; recordings joined, faster and slower, under noise and masked",
    ]
