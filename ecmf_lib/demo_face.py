"""Faces of the demo corpus: a shaded head for each speaker, redrawn in each frame by its action units.

What does not move is painted once a clip: skin lit over a height field (brow, nose, cheeks, chin), ears and hair.
Wrinkles and bulges are differences of shading that are added by their action units. Brows, eyes and mouth are
drawn anew in each frame; the jaw stretches what lies below the lips. The canvas is twice as fine as the video.

Lengths are in half face widths, x to the right and y downwards from the middle of the face.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.interpolate import PchipInterpolator

from ecmf_lib.demo_action import UNITS

SCALE = 100  # canvas pixels in a half face width
LEFT, TOP = 1.45, 1.7  # from the middle of the face to the canvas's edges
_ORIGIN = np.array([LEFT, TOP])
WIDTH, HEIGHT = round(2 * LEFT * SCALE), round((TOP + 1.65) * SCALE)
EYE_Y, BROW_Y, MOUTH_Y = -0.22, -0.5, 0.6
_SHIFT = 4  # OpenCV draws at 1/16 pixel

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Look:
    """A speaker's appearance. Colours are RGB, 0–255."""

    skin: Colour
    hair: Colour
    style: str  # "short", "crop", "bob", "long", "bun" or "curls"
    iris: Colour
    clothes: Colour
    long: float = 1.0  # height of the face
    jaw: float = 1.0  # width of the jaw
    eye: float = 1.0  # size of the eyes
    apart: float = 0.42  # from the middle to an eye
    nose: float = 1.0  # width of the nose
    lips: float = 1.0  # fullness
    brow: float = 1.0  # thickness
    beard: float = 0.0  # 0–1
    make_up: float = 0.0  # redness of the lips, 0–1


LOOKS = (
    Look((236, 196, 172), (92, 58, 36), "long", (86, 110, 70), (70, 110, 150), 1.0, 0.95, 1.06, make_up=0.6),
    Look((228, 186, 156), (40, 32, 28), "short", (80, 52, 34), (60, 70, 90), 1.03, 1.1, 0.95, beard=0.35),
    Look((242, 208, 182), (206, 164, 98), "bob", (84, 120, 160), (170, 70, 80), 0.97, 0.94, 1.08, make_up=0.7),
    Look((150, 104, 76), (26, 20, 18), "crop", (54, 34, 24), (200, 190, 170), 1.04, 1.1, 0.97, 0.43, 1.2, 1.25, 1.1),
    Look((198, 150, 118), (44, 28, 24), "bun", (70, 44, 28), (90, 130, 90),
         1.0, 0.92, 1.05, 0.41, 1.0, 1.15, 0.8, 0.0, 0.5),
    Look((232, 192, 160), (60, 40, 28), "short", (96, 120, 140), (130, 90, 60), 0.98, 1.04, 0.98, 0.4, 1.1, 0.9, 1.2),
    Look((226, 184, 150), (24, 22, 26), "bob", (58, 38, 28), (180, 150, 190),
         0.96, 0.98, 1.0, 0.43, 0.95, 1.0, 0.9, 0, 0.6),
    Look((214, 166, 130), (30, 24, 22), "crop", (62, 40, 28), (50, 90, 110),
         1.05, 1.08, 0.94, 0.41, 1.15, 1.0, 1.2, 0.7),
    Look((244, 210, 190), (150, 74, 40), "curls", (90, 130, 96), (60, 120, 120), 0.99, 0.93, 1.1, make_up=0.4),
    Look((222, 178, 146), (150, 146, 142), "short", (90, 104, 116), (80, 60, 100), 1.06, 1.02, 0.93, 0.41, 1.1, 0.8),
    Look((176, 126, 94), (34, 24, 20), "curls", (60, 38, 26), (210, 160, 70),
         0.98, 0.95, 1.06, 0.42, 1.15, 1.25, 0.9, 0, 0.5),
    Look((234, 194, 164), (176, 130, 76), "crop", (88, 116, 150), (70, 100, 70),
         1.0, 1.12, 0.96, 0.42, 1.0, 0.9, 1.0, 0.2),
)  # fmt: skip


def _grid() -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32) + 0.5
    return x / SCALE - LEFT, y / SCALE - TOP


def _bump(x, y, cx, cy, wide, high):
    return np.exp(-(((x - cx) / wide) ** 2) - ((y - cy) / high) ** 2)


def _points(xy: np.ndarray) -> np.ndarray:
    """Face coordinates [n, 2] → canvas coordinates as OpenCV's drawing takes them."""
    return np.round((xy + _ORIGIN) * (SCALE << _SHIFT)).astype(np.int32)


