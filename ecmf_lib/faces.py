"""Find the face of a clip in its frames, follow it, and bring it to one size and position.

Three detectors stand behind one small interface: the LBP cascade that comes with scikit-image (needs nothing),
YuNet through OpenCV, and insightface's SCRFD (both need weights). :func:`track_faces` is the same for all of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import skimage
from skimage.data import lbp_frontal_face_cascade_filename
from skimage.feature import Cascade

#: Where eyes, nose tip and mouth corners lie in an aligned face of 112×112 pixels, float32 [5, 2]: the published
#: template of ArcFace (Deng et al., CVPR 2019) and SphereFace before it, which face encoders are trained on.
ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)

#: Where the same five points lie in a box of the LBP cascade, as shares of its side: mean of YuNet's landmarks over
#: real faces (standard deviation .01-.02), made symmetric. A crop by box so shows eyes and mouth where a crop by
#: landmarks does.
_POINTS_IN_BOX = np.array([[0.318, 0.375], [0.682, 0.375], [0.5, 0.6], [0.338, 0.758], [0.662, 0.758]], np.float32)

#: Bundles of InsightFace weights that can be named instead of a folder.
INSIGHTFACE_PACKS = ("buffalo_l", "buffalo_m", "buffalo_s", "buffalo_sc", "antelopev2")

_PATTERNS = {"yunet": ("yunet*.onnx", "face_detection_yunet*.onnx"), "insightface": ("scrfd*.onnx", "det_*.onnx")}

_METHOD = 2  # part of every fingerprint; raise it when following or aligning changes, so that old features are redone


class DetectorError(ValueError):
    """A face detector that cannot be made; the message names the file expected, where, and the mend."""


@dataclass(frozen=True)
class Face:
    """One detected face.

    Attributes
    ----------
    box : float32 [4]
        x0, y0, x1, y1 in pixels; may reach beyond the frame.
    score : float
        Confidence, 0 to 1; comparable only within a detector.
    landmarks : float32 [5, 2] or None
        Eye, eye, nose tip, mouth corner, mouth corner (left to right as seen), x and y in pixels.
    """

    box: np.ndarray
    score: float
    landmarks: np.ndarray | None = None


class Detector(Protocol):
    """What a face detector has to offer.

    A slow one may also have ``follow(frame, faces)``: where these faces, known from the frame before, are now. It gives
    a Face for each of them (one for several that have met), or None if any is not found again.
    """

    name: str
    licence: str
    fingerprint: str

    def detect(self, frame: np.ndarray) -> list[Face]:
        """Faces of one RGB frame, uint8 [height, width, 3]."""


def get_detector(name: str, weights: Path | str | None = None) -> Detector:
    """Make a face detector.

    Parameters
    ----------
    name : "auto", "lbp", "yunet" or "insightface"
        ``auto`` takes YuNet if the folder has its weights, else SCRFD if it has those, else LBP.
    weights : Path, str or None
        Folder with ``yunet*.onnx``, ``scrfd*.onnx`` or ``det_*.onnx``. For insightface also the name of a model
        pack (``buffalo_sc`` if None), which insightface downloads once.

    Returns
    -------
    Detector
        It can be sent to worker processes: there it is made anew from the same arguments.

    Raises
    ------
    DetectorError
        If the name is unknown, or the weights are missing, unreadable or unreachable.
    """
    makers = {"lbp": _LBP, "yunet": _YuNet, "insightface": _InsightFace}
    pack = str(weights) if str(weights) in INSIGHTFACE_PACKS and not Path(str(weights)).is_dir() else None
    folder = Path(weights) if weights and not pack else None
    if folder is not None and not folder.is_dir():
        raise DetectorError(f"no folder {folder} with detector weights; check the path, or leave it empty for LBP")
    if name == "auto":
        found = [kind for kind in ("yunet", "insightface") if folder and _weights_in(folder, kind)]
        name = found[0] if found else "insightface" if pack else "lbp"
    if name not in makers:
        raise DetectorError(f"no face detector '{name}'; choose from auto, {', '.join(makers)}")
    if name == "lbp":
        return _LBP()
    if name == "insightface" and folder is None:
        return _InsightFace(pack=pack or "buffalo_sc")
    file = _weights_in(folder, name) if folder else None
    if file is None:
        raise DetectorError(
            f"{name}: no {' or '.join(_PATTERNS[name])} in {folder or 'any folder (none is given)'}; "
            f"put the weights there and name the folder, or use detector 'lbp', which needs none"
        )
    return makers[name](file)


def _weights_in(folder: Path, name: str) -> Path | None:
    """Weights file of a detector; the variant of any input size ("dynamic") before one of a fixed size."""
    files = sorted(file for pattern in _PATTERNS[name] for file in folder.glob(pattern) if file.is_file())
    return min(files, key=lambda file: ("dynamic" not in file.name, file.name), default=None)


def _fingerprint(name: str, settings: dict, weights: Path | None = None) -> str:
    digest = hashlib.sha256(json.dumps([name, _METHOD, settings], sort_keys=True).encode())
    if weights is not None:
        digest.update(hashlib.sha256(weights.read_bytes()).digest())
    return digest.hexdigest()[:16]


# ------------------------------------------------------------------------------------------------ detectors


class _LBP:
    """Local binary pattern cascade for frontal faces (Liao et al. 2007), as bundled with scikit-image.

    The cascade answers several times around a true face, and once or twice elsewhere; so its single answers are
    grouped here, where their number becomes the score (scikit-image's own grouping drops that number).
    """

    name = "lbp"
    licence = "BSD-3-Clause (OpenCV's cascade, in scikit-image)"
    settings = {  # noqa: RUF012 - read only
        "long_sides": [200, 320],  # px of the searched image; the second, three times slower, for small faces
        "border": 0.25,  # of the short side: the cascade needs the whole face inside the image
        "scale_factor": 1.15,
        "step_ratio": 1.5,
        "smallest": 24,  # px in the searched image, the size of the cascade's window
        "answers": 3,  # fewer around one place are no face
        # a known face: px of its side in the searched image, margin around it, most change of its size; smaller steps
        # give twice as many answers, so that it wavers less
        "follow": {"side": 48, "around": 0.5, "change": 1.3, "step_ratio": 1.0, "answers": 5},
    }

    def __init__(self):
        self._cascade = Cascade(lbp_frontal_face_cascade_filename())
        self.fingerprint = _fingerprint(
            self.name, self.settings | {"skimage": skimage.__version__}, Path(lbp_frontal_face_cascade_filename())
        )

    def __reduce__(self):
        return _LBP, ()

    def detect(self, frame: np.ndarray) -> list[Face]:
        padded, offset = _pad(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), self.settings["border"])
        for long_side in self.settings["long_sides"]:
            grey, scale = _shrink(padded, long_side)
            groups = _group(self._answers(grey, step := self.settings["step_ratio"]))
            faces = [
                Face(box / scale - offset, self._score(count, step))
                for box, count in groups
                if count >= self.settings["answers"]
            ]
            if faces or scale == 1:
                break
        return faces

    def follow(self, frame: np.ndarray, faces: Sequence[Face]) -> list[Face] | None:
        """The same faces in the next frame: looked for around their places, at about their sizes.

        Returns
        -------
        list of Face or None
            None if one of them is not there: the picture has changed, and all of it has to be searched.
        """
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        found: list[Face] = []
        for face in faces:
            now = self._find_near(grey, face.box)
            if now is None:
                return None
            if not found or _overlap(now.box[None], np.stack([other.box for other in found])).max() < 0.4:
                found.append(now)
        return found

    def _find_near(self, grey: np.ndarray, box: np.ndarray) -> Face | None:
        """The face around one place, the one that overlaps most with what was there."""
        how, side = self.settings["follow"], _side(box)
        corner = np.floor(box[:2] - how["around"] * side).astype(int)
        extent = np.ceil(box[2:] + how["around"] * side).astype(int) - corner
        part = _part(grey, corner, extent)
        scale = min(1.0, how["side"] / side)
        part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else part
        sizes = side * scale / how["change"], side * scale * how["change"]
        groups = _group(self._answers(part, how["step_ratio"], *sizes))
        there = [
            Face((box / scale + np.tile(corner, 2)).astype(np.float32), self._score(count, how["step_ratio"]))
            for box, count in groups
            if count >= how["answers"]
        ]
        if not there:
            return None
        overlap = _overlap(box[None], np.stack([face.box for face in there]))[0]
        return there[overlap.argmax()] if overlap.max() > 0.2 else None

    def _score(self, count: int, step_ratio: float) -> float:
        """From the number of answers around one place, as if steps had the size they have in a full search."""
        return count / (count + 5 * (self.settings["step_ratio"] / step_ratio) ** 2)

    def _answers(self, grey: np.ndarray, step_ratio: float, smallest: float = 0, largest: float = np.inf) -> np.ndarray:
        """All single answers of the cascade, boxes float32 [m, 4], with sides of `smallest` to `largest` px."""
        smallest = max(round(smallest), self.settings["smallest"])
        largest = round(min(largest, *grey.shape))
        if min(grey.shape) <= smallest:
            return np.zeros((0, 4), np.float32)
        answers = self._cascade.detect_multi_scale(
            grey,
            scale_factor=self.settings["scale_factor"],
            step_ratio=step_ratio,
            min_size=(smallest, smallest),
            max_size=(largest, largest),
            min_neighbor_number=1,
            intersection_score_threshold=2.0,  # an overlap is at most 1: nothing is grouped there
        )
        boxes = [(a["c"], a["r"], a["c"] + a["width"], a["r"] + a["height"]) for a in answers]
        return np.array(boxes, np.float32).reshape(-1, 4)


def _group(boxes: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Mean box and number of answers for each place, most answers first; boxes is [m, 4]."""
    groups = []
    while len(boxes):
        close = _overlap(boxes, boxes) > 0.4
        near = close[close.sum(1).argmax()]
        mean = boxes[near].mean(0)
        groups.append((mean, int(near.sum())))
        boxes = boxes[~near & (_overlap(boxes, mean[None])[:, 0] < 0.2)]
    return groups


class _YuNet:
    """YuNet (Wu et al. 2023), a 75 000-parameter detector with landmarks, run by OpenCV."""

    name = "yunet"
    licence = "MIT (OpenCV Zoo) / Apache-2.0 (libfacedetection.train)"
    settings = {  # noqa: RUF012 - read only
        "long_side": 320,  # px of the searched image: a third of the time of 640, landmarks as good, faces from 12 px
        "score": 0.6,
        "nms": 0.3,
        "top_k": 50,
    }

    def __init__(self, file: Path):
        self._file, self._size = file, (320, 320)
        self.fingerprint = _fingerprint(self.name, self.settings | {"cv2": cv2.__version__}, file)
        level = cv2.utils.logging.getLogLevel()
        # OpenCV 5 warns on loading about a choice that is not made here
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
        try:
            self._net = cv2.FaceDetectorYN.create(
                str(file), "", self._size, self.settings["score"], self.settings["nms"], self.settings["top_k"]
            )
        except cv2.error as error:
            reason = str(error).splitlines()[0]
            raise DetectorError(f"yunet: {file} cannot be loaded ({reason}); copy the file again") from None
        finally:
            cv2.utils.logging.setLogLevel(level)

    def __reduce__(self):
        return _YuNet, (self._file,)

    def detect(self, frame: np.ndarray) -> list[Face]:
        image, scale = _shrink(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), self.settings["long_side"])
        size = image.shape[1], image.shape[0]
        if size != self._size:
            self._net.setInputSize(size)
            self._size = size
        rows = self._net.detect(image)[1]
        if rows is None:
            return []
        rows = np.c_[rows[:, :14] / scale, rows[:, 14]].astype(np.float32)
        return [Face(np.r_[r[:2], r[:2] + r[2:4]], float(r[14]), r[4:14].reshape(5, 2)) for r in rows]


