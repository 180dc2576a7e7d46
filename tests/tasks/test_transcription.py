"""Windows, search, guards and seams, by a model that hears what a script says."""

import weakref
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.data.test_speech_windows import silence, speech

from zhuyi.data.speech_windows import Pauses, Stretch
from zhuyi.data.tokenizers import Tokenizer, TokenizerConfig, train_tokenizer
from zhuyi.errors import InputError
from zhuyi.tasks.transcription import (
    Manner,
    TranscriptionConfig,
    compression,
    transcribe,
    transcribe_by_steps,
)
from zhuyi.tasks.transcripts import Passage, Segment, at_seam_by_times

WORDS = ("one", "two", "three", "four", "five")
RATE = 16000


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(list(WORDS) * 3, TokenizerConfig(kind="bpe", vocab_size=64))


class State:
    """The row's script and place in it."""

    def __init__(self, scripts: torch.Tensor, places: torch.Tensor) -> None:
        self.scripts, self.places = scripts, places

    def select(self, rows: torch.Tensor) -> "State":
        return State(self.scripts[rows], self.places[rows])

    def join(self, other: "State") -> "State":
        return State(torch.cat([self.scripts, other.scripts]), torch.cat([self.places, other.places]))


class Scripted:
    """Writes the script of the same number as the window's loudest bin, with the probability that goes with it.

    The second number of a script's entry is the logit of each of its tokens over all others.
    """

    max_len = 40

    def __init__(self, tokenizer: Tokenizer, scripts: list[tuple[str, float]], no_speech: float = 0.0) -> None:
        self.config = SimpleNamespace(window_seconds=2.0, num_mel_bins=20)
        self.scripts, self.no_speech = scripts, no_speech
        ids = [tokenizer.encode(text) for text, _ in scripts]
        length = self.max_len + 1
        self.ids = torch.tensor([[*row, *[tokenizer.signs.eos] * length][:length] for row in ids])
        self.gains = torch.tensor([gain for _, gain in scripts])
        self.vocab, self.end = tokenizer.vocab_size, tokenizer.signs.eos
        self.windows = 0

    def parameters(self) -> Any:
        return iter([torch.zeros(1)])

    def encode(self, features: torch.Tensor) -> torch.Tensor:
        self.windows += len(features)
        return torch.arange(self.windows - len(features), self.windows) % len(self.scripts)

    def decode(self, tgt: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(len(memory), tgt.shape[1], self.vocab)
        odds = self.no_speech / max(1e-9, 1 - self.no_speech)
        logits[..., self.end] = float(np.log(max(1e-9, odds * (self.vocab - 1))))
        return logits

    def output_projection(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def start(self, memory: torch.Tensor, prefix: torch.Tensor, prefix_mask: Any = None) -> State:
        return State(memory, torch.zeros_like(memory))

    def step(self, tokens: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        logits = torch.zeros(len(tokens), self.vocab)
        wanted = self.ids[state.scripts, state.places]
        logits[torch.arange(len(tokens)), wanted] = self.gains[state.scripts]
        return logits, State(state.scripts, state.places + 1)


GREEDY = TranscriptionConfig(beam=1, temperatures=(0.0,), batch_windows=64, pauses=Pauses(pause_seconds=0.3))


def run(model: Scripted, tokenizer: Tokenizer, sounds: list[np.ndarray], config: TranscriptionConfig = GREEDY) -> Any:
    return list(transcribe(model, tokenizer, sounds, config))


def test_silence_and_noise_are_not_decoded(tokenizer: Tokenizer) -> None:
    model = Scripted(tokenizer, [("one", 20.0)])
    noise = (0.1 * np.random.default_rng(0).standard_normal(60 * RATE)).astype(np.float32)
    quiet, noisy, nothing = run(model, tokenizer, [silence(60), noise, silence(0)])
    assert model.windows == 0
    assert (quiet.text, noisy.text, nothing.text) == ("", "", "")
    assert quiet.without_speech == (Passage(0.0, 60.0, "silence"),)
    assert noisy.without_speech == (Passage(0.0, 60.0, "steady"),)
    assert nothing.without_speech == ()


@pytest.mark.parametrize("beam", [1, 3])
def test_recordings_come_back_in_order_with_their_times(tokenizer: Tokenizer, beam: int, monkeypatch: Any) -> None:
    monkeypatch.setattr("zhuyi.tasks.transcription.num_lanes", lambda device: 1)  # the script goes by the order
    scripts = [(word, 20.0) for word in WORDS]
    first = np.concatenate([speech(1.0), silence(0.8), speech(1.0, 1), silence(1.5), speech(1.0, 2)])
    config = TranscriptionConfig(beam=beam, temperatures=(0.0,), batch_windows=64, pauses=Pauses(pause_seconds=0.3))
    found = run(Scripted(tokenizer, scripts), tokenizer, [first, silence(2), speech(1.5), speech(0.9)], config)
    assert [each.text for each in found] == ["one two three", "", "four", "five"]
    starts = [segment.start for segment in found[0].segments]
    assert starts == pytest.approx([0.0, 1.8, 4.3], abs=0.15)
    assert all(segment.end <= each.seconds for each in found for segment in each.segments)
    assert [passage.reason for passage in found[0].without_speech] == ["silence"]


def test_what_the_model_calls_no_speech_has_no_text(tokenizer: Tokenizer) -> None:
    (found,) = run(Scripted(tokenizer, [("one", 2.0)], no_speech=0.9), tokenizer, [speech(1.0)])
    assert found.text == "" and found.without_speech[0].reason == "no_speech"
    (sure,) = run(Scripted(tokenizer, [("one", 20.0)], no_speech=0.9), tokenizer, [speech(1.0)])
    assert sure.text == "one"  # it is certain of its words
    (empty,) = run(Scripted(tokenizer, [("", 20.0)]), tokenizer, [speech(1.0)])
    assert empty.text == "" and empty.without_speech[0].reason == "no_speech"


def test_what_is_not_believed_is_tried_again_and_flagged(tokenizer: Tokenizer) -> None:
    config = TranscriptionConfig(beam=1, temperatures=(0.0, 0.5, 1.0), pauses=GREEDY.pauses)
    model = Scripted(tokenizer, [("one two", 1.0)])
    (found,) = run(model, tokenizer, [speech(1.0)], config)
    assert model.windows == 3 and {"uncertain", "temperature"} >= set(found.segments[0].flags)
    assert "uncertain" in found.segments[0].flags
    again = run(Scripted(tokenizer, [("one two", 1.0)]), tokenizer, [speech(1.0)], config)
    assert again == [found]  # what is drawn depends on the sound alone
    model = Scripted(tokenizer, [("one two", 20.0)])
    (sure,) = run(model, tokenizer, [speech(1.0)], config)
    assert model.windows == 1 and sure.segments[0].flags == () and sure.segments[0].temperature == 0.0


@pytest.mark.parametrize("beam", [1, 3])
def test_by_steps_the_same_is_heard(tokenizer: Tokenizer, beam: int, monkeypatch: Any) -> None:
    monkeypatch.setattr("zhuyi.tasks.transcription.num_lanes", lambda device: 1)
    scripts = [("one two", 20.0), ("three", 1.0), ("four five", 20.0), ("", 20.0)]
    sound = np.concatenate([part for i in range(5) for part in (speech(1.0, i), silence(0.8))])
    config = TranscriptionConfig(beam=beam, temperatures=(0.0, 0.5), batch_windows=5, pauses=GREEDY.pauses)
    (wanted,) = run(Scripted(tokenizer, scripts), tokenizer, [sound], config)
    steps, turns = transcribe_by_steps(Scripted(tokenizer, scripts), tokenizer, sound, config), 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            assert end.value == wanted
            break
        turns += 1
    assert turns > 5 + 3  # at every window's beginning, and at every token
    assert wanted.text.startswith("one two three four five")


def test_loops_are_ended_and_told(tokenizer: Tokenizer) -> None:
    (found,) = run(Scripted(tokenizer, [(" ".join(["one"] * 60), 20.0)]), tokenizer, [speech(1.0)])
    assert found.text.count("one") < 20
    assert "repetition" in found.segments[0].flags
    assert compression("one two three") < 2.4 < compression("one two three " * 20)


def test_stretches_without_a_pause_are_joined_by_their_words(tokenizer: Tokenizer, monkeypatch: Any) -> None:
    monkeypatch.setattr("zhuyi.tasks.transcription.num_lanes", lambda device: 1)
    level = 1 + 0.5 * np.sin(2 * np.pi * 40 * np.arange(int(3.5 * RATE)) / RATE)
    sound = (0.1 * level * np.random.default_rng(0).standard_normal(len(level))).astype(np.float32)
    config = TranscriptionConfig(beam=1, temperatures=(0.0,), pauses=Pauses(steady_db=0.0))
    model = Scripted(tokenizer, [("one two three", 20.0), ("three four", 20.0)])
    (found,) = run(model, tokenizer, [sound], config)
    assert found.text == "one two three four" and found.segments[-1].flags == ("joined",)


def without_pauses(seconds: float) -> np.ndarray:
    """Noise whose level swings too fast for a pause."""
    level = 1 + 0.5 * np.sin(2 * np.pi * 40 * np.arange(int(seconds * RATE)) / RATE)
    return (0.1 * level * np.random.default_rng(0).standard_normal(len(level))).astype(np.float32)


def test_a_seam_knows_the_last_stretch_alone(tokenizer: Tokenizer, monkeypatch: Any) -> None:
    monkeypatch.setattr("zhuyi.tasks.transcription.num_lanes", lambda device: 1)
    config = TranscriptionConfig(beam=1, temperatures=(0.0,), pauses=Pauses(steady_db=0.0))
    texts = ["one two three four five", "five four three two one", "one two five four three", "three one two four five"]
    sound = np.concatenate([speech(0.5), silence(1.5), without_pauses(6.6)])  # an earlier one, and four that overlap
    model = Scripted(tokenizer, [(text, 20.0) for text in ["one", *texts]])
    (found,) = run(model, tokenizer, [sound], config)
    expected = ["one", texts[0], *[text.partition(" ")[2] for text in texts[1:]]]
    assert [segment.text for segment in found.segments] == expected
    ends = [segment.end for segment in found.segments[1:-1]]
    assert ends == [segment.start for segment in found.segments[2:]]


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ("0-24 a;24.6-30 lost words", "24-29.8 lost words;30-50 b", "0-24 a;24-29.8 lost words;30-50 b"),
        ("0-20 a;20-29 b", "24-28.9 b;29.1-50 c", "0-20 a;20-29 b;29.1-50 c"),
        ("0-20 a;20-30 k l m n", "24-25 l;25-35 l m n o p", "0-20 a;20-27.5 k l m n;27.5-35 o p"),  # across the cut
        ("25-30 a", "25-30 a;30-31 b", "25-30 a;30-31 b"),
        ("0-23 a", "31-50 b", "0-23 a;31-50 b"),
    ],
)
def test_at_a_seam_with_times_nothing_is_lost(before: str, after: str, found: str) -> None:
    def segments(text: str) -> list[Segment]:
        parts = (part.replace("-", " ", 1).split(" ", 2) for part in text.split(";"))
        return [Segment(float(start), float(end), words) for start, end, words in parts]

    left, right = at_seam_by_times(segments(before), segments(after), Stretch(24 * RATE, 54 * RATE, "", 6 * RATE))
    assert [replace(each, flags=()) for each in left + right] == segments(found)


def test_what_is_heard_later_keeps_no_silence(tokenizer: Tokenizer) -> None:
    made: list[weakref.ref[np.ndarray]] = []

    def recordings(*sounds: np.ndarray) -> Iterator[np.ndarray]:
        for sound in sounds:
            samples = sound.copy()
            made.append(weakref.ref(samples))
            yield samples
            del samples

    model = Scripted(tokenizer, [("one", 20.0)])
    found = transcribe(model, tokenizer, recordings(silence(2), silence(2)), GREEDY)
    assert next(found).text == "" and len(made) == 1  # handed out before the second is read
    made.clear()
    long = np.concatenate([speech(1.0), silence(20)])
    alive: list[int] = []

    def counted() -> Iterator[np.ndarray]:
        for samples in recordings(*[long] * 5):
            yield samples
            del samples
            alive.append(sum(each() is not None for each in made))

    assert [each.text for each in transcribe(model, tokenizer, counted(), GREEDY)] == ["one"] * 5
    assert max(alive) <= 2


def test_what_a_model_has_no_sign_for_is_refused(tokenizer: Tokenizer) -> None:
    model = Scripted(tokenizer, [("one", 20.0)])
    for manner, message in (
        (Manner("en"), "language 'en'"),
        (Manner("auto"), "language 'auto'"),
        (Manner(task="translate"), "cannot translate"),
        (Manner(times=True), "no signs for times"),
    ):
        with pytest.raises(InputError, match=message):
            list(transcribe(model, tokenizer, [speech(1.0)], GREEDY, manner))
