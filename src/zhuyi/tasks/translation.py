"""Translation: the loss of sentence pairs, their scores, and samples."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zhuyi.decoding.config import DecodeConfig
from zhuyi.metrics.translation_scores import translation_scores
from zhuyi.nn.loss import projected_cross_entropy
from zhuyi.tasks.announcing import Announce
from zhuyi.tasks.cross_attention import CrossAttention, of_pairs
from zhuyi.tasks.forms import Forms
from zhuyi.tasks.pair_data import (
    PairBatch,
    PairBatches,
    PairData,
    PairDataConfig,
    prepare_pair_data,
)
from zhuyi.tasks.text_parts import Translation, usual_sentences
from zhuyi.tasks.text_search import translate_texts
from zhuyi.tasks.text_to_text_model import TextToTextModel

TEXTS_LOOKED_AT = 2000  # for how many sentences a source has


class TranslationTask:
    """What training needs of translation: batches, loss, scores and samples."""

    def __init__(
        self, config: PairDataConfig, decode: DecodeConfig, data: PairData, batch_tokens: int, seed: int
    ) -> None:
        if decode.constraint != "none":
            Forms(decode.constraint, data.source_tokenizer, data.target_tokenizer)  # refuses tokens it cannot count
        self.config = config
        self._decode = decode
        self._data = data
        self._batches = {
            "train": PairBatches(data.train, batch_tokens, seed, data.target_tokenizer.signs.bos),
            "valid": PairBatches(data.valid, batch_tokens, seed, data.target_tokenizer.signs.bos),
        }

    @classmethod
    def prepare(
        cls,
        config: PairDataConfig,
        decode: DecodeConfig,
        folder: Path,
        batch_tokens: int,
        seed: int,
        announce: Announce,
        *,
        begun: bool = False,
    ) -> "TranslationTask":
        """Make or open the run's tokenizers and data; only open them where training has `begun` on them."""
        data = prepare_pair_data(config, folder, seed, announce, begun=begun)
        return cls(config, decode, data, batch_tokens, seed)

    def derived_sizes(self) -> dict[str, dict[str, int]]:
        """What of the configuration follows from the data, by section."""
        lengths = sorted(self._data.train.lengths("source").tolist())
        longest = lengths[int(0.999 * (len(lengths) - 1))]
        corpus, tokenizer = self._data.train, self._data.source_tokenizer
        some = range(0, len(corpus), max(1, len(corpus) // TEXTS_LOOKED_AT))
        sentences = usual_sentences([tokenizer.decode(corpus.ids("source", row)) for row in some])
        return {
            "model": {
                "source_vocab_size": self._data.source_tokenizer.vocab_size,
                "target_vocab_size": self._data.target_tokenizer.vocab_size,
            },
            "decode": {"longest_sentence": max(16, longest), "most_sentences": sentences},
        }

    def batches(self, split: str) -> PairBatches:
        return self._batches[split]

    def loss(self, model: TextToTextModel, batch: PairBatch, *, smoothing: float = 0.0) -> tuple[Tensor, Tensor, int]:
        """The summed loss to minimise, the summed negative log-likelihood, and how many tokens they are of."""
        return target_loss(model, batch, smoothing)

    @torch.inference_mode()
    def evaluate(self, model: TextToTextModel) -> dict[str, Any]:
        """`valid_loss`, and `bleu` and `chrf` of greedy translations of the validation pairs."""
        batches, corpus = self._batches["valid"], self._data.valid
        device = next(model.parameters()).device
        total, count = 0.0, 0
        for rows in batches.order(0, shuffle=False):
            _, nll, tokens = self.loss(model, batches.load(rows).to(device))
            total, count = total + float(nll), count + tokens
        texts = [corpus.text("source_text", row) for row in range(len(corpus))]
        references = [corpus.text("target_text", row) for row in range(len(corpus))]
        found = [translation.text for translation in self._translate(model, texts)]
        scores = translation_scores(found, references, self.config.target)
        return {"valid_loss": total / count, "bleu": scores["bleu"], "chrf": scores["chrf"]}

    @torch.inference_mode()
    def samples(self, model: TextToTextModel, count: int = 2) -> list[tuple[str, str, str]]:
        """Source, translation and reference of some validation pairs, the same each time."""
        corpus = self._data.valid
        rows = [len(corpus) * i // count for i in range(count)]
        texts = [corpus.text("source_text", row) for row in rows]
        return [
            (text, translation.text, corpus.text("target_text", row))
            for row, text, translation in zip(rows, texts, self._translate(model, texts), strict=True)
        ]

    def cross_attention(self, model: TextToTextModel) -> CrossAttention | None:
        """Where the model looks in the source of a validation pair, the same each time."""
        labels = self._data.source_tokenizer.labels, self._data.target_tokenizer.labels
        return of_pairs(model, self._batches["valid"], *(each.__getitem__ for each in labels))

    def _translate(self, model: TextToTextModel, texts: list[str]) -> Iterator[Translation]:
        greedy = replace(self._decode, beam=1, longest_sentence=0, most_sentences=0)
        return translate_texts(model, self._data.source_tokenizer, self._data.target_tokenizer, texts, greedy)


def target_loss(model: TextToTextModel, batch: PairBatch, smoothing: float) -> tuple[Tensor, Tensor, int]:
    """Of the targets, given their sources: what to minimise, the negative log-likelihood, and of how many tokens."""
    states = model.decoder_states(batch.src, batch.tgt, batch.src_mask, batch.tgt_mask)
    real = states[batch.tgt_mask]  # (tokens, D)
    table = model.output_projection
    expected = batch.expected[batch.tgt_mask]
    loss, nll = projected_cross_entropy(real, table.weight, expected, bias=table.bias, smoothing=smoothing)
    return loss, nll, real.shape[0]
