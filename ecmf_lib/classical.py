"""The models without a network: logistic regressions, late fusion, stacking, gradient boosting, and guessing.

Each learns from standardised features and gives raw class scores, with those of inner folds beside them, from which the
temperature is set. Labels are hard here, weights count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import minimize
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from ecmf_lib.experts import fit_experts, log_softmax, opinions_of
from ecmf_lib.samples import FusionData, inner_folds

#: Inverse L2 strengths that logistic regressions choose from on inner folds.
LOGISTIC_C = (0.001, 0.003, 0.01, 0.03, 0.1)
#: Rounds that gradient boosting chooses from, and what stays fixed.
ROUNDS = (15, 30, 60, 90)
BOOSTING = {"learning_rate": 0.1, "max_leaf_nodes": 8, "min_samples_leaf": 10, "early_stopping": False}
#: Principal components of a stream that boosting sees: it is slow in the number of features.
BOOSTED_COMPONENTS = 64
KINDS = ("logistic", "late-logistic", "stacked", "linear-experts", "boosting", "majority")


@dataclass
class Classical:
    """What was learned.

    Attributes
    ----------
    params : dict of str to array
        ``coef.<part>`` float64 [classes, features] and ``intercept.<part>`` [classes].
    inner : float [n, classes] or None
        Class scores of each training clip by a model that has not seen it.
    model : object or None
        Trees, which no safe format holds: such a model lives in memory only.
    chosen : dict
        What was chosen on inner folds.
    """

    params: dict[str, np.ndarray] = field(default_factory=dict)
    inner: np.ndarray | None = None
    model: object = None
    chosen: dict = field(default_factory=dict)


def fit_classical(
    data: FusionData, x: Mapping[str, np.ndarray], kind: str, options: Mapping, groups: np.ndarray, seed: int
) -> Classical:
    """Fit one of :data:`KINDS`.

    Parameters
    ----------
    x : dict of str to float32 [n, dim]
        Standardised, at clip level; turned to few components for boosting.
    options : mapping
        ``C`` for the logistic kinds: one number, or several to choose from on inner folds.
    groups : array [n]
        What inner folds hold apart.
    """
    known = {"C"} if kind in ("logistic", "late-logistic", "stacked") else set()
    if set(options) - known:
        extra = ", ".join(sorted(set(options) - known))
        raise ValueError(f"a {kind} model has no option {extra}, only {', '.join(known) or 'none'}")
    if kind == "majority":
        counts = data.targets().sum(0).astype(float)
        return Classical({"prior": np.log(np.maximum(counts, 0.5))})
    fold = inner_folds(data.labels, groups, 3, seed) if len(np.unique(data.labels)) > 1 else None
    if kind == "boosting":
        return _boosting(data, x, fold, seed)
    if kind == "linear-experts":
        return _experts(data, x, np.zeros(len(data), int) if fold is None else fold)
    c = options.get("C", LOGISTIC_C)
    candidates = tuple(c) if isinstance(c, list | tuple) else (c,)
    if kind == "logistic":
        joined = np.concatenate(list(x.values()), axis=1)
        return _one(data, joined, "all", np.ones(len(data), bool), candidates, fold)
    parts = {name: _one(data, z, name, data.present[name], candidates, fold) for name, z in x.items()}
    params = {key: value for part in parts.values() for key, value in part.params.items()}
    chosen = {f"C of {name}": part.chosen.get("C of " + name) for name, part in parts.items()}
    opinions = np.stack([log_softmax(part.inner) for part in parts.values()], axis=1)
    there = data.mask()
    if kind == "late-logistic":
        return Classical(params, late(opinions, there), chosen=chosen)
    head = _one(data, stacked_input(opinions, there), "head", np.ones(len(data), bool), LOGISTIC_C, fold)
    return Classical(params | head.params, head.inner, chosen=chosen | head.chosen)


def class_scores(kind: str, fitted: Classical, x: Mapping[str, np.ndarray], there: np.ndarray) -> np.ndarray:
    """Raw class scores (logits) float64 [n, classes] of new clips; `there` bool [n, streams]."""
    params = fitted.params
    if kind == "linear-experts":
        present = {name: there[:, i] for i, name in enumerate(x)}
        return (opinions_of(x, present, params) * params["weights"][:, None]).sum(1).astype(np.float64)
    if kind == "majority":
        return np.tile(params["prior"], (len(there), 1))
    if kind == "boosting":
        chances = np.full((len(there), len(params["classes"])), 1e-9)
        chances[:, params["classes"] > 0] = fitted.model.predict_proba(_with_gaps(x, there))
        return np.log(np.maximum(chances, 1e-9))
    if kind == "logistic":
        return _linear(np.concatenate(list(x.values()), axis=1), params, "all")
    opinions = np.stack([log_softmax(_linear(z, params, name)) for name, z in x.items()], axis=1)
    return late(opinions, there) if kind == "late-logistic" else _linear(stacked_input(opinions, there), params, "head")


def late(opinions: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Mean log-probability over the streams that are there: [n, streams, classes] → [n, classes]."""
    return (opinions * there[..., None]).sum(1) / np.maximum(there.sum(1, keepdims=True), 1)


