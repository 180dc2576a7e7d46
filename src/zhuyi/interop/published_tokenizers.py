"""The tokenizers of published folders: byte-level BPE, WordPiece and unigram, from either form of their files."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from zhuyi.data.tokenizers import Signs, Tokenizer
from zhuyi.errors import InputError
from zhuyi.interop.published_folder import Keys, PublishedFolder
from zhuyi.interop.sentencepiece_model import (
    CONTROL,
    NORMAL,
    UNKNOWN,
    SentencePieceModel,
    read_sentencepiece,
    unigram_tokenizer,
)

# Which token serves as what is found by its id, and texts are cut by the model's own length.
IRRELEVANT = (
    "unk_token eos_token pad_token bos_token cls_token sep_token mask_token special_tokens_map_file tokenizer_file "
    "is_local backend clean_up_tokenization_spaces added_tokens_decoder additional_special_tokens sp_model_kwargs "
    "extra_special_tokens processor_class local_files_only full_tokenizer_file init_inputs errors legacy use_fast "
    "model_input_names add_eos_token max_length padding_side truncation_side stride truncation_strategy "
    "pad_to_multiple_of pad_token_type_id padding max_len do_basic_tokenize"
)
KEYS = {
    "gpt2": Keys("add_prefix_space", IRRELEVANT, {"add_bos_token": (False,)}),
    "bert": Keys("do_lower_case strip_accents tokenize_chinese_chars", IRRELEVANT, {"never_split": (None, [])}),
    "t5": Keys("extra_ids", IRRELEVANT, {"add_prefix_space": (True, None)}),
}
KEYS["distilbert"] = KEYS["bert"]
FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt", "vocab.txt")
T5_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "spiece.model")


def told(folder: PublishedFolder, family: str) -> dict[str, Any]:
    """What tokenizer_config.json says.

    Raises: InputError: something that we cannot do.
    """
    values = folder.json("tokenizer_config.json")
    KEYS[family].check(values, folder.path / "tokenizer_config.json")
    return values


def byte_level_tokenizer(folder: PublishedFolder, eos_id: int, vocab_size: int) -> Tokenizer:
    """GPT-2's, of which every id but one stands for bytes; that one, eos_id, ends a text."""
    values = told(folder, "gpt2")
    if (folder.path / "vocab.json").exists() and (folder.path / "merges.txt").exists():
        vocab = folder.json("vocab.json")
        lines = (folder.path / "merges.txt").read_text(encoding="utf-8").split("\n")
        merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
        library = tokenizers.Tokenizer(models.BPE(vocab, merges))  # type: ignore[arg-type]
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(values.get("add_prefix_space")))
    else:
        library = _library(folder)
        _expect(folder, library, "BPE", "ByteLevel")
    library.decoder = decoders.ByteLevel()
    return _finished(folder, library, Signs(eos_id, eos_id, eos_id, eos_id), vocab_size)


