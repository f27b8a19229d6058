"""Encoders behind one table: look them up by name, list them, take a whole profile.

An encoder turns a decoded clip into one stream's features. To add one, subclass :class:`Encoder` and
:func:`register` it; several registered names may share a class, each with settings of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

import pandas as pd

from ecmf_lib.config import ENRICHMENT, PROFILES, STREAMS, did_you_mean
from ecmf_lib.encoders.audio import Egemaps, EgemapsLLD
from ecmf_lib.encoders.base import ClipInputs, Encoder, EncoderError, MissingStream
from ecmf_lib.encoders.cards import CARDS
from ecmf_lib.encoders.face_measures import FaceMeasures
from ecmf_lib.encoders.speech_timing import SpeechTiming
from ecmf_lib.encoders.text import CharNgram
from ecmf_lib.encoders.vision import HogColourMotion, HogLbpFace, HogLbpFaceFrames

__all__ = [
    "CARDS",
    "FAMILIES",
    "ClipInputs",
    "Encoder",
    "EncoderError",
    "MissingStream",
    "encoders",
    "get_encoder",
    "profile",
    "register",
]

#: Family of pre-trained models → module and class that load it; imported when one is asked for, because torch is slow.
FAMILIES = {
    "timm": ("images", "TimmImages"),
    "hf-image": ("images", "TransformersImages"),
    "hf-video": ("images", "TransformersVideo"),
    "onnx-face": ("onnx", "OnnxFaces"),
    "insightface": ("onnx", "FaceRecognition"),
    "hf-speech": ("speech", "Speech"),
    "whisper": ("speech", "WhisperSpeech"),
    "hf-text": ("language", "Language"),
}

_FACTORIES: dict[str, Callable[..., Encoder]] = {}


def register(name: str, factory: Callable[..., Encoder]) -> None:
    """Make an encoder known under `name`; the same class again, of a file that was read anew, replaces it.

    Parameters
    ----------
    name : str
        What notebooks and stores call it.
    factory : callable
        ``factory(**settings)`` gives the encoder, cheaply: weights are loaded on first use. A class will do.

    Raises
    ------
    EncoderError
        If the name is taken, or the class was written in a notebook's cell: worker processes import it by name.
    """
    main = sys.modules.get("__main__")
    if getattr(factory, "__module__", "") == "__main__" and not hasattr(main, "__file__"):
        raise EncoderError(
            f"encoder '{name}': worker processes cannot see a class of a notebook's cell; register it from a file of "
            "its own, such as my_encoder.py beside the notebook, and import that"
        )
    if (name in _FACTORIES and _place(_FACTORIES[name]) != _place(factory)) or name in CARDS:
        raise EncoderError(f"an encoder '{name}' is registered already; choose another name")
    _FACTORIES[name] = factory


def _place(factory: Callable) -> tuple:
    return getattr(factory, "__module__", None), getattr(factory, "__qualname__", factory)


def get_encoder(name: str, *, weights: Path | str | None = None, **settings) -> Encoder:
    """The encoder called `name`, with its default settings unless given.

    Parameters
    ----------
    name : str
        One of :func:`encoders`.
    weights : path, optional
        Folder whose sub-folder or file `name` takes the place of the published weights.

    Raises
    ------
    EncoderError
        For an unknown name (the message lists the known ones) or an unknown setting.
    """
    if name in _FACTORIES:
        return _FACTORIES[name](**settings)
    if name in CARDS:
        return _family(CARDS[name].family)(CARDS[name], weights, **settings)
    known = sorted([*_FACTORIES, *CARDS])
    raise EncoderError(f"no encoder '{name}'{did_you_mean(name, known)}; choose from {', '.join(known)}")


def _family(name: str) -> type:
    module, class_name = FAMILIES[name]
    return getattr(import_module(f"ecmf_lib.encoders.{module}"), class_name)


def encoders() -> pd.DataFrame:
    """What there is, in stream order, classical descriptors first; nothing is loaded.

    Returns
    -------
    DataFrame
        Columns name, stream, dim (of one step), licence, weights (where they come from), parameters_m (millions),
        download_mb, memory_mb (of the weights in single precision), choice (whose).
    """
    rows = []
    for made in (get_encoder(name) for name in _FACTORIES):
        rows.append([made.name, made.stream, made.dim, made.licence, "none", 0, 0, 0, "ours"])
    for card in CARDS.values():
        size = [card.parameters, card.download, card.memory]
        rows.append([card.name, card.stream, card.width, card.licence, card.source, *size, card.choice])
    rows.sort(key=lambda row: STREAMS.index(row[1]))
    columns = "name stream dim licence weights parameters_m download_mb memory_mb choice".split()
    return pd.DataFrame(rows, columns=columns)


def profile(
    name: str, swaps: Mapping[str, str | Mapping] | None = None, *, weights: Path | str | None = None
) -> dict[str, Encoder]:
    """Stream → encoder of a profile, in the order of :data:`ecmf_lib.config.STREAMS`.

    Parameters
    ----------
    name : str
        One of :data:`ecmf_lib.config.PROFILES`.
    swaps : mapping, optional
        Stream → what takes the place of the profile's encoder: a name, or ``{"name": …, setting: value, …}``; without
        "name", the profile's own encoder with other settings.
    weights : path, optional
        As for :func:`get_encoder`.

    Raises
    ------
    EncoderError
        For an unknown profile, stream, encoder or setting, or an encoder of another stream; says what there is.
    """
    if name not in PROFILES:
        raise EncoderError(f"no profile '{name}'{did_you_mean(name, PROFILES)}; choose from {', '.join(PROFILES)}")
    chosen = {stream: {"name": encoder} for stream, encoder in PROFILES[name].items()}
    for stream, swap in (swaps or {}).items():
        if stream not in (*STREAMS, ENRICHMENT):
            known = (*STREAMS, ENRICHMENT)
            meant = did_you_mean(stream, known)
            raise EncoderError(f"encoders: no stream '{stream}'{meant}; choose from {', '.join(known)}")
        chosen[stream] = {"name": swap} if isinstance(swap, str) else chosen.get(stream, {}) | swap
        if "name" not in chosen[stream]:
            raise EncoderError(f"encoders: profile '{name}' has no stream '{stream}'; give it a name: {swap}")
    made = {
        stream: get_encoder(weights=weights, **chosen[stream]) for stream in (*STREAMS, ENRICHMENT) if stream in chosen
    }
    for stream, encoder in made.items():
        if encoder.stream != stream:
            raise EncoderError(f"encoder '{encoder.name}' is for stream '{encoder.stream}', not for '{stream}'")
    return made


for _class in (
    HogColourMotion, HogLbpFace, HogLbpFaceFrames, FaceMeasures, Egemaps, EgemapsLLD, SpeechTiming, CharNgram,
):  # fmt: skip
    register(_class.name, _class)
