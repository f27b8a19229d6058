"""Features of many clips out of shards, in few large reads.

A shard mapped into memory counts as memory in use for as long as the map lives, and one slice a clip costs more than
reading the clip. So rows that lie near each other in a shard are read at once, into a buffer that is used again, or
straight into the result where they lie there in the same order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from safetensors import SafetensorError

from ecmf_lib.shards import StoreError, open_shard

BLOCK = 2 << 20  # bytes read at once into the buffer, which then stays in the cache; a single clip may have more
_GAP = 64 << 10  # bytes nobody asked for that are read along: cheaper than a read of their own
_DTYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "F64": np.dtype(np.float64)}

Pool = Callable[[np.ndarray], np.ndarray]  # time steps [t, dim] → one vector [dim]


def gather(
    out: np.ndarray,
    places: np.ndarray,
    paths: Sequence[str],
    shards: np.ndarray,
    offsets: np.ndarray,
    lengths: np.ndarray,
    pool: Pool | None = None,
) -> None:
    """Fill rows of a matrix with clips.

    Parameters
    ----------
    out : float32 [n, dim]
    places : int [k]
        Rows of `out` to fill.
    paths : sequence of str
        Shards.
    shards : int [k]
        Which of them each clip is in.
    offsets, lengths : int [k]
        First time step of each clip in its shard, and their number. The same clip may come again.
    pool : callable, optional
        Makes one vector of a clip's time steps (float32 [t, dim]); None for sets with one vector a clip.

    Raises
    ------
    StoreError
        If a shard is absent or damaged, or does not have these rows.
    """
    if not len(places):
        return
    order = np.lexsort((offsets, shards))  # each shard is opened once
    places, shards, offsets, lengths = places[order], shards[order], offsets[order], lengths[order]
    if offsets.min() < 0 or lengths.min() < 1:
        raise StoreError(
            f"{paths[shards[0]]}: the index gives rows that cannot be; delete index.parquet, extract again"
        )
    ends = offsets + lengths
    one_read = _unbroken(offsets)  # rows lie one after the other in the shard …
    straight = _unbroken(offsets, places)  # … and in the result
    buffer = _Buffer()
    shard = None
    try:
        for start, stop in _near(shards, offsets, ends, 4 * out.shape[1]):
            if shard is None or shard.path != paths[shards[start]]:
                if shard is not None:
                    shard.close()
                    shard = None  # the next may fail to open
                shard = _Shard(paths[shards[start]], out.shape[1])
            shard.check(int(ends[start:stop].max()))
            if pool is None and shard.dtype == out.dtype and straight(start, stop):
                shard.read(int(offsets[start]), out[places[start] : places[stop - 1] + 1])
                continue
            while start < stop:
                part = slice(start, start + _fit(ends[start:stop], int(offsets[start]), shard.width))
                first = int(offsets[start])
                steps = buffer.room(int(ends[part.stop - 1]) - first, out.shape[1], shard.dtype)
                shard.read(first, steps)
                if pool is not None:
                    _pooled(out, places[part], steps, offsets[part] - first, lengths[part], pool)
                else:  # the plain case without a copy between: all that was read, each row once
                    out[places[part]] = steps if one_read(start, part.stop) else steps[offsets[part] - first]
                start = part.stop
    finally:
        if shard is not None:
            shard.close()


class _Shard:
    """A shard's file, open for reading."""

    def __init__(self, path: str, dim: int):
        self.path = path
        try:
            with open_shard(path) as shard:
                features = shard.get_slice("features")
                stored, self._shape = features.get_dtype(), features.get_shape()
            self._file = os.open(path, os.O_RDONLY)
        except (SafetensorError, OSError) as error:
            raise StoreError(
                f"{path}: cannot be read ({error}); "
                "open the set again if an extraction ran meanwhile, else extract again"
            ) from None
        self.dtype = _DTYPES.get(stored)
        if self.dtype is None or self._shape[1:] != [dim]:
            self.close()
            raise StoreError(f"{path}: {stored} {self._shape}; expected floats [steps, {dim}], extract again")
        self.width = dim * self.dtype.itemsize  # bytes of a time step
        # the format: length of the header in 8 bytes, the header, the tensors; a shard has but one
        self._start = 8 + int.from_bytes(os.pread(self._file, 8, 0), "little")

    def check(self, stop: int) -> None:
        """Refuse rows that end beyond it, before there is memory for them."""
        if stop > self._shape[0]:
            raise StoreError(f"{self.path}: {self._shape[0]} time steps, the index expects more; extract again")

    def read(self, first: int, steps: np.ndarray) -> None:
        """Fill `steps` [t, dim] with the time steps from `first` on."""
        left, start = memoryview(steps.reshape(-1).view(np.uint8)), self._start + first * self.width
        while left:
            got = os.preadv(self._file, [left], start)
            if not got:
                raise StoreError(f"{self.path}: ends early; extract again")
            left, start = left[got:], start + got

    def close(self) -> None:
        os.close(self._file)


class _Buffer:
    """Memory that is used again."""

    def __init__(self):
        self._bytes = np.empty(0, np.uint8)

    def room(self, steps: int, dim: int, dtype: np.dtype) -> np.ndarray:
        """Array [steps, dim] with anything in it."""
        size = steps * dim * dtype.itemsize
        if size > len(self._bytes):
            self._bytes = np.empty(size, np.uint8)
        return self._bytes[:size].view(dtype).reshape(steps, dim)


def _near(shards: np.ndarray, offsets: np.ndarray, ends: np.ndarray, width: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows that lie near each other in the same shard; a time step has about `width` bytes."""
    far = (offsets[1:] - ends[:-1]) * width > _GAP
    cuts = (np.flatnonzero(far | (shards[1:] != shards[:-1])) + 1).tolist()
    return zip([0, *cuts], [*cuts, len(shards)], strict=True)


def _fit(ends: np.ndarray, first: int, width: int) -> int:
    """How many rows that end at `ends` are read at once, 1 or more."""
    most = first + BLOCK // width
    return len(ends) if ends[-1] <= most else max(int(np.searchsorted(ends, most, side="right")), 1)


def _unbroken(*columns: np.ndarray) -> Callable[[int, int], bool]:
    """Tells of a range whether each number in it is the one before plus 1, in all columns."""
    steps = [column[1:] - column[:-1] == 1 for column in columns]
    breaks = np.concatenate([[0], np.cumsum(~np.logical_and.reduce(steps))])
    return lambda start, stop: breaks[start] == breaks[stop - 1]


def _pooled(
    out: np.ndarray, places: np.ndarray, steps: np.ndarray, offsets: np.ndarray, lengths: np.ndarray, pool: Pool
) -> None:
    for place, first, length in zip(places.tolist(), offsets.tolist(), lengths.tolist(), strict=True):
        out[place] = pool(steps[first : first + length].astype(np.float32, copy=False))
