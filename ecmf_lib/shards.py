"""Shards: files with the features of some clips, written so that no interruption can tear them.

A shard holds the features of some clips, all time steps below each other in one tensor ``features`` [steps, dim], and
its own rows in the file's metadata. So a shard is complete in itself: it appears by one rename after everything in it
has reached the disk, and an index can be made again from the shards alone. A shard is named by a hash of the ids
and *keys* of its clips. A key stands for everything that the features depend on (content of the input, encoder,
settings), so the same clips with the same input have the same shard, byte for byte, however often a run was
interrupted, and nothing that depends on the clock is stored.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load

from ecmf_lib.bounded import check_file, parse_json, read_bytes
from ecmf_lib.bounded_arrays import read_parquet

_DTYPES = {np.float16: "F16", np.float32: "F32", np.float64: "F64"}  # the format's names

_LONGEST_LINE = 100_000  # letters in the memory of digests: a path is not longer
DONE, MISSING, FAILED = "done", "missing", "failed"


class StoreError(ValueError):
    """Something in a feature store is absent, damaged or in use; the message says what and how to mend it."""


class Pair(NamedTuple):
    """What identifies a row: the clip, and all that its features depend on."""

    id: str
    key: str


@dataclass(frozen=True, slots=True)
class Row:
    """What a set knows of one clip.

    Attributes
    ----------
    pair : Pair
    state : str
        ``"done"`` (there are features), ``"missing"`` (the clip has nothing for this stream) or ``"failed"``.
    reason : str
        Why there are no features; empty when done.
    offset, length : int
        First time step in the shard's tensor and number of steps; length 0 without features.
    facts : dict
        JSON-able remarks on the clip, such as its duration.
    """

    pair: Pair
    state: str = DONE
    reason: str = ""
    offset: int = 0
    length: int = 0
    facts: dict = field(default_factory=dict)


def digest_of(*parts: object) -> str:
    """64 hex digits of JSON-able parts (sha256); the same on every machine."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def slug(text: str) -> str:
    """A text from anywhere as part of a file name: ASCII letters, digits, ``.``, ``_``, ``-``; at most 48 of them."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:48] or "unnamed"


def write_file(path: Path, content: bytes | Sequence[bytes | memoryview], scratch: Path) -> None:
    """Write a file so that, whatever happens, the old content, the new content or nothing is there.

    Parameters
    ----------
    content : bytes, or sequence of bytes and memoryviews of bytes
        All of it, or parts that follow each other.
    scratch : Path
        Folder on the same file system in which the content grows before it is renamed.

    Raises
    ------
    StoreError
        If the disk is full or the folder cannot be written.
    """
    parts = [content] if isinstance(content, bytes) else content
    if path.is_file() and path.stat().st_size == sum(map(len, parts)) and path.read_bytes() == b"".join(parts):
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.mkdir(parents=True, exist_ok=True)
        growing = scratch / f"{uuid4().hex[:8]}-{path.name}"  # several machines may write the same file
        try:
            with open(growing, "wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            os.replace(growing, path)
        except BaseException:
            growing.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the rename itself has to reach the disk too
        finally:
            os.close(folder)
    except OSError as error:
        mend = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "make the folder writable"
        raise StoreError(
            f"{path}: cannot be written ({error.strerror}); {mend} and run again, what is done stays done"
        ) from error


def write_table(path: Path, table: pa.Table, scratch: Path) -> None:
    """Write a parquet file as :func:`write_file` does."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    write_file(path, buffer.getvalue(), scratch)


def shard_name(pairs: Sequence[Pair]) -> str:
    """File name of the shard with exactly these rows in this order."""
    return digest_of(*pairs)[:16] + ".safetensors"


def pack_shard(rows: Sequence[Row], steps: np.ndarray | None) -> bytes:
    """The content of a shard file, see :func:`shard_parts`."""
    listed = [[*row.pair, row.state, row.reason, row.offset, row.length, row.facts] for row in rows]
    return b"".join(shard_parts(listed, steps, features_digest(steps)))


