"""Terms in the tokens of a vocabulary: the ways a model would write one itself, and where words begin and end."""

import re
from functools import cache

from zhuyi.data.tokenizers import SPACE, Tokenizer
from zhuyi.decoding import Term, Way, WordBorders

# Letters and digits of scripts that have words side by side without space, or put endings to foreign words, begin and
# end no words: Han, kana, Hangul, Thai, Lao, Khmer, Burmese.
_JOINED = (
    r"[^\W_\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u318f"
    r"\u31a0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff66-\uffdc\U00020000-\U000323af]"
)
_JOINS = re.compile(_JOINED)
_TOGETHER = re.compile(rf"{_JOINED}++|.", re.DOTALL)
_ENDS_SENTENCE = re.compile(r"[.!?…。！？][\"'”’)）]*\Z")
_SILENT = re.compile(rf"[\s{SPACE}\"'“”‘’«»(（\[¿¡「『—–-]*\Z")
# What may stand before a term: nothing, a word, a bracket, a Chinese word; a model's pieces differ with it.
_CONTEXTS = ("", "a ", "(", "中", "。")


def joins(character: str) -> bool:
    """Whether a letter or digit goes on with the word beside it."""
    return _JOINS.match(character) is not None


def joined(text: str) -> list[str]:
    """A text cut wherever no letter or digit goes on with the one beside it."""
    return _TOGETHER.findall(text)


@cache
def word_borders(tokenizer: Tokenizer) -> WordBorders:
    """What each piece of a vocabulary does to words."""
    left, right, ends, silent = [], [], [], []
    signs = tokenizer.signs.all()
    for i, label in enumerate(tokenizer.labels):
        if i in signs or not label:
            continue
        begins = label.removeprefix("##") if tokenizer.is_wordpiece else label
        goes_on = label.startswith("##") or not tokenizer.is_wordpiece
        if goes_on and joins(begins[0]):
            left.append(i)
        if joins(label[-1]):
            right.append(i)
        if _ENDS_SENTENCE.search(label):
            ends.append(i)
        if _SILENT.match(label):
            silent.append(i)
    return WordBorders(frozenset(left), frozenset(right), frozenset(ends), frozenset(silent))


def make_term(
    texts: tuple[str, ...], tokenizer: Tokenizer, forbidden: frozenset[int], exact: bool = False
) -> Term | None:
    """The ways to write any one of some texts, or None where the vocabulary cannot write one of them letter for letter.

    A text without capitals may begin a sentence with one.

    Args:   forbidden: ids that no search writes.
    """
    ways: dict[Way, None] = {}
    for text in texts:
        ways.update(dict.fromkeys(_ways(text, tokenizer, forbidden)))
        capital = text[:1].upper() + text[1:]
        if ways and text == text.lower() != capital and not exact:
            ways.update(dict.fromkeys(_ways(capital, tokenizer, forbidden, at_start=True)))
    try:
        return Term(tuple(ways), exact)
    except ValueError:  # none of the ways may stand anywhere
        return None


def _ways(text: str, tokenizer: Tokenizer, forbidden: frozenset[int], *, at_start: bool = False) -> list[Way]:
    borders, found = word_borders(tokenizer), []
    for context in _CONTEXTS:
        before = tokenizer.encode(context)[:-1]
        ids = tokenizer.encode(context + text)[:-1]
        tokens = tuple(ids[len(before) :])
        if ids[: len(before)] != before or not tokens or forbidden.intersection(tokens):
            continue
        if tokenizer.decode(ids)[len(tokenizer.decode(before)) :].strip() != text:
            continue
        found.append(Way(tokens, tokens[0] in borders.joins_left, joins(text[-1]), at_start))
    if found and not joins(text[0]) and not joins(text[-1]):
        # Where words have no borders, a piece may hold the term and more.
        signs = tokenizer.signs.all()
        longer = (i for i, label in enumerate(tokenizer.labels) if text in label and i not in signs)
        known = {way.tokens for way in found}
        found += [Way((i,), offered=False) for i in longer if (i,) not in known and i not in forbidden]
    return found
