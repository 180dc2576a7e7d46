"""Tables of sensors over time, from CSV or Parquet: a column a sensor, a row a step, and what was not measured."""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from zhuyi.data.pairs import byte_lines, read_lines
from zhuyi.errors import InputError

MINUTES_A_DAY = 1440
EPOCH = datetime(1970, 1, 1)
FIRST_WEEKDAY = 3  # of that day, where Monday is 0
# Names of an index that pandas wrote: of times, or of the rows' numbers; and of a column of times.
INDEX_NAMES = ("", "unnamed: 0", "index", "__index_level_0__")
TIME_NAMES = (*INDEX_NAMES, "time", "timestamp", "datetime", "date_time", "date", "时间", "日期")
BLANK = ("", "NA", "N/A", "nan", "NaN", "NAN", "null", "NULL", "None", "-")
# Where the rows' times would make more steps than this, one of them is wrong.
MOST_STEPS_A_ROW, ALWAYS_ALLOWED_DAYS = 10, 60
NAMED = 3  # columns in a message


@dataclass(frozen=True)
class TableLayout:
    """How a table is laid out.

    Args:   time_column: its name; found by the usual names where empty.
            time_format: as Python's strptime has it; ISO 8601 where empty.
            start: the time of the first row, where there is no such column; an index is the rows' numbers then.
            step_minutes: from row to row; 0 finds what is most common between times.
            zeros: whether a 0 stands for nothing measured, as in the published traffic data.
    """

    time_column: str = ""
    time_format: str = ""
    start: str = ""
    step_minutes: int = 0
    zeros: Literal["missing", "values"] = "missing"

    def __post_init__(self) -> None:
        if self.step_minutes < 0:
            raise ValueError(f"step_minutes must not be negative, got {self.step_minutes}")
        if self.start and self.time_column:
            raise ValueError("start is for tables without a column of times, but time_column names one")


@dataclass(frozen=True, eq=False)
class SensorTable:
    """What sensors measured, step after step without a hole: what is not there is NaN.

    Shape:  values (T, N) float32.
    Args:   start: minutes of the first step since 1970.
    """

    sensors: tuple[str, ...]
    start: int
    step_minutes: int
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def minutes(self) -> np.ndarray:
        """Of every step, since 1970."""
        return self.start + self.step_minutes * np.arange(len(self))

    def part(self, begin: int, end: int) -> "SensorTable":
        """The steps from one to before another."""
        return replace(self, start=self.start + self.step_minutes * begin, values=self.values[begin:end])

    def step_of(self, minute: int) -> int:
        """The number of the step at a time, before the first and after the last one too."""
        return (minute - self.start) // self.step_minutes


def read_tables(
    files: Sequence[str], layout: TableLayout, sensors: Sequence[str] = (), *, step_minutes: int = 0
) -> SensorTable:
    """Read files that follow each other in time, in any order, as one table.

    Args:   sensors: the columns wanted, in this order; where none are named, all of the first file.
            step_minutes: what the step must be, where that is known already.
    Raises: InputError: a file cannot be read, lacks a column, or its times do not fit; names the file.
    """
    tables: list[tuple[SensorTable, str]] = []
    for file in files:
        table = read_table(file, layout, sensors, step_minutes=step_minutes)
        sensors, step_minutes = table.sensors, table.step_minutes
        tables.append((table, file))
    tables.sort(key=lambda each: each[0].start)
    first, last = tables[0][0], tables[-1][0]
    if first is last:
        return first
    for (before, name), (after, other) in pairwise(tables):
        if after.start <= before.minutes()[-1]:
            raise InputError(f"{other} begins at {show(after.start)}, before {name} ends; give each time once")
    steps = first.step_of(int(last.minutes()[-1])) + 1
    _check_length(steps, sum(len(table) for table, _ in tables), step_minutes, f"{tables[-1][1]}: ")
    values = np.full((steps, len(sensors)), np.nan, np.float32)
    for table, name in tables:
        if (table.start - first.start) % step_minutes:
            raise InputError(f"{name} begins at {show(table.start)}, between two steps of {tables[0][1]}")
        begin = first.step_of(table.start)
        values[begin : begin + len(table)] = table.values
    return replace(first, values=values)