class _InsightFace:
    """SCRFD (Guo et al. 2021) as packaged by insightface: detection with landmarks on the CPU, nothing else.

    A local file is loaded through ``model_zoo``; ``FaceAnalysis`` would open every ONNX file of the folder. A model
    pack by name goes through ``FaceAnalysis``, which downloads it on first use.
    """

    name = "insightface"
    licence = "InsightFace weights: non-commercial research only"
    settings = {"score": 0.5, "size": [640, 640]}  # noqa: RUF012 - read only

    def __init__(self, file: Path | None = None, pack: str | None = None):
        import insightface  # these two cost a second; who uses another detector does not pay it
        import onnxruntime

        self._file, self._pack = file, pack
        threads = onnxruntime.SessionOptions()
        threads.intra_op_num_threads = threads.inter_op_num_threads = 1  # clips run in parallel, not layers
        options = {"providers": ["CPUExecutionProvider"], "sess_options": threads}
        with contextlib.redirect_stdout(io.StringIO()):
            self._net = self._from_file(file, options) if file else self._from_pack(pack, options)
            self._net.prepare(0, input_size=tuple(self.settings["size"]), det_thresh=self.settings["score"])
        version = {"insightface": insightface.__version__}
        self.fingerprint = _fingerprint(self.name, self.settings | version, Path(self._net.model_file))

    @staticmethod
    def _from_file(file: Path, options: dict):
        from insightface.model_zoo import get_model

        try:
            net = get_model(str(file), **options)
        except Exception as error:  # onnxruntime's own exceptions share no base class
            reason = str(error).splitlines()[0]
            raise DetectorError(f"insightface: {file} cannot be loaded ({reason}); copy the file again") from None
        if getattr(net, "taskname", None) != "detection":
            raise DetectorError(f"insightface: {file} is no SCRFD detector; expected scrfd*.onnx or det_*.onnx")
        return net

    @staticmethod
    def _from_pack(pack: str, options: dict):
        from insightface.app import FaceAnalysis

        try:
            return FaceAnalysis(name=pack, allowed_modules=["detection"], **options).det_model
        except Exception as error:  # the download raises whatever the network stack raises
            raise DetectorError(
                f"insightface: model pack '{pack}' cannot be had ({type(error).__name__}: {error}); go online once, "
                f"or put scrfd*.onnx or det_*.onnx in a folder and name it as the weights folder"
            ) from None

    def __reduce__(self):
        return _InsightFace, (self._file, self._pack)

    def detect(self, frame: np.ndarray) -> list[Face]:
        boxes, points = self._net.detect(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        points = [None] * len(boxes) if points is None else points.astype(np.float32)
        return [Face(b[:4].astype(np.float32), float(b[4]), p) for b, p in zip(boxes, points, strict=True)]


# ------------------------------------------------------------------------------------------------ following a face


@dataclass(frozen=True)
class FaceTrack:
    """The face of a clip, frame by frame.

    Attributes
    ----------
    crops : uint8 [n, size, size, 3]
        Aligned RGB faces. Where none was found, the crop of the nearest frame that has one; zeros if none has.
    found : bool [n]
        Whether this very frame shows the face.
    boxes : float32 [n, 4]
        x0, y0, x1, y1 in pixels of the frame; NaN where not found.
    landmarks : float32 [n, 5, 2]
        Pixels of the frame; NaN where not found or the detector gives none.
    share : float
        Share of frames with the face, 0 to 1.
    """

    crops: np.ndarray
    found: np.ndarray
    boxes: np.ndarray
    landmarks: np.ndarray
    share: float


def track_faces(frames: np.ndarray, detector: Detector, *, size: int = 112) -> FaceTrack:
    """Detect, follow and align the main face of a clip.

    Parameters
    ----------
    frames : uint8 [n, height, width, 3]
        RGB frames in time order.
    detector : Detector
    size : int
        Side of the crops in pixels.

    Returns
    -------
    FaceTrack

    Notes
    -----
    With landmarks, a crop is the least-squares similarity transform of the five points onto
    :data:`ARCFACE_TEMPLATE`; without, a padded square around the box that puts them at about the same place.
    """
    n = len(frames)
    chosen = _main_face(_faces_of_frames(frames, detector), frames.shape[1:3])
    crops = np.zeros((n, size, size, 3), np.uint8)
    boxes, landmarks = np.full((n, 4), np.nan, np.float32), np.full((n, 5, 2), np.nan, np.float32)
    found = np.array([face is not None for face in chosen], bool)
    points = _points_to_align(chosen)
    for index in np.flatnonzero(found):
        face = chosen[index]
        crops[index], boxes[index] = _crop(frames[index], points[index], size), face.box
        if face.landmarks is not None:
            landmarks[index] = face.landmarks
    seen = np.flatnonzero(found)
    for index in np.flatnonzero(~found) if len(seen) else ():
        crops[index] = crops[seen[np.abs(seen - index).argmin()]]
    return FaceTrack(crops, found, boxes, landmarks, float(found.mean()) if n else 0.0)


_LOOK_AROUND = 6  # the whole picture is searched in the first frame, the last, and at least every so many


def _faces_of_frames(frames: np.ndarray, detector: Detector) -> list[list[Face]]:
    """Faces of each frame; where the detector can follow those of the frame before, the rest is looked at now and then.

    Searching a whole frame at all sizes costs ten times as much as looking where the face was. A cut and a face that
    leaves show at once, because a known face is not found again; one that joins shows a few sampled frames later, or
    in the last.
    """
    found: list[list[Face]] = []
    for index, frame in enumerate(frames):
        followed = None
        if index % _LOOK_AROUND and index + 1 < len(frames) and found[-1] and hasattr(detector, "follow"):
            followed = detector.follow(frame, found[-1])
        found.append(find_faces(frame, detector) if followed is None else followed)
    return found


def find_faces(frame: np.ndarray, detector: Detector) -> list[Face]:
    """Faces of one frame; where there seem to be none, a second look with a border around the frame.

    Detectors miss a face that fills the whole frame, because they learned faces with some surroundings. The border
    is half the longer side of the frame. A face whose centre lies in the border is none.
    """
    faces = detector.detect(frame)
    if faces:
        return faces
    padded, offset = _pad(frame, 0.5 * max(frame.shape[:2]) / min(frame.shape[:2]))
    height, width = frame.shape[:2]
    moved = [
        Face(f.box - offset, f.score, None if f.landmarks is None else f.landmarks - offset)
        for f in detector.detect(padded)
    ]
    centres = [(face.box[:2] + face.box[2:]) / 2 for face in moved]
    return [f for f, (x, y) in zip(moved, centres, strict=True) if 0 <= x < width and 0 <= y < height]


def _pad(frame: np.ndarray, share: float) -> tuple[np.ndarray, int]:
    """Frame with a border of `share` of its short side, and that border in pixels; edge pixels are repeated."""
    border = round(share * min(frame.shape[:2]))
    return cv2.copyMakeBorder(frame, border, border, border, border, cv2.BORDER_REPLICATE), border


def _part(image: np.ndarray, corner: np.ndarray, extent: np.ndarray) -> np.ndarray:
    """Rectangle of `extent` (width, height) from `corner` (x, y); edge pixels are repeated beyond the image."""
    columns, rows = (
        np.clip(np.arange(start, start + length), 0, size - 1)
        for start, length, size in zip(corner, extent, image.shape[1::-1], strict=True)
    )
    return image[rows[:, None], columns]


def _shrink(image: np.ndarray, long_side: int) -> tuple[np.ndarray, float]:
    """Image shrunk to `long_side` where it is larger, and the factor."""
    scale = long_side / max(image.shape[:2])
    if scale >= 1:
        return image, 1.0
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), scale


