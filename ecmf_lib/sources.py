"""Label sources: everybody and everything that says which emotion a clip shows, each as one annotator.

People (the given label, or the annotators behind it), a language model's scores, a csv that a user adds, and the
out-of-fold predictions of every stream and of their fusion. Each may abstain. Sources of one family look at the same
thing and do not count twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ecmf_lib.classical import opinion_weights
from ecmf_lib.config import ENRICHMENT
from ecmf_lib.corpus import refusal
from ecmf_lib.experts import fit_experts, log_softmax, opinions_of
from ecmf_lib.fit import ModelSpec, out_of_fold
from ecmf_lib.members import reproducible
from ecmf_lib.samples import FusionData, inner_folds
from ecmf_lib.scaling import fit_standardiser, learnable, standardise
from ecmf_lib.tables import problem_table, read_csv

#: Name and family of the classifier that sees all streams. It depends on all of them, so it is no independent family.
FUSION = "fusion"
GIVEN = "given"
_LEAST_TOTAL = 1e-290  # of scores in a csv: smaller ones have no digits left, and their shares would not sum to 1
#: The enrichment is words about the voice, the face and the words: no further witness beside the streams it tells of.
FAMILY_OF = {ENRICHMENT: "text"}


@dataclass(frozen=True, eq=False)
class Source:
    """What one source says of n clips.

    Attributes
    ----------
    name : str
    family : str
        Sources of one family share what they look at.
    chances : float64 [n, classes]
        Rows sum to 1 (one-hot for a source that names a class); NaN in the whole row where it abstains.
    """

    name: str
    family: str
    chances: np.ndarray

    def __post_init__(self):
        chances = np.asarray(self.chances, dtype=np.float64)
        if chances.ndim != 2:
            raise ValueError(f"source '{self.name}': chances have shape {chances.shape}; expected (clips, classes)")
        silent = np.isnan(chances).all(1)
        bad = np.flatnonzero(~silent & ~((chances >= 0).all(1) & (np.abs(chances.sum(1) - 1) < 1e-3)))
        if len(bad):
            raise ValueError(f"source '{self.name}': row {bad[0]} is {chances[bad[0]].tolist()}, no distribution")
        object.__setattr__(self, "chances", chances)

    @property
    def speaks(self) -> np.ndarray:
        """Where it does not abstain: bool [n]."""
        return ~np.isnan(self.chances).any(1)

    @property
    def says(self) -> np.ndarray:
        """Its class: int64 [n], -1 where it abstains."""
        return np.where(self.speaks, np.nan_to_num(self.chances).argmax(1), -1)

    def select(self, rows: np.ndarray) -> Source:
        """What it says of the clips at `rows`."""
        return Source(self.name, self.family, self.chances[rows])


def hard(name: str, labels: np.ndarray, n_classes: int, family: str = "") -> Source:
    """A source that names one class a clip: `labels` int [n], -1 where it abstains."""
    labels = np.asarray(labels)
    chances = np.full((len(labels), n_classes), np.nan)
    chances[labels >= 0] = np.eye(n_classes)[labels[labels >= 0]]
    return Source(name, family or name, chances)


def people(clips: pd.DataFrame, classes: Sequence[str]) -> list[Source]:
    """Annotators of a corpus, and the given label where no annotator speaks.

    The given label of a corpus with annotators is made of their votes, so it says nothing that they do not; it speaks
    for the clips that none of them has seen. Each annotator is a family of their own.

    Parameters
    ----------
    clips : DataFrame
        With `label` and any ``annotator_*``; empty cells abstain.
    """

    def numbers(column: pd.Series) -> np.ndarray:
        return column.map({name: i for i, name in enumerate(classes)}).fillna(-1).to_numpy(dtype=np.int64)

    columns = [column for column in clips.columns if column.startswith("annotator_")]
    found = [hard(column, numbers(clips[column]), len(classes)) for column in columns]
    found = [source for source in found if source.speaks.any()]
    heard = np.any([source.speaks for source in found], axis=0) if found else np.zeros(len(clips), bool)
    label = hard(GIVEN, np.where(heard, -1, numbers(clips["label"])), len(classes))
    return [label, *found] if label.speaks.any() or not found else found


def language_model(enriched: pd.DataFrame | None, ids: Sequence[str], classes: Sequence[str]) -> list[Source]:
    """Scores of the language model that enriched the words: one source of the family "text", or none without scores."""
    columns = [f"score_{name}" for name in classes]
    if enriched is None or not set(columns) <= set(enriched.columns):
        return []
    scores = enriched.set_index("id")[columns].reindex(list(ids)).to_numpy(dtype=np.float64)
    source = Source("language model", "text", shares(scores))
    return [source] if source.speaks.any() else []


def shares(mass: np.ndarray) -> np.ndarray:
    """Rows [n, classes] divided by their sum; NaN in a row that sums to 0 or is NaN."""
    total = mass.sum(1, keepdims=True)
    return np.where(total > 0, mass / np.where(total > 0, total, 1), np.nan)


def read_source(path: Path, ids: Sequence[str], classes: Sequence[str], family: str = "") -> Source:
    """A user's csv as a source: `id` with `label`, or `id` with one score for each class.

    Clips that it does not list, and empty cells, abstain. Ids of other clips are passed over.

    Parameters
    ----------
    path : Path
        Its stem is the source's name.
    family : str
        A stream's name, if it looks at that stream only; by default a family of its own.

    Raises
    ------
    CorpusError
        With every row that cannot be used: an unknown label (also in wrong case), a doubled id, a score that is no
        number of 0 or more.
    """
    path = Path(path)
    table = read_csv(path)
    lines, table = table.index + 2, table.reset_index(drop=True)
    scored = set(classes) <= set(table.columns)
    if "id" not in table.columns or not (scored or "label" in table.columns):
        wanted = f"'id' and 'label', or 'id' and {', '.join(classes)}"
        raise refusal(f"label source {path}", problem_table([(str(path), 1, "", "", f"columns must be {wanted}")]))
    found = [
        (str(path), int(lines[row]), clip, "id", f"duplicate id '{clip}'")
        for row, clip in table.loc[table["id"].duplicated(), "id"].items()
    ]
    if scored:
        chances = table[list(classes)].replace("", np.nan).apply(pd.to_numeric, errors="coerce").to_numpy(float)
        said = (table[list(classes)] != "").any(axis=1).to_numpy()
        total = chances.sum(1)
        usable = np.isfinite(total) & (np.nan_to_num(chances, nan=-1) >= 0).all(1) & (total > _LEAST_TOTAL)
        found += [
            (str(path), int(lines[row]), table["id"][row], "", "scores must be numbers, 0 or more, not all 0")
            for row in np.flatnonzero(said & ~usable)
        ]
        chances = np.where(said[:, None], chances / np.where(usable, total, 1)[:, None], np.nan)
    else:
        number = {name: i for i, name in enumerate(classes)}
        known = table["label"].map(number).fillna(-1).to_numpy(dtype=np.int64)
        found += [
            (str(path), int(lines[row]), table["id"][row], "label", _unknown(table["label"][row], classes))
            for row in np.flatnonzero((known < 0) & (table["label"] != "").to_numpy())
        ]
        chances = np.where((known >= 0)[:, None], np.eye(len(classes))[known], np.nan)
    if found:
        raise refusal(f"label source {path}", problem_table(found))
    place = {clip: row for row, clip in enumerate(table["id"])}
    rows = np.array([place.get(clip, -1) for clip in ids])
    listed = np.full((len(ids), len(classes)), np.nan)
    listed[rows >= 0] = chances[rows[rows >= 0]]
    return Source(path.stem, family or path.stem, listed)


def _unknown(label: str, classes: Sequence[str]) -> str:
    meant = {name.lower(): name for name in classes}.get(label.strip().lower())
    return f"unknown label '{label}'; " + (
        f"did you mean '{meant}'?" if meant else f"classes are {', '.join(classes)}, or leave the cell empty"
    )


def models(
    data: FusionData,
    groups: Sequence[str],
    *,
    seed: int,
    inner: int = 5,
    fusion: ModelSpec | None = None,
    epochs: int = 25,
) -> list[Source]:
    """Out-of-fold predictions of each stream, and of their fusion last: nobody judges a clip they were fitted on.

    A stream is judged by its linear expert (:mod:`ecmf_lib.experts`), the fusion by the experts' weighted sum: fitted
    in closed form, in a second, and on real features about as good as a network.

    Parameters
    ----------
    data : FusionData
        Training clips with what is to be learned from (targets and weights count, also those of an earlier round).
    groups : sequence of str
        What the folds hold apart.
    inner : int
        Folds.
    fusion : ModelSpec, optional
        Another fusion in place of the experts' sum, e.g. ECMF itself.

    Returns
    -------
    list of Source
        One a stream (family: the stream), then :data:`FUSION`.
    """
    judges, opinions = _fitted(data, groups, seed, inner)
    known = learnable(data, judges.arrays)
    if fusion is None:
        return judges.told(opinions, known)
    logits = out_of_fold(data, fusion, seed=seed, epochs=epochs, groups=np.asarray(groups))
    return [*stream_sources(opinions, known), Source(FUSION, FUSION, np.exp(log_softmax(logits)))]


def stream_sources(opinions: np.ndarray, data: FusionData) -> list[Source]:
    """Log-probabilities [n, streams, classes] as one source a stream; one that is missing abstains."""
    there, chances = data.mask(), np.exp(log_softmax(opinions))
    return [
        Source(name, FAMILY_OF.get(name, name), np.where(there[:, i, None], chances[:, i], np.nan))
        for i, name in enumerate(data.streams)
    ]


@dataclass(frozen=True, eq=False)
class Judges:
    """Linear experts fitted on training clips, to judge other clips: what :func:`models` does, for unlabelled ones."""

    arrays: dict[str, np.ndarray]
    weights: np.ndarray

    @classmethod
    def fit(cls, data: FusionData, groups: Sequence[str], *, seed: int, inner: int = 5) -> Judges:
        """Fit on all clips; how much each stream counts is set out of fold."""
        return _fitted(data, groups, seed, inner)[0]

    def sources(self, data: FusionData, batch: int = 8192) -> list[Source]:
        """One source a stream, then :data:`FUSION`; in batches, so that memory stays flat."""
        with reproducible(0):
            opinions = np.concatenate([self._opinions(data, start, batch) for start in range(0, len(data), batch)])
        return self.told(opinions, learnable(data, self.arrays))  # a stream that said nothing in training abstains

    def told(self, opinions: np.ndarray, data: FusionData) -> list[Source]:
        """Opinions float [n, streams, classes] as sources: one a stream, then their weighted sum."""
        logits = (opinions * self.weights[:, None]).sum(1)
        return [*stream_sources(opinions, data), Source(FUSION, FUSION, np.exp(log_softmax(logits)))]

    def _opinions(self, data: FusionData, start: int, batch: int) -> np.ndarray:
        part = learnable(data.select(np.arange(start, min(start + batch, len(data)))), self.arrays).clip_level()
        return opinions_of(standardise(part, self.arrays), part.present, self.arrays)


def _fitted(data: FusionData, groups: Sequence[str], seed: int, inner: int) -> tuple[Judges, np.ndarray]:
    """Experts of all clips, and their opinions of these clips out of fold: float32 [n, streams, classes]."""
    with reproducible(seed):
        scale = fit_standardiser(data)
        usable = learnable(data, scale).clip_level()
        fold = inner_folds(data.labels, np.asarray(groups), inner, seed)
        arrays, opinions = fit_experts(standardise(usable, scale), usable.present, usable.targets(), fold)
        return Judges(scale | arrays, opinion_weights(opinions, usable.targets())), opinions


def digest(sources: Sequence[Source]) -> str:
    """16 hex digits over what sources say."""
    found = hashlib.sha256()
    for source in sources:
        found.update(f"{source.name}|{source.family}|{source.chances.shape}".encode())
        found.update(np.ascontiguousarray(source.chances).tobytes())
    return found.hexdigest()[:16]


def by_family(sources: Sequence[Source]) -> Mapping[str, Source]:
    """One source a family: the mean chances of those of its sources that speak."""
    families: dict[str, list[Source]] = {}
    for source in sources:
        families.setdefault(source.family, []).append(source)
    merged = {}
    for family, members in families.items():
        stacked = np.stack([source.chances for source in members])
        heard = ~np.isnan(stacked).any(2)
        mean = np.nan_to_num(stacked).sum(0) / np.maximum(heard.sum(0), 1)[:, None]
        merged[family] = Source(family, family, np.where(heard.any(0)[:, None], mean, np.nan))
    return merged
