"""Single clips worth a look: what ECMF trusted in them, beside a picture and the words."""

from __future__ import annotations

import base64

import cv2
import numpy as np
import pandas as pd

from ecmf_lib.corpus import Clip
from ecmf_lib.media import read_media
from ecmf_lib.predictions import PredictionError, checked, class_names, probability_columns
from ecmf_lib.project import Project

HEIGHT = 240  # px; a picture in a report is smaller than a hand


def example_clips(
    project: Project, predictions: pd.DataFrame, n: int = 4
) -> tuple[list[np.ndarray | None], list[str], pd.DataFrame]:
    """Pictures, words and weights of a few clips, for :func:`ecmf_lib.plots.clip_weights`.

    Parameters
    ----------
    project : Project
        Its corpus holds the clips.
    predictions : DataFrame
        One model's, with ``p_<class>`` and ``w_<stream>``.
    n : int
        Clips wanted; fewer where there are fewer.

    Returns
    -------
    frames : list of uint8 [height, width, 3] or None
        The frame at the clip's middle, at most 240 px high; None where the corpus has no picture, or the file cannot be
        decoded.
    words : list of str
        Transcripts; "" where nothing is known.
    table : DataFrame
        As :func:`chosen`, in the same order.

    Raises
    ------
    KeyError
        A chosen clip is not in the corpus.
    PredictionError
        As :func:`chosen`.
    """
    table = chosen(predictions, n)
    clips = [project.corpus.clip(clip_id) for clip_id in table["id"]]
    return [middle_frame(clip) for clip in clips], [clip.transcript for clip in clips], table


def chosen(predictions: pd.DataFrame, n: int = 4) -> pd.DataFrame:
    """The surest right clip, the surest wrong one, then the heaviest clip of each stream that is on top in neither.

    All figures are means over the seeds, so `predicted` is what the seeds say together, which need not be what the most
    of them say. A clip that lacks streams is taken for its weights only if none with more of them is left: where one
    stream is present, its weight of 1 says nothing. Places that are left over go to the surest of the others. Equals
    are taken in the order of their ids, so the same predictions give the same clips.

    Returns
    -------
    DataFrame
        At most `n` rows: id, why (in words), label, predicted, confidence (0…1), ``w_<stream>``.

    Raises
    ------
    PredictionError
        The table cannot be read, or has no ``p_<class>`` or ``w_<stream>`` columns.
    ValueError
        `n` is below 1.
    """
    if n < 1:
        raise ValueError(f"n = {n}: expected 1 clip or more")
    clips, weights = _together(predictions), [name for name in predictions.columns if name.startswith("w_")]
    right = clips["label"] == clips["predicted"]
    found: dict[str, str] = {}  # id → why

    def take(rows: pd.DataFrame, by: list[str], why: str) -> None:
        rows = rows[~rows.index.isin(list(found))].sort_values(by, ascending=False, kind="stable")
        if len(rows) and len(found) < n:
            found[rows.index[0]] = why

    take(clips[right], ["confidence"], "the surest right one")
    take(clips[~right & (clips["label"] != "")], ["confidence"], "the surest wrong one")
    for stream in weights:
        if stream not in set(clips.loc[list(found), "top"]):
            take(clips[clips["top"] == stream], ["present", stream], f"most weight on {stream.removeprefix('w_')}")
    for _ in range(n - len(found)):
        take(clips, ["confidence"], "one of the surest")
    table = clips.loc[list(found), ["label", "predicted", "confidence", *weights]].rename_axis("id").reset_index()
    table.insert(1, "why", list(found.values()))
    return table


def _together(predictions: pd.DataFrame) -> pd.DataFrame:
    """One row a clip, sorted by id: means over seeds, the class they give, the heaviest stream, how many are there."""
    chances = probability_columns(checked(predictions))
    weights = [name for name in predictions.columns if name.startswith("w_")]
    if not chances or not weights:
        raise PredictionError("examples need p_<class> and w_<stream> columns: choose a model that weighs streams")
    by_clip = predictions.groupby("id", sort=True)
    clips = by_clip[[*chances, *weights]].mean()
    clips["label"] = by_clip["label"].first()
    clips["predicted"] = np.array(class_names(predictions))[clips[chances].to_numpy().argmax(axis=1)]
    clips["confidence"] = clips[chances].max(axis=1)
    known = clips[weights].fillna(0.0)
    clips["top"] = known.idxmax(axis=1)
    clips["present"] = (known > 0).sum(axis=1)
    return clips


def middle_frame(clip: Clip) -> np.ndarray | None:
    """One frame uint8 [H, W, 3] of the middle of a clip; None without a picture that can be read."""
    if clip.video is None:
        return None
    try:
        frames = read_media(clip.video, clip.audio, n_frames=3).frames
    except Exception:  # whatever is wrong with a file, the ledger says it; a picture less is no reason to stop
        return None
    if not len(frames):
        return None
    frame = frames[len(frames) // 2]
    height, width = frame.shape[:2]
    if height <= HEIGHT:
        return frame
    return cv2.resize(frame, (max(1, round(width * HEIGHT / height)), HEIGHT), interpolation=cv2.INTER_AREA)


def jpeg(frame: np.ndarray | None, height: int, alt: str, widest: int) -> str:
    """An ``img`` that holds its picture, uint8 [h, w, 3], as JPEG of so many pixels' height; "" for None."""
    if frame is None:
        return ""
    tall, wide = frame.shape[:2]
    size = (max(1, min(widest, round(wide * height / tall))), height)
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    good, packed = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    data = base64.b64encode(packed).decode() if good else ""
    return f'<img alt="{alt}" src="data:image/jpeg;base64,{data}">' if good else ""
