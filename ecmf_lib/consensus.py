"""Consensus of label sources: several published methods behind one interface.

Every method takes the same sources and gives class chances for each clip and a quality for each source.

* ``em``: expectation-maximisation over people's confusions, with the classifier as each clip's prior (Raykar et al.,
  JMLR 2010). Our default, with models that are fitted again without doubted clips (:mod:`ecmf_lib.refine`):
  docs/findings.md has the measurements.
* ``crowdlab``: CROWDLAB (Goh et al. 2022), by cleanlab.
* ``confident-learning``: the confident joint (Northcutt et al., JAIR 2021), by cleanlab; it knows the given label and
  one classifier.
* ``dawid-skene``: Dawid & Skene 1979, by crowd-kit; no classifier, every source is an annotator.
* ``majority`` and ``weighted``: votes, each as 1 or by how often the source agrees with the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from ecmf_lib.sources import FUSION, Source, by_family, shares

#: Pseudo-counts of a person's confusions: so many right answers and errors are assumed in each class beforehand.
RIGHT_BEFOREHAND, WRONG_BEFOREHAND = 5.0, 0.1
EM_STEPS = 50


@dataclass(frozen=True, eq=False)
class Consensus:
    """What the sources say together.

    Attributes
    ----------
    method : str
    chances : float64 [n, classes]
        Rows sum to 1; NaN in the whole row where every source abstains.
    quality : dict of str to float
        Source (or family) → 0–1: its estimated accuracy (em, dawid-skene, crowdlab) or its agreement with the others.
    """

    method: str
    chances: np.ndarray
    quality: dict[str, float]

    @property
    def labels(self) -> np.ndarray:
        """Most likely class: int64 [n], -1 where every source abstains."""
        silent = np.isnan(self.chances).any(1)
        return np.where(silent, -1, np.nan_to_num(self.chances).argmax(1))


def consensus(sources: Sequence[Source], people: Sequence[str], method: str = "em") -> Consensus:
    """Combine sources.

    Parameters
    ----------
    sources : sequence of Source
        Of the same clips. One named :data:`ecmf_lib.sources.FUSION` is the classifier of all streams.
    people : sequence of str
        Names of those that are people (or speak like people: a language model, a csv), whose confusions are estimated.
    method : str
        One of :data:`METHODS`.

    Raises
    ------
    ValueError
        Unknown method, no source, two sources of one name, or sources of different clips.
    """
    if method not in METHODS:
        raise ValueError(f"no consensus method '{method}'; choose from {', '.join(METHODS)}")
    if not sources:
        raise ValueError("a consensus needs at least one source")
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two sources are called '{twice}'; rename one (a csv is called by its file name)")
    shapes = {source.name: source.chances.shape for source in sources}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"sources are of different clips or classes: {shapes}")
    with threadpool_limits(1):
        chances, quality = METHODS[method](sources, set(people))
    return Consensus(method, chances, quality)


def _em(sources: Sequence[Source], people: set[str]) -> tuple[np.ndarray, dict[str, float]]:
    """p(class | clip, votes) ∝ p(class | clip) by the classifier × what each voter's confusions say."""
    shape = sources[0].chances.shape
    classifier = [source for source in sources if source.name == FUSION]
    prior = np.nan_to_num(classifier[0].chances, nan=1 / shape[1]) if classifier else np.full(shape, 1 / shape[1])
    voters = [source for source in sources if source.name in people]
    if not classifier:  # without one, every source is a voter
        voters = [source for source in sources if source.name != FUSION]
    prior = np.maximum(prior, 1e-6)
    share = {name: 1 / sum(v.family == name for v in voters) for name in {v.family for v in voters}}
    told = [np.nan_to_num(voter.chances) for voter in voters]
    matrices = [np.eye(shape[1]) * 0.9 + 0.1 / shape[1] for _ in voters]
    chances = prior / prior.sum(1, keepdims=True)
    for _ in range(EM_STEPS if voters else 0):
        log = np.log(prior)
        for voter, votes, matrix in zip(voters, told, matrices, strict=True):
            log += share[voter.family] * np.where(voter.speaks[:, None], np.log(votes @ matrix.T + 1e-12), 0)
        chances = np.exp(log - log.max(1, keepdims=True))
        chances /= chances.sum(1, keepdims=True)
        before = np.eye(shape[1]) * RIGHT_BEFOREHAND + WRONG_BEFOREHAND
        counts = [chances.T @ votes + before for votes in told]
        matrices = [found / found.sum(1, keepdims=True) for found in counts]
    heard = np.any([source.speaks for source in sources], axis=0)
    quality = {}
    for voter, matrix in zip(voters, matrices, strict=True):
        common = chances[voter.speaks].mean(0) if voter.speaks.any() else np.full(shape[1], 1 / shape[1])
        quality[voter.name] = float((np.diag(matrix) * common).sum())
    rest = [source for source in sources if source.name not in quality]
    return np.where(heard[:, None], chances, np.nan), quality | {s.name: _agreement(s, chances) for s in rest}


