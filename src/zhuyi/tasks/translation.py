"""Translation: the loss of sentence pairs, their scores, and text to text as every user of a model gets it."""

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from zhuyi.data.batches import pad
from zhuyi.data.normalization import contains_han, split_clauses, split_sentences
from zhuyi.data.special_tokens import BOS_ID
from zhuyi.data.tokenizers import Signs, Tokenizer
from zhuyi.data.windows import windows
from zhuyi.decoding import (
    Beam,
    Greedy,
    Hypothesis,
    KeepForm,
    RepetitionGuard,
    Request,
    Rule,
    Search,
    Suppress,
    is_translatable,
    max_output_tokens,
    num_lanes,
    run_in_lanes,
)
from zhuyi.decoding.config import DecodeConfig
from zhuyi.errors import InputError
from zhuyi.metrics.translation_scores import translation_scores
from zhuyi.nn.embeddings import OutputProjection
from zhuyi.nn.loss import projected_cross_entropy
from zhuyi.tasks.forms import Forms, Sentence
from zhuyi.tasks.pair_data import (
    Announce,
    PairBatch,
    PairBatches,
    PairData,
    PairDataConfig,
    prepare_pair_data,
)

# No tokenizer needs to see more at once; a text without any mark to cut at is cut here.
LONGEST_STRETCH = 1000


@dataclass(frozen=True)
class Translation:
    """One text's translation.

    Args:   score: what the search ranked it by; of a text in several parts, their mean.
            tokens: the target's pieces.
            alternatives: the next best texts with their scores, best first.
            flags: why a guard stepped in: `copied` (nothing to translate, in it or in a part), `repetition`, `length`,
            `split`; under a constraint `unknown` (a character was answered that is not in the vocabulary) and
            `relaxed` (the vocabulary is too small for it).
    """

    text: str
    score: float = 0.0
    tokens: tuple[str, ...] = ()
    alternatives: tuple[tuple[str, float], ...] = ()
    flags: tuple[str, ...] = ()

    def as_json(self) -> str:
        """One line of JSON."""
        return json.dumps(
            {
                "text": self.text,
                "score": round(self.score, 5),
                "tokens": self.tokens,
                "alternatives": [{"text": text, "score": round(score, 5)} for text, score in self.alternatives],
                "flags": self.flags,
            },
            ensure_ascii=False,
        )


class TextToTextModel(Protocol):
    """What translation asks of a model: the contracts of an encoder-decoder and of a decoder."""

    output_projection: OutputProjection

    @property
    def max_len(self) -> int: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def decoder_states(
        self, src: Tensor, tgt: Tensor, src_mask: Tensor | None = None, tgt_mask: Tensor | None = None
    ) -> Tensor: ...

    def encode(self, src: Tensor, src_mask: Tensor | None = None) -> Any: ...

    def start(self, memory: Any, prefix: Tensor, prefix_mask: Tensor | None = None) -> Any: ...

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]: ...


