"""Words that a model knows how to translate, to stand in a text for what it does not know."""

from collections.abc import Sequence
from dataclasses import dataclass

from zhuyi.data.tokenizers import Tokenizer
from zhuyi.decoding import Term
from zhuyi.tasks.likelihood import target_log_probs
from zhuyi.tasks.terms import make_term
from zhuyi.tasks.text_to_text_model import TextToTextModel

NAMES = ("Tom", "Mary", "John", "Bob", "Anna", "Paul", "汤姆", "玛丽", "约翰", "鲍勃", "安娜", "保罗")
NUMBERS = ("42", "93", "47", "25", "36", "58", "71", "64")


@dataclass(frozen=True)
class StandIn:
    """A word of the source, and what the model makes of it."""

    source: str
    target: str
    term: Term


def choose_stand_ins(
    model: TextToTextModel,
    source_tokenizer: Tokenizer,
    target_tokenizer: Tokenizer,
    prefix: Sequence[int],
    forbidden: frozenset[int],
) -> dict[str, tuple[StandIn, ...]]:
    """Names and numbers that the model translates most surely, the surest first; what is likely is asked of the model.

    Args:   prefix: ids that every source begins with.
            forbidden: ids that no search writes.
    """

    def read(text: str) -> bool:
        ids = source_tokenizer.encode(text)[:-1]
        return source_tokenizer.decode(ids) == text

    found: dict[str, tuple[StandIn, ...]] = {}
    for kind, words in (("name", NAMES), ("number", NUMBERS)):
        terms = {word: make_term((word,), target_tokenizer, forbidden, exact=True) for word in words}
        pairs = [(a, b) for a in words for b in words if read(a) and terms[b] and (kind == "name" or a == b)]
        sources = [[*prefix, *source_tokenizer.encode(a)] for a, _ in pairs]
        targets = [target_tokenizer.encode(b) for _, b in pairs]
        scores = target_log_probs(model, sources, targets, target_tokenizer.signs.bos) if pairs else []
        best: dict[str, StandIn] = {}
        for _, (a, b) in sorted(zip((-float(s.sum()) for s in scores), pairs, strict=True)):
            term = terms[b]
            if term and a not in best and all(b != other.target for other in best.values()):
                best[a] = StandIn(a, b, term)
        found[kind] = tuple(best.values())
    return found
