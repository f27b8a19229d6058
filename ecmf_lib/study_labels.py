"""Who speaks of a project's clips, and whether listening to them helps: given, refined and self-trained labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import cohen_kappa_score

from ecmf_lib.audit import read_review
from ecmf_lib.config import SettingsError, cache_dir, resolve
from ecmf_lib.consensus import METHODS, consensus
from ecmf_lib.fit import ModelSpec
from ecmf_lib.project import Project
from ecmf_lib.refine import Refined, Refiner
from ecmf_lib.samples import FusionData
from ecmf_lib.self_training import CODE, Rounds, SelfTrainer, self_train
from ecmf_lib.sources import FAMILY_OF, FUSION, Source, language_model, people, read_source
from ecmf_lib.study import REFERENCE, Study
from ecmf_lib.study_clips import middle_frame
from ecmf_lib.train import Preparation, fold_seed, outer_folds


def voters_of(project: Project, ids: Sequence[str], csvs: Sequence[str] = ()) -> list[Source]:
    """Everybody but the models who speaks of these clips: annotators or the given label, a language model, csv files.

    Parameters
    ----------
    csvs : sequence of str
        Files of :func:`ecmf_lib.sources.read_source`; a stream's name and ``=`` before a path say that it looks at that
        stream only: ``text=scores.csv``.
    """
    clips = project.corpus.clips.set_index("id", drop=False).loc[list(ids)]
    found = people(clips, project.corpus.classes)
    found += language_model(project.enriched, ids, project.corpus.classes)
    for entry in csvs:
        family, sign, path = entry.partition("=")
        if not sign:
            family, path = "", entry
        elif family not in project.sets:
            if not resolve(entry).is_file():
                there = ", ".join(project.sets)
                raise SettingsError(f"sources: '{entry}': no stream '{family}'; there are {there}")
            family, path = "", entry  # a path with such a sign in it
        stem = Path(path).stem
        if stem in {source.name for source in found} | set(project.sets) | {FUSION}:
            raise SettingsError(f"sources: '{entry}': there is a source '{stem}' already; rename the file")
        family = FAMILY_OF.get(family, family)
        found.append(read_source(resolve(path), ids, project.corpus.classes, family))
    return found


def pairwise_agreement(voters: Sequence[Source]) -> pd.DataFrame:
    """Cohen's kappa of every two sources on the clips that both speak of: source, other, clips, agreement, kappa."""
    rows = []
    for one, other in combinations(voters, 2):
        both = one.speaks & other.speaks
        if not both.any():
            continue
        a, b = one.says[both], other.says[both]
        kappa = cohen_kappa_score(a, b) if len(set(a) | set(b)) > 1 else np.nan
        rows.append(
            {
                "source": one.name,
                "other": other.name,
                "clips": int(both.sum()),
                "agreement": (a == b).mean(),
                "kappa": kappa,
            }
        )
    return pd.DataFrame(rows, columns=["source", "other", "clips", "agreement", "kappa"])


def joint(refined: Refined) -> pd.DataFrame:
    """How many clips of each given label the consensus thinks are of each class, in expectation: given × consensus.

    The confident joint of Northcutt et al. (2021), with the consensus's chances in place of counts above thresholds.
    """
    hot = np.eye(len(refined.classes))[refined.given]
    chances = np.where(np.isnan(refined.found.chances), hot, refined.found.chances)
    return pd.DataFrame(hot.T @ chances, index=list(refined.classes), columns=list(refined.classes))


def methods_compared(
    data: FusionData, refined: Refined, voters: Sequence[Source], true: np.ndarray | None
) -> pd.DataFrame:
    """Every consensus method on the very same predictions: how many labels it would change, and how many are wrong.

    Parameters
    ----------
    refined : Refined
        Its sources are heard.
    true : int [n] or None
        Where it is known: `error` is the share of wrong labels, `given_error` that of the given ones.
    """
    rows = []
    for method in METHODS:
        said = consensus(refined.sources, [voter.name for voter in voters], method).labels
        said = np.where(said < 0, data.labels, said)
        row = {"method": method, "changed": float((said != data.labels).mean())}
        if true is not None:
            row |= {"error": float((said != true).mean()), "given_error": float((data.labels != true).mean())}
        rows.append(row)
    return pd.DataFrame(rows)


