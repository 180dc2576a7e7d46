"""From files of pairs to tokenizers and batches."""

import shutil
from pathlib import Path

import numpy as np
import pytest
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
