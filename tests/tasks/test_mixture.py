"""Mixtures of pairs and plain text: what is drawn when, what a row holds, and what is held out."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tiny import number_pairs, write_pairs

from zhuyi.data.splitting import comparison_key
from zhuyi.data.tokenizers import TokenizerConfig
from zhuyi.errors import InputError
from zhuyi.tasks.mixture import MixtureConfig, MixturePart
from zhuyi.tasks.mixture_data import MixtureBatches, MixtureData, PairSource, SpanSource, prepare_mixture

BOS_ID = 1


def silent(message: str) -> None:
    pass


@pytest.fixture
def config(tmp_path: Path) -> MixtureConfig:
    """Both directions of one file, and its sentences as plain text."""
    pairs = number_pairs(90)
    file = str(write_pairs(tmp_path / "pairs.tsv", pairs))
    text = tmp_path / "text.txt"
    text.write_text("\n".join(english for _, english in pairs) + "\n", encoding="utf-8")
    return MixtureConfig(
        mixture=(
            MixturePart("zh-en", (file,), prefix="to English: ", weight=3.0, target="en"),
            MixturePart("en-zh", (file,), prefix="to Chinese: ", columns=(2, 1), target="zh"),
            MixturePart("text", (str(text),), objective="spans", weight=2.0),
        ),
        valid_size=7,
        valid_share=0.2,
        max_len=44,
        sentinels=11,
        tokenizer=TokenizerConfig("character", 64),
    )


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., MixtureData]:
    def made(config: MixtureConfig, seed: int = 5, announce: Any = silent, name: str = "run") -> MixtureData:
        (tmp_path / name).mkdir(exist_ok=True)
        return prepare_mixture(config, tmp_path / name, seed, announce)

    return made


def batches_of(data: MixtureData, weights: tuple[float, ...] = (3.0, 1.0, 2.0), seed: int = 5) -> MixtureBatches:
    return MixtureBatches(list(data.train.values()), weights, 300, seed, BOS_ID)


# What is drawn.


class Numbered:
    """A source whose rows are their own numbers."""

    def __init__(self, size: int, first: int) -> None:
        self.first = first
        self.lengths = np.full((size, 2), 3)

    def pair(self, row: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        drawn = int(rng.integers(1_000_000))
        return np.array([self.first + row, drawn, 2]), np.array([self.first + row, drawn, 2])

    def line(self, row: int) -> str:
        return f"line {self.first + row}"


SIZES, WEIGHTS = (17, 40, 90), (1.0, 2.0, 1.0)


def numbered(seed: int = 1) -> MixtureBatches:
    sources = [Numbered(size, 100 * i) for i, size in enumerate(SIZES)]
    return MixtureBatches(sources, WEIGHTS, 12, seed, BOS_ID)


def rows_read(batches: MixtureBatches, epoch: int) -> list[int]:
    return [int(row) for batch in batches.order(epoch) for row in batches.load(batch).src[:, 0]]


def test_an_epoch_holds_the_parts_by_weight() -> None:
    for epoch in range(3):
        rows = rows_read(numbered(), epoch)
        assert len(set(rows)) == len(rows) or epoch  # a later one may end one turn of a part and begin the next
        assert Counter(row // 100 for row in rows) == {0: 17, 1: 34, 2: 17}


def test_a_part_is_gone_through_before_any_row_comes_again() -> None:
    counts: Counter[int] = Counter()
    for epoch in range(60):
        counts.update(rows_read(numbered(), epoch))
        for part, size in enumerate(SIZES):
            times = [counts[100 * part + row] for row in range(size)]
            assert max(times) - min(times) <= 1
    orders = [rows_read(numbered(), epoch) for epoch in range(3)]
    assert sorted(orders[0]) != sorted(orders[1])  # other rows of the larger parts
    assert [row for row in orders[0] if row < 100] != [row for row in orders[1] if row < 100]


def test_weights_are_relative() -> None:
    sources = [Numbered(size, 100 * i) for i, size in enumerate(SIZES)]
    scaled = MixtureBatches(sources, [10 * weight for weight in WEIGHTS], 12, 1, BOS_ID)
    for mine, theirs in zip(numbered().order(4), scaled.order(4), strict=True):
        assert np.array_equal(mine, theirs)


def test_what_is_drawn_follows_from_seed_epoch_and_row_alone() -> None:
    first, again = numbered(), numbered()
    again.load(again.order(0)[0])  # whatever was read before
    drawn = {}
    for epoch in (2, 7):
        for mine, theirs in zip(first.order(epoch), again.order(epoch), strict=True):
            batch = first.load(mine)
            assert batch.src.tolist() == again.load(theirs).src.tolist()
            drawn |= {(epoch, int(row[0])): int(row[1]) for row in batch.src}
            # A row draws the same alone.
            assert first.load(mine[-1:]).src[0].tolist() == batch.src[-1].tolist()
    assert len(set(drawn.values())) > 0.99 * len(drawn)
    other = numbered(seed=2)
    assert sorted(rows_read(other, 2)) != sorted(rows_read(first, 2))


def test_unshuffled_is_everything_once() -> None:
    batches = numbered()
    rows = np.concatenate(batches.order(0, shuffle=False))
    assert sorted(rows.tolist()) == list(range(sum(SIZES))) == list(range(len(batches)))
    assert batches.lines(rows[:1]) == [f"line {int(batches.load(rows[:1]).src[0, 0])}"]
    assert batches.lines(rows[:1] + 3 * len(batches)) == batches.lines(rows[:1])  # of another epoch


# What a row holds.


def test_sources_begin_with_their_prefix(config: MixtureConfig, prepare: Callable[..., MixtureData]) -> None:
    data = prepare(config)
    rng = np.random.default_rng(0)
    for name, prefix in (("zh-en", "to English: "), ("en-zh", "to Chinese: ")):
        source = data.train[name]
        assert isinstance(source, PairSource)
        sources, targets = source.texts()
        for row, (text, target) in enumerate(zip(sources, targets, strict=True)):
            read, written = source.pair(row, rng)
            assert data.tokenizer.decode(read) == prefix.strip() + text
            assert data.tokenizer.decode(written) == target
            assert (len(read), len(written)) == tuple(source.lengths[row])
            assert source.line(row) == f"{text}\t{target}"
    assert config.prefixes == {"zh-en": "to English: ", "en-zh": "to Chinese: "}


def test_spans_of_plain_text(config: MixtureConfig, prepare: Callable[..., MixtureData]) -> None:
    data = prepare(config)
    source, first = data.train["text"], data.tokenizer.vocab_size + 11 - 1
    assert isinstance(source, SpanSource)
    whole = ""
    for row in range(len(source.lengths)):
        read, written = source.pair(row, np.random.default_rng(row))
        assert (len(read), len(written)) == tuple(source.lengths[row])
        assert max(len(read), len(written)) <= 44
        segment = source.segment(row)
        assert len(segment) > 1
        assert 0 not in segment and 2 not in segment
        signs = [i for i in read if i >= data.tokenizer.vocab_size]
        assert signs == [first - i for i in range(len(signs))]
        kept = [i for i in read[:-1] if i < data.tokenizer.vocab_size]
        taken = [i for i in written[:-1] if i < data.tokenizer.vocab_size]
        assert sorted(kept + taken) == sorted(segment.tolist())
        whole += source.line(row)
    text = Path(config.mixture[2].train[0]).read_text(encoding="utf-8").replace("\n", " ")
    assert 0.75 * len(text) < len(whole) < 0.85 * len(text)
    assert text.startswith(whole[:200])


def test_spans_are_drawn_anew_in_each_epoch(config: MixtureConfig, prepare: Callable[..., MixtureData]) -> None:
    batches = batches_of(prepare(config))
    row = len(batches) - 2  # of the text, which comes last
    read = [batches.load(np.array([epoch * len(batches) + row])).src[0].tolist() for epoch in (0, 1, 2, 0)]
    assert read[0] == read[3]
    assert len({tuple(each) for each in read}) == 3


def test_nothing_is_longer_than_said(config: MixtureConfig, prepare: Callable[..., MixtureData]) -> None:
    """A prefix counts: a pair that would be too long with it is left out, and said so."""
    said: list[str] = []
    data = prepare(replace(config, max_len=36), announce=said.append)
    assert any("zh-en" in line and "left out: too long with the prefix" in line for line in said)
    for source in (*data.train.values(), *data.valid.values()):
        assert 20 < int(source.lengths.max()) <= 36
    with pytest.raises(InputError, match="the part zh-en has no row of at most 14 tokens"):
        prepare(replace(config, max_len=14), name="other")


# What is held out.


def test_no_sentence_held_out_of_one_part_is_in_another(
    config: MixtureConfig, prepare: Callable[..., MixtureData]
) -> None:
    data = prepare(config)
    keys = {}
    for split, sources in (("train", data.train), ("valid", data.valid)):
        texts = [source.texts() for source in sources.values() if isinstance(source, PairSource)]
        keys[split] = [{comparison_key(text) for side in sides for text in side} for sides in texts]
    assert keys["valid"][0] != keys["valid"][1]
    for train in keys["train"]:
        assert len(train) > 100
        for valid in keys["valid"]:
            assert len(valid) == 14
            assert not train & valid


def test_plain_text_is_apart_from_whatever_is_scored(
    config: MixtureConfig, prepare: Callable[..., MixtureData], tmp_path: Path
) -> None:
    """What a part is tested on, validates on or holds out, and what the text's own files hold, in any column."""
    pairs = [(f"第{i:02}句。", f"line {i:02} ends.") for i in range(90)]
    train = (str(write_pairs(tmp_path / "pairs.tsv", pairs)),)
    tests = [str(write_pairs(tmp_path / f"{name}.tsv", pairs[i : i + 9])) for i, name in ((0, "test"), (9, "own"))]
    (tmp_path / "text.txt").write_text("".join(f"{english}\n" for _, english in pairs), encoding="utf-8")
    parts = (replace(config.mixture[0], train=train, test=(tests[0],)), replace(config.mixture[2], test=(tests[1],)))
    said: list[str] = []

    def text_of(disjoint: bool, name: str) -> tuple[MixtureData, str]:
        data = prepare(replace(config, mixture=parts, disjoint=disjoint), announce=said.append, name=name)
        sources = [sources["text"] for sources in (data.train, data.valid)]
        assert all(isinstance(source, SpanSource) for source in sources)
        return data, " ".join(source.line(row) for source in sources for row in range(len(source.lengths)))

    data, text = text_of(disjoint=True, name="apart")
    (held_out,) = [source.texts()[1] for source in data.valid.values() if isinstance(source, PairSource)]
    elsewhere = {*held_out, *(english for _, english in pairs[:18])}
    assert not any(english in text for english in elsewhere)
    assert sum(english in text for _, english in pairs) > (90 - len(elsewhere)) // 2  # others are cut by segments' ends
    assert any(line.startswith(f"text: train: {90 - len(elsewhere)} of 90 lines kept") for line in said)
    assert pairs[0][1] in text_of(disjoint=False, name="all")[1]
    said.clear()
    assert text_of(disjoint=True, name="apart")[1] == text
    assert not any(line.startswith("text:") for line in said)  # nothing was made anew


