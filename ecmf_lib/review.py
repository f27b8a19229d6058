"""The human who has the last word: a csv to decide in, read back, and applied to the audit table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from ecmf_lib.audit_table import checked, each_clip, surprise
from ecmf_lib.review_csv import ReviewError, guarded, read_cells, unguarded, write_cells
from ecmf_lib.tables import problem_table, refusal

#: Columns of the csv.
REVIEW = ("id", "transcript", "given", "refined", "action", "confidence", "why", "decision", "note")
_WORDS = ("keep", "drop")  # decisions that are not classes


def write_review(
    audit: pd.DataFrame,
    path: Path | str,
    *,
    transcripts: Mapping[str, str] | pd.Series | Sequence[str] | None = None,
    only_changed: bool = True,
) -> Path:
    """Write a csv in which a human decides, the most surprising clips first; see :func:`read_review`.

    Decisions and notes that the file holds already are kept: whoever writes it again loses nobody's work.

    Parameters
    ----------
    audit : DataFrame
    path : Path
    transcripts : mapping of str to str, or sequence of str, optional
        By clip id, or in the order of `audit`.
    only_changed : bool
        Leave out clips whose label was simply kept, unless somebody has decided on them.

    Returns
    -------
    Path

    Raises
    ------
    ReviewError
        If `audit` is no audit table, or the file that is there is no review or decides on clips that `audit` lacks.
    """
    checked(audit)
    path = Path(path)
    decided = _decided(path, audit)
    words = dict(zip(audit["id"], each_clip(transcripts, audit["id"], ""), strict=True))
    wanted = (audit["action"] != "keep") | (audit["refined"] != audit["given"]) | audit["id"].isin(decided)
    table = audit[wanted] if only_changed else audit
    rows = []
    for clip in table.loc[surprise(table).sort_values(ascending=False, kind="stable").index].itertuples():
        said = [words[clip.id] or "", clip.given, clip.refined, clip.action, f"{clip.confidence:.3f}", clip.why]
        rows.append([guarded(clip.id, name=True), *map(guarded, said), *decided.get(clip.id, ("", ""))])
    write_cells(path, REVIEW, rows)
    return path


def _decided(path: Path, audit: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Id → decision and note as they stand in a file that is there, of the rows that have either."""
    if not path.exists():
        return {}
    known = set(audit["id"])
    found = {
        _id(cells["id"], known): (guarded(unguarded(cells["decision"])), guarded(unguarded(cells["note"])))
        for _, cells in read_cells(path, ("id", "decision", "note"))
        if cells["decision"].strip() or cells["note"].strip()
    }
    lost = [clip for clip in found if clip not in known]
    if lost:
        raise ReviewError(
            f"{path}: it holds decisions or notes on {len(lost)} clip(s) that this audit does not have, for example "
            f"{lost[0]!r}, which would be lost; write to another file, or move this one away"
        )
    return found


def read_review(path: Path | str, audit: pd.DataFrame | Iterable[str], classes: Sequence[str]) -> pd.DataFrame:
    """Read the decisions of a human: a class, "keep" (the given label), "drop" (not for training), or nothing.

    Parameters
    ----------
    path : Path
        As :func:`write_review` wrote it and a spreadsheet program saved it: with commas, semicolons or tabs, in UTF-8
        or what the machine uses. Columns id, decision and note are read.
    audit : DataFrame or iterable of str
        The audit table, or the ids that may come up.
    classes : sequence of str

    Returns
    -------
    DataFrame
        id, decision, note; a row for each clip with a decision. Notes without one are read by nobody but humans.

    Raises
    ------
    ReviewError
        Naming every row that cannot be used: unknown or doubled ids, decisions that are none or in the wrong case,
        "keep" where no label was given; or columns that lack.
    """
    path = Path(path)
    given = dict(zip(audit["id"], audit["given"], strict=True)) if isinstance(audit, pd.DataFrame) else None
    known = set(given if given is not None else audit)
    rows = [
        (row, _id(cells["id"], known), unguarded(cells["decision"]).strip(), unguarded(cells["note"]).strip())
        for row, cells in read_cells(path, ("id", "decision", "note"))
    ]
    _refuse(path.name, _problems(rows, known, given, classes), f"decisions in {path}")
    return pd.DataFrame([row[1:] for row in rows if row[2]], columns=["id", "decision", "note"], dtype=str)


