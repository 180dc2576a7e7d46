"""Pairs from files of every form, whatever the bytes in them."""

import gzip
import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhuyi.data.pairs import CleaningReport, CleaningRules, clean_pairs, fingerprint, read_lines, read_pairs
from zhuyi.errors import InputError


def read(source, **options):
    report = CleaningReport()
    return [(pair.source, pair.target) for pair in read_pairs(str(source), report=report, **options)], report


def clean(*sources, columns=(1, 2), **rules):
    report = CleaningReport()
    pairs = clean_pairs([str(s) for s in sources], CleaningRules(**rules), columns=columns, report=report)
    return [(pair.source, pair.target) for pair in pairs], report


@pytest.fixture
def write(tmp_path):
    def write_file(name, content):
        path = tmp_path / name
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write_file


PAIRS = [("你好。", "Hello."), ("再见。", "Bye.")]
TSV = "你好。\tHello.\tmore\n再见。\tBye.\n"
JSON_LINES = '{"source": "你好。", "target": "Hello.", "id": 1}\n{"target": "Bye.", "source": "再见。"}\n'


@pytest.mark.parametrize("name", ["p.tsv", "p.txt", "p.tsv.gz", "p.jsonl", "p.jsonl.gz", "a,b.tsv"])
def test_one_file_of_each_form(write, name):
    path = write(name, JSON_LINES if "jsonl" in name else TSV)
    assert read(path)[0] == PAIRS
    assert read(path, columns=(2, 1))[0] == [(target, source) for source, target in PAIRS]


@pytest.mark.parametrize("end", ["", ".gz"])
def test_two_aligned_files_even_with_commas_in_their_names(write, end):
    source, target = write(f"a,zh{end}", "你好。\n再见。\n"), write(f"b,en{end}", "Hello.\nBye.")
    assert read(f"{source},{target}")[0] == PAIRS
    assert read(f"{source},{target}", columns=(2, 1))[0] == [(target, source) for source, target in PAIRS]


def test_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(TSV.encode())))
    assert read("-")[0] == PAIRS


def test_the_origin_of_a_pair_is_its_file_and_line(write):
    path = write("p.tsv", b"\xff\n" + TSV.encode())
    assert [pair.origin for pair in read_pairs(str(path), report=CleaningReport())] == [
        (str(path), 2),
        (str(path), 3),
    ]


def test_only_the_line_feed_ends_a_line(write):
    odd = "a\u2028b\x0cc\x85d\x1ce\rf"
    source, target = write("s", f"{odd}\r\n\n"), write("t", f"{odd}\n{odd}")
    assert read(write("p.tsv", f"{odd}\t{odd}\r\n"))[0] == [(odd, odd)]
    assert read(f"{source},{target}")[0] == [(odd, odd), ("", odd)]


def test_a_byte_order_mark_is_dropped_at_the_start_only(write):
    assert read(write("p.tsv", "\ufeffa\tb\n\ufeffc\td\n"))[0] == [("a", "b"), ("\ufeffc", "d")]


def test_bad_lines_are_counted_and_named(write):
    path = write("p.tsv", b"a\tb\n\xff\tb\nalone\n\tb\na\t \xe2\x80\x8b\nc\td\nA\tb\na\tb\n")
    pairs, report = clean(path)
    assert pairs == [("a", "b"), ("c", "d"), ("A", "b")]
    assert (report.total, report.kept) == (8, 3)
    assert report.dropped == {"not UTF-8": 1, "missing column": 1, "empty side": 2, "duplicate": 1}
    assert report.examples["empty side"] == [f"{path}:4", f"{path}:5"]
    assert report.examples["duplicate"] == [f"{path}:8"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "bad JSON"),
        ("[1]", "bad JSON"),
        ("", "bad JSON"),
        ('{"source": "a", "target": 1}', "bad JSON"),
        ("[" * 100_000, "bad JSON"),
        ('{"source": ' + "9" * 5000 + ', "target": "b"}', "bad JSON"),
        ('{"source": "a"}', "missing column"),
    ],
)
def test_bad_json_lines(write, line, reason):
    pairs, report = read(write("p.jsonl", f"{line}\n{JSON_LINES}"))
    assert pairs == PAIRS and report.dropped == {reason: 1} and report.total == 3


