"""From files of sentence pairs to tokenizers and batches: cleaned, split, tokenised once into a cache on disk."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zhuyi.atomic import replacing
from zhuyi.data import batches as batching
from zhuyi.data.corpus import Corpus, encode_corpus, write_corpus
from zhuyi.data.origins import forget_unless, origin_of
from zhuyi.data.pairs import CleaningReport, CleaningRules, Pair, clean_pairs, read_pairs
from zhuyi.data.special_tokens import BOS_ID
from zhuyi.data.splitting import hash_key, split_off
from zhuyi.data.tokenizers import Tokenizer, TokenizerConfig, train_tokenizers
from zhuyi.errors import InputError
from zhuyi.tasks.announcing import Announce

# Batches of few different shapes: the first product of each new shape waits some milliseconds for its kernel.
ROW_MULTIPLE = 16


@dataclass(frozen=True)
class PairDataConfig:
    """Where sentence pairs come from and how they become ids.

    Args:   source, target: language codes, `zh` and `en` say; the target's chooses how BLEU cuts words.
            train, valid, test: files, each `pairs.tsv`, `pairs.jsonl` or `SOURCE_FILE,TARGET_FILE`, `.gz` or not.
            columns: which columns of a TSV are source and target, from 1.
            valid_size: pairs held out of `train` where no `valid` is given.
            disjoint: leave out of `train` what shares a sentence with `valid` or `test`, but for case, punctuation and
            spaces.
            max_len: tokens of a side, end sign included; longer pairs are left out of training.
    """

    source: str = "src"
    target: str = "tgt"
    train: tuple[str, ...] = ()
    valid: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    columns: tuple[int, int] = (1, 2)
    valid_size: int = 1000
    disjoint: bool = False
    max_len: int = 128
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    cleaning: CleaningRules = field(default_factory=CleaningRules)

    def __post_init__(self) -> None:
        if self.valid_size < 1:
            raise ValueError(f"valid_size must be at least 1, got {self.valid_size}")
        if self.max_len < 2:
            raise ValueError(f"max_len must be at least 2, got {self.max_len}")
        if min(self.columns) < 1:
            raise ValueError(f"columns are counted from 1, got {self.columns[0]} and {self.columns[1]}")
        if "-" in (*self.train, *self.valid, *self.test):
            raise ValueError("training needs to read its pairs more than once: give a file, not -")

    @property
    def prefixes(self) -> dict[str, str]:
        """What a source begins with, by the name of the task: there is one task, which needs no telling."""
        return {}

    @property
    def sentinels(self) -> int:
        """Ids of the vocabulary that stand for no text: there are none."""
        return 0

    def describe(self) -> str:
        """The data in a line, for people."""
        return f"{self.source} to {self.target}: {', '.join(self.train)}"


@dataclass(frozen=True)
class PairBatch:
    """Padded ids of some pairs.

    Shape: src, src_mask (B, S); tgt (the decoder's inputs, beginning with the start sign), expected (what follows
           each), tgt_mask (B, T); masks are True at real tokens.
    """

    src: Tensor
    src_mask: Tensor
    tgt: Tensor
    expected: Tensor
    tgt_mask: Tensor

    @property
    def num_tokens(self) -> int:
        return int(self.tgt_mask.sum())

    def to(self, device: torch.device) -> "PairBatch":
        return PairBatch(*(x.to(device) for x in (self.src, self.src_mask, self.tgt, self.expected, self.tgt_mask)))

    @classmethod
    def of(cls, sources: Sequence[np.ndarray], targets: Sequence[np.ndarray], bos_id: int) -> "PairBatch":
        """Pad rows of ids, each with its end sign."""
        src, src_mask = batching.pad(sources)
        expected, tgt_mask = batching.pad(targets)
        tgt = np.concatenate([np.full((len(targets), 1), bos_id), expected[:, :-1]], axis=1)
        return cls(*map(torch.from_numpy, (src, src_mask, tgt, expected, tgt_mask)))


class PairBatches:
    """The batches of one split: their order in each epoch, and what a batch's rows hold. Shape: lengths (N, 2)."""

    def __init__(self, corpus: Corpus, batch_tokens: int, seed: int, bos_id: int = BOS_ID) -> None:
        self.corpus = corpus
        self._bos_id = bos_id
        self._batch_tokens = batch_tokens
        self._seed = seed
        self.lengths = np.stack([corpus.lengths("source"), corpus.lengths("target")], axis=1)  # (N, 2)

    def __len__(self) -> int:
        return len(self.corpus)

    def order(self, epoch: int, *, shuffle: bool = True) -> list[np.ndarray]:
        """The rows of each batch: a pure function of the data, the seed and the epoch."""
        return batching.order(
            self.lengths,
            batch_tokens=self._batch_tokens,
            seed=self._seed,
            epoch=epoch,
            shuffle=shuffle,
            multiple_of=ROW_MULTIPLE,
        )

    def largest(self) -> np.ndarray:
        """The rows of the batch that costs most memory."""
        return batching.largest(self.lengths, self._batch_tokens)

    def load(self, rows: np.ndarray) -> PairBatch:
        sources, targets = ([self.corpus.ids(side, int(row)) for row in rows] for side in ("source", "target"))
        return PairBatch.of(sources, targets, self._bos_id)

    def lines(self, rows: np.ndarray) -> list[str]:
        """The texts of a batch, to show a person."""
        return [
            f"{self.corpus.text('source_text', int(row))}\t{self.corpus.text('target_text', int(row))}" for row in rows
        ]


