"""Text without a model: hashed character n-grams, which need no word boundaries and so suit Chinese as well."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import ClassVar

import numpy as np

from ecmf_lib.config import ENRICHMENT
from ecmf_lib.encoders.base import ClipInputs, Encoder, EncoderError, MissingStream


def normalise(text: str) -> str:
    """One form for what reads the same: NFKC (full-width → half-width), lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


#: What a text encoder may read → the stream that it then is.
READS = {"transcript": "text", "enrichment": ENRICHMENT}


def text_of(clip: ClipInputs, reads: str) -> str:
    """What a text encoder reads of a clip, one of :data:`READS`.

    Raises
    ------
    MissingStream
        If it is empty.
    """
    text = clip.transcript if reads == "transcript" else clip.enrichment
    if not text.strip():
        raise MissingStream("empty transcript" if reads == "transcript" else "no enrichment")
    return text


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
    The setting ``reads`` is one of :data:`READS`; the stream follows it.
    """

    name = "char-ngram"
    stream = "text"
    level = "clip"
    licence = "BSD-3-Clause (scikit-learn)"
    weights = "none"
    uses = frozenset({"text"})
    version = 1
    libraries = ("sklearn",)
    defaults: ClassVar = {"dim": 512, "shortest": 1, "longest": 3, "signed": False, "reads": "transcript"}

    def __init__(self, **settings):
        super().__init__(**settings)
        if self.settings["reads"] not in READS:
            raise EncoderError(
                f"encoder '{self.name}': reads = {self.settings['reads']!r}; choose from {', '.join(READS)}"
            )
        self.stream = READS[self.settings["reads"]]

    @property
    def dim(self) -> int:
        return self.settings["dim"]

    def _encode(self, clip: ClipInputs) -> np.ndarray:
        text = normalise(text_of(clip, self.settings["reads"]))
        counts = _vectorizer(*(self.settings[key] for key in ("dim", "shortest", "longest", "signed")))
        vector = counts.transform([f" {text} "]).toarray()[0]  # the spaces mark where the sentence starts and ends
        vector = np.sign(vector) * np.sqrt(np.abs(vector))
        return vector / max(np.linalg.norm(vector), 1e-12)
