"""Voice without a model: openSMILE's eGeMAPSv02 descriptors, and the pitch contour for pictures.

eGeMAPS: Eyben et al., "The Geneva Minimalistic Acoustic Parameter Set (GeMAPS) for Voice Research and Affective
Computing", IEEE Trans. Affective Computing 7(2), 2016.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd

from ecmf_lib.config import SAMPLE_RATE
from ecmf_lib.encoders.base import ClipInputs, Encoder, MissingStream

SHORTEST = 0.3  # s; below, there are too few 60 ms pitch windows for a functional to mean anything
SILENCE = 1e-4  # peak amplitude (-80 dB of full scale); dither of a muted track stays below
HOP = 0.01  # s between low-level descriptors, fixed by eGeMAPS
PITCH_CENTRE = 0.03  # s from the start of the 60 ms window in which pitch is sought to its middle
PITCH = "F0semitoneFrom27.5Hz_sma3nz"


@lru_cache(maxsize=2)
def _smile(level: str):
    # one per process and level: building it parses openSMILE's configuration files
    import opensmile

    feature_level = {"clip": opensmile.FeatureLevel.Functionals, "frame": opensmile.FeatureLevel.LowLevelDescriptors}
    return opensmile.Smile(feature_set=opensmile.FeatureSet.eGeMAPSv02, feature_level=feature_level[level])


def _descriptors(level: str, audio: np.ndarray) -> np.ndarray:
    """[features, steps]; what openSMILE leaves undefined becomes 0, its own value for "no voiced segment"."""
    values = _smile(level)(audio, SAMPLE_RATE)[0]
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


class _Egemaps(Encoder):
    stream = "audio"
    licence = "audEERING Research License: research and other non-commercial use (openSMILE 3)"
    weights = "none"
    uses = frozenset({"audio"})
    version = 1
    libraries = ("opensmile",)

    @property
    def feature_names(self) -> list[str]:
        return list(_smile(self.level).feature_names)

    def _encode(self, clip: ClipInputs) -> np.ndarray:
        if not clip.audio.size:
            raise MissingStream("no audio track")
        if len(clip.audio) < SHORTEST * SAMPLE_RATE:
            raise MissingStream(f"audio shorter than {SHORTEST} s")
        if np.abs(clip.audio).max() < SILENCE:
            raise MissingStream("audio is silent")
        values = _descriptors(self.level, clip.audio)
        return values[:, 0] if self.level == "clip" else values.T


class Egemaps(_Egemaps):
    """88 functionals of pitch, loudness, spectrum, voice quality and tempo over the whole clip."""

    name = "egemaps"
    level = "clip"
    dim = 88


class EgemapsLLD(_Egemaps):
    """The 25 low-level descriptors under :class:`Egemaps`, one row every 10 ms."""

    name = "egemaps-lld"
    level = "frame"
    dim = 25


def pitch(audio: np.ndarray, sr: int) -> pd.DataFrame:
    """Fundamental frequency over time, from openSMILE's subharmonic summation as in eGeMAPS.

    Parameters
    ----------
    audio : float32 [samples]
        Mono.
    sr : int
        Sample rate in Hz; anything but 16 kHz is resampled.

    Returns
    -------
    DataFrame
        Columns time (s, middle of the window), hz (NaN where unvoiced), voiced (bool); a row every 10 ms; no
        rows for less than 0.3 s.
    """
    if sr != SAMPLE_RATE:
        import torch
        import torchaudio

        audio = torchaudio.functional.resample(torch.from_numpy(audio), sr, SAMPLE_RATE).numpy()
    if len(audio) < SHORTEST * SAMPLE_RATE:
        semitones = np.empty(0, np.float32)
    else:
        semitones = _descriptors("frame", audio)[_smile("frame").feature_names.index(PITCH)]
    voiced = semitones > 0
    hz = np.where(voiced, 27.5 * 2 ** (semitones / 12), np.nan)
    return pd.DataFrame({"time": np.arange(len(semitones)) * HOP + PITCH_CENTRE, "hz": hz, "voiced": voiced})
