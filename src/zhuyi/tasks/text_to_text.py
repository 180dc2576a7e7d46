"""Text to text: several tasks in one model, told apart by a prefix, and pre-training by spans taken out of text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zhuyi.decoding import Greedy, Request, max_output_tokens, run
from zhuyi.decoding.config import DecodeConfig
from zhuyi.metrics.translation_scores import translation_scores
from zhuyi.tasks.announcing import Announce
from zhuyi.tasks.cross_attention import CrossAttention, of_pairs
from zhuyi.tasks.mixture import MixtureConfig
from zhuyi.tasks.mixture_data import MixtureBatches, MixtureData, PairSource, prefix_ids, prepare_mixture
from zhuyi.tasks.pair_data import PairBatch
from zhuyi.tasks.sentence_search import forbid_beyond, open_search
from zhuyi.tasks.text_parts import Translation
from zhuyi.tasks.text_search import translate_texts
from zhuyi.tasks.text_to_text_model import TextToTextModel
from zhuyi.tasks.translation import target_loss


class TextToTextTask:
    """What training needs of text to text: batches, loss, each part's scores, samples."""

    def __init__(
        self, config: MixtureConfig, decode: DecodeConfig, data: MixtureData, batch_tokens: int, seed: int
    ) -> None:
        self.config = config
        self._data = data
        self._vocab_size = data.tokenizer.vocab_size + config.sentinels
        greedy = replace(decode, beam=1, longest_sentence=0, most_sentences=0)
        self._greedy = forbid_beyond(greedy, data.tokenizer, self._vocab_size)
        weights = {part.name: part.weight for part in config.mixture}
        bos = data.tokenizer.signs.bos

        def batches(sources: Mapping[str, Any]) -> MixtureBatches:
            return MixtureBatches(list(sources.values()), [weights[name] for name in sources], batch_tokens, seed, bos)

        self._batches = {"train": batches(data.train), "valid": batches(data.valid)}
        self._valid = {name: batches({name: source}) for name, source in data.valid.items()}

    @classmethod
    def prepare(
        cls,
        config: MixtureConfig,
        decode: DecodeConfig,
        folder: Path,
        batch_tokens: int,
        seed: int,
        announce: Announce,
        *,
        begun: bool = False,
    ) -> "TextToTextTask":
        """Make or open the run's tokenizer and data; only open them where training has `begun` on them."""
        data = prepare_mixture(config, folder, seed, announce, begun=begun)
        return cls(config, decode, data, batch_tokens, seed)

    def derived_sizes(self) -> dict[str, dict[str, int]]:
        """What of the configuration follows from the data, by section."""
        lengths = sorted(n for _, source in self._pairs("train") for n in source.lengths[:, 0].tolist())
        longest = lengths[int(0.999 * (len(lengths) - 1))] if lengths else 0
        return {"model": {"vocab_size": self._vocab_size}, "decode": {"longest_sentence": max(16, longest)}}

    def batches(self, split: str) -> MixtureBatches:
        return self._batches[split]

    def loss(self, model: TextToTextModel, batch: PairBatch, *, smoothing: float = 0.0) -> tuple[Tensor, Tensor, int]:
        """The summed loss to minimise, the summed negative log-likelihood, and how many tokens they are of."""
        return target_loss(model, batch, smoothing)

    @torch.inference_mode()
    def evaluate(self, model: TextToTextModel) -> dict[str, Any]:
        """`valid_loss` over all parts and of each; of pairs `bleu` and `chrf` of each, and their means.

        A part's scores have its name after them: `bleu_zh-en`.
        """
        losses = {name: self._loss_of(model, batches) for name, batches in self._valid.items()}
        scores: dict[str, Any] = {
            "valid_loss": sum(nll for nll, _ in losses.values()) / sum(count for _, count in losses.values())
        }
        of_parts: dict[str, Any] = {f"valid_loss_{name}": nll / count for name, (nll, count) in losses.items()}
        found = {name: self._scores_of(model, name, source) for name, source in self._pairs("valid")}
        for key in ("bleu", "chrf") if found else ():
            scores[key] = round(sum(each[key] for each in found.values()) / len(found), 2)
            of_parts |= {f"{key}_{name}": each[key] for name, each in found.items()}
        return scores | of_parts

    @torch.inference_mode()
    def samples(self, model: TextToTextModel) -> list[tuple[str, str, str]]:
        """What is read, what the model writes and what it should, of a validation row of each part, always the same."""
        found = []
        for name, source in self._data.valid.items():
            if isinstance(source, PairSource):
                texts, references = source.texts()
                prefix = self.config.prefixes[name]
                answer = next(self._answers(model, prefix, texts[:1])).text
                found.append((prefix + texts[0], answer, references[0]))
            else:
                found.append(self._sample_of_spans(model, self._valid[name]))
        return found

    def cross_attention(self, model: TextToTextModel) -> CrossAttention | None:
        """Where the model looks as it writes a validation row, the same each time: of the first part with pairs."""
        name = next((name for name, _ in self._pairs("valid")), next(iter(self._valid)))
        return of_pairs(model, self._valid[name], self._label, self._label)

    def _label(self, i: int) -> str:
        tokenizer = self._data.tokenizer
        return tokenizer.labels[i] if i < tokenizer.vocab_size else f"<{self._vocab_size - i}>"

    def _pairs(self, split: str) -> Iterator[tuple[str, PairSource]]:
        sources = self._data.train if split == "train" else self._data.valid
        return ((name, source) for name, source in sources.items() if isinstance(source, PairSource))

    def _loss_of(self, model: TextToTextModel, batches: MixtureBatches) -> tuple[float, int]:
        device = next(model.parameters()).device
        total, count = 0.0, 0
        for rows in batches.order(0, shuffle=False):
            _, nll, tokens = self.loss(model, batches.load(rows).to(device))
            total, count = total + float(nll), count + tokens
        return total, count

    def _scores_of(self, model: TextToTextModel, name: str, source: PairSource) -> dict[str, Any]:
        texts, references = source.texts()
        found = [answer.text for answer in self._answers(model, self.config.prefixes[name], texts)]
        target = next(part.target for part in self.config.mixture if part.name == name)
        return translation_scores(found, references, target)

    def _answers(self, model: TextToTextModel, prefix: str, texts: list[str]) -> Iterator[Translation]:
        tokenizer = self._data.tokenizer
        return translate_texts(model, tokenizer, tokenizer, texts, self._greedy, prefix=prefix_ids(tokenizer, prefix))

    def _sample_of_spans(self, model: TextToTextModel, batches: MixtureBatches) -> tuple[str, str, str]:
        batch, signs = batches.load(batches.order(0, shuffle=False)[0][:1]), self._data.tokenizer.signs
        read, expected = batch.src[0].tolist(), batch.expected[0].tolist()
        search = open_search(model, Greedy(), signs)
        request = Request(0, tuple(read), max_output_tokens(len(read), model.max_len))
        (written,) = [event.hypotheses[0].tokens for event in run(search, [request], max_rows=1) if event.hypotheses]
        return self._show(read), self._show(written), self._show(expected)

    def _show(self, ids: Sequence[int]) -> str:
        """A text with its signs, counted from 1: <1>, <2>."""
        tokenizer, shown, held = self._data.tokenizer, "", list[int]()
        for i in (*ids, self._vocab_size):
            if i < tokenizer.vocab_size:
                held.append(i)
                continue
            shown, held = shown + tokenizer.decode(held), []
            shown += self._label(i) if i < self._vocab_size else ""
        return shown
