"""A speech run in memory: recordings to texts with times, as text, subtitles or JSON, and where the model listened."""

import json
import math
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from zhuyi.config import RunConfig
from zhuyi.data.audio import SAMPLE_RATE_HZ, read_audio
from zhuyi.data.speech_signs import SpeechSigns, SpeechTask
from zhuyi.data.tokenizers import Tokenizer
from zhuyi.errors import InputError
from zhuyi.nn.maps import Maps
from zhuyi.predict.writing_steps import Likely, label, likeliest
from zhuyi.run_folder import RunFolder
from zhuyi.tasks.speech_data import text_ids
from zhuyi.tasks.text_data import load_tokenizer
from zhuyi.tasks.transcription import (
    Listener,
    Manner,
    TranscriptionConfig,
    transcribe,
    transcribe_by_steps,
)
from zhuyi.tasks.transcripts import Transcription

Sound = str | Path | np.ndarray


@dataclass(frozen=True)
class SoundMaps:
    """A window of sound, its text, and where every head looked in one forward pass over both.

    Args:  read_tokens: what the decoder reads: the signs before a text, then its tokens but for the last.
           likely: of each of the tokens the likeliest ones, where they were asked for.
    Shape: samples (N,), 16,000 a second; maps: each (H, T, S) by its place's name; rows of `decoder.*` are the
           decoder's inputs, and row t is what writes tokens[t]; a column of the encoder is 20 ms.
    """

    samples: np.ndarray
    tokens: tuple[str, ...]
    maps: dict[str, torch.Tensor]
    read_tokens: tuple[str, ...] = ()
    likely: Likely = ()


