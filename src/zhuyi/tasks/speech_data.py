"""From recordings to a tokenizer and batches of spectrograms and texts: for tasks that listen."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from zhuyi.atomic import replacing
from zhuyi.data.audio import HOP_SAMPLES, SAMPLE_RATE_HZ, log_mel, windowed
from zhuyi.data.batches import pad
from zhuyi.data.corpus import Corpus, write_corpus
from zhuyi.data.normalization import contains_han
from zhuyi.data.origins import forget_unless, origin_of
from zhuyi.data.pairs import TOO_LONG, CleaningReport
from zhuyi.data.recordings import Names, files_of, read_recordings
from zhuyi.data.speech_examples import (
    AugmentConfig,
    draws_for,
    join_texts,
    mask_features,
    no_speech_example,
    speech_example,
)
from zhuyi.data.speech_signs import SpeechSigns
from zhuyi.data.tokenizers import Tokenizer, TokenizerConfig
from zhuyi.errors import InputError
from zhuyi.tasks.announcing import Announce
from zhuyi.tasks.text_data import find_tokenizer

SPLITS = ("train", "valid")
COLUMNS: dict[str, Literal["ids", "text"]] = {"place": "ids", "text": "text", "name": "text"}
BLOCK = 1 << 30  # a place is one of so many samples, and how far into it: an id has 32 bits
POSITIONS_A_SECOND = 50  # of the encoder: what a batch is measured by
FRAMES_A_SECOND = SAMPLE_RATE_HZ // HOP_SAMPLES
LARGEST_SAMPLE = 32767  # recordings are kept in 16 bits
DETECT = "auto"


@dataclass(frozen=True)
class SpeechDataConfig:
    """Where recordings come from, how they become spectrograms, and their texts ids.

    Args:   train, valid, test: tables of path<TAB>text, folders, or tars.
            columns: of tables, from 1.
            train_names, valid_names, test_names: regular expressions; only recordings in whose names they are found
            belong to the split. With one alone, valid and test are taken from the files of train.
            text_from_name: a regular expression whose first group is the text; empty: a folder or tar has the text
            beside each recording, in a file ending in .txt.
            words: what the texts from names stand for.
            valid_share: of the recordings, held out where no validation is given.
            language: of an imported model that knows several, the code of the texts' language; `auto`: it is to find
            out itself, which is for use and not for training.
            window_seconds: what the model reads at once; longer recordings are left out of training.
            num_mel_bins: height of the spectrogram.
            max_len: tokens of a text, all signs included; longer texts are left out of training.
    """

    train: tuple[str, ...] = ()
    valid: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    columns: tuple[int, int] = (1, 2)
    train_names: str = ""
    valid_names: str = ""
    test_names: str = ""
    text_from_name: str = ""
    words: dict[str, str] = field(default_factory=dict)
    valid_share: float = 0.05
    language: str = ""
    window_seconds: float = 30.0
    num_mel_bins: int = 80
    max_len: int = 448
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)

    def __post_init__(self) -> None:
        for name in ("train_names", "valid_names", "test_names", "text_from_name"):
            try:
                pattern = re.compile(getattr(self, name))
            except re.error as error:
                raise ValueError(f"{name} = {getattr(self, name)!r} is no regular expression: {error}") from None
            if name == "text_from_name" and getattr(self, name) and pattern.groups < 1:
                raise ValueError(
                    f"text_from_name = {self.text_from_name!r} has no group in parentheses: which part is it?"
                )
        if not 0 < self.valid_share < 1:
            raise ValueError(f"valid_share lies between 0 and 1, got {self.valid_share}")
        if not 0 < self.window_seconds <= 600:
            raise ValueError(f"window_seconds lies above 0 and up to 600, got {self.window_seconds}")
        if not 1 <= self.num_mel_bins <= 128:
            raise ValueError(f"num_mel_bins lies between 1 and 128, got {self.num_mel_bins}")
        if self.max_len < 2:
            raise ValueError(f"max_len must be at least 2, got {self.max_len}")
        if min(self.columns) < 1:
            raise ValueError(f"columns are counted from 1, got {self.columns[0]} and {self.columns[1]}")
        if "-" in (*self.train, *self.valid, *self.test):
            raise ValueError("recordings are read more than once: give a file, not -")

    def files(self, split: str) -> tuple[str, ...]:
        """The sources of a split; those of `train` where it has but a pattern of its own."""
        own: tuple[str, ...] = getattr(self, split)
        return own or (self.train if getattr(self, f"{split}_names") else ())

    def names(self, split: str) -> Names:
        return Names(getattr(self, f"{split}_names"), self.text_from_name, self.words)

    def describe(self) -> str:
        """The data in a line, for people."""
        return f"recordings of {', '.join(self.train)}"


@dataclass(frozen=True)
class SpeechBatch:
    """Spectrograms of some windows, and the texts spoken in them.

    Shape: features (B, bins, frames); tgt, expected (B, T): the decoder's inputs and what follows each; learned (B, T),
           True where that is part of the text or its end.
    """

    features: Tensor
    tgt: Tensor
    expected: Tensor
    learned: Tensor

    @property
    def num_tokens(self) -> int:
        return int(self.learned.sum())

    def to(self, device: torch.device) -> "SpeechBatch":
        return SpeechBatch(*(x.to(device) for x in (self.features, self.tgt, self.expected, self.learned)))


class Sounds:
    """The recordings of one split, kept as 16-bit samples in one file; nothing is read before it is asked for.

    Args:   rows: of the corpus, those whose texts the model can write.
    """

    def __init__(self, corpus: Corpus, path: Path, rows: np.ndarray) -> None:
        self._corpus, self._rows = corpus, rows
        self._samples = np.memmap(path, "<i2", "r")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> tuple[np.ndarray, str]:
        """Samples and text."""
        blocks, rest, count = self._corpus.ids("place", int(self._rows[row])).astype(np.int64)
        start = blocks * BLOCK + rest
        samples = self._samples[start : start + count].astype(np.float32) / LARGEST_SAMPLE
        return samples, self._corpus.text("text", int(self._rows[row]))

    def name(self, row: int) -> str:
        return self._corpus.text("name", int(self._rows[row]))


class SpeechBatches:
    """The batches of one split; what is done to a recording is drawn from seed, epoch and row.

    A row of an epoch is known by one number, epoch * rows + row, so that a batch can be loaded by these alone. Behind
    the recordings' rows are those of examples without speech.

    Args:   augment: None leaves the recordings as they are.
    """

    def __init__(
        self,
        sounds: Sounds,
        tokenizer: Tokenizer,
        config: SpeechDataConfig,
        augment: AugmentConfig | None,
        batch_tokens: int,
        seed: int,
    ) -> None:
        self.sounds = sounds
        self._tokenizer, self._config, self._augment, self._seed = tokenizer, config, augment, seed
        self._signs = SpeechSigns.of(tokenizer)
        self._prefix = text_prefix(self._signs, config)
        share = augment.no_speech if augment else 0.0
        self._rows = len(sounds) + round(len(sounds) * share / (1 - share))
        self._together = max(1, int(batch_tokens / (config.window_seconds * POSITIONS_A_SECOND)))

    def __len__(self) -> int:
        return self._rows

    def order(self, epoch: int, *, shuffle: bool = True) -> list[np.ndarray]:
        """The rows of each batch: a pure function of the data, the seed and the epoch."""
        rows = np.arange(self._rows)
        if shuffle:
            rows = draws_for(self._seed, epoch, self._rows).permutation(rows)
        return [epoch * self._rows + rows[i : i + self._together] for i in range(0, self._rows, self._together)]

    def largest(self) -> np.ndarray:
        """The rows of the batch that costs most memory: all do, but for their texts, and these grow at first."""
        epoch = self._augment.joined_epochs if self._augment else 0
        return epoch * self._rows + np.arange(min(self._together, self._rows))

    def load(self, rows: np.ndarray) -> SpeechBatch:
        examples = [self._example(int(row)) for row in rows]
        features = log_mel(
            windowed([sound for sound, _ in examples], self._config.window_seconds), self._config.num_mel_bins
        )
        if self._augment:
            for row, array in zip(rows, features.numpy(), strict=True):
                # Draws of their own, so that masks and sound do not hang on each other's number of draws.
                rng = draws_for(self._seed, *divmod(int(row), self._rows)).spawn(1)[0]
                mask_features(array, self._augment, FRAMES_A_SECOND, rng)
        return self._with_texts(features, [text for _, text in examples])

    def lines(self, rows: np.ndarray) -> list[str]:
        """Names and texts of a batch, to show a person."""
        numbers = [int(row) % self._rows for row in rows]
        return [
            f"{self.sounds.name(row)}\t{self.sounds[row][1]}" if row < len(self.sounds) else "(no speech)\t"
            for row in numbers
        ]

    def _example(self, number: int) -> tuple[np.ndarray, str]:
        epoch, row = divmod(number, self._rows)
        if self._augment is None:
            return self.sounds[row]
        rng = draws_for(self._seed, epoch, row)
        seconds = self._config.window_seconds
        if row >= len(self.sounds):
            return no_speech_example(seconds, rng), ""
        room = self._config.max_len - len(self._prefix) - 1
        augment = self._augment.in_epoch(epoch)
        return speech_example(row, len(self.sounds), self.sounds.__getitem__, augment, seconds, rng, most_bytes=room)

    def _with_texts(self, features: Tensor, texts: list[str]) -> SpeechBatch:
        rows = [np.array([*self._prefix, *text_ids(self._tokenizer, self._signs, text)]) for text in texts]
        tgt, real = pad([row[:-1] for row in rows])
        expected, _ = pad([row[1:] for row in rows])
        learned = real & (np.arange(tgt.shape[1]) >= len(self._prefix) - 1)
        return SpeechBatch(features, *(torch.from_numpy(x) for x in (tgt, expected, learned)))


def text_prefix(signs: SpeechSigns, config: SpeechDataConfig) -> tuple[int, ...]:
    """What stands before each text in training.

    Raises: InputError: the language is to be found out, or the model has none of that name.
    """
    if config.language == DETECT:
        known = ", ".join(signs.languages)
        raise InputError(f"data.language = {DETECT} is for use; to train, say which language the texts are in: {known}")
    return signs.prefix(config.language)


def text_ids(tokenizer: Tokenizer, signs: SpeechSigns, text: str) -> list[int]:
    """A text's ids, the end sign last. Published vocabularies have seen words with the space before them."""
    spaced = signs.languages and text and not contains_han(text[0])
    return tokenizer.encode(f" {text}" if spaced else text)


