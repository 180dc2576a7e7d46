"""Text classification: the loss of labelled texts, their scores, and labels as every user of a model gets them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zhuyi.data import batches as batching
from zhuyi.data.corpus import Corpus
from zhuyi.data.encoder_rows import EncoderRow, encode_rows, encoder_vocab_size, to_tensors
from zhuyi.data.labelled_texts import Form, Header, LabelledText, Layout
from zhuyi.data.tokenizers import Tokenizer, TokenizerConfig
from zhuyi.errors import InputError
from zhuyi.tasks.announcing import Announce
from zhuyi.tasks.encoder_data import (
    check_encoder_data,
    prepare_rows,
    prepare_texts,
    prepare_tokenizer,
)
from zhuyi.tasks.labelling import label_samples, label_scores

ROW_COLUMNS: dict[str, Literal["ids", "text"]] = {"ids": "ids", "first": "ids", "label": "ids", "text": "text"}
# More are no labels: the column is that of texts, or of numbers.
MOST_LABELS = 1000
SHOWN = 100  # characters of a sample


@dataclass(frozen=True)
class LabelledDataConfig:
    """Where labelled texts come from and how they become ids.

    Args:   train, valid, test: files of a label and a text a line, `.gz` or not.
            columns: of the label, the text and, in pairs, the second text, from 1.
            form, header, encoding: see `zhuyi.data.labelled_texts.Layout`.
            simplify: turn traditional Chinese characters into simplified ones, when the model is used too.
            labels: their names, in the model's order; found in the data where empty.
            valid_size: texts held out of `train` where no `valid` is given.
            max_len: tokens of a row, signs included; of longer texts the end is cut.
    """

    train: tuple[str, ...] = ()
    valid: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    columns: tuple[int, ...] = (1, 2)
    form: Form = "auto"
    header: Header = "auto"
    encoding: str = "utf-8"
    simplify: bool = False
    labels: tuple[str, ...] = ()
    valid_size: int = 1000
    max_len: int = 256
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)

    def __post_init__(self) -> None:
        check_encoder_data(self)
        if len(self.columns) not in (2, 3):
            raise ValueError(f"columns are of the label, the text and perhaps a second text, got {len(self.columns)}")
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels has a name twice: {', '.join(self.labels)}")

    @property
    def layout(self) -> Layout:
        return Layout(self.form, self.columns[1:], self.columns[0], self.header, self.encoding)

    def describe(self) -> str:
        """The data in a line, for people."""
        return f"{', '.join(self.train)}: {' | '.join(self.labels)}"


@dataclass(frozen=True)
class LabelledBatch:
    """Padded ids of some texts and their labels' numbers.

    Shape: ids, mask, segments (B, T), labels (B,).
    """

    ids: Tensor
    mask: Tensor
    segments: Tensor
    labels: Tensor

    @property
    def num_tokens(self) -> int:
        return int(self.mask.sum())

    def to(self, device: torch.device) -> "LabelledBatch":
        return LabelledBatch(*(x.to(device) for x in (self.ids, self.mask, self.segments, self.labels)))


class LabelledBatches:
    """The batches of one split: their order in each epoch, and what a batch's rows hold."""

    def __init__(self, corpus: Corpus, batch_tokens: int, seed: int) -> None:
        self.corpus = corpus
        self._lengths = corpus.lengths("ids")
        self._batch_tokens, self._seed = batch_tokens, seed

    def __len__(self) -> int:
        return len(self.corpus)

    def order(self, epoch: int, *, shuffle: bool = True) -> list[np.ndarray]:
        """The rows of each batch: a pure function of the data, the seed and the epoch."""
        return batching.order(
            self._lengths, batch_tokens=self._batch_tokens, seed=self._seed, epoch=epoch, shuffle=shuffle
        )

    def largest(self) -> np.ndarray:
        """The rows of the batch that costs most memory."""
        return batching.largest(self._lengths, self._batch_tokens)

    def load(self, rows: np.ndarray) -> LabelledBatch:
        ids = [self.corpus.ids("ids", int(row)) for row in rows]
        first, labels = (
            np.concatenate([self.corpus.ids(name, int(row)) for row in rows]).astype(np.int64)
            for name in ("first", "label")
        )
        return LabelledBatch(*to_tensors(ids, first.tolist()), torch.from_numpy(labels))

    def lines(self, rows: np.ndarray) -> list[str]:
        """The texts of a batch, to show a person."""
        return [self.corpus.text("text", int(row)) for row in rows]


