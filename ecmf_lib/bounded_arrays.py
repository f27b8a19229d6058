"""npy, npz and parquet files from anywhere: what they promise is held against their size before anything is allocated.

numpy believes a header: a shape of a terabyte is allocated before a byte of it is read. A zip or parquet file of a few
kB can unpack to many GB. All that these files can raise is a ValueError with the reason; nothing is ever unpickled.
"""

from __future__ import annotations

import ast
import math
import re
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from ecmf_lib.bounded import check_file

if TYPE_CHECKING:
    import pyarrow as pa

MAGIC = b"\x93NUMPY"
_VERSIONS = {(1, 0): (2, "latin1"), (2, 0): (4, "latin1"), (3, 0): (4, "utf-8")}  # bytes of the length, encoding
_LONGEST_HEADER = 10_000  # numpy's own limit
_LEAST_UNPACKED, _MOST_TIMES = 2**28, 100  # what a file may unpack to: so many bytes, or so many times its size
_LEAST_ROWS = 100_000  # rows a parquet file may have in any case; beyond, each has a byte of its file
_OF_ITS_OWN = 4  # bytes in the file for each text of a column that cannot be one text many times
_EMPTY = 10_000_000  # longest side of an array without content


def read_npz(path: Path, only: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of an npz file.

    Parameters
    ----------
    only : collection of str, optional
        Names of those to read; what is not there is left out.

    Returns
    -------
    dict
        Name → array. Members that are no arrays are left out.

    Raises
    ------
    ValueError
        For a file that is damaged, holds Python objects, or would unpack to far more than its size.
    OSError
        If there is no file.
    """
    size = check_file(path)
    with _plain_errors(), zipfile.ZipFile(path) as file:
        members = {member.filename.removesuffix(".npy"): member for member in file.infolist()}
        _check_unpacked(sum(member.file_size for member in members.values()), size, "unpacks")
        chosen = members if only is None else {name: members[name] for name in only if name in members}
        return {name: array for name, info in chosen.items() if (array := _member(file, info)) is not None}


def npz_names(path: Path) -> list[str]:
    """Names of the arrays in an npz file; errors as :func:`read_npz`."""
    check_file(path)
    with _plain_errors(), zipfile.ZipFile(path) as file:
        return [name.removesuffix(".npy") for name in file.namelist()]


def map_npy(path: Path) -> np.ndarray:
    """The array of an npy file mapped into memory, read only; errors as :func:`read_npz`."""
    size = check_file(path)
    with _plain_errors(), open(path, "rb") as file:
        shape, fortran, dtype = _header(file, size)
        if math.prod(shape) * dtype.itemsize == 0:
            return np.zeros(shape, dtype)
        order = "F" if fortran else "C"
        return np.memmap(file, mode="r", dtype=dtype, shape=shape, order=order, offset=file.tell())


def _member(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray | None:
    try:
        with file.open(info) as member:
            if member.peek(len(MAGIC))[: len(MAGIC)] != MAGIC:
                return None
            _header(member, info.file_size)
        with file.open(info) as member:
            array = np.lib.format.read_array(member, allow_pickle=False)
        _check_text(array)
        return array
    except Exception as error:
        raise ValueError(f"array {info.filename.removesuffix('.npy')[:100]!r}: {_said(error)}") from None


def _header(file: BinaryIO, size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether columns lie together, and type; ValueError if they do not fit into a file of this size."""
    start = file.read(8)
    if start[:6] != MAGIC or len(start) < 8:
        raise ValueError("does not begin as an npy file; it is no such file, or holds Python objects (pickle)")
    if tuple(start[6:]) not in _VERSIONS:
        raise ValueError(f"npy files have no version {start[6]}.{start[7]}")
    width, encoding = _VERSIONS[tuple(start[6:])]
    length = int.from_bytes(file.read(width), "little")
    if length > _LONGEST_HEADER:
        raise ValueError(f"its header is {length} characters long, far more than that of plain arrays")
    text = file.read(length)
    try:
        told = ast.literal_eval(text.decode(encoding).strip(" \n\0"))
        shape, fortran, descr = told["shape"], told["fortran_order"], told["descr"]
        dtype = np.lib.format.descr_to_dtype(descr)
    except (ValueError, SyntaxError, TypeError, KeyError, AttributeError, RecursionError, MemoryError):
        raise ValueError(f"its header is none of an npy file: {text[:60]!r}") from None
    sides = isinstance(shape, tuple) and len(shape) <= 32 and all(type(n) is int and n >= 0 for n in shape)
    if not sides or not isinstance(fortran, bool) or len(told) != 3:
        raise ValueError(f"its header gives the shape {str(shape)[:60]}, which no array has")
    if dtype.hasobject:
        raise ValueError("holds Python objects (pickle)")
    needed, there = math.prod(shape) * dtype.itemsize, size - 8 - width - length
    if needed > there:
        raise ValueError(f"its header promises {needed:,} bytes, shape {str(shape)[:60]}; {max(there, 0):,} are there")
    if not needed and max(shape, default=0) > _EMPTY:
        raise ValueError(f"its header gives the shape {str(shape)[:60]}, with nothing in it")
    return shape, fortran, dtype


def _check_text(array: np.ndarray) -> None:
    """Letters that are no Unicode characters crash whatever shows them."""
    if array.dtype.kind == "U" and array.size:
        points = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False)).view(np.uint32)
        if ((points > 0x10FFFF) | ((points >= 0xD800) & (points <= 0xDFFF))).any():
            raise ValueError("holds letters that are no Unicode characters")