@dataclass(frozen=True)
class SpeechData:
    """A run's tokenizer and its cached recordings."""

    tokenizer: Tokenizer
    train: Sounds
    valid: Sounds


def prepare_speech_data(
    config: SpeechDataConfig, folder: Path, seed: int, announce: Announce, *, begun: bool = False
) -> SpeechData:
    """Make whatever of tokenizer and cache is not in the folder yet, and open it.

    A kill on the way changes nothing: each file appears whole, and each is a pure function of data and config.

    Args:   begun: training has begun on what is there: it is used whatever has become of the files since.
    Raises: InputError: no file, or no recording in it that can be used.
    """
    cache = folder / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    if not config.train:
        raise InputError("no training data: set data.train or give --train FILE")
    note = cache / "read-from.json"
    kept = {"test", "test_names", "augment", "language", "num_mel_bins"}
    made_from = [{key: value for key, value in asdict(config).items() if key not in kept}, seed, config.augment.joined]
    sources = dict.fromkeys((*config.files("train"), *config.files("valid")))
    files = [] if begun and note.exists() else files_of(list(sources), config.columns)
    origin = origin_of(made_from, files, note, begun)
    made = [cache / name for name in ("cleaning.json", "recordings.pcm", *(f"{split}.arrow" for split in SPLITS))]
    forget_unless(note, origin, made)
    if not (cache / "cleaning.json").exists():
        _read(config, cache, seed, announce)
    corpora = {split: Corpus.open(cache / f"{split}.arrow") for split in SPLITS}
    tokenizer = find_tokenizer(config.tokenizer, folder, origin, lambda: _to_cut(corpora["train"], config), announce)
    rows = {split: _writable(corpora[split], tokenizer, config) for split in SPLITS}
    for split in SPLITS:
        if left_out := len(corpora[split]) - len(rows[split]):
            announce(f"{split}: {left_out:,} texts are longer than max_len = {config.max_len} tokens; left out")
    train, valid = (Sounds(corpora[split], cache / "recordings.pcm", rows[split]) for split in SPLITS)
    return SpeechData(tokenizer, train, valid)


