"""Text to text as every user of a model gets it: one search, whose texts come and go between steps."""

import re
import sys
from collections import deque
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush

import torch

from zhuyi.data.tokenizers import Tokenizer
from zhuyi.data.windows import windows
from zhuyi.decoding import (
    Event,
    Hypothesis,
    Request,
    Rule,
    Search,
    Terms,
    is_translatable,
    max_output_tokens,
    num_lanes,
    run_in_lanes,
)
from zhuyi.decoding.config import DecodeConfig
from zhuyi.errors import InputError
from zhuyi.tasks.demands import Range, token_ranges
from zhuyi.tasks.forms import Forms, Sentence
from zhuyi.tasks.glossary import Glossary
from zhuyi.tasks.kept_parts import KeptParts
from zhuyi.tasks.likelihood import links
from zhuyi.tasks.sentence_search import never_written, open_search, search_rule, seed_of, term_rule
from zhuyi.tasks.tag_placement import Link
from zhuyi.tasks.terms import word_borders
from zhuyi.tasks.text_parts import LONGEST_STRETCH, Limit, Plan, Translation, assemble, cut_line, plan_text
from zhuyi.tasks.text_to_text_model import TextToTextModel

SEVERAL_SENTENCES = re.compile(r"[.!?。！？][^.!?。！？]*\w")  # at least nearly always


@dataclass
class _Text:
    """A text on its way.

    Args:   different: how many sentences it waits for, each counted once.
    """

    plan: Plan
    different: int
    found: dict[Sentence, tuple[Hypothesis, ...]] = field(default_factory=dict)
    written: dict[tuple[Sentence, Hypothesis], str] = field(default_factory=dict)


@dataclass
class _Marked:
    """A sentence that is found, whose marks are still to be put in its translations."""

    sentence: Sentence
    hypotheses: tuple[Hypothesis, ...]
    written: dict[tuple[Sentence, Hypothesis], str] = field(default_factory=dict)


