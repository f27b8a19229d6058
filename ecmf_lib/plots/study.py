"""Pictures of the fusion study: subsets of streams, corpora side by side, paired differences, flattering practices."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecmf_lib.plots.marks import BLUE, DARK, ORANGE, PALE, beside, dots, edges, legend_above, looks, needs, plain
from ecmf_lib.plots.style import STREAM_COLOURS, WIDTH, colours, new_axes

_PANELS = 3  # corpora in a row of :func:`main_table`
_MINUS = str.maketrans("-", "\N{MINUS SIGN}")


def subset_scores(table: pd.DataFrame) -> Figure:
    """Weighted F1 of each subset of streams, the best to the left, over a matrix of which streams it has.

    The layout is that of UpSet plots (Lex et al. 2014, doi 10.1109/TVCG.2014.2346248).

    Parameters
    ----------
    table : DataFrame
        Columns streams (names joined by " + "), weighted_f1, low, high (NaN: no interval). Readable up to 31 rows,
        which are all subsets of five streams.

    Raises
    ------
    ValueError
        If a column is missing or there are no rows.
    """
    needs(table, "streams", "weighted_f1", "low", "high")
    table = table.sort_values("weighted_f1", ascending=False, kind="stable", ignore_index=True)
    subsets = [str(names).split(" + ") for names in table["streams"]]
    named = list(dict.fromkeys(name for names in subsets for name in names))
    streams = [name for name in STREAM_COLOURS if name in named]
    streams += [name for name in named if name not in streams]
    below = 0.25 * len(streams) + 0.1
    figure, (upper, matrix) = plt.subplots(
        2, 1, sharex=True, figsize=(WIDTH, 2.9 + below), height_ratios=[2.5, below], layout="constrained"
    )
    sizes = np.array([len(names) for names in subsets])
    kinds = {
        "one stream": (sizes == 1, "#56b4e9", "s"),
        "several": ((sizes > 1) & (sizes < len(streams)), BLUE, "o"),
        "all streams": ((sizes == len(streams)) & (sizes > 1), ORANGE, "D"),
    }
    spread = edges(table, "weighted_f1", "low", "high")
    score, places = table["weighted_f1"].to_numpy(float), np.arange(len(table))
    handles = [
        dots(upper, score[rows], places[rows], spread[:, rows], across=False, color=colour, marker=marker, label=label)
        for label, (rows, colour, marker) in kinds.items()
        if rows.any()
    ]
    _numbers_above(upper, score, score + spread[1], upright=len(table) <= 12)
    upper.set_ylabel("weighted F1")
    upper.tick_params(axis="x", bottom=False, labelbottom=False)
    upper.grid(axis="x", visible=False)
    legend_above(upper, handles)
    _membership(matrix, subsets, streams)
    return figure


def _numbers_above(ax: Axes, score: np.ndarray, top: np.ndarray, *, upright: bool) -> None:
    for place, (value, end) in enumerate(zip(score, top, strict=True)):
        if np.isfinite(value):
            ax.annotate(
                f"{value:.3f}", (place, end), xytext=(0, 4), textcoords="offset points", ha="center", va="bottom",
                fontsize=8 if upright else 7.5, rotation=0 if upright else 90,
            )  # fmt: skip
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + (high - low) * (0.08 if upright else 0.2))  # room for the numbers


def _membership(ax: Axes, subsets: Sequence[Sequence[str]], streams: Sequence[str]) -> None:
    """A column a subset, a row a stream: filled where the subset has the stream, filled ones joined by a line."""
    palette = colours(streams, STREAM_COLOURS)
    for row in range(0, len(streams), 2):
        ax.axhspan(row - 0.5, row + 0.5, color="#f4f4f4", zorder=0)
    for place, names in enumerate(subsets):
        rows = [streams.index(name) for name in names]
        ax.plot([place, place], [min(rows), max(rows)], color=DARK, linewidth=1.5, zorder=1)
    for row, name in enumerate(streams):
        has = np.array([name in names for names in subsets])
        for filled in (False, True):
            ax.scatter(
                np.flatnonzero(has == filled), np.full((has == filled).sum(), row), s=42, zorder=2,
                color=palette[name] if filled else "white", edgecolor=DARK if filled else "#bdbdbd", linewidth=0.8,
                label=f"{name} {'in' if filled else 'not in'}",
            )  # fmt: skip
    ax.set_yticks(range(len(streams)), [plain(name) for name in streams])
    ax.set(ylim=(len(streams) - 0.5, -0.5), xlim=(-0.6, len(subsets) - 0.4), xticks=[])
    ax.set(xlabel="subsets of streams, the best to the left", ylabel="stream")
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)


def main_table(table: pd.DataFrame) -> Figure:
    """Weighted F1 of every model on every corpus: a panel a corpus, models in one order, the best number in bold.

    Parameters
    ----------
    table : DataFrame
        Columns corpus, model, weighted_f1, low, high (NaN: no interval). A pair that has no row is left empty. Panels
        have score axes of their own: corpora differ in classes, so their scores are not for comparing.

    Raises
    ------
    ValueError
        If a column is missing or there are no rows.
    """
    needs(table, "corpus", "model", "weighted_f1", "low", "high")
    corpora, models = list(dict.fromkeys(table["corpus"])), list(dict.fromkeys(table["model"]))
    across = min(_PANELS, len(corpora))
    down = -(-len(corpora) // across)
    figure, panels = plt.subplots(
        down, across, figsize=(WIDTH, down * (0.85 + 0.27 * len(models))), squeeze=False, sharey=True,
        layout="constrained",
    )  # fmt: skip
    for ax, corpus in zip(panels.flat, corpora, strict=False):
        rows = table[table["corpus"] == corpus]
        spread = edges(rows, "weighted_f1", "low", "high")
        best = rows["weighted_f1"].max()
        for k, (name, score) in enumerate(zip(rows["model"], rows["weighted_f1"], strict=True)):
            place = models.index(name)
            dots(ax, [score], [place], spread[:, [k]], color=BLUE if name == "ECMF" else DARK)
            if np.isfinite(score):
                beside(ax, place, f"{score:.3f}", fontsize=8.5, weight="bold" if score == best else None)
        ax.set_title(plain(corpus), fontsize=10)
        ax.locator_params(axis="x", nbins=4)
        ax.tick_params(labelsize=9)
        ax.grid(axis="y", visible=False)
        ax.set_xlabel("weighted F1", fontsize=9)
        ax.margins(x=0.08)
    for ax in panels.flat[len(corpora) :]:
        ax.set_axis_off()
    panels[0, 0].set_yticks(range(len(models)), [plain(name, 26) for name in models])
    panels[0, 0].set_ylim(len(models) - 0.5, -0.5)
    for ax in panels[:, 0]:
        ax.set_ylabel("model", fontsize=9)
    return figure


def paired_differences(table: pd.DataFrame, *, reference: str = "ECMF", ax: Axes | None = None) -> Axes:
    """Difference of each row to the reference with its interval, against 0; corrected p to the right.

    Parameters
    ----------
    table : DataFrame
        Columns model, difference (model minus reference), difference_low, difference_high, p_holm, as from
        :func:`ecmf_lib.evaluate.results_table`. Rows without a difference (the reference itself) are left out.
    reference : str
        Named on the axis.

    Raises
    ------
    ValueError
        If a column is missing or no row has a difference.
    """
    columns = ("model", "difference", "difference_low", "difference_high", "p_holm")
    needs(table, *columns)
    table = table[table["difference"].notna()].reset_index(drop=True)
    needs(table, *columns)
    ax = new_axes(ax, 1.25 + 0.32 * len(table))
    spread = edges(table, "difference", "difference_low", "difference_high")
    low, high = table["difference_low"].astype(float), table["difference_high"].astype(float)
    kinds = {
        "interval below 0": (high < 0, {"color": ORANGE, "marker": "v"}),
        "interval above 0": (low > 0, {"color": BLUE, "marker": "^"}),
        "interval contains 0": ((low <= 0) & (high >= 0), {"color": DARK, "markerfacecolor": "white"}),
        "no interval": (low.isna() | high.isna(), {"color": DARK, "marker": "x"}),
    }
    handles = [
        dots(
            ax, table["difference"][rows], np.flatnonzero(rows), spread[:, rows.to_numpy()], label=label, markersize=7,
            **look,
        )
        for label, (rows, look) in kinds.items()
        if rows.any()
    ]  # fmt: skip
    ax.axvline(0, color=DARK, linewidth=1.2)
    for row, (value, p) in enumerate(zip(table["difference"], table["p_holm"], strict=True)):
        beside(ax, row, f"{value:+.3f}".translate(_MINUS))
        beside(ax, row, _p_value(p), 52)
    beside(ax, -0.75, "diff.", weight="bold")
    beside(ax, -0.75, "corrected p", 52, weight="bold")
    ax.set_yticks(range(len(table)), [plain(name, 34) for name in table["model"]])
    ax.set(ylim=(len(table) - 0.5, -0.5), ylabel="model")
    ax.set_xlabel(f"difference in weighted F1 to {plain(reference)}")
    ax.grid(axis="y", visible=False)
    legend_above(ax, handles, columns=2)
    return ax


def _p_value(p: float) -> str:
    if np.isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def optimism(table: pd.DataFrame, *, honest: str | None = None, ax: Axes | None = None) -> Axes:
    """How far each practice of scoring flatters a model, beside the honest one.

    Parameters
    ----------
    table : DataFrame
        Columns practice, model, weighted_f1, low, high (NaN: no interval).
    honest : str, optional
        The practice that the others are compared with; the table's last one by default. Its row is shaded, its scores
        are drawn as dotted lines, and differences to them stand in brackets.

    Raises
    ------
    ValueError
        If a column is missing, there are no rows, or none of the honest practice.
    """
    needs(table, "practice", "model", "weighted_f1", "low", "high")
    practices, models = list(dict.fromkeys(table["practice"])), list(dict.fromkeys(table["model"]))
    honest = practices[-1] if honest is None else honest
    if honest not in practices:
        raise ValueError(f"no practice {honest!r} to compare with; the table has: {', '.join(map(str, practices))}")
    ax = new_axes(ax, 1.2 + len(practices) * max(0.5, 0.1 + 0.24 * len(models)))
    ax.axhspan(practices.index(honest) - 0.5, practices.index(honest) + 0.5, color="#ececec", zorder=0)
    look, handles = looks(models), []
    for k, name in enumerate(models):
        rows = table[table["model"] == name]
        shift = 0.8 * ((k + 0.5) / len(models) - 0.5)
        places = np.array([practices.index(practice) for practice in rows["practice"]]) + shift
        colour, marker = look[name]
        spread = edges(rows, "weighted_f1", "low", "high")
        handles.append(
            dots(ax, rows["weighted_f1"], places, spread, color=colour, marker=marker, label=plain(name), markersize=6)
        )
        base = rows.loc[rows["practice"] == honest, "weighted_f1"].mean()
        if np.isfinite(base):
            ax.axvline(base, color=colour, linestyle=":", linewidth=1.3)
        for place, practice, score in zip(places, rows["practice"], rows["weighted_f1"], strict=True):
            said = f"{score:.3f}"
            if practice != honest and np.isfinite(base):
                said += f" ({score - base:+.3f})".translate(_MINUS)
            beside(ax, place, said, fontsize=8.5, color=colour, weight="bold" if practice == honest else None)
    ax.set_yticks(range(len(practices)), [plain(practice, 28) for practice in practices])
    ax.get_yticklabels()[practices.index(honest)].set_weight("bold")
    ax.set(ylim=(len(practices) - 0.5, -0.5), xlabel="weighted F1", ylabel="practice of scoring")
    ax.grid(axis="y", visible=False)
    ax.spines[:].set_color(PALE)
    legend_above(ax, handles)
    return ax
