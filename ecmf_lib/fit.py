"""Fitting one model on one training part, and many at once.

Whatever is learned (standardisation, weights, when to stop, which option, temperature) comes from the clips that are
given. Inner folds hold speakers apart. The same seed gives the same numbers, whatever the number of threads.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from ecmf_lib.fitted import KINDS, Fitted, ModelSpec
from ecmf_lib.members import reproducible
from ecmf_lib.samples import FusionData
from ecmf_lib.together import Job, train_together
from ecmf_lib.training_part import TrainingPart

__all__ = ["KINDS", "Fitted", "ModelSpec", "Task", "fit", "fit_together", "out_of_fold", "picked_on_scored_fold"]


def fit(data: FusionData, spec: ModelSpec, *, seed: int, epochs: int, groups: Sequence[str] | None = None) -> Fitted:
    """Train one model on all of `data`; stopping, options and temperature are chosen on its inner folds.

    Parameters
    ----------
    data : FusionData
    spec : ModelSpec
        With ``trials`` the options are searched first.
    seed : int
    epochs : int
        Most epochs of a neural model.
    groups : sequence of str, optional
        What inner folds hold apart; the speakers by default.
    """
    return TrainingPart(data, spec, seed, epochs, groups).fitted()


@dataclass(frozen=True, eq=False)
class Task:
    """What :func:`fit` is given, for many at once.

    Attributes
    ----------
    data, spec, seed, epochs, groups
    shared : dict, optional
        The same one for all tasks about the same training clips with the same seed and groups: what they have in common
        for each stream (principal directions, experts) is computed once and kept in it.
    """

    data: FusionData
    spec: ModelSpec
    seed: int
    epochs: int
    groups: Sequence[str] | None = None
    shared: dict | None = field(default=None, repr=False)

    @property
    def stackable(self) -> bool:
        """Whether it is one training of a network: a search is many, each depending on those before it."""
        return self.spec.neural and self.spec.trials <= 1 and len(self.spec.candidates()) == 1


def fit_together(tasks: Sequence[Task], *, device: str) -> list[Fitted]:
    """Train many models at once on a device; what does not fit into a stack is fitted as by :func:`fit`.

    Parameters
    ----------
    tasks : sequence of Task
    device : str
        A torch device.

    Returns
    -------
    list of Fitted
        In the order of `tasks`. On the CPU the same as from :func:`fit`, to rounding.
    """
    parts = [TrainingPart(t.data, t.spec, t.seed, t.epochs, t.groups, t.shared) for t in tasks]
    found: list = [part.fitted() if not task.stackable else None for task, part in zip(tasks, parts, strict=True)]
    stacks: dict = {}
    for place, (task, part) in enumerate(zip(tasks, parts, strict=True)):
        if task.stackable:
            with reproducible(task.seed):
                ready = part.ready(task.spec.candidates()[0])
            job = Job(ready.x, part.data, ready.fold, task.seed, ready.opinions)
            about = json.dumps([task.spec.kind, ready.rest, asdict(ready.recipe), part.epochs], sort_keys=True)
            stacks.setdefault((about, job.shape(ready.recipe)), []).append((place, ready, job))
    for members in stacks.values():
        places, readies, jobs = zip(*members, strict=True)
        first, ready = parts[places[0]], readies[0]
        trained = train_together(jobs, first.spec.kind, ready.rest, ready.recipe, first.epochs, device=device)
        for place, own, (stack, loss) in zip(places, readies, trained, strict=True):
            part = parts[place]
            with reproducible(part.seed):
                _, rest, arrays, inner, rows = part.judged(own, stack, loss)
                found[place] = part.concluded(rest, {}, arrays, inner, rows)
    return found


def out_of_fold(
    data: FusionData, spec: ModelSpec, *, seed: int, epochs: int, groups: Sequence[str] | None = None
) -> np.ndarray:
    """Class scores of the training clips themselves, each by a member that was not fitted on it.

    What refinement asks before it trusts a label. A network's epoch is picked on the fold that a member did not see, by
    the labels it has there: enough to compare sources, no score to report.

    Returns
    -------
    logits : float64 [n, classes]
        0 for a clip that no member left out.
    """
    return TrainingPart(data, spec, seed, epochs, groups).out_of_fold()


def picked_on_scored_fold(data: FusionData, spec: ModelSpec, fold: np.ndarray, *, seed: int, epochs: int) -> np.ndarray:
    """The usual practice, to show what it flatters: the epoch is picked on the very fold that is then scored.

    One model a fold, all standardised together. **No honest score comes from this.**

    Parameters
    ----------
    data : FusionData
    spec : ModelSpec
        Neural.
    fold : int [n]
        In which fold each clip is scored.

    Returns
    -------
    logits : float64 [n, classes]
    """
    part = TrainingPart(data, spec, seed, epochs, groups=[f"fold {number}" for number in fold])
    part.own_fold = np.asarray(fold)
    with reproducible(seed):
        return part._train(dict(spec.options) | {"members": 0, "select": "weighted_f1"})[3]