def _agreement(source: Source, chances: np.ndarray) -> float:
    """Mean chance that the consensus gives to what a source says; NaN if it says nothing."""
    rows = np.flatnonzero(source.speaks)
    return float(np.nanmean(chances[rows, source.says[rows]])) if len(rows) else float("nan")


def _crowdlab(sources: Sequence[Source], people: set[str]) -> tuple[np.ndarray, dict[str, float]]:
    from cleanlab.multiannotator import get_label_quality_multiannotator

    voters, classifier = _voters(sources)
    n, classes = sources[0].chances.shape
    model = classifier.chances if classifier else np.full((n, classes), 1 / classes)
    model = np.nan_to_num(model, nan=1 / classes)
    votes = np.stack([np.where(voter.speaks, voter.says, np.nan) for voter in voters], axis=1).astype(float)
    heard = ~np.isnan(votes).all(1)
    several = (~np.isnan(votes)).sum(1) > 1
    out = np.where(heard[:, None], model, np.nan)
    if not several.any():  # CROWDLAB weighs annotators by how they agree; with one voice there is nothing to weigh
        told = np.nan_to_num(votes).max(1).astype(int)  # each clip's only voice, whoever's it is
        out = np.where(heard[:, None], (model + np.eye(classes)[told]) / 2, np.nan)
        return out, {source.name: _agreement(source, out) for source in sources}
    spoken = (~np.isnan(votes)).any(0)  # cleanlab refuses an annotator who never speaks
    table = pd.DataFrame(votes[np.ix_(heard, spoken)])
    with _numpy_seeded():
        found = get_label_quality_multiannotator(table, model[heard], verbose=False, return_weights=True)
    quality = found["annotator_stats"]["annotator_quality"].reindex(range(spoken.sum())).to_numpy()
    agreement = found["label_quality"]["annotator_agreement"].to_numpy()[several[heard]].mean()
    weights, own = np.asarray(found["annotator_weight"]), float(found["model_weight"])
    # cleanlab tells the posterior of the consensus label only; the others by its formula and its weights.
    agreed = np.clip(agreement, 1 / classes, 1)
    told = np.nan_to_num(votes[:, spoken]).astype(int)
    likely = np.full((*told.shape, classes), (1 - agreed) / max(classes - 1, 1))
    np.put_along_axis(likely, told[..., None], agreed, axis=2)
    counted = (~np.isnan(votes[:, spoken])) * weights
    total = own + counted.sum(1, keepdims=True)
    chances = (own * model + (likely * counted[..., None]).sum(1)) / np.maximum(total, 1e-12)
    named = dict(zip([v.name for v, s in zip(voters, spoken, strict=True) if s], quality, strict=True))
    chances = np.where(heard[:, None], chances / chances.sum(1, keepdims=True), out)
    if classifier:
        named[FUSION] = _agreement(classifier, chances)
    return chances, {name: float(value) for name, value in named.items()}


@contextmanager
def _numpy_seeded() -> Iterator[None]:
    """cleanlab breaks ties by numpy's global generator: seeded here, and afterwards as it was."""
    before = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(before)


def _confident(sources: Sequence[Source], people: set[str]) -> tuple[np.ndarray, dict[str, float]]:
    given, classifier = _given(sources, people), _classifier(sources)
    chances = np.where(given.speaks[:, None], np.nan_to_num(given.chances), classifier.chances)
    flagged = confident_issues(given.says, classifier.chances)
    chances[flagged] = classifier.chances[flagged]
    heard = max(given.speaks.sum(), 1)
    return chances, {given.name: float(1 - flagged.sum() / heard), FUSION: _agreement(classifier, chances)}


