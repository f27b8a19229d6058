"""Predictions of media files on disk: a csv, a parquet, and one page that needs nothing from the network."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ecmf_lib.pages import bars, page, say
from ecmf_lib.plots.style import EMOTION_COLOURS, STREAM_COLOURS, colours
from ecmf_lib.review_csv import guarded, write_cells
from ecmf_lib.study_clips import jpeg, middle_frame

if TYPE_CHECKING:
    from ecmf_lib.corpus import Corpus
    from ecmf_lib.ensemble import Bundle

PICTURES = 200  # clips whose picture is in the page: each has to be decoded again
_HEIGHT = 90  # px
_STYLE = """
td.bars { min-width: 13rem; }
.bar { display: grid; grid-template-columns: 5.2rem 1fr 2.6rem; gap: .4rem; align-items: center; font-size: .8rem; }
.bar i { display: block; height: .65rem; border-radius: 2px; } .bar b { font-weight: 400; text-align: right; }
.failed { background: #fdecea; } img { max-height: 90px; border-radius: 3px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; }
dt { font-weight: 600; } dd { margin: 0; overflow-wrap: anywhere; }
"""


def write_report(table: pd.DataFrame, folder: Path, bundle: Bundle, corpus: Corpus | None) -> None:
    """Write ``predictions.csv`` (nothing in it is run by a spreadsheet), ``predictions.parquet``, ``report.html``.

    Parameters
    ----------
    table : DataFrame
        As :func:`ecmf_lib.predicting.predict_path`.
    corpus : Corpus or None
        Where pictures are taken from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_cells(
        folder / "predictions.csv", list(table.columns), [list(map(_cell, row)) for row in table.to_numpy(object)]
    )
    _replace(folder / "predictions.parquet", lambda path: table.to_parquet(path, index=False))
    page = report_page(table, bundle, corpus)
    _replace(folder / "report.html", lambda path: path.write_text(page, encoding="utf-8"))


def report_page(table: pd.DataFrame, bundle: Bundle, corpus: Corpus | None) -> str:
    """The page: what the bundle is, a row a clip with bars, and what could not be predicted with its reason."""
    done, failed = table[table["predicted"] != ""], table[table["predicted"] == ""]
    body = f"<h1>{len(done)} of {len(table)} files predicted</h1>{_of_bundle(bundle)}"
    if len(done):
        palette = colours(bundle.classes, EMOTION_COLOURS), colours(bundle.streams, STREAM_COLOURS)
        rows = [_row(row, bundle, palette, corpus, i < PICTURES) for i, row in enumerate(done.to_dict("records"))]
        head = "<tr><th>file</th><th>predicted</th><th>probabilities</th><th>weights of the streams</th></tr>"
        body += f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"
        body += '<p class="soft">A weight says how much the model listened to a stream, not how right it was.</p>'
        if len(done) > PICTURES:
            body += f'<p class="soft">Pictures of the first {PICTURES} clips only.</p>'
    if len(failed):
        rows = [f"<tr class='failed'><td>{say(r['file'])}</td><td>{say(r['reason'])}</td></tr>"
                for r in failed.to_dict("records")]  # fmt: skip
        body += f"<h2>Not predicted</h2><table><thead><tr><th>file</th><th>why</th></tr></thead>{''.join(rows)}</table>"
    return page("ECMF predictions", body, _STYLE)


def _of_bundle(bundle: Bundle) -> str:
    about, facts = bundle.about, {}
    facts["trained on"] = (
        f"{about.get('corpus', 'unknown')}, {about.get('clips', '?')} clips ({about.get('licence', '')})"
    )
    expected = about.get("expected") or {}
    if expected.get("weighted_f1") is not None:
        facts["expected weighted F1"] = f"{expected['weighted_f1']:.3f} on clips like those ({expected.get('how', '')})"
    facts["labels"], facts["streams"] = about.get("labels", ""), ", ".join(bundle.streams)
    facts["members"] = f"{len(bundle.models)}, temperature {bundle.temperature:.2f}"
    facts |= {"bundle": bundle.digest[:16], "code": about.get("code", "")}
    notes = "".join(f'<p class="soft">{say(note)}</p>' for note in about.get("notes") or [])
    listed = "".join(f"<dt>{say(name)}</dt><dd>{say(value)}</dd>" for name, value in facts.items())
    return f'<dl class="soft">{listed}</dl>{notes}'


def _row(row: dict, bundle: Bundle, palette: tuple[dict, dict], corpus: Corpus | None, picture: bool) -> str:
    chances = [(name, row[f"p_{name}"], palette[0][name]) for name in bundle.classes]
    weights = [(name, row[f"w_{name}"], palette[1][name]) for name in bundle.streams]
    extra = [f"without {row['missing']}"] if row["missing"] else []
    extra += [row["note"]] if row["note"] else []
    small = "".join(f'<div class="soft">{say(text)}</div>' for text in [row["transcript"], *extra] if text)
    frame = middle_frame(corpus.clip(row["id"])) if picture and corpus is not None else None
    image = jpeg(frame, _HEIGHT, "", widest=320)
    return (
        f"<tr><td>{image}{say(row['file'])}{small}</td><td><strong>{say(row['predicted'])}</strong></td>"
        f'<td class="bars">{bars(chances)}</td><td class="bars">{bars(weights)}</td></tr>'
    )


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.6g}"
    return guarded(str(value))


def _replace(path: Path, write) -> None:
    """Whole or not at all."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
        write(Path(folder) / path.name)
        os.replace(Path(folder) / path.name, path)
