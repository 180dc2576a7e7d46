"""Text to text, as `evaluate`, `translate` and the server get it."""

from collections import Counter
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from tests.tiny import number_pairs, random_run
from torch import Tensor, nn

import zhuyi
from zhuyi.data.special_tokens import BOS_ID, EOS_ID, PAD_ID, UNK_ID
from zhuyi.data.tokenizers import TokenizerConfig, train_tokenizer
from zhuyi.decoding import Sampling, max_output_tokens
from zhuyi.decoding.config import DecodeConfig
from zhuyi.nn import kernels
from zhuyi.predict import Translator
from zhuyi.tasks.text_parts import Limit, Translation, cut_line, usual_sentences
from zhuyi.tasks.text_search import translate_texts

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


@torch.inference_mode()
@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_a_beams_score_is_that_of_its_tokens(translator: Translator, alpha: float) -> None:
    tokenizer, scored = translator.target_tokenizer, 0
    for text, found in zip(TEXTS, translator.translate(TEXTS, beam=4, alpha=alpha), strict=True):
        if found.flags:  # cut: without an end sign
            continue
        tgt = [*(tokenizer.labels.index(token) for token in found.tokens), EOS_ID]
        logits = translator.model(torch.tensor([tokenizer.encode(text)]), torch.tensor([[BOS_ID, *tgt[:-1]]]))[0]
        log_prob = float(logits.log_softmax(dim=-1).gather(1, torch.tensor(tgt)[:, None]).sum())
        assert found.score == pytest.approx(log_prob / ((5 + len(tgt)) / 6) ** alpha, abs=1e-4)
        scored += 1
    assert scored > len(TEXTS) // 2


def test_an_endless_stream_is_answered(translator: Translator) -> None:
    few = list(islice(translator.stream(cycle(TEXTS[:3]), beam=1), 7))
    wanted = translator.translate(TEXTS[:3], beam=1)
    assert [each.text for each in few] == [each.text for each in islice(cycle(wanted), 7)]


