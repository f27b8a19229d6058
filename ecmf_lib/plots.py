"""Pictures for the reports: a table or array in, the Axes out.

Colours are fixed per emotion and per stream in every figure and can be told apart with colour-blind eyes (emotions:
Okabe & Ito 2008; streams: Paul Tol's "muted" scheme). Every function draws into `ax`, or into a new figure of page
width. Nothing here puts transcripts in a figure: matplotlib's own font has no Chinese glyphs.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from textwrap import shorten

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from sklearn.metrics import cohen_kappa_score

from ecmf_lib.config import STREAMS

WIDTH = 8.0  # in; the text width of a report page
EMOTION_COLOURS = {
    "neutral": "#8c8c8c",
    "angry": "#d55e00",
    "happy": "#e69f00",
    "sad": "#0072b2",
    "worried": "#cc79a7",
    "surprise": "#009e73",
}
STREAM_COLOURS = {"global": "#332288", "face": "#88ccee", "audio": "#117733", "text": "#cc6677"}
_SPARE = (
    "#ddcc77",
    "#44aa99",
    "#882255",
    "#999933",
    "#aa4499",
    "#56b4e9",
)  # for names that have no colour of their own


_CJK_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "PingFang SC", "Microsoft YaHei", "SimHei")


def use_style() -> None:
    """White ground, light grid, one readable size; call once at the top of a notebook."""
    sns.set_theme(context="notebook", style="whitegrid", font_scale=0.9)
    # names of speakers may be Chinese; a font that has the glyphs is used where the machine has one
    installed = set(font_manager.get_font_names())
    plt.rcParams["font.family"] = ["DejaVu Sans", *(name for name in _CJK_FONTS if name in installed)]
    warnings.filterwarnings("ignore", message="Glyph .* missing from font")
    warnings.filterwarnings("ignore", message="vert: bool was deprecated")  # seaborn 0.13 on matplotlib 3.11


def colours(names: Sequence[str], fixed: Mapping[str, str]) -> dict[str, str]:
    """Name → colour: the fixed one, or a spare one in order of appearance for other names."""
    others = [name for name in names if name not in fixed]
    spare = {name: _SPARE[i % len(_SPARE)] for i, name in enumerate(others)}
    return {name: fixed.get(name) or spare[name] for name in names}


def _axes(ax: Axes | None, height: float, width: float = WIDTH) -> Axes:
    return ax if ax is not None else plt.subplots(figsize=(width, height), layout="constrained")[1]


def _legend_outside(ax: Axes, handles: list | None = None, title: str | None = None) -> None:
    options = {} if handles is None else {"handles": handles}
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, title=title, **options)


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


# --- the corpus ----------------------------------------------------------------------------------------------------


def class_balance(clips: pd.DataFrame, classes: Sequence[str], ax: Axes | None = None) -> Axes:
    """Clips of each class, split by split.

    Parameters
    ----------
    clips : DataFrame
        Columns label ("" where a clip has none) and split.
    classes : sequence of str
        Order of the bars.
    """
    ax = _axes(ax, 3.2)
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
    _legend_outside(ax, handles, "split")
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
    ax = _axes(ax, 3.2)
    votes = clips.loc[clips["label"].isin(classes), ["label", *voters]]
    kinds = votes.apply(lambda row: _agreement([v for v in row[voters] if v]), axis=1)
    order = ["all agree", "majority", "no majority"]
    counts = pd.crosstab(votes["label"], kinds).reindex(index=classes, columns=order, fill_value=0)
    _stacked(ax, counts, dict(zip(order, ("#0072b2", "#88ccee", "#d55e00"), strict=True)))
    _legend_outside(ax, title="annotators")
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
    ax = _axes(ax, 1.2 + 0.4 * max(len(streams), 3))
    # a failed clip's own message names its file, so each is different: one name for all of them
    failed = ledger["status"].eq("failed")
    said = ledger[streams].apply(lambda column: column.mask(failed & column.ne("done"), "clip failed"))
    said = said.map(lambda text: shorten(text, 36, placeholder="…"))
    commonest = said.stack().value_counts().drop("done", errors="ignore").index[:6].tolist()
    parts = ["done", *commonest]
    said = said.where(said.isin(parts), "other reasons")
    parts += ["other reasons"] * bool((said == "other reasons").to_numpy().any())
    counts = said.apply(lambda column: column.value_counts()).reindex(parts).fillna(0).astype(int).T
    _stacked(ax, counts, {"done": "#0072b2"} | dict(zip(parts[1:], (*_SPARE, "#bdbdbd"), strict=False)))
    _legend_outside(ax)
    ax.set(xlabel=f"clips (of {len(ledger)})", ylabel="stream")
    return ax


# --- one clip ------------------------------------------------------------------------------------------------------


def _corner(i: int, columns: int, height: int, wide: int) -> tuple[float, float]:
    """Where the i-th image of a montage starts: a narrow gap between columns, a line for the caption above each row."""
    return i % columns * 1.03 * wide, i // columns * (height + _line(wide, columns))


def _line(wide: int, columns: int) -> float:
    """Height of a caption in pixels of the images: 0.19 in on a page where `columns` images share the width."""
    return 0.19 * columns * wide / WIDTH


def _montage(ax: Axes | None, images: np.ndarray, captions: Sequence[str], columns: int, width: float) -> Axes:
    """Images side by side in rows of `columns`, each under its caption; data units are pixels."""
    height, wide = images.shape[1:3]
    rows = -(-len(images) // columns)
    line = _line(wide, columns)
    ax = _axes(ax, 0.25 + width * rows * (height + line) / (min(columns, len(images)) * wide), width)
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = _corner(i, columns, height, wide)
        ax.imshow(image, extent=(x, x + wide, y + height, y), interpolation="antialiased")
        ax.text(x + wide / 2, y - 0.15 * line, caption, ha="center", va="bottom", fontsize=8)
    ax.set(xlim=(0, min(columns, len(images)) * 1.03 * wide), ylim=(rows * (height + line) - line, -line))
    ax.set_axis_off()
    return ax


def film_strip(
    frames: np.ndarray, times: np.ndarray, boxes: np.ndarray | None = None, *, columns: int = 6, ax: Axes | None = None
) -> Axes:
    """Sampled frames with their times, and the face that was found.

    Parameters
    ----------
    frames : uint8 [n, H, W, 3]
    times : float [n]
        Seconds.
    boxes : float [n, 4], optional
        x0, y0, x1, y1 in pixels of the frame; NaN where no face was found.
    columns : int
        Frames a row.
    """
    ax = _montage(ax, frames, [f"{time:.2f} s" for time in times], columns, WIDTH)
    height, wide = frames.shape[1:3]
    for i, box in enumerate([] if boxes is None else np.asarray(boxes, float)):
        if np.isnan(box).any():
            continue
        x, y = _corner(i, columns, height, wide)
        # a face at the border has a box that leaves the frame: draw what lies inside
        x0, y0, x1, y1 = np.clip(box, 0, [wide, height, wide, height])
        ax.add_patch(Rectangle((x + x0, y + y0), x1 - x0, y1 - y0, fill=False, edgecolor="#f0e442", linewidth=1.8))
    return ax


def gallery(images: np.ndarray, captions: Sequence[str], *, columns: int = 6, ax: Axes | None = None) -> Axes:
    """Pictures of one size, uint8 [n, H, W, 3], each under its caption."""
    return _montage(ax, images, captions, columns, WIDTH)


def face_crops(crops: np.ndarray, found: np.ndarray, *, columns: int = 12, ax: Axes | None = None) -> Axes:
    """The aligned crops that the face branch sees; those of frames without a face are pale and marked "carried".

    Parameters
    ----------
    crops : uint8 [n, size, size, 3]
    found : bool [n]
    """
    pale = (160 + crops.astype(np.float32) * 0.35).clip(0, 255).astype(np.uint8)
    shown = np.where(np.asarray(found)[:, None, None, None], crops, pale)
    return _montage(ax, shown, ["" if own else "carried" for own in found], columns, WIDTH)


def waveform_and_pitch(audio: np.ndarray, sr: int, pitch: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Waveform (left axis) and pitch contour (right axis) over time.

    Parameters
    ----------
    audio : float32 [samples]
    sr : int
        Hz.
    pitch : DataFrame
        Columns time (s) and hz (NaN where unvoiced), as from :func:`ecmf_lib.encoders.audio.pitch`.
    """
    ax = _axes(ax, 2.6)
    # the outline at 1,200 points looks like the waveform and keeps the report small
    edges = np.unique(np.linspace(0, len(audio), min(len(audio), 1200) + 1).astype(int))[:-1]
    high, low = np.maximum.reduceat(audio, edges), np.minimum.reduceat(audio, edges)
    ax.fill_between(edges / sr, low, high, color="#9aa5b1", linewidth=0.4, label="waveform")
    reach = max(float(np.abs(audio).max()), 1e-3) * 1.1
    ax.set(xlabel="time (s)", ylabel="amplitude", xlim=(0, len(audio) / sr), ylim=(-reach, reach))
    ax.grid(visible=False)
    right = ax.twinx()
    right.grid(visible=False)
    (dots,) = right.plot(pitch["time"], pitch["hz"], ".", markersize=4, color=STREAM_COLOURS["audio"], label="pitch")
    right.set_ylabel("pitch (Hz)", color=STREAM_COLOURS["audio"])
    if pitch["hz"].notna().any():
        right.set_ylim(0, 1.15 * pitch["hz"].max())
    right.legend(handles=[ax.collections[0], dots], loc="upper right", ncols=2, framealpha=0.9)
    return ax


