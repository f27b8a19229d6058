"""The trail of label refinement: what was changed, who agreed and why; and the human who has the last word.

The table is described in :mod:`ecmf_lib.audit_table`, what humans decide in :mod:`ecmf_lib.review`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from ecmf_lib.audit_page import page
from ecmf_lib.audit_table import ACTIONS, COLUMNS, checked, each_clip, summary, surprise
from ecmf_lib.review import apply_review, read_review, write_review
from ecmf_lib.review_csv import ReviewError

__all__ = [
    "ACTIONS",
    "COLUMNS",
    "ReviewError",
    "apply_review",
    "read_review",
    "shown",
    "summary",
    "surprise",
    "write_review",
]


def shown(
    audit: pd.DataFrame,
    pictures: Mapping | Sequence | Callable | None = None,
    transcripts: Mapping | Sequence | Callable | pd.Series | None = None,
    top: int = 30,
    *,
    name: str = "audit",
):
    """The audit table for people: pictures, words, who says what and why; sorted by a click, without any script.

    Parameters
    ----------
    audit : DataFrame
    pictures : uint8 [H, W, 3] or None by clip id, or for each row, or a function of the id, optional
        A function is asked for the clips that are shown only.
    transcripts : str by clip id, or for each row, or a function of the id, optional
    top : int
        So many clips: those that were changed first, and among them those of the greatest :func:`surprise`.
    name : str
        Unique on a page that has several such tables.

    Returns
    -------
    IPython.display.HTML

    Raises
    ------
    ReviewError
        If `audit` is no audit table.
    ValueError
        If pictures or transcripts are not one a row, or a picture is no uint8 [H, W, 3].
    """
    from IPython.display import HTML

    checked(audit)
    keys = pd.DataFrame({"kept": audit["action"] == "keep", "surprise": -surprise(audit), "id": audit["id"]})
    rows = np.lexsort([keys["id"], keys["surprise"], keys["kept"]])[:top]
    frames, words = each_clip(pictures, audit["id"], None, rows), each_clip(transcripts, audit["id"], "", rows)
    table = audit.iloc[rows].reset_index(drop=True)
    orders = {"surprise": range(len(table))}
    for order, column in {"clip": "id", "given label": "given", "refined label": "refined", "action": "action"}.items():
        orders[order] = _places(table[column].astype(str))
    orders["sure"] = _places(-table["confidence"].astype(float))
    changed = int((audit["action"] != "keep").sum())
    caption = f"{len(table)} of {len(audit)} clips, of which {changed} were changed"
    return HTML(page(table, orders, frames, [str(said or "") for said in words], caption, name))


def _places(values: pd.Series) -> list[int]:
    """Place of each row when sorted by these values; rows that are alike stay in their order."""
    return np.argsort(values.argsort(kind="stable").to_numpy()).tolist()
