"""A linear expert for each stream, in closed form: ECMF's residual path from the original features.

Shrinkage discriminant analysis (Friedman 1989; Ledoit & Wolf 2004 for the idea of shrinking towards a sphere) knows
how the features of a stream vary together, which a small network trained for a few epochs does not find out from a
thousand clips. It is fitted in milliseconds, has two settings (shrinkage and temperature, both chosen on inner folds)
and fails differently from the network, so their sum is better than either. The choice is ours; the paper only says
that residual connections preserve the original representations.

What a network sees of an expert in training are its opinions on clips that the expert has not been fitted on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from ecmf_lib.samples import stretches

#: Shares of the spherical covariance that the experts choose from.
SHRINKAGE = (0.1, 0.3, 0.5, 0.7, 0.9)
#: Temperatures that they choose from.
TEMPERATURES = tuple(np.geomspace(0.5, 30, 25))
#: No expert may call a class less likely than this, in nats: one stream must not outvote all others alone.
LOWEST = -6.0
_AT_ONCE = 8192  # clips that are held in double precision
#: Discriminant of a class that no training clip has.
_UNSEEN = -1e30


class Expert(NamedTuple):
    """Log-probabilities are ``log_softmax(x @ coef.T + intercept)``, cut at :data:`LOWEST`."""

    coef: np.ndarray  # float64 [classes, dim]
    intercept: np.ndarray  # float64 [classes]

    def opinion(self, x: np.ndarray) -> np.ndarray:
        """Standardised features [n, dim] → log-probabilities float32 [n, classes], for classes of equal frequency."""
        return np.maximum(log_softmax(x @ self.coef.T + self.intercept), LOWEST).astype(np.float32)


def log_softmax(z: np.ndarray) -> np.ndarray:
    """Over the last axis; float64."""
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


class Sums(NamedTuple):
    """What a discriminant analysis needs to know of some clips. Those of a training part are the whole's less a fold's.

    So five inner folds cost one pass over the clips in place of six, and no copy of them.
    """

    mass: np.ndarray  # float64 [classes]
    total: np.ndarray  # float64 [classes, dim], features times targets
    scatter: np.ndarray  # float64 [dim, dim], about 0

    @classmethod
    def of(cls, x: np.ndarray, targets: np.ndarray) -> Sums:
        """Of clips with features [n, dim] and targets float [n, classes]; in float64, a stretch at a time."""
        dim, classes = x.shape[1], targets.shape[1]
        total, scatter = np.zeros((classes, dim)), np.zeros((dim, dim))
        for rows in stretches(len(x), _AT_ONCE):
            z, t = np.asarray(x[rows], np.float64), np.asarray(targets[rows], np.float64)
            total += t.T @ z
            weighted = z * np.sqrt(t.sum(1))[:, None]
            scatter += weighted.T @ weighted
        return cls(np.asarray(targets, np.float64).sum(0), total, scatter)

    def plus(self, other: Sums) -> Sums:
        """These clips and others."""
        return Sums(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    def less(self, other: Sums) -> Sums:
        """These clips without the others, which are some of them."""
        return Sums(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))

    def within(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Classes that have mass, bool [classes]; their means [seen, dim]; the covariance within classes [dim, dim]."""
        seen = self.mass > 1e-9 * max(self.mass.sum(), 1e-30)  # what is left of a class after a subtraction is not 0
        means = self.total[seen] / self.mass[seen, None]
        covariance = self.scatter - (means * self.mass[seen, None]).T @ means
        return seen, means, covariance / max(self.mass[seen].sum(), 1e-30)