_CANDIDATES = 8  # faces of a frame that are considered, so that a crowd costs no more
_STAYS = 0.5  # bonus for lying where the face before lay, times overlap and worth
_JUMPS = 0.2  # cost of going on with a face elsewhere, as after a cut
_MINOR = 0.25  # prominence, relative to the clip's main face, that counts as nothing: a passer-by, a false answer


def _main_face(faces: Sequence[Sequence[Face]], shape: tuple[int, int]) -> list[Face | None]:
    """The face to follow, one or none a frame.

    Every choice of at most one face a frame has a worth: large, central, certain faces add to it, minor ones take
    from it, overlap with the face before adds, a jump costs. The best choice over the whole clip is found by dynamic
    programming (Viterbi 1967), so one wrong answer in the first frame cannot lead the rest astray.
    """
    nodes, best_of_frame = [], []
    for index, found in enumerate(faces):
        ranked = sorted(((_prominence(face, shape), face) for face in found), key=lambda pair: -pair[0])
        nodes += [(index, prominence, face) for prominence, face in ranked[:_CANDIDATES]]
        best_of_frame += [prominence for prominence, _ in ranked[:1]]
    chosen: list[Face | None] = [None] * len(faces)
    if not nodes:
        return chosen
    when, prominence = np.array([node[0] for node in nodes]), np.array([node[1] for node in nodes])
    prominence /= max(sorted(best_of_frame)[-2:][0], 1e-9)  # the second: one false answer must not set the scale
    boxes = np.stack([face.box for _, _, face in nodes])
    overlap = _overlap(boxes, boxes)
    worth = prominence - _MINOR
    stays = _STAYS * overlap * np.clip(np.minimum(worth[:, None], worth[None]), 0, None)
    link = np.where(overlap > 0.1, stays, -_JUMPS)
    total, before = worth.copy(), np.full(len(nodes), -1)
    for node in range(len(nodes)):
        earlier = np.flatnonzero(when < when[node])
        if len(earlier):
            best = earlier[(total[earlier] + link[earlier, node]).argmax()]
            gain = total[best] + link[best, node]
            if gain > 0:
                total[node], before[node] = worth[node] + gain, best
    node = int(total.argmax())
    while node >= 0:
        chosen[when[node]] = nodes[node][2]
        node = before[node]
    return chosen