def apply_review(
    audit: pd.DataFrame,
    decisions: pd.DataFrame,
    classes: Sequence[str],
    *,
    families: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """A new audit table in which the human's decisions have won, and say so.

    A clip that is decided on has the action "human", the confidence 1, the weight 1 and the label alone as its soft
    label; one that is dropped keeps its refined label, with weight 0.

    Parameters
    ----------
    audit : DataFrame
    decisions : DataFrame
        id, decision, note; see :func:`read_review`. Rows with the decision "" change nothing.
    classes : sequence of str
    families : mapping of str to str, optional
        Source → family, to count those that agree on a new label. Without it they are 1 where any source agrees.

    Raises
    ------
    ReviewError
        As :func:`read_review`; rows are counted from 1 here.
    """
    checked(audit)
    for column in ("id", "decision", "note"):
        if column not in decisions:
            raise ReviewError(f"the decisions have no column {column!r}; they need id, decision and note")
    lacking = [f"soft_{name}" for name in classes if f"soft_{name}" not in audit]
    if lacking:
        raise ReviewError(f"the audit table has no column {', '.join(lacking)}; are the classes those it was made for?")
    given = dict(zip(audit["id"], audit["given"], strict=True))
    rows = [(k, str(d.id), str(d.decision), str(d.note)) for k, d in enumerate(decisions.itertuples(index=False), 1)]
    _refuse("", _problems(rows, set(given), given, classes), "decisions")
    new = audit.copy()
    place = {clip: row for row, clip in enumerate(new["id"])}
    values = {column: new[column].tolist() for column in new.columns}
    for _, clip, decision, note in rows:
        if decision:
            row = place[clip]
            for column, value in _human(audit.iloc[row], decision, note, classes, families).items():
                values[column][row] = value
    return pd.DataFrame(values, index=new.index, columns=new.columns)


def _human(clip: pd.Series, decision: str, note: str, classes: Sequence[str], families: Mapping | None) -> dict:
    """What a decision changes in the row of its clip."""
    label = {"keep": clip["given"], "drop": clip["refined"]}.get(decision, decision)
    changed = {
        "refined": label,
        "action": "human",
        "confidence": clip["confidence"] if decision == "drop" else 1.0,
        "weight": float(decision != "drop"),
        "why": f"a human decided: {decision}" + (f" ({note})" if note else ""),
    }
    changed |= {f"soft_{name}": float(name == label) for name in classes}
    if label != clip["refined"]:
        agree = [c.removeprefix("says_") for c in clip.index if c.startswith("says_") and clip[c] == label]
        independent = len({families.get(name, name) for name in agree}) if families is not None else min(len(agree), 1)
        changed |= {"agree": ", ".join(agree), "families": independent}
    return changed


def _problems(
    rows: Sequence[tuple[int, str, str, str]], known: set[str], given: Mapping[str, str] | None, classes: Sequence[str]
) -> list[tuple[int, str, str, str]]:
    """(Row, id, column, problem) of each row (row, id, decision, note) that cannot be used."""
    clash = [name for name in classes if name in _WORDS]
    if clash:
        raise ReviewError(f"a class is called {clash[0]!r}, which is a decision of its own here; rename the class")
    allowed = f"write one of {', '.join([*classes, *_WORDS])}, or nothing"
    lower = {name.casefold(): name for name in (*classes, *_WORDS)}
    found, first = [], {}
    for row, clip, decision, _ in rows:
        if clip not in known:
            hint = "ids are to stay as they were written; some programs make numbers or dates of them"
            found.append((row, clip, "id", f"no such clip in the audit; {hint}" if clip else "the cell is empty"))
        elif clip in first:
            found.append((row, clip, "id", f"the clip stands in row {first[clip]} already; remove one of the two"))
        first.setdefault(clip, row)
        if decision and decision not in lower.values():
            near = lower.get(decision.casefold())
            meant = f"it is written {near!r}" if near else allowed
            found.append((row, clip, "decision", f"{decision!r} is no decision; {meant}"))
        elif decision == "keep" and given is not None and given.get(clip, None) == "":
            found.append((row, clip, "decision", "there is no given label to keep; write a class or 'drop'"))
    return found


def _refuse(file: str, found: list[tuple[int, str, str, str]], what: str) -> None:
    if found:
        error = refusal(what, problem_table([(file, *problem) for problem in found]))
        raise ReviewError(str(error), error.problems)


def _id(cell: str, known: set[str]) -> str:
    """The id that a cell means, guarded or typed by hand."""
    meant = unguarded(cell, name=True)
    return next((name for name in (meant, cell, meant.strip()) if name in known), meant)
