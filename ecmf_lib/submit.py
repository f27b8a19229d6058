"""The submission: ``name,discrete``, exactly the candidates, each once; written so, and any file checked for it."""

from __future__ import annotations

import csv
import difflib
import io
import os
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from ecmf_lib.bounded import read_lines
from ecmf_lib.config import EMOTIONS
from ecmf_lib.tables import SHOWN, CorpusError, read_csv

COLUMNS = ("name", "discrete")
#: Names compared with each other at most when a misspelt one is looked for: more would take minutes.
_COMPARED = 20_000
_ALL = 0  # the row of a problem that is of the file as a whole


class SubmissionError(CorpusError):
    """A candidate list or a submission that cannot be used; `problems` has every one, with row and name."""


def candidates(path: Path) -> list[str]:
    """Names that have to be predicted, in the order of the file.

    Parameters
    ----------
    path : Path
        A csv with a column ``name``, UTF-8 with or without BOM; other columns are not looked at.

    Raises
    ------
    SubmissionError
        Unreadable, no such column, no names, or names that are empty, doubled, with blanks around them or control
        characters in them: every one with its row.
    """
    path = Path(path)
    try:
        table = read_csv(path, encoding="utf-8-sig")
    except CorpusError as error:
        raise SubmissionError(str(error)) from None
    if "name" not in table.columns:
        there = ", ".join(map(shown, table.columns)) or "none"
        raise SubmissionError(f"{path}: no column 'name', its columns are {there}; expected a list of candidates")
    names = table["name"].tolist()
    rows = (table.index + 2).tolist()
    first: dict[str, int] = {}
    found = []
    for row, name in zip(rows, names, strict=True):
        found += [(row, name, problem) for problem in _bare(name, "name")]
        if name and name in first:
            found.append((row, name, f"stands in row {first[name]} already; remove one of the two"))
        first.setdefault(name, row)
    if not names:
        raise SubmissionError(f"{path}: no candidates; expected one name a row below the header")
    _refuse(f"candidates in {path}", _table(found))
    return names


def write_submission(
    path: Path,
    names: Sequence[str],
    labels: Sequence[str],
    *,
    candidates: Sequence[str] | None = None,
    classes: Sequence[str] = EMOTIONS,
) -> Path:
    """Write ``name,discrete``: exactly the candidates, each once, in their order. The file is whole or not there.

    Parameters
    ----------
    names, labels : sequence of str
        Predicted clips and their classes, in any order.
    candidates : sequence of str, optional
        Default: the names, in their order.
    classes : sequence of str

    Raises
    ------
    SubmissionError
        For names or labels that do not make a submission: all problems, with the row that each would have.
    """
    wanted = list(names if candidates is None else candidates)
    found = _row_problems(list(enumerate(zip(names, labels, strict=True), start=2)), wanted, classes)
    found += [(_ALL, name, "is a candidate twice") for name, count in Counter(wanted).items() if count > 1]
    _refuse(f"predictions for {path}", _table(found))
    label_of = dict(zip(names, labels, strict=True))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *((name, label_of[name]) for name in wanted)])
        os.chmod(temporary, 0o644)  # as other results; mkstemp makes it for one user
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def check_submission(path: Path, candidates: Sequence[str], classes: Sequence[str] = EMOTIONS) -> pd.DataFrame:
    """Every problem of a submission; none: an empty table.

    Parameters
    ----------
    path : Path
        Any file.
    candidates : sequence of str
    classes : sequence of str

    Returns
    -------
    DataFrame
        row (as a spreadsheet counts it, the header is row 1; 0: the file as a whole, or a candidate that has no row),
        name, problem; by row, missing candidates last.

    Raises
    ------
    SubmissionError
        If there is no file that can be read.
    """
    try:
        raw = read_lines(path)
    except OSError as error:
        raise SubmissionError(f"{path}: cannot be read ({error.strerror}); expected a csv with name,discrete") from None
    text, found = _decoded(raw)
    rows, broken = _split(text)
    found += broken
    if not rows:
        return _table(
            [*found, (_ALL, "", "the file is empty; expected the header name,discrete and a row a candidate")]
        )
    (_, header), *rows = rows
    places, odd = _columns(header)
    found += odd
    if set(places) != set(COLUMNS):
        return _table(found)  # without the two columns nothing can be said of rows
    pairs = []
    for row, cells in rows:
        name, label = (cells[places[c]] if places[c] < len(cells) else "" for c in COLUMNS)
        if len(cells) != len(header):
            found.append((row, name, f"has {len(cells)} cells, the header has {len(header)}"))
        pairs.append((row, (name, label)))
    return _table(found + _row_problems(pairs, candidates, classes, complete=not broken))


def shown(text: str) -> str:
    """A text as a terminal may show it: what is not printable is spelt out."""
    return text if text.isprintable() else repr(text)


def _decoded(raw: bytes) -> tuple[str, list[tuple[int, str, str]]]:
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16", "replace"), [(_ALL, "", "UTF-16 text; save it as UTF-8 (Excel: 'CSV UTF-8')")]
    try:
        return raw.decode("utf-8-sig"), []
    except UnicodeDecodeError:
        bad = [row for row, line in enumerate(raw.split(b"\n"), start=1) if _undecodable(line)]
        found = [(row, "", "not UTF-8 text; save the file as UTF-8 (Excel: 'CSV UTF-8')") for row in bad]
        return raw.decode("utf-8-sig", "replace"), found