class ClassifyingModel(Protocol):
    """What classification asks of a model."""

    max_len: int
    pooler: nn.Module | None
    classifier: nn.Module | None

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def __call__(self, ids: Tensor, mask: Tensor | None = None, segments: Tensor | None = None) -> Tensor: ...


class TextClassificationTask:
    """What training needs of classification: batches, loss, scores and samples."""

    def __init__(
        self, config: LabelledDataConfig, tokenizer: Tokenizer, rows: Mapping[str, Corpus], batch_tokens: int, seed: int
    ) -> None:
        self.config = config
        self._tokenizer = tokenizer
        self._batches = {split: LabelledBatches(corpus, batch_tokens, seed) for split, corpus in rows.items()}

    @classmethod
    def prepare(
        cls,
        config: LabelledDataConfig,
        decode: None,
        folder: Path,
        batch_tokens: int,
        seed: int,
        announce: Announce,
        *,
        begun: bool = False,
    ) -> "TextClassificationTask":
        """Make or open the run's tokenizer and data; only open them where training has `begun` on them."""

        def check(train: Sequence[LabelledText], valid: Sequence[LabelledText]) -> None:
            names = config.labels or find_labels(each.label for each in train)
            numbers = {name: number for number, name in enumerate(names)}
            for each in chain(train, valid):
                number_of(each.label, numbers, each.origin)

        texts, origin = prepare_texts(config, folder, seed, announce, begun=begun, check=check)
        # What is held out of the training texts may have all that there are of a rare label.
        parts = ("train",) if config.valid else ("train", "valid")
        config = replace(
            config,
            labels=config.labels or find_labels(label for part in parts for label in texts[part].texts("label")),
        )
        announce(f"{len(config.labels)} labels: {', '.join(config.labels[:10])}{', ...' * (len(config.labels) > 10)}")
        tokenizer = prepare_tokenizer(config.tokenizer, folder, origin, texts["train"], announce)
        numbers = {name: number for number, name in enumerate(config.labels)}
        is_pairs = len(config.columns) == 3
        cut = 0

        def encode(chunk: Sequence[tuple[str, str, str]]) -> Iterator[Sequence[Sequence[int] | str]]:
            nonlocal cut
            seconds = [second for _, second, _ in chunk] if is_pairs else None
            rows = encode_rows(tokenizer, [text for text, _, _ in chunk], seconds, config.max_len)
            for row, (text, second, label) in zip(rows, chunk, strict=True):
                cut += row.is_cut
                yield row.ids, [row.first], [number_of(label, numbers)], "\t".join(filter(None, (text, second)))

        encoded_by = [tokenizer.fingerprint(), config.max_len, config.labels]
        rows = prepare_rows(folder, encoded_by, texts, ROW_COLUMNS, encode)
        if cut:
            announce(f"{cut:,} texts were longer than max_len = {config.max_len} tokens; their ends are left out")
        return cls(config, tokenizer, rows, batch_tokens, seed)

    def derived_sizes(self) -> dict[str, dict[str, Any]]:
        """What of the configuration follows from the data, by section."""
        model = {"vocab_size": encoder_vocab_size(self._tokenizer), "num_labels": len(self.config.labels)}
        return {"model": {**model, "pooler": True}, "data": {"labels": self.config.labels}}

    def batches(self, split: str) -> LabelledBatches:
        return self._batches[split]

    def loss(
        self, model: ClassifyingModel, batch: LabelledBatch, *, smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor, int]:
        """The summed loss to minimise, the summed negative log-likelihood, and how many texts they are of."""
        logits = _logits(model, batch)
        nll = F.cross_entropy(logits, batch.labels, reduction="sum")
        if not smoothing:
            return nll, nll.detach(), len(batch.labels)
        loss = F.cross_entropy(logits, batch.labels, reduction="sum", label_smoothing=smoothing)
        return loss, nll.detach(), len(batch.labels)

    @torch.inference_mode()
    def evaluate(self, model: ClassifyingModel) -> dict[str, Any]:
        """`valid_loss`, `accuracy` and `macro_f1` of the validation texts."""
        device = next(model.parameters()).device
        return label_scores(
            self._batches["valid"], lambda batch: _logits(model, batch), len(self.config.labels), device
        )

    @torch.inference_mode()
    def samples(self, model: ClassifyingModel, count: int = 2) -> list[tuple[str, str, str]]:
        """Text, likeliest label and true one of some validation texts, the same each time."""
        batches, device = self._batches["valid"], next(model.parameters()).device
        found = label_samples(batches, lambda batch: _logits(model, batch), self.config.labels, device, count)
        return [(line[:SHOWN], likeliest, label) for line, likeliest, label in found]