def shard_parts(listed: Sequence[Sequence], steps: np.ndarray | None, digest: str) -> list[bytes | memoryview]:
    """The content of a shard file in parts that follow each other; the features are not copied.

    The bytes are those of :func:`safetensors.numpy.save`, which would copy the features twice.

    Parameters
    ----------
    listed : sequence of sequences
        Rows: id, key, state, reason, offset, length, facts.
    steps : float array [steps, dim] or None
        Features of all rows below each other; None for rows that only carry facts.
    digest : str
        :func:`features_digest` of the features.
    """
    told = json.dumps({"rows": listed, "sha256": digest}, ensure_ascii=False)
    # one metadata entry only: safetensors writes several in an order that changes from run to run
    header: dict = {"__metadata__": {"ecmf": told}}
    if steps is not None:
        header["features"] = {"dtype": _DTYPES[steps.dtype.type], "shape": steps.shape}
        header["features"] |= {"data_offsets": [0, steps.nbytes]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little") + text, *([] if steps is None else [_bytes_of(steps)])]


def features_digest(steps: np.ndarray | None) -> str:
    """sha256 of the bytes of features, 64 hex digits."""
    return hashlib.sha256(b"" if steps is None else _bytes_of(steps)).hexdigest()


def _bytes_of(steps: np.ndarray) -> memoryview:
    little = np.ascontiguousarray(steps, steps.dtype.newbyteorder("<"))
    return memoryview(little.reshape(-1).view(np.uint8))


def unpack_shard(content: bytes, name: str) -> np.ndarray:
    """Features in the content of a shard file, [steps, dim]; the inverse of :func:`pack_shard`.

    Raises
    ------
    StoreError
        If the content is torn or no shard.
    """
    try:
        return load(content)["features"]
    except (SafetensorError, KeyError, ValueError) as error:
        raise StoreError(f"{name}: damaged shard ({error}); delete it and extract again") from None


def join_rows(
    pairs: Sequence[Pair], found: Mapping[Pair, tuple[Row, np.ndarray | None]], dim: int | None
) -> tuple[list[Row], np.ndarray | None]:
    """Rows and features of a shard from those of its clips: each row gets its place in the tensor.

    Parameters
    ----------
    dim : int or None
        Numbers in one step; None for rows that only carry facts.
    """
    rows, parts, offset = [], [], 0
    for pair in pairs:
        row, steps = found[pair]
        length = 0 if steps is None else len(steps)
        rows.append(replace(row, offset=offset if length else 0, length=length))
        parts += [steps] if length else []
        offset += length
    if dim is None:
        return rows, None
    return rows, np.concatenate(parts) if parts else np.zeros((0, dim), np.float32)


def read_rows(path: Path) -> list[Row]:
    """Rows of a shard file.

    Raises
    ------
    StoreError
        If the file is torn, damaged or no shard.
    """
    try:
        with open_shard(path) as file:
            stored = parse_json(file.metadata()["ecmf"])
        return [_row(*told) for told in stored["rows"]]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path}: damaged shard ({error}); delete it and extract again") from None


def open_shard(path: str | Path) -> safe_open:
    """A shard, to be read as numpy arrays; what its header promises has been held against the length of the file.

    Raises
    ------
    SafetensorError, OSError
        If it is torn or no such file, or there is no file; also for a pipe, which would be waited for.
    """
    check_file(path)
    return safe_open(path, "numpy")


def _row(id_: str, key: str, state: str, reason: str, offset: int, length: int, facts: dict) -> Row:
    texts = all(isinstance(text, str) for text in (id_, key, state, reason))
    numbers = all(type(number) is int and 0 <= number < 2**62 for number in (offset, length))
    if not (texts and numbers and state in (DONE, MISSING, FAILED) and isinstance(facts, dict)):
        raise ValueError("a row of its list is none of a shard")
    return Row(Pair(id_, key), state, reason, offset, length, facts)


_INDEX = pa.schema(
    [(name, pa.string()) for name in ("id", "key", "state", "reason", "shard")]
    + [(name, pa.int64()) for name in ("offset", "length")]
)


def index_table(places: Iterable[tuple[str, Row]]) -> pa.Table:
    """The index of rows, each with the shard that it is in."""
    places = list(places)
    rows = [row for _, row in places]
    columns = [[row.pair.id for row in rows], [row.pair.key for row in rows], [row.state for row in rows]]
    columns += [[row.reason for row in rows], [shard for shard, _ in places]]
    return index_of(*columns, [row.offset for row in rows], [row.length for row in rows])