def read_table(file: str, layout: TableLayout, sensors: Sequence[str] = (), *, step_minutes: int = 0) -> SensorTable:
    """Read one file; see `read_tables`."""
    is_parquet = Path(file).suffix == ".parquet"
    header = _parquet_header(file) if is_parquet else _csv_header(file)
    if doubled := [name for name, count in Counter(header).items() if count > 1]:
        raise InputError(f"{file}: the column '{doubled[0]}' is there twice; give each sensor one name")
    time = _time_column(file, header, layout)
    sensors = tuple(sensors) or tuple(
        name for name in header if name != time and not (layout.start and name.strip().lower() in INDEX_NAMES)
    )
    if missing := [name for name in sensors if name not in header]:
        more = f" (and {len(missing) - 1:,} more)" if len(missing) > 1 else ""
        raise InputError(
            f"{file}: no column for the sensor '{missing[0]}'{more}, which the run was trained on; add it, blank where "
            "nothing was measured"
        )
    if not sensors:
        raise InputError(f"{file}: no column of a sensor beside the times; expected one for each")
    columns = (_parquet_columns if is_parquet else _csv_columns)(file, header, sensors, time)
    values = np.stack([columns[name] for name in sensors], axis=1).astype(np.float32)  # (T, N)
    if not len(values):
        raise InputError(f"{file}: no rows")
    values[~np.isfinite(values)] = np.nan
    if layout.zeros == "missing":
        values[values == 0] = np.nan
    wanted = step_minutes or layout.step_minutes
    if time is None:
        if not wanted:
            raise InputError(f"{file} has no column of times: say how far its rows are apart, as data.step_minutes")
        return SensorTable(sensors, to_minutes(layout.start, "data.start"), wanted, values)
    minutes = _times(file, columns[time], layout.time_format)
    return _on_grid(file, sensors, minutes, values, wanted)


def _csv_header(file: str) -> list[str]:
    first = next(iter(read_lines(file)), "").removeprefix("\ufeff").rstrip("\r\n")
    if not first:
        raise InputError(f"{file}: empty; expected a header with a name for each sensor")
    try:
        return [name.strip() for name in next(csv.reader([first], delimiter=_delimiter(first)))]
    except csv.Error as error:
        raise InputError(f"{file}: its first line is no row of names ({error})") from None


def _delimiter(line: str) -> str:
    return max("\t;,", key=line.count)


def _csv_columns(file: str, header: Sequence[str], sensors: Sequence[str], time: str | None) -> dict[str, Any]:
    import io

    import pyarrow
    from pyarrow import csv as arrow_csv

    content = b"\n".join(line.rstrip(b"\r\n") for line in byte_lines(file))
    first, _, rows = content.partition(b"\n")
    if not rows.strip():
        raise InputError(f"{file}: no rows below its header")
    types = dict.fromkeys(sensors, pyarrow.float64()) | ({time: pyarrow.string()} if time is not None else {})
    try:
        table = arrow_csv.read_csv(
            io.BytesIO(content),
            # One thread: only then does it know the row of an error.
            read_options=arrow_csv.ReadOptions(column_names=list(header), skip_rows=1, use_threads=False),
            parse_options=arrow_csv.ParseOptions(delimiter=_delimiter(first.decode("utf-8", errors="replace"))),
            convert_options=arrow_csv.ConvertOptions(
                column_types=types, include_columns=list(types), null_values=list(BLANK), strings_can_be_null=True
            ),
        )
    except pyarrow.ArrowInvalid as error:
        raise InputError(f"{file}: {_explain(str(error), header)}") from None
    found = {name: table[name].to_numpy() for name in sensors}
    return found | ({time: table[time].to_pylist()} if time is not None else {})


def _explain(message: str, header: Sequence[str]) -> str:
    """The library's error in a line, with the column's name in place of its number."""
    message = " ".join(message.split())
    column, row = re.search(r"column #(\d+)", message), re.search(r"Row #(\d+)", message)
    where = f"row {int(row[1])}, " if row else ""
    if column and (value := re.search(r"invalid value '(.*)'", message)):
        name = header[int(column[1])] if int(column[1]) < len(header) else column[1]
        return f"{where}column '{name}': '{value[1][:30]}' is no number; leave blank what was not measured"
    if counts := re.search(r"Expected (\d+) columns, got (\d+)", message):
        return f"{where}{counts[2]} columns, but its header has {counts[1]}"
    return message


def _parquet_header(file: str) -> list[str]:
    import pyarrow
    from pyarrow import parquet

    try:
        return list(parquet.read_schema(file).names)
    except FileNotFoundError:
        raise InputError(f"{file}: no such file") from None
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{file}: not a Parquet file ({str(error).splitlines()[0]})") from None


def _parquet_columns(file: str, header: Sequence[str], sensors: Sequence[str], time: str | None) -> dict[str, Any]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(file, columns=[*sensors, *([time] if time is not None else [])])
    except (pyarrow.ArrowException, OSError) as error:
        what = str(error).splitlines()[0][:100]
        raise InputError(f"{file}: a damaged Parquet file ({what}); write or copy it again") from None
    found: dict[str, Any] = {}
    for name in sensors:
        try:
            found[name] = table[name].cast(pyarrow.float64()).to_numpy()
        except pyarrow.ArrowException:
            raise InputError(f"{file}: the column '{name}' holds {table[name].type}, expected numbers") from None
    return found | ({time: table[time].to_pylist()} if time is not None else {})


def _time_column(file: str, header: Sequence[str], layout: TableLayout) -> str | None:
    """The column of times; None where the layout says when the table begins."""
    if layout.time_column:
        if layout.time_column not in header:
            raise InputError(
                f"{file}: no column '{layout.time_column}', which data.time_column names; there are "
                f"{', '.join(header[:NAMED])}, ..."
            )
        return layout.time_column
    found = next((name for name in header if name.strip().lower() in TIME_NAMES), None)
    if layout.start and found is not None and found.strip().lower() not in INDEX_NAMES:
        raise InputError(
            f"{file}: its column '{found}' says when each row is, and data.start says so too; leave one of them out"
        )
    if layout.start:
        return None
    if found is None:
        raise InputError(
            f"{file}: no column of times among {', '.join(header[:NAMED])}, ...; name it by data.time_column, or say "
            "when the first row is and how far rows are apart, by data.start (--start of a run) and data.step_minutes"
        )
    return found


