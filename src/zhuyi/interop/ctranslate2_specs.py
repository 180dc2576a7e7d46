"""Our models in the descriptions that CTranslate2 has of models, filled with our weights."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from zhuyi.errors import InputError
from zhuyi.models.bert import BertConfig
from zhuyi.models.gpt import GptConfig
from zhuyi.models.t5 import T5Config
from zhuyi.models.transformer import TransformerConfig
from zhuyi.nn.blocks import LayerConfig

ACTIVATIONS = {"relu": "RELU", "gelu": "GELU", "gelu-tanh": "GELUTanh", "silu": "SWISH"}


def library() -> Any:
    """The module `ctranslate2.specs`.

    Raises: InputError: it is not installed.
    """
    try:
        from ctranslate2 import specs
    except ImportError as error:
        raise InputError(
            f'export to ctranslate2 needs the package {error.name}, which is not here: pip install "zhuyi[export]"'
        ) from error
    return specs


def transformer_spec(config: TransformerConfig, weights: Mapping[str, Tensor]) -> Any:
    """A Transformer.

    Args:   weights: our names, and `source_positions.table` and `target_positions.table` in any case.
    Raises: InputError: CTranslate2 has no such model.
    """
    if config.memory != "last":
        raise InputError(
            f"cannot export to ctranslate2: the model has memory = {config.memory}, but each layer of its decoder "
            "attends the encoder's last; keep the run"
        )
    specs, options, arrays = library().transformer_spec, layer_options(config.layer), as_arrays(weights)
    encoder = specs.TransformerEncoderSpec(config.num_encoder_layers, **options)
    decoder = specs.TransformerDecoderSpec(config.num_decoder_layers, **options)
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
        set_layers(spec, arrays, f"{stack}_layers")
    return specs.TransformerSpec(encoder, decoder)


def t5_spec(config: T5Config, weights: Mapping[str, Tensor]) -> Any:
    """A T5, whose first layers' tables of distances serve all layers."""
    specs, arrays = library().transformer_spec, as_arrays(weights)
    options = layer_options(config.layer) | {"relative_attention_bias": True}
    encoder = specs.TransformerEncoderSpec(config.num_encoder_layers, **options)
    decoder = specs.TransformerDecoderSpec(config.num_decoder_layers, **options)
    table = arrays["embedding.weight"]
    encoder.embeddings[0].weight = decoder.embeddings.weight = table
    decoder.projection.weight = arrays.get("output_projection.weight", table)
    encoder.scale_embeddings = decoder.scale_embeddings = False
    if config.tie_embeddings:
        decoder.scale_outputs = np.float32(config.d_model**-0.5)
    for stack, spec in (("encoder", encoder), ("decoder", decoder)):
        set_norm(spec.layer_norm, arrays, f"{stack}_norm")
        set_layers(spec, arrays, f"{stack}_layers")
        for layer in spec.layer:
            attention = layer.self_attention
            attention.relative_attention_bias = arrays[f"{stack}_positions.table"]
            attention.relative_attention_max_distance = np.int32(config.max_distance)
            for each in (attention, getattr(layer, "attention", attention)):
                each.queries_scale = np.float32(config.layer.attention_scale or 1.0)
    return specs.TransformerSpec(encoder, decoder)


def gpt_spec(config: GptConfig, weights: Mapping[str, Tensor]) -> Any:
    """A GPT-2, with biases or without."""
    specs, arrays = library().transformer_spec, as_arrays(weights)
    options = layer_options(config.layer) | {"with_encoder_attention": False}
    decoder = specs.TransformerDecoderSpec(config.num_layers, **options)
    table = arrays["token_embedding.weight"]
    decoder.embeddings.weight = table
    decoder.projection.weight = arrays.get("output_projection.weight", table)
    decoder.scale_embeddings = False
    decoder.position_encodings.encodings = arrays["positions.table"]
    set_norm(decoder.layer_norm, arrays, "decoder_norm")
    set_layers(decoder, arrays, "decoder_layers")
    return specs.TransformerDecoderModelSpec(decoder)


