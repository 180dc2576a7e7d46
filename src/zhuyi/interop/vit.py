"""ViT and DeiT as published, both ways, with how they want their pictures."""

from typing import Any

from zhuyi.data.images import Resample
from zhuyi.errors import InputError
from zhuyi.interop.published_folder import Imported, Keys, PublishedFolder
from zhuyi.models.vit import VitConfig, from_published

ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu-tanh", "relu": "relu", "silu": "silu", "swish": "silu"}
KEYS = Keys(
    used=(
        "hidden_size num_hidden_layers num_attention_heads intermediate_size hidden_act hidden_dropout_prob "
        "attention_probs_dropout_prob layer_norm_eps image_size patch_size num_channels qkv_bias pooler_output_size "
        "pooler_act num_labels"
    ),
    irrelevant="encoder_stride",  # of a head that paints pictures
    only={"is_encoder_decoder": (False,), "problem_type": ("single_label_classification",)},
)
ARCHITECTURES = (
    "ViTModel ViTForImageClassification DeiTModel DeiTForImageClassification DeiTForImageClassificationWithTeacher"
)
DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "layer_norm_eps": 1e-12,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "pooler_act": "tanh",
}
PREPROCESSING = Keys(
    used="size crop_size do_center_crop resample do_normalize image_mean image_std rescale_factor",
    irrelevant=(
        "image_processor_type feature_extractor_type processor_class data_format input_data_format return_tensors "
        "device disable_grouping default_to_square do_convert_rgb"
    ),
    only={"do_resize": (True,), "do_rescale": (True,)},
)
# By the numbers that pillow has for them.
RESAMPLING: dict[int, Resample] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def read_vit(folder: PublishedFolder) -> Imported:
    """A ViT or DeiT as a run of image classification; without a classifier it is there to be trained on.

    Raises: InputError: it is something that cannot be taken over.
    """
    KEYS.check(folder.config, folder.config_path)
    folder.check_architecture(ARCHITECTURES)
    weights = folder.weights()
    model = read_model(folder, set(weights))
    data, notes = read_preprocessing(folder, model)
    heads = [weight for name, weight in weights.items() if name in ("classifier.weight", "cls_classifier.weight")]
    model["num_labels"] = len(heads[0]) if heads else 0
    if heads:
        names = folder.config.get("id2label") or {str(i): f"LABEL_{i}" for i in range(model["num_labels"])}
        data["labels"] = [str(names[str(i)]) for i in range(model["num_labels"])]
    return Imported(
        task="image-classification",
        model=model,
        data=data,
        train={"batch_tokens": 32},  # pictures
        decode=None,
        tokenizers={},
        tokenizer_files=("preprocessor_config.json",),
        our_weights=lambda config, wanted: from_published(weights, wanted, config),
        notes=notes,
    )


def read_model(folder: PublishedFolder, names: set[str]) -> dict[str, Any]:
    """The section [model]: sizes by the config, tokens and heads by the weights that there are."""
    values = DEFAULTS | {key: value for key, value in folder.config.items() if value is not None}
    activations = {key: ACTIVATIONS for key in ("hidden_act",)} | {"pooler_act": ACTIVATIONS | {"tanh": "tanh"}}
    for key, known in activations.items():
        if values[key] not in known:
            raise InputError(f"{folder.config_path}: {key} = {values[key]}; zhuyi has {', '.join(known)}")
    bare = {name.removeprefix("vit.").removeprefix("deit.") for name in names}
    has_pooler = "pooler.dense.weight" in bare
    return {
        "name": "vit",
        "patch_size": one_side(values["patch_size"], "patch_size", folder),
        "d_model": values["hidden_size"],
        "num_heads": values["num_attention_heads"],
        "d_ff": values["intermediate_size"],
        "num_layers": values["num_hidden_layers"],
        "dropout": values["hidden_dropout_prob"],
        "attention_dropout": values["attention_probs_dropout_prob"],
        "activation": ACTIVATIONS[values["hidden_act"]],
        "norm_epsilon": values["layer_norm_eps"],
        "d_pooler": (values.get("pooler_output_size") or values["hidden_size"]) if has_pooler else 0,
        "pooler_activation": activations["pooler_act"][values["pooler_act"]],
        "distillation_token": "embeddings.distillation_token" in bare,
        "distillation_head": "distillation_classifier.weight" in bare,
        "image_size": one_side(values["image_size"], "image_size", folder),
        "num_channels": values["num_channels"],
    }


def one_side(value: Any, key: str, folder: PublishedFolder) -> int:
    """The side of a square.

    Raises: InputError: it is none.
    """
    sides = value if isinstance(value, list) else [value]
    if len(set(sides)) != 1:
        raise InputError(f"{folder.config_path}: {key} = {value}, but zhuyi has squares alone; it cannot be imported")
    return int(sides[0])


