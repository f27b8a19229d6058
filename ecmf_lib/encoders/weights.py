"""Where the weights of a pre-trained encoder lie, whether they are whole, and whether they are safe to load."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ecmf_lib.encoders.base import EncoderError
from ecmf_lib.encoders.cards import Card


class WeightsError(EncoderError):
    """Weights that are not there, not whole or not safe; the message names them and the mend."""


@dataclass(frozen=True)
class Weights:
    """A checkpoint on this machine.

    Attributes
    ----------
    path : Path
        Folder in the format of its library, or one ONNX file.
    digest : str
        sha256 over everything in it that changes features, 16 hex digits.
    origin : str
        "your folder" or "hub".
    commit : str
        Of the hub's repository; "" for the user's own.
    """

    path: Path
    digest: str
    origin: str
    commit: str = ""


def find(card: Card, root: Path | None) -> Weights:
    """The checkpoint of a card: the user's own in `root`, else what has been downloaded.

    Raises
    ------
    WeightsError
        If it is in neither place, or damaged, or can only be loaded by running foreign code.
    """
    raise WeightsError(f"encoder '{card.name}': not there")
