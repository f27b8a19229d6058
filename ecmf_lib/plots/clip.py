"""Pictures of one clip: frames, face crops, sound, the features that stand out."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ecmf_lib.plots.style import STREAM_COLOURS, WIDTH, new_axes


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
    ax = new_axes(ax, 0.25 + width * rows * (height + line) / (min(columns, len(images)) * wide), width)
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
    ax = new_axes(ax, 2.6)
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
    ax = new_axes(ax, 0.9 + 0.27 * len(order))
    shown = values[order]
    ax.barh(range(len(order)), shown, color=np.where(shown >= 0, "#d55e00", "#0072b2"), height=0.7)
    ax.set_yticks(range(len(order)), [shorten(str(names[i]).replace("_", " "), 48, placeholder="…") for i in order])
    ax.axvline(0, color="#3b3b3b", linewidth=1)
    ax.invert_yaxis()
    ax.set(xlabel="z-score against the corpus", ylabel="feature")
    ax.grid(axis="y", visible=False)
    return ax
