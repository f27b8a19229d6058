"""Speed of extraction, next to what bounds it on the same machine with the same clips.

Run with ``python benchmarks/extraction.py [--corpus demo] [--clips 96] [--workers 1 2]``.

The bounds are measured in the same kind of worker processes, without a store and without their start: decoding
alone, decoding and following the face, and all stages with every encoder. The extraction is timed as a user sees it,
from an empty store to the ledger, with the start of the processes and the writing.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from dataclasses import dataclass

import pandas as pd

from ecmf_lib.adapters import open_corpus
from ecmf_lib.clip_task import FACTS, ClipTask, Job
from ecmf_lib.corpus import Corpus
from ecmf_lib.encoders import profile
from ecmf_lib.extract import extract
from ecmf_lib.faces import get_detector, track_faces
from ecmf_lib.media import read_media
from ecmf_lib.shards import Pair
from ecmf_lib.workers import run_jobs, usable_cores

N_FRAMES = 12


@dataclass(frozen=True)
class Decode:
    """The first stages only."""

    detector: object | None = None

    def __call__(self, job: Job) -> None:
        media = read_media(job.clip.video, job.clip.audio, n_frames=N_FRAMES)
        if self.detector:
            track_faces(media.frames, self.detector)


def rate(jobs: list[Job], task, workers: int) -> float:
    """Clips per second once all processes have answered twice: started, and everything loaded."""
    times = [time.perf_counter() for _ in run_jobs(jobs, task, workers=workers)]
    warm = 2 * workers
    return (len(times) - warm) / (times[-1] - times[warm - 1])


def extraction(corpus: Corpus, task: ClipTask, workers: int) -> tuple[float, float]:
    """Seconds of an extraction into an empty store, and of a second one that has nothing to do."""
    seconds = []
    with tempfile.TemporaryDirectory() as store:
        for _ in range(2):
            start = time.perf_counter()
            extract(corpus, store, task.encoders, task.detector, n_frames=N_FRAMES, workers=workers, progress=False)
            seconds.append(time.perf_counter() - start)
    return seconds[0], seconds[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", default="demo", help="as for 'ecmf report'")
    parser.add_argument("--clips", type=int, default=96, help="first clips of the corpus only; 0 = all")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--detector", default="lbp")
    parser.add_argument("--weights", default=None, help="folder with the detector's weights")
    given = parser.parse_args()

    corpus = open_corpus(given.corpus)
    corpus = corpus.select(corpus.clips["id"].iloc[: given.clips or None])
    task = ClipTask(profile("light"), get_detector(given.detector, given.weights), N_FRAMES, str(corpus.root))
    jobs = [Job(clip, {part: Pair(clip.id, "") for part in [*task.encoders, FACTS]}, 0) for clip in corpus]
    rows = []
    for workers in given.workers:
        first, again = extraction(corpus, task, workers)
        row = {
            "workers": workers,
            "decode": rate(jobs, Decode(), workers),
            "decode, faces": rate(jobs, Decode(task.detector), workers),
            "all stages": rate(jobs, task, workers),
            "extract": len(corpus) / first,
        }
        rows.append(row | {"extract / all stages": row["extract"] / row["all stages"], "run again (s)": again})
    memory = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    cores = usable_cores()
    print(f"{len(corpus)} clips of '{corpus.name}', detector {task.detector.name}, {cores} cores; clips per second:")
    print(pd.DataFrame(rows).to_string(index=False, float_format="%.2f"))
    print(f"largest process {memory:.0f} MiB; load of the machine {os.getloadavg()[0]:.1f}, so compare within a row")


if __name__ == "__main__":
    main()