class TranslationTask:
    """What training needs of translation: batches, loss, scores and samples."""

    def __init__(
        self, config: PairDataConfig, decode: DecodeConfig, data: PairData, batch_tokens: int, seed: int
    ) -> None:
        if decode.constraint != "none":
            Forms(decode.constraint, data.source_tokenizer, data.target_tokenizer)  # refuses tokens it cannot count
        self.config = config
        self._decode = decode
        self._data = data
        self._batches = {
            "train": PairBatches(data.train, batch_tokens, seed, data.target_tokenizer.signs.bos),
            "valid": PairBatches(data.valid, batch_tokens, seed, data.target_tokenizer.signs.bos),
        }

    @classmethod
    def prepare(
        cls,
        config: PairDataConfig,
        decode: DecodeConfig,
        folder: Path,
        batch_tokens: int,
        seed: int,
        announce: Announce,
        *,
        begun: bool = False,
    ) -> "TranslationTask":
        """Make or open the run's tokenizers and data; only open them where training has `begun` on them."""
        data = prepare_pair_data(config, folder, seed, announce, begun=begun)
        return cls(config, decode, data, batch_tokens, seed)

    def derived_sizes(self) -> dict[str, dict[str, int]]:
        """What of the configuration follows from the data, by section."""
        lengths = sorted(self._data.train.lengths("source").tolist())
        longest = lengths[int(0.999 * (len(lengths) - 1))]
        return {
            "model": {
                "source_vocab_size": self._data.source_tokenizer.vocab_size,
                "target_vocab_size": self._data.target_tokenizer.vocab_size,
            },
            "decode": {"longest_sentence": max(16, longest)},
        }

    def batches(self, split: str) -> PairBatches:
        return self._batches[split]

    def loss(self, model: TextToTextModel, batch: PairBatch, *, smoothing: float = 0.0) -> tuple[Tensor, Tensor, int]:
        """The summed loss to minimise, the summed negative log-likelihood, and how many tokens they are of."""
        return target_loss(model, batch, smoothing)

    @torch.inference_mode()
    def evaluate(self, model: TextToTextModel) -> dict[str, Any]:
        """`valid_loss`, and `bleu` and `chrf` of greedy translations of the validation pairs."""
        batches, corpus = self._batches["valid"], self._data.valid
        device = next(model.parameters()).device
        total, count = 0.0, 0
        for rows in batches.order(0, shuffle=False):
            _, nll, tokens = self.loss(model, batches.load(rows).to(device))
            total, count = total + float(nll), count + tokens
        texts = [corpus.text("source_text", row) for row in range(len(corpus))]
        references = [corpus.text("target_text", row) for row in range(len(corpus))]
        found = [translation.text for translation in self._translate(model, texts)]
        scores = translation_scores(found, references, self.config.target)
        return {"valid_loss": total / count, "bleu": scores["bleu"], "chrf": scores["chrf"]}

    @torch.inference_mode()
    def samples(self, model: TextToTextModel, count: int = 2) -> list[tuple[str, str, str]]:
        """Source, translation and reference of some validation pairs, the same each time."""
        corpus = self._data.valid
        rows = [len(corpus) * i // count for i in range(count)]
        texts = [corpus.text("source_text", row) for row in rows]
        return [
            (text, translation.text, corpus.text("target_text", row))
            for row, text, translation in zip(rows, texts, self._translate(model, texts), strict=True)
        ]

    def _translate(self, model: TextToTextModel, texts: list[str]) -> Iterator[Translation]:
        greedy = replace(self._decode, beam=1, longest_sentence=0)
        return translate_texts(model, self._data.source_tokenizer, self._data.target_tokenizer, texts, greedy)


def target_loss(model: TextToTextModel, batch: PairBatch, smoothing: float) -> tuple[Tensor, Tensor, int]:
    """Of the targets, given their sources: what to minimise, the negative log-likelihood, and of how many tokens."""
    states = model.decoder_states(batch.src, batch.tgt, batch.src_mask, batch.tgt_mask)
    real = states[batch.tgt_mask]  # (tokens, D)
    table = model.output_projection
    expected = batch.expected[batch.tgt_mask]
    loss, nll = projected_cross_entropy(real, table.weight, expected, bias=table.bias, smoothing=smoothing)
    return loss, nll, real.shape[0]


@torch.inference_mode()
def translate_texts(
    model: TextToTextModel,
    source_tokenizer: Tokenizer,
    target_tokenizer: Tokenizer,
    texts: Iterable[str],
    decode: DecodeConfig,
    *,
    rule: Rule | None = None,
    prefix: Sequence[int] = (),
    n_best: int = 1,
    seed: int = 1,
) -> Iterator[Translation]:
    """Translate any number of texts, in order; memory is bounded by a window of them.

    A text with nothing to translate (empty, punctuation alone) comes back as it is; line breaks are kept; what is
    longer than `decode.longest_sentence` tokens is cut into sentences, clauses or, at the last, stretches of tokens.
    Under a `decode.constraint` only what is longer than the model's positions is cut.

    Args:   rule: the search's rule, where it is not the beam (or greedy) search of `decode`.
            prefix: ids that every source begins with, each part of one that is cut too.
            n_best: how many translations to find: the first and `n_best - 1` alternatives.
            seed: what sampling draws from, together with each sentence.
    Raises: InputError: the prefix leaves no room for a text.
    """
    rule = rule or _rule(decode, n_best)
    room = model.max_len - 1 - len(prefix)
    if room < 2:
        raise InputError(f"a prefix of {len(prefix)} tokens leaves no room in the model's {model.max_len}; shorten it")
    limit = min(decode.longest_sentence or room, room)
    forms = None if decode.constraint == "none" else Forms(decode.constraint, source_tokenizer, target_tokenizer)
    keep = forms.keep(decode.forbidden or ()) if forms else None

    def cut(line: str) -> Iterator[str | Sentence]:
        parts = forms.parts(line, room) if forms else _parts(line, source_tokenizer, limit)
        return (part if isinstance(part, str) else replace(part, ids=(*prefix, *part.ids)) for part in parts)

    searches = [
        open_search(model, rule, target_tokenizer.signs, decode.forbidden, renormalize=decode.renormalize, keep=keep)
        for _ in range(num_lanes(next(model.parameters()).device))
    ]
    for window in windows(texts):
        plans = [_plan(text, cut) for text in window]
        found = _translate_sentences(searches, plans, model.max_len, decode.batch_rows, seed)
        for plan in plans:
            yield _assemble(plan, found, target_tokenizer, n_best)


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
        lambda requests: _begin(model, requests, device, signs.bos),
        model.step,
        rule,
        eos_id=signs.eos,
        filters=(keep,) if keep else free,
        stream=False,
        renormalize=renormalize,
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


def _rule(decode: DecodeConfig, n_best: int) -> Rule:
    if decode.beam == 1 and n_best == 1:
        return Greedy()
    size = max(decode.beam, n_best)
    return Beam(size, length_rule=decode.length_rule, alpha=decode.alpha, stop=decode.stop, n_best=n_best)


# A plan is the text's parts in order: a string stands for itself, a sentence is to be translated.
Plan = list[str | Sentence]


def _plan(text: str, cut: Callable[[str], Iterator[str | Sentence]]) -> Plan:
    """Cut a text into what is kept and what is translated."""
    plan: Plan = []
    for number, line in enumerate(text.split("\n")):
        if number:
            plan.append("\n")
        if not is_translatable(line):
            plan.append(line)
            continue
        plan += cut(line)
    return plan


def _parts(line: str, tokenizer: Tokenizer, limit: int) -> Iterator[str | Sentence]:
    """The whole line if it is short enough; else sentences, packed as long as they fit together."""
    if len(line) <= LONGEST_STRETCH:
        ids = tokenizer.encode(line)
        if len(ids) <= limit:
            yield Sentence(tuple(ids))
            return
    for stretch in _pack(split_sentences(line), tokenizer, limit):
        if not is_translatable(stretch):
            yield stretch.strip()
            continue
        if len(stretch) <= LONGEST_STRETCH and len(ids := tokenizer.encode(stretch)) <= limit:
            yield Sentence(tuple(ids))
            continue
        for clause in _pack(split_clauses(stretch), tokenizer, limit):
            if not is_translatable(clause):
                yield clause.strip()
                continue
            for start in range(0, len(clause), LONGEST_STRETCH):
                ids = tokenizer.encode(clause[start : start + LONGEST_STRETCH])[:-1]
                for first in range(0, len(ids), limit - 1):
                    yield Sentence((*ids[first : first + limit - 1], tokenizer.signs.eos))


def _pack(pieces: Sequence[str], tokenizer: Tokenizer, limit: int) -> Iterator[str]:
    """Join neighbours as long as they fit together."""
    packed, size = "", 1  # the end sign
    for piece in pieces:
        tokens = len(tokenizer.encode(piece)) - 1 if len(piece) <= LONGEST_STRETCH else limit
        if packed and size + tokens > limit:
            yield packed
            packed, size = "", 1
        packed, size = packed + piece, size + tokens
    if packed:
        yield packed


def _translate_sentences(
    searches: Sequence[Search], plans: Sequence[Plan], max_len: int, batch_rows: int, seed: int
) -> dict[Sentence, tuple[Hypothesis, ...]]:
    """Each different sentence once, those of like length together."""
    different = dict.fromkeys(part for plan in plans for part in plan if isinstance(part, Sentence))
    sentences = sorted(different, key=lambda sentence: (-len(sentence.ids), sentence.ids))
    requests = [
        Request(
            i,
            sentence.ids,
            len(sentence.form.fixed) + 1 if sentence.form else max_output_tokens(len(sentence.ids), max_len),
            seed=_seed(seed, sentence.ids),
            repeating=sentence.ids,
            form=sentence.form,
        )
        for i, sentence in enumerate(sentences)
    ]
    events = run_in_lanes(searches, requests, max_rows=max(batch_rows, searches[0].width))
    return {sentences[event.id]: event.hypotheses for event in events if event.hypotheses is not None}


def _seed(seed: int, ids: tuple[int, ...]) -> int:
    """What a sentence draws from: its own words, never its place among others."""
    return zlib.crc32(repr((seed, ids)).encode())


def _begin(
    model: TextToTextModel, requests: Sequence[Request], device: torch.device, bos_id: int = BOS_ID
) -> tuple[Any, Tensor]:
    """Encode the requests' sources together; each target begins with the start sign."""
    ids, mask = (torch.from_numpy(x).to(device) for x in pad([np.array(request.inputs) for request in requests]))
    prefix = torch.full((len(requests), 1), bos_id, device=device)
    return model.start(model.encode(ids, None if bool(mask.all()) else mask), prefix), prefix[:, -1]


def _assemble(
    plan: Plan, found: dict[Sentence, tuple[Hypothesis, ...]], tokenizer: Tokenizer, n_best: int
) -> Translation:
    """Put a text together again from its parts, once for each rank."""
    sentences = [part for part in plan if isinstance(part, Sentence)]
    if not sentences:
        return Translation("".join(str(part) for part in plan), flags=("copied",))
    copied = any(isinstance(part, str) and part.strip() for part in plan)
    translated = [found[sentence] for sentence in sentences]
    best = [hypotheses[0] for hypotheses in translated]
    flags = dict.fromkeys(
        flag
        for sentence, hypothesis in zip(sentences, best, strict=True)
        for flag in (*sentence.flags, *hypothesis.flags)
    )
    ranked = []
    for rank in range(n_best):
        if any(rank < len(hypotheses) for hypotheses in translated):
            chosen = {sentence: found[sentence][min(rank, len(found[sentence]) - 1)] for sentence in sentences}
            score = sum(hypothesis.score for hypothesis in chosen.values()) / len(chosen)
            ranked.append((_join(plan, chosen, tokenizer), score))
    return Translation(
        text=ranked[0][0],
        score=ranked[0][1],
        tokens=tuple(tokenizer.labels[token] for hypothesis in best for token in hypothesis.tokens),
        alternatives=tuple(ranked[1:]),
        flags=(*flags, *(("split",) if len(translated) > 1 else ()), *(("copied",) if copied else ())),
    )


def _join(plan: Plan, chosen: dict[Sentence, Hypothesis], tokenizer: Tokenizer) -> str:
    text = ""
    spaced = all(sentence.form is None for sentence in chosen)
    for part in plan:
        piece = part if isinstance(part, str) else part.text(chosen[part].tokens, tokenizer)
        needs_space = (
            spaced
            and text
            and piece
            and not (text[-1].isspace() or piece[0].isspace())
            and not (contains_han(text[-1] + piece[0]) or _is_wide_mark(text[-1]))
        )
        text += " " + piece if needs_space else piece
    return text


def _is_wide_mark(character: str) -> bool:
    return character in "，。！？：；（）、…—”’》」』"
