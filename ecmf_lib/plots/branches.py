"""Both visual branches of one clip on one time axis: pictures above, what their encoders see below."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import shorten

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ecmf_lib.plots.style import STREAM_COLOURS, WIDTH, colours

_LEFT, _RIGHT = 0.25, 0.9  # of the page: names of features to the left, colour scales to the right
_SHOWN = 6  # pictures in a row; with more, a face would be too small to read
_LARGEST = 1.6  # in, width of a picture
_NOTHING = "#d9d9d9"  # where a branch sees nothing


def two_branches(
    frames: np.ndarray,
    times: np.ndarray,
    boxes: np.ndarray,
    crops: np.ndarray,
    found: np.ndarray,
    changes: Mapping[str, pd.DataFrame],
    departures: Mapping[str, pd.Series],
    shares: pd.DataFrame | None = None,
) -> Figure:
    """Frames, face crops, and under them what the encoder of each branch sees change.

    Parameters
    ----------
    frames : uint8 [n, H, W, 3]
    times : float [n]
        Seconds, ascending.
    boxes : float [n, 4]
        x0, y0, x1, y1 in pixels of the frame; NaN where no face was found.
    crops : uint8 [n, size, size, 3]
    found : bool [n]
        A frame without a face of its own has a grey field in place of the crop.
    changes : mapping of str to DataFrame
        Title of a branch → rows numbers, columns times, values differences from the clip's mean in standard deviations
        between clips; see :meth:`ecmf_lib.branches.Branch.changes`.
    departures : mapping of str to Series
        Stream → how far each moment is from the clip's mean, by time.
    shares : DataFrame, optional
        Rows classes, columns times, values probabilities, where the face encoder is a classifier.
    """
    times, found = np.asarray(times, float), np.asarray(found, bool)
    shown = np.arange(0, len(frames), -(-len(frames) // _SHOWN))
    apart = (np.diff(times[shown]).min() if len(shown) > 1 else 0) or 1.0
    limits = times[0] - apart / 2, times[-1] + apart / 2
    scale = WIDTH * (_RIGHT - _LEFT) / (limits[1] - limits[0])  # inches a second
    wide = min(0.97 * apart, _LARGEST / scale)
    tables = [*changes.values(), *([] if shares is None else [shares])]
    heights = [wide * scale * images.shape[1] / images.shape[2] for images in (frames, crops)]
    heights += [*(0.2 * len(table) for table in tables), 1.2]
    figure, rows = _stacked_axes(heights, above=[0.25, 0.1, *[0.32] * (len(tables) + 1)])
    _pictures(rows[0], "whole frames", frames[shown], times[shown], wide)
    _boxes(rows[0], boxes[shown], frames.shape[1:3], times[shown], wide)
    own = np.where(found[:, None, None, None], crops, np.uint8(0xD9))
    _pictures(rows[1], "face crops", own[shown], times[shown], wide)
    for time in times[shown][~found[shown]]:
        rows[1].text(time, 0.5, "no face", ha="center", va="center", fontsize=8)
    reach = max(1.0, *(np.ceil(np.quantile(np.abs(table), 0.95)) for table in changes.values()))
    for ax, (title, table) in zip(rows[2:], changes.items(), strict=False):
        _heat(ax, table, times, title, limits=(-reach, reach), says="deviations\nbetween clips", palette="RdBu_r")
    if shares is not None:
        _heat(rows[-2], shares, times, "face: classes", limits=(0, 1), says="probability", palette="viridis")
    _lines(rows[-1], departures)
    for ax in rows:
        ax.set_xlim(limits)
        ax.tick_params(labelbottom=ax is rows[-1])
    return figure


def _stacked_axes(heights: list[float], above: list[float], below: float = 0.5) -> tuple[Figure, list[Axes]]:
    """Axes of the same width one under the other: heights and the gaps above them in inches."""
    total = sum(heights) + sum(above) + below
    figure, top, rows = plt.figure(figsize=(WIDTH, total)), total, []
    for height, gap in zip(heights, above, strict=True):
        top -= gap + height
        rows.append(figure.add_axes((_LEFT, top / total, _RIGHT - _LEFT, height / total)))
    return figure, rows


def _pictures(ax: Axes, label: str, images: np.ndarray, centres: np.ndarray, wide: float) -> None:
    """Images over their times, `wide` seconds each; the axes are as high as that makes them."""
    for image, time in zip(images, centres, strict=True):
        ax.imshow(image, extent=(time - wide / 2, time + wide / 2, 0, 1), aspect="auto", interpolation="antialiased")
    ax.set(ylim=(0, 1), yticks=[], xticks=[])
    ax.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)


def _boxes(ax: Axes, boxes: np.ndarray, size: tuple[int, int], centres: np.ndarray, wide: float) -> None:
    for box, time in zip(np.asarray(boxes, float), centres, strict=True):
        if np.isnan(box).any():
            continue
        x0, x1 = time + wide * (np.clip(box[[0, 2]] / size[1], 0, 1) - 0.5)
        y1, y0 = 1 - np.clip(box[[1, 3]] / size[0], 0, 1)
        ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor="#f0e442", linewidth=1.5))


def _edges(times: np.ndarray) -> np.ndarray:
    """Borders halfway between moments, [n + 1]."""
    if len(times) == 1:
        return times[0] + np.array([-0.5, 0.5])
    middle = (times[:-1] + times[1:]) / 2
    return np.concatenate([[2 * times[0] - middle[0]], middle, [2 * times[-1] - middle[-1]]])


def _heat(
    ax: Axes,
    table: pd.DataFrame,
    times: np.ndarray,
    title: str,
    *,
    limits: tuple[float, float],
    says: str,
    palette: str,
) -> None:
    if set(table.columns) <= set(times):  # a moment in which the branch sees nothing stays grey
        table = table.reindex(columns=times)
    edges = _edges(table.columns.to_numpy(float))
    low, high = limits
    ax.set_facecolor(_NOTHING)
    mesh = ax.pcolormesh(edges, np.arange(len(table) + 1), table.to_numpy(float), cmap=palette, vmin=low, vmax=high)
    ax.set_yticks(np.arange(len(table)) + 0.5, [shorten(_plain(name), 30, placeholder="…") for name in table.index])
    ax.tick_params(axis="y", labelsize=8)
    ax.invert_yaxis()
    ax.grid(visible=False)
    ax.set_title(title, fontsize=9, loc="left")
    box = ax.get_position()
    scale = ax.figure.add_axes((_RIGHT + 0.01, box.y0, 0.012, box.height))
    bar = ax.figure.colorbar(mesh, cax=scale, extend="both" if low < 0 else "neither", ticks=sorted({low, 0, high}))
    bar.ax.tick_params(labelsize=7)
    bar.set_label(says, fontsize=7)


def _plain(name: object) -> str:
    return str(name).replace("_", " ")


def _lines(ax: Axes, departures: Mapping[str, pd.Series]) -> None:
    palette = colours(list(departures), STREAM_COLOURS)
    for stream, series in departures.items():
        ax.plot(series.index, series, ".-", color=palette[stream], label=stream)
    ax.set(ylim=(0, None), xlabel="time (s)")
    ax.set_ylabel("away from\nthe clip's mean", fontsize=8)
    ax.tick_params(labelsize=8)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.05), frameon=False, fontsize=8, handlelength=1)
