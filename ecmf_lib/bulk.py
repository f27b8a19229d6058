"""Many clips' features into a set at once: checked, hashed and written by a few threads.

Hashing, checking and writing leave Python's lock, so the next shards are made ready while one waits for the disk. The
promises of :mod:`ecmf_lib.shards` stay: a shard appears by one rename after it has reached the disk, and the index
follows when all shards are there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ecmf_lib.shards import (
    DONE,
    MISSING,
    Pair,
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

_THREADS = 4  # each with one shard: two cores compute while other shards wait for the disk
_SHARD_BYTES = 8 << 20  # about; what an interruption may cost, and what few flushes to the disk want
_MOST_CLIPS, _FRAME_CLIPS = 4096, 64  # in a shard: at most, and where their lengths are not known beforehand


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
        Called by threads, several at once.
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

    def write(start: int) -> pa.Table:
        """Write the shard of the clips from `start` on, unless it is there; its part of the index."""
        block = read(start, min(start + size, len(ids)))
        steps = np.ascontiguousarray(block.steps)
        digest = features_digest(steps)
        key, columns = _rows(ids[start : start + size], block, digest)
        name = shard_name([Pair("", key)])  # in which the clips are
        if not _is_whole(shards / name):
            parts = shard_parts(list(zip(*columns, repeat({}))), steps, digest)
            write_file(shards / name, parts, store.scratch)
        return index_of(*columns[:4], [name] * len(columns[0]), *columns[4:])

    with ThreadPoolExecutor(_THREADS) as pool:  # waits for its threads, also when something goes wrong
        index = list(pool.map(write, range(0, len(ids), size)))
    table = pa.concat_tables(index)
    write_table(folder / "index.parquet", table, store.scratch)
    write_about(folder, described, store.scratch)
    for path in set(shards.glob("*")) - {shards / name for name in table["shard"].unique().to_pylist()}:
        path.unlink()
    return FeatureSet(folder, table.to_pandas())


def _clips_in_shard(level: str, dim: int) -> int:
    if level == "frame":
        return _FRAME_CLIPS
    return min(max(_SHARD_BYTES // (4 * dim), _FRAME_CLIPS), _MOST_CLIPS)


def _rows(ids: Sequence[str], block: Block, digest: str) -> tuple[str, tuple[list, ...]]:
    """The key of a shard's rows, and the rows as columns: id, key, state, reason, offset, length."""
    # one key for all: hashing clip by clip takes longer than writing, and their shard is made anew if one of them is
    key = digest_of(digest, str(block.steps.dtype), ids, block.lengths, block.reasons)[:32]
    states = [MISSING if reason else DONE for reason in block.reasons]
    ends = np.cumsum(block.lengths)
    offsets = np.where(block.lengths, ends - block.lengths, 0).tolist()
    return key, (list(ids), [key] * len(ids), states, block.reasons, offsets, block.lengths)


def _is_whole(path: Path) -> bool:
    try:
        return bool(path.exists() and read_rows(path))
    except StoreError:
        return False
