"""The Transformer and Hugging Face's Marian (or Pegasus): one description of names, order and config, used both ways.

Marian is the Transformer with the norm after each sublayer, and Pegasus the same with the norm before it; both scale
embeddings and have fixed positions, and their weights have the same names.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from zhuyi.data.tokenizers import Signs, Tokenizer
from zhuyi.errors import InputError
from zhuyi.interop.published_folder import GENERATION, Imported, Keys, PublishedFolder, decode_values, length_notes
from zhuyi.interop.sentencepiece_model import read_sentencepiece, unigram_tokenizer
from zhuyi.models.published import parts, refuse_rest, take
from zhuyi.models.transformer import TransformerConfig
from zhuyi.nn.positions import sinusoidal

# Which dimension of a weight runs along the hidden state, by the end of its name; -1: none.
HIDDEN_DIMENSION = {
    "embedding.weight": 1,
    "output_projection.weight": 1,
    "w_qkv.weight": 1,
    "w_q.weight": 1,
    "w_kv.weight": 1,
    "w_1.weight": 1,
    "w_o.weight": 0,
    "w_o.bias": 0,
    "w_2.weight": 0,
    "w_2.bias": 0,
    "norm.weight": 0,
    "norm.bias": 0,
    "output_projection.bias": -1,
    "w_qkv.bias": -1,
    "w_q.bias": -1,
    "w_kv.bias": -1,
    "w_1.bias": -1,
}
ATTENTION = {"self_attention": "self_attn", "cross_attention": "encoder_attn"}
PROJECTIONS = {
    "w_qkv": ("q_proj", "k_proj", "v_proj"),
    "w_q": ("q_proj",),
    "w_kv": ("k_proj", "v_proj"),
    "w_o": ("out_proj",),
}
NORMS = {
    "self_residual": "self_attn_layer_norm",
    "cross_residual": "encoder_attn_layer_norm",
    "feed_forward_residual": "final_layer_norm",
}
FEED_FORWARD = {"w_1": "fc1", "w_2": "fc2"}
TABLES = {
    "shared": "model.shared.weight",
    "source": "model.encoder.embed_tokens.weight",
    "target": "model.decoder.embed_tokens.weight",
    "output": "lm_head.weight",
}
# Where a table is one for several, a checkpoint may have it under any of their names, or under all.
TIED: dict[str, dict[str, tuple[str, ...]]] = {
    "three-way": {"shared": ("source", "target", "output")},
    "decoder": {"source": (), "target": ("output",)},
    "none": {"source": (), "target": (), "output": ()},
}
ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "gelu_new": "gelu-tanh", "swish": "silu", "silu": "silu"}


def hidden_order(d_model: int) -> Tensor:
    """Our hidden dimensions in their order.

    Their sinusoidal table has all sines before all cosines where the paper's alternates them. The hidden dimensions
    have no order of their own, so they are put into the order in which our table becomes theirs.
    """
    return torch.cat([torch.arange(0, d_model, 2), torch.arange(1, d_model, 2)])


def to_published(
    config: TransformerConfig, weights: Mapping[str, Tensor], positions: tuple[Tensor, Tensor]
) -> dict[str, Tensor]:
    """Our weights under their names; `positions` are the source's and the target's tables."""
    order = hidden_order(config.d_model)
    found = {"final_logits_bias": torch.zeros(1, config.target_vocab_size)}
    if config.norm_first:  # Pegasus stores its tables; Marian makes them anew and would not save others
        for stack, table in zip(("encoder", "decoder"), positions, strict=True):
            found[f"model.{stack}.embed_positions.weight"] = table[:, order]
    for name, weight in weights.items():
        if name.endswith("_positions.table"):
            continue
        found |= parts(_reordered(name, weight, order), published_names(name, config))
    found["final_logits_bias"] = found["final_logits_bias"].view(1, -1)
    return found


def from_published(
    config: TransformerConfig, weights: Mapping[str, Tensor], wanted: Iterable[str], origin: object
) -> dict[str, Tensor]:
    """A Marian's weights under our names.

    Args:   wanted: our names of all weights of the model that they are for.
    Raises: ValueError: one is not in the checkpoint, or the checkpoint has one that the model lacks.
            InputError: its positions or its tied tables are not as Marian has them.
    """
    left = dict(weights)
    _check_positions(config, left, origin)
    _merge_tied(config, left, origin)
    order = torch.argsort(hidden_order(config.d_model))
    found = {}
    for name in wanted:
        rows = take(left, published_names(name, config), name)
        found[name] = rows.flatten() if name == "output_projection.bias" else _reordered(name, rows, order)
    refuse_rest(left)
    return found


def published_names(name: str, config: TransformerConfig) -> tuple[str, ...]:
    """Their name of one of our weights; of several, each names a part of its rows."""
    shared = config.tie_embeddings == "three-way"
    outside = {
        "source_embedding.weight": TABLES["shared" if shared else "source"],
        "target_embedding.weight": TABLES["target"],
        "output_projection.weight": TABLES["output"],
        "output_projection.bias": "final_logits_bias",
    }
    if name in outside:
        return (outside[name],)
    stack, *inside, kind = name.split(".")  # encoder_layers.0.self_attention.w_qkv.weight, decoder_norm.bias
    if not inside:
        return (f"model.{stack.removesuffix('_norm')}.layer_norm.{kind}",)
    layer, sublayer, module = inside
    prefix = f"model.{stack.removesuffix('_layers')}.layers.{layer}"
    if sublayer in NORMS:
        return (f"{prefix}.{NORMS[sublayer]}.{kind}",)
    if sublayer == "feed_forward":
        return (f"{prefix}.{FEED_FORWARD[module]}.{kind}",)
    return tuple(f"{prefix}.{ATTENTION[sublayer]}.{projection}.{kind}" for projection in PROJECTIONS[module])


def _reordered(name: str, weight: Tensor, order: Tensor) -> Tensor:
    (dimension,) = (d for end, d in HIDDEN_DIMENSION.items() if name.endswith(end))
    if dimension >= 0 and weight.shape[dimension] != len(order):
        raise ValueError(f"{name} is of shape {tuple(weight.shape)}, but d_model = {len(order)}")
    return weight if dimension < 0 else weight.index_select(dimension, order)


def _check_positions(config: TransformerConfig, left: dict[str, Tensor], origin: object) -> None:
    """Older files have the table of sinusoids, which is made anew."""
    order = hidden_order(config.d_model)
    for stack in ("encoder", "decoder"):
        table = left.pop(f"model.{stack}.embed_positions.weight", None)
        if table is None:
            continue
        own = sinusoidal(len(table), config.d_model)[:, order]
        if table.shape != own.shape or not torch.allclose(table, own, atol=1e-3):
            raise InputError(
                f"{origin}: model.{stack}.embed_positions.weight is not the table of sinusoids of a Marian"
            )


def _merge_tied(config: TransformerConfig, left: dict[str, Tensor], origin: object) -> None:
    """Of the names of one table keep the first, which ours is called by."""
    for first, others in TIED[config.tie_embeddings].items():
        kept = TABLES[first]
        for other in (TABLES[name] for name in others):
            if other not in left:
                continue
            table = left.pop(other)
            if not torch.equal(left.setdefault(kept, table), table):
                raise InputError(f"{origin}: {other} and {kept} differ, but the config says that they are one table")


# What the keys of a Marian's config.json are to us. `is_encoder_decoder` and the like stand in every file.
KEYS = Keys(
    used=(
        "vocab_size decoder_vocab_size max_position_embeddings encoder_layers decoder_layers encoder_attention_heads "
        "decoder_attention_heads encoder_ffn_dim decoder_ffn_dim activation_function d_model dropout attention_dropout "
        "activation_dropout scale_embedding share_encoder_decoder_embeddings tie_word_embeddings pad_token_id "
        f"eos_token_id decoder_start_token_id {GENERATION}"
    ),
    # Layer drop and the classifiers' dropout are of training alone; a Marian has no start sign of its own.
    irrelevant=(
        "encoder_layerdrop decoder_layerdrop init_std classif_dropout classifier_dropout num_hidden_layers "
        "extra_pos_embeddings bos_token_id"
    ),
    only={
        "is_encoder_decoder": (True,),
        "is_decoder": (False,),
        "static_position_embeddings": (True,),
        "normalize_before": (False,),
        "normalize_embedding": (False,),
        "add_final_layer_norm": (False,),
        "add_bias_logits": (False,),
        "add_cross_attention": (False,),
        "force_bos_token_to_be_generated": (False,),
    },
)
# What transformers takes where a config is silent.
DEFAULTS: dict[str, Any] = {
    "vocab_size": 58101,
    "max_position_embeddings": 1024,
    "encoder_layers": 12,
    "encoder_ffn_dim": 4096,
    "encoder_attention_heads": 16,
    "decoder_layers": 12,
    "decoder_ffn_dim": 4096,
    "decoder_attention_heads": 16,
    "activation_function": "gelu",
    "d_model": 1024,
    "dropout": 0.1,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "decoder_start_token_id": 58100,
    "scale_embedding": False,
    "pad_token_id": 58100,
    "eos_token_id": 0,
    "share_encoder_decoder_embeddings": True,
    "tie_word_embeddings": True,
}


def read_config(folder: PublishedFolder) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sections [model] and [decode] of a Marian.

    Raises: InputError: the config says what we cannot do.
    """
    origin = folder.config_path
    KEYS.check(folder.config, origin)
    values = DEFAULTS | {key: value for key, value in folder.config.items() if value is not None}
    for ours, one, other in (
        ("one num_heads", "encoder_attention_heads", "decoder_attention_heads"),
        ("one d_ff", "encoder_ffn_dim", "decoder_ffn_dim"),
    ):
        if values[one] != values[other]:
            raise InputError(f"{origin}: {one} = {values[one]}, but {other} = {values[other]}; zhuyi has {ours}")
    if values["activation_function"] not in ACTIVATIONS:
        raise InputError(
            f"{origin}: activation_function = {values['activation_function']}; zhuyi has {', '.join(ACTIVATIONS)}"
        )
    if values["share_encoder_decoder_embeddings"] and not values["tie_word_embeddings"]:
        raise InputError(
            f"{origin}: share_encoder_decoder_embeddings without tie_word_embeddings; in zhuyi a table that source and "
            "target share is the output's too"
        )
    model = {
        "name": "transformer",
        "d_model": values["d_model"],
        "num_heads": values["encoder_attention_heads"],
        "d_ff": values["encoder_ffn_dim"],
        "num_encoder_layers": values["encoder_layers"],
        "num_decoder_layers": values["decoder_layers"],
        "dropout": values["dropout"],
        "attention_dropout": values["attention_dropout"],
        "feed_forward_dropout": values["activation_dropout"],
        "activation": ACTIVATIONS[values["activation_function"]],
        "tie_embeddings": "three-way"
        if values["share_encoder_decoder_embeddings"]
        else ("decoder" if values["tie_word_embeddings"] else "none"),
        "scale_embeddings": values["scale_embedding"],
        "output_bias": True,
        "max_len": values["max_position_embeddings"],
        "source_vocab_size": values["vocab_size"],
        "target_vocab_size": values.get("decoder_vocab_size") or values["vocab_size"],
    }
    return model, decode_values(folder, values["eos_token_id"], values["decoder_start_token_id"])


