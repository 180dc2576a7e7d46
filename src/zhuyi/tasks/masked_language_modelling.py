"""Masked-language modelling: words are taken away, and the model learns to tell them by what stands around them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zhuyi.data import batches as batching
from zhuyi.data.corpus import Corpus
from zhuyi.data.encoder_rows import encoder_row, encoder_vocab_size, mask_id, to_tensors, token_ids
from zhuyi.data.labelled_texts import Form, Header, Layout
from zhuyi.data.tokenizers import Tokenizer, TokenizerConfig
from zhuyi.data.whole_words import chinese_segmenter, word_numbers
from zhuyi.errors import InputError
from zhuyi.models.bert import MaskedWordHead
from zhuyi.nn.loss import ROW_MULTIPLE, projected_cross_entropy
from zhuyi.tasks.announcing import Announce
from zhuyi.tasks.encoder_data import (
    check_encoder_data,
    prepare_rows,
    prepare_texts,
    prepare_tokenizer,
)

ROW_COLUMNS: dict[str, Literal["ids", "text"]] = {"ids": "ids", "first": "ids", "words": "ids"}
# Of the tokens that are to be told: how many are taken away, and how many are another word. The rest stay.
TAKEN_AWAY, REPLACED = 0.8, 0.1
NO_WORD = -1  # in place of a sign's word number


@dataclass(frozen=True)
class MaskedTextConfig:
    """Where texts come from, how they become ids, and what is taken away of them.

    Args:   train, valid, test: files of a text a line, `.gz` or not.
            columns: of the text and, in pairs, the second text, from 1.
            form, header, encoding: see `zhuyi.data.labelled_texts.Layout`.
            simplify: turn traditional Chinese characters into simplified ones, when the model is used too.
            mask_share: of the tokens, so many are to be told.
            words: taken away are single `pieces`; the pieces of a `whole` word together, each Chinese one being a word;
            or also those of a Chinese word, as a dictionary has it (`segmented`, extra text).
            valid_size: texts held out of `train` where no `valid` is given.
            max_len: tokens of a row, signs included; longer texts become several rows.
    """

    train: tuple[str, ...] = ()
    valid: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    columns: tuple[int, ...] = (1,)
    form: Form = "auto"
    header: Header = "auto"
    encoding: str = "utf-8"
    simplify: bool = False
    mask_share: float = 0.15
    words: Literal["pieces", "whole", "segmented"] = "whole"
    valid_size: int = 1000
    max_len: int = 128
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)

    def __post_init__(self) -> None:
        check_encoder_data(self)
        if len(self.columns) not in (1, 2):
            raise ValueError(f"columns are of the text and perhaps a second text, got {len(self.columns)}")
        if not 0 < self.mask_share < 1:
            raise ValueError(f"mask_share lies between 0 and 1, got {self.mask_share}")

    @property
    def layout(self) -> Layout:
        return Layout(self.form, self.columns, 0, self.header, self.encoding)

    def describe(self) -> str:
        """The data in a line, for people."""
        return ", ".join(self.train)


@dataclass(frozen=True)
class MaskedBatch:
    """Padded ids of some texts after words were taken away.

    Shape: ids, mask, segments, chosen (B, T): chosen is True where the token is to be told; expected (chosen,): the ids
           that stood there.
    """

    ids: Tensor
    mask: Tensor
    segments: Tensor
    chosen: Tensor
    expected: Tensor

    @property
    def num_tokens(self) -> int:
        return int(self.mask.sum())

    def to(self, device: torch.device) -> "MaskedBatch":
        return MaskedBatch(*(x.to(device) for x in (self.ids, self.mask, self.segments, self.chosen, self.expected)))


class MaskedBatches:
    """The batches of one split; what is taken away of a row is drawn from seed, epoch and row.

    A row of an epoch is known by one number, epoch * rows + row, so that a batch can be loaded by these alone.
    """

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer, mask_share: float, batch_tokens: int, seed: int) -> None:
        self.corpus = corpus
        self._tokenizer = tokenizer
        self._mask_share = mask_share
        self._mask_id = mask_id(tokenizer)
        self._text_ids = np.setdiff1d(np.arange(tokenizer.vocab_size), list(tokenizer.signs.all()))
        self._lengths = corpus.lengths("ids")
        self._batch_tokens, self._seed = batch_tokens, seed

    def __len__(self) -> int:
        return len(self.corpus)

    def order(self, epoch: int, *, shuffle: bool = True) -> list[np.ndarray]:
        """The rows of each batch: a pure function of the data, the seed and the epoch."""
        batches = batching.order(
            self._lengths, batch_tokens=self._batch_tokens, seed=self._seed, epoch=epoch, shuffle=shuffle
        )
        return [batch + epoch * len(self) for batch in batches]

    def largest(self) -> np.ndarray:
        """The rows of the batch that costs most memory."""
        return batching.largest(self._lengths, self._batch_tokens)

    def load(self, rows: np.ndarray) -> MaskedBatch:
        epochs, places = np.divmod(rows, len(self))
        ids = [self.corpus.ids("ids", int(place)) for place in places]
        masked, chosen = zip(
            *(self._take_away(int(epoch), int(place)) for epoch, place in zip(epochs, places, strict=True)), strict=True
        )
        first = [int(self.corpus.ids("first", int(place))[0]) for place in places]
        tensors = to_tensors(masked, first)
        padded_chosen = batching.pad(chosen)[0].astype(bool)
        expected = np.concatenate([row[which] for row, which in zip(ids, chosen, strict=True)]).astype(np.int64)
        return MaskedBatch(*tensors, torch.from_numpy(padded_chosen), torch.from_numpy(expected))

    def lines(self, rows: np.ndarray) -> list[str]:
        """The texts of a batch, to show a person."""
        return [self._tokenizer.decode(self.corpus.ids("ids", int(row % len(self))).tolist()) for row in rows]

    def _take_away(self, epoch: int, place: int) -> tuple[np.ndarray, np.ndarray]:
        """A row's ids after words were taken away, and which they were. Shape: each (T,)."""
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([self._seed, epoch, place])))
        ids, words = self.corpus.ids("ids", place), self.corpus.ids("words", place)
        chosen = choose_words(words, self._mask_share, rng)
        draw = rng.random(len(ids))
        masked = np.where(chosen & (draw < TAKEN_AWAY), self._mask_id, ids)
        is_replaced = chosen & (draw >= TAKEN_AWAY) & (draw < TAKEN_AWAY + REPLACED)
        masked[is_replaced] = rng.choice(self._text_ids, int(is_replaced.sum()))
        return masked, chosen