def against_truth(audit: pd.DataFrame, truth: pd.Series) -> pd.DataFrame:
    """Refined labels where the truth is known: one row.

    Parameters
    ----------
    audit : DataFrame
        Of :meth:`ecmf_lib.refine.Refined.audit`.
    truth : Series
        True class by clip id.

    Returns
    -------
    DataFrame
        clips, given_error, refined_error (shares of wrong labels), kept_error (of the clips that training keeps),
        flagged, precision and recall (of the flags: given labels that were not kept, among those that are wrong).
    """
    true = truth.loc[audit["id"]].to_numpy()
    confirmed = (audit["action"] == "human") & (audit["refined"] == audit["given"]) & (audit["weight"] > 0)
    wrong, flagged = (audit["given"] != true).to_numpy(), ((audit["action"] != "keep") & ~confirmed).to_numpy()
    kept = (audit["weight"] > 0).to_numpy()
    return pd.DataFrame(
        [
            {
                "clips": len(audit),
                "given_error": wrong.mean(),
                "refined_error": (audit["refined"] != true).mean(),
                "kept_error": (audit["refined"] != true)[kept].mean(),
                "flagged": int(flagged.sum()),
                "precision": wrong[flagged].mean() if flagged.any() else np.nan,
                "recall": flagged[wrong].mean() if wrong.any() else np.nan,
            }
        ]
    )


def unlabelled_of(project: Project, data: FusionData) -> FusionData | None:
    """Unlabelled clips with at least one of the streams of `data`, for self-training; None without any."""
    done = set(project.ledger.loc[project.ledger["status"] == "done", "id"])
    clips = project.corpus.clips
    clips = clips[(clips["split"] == "unlabelled") & clips["id"].isin(done)]
    if clips.empty:
        return None
    sets = {name: project.sets[name] for name in data.streams}
    found = FusionData.without_labels(clips, sets, project.corpus.classes)
    _, unit = project.corpus.groups(data.ids)  # the unlabelled clips' groups must be of the same kind
    known = clips["id"] if unit == "clip" else clips[unit].where(clips[unit] != "", "clip:" + clips["id"])
    found = replace(found, speakers=known.tolist())
    heard = found.mask().any(1)
    return found.select(heard) if heard.any() else None


#: What training labels can be, in the order of the arms.
GIVEN, REFINED, SELF_TRAINED = LABELS = ("given labels", "refined labels", "refined + self-training")


def label_steps(
    study: Study,
    project: Project,
    csvs: Sequence[str] = (),
    review: str = "",
    method: str = "em",
    wanted: Sequence[str] = LABELS,
) -> dict[str, Preparation | None]:
    """What is done to a training part for each kind of labels; without unlabelled clips there is no self-training.

    Parameters
    ----------
    csvs : sequence of str
        As :func:`voters_of`.
    review : str
        A csv of a human's decisions (:func:`ecmf_lib.audit.read_review`), or "".
    wanted : sequence of str
        Unlabelled clips are gathered only if self-training is among them: at challenge size they are 1.4 GB.
    """
    data = study.data
    decisions: tuple = ()
    if review:
        found = read_review(resolve(review), data.ids, data.classes)
        decisions = tuple(zip(found["id"], found["decision"], strict=True))
    voters = tuple(voters_of(project, data.ids, csvs))
    refiner = Refiner(voters, tuple(data.ids), method=method, decisions=decisions)
    steps: dict[str, Preparation | None] = {GIVEN: None, REFINED: refiner}
    others = unlabelled_of(project, data) if SELF_TRAINED in wanted else None
    if others is not None:
        steps[SELF_TRAINED] = SelfTrainer(others, tuple(data.speakers), refiner, folder=cache_dir() / "cache")
    return steps


def label_arms(study: Study, project: Project, **how) -> dict[str, pd.DataFrame]:
    """ECMF trained on given labels, on refined ones, and on refined ones with self-training: arm → predictions.

    All by the fixed recipe, on the folds of :func:`ecmf_lib.study.parts`, scored against the given labels. `how` as in
    :func:`label_steps`.
    """
    runs = {}
    for labels, step in label_steps(study, project, **how).items():
        # Without a step it is the very model of the table of parts: its folds are read again.
        found = study.cross_validated(study.data, ModelSpec(REFERENCE, "ecmf"), prepare=step)
        runs[f"{REFERENCE}, {labels}"] = found.assign(model=f"{REFERENCE}, {labels}")
    return runs


