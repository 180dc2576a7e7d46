import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhuyi.errors import InputError
from zhuyi.tasks.glossary import Entry, Glossary, make_glossary, read_glossary


def found(entries, text, taken=()):
    return [(text[m.start : m.end], m.entry.targets) for m in make_glossary(entries).matches(text, taken)]


def test_the_longest_entry_is_found_from_left_to_right():
    entries = {"machine": "机器", "machine learning": "机器学习", "learning rate": "学习率", "吸": "x", "吸烟": "smoke"}
    assert found(entries, "machine learning rate") == [("machine learning", ("机器学习",))]
    assert found(entries, "a machine, learning rate") == [("machine", ("机器",)), ("learning rate", ("学习率",))]
    assert found(entries, "我吸烟吸") == [("吸烟", ("smoke",)), ("吸", ("x",))]


def test_words_are_whole_where_the_script_has_words():
    assert found({"art": "x"}, "artist part art's ART2 art") == [("art", ("x",))] * 2
    assert found({"art": "x"}, "去art馆") == [("art", ("x",))]
    assert found({"C++": "x"}, "C++, C++y (C++)") == [("C++", ("x",))] * 3
    assert found({"店": "x"}, "书店里") == [("店", ("x",))]


def test_capitals_count_where_the_entry_has_them():
    assert found({"apple": "x"}, "Apple apple APPLE") == [("Apple", ("x",)), ("apple", ("x",)), ("APPLE", ("x",))]
    assert found({"Apple": "x"}, "Apple apple APPLE") == [("Apple", ("x",))]
    assert found({"Apple": "x", "apple": "y"}, "Apple apple") == [("Apple", ("x",)), ("apple", ("y",))]
    assert found({"straße": "x", "i": "y"}, "İ STRASSE Straße i") == [("Straße", ("x",)), ("i", ("y",))]


def test_what_belongs_to_something_else_is_let_be():
    assert found({"a": "x"}, "a {a} a {a}", [(2, 5), (8, 11)]) == [("a", ("x",))] * 2
    assert found({"b a": "x", "a": "y"}, "b a", [(2, 3)]) == []


@given(st.text("ab A"), st.lists(st.text("abA ", min_size=1, max_size=3), max_size=4))
def test_matches_stand_apart_and_are_entries(text, sources):
    here = 0
    for match in Glossary(Entry(source, ("x",)) for source in sources).matches(text):
        assert here <= match.start < match.end <= len(text)
        assert text[match.start : match.end].lower() == match.entry.source.lower()
        here = match.end


def test_a_file_of_terms(tmp_path):
    path = tmp_path / "terms.tsv"
    path.write_text("\ufeff吸烟\tsmoke|smoking\t动词\n\n# words\n微信\r\nTom\tTom\n", encoding="utf-8")
    entries = [Entry("吸烟", ("smoke", "smoking")), Entry("微信", ("微信",)), Entry("Tom", ("Tom",))]
    assert repr(read_glossary(path)) == repr(Glossary(entries))
    assert repr(pickle.loads(pickle.dumps(read_glossary(path)))) == repr(Glossary(entries))


@pytest.mark.parametrize(
    ("line", "what"),
    [("\tx", "no source"), ("x\t", "an empty target"), ("x\ta||b", "an empty target")],
)
def test_a_bad_line_is_named(tmp_path, line, what):
    path = tmp_path / "terms.tsv"
    path.write_text(f"a\tb\n{line}\n", encoding="utf-8")
    with pytest.raises(InputError, match=rf"terms\.tsv, line 2: {what}; expected source<TAB>target"):
        read_glossary(path)


def test_terms_in_another_encoding_are_refused(tmp_path):
    (tmp_path / "terms.tsv").write_bytes("a\tb\n吸烟\tsmoke\n".encode("gb18030"))
    with pytest.raises(InputError, match=r"terms\.tsv: line 2 is not UTF-8, and reads well as gb18030"):
        read_glossary(tmp_path / "terms.tsv")


@pytest.mark.parametrize(
    ("line", "sign"),
    [("吸烟=smoker", "="), ("吸烟, smoker", ","), ("art : Kunst", ":"), ("账单，bill|check", "，"), ("a -> b", "->")],
)
def test_another_sign_in_place_of_the_tab_is_named(tmp_path, line, sign):
    path = tmp_path / "terms.tsv"
    path.write_text(f"# a=b\nword\n{line}\n", encoding="utf-8")
    with pytest.raises(InputError, match=rf"terms\.tsv, line 3: '{sign}' between two words, and no tab in the file"):
        read_glossary(path)
    path.write_text(f"{line}\nx\ty\n", encoding="utf-8")
    assert repr(read_glossary(path)) == repr(Glossary([Entry(line, (line,)), Entry("x", ("y",))]))


def test_words_that_hold_such_signs_are_kept_as_they_are(tmp_path):
    words = ["https://example.org", "12:30", "std::vector", "a=1", "Yahoo!, Inc."]
    path = tmp_path / "terms.tsv"
    path.write_text("\n".join(words), encoding="utf-8")
    assert repr(read_glossary(path)) == repr(Glossary(Entry(word, (word,)) for word in words))


def test_no_file_and_no_target():
    with pytest.raises(InputError, match=r"nowhere\.tsv"):
        read_glossary("nowhere.tsv")
    with pytest.raises(InputError, match="entry 'a' has an empty translation"):
        make_glossary({"a": []})
    with pytest.raises(InputError, match="entry 'a' has an empty translation"):
        make_glossary({"a": ["b", " "]})


def test_an_entry_without_source_is_of_every_text():
    glossary = make_glossary({"": "x", "a": "y"})
    assert glossary.always == (Entry("", ("x",)),)
    assert [m.entry.source for m in glossary.matches("a b")] == ["a"]
