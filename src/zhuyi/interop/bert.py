"""BERT, DistilBERT and sentence encoders made of them, as published, both ways."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zhuyi.data.tokenizers import Signs
from zhuyi.errors import InputError
from zhuyi.interop.published_folder import Imported, Keys, PublishedFolder
from zhuyi.interop.published_tokenizers import FILES, wordpiece_tokenizer
from zhuyi.models.bert import PUBLISHED_NAMES, BertConfig, from_published

ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu-tanh", "relu": "relu", "silu": "silu", "swish": "silu"}
# What stands in both families' configs and changes nothing here.
IRRELEVANT = "pad_token_id bos_token_id eos_token_id output_past"
KEYS = {
    "bert": Keys(
        used=(
            "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size hidden_act "
            "hidden_dropout_prob attention_probs_dropout_prob max_position_embeddings type_vocab_size layer_norm_eps "
            "classifier_dropout num_labels"
        ),
        # The pooler's are notes of the first Chinese and multilingual models. Tables say by themselves if they are one.
        irrelevant=(
            f"{IRRELEVANT} directionality pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers "
            "pooler_size_per_head pooler_type tie_word_embeddings"
        ),
        only={
            "position_embedding_type": ("absolute",),
            "is_decoder": (False,),
            "is_encoder_decoder": (False,),
            "add_cross_attention": (False,),
            "problem_type": ("single_label_classification",),
        },
    ),
    "distilbert": Keys(
        used=(
            "vocab_size dim n_layers n_heads hidden_dim activation dropout attention_dropout max_position_embeddings "
            "seq_classif_dropout num_labels"
        ),
        # Positions are stored, whichever way they began; the other dropout is of a head that answers questions.
        irrelevant=f"{IRRELEVANT} sinusoidal_pos_embds qa_dropout tie_word_embeddings tie_weights_",
        only={"is_encoder_decoder": (False,), "problem_type": ("single_label_classification",)},
    ),
}
ARCHITECTURES = (
    "BertModel BertForMaskedLM BertForPreTraining BertForNextSentencePrediction BertForSequenceClassification "
    "DistilBertModel DistilBertForMaskedLM DistilBertForSequenceClassification"
)
# Their names: those of BERT, and those that DistilBERT has in their place.
DISTILBERT = {
    "hidden_size": "dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim",
    "hidden_act": "activation",
    "hidden_dropout_prob": "dropout",
    "attention_probs_dropout_prob": "attention_dropout",
    "classifier_dropout": "seq_classif_dropout",
}
DEFAULTS: dict[str, Any] = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "layer_norm_eps": 1e-12,
}


def read_bert(folder: PublishedFolder) -> Imported:
    """An encoder as a run: with a classifier one of classification, else of words taken away, if only for embeddings.

    Raises: InputError: it is something that cannot be taken over.
    """
    family = folder.config["model_type"]
    KEYS[family].check(folder.config, folder.config_path)
    folder.check_architecture(ARCHITECTURES)
    weights = folder.weights()
    model = read_model(folder, family, weights)
    max_len, notes = read_sentence_encoder(folder, model["max_len"])
    tokenizer = wordpiece_tokenizer(folder, model["vocab_size"])
    data: dict[str, Any] = {
        "max_len": max_len,
        "tokenizer": {"kind": "bpe", "vocab_size": model["vocab_size"]},
    }
    if model["num_labels"]:
        data["labels"] = read_labels(folder, model["num_labels"])
    return Imported(
        task="text-classification" if model["num_labels"] else "masked-language-modelling",
        model=model,
        data=data,
        train={},
        decode=None,
        tokenizers={"tokenizer.json": tokenizer},
        tokenizer_files=FILES,
        our_weights=lambda config, wanted: from_published(weights, wanted, family),
        notes=notes,
    )


def read_labels(folder: PublishedFolder, count: int) -> list[str]:
    """The names of labels, in the head's order.

    Raises: InputError: the head has one output, which is a number and no label, or a label has no name.
    """
    origin = folder.config_path
    if count == 1:
        raise InputError(
            f"{origin}: the head has one output, a number (how well two texts fit, say) and not a label; zhuyi "
            "classifies by two labels or more, and the model cannot be imported"
        )
    names = folder.config.get("id2label") or {str(i): f"LABEL_{i}" for i in range(count)}
    for i in range(count):
        if str(i) not in names:
            raise InputError(f"{origin}: id2label has no name for {i}, but the head has {count} labels; add it")
    return [str(names[str(i)]) for i in range(count)]


def read_model(folder: PublishedFolder, family: str, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The section [model]: sizes by the config, heads by the weights that there are."""
    said = {key: value for key, value in folder.config.items() if value is not None}
    if family == "distilbert":
        said |= {theirs: said[key] for theirs, key in DISTILBERT.items() if key in said}
        said = {"num_hidden_layers": 6, "type_vocab_size": 0, "classifier_dropout": 0.2} | said
    values = {"num_hidden_layers": 12, "type_vocab_size": 2} | DEFAULTS | said
    if values["hidden_act"] not in ACTIVATIONS:
        raise InputError(
            f"{folder.config_path}: hidden_act = {values['hidden_act']}; zhuyi has {', '.join(ACTIVATIONS)}"
        )
    names = PUBLISHED_NAMES[family]
    has = {name.removeprefix(names.prefix).rpartition(".")[0] for name in weights}
    heads = {
        ours.partition(".")[0]
        for ours, theirs in (*names.heads.items(), *names.body.items())
        if theirs in has
        and ours.partition(".")[0] in ("masked_word_head", "next_sentence_head", "classifier", "pooler")
    }
    table = weights.get(names.heads["masked_word_head.output_projection"] + ".weight")
    words = next(weights[name] for name in weights if name.endswith(names.body["token_embedding.weight"]))
    return {
        "name": "bert",
        "d_model": values["hidden_size"],
        "num_heads": values["num_attention_heads"],
        "d_ff": values["intermediate_size"],
        "num_layers": values["num_hidden_layers"],
        "dropout": values["hidden_dropout_prob"],
        "attention_dropout": values["attention_probs_dropout_prob"],
        "activation": ACTIVATIONS[values["hidden_act"]],
        "norm_epsilon": values["layer_norm_eps"],
        "max_len": values["max_position_embeddings"],
        "num_segments": values["type_vocab_size"],
        "pooler": "pooler" in heads,
        "pooler_activation": "relu" if family == "distilbert" else "tanh",
        "masked_word_head": "masked_word_head" in heads,
        "tie_embeddings": table is None or torch.equal(table, words),
        "next_sentence_head": "next_sentence_head" in heads,
        "num_labels": len(weights["classifier.weight"]) if "classifier" in heads else 0,
        "classifier_dropout": values.get("classifier_dropout", values["hidden_dropout_prob"]),
        "vocab_size": values["vocab_size"],
    }


