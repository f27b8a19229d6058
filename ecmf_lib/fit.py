"""Fitting one model on one training part.

Whatever is learned (standardisation, weights, when to stop, which option, temperature) comes from the clips that are
given. Inner folds hold speakers apart. The same seed gives the same numbers, whatever the number of threads.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from ecmf_lib import classical, experts, fusion
from ecmf_lib.experts import log_softmax
from ecmf_lib.members import Recipe, log_probabilities, reproducible, train_stack
from ecmf_lib.samples import DataError, FusionData, inner_folds
from ecmf_lib.scaling import fit_rotation, fit_standardiser, learnable, standardise, turned
from ecmf_lib.temperature import fit_temperature
from ecmf_lib.together import Job, train_together
from ecmf_lib.tune import search

#: Most clips that are predicted at once: what lies between the layers then stays near the processor.
AT_ONCE = 1024
#: What `kind` of a :class:`ModelSpec` may be.
KINDS = (*fusion.FUSIONS, *classical.KINDS)


@dataclass(frozen=True)
class ModelSpec:
    """A model by name.

    Attributes
    ----------
    name : str
        As it appears in tables.
    kind : str
        One of :data:`KINDS`.
    streams : tuple of str or None
        None: all of the data.
    options : dict
        Options of the fusion's class and of :class:`ecmf_lib.members.Recipe` (for the logistic kinds: ``C``). A list or
        tuple means: choose among these on the inner folds.
    trials : int
        Settings that the search tries in each outer fold (:mod:`ecmf_lib.tune`); 0 or 1: none.
    epochs : int
        Most epochs, where the model has a recipe of its own; 0: as all others.
    """

    name: str
    kind: str
    streams: tuple[str, ...] | None = None
    options: dict = field(default_factory=dict)
    trials: int = 0
    epochs: int = 0

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"model '{self.name}': no kind {self.kind!r}; choose from {', '.join(KINDS)}")

    @property
    def neural(self) -> bool:
        """Whether it is a network."""
        return self.kind in fusion.FUSIONS

    def candidates(self) -> list[dict]:
        """Every combination of the options that are given as lists."""
        choices = {key: list(v) if isinstance(v, list | tuple) else [v] for key, v in self.options.items()}
        return [dict(zip(choices, chosen, strict=True)) for chosen in itertools.product(*choices.values())]

    def about(self) -> dict:
        """Everything that its results depend on, JSON-able."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained model: everything that predicting needs, and nothing of the training clips.

    Attributes
    ----------
    name, kind : str
    classes : tuple of str
    dims : dict of str to int
    options : dict
        Options of the fusion as chosen.
    arrays : dict of str to array
        ``mean.<stream>``, ``gain.<stream>`` (1/deviation, 0 for a constant column), where they were learned
        ``rotate.<stream>`` [dim, components] and ``expert.<stream>`` [classes, dim + 1], and ``param.<name>``.
    temperature : float
        Divides the class scores; set on inner folds.
    trees : object or None
        Of gradient boosting only.
    chosen : dict
        Options that were chosen on inner folds: by the search, or among those that the spec lists.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    dims: dict[str, int]
    options: dict
    arrays: dict[str, np.ndarray]
    temperature: float = 1.0
    trees: object = None
    chosen: dict = field(default_factory=dict)

    def predict(self, data: FusionData) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities float64 [n, classes] and stream weights float64 [n, streams] (NaN where the model has none)."""
        if len(data) > AT_ONCE:
            parts = [self.predict(data.select(rows)) for rows in _stretches(len(data))]
            chances, weights = zip(*parts, strict=True)
            return np.concatenate(chances), np.concatenate(weights)
        data = learnable(self._fitting(data), self.arrays)
        scores, weights = self._scores(data if self.kind in fusion.FUSIONS else data.clip_level())
        return np.exp(log_softmax(scores / self.temperature)), weights

    def _scores(self, data: FusionData) -> tuple[np.ndarray, np.ndarray]:
        params = {key[6:]: value for key, value in self.arrays.items() if key.startswith("param.")}
        x = standardise(data, self.arrays)
        no_weights = np.full((len(data), len(self.dims)), np.nan)
        if self.kind not in fusion.FUSIONS:
            known, there = classical.Classical(params, model=self.trees), data.mask()
            kind = "majority" if "prior" in params else self.kind  # boosting of a single class is that
            scores = classical.class_scores(kind, known, turned(x, self.arrays), there)
            return scores, there / np.maximum(there.sum(1, keepdims=True), 1) if kind == "late-logistic" else no_weights
        with reproducible(0):
            stack = {key: torch.from_numpy(value) for key, value in params.items()}
            z = turned(x, self.arrays)
            model = fusion.build(self.kind, {n: v.shape[-1] for n, v in z.items()}, len(self.classes), **self.options)
            opinions = experts.opinions_of(x, data.present, self.arrays) if model.takes_opinions else None
            chances, weights = log_probabilities(model, stack, z, data.mask(), opinions)
        weights = weights.mean(0)
        return log_softmax(chances.mean(0)), weights if weights.shape[1] else no_weights

    def save(self, folder: Path) -> None:
        """Write ``model.safetensors`` and ``model.json`` into `folder` (made if need be).

        Raises
        ------
        ValueError
            For gradient boosting: its trees would need pickle.
        """
        if self.trees is not None:
            raise ValueError(f"model '{self.name}' cannot be kept: its trees would need pickle; fit it again")
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {key: np.ascontiguousarray(value) for key, value in self.arrays.items()}, folder / "model.safetensors"
        )
        about = {key: value for key, value in vars(self).items() if key not in ("arrays", "trees")}
        (folder / "model.json").write_text(json.dumps(about, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Fitted:
        """Read what :meth:`save` wrote; predictions are identical."""
        about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        about["classes"] = tuple(about["classes"])
        return cls(arrays=load_file(folder / "model.safetensors"), **about)

    def _fitting(self, data: FusionData) -> FusionData:
        data = data.only(self.dims)
        for name, dim in self.dims.items():
            if data.dims[name] != dim:
                raise DataError(
                    f"stream '{name}': clip {data.ids[0]!r} has {data.dims[name]} features, model '{self.name}' "
                    f"expects {dim}; extract with the encoder it was trained on"
                )
        return data


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
    return _TrainingPart(data, spec, seed, epochs, groups).fitted()


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
    parts = [_TrainingPart(t.data, t.spec, t.seed, t.epochs, t.groups, t.shared) for t in tasks]
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
    return _TrainingPart(data, spec, seed, epochs, groups).out_of_fold()


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
    part = _TrainingPart(data, spec, seed, epochs, groups=[f"fold {number}" for number in fold])
    part.own_fold = np.asarray(fold)
    with reproducible(seed):
        return part._train(dict(spec.options) | {"members": 0, "select": "weighted_f1"})[3]


class _Ready(NamedTuple):
    """What one training is given, and the network's form."""

    recipe: Recipe
    rest: dict  # options of the fusion
    fold: np.ndarray  # int [n]
    x: dict[str, np.ndarray]
    arrays: dict[str, np.ndarray]  # rotations and experts
    opinions: np.ndarray | None
    model: fusion.Fusion


