"""A run from text to text in memory: texts to translations, their likelihood, and where the model looked."""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from zhuyi.config import RunConfig
from zhuyi.data.batches import pad
from zhuyi.data.normalization import contains_han, simplify
from zhuyi.data.special_tokens import BOS
from zhuyi.data.tokenizers import Tokenizer
from zhuyi.decoding import Beam, Recorded, Rule
from zhuyi.decoding.config import Constraint, DecodeConfig
from zhuyi.errors import InputError
from zhuyi.nn.maps import Maps
from zhuyi.predict.writing_steps import HeldText, Likely, held_texts, likeliest
from zhuyi.run_folder import RunFolder
from zhuyi.tasks.demands import token_ranges
from zhuyi.tasks.glossary import Glossary, GlossaryLike, make_glossary
from zhuyi.tasks.likelihood import links_by_steps, target_log_probs
from zhuyi.tasks.mixture_data import prefix_ids
from zhuyi.tasks.pair_data import load_tokenizers
from zhuyi.tasks.sentence_search import forbid_beyond
from zhuyi.tasks.tag_placement import Link
from zhuyi.tasks.text_parts import Translation
from zhuyi.tasks.text_search import TextSearch, translate_all


@dataclass(frozen=True)
class PairScore:
    """How likely a model finds a target, given its source: by teacher forcing.

    Args:   log_prob: in nats, summed over the target's tokens and the end sign.
            perplexity: exp(-log_prob / tokens).
    """

    log_prob: float
    tokens: int
    perplexity: float


@dataclass(frozen=True)
class TextMaps:
    """A text, a translation of it, and where every head looked in one forward pass over both.

    Args:   source_tokens, target_tokens: none of those that the model has no place for: an encoder has no target, a
            language model no source.
            read_tokens: what the decoder reads as it writes each of target_tokens: the one before it, at first a sign.
            likely, beam: of each step the likeliest tokens, and what the beam held, where they were asked for.
    Shape:  maps: each (H, T, S) by its place's name; row t of `decoder.*` is what writes target_tokens[t].
    """

    source_tokens: tuple[str, ...]
    target_tokens: tuple[str, ...]
    maps: dict[str, torch.Tensor]
    read_tokens: tuple[str, ...] = ()
    likely: Likely = ()
    beam: tuple[tuple[HeldText, ...], ...] = ()