def wordpiece_tokenizer(folder: PublishedFolder, vocab_size: int) -> Tokenizer:
    """BERT's, with its five signs by their names in the vocabulary."""
    values = told(folder, folder.config["model_type"])
    path = folder.path / "vocab.txt"
    if (folder.path / "tokenizer.json").exists():
        library = _library(folder)
        _expect(folder, library, "WordPiece", "BertPreTokenizer")
    elif path.exists():
        pieces = path.read_text(encoding="utf-8").splitlines()
        library = tokenizers.Tokenizer(
            models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]")
        )
        library.normalizer = normalizers.BertNormalizer(
            handle_chinese_chars=values.get("tokenize_chinese_chars", True),
            strip_accents=values.get("strip_accents"),
            lowercase=values.get("do_lower_case", True),
        )
        library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        library.decoder = decoders.WordPiece()
    else:
        raise InputError(f"{folder.path}: neither tokenizer.json nor vocab.txt here")
    ids = {name: library.token_to_id(name) for name in ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")}
    for name, i in ids.items():
        if i is None and name != "[MASK]":
            raise InputError(f"{folder.path}: the vocabulary has no {name}")
    signs = Signs(ids["[PAD]"], ids["[CLS]"], ids["[SEP]"], ids["[UNK]"], mask=ids["[MASK]"])
    return _finished(folder, library, signs, vocab_size)


def t5_tokenizer(folder: PublishedFolder, pad_id: int, start_id: int, eos_id: int) -> tuple[Tokenizer, int]:
    """T5's, and how many signs for spans stand behind its pieces."""
    values = told(folder, "t5")
    path = folder.path / "spiece.model"
    if path.exists():
        model = read_sentencepiece(path)
        extra = int(values.get("extra_ids", 100))
    else:
        model, extra = _unigram_of_json(folder)
    ids = {pad_id, start_id, eos_id}
    if max(ids) >= len(model.pieces):
        raise InputError(f"{folder.config_path}: the id {max(ids)} of a sign is not among {len(model.pieces):,} pieces")
    signs = Signs(pad_id, start_id, eos_id, model.types.index(UNKNOWN))
    return unigram_tokenizer(model, model.pieces, signs), extra


def _library(folder: PublishedFolder) -> Any:
    path = folder.path / "tokenizer.json"
    if not path.exists():
        raise InputError(f"{folder.path}: no tokenizer.json here, nor the files that it is made from")
    try:
        library = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no narrower class
        raise InputError(f"{path}: not a tokenizer of the tokenizers library: {error}") from None
    library.no_truncation()
    library.no_padding()
    return library


def _expect(folder: PublishedFolder, library: Any, model: str, pre_tokenizer: str) -> None:
    values = json.loads(library.to_str())
    found = [values["model"].get("type"), (values["pre_tokenizer"] or {}).get("type")]
    if found != [model, pre_tokenizer]:
        raise InputError(
            f"{folder.path / 'tokenizer.json'}: a tokenizer of {found[0]} after {found[1]}, but a model of this "
            f"kind has {model} after {pre_tokenizer}; it cannot be imported"
        )


def _finished(folder: PublishedFolder, library: Any, signs: Signs, vocab_size: int) -> Tokenizer:
    """With the end sign behind each text, and with as many ids as the model."""
    end = library.id_to_token(signs.eos)
    if end is None:
        raise InputError(f"{folder.path}: the tokenizer has no token {signs.eos}, which the config says ends a text")
    library.add_special_tokens([end])
    library.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, signs.eos)])
    size = library.get_vocab_size()
    if size > vocab_size:
        raise InputError(f"{folder.path}: the tokenizer has {size:,} ids, but the model {vocab_size:,}")
    pieces = [library.id_to_token(i) or "" for i in range(vocab_size)] if size < vocab_size else None
    return Tokenizer(library, signs, pieces)


def _unigram_of_json(folder: PublishedFolder) -> tuple[SentencePieceModel, int]:
    """A SentencePiece model as the tokenizers library writes it."""
    path = folder.path / "tokenizer.json"
    values = folder.json("tokenizer.json")
    model = values.get("model", {})
    # Older files say no type, and then it is one that has its unknown piece's id.
    if model.get("type", "Unigram") != "Unigram" or "unk_id" not in model or model.get("byte_fallback"):
        raise InputError(f"{path}: not a unigram tokenizer; a T5 has one")
    charsmap = _charsmap(path, values.get("normalizer"))
    _check_spaces(path, values.get("pre_tokenizer"))
    signs = {token["content"] for token in values.get("added_tokens", []) if token.get("special")}
    vocab = list(model["vocab"])
    extra = 0
    while vocab and vocab[-1][0].startswith("<extra_id_"):
        vocab.pop()
        extra += 1
    extra = extra or sum(sign.startswith("<extra_id_") for sign in signs)
    types = [UNKNOWN if i == model["unk_id"] else CONTROL if p in signs else NORMAL for i, (p, _) in enumerate(vocab)]
    names, scores = tuple(piece for piece, _ in vocab), tuple(float(score) for _, score in vocab)
    return SentencePieceModel(names, scores, tuple(types), charsmap, add_space=True, trim_spaces=True), extra


def _steps(step: Mapping[str, Any] | None, inner: str) -> list[Mapping[str, Any]]:
    if step is None:
        return []
    return list(step[inner]) if step["type"] == "Sequence" else [step]


def _charsmap(path: Path, normalizer: Mapping[str, Any] | None) -> bytes:
    found = b""
    for step in _steps(normalizer, "normalizers"):
        if step["type"] == "Precompiled":
            found = base64.b64decode(step["precompiled_charsmap"])
        elif step["type"] not in ("Strip", "Replace"):  # of spaces, as SentencePiece trims them
            raise InputError(f"{path}: the normalizer {step['type']} is not SentencePiece's; it cannot be imported")
    return found


def _check_spaces(path: Path, pre_tokenizer: Mapping[str, Any] | None) -> None:
    kinds = [step["type"] for step in _steps(pre_tokenizer, "pretokenizers")]
    if kinds not in (["Metaspace"], ["WhitespaceSplit", "Metaspace"]):
        raise InputError(
            f"{path}: the pre-tokenizer {' and '.join(kinds)} is not SentencePiece's; it cannot be imported"
        )
