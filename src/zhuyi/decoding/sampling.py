"""Tokens drawn by their probability."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zhuyi.decoding.config import LEAST_TEMPERATURE
from zhuyi.decoding.reductions import log_normalizer, top
from zhuyi.decoding.requests import Hypothesis, Request
from zhuyi.decoding.rows import Rows
from zhuyi.decoding.scores import Scores
from zhuyi.decoding.search import Choice

_GAMMA = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_FIRST_CANDIDATES = 256
_BLOCK = 128
_BELOW_ONE = 1.0 - 2.0**-52  # the largest draw: times a total, it is still less than the total


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def stream_keys(seed: int, samples: int) -> NDArray[np.uint64]:
    """Make the starting point of each sample's random numbers. Shape: returns (samples,)."""
    start = _mix(np.array([seed & _MASK], dtype=np.uint64))
    return _mix(start + np.arange(1, samples + 1, dtype=np.uint64) * np.uint64(_GAMMA))


def uniforms(keys: NDArray[np.uint64], positions: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Draw the number in [0, 1) that stands at each position of each stream; it depends on nothing else.

    Shape:  keys (R,), positions (R,); returns (R,).
    Source: SplitMix64 (Steele, Lea and Flood 2014), whose n-th number is a hash of start and n.
    """
    bits = _mix(keys + (positions + np.uint64(1)) * np.uint64(_GAMMA))
    return (bits >> np.uint64(12)).astype(np.float64) * 2.0**-52


@dataclass
class _Records:
    keys: NDArray[np.uint64]  # (B, samples)
    log_probs: Tensor  # (B, samples); -inf: ended

    def select(self, positions: Sequence[int]) -> Self:
        chosen = list(positions)
        return type(self)(self.keys[chosen], self.log_probs[chosen])

    def join(self, other: Self) -> Self:
        log_probs = torch.cat([self.log_probs, other.log_probs])
        return type(self)(np.concatenate([self.keys, other.keys]), log_probs)


@dataclass(frozen=True)
class Sampling:
    """Draw each token from the softmax of the logits, after the given cuts, in this order.

    What a request gets depends on its seed, the sample's number and the position alone, never on its batch.
    Hypotheses come in the samples' order, which the streamed tokens name too.

    Args:
        temperature: divides the logits; a thousandth at least.
        top_k: only so many of the likeliest; 0: all.
        top_p: only the fewest of the likeliest that together reach this probability; 1: all.
        min_p: only those at least this times as likely as the likeliest; 0: all.
        samples: sequences a request.
    Raises: ValueError: a value out of its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    samples: int = 1

    streams: ClassVar[bool] = True
    scores: ClassVar[bool] = True
    looks_at: ClassVar[None] = None

    def __post_init__(self) -> None:
        if not LEAST_TEMPERATURE <= self.temperature < float("inf"):
            raise ValueError(
                f"temperature is {self.temperature}; it must be at least {LEAST_TEMPERATURE} (greedy search needs none)"
            )
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}; it must be at least 0 (0: no limit)")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p is {self.min_p}; it must be from 0 to 1")
        if self.samples < 1:
            raise ValueError(f"samples is {self.samples}; it must be at least 1")

    @property
    def width(self) -> int:
        """Rows a request."""
        return self.samples

    def start(self, requests: Sequence[Request], device: torch.device) -> _Records:
        """Make the records of new requests."""
        keys = np.stack([stream_keys(request.seed, self.samples) for request in requests])
        return _Records(keys, torch.zeros(len(requests), self.samples, device=device))

    def choose(self, scores: Scores, rows: Rows, records: _Records, eos_id: int) -> Choice:
        """Decide one step."""
        logits = scores.logits
        assert scores.normalizer is not None
        positions = np.repeat(np.array(rows.member_lengths, dtype=np.uint64), self.samples)
        draws = torch.from_numpy(uniforms(records.keys.reshape(-1), positions)).to(logits.device)
        tokens = self.draw(logits, draws)
        gained = logits.gather(1, tokens[:, None])[:, 0] - scores.normalizer
        log_probs = records.log_probs.flatten() + gained
        if self.samples > 1:
            tokens = tokens.masked_fill(log_probs == -torch.inf, eos_id)
        token_list = tokens.tolist()
        choice = Choice(tokens, log_probs, token_list=token_list)
        if eos_id in token_list:
            self._end(choice, eos_id)
        records.log_probs = choice.log_probs.view(-1, self.samples)
        return choice

    def draw(self, logits: Tensor, draws: Tensor) -> Tensor:
        """Pick a token of each row by inverting its cumulative distribution.

        Shape: logits (R, V), draws (R,) float64 in [0, 1); returns (R,).
        """
        if self.temperature != 1.0:
            logits = logits / self.temperature
        if self.top_k == 0 and self.top_p == 1.0:
            return self._draw_from_all(logits, draws)
        values, ids = self._candidates(logits)
        log_total = log_normalizer(logits if self.top_k == 0 else values)
        probs = (values - log_total[:, None]).exp().double()
        kept = probs >= self.min_p * probs[:, :1]
        if self.top_p < 1.0:
            kept &= probs.cumsum(-1) - probs < self.top_p
            kept[:, 0] = True  # its sum before may be rounded to above 0
        places, _ = _invert(probs * kept, draws)
        return ids.gather(1, places[:, None])[:, 0]

    def score(self, log_prob: float, length: int) -> float:
        """Return the log-probability: samples are not ranked."""
        return log_prob

    def conclude(self, found: list[tuple[int, Hypothesis]]) -> tuple[Hypothesis, ...]:
        """Return the samples in their order."""
        return tuple(hypothesis for _, hypothesis in sorted(found, key=lambda entry: entry[0]))

    def _draw_from_all(self, logits: Tensor, draws: Tensor) -> Tensor:
        rows, vocab_size = logits.shape
        num_blocks = -(-vocab_size // _BLOCK)
        weights = logits.new_full((rows, num_blocks * _BLOCK), -torch.inf)
        torch.sub(logits, logits.amax(-1, keepdim=True), out=weights[:, :vocab_size])
        weights.exp_()
        if self.min_p > 0:
            weights *= weights >= self.min_p
        # First the block, then the token in it: one running sum over the whole vocabulary would be slow.
        blocks = weights.view(rows, num_blocks, _BLOCK)
        chosen, rest = _invert(blocks.sum(-1).double(), draws)
        inside = blocks[torch.arange(rows, device=logits.device), chosen]  # (R, _BLOCK)
        return chosen * _BLOCK + _invert(inside.double(), rest)[0]

    def _candidates(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Find the tokens that top_k or top_p leaves, likeliest first."""
        vocab_size = logits.shape[1]
        if self.top_k > 0:
            return top(logits, min(self.top_k, vocab_size))
        count, normalizer = _FIRST_CANDIDATES, log_normalizer(logits)
        while count < vocab_size:
            values, ids = top(logits, count)
            reached = (values - normalizer[:, None]).exp().double().sum(-1)
            if bool((reached >= self.top_p).all()):
                return values, ids
            count *= 8
        return logits.sort(-1, descending=True)

    def _end(self, choice: Choice, eos_id: int) -> None:
        """Pick the samples that end here; a request stops with its last sample."""
        log_probs = choice.log_probs.tolist()
        open_rows = []
        for row, (token, log_prob) in enumerate(zip(choice.token_list, log_probs, strict=True)):
            if token != eos_id:
                open_rows.append(row)
            elif log_prob != -torch.inf:
                choice.ended.append((row, log_prob))
        going = {row // self.samples for row in open_rows}
        choice.stopped = [position for position in range(len(log_probs) // self.samples) if position not in going]
        choice.log_probs = choice.log_probs.masked_fill(choice.tokens == eos_id, -torch.inf)


def _invert(weights: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Find where each row's running sum of weights first exceeds its draw times the row's total.

    Shape: weights (R, N), draws (R,), both float64; returns places (R,) and, as a fraction of the weight
        there, how far into it the draw fell (R,).
    """
    sums = weights.cumsum(-1)
    targets = draws[:, None] * sums[:, -1:]
    places = torch.searchsorted(sums, targets, right=True).clamp_(max=weights.shape[1] - 1)
    weight = weights.gather(1, places)
    rest = (targets - (sums.gather(1, places) - weight)) / weight
    return places[:, 0], rest.clamp_(0.0, _BELOW_ONE)[:, 0]
