"""Faults that are done to a piece of work, and what came of each: killed, full, read-only, clock, twice, hanging."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import works
from delicate import TROUBLE, TROUBLED
from fault_server import FaultServer
from works import BROKEN, CLEAN, REFUSED, WORKS, content, lost_and_duplicated, run_work

from ecmf_lib.demo import make_demo
from ecmf_lib.extract import read_ledger

LONGEST = 300.0  # s for one piece of work that takes seconds: over that it hangs
HERE = Path(__file__).resolve().parent
_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(["works"])
TROUBLES = ("hangs", "spins", "crashes", "is killed")  # of a decoder, see delicate.py
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass
class Count:
    """What came of the faults of one kind in one kind of work."""

    fault: str
    work: str
    injected: int = 0
    survived: int = 0
    lost: int = 0
    duplicated: int = 0
    problems: list[str] = field(default_factory=list)

    def note(self, problems: Sequence[str], lost: int = 0, duplicated: int = 0, faults: int = 1) -> None:
        """Count faults that were followed by a resumed run."""
        self.injected += faults
        self.survived += 0 if problems or lost or duplicated else faults
        self.lost, self.duplicated = self.lost + lost, self.duplicated + duplicated
        self.problems += problems


class Bench:
    """A kind of work, its result when nobody disturbs it, and how long that takes.

    Parameters
    ----------
    kind : str
        Of :data:`works.WORKS`.
    folder : Path
        For everything that is made here.
    quick : bool
        Fewer clips, and a rougher measure of the time.
    """

    def __init__(self, kind: str, folder: Path, server: FaultServer | None = None, quick: bool = False):
        self.kind, self.folder, self.server = kind, folder / kind, server
        self.material = folder / "demo"
        if kind == "extraction":
            make_demo(self.material, n_clips=works.CLIPS // 2 if quick else works.CLIPS, workers=1, progress=False)
        self.number = 0
        if not quick:
            self.run(self.place())  # so that nothing is slow for being the first
        quiet = self.place()
        began = time.monotonic()
        code, said = self.run(quiet)
        self.seconds = time.monotonic() - began
        if code != CLEAN:
            raise RuntimeError(f"{kind}: an undisturbed run ends with {code}: {said}")
        self.expected, self.rows = content(kind, quiet), WORKS[kind].rows(quiet)
        self.bytes = sum(path.stat().st_blocks * 512 for path in quiet.rglob("*"))

    def place(self) -> Path:
        """A new, empty folder."""
        self.number += 1
        place = self.folder / f"place{self.number:03d}"
        place.mkdir(parents=True)
        return place

    def start(self, place: Path, **given) -> multiprocessing.Process:
        """Begin the work at a place."""
        given = {"material": str(self.material), "url": self.server.url if self.server else ""} | given
        process = _FORKED.Process(target=run_work, args=(self.kind, place, given))
        process.start()
        return process

    def end(self, place: Path, process: multiprocessing.Process) -> tuple[int, str]:
        """Exit code (negative: a signal, and -9 for a hang) and message."""
        process.join(LONGEST)
        hangs = process.is_alive()
        if hangs:
            _kill(process, group=True)
        said = place.with_name(f"{place.name}.said")
        text = said.read_text("utf-8") if said.exists() else ""
        said.unlink(missing_ok=True)
        return process.exitcode, f"no end after {LONGEST:g} s" if hangs else text

    def run(self, place: Path, **given) -> tuple[int, str]:
        """The whole work."""
        return self.end(place, self.start(place, **given))

    def resume(self, place: Path, count: Count, problems: list[str], faults: int = 1, **given) -> None:
        """Go on without disturbance, and compare everything with the undisturbed run."""
        before = {} if "how" in given else WORKS[self.kind].units(place)  # retried clips are in shards made anew
        if self.server:
            self.server.times.clear()
        code, said = self.run(place, **given)
        if code != CLEAN:
            count.note([*problems, f"resumed run ends with {code}: {said}"], faults=faults)
            return
        lost, duplicated = lost_and_duplicated(self.kind, place, self.rows)
        after = WORKS[self.kind].units(place)
        lost += sum(after.get(unit) != identity for unit, identity in before.items())  # done, and done again
        if self.server:
            duplicated += sum(self.server.times.values()) - (works.ASKED - len(before))  # asked although answered
        found = content(self.kind, place)
        if found != self.expected:
            other = sorted(name for name in {*found, *self.expected} if found.get(name) != self.expected.get(name))
            problems = [*problems, f"not the same bytes: {', '.join(other[:5])}"]
        count.note(problems, lost, duplicated, faults)


@contextmanager
def bench(kind: str, folder: Path, quick: bool = False) -> Iterator[Bench]:
    """A bench, with a server beside it where the work asks one."""
    for name, value in _ONE_THREAD.items():
        os.environ.setdefault(name, value)  # before the process that all children are forked from
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parent), str(HERE.parents[1])])
    with FaultServer(delay=0.02) if kind == "enrichment" else nullcontext() as server:
        yield Bench(kind, folder, server, quick)


def _kill(process: multiprocessing.Process, group: bool) -> None:
    try:
        (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has ended, or has no group of its own yet
    process.kill()
    process.join()


def killed(on: Bench, times: int, rng: np.random.Generator, chain: int = 2) -> Count:
    """kill -9 at random moments of the work, then of its resumption; every other time workers and all."""
    count = Count("kill -9", on.kind)
    while count.injected < times:
        place, struck, tries = on.place(), 0, 0
        wanted = min(chain, times - count.injected)
        while struck < wanted and tries < 4 * chain:
            # later in a chain less is left to do
            moment = on.seconds * rng.uniform(0.03, 0.97) * 0.7**tries
            tries += 1
            process = on.start(place)
            process.join(moment)
            _kill(process, group=bool(struck % 2))
            struck += process.exitcode == -signal.SIGKILL
            if process.exitcode == CLEAN:
                break  # too late: it was done
        if struck:
            on.resume(place, count, [], faults=struck)
        shutil.rmtree(place)
    return count


@contextmanager
def mounted(place: Path, kilobytes: int) -> Iterator[None]:
    """A file system of this size at a place."""
    _mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place))
    try:
        yield
    finally:
        _umount(place)


def can_mount(folder: Path) -> bool:
    """Whether this process may mount file systems."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with mounted(folder, 64):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def _mount(*options: str) -> None:
    subprocess.run(["mount", *options], check=True, capture_output=True)


