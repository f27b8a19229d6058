"""The nine csv files of CMU-MOSI's published features, read and held against each other. None has a header.

- ``text_train0.csv``, ``audio_train0.csv``, ``video_train0.csv``, and the same with ``test0``: one row an utterance,
  its features, last the label (0 negative, 1 positive). They name no utterance.
- ``text_train.csv``, ``text_test.csv``: the same rows again, first the number of the utterance's row in
  ``transcripts.csv`` (from 0), then the text features.
- ``transcripts.csv``: ``<video>_<number>``, the words in capitals, a number of the video, the label.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ecmf_lib.corpus import PARTS
from ecmf_lib.tables import CorpusError, problem_table, read_rows, refusal

STREAMS = ("text", "audio", "video")
TRANSCRIPTS = "transcripts.csv"
FEATURE_FILES = tuple(f"{stream}_{part}0.csv" for part in PARTS for stream in STREAMS)
NUMBER_FILES = tuple(f"text_{part}.csv" for part in PARTS)
_NAME = re.compile(r"(?P<video>.+)_\d+")
_TOLERANCE = 1e-6  # between the two copies of the text features, which were printed with other digits

_Problem = tuple[str, int, str, str, str]  # as in CorpusError.problems


@dataclass(frozen=True, eq=False)
class MosiFiles:
    """What the files say, known to fit together.

    Attributes
    ----------
    words : DataFrame
        ``id, transcript, number, code, row, video`` of every utterance in ``transcripts.csv``; `row` from 1.
    used : dict of int to (str, int)
        Index in `words` → part and place in its files.
    values : dict of (str, str) to float64 [n, dim]
        (stream, part) → features. NaN and infinity are as in the file.
    """

    words: pd.DataFrame
    used: dict[int, tuple[str, int]]
    values: dict[tuple[str, str], np.ndarray]


@dataclass(frozen=True)
class _Table:
    """One file of features: `rows` are those of the file, from 1; `codes` the labels or the utterances' numbers."""

    name: str
    rows: list[int]
    codes: list[str]
    values: np.ndarray  # float64 [n, dim]

    def problem(self, place: int, column: str, said: str, id: str = "") -> _Problem:
        return self.name, self.rows[place], id, column, said


def belongs_to_mosi(names: Iterable[str]) -> bool:
    """Whether files of these names are CMU-MOSI's, complete or not."""
    names = set(names)
    return bool(names & set(FEATURE_FILES)) or (TRANSCRIPTS in names and bool(names & set(NUMBER_FILES)))


def read_mosi(folder: Path) -> MosiFiles:
    """Read all files and refuse what does not fit.

    Raises
    ------
    CorpusError
        For a folder that lacks a file, a file with odd rows, or with every row that does not fit the others.
    """
    absent = [name for name in (*FEATURE_FILES, *NUMBER_FILES, TRANSCRIPTS) if not (folder / name).is_file()]
    if absent:
        raise CorpusError(
            f"{folder}: CMU-MOSI without {', '.join(absent)}; copy all nine csv files of the published features into "
            "this folder (for an npz with id, label and streams, name the npz file itself)"
        )
    words, found = _transcripts(folder / TRANSCRIPTS)
    tables = {name: _read(folder / name, found, code_last=True) for name in FEATURE_FILES}
    numbers = {name: _read(folder / name, found, code_last=False) for name in NUMBER_FILES}
    _refuse(folder, found)
    used: dict[int, tuple[str, int]] = {}
    for part in PARTS:
        of_part = {stream: tables[f"{stream}_{part}0.csv"] for stream in STREAMS}
        found += _part_problems(part, numbers[f"text_{part}.csv"], of_part, words, used)
    for stream in STREAMS:
        copies = numbers.values() if stream == "text" else ()
        found += _width_problems(*(tables[f"{stream}_{part}0.csv"] for part in PARTS), *copies)
    found += _video_problems(words, used)
    _refuse(folder, found)
    values = {(stream, part): tables[f"{stream}_{part}0.csv"].values for stream in STREAMS for part in PARTS}
    return MosiFiles(words, used, values)


def _transcripts(path: Path) -> tuple[pd.DataFrame, list[_Problem]]:
    """``id, transcript, number, code, video, row`` of every utterance."""
    lines = _lines(path, width=4)
    table = pd.DataFrame([cells for _, cells in lines], columns=["id", "transcript", "number", "code"], dtype=str)
    table["row"] = [row for row, _ in lines]
    table["video"] = [name["video"] if (name := _NAME.fullmatch(id)) else "" for id in table["id"]]
    numbers = table.groupby("video")["number"].first()
    twice = table["id"].duplicated()
    found = []
    for line, again in zip(table.itertuples(), twice, strict=True):
        problems = {
            "id": f"'{line.id}' stands here again; ids are unique" if again else "",
            "video": "" if line.video else f"'{line.id}' is not <video>_<number>; mend the first cell",
            "number": f"video '{line.video}' is number {line.number} here and {numbers[line.video]} above; mend one"
            if line.number != numbers[line.video]
            else "",
            "label": "" if line.code in ("0", "1") else f"label '{line.code}'; expected 0 or 1 in the last cell",
        }
        found += [(path.name, line.row, line.id, column, said) for column, said in problems.items() if said]
    return table, found


