"""Do the words for a voice agree with what is known of it? Tables for people; nothing here feeds an encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from ecmf_lib.adapters import RAVDESS_NAME
from ecmf_lib.corpus import Corpus
from ecmf_lib.cues import Cues

#: Column → what a phrase of the voice holds.
SAID = {"louder": "louder", "quieter": "quieter", "higher": "higher in pitch", "lower": "lower in pitch"}

#: Class → arousal, after Russell's circumplex (J. Personality and Social Psychology 39, 1980).
AROUSAL = {
    "angry": "high",
    "happy": "high",
    "worried": "high",
    "surprise": "high",
    "neutral": "low",
    "sad": "low",
}


def agreement(cues: Sequence[Cues], groups: Mapping[str, str], *, said: Mapping[str, str] = SAID) -> pd.DataFrame:
    """How often a voice is called louder, higher, … in each group of clips.

    Parameters
    ----------
    cues : sequence of Cues
    groups : mapping
        Clip id → group, e.g. :func:`arousal` or :func:`intensity`; clips that are not in it do not count.
    said : mapping
        Column → part of a phrase of :attr:`Cues.voice`.

    Returns
    -------
    DataFrame
        One row a group, sorted: group, clips (how many), and a column for each of `said` (share of the clips, 0…1).
    """
    found = pd.DataFrame(
        [
            {"group": groups[one.id]}
            | {name: any(part in phrase for phrase in one.voice) for name, part in said.items()}
            for one in cues
            if one.id in groups
        ],
        columns=["group", *said],
    )
    shares = found.groupby("group")[list(said)].mean()
    shares.insert(0, "clips", found.groupby("group").size())
    return shares.reset_index()


def arousal(corpus: Corpus) -> dict[str, str]:
    """Clip id → "high" or "low" by the arousal of its label; clips without a label are not in it."""
    labels = zip(corpus.clips["id"], corpus.clips["label"], strict=True)
    return {clip_id: AROUSAL[label] for clip_id, label in labels if label in AROUSAL}


def intensity(corpus: Corpus) -> dict[str, str]:
    """RAVDESS clip id → "normal" or "strong"; takes of neutral, of which there are no strong ones, are not in it."""
    found = {}
    for clip_id in corpus.clips["id"]:
        name = RAVDESS_NAME.fullmatch(clip_id)
        codes = name["codes"].split("-") if name else None
        if codes and codes[2] != "01":
            found[clip_id] = {"01": "normal", "02": "strong"}.get(codes[3], "unknown")
    return found
