"""Csv files of text as people have them: their encodings, their rows, and what shows that an encoding was wrong."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from ecmf_lib.bounded import read_lines
from ecmf_lib.plain_csv import read_plain
from ecmf_lib.text_check import visible

#: How many problems a message spells out; all of them are in ``CorpusError.problems``.
SHOWN = 30
_LETTERS = 400  # of a problem that a message spells out
_MOST_COLUMNS = 2000  # a wider table holds features, and each name would be compared with ours
_AT_ONCE = 20_000  # rows that are Python lists at a time
PROBLEM_COLUMNS = ("file", "row", "id", "column", "problem")


class CorpusError(ValueError):
    """A manifest or csv that cannot be used.

    Attributes
    ----------
    problems : DataFrame
        All of them, with columns ``file`` (name in the corpus folder, "" where there is only one), ``row`` (line of
        that file as a spreadsheet counts it, the header is row 1), ``id``, ``column``, ``problem``. Empty when the
        file could not be read at all.
    """

    def __init__(self, message: str, problems: pd.DataFrame | None = None):
        super().__init__(message)
        self.problems = pd.DataFrame(columns=list(PROBLEM_COLUMNS)) if problems is None else problems


def read_csv(path: Path, *, encoding: str | None = None) -> pd.DataFrame:
    """Read a csv of text: every cell a str, "NA" stays "NA", empty and absent cells are "".

    Parameters
    ----------
    encoding : str, optional
        Default: UTF-8 (with or without BOM); if the bytes are not UTF-8, GBK (as GB18030) or cp1252, whichever fits.

    Returns
    -------
    DataFrame
        Row of the file = index + 2, also after blank lines, which are skipped. Columns without a name are dropped.

    Raises
    ------
    CorpusError
        Unreadable, empty, in none of these encodings, two columns of one name, other separators than commas, or rows
        with more cells than the header.
    """
    path = Path(path)
    raw = _bytes_of(path)
    table = _plain(raw, path) if encoding in (None, "utf-8-sig") else None
    table = _row_by_row(raw, path, encoding) if table is None else table
    return table.loc[:, [name != "" for name in table.columns]]


def _plain(raw: bytes, path: Path) -> pd.DataFrame | None:
    """The quick way for a csv as programs write them; None for any other."""
    try:
        start = io.TextIOWrapper(io.BytesIO(raw), "utf-8-sig", newline="")
        header = next(csv.reader(start, skipinitialspace=True, strict=True), [])
    except (csv.Error, UnicodeError):
        return None
    if not header or not all(name.strip() for name in header):
        return None
    names = _checked_header(header, path)
    found = read_plain(raw, names)
    if found is None:
        return None
    blank = _blank_rows(found)
    table = found.to_pandas().astype(str)
    table = table.drop(index=blank) if len(blank) else table
    table.index = pd.Index(table.index, dtype=int)
    return table


def _blank_rows(table: pa.Table) -> list[int]:
    rows = np.arange(table.num_rows)
    for column in table.columns:
        if len(rows):
            rows = rows[~visible(column.take(pa.array(rows)) if len(rows) < len(column) else column)]
    return [row for row in rows.tolist() if not any(column[row].as_py().strip() for column in table.columns)]


def _row_by_row(raw: bytes, path: Path, encoding: str | None) -> pd.DataFrame:
    rows = _rows(decode_text(raw, path, encoding), path)
    _, header = next(rows, (0, None))
    if header is None:
        raise CorpusError(f"{path}: the file is empty; expected a csv with a header line")
    names = _checked_header(header, path)
    width = len(names)
    too_long, parts = [], []
    while part := list(itertools.islice(rows, _AT_ONCE)):
        too_long += [row for row, cells in part if any(map(str.strip, cells[width:]))]
        cells = [c if len(c) == width else (c + [""] * (width - len(c)))[:width] for _, c in part]
        index = pd.Index([row - 2 for row, _ in part], dtype=int)
        parts.append(pd.DataFrame(dict(enumerate(zip(*cells, strict=True))), index=index, dtype=str))
    if too_long:
        raise CorpusError(
            f"{path}: {len(too_long)} row(s) have more cells than the {width} columns of the header: "
            f"{shown_rows(too_long)}; put a cell that holds a comma in double quotes"
        )
    none = pd.DataFrame(columns=range(width), index=pd.Index([], dtype=int), dtype=str)
    return (pd.concat(parts) if parts else none).set_axis(names, axis=1)


def read_rows(path: Path, *, encoding: str | None = None) -> list[tuple[int, list[str]]]:
    """(Row as a spreadsheet counts it, cells) of each row of a csv that is not blank; a header is a row like others.

    Raises
    ------
    CorpusError
        Unreadable, no text in the encodings of :func:`read_csv`, or a quote that is not closed.
    """
    return list(_rows(decode_text(_bytes_of(path), path, encoding), path))


def _bytes_of(path: Path) -> bytes:
    try:
        return read_lines(path)
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror}); expected a csv file") from None


def shown_rows(rows: list[int]) -> str:
    """``"row 3, 7, 9, …"``: the first few."""
    return f"row {', '.join(str(row) for row in rows[:10])}" + (", …" if len(rows) > 10 else "")


def _rows(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    try:
        yield from ((row, cells) for row, cells in enumerate(reader, start=1) if any(map(str.strip, cells)))
    except csv.Error as error:
        raise CorpusError(
            f"{path}: not a csv table (line {reader.line_num}: {error}); close every quote, and double those in a cell"
        ) from None


def _checked_header(header: list[str], path: Path) -> list[str]:
    if len(header) > _MOST_COLUMNS:
        raise CorpusError(
            f"{path}: {len(header):,} columns, more than {_MOST_COLUMNS:,}; expected a table of clips (features: npz)"
        )
    names = [name.strip() for name in header]
    while names and names[-1] == "":  # what a comma at the end of the line adds
        names.pop()
    if len(names) == 1 and (separator := re.search("[;\t|]", names[0])):
        raise CorpusError(
            f"{path}: there is one column, {shortened(names[0])!r}, and no such column as 'id': the separator is "
            f"{separator.group()!r}; save the file with commas"
        )
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        listed = shortened(str(twice))
        raise CorpusError(f"{path}: column name(s) {listed} stand more than once in the header; rename or remove one")
    return names


def decode_text(raw: bytes, path: Path, encoding: str | None = None) -> str:
    """Bytes of a text file → str; see :func:`read_csv`."""
    if not encoding and raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise CorpusError(f"{path}: UTF-16 text; save it as UTF-8 (Excel: 'CSV UTF-8')")
    tried = [encoding] if encoding else ["utf-8-sig", _guess_legacy(raw)]
    for name in tried:
        try:
            return raw.decode(name)
        except UnicodeError:
            continue
        except (LookupError, ValueError):
            raise CorpusError(f"{path}: Python knows no text encoding '{name}'") from None
    raise CorpusError(f"{path}: neither {' nor '.join(tried)} text; save it as UTF-8 or name its encoding")


def _guess_legacy(raw: bytes) -> str:
    """``"gb18030"`` (holds GBK) or ``"cp1252"`` for bytes that are not UTF-8.

    Both are tried on the lines that are not ASCII, and the one whose result looks more like writing is taken. A file
    that is mostly valid UTF-8 with a few bad bytes is neither: it stays UTF-8, and fails.
    """
    marked = raw.decode("utf-8", "surrogateescape")
    bad = len(re.findall("[\udc80-\udcff]", marked))
    if len(marked) - _ascii_count(marked) > 2 * bad:
        return "utf-8"
    sample = b"\n".join([line for line in raw.splitlines() if not line.isascii()][:5000])
    chinese = _chinese_share(sample.decode("gb18030", "replace"))
    return "gb18030" if chinese > _latin_share(sample.decode("cp1252", "replace")) else "cp1252"


def _chinese_share(text: str) -> float:
    """How much of the non-ASCII text is Chinese, 0 to 1; frequent characters count more than rare ones.

    cp1252 read as GBK gives byte pairs that GBK does not have, or single rare characters that swallowed a letter of a
    Latin word: "I’m" → "I抦", "ação" → "a玢o".
    """
    counts = Counter(c for c in text if ord(c) > 127)
    total = sum(counts.values())
    if counts["\ufffd"] > 0.1 * total:
        return 0.0
    swallowed = re.findall("(?<=[A-Za-z])[^\x00-\x7f](?=[A-Za-z])", text)
    counts.subtract(swallowed)
    return sum(_familiar(c) * count for c, count in counts.items()) / max(total, 1)


def _familiar(character: str) -> float:
    """1 for the 6,500 frequent characters (first levels of GB 2312 and of Big5) and punctuation, less for others."""
    simplified, traditional = (_first_byte(character, name) for name in ("gb2312", "big5"))
    if 0xA1 <= simplified <= 0xA3 or 0xB0 <= simplified <= 0xD7 or 0xA4 <= traditional <= 0xC6:
        return 1.0
    if simplified or traditional:
        return 0.5
    return 0.25 if "\u4e00" <= character <= "\u9fff" else 0.0


def _first_byte(character: str, encoding: str) -> int:
    try:
        return character.encode(encoding)[0]
    except UnicodeEncodeError:
        return 0


def _latin_share(text: str) -> float:
    """How much of the non-ASCII text is accents in Latin words, or punctuation beside ASCII, 0 to 1."""
    words = re.findall(r"[^\W\d_]+", text)
    accents = sum(
        sum(ord(c) > 127 for c in word)
        for word in words
        if re.search("[A-Za-z]", word) and (word.islower() or word.isupper() or word.istitle())
    )
    marks = re.findall("(?<=[\x00-\x7f])[‘’‚“”„–—…€£«»¿¡°]|^[“„«‘¿¡]|[‘’‚“”„–—…€£«»¿¡°](?=[\x00-\x7f])", text)
    return (accents + len(marks)) / max(sum(ord(c) > 127 for c in text), 1)


#: No text has these.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
#: What cp1252 makes of a second or third byte of UTF-8, as the inside of a character class.
_TAIL = "\u00a0-\u00bf" + "".join(bytes([b]).decode("cp1252", "ignore") for b in range(0x80, 0xA0))
#: UTF-8 read as cp1252 leaves these: "Ã©" for é, "â€™" for ’, "ï¼Œ" for a Chinese comma, two groups in a row for 你好.
_MOJIBAKE = re.compile(
    f"[ÃÂ][\u00a0-\u00bf]|â€[{_TAIL}]|ï»¿|ï¼[{_TAIL}]|ã€[{_TAIL}]|(?:[ä-é][{_TAIL}]{{2}}|[ä-é][{_TAIL}] ){{2}}"
)
#: The closing marks that may stand after an accent in real text: they are no tails of a character.
_CLOSING = re.compile("(?<=[A-Za-zÀ-ÿ])[…»”’›‘“]+")


def wrongly_encoded(text: str) -> str:
    """Why a text cannot have been decoded with the right encoding; empty if nothing points to that.

    What was UTF-8 and read as something else becomes UTF-8 again when it is written as that: the round trip finds it.
    Bytes of real Chinese, French or German are not UTF-8, but for a word or two of two-byte characters.
    """
    reason = ""
    if "\ufffd" in text:
        reason = "it holds the replacement character U+FFFD"
    elif pair := _MOJIBAKE.search(text):
        reason = f"{pair.group()!r} is UTF-8 that was read as cp1252"
    elif odd := _CONTROL.search(text):
        reason = f"it holds the control character U+{ord(odd.group()):04X}"
    elif not text.isascii():
        reason = _round_trip(text)
    return f"wrongly encoded text: {reason}; save the file again as UTF-8" if reason else ""


def _round_trip(text: str) -> str:
    meant = _again(_CLOSING.sub(" ", text), "cp1252")
    # a two-byte character alone may be chance ("É…"); one of three bytes, or three characters in a row, is not
    if re.search("[\u0800-\U0010ffff]|[^\x00-\x7f]{3}", meant):
        return f"it is UTF-8 that was read as cp1252, and says {meant[:20]!r}"
    meant = _again(text, "gb18030")
    # two or three rare characters may be UTF-8 by chance, but then they say nothing, or gave a letter away ("I’m" does
    # that too: its apostrophe begins with 鈥)
    foreign = [c for c in meant if c >= "\u0800"]
    if foreign and (_ascii_count(meant) == _ascii_count(text) or "鈥" in text):
        if sum(map(_familiar, foreign)) >= 0.8 * (len(meant) - _ascii_count(meant)):
            return f"it is UTF-8 that was read as GBK, and says {meant[:20]!r}"
    return ""


def _again(text: str, encoding: str) -> str:
    """What the bytes of a text say as UTF-8; "" if they say nothing."""
    try:
        return text.encode(encoding).decode("utf-8")
    except UnicodeError:
        return ""


def _ascii_count(text: str) -> int:
    return len(text.encode("ascii", "ignore"))


def problem_table(found: Iterable[tuple[str, int, str, str, str]]) -> pd.DataFrame:
    """Problems as a table, in the order of the files and their rows."""
    table = pd.DataFrame(list(found), columns=list(PROBLEM_COLUMNS))
    return table.sort_values(["file", "row", "column"], kind="stable", ignore_index=True)


def shortened(text: str) -> str:
    """A text from a file as a message holds it: not longer than anybody reads."""
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS // 2]} … {text[-_LETTERS // 2 :]}"


def refusal(what: str, problems: pd.DataFrame) -> CorpusError:
    """One message for all problems of a manifest."""
    lines = [
        f"{p.file} row {p.row}, {shortened(p.column)} (clip '{shortened(p.id)}'): {shortened(p.problem)}".lstrip()
        for p in problems.head(SHOWN).itertuples()
    ]
    more = [f"… and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return CorpusError(f"{what}: {len(problems)} problem(s)\n  " + "\n  ".join(lines + more), problems)
