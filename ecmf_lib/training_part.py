"""One training part, from its clips to a fitted model: what :mod:`ecmf_lib.fit` offers is done here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import NamedTuple

import numpy as np
import torch

from ecmf_lib import classical, experts, fusion
from ecmf_lib.fitted import Fitted, ModelSpec
from ecmf_lib.members import Recipe, log_probabilities, reproducible, train_stack
from ecmf_lib.samples import FusionData, inner_folds
from ecmf_lib.scaling import fit_rotation, fit_standardiser, learnable, standardise, turned
from ecmf_lib.temperature import fit_temperature
from ecmf_lib.tune import search


class Ready(NamedTuple):
    """What one training is given, and the network's form."""

    recipe: Recipe
    rest: dict  # options of the fusion
    fold: np.ndarray  # int [n]
    x: dict[str, np.ndarray]
    arrays: dict[str, np.ndarray]  # rotations and experts
    opinions: np.ndarray | None
    model: fusion.Fusion


class TrainingPart:
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
        """The model, trained on all clips of the part; see :func:`ecmf_lib.fit.fit`."""
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
        """Class scores of the part itself, see :func:`ecmf_lib.fit.out_of_fold`."""
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

    def ready(self, options: dict) -> Ready:
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
        return Ready(recipe, rest, fold, x, rotation | given, opinions, model)

    def judged(self, ready: Ready, stack, loss: float):
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
