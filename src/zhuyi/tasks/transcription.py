"""From sound to text as every user of a model gets it: windows, search, guards, and the seams between windows."""

import zlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from zhuyi.data.audio import SAMPLE_RATE_HZ, log_mel, windowed
from zhuyi.data.speech_signs import SpeechSigns, SpeechTask
from zhuyi.data.speech_windows import Pauses, Stretch, cut_into_stretches
from zhuyi.data.tokenizers import Tokenizer
from zhuyi.decoding import (
    Beam,
    Event,
    Filter,
    Greedy,
    Hypothesis,
    RepetitionGuard,
    Request,
    Rule,
    Sampling,
    Search,
    Suppress,
    num_lanes,
    run_in_lanes,
)
from zhuyi.errors import InputError
from zhuyi.tasks.stepping import finish
from zhuyi.tasks.times import SuppressFirst, TimeRules, read_times
from zhuyi.tasks.transcripts import Passage, Segment, Transcription, at_seam, at_seam_by_times, merged

TOGETHER = 64  # stretches that are decoded before the first of them is handed out


@dataclass(frozen=True)
class TranscriptionConfig:
    """How speech is searched for, and what is not believed.

    Args:   beam: hypotheses held; 1 is greedy search.
            length_rule, alpha, stop: see `DecodeConfig`.
            batch_windows: windows decoded together.
            max_new_tokens: of a window; what the model reaches, where that is less.
            temperatures: tried one after the other, as long as what comes out is not believed; 0 is the search above.
            least_log_prob: a token's mean; what is below is not believed.
            most_compression: of the text by zlib; what repeats itself more is not believed.
            latest_first_time: seconds; where times are written, none of the first is later.
            no_speech: from this probability of no speech on a window that is not believed has no text.
            pauses: what counts as nothing said, and is not decoded.
            forbidden: ids that are never written; null: all signs but the end, and the times where these are wanted.
            forbidden_first: ids that no text begins with.
    """

    beam: int = 5
    length_rule: Literal["gnmt", "power", "none"] = "power"
    alpha: float = 1.0
    stop: Literal["exact", "first"] = "first"
    batch_windows: int = 8
    max_new_tokens: int = 224
    temperatures: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    least_log_prob: float = -1.0
    most_compression: float = 2.4
    latest_first_time: float = 1.0
    no_speech: float = 0.6
    pauses: Pauses = field(default_factory=Pauses)
    forbidden: tuple[int, ...] | None = None
    forbidden_first: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("beam", "batch_windows", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.alpha < 0:
            raise ValueError(f"alpha must not be negative, got {self.alpha}")
        if not self.temperatures or min(self.temperatures) < 0:
            raise ValueError(f"temperatures must be some numbers of at least 0, got {list(self.temperatures)}")
        if not 0 <= self.no_speech <= 1:
            raise ValueError(f"no_speech lies between 0 and 1, got {self.no_speech}")


@dataclass(frozen=True)
class Manner:
    """What is asked of a model that can do several things.

    Args:   language: a code; `auto`: it finds out, from a recording's first words; empty: it is not taught any.
            times: whether texts are to have times within.
            guarded: False leaves loops to go on, and what is no text to be written, as in other libraries.
    """

    language: str = ""
    task: SpeechTask = "transcribe"
    times: bool = False
    guarded: bool = True


class SpeechModel(Protocol):
    """What transcription asks of a model."""

    config: Any

    @property
    def max_len(self) -> int: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def output_projection(self, x: Tensor) -> Tensor: ...

    def encode(self, features: Tensor) -> Any: ...

    def decode(self, tgt: Tensor, memory: Any) -> Tensor: ...

    def start(self, memory: Any, prefix: Tensor, prefix_mask: Tensor | None = None) -> Any: ...

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]: ...


@dataclass(frozen=True)
class Cut:
    """What is kept of a recording until it is heard.

    Args:   length: samples.
            pieces: the sound of those stretches that are not quiet.
    """

    length: int
    stretches: list[Stretch]
    pieces: list[np.ndarray]


@dataclass(frozen=True)
class Heard:
    """What a model hears in one window.

    Args:   attempt: the hypothesis, signs of times among its tokens.
    """

    attempt: Hypothesis
    text: str
    log_prob: float
    no_speech: float
    temperature: float
    flags: tuple[str, ...]


