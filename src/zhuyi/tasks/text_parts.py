"""A text's parts: what is kept, what is translated, and how a translation is put together again."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from zhuyi.data.normalization import contains_han, split_clauses, split_sentences
from zhuyi.data.tokenizers import Tokenizer
from zhuyi.decoding import Hypothesis, is_translatable
from zhuyi.tasks.forms import Sentence

# No tokenizer needs to see more at once; a text without any mark to cut at is cut here.
LONGEST_STRETCH = 1000


@dataclass(frozen=True)
class Translation:
    """One text's translation.

    Args:   score: what the search ranked it by; of a text in several parts, their mean.
            tokens: the target's pieces.
            alternatives: the next best texts with their scores, best first.
            flags: why a guard stepped in: `copied` (nothing to translate, in it or in a part), `repetition`, `length`,
            `split`; `glossary` and `placeholder` (the model has too few positions for all of them); under a constraint
            `unknown` (a character was answered that is not in the vocabulary) and `relaxed` (the vocabulary is too
            small for it).
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


# A plan is the text's parts in order: a string stands for itself, a sentence is to be translated.
Plan = list[str | Sentence]


def plan_text(text: str, cut: Callable[[str], Iterator[str | Sentence]]) -> Iterator[str | Sentence]:
    """Cut a text into what is kept and what is translated."""
    for number, line in enumerate(text.split("\n")):
        if number:
            yield "\n"
        if is_translatable(line):
            yield from cut(line)
        else:
            yield line


class Limit(NamedTuple):
    """How much is translated together: so many tokens, and so many sentences (0: however many)."""

    tokens: int
    sentences: int = 0


def cut_line(line: str, tokenizer: Tokenizer, limit: Limit) -> Iterator[str | Sentence]:
    """The whole line if it is within the limit; else sentences, packed as long as they fit together."""
    for text, ids in cut_with_text(line, tokenizer, limit):
        yield text.strip() if ids is None else Sentence(ids)


def cut_with_text(line: str, tokenizer: Tokenizer, limit: Limit) -> Iterator[tuple[str, tuple[int, ...] | None]]:
    """As `cut_line`, each part's text and ids, without ids where it is to be kept; the texts, joined, are the line."""
    sentences = split_sentences(line) if limit.sentences else []
    if len(line) <= LONGEST_STRETCH and (
        not limit.sentences or sum(map(is_translatable, sentences)) <= limit.sentences
    ):
        ids = tokenizer.encode(line)
        if len(ids) <= limit.tokens:
            yield line, tuple(ids)
            return
    for stretch in _pack(sentences or split_sentences(line), tokenizer, limit):
        if not is_translatable(stretch):
            yield stretch, None
            continue
        if len(stretch) <= LONGEST_STRETCH and len(ids := tokenizer.encode(stretch)) <= limit.tokens:
            yield stretch, tuple(ids)
            continue
        for clause in _pack(split_clauses(stretch), tokenizer, Limit(limit.tokens)):
            if not is_translatable(clause):
                yield clause, None
                continue
            for start in range(0, len(clause), LONGEST_STRETCH):
                yield from _cut_tokens(clause[start : start + LONGEST_STRETCH], tokenizer, limit.tokens)


def usual_sentences(texts: Sequence[str]) -> int:
    """How many sentences all but one in fifty of the texts have at most: who learns from them knows no more."""
    counts = sorted(sum(map(is_translatable, split_sentences(text))) for text in texts)
    return max(1, counts[int(0.98 * (len(counts) - 1))]) if counts else 0


def _cut_tokens(text: str, tokenizer: Tokenizer, limit: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """A text without any mark to cut at, by its tokens; which characters are whose is only about right."""
    ids = tokenizer.encode(text)[:-1]
    for first in range(0, len(ids), limit - 1):
        some = ids[first : first + limit - 1]
        begin, end = (len(text) * place // len(ids) for place in (first, first + len(some)))
        yield text[begin:end], (*some, tokenizer.signs.eos)


def _pack(pieces: Sequence[str], tokenizer: Tokenizer, limit: Limit) -> Iterator[str]:
    """Join neighbours as long as they fit together."""
    packed, size, count = "", 1, 0  # the end sign
    for piece in pieces:
        tokens = len(tokenizer.encode(piece)) - 1 if len(piece) <= LONGEST_STRETCH else limit.tokens
        if packed and (size + tokens > limit.tokens or count == limit.sentences > 0):
            yield packed
            packed, size, count = "", 1, 0
        packed, size, count = packed + piece, size + tokens, count + is_translatable(piece)
    if packed:
        yield packed


def assemble(
    plan: Plan,
    found: Mapping[Sentence, tuple[Hypothesis, ...]],
    tokenizer: Tokenizer,
    n_best: int,
    write: Callable[[Sentence, Hypothesis], str],
) -> Translation:
    """Put a text together again from its parts, once for each rank.

    Args:   write: makes a sentence's text of a hypothesis.
    """
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
            ranked.append((_join(plan, chosen, write), score))
    return Translation(
        text=ranked[0][0],
        score=ranked[0][1],
        tokens=tuple(tokenizer.labels[token] for hypothesis in best for token in hypothesis.tokens),
        alternatives=tuple(ranked[1:]),
        flags=(*flags, *(("split",) if len(translated) > 1 else ()), *(("copied",) if copied else ())),
    )


def _join(plan: Plan, chosen: dict[Sentence, Hypothesis], write: Callable[[Sentence, Hypothesis], str]) -> str:
    text, is_glued = "", False
    spaced = all(sentence.form is None for sentence in chosen)
    for part in plan:
        piece = part if isinstance(part, str) else write(part, chosen[part])
        needs_space = (
            spaced
            and not is_glued
            and text
            and piece
            and not (text[-1].isspace() or piece[0].isspace())
            and not (contains_han(text[-1] + piece[0]) or _is_wide_mark(text[-1]))
        )
        text += " " + piece if needs_space else piece
        is_glued = isinstance(part, Sentence) and part.demands is not None and part.demands.is_glued
    return text


def _is_wide_mark(character: str) -> bool:
    return character in "，。！？：；（）、…—”’》」』"
