"""Generated features at the size of the challenge, with a known ceiling.

7,369 labelled and 20,000 further clips, streams of 1024, 768 and 1024 features. Made so that models can differ: no
stream knows the emotion of every clip (in part of the clips a stream says nothing, and which one does so differs from
clip to clip), streams confuse different emotions, each speaker shifts all that a stream shows, the candidates'
speakers are not those of the labelled clips, most of a stream's variance is not about emotion at all, falling off
slowly, as in real features, and a share of the labels that are trained on may be wrong. Because we made them, the best
possible score is known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from sklearn.metrics import f1_score

from ecmf_lib import noise
from ecmf_lib.config import EMOTIONS
from ecmf_lib.samples import FusionData

STREAMS = {"audio": 1024, "text": 768, "face": 1024}
LABELLED, CANDIDATES, SPEAKERS = 7369, 20000, 1000
_PRIOR = np.array([0.24, 0.21, 0.19, 0.16, 0.13, 0.07])  # unequal, as emotions in film and TV are
_TELLS = {"audio": 0.65, "text": 0.5, "face": 0.6}  # share of the clips in which a stream says something
_LATENT, _NUISANCE = 16, 300  # directions that know the emotion; that do not
_APART, _OWN = 0.85, 0.6  # spread of the classes' means and of what is a speaker's own, in deviations of a clip


@dataclass(frozen=True)
class Challenge:
    """Clips to train on, clips to predict, and what nobody could beat.

    Attributes
    ----------
    labelled, candidates : FusionData
        The candidates' labels are for scoring alone.
    ceiling : float
        Weighted F1 on the candidates of the best possible classifier, which knows how the features were made.
    """

    labelled: FusionData
    candidates: FusionData
    ceiling: float


def challenge(
    seed: int = 0,
    *,
    wrong: float = 0.0,
    labelled: int = LABELLED,
    candidates: int = CANDIDATES,
    scale: float = 1.0,
) -> Challenge:
    """Draw a challenge.

    Parameters
    ----------
    seed : int
    wrong : float
        Share of the labelled clips that get another label at random; the candidates keep theirs.
    labelled, candidates : int
        Clips.
    scale : float
        Shortens the streams for quick looks.
    """
    rng = np.random.default_rng(seed)
    n = labelled + candidates
    labels = rng.choice(len(EMOTIONS), n, p=_PRIOR)
    known = np.arange(n) < labelled
    speaker = np.where(known, rng.integers(0, SPEAKERS // 2, n), rng.integers(SPEAKERS // 2, SPEAKERS, n))
    streams, likelihood = {}, np.log(_PRIOR)[None] + np.zeros((n, len(EMOTIONS)))
    for name, full in STREAMS.items():
        dim = max(_LATENT + 8, round(full * scale))
        x, evidence = _stream(rng, labels, speaker, dim, _TELLS[name])
        streams[name], likelihood = x, likelihood + evidence
    ids = [f"clip{i:05d}" for i in range(n)]
    data = FusionData(
        ids=ids,
        labels=labels,
        speakers=[f"speaker{s}" for s in speaker],
        streams=streams,
        present={name: np.ones(n, bool) for name in streams},
        classes=EMOTIONS,
    )
    best = f1_score(labels[~known], likelihood[~known].argmax(1), average="weighted")
    given = data.select(known)
    if wrong:
        worse = noise.inject("symmetric", given.labels, len(EMOTIONS), wrong, np.random.default_rng(seed + 1))
        given = replace(given, labels=worse)
    return Challenge(given, data.select(~known), float(best))


def _stream(rng, labels: np.ndarray, speaker: np.ndarray, dim: int, tells: float) -> tuple[np.ndarray, np.ndarray]:
    """Features float32 [n, dim], and the true log-likelihood of each class [n, classes] up to a constant."""
    n, classes = len(labels), len(EMOTIONS)
    means = rng.normal(size=(classes, _LATENT)) * _APART
    says = rng.random(n) < tells
    own = rng.normal(size=(SPEAKERS, _LATENT)) * _OWN
    signal = rng.normal(size=(n, _LATENT)) + own[speaker] + np.where(says[:, None], means[labels], 0)
    spread = 2 * (1 + _OWN**2)  # to whoever sees one clip, a speaker's own is more deviation
    apart = ((signal[:, None] - means) ** 2).sum(2) / spread
    evidence = np.logaddexp(np.log(tells) - apart, np.log1p(-tells) - (signal**2).sum(1, keepdims=True) / spread)
    other = rng.normal(size=(n, _NUISANCE)) + rng.normal(size=(SPEAKERS, _NUISANCE))[speaker]
    other *= 3 * np.arange(1, _NUISANCE + 1) ** -0.5  # a few directions carry most of the variance
    mixed = np.concatenate([signal, other], axis=1).astype(np.float32)
    mixing = rng.normal(size=(mixed.shape[1], dim)).astype(np.float32) / (_LATENT + 10) ** 0.5
    x = np.tanh(0.5 * (mixed @ mixing)) * 2  # bent, as the output of a deep network is
    return x + 0.3 * rng.standard_normal((n, dim), dtype=np.float32), evidence
