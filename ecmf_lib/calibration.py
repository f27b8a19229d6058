"""Are probabilities honest? Reliability and calibration error of stored predictions, before and after scaling.

In a table with a column ``temperature`` T, ``p_<class>`` are the probabilities after temperature scaling, p ∝ raw^(1/T)
(Guo et al. 2017, arXiv 1706.04599). T > 1 makes a model less sure, T < 1 surer; the predicted class stays the same.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ecmf_lib.predictions import PredictionError, checked, probability_columns

#: States of a model's probabilities, as :func:`ecmf_lib.plots.reliability` names them.
RAW, SCALED = "raw", "after temperature scaling"


def is_scaled(predictions: pd.DataFrame) -> bool:
    """Whether any row's temperature is known and not 1; NaN (a model that is not scaled) counts as 1."""
    return "temperature" in predictions.columns and bool((predictions["temperature"].fillna(1.0) != 1).any())


def raw_probabilities(predictions: pd.DataFrame) -> pd.DataFrame:
    """The table with its probabilities before temperature scaling: raw = p^T, made to add up to 1.

    Parameters
    ----------
    predictions : DataFrame
        With ``p_<class>`` and, if the model was scaled, ``temperature``.

    Returns
    -------
    DataFrame
        A new table in which every ``temperature`` is 1, so that nothing is undone twice; `predictions` itself, without
        a copy, where nothing was scaled. What scaling has rounded to 0 stays 0.

    Raises
    ------
    PredictionError
        A temperature is not above 0, or a row's ``p_<class>`` are no probabilities; names the clip.
    """
    columns = probability_columns(predictions)
    if not columns or not is_scaled(predictions):
        return predictions
    temperature = predictions["temperature"].fillna(1.0).to_numpy(float)
    p = predictions[columns].to_numpy(float)
    _refuse(predictions, ~((temperature > 0) & np.isfinite(temperature)), ["temperature"], "a number above 0")
    _refuse(predictions, ~(np.isfinite(p) & (p >= 0)).all(1) | ~(p.sum(1) > 0), columns, "numbers from 0 to 1")
    with np.errstate(divide="ignore"):  # log 0 = -inf, and exp gives the 0 back
        logs = np.log(p) * temperature[:, None]
    raw = np.exp(logs - logs.max(axis=1, keepdims=True))  # the largest is 1: nothing overflows, no row is all 0
    raw /= raw.sum(axis=1, keepdims=True)
    return predictions.assign(temperature=1.0, **dict(zip(columns, raw.T, strict=True)))


def calibration_error(predictions: pd.DataFrame, bins: int = 10) -> float:
    """Expected calibration error (Guo et al. 2017): mean over equal-width bins of |accuracy - confidence|, by clips.

    Confidence is the probability of the likeliest class, as it stands in the table. The mean over seeds.

    Raises
    ------
    PredictionError
        There are no ``p_<class>`` columns.
    """
    return float(np.mean([_error(*sums) for sums in _sums_by_seed(predictions, bins)]))


def reliability_table(predictions: pd.DataFrame, bins: int = 10) -> pd.DataFrame:
    """How often a model is right where it is this sure; for :func:`ecmf_lib.plots.reliability`.

    Parameters
    ----------
    predictions : DataFrame
        One model's, of any number of seeds.
    bins : int
        Of equal width, from 0 to 1.

    Returns
    -------
    DataFrame
        `bins` rows a state, "raw" and (only where the table has temperatures) "after temperature scaling": state,
        confidence_bin (0…bins-1), confidence, accuracy (means over the bin's clips of all seeds; NaN for an empty bin),
        share (of clips in the bin), ece (of the state, the mean over seeds as :func:`calibration_error`: the bins drawn
        here are fuller than those of one seed, so their own gaps add up to no more than it).

    Raises
    ------
    PredictionError
        There are no ``p_<class>`` columns.
    """
    states = {RAW: raw_probabilities(predictions)} | ({SCALED: predictions} if is_scaled(predictions) else {})
    return pd.concat([_reliability(state, table, bins) for state, table in states.items()], ignore_index=True)


def _reliability(state: str, predictions: pd.DataFrame, bins: int) -> pd.DataFrame:
    by_seed = _sums_by_seed(predictions, bins)
    clips, sure, right = np.sum(by_seed, axis=0)
    with np.errstate(invalid="ignore"):  # 0/0 in an empty bin
        rows = {"confidence": sure / clips, "accuracy": right / clips, "share": clips / clips.sum()}
    error = float(np.mean([_error(*sums) for sums in by_seed]))
    return pd.DataFrame({"state": state, "confidence_bin": range(bins), **rows, "ece": error})


def _sums_by_seed(predictions: pd.DataFrame, bins: int) -> list[np.ndarray]:
    """For each seed float [3, bins]: clips in the bin, the sum of their confidences, how many are right."""
    if bins < 1:
        raise ValueError(f"bins = {bins}: expected 1 or more")
    columns = probability_columns(checked(predictions))
    if not columns:
        raise PredictionError("calibration needs the p_<class> columns")
    found = []
    for _, part in predictions.groupby("seed"):
        confidence = part[columns].to_numpy(float).max(axis=1)
        right = (part["label"] == part["predicted"]).to_numpy(float)
        bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
        sums = [np.bincount(bin_of, weights=w, minlength=bins) for w in (np.ones(len(part)), confidence, right)]
        found.append(np.array(sums))
    return found


def _error(clips: np.ndarray, sure: np.ndarray, right: np.ndarray) -> float:
    return float(np.abs(right - sure).sum() / clips.sum())


def _refuse(predictions: pd.DataFrame, bad: np.ndarray, columns: list[str], expected: str) -> None:
    if bad.any():
        row = predictions.iloc[int(bad.argmax())]
        said = ", ".join(f"{column} {row[column]:.3g}" for column in columns)
        raise PredictionError(f"clip {row['id']!r}: {said}; expected {expected}")
