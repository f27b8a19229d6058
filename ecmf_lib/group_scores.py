"""Whom a model fails: scores by group of speakers, by speaker, the commonest confusions, the surest mistakes.

All functions take a table of predictions as :mod:`ecmf_lib.evaluate` does.
"""

from __future__ import annotations

import pandas as pd

from ecmf_lib.evaluate import confusion, interval, scores
from ecmf_lib.predictions import PredictionError, checked, probability_columns

#: What a speaker or clip is in for whom nothing is said.
UNKNOWN = "not known"


def group_scores(predictions: pd.DataFrame, groups: pd.DataFrame, *, n_boot: int = 2000) -> pd.DataFrame:
    """Scores of each group, for every attribute that is known.

    Parameters
    ----------
    predictions : DataFrame
    groups : DataFrame
        One row a speaker (column ``speaker``) or a clip (``id``), and a column for each attribute: gender, age, first
        language, camera, …
    n_boot : int
        Resamples of speakers for the intervals.

    Returns
    -------
    DataFrame
        attribute, group, speakers, clips, weighted_f1, low, high (NaN with fewer than five speakers), accuracy. Groups
        differ in their shares of the classes, which moves the weighted F1: look at both.

    Raises
    ------
    PredictionError
        For a table without such a column, without attributes, or with a speaker or clip twice.
    """
    predictions = checked(predictions)
    key = next((name for name in ("speaker", "id") if name in groups), None)
    attributes = [name for name in groups if name not in ("speaker", "id")]
    if key is None or not attributes or groups[key].duplicated().any():
        raise PredictionError("groups: expected one row a speaker (or id), each once, and a column for each attribute")
    rows = []
    for attribute in attributes:
        named = dict(zip(groups[key].astype(str), groups[attribute], strict=True))
        group = predictions[key].astype(str).map(named)
        group = group.where(group.notna() & (group != ""), UNKNOWN).astype(str)
        for name, part in predictions.groupby(group):
            found = interval(part, n_boot=n_boot)
            counts = [part["speaker"].nunique(), part["id"].nunique()]
            figures = [found.value, found.low, found.high, scores(part)["accuracy"]]
            rows.append([attribute, name, *counts, *figures])
    columns = "attribute group speakers clips weighted_f1 low high accuracy".split()
    return pd.DataFrame(rows, columns=columns)


def speaker_scores(predictions: pd.DataFrame) -> pd.DataFrame:
    """Share of each speaker's clips that are right, the lowest first: speaker, clips, accuracy (mean over seeds)."""
    predictions = checked(predictions)
    right = (predictions["label"] == predictions["predicted"]).astype(float)
    table = (
        predictions.assign(accuracy=right)
        .groupby("speaker")
        .agg(clips=("id", "nunique"), accuracy=("accuracy", "mean"))
    )
    return table.reset_index().sort_values(["accuracy", "speaker"], ignore_index=True)


def worst_pairs(predictions: pd.DataFrame, n: int = 5) -> pd.DataFrame:
    """The commonest confusions: label, predicted, clips (mean over seeds), share of the label's clips."""
    counts = confusion(predictions)
    totals = counts.sum(axis=1)
    rows = [
        [label, said, float(counts.loc[label, said]), float(counts.loc[label, said] / totals[label])]
        for label in counts.index
        for said in counts.columns
        if label != said and counts.loc[label, said] > 0
    ]
    found = pd.DataFrame(rows, columns=["label", "predicted", "clips", "share"])
    return found.sort_values(["share", "clips"], ascending=False, kind="stable", ignore_index=True).head(n)


def surest_mistakes(predictions: pd.DataFrame, n: int = 5) -> pd.DataFrame:
    """Wrong answers that the model was surest of: id, speaker, label, predicted, confidence."""
    predictions = checked(predictions)
    confidence = predictions[probability_columns(predictions)].to_numpy().max(axis=1)
    wrong = predictions.assign(confidence=confidence)[(predictions["label"] != predictions["predicted"]).to_numpy()]
    wrong = wrong.sort_values(["confidence", "id"], ascending=[False, True], kind="stable").drop_duplicates("id")
    return wrong[["id", "speaker", "label", "predicted", "confidence"]].head(n).reset_index(drop=True)
