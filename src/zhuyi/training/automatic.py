"""A recipe for somebody's own data, from its counts and the machine's: the same facts, the same recipe."""

import contextlib
import copy
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from zhuyi.config import RunConfig, apply_change, parse_config
from zhuyi.data.audio import SAMPLE_RATE_HZ
from zhuyi.data.images import BadPicture, Picture, list_pictures, look
from zhuyi.data.labelled_texts import read_all_texts
from zhuyi.data.normalization import count_han
from zhuyi.data.pairs import CleaningReport, CleaningRules, clean_pairs, read_lines
from zhuyi.data.recordings import Names, read_recordings
from zhuyi.data.texts import read_documents
from zhuyi.data.traffic import MINUTES_A_DAY
from zhuyi.errors import InputError
from zhuyi.machine import memory_gib, num_cores
from zhuyi.run_folder import RunFolder
from zhuyi.tasks.forecasting import SensorDataConfig, split_tables
from zhuyi.tasks.speech_data import POSITIONS_A_SECOND
from zhuyi.tasks.text_classification import LabelledDataConfig


@dataclass(frozen=True)
class Given:
    """What the command line tells of the data where there is no recipe.

    Args:   files: by split; there are some for `train`.
            languages: source and target, each empty where not given.
            columns: which columns of a file hold what is wanted; None where not given.
            init: the folder of a run to begin with.
            changes: of the recipe, as --set has them; of use where the data cannot be read without.
            prefix: of a text-to-text run that learns on; None where not given.
    """

    files: Mapping[str, Sequence[str]]
    languages: tuple[str, str] = ("", "")
    columns: tuple[int, ...] | None = None
    init: Path | None = None
    changes: Sequence[str] = ()
    prefix: str | None = None


@dataclass(frozen=True)
class Size:
    """A model, up to how many pairs it suits, and how it is trained.

    The smallest models are regularised most: dropout is what keeps them from learning their few pairs by heart.
    """

    up_to_pairs: float
    d_model: int
    num_heads: int
    layers: tuple[int, int]
    vocab_size: int
    dropout: float
    batch_tokens: int
    learning_rate: float
    warmup_steps: int
    pairs_seen: int


SIZES = (
    Size(3_000, 128, 4, (2, 2), 2_000, 0.3, 768, 2e-3, 300, 150_000),
    Size(20_000, 192, 4, (3, 3), 4_000, 0.3, 1_024, 1.5e-3, 400, 600_000),
    Size(100_000, 256, 4, (4, 3), 8_000, 0.2, 1_536, 1e-3, 600, 2_000_000),
    Size(1_000_000, 384, 6, (6, 3), 16_000, 0.15, 4_096, 1e-3, 2_000, 10_000_000),
    Size(float("inf"), 512, 8, (6, 6), 32_000, 0.1, 8_192, 7e-4, 4_000, 40_000_000),
)
# Without a GPU, a model of the largest size would take weeks: the next smaller one then, unless there are many cores.
CORES_FOR_LARGEST = 32
# A hundred pairs are a batch or two an epoch: eighty epochs would end while the learning rate still rises.
LEAST_STEPS = 1_000


