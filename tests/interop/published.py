"""Model folders as others publish them, tiny and of random weights."""

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

TEXTS = [
    "the cat sat on the mat .",
    "a dog and a cat",
    "where is the small house ?",
    "she has  two   old dogs, and he: none!",
    "Nothing at all",
    "",
]
WORDS = "the a cat dog sat on mat and where is small house she has two old he none Nothing at all red sun".split()  # noqa: SIM905
LETTERS = "abcdefghijklmnopqrstuvwxyzN.,?!:"


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes | float) -> bytes:
    """One field of the protocol-buffers form."""
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def sentencepiece_bytes(
    pieces: Sequence[tuple[str, float, int]], trainer: bytes = b"", normalizer: bytes = b""
) -> bytes:
    """A SentencePiece model of these pieces, scores and types."""
    written = [field(1, field(1, p.encode()) + field(2, float(s)) + field(3, t)) for p, s, t in pieces]
    return b"".join(written) + field(2, trainer) + field(3, normalizer)


def unigram_pieces(words: Sequence[str] = WORDS, letters: str = LETTERS) -> list[tuple[str, float, int]]:
    """Pieces for short English texts: signs first, then words, their parts and letters."""
    parts = sorted({w[:2] for w in words} | {w[-2:] for w in words})
    plain = [*(f"▁{w}" for w in words), *parts, "▁", *letters]
    plain = list(dict.fromkeys(plain))
    signs = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    return signs + [(p, -2.0 - 0.03125 * i - (4 if len(p) == 1 else 0), 1) for i, p in enumerate(plain)]


def write_marian_tokenizer(folder: Path, *, separate: bool = False) -> tuple[int, int]:
    """source.spm, target.spm and the vocabularies; returns their sizes."""
    pieces = unigram_pieces()
    others = [p for p in pieces if p[2] != 1] + [(p[::-1] if p[0] != "▁" else p, s, t) for p, s, t in pieces if t == 1]
    (folder / "source.spm").write_bytes(sentencepiece_bytes(pieces))
    (folder / "target.spm").write_bytes(sentencepiece_bytes(list(dict((p[0], p) for p in others).values())))
    source = [p for p, _, t in pieces if t == 1 and p != "▁sun"]  # one piece that the vocabulary lacks
    target = [p for p, _, t in others if t == 1]
    joint = list(dict.fromkeys(["</s>", "<unk>", ">>de<<", *reversed(source), *target, "<pad>"]))
    own = [list(dict.fromkeys(["</s>", "<unk>", "<pad>", *side])) for side in (source, [*target, "ß"])]
    lists = own if separate else [joint, joint]
    for name, pieces_of in zip(("vocab.json", "target_vocab.json"), lists, strict=True):
        (folder / name).write_text(json.dumps({p: i for i, p in enumerate(pieces_of)}), encoding="utf-8")
    if not separate:
        (folder / "target_vocab.json").unlink()
    told = {"source_lang": "en", "target_lang": "de", "separate_vocabs": separate, "tokenizer_class": "MarianTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(told), encoding="utf-8")
    return len(lists[0]), len(lists[1])


# Random weights by which some texts end early and some late, and different ones of different sources.
TALKATIVE: dict[str, Any] = {
    "gain": 0.7, "end_bias": 6.0, "scales": {"embed_tokens": 3.0, "lm_head": 2.2}, "decoder_layers": 2,
    "share_encoder_decoder_embeddings": False, "tie_word_embeddings": False,
}  # fmt: skip


def marian_folder(
    folder: Path, *, gain: float = 1.0, end_bias: float = 0.0, scales: dict[str, float] | None = None, **options: Any
) -> Any:
    """A Marian of random weights in a folder as published; returns transformers' model."""
    transformers = pytest.importorskip("transformers", reason="needs the extra peers")
    transformers.utils.logging.disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    separate = not options.get("share_encoder_decoder_embeddings", True)
    source, target = write_marian_tokenizer(folder, separate=separate)
    values: dict[str, Any] = {
        "d_model": 28, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 37, "decoder_ffn_dim": 37, "max_position_embeddings": 61,
        "activation_function": "swish", "scale_embedding": True, "num_beams": 4,
    }  # fmt: skip
    values |= {"vocab_size": source, "decoder_vocab_size": target, "pad_token_id": 2 if separate else target - 1}
    values |= {"decoder_start_token_id": values["pad_token_id"], "eos_token_id": 0}
    values |= {"bad_words_ids": [[values["pad_token_id"]]], **options}
    generation = {key: values.pop(key) for key in ("num_beams", "bad_words_ids")}
    torch.manual_seed(3)
    model = transformers.MarianMTModel(transformers.MarianConfig(**values)).eval()
    randomize(model, gain, scales or {})
    with torch.no_grad():
        model.final_logits_bias.normal_()
        model.final_logits_bias[0, 0] += end_bias
    for key, value in generation.items():
        setattr(model.generation_config, key, value)
    model.save_pretrained(folder)
    return model


def randomize(model: torch.nn.Module, gain: float, scales: dict[str, float]) -> None:
    """Every parameter at random, those too that begin as zeros or ones; `scales` by a part of their names."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_positions" in name:
                continue
            scale = 0.3 if parameter.dim() == 1 else gain * parameter.shape[-1] ** -0.5
            for part, factor in scales.items():
                scale *= factor if part in name else 1
            is_gain = parameter.dim() == 1 and name.endswith("weight")
            parameter.copy_(torch.randn_like(parameter) * scale + is_gain)


def gpt2_folder(folder: Path, *, gain: float = 1.0, scales: dict[str, float] | None = None, **options: Any) -> Any:
    """A GPT-2 of random weights in a folder as published; returns transformers' model."""
    transformers = pytest.importorskip("transformers", reason="needs the extra peers")
    transformers.utils.logging.disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    size = write_byte_level(folder)
    values: dict[str, Any] = {
        "vocab_size": size, "n_embd": 28, "n_layer": 2, "n_head": 2, "n_positions": 61, "bos_token_id": size - 1,
        "eos_token_id": size - 1,
    }  # fmt: skip
    torch.manual_seed(3)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**(values | options))).eval()
    randomize(model, gain, scales or {})
    model.save_pretrained(folder)
    return model


