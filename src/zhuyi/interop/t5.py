"""T5, T5 1.1 and Flan-T5 as published, both ways."""

from typing import Any

import torch

from zhuyi.data.tokenizers import Signs
from zhuyi.errors import InputError
from zhuyi.interop.published_folder import GENERATION, Imported, Keys, PublishedFolder, decode_values, length_notes
from zhuyi.interop.published_tokenizers import T5_FILES, t5_tokenizer
from zhuyi.models.t5 import T5Config, from_published

# Their gated GELU is the one by tanh; a plain one is the exact one.
ACTIVATIONS = {
    "relu": ("relu", False),
    "gelu": ("gelu", False),
    "gelu_new": ("gelu-tanh", False),
    "silu": ("silu", False),
    "gated-gelu": ("gelu-tanh", True),
    "gated-gelu_new": ("gelu-tanh", True),
    "gated-relu": ("relu", True),
    "gated-silu": ("silu", True),
}
KEYS = Keys(
    used=(
        "vocab_size d_model d_kv d_ff num_layers num_decoder_layers num_heads relative_attention_num_buckets "
        "relative_attention_max_distance dropout_rate layer_norm_epsilon feed_forward_proj tie_word_embeddings "
        f"scale_decoder_outputs pad_token_id eos_token_id decoder_start_token_id {GENERATION}"
    ),
    # Positions are distances and have no end; the activation's two others say again what feed_forward_proj says.
    irrelevant="n_positions output_past classifier_dropout dense_act_fn is_gated_act bos_token_id n_ctx",
    only={"is_encoder_decoder": (True,), "is_decoder": (False,)},
)
ARCHITECTURES = "T5ForConditionalGeneration T5WithLMHeadModel T5Model"
DEFAULTS: dict[str, Any] = {
    "vocab_size": 32128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 6,
    "num_heads": 8,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "dropout_rate": 0.1,
    "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "relu",
    "tie_word_embeddings": True,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
# A bias is held for each pair of tokens; longer texts can be had by `model.max_len`.
MAX_LEN = 512


def read_t5(folder: PublishedFolder) -> Imported:
    """A T5 as a run of text to text; what it is to do is said by the prefix of a text.

    Raises: InputError: it is something that cannot be taken over.
    """
    origin = folder.config_path
    KEYS.check(folder.config, origin)
    folder.check_architecture(ARCHITECTURES)
    values = DEFAULTS | {key: value for key, value in folder.config.items() if value is not None}
    if values["feed_forward_proj"] not in ACTIVATIONS:
        raise InputError(
            f"{origin}: feed_forward_proj = {values['feed_forward_proj']}; zhuyi has {', '.join(ACTIVATIONS)}"
        )
    activation, gated = ACTIVATIONS[values["feed_forward_proj"]]
    weights = folder.weights()
    # Whether the last states are scaled goes by the config, and whether there are two tables by the weights.
    tied = bool(values["tie_word_embeddings"] if folder.config.get("scale_decoder_outputs") is None else True)
    tied = tied and values.get("scale_decoder_outputs", True)
    table = weights.get("lm_head.weight")
    if tied and table is not None and not torch.equal(table, weights["shared.weight"]):
        raise InputError(f"{origin}: tie_word_embeddings, but lm_head.weight is not shared.weight")
    if not tied and table is None:
        weights["lm_head.weight"] = weights["shared.weight"].clone()
    pad, eos = values["pad_token_id"], values["eos_token_id"]
    start = values.get("decoder_start_token_id", folder.generation().get("decoder_start_token_id", pad))
    tokenizer, extra = t5_tokenizer(folder, pad, start, eos, values["vocab_size"])
    if tokenizer.vocab_size + extra > values["vocab_size"]:
        raise InputError(
            f"{folder.path}: {tokenizer.vocab_size:,} pieces and {extra} signs for spans, but the model has "
            f"{values['vocab_size']:,} ids"
        )
    return Imported(
        task="text-to-text",
        model={
            "name": "t5",
            "d_model": values["d_model"],
            "num_heads": values["num_heads"],
            "head_dim": values["d_kv"],
            "d_ff": values["d_ff"],
            "num_encoder_layers": values["num_layers"],
            "num_decoder_layers": values.get("num_decoder_layers", values["num_layers"]),
            "dropout": values["dropout_rate"],
            "activation": activation,
            "gated": gated,
            "norm_epsilon": values["layer_norm_epsilon"],
            "tie_embeddings": tied,
            "num_buckets": values["relative_attention_num_buckets"],
            "max_distance": values["relative_attention_max_distance"],
            "max_len": MAX_LEN,
            "vocab_size": values["vocab_size"],
        },
        data={
            "max_len": 256,
            "sentinels": extra,
            "tokenizer": {"kind": "unigram", "vocab_size": tokenizer.vocab_size},
        },
        train={},
        decode=decode_values(folder, eos, start),
        tokenizers={"tokenizer.json": tokenizer},
        tokenizer_files=T5_FILES,
        notes=length_notes(folder, MAX_LEN),
        our_weights=lambda config, wanted: from_published(weights, wanted, gated=gated),
    )


def written_config(config: T5Config, signs: Signs) -> dict[str, Any]:
    """Their `config.json`.

    Raises: InputError: T5 has no such feed-forward network.
    """
    names = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    if (config.activation, config.gated) not in names:
        raise InputError(f"cannot export to hf: no T5 has activation = {config.activation}, gated = {config.gated}")
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "dtype": "float32",
        "vocab_size": config.vocab_size,
        "d_model": config.d_model,
        "d_kv": config.head_dim,
        "d_ff": config.d_ff,
        "num_layers": config.num_encoder_layers,
        "num_decoder_layers": config.num_decoder_layers,
        "num_heads": config.num_heads,
        "relative_attention_num_buckets": config.num_buckets,
        "relative_attention_max_distance": config.max_distance,
        "dropout_rate": config.dropout,
        "layer_norm_epsilon": config.norm_epsilon,
        "feed_forward_proj": names[config.activation, config.gated],
        "tie_word_embeddings": config.tie_embeddings,
        "pad_token_id": signs.pad,
        "eos_token_id": signs.eos,
        "decoder_start_token_id": signs.bos,
    }
