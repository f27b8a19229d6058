"""Clips without a label: self-training in rounds, with an honest score to say when to stop.

Each round, models fitted on what is labelled so far judge the unlabelled clips. A clip is taken where the calibrated
fusion is sure and independent streams agree; every class gets its share, the surest first. Pseudo-labels flatter: the
score on themselves rises while new speakers gain little (MR-CCL, MER2024, saw 79 → 89 against 86.7 → 87.1). So rounds
are counted on inner folds, against given labels of clips that no pseudo-label has seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score
from threadpoolctl import threadpool_limits

from ecmf_lib import sources as sources_module
from ecmf_lib.evaluate import interval
from ecmf_lib.kept_rounds import KeptRounds, Round
from ecmf_lib.refine import Refiner
from ecmf_lib.samples import DataError, FusionData, inner_folds
from ecmf_lib.sources import FUSION, Judges, Source, by_family, models

#: Folds on which a round's models set their temperature and how much each stream counts.
INNER = 3
#: To choose the number of rounds, so many unlabelled clips are enough; more would only take longer.
PROBED = 20_000


@dataclass(frozen=True)
class Rounds:
    """How self-training goes.

    Attributes
    ----------
    most : int
        Rounds at most; how many are used is chosen on inner folds, and may be none.
    share : float
        Of the unlabelled clips, so many may have a label after the last round; earlier rounds get evenly less.
    times : float
        Never more than so many pseudo-labelled clips for each labelled one: beyond that they would drown the labels
        (and, at challenge size, fill the memory).
    families : int
        So many independent streams must name the fusion's class (fewer where a clip has fewer).
    confidence : float
        The fusion's calibrated chance must be this at least, in every class.
    weight : float
        What a pseudo-labelled clip counts beside a labelled one.
    """

    most: int = 4
    share: float = 0.6
    times: float = 3.0
    families: int = 2
    confidence: float = 0.5
    weight: float = 0.5


@dataclass(frozen=True, eq=False)
class SelfTrained:
    """What came of self-training.

    Attributes
    ----------
    data : FusionData
        The labelled clips as they were, then the pseudo-labelled ones of the chosen round.
    groups : list of str
        Of `data`.
    labelled : int
        So many of them are labelled clips.
    rounds : DataFrame
        round (0: labelled only), added (clips with a pseudo-label), honest, honest_low, honest_high (weighted F1 on
        inner folds, given labels), trap (weighted F1 out of fold on the training set's own labels, pseudo ones
        included), chosen (bool).
    """

    data: FusionData
    groups: list[str]
    labelled: int
    rounds: pd.DataFrame

    @property
    def pseudo(self) -> pd.DataFrame:
        """Clips that got a label: id, label, weight."""
        rows = range(self.labelled, len(self.data))
        names = np.array(self.data.classes)[self.data.labels[self.labelled :]]
        weight = [float(self.data.weight[i]) for i in rows]
        return pd.DataFrame({"id": [self.data.ids[i] for i in rows], "label": names, "weight": weight})


def self_train(
    data: FusionData,
    groups: Sequence[str],
    unlabelled: FusionData,
    *,
    seed: int = 0,
    rounds: Rounds | None = None,
    trap: bool = False,
    folder: Path | None = None,
) -> SelfTrained:
    """Add unlabelled clips to a training part.

    With a folder it can be stopped at any moment and in any way; called again, it goes on behind the last whole round,
    and its result is that of a run that nobody disturbed.

    Parameters
    ----------
    data : FusionData
        Training part, perhaps refined (its targets and weights are learned from; `labels` are scored against).
    groups : sequence of str
    unlabelled : FusionData
        Clips of :meth:`ecmf_lib.samples.FusionData.without_labels`, with the same streams.
    trap : bool
        Also measure the score on the training set's own labels: more time, for showing.
    folder : Path, optional
        Finished rounds are kept here and read again, as long as data, settings and code are the same.
    """
    rounds = rounds or Rounds()
    groups = np.asarray(groups)
    unlabelled = unlabelled.only(data.streams)
    kept_rounds = KeptRounds(None, "")
    if folder is not None:  # a fingerprint reads all features, gigabytes of them
        asked = [groups.tolist(), unlabelled.fingerprint(), seed, asdict(rounds)]
        kept_rounds = KeptRounds.of(folder, data, asked)
    honest = _honest_rounds(data, groups, unlabelled, seed, rounds, kept_rounds)
    scores = [found["honest"] for found in honest]
    chosen = 0
    while chosen + 1 < len(scores) and scores[chosen + 1] > scores[chosen]:
        chosen += 1  # stops when the honest score stops rising
    current, apart, kept, table = data, groups.tolist(), None, []
    for turn in range(len(scores)):
        if turn:
            found = kept_rounds.read("all", turn)
            if found is None:
                judge = Judges.fit(current, apart, seed=seed + turn, inner=INNER)
                found = kept_rounds.write("all", turn, _chosen(data, unlabelled, judge, turn, rounds))
            current, apart = _with_pseudo(data, groups, unlabelled, found, rounds)
        row = honest[turn] | {"round": turn, "added": len(current) - len(data), "chosen": turn == chosen}
        row["trap"] = _trap(current, apart, seed) if trap else np.nan
        table.append(row)
        if turn == chosen:
            kept = current, apart
        if turn >= chosen and not trap:
            break
    columns = ["round", "added", "honest", "honest_low", "honest_high", "trap", "chosen"]
    return SelfTrained(kept[0], kept[1], len(data), pd.DataFrame(table)[columns])


def _chosen(data: FusionData, unlabelled: FusionData, judge: Judges, turn: int, rounds: Rounds) -> Round:
    """One round: models of the current set judge the unlabelled clips anew; earlier pseudo-labels are not binding."""
    prior = data.targets().sum(0)
    share = min(rounds.share, rounds.times * len(data) / len(unlabelled))
    judged = judge.sources(unlabelled)
    return Round(*choose(judged, prior / max(prior.sum(), 1e-9), turn / rounds.most * share, rounds))


def _with_pseudo(data, groups, unlabelled, found: Round, rounds: Rounds) -> tuple[FusionData, list[str]]:
    """The training part with the clips of a round behind it, and the groups of all."""
    rows, labels = found.rows, found.labels
    if not len(rows):
        return data, groups.tolist()
    taken = unlabelled.select(rows)
    weight = np.full(len(rows), rounds.weight, np.float32)
    taken = replace(taken, labels=labels, soft=np.eye(len(data.classes), dtype=np.float32)[labels], weight=weight)
    return data.joined(taken), [*groups.tolist(), *taken.speakers]


def choose(sources: Sequence[Source], prior: np.ndarray, share: float, rounds: Rounds) -> tuple[np.ndarray, np.ndarray]:
    """Which unlabelled clips get which label: rows int [k] in order, labels int64 [k].

    Parameters
    ----------
    sources : sequence of Source
        Streams, and the fusion named :data:`ecmf_lib.sources.FUSION`.
    prior : float [classes]
        Shares of the classes; a class gets no more than its share of the clips that are taken.
    share : float
        Of all clips, at most so many are taken.
    """
    fused = next(source for source in sources if source.name == FUSION)
    streams = list(by_family([source for source in sources if source.name != FUSION]).values())
    label, sure = fused.says, np.nan_to_num(fused.chances).max(1)
    agree = sum((stream.says == label).astype(np.int64) for stream in streams)
    heard = sum(stream.speaks.astype(np.int64) for stream in streams)
    wanted = np.minimum(rounds.families, heard)
    fit = (label >= 0) & (heard > 0) & (agree >= wanted) & (sure >= rounds.confidence)
    taken = []
    for number, part in enumerate(prior):
        own = np.flatnonzero(fit & (label == number))
        most = int(np.floor(part * share * len(label)))
        taken.append(own[np.argsort(-sure[own], kind="stable")][:most])
    rows = np.sort(np.concatenate(taken)) if taken else np.zeros(0, np.int64)
    return rows, label[rows].astype(np.int64)


def _honest_rounds(data, groups, unlabelled, seed, rounds: Rounds, kept: KeptRounds | None = None) -> list[dict]:
    """Weighted F1 of each number of rounds, on inner folds of the labelled clips, with its interval.

    Where the part was refined before, its targets have heard the given labels of all its clips through the models: the
    number of rounds is then chosen a little too hopefully. The outer score is not touched by that.
    """
    kept = kept or KeptRounds(None, "")
    fold = inner_folds(data.labels, groups, 3, seed)
    said = np.zeros((rounds.most + 1, len(data)), np.int64)
    speakers = np.asarray(unlabelled.speakers)
    for number in range(fold.max() + 1):
        train, held = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        part, apart = data.select(train), groups[train]
        rows = np.flatnonzero(~np.isin(speakers, groups[held]))  # those of a speaker who is scored stay out
        if len(rows) > PROBED:
            drawn = np.random.default_rng([seed, number]).permutation(len(rows))[:PROBED]
            rows = rows[np.sort(drawn)]
        others = unlabelled if len(rows) == len(unlabelled) else unlabelled.select(rows) if len(rows) else None
        current, now = part, apart.tolist()
        for turn in range(rounds.most + 1):
            found = kept.read(f"fold{number}", turn)
            if found is None:
                judge = Judges.fit(current, now, seed=seed + turn, inner=INNER)  # is scored, and judges for the next
                going_on = others is not None and turn < rounds.most
                found = _chosen(part, others, judge, turn + 1, rounds) if going_on else Round()
                found = replace(found, says=judge.sources(data.select(held))[-1].says)
                kept.write(f"fold{number}", turn, found)
            said[turn, held] = found.says
            if others is not None:
                current, now = _with_pseudo(part, apart, others, found, rounds)
    names = np.array(data.classes)
    found = []
    for guessed in said:
        table = pd.DataFrame(
            {"seed": 0, "id": data.ids, "speaker": groups, "label": names[data.labels], "predicted": names[guessed]}
        )
        at = interval(table, n_boot=200, seed=seed)
        found.append({"honest": at.value, "honest_low": at.low, "honest_high": at.high})
    return found


def _trap(data: FusionData, groups: Sequence[str], seed: int) -> float:
    """Weighted F1 out of fold on the labels that are trained on: what rises whether or not anything is learned."""
    judged = models(data, groups, seed=seed)[-1].says
    targets = data.targets()
    counted = targets.sum(1) > 0
    with threadpool_limits(1):
        return float(f1_score(targets.argmax(1)[counted], judged[counted], average="weighted", zero_division=0))


@dataclass(frozen=True, eq=False)
class SelfTrainer:
    """Self-training as a step of cross-validation, after refinement: it sees the training part and unlabelled clips.

    Attributes
    ----------
    unlabelled : FusionData
        Its `speakers` are groups of the same kind as those that folds hold apart.
    labelled_groups : tuple of str
        Groups of all labelled clips, scored ones included: unlabelled clips of a group that is being scored stay out,
        so that the scored speakers are as new as without self-training.
    first : Refiner or None
        What is done to the given labels first.
    rounds : Rounds
    folder : Path or None
        Where finished rounds are kept, see :func:`self_train`; no result depends on it.
    """

    unlabelled: FusionData
    labelled_groups: tuple[str, ...] = ()
    first: Refiner | None = None
    rounds: Rounds = Rounds()
    folder: Path | None = None

    def __call__(self, part: FusionData, groups: np.ndarray, *, seed: int, epochs: int):
        """The part with pseudo-labelled clips behind it, and the groups of all."""
        if self.first is not None:
            part, groups = self.first(part, groups, seed=seed, epochs=epochs)
        scored = set(self.labelled_groups) - set(np.asarray(groups).tolist())
        usable = np.array([speaker not in scored for speaker in self.unlabelled.speakers])
        if not usable.any():
            return part, groups
        others = self.unlabelled if usable.all() else self.unlabelled.select(usable)  # a copy is gigabytes
        try:
            found = self_train(part, groups, others, seed=seed, rounds=self.rounds, folder=self.folder)
        except DataError:  # too few labelled clips for inner folds: nothing can be learned about the others
            return part, groups
        return found.data, found.groups

    def about(self) -> list:
        """What a result depends on."""
        first = self.first.about() if self.first else None
        return [self.unlabelled.fingerprint(), sorted(set(self.labelled_groups)), first, asdict(self.rounds), CODE]


#: Digest of the sources that self-training depends on, for what is kept of its results.
CODE = hashlib.sha256(Path(__file__).read_bytes() + Path(sources_module.__file__).read_bytes()).hexdigest()[:16]
