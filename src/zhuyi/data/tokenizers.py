"""Tokenizers trained inside the tool: unigram, BPE, byte-level BPE and characters.

The same lines and the same config give the same file, byte for byte, in any process.
"""

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from zhuyi.atomic import replacing
from zhuyi.data.normalization import normalize
from zhuyi.data.special_tokens import BOS_ID, EOS, EOS_ID, PAD_ID, SPECIAL_TOKENS, UNK, UNK_ID
from zhuyi.data.unigram import train_unigram
from zhuyi.errors import InputError

Kind = Literal["unigram", "bpe", "byte-bpe", "character"]

SPACE = "▁"
BYTES = 256
# Stands for each character that gets no piece of its own; no piece reaches across it.
CUT = "\0"

# Scripts written without spaces between words: a run of them is one stretch, and takes no `▁`.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}ー々〆〇"
# What no piece mixes with a word: punctuation, symbols, digits. The apostrophe of "don't" counts as a letter.
_ALONE = rf"▁?(?!(?<=\p{{L}})['’](?=\p{{L}}))[[\p{{P}}\p{{S}}\p{{Nd}}]&&[^{SPACE}]]"
_STRETCHES = rf"[{_UNSPACED}]+|{_ALONE}"
_EACH_CHARACTER = pre_tokenizers.Split(Regex(r"(?m:.)"), "isolated")
_NEEDLESS_SPACE = rf"\A (?=[^\p{{L}}\p{{N}}]|[{_UNSPACED}]|\z)"


@dataclass(frozen=True)
class TokenizerConfig:
    """How a tokenizer is trained.

    Args:
        vocab_size: at most so many pieces, the four special ones counted; small corpora give fewer.
        joint: one tokenizer for both sides, rather than one for each (see `train_tokenizers`).
        character_coverage: where single characters would fill more than half of the vocabulary, the rarest
            become `<unk>`, until this share of all occurrences is left. Byte-level BPE covers everything.
        verbatim: texts keep white space, line breaks and width as they are; of characters and byte-level BPE.
    Raises: InputError: a size or share that cannot be, or a kind that cannot keep texts as they are.
    """

    kind: Kind = "unigram"
    vocab_size: int = 8000
    joint: bool = True
    lowercase: bool = False
    character_coverage: float = 0.9995
    verbatim: bool = False

    def __post_init__(self) -> None:
        smallest = len(SPECIAL_TOKENS) + (BYTES if self.kind == "byte-bpe" else 1)
        if self.vocab_size < smallest:
            raise InputError(f"vocab_size is {self.vocab_size}; a {self.kind} tokenizer needs at least {smallest}")
        if not 0.5 <= self.character_coverage <= 1:
            raise InputError(f"character_coverage is {self.character_coverage}; it must be between 0.5 and 1")
        if self.verbatim and self.kind not in ("byte-bpe", "character"):
            raise InputError(f"verbatim = true is for the kinds byte-bpe and character; kind is {self.kind}")


@dataclass(frozen=True)
class Signs:
    """The ids of what is no text: the first four in a tokenizer trained here, its own in an imported one.

    Args:   bos: what a target begins with. One id may serve twice: Marian's targets begin with its padding sign.
            others: further ids that are dropped from texts.
            mask: what stands for a word taken away; None where the vocabulary has no such sign.
    """

    pad: int = PAD_ID
    bos: int = BOS_ID
    eos: int = EOS_ID
    unk: int = UNK_ID
    others: tuple[int, ...] = ()
    mask: int | None = None

    def all(self) -> frozenset[int]:
        masks = () if self.mask is None else (self.mask,)
        return frozenset((self.pad, self.bos, self.eos, self.unk, *self.others, *masks))


