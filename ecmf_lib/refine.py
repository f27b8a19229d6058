"""Label refinement: sources → consensus → a readable rule → refined labels and an audit table.

The rule, for each clip. A given label stays unless the consensus doubts it. A doubted label gives way to another one
only where the consensus is strong and at least two independent families say so; otherwise the clip is dropped from
training (or softened, or counts less). How much doubt it takes is chosen inside the training part, for each class its
own. Nothing here sees a clip that is scored: see :class:`Refiner`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score

from ecmf_lib import consensus as consensus_module
from ecmf_lib import sources as sources_module
from ecmf_lib.consensus import Consensus, confident_issues, consensus
from ecmf_lib.fit import ModelSpec
from ecmf_lib.samples import DataError, FusionData, inner_folds
from ecmf_lib.sources import FUSION, Judges, Source, by_family, digest, hard, models

#: How often models are fitted again for the "em" consensus.
ROUNDS = 1
OTHERWISE = ("drop", "soften", "down-weight")


@dataclass(frozen=True)
class Rule:
    """When a given label is let go, and what becomes of the clip.

    Attributes
    ----------
    doubt : float or tuple of float
        A label is doubted where the consensus gives it less than this; 0 keeps every label. Several, the mildest
        first: the strictest is taken whose models are not clearly worse (by one standard error) than the best of them
        on inner folds of the training part.
    relabel : float
        A doubted clip gets the consensus's label where its chance is this at least …
    families : int
        … and so many independent families say the same.
    otherwise : str
        What becomes of the other doubted clips: "drop" (weight 0), "soften" (the consensus's chances as soft label) or
        "down-weight" (the given label, weighted by the chance it has left).
    per_class : bool
        Whether a class of which the consensus is less sure as a whole takes less for doubt: the thresholds of confident
        learning are per class for the same reason.
    most : float
        A class never loses more than this share of its clips, so that a rare and difficult one cannot vanish.
    """

    doubt: float | tuple[float, ...] = (0.0, 0.3)
    relabel: float = 0.9
    families: int = 2
    otherwise: str = "drop"
    per_class: bool = True
    most: float = 0.5

    def __post_init__(self):
        if self.otherwise not in OTHERWISE:
            raise ValueError(f"otherwise = '{self.otherwise}'; choose from {', '.join(OTHERWISE)}")


#: A consensus alone, without our rule: its label for every clip; or, as cleanlab does, without the clips it flags.
ADOPT = Rule(doubt=1.01, relabel=0.0, families=0, per_class=False, most=1.0)
FILTER = Rule(doubt=1.01, relabel=2.0, per_class=False, most=1.0)


@dataclass(frozen=True, eq=False)
class Refined:
    """Refined labels of n training clips.

    Attributes
    ----------
    ids : list of str
    classes : tuple of str
    given, labels : int64 [n]
    soft : float32 [n, classes]
    weight : float32 [n]
    action : list of str
        "keep", "relabel", "soften", "down-weight" or "drop".
    why : list of str
        One sentence a clip.
    agree : list of list of str
        Sources that say the refined label.
    families : int64 [n]
        Independent families among them.
    sources : list of Source
        The people's, then the models'.
    found : Consensus
    thresholds : float [classes]
        Doubt of each class as it was applied.
    """

    ids: list[str]
    classes: tuple[str, ...]
    given: np.ndarray
    labels: np.ndarray
    soft: np.ndarray
    weight: np.ndarray
    action: list[str]
    why: list[str]
    agree: list[list[str]]
    families: np.ndarray
    sources: list[Source]
    found: Consensus
    thresholds: np.ndarray

    def apply(self, data: FusionData) -> FusionData:
        """The same clips with these targets and weights; `labels`, what is scored against, stay as they were given."""
        if data.ids != self.ids:
            raise DataError("refined labels are of other clips than these; refine the very clips that are trained on")
        return replace(data, soft=self.soft, weight=self.weight)

    def audit(self) -> pd.DataFrame:
        """One row a clip, the columns of :mod:`ecmf_lib.audit`; surest changes first."""
        names = np.array(self.classes)
        confidence = self.found.chances[np.arange(len(self.ids)), self.labels]
        table = {
            "id": self.ids,
            "given": names[self.given],
            "refined": names[self.labels],
            "action": self.action,
            "confidence": np.nan_to_num(confidence),
            "weight": self.weight.astype(float),
            "families": self.families,
            "agree": [", ".join(found) for found in self.agree],
            "why": self.why,
        }
        table |= {f"soft_{name}": self.soft[:, i].astype(float) for i, name in enumerate(self.classes)}
        table |= {f"says_{s.name}": np.where(s.says >= 0, names[s.says], "") for s in self.sources}
        order = {"relabel": 0, "soften": 1, "down-weight": 2, "drop": 3, "keep": 4}
        found = pd.DataFrame(table).assign(_order=[order[action] for action in self.action])
        found = found.sort_values(["_order", "confidence"], ascending=[True, False], kind="stable")
        return found.drop(columns="_order").reset_index(drop=True)

    def quality(self) -> pd.DataFrame:
        """Sources with their estimated quality: source, family, quality, clips it speaks of."""
        families = {source.name: source.family for source in self.sources}
        voices = [*by_family(self.sources).values(), *self.sources]  # some methods hear each family as one
        speaks = {voice.name: int(voice.speaks.sum()) for voice in voices}
        rows = [
            {"source": name, "family": families.get(name, name), "quality": value, "clips": speaks.get(name, 0)}
            for name, value in self.found.quality.items()
        ]
        return pd.DataFrame(rows).sort_values("quality", ascending=False, kind="stable").reset_index(drop=True)


def refine(
    data: FusionData,
    voters: Sequence[Source] = (),
    *,
    groups: Sequence[str] | None = None,
    seed: int = 0,
    method: str = "em",
    rounds: int | None = None,
    rule: Rule | None = None,
    fusion: ModelSpec | None = None,
    epochs: int = 25,
) -> Refined:
    """Refine the labels of training clips.

    Parameters
    ----------
    data : FusionData
        Training clips; `labels` are the given ones.
    voters : sequence of Source
        People's labels and what else speaks of these clips, in their order; none: the given labels.
    groups : sequence of str, optional
        What folds hold apart; the speakers by default.
    method : str
        One of :data:`ecmf_lib.consensus.METHODS`.
    rounds : int, optional
        How often the models are fitted again, without the clips whose label is doubted so far; by default
        :data:`ROUNDS` for "em", 0 for the others, as they are published.
    rule : Rule, optional
    fusion : ModelSpec, optional
        The classifier of all streams; by default the linear experts' sum, see :func:`ecmf_lib.sources.models`.

    Returns
    -------
    Refined
    """
    rule = rule or Rule()
    groups = np.asarray(data.speakers if groups is None else groups)
    voters = list(voters) or [hard("given", data.labels, len(data.classes))]
    rounds = (ROUNDS if method == "em" else 0) if rounds is None else rounds
    how = {"method": method, "rounds": rounds, "fusion": fusion, "epochs": epochs}
    agreed, sources = _agree(data, voters, groups, seed, **how)
    doubt = rule.doubt
    if isinstance(doubt, tuple):
        doubt = _choose(data, voters, groups, seed, rule, **how) if len(doubt) > 1 else doubt[0]
    return _decide(data, sources, agreed, replace(rule, doubt=doubt))


def _agree(data, voters, groups, seed, *, method, rounds, fusion, epochs) -> tuple[Consensus, list[Source]]:
    """Models are heard, and fitted again without the clips whose label is doubted so far, so that they can object.

    Models that learned from wrong labels are hesitant to call them wrong. At first nobody but the models can be asked:
    confident learning says what to leave out; from then on the consensus does.
    """
    people, weight = [voter.name for voter in voters], None
    for turn in range(rounds + 1):
        learned = replace(data, soft=None, weight=weight)
        judged = models(learned, groups, seed=seed + turn, fusion=fusion, epochs=epochs)
        agreed = consensus([*voters, *judged], people, method)
        if turn == rounds:
            break
        classifier = judged[-1].chances
        left = (agreed.chances if turn else classifier)[np.arange(len(data)), data.labels]
        doubted = left < 0.5 if turn else confident_issues(data.labels, classifier)  # NaN is no doubt
        weight = 1 - _at_most(doubted, np.nan_to_num(left, nan=1), data.labels, 0.5).astype(np.float32)
    return agreed, [*voters, *judged]


def _choose(data, voters, groups, seed, rule: Rule, **how) -> float:
    """The doubt whose refined labels make the best linear experts, by their weighted F1 on inner folds.

    The clips of an inner fold are refined by nobody: the labels they are scored against are the given ones, and
    nothing fitted has seen them.
    """
    fold = inner_folds(data.labels, groups, 3, seed)
    said = {doubt: np.zeros(len(data), np.int64) for doubt in rule.doubt}
    for number in range(fold.max() + 1):
        train, held = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        part, apart = data.select(train), groups[train]
        if len(np.unique(part.labels)) < 2 or too_few(part, apart, seed):
            continue
        agreed, sources = _agree(part, [voter.select(train) for voter in voters], apart, seed, **how)
        for doubt in rule.doubt:
            refined = _decide(part, sources, agreed, replace(rule, doubt=doubt))
            judge = Judges.fit(refined.apply(part), apart, seed=seed)
            said[doubt][held] = judge.sources(data.select(held))[-1].says
    scores = [f1_score(data.labels, said[doubt], average="weighted", zero_division=0) for doubt in rule.doubt]
    best = int(np.argmax(scores))
    right = np.stack([said[doubt] == data.labels for doubt in rule.doubt]).astype(float)
    error = np.sqrt(((right - right[best]) ** 2).mean(1) / len(data))  # of the accuracy's difference to the best
    # The given labels of the held-out clips are noisy too, so a small loss says little: strictness has the benefit.
    return rule.doubt[int(np.flatnonzero(np.array(scores) >= scores[best] - error).max())]


def too_few(data: FusionData, groups: Sequence[str], seed: int) -> bool:
    """Whether there are too few clips for folds, so that nobody can be heard out of fold."""
    try:
        inner_folds(data.labels, np.asarray(groups), 5, seed)
    except DataError:
        return True
    return False


def _decide(data: FusionData, sources: list[Source], agreed: Consensus, rule: Rule) -> Refined:
    n, names, given = len(data), np.array(data.classes), data.labels
    rows = np.arange(n)
    hot = np.eye(len(names))[given]
    families = list(by_family([source for source in sources if source.name != FUSION]).values())
    heard = np.any([family.speaks for family in families], axis=0)  # of the others the fusion knows nothing either
    chances = np.where(np.isnan(agreed.chances) | ~heard[:, None], hot, agreed.chances)
    left, top, sure = chances[rows, given], chances.argmax(1), chances.max(1)
    thresholds = _thresholds(left, given, len(names), rule)
    for_top = sum((family.says == top).astype(np.int64) for family in families)
    doubted = _at_most((left < thresholds[given]) & (top != given), left, given, rule.most)
    # Unsure of the given label, with no other that is likelier: that is a hard clip, and such are worth learning from.
    relabelled = doubted & (sure >= rule.relabel) & (for_top >= rule.families)
    rest = doubted & ~relabelled
    labels = np.where(relabelled, top, given)
    soft, weight = np.eye(len(names))[labels], np.ones(n)
    if rule.otherwise == "drop":
        weight[rest] = 0
    elif rule.otherwise == "soften":
        soft[rest] = chances[rest]
    else:
        weight[rest] = left[rest]
    action = np.where(relabelled, "relabel", np.where(rest, rule.otherwise, "keep"))
    same = [(source.name, (source.says == labels).tolist()) for source in sources]
    agree = [[name for name, agrees in same if agrees[i]] for i in rows]
    for_label = sum((family.says == labels).astype(np.int64) for family in families)
    why = [
        _why(names, action[i], given[i], top[i], left[i], sure[i], int(for_top[i]), thresholds[given[i]], rule)
        if heard[i]
        else f"no source speaks of it, so {names[given[i]]} stays"
        for i in rows
    ]
    return Refined(
        ids=list(data.ids),
        classes=tuple(data.classes),
        given=given,
        labels=labels.astype(np.int64),
        soft=soft.astype(np.float32),
        weight=weight.astype(np.float32),
        action=action.tolist(),
        why=why,
        agree=agree,
        families=for_label,
        sources=sources,
        found=agreed,
        thresholds=thresholds,
    )


def _thresholds(left: np.ndarray, given: np.ndarray, n_classes: int, rule: Rule) -> np.ndarray:
    doubt = np.full(n_classes, float(rule.doubt))
    if rule.per_class and len(left):
        mean = np.array([left[given == i].mean() if (given == i).any() else 1.0 for i in range(n_classes)])
        doubt *= np.minimum(mean / max(left.mean(), 1e-9), 1.0)
    return doubt


def _at_most(doubted: np.ndarray, left: np.ndarray, given: np.ndarray, share: float) -> np.ndarray:
    kept = doubted.copy()
    for label in np.unique(given[doubted]):
        own = np.flatnonzero(doubted & (given == label))
        most = int(share * (given == label).sum())
        kept[own[np.argsort(left[own], kind="stable")][most:]] = False
    return kept


def _why(names, action, given, top, left, sure, said, threshold, rule) -> str:
    if action == "keep":
        if top == given:
            return f"the consensus is {names[given]} too ({left:.2f})"
        if left >= threshold:
            return f"{names[given]} keeps a chance of {left:.2f}, {threshold:.2f} is enough"
        return f"doubted ({left:.2f}), but {names[given]} would lose more than {rule.most:.0%} of its clips"
    doubt = f"{names[given]} has a chance of {left:.2f}, below {threshold:.2f}"
    if action == "relabel":
        return f"{doubt}; {said} independent families say {names[top]}, consensus {sure:.2f}"
    lacking = f"only {said} families say {names[top]}" if said < rule.families else f"{names[top]} has {sure:.2f}"
    return f"{doubt}; {lacking}, too little to relabel"


@dataclass(frozen=True, eq=False)
class Refiner:
    """Refinement as a step of cross-validation (:class:`ecmf_lib.train.Preparation`): it sees the training part only.

    Attributes
    ----------
    voters : tuple of Source
        Of all clips that may come up, in the order of `ids`; the rows of a training part are taken, no others.
    ids : tuple of str
    method, rounds, rule, fusion
        As :func:`refine`.
    decisions : tuple of (id, decision)
        A human's, who has the last word: a class, "keep" or "drop" (:func:`ecmf_lib.audit.read_review`).
    """

    voters: tuple[Source, ...] = ()
    ids: tuple[str, ...] = ()
    method: str = "em"
    rounds: int | None = None
    rule: Rule = Rule()
    fusion: ModelSpec | None = None
    decisions: tuple[tuple[str, str], ...] = ()

    def __call__(self, part: FusionData, groups: np.ndarray, *, seed: int, epochs: int):
        """The part with refined targets and weights, and its groups."""
        if not too_few(part, groups, seed):  # else all labels are kept
            part = self.refined(part, groups, seed=seed, epochs=epochs).apply(part)
        return decided(part, dict(self.decisions)), groups

    def refined(self, part: FusionData, groups: Sequence[str], *, seed: int, epochs: int = 25) -> Refined:
        """The refined labels of a training part."""
        place = {clip: row for row, clip in enumerate(self.ids)}
        unknown = [clip for clip in part.ids if clip not in place] if self.voters else []
        if unknown:
            raise DataError(f"{len(unknown)} clip(s), first {unknown[0]!r}, are not among the `ids` of the voters")
        rows = np.array([place[clip] for clip in part.ids]) if self.voters else np.zeros(0, int)
        voters = [voter.select(rows) for voter in self.voters]
        how = {"method": self.method, "rounds": self.rounds, "rule": self.rule, "fusion": self.fusion}
        return refine(part, voters, groups=groups, seed=seed, epochs=epochs, **how)

    def about(self) -> list:
        """What a result depends on, the code of refinement included."""
        fusion = self.fusion.about() if self.fusion else None
        told = [digest(self.voters), list(self.ids), self.method, self.rounds, asdict(self.rule), fusion]
        return [*told, [list(pair) for pair in self.decisions], _CODE]


def decided(data: FusionData, decisions: Mapping[str, str]) -> FusionData:
    """Targets and weights with a human's decisions in them: id → a class, "keep" (the given label) or "drop"."""
    if not set(decisions) & set(data.ids):
        return data
    hot = np.eye(len(data.classes), dtype=np.float32)
    soft = hot[data.labels] if data.soft is None else data.soft.copy()
    weight = np.ones(len(data), np.float32) if data.weight is None else data.weight.copy()
    for row, clip in enumerate(data.ids):
        decision = decisions.get(clip)
        if decision is None:
            continue
        if decision not in (*data.classes, "keep", "drop"):
            raise DataError(f"clip {clip!r}: a human decided {decision!r}; expected a class, 'keep' or 'drop'")
        weight[row] = decision != "drop"
        soft[row] = hot[data.classes.index(decision) if decision in data.classes else data.labels[row]]
    return replace(data, soft=soft, weight=weight)


# Read at import, so that an edit during a run does not mislabel its folds.
_PARTS = [
    Path(part).read_text(encoding="utf-8") for part in (__file__, consensus_module.__file__, sources_module.__file__)
]
_CODE = hashlib.sha256("".join([*_PARTS, version("cleanlab"), version("crowd-kit")]).encode()).hexdigest()[:16]
