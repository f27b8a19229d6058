"""Vision without a model: gradients, colour, texture and motion of whole frames and of face crops.

HOG: Dalal & Triggs, "Histograms of Oriented Gradients for Human Detection", CVPR 2005 (here without overlapping
blocks: clips are few, so the descriptor stays short). LBP: Ojala et al., IEEE TPAMI 24(7), 2002.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import cv2
import numpy as np

from ecmf_lib.encoders.base import ClipInputs, Encoder, MissingStream


def hog(grey: np.ndarray, cells: tuple[int, int], orientations: int) -> np.ndarray:
    """Histograms of gradient direction (unsigned) in a grid of cells, weighted by gradient strength.

    Parameters
    ----------
    grey : float32 [height, width]
        Sides divisible by the number of cells.
    cells : (int, int)
        Rows and columns of the grid.
    orientations : int
        Bins over 180°; a gradient is shared linearly between the two nearest.

    Returns
    -------
    float32 [rows, columns, orientations]
        Divided by the image's mean gradient energy per cell, so brightness and contrast drop out.
    """
    dx = cv2.Sobel(grey, cv2.CV_32F, 1, 0, ksize=1)
    dy = cv2.Sobel(grey, cv2.CV_32F, 0, 1, ksize=1)
    strength = np.hypot(dx, dy)
    position = (np.arctan2(dy, dx) / np.pi % 1.0) * orientations
    lower = np.floor(position).astype(int) % orientations
    upper_share = position - np.floor(position)
    rows, columns = cells
    row = np.arange(grey.shape[0]) * rows // grey.shape[0]
    column = np.arange(grey.shape[1]) * columns // grey.shape[1]
    cell = (row[:, None] * columns + column[None, :]) * orientations
    size = rows * columns * orientations
    histogram = np.bincount((cell + lower).ravel(), (strength * (1 - upper_share)).ravel(), size)
    histogram += np.bincount((cell + (lower + 1) % orientations).ravel(), (strength * upper_share).ravel(), size)
    histogram = histogram.reshape(rows, columns, orientations)
    return (np.sqrt(histogram / (histogram.sum(axis=2).mean() + 1e-6))).astype(np.float32)


def lbp(grey: np.ndarray) -> np.ndarray:
    """Local binary pattern of each inner pixel, rotation-invariant uniform form: int [height - 2, width - 2] in 0…9."""
    centre = grey[1:-1, 1:-1]
    offsets = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]  # once round the centre
    height, width = centre.shape
    bits = np.stack([grey[r : r + height, c : c + width] >= centre for r, c in offsets]).astype(np.int8)
    changes = np.abs(bits - np.roll(bits, 1, axis=0)).sum(axis=0)
    return np.where(changes <= 2, bits.sum(axis=0), 9)


class HogColourMotion(Encoder):
    """Whole frames: layout of edges, colours of the scene, and how much and where the picture moves."""

    name = "hog-colour-motion"
    stream = "global"
    level = "clip"
    licence = "Apache-2.0 (OpenCV), BSD-3-Clause (NumPy)"
    weights = "none"
    uses = frozenset({"frames"})
    version = 1
    libraries = ("cv2",)
    defaults: ClassVar = {"orientations": 6}

    @property
    def dim(self) -> int:
        return len(self.feature_names)

    @property
    def feature_names(self) -> list[str]:
        bins = range(self.settings["orientations"])
        edges = [f"edges_r{r}c{c}_{180 * b // len(bins)}deg" for r in range(4) for c in range(4) for b in bins]
        colour = [f"{s}_{c}" for s in ("mean", "std") for c in ("lightness", "red_green", "blue_yellow")]
        colour += [
            f"{c}_r{r}c{k}" for r in range(2) for k in range(2) for c in ("lightness", "red_green", "blue_yellow")
        ]
        colour += [f"hue_{45 * i}deg" for i in range(8)] + ["saturation"]
        moves = [f"difference_r{r}c{c}" for r in range(3) for c in range(3)] + ["difference", "flow", "flow_peak"]
        return (
            edges
            + colour
            + [f"{name}_change" for name in colour[:6]]
            + moves
            + [f"{name}_change" for name in moves[-3:]]
        )

    def _encode(self, clip: ClipInputs) -> np.ndarray:
        if not len(clip.frames):
            raise MissingStream("no video")
        small = [cv2.resize(frame, (96, 96), interpolation=cv2.INTER_AREA) for frame in clip.frames]
        greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) for frame in small]
        edges = np.mean([hog(grey, (4, 4), self.settings["orientations"]).ravel() for grey in greys], axis=0)
        colours = np.array([_colour(frame) for frame in small])
        moves = np.array([_motion(a, b) for a, b in pairwise(greys)] or [np.zeros(12)])
        return np.concatenate([edges, colours.mean(0), colours[:, :6].std(0), moves.mean(0), moves[:, -3:].std(0)])


def _colour(frame: np.ndarray) -> np.ndarray:
    """[27]: Lab mean and std, Lab mean by quarter of the frame, hue histogram weighted by saturation, saturation."""
    lab = cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) / 100
    hue, saturation, value = np.moveaxis(cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2HSV), 2, 0)
    weight = saturation * value
    hues = np.bincount((hue / 45).astype(int).ravel() % 8, weight.ravel(), 8) / (weight.sum() + 1e-6)
    quarters = cv2.resize(lab, (2, 2), interpolation=cv2.INTER_AREA)
    pixels = lab.reshape(-1, 3)
    return np.concatenate([pixels.mean(0), pixels.std(0), quarters.ravel(), hues, [saturation.mean()]])


def _motion(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """[12]: mean absolute difference in a 3×3 grid and overall, mean and 95th percentile of optical flow (px of 96)."""
    difference = np.abs(after - before) / 255
    grid = cv2.resize(difference, (3, 3), interpolation=cv2.INTER_AREA).ravel()
    half = [cv2.resize(grey, (48, 48), interpolation=cv2.INTER_AREA).astype(np.uint8) for grey in (before, after)]
    flow = cv2.calcOpticalFlowFarneback(half[0], half[1], None, 0.5, 2, 9, 2, 5, 1.1, 0)
    speed = 2 * np.hypot(flow[..., 0], flow[..., 1])
    return np.concatenate([grid, [difference.mean(), speed.mean(), np.percentile(speed, 95)]])


class _HogLbp(Encoder):
    stream = "face"
    licence = "Apache-2.0 (OpenCV), BSD-3-Clause (NumPy)"
    weights = "none"
    uses = frozenset({"faces"})
    version = 1
    libraries = ("cv2",)
    defaults: ClassVar = {"orientations": 8}

    #: Part of the aligned crop (fractions top, bottom, left, right) → HOG cells (rows, columns).
    REGIONS: ClassVar = {"brows_eyes": (0.20, 0.60, 0.08, 0.92, 3, 6), "mouth": (0.60, 0.98, 0.18, 0.82, 3, 4)}

    def _names(self) -> list[str]:
        bins = range(self.settings["orientations"])
        names = []
        for region, (*_, rows, columns) in self.REGIONS.items():
            names += [
                f"{region}_r{r}c{c}_{180 * b // len(bins)}deg"
                for r in range(rows)
                for c in range(columns)
                for b in bins
            ]
            names += [f"{region}_lbp{i}" for i in range(10)]
        return names

    def _frames(self, clip: ClipInputs) -> np.ndarray:
        """[found frames, descriptors]"""
        if not len(clip.crops):
            raise MissingStream("no video")
        if not clip.found.any():
            raise MissingStream("no face found")
        return np.array([self._describe(crop) for crop in clip.crops[clip.found]])

    def _describe(self, crop: np.ndarray) -> np.ndarray:
        grey = cv2.GaussianBlur(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), (3, 3), 0)
        height, width = grey.shape
        parts = []
        for top, bottom, left, right, rows, columns in self.REGIONS.values():
            part = grey[round(top * height) : round(bottom * height), round(left * width) : round(right * width)]
            part = cv2.resize(part, (16 * columns, 16 * rows), interpolation=cv2.INTER_LINEAR)
            patterns = np.bincount(lbp(part).ravel(), minlength=10)
            parts += [hog(part.astype(np.float32), (rows, columns), self.settings["orientations"]).ravel()]
            parts += [np.sqrt(patterns / patterns.sum())]
        return np.concatenate(parts)


class HogLbpFaceFrames(_HogLbp):
    """Face crops, one row a frame with a face: edges and texture of the brow-and-eye band and of the mouth."""

    name = "hog-lbp-face-frames"
    level = "frame"

    @property
    def dim(self) -> int:
        return len(self.feature_names)

    @property
    def feature_names(self) -> list[str]:
        return self._names()

    def _encode(self, clip: ClipInputs) -> np.ndarray:
        return self._frames(clip)


class HogLbpFace(_HogLbp):
    """Face crops over the clip: mean of the frames' descriptors, and how far each varies around that mean."""

    name = "hog-lbp-face"
    level = "clip"

    @property
    def dim(self) -> int:
        return len(self.feature_names)

    @property
    def feature_names(self) -> list[str]:
        return self._names() + [f"{name}_change" for name in self._names()]

    def _encode(self, clip: ClipInputs) -> np.ndarray:
        frames = self._frames(clip)
        return np.concatenate([frames.mean(0), frames.std(0)])