class Transcriber:
    """A speech run in memory: `model` is the module, `config` what it was made from."""

    def __init__(self, model: nn.Module, config: RunConfig, tokenizer: Tokenizer, precision: str = "float32") -> None:
        self.model: Any = model
        self.config = config
        self.tokenizer = tokenizer
        self.precision = precision
        self.signs = SpeechSigns.of(tokenizer)

    @classmethod
    def from_folder(cls, model: nn.Module, config: RunConfig, folder: RunFolder, precision: str) -> Self:
        """Read the tokenizer too.

        Raises: InputError: it is missing, broken, or of another model.
        """
        tokenizer = load_tokenizer(folder.path)
        if tokenizer.vocab_size != config.model.vocab_size:
            raise InputError(
                f"{folder.path}: the tokenizer has {tokenizer.vocab_size:,} pieces but the model "
                f"{config.model.vocab_size:,}; put back the tokenizer that the run was trained with"
            )
        return cls(model, config, tokenizer, precision)

    def transcribe(
        self,
        sounds: Iterable[Sound],
        *,
        beam: int | None = None,
        language: str | None = None,
        task: SpeechTask = "transcribe",
        times: bool | None = None,
    ) -> list[Transcription]:
        """What is said in recordings of any length; as many come back, in the same order.

        Args:   sounds: files, or arrays (N,) of samples, 16,000 a second: floats about within -1 and 1, or integers.
                beam: hypotheses held; the run's own where not given, 1 is greedy.
                language: a code, or `auto`; the run's own where not given.
                task: `translate` into English, where a model was taught to.
                times: whether the model is to write times within its texts; where not given, if it can.
        Raises: InputError: a file or an array is no sound, or the model has no such language or task.
        """
        if isinstance(sounds, str | Path | np.ndarray):
            raise InputError("transcribe takes a list of recordings; for one write transcribe([recording])")
        return list(self.stream(sounds, beam=beam, language=language, task=task, times=times))

    def stream(
        self,
        sounds: Iterable[Sound],
        *,
        beam: int | None = None,
        language: str | None = None,
        task: SpeechTask = "transcribe",
        times: bool | None = None,
    ) -> Iterator[Transcription]:
        """As `transcribe`, one after the other, in memory bounded by some minutes of sound and the longest file."""
        manner = self.manner(language, task, times)
        return transcribe(self.model, self.tokenizer, map(_samples, sounds), self.decode_config(beam), manner)

    def by_steps(
        self,
        sound: Sound,
        *,
        beam: int | None = None,
        language: str | None = None,
        task: SpeechTask = "transcribe",
        times: bool | None = None,
    ) -> Generator[None, None, Transcription]:
        """As `transcribe` of one recording, for who has other work to do at every `yield`, a token's time apart."""
        manner = self.manner(language, task, times)
        return transcribe_by_steps(self.model, self.tokenizer, _samples(sound), self.decode_config(beam), manner)

    def manner(self, language: str | None = None, task: SpeechTask = "transcribe", times: bool | None = None) -> Manner:
        """What is asked of the model, with its own habits where nothing is said."""
        language = self.config.data.language if language is None else language
        if task == "translate" and not language:
            language = "auto" if self.signs.translate is not None and self.signs.languages else ""
        return Manner(language, task, self.signs.has_times if times is None else times)

    def decode_config(self, beam: int | None = None) -> TranscriptionConfig:
        """The run's search options, with those given here in their place."""
        decode: TranscriptionConfig = self.config.decode
        try:
            return replace(decode, beam=decode.beam if beam is None else beam)
        except ValueError as error:
            raise InputError(str(error)) from None

    @torch.inference_mode()
    def attention(
        self, sound: Sound, text: str | None = None, *, language: str | None = None, steps: bool = False
    ) -> SoundMaps:
        """Where every head looks, over the first window in which something is said, and its text.

        Args:   text: what is said there; found here where not given.
                steps: tell also which tokens were likeliest at each place.
        Raises: InputError: nothing is to be heard, or the text is empty.
        """
        samples = _samples(sound)
        listener = Listener(self.model, self.tokenizer, self.decode_config(), self.manner(language, times=False))
        loud = [stretch for stretch in listener.cut(samples) if not stretch.quiet]
        if not loud:
            raise InputError("there is nothing to listen to: the recording is silent, or as steady as no speech is")
        piece = samples[loud[0].start : loud[0].end]
        code = listener.manner.language
        code = listener.detect_languages([piece])[0] if code == "auto" else code
        if text is None:
            text = listener.hear([piece], [code])[0].text
        if not text:
            raise InputError("there is nothing to attend to: the model hears no speech there; give a text by --target")
        ids, prefix = text_ids(self.tokenizer, self.signs, text), listener.prefix(code)
        if len(ids) + len(prefix) - 1 > self.model.max_len:
            raise InputError(f"the text is longer than the {self.model.max_len} tokens of the model; shorten it")
        maps = Maps()
        tgt = torch.tensor([[*prefix, *ids[:-1]]], device=listener.device)
        states = self.model.decoder_states(listener.features([piece]), tgt, maps=maps)
        skipped, positions = len(prefix) - 1, -(-len(piece) * 50 // SAMPLE_RATE_HZ)
        return SoundMaps(
            piece,
            tuple(self.tokenizer.labels[i] for i in ids),
            {name: _cut(name, weights[0].float().cpu(), skipped, positions) for name, weights in maps.weights.items()},
            tuple(label(self.tokenizer, i) for i in tgt[0].tolist()),
            likeliest(self.model.output_projection(states)[0, skipped:], self.tokenizer) if steps else (),
        )


def _samples(sound: Sound) -> np.ndarray:
    """A recording's samples as float32; whole numbers are scaled by the largest of their type. Shape: (N,)."""
    if not isinstance(sound, np.ndarray):
        return read_audio(sound)
    if sound.ndim != 1 or sound.dtype.kind not in "fi":
        raise InputError(
            f"an array of shape {sound.shape} and type {sound.dtype} is no recording; give one row of samples, "
            "16,000 a second, as floats or signed integers"
        )
    if sound.dtype.kind == "i":
        return (sound / -float(np.iinfo(sound.dtype).min)).astype(np.float32)
    if not np.isfinite(sound).all():
        raise InputError("an array holds samples that are no finite numbers; leave them out")
    return sound.astype(np.float32, copy=False)


def _cut(name: str, weights: torch.Tensor, skipped: int, positions: int) -> torch.Tensor:
    """Without what a text's prefix looked at, and without the silence that fills the window. Shape: (H, T, S)."""
    if name.startswith("encoder"):
        return weights[:, :positions, :positions]
    return weights[:, skipped:, :positions] if name.endswith("cross") else weights[:, skipped:]


# The forms that a transcription is written in.


def as_text(found: Transcription) -> str:
    """The text alone, in one line."""
    return " ".join(found.text.split())


def as_srt(found: Transcription) -> str:
    """SubRip subtitles."""
    blocks = (
        f"{number}\n{_clock(each.start, ',')} --> {_clock(each.end, ',')}\n{each.text}\n"
        for number, each in enumerate(found.segments, 1)
    )
    return "\n".join(blocks)


def as_vtt(found: Transcription) -> str:
    """WebVTT subtitles."""
    blocks = (
        f"{_clock(each.start, '.')} --> {_clock(each.end, '.')}\n{_escaped(each.text)}\n" for each in found.segments
    )
    return "\n".join(["WEBVTT\n", *blocks])


def as_json(found: Transcription, path: str = "") -> str:
    """One object in one line: text, language, segments with their scores and flags, and what has no text and why."""
    segments = [
        asdict(each)
        | {name: round(getattr(each, name), 3) for name in ("start", "end", "temperature")}
        | {"log_prob": round(each.log_prob, 5) if math.isfinite(each.log_prob) else None}  # JSON has no infinity
        | {"no_speech": round(each.no_speech, 5)}
        for each in found.segments
    ]
    without = [{"start": round(p.start, 3), "end": round(p.end, 3), "reason": p.reason} for p in found.without_speech]
    values: dict[str, Any] = {"file": path} if path else {}
    values |= {"text": found.text, "language": found.language, "seconds": round(found.seconds, 3)}
    return json.dumps(values | {"segments": segments, "without_speech": without}, ensure_ascii=False)


FORMATS: dict[str, Callable[[Transcription], str]] = {"txt": as_text, "srt": as_srt, "vtt": as_vtt, "json": as_json}


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{point}{rest % 1000:03}"


def _escaped(text: str) -> str:
    """WebVTT reads `<` as the beginning of a tag and `&` as that of a character's name."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