@dataclass(frozen=True)
class PairData:
    """A run's tokenizers (one object twice when joint) and its cached training and validation pairs."""

    source_tokenizer: Tokenizer
    target_tokenizer: Tokenizer
    train: Corpus
    valid: Corpus


def prepare_pair_data(
    config: PairDataConfig, folder: Path, seed: int, announce: Announce, *, begun: bool = False
) -> PairData:
    """Make whatever of tokenizers and cache is not in the folder yet, and open it.

    A kill on the way changes nothing: each file appears whole, and each is a pure function of data, config and seed.

    Args:   begun: training has begun on what is there: it is used whatever has become of the files since.
    Raises: InputError: no file, nothing usable in it, or it is too small to hold validation pairs out.
    """
    cache, id_files = folder / "cache", _id_files(folder)
    texts, origin = clean_pair_data(config, folder, seed, announce, begun=begun)
    source_tokenizer, target_tokenizer = _tokenizers(config, folder, origin, texts["train"], announce)
    encoder = json.dumps([source_tokenizer.fingerprint(), target_tokenizer.fingerprint(), config.max_len])
    forget_unless(cache / "encoded-by.json", encoder, id_files)
    for split in ("train", "valid"):
        if not (cache / f"{split}.arrow").exists():
            pairs = _text_pairs(texts[split])
            encoded = encode_corpus(
                cache / f"{split}.arrow",
                pairs,
                source_tokenizer,
                target_tokenizer,
                max_len=config.max_len,
                normalized=True,
            )
            left_out = f"; {encoded.too_long:,} longer than max_len = {config.max_len} left out"
            announce(f"{split}: {encoded.kept:,} pairs{left_out if encoded.too_long else ''}")
    data = PairData(source_tokenizer, target_tokenizer, *map(Corpus.open, id_files))
    for split, corpus in (("train", data.train), ("valid", data.valid)):
        if not len(corpus):
            raise InputError(f"no {split} pair is at most {config.max_len} tokens long; raise data.max_len")
    return data


def clean_pair_data(
    config: PairDataConfig, folder: Path, seed: int, announce: Announce, *, begun: bool = False
) -> tuple[dict[str, Corpus], str]:
    """The first half of `prepare_pair_data`: the cleaned texts of both splits, and what they are made from."""
    cache = folder / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    text_files = {split: cache / f"{split}-text.arrow" for split in ("train", "valid")}
    test = config.test if config.disjoint else ()
    made_from = [{**asdict(config), "test": test, "max_len": 0}, seed]
    origin = origin_of(made_from, (*config.train, *config.valid, *test), cache / "cleaned-from.json", begun)
    made = [cache / "cleaning.json", *text_files.values(), *_id_files(folder)]
    forget_unless(cache / "cleaned-from.json", origin, made)
    if not (cache / "cleaning.json").exists():
        _clean(config, cache, seed, announce)
    return {split: Corpus.open(path) for split, path in text_files.items()}, origin


def _id_files(folder: Path) -> list[Path]:
    return [folder / "cache" / f"{split}.arrow" for split in ("train", "valid")]


def load_tokenizers(config: PairDataConfig, folder: Path) -> tuple[Tokenizer, Tokenizer]:
    """The tokenizers of a run: source's and target's, one object twice when joint."""
    if config.tokenizer.joint:
        tokenizer = Tokenizer.load(folder / "tokenizer.json")
        return tokenizer, tokenizer
    return Tokenizer.load(folder / "tokenizer.source.json"), Tokenizer.load(folder / "tokenizer.target.json")


