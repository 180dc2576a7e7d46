"""What a text must contain, as an automaton over its tokens: how far it has come, and what would bring it further."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

DEAD = -1  # the state of a text that can no longer become what it must be


@dataclass(frozen=True)
class Way:
    """One sequence of tokens that writes a term, and where it may stand.

    Args:   apart_before: not behind a letter or digit that it would be joined with.
            apart_after: not before one.
            at_start: only as a sentence's first word.
            offered: False where it counts but is not tried unless the model finds it likely.
    Raises: ValueError: there is no token.
    """

    tokens: tuple[int, ...]
    apart_before: bool = False
    apart_after: bool = False
    at_start: bool = False
    offered: bool = True

    @property
    def is_free(self) -> bool:
        """Whether a search can always write it."""
        return self.offered and not self.apart_before and not self.at_start

    def __post_init__(self) -> None:
        if not self.tokens:
            raise ValueError("a way to write a term needs at least one token")


@dataclass(frozen=True)
class Term:
    """Something that must be written once, in any one of some ways; named n times, it must be written n times.

    Args:   ways: at least one that may stand anywhere: without it, no search could promise the term.
            exact: not once more than it is demanded, in none of its ways.
    Raises: ValueError: no way may stand anywhere.
    """

    ways: tuple[Way, ...]
    exact: bool = False

    def __post_init__(self) -> None:
        if not any(way.is_free for way in self.ways):
            raise ValueError("a term needs a way that may stand anywhere")

    @property
    def length(self) -> int:
        """Tokens of the shortest way that may stand anywhere."""
        return min(len(way.tokens) for way in self.ways if way.is_free)


@dataclass(frozen=True)
class WordBorders:
    """What the tokens of a vocabulary do to words.

    Args:   joins_left: ids that go on with a word: they begin with a letter or digit, and no space.
            joins_right: ids that a word goes on from: they end with a letter or digit.
            ends_sentence: ids after which a sentence begins.
            silent: ids that a sentence may begin with before its first word: quotes, brackets, a space.
    """

    joins_left: frozenset[int] = frozenset()
    joins_right: frozenset[int] = frozenset()
    ends_sentence: frozenset[int] = frozenset()
    silent: frozenset[int] = frozenset()


# One reading of a text: how often each term is still owed; the term and way being written, and how much of it; whether
# the term just written must not be gone on with.
_Reading = tuple[tuple[int, ...], tuple[int, int, int] | None, bool]


@dataclass(frozen=True)
class _State:
    readings: frozenset[_Reading]
    tail: tuple[int, ...] = ()  # the newest tokens, as far as an exact term may have begun in them
    surplus: tuple[int, ...] = ()  # how often each exact term may still be written
    joins: bool = False  # the text ends with a letter or digit
    at_start: bool = True


class Terms:
    """Follows a text token by token; its states are small numbers, 0 the empty text's.

    A text is complete where its terms stand in it, no token serving two of them. Several readings are followed at
    once, so that neither a term that begins another nor one that overlaps with another is ever miscounted.

    Args:   terms: each once for each time it must be written.
    """

    def __init__(self, terms: Iterable[Term], borders: WordBorders | None = None) -> None:
        owed = Counter(terms)
        self._terms = tuple(owed)
        self._borders = borders or WordBorders()
        self._lengths = [term.length for term in self._terms]
        self._exact = [(i, way.tokens) for i, term in enumerate(self._terms) if term.exact for way in term.ways]
        begun: list[_Reading] = [(tuple(owed.values()), None, False)]
        self._states = [_State(frozenset(begun), surplus=tuple(owed.values()))]
        self._numbers = {self._states[0]: 0}
        self._steps: dict[tuple[int, int], int] = {}
        self._needed: dict[int, int] = {}
        self._wanted: dict[int, tuple[int, ...]] = {}
        self.total = self.needed(0)

    def step(self, state: int, token: int) -> int:
        """The state after one more token, or `DEAD`."""
        key = state, token
        if key not in self._steps:
            following = self._follow(self._states[state], token)
            number = DEAD
            if following is not None:
                number = self._numbers.setdefault(following, len(self._states))
                if number == len(self._states):
                    self._states.append(following)
            self._steps[key] = number
        return self._steps[key]

    def needed(self, state: int) -> int:
        """How many tokens at least are missing; 0: the text is complete."""
        if state not in self._needed:
            self._needed[state] = min(self._missing(reading) for reading in self._states[state].readings)
        return self._needed[state]

    def wanted(self, state: int) -> tuple[int, ...]:
        """The tokens that go on with a term or begin one."""
        if state not in self._wanted:
            now = self._states[state]
            wanted = [token for reading in now.readings for token, _ in self._openings(reading, now, offered=True)]
            self._wanted[state] = tuple(dict.fromkeys(sorted(wanted)))
        return self._wanted[state]

    def accepts(self, tokens: Iterable[int]) -> bool:
        """Whether a whole text has all that it must have."""
        state = 0
        for token in tokens:
            state = self.step(state, token)
            if state == DEAD:
                return False
        return self.needed(state) == 0

    def _follow(self, now: _State, token: int) -> _State | None:
        borders = self._borders
        tail, surplus = (*now.tail, token), list(now.surplus)
        for i in {i for i, way in self._exact if tail[-len(way) :] == way}:
            surplus[i] -= 1
            if surplus[i] < 0:
                return None
        readings: set[_Reading] = set()
        for reading in now.readings:
            if reading[2] and token in borders.joins_left:
                continue
            readings.add((reading[0], None, False))
            readings.update(after for wanted, after in self._openings(reading, now) if wanted == token)
        exact = {i for i, _ in self._exact}
        readings = {reading for reading in readings if all(reading[0][i] <= surplus[i] for i in exact)}
        if not readings:
            return None
        at_start = token in borders.ends_sentence or (now.at_start and token in borders.silent)
        return _State(
            _without_worse(readings), self._exact_tail(tail), tuple(surplus), token in borders.joins_right, at_start
        )

    def _openings(self, reading: _Reading, now: _State, *, offered: bool = False) -> list[tuple[int, _Reading]]:
        """The tokens that bring a reading further, each with the reading after it."""
        owed, writing, closed = reading
        if writing is not None:
            term, number, length = writing
            return [self._advance(owed, term, number, length)]
        found = []
        for term, count in enumerate(owed):
            for number, way in enumerate(self._terms[term].ways if count else ()):
                allowed = (
                    (way.offered or not offered)
                    and not (way.apart_before and now.joins)
                    and (now.at_start or not way.at_start)
                )
                if allowed and not (closed and way.tokens[0] in self._borders.joins_left):
                    found.append(self._advance(owed, term, number, 0))
        return found

    def _advance(self, owed: tuple[int, ...], term: int, number: int, length: int) -> tuple[int, _Reading]:
        way = self._terms[term].ways[number]
        token = way.tokens[length]
        if length + 1 < len(way.tokens):
            return token, (owed, (term, number, length + 1), False)
        return token, ((*owed[:term], owed[term] - 1, *owed[term + 1 :]), None, way.apart_after)

    def _missing(self, reading: _Reading) -> int:
        owed, writing, _ = reading
        missing = sum(count * length for count, length in zip(owed, self._lengths, strict=True))
        if writing is None:
            return missing
        term, number, length = writing
        return min(missing, missing - self._lengths[term] + len(self._terms[term].ways[number].tokens) - length)

    def _exact_tail(self, tail: tuple[int, ...]) -> tuple[int, ...]:
        """Drop what no exact term begins with."""
        starts = {way[:length] for _, way in self._exact for length in range(1, len(way))}
        return next((tail[i:] for i in range(len(tail)) if tail[i:] in starts), ())


def _without_worse(readings: set[_Reading]) -> frozenset[_Reading]:
    """Leave out each reading beside which another has come at least as far in everything."""
    return frozenset(r for r in readings if not any(other != r and _covers(other, r) for other in readings))


def _covers(better: _Reading, worse: _Reading) -> bool:
    owed, writing, closed = better
    if not all(a <= b for a, b in zip(owed, worse[0], strict=True)) or (closed and not worse[2]):
        return False
    if writing is not None:
        return writing == worse[1]
    if worse[1] is None:
        return True
    # Even where the worse one finishes what it is writing, it owes no less than the better one does now.
    term = worse[1][0]
    return owed[term] < worse[0][term]


def occurrences(tokens: Sequence[int], terms: Iterable[Term]) -> list[tuple[int, int, Term]]:
    """Where exact terms stand in a text, each as its first token, the one behind its last, and the term; in order."""
    ways = sorted(
        {(way.tokens, term) for term in terms for way in term.ways}, key=lambda entry: (-len(entry[0]), entry[0])
    )
    found, start = [], 0
    while start < len(tokens):
        here = next(((w, t) for w, t in ways if tuple(tokens[start : start + len(w)]) == w), None)
        if here:
            found.append((start, start + len(here[0]), here[1]))
        start += len(here[0]) if here else 1
    return found
