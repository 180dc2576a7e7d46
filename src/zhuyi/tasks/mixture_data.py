"""From files of pairs and of plain text to one tokenizer and mixed batches."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from zhuyi.data import batches as batching
from zhuyi.data.corpus import Corpus
from zhuyi.data.origins import forget_unless, origin_of
from zhuyi.data.pairs import read_lines
from zhuyi.data.spans import corrupt, corrupted_lengths
from zhuyi.data.splitting import hash_key
from zhuyi.data.tokenizers import Tokenizer
from zhuyi.errors import InputError
from zhuyi.tasks.announcing import Announce
from zhuyi.tasks.mixture import MixtureConfig
from zhuyi.tasks.pair_data import (
    ROW_MULTIPLE,
    PairBatch,
    clean_pair_data,
    prepare_pair_data,
    sentence_keys,
)
from zhuyi.tasks.text_data import NOWHERE, Elsewhere, find_tokenizer, prepare_text_data, read_texts


class Source(Protocol):
    """The rows of one part's split. Shape: lengths (N, 2), ids of either side of each row."""

    lengths: np.ndarray

    def pair(self, row: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """What is read and what is written, each with its end sign; `rng` draws what is drawn anew in each epoch."""
        ...

    def line(self, row: int) -> str:
        """A row's text, to show a person."""
        ...


class PairSource:
    """Pairs, whose sources all begin with the same prefix.

    Args:   rows: of the corpus, those that are used.
    """

    def __init__(self, corpus: Corpus, rows: np.ndarray, prefix: Sequence[int]) -> None:
        self.corpus, self.rows = corpus, rows
        self._prefix = np.array(prefix, np.int32)
        lengths = [corpus.lengths("source") + len(prefix), corpus.lengths("target")]
        self.lengths = np.stack(lengths, axis=1)[rows]

    def pair(self, row: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        place = int(self.rows[row])
        return np.concatenate([self._prefix, self.corpus.ids("source", place)]), self.corpus.ids("target", place)

    def texts(self) -> tuple[list[str], list[str]]:
        """Sources, without the prefix, and targets."""
        sides = ("source_text", "target_text")
        sources, targets = ([self.corpus.text(side, int(row)) for row in self.rows] for side in sides)
        return sources, targets

    def line(self, row: int) -> str:
        place = int(self.rows[row])
        return f"{self.corpus.text('source_text', place)}\t{self.corpus.text('target_text', place)}"


class SpanSource:
    """Stretches of plain text, out of which spans are taken, others in each epoch."""

    def __init__(self, ids: np.ndarray, tokenizer: Tokenizer, config: MixtureConfig) -> None:
        self._ids, self._tokenizer, self._config = ids, tokenizer, config
        self._eos = tokenizer.signs.eos
        starts = np.arange(0, len(ids), config.segment_len)
        sizes = np.add.reduceat(ids != self._eos, starts, dtype=np.int64)  # between documents stand end signs
        self._starts, sizes = starts[sizes >= 2], sizes[sizes >= 2]
        different, index = np.unique(sizes, return_inverse=True)
        found = [corrupted_lengths(int(size), config.span_share, config.mean_span) for size in different]
        self.lengths = np.array(found, dtype=np.int64).reshape(-1, 2)[index]

    def pair(self, row: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return corrupt(
            self.segment(row),
            rng,
            share=self._config.span_share,
            mean_span=self._config.mean_span,
            first_sentinel=self._tokenizer.vocab_size + self._config.sentinels - 1,
            eos_id=self._eos,
        )

    def segment(self, row: int) -> np.ndarray:
        """A row's ids, whole. Shape: returns (T,)."""
        start = int(self._starts[row])
        ids = self._ids[start : start + self._config.segment_len]
        return ids[ids != self._eos]

    def line(self, row: int) -> str:
        return self._tokenizer.decode(self.segment(row).tolist())


class MixtureBatches:
    """The batches of some sources: their order in each epoch, and what a batch's rows hold.

    An epoch takes of each source so many rows that their numbers are as the weights, and of none more than there are.
    A source goes through all of its rows, in an order drawn anew each time, before one comes again, however many
    epochs that takes. A row's number tells the epoch too, so that what it holds follows from it and the seed.

    Shape: lengths (N, 2), of the rows of epoch 0.
    """

    def __init__(
        self, sources: Sequence[Source], weights: Sequence[float], batch_tokens: int, seed: int, bos_id: int
    ) -> None:
        self._sources, self._batch_tokens, self._seed, self._bos_id = sources, batch_tokens, seed, bos_id
        self.lengths = np.concatenate([source.lengths for source in sources])  # (N, 2)
        sizes = np.array([len(source.lengths) for source in sources])
        self._firsts = np.cumsum(sizes) - sizes  # of each source, its first row's number
        self._shares = np.maximum(1, np.round((sizes / weights).min() * np.array(weights))).astype(np.int64)

    def __len__(self) -> int:
        return len(self.lengths)

    def order(self, epoch: int, *, shuffle: bool = True) -> list[np.ndarray]:
        """The rows of each batch: a pure function of the data, the seed and the epoch; all rows without `shuffle`."""
        rows = self._drawn(epoch) if shuffle else np.arange(len(self))
        batches = batching.order(
            self.lengths[rows],
            batch_tokens=self._batch_tokens,
            seed=self._seed,
            epoch=epoch,
            shuffle=shuffle,
            multiple_of=ROW_MULTIPLE,
        )
        return [epoch * len(self) + rows[batch] for batch in batches]

    def largest(self) -> np.ndarray:
        """The rows of the batch that costs most memory."""
        return batching.largest(self.lengths, self._batch_tokens)

    def load(self, rows: np.ndarray) -> PairBatch:
        pairs = [self._pair(int(row)) for row in rows]
        return PairBatch.of([pair[0] for pair in pairs], [pair[1] for pair in pairs], self._bos_id)

    def lines(self, rows: np.ndarray) -> list[str]:
        """The texts of a batch, to show a person."""
        return [source.line(row) for source, row in (self._place(int(row) % len(self)) for row in rows)]

    def _pair(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        source, row = self._place(number % len(self))
        return source.pair(row, _generator(self._seed, IN_ROW, number))

    def _place(self, number: int) -> tuple[Source, int]:
        index = int(np.searchsorted(self._firsts, number, side="right")) - 1
        return self._sources[index], number - int(self._firsts[index])

    def _drawn(self, epoch: int) -> np.ndarray:
        """The rows of an epoch, source by source."""
        drawn = []
        for index, (source, share) in enumerate(zip(self._sources, self._shares.tolist(), strict=True)):
            size = len(source.lengths)
            first, last = epoch * share, (epoch + 1) * share  # of all rows that the source ever gives
            for turn in range(first // size, -(-last // size)):
                rows = _generator(self._seed, OF_ROWS, index, turn).permutation(size)
                drawn.append(self._firsts[index] + rows[max(0, first - turn * size) : last - turn * size])
        return np.concatenate(drawn)


# What is drawn with the same seed and numbers: a row's spans, and the order of a source's rows.
IN_ROW, OF_ROWS = 1, 2


def _generator(*seeds: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seeds)))


@dataclass(frozen=True)
class MixtureData:
    """A run's tokenizer, and of each part, by its name, what is trained on and what is held out."""

    tokenizer: Tokenizer
    train: dict[str, Source]
    valid: dict[str, Source]


def prepare_mixture(
    config: MixtureConfig, folder: Path, seed: int, announce: Announce, *, begun: bool = False
) -> MixtureData:
    """Make whatever of tokenizer and caches is not in the folder yet, and open it.

    Args:   begun: training has begun on what is there: it is used whatever has become of the files since.
    Raises: InputError: there are no parts, or as `prepare_pair_data` and `prepare_text_data`.
    """
    if not config.mixture:
        raise InputError("no training data: give the recipe a part, [[data.mixture]] with its name and its train files")
    folders = {part.name: folder / "cache" / part.name for part in config.mixture}
    says = {part.name: _named(announce, part.name) for part in config.mixture}
    pair_parts = [part for part in config.mixture if part.objective == "pairs"]
    cleaned = {}
    for part in pair_parts:
        make = (config.pairs_of(part), folders[part.name], seed, says[part.name])
        cleaned[part.name] = clean_pair_data(*make, begun=begun)[0]
    elsewhere = _elsewhere(config, cleaned, seed, begun)
    tokenizer = _tokenizer(config, folder, seed, cleaned, elsewhere, announce, begun)
    for path in folders.values():
        _lay_tokenizer(tokenizer, path)
    pairs = {}
    for part in pair_parts:
        make = (config.pairs_of(part), folders[part.name], seed, says[part.name])
        pairs[part.name] = prepare_pair_data(*make, begun=begun)
    held_out = _keys_held_out({name: data.valid for name, data in pairs.items()}, ("source_text", "target_text"))
    train: dict[str, Source] = {}
    valid: dict[str, Source] = {}
    for part in config.mixture:
        if part.objective == "spans":
            of_text = (config.text_of(part), folders[part.name], seed, says[part.name])
            text = prepare_text_data(*of_text, begun=begun, elsewhere=elsewhere)
            train[part.name], valid[part.name] = (
                SpanSource(each.ids, tokenizer, config) for each in (text.train, text.valid)
            )
            continue
        data, prefix = pairs[part.name], prefix_ids(tokenizer, part.prefix)
        others = held_out if len(pairs) > 1 else frozenset[int]()  # its own are held out already
        train[part.name] = PairSource(data.train, _usable_rows(data.train, config, prefix, others), prefix)
        valid[part.name] = PairSource(data.valid, _usable_rows(data.valid, config, prefix), prefix)
        left_out = len(data.train) - len(train[part.name].lengths)
        if left_out:
            says[part.name](f"{left_out:,} pairs left out: too long with the prefix, or held out of another part")
    for name, source in (*train.items(), *valid.items()):
        if not len(source.lengths):
            raise InputError(f"the part {name} has no row of at most {config.max_len} tokens; raise data.max_len")
    return MixtureData(tokenizer, train, valid)


def prefix_ids(tokenizer: Tokenizer, prefix: str) -> list[int]:
    """What a source begins with: the ids of the prefix, tokenised by itself."""
    return tokenizer.encode(prefix)[:-1] if prefix else []


def _named(announce: Announce, name: str) -> Announce:
    return lambda message: announce(f"{name}: {message}")


def _tokenizer(
    config: MixtureConfig,
    folder: Path,
    seed: int,
    cleaned: Mapping[str, Mapping[str, Corpus]],
    elsewhere: Elsewhere,
    announce: Announce,
    begun: bool,
) -> Tokenizer:
    """One for all parts, trained on their texts as the model reads them."""

    def texts() -> Iterator[str]:
        for part in config.mixture:
            if part.objective == "spans":
                yield from read_texts(config.text_of(part), "train", elsewhere)
            else:
                yield from (part.prefix + text for text in cleaned[part.name]["train"].texts("source"))
                yield from cleaned[part.name]["train"].texts("target")

    note = folder / "cache" / "mixed-from.json"
    parts = [{**asdict(part), "test": (), "weight": 0.0} for part in config.mixture]
    made_from = [{**asdict(config), "mixture": parts, "max_len": 0}, seed, *elsewhere.chosen_by]
    origin = origin_of(made_from, (*config.train, *config.valid, *elsewhere.files), note, begun)
    forget_unless(note, origin, ())
    return find_tokenizer(config.tokenizer, folder, origin, texts, announce)


def _lay_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Where a part's own preparation finds it."""
    path = folder / "tokenizer.json"
    folder.mkdir(exist_ok=True)
    if not path.exists() or Tokenizer.load(path).fingerprint() != tokenizer.fingerprint():
        tokenizer.save(path)


def _keys_held_out(valid: Mapping[str, Corpus], sides: Sequence[str]) -> frozenset[int]:
    """What stands for each sentence of all parts' validation pairs, whichever side it is on."""
    return frozenset(hash_key(text) for corpus in valid.values() for side in sides for text in corpus.texts(side))


def _elsewhere(config: MixtureConfig, cleaned: Mapping[str, Mapping[str, Corpus]], seed: int, begun: bool) -> Elsewhere:
    """What plain text may not hold where the parts are to be apart: what any part is scored on, and holds out.

    Where training has begun, the text is read already, and nothing is looked for.
    """
    if not config.disjoint or all(part.objective == "pairs" for part in config.mixture):
        return NOWHERE
    keys = set[int]()
    for part in () if begun else config.mixture:
        files = (*part.valid, *part.test)
        if part.objective == "pairs":
            keys |= sentence_keys(files, part.columns)
        else:
            keys |= {
                hash_key(text) for file in files for line in read_lines(file) for text in (line, *line.split("\t"))
            }
    if not begun:
        keys |= _keys_held_out({name: splits["valid"] for name, splits in cleaned.items()}, ("source", "target"))
    pairs = [asdict(config.pairs_of(part)) for part in config.mixture if part.objective == "pairs"]
    return Elsewhere(frozenset(keys), (*config.train, *config.valid, *config.test), (pairs, config.test, seed))


def _usable_rows(
    corpus: Corpus, config: MixtureConfig, prefix: Sequence[int], held_out: frozenset[int] = frozenset()
) -> np.ndarray:
    """The rows that are short enough with their prefix, and of which no sentence is held out."""
    fits = corpus.lengths("source") + len(prefix) <= config.max_len
    if held_out:
        for side in ("source_text", "target_text"):
            fits &= np.array([hash_key(text) not in held_out for text in corpus.texts(side)], bool)
    return np.flatnonzero(fits)
