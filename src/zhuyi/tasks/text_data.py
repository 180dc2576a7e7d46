"""From plain text to a tokenizer and segments of ids: for tasks that learn from text alone."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from zhuyi.atomic import replacing
from zhuyi.data import batches as batching
from zhuyi.data.dialogues import DEFAULT_TEMPLATE, check_template, read_dialogues
from zhuyi.data.normalization import normalize
from zhuyi.data.origins import forget_unless, origin_of
from zhuyi.data.pairs import CleaningReport
from zhuyi.data.texts import Piece, TextCounts, encode_documents, open_flags, open_ids, read_documents, split_at
from zhuyi.data.tokenizers import Tokenizer, TokenizerConfig, train_tokenizer
from zhuyi.errors import InputError
from zhuyi.tasks.announcing import Announce

SPLITS = ("train", "valid")


@dataclass(frozen=True)
class TextDataConfig:
    """Where text comes from and how it becomes segments of ids.

    Args:   train, valid, test: text files, `.gz` or not; of dialogues, files of pairs.
            documents: what a document is: a whole file, a paragraph (up to an empty line), a line, or a dialogue: a
            pair of question and answer, of which the answer alone is learned.
            template: how a dialogue is written; what follows {question} stands before the answer.
            valid_share: the last part of `train`, by characters, held out where no `valid` is given.
            segments: cut from the documents in a row (`stream`), or from each by itself (`documents`).
            max_len: tokens of a segment.
            columns: of pairs in TSV files, from 1.
    """

    train: tuple[str, ...] = ()
    valid: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    documents: Literal["file", "paragraph", "line", "dialogue"] = "file"
    template: str = DEFAULT_TEMPLATE
    columns: tuple[int, int] = (1, 2)
    valid_share: float = 0.1
    segments: Literal["stream", "documents"] = "stream"
    max_len: int = 128
    tokenizer: TokenizerConfig = field(default_factory=lambda: TokenizerConfig("byte-bpe", verbatim=True))

    def __post_init__(self) -> None:
        if not 0 < self.valid_share < 1:
            raise ValueError(f"valid_share lies between 0 and 1, got {self.valid_share}")
        if self.max_len < 2:
            raise ValueError(f"max_len must be at least 2, got {self.max_len}")
        if min(self.columns) < 1:
            raise ValueError(f"columns are counted from 1, got {self.columns[0]} and {self.columns[1]}")
        if "-" in (*self.train, *self.valid, *self.test):
            raise ValueError("training needs to read its text more than once: give a file, not -")
        check_template(self.template)

    def describe(self) -> str:
        """The data in a line, for people."""
        return f"{self.documents}s of {', '.join(self.train)}"


@dataclass(frozen=True)
class Elsewhere:
    """Sentences that a text for training may not hold, since they stand where scores are found.

    Args:   keys: `hash_key` of each.
            files, chosen_by: what they were read from, and what tells, as JSON has it, which of these were taken.
    """

    keys: frozenset[int] = frozenset()
    files: tuple[str, ...] = ()
    chosen_by: tuple[Any, ...] = ()


NOWHERE = Elsewhere()


class Text:
    """The ids of one split, documents in a row, each between two end signs; nothing is read before it is asked for.

    Shape: ids (N,) int32; is_learned (N,) uint8, or None where all are.
    """

    def __init__(self, ids: np.ndarray, is_learned: np.ndarray | None, counts: TextCounts, eos_id: int) -> None:
        self.ids, self.is_learned, self.counts = ids, is_learned, counts
        self._eos_id = eos_id

    def document_ends(self) -> np.ndarray:
        """The places after each document's end sign. Shape: (documents,) int64."""
        return np.flatnonzero(self.ids[1:] == self._eos_id) + 2


