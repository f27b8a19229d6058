"""Many clips' features into a set at once: checked, hashed and written by a few threads.

Hashing, checking and writing leave Python's lock, so the next shards are made ready while one waits for the disk. The
promises of :mod:`ecmf_lib.shards` stay: a shard appears by one rename after it has reached the disk, and the index
follows when all shards are there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from ecmf_lib.shards import (
    DONE,
    MISSING,
    StoreError,
    digest_of,
    features_digest,
    index_of,
    read_rows,
    shard_name,
    shard_parts,
    write_about,
    write_file,
    write_table,
)
from ecmf_lib.store import FeatureSet, FeatureStore

_THREADS = 3  # one hashes, one copies, one waits for the disk
_AHEAD = 2  # shards made ready before they are asked for, and shards being written
_SHARD_BYTES = 8 << 20  # about; what an interruption may cost, and what few flushes to the disk want
_MOST_CLIPS, _FRAME_CLIPS = 4096, 64  # in a shard: at most, and where their lengths are not known beforehand

_Made = TypeVar("_Made")


class Block(NamedTuple):
    """Features of some clips that follow each other.

    Attributes
    ----------
    steps : float array [sum of lengths, dim]
        Those of all clips below each other.
    lengths : list of int
        Time steps of each clip; 0 for a clip without features.
    reasons : list of str
        Why a clip has no features; empty where it has.
    """

    steps: np.ndarray
    lengths: list[int]
    reasons: list[str]


Read = Callable[[int, int], Block]  # numbers of the first clip and of the one after the last → their features


def joined(found: Sequence[tuple[np.ndarray | None, str]], dim: int) -> Block:
    """A block of clips that were read one by one: features [t, dim], or None and the reason."""
    parts = [steps for steps, _ in found if steps is not None]
    steps = np.concatenate(parts) if parts else np.zeros((0, dim), np.float32)
    return Block(steps, [0 if steps is None else len(steps) for steps, _ in found], [reason for _, reason in found])


def write_set(store: FeatureStore, ids: Sequence[str], read: Read, described: dict) -> FeatureSet:
    """Write all shards of a set; the caller holds the lock. Shards that are there already stay.

    Parameters
    ----------
    store : FeatureStore
    ids : sequence of str
        All clips of the set, in order.
    read : callable
        Called by threads, in order but several at once.
    described : dict
        Content of ``set.json``, see :func:`ecmf_lib.store.describe_set`.

    Raises
    ------
    StoreError
        If the disk is full or the folder cannot be written: shards that are there stay, the index is as it was.
    """
    folder = store.folder(described["name"])
    shards, size = folder / "shards", _clips_in_shard(described["level"], described["dim"])
    if not (folder / "set.json").exists():
        write_about(folder, described, store.scratch)  # so that what is done can be read before the run is over
    columns: list[list] = [[] for _ in range(7)]

    def writes() -> Iterator[Callable[[], None]]:
        starts = range(0, len(ids), size)
        made = _in_order(pool, (partial(_made, read, start, min(start + size, len(ids))) for start in starts))
        for start, (block, digest) in zip(starts, made, strict=True):
            rows = _columns(ids[start : start + size], block, digest)
            name = shard_name(list(zip(rows[0], rows[1], strict=True)))
            for column, new in zip(columns, [*rows[:4], [name] * len(rows[0]), *rows[4:]], strict=True):
                column.extend(new)
            if not _is_whole(shards / name):
                parts = shard_parts(list(zip(*rows, repeat({}))), block.steps, digest)
                yield partial(write_file, shards / name, parts, store.scratch)

    with ThreadPoolExecutor(_THREADS) as pool:  # waits for its threads, also when something goes wrong
        for _ in _in_order(pool, writes()):
            pass
    write_table(folder / "index.parquet", index_of(*columns), store.scratch)
    write_about(folder, described, store.scratch)
    for path in set(shards.glob("*")) - {shards / name for name in set(columns[4])}:
        path.unlink()
    return FeatureSet(folder)


def _clips_in_shard(level: str, dim: int) -> int:
    if level == "frame":
        return _FRAME_CLIPS
    return min(max(_SHARD_BYTES // (4 * dim), _FRAME_CLIPS), _MOST_CLIPS)


def _made(read: Read, start: int, stop: int) -> tuple[Block, str]:
    block = read(start, stop)
    block = block._replace(steps=np.ascontiguousarray(block.steps))
    return block, features_digest(block.steps)


def _columns(ids: Sequence[str], block: Block, digest: str) -> tuple[list, ...]:
    """Rows of a shard as columns: id, key, state, reason, offset, length."""
    # one key for all: hashing clip by clip takes longer than writing, and their shard is made anew if one of them is
    key = digest_of(digest, str(block.steps.dtype), ids, block.lengths, block.reasons)[:32]
    states = [MISSING if reason else DONE for reason in block.reasons]
    ends = np.cumsum(block.lengths)
    offsets = np.where(block.lengths, ends - block.lengths, 0).tolist()
    return list(ids), [key] * len(ids), states, block.reasons, offsets, block.lengths


def _is_whole(path: Path) -> bool:
    try:
        return bool(path.exists() and read_rows(path))
    except StoreError:
        return False


def _in_order(pool: ThreadPoolExecutor, calls: Iterable[Callable[[], _Made]]) -> Iterator[_Made]:
    """Results of calls that threads make, a few ahead of what was asked for."""
    under_way = deque()
    for call in calls:
        under_way.append(pool.submit(call))
        if len(under_way) > _AHEAD:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()