def confident_issues(labels: np.ndarray, chances: np.ndarray) -> np.ndarray:
    """Labels that confident learning takes for wrong (Northcutt et al. 2021, pruning by noise rate): bool [n].

    Parameters
    ----------
    labels : int [n]
        -1 where there is none; such a clip is never flagged.
    chances : float [n, classes]
        Out of fold.
    """
    from cleanlab.filter import find_label_issues

    flagged = np.zeros(len(labels), bool)
    rows = np.flatnonzero(labels >= 0)
    seen = np.unique(labels[rows])
    if len(seen) < 2:
        return flagged
    number = np.searchsorted(seen, labels[rows])  # cleanlab wants every class among the labels
    narrowed = chances[np.ix_(rows, seen)] + 1e-9
    narrowed /= narrowed.sum(1, keepdims=True)
    flagged[rows] = find_label_issues(number, narrowed, filter_by="prune_by_noise_rate", n_jobs=1)
    return flagged


def _dawid_skene(sources: Sequence[Source], people: set[str]) -> tuple[np.ndarray, dict[str, float]]:
    from crowdkit.aggregation import DawidSkene

    voters, _ = _voters(sources)
    n, classes = sources[0].chances.shape
    parts = [
        pd.DataFrame({"task": np.flatnonzero(v.speaks), "worker": v.name, "label": v.says[v.speaks]}) for v in voters
    ]
    table = pd.concat(parts, ignore_index=True)
    if table.empty:
        return np.full((n, classes), np.nan), {v.name: float("nan") for v in voters}
    found = DawidSkene(n_iter=EM_STEPS).fit(table).probas_
    chances = found.reindex(index=range(n), columns=range(classes)).to_numpy(dtype=float)
    chances = shares(np.nan_to_num(chances))
    return chances, {v.name: _agreement(v, chances) for v in voters}


def _majority(sources: Sequence[Source], people: set[str]) -> tuple[np.ndarray, dict[str, float]]:
    voters, _ = _voters(sources)
    return _vote(voters, np.ones(len(voters)))


def _weighted(sources: Sequence[Source], people: set[str]) -> tuple[np.ndarray, dict[str, float]]:
    """Each source counts by how often it agrees with the others, beyond chance."""
    voters, _ = _voters(sources)
    classes = sources[0].chances.shape[1]
    agreement = []
    for voter in voters:
        pairs = [
            (voter.says == other.says)[both].mean()
            for other in voters
            if other is not voter and (both := voter.speaks & other.speaks).any()
        ]
        agreement.append(np.mean(pairs) if pairs else 1.0)
    return _vote(voters, np.maximum(np.asarray(agreement) - 1 / classes, 1e-3))


def _vote(voters: Sequence[Source], weights: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """Votes of the families as shares; a tie goes to the source that comes first: people come before models."""
    votes = np.zeros_like(voters[0].chances)
    for place, (voter, weight) in enumerate(zip(voters, weights, strict=True)):
        rows = np.flatnonzero(voter.speaks)
        votes[rows, voter.says[rows]] += weight * (1 + 1e-6 / (1 + place))
    chances = shares(votes)
    return chances, {voter.name: _agreement(voter, chances) for voter in voters}


def _voters(sources: Sequence[Source]) -> tuple[list[Source], Source | None]:
    """One voter a family, without the classifier of all streams; and that classifier."""
    families = by_family([source for source in sources if source.name != FUSION])
    return list(families.values()), next((source for source in sources if source.name == FUSION), None)


def _classifier(sources: Sequence[Source]) -> Source:
    for source in sources:
        if source.name == FUSION:
            return source
    merged = by_family(sources)
    chances = np.nanmean([source.chances for source in merged.values()], axis=0)
    return Source(FUSION, FUSION, chances)


def _given(sources: Sequence[Source], people: set[str]) -> Source:
    """People's label, by majority of their families where there are several."""
    voters = list(by_family([source for source in sources if source.name in people]).values())
    if not voters:
        raise ValueError("confident learning needs a given label; none of the sources is a person")
    chances, _ = _vote(voters, np.ones(len(voters)))
    labels = np.where(np.isnan(chances).any(1), -1, np.nan_to_num(chances).argmax(1))
    hard = np.where((labels >= 0)[:, None], np.eye(chances.shape[1])[labels], np.nan)
    return Source("given", "given", hard)


METHODS: dict[str, Callable] = {
    "em": _em,
    "crowdlab": _crowdlab,
    "confident-learning": _confident,
    "dawid-skene": _dawid_skene,
    "majority": _majority,
    "weighted": _weighted,
}