def _undecodable(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False


def _split(text: str) -> tuple[list[tuple[int, list[str]]], list[tuple[int, str, str]]]:
    """Rows that are not blank lines; and where the csv breaks, if it does: nothing after that can be read."""
    rows, reader = [], csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row, cells in enumerate(reader, start=1):
            if cells:
                rows.append((row, cells))
    except csv.Error as error:
        row = rows[-1][0] + 1 if rows else 1
        problem = f"not a csv table from here on ({error}); close every quote. What follows was not looked at"
        return rows, [(row, "", problem)]
    return rows, []


def _columns(header: list[str]) -> tuple[dict[str, int], list[tuple[int, str, str]]]:
    """Where the two columns are, also those that are nearly called so; and what is wrong with the header."""
    places: dict[str, int] = {}
    found = []
    for place, name in enumerate(header):
        meant = name.strip().lower()
        if name in COLUMNS and name in places and header[places[name]] == name:
            found.append((1, "", f"column '{name}' stands twice in the header"))
        elif name in COLUMNS:
            places[name] = place
        elif meant in COLUMNS:
            found.append((1, "", f"column {name!r}: did you mean '{meant}'?"))
            places.setdefault(meant, place)
        else:
            near = difflib.get_close_matches(meant, [c for c in COLUMNS if c not in header], n=1)
            hint = f"; did you mean '{near[0]}'?" if near else "; expected name,discrete and nothing else"
            found.append((1, "", f"unknown column {name!r}{hint}"))
    separator = next((mark for mark in ";\t|" if len(header) == 1 and mark in header[0]), "")
    if separator:
        found.append((1, "", f"the separator is {separator!r}; save the file with commas"))
    found += [(1, "", f"no column '{name}'; expected name,discrete") for name in COLUMNS if name not in places]
    if set(places) == set(COLUMNS) and places["name"] > places["discrete"]:
        found.append((1, "", "the columns are in the wrong order; expected name,discrete"))
    return places, found


def _row_problems(
    rows: Iterable[tuple[int, tuple[str, str]]],
    candidates: Sequence[str],
    classes: Sequence[str],
    complete: bool = True,
) -> list[tuple[int, str, str]]:
    known, first, found, extra = set(candidates), {}, [], []
    said: dict[str, str] = {}  # label → what is wrong with it
    for row, (name, label) in rows:
        found += [(row, name, problem) for problem in _bare(name, "name")]
        plain = name.strip()
        if plain and plain in first:
            found.append((row, name, f"doubled: stands in row {first[plain]} already; remove one of the two"))
        elif plain and plain not in known:
            extra.append((row, name))
        first.setdefault(plain, row)
        if label not in said:
            said[label] = "; ".join(_bare(label, "discrete") or _label_problem(label, classes))
        if said[label]:
            found.append((row, name, said[label]))
    missing = [name for name in dict.fromkeys(candidates) if name not in first] if complete else []
    hints = _meant(extra, known, missing)
    found += [(row, name, f"not a candidate{hint}") for (row, name), hint in zip(extra, hints, strict=True)]
    return found + [(_ALL, name, "missing: this candidate has no row") for name in missing]


def _bare(text: str, column: str) -> list[str]:
    """What is wrong with a cell whatever it should say."""
    if not text.strip():
        return [f"{column}: the cell is empty"]
    found = [f"{column}: {text!r} has blanks around it; remove them"] if text != text.strip() else []
    odd = sorted({f"U+{ord(c):04X}" for c in text.strip() if unicodedata.category(c) in ("Cc", "Cf", "Cs")})
    if odd or "\ufffd" in text:
        which = ", ".join(odd) or "U+FFFD"
        found.append(f"{column}: {text!r} holds a character that no name has ({which})")
    return found


def _label_problem(label: str, classes: Sequence[str]) -> list[str]:
    if label in classes:
        return []
    near = difflib.get_close_matches(label.strip().lower(), classes, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"labels are {', '.join(classes)}"
    return [f"discrete: unknown label {label!r}; {hint}"]


def _meant(extra: list[tuple[int, str]], known: set[str], missing: list[str]) -> list[str]:
    """For each name that is no candidate, the one that may have been meant, as the end of a sentence."""
    lower = {name.lower(): name for name in known} if extra else {}
    close = len(extra) * len(missing) <= _COMPARED
    hints = []
    for _, name in extra:
        plain = name.strip()
        stem = plain.rpartition(".")[0]
        near = lower.get(plain.lower()) or lower.get(stem.lower()) or ""
        if not near and close:
            near = next(iter(difflib.get_close_matches(plain, missing, n=1, cutoff=0.75)), "")
        hints.append(f"; did you mean {near!r}?" if near else "; remove the row")
    return hints


def _table(found: list[tuple[int, str, str]]) -> pd.DataFrame:
    table = pd.DataFrame(found, columns=["row", "name", "problem"]).astype({"row": int})
    late = (table["row"] == _ALL) & (table["name"] != "")
    return table.assign(late=late).sort_values(["late", "row"], kind="stable", ignore_index=True).drop(columns="late")


def _refuse(what: str, problems: pd.DataFrame) -> None:
    if len(problems):
        lines = [
            (f"row {p.row}, " if p.row else "") + f"{shown(p.name)!s}: {p.problem}"
            for p in problems.head(SHOWN).itertuples(index=False)
        ]
        more = [f"… and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        message = f"{what}: {len(problems)} problem(s)\n  " + "\n  ".join(lines + more)
        raise SubmissionError(message, problems)