def write_byte_level(folder: Path) -> int:
    """vocab.json and merges.txt of a small byte-level BPE; returns the size, the end sign last."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator([*TEXTS, " ".join(WORDS)] * 3, trainer)
    model = json.loads(library.to_str())["model"]
    vocab = model["vocab"] | {"<|endoftext|>": len(model["vocab"])}
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    merges = [" ".join(merge) for merge in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    told = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False, "model_max_length": 61}
    (folder / "tokenizer_config.json").write_text(json.dumps(told), encoding="utf-8")
    return len(vocab)


def bert_folder(folder: Path, architecture: str, *, gain: float = 1.0, **options: Any) -> Any:
    """A BERT or DistilBERT of random weights in a folder as published; returns transformers' model."""
    transformers = pytest.importorskip("transformers", reason="needs the extra peers")
    transformers.utils.logging.disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    distil = architecture.startswith("DistilBert")
    size = write_wordpiece(folder, "DistilBertTokenizer" if distil else "BertTokenizer")
    values: dict[str, Any] = {
        "vocab_size": size, "hidden_size": 28, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 37, "max_position_embeddings": 61,
    }  # fmt: skip
    if distil:
        names = {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads"}
        names |= {"intermediate_size": "hidden_dim"}
        values = {names.get(key, key): value for key, value in values.items()}
    config = (transformers.DistilBertConfig if distil else transformers.BertConfig)(**(values | options))
    torch.manual_seed(3)
    model = getattr(transformers, architecture)(config).eval()
    randomize(model, gain, {})
    model.save_pretrained(folder)
    return model


def write_wordpiece(folder: Path, name: str, **told: Any) -> int:
    """vocab.txt with BERT's signs where BERT has them, not first."""
    letters = [*LETTERS.lower(), *"éà香港01"]
    words = [w.lower() for w in WORDS]
    pieces = ["[PAD]", *letters, "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *(f"##{c}" for c in letters), "##ing"]
    pieces = list(dict.fromkeys(pieces))
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    values = {"tokenizer_class": name, "do_lower_case": True, "model_max_length": 61} | told
    (folder / "tokenizer_config.json").write_text(json.dumps(values), encoding="utf-8")
    return len(pieces)


def t5_folder(
    folder: Path,
    *,
    gain: float = 1.0,
    scales: dict[str, float] | None = None,
    form: str = "spiece.model",
    **options: Any,
) -> Any:
    """A T5 of random weights in a folder as published; returns transformers' model."""
    transformers = pytest.importorskip("transformers", reason="needs the extra peers")
    transformers.utils.logging.disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    signs = [("<pad>", 0.0, 3), ("</s>", 0.0, 3), ("<unk>", 0.0, 2)]
    pieces = signs + [p for p in unigram_pieces() if p[2] == 1]
    (folder / "spiece.model").write_bytes(sentencepiece_bytes(pieces))
    told = {"tokenizer_class": "T5Tokenizer", "extra_ids": 7, "model_max_length": 61}
    (folder / "tokenizer_config.json").write_text(json.dumps(told), encoding="utf-8")
    values: dict[str, Any] = {
        "vocab_size": len(pieces) + 7 + 4, "d_model": 28, "d_kv": 11, "d_ff": 37, "num_layers": 2,
        "num_decoder_layers": 3, "num_heads": 3, "decoder_start_token_id": 0, "relative_attention_num_buckets": 10,
        "relative_attention_max_distance": 17,
    }  # fmt: skip
    torch.manual_seed(3)
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**(values | options))).eval()
    randomize(model, gain, scales or {})
    model.save_pretrained(folder)
    if form == "tokenizer.json":
        transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
        (folder / "spiece.model").unlink()
    return model


