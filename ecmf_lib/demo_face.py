"""Faces of the demo corpus, drawn in each frame by their action units.

On the painted head (:mod:`ecmf_lib.demo_head`) come wrinkles, brows, eyes and mouth; the jaw stretches what lies below
the lips. Lengths are in half face widths, x to the right and y downwards from the middle of the face.
"""

from __future__ import annotations

import cv2
import numpy as np

from ecmf_lib.demo_action import UNITS
from ecmf_lib.demo_head import (
    BROW_Y,
    EYE_Y,
    HEIGHT,
    LEFT,
    MOUTH_Y,
    ORIGIN,
    SCALE,
    TOP,
    WIDTH,
    Colour,
    Look,
    disc,
    fill,
    paint_head,
    rgb,
    smooth_line,
    stroke,
)


class Head:
    """One speaker's head, lit as a scene asks, ready to be drawn with any expression.

    Parameters
    ----------
    look : Look
    light : tuple of float
        Direction towards the light: right, down, towards the viewer.
    tint : tuple of float
        Colour of the light, 1 = white.
    rng : numpy.random.Generator
        For the grain of skin and hair.
    """

    def __init__(self, look: Look, light: Colour, tint: Colour, rng: np.random.Generator):
        self.look = look
        self.tint = np.array(tint, np.float32)
        self._painted = paint_head(look, light, self.tint, rng)

    def draw(
        self, units: np.ndarray, mouth: float, gaze: np.ndarray, turn: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw one frame.

        Parameters
        ----------
        units : ndarray [action units]
            Intensities, 0–1, columns as in :data:`~ecmf_lib.demo_action.UNITS`.
        mouth : float
            Opening by speech, 0–1.
        gaze : ndarray [2]
            Right and down, in widths of the iris.
        turn : ndarray [2]
            Yaw and pitch in rad: eyes and mouth slide over the head with it.

        Returns
        -------
        rgb : uint8 [HEIGHT, WIDTH, 3]
        alpha : uint8 [HEIGHT, WIDTH]
        """
        au = dict(zip(UNITS, units.tolist(), strict=True))
        shade = 1 + np.tensordot(units.astype(np.float32), self._painted.changes, 1)
        shade = cv2.resize(shade, (WIDTH, HEIGHT))
        canvas = cv2.multiply(self._painted.rgb, cv2.merge([shade] * 3), dtype=cv2.CV_8U)
        slide = np.array([0.12 * turn[0], 0.12 * turn[1]])
        jaw = min(1.0, 0.85 * au[26] + 0.5 * mouth)
        for side in (1, -1):
            self._eye(canvas, side, au, gaze, slide)
            self._brow(canvas, side, au, slide)
        canvas, alpha = (self._drop_jaw(image, 0.17 * jaw) for image in (canvas, self._painted.alpha))
        self._mouth(canvas, au, mouth, jaw, slide)
        return canvas, alpha

    def _eye(self, canvas, side, au, gaze, slide) -> None:
        look = self.look
        wide = 0.185 * look.eye
        openness = (1 - au[43]) * (1 + 0.65 * au[5] - 0.3 * au[7] - 0.15 * au[6])
        up, low = 0.095 * look.eye * openness, 0.055 * look.eye * (1 - au[43]) * (1 - 0.45 * au[7] - 0.55 * au[6])
        t = np.linspace(-1, 1, 15)
        middle = np.array([side * look.apart, EYE_Y + 0.02 * au[43]]) + slide
        tilt = -0.02 * side * t  # the outer corner lies higher
        upper = np.stack([wide * t, tilt - up * (1 - t**2) ** 0.8 + 0.02 * au[43] * (1 - t**2)], 1) + middle
        lower = np.stack([wide * t, tilt + low * (1 - t**2)], 1) + middle
        skin = np.array(look.skin) * self.tint
        lid = upper - np.stack([0 * t, 0.055 * (1 - t**2) ** 0.6], 1)
        fill(canvas, np.concatenate([lid, upper[::-1]]), rgb(skin * 0.74))
        if up + low > 0.02:
            self._eyeball(canvas, np.concatenate([upper, lower[::-1]]), middle, gaze)
        stroke(canvas, lid, rgb(skin * 0.55), 1)
        stroke(canvas, lower, rgb(skin * 0.6), 1)
        stroke(canvas, upper, (30, 20, 18), 3)

    def _eyeball(self, canvas, opening, middle, gaze) -> None:
        """White, iris, pupil and glint, seen through the opening of the lids."""
        look = self.look
        corner = np.floor((opening.min(0) + ORIGIN) * SCALE).astype(int) - 2
        end = np.ceil((opening.max(0) + ORIGIN) * SCALE).astype(int) + 2
        region = canvas[corner[1] : end[1], corner[0] : end[0]]
        offset = corner / SCALE
        ball = np.empty_like(region)
        ball[:] = rgb(np.array([236, 232, 228]) * self.tint)
        ball[: len(ball) // 3] = rgb(np.array([196, 188, 186]) * self.tint)  # shadow of the upper lid
        centre = middle + np.array(gaze) * (0.08, 0.05) - offset - (0, 0.012)
        glint = centre - (-0.03, 0.035)
        for radius, colour in ((0.088, 0.55), (0.076, 1.0), (0.036, None)):
            paint = (14, 10, 10) if colour is None else rgb(np.array(look.iris) * colour * self.tint)
            disc(ball, centre, radius * look.eye, paint)
        disc(ball, glint, 0.016, (250, 250, 250))
        mask = np.zeros(region.shape[:2], np.uint8)
        fill(mask, opening - offset, 255)
        weight = mask[..., None].astype(np.uint16)
        region[:] = ((ball * weight + region * (255 - weight)) // 255).astype(np.uint8)

    def _brow(self, canvas, side, au, slide) -> None:
        look = self.look
        inner = 0.15 * au[4] - 0.15 * au[1]
        outer = -0.13 * au[2] + 0.02 * au[4] + 0.03 * au[1]
        line = smooth_line(
            (0.17 - 0.05 * au[4], BROW_Y + 0.02 + inner),
            (0.4, BROW_Y - 0.05 + 0.45 * inner + 0.7 * outer),
            (0.55, BROW_Y - 0.05 + 0.1 * inner + outer),
            (0.72, BROW_Y + 0.06 + 0.9 * outer),
            n=10,
        )
        thick = 0.038 * look.brow * np.array([0.8, 1.1, 1.2, 1.2, 1.1, 1.0, 0.9, 0.7, 0.5, 0.2])
        shape = np.concatenate([line - np.stack([0 * thick, thick], 1), (line + np.stack([0 * thick, thick], 1))[::-1]])
        colour = np.array(look.hair) * 0.6 * self.tint + np.array(look.skin) * 0.06
        fill(canvas, shape * (side, 1) + slide, rgb(colour))

    def _drop_jaw(self, canvas: np.ndarray, drop: float) -> np.ndarray:
        """Stretch the chin: the lips' row stays, the row under the chin moves down by ``drop``."""
        start, end = (round((TOP + row) * SCALE) for row in (MOUTH_Y, 1.25 * self.look.long))
        shift = min(round(drop * SCALE), HEIGHT - end)
        if shift < 1:
            return canvas
        out = np.empty_like(canvas)
        out[:start] = canvas[:start]
        out[start : end + shift] = cv2.resize(canvas[start:end], (WIDTH, end + shift - start))
        out[end + shift :] = canvas[end : HEIGHT - shift]
        return out

    def _mouth(self, canvas, au, speech, jaw, slide) -> None:
        look = self.look
        t = np.linspace(-1, 1, 21)
        arch = (1 - t**2).clip(0)
        wide = 0.31 * (1 + 0.32 * au[12] + 0.34 * au[20] - 0.14 * au[26] - 0.1 * speech - 0.06 * au[4])
        corners = (-0.13 * au[12] + 0.13 * au[15] + 0.04 * au[20]) * t**2 + 0.05 * au[12] - 0.04 * au[15]
        part = 0.03 * au[25] + 0.02 * speech + 0.03 * au[26]
        x, line = wide * t + slide[0], MOUTH_Y + corners + slide[1]
        in_up = line - (part + 0.05 * au[10]) * arch**0.7
        in_low = line + (part + 0.05 * au[25] + 0.2 * jaw) * arch**0.6
        bow = 1 - 0.35 * np.exp(-((t / 0.16) ** 2))
        out_up = in_up - 0.062 * look.lips * bow * arch**0.7
        out_low = in_low + 0.085 * look.lips * arch**0.75
        skin, red = np.array(look.skin) * self.tint, np.array([176, 74, 80]) * self.tint
        lip = skin * 0.8 * (1, 0.78, 0.8) + look.make_up * 0.5 * (red - skin * 0.8)
        curves = {name: np.stack([x, y], 1) for name, y in
                  (("out_up", out_up), ("in_up", in_up), ("in_low", in_low), ("out_low", out_low))}  # fmt: skip
        fill(canvas, np.concatenate([curves["out_up"], curves["in_up"][::-1]]), rgb(lip * 0.82))
        fill(canvas, np.concatenate([curves["in_low"], curves["out_low"][::-1]]), rgb(lip))
        gloss = curves["out_low"][7:14] - (0, 0.045 * look.lips)
        stroke(canvas, gloss, rgb(lip * 1.14), 3)
        inside = np.concatenate([curves["in_up"], curves["in_low"][::-1]])
        fill(canvas, inside, (58, 22, 24))
        gape = in_low - in_up
        if gape.max() > 0.05:
            teeth = np.minimum(0.075 * arch**0.5, 0.8 * gape)
            edge = np.stack([x, in_up + teeth], 1)
            fill(canvas, np.concatenate([curves["in_up"], edge[::-1]])[2:-2], (226, 220, 210))
        if gape.max() > 0.13:
            tongue = np.stack([x, in_low - 0.3 * gape], 1)[5:16]
            fill(canvas, np.concatenate([tongue, curves["in_low"][5:16][::-1]]), (168, 78, 80))
        stroke(canvas, curves["in_up"], rgb(lip * 0.42), 2)
        for end in (0, -1):
            disc(canvas, curves["in_up"][end], 0.018, rgb(lip * 0.5))


def homography(pose: np.ndarray, place: np.ndarray, middle: tuple[float, float], size: float) -> np.ndarray:
    """Canvas pixels → frame pixels for a head turned by yaw, pitch and roll, float64 [3, 3].

    Parameters
    ----------
    pose : ndarray [3]
        Yaw, pitch, roll in rad.
    place : ndarray [3]
        Shift right and down in half face widths, relative size.
    middle : tuple of float
        Where the middle of the face rests in the frame, pixels.
    size : float
        Half face width in frame pixels.
    """
    yaw, pitch, roll = pose
    (cy, sy), (cp, sp), (cr, sr) = ((np.cos(a), np.sin(a)) for a in (yaw, pitch, roll))
    turn = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    turn = turn @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    flat = np.array([[*turn[0, :2], 0], [*turn[1, :2], 0], [*(0.12 * turn[2, :2]), 1]])
    reach = size * place[2]
    x, y = middle[0] + size * place[0], middle[1] + size * place[1]
    to_frame = np.array([[reach, 0, x], [0, reach, y], [0, 0, 1]])
    to_face = np.array([[1 / SCALE, 0, -LEFT], [0, 1 / SCALE, -TOP], [0, 0, 1]])
    return to_frame @ flat @ to_face
