"""Small pages of our own: one look, nothing from the network, texts escaped."""

from __future__ import annotations

import unicodedata
from html import escape

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
    text = "".join(f"\\u{ord(c):04x}" if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in str(value))
    return escape(text, quote=True)
