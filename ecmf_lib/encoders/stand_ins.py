"""Stand-ins for pre-trained models: random weights in the real format, for tests, dry runs and measuring speed.

Features made with them mean nothing; ``config.json`` says ``"ecmf_stand_in": true``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ecmf_lib.encoders import stand_ins_language, stand_ins_vision
from ecmf_lib.encoders.cards import Card

_WRITERS = stand_ins_vision.WRITERS | stand_ins_language.WRITERS


def write(card: Card, root: Path | str, *, size: Literal["tiny", "real"] = "tiny", seed: int = 0) -> Path:
    """Write a checkpoint where the weights folder `root` is searched for the user's own.

    Parameters
    ----------
    card : Card
        Family and source decide what is written.
    root : path
        Weights folder; made if it is not there.
    size : "tiny" or "real"
        A few small layers, or the architecture of the published weights.
    seed : int
        Of the random weights.

    Returns
    -------
    Path
        The folder ``<root>/<card.name>``.
    """
    folder = Path(root) / card.name
    folder.mkdir(parents=True, exist_ok=True)
    _WRITERS[card.family](card, folder, size, seed)
    return folder
