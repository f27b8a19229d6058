"""Looking closely: one clip through every step, and what the streams of a corpus know."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from ecmf_lib.corpus import Clip
from ecmf_lib.demo import read_truth
from ecmf_lib.faces import FaceTrack, track_faces
from ecmf_lib.media import Media, read_media
from ecmf_lib.project import Project
from ecmf_lib.samples import FusionData


@dataclass(frozen=True)
class Seen:
    """One clip, decoded, with its face followed."""

    media: Media
    track: FaceTrack


def look(project: Project, clip: Clip) -> Seen:
    """Decode a clip and follow its face, with the project's settings, as the extraction does.

    Raises
    ------
    MediaError
        If the clip cannot be decoded.
    """
    media = read_media(clip.video, clip.audio, n_frames=project.settings.frames)
    return Seen(media, track_faces(media.frames, project.detector))


def clip_with_picture(project: Project) -> Clip | None:
    """The clip that the settings name, else the first good one with a picture (and a label, if any has); or None."""
    named = getattr(project.settings, "clip", "")
    if named:
        return project.corpus.clip(named)
    good = set(project.ledger.loc[project.ledger["status"] == "done", "id"])
    seen = [clip for clip in project.corpus if clip.video and clip.id in good]
    return next((clip for clip in seen if clip.label), seen[0] if seen else None)


def one_of_each(project: Project, *, height: int = 180, width: int = 240) -> tuple[np.ndarray, list[str]]:
    """The middle frame of one good labelled clip for each class.

    Returns
    -------
    frames : uint8 [n, height, width, 3]
        Fitted into one size with a grey border.
    labels : list of str
        Classes without a clip that has a picture are left out.
    """
    good = set(project.ledger.loc[project.ledger["status"] == "done", "id"])
    frames, labels = [], []
    for label in project.corpus.classes:
        of_label = [clip for clip in project.corpus if clip.label == label and clip.video and clip.id in good]
        if of_label:
            # from the middle of the list, where the speaker is not the one of every other label
            clip = of_label[len(of_label) * len(labels) // len(project.corpus.classes)]
            media = read_media(clip.video, clip.audio, n_frames=3, max_side=max(height, width))
            frames.append(_fit(media.frames[len(media.frames) // 2], height, width))
            labels.append(label)
    return np.stack(frames) if frames else np.zeros((0, height, width, 3), np.uint8), labels


def _fit(image: np.ndarray, height: int, width: int) -> np.ndarray:
    scale = min(height / image.shape[0], width / image.shape[1])
    small = cv2.resize(
        image, (round(image.shape[1] * scale), round(image.shape[0] * scale)), interpolation=cv2.INTER_AREA
    )
    canvas = np.full((height, width, 3), 235, np.uint8)
    top, left = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
    canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
    return canvas


def outstanding(project: Project, clip_id: str, streams: tuple[str, ...], *, n: int = 5) -> dict[str, pd.DataFrame]:
    """The features in which a clip differs most from its corpus; those of pre-trained models have numbers for names.

    Returns
    -------
    dict
        Stream → DataFrame (feature, z) with the n largest absolute z-scores; streams that the clip lacks are left out.
    """
    ids = project.corpus.clips["id"].tolist()
    found = {}
    for stream in streams:
        matrix, present = project.sets[stream].matrix(ids)
        row = ids.index(clip_id)
        if not present[row]:
            continue
        z = StandardScaler().fit(matrix[present]).transform(matrix[[row]])[0]
        top = np.argsort(-np.abs(z), kind="stable")[:n]
        names = project.encoders[stream].feature_names
        found[stream] = pd.DataFrame({"feature": [names[i] if names else f"no. {i}" for i in top], "z": z[top]})
    return found


def truth(project: Project) -> pd.DataFrame | None:
    """What a generated corpus really expresses, by id; None for a real one."""
    folder = project.corpus.root
    return read_truth(folder).set_index("id") if (folder / "demo.json").is_file() else None


def neighbours(data: FusionData) -> pd.DataFrame:
    """What a clip has in common with the clip that is most similar in a stream.

    If the nearest clip is of the same *speaker* far more often than chance, then folds drawn at random would let a
    model score by recognising people.

    Returns
    -------
    DataFrame
        stream, same_label, same_speaker, and what chance would give for both; shares from 0 to 1, NaN where there
        is only one kind (or nobody knows the speakers).
    """
    labels, speakers = np.asarray(data.classes)[data.labels], np.asarray(data.speakers)
    rows = []
    for stream, x in data.streams.items():
        there = data.present[stream]
        row: dict = {"stream": stream}
        for name, kind in (("label", labels), ("speaker", speakers)):
            known = there & (kind != "")
            row[f"same_{name}"], row[f"chance_{name}"] = _same_as_nearest(x[known], kind[known])
        rows.append(row)
    return pd.DataFrame(rows)[["stream", "same_label", "chance_label", "same_speaker", "chance_speaker"]]


def _same_as_nearest(x: np.ndarray, kind: np.ndarray) -> tuple[float, float]:
    counts = np.unique(kind, return_counts=True)[1]
    if len(counts) < 2:
        return np.nan, np.nan
    z = StandardScaler().fit_transform(x)
    nearest = NearestNeighbors(n_neighbors=2).fit(z).kneighbors(z, return_distance=False)[:, 1]
    chance = np.sum(counts * (counts - 1)) / (len(kind) * (len(kind) - 1))
    return float(np.mean(kind[nearest] == kind)), float(chance)


def flat_map(data: FusionData) -> pd.DataFrame:
    """Each stream in two dimensions: its first two principal components after standardising.

    Returns
    -------
    DataFrame
        stream, id, label, speaker, x, y.
    """
    parts = []
    for stream, x in data.streams.items():
        there = data.present[stream]
        z = StandardScaler().fit_transform(x[there])
        flat = PCA(2, svd_solver="full").fit_transform(np.column_stack([z, np.zeros(len(z))]))  # also if dim is 1
        parts.append(
            pd.DataFrame(
                {
                    "stream": stream,
                    "id": np.asarray(data.ids)[there],
                    "label": np.asarray(data.classes)[data.labels[there]],
                    "speaker": np.asarray(data.speakers)[there],
                    "x": flat[:, 0],
                    "y": flat[:, 1],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)
