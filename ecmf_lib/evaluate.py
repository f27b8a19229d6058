"""Scores from stored predictions: metrics, intervals over speakers, paired comparisons.

All functions take the table that :func:`ecmf_lib.train.cross_validate` gives (or one like it read from parquet): a row
for each seed and clip with seed, id, speaker, label, predicted, ``p_<class>``. A figure of several seeds is the mean of
the seeds' figures, not the figure of their ensemble. The unit of resampling is the speaker, since clips of one speaker
are not independent; a bootstrap over clips would promise too much. The table's own checks are in
:mod:`ecmf_lib.predictions`, how honest its probabilities are in :mod:`ecmf_lib.calibration`; both are handed on from
here.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from statsmodels.stats.multitest import multipletests

from ecmf_lib.calibration import calibration_error, raw_probabilities, reliability_table
from ecmf_lib.predictions import PredictionError, check_same_clips, checked, class_names, probability_columns

__all__ = [
    "FEW_SPEAKERS",
    "METRICS",
    "Comparison",
    "Interval",
    "PredictionError",
    "calibration_error",
    "class_names",
    "compare",
    "confusion",
    "holm",
    "interval",
    "per_class",
    "raw_probabilities",
    "reliability_table",
    "results_table",
    "scores",
]

#: With fewer speakers than this a bootstrap over speakers says next to nothing.
FEW_SPEAKERS = 5
#: Metrics that intervals and comparisons know.
METRICS = ("weighted_f1", "accuracy", "macro_f1")


@dataclass(frozen=True)
class Interval:
    """A score with its cluster-bootstrap interval.

    Attributes
    ----------
    value, low, high : float
        `low` and `high` are NaN when there are too few speakers.
    speakers : int
    note : str
        Empty, or why the interval should not be trusted.
    """

    value: float
    low: float
    high: float
    speakers: int
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """Model a minus model b on the same clips.

    Attributes
    ----------
    difference, low, high : float
        Of the metric, with its interval.
    p : float
        Two-sided, paired cluster bootstrap; NaN when there are too few speakers.
    p_mcnemar : float
        Exact McNemar test over the clips of each model's first seed (it needs one answer a clip); treats clips as
        independent, so it is the second opinion.
    only_a, only_b : int
        Clips that only one of the models gets right (in each one's first seed).
    speakers : int
    note : str
    """

    difference: float
    low: float
    high: float
    p: float
    p_mcnemar: float
    only_a: int
    only_b: int
    speakers: int
    note: str = ""


def scores(predictions: pd.DataFrame) -> dict[str, float]:
    """Weighted F1, accuracy, macro F1, each the mean over seeds; the same numbers as scikit-learn's.

    Macro F1 is the mean over the classes that have clips: ``f1_score(average="macro", labels=<those>)``. Without
    `labels`, scikit-learn also counts a class that has no clips but is guessed once, as an F1 of 0: of five classes a
    sixth of the score for a single guess, and models that never make it would be averaged over other classes than
    this one. (CREMA-D has no "surprise", one of the six project classes.) The guess is still wrong for the true class.
    """
    by_seed = _speaker_counts(checked(predictions))[0].sum(axis=1)
    return {name: float(_metric(by_seed, name).mean()) for name in METRICS}


def per_class(predictions: pd.DataFrame) -> pd.DataFrame:
    """Precision, recall, F1 (means over seeds) and support (clips) by class: index class name."""
    predictions, classes = checked(predictions), class_names(predictions)
    tables = [
        precision_recall_fscore_support(part["label"], part["predicted"], labels=classes, zero_division=0)
        for _, part in predictions.groupby("seed")
    ]
    columns = np.mean(tables, axis=0)
    table = pd.DataFrame(dict(zip(("precision", "recall", "f1", "support"), columns, strict=True)), index=classes)
    return table.astype({"support": int}).rename_axis("class")


def confusion(predictions: pd.DataFrame) -> pd.DataFrame:
    """Clips by true class (rows) and predicted class (columns), mean over seeds."""
    predictions, classes = checked(predictions), class_names(predictions)
    parts = [confusion_matrix(p["label"], p["predicted"], labels=classes) for _, p in predictions.groupby("seed")]
    return pd.DataFrame(
        np.mean(parts, axis=0), index=pd.Index(classes, name="label"), columns=pd.Index(classes, name="predicted")
    )


def interval(
    predictions: pd.DataFrame, *, metric: str = "weighted_f1", n_boot: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Score and its percentile interval from a bootstrap over speakers (a speaker's clips and seeds move together).

    Parameters
    ----------
    predictions : DataFrame
    metric : str
        One of :data:`METRICS`.
    n_boot : int
        Resamples.
    seed : int
    level : float
        Coverage aimed at.
    """
    counts, speakers, _ = _speaker_counts(checked(predictions))
    value = float(_metric(counts.sum(axis=1), metric).mean())
    note = _few(len(speakers))
    if note:
        return Interval(value, np.nan, np.nan, len(speakers), note)
    low, high = np.quantile(_resampled(counts, metric, _draws(len(speakers), n_boot, seed)), _tails(level))
    return Interval(value, float(low), float(high), len(speakers))


def compare(
    a: pd.DataFrame,
    b: pd.DataFrame,
    *,
    metric: str = "weighted_f1",
    n_boot: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Comparison:
    """Model `a` minus model `b`, paired: both are scored on the same resampled speakers.

    The p-value is twice the smaller share of resamples on either side of 0 (counting the observed one, so never 0).
    The models may have different numbers of seeds.

    Raises
    ------
    PredictionError
        The two do not cover the same clips, or disagree on a label or speaker.
    """
    a, b = checked(a), checked(b)
    check_same_clips(a, b)
    classes = list(dict.fromkeys(class_names(a) + class_names(b)))
    counts_a, speakers, _ = _speaker_counts(a, classes)
    counts_b, _, _ = _speaker_counts(b, classes)
    difference = float(_metric(counts_a.sum(axis=1), metric).mean() - _metric(counts_b.sum(axis=1), metric).mean())
    only_a, only_b = _discordant(a, b)
    p_mcnemar = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    low = high = p = np.nan
    note = _few(len(speakers))
    if not note:
        draws = _draws(len(speakers), n_boot, seed)
        moved = _resampled(counts_a, metric, draws) - _resampled(counts_b, metric, draws)
        low, high = (float(edge) for edge in np.quantile(moved, _tails(level)))
        p = float(min(1.0, 2 * (1 + min((moved <= 0).sum(), (moved >= 0).sum())) / (n_boot + 1)))
    return Comparison(difference, low, high, p, p_mcnemar, only_a, only_b, len(speakers), note)


def holm(p_values: list[float]) -> list[float]:
    """Holm-corrected p-values in the given order; NaN stays NaN and does not count."""
    p_values = np.asarray(p_values, dtype=float)
    corrected, known = np.full(len(p_values), np.nan), ~np.isnan(p_values)
    if known.any():
        corrected[known] = multipletests(p_values[known], method="holm")[1]
    return corrected.tolist()


def results_table(
    runs: dict[str, pd.DataFrame], *, reference: str | None = None, n_boot: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Models side by side, best weighted F1 first.

    Parameters
    ----------
    runs : dict of str to DataFrame
        Model name → predictions.
    reference : str, optional
        Every other model is compared with this one (model minus reference, paired, Holm over the rows).

    Returns
    -------
    DataFrame
        model, weighted_f1, low, high, accuracy, macro_f1, ece, ece_raw (calibration error of the probabilities as they
        stand, and before temperature scaling; NaN without ``p_<class>``), n_clips, n_speakers, seeds, difference,
        difference_low, difference_high, p, p_mcnemar (see :class:`Comparison`), p_holm, p_mcnemar_holm, note.
    """
    if reference is not None and reference not in runs:
        raise PredictionError(f"no model '{reference}' to compare with; there are {', '.join(runs)}")
    rows = [_row(name, table, runs.get(reference), name == reference, n_boot, seed) for name, table in runs.items()]
    table = pd.DataFrame(rows)
    for test in ("p", "p_mcnemar"):
        table[f"{test}_holm"] = holm(table[test].tolist())
    table["note"] = table.pop("note")
    return table.sort_values("weighted_f1", ascending=False, kind="stable", ignore_index=True)


def _row(name, predictions, reference, is_reference, n_boot, seed) -> dict:
    found = interval(predictions, n_boot=n_boot, seed=seed)
    row = {"model": name, "weighted_f1": found.value, "low": found.low, "high": found.high}
    row |= {key: value for key, value in scores(predictions).items() if key != "weighted_f1"}
    has_p = bool(probability_columns(predictions))
    row["ece"] = calibration_error(predictions) if has_p else np.nan
    row["ece_raw"] = calibration_error(raw_probabilities(predictions)) if has_p else np.nan
    row |= {"n_clips": predictions["id"].nunique(), "n_speakers": found.speakers}
    row |= {"seeds": predictions["seed"].nunique(), "note": found.note}
    against = dict.fromkeys(("difference", "difference_low", "difference_high", "p", "p_mcnemar"), np.nan)
    if reference is not None and not is_reference:
        paired = compare(predictions, reference, n_boot=n_boot, seed=seed)
        values = (paired.difference, paired.low, paired.high, paired.p, paired.p_mcnemar)
        against = dict(zip(against, values, strict=True))
    return row | against


def _speaker_counts(predictions: pd.DataFrame, classes: list[str] | None = None) -> tuple[np.ndarray, list, list[str]]:
    """Confusion counts float [seeds, speakers, classes, classes] (true, predicted); speakers; classes."""
    classes = classes or class_names(predictions)
    index = {name: i for i, name in enumerate(classes)}
    unknown = (set(predictions["label"]) | set(predictions["predicted"])) - set(classes)
    if unknown:
        raise PredictionError(f"class(es) {sorted(unknown)} have no p_ column; classes are {', '.join(classes)}")
    seed, seeds = pd.factorize(predictions["seed"], sort=True)
    speaker, speakers = pd.factorize(predictions["speaker"].astype(str), sort=True)
    true, guess = (predictions[column].map(index).to_numpy(dtype=int) for column in ("label", "predicted"))
    counts = np.zeros((len(seeds), len(speakers), len(classes), len(classes)))
    np.add.at(counts, (seed, speaker, true, guess), 1)
    return counts, list(speakers), classes


def _metric(counts: np.ndarray, name: str) -> np.ndarray:
    """Metric from confusion counts [..., classes, classes]; the same numbers as scikit-learn with zero_division=0."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1)
    support, guessed = counts.sum(-1), counts.sum(-2)
    total = support.sum(-1)
    if name == "accuracy":
        return hits.sum(-1) / total
    f1 = 2 * hits / np.maximum(support + guessed, 1)
    if name == "weighted_f1":
        return (f1 * support).sum(-1) / total
    if name == "macro_f1":
        return (f1 * (support > 0)).sum(-1) / (support > 0).sum(-1)  # see scores()
    raise PredictionError(f"no metric '{name}'; choose from {', '.join(METRICS)}")


def _draws(n_speakers: int, n_boot: int, seed: int) -> np.ndarray:
    """How often each speaker is in each resample: int [n_boot, speakers]."""
    return np.random.default_rng(seed).multinomial(n_speakers, np.full(n_speakers, 1 / n_speakers), size=n_boot)


def _resampled(counts: np.ndarray, metric: str, draws: np.ndarray) -> np.ndarray:
    """Metric of each resample, mean over seeds: [n_boot]. In blocks, so that many speakers do not fill the memory."""
    flat = counts.reshape(*counts.shape[:2], -1)  # [seeds, speakers, classes²]
    found = []
    edges = [*range(0, len(draws), 1000), len(draws)]
    for start, end in pairwise(edges):
        summed = (draws[start:end].astype(float) @ flat).reshape(len(counts), -1, *counts.shape[2:])
        found.append(_metric(summed, metric).mean(axis=0))
    return np.concatenate(found)


def _discordant(a: pd.DataFrame, b: pd.DataFrame) -> tuple[int, int]:
    right = []
    for table in (a, b):
        first = table[table["seed"] == table["seed"].min()].set_index("id")
        right.append(first["label"] == first["predicted"])
    right_b = right[1].loc[right[0].index]
    return int((right[0] & ~right_b).sum()), int((right_b & ~right[0]).sum())


def _tails(level: float) -> tuple[float, float]:
    return (1 - level) / 2, (1 + level) / 2


def _few(n_speakers: int) -> str:
    if n_speakers >= FEW_SPEAKERS:
        return ""
    return f"only {n_speakers} speaker(s): no interval, it would need at least {FEW_SPEAKERS}"
