"""How the demo corpus's faces move: action units, gaze, blinks and head pose over the frames of a clip.

Action units are those of the Facial Action Coding System (Ekman, Friesen & Hager 2002); which ones an emotion
shows follows the prototypes of its EMFACS tables, with worried as a weaker fear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

#: Number of the action unit → its column.
UNITS = {unit: k for k, unit in enumerate((1, 2, 4, 5, 6, 7, 10, 12, 15, 20, 25, 26, 43))}

#: Emotion → action unit → intensity at full strength, 0–1.
PROTOTYPES: dict[str, dict[int, float]] = {
    "neutral": {},
    "angry": {4: 1.0, 5: 0.35, 7: 0.8, 10: 0.6, 25: 0.35},
    "happy": {6: 0.9, 12: 1.0, 25: 0.55, 2: 0.15},
    "sad": {1: 0.9, 4: 0.45, 15: 1.0, 43: 0.32},
    "worried": {1: 1.0, 2: 0.35, 4: 0.7, 5: 0.55, 20: 1.0, 25: 0.35},
    "surprise": {1: 1.0, 2: 1.0, 5: 1.0, 25: 0.6, 26: 0.9},
}

#: Emotion → (nods, shakes, speed in Hz, pitch held in rad, lean held as relative size).
_CARRIAGE = {
    "neutral": (0.03, 0.03, 0.6, 0.0, 1.0),
    "angry": (0.10, 0.05, 1.6, 0.06, 1.06),
    "happy": (0.06, 0.10, 1.0, -0.05, 1.02),
    "sad": (0.03, 0.03, 0.35, 0.20, 0.97),
    "worried": (0.03, 0.09, 2.2, 0.03, 0.97),
    "surprise": (0.04, 0.03, 0.8, -0.12, 0.95),
}


@dataclass(frozen=True)
class Action:
    """One clip's movement at each of t frames."""

    units: np.ndarray  # float64 [t, action units], 0–1, columns as in UNITS
    mouth: np.ndarray  # float64 [t], opening by speech, 0–1
    gaze: np.ndarray  # float64 [t, 2], right and down, in widths of the iris
    pose: np.ndarray  # float64 [t, 3], yaw, pitch (down positive), roll in rad
    place: np.ndarray  # float64 [t, 3], shift right and down in half face widths, relative size


def act(emotion: str, strength: float, mouth: np.ndarray, fps: float, rng: np.random.Generator) -> Action:
    """Movement of a face that shows an emotion while it speaks.

    Parameters
    ----------
    emotion : str
        One of :data:`PROTOTYPES`.
    strength : float
        0–1.
    mouth : ndarray [t]
        Opening of the mouth by speech, 0–1.
    fps : float
        Frames a second.
    rng : numpy.random.Generator
    """
    t = len(mouth)
    time = np.arange(t) / fps
    course = strength * _course(time, rng)
    units = np.zeros((t, len(UNITS)))
    for unit, amount in PROTOTYPES[emotion].items():
        units[:, UNITS[unit]] = amount * rng.uniform(0.8, 1.15) * course
    units += 0.05 * np.abs(_drift(t, len(UNITS), 0.3 * fps, rng))  # a living face is never quite still
    units[:, UNITS[43]] = np.maximum(units[:, UNITS[43]], _blinks(time, emotion, strength, rng))
    gaze = 0.12 * _drift(t, 2, 0.25 * fps, rng)
    gaze[:, 1] += 0.35 * course * (emotion == "sad")
    gaze[:, 0] += 0.4 * course * (emotion == "worried") * np.sign(np.sin(2 * np.pi * (0.7 * time + rng.random())))
    pose, place = _carriage(emotion, course, mouth, time, fps, rng)
    return Action(np.clip(units, 0, 1), mouth, gaze, pose, place)


def _course(time: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Onset, apex and sometimes offset of an expression, 0–1."""
    onset, rise = rng.uniform(0.0, 0.45), rng.uniform(0.2, 0.45)
    course = 1 / (1 + np.exp(-(time - onset - rise / 2) * 8 / rise))
    fade = rng.uniform(0.0, 0.4)
    return course * (1 - fade * np.clip((time - 0.7 * time[-1]) / (0.3 * time[-1]), 0, 1))


def _blinks(time: np.ndarray, emotion: str, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Closing of the lids: about one blink in 3 s, more of them when worried, fewer when surprised."""
    rate = 0.35 * {"worried": 1 + strength, "surprise": 1 - 0.7 * strength}.get(emotion, 1.0)
    count = rng.poisson(rate * time[-1])
    moments = rng.uniform(0.1, max(0.2, time[-1] - 0.1), count)
    return np.exp(-(((time[:, None] - moments[None]) / 0.07) ** 2)).max(axis=1, initial=0.0)


def _drift(t: int, n: int, width: float, rng: np.random.Generator) -> np.ndarray:
    """Slow random movement with unit variance, [t, n]."""
    smooth = gaussian_filter1d(rng.standard_normal((t + 40, n)), max(width, 1.0), axis=0)[20 : 20 + t]
    return smooth * np.sqrt(2 * np.sqrt(np.pi) * max(width, 1.0))


def _carriage(emotion: str, course: np.ndarray, mouth: np.ndarray, time: np.ndarray, fps: float, rng):
    calm, full = np.array(_CARRIAGE["neutral"]), np.array(_CARRIAGE[emotion])
    nods, shakes, speed, bow, lean = (calm[:, None] + course * (full - calm)[:, None]).reshape(5, -1)
    phase = 2 * np.pi * (np.cumsum(speed) / fps + rng.random())
    drift = _drift(len(time), 6, 0.5 * fps, rng)
    accent = gaussian_filter1d(mouth - mouth.mean(), 1.0)
    yaw = shakes * np.sin(phase) + 0.05 * drift[:, 0] + rng.normal(0, 0.05)
    pitch = bow + nods * (0.5 * np.sin(phase + 1) + accent) + 0.03 * drift[:, 1]
    roll = 0.5 * shakes * np.sin(0.7 * phase) + 0.03 * drift[:, 2] + rng.normal(0, 0.03)
    pose = np.stack([yaw.clip(-0.3, 0.3), pitch.clip(-0.3, 0.3), roll.clip(-0.2, 0.2)], axis=1)
    place = np.stack([0.5 * yaw + 0.03 * drift[:, 3], 0.5 * pitch + 0.03 * drift[:, 4], lean], axis=1)
    return pose, place
