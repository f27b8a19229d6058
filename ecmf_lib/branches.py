"""The two visual branches over time: what each one's encoder sees of a clip, frame by frame.

A profile's encoders describe a clip as a whole; here the same encoders are asked for the steps before pooling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from ecmf_lib.corpus import Clip
from ecmf_lib.encoders import ClipInputs, Encoder, EncoderError, MissingStream, get_encoder
from ecmf_lib.encoders.model import ModelEncoder
from ecmf_lib.explore import Seen
from ecmf_lib.project import Project, described

#: Streams that look at the picture.
VISUAL = ("global", "face")
#: Classes of FER-2013 in the order of its classifiers.
FER_CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


@dataclass(frozen=True)
class Branch:
    """What one visual branch sees of one clip.

    Attributes
    ----------
    encoder : str
        As reports name it.
    times : float64 [t]
        Seconds from the start of the clip. A frame in which the branch sees nothing (no face) has no step.
    steps : float32 [t, dim]
    spread : float64 [dim]
        Standard deviation of each number between the clips of the corpus: the yardstick for changes within a clip.
    names : list of str or None
        One for each number of a step, where they mean something.
    """

    encoder: str
    times: np.ndarray
    steps: np.ndarray
    spread: np.ndarray
    names: list[str] | None = None

    def changes(self) -> pd.DataFrame:
        """Steps minus their mean over the clip, in standard deviations between clips.

        Returns
        -------
        DataFrame
            Rows numbers by name, the one that changes most first; columns times. Numbers that are the same in all clips
            are left out: they have no yardstick.
        """
        used = np.flatnonzero(self.spread > 0)
        exact = self.steps[:, used].astype(np.float64)
        changes = (exact - exact.mean(0)) / self.spread[used]
        order = np.argsort(-changes.std(0), kind="stable")
        names = [self.names[i] if self.names else f"no. {i}" for i in used[order]]
        return pd.DataFrame(changes[:, order].T, names, self.times)

    def departure(self) -> pd.Series:
        """How far each moment is from the clip's mean: root mean square of :meth:`changes`, by time."""
        return (self.changes() ** 2).mean() ** 0.5


def over_time(project: Project, clip: Clip, seen: Seen) -> dict[str, Branch]:
    """What the project's visual encoders see of a clip before they pool it over time.

    Parameters
    ----------
    project : Project
    clip : Clip
    seen : Seen
        The clip decoded, see :func:`ecmf_lib.explore.look`.

    Returns
    -------
    dict of str to Branch
        For "global" and "face", as far as they see something (the ledger says why one does not) and there are other
        clips to compare it with.
    """
    inputs, found = _inputs(clip, seen), {}
    for stream in VISUAL:
        if stream not in project.encoders:
            continue
        encoder = project.encoders[stream]
        try:
            times, steps = _steps(project, encoder, inputs)
        except MissingStream:
            continue
        names = (frame_level(encoder) or encoder).feature_names
        spread = _spread(project, stream, steps.shape[1])
        if spread.any():
            found[stream] = Branch(described(project.sets[stream]), times, steps, spread, names)
    return found


def expressions(project: Project, clip: Clip, seen: Seen) -> pd.DataFrame | None:
    """Probabilities over time, where the face encoder is a classifier that gives them: rows classes, columns times."""
    encoder, inputs = project.encoders.get("face"), _inputs(clip, seen)
    if not isinstance(encoder, ModelEncoder) or "output" not in encoder.settings or not inputs.found.any():
        return None
    times, shares = _steps(project, frame_level(encoder, output="probabilities"), inputs)
    names = FER_CLASSES if shares.shape[1] == len(FER_CLASSES) else [f"class {k}" for k in range(shares.shape[1])]
    return pd.DataFrame(shares.T, names, times)


def frame_level(encoder: Encoder, **settings) -> Encoder | None:
    """The same encoder giving its steps instead of pooling them; None for one that has no such form.

    Parameters
    ----------
    **settings
        What else is to be different, for a pre-trained model.
    """
    if isinstance(encoder, ModelEncoder):
        return type(encoder)(encoder.card, encoder.root, **encoder.settings | {"pooling": "none"} | settings)
    if encoder.level == "frame":
        return encoder
    try:
        return get_encoder(f"{encoder.name}-frames", **encoder.settings)
    except EncoderError:
        return None


def summary(looks: Mapping[str, Branch]) -> pd.DataFrame:
    """stream, encoder, steps, numbers (of a step), departure (mean over the steps)."""
    rows = [[stream, look.encoder, *look.steps.shape, look.departure().mean()] for stream, look in looks.items()]
    return pd.DataFrame(rows, columns=["stream", "encoder", "steps", "numbers", "departure"])


def long_table(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Tables as :meth:`Branch.changes` gives them, in one: branch, number, time (s), value."""
    parts = [
        table.rename_axis("number").reset_index().melt("number", var_name="time").assign(branch=name)
        for name, table in tables.items()
    ]
    return pd.concat(parts, ignore_index=True)[["branch", "number", "time", "value"]]


def _inputs(clip: Clip, seen: Seen) -> ClipInputs:
    media, track = seen.media, seen.track
    return ClipInputs(
        id=clip.id,
        frames=media.frames,
        times=media.times,
        crops=track.crops,
        found=track.found,
        audio=media.audio,
        transcript=clip.transcript,
        language=clip.language,
        enrichment=clip.enrichment,
    )


def _steps(project: Project, encoder: Encoder, clip: ClipInputs) -> tuple[np.ndarray, np.ndarray]:
    """Times float64 [t] and steps float32 [t, dim]."""
    stepwise = frame_level(encoder)
    if stepwise is None:
        return _pairs(encoder, clip)
    if isinstance(stepwise, ModelEncoder):
        stepwise.ready(project.settings.device)
    steps = stepwise.encode(clip)
    moments = clip.times[_looked_at(encoder, clip)]
    if len(steps) == len(moments):
        return moments, steps
    if len(steps) == 1:
        return _pairs(stepwise, clip)
    edges = np.linspace(moments[0], moments[-1], len(steps) + 1)  # a step of a video model is of several frames
    return (edges[:-1] + edges[1:]) / 2, steps


def _pairs(encoder: Encoder, clip: ClipInputs) -> tuple[np.ndarray, np.ndarray]:
    """For an encoder that only knows stretches of time: each frame with the one before it, so that motion shows."""
    frames = _looked_at(encoder, clip)
    if len(frames) < 2:
        return clip.times[frames], np.atleast_2d(encoder.encode(clip))
    steps = []
    for pair in pairwise(frames):
        parts = {name: getattr(clip, name)[list(pair)] for name in ("frames", "times", "crops", "found")}
        steps.append(np.atleast_2d(encoder.encode(ClipInputs(**vars(clip) | parts)))[0])
    return clip.times[frames[1:]], np.stack(steps)


def _looked_at(encoder: Encoder, clip: ClipInputs) -> np.ndarray:
    """Places of the frames that an encoder looks at: all, or those with a face."""
    return np.flatnonzero(clip.found) if "faces" in encoder.uses else np.arange(len(clip.times))


def _spread(project: Project, stream: str, dim: int) -> np.ndarray:
    """Standard deviation between clips of the numbers that a clip's features and its steps have in common.

    Features of a clip begin with the mean of its steps, whatever else (a standard deviation) follows.
    """
    ids = project.sets[stream].ids
    matrix, _ = project.sets[stream].matrix(ids[:: 1 + len(ids) // 2000])  # so many will do
    return matrix[:, :dim].std(0, dtype=np.float64)
