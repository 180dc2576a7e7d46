"""The search that every sentence of a text goes through: its rule, its filters, and how it begins."""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zhuyi.data.batches import pad
from zhuyi.data.special_tokens import BOS_ID
from zhuyi.data.tokenizers import Signs, Tokenizer
from zhuyi.decoding import (
    Beam,
    Greedy,
    KeepForm,
    RepetitionGuard,
    Request,
    Rule,
    Search,
    Suppress,
    TermBeam,
)
from zhuyi.decoding.config import DecodeConfig
from zhuyi.tasks.text_to_text_model import TextToTextModel

# A search for terms begins each of them in many places at once.
TERM_ROWS = 16


def open_search(
    model: TextToTextModel,
    rule: Rule,
    signs: Signs | None = None,
    forbidden: Sequence[int] | None = None,
    *,
    guarded: bool = True,
    renormalize: bool = False,
    keep: KeepForm | None = None,
) -> Search:
    """The search that every translation goes through; its requests' inputs are source ids, end sign included.

    Args:   signs: the target tokenizer's; those of our own where not given.
            forbidden: ids that are never written; the signs but for the end where not given.
            guarded: False leaves loops to go on, as other libraries do.
            renormalize: as `DecodeConfig` has it.
            keep: what holds its requests to their forms, in the place of all other filters.
    """
    device = next(model.parameters()).device
    signs = signs or Signs()
    free = (Suppress(never_written(signs, forbidden)), *((RepetitionGuard(signs.eos),) if guarded else ()))
    return Search(
        lambda requests: begin(model, requests, device, signs.bos),
        model.step,
        rule,
        eos_id=signs.eos,
        filters=(keep,) if keep else free,
        stream=False,
        renormalize=renormalize,
        may_list=True,
    )


def forbid_beyond(decode: DecodeConfig, tokenizer: Tokenizer, vocab_size: int) -> DecodeConfig:
    """The same search, which never writes what a larger vocabulary than the tokenizer's has besides."""
    beyond = range(tokenizer.vocab_size, vocab_size)
    if not beyond:
        return decode
    return replace(decode, forbidden=(*sorted(never_written(tokenizer.signs, decode.forbidden)), *beyond))


def never_written(signs: Signs, forbidden: Sequence[int] | None) -> frozenset[int]:
    """The ids that no search writes: those `forbidden`, and where none are named the signs but for the end."""
    return frozenset((signs.pad, signs.bos, signs.unk)) - {signs.eos} if forbidden is None else frozenset(forbidden)


def search_rule(decode: DecodeConfig, n_best: int) -> Rule:
    """Greedy search where one hypothesis is held and one wanted, else a beam."""
    return Greedy() if decode.beam == 1 and n_best == 1 else _beam(decode, n_best)


def term_rule(decode: DecodeConfig, n_best: int) -> TermBeam:
    """The beam of sentences with terms to write."""
    return TermBeam(_beam(decode, n_best, TERM_ROWS))


def _beam(decode: DecodeConfig, n_best: int, least: int = 1) -> Beam:
    size = max(decode.beam, n_best, least)
    return Beam(size, length_rule=decode.length_rule, alpha=decode.alpha, stop=decode.stop, n_best=n_best)


def begin(
    model: TextToTextModel, requests: Sequence[Request], device: torch.device, bos_id: int = BOS_ID
) -> tuple[Any, Tensor]:
    """Encode the requests' sources together; each target begins with the start sign."""
    ids, mask = (torch.from_numpy(x).to(device) for x in pad([np.array(request.inputs) for request in requests]))
    prefix = torch.full((len(requests), 1), bos_id, device=device)
    return model.start(model.encode(ids, None if bool(mask.all()) else mask), prefix), prefix[:, -1]


def seed_of(seed: int, ids: tuple[int, ...]) -> int:
    """What a sentence draws from: its own words, never its place among others."""
    return zlib.crc32(repr((seed, ids)).encode())