def _logits(model: ClassifyingModel, batch: LabelledBatch) -> Tensor:
    return label_logits(model, batch.ids, batch.mask, batch.segments)


def label_logits(model: ClassifyingModel, ids: Tensor, mask: Tensor, segments: Tensor) -> Tensor:
    """The one way from texts to labels' logits, in float32 or wider.

    Shape: each (B, T); returns (B, num_labels).
    """
    assert model.pooler is not None and model.classifier is not None
    logits = model.classifier(model.pooler(model(ids, mask, segments), mask))
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


@torch.inference_mode()
def label_probabilities(model: ClassifyingModel, rows: Sequence[EncoderRow], batch_tokens: int) -> np.ndarray:
    """Probabilities of labels of any number of rows, those of like length together.

    Shape: returns (rows, num_labels).
    """
    device = next(model.parameters()).device
    lengths = np.array([len(row.ids) for row in rows])
    found: dict[int, np.ndarray] = {}
    for batch in batching.order(lengths, batch_tokens=batch_tokens, seed=0, epoch=0, shuffle=False):
        tensors = to_tensors([np.array(rows[i].ids) for i in batch], [rows[i].first for i in batch])
        probs = label_logits(model, *(x.to(device) for x in tensors)).softmax(dim=-1)
        found |= dict(zip(batch.tolist(), probs.double().cpu().numpy(), strict=True))
    return np.stack([found[i] for i in range(len(rows))])


def find_labels(labels: Iterable[str], things: str = "texts", most: int = MOST_LABELS) -> tuple[str, ...]:
    """The different labels, numbers by their size and others by their letters.

    Args:   things: what is labelled, in the plural.
            most: more different ones are no labels.
    Raises: InputError: there is one alone, or too many to be labels.
    """
    names = set(labels)
    if len(names) < 2:
        raise InputError(
            f"all {things} have the label '{min(names, default='')}'; classification needs two labels or more"
        )
    if len(names) > most:
        raise InputError(
            f"the column of labels has {len(names):,} different ones, '{min(names, key=len)[:30]}' for one: is it that "
            "of the texts? name the columns of label and text by --columns 2,1"
        )
    return tuple(sorted(names, key=lambda name: (0, int(name), name) if _is_number(name) else (1, 0, name)))


def number_of(label: str, numbers: Mapping[str, int], origin: tuple[str, int] | None = None) -> int:
    """The number of a label.

    Args:   origin: the file and line that it is from; line 0 is the whole file.
    Raises: InputError: the model has none of that name.
    """
    if label not in numbers:
        where = f"{origin[0]}, line {origin[1]}: " if origin and origin[1] else f"{origin[0]}: " if origin else ""
        known = ", ".join(list(numbers)[:10]) + ", ..." * (len(numbers) > 10)
        raise InputError(f"{where}the label '{label[:30]}' is none of the model's ({known})")
    return numbers[label]


def _is_number(name: str) -> bool:
    return name.removeprefix("-").isdecimal() and name.isascii()