def hidden_labels(
    study: Study, share: float = 0.8, *, rounds: Rounds | None = None, spec: ModelSpec | None = None
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """What self-training wins where most labels are hidden: (arm → predictions, rounds of one fold).

    In each training part `share` of the clips, drawn at random, lose their label.
    """
    spec = spec or ModelSpec(REFERENCE, "ecmf")
    runs = {}
    steps = {
        f"{1 - share:.0%} of the labels": Hidden(share, None),
        "the same + self-training": Hidden(share, rounds or Rounds()),
        "all labels": None,
    }
    for arm, step in steps.items():
        runs[arm] = study.cross_validated(study.data, spec, seeds=study.seeds(side=True), prepare=step).assign(
            model=arm
        )
    data, seed = study.data, study.settings.seed
    fold = outer_folds(data, data.speakers, study.settings.folds, seed, study.test_fold)
    last = int(fold.max())
    part, groups, own = data.select(fold != last), np.asarray(data.speakers)[fold != last], fold_seed(seed, last)
    few, apart, rest = Hidden(share, None).split(part, groups, own)
    trained = self_train(few, apart, rest, seed=own, rounds=rounds, trap=True)
    return runs, trained.rounds


@dataclass(frozen=True)
class Hidden:
    """Hides the labels of a share of the training clips; with `rounds`, self-training gets those clips back."""

    share: float
    rounds: Rounds | None

    def split(self, part: FusionData, groups: np.ndarray, seed: int) -> tuple[FusionData, np.ndarray, FusionData]:
        """Clips that keep their label, their groups, and the others without one."""
        order = np.random.default_rng([seed, 8]).permutation(len(part))
        hidden, kept = np.sort(order[: round(self.share * len(part))]), np.sort(order[round(self.share * len(part)) :])
        rest = part.select(hidden)
        nothing = np.zeros(len(hidden))
        rest = replace(rest, labels=nothing.astype(np.int64), soft=None, weight=nothing, speakers=list(groups[hidden]))
        return part.select(kept), groups[kept], rest

    def __call__(self, part: FusionData, groups: np.ndarray, *, seed: int, epochs: int):
        """The clips that keep their label, with pseudo-labelled ones behind them where there are rounds."""
        few, apart, rest = self.split(part, np.asarray(groups), seed)
        if self.rounds is None:
            return few, apart
        return SelfTrainer(rest, (), None, self.rounds)(few, apart, seed=seed, epochs=epochs)

    def about(self) -> list:
        """What a result depends on."""
        return ["hidden", 1, self.share, [asdict(self.rounds), CODE] if self.rounds else []]


def pictures_and_words(project: Project, ids: Sequence[str]) -> tuple[list[np.ndarray | None], list[str]]:
    """The middle frame (None without a picture) and the transcript of clips, in their order."""
    clips = [project.corpus.clip(clip_id) for clip_id in ids]
    return [middle_frame(clip) for clip in clips], [clip.transcript for clip in clips]


#: Component of the paper → the row of the table of parts that does without it.
COMPONENTS = {
    "dual-branch visual encoder": "without both visual branches",
    "whole frames": "without global",
    "faces": "without face",
    "audio": "without audio",
    "context-enriched text": "without enrichment",
    "self-attention, dynamic weights": "static weights, no attention",
    "residual connections": "without residual paths",
}


def components(ablation: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """What each component of the paper adds here, in weighted F1: component, contribution, low, high, measured_as.

    Parameters
    ----------
    ablation : DataFrame
        Results of :func:`ecmf_lib.study.parts`, against ECMF.
    labels : DataFrame
        Results of :func:`label_arms`, against the arm of the given labels.
    """
    rows, known = [], ablation.set_index("model")
    for component, row in COMPONENTS.items():
        if row in known.index:
            found = known.loc[row]
            rows.append((component, -found["difference"], -found["difference_high"], -found["difference_low"], row))
    arms = labels.set_index("model")
    for component, arm in (("label refinement", REFINED), ("… with self-training", SELF_TRAINED)):
        if f"{REFERENCE}, {arm}" in arms.index:
            found = arms.loc[f"{REFERENCE}, {arm}"]
            rows.append((component, found["difference"], found["difference_low"], found["difference_high"], arm))
    return pd.DataFrame(rows, columns=["component", "contribution", "low", "high", "measured_as"])
