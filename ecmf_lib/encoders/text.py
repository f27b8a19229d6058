"""Text without a model: hashed character n-grams, which need no word boundaries and so suit Chinese as well."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import ClassVar

import numpy as np

from ecmf_lib.encoders.base import ClipInputs, Encoder, MissingStream


def normalise(text: str) -> str:
    """One form for what reads the same: NFKC (full-width → half-width), lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


@lru_cache(maxsize=8)
def _vectorizer(dim: int, low: int, high: int, signed: bool):
    from sklearn.feature_extraction.text import HashingVectorizer

    # counts, not unit length yet: the square root below comes first
    return HashingVectorizer(
        analyzer="char", ngram_range=(low, high), n_features=dim, alternate_sign=signed, norm=None, lowercase=False
    )


class CharNgram(Encoder):
    """Hashed counts of character n-grams, square root, unit length.

    The hash is scikit-learn's MurmurHash3 with a fixed seed, so every process and machine gives the same vector.
    """

    name = "char-ngram"
    stream = "text"
    level = "clip"
    licence = "BSD-3-Clause (scikit-learn)"
    weights = "none"
    uses = frozenset({"text"})
    version = 1
    libraries = ("sklearn",)
    defaults: ClassVar = {"dim": 512, "shortest": 1, "longest": 3, "signed": False}

    @property
    def dim(self) -> int:
        return self.settings["dim"]

    def _encode(self, clip: ClipInputs) -> np.ndarray:
        text = normalise(clip.transcript)
        if not text:
            raise MissingStream("empty transcript")
        counts = _vectorizer(*(self.settings[key] for key in ("dim", "shortest", "longest", "signed")))
        vector = counts.transform([f" {text} "]).toarray()[0]  # the spaces mark where the sentence starts and ends
        vector = np.sign(vector) * np.sqrt(np.abs(vector))
        return vector / max(np.linalg.norm(vector), 1e-12)
