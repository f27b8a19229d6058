"""Scenes of the demo corpus: a room and a body behind the head, with a weak emotional cue of their own.

The cue is in the colour and brightness of the light, in an object, in something that moves, and in how the shoulders
are held: what a whole frame shows and a face crop does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

WIDTH, HEIGHT = 320, 240  # of the video, pixels
_NECK = 140  # row above which there is no body


@dataclass(frozen=True)
class Mood:
    """What a scene is like at full strength."""

    wall: tuple[float, float, float]  # RGB, 0–255
    light: float  # brightness
    tint: tuple[float, float, float]  # colour of the light
    moving: str  # "", "shake", "float", "rain", "flicker" or "confetti"
    shoulders: float  # pixels by which they are lowered
    contrast: float  # of light and shadow on the wall


MOODS = {
    "neutral": Mood((192, 188, 180), 1.0, (1.0, 1.0, 1.0), "", 0, 0.15),
    "angry": Mood((150, 70, 58), 0.86, (1.08, 0.93, 0.9), "shake", -7, 0.5),
    "happy": Mood((240, 212, 140), 1.1, (1.06, 1.02, 0.9), "float", -2, 0.2),
    "sad": Mood((100, 118, 148), 0.74, (0.9, 0.97, 1.08), "rain", 10, 0.1),
    "worried": Mood((112, 122, 92), 0.78, (0.95, 1.03, 0.93), "flicker", -9, 0.4),
    "surprise": Mood((196, 156, 220), 1.14, (1.03, 0.98, 1.06), "confetti", -4, 0.2),
}

#: Walls of everyday rooms, whatever the mood.
_WALLS = ((200, 192, 178), (176, 190, 198), (204, 184, 170), (178, 196, 176), (188, 180, 200), (214, 206, 184))


class Scene:
    """One clip's room and body.

    Parameters
    ----------
    emotion : str
        One of :data:`MOODS`.
    strength : float
        0–1.
    clothes, skin : tuple of float
        RGB, 0–255.
    rng : numpy.random.Generator

    Attributes
    ----------
    light : tuple of float
        Direction towards the light: right, down, towards the viewer.
    tint : ndarray [3]
        Colour and brightness of the light on skin, 1 = white.
    """

    def __init__(self, emotion: str, strength: float, clothes, skin, rng: np.random.Generator):
        calm, full = MOODS["neutral"], MOODS[emotion]
        self._strength = strength
        self._moving = full.moving
        bright = calm.light + strength * (full.light - calm.light) + rng.normal(0, 0.04)
        tint = 1 + strength * (np.array(full.tint) - 1)
        usual = np.array(_WALLS[rng.integers(len(_WALLS))], np.float32) + rng.normal(0, 8, 3)
        wall = usual + 0.8 * strength * (np.array(full.wall) - usual)
        side = rng.choice([-1, 1])
        contrast = calm.contrast + strength * (full.contrast - calm.contrast)
        self.light = (0.35 * side + 0.3 * side * strength * (emotion == "angry"), -0.6, 0.9)
        self.tint = np.clip((0.3 + 0.7 * bright) * tint, 0.7, 1.12).astype(np.float32)
        room = self._room(wall, side, contrast, emotion, strength, rng)
        self._room_image = np.clip(room * bright * tint, 0, 255).astype(np.uint8)
        low = round(strength * full.shoulders)
        self._body = _body(clothes, skin, self.tint, low, side)
        self._things = rng.random((26, 4))  # place, speed, size
        self._hues = rng.integers(90, 250, (26, 3)).tolist()
        self._restless = rng.standard_normal((64, 2))

    def background(self, time: float, sway: float) -> np.ndarray:
        """The room and the body behind the head.

        Parameters
        ----------
        time : float
            Seconds from the start.
        sway : float
            Pixels by which the body leans to the right.

        Returns
        -------
        uint8 [HEIGHT, WIDTH, 3]
            RGB.
        """
        image = self._room_image.copy()
        if self._strength > 0.05 and self._moving in ("rain", "float", "confetti"):
            self._draw_things(image, time)
        shift = np.float32([[1, 0, sway], [0, 1, 0]])
        body, alpha = (cv2.warpAffine(layer[_NECK:], shift, (WIDTH, HEIGHT - _NECK)) for layer in self._body)
        image[_NECK:] = over(image[_NECK:], body, alpha)
        return image

    def finish(self, image: np.ndarray, frame: int) -> np.ndarray:
        """What happens to a whole frame: a shaking camera, a flickering lamp."""
        if self._moving == "shake":
            shake = 2.2 * self._strength * self._restless[frame % 64]
            move = np.float32([[1, 0, shake[0]], [0, 1, shake[1]]])
            return cv2.warpAffine(image, move, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)
        if self._moving == "flicker":
            gain = 1 - 0.22 * self._strength * (self._restless[frame // 2 % 64, 0] > 0.4)
            return cv2.convertScaleAbs(image, alpha=gain)
        return image

    def _draw_things(self, image: np.ndarray, time: float) -> None:
        count = round(len(self._things) * min(1.0, 0.4 + 0.6 * self._strength))
        for (x, y, speed, size), hue in zip(self._things[:count], self._hues, strict=False):
            if self._moving == "rain":
                top = int((y + (1.2 + speed) * time) % 1.1 * HEIGHT) - 20
                cv2.line(image, (int(x * WIDTH), top), (int(x * WIDTH) - 3, top + 14), (176, 190, 208), 1, cv2.LINE_AA)
            elif self._moving == "float" and size > 0.5:
                bottom = int((y - (0.06 + 0.12 * speed) * time) % 1.2 * HEIGHT)
                sway = 5 * np.sin(2 * time + 9 * x)
                _balloon(image, int(x * WIDTH + sway), bottom, 7 + int(7 * size), hue)
            elif self._moving == "confetti":
                fallen = (0.1 + 0.5 * speed) * time
                at = (int((x + 0.03 * np.sin(9 * time + 20 * y)) * WIDTH), int((0.8 * y + fallen - 0.1) * HEIGHT))
                cv2.ellipse(image, at, (4, 2), 360 * (x + time * speed), 0, 360, hue, -1, cv2.LINE_AA)

    def _room(self, wall, side, contrast, emotion, strength, rng) -> np.ndarray:
        y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
        fall = side * (x / WIDTH - 0.5) - 0.4 * (y / HEIGHT - 0.5)
        room = wall * (1 + contrast * fall)[..., None]
        floor = int(rng.integers(180, 205))
        room[floor:] *= 0.72
        for draw in rng.choice([_shelf, _picture, _plant, _lamp], size=2, replace=False):
            draw(room, int(rng.choice([rng.integers(5, 55), rng.integers(225, 280)])), rng)
        if strength > 0.3 and emotion == "sad":
            _window(room, int(rng.choice([12, 232])), (150, 165, 185))
        if strength > 0.3 and emotion == "happy":
            _window(room, int(rng.choice([12, 232])), (255, 246, 206))
        if strength > 0.3 and emotion in ("angry", "worried"):
            _blinds(room, steep=emotion == "angry", depth=0.28 * strength)
        return cv2.GaussianBlur(room, (0, 0), 1.6)  # out of focus, behind the speaker


def over(below: np.ndarray, above: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Lay uint8 RGB ``above`` over ``below`` with uint8 ``alpha`` [height, width]."""
    weight = cv2.merge([alpha] * 3)
    kept = cv2.multiply(below, cv2.bitwise_not(weight), scale=1 / 255)
    return cv2.add(kept, cv2.multiply(above, weight, scale=1 / 255))


