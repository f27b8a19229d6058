"""Run jobs in worker processes, where a job may take its whole process down or never end.

``concurrent.futures`` gives up the pool when one process dies and does not say which job it was working on. Here
every worker has a pipe of its own, so the job is known. It gets a second chance alone, because a process can also be
killed for the memory that its neighbours use. A job that hangs gets none: waiting for it again would cost as much.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

# spawn: a forked copy of a process with threads (BLAS, torch, Jupyter) can hang
_SPAWN = multiprocessing.get_context("spawn")
# read once by each library when it is first imported, so they have to be set before the process starts
_ONE_THREAD = {
    name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
}


_NO_START = (
    "worker processes end before they begin ({}); in a script, the call must stand under "
    "`if __name__ == '__main__':`, because each worker imports the script again"
)


class WorkerError(RuntimeError):
    """Worker processes cannot be started at all, whatever the job."""


@dataclass(frozen=True)
class Died:
    """In place of a result: the process died on this job twice, the second time alone."""

    exitcode: int  # negative: the signal that ended it

    def __str__(self) -> str:
        if self.exitcode >= 0:
            return f"exit code {self.exitcode}"
        return f"signal {-self.exitcode}, {signal.strsignal(-self.exitcode)}"


@dataclass(frozen=True)
class TimedOut:
    """In place of a result: the job gave no answer in time, and its process was ended."""

    seconds: float

    def __str__(self) -> str:
        return f"no answer within {self.seconds:g} s"


#: A job without a result.
Lost = Died | TimedOut

#: Seconds for one clip unless told otherwise: hundreds of times what one takes, so that a busy machine fails none.
LIMIT = 600.0
_LONGEST_WAIT = 5.0  # s between two looks at the time


def usable_cores() -> int:
    """Cores that this process may use (macOS only says how many there are)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(
    jobs: Iterable[Job], task: Callable[[Job], Result], *, workers: int, nice: int = 0, limit: float | None = None
) -> Iterator[tuple[Job, Result | Died | TimedOut]]:
    """Apply a task to jobs in parallel; results come as they are ready.

    At most `workers` jobs are taken from `jobs` before one of them is answered, so memory stays bounded. Processes
    are started only when there are jobs for them, each limited to one thread.

    Parameters
    ----------
    jobs : iterable
        Picklable jobs; read lazily.
    task : callable
        Picklable; answers every job and raises nothing.
    workers : int
        Most processes at a time.
    nice : int
        By how much the processes stand back behind others on the machine, 0 to 19 (where there is such a thing).
    limit : float or None
        Seconds for one job; None = no limit. Time of the clock and not of the processor, because a decoder that waits
        for a file server uses none; only time that is spent here waiting for answers counts, so that a caller who
        takes long with a result, or a run that was stopped and goes on (Ctrl-Z, a laptop asleep), costs no job.

    Yields
    ------
    (job, result)
        `result` is a :class:`Died` where the job ended its process, a :class:`TimedOut` where it took too long.

    Raises
    ------
    WorkerError
        If a worker cannot even receive the task: that says nothing about a job.
    """
    jobs = iter(jobs)
    idle: list[_Worker] = []
    busy: dict[connection.Connection, _Worker] = {}
    suspects: deque[Job] = deque()  # a process died on them once

    def start(job: Job, alone: bool) -> None:
        worker = idle.pop() if idle else _Worker(task, nice)
        busy[worker.pipe] = worker
        worker.give(job, alone)

    try:
        while True:
            while not suspects and len(busy) < workers:
                try:
                    start(next(jobs), alone=False)
                except StopIteration:
                    break
            if suspects and not busy:
                start(suspects.popleft(), alone=True)
            if not busy:
                return
            for pipe, answered in _ready(busy, limit).items():
                worker = busy[pipe]
                result = worker.answer() if answered else TimedOut(limit)
                if result is _STARTED:
                    continue
                del busy[pipe]
                if isinstance(result, TimedOut):
                    worker.kill()
                    yield worker.job, result
                    continue
                if not isinstance(result, Died):
                    idle.append(worker)
                elif not worker.alone:
                    suspects.append(worker.job)
                    continue
                elif not worker.started:
                    raise WorkerError(_NO_START.format(result))
                yield worker.job, result
    finally:
        for worker in [*idle, *busy.values()]:
            worker.stop()


def _ready(busy: dict[connection.Connection, _Worker], limit: float | None) -> dict[connection.Connection, bool]:
    """Pipes of workers that have something to say (True), or whose time is up (False)."""
    if not limit:
        return dict.fromkeys(connection.wait(list(busy)), True)
    longest = min(_LONGEST_WAIT, limit / 20)
    found: dict[connection.Connection, bool] = {}
    while not found:
        began = time.monotonic()
        found = dict.fromkeys(connection.wait(list(busy), longest), True)
        passed = min(time.monotonic() - began, longest)  # if this process was stopped meanwhile, so were the workers
        for pipe, worker in busy.items():
            worker.waited += passed if worker.started else 0.0
            if worker.waited >= limit:
                found.setdefault(pipe, False)
    return found


_STARTED = object()  # in place of an answer: a worker is ready for its first job


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, task: Callable, nice: int):
        self.pipe, theirs = _SPAWN.Pipe()
        self.process = _SPAWN.Process(target=_serve, args=(theirs, nice), daemon=True)
        with _environment(_ONE_THREAD):
            self.process.start()
        theirs.close()  # so that the pipe ends when the process does
        self.started = False
        self._send(task)

    def give(self, job: object, alone: bool) -> None:
        self.job, self.alone, self.waited = job, alone, 0.0
        self._send(job)

    def answer(self) -> object:
        """The result of the job, that it was begun, or how the process died. Called when the pipe can be read."""
        try:
            if not self.started:
                trouble = self.pipe.recv()
                if trouble:
                    raise WorkerError(f"a worker process could not start:\n{trouble}")
                self.started = True
                return _STARTED
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            self.pipe.close()
            return Died(self.process.exitcode)

    def stop(self) -> None:
        self.pipe.close()
        self.process.terminate()
        self.process.join(_LONGEST_WAIT)
        if self.process.is_alive():
            self.kill()

    def kill(self) -> None:
        """End a process that hangs; one that not even this ends at once (it waits for a disk) is left behind."""
        self.pipe.close()
        self.process.kill()
        self.process.join(_LONGEST_WAIT)

    def _send(self, message: object) -> None:
        try:
            self.pipe.send(message)
        except OSError:
            pass  # the process is gone already; answer() finds that out


def _serve(pipe: connection.Connection, nice: int) -> None:
    """Life of a worker process."""
    if nice and hasattr(os, "nice"):
        os.nice(nice)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which then stops this one
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    try:
        task = pipe.recv()
    except EOFError:
        return
    except Exception:
        pipe.send(traceback.format_exc())
        return
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    pipe.send("")
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        result = task(job)
        try:
            pipe.send(result)
        except BrokenPipeError:  # the main process was killed a moment ago
            return


def _leave_with_parent() -> None:
    """A main process that was killed cannot stop its workers; they end by themselves, also in the middle of a job."""
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