def test_made_once_and_anew_where_it_has_changed(config: MixtureConfig, prepare: Callable[..., MixtureData]) -> None:
    said: list[str] = []
    first = prepare(config, announce=said.append)
    assert said
    said.clear()
    again = prepare(config, announce=said.append)
    assert not [line for line in said if "left out" not in line]
    assert again.tokenizer.fingerprint() == first.tokenizer.fingerprint()
    for epoch in (0, 3):
        for mine, theirs in zip(batches_of(first).order(epoch), batches_of(again).order(epoch), strict=True):
            assert batches_of(first).load(mine).src.tolist() == batches_of(again).load(theirs).src.tolist()
    file = Path(config.mixture[0].train[0])
    write_pairs(file, [*number_pairs(90), ("新。", "a new one!")])
    changed = prepare(config)
    assert "新" in changed.tokenizer.pieces and "新" not in first.tokenizer.pieces
    assert len(changed.train["zh-en"].lengths) > len(first.train["zh-en"].lengths)


# Configs.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "zh en"}, "name = 'zh en': expected letters"),
        ({"name": "../x"}, "expected letters"),
        ({"train": ()}, "x has no files in train"),
        ({"weight": 0.0}, "the weight of x must be above 0, got 0.0"),
        ({"objective": "spans", "prefix": "p"}, "x takes spans out of text and has no prefix"),
    ],
)
def test_wrong_parts_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixturePart(**{"name": "x", "train": ("a.tsv",)} | changes)


