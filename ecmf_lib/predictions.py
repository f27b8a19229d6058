"""The table of stored predictions, checked: what every score, comparison and calibration is computed from."""

from __future__ import annotations

import pandas as pd

NEEDED = ("seed", "id", "speaker", "label", "predicted")


class PredictionError(ValueError):
    """A table of predictions that cannot be scored or compared; the message names what does not fit."""


def probability_columns(predictions: pd.DataFrame) -> list[str]:
    """The ``p_<class>`` columns, in class order; empty for a model that only names classes."""
    return [column for column in predictions.columns if column.startswith("p_")]


def class_names(predictions: pd.DataFrame) -> list[str]:
    """Classes in index order, from the ``p_<class>`` columns (else the labels, sorted)."""
    named = [column.removeprefix("p_") for column in probability_columns(predictions)]
    return named or sorted(set(predictions["label"]) | set(predictions["predicted"]))


def checked(predictions: pd.DataFrame) -> pd.DataFrame:
    """The table itself, if it has the columns of :data:`NEEDED` and each clip once in every seed.

    Raises
    ------
    PredictionError
        Otherwise.
    """
    lacking = [column for column in NEEDED if column not in predictions.columns]
    if lacking or not len(predictions):
        raise PredictionError(f"predictions: {len(predictions)} rows, missing columns: {', '.join(lacking) or 'none'}")
    twice = predictions[predictions.duplicated(["seed", "id"])]
    if len(twice):
        first = twice.iloc[0]
        raise PredictionError(f"clip {first['id']!r} is predicted twice in seed {first['seed']}; one model at a time")
    sizes = predictions.groupby("seed")["id"].size()
    if sizes.nunique() > 1 or sizes.iloc[0] != predictions["id"].nunique():
        raise PredictionError(f"seeds cover different clips: {sizes.to_dict()}")
    return predictions


def check_same_clips(a: pd.DataFrame, b: pd.DataFrame) -> None:
    """Raise PredictionError unless two tables cover the same clips and agree on their labels and speakers."""
    first, second = (t.drop_duplicates("id").set_index("id")[["label", "speaker"]].astype(str) for t in (a, b))
    odd = first.index.symmetric_difference(second.index)
    if len(odd):
        raise PredictionError(f"the two models cover different clips: {len(odd)} in only one, for example {odd[0]!r}")
    differ = (first != second.loc[first.index]).any(axis=1)
    if differ.any():
        clip = differ.idxmax()
        raise PredictionError(
            f"clip {clip!r} is {first.loc[clip].to_dict()} in one table and {second.loc[clip].to_dict()} in the other"
        )
