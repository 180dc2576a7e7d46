"""A run in memory: `zhuyi.load` and what it gives."""

import math
from pathlib import Path

import pytest
import torch
from tests.tiny import number_pairs, random_run

import zhuyi
from zhuyi.data.special_tokens import BOS_ID
from zhuyi.decoding import Sampling
from zhuyi.errors import InputError
from zhuyi.predict import Translator
from zhuyi.tasks import TASKS

PAIRS = number_pairs(7, digits=(1, 3, 6), seed=5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_run(tmp_path_factory.mktemp("run") / "random").path


@pytest.fixture(scope="module")
def translator(run: Path) -> Translator:
    return zhuyi.load(run)


@torch.inference_mode()
def test_the_score_is_the_sum_over_the_targets_tokens(translator: Translator) -> None:
    for (source, target), score in zip(PAIRS, translator.score(PAIRS), strict=True):
        src, tgt = translator.source_tokenizer.encode(source), translator.target_tokenizer.encode(target)
        logits = translator.model(torch.tensor([src]), torch.tensor([[BOS_ID, *tgt[:-1]]]))[0]
        by_hand = sum(float(logits[i].log_softmax(dim=-1)[token]) for i, token in enumerate(tgt))
        assert score.tokens == len(tgt)
        assert math.isclose(score.log_prob, by_hand, abs_tol=1e-4)
        assert math.isclose(score.perplexity, math.exp(-by_hand / len(tgt)), rel_tol=1e-4)


def test_the_best_translation_scores_as_its_search_said(translator: Translator) -> None:
    for source, _ in PAIRS:
        found = translator.translate([source], beam=1)[0]
        if not found.flags and found.text:  # a cut text has no end sign to score
            assert math.isclose(translator.score([(source, found.text)])[0].log_prob, found.score, abs_tol=1e-3)


def test_the_maps_are_of_the_texts_tokens(translator: Translator) -> None:
    source, target = PAIRS[2]
    maps = translator.attention(source, target)
    heads = translator.config.model.num_heads
    columns, rows = len(maps.source_tokens), len(maps.target_tokens)
    assert maps.maps["encoder.0.self"].shape == (heads, columns, columns)
    assert maps.maps["decoder.1.self"].shape == (heads, rows, rows)
    assert maps.maps["decoder.1.cross"].shape == (heads, rows, columns)
    for weights in maps.maps.values():
        assert torch.allclose(torch.as_tensor(weights).sum(dim=-1), torch.ones(()), atol=1e-5)


def test_asking_for_maps_changes_no_text(translator: Translator) -> None:
    before = [translation.text for translation in translator.translate([source for source, _ in PAIRS])]
    for source, target in PAIRS:
        translator.attention(source, target)
    assert [translation.text for translation in translator.translate([source for source, _ in PAIRS])] == before


def test_sampling_repeats_by_its_seed_alone(translator: Translator) -> None:
    sources = [source for source, _ in PAIRS]
    draws = {
        seed: [t.text for t in translator.translate(sources, rule=Sampling(temperature=2.0), seed=seed)]
        for seed in (1, 2)
    }
    assert draws[1] != draws[2]
    alone = [translator.translate([source], rule=Sampling(temperature=2.0), seed=1)[0].text for source in sources]
    assert alone == draws[1]


def test_bfloat16_scores_are_near(run: Path, translator: Translator) -> None:
    half = zhuyi.load(run, precision="bfloat16")
    assert next(half.model.parameters()).dtype == torch.bfloat16
    for near, exact in zip(half.score(PAIRS), translator.score(PAIRS), strict=True):
        assert near.log_prob != exact.log_prob
        assert math.isclose(near.log_prob, exact.log_prob, rel_tol=0.05)


def test_one_text_in_place_of_a_list_is_refused(translator: Translator) -> None:
    with pytest.raises(InputError, match=r"translate\(\[text\]\)"):
        translator.translate("你好。")


@pytest.mark.parametrize("text", ["", "   "])
def test_nothing_has_no_attention(translator: Translator, text: str) -> None:
    with pytest.raises(InputError, match="empty"):
        translator.attention(text, text)


def test_what_the_model_does_not_reach_is_refused(translator: Translator) -> None:
    with pytest.raises(InputError, match="48 tokens"):
        translator.score([("一" * 60, "one.")])
    with pytest.raises(InputError, match="48 tokens"):
        translator.attention("一" * 60, "one.")


def test_other_precisions_and_beams_are_refused(run: Path, translator: Translator) -> None:
    with pytest.raises(InputError, match="choose auto, float32, bfloat16 or int8"):
        zhuyi.load(run, precision="float8")
    with pytest.raises(InputError, match="beam"):
        translator.translate(["一。"], beam=0)


def test_a_run_of_another_task_is_refused_with_what_it_is_for(run: Path) -> None:
    with pytest.raises(InputError) as caught:
        zhuyi.load(run, command="brew")
    assert str(caught.value).startswith(f"{run} is a run of translation, for `zhuyi translate`, `zhuyi evaluate`, ")
    assert zhuyi.load(run, command="score").config.task == "translation"


def test_every_task_has_its_predictor_and_its_commands() -> None:
    from zhuyi.cli import app
    from zhuyi.predict import PREDICTORS

    verbs = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert PREDICTORS.keys() == TASKS.keys()
    for task in TASKS.values():
        assert set(task.commands) <= verbs


def test_the_public_names_are_there() -> None:
    for name in zhuyi.__all__:
        assert getattr(zhuyi, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'tranlsate'"):
        zhuyi.tranlsate  # noqa: B018


def test_each_text_may_have_a_glossary(translator: Translator) -> None:
    texts = ["一二。", "一二。", "三"]
    found = [
        each.text for each in translator.translate(texts, glossary=[{"一": "nine six"}, None, {"": "six"}], beam=2)
    ]
    assert "nine six" in found[0]
    assert found[1] == translator.translate(["一二。"], beam=2)[0].text
    assert "six" in found[2]
    same = translator.translate(texts, glossary={"一": ("six", "two")}, beam=2)
    assert all("six" in each.text or "two" in each.text for each in same[:2])
    assert same[2] == translator.translate(["三"], beam=2)[0]


def test_glossaries_that_fit_nothing_are_refused(translator: Translator) -> None:
    with pytest.raises(InputError, match="1 glossaries for 2 texts"):
        translator.translate(["一", "二"], glossary=[None])
    for options in ({"rule": Sampling()}, {"constraint": "same-length"}, {"same_length": True}):
        with pytest.raises(InputError, match="glossary needs a beam search"):
            translator.translate(["一"], glossary={"一": "one"}, **options)  # type: ignore[arg-type]


def test_placeholders_are_kept_unless_told_otherwise(translator: Translator) -> None:
    """The vocabulary has no brace and no name to stand in."""
    text = "一{x}二。"
    assert "{x}" in translator.translate([text])[0].text
    assert "{x}" not in translator.translate([text], placeholders=False)[0].text
    assert "{x}" in next(translator.stream([text])).text