@torch.inference_mode()
def transcribe(
    model: SpeechModel,
    tokenizer: Tokenizer,
    recordings: Iterable[np.ndarray],
    config: TranscriptionConfig,
    manner: Manner | None = None,
) -> Iterator[Transcription]:
    """What is said in any number of recordings of any length, in order.

    Windows of one recording, and of several, are decoded together; none knows what was said in the one before.

    Args:   recordings: (N,) float32 samples, 16,000 a second.
    """
    listener = Listener(model, tokenizer, config, manner or Manner())
    waiting: list[Cut] = []
    for samples in recordings:
        waiting.append(listener.cut_up(samples))
        loud = sum(len(each.pieces) for each in waiting)
        if loud >= TOGETHER or not loud:  # where there is nothing to hear, there is nothing to wait for
            yield from listener.hear_all(waiting)
            waiting = []
    yield from listener.hear_all(waiting)


@torch.inference_mode()
def transcribe_by_steps(
    model: SpeechModel,
    tokenizer: Tokenizer,
    samples: np.ndarray,
    config: TranscriptionConfig,
    manner: Manner | None = None,
) -> Generator[None, None, Transcription]:
    """As `transcribe` of one recording, for who has other work to do at every `yield`, a token's time apart."""
    listener = Listener(model, tokenizer, config, manner or Manner())
    cut = listener.cut_up(samples)
    language = listener.languages([0] * len(cut.pieces), cut.pieces).get(0, "")
    heard: list[Heard] = []
    for first in range(0, len(cut.pieces), config.batch_windows):
        pieces = cut.pieces[first : first + config.batch_windows]
        heard += yield from listener.hearing(pieces, [language] * len(pieces), by_steps=True)
    return listener.transcription(cut, heard, language)


