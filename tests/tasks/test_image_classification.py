"""Labelled pictures: data, loss, scores, exact resume, a run that labels, and one that begins with another's body."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.tiny import train_tiny, zhuyi

from zhuyi import load
from zhuyi.config import RunConfig, parse_config
from zhuyi.errors import InputError
from zhuyi.evaluation import Wanted, evaluate_run
from zhuyi.predict import Classification, PictureClassifier
from zhuyi.run_folder import RunFolder
from zhuyi.streams import label_lines
from zhuyi.tasks.image_classification import ImageClassificationTask
from zhuyi.tasks.picture_data import PictureBatch, PictureDataConfig, prepare_pictures
from zhuyi.training import start
from zhuyi.visualize import View, draw

COLOURS = {"blue": (40, 60, 200), "red": (200, 50, 30)}


def write_pictures(folder: Path, count: int = 15, seed: int = 0) -> Path:
    """Noise about two colours, of sizes of their own."""
    rng = np.random.default_rng(seed)
    for label, colour in COLOURS.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            height, width = rng.integers(8, 20, 2)
            pixels = np.array(colour) + rng.integers(-40, 41, (height, width, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / label / f"{i}.png")
    return folder


def values(train: Path, data: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    return {
        "task": "image-classification",
        "model": {"name": "vit", "patch_size": 4, "d_model": 14, "num_heads": 2, "d_ff": 22, "num_layers": 2,
                  "dropout": 0.1, "stochastic_depth": 0.1},
        "data": {"train": [str(train)], "valid_size": 6, "image_size": 8, "crop_share": 0.8,
                 "augmentation": {"flip": True, "crop": 0.6, "erase": 0.3, "mixup": 0.2}, **(data or {})},
        "train": {"max_steps": 6, "batch_tokens": 7, "learning_rate": 0.01, "schedule": "constant", "warmup_steps": 3,
                  "precision": "float32", "eval_every_steps": 3, "save_every_steps": 3, "label_smoothing": 0.0,
                  **settings},
    }  # fmt: skip


def config_of(train: Path, data: dict[str, Any] | None = None, **settings: Any) -> RunConfig:
    return parse_config(values(train, data, **settings), "test")


def prepared(folder: Path, begun: bool = False, **data: Any) -> ImageClassificationTask:
    config = PictureDataConfig(**data)
    return ImageClassificationTask.prepare(config, None, folder, 7, 1, lambda message: None, begun=begun)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures") / "photos")


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labelled") / "run"
    train_tiny(config_of(photos, {"test": [str(photos)]}, max_steps=40, eval_every_steps=20), path)
    return path


@pytest.fixture(scope="module")
def classifier(run: Path) -> PictureClassifier:
    return load(run)


def test_colours_are_told_apart(run: Path, classifier: PictureClassifier, tmp_path: Path) -> None:
    assert classifier.labels == ("blue", "red")
    scores = evaluate_run(classifier, Wanted())
    assert scores["accuracy"] == scores["macro_f1"] == 1.0 and scores["pictures"] == 30
    others = write_pictures(tmp_path / "others", 4, seed=1)
    (others / "blue" / "1.png").write_text("no picture", encoding="utf-8")
    assert evaluate_run(classifier, Wanted([str(others)], output=tmp_path / "labels.txt"))["pictures"] == 7
    names = [(label, i) for label in COLOURS for i in range(4) if (label, i) != ("blue", 1)]
    lines = (tmp_path / "labels.txt").read_text(encoding="utf-8").splitlines()
    assert lines == [f"{others / label / str(i)}.png\t{label}" for label, i in names]


def test_sizes_and_numbers_are_found_in_the_data(run: Path) -> None:
    config = RunFolder(run).read_config()
    assert (config.model.image_size, config.model.num_channels, config.model.num_labels) == (8, 3, 2)
    assert config.data.labels == ("blue", "red") and config.data.channels == 3
    assert config.data.mean == pytest.approx((0.47, 0.22, 0.45), abs=0.05)
    task = prepared(run, train=config.data.train, image_size=8, crop_share=0.8, begun=True)
    pictures = task.batches("train").pictures
    pixels = pictures.pixels[pictures.rows] / 255
    np.testing.assert_allclose(config.data.mean, pixels.mean(axis=(0, 1, 2)), atol=1e-4)
    np.testing.assert_allclose(config.data.std, pixels.std(axis=(0, 1, 2)), atol=1e-4)


def test_of_each_label_a_share_is_held_out(run: Path, photos: Path) -> None:
    task = prepared(run, train=(str(photos),), begun=True, image_size=8, crop_share=0.8)
    train, valid = (task.batches(split).pictures for split in ("train", "valid"))
    assert sorted(valid.labels) == ["blue"] * 3 + ["red"] * 3 and len(train) == 24
    assert not set(train.names) & set(valid.names) and len({*train.names, *valid.names}) == 30


def test_equal_pictures_are_not_on_both_sides(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "photos", 10)
    for label in COLOURS:
        for i in range(10):
            shutil.copy(folder / label / f"{i}.png", folder / label / f"copy-{i}.png")
    task = prepared(tmp_path, train=(str(folder),), image_size=8, valid_size=8)
    stems = [
        {Path(name).stem.removeprefix("copy-") + label for name, label in zip(each.names, each.labels, strict=True)}
        for each in (task.batches(split).pictures for split in ("train", "valid"))
    ]
    assert stems[1] and not stems[0] & stems[1]


def test_bad_pictures_are_left_out_counted_and_named(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "photos")
    (folder / "red" / "text.png").write_text("not a picture", encoding="utf-8")
    (folder / "red" / "cut.png").write_bytes((folder / "red" / "0.png").read_bytes()[:90])
    Image.new("L", (1, 1)).save(folder / "blue" / "dot.png")
    (folder / "blue" / "link.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(folder / "red" / "pipe.png")
    _, log = train_tiny(config_of(folder, max_steps=1), tmp_path / "run")
    said = "\n".join(log.said)
    assert "30 of 35 pictures kept" in said
    assert "2 left out: cannot be opened (" in said and "link.png" in said and "pipe.png" in said
    for name, reason in (("text", "not a picture"), ("cut", "cut short or damaged"), ("dot", "too small")):
        assert f"1 left out: {reason} (" in said and f"{name}.png" in said
    report = json.loads((tmp_path / "run" / "cache" / "cleaning.json").read_text(encoding="utf-8"))
    reasons = {"not a picture": 1, "cut short or damaged": 1, "too small": 1, "cannot be opened": 2}
    assert report["dropped"] == reasons


def test_pictures_of_many_sizes_want_one(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pictures are from 8 to 19 pixels a side; set data.image_size"):
        prepared(tmp_path, train=(str(photos),))
    (tmp_path / "bad" / "a").mkdir(parents=True)
    (tmp_path / "bad" / "a" / "a.png").write_text("text", encoding="utf-8")
    with pytest.raises(InputError, match="no picture can be read: 0 of 1 pictures kept"):
        prepared(tmp_path, train=(str(tmp_path / "bad"),), image_size=8, channels=3)


def test_a_size_that_patches_do_not_divide_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="image_size = 10 is not divisible by patch_size = 4"):
        train_tiny(config_of(photos, {"image_size": 10}), tmp_path / "run")
    wrong = values(photos)
    wrong["model"]["num_channels"] = 1
    with pytest.raises(InputError, match=r"model\.num_channels = 1, but the data have 3; leave it out"):
        train_tiny(parse_config(wrong, "test"), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_label_that_training_has_not_is_refused(photos: Path, classifier: PictureClassifier, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "photos", 2)
    (folder / "blue").rename(folder / "azure")
    message = r"azure/0\.png: the label 'azure' is none of the model's \(blue, red\)"
    with pytest.raises(InputError, match=message):
        evaluate_run(classifier, Wanted([str(folder)]))
    with pytest.raises(InputError, match=message):
        train_tiny(config_of(photos, {"valid": [str(folder)]}), tmp_path / "run")


def test_the_loss_is_torchs(classifier: PictureClassifier) -> None:
    task = object.__new__(ImageClassificationTask)
    images, labels = torch.randn(5, 3, 8, 8), torch.tensor([0, 1, 1, 0, 1])
    with torch.no_grad():
        logits = classifier.model(images)
        log_probs = logits.log_softmax(-1)
        for smoothing in (0.0, 0.2):
            loss, nll, count = task.loss(classifier.model, PictureBatch(images, labels), smoothing=smoothing)
            expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)
            assert count == 5 and float(loss) == pytest.approx(5 * float(expected), rel=1e-5)
            assert float(nll) == pytest.approx(-float(log_probs[range(5), labels].sum()), rel=1e-5)
        shares = torch.tensor([0.5, 0.1, 1.0, 0.0, 0.3])
        wanted = shares[:, None] * torch.eye(2)[labels] + (1 - shares)[:, None] * torch.eye(2)[labels.roll(-1)]
        loss, nll, _ = task.loss(classifier.model, PictureBatch(images, labels, shares))
        assert float(loss) == float(nll) == pytest.approx(-float((wanted * log_probs).sum()), rel=1e-5)


def test_a_batch_is_drawn_from_seed_and_epoch_alone(run: Path, photos: Path) -> None:
    config = RunFolder(run).read_config().data
    found = []
    for seed in (1, 1, 2):
        task = ImageClassificationTask.prepare(config, None, run, 7, seed, lambda message: None, begun=True)
        batches = task.batches("train")
        found.append([batches.load(batches.order(epoch)[2]).images for epoch in (0, 1)])
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
    assert not torch.equal(found[0][0], found[2][0])
    batches = task.batches("train")
    rows = np.arange(5)
    assert not torch.equal(batches.load(rows).images, batches.load(rows + len(batches)).images)
    valid = task.batches("valid")
    assert torch.equal(valid.load(rows).images, valid.load(rows + len(valid)).images)  # nothing is done to these
    assert sorted(np.concatenate(batches.order(1)) - len(batches)) == list(range(24))


def test_six_steps_are_three_a_resume_and_three(photos: Path, tmp_path: Path) -> None:
    """Also after the pictures are gone."""
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    whole = config_of(folder)
    train_tiny(whole, tmp_path / "whole")
    train_tiny(replace(whole, train=replace(whole.train, max_steps=3)), tmp_path / "run")
    shutil.rmtree(folder)
    run = RunFolder(tmp_path / "run")
    longer = run.read_config()
    run.write_config(replace(longer, train=replace(longer.train, max_steps=6)))
    _, log = train_tiny(longer, tmp_path / "run", resume=True)
    assert not any("kept" in line for line in log.said)  # nothing was read anew
    assert run.weights_path.read_bytes() == RunFolder(tmp_path / "whole").weights_path.read_bytes()


def test_other_options_read_the_pictures_anew(photos: Path, tmp_path: Path) -> None:
    said: list[str] = []
    config = PictureDataConfig(train=(str(photos),), image_size=8, valid_size=6)
    for changed in (config, config, replace(config, image_size=12), replace(config, mean=(0.5, 0.5, 0.5))):
        prepare_pictures(changed, tmp_path, 1, said.append, begun=False)
    assert sum("pictures kept" in line for line in said) == 3  # the second found all there


def test_answers_of_pictures_in_every_form(classifier: PictureClassifier, photos: Path) -> None:
    path = photos / "red" / "3.png"
    image = Image.open(path)
    found = classifier.classify([path, str(path), image, np.asarray(image)])
    assert [each.label for each in found] == ["red"] * 4
    assert len({each.probability for each in found}) == 1
    assert sum(found[0].probabilities.values()) == pytest.approx(1)
    assert classifier.classify([]) == []
    assert classifier.classify([np.full((9, 9), 90, np.uint8)])[0].flags == ()  # grey becomes colours
    with pytest.raises(InputError, match=r"write \[picture\]"):
        classifier.classify("a.png")
    with pytest.raises(InputError, match=r"nowhere\.png"):
        classifier.classify([path, "nowhere.png"])
    answers = list(classifier.stream([path, "nowhere.png", path]))
    assert [isinstance(each, Classification) for each in answers] == [True, False, True]


def test_a_line_for_each_picture(
    classifier: PictureClassifier, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.png").write_text("text", encoding="utf-8")
    warned: list[str] = []
    texts = [str(photos / "red" / "1.png"), str(tmp_path / "bad.png"), str(photos / "blue")]

    def lines(texts: list[str], as_json: bool = False) -> list[str]:
        options: dict[str, Any] = {"input_path": None, "output_path": None, "as_json": as_json}
        label_lines(classifier, texts=texts, warn=warned.append, **options)
        return capsys.readouterr().out.splitlines()

    found = [line.split("\t") for line in lines(texts)]
    assert len(found) == 17 and found[0][1] == "red" and found[1][1:] == ["", ""]
    assert {row[1] for row in found[2:]} == {"blue"} and found[2][0].startswith(str(photos / "blue"))
    assert len(warned) == 2 and "bad.png: not a picture" in warned[0]
    assert warned[1] == "1 of 17 pictures cannot be read"
    rows = list(map(json.loads, lines(texts, as_json=True)))
    assert rows[0]["label"] == "red" and rows[1]["label"] is None and "not a picture" in rows[1]["error"]
    with pytest.raises(InputError, match=r"bad\.png: not a picture"):
        lines([str(tmp_path / "bad.png")])
    with pytest.raises(InputError, match="none of 2 pictures can be read"):
        lines([str(tmp_path / "bad.png")] * 2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no picture in"):
        lines([str(tmp_path / "empty")])


def test_lower_precisions_agree(run: Path, classifier: PictureClassifier, photos: Path) -> None:
    paths = sorted(photos.rglob("*.png"))[::7]
    for name in ("bfloat16", "int8"):
        for near, each in zip(load(run, name).classify(paths), classifier.classify(paths), strict=True):
            assert near.probability == pytest.approx(each.probability, abs=0.05)


def test_numbered_labels_and_grey_pictures_of_arrays(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), np.uint8)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(20) % 10)
    data = {"train": [str(tmp_path / "a.npz")], "valid": [str(tmp_path / "a.npz")], "image_size": 0, "crop_share": 1.0}
    _, log = train_tiny(config_of(tmp_path, data, max_steps=1), tmp_path / "run")
    config = RunFolder(tmp_path / "run").read_config()
    assert config.data.labels == tuple("0123456789")
    assert (config.model.image_size, config.model.num_channels) == (8, 1)
    assert any(line.startswith("validation: 20 of 20 pictures") for line in log.said)
    assert load(tmp_path / "run").classify([np.zeros((30, 20, 3), np.uint8)])[0].label in config.data.labels


# Beginning with another run, or with nothing but a folder


def choose(out: Path, init: str = "", task: str = "image-classification", **files: list[str]) -> RunConfig:
    given = {"train": [], "valid": [], "test": [], **files}
    return start.choose_config(None, RunFolder(out), False, [], task, ("", ""), given, None, print, init=init)


def test_without_a_recipe_one_is_made(photos: Path, tmp_path: Path) -> None:
    config = choose(tmp_path / "new", train=[str(photos)])
    assert config.model.name == "vit" and config.data.channels == 3 and config.data.augmentation.flip
    assert config.data.image_size % config.model.patch_size == 0
    assert (tmp_path / "new" / "recipe.toml").exists()
    (tmp_path / "bad" / "a").mkdir(parents=True)
    (tmp_path / "bad" / "a" / "a.png").write_text("text", encoding="utf-8")
    with pytest.raises(InputError, match=r"none of 1 pictures can be read, .*a\.png for one"):
        choose(tmp_path / "other", train=[str(tmp_path / "bad")])


def test_a_body_is_gone_on_with_at_another_size(run: Path, photos: Path, tmp_path: Path) -> None:
    changed = values(photos, {"image_size": 12}, max_steps=1, learning_rate=1e-9, init=str(run))
    del changed["model"]
    config = parse_config(start._with_body(changed), "test")
    _, log = train_tiny(config, tmp_path / "run")
    assert any(line.startswith(f"Beginning with the weights of {run}") for line in log.said)
    before, after = RunFolder(run).read_weights(), RunFolder(tmp_path / "run").read_weights()
    assert before["positions.table"].shape == (5, 14) and after["positions.table"].shape == (10, 14)
    for name, weight in before.items():
        if name != "positions.table":
            torch.testing.assert_close(after[name], weight, rtol=0, atol=1e-6)
    torch.testing.assert_close(after["positions.table"][0], before["positions.table"][0], rtol=0, atol=1e-6)


def test_a_run_learns_other_labels(run: Path, photos: Path, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "photos")
    (folder / "blue").rename(folder / "azure")
    config = choose(tmp_path / "run", str(run), "", train=[str(folder)])  # the task is the run's
    assert config.task == "image-classification" and config.model.d_model == 14 and config.train.init == str(run)
    assert config.data.image_size == 8 and config.data.mean == RunFolder(run).read_config().data.mean
    train_tiny(replace(config, train=replace(config.train, max_steps=1)), tmp_path / "run")
    assert load(tmp_path / "run").labels == ("azure", "red")


def test_a_picture_of_what_was_looked_at(classifier: PictureClassifier, photos: Path, tmp_path: Path) -> None:
    picture = str(photos / "red" / "0.png")
    for i, options in enumerate(({}, {"head": 2}, {"layer": 1}, {"rollout": True})):
        draw(classifier, picture, tmp_path / f"{i}.png", View(**options))
    assert len({(tmp_path / f"{i}.png").read_bytes() for i in range(4)}) == 4
    for wrong, message in (
        ({"layer": 3}, "there is no layer 3; the model has 2"),
        ({"head": 0}, "there is no head 0"),
        ({"rollout": True, "head": 1}, "leave --layer and --head out"),
        ({"target": "x"}, "--target does not apply to a run of image-classification; leave it out"),
        ({"place": "nonsense", "sensor": "3"}, "--place, --sensor do not apply"),
    ):
        with pytest.raises(InputError, match=message):
            draw(classifier, picture, tmp_path / "x.png", View(**wrong))
    with pytest.raises(InputError, match=r"ends in \.svg"):
        draw(classifier, picture, tmp_path / "x.svg")


def test_the_commands(run: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_text("text", encoding="utf-8")
    found = zhuyi("classify", run, photos / "red" / "0.png", tmp_path / "bad.png")
    assert found.returncode == 0, found.stderr
    first, second = found.stdout.splitlines()
    assert first.split("\t")[:2] == [str(photos / "red" / "0.png"), "red"] and second == f"{tmp_path}/bad.png\t\t"
    assert "bad.png: not a picture" in found.stderr and len(found.stderr.splitlines()) == 2
    found = zhuyi("classify", run, tmp_path / "bad.png")
    assert found.returncode == 2 and found.stdout == "" and len(found.stderr.splitlines()) == 1
    found = zhuyi("attention", run, photos / "red" / "0.png", "--out", tmp_path / "o.png", "--rollout")
    assert found.returncode == 0 and (tmp_path / "o.png").exists(), found.stderr


def test_the_config_refuses_what_cannot_be() -> None:
    for wrong, message in (
        ({"labels": ("a", "a")}, "a name twice"),
        ({"channels": 2}, "channels is 1"),
        ({"channels": 3, "mean": (0.5,)}, "mean has 1 numbers for 3 channels"),
        ({"std": (0.0,)}, "std must be above 0"),
        ({"crop_share": 0.0}, "crop_share lies in"),
        ({"valid_size": 0}, "valid_size must be at least 1"),
        ({"image_size": -1}, "image_size must be at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            PictureDataConfig(**wrong)  # type: ignore[arg-type]
