"""The study that notebook 03 shows: which models, on which folds, and how their scores read.

Side studies (stress, optimism, learning curve) are in :mod:`ecmf_lib.stress`, :mod:`ecmf_lib.optimism` and
:mod:`ecmf_lib.study_sides`.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from joblib.externals.loky import get_reusable_executor

from ecmf_lib.config import FuseSettings, SettingsError, cache_dir, did_you_mean
from ecmf_lib.members import OFFICIAL, OFFICIAL_EPOCHS
from ecmf_lib.project import Project
from ecmf_lib.review_csv import unguarded_table
from ecmf_lib.samples import FusionData
from ecmf_lib.train import Fitted, ModelSpec, cross_validate_all, fit, outer_folds
from ecmf_lib.workers import usable_cores

# Optuna's bars would be widgets; none are shown, so nobody has to hear that ipywidgets is missing.
warnings.filterwarnings("ignore", message="IProgress not found")

#: Of a results table, what a reader compares.
SHOWN = ["model", "weighted_f1", "low", "high", "macro_f1", "ece", "difference", "difference_low", "difference_high",
         "p_holm", "p_mcnemar_holm"]  # fmt: skip
ALONE = " alone"
MAJORITY = "always the commonest"
REFERENCE = "ECMF"
#: Rival → kind. All get the same recipe and the same search; each is described where it is defined.
RIVALS = {
    "concatenation": "concat",
    "baseline attention": "baseline-attention",
    "LMF": "lmf",
    "TFN": "tfn",
    "gated unit": "gmu",
    "mixture of experts": "moe",
    "MulT": "mult",
}
CLASSICAL = {
    "late fusion": "late-logistic",
    "stacked": "stacked",
    "all features, logistic": "logistic",
    "all features, boosting": "boosting",
}
#: Compared with each other alone: one model each, in place of an ensemble over inner folds.
SINGLE = "ECMF, single model"
OFFICIAL_SINGLE = "official recipe, single model"
OFFICIAL_ENSEMBLE = "official recipe, 5 folds"


@dataclass(frozen=True)
class Study:
    """One corpus's data and how it is scored.

    Attributes
    ----------
    data : FusionData
        At clip level, the groups that folds hold apart as its speakers.
    frames : FusionData or None
        The same clips at frame level; None where no stream has steps.
    unit : str
        What a group is: "speaker", "take" or "clip".
    test_fold : int [n] or None
        A published split.
    settings : FuseSettings
    """

    data: FusionData
    frames: FusionData | None
    unit: str
    test_fold: np.ndarray | None
    settings: FuseSettings

    def seeds(self, side: bool = False) -> range:
        """Seeds of the main study or of the side studies."""
        count = self.settings.side_seeds if side else self.settings.seeds
        return range(self.settings.seed, self.settings.seed + count)

    def straddling(self) -> int:
        """Groups that are in both parts of a published split; 0 without one."""
        if self.test_fold is None:
            return 0
        groups, tested = np.asarray(self.data.speakers), np.asarray(self.test_fold) >= 0
        return len(set(groups[tested]) & set(groups[~tested]))

    def cross_validated(self, data: FusionData, spec: ModelSpec, **how) -> pd.DataFrame:
        """:func:`ecmf_lib.train.cross_validate` on this study's folds; finished folds are kept and read again."""
        return self.cross_validated_all([(data, spec)], **how)[0]

    def cross_validated_all(self, models: Sequence[tuple[FusionData, ModelSpec]], **how) -> list[pd.DataFrame]:
        """The same for many models, whose folds share the processes."""
        settings = self.settings
        return cross_validate_all(
            models,
            **{
                "n_folds": settings.folds,
                "seeds": self.seeds(),
                "epochs": settings.epochs,
                "test_fold": self.test_fold,
                "folder": cache_dir() / "cache",
                "workers": settings.workers or usable_cores(),
            }
            | how,
        )


def open_study(project: Project, settings: FuseSettings) -> tuple[Study, dict[str, str]]:
    """Labelled clips of a project as a study, and the streams that say nothing with the reason.

    Raises
    ------
    SettingsError
        If the settings name a stream that the corpus does not have.
    """
    data, silent = project.samples()
    if settings.streams:
        unknown = sorted(set(settings.streams) - set(data.streams))
        if unknown:
            raise SettingsError(f"streams: no {', '.join(unknown)} here; there are {', '.join(data.streams)}")
        data = data.only(settings.streams)
    groups, unit = project.corpus.groups(data.ids)
    data = replace(data, speakers=groups)
    frames = None
    if settings.steps and any(project.sets[name].level == "frame" for name in data.streams):
        by_time, _ = project.samples(steps=settings.steps)
        frames = replace(by_time.only(data.streams), speakers=groups)
    return Study(data, frames, unit, project.corpus.published_test(data.ids), settings), silent


