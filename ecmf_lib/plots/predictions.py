"""Pictures of predictions of clips whose label nobody knows."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from ecmf_lib.plots.marks import needs
from ecmf_lib.plots.style import EMOTION_COLOURS, colours, legend_outside, new_axes

_HATCH = "//"


def class_shares(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """How often each class is predicted, beside how often it is among the training labels.

    Parameters
    ----------
    table : DataFrame
        Columns class, of (one or more groups of clips, the training labels first), share (0…1) and clips.

    Raises
    ------
    ValueError
        If a column is missing or there are no rows.
    """
    needs(table, "class", "of", "share", "clips")
    ax = new_axes(ax, 3.4)
    classes, groups = list(dict.fromkeys(table["class"])), list(dict.fromkeys(table["of"]))
    palette = colours(classes, EMOTION_COLOURS)
    width = 0.8 / len(groups)
    for i, group in enumerate(groups):
        rows = table[table["of"] == group].set_index("class").reindex(classes)
        places = np.arange(len(classes)) + (i - (len(groups) - 1) / 2) * width
        looks = {"hatch": _HATCH, "alpha": 0.45, "edgecolor": "white"} if i == 0 and len(groups) > 1 else {}
        bars = ax.bar(places, rows["share"], width * 0.94, color=[palette[name] for name in classes], **looks)
        ax.bar_label(bars, [f"{n:,.0f}" for n in rows["clips"]], fontsize=8, padding=1)
    ax.set_xticks(range(len(classes)), classes)
    ax.set(ylabel="share of the clips", xlabel="")
    ax.margins(y=0.12)
    ax.grid(axis="x", visible=False)
    first = {"hatch": _HATCH, "alpha": 0.45, "edgecolor": "white"}
    handles = [
        Patch(facecolor="#6b6b6b", label=name, **(first if i == 0 and len(groups) > 1 else {}))
        for i, name in enumerate(groups)
    ]
    legend_outside(ax, handles, "bar numbers: clips")
    return ax