POOLING = Keys(
    used="pooling_mode_mean_tokens word_embedding_dimension pooling_mode",
    irrelevant="include_prompt",
    only={f"pooling_mode_{kind}": (False,) for kind in ("cls_token", "max_tokens", "mean_sqrt_len_tokens")},
)
SENTENCES = Keys(
    used="prompts", irrelevant="__version__ similarity_fn_name model_type", only={"default_prompt_name": (None,)}
)
TEXTS = Keys(used="max_seq_length", only={"do_lower_case": (False,), "transformer_task": ("feature-extraction",)})


def read_sentence_encoder(folder: PublishedFolder, reach: int) -> tuple[int, tuple[str, ...]]:
    """How many tokens of a text are read, and notes; what sentence-transformers does must be what `embed` does.

    Raises: InputError: it pools another way, or has a module more.
    """
    path = folder.path / "modules.json"
    if not path.exists():
        return reach, ()
    SENTENCES.check(folder.json("config_sentence_transformers.json"), folder.path / "config_sentence_transformers.json")
    modules = folder.json_list("modules.json")
    kinds = [str(module.get("type")).rpartition(".")[2] for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        raise InputError(f"{path}: modules {', '.join(kinds)}; zhuyi has Transformer, Pooling and Normalize")
    pooling = folder.json(f"{modules[1]['path']}/config.json")
    POOLING.check(pooling, folder.path / modules[1]["path"] / "config.json")
    if not pooling.get("pooling_mode_mean_tokens") and pooling.get("pooling_mode") != "mean":
        raise InputError(f"{path}: the pooling is not the mean of tokens, which alone zhuyi has")
    told = folder.json("sentence_bert_config.json")
    TEXTS.check(told, folder.path / "sentence_bert_config.json")
    length = min(reach, int(told.get("max_seq_length") or reach))
    notes: tuple[str, ...] = (
        () if kinds[2:] else ("embeddings have length 1 here, and the published model leaves them as they are",)
    )
    if folder.json("config_sentence_transformers.json").get("prompts"):
        notes += ("the prompts of the published model are not put before texts: write them there",)
    return length, notes


def written_config(config: BertConfig, family: str, signs: Signs, labels: tuple[str, ...]) -> dict[str, Any]:
    """Their `config.json`."""
    activations = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    values: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.d_ff,
        "hidden_act": activations[config.activation],
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "max_position_embeddings": config.max_len,
        "classifier_dropout": config.classifier_dropout,
    }
    if family == "distilbert":
        values = {DISTILBERT.get(key, key): value for key, value in values.items()}
    else:
        values |= {"type_vocab_size": config.num_segments, "layer_norm_eps": config.norm_epsilon}
    if labels:
        values["id2label"] = {str(i): label for i, label in enumerate(labels)}
        values["label2id"] = {label: i for i, label in enumerate(labels)}
        values["problem_type"] = "single_label_classification"
    return values | {
        "architectures": [architecture(config, family)],
        "model_type": family,
        "dtype": "float32",
        "tie_word_embeddings": config.tie_embeddings,
        "pad_token_id": signs.pad,
    }


def family_of(config: BertConfig) -> str:
    """Whether it is a BERT or a DistilBERT.

    Raises: InputError: it is neither.
    """
    wanted: dict[str, Any] = {"pooling": "first", "pooler_activation": "tanh"}
    family = "bert"
    if not config.num_segments:
        family = "distilbert"
        wanted |= {"pooler_activation": "relu", "norm_epsilon": 1e-12, "next_sentence_head": False}
        wanted |= {"pooler": bool(config.num_labels)}
    for key, value in wanted.items():
        matters = key in ("norm_epsilon", "next_sentence_head", "pooler") or config.pooler
        if matters and getattr(config, key) != value:
            raise InputError(
                f"cannot export to hf: the model has {key} = {getattr(config, key)}, but that of a {family} is {value}"
                + (f"; train it with --set model.pooling={value}" if key == "pooling" else "")
            )
    return family


def inputs_of(family: str) -> list[str]:
    """What such a model reads, by their names."""
    return ["input_ids", "attention_mask"] + (["token_type_ids"] if family == "bert" else [])


def architecture(config: BertConfig, family: str) -> str:
    """The class of transformers that has this model's heads."""
    prefix = "DistilBert" if family == "distilbert" else "Bert"
    if config.num_labels:
        return f"{prefix}ForSequenceClassification"
    if config.next_sentence_head:
        return "BertForPreTraining" if config.masked_word_head else "BertForNextSentencePrediction"
    return f"{prefix}ForMaskedLM" if config.masked_word_head else f"{prefix}Model"
