"""Answers of a given form: as many characters as the text has, or a couplet's lower line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from zhuyi.data.normalization import contains_han, normalize
from zhuyi.data.tokenizers import Tokenizer
from zhuyi.decoding import Form, KeepForm, is_translatable
from zhuyi.decoding.config import Constraint
from zhuyi.errors import InputError
from zhuyi.tasks.demands import Demands


@dataclass(frozen=True)
class Sentence:
    """What is searched for once.

    Args:   ids: the source's, the end sign last.
            form: of the answer's tokens; None: any.
            frame: of an answer with a form, its characters: those that are given, and "" for each to be written.
            flags: what is known of the answer beforehand.
            demands: what the answer must hold; None: nothing.
    """

    ids: tuple[int, ...]
    form: Form | None = None
    frame: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    demands: Demands | None = None

    def __hash__(self) -> int:
        return hash(self.ids)  # nearly all differ by their ids, and they are looked up a dozen times each

    def text(self, tokens: Sequence[int], tokenizer: Tokenizer) -> str:
        """The text of an answer."""
        if self.form is None:
            return tokenizer.decode(tokens)
        written = (
            tokenizer.decode([token]) for token, fixed in zip(tokens, self.form.fixed, strict=True) if fixed is None
        )
        return "".join(given or next(written) for given in self.frame)


class Forms:
    """Makes of a line what is to be searched for, and what it may be.

    Whatever the line holds, an answer has as many characters (code points) as it has.

    Args:   source, target: tokenizers whose every piece is one character.
    Raises: InputError: a tokenizer of another kind.
    """

    def __init__(self, constraint: Constraint, source: Tokenizer, target: Tokenizer) -> None:
        signs = target.signs.all()
        characters = {i: label for i, label in enumerate(target.labels) if i not in signs}
        for tokenizer in (source, target):
            if any(len(label) != 1 for i, label in enumerate(tokenizer.labels) if i not in tokenizer.signs.all()):
                raise InputError(
                    f'decode.constraint = "{constraint}" counts characters, and this run\'s tokens are more than one '
                    'each; train it with data.tokenizer.kind = "character", or ask for constraint none'
                )
        self._is_couplet = constraint == "couplet"
        self._source, self._target = source, target
        self._answers = [i for i, character in characters.items() if not self._is_couplet or _is_answered(character)]
        self._answers = self._answers or list(characters)
        self._known: dict[str, tuple[str, int, int]] = {}

    def keep(self, forbidden: Sequence[int] = ()) -> KeepForm:
        """The filter that holds a search to the forms."""
        return KeepForm(self._target.signs.eos, set(self._answers).difference(forbidden))

    def parts(self, line: str, longest: int) -> Iterator[str | Sentence]:
        """Cut a line into stretches of at most `longest` characters; one with nothing to answer stays as it is."""
        barred = self._barred(line) if self._is_couplet else ()
        for start in range(0, len(line), longest):
            stretch = line[start : start + longest]
            yield self._couplet(stretch, barred) if self._is_couplet else self._same_length(stretch)

    def _same_length(self, stretch: str) -> str | Sentence:
        if not is_translatable(stretch):
            return stretch
        count, ids = len(stretch), self._source.encode(stretch)
        # The normal form of a few characters is longer than they are.
        ids = ids if len(ids) <= count + 1 else [*ids[:count], self._source.signs.eos]
        return Sentence(tuple(ids), Form((None,) * count, tuple(range(count))), ("",) * count)

    def _couplet(self, stretch: str, barred: tuple[int, ...]) -> str | Sentence:
        """Chinese characters are answered, each by another; all else is given, and stands in its place."""
        ids: list[int] = []
        fixed: list[int | None] = []
        same_as: list[int] = []
        first: dict[str, int] = {}
        flags: tuple[str, ...] = ()
        for character in stretch:
            read, source_id, target_id = self._read(character)
            if not read:  # nothing that the model could see: a space, say
                continue
            ids.append(source_id)
            answered = _is_answered(character)
            same_as.append(first.setdefault(character, len(fixed)) if answered else len(fixed))
            fixed.append(None if answered else target_id)
            if answered and source_id == self._source.signs.unk:
                flags = ("unknown",)
        if not first:
            return stretch
        frame = tuple("" if _is_answered(character) else character for character in stretch)
        form = Form(tuple(fixed), tuple(same_as), barred, distinct=True)
        return Sentence((*ids, self._source.signs.eos), form, frame, flags)

    def _barred(self, line: str) -> tuple[int, ...]:
        """No character of the upper line stands in the lower one."""
        return tuple(sorted({self._read(character)[2] for character in set(line) if _is_answered(character)}))

    def _read(self, character: str) -> tuple[str, int, int]:
        """A character as the models read it among Chinese ones, perhaps not at all, and its id on both sides."""
        if character not in self._known:
            # Alone, a mark would be taken for that of another script.
            read = normalize(f"中{character}中")[1:-1]
            self._known[character] = (read, _id_of(read, self._source), _id_of(read, self._target))
        return self._known[character]


def _is_answered(character: str) -> bool:
    return contains_han(character) and is_translatable(character)


def _id_of(text: str, tokenizer: Tokenizer) -> int:
    (ids,) = tokenizer.encode_batch([text], normalized=True)
    return ids[0] if len(ids) == 2 else tokenizer.signs.unk