def bert_spec(config: BertConfig, weights: Mapping[str, Tensor]) -> Any:
    """An encoder with its pooler; heads have no place there.

    Raises: InputError: CTranslate2 has no such pooler.
    """
    if config.pooler and config.pooling != "first":
        raise InputError(
            f"cannot export to ctranslate2: the model has pooling = {config.pooling}, but its pooler takes the first "
            "state; try --to onnx"
        )
    all_specs, arrays = library(), as_arrays(weights)
    specs, merge = all_specs.transformer_spec, all_specs.common_spec.EmbeddingsMerge.ADD
    options = layer_options(config.layer) | {"layernorm_embedding": True}
    if config.num_segments:
        options |= {"num_source_embeddings": 2, "embeddings_merge": merge}
    encoder = specs.TransformerEncoderSpec(config.num_layers, **options)
    encoder.scale_embeddings = False
    encoder.embeddings[0].weight = arrays["token_embedding.weight"]
    if config.num_segments:
        encoder.embeddings[1].weight = arrays["segment_embedding.weight"]
    encoder.position_encodings.encodings = arrays["positions.table"]
    set_norm(encoder.layernorm_embedding, arrays, "embedding_norm")
    set_layers(encoder, arrays, "encoder_layers")
    activation = {"tanh": "Tanh", "relu": "RELU"}[config.pooler_activation]
    spec = specs.TransformerEncoderModelSpec(
        encoder, pooling_layer=config.pooler, pooling_activation=all_specs.Activation[activation]
    )
    if config.pooler:
        set_linear(spec.pooler_dense, arrays, "pooler.linear")
    return spec


def as_arrays(weights: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Weights by their names."""
    return {name: weight.detach().numpy() for name, weight in weights.items()}


def layer_options(layer: LayerConfig) -> dict[str, Any]:
    """What every stack of layers is told of them."""
    return {
        "num_heads": layer.num_heads,
        "pre_norm": layer.norm_first,
        "activation": library().Activation[ACTIVATIONS[layer.activation]],
        "head_dim": layer.head_dim,
        "ffn_glu": layer.gated,
        "rms_norm": layer.norm == "rms",
    }


def set_layers(spec: Any, arrays: Mapping[str, Any], prefix: str) -> None:
    """A stack's layers; their attention's projections are fused in CTranslate2 as they are here."""
    for i, layer in enumerate(spec.layer):
        for theirs, ours, projections in (
            ("self_attention", "self", ("w_qkv", "w_o")),
            ("attention", "cross", ("w_q", "w_kv", "w_o")),
        ):
            attention = getattr(layer, theirs, None)
            if attention is None:  # there is no encoder to attend to
                continue
            set_norm(attention.layer_norm, arrays, f"{prefix}.{i}.{ours}_residual.norm")
            for linear, projection in zip(attention.linear, projections, strict=True):
                set_linear(linear, arrays, f"{prefix}.{i}.{ours}_attention.{projection}")
        set_norm(layer.ffn.layer_norm, arrays, f"{prefix}.{i}.feed_forward_residual.norm")
        set_feed_forward(layer.ffn, arrays, f"{prefix}.{i}.feed_forward")


def set_feed_forward(spec: Any, arrays: Mapping[str, Any], name: str) -> None:
    """Two affine maps; of a gated one the first is two, of which the first half goes through the activation."""
    set_linear(spec.linear_1, arrays, f"{name}.w_2")
    if not hasattr(spec, "linear_0_noact"):
        set_linear(spec.linear_0, arrays, f"{name}.w_1")
        return
    halves = {
        kind: np.split(arrays[f"{name}.w_1.{kind}"], 2) for kind in ("weight", "bias") if f"{name}.w_1.{kind}" in arrays
    }
    for half, linear in enumerate((spec.linear_0, spec.linear_0_noact)):
        set_linear(linear, {f"half.{kind}": parts[half] for kind, parts in halves.items()}, "half")


def set_linear(spec: Any, arrays: Mapping[str, Any], name: str) -> None:
    """An affine map, with a bias or without."""
    spec.weight = arrays[f"{name}.weight"]
    if f"{name}.bias" in arrays:
        spec.bias = arrays[f"{name}.bias"]


def set_norm(spec: Any, arrays: Mapping[str, Any], name: str) -> None:
    """A normalisation: of the mean too, or by the mean square alone."""
    spec.gamma = arrays[f"{name}.weight"]
    if f"{name}.bias" in arrays:
        spec.beta = arrays[f"{name}.bias"]