def test_a_lone_surrogate_in_json_does_not_stop_the_cleaning(write):
    assert clean(write("p.jsonl", '{"source": "a\\ud800", "target": "b"}'))[0] == [("a", "b")]


def test_a_bad_line_in_either_aligned_file_names_that_file(write):
    source, target = write("s", b"\xff\na\nb\n"), write("t", b"a\n\xff\nb\n")
    pairs, report = read(f"{source},{target}")
    assert pairs == [("b", "b")]
    assert report.examples == {"not UTF-8": [f"{source}:1", f"{target}:2"]}


@pytest.mark.parametrize(("source_lines", "target_lines"), [(3, 5), (5, 3), (0, 2), (2, 0)])
def test_aligned_files_of_unequal_length_are_refused_with_both_counts(write, source_lines, target_lines):
    source, target = write("s", "a\n" * source_lines), write("t", "a\n" * target_lines)
    with pytest.raises(InputError, match=f"s has {source_lines} lines but .*t has {target_lines}"):
        read(f"{source},{target}")


def test_a_gz_cut_short_names_file_and_line(write):
    path = write("p.tsv.gz", "".join(f"{i}\t{i}\n" for i in range(50_000)))
    path.write_bytes(path.read_bytes()[:-20_000])
    with pytest.raises(InputError, match=r"p\.tsv\.gz.* after line [1-9]\d+ "):
        read(path)
    broken = bytearray(gzip.compress(TSV.encode()))
    broken[-6] ^= 255  # the checksum
    path.write_bytes(broken)
    with pytest.raises(InputError, match=r"p\.tsv\.gz.* after line 2 "):
        read(path)
    path.write_bytes(TSV.encode())
    with pytest.raises(InputError, match=r"p\.tsv\.gz.* after line 0 "):
        read(path)


def test_where_a_recipes_data_are_had_is_said() -> None:
    with pytest.raises(InputError, match=r"cannot read data/no/such\.tsv: .*its recipe's header"):
        next(read_lines("data/no/such.tsv"))


@pytest.mark.parametrize("source", ["no.tsv", "no.jsonl.gz", "no.zh,no.en", "."])
def test_what_cannot_be_read_is_refused_by_its_name(source):
    with pytest.raises(InputError, match=r"cannot read (no\.|\.)"):
        read(source)
    with pytest.raises(InputError, match=r"cannot read (no\.|\.)"):
        list(read_lines(source))


@pytest.mark.parametrize("columns", [(0, 1), (1, -1)])
def test_columns_are_counted_from_one(write, columns):
    with pytest.raises(InputError, match="counted from 1"):
        read(write("p.tsv", TSV), columns=columns)


def test_a_third_column_of_json_or_of_two_files_is_refused(write):
    path = write("p.jsonl", JSON_LINES)
    for source in (path, f"{path},{path}"):
        with pytest.raises(InputError, match="1,3"):
            read(source, columns=(1, 3))


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\tb\n\n", b"a\n" * 30])
def test_nothing_kept_is_an_error_that_names_the_file(write, content):
    with pytest.raises(InputError, match=r"no pairs in .*p\.tsv"):
        clean(write("p.tsv", content))


def test_length_rules(write):
    long, longer = "a" * 10, "a" * 11
    path = write("p.tsv", f"{long}\tb\n{longer}\tb\nb\t{longer}\n")
    pairs, report = clean(path, max_chars=10)
    assert pairs == [(long, "b")] and report.dropped == {"too long": 2}


