"""What is ViT's own: patches, positions of other sizes, pooling, distillation, layers gone past."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zhuyi.models.vit import PUBLISHED_SIZES, Vit, VitConfig, cut_into_patches, resize_positions

TINY = VitConfig(
    patch_size=3, d_model=14, num_heads=2, d_ff=22, num_layers=4, image_size=12, num_channels=2, num_labels=5
)


def some_images(rows: int = 3, size: int = 12) -> Tensor:
    return torch.randn(rows, 2, size, size, generator=torch.Generator().manual_seed(1))


def built(config: VitConfig = TINY, **changes: Any) -> Vit:
    torch.manual_seed(2)
    return Vit(replace(config, **changes)).eval()


def test_patches_are_cut_row_by_row() -> None:
    images = torch.randn(2, 3, 6, 10)
    patches = cut_into_patches(images, 2)
    assert patches.shape == (2, 15, 12)
    for row in range(3):
        for column in range(5):
            square = images[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            assert torch.equal(patches[:, 5 * row + column], square.flatten(1))
    with pytest.raises(ValueError, match=r"6 x 10 pixels cannot be cut into patches of 3 x 3"):
        cut_into_patches(images, 3)


def test_the_projection_is_a_convolution_with_its_own_stride() -> None:
    """As the papers' code has it."""
    model, images = built(), some_images()
    weight = model.patch_projection.weight.view(14, 2, 3, 3)
    expected = F.conv2d(images, weight, model.patch_projection.bias, stride=3).flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.patch_projection(cut_into_patches(images, 3)), expected, rtol=0, atol=1e-5)


def test_positions_are_resized_as_a_picture_is() -> None:
    table = torch.randn(2 + 9, 7)
    assert resize_positions(table, 2, (3, 3)) is table
    found = resize_positions(table, 2, (4, 6))
    assert found.shape == (2 + 24, 7) and torch.equal(found[:2], table[:2])
    picture = table[2:].view(3, 3, 7).permute(2, 0, 1)[None]
    expected = F.interpolate(picture, (4, 6), mode="bicubic", align_corners=False)[0].permute(1, 2, 0).reshape(24, 7)
    torch.testing.assert_close(found[2:], expected)


def test_another_size_reads_by_resized_positions() -> None:
    """As a model would whose own positions these are."""
    model = built()
    larger = built(image_size=15)
    larger.load_state_dict(model.state_dict() | {"positions.table": resize_positions(model.positions.table, 1, (5, 5))})
    with torch.no_grad():
        images = some_images(size=15)
        torch.testing.assert_close(model(images), larger(images))


def test_weights_are_fitted_to_the_size_of_the_pictures() -> None:
    model, larger = built(), built(image_size=15)
    weights = {name: each.detach() for name, each in model.named_parameters()}
    found = larger.fitted(weights)
    assert found["positions.table"].shape == larger.positions.table.shape
    assert torch.equal(found["classifier.weight"], weights["classifier.weight"])
    assert built(pooling="mean").fitted(weights)["positions.table"].shape == (17, 14)  # no square: left as it is


def test_what_is_pooled() -> None:
    images = some_images()
    with torch.no_grad():
        model = built()
        torch.testing.assert_close(model(images), model.classifier(model.states(images)[:, 0]))
        mean = built(pooling="mean")
        assert mean.class_token is None and mean.states(images).shape == (3, 16, 14)
        torch.testing.assert_close(mean(images), mean.classifier(mean.states(images).mean(dim=1)))
        pooled = built(d_pooler=9)
        states = torch.tanh(pooled.pooler(pooled.states(images)[:, 0]))
        torch.testing.assert_close(pooled(images), pooled.classifier(states))
        assert torch.equal(built(num_labels=0)(images), built(num_labels=0).states(images)[:, 0])


def test_a_distilled_model_answers_by_both_of_its_tokens() -> None:
    model, images = built(distillation_token=True, distillation_head=True), some_images()
    with torch.no_grad():
        x = model.states(images)
        assert x.shape == (3, 18, 14)
        expected = (model.classifier(x[:, 0]) + model.distillation_classifier(x[:, 1])) / 2
        torch.testing.assert_close(model(images), expected)
        one = built(distillation_token=True)
        torch.testing.assert_close(one(images), one.classifier(one.states(images)[:, 0]))


def test_layers_are_gone_past_in_training_alone() -> None:
    images = some_images(400)
    plain, model = built(num_layers=2), built(num_layers=2, stochastic_depth=0.25)
    with torch.no_grad():
        assert torch.equal(plain(images), model(images))
        x = plain.encoder_layers[0](_embedded(plain, images), None)
        y = plain.encoder_layers[1](x, None)
        model.train()
        torch.manual_seed(0)
        found = model.states(images)
        past, through = model.encoder_norm(x), model.encoder_norm(x + (y - x) / 0.75)
        are_past = (found - past).abs().amax(dim=(1, 2)) < 1e-5
        torch.testing.assert_close(found[~are_past], through[~are_past])
    assert 60 < int(are_past.sum()) < 140


def _embedded(model: Vit, images: Tensor) -> Tensor:
    x = model.patch_projection(cut_into_patches(images, 3))
    assert model.class_token is not None
    return torch.cat([model.class_token.expand(len(x), 1, -1), x], dim=1) + model.positions.table


def test_published_sizes_have_the_published_numbers_of_parameters() -> None:
    """In millions: Dosovitskiy et al. 2021, table 1 (without the head), and Touvron et al. 2021, table 1 (with it)."""
    published = {"base-16": 86, "large-16": 304, "huge-14": 632, "deit-tiny-16": 5.7, "deit-small-16": 22.1}
    for name, millions in published.items():
        labels = 1000 if name.startswith("deit") else 0
        config = replace(PUBLISHED_SIZES[name], image_size=224, num_channels=3, num_labels=labels)
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in Vit(config).parameters())
        assert count / 1e6 == pytest.approx(millions, rel=0.01), name


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image_size": 13}, "image_size = 13 is not divisible by patch_size = 3"),
        ({"num_heads": 3}, "d_model = 14 is not divisible by num_heads = 3"),
        ({"pooling": "mean", "distillation_token": True}, "pooling = mean has none"),
        ({"distillation_head": True}, "set distillation_token"),
        ({"stochastic_depth": 1.0}, "stochastic_depth must lie in"),
        ({"patch_size": 0}, "patch_size must be at least 1"),
        ({"num_labels": -1}, "num_labels must be at least 0"),
        ({"norm_epsilon": 0.0}, "norm_epsilon must be above 0"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **wrong)


def test_a_body_has_no_heads_and_no_size() -> None:
    config = replace(TINY, distillation_token=True, distillation_head=True, d_pooler=8)
    assert config.body() == replace(config, distillation_head=False, d_pooler=0, num_labels=0, image_size=0)
