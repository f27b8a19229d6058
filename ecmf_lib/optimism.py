"""How much the usual practice flatters a score: folds drawn by clip, and the epoch picked on the scored fold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ecmf_lib.evaluate import interval
from ecmf_lib.experts import log_softmax
from ecmf_lib.fit import ModelSpec, picked_on_scored_fold
from ecmf_lib.samples import FusionData
from ecmf_lib.train import cross_validate, outer_folds

#: Practices in the order of a table, the honest one last: name → (folds by clip, epoch picked on the scored fold).
PRACTICES = {
    "random clips, epoch picked on the scored fold": (True, True),
    "random clips": (True, False),
    "{unit}s apart, epoch picked on the scored fold": (False, True),
    "{unit}s apart, nothing picked on the scored fold": (False, False),
}


def flattered(
    data: FusionData, spec: ModelSpec, *, n_folds: int, seeds: Sequence[int], epochs: int, by_clip: bool
) -> pd.DataFrame:
    """Predictions made the usual way: one model a fold, its epoch picked on that fold. Columns as in cross_validate."""
    tables = []
    for seed in seeds:
        fold = outer_folds(data, data.ids if by_clip else data.speakers, n_folds, seed)
        chances = np.exp(log_softmax(picked_on_scored_fold(data, spec, fold, seed=seed, epochs=epochs)))
        classes = np.array(data.classes)
        table = pd.DataFrame(
            {
                "model": spec.name,
                "seed": seed,
                "fold": fold,
                "id": data.ids,
                "speaker": data.speakers,
                "label": classes[data.labels],
                "predicted": classes[chances.argmax(1)],
            }
        )
        tables.append(table.assign(**{f"p_{name}": chances[:, i] for i, name in enumerate(data.classes)}))
    return pd.concat(tables, ignore_index=True)


def check(
    data: FusionData,
    specs: Sequence[ModelSpec],
    *,
    unit: str,
    n_folds: int,
    seeds: Sequence[int],
    epochs: int,
    n_boot: int,
    run: Callable[..., pd.DataFrame] = cross_validate,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every practice for every model, on the same clips.

    Parameters
    ----------
    data : FusionData
        Its `speakers` are what the honest folds hold apart.
    specs : sequence of ModelSpec
        Neural; single models, so that all practices are compared with one model a fold.
    unit : str
        What the honest folds hold apart: "speaker", "take", …
    run : callable
        :func:`ecmf_lib.train.cross_validate`, or it with a cache.

    Returns
    -------
    table : DataFrame
        For ``plots.optimism``: practice, model, weighted_f1, low, high.
    predictions : DataFrame
        All of them, with `practice`.
    """
    rows, predictions = [], []
    for spec in specs:
        single = replace(spec, options=dict(spec.options) | {"members": 1})
        for name, (by_clip, picked) in PRACTICES.items():
            how = {"n_folds": n_folds, "seeds": seeds, "epochs": epochs}
            if picked:
                found = flattered(data, single, by_clip=by_clip, **(how | {"epochs": spec.epochs or epochs}))
            else:
                found = run(data, single, groups=data.ids if by_clip else data.speakers, **how)
            # Intervals over speakers in all rows, so that they can be compared.
            found = found.assign(speaker=found["id"].map(dict(zip(data.ids, data.speakers, strict=True))))
            practice = name.format(unit=unit)
            said = interval(found, n_boot=n_boot)
            rows.append(
                {
                    "practice": practice,
                    "model": spec.name,
                    "weighted_f1": said.value,
                    "low": said.low,
                    "high": said.high,
                }
            )
            predictions.append(found.assign(practice=practice))
    return pd.DataFrame(rows), pd.concat(predictions, ignore_index=True)
