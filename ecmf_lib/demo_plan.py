"""What every clip of the demo corpus will be, decided before anything is drawn: pure, and fast.

A clip has a true emotion. Each stream is drawn to be informative (expresses it), uninformative (expresses nothing:
neutral, faintly) or at odds (expresses another one) with known probabilities, so that no stream suffices; at least
two are informative, so that all of them together nearly do. Three simulated annotators confuse classes the way
people do; their majority is the label that the corpus gives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ecmf_lib.config import EMOTIONS, STREAMS
from ecmf_lib.demo_text import LANGUAGES, say

MAX_SPEAKERS = 12
STATES = ("informative", "uninformative", "at odds")

#: Stream → probability of each of STATES, before clips with fewer than AT_LEAST informative streams are redrawn.
STATE_ODDS = {
    "global": (0.42, 0.34, 0.24),
    "face": (0.60, 0.22, 0.18),
    "audio": (0.66, 0.18, 0.16),
    "text": (0.64, 0.18, 0.18),
}

AT_LEAST = 2  # informative streams: with fewer, nobody could tell what is felt

#: What an emotion is taken for when it is not recognised: rows true, columns perceived, in the order of EMOTIONS.
MISTAKEN_FOR = np.array(
    [
        [0.0, 0.1, 0.2, 0.3, 0.3, 0.1],  # neutral
        [0.25, 0.0, 0.0, 0.15, 0.35, 0.25],  # angry
        [0.4, 0.0, 0.0, 0.05, 0.05, 0.5],  # happy
        [0.4, 0.1, 0.0, 0.0, 0.5, 0.0],  # sad
        [0.2, 0.1, 0.0, 0.45, 0.0, 0.25],  # worried
        [0.1, 0.0, 0.45, 0.0, 0.45, 0.0],  # surprise
    ]
)

#: Annotator → how often each class is recognised; the third is a novice, and worried is hard for all of them.
RECOGNISED = np.array(
    [
        [0.91, 0.91, 0.95, 0.85, 0.78, 0.86],
        [0.87, 0.88, 0.93, 0.82, 0.74, 0.82],
        [0.80, 0.84, 0.90, 0.71, 0.64, 0.74],
    ]
)


@dataclass(frozen=True)
class ClipPlan:
    """One clip before it is made. ``shows``, ``states`` and ``strength`` have one entry for each of STREAMS."""

    id: str
    number: int  # position in the corpus; with the corpus seed it seeds everything random in the clip
    speaker: int
    language: str
    emotion: str
    intensity: float  # of the felt emotion, 0–1
    shows: dict[str, str]  # emotion that the stream expresses
    states: dict[str, str]  # one of STATES
    strength: dict[str, float]  # how strongly, 0–1
    transcript: str
    text_kind: str
    annotators: tuple[str, ...]
    split: str
    duration: float  # s


def confusions() -> np.ndarray:
    """Confusion matrices of the annotators, float64 [3 annotators, 6 true, 6 perceived]; rows sum to 1."""
    wrong = (1 - RECOGNISED)[:, :, None] * MISTAKEN_FOR
    return wrong + RECOGNISED[:, :, None] * np.eye(len(EMOTIONS))


def majority(votes: tuple[str, ...]) -> str:
    """The class named most often. Tie rule: among the classes tied, that of the first annotator who named one."""
    return max(votes, key=votes.count)


def plan_demo(n_clips: int, seed: int) -> list[ClipPlan]:
    """Plan a demo corpus.

    Parameters
    ----------
    n_clips : int
        At least 6. Up to 12 speakers share them evenly (at least 3, with 4 or more clips each from 12 clips on).
    seed : int

    Returns
    -------
    list of ClipPlan
        Emotions are balanced to within one clip. One clip in ten is unlabelled and one in twenty is for testing.
    """
    if n_clips < 6:
        raise ValueError(f"n_clips = {n_clips}: a demo corpus needs at least 6 clips, two for each of 3 speakers")
    n_speakers = min(MAX_SPEAKERS, max(3, n_clips // 4))
    rng = np.random.default_rng([seed, 1])
    speakers = np.arange(n_clips) * n_speakers // n_clips
    emotions = np.arange(n_clips) % len(EMOTIONS)
    order = np.concatenate([rng.permutation(np.flatnonzero(speakers == s)) for s in range(n_speakers)])
    splits = _splits(n_clips, rng)
    return [_plan_clip(n, int(speakers[n]), EMOTIONS[emotions[order[n]]], splits[n], seed) for n in range(n_clips)]


def _splits(n_clips: int, rng: np.random.Generator) -> list[str]:
    """Every 20 clips in a row (one speaker's, in the full corpus) hold two unlabelled ones and one for testing."""
    splits = []
    for start in range(0, n_clips, 20):
        size = min(20, n_clips - start)
        held = ["unlabelled"] * (size // 10) + ["test"] * (size // 20)
        splits += list(rng.permutation(held + ["labelled"] * (size - len(held))))
    return [str(split) for split in splits]


def _plan_clip(number: int, speaker: int, emotion: str, split: str, seed: int) -> ClipPlan:
    rng = np.random.default_rng([seed, 2, number])
    intensity = rng.uniform(0.55, 1.0)
    states = _draw_states(rng)
    shows = {s: _shown(states[s], emotion, rng) for s in STREAMS}
    strength = {s: _strength(states[s], intensity, rng) for s in STREAMS}
    language = LANGUAGES[speaker % len(LANGUAGES)]
    transcript, shows["text"], text_kind = say(states["text"], emotion, language, rng)
    rows = confusions()[:, EMOTIONS.index(emotion)]
    return ClipPlan(
        id=f"demo_{number:04d}",
        number=number,
        speaker=speaker,
        language=language,
        emotion=emotion,
        intensity=round(intensity, 3),
        shows=shows,
        states=states,
        strength=strength,
        transcript=transcript,
        text_kind=text_kind,
        annotators=tuple(str(rng.choice(EMOTIONS, p=row)) for row in rows),
        split=split,
        duration=round(rng.uniform(2.0, 3.0) * 15) / 15,
    )


def _draw_states(rng: np.random.Generator) -> dict[str, str]:
    while True:
        states = {s: str(rng.choice(STATES, p=STATE_ODDS[s])) for s in STREAMS}
        if list(states.values()).count("informative") >= AT_LEAST:
            return states


def _shown(state: str, emotion: str, rng: np.random.Generator) -> str:
    if state == "informative":
        return emotion
    if state == "uninformative":
        return "neutral"
    return str(rng.choice([other for other in EMOTIONS if other != emotion]))


def _strength(state: str, intensity: float, rng: np.random.Generator) -> float:
    if state == "uninformative":
        return round(rng.uniform(0.0, 0.2), 3)
    return round(float(np.clip(intensity * rng.uniform(0.85, 1.15), 0.0, 1.0)), 3)


def manifest_table(plans: list[ClipPlan]) -> pd.DataFrame:
    """The corpus manifest, one row a clip; labels and annotations only where the split is "labelled"."""
    rows = []
    for plan in plans:
        votes = plan.annotators if plan.split == "labelled" else ("",) * len(plan.annotators)
        rows.append(
            {
                "id": plan.id,
                "video": f"video/{plan.id}.mp4",
                "audio": "",
                "transcript": plan.transcript,
                "language": plan.language,
                "label": majority(votes),
                "split": plan.split,
                "speaker": f"speaker_{plan.speaker + 1:02d}",
                **{f"annotator_{k}": vote for k, vote in enumerate(votes, 1)},
            }
        )
    return pd.DataFrame(rows)


def truth_table(plans: list[ClipPlan]) -> pd.DataFrame:
    """What is known because it was made: one row a clip, all splits."""
    return pd.DataFrame(
        [
            {
                "id": plan.id,
                "emotion": plan.emotion,
                **{f"shows_{s}": plan.shows[s] for s in STREAMS},
                "text_kind": plan.text_kind,
                "intensity": plan.intensity,
                **{f"state_{s}": plan.states[s] for s in STREAMS},
                **{f"strength_{s}": plan.strength[s] for s in STREAMS if s != "text"},
                "duration": round(plan.duration, 4),
            }
            for plan in plans
        ]
    )
