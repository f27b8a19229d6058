"""Small pages of our own: one look, nothing from the network, texts escaped."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from html import escape

#: Unicode's categories of what is not seen: control characters, marks of direction, halves of pairs.
UNSEEN = ("Cc", "Cf", "Cs")

STYLE = """
body { margin: 0; background: #fff; color: #1d2430; }
body { font: 15px/1.5 system-ui, "Noto Sans", "Noto Sans CJK SC", sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
table { border-collapse: collapse; font-size: .88rem; width: 100%; margin: .8rem 0; }
th, td { border-bottom: 1px solid #d8dce3; padding: .45rem .6rem; text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid #1d2430; }
td { overflow-wrap: anywhere; } .wide { overflow-x: auto; }
.soft { color: #5b6675; font-size: .85rem; } img { display: block; max-width: 100%; }
"""
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title><style>{style}</style></head><body><main>{body}</main></body></html>
"""


def page(title: str, body: str, style: str = "") -> str:
    """A whole page that may load nothing and run nothing.

    Parameters
    ----------
    title : str
        Is escaped.
    body : str
        HTML, whose texts have gone through :func:`say`.
    style : str
        CSS after the common one.
    """
    return _PAGE.format(title=say(title), style=STYLE + style, body=body)


def say(value: object) -> str:
    """A text in a page: escaped, and what would not be seen, or would turn the line around, spelt out."""
    return escape(spelt_out(str(value)), quote=True)


def spelt_out(text: str, categories: tuple[str, ...] = UNSEEN, but: str = "") -> str:
    """A text with all characters of these Unicode categories written as their code, but for those in `but`."""
    return "".join(f"\\u{ord(c):04x}" if unicodedata.category(c) in categories and c not in but else c for c in text)


def bars(values: Iterable[tuple[str, float, str]]) -> str:
    """A row of class ``bar`` for each (name, share 0…1 or NaN, colour): name, bar, number; empty where it is NaN."""
    rows = []
    for name, value, colour in values:
        known = not math.isnan(value)
        width = 100 * min(max(value, 0), 1) if known else 0
        bar = f'<span><i style="width:{width:.1f}%;background:{colour}"></i></span>'
        rows.append(f'<div class="bar"><span>{say(name)}</span>{bar}<b>{f"{value:.2f}" if known else ""}</b></div>')
    return "".join(rows)
