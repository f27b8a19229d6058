"""Clips as a fusion sees them (features, masks, labels, speakers), checked, and folds that hold speakers apart."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from ecmf_lib.group_split import stratified_group_folds


class DataError(ValueError):
    """Features or labels that cannot be used; the message names stream and clip, and the mend."""


@dataclass(frozen=True, eq=False)
class FusionData:
    """Clips ready for a fusion.

    Attributes
    ----------
    ids : list of str
        n clip ids, unique.
    streams : dict of str to float32 [n, dim] or [n, steps, dim]
        One vector a clip, or one for each of `steps` equal parts of its time. Rows of missing streams are set to 0.
        Float32 arrays with nothing to set are taken as they are, not copied: they may be mapped from a file.
    present : dict of str to bool [n]
    labels : int64 [n]
        Index into `classes`. What is scored against, always.
    speakers : list of str
        n; what folds hold apart and what intervals resample.
    classes : tuple of str
    soft : float32 [n, classes], optional
        What is trained on in place of `labels`, for refined labels: rows are probabilities.
    weight : float32 [n], optional
        How much each clip counts in training, 0 or more; 1 for all by default.

    Raises
    ------
    DataError
        Wrong shapes, NaN or infinite features, labels without a class, no stream or no clip.
    """

    ids: list[str]
    streams: dict[str, np.ndarray]
    present: dict[str, np.ndarray]
    labels: np.ndarray
    speakers: list[str]
    classes: tuple[str, ...]
    soft: np.ndarray | None = None
    weight: np.ndarray | None = None

    def __post_init__(self):
        n = len(self.ids)
        if not n or not self.streams:
            raise DataError(f"{n} clip(s) and {len(self.streams)} stream(s): at least one of each is needed")
        if len(set(self.ids)) != n:
            twice = next(clip for clip in self.ids if self.ids.count(clip) > 1)
            raise DataError(f"clip {twice!r} is there twice; ids must be unique")
        if set(self.present) != set(self.streams):
            raise DataError(f"`present` has {sorted(self.present)}, `streams` has {sorted(self.streams)}")
        object.__setattr__(self, "labels", _labels(self.labels, self.ids, self.classes))
        if len(self.speakers) != n:
            raise DataError(f"{len(self.speakers)} speakers for {n} clips")
        object.__setattr__(self, "soft", _soft(self.soft, self.ids, self.classes))
        object.__setattr__(self, "weight", _weight(self.weight, self.ids))
        checked = {name: _stream(name, x, self.present[name], self.ids) for name, x in self.streams.items()}
        object.__setattr__(self, "streams", {name: x for name, (x, _) in checked.items()})
        object.__setattr__(self, "present", {name: there for name, (_, there) in checked.items()})

    @classmethod
    def from_sets(
        cls, clips: pd.DataFrame, sets: Mapping[str, object], classes: Sequence[str], *, steps: int = 0
    ) -> FusionData:
        """Gather features of the labelled clips of a corpus.

        Parameters
        ----------
        clips : DataFrame
            A corpus's table with id, label, split, speaker. Only split "labelled" with a label is used: nothing else
            can be scored.
        sets : dict of str to FeatureSet
            Anything whose ``matrix(ids)`` gives (float32 [n, dim], present bool [n]).
        classes : sequence of str
            In index order.
        steps : int
            Above 0: streams that are stored at frame level come as so many parts of the clip's time, see
            :func:`time_parts`; the others as one vector.
        """
        used = clips[(clips["split"] == "labelled") & (clips["label"] != "")]
        ids = used["id"].tolist()
        unknown = used[~used["label"].isin(list(classes))]
        if len(unknown):
            first = unknown.iloc[0]
            raise DataError(f"clip {first['id']!r} has label {first['label']!r}; classes are {', '.join(classes)}")
        x, there = _gathered(ids, sets, steps)
        return cls(
            ids=ids,
            streams=x,
            present=there,
            labels=np.array([list(classes).index(label) for label in used["label"]], dtype=np.int64),
            speakers=used["speaker"].astype(str).tolist(),
            classes=tuple(classes),
        )

    @classmethod
    def without_labels(
        cls, clips: pd.DataFrame, sets: Mapping[str, object], classes: Sequence[str], *, steps: int = 0
    ) -> FusionData:
        """Gather features of any clips, their labels unseen: to predict them, or to train on what others say of them.

        Every label is class 0 and every weight 0, so that nothing can be learned from clips that nobody labelled.

        Parameters
        ----------
        clips : DataFrame
            With id and speaker; all rows are taken.
        sets, classes, steps
            As in :meth:`from_sets`.
        """
        ids = clips["id"].tolist()
        x, there = _gathered(ids, sets, steps)
        nothing = np.zeros(len(ids))
        speakers = clips["speaker"].astype(str).tolist()
        return cls(ids, x, there, nothing.astype(np.int64), speakers, tuple(classes), weight=nothing)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dims(self) -> dict[str, int]:
        """Stream → feature dimension (of a step, where the stream has several)."""
        return {name: x.shape[-1] for name, x in self.streams.items()}

    @property
    def frame_level(self) -> tuple[str, ...]:
        """Streams with several steps a clip."""
        return tuple(name for name, x in self.streams.items() if x.ndim == 3)

    def clip_level(self) -> FusionData:
        """The same with one vector a clip in every stream: the mean over its steps."""
        return replace(self, streams={name: x.mean(1) if x.ndim == 3 else x for name, x in self.streams.items()})

    def targets(self) -> np.ndarray:
        """What a model is trained on: float32 [n, classes], each row a clip's class probabilities times its weight."""
        target = self._hard_or_soft()
        return target if self.weight is None else target * self.weight[:, None]

    def mask(self) -> np.ndarray:
        """Which streams each clip has: bool [n, streams], columns in the order of `streams`."""
        return np.stack([self.present[name] for name in self.streams], axis=1)

    def select(self, rows: np.ndarray) -> FusionData:
        """The clips at `rows` (int [k] or bool [n])."""
        rows = np.arange(len(self))[rows]
        return replace(
            self,
            ids=[self.ids[i] for i in rows],
            streams={name: x[rows] for name, x in self.streams.items()},
            present={name: there[rows] for name, there in self.present.items()},
            labels=self.labels[rows],
            speakers=[self.speakers[i] for i in rows],
            soft=None if self.soft is None else self.soft[rows],
            weight=None if self.weight is None else self.weight[rows],
        )

    def only(self, streams: Iterable[str]) -> FusionData:
        """The same clips with these streams, in this order."""
        streams = list(streams)
        unknown = [name for name in streams if name not in self.streams]
        if unknown:
            raise DataError(f"no stream {', '.join(unknown)}; there are {', '.join(self.streams)}")
        return replace(
            self,
            streams={name: self.streams[name] for name in streams},
            present={name: self.present[name] for name in streams},
        )

    def joined(self, others: FusionData) -> FusionData:
        """These clips and others after them, with the same streams; targets and weights stay what they were."""
        both = (self, others.only(self.streams))
        return FusionData(
            ids=[*self.ids, *others.ids],
            streams={name: np.concatenate([part.streams[name] for part in both]) for name in self.streams},
            present={name: np.concatenate([part.present[name] for part in both]) for name in self.streams},
            labels=np.concatenate([part.labels for part in both]),
            speakers=[*self.speakers, *others.speakers],
            classes=self.classes,
            soft=np.concatenate([part._hard_or_soft() for part in both]),
            weight=np.concatenate([np.ones(len(p), np.float32) if p.weight is None else p.weight for p in both]),
        )

    def _hard_or_soft(self) -> np.ndarray:
        return np.eye(len(self.classes), dtype=np.float32)[self.labels] if self.soft is None else self.soft

    def check_varies(self) -> None:
        """Refuse a stream that says nothing: in no clip, or the same numbers in all of them.

        Single constant columns are fine (they are ignored); this is about a whole stream, as from a broken encoder.
        """
        for name, x in self.streams.items():
            rows = np.flatnonzero(self.present[name])
            if not len(rows):
                raise DataError(f"stream '{name}': missing in all {len(self)} clips; leave the stream out")
            there = x if len(rows) == len(x) else x[rows]
            if not np.ptp(there.reshape(-1, x.shape[-1]), axis=0).any():
                raise DataError(
                    f"stream '{name}': all {len(rows)} clips have the same constant features as clip "
                    f"{self.ids[rows[0]]!r}; check its encoder or leave the stream out"
                )

    def fingerprint(self) -> str:
        """sha256 over everything in it, 16 hex digits."""
        return self._digest

    @cached_property
    def _digest(self) -> str:  # every model and seed of a study asks for it
        digest = hashlib.sha256(json.dumps([self.ids, self.speakers, self.classes, self.dims]).encode())
        arrays = (self.labels, self.soft, self.weight, *self.streams.values(), *self.present.values())
        for array in arrays:
            if array is not None:
                digest.update(f"{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).view(np.uint8))
        return digest.hexdigest()[:16]


def _gathered(
    ids: list[str], sets: Mapping[str, object], steps: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Features and presence of each stream; at frame level as parts of time, where asked for."""
    both = {
        name: time_parts(found, ids, steps) if steps and getattr(found, "level", "") == "frame" else found.matrix(ids)
        for name, found in sets.items()
    }
    return {name: x for name, (x, _) in both.items()}, {name: there for name, (_, there) in both.items()}


def _labels(labels: np.ndarray, ids: list[str], classes: Sequence[str]) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape != (len(ids),) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"labels are {labels.dtype} {labels.shape}; expected one integer for each of {len(ids)} clips")
    bad = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(bad):
        raise DataError(f"clip {ids[bad[0]]!r} has label index {labels[bad[0]]}; there are {len(classes)} classes")
    return labels.astype(np.int64)


def _soft(soft: np.ndarray | None, ids: list[str], classes: Sequence[str]) -> np.ndarray | None:
    if soft is None:
        return None
    soft = np.asarray(soft, dtype=np.float32)
    if soft.shape != (len(ids), len(classes)):
        raise DataError(f"soft labels have shape {soft.shape}; expected ({len(ids)}, {len(classes)})")
    bad = np.flatnonzero(~((soft >= 0).all(1) & (np.abs(soft.sum(1) - 1) < 1e-3)))  # NaN fails both
    if len(bad):
        raise DataError(f"clip {ids[bad[0]]!r}: soft label {soft[bad[0]].tolist()} is no distribution over the classes")
    return soft


def _weight(weight: np.ndarray | None, ids: list[str]) -> np.ndarray | None:
    if weight is None:
        return None
    weight = np.asarray(weight, dtype=np.float32)
    if weight.shape != (len(ids),):
        raise DataError(f"weights have shape {weight.shape}; expected one for each of {len(ids)} clips")
    bad = np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))
    if len(bad):
        raise DataError(f"clip {ids[bad[0]]!r} has weight {weight[bad[0]]}; expected a finite number, 0 or more")
    return weight


def time_parts(features, ids: Sequence[str], steps: int) -> tuple[np.ndarray, np.ndarray]:
    """A frame-level set as `steps` equal parts of each clip's time, each averaged.

    A clip with fewer steps than parts has some of them more than once, so all parts are always filled.

    Parameters
    ----------
    features : FeatureSet
        With ``get(id)`` → [t, dim] and ``ids`` of the clips that it has.
    ids : sequence of str
    steps : int

    Returns
    -------
    parts : float32 [n, steps, dim]
        0 where a clip has none.
    present : bool [n]
    """
    known = set(features.ids)
    present = np.array([clip in known for clip in ids], dtype=bool)
    parts = np.zeros((len(ids), steps, features.dim), dtype=np.float32)
    for row in np.flatnonzero(present):
        found = np.asarray(features.get(ids[row]), dtype=np.float32)
        start = np.arange(steps) * len(found) // steps
        end = np.maximum(-(-np.arange(1, steps + 1) * len(found) // steps), start + 1)
        parts[row] = [found[a:b].mean(0) for a, b in zip(start, end, strict=True)]
    return parts, present


def stretches(n: int, size: int) -> Iterator[slice]:
    """Rows 0 to n in stretches of so many, the last one shorter: for what is done without all of it in memory."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def _stream(name: str, x: np.ndarray, there: np.ndarray, ids: list[str]) -> tuple[np.ndarray, np.ndarray]:
    x, there = np.asarray(x), np.asarray(there)
    if there.shape != (len(ids),) or there.dtype != bool:
        raise DataError(f"stream '{name}': present is {there.dtype} {there.shape}; expected bool ({len(ids)},)")
    if x.ndim not in (2, 3) or len(x) != len(ids) or 0 in x.shape:
        raise DataError(
            f"stream '{name}': features have shape {x.shape}; expected ({len(ids)}, dim) or ({len(ids)}, steps, dim) "
            f"for clips {ids[0]!r} … {ids[-1]!r}"
        )
    # Copied only where something has to change: at challenge size, or mapped from a file, a copy is what costs.
    x = x.astype(np.float32, copy=False)
    absent = np.flatnonzero(~there)
    if len(absent) and x[absent].any():
        x = np.where(there.reshape(-1, *[1] * (x.ndim - 1)), x, np.float32(0))
    if not (np.isfinite(x.min()) and np.isfinite(x.max())):  # NaN comes through both, and neither makes a copy
        bad = np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(axis=1))
        raise DataError(
            f"stream '{name}': NaN or infinite features in {len(bad)} clip(s), first {ids[bad[0]]!r}; "
            "extract them again or mark the stream as missing there"
        )
    return x, there


def grouped_folds(labels: np.ndarray, groups: Sequence[str], n_folds: int, *, seed: int = 0) -> np.ndarray:
    """Number of the fold in which each clip is tested: int [n]. No group is in two folds; classes are spread evenly.

    There are fewer folds when there are fewer groups.

    Raises
    ------
    DataError
        Only one group.
    """
    labels, groups = np.asarray(labels), np.asarray(groups)
    n_groups = len(np.unique(groups))
    if n_groups < 2:
        raise DataError(f"only one group ({groups[0]!r}) to hold apart; pass other `groups`, for example the take")
    n_folds = min(n_folds, n_groups, int(np.bincount(labels).max()))
    if n_folds < 2:
        raise DataError(f"{len(labels)} clips are too few for two folds")
    fold = stratified_group_folds(labels, groups, n_folds, seed=seed)
    return np.unique(fold, return_inverse=True)[1]  # with few groups the splitter can leave a fold empty


def inner_folds(labels: np.ndarray, groups: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    if len(np.unique(groups)) > 1:
        return grouped_folds(labels, groups, n_folds, seed=seed)
    # One training speaker is left: inner folds by clip. Stopping may suffer, but nothing of the test part is seen.
    n_folds = min(n_folds, int(np.bincount(labels).max()))
    if n_folds < 2:
        raise DataError(f"{len(labels)} training clips are too few for inner folds")
    return _numbers(StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(labels, labels), len(labels))


def _numbers(splits: Iterator[tuple[np.ndarray, np.ndarray]], n: int) -> np.ndarray:
    fold = np.empty(n, dtype=int)
    with warnings.catch_warnings():
        # A class with fewer clips than folds cannot be in every fold; small corpora have such, and it is no fault.
        warnings.filterwarnings("ignore", message="The least populated class")
        for number, (_, test) in enumerate(splits):
            fold[test] = number
    return fold
