"""Texts and labels from each form of file."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhuyi.data.labelled_texts import LabelledText, Layout, _csv_rows, read_all_texts, read_texts
from zhuyi.data.pairs import CleaningReport
from zhuyi.errors import InputError

SHARED = Path(__file__).parents[3] / "shared" / "data"


def layout(**changes: Any) -> Layout:
    return Layout(
        **{"form": "auto", "columns": (2,), "label": 1, "header": "auto", "encoding": "utf-8", **changes}  # type: ignore[arg-type]
    )


def read(path: Path, content: str | bytes, **changes: Any) -> tuple[list[tuple[str, str]], CleaningReport]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    report = CleaningReport(things="texts")
    return [(each.label, each.text) for each in read_texts(str(path), layout(**changes), report)], report


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", "label\ttext\n1\t好 书\n0\t差，很差\n"),
        ("a.tsv", "1\t好 书\n0\t差，很差\n"),
        ("a.txt", "1 好 书\n0 差，很差\n"),
        ("a.csv", 'label,text\n1,好 书\n0,"差，很差"\n'),
        ("a.jsonl", '{"label": 1, "text": "好 书"}\n{"text": "差，很差", "label": "0"}\n'),
        ("a.txt", "标签\t文本\r\n1\t好 书\r\n0\t差，很差\r\n"),
    ],
)
def test_every_form_says_the_same(tmp_path: Path, name: str, content: str) -> None:
    assert read(tmp_path / name, content)[0] == [("1", "好 书"), ("0", "差，很差")]
    with gzip.open(tmp_path / f"{name}.gz", "wt", encoding="utf-8") as file:
        file.write(content)
    report = CleaningReport()
    found = [(each.label, each.text) for each in read_texts(str(tmp_path / f"{name}.gz"), layout(), report)]
    assert found == [("1", "好 书"), ("0", "差，很差")]


@pytest.mark.parametrize("name", ["a.tsv", "a.csv.gz"])
def test_what_they_are_in_is_told_where_none_is_utf_8(tmp_path: Path, name: str) -> None:
    line = "1\t这本书很好，我喜欢。" if "tsv" in name else "1,这本书很好，我喜欢。"
    content = ("label\ttext\n" if "tsv" in name else "label,text\n") + f"{line}\n{line}\n"
    path = tmp_path / name
    path.write_bytes((gzip.compress if name.endswith(".gz") else bytes)(content.encode("gb18030")))
    with pytest.raises(InputError, match=rf"{name}: line 2 is not UTF-8, and .* gb18030; .*iconv -f gb18030"):
        list(read_all_texts([str(path)], layout(), CleaningReport()))
    assert len(list(read_all_texts([str(path)], layout(encoding="gb18030"), CleaningReport()))) == 2
    with pytest.raises(InputError, match="of another encoding"):
        list(read_all_texts([str(path)], layout(encoding="ascii"), CleaningReport()))


def test_quotes_of_a_field_go_and_those_of_a_text_stay(tmp_path: Path) -> None:
    content = '1\t"he said ""no"" twice"\n0\t"a quotation" begins this\n1\t"\n0\t"unclosed\n1\tplain\n'
    assert [text for _, text in read(tmp_path / "a.tsv", content)[0]] == [
        'he said "no" twice',
        '"a quotation" begins this',
        '"',
        '"unclosed',
        "plain",
    ]


def test_in_csv_a_quoted_field_may_have_commas_and_lines(tmp_path: Path) -> None:
    found, report = read(tmp_path / "a.csv", '1,"one, two\nthree"\n0,four\n')
    assert found == [("1", "one, two\nthree"), ("0", "four")]
    assert (report.total, report.kept) == (2, 2)


@given(st.lists(st.lists(st.text('a",\n b', max_size=4), min_size=2, max_size=3), min_size=1, max_size=4))
def test_csv_is_read_as_pythons_own_reader_reads_it(rows: list[list[str]]) -> None:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(rows)
    lines = written.getvalue().split("\n")[:-1]
    found = [fields for _, fields in _csv_rows("x.csv", iter(list(enumerate(lines, 1))), CleaningReport())]
    assert found == [row for row in csv.reader(io.StringIO(written.getvalue())) if row]


def test_what_is_wrong_in_csv_costs_its_own_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    long = "very " * 40_000
    content = f'1,"left open\n0,fine\n1,"quoted, ""so"""\n\n0,a "word" in it\n1,"said" he\n0,{long}\n1,a\rb\n'
    content += '0,"open too\n1,end\n'
    found, report = read(path, content.encode() + b"\xff,x\n0,last\n")
    assert found == [
        ("0", "fine"),
        ("1", 'quoted, "so"'),
        ("0", 'a "word" in it'),
        ("1", "said he"),
        ("0", long.strip()),
        ("1", "a\rb"),
        ("1", "end"),
        ("0", "last"),
    ]
    assert report.examples == {"a quote left open": [f"{path}:1", f"{path}:9"], "not UTF-8": [f"{path}:11"]}
    assert (report.total, report.kept) == (11, 8)
    (*_, last) = read_texts(str(path), layout(), CleaningReport())
    assert last.origin == (str(path), 12)
    path.write_text("0,x\n" + '1,"over\ntwo",z\n' + "0,y\n", encoding="utf-8")
    assert [each.origin[1] for each in read_texts(str(path), layout(), CleaningReport())] == [1, 2, 4]


