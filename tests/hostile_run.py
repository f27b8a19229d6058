"""Feed hostile inputs to the readers in child processes with limits, and say what came of each.

``python tests/hostile_run.py [--quick] [--only TEXT]`` prints a table; exit status 1 if any input crashed, hung or took
too much memory.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import resource
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

HERE = Path(__file__).resolve().parent
CPU_SECONDS = 10  # that one input may take: "never a hang"; time of the processor, which a busy machine does not change
WALL_SECONDS = 60  # for what waits without computing: generous, since a busy machine does change it
MEMORY_MB = 700  # that the process may grow by
ADDRESS_MB = 3000  # the same of addresses, which an allocation takes before it is filled
COLUMNS = ("name", "kind", "outcome", "seconds", "peak_mb", "message")
GOOD = ("handled", "refused")


def run_all(seed: int = 0, progress: bool = True) -> pd.DataFrame:
    """All inputs.

    Returns
    -------
    DataFrame
        name, kind, outcome, seconds (of the processor), peak_mb (by which the process grew), message (what the user
        read, or the traceback). The outcome is "handled", "refused" (with a message that names the file and a reason),
        "unclear" (refused, but without), "crashed", "hung" or "memory"; anything but the first two is a fault.
    """
    from hostile import all_inputs

    return run_inputs([one.name for one in all_inputs(seed)], seed, progress)


def run_inputs(names: Sequence[str], seed: int = 0, progress: bool = False) -> pd.DataFrame:
    """Some inputs by name; see :func:`run_all`."""
    from hostile import all_inputs

    kinds = {one.name: one.kind for one in all_inputs(seed)}
    rows, left = [], list(names)
    with tempfile.TemporaryDirectory(prefix="hostile-") as place:
        child = None
        try:
            while left:
                if child is None:
                    child = Child(Path(place), seed)
                name = left.pop(0)
                outcome = child.ask(name)
                rows.append({"name": name, "kind": kinds[name], **outcome})
                if outcome["outcome"] in ("crashed", "hung") and child.gone():
                    child = None
                if progress:
                    print(f"{len(rows)}/{len(names)} {rows[-1]['outcome']:8} {name}", file=sys.stderr, flush=True)
        finally:
            if child is not None:
                child.stop()
    return pd.DataFrame(rows, columns=list(COLUMNS))


def counts(table: pd.DataFrame) -> pd.DataFrame:
    """One row a kind: tried, handled, refused, and faults; a sum at the end."""
    found = pd.crosstab(table["kind"], table["outcome"]).reindex(
        columns=["handled", "refused", "unclear", "crashed", "hung", "memory"], fill_value=0
    )
    found.insert(0, "tried", found.sum(axis=1))
    found["most s"] = table.groupby("kind")["seconds"].max().round(1)
    found["most MB"] = table.groupby("kind")["peak_mb"].max().round(0).astype(int)
    total = found.sum().to_frame("all").T.assign(**{c: found[c].max() for c in ("most s", "most MB")})
    return pd.concat([found, total]).rename_axis(None)


class Child:
    """A warm process that is asked one input after another.

    Parameters
    ----------
    place : Path
        Folder for the good material and the input that is tried.
    seed : int
    readers : str
        Module with the readers; another than ``hostile_readers`` has ``inputs()`` of its own.
    cpu : int
        Seconds of the processor that an input may take.
    """

    def __init__(self, place: Path, seed: int, readers: str = "hostile_readers", cpu: int = CPU_SECONDS):
        threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        env = os.environ | dict.fromkeys(threads, "1") | {"ECMF_DATA": str(place / "data"), "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, str(HERE / "hostile_run.py"), "--serve", str(place), str(seed), readers, str(cpu)]
        self.said = open(place / "stderr.txt", "a+b")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.said}
        self.process = subprocess.Popen(command, text=True, env=env, start_new_session=True, **pipes)
        if self._answer(600) != "ready\n":
            raise RuntimeError(f"the child did not start: {self._tail()}")

    def ask(self, name: str) -> dict:
        """What came of an input; "hung" or "crashed" if the process did not live to say it."""
        began = time.monotonic()
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        answer = self._answer(WALL_SECONDS)
        if answer:
            return json.loads(answer)
        self.stop()
        ended, seconds = self.process.returncode, time.monotonic() - began
        late = answer is None or ended == -24  # SIGXCPU
        what = f"no answer after {seconds:.0f} s" if answer is None else f"ended by {ended}: {self._tail()}"
        return {"outcome": "hung" if late else "crashed", "seconds": seconds, "peak_mb": 0.0, "message": what}

    def gone(self) -> bool:
        return self.process.poll() is not None

    def stop(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(5 if self.process.poll() is None else 0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _answer(self, seconds: float) -> str | None:
        """A line; "" if the process has ended; None if it has not said anything in time."""
        with selectors.DefaultSelector() as waiting:
            waiting.register(self.process.stdout, selectors.EVENT_READ)
            if not waiting.select(seconds):
                self.process.kill()
                return None
        return self.process.stdout.readline()

    def _tail(self) -> str:
        self.said.flush()
        self.said.seek(0)
        return self.said.read().decode("utf-8", "replace")[-500:]


# ------------------------------------------------------------------------------------------------ in the child


def serve(place: Path, seed: int, name: str, cpu: int) -> None:
    """Answer names on stdin with a line of JSON each."""
    sys.path.insert(0, str(HERE))
    from hostile import all_inputs

    readers = importlib.import_module(name)
    answers, good = os.dup(1), place / "material"
    os.dup2(2, 1)  # what a reader prints is no answer
    if hasattr(readers, "inputs"):
        inputs = {one.name: one for one in readers.inputs()}
    else:
        _warm(readers, good, place)
        inputs = {one.name: one for one in all_inputs(seed)}
    with os.fdopen(answers, "w") as out:
        print("ready", file=out, flush=True)
        for line in sys.stdin:
            one = inputs[line.rstrip("\n")]
            folder = place / "input"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            print(json.dumps(_tried(one, getattr(readers, one.read), folder, good, cpu)), file=out, flush=True)
            _emptied(folder)


def _warm(readers, good: Path, place: Path) -> None:
    """Import what readers import, so that neither its time nor its memory counts; good files have to be handled."""
    if not good.exists():
        from hostile_material import make_material

        shutil.rmtree(place / "growing", ignore_errors=True)
        make_material(place / "growing").rename(good)
    readers.check(good / "manifest.csv", good)
    readers.extract(good / "features.npz", good)
    readers.store(good / "store", good)
    readers.bundle(good / "bundle", good)
    folder = place / "warm"
    if not folder.exists():
        folder.mkdir()
        shutil.copy(good / "clip.mp4", folder)
        (folder / "manifest.csv").write_text("id,video,label\na,clip.mp4,happy\n")
    readers.clip(folder, good)
    from ecmf_lib import report  # noqa: F401


def _tried(one, read: Callable, folder: Path, good: Path, cpu: int) -> dict:
    from hostile_readers import Refused

    given = one.make(folder, good)
    began = _cpu()
    memory, _ = _status("VmHWM", reset=True), _limit(cpu)
    try:
        outcome, message = "handled", str(read(given, good))
    except Refused as refused:
        message = str(refused)
        outcome = "refused" if is_clear(message, one.names or given.name) else "unclear"
    except BaseException:
        outcome, message = "crashed", traceback.format_exc()
    finally:
        _unlimited()
    seconds, grown = _cpu() - began, _status("VmHWM") - memory
    if outcome in GOOD and grown > MEMORY_MB:
        outcome = "memory"
    if outcome in GOOD and seconds > cpu:
        outcome = "hung"
    message = message.encode("utf-8", "backslashreplace").decode()
    message = message[-2500:] if outcome == "crashed" else message[:2500]
    return {"outcome": outcome, "seconds": round(seconds, 3), "peak_mb": round(grown, 1), "message": message}


def is_clear(message: str, name: str) -> bool:
    """Whether a refusal names the file and a reason, at a length that somebody reads, and is no traceback."""
    named = [one for one in name.split("|") if one in message]
    said = message.replace(named[0], "") if named else ""
    return bool(named) and bool(re.search(r"[a-z]{3}", said)) and "Traceback" not in said and len(said) < 20_000


def _emptied(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(folder)


def _cpu() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _status(key: str, reset: bool = False) -> float:
    """A line of /proc/self/status in MB; `reset`: begin to count the peak from here. 0 where there is no /proc."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        text = Path("/proc/self/status").read_text()
    except OSError:
        return 0.0
    return int(re.search(rf"^{key}:\s+(\d+) kB", text, re.M)[1]) / 1024