def automatic_recipe(
    source: str, target: str, train: Sequence[str], columns: tuple[int, ...], extra: dict[str, Sequence[str]]
) -> tuple[dict[str, Any], list[str]]:
    """The recipe as plain values, and why each choice was made.

    Args:   extra: the `valid` and `test` files, where given.
    Raises: InputError: a file is missing or holds no usable pair.
    """
    report = CleaningReport()
    pairs = characters = 0
    for pair in clean_pairs(train, CleaningRules(), columns=columns, report=report):
        pairs += 1
        characters += len(pair.source) + len(pair.target)
    size, why_size = _choose_size(pairs)
    vocab_size = min(size.vocab_size, max(200, characters // 40))
    # A processor's memory bounds the batch, some 2 MiB for each padded token and 512 of width at training.
    batch_tokens = min(size.batch_tokens, int(memory_gib() * 2**30 / 4 / (4096 * size.d_model)))
    batch_tokens = max(512, batch_tokens)
    steps_an_epoch = max(1, round(pairs * (characters / pairs / 2 / 2.5 + 2) / batch_tokens))
    epochs = max(8, min(80, size.pairs_seen // pairs), LEAST_STEPS // steps_an_epoch)
    evaluate = max(50, min(2000, steps_an_epoch * epochs // 20))
    values = {
        "task": "translation",
        "model": {
            "name": "transformer",
            "d_model": size.d_model,
            "num_heads": size.num_heads,
            "d_ff": 4 * size.d_model,
            "num_encoder_layers": size.layers[0],
            "num_decoder_layers": size.layers[1],
            "dropout": size.dropout,
            "norm_first": True,
            "max_len": 256,
        },
        "data": {
            "source": source,
            "target": target,
            "train": list(train),
            **{split: list(files) for split, files in extra.items() if files},
            "columns": list(columns),
            "valid_size": max(20, min(1000, pairs // 20)),
            "max_len": 128,
            "tokenizer": {"kind": "unigram", "vocab_size": vocab_size},
        },
        "train": {
            "max_epochs": epochs,
            "batch_tokens": batch_tokens,
            "learning_rate": size.learning_rate,
            "schedule": "inverse-sqrt",
            "warmup_steps": size.warmup_steps,
            "eval_every_steps": evaluate,
            "save_every_steps": evaluate,
            "patience": 8,
            "average": "last",
            "average_checkpoints": 5,
        },
    }
    return values, [
        report.summary(),
        why_size,
        "normalisation before each sublayer: it learns in fewer steps than after it",
        f"vocabulary {vocab_size:,}: at most {size.vocab_size:,} at this size, and a piece for 40 characters of text",
        f"batches of {batch_tokens:,} tokens: few pairs want small ones; {memory_gib():.0f} GiB of memory bear them",
        f"at most {epochs} epochs, about {epochs * pairs:,} pairs seen; fewer if 8 evaluations bring no better BLEU",
    ]


def _recipe_for_pairs(given: Given) -> tuple[dict[str, Any], list[str]]:
    if not all(given.languages):
        raise InputError("give the languages too: --source zh --target en, say")
    extra = {split: given.files[split] for split in ("valid", "test")}
    return automatic_recipe(*given.languages, given.files["train"], given.columns or (1, 2), extra)


@dataclass(frozen=True)
class EncoderSize:
    """An encoder, up to how many labelled texts it suits, and how it is trained from random weights."""

    up_to_texts: float
    d_model: int
    num_heads: int
    num_layers: int
    vocab_size: int
    dropout: float
    learning_rate: float
    epochs: int


ENCODER_SIZES = (
    EncoderSize(3_000, 128, 4, 2, 2_000, 0.3, 5e-4, 30),
    EncoderSize(30_000, 192, 4, 2, 6_000, 0.3, 5e-4, 15),
    EncoderSize(300_000, 256, 4, 4, 12_000, 0.2, 4e-4, 8),
    EncoderSize(float("inf"), 384, 6, 6, 24_000, 0.1, 3e-4, 4),
)
# A body that has learnt already is moved carefully, the more so the wider it is: 2.6e-5 at 768, as BERT's authors did.
LEARNING_RATE_TIMES_WIDTH = 0.02
EPOCHS_FROM_INIT = 4
LONGEST_TEXT = 256  # tokens; attention's cost grows with the square, and a text's drift shows before that


def _recipe_for_labelled_texts(given: Given) -> tuple[dict[str, Any], list[str]]:
    data = _labelled_data(given)
    report = CleaningReport(things="texts")
    texts = read_all_texts(given.files["train"], data.layout, report)
    lengths = [sum(_about_tokens(text) for text in (each.text, each.second) if text) for each in texts]
    size = next(size for size in ENCODER_SIZES if len(lengths) <= size.up_to_texts)
    max_len = min(LONGEST_TEXT, max(16, 2 + sorted(lengths)[int(0.98 * (len(lengths) - 1))]))
    vocab_size = min(size.vocab_size, max(300, sum(lengths) // 20))
    model = {
        "name": "bert",
        "d_model": size.d_model,
        "num_heads": size.num_heads,
        "d_ff": 4 * size.d_model,
        "num_layers": size.num_layers,
        "dropout": size.dropout,
        "classifier_dropout": size.dropout,
        "pooling": "mean",
        "max_len": max_len,
    }
    rate, epochs, why = size.learning_rate, size.epochs, f"{size.num_layers} layers of width {size.d_model}"
    if given.init:
        begun = RunFolder(given.init).read_config()
        max_len = min(max_len, begun.model.max_len)
        rate, epochs, why = (
            LEARNING_RATE_TIMES_WIDTH / begun.model.d_model,
            EPOCHS_FROM_INIT,
            f"begins with {given.init}",
        )
    batch_tokens = 32 * max(16, min(max_len, sum(lengths) // len(lengths)))
    steps = max(1, sum(min(length + 2, max_len) for length in lengths) // batch_tokens)  # an epoch
    values = {
        "task": "text-classification",
        **({} if given.init else {"model": model}),
        "data": {
            **{split: list(files) for split, files in given.files.items() if files},
            "columns": list(data.columns),
            "valid_size": max(10, min(1000, len(lengths) // 10)),
            "max_len": max_len,
            "tokenizer": {"kind": "unigram", "vocab_size": vocab_size},
        },
        "train": {
            "max_steps": epochs * steps,
            "batch_tokens": batch_tokens,
            "learning_rate": rate,
            "schedule": "linear",
            "warmup_steps": epochs * steps // 10,
            "betas": [0.9, 0.999],
            "weight_decay": 0.01,
            "label_smoothing": 0.0,
            "eval_every_steps": steps,
            "save_every_steps": steps,
            "patience": max(3, epochs // 3),
            "average_checkpoints": 3,
        },
    }
    return values, [
        report.summary(),
        f"{why}: for {len(lengths):,} texts",
        f"rows of {max_len} tokens at most: of 2 in 100 texts the end is cut",
        f"batches of {batch_tokens:,} tokens, some 32 texts; {epochs} epochs of {steps:,} steps",
    ]


def _labelled_data(given: Given) -> LabelledDataConfig:
    """How the files are to be read, by the options given."""
    asked: dict[str, Any] = {
        "task": "text-classification",
        "model": {"name": "bert"},
        "data": {"columns": list(given.columns)} if given.columns else {},
        "train": {"max_steps": 1},
    }
    for change in given.changes:
        if change.strip().startswith("data."):  # the rest is of a recipe that is not there yet
            apply_change(asked, change)
    data: LabelledDataConfig = parse_config(asked, "the options given").data
    return data


@dataclass(frozen=True)
class PictureSize:
    """A ViT, up to how many labelled pictures it suits, and how it is trained from random weights."""

    up_to_pictures: float
    d_model: int
    num_heads: int
    num_layers: int
    stochastic_depth: float
    learning_rate: float
    epochs: int


PICTURE_SIZES = (
    PictureSize(3_000, 64, 4, 4, 0.0, 1e-3, 100),
    PictureSize(30_000, 128, 4, 6, 0.1, 1e-3, 60),
    PictureSize(300_000, 192, 6, 8, 0.1, 8e-4, 30),
    PictureSize(float("inf"), 384, 6, 12, 0.1, 5e-4, 20),
)
# Without a GPU larger ones would take days; so many patches a side tell most things apart.
LARGEST_SIDE, LARGEST_SIDE_ON_GPU = 64, 128
PATCHES_A_SIDE = 8
PICTURES_TOGETHER = 64
EPOCHS_OF_PICTURES_FROM_INIT = 10


def _recipe_for_pictures(given: Given) -> tuple[dict[str, Any], list[str]]:
    report = CleaningReport(things="files")
    pictures = list_pictures(given.files["train"], (), report)
    sides, channels = _looked_at(pictures)
    size = next(size for size in PICTURE_SIZES if len(pictures) <= size.up_to_pictures)
    rate, epochs = size.learning_rate, size.epochs
    if given.init:
        begun = RunFolder(given.init).read_config()
        if begun.model.name != "vit":
            raise InputError(f"{given.init} is a run of {begun.task}; to label pictures begin with one that does so")
        kept = ("image_size", "channels", "fit", "resample", "crop_share", "mean", "std")
        data = {key: value for key, value in asdict(begun.data).items() if key in kept}
        side, patch, moves = begun.data.image_size, begun.model.patch_size, {"flip": channels == 3, "crop": 0.6}
        rate, epochs = LEARNING_RATE_TIMES_WIDTH / begun.model.d_model, EPOCHS_OF_PICTURES_FROM_INIT
        why = f"begins with {given.init}, whose pictures are of {side} pixels"
    else:
        most = LARGEST_SIDE_ON_GPU if torch.cuda.is_available() else LARGEST_SIDE
        is_native = len(set(sides)) == 1 and sides[0] <= most
        side, patch = _patching(min(most, sorted(sides)[len(sides) // 2]))
        data = {"image_size": side, "channels": channels}
        moves = {"shift": max(1, side // 14)} if is_native else {"flip": channels == 3, "crop": 0.4}
        if not is_native:
            data["crop_share"] = 0.875
        why = f"{size.num_layers} layers of width {size.d_model} for {len(pictures):,} pictures"
    together = min(PICTURES_TOGETHER, max(8, len(pictures) // 20))
    steps = max(1, len(pictures) // together)  # an epoch
    evaluate = max(20, epochs * steps // 20)
    model = {
        "name": "vit",
        "patch_size": patch,
        "d_model": size.d_model,
        "num_heads": size.num_heads,
        "d_ff": 2 * size.d_model,
        "num_layers": size.num_layers,
        "dropout": 0.1,
        "stochastic_depth": size.stochastic_depth,
        "pooling": "mean",
    }
    values = {
        "task": "image-classification",
        "model": model,
        "data": {
            **{split: list(files) for split, files in given.files.items() if files},
            "valid_size": max(10, min(1000, len(pictures) // 10)),
            **data,
            "augmentation": moves,
        },
        "train": {
            "max_steps": epochs * steps,
            "batch_tokens": together,
            "learning_rate": rate,
            "schedule": "cosine",
            "warmup_steps": epochs * steps // 20,
            "betas": [0.9, 0.99],
            "epsilon": 1e-8,
            "weight_decay": 0.05,
            "label_smoothing": 0.1,
            "eval_every_steps": evaluate,
            "save_every_steps": evaluate,
            "average": "last",
            "average_checkpoints": 3,
        },
    }
    return values, [
        *([report.summary()] if report.dropped else []),
        why,
        f"pictures of {side} x {side}, {'in colours' if channels == 3 else 'in grey'}, patches of {patch} x {patch}",
        f"in training: {', '.join(f'{key} {value}' for key, value in moves.items())}; grey pictures, which may be of "
        "letters, are not flipped",
        f"batches of {together} pictures; {epochs} epochs of {steps:,} steps",
    ]


def _looked_at(pictures: Sequence[Picture]) -> tuple[list[int], int]:
    """The shorter side of each picture that can be read, and the channels of the most colourful one.

    Raises: InputError: none can be read.
    """
    sides, channels = [], 1
    for picture in pictures:
        with contextlib.suppress(BadPicture):
            shape, own = look(picture.source, picture.name)
            sides.append(min(shape))
            channels = max(channels, own)
    if not sides:
        raise InputError(f"none of {len(pictures):,} pictures can be read, {pictures[0].name} for one; give others")
    return sides, channels


def _patching(side: int) -> tuple[int, int]:
    """The side of a picture and of a patch: the picture's own where 5 to 8 patches fit into it, else a little less."""
    for count in range(PATCHES_A_SIDE, PATCHES_A_SIDE - 4, -1):
        if side % count == 0:
            return side, side // count
    side = max(PATCHES_A_SIDE, side - side % PATCHES_A_SIDE)
    return side, side // PATCHES_A_SIDE


@dataclass(frozen=True)
class TextSize:
    """A language model, up to how many tokens of text it suits, and how it is trained."""

    up_to_tokens: float
    d_model: int
    num_heads: int
    num_layers: int
    max_len: int
    dropout: float
    batch_tokens: int
    max_steps: int


TEXT_SIZES = (
    TextSize(300_000, 128, 4, 4, 64, 0.2, 768, 2_000),
    TextSize(3_000_000, 192, 6, 4, 128, 0.1, 2_048, 4_000),
    TextSize(30_000_000, 384, 6, 6, 256, 0.1, 8_192, 10_000),
    TextSize(float("inf"), 512, 8, 8, 512, 0.0, 16_384, 40_000),
)
# A text of few different letters, and not too long, is written letter by letter.
MOST_LETTERS = 300
LONGEST_BY_LETTERS = 3_000_000


def _recipe_for_text(given: Given) -> tuple[dict[str, Any], list[str]]:
    counts: Counter[str] = Counter()
    tokens = 0
    for piece in read_documents(given.files["train"], "file"):
        counts.update(piece.text)
        tokens += _about_tokens(piece.text)
    characters = counts.total()
    if not characters:
        raise InputError(f"{' '.join(given.files['train'])}: no text; give text files, .gz or not")
    by_letters = len(counts) <= MOST_LETTERS and characters <= LONGEST_BY_LETTERS
    kind, vocab_size = ("character", len(counts) + 4) if by_letters else ("byte-bpe", max(500, characters // 100))
    size = next(size for size in TEXT_SIZES if (characters if by_letters else tokens) <= size.up_to_tokens)
    dropouts = dict.fromkeys(("dropout", "attention_dropout", "embedding_dropout"), size.dropout)
    sizes = {"d_model": size.d_model, "num_heads": size.num_heads, "num_layers": size.num_layers}
    evaluate = size.max_steps // 8
    values = {
        "task": "language-modelling",
        "model": {"name": "gpt", **sizes, **dropouts, "max_len": size.max_len},
        "data": {
            **{split: list(files) for split, files in given.files.items() if files},
            "max_len": size.max_len,
            "tokenizer": {"kind": kind, "vocab_size": min(16_000, vocab_size), "verbatim": True},
        },
        "train": {
            "max_steps": size.max_steps,
            "batch_tokens": size.batch_tokens,
            "learning_rate": 1e-3,
            "final_learning_rate": 1e-4,
            "schedule": "cosine",
            "warmup_steps": 100,
            "betas": [0.9, 0.99],
            "epsilon": 1e-8,
            "weight_decay": 0.1,
            "label_smoothing": 0.0,
            "eval_every_steps": evaluate,
            "save_every_steps": evaluate,
            "patience": 3,
            "average": "none",
        },
    }
    return values, [
        f"{characters:,} characters, {len(counts):,} different ones: written "
        + ("one by one" if by_letters else f"in up to {min(16_000, vocab_size):,} pieces of bytes"),
        f"{size.num_layers} layers of width {size.d_model}, dropout {size.dropout}, over {size.max_len} tokens at once",
        f"{size.max_steps:,} steps of {size.batch_tokens:,} tokens; fewer if 3 evaluations bring no better loss",
    ]


@dataclass(frozen=True)
class SpeechSize:
    """A model of speech, up to how many hours of recordings it suits, and how it is trained."""

    up_to_hours: float
    d_model: int
    num_heads: int
    layers: tuple[int, int]
    dropout: float
    learning_rate: float
    hours_heard: float


SPEECH_SIZES = (
    SpeechSize(2, 128, 4, (3, 2), 0.1, 1.5e-3, 40),
    SpeechSize(20, 192, 4, (4, 2), 0.1, 1e-3, 200),
    SpeechSize(200, 256, 4, (6, 3), 0.1, 1e-3, 1_000),
    SpeechSize(float("inf"), 384, 6, (6, 4), 0.1, 7e-4, 4_000),
)
LONGEST_WINDOW = 30.0
WINDOWS_TOGETHER = 16


def _recipe_for_recordings(given: Given) -> tuple[dict[str, Any], list[str]]:
    data: dict[str, Any] = {split: list(files) for split, files in given.files.items() if files}
    data |= {"columns": list(given.columns)} if given.columns else {}
    values: dict[str, Any] = {"data": dict(data)}
    for change in given.changes:
        apply_change(values, change)
    said = values["data"]
    names = Names(said.get("train_names", ""), said.get("text_from_name", ""), said.get("words", {}))
    report = CleaningReport(things="recordings")
    lengths, letters = list[float](), 0
    for each in read_recordings(given.files["train"], names, report, given.columns or (1, 2)):
        lengths.append(len(each.samples) / SAMPLE_RATE_HZ)
        letters += len(each.text)
    hours = sum(lengths) / 3600
    size = next(size for size in SPEECH_SIZES if hours <= size.up_to_hours)
    long = sorted(lengths)[int(0.99 * (len(lengths) - 1))]
    # Several short recordings fit one window, so that sequences of them are learned.
    window = min(LONGEST_WINDOW, max(2.0, math.ceil(2 * max(long, 5 * sum(lengths) / len(lengths))) / 2))
    seconds_heard = 0.6 * window * WINDOWS_TOGETHER  # of a step: windows are not full
    steps = max(LEAST_STEPS, round(size.hours_heard * 3600 / seconds_heard))
    evaluate = max(100, steps // 10)
    values = {
        "task": "speech-recognition",
        "model": {
            "name": "whisper",
            "d_model": size.d_model,
            "num_heads": size.num_heads,
            "num_encoder_layers": size.layers[0],
            "num_decoder_layers": size.layers[1],
            "dropout": size.dropout,
            "max_len": 256,
        },
        "data": {
            **data,
            "window_seconds": window,
            "max_len": 256,
            "tokenizer": {"kind": "bpe", "vocab_size": max(64, min(4_000, letters // 40))},
            "augment": {
                "joined": max(1, min(8, int(window / max(0.3, sum(lengths) / len(lengths))))),
                "no_speech": 0.05,
                "speed": 0.1,
                "noise": 0.3,
                "frequency_masks": 2,
                "time_masks": 1,
                "time_mask_seconds": min(0.3, window / 40),
            },
        },
        "train": {
            "max_steps": steps,
            "batch_tokens": int(WINDOWS_TOGETHER * window * POSITIONS_A_SECOND),
            "learning_rate": size.learning_rate,
            "final_learning_rate": size.learning_rate / 50,
            "schedule": "cosine",
            "warmup_steps": steps // 12,
            "weight_decay": 0.05,
            "label_smoothing": 0.05,
            "eval_every_steps": evaluate,
            "save_every_steps": evaluate,
            "average": "last",
            "average_checkpoints": 3,
        },
    }
    return values, [
        report.summary(),
        f"{size.layers[0]} + {size.layers[1]} layers of width {size.d_model}: for {hours:.2f} hours of recordings",
        f"windows of {window} seconds, of which 99 of 100 recordings are no longer",
        f"{steps:,} steps of {WINDOWS_TOGETHER} windows; recordings joined, faster and slower, under noise and masked",
    ]


def _about_tokens(text: str) -> int:
    """How many tokens a text is likely to have: a Chinese character is most of one, a letter a third."""
    han = count_han(text)
    return han + (len(text) - han) // 3 + 1


@dataclass(frozen=True)
class SensorSize:
    """A model of sensors, up to how many windows it suits, and how it is trained."""

    up_to_windows: float
    d_model: int
    num_heads: int
    num_layers: int
    dropout: float
    epochs: int


SENSOR_SIZES = (
    SensorSize(4_000, 32, 4, 1, 0.1, 40),
    SensorSize(20_000, 64, 8, 1, 0.1, 20),
    SensorSize(float("inf"), 64, 8, 2, 0.1, 12),
)
# Of more sensors the attention between all pairs is most of the work.
MOST_SENSORS_IN_PAIRS = 500
WINDOWS_TOGETHER = 16
# A training step holds about so much for each sensor, step and number of its state, in each block.
BYTES_A_NUMBER = 240
# So many days show every day of the week thrice, and every part of a day often enough to tell one from the next.
DAYS_FOR_A_WEEK = 21
COARSE_SLOTS_A_DAY = 48


def _recipe_for_sensors(given: Given) -> tuple[dict[str, Any], list[str]]:
    values: dict[str, Any] = {
        "task": "forecasting",
        "model": {"name": "gman"},
        "data": {split: list(files) for split, files in given.files.items() if files},
        "train": {"max_epochs": 1},
    }
    asked = copy.deepcopy(values)
    for change in given.changes:
        apply_change(asked, change)
    data: SensorDataConfig = parse_config(asked, "the options given").data
    train = split_tables(data)["train"]
    sensors, days = len(train.sensors), len(train) * train.step_minutes / MINUTES_A_DAY
    longest = max(data.history_steps, data.forecast_steps)
    windows = max(1, len(train) - data.history_steps - data.forecast_steps)
    size = next(size for size in SENSOR_SIZES if windows <= size.up_to_windows)
    groups = round(sensors / (2 * sensors) ** (1 / 3)) if sensors > MOST_SENSORS_IN_PAIRS else 0
    a_window = sensors * (data.history_steps + data.forecast_steps) * size.d_model * (1 + size.num_layers)
    together = max(1, min(WINDOWS_TOGETHER, int(memory_gib() * 2**30 / 4 / (a_window * BYTES_A_NUMBER))))
    steps = max(1, windows // together)
    is_long = days >= DAYS_FOR_A_WEEK
    values["model"] |= {
        "d_model": size.d_model,
        "num_heads": size.num_heads,
        "num_layers": size.num_layers,
        "num_groups": groups,
        "days": "week" if is_long else "workday",
        "output_layers": True,
        "dropout": size.dropout,
    }
    values["data"] |= {} if is_long else {"slots_a_day": COARSE_SLOTS_A_DAY}
    values["train"] = {
        "max_steps": size.epochs * steps,
        "batch_tokens": together * sensors * longest,
        "learning_rate": 2e-3,
        "final_learning_rate": 2e-5,
        "schedule": "cosine",
        "warmup_steps": min(200, steps),
        "betas": [0.9, 0.999],
        "epsilon": 1e-8,
        "weight_decay": 0.01,
        "clip_norm": 5.0,
        "label_smoothing": 0.0,
        "precision": "auto" if torch.cuda.is_available() else "float32",
        "eval_every_steps": steps,
        "save_every_steps": steps,
        "patience": 10,
        "average_checkpoints": 3,
    }
    between = f"in {groups} groups drawn at random" if groups else "between all pairs"
    return values, [
        f"{sensors:,} sensors every {train.step_minutes} minutes, {days:.1f} days of them to train on",
        f"{size.num_layers} + {size.num_layers} blocks of width {size.d_model}, dropout {size.dropout}: for "
        f"{windows:,} windows; spatial attention {between}",
        "the day as one of seven, cut at every step"
        if is_long
        else f"the day as a working day or not, cut into {COARSE_SLOTS_A_DAY}: no more can be learned of few days",
        f"batches of {together} windows; {size.epochs} epochs of {steps:,} steps, fewer if 10 bring no lower error",
    ]


def recipe_to_learn_on(begun: RunConfig, init: str, given: Given) -> tuple[dict[str, Any], list[str]]:
    """A run's own config, with new data and a learning rate for what has learnt already."""
    values = begun.as_dict()
    files = {split: list(given.files[split]) for split in ("train", "valid", "test")}
    data = values["data"]
    if begun.task == "text-to-text":
        part = _part_to_learn_on(data["mixture"], init, given) | files
        part |= {"target": given.languages[1]} if given.languages[1] else {}
        data["mixture"] = [part | ({"columns": list(given.columns)} if given.columns else {})]
    else:
        data |= files
        data |= {"columns": list(given.columns)} if given.columns else {}
        if "source" in data:
            data |= {key: code for key, code in zip(("source", "target"), given.languages, strict=True) if code}
    if "valid_size" in data:
        rows = sum(1 for file in files["train"] for _ in read_lines(file.partition(",")[0]))
        data["valid_size"] = max(5, min(data["valid_size"], rows // 20))
    rate = LEARNING_RATE_TIMES_WIDTH / values["model"]["d_model"]
    values["train"] = {
        "max_epochs": EPOCHS_FROM_INIT,
        "batch_tokens": 2048,
        "learning_rate": rate,
        "schedule": "constant",
        "warmup_steps": 50,
        "label_smoothing": begun.train.label_smoothing,
        "eval_every_steps": 200,
        "save_every_steps": 200,
        "monitor": "loss",
        "average": "last",
        "average_checkpoints": 3,
        "init": init,
    }
    if begun.task == "forecasting":
        # A window is a thousand tokens, and the new table has a mean of its own; vectors come with the weights.
        data |= {"edges": "", "vectors": "", "start": ""}
        values["model"] |= {"mean": 0.0, "std": 0.0}
        values["train"] |= {"batch_tokens": begun.train.batch_tokens, "precision": begun.train.precision}
    return _without_nothing(values), [f"goes on from {init} at {begun.task}, with a learning rate of {rate:.1e}"]


def _part_to_learn_on(parts: Sequence[dict[str, Any]], init: str, given: Given) -> dict[str, Any]:
    """The part of a mixture that new pairs are of, its language and prefix kept; a new one for a prefix of its own.

    Raises: InputError: there are several, or none, and no prefix was given.
    """
    known = [part for part in parts if part["objective"] == "pairs"]
    wanted = known if given.prefix is None else [part for part in known if part["prefix"] == given.prefix]
    if len(wanted) == 1:
        return wanted[0]
    if given.prefix is None:
        prefixes = " or ".join(f"'{part['prefix']}'" for part in known)
        raise InputError(
            f"{init} does {'several tasks' if known else 'what a text begins with says'}: what do the new pairs begin "
            f"with? give --prefix {prefixes or 'TEXT'}, of no task --prefix ''"
        )
    return {"name": "pairs", "prefix": given.prefix}


def _without_nothing(values: dict[str, Any]) -> dict[str, Any]:
    """The same without what is None, for which TOML has no word."""
    kept = {key: value for key, value in values.items() if value is not None}
    return {key: _without_nothing(value) if isinstance(value, dict) else value for key, value in kept.items()}


# Where the labels of new data are the model's own.
LABELLING = ("text-classification", "image-classification")
# The tasks that can be trained without a recipe: what makes one, as plain values, and why each choice was made.
AUTOMATIC: dict[str, Callable[[Given], tuple[dict[str, Any], list[str]]]] = {
    "translation": _recipe_for_pairs,
    "language-modelling": _recipe_for_text,
    "text-classification": _recipe_for_labelled_texts,
    "image-classification": _recipe_for_pictures,
    "forecasting": _recipe_for_sensors,
    "speech-recognition": _recipe_for_recordings,
}


def _choose_size(pairs: int) -> tuple[Size, str]:
    allowed = SIZES if torch.cuda.is_available() or num_cores() >= CORES_FOR_LARGEST else SIZES[:-1]
    size = next((size for size in allowed if pairs <= size.up_to_pairs), allowed[-1])
    where = "a GPU" if torch.cuda.is_available() else f"{num_cores()} cores, no GPU"
    return size, (
        f"{size.layers[0]} + {size.layers[1]} layers of width {size.d_model}, dropout {size.dropout}: "
        f"for {pairs:,} pairs on {where}"
    )


def as_toml(values: dict[str, Any]) -> str:
    """Nested plain values as TOML text."""
    return "\n".join(_table(values, ())) + "\n"


def _table(values: dict[str, Any], path: tuple[str, ...]) -> list[str]:
    lines = [f"\n[{'.'.join(path)}]"] if path else []
    lines += [f"{key} = {_value(value)}" for key, value in values.items() if not isinstance(value, dict)]
    for key, value in values.items():
        if isinstance(value, dict):
            lines += _table(value, (*path, key))
    return lines


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_value(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    # JSON's strings, numbers and booleans are TOML's too, but for the delete character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
