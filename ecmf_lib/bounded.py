"""Files from anywhere, looked at before they are read: no pipe, no endless line, not larger than it can be.

What is not read at all is an :class:`UnfitError`. It is an OSError, whose ``strerror`` is the reason: whoever reads a
file says it as they say that a file is not there.
"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from stat import S_ISDIR, S_ISREG

#: Bytes of a line in a table of text. A cell of Python's csv module has 131,072 characters at most.
LONGEST_LINE = 2**21
#: So many lines a table may have in any case; beyond, they have to be as long as rows are.
_LINES, _SHORTEST = 1_000_000, 8
_BLOCK = 2**20
#: Bytes of a JSON file that describes something.
LARGEST_JSON = 2**26


class UnfitError(OSError):
    """A file that is not read at all; ``strerror`` says why, ``filename`` which."""

    def __init__(self, path: str | Path, reason: str):
        super().__init__(errno.EINVAL, reason, str(path))


def check_file(path: str | Path, most: int | None = None) -> int:
    """Bytes of a file.

    Parameters
    ----------
    most : int, optional
        Bytes that it may have.

    Raises
    ------
    UnfitError
        For a pipe or device, which may never end, or a file that is too large.
    OSError
        If there is no file.
    """
    try:
        stat = os.stat(path)
    except ValueError:  # a name with a NUL in it
        raise UnfitError(path, "no name of a file") from None
    if S_ISDIR(stat.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not S_ISREG(stat.st_mode):
        raise UnfitError(path, "a pipe, socket or device, no file")
    if most is not None and stat.st_size > most:
        raise UnfitError(path, f"{stat.st_size:,} bytes, where no such file has more than {most:,}")
    return stat.st_size


def read_bytes(path: str | Path, most: int | None = None) -> bytes:
    """The content of a file; see :func:`check_file`."""
    check_file(path, most)
    with open(path, "rb") as file:
        return file.read()


def read_lines(path: str | Path) -> bytes:
    """The content of a table of text, once its lines are known to be those of a table.

    Raises
    ------
    UnfitError
        As :func:`check_file`; for a line longer than :data:`LONGEST_LINE`; for millions of lines with nothing in them.
    OSError
        If there is no file.
    """
    size = check_file(path)
    lines, begun = 0, 0  # bytes of the line that the last block ended in
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            ends = [at for mark in (b"\n", b"\r") if (at := block.find(mark)) >= 0]
            longest = begun + (min(ends) if ends else len(block))
            if longest > LONGEST_LINE:
                reason = f"line {lines + 1} is longer than {LONGEST_LINE >> 20} MiB, so this is no table of text"
                raise UnfitError(path, reason)
            begun = len(block) - 1 - max(block.rfind(b"\n"), block.rfind(b"\r")) if ends else longest
            lines += max(block.count(b"\n"), block.count(b"\r") if b"\r" in block else 0)
            if lines > _LINES + size // _SHORTEST:
                raise UnfitError(path, f"more than {lines:,} lines of {_SHORTEST} bytes or less, so this is no table")
        file.seek(0)
        return file.read()


def read_json(path: str | Path, most: int = LARGEST_JSON) -> object:
    """What a JSON file holds.

    Raises
    ------
    ValueError
        If it is no JSON, also for such as is nested too deeply.
    UnfitError, OSError
        As :func:`check_file`.
    """
    return parse_json(read_bytes(path, most))


def parse_json(text: str | bytes) -> object:
    """What a JSON text holds; ValueError if it is none, also for such as is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