def _tokenizers(
    config: PairDataConfig, folder: Path, origin: str, texts: Corpus, announce: Announce
) -> tuple[Tokenizer, Tokenizer]:
    """Train the tokenizers, unless they are there: from an earlier life, or laid there by the user."""
    joint = config.tokenizer.joint
    names = ["tokenizer.json"] if joint else ["tokenizer.source.json", "tokenizer.target.json"]
    trained_from = folder / "cache" / "tokenizer-trained-from.json"
    if trained_from.exists():
        forget_unless(trained_from, origin, [folder / name for name in names])
    if not all((folder / name).exists() for name in names):
        forget_unless(trained_from, origin, ())
        source, target = texts.texts("source"), texts.texts("target")
        trained = train_tokenizers(source, target, config.tokenizer)
        for name, tokenizer in zip(names, trained, strict=False):
            tokenizer.save(folder / name)
        announce(
            f"trained {'a joint' if joint else 'two'} {config.tokenizer.kind} tokenizer{'' if joint else 's'}: "
            + " and ".join(f"{tokenizer.vocab_size:,} pieces" for tokenizer in dict.fromkeys(trained))
        )
    return load_tokenizers(config, folder)


def _clean(config: PairDataConfig, cache: Path, seed: int, announce: Announce) -> None:
    """Write the cleaned texts of both splits, then the report, whose presence says that both are there."""
    if not config.train:
        raise InputError("no training data: set data.train or give --train FILE")
    report = CleaningReport()
    kept = clean_pairs(config.train, config.cleaning, columns=config.columns, report=report)
    everything = cache / "all-text.arrow"
    if config.disjoint:
        kept = _apart(kept, config, announce)
    write_corpus(everything, {"source": "text", "target": "text"}, ((pair.source, pair.target) for pair in kept))
    announce(report.summary())
    corpus = Corpus.open(everything)
    if config.valid:
        valid_report = CleaningReport()
        valid = clean_pairs(config.valid, config.cleaning, columns=config.columns, report=valid_report)
        _write_texts(cache, "valid", ((pair.source, pair.target) for pair in valid))
        announce(f"validation: {valid_report.summary()}")
        _write_texts(cache, "train", _text_pairs(corpus))
    else:
        held_out = _hold_out(corpus, config, seed)
        announce(f"held out {int(held_out.sum()):,} pairs for validation; none of their sentences is in the rest")
        _write_texts(cache, "valid", _text_pairs(corpus, held_out))
        _write_texts(cache, "train", _text_pairs(corpus, ~held_out))
    everything.unlink()
    with replacing(cache / "cleaning.json") as path:
        path.write_text(json.dumps(report.as_dict(), ensure_ascii=False, indent=1), encoding="utf-8")


def _apart(pairs: Iterator[Pair], config: PairDataConfig, announce: Announce) -> Iterator[Pair]:
    """Leave out pairs that have a sentence in common with `valid` or `test`."""
    elsewhere = sentence_keys((*config.valid, *config.test), config.columns)
    left_out = 0
    for pair in pairs:
        if elsewhere.isdisjoint((hash_key(pair.source), hash_key(pair.target))):
            yield pair
        else:
            left_out += 1
    announce(f"left out {left_out:,} pairs a sentence of which stands in the validation or test pairs")


def sentence_keys(files: Sequence[str], columns: tuple[int, int]) -> set[int]:
    """What stands for each sentence of some pairs, whichever side it is on: `hash_key` of it.

    Raises: InputError: a file cannot be read.
    """
    return {
        hash_key(text)
        for file in files
        for pair in read_pairs(file, columns=columns, report=CleaningReport())
        for text in (pair.source, pair.target)
    }


def _hold_out(corpus: Corpus, config: PairDataConfig, seed: int) -> np.ndarray:
    source, target = (
        np.fromiter((hash_key(corpus.text(side, row)) for row in range(len(corpus))), np.uint64, len(corpus))
        for side in ("source", "target")
    )
    held_out = split_off(source, target, config.valid_size, seed)
    if not held_out.any() or held_out.all():
        raise InputError(
            f"{len(corpus):,} pairs are too few, or share too many sentences, to hold some out for validation; "
            "give more pairs, or validation pairs of their own by --valid FILE"
        )
    return held_out


def _write_texts(cache: Path, split: str, pairs: Iterator[tuple[str, str]]) -> None:
    write_corpus(cache / f"{split}-text.arrow", {"source": "text", "target": "text"}, pairs)


def _text_pairs(corpus: Corpus, chosen: np.ndarray | None = None) -> Iterator[tuple[str, str]]:
    for row in range(len(corpus)) if chosen is None else np.flatnonzero(chosen):
        yield corpus.text("source", int(row)), corpus.text("target", int(row))