def test_the_length_ratio_counts_a_chinese_character_as_three_letters_and_spares_the_short(write):
    rows = [
        ("好", "b" * 50),
        ("好" * 3, "b" * 81),
        ("好" * 3, "b" * 82),
        ("bbb", "好" * 10),
        ("b", "好" * 17),
    ]
    pairs, report = clean(write("p.tsv", "".join(f"{s}\t{t}\n" for s, t in rows)))
    assert pairs == [rows[0], rows[1], rows[3]]
    assert report.dropped == {"length ratio": 2}


def test_duplicates_are_of_the_normalised_pair_and_over_all_sources(write):
    first, second = write("p.tsv", "你好,\tA\n你好，\tA\na\tb\n"), write("q.tsv", "a \tb\nb\ta\nb\tc\n")
    assert clean(first, second)[0] == [("你好，", "A"), ("a", "b"), ("b", "a"), ("b", "c")]
    assert len(clean(first, second, deduplicate=False)[0]) == 6


def test_traditional_characters_on_request(write):
    pytest.importorskip("opencc", reason="opencc (extra 'text') is not installed")
    path = write("p.tsv", "漢語\ta\n汉语\ta\n")
    assert clean(path)[0] == [("漢語", "a"), ("汉语", "a")]
    assert clean(path, simplify=True)[0] == [("汉语", "a")]


def test_the_report_for_people_and_for_programs(write):
    path = write("p.tsv", "a\tb\n" + "alone\n" * 1234)
    _, report = clean(path)
    assert report.summary().splitlines() == [
        "1 of 1,235 pairs kept",
        f"  1,234 left out: missing column ({path}:2, {path}:3, {path}:4, ...)",
    ]
    as_dict = json.loads(json.dumps(report.as_dict()))
    assert as_dict["dropped"] == {"missing column": 1234}
    assert as_dict["examples"]["missing column"] == [f"{path}:{line}" for line in range(2, 22)]


@given(st.lists(st.sampled_from([b"\n", b"\r", b"a", "好".encode(), b"\xe2\x80\xa8", b"\x0c"])).map(b"".join))
def test_as_many_lines_as_line_feeds_whatever_else_ends_lines(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("lines") / "text"
    path.write_bytes(data)
    lines = list(read_lines(str(path)))
    assert len(lines) == data.count(b"\n") + (not data.endswith(b"\n") and bool(data))
    assert not any("\n" in line for line in lines)


def test_lines_from_gz_and_standard_input_until_one_that_is_not_utf_8(write, monkeypatch):
    data = b"a\r\n\nb\xff\nlast"
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    for path, message in (
        ("-", r"standard input: line 3 is not UTF-8; .*\(iconv -f ENCODING -t utf-8\) or .*\(iconv -c -f utf-8"),
        (str(write("t.gz", data)), r"t\.gz: line 3 .*gunzip -c \S*t\.gz \| iconv -f ENCODING -t utf-8\)"),
    ):
        lines = read_lines(path)
        assert [next(lines), next(lines)] == ["a", ""]
        with pytest.raises(InputError, match=message):
            next(lines)


def test_pairs_of_another_encoding_alone_are_told_it(write):
    path = write("p.tsv", "你好\thello\n今天\ttoday\n".encode("gb18030"))
    with pytest.raises(InputError, match=rf"p\.tsv: line 1 is not UTF-8, and reads well as gb18030; .*{path}$"):
        clean(path)


def test_a_fingerprint_is_of_every_files_content(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.tsv", "b.zh", "b.en")]
    for path in paths:
        path.write_bytes(b"one\ttwo\n")
    sources = [str(paths[0]), f"{paths[1]},{paths[2]}"]
    before = fingerprint(sources)
    assert [row[:2] for row in before] == [(str(path), 8) for path in paths]
    assert fingerprint(sources) == before
    for path in paths:
        path.write_bytes(b"one\ttwi\n")
        assert fingerprint(sources) != before
        path.write_bytes(b"one\ttwo\n")
    paths[2].unlink()
    with pytest.raises(InputError, match=r"cannot read .*b.en: No such file"):
        fingerprint(sources)