class Listener:
    """A model with all that is asked of it; `transcribe` is how it is used."""

    def __init__(self, model: SpeechModel, tokenizer: Tokenizer, config: TranscriptionConfig, manner: Manner) -> None:
        self.model, self.tokenizer, self.config, self.manner = model, tokenizer, config, manner
        self.signs = SpeechSigns.of(tokenizer)
        self.device = next(iter(model.parameters())).device
        self.window_seconds: float = model.config.window_seconds
        if manner.language == "auto" and not self.signs.languages:
            raise InputError("language 'auto': this model has no signs for languages to choose from; give none")
        if manner.language != "auto":
            self.prefix(manner.language)  # refuses what the model has no sign for, before anything is decoded

    def cut(self, samples: np.ndarray) -> list[Stretch]:
        return cut_into_stretches(samples, self.window_seconds, self.config.pauses)

    def prefix(self, language: str) -> tuple[int, ...]:
        """What stands before a text."""
        return self.signs.prefix(language, self.manner.task, times=self.manner.times)

    def features(self, pieces: Sequence[np.ndarray]) -> Tensor:
        """Shape: returns (B, bins, frames)."""
        samples = windowed(list(pieces), self.window_seconds).to(self.device)
        return log_mel(samples, self.model.config.num_mel_bins)

    def cut_up(self, samples: np.ndarray) -> Cut:
        """The recording without what is not to be heard, and without hold on the rest."""
        stretches = self.cut(samples)
        pieces = [samples[each.start : each.end].copy() for each in stretches if not each.quiet]
        return Cut(len(samples), stretches, pieces)

    def hear_all(self, cut: Sequence[Cut]) -> Iterator[Transcription]:
        """The transcriptions of recordings that are cut already."""
        owners = [i for i, each in enumerate(cut) for _ in each.pieces]
        pieces = [piece for each in cut for piece in each.pieces]
        languages = self.languages(owners, pieces)
        heard = iter(self.hear(pieces, [languages[i] for i in owners]))
        for i, each in enumerate(cut):
            yield self.transcription(each, list(islice(heard, len(each.pieces))), languages.get(i, ""))

    def transcription(self, cut: Cut, heard: Sequence[Heard], language: str) -> Transcription:
        """Put a recording together from what is heard in its pieces."""
        following = iter(heard)
        found = [(stretch, None if stretch.quiet else next(following)) for stretch in cut.stretches]
        return self._transcription(cut.length, found, language)

    def hear(self, pieces: Sequence[np.ndarray], languages: Sequence[str]) -> list[Heard]:
        """What is said in windows, each by itself."""
        return finish(self.hearing(pieces, languages, by_steps=False))

    def hearing(
        self, pieces: Sequence[np.ndarray], languages: Sequence[str], *, by_steps: bool
    ) -> Generator[None, None, list[Heard]]:
        """As `hear`; what is not believed is tried again at the next temperature.

        Args:   by_steps: yield after each token, in one lane.
        """
        found: dict[int, Heard] = {}
        pending = list(range(len(pieces)))
        for temperature in self.config.temperatures:
            attempts, no_speech = yield from self._search(pieces, languages, pending, temperature, by_steps)
            for i in pending:
                heard = self._judged(attempts[i], no_speech[i], temperature)
                found[i] = _better(found[i], heard) if i in found else heard
            pending = [i for i in pending if "uncertain" in found[i].flags]
            if not pending:
                break
        return [found[i] for i in range(len(pieces))]

    def detect_languages(self, pieces: Sequence[np.ndarray]) -> list[str]:
        """The likeliest language of each window: what the model writes behind the start sign (section 2.3)."""
        codes = list(self.signs.languages)
        ids = torch.tensor([self.signs.languages[code] for code in codes], device=self.device)
        found: list[str] = []
        for first in range(0, len(pieces), self.config.batch_windows):
            features = self.features(pieces[first : first + self.config.batch_windows])
            start = torch.full((len(features), 1), self.signs.start, device=self.device)
            logits = self.model.output_projection(self.model.decode(start, self.model.encode(features))[:, 0])
            found += [codes[i] for i in logits[:, ids].argmax(dim=1).tolist()]
        return found

    def languages(self, owners: Sequence[int], pieces: Sequence[np.ndarray]) -> dict[int, str]:
        """Of each recording with something to hear: what was asked for, or what its first window tells."""
        if self.manner.language != "auto":
            return dict.fromkeys(owners, self.manner.language)
        firsts = [n for n, owner in enumerate(owners) if not n or owners[n - 1] != owner]
        codes = self.detect_languages([pieces[n] for n in firsts])
        return {owners[n]: code for n, code in zip(firsts, codes, strict=True)}

    def _search(
        self,
        pieces: Sequence[np.ndarray],
        languages: Sequence[str],
        chosen: Sequence[int],
        temperature: float,
        by_steps: bool,
    ) -> Generator[None, None, tuple[dict[int, Hypothesis], dict[int, float]]]:
        """What is found in the chosen windows, and how likely there is no speech in each."""
        no_speech: dict[int, float] = {}

        def begin(requests: Sequence[Request]) -> tuple[Any, Tensor]:
            memory = self.model.encode(self.features([pieces[request.id] for request in requests]))
            # Prefixes are of one length: each has a language's sign, or none has.
            prefix = torch.tensor([request.inputs for request in requests], device=self.device)
            no_speech.update(zip([r.id for r in requests], self._no_speech(prefix, memory), strict=True))
            return self.model.start(memory, prefix), prefix[:, -1]

        rule = self._rule(temperature)
        count = num_lanes(self.device)
        searches = [
            Search(
                begin,
                self.model.step,
                rule,
                eos_id=self.signs.end,
                filters=self._filters(),
                stream=False,
                may_list=True,
            )
            for _ in range(count)
        ]
        requests = []
        for i in chosen:
            prefix = self.prefix(languages[i])
            most = max(1, min(self.config.max_new_tokens, self.model.max_len - len(prefix)))
            requests.append(Request(i, prefix, most, seed=zlib.crc32(np.ascontiguousarray(pieces[i]).tobytes())))
        if by_steps:
            events = yield from _stepped(searches[0], requests)
        else:
            max_rows = max(count, self.config.batch_windows) * rule.width
            events = list(run_in_lanes(searches, requests, max_rows=max_rows))
        return {event.id: event.hypotheses[0] for event in events if event.hypotheses}, no_speech

    def _no_speech(self, prefix: Tensor, memory: Any) -> list[float]:
        """The probability of the sign for it behind the start sign; where there is none, that the text ends at once."""
        sign = self.signs.no_speech
        states = self.model.decode(prefix[:, :1] if sign is not None else prefix, memory)[:, -1]
        probs = self.model.output_projection(states).float().softmax(dim=-1)
        return probs[:, self.signs.end if sign is None else sign].tolist()

    def _rule(self, temperature: float) -> Rule:
        config = self.config
        if temperature > 0:
            return Sampling(temperature=temperature)
        if config.beam == 1:
            return Greedy()
        return Beam(config.beam, length_rule=config.length_rule, alpha=config.alpha, stop=config.stop)

    def _filters(self) -> list[Filter]:
        config, own = self.config, self.tokenizer.signs
        times = range(self.signs.first_time or self.tokenizer.vocab_size, self.tokenizer.vocab_size)
        never = set(config.forbidden or ())
        if config.forbidden is None or self.manner.guarded:
            never |= own.all() - {own.eos} - (set(times) if self.manner.times else set())
        filters: list[Filter] = [Suppress(never), SuppressFirst(config.forbidden_first)]
        if self.manner.times:
            filters.append(TimeRules(self.signs, config.latest_first_time))
        if self.manner.guarded:
            filters.append(RepetitionGuard(self.signs.end))
        return filters

    def _judged(self, attempt: Hypothesis, no_speech: float, temperature: float) -> Heard:
        """The text, if it is believed, or with the flag that says it is not."""
        config = self.config
        text = self.tokenizer.decode(attempt.tokens).strip()
        log_prob = attempt.log_prob / (len(attempt.tokens) + attempt.finished or 1)
        flags = tuple(flag for flag in attempt.flags if flag in ("repetition", "length"))
        unlikely = log_prob < config.least_log_prob
        if unlikely and no_speech > config.no_speech:
            text = ""
        else:
            if compression(text) > config.most_compression and "repetition" not in flags:
                flags += ("repetition",)
            flags += ("uncertain",) if unlikely or "repetition" in flags else ()
        if temperature != config.temperatures[0]:
            flags += ("temperature",)
        return Heard(attempt, text, log_prob, no_speech, temperature, flags)

    def _transcription(
        self, samples: int, found: Sequence[tuple[Stretch, Heard | None]], language: str
    ) -> Transcription:
        """Put a recording together again: texts in their places, and what has none."""
        segments: list[Segment] = []
        last: list[Segment] = []  # of the stretch before
        nothing: list[Passage] = []
        for stretch, heard in found:
            start, end = stretch.start / SAMPLE_RATE_HZ, stretch.end / SAMPLE_RATE_HZ
            if heard is None or not heard.text:
                nothing.append(Passage(start, end, stretch.quiet or "no_speech"))
                continue
            new = self._segments(start, end, heard)
            if stretch.overlap:
                last, new = (at_seam_by_times if self.manner.times else at_seam)(last, new, stretch)
            if new:
                segments += last
                last = new
        return Transcription(samples / SAMPLE_RATE_HZ, (*segments, *last), language, tuple(merged(nothing)))

    def _segments(self, start: float, end: float, heard: Heard) -> list[Segment]:
        """By the times within the text, where it has any; else one."""
        whole = Segment(start, end, heard.text, heard.log_prob, heard.no_speech, heard.temperature, heard.flags)
        if not self.manner.times:
            return [whole]
        found = []
        for first, last, tokens in read_times(heard.attempt.tokens, self.signs, end - start):
            if text := self.tokenizer.decode(tokens).strip():
                found.append(replace(whole, start=start + first, end=start + last, text=text))
        return found


def _stepped(search: Search, requests: Sequence[Request]) -> Generator[None, None, list[Event]]:
    """Each window is a step as it is taken in, and each token of all of them."""
    for request in requests:
        search.admit([request])
        yield
    events: list[Event] = []
    while search.active:
        events += search.advance()
        yield
    return events


def _better(first: Heard, second: Heard) -> Heard:
    """The second, if it is believed; of two that are not, one that does not repeat itself, and the likelier one."""
    if "uncertain" not in second.flags:
        return second
    return max(first, second, key=lambda heard: ("repetition" not in heard.flags, heard.log_prob))


def compression(text: str) -> float:
    """How many times shorter zlib makes a text: repetitions make that easy.

    Source: Radford et al. 2022, section 4.5.
    """
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0