TOKENIZER_FILES = ("source.spm", "target.spm", "vocab.json", "target_vocab.json", "tokenizer_config.json")
TOKENIZER_KEYS = Keys(
    used="source_lang target_lang separate_vocabs",
    # Signs are found by their ids, and texts are cut by the model's own length.
    irrelevant=(
        "unk_token eos_token pad_token bos_token special_tokens_map_file tokenizer_file is_local backend "
        "clean_up_tokenization_spaces added_tokens_decoder additional_special_tokens extra_special_tokens "
        "processor_class local_files_only"
    ),
)


def read_marian(folder: PublishedFolder) -> Imported:
    """A Marian as a run of translation.

    Raises: InputError: it is something that cannot be taken over.
    """
    model, decode = read_config(folder)
    told = folder.json("tokenizer_config.json")
    TOKENIZER_KEYS.check(told, folder.path / "tokenizer_config.json")
    source, target = read_tokenizers(folder, told, model)
    return Imported(
        task="translation",
        model=model,
        data={
            "source": str(told.get("source_lang") or "src"),
            "target": str(told.get("target_lang") or "tgt"),
            "max_len": min(128, model["max_len"]),
            "tokenizer": {"kind": "unigram", "vocab_size": model["target_vocab_size"], "joint": False},
        },
        train={"label_smoothing": 0.1},
        decode=decode,
        tokenizers={"tokenizer.source.json": source, "tokenizer.target.json": target},
        tokenizer_files=TOKENIZER_FILES,
        our_weights=lambda config, wanted: from_published(config, folder.weights(), wanted, folder.path),
        notes=length_notes(folder, model["max_len"]),
    )


