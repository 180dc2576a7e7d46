"""Text comes back from its ids, no text makes a special id, and training gives the same file in every process."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers as tokenizers_library
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, processors

from zhuyi.data.normalization import normalize
from zhuyi.data.special_tokens import BOS_ID, EOS, EOS_ID, PAD_ID, SPECIAL_TOKENS, UNK, UNK_ID
from zhuyi.data.tokenizers import Signs, Tokenizer, TokenizerConfig, train_tokenizer, train_tokenizers
from zhuyi.errors import InputError

KINDS = ("unigram", "bpe", "byte-bpe", "character")
CHINESE = [
    "我昨天在图书馆读书。",
    "你昨天在图书馆吗？",
    "我喜欢读书，你呢？",
    "图书馆在哪里？",
    "他在用 Python 写一本书。",
]
ENGLISH = [
    "I don't read in the library at 12:30.",
    "Did you read in the library yesterday?",
    'He said: "reading (in 2024) is my thing!"',
    "Where is the library? In Python, perhaps.",
]
LINES = [normalize(line) for line in CHINESE + ENGLISH] * 3
KNOWN = sorted(set("".join(LINES)) - {" "})
TATOEBA = Path("../shared/data/tatoeba-zh-en/train.tsv.gz")

all_kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    return {kind: train_tokenizer(LINES, TokenizerConfig(kind, vocab_size=400)) for kind in KINDS}


known_words = st.text(st.sampled_from(KNOWN), min_size=1, max_size=8)
known_texts = st.lists(known_words, max_size=6).map(" ".join)
tricky = st.sampled_from([*"a 好1.,▁'’\0\t\n<>/s", *SPECIAL_TOKENS, "\ud800", "é", "한", "\u0301", "\u202e", "👨‍👩‍👧"])
any_texts = st.text(max_size=40) | st.lists(tricky, max_size=12).map("".join)


@all_kinds
@given(text=known_texts)
@example("")
@example("我喜欢读书。")
@example("在 Python 里 in 2024年")
@example('"read" a (read) 我 ，I')
@settings(deadline=None, max_examples=30)
def test_known_characters_come_back_exactly(tokenizers, kind, text):
    tokenizer, text = tokenizers[kind], normalize(text)
    ids = tokenizer.encode(text)
    if set(text) <= {*KNOWN, " "}:
        assert UNK_ID not in ids
        assert tokenizer.decode(ids) == text
    assert tokenizer.encode_batch([text, text], normalized=True) == [ids, ids]


@all_kinds
@given(text=any_texts)
@settings(deadline=None, max_examples=30)
def test_any_text_ends_once_and_makes_no_other_special_id(tokenizers, kind, text):
    tokenizer = tokenizers[kind]
    ids = tokenizer.encode(text)
    assert ids[-1] == EOS_ID
    assert not {PAD_ID, BOS_ID, EOS_ID} & set(ids[:-1])
    assert all(0 <= i < tokenizer.vocab_size for i in ids)
    assert tokenizer.encode_batch([text]) == [ids]
    tokens = tokenizer.tokens(text)
    assert len(tokens) == len(ids) and tokens[-1] == EOS
    assert isinstance(tokenizer.decode(ids), str)
    if kind == "byte-bpe":
        assert UNK_ID not in ids
        assert tokenizer.decode(ids) == normalize(text)


@all_kinds
@pytest.mark.parametrize("sign", SPECIAL_TOKENS)
def test_the_name_of_a_special_sign_is_text(kind, sign):
    tokenizer = train_tokenizer([*LINES, "<pad> </s> <s> <unk>"] * 9, TokenizerConfig(kind, vocab_size=400))
    ids = tokenizer.encode(f"a {sign}{sign} {sign}")
    assert all(i > UNK_ID for i in ids[:-1])
    assert tokenizer.decode(ids) == f"a {sign}{sign} {sign}"


@all_kinds
def test_specials_come_first_and_are_dropped(tokenizers, kind):
    tokenizer = tokenizers[kind]
    assert tuple(tokenizer.pieces[:4]) == SPECIAL_TOKENS
    assert len(tokenizer.pieces) == len(set(tokenizer.pieces)) == len(tokenizer.labels) == tokenizer.vocab_size
    ids = tokenizer.encode("read")
    assert tokenizer.decode([BOS_ID, *ids, PAD_ID, PAD_ID]) == tokenizer.decode(ids) == "read"


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_pieces_never_mix_words_with_punctuation_digits_or_the_other_script(tokenizers, kind):
    for piece in tokenizers[kind].pieces[4:]:
        word = piece.removeprefix("▁")
        assert "▁" not in word
        assert len(word) <= 1 or word.replace("'", "").isalpha(), piece
        assert word.isascii() or not any(c.isascii() for c in piece), piece


@pytest.mark.parametrize("kind", ["unigram", "bpe", "byte-bpe"])
def test_a_first_word_is_the_same_piece_as_a_later_one(tokenizers, kind):
    tokenizer = tokenizers[kind]
    assert tokenizer.tokens("library") == tokenizer.tokens("the library")[-2:] == ["▁library", EOS]
    chinese = tokenizer.tokens("图书馆在")
    assert tokenizer.tokens("Python 图书馆在")[-len(chinese) :] == chinese


def test_what_was_read_ahead_is_what_encode_finds(tokenizers, monkeypatch):
    """A list of its own for each who asks, and forgotten with the next texts."""
    texts = ["我昨天买了一本书。", "I bought a book.", "", "我昨天买了一本书。"]
    expected = [tokenizers["bpe"].encode(text) for text in texts]
    tokenizer = tokenizers["bpe"].reading_ahead()
    tokenizer.read_ahead(texts)
    with monkeypatch.context() as patch:
        patch.setattr(tokenizer, "_library", None)  # so nothing can be encoded any more
        tokenizer.encode(texts[0]).clear()
        assert [tokenizer.encode(text) for text in texts] == expected
    assert not tokenizers["bpe"]._read_ahead
    tokenizer.read_ahead([])
    with monkeypatch.context() as patch:
        patch.setattr(tokenizer, "_library", None)
        with pytest.raises(AttributeError):
            tokenizer.encode(texts[0])


def test_tokens_show_what_a_reader_can_read(tokenizers):
    assert tokenizers["character"].tokens("I 好") == ["I", "▁", UNK, EOS]
    assert tokenizers["unigram"].tokens("the 书") == ["▁the", "▁", "书", EOS]
    assert tokenizers["byte-bpe"].tokens("the 图书馆") == ["▁the", "▁", "图书馆", EOS]
    assert tokenizers["byte-bpe"].tokens("é龘")[-1] == EOS
    assert "<E9>" in tokenizers["byte-bpe"].tokens("龘")  # its bytes, for it never occurred


@pytest.mark.parametrize("kind", ["unigram", "bpe", "character"])
def test_unknown_characters_are_dropped_and_the_sign_of_a_space_is_no_space(kind):
    tokenizer = train_tokenizer(["a_b a_b", "c"], TokenizerConfig(kind))
    assert tokenizer.decode(tokenizer.encode("龘c龖")) == "c"
    assert tokenizer.decode(tokenizer.encode("a▁b")) == "a_b"


@all_kinds
def test_save_and_load(tokenizers, kind, tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizers[kind].save(path)
    loaded = Tokenizer.load(path)
    assert list(tmp_path.iterdir()) == [path]
    assert loaded.fingerprint() == tokenizers[kind].fingerprint()
    assert loaded.labels == tokenizers[kind].labels
    for line in LINES:
        assert loaded.encode(line) == tokenizers[kind].encode(line)
        assert loaded.decode(loaded.encode(line)) == line
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_fingerprints_differ(tokenizers):
    others = [train_tokenizer(LINES[1:], TokenizerConfig("unigram", 400)), *tokenizers.values()]
    assert len({tokenizer.fingerprint() for tokenizer in others}) == 5


@all_kinds
@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_a_truncated_file_is_named(tokenizers, kind, share, tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizers[kind].save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(InputError, match=r"tokenizer\.json is no whole tokenizer file"):
        Tokenizer.load(path)


def _renamed(saved: dict) -> None:
    saved["model"]["vocab"][0][0] = "[PAD]"


def _without_end_sign(saved: dict) -> None:
    saved["post_processor"] = None


def _with_added_token(saved: dict) -> None:
    flags = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False)
    saved["added_tokens"] = [{"id": EOS_ID, "content": EOS, "special": True, **flags}]


@pytest.mark.parametrize("change", [_renamed, _without_end_sign, _with_added_token])
def test_a_tokenizer_of_another_form_is_refused(tokenizers, change, tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizers["unigram"].save(path)
    saved = json.loads(path.read_text(encoding="utf-8"))
    change(saved)
    path.write_text(json.dumps(saved), encoding="utf-8")
    with pytest.raises(InputError, match="another form"):
        Tokenizer.load(path)


@pytest.mark.parametrize("content", [None, "{}", "[]", "\x93 no text", '{"version": "1.0", "model": {}}'])
def test_what_is_no_tokenizer_is_named(content, tmp_path):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        Tokenizer.load(path)


@all_kinds
@pytest.mark.parametrize("texts", [[], ["", ""], ["\0"]])
def test_an_empty_corpus_is_an_input_error(kind, texts):
    with pytest.raises(InputError, match="no text"):
        train_tokenizer(texts, TokenizerConfig(kind))


@all_kinds
@given(texts=st.lists(st.text("ab 好。1", max_size=6).map(normalize), min_size=1, max_size=4).filter(any))
@settings(deadline=None, max_examples=30)
def test_tiny_corpora_give_small_vocabularies(kind, texts):
    tokenizer = train_tokenizer(texts, TokenizerConfig(kind))
    assert tokenizer.vocab_size < 400
    for text in texts:
        assert tokenizer.decode(tokenizer.encode_batch([text], normalized=True)[0]) == text


@pytest.mark.parametrize("kind", ["unigram", "bpe", "character"])
def test_a_vocabulary_smaller_than_the_alphabet_keeps_the_commonest_characters(kind):
    texts = ["好" * 9 + "人" * 7, *"你我他在是有"]
    tokenizer = train_tokenizer(texts, TokenizerConfig(kind, vocab_size=6))
    assert set(tokenizer.pieces[4:]) == {"好", "人"}
    good, person = (tokenizer.encode(character)[0] for character in "好人")
    assert tokenizer.encode("好我人") == [good, UNK_ID, person, EOS_ID]


def test_coverage_drops_rare_characters_where_characters_fill_the_vocabulary():
    texts = ["好人" * 50, "龘", "龖"]
    pieces = train_tokenizer(texts, TokenizerConfig(vocab_size=9, character_coverage=0.98)).pieces
    assert not {"龘", "龖"} & set(pieces)
    assert {"龘", "龖"} <= set(train_tokenizer(texts, TokenizerConfig(vocab_size=9, character_coverage=1)).pieces)
    assert {"龘", "龖"} <= set(train_tokenizer(texts, TokenizerConfig(character_coverage=0.98)).pieces)


@pytest.mark.parametrize(
    "wrong", [{"vocab_size": 4}, {"kind": "byte-bpe", "vocab_size": 259}, {"character_coverage": 2}]
)
def test_an_impossible_config_is_an_input_error(wrong):
    with pytest.raises(InputError, match=r"vocab_size|character_coverage"):
        TokenizerConfig(**wrong)


@all_kinds
def test_lowercase(kind):
    tokenizer = train_tokenizer(LINES, TokenizerConfig(kind, 400, lowercase=True))
    assert tokenizer.encode("READ") == tokenizer.encode("read")
    assert tokenizer.decode(tokenizer.encode("I Read")) == "i read"


def test_joint_and_separate():
    source, target = train_tokenizers(iter(CHINESE), iter(ENGLISH), TokenizerConfig(vocab_size=100))
    assert source is target
    assert source.fingerprint() == train_tokenizer(CHINESE + ENGLISH, TokenizerConfig(vocab_size=100)).fingerprint()
    source, target = train_tokenizers(CHINESE, ENGLISH, TokenizerConfig(vocab_size=100, joint=False))
    assert "书" in source.pieces and "书" not in target.pieces


def test_of_a_long_stream_some_lines_are_taken_in_whatever_order_they_come():
    lines = [f"line {i} of many" for i in range(300)]
    taken = train_tokenizer(iter(lines), max_lines=40)
    assert taken.fingerprint() == train_tokenizer(reversed(lines), max_lines=40).fingerprint()
    assert taken.fingerprint() != train_tokenizer(lines).fingerprint()


def test_control_characters_do_not_end_training():
    assert train_tokenizer(["a\0b a\0b", "\0"]).vocab_size < 12


TRAIN = """
import sys
from zhuyi.data.tokenizers import TokenizerConfig, train_tokenizer
lines = open(sys.argv[1], encoding="utf-8").read().splitlines()
for kind in ("unigram", "bpe", "byte-bpe", "character"):
    train_tokenizer(lines, TokenizerConfig(kind, vocab_size=int(sys.argv[2]))).save(f"{sys.argv[3]}/{kind}.json")
