"""The audit table as HTML that is sorted by a click, without any script.

Pages of this project hold no scripts (a report is opened from anywhere, and notebooks that are not trusted run none),
so sorting is done by style sheet: every row carries its place in each order, and the order that is chosen is shown.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import pandas as pd
from PIL import Image

_PICTURE, _WORDS = 96, 240  # pixels of a thumbnail's longer side at most, letters of a transcript
_STYLE = """
#{n} {{ font-size: .84rem; line-height: 1.4; }}
#{n} label {{ margin-right: .9rem; white-space: nowrap; }} #{n} input {{ margin: 0 .25rem 0 0; }}
#{n} table {{ display: block; width: 100%; overflow-x: auto; border-collapse: collapse; margin: .4rem 0; }}
#{n} thead, #{n} tbody {{ display: flex; flex-direction: column; min-width: 46rem; }}
#{n} tr {{ display: grid; grid-template-columns: 6rem 11.5rem 6.5rem 3.4rem minmax(9rem, 1.1fr) minmax(8rem, 1fr);
  border-bottom: 1px solid #d8dce3; background: none; }}
#{n} th, #{n} td {{ text-align: left; padding: .3rem .45rem; border: 0; overflow-wrap: anywhere; white-space: normal; }}
#{n} img {{ max-width: 100%; height: auto; display: block; }}
#{n} small {{ color: #5b6675; }}
"""
_HEADS = ("picture", "clip, words", "given → refined", "sure", "who says what", "why")


def page(
    audit: pd.DataFrame,
    orders: Mapping[str, Sequence[int]],
    pictures: Sequence[np.ndarray | None],
    words: Sequence[str],
    caption: str,
    name: str,
) -> str:
    """HTML of a table with a choice of orders.

    Parameters
    ----------
    audit : DataFrame
        See :mod:`ecmf_lib.audit_table`; rows stand in the first order.
    orders : mapping of str to sequence of int
        Name of an order → place of each row in it.
    pictures : sequence of uint8 [H, W, 3] or None
    words : sequence of str
    name : str
        Unique on the page: a letter, then letters, digits, "-" and "_".

    Raises
    ------
    ValueError
        If `name` could not be an id.
    """
    if not re.fullmatch(r"[A-Za-z][\w-]*", name, re.ASCII):
        raise ValueError(f"name = {name!r}: a letter, then letters, digits, - and _, and unique on the page")
    style, choices = _STYLE.format(n=name), []
    for k, order in enumerate(orders):
        style += f"#{name}:has(#{name}-o{k}:checked) tbody tr {{ order: var(--o{k}); }}\n"
        checked = " checked" if k == 0 else ""
        choices.append(
            f'<label><input type="radio" name="{name}-order" id="{name}-o{k}"{checked}>{escape(order)}</label>'
        )
    heads = "".join(f"<th>{escape(head)}</th>" for head in _HEADS)
    says = [column for column in audit.columns if column.startswith("says_")]
    rows = []
    for number, (clip, frame, said) in enumerate(zip(audit.to_dict("records"), pictures, words, strict=True)):
        places = ";".join(f"--o{k}:{int(places[number])}" for k, places in enumerate(orders.values()))
        cells = "".join(f"<td>{cell}</td>" for cell in _cells(clip, frame, said, says))
        rows.append(f'<tr style="{places}">{cells}</tr>')
    # prices in transcripts are no formulas
    return (
        f'<div id="{name}" class="tex2jax_ignore mathjax_ignore"><style>{style}</style>'
        f"<div>sorted by: {''.join(choices)}</div>"
        f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        f"<small>{escape(caption)}</small></div>"
    )


def _cells(clip: dict, frame: np.ndarray | None, said: str, says: Sequence[str]) -> list[str]:
    # bdi: marks of writing from right to left end with the text that holds them
    words = said if len(said) <= _WORDS else said[: _WORDS - 1] + "…"
    given = escape(str(clip["given"])) or "no label"
    change = given if clip["given"] == clip["refined"] else f"{given} → <b>{escape(str(clip['refined']))}</b>"
    return [
        thumbnail(frame),
        f"<bdi>{escape(str(clip['id']))}</bdi><br><bdi><small>{escape(words)}</small></bdi>",
        f"{change}<br><small>{escape(str(clip['action']))}<br>weight {float(clip['weight']):.2g}</small>",
        f"{float(clip['confidence']):.2f}",
        _votes(clip, says),
        f"<bdi>{escape(str(clip['why']))}</bdi>",
    ]


def _votes(clip: dict, says: Sequence[str]) -> str:
    """Sources by what they say, those for the refined label first and bold; in brackets: families that agree on it."""
    votes: dict[str, list[str]] = {str(clip["refined"]): []}
    for column in says:
        votes.setdefault(str(clip[column]) or "abstains", []).append(column.removeprefix("says_"))
    if "abstains" in votes:
        votes["abstains"] = votes.pop("abstains")
    lines = []
    for label, sources in votes.items():
        named = escape(label)
        if label == clip["refined"]:
            families = int(clip["families"])
            named = f"<b>{named}</b> ({families} {'family' if families == 1 else 'families'})"
        lines.append(f"{named}: {escape(', '.join(sources) or 'nobody')}")
    return "<br>".join(lines)


def thumbnail(frame: np.ndarray | None) -> str:
    """An ``img`` that holds its picture, uint8 [H, W, 3], as PNG; "" for None.

    Raises
    ------
    ValueError
        For an array of another kind.
    """
    if frame is None:
        return ""
    frame = np.asarray(frame)
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
        raise ValueError(f"a picture is {frame.dtype} {list(frame.shape)}; expected uint8 [height, width, 3]")
    image = Image.fromarray(np.ascontiguousarray(frame))
    image.thumbnail((_PICTURE, _PICTURE))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}">'
