"""From files of pairs to tokenizers and batches."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.killing import kill_everywhere
from tests.tiny import number_pairs, write_pairs

from zhuyi.data.special_tokens import BOS_ID, UNK_ID
from zhuyi.data.tokenizers import TokenizerConfig
from zhuyi.errors import InputError
from zhuyi.tasks.pair_data import PairBatches, PairData, PairDataConfig, prepare_pair_data


def prepare(folder: Path, pairs: list[tuple[str, str]], **options: object) -> PairData:
    folder.mkdir(exist_ok=True)
    file = write_pairs(folder / "pairs.tsv", pairs)
    config = PairDataConfig("zh", "en", (str(file),), valid_size=6, **options)  # type: ignore[arg-type]
    return prepare_pair_data(config, folder, 1, lambda message: None)


@pytest.mark.parametrize("kind", ["unigram", "bpe", "byte-bpe", "character"])
@pytest.mark.parametrize("joint", [True, False])
def test_both_sides_words_are_known(tmp_path: Path, kind: str, joint: bool) -> None:
    data = prepare(tmp_path, number_pairs(80), tokenizer=TokenizerConfig(kind, 300, joint))  # type: ignore[arg-type]
    assert (data.source_tokenizer is data.target_tokenizer) is joint
    for split in (data.train, data.valid):
        for row in range(len(split)):
            assert UNK_ID not in split.ids("source", row)
            assert UNK_ID not in split.ids("target", row)
            assert data.source_tokenizer.decode(split.ids("source", row)) == split.text("source_text", row)
            assert data.target_tokenizer.decode(split.ids("target", row)) == split.text("target_text", row)


def test_no_pair_is_lost_and_none_is_on_both_sides(tmp_path: Path) -> None:
    pairs = number_pairs(80)
    data = prepare(tmp_path, pairs)
    found = [
        {(split.text("source_text", row), split.text("target_text", row)) for row in range(len(split))}
        for split in (data.train, data.valid)
    ]
    assert found[0] | found[1] == set(pairs)
    assert not found[0] & found[1]
    assert len(found[1]) == 6


def test_the_cache_is_made_again_with_the_same_bytes(tmp_path: Path) -> None:
    prepare(tmp_path, number_pairs(80))
    files = {path: path.read_bytes() for path in (tmp_path / "cache").glob("*.arrow")}
    assert len(files) == 4
    shutil.rmtree(tmp_path / "cache")
    prepare(tmp_path, number_pairs(80))
    assert {path: path.read_bytes() for path in (tmp_path / "cache").glob("*.arrow")} == files


def test_given_validation_pairs_are_taken_and_none_held_out(tmp_path: Path) -> None:
    pairs = number_pairs(80)
    file = write_pairs(tmp_path / "valid.tsv", pairs[70:])
    data = prepare(tmp_path, pairs[:70], valid=(str(file),))
    assert (len(data.train), len(data.valid)) == (70, 10)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("split", ["valid", "test"])
def test_no_sentence_of_validation_or_test_is_trained_on(tmp_path: Path, split: str, side: int) -> None:
    """A sentence that differs by its punctuation, on either side of a pair."""
    pairs = number_pairs(80)
    known = [pair[side].strip("。.") + "!" for pair in pairs[:10]]
    other = [(f"九九九九九九{i}", "none") for i in range(10)]
    elsewhere = [(a, b[1]) if side == 0 else (b[0], a) for a, b in zip(known, other, strict=True)]
    file = (str(write_pairs(tmp_path / "elsewhere.tsv", elsewhere)),)
    files: dict[str, object] = {split: file, "disjoint": True}
    data = prepare(tmp_path / "run", pairs, **files)
    trained = {data.train.text(f"{name}_text", row) for row in range(len(data.train)) for name in ("source", "target")}
    assert not trained & {pair[side] for pair in pairs[:10]}
    assert len(data.train) + (len(data.valid) if split == "test" else 0) == 70


def test_other_test_pairs_to_be_apart_from_are_other_data(tmp_path: Path) -> None:
    pairs = number_pairs(80)
    counts = []
    for known in (pairs[:10], pairs[:15]):
        test = (str(write_pairs(tmp_path / "test.tsv", known)),)
        data = prepare(tmp_path / "run", pairs, test=test, disjoint=True)
        counts.append(len(data.train) + len(data.valid))
    assert counts == [70, 65]


def test_a_batch_holds_its_rows_texts(tmp_path: Path) -> None:
    data = prepare(tmp_path, number_pairs(80))
    batches = PairBatches(data.train, 200, seed=1)
    rows = batches.order(0)[0]
    batch = batches.load(rows)
    lines = batches.lines(rows)
    assert bool((batch.tgt[:, 0] == BOS_ID).all())
    assert batch.num_tokens == sum(len(data.train.ids("target", int(row))) for row in rows)
    for i, line in enumerate(lines):
        source, target = line.split("\t")
        assert data.source_tokenizer.decode(batch.src[i][batch.src_mask[i]].tolist()) == source
        assert data.target_tokenizer.decode(batch.expected[i][batch.tgt_mask[i]].tolist()) == target
        # what follows each decoder input is the next expected token
        assert (
            batch.tgt[i, 1:][batch.tgt_mask[i, 1:]].tolist() == batch.expected[i, :-1][batch.tgt_mask[i, 1:]].tolist()
        )


def test_an_epoch_holds_every_row_once_in_another_order(tmp_path: Path) -> None:
    batches = PairBatches(prepare(tmp_path, number_pairs(80)).train, 200, seed=1)
    epochs = [np.concatenate(batches.order(epoch)) for epoch in (0, 1)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(len(batches)))
    assert list(epochs[0]) != list(epochs[1])


def test_too_few_pairs_to_hold_some_out_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too few"):
        prepare(tmp_path, number_pairs(3))


def test_pairs_all_too_long_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="max_len"):
        prepare(tmp_path, number_pairs(80), max_len=2)


def files_of(folder: Path) -> dict[str, bytes]:
    """All that was prepared, but for the pairs themselves."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if not name.endswith(".tsv")}