def _prominence(face: Face, shape: tuple[int, int]) -> float:
    """Size relative to the frame × centrality × score, 0 to 1."""
    extent, middle = np.array(shape[::-1]), (face.box[:2] + face.box[2:]) / 2
    side = _side(face.box) / extent.min()
    away = (middle - extent / 2) / (extent / 2)
    return float(min(side, 1.0) * np.exp(-0.5 * away @ away) * face.score)


def _overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of each box of a [m, 4] with each of b [k, 4], float [m, k]."""
    corner0 = np.maximum(a[:, None, :2], b[None, :, :2])
    corner1 = np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = np.clip(corner1 - corner0, 0, None).prod(-1)
    area_a, area_b = (np.clip(x[:, 2:] - x[:, :2], 0, None).prod(-1) for x in (a, b))
    return both / np.maximum(area_a[:, None] + area_b[None] - both, 1e-9)


# ------------------------------------------------------------------------------------------------ aligning


def _points_to_align(track: Sequence[Face | None]) -> list[np.ndarray | None]:
    """Five points [5, 2] for each face of a track: its landmarks, else the usual places in its box.

    The size of a box without landmarks wavers from frame to frame although the face does not; so it is taken as the
    median over up to five frames in which the face hardly moved.
    """
    where = [index for index, face in enumerate(track) if face is not None]
    points: list[np.ndarray | None] = [None] * len(track)
    for place, index in enumerate(where):
        face = track[index]
        if face.landmarks is not None:
            points[index] = face.landmarks
            continue
        near = [track[other].box for other in where[max(0, place - 2) : place + 3]]
        near = [box for box in near if _overlap(box[None], face.box[None])[0, 0] > 0.4]
        points[index] = _points_in_box(face.box, float(np.median([_side(box) for box in near])))
    return points


def _side(box: np.ndarray) -> float:
    return float(np.sqrt(np.clip(box[2:] - box[:2], 1, None).prod()))


def _points_in_box(box: np.ndarray, side: float) -> np.ndarray:
    return (box[:2] + box[2:]) / 2 + side * (_POINTS_IN_BOX - 0.5)


def _crop(frame: np.ndarray, points: np.ndarray, size: int) -> np.ndarray:
    """Square crop in which the points [5, 2] lie on the template as well as a similarity transform can bring them."""
    matrix = similarity(points, ARCFACE_TEMPLATE * (size / 112))
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if scale < 0.7:  # warping does not average: shrink first, else fine detail turns into moiré
        frame = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        matrix = similarity(points * scale, ARCFACE_TEMPLATE * (size / 112))
    # edge pixels repeated beyond the frame: a black border would be the strongest edge of the crop
    return cv2.warpAffine(frame, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares rotation, scaling and shift of 2-D points, without reflection.

    Parameters
    ----------
    source, target : float [m, 2]

    Returns
    -------
    float64 [2, 3]
        Affine matrix that takes `source` to `target` (Umeyama 1991; in the plane, the points as complex numbers
        make it a linear fit of one factor).
    """
    z, w = (np.asarray(points, np.float64) @ (1, 1j) for points in (source, target))
    z0, w0 = z - z.mean(), w - w.mean()
    factor = np.vdot(z0, w0) / np.vdot(z0, z0).real
    shift = w.mean() - factor * z.mean()
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])
