"""Text to text, as `evaluate`, `translate` and the server get it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny import number_pairs, random_run

import zhuyi
from zhuyi.data.special_tokens import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from zhuyi.decoding import max_output_tokens
from zhuyi.predict import Translator
from zhuyi.tasks.translation import Translation

TEXTS = [source for source, _ in number_pairs(24, digits=(1, 2, 5, 9), seed=4)]
HOSTILE = st.text(
    st.sampled_from("一二三。，！ \t\r\x00\x0b\x85\u2028\u200b\ufeff😀مa.!?-\n") | st.characters(), max_size=40
)


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Translator:
    return zhuyi.load(random_run(tmp_path_factory.mktemp("run") / "random").path)


def same(found: Translation, wanted: Translation) -> bool:
    """The same text, or another one with nearly the same score."""
    return found.text == wanted.text or abs(found.score - wanted.score) < 1e-4


@pytest.mark.parametrize("beam", [1, 3])
def test_a_text_alone_is_as_among_others(translator: Translator, beam: int) -> None:
    together = translator.translate(TEXTS, beam=beam)
    assert len({translation.text for translation in together}) > len(TEXTS) // 2  # they do differ
    for text, translation in zip(TEXTS, together, strict=True):
        assert same(translation, translator.translate([text], beam=beam)[0])


@torch.inference_mode()
def test_greedy_is_the_whole_prefix_recomputed(translator: Translator) -> None:
    """No cache, no batch, no search: the likeliest next token until the end sign."""
    model, tokenizer = translator.model, translator.tokenizer
    for text, found in zip(TEXTS, translator.translate(TEXTS, beam=1), strict=True):
        source = tokenizer.encode(text)
        ids, log_prob = [BOS_ID], 0.0
        for _ in range(max_output_tokens(len(source), model.max_len)):
            logits = model(torch.tensor([source]), torch.tensor([ids]))[0, -1]
            log_probs = logits.log_softmax(dim=-1)
            log_probs[[PAD_ID, BOS_ID, UNK_ID]] = -torch.inf
            ids.append(int(log_probs.argmax()))
            log_prob += float(log_probs[ids[-1]])
            if ids[-1] == EOS_ID:
                break
        if "repetition" not in found.flags:
            assert same(found, Translation(tokenizer.decode(ids), log_prob))


@given(st.lists(HOSTILE, max_size=6))
def test_as_many_texts_out_as_in_and_line_breaks_kept(translator: Translator, texts: list[str]) -> None:
    found = translator.translate(texts, beam=1)
    assert len(found) == len(texts)
    for text, translation in zip(texts, found, strict=True):
        assert translation.text.count("\n") == text.count("\n")
        if not any(character.isalnum() for character in text):
            assert translation.text == text
            assert translation.flags == ("copied",)


def test_a_long_text_is_cut_into_parts_and_none_is_lost(translator: Translator) -> None:
    sentences = [source for source, _ in number_pairs(12, digits=(7,), seed=9)]
    whole = translator.translate(["".join(sentences)], beam=1)[0]
    assert "split" in whole.flags
    limit = translator.model.max_len - 1
    parts, packed = [], ""
    for sentence in sentences:  # as many sentences together as fit
        if packed and sum(len(translator.tokenizer.encode(each)) for each in _cut(packed)) + 9 > limit:
            parts.append(packed)
            packed = ""
        packed += sentence
    texts = [translation.text for translation in translator.translate([*parts, packed], beam=1)]
    assert whole.text.replace(" ", "") == "".join(texts).replace(" ", "")


def _cut(text: str) -> Iterator[str]:
    return (part + "。" for part in text.split("。") if part)


def test_a_text_without_any_mark_is_cut_too(translator: Translator) -> None:
    found = translator.translate(["一二三四五" * 300], beam=1)[0]
    assert "split" in found.flags
    assert found.text


def test_the_best_come_first_and_differ(translator: Translator) -> None:
    for translation in translator.translate(TEXTS[:6], n_best=3):
        ranked = [(translation.text, translation.score), *translation.alternatives]
        assert len(ranked) == 3
        assert [score for _, score in ranked] == sorted((score for _, score in ranked), reverse=True)
    best = translator.translate(TEXTS[:6], beam=3)
    for translation, alone in zip(translator.translate(TEXTS[:6], beam=3, n_best=3), best, strict=True):
        assert same(translation, alone)


def test_the_tokens_are_the_texts_pieces(translator: Translator) -> None:
    for translation in translator.translate(TEXTS[:6]):
        assert "".join(translation.tokens).replace("▁", " ").strip() == translation.text


def test_no_special_sign_is_ever_written(translator: Translator) -> None:
    for translation in translator.translate(TEXTS):
        assert not {"<pad>", "<s>", "</s>", "<unk>"} & set(translation.tokens)


def test_a_run_read_from_disk_is_the_run(translator: Translator, tmp_path: Path) -> None:
    again = zhuyi.load(random_run(tmp_path / "again").path)
    assert [t.text for t in again.translate(TEXTS)] == [t.text for t in translator.translate(TEXTS)]
