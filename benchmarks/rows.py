"""One row of the table of ``make bench``: what was measured, ours, and the rival or bound of the same run.

A benchmark calls :func:`record` once. Run by itself it prints its rows; run by ``make bench`` (``benchmarks/bench.py``)
it also leaves them as JSON where the environment variable ``ECMF_BENCH_ROWS`` says.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One measurement beside what it is measured against.

    Attributes
    ----------
    what : str
        In a few words, with the size: "read 27,369 clips × 3 streams, warm".
    ours : float
    against : float
        The rival's or the bound's figure, measured in the same run, in the same unit.
    unit : str
        Such as "s", "MB", "models/s".
    rival : str
        What `against` is: "one .npy a clip", "largest matrix product, GFLOP/s".
    ratio : float
        As `means` says; a reader compares it with `goal`.
    means : str
        "times faster", "share of the bound", "times the memory", …
    goal : float or None
        What was aimed at; None where nothing was.
    more_is_better : bool
        Whether the ratio should be at least (True) or at most (False) the goal.
    note : str
        What a reader has to know, such as what was extrapolated.
    """

    what: str
    ours: float
    against: float
    unit: str
    rival: str
    ratio: float
    means: str
    goal: float | None = None
    more_is_better: bool = True
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the goal is met; None without one."""
        if self.goal is None:
            return None
        return self.ratio >= self.goal if self.more_is_better else self.ratio <= self.goal

    def line(self) -> str:
        """For a terminal."""
        sign = "≥" if self.more_is_better else "≤"
        goal = "" if self.goal is None else f" (goal {sign} {self.goal:g}: {'met' if self.reached else 'MISSED'})"
        note = f"; {self.note}" if self.note else ""
        return (
            f"{self.what}: ours {self.ours:.4g} {self.unit}, {self.rival} {self.against:.4g} {self.unit}: "
            f"{self.ratio:.3g} {self.means}{goal}{note}"
        )


def record(rows: Sequence[Row]) -> None:
    """Print rows, and leave them for ``make bench`` if it is what runs."""
    for row in rows:
        print(row.line(), flush=True)
    if target := os.environ.get("ECMF_BENCH_ROWS"):
        text = json.dumps([asdict(row) for row in rows], ensure_ascii=False, indent=1)
        Path(target).write_text(text, encoding="utf-8")
