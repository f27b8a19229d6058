"""Temperature scaling (Guo et al. 2017): one number that makes probabilities as sure as they are right."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar

from ecmf_lib.experts import log_softmax


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """Temperature with the lowest cross-entropy, between .1 and 20.

    Parameters
    ----------
    logits : float [n, classes]
        Of clips that the model has not been fitted on.
    targets : float [n, classes]
        Class probabilities times weight.

    Notes
    -----
    For an ensemble the inner folds give logits of single members only. Their mean is a little less sure of itself than
    they are, so the ensemble's temperature is slightly too high or right, seldom too low.
    """
    if not len(logits) or not targets.any():
        return 1.0

    def loss(power: float) -> float:
        return -float((targets * log_softmax(logits / np.exp(power))).sum())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.1), np.log(20)), method="bounded").x))