class Tokenizer:
    """Text to ids and back; normalisation and the end sign included."""

    def __init__(
        self, library: tokenizers.Tokenizer, signs: Signs | None = None, pieces: Sequence[str] | None = None
    ) -> None:
        """Wrap a tokenizer of the library.

        Args:   signs: those of an imported vocabulary, or of one that keeps texts verbatim, whose texts the library
                alone normalises; None: trained here on normalised texts, so that the first four pieces are the special
                ones.
                pieces: by id, where the ids are not the library's own.
        """
        self._library = library
        self._imported = signs is not None
        self.signs = signs or Signs()
        self._not_text = self.signs.all()
        self._read_ahead: dict[str, list[int]] = {}
        own = [library.id_to_token(i) or "" for i in range(library.get_vocab_size())]
        self.pieces: list[str] = own if pieces is None else list(pieces)
        self.vocab_size: int = len(self.pieces)
        self._own, self._ids = own, None
        if pieces is not None:
            ids = {piece: i for i, piece in enumerate(self.pieces) if piece}
            self._own_ids = [ids.get(piece, self.signs.unk) for piece in own]
            self._ids = {piece: i for piece, i in ids.items() if i not in self._not_text}
        byte_level = "ByteLevel" in str(library.decoder)
        self.labels: list[str] = [_byte_label(p) for p in self.pieces] if byte_level else self.pieces
        if self._imported:
            library.encode_special_tokens = True  # nobody writes "</s>" into a text and ends it by that

    @property
    def is_wordpiece(self) -> bool:
        """Whether pieces say that they go on with a word (##ing), and not that they begin one."""
        return isinstance(self._library.model, models.WordPiece)

    def normalize(self, text: str) -> str:
        """Give the form in which a text is cut: the one normal form; the text itself where the library has its own."""
        return text if self._imported else normalize(text)

    def encode(self, text: str) -> list[int]:
        """Normalise a text and return its ids, the end sign last."""
        if (ids := self._read_ahead.get(text)) is not None:
            return list(ids)
        return self._to_ids(self._library.encode(_writable(self.normalize(text))))

    def encode_batch(self, texts: Sequence[str], *, normalized: bool = False) -> list[list[int]]:
        """Encode many texts on all cores; `normalized` skips the normalisation of texts that have had it."""
        ready = [_writable(text if normalized else self.normalize(text)) for text in texts]
        # The fast way leaves the pieces out.
        encode = self._library.encode_batch_fast if self._ids is None else self._library.encode_batch
        return [self._to_ids(encoding) for encoding in encode(ready)]

    def reading_ahead(self) -> "Tokenizer":
        """The same tokenizer, for somebody who will `read_ahead`: what is read is his alone."""
        return copy(self)

    def read_ahead(self, texts: Iterable[str]) -> None:
        """Encode together, on all cores, what `encode` will be asked for next; forget what was read before."""
        wanted = list(dict.fromkeys(texts))
        self._read_ahead = dict(zip(wanted, self.encode_batch(wanted), strict=True))

    def tokens(self, text: str) -> list[str]:
        """Return the pieces of a text as a reader wants to see them, one for each id of `encode(text)`."""
        return [self.labels[i] for i in self.encode(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of some ids; special signs are dropped."""
        kept = [i for i in map(int, ids) if i not in self._not_text]
        if self._ids is None:
            return self._library.decode(kept, skip_special_tokens=False)
        return self._library.decoder.decode([self.pieces[i] for i in kept if self.pieces[i]])

    def save(self, path: str | Path) -> None:
        """Write one JSON file, of the library's own form, whole or not at all.

        An imported one has the key `zhuyi` besides, which the library refuses: its signs, and its pieces by id where
        the ids are not the library's.
        """
        with replacing(path) as temporary:
            temporary.write_text(self._json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read what `save` wrote.

        Raises: InputError: there is no such file, it is broken, or it is a tokenizer of another form.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
            # Only an imported one is worth reading twice.
            values = json.loads(text) if '"zhuyi"' in text else {}
            own = values.pop("zhuyi", None)
            library = tokenizers.Tokenizer.from_str(text if own is None else json.dumps(values))
            tokenizer = cls(library, *_imported_parts(own))
            empty = tokenizer.encode("")
        except Exception as error:  # the library raises no narrower class
            message = f"{path} is no whole tokenizer file ({error}); train the tokenizer again, or copy it again"
            raise InputError(message) from error
        first = tokenizer.pieces[: len(SPECIAL_TOKENS)]
        # Added tokens would be found inside of texts: there a user could write "</s>".
        if own is None and (first != list(SPECIAL_TOKENS) or empty != [EOS_ID] or library.get_added_tokens_decoder()):
            raise InputError(
                f"{path} is a tokenizer of another form: its first pieces are {first}, and it makes {empty} of "
                f"an empty text; expected {list(SPECIAL_TOKENS)} and {[EOS_ID]}: train one with zhuyi, or take one "
                "over with its model by `zhuyi import`"
            )
        return tokenizer

    def library_values(self) -> dict[str, Any]:
        """What the library's own file of this tokenizer holds."""
        values: dict[str, Any] = json.loads(self._library.to_str())
        return values

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that differ wherever two tokenizers do."""
        return hashlib.sha256(self._json().encode()).hexdigest()[:16]

    def _to_ids(self, encoding: Any) -> list[int]:
        if self._ids is None:
            return encoding.ids
        # Letters that the library does not know come as they are, and the vocabulary may have them.
        return [
            self._own_ids[i] if token == self._own[i] else self._ids.get(token, self.signs.unk)
            for i, token in zip(encoding.ids, encoding.tokens, strict=True)
        ]

    def _json(self) -> str:
        own = {"signs": asdict(self.signs), "pieces": None if self._ids is None else self.pieces}
        values = {"zhuyi": own} if self._imported else {}
        return json.dumps(values | json.loads(self._library.to_str()), ensure_ascii=False, indent=1) + "\n"


def _imported_parts(own: dict[str, Any] | None) -> tuple[Signs | None, list[str] | None]:
    """The signs and pieces of an imported tokenizer's file; neither where it was trained here."""
    if own is None:
        return None, None
    signs = Signs(**{**own["signs"], "others": tuple(own["signs"]["others"])})
    return signs, own["pieces"]


def train_tokenizer(
    texts: Iterable[str], config: TokenizerConfig | None = None, *, max_lines: int = 2_000_000
) -> Tokenizer:
    """Train on normalised texts (verbatim ones as they are); the same texts in any order give the same tokenizer.

    Args:   max_lines: of a longer stream, these many lines are taken, chosen by their hash.
    Raises: InputError: there is no text.
    """
    config = config or TokenizerConfig()
    steps = _pipeline(models.BPE(), config)
    lines = [steps.normalizer.normalize_str(line) for line in _sample(map(_writable, texts), max_lines)]
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(line)
    counts.pop(CUT, None)
    if not counts:
        raise InputError("no text to train a tokenizer on: all lines are empty; check the file and its columns")
    alphabet = _alphabet(counts, config)
    cut = dict.fromkeys(map(ord, (counts.keys() | {CUT}) - set(alphabet)), CUT)
    lines = [line.translate(cut) for line in lines]
    if config.kind == "unigram":
        model = _train_unigram(lines, steps, config)
    elif config.kind == "character":
        vocab = {piece: i for i, piece in enumerate([*SPECIAL_TOKENS, *alphabet])}
        model = models.WordLevel(vocab, unk_token=UNK)
    else:
        model = _train_bpe(lines, steps, config)
    return Tokenizer(_pipeline(model, config), Signs() if config.verbatim else None)


def train_tokenizers(
    source: Iterable[str],
    target: Iterable[str],
    config: TokenizerConfig | None = None,
    *,
    max_lines: int = 2_000_000,
) -> tuple[Tokenizer, Tokenizer]:
    """Train the two sides' tokenizers: one object twice when `config.joint`."""
    config = config or TokenizerConfig()
    if config.joint:
        tokenizer = train_tokenizer(chain(source, target), config, max_lines=max_lines)
        return tokenizer, tokenizer
    return (
        train_tokenizer(source, config, max_lines=max_lines),
        train_tokenizer(target, config, max_lines=max_lines),
    )


def _writable(text: str) -> str:
    """Replace unpaired surrogates, which the library cannot take."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _sample(texts: Iterable[str], max_lines: int) -> list[str]:
    """Keep all lines, or of more than `max_lines` those with the smallest hashes."""
    heap: list[tuple[int, str]] = []
    for text in texts:
        if not text:
            continue
        item = (-int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big"), text)
        if len(heap) < max_lines:
            heapq.heappush(heap, item)
        else:
            heapq.heappushpop(heap, item)
    return [text for _, text in heap]


def _alphabet(counts: Counter[str], config: TokenizerConfig) -> list[str]:
    """Return the characters to keep, the most frequent first; bytes cover them all."""
    ranked = sorted(counts, key=lambda character: (-counts[character], character))
    if config.kind == "byte-bpe":
        return ranked
    room = config.vocab_size - len(SPECIAL_TOKENS)
    ranked = ranked[:room]
    missing = (1 - config.character_coverage) * counts.total()
    least = room if config.kind == "character" else max(1, room // 2)
    while len(ranked) > least and counts[ranked[-1]] <= missing:
        missing -= counts[ranked.pop()]
    return ranked


def _pipeline(model: Any, config: TokenizerConfig) -> tokenizers.Tokenizer:
    """Put the library's steps around a model: characters, stretches, the end sign, and the way back."""
    library = tokenizers.Tokenizer(model)
    lower = [normalizers.Lowercase()] if config.lowercase else []
    # The sign that stands for a space cannot stand for itself too.
    no_sign = normalizers.Replace(SPACE, "_")
    # A first word is the same piece as a later one: it gets the space that the later one has.
    first_space = [normalizers.Prepend(" "), normalizers.Replace(Regex(_NEEDLESS_SPACE), "")]
    drop_first_space = decoders.Strip(" ", 1, 0)
    if config.verbatim:
        library.normalizer = normalizers.Sequence(lower)
        is_bytes = config.kind == "byte-bpe"
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False) if is_bytes else _EACH_CHARACTER
        library.decoder = decoders.ByteLevel() if is_bytes else decoders.Fuse()
    elif config.kind == "byte-bpe":
        library.normalizer = normalizers.Sequence([*lower, *first_space])
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        library.decoder = decoders.Sequence([decoders.ByteLevel(), drop_first_space])
    elif config.kind == "character":
        library.normalizer = normalizers.Sequence([*lower, no_sign, normalizers.Replace(" ", SPACE)])
        library.pre_tokenizer = _EACH_CHARACTER
        library.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.Fuse()])
    else:
        library.normalizer = normalizers.Sequence([*lower, no_sign, *first_space])
        library.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Metaspace(SPACE, prepend_scheme="never"),
                pre_tokenizers.Split(Regex(_STRETCHES), "isolated"),
            ]
        )
        library.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.Fuse(), drop_first_space])
    library.post_processor = processors.TemplateProcessing(single=f"$A {EOS}", special_tokens=[(EOS, EOS_ID)])
    return library


