"""Curves of the fusion study: missing or noisy streams, fewer training clips, reliability of probabilities."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

from ecmf_lib.plots.marks import BLUE, DARK, ORANGE, PALE, looks, needs, plain
from ecmf_lib.plots.style import STREAM_COLOURS, WIDTH, colours, legend_outside, new_axes

_ACROSS = 5  # most panels in a row of :func:`robustness`
_TOGETHER = 0.055  # of the axis; tick labels closer than this would touch
#: Kind of harm → name of its axis.
KINDS = {"missing": "clips without the stream", "noise": "noise, in deviations of the stream"}


def curves(
    table: pd.DataFrame,
    *,
    x: str,
    y: str = "weighted_f1",
    hue: str = "model",
    low: str = "low",
    high: str = "high",
    xlabel: str | None = None,
    ylabel: str | None = None,
    percent: bool = False,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """A line with markers for each model, and its interval as a shade.

    Parameters
    ----------
    table : DataFrame
        Columns named by `x`, `y` and `hue`; those named by `low` and `high` may lack or be NaN, then nothing is shaded.
    xlabel, ylabel : str, optional
        The columns' names without underscores by default.
    percent : bool
        Values of `x` are shares, 0…1, and shown in per cent.
    legend : bool
        Beside the axes.

    Raises
    ------
    ValueError
        If a column is missing or there are no rows.
    """
    needs(table, x, y, hue)
    ax = new_axes(ax, 3.4)
    look = looks(table[hue])
    for name, rows in table.groupby(hue, sort=False):
        rows = rows.sort_values(x)
        colour, marker = look[name]
        ax.plot(
            rows[x],
            rows[y],
            marker=marker,
            markersize=5,
            linewidth=1.6,
            color=colour,
            label=plain(name),
            markeredgewidth=0,
        )
        if {low, high} <= set(table.columns) and rows[[low, high]].notna().all(axis=1).any():
            ax.fill_between(rows[x], rows[low].astype(float), rows[high].astype(float), color=colour, alpha=0.13, lw=0)
    if percent:
        ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    ax.set_xlabel(x.replace("_", " ") if xlabel is None else xlabel)
    ax.set_ylabel(("weighted F1" if y == "weighted_f1" else y.replace("_", " ")) if ylabel is None else ylabel)
    if legend:
        legend_outside(ax, title=hue)
    return ax


def robustness(table: pd.DataFrame) -> Figure:
    """Weighted F1 while one stream is taken away from more and more clips, or drowned in noise: a panel a stream.

    Parameters
    ----------
    table : DataFrame
        Columns kind ("missing": level is the share of clips without the stream, 0…1; "noise": level is the noise's size
        in standard deviations of the stream), stream, level, model, weighted_f1, and low and high if known.

    Raises
    ------
    ValueError
        If a column is missing, there are no rows, or a kind is unknown.
    """
    needs(table, "kind", "stream", "level", "model", "weighted_f1")
    unknown = sorted(set(table["kind"]) - set(KINDS), key=str)
    if unknown:
        raise ValueError(f"kind {', '.join(map(repr, unknown))}: choose from {', '.join(KINDS)}")
    streams = list(dict.fromkeys(table["stream"]))
    palette = colours(streams, STREAM_COLOURS)
    deep = -(-len(streams) // _ACROSS)  # rows of panels a kind
    across = -(-len(streams) // deep)
    kinds = [kind for kind in KINDS if kind in set(table["kind"])]
    figure = plt.figure(figsize=(WIDTH, 0.55 + (0.3 + 1.75 * deep) * len(kinds)), layout="constrained")
    blocks = figure.subfigures(len(kinds), 1, squeeze=False)[:, 0]
    limits = _limits(table)
    for block, kind in zip(blocks, kinds, strict=True):
        panels = block.subplots(deep, across, squeeze=False, sharex=True, sharey=True)
        for ax in panels.flat[len(streams) :]:
            ax.set_axis_off()
        for ax, stream in zip(panels.flat, streams, strict=False):
            rows = table[(table["kind"] == kind) & (table["stream"] == stream)]
            if len(rows):
                curves(rows, x="level", xlabel="", ylabel="", percent=kind == "missing", legend=False, ax=ax)
            ax.set_title(plain(stream), fontsize=9)
            ax.spines["top"].set(color=palette[stream], linewidth=3)
            ax.tick_params(labelsize=8, labelbottom=True)
            ax.locator_params(axis="both", nbins=4)
            if kind == "missing":
                ax.set_xticks([0, 0.5, 1], ["0", "50 %", "100 %"])
            ax.set_ylim(limits)
        block.supxlabel(KINDS[kind], fontsize=9)
        block.supylabel("weighted F1", fontsize=9)
    handles = {line.get_label(): line for ax in figure.axes for line in ax.get_lines()}
    figure.legend(
        handles=list(handles.values()),
        loc="outside upper center",
        ncols=min(4, len(handles)),
        frameon=False,
        fontsize=9,
    )
    return figure


def _limits(table: pd.DataFrame) -> tuple[float, float]:
    """One scale for all panels, so that a flat line looks flat in each."""
    shown = table[[name for name in ("weighted_f1", "low", "high") if name in table.columns]].to_numpy(float)
    low, high = np.nanmin(shown), np.nanmax(shown)
    margin = max(0.06 * (high - low), 0.01)
    return low - margin, high + margin


def learning_curve(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Weighted F1 against the number of training clips; under each number the training speakers.

    Parameters
    ----------
    table : DataFrame
        Columns model, clips, speakers, weighted_f1, low, high (NaN: no shade).

    Raises
    ------
    ValueError
        If a column is missing or there are no rows.
    """
    needs(table, "model", "clips", "speakers", "weighted_f1", "low", "high")
    ax = curves(table, x="clips", xlabel="training clips\n(training speakers)", ax=ax)
    steps = table.groupby("clips")["speakers"].first()
    places = steps.index.to_numpy(float)
    # whichever scale spreads the sizes more evenly: they may grow by steps or by doubling
    scale = min(("linear", "log"), key=lambda name: (np.diff(_along(places, name)) ** 2).sum())
    ax.set_xscale(scale)
    kept = _apart(places, scale)
    labels = [f"{clips:,.0f}\n({steps[clips]:g})" for clips in kept]
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_locator(FixedLocator(kept))
    ax.set_xticks(kept, labels)
    if scale == "log":
        ax.set_xlabel("training clips, logarithmic scale\n(training speakers)")
    return ax


