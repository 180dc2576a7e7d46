"""ViT and DeiT, imported, compute what transformers does, and runs of our own become such."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.interop.published import randomize

import zhuyi
from zhuyi.config import parse_config
from zhuyi.data.images import open_picture, to_pixels
from zhuyi.errors import InputError
from zhuyi.interop import export, import_run
from zhuyi.models.vit import Vit, VitConfig, from_published
from zhuyi.run_folder import RunFolder, named_weights

SQUASHED = {"image_processor_type": "ViTImageProcessor", "size": {"height": 12, "width": 12}, "resample": 3}
CROPPED = {
    "image_processor_type": "DeiTImageProcessor", "do_resize": True, "size": 16, "resample": 1, "do_center_crop": True,
    "crop_size": {"height": 12, "width": 12}, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225],
}  # fmt: skip


def vit_folder(folder: Path, architecture: str, preprocessing: dict[str, Any] | None = None, **options: Any) -> Any:
    """A ViT or DeiT of random weights in a folder as published; returns transformers' model."""
    transformers = pytest.importorskip("transformers", reason="needs the extra peers")
    transformers.utils.logging.disable_progress_bar()
    values = {
        "hidden_size": 28, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 37, "image_size": 12,
        "patch_size": 4,
    }  # fmt: skip
    kind = transformers.DeiTConfig if architecture.startswith("DeiT") else transformers.ViTConfig
    torch.manual_seed(3)
    model = getattr(transformers, architecture)(kind(**(values | options))).eval()
    randomize(model, 1.0, {})
    model.save_pretrained(folder)
    if preprocessing is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing), encoding="utf-8")
    return model


VARIANTS: dict[str, tuple[str, dict[str, Any] | None, dict[str, Any]]] = {
    "vit": ("ViTModel", SQUASHED, {"hidden_act": "gelu_new", "pooler_output_size": 19, "pooler_act": "relu"}),
    "vit-labels": ("ViTForImageClassification", SQUASHED, {"num_labels": 5}),
    "vit-odd": (
        "ViTForImageClassification",
        None,
        {"hidden_size": 33, "num_attention_heads": 3, "image_size": [21, 21], "patch_size": 7, "layer_norm_eps": 1e-3},
    ),
    "vit-grey": ("ViTForImageClassification", None, {"num_channels": 1, "qkv_bias": False, "hidden_act": "relu"}),
    "vit-deep": ("ViTForImageClassification", None, {"num_hidden_layers": 5, "patch_size": 3, "num_labels": 2}),
    "deit": ("DeiTModel", CROPPED, {"hidden_act": "silu"}),
    "deit-labels": ("DeiTForImageClassification", CROPPED, {"num_labels": 7}),
    "deit-taught": ("DeiTForImageClassificationWithTeacher", CROPPED, {"num_labels": 3, "intermediate_size": 51}),
    "deit-odd": (
        "DeiTForImageClassificationWithTeacher",
        None,
        {"hidden_size": 39, "num_attention_heads": 3, "image_size": 15, "patch_size": 5},
    ),
    "deit-grey": ("DeiTForImageClassification", None, {"num_channels": 1, "qkv_bias": False, "num_hidden_layers": 1}),
}


@pytest.mark.peers
@pytest.mark.parametrize("variant", VARIANTS)
def test_in_and_out_again(variant: str, tmp_path: Path) -> None:
    """The comparison is of logits or states, also of larger pictures than the model was made for."""
    architecture, preprocessing, options = VARIANTS[variant]
    vit_folder(tmp_path / "hf", architecture, preprocessing, **options)
    comparison = import_run(tmp_path / "hf", tmp_path / "run")
    assert comparison.difference is not None and comparison.difference < 1e-5
    again = export(tmp_path / "run", "hf", tmp_path / "again")
    assert again.difference is not None and again.difference < 1e-5
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("hf", "again"))
    assert first.keys() <= second.keys()
    for name, weight in first.items():
        assert torch.equal(weight, second[name]), name
    zeros = [second[name] for name in second.keys() - first.keys()]  # of maps without a bias
    assert bool(zeros) == ("qkv_bias" in options) and not any(bias.any() for bias in zeros)


@pytest.mark.peers
@pytest.mark.parametrize("variant", ["vit-labels", "deit-taught"])
def test_probabilities_of_a_picture_are_theirs(variant: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    architecture, preprocessing, options = VARIANTS[variant]
    model = vit_folder(tmp_path / "hf", architecture, preprocessing, **options)
    import_run(tmp_path / "hf", tmp_path / "run")
    image = open_picture(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8), "noise")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "hf", backend="pil")
    with torch.no_grad():
        probs = model(**processor(image, return_tensors="pt")).logits.softmax(-1)[0]
    (found,) = zhuyi.load(tmp_path / "run").classify([image])
    assert list(found.probabilities.values()) == pytest.approx(probs.tolist(), abs=1e-5)
    assert found.label == model.config.id2label[int(probs.argmax())]


