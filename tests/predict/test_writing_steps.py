"""How an answer came about, as a page shows it."""

from typing import Any

import pytest
import torch
from tests.tiny import random_run

from zhuyi.config import RunConfig, TrainConfig
from zhuyi.data.tokenizers import TokenizerConfig, train_tokenizer
from zhuyi.decoding.config import GenerationConfig
from zhuyi.models.gpt import Gpt, GptConfig
from zhuyi.predict import Generator, Translator, load
from zhuyi.predict.writing_steps import LIKELIEST, likeliest
from zhuyi.tasks.text_data import TextDataConfig


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Translator:
    loaded = load(random_run(tmp_path_factory.mktemp("run")).path)
    assert isinstance(loaded, Translator)
    return loaded


def test_the_beam_leads_to_the_translation(translator: Translator) -> None:
    maps = translator.attention("三五一。", steps=True)
    found = translator.translate(["三五一。"])[0]
    way = [next(each for each in step if each.leads) for step in maps.beam if any(each.leads for each in step)]
    tokens = [each.token for each in way if each.state != "finished"]
    assert tuple(tokens[: len(found.tokens)]) == found.tokens  # of a loop the guard keeps the beginning
    assert way[-1].score == pytest.approx(found.score)
    assert all(len([each for each in step if each.state != "finished"]) <= 3 for step in maps.beam)
    assert all(sum(each.leads for each in step) <= 1 for step in maps.beam)


@pytest.mark.parametrize("options", [{}, {"steps": True, "beam": 1}, {"steps": True, "target": "three."}])
def test_without_a_beam_there_is_nothing_to_tell_of_it(translator: Translator, options: dict[str, Any]) -> None:
    maps = translator.attention("三五一。", **options)
    assert maps.beam == ()
    assert bool(maps.likely) == bool(options)


def test_several_searches_are_not_told(translator: Translator) -> None:
    assert translator.attention("三五一。\n一二。", steps=True).beam == ()


def test_the_likeliest_tokens_are_those_of_the_forward_pass(translator: Translator) -> None:
    maps = translator.attention("三五一。", "three five one.", steps=True)
    tokenizer = translator.target_tokenizer
    ids = tokenizer.encode("three five one.")
    src = torch.tensor([translator.source_tokenizer.encode("三五一。")])
    probs = translator.model(src, torch.tensor([[tokenizer.signs.bos, *ids[:-1]]]))[0].softmax(dim=-1)
    assert len(maps.likely) == len(ids) == len(maps.target_tokens)
    for row, told in zip(probs, maps.likely, strict=True):
        best = row.topk(LIKELIEST)
        assert [token for token, _ in told] == [tokenizer.labels[i] for i in best.indices]
        assert [share for _, share in told] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_a_language_model_s_likeliest_tokens() -> None:
    tokenizer = train_tokenizer(["我们看见了猫。"] * 3, TokenizerConfig(kind="character", vocab_size=40))
    torch.manual_seed(1)
    config = GptConfig(d_model=14, num_heads=2, num_layers=1, max_len=9, vocab_size=tokenizer.vocab_size)
    run = RunConfig("language-modelling", config, TextDataConfig(), TrainConfig(max_steps=1), GenerationConfig())
    generator = Generator(Gpt(config).eval(), run, tokenizer)
    assert generator.attention("看见").likely == ()
    told = generator.attention("看见", steps=True).likely
    logits = generator.model(torch.tensor([[tokenizer.signs.eos, *tokenizer.encode("看见")[:1]]]))[0]
    assert told == likeliest(logits.detach(), tokenizer)
    assert len(told) == 2


def test_ids_beyond_the_tokenizer_have_a_name() -> None:
    tokenizer = train_tokenizer(["我们"] * 3, TokenizerConfig(kind="character", vocab_size=40))
    logits = torch.zeros(1, tokenizer.vocab_size + 1)
    logits[0, -1] = 5.0
    assert likeliest(logits, tokenizer)[0][0][0] == f"<{tokenizer.vocab_size}>"
