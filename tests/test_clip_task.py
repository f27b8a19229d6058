"""One clip in a worker: whatever is wrong with it, or with an encoder, becomes a row with the reason."""

import wave
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from ecmf_lib.clip_task import FACTS, ClipTask, Job
from ecmf_lib.corpus import Clip
from ecmf_lib.encoders.base import Encoder, MissingStream
from ecmf_lib.shards import DONE, FAILED, MISSING, Pair


class Loudness(Encoder):
    name, stream, level, licence, weights, version = "loudness", "audio", "clip", "MIT", "none", 1
    uses = frozenset({"audio"})
    dim = 2

    def _encode(self, clip):
        if not clip.audio.size:
            raise MissingStream("no audio track")
        return np.array([np.abs(clip.audio).mean(), clip.audio.size])


class Words(Encoder):
    name, stream, level, licence, weights, version = "words", "text", "clip", "MIT", "none", 1
    uses = frozenset({"text"})
    dim = 1

    def _encode(self, clip):
        return np.array([len(clip.transcript.split())])


class Faces(Encoder):
    name, stream, level, licence, weights, version = "faces", "face", "clip", "MIT", "none", 1
    uses = frozenset({"faces"})
    dim = 1

    def _encode(self, clip):
        return np.array([clip.found.sum()])


class Answers(Encoder):
    """Gives back what it was made with, unchecked, as an encoder from elsewhere might."""

    name, stream, level, licence, weights, version = "answers", "global", "frame", "MIT", "none", 1
    uses = frozenset({"audio"})
    dim = 3
    defaults: ClassVar = {"answer": None}

    def encode(self, clip):
        if isinstance(self.settings["answer"], Exception):
            raise self.settings["answer"]
        return self.settings["answer"]

    def _encode(self, clip):
        raise NotImplementedError


class BrokenDetector:
    name, licence, fingerprint = "broken", "MIT", "d0"

    def detect(self, frame):
        raise RuntimeError("model file <object at 0x7f3a> is gone")


def tone(path: Path, seconds: float = 0.1) -> Path:
    samples = (8000 * np.sin(np.arange(int(16000 * seconds)) * 0.1)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    return path


def clip(folder: Path, **changes) -> Clip:
    given = {"id": "c", "video": None, "audio": None, "transcript": "so it goes", "language": "en"}
    return Clip(**(given | {"label": None, "split": "unlabelled", "speaker": ""} | changes))


def run(folder: Path, of: Clip, *encoders: Encoder, detector=None) -> dict:
    task = ClipTask({encoder.stream: encoder for encoder in encoders}, detector, 4, str(folder))
    return task(Job(of, {part: Pair(of.id, part) for part in [*task.encoders, FACTS]}, 0))


def test_a_good_clip(tmp_path):
    found = run(tmp_path, clip(tmp_path, audio=tone(tmp_path / "a.wav", 0.25)), Loudness(), Words())
    row, steps = found["audio"]
    assert row.state == DONE and row.pair == Pair("c", "audio") and steps.shape == (1, 2) and steps.dtype == np.float32
    assert steps[0, 1] == 4000 and found["text"][1].tolist() == [[3]]
    assert found[FACTS][0].facts["duration"] == pytest.approx(0.25)
    assert found[FACTS][0].facts["audio_state"] == "ok" and found[FACTS][0].facts["face_share"] is None


def test_a_file_that_cannot_be_decoded_leaves_the_text(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.wav").touch()
    found = run(tmp_path, clip(tmp_path, audio=tmp_path / "sub" / "a.wav"), Loudness(), Words())
    assert found["audio"][0].state == found[FACTS][0].state == FAILED
    assert found["audio"][0].reason.startswith("sub/a.wav: ") and str(tmp_path) not in found["audio"][0].reason
    assert found["text"][0].state == DONE


def test_a_clip_of_text_only_needs_no_file(tmp_path):
    found = run(tmp_path, clip(tmp_path), Loudness(), Words())
    assert (found["audio"][0].state, found["audio"][0].reason) == (MISSING, "no audio track")
    assert found["text"][0].state == found[FACTS][0].state == DONE


def test_a_detector_that_fails_costs_the_face_stream_only(tmp_path, monkeypatch):
    frames = np.zeros((4, 48, 64, 3), np.uint8)
    media = type("Media", (), {"frames": frames, "times": np.arange(4.0), "audio": np.ones(16, np.float32)})
    media.duration, media.fps, media.audio_state, media.notes = 1.0, 4.0, "ok", ("odd",)
    monkeypatch.setattr("ecmf_lib.clip_task.read_media", lambda *_, **__: media)
    of = clip(tmp_path, video=tmp_path / "a.mp4")
    found = run(tmp_path, of, Loudness(), Faces(), detector=BrokenDetector())
    assert found["audio"][0].state == DONE
    assert found["face"][0].state == found[FACTS][0].state == FAILED
    # the address of the object differs from run to run and would make the store differ too
    said = "face detector 'broken' failed with RuntimeError: model file <object at 0x…> is gone"
    assert found["face"][0].reason == said
    assert found[FACTS][0].facts["notes"] == "odd"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (np.array([[1, np.nan, np.inf]]), "clip 'c', stream 'global': 2 of 3 values are NaN or infinite"),
        (np.ones((2, 4)), "clip 'c', stream 'global': features (2, 4), expected [t, 3]"),
        (np.ones(3), "features (3,), expected [t, 3]"),
        (np.ones((0, 3)), "features (0, 3), expected [t, 3]"),
        ("nothing", "ValueError"),
        (None, "expected [t, 3]"),
        (ZeroDivisionError("line\none"), "encoder 'answers' failed with ZeroDivisionError: line one"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_what_an_encoder_may_not_give(tmp_path, answer, said):
    found = run(tmp_path, clip(tmp_path, audio=tone(tmp_path / "a.wav")), Answers(answer=answer), Loudness())
    row, steps = found["global"]
    assert row.state == FAILED and said in row.reason and steps is None
    assert found["audio"][0].state == DONE


def test_only_what_is_asked_for_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr("ecmf_lib.clip_task.read_media", None)  # would fail if anything was decoded
    task = ClipTask({"audio": Loudness(), "text": Words()}, None, 4, str(tmp_path))
    found = task(Job(clip(tmp_path, audio=tmp_path / "a.wav"), {"text": Pair("c", "k")}, 0))
    assert list(found) == ["text"] and found["text"][0].state == DONE
