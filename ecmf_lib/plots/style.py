"""What all pictures share: page width, one colour for each emotion and stream, where axes and legends go."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib import font_manager
from matplotlib.axes import Axes

WIDTH = 8.0  # in; the text width of a report page
EMOTION_COLOURS = {
    "neutral": "#8c8c8c",
    "angry": "#d55e00",
    "happy": "#e69f00",
    "sad": "#0072b2",
    "worried": "#cc79a7",
    "surprise": "#009e73",
}
#: Muted scheme of Paul Tol (SRON/EPS/TN/09-002), which stays apart for the colour-blind; so do the first spare ones.
STREAM_COLOURS = {
    "global": "#332288",
    "face": "#88ccee",
    "audio": "#117733",
    "text": "#cc6677",
    "enrichment": "#ddcc77",
}
#: For names that have no colour of their own.
SPARE = ("#44aa99", "#882255", "#999933", "#aa4499", "#56b4e9", "#661100")

_CJK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "PingFang SC", "Hiragino Sans GB",
    "Microsoft YaHei", "SimHei", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Arial Unicode MS",
)  # fmt: skip


def use_style() -> None:
    """White ground, light grid, one readable size; call once at the top of a notebook."""
    sns.set_theme(context="notebook", style="whitegrid", font_scale=0.9)
    # names of speakers may be Chinese; a font that has the glyphs is used where the machine has one
    plt.rcParams["font.family"] = ["DejaVu Sans", *cjk_fonts()]
    warnings.filterwarnings("ignore", message="Glyph .* missing from font")
    warnings.filterwarnings("ignore", message="vert: bool was deprecated")  # seaborn 0.13 on matplotlib 3.11


def cjk_fonts() -> list[str]:
    """Installed fonts that have Chinese characters, the preferred one first; empty: they would be drawn as boxes."""
    installed = set(font_manager.get_font_names())
    return [name for name in _CJK_FONTS if name in installed]


def colours(names: Sequence[str], fixed: Mapping[str, str]) -> dict[str, str]:
    """Name → colour: the fixed one, or a spare one in order of appearance for other names."""
    others = [name for name in names if name not in fixed]
    spare = {name: SPARE[i % len(SPARE)] for i, name in enumerate(others)}
    return {name: fixed.get(name) or spare[name] for name in names}


def new_axes(ax: Axes | None, height: float, width: float = WIDTH) -> Axes:
    """The given axes, or those of a new figure of this size in inches."""
    return ax if ax is not None else plt.subplots(figsize=(width, height), layout="constrained")[1]


def legend_outside(ax: Axes, handles: list | None = None, title: str | None = None) -> None:
    """A legend to the right of the axes, where it hides nothing."""
    options = {} if handles is None else {"handles": handles}
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, title=title, **options)
