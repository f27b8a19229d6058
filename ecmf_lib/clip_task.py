"""What happens to one clip in a worker process: decoded once, its face followed, every encoder applied.

A pre-trained model is not applied here: the worker prepares its inputs, and the main process runs it for many clips
together (see :mod:`ecmf_lib.model_stage`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ecmf_lib.encoders.base import ClipInputs, Encoder, MissingStream
from ecmf_lib.encoders.model import ModelEncoder, Prepared
from ecmf_lib.faces import Detector, FaceTrack, track_faces
from ecmf_lib.media import Media, MediaError, read_media
from ecmf_lib.shards import DONE, FAILED, MISSING, Pair, Row
from ecmf_lib.workers import LIMIT, TimedOut

if TYPE_CHECKING:
    from ecmf_lib.corpus import Clip

FACTS = "clip facts"  # the part of a clip's work that is no stream: what decoding and face tracking say about it
MEDIA = frozenset({"frames", "faces", "audio"})  # what an encoder may use that has to be decoded

# where the row is "done": features float32 [steps, dim], or what a model that is still to run gets to see
Result = tuple[Row, np.ndarray | Prepared | None]


@dataclass(frozen=True)
class Job:
    """One clip and the parts of its work that are not stored yet."""

    clip: Clip
    pairs: dict[str, Pair]  # part (stream or FACTS) → identity of its row
    chunk: int  # number of the stretch of the manifest


def died(job: Job, how: object) -> dict[str, Result]:
    """The results of a clip that its process did not survive, also when it was tried alone; `how` says in what way."""
    reason = (
        f"worker process died while decoding or encoding this clip, also when tried alone ({how}): out of "
        "memory, or a crash in a decoder or encoder; look at the file, then extract with retry_failed"
    )
    if isinstance(how, TimedOut):
        reason = (
            f"decoding or encoding this clip was given up ({how}): a decoder or encoder hangs, a disk does not answer, "
            "or the clip is very long; look at the file, then extract with retry_failed and perhaps a larger clip_limit"
        )
    return {part: (Row(pair, FAILED, reason), None) for part, pair in job.pairs.items()}


def to_models(
    pairs: Mapping[str, Sequence[Pair]], new: Mapping[str, Mapping[Pair, Result]]
) -> dict[str, list[tuple[Pair, Prepared]]]:
    """What models still have to run, part by part, in manifest order: batches must not depend on who was first."""
    found = {}
    for part, of_part in new.items():
        values = [(pair, of_part[pair][1]) for pair in pairs[part] if pair in of_part]
        found[part] = [(pair, value) for pair, value in values if isinstance(value, Prepared)]
    return {part: waiting for part, waiting in found.items() if waiting}


@dataclass(frozen=True)
class _Seen:
    """What could be got out of the files of one clip."""

    media: Media | None = None
    track: FaceTrack | None = None
    problem: str = ""  # why there is no media
    face_problem: str = ""  # why there is no track


@dataclass(frozen=True)
class ClipTask:
    """Decode a clip and apply the encoders; whatever happens becomes a row.

    Parameters
    ----------
    encoders : dict
        Stream → encoder.
    detector : Detector or None
    n_frames : int
        Frames sampled from a clip.
    root : str
        The corpus folder, left out of what is reported.
    limit : float
        Seconds for one clip, see :func:`ecmf_lib.workers.run_jobs`; kept here so that it goes wherever clips go.
    """

    encoders: dict[str, Encoder]
    detector: Detector | None
    n_frames: int
    root: str
    limit: float = LIMIT

    @property
    def uses(self) -> frozenset[str]:
        """What any of the encoders uses."""
        return frozenset().union(*(encoder.uses for encoder in self.encoders.values()))

    def __call__(self, job: Job) -> dict[str, Result]:
        wanted = [self.encoders[part] for part in job.pairs if part != FACTS]
        uses = self.uses if FACTS in job.pairs else frozenset().union(*(encoder.uses for encoder in wanted))
        seen = self._look(job.clip, uses)
        inputs = _inputs(job.clip, seen)
        return {
            part: self._facts(pair, seen) if part == FACTS else self._encode(pair, self.encoders[part], inputs, seen)
            for part, pair in job.pairs.items()
        }

    def _look(self, clip: Clip, uses: frozenset[str]) -> _Seen:
        if not (clip.needs_files and uses & MEDIA):
            return _Seen()
        try:
            media = read_media(clip.video, clip.audio, n_frames=self.n_frames)
        except MediaError as error:
            return _Seen(problem=self._say(str(error)))
        except Exception as error:
            return _Seen(problem=self._say(f"decoding failed with {type(error).__name__}: {error}"))
        try:
            return _Seen(media, track_faces(media.frames, self.detector) if "faces" in uses else None)
        except Exception as error:
            said = f"face detector '{self.detector.name}' failed with {type(error).__name__}: {error}"
            return _Seen(media, face_problem=self._say(said))

    def _facts(self, pair: Pair, seen: _Seen) -> tuple[Row, None]:
        problem = seen.problem or seen.face_problem
        facts = {} if seen.problem else _describe(seen)
        return Row(pair, FAILED if problem else DONE, problem, facts=facts), None

    def _encode(self, pair: Pair, encoder: Encoder, inputs: ClipInputs, seen: _Seen) -> Result:
        problem = seen.problem if encoder.uses & MEDIA else ""
        if problem or (seen.face_problem and "faces" in encoder.uses):
            problem = problem or seen.face_problem
            return Row(pair, FAILED, problem), None
        try:
            if isinstance(encoder, ModelEncoder):
                return Row(pair), encoder.prepare(inputs)
            answer = encoder.encode(inputs)
        except Exception as error:
            answer = error
        return self.conclude(pair, encoder, answer)

    def conclude(self, pair: Pair, encoder: Encoder, answer: np.ndarray | Exception) -> Result:
        """The row of what an encoder gave or raised for a clip, with the features if they are as declared."""
        try:
            if isinstance(answer, Exception):
                raise answer
            return Row(pair), _checked(answer, encoder, pair.id)
        except MissingStream as missing:
            return Row(pair, MISSING, self._say(str(missing))), None
        except Exception as error:
            said = f"encoder '{encoder.name}' failed with {type(error).__name__}: {error}"
            return Row(pair, FAILED, self._say(said)), None

    def _say(self, text: str) -> str:
        """One line that is the same wherever the corpus lies and whenever it is read."""
        text = text.replace(self.root + os.sep, "")
        return re.sub(r"\s+", " ", re.sub(r"\b0x[0-9a-f]+", "0x…", text)).strip()[:500]


def _inputs(clip: Clip, seen: _Seen) -> ClipInputs:
    media, track = seen.media, seen.track
    n = 0 if media is None else len(media.frames)
    return ClipInputs(
        id=clip.id,
        frames=np.zeros((0, 0, 0, 3), np.uint8) if media is None else media.frames,
        times=np.zeros(0) if media is None else media.times,
        crops=np.zeros((n, 112, 112, 3), np.uint8) if track is None else track.crops,
        found=np.zeros(n, bool) if track is None else track.found,
        audio=np.zeros(0, np.float32) if media is None else media.audio,
        transcript=clip.transcript,
        language=clip.language,
        enrichment=clip.enrichment,
    )


def _describe(seen: _Seen) -> dict:
    media = seen.media
    if media is None:
        return {"n_frames": 0, "audio_state": "absent", "notes": "no files, only text"}
    return {
        "n_frames": len(media.frames),
        "duration": round(float(media.duration), 6),
        "fps": round(float(media.fps), 6),
        "face_share": None if seen.track is None else float(seen.track.share),
        "audio_state": media.audio_state,
        "notes": "; ".join(media.notes),
    }


def _checked(features: np.ndarray, encoder: Encoder, id: str) -> np.ndarray:
    """Features as rows of a shard, float32 [t, dim]; refused if they are not what the encoder declares."""
    steps = np.asarray(features, np.float32)
    expected = f"[{encoder.dim}]" if encoder.level == "clip" else f"[t, {encoder.dim}]"
    if steps.ndim != (1 if encoder.level == "clip" else 2) or steps.shape[-1] != encoder.dim or not steps.size:
        raise ValueError(f"clip '{id}', stream '{encoder.stream}': features {steps.shape}, expected {expected}")
    bad = int((~np.isfinite(steps)).sum())
    if bad:
        raise ValueError(f"clip '{id}', stream '{encoder.stream}': {bad} of {steps.size} values are NaN or infinite")
    return steps.reshape(-1, encoder.dim)
