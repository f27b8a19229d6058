"""Folds that hold groups apart are scikit-learn's, fold for fold."""

import warnings

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from ecmf_lib.group_split import numbered, stratified_group_folds


def scikit_learns(labels, groups, n_folds, seed) -> np.ndarray:
    fold = np.full(len(labels), -1)
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        for number, (_, test) in enumerate(splitter.split(labels, labels, groups)):
            fold[test] = number
    return fold


def drawn(rng, kind: str, n: int, n_classes: int) -> tuple[np.ndarray, list[str]]:
    """Labels and groups: clips alone, takes of one label, speakers of any size, or as few groups as folds."""
    labels = rng.choice(n_classes, n, p=rng.dirichlet(np.ones(n_classes) * rng.choice([0.3, 1, 10])))
    if kind == "alone":
        groups = np.arange(n)
    elif kind == "takes":
        groups = np.arange(n) // rng.integers(2, 5)
        labels = labels[groups]
    elif kind == "speakers":
        groups = (rng.random(n) ** rng.choice([1, 3]) * rng.choice([n // 20 + 3, n])).astype(int)
    else:
        groups = rng.integers(0, 5, n)
    return labels, [f"group{number}" for number in groups]


@pytest.mark.parametrize("kind", ["alone", "takes", "speakers", "few"])
def test_folds_are_scikit_learns(rng, kind):
    compared = 0
    for seed in range(40):
        labels, groups = drawn(rng, kind, int(rng.integers(20, 400)), int(rng.integers(1, 11)))
        n_folds = min(int(rng.integers(2, 13)), len(set(groups)), int(np.bincount(labels).max()))
        if n_folds >= 2:
            found = stratified_group_folds(labels, groups, n_folds, seed=seed)
            assert found.tolist() == scikit_learns(labels, groups, n_folds, seed).tolist()
            compared += 1
    assert compared > 20


def test_clips_beside_speakers_of_many(rng):
    labels = rng.choice(6, 5000, p=[0.24, 0.21, 0.19, 0.16, 0.13, 0.07])
    speaker = (400 * rng.random(5000) ** 2).astype(int)
    groups = np.where(rng.random(5000) < 0.5, "", [f"s{n}" for n in speaker]).tolist()
    groups = [name or f"clip:{n}" for n, name in enumerate(groups)]
    assert stratified_group_folds(labels, groups, 5, seed=3).tolist() == scikit_learns(labels, groups, 5, 3).tolist()


def test_a_tie_within_the_tolerance_goes_to_the_fold_with_fewer_clips():
    # one class has so many clips that a clip more or less is no difference to numpy.isclose
    labels = np.repeat([0, 1], [30_000, 12])
    groups = ["crowd" if n < 29_000 else f"clip:{n}" for n in range(len(labels))]
    assert stratified_group_folds(labels, groups, 3, seed=0).tolist() == scikit_learns(labels, groups, 3, 0).tolist()


def test_groups_are_numbered_in_the_order_of_their_names():
    number, count = numbered(["b", "a", "ä", "b", "Z"])
    assert (number.tolist(), count) == ([2, 1, 3, 2, 0], 4)
