"""Label noise with known truth: what refinement must find again.

Three kinds, from the mildest to the hardest: symmetric noise knows nothing, class-dependent noise confuses the classes
that people confuse, instance-dependent noise mislabels the clips that look like another class.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq

from ecmf_lib.config import EMOTIONS, SettingsError
from ecmf_lib.demo_plan import MISTAKEN_FOR, RECOGNISED

KINDS = ("symmetric", "class-dependent", "instance-dependent")

_SURE = 1e-6  # chances are kept this far from 0 and 1: a clip of which a model is certain can still be mislabelled


def inject(
    kind: str,
    labels: np.ndarray,
    n_classes: int,
    rate: float,
    rng: np.random.Generator,
    *,
    chances: np.ndarray | None = None,
    mistaken: np.ndarray | None = None,
) -> np.ndarray:
    """Noisy labels of one of :data:`KINDS`.

    Parameters
    ----------
    kind : str
    labels : int [n]
    n_classes : int
    rate : float
        Expected share of labels that change, 0…1.
    rng : Generator
    chances : float [n, n_classes], optional
        For "instance-dependent" noise, which needs them; see :func:`instance_dependent`.
    mistaken : float [n_classes, n_classes], optional
        For "class-dependent" noise; see :func:`class_dependent`.

    Returns
    -------
    int64 [n]

    Raises
    ------
    SettingsError
        Unknown kind, a rate that cannot be reached, labels out of range, chances that lack or do not fit.
    """
    if kind == "symmetric":
        return symmetric(labels, n_classes, rate, rng)
    if kind == "class-dependent":
        return class_dependent(labels, n_classes, rate, rng, mistaken)
    if kind == "instance-dependent":
        if chances is None:
            raise SettingsError("instance-dependent noise needs chances, float [clips, classes]: how each clip looks")
        if np.shape(chances)[-1] != n_classes:
            raise SettingsError(f"chances have {np.shape(chances)[-1]} columns for {n_classes} classes")
        return instance_dependent(labels, chances, rate, rng)
    raise SettingsError(f"kind of noise {kind!r}: choose from {', '.join(KINDS)}")


def symmetric(labels: np.ndarray, n_classes: int, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Each label changes with probability `rate`, to any other class alike.

    Parameters
    ----------
    labels : int [n]
    n_classes : int
    rate : float
        0…1.
    rng : Generator

    Returns
    -------
    int64 [n]

    Raises
    ------
    SettingsError
        If the rate is not in 0…1, labels are out of range, or there is no other class.
    """
    true = _checked(labels, n_classes, rate)
    others = 1.0 - np.eye(n_classes)
    return _flipped(true, np.full(len(true), float(rate)), others[true], rng)


def class_dependent(
    labels: np.ndarray,
    n_classes: int,
    rate: float,
    rng: np.random.Generator,
    mistaken: np.ndarray | None = None,
) -> np.ndarray:
    """Each class has its own rate and is mistaken for its own neighbours; over these labels the rates average `rate`.

    Parameters
    ----------
    labels : int [n]
    n_classes : int
    rate : float
        Expected share of all labels that change.
    rng : Generator
    mistaken : float [n_classes, n_classes], optional
        Rows true, columns what it is taken for; the diagonal is ignored. A row's sum says how often its class is
        mistaken in comparison with others, its entries for what. Default: :func:`confusions`.

    Returns
    -------
    int64 [n]

    Raises
    ------
    SettingsError
        If the rate cannot be reached: some class would have to change more than always.
    """
    true = _checked(labels, n_classes, rate)
    odds = np.array(confusions(n_classes) if mistaken is None else mistaken, float)
    if odds.shape != (n_classes, n_classes) or not np.isfinite(odds).all() or (odds < 0).any():
        raise SettingsError(
            f"mistaken has the shape {odds.shape}; expected numbers of 0 or more, [{n_classes}, {n_classes}]"
        )
    np.fill_diagonal(odds, 0)
    if rate == 0 or not len(true):
        return true
    ease = odds.sum(axis=1)
    mean = ease[true].mean()
    highest = mean / ease[true].max() if mean else 0.0
    if rate > highest * (1 + 1e-9):
        hardest = int(true[ease[true].argmax()])
        raise SettingsError(
            f"class-dependent noise of rate {rate:g} cannot be reached: class {hardest} would change more than always; "
            f"at most {highest:.3f} with these classes and confusions"
        )
    return _flipped(true, (rate * ease / mean).clip(0, 1)[true], odds[true], rng)


def confusions(n_classes: int) -> np.ndarray:
    """How often, and for what, each class is mistaken by default, float [n_classes, n_classes], diagonal 0.

    With six classes, the simulated annotators of the demo corpus, averaged: happy, angry and neutral are rarely
    mistaken, worried often and mostly for sad. With any other number a fixed pattern: the first class is mistaken
    three times as often as the last, two times in three for the class that follows it, else for the one after that.
    """
    if n_classes == len(EMOTIONS):
        return (1 - RECOGNISED.mean(axis=0))[:, None] * MISTAKEN_FOR
    pattern = np.zeros((n_classes, n_classes))
    for c, ease in enumerate(np.linspace(3, 1, n_classes)):
        pattern[c, (c + 1) % n_classes] += ease * 2 / 3
        # with two classes, the class after the next would be the class itself
        pattern[c, (c + (2 if n_classes > 2 else 1)) % n_classes] += ease / 3
    np.fill_diagonal(pattern, 0)
    return pattern