PAIRS, SPANS = MixturePart("x", ("a.tsv",)), MixturePart("y", ("a.txt",), objective="spans")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mixture": (PAIRS, PAIRS)}, "two parts of the mixture have one name: x, x"),
        ({"tokenizer": TokenizerConfig(joint=False)}, "share one tokenizer"),
        ({"span_share": 1.0}, "span_share lies between 0 and 1"),
        ({"mean_span": 0.5}, "mean_span is at least 1"),
        ({"mixture": (SPANS,), "max_len": 2}, "max_len = 2 is too short to take spans"),
        ({"mixture": (SPANS,), "max_len": 512, "sentinels": 28}, "sentinels = 28, but texts of 512 tokens take"),
        ({"mixture": (replace(PAIRS, columns=(0, 1)),)}, "columns are counted from 1"),
        ({"mixture": (replace(SPANS, train=("-",)),)}, "give a file, not -"),
        ({"valid_size": 0, "mixture": (PAIRS,)}, "valid_size must be at least 1"),
    ],
)  # fmt: skip
def test_wrong_mixtures_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixtureConfig(**values)


def test_the_defaults_are_the_papers() -> None:
    config = MixtureConfig(mixture=(SPANS,), max_len=512)
    assert (config.span_share, config.mean_span, config.sentinels, config.segment_len) == (0.15, 3.0, 100, 568)