def write_published(folder: Path, config: dict[str, Any], preprocessing: dict[str, Any] | None = None) -> None:
    folder.mkdir()
    values = {"model_type": "vit", "hidden_size": 8, "num_attention_heads": 2, "image_size": 12, "patch_size": 4}
    (folder / "config.json").write_text(json.dumps(values | config), encoding="utf-8")
    save_file({"classifier.weight": torch.zeros(2, 8)}, folder / "model.safetensors")
    if preprocessing is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing), encoding="utf-8")


@pytest.mark.parametrize(
    ("config", "preprocessing", "message"),
    [
        ({"image_size": [12, 16]}, None, r"image_size = \[12, 16\], but zhuyi has squares alone"),
        ({"patch_size": [2, 4]}, None, r"patch_size = \[2, 4\]"),
        ({"hidden_act": "quick_gelu"}, None, "hidden_act = quick_gelu; zhuyi has gelu"),
        ({"pooler_act": "sigmoid"}, None, "pooler_act = sigmoid"),
        ({"problem_type": "multi_label_classification"}, None, "problem_type"),
        ({"layer_scale": 0.1}, None, "the key layer_scale = 0.1 is not known"),
        ({"architectures": ["ViTForMaskedImageModeling"]}, None, "a ViTForMaskedImageModeling cannot be imported"),
        ({}, {"size": 16}, r"pictures of size 16, crop_size None, but the model reads 12 x 12"),
        ({}, {"size": 12, "do_resize": False}, "do_resize = false has no counterpart"),
        ({}, {"size": 12, "rescale_factor": 0.5}, "rescale_factor = 0.5; zhuyi has 1 / 255"),
        ({}, {"size": 12, "resample": 4}, "resample = 4; zhuyi has 0, 1, 2, 3"),
        ({}, {"size": {"longest_edge": 12}}, "longest_edge"),
        ({}, {"size": 12, "do_pad": True}, "the key do_pad = true is not known"),
    ],
)
def test_what_cannot_be_taken_over_is_named(
    config: dict[str, Any], preprocessing: dict[str, Any] | None, message: str, tmp_path: Path
) -> None:
    write_published(tmp_path / "hf", config, preprocessing)
    with pytest.raises(InputError, match=message):
        import_run(tmp_path / "hf", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_that_are_missing_or_left_over_are_named() -> None:
    config = VitConfig(patch_size=2, d_model=4, num_heads=2, d_ff=3, num_layers=1, image_size=4, num_channels=1)
    wanted = named_weights(Vit(config))
    with pytest.raises(ValueError, match=r"no embeddings\.cls_token, which is class_token here"):
        from_published({}, wanted, config)
    with pytest.raises(ValueError, match=r"has vit2\.head, for which"):
        from_published({"vit2.head": torch.zeros(1)}, [], config)


def own_run(path: Path, **model: Any) -> Path:
    """A run of random weights, as training would leave it."""
    values = {
        "task": "image-classification",
        "model": {
            "name": "vit", "patch_size": 4, "d_model": 28, "num_heads": 2, "d_ff": 37, "num_layers": 2,
            "image_size": 12, "num_channels": 3, "num_labels": 2, **model,
        },
        "data": {"labels": ["cat", "dog"], "image_size": 12, "channels": 3, "mean": [0.4, 0.5, 0.6], "std": [1, 2, 3],
                 "fit": "stretch", "resample": "lanczos", "crop_share": 0.75},
        "train": {"max_steps": 1},
    }  # fmt: skip
    config = parse_config(values, "here")
    folder = RunFolder(path)
    folder.write_config(config)
    torch.manual_seed(3)
    folder.write_weights(named_weights(Vit(config.model)))
    return path


@pytest.mark.peers
@pytest.mark.parametrize("model", [{}, {"distillation_token": True, "distillation_head": True}])
def test_a_run_of_our_own(model: dict[str, Any], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    comparison = export(own_run(tmp_path / "run", **model), "hf", tmp_path / "hf")
    assert comparison.difference is not None and comparison.difference < 1e-5
    assert transformers.AutoConfig.from_pretrained(tmp_path / "hf").id2label == {0: "cat", 1: "dog"}
    import_run(tmp_path / "hf", tmp_path / "again")
    ours, again = zhuyi.load(tmp_path / "run"), zhuyi.load(tmp_path / "again")
    assert again.config.data.shape == ours.config.data.shape
    pixels = np.random.default_rng(0).integers(0, 256, (33, 20, 3), np.uint8)
    assert to_pixels(open_picture(pixels, "noise"), again.config.data.shape).shape == (16, 16, 3)
    (one,), (other,) = ours.classify([pixels]), again.classify([pixels])
    assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)


@pytest.mark.parametrize(
    ("model", "message"),
    [({"pooling": "mean"}, "pooling = mean"), ({"d_pooler": 8}, "d_pooler and labels")],
)
def test_what_they_cannot_express(model: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        export(own_run(tmp_path / "run", **model), "hf", tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_a_body_alone_has_no_labels_to_give(tmp_path: Path) -> None:
    path = own_run(tmp_path / "run", num_labels=0)
    values = json.loads((path / "config.json").read_text(encoding="utf-8"))
    values["data"]["labels"] = []
    (path / "config.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(InputError, match=r"this run has no labels.*--init RUN"):
        zhuyi.load(path).classify([np.zeros((8, 8), np.uint8)])
