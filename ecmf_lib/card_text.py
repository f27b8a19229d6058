"""What model and data cards share: plain markdown from names that anybody may have chosen, and the limits of use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

_MOST = 200  # characters of a name or note that a card shows
#: What markdown could take for more than itself; not an underscore between letters.
_MARKS = re.compile(r"([\\`*{}\[\]<>|#&$~]|(?<![^\W_])_|_(?![^\W_]))")

#: As the README's "Responsible use" has it.
USE = (
    "A label here is what annotators thought they saw, not what a person felt; people differ in how they show emotion, "
    "and cultures do too. These models are for research and teaching on data whose speakers agreed to it."
)
NOT_FOR = (
    "They are not fit for judging people: not at work, at school, at borders, in court or in a doctor's room (in the "
    "EU, emotion recognition at work and in education is prohibited by the AI Act, Article 5)."
)
LIMITS = (
    "Scores on unseen speakers are lower than the ones usually published, and they fall further on other languages, "
    "ages and cameras. Words and faces are personal data: nothing leaves your machine unless you attach a language "
    "model elsewhere and say so twice."
)


def plain(text: object) -> str:
    """A name or note as markdown that shows it and does nothing else: one line, at most 200 characters."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))
    return _MARKS.sub(r"\\\1", text if len(text) <= _MOST else text[: _MOST - 1] + "…")


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A markdown table; cells are shown plainly, floats with three digits, NaN and None as a dash."""
    lines = [header, ["---"] * len(header), *([_cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "–" if pd.isna(value) else f"{value:.3f}"
    return "–" if value is None else plain(value)


def bullets(lines: Iterable[str]) -> str:
    """A markdown list of lines that are markdown already."""
    return "\n".join(f"- {line}" for line in lines)


def write_card(path: Path, title: str, sections: Sequence[tuple[str, str]]) -> Path:
    """Write a card: a title, and a heading with its text for each section; sections without text are left out."""
    parts = [f"# {plain(title)}"]
    parts += [f"## {heading}\n\n{text}" for heading, text in sections if text]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path
