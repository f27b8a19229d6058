"""Stratified folds that hold groups apart: scikit-learn's, number for number, for a million clips.

:class:`sklearn.model_selection.StratifiedGroupKFold` takes the groups one by one, those of the most uneven classes
first, and puts each into the fold where the classes are then spread most evenly, by the mean over the classes of the
standard deviation over the folds. Each trial there costs several calls of numpy on a handful of numbers: minutes, where
a hundred thousand clips are groups of their own. Here a group of one class (a clip alone, the takes of one
performance) is tried only where it can win, in plain floating-point arithmetic in numpy's order, so that even ties that
hang on the last bit fall as they do there; the folds of any other group are tried all at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np
import pandas as pd

#: As :func:`numpy.isclose`, which decides when two folds are equally good.
_RELATIVE, _ABSOLUTE = 1e-5, 1e-8


def stratified_group_folds(labels: np.ndarray, groups: Sequence[str], n_folds: int, *, seed: int) -> np.ndarray:
    """Number of the fold in which each clip is tested, as ``StratifiedGroupKFold(n_folds, shuffle=True)`` has it.

    Parameters
    ----------
    labels : int [n]
    groups : sequence of str
        n; clips of one group share a fold.
    n_folds : int
        2 at least. Not more than there are groups, nor than clips of the largest class: the caller sees to that.
    seed : int
        Its ``random_state``.

    Returns
    -------
    int64 [n]
        0 to `n_folds` - 1. With few groups a fold can stay empty.
    """
    labels = np.unique(labels, return_inverse=True)[1]
    group, n_groups = numbered(groups)
    clips = np.bincount(labels)
    cell = group * len(clips) + labels
    counts = np.bincount(cell, minlength=n_groups * len(clips)).reshape(n_groups, -1).astype(float)
    order = np.arange(n_groups)
    np.random.RandomState(seed).shuffle(order)
    order = order[np.argsort(-np.std(counts[order], axis=1), kind="stable")]
    fold = np.empty(n_groups, np.int64)
    fold[order] = _Folds(n_folds, clips).take(counts[order])
    return fold[group]


def numbered(groups: Sequence[str]) -> tuple[np.ndarray, int]:
    """Number of each clip's group in the order of their names (int64 [n]), and how many groups there are."""
    number, names = pd.factorize(np.asarray(groups, dtype=object))
    place = np.empty(len(names), np.int64)
    place[np.argsort(names)] = np.arange(len(names))
    return place[number], len(names)


class _Folds:
    """Classes of the clips that each fold has so far.

    Attributes
    ----------
    count : list of list of int
        By class and fold.
    share : list of list of float
        The same, of all clips of the class.
    spread : list of float
        Standard deviation of each class's shares.
    """

    def __init__(self, n_folds: int, clips: np.ndarray):
        self.n, self.clips = n_folds, clips.tolist()
        self.count = [[0] * n_folds for _ in self.clips]
        self.share = [[0.0] * n_folds for _ in self.clips]
        self.spread = [0.0 for _ in self.clips]
        self.size = [0] * n_folds
        self._one_hot = np.eye(n_folds)[:, :, None]
        self._clips = clips.reshape(1, -1)

    def take(self, counts: np.ndarray) -> np.ndarray:
        """The fold of each group, in the order in which they come: int64 [groups]; counts float [groups, classes]."""
        found = np.empty(len(counts), np.int64)
        several = np.count_nonzero(counts, axis=1) > 1
        several |= len(self.clips) == 1  # numpy sums a single column in another order
        first = counts.argmax(1).tolist()
        clips = counts.sum(1).astype(int).tolist()
        for place, mixed in enumerate(several.tolist()):
            if mixed:
                found[place] = self._take_any(counts[place])
            else:
                found[place] = self._take_one_class(first[place], clips[place])
        return found

    def _take_any(self, group: np.ndarray) -> int:
        """Try all folds at once; `group` float [classes]."""
        now = np.array(self.count, dtype=float).T
        tried = (now + self._one_hot * group) / self._clips  # [fold tried, fold, class]
        tried -= np.add.reduce(tried, 1, keepdims=True) / self.n
        spread = np.sqrt(np.add.reduce(tried * tried, 1) / self.n)
        fold = self._best((np.add.reduce(spread, 1) / len(self.clips)).tolist(), range(self.n))
        for label in np.flatnonzero(group).tolist():
            self._add(fold, label, int(group[label]), float(spread[fold, label]))
        return fold

    def _take_one_class(self, label: int, clips: int) -> int:
        """Try the folds with the fewest clips of the class: others come out worse, unless it is too close to call."""
        count, share = self.count[label], self.share[label]
        least = min(count)
        folds = [fold for fold, there in enumerate(count) if there == least]
        if len(folds) < self.n and not self._clear(label, clips, least):
            folds = list(range(self.n))
        spreads, values = [], []
        for fold in folds:
            before, share[fold] = share[fold], (count[fold] + clips) / self.clips[label]
            spreads.append(_deviation(share))
            share[fold] = before
        if len(folds) == 1:
            chosen = 0
        else:
            around = self.spread.copy()
            for spread in spreads:
                around[label] = spread
                values.append(_mean(around))
            chosen = self._best(values, folds)
        self._add(folds[chosen], label, clips, spreads[chosen])
        return folds[chosen]

    def _clear(self, label: int, clips: int, least: int) -> bool:
        """Whether a fold with the fewest clips of this class is better than the next by more than a tie allows."""
        count, total = self.count[label], self.clips[label]
        gap = min(there for there in count if there != least) - least
        squares = sum([there * there for there in count]) + clips * (2 * least + clips)
        around = (sum(count) + clips) ** 2
        best = sqrt(max(self.n * squares - around, 0)) / (self.n * total)
        next_best = sqrt(max(self.n * (squares + 2 * clips * gap) - around, 0)) / (self.n * total)
        others = sum(self.spread) - self.spread[label]
        return next_best - best > 2 * (_ABSOLUTE * len(self.clips) + _RELATIVE * (others + best))

    def _best(self, values: list[float], folds: Sequence[int]) -> int:
        """Place of the fold with the lowest value; of two that are as good as equal, the one with fewer clips."""
        chosen, lowest, fewest = 0, values[0], self.size[folds[0]]
        for place in range(1, len(values)):
            value, size = values[place], self.size[folds[place]]
            tie = abs(value - lowest) <= _ABSOLUTE + _RELATIVE * abs(lowest)
            if value < lowest or (tie and size < fewest):
                chosen, lowest, fewest = place, value, size
        return chosen

    def _add(self, fold: int, label: int, clips: int, spread: float) -> None:
        self.count[label][fold] += clips
        self.share[label][fold] = self.count[label][fold] / self.clips[label]
        self.spread[label] = spread
        self.size[fold] += clips


def _deviation(values: list[float]) -> float:
    """Standard deviation, added up in the order in which numpy does it over rows."""
    total = 0.0
    for value in values:
        total += value
    mean, squares = total / len(values), 0.0
    for value in values:
        squares += (value - mean) * (value - mean)
    return sqrt(squares / len(values))


def _mean(values: list[float]) -> float:
    """Mean, added up as numpy does it in one row: one after the other as long as there are fewer than eight."""
    if len(values) >= 8:
        return float(np.mean(values))
    total = 0.0
    for value in values:
        total += value
    return total / len(values)
