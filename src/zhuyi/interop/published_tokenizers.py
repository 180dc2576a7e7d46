"""The tokenizers of published folders: byte-level BPE, WordPiece and unigram, from either form of their files."""

import base64
import json
import re
from collections.abc import Collection, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from zhuyi.data.speech_signs import AFTER_LANGUAGES, BEFORE_LANGUAGES, NO_TIMES, NUM_TIMES, SECONDS_A_STEP
from zhuyi.data.tokenizers import BYTE_VALUES, Signs, Tokenizer
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
FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "vocab.txt"),
)
SPEECH_FILES = (*FILES, "added_tokens.json", "normalizer.json", "preprocessor_config.json", "generation_config.json")
SIGN = re.compile(r"<\|.*\|>")
MULTILINGUAL_VOCABULARY = 51865  # and more; the authors' code tells the kinds apart by this
# The languages of the authors' multilingual models in the order of their signs; the last is of large-v3 alone.
LANGUAGES = (  # noqa: SIM905
    "en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la mi ml "
    "cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd gu am "
    "yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su yue"
).split()
BERT_SIGNS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]")
# What tokenizer_config.json says of BERT's normaliser, and what tokenizer.json calls it.
BERT_NORMALIZER = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
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
    if (folder.path / "tokenizer.json").exists() or not (folder.path / "vocab.json").exists():
        library = _library(folder, {eos_id})
        _expect(folder, library, "BPE", "ByteLevel")
        _check_agree(folder, values, _step(library, "pre_tokenizer"), {"add_prefix_space": "add_prefix_space"})
    else:
        vocab = folder.json("vocab.json")
        lines = (folder.path / "merges.txt").read_text(encoding="utf-8").split("\n")
        merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
        library = tokenizers.Tokenizer(models.BPE(vocab, merges))  # type: ignore[arg-type]
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(values.get("add_prefix_space")))
        _add_tokens(folder, values, library, {eos_id})
    library.decoder = decoders.ByteLevel()
    return _finished(folder, library, Signs(eos_id, eos_id, eos_id, eos_id), vocab_size)


def speech_tokenizer(path: Path, vocab_size: int, start_id: int, eos_id: int) -> Tokenizer:
    """Whisper's: byte-level pieces, and behind them signs, of which texts hold none.

    Args:   path: a folder with the files of Hugging Face, or with OpenAI's `.tiktoken`.
    """
    vocab, merges, signs = _speech_vocabulary(path, vocab_size)
    if max(start_id, eos_id, *signs.values()) >= vocab_size or len({*vocab.values(), *signs.values()}) > vocab_size:
        raise InputError(f"{path}: the tokenizer has more ids than the model's {vocab_size:,}; they are of two models")
    pieces = [""] * vocab_size
    for piece, i in {**vocab, **signs}.items():
        pieces[i] = piece
    if NO_TIMES in signs:  # many files leave out the times, whose ids follow
        for i, place in enumerate(range(signs[NO_TIMES] + 1, min(vocab_size, signs[NO_TIMES] + 1 + NUM_TIMES))):
            pieces[place] = f"<|{i * SECONDS_A_STEP:.2f}|>"
    for i, role in ((start_id, "start"), (eos_id, "end")):
        if not pieces[i]:
            raise InputError(f"{path}: the tokenizer has no token {i}, which the config says is the {role} of a text")
    library = tokenizers.Tokenizer(models.BPE(vocab, merges))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    end = pieces[eos_id]
    library.add_special_tokens([end])
    library.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, library.token_to_id(end))]
    )
    others = tuple(i for i, piece in enumerate(pieces) if piece not in vocab and i not in (start_id, eos_id))
    return Tokenizer(library, Signs(eos_id, start_id, eos_id, eos_id, others), pieces)


