"""The comparison that notebook 03 shows: which models, on which folds, and how their scores read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from joblib.externals.loky import get_reusable_executor

from ecmf_lib.config import FuseSettings, cache_dir
from ecmf_lib.project import Project
from ecmf_lib.samples import FusionData, grouped_folds
from ecmf_lib.train import Fitted, ModelSpec, cross_validate, fit
from ecmf_lib.workers import usable_cores

#: Of a results table, what a reader compares.
SHOWN = ["model", "weighted_f1", "low", "high", "macro_f1", "accuracy", "difference", "p", "p_holm"]
ALONE = " alone"
MAJORITY = "always the commonest"


def models(data: FusionData) -> list[ModelSpec]:
    """Each stream alone, the fusions (with one stream there is nothing to fuse), and guessing."""
    alone = [ModelSpec(stream + ALONE, "logistic", streams=(stream,)) for stream in data.streams]
    classical = [ModelSpec("late fusion", "late-logistic"), ModelSpec("all features, logistic", "logistic")]
    return [
        ModelSpec("ECMF", "ecmf"),
        ModelSpec("baseline attention", "baseline-attention"),
        ModelSpec("concatenation", "concat"),
        *(classical if len(alone) > 1 else []),
        *alone,
        ModelSpec(MAJORITY, "majority"),
    ]


def ablations(data: FusionData) -> list[ModelSpec]:
    """ECMF with one part off at a time, or without one stream."""
    off = [
        ModelSpec("without attention", "ecmf", options={"attention": False}),
        ModelSpec("without residual", "ecmf", options={"residual": "none"}),
        ModelSpec("without modality dropout", "ecmf", options={"modality_dropout": 0.0}),
        ModelSpec("without losses of the streams' own", "ecmf", options={"auxiliary": 0.0}),
    ]
    streams = list(data.streams)
    fewer = [
        ModelSpec(f"without {name}", "ecmf", streams=tuple(s for s in streams if s != name))
        for name in streams
        if len(streams) > 2
    ]
    return off + fewer


def two_best(table: pd.DataFrame) -> list[ModelSpec]:
    """Late fusion of the two streams that score best alone: a weak third stream can only harm it.

    The two are chosen on the scores that are then compared, so this rival has an unfair advantage; that makes it a
    safe one to be ahead of. With two streams or fewer there is no such model.
    """
    alone = table[table["model"].str.endswith(ALONE)].sort_values("weighted_f1", ascending=False)
    streams = tuple(name.removesuffix(ALONE) for name in alone["model"].head(2))
    return (
        [ModelSpec(f"late fusion, {' + '.join(streams)}", "late-logistic", streams=streams)] if len(alone) > 2 else []
    )


def run(
    data: FusionData, specs: Sequence[ModelSpec], settings: FuseSettings, *, groups: Sequence[str]
) -> dict[str, pd.DataFrame]:
    """Cross-validate models on the same folds; finished folds are kept and read again.

    Returns
    -------
    dict
        Model name → predictions, see :func:`ecmf_lib.train.cross_validate`.
    """
    workers = settings.workers or usable_cores()
    runs = {
        spec.name: cross_validate(
            data,
            spec,
            n_folds=settings.folds,
            seeds=range(settings.seed, settings.seed + settings.seeds),
            epochs=settings.epochs,
            groups=groups,
            folder=cache_dir() / "cache",
            workers=workers,
        )
        for spec in specs
    }
    if workers > 1:
        get_reusable_executor().shutdown()  # else the kernel's end kills joblib's processes, and they complain
    return runs


def fit_final(project: Project, data: FusionData, spec: ModelSpec, *, groups: Sequence[str]) -> tuple[Fitted, Path]:
    """One model of all labelled clips, kept for later: safetensors and json, in ``data/models``.

    It has no score of its own, since there are no clips left to score it on: expect the cross-validation's.

    Returns
    -------
    fitted : Fitted
    folder : Path
    """
    settings = project.settings
    fitted = fit(data, spec, seed=settings.seed, epochs=settings.epochs, groups=groups)
    folder = cache_dir() / "models" / f"{project.corpus.name}-{spec.kind}-{project.data_fingerprint}"
    fitted.save(folder)
    return fitted, folder


def fold_table(data: FusionData, groups: Sequence[str], n_folds: int) -> pd.DataFrame:
    """Clips, groups and labels of each outer fold."""
    fold = grouped_folds(data.labels, groups, n_folds)
    rows = []
    for number in np.unique(fold):
        there = fold == number
        counts = {name: int((data.labels[there] == i).sum()) for i, name in enumerate(data.classes)}
        rows.append(
            {"fold": number, "clips": int(there.sum()), "groups": len(set(np.asarray(groups)[there])), **counts}
        )
    return pd.DataFrame(rows)


def best_single(table: pd.DataFrame) -> pd.Series:
    """The best stream alone. Chosen on the scores themselves, so it is flattered."""
    return table[table["model"].str.endswith(ALONE)].sort_values("weighted_f1").iloc[-1]


def with_interval(row: pd.Series) -> str:
    """``.812 [.771, .850]``; without the brackets where there are too few speakers for an interval."""
    score = f"{row['weighted_f1']:.3f}"
    return score if np.isnan(row["low"]) else f"{score} [{row['low']:.3f}, {row['high']:.3f}]"


def verdict(table: pd.DataFrame) -> str:
    """In words, whether ECMF is ahead of each other model, on these data."""
    rows = table.set_index("model")
    lines = [f"ECMF scores {with_interval(rows.loc['ECMF'])}."]
    for name, row in rows.drop(index=["ECMF", MAJORITY]).iterrows():
        ahead = "ahead of" if row["difference"] < 0 else "behind" if row["difference"] > 0 else "level with"
        sure = "too few speakers to test" if np.isnan(row["p_holm"]) else f"corrected p = {row['p_holm']:.3f}"
        doubt = "" if row["p_holm"] < 0.05 else ", which these data cannot tell from 0"
        lines.append(f"It is {ahead} {name} by {abs(row['difference']):.3f}{doubt} ({sure}).")
    return "\n".join(lines)
