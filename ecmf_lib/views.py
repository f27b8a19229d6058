"""A view of stored results: what somebody looks at, small enough for a line of text, a file or a link.

A finding is shared by its view: whoever has the same run's results sees the same table, the same cell, the same clips.
Nothing is trained: a view only reads :mod:`ecmf_lib.stored_results`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pandas as pd

from ecmf_lib import evaluate
from ecmf_lib.bounded import read_bytes
from ecmf_lib.predictions import PredictionError, check_same_clips, class_names
from ecmf_lib.stored_results import MAIN, StoredResults
from ecmf_lib.view_text import LONGEST, MOST, NAME, ViewError, is_name, parsed

REFERENCE = "ECMF"


@dataclass(frozen=True)
class View:
    """What is looked at.

    Attributes
    ----------
    run : str
        Folder in ``reports``; a run is of one corpus.
    models : tuple of str
        Rows of the table, by their names in the run's catalogue; empty: the main table, or whatever `streams` and
        `labels` leave of all.
    streams : tuple of str
        Only models that use no others; empty: all.
    labels : str
        Only models trained on these: "given", "refined", …; empty: all.
    model : str
        Whose confusion and whose clips; empty: the reference.
    reference : str
        What every other model is compared with; empty: ECMF, else the first.
    cell : (label, predicted) or None
        Cell of the confusion matrix whose clips are looked at; None: all clips.
    compare : str
        Another run beside this one; empty: none.
    """

    run: str
    models: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    labels: str = ""
    model: str = ""
    reference: str = ""
    cell: tuple[str, str] | None = None
    compare: str = ""

    def __post_init__(self) -> None:
        for name in ("models", "streams", "cell"):
            given = getattr(self, name)
            if isinstance(given, list):
                object.__setattr__(self, name, tuple(given))
        for name in ("run", "labels", "model", "reference", "compare"):
            if not is_name(getattr(self, name)):
                raise ViewError(
                    f"view: {name} = {str(getattr(self, name))[:80]!r}: expected a text of {NAME} letters at most"
                )
        for name in ("models", "streams"):
            given = getattr(self, name)
            if not isinstance(given, tuple) or len(given) > MOST or not all(map(is_name, given)):
                raise ViewError(f"view: {name} = {str(given)[:80]}: expected a list of names")
        for name in ("run", "compare"):
            value = getattr(self, name)
            if value in (".", "..") or "/" in value or "\\" in value:
                raise ViewError(f"view: {name} = {value[:80]!r}: expected the name of a folder in reports, not a path")
        if not self.run:
            raise ViewError("view: run is empty; expected the name of a folder in reports")
        cell = self.cell
        if cell is not None and not (isinstance(cell, tuple) and len(cell) == 2 and all(map(is_name, cell))):
            raise ViewError(f"view: cell = {str(cell)[:80]}: expected the label and the predicted class")

    # to and from text ------------------------------------------------------------------------------------------------

    def to_query(self) -> str:
        """The view as the query of a link, such as ``run=demo&cell=angry&cell=sad``; what is empty is left out."""
        return urlencode({name: value for name, value in asdict(self).items() if value}, doseq=True)

    def to_json(self) -> str:
        """The view as JSON, what is empty left out."""
        return json.dumps({name: value for name, value in asdict(self).items() if value}, ensure_ascii=False, indent=1)

    def save(self, path: Path) -> Path:
        """Write the view as a small JSON file."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_json() + "\n", encoding="utf-8")
        return path

    @classmethod
    def read(cls, text: str) -> View:
        """A view from JSON, or from a query with or without what stands before its "?".

        Raises
        ------
        ViewError
            Unknown or doubled names, or values of another kind.
        """
        return cls._of(parsed(text))

    @classmethod
    def load(cls, path: Path) -> View:
        """A saved view; ViewError if the file is none, OSError if there is none."""
        try:
            return cls.read(read_bytes(path, 4 * LONGEST).decode("utf-8"))
        except UnicodeDecodeError:
            raise ViewError(f"{path}: no UTF-8; expected a view saved as JSON") from None
        except ViewError as error:
            raise ViewError(f"{path}: {error}") from None

    @classmethod
    def _of(cls, given: dict) -> View:
        known = [one.name for one in fields(cls)]
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise ViewError(f"view: unknown {', '.join(name[:40] for name in unknown)}; there are {', '.join(known)}")
        return cls(**{"run": ""} | given)

    # what it shows ---------------------------------------------------------------------------------------------------

    def checked(self, stored: StoredResults) -> View:
        """The view with its empty model and reference filled in, once all that it names is known to be stored.

        Raises
        ------
        ViewError, ResultsError
            Something that it names is not there.
        """
        run = stored.run(self.run)
        known = run.catalogue["model"].tolist()
        classes = class_names(run.tables[known[0]])
        _there("models", self.models, known)
        _there("streams", self.streams, run.streams)
        _there("labels", [self.labels] if self.labels else [], run.labels)
        _there("model", [self.model] if self.model else [], known)
        _there("reference", [self.reference] if self.reference else [], known)
        _there("cell", self.cell or [], classes)
        if self.compare:
            stored.run(self.compare)
        chosen = self.chosen(stored)
        if not chosen:
            raise ViewError("view: no model uses only these streams and these labels; choose more of them")
        reference = self.reference or (REFERENCE if REFERENCE in chosen else chosen[0])
        return replace(self, reference=reference, model=self.model or reference)

    def chosen(self, stored: StoredResults) -> list[str]:
        """Names of the models in the table."""
        table = stored.run(self.run).catalogue
        if self.models:
            table = table[table["model"].isin(self.models)]
        elif not self.streams and not self.labels:
            main = table[table["set"] == MAIN]
            table = main if len(main) else table
        if self.streams:
            table = table[[set(streams) <= set(self.streams) for streams in table["streams"]]]
        if self.labels:
            table = table[table["labels"] == self.labels]
        return table["model"].tolist()

    def table(self, stored: StoredResults, *, n_boot: int = 2000, seed: int = 0) -> pd.DataFrame:
        """Scores with intervals, best first: as :func:`ecmf_lib.evaluate.results_table`, with streams and labels.

        Parameters
        ----------
        n_boot : int
            Resamples of speakers; at least 50 a model are drawn, since no p-value is below 2 / (n_boot + 1) and the
            correction multiplies it by the number of comparisons.
        """
        run, view = stored.run(self.run), self.checked(stored)
        names = list(dict.fromkeys([*view.chosen(stored), view.reference]))
        n_boot = max(n_boot, 50 * len(names))
        asked = (tuple(names), view.reference, n_boot, seed)
        if asked not in run.kept:
            runs = {name: run.tables[name] for name in names}
            table = evaluate.results_table(runs, reference=view.reference, n_boot=n_boot, seed=seed)
            about = run.catalogue.set_index("model").loc[table["model"]]
            table.insert(1, "streams", [_streams(one, run.streams) for one in about["streams"]])
            table.insert(2, "labels", about["labels"].tolist())
            run.kept[asked] = table
        return run.kept[asked].copy()

    def differences(self, stored: StoredResults, **how) -> pd.DataFrame:
        """Each model less the reference on the same clips: model, difference, low, high, corrected p, and in words.

        `how` as for :meth:`table`. p_holm is from the bootstrap over speakers, p_mcnemar_holm over clips.
        """
        table = self.table(stored, **how)
        table = table[table["model"] != self.checked(stored).reference]
        columns = ["model", "difference", "difference_low", "difference_high", "p_holm", "p_mcnemar_holm"]
        return table[columns].assign(**{"in words": _in_words(table)}).reset_index(drop=True)

    def confusion(self, stored: StoredResults) -> pd.DataFrame:
        """Clips by label (rows) and predicted class (columns) of the view's model, mean over its seeds."""
        return evaluate.confusion(stored.run(self.run).tables[self.checked(stored).model])

    def clips(self, stored: StoredResults) -> pd.DataFrame:
        """The clips behind the cell, those that most seeds put there first, then the surest.

        Returns
        -------
        DataFrame
            id, speaker, label, predicted, times (seeds that put it there), seeds, confidence (mean probability of the
            predicted class over those seeds; NaN without probabilities), ``w_<stream>`` (mean; NaN where unknown).
        """
        run, view = stored.run(self.run), self.checked(stored)
        table, seeds = run.tables[view.model], run.tables[view.model]["seed"].nunique()
        if view.cell is not None:
            table = table[(table["label"] == view.cell[0]) & (table["predicted"] == view.cell[1])]
        weights = [column for column in table.columns if column.startswith("w_") and table[column].notna().any()]
        table = table.assign(confidence=_confidence(table))
        grouped = table.groupby(["id", "label", "predicted"], sort=True)
        clips = grouped.agg(speaker=("speaker", "first"), times=("seed", "nunique"), confidence=("confidence", "mean"))
        clips = clips.join(grouped[weights].mean()).reset_index().assign(seeds=seeds)
        clips = clips.sort_values(["times", "confidence"], ascending=False, kind="stable", ignore_index=True)
        return clips[["id", "speaker", "label", "predicted", "times", "seeds", "confidence", *weights]]

    def runs_compared(self, stored: StoredResults, *, n_boot: int = 2000, seed: int = 0) -> pd.DataFrame:
        """Models that the other run has too: model, here, there, difference (here - there), low, high, p, note.

        Paired over speakers where both runs score the same clips; else only the two scores, and the note says why.
        """
        here, there = stored.run(self.run), stored.run(self.compare) if self.compare else None
        rows = []
        for name in [name for name in self.chosen(stored) if there is not None and name in there.tables]:
            a, b = here.tables[name], there.tables[name]
            scores = [evaluate.scores(table)["weighted_f1"] for table in (a, b)]
            row = {"model": name, "here": scores[0], "there": scores[1], "difference": scores[0] - scores[1]}
            try:
                check_same_clips(a, b)
                found = evaluate.compare(a, b, n_boot=n_boot, seed=seed)
                row |= {"low": found.low, "high": found.high, "p": found.p, "note": found.note}
            except PredictionError as error:
                row |= {"low": np.nan, "high": np.nan, "p": np.nan, "note": f"not paired: {error}"}
            rows.append(row)
        return pd.DataFrame(rows, columns=["model", "here", "there", "difference", "low", "high", "p", "note"])

    def in_words(self) -> str:
        """What is looked at, in a line."""
        said = [f"run {self.run}", f"model {self.model or 'the reference'}"]
        said += [f"streams {' + '.join(self.streams)}"] if self.streams else []
        said += [f"{self.labels} labels"] if self.labels else []
        said += [f"{self.cell[0]} taken for {self.cell[1]}"] if self.cell else []
        return ", ".join(said + ([f"beside run {self.compare}"] if self.compare else []))


