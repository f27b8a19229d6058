"""The work on one chunk of a manifest, wherever it is done: decode its clips, run the models, write its shards.

Nothing here knows of a cluster. A chunk travels as a :class:`ChunkWork`, which holds all that a machine needs beside
the clips' files; what comes back are the rows of the shards that were written (:class:`ChunkDone`). Clips, batches and
bytes of the shards are the same as those of :func:`ecmf_lib.extract.extract` on one machine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ecmf_lib.clip_task import ClipTask, Job, Result, died, to_models
from ecmf_lib.model_stage import run_clips
from ecmf_lib.shards import Pair, Row, join_rows, pack_shard, shard_name, unpack_shard
from ecmf_lib.storage import Storage
from ecmf_lib.workers import Lost, run_jobs


@dataclass(frozen=True)
class ShardPlan:
    """A shard that is to be written.

    Attributes
    ----------
    folder : str
        Of its set, relative to the store.
    pairs : list of Pair
        Its rows in their order.
    dim : int or None
        Numbers in one step; None for rows that only carry facts.
    stored : dict
        Pair → (shard file, row) where it is stored now; these rows are copied.
    """

    folder: str
    pairs: list[Pair]
    dim: int | None
    stored: dict[Pair, tuple[str, Row]]


@dataclass(frozen=True)
class ChunkWork:
    """What a machine is given.

    Attributes
    ----------
    number : int
        Of the chunk.
    jobs : list of Job
        Clips of which something has to be computed.
    shards : dict
        Part (stream, or facts) → its shard.
    given_up : dict
        Clip id → why it is not tried any more; see :mod:`ecmf_lib.cluster`.
    """

    number: int
    jobs: list[Job]
    shards: dict[str, ShardPlan]
    given_up: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ChunkDone:
    """What a machine answers: the rows of the shards that now exist, or what went wrong for all clips alike.

    `lost` says that nothing was done, as the machine's process died on this chunk again and again.
    """

    number: int
    rows: dict[str, list[Row]] = field(default_factory=dict)
    trouble: Exception | None = None
    lost: bool = False


class ChunkDecoder:
    """Decodes chunk after chunk in one process of its own, which a clip may take down; see :mod:`ecmf_lib.workers`.

    Parameters
    ----------
    task : ClipTask
    nice : int
        By how much that process stands back behind others.
    """

    def __init__(self, task: ClipTask, nice: int = 0):
        self._task, self._nice = task, nice
        self._jobs: deque[Job] = deque()
        self._answers: Iterator[tuple[Job, dict[str, Result] | Lost]] | None = None

    def __call__(self, work: ChunkWork) -> dict[str, dict[Pair, Result]]:
        """Part → pair → result, in the order of the jobs; a model's inputs where a model is still to run."""
        found: dict[str, dict[Pair, Result]] = {}
        for job in work.jobs:
            if job.clip.id in work.given_up:
                results = died(job, work.given_up[job.clip.id])
            else:
                results = self._one(job)
            for part, result in results.items():
                found.setdefault(part, {})[job.pairs[part]] = result
        return found

    def _one(self, job: Job) -> dict[str, Result]:
        if self._answers is None:
            # with one worker a job is read only when the one before is answered, so the queue is never found empty
            jobs, how = iter(self._jobs.popleft, None), {"nice": self._nice, "limit": self._task.limit}
            self._answers = run_jobs(jobs, self._task, workers=1, **how)
        self._jobs.append(job)
        try:
            _, results = next(self._answers)
        except BaseException:
            self.close()
            raise
        return died(job, results) if isinstance(results, Lost) else results

    def close(self) -> None:
        """End the process."""
        if self._answers is not None:
            self._answers.close()
        self._answers = None
        self._jobs.clear()


def run_models(task: ClipTask, results: dict[str, dict[Pair, Result]], device: str) -> None:
    """Run the models on what was prepared, batches formed across the chunk's clips; the results take its place.

    The results are in manifest order, as :class:`ChunkDecoder` gives them: batches depend on it.

    Raises
    ------
    ModelError, WeightsError
        What is wrong for all clips alike.
    """
    for part, clips in to_models({part: list(new) for part, new in results.items()}, results).items():
        encoder = task.encoders[part]
        encoder.ready(device)
        answers = run_clips(encoder, [prepared for _, prepared in clips])
        for (pair, _), answer in zip(clips, answers, strict=True):
            results[part][pair] = task.conclude(pair, encoder, answer)


def write_shards(work: ChunkWork, results: dict[str, dict[Pair, Result]], storage: Storage) -> ChunkDone:
    """Write the chunk's shards; those that are there already, from an attempt whose answer was lost, stay."""
    rows = {}
    for part, plan in work.shards.items():
        copied = _copies(plan, storage)
        rows[part], steps = join_rows(plan.pairs, results.get(part, {}) | copied, plan.dim)
        storage.write(f"{plan.folder}/shards/{shard_name(plan.pairs)}", pack_shard(rows[part], steps))
    return ChunkDone(work.number, rows)


def _copies(plan: ShardPlan, storage: Storage) -> dict[Pair, tuple[Row, np.ndarray | None]]:
    found, shards = {}, {}
    for pair, (shard, row) in plan.stored.items():
        if row.length and shard not in shards:
            shards[shard] = unpack_shard(storage.read(f"{plan.folder}/shards/{shard}"), f"{plan.folder}/shards/{shard}")
        found[pair] = row, shards[shard][row.offset : row.offset + row.length] if row.length else None
    return found