def choose_words(words: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Choose whole words at random until about `share` of the tokens is chosen: one at least, where there is one.

    Shape:  words (T,): each token's word, NO_WORD for signs; returns (T,), True where chosen.
    Source: Devlin et al. 2019, section 3.1, and the authors' later "whole word masking": a word that would go beyond
            the share is passed over.
    """
    numbers, lengths = np.unique(words[words != NO_WORD], return_counts=True)
    room = max(1, round(share * int(lengths.sum())))
    order = rng.permutation(len(numbers))
    taken: list[int] = []
    for i in order.tolist():
        if lengths[i] <= room:
            taken.append(i)
            room -= int(lengths[i])
        if not room:
            break
    # A text of one long word has nothing that fits.
    taken = taken or order[:1].tolist()
    chosen: np.ndarray = np.isin(words, numbers[taken])
    return chosen


class MaskedWordModel(Protocol):
    """What masked-language modelling asks of a model."""

    max_len: int
    masked_word_head: MaskedWordHead | None

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def __call__(self, ids: Tensor, mask: Tensor | None = None, segments: Tensor | None = None) -> Tensor: ...


class MaskedLanguageModellingTask:
    """What training needs of masked-language modelling: batches, loss, scores and samples."""

    def __init__(
        self, config: MaskedTextConfig, tokenizer: Tokenizer, rows: Mapping[str, Corpus], batch_tokens: int, seed: int
    ) -> None:
        self.config = config
        self._tokenizer = tokenizer
        self._batches = {
            split: MaskedBatches(corpus, tokenizer, config.mask_share, batch_tokens, seed)
            for split, corpus in rows.items()
        }

    @classmethod
    def prepare(
        cls,
        config: MaskedTextConfig,
        decode: None,
        folder: Path,
        batch_tokens: int,
        seed: int,
        announce: Announce,
        *,
        begun: bool = False,
    ) -> "MaskedLanguageModellingTask":
        """Make or open the run's tokenizer and data; only open them where training has `begun` on them."""
        texts, origin = prepare_texts(config, folder, seed, announce, begun=begun)
        tokenizer = prepare_tokenizer(config.tokenizer, folder, origin, texts["train"], announce)
        encoded_by = [tokenizer.fingerprint(), config.max_len, config.words, len(config.columns)]
        rows = prepare_rows(
            folder, encoded_by, texts, ROW_COLUMNS, lambda chunk: encode_masked(config, tokenizer, chunk)
        )
        announce(", ".join(f"{split}: {len(corpus):,} rows" for split, corpus in rows.items()))
        return cls(config, tokenizer, rows, batch_tokens, seed)

    def derived_sizes(self) -> dict[str, dict[str, Any]]:
        """What of the configuration follows from the data, by section."""
        return {"model": {"vocab_size": encoder_vocab_size(self._tokenizer), "masked_word_head": True}}

    def batches(self, split: str) -> MaskedBatches:
        return self._batches[split]

    def loss(self, model: MaskedWordModel, batch: MaskedBatch, *, smoothing: float = 0.0) -> tuple[Tensor, Tensor, int]:
        """The summed loss to minimise, the summed negative log-likelihood, and how many tokens they are of."""
        head = model.masked_word_head
        assert head is not None
        chosen = model(batch.ids, batch.mask, batch.segments)[batch.chosen]  # (chosen, D)
        filled = F.pad(chosen, (0, 0, 0, -len(chosen) % ROW_MULTIPLE))
        states = head.states(filled)[: len(chosen)]
        weight = head.output_projection.weight
        loss, nll = projected_cross_entropy(states, weight, batch.expected, bias=head.bias, smoothing=smoothing)
        return loss, nll, states.shape[0]

    @torch.inference_mode()
    def evaluate(self, model: MaskedWordModel) -> dict[str, Any]:
        """`valid_loss`, and `accuracy`: the share of tokens told right, of the validation texts."""
        return masked_word_scores(model, self._batches["valid"])

    @torch.inference_mode()
    def samples(self, model: MaskedWordModel, count: int = 2) -> list[tuple[str, str, str]]:
        """A text with words taken away, with the likeliest in their places, and as it was; the same each time."""
        assert model.masked_word_head is not None
        batches = self._batches["valid"]
        rows = np.array([len(batches) * i // count for i in range(count)])
        batch = batches.load(rows).to(next(model.parameters()).device)
        logits = model.masked_word_head(model(batch.ids, batch.mask, batch.segments)[batch.chosen])
        found = batch.ids.masked_scatter(batch.chosen, logits.argmax(dim=-1))
        before = batch.ids.masked_scatter(batch.chosen, batch.expected)
        labels = [*self._tokenizer.labels, "[MASK]"]

        def shown(ids: Tensor, i: int) -> str:
            return "".join(labels[k] for k in ids[i][batch.mask[i]].tolist()[1:-1]).replace("▁", " ").strip()

        return [(shown(batch.ids, i), shown(found, i), shown(before, i)) for i in range(count)]


def encode_masked(
    config: MaskedTextConfig, tokenizer: Tokenizer, chunk: Sequence[tuple[str, str, str]]
) -> Iterator[tuple[list[int], list[int], list[int]]]:
    """Each text's rows: ids, how many are of the first text, and the number of each token's word."""
    first = token_ids(tokenizer, [text for text, _, _ in chunk])
    if len(config.columns) == 2:
        second = token_ids(tokenizer, [text for _, text, _ in chunk])
        rows = (encoder_row(tokenizer, *pair, config.max_len) for pair in zip(first, second, strict=True))
    else:
        room = config.max_len - 2
        parts = (ids[start : start + room] for ids in first for start in range(0, len(ids), room))
        rows = (encoder_row(tokenizer, part, None, config.max_len) for part in parts)
    segmenter = chinese_segmenter() if config.words == "segmented" else None
    signs = {tokenizer.signs.bos, tokenizer.signs.eos}
    for row in rows:
        labels = [tokenizer.labels[i] for i in row.ids]
        if config.words == "pieces":
            words = list(range(len(labels)))
        else:
            words = word_numbers(labels, wordpiece=tokenizer.is_wordpiece, segmenter=segmenter)
        yield row.ids, [row.first], [NO_WORD if i in signs else word for i, word in zip(row.ids, words, strict=True)]


def masked_word_scores(model: MaskedWordModel, batches: MaskedBatches) -> dict[str, float]:
    """`valid_loss`, the mean negative log-likelihood of a word taken away, and `accuracy`.

    Raises: InputError: nothing could be taken away.
    """
    assert model.masked_word_head is not None
    device = next(model.parameters()).device
    total, right, count = 0.0, 0, 0
    for rows in batches.order(0, shuffle=False):
        batch = batches.load(rows).to(device)
        states = model(batch.ids, batch.mask, batch.segments)[batch.chosen]  # (chosen, D)
        log_probs = model.masked_word_head(states).float().log_softmax(dim=-1)  # (chosen, V)
        total -= float(log_probs.gather(1, batch.expected[:, None]).sum(dtype=torch.float64))
        right += int((log_probs.argmax(dim=-1) == batch.expected).sum())
        count += len(batch.expected)
    if not count:
        raise InputError("there is not one token in the texts to evaluate on, so none can be taken away; give others")
    return {"valid_loss": total / count, "accuracy": right / count}