def _limit(cpu: int) -> None:
    own = resource.getrusage(resource.RUSAGE_SELF)
    most = int(own.ru_utime + own.ru_stime + 2 * cpu) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    if sys.platform == "linux":
        addresses = int(_status("VmSize") + ADDRESS_MB) * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (addresses, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _unlimited() -> None:
    for which in (resource.RLIMIT_CPU, resource.RLIMIT_AS):
        hard = resource.getrlimit(which)[1]
        resource.setrlimit(which, (hard, hard))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="some of every kind")
    parser.add_argument("--only", default="", help="inputs whose name holds this text")
    parser.add_argument("--verbose", action="store_true", help="what was said of each")
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        place, seed, readers, cpu = given.serve
        serve(Path(place), int(seed), readers, int(cpu))
        return 0
    from hostile import all_inputs, quick_inputs

    inputs = quick_inputs(given.seed) if given.quick else all_inputs(given.seed)
    table = run_inputs([one.name for one in inputs if given.only in one.name], given.seed, progress=True)
    if given.verbose:
        for row in table.itertuples():
            print(f"-- {row.name}: {row.outcome}, {row.seconds} s, {row.peak_mb} MB\n{row.message}")
    faults = table[~table["outcome"].isin(GOOD)]
    for row in faults.itertuples():
        print(f"== {row.name}: {row.outcome}\n{row.message}\n")
    print(counts(table).to_string())
    return int(len(faults) > 0)


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    sys.exit(main())