def _stretches(n: int) -> Iterator[np.ndarray]:
    return (np.arange(start, min(start + AT_ONCE, n)) for start in range(0, n, AT_ONCE))


class _TrainingPart:
    """One training part, prepared: standardised features, inner folds, and what several trials can share."""

    def __init__(
        self,
        data: FusionData,
        spec: ModelSpec,
        seed: int,
        epochs: int,
        groups: Sequence[str] | None,
        shared: dict | None = None,
    ):
        data = data.only(spec.streams) if spec.streams else data
        self.data = data if spec.neural else data.clip_level()
        self.spec, self.seed, self.epochs = spec, seed, spec.epochs or epochs
        self.groups = np.asarray(data.speakers if groups is None else groups)
        self.scale = fit_standardiser(self.data)
        self.data = learnable(self.data, self.scale)
        self.x = standardise(self.data, self.scale)
        self.own_fold: np.ndarray | None = None  # in place of inner folds that are drawn
        self._shared: dict = {} if shared is None else shared

    def fitted(self) -> Fitted:
        spec, data = self.spec, self.data
        with reproducible(self.seed):
            if spec.neural:
                return self.concluded(*self._best())
            rotation = {}
            if spec.kind == "boosting":
                rotation = fit_rotation(data, self.x, classical.BOOSTED_COMPONENTS, self.seed)
            try:
                found = classical.fit_classical(
                    data, turned(self.x, rotation), spec.kind, spec.options, self.groups, self.seed
                )
            except ValueError as error:
                raise type(error)(f"model '{spec.name}': {error}") from None
            arrays = rotation | {f"param.{key}": value for key, value in found.params.items()}
            return self.concluded({}, found.chosen, arrays, found.inner, np.arange(len(data)), found.model)

    def concluded(self, options, chosen, arrays, inner, rows, trees=None) -> Fitted:
        """The model with its temperature, set on the inner class scores of the clips at `rows`."""
        spec, data = self.spec, self.data
        temperature = 1.0 if inner is None else fit_temperature(inner, data.targets()[rows])
        arrays, classes = self.scale | arrays, tuple(data.classes)
        return Fitted(spec.name, spec.kind, classes, data.dims, options, arrays, temperature, trees, chosen)

    def out_of_fold(self) -> np.ndarray:
        logits = np.zeros((len(self.data), len(self.data.classes)))
        with reproducible(self.seed):
            if self.spec.neural:
                *_, inner, rows = self._best()
                logits[rows] = inner
            else:
                found = classical.fit_classical(
                    self.data, self.x, self.spec.kind, self.spec.options, self.groups, self.seed
                )
                logits = logits if found.inner is None else found.inner
        return logits

    def _best(self) -> tuple[dict, dict, dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """What :meth:`_train` gives for the best of the options: those the spec lists, then those the search draws."""
        best: list = [None]

        def loss(options: dict) -> float:
            trained = self._train(options)
            if best[0] is None or trained[0] < best[0][1][0]:
                best[0] = options, trained
            return trained[0]

        for options in self.spec.candidates():
            loss(options)
        if self.spec.trials > 1:
            search(loss, best[0][0], self.spec.trials, self.seed)
        options, (_, rest, arrays, inner, rows) = best[0]
        fixed = {key for key, value in self.spec.options.items() if not isinstance(value, list | tuple)}
        return rest, {key: value for key, value in options.items() if key not in fixed}, arrays, inner, rows

    def ready(self, options: dict) -> _Ready:
        """What a network with these options is trained on."""
        data, names = self.data, {f.name for f in fields(Recipe)}
        recipe = Recipe(**{key: value for key, value in options.items() if key in names})
        rest = {key: value for key, value in options.items() if key not in names}
        if self.spec.kind == "ecmf" and data.frame_level:
            rest["temporal"] = data.frame_level
        fold = self._fold(recipe)
        rotation = self._rotation(recipe)
        x = turned(self.x, rotation)
        torch.manual_seed(self.seed)  # so that a candidate's result does not depend on those before it
        model = fusion.build(self.spec.kind, {n: v.shape[-1] for n, v in x.items()}, len(data.classes), **rest)
        given, opinions = self._experts(recipe, fold) if model.takes_opinions else ({}, None)
        return _Ready(recipe, rest, fold, x, rotation | given, opinions, model)

    def judged(self, ready: _Ready, stack, loss: float):
        """Inner loss, the fusion's options, arrays, and class scores of clips by members that did not see them."""
        chances, _ = log_probabilities(ready.model, stack, ready.x, self.data.mask(), ready.opinions)
        rows = np.flatnonzero(ready.fold < len(chances))
        arrays = ready.arrays | {f"param.{key}": value.numpy() for key, value in stack.items()}
        return loss, ready.rest, arrays, chances[ready.fold[rows], rows], rows

    def _train(self, options: dict) -> tuple[float, dict, dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """What :meth:`judged` says of the options."""
        ready = self.ready(options)
        torch.manual_seed(self.seed)
        kind, rest, fold = self.spec.kind, ready.rest, ready.fold
        stack, loss = train_stack(ready.x, self.data, kind, rest, ready.recipe, fold, self.epochs, ready.opinions)
        return self.judged(ready, stack, loss)

    def _fold(self, recipe: Recipe) -> np.ndarray:
        if self.own_fold is not None:
            return self.own_fold
        groups = self.groups if recipe.inner_by == "group" else np.arange(len(self.groups))
        key = ("fold", recipe.inner, recipe.inner_by)
        return self._once(key, lambda: inner_folds(self.data.labels, groups, recipe.inner, self.seed))

    def _rotation(self, recipe: Recipe) -> dict[str, np.ndarray]:
        found = {}
        for name, z in self.x.items() if recipe.components else ():
            key = ("turn", name, z.shape, recipe.components)
            found |= self._once(
                key, lambda z=z, name=name: fit_rotation(self.data, {name: z}, recipe.components, self.seed)
            )
        return found

    def _experts(self, recipe: Recipe, fold: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Arrays of all streams' experts and their opinions [n, streams, classes]."""
        targets, present, arrays, opinions = self.data.targets(), self.data.present, {}, []
        for name, z in self.x.items():
            key = ("expert", name, z.shape, recipe.inner, recipe.inner_by)
            one, said = self._once(key, lambda z=z, name=name: experts.fit_experts({name: z}, present, targets, fold))
            arrays |= one
            opinions.append(said)
        return arrays, np.concatenate(opinions, axis=1)

    def _once(self, key: tuple, make):
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]
