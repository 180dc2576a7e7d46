"""The Transformer as a model folder of CTranslate2."""

import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from zhuyi.errors import InputError
from zhuyi.models.transformer import TransformerConfig
from zhuyi.predict import Translator
from zhuyi.run_folder import named_weights

ACTIVATIONS = {"relu": "RELU", "gelu": "GELU", "gelu-tanh": "GELUTanh", "silu": "SWISH"}


def write_ctranslate2(translator: Translator, folder: Path, published: Path | None = None) -> None:
    """Write what `ctranslate2.Translator` reads: float32 weights, which it converts to the type it is asked for.

    Args:   published: the tokenizer's files that an imported run keeps.
    Raises: InputError: CTranslate2 has no such model, or it is not installed.
    """
    config, model = translator.config.model, translator.model
    if not isinstance(config, TransformerConfig):
        raise InputError(f"cannot export to ctranslate2: only a Transformer is written, this is a {config.name}")
    if config.memory != "last":
        raise InputError(
            f"cannot export to ctranslate2: the model has memory = {config.memory}, but each layer of its decoder "
            "attends the encoder's last; keep the run"
        )
    weights = named_weights(model) | {
        "source_positions.table": model.source_positions.table.detach(),
        "target_positions.table": model.target_positions.table.detach(),
    }
    spec = transformer_spec(config, weights)
    source, target = translator.source_tokenizer, translator.target_tokenizer
    spec.register_source_vocabulary(source.pieces)
    spec.register_target_vocabulary(target.pieces)
    signs = target.signs
    spec.config.unk_token, spec.config.bos_token, spec.config.eos_token = (
        target.pieces[i] for i in (signs.unk, signs.bos, signs.eos)
    )
    spec.config.decoder_start_token = target.pieces[signs.bos]
    spec.config.layer_norm_epsilon = model.encoder_layers[0].self_residual.norm.eps
    spec.validate()
    spec.optimize()
    spec.save(str(folder))
    if published is not None:
        shutil.copytree(published, folder, dirs_exist_ok=True)
        text = PUBLISHED_README.replace("MAX_LEN", str(config.max_len))
        (folder / "README.md").write_text(text, encoding="utf-8")
        return
    names = ("tokenizer.json",) * 2 if target is source else ("tokenizer.source.json", "tokenizer.target.json")
    source.save(folder / names[0])
    target.save(folder / names[1])
    placeholders = {"SOURCE": names[0], "TARGET": names[1], "MAX_LEN": str(config.max_len)}
    text = README
    for placeholder, value in placeholders.items():
        text = text.replace(placeholder, value)
    (folder / "README.md").write_text(text, encoding="utf-8")


def transformer_spec(config: TransformerConfig, weights: dict[str, Tensor]) -> Any:
    """CTranslate2's own description of the model, filled with our weights."""
    try:
        from ctranslate2.specs import Activation, TransformerSpec
        from ctranslate2.specs.transformer_spec import TransformerDecoderSpec, TransformerEncoderSpec
    except ImportError as error:
        raise InputError(
            f'export to ctranslate2 needs the package {error.name}, which is not here: pip install "zhuyi[export]"'
        ) from error
    options: dict[str, Any] = {
        "num_heads": config.num_heads,
        "pre_norm": config.norm_first,
        "activation": Activation[ACTIVATIONS[config.activation]],
        "head_dim": config.layer.head_dim,
    }
    encoder = TransformerEncoderSpec(config.num_encoder_layers, **options)
    decoder = TransformerDecoderSpec(config.num_decoder_layers, **options)
    arrays = {name: weight.numpy() for name, weight in weights.items()}
    source = arrays["source_embedding.weight"]
    target = arrays.get("target_embedding.weight", source)
    encoder.embeddings[0].weight = source
    decoder.embeddings.weight = target
    decoder.projection.weight = arrays.get("output_projection.weight", target)
    if config.output_bias:
        decoder.projection.bias = arrays["output_projection.bias"]
    decoder.scale_embeddings = encoder.scale_embeddings = config.scale_embeddings
    # A table of its own for each side: CTranslate2 would make one with all sines before all cosines.
    encoder.position_encodings.encodings = arrays["source_positions.table"]
    decoder.position_encodings.encodings = arrays["target_positions.table"]
    for stack, spec in (("encoder", encoder), ("decoder", decoder)):
        if config.norm_first:
            set_norm(spec.layer_norm, arrays, f"{stack}_norm")
        for i, layer in enumerate(spec.layer):
            set_layer(layer, arrays, f"{stack}_layers.{i}")
    return TransformerSpec(encoder, decoder)


