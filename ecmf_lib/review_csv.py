"""Csv files that are opened in a spreadsheet program: nothing in them is run, and what comes back is what was meant."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd
from pandas.api.types import is_numeric_dtype

from ecmf_lib.bounded import read_lines
from ecmf_lib.tables import CorpusError, decode_text


class ReviewError(CorpusError):
    """An audit table or a file of human decisions that cannot be used; `problems` lists every row that is meant."""


#: Where a program that splits at another character than the comma, or drops blanks, would see a formula begin.
_FORMULA = re.compile(r"(^|[;,\t\r\n|\"])(\s*)('*)(?=[=+\-@＝＋－＠])")
#: What a spreadsheet program makes a number, a date, a time, or true or false of.
_CONVERTED = re.compile(
    r"^('*)(?=[\d.,($€£¥%]|(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[ ./-]?\d|(?:true|false)$)", re.I
)
_SEPARATORS = (",", ";", "\t")


def guarded(text: str, *, name: bool = False) -> str:
    """A cell's text as a spreadsheet program shows it and does not run or convert it: an apostrophe goes before it.

    Where apostrophes stand there already, one more is put before them, so that :func:`unguarded` is exact. After OWASP,
    "CSV injection": =, +, -, @ and their wide forms are formulas, at the start of a cell and after anything that
    another program might take for a separator.

    Parameters
    ----------
    name : bool
        An id: what looks like a number or a date is guarded too, or "007" would come back as 7.
    """
    text = _FORMULA.sub(r"\1\2'\3", text)
    return _CONVERTED.sub(r"'\1", text) if name else text


def unguarded(text: str, *, name: bool = False) -> str:
    """The text that :func:`guarded` was given."""
    if name:
        text = _CONVERTED.sub(lambda found: found[1][1:], text)
    return _FORMULA.sub(lambda found: f"{found[1]}{found[2]}{found[3][1:]}", text)


def guarded_table(frame: pd.DataFrame) -> pd.DataFrame:
    """A table whose texts, names of columns among them, are :func:`guarded`; numbers stay numbers."""
    return _each_text(frame, guarded)


def unguarded_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The table that :func:`guarded_table` was given, as it was read from a csv."""
    return _each_text(frame, unguarded)


def _each_text(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    columns = [
        column
        if is_numeric_dtype(column)
        else pd.Series(
            [change(v) if isinstance(v, str) else v for v in column], column.index, dtype=_open(column.dtype)
        )
        for _, column in frame.items()
    ]
    changed = pd.concat(columns, axis=1) if columns else frame.copy()
    changed.columns = [change(name) if isinstance(name, str) else name for name in frame.columns]
    return changed


def _open(dtype: object) -> object:
    """A kind of column that takes any text: a category takes those alone that it knows."""
    return object if isinstance(dtype, pd.CategoricalDtype) else dtype


def write_cells(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a csv with commas, every cell in quotes, UTF-8 with BOM; without one Excel would not show Chinese."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".tmp")
    with unfinished.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([header, *rows])
    unfinished.replace(path)


def read_cells(path: Path, needed: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Rows of a csv as spreadsheet programs write it: commas, semicolons or tabs; other columns are left out.

    Returns
    -------
    list of (row as a spreadsheet counts it, column → cell)
        Rows of nothing but blanks are left out. Cells are as they stand in the file.

    Raises
    ------
    ReviewError
        Unreadable, no csv, a needed column that lacks or stands there twice.
    """
    try:
        lines = decode_text(read_lines(path), path).splitlines(keepends=True)
    except OSError as error:
        raise ReviewError(f"{path}: cannot be read ({error.strerror}); expected a csv file of decisions") from None
    except CorpusError as error:
        raise ReviewError(str(error)) from None
    skipped = 1 if lines and re.fullmatch("sep=.", lines[0].strip(), re.I) else 0  # what Excel is told the separator by
    text = "".join(lines[skipped:])
    separator = max(_SEPARATORS, key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        rows = [(row + skipped, cells) for row, cells in enumerate(reader, 1) if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise ReviewError(f"{path}: not a csv table (line {reader.line_num + skipped}: {error})") from None
    header = [name.strip() for name in rows[0][1]] if rows else []
    for name in needed:
        if header.count(name) != 1:
            there = ", ".join(filter(None, header)) or "none"
            what = "no column" if name not in header else f"{header.count(name)} columns"
            raise ReviewError(
                f"{path}: {what} {name!r} in the header; its columns are: {there}. Keep the header as it was written"
            )
    places = {name: header.index(name) for name in needed}
    return [
        (row, {name: cells[place] if place < len(cells) else "" for name, place in places.items()})
        for row, cells in rows[1:]
    ]
