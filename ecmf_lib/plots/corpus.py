"""Pictures of a corpus: its labels, its annotators, what extraction made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from textwrap import shorten

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from sklearn.metrics import cohen_kappa_score

from ecmf_lib.config import STREAMS
from ecmf_lib.plots.style import EMOTION_COLOURS, SPARE, WIDTH, colours, legend_outside, new_axes


def class_balance(clips: pd.DataFrame, classes: Sequence[str], ax: Axes | None = None) -> Axes:
    """Clips of each class, split by split.

    Parameters
    ----------
    clips : DataFrame
        Columns label ("" where a clip has none) and split.
    classes : sequence of str
        Order of the bars.
    """
    ax = new_axes(ax, 3.2)
    labelled = clips[clips["label"].isin(classes)]
    splits = list(dict.fromkeys(labelled["split"]))
    counts = labelled.groupby(["label", "split"]).size().unstack(fill_value=0).reindex(index=classes, columns=splits)
    counts = counts.fillna(0).astype(int)
    palette = colours(classes, EMOTION_COLOURS)
    strengths = dict(zip(splits, np.linspace(1, 0.35, len(splits)), strict=True))
    bottom = np.zeros(len(classes))
    for split, strength in strengths.items():
        fills = [_paler(palette[name], strength) for name in classes]
        bars = ax.bar(classes, counts[split], bottom=bottom, color=fills)
        for text, fill in zip(_numbers(ax, bars, counts[split]), fills, strict=True):
            text.set_color(_ink(fill))
        bottom += counts[split].to_numpy()
    handles = [Patch(color=_paler("#555555", strength), label=split) for split, strength in strengths.items()]
    legend_outside(ax, handles, "split")
    without = len(clips) - len(labelled)
    ax.set(ylabel="clips", xlabel=f"label ({without} of {len(clips)} clips have none)" if without else "label")
    ax.grid(axis="x", visible=False)
    return ax


def annotator_agreement(clips: pd.DataFrame, classes: Sequence[str], ax: Axes | None = None) -> Axes:
    """How far the annotators agree on the clips of each label; the title gives Cohen's kappa, averaged over pairs.

    Parameters
    ----------
    clips : DataFrame
        Columns label and annotator_* (at least two; "" where one did not vote).
    classes : sequence of str
        Order of the bars.

    Raises
    ------
    ValueError
        With fewer than two annotators.
    """
    voters = [column for column in clips if column.startswith("annotator_")]
    if len(voters) < 2:
        raise ValueError(f"agreement needs two annotator_* columns or more, the table has {len(voters)}")
    ax = new_axes(ax, 3.2)
    votes = clips.loc[clips["label"].isin(classes), ["label", *voters]]
    kinds = votes.apply(lambda row: _agreement([v for v in row[voters] if v]), axis=1)
    order = ["all agree", "majority", "no majority"]
    counts = pd.crosstab(votes["label"], kinds).reindex(index=classes, columns=order, fill_value=0)
    _stacked(ax, counts, dict(zip(order, ("#0072b2", "#88ccee", "#d55e00"), strict=True)))
    legend_outside(ax, title="annotators")
    kappas = []
    for first, second in combinations(voters, 2):
        both = votes[(votes[first] != "") & (votes[second] != "")]
        kappas.append(cohen_kappa_score(both[first], both[second]))
    ax.set(xlabel="clips", ylabel="label", title=f"{len(voters)} annotators, mean pairwise kappa {np.mean(kappas):.2f}")
    return ax


def _agreement(votes: list[str]) -> str:
    most = max((votes.count(vote) for vote in votes), default=0)
    if votes and most == len(votes):
        return "all agree"
    return "majority" if 2 * most > len(votes) else "no majority"


def ledger_summary(ledger: pd.DataFrame, streams: Sequence[str] = STREAMS, ax: Axes | None = None) -> Axes:
    """For each stream: clips with features, and the others by reason, the six commonest by name.

    Parameters
    ----------
    ledger : DataFrame
        One row a clip: column status ("done" or "failed"), and a column for each stream with "done" or why it is
        missing.
    streams : sequence of str
        The bars, as far as the ledger has them.
    """
    streams = [stream for stream in streams if stream in ledger]
    ax = new_axes(ax, 1.2 + 0.4 * max(len(streams), 3))
    # a failed clip's own message names its file, so each is different: one name for all of them
    failed = ledger["status"].eq("failed")
    said = ledger[streams].apply(lambda column: column.mask(failed & column.ne("done"), "clip failed"))
    said = said.map(lambda text: shorten(text, 36, placeholder="…"))
    commonest = said.stack().value_counts().drop("done", errors="ignore").index[:6].tolist()
    parts = ["done", *commonest]
    said = said.where(said.isin(parts), "other reasons")
    parts += ["other reasons"] * bool((said == "other reasons").to_numpy().any())
    counts = said.apply(lambda column: column.value_counts()).reindex(parts).fillna(0).astype(int).T
    _stacked(ax, counts, {"done": "#0072b2"} | dict(zip(parts[1:], (*SPARE, "#bdbdbd"), strict=False)))
    legend_outside(ax)
    ax.set(xlabel=f"clips (of {len(ledger)})", ylabel="stream")
    return ax


def stream_maps(points: pd.DataFrame, colour: str) -> Figure:
    """One small map of the clips for each stream.

    Parameters
    ----------
    points : DataFrame
        stream, x, y and the column `colour`; see :func:`ecmf_lib.explore.flat_map`.
    colour : str
        Column whose values are told apart by colour.
    """
    streams = points["stream"].unique()
    names = [name for name in EMOTION_COLOURS if name in set(points[colour])]
    names += sorted(set(points[colour]) - set(names))
    figure, axes = plt.subplots(1, len(streams), figsize=(WIDTH, 2.9), layout="constrained", squeeze=False)
    # more names than colours that can be told apart: a continuous scale, since only the grouping matters
    many = dict(zip(names, sns.color_palette("husl", len(names)), strict=True))
    palette = colours(names, EMOTION_COLOURS) if len(names) <= len(EMOTION_COLOURS) else many
    for ax, stream in zip(axes[0], streams, strict=True):
        part = points[points["stream"] == stream]
        sns.scatterplot(
            part, x="x", y="y", hue=colour, hue_order=names, palette=palette, s=14, linewidth=0, legend=False, ax=ax
        )
        ax.set(title=stream, xlabel="", ylabel="", xticks=[], yticks=[])
    handles = [Patch(color=palette[name], label=name) for name in names]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False, fontsize=8)
    return figure


def _paler(colour: str, strength: float) -> tuple[float, float, float]:
    """A colour mixed with white; unlike transparency it hides the grid."""
    return tuple(1 - strength * (1 - part) for part in to_rgb(colour))


def _ink(fill) -> str:
    """Black or white, whichever reads better on `fill`."""
    return "white" if np.dot(to_rgb(fill), (0.30, 0.59, 0.11)) < 0.55 else "black"


def _numbers(ax: Axes, bars, values, room: float = 1) -> list:
    """Each bar's number in its middle, where it is at least `room`."""
    return ax.bar_label(bars, [f"{v:g}" if v >= room else "" for v in values], label_type="center", fontsize=9)


def _stacked(ax: Axes, table: pd.DataFrame, palette: Mapping[str, str]) -> None:
    """Horizontal stacked bars: a row of `table` a bar, a column a part; a part's number where it fits."""
    left = np.zeros(len(table))
    room = 0.05 * table.sum(axis=1).max()
    for part in table:
        values = table[part].to_numpy()
        bars = ax.barh(table.index.astype(str), values, left=left, color=palette[part], label=part, height=0.7)
        for text in _numbers(ax, bars, values, room):
            text.set_color(_ink(palette[part]))
        left += values
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
