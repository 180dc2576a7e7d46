"""How likely a model finds given tokens, and from which words of the source it has them."""

from collections.abc import Generator, Iterator, Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from zhuyi.data.batches import pad
from zhuyi.tasks.stepping import finish
from zhuyi.tasks.tag_placement import Link
from zhuyi.tasks.text_to_text_model import TextToTextModel

_MOST_STEPS = 1 << 9  # rows times tokens: with a large vocabulary of 65,536 their logits take 128 MB
_MOST_OMISSIONS = 96
_LEAST_DROP = 0.3  # nats; a word that costs less when it is left out has said nothing


@torch.inference_mode()
def target_log_probs(
    model: TextToTextModel, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], bos_id: int
) -> list[Tensor]:
    """The log-probability of each target's tokens, given its source, by teacher forcing. Shape: returns (T,) each."""
    return list(chain.from_iterable(_log_probs_by_steps(model, sources, targets, bos_id)))


def _log_probs_by_steps(
    model: TextToTextModel, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], bos_id: int
) -> Iterator[list[Tensor]]:
    device = next(model.parameters()).device
    longest = max(len(target) for target in targets)
    rows = max(1, _MOST_STEPS // longest)
    for start in range(0, len(sources), rows):
        src, src_mask = _padded(sources[start : start + rows], device)
        expected, tgt_mask = _padded(targets[start : start + rows], device)
        tgt = torch.cat([torch.full_like(expected[:, :1], bos_id), expected[:, :-1]], dim=1)
        logits = model.output_projection(model.decoder_states(src, tgt, src_mask, tgt_mask)).float()
        log_probs = logits.gather(2, expected[:, :, None])[:, :, 0] - logits.logsumexp(dim=-1)
        lengths = tgt_mask.sum(dim=1).tolist()
        yield [row[:length].cpu() for row, length in zip(log_probs, lengths, strict=True)]


def links(
    model: TextToTextModel,
    source: Sequence[int],
    target: Sequence[int],
    source_ranges: Sequence[tuple[int, int]],
    target_ranges: Sequence[tuple[int, int]],
    bos_id: int,
) -> list[Link]:
    """What `links_by_steps` comes to."""
    return finish(links_by_steps(model, source, target, source_ranges, target_ranges, bos_id))


@torch.inference_mode()
def links_by_steps(
    model: TextToTextModel,
    source: Sequence[int],
    target: Sequence[int],
    source_ranges: Sequence[tuple[int, int]],
    target_ranges: Sequence[tuple[int, int]],
    bos_id: int,
) -> Generator[None, None, list[Link]]:
    """Which stretch of the target came from which of the source: the one without which it would be least likely.

    No attention is asked: it works for any model, and is the clearer where one has both. Of 36 words of the shipped
    models' translations 34 were found, by the attention of `zhuyi.predict.alignment` 28.

    Args:   source: ids, the end sign last.
            target: ids, without one.
            source_ranges, target_ranges: the stretches of text of the tokens; a prefix of the source has none.
    """
    prefix = len(source) - 1 - len(source_ranges)
    step = -(-len(source_ranges) // _MOST_OMISSIONS)
    groups = [range(first, min(first + step, len(source_ranges))) for first in range(0, len(source_ranges), step or 1)]
    if not groups or not target_ranges:
        return []
    without = [[*source[: prefix + group.start], *source[prefix + group.stop :]] for group in groups]
    rows: list[Tensor] = []
    for some in _log_probs_by_steps(model, [source, *without], [target] * (1 + len(groups)), bos_id):
        rows += some
        yield
    whole, *others = rows
    drops = whole - torch.stack(others)  # (groups, T)
    most, which = drops.max(dim=0)
    return [
        Link(source_ranges[groups[group].start][0], source_ranges[groups[group].stop - 1][1], *stretch)
        for stretch, drop, group in zip(target_ranges, most.tolist(), which.tolist(), strict=False)
        if drop > _LEAST_DROP and stretch[0] < stretch[1]
    ]


def _padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    ids, mask = pad([np.array(row) for row in rows])
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)
