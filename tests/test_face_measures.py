"""Each measure follows what it is called after: on drawn crops, on the demo's faces, on a real actor's."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ecmf_lib.adapters import open_corpus
from ecmf_lib.demo import draw_clip
from ecmf_lib.demo_plan import plan_demo
from ecmf_lib.encoders import ClipInputs, MissingStream, get_encoder
from ecmf_lib.faces import get_detector, track_faces
from ecmf_lib.media import read_media


def crop(smile=0.0, hole=0, eyes=5, shift=0):
    """A face where alignment puts it: a mouth line bent by `smile` pixels, a hole of a mouth, eyes of some height."""
    image = np.full((112, 112, 3), 190, np.uint8)
    for x in (38, 74):
        cv2.line(image, (x - 9, 52), (x + 9, 52), (70, 50, 50), 2)
        cv2.ellipse(image, (x, 52), (5, max(eyes, 1)), 0, 0, 360, (30, 30, 30), -1)
    x = np.linspace(-15, 15, 31)
    line = np.stack([56 + x, 93 + smile * (0.5 - (x / 15) ** 2)], 1).round().astype(np.int32)
    cv2.polylines(image, [line], False, (110, 40, 40), 2)
    if hole:
        cv2.ellipse(image, (56, 95), (9, hole), 0, 0, 360, (20, 10, 10), -1)
    return np.roll(image, shift, axis=1)


def measures(crops, found=None):
    crops = np.stack(crops)
    n = len(crops)
    clip = ClipInputs(
        "c", crops, np.arange(n), crops, np.ones(n, bool) if found is None else found, np.zeros(0, np.float32), "", ""
    )
    encoder = get_encoder("face-measures")
    return dict(zip(encoder.feature_names, encoder.encode(clip).tolist(), strict=True))


def test_smile_is_positive_for_raised_corners_and_negative_for_lowered_ones():
    down, flat, slight, broad = (measures([crop(smile=bend)])["smile"] for bend in (-6, 0, 3, 7))
    assert down < -0.05 and abs(flat) < 0.03 and 0.05 < slight < broad


def test_mouth_opening_grows_with_the_hole():
    shut, little, wide = (measures([crop(hole=size)])["mouth_open"] for size in (0, 3, 8))
    assert shut < 0.01 < little < wide


def test_eye_opening_shrinks_when_they_close():
    wide, half, shut = (measures([crop(eyes=size)])["eyes_open"] for size in (7, 4, 0))
    assert wide > half > shut


def test_movement_is_of_the_features_and_not_of_the_head():
    still = measures([crop()] * 6)["movement"]
    nodding = measures([crop(shift=s) for s in (0, 1, 0, -1, 0, 1)])["movement"]
    talking = measures([crop(hole=s) for s in (0, 4, 0, 7, 0, 4)])["movement"]
    assert still < 1e-6 and talking > 8 * nodding


def test_light_changes_nothing():
    dim = [(c * 0.6).astype(np.uint8) for c in (crop(smile=5, hole=3),) * 2]
    bright, dark = measures([crop(smile=5, hole=3)] * 2), measures(dim)
    assert {name: pytest.approx(value, abs=0.02) for name, value in bright.items()} == dark


def test_frames_without_a_face_do_not_count():
    found = np.array([True, False, True])
    assert measures([crop(), crop(smile=7, hole=8), crop()], found) == pytest.approx(measures([crop()] * 2))


def test_missing_streams_say_why():
    with pytest.raises(MissingStream, match="no face found"):
        measures([crop()], np.array([False]))
    empty = ClipInputs("c", *[np.zeros((0, 112, 112, 3), np.uint8)] * 2, *[np.zeros(0)] * 3, "", "")
    empty = replace(empty, crops=empty.frames)
    with pytest.raises(MissingStream, match="no video"):
        get_encoder("face-measures").encode(empty)


@pytest.fixture(scope="module")
def demo():
    """Emotion that a demo face shows → measures of some clips of several speakers."""
    found, detector = {}, get_detector("lbp")
    for emotion in ("happy", "sad", "surprise"):
        plans = [p for p in plan_demo(240, 0) if p.shows["face"] == emotion and p.strength["face"] > 0.5][::5][:5]
        for plan in plans:
            frames = np.stack(list(draw_clip(plan, 0)[0])[8::6])
            track = track_faces(frames, detector)
            found.setdefault(emotion, []).append(measures(track.crops, track.found))
    return found


@pytest.mark.parametrize(
    ("name", "more", "less"),
    [("smile", "happy", "sad"), ("mouth_open", "surprise", "sad"), ("eyes_open", "surprise", "sad")],
)
def test_demo_faces_are_told_apart(demo, name, more, less):
    values = [one[name] for emotion in (more, less) for one in demo[emotion]]
    assert roc_auc_score([1] * len(demo[more]) + [0] * len(demo[less]), values) >= 0.9


def test_a_real_actor_smiles_when_he_plays_happy(real):
    corpus = open_corpus(f"ravdess:{real / 'ravdess_clips'}")
    detector = get_detector("yunet", real / "weights")
    smiles, labels = [], []
    for clip in corpus:
        if clip.label in ("happy", "sad") and "face20" in clip.id:
            track = track_faces(read_media(clip.video, clip.audio, n_frames=6).frames, detector)
            smiles.append(measures(track.crops, track.found)["smile"])
            labels.append(clip.label == "happy")
    assert len(labels) == 8 and roc_auc_score(labels, smiles) >= 0.9
