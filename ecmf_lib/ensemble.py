"""An ensemble as it is kept and used: members, one calibration, and the encoders that it belongs to.

How it is trained is in :mod:`ecmf_lib.bundle`, how its files are kept in :mod:`ecmf_lib.bundle_files`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError

from ecmf_lib.bundle_files import HEAD, BundleError, canonical, member_folder, unseal, write_whole
from ecmf_lib.experts import log_softmax
from ecmf_lib.fit import Fitted
from ecmf_lib.member_check import member_problem
from ecmf_lib.samples import FusionData, stretches
from ecmf_lib.shards import digest_of

_AT_ONCE = 4096  # clips predicted together: memory does not depend on how many there are
_LEAST = 1e-30  # probability that a member can give; below, one member alone could rule a class out


@dataclass(frozen=True, eq=False)
class Bundle:
    """An ensemble with all that predicting needs.

    Attributes
    ----------
    models : tuple of Fitted
        Members, each calibrated by itself.
    classes : tuple of str
    encoders : dict of str to dict
        Stream → what :func:`encoders_of` tells of the features that it was trained on.
    about : dict
        JSON-able: where it comes from and what to expect of it.
    temperature : float
        Of the whole ensemble, set on clips that the members asked had not trained on.
    digest : str
        64 hex digits of all files; "" before it is saved.
    """

    models: tuple[Fitted, ...]
    classes: tuple[str, ...]
    encoders: dict[str, dict]
    about: dict
    temperature: float = 1.0
    digest: str = ""

    def __post_init__(self):
        if not self.models:
            raise BundleError("a bundle needs one model at least")
        for number, model in enumerate(self.models):
            if tuple(model.classes) != tuple(self.classes) or model.dims != self.models[0].dims:
                raise BundleError(
                    f"{member_folder(number)}: classes or streams differ from the bundle's "
                    f"({', '.join(self.classes)}; {', '.join(self.streams)}); train it anew"
                )
        if not (isinstance(self.temperature, int | float) and 0 < self.temperature < np.inf):
            raise BundleError(f"{HEAD}: temperature {self.temperature!r}; expected a number above 0; train it anew")
        lacking = [stream for stream in self.streams if stream not in self.encoders]
        if lacking:
            raise BundleError(f"{HEAD}: no encoder of stream '{lacking[0]}' is named; train it anew")

    @property
    def streams(self) -> tuple[str, ...]:
        """Streams that the members look at."""
        return tuple(self.models[0].dims)

    @property
    def commonest(self) -> str:
        """The class that most training clips have: all that can be said of a clip without any stream."""
        counts = self.about.get("class_clips") or {}
        return max(self.classes, key=lambda name: counts.get(name, 0))

    def predict(self, data: FusionData) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities float64 [n, classes] and stream weights float64 [n, streams] (NaN where members have none).

        Probabilities are the mean of the members' log-probabilities, divided by the temperature and renormalised;
        weights are the members' mean.
        """
        both = [self._predict(data.select(rows)) for rows in stretches(len(data), _AT_ONCE)]
        return np.concatenate([p for p, _ in both]), np.concatenate([w for _, w in both])

    def _predict(self, data: FusionData) -> tuple[np.ndarray, np.ndarray]:
        data = data.only(self.streams)
        said = [model.predict(data) for model in self.models]
        logs = np.mean([log_of(chances) for chances, _ in said], axis=0)
        return np.exp(log_softmax(logs / self.temperature)), np.mean([weights for _, weights in said], axis=0)

    def check_encoders(self, sets: Mapping[str, object]) -> None:
        """Refuse features that another encoder, another version of it, or other settings made.

        Parameters
        ----------
        sets : dict of str to FeatureSet
            Of the clips that are to be predicted; streams that the bundle does not know are not looked at.

        Raises
        ------
        BundleError
            Naming every stream that does not fit, the fingerprint expected and found, and the mend.
        """
        found, lines = encoders_of({name: sets[name] for name in self.streams if name in sets}), []
        for stream in self.streams:
            mine, theirs = self.encoders[stream], found.get(stream)
            said = f"stream '{stream}': trained on {mine.get('name')}, fingerprint {mine.get('fingerprint')}"
            if theirs is None:
                lines.append(f"{said}; there are no features of this stream")
            elif theirs["fingerprint"] != mine.get("fingerprint"):
                lines.append(f"{said}; found {theirs['name']}, fingerprint {theirs['fingerprint']}{_why(mine, theirs)}")
        if lines:
            raise BundleError(
                "features are not those that the bundle was trained on:\n  " + "\n  ".join(lines) + "\nextract them "
                "with the same profile, encoders, frames, detector and library versions, or train the bundle anew"
            )

    def save(self, folder: Path) -> Path:
        """Write the bundle, whole or not at all; an older bundle in the folder is replaced.

        Files are safetensors and json only.

        Raises
        ------
        BundleError
            If the folder holds anything else, or a member cannot be kept without pickle.
        """
        content = {
            "classes": list(self.classes),
            "encoders": self.encoders,
            "about": self.about,
            "temperature": float(self.temperature),
        }

        def fill(new: Path) -> None:
            for number, model in enumerate(self.models):
                refuse_pickle(model.kind, model.name)
                model.save(new / member_folder(number))

        write_whole(Path(folder), fill, content)
        return Path(folder)

    @classmethod
    def load(cls, folder: Path) -> Bundle:
        """Read what :meth:`save` wrote; predictions are identical.

        Raises
        ------
        BundleError
            For anything that was changed since, see :func:`ecmf_lib.bundle_files.unseal`.
        """
        folder = Path(folder)
        content, digest = unseal(folder)
        wrong = [name for name, kind in _CONTENT.items() if not isinstance(content.get(name), kind)]
        wrong = wrong or [f"about.{name}" for name, good in _ABOUT.items() if not good(content["about"].get(name))]
        wrong = wrong or [f"encoders.{name}" for name, told in content["encoders"].items() if not _is_encoder(told)]
        if wrong or not all(isinstance(name, str) for name in content["classes"]):
            raise BundleError(f"{folder / HEAD}: {', '.join(wrong) or 'classes'} missing or of another kind")
        models = tuple(load_member(folder / member_folder(i)) for i in range(len(content["files"]) // 2))
        return cls(
            models, tuple(content["classes"]), content["encoders"], content["about"], content["temperature"], digest
        )


_CONTENT = {"classes": list, "encoders": dict, "about": dict, "temperature": float}
#: Of what a bundle tells of itself, all that is used and not only shown.
_ABOUT = {
    "class_clips": lambda told: (
        told is None or (isinstance(told, dict) and all(isinstance(n, int) for n in told.values()))
    ),
    "steps": lambda told: told is None or (type(told) is int and 0 <= told <= 10_000),
    "extraction": lambda told: told is None or (isinstance(told, dict) and isinstance(told.get("llm") or {}, dict)),
    "expected": lambda told: (
        told is None or (isinstance(told, dict) and isinstance(told.get("weighted_f1", 0.0), int | float | None))
    ),
    "notes": lambda told: told is None or (isinstance(told, list) and all(isinstance(note, str) for note in told)),
}


def _is_encoder(told: object) -> bool:
    return isinstance(told, dict) and isinstance(told.get("settings") or {}, dict)


def _why(mine: Mapping, theirs: Mapping) -> str:
    """Which of the settings differ, in brackets."""
    a, b = mine.get("settings") or {}, theirs["settings"]
    differ = [key for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]
    differ += [key for key in ("name", "level", "dim") if mine.get(key) != theirs[key]]
    return f" (other {', '.join(differ)})" if differ else ""


def encoders_of(sets: Mapping[str, object]) -> dict[str, dict]:
    """Stream → the encoder of its features: name, fingerprint, level, dim, licence, settings, stand_in.

    The fingerprint is 16 hex digits of name, level, dim and settings (which hold the encoder's own fingerprint, made of
    its version, weights and libraries, the number of frames and the face detector). The corpus is not in it, so clips
    of another corpus may be predicted. Of imported features nothing but the name of their source is known.
    """
    found = {}
    for stream, features in sets.items():
        told = {"name": features.encoder, "level": features.level, "dim": int(features.dim)}
        settings = json.loads(canonical(features.about["settings"]))
        fingerprint = digest_of(told["name"], told["level"], told["dim"], settings)[:16]
        more = {"licence": features.licence, "stand_in": bool(features.about.get("stand_in"))}
        found[stream] = told | {"fingerprint": fingerprint, "settings": settings} | more
    return found


def load_member(folder: Path) -> Fitted:
    """Read a member whose files have been checked; BundleError if this version cannot."""
    try:
        model = Fitted.load(folder)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, SafetensorError) as error:
        raise BundleError(f"{folder}: not a member that this version can read ({error}); train it anew") from None
    if problem := member_problem(model):
        raise BundleError(f"{folder}: not a member that this version can use: {problem}; train it anew")
    return model


def refuse_pickle(kind: str, name: str) -> None:
    """Refuse a model that no safe format holds."""
    if kind == "boosting":
        raise BundleError(f"model '{name}' ({kind}) cannot be kept: its trees would need pickle; choose another kind")


def log_of(chances: np.ndarray) -> np.ndarray:
    """Log-probabilities, always finite."""
    return np.log(np.maximum(chances, _LEAST))