def instance_dependent(labels: np.ndarray, chances: np.ndarray, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Clips that look like another class change more often, and to the class they look like.

    The idea is that of part-dependent label noise (Xia et al. 2020, "Part-dependent label noise: towards
    instance-dependent label noise", NeurIPS): what a clip looks like decides how it is mislabelled. They draw random
    weights of its parts; here a model says what it looks like. A clip whose chance of another class is d changes with
    odds s · d / (1 − d), where s is the one number that makes the rates average `rate`; s = 1 is drawing each label
    from its chances.

    Parameters
    ----------
    labels : int [n]
    chances : float [n, n_classes]
        Probabilities of the classes; rows need not sum to 1. Take them from a model that is not among those compared
        later, out of fold: whoever made the noise would not find it.
    rate : float
        Expected share of labels that change, 0 or more and below 1.
    rng : Generator

    Returns
    -------
    int64 [n]

    Raises
    ------
    SettingsError
        If chances and labels do not fit, a chance is negative or not finite, or the rate is out of range.
    """
    chances = np.asarray(chances, float)
    if chances.ndim != 2 or len(chances) != len(labels):
        raise SettingsError(f"chances have the shape {chances.shape} for {len(labels)} labels; one row a label")
    true = _checked(labels, chances.shape[1], rate)
    bad = ~np.isfinite(chances).all(axis=1) | (chances < 0).any(axis=1) | (chances.sum(axis=1) <= 0)
    if bad.any():
        raise SettingsError(
            f"chances of row {int(bad.argmax())} ({bad.sum()} such rows) are negative, not finite or all 0; "
            "give probabilities of the classes"
        )
    if rate == 0 or not len(true):
        return true
    if rate >= 1:
        raise SettingsError("instance-dependent noise of rate 1 cannot be reached: some clips always keep their label")
    shares = chances / chances.sum(axis=1, keepdims=True)
    own = shares[np.arange(len(true)), true].clip(_SURE, 1 - _SURE)
    margin = np.log1p(-own) - np.log(own)
    # for the shift of -40 or 40 every rate here is 0 or 1 to ten digits, whatever the margin
    shift = brentq(lambda s: (_sigmoid(margin + s) - rate).mean(), -40, 40, xtol=1e-12)
    others = shares.copy()
    others[np.arange(len(true)), true] = 0
    others += 1e-12 * (1 - np.eye(shares.shape[1])[true])  # a clip that looks like nothing else becomes anything else
    return _flipped(true, _sigmoid(margin + shift), others, rng)


def transition(true: np.ndarray, noisy: np.ndarray, n_classes: int) -> np.ndarray:
    """Share of each true class (row) that carries each label (column), float [n_classes, n_classes].

    Rows sum to 1; a class without clips keeps its label: 1 on the diagonal.

    Raises
    ------
    SettingsError
        If labels are out of range or the two are not equally long.
    """
    true, noisy = _checked(true, n_classes), _checked(noisy, n_classes)
    if len(true) != len(noisy):
        raise SettingsError(f"{len(true)} true and {len(noisy)} noisy labels: they must be of the same clips")
    counts = np.zeros((n_classes, n_classes))
    np.add.at(counts, (true, noisy), 1)
    absent = counts.sum(axis=1) == 0
    counts[absent, absent] = 1
    return counts / counts.sum(axis=1, keepdims=True)


def _checked(labels: np.ndarray, n_classes: int, rate: float = 0.0) -> np.ndarray:
    """A copy of the labels as int64, if all are classes and the rate is a share."""
    labels = np.asarray(labels)
    if not 0 <= rate <= 1:  # also where it is NaN
        raise SettingsError(f"rate {rate}: the share of labels that change is a number from 0 to 1")
    if labels.ndim != 1 or (len(labels) and labels.dtype.kind not in "iu"):
        raise SettingsError(f"labels are {labels.dtype} of shape {labels.shape}; expected class numbers, int [n]")
    wrong = (labels < 0) | (labels >= n_classes)
    if wrong.any():
        place = int(wrong.argmax())
        raise SettingsError(f"label {labels[place]} of row {place}: expected 0 to {n_classes - 1}; hold others out")
    if rate > 0 and n_classes < 2:
        raise SettingsError(f"rate {rate:g} cannot be reached: with {n_classes} class(es) there is no other label")
    return labels.astype(np.int64)


def _flipped(true: np.ndarray, chance: np.ndarray, odds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labels that changed with probability `chance` [n] to classes of `odds` [n, classes], which are 0 for their own.

    Draws two numbers a clip whatever the rate, so that noise of a higher rate holds that of a lower one.
    """
    flips, which = rng.random((2, len(true)))
    edges = np.cumsum(odds, axis=1)
    target = (edges <= (which * edges[:, -1])[:, None]).sum(axis=1)
    last = odds.shape[1] - 1 - np.argmax(odds[:, ::-1] > 0, axis=1)  # rounding must not lead behind the last odds
    return np.where(flips < chance, np.minimum(target, last), true)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
