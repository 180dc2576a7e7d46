"""Texts and pairs of texts as an encoder reads them: between signs, cut to its length, padded side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zhuyi.data.batches import pad
from zhuyi.data.tokenizers import Tokenizer


@dataclass(frozen=True)
class EncoderRow:
    """The ids of a text: the begin sign, its tokens, the end sign; of a pair, the second text and an end sign more.

    Args:   first: how many ids are of the first text, both signs counted.
            is_cut: whether tokens were left out for want of room.
    """

    ids: list[int]
    first: int
    is_cut: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether there are signs alone."""
        return self.first == 2 and len(self.ids) <= 3


def mask_id(tokenizer: Tokenizer) -> int:
    """The id that stands for a word taken away; a tokenizer that was trained here has none, so it is the next one."""
    return tokenizer.vocab_size if tokenizer.signs.mask is None else tokenizer.signs.mask


def encoder_vocab_size(tokenizer: Tokenizer) -> int:
    """How many ids an encoder knows: the tokenizer's, and that of the word taken away."""
    return max(tokenizer.vocab_size, mask_id(tokenizer) + 1)


def token_ids(tokenizer: Tokenizer, texts: Sequence[str], *, normalized: bool = False) -> list[list[int]]:
    """The ids of texts, which may be `normalized` already, without any sign around them."""
    signs = tokenizer.signs
    found = []
    for ids in tokenizer.encode_batch(texts, normalized=normalized):
        ids = ids[:-1] if ids and ids[-1] == signs.eos else ids
        found.append(ids[1:] if ids and ids[0] == signs.bos else ids)  # an imported one may begin with its sign
    return found


def encoder_row(tokenizer: Tokenizer, ids: list[int], second: list[int] | None, max_len: int) -> EncoderRow:
    """Put signs around a text or a pair; of what is too long the end is cut, of a pair the longer text's."""
    signs = tokenizer.signs
    if second is None:
        kept = ids[: max_len - 2]
        return EncoderRow([signs.bos, *kept, signs.eos], len(kept) + 2, len(kept) < len(ids))
    room = max_len - 3
    left = max(room - len(second), (room + 1) // 2)  # the shorter one gives what it does not need
    first = ids[:left]
    rest = second[: room - len(first)]
    row = [signs.bos, *first, signs.eos, *rest, signs.eos]
    return EncoderRow(row, len(first) + 2, len(first) + len(rest) < len(ids) + len(second))


def encode_rows(
    tokenizer: Tokenizer, texts: Sequence[str], seconds: Sequence[str] | None, max_len: int
) -> list[EncoderRow]:
    """Tokenise texts on all cores, each with its second text where there are such."""
    first = token_ids(tokenizer, texts)
    if seconds is None:
        return [encoder_row(tokenizer, ids, None, max_len) for ids in first]
    second = token_ids(tokenizer, seconds)
    return [encoder_row(tokenizer, *pair, max_len) for pair in zip(first, second, strict=True)]


def to_tensors(ids: Sequence[np.ndarray], first: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, mask and segments of some rows.

    Shape: each (B, T); the mask is True at real tokens, a segment 1 at those of a second text.
    """
    padded, mask = pad(ids)
    segments = (np.arange(padded.shape[1]) >= np.asarray(first)[:, None]) & mask
    return torch.from_numpy(padded), torch.from_numpy(mask), torch.from_numpy(segments.astype(np.int64))
