"""Lines with things to keep or terms to write, cut into sentences that a model can read, with what each demands."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter, itemgetter
from typing import TypeVar

from zhuyi.data.tokenizers import Tokenizer
from zhuyi.decoding import Term, is_translatable
from zhuyi.tasks.demands import Demands, Fill, Mark
from zhuyi.tasks.forms import Sentence
from zhuyi.tasks.glossary import Glossary
from zhuyi.tasks.line_pieces import between_breaks, line_pieces, without_marks
from zhuyi.tasks.placeholders import Kept
from zhuyi.tasks.stand_ins import StandIn, choose_stand_ins
from zhuyi.tasks.terms import joins, make_term
from zhuyi.tasks.text_parts import Limit, cut_with_text
from zhuyi.tasks.text_to_text_model import TextToTextModel

_PLACE, _PLACE_OF_MARK = itemgetter(0), attrgetter("place")

Placed = TypeVar("Placed")


@dataclass
class _Draft:
    """What a model reads of a stretch of a line, and what is demanded, each by its place in `text`."""

    text: str
    terms: list[tuple[int, Term]] = field(default_factory=list)
    fills: list[tuple[int, Fill]] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)


class KeptParts:
    """Makes sentences of lines that have something to keep, or words of a glossary.

    A placeholder stands for a word: a name or number that the model translates surely stands in for it, and is demanded
    of the search like a term. Markup stands between words: the model reads the text without, and it is put where the
    words around it went.

    Args:   prefix: ids that every source begins with.
            forbidden: ids that no search writes.
            limit: of what is translated together, the prefix left out.
            placeholders: whether to keep what `find_kept` finds.
    """

    def __init__(
        self,
        model: TextToTextModel,
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer,
        *,
        prefix: Sequence[int],
        forbidden: frozenset[int],
        limit: Limit,
        placeholders: bool,
    ) -> None:
        self._model, self._source, self._target = model, source_tokenizer, target_tokenizer
        self._prefix, self._forbidden, self._limit, self._placeholders = prefix, forbidden, limit, placeholders
        self._known_stand_ins: dict[str, tuple[StandIn, ...]] | None = None
        self._terms: dict[tuple[str, ...], Term | None] = {}

    def pieces(self, line: str, glossary: Glossary | None) -> Iterator[tuple[str, list[Kept]]]:
        """What `line_pieces` gives."""
        return line_pieces(line, glossary, placeholders=self._placeholders)

    def parts(self, line: str, kept: Sequence[Kept], glossary: Glossary | None) -> list[str | Sentence] | None:
        """The parts of a line, or None where nothing is to be kept and no word has an entry."""
        if not kept and (glossary is None or next(glossary.matches(line), None) is None):
            return None
        found: list[str | Sentence] = []
        lead = ""
        for text, within, after in between_breaks(line, kept):
            parts = self._parts(text, within, glossary)
            if not any(isinstance(part, Sentence) for part in parts):
                if found:
                    _enclose(found, trail=text + after)
                else:
                    lead += text + after
                continue
            if after or found or lead:  # beside a break white space is the line's, not the sentence's
                bare = text.strip()
                _enclose(parts, lead + text[: text.index(bare)], text[text.index(bare) + len(bare) :] + after)
            found += parts
            lead = ""
        return found or [line]

    def demand(self, sentence: Sentence, targets: tuple[str, ...]) -> Sentence:
        """The same sentence, in whose translation one of some texts must stand."""
        demands, term = sentence.demands or Demands(), self._term(targets)
        if term is None:
            return replace(sentence, demands=replace(demands, lost=(*demands.lost, targets[0])))
        return self._fitting(replace(sentence, demands=replace(demands, terms=(*demands.terms, term))))

    def _parts(self, text: str, kept: Sequence[Kept], glossary: Glossary | None) -> list[str | Sentence]:
        """The sentences of a stretch without breaks; none where nothing is left to translate."""
        bare, taken, marks = without_marks(text, kept)
        ends, starts = (0, *(end for _, end, _ in taken)), (*(start for start, _, _ in taken), len(bare))
        if not is_translatable("".join(bare[end:start] for end, start in zip(ends, starts, strict=True))):
            return []
        return self._cut(self._draft(bare, taken, marks, glossary))

    def _draft(
        self, bare: str, taken: Sequence[tuple[int, int, str]], marks: list[Mark], glossary: Glossary | None
    ) -> _Draft:
        draft = _Draft(bare, marks=marks)
        wanted = [(start, end, kind, bare[start:end]) for start, end, kind in taken]
        for match in glossary.matches(bare, [(start, end) for start, end, _ in taken]) if glossary else ():
            source, targets = bare[match.start : match.end], match.entry.targets
            is_kept = targets == (match.entry.source,)
            term = None if is_kept else self._term(targets)
            if term is not None:
                draft.terms.append((match.start, term))
            else:
                wanted.append((match.start, match.end, "name", source if is_kept else targets[0]))
        if wanted:
            self._swap(draft, sorted(wanted))
        return draft

    def _swap(self, draft: _Draft, wanted: Sequence[tuple[int, int, str, str]]) -> None:
        """Let names and numbers stand in for stretches of the draft."""
        bare, chosen = draft.text, dict[tuple[str, str], StandIn | None]()
        free = {kind: self._free(kind, bare) for kind in {each[2] for each in wanted}}
        used: list[StandIn] = []
        text, here = "", 0
        moved: list[tuple[int, int]] = [(0, 0)]  # places of the old text and where they are in the new one
        for start, end, kind, raw in wanted:
            if (kind, raw) not in chosen:
                # Where all are used, the first is used again, for the second in its order.
                fresh = next((each for each in free[kind] if each not in used), None)
                used += [fresh] if fresh else []
                chosen[kind, raw] = fresh or next(iter(used), None)
            text += bare[here:start]
            stand_in = chosen[kind, raw]
            if moved[-1][0] > start:  # the space put behind the last one, which this one touches
                moved.pop()
            if stand_in is None:  # this model knows none that could: it goes where the words around it go
                draft.marks.append(Mark(start, raw))
                moved += [(start, len(text)), (end, len(text))]
            else:
                text += " " if text and joins(text[-1]) and joins(stand_in.source[0]) else ""
                moved.append((start, len(text)))
                draft.fills.append((len(text), Fill(stand_in.term, stand_in.target, raw)))
                draft.terms.append((start, stand_in.term))
                text += stand_in.source
                moved.append((end, len(text)))
                if bare[end : end + 1] and joins(bare[end]) and joins(text[-1]):
                    text += " "
                    moved.append((end + 1, len(text) + 1))
            here = end
        draft.text = text + bare[here:]

        def new(place: int) -> int:
            old, at = moved[bisect_right(moved, place, key=_PLACE) - 1]
            return at + place - old

        draft.terms = sorted(((new(place), term) for place, term in draft.terms), key=lambda each: each[0])
        draft.marks = sorted((replace(mark, place=new(mark.place)) for mark in draft.marks), key=lambda m: m.place)

    def _free(self, kind: str, text: str) -> list[StandIn]:
        """What may stand in, as it is not in the text itself: those of the kind first."""
        if self._known_stand_ins is None:
            tokenizers = self._source, self._target
            self._known_stand_ins = choose_stand_ins(self._model, *tokenizers, self._prefix, self._forbidden)
        own = self._known_stand_ins[kind]
        known = (*own, *(each for other in self._known_stand_ins.values() for each in other if each not in own))
        lowered = text.lower()
        return [s for s in known if s.source.lower() not in lowered and s.target.lower() not in lowered]

    def _term(self, targets: tuple[str, ...]) -> Term | None:
        """What writes one of some texts, or None where the vocabulary cannot."""
        if targets not in self._terms:
            self._terms[targets] = make_term(targets, self._target, self._forbidden)
        return self._terms[targets]

    def _cut(self, draft: _Draft) -> list[str | Sentence]:
        """The sentences of a draft, each with the demands that belong to its stretch."""
        stretches = list(cut_with_text(draft.text, self._source, self._limit))
        last = max(i for i, (_, ids) in enumerate(stretches) if ids is not None)
        parts: list[str | Sentence] = []
        begin = here = 0
        for i, (text, ids) in enumerate(stretches):
            here += len(text)
            if ids is None:
                parts.append(text.strip())
                continue
            end = here if i < last else len(draft.text) + 1

            def belongs(place: int, closes: bool = False, begin: int = begin, end: int = end) -> bool:
                return begin < place <= end or place == begin == 0 if closes else begin <= place < end

            start = here - len(text)
            near = _between(draft.marks, begin, end, _PLACE_OF_MARK)
            marks = [replace(m, place=max(0, m.place - start)) for m in near if belongs(m.place, m.closes)]
            lead, trail = _take_edges(marks, text)
            demands = Demands(
                tuple(term for place, term in _between(draft.terms, begin, end, _PLACE) if belongs(place)),
                tuple(fill for place, fill in _between(draft.fills, begin, end, _PLACE) if belongs(place)),
                text if marks else "",
                tuple(marks),
                lead,
                trail,
            )
            parts.append(self._fitting(Sentence(ids, demands=None if demands == Demands() else demands)))
            begin = end
        return parts

    def _fitting(self, sentence: Sentence) -> Sentence:
        """The same, without what the model has no positions for: flagged, and what must be kept goes to the end."""
        demands = sentence.demands
        room = self._model.max_len - 1
        if demands is None or sum(term.length for term in demands.terms) <= room:
            return sentence
        terms, fills, lost, flags = list(demands.terms), list(demands.fills), list(demands.lost), dict[str, None]()
        while sum(term.length for term in terms) > room:
            words = [term for term in terms if not term.exact]
            if words:
                terms.remove(max(words, key=lambda term: term.length))
                flags["glossary"] = None
            else:
                terms.remove(fills[-1].term)
                lost.insert(0, fills.pop().text)
                flags["placeholder"] = None
        demands = replace(demands, terms=tuple(terms), fills=tuple(fills), lost=tuple(lost))
        return replace(sentence, demands=demands, flags=tuple(dict.fromkeys((*sentence.flags, *flags))))


def _between(items: Sequence[Placed], begin: int, end: int, place: Callable[[Placed], int]) -> Sequence[Placed]:
    """Those from one place through another, of items in order."""
    return items[bisect_left(items, begin, key=place) : bisect_right(items, end, key=place)]


def _enclose(parts: list[str | Sentence], lead: str = "", trail: str = "") -> None:
    """Put text around some parts, of which at least one is a sentence."""
    first = next(i for i, part in enumerate(parts) if isinstance(part, Sentence))
    last = next(i for i in reversed(range(len(parts))) if isinstance(parts[i], Sentence))
    for i, before, after in ((first, lead, ""), (last, "", trail)):
        sentence = parts[i]
        assert isinstance(sentence, Sentence)
        demands = sentence.demands or Demands()
        around = replace(
            demands, lead=before + demands.lead, trail=demands.trail + after, is_glued=demands.is_glued or bool(after)
        )
        parts[i] = replace(sentence, demands=around)


def _take_edges(marks: list[Mark], text: str) -> tuple[str, str]:
    """Take out of the marks what stands alone before the first word or behind the last."""
    lead = trail = ""
    while marks and not marks[0].element and not text[: marks[0].place].strip():
        lead += marks.pop(0).text
    depth = sum(-1 if mark.closes else 1 for mark in marks if mark.element)
    while marks and not depth and not marks[-1].element and not text[marks[-1].place :].strip():
        trail = marks.pop().text + trail
    return lead, trail
