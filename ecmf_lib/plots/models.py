"""Pictures of models: scores, confusions, how a fusion weighs the streams."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from ecmf_lib.plots.style import EMOTION_COLOURS, STREAM_COLOURS, WIDTH, colours, legend_outside, new_axes


def scores_with_intervals(table: pd.DataFrame, *, chance: float | None = None, ax: Axes | None = None) -> Axes:
    """Weighted F1 of each model with its interval, in the order of the table.

    Parameters
    ----------
    table : DataFrame
        Columns model, weighted_f1, low, high (NaN: no interval is drawn).
    chance : float, optional
        Score of guessing, drawn as a line.
    """
    ax = new_axes(ax, 1.0 + 0.34 * len(table))
    rows = np.arange(len(table))
    score = table["weighted_f1"].to_numpy(float)
    low, high = (table[edge].fillna(table["weighted_f1"]).to_numpy(float) for edge in ("low", "high"))
    spread = np.stack([score - low, high - score])
    dots = ax.errorbar(
        score, rows, xerr=spread.clip(0), fmt="o", color="#0072b2", capsize=3, label="weighted F1, interval"
    )
    for row, (value, edge) in enumerate(zip(score, high, strict=True)):
        ax.annotate(f"{value:.3f}", (edge, row), xytext=(6, 0), textcoords="offset points", va="center", fontsize=9)
    if chance is not None:
        line = ax.axvline(chance, linestyle="--", color="#d55e00", label=f"chance {chance:.3f}")
    lowest = min(low.min(), chance if chance is not None else 1.0)
    span = max(high.max() - lowest, 0.1)
    # the right margin holds the numbers
    ax.set(xlim=(lowest - 0.05 * span, high.max() + 0.17 * span), ylim=(len(table) - 0.5, -0.5))
    ax.grid(axis="y", visible=False)
    ax.set_yticks(rows, table["model"].astype(str))
    ax.set(xlabel="weighted F1", ylabel="model")
    legend_outside(ax, [dots, *([line] if chance is not None else [])])
    return ax


def confusion(matrix: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Confusion matrix: colour and upper number are the share of the true class, the lower number counts clips.

    Parameters
    ----------
    matrix : DataFrame
        Counts; index the true class, columns the predicted one.
    """
    ax = new_axes(ax, 0.9 + 0.62 * len(matrix), width=min(WIDTH, 2.4 + 0.85 * len(matrix)))
    counts = matrix.to_numpy(float)
    shares = np.divide(counts, counts.sum(axis=1, keepdims=True), out=np.zeros_like(counts), where=counts > 0)
    texts = [[f"{s:.0%}\n{n:g}" for s, n in zip(*rows, strict=True)] for rows in zip(shares, counts, strict=True)]
    table = pd.DataFrame(shares, matrix.index, matrix.columns)
    bar = {"label": "share of the true class"}
    sns.heatmap(
        table, annot=np.array(texts), fmt="", cmap="Blues", vmin=0, vmax=1, cbar_kws=bar, annot_kws={"size": 9}, ax=ax
    )
    ax.set(xlabel="predicted", ylabel="true")
    ax.tick_params(axis="y", rotation=0)
    return ax


def per_class_f1(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """F1 of each model (row) on each class (column), values in 0…1, as a heatmap with numbers."""
    ax = new_axes(ax, 1.1 + 0.36 * len(table))
    bar = {"label": "F1"}
    sns.heatmap(
        table.astype(float),
        annot=True,
        fmt=".2f",
        cmap="viridis",
        vmin=0,
        vmax=1,
        cbar_kws=bar,
        annot_kws={"size": 9},
        ax=ax,
    )
    ax.set(xlabel="class", ylabel="model")
    ax.tick_params(axis="y", rotation=0)
    return ax


def stream_weights(predictions: pd.DataFrame, by: str = "label", ax: Axes | None = None) -> Axes:
    """How a fusion weighs the streams, class by class; the dashed line is equal weight.

    Parameters
    ----------
    predictions : DataFrame
        Columns w_<stream> (0…1, a row sums to 1) and `by`.
    by : str
        "label" or "predicted".

    Raises
    ------
    ValueError
        If the predictions have no weights.
    """
    streams = [column.removeprefix("w_") for column in predictions if column.startswith("w_")]
    if not streams:
        raise ValueError("these predictions have no w_<stream> columns: the model does not weigh streams")
    ax = new_axes(ax, 3.4)
    long = predictions.rename(columns={f"w_{stream}": stream for stream in streams})
    long = long.melt(id_vars=by, value_vars=streams, var_name="stream", value_name="weight")
    order = [name for name in EMOTION_COLOURS if name in set(long[by])]
    order += sorted(set(long[by]) - set(order))
    sns.boxplot(
        long, x=by, y="weight", hue="stream", order=order, palette=colours(streams, STREAM_COLOURS), fliersize=1.5,
        linewidth=1, ax=ax,
    )  # fmt: skip
    ax.axhline(1 / len(streams), linestyle="--", linewidth=1, color="#3b3b3b")
    ax.set(xlabel=by, ylabel="weight of the stream", ylim=(-0.02, 1.02))
    legend_outside(ax, title="stream")
    return ax
