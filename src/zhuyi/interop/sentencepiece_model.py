"""SentencePiece's model files, read without its library: a unigram's pieces, scores and rules, as a tokenizer."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors

from zhuyi.data.tokenizers import SPACE, Signs, Tokenizer
from zhuyi.errors import InputError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
KINDS = {2: "BPE", 3: "word", 4: "character"}
UNIGRAM = 1
# No text holds this character, so nothing is ever matched by a piece that begins with it.
NEVER = "\0"


@dataclass(frozen=True)
class SentencePieceModel:
    """What a file says of how text is cut.

    Args:   types: of each piece, as `NORMAL` and its like.
            charsmap: the compiled rules by which characters are folded; empty: none.
    """

    pieces: tuple[str, ...]
    scores: tuple[float, ...]
    types: tuple[int, ...]
    charsmap: bytes
    add_space: bool
    trim_spaces: bool


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Read a unigram model.

    Raises: InputError: no such file, not of that form, or a model of a kind that is not read.
    """
    try:
        message = _message(path.read_bytes())
        pieces = [_message(bytes(piece)) for piece in message.get(1, [])]
        trainer = _message(bytes(message.get(2, [b""])[-1]))
        normalizer = _message(bytes(message.get(3, [b""])[-1]))
        names = tuple(bytes(piece[1][-1]).decode("utf-8") for piece in pieces)
        scores = tuple(struct.unpack("<f", bytes(piece.get(2, [bytes(4)])[-1]))[0] for piece in pieces)
        types = tuple(int(piece.get(3, [NORMAL])[-1]) for piece in pieces)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, LookupError, struct.error, TypeError) as error:
        raise InputError(f"{path}: not a SentencePiece model, or damaged ({error}); copy it again") from None
    _refuse_others(path, names, types, trainer, normalizer)
    return SentencePieceModel(
        names,
        scores,
        types,
        charsmap=bytes(normalizer.get(2, [b""])[-1]),
        add_space=bool(normalizer.get(3, [1])[-1]),
        trim_spaces=bool(normalizer.get(4, [1])[-1]),
    )


def unigram_tokenizer(
    model: SentencePieceModel, pieces: Sequence[str], signs: Signs, added: Sequence[str] = ()
) -> Tokenizer:
    """The model as a tokenizer of ours, the end sign behind each text.

    Args:   pieces: of the vocabulary, by id; the empty string where an id has none.
            added: pieces found in a text before all else, such as the code of a language.
    """
    vocab = [
        (piece if kind == NORMAL else f"{NEVER}{i}", score)
        for i, (piece, score, kind) in enumerate(zip(model.pieces, model.scores, model.types, strict=True))
    ]
    library = tokenizers.Tokenizer(models.Unigram(vocab, unk_id=model.types.index(UNKNOWN), byte_fallback=False))
    spaces = [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")] if model.trim_spaces else []
    charsmap = [normalizers.Precompiled(model.charsmap)] if model.charsmap else []
    library.normalizer = normalizers.Sequence([*charsmap, *spaces])
    # Cut at spaces, the library remembers words; but a piece may hold a space, or the unknown reach over one.
    is_cut = SPACE in model.pieces and not any(SPACE in piece[1:] for piece in model.pieces)
    library.pre_tokenizer = pre_tokenizers.Metaspace(
        SPACE, prepend_scheme="always" if model.add_space else "never", split=is_cut
    )
    library.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    end = pieces[signs.eos]
    library.add_special_tokens([end])
    library.add_tokens([tokenizers.AddedToken(piece, normalized=False) for piece in added])
    library.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, library.token_to_id(end))]
    )
    return Tokenizer(library, signs, pieces)


def _refuse_others(
    path: Path,
    names: tuple[str, ...],
    types: tuple[int, ...],
    trainer: dict[int, list[int | bytes]],
    normalizer: dict[int, list[int | bytes]],
) -> None:
    kind = trainer.get(3, [UNIGRAM])[-1]
    reason = ""
    if kind != UNIGRAM:
        reason = f"is a {KINDS.get(int(kind), kind)} model; unigram models are read"
    elif trainer.get(24, [0])[-1]:
        reason = "marks spaces at the ends of words (treat_whitespace_as_suffix), not at their beginnings"
    elif not normalizer.get(5, [1])[-1]:
        reason = "does not mark spaces (escape_whitespaces = false)"
    elif BYTE in types:
        reason = "falls back to bytes (byte_fallback)"
    elif USER_DEFINED in types:
        reason = f"has symbols defined by a user, such as {names[types.index(USER_DEFINED)]}"
    elif types.count(UNKNOWN) != 1:
        reason = f"has {types.count(UNKNOWN)} pieces for the unknown, not one"
    if reason:
        raise InputError(f"{path} {reason}; it cannot be taken over")


def _message(data: bytes) -> dict[int, list[int | bytes]]:
    """The fields of one message of the protocol-buffers form, by number."""
    fields: dict[int, list[int | bytes]] = {}
    for number, value in _fields(data):
        fields.setdefault(number, []).append(value)
    return fields


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        match key & 7:
            case 0:
                value, place = _varint(data, place)
                yield key >> 3, value
                continue
            case 1:
                size = 8
            case 2:
                size, place = _varint(data, place)
            case 5:
                size = 4
            case kind:
                raise ValueError(f"a field of the unknown kind {kind} at byte {place}")
        if place + size > len(data):
            raise ValueError(f"it ends within a field, at byte {len(data)}")
        yield key >> 3, data[place : place + size]
        place += size


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