def _train_bpe(lines: list[str], steps: tokenizers.Tokenizer, config: TokenizerConfig) -> Any:
    byte_level = config.kind == "byte-bpe"
    library = tokenizers.Tokenizer(models.BPE())
    cut = pre_tokenizers.Split(CUT, "removed")
    library.pre_tokenizer = pre_tokenizers.Sequence([cut, steps.pre_tokenizer])
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()) if byte_level else [],
        show_progress=False,
    )
    library.train_from_iterator(lines, trainer)
    trained = json.loads(library.to_str())["model"]
    unk = {} if byte_level else {"unk_token": UNK, "fuse_unk": True}
    return models.BPE(trained["vocab"], [tuple(merge) for merge in trained["merges"]], **unk)


def _train_unigram(lines: list[str], steps: tokenizers.Tokenizer, config: TokenizerConfig) -> Any:
    uncut: Counter[str] = Counter()
    for line in lines:
        uncut.update([stretch for stretch, _ in steps.pre_tokenizer.pre_tokenize_str(line)])
    stretches: Counter[str] = Counter()
    for stretch, count in uncut.items():
        for part in filter(None, stretch.split(CUT)):
            stretches[part] += count
    special = [(sign, 0.0) for sign in SPECIAL_TOKENS]
    pieces = train_unigram(stretches, config.vocab_size - len(special))
    return models.Unigram([*special, *pieces], unk_id=UNK_ID, byte_fallback=False)


def _byte_values() -> dict[str, int]:
    """Return the byte that each character of a byte-level piece stands for.

    Source: GPT-2's `bytes_to_unicode`.
    """
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(BYTES) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(BYTES + n): byte for n, byte in enumerate(hidden)}


BYTE_VALUES = _byte_values()


def _byte_label(piece: str) -> str:
    """Show a byte-level piece: its characters where they are whole, else its bytes."""
    if piece in SPECIAL_TOKENS:
        return piece
    if any(character not in BYTE_VALUES for character in piece):  # an imported sign
        return piece
    data = bytes(BYTE_VALUES[character] for character in piece)
    try:
        return data.decode("utf-8").replace(" ", SPACE)
    except UnicodeDecodeError:
        return "".join(f"<{byte:02X}>" for byte in data)
