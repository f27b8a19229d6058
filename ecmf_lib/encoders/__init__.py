"""Encoders behind one table: look them up by name, list them, take a whole profile.

An encoder turns a decoded clip into one stream's features. To add one, subclass :class:`Encoder` and
:func:`register` it; several registered names may share a class, each with settings of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from ecmf_lib.config import STREAMS
from ecmf_lib.encoders.audio import Egemaps, EgemapsLLD
from ecmf_lib.encoders.base import ClipInputs, Encoder, EncoderError, MissingStream
from ecmf_lib.encoders.text import CharNgram
from ecmf_lib.encoders.vision import HogColourMotion, HogLbpFace, HogLbpFaceFrames

__all__ = [
    "PROFILES",
    "ClipInputs",
    "Encoder",
    "EncoderError",
    "MissingStream",
    "encoders",
    "get_encoder",
    "profile",
    "register",
]

#: Profile → the encoder of each stream. "light" downloads nothing.
PROFILES: dict[str, dict[str, str]] = {
    "light": {"global": "hog-colour-motion", "face": "hog-lbp-face", "audio": "egemaps", "text": "char-ngram"},
}

_FACTORIES: dict[str, Callable[..., Encoder]] = {}


def register(name: str, factory: Callable[..., Encoder]) -> None:
    """Make an encoder known under `name`.

    Parameters
    ----------
    name : str
        What notebooks and stores call it.
    factory : callable
        ``factory(**settings)`` gives the encoder, cheaply: weights are loaded on first use. A class will do.

    Raises
    ------
    EncoderError
        If the name is taken.
    """
    if name in _FACTORIES:
        raise EncoderError(f"an encoder '{name}' is registered already; choose another name")
    _FACTORIES[name] = factory


def get_encoder(name: str, **settings) -> Encoder:
    """The encoder registered as `name`, with its default settings unless given.

    Raises
    ------
    EncoderError
        For an unknown name (the message lists the known ones) or an unknown setting.
    """
    if name not in _FACTORIES:
        raise EncoderError(f"no encoder '{name}'; choose from {', '.join(sorted(_FACTORIES))}")
    return _FACTORIES[name](**settings)


def encoders() -> pd.DataFrame:
    """What there is: columns name, stream, dim, level, licence, weights; in stream order, then by name."""
    made = [get_encoder(name) for name in _FACTORIES]
    made.sort(key=lambda encoder: (STREAMS.index(encoder.stream), encoder.name))
    columns = ["name", "stream", "dim", "level", "licence", "weights"]
    return pd.DataFrame([[getattr(encoder, column) for column in columns] for encoder in made], columns=columns)


def profile(name: str) -> dict[str, Encoder]:
    """Stream → encoder of a profile, in the order of :data:`ecmf_lib.config.STREAMS`.

    Raises
    ------
    EncoderError
        For an unknown profile; the message lists the known ones.
    """
    if name not in PROFILES:
        raise EncoderError(f"no profile '{name}'; choose from {', '.join(sorted(PROFILES))}")
    return {stream: get_encoder(PROFILES[name][stream]) for stream in STREAMS}


for _class in (HogColourMotion, HogLbpFace, HogLbpFaceFrames, Egemaps, EgemapsLLD, CharNgram):
    register(_class.name, _class)