def models(study: Study) -> list[ModelSpec]:
    """ECMF, its rivals, each stream alone, and guessing; those that the settings name, if they name any."""
    data, trials = study.data, study.settings.trials
    alone = [ModelSpec(stream + ALONE, "logistic", streams=(stream,)) for stream in data.streams]
    fused = [ModelSpec(REFERENCE, "ecmf", trials=trials)]
    rivals = [ModelSpec(name, kind, trials=trials) for name, kind in RIVALS.items()]
    if study.frames is None and "MulT" not in study.settings.fusions:
        rivals = [spec for spec in rivals if spec.kind != "mult"]  # without time it is no more than a dear MLP
    official = replace(official_recipe(study), name=OFFICIAL_ENSEMBLE)
    classical = [ModelSpec(name, kind) for name, kind in CLASSICAL.items()] if len(alone) > 1 else []
    wanted = set(study.settings.fusions)
    known = {*RIVALS, *(spec.name for spec in (official, *classical))}
    if wanted - known - {REFERENCE}:
        unknown = sorted(wanted - known - {REFERENCE})
        meant = did_you_mean(unknown[0], known)
        raise SettingsError(f"fusions: no {', '.join(unknown)}{meant}; choose from {', '.join(sorted(known))}")
    chosen = [spec for spec in (*rivals, official, *classical) if not wanted or spec.name in wanted]
    return [*fused, *chosen, *alone, ModelSpec(MAJORITY, "majority")]


def official_recipe(study: Study) -> ModelSpec:
    """The official baseline's fusion by its own recipe; its 100 epochs are cut only where all are (tests)."""
    epochs = OFFICIAL_EPOCHS if study.settings.epochs >= 10 else study.settings.epochs
    return ModelSpec("official recipe", "baseline-attention", options=dict(OFFICIAL), epochs=epochs)


def singles(study: Study) -> list[ModelSpec]:
    """Like with like: ECMF as one model, and the official baseline's attention as one model by its own recipe."""
    return [
        ModelSpec(SINGLE, "ecmf", options={"members": 1}, trials=study.settings.trials),
        replace(official_recipe(study), name=OFFICIAL_SINGLE, options=OFFICIAL | {"members": 1}),
    ]


def parts(study: Study) -> list[ModelSpec]:
    """ECMF by the fixed recipe, with one part off or otherwise, or without one stream. All without a search."""
    changes = {
        "without self-attention": {"attention": False},
        "static weights, no attention": {"dynamic": False},
        "without residual paths": {"residual": "none", "experts": False},
        "without linear experts": {"experts": False},
        "without streams' classifiers": {"residual": "none"},
        "without losses of the streams' own": {"auxiliary": 0.0},
        "without modality dropout": {"modality_dropout": 0.0},
    } | CHANGES
    specs = [ModelSpec(REFERENCE, "ecmf")]
    specs += [ModelSpec(name, "ecmf", options=options) for name, options in changes.items()]
    specs.append(ModelSpec("linear experts alone", "linear-experts"))
    if study.frames is not None:
        specs.append(ModelSpec(FRAMES, "ecmf"))
    names = list(study.data.streams)
    if len(names) > 1:
        specs += [without(names, name) for name in names]
    if {"global", "face"} < set(names) and len(names) > 3:
        kept = tuple(name for name in names if name not in ("global", "face"))
        specs.append(ModelSpec("without both visual branches", "ecmf", streams=kept))
    return specs


#: What ECMF could be in place of what it is; all other rows of the ablation leave something out.
CHANGES = {
    "originals concatenated": {"residual": "concat"},
    "attended tokens summed": {"sum_attended": True},
    "classes balanced": {"balance": True},
    "labels smoothed by .1": {"label_smoothing": 0.1},
}
FRAMES = "frame level, pooled by attention"


def without(names: Sequence[str], stream: str) -> ModelSpec:
    """ECMF trained without one stream."""
    return ModelSpec(f"without {stream}", "ecmf", streams=tuple(name for name in names if name != stream))


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


def run(study: Study, specs: Sequence[ModelSpec], *, side: bool = False, **how) -> dict[str, pd.DataFrame]:
    """Cross-validate models on the same folds. What looks at time gets the clips at frame level, where there are any.

    Parameters
    ----------
    side : bool
        With the seeds of the side studies.
    **how
        As in :func:`ecmf_lib.train.cross_validate`.

    Returns
    -------
    dict
        Model name → predictions.
    """
    models = [(_level(study, spec), spec) for spec in specs]
    tables = study.cross_validated_all(models, seeds=study.seeds(side), **how) if models else []
    return {spec.name: table for spec, table in zip(specs, tables, strict=True)}


def _level(study: Study, spec: ModelSpec) -> FusionData:
    by_time = study.frames is not None and (spec.kind == "mult" or spec.name == FRAMES)
    return study.frames if by_time else study.data


def close_workers() -> None:
    """End joblib's processes: else the kernel's end kills them, and they complain."""
    get_reusable_executor().shutdown()