def test_json_says_by_its_keys_what_a_value_is(tmp_path: Path) -> None:
    rows = [
        {"label": 2, "text": "x"},
        {"label": True, "text": "y"},
        {"label": 1, "text": None},
        {"label": 1, "text": ["z"]},
    ]
    content = "".join(json.dumps(row) + "\n" for row in rows)
    for columns, label in (((2,), 1), ((1,), 2), ((3,), 1)):
        found, report = read(tmp_path / "a.jsonl", content, columns=columns, label=label)
        assert found == [("2", "x"), ("true", "y")]
        assert report.dropped == {"empty text or label": 1, "bad JSON": 1}
    (tmp_path / "b.jsonl").write_text('{"second": "b", "text": "a", "label": "c"}\n', encoding="utf-8")
    (pair,) = read_texts(str(tmp_path / "b.jsonl"), layout(columns=(3, 2)), CleaningReport())
    assert pair[:3] == ("a", "b", "c")


def test_the_header_is_found_or_told(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    assert read(path, "label\ttext\n1\tgood\n", header="no")[0] == [("label", "text"), ("1", "good")]
    assert read(path, "gut\tsatz\n1\tgood\n", header="yes")[0] == [("1", "good")]
    assert read(path, "gut\tsatz\n1\tgood\n")[0] == [("gut", "satz"), ("1", "good")]


def test_columns_are_chosen_and_pairs_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("x\tone\ttwo\tyes\n", encoding="utf-8")
    (found,) = read_texts(str(path), layout(columns=(2, 3), label=4), CleaningReport())
    assert found == LabelledText("one", "two", "yes", (str(path), 1))


def test_without_labels_lines_are_texts(tmp_path: Path) -> None:
    assert read(tmp_path / "a.txt", "one two\n\nthree\n", columns=(1,), label=0)[0] == [("", "one two"), ("", "three")]
    assert read(tmp_path / "b.jsonl", '{"label": 3, "text": "one"}\n', columns=(1,), label=0)[0] == [("", "one")]


def test_what_is_left_out_is_counted_and_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    found, report = read(path, b"1\tgood\n1\n\xff\tbad\n0\t \n\tno label\n0\tlast\n")
    assert found == [("1", "good"), ("0", "last")]
    assert (report.total, report.kept) == (6, 2)
    assert report.dropped == {"missing column": 1, "not UTF-8": 1, "empty text or label": 2}
    assert report.examples["missing column"] == [f"{path}:2"]
    assert "2 of 6 texts kept" in report.summary()
    found, report = read(tmp_path / "a.jsonl", '{"label": 1, "text": "x"}\nnot json\n[1]\n')
    assert found == [("1", "x")] and report.dropped == {"bad JSON": 2}


def test_another_encoding_is_read(tmp_path: Path) -> None:
    assert read(tmp_path / "a.txt", "1 café\n".encode("latin-1"), encoding="latin-1")[0] == [("1", "café")]
    assert read(tmp_path / "a.txt", "1 好\n".encode("gb18030"), encoding="gb18030")[0] == [("1", "好")]
    assert read(tmp_path / "a.txt", b"1 \xff\xff\n", encoding="gb18030")[1].dropped == {"of another encoding": 1}


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("\n\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"no text in .*a.tsv: 0 of 2 texts kept"):
        list(read_all_texts([str(tmp_path / "a.tsv")], layout(), CleaningReport(things="texts")))
    with pytest.raises(InputError, match="cannot read"):
        list(read_all_texts([str(tmp_path / "b.tsv")], layout(), CleaningReport()))


@pytest.mark.parametrize(
    ("name", "rows", "first"),
    [("chnsenticorp/test.tsv.gz", 1200, "1"), ("sst2/test.txt.gz", 1821, "0")],
)
def test_the_real_files(name: str, rows: int, first: str) -> None:
    if not (SHARED / name).exists():
        pytest.skip(f"{SHARED / name} is not here")
    report = CleaningReport()
    found = list(read_texts(str(SHARED / name), layout(), report))
    assert len(found) == report.total == rows
    assert {each.label for each in found} == {"0", "1"}
    assert found[0].label == first