def read_tokenizers(
    folder: PublishedFolder, told: Mapping[str, Any], model: Mapping[str, Any]
) -> tuple[Tokenizer, Tokenizer]:
    """Each side's SentencePiece over the ids of `vocab.json`, which is both sides' unless they have one each."""
    names = ("vocab.json", "target_vocab.json" if told.get("separate_vocabs") else "vocab.json")
    spm = [read_sentencepiece(folder.path / name) for name in ("source.spm", "target.spm")]
    sizes = (model["source_vocab_size"], model["target_vocab_size"])
    found = []
    for name, size, cutter in zip(names, sizes, spm, strict=True):
        ids = folder.json(name)
        if not ids:
            raise InputError(f"{folder.path / name}: no such file, or nothing in it")
        pieces = [""] * size
        for piece, i in ids.items():
            if not (isinstance(i, int) and 0 <= i < size):
                raise InputError(f"{folder.path / name}: {piece} has the id {i}, but the model has {size:,} words")
            pieces[i] = piece
        signs = _signs(folder, ids, size)
        # The language to write stands before a text, as in ">>fra<< Good morning."
        codes = [piece for piece in pieces if piece.startswith(">>") and piece.endswith("<<")]
        found.append(unigram_tokenizer(cutter, pieces, signs, codes))
    return found[0], found[1]


