"""Grouped nested cross-validation that can be interrupted: every clip predicted by a model that never saw its speaker.

What trains on one fold is in :mod:`ecmf_lib.fit`, the clips are :class:`FusionData` of :mod:`ecmf_lib.samples`; both
are handed on from here.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import scipy
import sklearn
import torch
from sklearn.utils.parallel import Parallel, delayed
from tqdm import tqdm

from ecmf_lib import (
    baseline,
    classical,
    experts,
    fusion,
    fusion_base,
    members,
    rivals,
    rivals_mult,
    samples,
    scaling,
    temperature,
    tune,
)
from ecmf_lib import fit as fitting
from ecmf_lib.fit import KINDS, Fitted, ModelSpec, fit
from ecmf_lib.members import Recipe
from ecmf_lib.samples import DataError, FusionData, grouped_folds

__all__ = [
    "KINDS",
    "DataError",
    "Fitted",
    "FusionData",
    "ModelSpec",
    "Recipe",
    "cross_validate",
    "fit",
    "fold_seed",
    "grouped_folds",
    "outer_folds",
    "predictions_table",
]

_PARTS = (baseline, classical, experts, fitting, fusion, fusion_base, members, rivals, rivals_mult, samples, scaling)
#: The code that a stored fold depends on. Read at import, so that an edit during a run does not mislabel its folds.
_CODE = [
    Path(source).read_text(encoding="utf-8")
    for source in (__file__, *(module.__file__ for module in (*_PARTS, temperature, tune)))
]


class Preparation(Protocol):
    """What changes a training part before a model sees it; can be sent to another process."""

    def __call__(self, part: FusionData, groups: np.ndarray, *, seed: int, epochs: int) -> tuple[FusionData, list[str]]:
        """The clips to train on (perhaps more, or with other targets and weights), and the group of each."""
        ...

    def about(self) -> list:
        """Everything that its result depends on apart from the training part, JSON-able."""
        ...


def cross_validate(
    data: FusionData,
    spec: ModelSpec,
    *,
    n_folds: int = 5,
    seeds: Sequence[int] = (0,),
    epochs: int = 25,
    groups: Sequence[str] | None = None,
    test_fold: np.ndarray | None = None,
    folder: Path | None = None,
    workers: int = 1,
    progress: bool = True,
    share: float = 1.0,
    predict: Callable[..., pd.DataFrame] | None = None,
    prepare: Preparation | None = None,
) -> pd.DataFrame:
    """Predict every clip by a model that has seen neither it nor its speaker.

    Parameters
    ----------
    data : FusionData
    spec : ModelSpec
    n_folds : int
        Outer folds, the same for all models so that predictions can be paired; fewer with fewer groups.
    seeds : sequence of int
        Repetitions; a seed sets outer and inner folds, initial weights, dropout and the search.
    epochs : int
        Most epochs of a neural model; inner folds stop it earlier.
    groups : sequence of str, optional
        n; what folds hold apart. The speakers by default.
    test_fold : int [n], optional
        A published split in place of `n_folds`: the fold in which a clip is tested, -1 for never (training only).
    folder : Path, optional
        Finished (seed, fold) parts are kept here and read again, as long as data, spec, settings and code are the same.
    workers : int
        Processes. The numbers do not depend on it.
    progress : bool
    share : float
        Below 1: train on so many of the training part's groups, drawn at random (learning curves). The scored clips
        stay the same.
    predict : callable, optional
        A module's function (model, tested, groups, seed=, fold=) → table in place of :func:`predictions_table`.
    prepare : Preparation, optional
        Changes each training part before anything is fitted on it: refined labels, further clips. It is given the
        training part alone, so that nothing of the scored clips can get into it; they keep their labels.

    Returns
    -------
    DataFrame
        One row for each seed and tested clip: model, seed, fold, id, speaker, label, predicted (class names),
        ``p_<class>``, `temperature` (of those), `options` (chosen on inner folds, json), ``w_<stream>`` (NaN for a
        model without stream weights), `trained_on` (clips) and `trained_speakers`. `speaker` is the group held apart.

    Notes
    -----
    Each seed draws its own outer folds: how speakers happen to be split moves a score more than initial weights do
    (on 18 RAVDESS actors by .02), and a figure of several seeds should not hang on one draw. Models are paired all the
    same, since all of them get the folds of the seed. Stratification leaves little to draw where few speakers have
    unequal shares of the classes: seeds may then share their outer folds, and differ in inner folds and weights only.
    """
    data = data.only(spec.streams) if spec.streams else data
    data.check_varies()
    groups = [str(g) for g in (data.speakers if groups is None else groups)]
    if len(groups) != len(data) or (test_fold is not None and len(test_fold) != len(data)):
        given = "" if test_fold is None else f" and {len(test_fold)} fold numbers"
        raise DataError(f"{len(groups)} groups{given} for {len(data)} clips")
    folds = {seed: outer_folds(data, groups, n_folds, seed, test_fold) for seed in seeds}
    tasks = [(seed, number) for seed, fold in folds.items() for number in sorted(set(fold.tolist()) - {-1})]
    asked = (share, Path(inspect.getfile(predict)).read_text(encoding="utf-8") if predict else "")
    if prepare is not None:
        asked = (*asked, prepare.about())
    keys = {seed: part_key(data, spec, groups, fold, epochs, asked) if folder else "" for seed, fold in folds.items()}
    parts = {task: _part_path(folder, spec, task, keys[task[0]]) for task in tasks}
    done = {task: pd.read_parquet(path) for task, path in parts.items() if path and path.exists()}
    todo = [task for task in tasks if task not in done]
    more = {"share": share, "predict": predict, "prepare": prepare}
    jobs = (delayed(_one_fold)(data, spec, groups, folds[task[0]], task, epochs, **more) for task in todo)
    results = Parallel(n_jobs=workers, return_as="generator")(jobs)
    bar = tqdm(zip(todo, results, strict=True), total=len(todo), desc=spec.name, disable=not progress, leave=False)
    for task, table in bar:
        done[task] = table
        if parts[task]:
            _write(table, parts[task])
    return pd.concat([done[task] for task in tasks], ignore_index=True)


def outer_folds(
    data: FusionData, groups: Sequence[str], n_folds: int, seed: int, test_fold: np.ndarray | None = None
) -> np.ndarray:
    """Outer fold of each clip: int [n]. A published split as it is; else groups held apart, drawn for each seed."""
    return grouped_folds(data.labels, groups, n_folds, seed=seed) if test_fold is None else np.asarray(test_fold)


def _one_fold(data, spec, groups, fold, task, epochs, *, share=1.0, predict=None, prepare=None) -> pd.DataFrame:
    seed, number = task
    groups = np.asarray(groups)
    train, test = fold != number, fold == number
    if share < 1:
        there = np.unique(groups[train])
        drawn = np.random.default_rng(fold_seed(seed, number)).permutation(there)
        train &= np.isin(groups, drawn[: max(2, round(share * len(there)))])
    model = fit_part(data, spec, groups, train, task, epochs, prepare)
    table = (predict or predictions_table)(model, data.select(test), groups[test], seed=seed, fold=number)
    return table.assign(trained_on=int(train.sum()), trained_speakers=len(np.unique(groups[train])))


def fit_part(
    data: FusionData,
    spec: ModelSpec,
    groups: np.ndarray,
    rows: np.ndarray,
    task: tuple[int, int],
    epochs: int,
    prepare: Preparation | None = None,
) -> Fitted:
    """The model of one training part: the clips at `rows` (bool [n]), prepared first, with the seed of (seed, fold)."""
    part, apart, own = data.select(rows), groups[rows], fold_seed(*task)
    if prepare is not None:
        part, apart = prepare(part, apart, seed=own, epochs=epochs)
    return fit(part, spec, seed=own, epochs=epochs, groups=apart)


def predictions_table(
    model: Fitted, tested: FusionData, groups: Sequence[str], *, seed: int, fold: int
) -> pd.DataFrame:
    """What a model says of clips, as :func:`cross_validate` gives it; groups go into the column `speaker`."""
    chances, weights = model.predict(tested)
    classes = np.array(tested.classes)
    table = {
        "model": model.name,
        "seed": seed,
        "fold": fold,
        "id": tested.ids,
        "speaker": groups,
        "label": classes[tested.labels],
        "predicted": classes[chances.argmax(1)],
    }
    table |= {f"p_{name}": chances[:, i] for i, name in enumerate(tested.classes)}
    table |= {"temperature": model.temperature, "options": json.dumps(model.chosen, sort_keys=True)}
    return pd.DataFrame(table | {f"w_{name}": weights[:, i] for i, name in enumerate(model.dims)})


def fold_seed(seed: int, fold: int) -> int:
    """A seed of its own for each (seed, fold), so that folds do not share their initial weights."""
    return int(np.random.SeedSequence([seed, fold]).generate_state(1)[0])


def part_key(
    data: FusionData, spec: ModelSpec, groups: list[str], fold: np.ndarray, epochs: int, asked: tuple = (1.0, "")
) -> str:
    """What a stored part depends on, code and library versions included: 16 hex digits."""
    versions = [np.__version__, sklearn.__version__, torch.__version__, scipy.__version__, version("optuna")]
    about = [data.fingerprint(), spec.about(), groups, fold.tolist(), epochs, list(asked), versions, _CODE]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def slug(spec: ModelSpec) -> str:
    """The model's name as a part of file names."""
    return re.sub(r"[^\w.-]+", "_", spec.name)


def _part_path(folder: Path | None, spec: ModelSpec, task: tuple[int, int], key: str) -> Path | None:
    if folder is None:
        return None
    return Path(folder) / f"{slug(spec)}-{key}-seed{task[0]}-fold{task[1]}.parquet"


def _write(table: pd.DataFrame, path: Path) -> None:
    """Whole or not at all, also when the process is killed while writing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(handle)
    table.to_parquet(temporary, index=False)
    os.replace(temporary, path)
