"""What an audit table of label refinement is, and what it says as a whole.

An audit table has one row a clip: ``id``, ``given``, ``refined`` (classes; given "": the clip had no label),
``action`` (one of :data:`ACTIONS`), ``confidence`` (0…1, of the refined label), ``weight`` (0 or more), ``families``
(independent families of sources that agree on the refined label), ``agree`` (names of those sources, joined by ", "),
``why`` (a sentence), ``soft_<class>`` (the soft label) and ``says_<source>`` (the class a source names; "": abstains).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from ecmf_lib.review_csv import ReviewError

ACTIONS = ("keep", "relabel", "soften", "down-weight", "drop", "human")
COLUMNS = ("id", "given", "refined", "action", "confidence", "weight", "families", "agree", "why")


def checked(audit: pd.DataFrame) -> None:
    """Raise ReviewError unless it is an audit table: its columns, each clip once, known actions."""
    lacking = [column for column in COLUMNS if column not in audit]
    if lacking:
        raise ReviewError(f"no audit table: it has no column {', '.join(lacking)}; take that of Refined.audit")
    if audit["id"].duplicated().any():
        raise ReviewError(f"no audit table: clip {audit['id'][audit['id'].duplicated()].iloc[0]!r} is in it twice")
    odd = sorted(set(audit["action"]) - set(ACTIONS))
    if odd:
        raise ReviewError(f"no audit table: unknown action {odd[0]!r}; actions are {', '.join(ACTIONS)}")


def surprise(audit: pd.DataFrame) -> pd.Series:
    """How little is left for the given label, float [n], 0…1, indexed as `audit`.

    1 − confidence where the label stayed, confidence where another took its place, 0 where none was given.
    """
    confidence = audit["confidence"].astype(float)
    found = confidence.where(audit["refined"] != audit["given"], 1 - confidence)
    return found.where(audit["given"] != "", 0.0)


def summary(audit: pd.DataFrame) -> pd.DataFrame:
    """What became of the clips of each given label.

    Returns
    -------
    DataFrame
        class, clips (with this given label), a column for each of :data:`ACTIONS`, refined (clips that carry this
        label afterwards with a weight above 0). Clips without a label have the class "(none)".
    """
    checked(audit)
    classes = _classes(audit)
    counts = pd.crosstab(audit["given"], audit["action"]).reindex(columns=list(ACTIONS), fill_value=0)
    rows = [*classes, *([""] if (audit["given"] == "").any() else [])]
    counts = counts.reindex(index=rows, fill_value=0).astype(int)
    after = audit.loc[audit["weight"] > 0, "refined"].value_counts()
    table = counts.assign(clips=counts.sum(axis=1), refined=after.reindex(rows).fillna(0).astype(int))
    table.insert(0, "class", ["(none)" if name == "" else name for name in rows])
    return table[["class", "clips", *ACTIONS, "refined"]].reset_index(drop=True)


def _classes(audit: pd.DataFrame) -> list[str]:
    """In index order, as the ``soft_<class>`` columns name them."""
    return [column.removeprefix("soft_") for column in audit.columns if column.startswith("soft_")]


def each_clip(given, ids: pd.Series, default, rows: Iterable[int] | None = None) -> list:
    """What each clip has of a mapping, a sequence in the order of `ids`, or a function of the id."""
    ids, rows = list(ids), range(len(ids)) if rows is None else rows
    if given is None:
        return [default for _ in rows]
    if callable(given):
        return [given(ids[row]) for row in rows]
    if isinstance(given, Mapping | pd.Series):
        return [given.get(ids[row], default) for row in rows]
    if len(given) != len(ids):
        raise ValueError(f"{len(given)} pictures or transcripts for {len(ids)} clips; give one a clip, or by clip id")
    return [given[row] for row in rows]
