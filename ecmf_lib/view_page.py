"""A view as HTML without any script: the confusion matrix with links, and the clips behind its cells.

A click on a cell goes to its clips, which are shown when the page's address names them (``#cell-1-3``): such an address
can be sent to somebody. Texts from a corpus are escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ecmf_lib.corpus import CorpusError
from ecmf_lib.pages import bars, say
from ecmf_lib.plots.style import STREAM_COLOURS, colours
from ecmf_lib.project import Project
from ecmf_lib.stored_results import Run, StoredResults
from ecmf_lib.study_clips import jpeg, middle_frame
from ecmf_lib.views import View

LARGEST_VIDEO = 8 * 2**20  # bytes of a clip that are put into the notebook
_HEIGHT = 120  # px of a picture
_WORDS = 600  # letters of a text
_KINDS = {".mp4": "video/mp4", ".webm": "video/webm", ".mov": "video/mp4", ".m4v": "video/mp4"}
STYLE = """
.ecmf-view { font-size: .88rem; line-height: 1.45; }
.ecmf-view table { display: table; border-collapse: separate; border-spacing: 2px; width: auto; margin: .4rem 0; }
.ecmf-view th, .ecmf-view td { border: 0; padding: 0; text-align: center; vertical-align: middle; }
.ecmf-view th { padding: .2rem .5rem; font-weight: 600; } .ecmf-view tbody th { text-align: right; }
.ecmf-view td a, .ecmf-view td > span { display: block; min-width: 3.6rem; padding: .35rem .3rem; color: inherit;
  text-decoration: none; border-radius: 3px; }
