"""Made-up label sources for the tests of refinement: people who err in a known way, and a classifier."""

import numpy as np
from fusion_clips import changed, clips

from ecmf_lib.sources import FUSION, Source, hard


def votes(rng, truth, confusions, abstains=0.0):
    """Labels drawn from p(vote | truth) [classes, classes], -1 for the share that abstains."""
    drawn = (rng.random(len(truth))[:, None] > np.cumsum(confusions, axis=1)[truth]).sum(1)
    drawn = np.minimum(drawn, len(confusions) - 1)
    return np.where(rng.random(len(truth)) < abstains, -1, drawn)


def confusing(accuracy, n_classes):
    """Confusions of somebody who is right so often, and errs evenly."""
    return np.eye(n_classes) * accuracy + (1 - np.eye(n_classes)) * (1 - accuracy) / (n_classes - 1)


def person(rng, name, truth, accuracy, n_classes, abstains=0.0):
    return hard(name, votes(rng, truth, confusing(accuracy, n_classes), abstains), n_classes)


def classifier(rng, truth, n_classes, strength=2.0):
    """Calibrated chances: the posterior of Gaussian classes, so far from the origin, each in a dimension of its own."""
    seen = strength * np.eye(n_classes)[truth] + rng.normal(size=(len(truth), n_classes))
    chances = np.exp(strength * seen)
    return Source(FUSION, FUSION, chances / chances.sum(1, keepdims=True))


def silent(name, n, n_classes, family=""):
    return Source(name, family or name, np.full((n, n_classes), np.nan))


def mislabelled(rng, *, n=240, speakers=12, signal=2.5, rate=0.2):
    """Clips, and the same with labels of which so many are the next class (class-dependent noise)."""
    data = clips(rng, n=n, speakers=speakers, signal=signal)
    wrong = rng.random(n) < rate
    return data, changed(data, labels=np.where(wrong, (data.labels + 1) % 3, data.labels))
