"""Long input in overlapping windows, each step of it kept once."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple


class Window(NamedTuple):
    """A stretch of the input, and which of its own steps count.

    Attributes
    ----------
    start, stop : int
        Steps of the whole input.
    keep : (int, int)
        Range counted from `start`. The ranges of all windows cover the input once, without a gap.
    """

    start: int
    stop: int
    keep: tuple[int, int]


def windows(steps: int, size: int, overlap: int) -> list[Window]:
    """Windows over an input of `steps` steps, all of the same size, spread evenly.

    Where two windows overlap, each gives its half: a step near the end of a window has seen only one side of what
    surrounds it, so it is taken from the window that has more of it.

    Parameters
    ----------
    steps : int
        Length of the input.
    size : int
        Longest window.
    overlap : int
        Least overlap of neighbours, < `size`.

    Returns
    -------
    list of Window
        One, of length `steps`, where the input is not longer than `size`.
    """
    if steps <= size:
        return [Window(0, steps, (0, steps))]
    count = -(-(steps - overlap) // (size - overlap))
    starts = [round(number * (steps - size) / (count - 1)) for number in range(count)]
    middles = [(start + before + size) // 2 for before, start in pairwise(starts)]
    cuts = [0, *middles, steps]
    return [
        Window(start, start + size, (first - start, last - start))
        for start, (first, last) in zip(starts, pairwise(cuts), strict=True)
    ]
