"""Grouped nested cross-validation that can be interrupted: every clip predicted by a model that never saw its speaker.

What trains on one fold is in :mod:`ecmf_lib.fit`, the clips are :class:`FusionData` of :mod:`ecmf_lib.samples`; both
are handed on from here.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import scipy
import sklearn
import torch
from sklearn.utils.parallel import Parallel, delayed
from tqdm import tqdm

from ecmf_lib import (
    baseline,
    classical,
    experts,
    fitted,
    fusion,
    fusion_base,
    group_split,
    members,
    rivals,
    rivals_mult,
    samples,
    scaling,
    temperature,
    together,
    training_part,
    tune,
)
from ecmf_lib import fit as fitting
from ecmf_lib.fit import KINDS, Fitted, ModelSpec, Task, fit, fit_together
from ecmf_lib.members import Recipe
from ecmf_lib.samples import DataError, FusionData, grouped_folds
from ecmf_lib.shards import write_table

__all__ = [
    "KINDS",
    "DataError",
    "Fitted",
    "FusionData",
    "ModelSpec",
    "Recipe",
    "cross_validate",
    "cross_validate_all",
    "fit",
    "fold_seed",
    "grouped_folds",
    "outer_folds",
    "predictions_table",
]

_PARTS = (
    baseline,
    classical,
    experts,
    fitted,
    fitting,
    fusion,
    fusion_base,
    group_split,
    members,
    rivals,
    rivals_mult,
    samples,
    scaling,
    temperature,
    together,
    training_part,
    tune,
)
#: Most models that are trained together on a GPU.
TOGETHER = 128
#: The code that a stored fold depends on. Read at import, so that an edit during a run does not mislabel its folds.
_CODE = [Path(source).read_text(encoding="utf-8") for source in (__file__, *(module.__file__ for module in _PARTS))]


class Preparation(Protocol):
    """What changes a training part before a model sees it; can be sent to another process."""

    def __call__(self, part: FusionData, groups: np.ndarray, *, seed: int, epochs: int) -> tuple[FusionData, list[str]]:
        """The clips to train on (perhaps more, or with other targets and weights), and the group of each."""
        ...

    def about(self) -> list:
        """Everything that its result depends on apart from the training part, JSON-able."""
        ...


def cross_validate(data: FusionData, spec: ModelSpec, **how) -> pd.DataFrame:
    """Predict every clip by a model that has seen neither it nor its speaker.

    Parameters
    ----------
    data : FusionData
    spec : ModelSpec
    **how
        As for :func:`cross_validate_all`.

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
    return cross_validate_all([(data, spec)], **how)[0]


def cross_validate_all(
    models: Sequence[tuple[FusionData, ModelSpec]],
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
    device: str = "cpu",
) -> list[pd.DataFrame]:
    """:func:`cross_validate` for many models: one pool for the folds of all, the dearest first, so that no core idles.

    Parameters
    ----------
    models : sequence of (FusionData, ModelSpec)
        The same clips in all of them.
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
        Processes, one thread each, which share the features by memory map. The numbers do not depend on it.
    progress : bool
    share : float
        Below 1: train on so many of the training part's groups, drawn at random (learning curves). The scored clips
        stay the same.
    predict : callable, optional
        A module's function (model, tested, groups, seed=, fold=) → table in place of :func:`predictions_table`.
    prepare : Preparation, optional
        Changes each training part before anything is fitted on it: refined labels, further clips. It is given the
        training part alone, so that nothing of the scored clips can get into it; they keep their labels.
    device : str
        "cpu"; or a GPU such as "cuda", on which networks of one form are trained together in this process
        (:mod:`ecmf_lib.together`), with dropout masks of its own; "auto" takes one if it is there.

    Returns
    -------
    list of DataFrame
        In the order of `models`.
    """
    device = _device(device)
    plans = [
        _Plan.of(data, spec, groups, n_folds, seeds, epochs, test_fold, share, predict, prepare)
        for data, spec in models
    ]
    asked = (share, Path(inspect.getfile(predict)).read_text(encoding="utf-8") if predict else "")
    if prepare is not None:
        asked = (*asked, prepare.about())
    if device != "cpu":
        asked = (*asked, device)
    parts, done, todo = {}, {}, []
    for number, plan in enumerate(plans):
        for task, path in plan.paths(folder, asked).items():
            parts[number, task] = path
            if path and path.exists():
                done[number, task] = pd.read_parquet(path)
            else:
                todo.append((number, task))
    todo.sort(key=lambda at: -plans[at[0]].cost)
    run = _on_device(plans, todo, device) if device != "cpu" else _in_processes(plans, todo, workers)
    name = models[0][1].name if len(models) == 1 else f"{len(models)} models"
    for at, table in tqdm(run, total=len(todo), desc=name, disable=not progress, leave=False):
        done[at] = table
        if parts[at]:
            _write(table, parts[at])
    return [
        pd.concat([done[number, task] for task in plan.tasks], ignore_index=True) for number, plan in enumerate(plans)
    ]


def _device(asked: str) -> str:
    if asked != "auto":
        return asked
    return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True, eq=False)