def test_windows_change_nothing(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (
        translator.model,
        translator.tokenizer,
        translator.tokenizer,
        TEXTS,
        DecodeConfig(beam=2, batch_rows=5),
    )
    together = list(translate_texts(*arguments))
    monkeypatch.setattr("zhuyi.data.windows.WINDOW_TEXTS", 3)
    for one, other in zip(together, translate_texts(*arguments), strict=True):
        assert same(one, other)


def test_a_text_draws_the_same_wherever_it_stands(translator: Translator) -> None:
    rule = Sampling(temperature=3.0)
    twice = translator.translate([*TEXTS[:5], *TEXTS[:5][::-1]], rule=rule, seed=9)
    assert [each.text for each in twice[:5]] == [each.text for each in twice[5:]][::-1]
    assert len({each.text for each in twice}) == 5


class Echo(nn.Module):
    """Writes its source: whatever is missing or doubled in a text was lost or doubled around the model."""

    def __init__(self, vocab_size: int, max_len: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(vocab_size))
        self.max_len = max_len
        self.longest = 0

    def encode(self, src: Tensor, src_mask: Tensor | None = None) -> Tensor:
        self.longest = max(self.longest, src.shape[1])
        return src

    def start(self, memory: Tensor, prefix: Tensor, prefix_mask: Tensor | None = None) -> "EchoState":
        return EchoState(memory, torch.zeros(len(memory), dtype=torch.long))

    def step(self, tokens: Tensor, state: "EchoState") -> tuple[Tensor, "EchoState"]:
        following = state.src.gather(1, state.position[:, None])[:, 0]
        return 20 * self.weight[following], EchoState(state.src, state.position + 1)


class EchoState:
    def __init__(self, src: Tensor, position: Tensor) -> None:
        self.src, self.position = src, position

    def select(self, rows: Tensor) -> "EchoState":
        return EchoState(self.src[rows], self.position[rows])

    def join(self, other: "EchoState") -> "EchoState":
        width = max(self.src.shape[1], other.src.shape[1])
        src = [nn.functional.pad(state.src, (0, width - state.src.shape[1])) for state in (self, other)]
        return EchoState(torch.cat(src), torch.cat([self.position, other.position]))


CHINESE_TEXT = st.text(st.sampled_from("一二三四五六七八九零，。！；"), max_size=120)
ENGLISH_TEXT = st.lists(st.sampled_from(["one", "two,", "three.", "four!", "five", "sixseveneight" * 3]), max_size=30)
ECHO_TOKENIZER = train_tokenizer(
    ["一二三四五六七八九零，。！；", "abcdefghijklmnopqrstuvwxyz .,!"], TokenizerConfig(kind="character", vocab_size=99)
)


@given(
    lines=st.lists(CHINESE_TEXT | ENGLISH_TEXT.map(" ".join), max_size=4),
    longest=st.integers(4, 40),
    beam=st.sampled_from([1, 2]),
)
@example(lines=["一二三四五六七八九零" * 250, "", "。" * 50, "one two, " * 300], longest=30, beam=1)
@example(lines=["一，" * 600 + "二。" * 600], longest=9, beam=2)
def test_however_a_text_is_cut_nothing_is_lost_or_doubled(lines: list[str], longest: int, beam: int) -> None:
    model = Echo(ECHO_TOKENIZER.vocab_size, max_len=32)
    decode = DecodeConfig(beam=beam, longest_sentence=longest)
    (found,) = translate_texts(model, ECHO_TOKENIZER, ECHO_TOKENIZER, ["\n".join(lines)], decode)  # type: ignore[arg-type]
    written = found.text.split("\n")
    assert len(written) == max(1, len(lines))
    for line, echo in zip(lines, written, strict=False):
        # Spaces apart: where a clause does not fit, it is cut wherever the tokens are up, within a word too.
        assert echo.replace(" ", "") == line.replace(" ", "")
    assert model.longest <= min(longest, model.max_len - 1)
    assert ("split" in found.flags) is (sum(any(map(str.isalnum, line)) for line in lines) > 1 or _long(lines, longest))


@pytest.mark.parametrize(("most", "parts"), [(0, 1), (1, 3), (2, 2), (3, 1)], ids=["any", "one", "two", "three"])
def test_no_more_sentences_are_translated_together_than_the_model_knows(most: int, parts: int) -> None:
    text = "一二三。四五六七八！九零一。"
    found = list(cut_line(text, ECHO_TOKENIZER, Limit(40, most)))
    read = [ECHO_TOKENIZER.decode(part.ids) for part in found if not isinstance(part, str)]
    assert "".join(read) == text and len(read) == parts
    decode = DecodeConfig(beam=1, most_sentences=most)
    model = Echo(ECHO_TOKENIZER.vocab_size, max_len=32)
    (answer,) = translate_texts(model, ECHO_TOKENIZER, ECHO_TOKENIZER, [text], decode)  # type: ignore[arg-type]
    assert answer.text == text and ("split" in answer.flags) is (parts > 1)


def test_marks_alone_are_no_sentence() -> None:
    assert len(list(cut_line("一二三。……！", ECHO_TOKENIZER, Limit(40, 1)))) == 1


def test_how_many_sentences_texts_have_is_what_all_but_a_few_have() -> None:
    assert usual_sentences(["一。"] * 99 + ["一。二。三。"]) == 1
    assert usual_sentences(["一。二。"] * 50 + ["一"] * 50) == 2
    assert usual_sentences(["……"]) == 1 and usual_sentences([]) == 0


def _long(lines: list[str], longest: int) -> bool:
    return any(len(line) + 1 > min(longest, 31) and any(map(str.isalnum, line)) for line in lines)


class Counting:
    """A tokenizer's library, and how often it was asked for what."""

    def __init__(self, library: Any) -> None:
        self._library, self.asked = library, Counter[str]()

    def __getattr__(self, name: str) -> Any:
        self.asked[name] += 1
        return getattr(self._library, name)


def test_whole_lines_are_encoded_together_and_others_as_they_are_cut(tmp_path: Path) -> None:
    translator = zhuyi.load(random_run(tmp_path / "random").path)
    library = translator.source_tokenizer._library = Counting(translator.source_tokenizer._library)
    lines = [source for source, _ in number_pairs(20)]
    list(translator.translate(["\n".join(lines[:3]), *lines, lines[0]]))
    assert (library.asked["encode_batch_fast"], library.asked["encode"]) == (1, 0)
    tokenizers = translator.source_tokenizer, translator.target_tokenizer
    list(translate_texts(translator.model, *tokenizers, ["一。二。三。"], DecodeConfig(most_sentences=1)))
    assert library.asked["encode"] > 0


def test_in_int8_a_text_alone_is_to_the_bit_as_among_others(tmp_path: Path) -> None:
    if kernels.status()[:8] != "compiled":
        pytest.skip(f"no compiled kernels here: {kernels.status()}")
    translator = zhuyi.load(random_run(tmp_path / "random").path, "int8")
    together = translator.translate(TEXTS, beam=3)
    assert [translator.translate([text], beam=3)[0].text for text in TEXTS] == [each.text for each in together]