def _along(places: np.ndarray, scale: str) -> np.ndarray:
    """Distance of each size to the first one, as a share of the axis."""
    along = np.log(np.maximum(places, 1e-9)) if scale == "log" else places
    return (along - along[0]) / max(along[-1] - along[0], 1e-9)


def _apart(places: np.ndarray, scale: str) -> list[float]:
    """The sizes, from the largest down, whose labels do not touch."""
    kept: list[int] = []
    along = _along(places, scale)
    for i in reversed(range(len(places))):
        if not kept or along[kept[-1]] - along[i] >= _TOGETHER:
            kept.append(i)
    return [places[i] for i in reversed(kept)]


def reliability(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Reliability diagram: how often the model is right (y) where it is this sure (x); on the diagonal it is honest.

    Parameters
    ----------
    table : DataFrame
        Columns state ("raw", "after temperature scaling", …), confidence_bin, confidence and accuracy (means of the
        bin's clips, 0…1; NaN for an empty bin), share (of clips in the bin, 0…1; the area of its mark), and ece
        (expected calibration error of the state, the same in all its rows) if known.

    Raises
    ------
    ValueError
        If a column is missing or there are no rows.

    Notes
    -----
    DeGroot & Fienberg (1983); Guo et al. (2017), arXiv 1706.04599.
    """
    needs(table, "state", "confidence_bin", "confidence", "accuracy", "share")
    ax = new_axes(ax, 4.2, width=6.4)
    (diagonal,) = ax.plot([0, 1], [0, 1], linestyle="--", linewidth=1.2, color=DARK, label="as sure as right")
    handles = []
    for i, (state, rows) in enumerate(table.groupby("state", sort=False)):
        rows = rows.dropna(subset=["confidence", "accuracy"]).sort_values("confidence")
        colour, marker = ((ORANGE, "s"), (BLUE, "o"), ("#009e73", "^"), ("#cc79a7", "D"))[i % 4]
        error = table.loc[table["state"] == state, "ece"].dropna() if "ece" in table.columns else []
        label = plain(state, 24) + (f"\nECE {error.iloc[0]:.3f}" if len(error) else "")
        ax.plot(rows["confidence"], rows["accuracy"], color=colour, linewidth=1.3, alpha=0.8)
        area = 12 + 400 * rows["share"].to_numpy(float)
        ax.scatter(
            rows["confidence"],
            rows["accuracy"],
            s=area,
            color=colour,
            marker=marker,
            alpha=0.8,
            linewidth=0,
            clip_on=False,
        )
        handles += ax.plot([], [], color=colour, marker=marker, label=label)
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence (probability of the predicted class)")
    ax.set(ylabel="accuracy", aspect="equal")
    ax.spines[:].set_color(PALE)
    legend_outside(ax, [*handles, diagonal], title="area of a mark:\nshare of clips")
    return ax
