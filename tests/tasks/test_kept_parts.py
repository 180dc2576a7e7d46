"""Terms, placeholders and tags in the translations of models that know nothing: they must be there all the same."""

import re
import unicodedata
from collections import Counter

import pytest
import torch

from zhuyi.data.normalization import normalize
from zhuyi.data.tokenizers import Tokenizer, TokenizerConfig, train_tokenizer
from zhuyi.decoding import Sampling
from zhuyi.decoding.config import DecodeConfig
from zhuyi.errors import InputError
from zhuyi.models.transformer import Transformer, TransformerConfig
from zhuyi.tasks.demands import Mark, _places, _spans, split_text, token_ranges
from zhuyi.tasks.forms import Sentence
from zhuyi.tasks.glossary import Entry, Glossary, make_glossary
from zhuyi.tasks.line_pieces import LONGEST_PIECE, line_pieces, without_marks
from zhuyi.tasks.placeholders import Kept, find_kept
from zhuyi.tasks.tag_placement import Link, place
from zhuyi.tasks.text_parts import Translation
from zhuyi.tasks.text_search import TextSearch, translate_all

LINES = [
    "Tom said hello to Mary and John. They were 42 and 93 years old; Bob paid 47.",
    "He smokes a lot (very much), but she doesn't. Anna and Paul don't either!",
    "汤姆对玛丽说你好。约翰和鲍勃吸烟，安娜给了保罗二十五块钱！",
    "我爸爸吸烟很厉害；她昨天买了一本书。the quick brown fox jumps over lazy dogs",
]
TEXTS = [
    "He smokes a lot.",
    "Hello {name}, and {{other}}!",
    "%s paid %d, %(more)s paid %d.",
    "She <b>doesn't</b> smoke.",
    "我爸爸<i>很</i>厉害，<b>玛丽<u>不</u></b>吸烟。",
    "See https://a.org/b?c=d, me@a.org, {name} and {name}.",
    "<p>Hello, Tom.<br/>  How are you {name}?</p><hr>",
    "Tom &amp; Mary&nbsp;smoke </b> a <img src='x'> lot<wbr>.",
    "{only}",
    "<p></p><br>",
    "plain text",
    "",
    "a\n\n<b>b</b> c {d}\n",
]
KEPT = re.compile(r"\{\{?\w+\}?\}|%\(more\)s|%[sd]|https://a.org/b\?c=d|me@a.org|<[^>]+>|&\w+;")


def make_model(tokenizer: Tokenizer, max_len: int = 64) -> Transformer:
    torch.manual_seed(3)
    size = tokenizer.vocab_size
    sizes = {"d_model": 22, "num_heads": 2, "d_ff": 41, "num_encoder_layers": 1, "num_decoder_layers": 1}
    model = Transformer(TransformerConfig(**sizes, max_len=max_len, source_vocab_size=size, target_vocab_size=size))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    return model.eval()