def index_of(*columns: Sequence) -> pa.Table:
    """The index with these columns: id, key, state, reason, shard, offset, length."""
    return pa.table([pa.array(column, kind) for column, kind in zip(columns, _INDEX.types, strict=True)], schema=_INDEX)


def write_about(folder: Path, about: dict, scratch: Path) -> None:
    """Write ``set.json``."""
    text = json.dumps(about, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    write_file(folder / "set.json", text.encode(), scratch)


class SetWriter:
    """Adds shards to one set. The caller holds the store's lock.

    Parameters
    ----------
    folder : Path
        Folder of the set (or of a ledger, whose rows only carry facts).
    scratch : Path
        Folder in which files grow before they are renamed, see :func:`write_file`.
    ids : iterable of str
        All clips of this run. Rows of other clips, from a run over more of the corpus, are kept as they are.
    about : dict or None
        Content of ``set.json``; None for a ledger.
    retry_failed : bool
        Treat this run's clips in state ``"failed"`` as if they were not there.
    keep_others : bool
        False: what this run does not bring is removed.
    """

    def __init__(
        self,
        folder: Path,
        scratch: Path,
        ids: Iterable[str],
        about: dict | None,
        *,
        retry_failed: bool = False,
        keep_others: bool = True,
    ):
        self._folder, self._shards, self._scratch = folder, folder / "shards", scratch
        self._about = about
        self._changed = False
        self._rows: dict[str, dict[Pair, Row]] = {}  # of each shard that is whole
        self._where: dict[Pair, str] = {}  # the shard whose row counts
        self._found = set(self._shards.glob("*"))
        ids = set(ids)
        retried = ids if retry_failed else set()
        for path in sorted(self._found):
            try:
                rows = read_rows(path)
            except StoreError:
                continue  # torn: as if it were not there, and removed at the end
            usable = {row.pair: row for row in rows if row.state != FAILED or row.pair.id not in retried}
            self._rows[path.name] = usable
            for pair in usable:
                self._where.setdefault(pair, path.name)
        self._kept = self._others(ids) if keep_others else []
        if about is not None and not (folder / "set.json").exists():
            self._describe()  # so that what is done can be read before the run is over

    @property
    def folder(self) -> Path:
        """Folder of the set."""
        return self._folder

    @property
    def dim(self) -> int | None:
        """Numbers in one step; None for a ledger."""
        return None if self._about is None else self._about["dim"]

    @property
    def ids(self) -> set[str]:
        """Clips of which there is a row, whatever its key."""
        return {pair.id for pair in self._where}

    def row(self, pair: Pair) -> Row | None:
        """What is stored for this pair, if anything."""
        return self._rows[self._where[pair]][pair] if pair in self._where else None

    def place(self, pair: Pair) -> tuple[str, Row]:
        """Shard file and row of what is stored for this pair; KeyError if nothing is."""
        return self._where[pair], self._rows[self._where[pair]][pair]

    def has_chunk(self, pairs: Sequence[Pair]) -> bool:
        """Whether all of these rows are stored where they belong."""
        if not all(pair in self._where for pair in pairs):
            return False
        name = shard_name(pairs)
        if name in self._rows:
            self._where |= dict.fromkeys(pairs, name)
            return True
        # with clips of a larger run in the set, what is there stays where it is: nothing is rewritten for a selection
        return bool(self._kept)

    def write_chunk(self, pairs: Sequence[Pair], new: Mapping[Pair, tuple[Row, np.ndarray | None]]) -> None:
        """Write the shard of these rows; what is not in `new` is copied from where it is stored now."""
        found = {pair: new[pair] if pair in new else self._stored(pair) for pair in pairs}
        rows, steps = join_rows(pairs, found, self.dim)
        write_file(self._shards / shard_name(pairs), pack_shard(rows, steps), self._scratch)
        self.adopt(pairs, rows)

    def adopt(self, pairs: Sequence[Pair], rows: Sequence[Row]) -> None:
        """Count the shard of these rows as written; it is there already (another machine may have written it)."""
        name = shard_name(pairs)
        self._changed = True
        self._rows[name] = {row.pair: row for row in rows}
        self._where |= dict.fromkeys(pairs, name)

    def finish(self, pairs: Sequence[Pair]) -> None:
        """Write the index for all clips of the run, in this order, and those kept; remove what is not needed."""
        live = [*pairs, *self._kept]
        if self._about is not None and (self._changed or not self._kept):
            table = index_table((self._where[pair], self.row(pair)) for pair in live)
            write_table(self._folder / "index.parquet", table, self._scratch)
            if not self._kept:  # else the set goes on to be one of the larger run
                self._describe()
        for path in self._found - {self._shards / name for name in {self._where[pair] for pair in live}}:
            path.unlink()

    def _stored(self, pair: Pair) -> tuple[Row, np.ndarray | None]:
        row = self.row(pair)
        if not row.length:
            return row, None
        with safe_open(self._shards / self._where[pair], "numpy") as file:
            return row, file.get_slice("features")[row.offset : row.offset + row.length]

    def _others(self, ids: set[str]) -> list[Pair]:
        """Rows of clips that this run does not know: those the index counts, else any (a first run not finished)."""
        try:
            index = read_parquet(self._folder / "index.parquet", Pair._fields).to_pylist()
        except (OSError, ValueError):
            index = []
        counted = [Pair(**row) for row in index if len(row) == len(Pair._fields)]
        candidates = [pair for pair in counted if all(isinstance(text, str) for text in pair)] + sorted(self._where)
        kept: dict[str, Pair] = {}
        for pair in candidates:
            if pair.id not in ids and pair in self._where:
                kept.setdefault(pair.id, pair)
        return list(kept.values())

    def _describe(self) -> None:
        write_about(self._folder, self._about, self._scratch)


class FileDigests:
    """Content digests of files, remembered as long as a file looks unchanged.

    Parameters
    ----------
    memory : Path
        Text file with one line of JSON a digest; only ever added to, a torn last line is ignored.
    """

    def __init__(self, memory: Path):
        self._memory = memory
        self._known: dict[str, list] = {}
        self._new: list[str] = []
        try:
            lines = read_bytes(memory).decode().splitlines()
        except (OSError, UnicodeDecodeError):
            lines = []
        self._learn(lines)

    def _learn(self, lines: Iterable[str]) -> None:
        for line in lines:
            try:
                path, *looks, digest = parse_json(line if len(line) < _LONGEST_LINE else "")
                self._known[path] = [*looks, str(digest)]
            except (ValueError, TypeError):
                continue

    def knows(self, path: Path) -> bool:
        """Whether the digest is remembered and the file looks unchanged: no need to read it."""
        try:
            stat = os.stat(path)
        except OSError:
            return True  # there is nothing to read
        known = self._known.get(str(path))
        return bool(known) and known[:-1] == [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]

    @property
    def new(self) -> list[str]:
        """What was found out and is not saved yet, as lines for :meth:`add`."""
        return list(self._new)

    def add(self, lines: Sequence[str]) -> None:
        """Remember what :attr:`new` gave on another machine, whose files are the same ones."""
        self._learn(lines)
        self._new += lines

    def of(self, path: Path) -> str:
        """sha256 of the content; for what is not there or cannot be read, a text that says so."""
        try:
            stat = os.stat(path)
            looks = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
            known = self._known.get(str(path))
            if known and known[:-1] == looks:
                return known[-1]
            if not S_ISREG(stat.st_mode):
                return "not a file"
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            return f"unreadable: {error.strerror}"
        # a file written a moment ago can change again without looking different: clocks of file systems are coarse
        if time.time_ns() - max(looks[1:]) > 2_000_000_000:
            self._known[str(path)] = [*looks, digest]
            self._new.append(json.dumps([str(path), *looks, digest]))
        return digest

    def save(self) -> None:
        """Add what is new to the memory; where that cannot be written, files are read again the next time."""
        if self._new:
            with suppress(OSError):
                self._memory.parent.mkdir(parents=True, exist_ok=True)
                with open(self._memory, "a", encoding="utf-8") as file:
                    file.write("\n".join(self._new) + "\n")
            self._new = []