def discriminants(x: np.ndarray, targets: np.ndarray, shrinkage: tuple[float, ...]) -> list[Expert]:
    """Shrinkage discriminant analysis with balanced classes, one for each shrinkage (temperature 1).

    The within-class covariance S becomes ``(1 - s) S + s tr(S)/dim I``. With more features than clips, all shrinkages
    share one eigendecomposition, of the smaller Gram matrix; else each is a Cholesky factorisation of S, which is
    cheaper than the eigendecomposition.

    Parameters
    ----------
    x : float [n, dim]
        Standardised.
    targets : float [n, classes]
        Class probabilities times weight of each clip; rows of 0 do not count.
    """
    if x.shape[1] <= len(x):
        return from_sums(Sums.of(x, targets), shrinkage)
    x, targets = np.asarray(x, np.float64), np.asarray(targets, np.float64)
    mass = targets.sum(0)
    seen = mass > 0
    if not seen.any():
        return _without_opinion(x.shape[1], len(mass), len(shrinkage))
    means = (targets.T @ x)[seen] / mass[seen, None]
    deviations = [
        np.sqrt(share[rows, None]) * (x[rows] - mean)
        for share, mean in zip(targets.T[seen], means, strict=True)
        for rows in [np.flatnonzero(share > 1e-3)]
    ]
    lengths, directions = _spectrum(np.concatenate(deviations) / np.sqrt(mass.sum()))
    sphere = max(lengths.sum() / x.shape[1], 1e-9)
    found = []
    for share in shrinkage:
        ridge = share * sphere
        along = 1 / ((1 - share) * lengths + ridge) - 1 / ridge
        found.append(_expert(seen, means, means / ridge + ((means @ directions.T) * along) @ directions))
    return found


def from_sums(sums: Sums, shrinkage: tuple[float, ...]) -> list[Expert]:
    """As :func:`discriminants`, from the sums over the clips."""
    dim = len(sums.scatter)
    seen, means, covariance = sums.within()
    if not seen.any():
        return _without_opinion(dim, len(seen), len(shrinkage))
    sphere = max(np.trace(covariance) / dim, 1e-9)
    found = []
    for share in shrinkage:
        shrunk = (1 - share) * covariance
        shrunk.flat[:: dim + 1] += share * sphere
        factor = cho_factor(shrunk, lower=True, overwrite_a=True, check_finite=False)
        found.append(_expert(seen, means, cho_solve(factor, means.T, check_finite=False).T))
    return found


def _expert(seen: np.ndarray, means: np.ndarray, known: np.ndarray) -> Expert:
    coef, intercept = np.zeros((len(seen), means.shape[1])), np.full(len(seen), _UNSEEN)
    coef[seen], intercept[seen] = known, -0.5 * (known * means).sum(1)
    return Expert(coef, intercept)


def _without_opinion(dim: int, classes: int, count: int) -> list[Expert]:
    """No clip counts: nothing is known."""
    return [Expert(np.zeros((classes, dim)), np.zeros(classes)) for _ in range(count)]


