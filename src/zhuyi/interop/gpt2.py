"""GPT-2 as published, both ways."""

from typing import Any

from zhuyi.data.tokenizers import Signs
from zhuyi.decoding.config import GenerationConfig
from zhuyi.errors import InputError
from zhuyi.interop.published_folder import (
    GENERATION,
    GENERATION_ONLY,
    SIGN_KEYS,
    Imported,
    Keys,
    PublishedFolder,
    check_signs,
)
from zhuyi.interop.published_tokenizers import FILES, byte_level_tokenizer
from zhuyi.models.gpt import GptConfig, from_published

ACTIVATIONS = {
    "gelu_new": "gelu-tanh",
    "gelu_pytorch_tanh": "gelu-tanh",
    "gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
KEYS = Keys(
    used=(
        "vocab_size n_positions n_embd n_layer n_head n_inner activation_function resid_pdrop embd_pdrop attn_pdrop "
        f"layer_norm_epsilon eos_token_id tie_word_embeddings {GENERATION}"
    ),
    # A summary belongs to a head of another kind; the last is about the precision of one product.
    irrelevant=(
        "n_ctx bos_token_id pad_token_id summary_type summary_use_proj summary_activation summary_proj_to_labels "
        "summary_first_dropout reorder_and_upcast_attn"
    ),
    only={
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
        "is_encoder_decoder": (False,),
    },
)
ARCHITECTURES = "GPT2LMHeadModel GPT2Model"
DEFAULTS: dict[str, Any] = {
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_inner": None,
    "activation_function": "gelu_new",
    "resid_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "attn_pdrop": 0.1,
    "layer_norm_epsilon": 1e-5,
    "eos_token_id": 50256,
    "tie_word_embeddings": True,
}
# Of the ways to write: what a continuation has no counterpart of must do nothing.
WRITING = Keys(
    used=(
        "do_sample temperature top_k top_p min_p repetition_penalty no_repeat_ngram_size max_new_tokens max_length "
        f"output_scores return_dict_in_generate remove_invalid_values {SIGN_KEYS}"
    ),
    irrelevant="length_penalty early_stopping renormalize_logits",  # of beams, and of nothing forbidden
    only=GENERATION_ONLY | {"num_beams": (1,), "typical_p": (1,)},
)


def read_gpt2(folder: PublishedFolder) -> Imported:
    """A GPT-2 as a run of language modelling.

    Raises: InputError: it is something that cannot be taken over.
    """
    origin = folder.config_path
    KEYS.check(folder.config, origin)
    folder.check_architecture(ARCHITECTURES)
    values = DEFAULTS | {key: value for key, value in folder.config.items() if value is not None}
    if values["activation_function"] not in ACTIVATIONS:
        raise InputError(
            f"{origin}: activation_function = {values['activation_function']}; zhuyi has {', '.join(ACTIVATIONS)}"
        )
    eos = values["eos_token_id"]
    if not (isinstance(eos, int) and 0 <= eos < values["vocab_size"]):
        raise InputError(f"{origin}: eos_token_id = {eos}; one id below {values['vocab_size']:,} was expected")
    tokenizer = byte_level_tokenizer(folder, eos, values["vocab_size"])
    return Imported(
        task="language-modelling",
        model={
            "name": "gpt",
            "d_model": values["n_embd"],
            "num_heads": values["n_head"],
            "d_ff": values["n_inner"] or 0,
            "num_layers": values["n_layer"],
            "dropout": values["resid_pdrop"],
            "attention_dropout": values["attn_pdrop"],
            "embedding_dropout": values["embd_pdrop"],
            "activation": ACTIVATIONS[values["activation_function"]],
            "norm_epsilon": values["layer_norm_epsilon"],
            "tie_embeddings": values["tie_word_embeddings"],
            "max_len": values["n_positions"],
            "vocab_size": values["vocab_size"],
        },
        data={
            "max_len": min(1024, values["n_positions"]),
            "tokenizer": {"kind": "byte-bpe", "vocab_size": max(300, values["vocab_size"]), "verbatim": True},
        },
        train={},
        decode=writing_values(folder, eos),
        tokenizers={"tokenizer.json": tokenizer},
        tokenizer_files=FILES,
        our_weights=lambda config, wanted: from_published(folder.weights(), wanted),
        notes=writing_notes(folder),
    )


def writing_values(folder: PublishedFolder, eos: int) -> dict[str, Any]:
    """The section [decode] that does what the folder says of writing; without a word of sampling, the likeliest.

    Raises: InputError: it says what we cannot do.
    """
    said, origin = folder.generation(), folder.path / "generation_config.json"
    WRITING.check(said, origin)
    check_signs(said, {"eos_token_id": eos}, origin)
    values: dict[str, Any] = {"temperature": 0.0}
    if said.get("do_sample"):
        values = {
            "temperature": float(said.get("temperature") or 1.0),
            "top_k": int(said.get("top_k", 50) or 0),
            "top_p": float(said.get("top_p") or 1.0),
            "min_p": float(said.get("min_p") or 0.0),
        }
    if said.get("max_new_tokens"):
        values["max_new_tokens"] = said["max_new_tokens"]
    values["repetition_penalty"] = float(said.get("repetition_penalty") or 1.0)
    values["no_repeat_ngram"] = int(said.get("no_repeat_ngram_size") or 0)
    return values


def writing_notes(folder: PublishedFolder) -> tuple[str, ...]:
    """What it says of writing that is not carried, for people."""
    said = folder.generation()
    if not said.get("max_length") or said.get("max_new_tokens"):
        return ()
    return (
        f"max_length = {said['max_length']} is not carried: it counts the prompt too; max_new_tokens, which does not, "
        "is what can be set",
    )


def written_generation(decode: GenerationConfig, signs: Signs) -> dict[str, Any]:
    """Their `generation_config.json`: how the run writes."""
    values: dict[str, Any] = {
        "bos_token_id": signs.eos,
        "eos_token_id": signs.eos,
        "pad_token_id": signs.pad,
        "max_new_tokens": decode.max_new_tokens,
        "repetition_penalty": decode.repetition_penalty,
        "no_repeat_ngram_size": decode.no_repeat_ngram,
        "do_sample": decode.temperature > 0,
    }
    if decode.temperature:  # without their own word of it, the 50 likeliest would be drawn from
        values |= {"temperature": decode.temperature, "top_k": decode.top_k, "top_p": decode.top_p}
        values |= {"min_p": decode.min_p} if decode.min_p else {}
    return values


def written_config(config: GptConfig, signs: Signs) -> dict[str, Any]:
    """Their `config.json`."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "dtype": "float32",
        "vocab_size": config.vocab_size,
        "n_positions": config.max_len,
        "n_embd": config.d_model,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_inner": config.d_ff or None,
        "activation_function": {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}[config.activation],
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.embedding_dropout,
        "attn_pdrop": config.attention_dropout,
        "layer_norm_epsilon": config.norm_epsilon,
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": signs.eos,
        "eos_token_id": signs.eos,
        "pad_token_id": signs.pad,
    }
