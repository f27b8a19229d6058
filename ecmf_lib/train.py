"""Grouped nested cross-validation that can be interrupted: every clip predicted by a model that never saw its speaker.

What trains on one fold is in :mod:`ecmf_lib.fit`, the clips are :class:`FusionData` of :mod:`ecmf_lib.samples`; both
are handed on from here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn
import torch
from sklearn.utils.parallel import Parallel, delayed
from tqdm import tqdm

from ecmf_lib import fit as fitting
from ecmf_lib import fusion, samples
from ecmf_lib.fit import KINDS, Fitted, ModelSpec, Recipe, fit
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
    "grouped_folds",
]

#: The code that a stored fold depends on. Read at import, so that an edit during a run does not mislabel its folds.
_CODE = [Path(source).read_text(encoding="utf-8") for source in (__file__, fitting.__file__, fusion.__file__)]
_CODE.append(Path(samples.__file__).read_text(encoding="utf-8"))


def cross_validate(
    data: FusionData,
    spec: ModelSpec,
    *,
    n_folds: int = 5,
    seeds: Sequence[int] = (0,),
    epochs: int = 15,
    groups: Sequence[str] | None = None,
    test_fold: np.ndarray | None = None,
    folder: Path | None = None,
    workers: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """Predict every clip by a model that has seen neither it nor its speaker.

    Parameters
    ----------
    data : FusionData
    spec : ModelSpec
    n_folds : int
        Outer folds, the same for all seeds and models so that predictions can be paired; fewer with fewer groups.
    seeds : sequence of int
        Repetitions; a seed sets initial weights, dropout and inner folds.
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

    Returns
    -------
    DataFrame
        One row for each seed and tested clip: model, seed, fold, id, speaker, label, predicted (class names),
        ``p_<class>``, ``w_<stream>`` (NaN for a model without stream weights). `speaker` is the group held apart.
    """
    data = data.only(spec.streams) if spec.streams else data
    data.check_varies()
    groups = [str(g) for g in (data.speakers if groups is None else groups)]
    fold = grouped_folds(data.labels, groups, n_folds) if test_fold is None else np.asarray(test_fold)
    if len(groups) != len(data) or len(fold) != len(data):
        raise DataError(f"{len(groups)} groups and {len(fold)} fold numbers for {len(data)} clips")
    tasks = [(seed, number) for seed in seeds for number in sorted(set(fold.tolist()) - {-1})]
    key = _key(data, spec, groups, fold, epochs) if folder else ""
    parts = {task: _part_path(folder, spec, task, key) for task in tasks}
    done = {task: pd.read_parquet(path) for task, path in parts.items() if path and path.exists()}
    todo = [task for task in tasks if task not in done]
    jobs = (delayed(_one_fold)(data, spec, groups, fold, task, epochs) for task in todo)
    results = Parallel(n_jobs=workers, return_as="generator")(jobs)
    bar = tqdm(zip(todo, results, strict=True), total=len(todo), desc=spec.name, disable=not progress, leave=False)
    for task, table in bar:
        done[task] = table
        if parts[task]:
            _write(table, parts[task])
    return pd.concat([done[task] for task in tasks], ignore_index=True)


def _one_fold(data, spec, groups, fold, task, epochs) -> pd.DataFrame:
    seed, number = task
    groups = np.asarray(groups)
    train, test = fold != number, fold == number
    model = fit(data.select(train), spec, seed=_mix(seed, number), epochs=epochs, groups=groups[train])
    tested = data.select(test)
    chances, weights = model.predict(tested)
    classes = np.array(data.classes)
    table = pd.DataFrame(
        {
            "model": spec.name,
            "seed": seed,
            "fold": number,
            "id": tested.ids,
            "speaker": groups[test],
            "label": classes[tested.labels],
            "predicted": classes[chances.argmax(1)],
        }
    )
    for i, name in enumerate(data.classes):
        table[f"p_{name}"] = chances[:, i]
    for i, name in enumerate(data.streams):
        table[f"w_{name}"] = weights[:, i]
    return table


def _mix(seed: int, fold: int) -> int:
    """A seed of its own for each (seed, fold), so that folds do not share their initial weights."""
    return int(np.random.SeedSequence([seed, fold]).generate_state(1)[0])


def _key(data: FusionData, spec: ModelSpec, groups: list[str], fold: np.ndarray, epochs: int) -> str:
    """What a stored part depends on, code and library versions included: 16 hex digits."""
    versions = [np.__version__, sklearn.__version__, torch.__version__]
    about = [data.fingerprint(), asdict(spec), groups, fold.tolist(), epochs, versions, _CODE]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def _part_path(folder: Path | None, spec: ModelSpec, task: tuple[int, int], key: str) -> Path | None:
    if folder is None:
        return None
    name = re.sub(r"[^\w.-]+", "_", spec.name)
    return Path(folder) / f"{name}-{key}-seed{task[0]}-fold{task[1]}.parquet"


def _write(table: pd.DataFrame, path: Path) -> None:
    """Whole or not at all, also when the process is killed while writing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(handle)
    table.to_parquet(temporary, index=False)
    os.replace(temporary, path)
