"""Readers with faults, to see that ``hostile_run.py`` finds them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from hostile import Hostile
from hostile_readers import Refused


def fine(path: Path, good: Path) -> str:
    return "all is well"


def unclear(path: Path, good: Path) -> str:
    raise Refused("something is wrong somewhere")


def crash(path: Path, good: Path) -> str:
    return str(1 / 0)


def memory(path: Path, good: Path) -> str:
    return str(len(b"x" * 900 * 2**20))


def allocation(path: Path, good: Path) -> str:
    return str(len(bytes(2**40)))


def end(path: Path, good: Path) -> str:
    os._exit(3)


def loop(path: Path, good: Path) -> str:
    while True:
        pass


def inputs() -> Iterator[Hostile]:
    """One for each reader."""
    for reader in (fine, unclear, crash, memory, allocation, end, loop):
        name = reader.__name__
        yield Hostile(f"fault/{name}", "fault", lambda folder, good: folder, name)