def _spectrum(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues [k] and eigenvectors [k, dim] of rowsᵀ rows, those that are not 0; from whichever Gram is smaller."""
    n, dim = rows.shape
    if dim <= n:  # soft labels: a row for each clip and class
        lengths, vectors = np.linalg.eigh(rows.T @ rows)
        kept = lengths > 1e-10 * max(lengths[-1], 1e-30)
        return lengths[kept], vectors.T[kept]
    lengths, left = np.linalg.eigh(rows @ rows.T)
    kept = lengths > 1e-10 * max(lengths[-1], 1e-30)
    return lengths[kept], (left.T[kept] @ rows) / np.sqrt(lengths[kept])[:, None]


def fit_expert(x: np.ndarray, targets: np.ndarray, fold: np.ndarray) -> tuple[Expert, np.ndarray]:
    """Choose shrinkage and temperature on inner folds, then fit on everything.

    Parameters
    ----------
    x : float [n, dim]
        Standardised features of one stream, of clips that have it.
    targets : float [n, classes]
    fold : int [n]
        Inner fold of each clip.

    Returns
    -------
    expert : Expert
    opinions : float32 [n, classes]
        Of experts that were not fitted on the clip's fold.
    """
    numbers = np.unique(fold)
    if len(numbers) < 2 or np.count_nonzero(targets.sum(0)) < 2:
        expert = discriminants(x, targets, SHRINKAGE[-1:])[0]
        return expert, np.full(targets.shape, -np.log(targets.shape[1]), np.float32)
    logits = np.zeros((len(SHRINKAGE), *targets.shape))
    fitted_on = _each_left_out(x, targets, fold, numbers)
    for number in numbers:
        held = fold == number
        for i, found in enumerate(fitted_on(number, SHRINKAGE)):
            logits[i, held] = x[held] @ found.coef.T + found.intercept
    losses = [[-(targets * np.maximum(log_softmax(z / t), 3 * LOWEST)).sum() for t in TEMPERATURES] for z in logits]
    best, warmth = np.unravel_index(np.argmin(losses), (len(SHRINKAGE), len(TEMPERATURES)))
    temperature = TEMPERATURES[warmth]
    coef, intercept = fitted_on(None, SHRINKAGE[best : best + 1])[0]
    opinions = np.maximum(log_softmax(logits[best] / temperature), LOWEST).astype(np.float32)
    return Expert(coef / temperature, intercept / temperature), opinions


def _each_left_out(
    x: np.ndarray, targets: np.ndarray, fold: np.ndarray, numbers: np.ndarray
) -> Callable[[int | None, tuple[float, ...]], list[Expert]]:
    """(Fold or None, shrinkages) → experts fitted on all clips but those of the fold."""
    if x.shape[1] > min(np.count_nonzero(fold != number) for number in numbers):
        x = np.asarray(x, np.float64)
        return lambda number, shrinkage: discriminants(x[fold != number], targets[fold != number], shrinkage)
    of_fold = {number: Sums.of(x[fold == number], targets[fold == number]) for number in numbers}
    whole = reduce(Sums.plus, of_fold.values())
    return lambda number, shrinkage: from_sums(whole if number is None else whole.less(of_fold[number]), shrinkage)


def fit_experts(
    x: Mapping[str, np.ndarray], present: Mapping[str, np.ndarray], targets: np.ndarray, fold: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """An expert for each stream.

    Parameters
    ----------
    x : dict of str to float32 [n, dim]
        Standardised, not turned. A stream of several steps is averaged over them.
    present : dict of str to bool [n]
    targets : float [n, classes]
    fold : int [n]

    Returns
    -------
    arrays : dict
        ``expert.<stream>`` float32 [classes, dim + 1], the intercept last.
    opinions : float32 [n, streams, classes]
        Out of fold, for training; 0 where a stream is missing.
    """
    arrays, opinions = {}, np.zeros((len(targets), len(x), targets.shape[1]), np.float32)
    for column, (name, z) in enumerate(x.items()):
        rows = np.flatnonzero(present[name])
        rows = slice(None) if len(rows) == len(targets) else rows  # no copy where every clip has the stream
        if not targets[rows].any():
            arrays[f"expert.{name}"] = np.zeros((targets.shape[1], z.shape[-1] + 1), np.float32)
            continue
        z = z.mean(1) if z.ndim == 3 else z
        expert, opinions[rows, column] = fit_expert(z[rows], targets[rows], fold[rows])
        arrays[f"expert.{name}"] = np.column_stack([expert.coef, expert.intercept]).astype(np.float32)
    return arrays, opinions


def opinions_of(
    x: Mapping[str, np.ndarray], present: Mapping[str, np.ndarray], arrays: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Opinions of fitted experts on new clips: float32 [n, streams, classes], 0 where a stream is missing."""
    found = []
    for name, z in x.items():
        stored = arrays[f"expert.{name}"].astype(np.float64)
        z = z.mean(1) if z.ndim == 3 else z
        opinion = Expert(stored[:, :-1], stored[:, -1]).opinion(z)
        found.append(np.where(present[name][:, None], opinion, np.float32(0)))
    return np.stack(found, axis=1)