class TextSearch:
    """Texts on their way to their translations; they come and go between steps.

    A text with nothing to translate (empty, punctuation alone) comes back as it is; line breaks are kept; what is
    longer than `decode.longest_sentence` tokens or `decode.most_sentences` is cut into sentences, clauses or, at the
    last, stretches of tokens.
    Under a `decode.constraint` only what is longer than the model's positions is cut. A sentence that several texts
    have is searched for once. Sentences with terms to write have a search of their own, which the others know nothing
    of.

    Args:   rule: the search's rule, where it is not the beam (or greedy) search of `decode`; placeholders are then
            texts like others.
            prefix: ids that every source begins with, each part of one that is cut too.
            n_best: how many translations to find: the first and `n_best - 1` alternatives.
            seed: what sampling draws from, together with each sentence.
            batch_tokens: source tokens, times hypotheses, advanced together; None: whatever `decode.batch_rows` hold.
    Raises: InputError: the prefix leaves no room for a text.
    """

    def __init__(
        self,
        model: TextToTextModel,
        source_tokenizer: Tokenizer,
        target_tokenizer: Tokenizer,
        decode: DecodeConfig,
        *,
        rule: Rule | None = None,
        prefix: Sequence[int] = (),
        n_best: int = 1,
        seed: int = 1,
        batch_tokens: int | None = None,
    ) -> None:
        writes_terms = rule is None and decode.constraint == "none"
        rule = rule or search_rule(decode, n_best)
        self._model = model
        self._room = model.max_len - 1 - len(prefix)
        if self._room < 2:
            raise InputError(
                f"a prefix of {len(prefix)} tokens leaves no room in the model's {model.max_len}; shorten it"
            )
        source_tokenizer = source_tokenizer.reading_ahead()
        self._source_tokenizer, self._target_tokenizer = source_tokenizer, target_tokenizer
        self._prefix, self._n_best, self._seed, self._max_len = tuple(prefix), n_best, seed, model.max_len
        self._limit = Limit(min(decode.longest_sentence or self._room, self._room), decode.most_sentences)
        constraint = decode.constraint
        self._forms = None if constraint == "none" else Forms(constraint, source_tokenizer, target_tokenizer)
        keep = self._forms.keep(decode.forbidden or ()) if self._forms else None
        signs, forbidden, renormalize = target_tokenizer.signs, decode.forbidden, decode.renormalize
        self._kept = None
        if writes_terms:
            self._kept = KeptParts(
                model,
                source_tokenizer,
                target_tokenizer,
                prefix=self._prefix,
                forbidden=never_written(signs, forbidden),
                limit=self._limit,
                placeholders=bool(decode.placeholders),
            )
        with_terms = term_rule(decode, n_best)
        lanes = range(num_lanes(next(model.parameters()).device))
        self._lanes, self._term_lanes = (
            [open_search(model, each, signs, forbidden, renormalize=renormalize, keep=keep) for _ in lanes]
            for each in (rule, with_terms)
        )
        self._search, self._term_search = self._lanes[0], self._term_lanes[0]
        self._max_rows = max(decode.batch_rows, rule.width, with_terms.width)
        self._max_tokens = batch_tokens or sys.maxsize
        self._texts: dict[Hashable, _Text] = {}
        self._wanted: dict[Sentence, list[Hashable]] = {}  # by which texts
        self._waiting: list[tuple[int, int, Sentence]] = []  # a heap: turn, order of arrival
        self._turn, self._arrivals, self._next_id = 0, 0, 0
        self._in_flight: dict[int, Sentence] = {}
        self._ids: dict[Sentence, int] = {}  # of those in flight
        self._tokens = 0  # of those in flight
        self._marked: deque[_Marked] = deque()
        self._done: list[Hashable] = []

    @property
    def active(self) -> int:
        """Texts that are not translated yet."""
        return len(self._texts)

    @property
    def rows(self) -> int:
        """Rows in the batch."""
        return self._search.rows + self._term_search.rows

    def read_ahead(self, texts: Iterable[str]) -> None:
        """Encode together the lines of texts that will be admitted next: one by one it takes three times as long.

        A line that looks as if it would be cut is left to be.
        """
        lines = (line for text in texts for line in text.split("\n"))
        self._source_tokenizer.read_ahead(
            line
            for line in lines
            if len(line) <= LONGEST_STRETCH and not (self._limit.sentences and SEVERAL_SENTENCES.search(line))
        )

    def admit(self, key: Hashable, text: str, *, turn: int = 0, glossary: Glossary | None = None) -> int:
        """Take a text in; how many sentences it has.

        Where there are more sentences than room, all texts take turns: none waits for the whole of a long one.

        Args:   turn: how many sentences of the same owner come before this text's.
                glossary: what its words must become.
        Raises: ValueError: there is a text of that key already.
                InputError: a glossary, and a search that cannot keep to one.
        """
        return self.admit_plan(key, list(self.plan(text, glossary)), turn=turn)

    def admit_plan(self, key: Hashable, plan: Plan, *, turn: int = 0) -> int:
        """As `admit`, of a text's plan."""
        if key in self._texts:
            raise ValueError(f"text {key} is on its way already; keys must differ")
        sentences = dict.fromkeys(part for part in plan if isinstance(part, Sentence))
        self._texts[key] = _Text(plan, len(sentences))
        if not sentences:
            self._done.append(key)
        for place, sentence in enumerate(sentences):
            owners = self._wanted.setdefault(sentence, [])
            if not owners:
                heappush(self._waiting, (self._turn + turn + place, self._arrivals, sentence))
                self._arrivals += 1
            owners.append(key)
        return len(sentences)

    def advance(self) -> list[tuple[Hashable, Translation]]:
        """Write the next tokens of every sentence in flight, or one's marks; the texts that are translated now."""
        if requests := self._admissible():
            self._search.admit([request for request in requests if request.terms is None])
            self._term_search.admit([request for request in requests if request.terms is not None])
        for event in (*self._search.advance(), *self._term_search.advance()):
            self._note(event)
        self._write_marked()
        return self._take_done()

    def finish(self) -> Iterator[tuple[Hashable, Translation]]:
        """Translate all texts that wait, in as many lanes as there is work for; for what has not begun to advance."""
        assert not self._in_flight
        # Those of like length together; among equals the order is of the words, never of the place.
        sentences = sorted(self._wanted, key=lambda sentence: (-len(sentence.ids), sentence.ids))
        self._waiting.clear()
        requests = [self._request(sentence) for sentence in sentences]
        plain, with_terms = ([r for r in requests if (r.terms is not None) is has] for has in (False, True))
        for lanes, of_lanes in ((self._lanes, plain), (self._term_lanes, with_terms)):
            for event in run_in_lanes(lanes, of_lanes, max_rows=self._max_rows):
                self._note(event)
        while self._marked:
            self._write_marked()
        yield from self._take_done()

    def drop(self, keys: Collection[Hashable]) -> None:
        """Forget texts; keys that are not on their way are ignored."""
        gone = []
        for key in keys:
            text = self._texts.pop(key, None)
            for sentence in {} if text is None else self._missing(text):
                owners = self._wanted[sentence]
                owners.remove(key)
                if not owners:
                    del self._wanted[sentence]
                    if sentence in self._ids:
                        gone.append(self._ids[sentence])
                        self._land(gone[-1])
        self._search.drop(gone)
        self._term_search.drop(gone)
        self._marked = deque(each for each in self._marked if each.sentence in self._wanted)
        self._done = [key for key in self._done if key in self._texts]

    def plan(self, text: str, glossary: Glossary | None = None) -> Iterator[str | Sentence]:
        """What becomes of a text, part by part: of a long one each takes a moment."""
        if glossary is not None and self._kept is None:
            raise InputError("a glossary needs a beam search, and answers without a form; leave sampling or form out")
        always = glossary.always if glossary is not None else ()
        for part in plan_text(text, lambda line: self._cut(line, glossary)):
            if isinstance(part, Sentence) and self._kept is not None:
                for entry in always:
                    part = self._kept.demand(part, entry.targets)
                always = ()
            yield part

    def _cut(self, line: str, glossary: Glossary | None) -> Iterator[str | Sentence]:
        for piece, kept in ((line, ()),) if self._kept is None else self._kept.pieces(line, glossary):
            parts: Iterable[str | Sentence] | None = None
            if not is_translatable(piece):
                parts = (piece.strip(),)
            elif self._forms is not None:
                parts = self._forms.parts(piece, self._room)
            elif self._kept is not None:
                parts = self._kept.parts(piece, kept, glossary)
            if parts is None:
                parts = cut_line(piece, self._source_tokenizer, self._limit)
            for part in parts:
                yield part if isinstance(part, str) else self._with_prefix(part)

    def _with_prefix(self, sentence: Sentence) -> Sentence:
        return replace(sentence, ids=(*self._prefix, *sentence.ids)) if self._prefix else sentence

    def _admissible(self) -> list[Request]:
        """What goes in now: encoding sentences one by one would cost more than idle rows do."""
        width, rows = self._search.width, self.rows
        free, planned = self._max_rows - rows, 0
        scarce = free < max(width, self._max_rows // 4) or self._max_tokens - self._tokens < self._max_tokens // 4
        if rows and scarce:
            return []
        requests: list[Request] = []
        while self._waiting:
            turn, _, sentence = self._waiting[0]
            if sentence in self._wanted and sentence not in self._ids:
                planned += self._search_for(sentence).width
                full = planned > free or self._tokens + self._cost(sentence) > self._max_tokens
                if (rows or requests) and full:
                    break
                requests.append(self._request(sentence))
                self._turn = max(self._turn, turn)
            heappop(self._waiting)  # perhaps nobody wants it any longer
        return requests

    def _request(self, sentence: Sentence) -> Request:
        self._next_id += 1
        self._in_flight[self._next_id] = sentence
        self._ids[sentence] = self._next_id
        self._tokens += self._cost(sentence)
        most, terms = max_output_tokens(len(sentence.ids), self._max_len), None
        if sentence.form:
            most = len(sentence.form.fixed) + 1
        elif sentence.demands and sentence.demands.terms:
            terms = Terms(sentence.demands.terms, word_borders(self._target_tokenizer))
            most = min(self._max_len, most + terms.total)
        return Request(
            self._next_id,
            sentence.ids,
            most,
            seed=seed_of(self._seed, sentence.ids),
            repeating=sentence.ids,
            form=sentence.form,
            terms=terms,
        )

    def _search_for(self, sentence: Sentence) -> Search:
        return self._term_search if sentence.demands and sentence.demands.terms else self._search

    def _cost(self, sentence: Sentence) -> int:
        return self._search_for(sentence).width * len(sentence.ids)

    def _land(self, id_: int) -> Sentence:
        sentence = self._in_flight.pop(id_)
        del self._ids[sentence]
        self._tokens -= self._cost(sentence)
        return sentence

    def _note(self, event: Event) -> None:
        if event.hypotheses is None:
            return
        sentence = self._land(event.id)
        if sentence.demands and sentence.demands.marks:
            self._marked.append(_Marked(sentence, event.hypotheses))
        else:
            self._give(sentence, event.hypotheses, {})

    def _write_marked(self) -> None:
        """Write one translation with its marks: to find their places takes as long as a step of many rows."""
        if not self._marked:
            return
        marked = self._marked[0]
        left = [each for each in marked.hypotheses[: self._n_best] if (marked.sentence, each) not in marked.written]
        for hypothesis in left[:1]:
            marked.written[marked.sentence, hypothesis] = self._write(marked.sentence, hypothesis)
        if len(left) <= 1:
            self._marked.popleft()
            self._give(marked.sentence, marked.hypotheses, marked.written)

    def _give(
        self,
        sentence: Sentence,
        hypotheses: tuple[Hypothesis, ...],
        written: Mapping[tuple[Sentence, Hypothesis], str],
    ) -> None:
        """Give what is found to all texts that want it."""
        for key in self._wanted.pop(sentence, ()):  # who left and came again had it searched for twice
            text = self._texts[key]
            text.found[sentence] = hypotheses
            text.written.update(written)
            if len(text.found) == text.different:
                self._done.append(key)

    def _missing(self, text: _Text) -> dict[Sentence, None]:
        return dict.fromkeys(part for part in text.plan if isinstance(part, Sentence) and part not in text.found)

    def _take_done(self) -> list[tuple[Hashable, Translation]]:
        done, self._done = self._done, []
        texts = [(key, self._texts.pop(key)) for key in done]
        return [(key, self._assembled(text)) for key, text in texts]

    def _assembled(self, text: _Text) -> Translation:
        def write(sentence: Sentence, hypothesis: Hypothesis) -> str:
            return text.written.get((sentence, hypothesis)) or self._write(sentence, hypothesis)

        return assemble(text.plan, text.found, self._target_tokenizer, self._n_best, write)

    def _write(self, sentence: Sentence, hypothesis: Hypothesis) -> str:
        """The text of a sentence's translation, with all that it must hold."""
        tokenizer, demands = self._target_tokenizer, sentence.demands
        if demands is None:
            return sentence.text(hypothesis.tokens, tokenizer)

        def link(ranges: list[Range]) -> list[Link]:
            read = token_ranges(sentence.ids[len(self._prefix) : -1], self._source_tokenizer, demands.source)
            return links(self._model, sentence.ids, hypothesis.tokens, read, ranges, tokenizer.signs.bos)

        return demands.text(hypothesis.tokens, tokenizer, link)


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
    """Translate any number of texts, in order, as `TextSearch` does.

    Raises: InputError: the prefix leaves no room for a text.
    """
    tokenizers = source_tokenizer, target_tokenizer
    search = TextSearch(model, *tokenizers, decode, rule=rule, prefix=prefix, n_best=n_best, seed=seed)
    yield from translate_all(search, texts)


def translate_all(
    search: TextSearch, texts: Iterable[str], glossaries: Iterable[Glossary | None] = ()
) -> Iterator[Translation]:
    """Translate texts by a search that has no others, in order; memory is bounded by a window of them.

    Args:   glossaries: each text's own; the texts beyond them have none.
    """
    of_texts = iter(glossaries)
    for window in windows(texts):
        search.read_ahead(window)
        for place, text in enumerate(window):
            search.admit(place, text, glossary=next(of_texts, None))
        found = dict(search.finish())
        yield from (found[place] for place in range(len(window)))
