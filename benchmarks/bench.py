"""All benchmarks one after the other, and one table of what they found.

``make bench`` runs this: each benchmark in a process of its own with sizes that fit into a quarter of an hour on two
cores together, so some figures are of a part (their notes say of which); run by itself, each has options for more.
Written to ``reports/bench``: ``speed.csv``, ``about.json`` (machine, date, versions, seconds) and ``index.html``, which
shows them. Nothing here is a test, and no test looks at a clock.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import pandas as pd
from rows import Row

from ecmf_lib.doctor import machine
from ecmf_lib.project import code_version
from ecmf_lib.speed_page import read_speed, write_speed_page
from ecmf_lib.store import library_versions

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parent / "reports" / "bench"
#: Script → options with which it fits into the quarter of an hour.
ALL = {
    "startup": [],
    "manifest": [],
    "features": [],
    "extraction": ["--clips", "96", "--simple-clips", "16"],
    "enrichment": ["--requests", "20", "--clips", "0"],
    "growth": [],
    "grid": [],
    "challenge": [],
}


def run(name: str, options: list[str]) -> tuple[list[Row], str]:
    """Rows of one benchmark, and why there are none if it failed."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "rows.json"
        environment = os.environ | {"ECMF_BENCH_ROWS": str(target)}
        command = [sys.executable, str(HERE / f"{name}.py"), *options]
        print(f"== {name} {' '.join(options)}", flush=True)
        code = subprocess.run(command, env=environment, check=False).returncode
        rows = [Row(**row) for row in json.loads(target.read_text("utf-8"))] if target.is_file() else []
    return rows, "" if not code else f"exit code {code}"


def table(rows: list[tuple[str, Row]]) -> str:
    """For a terminal: what, ours, rival or bound, ratio, goal."""
    lines = [("what", "ours", "rival or bound", "ratio", "goal")]
    for _, row in rows:
        sign = "≥" if row.more_is_better else "≤"
        goal = "" if row.goal is None else f"{sign} {row.goal:g} {'met' if row.reached else 'MISSED'}"
        theirs = f"{row.against:.4g} {row.unit} ({row.rival})"
        lines.append((row.what, f"{row.ours:.4g} {row.unit}", theirs, f"{row.ratio:.3g} {row.means}", goal))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    told = f"of {', '.join(ALL)}; the others' rows stay; default: all"
    parser.add_argument("only", nargs="*", metavar="NAME", help=told)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    given = parser.parse_args()
    if unknown := set(given.only) - set(ALL):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
    found, failed, seconds = kept(given.output, given.only)
    for name in given.only or ALL:
        start = time.time()
        rows, problem = run(name, ALL[name])
        found += [(name, row) for row in rows]
        seconds[name] = round(time.time() - start)
        if problem:
            failed[name] = problem
    found.sort(key=lambda pair: list(ALL).index(pair[0]))
    print(f"\n{table(found)}")
    about = {
        "date": date.today().isoformat(),
        "machine": machine(),
        "code": code_version(),
        "python": platform.python_version(),
        "libraries": library_versions(),
        "seconds": sum(seconds.values()),
        "seconds_of": seconds,
        "failed": failed,
    }
    write(given.output, found, about)
    write_speed_page(given.output)
    print(f"\n{about['machine']}, {about['date']}, {about['seconds']} s; written to {given.output}")
    for name, problem in failed.items():
        print(f"benchmark '{name}' failed ({problem}); its rows are missing", file=sys.stderr)
    return 1 if failed else 0


def kept(folder: Path, only: list[str]) -> tuple[list[tuple[str, Row]], dict[str, str], dict[str, int]]:
    """What stays of an earlier run where only some benchmarks are asked for: rows, failures, seconds."""
    if not only or not (folder / "speed.csv").is_file():
        return [], {}, {}
    earlier, about = read_speed(folder)
    rows = [
        (row.pop("benchmark"), Row(**row | {"goal": None if pd.isna(row["goal"]) else row["goal"]}))
        for row in earlier.to_dict("records")
        if row["benchmark"] not in only
    ]
    failed = {name: why for name, why in about["failed"].items() if name not in only}
    return rows, failed, {name: s for name, s in about["seconds_of"].items() if name not in only}


def write(folder: Path, rows: list[tuple[str, Row]], about: dict) -> None:
    """The table as data."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ["what", "ours", "against", "unit", "rival", "ratio", "means", "goal", "more_is_better", "note"]
    with open(folder / "speed.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["benchmark", *names])
        for benchmark, row in rows:
            values = [getattr(row, name) for name in names]
            writer.writerow(
                [benchmark, *(f"{v:.6g}" if isinstance(v, float) else "" if v is None else v for v in values)]
            )
    (folder / "about.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