def test_a_part_is_what_the_data_of_a_translation_is() -> None:
    config = MixtureConfig(valid_size=7, disjoint=True, max_len=33, tokenizer=TokenizerConfig("character"))
    found = config.pairs_of(replace(PAIRS, valid=("v",), test=("t",), columns=(3, 2), target="zh"))
    assert (found.train, found.valid, found.test, found.columns) == (("a.tsv",), ("v",), ("t",), (3, 2))
    assert (found.target, found.valid_size, found.disjoint, found.max_len) == ("zh", 7, True, 33)
    assert found.tokenizer.kind == "character"
    text = config.text_of(replace(SPANS, documents="line"))
    assert (text.train, text.documents, text.valid_share) == (("a.txt",), "line", 0.02)


def test_files_of_all_parts() -> None:
    parts = (replace(PAIRS, valid=("v",), test=("t",)), replace(SPANS, test=("u",)))
    config = MixtureConfig(mixture=parts)
    assert (config.train, config.valid, config.test) == (("a.tsv", "a.txt"), ("v",), ("t", "u"))
    assert config.describe() == "x: a.tsv; y: a.txt"


def test_a_mixture_of_nothing(prepare: Callable[..., MixtureData]) -> None:
    with pytest.raises(InputError, match="no training data"):
        prepare(MixtureConfig())