def _speech_vocabulary(path: Path, vocab_size: int) -> tuple[dict[str, int], list[tuple[str, str]], dict[str, int]]:
    """Pieces of text, their merges, and the signs, each with its id."""
    folder = path
    tiktoken = sorted(folder.glob("*.tiktoken"))
    if (folder / "tokenizer.json").exists():
        values = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        if values["model"].get("type", "BPE") != "BPE":
            raise InputError(
                f"{folder / 'tokenizer.json'}: a tokenizer of {values['model']['type']}; a Whisper has BPE"
            )
        vocab, merges = values["model"]["vocab"], values["model"]["merges"]
        merges = [tuple(each.split(" ") if isinstance(each, str) else each) for each in merges]
        signs = {token["content"]: token["id"] for token in values.get("added_tokens", [])}
    elif (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
        merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
        added = folder / "added_tokens.json"
        signs = json.loads(added.read_text(encoding="utf-8")) if added.exists() else {}
    elif tiktoken:
        vocab, merges = _read_tiktoken(_chosen_ranks(tiktoken, vocab_size))
        count = vocab_size - len(vocab) - len(BEFORE_LANGUAGES) - len(AFTER_LANGUAGES) - NUM_TIMES
        if not 0 <= count <= len(LANGUAGES):
            raise InputError(f"{tiktoken[0]}: {len(vocab):,} pieces do not fit a Whisper of {vocab_size:,} ids")
        names = [*BEFORE_LANGUAGES, *(f"<|{code}|>" for code in LANGUAGES[:count]), *AFTER_LANGUAGES]
        signs = {name: len(vocab) + i for i, name in enumerate(names)}
    else:
        raise InputError(
            f"{path}: no tokenizer here: neither tokenizer.json, nor vocab.json with merges.txt, nor OpenAI's "
            "multilingual.tiktoken or gpt2.tiktoken; put it beside the model"
        )
    signs |= {piece: i for piece, i in vocab.items() if SIGN.fullmatch(piece)}
    return {piece: i for piece, i in vocab.items() if piece not in signs}, merges, signs


def _chosen_ranks(files: list[Path], vocab_size: int) -> Path:
    """Of the authors' two files the one for this vocabulary: English alone, or many languages."""
    wanted = "gpt2" if vocab_size < MULTILINGUAL_VOCABULARY else "multilingual"
    return next((file for file in files if file.stem == wanted), files[0])


def _read_tiktoken(path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Pieces by the bytes they stand for, and the merges that make each from two of lower rank."""
    try:
        rows = [line.split() for line in path.read_bytes().splitlines() if line]
        ranks = {base64.b64decode(piece): int(rank) for piece, rank in rows}
    except ValueError as error:
        raise InputError(f"{path}: not a list of pieces in base64 and their ranks ({error})") from None
    merges = []
    for piece, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(piece) > 1:
            merges.append(_parts_of(piece, rank, ranks))
    shown = {value: character for character, value in BYTE_VALUES.items()}

    def text(piece: bytes) -> str:
        return "".join(shown[byte] for byte in piece)

    return {text(piece): rank for piece, rank in ranks.items()}, [(text(a), text(b)) for a, b in merges]


def _parts_of(piece: bytes, rank: int, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """The two pieces that the last merge joins: what merging by lower ranks alone leaves."""
    parts = [bytes([byte]) for byte in piece]
    while len(parts) > 2:
        found = [(ranks.get(a + b, rank), i) for i, (a, b) in enumerate(pairwise(parts))]
        lowest, i = min(found)
        if lowest >= rank:
            break
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    if len(parts) != 2:
        raise InputError(
            f"the piece {piece!r} of rank {rank} is not made of two pieces of lower rank; the file is broken"
        )
    return parts[0], parts[1]


def wordpiece_tokenizer(folder: PublishedFolder, vocab_size: int) -> Tokenizer:
    """BERT's, with its five signs by their names in the vocabulary."""
    values = told(folder, folder.config["model_type"])
    path = folder.path / "vocab.txt"
    if (folder.path / "tokenizer.json").exists():
        library = _library(folder, BERT_SIGNS)
        _expect(folder, library, "WordPiece", "BertPreTokenizer")
        _check_agree(folder, values, _step(library, "normalizer"), BERT_NORMALIZER)
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
        _add_tokens(folder, values, library, BERT_SIGNS)
    else:
        raise InputError(f"{folder.path}: neither tokenizer.json nor vocab.txt here")
    ids = {name: library.token_to_id(name) for name in BERT_SIGNS}
    for name, i in ids.items():
        if i is None and name != "[MASK]":
            raise InputError(f"{folder.path}: the vocabulary has no {name}")
    signs = Signs(ids["[PAD]"], ids["[CLS]"], ids["[SEP]"], ids["[UNK]"], mask=ids["[MASK]"])
    return _finished(folder, library, signs, vocab_size)


def t5_tokenizer(
    folder: PublishedFolder, pad_id: int, start_id: int, eos_id: int, vocab_size: int
) -> tuple[Tokenizer, int]:
    """T5's, and how many signs for spans stand behind its pieces; without any, pieces fill the model's vocabulary."""
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
    filling = () if extra else ("",) * (vocab_size - len(model.pieces))
    return unigram_tokenizer(model, (*model.pieces, *filling), signs), extra


def _library(folder: PublishedFolder, signs: Collection[str | int]) -> Any:
    """The library's tokenizer, for which only these signs, by name or id, are no text."""
    path = folder.path / "tokenizer.json"
    if not path.exists():
        raise InputError(f"{folder.path}: no tokenizer.json here, nor the files that it is made from")
    values = folder.json("tokenizer.json")
    try:
        for token in values.get("added_tokens", []):
            token["special"] = token["content"] in signs or token["id"] in signs
        library = tokenizers.Tokenizer.from_str(json.dumps(values))
    except Exception as error:  # the library raises no narrower class
        raise InputError(f"{path}: not a tokenizer of the tokenizers library: {error}") from None
    library.no_truncation()
    library.no_padding()
    return library


def _add_tokens(folder: PublishedFolder, told: Mapping[str, Any], library: Any, signs: Collection[str | int]) -> None:
    """Add what was added to a vocabulary behind its pieces, in files of its own; each stays one id.

    Raises: InputError: one has another id than it is said to have.
    """
    added: dict[int, Mapping[str, Any]] = {i: {"content": name} for name, i in folder.json("added_tokens.json").items()}
    added |= {int(i): token for i, token in (told.get("added_tokens_decoder") or {}).items()}
    for i, token in sorted(added.items()):
        name = str(token["content"])
        if name in signs or i in signs:
            continue
        flags = {key: bool(token.get(key)) for key in ("single_word", "lstrip", "rstrip", "normalized")}
        library.add_tokens([tokenizers.AddedToken(name, **flags)])
        if library.token_to_id(name) != i:
            raise InputError(
                f"{folder.path}: the added token {name} is said to have the id {i}, but behind the vocabulary it gets "
                f"{library.token_to_id(name)}; the tokenizer cannot be imported"
            )


def _step(library: Any, name: str) -> dict[str, Any]:
    return json.loads(library.to_str())[name] or {}


def _check_agree(
    folder: PublishedFolder, told: Mapping[str, Any], found: Mapping[str, Any], names: Mapping[str, str]
) -> None:
    """Raise InputError where tokenizer_config.json contradicts tokenizer.json; `names` are those of the latter."""
    for key, name in names.items():
        if told.get(key) is not None and told[key] != found.get(name, told[key]):
            raise InputError(
                f"{folder.path}: tokenizer_config.json says {key} = {json.dumps(told[key])}, but tokenizer.json has "
                f"{name} = {json.dumps(found[name])}; make them agree"
            )


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