def commonest_error(view: View, stored: StoredResults) -> tuple[str, str] | None:
    """The cell off the diagonal with most clips; None where nothing is wrong."""
    matrix = view.confusion(stored)
    wrong = matrix.to_numpy() * (1 - np.eye(len(matrix)))
    if not wrong.any():
        return None
    row, column = np.unravel_index(wrong.argmax(), wrong.shape)
    return str(matrix.index[row]), str(matrix.columns[column])


def opened(text: str, run: str, base: Path) -> View:
    """The view that a parameter names: a file (relative to `base`), a query, or "" for the run as a whole."""
    if not text.strip():
        return View(run)
    path = base / Path(text).expanduser()
    return View.load(path) if text.endswith(".json") else View.read(text)


def _there(what: str, given, known: list[str]) -> None:
    lacking = [name for name in given if name not in known]
    if lacking:
        raise ViewError(f"view: {what}: no '{lacking[0][:80]}' in this run; there are {', '.join(known)}")


def _confidence(table: pd.DataFrame) -> np.ndarray:
    """Probability of the predicted class, float [n]; NaN without probabilities."""
    names = class_names(table)
    columns = [f"p_{name}" for name in names]
    if not set(columns) <= set(table.columns) or not len(table):
        return np.full(len(table), np.nan)
    at = table["predicted"].map({name: i for i, name in enumerate(names)}).to_numpy(int)
    return table[columns].to_numpy(float)[np.arange(len(table)), at]


def _streams(used: tuple[str, ...], known: list[str]) -> str:
    return "all" if len(used) == len(known) > 1 else " + ".join(used) or "none"


def _in_words(table: pd.DataFrame) -> list[str]:
    def said(row: pd.Series) -> str:
        if np.isnan(row["p_holm"]):
            return "too few speakers to test"
        if row["p_holm"] >= 0.05:
            return "not told apart"
        return "ahead" if row["difference"] > 0 else "behind"

    return [said(row) for _, row in table.iterrows()]
