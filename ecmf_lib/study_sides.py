"""Side studies of notebook 03: subsets of streams, robustness, learning curve, known speakers. Fewer seeds each."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd

from ecmf_lib.evaluate import compare, interval, results_table, scores
from ecmf_lib.fit import ModelSpec
from ecmf_lib.optimism import check
from ecmf_lib.samples import DataError, FusionData
from ecmf_lib.stress import stressed_predictions, with_worthless_stream
from ecmf_lib.study import REFERENCE, Study, official_recipe, run

#: Shares of the training speakers on a learning curve.
SHARES = (0.25, 0.5, 0.75, 1.0)
#: Fusions that the side studies follow.
FOLLOWED = {REFERENCE: "ecmf", "concatenation": "concat", "baseline attention": "baseline-attention"}
#: With more streams than this, not all subsets are tried.
MOST_STREAMS = 5


def subsets(study: Study) -> tuple[pd.DataFrame, pd.DataFrame]:
    """ECMF on every subset of streams: (streams, weighted_f1, low, high) and the predictions.

    With more than :data:`MOST_STREAMS` streams, only those of the best-known small sizes: single ones, pairs and all.
    """
    names = list(study.data.streams)
    sizes = range(1, len(names) + 1) if len(names) <= MOST_STREAMS else (1, 2, len(names))
    specs = [
        ModelSpec(" + ".join(chosen), "ecmf", streams=chosen) for size in sizes for chosen in combinations(names, size)
    ]
    runs = run(study, specs, side=True)
    rows = []
    for name, table in runs.items():
        found = interval(table, n_boot=study.settings.bootstrap, seed=study.settings.seed)
        rows.append({"streams": name, "weighted_f1": found.value, "low": found.low, "high": found.high})
    return pd.DataFrame(rows), pd.concat(runs.values(), ignore_index=True)


def stress(study: Study) -> dict[str, pd.DataFrame]:
    """Each followed fusion under missing and noisy streams: model → predictions with kind, stream, level."""
    specs = [ModelSpec(name, kind) for name, kind in FOLLOWED.items()]
    return run(study, specs, side=True, predict=stressed_predictions)


def worthless(study: Study) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What a further stream that knows nothing costs: a row a model, and the predictions with it."""
    noisy = with_worthless_stream(study.data, study.settings.seed)
    rows, kept = [], []
    for name, kind in (FOLLOWED | {"late fusion": "late-logistic"}).items():
        spec = ModelSpec(name, kind)
        plain, worse = study.cross_validated(study.data, spec), study.cross_validated(noisy, spec)
        paired = compare(worse, plain, n_boot=study.settings.bootstrap, seed=study.settings.seed)
        rows.append(
            {
                "model": name,
                "without it": scores(plain)["weighted_f1"],
                "with a worthless stream": scores(worse)["weighted_f1"],
                "difference": paired.difference,
                "difference_low": paired.low,
                "difference_high": paired.high,
            }
        )
        kept += [plain.assign(worthless_stream=False), worse.assign(worthless_stream=True)]
    return pd.DataFrame(rows), pd.concat(kept, ignore_index=True)


def learning_curve(study: Study) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scores by training size, drawn by speaker: (model, clips, speakers, weighted_f1, low, high) and predictions."""
    rows, kept = [], []
    for name, kind in (FOLLOWED | {"late fusion": "late-logistic"}).items():
        for share in SHARES:
            try:
                table = run(study, [ModelSpec(name, kind)], side=True, share=share)[name]
            except DataError:  # too few clips or classes are left to learn from
                continue
            found = interval(table, n_boot=study.settings.bootstrap, seed=study.settings.seed)
            rows.append(
                {
                    "model": name,
                    "clips": round(float(table["trained_on"].mean())),
                    "speakers": round(float(table["trained_speakers"].mean())),
                    "weighted_f1": found.value,
                    "low": found.low,
                    "high": found.high,
                }
            )
            kept.append(table.assign(share=share))
    return pd.DataFrame(rows), pd.concat(kept, ignore_index=True)


def optimism(study: Study) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the usual practice flatters (:mod:`ecmf_lib.optimism`): the official recipe and ECMF, one model each.

    Not for a published split: its test part is to stay unseen, and folds of its training part are another task.
    """
    data = study.data
    return check(
        data,
        [official_recipe(study), ModelSpec(REFERENCE, "ecmf")],
        unit=study.unit,
        n_folds=study.settings.folds,
        seeds=study.seeds(side=True),
        epochs=study.settings.epochs,
        n_boot=study.settings.bootstrap,
        run=lambda data, spec, **how: study.cross_validated(data, spec, **{"test_fold": None} | how),
    )


def known_speakers(study: Study) -> tuple[pd.DataFrame, pd.DataFrame]:
    """An arm of its own, never mixed with the rest: every stream on each speaker's own scale.

    This needs to know who speaks, and several clips of each tested speaker (their labels are not used).
    """
    data = by_speaker(study.data)
    kept = [name for name, x in data.streams.items() if np.ptp(x, axis=0).any()]
    if not kept:
        raise DataError("every speaker has a single clip, so no speaker has a scale of their own; leave this arm out")
    data = data.only(kept)
    specs = [ModelSpec(name, kind) for name, kind in (FOLLOWED | {"late fusion": "late-logistic"}).items()]
    runs = {spec.name: study.cross_validated(data, spec, seeds=study.seeds(side=True)) for spec in specs}
    table = results_table(runs, reference=REFERENCE, n_boot=study.settings.bootstrap, seed=study.settings.seed)
    return table, pd.concat(runs.values(), ignore_index=True)


def by_speaker(data: FusionData) -> FusionData:
    """Each feature standardised over the clips of one speaker; speakers with a single clip are set to 0."""
    streams = {}
    speakers = np.asarray(data.speakers)
    for name, x in data.streams.items():
        z = np.zeros_like(x)
        for speaker in np.unique(speakers):
            rows = np.flatnonzero((speakers == speaker) & data.present[name])
            if len(rows) > 1:
                spread = x[rows].std(0)
                z[rows] = np.where(spread > 1e-6, (x[rows] - x[rows].mean(0)) / np.maximum(spread, 1e-6), 0)
        streams[name] = z
    return replace(data, streams=streams)