def fit_final(project: Project, study: Study, spec: ModelSpec) -> tuple[Fitted, Path]:
    """One model of all labelled clips, kept for later: safetensors and json, in ``data/models``.

    It has no score of its own, since there are no clips left to score it on: expect the cross-validation's.

    Returns
    -------
    fitted : Fitted
    folder : Path
    """
    fitted = fit(study.data, spec, seed=study.settings.seed, epochs=study.settings.epochs)
    about = json.dumps(
        [spec.about(), list(study.data.streams), study.settings.seed, study.settings.epochs], sort_keys=True
    )
    made = hashlib.sha256(about.encode()).hexdigest()[:8]
    folder = cache_dir() / "models" / f"{project.corpus.name}-{spec.kind}-{project.data_fingerprint}-{made}"
    fitted.save(folder)
    return fitted, folder


def fold_table(study: Study) -> pd.DataFrame:
    """Clips, groups and labels of each outer fold of the first seed; fold "train" is never scored."""
    data = study.data
    fold = outer_folds(data, data.speakers, study.settings.folds, study.settings.seed, study.test_fold)
    rows = []
    for number in np.unique(fold):
        there = fold == number
        counts = {name: int((data.labels[there] == i).sum()) for i, name in enumerate(data.classes)}
        groups = len(set(np.asarray(data.speakers)[there]))
        name = "train" if number < 0 else str(number)
        rows.append({"fold": name, "clips": int(there.sum()), "groups": groups, **counts})
    return pd.DataFrame(rows)


def best_single(table: pd.DataFrame) -> pd.Series:
    """The best stream alone. Chosen on the scores themselves, so it is flattered."""
    return table[table["model"].str.endswith(ALONE)].sort_values("weighted_f1").iloc[-1]


def with_interval(row: pd.Series) -> str:
    """``.812 [.771, .850]``; without the brackets where there are too few speakers for an interval."""
    score = f"{row['weighted_f1']:.3f}"
    return score if np.isnan(row["low"]) else f"{score} [{row['low']:.3f}, {row['high']:.3f}]"


def verdict(table: pd.DataFrame, reference: str = REFERENCE) -> str:
    """In words, whether the reference is ahead of each other model, on these data."""
    rows = table.set_index("model")
    lines = [f"{reference} scores {with_interval(rows.loc[reference])}."]
    for name, row in rows.drop(index=[reference, MAJORITY], errors="ignore").iterrows():
        ahead = "ahead of" if row["difference"] < 0 else "behind" if row["difference"] > 0 else "level with"
        sure = "too few speakers to test" if np.isnan(row["p_holm"]) else f"corrected p = {row['p_holm']:.3f}"
        doubt = "" if row["p_holm"] < 0.05 else ", which these data cannot tell from 0"
        lines.append(f"It is {ahead} {name} by {abs(row['difference']):.3f}{doubt} ({sure}).")
    return "\n".join(lines)


def no_gain(table: pd.DataFrame, reference: str = REFERENCE) -> pd.DataFrame:
    """What did not help: parts whose absence costs nothing, and changes that bring nothing, that can be told from 0."""
    rows = table[table["model"] != reference].assign(kind="part left out")
    changed = rows["model"].isin([*CHANGES, FRAMES])
    rows.loc[changed, "kind"] = "change"
    helped = (rows["difference_high"] < 0).where(~changed, rows["difference_low"] > 0)
    columns = ["model", "kind", "weighted_f1", "difference", "difference_low", "difference_high"]
    return rows.loc[~helped & (rows["model"] != "linear experts alone"), columns]


def across_corpora(output: Path, here: pd.DataFrame, name: str) -> pd.DataFrame:
    """Scores of this run and of the runs that lie beside it, for ``plots.main_table``.

    Parameters
    ----------
    output : Path
        This run's folder, ``reports/<run>``.
    here : DataFrame
        This run's results table.
    name : str
        This corpus.
    """
    tables = {name: here.assign(corpus=name)}
    for run, path in beside(output).items():
        table = unguarded_table(pd.read_csv(path))
        corpus = table["corpus"].iloc[0] if "corpus" in table else run
        tables.setdefault(corpus, table.assign(corpus=corpus))
    columns = ["corpus", "model", "weighted_f1", "low", "high"]
    whole = pd.concat([table[columns] for table in tables.values()], ignore_index=True)
    fused = [REFERENCE, *RIVALS, OFFICIAL_ENSEMBLE, *CLASSICAL]
    return whole[whole["model"].isin(fused)].reset_index(drop=True)


def beside(output: Path) -> dict[str, Path]:
    """Run → its table of scores, of runs beside this one and of those kept in ``reports/scores``, in order of name."""
    found = {path.stem: path for path in (output.parent / "scores").glob("*.csv")}
    for path in output.parent.glob("*/tables/03_fuse_and_ablate/scores.csv"):
        if path.parents[2].resolve() != output.resolve():
            found[path.parents[2].name] = path
    return dict(sorted(found.items()))
