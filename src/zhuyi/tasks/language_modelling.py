"""Language modelling: the loss of what comes next in a text, its scores, and samples of what a model writes."""

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from zhuyi.data.batches import pad
from zhuyi.data.pairs import CleaningReport
from zhuyi.data.tokenizers import Tokenizer
from zhuyi.decoding.config import GenerationConfig
from zhuyi.nn.embeddings import OutputProjection
from zhuyi.nn.loss import projected_cross_entropy
from zhuyi.tasks.continuation import Prompt, continue_texts
from zhuyi.tasks.text_data import Segments, Text, TextData, TextDataConfig, encode_files, prepare_text_data

SAMPLE_PROMPT_TOKENS = 16
SAMPLE_TOKENS = 48
SCORED_TOKENS = 1024  # a batch: a vocabulary of 50,000 takes 200 MB for them


@dataclass(frozen=True)
class TextBatch:
    """Segments of text, right-padded.

    Shape: ids, expected (what follows each) (B, T); learned (B, T), True where `expected` counts.
    """

    ids: Tensor
    expected: Tensor
    learned: Tensor

    @property
    def num_tokens(self) -> int:
        return int(self.learned.sum())

    def to(self, device: torch.device) -> "TextBatch":
        return TextBatch(*(x.to(device) for x in (self.ids, self.expected, self.learned)))


class TextBatches:
    """The batches of one split: their order in each epoch, and what a batch's segments hold."""

    def __init__(self, segments: Segments) -> None:
        self.segments = segments

    def order(self, epoch: int, *, shuffle: bool = True) -> list[np.ndarray]:
        return self.segments.order(epoch, shuffle=shuffle)

    def largest(self) -> np.ndarray:
        return self.segments.largest()

    def load(self, starts: np.ndarray) -> TextBatch:
        rows, mask = pad(self.segments.ids(starts, before=1))
        learned = mask[:, 1:]
        flags = self.segments.is_learned(starts)
        if flags is not None:
            learned = learned & (pad(flags)[0] == 1)
        return TextBatch(*map(torch.from_numpy, (rows[:, :-1], rows[:, 1:], learned)))

    def lines(self, starts: np.ndarray) -> list[str]:
        return self.segments.lines(starts)


class LanguageModel(Protocol):
    """What language modelling asks of a model: the contract of a decoder that has no memory."""

    output_projection: OutputProjection

    @property
    def max_len(self) -> int: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def decoder_states(self, ids: Tensor, mask: Tensor | None = None) -> Tensor: ...

    def start(self, memory: None, prefix: Tensor, prefix_mask: Tensor | None = None) -> Any: ...

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]: ...