"""


def _trained_in_a_fresh_process(lines: list[str], vocab_size: int, folder: Path, seed: int) -> dict[str, bytes]:
    folder.mkdir()
    (folder / "lines.txt").write_text("\n".join(lines), encoding="utf-8")
    # The order of lines is one more thing that must not matter.
    arguments = [sys.executable, "-c", TRAIN, str(folder / "lines.txt"), str(vocab_size), str(folder)]
    threads = {"PYTHONHASHSEED": str(seed), "RAYON_NUM_THREADS": str(seed), "OMP_NUM_THREADS": str(seed)}
    subprocess.run(arguments, check=True, env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join(sys.path)})
    return {path.name: path.read_bytes() for path in folder.glob("*.json")}


def test_two_processes_write_the_same_bytes(tmp_path):
    lines = [f"{a} {b}" for a in ENGLISH + CHINESE for b in LINES]
    first = _trained_in_a_fresh_process(lines, 300, tmp_path / "1", 1)
    second = _trained_in_a_fresh_process(lines[::-1], 300, tmp_path / "2", 4)
    assert len(first) == 4
    assert first == second


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_for_real_text(tmp_path):
    if not TATOEBA.exists():
        pytest.skip(f"needs {TATOEBA}")
    with gzip.open(TATOEBA, "rt", encoding="utf-8") as file:
        lines = [normalize(side) for line in file for side in line.split("\t")[:2]]
    first = _trained_in_a_fresh_process(lines, 8000, tmp_path / "1", 1)
    second = _trained_in_a_fresh_process(lines[::-1], 8000, tmp_path / "2", 3)
    assert first == second
    tokenizer = Tokenizer.load(tmp_path / "1" / "unigram.json")
    ids = tokenizer.encode_batch(lines, normalized=True)
    assert [tokenizer.decode(row) for row in ids] == lines
    assert sum(map(len, ids[1::2])) / len(ids[1::2]) < 9.2  # the library's own trainer: 10.6


def imported() -> Tokenizer:
    """As from another library: signs at the end, ids that are not the library's, a row without a piece."""
    library = models.Unigram([("<unk>", 0.0), ("▁", -3.0), ("a", -1.0), ("▁b", -2.0)], unk_id=0)
    wrapped = tokenizers_library.Tokenizer(library)
    wrapped.pre_tokenizer = pre_tokenizers.Metaspace()
    wrapped.decoder = decoders.Metaspace()
    wrapped.add_special_tokens(["</s>"])
    wrapped.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 4)])
    pieces = ["▁b", "</s>", "a", "", "<unk>", "香香", "▁", "<pad>"]
    return Tokenizer(wrapped, Signs(pad=7, bos=7, eos=1, unk=4), pieces)


def test_an_imported_one_keeps_its_own_ids(tmp_path):
    tokenizer = imported()
    assert tokenizer.encode("b a") == [0, 6, 2, 1]
    assert tokenizer.encode_batch(["b a", ""]) == [[0, 6, 2, 1], [1]]
    assert tokenizer.encode("a香香ａ")[-3:] == [2, 4, 1]  # full-width a: nothing of ours normalises it
    assert tokenizer.encode("a香香a") == [6, 2, 5, 2, 1]  # what the library does not know, the vocabulary may
    assert tokenizer.tokens("b") == ["▁b", "</s>"]
    assert tokenizer.decode([7, 0, 3, 6, 2, 4, 1]) == "b a"
    assert tokenizer.vocab_size == 8
    tokenizer.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert again.signs == tokenizer.signs and again.pieces == tokenizer.pieces
    assert again.encode("b a香香a") == tokenizer.encode("b a香香a")
    assert again.fingerprint() == tokenizer.fingerprint()
    assert 1 not in again.encode("a </s> b")[:-1]


def test_signs_of_our_own_are_the_first_four(tokenizers):
    assert {tokenizer.signs for tokenizer in tokenizers.values()} == {Signs(0, 1, 2, 3)}