def set_layer(spec: Any, arrays: dict[str, Any], prefix: str) -> None:
    """One layer; its attention's projections are fused in CTranslate2 as they are here."""
    for theirs, ours, projections in (
        ("self_attention", "self", ("w_qkv", "w_o")),
        ("attention", "cross", ("w_q", "w_kv", "w_o")),
    ):
        attention = getattr(spec, theirs, None)
        if attention is None:  # an encoder has no cross-attention
            continue
        set_norm(attention.layer_norm, arrays, f"{prefix}.{ours}_residual.norm")
        for linear, projection in zip(attention.linear, projections, strict=True):
            set_linear(linear, arrays, f"{prefix}.{ours}_attention.{projection}")
    set_norm(spec.ffn.layer_norm, arrays, f"{prefix}.feed_forward_residual.norm")
    set_linear(spec.ffn.linear_0, arrays, f"{prefix}.feed_forward.w_1")
    set_linear(spec.ffn.linear_1, arrays, f"{prefix}.feed_forward.w_2")


def set_linear(spec: Any, arrays: dict[str, Any], name: str) -> None:
    """An affine map."""
    spec.weight, spec.bias = arrays[f"{name}.weight"], arrays[f"{name}.bias"]


def set_norm(spec: Any, arrays: dict[str, Any], name: str) -> None:
    """A layer normalisation."""
    spec.gamma, spec.beta = arrays[f"{name}.weight"], arrays[f"{name}.bias"]


PUBLISHED_README = """\
# A translation model imported into zhuyi, for CTranslate2

```python
import ctranslate2
from transformers import AutoTokenizer

translator, tokenizer = ctranslate2.Translator(FOLDER), AutoTokenizer.from_pretrained(FOLDER)
source = tokenizer.convert_ids_to_tokens(tokenizer("...").input_ids)
(result,) = translator.translate_batch([source], beam_size=5, max_decoding_length=MAX_LEN)
print(tokenizer.decode(tokenizer.convert_tokens_to_ids(result.hypotheses[0]), skip_special_tokens=True))
```

The tokenizer's files are those that the model was imported with, unchanged. The model counts to MAX_LEN tokens on
either side; beyond that CTranslate2 raises an error. What the run forbids (`decode.forbidden`), CTranslate2 does not:
`suppress_sequences=[["<pad>"]]` says so.
"""

README = """\
# A translation model trained with zhuyi, for CTranslate2

```python
import ctranslate2
from tokenizers import Tokenizer

translator = ctranslate2.Translator(FOLDER, compute_type="int8")
source, target = Tokenizer.from_file(f"{FOLDER}/SOURCE"), Tokenizer.from_file(f"{FOLDER}/TARGET")
(result,) = translator.translate_batch(
    [source.encode("...").tokens], beam_size=5, max_decoding_length=MAX_LEN, disable_unk=True
)
print(target.decode([target.token_to_id(token) for token in result.hypotheses[0]]))
```

The end sign `</s>` belongs to the source and comes with the tokens. The model counts to MAX_LEN tokens on either side;
beyond that CTranslate2 raises an error. The weights are in float32; `compute_type` converts them as they are loaded.

What is not carried:

- Text is not normalised before it is tokenised (one form of white space, width and punctuation). Where it matters, call
  `zhuyi.data.normalization.normalize(text)` first; a run trained on simplified characters also wants them simplified.
- zhuyi never writes `<pad>`, `<s>` and `<unk>`; here `disable_unk=True` and
  `suppress_sequences=[["<pad>"], ["<s>"]]` say so. CTranslate2 writes one token at least
  (`min_decoding_length=1`), zhuyi may write none.
- CTranslate2 ranks hypotheses by `log_prob / length ** length_penalty` and stops when `beam_size` of them have ended
  (zhuyi's `length_rule = "power"`, `stop = "first"`). zhuyi's `gnmt` and `exact` have no counterpart there.
- No guards: nothing cuts long texts into sentences, ends loops or bounds an output by its input's length. A
  `decode.constraint` is not kept.
"""