def stacked_input(opinions: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Log-probabilities of all streams side by side, centred, 0 for a missing one: [n, streams * classes]."""
    centred = np.maximum(opinions, -8.0)
    centred = (centred - centred.mean(-1, keepdims=True)) * there[..., None]
    return centred.reshape(len(centred), -1)


def _linear(x: np.ndarray, params: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    return x.astype(np.float64) @ params[f"coef.{name}"].T + params[f"intercept.{name}"]


def _logistic(x, labels, weight, n_classes: int, c: float, *, tol: float = 1e-4) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients float64 [classes, dim] and intercepts [classes]; classes not in training are all but ruled out."""
    coef, intercept = np.zeros((n_classes, x.shape[1])), np.full(n_classes, -10.0)
    counted = weight > 0
    seen = np.unique(labels[counted])
    if len(seen) < 2:
        intercept[seen] = 0.0
        return coef, intercept
    model = LogisticRegression(C=c, max_iter=1000, tol=tol)
    model.fit(x[counted].astype(np.float64), labels[counted], sample_weight=weight[counted])
    two = len(seen) == 2  # scikit-learn gives one row for two classes; ±half of it is the same model
    coef[seen] = np.concatenate([-model.coef_, model.coef_]) / 2 if two else model.coef_
    intercept[seen] = np.concatenate([-model.intercept_, model.intercept_]) / 2 if two else model.intercept_
    return coef, intercept


def _one(data: FusionData, x: np.ndarray, name: str, there: np.ndarray, candidates: tuple, fold) -> Classical:
    """A logistic regression on the clips of `there`, C chosen on inner folds."""
    labels, weight, n_classes = _hard(data), _weights(data), len(data.classes)
    rows, inner = np.flatnonzero(there), np.zeros((len(data), n_classes))
    if not len(rows) or fold is None:  # nothing to learn from; a stream without clips has no say
        coef, intercept = np.zeros((n_classes, x.shape[1])), np.zeros(n_classes)
        if len(rows):
            coef, intercept = _logistic(x[rows], labels[rows], weight[rows], n_classes, candidates[0])
        return Classical({f"coef.{name}": coef, f"intercept.{name}": intercept}, inner)
    scores = np.zeros((len(candidates), len(data), n_classes))
    for number in range(fold.max() + 1):
        train, held = rows[fold[rows] != number], rows[fold[rows] == number]
        if not len(train) or not len(held):
            continue
        for i, c in enumerate(candidates):
            # Half the time of a full fit, and close enough to tell candidates apart.
            coef, intercept = _logistic(x[train], labels[train], weight[train], n_classes, c, tol=1e-3)
            scores[i, held] = x[held].astype(np.float64) @ coef.T + intercept
    losses = [-(weight[rows] * log_softmax(s[rows])[np.arange(len(rows)), labels[rows]]).sum() for s in scores]
    best = int(np.argmin(losses))
    coef, intercept = _logistic(x[rows], labels[rows], weight[rows], n_classes, candidates[best])
    learned = {f"coef.{name}": coef, f"intercept.{name}": intercept}
    return Classical(learned, scores[best], chosen={f"C of {name}": candidates[best]})


def _experts(data: FusionData, x: Mapping[str, np.ndarray], fold: np.ndarray) -> Classical:
    """ECMF's linear experts without its network: their opinions, weighted, the weights set on inner folds."""
    targets = data.targets()
    arrays, opinions = fit_experts(x, data.present, targets, fold)
    weights = opinion_weights(opinions, targets)
    params = arrays | {"weights": weights}
    return Classical(params, (opinions * weights[:, None]).sum(1).astype(np.float64))


def opinion_weights(opinions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Weights float64 [streams], 0 or more, with which the summed opinions have the lowest cross-entropy."""
    opinions, mass = opinions.astype(np.float64), targets.sum(1, keepdims=True)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        chances = log_softmax(np.einsum("s,nsc->nc", weights, opinions))
        slope = np.einsum("nc,nsc->s", np.exp(chances) * mass - targets, opinions) / len(targets)
        # A little pull towards 0, for opinions that say nothing have any weight else.
        return -(targets * chances).sum() / len(targets) + 1e-3 * (weights**2).sum(), slope + 2e-3 * weights

    start = np.full(opinions.shape[1], 0.5)
    return minimize(loss, start, jac=True, bounds=[(0, None)] * len(start)).x


def _boosting(data: FusionData, x: Mapping[str, np.ndarray], fold, seed: int) -> Classical:
    """Gradient boosting on all features side by side (scikit-learn's histograms); rounds chosen on inner folds."""
    there, labels, weight, n_classes = data.mask(), _hard(data), _weights(data), len(data.classes)
    features = _with_gaps(x, there)
    counted = weight > 0
    if fold is None or len(np.unique(labels[counted])) < 2:
        return Classical({"prior": np.log(np.maximum(np.bincount(labels, weight, n_classes), 0.5))}, None)
    scores = np.full((len(ROUNDS), len(data), n_classes), np.log(1e-9))
    for number in range(fold.max() + 1):
        train, held = (fold != number) & counted, fold == number
        if len(np.unique(labels[train])) < 2:
            continue
        model = HistGradientBoostingClassifier(max_iter=ROUNDS[-1], random_state=seed, **BOOSTING)
        model.fit(features[train], labels[train], sample_weight=weight[train])
        stages = list(model.staged_predict_proba(features[held]))
        for i, rounds in enumerate(ROUNDS):
            scores[i][np.ix_(held, model.classes_)] = np.log(np.maximum(stages[rounds - 1], 1e-9))
    losses = [-(weight * log_softmax(s)[np.arange(len(labels)), labels]).sum() for s in scores]
    best = int(np.argmin(losses))
    model = HistGradientBoostingClassifier(max_iter=ROUNDS[best], random_state=seed, **BOOSTING)
    model.fit(features[counted], labels[counted], sample_weight=weight[counted])
    seen = np.zeros(n_classes)
    seen[model.classes_] = 1
    return Classical({"classes": seen}, scores[best], model, {"rounds": ROUNDS[best]})


def _with_gaps(x: Mapping[str, np.ndarray], there: np.ndarray) -> np.ndarray:
    """All features side by side, NaN where a stream is missing: trees have a branch for that."""
    parts = [np.where(there[:, i, None], z, np.nan) for i, z in enumerate(x.values())]
    return np.concatenate(parts, axis=1)


def _hard(data: FusionData) -> np.ndarray:
    return data.labels if data.soft is None else data.soft.argmax(1)


def _weights(data: FusionData) -> np.ndarray:
    return np.ones(len(data)) if data.weight is None else data.weight.astype(float)
