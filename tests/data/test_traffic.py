"""Tables of sensors: forms, times, gaps, and what is refused in one line that names the file."""

import gzip
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from zhuyi.data.traffic import TableLayout, days_and_slots, gaps, read_table, read_tables, show, to_minutes
from zhuyi.errors import InputError

BEGIN = datetime(2024, 2, 28, 23, 30)  # across the end of a February that has 29 days
LAYOUT = TableLayout()
VALUES = np.array([[61.5, 40.25], [60.0, np.nan], [0.0, 41.0], [58.75, 42.5], [57.0, 43.0]])


def table_text(times: list[str] | None, values: np.ndarray, *, sensors: str = "a,b", comma: str = ",") -> str:
    header = sensors if times is None else f"time,{sensors}"
    rows = [",".join("" if np.isnan(x) else f"{x:g}" for x in row) for row in values]
    if times is not None:
        rows = [f"{time},{row}" for time, row in zip(times, rows, strict=True)]
    return "\n".join([header, *rows, ""]).replace(",", comma)


def times(count: int, step: int = 10, begin: datetime = BEGIN) -> list[str]:
    return [(begin + timedelta(minutes=step * row)).isoformat(" ", "minutes") for row in range(count)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "speeds.csv"
    path.write_text(table_text(times(5), VALUES), encoding="utf-8")
    return path


def expected(zeros: str = "missing") -> np.ndarray:
    values = VALUES.astype(np.float32)
    return np.where(values == 0, np.nan, values) if zeros == "missing" else values


def test_a_csv_with_times(file: Path) -> None:
    table = read_table(str(file), LAYOUT)
    assert (table.sensors, table.step_minutes, len(table)) == (("a", "b"), 10, 5)
    assert show(table.start) == "2024-02-28 23:30"
    assert [show(minute) for minute in table.minutes()[2:4]] == ["2024-02-28 23:50", "2024-02-29 00:00"]
    np.testing.assert_array_equal(table.values, expected())
    assert table.values.dtype == np.float32
    np.testing.assert_array_equal(read_table(str(file), replace(LAYOUT, zeros="values")).values, expected("values"))


@pytest.mark.parametrize("comma", [";", "\t"])
def test_other_commas_zip_and_byte_order_marks(tmp_path: Path, comma: str) -> None:
    text = "\ufeff" + table_text(times(5), VALUES, comma=comma).replace("\n", "\r\n")
    path = tmp_path / "speeds.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    np.testing.assert_array_equal(read_table(str(path), LAYOUT).values, expected())


def test_blanks_of_all_kinds(tmp_path: Path) -> None:
    blanks = ["", "NaN", "nan", "NA", "null", "-", "inf"]
    path = tmp_path / "speeds.csv"
    rows = [f"{time},{blank},1.5" for time, blank in zip(times(len(blanks)), blanks, strict=True)]
    path.write_text("\n".join(["Timestamp,a,b", *rows]), encoding="utf-8")
    table = read_table(str(path), LAYOUT)
    assert np.isnan(table.values[:, 0]).all()
    assert (table.values[:, 1] == 1.5).all()


@pytest.mark.parametrize("name", ["time", "", "Date", "时间", "__index_level_0__"])
def test_parquet_equals_csv(tmp_path: Path, name: str) -> None:
    path = tmp_path / "speeds.parquet"
    column = pyarrow.array([BEGIN + timedelta(minutes=10 * row) for row in range(5)], pyarrow.timestamp("us"))
    columns = {"a": pyarrow.array(VALUES[:, 0]), "b": pyarrow.array([40.25, None, 41.0, 42.5, 43.0], pyarrow.float32())}
    parquet.write_table(pyarrow.table(columns | {name: column}), path)
    table = read_table(str(path), LAYOUT)
    np.testing.assert_array_equal(table.values, expected())
    assert (table.sensors, show(table.start), table.step_minutes) == (("a", "b"), "2024-02-28 23:30", 10)


def test_without_times_the_first_row_and_the_step_are_told(tmp_path: Path) -> None:
    path = tmp_path / "speeds.csv"
    path.write_text(table_text(None, VALUES), encoding="utf-8")
    table = read_table(str(path), replace(LAYOUT, start="2024-02-28T23:30", step_minutes=10))
    np.testing.assert_array_equal(table.values, expected())
    assert show(table.minutes()[-1]) == "2024-02-29 00:10"
    with pytest.raises(InputError, match=r"speeds.csv: no column of times among a, b, ...; .*data.start"):
        read_table(str(path), LAYOUT)
    with pytest.raises(InputError, match=r"speeds.csv has no column of times: .*data.step_minutes"):
        read_table(str(path), replace(LAYOUT, start="2024-02-28"))
    with pytest.raises(InputError, match=r"data.start: 'yesterday' is no time"):
        read_table(str(path), replace(LAYOUT, start="yesterday", step_minutes=10))


@pytest.mark.parametrize("name", ["", "index", "Unnamed: 0"])
def test_numbers_of_rows_are_no_times_where_the_beginning_is_told(tmp_path: Path, name: str) -> None:
    path = tmp_path / "speeds.csv"
    path.write_text(f"{name},a,b\n0,1,2\n1,3,4\n", encoding="utf-8")
    table = read_table(str(path), replace(LAYOUT, start="2024-02-28 23:30", step_minutes=10))
    assert table.sensors == ("a", "b") and table.values.tolist() == [[1, 2], [3, 4]]
    assert show(table.start) == "2024-02-28 23:30"


def test_a_beginning_beside_times_is_refused(file: Path) -> None:
    with pytest.raises(InputError, match=r"its column 'time' says when each row is, and data.start says so too"):
        read_table(str(file), replace(LAYOUT, start="2024-02-28 23:30", step_minutes=10))


def test_times_in_another_form(tmp_path: Path) -> None:
    path = tmp_path / "speeds.csv"
    path.write_text("when,a\n28/02/2024 23h30,1\n28/02/2024 23h40,2\n", encoding="utf-8")
    table = read_table(str(path), replace(LAYOUT, time_column="when", time_format="%d/%m/%Y %Hh%M"))
    assert (show(table.start), table.values[:, 0].tolist()) == ("2024-02-28 23:30", [1.0, 2.0])
    with pytest.raises(InputError, match=r"speeds.csv, row 2: '28/02/2024 23h30' is no time; expected"):
        read_table(str(path), replace(LAYOUT, time_column="when"))
    assert to_minutes("2024-02-28T23:30:00+08:00", "") == to_minutes("2024-02-28 23:30", "")


def test_columns_by_name_in_any_order(file: Path) -> None:
    swapped = read_table(str(file), LAYOUT, ["b", "a"])
    np.testing.assert_array_equal(swapped.values, expected()[:, ::-1])
    alone = read_table(str(file), LAYOUT, ["b"])
    assert alone.sensors == ("b",)
    with pytest.raises(InputError, match=r"speeds.csv: no column for the sensor 'c' \(and 1 more\).*blank"):
        read_table(str(file), LAYOUT, ["a", "c", "d"])
    with pytest.raises(
        InputError, match=r"speeds.csv: no column 'clock', which data.time_column names; there are time, a"
    ):
        read_table(str(file), replace(LAYOUT, time_column="clock"))


def test_rows_that_are_not_there_are_missing_steps(tmp_path: Path) -> None:
    """A gap of a day is a day of nothing measured."""
    path = tmp_path / "speeds.csv"
    kept = [*range(10), *range(10 + 144, 20 + 144)]
    all_times = times(200)
    path.write_text(table_text([all_times[i] for i in kept], np.full((20, 2), 5.0)), encoding="utf-8")
    table = read_table(str(path), LAYOUT)
    assert len(table) == 164
    assert np.isnan(table.values[10:154]).all()
    assert not np.isnan(table.values[[*range(10), *range(154, 164)]]).any()
    assert gaps(table) == (
        "87.8% of the values are missing; all of them at 144 steps, the longest time from 2024-02-29 01:10 to "
        "2024-03-01 01:00"
    )


def test_what_is_missing_is_told(file: Path) -> None:
    table = read_table(str(file), replace(LAYOUT, zeros="values"))
    assert gaps(table) == "10.0% of the values are missing"
    assert gaps(table.part(2, 5)) == ""
    silent = replace(table, values=np.where([[True, False]], np.nan, 1.0) * np.ones((3, 1)))
    assert gaps(silent) == "50.0% of the values are missing; 1 sensors measured nothing (a)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "speeds.csv: empty"),
        ("time,a,b\n", "speeds.csv: no rows"),
        ("time\n2024-01-01 00:00\n", "speeds.csv: no column of a sensor"),
        ("time,a,a\n2024-01-01,1,2\n", "speeds.csv: the column 'a' is there twice"),
        ("time,a\n2024-01-01 00:00,1\n2024-01-01 00:05,fast\n", "speeds.csv: row 3, column 'a': 'fast' is no number"),
        ("time,a,b\n2024-01-01 00:00,1,2\n2024-01-01 00:05,1\n", "speeds.csv: row 3, 2 columns, but its header has 3"),
        ("time,a\n2024-01-01 00:05,1\n2024-01-01 00:00,2\n", "speeds.csv, row 3: 2024-01-01 00:00 does not come after"),
        ("time,a\n2024-01-01 00:00,1\n2024-01-01 00:00,2\n", "speeds.csv, row 3: .*each time once"),
        ("time,a\n2024-01-01 00:00,1\n2024-01-01 00:05,2\n2024-01-01 00:10,2\n2024-01-01 00:12,2\n",
         "speeds.csv, row 5: 2024-01-01 00:12 is no whole number of steps of 5 minutes"),
        ("time,a\n2024-01-01 00:00,1\n", "speeds.csv: one row does not tell how far"),
        ("time,a\n2024-01-01 00:00:30,1\n2024-01-01 00:05,2\n", "speeds.csv, row 2: .* is not a whole minute"),
        ("time,a\n2024-01-01 00:00,1\n2024-01-01 00:05,2\n2034-01-01 00:05,2\n2034-01-01 00:10,2\n",
         r"speeds.csv, row 4: from 2024-01-01 00:05 to 2034-01-01 00:05: 4 rows would be 1,\d+,\d+ steps"),
        ("time,a\n,1\n2024-01-01 00:05,2\n", "speeds.csv, row 2: '' is no time"),
    ],
)  # fmt: skip
def test_wrong_tables_are_refused_in_a_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "speeds.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        read_table(str(path), LAYOUT)
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there_or_of_another_kind(tmp_path: Path) -> None:
    for name in ("none.csv", "none.parquet"):
        with pytest.raises(InputError, match=name):
            read_table(str(tmp_path / name), LAYOUT)
    (tmp_path / "text.parquet").write_text("time,a\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"text.parquet: not a Parquet file") as caught:
        read_table(str(tmp_path / "text.parquet"), LAYOUT)
    assert "\n" not in str(caught.value)
    path = tmp_path / "words.parquet"
    parquet.write_table(pyarrow.table({"time": [BEGIN], "a": ["fast"]}), path)
    with pytest.raises(InputError, match=r"words.parquet: the column 'a' holds string, expected numbers"):
        read_table(str(path), LAYOUT, step_minutes=5)


def test_parquet_files_that_are_damaged_or_of_lists(tmp_path: Path) -> None:
    path = tmp_path / "lists.parquet"
    parquet.write_table(pyarrow.table({"time": [BEGIN], "a": [[1.0, 2.0]]}), path)
    with pytest.raises(InputError, match=r"lists.parquet: the column 'a' holds list.*, expected numbers"):
        read_table(str(path), LAYOUT, step_minutes=5)
    path = tmp_path / "damaged.parquet"
    parquet.write_table(pyarrow.table({"time": [BEGIN], "a": [1.0]}), path)
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56  # its end, where the columns are named, is whole
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"damaged.parquet: a damaged Parquet file") as caught:
        read_table(str(path), LAYOUT, step_minutes=5)
    assert "\n" not in str(caught.value)
    parquet.write_table(pyarrow.table({"time": [BEGIN], "a": [1.0]}).slice(0, 0), path)
    with pytest.raises(InputError, match=r"damaged.parquet: no rows"):
        read_table(str(path), LAYOUT, step_minutes=5)


