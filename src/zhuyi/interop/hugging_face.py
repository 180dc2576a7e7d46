"""The Transformer as a model folder of Hugging Face transformers.

There, Marian is the Transformer with the norm after each sublayer, and Pegasus the same with the norm before it; both
scale embeddings and have fixed positions, and their weights have the same names.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zhuyi.data.special_tokens import BOS, BOS_ID, EOS, EOS_ID, PAD, PAD_ID, UNK, UNK_ID
from zhuyi.decoding.config import DecodeConfig
from zhuyi.errors import InputError
from zhuyi.models.transformer import TransformerConfig
from zhuyi.predict import Translator
from zhuyi.run_folder import named_weights, write_tensors

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


def write_hugging_face(translator: Translator, folder: Path) -> None:
    """Write what transformers' `AutoModelForSeq2SeqLM.from_pretrained` and `AutoTokenizer.from_pretrained` read.

    Raises: InputError: neither Marian nor Pegasus is such a model.
    """
    config, model = translator.config.model, translator.model
    if not isinstance(config, TransformerConfig):
        raise InputError(f"cannot export to hf: Marian and Pegasus are Transformers, this is a {config.name}")
    check_expressible(config)
    tables = model.source_positions.table.detach(), model.target_positions.table.detach()
    write_tensors(folder / "model.safetensors", their_weights(config, named_weights(model), tables))
    documents = {
        "config.json": model_config(config),
        "generation_config.json": generation_config(translator.config.decode, config.max_len),
        "tokenizer_config.json": tokenizer_config(config.max_len),
    }
    for name, values in documents.items():
        (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    source, target = translator.source_tokenizer, translator.target_tokenizer
    source.save(folder / "tokenizer.json")
    if target is not source:
        target.save(folder / "tokenizer.target.json")
    text = README + (TWO_TOKENIZERS if target is not source else "")
    (folder / "README.md").write_text(text, encoding="utf-8")


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


def their_weights(
    config: TransformerConfig, weights: dict[str, Tensor], positions: tuple[Tensor, Tensor]
) -> dict[str, Tensor]:
    """Our weights under their names; `positions` are the source's and the target's tables.

    Their sinusoidal table has all sines before all cosines where the paper's alternates them. The hidden dimensions
    have no order of their own, so they are put into the order in which our table becomes theirs.
    """
    order = torch.cat([torch.arange(0, config.d_model, 2), torch.arange(1, config.d_model, 2)])
    found = {"final_logits_bias": torch.zeros(1, config.target_vocab_size)}
    if config.norm_first:  # Pegasus stores its tables; Marian makes them anew and would not save others
        for stack, table in zip(("encoder", "decoder"), positions, strict=True):
            found[f"model.{stack}.embed_positions.weight"] = table[:, order]
    shared = config.tie_embeddings == "three-way"
    for name, weight in weights.items():
        if name.endswith("_positions.table"):
            continue
        (dimension,) = (d for end, d in HIDDEN_DIMENSION.items() if name.endswith(end))
        ordered = weight if dimension < 0 else weight.index_select(dimension, order)
        names = their_names(name, shared)
        found |= {key: part.contiguous() for key, part in zip(names, ordered.chunk(len(names)), strict=True)}
    return found


def their_names(name: str, shared: bool) -> tuple[str, ...]:
    """Their name of one of our weights; of several, each names a part of its rows.

    Args: shared: source, target and output have one table.
    """
    outside = {
        "source_embedding.weight": "model.shared.weight" if shared else "model.encoder.embed_tokens.weight",
        "target_embedding.weight": "model.decoder.embed_tokens.weight",
        "output_projection.weight": "lm_head.weight",
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


def model_config(config: TransformerConfig) -> dict[str, Any]:
    """Their `config.json`."""
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
        "activation_function": config.activation,
        "scale_embedding": True,
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": config.feed_forward_dropout,
        "pad_token_id": PAD_ID,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        "decoder_start_token_id": BOS_ID,
        "forced_eos_token_id": None,
    }


def generation_config(decode: DecodeConfig, max_len: int) -> dict[str, Any]:
    """The run's search, as far as `generate` has its options."""
    values: dict[str, Any] = {
        "pad_token_id": PAD_ID,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        "decoder_start_token_id": BOS_ID,
        "suppress_tokens": [PAD_ID, BOS_ID, UNK_ID],
        "max_length": max_len,
        "num_beams": decode.beam,
    }
    if decode.beam > 1:
        values["length_penalty"] = 0.0 if decode.length_rule == "none" else decode.alpha
        # "exact" would be "never"; but without zhuyi's limits of length that searches on to `max_length`.
        values["early_stopping"] = decode.stop == "first"
    return values


def tokenizer_config(max_len: int) -> dict[str, Any]:
    """How transformers is to open `tokenizer.json`: with the library that it was written by."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_len,
        "pad_token": PAD,
        "bos_token": BOS,
        "eos_token": EOS,
        "unk_token": UNK,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }


README = """\
# A translation model trained with zhuyi, for Hugging Face transformers

```python
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(FOLDER), AutoTokenizer.from_pretrained(FOLDER)
batch = tokenizer(["..."], return_tensors="pt", padding=True)
print(tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True))
```

The logits are zhuyi's, within rounding. The hidden dimensions stand in another order: sines before cosines, as the
positions of Marian and Pegasus are.

What is not carried:

- Text is not normalised before it is tokenised (one form of white space, width and punctuation). Where it matters, call
  `zhuyi.data.normalization.normalize(text)` first; a run trained on simplified characters also wants them simplified.
- There is no SentencePiece file: the tokenizer is the file of the `tokenizers` library that zhuyi wrote, which
  `AutoTokenizer` opens and `MarianTokenizer` does not. A text that holds a special sign's letters, such as `</s>`, is
  read as that sign.
- `generate` ranks hypotheses by `log_prob / length ** length_penalty`. zhuyi's length rule `gnmt` has no counterpart
  there; its alpha is written as `length_penalty`, and another hypothesis may win. The stop rule `exact` is written as
  `early_stopping = false`, which may stop a little earlier; `"never"` is exact but slow.
- No guards: nothing cuts long texts into sentences, ends loops or bounds an output by its input's length.
"""

TWO_TOKENIZERS = """\
- `AutoTokenizer` has one vocabulary, the source's. The target's is `tokenizer.target.json`: decode with
  `PreTrainedTokenizerFast(tokenizer_file="tokenizer.target.json")`.
"""
