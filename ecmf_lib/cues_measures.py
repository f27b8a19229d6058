"""Measures of voice and face of each clip, compared with what is usual, and said in words.

*Usual* is the median of the speaker's own clips where there are at least :data:`ENOUGH` of them, else of the whole
corpus; each phrase says which. What counts as unusual is set by the spread of the clips around that median, by the
threshold :data:`NOTICEABLE`, and by the smallest difference that people hear or that the measure resolves. None of it
uses labels. It does use the speaker's other clips, unlabelled and of any split: a habit is a property of the speaker.
So a clip's words may change when clips are added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ecmf_lib.corpus import Corpus
from ecmf_lib.store import FeatureSet

#: Clips of a speaker from which on their median stands for a habit: its standard error, 1.25 s/√n (Gaussian), is then
#: about half of the threshold NOTICEABLE at most.
ENOUGH = 6
NOTICEABLE = 1.0  # robust standard deviations from the usual: a third of Gaussian clips, one sixth on each side
STRONG = 2.0  # and from here on "much": one clip in twenty
#: Semitones above the clip's median at which a final rise is said: smaller ones play no part in conversation ('t Hart,
#: "Differential sensitivity to pitch distance, particularly in speech", J. Acoust. Soc. Am. 69, 1981).
RISE = 3.0

#: How a phrase ends that compares, by what it compares with.
USUAL = {"speaker": " than usual for this speaker", "corpus": " than usual for this corpus"}

_F0 = "F0semitoneFrom27.5Hz_sma3nz_"


@dataclass(frozen=True)
class Measure:
    """One number a clip and the words for it.

    Parameters
    ----------
    name : str
        Column of :func:`measure`.
    encoder : str
        Whose features it is taken from.
    of : callable
        Features by name (DataFrame) → Series; NaN where it does not apply.
    least : float
        Smallest difference from the usual that may be mentioned, in the measure's unit.
    more, less : str
        Phrases, with ``{}`` where "much " goes; empty if this direction has not been seen to work.
    """

    name: str
    encoder: str
    of: Callable[[pd.DataFrame], pd.Series]
    least: float
    more: str
    less: str = ""


def _loudness(features: pd.DataFrame) -> pd.Series:
    # about decibels: eGeMAPS's loudness is about the cube root of energy. The 80th percentile leaves silence out
    return 10 * np.log2(features["loudness_sma3_percentile80.0"].clip(lower=1e-3))


def _voiced(column: str) -> Callable[[pd.DataFrame], pd.Series]:
    """A column of eGeMAPS, where the clip has any voice: openSMILE writes 0 where it has none."""
    return lambda features: features[column].where(features[_F0 + "percentile50.0"] > 0)


def _column(name: str) -> Callable[[pd.DataFrame], pd.Series]:
    return lambda features: features[name]


#: Least differences: 1 dB is just heard; pitch 1.5 semitones ('t Hart 1981, words); tempo 5 % of 5 syllables a second
#: (Quené, J. Phonetics 35, 2007). Spectral balance (alpha ratio, dB) says how hard a real voice works; on the demo's
#: synthetic voices its words need not hold. Left out: jitter, shimmer and harmonics-to-noise ratio, whose words are not
#: tested, and tempo and pauses from eGeMAPS's functionals (see ecmf_lib.encoders.speech_timing).
VOICE = (
    Measure("loudness", "egemaps", _loudness, 1.0, "{}louder", "{}quieter"),
    Measure("pitch", "egemaps", _voiced(_F0 + "percentile50.0"), 1.5, "{}higher in pitch", "{}lower in pitch"),
    Measure(
        "pitch_movement", "egemaps", _voiced(_F0 + "pctlrange0-2"), 1.5, "pitch moves {}more", "pitch moves {}less"
    ),
    Measure(
        "tension",
        "egemaps",
        _voiced("alphaRatioV_sma3nz_amean"),
        1.0,
        "voice {}sharper and tenser",
        "voice {}duller and laxer",
    ),
    Measure("tempo", "speech-timing", lambda f: f["tempo"].where(f["syllables"] >= 3), 0.25, "{}faster", "{}slower"),
    Measure("pauses", "speech-timing", _column("pause_share"), 0.05, "pauses {}more"),
)
#: Least differences: what changes when another detector aligns the same demo clips.
FACE = (
    Measure("smile", "face-measures", _column("smile"), 0.025, "smiles {}more"),
    Measure("mouth_open", "face-measures", _column("mouth_open"), 0.003, "mouth opens {}wider", "mouth opens {}less"),
    Measure("eyes_open", "face-measures", _column("eyes_open"), 0.01, "eyes {}wider open", "eyes {}more closed"),
    Measure("movement", "face-measures", _column("movement"), 0.008, "face moves {}more", "face moves {}less"),
)
#: Encoders whose feature sets the cues are made from.
ENCODERS = tuple(dict.fromkeys(measure.encoder for measure in (*VOICE, *FACE)))


def measure(corpus: Corpus, sets: Mapping[str, FeatureSet]) -> pd.DataFrame:
    """All measures of all clips.

    Parameters
    ----------
    corpus : Corpus
    sets : mapping of str to FeatureSet
        Encoder name → its features of this corpus; any of :data:`ENCODERS`, none of them needed.

    Returns
    -------
    DataFrame
        One row a clip, in manifest order: id, and for each measure ``<name>`` (its value, NaN where there is none),
        ``<name>_z`` (robust standard deviations from the usual, NaN where nothing is usual) and ``<name>_for``
        ("speaker", "corpus" or ""). Column final_pitch (semitones) where speech-timing is given.

    Raises
    ------
    ValueError
        For a key that is no such encoder, or a set of another encoder.
    """
    ids, speakers = corpus.clips["id"].tolist(), corpus.clips["speaker"]
    features = {name: _features(name, found, ids) for name, found in sets.items()}
    columns: dict[str, object] = {"id": ids}
    for one in (*VOICE, *FACE):
        if one.encoder in features:
            values = one.of(features[one.encoder])
            columns[one.name] = values
            columns[f"{one.name}_z"], columns[f"{one.name}_for"] = compare(values, speakers, one.least)
    if "speech-timing" in features:
        columns["final_pitch"] = features["speech-timing"]["final_pitch"]
    return pd.DataFrame(columns)


def _features(name: str, found: FeatureSet, ids: list[str]) -> pd.DataFrame:
    if name not in ENCODERS or found.encoder != name:
        raise ValueError(f"cues: '{name}' holds features of '{found.encoder}'; give sets by encoder: {ENCODERS}")
    matrix, present = found.matrix(ids)
    values = np.where(present[:, None], matrix, np.nan)
    return pd.DataFrame(values, columns=found.about["feature_names"])


def compare(values: pd.Series, speakers: pd.Series, least: float) -> tuple[pd.Series, pd.Series]:
    """How far each clip is from what is usual.

    Parameters
    ----------
    values : Series of float [clips]
        NaN where a clip has none.
    speakers : Series of str [clips]
        "" where nobody knows.
    least : float
        The spread counts as this at least.

    Returns
    -------
    z : Series of float [clips]
        (value - median) / spread. The median is the speaker's with :data:`ENOUGH` clips, else the corpus's. The
        spread is 1.4826 times the median absolute deviation from these medians, one for all speakers and one for the
        corpus: that of so few clips of one speaker would be guesswork. NaN without ENOUGH clips in the corpus.
    reference : Series of str [clips]
        "speaker", "corpus", or "" where z is NaN.
    """
    known = values[speakers != ""].groupby(speakers)
    centre = known.transform("median").where(known.transform("count") >= ENOUGH).reindex(values.index)
    own = centre.notna() & values.notna()
    rest = values.notna() & ~own & (values.notna().sum() >= ENOUGH)
    z = pd.Series(np.nan, index=values.index)
    z[own] = _scaled(values - centre, own, least)
    z[rest] = _scaled(values - values.median(), rest, least, values.notna())
    return z, pd.Series(np.select([own, rest], ["speaker", "corpus"], ""), index=values.index)


def _scaled(away: pd.Series, wanted: pd.Series, least: float, measured: pd.Series | None = None) -> pd.Series:
    spread = 1.4826 * away[wanted if measured is None else measured].abs().median()
    return away[wanted] / max(spread, least)


def phrases(row: Mapping[str, object], measures: tuple[Measure, ...]) -> tuple[str, ...]:
    """What is unusual about one row of :func:`measure`, e.g. ``("much louder than usual for this speaker",)``."""
    said = []
    for one in measures:
        z = row.get(f"{one.name}_z", np.nan)
        words = one.more if z > 0 else one.less
        if abs(z) >= NOTICEABLE and words:  # never true of NaN
            much = "much " if abs(z) >= STRONG else ""
            said.append(words.format(much) + USUAL[row[f"{one.name}_for"]])
    if measures is VOICE and row.get("final_pitch", 0) >= RISE:
        said.append("pitch rises at the end")
    return tuple(said)
