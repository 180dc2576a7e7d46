"""A masked-language-modelling run in memory: words for the gaps of a text, and texts to embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from zhuyi.data.encoder_rows import EncoderRow, encoder_row, mask_id, token_ids
from zhuyi.data.tokenizers import SPACE
from zhuyi.data.whole_words import CONTINUES
from zhuyi.errors import InputError
from zhuyi.predict.text_encoder import GAP, EncoderRun

# A piece by itself in any vocabulary whose pieces hold spaces: behind it, letters do not begin a word.
MARK = "."


@dataclass(frozen=True)
class Candidate:
    """A word for a gap: as it is written, how likely, and the text with it in the gap's place."""

    word: str
    probability: float
    text: str


class WordFiller(EncoderRun):
    """A masked-language-modelling run in memory: `model` is the module, `config` what it was made from."""

    @torch.inference_mode()
    def fill(self, text: str, *, top: int = 5) -> list[list[Candidate]]:
        """The likeliest words for each [MASK] of a text, best first; a gap is one token wide.

        Raises: InputError: the text has no gap, is too long, or the run has no head that fills in words.
        """
        self.check_head()
        parts = text.split(GAP)
        if len(parts) == 1:
            raise InputError(f"nothing to fill in: write {GAP} where a word is wanted, as in 今天天气{GAP}好")
        if top < 1:
            raise InputError(f"top is {top}; ask for one word or more")
        ids = self._row(text).ids
        hidden = self.model(torch.tensor([ids], device=self._encoder.device))  # (1, T, D)
        gap = mask_id(self.tokenizer)
        logits = self.model.masked_word_head(hidden[0, [i for i, each in enumerate(ids) if each == gap]]).float()
        words = self._words()
        is_word = torch.tensor([i != gap and bool(word) for i, word in enumerate(words)], device=logits.device)
        logits[:, ~is_word] = -torch.inf
        top = min(top, int(is_word.sum()))
        return [self._candidates(parts, number, row, words, top) for number, row in enumerate(logits.softmax(dim=-1))]

    def check_head(self) -> None:
        """Raise InputError where the run has no head that fills in words, as an imported encoder may."""
        if self.model.masked_word_head is None:
            raise InputError("this run has no head that fills in words; it is for embeddings")

    def _row(self, text: str) -> EncoderRow:
        """The text between signs, with the mask's id in each gap.

        Raises: InputError: it is longer than what the model reads.
        """
        # The text as a whole tells which marks are Chinese, so it is normalised before it is cut.
        parts = self.tokenizer.normalize(self._encoder.read(text)).split(GAP)
        is_cut = [False] * len(parts)
        if any(label.startswith(SPACE) and label != SPACE for label in self.tokenizer.labels):
            # The space before a word is part of its piece, and so of the gap; and a word that a gap begins goes on.
            parts = [part.removesuffix(" ") for part in parts[:-1]] + parts[-1:]
            is_cut = [number > 0 and part[:1].isalnum() for number, part in enumerate(parts)]
        marked = [MARK + part if cut else part for part, cut in zip(parts, is_cut, strict=True)]
        ids: list[int] = []
        for number, part in enumerate(token_ids(self.tokenizer, marked, normalized=True)):
            ids += [*([mask_id(self.tokenizer)] if number else []), *part[is_cut[number] :]]
        row = encoder_row(self.tokenizer, ids, None, self._encoder.max_len)
        if row.is_cut:
            raise InputError(
                f"the text is longer than the {self._encoder.max_len} tokens that the model reads; shorten it"
            )
        return row

    def _words(self) -> list[str]:
        """By id, what would be written in a gap; empty where nothing would be seen."""
        signs = self.tokenizer.signs.all()
        prefix = CONTINUES if self.tokenizer.is_wordpiece else ""
        words = [label.removeprefix(prefix).replace(SPACE, "").strip() for label in self.tokenizer.labels]
        words = ["" if i in signs else word for i, word in enumerate(words)]
        return words + [""] * (self.model.config.vocab_size - len(words))

    def _candidates(
        self, parts: Sequence[str], number: int, probs: torch.Tensor, words: Sequence[str], top: int
    ) -> list[Candidate]:
        best = probs.topk(top)
        before, after = GAP.join(parts[: number + 1]), GAP.join(parts[number + 1 :])
        return [
            Candidate(words[i], probability, before + words[i] + after)
            for probability, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
