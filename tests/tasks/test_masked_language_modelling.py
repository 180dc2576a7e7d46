"""Words taken away, the loss of telling them, and a run that fills them in."""

import json
import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import number_pairs, train_tiny, zhuyi

from zhuyi import load
from zhuyi.config import parse_config
from zhuyi.data.encoder_rows import mask_id
from zhuyi.data.tokenizers import TokenizerConfig, train_tokenizer
from zhuyi.errors import InputError
from zhuyi.evaluation import Wanted, evaluate_run
from zhuyi.predict.text_encoder import TextEncoder
from zhuyi.predict.word_filler import WordFiller
from zhuyi.run_folder import RunFolder
from zhuyi.tasks.masked_language_modelling import (
    NO_WORD,
    MaskedLanguageModellingTask,
    MaskedTextConfig,
    choose_words,
)
from zhuyi.training.beginning import take_tokenizers
from zhuyi.training.loop import build_model

TEXTS = [side for pair in number_pairs(40) for side in pair]


def values(path: Path, data: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    return {
        "task": "masked-language-modelling",
        "model": {"name": "bert", "d_model": 26, "num_heads": 2, "d_ff": 41, "num_layers": 1, "max_len": 32},
        "data": {
            "train": [str(path)],
            "valid_size": 8,
            "max_len": 32,
            "tokenizer": {"kind": "character", "vocab_size": 64},
            **(data or {}),
        },
        "train": {
            "max_steps": 6,
            "batch_tokens": 256,
            "learning_rate": 0.01,
            "schedule": "constant",
            "warmup_steps": 2,
            "label_smoothing": 0.0,
            "precision": "float32",
            "eval_every_steps": 3,
            "save_every_steps": 3,
            **settings,
        },
    }


@pytest.fixture(scope="module")
def texts_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(texts_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("masked") / "run"
    config = parse_config(values(texts_file, {"test": [str(texts_file)]}), "test")
    scores, _ = train_tiny(config, path)
    assert 0 < scores["valid_loss"] < 5 and 0 <= scores["accuracy"] <= 1
    return path


def prepare(config: MaskedTextConfig, folder: Path, seed: int = 1) -> MaskedLanguageModellingTask:
    return MaskedLanguageModellingTask.prepare(config, None, folder, 256, seed, lambda message: None)


# What is taken away


@given(st.lists(st.integers(1, 4), min_size=1, max_size=30), st.floats(0.05, 0.6), st.integers(0, 5))
def test_whole_words_are_chosen_up_to_the_share(lengths: list[int], share: float, seed: int) -> None:
    words = np.array([NO_WORD, *(i for i, n in enumerate(lengths) for _ in range(n)), NO_WORD])
    chosen = choose_words(words, share, np.random.default_rng(seed))
    assert not chosen[[0, -1]].any()
    for i, length in enumerate(lengths):
        assert int(chosen[words == i].sum()) in (0, length)
    wanted = max(1, round(share * sum(lengths)))
    count = int(chosen.sum())
    assert count >= 1
    if min(lengths) <= wanted:
        assert count <= wanted
        assert wanted - count < max(lengths) or count == sum(n for n in lengths if n <= wanted)


def test_a_row_without_words_has_none_taken_away() -> None:
    assert not choose_words(np.array([NO_WORD, NO_WORD]), 0.15, np.random.default_rng(0)).any()


def test_of_the_chosen_eight_in_ten_go_and_one_is_another_word(texts_file: Path, tmp_path: Path) -> None:
    config = MaskedTextConfig((str(texts_file),), mask_share=0.5, valid_size=8, max_len=32, words="pieces")
    config = replace(config, tokenizer=replace(config.tokenizer, kind="character"))
    batches = prepare(config, tmp_path).batches("train")
    gone, kinds = mask_id(batches._tokenizer), Counter[str]()
    for epoch in range(12):
        for rows in batches.order(epoch):
            batch = batches.load(rows)
            original = batch.ids.masked_scatter(batch.chosen, batch.expected)
            assert torch.equal(batch.ids[~batch.chosen], original[~batch.chosen])
            assert not batch.chosen[~batch.mask].any()
            assert not (original[batch.chosen] <= 2).any()  # no sign is ever chosen
            now, before = batch.ids[batch.chosen], batch.expected
            kinds["gone"] += int((now == gone).sum())
            kinds["stays"] += int((now == before).sum())
            kinds["other"] += int(((now != before) & (now != gone)).sum())
            kinds["tokens"] += int(batch.mask.sum()) - 2 * len(rows)
            assert not (now <= 3).any()  # no sign takes a word's place
    chosen = kinds["gone"] + kinds["stays"] + kinds["other"]
    assert chosen > 4000
    assert chosen / kinds["tokens"] == pytest.approx(0.5, abs=0.03)
    assert kinds["gone"] / chosen == pytest.approx(0.8, abs=0.03)
    assert kinds["other"] / chosen == pytest.approx(0.1, abs=0.02)  # less those drawn as they were
    assert kinds["stays"] / chosen == pytest.approx(0.1, abs=0.02)


def test_what_is_taken_away_follows_from_seed_epoch_and_row(texts_file: Path, tmp_path: Path) -> None:
    config = MaskedTextConfig((str(texts_file),), valid_size=8, max_len=32)
    batches = prepare(config, tmp_path / "a").batches("train")
    again, other = (prepare(config, tmp_path / "a", seed).batches("train") for seed in (1, 2))
    rows, later = (np.arange(5) + epoch * len(batches) for epoch in (0, 1))
    assert torch.equal(batches.load(rows).ids, again.load(rows).ids)
    assert not torch.equal(batches.load(rows).ids, batches.load(later).ids)
    assert not torch.equal(batches.load(rows).chosen, other.load(rows).chosen)
    alone = batches.load(rows[3:4])  # whatever else is in the batch
    length = alone.ids.shape[1]
    assert torch.equal(batches.load(rows).ids[3, :length], alone.ids[0])
    first = {int(row) % len(batches) for batch in batches.order(3) for row in batch}
    assert first == set(range(len(batches)))


def test_long_texts_become_several_rows_and_nothing_is_lost(tmp_path: Path) -> None:
    long = "".join(TEXTS[::2])
    (tmp_path / "a.txt").write_text(long + "\n" + "\n".join(TEXTS), encoding="utf-8")
    config = MaskedTextConfig((str(tmp_path / "a.txt"),), valid_size=8, max_len=20)
    config = replace(config, tokenizer=replace(config.tokenizer, kind="character"))
    batches = prepare(config, tmp_path / "run").batches("train")
    assert max(batches.corpus.lengths("ids")) == 20
    texts = [batches.lines(np.array([row]))[0] for row in range(len(batches))]
    assert long in "".join(texts)


def test_words_go_whole_where_asked(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(text for text in TEXTS if text.isascii()), encoding="utf-8")
    for words, alike in (("whole", True), ("pieces", False)):
        config = MaskedTextConfig((str(tmp_path / "a.txt"),), valid_size=8, max_len=64, words=words, mask_share=0.3)  # type: ignore[arg-type]
        config = replace(config, tokenizer=replace(config.tokenizer, kind="character"))
        batches = prepare(config, tmp_path / words).batches("train")
        seen = set()
        for row in range(len(batches)):
            numbers, chosen = batches.corpus.ids("words", row), batches.load(np.array([row])).chosen[0].numpy()
            seen |= {tuple(chosen[numbers == n]) for n in set(numbers.tolist()) - {NO_WORD}}
        assert all(len(set(word)) == 1 for word in seen)
        assert any(len(word) > 2 for word in seen) is alike


def test_pairs_have_two_segments(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("\n".join(f"{a}\t{b}" for a, b in number_pairs(30)), encoding="utf-8")
    config = MaskedTextConfig((str(tmp_path / "a.tsv"),), columns=(1, 2), valid_size=6, max_len=40)
    batch = prepare(config, tmp_path / "run").batches("train").load(np.array([0, 1]))
    for ids, segments, mask in zip(batch.ids, batch.segments, batch.mask, strict=True):
        ends = (ids == 2).nonzero()[:, 0]
        assert len(ends) == 2
        assert segments[mask].tolist() == [0] * int(ends[0] + 1) + [1] * int(ends[1] - ends[0])


# Training and use


def test_the_loss_is_that_of_the_words_taken_away(run: Path) -> None:
    config = RunFolder(run).read_config()
    task = MaskedLanguageModellingTask.prepare(config.data, None, run, 256, 1, print, begun=True)
    model = load(run).model
    batch = task.batches("valid").load(task.batches("valid").order(0)[0])
    log_probs = model.masked_word_head(model(batch.ids, batch.mask, batch.segments)).log_softmax(-1)
    expected = -sum(
        float(log_probs[row, place, word])
        for (row, place), word in zip(batch.chosen.nonzero().tolist(), batch.expected.tolist(), strict=True)
    )
    loss, nll, count = task.loss(model, batch)
    assert count == int(batch.chosen.sum())
    assert float(loss) == pytest.approx(expected, rel=1e-5) and float(nll) == pytest.approx(expected, rel=1e-5)


def test_the_config_has_what_follows_from_the_data(run: Path) -> None:
    config = RunFolder(run).read_config()
    assert config.model.masked_word_head and not config.model.pooler
    assert config.model.vocab_size == load(run).tokenizer.vocab_size + 1


def test_six_steps_are_three_a_resume_and_three(texts_file: Path, run: Path, tmp_path: Path) -> None:
    config = parse_config(values(texts_file, {"test": [str(texts_file)]}, max_steps=3), "test")
    train_tiny(config, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    longer = folder.read_config()
    folder.write_config(replace(longer, train=replace(longer.train, max_steps=6)))
    train_tiny(config, tmp_path / "run", resume=True)
    assert folder.weights_path.read_bytes() == RunFolder(run).weights_path.read_bytes()


def test_evaluate_is_the_loss_over_all_rows(run: Path, texts_file: Path) -> None:
    filler = load(run)
    scores = evaluate_run(filler, Wanted())
    assert scores["rows"] > len(TEXTS)  # the longest are two
    config = replace(filler.config, data=replace(filler.config.data, valid=(str(texts_file),)))
    take_tokenizers(RunFolder(run), RunFolder(run.parent))
    task = prepare(config.data, run.parent, config.train.seed)
    expected = task.evaluate(filler.model)
    assert scores["rows"] == len(task.batches("valid"))
    assert scores["valid_loss"] == pytest.approx(expected["valid_loss"], rel=1e-5)
    assert scores["accuracy"] == pytest.approx(expected["accuracy"])
    with pytest.raises(InputError, match="--beam is not for"):
        evaluate_run(filler, Wanted(beam=3))
    nothing = run.parent / "nothing.txt"
    nothing.write_text("\u200b\u200b\n", encoding="utf-8")
    with pytest.raises(InputError, match="not one token in the texts"):
        evaluate_run(filler, Wanted([str(nothing)]))


@torch.inference_mode()
def test_gaps_are_filled_by_the_likeliest_words(run: Path) -> None:
    filler = load(run)
    found = filler.fill("三[MASK]七[MASK]。", top=4)
    assert [len(candidates) for candidates in found] == [4, 4]
    ids = filler.tokenizer.encode("三五七五。")
    row = [1, *ids]
    row[2] = row[4] = mask_id(filler.tokenizer)
    logits = filler.model.masked_word_head(filler.model(torch.tensor([row])))[0, 4]
    space = filler.tokenizer.labels.index("▁")  # nothing would be seen
    logits[[0, 1, 2, 3, space, mask_id(filler.tokenizer)]] = -math.inf
    best = logits.softmax(-1).topk(4)
    for candidate, probability, i in zip(found[1], best.values.tolist(), best.indices.tolist(), strict=True):
        assert candidate.probability == pytest.approx(probability, rel=1e-5)
        assert candidate.word == filler.tokenizer.labels[i].replace("▁", "")
        assert candidate.text == f"三[MASK]七{candidate.word}。"


ENGLISH = [
    "the new film was shown in the old house on Monday .",
    "a film of the newest kind was shown again and again",
    "she was shown the house , the garden and the film",
]


def random_filler(tokenizer: TokenizerConfig) -> WordFiller:
    """Of random weights, over pieces of a few English sentences."""
    found = train_tokenizer(ENGLISH * 3, tokenizer)
    chosen = values(Path("nowhere.txt"))
    chosen["model"] |= {"max_len": 60, "vocab_size": found.vocab_size + 1, "masked_word_head": True}
    config = parse_config(chosen, "test")
    model = build_model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return WordFiller(TextEncoder(model, found, 60), config)


PIECES = [
    TokenizerConfig(kind="unigram", vocab_size=60),
    TokenizerConfig(kind="bpe", vocab_size=60),
    TokenizerConfig(kind="byte-bpe", vocab_size=290),
    TokenizerConfig(kind="byte-bpe", vocab_size=290, verbatim=True),
    TokenizerConfig(kind="character", vocab_size=60),
]


@torch.inference_mode()
@pytest.mark.parametrize("pieces", PIECES, ids=lambda pieces: f"{pieces.kind}-{pieces.verbatim}")
def test_a_gap_is_read_as_training_makes_it(pieces: TokenizerConfig) -> None:
    """One piece of a text taken away, and the text with a gap in its place, give the model the same row."""
    filler = random_filler(pieces)
    tokenizer = filler.tokenizer
    is_word = [bool(label.replace("▁", "").strip()) and i > 3 for i, label in enumerate(tokenizer.labels)]
    inside = 0
    for text in ENGLISH:
        ids = tokenizer.encode(text)
        labels = [tokenizer.labels[i] for i in ids]
        starts = [i for i, label in enumerate(labels) if i == 0 or label.startswith("▁") or i == len(labels) - 1]
        for first, end in pairwise(starts):
            if end - first > 2 or labels[first] == "▁":  # what is left of a long word may be cut in another way
                continue
            place = first + (end - first - 1) * (first % 2)
            inside += end > place + 1
            space = " " if labels[place].startswith("▁") else ""
            gapped = "".join([*labels[:place], f"{space}[MASK]", *labels[place + 1 : -1]]).replace("▁", " ").strip()
            row = torch.tensor([[1, *ids]])
            row[0, place + 1] = mask_id(tokenizer)
            logits = filler.model.masked_word_head(filler.model(row))[0, place + 1]
            (found,) = filler.fill(gapped, top=1000)
            assert all(each.word and each.word == each.word.strip() for each in found)
            probs = logits.masked_fill(~torch.tensor([*is_word, False]), -math.inf).softmax(-1)
            assert len(found) == sum(is_word)
            assert found[0].probability == pytest.approx(float(probs.max()), rel=1e-4), gapped
    assert inside or "bpe" not in pieces.kind


@pytest.mark.parametrize(
    ("text", "message"), [("三五", r"write \[MASK\] where"), ("[MASK]" + "三" * 40, "longer than the 32 tokens")]
)
def test_what_cannot_be_filled_is_refused(run: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(run).fill(text)


def test_embeddings_are_the_mean_at_length_one_whatever_is_beside(run: Path) -> None:
    filler = load(run)
    found = filler.embed(TEXTS[:7])
    assert found.shape == (7, 26) and found.dtype == np.float32
    for text, row in zip(TEXTS, found, strict=False):
        states = filler.model(torch.tensor([[1, *filler.tokenizer.encode(text)]]))[0].mean(dim=0)
        np.testing.assert_allclose(row, (states / states.norm()).numpy(), atol=1e-5)
    assert filler.embed([]).shape == (0, 26)
    with pytest.raises(InputError, match=r"write \[text\]"):
        filler.embed("三五")


def test_the_commands(run: Path, tmp_path: Path) -> None:
    found = zhuyi("fill", run, "三[MASK]七。", "--top", "2", "--jsonl")
    assert found.returncode == 0, found.stderr
    (line,) = found.stdout.splitlines()
    assert [set(each) for each in json.loads(line)["candidates"]] == [{"word", "probability", "text"}] * 2
    found = zhuyi("embed", run, "--output", tmp_path / "a.npy", stdin="三五。\n\n七。\n")
    assert found.returncode == 0 and found.stdout == "", found.stderr
    array = np.load(tmp_path / "a.npy")
    assert array.shape == (3, 26)
    np.testing.assert_allclose(array, load(run).embed(["三五。", "", "七。"]), atol=1e-6)
    found = zhuyi("embed", run, "三五。")
    np.testing.assert_allclose(json.loads(found.stdout)["embedding"], array[0], atol=1e-6)
    found = zhuyi("classify", run, "三五。")
    assert found.returncode == 2 and "run of masked-language-modelling" in found.stderr


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mask_share": 0.0}, "mask_share lies between 0 and 1"),
        ({"columns": [1, 2, 3]}, "got 3"),
        ({"max_len": 3}, "max_len must be at least 4"),
        ({"encoding": "utf-16"}, "lines cannot be told apart"),
        ({"encoding": "klingon"}, "none that Python knows"),
        ({"train": ["-"]}, "give a file, not -"),
    ],
)
def test_what_cannot_be_is_refused(texts_file: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_config(values(texts_file, wrong), "test")