.ecmf-view td a:hover, .ecmf-view td a:focus { outline: 2px solid #1f5fa8; }
.ecmf-view .scroll { overflow-x: auto; }
.ecmf-clip { display: grid; grid-template-columns: 10rem minmax(0, 1fr); gap: .2rem 1rem; padding: .6rem 0;
  border-top: 1px solid #8884; font-size: .88rem; line-height: 1.45; }
.ecmf-clip img, .ecmf-clip video { max-width: 100%; max-height: 15rem; border-radius: 3px; display: block; }
.ecmf-clip p { margin: .15rem 0; overflow-wrap: anywhere; }
.ecmf-clip .bar { display: grid; grid-template-columns: 6rem minmax(0, 12rem) 3rem; gap: .4rem; align-items: center;
  font-size: .8rem; }
.ecmf-clip .bar i { display: block; height: .65rem; border-radius: 2px; }
.ecmf-cells > section { display: none; scroll-margin-top: 1rem; } .ecmf-cells > section:target { display: block; }
.ecmf-cells:not(:has(> section:target)) > section.first { display: block; }
.ecmf-cells h4 { margin: .8rem 0 .3rem; }
@media print { .ecmf-cells > section { display: block; } }
@media (max-width: 34rem) { .ecmf-clip { grid-template-columns: minmax(0, 1fr); } }
"""


@dataclass(frozen=True)
class ClipFacts:
    """What a corpus says of a clip: middle frame uint8 [height, width, 3] or None, words, enrichment, video or None."""

    frame: np.ndarray | None
    words: str
    enrichment: str
    video: Path | None


def facts_of(project: Project | None, run: Run, clip_id: str) -> ClipFacts | None:
    """Facts of a clip of a run; None where the project's corpus is another one, or has no such clip."""
    if project is None or project.corpus.name != run.corpus:  # an id of one corpus may be in another
        return None
    try:
        clip = project.corpus.clip(clip_id)
    except (KeyError, CorpusError):
        return None
    return ClipFacts(middle_frame(clip), clip.transcript, clip.enrichment, clip.video)


def card(row: dict, facts: ClipFacts | None, *, player: bool = False) -> str:
    """One clip as HTML.

    Parameters
    ----------
    row : dict
        A row of :meth:`ecmf_lib.views.View.clips`.
    facts : ClipFacts or None
    player : bool
        With the clip itself in place of its frame, where it is small enough and of a kind that browsers play. Reports
        have none: their pages may play nothing.
    """
    sure = "" if np.isnan(row["confidence"]) else f", probability {row['confidence']:.2f}"
    speaker = f" · <bdi>{say(row['speaker'])}</bdi>" if row["speaker"] else ""
    said = [
        f"<b><bdi>{say(row['id'])}</bdi></b>{speaker}",
        f"label <b>{say(row['label'])}</b>, predicted <b>{say(row['predicted'])}</b> by {row['times']} of "
        f"{row['seeds']} seeds{sure}",
    ]
    picture = ""
    if facts is None:
        said.append("<small>the corpus of this clip is not open here: no picture, no words</small>")
    else:
        picture = jpeg(facts.frame, _HEIGHT, "frame from the middle of the clip", widest=2 * _HEIGHT)
        picture = (_player(facts.video) if player else "") or picture or "<small>no picture</small>"
        said += [f"{name}: <bdi>{say(_cut(text))}</bdi>"
                 for name, text in (("words", facts.words), ("enrichment", facts.enrichment)) if text]  # fmt: skip
    texts = "".join(f"<p>{text}</p>" for text in said)
    return f'<div class="ecmf-clip"><div>{picture}</div><div>{texts}{_bars(row)}</div></div>'


def _bars(row: dict) -> str:
    weights = {name[2:]: value for name, value in row.items() if name.startswith("w_")}
    palette = colours(list(weights), STREAM_COLOURS)
    shown = bars((name, value, palette[name]) for name, value in weights.items())
    return shown or "<small>this model gives no stream weights</small>"


def _cut(text: str) -> str:
    return text if len(text) <= _WORDS else text[: _WORDS - 1] + "…"


def _player(video: Path | None) -> str:
    kind = _KINDS.get(video.suffix.lower()) if video else None
    try:
        if kind is None or video.stat().st_size > LARGEST_VIDEO:
            return ""
        data = base64.b64encode(video.read_bytes()).decode()
    except OSError:
        return ""
    return f'<video controls preload="metadata" src="data:{kind};base64,{data}"></video>'


def shares(matrix: pd.DataFrame) -> np.ndarray:
    """Share of each cell in its true class: float [classes, classes]; 0 for a class without clips."""
    counts = matrix.to_numpy(float)
    return np.divide(counts, counts.sum(1, keepdims=True), out=np.zeros_like(counts), where=counts > 0)


def shade(share: float, right: bool) -> str:
    """Colour behind a cell: blue on the diagonal, orange off it, pale enough for any ink."""
    return f"rgba({'31,95,168' if right else '213,94,0'},{0.08 + 0.42 * share:.2f})" if share > 0 else "transparent"


def confusion_page(
    view: View, stored: StoredResults, facts: Callable[[str], ClipFacts | None], *, most: int = 3
) -> str:
    """The confusion matrix of the view's model, each cell a link to its clips below.

    Parameters
    ----------
    view : View
        Its cell is shown until another one is clicked.
    facts : callable
        Clip id → what is known of it.
    most : int
        Clips shown of a cell; 0 leaves them out, and the cells are no links.
    """
    view, matrix = view.checked(stored), view.confusion(stored)
    share, first = shares(matrix), view.cell or _first(matrix)
    head = "".join(f"<th scope='col'>{say(name)}</th>" for name in matrix.columns)
    rows, sections = [], []
    for r, label in enumerate(matrix.index):
        cells = []
        for c, predicted in enumerate(matrix.columns):
            count = matrix.iat[r, c]
            told = f"{share[r, c]:.0%}<br><small>{count:g}</small>" if count else "·"
            style = f'style="background:{shade(share[r, c], r == c)}"'
            if count and most:
                what = f'aria-label="{count:g} clips of {say(label)} taken for {say(predicted)}"'
                cells.append(f'<td><a href="#cell-{r}-{c}" {style} {what}>{told}</a></td>')
                sections.append(_section(replace(view, cell=(label, predicted)), stored, facts, most, (r, c), first))
            else:
                cells.append(f"<td><span {style}>{told}</span></td>")
        rows.append(f"<tr><th scope='row'>{say(label)}</th>{''.join(cells)}</tr>")
    hint = "Rows: the label. Columns: what the model said. Share of the label's clips, below it clips (mean of seeds)."
    if most:
        hint += " Click a cell for its clips."
    return (
        f'<style>{STYLE}</style><div class="ecmf-view tex2jax_ignore mathjax_ignore"><div class="scroll"><table>'
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        f'<small>{hint}</small><div class="ecmf-cells">{"".join(sections)}</div></div>'
    )


def _first(matrix: pd.DataFrame) -> tuple[str, str]:
    at = np.unravel_index(matrix.to_numpy().argmax(), matrix.shape)
    return str(matrix.index[at[0]]), str(matrix.columns[at[1]])


def _section(view: View, stored: StoredResults, facts: Callable, most: int, at: tuple[int, int], first) -> str:
    clips, (label, predicted) = view.clips(stored), view.cell
    title = f"{say(label)}, rightly" if label == predicted else f"{say(label)} taken for {say(predicted)}"
    cards = "".join(card(row, facts(row["id"])) for row in clips.head(most).to_dict("records"))
    more = f"<p><small>and {len(clips) - most} more</small></p>" if len(clips) > most else ""
    shown = ' class="first"' if view.cell == tuple(first) else ""
    number = f"{len(clips)} clip{'s' * (len(clips) != 1)} in any seed"
    return f'<section id="cell-{at[0]}-{at[1]}"{shown}><h4>{title}: {number}</h4>{cards}{more}</section>'
