"""Our wrapper prints what sacreBLEU prints."""

import pytest
import sacrebleu

from zhuyi.metrics.translation_scores import bleu_tokenization, translation_scores

HYPOTHESES = ["The cat sat on the mat.", "It is raining today, I think."]
REFERENCES = ["The cat sat on a mat.", "it is raining today, I believe."]


def test_bleu_and_chrf_are_sacrebleus() -> None:
    scores = translation_scores(HYPOTHESES, REFERENCES, "en")
    assert scores["bleu"] == round(sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score, 2)
    assert scores["chrf"] == round(sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score, 2)
    assert "tok:13a" in scores["signature"]


def test_a_text_may_have_several_references() -> None:
    several = [["A cat was sitting there.", REFERENCES[0]], REFERENCES[1]]
    scores = translation_scores(HYPOTHESES, several, "en")
    streams = [["A cat was sitting there.", REFERENCES[1]], [REFERENCES[0], None]]
    assert scores["bleu"] == round(sacrebleu.corpus_bleu(HYPOTHESES, streams).score, 2)
    assert scores["chrf"] == round(sacrebleu.corpus_chrf(HYPOTHESES, streams).score, 2)
    assert scores["bleu"] >= translation_scores(HYPOTHESES, REFERENCES, "en")["bleu"]
    assert "nrefs:var" in scores["signature"]


def test_lower_case_is_said_in_the_signature() -> None:
    scores = translation_scores(HYPOTHESES, REFERENCES, "en", lowercase=True)
    assert scores["bleu"] > translation_scores(HYPOTHESES, REFERENCES, "en")["bleu"]
    assert "case:lc" in scores["signature"]


@pytest.mark.parametrize(
    ("language", "cut"),
    [("zh", "zh"), ("zh-CN", "zh"), ("ZH_Hans", "zh"), ("en", "13a"), ("de", "13a"), ("ja", "char")],
)
def test_the_target_language_chooses_how_words_are_cut(language: str, cut: str) -> None:
    assert bleu_tokenization(language) == cut


def test_chinese_is_cut_at_its_characters() -> None:
    scores = translation_scores(["今天天气很好。"], ["今天天气真好。"], "zh")
    assert "tok:zh" in scores["signature"]
    assert scores["bleu"] > 20  # as one "word", it would have no match at all
