"""The peak of a process's memory."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def peak() -> float:
    """Most MB that this process has held so far.

    Linux counts it for each program; what ``getrusage`` says there begins with the peak of the process that started it.
    """
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS
    return high_water("self") / 1e6


def high_water(process: int | str) -> int:
    """Most bytes that a process of this Linux has held so far; OSError or StopIteration if it is gone."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024
