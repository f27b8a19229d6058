"""Features on one scale: standardised, then turned to their principal directions. Learned from training clips only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from sklearn.decomposition import PCA

from ecmf_lib.samples import FusionData

#: Standardised features are cut here: a column that is nearly always 0 would otherwise reach tens of deviations.
CLIP_AT = 5.0


def fit_standardiser(data: FusionData) -> dict[str, np.ndarray]:
    """``mean.<s>`` and ``gain.<s>`` (1/deviation) of each feature over the clips that have stream s: float32 [dim]."""
    found = {}
    for name, x in data.streams.items():
        rows = _rows(x[data.present[name]]).astype(np.float64)
        rows = rows if len(rows) else np.zeros((1, x.shape[-1]))
        mean, spread = rows.mean(0), rows.std(0)
        varies = spread > 1e-6 * (np.abs(mean) + 1e-6)
        found[f"mean.{name}"] = mean.astype(np.float32)
        found[f"gain.{name}"] = np.where(varies, 1 / np.where(varies, spread, 1), 0).astype(np.float32)
    return found


def standardise(data: FusionData, scale: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Stream → standardised features float32, shaped as in `data`, cut at ±:data:`CLIP_AT`, 0 where it is missing."""
    found = {}
    for name, x in data.streams.items():
        z = np.clip((x - scale[f"mean.{name}"]) * scale[f"gain.{name}"], -CLIP_AT, CLIP_AT)
        found[name] = np.where(data.present[name].reshape(-1, *[1] * (x.ndim - 1)), z, np.float32(0))
    return found


def learnable(data: FusionData, scale: Mapping[str, np.ndarray]) -> FusionData:
    """The same clips, without streams that said nothing in training (missing, or constant): no model knows them."""
    mute = [name for name in data.streams if not scale[f"gain.{name}"].any()]
    return replace(data, present=data.present | {name: np.zeros(len(data), bool) for name in mute}) if mute else data


def turned(x: Mapping[str, np.ndarray], scale: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Standardised features in the basis of :func:`fit_rotation`; as they are where `scale` has none."""
    return {name: z @ scale[f"rotate.{name}"] if f"rotate.{name}" in scale else z for name, z in x.items()}


def fit_rotation(data: FusionData, x: Mapping[str, np.ndarray], components: int, seed: int) -> dict[str, np.ndarray]:
    """Principal directions of each standardised stream: ``rotate.<s>`` float32 [dim, k], k at most `components`.

    Each turned feature keeps its share of the variance (no whitening), the mean variance is 1. Adam treats every input
    alike; in this basis that means: strong directions first. On 12 RAVDESS actors, one seed: ECMF .735 → .748,
    baseline attention .739 → .764, concatenation .702 → .759; whitening, even in part, loses 2 to 9 points there.
    """
    found = {}
    for name, z in x.items():
        rows = _rows(z[data.present[name]])
        if not len(rows):
            rows = np.zeros((1, z.shape[-1]), np.float32)
        k = min(components, *rows.shape)
        pca = PCA(k, random_state=seed).fit(rows)
        power = max(float(np.nan_to_num(pca.explained_variance_).mean()), 1e-12)
        found[f"rotate.{name}"] = (pca.components_.T / power**0.5).astype(np.float32)
    return found


def _rows(x: np.ndarray) -> np.ndarray:
    return x.reshape(-1, x.shape[-1])
