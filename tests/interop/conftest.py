"""A translator of random weights, and what it writes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.tiny import number_pairs, tiny_config

from zhuyi.data.tokenizers import TokenizerConfig, train_tokenizers
from zhuyi.decoding import Rule, Search, run
from zhuyi.decoding.requests import Request
from zhuyi.predict import Translator
from zhuyi.tasks.sentence_search import begin
from zhuyi.training.loop import build_model

TEXTS = ["三五。", "零七八二。", "一二三四五六。", "九九。", "六三一。"]
EOS_ID = 2


@pytest.fixture
def translator() -> Callable[..., Translator]:
    """Makes one whose weights are all random; a gain of 2 spreads the scores of different texts far apart."""

    def make(gain: float = 2.0, **model: Any) -> Translator:
        sources, targets = zip(*number_pairs(60), strict=True)
        joint = model.get("tie_embeddings", "three-way") == "three-way"
        tokenizers = train_tokenizers(
            sources, targets, TokenizerConfig(kind="character", vocab_size=64, joint=joint), max_lines=100
        )
        config = tiny_config("nowhere.tsv")
        sizes = {f"{side}_vocab_size": t.vocab_size for side, t in zip(("source", "target"), tokenizers, strict=True)}
        config = replace(config, model=replace(config.model, **(sizes | model)))
        torch.manual_seed(3)
        module = build_model(config).eval()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(gain).add_(torch.randn_like(parameter), alpha=0.1 * gain)
        return Translator(module, config, tokenizers)

    return make


@pytest.fixture
def write() -> Callable[..., list[tuple[tuple[int, ...], float]]]:
    """The search alone, without the filters of translation: the best hypothesis and its score for each text."""

    def search(
        translator: Translator, texts: list[str], rule: Rule, max_new_tokens: int
    ) -> list[tuple[tuple[int, ...], float]]:
        model = translator.model
        loop = Search(
            lambda requests: begin(model, requests, torch.device("cpu")), model.step, rule, eos_id=EOS_ID, stream=False
        )
        requests = [
            Request(i, tuple(translator.source_tokenizer.encode(text)), max_new_tokens) for i, text in enumerate(texts)
        ]
        events = run(loop, requests, max_rows=64)
        found = {event.id: event.hypotheses[0] for event in events if event.hypotheses}
        return [(found[i].tokens, found[i].score) for i in range(len(texts))]

    return search
