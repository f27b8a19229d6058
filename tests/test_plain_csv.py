"""The quick reader of csv files sees what the careful one sees, or leaves the file to it."""

import csv
import io

import pandas as pd
import pytest

from ecmf_lib import tables
from ecmf_lib.plain_csv import quotes_are_plain, read_plain
from ecmf_lib.tables import CorpusError, read_csv

CELLS = (
    "",
    "a",
    " ",
    "b c",
    " d",
    "我没事",
    '"',
    'say "x"',
    "1,2",
    "two\nlines",
    "two\r\nlines",
    "é",
    "\x1c",
    "NA",
    "\0",
)


def careful(path, monkeypatch) -> pd.DataFrame | str:
    with monkeypatch.context() as changed:
        changed.setattr(tables, "_plain", lambda raw, path: None)
        return told(path)


def told(path) -> pd.DataFrame | str:
    """The table, or what it is refused for."""
    try:
        return read_csv(path)
    except CorpusError as error:
        return str(error)


def same(one, other) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return isinstance(one, str) and one == other
    return one.equals(other) and one.index.equals(other.index) and list(one.columns) == list(other.columns)


def test_the_quick_reader_is_used_for_what_programs_write(tmp_path):
    rows = [["id", "text"], ["a", 'He said "no", twice'], ["b", "two\nlines"], ["c", ""]]
    for newline in ("\n", "\r\n"):
        written = io.StringIO()
        csv.writer(written, lineterminator=newline).writerows(rows)
        for start in (b"", b"\xef\xbb\xbf"):
            found = read_plain(start + written.getvalue().encode(), ["id", "text"])
            assert found.to_pydict() == {"id": ["a", "b", "c"], "text": [row[1] for row in rows[1:]]}


def test_what_is_written_is_read_alike(tmp_path, rng, monkeypatch):
    path, quick = tmp_path / "x.csv", 0
    for _ in range(150):
        width = int(rng.integers(1, 4))
        cells = rng.choice(len(CELLS), (int(rng.integers(0, 6)), width))
        rows = [list("xyz"[:width]), *([CELLS[i] for i in row] for row in cells)]
        written = io.StringIO()
        quoting = csv.QUOTE_ALL if rng.random() < 0.5 else csv.QUOTE_MINIMAL
        csv.writer(written, lineterminator=str(rng.choice(["\n", "\r\n"])), quoting=quoting).writerows(rows)
        path.write_bytes(written.getvalue().encode())
        quick += read_plain(path.read_bytes(), rows[0]) is not None
        assert same(read_csv(path), careful(path, monkeypatch)), rows
    assert quick > 30


def test_any_text_is_read_or_refused_alike(tmp_path, rng, monkeypatch):
    path = tmp_path / "x.csv"
    marks = ['"', '""', ",", "\n", "\r\n", "\r", " ", "a", "b", "é", "\ufeff", "好", "\0"]
    for _ in range(600):
        text = "id,b\n" * (rng.random() < 0.7) + "".join(rng.choice(marks, int(rng.integers(0, 14))))
        path.write_bytes(text.encode("gb18030" if rng.random() < 0.1 else "utf-8"))
        assert same(told(path), careful(path, monkeypatch)), text


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("", True),
        ("a,b", True),
        ('"a","b"', True),
        ('a,"b ""c"" d"\n', True),
        ('"","""",""""""', True),
        ('"a"x,b', False),
        ('"a,"x",b"', False),
        ('a"b,c', False),
        ('a, "b"', False),
        ('"open', False),
        ('"a,b,"x', False),
    ],
)
def test_quotes_that_stand_where_they_should(text, plain):
    assert quotes_are_plain(text.encode()) == plain
    assert quotes_are_plain(b"\xef\xbb\xbf" + text.encode()) == plain


def test_a_cell_too_long_for_the_careful_reader_is_left_to_it(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("id\n" + "a" * csv.field_size_limit() + "\n", encoding="utf-8")
    assert read_plain(path.read_bytes(), ["id"]) is None
    assert len(read_csv(path)) == 1
    path.write_text("id\n" + "a" * (csv.field_size_limit() + 1) + "\n", encoding="utf-8")
    with pytest.raises(CorpusError, match="field larger"):
        read_csv(path)