class Segments:
    """The segments of a text, by the place of their first id: their order in each epoch, and what each holds.

    Each id but the very first sign is in one segment of an epoch, only that of a stream a segment's length at most is
    left out at the ends, so that epochs may cut it at different places.

    Args:   length: ids a segment, at most.
    """

    def __init__(self, text: Text, tokenizer: Tokenizer, length: int, kind: str, batch_tokens: int, seed: int) -> None:
        self.text, self.length = text, length
        self._tokenizer, self._batch_tokens, self._seed = tokenizer, batch_tokens, seed
        self._ends = text.document_ends() if kind == "documents" else np.array([len(text.ids)])

    def order(self, epoch: int, *, shuffle: bool = True) -> list[np.ndarray]:
        """The first places of each batch's segments: a pure function of the data, the seed and the epoch.

        Without `shuffle` nothing is left out.
        """
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([self._seed, epoch])))
        starts = self._starts(self._offset(rng) if shuffle else None)
        lengths = self.lengths(starts)
        if int(lengths.min(initial=self.length)) == self.length:  # all alike: there is nothing to sort by
            starts = rng.permutation(starts) if shuffle else starts
            rows = max(1, self._batch_tokens // self.length)
            return [starts[first : first + rows] for first in range(0, len(starts), rows)]
        rows_of = batching.order(
            lengths, batch_tokens=self._batch_tokens, seed=self._seed, epoch=epoch, shuffle=shuffle
        )
        return [starts[rows] for rows in rows_of]

    def largest(self) -> np.ndarray:
        """The first places of the batch that costs most memory."""
        starts = self._starts(None)
        return starts[batching.largest(self.lengths(starts), self._batch_tokens)]

    def lengths(self, starts: np.ndarray) -> np.ndarray:
        """How many ids each segment has. Shape: starts (N,), returns (N,)."""
        ends = self._ends[np.searchsorted(self._ends, starts, side="right")]
        return np.minimum(self.length, ends - starts)

    def ids(self, starts: np.ndarray, *, before: int = 0) -> list[np.ndarray]:
        """The ids of some segments, and of `before` (0 or 1) places before each: there always is one."""
        return self._cut(self.text.ids, starts, before)

    def is_learned(self, starts: np.ndarray) -> list[np.ndarray] | None:
        """Which of the segments' ids a model is to learn to write; None where all are."""
        return None if self.text.is_learned is None else self._cut(self.text.is_learned, starts, 0)

    def lines(self, starts: np.ndarray) -> list[str]:
        """The texts of a batch, to show a person."""
        return [self._tokenizer.decode(ids.tolist()).replace("\n", "\\n") for ids in self.ids(starts)]

    def _cut(self, row: np.ndarray, starts: np.ndarray, before: int) -> list[np.ndarray]:
        lengths = self.lengths(starts)
        return [row[start - before : start + length] for start, length in zip(starts, lengths, strict=True)]

    def _offset(self, rng: np.random.Generator) -> int:
        return int(rng.integers(self.length))

    def _starts(self, offset: int | None) -> np.ndarray:
        """The first place of every segment; with an offset, of the whole ones of a stream from there on."""
        firsts = np.concatenate([[1], self._ends[:-1]])
        if offset is not None and len(self._ends) == 1 and self._ends[0] - 1 >= 2 * self.length:
            return np.arange(1 + offset, self._ends[0] - self.length + 1, self.length)
        counts = -(-(self._ends - firsts) // self.length)
        within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.repeat(firsts, counts) + self.length * within


@dataclass(frozen=True)
class TextData:
    """A run's tokenizer and its cached text."""

    tokenizer: Tokenizer
    train: Text
    valid: Text


def prepare_text_data(
    config: TextDataConfig,
    folder: Path,
    seed: int,
    announce: Announce,
    *,
    begun: bool = False,
    elsewhere: Elsewhere = NOWHERE,
) -> TextData:
    """Make whatever of tokenizer and cache is not in the folder yet, and open it.

    A kill on the way changes nothing: each file appears whole, and each is a pure function of data and config.

    Args:   begun: training has begun on what is there: it is used whatever has become of the files since.
            elsewhere: which lines are left out of `train`.
    Raises: InputError: no file, or no text in it.
    """
    cache = folder / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    if not config.train:
        raise InputError("no training data: set data.train or give --train FILE")
    made_from = [{**asdict(config), "test": (), "max_len": 0, "segments": ""}, *elsewhere.chosen_by]
    files = (*config.train, *config.valid, *elsewhere.files)
    origin = origin_of(made_from, files, cache / "read-from.json", begun)
    made = [cache / name for split in SPLITS for name in (f"{split}.ids", f"{split}.learned", f"{split}.json")]
    forget_unless(cache / "read-from.json", origin, made)
    tokenizer = find_tokenizer(
        config.tokenizer, folder, origin, lambda: read_texts(config, "train", elsewhere), announce
    )
    forget_unless(cache / "encoded-by.json", tokenizer.fingerprint(), made)
    for split in SPLITS:
        if not (cache / f"{split}.json").exists():
            report = CleaningReport(things="pairs" if config.documents == "dialogue" else "lines")
            counts = _encode(config, cache, split, tokenizer, _split(config, split, elsewhere, report))
            if report.dropped and (split == "train" or config.valid):  # else it is of the same lines
                announce(f"{split}: {report.summary()}")
            announce(
                f"{split}: {counts.characters:,} characters of {counts.documents:,} documents, {counts.tokens:,} tokens"
            )
    train, valid = (_open(cache, split, tokenizer) for split in SPLITS)
    return TextData(tokenizer, train, valid)


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a run that has one."""
    return Tokenizer.load(folder / "tokenizer.json")


def read_text(
    config: TextDataConfig, files: Sequence[str], report: CleaningReport, elsewhere: Elsewhere = NOWHERE
) -> Iterator[Piece]:
    """The documents of some files, as the config reads them.

    Args:   report: where the lines of dialogues, and those left out, are counted.
    Raises: InputError: a file cannot be read.
    """
    if config.documents == "dialogue":
        return read_dialogues(files, config.template, config.columns, report=report)
    return read_documents(files, config.documents, apart=elsewhere.keys, report=report)


def encode_files(
    config: TextDataConfig, files: Sequence[str], tokenizer: Tokenizer, folder: Path, report: CleaningReport
) -> Text:
    """The text of other files, as the config reads them, by a tokenizer that there is; its ids go into the folder.

    Args:   report: as `read_text` takes it.
    Raises: InputError: a file cannot be read, or there is no text.
    """
    flags = folder / "text.learned" if config.documents == "dialogue" else None
    counts = encode_documents(folder / "text.ids", read_text(config, files, report), tokenizer, flags)
    if not counts.tokens:
        raise InputError(f"{' '.join(files)}: no text in it")
    return Text(open_ids(folder / "text.ids"), open_flags(flags) if flags else None, counts, tokenizer.signs.eos)


def read_texts(config: TextDataConfig, split: str, elsewhere: Elsewhere = NOWHERE) -> Iterator[str]:
    """The texts of a split's documents, in pieces, read anew."""
    return (piece.text for piece in _split(config, split, elsewhere, CleaningReport()))


def _split(config: TextDataConfig, split: str, elsewhere: Elsewhere, report: CleaningReport) -> Iterable[Piece]:
    """The documents of a split, read anew."""
    if config.valid and split == "valid":
        return read_text(config, config.valid, report)
    if config.valid:
        return read_text(config, config.train, report, elsewhere)
    total = sum(len(piece.text) for piece in read_text(config, config.train, CleaningReport(), elsewhere))
    cut = int(total * (1 - config.valid_share))
    pieces = read_text(config, config.train, report, elsewhere)
    parts = split_at(pieces, cut, within_documents=config.documents == "file")
    return (piece for is_before, piece in parts if is_before is (split == "train"))


def find_tokenizer(
    config: TokenizerConfig, folder: Path, origin: str, read: Callable[[], Iterable[str]], announce: Announce
) -> Tokenizer:
    """Train a run's only tokenizer, unless it is there: from an earlier life, or laid there by the user.

    Args:   read: gives the texts, if there is to be any training.
    """
    path, trained_from = folder / "tokenizer.json", folder / "cache" / "tokenizer-trained-from.json"
    if trained_from.exists():
        forget_unless(trained_from, origin, [path])
    if not path.exists():
        forget_unless(trained_from, origin, ())
        texts = read()
        tokenizer = train_tokenizer(texts if config.verbatim else map(normalize, texts), config)
        tokenizer.save(path)
        announce(f"trained a {config.kind} tokenizer: {tokenizer.vocab_size:,} pieces")
    return load_tokenizer(folder)


def _encode(
    config: TextDataConfig, cache: Path, split: str, tokenizer: Tokenizer, documents: Iterable[Piece]
) -> TextCounts:
    flags = cache / f"{split}.learned" if config.documents == "dialogue" else None
    counts = encode_documents(cache / f"{split}.ids", documents, tokenizer, flags)
    if not counts.tokens:
        raise InputError(
            f"{' '.join(config.train)}: no {split} text; give more of it"
            + ("" if config.valid else ", or validation text of its own by --valid FILE")
        )
    with replacing(cache / f"{split}.json") as path:
        path.write_text(json.dumps(asdict(counts)), encoding="utf-8")
    return counts


def _open(cache: Path, split: str, tokenizer: Tokenizer) -> Text:
    flags = cache / f"{split}.learned"
    counts = TextCounts(**json.loads((cache / f"{split}.json").read_text(encoding="utf-8")))
    is_learned = open_flags(flags) if flags.exists() else None
    return Text(open_ids(cache / f"{split}.ids"), is_learned, counts, tokenizer.signs.eos)
