"""The ablation grid at challenge size: hundreds of fits, on all cores, and on a GPU as stacks of models.

Run with ``python benchmarks/grid.py [--fits 8] [--device cuda]``. The grid is fusions × subsets of streams × folds ×
seeds, 400 fits; a few of them are timed, for a few epochs, since all are alike:

- *processes*: one at a time in one process, against one process a core with one thread each, the features mapped from
  one file. The bound is the number of cores.
- *stacked*: the same models trained together as one (:mod:`ecmf_lib.together`), against one at a time, both on the
  device. On a CPU this is here to show which is the better way there.
"""

from __future__ import annotations

import argparse
import itertools
import time

import torch
from challenge_data import challenge
from joblib import Parallel, delayed
from rows import Row, record

from ecmf_lib.members import reproducible, train_stack
from ecmf_lib.together import Job, train_together
from ecmf_lib.train import FusionData, ModelSpec, cross_validate_all, fold_seed, outer_folds
from ecmf_lib.training_part import TrainingPart
from ecmf_lib.workers import usable_cores

FUSIONS = ("ecmf", "concat", "baseline-attention", "gmu")
SUBSETS = (None, ("audio", "text"), ("audio", "face"), ("text", "face"), ("audio",))
SEEDS, FOLDS, WIDTH = 4, 5, 128


def grid() -> list[ModelSpec]:
    """Twenty models; with five folds and four seeds, 400 fits."""
    return [
        ModelSpec(f"{kind}, {'all' if streams is None else '+'.join(streams)}", kind, streams, {"width": WIDTH})
        for kind, streams in itertools.product(FUSIONS, SUBSETS)
    ]


def in_processes(data: FusionData, fits: int, epochs: int, workers: int) -> tuple[float, float]:
    """Seconds one at a time, and with a process a core; the same fits, as a user's grid runs them."""
    models = [(data, spec) for spec in grid()[:: max(1, 20 * FOLDS // fits)]][: max(1, fits // FOLDS)]
    seconds = []
    for count in (1, workers):
        Parallel(n_jobs=count)(delayed(fold_seed)(0, i) for i in range(count))  # processes that are there already
        start = time.perf_counter()
        cross_validate_all(models, n_folds=FOLDS, epochs=epochs, workers=count)
        seconds.append(time.perf_counter() - start)
    return seconds[0], seconds[1]


def stacked(data: FusionData, models: int, epochs: int, device: str) -> tuple[float, float]:
    """Models a second one at a time and together: training alone, on prepared features."""
    fold = outer_folds(data, data.speakers, FOLDS, 0)
    spec = grid()[0]
    jobs, ready = [], None
    for number in range(min(models, FOLDS)):
        part = TrainingPart(data.select(fold != number), spec, fold_seed(0, number), epochs, None)
        with reproducible(part.seed):
            ready = part.ready(dict(spec.options))
        jobs.append(Job(ready.x, part.data, ready.fold, part.seed, ready.opinions))
    jobs = [jobs[i % len(jobs)] for i in range(models)]
    jobs = [Job(job.x, job.data, job.fold, job.seed + i, job.opinions) for i, job in enumerate(jobs)]

    def together(some):
        start = time.perf_counter()
        train_together(some, spec.kind, ready.rest, ready.recipe, epochs, device=device)
        return time.perf_counter() - start

    def alone(job):
        start = time.perf_counter()
        with reproducible(job.seed):
            train_stack(job.x, job.data, spec.kind, ready.rest, ready.recipe, job.fold, epochs, job.opinions)
        return time.perf_counter() - start

    one = alone if device == "cpu" else lambda job: together([job])
    together(jobs[:1])  # loads what is loaded once
    few = jobs[: min(models, 5)]
    return len(few) / sum(one(job) for job in few), len(jobs) / together(jobs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fits", type=int, default=10, help="of the grid that are timed, a multiple of 5")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--models", type=int, default=0, help="trained together; 0: 5 on a CPU, 100 on a GPU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args()
    data, cores = challenge().labelled, usable_cores()
    if given.device == "cpu":
        one, all_ = in_processes(data, given.fits, given.epochs, cores)
        what = f"ablation grid: {given.fits} of 400 fits of 7,369 clips, {given.epochs} epochs"
        note = f"share of {cores} cores: {one / all_ / cores:.2f}"
        rows = [Row(what, all_, one, "s", "one process", one / all_, "times faster", 0.9 * cores, note=note)]
    else:
        rows = []
    models = given.models or (5 if given.device == "cpu" else 100)
    alone, together = stacked(data, models, given.epochs, given.device)
    on_gpu = given.device != "cpu"
    rows.append(
        Row(f"{models} models trained together, {given.device}", together, alone, "models/s", "one at a time",
            together / alone, "times the models/s", 50 if on_gpu else None,
            note="" if on_gpu else "a CPU keeps to processes; stacks are for GPUs")
    )  # fmt: skip
    record(rows)


if __name__ == "__main__":
    main()
