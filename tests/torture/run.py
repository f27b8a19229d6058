"""All faults and all hostile inputs, and one table of what came of them: ``make torture``.

Every fault is followed by a resumed run whose results are compared, byte for byte, with those of a run that nobody
disturbed. Written to ``reports/torture``: ``torture.csv`` and ``about.json`` (machine, date, code). Exit status 1 if
anything was lost, duplicated or crashed, or a fault was not survived.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]
OUTPUT = REPO / "reports" / "torture"
#: kill -9 in each kind of work; 50 together.
KILLS = {"extraction": 12, "enrichment": 12, "grid": 13, "self-training": 13}
COLUMNS = ("fault", "work", "injected", "survived", "lost", "duplicated")
INPUT_COLUMNS = ("kind", "tried", "handled", "refused", "crashed")
for folder in (REPO, HERE.parent, HERE):
    sys.path.insert(0, str(folder))


def work_faults(kind: str, folder: Path, seed: int, scale: float) -> Iterator:
    """What came of each kind of fault in one kind of work (:class:`faults.Count`)."""
    import faults
    import numpy as np

    rng = np.random.default_rng([seed, list(KILLS).index(kind)])
    with faults.bench(kind, folder) as on:
        print(f"-- {kind}: {on.seconds:.1f} s when nobody disturbs it", flush=True)
        yield faults.killed(on, max(1, round(scale * KILLS[kind])), rng)
        yield faults.full(on, rng, times=2 if scale == 1 else 1)
        yield faults.read_only(on, rng)
        yield faults.clock(on)
        yield faults.twice(on)
        if kind == "extraction":
            yield faults.decoders(on)


def cluster_faults(folder: Path) -> dict | None:
    """Three Ray nodes that are killed, in a process of its own: a row of the table, or None where there is no Ray."""
    found = folder / "cluster.xml"
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={found}", str(HERE / "test_cluster_faults.py")]
    subprocess.run(command, cwd=REPO, check=False)
    suite = ElementTree.parse(found).getroot().find("testsuite") if found.is_file() else None
    if suite is None:
        return {"fault": "nodes and actors killed", "work": "extraction on Ray", "injected": 1} | _NOTHING
    tried = int(suite.get("tests")) - int(suite.get("skipped"))
    failed = int(suite.get("failures")) + int(suite.get("errors"))
    if not tried:
        return None
    about = {"fault": "nodes and actors killed", "work": "extraction on Ray", "injected": tried}
    return about | _NOTHING | {"survived": tried - failed}


_NOTHING = {"survived": 0, "lost": 0, "duplicated": 0}


def hostile_inputs(seed: int) -> tuple[list[dict], list[str]]:
    """Rows (kind, tried, handled, refused, crashed) and what crashed, hung, took too much or was refused unclearly."""
    import hostile_run

    table = hostile_run.run_all(seed, progress=False)
    good = table["outcome"].isin(hostile_run.GOOD)
    rows = []
    for kind, part in table.groupby("kind"):
        counts = part["outcome"].value_counts()
        crashed = len(part) - sum(int(counts.get(name, 0)) for name in hostile_run.GOOD)
        handled, refused = (int(counts.get(name, 0)) for name in ("handled", "refused"))
        rows.append(dict(zip(INPUT_COLUMNS, (kind, len(part), handled, refused, crashed), strict=True)))
    return rows, [f"{row.name}: {row.outcome}: {row.message[-300:]}" for row in table[~good].itertuples()]


def shown(rows: list[dict], columns: tuple[str, ...]) -> str:
    """A table for a terminal, with a sum."""
    first = {name: "all" if name == columns[0] else "" for name in columns if isinstance(rows[0][name], str)}
    total = {name: sum(row[name] for row in rows) for name in columns if not isinstance(rows[0][name], str)}
    lines = [list(columns), *([str((first | total | row)[name]) for name in columns] for row in [*rows, {}])]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def write(folder: Path, faults: list[dict], inputs: list[dict], about: dict) -> None:
    """The two tables as one csv, and what they were made with."""
    import pandas as pd

    folder.mkdir(parents=True, exist_ok=True)
    both = [{"part": "faults"} | row for row in faults] + [{"part": "inputs"} | row for row in inputs]
    columns = ["part", *COLUMNS, *INPUT_COLUMNS]
    table = pd.DataFrame(both, columns=columns).astype({c: "Int64" for c in columns if c not in _WORDS})
    table.to_csv(folder / "torture.csv", index=False, lineterminator="\n")
    (folder / "about.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


_WORDS = ("part", "fault", "work", "kind")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the moments, shares and inputs")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the 50 kills")
    parser.add_argument("--only", nargs="*", choices=[*KILLS, "cluster", "inputs"], help="parts; default: all")
    parser.add_argument("--output", type=Path, help="folder of the table; default: reports/torture if all is run")
    given = parser.parse_args()
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore:resource_tracker"}  # killed ones leave some
    parts, began = given.only or [*KILLS, "cluster", "inputs"], time.time()
    faults, inputs, problems, left_out, seconds = [], [], [], [], {}
    with tempfile.TemporaryDirectory(prefix="torture-") as place:
        os.environ["ECMF_DATA"] = str(Path(place) / "data")
        for part in parts:
            start = time.time()
            if part in KILLS:
                for count in work_faults(part, Path(place), given.seed, given.scale):
                    if count.injected:
                        faults.append({name: getattr(count, name) for name in COLUMNS})
                        print("  ".join(map(str, faults[-1].values())), flush=True)
                    else:
                        left_out.append(f"{count.fault}, {count.work}: not possible on this machine")
                    problems += [f"{count.fault}, {count.work}: {problem}" for problem in count.problems]
            elif part == "cluster":
                row = cluster_faults(Path(place))
                faults += [row] if row else []
                left_out += [] if row else ["nodes and actors killed: Ray is not installed"]
            else:
                inputs, wrong = hostile_inputs(given.seed)
                problems += wrong
            seconds[part] = round(time.time() - start)
    return report(given, parts, faults, inputs, problems, left_out, seconds, time.time() - began)


def report(given, parts, faults, inputs, problems, left_out, seconds, whole: float) -> int:
    """Print and write the tables; the exit status."""
    from ecmf_lib.doctor import machine

    bench_machine = machine()
    about = {
        "date": date.today().isoformat(),
        "machine": bench_machine,
        "code": _code(),
        "python": platform.python_version(),
        "seed": given.seed,
        "seconds": round(whole),
        "seconds_of": seconds,
        "left_out": left_out,
        "problems": problems,
    }
    for rows, columns in ((faults, COLUMNS), (inputs, INPUT_COLUMNS)):
        if rows:
            print(f"\n{shown(rows, columns)}")
    for line in left_out:
        print(f"left out: {line}")
    for line in problems:
        print(f"PROBLEM: {line}", file=sys.stderr)
    output = given.output or (OUTPUT if not given.only and given.scale == 1 else None)
    if output:
        write(output, faults, inputs, about)
    print(f"\n{bench_machine}, {about['date']}, {about['seconds']} s{f'; written to {output}' if output else ''}")
    bad = [row for row in faults if row["survived"] < row["injected"] or row["lost"] or row["duplicated"]]
    return int(bool(bad or problems or any(row["crashed"] for row in inputs)))


def _code() -> str:
    from ecmf_lib.project import code_version

    return code_version()


if __name__ == "__main__":
    sys.exit(main())
