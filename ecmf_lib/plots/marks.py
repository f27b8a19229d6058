"""What the study's pictures share: checked columns, dots with intervals, one look for each model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.transforms import blended_transform_factory

BLUE, ORANGE, DARK, PALE = "#0072b2", "#d55e00", "#3b3b3b", "#d9d9d9"
#: Dark enough for thin lines on white (Okabe & Ito 2008, and two of Paul Tol's), so without their yellow.
_LINES = (ORANGE, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255", "#999933", DARK)
_MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">")


def needs(table: pd.DataFrame, *columns: str) -> None:
    """Check that the columns are there.

    Raises
    ------
    ValueError
        Naming those that are not, and those that are.
    """
    lacking = [name for name in columns if name not in table.columns]
    if lacking:
        there = ", ".join(map(str, table.columns)) or "none"
        raise ValueError(f"the table to plot has no column {', '.join(lacking)}; its columns are: {there}")
    if table.empty:
        raise ValueError(f"the table to plot has no rows; one or more with {', '.join(columns)} are needed")


def looks(models: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Model → (colour, marker): blue discs for ECMF, others in order of appearance."""
    others = [name for name in dict.fromkeys(models) if name != "ECMF"]
    found = {name: (_LINES[i % len(_LINES)], _MARKERS[i % len(_MARKERS)]) for i, name in enumerate(others)}
    return {"ECMF": (BLUE, "o")} | found


def plain(text: object, width: int | None = None) -> str:
    """A name as text that matplotlib does not take for a formula, in lines of at most `width` characters."""
    words = str(text).replace("$", r"\$")
    return fill(words, width, break_long_words=False) if width else words


def edges(table: pd.DataFrame, value: str, low: str, high: str) -> np.ndarray:
    """Distances from the value to both ends of its interval, float [2, n]; 0 where there is no interval."""
    middle = table[value].to_numpy(float)
    ends = [table[end].fillna(table[value]).to_numpy(float) for end in (low, high)]
    return np.stack([middle - ends[0], ends[1] - middle]).clip(0)


def dots(
    ax: Axes,
    score: Sequence[float],
    place: Sequence[float],
    spread: np.ndarray,
    *,
    across: bool = True,
    **look,
) -> ErrorbarContainer:
    """Dots with intervals: along x at the heights `place`, or with ``across=False`` along y."""
    settings = {"linestyle": "none", "marker": "o", "markersize": 5, "capsize": 2, "elinewidth": 1.3} | look
    if across:
        return ax.errorbar(score, place, xerr=spread, **settings)
    return ax.errorbar(place, score, yerr=spread, **settings)


def beside(ax: Axes, place: float, text: str, points: float = 5, **look) -> None:
    """Text to the right of the axes at the height `place`, so many points from the edge."""
    ax.annotate(
        text, (1, place), xycoords=blended_transform_factory(ax.transAxes, ax.transData), xytext=(points, 0),
        textcoords="offset points", va="center", annotation_clip=False, **({"fontsize": 9} | look),
    )  # fmt: skip


def legend_above(ax: Axes, handles: list, columns: int = 4) -> None:
    """A legend between title and axes, where it hides nothing and takes no width."""
    ax.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=min(columns, len(handles)), frameon=False,
        fontsize=9, borderaxespad=0.2, handletextpad=0.4, columnspacing=1.2,
    )  # fmt: skip