def _read(path: Path, found: list[_Problem], *, code_last: bool) -> _Table:
    """One file of features. NaN and infinity stay; a cell that is no number is NaN, and a problem."""
    lines = _lines(path)
    features = slice(0, -1) if code_last else slice(1, None)
    numbers = [[_float(text) for text in cells[features]] for _, cells in lines]
    for (row, cells), given in zip(lines, numbers, strict=True):
        bad = [cell for cell, value in zip(cells[features], given, strict=True) if value is None]
        found += [(path.name, row, "", "features", f"'{cell}' is no number; mend the cell") for cell in bad]
    codes = [cells[-1 if code_last else 0].strip() for _, cells in lines]
    return _Table(path.name, [row for row, _ in lines], codes, np.array(numbers, dtype=float))


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _lines(path: Path, width: int | None = None) -> list[tuple[int, list[str]]]:
    """Rows of a file whose rows are all equally long."""
    lines = read_rows(path)
    if not lines:
        raise CorpusError(f"{path}: the file is empty; expected one row an utterance, without a header")
    width = width or max(len(lines[0][1]), 2)
    odd = [(row, len(cells)) for row, cells in lines if len(cells) != width]
    if odd:
        raise CorpusError(
            f"{path}: {len(odd)} row(s) have not {width} cells, the first is row {odd[0][0]} with {odd[0][1]}; "
            "expected equally long rows without a header: copy the file again"
        )
    return lines


def _part_problems(
    part: str, numbered: _Table, of_part: dict[str, _Table], words: pd.DataFrame, used: dict[int, tuple[str, int]]
) -> list[_Problem]:
    """Whether the files of one part speak of the same utterances in the same order; fills `used`."""
    short = [table for table in of_part.values() if len(table.rows) != len(numbered.rows)]
    if short:
        said = f"of them; {numbered.name} has {len(numbered.rows)}, one for each utterance: copy both files again"
        return [table.problem(-1, "rows", f"{len(table.rows)} {said}") for table in short]
    found: list[_Problem] = []
    for place, text in enumerate(numbered.codes):
        number = int(text) if text.isascii() and text.isdecimal() else -1
        if not 0 <= number < len(words):
            said = f"'{text}' is not the number of a row of {TRANSCRIPTS}, 0 to {len(words) - 1}"
            found.append(numbered.problem(place, "cell 1", said))
            continue
        line = words.loc[number]
        if number in used:
            said = f"utterance number {number} is in part '{used[number][0]}' already; expected each once"
            found.append(numbered.problem(place, "cell 1", said, line["id"]))
            continue
        used[number] = (part, place)
        for table in of_part.values():
            if table.codes[place] != line["code"]:
                other = f"'{line['code']}' in {TRANSCRIPTS} row {line['row']}"
                found.append(
                    table.problem(place, "label", f"'{table.codes[place]}', but {other}; mend one", line["id"])
                )
    if numbered.values.shape[1] == of_part["text"].values.shape[1]:
        found += _copy_problems(numbered, of_part["text"])
    return found


def _copy_problems(numbered: _Table, text: _Table) -> list[_Problem]:
    """The two files of text features hold the same numbers; else the utterances' numbers belong to other rows."""
    same = np.isclose(numbered.values, text.values, rtol=0, atol=_TOLERANCE, equal_nan=True).all(axis=1)
    return [
        numbered.problem(i, "features", f"not those of {text.name} row {text.rows[i]}; copy both files again")
        for i in np.flatnonzero(~same)
    ]


def _width_problems(first: _Table, *others: _Table) -> list[_Problem]:
    dim = first.values.shape[1]
    return [
        table.problem(0, "features", f"{table.values.shape[1]} of them, {first.name} has {dim}; copy both files again")
        for table in others
        if table.values.shape[1] != dim
    ]


def _video_problems(words: pd.DataFrame, used: dict[int, tuple[str, int]]) -> list[_Problem]:
    """A video on both sides would let a model know a tested speaker."""
    part = pd.Series({number: part for number, (part, _) in used.items()}, dtype=str)
    videos = words["video"].loc[part.index]
    both = part.index[videos.map(part.groupby(videos).nunique()) > 1]
    said = "its video has utterances in both parts; expected each video in one"
    return [(TRANSCRIPTS, int(words["row"][number]), words["id"][number], "part", said) for number in both]


def _refuse(folder: Path, found: list[_Problem]) -> None:
    if found:
        raise refusal(f"CMU-MOSI in {folder}", problem_table(found))