def read_preprocessing(folder: PublishedFolder, model: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The part of the section [data] that says how pictures become numbers, and notes.

    Raises: InputError: it is done in a way that zhuyi has not.
    """
    origin, size, channels = folder.path / "preprocessor_config.json", model["image_size"], model["num_channels"]
    said = {key: value for key, value in folder.json("preprocessor_config.json").items() if value is not None}
    PREPROCESSING.check(said, origin)
    values = {"size": size, "resample": 2, "image_mean": 0.5, "image_std": 0.5} | said
    edges = values["size"] if isinstance(values["size"], dict) else {"height": values["size"], "width": values["size"]}
    if set(edges) == {"shortest_edge"}:
        stored, fit = edges["shortest_edge"], "crop"
    elif set(edges) == {"height", "width"} and edges["height"] == edges["width"]:
        stored, fit = edges["height"], "stretch"
    else:
        raise InputError(f"{origin}: size = {values['size']}; zhuyi has height = width, or shortest_edge")
    read = stored
    if values.get("do_center_crop"):
        crop = values.get("crop_size", size)
        sides = set(crop.values()) if isinstance(crop, dict) else {crop}
        read = sides.pop() if len(sides) == 1 else 0
    if read != size or read > stored:
        raise InputError(
            f"{origin}: pictures of size {values['size']}, crop_size {values.get('crop_size')}, but the model reads "
            f"{size} x {size}; the files do not belong together"
        )
    if abs(values.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-3:
        raise InputError(f"{origin}: rescale_factor = {values['rescale_factor']}; zhuyi has 1 / 255")
    if values["resample"] not in RESAMPLING:
        raise InputError(f"{origin}: resample = {values['resample']}; zhuyi has {', '.join(map(str, RESAMPLING))}")
    mean, std = (values["image_mean"], values["image_std"]) if values.get("do_normalize", True) else (0.0, 1.0)
    data = {
        "image_size": size,
        "channels": channels,
        "fit": fit,
        "resample": RESAMPLING[values["resample"]],
        "crop_share": size / stored,
        "mean": mean if isinstance(mean, list) else [mean] * channels,
        "std": std if isinstance(std, list) else [std] * channels,
    }
    return data, () if said else ("there is no preprocessor_config.json: pictures are read as ViT's authors read them",)


def written_config(config: VitConfig, labels: tuple[str, ...]) -> dict[str, Any]:
    """Their `config.json`.

    Raises: InputError: they have no such model.
    """
    if config.pooling == "mean":
        raise InputError("cannot export to hf: the model has pooling = mean, but that of a vit is class")
    if config.d_pooler and config.num_labels:
        raise InputError("cannot export to hf: the model has d_pooler and labels, but a vit with labels has no pooler")
    activations = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    values: dict[str, Any] = {
        "architectures": [architecture(config)],
        "model_type": family_of(config),
        "hidden_size": config.d_model,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.d_ff,
        "hidden_act": activations[config.activation],
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "layer_norm_eps": config.norm_epsilon,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "num_channels": config.num_channels,
        "qkv_bias": True,
        "dtype": "float32",
    }
    if config.d_pooler:
        pooler_act = (activations | {"tanh": "tanh"})[config.pooler_activation]
        values |= {"pooler_output_size": config.d_pooler, "pooler_act": pooler_act}
    if labels:
        values["id2label"] = {str(i): label for i, label in enumerate(labels)}
        values["label2id"] = {label: i for i, label in enumerate(labels)}
    return values


def written_preprocessing(data: Any) -> dict[str, Any]:
    """Their `preprocessor_config.json`, of a run's section [data]."""
    stored, size = data.shape.size, data.image_size
    edges = {"shortest_edge": stored} if data.fit == "crop" else {"height": stored, "width": stored}
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": edges,
        "resample": {name: number for number, name in RESAMPLING.items()}[data.resample],
        "do_center_crop": data.fit == "crop" or stored != size,
        "crop_size": {"height": size, "width": size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(data.mean),
        "image_std": list(data.std),
    }


def family_of(config: VitConfig) -> str:
    """Whether it is a ViT or a DeiT."""
    return "deit" if config.distillation_token else "vit"


def architecture(config: VitConfig) -> str:
    """The class of transformers that has this model's heads."""
    prefix = "DeiT" if config.distillation_token else "ViT"
    if not config.num_labels:
        return f"{prefix}Model"
    return f"{prefix}ForImageClassification{'WithTeacher' * config.distillation_head}"
