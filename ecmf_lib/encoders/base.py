"""What every encoder is: a named, versioned function from one clip to one stream's features.

The table of encoders is in :mod:`ecmf_lib.encoders`; this module holds what they share.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import ClassVar, Literal

import numpy as np


class EncoderError(ValueError):
    """An unknown encoder or setting, or features that break the encoder's own declaration."""


# how a message calls the kind of a setting
_KINDS = {str: "a word", bool: "true or false (1 or 0)", int: "a number", float: "a number"}


def _alike(value: object, usual: object) -> bool:
    """Whether a setting's value is of the kind of its usual one; else it would be found out in the middle of a run."""
    if isinstance(usual, bool):
        return value in (True, False)  # 1 and 0 are these
    if isinstance(usual, int | float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, type(usual))


class MissingStream(Exception):
    """The clip has nothing for this stream; the message is the reason that the ledger records."""


@dataclass(frozen=True)
class ClipInputs:
    """One decoded clip, as every encoder receives it.

    Attributes
    ----------
    id : str
        Clip id, for messages.
    frames : uint8 [n, H, W, 3]
        Sampled RGB frames; n = 0 without video.
    times : float64 [n]
        Seconds from the start of the clip.
    crops : uint8 [n, 112, 112, 3]
        RGB face crops; the crop of a frame without a face is carried from the nearest frame with one.
    found : bool [n]
        Whether the frame has a face of its own.
    audio : float32 [samples]
        Mono, 16 kHz; size 0 without an audio track.
    transcript : str
        What is said.
    language : str
        Language tag of the transcript, may be empty.
    enrichment : str
        What a language model said about the emotion in the words; may be empty.
    """

    id: str
    frames: np.ndarray
    times: np.ndarray
    crops: np.ndarray
    found: np.ndarray
    audio: np.ndarray
    transcript: str
    language: str
    enrichment: str = ""


class Encoder(ABC):
    """Base of all encoders. A subclass declares the class attributes and implements :meth:`_encode`.

    Instances are small and picklable, because they travel to worker processes; anything heavy is made on the first
    :meth:`encode` of a process.

    Parameters
    ----------
    **settings
        Overrides of :attr:`defaults`; JSON-able values.

    Raises
    ------
    EncoderError
        For a setting that the encoder does not have.
    """

    name: ClassVar[str]
    stream: ClassVar[str]  # one of config.STREAMS
    level: ClassVar[Literal["clip", "frame"]]
    licence: ClassVar[str]
    weights: ClassVar[str]  # where they come from; "none" for classical descriptors
    uses: ClassVar[frozenset[str]]  # of {"frames", "faces", "audio", "text"}: what has to be decoded for it
    version: ClassVar[int]  # raised whenever the method gives other numbers
    libraries: ClassVar[tuple[str, ...]] = ()  # modules whose version can change the numbers
    defaults: ClassVar[Mapping[str, object]] = {}

    def __init__(self, **settings):
        unknown = sorted(set(settings) - set(self.defaults))
        if unknown:
            known = ", ".join(self.defaults) or "no settings"
            raise EncoderError(f"encoder '{self.name}' has no setting {', '.join(unknown)}; it takes {known}")
        for key, value in settings.items():
            usual = self.defaults[key]
            if usual is not None and not _alike(value, usual):  # a default of None allows anything
                raise EncoderError(
                    f"encoder '{self.name}': {key} = {value!r}; expected {_KINDS[type(usual)]}, as {usual!r} is one"
                )
        self.settings = {**self.defaults, **settings}

    @property
    @abstractmethod
    def dim(self) -> int:
        """Features per clip (level "clip") or per time step (level "frame")."""

    @property
    def feature_names(self) -> list[str] | None:
        """One name per feature where they mean something by themselves, else None."""
        return None

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change whenever the same clip could get other features."""
        parts = {
            "name": self.name,
            "version": self.version,
            "settings": self.settings,
            "libraries": {module: import_module(module).__version__ for module in self.libraries},
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def encode(self, clip: ClipInputs) -> np.ndarray:
        """Features of one clip.

        Parameters
        ----------
        clip : ClipInputs
            Only the parts in :attr:`uses` are read.

        Returns
        -------
        float32 [dim] or [t, dim]
            Always finite; t ≥ 1 for level "frame".

        Raises
        ------
        MissingStream
            The clip has nothing for this stream.
        EncoderError
            The features are not finite or not of the declared shape: a defect of the encoder, not of the clip.
        """
        features = np.ascontiguousarray(self._encode(clip), dtype=np.float32)
        expected = 1 if self.level == "clip" else 2
        if features.ndim != expected or features.shape[-1] != self.dim or not features.size:
            raise EncoderError(
                f"clip '{clip.id}': encoder '{self.name}' gave {features.shape}, declared dim {self.dim}"
            )
        if not np.isfinite(features).all():
            raise EncoderError(
                f"clip '{clip.id}': encoder '{self.name}' gave NaN or infinity; its input was not finite"
            )
        return features

    @abstractmethod
    def _encode(self, clip: ClipInputs) -> np.ndarray:
        """The method itself; raises :class:`MissingStream` where there is nothing to encode."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self.settings.items())})"
