"""A run beside the CTranslate2 folder that was made from it, both on the same few texts."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from zhuyi.data.tokenizers import Tokenizer
from zhuyi.decoding import Greedy
from zhuyi.interop.probe import (
    NEW_TOKENS,
    TEXTS,
    Comparison,
    checked_difference,
    continue_freely,
    some_ids,
    write_freely,
)
from zhuyi.predict import Classifier, Generator, Translator, WordFiller
from zhuyi.tasks.sentence_search import never_written

LIBRARY = "CTranslate2"
# What stands beside an encoder: the classifier's matrix, for which CTranslate2 has no place.
CLASSIFIER = "classifier.npz"


@torch.inference_mode()
def check_translator(ours: Translator, folder: Path) -> Comparison:
    """The log-probabilities of given targets, and what greedy search writes of the probe's texts.

    Raises: ArithmeticError: they are not the run's.
    """
    theirs = _opened("Translator", folder)
    config, model, signs = ours.config, ours.model, ours.target_tokenizer.signs
    source, target = _vocabulary(folder, "source"), _vocabulary(folder, "target")
    src, mask = some_ids(config.model.source_vocab_size, 1)
    tgt, _ = some_ids(config.model.target_vocab_size, 2)
    tgt = tgt.masked_fill(tgt == signs.eos, signs.unk)  # a target ends once
    rows = [row[real].tolist() for row, real in zip(src, mask, strict=True)]
    found = theirs.score_batch(_pieces(rows, source), _pieces(tgt.tolist(), target))
    log_probs = model(src, F.pad(tgt, (1, 0), value=signs.bos), mask).log_softmax(dim=-1)
    expected = F.pad(tgt, (0, 1), value=signs.eos)
    difference = checked_difference(
        log_probs.gather(2, expected[:, :, None])[:, :, 0],
        torch.tensor([result.log_probs for result in found]),
        LIBRARY,
    )
    count = min(NEW_TOKENS, model.max_len - 1)
    rows = [ours.source_tokenizer.encode(text)[-model.max_len :] for text in TEXTS]
    texts = write_freely(ours, rows, Greedy(), count)
    never = sorted(never_written(signs, ours.decode_config().forbidden))
    written = theirs.translate_batch(
        _pieces(rows, source),
        beam_size=1,
        max_decoding_length=count,
        min_decoding_length=0,
        suppress_sequences=[[target[i]] for i in never],
    )
    ids = {piece: i for i, piece in enumerate(target)}
    again = [[ids[piece] for piece in result.hypotheses[0]] for result in written]
    return _compared(difference, texts, again, ours.target_tokenizer)


@torch.inference_mode()
def check_generator(ours: Generator, folder: Path) -> Comparison:
    """Logits, and how greedy search continues the probe's texts.

    Raises: ArithmeticError: they are not the run's.
    """
    theirs = _opened("Generator", folder)
    ids, mask = some_ids(ours.config.model.vocab_size, 1)
    rows = [row[real].tolist() for row, real in zip(ids, mask, strict=True)]
    logits = torch.from_numpy(np.array(theirs.forward_batch(rows)))
    difference = checked_difference(ours.model(ids, mask)[mask], logits[mask], LIBRARY)
    reach = max(1, ours.model.max_len - NEW_TOKENS)
    prompts = [ours.tokenizer.encode(text)[:-1][:reach] for text in TEXTS]
    texts = continue_freely(ours, prompts, Greedy(), NEW_TOKENS)
    written = theirs.generate_batch(
        _pieces(prompts, _vocabulary(folder)),
        max_length=NEW_TOKENS,
        sampling_topk=1,
        include_prompt_in_result=False,
    )
    return _compared(difference, texts, [result.sequences_ids[0] for result in written], ours.tokenizer)


@torch.inference_mode()
def check_encoder(ours: Classifier | WordFiller, folder: Path) -> Comparison:
    """Hidden states, and what the pooler and the classifier make of them.

    Raises: ArithmeticError: they are not the run's.
    """
    theirs, model = _opened("Encoder", folder), ours.model
    ids, mask = some_ids(ours.config.model.vocab_size, 1)
    segments = (torch.arange(ids.shape[1]) > 2).long().expand_as(ids)
    rows, kinds = ([row[real].tolist() for row, real in zip(x, mask, strict=True)] for x in (ids, segments))
    of_pairs = {"token_type_ids": kinds} if ours.config.model.num_segments else {}
    found = theirs.forward_batch(rows, **of_pairs)
    hidden = model(ids, mask, segments if of_pairs else None)
    pairs = [(hidden[mask], np.array(found.last_hidden_state)[mask.numpy()])]
    if model.pooler is not None:
        state, pooled = model.pooler(hidden, mask), np.array(found.pooler_output)
        pairs.append((state, pooled))
        if model.classifier is not None:
            head = np.load(folder / CLASSIFIER)
            pairs.append((model.classifier(state), pooled @ head["weight"].T + head["bias"]))
    difference = max(checked_difference(own, torch.from_numpy(other), LIBRARY) for own, other in pairs)
    return Comparison(difference, library=LIBRARY)


def _opened(kind: str, folder: Path) -> Any:
    import ctranslate2

    return getattr(ctranslate2, kind)(str(folder), device="cpu", compute_type="float32", inter_threads=1)


def _vocabulary(folder: Path, side: str = "") -> list[str]:
    """The pieces of a side, or of a model that has one, by their ids."""
    names = [f"{name}vocabulary.json" for name in ((f"{side}_", "shared_") if side else ("",))]
    path = next(folder / name for name in names if (folder / name).exists())
    pieces: list[str] = json.loads(path.read_text(encoding="utf-8"))
    return pieces


def _pieces(rows: Sequence[Sequence[int]], pieces: Sequence[str]) -> list[list[str]]:
    return [[pieces[i] for i in row] for row in rows]


def _compared(difference: float, texts: list[str], again: list[list[int]], tokenizer: Tokenizer) -> Comparison:
    theirs = [tokenizer.decode(i for i in ids if i < tokenizer.vocab_size) for ids in again]
    same = sum(own.strip() == other.strip() for own, other in zip(texts, theirs, strict=True))
    return Comparison(difference, texts=(same, len(texts)), library=LIBRARY)
