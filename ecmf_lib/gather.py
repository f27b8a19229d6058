"""Features of many clips out of shards, in few large reads.

A shard mapped into memory counts as memory in use for as long as the map lives, and one slice a clip costs more than
reading the clip. So rows that lie near each other in a shard are read at once into a buffer that is used again, or
straight into the result where they lie there in the same order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from ecmf_lib.shards import StoreError

BLOCK = 8 << 20  # bytes read at once; a single clip may have more
_GAP = 64 << 10  # bytes nobody asked for that are read along: cheaper than a read of its own
_DTYPES = {"F32": np.float32, "F16": np.float16, "F64": np.float64}

Pool = Callable[[np.ndarray], np.ndarray]  # time steps [t, dim] → one vector [dim]


class Gatherer:
    """Reads rows of shards; keeps one buffer for all of them.

    Parameters
    ----------
    pool : callable or None
        Makes one vector of a clip's time steps (float32 [t, dim]); None for sets with one vector a clip.
    """

    def __init__(self, pool: Pool | None = None):
        self._pool = pool
        self._buffer = np.empty(0, np.uint8)

    def into(self, out: np.ndarray, places: np.ndarray, path: Path, offsets: np.ndarray, lengths: np.ndarray) -> None:
        """Fill rows of the result with clips of one shard.

        Parameters
        ----------
        out : float32 [n, dim]
        places : int [k]
            Rows of `out` to fill.
        path : Path
            The shard.
        offsets, lengths : int [k]
            First time step of each clip in the shard and their number, 1 or more; in any order, the same clip may
            come again.

        Raises
        ------
        StoreError
            If the shard is absent, damaged, or does not have these rows.
        """
        order = np.argsort(offsets, kind="stable")
        places, offsets, lengths = places[order], offsets[order], lengths[order]
        with _opened(path) as (file, start, dtype, shape):
            dim = out.shape[1]
            if len(shape) != 2 or shape[1] != dim or int((offsets + lengths).max()) > shape[0]:
                raise StoreError(f"{path}: features of shape {shape} do not hold the rows of the index; extract again")
            width = dim * dtype.itemsize  # bytes of a time step
            in_order = self._pool is None and dtype == out.dtype
            if in_order and _consecutive(places) and _consecutive(offsets):
                _read(file, start + int(offsets[0]) * width, out[places[0] : places[-1] + 1], path)
                return
            for part in _parts(offsets, lengths, width):
                first, end = int(offsets[part.start]), int((offsets[part] + lengths[part]).max())
                steps = self._room((end - first) * width).view(dtype).reshape(-1, dim)
                _read(file, start + first * width, steps, path)
                self._place(out, places[part], steps, offsets[part] - first, lengths[part])

    def _place(
        self, out: np.ndarray, places: np.ndarray, steps: np.ndarray, offsets: np.ndarray, lengths: np.ndarray
    ) -> None:
        if self._pool is None:
            # the plain case without a copy between: all that was read, each row once
            out[places] = steps if len(offsets) == len(steps) and _consecutive(offsets) else steps[offsets]
            return
        for place, first, length in zip(places.tolist(), offsets.tolist(), lengths.tolist(), strict=True):
            out[place] = self._pool(steps[first : first + length].astype(np.float32, copy=False))

    def _room(self, size: int) -> np.ndarray:
        if size > len(self._buffer):
            self._buffer = np.empty(size, np.uint8)
        return self._buffer[:size]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[int, int, np.dtype, list[int]]]:
    """A shard's file, where its features begin, their type and shape."""
    try:
        with safe_open(path, "numpy") as shard:  # compares the length of the file with what its header promises
            features = shard.get_slice("features")
            stored, shape = features.get_dtype(), features.get_shape()
        if stored not in _DTYPES:
            raise StoreError(f"{path}: features of type {stored}; expected {', '.join(_DTYPES)}, extract again")
        file = os.open(path, os.O_RDONLY)
    except (SafetensorError, OSError) as error:
        raise StoreError(
            f"{path}: cannot be read ({error}); open the set again if an extraction ran meanwhile, else extract again"
        ) from None
    try:
        start = 8 + int.from_bytes(os.pread(file, 8, 0), "little")  # the format: length of the header, header, tensors
        yield file, start, np.dtype(_DTYPES[stored]), shape
    finally:
        os.close(file)


def _parts(offsets: np.ndarray, lengths: np.ndarray, width: int) -> Iterator[slice]:
    """Neighbours that are read at once; `offsets` ascend."""
    ends = np.maximum.accumulate(offsets + lengths)
    apart = np.flatnonzero((offsets[1:] - ends[:-1]) * width > _GAP) + 1
    steps = max(BLOCK // width, 1)
    for start, stop in zip([0, *apart.tolist()], [*apart.tolist(), len(offsets)], strict=True):
        while start < stop:
            fit = int(np.searchsorted(ends[start:stop], offsets[start] + steps, side="right"))
            yield slice(start, start + max(fit, 1))
            start += max(fit, 1)


def _consecutive(numbers: np.ndarray) -> bool:
    return bool(numbers[-1] - numbers[0] == len(numbers) - 1 and (np.diff(numbers) == 1).all())


def _read(file: int, start: int, out: np.ndarray, path: Path) -> None:
    """Fill a contiguous array with bytes of the file from `start`."""
    left = memoryview(out.reshape(-1).view(np.uint8))
    while len(left):
        got = os.preadv(file, [left], start)
        if not got:
            raise StoreError(f"{path}: ends early; extract again")
        left, start = left[got:], start + got
