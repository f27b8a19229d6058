"""Face detectors that know nothing of each other find the same faces in real clips."""

from __future__ import annotations

import numpy as np
import pytest

from ecmf_lib.faces import FaceTrack, get_detector, track_faces
from ecmf_lib.media import read_media


@pytest.fixture(scope="module")
def tracks(real) -> dict[str, FaceTrack]:
    """The faces of the 31 real clips, 4 sampled frames each, one after the other, by detector."""
    detectors = {name: get_detector(name, real / "weights") for name in ("yunet", "insightface", "lbp")}
    assert "scrfd_500m" in detectors["insightface"].__reduce__()[1][0].name, "a local model, nothing downloaded"
    parts: dict[str, list[FaceTrack]] = {name: [] for name in detectors}
    clips = sorted((real / "ravdess_clips").glob("*.mp4"))
    for clip in clips:
        frames = read_media(clip, n_frames=4).frames
        for name, detector in detectors.items():
            parts[name].append(track_faces(frames, detector))
    assert len(clips) == 31 and all(sum(len(t.found) for t in of_one) == 124 for of_one in parts.values())
    return {name: _joined(of_one) for name, of_one in parts.items()}


def _joined(parts: list[FaceTrack]) -> FaceTrack:
    arrays = [np.concatenate([getattr(t, name) for t in parts]) for name in ("crops", "found", "boxes", "landmarks")]
    return FaceTrack(*arrays, share=float(arrays[1].mean()))


def overlap(a: FaceTrack, b: FaceTrack) -> np.ndarray:
    """Intersection over union of the two boxes of each frame in which both found a face."""
    first, second = (track.boxes[a.found & b.found].astype(float) for track in (a, b))
    shared = np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2])
    both = np.where((shared > 0).all(1), shared.prod(1), 0)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (first, second)]
    return both / (areas[0] + areas[1] - both)


@pytest.mark.parametrize("name", ["yunet", "insightface", "lbp"])
def test_a_face_is_found_in_nearly_every_sampled_frame(tracks, name):
    assert tracks[name].share >= 0.98  # measured: 1.00 for all three


@pytest.mark.parametrize(
    ("first", "second"), [("yunet", "insightface"), ("yunet", "lbp"), ("insightface", "lbp")], ids=str
)
def test_boxes_agree(tracks, first, second):
    """Measured: IoU at least .6 in all of the 124 frames; on average .83, .71 and .70."""
    overlaps = overlap(tracks[first], tracks[second])
    assert len(overlaps) >= 0.98 * 124
    assert (overlaps >= 0.6).mean() >= 0.95, f"median {np.median(overlaps):.2f}, least {overlaps.min():.2f}"


def test_landmarks_agree(tracks):
    """What crops are aligned by: in the two detectors within a third of the distance between the eyes, always."""
    points = [tracks[name].landmarks for name in ("yunet", "insightface")]
    eyes = np.linalg.norm(points[0][:, 0] - points[0][:, 1], axis=1)
    apart = np.linalg.norm(points[0] - points[1], axis=2).max(axis=1) / eyes
    assert np.nanmax(apart) < 1 / 3  # measured: at most .26, mean .12


def test_overlap_of_known_boxes():
    def track(*boxes):
        boxes = np.array(boxes, np.float32)
        return FaceTrack(None, np.isfinite(boxes[:, 0]), boxes, None, 1.0)

    missing = [np.nan] * 4
    a = track([0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 2, 2], missing)
    b = track([0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 6, 6], [0, 0, 1, 1])
    np.testing.assert_allclose(overlap(a, b), [1, 1 / 3, 0])