def _fill(canvas: np.ndarray, xy: np.ndarray, colour) -> None:
    cv2.fillPoly(canvas, [_points(xy)], colour, cv2.LINE_AA, _SHIFT)


def _stroke(canvas: np.ndarray, xy: np.ndarray, colour, thickness: int) -> None:
    cv2.polylines(canvas, [_points(xy)], False, colour, thickness, cv2.LINE_AA, _SHIFT)


def _mask(xy: np.ndarray, blur: float = 0.0) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    _fill(mask, xy, 255)
    mask = mask.astype(np.float32) / 255
    return cv2.GaussianBlur(mask, (0, 0), blur) if blur else mask


def _smooth_line(*knots: tuple[float, float], n: int = 12) -> np.ndarray:
    """A curve through a few points, [n, 2]."""
    knots = np.array(knots)
    place = np.linspace(0, 1, len(knots))
    return PchipInterpolator(place, knots)(np.linspace(0, 1, n))


def _both(xy: np.ndarray) -> list[np.ndarray]:
    return [xy, xy * (-1, 1)]


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
        x, y = _grid()
        heights = np.array([-1.2, -1.1, -0.85, -0.5, -0.1, 0.25, 0.55, 0.8, 1.0, 1.1, 1.17])
        widths = np.array([0.0, 0.5, 0.8, 0.93, 0.97, 0.94, 0.85, 0.69, 0.47, 0.31, 0.0])
        widths[5:] *= np.linspace(1.0, look.jaw, 6)
        self._width_at = PchipInterpolator(heights * look.long, widths, extrapolate=False)
        ys = np.linspace(heights[0], heights[-1], 60) * look.long
        half = np.nan_to_num(self._width_at(ys))
        self.outline = np.concatenate([np.stack([half, ys], 1), np.stack([-half, ys], 1)[::-1]])
        face = _mask(self.outline)
        shade = self._shading(x, y, light)
        skin = self._skin(x, y, shade, rng)
        hair_back, hair_front = self._hair(x, y, rng)
        ears = np.maximum(*[_mask(e) for e in _both(_ellipse(0.97, -0.02, 0.13, 0.24))])
        canvas = np.zeros((HEIGHT, WIDTH, 3), np.float32)
        hair = np.array(look.hair, np.float32) * self._strands(x, y, rng)[..., None] * self.tint
        ear_colour = np.array(look.skin, np.float32) * self.tint * (0.62 + 0.18 * np.abs(x) / 1.1)[..., None]
        for layer, alpha in ((hair * 0.7, hair_back), (ear_colour, ears), (skin, face), (hair, hair_front)):
            canvas += alpha[..., None] * (layer - canvas)
        self._base = np.clip(canvas, 0, 255)
        self._alpha = np.clip(255 * np.max([hair_back, ears, face, hair_front], axis=0), 0, 255).astype(np.uint8)
        self._changes = self._shading_changes(1 - cv2.resize(hair_front, (WIDTH // 2, HEIGHT // 2)))

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
        shade = 1 + np.tensordot(units.astype(np.float32), self._changes, 1)
        shade = cv2.resize(shade, (WIDTH, HEIGHT))
        canvas = cv2.multiply(self._base, cv2.merge([shade] * 3), dtype=cv2.CV_8U)
        slide = np.array([0.12 * turn[0], 0.12 * turn[1]])
        jaw = min(1.0, 0.85 * au[26] + 0.5 * mouth)
        for side in (1, -1):
            self._eye(canvas, side, au, gaze, slide)
            self._brow(canvas, side, au, slide)
        canvas, alpha = (self._drop_jaw(image, 0.17 * jaw) for image in (canvas, self._alpha))
        self._mouth(canvas, au, mouth, jaw, slide)
        return canvas, alpha

    def _shading(self, x, y, light) -> np.ndarray:
        """Lambert shading of a height field, about 0.4–1.2."""
        look = self.look
        half = np.nan_to_num(self._width_at(np.clip(y, -1.19 * look.long, 1.15 * look.long)), nan=0.0).clip(0.45)
        round_ = 1 - 0.93 * np.minimum(1, np.abs(x) / half) ** 2.4 - 0.25 * np.abs(y / (1.25 * look.long)) ** 4
        height = 0.62 * np.sqrt(round_.clip(0.02))
        ridge = np.clip((y + 0.32) / 0.55, 0, 1) * (y < 0.3)
        height += 0.15 * ridge * np.exp(-((x / (0.09 * look.nose)) ** 2))
        mirrored = np.abs(x)
        for cx, cy, wide, high, amount in (
            (0.0, 0.2, 0.11 * look.nose, 0.10, 0.12),  # tip of the nose
            (0.14 * look.nose, 0.24, 0.06, 0.06, 0.06),  # its wings
            (look.apart, EYE_Y, 0.22, 0.12, -0.10),  # eye sockets
            (0.38, BROW_Y, 0.28, 0.09, 0.05),
            (0.55, 0.12, 0.22, 0.2, 0.06),  # cheeks
            (0.0, MOUTH_Y, 0.3, 0.13, 0.06),
            (0.0, 0.8, 0.16, 0.05, -0.045),  # under the lower lip
            (0.0, 1.0, 0.2, 0.12, 0.07),  # chin
            (0.0, 0.42, 0.03, 0.07, -0.015),
        ):
            height += amount * _bump(mirrored, y, cx, cy, wide, high)
        height = cv2.GaussianBlur(height.astype(np.float32), (0, 0), 2.5)
        down, right = np.gradient(height * SCALE)
        light = np.array(light, np.float32) / np.linalg.norm(light)
        lit = (-right * light[0] - down * light[1] + light[2]) / np.sqrt(1 + right**2 + down**2)
        return 0.42 + 0.78 * np.clip(lit, 0, 1)

    def _skin(self, x, y, shade, rng) -> np.ndarray:
        look, mirrored = self.look, np.abs(x)
        grain = cv2.GaussianBlur(rng.standard_normal(x.shape).astype(np.float32), (0, 0), 1.2)
        skin = np.array(look.skin, np.float32) * (1 + 0.03 * grain[..., None])
        red = 0.10 * _bump(mirrored, y, 0.55, 0.2, 0.25, 0.2) + 0.07 * _bump(x, y, 0, 0.2, 0.15, 0.12)
        skin *= 1 + red[..., None] * np.array([0.4, -1.2, -0.8], np.float32)
        hollow = 0.12 * _bump(mirrored, y, look.apart, EYE_Y + 0.06, 0.22, 0.12)
        stubble = np.clip((y - 0.28) / 0.35, 0, 1) * np.clip((mirrored + y - 0.72) / 0.4, 0, 1)
        stubble += 0.8 * _bump(x, y, 0, 0.44, 0.3, 0.06)
        skin += (look.beard * 0.75 * stubble.clip(0, 1))[..., None] * (np.array(look.hair, np.float32) - skin)
        nostrils = 0.55 * _bump(mirrored, y, 0.085 * look.nose, 0.315, 0.05 * look.nose, 0.025)
        under_nose = 0.22 * _bump(x, y, 0, 0.36, 0.18 * look.nose, 0.05)
        shade = shade * (1 - hollow) * (1 - nostrils) * (1 - under_nose)
        power = np.array([0.9, 1.06, 1.14], np.float32)  # light through skin makes shadows warm
        return skin * self.tint * shade[..., None] ** power

    def _strands(self, x, y, rng) -> np.ndarray:
        """Brightness of hair: strands along y, and a band of gloss."""
        strands = rng.standard_normal((6, WIDTH // 2)).astype(np.float32)
        strands = cv2.GaussianBlur(cv2.resize(strands, (WIDTH, HEIGHT)), (0, 0), 1.0)
        return 0.85 + 0.16 * strands + 0.5 * np.exp(-(((y + 1.12 + 0.25 * x**2) / 0.16) ** 2))

    def _hair(self, x, y, rng) -> tuple[np.ndarray, np.ndarray]:
        """Alpha of the hair behind and in front of the face."""
        top = -1.2 * self.look.long
        down, wide, fringe = {
            "short": (-0.25, 1.1, -0.88), "crop": (-0.3, 1.02, -0.98), "bob": (0.75, 1.22, -0.78),
            "long": (1.6, 1.22, -0.86), "bun": (-0.2, 1.06, -0.92), "curls": (0.55, 1.3, -0.84),
        }[self.look.style]  # fmt: skip
        lift = {"crop": 0.12, "curls": 0.3}.get(self.look.style, 0.22)
        angle = np.linspace(np.pi, 2 * np.pi, 30)
        cap = np.stack([wide * np.cos(angle), -0.25 + (lift - top - 0.25) * np.sin(angle)], 1)
        back = _mask(np.concatenate([cap, [[wide, down], [-wide, down]]]), 2.0)
        if self.look.style == "bun":
            back = np.maximum(back, _mask(_ellipse(0.0, top - 0.2, 0.36, 0.26), 1.5))
        if self.look.style == "curls":
            for _ in range(46):
                turn, reach = rng.uniform(-0.25, 1.25) * np.pi, rng.uniform(1.0, 1.08)
                curl = _ellipse(1.22 * reach * np.cos(turn), -0.3 - 1.12 * reach * np.sin(turn), 0.17, 0.17)
                back = np.maximum(back, _mask(curl, 1.0))
        part = {"bob": 0.05, "bun": 0.0, "crop": 0.0}.get(self.look.style, 0.35)
        hairline = _smooth_line((-1.03, -0.3), (-0.86, fringe + 0.28), (-0.5, fringe + 0.02), (part, fringe - 0.1),
                                (0.6, fringe + 0.04), (0.88, fringe + 0.3), (1.03, -0.3), n=40)  # fmt: skip
        return back, _mask(np.concatenate([hairline, cap[::-1]]), 1.5)

    def _shading_changes(self, bare: np.ndarray) -> np.ndarray:
        """What each action unit does to the shading, float32 [action units, HEIGHT // 2, WIDTH // 2]."""
        x, y = (grid[::2, ::2][: HEIGHT // 2, : WIDTH // 2] for grid in _grid())
        side, changes = np.abs(x), np.zeros((len(UNITS), HEIGHT // 2, WIDTH // 2), np.float32)
        eye = self.look.apart

        def crease(unit: int, depth: float, *curves: np.ndarray) -> None:
            lines = np.zeros((HEIGHT // 2, WIDTH // 2), np.float32)
            for curve in curves:
                cv2.polylines(lines, [_points(curve) // 2], False, 1.0, 2, cv2.LINE_AA, _SHIFT)
            lines = cv2.GaussianBlur(lines, (0, 0), 1.1)
            changes[UNITS[unit]] += depth * (0.35 * np.roll(lines, 2, axis=0) - lines)

        for k in range(3):
            row = -0.7 - 0.09 * k
            crease(1, 0.22, _smooth_line((-0.4, row), (0, row - 0.03), (0.4, row)))
            crease(2, 0.22, *_both(_smooth_line((0.35, row), (0.55, row - 0.02), (0.72, row + 0.05))))
        crease(4, 0.55, *_both(_smooth_line((0.07, -0.6), (0.08, -0.48), (0.05, -0.38))))
        changes[UNITS[4]] -= 0.25 * _bump(side, y, 0.22, -0.36, 0.16, 0.08)
        crease(6, 0.4, *_both(_smooth_line((eye - 0.15, -0.06), (eye, -0.02), (eye + 0.2, -0.08))))
        for k in (-1, 0, 1):
            crease(6, 0.35, *_both(_smooth_line((eye + 0.27, EYE_Y + 0.03 * k), (eye + 0.4, EYE_Y + 0.09 * k))))
        changes[UNITS[6]] += 0.14 * _bump(side, y, 0.5, 0.1, 0.18, 0.1)
        folds = _both(_smooth_line((0.2, 0.22), (0.36, 0.38), (0.47, 0.6)))
        crease(12, 0.6, *folds)
        changes[UNITS[12]] += 0.16 * _bump(side, y, 0.55, 0.3, 0.14, 0.14)
        crease(10, 0.6, *_both(_smooth_line((0.18, 0.16), (0.3, 0.3), (0.38, 0.45))))
        crease(10, 0.3, *_both(_smooth_line((0.05, -0.2), (0.12, -0.12), (0.14, -0.02))))
        crease(15, 0.5, *_both(_smooth_line((0.35, 0.68), (0.41, 0.8), (0.4, 0.9))))
        changes[UNITS[15]] += 0.1 * _bump(x, y, 0, 0.95, 0.12, 0.06)
        crease(20, 0.4, *_both(_smooth_line((0.5, 0.5), (0.55, 0.62), (0.52, 0.75))))
        changes[UNITS[26]] -= 0.16 * _bump(side, y, 0.62, 0.5, 0.12, 0.25)
        return changes * bare

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
        _fill(canvas, np.concatenate([lid, upper[::-1]]), _rgb(skin * 0.74))
        if up + low > 0.02:
            self._eyeball(canvas, np.concatenate([upper, lower[::-1]]), middle, gaze)
        _stroke(canvas, lid, _rgb(skin * 0.55), 1)
        _stroke(canvas, lower, _rgb(skin * 0.6), 1)
        _stroke(canvas, upper, (30, 20, 18), 3)

    def _eyeball(self, canvas, opening, middle, gaze) -> None:
        """White, iris, pupil and glint, seen through the opening of the lids."""
        look = self.look
        corner = np.floor((opening.min(0) + _ORIGIN) * SCALE).astype(int) - 2
        end = np.ceil((opening.max(0) + _ORIGIN) * SCALE).astype(int) + 2
        region = canvas[corner[1] : end[1], corner[0] : end[0]]
        offset = corner / SCALE
        ball = np.empty_like(region)
        ball[:] = _rgb(np.array([236, 232, 228]) * self.tint)
        ball[: len(ball) // 3] = _rgb(np.array([196, 188, 186]) * self.tint)  # shadow of the upper lid
        centre = middle + np.array(gaze) * (0.08, 0.05) - offset - (0, 0.012)
        glint = centre - (-0.03, 0.035)
        for radius, colour in ((0.088, 0.55), (0.076, 1.0), (0.036, None)):
            fill = (14, 10, 10) if colour is None else _rgb(np.array(look.iris) * colour * self.tint)
            _disc(ball, centre, radius * look.eye, fill)
        _disc(ball, glint, 0.016, (250, 250, 250))
        mask = np.zeros(region.shape[:2], np.uint8)
        _fill(mask, opening - offset, 255)
        weight = mask[..., None].astype(np.uint16)
        region[:] = ((ball * weight + region * (255 - weight)) // 255).astype(np.uint8)

    def _brow(self, canvas, side, au, slide) -> None:
        look = self.look
        inner = 0.15 * au[4] - 0.15 * au[1]
        outer = -0.13 * au[2] + 0.02 * au[4] + 0.03 * au[1]
        line = _smooth_line(
            (0.17 - 0.05 * au[4], BROW_Y + 0.02 + inner),
            (0.4, BROW_Y - 0.05 + 0.45 * inner + 0.7 * outer),
            (0.55, BROW_Y - 0.05 + 0.1 * inner + outer),
            (0.72, BROW_Y + 0.06 + 0.9 * outer),
            n=10,
        )
        thick = 0.038 * look.brow * np.array([0.8, 1.1, 1.2, 1.2, 1.1, 1.0, 0.9, 0.7, 0.5, 0.2])
        shape = np.concatenate([line - np.stack([0 * thick, thick], 1), (line + np.stack([0 * thick, thick], 1))[::-1]])
        colour = np.array(look.hair) * 0.6 * self.tint + np.array(look.skin) * 0.06
        _fill(canvas, shape * (side, 1) + slide, _rgb(colour))

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
        _fill(canvas, np.concatenate([curves["out_up"], curves["in_up"][::-1]]), _rgb(lip * 0.82))
        _fill(canvas, np.concatenate([curves["in_low"], curves["out_low"][::-1]]), _rgb(lip))
        gloss = curves["out_low"][7:14] - (0, 0.045 * look.lips)
        _stroke(canvas, gloss, _rgb(lip * 1.14), 3)
        inside = np.concatenate([curves["in_up"], curves["in_low"][::-1]])
        _fill(canvas, inside, (58, 22, 24))
        gape = in_low - in_up
        if gape.max() > 0.05:
            teeth = np.minimum(0.075 * arch**0.5, 0.8 * gape)
            edge = np.stack([x, in_up + teeth], 1)
            _fill(canvas, np.concatenate([curves["in_up"], edge[::-1]])[2:-2], (226, 220, 210))
        if gape.max() > 0.13:
            tongue = np.stack([x, in_low - 0.3 * gape], 1)[5:16]
            _fill(canvas, np.concatenate([tongue, curves["in_low"][5:16][::-1]]), (168, 78, 80))
        _stroke(canvas, curves["in_up"], _rgb(lip * 0.42), 2)
        for end in (0, -1):
            _disc(canvas, curves["in_up"][end], 0.018, _rgb(lip * 0.5))


def _rgb(colour) -> tuple[int, int, int]:
    return tuple(int(c) for c in np.clip(colour, 0, 255))


def _ellipse(cx: float, cy: float, wide: float, high: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    return np.stack([cx + wide * np.cos(angle), cy + high * np.sin(angle)], 1)


def _disc(canvas: np.ndarray, centre: np.ndarray, radius: float, colour) -> None:
    x, y = _points(np.asarray(centre)[None])[0].tolist()
    cv2.circle(canvas, (x, y), round(radius * SCALE * (1 << _SHIFT)), colour, -1, cv2.LINE_AA, _SHIFT)


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
