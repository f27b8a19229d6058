"""Csv files as programs write them, read by Arrow: a million rows in a second, in the memory of their text.

Arrow forgives what :func:`ecmf_lib.tables.read_csv` refuses (text after a closing quote, say) and keeps blanks that it
skips. So Arrow reads a file only if nothing in it could be seen differently: UTF-8, every quote at the edge of its cell
or doubled, each row as wide as the header, no cell that begins with a blank. For all else the answer is None, and
Python's own csv module reads it, row by row.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

_BLOCK = 2**24  # bytes that are parsed at a time; no row is longer in a plain file


def read_plain(raw: bytes, names: Sequence[str]) -> pa.Table | None:
    """Rows below the header as text, or None if the file is not plain.

    Parameters
    ----------
    raw : bytes
        The whole file.
    names : sequence of str
        Of the columns, from its header: at least one, none empty, none twice.

    Returns
    -------
    Table or None
        All columns string, no nulls; blank rows are still there, so that a row's place is its place in the file.
    """
    if not quotes_are_plain(raw):
        return None
    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(raw),
            read_options=arrow_csv.ReadOptions(column_names=list(names), skip_rows_after_names=1, block_size=_BLOCK),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=b'"' in raw, ignore_empty_lines=False),
            convert_options=arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    except pa.ArrowException:  # another width, no UTF-8, …: Python's csv module says what and where
        return None
    return None if any(map(_differs, table.columns)) else table


def quotes_are_plain(raw: bytes) -> bool:
    """Whether every quote opens or closes a cell, or is one of two that stand for one.

    Quotes are counted through: those that open have an even number before them, those that close an odd one. If each
    that opens follows a separator, a line's end or a quote, and each that closes stands before one, then none is
    inside a cell without quotes, and nothing follows a closing quote.
    """
    text = np.frombuffer(raw, np.uint8)
    at = np.concatenate([start + np.flatnonzero(text[start : start + _BLOCK] == ord('"')) for start in _starts(raw)])
    if len(at) % 2:
        return False
    opens, closes = at[::2], at[1::2]
    start = 3 if raw.startswith(b"\xef\xbb\xbf") else 0
    edge = np.zeros(256, bool)
    edge[list(b',\r\n"')] = True
    before = edge[text[np.maximum(opens - 1, 0)]] | (opens == start)
    after = edge[text[np.minimum(closes + 1, len(text) - 1)]] | (closes == len(text) - 1)
    return bool(before.all() and after.all())


def _starts(raw: bytes) -> range:
    return range(0, max(len(raw), 1), _BLOCK)


def _differs(column: pa.ChunkedArray) -> bool:
    """Whether Python's reader would see a cell otherwise: it skips leading blanks, and refuses a very long cell."""
    if not len(column):
        return False
    longest = pc.max(pc.binary_length(column)).as_py()
    return longest >= csv.field_size_limit() or pc.any(pc.starts_with(column, " ")).as_py()
