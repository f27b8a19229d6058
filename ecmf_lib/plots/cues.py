"""Pictures of cues: what is heard, seen and said, label by label."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from ecmf_lib.plots.style import new_axes


def cue_shares(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Share of clips that have each kind of cue (row), for all clips and each label (column), as a heatmap.

    Parameters
    ----------
    table : DataFrame
        Shares, 0…1; see :func:`ecmf_lib.explore_text.cue_shares`. At least one row.
    """
    ax = new_axes(ax, 1.1 + 0.26 * len(table))
    bar = {"label": "share of the clips"}
    sns.heatmap(
        100 * table, annot=True, fmt=".0f", cmap="viridis", vmin=0, cbar_kws=bar | {"format": "%d %%"},
        annot_kws={"size": 8}, ax=ax,
    )  # fmt: skip
    ax.set(xlabel="label (numbers are per cent)", ylabel="cue")
    ax.set_xticks(ax.get_xticks(), [str(name) for name in table.columns], rotation=0)
    ax.set_yticks(ax.get_yticks(), [str(name) for name in table.index], rotation=0)
    return ax
