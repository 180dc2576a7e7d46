"""Speech recognition: the loss of recordings and their texts, and their error rates."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zhuyi.data.audio import SAMPLE_RATE_HZ
from zhuyi.metrics.speech_scores import speech_scores
from zhuyi.nn.loss import projected_cross_entropy
from zhuyi.nn.maps import Maps
from zhuyi.tasks.announcing import Announce
from zhuyi.tasks.cross_attention import MOST_COLUMNS, MOST_ROWS, CrossAttention, narrowed, of_last_layer
from zhuyi.tasks.speech_data import (
    POSITIONS_A_SECOND,
    SpeechBatch,
    SpeechBatches,
    SpeechData,
    SpeechDataConfig,
    prepare_speech_data,
)
from zhuyi.tasks.transcription import Manner, TranscriptionConfig, transcribe


class SpeechRecognitionTask:
    """What training needs of speech recognition: batches, loss, scores and samples."""

    def __init__(
        self, config: SpeechDataConfig, decode: TranscriptionConfig, data: SpeechData, batch_tokens: int, seed: int
    ) -> None:
        self.config = config
        self._data = data
        # A glance at what is learnt: what is not believed is not tried again.
        self._decode = replace(decode, beam=1, temperatures=(0.0,))
        self._batches = {
            "train": SpeechBatches(data.train, data.tokenizer, config, config.augment, batch_tokens, seed),
            "valid": SpeechBatches(data.valid, data.tokenizer, config, None, batch_tokens, seed),
        }

    @classmethod
    def prepare(
        cls,
        config: SpeechDataConfig,
        decode: TranscriptionConfig,
        folder: Path,
        batch_tokens: int,
        seed: int,
        announce: Announce,
        *,
        begun: bool = False,
    ) -> "SpeechRecognitionTask":
        """Make or open the run's tokenizer and recordings; only open them where training has `begun` on them."""
        data = prepare_speech_data(config, folder, seed, announce, begun=begun)
        return cls(config, decode, data, batch_tokens, seed)

    def derived_sizes(self) -> dict[str, dict[str, Any]]:
        """What of the configuration follows from the data, by section."""
        return {
            "model": {
                "vocab_size": self._data.tokenizer.vocab_size,
                "num_mel_bins": self.config.num_mel_bins,
                "window_seconds": self.config.window_seconds,
            }
        }

    def batches(self, split: str) -> SpeechBatches:
        return self._batches[split]

    def loss(self, model: Any, batch: SpeechBatch, *, smoothing: float = 0.0) -> tuple[Tensor, Tensor, int]:
        """The summed loss to minimise, the summed negative log-likelihood, and how many tokens they are of."""
        states = model.decoder_states(batch.features, batch.tgt)[batch.learned]  # (tokens, D)
        weight, expected = model.output_projection.weight, batch.expected[batch.learned]
        loss, nll = projected_cross_entropy(states, weight, expected, smoothing=smoothing)
        return loss, nll, len(expected)

    @torch.inference_mode()
    def evaluate(self, model: Any) -> dict[str, Any]:
        """`valid_loss`, and `wer` and `cer` of greedy transcriptions of the validation recordings."""
        batches, sounds = self._batches["valid"], self._data.valid
        device = next(model.parameters()).device
        total, count = 0.0, 0
        for rows in batches.order(0, shuffle=False):
            _, nll, tokens = self.loss(model, batches.load(rows).to(device))
            total, count = total + float(nll), count + tokens
        found = self._texts(model, range(len(sounds)))
        return {"valid_loss": total / count, **speech_scores(found, [sounds[row][1] for row in range(len(sounds))])}

    @torch.inference_mode()
    def samples(self, model: Any, count: int = 2) -> list[tuple[str, str, str]]:
        """Name, transcription and text of some validation recordings, the same each time."""
        sounds = self._data.valid
        rows = [len(sounds) * i // count for i in range(count)]
        found = self._texts(model, rows)
        return [(sounds.name(row), text, sounds[row][1]) for row, text in zip(rows, found, strict=True)]

    @torch.inference_mode()
    def cross_attention(self, model: Any) -> CrossAttention | None:
        """Where in a validation recording the model listens as it writes the text, the same each time."""
        samples, text = self._data.valid[0]
        batch, maps = self._batches["valid"].load(np.array([0])).to(next(model.parameters()).device), Maps()
        model.decode(batch.tgt, model.encode(batch.features), maps)
        weights = of_last_layer(maps)
        if weights is None or not text:
            return None
        heard = -(-len(samples) * POSITIONS_A_SECOND // SAMPLE_RATE_HZ)
        weights = weights[batch.learned[0]][:MOST_ROWS, :heard]  # (T, S)
        together = -(-heard // MOST_COLUMNS)
        seconds = tuple(f"{start / POSITIONS_A_SECOND:.1f} s" for start in range(0, heard, together))
        written = batch.expected[batch.learned].tolist()[:MOST_ROWS]
        return CrossAttention(
            seconds, tuple(self._data.tokenizer.labels[i] for i in written), narrowed(weights, together)
        )

    def _texts(self, model: Any, rows: Any) -> list[str]:
        recordings = (self._data.valid[row][0] for row in rows)
        manner = Manner(self.config.language)
        return [each.text for each in transcribe(model, self._data.tokenizer, recordings, self._decode, manner)]