def _signs(folder: PublishedFolder, ids: Mapping[str, int], size: int) -> Signs:
    values = DEFAULTS | folder.config
    found = {}
    for ours, theirs in (("pad", "pad_token_id"), ("bos", "decoder_start_token_id"), ("eos", "eos_token_id")):
        if not (isinstance(values[theirs], int) and 0 <= values[theirs] < size):
            raise InputError(f"{folder.config_path}: {theirs} = {values[theirs]}; one id below {size:,} was expected")
        found[ours] = values[theirs]
    if "<unk>" not in ids:
        raise InputError(f"{folder.path}: the vocabulary has no piece <unk>")
    return Signs(**found, unk=ids["<unk>"])


def check_expressible(config: TransformerConfig) -> None:
    """Compare a model with what Marian and Pegasus can be.

    Raises: InputError: names the first option that they lack.
    """
    reason = ""
    if config.memory != "last":
        reason = f"memory = {config.memory}, but each layer of Marian's decoder attends the encoder's last"
    elif config.layer.head_dim * config.num_heads != config.d_model:
        reason = f"head_dim = {config.head_dim}, but Marian's is d_model / num_heads"
    elif not config.norm_first and config.positions != "sinusoidal":
        reason = f"positions = {config.positions}, but Marian's are sinusoidal"
    elif config.norm_first and config.tie_embeddings != "three-way":
        reason = (
            f"norm_first = true and tie_embeddings = {config.tie_embeddings}, but Pegasus, the one that normalises "
            "first, has one table for source, target and output"
        )
    if reason:
        raise InputError(f"cannot export to hf: the model has {reason}; keep the run or try --to ctranslate2")


def written_config(config: TransformerConfig, signs: Signs) -> dict[str, Any]:
    """Their `config.json`."""
    activations = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    marian = {
        "decoder_vocab_size": config.target_vocab_size,
        "share_encoder_decoder_embeddings": config.tie_embeddings == "three-way",
    }
    return {
        "architectures": ["PegasusForConditionalGeneration" if config.norm_first else "MarianMTModel"],
        "model_type": "pegasus" if config.norm_first else "marian",
        "dtype": "float32",
        **({} if config.norm_first else marian),
        "vocab_size": config.source_vocab_size,
        "tie_word_embeddings": config.tie_embeddings != "none",
        "max_position_embeddings": config.max_len,
        "d_model": config.d_model,
        "encoder_layers": config.num_encoder_layers,
        "decoder_layers": config.num_decoder_layers,
        "encoder_attention_heads": config.num_heads,
        "decoder_attention_heads": config.num_heads,
        "encoder_ffn_dim": config.d_ff,
        "decoder_ffn_dim": config.d_ff,
        "activation_function": activations[config.activation],
        "scale_embedding": config.scale_embeddings,
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": config.feed_forward_dropout,
        "pad_token_id": signs.pad,
        "bos_token_id": signs.bos,
        "eos_token_id": signs.eos,
        "decoder_start_token_id": signs.bos,
        "forced_eos_token_id": None,
    }
