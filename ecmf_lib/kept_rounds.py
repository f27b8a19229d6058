"""Finished rounds of self-training on disk, so that a run that was interrupted goes on where it stopped.

Models are not kept: a round is what they said of held-out clips, and which unlabelled clips they gave a label. All that
follows is made again from that, number by number.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ecmf_lib.bounded import parse_json
from ecmf_lib.samples import FusionData
from ecmf_lib.shards import write_file

_LIBRARIES = ("numpy", "pandas", "scikit-learn", "scipy", "torch")


def _none() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class Round:
    """What came of a round.

    Attributes
    ----------
    rows : int64 [k]
        Unlabelled clips that got a label, in order.
    labels : int64 [k]
        Their classes.
    says : int64 [n]
        The fusion's classes of held-out clips; empty where none were judged.
    """

    rows: np.ndarray = field(default_factory=_none)
    labels: np.ndarray = field(default_factory=_none)
    says: np.ndarray = field(default_factory=_none)


@dataclass(frozen=True)
class KeptRounds:
    """The rounds of one self-training.

    Parameters
    ----------
    folder : Path or None
        None keeps nothing.
    key : str
        Stands for everything that the rounds depend on.
    """

    folder: Path | None
    key: str

    @classmethod
    def of(cls, folder: Path, data: FusionData, asked: list) -> KeptRounds:
        """Rounds that depend on a training part and what else is asked (JSON-able), on our code and on libraries."""
        versions = [version(name) for name in _LIBRARIES]
        about = json.dumps([data.fingerprint(), asked, _code(), versions])
        return cls(Path(folder), hashlib.sha256(about.encode()).hexdigest()[:16])

    def read(self, which: str, turn: int) -> Round | None:
        """A round if it is there and whole."""
        path = self._path(which, turn)
        if path is None or not path.is_file():
            return None
        try:
            found = parse_json(path.read_text("utf-8"))
            return Round(**{name: np.array(values, np.int64) for name, values in found.items()})
        except (OSError, TypeError, ValueError):
            return None  # damaged: as if it were not there

    def write(self, which: str, turn: int, found: Round) -> Round:
        """Keep a round, whole or not at all; gives it back.

        Raises
        ------
        StoreError
            If the folder cannot be written.
        """
        path = self._path(which, turn)
        if path is not None:
            text = json.dumps({name: values.tolist() for name, values in asdict(found).items()})
            write_file(path, text.encode(), path.parent / ".writing")
        return found

    def _path(self, which: str, turn: int) -> Path | None:
        return None if self.folder is None else self.folder / f"self-training-{self.key}-{which}-round{turn}.json"


@cache
def _code() -> str:
    """Digest of the library's sources: which of them rounds depend on changes more easily than it can be listed."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