def _body(clothes, skin, tint, low: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Neck and shoulders, RGB and alpha, at the frame's size."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.float32)
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    ramp = np.linspace(-1, 1, WIDTH, dtype=np.float32)[None, :, None]
    lit = (1 - 0.35 * ramp**2 + 0.12 * side * ramp) * tint
    neck = np.array([(130, 150), (190, 150), (192, 205), (206, 216), (160, 236), (114, 216), (128, 205)])
    shoulder = 204 + low
    torso = np.array(
        [(112, 208), (136, 203), (160, 222), (184, 203), (208, 208), (262, shoulder + 8), (288, shoulder + 36),
         (288, 244), (32, 244), (32, shoulder + 36), (58, shoulder + 8)]
    )  # fmt: skip
    shadow = 0.66 + 0.2 * np.clip((np.arange(HEIGHT, dtype=np.float32) - 190) / 40, 0, 1)[:, None, None]
    for shape, colour in (
        (neck, np.array(skin, np.float32) * shadow * lit),
        (torso, np.array(clothes, np.float32) * lit),
    ):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.fillPoly(mask, [shape.astype(np.int32)], 255, cv2.LINE_AA)
        part = (mask / np.float32(255))[..., None]
        image += part * (np.broadcast_to(colour, image.shape) - image)
        alpha = np.maximum(alpha, mask)
    collar = np.array([(112, 208), (136, 203), (160, 222), (184, 203), (208, 208)], np.int32)
    cv2.polylines(image, [collar], False, tuple(0.6 * c for c in clothes), 2, cv2.LINE_AA)
    return np.clip(image, 0, 255).astype(np.uint8), alpha


def _balloon(image, x: int, y: int, size: int, hue) -> None:
    cv2.line(image, (x, y + size), (x + 2, y + 3 * size), (120, 110, 100), 1, cv2.LINE_AA)
    cv2.ellipse(image, (x, y), (size, int(1.2 * size)), 0, 0, 360, hue, -1, cv2.LINE_AA)
    cv2.circle(image, (x - size // 3, y - size // 3), max(1, size // 5), (255, 255, 255), -1, cv2.LINE_AA)


def _shelf(room, x: int, rng) -> None:
    top = int(rng.integers(30, 110))
    for k in range(7):
        high = int(rng.integers(20, 34))
        book = tuple(float(c) for c in rng.integers(60, 190, 3))
        cv2.rectangle(room, (x + 7 * k - 10, top + 36 - high), (x + 7 * k - 5, top + 36), book, -1)
    cv2.rectangle(room, (x - 14, top + 36), (x + 44, top + 40), (110.0, 80.0, 56.0), -1)


def _picture(room, x: int, rng) -> None:
    top = int(rng.integers(20, 90))
    wide, high = (int(v) for v in rng.integers(28, 48, 2))
    cv2.rectangle(room, (x - 4, top), (x - 4 + wide, top + high), (88.0, 70.0, 54.0), -1)
    inner = tuple(float(c) for c in rng.integers(120, 230, 3))
    cv2.rectangle(room, (x, top + 4), (x - 8 + wide, top + high - 4), inner, -1)


def _plant(room, x: int, rng) -> None:
    foot = int(rng.integers(165, 195))
    for angle in rng.uniform(-60, 60, 9):
        tip = (int(x + 14 + 34 * np.sin(np.radians(angle))), int(foot - 44 * np.cos(np.radians(angle))))
        cv2.line(room, (x + 14, foot), tip, (70.0, float(rng.integers(100, 150)), 70.0), 4, cv2.LINE_AA)
    cv2.rectangle(room, (x + 4, foot), (x + 24, foot + 22), (150.0, 96.0, 70.0), -1)


def _lamp(room, x: int, rng) -> None:
    top = int(rng.integers(50, 100))
    cv2.line(room, (x + 14, top), (x + 14, 200), (70.0, 66.0, 62.0), 2, cv2.LINE_AA)
    shade = np.array([(x + 4, top), (x + 24, top), (x + 32, top + 24), (x - 4, top + 24)], np.int32)
    cv2.fillPoly(room, [shade], (236.0, 222.0, 190.0), cv2.LINE_AA)


def _window(room, x: int, sky) -> None:
    cv2.rectangle(room, (x, 20), (x + 74, 120), (232.0, 228.0, 220.0), -1)
    for pane in (x + 5, x + 40):
        cv2.rectangle(room, (pane, 25), (pane + 29, 115), tuple(float(c) for c in sky), -1)


def _blinds(room, *, steep: bool, depth: float) -> None:
    """Shadows of a blind across the wall."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    bars = (y + (1.3 if steep else 0.15) * x) % 26 < 11
    room *= 1 - depth * bars[..., None]
