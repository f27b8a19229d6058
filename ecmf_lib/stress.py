"""What a trained fusion does when streams are missing or noisy at test time. Nothing here trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ecmf_lib.evaluate import scores
from ecmf_lib.fit import Fitted
from ecmf_lib.samples import FusionData
from ecmf_lib.train import fold_seed, predictions_table

#: Shares of the tested clips that lose a stream.
MISSING = (0.25, 0.5, 0.75, 1.0)
#: Deviations of Gaussian noise, in deviations that each feature has in training.
NOISE = (0.5, 1.0, 2.0, 4.0)


def stressed_predictions(
    model: Fitted, tested: FusionData, groups: Sequence[str], *, seed: int, fold: int
) -> pd.DataFrame:
    """Predictions of the tested clips as they are and under each kind of damage to each stream.

    Returns
    -------
    DataFrame
        As :func:`ecmf_lib.train.predictions_table`, with kind ("none", "missing", "noise"), stream and level.
    """
    rng = np.random.default_rng(fold_seed(seed, fold))
    tables = [predictions_table(model, tested, groups, seed=seed, fold=fold).assign(kind="none", stream="", level=0.0)]
    for stream in model.dims:
        order = rng.permutation(len(tested))
        noise = rng.standard_normal(tested.streams[stream].shape)
        for kind, level in [("missing", share) for share in MISSING] + [("noise", size) for size in NOISE]:
            if kind == "missing":
                damaged = without(tested, stream, order[: round(level * len(order))])
            else:
                damaged = with_noise(tested, stream, noise, level, model)
            table = predictions_table(model, damaged, groups, seed=seed, fold=fold)
            tables.append(table.assign(kind=kind, stream=stream, level=level))
    return pd.concat(tables, ignore_index=True)


def without(data: FusionData, stream: str, rows: np.ndarray) -> FusionData:
    """The same clips, those at `rows` without this stream."""
    present = data.present[stream].copy()
    present[rows] = False
    return replace(data, present=data.present | {stream: present})


def with_noise(data: FusionData, stream: str, noise: np.ndarray, level: float, model: Fitted) -> FusionData:
    """Noise added to a stream, scaled to each feature's own deviation in training."""
    gain = model.arrays[f"gain.{stream}"]
    deviation = np.divide(1, gain, out=np.zeros_like(gain), where=gain > 0)
    return replace(data, streams=data.streams | {stream: data.streams[stream] + level * deviation * noise})


def with_worthless_stream(data: FusionData, seed: int) -> FusionData:
    """A further stream, ``noise``: the widest one's rows dealt to other clips, so it looks real and knows nothing."""
    widest = max(data.dims, key=data.dims.get)
    name = "noise" if "noise" not in data.streams else "noise, dealt"
    order = np.random.default_rng(seed).permutation(len(data))
    return replace(
        data,
        streams=data.streams | {name: data.streams[widest][order]},
        present=data.present | {name: data.present[widest][order]},
    )


def robustness_table(runs: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Weighted F1 by kind, stream, level and model, for ``plots.robustness``; level 0 is the undamaged clip."""
    rows = []
    for model, table in runs.items():
        whole = scores(table[table["kind"] == "none"])["weighted_f1"]
        for (kind, stream), part in table[table["kind"] != "none"].groupby(["kind", "stream"], sort=False):
            rows.append({"kind": kind, "stream": stream, "level": 0.0, "model": model, "weighted_f1": whole})
            for level, clips in part.groupby("level"):
                found = scores(clips)["weighted_f1"]
                rows.append({"kind": kind, "stream": stream, "level": level, "model": model, "weighted_f1": found})
    return pd.DataFrame(rows)


def missing_table(stressed: pd.DataFrame, never: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """A stream missing in all tested clips, against a model that was trained without it.

    Parameters
    ----------
    stressed : DataFrame
        Of one model, see :func:`stressed_predictions`.
    never : dict of str to DataFrame
        Stream → predictions of the same model trained without it, same seeds and folds.
    """
    rows = []
    for stream, other in never.items():
        gone = stressed[(stressed["kind"] == "missing") & (stressed["stream"] == stream) & (stressed["level"] == 1.0)]
        seeds = sorted(set(gone["seed"]) & set(other["seed"]))
        at_test = scores(gone[gone["seed"].isin(seeds)])["weighted_f1"]
        trained = scores(other[other["seed"].isin(seeds)])["weighted_f1"]
        rows.append(
            {
                "stream": stream,
                "missing at test time": at_test,
                "trained without it": trained,
                "difference": at_test - trained,
            }
        )
    return pd.DataFrame(rows)
