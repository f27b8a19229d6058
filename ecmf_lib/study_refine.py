"""Does refinement help, honestly? Arms on the same folds, with noise of known truth, for notebooks 03 and 04."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ecmf_lib import noise
from ecmf_lib.evaluate import compare, interval
from ecmf_lib.experts import log_softmax
from ecmf_lib.fit import ModelSpec, out_of_fold
from ecmf_lib.refine import ADOPT, FILTER, Refiner, Rule
from ecmf_lib.samples import FusionData
from ecmf_lib.study import REFERENCE, Study
from ecmf_lib.train import Preparation

GIVEN_ARM = "given labels"
OURS = "refined (ours)"
#: Each alternative on the same out-of-fold predictions: its consensus adopted; for confident learning, as cleanlab
#: does, the flagged clips left out.
ALTERNATIVES = {
    "confident learning": ("confident-learning", FILTER),
    "CROWDLAB alone": ("crowdlab", ADOPT),
    "CROWDLAB with our rule": ("crowdlab", Rule()),
    "Dawid-Skene": ("dawid-skene", ADOPT),
    "majority vote": ("majority", ADOPT),
    "weighted vote": ("weighted", ADOPT),
}


@dataclass(frozen=True, eq=False)
class WithNoise:
    """Training labels replaced by noisy ones, before anything else is done to a training part.

    The tested clips never pass through here: they keep the labels that they had.

    Attributes
    ----------
    ids : tuple of str
    labels : int64 [n]
        Noisy labels of these clips.
    then : Preparation or None
        What is done next, for instance :class:`ecmf_lib.refine.Refiner`.
    """

    ids: tuple[str, ...]
    labels: np.ndarray
    then: Preparation | None = None

    def __call__(self, part: FusionData, groups: np.ndarray, *, seed: int, epochs: int):
        """The part with noisy labels, and what `then` makes of it."""
        place = {clip: row for row, clip in enumerate(self.ids)}
        noisy = replace(part, labels=self.labels[[place[clip] for clip in part.ids]], soft=None)
        return self.then(noisy, groups, seed=seed, epochs=epochs) if self.then else (noisy, groups)

    def about(self) -> list:
        """What a result depends on."""
        return [list(self.ids), self.labels.tolist(), self.then.about() if self.then else None]


def inject(study: Study, kind: str, rate: float, seed: int) -> np.ndarray:
    """Noisy labels of all clips: int64 [n]. For noise that depends on the clip, models say what it looks like."""
    data, rng = study.data, np.random.default_rng([seed, 6])
    if not rate:
        return data.labels.copy()
    chances = None
    if kind == "instance-dependent":
        # Not the experts that refine later: noise made by them would be noise that they know.
        looks = ModelSpec("looks", "late-logistic", options={"C": 0.01})
        chances = np.exp(log_softmax(out_of_fold(data, looks, seed=seed, epochs=1)))
    return noise.inject(kind, data.labels, len(data.classes), rate, rng, chances=chances)


def arms(alternatives: bool) -> dict[str, Refiner | None]:
    """Arm → what it does to the labels."""
    found: dict[str, Refiner | None] = {GIVEN_ARM: None, OURS: Refiner()}
    if alternatives:
        found |= {name: Refiner(method=method, rule=rule) for name, (method, rule) in ALTERNATIVES.items()}
    return found


def noise_study(
    study: Study,
    kind: str,
    rates: Sequence[float],
    *,
    alternatives: bool = True,
    seeds: Sequence[int] | None = None,
    spec: ModelSpec | None = None,
) -> dict[tuple[float, str], pd.DataFrame]:
    """ECMF trained on noisy, refined and otherwise mended labels, always scored against the labels before the noise.

    Each seed draws its own noise, the same for all arms.

    Returns
    -------
    dict
        (rate, arm) → predictions.
    """
    spec = spec or ModelSpec(REFERENCE, "ecmf")
    seeds = study.seeds(side=True) if seeds is None else seeds
    found: dict[tuple[float, str], pd.DataFrame] = {}
    for rate in rates:
        for arm, refiner in arms(alternatives and rate > 0).items():
            parts = []
            for seed in seeds:
                noisy = WithNoise(tuple(study.data.ids), inject(study, kind, rate, seed), refiner)
                named = replace(spec, name=arm)
                parts.append(study.cross_validated(study.data, named, seeds=(seed,), prepare=noisy))
            found[rate, arm] = pd.concat(parts, ignore_index=True)
    return found


def noise_table(
    runs: Mapping[tuple[float, str], pd.DataFrame], kind: str, *, n_boot: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Scores of :func:`noise_study`: kind, rate, arm, weighted_f1, low, high, `recovered`, difference to ours.

    `recovered` is the share of the weighted F1 lost to the noise that an arm wins back; NaN where nothing was lost.
    """
    rows = []
    clean = interval(runs[0.0, GIVEN_ARM], n_boot=n_boot, seed=seed).value if (0.0, GIVEN_ARM) in runs else np.nan
    for (rate, arm), table in runs.items():
        found = interval(table, n_boot=n_boot, seed=seed)
        lost = clean - interval(runs[rate, GIVEN_ARM], n_boot=50, seed=seed).value
        paired = compare(table, runs[rate, OURS], n_boot=n_boot, seed=seed) if arm != OURS else None
        rows.append(
            {
                "kind": kind,
                "rate": rate,
                "arm": arm,
                "weighted_f1": found.value,
                "low": found.low,
                "high": found.high,
                "recovered": 1 - (clean - found.value) / lost if rate and lost > 0 and arm != GIVEN_ARM else np.nan,
                "difference": paired.difference if paired else 0.0,
                "difference_low": paired.low if paired else np.nan,
                "difference_high": paired.high if paired else np.nan,
            }
        )
    return pd.DataFrame(rows)
