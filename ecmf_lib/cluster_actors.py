"""What runs on the nodes of a Ray cluster; each class is held by one actor, a process that lives as long as the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from pathlib import Path

from ecmf_lib.chunk_work import ChunkDecoder, ChunkDone, ChunkWork, run_models, write_shards
from ecmf_lib.clip_task import ClipTask
from ecmf_lib.shards import FileDigests
from ecmf_lib.storage import Storage

#: Times that a chunk is begun before it counts as lost. Ray itself begins it again without end, and one clip that eats
#: all memory would hold up everything.
TRIES = 4


class Tally:
    """Counts how often a piece of work was begun and not ended. One for a run, beside the driver."""

    def __init__(self):
        self._begun: Counter = Counter()

    def begin(self, work: Hashable) -> int:
        """Which try this is."""
        self._begun[work] += 1
        return self._begun[work]

    def end(self, work: Hashable) -> None:
        """It came through, in whatever way. A later try has another cause: a node that took the answer with it."""
        del self._begun[work]

    @classmethod
    def started(cls, ray):
        """Its actor, which takes no core, on the driver's own node."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        return ray.remote(num_cpus=0, scheduling_strategy=here)(cls).remote()


class _Stage:
    """What all stages do: count the tries, and make an answer of everything."""

    def __init__(self, task: ClipTask, tally):
        self._task, self._tally = task, tally

    def _tried(self, work: ChunkWork, step):
        """The step's answer, an exception, or None if this chunk's processes keep dying."""
        import ray

        this = (type(self).__name__, work.number)
        if ray.get(self._tally.begin.remote(this)) > TRIES:
            return None
        try:
            answer = step()
        except Exception as trouble:
            answer = trouble
        ray.get(self._tally.end.remote(this))
        return answer


class Decode(_Stage):
    """First stage where there are models."""

    def __init__(self, task: ClipTask, tally):
        super().__init__(task, tally)
        self._decode = ChunkDecoder(task)

    def __call__(self, batch: dict) -> dict:
        (work,) = batch["work"]
        return {"work": [(work, self._tried(work, lambda: self._decode(work)))]}


class Model(_Stage):
    """Second stage. Models are loaded with the first chunk, so that what is wrong with one is an answer."""

    def __init__(self, task: ClipTask, tally, storage: Storage, device: str):
        super().__init__(task, tally)
        self._storage, self._device = storage, device

    def __call__(self, batch: dict) -> dict:
        ((work, results),) = batch["work"]
        if isinstance(results, dict):
            results = self._tried(work, lambda: self._finish(work, results))
        return _done(work, results)

    def _finish(self, work: ChunkWork, results: dict) -> ChunkDone:
        run_models(self._task, results, self._device)
        return write_shards(work, results, self._storage)


class DecodeAndWrite(_Stage):
    """Both stages in one where no model is run."""

    def __init__(self, task: ClipTask, tally, storage: Storage):
        super().__init__(task, tally)
        self._decode, self._storage = ChunkDecoder(task), storage

    def __call__(self, batch: dict) -> dict:
        (work,) = batch["work"]
        return _done(work, self._tried(work, lambda: write_shards(work, self._decode(work), self._storage)))


def _done(work: ChunkWork, answer: ChunkDone | Exception | None) -> dict:
    """A batch of one row."""
    if answer is None:
        answer = ChunkDone(work.number, lost=True)
    elif isinstance(answer, Exception):
        answer = ChunkDone(work.number, trouble=answer)
    return {"done": [answer]}


def hashed(batch: dict) -> dict:
    """Digests of files, as lines that :meth:`ecmf_lib.shards.FileDigests.add` takes."""
    digests = FileDigests(Path("nowhere"))
    for file in batch["files"][0]:
        digests.of(Path(file))
    return {"lines": [digests.new]}