def feature_bars(names: Sequence[str], values: np.ndarray, *, top: int = 12, ax: Axes | None = None) -> Axes:
    """The features of a clip that stand out most.

    Parameters
    ----------
    names : sequence of str
    values : float [features]
        z-scores against the corpus.
    top : int
        How many to show, by absolute value.
    """
    values = np.asarray(values, dtype=float)
    order = np.argsort(-np.abs(values), kind="stable")[:top]
    ax = _axes(ax, 0.9 + 0.27 * len(order))
    shown = values[order]
    ax.barh(range(len(order)), shown, color=np.where(shown >= 0, "#d55e00", "#0072b2"), height=0.7)
    ax.set_yticks(range(len(order)), [shorten(str(names[i]).replace("_", " "), 48, placeholder="…") for i in order])
    ax.axvline(0, color="#3b3b3b", linewidth=1)
    ax.invert_yaxis()
    ax.set(xlabel="z-score against the corpus", ylabel="feature")
    ax.grid(axis="y", visible=False)
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


# --- models --------------------------------------------------------------------------------------------------------


def scores_with_intervals(table: pd.DataFrame, *, chance: float | None = None, ax: Axes | None = None) -> Axes:
    """Weighted F1 of each model with its interval, in the order of the table.

    Parameters
    ----------
    table : DataFrame
        Columns model, weighted_f1, low, high (NaN: no interval is drawn).
    chance : float, optional
        Score of guessing, drawn as a line.
    """
    ax = _axes(ax, 1.0 + 0.34 * len(table))
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
    _legend_outside(ax, [dots, *([line] if chance is not None else [])])
    return ax


def confusion(matrix: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Confusion matrix: colour and upper number are the share of the true class, the lower number counts clips.

    Parameters
    ----------
    matrix : DataFrame
        Counts; index the true class, columns the predicted one.
    """
    ax = _axes(ax, 0.9 + 0.62 * len(matrix), width=min(WIDTH, 2.4 + 0.85 * len(matrix)))
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
    ax = _axes(ax, 1.1 + 0.36 * len(table))
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
    ax = _axes(ax, 3.4)
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
    _legend_outside(ax, title="stream")
    return ax
