"""Pictures of label refinement: how noisy labels are, who is right, what is won back, and the trap of pseudo-labels."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from ecmf_lib.plots.marks import BLUE, DARK, ORANGE, PALE, beside, legend_above, looks, needs, plain
from ecmf_lib.plots.style import STREAM_COLOURS, WIDTH, legend_outside, new_axes

#: Action → colour, in the order of the bars: from what changes nothing to what a human decided.
ACTION_COLOURS = {
    "keep": "#d9d9d9",
    "relabel": BLUE,
    "soften": "#56b4e9",
    "down-weight": "#e69f00",
    "drop": ORANGE,
    "human": "#009e73",
}
#: For families that are no stream: apart from the streams' colours and from each other.
_SPARE = ("#882255", "#44aa99", "#999933", "#aa4499", "#661100", "#e69f00", "#8c8c8c")
_PANELS = 3  # kinds of noise in a row of :func:`recovery`
_TICKS = 8  # rounds whose number of clips fits under the axis


def noise_matrix(
    matrix: pd.DataFrame | np.ndarray, classes: Sequence[str], *, against: str = "refined", ax: Axes | None = None
) -> Axes:
    """Given labels against refined (or true) ones: colour and upper number are the share of the given label's clips.

    Parameters
    ----------
    matrix : DataFrame or array [classes, classes]
        Counts, whole or expected; rows given, columns refined or true.
    classes : sequence of str
        Order of rows and columns.
    against : str
        What the columns are: "refined", "true", …

    Raises
    ------
    ValueError
        If the matrix does not have a row and a column for each class.
    """
    counts = matrix.loc[list(classes), list(classes)] if isinstance(matrix, pd.DataFrame) else matrix
    counts = np.asarray(counts, float)
    if counts.shape != (len(classes), len(classes)):
        raise ValueError(f"the matrix is {list(counts.shape)} for {len(classes)} classes; one row and column a class")
    ax = new_axes(ax, max(1.1 + 0.6 * len(classes), 2.7), width=min(WIDTH, 2.6 + 0.85 * len(classes)))
    total = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
    texts = [[_cell(*both) for both in zip(*rows, strict=True)] for rows in zip(shares, counts, strict=True)]
    sns.heatmap(
        shares, annot=np.array(texts).reshape(counts.shape), fmt="", cmap="Blues", vmin=0, vmax=1, linewidths=0.5,
        annot_kws={"size": 9}, cbar_kws={"label": "share of given label", "format": PercentFormatter(1.0)}, ax=ax,
    )  # fmt: skip
    places = np.arange(len(classes)) + 0.5
    slanted = max(len(str(name)) for name in classes) > 9
    look = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if slanted else {"rotation": 0}
    ax.set_xticks(places, [plain(name) for name in classes], **look)
    ax.set_yticks(places, [plain(name, 16) for name in classes], rotation=0)
    ax.set(xlabel=f"{against} label", ylabel="given label")
    return ax


def _cell(share: float, count: float) -> str:
    """A cell without clips is left empty: zeros would hide the few confusions that there are."""
    if count < 0.05:
        return ""
    return f"{share:.0%}\n{count:,.0f}" if np.isclose(count, round(count)) else f"{share:.0%}\n{count:,.1f}"


def source_quality(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """How good each source of labels is, the best first, coloured by family: sources of one family count once.

    Parameters
    ----------
    table : DataFrame
        Columns source, family and quality (0…1; NaN: it says too little to tell). Optionally clips: of how many it
        speaks, printed to the right.

    Raises
    ------
    ValueError
        If a column is missing or there are no rows.
    """
    needs(table, "source", "quality", "family")
    table = table.sort_values("quality", ascending=False, kind="stable", na_position="last", ignore_index=True)
    ax = new_axes(ax, 1.0 + 0.34 * len(table))
    families = list(dict.fromkeys(table["family"]))
    palette = _families(families)
    quality = table["quality"].to_numpy(float)
    ax.barh(range(len(table)), np.nan_to_num(quality), color=[palette[name] for name in table["family"]], height=0.72)
    for row, value in enumerate(quality):
        said = f"{value:.2f}" if np.isfinite(value) else "not known"
        ax.annotate(
            said, (np.nan_to_num(value), row), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9
        )
        if "clips" in table:
            beside(ax, row, f"{table['clips'].iloc[row]:,.0f} clips", fontsize=8.5)
    names = [f"{plain(name, 30)}  {place}" for place, name in enumerate(table["source"], 1)]
    ax.set_yticks(range(len(table)), names)
    ax.set(xlim=(0, 1.1), ylim=(len(table) - 0.4, -0.6), xlabel="estimated quality", ylabel="source, rank")
    ax.set_xticks(np.linspace(0, 1, 6))
    ax.grid(axis="y", visible=False)
    ax.spines[:].set_color(PALE)
    legend_above(ax, [Patch(color=palette[name], label=plain(name, 22)) for name in families])
    return ax


def _families(names: Sequence[str]) -> dict[str, str]:
    """A family that is a stream has the stream's colour; people's and others have spare ones."""
    others = [name for name in names if name not in STREAM_COLOURS]
    spare = _SPARE if len(others) <= len(_SPARE) else sns.color_palette("husl", len(others))
    return {name: STREAM_COLOURS.get(name) or spare[others.index(name)] for name in names}


def recovery(table: pd.DataFrame) -> Figure:
    """Weighted F1 while more and more training labels are made wrong: a panel a kind of noise, a line an arm.

    Parameters
    ----------
    table : DataFrame
        Columns kind, rate (share of labels made wrong, 0…1), arm, weighted_f1, low, high (NaN: no interval). The arm
        whose name begins with "refined" or ends with "refined labels" is drawn in blue.

    Raises
    ------
    ValueError
        If a column is missing or there are no rows.
    """
    needs(table, "kind", "rate", "arm", "weighted_f1", "low", "high")
    kinds, arms = list(dict.fromkeys(table["kind"])), list(dict.fromkeys(table["arm"]))
    across = min(_PANELS, len(kinds))
    down = -(-len(kinds) // across)
    rows_of_legend = -(-len(arms) // 3)
    figure, panels = plt.subplots(
        down, across, figsize=(WIDTH, 0.45 + 2.5 * down + 0.22 * rows_of_legend), squeeze=False, sharex=True,
        sharey=True, layout="constrained",
    )  # fmt: skip
    look, handles, faint = _arms(arms), {}, len(arms) > 3  # many bands over each other would hide the lines
    for ax in panels.flat[len(kinds) :]:
        ax.set_axis_off()
    for k, (ax, kind) in enumerate(zip(panels.flat, kinds, strict=False)):
        for arm, rows in table[table["kind"] == kind].groupby("arm", sort=False):
            rows = rows.sort_values("rate")
            colour, marker, width = look[arm]
            (handles[arm],) = ax.plot(
                rows["rate"], rows["weighted_f1"], color=colour, marker=marker, markersize=5, linewidth=width,
                markeredgewidth=0, label=plain(arm, 30), zorder=3 if width > 2 else 2,
            )  # fmt: skip
            if rows[["low", "high"]].notna().all(axis=1).any():
                low, high = rows["low"].astype(float), rows["high"].astype(float)
                alpha = 0.04 if faint and width < 2 else 0.13
                ax.fill_between(rows["rate"], low, high, color=colour, alpha=alpha, linewidth=0)
        ax.set_title(plain(kind), fontsize=10)
        ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        ax.set_xticks(_rates(table["rate"]))
        ax.tick_params(labelsize=9, labelbottom=k + across >= len(kinds))
        if k % across == 0:
            ax.set_ylabel("weighted F1")
    figure.supxlabel("labels made wrong, share of the training clips", fontsize=10)
    figure.legend(
        handles=[handles[arm] for arm in arms], loc="outside upper center", ncols=min(3, len(arms)), frameon=False,
        fontsize=9,
    )  # fmt: skip
    return figure


def _arms(arms: Sequence[str]) -> dict[str, tuple[str, str, float]]:
    """Arm → colour, marker, line width; ours is blue and thick."""
    ours = [arm for arm in arms if str(arm).startswith("refined") or str(arm).endswith("refined labels")][:1]
    found = looks(["ECMF" if arm in ours else arm for arm in arms])
    return {arm: (*(found["ECMF"] if arm in ours else found[arm]), 2.4 if arm in ours else 1.5) for arm in arms}


def _rates(rate: pd.Series) -> list[float]:
    """Rates that get a number: all, or every second where they would touch."""
    levels = sorted(set(rate.astype(float)))
    return levels if len(levels) <= 6 else levels[::2]


def rounds(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Rounds of self-training: the score on the training set's own labels (the trap) and the honest one.

    Parameters
    ----------
    table : DataFrame
        Columns round, trap (weighted F1 out of fold on the training set's own labels, pseudo ones included), honest
        (on given labels of clips that were held out), honest_low, honest_high (NaN: no interval), added (clips with a
        pseudo-label so far). Optionally chosen (bool): the round that was taken.

    Raises
    ------
    ValueError
        If a column is missing or there are no rows.
    """
    needs(table, "round", "trap", "honest", "honest_low", "honest_high", "added")
    table = table.sort_values("round", kind="stable", ignore_index=True)
    ax = new_axes(ax, 3.6)
    turn = table["round"].to_numpy(float)
    (trap,) = ax.plot(
        turn, table["trap"], color=ORANGE, marker="s", linestyle="--", markersize=5, linewidth=1.8, markeredgewidth=0,
        label="on the training set's own labels,\npseudo-labels included: the trap",
    )  # fmt: skip
    (honest,) = ax.plot(
        turn, table["honest"], color=BLUE, marker="o", markersize=6, linewidth=2.2, markeredgewidth=0,
        label="honest: given labels of\nclips that were held out",
    )  # fmt: skip
    handles = [trap, honest]
    if table[["honest_low", "honest_high"]].notna().all(axis=1).any():
        low, high = (table[edge].astype(float) for edge in ("honest_low", "honest_high"))
        ax.fill_between(turn, low, high, color=BLUE, alpha=0.13, linewidth=0)
        handles.append(Patch(color=BLUE, alpha=0.13, linewidth=0, label="its interval"))
    if "chosen" in table and table["chosen"].any():
        taken = table[table["chosen"].astype(bool)].iloc[0]
        handles += ax.plot(
            [taken["round"]], [taken["honest"]], linestyle="none", marker="o", markersize=13, markerfacecolor="none",
            markeredgecolor=DARK, markeredgewidth=1.6, label="the round that is taken",
        )  # fmt: skip
    step = -(-len(table) // _TICKS)
    labels = [f"{row.round:g}\n{row.added:,.0f}" for row in table.itertuples()]
    ax.set_xticks(turn[::step], labels[::step])
    ax.set_xlim(turn.min() - 0.3, turn.max() + 0.3)
    ax.set(xlabel="round, and clips with a pseudo-label so far", ylabel="weighted F1")
    ax.grid(axis="x", visible=False)
    legend_outside(ax, handles)
    return ax


def actions(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """What became of the given labels of each class: shares of its clips, numbers are clips.

    Parameters
    ----------
    table : DataFrame
        As of :func:`ecmf_lib.audit.summary`, or an audit table: then it is summed up here. Column class (given label)
        and a count for each action of :data:`ACTION_COLOURS` that there is.

    Raises
    ------
    ValueError
        If there is no class, no action or no row.
    """
    if "class" not in table and {"given", "action"} <= set(table.columns):
        given = table["given"].replace("", "(none)")
        order = [name.removeprefix("soft_") for name in table if str(name).startswith("soft_")]
        order += [name for name in dict.fromkeys(given) if name not in order]
        counts = pd.crosstab(given, table["action"]).reindex(order, fill_value=0)
        table = counts.rename_axis("class").reset_index()
    needs(table, "class")
    known = [name for name in ACTION_COLOURS if name in table and (table[name].sum() or name == "keep")]
    if not known:
        raise ValueError(f"the table to plot has no column of an action: {', '.join(ACTION_COLOURS)}")
    counts = table[known].fillna(0).to_numpy(float)
    total = counts.sum(axis=1)
    shares = counts / np.maximum(total, 1)[:, None]
    ax = new_axes(ax, 1.1 + 0.42 * len(table))
    left = np.zeros(len(table))
    for k, name in enumerate(known):
        ax.barh(range(len(table)), shares[:, k], left=left, color=ACTION_COLOURS[name], label=name, height=0.74)
        ink = "white" if np.dot(to_rgb(ACTION_COLOURS[name]), (0.30, 0.59, 0.11)) < 0.55 else "black"
        for row in range(len(table)):
            said = f"{counts[row, k]:,.0f}"
            if shares[row, k] > 0.012 + 0.013 * len(said):  # else it would not fit its bar
                place = left[row] + shares[row, k] / 2
                ax.text(place, row, said, ha="center", va="center", fontsize=8.5, color=ink)
        left += shares[:, k]
    for row, clips in enumerate(total):
        beside(ax, row, f"{clips:,.0f}", fontsize=9)
    beside(ax, -0.72, "clips", fontsize=9, weight="bold")
    ax.set_yticks(range(len(table)), [plain(name, 18) for name in table["class"]])
    ax.set(
        xlim=(0, 1), ylim=(len(table) - 0.5, -0.5), xlabel="share of the clips of a given label", ylabel="given label"
    )
    ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    ax.grid(axis="y", visible=False)
    ax.spines[:].set_color(PALE)
    legend_above(ax, ax.get_legend_handles_labels()[0], columns=len(known))
    return ax
