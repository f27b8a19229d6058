"""Stored results under the mouse: the app of notebook 06. It reads, and trains nothing.

What is chosen is a :class:`ecmf_lib.views.View`; every widget changes the view, and the view says what is shown. So
whatever can be clicked together can also be written down, sent and opened again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ipywidgets as widgets
import pandas as pd
from itables.widget import ITable

from ecmf_lib.pages import say
from ecmf_lib.predictions import PredictionError
from ecmf_lib.project import Project
from ecmf_lib.stored_results import ResultsError, StoredResults
from ecmf_lib.view_page import STYLE, card, facts_of, shade, shares
from ecmf_lib.view_text import ViewError
from ecmf_lib.views import View

#: Of a table of scores, what a page has room for; and what the app shows.
SHOWN = ["model", "streams", "labels", "weighted_f1", "low", "high", "macro_f1", "difference", "p_holm"]
_SCORES = [*SHOWN[:6], "difference", "difference_low", "difference_high", "p_holm"]
_ANY, _NONE = "(all)", "(none)"


class Explorer:
    """Widgets over a view.

    Parameters
    ----------
    stored : StoredResults
    view : View
        What is shown first.
    project : Project, optional
        Its corpus gives pictures, words and the clips themselves; without it the numbers are there alone.
    n_boot : int
        Resamples for intervals.
    most : int
        Clips of a cell that are listed at once.
    folder : Path, optional
        Where views are saved and opened; the current folder by default.

    Attributes
    ----------
    view : View
        What is shown now.
    panel : ipywidgets.Widget
        The whole app; what a cell shows.
    """

    def __init__(
        self,
        stored: StoredResults,
        view: View,
        project: Project | None = None,
        *,
        n_boot: int = 2000,
        most: int = 4,
        folder: Path | None = None,
    ):
        self.stored, self.project, self.n_boot, self.most = stored, project, n_boot, most
        self.folder = Path(folder or ".")
        self._busy = False
        wide = {"layout": widgets.Layout(width="auto"), "style": {"description_width": "5.5rem"}}
        runs = stored.names()
        self.run = widgets.Dropdown(options=runs, description="run", **wide)
        self.models = widgets.SelectMultiple(description="models", rows=7, **wide)
        self.streams = widgets.SelectMultiple(description="streams", rows=5, **wide)
        self.labels = widgets.Dropdown(description="labels", **wide)
        self.model = widgets.Dropdown(description="confusion", **wide)
        self.compare = widgets.Dropdown(options=[_NONE, *runs], description="beside", **wide)
        self.scores = ITable(pd.DataFrame(), caption="")
        self.compared = ITable(pd.DataFrame(), caption="")
        self.matrix = widgets.VBox()
        self.clip = widgets.Dropdown(description="clip", **wide)
        self.shown = widgets.HTML()
        self.link = widgets.Text(description="view", **wide)
        self.file = widgets.Text(value="view.json", description="file", **wide)
        self.save, self.open = (widgets.Button(description=name) for name in ("save view", "open view"))
        self.message = widgets.HTML()
        self._compared_box = widgets.VBox([self.compared])
        left = widgets.VBox([self.run, self.labels, self.streams, self.models], layout=widgets.Layout(width="24rem"))
        right = widgets.VBox([self.model, self.matrix], layout=widgets.Layout(flex="1 1 30rem", min_width="20rem"))
        row = widgets.Layout(display="flex", flex_flow="row wrap")
        self.panel = widgets.VBox(
            [
                widgets.HTML(f"<style>{STYLE}</style>"),
                widgets.Box([left, right], layout=row),
                self.scores,
                self.compare,
                self._compared_box,
                self.clip,
                self.shown,
                self.link,
                widgets.Box([self.file, self.save, self.open], layout=row),
                self.message,
            ]
        )
        self.view = view.checked(stored)
        self.show(view)
        for one in (self.run, self.models, self.streams, self.labels, self.model, self.compare):
            one.observe(self._picked, "value")
        self.clip.observe(self._play, "value")
        self.link.continuous_update = False
        self.link.observe(lambda change: self._try(lambda: View.read(change["new"])), "value")
        self.save.on_click(lambda _: self._try(self._save))
        self.open.on_click(lambda _: self._try(lambda: View.load(self.folder / self.file.value)))

    def show(self, view: View) -> None:
        """Show another view; ViewError or ResultsError for one that asks for what is not stored."""
        full = view.checked(self.stored)
        run, scores = self.stored.run(view.run), view.table(self.stored, n_boot=self.n_boot)
        compared = view.runs_compared(self.stored, n_boot=self.n_boot)
        matrix, clips = full.confusion(self.stored), full.clips(self.stored)
        names = run.catalogue["model"].tolist()
        busy, self._busy, self.view = self._busy, True, full
        try:
            self.run.value = view.run
            _choose(self.models, names, view.models)
            _choose(self.streams, run.streams, view.streams)
            _choose(self.labels, [_ANY, *run.labels], view.labels or _ANY)
            _choose(self.model, names, full.model)
            self.compare.value = view.compare or _NONE
            self.scores.update(scores[_SCORES].round(4), caption=f"weighted F1, compared with {full.reference}")
            self.compared.update(compared.round(4), caption=f"the same models in run {view.compare}")
            self._compared_box.layout.display = "" if view.compare else "none"
            self.matrix.children = self._buttons(matrix)
            self.clip.options = [(_called(row), i) for i, row in enumerate(clips.to_dict("records"))]
            self.clip.value = 0 if len(clips) else None
            self.link.value = view.to_query()
            self._clips = clips
        finally:
            self._busy = busy
        self._play()

    def _buttons(self, matrix: pd.DataFrame) -> list[widgets.Widget]:
        """The matrix: a button a cell, which shows the cell's clips."""
        share, cells = shares(matrix), [widgets.HTML("<small>label ↓ predicted →</small>")]
        cells += [widgets.HTML(f"<b>{say(name)}</b>") for name in matrix.columns]
        for r, label in enumerate(matrix.index):
            cells.append(widgets.HTML(f"<b>{say(label)}</b>"))
            for c, predicted in enumerate(matrix.columns):
                button = widgets.Button(
                    description=f"{matrix.iat[r, c]:g}",
                    tooltip=f"{label} taken for {predicted}: {share[r, c]:.0%} of {label}",
                    layout=widgets.Layout(
                        width="auto", border="2px solid" if (label, predicted) == self.view.cell else ""
                    ),
                )
                button.style.button_color = shade(share[r, c], r == c)
                cell = (str(label), str(predicted))
                button.on_click(lambda _, cell=cell: self._try(lambda: replace(self._asked(), cell=cell)))
                cells.append(button)
        layout = widgets.Layout(
            grid_template_columns=f"8.5rem repeat({len(matrix.columns)}, minmax(3.4rem, 5.5rem))", grid_gap="2px"
        )
        return [widgets.GridBox(cells, layout=layout)]

    def _asked(self) -> View:
        """The view that the widgets say."""
        same = self.run.value == self.view.run
        return View(
            run=self.run.value,
            models=tuple(self.models.value) if same else (),
            streams=tuple(self.streams.value) if same else (),
            labels="" if self.labels.value == _ANY or not same else self.labels.value,
            model=self.model.value if same else "",
            reference=self.view.reference if same else "",
            cell=self.view.cell if same else None,
            compare="" if self.compare.value == _NONE else self.compare.value,
        )

    def _picked(self, _) -> None:
        self._try(self._asked)

    def _save(self) -> View:
        path = self._asked().save(self.folder / self.file.value)
        self.message.value = f"saved: {say(path.name)}"
        return self.view

    def _try(self, make) -> None:
        """Show the view that `make` gives; what is wrong with it is said, and what was shown stays."""
        if self._busy:
            return
        self.message.value = ""
        try:
            view = make()
            if view is not self.view:
                self.show(view)
        except (ViewError, ResultsError, PredictionError, OSError) as error:
            self.message.value = f"<b>not shown:</b> {say(error)}"

    def _play(self, _=None) -> None:
        """The chosen clip with its player, then the next ones of the cell with their frames."""
        if self._busy:
            return
        at, rows = self.clip.value, self._clips.to_dict("records")
        if at is None or at >= len(rows):
            self.shown.value = "no clips in this cell"
            return
        run = self.stored.run(self.view.run)
        cards = []
        for row in rows[at : at + self.most]:
            cards.append(card(row, facts_of(self.project, run, row["id"]), player=not cards))
        self.shown.value = "".join(cards)


def _called(row: dict) -> str:
    return f"{row['id']}: {row['label']} → {row['predicted']}, {row['times']} of {row['seeds']} seeds"


def _choose(widget: widgets.Widget, options: list[str], value) -> None:
    if list(widget.options) != options:
        widget.options = options
    widget.value = value