class Translator:
    """A run from text to text in memory: `model` is the module, `config` what it was made from.

    Where a run does several tasks, `task` is the name of one; `prefix`, in its place, is what its sources begin with.
    """

    def __init__(
        self,
        model: nn.Module,
        config: RunConfig,
        tokenizers: tuple[Tokenizer, Tokenizer],
        precision: str = "float32",
    ) -> None:
        self.model: Any = model
        self.config = config
        self.precision = precision
        self.source_tokenizer, self.target_tokenizer = tokenizers
        self._bos = self.target_tokenizer.signs.bos
        self._decode: DecodeConfig = forbid_beyond(config.decode, self.target_tokenizer, config.model.target_vocab_size)

    @classmethod
    def from_folder(cls, model: nn.Module, config: RunConfig, folder: RunFolder, precision: str) -> Self:
        """Read the tokenizers too.

        Raises: InputError: they are missing, broken, or of another model.
        """
        tokenizers = load_tokenizers(config.data, folder.path)
        _check_fit(config, tokenizers, folder)
        return cls(model, config, tokenizers, precision)

    @property
    def tokenizer(self) -> Tokenizer:
        """The source's tokenizer."""
        return self.source_tokenizer

    def translate(
        self,
        texts: Iterable[str],
        *,
        beam: int | None = None,
        n_best: int = 1,
        alpha: float | None = None,
        rule: Rule | None = None,
        seed: int = 1,
        task: str | None = None,
        prefix: str | None = None,
        constraint: Constraint | None = None,
        same_length: bool = False,
        glossary: GlossaryLike | Sequence[GlossaryLike | None] | None = None,
        placeholders: bool | None = None,
    ) -> list[Translation]:
        """Translate texts; as many come back, in the same order.

        Args:   beam: hypotheses held; the run's own where not given, 1 is greedy.
                n_best: how many translations each, the others as `alternatives`.
                alpha: of the length rule; more prefers longer texts.
                rule: another search rule, `zhuyi.decoding.Sampling(temperature=0.8)` say.
                seed: what sampling draws from.
                constraint: the form of the answers; the run's own where not given.
                same_length: as many characters as the text has; a couplet's lower line has that anyway.
                glossary: what words of the texts must become, {"source": "target"} say; or a list, one for each text.
                placeholders: whether to keep placeholders, URLs and tags; as `DecodeConfig` has it where not given.
        """
        if isinstance(texts, str):
            raise InputError("translate takes a list of texts; for one text write translate([text])")
        texts = list(texts)
        if isinstance(glossary, Sequence) and len(glossary) != len(texts):
            raise InputError(
                f"{len(glossary)} glossaries for {len(texts)} texts; give one for all, or as many as texts"
            )
        return list(
            self.stream(
                texts,
                beam=beam,
                n_best=n_best,
                alpha=alpha,
                rule=rule,
                seed=seed,
                task=task,
                prefix=prefix,
                constraint=constraint,
                same_length=same_length,
                glossary=glossary,
                placeholders=placeholders,
            )
        )

    def stream(
        self,
        texts: Iterable[str],
        *,
        beam: int | None = None,
        n_best: int = 1,
        alpha: float | None = None,
        rule: Rule | None = None,
        seed: int = 1,
        task: str | None = None,
        prefix: str | None = None,
        constraint: Constraint | None = None,
        same_length: bool = False,
        glossary: GlossaryLike | Sequence[GlossaryLike | None] | None = None,
        placeholders: bool | None = None,
    ) -> Iterator[Translation]:
        """As `translate`, one after the other, in memory bounded by a window of texts."""
        search = self.open_search(
            beam=beam,
            n_best=n_best,
            alpha=alpha,
            rule=rule,
            seed=seed,
            task=task,
            prefix=prefix,
            constraint=constraint,
            same_length=same_length,
            placeholders=placeholders,
        )
        return translate_all(search, map(self.read, texts), self._glossaries(glossary))

    def open_search(
        self,
        *,
        beam: int | None = None,
        n_best: int = 1,
        alpha: float | None = None,
        rule: Rule | None = None,
        seed: int = 1,
        task: str | None = None,
        prefix: str | None = None,
        constraint: Constraint | None = None,
        same_length: bool = False,
        placeholders: bool | None = None,
        batch_tokens: int | None = None,
    ) -> TextSearch:
        """Where texts, as `read` gives them, come and go between steps; the options are those of `translate`.

        A glossary is given with each text, as `read_glossary` gives it.

        Args:   batch_tokens: see `TextSearch`.
        """
        decode = self.decode_config(beam=beam, alpha=alpha, constraint=constraint)
        if same_length and decode.constraint == "none":
            decode = replace(decode, constraint="same-length")
        if placeholders is not None or decode.placeholders is None:
            is_kept = self.config.task == "translation" if placeholders is None else placeholders
            decode = replace(decode, placeholders=is_kept)
        return TextSearch(
            self.model,
            self.source_tokenizer,
            self.target_tokenizer,
            decode,
            prefix=self.prefix(task, prefix),
            rule=rule,
            n_best=n_best,
            seed=seed,
            batch_tokens=batch_tokens,
        )

    def read_glossary(self, glossary: GlossaryLike) -> Glossary:
        """A glossary whose sources are in the characters that the run was trained on."""
        return make_glossary(glossary).reading(self.read)

    def _glossaries(self, glossary: GlossaryLike | Sequence[GlossaryLike | None] | None) -> Iterable[Glossary | None]:
        if glossary is None:
            return ()
        if isinstance(glossary, Glossary | Mapping):
            return repeat(self.read_glossary(glossary))
        return (None if each is None else self.read_glossary(each) for each in glossary)

    def decode_config(
        self, *, beam: int | None = None, alpha: float | None = None, constraint: Constraint | None = None
    ) -> DecodeConfig:
        """The run's search options, with those given here in their place."""
        decode = self._decode
        try:
            return replace(
                decode,
                beam=decode.beam if beam is None else beam,
                alpha=decode.alpha if alpha is None else alpha,
                constraint=constraint or decode.constraint,
            )
        except ValueError as error:
            raise InputError(str(error)) from None

    def prefix(self, task: str | None = None, prefix: str | None = None) -> list[int]:
        """The ids that every source begins with.

        Raises: InputError: both are given, or neither where the run does several tasks, or it has no such task.
        """
        known = self.config.data.prefixes
        if task is not None and prefix is not None:
            raise InputError("give a task or a prefix, not both")
        if prefix is None and task is None and len(set(known.values())) > 1:
            raise InputError(f"this run does several tasks: choose one by --task {' or '.join(known)}")
        if task is not None and task not in known:
            what = f"choose {' or '.join(known)}" if known else "leave --task out, or give a --prefix"
            raise InputError(f"this run has no task '{task}'; {what}")
        if prefix is None:
            prefix = next(iter(known.values()), "") if task is None else known[task]
        return prefix_ids(self.source_tokenizer, prefix)

    def reaches(self, source: str, target: str, *, task: str | None = None, prefix: str | None = None) -> bool:
        """Whether both texts are within the model's positions."""
        sides = self._source_ids(source, task, prefix), self.target_tokenizer.encode(target)
        return max(map(len, sides)) <= self.model.max_len

    @torch.inference_mode()
    def score(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        task: str | None = None,
        prefix: str | None = None,
        batch_rows: int = 16,
    ) -> list[PairScore]:
        """The model's probability of each given target.

        Raises: InputError: a side is longer than the model's positions.
        """
        scores: list[PairScore] = []
        for start in range(0, len(pairs), batch_rows):
            scores += self._score_batch(pairs[start : start + batch_rows], start, task, prefix)
        return scores

    def _score_batch(
        self, pairs: Sequence[tuple[str, str]], start: int, task: str | None, prefix: str | None
    ) -> list[PairScore]:
        for i, pair in enumerate(pairs):
            if not self.reaches(*pair, task=task, prefix=prefix):
                raise InputError(
                    f"pair {start + i + 1} is longer than the {self.model.max_len} tokens of the model; shorten it"
                )
        sources = [self._source_ids(source, task, prefix) for source, _ in pairs]
        targets = [self.target_tokenizer.encode(target) for _, target in pairs]
        found = [row.double() for row in target_log_probs(self.model, sources, targets, self._bos)]
        return [PairScore(float(row.sum()), len(row), float(torch.exp(-row.mean()))) for row in found]

    @torch.inference_mode()
    def attention(
        self,
        source: str,
        target: str | None = None,
        *,
        beam: int | None = None,
        task: str | None = None,
        prefix: str | None = None,
        steps: bool = False,
    ) -> TextMaps:
        """Where every head looks, over a text and its translation (found here where `target` is not given).

        Args:   steps: tell also how the translation came about.
        Raises: InputError: the text is empty, or longer than the model's positions.
        """
        held: tuple[tuple[HeldText, ...], ...] = ()
        if target is None:
            target = self.translate([source], beam=beam, task=task, prefix=prefix)[0].text
            held = self._held(source, target, beam, task, prefix) if steps else ()
        sides = self._source_ids(source, task, prefix), self.target_tokenizer.encode(target)
        if min(map(len, sides)) < 2:
            raise InputError("there is nothing to attend to: the text or its translation is empty")
        if max(map(len, sides)) > self.model.max_len:
            raise InputError(f"the text is longer than the {self.model.max_len} tokens of the model; shorten it")
        maps = Maps()
        src, tgt = (self._padded([ids])[0] for ids in (sides[0], [self._bos, *sides[1][:-1]]))
        states = self.model.decoder_states(src, tgt, maps=maps)
        written = tuple(self.target_tokenizer.tokens(target))
        return TextMaps(
            tuple(self.source_tokenizer.labels[i] for i in sides[0]),
            written,
            {name: weights[0].float().cpu() for name, weights in maps.weights.items()},
            (BOS, *written[:-1]),
            likeliest(self.model.output_projection(states)[0], self.target_tokenizer) if steps else (),
            held,
        )

    def word_links(
        self, source: str, target: str, *, task: str | None = None, prefix: str | None = None
    ) -> Generator[None, None, list[Link]]:
        """Which words of a translation came from which of its text, found in steps of a moment each.

        Nothing where a side is longer than the model's positions.
        """
        source_ids, target_ids = self._source_ids(source, task, prefix), self.target_tokenizer.encode(target)[:-1]
        if max(len(source_ids), len(target_ids) + 1) > self.model.max_len:
            return []
        read = token_ranges(source_ids[len(self.prefix(task, prefix)) : -1], self.source_tokenizer, source)
        written = token_ranges(target_ids, self.target_tokenizer, target)
        return (yield from links_by_steps(self.model, source_ids, target_ids, read, written, self._bos))

    def _held(
        self, source: str, target: str, beam: int | None, task: str | None, prefix: str | None
    ) -> tuple[tuple[HeldText, ...], ...]:
        """What the beam held as it found a translation; nothing where several searches found it, or another rule."""
        decode = self.decode_config(beam=beam)
        if decode.beam == 1:
            return ()
        rule = Recorded(Beam(decode.beam, length_rule=decode.length_rule, alpha=decode.alpha, stop=decode.stop))
        found = self.translate([source], beam=beam, rule=rule, task=task, prefix=prefix)[0]
        if found.text != target or len(rule.steps) != 1:
            return ()
        return held_texts(next(iter(rule.steps.values())), self.target_tokenizer)

    def _source_ids(self, source: str, task: str | None, prefix: str | None) -> list[int]:
        return [*self.prefix(task, prefix), *self.source_tokenizer.encode(self.read(source))]

    def read(self, source: str) -> str:
        """A source text in the characters that the run was trained on."""
        return simplify(source) if self.config.data.cleaning.simplify and contains_han(source) else source

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        ids, mask = pad([np.array(row) for row in rows])
        device = next(self.model.parameters()).device
        return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


def _check_fit(config: RunConfig, tokenizers: tuple[Tokenizer, Tokenizer], folder: RunFolder) -> None:
    sizes = {"source": config.model.source_vocab_size, "target": config.model.target_vocab_size}
    for (side, wanted), tokenizer in zip(sizes.items(), tokenizers, strict=True):
        beyond = wanted - tokenizer.vocab_size  # signs for what is no text, and what fills a vocabulary up
        if beyond < config.data.sentinels or (beyond and not config.data.sentinels):
            raise InputError(
                f"{folder.path}: the {side} tokenizer has {tokenizer.vocab_size:,} pieces but the model "
                f"{wanted:,}; put back the tokenizer that the run was trained with"
            )