def _umount(place: Path) -> None:
    subprocess.run(["umount", "-l", str(place)], check=True, capture_output=True)


def full(on: Bench, rng: np.random.Generator, times: int = 1) -> Count:
    """The disk is full in the middle; then there is room again."""
    count, small = Count("disk full", on.kind), can_mount(on.folder / "try")
    for _ in range(times):
        place, share = on.place(), rng.uniform(0.2, 0.7)
        if small:
            with mounted(place, max(16, int(share * on.bytes / 1024))):
                problems = _refused(*on.run(place), "")
                _mount("-o", "remount,size=64m", str(place))
                on.resume(place, count, problems)
        elif on.kind in ("extraction", "self-training"):  # what brings files to the disk by os.fsync
            problems = _refused(*on.run(place, mishap="no space", after=int(1 + share * len(on.expected))), "space")
            on.resume(place, count, problems)
        else:
            problems = _refused(*on.run(place, mishap="small files", bytes=4096), "")
            on.resume(place, count, problems)
    return count


def read_only(on: Bench, rng: np.random.Generator) -> Count:
    """The place can be read but not written, half-way through the work."""
    count, root = Count("read-only output", on.kind), can_mount(on.folder / "try")
    if not root and os.geteuid() == 0:
        return count  # permissions do not bind root, and it may not mount
    place = on.place()
    process = on.start(place)
    process.join(on.seconds * rng.uniform(0.3, 0.7))
    _kill(process, group=True)
    before = content(on.kind, place)
    with _unwritable(place, root):
        problems = _refused(*on.run(place), "")
    if content(on.kind, place) != before:
        problems.append("a read-only place was changed")
    on.resume(place, count, problems)
    return count


@contextmanager
def _unwritable(place: Path, root: bool) -> Iterator[None]:
    if root:
        _mount("--bind", str(place), str(place))
        try:
            _mount("-o", "remount,ro,bind", str(place))
            yield
        finally:
            _umount(place)
        return
    folders = [place, *(path for path in place.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        yield
    finally:
        for folder in folders:
            folder.chmod(0o755)


def _refused(code: int, said: str, word: str) -> list[str]:
    """Problems with a refusal: it must be one, and readable."""
    if code != REFUSED or word not in said or "Traceback" in said or len(said) < 20:
        return [f"ends with {code}{' (broken)' if code == BROKEN else ''}: {said or 'nothing said'}"]
    return []


def clock(on: Bench) -> Count:
    """The clock goes back a year, and further back with every look; in a first run, and in a resumed one."""
    count = Count("clock going backwards", on.kind)
    place = on.place()
    on.resume(place, count, [], mishap="clock")
    place = on.place()
    process = on.start(place)
    process.join(on.seconds / 2)
    _kill(process, group=True)
    on.resume(place, count, [], mishap="clock")
    return count


def twice(on: Bench) -> Count:
    """Two runs on one place at once: a store refuses the second, caches are shared."""
    count, place = Count("two runs at once", on.kind), on.place()
    first = on.start(place)
    held = place / "store" / ".lock"
    while on.kind == "extraction" and first.is_alive() and not (held.is_file() and held.stat().st_size):
        first.join(0.01)
    second = on.start(place)
    other, said = on.end(place, second)
    code, first_said = on.end(place, first)
    problems = [] if code == CLEAN else [f"the first ends with {code}: {first_said}"]
    if on.kind == "extraction":
        problems += _refused(other, said, "is writing into this store")
    elif other != CLEAN:
        problems.append(f"the second ends with {other}: {said}")
    if content(on.kind, place) != on.expected:
        problems.append("not the same bytes before anything was resumed")
    on.resume(place, count, problems)
    return count


def decoders(on: Bench, troubles: Sequence[str] = TROUBLES, limit: float = 20) -> Count:
    """A decoder hangs or takes its process down at one clip: that clip is failed, the run goes on, and it is mended.

    `limit` is in seconds, far above what the other clips take on a machine that is busy with other things.
    """
    count = Count("decoder hangs or crashes", on.kind)
    others = [row for row in on.rows if TROUBLED not in row]
    for trouble in troubles:
        place = on.place()
        code, said = on.run(place, environment={TROUBLE: trouble}, how={"clip_limit": limit})
        if code != CLEAN:
            count.note([f"decoder {trouble}: ends with {code}: {said}"])
            continue
        ledger = read_ledger(place / "store", "demo").set_index("id")
        reason = "was given up" if trouble in ("hangs", "spins") else "worker process died"
        problems = [] if reason in ledger["reason"][TROUBLED] else [f"decoder {trouble}: {ledger['reason'][TROUBLED]}"]
        if (ledger["status"] == "failed").sum() != 1:
            problems.append(f"decoder {trouble}: costs {(ledger['status'] == 'failed').sum()} clips")
        lost, _ = lost_and_duplicated(on.kind, place, others)
        if lost:
            problems.append(f"decoder {trouble}: {lost} rows of other clips are otherwise")
        on.resume(place, count, problems, how={"retry_failed": True})
    return count
