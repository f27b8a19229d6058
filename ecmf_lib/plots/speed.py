"""What the benchmarks found, each against its goal."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ecmf_lib.plots.style import new_axes

MET, MISSED = "#009e73", "#d55e00"


def against_goals(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """A bar for each measurement that has a goal: right of the line it is better than the goal, left of it worse.

    Parameters
    ----------
    table : DataFrame
        ``what, ratio, means, goal, more_is_better``; rows without a goal are not drawn.
    ax : Axes, optional
    """
    rows = table[table["goal"].notna()].iloc[::-1]
    if rows.empty:
        ax = new_axes(ax, 1.0)
        ax.text(0.5, 0.5, "no measurement with a goal", ha="center", va="center", transform=ax.transAxes)
        ax.set_axis_off()
        return ax
    ax = new_axes(ax, 0.9 + 0.42 * len(rows))
    better = _better(rows)
    met = better >= 1
    shown = np.clip(better, 1e-2, 1e3)
    ax.barh(range(len(rows)), shown - 1, left=1, height=0.6, color=np.where(met, MET, MISSED))
    ax.axvline(1, color="#1d2430", lw=1)
    ax.set_xscale("log")
    low, high = min(shown.min(), 0.5), max(shown.max(), 2.0)
    span = max(high / low, 10)
    ax.set_xlim(low / 1.15, high * span**0.9)  # room for the words behind the bars
    ticks = [t for t in (0.01, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 1000) if low <= t <= high]
    ax.set_xticks(ticks, [f"{t:g}×" for t in ticks])
    ax.set_xticks([], minor=True)
    for place, (row, end) in enumerate(zip(rows.to_dict("records"), shown, strict=True)):
        sign = "≥" if row["more_is_better"] else "≤"
        said = f"{row['ratio']:.3g} {row['means']}; goal {sign} {row['goal']:g}"
        ax.text(max(end, 1) * span**0.01, place, said, va="center", fontsize="small")
    ax.set_yticks(range(len(rows)), [_folded(what) for what in rows["what"]], fontsize="small")
    ax.grid(False, axis="y")
    ax.set_xlabel("times as good as the goal (green: met)")
    return ax


def _better(rows: pd.DataFrame) -> np.ndarray:
    """How many times as good as the goal; a difference (goal 0) counts as met or not."""
    ratio, goal = rows["ratio"].to_numpy(float), rows["goal"].to_numpy(float)
    more = rows["more_is_better"].astype(bool).to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        times = np.where(more, ratio / goal, goal / ratio)
    about_zero = np.where((ratio >= 0) == more, 1.06, 0.94)
    return np.where(goal == 0, about_zero, times)


def _folded(text: str, width: int = 46) -> str:
    """In two lines where it is long."""
    if len(text) <= width:
        return text
    cut = text.rfind(" ", 0, len(text) // 2 + 12)
    return f"{text[:cut]}\n{text[cut + 1 :]}"