def to_minutes(text: Any, origin: str, time_format: str = "") -> int:
    """Minutes since 1970 of a time on the clocks of its place; what it says of its zone is left out.

    Raises: InputError: it is no time, or has seconds.
    """
    try:
        if isinstance(text, datetime):
            time = text
        else:
            time = datetime.strptime(text, time_format) if time_format else datetime.fromisoformat(str(text).strip())
    except (ValueError, TypeError):
        expected = time_format or "2024-01-31 17:05"
        raise InputError(f"{origin}: '{text or ''}' is no time; expected one such as {expected}") from None
    minutes, rest = divmod(time.replace(tzinfo=None) - EPOCH, timedelta(minutes=1))
    if rest:
        raise InputError(f"{origin}: {text} is not a whole minute; steps are of whole minutes")
    return minutes


def show(minute: int) -> str:
    """Minutes since 1970 as a time."""
    return (EPOCH + timedelta(minutes=int(minute))).strftime("%Y-%m-%d %H:%M")


def _times(file: str, texts: Sequence[Any], time_format: str) -> np.ndarray:
    found = [to_minutes(text, f"{file}, row {row}", time_format) for row, text in enumerate(texts, 2)]
    return np.array(found, np.int64)


def _on_grid(
    file: str, sensors: tuple[str, ...], minutes: np.ndarray, values: np.ndarray, step_minutes: int
) -> SensorTable:
    """Every row at its step, and nothing measured where no row is."""
    apart = np.diff(minutes)
    if len(apart) and apart.min() <= 0:
        row = int(np.argmax(apart <= 0))
        raise InputError(
            f"{file}, row {row + 3}: {show(minutes[row + 1])} does not come after {show(minutes[row])}; sort the rows "
            "by time, each time once"
        )
    step = step_minutes or (int(Counter(apart.tolist()).most_common(1)[0][0]) if len(apart) else 0)
    if not step:
        raise InputError(f"{file}: one row does not tell how far rows are apart; set data.step_minutes")
    steps, off = np.divmod(minutes - minutes[0], step)
    if off.any():
        row = int(np.argmax(off > 0))
        raise InputError(
            f"{file}, row {row + 2}: {show(minutes[row])} is no whole number of steps of {step} minutes after "
            f"{show(minutes[0])}; mend the row, or set data.step_minutes"
        )
    if len(apart):
        row = int(apart.argmax())
        where = f"{file}, row {row + 3}: from {show(minutes[row])} to {show(minutes[row + 1])}: "
        _check_length(int(steps[-1]) + 1, len(values), step, where)
    whole = np.full((int(steps[-1]) + 1, len(sensors)), np.nan, np.float32)
    whole[steps] = values
    return SensorTable(sensors, int(minutes[0]), step, whole)


def _check_length(steps: int, rows: int, step_minutes: int, where: str) -> None:
    if steps * step_minutes > ALWAYS_ALLOWED_DAYS * MINUTES_A_DAY and steps > MOST_STEPS_A_ROW * rows:
        raise InputError(
            f"{where}{rows:,} rows would be {steps:,} steps of {step_minutes} minutes; is that time right?"
        )


def gaps(table: SensorTable) -> str:
    """What is not there, for people; empty where nothing is missing."""
    missing = np.isnan(table.values)
    whole = missing.all(axis=1)
    if not missing.any():
        return ""
    told = f"{missing.mean():.1%} of the values are missing"
    if whole.any():
        edges = np.flatnonzero(np.diff(np.concatenate(([0], whole.astype(np.int8), [0])))).reshape(-1, 2)
        begin, end = edges[np.argmax(edges[:, 1] - edges[:, 0])]
        minutes = table.start + table.step_minutes * np.array([begin, end - 1])
        told += (
            f"; all of them at {whole.sum():,} steps, the longest time from {show(minutes[0])} to {show(minutes[1])}"
        )
    if (silent := missing.all(axis=0)).any():
        names = ", ".join(np.array(table.sensors)[silent][:NAMED].tolist())
        told += f"; {silent.sum():,} sensors measured nothing ({names}{', ...' * bool(silent.sum() > NAMED)})"
    return told


def days_and_slots(minutes: np.ndarray, slots_a_day: int) -> np.ndarray:
    """The day of the week, Monday being 0, and the part of the day, for any times.

    Shape: minutes (...) since 1970; returns (..., 2) int64.
    """
    days, of_day = np.divmod(minutes, MINUTES_A_DAY)
    return np.stack(((days + FIRST_WEEKDAY) % 7, of_day * slots_a_day // MINUTES_A_DAY), axis=-1).astype(np.int64)
