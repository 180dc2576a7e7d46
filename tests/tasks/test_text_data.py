"""From plain text to a tokenizer and segments."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.killing import kill_everywhere

from zhuyi.data.tokenizers import TokenizerConfig
from zhuyi.errors import InputError
from zhuyi.tasks.text_data import Segments, TextData, TextDataConfig, prepare_text_data

CHARACTERS = TokenizerConfig("character", 99, verbatim=True)
LINES = ["".join(chr(97 + (row * 7 + i * i) % 26) for i in range(3 + row % 11)) for row in range(40)]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return str(path)


def prepare(folder: Path, file: str, *, begun: bool = False, **options: Any) -> TextData:
    folder.mkdir(exist_ok=True)
    config = TextDataConfig(train=(file,), tokenizer=CHARACTERS)
    return prepare_text_data(dataclasses.replace(config, **options), folder, 1, lambda message: None, begun=begun)


def segments(data: TextData, length: int, kind: str = "stream", batch_tokens: int = 60) -> Segments:
    return Segments(data.train, data.tokenizer, length, kind, batch_tokens, seed=1)


def test_the_last_part_is_held_out(file: str, tmp_path: Path) -> None:
    text = "\n".join(LINES) + "\n"
    cut = int(len(text) * 0.9)
    data = prepare(tmp_path / "file", file)
    assert data.tokenizer.decode(data.train.ids) == text[:cut]
    assert data.tokenizer.decode(data.valid.ids) == text[cut:]
    assert data.train.counts.characters == cut and data.train.counts.documents == 1
    data = prepare(tmp_path / "line", file, documents="line")
    number = data.train.counts.documents
    assert data.tokenizer.decode(data.train.ids) == "".join(LINES[:number])
    assert data.tokenizer.decode(data.valid.ids) == "".join(LINES[number:])
    assert 0 < data.valid.counts.characters <= sum(map(len, LINES)) * 0.1


def test_given_validation_text_is_taken(file: str, tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("abc\n", encoding="utf-8")
    data = prepare(tmp_path / "run", file, valid=(str(tmp_path / "v.txt"),))
    assert data.tokenizer.decode(data.valid.ids) == "abc\n"
    assert data.tokenizer.decode(data.train.ids) == "\n".join(LINES) + "\n"


def test_segments_of_a_stream(file: str, tmp_path: Path) -> None:
    data = prepare(tmp_path, file)
    batches = segments(data, 10)
    whole = np.concatenate([ids for starts in batches.order(0, shuffle=False) for ids in batches.ids(starts)])
    assert sorted(whole.tolist()) == sorted(data.train.ids[1:].tolist())
    cuts = set()
    for epoch in range(4):
        order = batches.order(epoch)
        starts = np.concatenate(order)
        assert [len(batch) for batch in order[:-1]] == [6] * (len(order) - 1)
        assert (np.diff(np.sort(starts)) == 10).all() and list(starts) != sorted(starts)
        assert len(data.train.ids) - 1 - 10 * len(starts) < 20
        cuts.add(int(starts[0]) % 10)
        for batch, again in zip(order, batches.order(epoch), strict=True):
            assert batch.tolist() == again.tolist()
            assert [len(ids) for ids in batches.ids(batch)] == [10] * len(batch)
    assert len(cuts) > 1  # not always at the same places
    start = np.array([13])
    (ids,), (more,) = batches.ids(start), batches.ids(start, before=1)
    assert ids.tolist() == data.train.ids[13:23].tolist() and more.tolist() == data.train.ids[12:23].tolist()


def test_segments_of_documents(file: str, tmp_path: Path) -> None:
    data = prepare(tmp_path, file, documents="line", segments="documents")
    batches = segments(data, 9, "documents")
    order = batches.order(0)
    assert max(len(batch) * batches.lengths(batch).max() for batch in order) <= 60
    found = {int(start): ids.tolist() for batch in order for start, ids in zip(batch, batches.ids(batch), strict=True)}
    texts = [data.tokenizer.encode(line) for line in LINES[: data.train.counts.documents]]
    cut = [ids[first : first + 9] for ids in texts for first in range(0, len(ids), 9)]
    assert [found[start] for start in sorted(found)] == cut
    longest = batches.largest()
    most = max(len(batch) * batches.lengths(batch).max() for batch in order)
    assert 0.9 * most <= len(longest) * batches.lengths(longest).max() <= 60


def test_a_text_shorter_than_a_segment_is_one(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("abcdefghij", encoding="utf-8")
    batches = segments(prepare(tmp_path / "run", str(tmp_path / "t.txt"), valid_share=0.2), 50)
    assert [batch.tolist() for batch in batches.order(0)] == [[1]]
    assert batches.lines(batches.order(0)[0]) == ["abcdefgh"]


def test_of_dialogues_it_is_known_what_is_learned(tmp_path: Path) -> None:
    (tmp_path / "pairs.tsv").write_text("".join(f"q{i}?\ta{i}!\n" for i in range(20)), encoding="utf-8")
    options = {"documents": "dialogue", "template": "<{question}>"}
    data = prepare(tmp_path / "run", str(tmp_path / "pairs.tsv"), **options)
    batches = segments(data, 50)
    starts = batches.order(0, shuffle=False)[0]
    learned = batches.is_learned(starts)
    assert learned is not None
    for ids, flags in zip(batches.ids(starts), learned, strict=True):
        texts = data.tokenizer.decode(ids[flags.astype(bool)])
        assert "q" not in texts and "<" not in texts and "a" in texts and "!" in texts
        assert set(ids[~flags.astype(bool)]).isdisjoint({data.tokenizer.signs.eos})


def test_a_normalising_tokenizer_sees_normal_forms(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("你 好 , 世 界 !\n" * 20, encoding="utf-8")
    tokenizer = TokenizerConfig("unigram", 30)
    data = prepare(tmp_path / "run", str(tmp_path / "t.txt"), documents="line", tokenizer=tokenizer)
    assert data.tokenizer.decode(data.valid.ids).startswith("你好，世界！")
    assert data.tokenizer.signs.unk not in data.train.ids


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_data_give_the_same_bytes_after_any_kill(file: str, tmp_path: Path) -> None:
    prepare(tmp_path / "whole", file, documents="line")
    run = tmp_path / "run"
    kills = kill_everywhere(run, lambda: prepare(run, file, documents="line"), lambda through: None)
    assert kills > 10
    assert files_of(run) == files_of(tmp_path / "whole")
    assert {"tokenizer.json", "cache/train.ids", "cache/valid.ids"} <= files_of(run).keys()


def test_other_text_is_read_anew_unless_training_has_begun(tmp_path: Path) -> None:
    text = tmp_path / "t.txt"
    text.write_text("abcdefghij" * 9, encoding="utf-8")
    before = prepare(tmp_path / "run", str(text)).train.ids.tolist()
    text.write_text("jihgfedcba" * 8, encoding="utf-8")
    assert prepare(tmp_path / "run", str(text), begun=True).train.ids.tolist() == before
    text.unlink()
    assert prepare(tmp_path / "run", str(text), begun=True).train.ids.tolist() == before
    text.write_text("jihgfedcba" * 8, encoding="utf-8")
    assert prepare(tmp_path / "run", str(text)).train.ids.tolist() != before
    counts = json.loads((tmp_path / "run" / "cache" / "train.json").read_text())
    assert counts["characters"] == 72


def test_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\n\n", encoding="utf-8")
    with pytest.raises(InputError, match="no text to train a tokenizer on"):
        prepare(tmp_path / "run", str(tmp_path / "t.txt"), documents="line")
    (tmp_path / "t.txt").write_text("abc", encoding="utf-8")
    with pytest.raises(InputError, match=r"t\.txt: no valid text; .*--valid FILE"):
        prepare(tmp_path / "run", str(tmp_path / "t.txt"), documents="line")
    with pytest.raises(InputError, match="no training data"):
        prepare_text_data(TextDataConfig(), tmp_path, 1, lambda message: None)
