"""Heads of the demo corpus's speakers: looks, and what of a head does not move.

Painted once a clip: skin lit over a height field (brow, nose, cheeks, chin), ears and hair. Wrinkles and bulges are
differences of shading, which :mod:`ecmf_lib.demo_face` adds by their action units. The canvas is twice as fine as
the video.

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
ORIGIN = np.array([LEFT, TOP])
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
    return np.round((xy + ORIGIN) * (SCALE << _SHIFT)).astype(np.int32)


def fill(canvas: np.ndarray, xy: np.ndarray, colour) -> None:
    """Fill a polygon [n, 2] of face coordinates on a canvas uint8."""
    cv2.fillPoly(canvas, [_points(xy)], colour, cv2.LINE_AA, _SHIFT)


def stroke(canvas: np.ndarray, xy: np.ndarray, colour, thickness: int) -> None:
    """Draw an open line [n, 2] of face coordinates; thickness in pixels of the canvas."""
    cv2.polylines(canvas, [_points(xy)], False, colour, thickness, cv2.LINE_AA, _SHIFT)


def _mask(xy: np.ndarray, blur: float = 0.0) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    fill(mask, xy, 255)
    mask = mask.astype(np.float32) / 255
    return cv2.GaussianBlur(mask, (0, 0), blur) if blur else mask


def smooth_line(*knots: tuple[float, float], n: int = 12) -> np.ndarray:
    """A curve through a few points, [n, 2]."""
    knots = np.array(knots)
    place = np.linspace(0, 1, len(knots))
    return PchipInterpolator(place, knots)(np.linspace(0, 1, n))


def _both(xy: np.ndarray) -> list[np.ndarray]:
    return [xy, xy * (-1, 1)]


def rgb(colour) -> tuple[int, int, int]:
    """A colour of three numbers as OpenCV takes it."""
    return tuple(int(c) for c in np.clip(colour, 0, 255))


def _ellipse(cx: float, cy: float, wide: float, high: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    return np.stack([cx + wide * np.cos(angle), cy + high * np.sin(angle)], 1)


def disc(canvas: np.ndarray, centre: np.ndarray, radius: float, colour) -> None:
    """Fill a circle on a canvas; centre [2] and radius in face coordinates."""
    x, y = _points(np.asarray(centre)[None])[0].tolist()
    cv2.circle(canvas, (x, y), round(radius * SCALE * (1 << _SHIFT)), colour, -1, cv2.LINE_AA, _SHIFT)


@dataclass(frozen=True)
class PaintedHead:
    """A head without brows, eyes and mouth."""

    rgb: np.ndarray  # float32 [HEIGHT, WIDTH, 3], 0–255
    alpha: np.ndarray  # uint8 [HEIGHT, WIDTH]
    changes: np.ndarray  # float32 [action units, HEIGHT // 2, WIDTH // 2], added to the shading by each unit


def paint_head(look: Look, light: Colour, tint: np.ndarray, rng: np.random.Generator) -> PaintedHead:
    """Paint a head.

    Parameters
    ----------
    look : Look
    light : tuple of float
        Direction towards the light: right, down, towards the viewer.
    tint : ndarray [3]
        Colour of the light, 1 = white.
    rng : numpy.random.Generator
        For the grain of skin and hair.
    """
    x, y = _grid()
    heights = np.array([-1.2, -1.1, -0.85, -0.5, -0.1, 0.25, 0.55, 0.8, 1.0, 1.1, 1.17])
    widths = np.array([0.0, 0.5, 0.8, 0.93, 0.97, 0.94, 0.85, 0.69, 0.47, 0.31, 0.0])
    widths[5:] *= np.linspace(1.0, look.jaw, 6)
    width_at = PchipInterpolator(heights * look.long, widths, extrapolate=False)
    ys = np.linspace(heights[0], heights[-1], 60) * look.long
    half = np.nan_to_num(width_at(ys))
    face = _mask(np.concatenate([np.stack([half, ys], 1), np.stack([-half, ys], 1)[::-1]]))
    skin = _skin(look, tint, x, y, _shading(look, width_at, x, y, light), rng)
    hair_back, hair_front = _hair(look, rng)
    ears = np.maximum(*[_mask(ear) for ear in _both(_ellipse(0.97, -0.02, 0.13, 0.24))])
    hair = np.array(look.hair, np.float32) * _strands(x, y, rng)[..., None] * tint
    ear_skin = np.array(look.skin, np.float32) * tint * (0.62 + 0.18 * np.abs(x) / 1.1)[..., None]
    canvas = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    for layer, alpha in ((hair * 0.7, hair_back), (ear_skin, ears), (skin, face), (hair, hair_front)):
        canvas += alpha[..., None] * (layer - canvas)
    alpha = np.clip(255 * np.max([hair_back, ears, face, hair_front], axis=0), 0, 255).astype(np.uint8)
    bare = 1 - cv2.resize(hair_front, (WIDTH // 2, HEIGHT // 2))
    return PaintedHead(np.clip(canvas, 0, 255), alpha, _shading_changes(look, bare))


def _shading(look: Look, width_at, x, y, light) -> np.ndarray:
    """Lambert shading of a height field, about 0.4–1.2."""
    half = np.nan_to_num(width_at(np.clip(y, -1.19 * look.long, 1.15 * look.long)), nan=0.0).clip(0.45)
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


def _skin(look: Look, tint, x, y, shade, rng) -> np.ndarray:
    mirrored = np.abs(x)
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
    return skin * tint * shade[..., None] ** power


def _strands(x, y, rng) -> np.ndarray:
    """Brightness of hair: strands along y, and a band of gloss."""
    strands = rng.standard_normal((6, WIDTH // 2)).astype(np.float32)
    strands = cv2.GaussianBlur(cv2.resize(strands, (WIDTH, HEIGHT)), (0, 0), 1.0)
    return 0.85 + 0.16 * strands + 0.5 * np.exp(-(((y + 1.12 + 0.25 * x**2) / 0.16) ** 2))


def _hair(look: Look, rng) -> tuple[np.ndarray, np.ndarray]:
    """Alpha of the hair behind and in front of the face."""
    top = -1.2 * look.long
    down, wide, fringe = {
        "short": (-0.25, 1.1, -0.88), "crop": (-0.3, 1.02, -0.98), "bob": (0.75, 1.22, -0.78),
        "long": (1.6, 1.22, -0.86), "bun": (-0.2, 1.06, -0.92), "curls": (0.55, 1.3, -0.84),
    }[look.style]  # fmt: skip
    lift = {"crop": 0.12, "curls": 0.3}.get(look.style, 0.22)
    angle = np.linspace(np.pi, 2 * np.pi, 30)
    cap = np.stack([wide * np.cos(angle), -0.25 + (lift - top - 0.25) * np.sin(angle)], 1)
    back = _mask(np.concatenate([cap, [[wide, down], [-wide, down]]]), 2.0)
    if look.style == "bun":
        back = np.maximum(back, _mask(_ellipse(0.0, top - 0.2, 0.36, 0.26), 1.5))
    if look.style == "curls":
        for _ in range(46):
            turn, reach = rng.uniform(-0.25, 1.25) * np.pi, rng.uniform(1.0, 1.08)
            curl = _ellipse(1.22 * reach * np.cos(turn), -0.3 - 1.12 * reach * np.sin(turn), 0.17, 0.17)
            back = np.maximum(back, _mask(curl, 1.0))
    part = {"bob": 0.05, "bun": 0.0, "crop": 0.0}.get(look.style, 0.35)
    hairline = smooth_line((-1.03, -0.3), (-0.86, fringe + 0.28), (-0.5, fringe + 0.02), (part, fringe - 0.1),
                            (0.6, fringe + 0.04), (0.88, fringe + 0.3), (1.03, -0.3), n=40)  # fmt: skip
    return back, _mask(np.concatenate([hairline, cap[::-1]]), 1.5)


def _shading_changes(look: Look, bare: np.ndarray) -> np.ndarray:
    """What each action unit does to the shading, float32 [action units, HEIGHT // 2, WIDTH // 2]."""
    x, y = (grid[::2, ::2][: HEIGHT // 2, : WIDTH // 2] for grid in _grid())
    side, changes = np.abs(x), np.zeros((len(UNITS), HEIGHT // 2, WIDTH // 2), np.float32)
    eye = look.apart

    def crease(unit: int, depth: float, *curves: np.ndarray) -> None:
        lines = np.zeros((HEIGHT // 2, WIDTH // 2), np.float32)
        for curve in curves:
            cv2.polylines(lines, [_points(curve) // 2], False, 1.0, 2, cv2.LINE_AA, _SHIFT)
        lines = cv2.GaussianBlur(lines, (0, 0), 1.1)
        changes[UNITS[unit]] += depth * (0.35 * np.roll(lines, 2, axis=0) - lines)

    for k in range(3):
        row = -0.7 - 0.09 * k
        crease(1, 0.22, smooth_line((-0.4, row), (0, row - 0.03), (0.4, row)))
        crease(2, 0.22, *_both(smooth_line((0.35, row), (0.55, row - 0.02), (0.72, row + 0.05))))
    crease(4, 0.55, *_both(smooth_line((0.07, -0.6), (0.08, -0.48), (0.05, -0.38))))
    changes[UNITS[4]] -= 0.25 * _bump(side, y, 0.22, -0.36, 0.16, 0.08)
    crease(6, 0.4, *_both(smooth_line((eye - 0.15, -0.06), (eye, -0.02), (eye + 0.2, -0.08))))
    for k in (-1, 0, 1):
        crease(6, 0.35, *_both(smooth_line((eye + 0.27, EYE_Y + 0.03 * k), (eye + 0.4, EYE_Y + 0.09 * k))))
    changes[UNITS[6]] += 0.14 * _bump(side, y, 0.5, 0.1, 0.18, 0.1)
    folds = _both(smooth_line((0.2, 0.22), (0.36, 0.38), (0.47, 0.6)))
    crease(12, 0.6, *folds)
    changes[UNITS[12]] += 0.16 * _bump(side, y, 0.55, 0.3, 0.14, 0.14)
    crease(10, 0.6, *_both(smooth_line((0.18, 0.16), (0.3, 0.3), (0.38, 0.45))))
    crease(10, 0.3, *_both(smooth_line((0.05, -0.2), (0.12, -0.12), (0.14, -0.02))))
    crease(15, 0.5, *_both(smooth_line((0.35, 0.68), (0.41, 0.8), (0.4, 0.9))))
    changes[UNITS[15]] += 0.1 * _bump(x, y, 0, 0.95, 0.12, 0.06)
    crease(20, 0.4, *_both(smooth_line((0.5, 0.5), (0.55, 0.62), (0.52, 0.75))))
    changes[UNITS[26]] -= 0.16 * _bump(side, y, 0.62, 0.5, 0.12, 0.25)
    return changes * bare