def _to_cut(corpus: Corpus, config: SpeechDataConfig) -> Iterator[str]:
    """What a tokenizer is trained on: the texts, and where they are joined, what stands between them."""
    yield from corpus.texts("text")
    if config.augment.joined > 1:
        yield join_texts(list(dict.fromkeys(corpus.texts("text")))[:1000])


def _writable(corpus: Corpus, tokenizer: Tokenizer, config: SpeechDataConfig) -> np.ndarray:
    """The rows whose texts are not too long, of which there must be some."""
    signs = SpeechSigns.of(tokenizer)
    room = config.max_len - len(text_prefix(signs, config))
    rows = [row for row, text in enumerate(corpus.texts("text")) if len(text_ids(tokenizer, signs, text)) <= room]
    if not rows:
        raise InputError(f"all texts are longer than data.max_len = {config.max_len} tokens, signs included; raise it")
    return np.array(rows)


def _read(config: SpeechDataConfig, cache: Path, seed: int, announce: Announce) -> None:
    """Write all recordings into one file, where each split's are, and then the report, which says that all is there."""
    places: dict[str, list[tuple[list[int], str, str]]] = {split: [] for split in SPLITS}
    reports = {split: CleaningReport(things="recordings") for split in SPLITS}
    start = 0
    with replacing(cache / "recordings.pcm") as path, path.open("wb") as file:
        for source in SPLITS if config.files("valid") else SPLITS[:1]:
            for each in read_recordings(config.files(source), config.names(source), reports[source], config.columns):
                if len(each.samples) > config.window_seconds * SAMPLE_RATE_HZ:
                    reports[source].kept -= 1
                    reports[source].drop(TOO_LONG, (each.name, 0))
                    continue
                is_held_out = not config.files("valid") and _share(each.name, seed) < config.valid_share
                place = [*divmod(start, BLOCK), len(each.samples)]
                places["valid" if is_held_out else source].append((place, each.text, each.name))
                file.write(np.rint(np.clip(each.samples, -1.0, 1.0) * LARGEST_SAMPLE).astype("<i2").tobytes())
                start += len(each.samples)
            announce(("validation: " if source == "valid" else "") + reports[source].summary())
    for split, rows in places.items():
        if not rows:
            raise InputError(
                f"{' '.join(config.train)}: no recording for {split} of at most {config.window_seconds} seconds; give "
                "more of them" + ("" if split == "train" else ", or validation recordings of their own by --valid FILE")
            )
        write_corpus(cache / f"{split}.arrow", COLUMNS, rows)
    with replacing(cache / "cleaning.json") as path:
        path.write_text(json.dumps(reports["train"].as_dict(), ensure_ascii=False, indent=1), encoding="utf-8")


def _share(name: str, seed: int) -> float:
    """A number in [0, 1) that a recording's name and the seed alone decide."""
    return int.from_bytes(blake2b(f"{seed} {name}".encode(), digest_size=8).digest(), "little") / 2**64
