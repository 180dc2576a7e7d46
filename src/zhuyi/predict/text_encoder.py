"""An encoder in memory: texts to rows of ids, and to embeddings whose cosine tells how alike they are."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from zhuyi.config import RunConfig
from zhuyi.data.batches import order
from zhuyi.data.encoder_rows import EncoderRow, encode_rows, encoder_vocab_size, to_tensors
from zhuyi.data.tokenizers import Tokenizer
from zhuyi.errors import InputError
from zhuyi.models.bert import mean_over
from zhuyi.nn.maps import Maps
from zhuyi.predict.translator import TextMaps
from zhuyi.run_folder import RunFolder
from zhuyi.tasks.encoder_data import in_characters

GAP = "[MASK]"  # as people write a word that is wanted
# Padded tokens of a batch: enough to fill the processor's products.
BATCH_TOKENS = 4096


class TextEncoder:
    """What every use of an encoder's run begins with.

    Args:   max_len: tokens of a row, signs included; of longer texts the end is cut.
            simplified: whether texts are turned into simplified characters first, as in training.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer, max_len: int, simplified: bool = False) -> None:
        self.model, self.tokenizer, self.max_len, self.simplified = model, tokenizer, max_len, simplified

    @classmethod
    def from_folder(cls, model: Any, config: RunConfig, folder: RunFolder) -> Self:
        """Read the tokenizer too.

        Raises: InputError: it is missing, broken, or of another model.
        """
        tokenizer = Tokenizer.load(folder.path / "tokenizer.json")
        if encoder_vocab_size(tokenizer) != config.model.vocab_size:
            raise InputError(
                f"{folder.path}: the tokenizer has {encoder_vocab_size(tokenizer):,} ids but the model "
                f"{config.model.vocab_size:,}; put back the tokenizer that the run was trained with"
            )
        return cls(model, tokenizer, min(config.data.max_len, config.model.max_len), config.data.simplify)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def read(self, text: str) -> str:
        """A text in the characters that the run was trained on."""
        return in_characters(text, self.simplified)

    def rows(self, texts: Sequence[str], seconds: Sequence[str] | None = None) -> list[EncoderRow]:
        """The ids of texts, or of pairs of them.

        Raises: InputError: one text where a list was wanted, or lists of unequal lengths.
        """
        if isinstance(texts, str):
            raise InputError("a list of texts was wanted; for one text write [text]")
        if seconds is not None and len(seconds) != len(texts):
            raise InputError(f"{len(texts)} texts but {len(seconds)} second texts; give one for each")
        read = [self.read(text) for text in texts]
        return encode_rows(
            self.tokenizer, read, None if seconds is None else list(map(self.read, seconds)), self.max_len
        )

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """The mean of each text's hidden states, signs included, at length 1.

        Shape: returns (texts, D) float32.
        """
        rows = self.rows(texts)
        lengths = np.array([len(row.ids) for row in rows], dtype=np.int64)
        found = np.zeros((len(rows), self.model.config.d_model), np.float32)
        for batch in order(lengths, batch_tokens=BATCH_TOKENS, seed=0, epoch=0, shuffle=False):
            tensors = to_tensors([np.array(rows[i].ids) for i in batch], [rows[i].first for i in batch])
            ids, mask, segments = (x.to(self.device) for x in tensors)
            mean = mean_over(self.model(ids, mask, segments).float(), mask)  # (B, D)
            found[batch] = torch.nn.functional.normalize(mean, dim=-1).cpu().numpy()
        return found


class EncoderRun:
    """A run of an encoder in memory: `model` is the module, `config` what it was made from."""

    def __init__(self, encoder: TextEncoder, config: RunConfig, precision: str = "float32") -> None:
        self.model: Any = encoder.model
        self.config = config
        self.precision = precision
        self.tokenizer = encoder.tokenizer
        self._encoder = encoder

    @classmethod
    def from_folder(cls, model: nn.Module, config: RunConfig, folder: RunFolder, precision: str) -> Self:
        """Read the tokenizer too.

        Raises: InputError: it is missing, broken, or of another model.
        """
        return cls(TextEncoder.from_folder(model, config, folder), config, precision)

    @property
    def max_len(self) -> int:
        """Tokens that are read of a text, signs included."""
        return self._encoder.max_len

    def rows(self, texts: Sequence[str]) -> list[EncoderRow]:
        """The texts as the model reads them."""
        return self._encoder.rows(texts)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Each text as a vector of length 1. Shape: returns (texts, D) float32."""
        return self._encoder.embed(texts)

    @torch.inference_mode()
    def attention(self, text: str) -> TextMaps:
        """Where every head looks, over a text and the signs around it.

        Raises: InputError: the text is empty, or longer than what the model reads.
        """
        row = self._row(text)
        if len(row.ids) == len(self._row("").ids):
            raise InputError("there is nothing to attend to: the text is empty")
        if row.is_cut:
            raise InputError(f"the text is longer than the {self._encoder.max_len} tokens of the model; shorten it")
        maps = Maps()
        ids, mask, segments = (x.to(self._encoder.device) for x in to_tensors([np.array(row.ids)], [row.first]))
        self.model(ids, mask, segments, maps)
        labels = [*self.tokenizer.labels, GAP]
        weights = {name: weights[0].float().cpu() for name, weights in maps.weights.items()}
        return TextMaps(tuple(labels[i] for i in row.ids), (), weights)

    def _row(self, text: str) -> EncoderRow:
        """One text as the model reads it."""
        return self._encoder.rows([text])[0]
