"""What runs have left behind: predictions of every model, read again and never made again.

Notebook 03 stores a row for each model, seed and clip (:func:`ecmf_lib.train.cross_validate`), notebook 04 those of its
arms. All tables of which each model predicts each clip once a seed are taken; those of side studies in which a clip is
predicted many times (damaged streams, learning curves, other practices) are not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ecmf_lib.bounded import read_json, read_lines
from ecmf_lib.bounded_arrays import read_parquet
from ecmf_lib.predictions import NEEDED, PredictionError, check_same_clips, checked

SUFFIX = " alone"
MAJORITY = "always the commonest"
MAIN = "main"


class ResultsError(ValueError):
    """Results that are not there or cannot be read; the message names the file and the mend."""


class _Set(NamedTuple):
    """One stored table: where it lies, and how its models are called where several tables stand side by side."""

    notebook: str
    file: str
    called: str = "{}"


#: Set → the table that holds it, in the order in which models are listed.
SETS = {
    MAIN: _Set("03_fuse_and_ablate", "predictions"),
    "single models": _Set("03_fuse_and_ablate", "single_predictions"),
    "parts": _Set("03_fuse_and_ablate", "ablation_predictions", "{} (fixed recipe)"),
    "labels": _Set("03_fuse_and_ablate", "label_predictions"),
    "stream subsets": _Set("03_fuse_and_ablate", "subset_predictions", "ECMF on {}"),
    "label arms": _Set("04_refine_labels", "predictions", "{} (notebook 04)"),
}
_LABELS = ("labels", "label arms")  # sets whose models differ by the labels that they are trained on


@dataclass(frozen=True)
class Run:
    """One run's stored predictions.

    Attributes
    ----------
    name : str
        The run's folder in ``reports``.
    corpus : str
    catalogue : DataFrame
        A row a model: model (unique), set (of :data:`SETS`), streams (tuple of str), labels ("given", "refined", …),
        seeds, clips.
    tables : dict of str to DataFrame
        Model → predictions, a row a seed and clip.
    """

    name: str
    corpus: str
    catalogue: pd.DataFrame
    tables: dict[str, pd.DataFrame] = field(repr=False)
    kept: dict = field(default_factory=dict, repr=False, compare=False)  # tables of scores that were asked for before

    @property
    def streams(self) -> list[str]:
        """Streams that any model uses, in the order of the tables."""
        return list(dict.fromkeys(stream for streams in self.catalogue["streams"] for stream in streams))

    @property
    def labels(self) -> list[str]:
        """Kinds of labels that models are trained on."""
        return list(dict.fromkeys(self.catalogue["labels"]))


class StoredResults:
    """The runs in a folder of reports; each is read when it is first asked for.

    Parameters
    ----------
    reports : Path
        Holds a folder for each run.
    """

    def __init__(self, reports: Path):
        self.reports = Path(reports)
        self._runs: dict[str, Run] = {}

    def names(self) -> list[str]:
        """Runs that have stored predictions, in order of name."""
        found = self.reports.iterdir() if self.reports.is_dir() else []
        return sorted(path.name for path in found if any(_path(path, name).is_file() for name in SETS))

    def run(self, name: str) -> Run:
        """One run.

        Raises
        ------
        ResultsError
            There is no such run, or a table of it cannot be read.
        """
        if name not in self._runs:
            if name not in self.names():
                there = ", ".join(self.names()) or "none"
                raise ResultsError(
                    f"no stored predictions of run '{name}' in {self.reports.name}/ (runs there: {there}); "
                    f"make them with `ecmf report --notebook {SETS[MAIN].notebook}`"
                )
            self._runs[name] = read_run(self.reports / name)
        return self._runs[name]


def _path(folder: Path, name: str) -> Path:
    return folder / "tables" / SETS[name].notebook / f"{SETS[name].file}.parquet"


def read_run(folder: Path) -> Run:
    """All stored predictions of one run's folder.

    Raises
    ------
    ResultsError
        A table that cannot be read, lacks columns, or predicts a clip twice; or there is none at all.
    """
    rows, tables, streams, first = [], {}, [], None
    for name, told in SETS.items():
        path = _path(folder, name)
        if not path.is_file():
            continue
        whole = _read(path)
        streams = streams or [column[2:] for column in whole.columns if column.startswith("w_")]
        for model, table in whole.groupby("model", sort=False):
            called = _called(str(model), told, tables)
            try:
                first = checked(table) if first is None else first
                check_same_clips(checked(table), first)
            except PredictionError as error:
                raise ResultsError(
                    f"{path}, model '{model}': {error}; execute notebook {told.notebook} again"
                ) from None
            tables[called] = table.reset_index(drop=True)
            rows.append(
                {
                    "model": called,
                    "set": name,
                    "streams": _streams(str(model), table, streams),
                    "labels": _labels(str(model)) if name in _LABELS else "given",
                    "seeds": table["seed"].nunique(),
                    "clips": table["id"].nunique(),
                }
            )
    if not rows:
        raise ResultsError(
            f"{folder}: no stored predictions; make them with `ecmf report --notebook 03_fuse_and_ablate`"
        )
    return Run(folder.name, _corpus(folder), pd.DataFrame(rows), tables)


def _read(path: Path) -> pd.DataFrame:
    try:
        table = read_parquet(path).to_pandas()
    except (OSError, ValueError) as error:
        raise ResultsError(f"{path}: {error}; execute the notebook again") from None
    lacking = [column for column in ("model", *NEEDED) if column not in table.columns]
    if lacking:
        raise ResultsError(f"{path}: no column {', '.join(lacking)}; expected one row a model, seed and clip")
    return table


def _called(model: str, told: _Set, taken: dict) -> str:
    """A name that no other table has: "ECMF" of the ablation is not the "ECMF" of the main table."""
    always = told.called.endswith("{}") and told.called != "{}"
    name = told.called.format(model) if always or model in taken else model
    while name in taken:
        name += " (again)"
    return name


def _streams(model: str, table: pd.DataFrame, names: list[str]) -> tuple[str, ...]:
    """Streams that a model was given: those that it weighs, else what its name says."""
    weighed = tuple(name for name in names if f"w_{name}" in table and table[f"w_{name}"].notna().any())
    if weighed:
        return weighed
    if model == MAJORITY:
        return ()
    if model.removesuffix(SUFFIX) in names:
        return (model.removesuffix(SUFFIX),)
    return tuple(name for name in names if model != f"without {name}")


def _labels(model: str) -> str:
    return model.removeprefix("ECMF, ").removesuffix(" labels")


def _corpus(folder: Path) -> str:
    """The corpus that a run is of: as its scores name it, else as its headlines do, else the run's own name."""
    scores = folder / "tables" / SETS[MAIN].notebook / "scores.csv"
    try:
        read_lines(scores)
        return str(pd.read_csv(scores, usecols=["corpus"], dtype=str)["corpus"].iloc[0]).removeprefix("'")
    except (OSError, ValueError, IndexError):
        pass
    for path in sorted((folder / "tables").glob("*/headline.json")):
        try:
            return str(read_json(path)["provenance"]["corpus"]).rsplit(":", 1)[0]
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return folder.name
