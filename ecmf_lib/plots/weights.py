"""Single clips: what is seen, what is said, and how much the fusion trusts each stream."""

from __future__ import annotations

import re
from collections.abc import Sequence
from unicodedata import east_asian_width

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecmf_lib.plots.marks import DARK, PALE, needs, plain
from ecmf_lib.plots.style import STREAM_COLOURS, WIDTH, cjk_fonts, colours

_LINE, _LINES = 36, 5  # letters in a line of words, lines of words
_CJK = r"\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"  # Chinese characters and punctuation
#: Words, or pieces of words too long for a line; each Chinese character or punctuation mark is a piece of its own.
_PIECE = rf"\s+|[^\s{_CJK}]{{1,16}}|\S"
_NO_FONT, _GREY = "(Chinese words: the table below has them)", "#6b6b6b"
_RIGHT, _WRONG = "#00795a", "#b84a00"  # colour-blind safe, dark enough for text


def clip_weights(
    frames: Sequence[np.ndarray | None] | None, words: Sequence[str | None], table: pd.DataFrame
) -> Figure:
    """A row a clip: a picture, its words, and the weight of each stream; dashed: equal weight of those present.

    Parameters
    ----------
    frames : sequence of uint8 [H, W, 3] or None
        None for a clip without a picture, or for all; a grey field stands in its place.
    words : sequence of str or None
        What is said; wrapped, and cut after five lines. A note stands in place of Chinese words where no font that has
        them is installed (:func:`ecmf_lib.plots.style.cjk_fonts`).
    table : DataFrame
        Columns label ("" or NaN if not known), predicted, and w_<stream> (0…1; 0 or NaN: the clip lacks it). Three
        to six rows fit a page.

    Raises
    ------
    ValueError
        If a column is missing, or pictures, words and rows are not equally many.
    """
    needs(table, "label", "predicted")
    streams = [column.removeprefix("w_") for column in table if str(column).startswith("w_")]
    if not streams:
        raise ValueError("these predictions have no w_<stream> columns: the model does not weigh streams")
    frames = [None] * len(table) if frames is None else list(frames)
    if not len(frames) == len(words) == len(table):
        raise ValueError(f"{len(frames)} pictures and {len(words)} lines of words for {len(table)} clips")
    height = max(1.25, 0.35 + 0.2 * len(streams))
    figure, rows = plt.subplots(
        len(table), 3, figsize=(WIDTH, 0.45 + height * len(table)), width_ratios=[1.5, 2.6, 2.4], squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for (picture, said, bars), frame, text, (_, clip) in zip(rows, frames, words, table.iterrows(), strict=True):
        _picture(picture, frame)
        _words(said, text)
        _verdict(said, clip["label"], clip["predicted"])
        _bars(bars, streams, clip)
        bars.tick_params(labelbottom=bars is rows[-1, 2])
    rows[-1, 2].set_xlabel("weight of the stream", fontsize=9)
    return figure


def _picture(ax: Axes, frame: np.ndarray | None) -> None:
    if frame is None:
        frame = np.full((3, 4, 3), 0xEC, np.uint8)
        ax.text(0.5, 0.5, "no picture", transform=ax.transAxes, ha="center", va="center", fontsize=8, color=DARK)
    ax.imshow(frame, interpolation="antialiased")
    ax.set_axis_off()


def _words(ax: Axes, text: str | None) -> None:
    ax.set_axis_off()
    text = "" if text is None or pd.isna(text) else str(text)
    look = {}
    if re.search(f"[{_CJK}]", text):
        if fonts := cjk_fonts():
            look = {"family": [*plt.rcParams["font.family"], *fonts]}
        else:
            text, look = _NO_FONT, {"style": "italic", "color": _GREY}
    lines = wrapped(text) or ["(no words)"]
    # parse_math: prices are not formulas
    ax.text(0, 0.93, "\n".join(lines), transform=ax.transAxes, va="top", fontsize=9, parse_math=False, **look)


def _verdict(ax: Axes, label: object, predicted: object) -> None:
    known = not pd.isna(label) and label != ""
    title = (f"label {label}, " if known else "") + f"predicted {predicted}"
    colour = DARK if not known else _RIGHT if label == predicted else _WRONG
    ax.set_title(title, loc="left", fontsize=9.5, weight="bold", color=colour, parse_math=False)


def _bars(ax: Axes, streams: Sequence[str], clip: pd.Series) -> None:
    weights = np.nan_to_num(np.array([clip[f"w_{name}"] for name in streams], float))
    palette = colours(streams, STREAM_COLOURS)
    ax.barh(range(len(streams)), weights, color=[palette[name] for name in streams], height=0.72, zorder=2)
    for place, weight in enumerate(weights):
        # a softmax gives exactly 0 to a masked stream only
        said = f"{weight:.2f}" if weight else "missing"
        under = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85}
        ax.text(weight + 0.02, place, said, va="center", fontsize=8, zorder=3, bbox=under)
    ax.axvline(1 / max((weights > 0).sum(), 1), linestyle="--", linewidth=1, color=DARK, zorder=1)
    ax.set_yticks(range(len(streams)), [plain(name) for name in streams])
    ax.set(xlim=(0, 1.15), ylim=(len(streams) - 0.5, -0.5), xticks=[0, 0.5, 1])
    ax.tick_params(labelsize=8)
    ax.grid(axis="y", visible=False)
    ax.spines[:].set_color(PALE)


def wrapped(text: str, width: int = _LINE, most: int = _LINES) -> list[str]:
    """Lines of at most `width` letters, the last one ending in "…" where text is left over.

    Chinese has no spaces, so a line may end after any of its characters, which are twice as wide as letters.
    """
    pieces = re.findall(_PIECE, str(text).strip())
    lines, line = [], ""
    for piece in pieces:
        piece = " " if piece.isspace() else piece
        if line and _wide(line + piece) > width:
            lines.append(line.rstrip())
            line = ""
        line = (line + piece).lstrip()
    lines.append(line.rstrip())
    if len(lines) > most:
        last = lines[most - 1]
        while _wide(last) > width - 1:
            last = last[:-1]
        lines = [*lines[: most - 1], last.rstrip() + "…"]
    return [line for line in lines if line]


def _wide(text: str) -> float:
    """Width in letters; capitals, m and w count more than one."""
    return sum(2 if east_asian_width(c) in "WF" else 1.7 if c.isupper() or c in "mw@%" else 1 for c in text)
