"""Worker processes: every job is answered, whatever the jobs do to their process."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ecmf_lib.workers import Died, TimedOut, WorkerError, run_jobs


class Square:
    """Job → its square; some jobs kill, and some only kill when they are not alone."""

    def __init__(self, folder: Path | None = None):
        self.folder = folder

    def __call__(self, job):
        if job == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if job == "exit":
            os._exit(7)
        if job == "once":
            try:
                (self.folder / "once").touch(exist_ok=False)
            except FileExistsError:
                return "survived"
            os.kill(os.getpid(), signal.SIGKILL)
        if job == "hang":
            time.sleep(3600)
        if job == "nap":
            time.sleep(0.01)
            return "rested"
        if job == "deaf":  # as code in C that neither ends nor listens
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                pass
        if job == "threads":
            return os.environ["OMP_NUM_THREADS"]
        return job * job


class CannotLoad:
    """Sent to a worker, it fails there."""

    def __reduce__(self):
        return os.fspath, (3.5,)


def test_every_job_is_answered_and_the_culprits_named(tmp_path):
    before = set(multiprocessing.active_children())  # joblib keeps some for a while after other tests
    jobs = [1, 2, "kill", 3, "exit", 4, "once", 5]
    results = dict(run_jobs(jobs, Square(tmp_path), workers=2))
    assert list(sorted(map(str, results))) == sorted(map(str, jobs))
    assert results["kill"] == Died(-signal.SIGKILL) and "signal 9" in str(results["kill"])
    assert results["exit"] == Died(7) and str(results["exit"]) == "exit code 7"
    assert results["once"] == "survived"
    assert [results[n] for n in (1, 2, 3, 4, 5)] == [1, 4, 9, 16, 25]
    assert set(multiprocessing.active_children()) <= before, "no worker is left behind"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_job_that_hangs_is_given_up_and_the_others_are_answered(workers):
    """Also the first of a process, and while a neighbour answers again and again."""
    before = set(multiprocessing.active_children())
    jobs = ["hang", *range(30), "deaf", "kill", 50]
    results = dict(run_jobs(jobs, Square(), workers=workers, limit=1.0))
    assert results["hang"] == results["deaf"] == TimedOut(1.0) and str(results["hang"]) == "no answer within 1 s"
    assert results["kill"] == Died(-signal.SIGKILL)
    assert [results[n] for n in (*range(30), 50)] == [n * n for n in (*range(30), 50)] and len(results) == len(jobs)
    assert set(multiprocessing.active_children()) <= before, "no worker is left behind"


def test_neighbours_that_answer_all_the_time_do_not_hide_a_job_that_hangs():
    results = list(run_jobs(["hang", *["nap"] * 300], Square(), workers=2, limit=0.5))
    answers = [result for _, result in results]
    assert answers.index(TimedOut(0.5)) < 200 and answers.count("rested") == 300


def test_only_time_spent_waiting_counts(monkeypatch):
    """A run that was stopped and goes on finds its workers as far as it left them."""
    seconds, real = [0.0], time.monotonic

    def jumps():
        seconds[0] += 1e6  # every look at the clock is days later than the one before
        return real() + seconds[0]

    monkeypatch.setattr("ecmf_lib.workers.time.monotonic", jumps)
    assert dict(run_jobs([1, 2, 3], Square(), workers=1, limit=600.0)) == {1: 1, 2: 4, 3: 9}


def test_jobs_are_taken_as_workers_get_free():
    taken = 0

    def jobs():
        nonlocal taken
        while taken < 20:
            taken += 1
            yield taken

    for answered, _ in enumerate(run_jobs(jobs(), Square(), workers=2), 1):
        assert taken <= answered + 2  # the generator runs ahead by the number of workers, not more


def test_no_jobs_start_no_process(monkeypatch):
    monkeypatch.setattr("ecmf_lib.workers._Worker", None)
    assert list(run_jobs([], Square(), workers=2)) == []


def test_workers_have_one_thread_and_the_main_process_keeps_its_own(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert list(run_jobs(["threads"], Square(), workers=1)) == [("threads", "1")]
    assert os.environ["OMP_NUM_THREADS"] == "5"


def test_a_task_that_cannot_be_loaded_is_an_error_not_a_bad_job():
    with pytest.raises(WorkerError, match="could not start"):
        list(run_jobs([1], CannotLoad(), workers=1))


def test_workers_leave_when_the_main_process_is_killed():
    main = os.fork()
    if main == 0:
        answers = run_jobs([1, 2, 3], Square(), workers=1)
        next(answers)
        time.sleep(60)
        os._exit(0)
    children = Path(f"/proc/{main}/task/{main}/children")
    deadline = time.monotonic() + 20
    found: list[str] = []
    while not found and time.monotonic() < deadline:
        time.sleep(0.05)
        found = [pid for pid in children.read_text().split() if _is_worker(pid)]
    assert found
    os.kill(main, signal.SIGKILL)
    os.waitpid(main, 0)
    while any(map(_is_worker, found)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_is_worker, found))


def _is_worker(pid: str) -> bool:
    """Whether a worker process of this id is alive (one that ended but is not yet reaped has no command line)."""
    try:
        return "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


def test_a_script_without_main_guard_is_told_so(tmp_path):
    """Each worker imports the script again; without the guard it would end there, and that is no clip's fault."""
    script = tmp_path / "script.py"
    script.write_text("from ecmf_lib.workers import run_jobs\nprint(list(run_jobs(['a'], len, workers=1)))\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.returncode != 0
    assert "must stand under `if __name__ == '__main__':`" in done.stderr