def whisper_folder(
    folder: Path, *, languages: Sequence[str] = ("en", "de", "yue"), talkative: bool = False, **options: Any
) -> Any:
    """A Whisper of random weights in a folder as published, features' config included; returns transformers' model.

    Args:   languages: of a multilingual model; none: it has no sign for one.
            talkative: writes different texts of different sounds.
    """
    transformers = pytest.importorskip("transformers", reason="needs the extra peers")
    transformers.utils.logging.disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    text = write_byte_level(folder) - 1
    signs = whisper_signs(languages)
    written = {name: text + i for i, name in enumerate(signs[: signs.index("<|0.00|>")])}
    (folder / "added_tokens.json").write_text(json.dumps(written), encoding="utf-8")
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    (folder / "vocab.json").write_text(json.dumps({p: i for p, i in vocab.items() if i < text}), encoding="utf-8")
    ids = {name: text + i for i, name in enumerate(signs)}
    values: dict[str, Any] = {
        "vocab_size": text + len(signs), "d_model": 28, "encoder_layers": 2, "decoder_layers": 3,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 37, "decoder_ffn_dim": 37,
        "max_source_positions": 100, "max_target_positions": 61, "decoder_start_token_id": ids["<|startoftranscript|>"],
        "begin_suppress_tokens": None,
    }  # fmt: skip
    values |= dict.fromkeys(("eos_token_id", "pad_token_id", "bos_token_id"), ids["<|endoftext|>"])
    torch.manual_seed(3)
    model = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**(values | options))).eval()
    randomize(model, 1.0, {"embed_tokens": 2.0, "encoder_attn.": 3.0, "conv": 3.0} if talkative else {})
    if talkative:
        torch.nn.init.normal_(model.model.decoder.embed_positions.weight, std=2.0)
    generation = model.generation_config
    generation.is_multilingual = bool(languages)
    generation.no_timestamps_token_id = ids["<|notimestamps|>"]
    generation.max_initial_timestamp_index = 25
    generation.suppress_tokens = [5, 7, *(i for name, i in ids.items() if name != "<|endoftext|>" and "." not in name)]
    generation.begin_suppress_tokens = [9, ids["<|endoftext|>"]]
    generation.return_timestamps = False
    if languages:
        generation.lang_to_id = {f"<|{code}|>": ids[f"<|{code}|>"] for code in languages}
        generation.task_to_id = {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")}
    model.save_pretrained(folder)
    extractor = transformers.WhisperFeatureExtractor(feature_size=model.config.num_mel_bins, chunk_length=2)
    if model.config.max_source_positions == 100:
        extractor.save_pretrained(folder)
    return model


def whisper_signs(languages: Sequence[str]) -> list[str]:
    """The signs of a vocabulary in their order, with times up to two seconds."""
    before, after = ["<|endoftext|>", "<|startoftranscript|>"], ["<|translate|>", "<|transcribe|>", "<|startoflm|>"]
    after += ["<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    return [*before, *(f"<|{code}|>" for code in languages), *after, *(f"<|{0.02 * i:.2f}|>" for i in range(101))]