def test_files_in_any_order_become_one_table(tmp_path: Path) -> None:
    parts = {"late.csv": (9, 4), "early.csv": (0, 3), "middle.csv": (3, 2)}
    for name, (begin, count) in parts.items():
        values = np.arange(begin + 1, begin + count + 1)[:, None] * [1.0, 10.0]
        text = table_text(times(13)[begin : begin + count], values)
        (tmp_path / name).write_text(text if begin else text.replace("a,b", "b,a"), encoding="utf-8")
    files = [str(tmp_path / name) for name in parts]
    table = read_tables(files, LAYOUT)
    assert (table.sensors, len(table), show(table.start)) == (("a", "b"), 13, "2024-02-28 23:30")
    np.testing.assert_array_equal(table.values[:, 0], [10, 20, 30, 4, 5, *[np.nan] * 4, 10, 11, 12, 13])
    with pytest.raises(InputError, match=r"early.csv begins at 2024-02-28 23:30, before .*early.csv ends"):
        read_tables([files[1], files[1]], LAYOUT)


def test_days_and_slots() -> None:
    minutes = np.array(
        [[to_minutes(text, "") for text in ("2024-02-29 00:00", "2024-02-29 23:59", "2024-03-03 12:00")]]
    )
    assert days_and_slots(minutes, 288).tolist() == [[[3, 0], [3, 287], [6, 144]]]  # a Thursday and a Sunday
    assert days_and_slots(minutes, 24)[0, :, 1].tolist() == [0, 23, 12]
    assert days_and_slots(np.array([to_minutes("1969-12-31 06:00", "")]), 4).tolist() == [[2, 1]]


LOS_LOOP = Path(__file__).parents[2].parent / "shared" / "data" / "traffic-los-loop"


@pytest.mark.skipif(not LOS_LOOP.exists(), reason="the shared data are not there")
def test_los_loop_is_what_it_is_said_to_be() -> None:
    table = read_table(str(LOS_LOOP / "los_speed.csv.gz"), TableLayout(start="2012-03-01T00:00", step_minutes=5))
    assert table.values.shape == (2016, 207)
    assert (table.sensors[0], table.sensors[2]) == ("773869", "767542")
    assert gaps(table) == ""
    assert show(table.minutes()[-1]) == "2012-03-07 23:55"
    mornings = table.values.mean(axis=1).reshape(7, 24, 12).mean(axis=2)[:, 7]
    assert set(np.argsort(mornings)[-2:].tolist()) == {2, 3}  # Saturday and Sunday: a day of the week is where it is
