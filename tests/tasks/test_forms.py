"""Answers of a given form, whatever the weights and whatever the text."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.tiny import random_run

import zhuyi
from zhuyi.data.tokenizers import Tokenizer, TokenizerConfig, train_tokenizer
from zhuyi.decoding import Rule, Sampling
from zhuyi.decoding.config import DecodeConfig
from zhuyi.errors import InputError
from zhuyi.models.transformer import Transformer, TransformerConfig
from zhuyi.predict import Translator
from zhuyi.tasks.forms import Forms, Sentence
from zhuyi.tasks.text_parts import Translation
from zhuyi.tasks.text_search import translate_texts

KNOWN = "".join(chr(0x4E00 + 7 * i) for i in range(150)) + "春风得意马蹄疾山水"
MAX_LEN = 24  # a line of 24 characters is cut
HOSTILE = st.text(
    st.sampled_from(KNOWN[:6] + "春春风风，。！ \t\r\x00\x85\u2028\u200b\ufeff㍿⼀々〇３Ａa.?-龘龖😀é")
    | st.characters()
)
LINES = st.text(st.sampled_from(KNOWN[:9] + "，春春"), max_size=14) | HOSTILE.map(lambda text: text[:30])
RULES: Any = st.one_of(
    st.tuples(st.just(None), st.integers(1, 3), st.integers(1, 3)),
    st.builds(lambda n: (Sampling(temperature=2.0, samples=n), 1, n), st.integers(1, 3)),
)


@dataclass(frozen=True)
class Writer:
    model: Transformer
    tokenizer: Tokenizer

    def write(
        self, texts: list[str], constraint: str, rule: Rule | None = None, beam: int = 1, n_best: int = 1
    ) -> Iterator[Translation]:
        decode = replace(DecodeConfig(beam=beam), constraint=constraint)
        pair = self.tokenizer, self.tokenizer
        return translate_texts(self.model, *pair, texts, decode, rule=rule, n_best=n_best)


@pytest.fixture(scope="module")
def writer() -> Writer:
    tokenizer = train_tokenizer([KNOWN, "，。；a "], TokenizerConfig(kind="character", vocab_size=400))
    size = tokenizer.vocab_size
    torch.manual_seed(5)
    config = TransformerConfig(
        d_model=26, num_heads=2, d_ff=41, num_encoder_layers=1, num_decoder_layers=1, max_len=MAX_LEN,
        source_vocab_size=size, target_vocab_size=size,
    )  # fmt: skip
    model = Transformer(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.mul_(3.0)  # far from uniform
    return Writer(model, tokenizer)


def is_chinese(character: str) -> bool:
    """A letter or a number of the Chinese script, by their places in Unicode."""
    return character in "々〇" or any(
        first <= character <= last
        for first, last in (
            "\u3021\u3029",
            "\u3038\u303b",
            "\u3400\u4dbf",
            "\u4e00\u9fff",
            "\uf900\ufaff",
            "\U00020000\U000323af",
        )
        if character.isalnum()
    )


def texts_of(translation: Translation) -> list[str]:
    return [translation.text, *(text for text, _ in translation.alternatives)]


def check_couplet(upper: str, lower: str) -> None:
    assert len(lower) == len(upper)
    answered = [i for i, character in enumerate(upper) if is_chinese(character)]
    for i, (above, below) in enumerate(zip(upper, lower, strict=True)):
        if i not in answered:
            assert below == above
            continue
        assert is_chinese(below)
        assert below in KNOWN
        assert below not in upper
        for j in answered:
            assert (lower[j] == below) == (upper[j] == above)


@given(st.lists(LINES, min_size=1, max_size=4), RULES)
@example(["春风得意马蹄疾", "山山水水，处处明明秀秀。", "龘龘龖😀３Ａa 春\u200b风", ""], (None, 3, 3))
@example(["㍿春", "\uf90a金金", "\ud800春", "\n\n春\n", " 春 ", "abc 123", "\u0301春\u0301"], (None, 1, 1))
def test_a_lower_line_answers_each_character(writer: Writer, lines: list[str], search: tuple[Any, int, int]) -> None:
    found = list(writer.write(lines, "couplet", *search))
    assert len(found) == len(lines)
    for text, translation in zip(lines, found, strict=True):
        for lower in texts_of(translation):
            assert len(lower) == len(text)
            for above, below in zip(text.split("\n"), lower.split("\n"), strict=True):
                if len(above) < MAX_LEN:
                    check_couplet(above, below)
        assert not {"relaxed", "length", "stuck", "repetition"} & set(translation.flags)


@given(st.lists(LINES | HOSTILE, min_size=1, max_size=4), RULES)
@example(["春" * 99, "哈" * 12, "abc 123", "", "…" * 40, "㍿" * 9, "a" * 23 + "，" * 23 + "b"], (None, 3, 3))
def test_as_many_characters_out_as_in(writer: Writer, texts: list[str], search: tuple[Any, int, int]) -> None:
    for text, translation in zip(texts, writer.write(texts, "same-length", *search), strict=True):
        for answer in texts_of(translation):
            assert len(answer) == len(text)
            assert [len(line) for line in answer.split("\n")] == [len(line) for line in text.split("\n")]
        assert not {"relaxed", "length", "stuck", "repetition"} & set(translation.flags)


def test_a_line_beyond_the_models_positions_is_answered_in_parts(writer: Writer) -> None:
    line = KNOWN[:30] + "，" + KNOWN[10:40]
    (found,) = writer.write([line], "couplet", beam=2)
    assert "split" in found.flags
    assert len(found.text) == len(line)
    assert found.text[30] == "，"
    assert not set(found.text) & set(KNOWN[:40])
    for start in range(0, len(line), MAX_LEN - 1):  # by itself each part is a couplet
        check_couplet(line[start : start + MAX_LEN - 1], found.text[start : start + MAX_LEN - 1])


def test_unknown_characters_are_told_of_and_told_apart(writer: Writer) -> None:
    (same, other, known, given) = writer.write(["龘春龘", "龘春龖", "春风", "春😀"], "couplet")
    assert same.text[0] == same.text[2]
    assert other.text[0] != other.text[2]
    assert "unknown" in same.flags
    assert "unknown" in other.flags
    assert known.flags == given.flags == ()
    assert given.text[1] == "😀"


def test_what_has_nothing_to_answer_comes_back(writer: Writer) -> None:
    texts = ["", "abc 123", "！？……", "\t 😀", "か한"]
    for text, found in zip(texts, writer.write(texts, "couplet", beam=3, n_best=2), strict=True):
        assert found == Translation(text, flags=("copied",))


def test_the_model_reads_one_token_for_each_character_it_can_see(writer: Writer) -> None:
    forms = Forms("couplet", writer.tokenizer, writer.tokenizer)
    (part,) = forms.parts("春 ,风春\u200b龘!", 23)
    assert isinstance(part, Sentence)
    spring, comma, wind = (writer.tokenizer.labels.index(character) for character in "春，风")
    assert part.ids == (spring, comma, wind, spring, 3, 3, 2)
    assert part.form is not None
    assert part.form.fixed == (None, comma, None, None, None, 3)
    assert part.form.same_as == (0, 1, 2, 0, 4, 5)
    assert part.form.barred == tuple(sorted({spring, wind, 3}))
    assert part.frame == ("", " ", ",", "", "", "\u200b", "", "!")


def test_no_source_is_longer_than_its_stretch(writer: Writer) -> None:
    """The normal form of this letter is three."""
    (part,) = Forms("same-length", writer.tokenizer, writer.tokenizer).parts("\ufb03" * 9, 9)
    assert isinstance(part, Sentence)
    assert len(part.ids) == 10
    assert part.ids[-1] == 2


def test_a_text_alone_is_as_among_others(writer: Writer) -> None:
    lines = [KNOWN[i : i + 5 + i % 3] for i in range(12)]
    together = [each.text for each in writer.write(lines, "couplet", beam=2)]
    assert len(set(together)) == len(lines)
    assert [next(writer.write([line], "couplet", beam=2)).text for line in lines] == together


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Translator:
    """Knows ten Chinese characters."""
    return zhuyi.load(random_run(tmp_path_factory.mktemp("run") / "random").path)


def test_no_space_comes_between_parts(numbers: Translator) -> None:
    """The middle of each line is marks alone, and the tokens of this run are letters mostly."""
    decode = DecodeConfig(beam=1, constraint="same-length")
    lines = [f"{number[:4]}" * 11 + "one" + "!" * 47 + number for number in ("zero.", "three", "seven", "eight")]
    found = translate_texts(numbers.model, numbers.tokenizer, numbers.tokenizer, lines, decode)
    assert [len(each.text) for each in found] == [99] * 4


@settings(max_examples=20)
@given(st.text(st.sampled_from("一二三四五六七八九零。"), min_size=1, max_size=20))
def test_a_vocabulary_that_is_too_small_stops_nothing(numbers: Translator, line: str) -> None:
    decode = DecodeConfig(beam=2, constraint="couplet")
    (found,) = translate_texts(numbers.model, numbers.tokenizer, numbers.tokenizer, [line], decode)
    assert len(found.text) == len(line)
    different = len(set(line) - {"。"})
    assert ("relaxed" in found.flags) == (2 * different > 10)


@pytest.mark.parametrize("kind", ["unigram", "bpe", "byte-bpe"])
def test_tokens_of_several_characters_are_refused(kind: Any) -> None:
    tokenizer = train_tokenizer(["春风得意 春风得意 springs"] * 9, TokenizerConfig(kind=kind, vocab_size=300))
    with pytest.raises(InputError, match='"couplet" counts characters'):
        Forms("couplet", tokenizer, tokenizer)
