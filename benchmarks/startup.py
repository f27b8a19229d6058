"""Time until ``import ecmf_lib`` is done and ``ecmf --help`` has answered, beside a Python that does nothing.

Run with ``python benchmarks/startup.py [--times 9]``. Medians of fresh processes, after one that does not count (it
brings the files into memory); the three take turns, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from rows import Row, record

NOTHING = "python -c pass"
#: What is run → its arguments, and the seconds that it may take.
WAITED_FOR = {
    "import ecmf_lib": (["-c", "import ecmf_lib"], 0.3),
    "ecmf --help": (["-c", "from ecmf_lib.run import app; app()", "--help"], 0.5),
}


def seconds(arguments: list[str]) -> float:
    """Of one fresh process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=9, help="fresh processes of each")
    given = parser.parse_args()
    runs = {NOTHING: ["-c", "pass"]} | {what: arguments for what, (arguments, _) in WAITED_FOR.items()}
    took: dict[str, list[float]] = {what: [] for what in runs}
    for turn in range(given.times + 1):
        for what, arguments in runs.items():
            found = seconds(arguments)
            if turn:
                took[what].append(found)
    middle = {what: statistics.median(values) for what, values in took.items()}
    rows = []
    for what, (_, allowed) in WAITED_FOR.items():
        note = f"{allowed:g} s are allowed; fastest {min(took[what]):.2f} s"
        ours = middle[what]
        rows.append(
            Row(what, ours, middle[NOTHING], "s", NOTHING, ours / allowed, "of what is allowed", 1, False, note)
        )
    record(rows)


if __name__ == "__main__":
    main()
