"""Texts continued: alone as among others, in whole characters, up to a stop string, beyond the window."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zhuyi.data.tokenizers import Tokenizer, TokenizerConfig, train_tokenizer
from zhuyi.decoding.config import GenerationConfig
from zhuyi.models.gpt import Gpt, GptConfig, to_published
from zhuyi.run_folder import named_weights
from zhuyi.tasks.continuation import Prompt, TextStream, Written, continue_texts

TEXTS = ["abc def. 你好，世界！", "the quick brown fox", "ünï cödé 😀"]
BYTES = train_tokenizer(TEXTS, TokenizerConfig("byte-bpe", 262, verbatim=True))
CHARACTERS = train_tokenizer(TEXTS, TokenizerConfig("character", 99, verbatim=True))
GREEDY = GenerationConfig(max_new_tokens=12, temperature=0.0)


def model_for(tokenizer: Tokenizer, max_len: int = 32) -> Gpt:
    torch.manual_seed(1)
    sizes = {"d_model": 14, "num_heads": 2, "num_layers": 2, "vocab_size": tokenizer.vocab_size}
    model = Gpt(GptConfig(**sizes, max_len=max_len, tie_embeddings=False))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.8)
        model.output_projection.weight[tokenizer.signs.eos] = 0.0  # never the likeliest
    return model.double().eval()


def written(
    model: Any, prompts: Sequence[str], config: GenerationConfig, tokenizer: Tokenizer = CHARACTERS, **options: Any
) -> list[Written]:
    """What comes of each prompt, samples in order; the pieces reported are the text."""
    samples = options.pop("samples", 1)
    found: dict[tuple[int, int], Written] = {}
    pieces: dict[tuple[int, int], str] = {}
    begun = [Prompt(tokenizer.encode(text)[:-1], samples) for text in prompts]
    for chunk in continue_texts(model, tokenizer, begun, config, **options):
        key = chunk.prompt, chunk.sample
        assert key not in found
        pieces[key] = pieces.get(key, "") + chunk.text
        if chunk.written is not None:
            found[key] = chunk.written
    assert {key: each.text for key, each in found.items()} == pieces
    return [found[key] for key in sorted(found)]


# What is written.


@torch.no_grad()
def test_greedy_is_the_whole_text_computed_again() -> None:
    model = model_for(CHARACTERS)
    for text, found in zip(("abc", "qu"), written(model, ("abc", "qu"), GREEDY), strict=True):
        ids, log_prob = CHARACTERS.encode(text)[:-1], 0.0
        for token in found.tokens:
            log_probs = model(torch.tensor([ids]))[0, -1].log_softmax(-1)
            allowed = log_probs.clone()
            allowed[[0, 1, 3]] = -torch.inf
            ids.append(int(allowed.argmax()))
            log_prob += float(log_probs[ids[-1]])
            assert CHARACTERS.labels[ids[-1]] == token
        assert found.flags == ("length",) and len(found.tokens) == 12
        assert found.log_prob == pytest.approx(log_prob, abs=1e-4)


def test_a_text_is_the_same_alone_among_others_and_in_any_order() -> None:
    model, config = model_for(CHARACTERS), GenerationConfig(max_new_tokens=9, temperature=1.5, batch_rows=4)
    prompts = ["abc", "the quick b", "u", "fox", "quick", "d"]
    together = written(model, prompts, config, samples=2)
    assert len({each.text for each in together}) > 6
    assert written(model, prompts[::-1], config, samples=2)[::-1][1::2] == together[0::2]
    for i, prompt in enumerate(prompts):
        assert written(model, [prompt], config, samples=2) == together[2 * i : 2 * i + 2]
    assert written(model, prompts, config, samples=2, seed=2) != together


def test_the_end_sign_ends_a_text() -> None:
    model = model_for(CHARACTERS)
    with torch.no_grad():
        model.output_projection.weight[CHARACTERS.signs.eos] = 40 * model.decoder_norm.bias
    (found,) = written(model, ["abc"], GREEDY)
    assert found.flags == () and len(found.tokens) < 12 and found.log_prob is not None


# The window.


@torch.no_grad()
def test_beyond_its_positions_a_model_goes_on_with_the_later_half_of_its_window() -> None:
    model = model_for(CHARACTERS, max_len=10)
    (found,) = written(model, ["abc"], replace(GREEDY, max_new_tokens=30))
    assert found.flags == ("length", "window") and len(found.tokens) == 30
    window = CHARACTERS.encode("abc")[:-1]
    for token in found.tokens:
        if len(window) > 10:
            window = window[-5:]
        logits = model(torch.tensor([window]))[0, -1]
        logits[[0, 1, 3]] = -torch.inf
        window.append(int(logits.argmax()))
        assert CHARACTERS.labels[window[-1]] == token


def test_a_prompt_longer_than_the_window_loses_its_beginning() -> None:
    model = model_for(CHARACTERS, max_len=10)
    long, short = written(model, ["the quick brown fox", "n fox"], replace(GREEDY, max_new_tokens=4))
    assert (long.text, long.log_prob) == (short.text, pytest.approx(short.log_prob))
    (other,) = written(model, ["own fox"], replace(GREEDY, max_new_tokens=4))
    assert other.log_prob != pytest.approx(short.log_prob)


# Streams.


@given(st.text(st.sampled_from("ab你😀é "), max_size=12), st.text("ab你 ", max_size=4))
def test_a_stream_gives_whole_characters_and_all_of_them(text: str, before: str) -> None:
    ids = BYTES.encode(text)[:-1]
    stream = TextStream(BYTES, BYTES.encode(before)[:-1])
    pieces = [stream.add(token) for token in ids]
    assert "\ufffd" not in "".join(pieces)
    assert "".join(pieces) + stream.end() == text
    stream = TextStream(BYTES)
    cut = "".join([*map(stream.add, BYTES.encode("好😀")[:-2]), stream.end()])
    assert cut == "好"


@given(
    st.text("ab.", max_size=14), st.lists(st.sampled_from(["ab.", ".", "aab", "bb", "aaaa"]), min_size=1, max_size=2)
)
def test_a_stop_string_ends_a_text_before_it(text: str, stop: list[str]) -> None:
    stream = TextStream(CHARACTERS, (), stop)
    shown = ""
    for token in CHARACTERS.encode(text)[:-1]:
        shown += stream.add(token)
        if stream.stopped:
            break
    shown += stream.end()
    places = [place for each in stop if (place := text.find(each)) >= 0]
    assert stream.stopped is bool(places)
    if not places:
        assert shown == text
    else:  # the first to be complete ends it, where it begins
        complete = min(text.find(each) + len(each) for each in stop if each in text)
        assert shown == text[: min(p for each in stop if (p := text[:complete].find(each)) >= 0)]


def test_writing_ends_at_a_stop_string() -> None:
    model = model_for(CHARACTERS)
    (whole,) = written(model, ["abc"], GREEDY)
    stop = whole.text[5:7]
    (found, other) = written(model, ["abc", "qu"], replace(GREEDY, stop=(stop,)))
    assert found.text == whole.text[: whole.text.find(stop)] and found.flags == ("stop",)
    assert found.log_prob is None
    assert other.flags in (("length",), ("stop",))


# Filters.


def test_no_sequence_comes_twice() -> None:
    model = model_for(CHARACTERS)
    config = replace(GREEDY, max_new_tokens=25)
    (loops,) = written(model, ["abcab"], config)
    (found,) = written(model, ["abcab"], replace(config, no_repeat_ngram=2))
    pairs = [("abcab" + "".join(each.tokens))[i:][:2] for each in (loops, found) for i in range(len("abcab") + 24)]
    first, second = pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]
    assert len(set(first)) < len(first)
    assert len(set(second)) == len(second) - 1  # "ab" stands twice in the prompt itself


def test_what_the_window_has_forgotten_still_counts_against_repetition() -> None:
    model, config = model_for(CHARACTERS, max_len=10), replace(GREEDY, max_new_tokens=25)
    (free,) = written(model, ["quick fox abc"], config)
    (found,) = written(model, ["quick fox abc"], replace(config, no_repeat_ngram=2))
    for each, is_free in ((free, True), (found, False)):
        text = ["q", "u", "i", "c", "k", " ", "f", "o", "x", " ", "a", "b", "c", *each.tokens]
        pairs = list(pairwise(text))
        assert (len(set(pairs)) < len(pairs)) is is_free
    many = written(model, ["quick fox abc"], replace(config, repetition_penalty=1e6))[0].tokens
    unread = [token for token in many if token not in "quick fox abc"]
    assert many[: len(set(unread))] == tuple(unread)[: len(set(unread))]  # what was read comes last


def test_what_is_there_becomes_less_likely() -> None:
    model = model_for(CHARACTERS)
    config = replace(GREEDY, max_new_tokens=20)
    few = len(set(written(model, ["abc"], config)[0].tokens))
    many = written(model, ["abc"], replace(config, repetition_penalty=50.0))[0].tokens
    assert len(set(many)) > few
    assert "a" not in many[:10]


# The same written by transformers.


@pytest.mark.peers
@pytest.mark.parametrize("penalty", [1.0, 1.7])
@pytest.mark.parametrize("ngram", [0, 2])
def test_greedy_texts_are_those_of_transformers(penalty: float, ngram: int) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    ours = model_for(CHARACTERS).float()
    sizes = {"n_embd": 14, "n_head": 2, "n_layer": 2, "n_positions": 32, "vocab_size": CHARACTERS.vocab_size}
    theirs: Any = GPT2LMHeadModel(GPT2Config(**sizes, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2)).eval()
    theirs.load_state_dict(to_published(named_weights(ours)))
    config = replace(GREEDY, max_new_tokens=20, repetition_penalty=penalty, no_repeat_ngram=ngram)
    for text, found in zip(("abcab", "the fox", "q"), written(ours, ("abcab", "the fox", "q"), config), strict=True):
        ids = torch.tensor([CHARACTERS.encode(text)[:-1]])
        wanted = theirs.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=20,
            repetition_penalty=penalty,
            no_repeat_ngram_size=ngram,
            suppress_tokens=[0, 1, 3],
            pad_token_id=0,
        )[0, ids.shape[1] :]
        assert [CHARACTERS.labels[i] for i in wanted.tolist() if i != 2] == list(found.tokens)
