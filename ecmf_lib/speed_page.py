"""The page about speed: what ``make bench`` measured, as a figure and a table, on one page that needs no network."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from ecmf_lib.pages import page, say
from ecmf_lib.plots.speed import against_goals
from ecmf_lib.plots.style import use_style

_TABLE, _ABOUT, _PAGE = "speed.csv", "about.json", "index.html"


def read_speed(folder: Path) -> tuple[pd.DataFrame, dict]:
    """What ``make bench`` left: the table, and machine, date, versions, seconds.

    Raises
    ------
    FileNotFoundError
        If it has not run into this folder.
    """
    table = pd.read_csv(folder / _TABLE, keep_default_na=False, na_values={"goal": [""]})
    return table, json.loads((folder / _ABOUT).read_text("utf-8"))


def write_speed_page(folder: Path) -> Path:
    """Write ``index.html`` beside the data that it shows."""
    table, about = read_speed(folder)
    target = folder / _PAGE
    target.write_text(speed_page(table, about), encoding="utf-8")
    return target


def speed_page(table: pd.DataFrame, about: dict) -> str:
    """The page itself."""
    goals = table[table["goal"].notna()]
    met = int(reached(goals).sum())
    head = (
        f"<h1>Speed, against bounds and rivals</h1><p>{met} of {len(goals)} goals met. Measured on "
        f"{say(about['machine'])}, {say(about['date'])}, in {about['seconds'] / 60:.0f} minutes by "
        f"<code>make bench</code>, code {say(about['code'])}. Ours and the rival or bound are of the same run; other "
        "machines give other seconds and similar ratios.</p>"
    )
    alt = "; ".join(f"{row['what']}: {row['ratio']:.3g} {row['means']}" for row in goals.to_dict("records"))
    figure = f'<p><img alt="{say(alt)}" src="data:image/png;base64,{_figure(table)}"></p>'
    columns = ["what", "ours", "rival or bound", "ratio", "goal", "what to know"]
    rows = "".join(f"<tr>{''.join(f'<td>{say(cell)}</td>' for cell in cells)}</tr>" for cells in cells_of(table))
    heads = "".join(f"<th>{name}</th>" for name in columns)
    listed = f"<div class='wide'><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    versions = ", ".join(f"{name} {number}" for name, number in about["libraries"].items())
    failed = "".join(f"<p>{say(name)} failed: {say(why)}</p>" for name, why in about.get("failed", {}).items())
    last = f'<p class="soft">Python {say(about["python"])}; {say(versions)}</p>'
    return page("ECMF: speed", head + failed + figure + listed + last)


def reached(table: pd.DataFrame) -> pd.Series:
    """Whether each goal is met, bool."""
    more = table["more_is_better"].astype(str) == "True"
    return (table["ratio"] >= table["goal"]).where(more, table["ratio"] <= table["goal"])


def cells_of(table: pd.DataFrame) -> list[list[str]]:
    """The table in words: what, ours, rival or bound, ratio, goal, what to know."""
    met = reached(table)
    found = []
    for row, good in zip(table.to_dict("records"), met, strict=True):
        sign = "≥" if str(row["more_is_better"]) == "True" else "≤"
        goal = "" if pd.isna(row["goal"]) else f"{sign} {row['goal']:g}, {'met' if good else 'missed'}"
        ours = f"{row['ours']:.4g} {row['unit']}".strip()
        theirs = f"{row['against']:.4g} {row['unit']}".strip() + f" ({row['rival']})"
        found.append([row["what"], ours, theirs, f"{row['ratio']:.3g} {row['means']}", goal, row["note"]])
    return found


def _figure(table: pd.DataFrame) -> str:
    use_style()
    shown = table.assign(more_is_better=table["more_is_better"].astype(str) == "True")
    ax = against_goals(shown)
    buffer = io.BytesIO()
    ax.figure.savefig(buffer, format="png", dpi=110)
    plt.close(ax.figure)
    return base64.b64encode(buffer.getvalue()).decode()