@pytest.fixture(scope="module", params=["unigram", "character", "byte-bpe"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return train_tokenizer(LINES, TokenizerConfig(kind=request.param, vocab_size=330))


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Transformer:
    return make_model(tokenizer)


def translate(model, tokenizer, texts, glossaries=(), **options) -> list[Translation]:
    rule = options.pop("rule", None)
    n_best = options.pop("n_best", 1)
    decode = DecodeConfig(**{"beam": 2, "placeholders": True, "longest_sentence": 40, **options})
    search = TextSearch(model, tokenizer, tokenizer, decode, rule=rule, n_best=n_best)
    return list(translate_all(search, texts, glossaries))


def test_all_that_is_kept_is_there_as_often_and_nothing_else(model, tokenizer):
    for text, found in zip(TEXTS, translate(model, tokenizer, TEXTS, n_best=2), strict=True):
        for written in (found.text, *(alternative for alternative, _ in found.alternatives)):
            assert Counter(KEPT.findall(written)) == Counter(KEPT.findall(text)), text
        assert found.text.count("\n") == text.count("\n")
    assert translate(model, tokenizer, ["{only}", "<p></p><br>"])[0] == Translation("{only}", flags=("copied",))


def test_tags_keep_their_order_and_breaks_their_place(model, tokenizer):
    text, nested = TEXTS[6], TEXTS[4]
    found = translate(model, tokenizer, [text, nested])
    assert re.fullmatch(r"<p>[^<>]*<br/>  [^<>]*\{name\}[^<>]*</p><hr>", found[0].text)
    assert re.search(r"<b>[^<>]*<u>[^<>]*</u>[^<>]*</b>", found[1].text)
    assert re.search(r"<i>[^<>]*</i>", found[1].text)


def test_texts_with_nothing_to_keep_are_as_without(model, tokenizer):
    texts = [*TEXTS[:1], "plain text", "汤姆和玛丽", *LINES]
    alone = translate(model, tokenizer, texts, placeholders=False)
    assert translate(model, tokenizer, texts) == alone
    glossary = make_glossary({"nowhere": "x"})
    assert translate(model, tokenizer, texts, [glossary] * len(texts)) == alone
    mixed = [text for pair in zip(texts, TEXTS, strict=False) for text in pair]
    assert translate(model, tokenizer, mixed)[::2] == alone[: len(mixed) // 2]


def test_no_tag_lands_within_a_term(model, tokenizer, monkeypatch):
    """Wherever the model says that the words came from."""
    glossary = make_glossary({"smokes": "lazy dogs", "lot": "quick brown fox"})
    words = [
        "<b>He</b> smokes <i>a</i> lot<img> {name} <u>and</u>.",
        "He <b>smokes a</b> lot, <i>lot</i> <b>{name}</b>",
    ]
    for shift in range(2):

        def links(_model, _source, _target, read, ranges, _bos, shift=shift):
            inside = [(end - (end - begin + 1) // 2, end) for begin, end in ranges]
            return [Link(*read[(i + shift) % len(read)], *each) for i, each in enumerate(inside)]

        monkeypatch.setattr("zhuyi.tasks.text_search.links", links)
        for found in translate(model, tokenizer, words, [glossary] * 2):
            bare = re.sub("<[^>]*>", "", found.text)
            for term in ("lazy dogs", "quick brown fox", "{name}"):
                assert found.text.count(term) == bare.count(term) >= 1, found.text


@pytest.mark.parametrize("beam", [1, 3])
def test_terms_are_written_once_for_each_time(model, tokenizer, beam):
    glossary = make_glossary({"smokes": "吸烟", "lot": ["quick fox", "lazy dogs"], "he": "Bob"})
    texts = ["He smokes a lot.", "a lot, a lot", "smokes smokes smokes", "nothing here"]
    found = [each.text for each in translate(model, tokenizer, texts, [glossary] * 4, beam=beam)]
    counts = [
        (
            text.count("吸烟"),
            text.count("quick fox") + text.count("lazy dogs"),
            len(re.findall("(?<![A-Za-z])Bob(?![A-Za-z])", text)),
        )
        for text in found
    ]
    assert all(a >= b for got, least in zip(counts, [(1, 1, 1), (0, 2, 0), (3, 0, 0)], strict=False)
               for a, b in zip(got, least, strict=True)), found  # fmt: skip


def test_a_text_does_not_depend_on_its_batch(model, tokenizer):
    glossary = make_glossary({"smoke": "吸烟", "smokes": "吸烟", "you": "汤姆和玛丽", "i": "dogs"})
    texts = [TEXTS[i] for i in (0, 1, 3, 5, 6)]
    together = [each.text for each in translate(model, tokenizer, texts, [glossary] * 5)]
    assert [translate(model, tokenizer, [text], [glossary])[0].text for text in texts] == together
    decode = DecodeConfig(beam=2, placeholders=True, longest_sentence=40, batch_rows=11)
    search = TextSearch(model, tokenizer, tokenizer, decode)
    steps: dict[object, Translation] = {}
    for spot, text in enumerate(texts):
        search.admit(spot, text, glossary=glossary)
        steps |= dict(search.advance())
    while search.active:
        steps |= dict(search.advance())
    assert [steps[spot].text for spot in range(5)] == together
    assert search.rows == 0


def test_marks_are_put_in_one_translation_a_step(model, tokenizer, monkeypatch):
    """Each may take as long as a step of all others; who leaves meanwhile takes them along."""
    text = " ".join(
        f"She <b>doesn't</b> smoke {word}. Bob <i>paid</i> {word}!" for word in ("a", "lot", "very", "much")
    )
    decode = DecodeConfig(beam=2, placeholders=True, longest_sentence=16)
    (whole,) = translate(model, tokenizer, [text], longest_sentence=16, n_best=2)
    search = TextSearch(model, tokenizer, tokenizer, decode, n_best=2)
    write, placed = TextSearch._write, list[str]()

    def noted(self, sentence, hypothesis):
        placed.extend([hypothesis.tokens] * bool(sentence.demands and sentence.demands.marks))
        return write(self, sentence, hypothesis)

    monkeypatch.setattr(TextSearch, "_write", noted)
    search.admit("stays", text)
    search.admit("leaves", text + " He smokes <b>a</b> lot.")
    found, counts = {}, []
    while search.active:
        found |= dict(search.advance())
        counts.append(len(placed))
        placed.clear()
        if counts.count(1) == 3:
            search.drop(["leaves"])
    assert found == {"stays": whole}
    assert max(counts) == 1 and sum(counts) >= 8
    assert not search._wanted and not search._marked


def test_no_marks_are_put_for_who_left(model, tokenizer, monkeypatch):
    decode = DecodeConfig(beam=2, placeholders=True, longest_sentence=16)
    search = TextSearch(model, tokenizer, tokenizer, decode, n_best=2)
    search.admit("a", "She <b>doesn't</b> smoke. Bob <i>paid</i> a lot!")
    while not search._marked:  # the first of its two translations is written
        search.advance()
    search.drop(["a"])
    written = list[object]()
    monkeypatch.setattr(TextSearch, "_write", lambda _search, sentence, _hypothesis: written.append(sentence))
    for _ in range(3):
        assert search.advance() == []
    assert written == []


def test_who_leaves_takes_its_terms_along(model, tokenizer):
    search = TextSearch(model, tokenizer, tokenizer, DecodeConfig(beam=2, placeholders=True))
    search.admit("a", "Hello {name}!")
    search.advance()
    assert search.rows > 0
    search.drop(["a"])
    assert search.rows == search.active == 0


def test_what_the_vocabulary_cannot_write_is_written(model, tokenizer):
    glossary = make_glossary({"smokes": "Żółć ☃", "fox": "fox", "lot": "a  b"})
    found = translate(model, tokenizer, ["He smokes a lot, fox."], [glossary])[0]
    assert all(found.text.count(term) >= 1 for term in ("Żółć ☃", "fox", "a  b")), found


def test_a_term_of_every_text_and_a_text_without_sentences(model, tokenizer):
    glossary = make_glossary({"": "lazy dogs"})
    found = translate(model, tokenizer, ["Tom.\nMary.", "...", "☃☃"], [glossary] * 3)
    assert "lazy dogs" in found[0].text
    assert found[1].text == "..."


def test_of_more_terms_than_positions_all_placeholders_are_kept(tokenizer):
    model = make_model(tokenizer, max_len=24)
    many = "Hello " + " then ".join(f"{{x{i}}}" for i in range(30)) + " end"
    found = translate(model, tokenizer, [many], longest_sentence=0)[0]
    assert sorted(re.findall(r"\{x\d+\}", found.text)) == sorted(f"{{x{i}}}" for i in range(30))
    words = translate(model, tokenizer, ["Tom"], [Glossary([Entry("Tom", ("quick brown fox " * 40,))])])[0]
    assert "glossary" in words.flags or "quick brown fox" in words.text


def test_a_short_text_has_room_for_a_long_term(model, tokenizer):
    term = "quick brown fox jumps over lazy dogs"
    assert term in translate(model, tokenizer, ["Tom"], [make_glossary({"Tom": term})])[0].text


def test_a_long_text_has_its_terms_wherever_it_is_cut(model, tokenizer):
    text = " ".join(f"He smokes {{x{i}}}, a lot; they <b>were</b> 42." for i in range(12)) + "x" * 90 + "{last}"
    glossary = make_glossary({"smokes": "吸烟"})
    found = translate(model, tokenizer, [text], [glossary])[0]
    assert Counter(KEPT.findall(found.text)) == Counter(KEPT.findall(text))
    assert found.text.count("吸烟") >= 12  # with no tag within the word, wherever this model may want it
    assert "split" in found.flags


@pytest.mark.parametrize(
    "sentence", ["他说{name}很好。", "{a} 我 ", "<b>我", "a, b https://a.org/b?c. D", "我", "word "]
)
def test_a_long_line_is_looked_through_in_pieces(sentence):
    """Cut where nothing goes on; together they are the line."""
    line = sentence * (3 * LONGEST_PIECE // len(sentence) + 1)
    pieces = list(line_pieces(line, make_glossary({"nowhere": "x"}), placeholders=True))
    assert len(pieces) > 1 and max(len(piece) for piece, _ in pieces) <= 2 * LONGEST_PIECE
    assert joined_again(pieces) == (line, find_kept(line))


def joined_again(pieces: list[tuple[str, list[Kept]]]) -> tuple[str, list[Kept]]:
    line, found = "", list[Kept]()
    for piece, kept in pieces:
        found += [Kept(len(line) + each.start, len(line) + each.end, each.kind) for each in kept]
        line += piece
    return line, found


@pytest.mark.parametrize(
    "kept",
    [
        f"https://a.org/{'b-' * 2250}c",
        f"""<a title="{"word " * 200}" {" ".join(f'b{i}="{"word, " * 60}"' for i in range(3))}>""",
        f"{{n, plural, {' '.join(f'={i} {{# of these items. Here}}' for i in range(150))}}}",
        "{a}" * 2000,
    ],
)
@pytest.mark.parametrize("before", [0, 1, 500, LONGEST_PIECE - 1, 2 * LONGEST_PIECE - 1])
@pytest.mark.parametrize("filling", ["He paid. ", "我爸爸"])
def test_however_long_what_is_kept_lies_whole_in_one_piece(kept, before, filling):
    line = (filling * before)[:before] + " " + kept + " " + filling * 4 * LONGEST_PIECE
    pieces = list(line_pieces(line, None, placeholders=True))
    assert [piece.count(kept) for piece, _ in pieces if kept in piece] == [1]
    assert joined_again(pieces) == (line, find_kept(line))
    assert len(pieces) > 2 and len(pieces[-1][0]) <= 2 * LONGEST_PIECE


@pytest.mark.parametrize("source", ["many lazy dogs", "我爸爸吸烟", "one, two. Three", "lazy " * 500 + "dogs"])
@pytest.mark.parametrize("line_of", ["{} ", "{}", "<b>{}</b>&nbsp;", "a {} <br>"])
def test_an_entry_of_the_glossary_lies_whole_in_one_piece(source, line_of):
    """Wherever a piece might end, and with tags within it too."""
    glossary = make_glossary({source: "x"})
    spaced = line_of.format(source) if not source.isascii() else line_of.format(source) + " "
    tagged = spaced.replace(" d", " <i>d").replace("爸吸", "爸<i>吸")
    for one in (spaced, tagged):
        for shift in (0, 1, 600):
            line = "on " * shift + one * (5 * LONGEST_PIECE // len(one) + 3)
            pieces = list(line_pieces(line, glossary, placeholders=True))
            assert joined_again(pieces) == (line, find_kept(line))
            bare = [without_marks(piece, kept)[0] for piece, kept in pieces]
            assert sum(each.count(source) for each in bare) == line.count(one)
            assert len(pieces) > 1


def test_a_line_in_pieces_has_all_that_is_kept_and_every_term(model, tokenizer):
    url = f"https://a.org/{'b-' * 2250}c"
    search = TextSearch(model, tokenizer, tokenizer, DecodeConfig(beam=2, placeholders=True, longest_sentence=40))
    text = "He smokes, " * 170 + url + " and " + "a lot of them smoke " * 150
    plan = [part for part in search.plan(text, make_glossary({"lot of them": "吸烟"})) if isinstance(part, Sentence)]
    demands = [part.demands for part in plan if part.demands]
    assert [fill.text for each in demands for fill in each.fills] == [url]
    assert sum(len(each.terms) - len(each.fills) for each in demands) == 150


def test_what_draws_or_has_a_form_takes_no_glossary(tokenizer, model):
    glossary = make_glossary({"a": "b"})
    with pytest.raises(InputError, match="needs a beam search"):
        translate(model, tokenizer, ["a"], [glossary], rule=Sampling())
    assert len(translate(model, tokenizer, ["a {b}"], rule=Sampling())) == 1


def test_the_stretches_of_tokens_are_the_text(tokenizer):
    for text in [*LINES, "  He  smokes…", "Ｈｅ smokes，吗?"]:
        ids = tokenizer.encode(text)[:-1]
        assert "".join(split_text(ids, tokenizer)) == tokenizer.decode(ids)
        ranges = token_ranges(ids, tokenizer, text)
        assert len(ranges) == len(ids)
        assert all(0 <= begin <= end <= len(text) for begin, end in ranges)
        assert [begin for begin, _ in ranges] == sorted(begin for begin, _ in ranges)
    ids = tokenizer.encode(LINES[0])[:-1]
    labels = [LINES[0][begin:end] for begin, end in token_ranges(ids, tokenizer, LINES[0])]
    assert "".join(labels) == LINES[0].replace(" ", "")


@pytest.mark.parametrize(
    "text",
    [
        "  He  smokes…  a lot", "Ｈｅ smokes，吗?", "我爸爸  吸烟 很厉害;她昨天买了一本书...",
        "cafe\u0301 “quoted” — and… so on", '他说:"你好,世界!" (真的)', "\u200b\u200bHello\u200b, world\u00a0! ",
        "Ａ　Ｂ　Ｃ", "今天 Mr. Li 来了 ! 他 很 好 。",
        "a" * 30 + "  " + "a" * 30, "☃" * 300 + "unknown ☃☃ here", " " * 900 + "a" + "\u0301" * 900 + "b",
    ],
)  # fmt: skip
def test_each_word_stands_where_it_was_before_normalisation(text):
    for read in (normalize(text), normalize(text).lower(), normalize(text).replace("☃", "")):
        places = _places(read, text)
        assert places == sorted(places) and places[-1] == len(text)
        for character, here in zip(read, places, strict=False):
            whole = unicodedata.normalize("NFKC", text[here : here + 2]).casefold()
            assert not character.isalnum() or character.casefold() in whole, (character, here)


@pytest.mark.parametrize("text", ["我 ", "a b ", "ab\u200b", "ａｂ"])
def test_a_long_text_is_compared_once(text):
    """What looks for the longest stretch in common takes minutes for the same letter some thousand times."""
    long = text * 2000
    places = _places("".join(long.split()) * 2, long)
    assert places == sorted(places) and places[-1] == len(long)


def test_tags_within_tags_without_end_are_all_kept() -> None:
    depth = 1500
    marks = [Mark(0, "<b>", "b")] * depth + [Mark(4, "</b>", "b", closes=True)] * depth
    text = place("text", _spans(marks), "text", [])
    assert (text.count("<b>"), text.count("</b>")) == (depth, depth)
    assert text.replace("<b>", "").replace("</b>", "") == "text"