def _check_unpacked(unpacked: int, size: int, how: str) -> None:
    most = max(_LEAST_UNPACKED, _MOST_TIMES * size)
    if unpacked > most:
        raise ValueError(
            f"its {size:,} bytes would be {unpacked:,} when it {how}, more than {most:,}: a zip bomb, or save it again "
            "without compression"
        )


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Whatever a broken file makes numpy and zipfile raise, as a ValueError with a reason."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise ValueError(_said(error)) from None  # an unpacker's
    except ValueError:
        raise
    except Exception as error:  # many kinds: BadZipFile, zlib.error, LZMAError, EOFError, RuntimeError (encrypted), …
        raise ValueError(_said(error)) from None


def _said(error: Exception) -> str:
    said = re.sub(r"\s+", " ", str(error))[:300] or type(error).__name__
    if said == "File is not a zip file":
        return "not an npz file, or cut short"
    return said if isinstance(error, ValueError) else f"damaged ({said})"


def read_parquet(path: Path, columns: Collection[str] | None = None) -> pa.Table:
    """A parquet table.

    Parameters
    ----------
    columns : collection of str, optional
        Names of those to read.

    Raises
    ------
    ValueError
        For a damaged file, or one that would unpack to far more than its size: a column of one value is kept once,
        however often it is said to be there.
    OSError
        If there is no file.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    size = check_file(path)
    with _plain_errors():
        told = pq.read_metadata(path)
        groups = [told.row_group(i) for i in range(told.num_row_groups)]
        _check_unpacked(sum(max(group.total_byte_size, 0) for group in groups), size, "is read")
        if told.num_rows > max(_LEAST_ROWS, size):
            raise ValueError(f"it promises {told.num_rows:,} rows in {size:,} bytes, where each has an id of its own")
        # texts that repeat come as numbers into a list, so that their length is known before each is spelt out
        chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
        repeat = {c.path_in_schema for c in chunks if c.total_compressed_size < _OF_ITS_OWN * c.num_values}
        fields = [field for field in pq.read_schema(path) if field.name in repeat]
        texts = [field.name for field in fields if pa.types.is_string(field.type)]
        with pq.ParquetFile(path, read_dictionary=texts) as file:
            table = file.read(columns=None if columns is None else list(columns), use_threads=False)
        spelt = 0
        for column in table.columns:
            for part in column.chunks if pa.types.is_dictionary(column.type) else []:
                lengths = pc.take(pc.binary_length(part.dictionary), part.indices)
                spelt += pc.sum(lengths.cast(pa.int64())).as_py() or 0
        _check_unpacked(spelt + table.nbytes, size, "is read")
        fields = [
            pa.field(field.name, field.type.value_type if pa.types.is_dictionary(field.type) else field.type)
            for field in table.schema
        ]
        table = table.cast(pa.schema(fields, table.schema.metadata))
        table.validate(full=True)  # that texts are UTF-8, above all
        return table