class _Plan:
    """One model's cross-validation: its clips, its folds, and what is done in each."""

    data: FusionData
    spec: ModelSpec
    groups: list[str]
    folds: dict[int, np.ndarray]
    epochs: int
    share: float
    predict: Callable[..., pd.DataFrame] | None
    prepare: Preparation | None

    @classmethod
    def of(cls, data, spec, groups, n_folds, seeds, epochs, test_fold, share, predict, prepare) -> _Plan:
        data = data.only(spec.streams) if spec.streams else data
        data.check_varies()
        groups = [str(g) for g in (data.speakers if groups is None else groups)]
        if len(groups) != len(data) or (test_fold is not None and len(test_fold) != len(data)):
            given = "" if test_fold is None else f" and {len(test_fold)} fold numbers"
            raise DataError(f"{len(groups)} groups{given} for {len(data)} clips")
        folds = {seed: outer_folds(data, groups, n_folds, seed, test_fold) for seed in seeds}
        return cls(data, spec, groups, folds, epochs, share, predict, prepare)

    @property
    def tasks(self) -> list[tuple[int, int]]:
        """(seed, fold)."""
        return [(seed, number) for seed, fold in self.folds.items() for number in sorted(set(fold.tolist()) - {-1})]

    @property
    def cost(self) -> float:
        """A guess at what a fold costs, to begin with the dearest: a short one at the end leaves no core waiting."""
        if not self.spec.neural:
            return 0.0
        at_length = 10 if self.data.frame_level else 1
        return at_length * (self.spec.epochs or self.epochs) * max(self.spec.trials, len(self.spec.candidates()))

    def paths(self, folder: Path | None, asked: tuple) -> dict[tuple[int, int], Path | None]:
        """Where each part is kept."""
        if folder is None:
            return dict.fromkeys(self.tasks)
        keys = {
            seed: part_key(self.data, self.spec, self.groups, fold, self.epochs, asked)
            for seed, fold in self.folds.items()
        }
        name = slug(self.spec)
        return {(s, n): Path(folder) / f"{name}-{keys[s]}-seed{s}-fold{n}.parquet" for s, n in self.tasks}

    def rows(self, task: tuple[int, int]) -> np.ndarray:
        """Clips of the training part, bool [n]."""
        seed, number = task
        groups, train = np.asarray(self.groups), self.folds[seed] != number
        if self.share < 1:
            there = np.unique(groups[train])
            drawn = np.random.default_rng(fold_seed(seed, number)).permutation(there)
            train &= np.isin(groups, drawn[: max(2, round(self.share * len(there)))])
        return train

    def fold(self, task: tuple[int, int]) -> pd.DataFrame:
        """One (seed, fold) from clips to predictions."""
        groups, rows = np.asarray(self.groups), self.rows(task)
        return self.scored(fit_part(self.data, self.spec, groups, rows, task, self.epochs, self.prepare), task, rows)

    def scored(self, model: Fitted, task: tuple[int, int], rows: np.ndarray) -> pd.DataFrame:
        """The tested clips' predictions."""
        (seed, number), groups = task, np.asarray(self.groups)
        test = self.folds[seed] == number
        say = self.predict or predictions_table
        table = say(model, self.data.select(test), groups[test], seed=seed, fold=number)
        return table.assign(trained_on=int(rows.sum()), trained_speakers=len(np.unique(groups[rows])))


_At = tuple[int, tuple[int, int]]  # number of the plan, (seed, fold)


def _in_processes(plans: list[_Plan], todo: list[_At], workers: int) -> Iterator[tuple[_At, pd.DataFrame]]:
    # joblib writes large arrays to a file once and every process maps it, whatever the number of tasks
    jobs = (delayed(_one_fold)(plans[at[0]], at) for at in todo)
    return Parallel(n_jobs=workers, return_as="generator_unordered")(jobs)


def _one_fold(plan: _Plan, at: _At) -> tuple[_At, pd.DataFrame]:
    return at, plan.fold(at[1])


def _on_device(plans: list[_Plan], todo: list[_At], device: str) -> Iterator[tuple[_At, pd.DataFrame]]:
    todo = sorted(todo, key=lambda at: at[1])  # tasks of one fold next to each other: they share what a stream needs
    for start in range(0, len(todo), TOGETHER):
        some, tasks, trained_on, shared = todo[start : start + TOGETHER], [], [], {}
        for number, task in some:
            plan, own, rows = plans[number], fold_seed(*task), plans[number].rows(task)
            part, apart = _prepared(plan.data, np.asarray(plan.groups), rows, own, plan.epochs, plan.prepare)
            common = shared.setdefault(task, {}) if plan.prepare is None else None
            tasks.append(Task(part, plan.spec, own, plan.epochs, apart, common))
            trained_on.append(rows)
        models = fit_together(tasks, device=device)
        for (number, task), model, rows in zip(some, models, trained_on, strict=True):
            yield (number, task), plans[number].scored(model, task, rows)


def outer_folds(
    data: FusionData, groups: Sequence[str], n_folds: int, seed: int, test_fold: np.ndarray | None = None
) -> np.ndarray:
    """Outer fold of each clip: int [n]. A published split as it is; else groups held apart, drawn for each seed."""
    return grouped_folds(data.labels, groups, n_folds, seed=seed) if test_fold is None else np.asarray(test_fold)


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
    own = fold_seed(*task)
    part, apart = _prepared(data, groups, rows, own, epochs, prepare)
    return fit(part, spec, seed=own, epochs=epochs, groups=apart)


def _prepared(
    data: FusionData, groups: np.ndarray, rows: np.ndarray, seed: int, epochs: int, prepare: Preparation | None
) -> tuple[FusionData, Sequence[str]]:
    """The clips at `rows` (bool [n]), or what is made of them, and their groups."""
    part, apart = data.select(rows), groups[rows]
    return (part, apart) if prepare is None else prepare(part, apart, seed=seed, epochs=epochs)


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


def _write(table: pd.DataFrame, path: Path) -> None:
    """Whole or not at all, also when the process is killed while writing; StoreError if it cannot be written."""
    write_table(path, pa.Table.from_pandas(table, preserve_index=False), path.parent / ".writing")
