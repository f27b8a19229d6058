"""Texts of a whole column that may be blank or wrongly decoded, found in one pass; few remain to be looked at.

:func:`ecmf_lib.tables.wrongly_encoded` tries what a text says in another encoding, a few microseconds for each: seconds
for a million transcripts. Most cannot be wrong, and a search for one of a few patterns shows it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc


def doubtful(texts: pd.Series) -> np.ndarray:
    """Which texts have to be looked at one by one: bool [n].

    Of all others it is certain that they are empty or hold more than blanks, and that
    :func:`ecmf_lib.tables.wrongly_encoded` has nothing to say of them.
    """
    return matches(texts, _wrong()) | ~(visible(text_array(texts)) | (texts == "").to_numpy())


def matches(texts: pd.Series, pattern: str) -> np.ndarray:
    """Where a pattern (RE2, ASCII classes) is found: bool [n]."""
    return np.asarray(pc.match_substring_regex(text_array(texts), pattern))


def text_array(texts: pd.Series) -> pa.Array:
    """A column of str as one Arrow array."""
    column = pa.array(texts, pa.large_string(), from_pandas=True)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def visible(texts: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Which texts hold a character that is certainly no blank: bool [n]. Some of the others do, too."""
    return np.asarray(pc.match_substring_regex(texts, _VISIBLE))


#: A character that is certainly no blank.
_VISIBLE = r"[!-~\x{a1}-\x{167f}\x{3001}-\x{d7ff}]"
_CONTROL = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\x{fffd}"


@cache
def _wrong() -> str:
    """What a text has if it cannot have been decoded rightly, and some good ones have as well.

    Control characters; what cp1252 makes of a first and a second byte of UTF-8; and, where a text of GBK would be UTF-8
    when written as GBK, its first character beyond ASCII: its bytes are a first and a second byte of UTF-8, and where
    that calls for a third and fourth, the next character begins with them.
    """
    tails = "".join(bytes([byte]).decode("cp1252", "ignore") for byte in range(0x80, 0xC0))
    heads = "".join(map(chr, range(0xC2, 0xF5)))
    pairs = [(char, *char.encode("gb18030")) for char in map(chr, (*range(0x80, 0xD800), *range(0xE000, 0x10000)))]
    pairs = [pair for pair in pairs if len(pair) == 3]  # what GBK writes as four bytes is never UTF-8

    def begins(heads: range, tail: bool = True) -> str:
        return _class(ord(char) for char, one, two in pairs if one in heads and (not tail or two in _TAIL))

    three = begins(range(0xE0, 0xF0)) + begins(_TAIL, tail=False)
    four = begins(range(0xF0, 0xF5)) + begins(_TAIL)
    return f"[{_CONTROL}]|[{heads}][{tails}]|^[\\x00-\\x7f]*(?:{begins(range(0xC2, 0xE0))}|{three}|{four})"


_TAIL = range(0x80, 0xC0)  # of UTF-8: every byte but the first


def _class(codes: Iterable[int]) -> str:
    """A class of characters as a pattern writes it; codes ascending."""
    runs: list[list[int]] = []
    for code in codes:
        if runs and code == runs[-1][1] + 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    return "[" + "".join(f"\\x{{{first:x}}}-\\x{{{last:x}}}" for first, last in runs) + "]"
