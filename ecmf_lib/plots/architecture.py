"""ECMF as a drawing, true to ``forward`` of :class:`ecmf_lib.fusion.ECMF`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

from ecmf_lib.plots.marks import DARK
from ecmf_lib.plots.style import STREAM_COLOURS, WIDTH, colours

#: What can be drawn or left out.
PARTS = ("modality_dropout", "auxiliary", "sum_attended")
RESIDUALS = ("stream", "concat", "none")

_STEP = 0.52  # in from stream to stream
_GREY, _WARM = "#f2f2f2", "#fdf3dc"  # fill of boxes that all streams share; of those that act in training only
_TRAINING = "#a35200"  # edge and arrows of what acts in training only
_TAP, _TRUNK, _TOKENS, _SUM, _PLUS = 1.42, 3.42, 3.1, 5.45, 7.12  # in; x of what several paths meet
_EXPERTS, _BELOW = 0.66, 0.68  # in; height of the experts' path, room that it takes


def architecture(
    dims: Mapping[str, int],
    *,
    width: int = 64,
    heads: int = 4,
    residual: str = "stream",
    experts: bool = True,
    attention: bool = True,
    parts: Collection[str] = ("modality_dropout", "auxiliary"),
) -> Figure:
    """Draw ECMF from the streams to the class scores; dashed is what acts in training only.

    Dropout on features and tokens, the code of each stream and the normalisation before attention are not drawn; nor
    that in training the experts' opinions come from experts that were not fitted on the clip.

    Parameters
    ----------
    dims : mapping of str to int
        Stream → feature dimension; two to six streams fit well.
    width, heads, residual, experts, attention
        As of :class:`ecmf_lib.fusion.ECMF`.
    parts : collection of str
        Of :data:`PARTS`: modality dropout and the losses on streams' own opinions (dashed), and whether attended tokens
        are summed in place of the projections.

    Raises
    ------
    ValueError
        No stream, or an unknown residual or part.
    """
    if not dims:
        raise ValueError("a drawing of ECMF needs at least one stream")
    if residual not in RESIDUALS:
        raise ValueError(f"residual = {residual!r}; choose from {', '.join(RESIDUALS)}")
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise ValueError(f"no part {', '.join(unknown)}; choose from {', '.join(PARTS)}")
    tall = max(3.0, _STEP * len(dims))
    bottom = 0.42 + _BELOW * experts
    # a line passes above the upper path where the residual is "concat"
    figure, ax = _sheet(bottom + tall + (0.5 if residual == "concat" else 0.4))
    rows = bottom + tall * (1 - (np.arange(len(dims)) + 0.5) / len(dims))
    top, middle, low = bottom + tall * np.array([5, 3, 1]) / 6
    _streams(ax, dims, rows, width, hides="modality_dropout" in parts)
    from_ = _weights(ax, middle, heads, attention)
    attended = attention and "sum_attended" in parts
    adds = experts or residual == "stream"
    _fused(ax, top, middle, residual, joins=from_ if attended else None, adds=adds)
    _opinions(ax, low, top, middle, residual, losses="auxiliary" in parts, alone=not experts)
    if experts:
        _experts(ax, rows, low, top, middle, joins=residual == "stream")
    paths = [middle] if attended else [top, middle]
    if residual == "stream" or "auxiliary" in parts:
        paths.append(low)
    if residual == "concat":
        paths.append(top + 0.42)
    _line(ax, [(_TRUNK, min(*paths, *rows)), (_TRUNK, max(*paths, *rows))])
    _key(ax, bool({"modality_dropout", "auxiliary"} & set(parts)))
    return figure


def _sheet(height: float) -> tuple[Figure, Axes]:
    """An empty page whose data units are inches."""
    figure = plt.figure(figsize=(WIDTH, height))
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, WIDTH), ylim=(0, height))
    ax.set_axis_off()
    return figure, ax


def _box(ax: Axes, x: float, y: float, size: tuple[float, float], text: str, *, edge=DARK, fill=_GREY, **options):
    """A box with its centre at (x, y); `size` in inches."""
    training = options.pop("training", False)
    wide, tall = size
    box = FancyBboxPatch(
        (x - wide / 2, y - tall / 2), wide, tall, boxstyle="round,pad=0,rounding_size=0.06", linewidth=1.2,
        edgecolor=_TRAINING if training else edge, facecolor=_WARM if training else fill,
        linestyle="--" if training else "-", zorder=3,
    )  # fmt: skip
    ax.add_patch(box)
    settings = {"fontsize": 8, "linespacing": 1.15} | options
    ax.text(x, y, text, ha="center", va="center", parse_math=False, zorder=4, **settings)


def _line(ax: Axes, points: Sequence[tuple[float, float]], *, arrow: bool = False, training: bool = False) -> None:
    """A line through the points, its last stretch an arrow if told."""
    colour, style = (_TRAINING, "--") if training else (DARK, "-")
    *straight, last = points
    if not arrow:
        ax.plot(*zip(*points, strict=True), color=colour, linestyle=style, linewidth=1.1, zorder=1)
        return
    if len(straight) > 1:
        ax.plot(*zip(*straight, strict=True), color=colour, linestyle=style, linewidth=1.1, zorder=1)
    ax.add_patch(
        FancyArrowPatch(
            straight[-1], last, arrowstyle="-|>", mutation_scale=9, color=colour, linestyle=style, linewidth=1.1,
            shrinkA=0, shrinkB=0, zorder=2,
        )
    )  # fmt: skip


def _sum_sign(ax: Axes, x: float, y: float) -> None:
    ax.add_patch(Circle((x, y), 0.1, facecolor="white", edgecolor=DARK, linewidth=1.2, zorder=3))
    ax.plot([x - 0.055, x + 0.055], [y, y], color=DARK, linewidth=1.2, zorder=4)
    ax.plot([x, x], [y - 0.055, y + 0.055], color=DARK, linewidth=1.2, zorder=4)


def _note(ax: Axes, x: float, y: float, text: str, **options) -> None:
    ax.text(x, y, text, **({"fontsize": 8, "ha": "center", "va": "bottom", "color": DARK} | options))


def _pale(colour: str) -> tuple[float, ...]:
    return tuple(0.25 * part + 0.75 for part in to_rgb(colour))


def _streams(ax: Axes, dims: Mapping[str, int], rows: np.ndarray, width: int, *, hides: bool) -> None:
    """Left part: a box a stream, its projection, and its token of the common width."""
    palette = colours(list(dims), STREAM_COLOURS)
    for (name, dim), y in zip(dims.items(), rows, strict=True):
        shown = name if len(name) <= 16 else f"{name[:15]}…"
        text = f"{shown}\n{dim:,}"
        _box(ax, 0.7, y, (1.2, 0.4), text, edge=palette[name], fill=_pale(palette[name]))
        _line(ax, [(1.3, y), (1.62, y)], arrow=True)
        _box(ax, 1.98, y, (0.72, 0.4), "linear\nGELU")
        _line(ax, [(2.34, y), (_TOKENS - 0.13, y)], arrow=True)
        _box(ax, _TOKENS, y, (0.26, 0.26), "", edge=DARK, fill=palette[name])
        _line(ax, [(_TOKENS + 0.13, y), (_TRUNK, y)])
    if hides:
        middle, tall = (rows[0] + rows[-1]) / 2, max(rows[0] - rows[-1] + 0.44, 1.3)
        _box(ax, 2.65, middle, (0.24, tall), "modality dropout", training=True, rotation=90)
    above = rows[0] + 0.25
    _note(ax, 0.7, above, "streams, features")
    _note(ax, 1.98, above, "projections")
    _note(ax, _TOKENS, above, f"tokens\nof {width}")


def _weights(ax: Axes, y: float, heads: int, attention: bool) -> tuple[float, float]:
    """Middle path: tokens look at each other, then share out a weight of 1. Gives where attended tokens come out."""
    out = _TRUNK
    if attention:
        _line(ax, [(_TRUNK, y), (3.7, y)], arrow=True)
        _box(ax, 4.1, y, (0.8, 0.6), f"self-attention\nover streams\n{heads} heads", fontsize=7.5)
        _line(ax, [(4.5, y), (4.62, y)])
        _line(ax, [(3.54, y), (3.54, y + 0.4), (4.71, y + 0.4), (4.71, y + 0.1)], arrow=True)  # skip connection
        _sum_sign(ax, 4.71, y)
        out = 4.81
    _line(ax, [(out, y), (4.99, y)], arrow=True)
    _box(ax, _SUM + 0.07, y, (1.06, 0.6), "score + prior,\nsoftmax over the\nclip's streams", fontsize=7.5)
    return out, y


def _fused(ax: Axes, y: float, middle: float, residual: str, *, joins: tuple[float, float] | None, adds: bool) -> None:
    """Upper path: weighted sum of tokens → classifier → class scores."""
    if joins is None:
        _line(ax, [(_TRUNK, y), (_SUM - 0.4, y)], arrow=True)
        _note(ax, 4.2, y + 0.03, "original tokens", fontsize=7.5)
    else:
        _line(ax, [(4.88, middle), (4.88, y), (_SUM - 0.4, y)], arrow=True)
    _line(ax, [(_SUM, middle + 0.3), (_SUM, y - 0.24)], arrow=True)
    _note(ax, _SUM + 0.06, (middle + y) / 2, "a weight for each stream", ha="left", va="center", fontsize=7.5)
    _box(ax, _SUM, y, (0.8, 0.46), "weighted\nsum")
    _line(ax, [(_SUM + 0.4, y), (6.1, y)], arrow=True)
    _box(ax, 6.45, y, (0.7, 0.46), "classifier")
    if adds:
        _line(ax, [(6.8, y), (_PLUS - 0.1, y)], arrow=True)
        _sum_sign(ax, _PLUS, y)
    _line(ax, [(_PLUS + 0.1 if adds else 6.8, y), (7.36, y)], arrow=True)
    _box(ax, 7.64, y, (0.56, 0.46), "class\nscores", fill="white")
    if residual == "concat":
        _line(ax, [(_TRUNK, y + 0.42), (6.45, y + 0.42), (6.45, y + 0.24)], arrow=True)
        _note(ax, 4.9, y + 0.45, "residual: all tokens beside the sum", fontsize=7.5)


def _opinions(ax: Axes, y: float, top: float, middle: float, residual: str, *, losses: bool, alone: bool) -> None:
    """Lower path: each token has a classifier of its own; its opinion is added to the logits, or only trained on.

    Unless `alone`, the opinions of experts are added on the way.
    """
    used = residual == "stream"
    if not (used or losses):
        return
    _line(ax, [(_TRUNK, y), (3.64, y)], arrow=True, training=not used)
    _box(ax, 4.1, y, (0.92, 0.46), "each stream's\nown classifier", fontsize=7.5, training=not used)
    if used:
        _line(ax, [(4.56, y), (_SUM - 0.46, y)], arrow=True)
        _line(ax, [(_SUM, middle - 0.3), (_SUM, y + 0.24)], arrow=True)
        _box(ax, _SUM + 0.07, y, (1.06, 0.46), "weighted sum ×\nstreams present", fontsize=7.5)
        if alone:
            _line(ax, [(_SUM + 0.6, y), (_PLUS, y), (_PLUS, top - 0.1)], arrow=True)
            _note(ax, _PLUS - 0.06, (top + y) / 2, "residual:\nown opinions", ha="right", va="center", fontsize=7.5)
        else:
            _note(ax, 6.55, y + 0.04, "residual:\nown opinions", fontsize=7.5)
            _line(ax, [(_SUM + 0.6, y), (_PLUS - 0.1, y)], arrow=True)
            _line(ax, [(_PLUS, y), (_PLUS, top - 0.1)], arrow=True)
            _sum_sign(ax, _PLUS, y)
    if losses:
        _line(ax, [(4.1, y - 0.23), (4.1, y - 0.42)], arrow=True, training=True)
        _box(ax, 4.1, y - 0.56, (1.3, 0.26), "auxiliary losses", training=True)


def _experts(ax: Axes, rows: np.ndarray, low: float, top: float, middle: float, *, joins: bool) -> None:
    """Lowest path: what linear experts say of the features themselves; `joins`: to where the own opinions come out."""
    y = _EXPERTS
    ax.plot(np.full(len(rows), _TAP), rows, "o", color=DARK, markersize=3.2, zorder=2)
    _line(ax, [(_TAP, rows[0]), (_TAP, y), (1.62, y)], arrow=True)
    _note(ax, _TAP - 0.08, y, "original features", ha="right", va="center", fontsize=7.5)
    _box(ax, 2.37, y, (1.5, 0.46), "linear expert a stream,\nclosed form")
    _line(ax, [(3.12, y), (_SUM - 0.46, y)], arrow=True)
    _note(ax, 4.05, y + 0.03, "log-opinions", fontsize=7.5)
    _line(ax, [(_SUM, low - 0.23 if joins else middle - 0.3), (_SUM, y + 0.3)], arrow=True)
    if joins:  # a second arrow from the box above would read as its result
        _note(ax, _SUM + 0.06, (low - 0.23 + y + 0.3) / 2, "the same weights", ha="left", va="center", fontsize=7.5)
    _box(ax, _SUM + 0.07, y, (1.06, 0.6), "weighted sum ×\nstreams present\n× learned trust", fontsize=7.5)
    _line(ax, [(_SUM + 0.6, y), (_PLUS, y), (_PLUS, (low if joins else top) - 0.1)], arrow=True)
    _note(ax, 6.55, y + 0.04, "residual:\nlinear experts", fontsize=7.5)


def _key(ax: Axes, training: bool) -> None:
    """Which outline means what, bottom right."""
    if training:
        _box(ax, 5.3, 0.17, (0.3, 0.16), "", training=True)
        _note(ax, 5.53, 0.17, "in training only", ha="left", va="center")
    _note(ax, 0.1, 0.17, "A stream that a clip lacks is masked and has weight 0.", ha="left", va="center")