class LanguageModellingTask:
    """What training needs of language modelling: batches, loss, scores and samples."""

    def __init__(
        self, config: TextDataConfig, decode: GenerationConfig, data: TextData, batch_tokens: int, seed: int
    ) -> None:
        self.config = config
        self._decode = decode
        self._data = data
        self._batches = {
            split: TextBatches(_segments(text, data, config, batch_tokens, seed))
            for split, text in (("train", data.train), ("valid", data.valid))
        }

    @classmethod
    def prepare(
        cls,
        config: TextDataConfig,
        decode: GenerationConfig,
        folder: Path,
        batch_tokens: int,
        seed: int,
        announce: Callable[[str], None],
        *,
        begun: bool = False,
    ) -> "LanguageModellingTask":
        """Make or open the run's tokenizer and text; only open them where training has `begun` on them."""
        data = prepare_text_data(config, folder, seed, announce, begun=begun)
        return cls(config, decode, data, batch_tokens, seed)

    def derived_sizes(self) -> dict[str, dict[str, int]]:
        """What of the configuration follows from the data, by section."""
        return {"model": {"vocab_size": self._data.tokenizer.vocab_size}}

    def batches(self, split: str) -> TextBatches:
        return self._batches[split]

    def loss(self, model: LanguageModel, batch: TextBatch, *, smoothing: float = 0.0) -> tuple[Tensor, Tensor, int]:
        """The summed loss to minimise, the summed negative log-likelihood, and how many tokens they are of."""
        states = model.decoder_states(batch.ids)  # padding is on the right, where causality hides it
        real = states[batch.learned]  # (tokens, D)
        projection = model.output_projection
        loss, nll = projected_cross_entropy(
            real, projection.weight, batch.expected[batch.learned], bias=projection.bias, smoothing=smoothing
        )
        return loss, nll, real.shape[0]

    @torch.inference_mode()
    def evaluate(self, model: LanguageModel) -> dict[str, Any]:
        """`valid_loss`, its `perplexity`, and where all of the text is learned `bits_per_character`."""
        device = next(model.parameters()).device

        def nll(batch: TextBatch) -> tuple[float, int]:
            _, found, tokens = self.loss(model, batch)
            return float(found), tokens

        return text_scores(nll, self._batches["valid"], device)

    @torch.inference_mode()
    def samples(self, model: LanguageModel, count: int = 2) -> list[tuple[str, str, str]]:
        """Beginnings from the validation text, how the model goes on, and how the text does: the same each time."""
        tokenizer, ids = self._data.tokenizer, self._data.valid.ids
        length = min(SAMPLE_PROMPT_TOKENS, len(ids) // 2)
        starts = [len(ids) * i // count for i in range(count)]
        prompts = [Prompt(ids[start : start + length].tolist()) for start in starts]
        found = {}
        for chunk in continue_texts(model, tokenizer, prompts, self._decode.for_samples(SAMPLE_TOKENS)):
            if chunk.written is not None:
                found[chunk.prompt] = chunk.written.text
        return [
            (
                tokenizer.decode(prompts[i].ids),
                found[i],
                tokenizer.decode(ids[start + length : start + length + SAMPLE_TOKENS].tolist()),
            )
            for i, start in enumerate(starts)
        ]


def _segments(text: Text, data: TextData, config: TextDataConfig, batch_tokens: int, seed: int) -> Segments:
    return Segments(text, data.tokenizer, config.max_len, config.segments, batch_tokens, seed)


def text_scores(
    nll: Callable[[TextBatch], tuple[float, int]], batches: TextBatches, device: torch.device
) -> dict[str, float]:
    """The scores of a whole text, in segments: each token is seen once, after what its segment holds before it.

    Args:   nll: the negative log-likelihood of a batch, and of how many tokens it is.
    """
    found = [nll(batches.load(starts).to(device)) for starts in batches.order(0, shuffle=False)]
    total, count = sum(loss for loss, _ in found), sum(tokens for _, tokens in found)
    scores = {"valid_loss": total / count, "perplexity": math.exp(min(total / count, 700.0))}
    text = batches.segments.text
    if text.is_learned is None:
        scores["bits_per_character"] = total / math.log(2) / text.counts.characters
    return scores


@torch.inference_mode()
def score_text(
    model: nn.Module, tokenizer: Tokenizer, config: TextDataConfig, files: Sequence[str], report: CleaningReport
) -> tuple[dict[str, float], int]:
    """The same of some files, by a model in whatever precision, and how many tokens they have.

    Args:   report: where the lines of dialogues are counted.
    Raises: InputError: a file cannot be read, or there is no text.
    """

    def nll(batch: TextBatch) -> tuple[float, int]:
        log_probs = model(batch.ids).float().log_softmax(dim=-1)  # (B, T, V)
        of_expected = log_probs.gather(2, batch.expected[:, :, None])[:, :, 0]
        return -float(of_expected[batch.learned].double().sum()), batch.num_tokens

    with tempfile.TemporaryDirectory() as folder:
        text = encode_files(config, files, tokenizer, Path(folder), report)
        segments = Segments(text, tokenizer, config.max_len, config.segments, SCORED_TOKENS, seed=0)
        device = next(model.parameters()).device
        return text_scores(nll, TextBatches(segments), device), text.counts.tokens