def config_for(file: Path, **options: object) -> PairDataConfig:
    options = {"valid_size": 6, "tokenizer": TokenizerConfig("unigram", 90, joint=False), **options}
    return PairDataConfig("zh", "en", (str(file),), **options)  # type: ignore[arg-type]


def prepare_in(folder: Path, config: PairDataConfig, seed: int = 1, *, begun: bool = False) -> PairData:
    folder.mkdir(exist_ok=True)
    return prepare_pair_data(config, folder, seed, lambda message: None, begun=begun)


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.tsv", number_pairs(80))


def test_two_runs_prepare_the_same_bytes(pairs_file: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        prepare_in(tmp_path / name, config_for(pairs_file))
    a, b = files_of(tmp_path / "a"), files_of(tmp_path / "b")
    assert a == b
    assert {"tokenizer.source.json", "tokenizer.target.json", "cache/train.arrow", "cache/cleaning.json"} <= a.keys()
    prepare_in(tmp_path / "c", config_for(pairs_file), seed=2)
    assert files_of(tmp_path / "c")["cache/valid.arrow"] != a["cache/valid.arrow"]


def test_a_kill_before_any_file_operation_changes_nothing(pairs_file: Path, tmp_path: Path) -> None:
    config = config_for(pairs_file)
    prepare_in(tmp_path / "unkilled", config)
    (tmp_path / "run").mkdir()
    kills = kill_everywhere(tmp_path / "run", lambda: prepare_in(tmp_path / "run", config), lambda through: None)
    assert kills > 10
    assert files_of(tmp_path / "run") == files_of(tmp_path / "unkilled")


@pytest.mark.parametrize(
    "other",
    [
        {"tokenizer": TokenizerConfig("unigram", 70, joint=False)},
        {"tokenizer": TokenizerConfig("bpe", 90)},
        {"max_len": 6},
        {"valid_size": 9},
        {"columns": (2, 1)},
    ],
    ids=lambda other: next(iter(other)),
)
def test_what_was_prepared_from_another_config_is_made_again(
    pairs_file: Path, tmp_path: Path, other: dict[str, object]
) -> None:
    prepare_in(tmp_path / "run", config_for(pairs_file))
    prepare_in(tmp_path / "run", config_for(pairs_file, **other))
    prepare_in(tmp_path / "fresh", config_for(pairs_file, **other))
    run, fresh = files_of(tmp_path / "run"), files_of(tmp_path / "fresh")
    assert {name: run[name] for name in fresh} == fresh


@pytest.mark.parametrize("which", ["train", "valid"])
def test_a_file_with_other_pairs_in_it_is_another_file(tmp_path: Path, which: str) -> None:
    """Of the same name, size and time."""
    pairs = number_pairs(90)
    files = {
        "train": write_pairs(tmp_path / "train.tsv", pairs[:80]),
        "valid": write_pairs(tmp_path / "valid.tsv", pairs[80:]),
    }
    config = config_for(files["train"], valid=(str(files["valid"]),))
    prepare_in(tmp_path / "run", config)
    before, prepared = files[which].stat(), files_of(tmp_path / "run")
    text = files[which].read_text(encoding="utf-8")
    files[which].write_text(text.replace("零", "九").replace("zero", "nine"), encoding="utf-8")
    os.utime(files[which], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert files[which].stat().st_size == before.st_size and files[which].read_text(encoding="utf-8") != text
    prepare_in(tmp_path / "run", config, begun=True)
    assert files_of(tmp_path / "run") == prepared
    prepare_in(tmp_path / "run", config)
    prepare_in(tmp_path / "fresh", config)
    assert files_of(tmp_path / "run") == files_of(tmp_path / "fresh") != prepared


def test_where_training_has_begun_the_files_may_be_gone(pairs_file: Path, tmp_path: Path) -> None:
    file = write_pairs(tmp_path / "pairs.tsv", number_pairs(80))
    prepare_in(tmp_path / "run", config_for(file))
    prepared = files_of(tmp_path / "run")
    file.unlink()
    prepare_in(tmp_path / "run", config_for(file), begun=True)
    assert files_of(tmp_path / "run") == prepared
    prepare_in(tmp_path / "run", config_for(pairs_file), begun=True)  # other files by the config itself
    prepare_in(tmp_path / "fresh", config_for(pairs_file))
    assert files_of(tmp_path / "run") == files_of(tmp_path / "fresh")


def test_a_tokenizer_laid_there_is_used_and_kept(pairs_file: Path, tmp_path: Path) -> None:
    prepare_in(tmp_path / "first", config_for(pairs_file, tokenizer=TokenizerConfig("bpe", 70)))
    laid = (tmp_path / "first" / "tokenizer.json").read_bytes()
    config = config_for(pairs_file, tokenizer=TokenizerConfig("unigram", 90))
    prepare_in(tmp_path / "run", config)
    (tmp_path / "run" / "tokenizer.json").write_bytes(laid)
    data = prepare_in(tmp_path / "run", config)
    assert (tmp_path / "run" / "tokenizer.json").read_bytes() == laid
    assert data.source_tokenizer.decode(data.train.ids("source", 0)) == data.train.text("source_text", 0)


def test_pairs_that_are_too_long_are_left_out_and_said(pairs_file: Path, tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "run").mkdir()
    config = config_for(pairs_file, max_len=20, tokenizer=TokenizerConfig("character", 64))
    data = prepare_pair_data(config, tmp_path / "run", 1, said.append)
    assert 0 < len(data.train) < 74
    assert f"train: {len(data.train)} pairs; {74 - len(data.train)} longer than max_len = 20 left out" in said
    assert max(data.train.lengths("target")) <= 20


def test_an_error_stays_one_at_the_second_try(pairs_file: Path, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(InputError, match=r"no train pair is at most 2 tokens long; raise data.max_len"):
            prepare_in(tmp_path / "run", config_for(pairs_file, max_len=2))


def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.tsv").write_text("")
    with pytest.raises(InputError, match=r"no pairs in .*empty.tsv: no lines at all"):
        prepare_in(tmp_path / "run", config_for(tmp_path / "empty.tsv"))
    with pytest.raises(InputError, match=r"no training data: set data.train or give --train FILE"):
        prepare_in(tmp_path / "run", PairDataConfig("zh", "en"))


def test_the_largest_batch_costs_at_least_as_much_as_any(pairs_file: Path, tmp_path: Path) -> None:
    batches = PairBatches(prepare_in(tmp_path / "run", config_for(pairs_file)).train, 100, seed=1)
    largest = batches.load(batches.largest())
    for epoch in range(3):
        for rows in batches.order(epoch):
            batch = batches.load(rows)
            assert max(batch.src.numel(), batch.tgt.numel()) <= 1.12 * max(largest.src.numel(), largest.tgt.numel())
            assert max(batch.src.numel(), batch.tgt.numel()) <= 100 or len(rows) == 1


def test_the_order_is_a_function_of_seed_and_epoch(pairs_file: Path, tmp_path: Path) -> None:
    data = prepare_in(tmp_path / "run", config_for(pairs_file))
    first, again, other = (PairBatches(data.train, 100, seed=seed) for seed in (1, 1, 2))
    for epoch in range(3):
        ours, theirs = first.order(epoch), again.order(epoch)
        assert len(ours) == len(theirs) and all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first.order(0), other.order(0), strict=False))
