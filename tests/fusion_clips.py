"""Made-up clips for the tests of fusion: two streams that show part of the label, one that is noise, and speakers."""

import dataclasses

import numpy as np

from ecmf_lib.samples import FusionData

CLASSES = ("neutral", "angry", "happy")
#: A neural fusion as small as tests need it.
NEURAL = {"width": 8, "inner": 3, "batch": 32}


def clips(rng, *, n=96, speakers=8, signal=1.5, steps=0):
    """Two streams that each show part of the label, one that is pure noise; speakers shift all features.

    With `steps` the audio has so many in time. Clip 5 has no audio, 6 no face, 7 nothing.
    """
    labels = np.arange(n) % 3
    speaker = rng.integers(0, speakers, n)
    speaker[:speakers] = np.arange(speakers)
    streams = {}
    for name, dim, strength in (("face", 6, signal), ("audio", 9, signal), ("noise", 4, 0)):
        centres, shifts = rng.normal(size=(3, dim)), rng.normal(size=(speakers, dim))
        streams[name] = (strength * centres[labels] + shifts[speaker] + rng.normal(size=(n, dim))).astype(np.float32)
    if steps:
        streams["audio"] = streams["audio"][:, None] + rng.normal(size=(n, steps, 9)).astype(np.float32)
    present = {name: np.ones(n, bool) for name in streams}
    present["audio"][5] = present["face"][6] = False
    for name in streams:
        present[name][7] = False
    return FusionData([f"clip{i:03d}" for i in range(n)], streams, present, labels, [f"s{s}" for s in speaker], CLASSES)


def one_hot(labels):
    return np.eye(len(CLASSES), dtype=np.float32)[labels]


def changed(data, **what):
    return dataclasses.replace(data, **what)


def with_stream(data, name, x):
    return changed(data, streams=data.streams | {name: x})
