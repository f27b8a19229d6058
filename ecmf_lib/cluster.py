"""Extraction on Ray Data: the same clips, chunks, batches and shards as on one machine, on as many as there are.

The process that calls :func:`extract_on_ray` (the *driver*) keeps the account, as in a local run: it knows what is
stored, sends what is not, and alone writes the index and the ledger. A chunk of the manifest goes through two stages:

    decode and prepare        ->        models and writing
    actors with a CPU core each         actors with a GPU each, if the cluster has any

An actor holds the encoders for as long as the run lasts. Shards are written by the actor that computes them; only
their rows come back. Ray Data holds a stage back when the next one is slower, so what is under way stays bounded.

A process, actor or node that dies takes its chunks with it: Ray starts them again elsewhere. A chunk whose actors keep
dying is put back and sent again, then its clips are tried one by one, and one that takes its actor down even alone is
noted in the ledger. A decoder that crashes takes down only the process beside its actor, as locally, with the same
words in the ledger. Since a shard's name and bytes follow from its clips, writing it twice does no harm.

What the actors do is in :mod:`ecmf_lib.cluster_actors`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from ecmf_lib.chunk_work import ChunkDone, ChunkWork, ShardPlan
from ecmf_lib.clip_task import ClipTask
from ecmf_lib.cluster_actors import TRIES, Decode, DecodeAndWrite, Model, Tally, hashed
from ecmf_lib.cluster_joblib import joblib_on_ray
from ecmf_lib.cluster_session import ClusterError, data_settings, ray_session
from ecmf_lib.corpus import Corpus
from ecmf_lib.encoders.base import EncoderError
from ecmf_lib.encoders.model import ModelEncoder
from ecmf_lib.extract import Run
from ecmf_lib.model_stage import RemoteModels
from ecmf_lib.shards import FAILED, FileDigests
from ecmf_lib.shared_store import SharedStore
from ecmf_lib.storage import FolderStorage, Storage
from ecmf_lib.store import FeatureStore

__all__ = ["ClusterError", "ClusterRun", "Pools", "extract_on_ray", "joblib_on_ray"]

log = logging.getLogger(__name__)

#: Times that what was lost is sent again although nothing of it comes back.
IN_VAIN = 5
#: Chunks sent off together: bounds what the driver holds. With 32 clips a chunk, all of MER2025's 132,171.
WAVE = 4200
#: Files whose content is hashed in one task; fewer than this are hashed by the driver.
HASHED_AT_ONCE = 64


def extract_on_ray(
    corpus: Corpus,
    store: FeatureStore,
    task: ClipTask,
    *,
    shard_size: int,
    retry_failed: bool = False,
    device: str = "auto",
    share: str = "",
    progress: bool = True,
) -> pd.DataFrame:
    """Features of every clip of a corpus; called by :func:`ecmf_lib.extract.extract` with ``engine="ray"``.

    Parameters
    ----------
    corpus : Corpus
        Its files must lie at the same paths on all nodes.
    store : FeatureStore
        In a folder that all nodes share, unless `share` is given.
    share : str
        URL (of fsspec) of a store's copy that all nodes reach; `store` is then brought up to date from it and back.
    device : {"auto", "cpu", "cuda"}
        "auto" takes GPUs if the cluster has any.

    Returns
    -------
    DataFrame
        The ledger.

    Raises
    ------
    ClusterError
        If Ray is not installed or cannot be reached, or if the cluster loses the same work again and again.
    """
    with ray_session() as ray, store.locked():
        pools = Pools.of(ray, task, device)
        shared = SharedStore(store, share)
        shared.bring()
        _hash_files(ray, corpus, store)
        models = RemoteModels(task.encoders, pools.device if pools.models else "")
        run = ClusterRun(corpus, store, task, models, shard_size, retry_failed)
        with tqdm(total=len(corpus), desc=corpus.name, unit="clip", disable=not progress) as run.bar:
            for works in _groups(run.works(), WAVE):
                _work_off(ray, run, works, pools, shared.storage)
        shared.fetch()
        ledger = run.finish()
        shared.commit()
        return ledger


class ClusterRun(Run):
    """The account of an extraction whose chunks are worked on elsewhere."""

    def works(self) -> Iterator[ChunkWork]:
        """Chunks in which there is something to compute, in manifest order."""
        for number, group in groupby(self.jobs(), key=lambda job: job.chunk):
            jobs, shards = list(group), {}
            for part, pairs in self.open[number].pairs.items():
                writer = self.writers[part]
                if not writer.has_chunk(pairs):
                    new = {job.pairs[part] for job in jobs if part in job.pairs}
                    stored = {pair: writer.place(pair) for pair in pairs if pair not in new}
                    folder = writer.folder.relative_to(self.store.root).as_posix()
                    shards[part] = ShardPlan(folder, pairs, writer.dim, stored)
            yield ChunkWork(number, jobs, shards)

    def take(self, done: ChunkDone, work: ChunkWork) -> None:
        """Count a chunk whose shards are written."""
        chunk = self.open.pop(done.number)
        for part, rows in done.rows.items():
            self.writers[part].adopt(chunk.pairs[part], rows)
        clips = {job.clip.id for job in work.jobs}
        failed = {row.pair.id for rows in done.rows.values() for row in rows if row.state == FAILED}
        self._advance(len(clips), len(failed & clips))
        log.info("%s: %d of %d clips, %d failed", self.corpus.name, self.bar.n, self.bar.total, self.failed)


@dataclass(frozen=True)
class Pools:
    """What each actor of the two stages asks the cluster for.

    Attributes
    ----------
    models : bool
        Whether there are any models: without, the first stage writes.
    device : str
        "cuda" or "cpu".
    cpus, gpus : float
        Of an actor of the second stage; one of the first has one core.
    """

    models: bool
    device: str
    cpus: float
    gpus: float

    @classmethod
    def of(cls, ray, task: ClipTask, device: str) -> Pools:
        """What suits the encoders and the cluster.

        Raises
        ------
        EncoderError
            For a device that Ray cannot give.
        """
        models = any(isinstance(encoder, ModelEncoder) for encoder in task.encoders.values())
        gpus = ray.cluster_resources().get("GPU", 0)
        if device not in ("auto", "cpu", "cuda"):
            raise EncoderError(f"device = '{device}': Ray chooses the GPU by itself; give auto, cpu or cuda")
        if device == "cuda" and not gpus:
            raise EncoderError("device = 'cuda': no node of the Ray cluster has a GPU; give auto or cpu")
        if gpus and device != "cpu":
            return cls(models, "cuda", 0, 1)  # no core: decoders may have them all when an actor is started again
        cores = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
        # without a GPU models and decoders want the same cores: half of a node for each, and a single core is shared
        return cls(models, "cpu", max(1, max(cores) // 2) if sum(cores) > 1 else 0.5, 0)


def _work_off(ray, run: ClusterRun, works: Sequence[ChunkWork], pools: Pools, storage: Storage) -> None:
    """Bring chunks to their end, whatever is lost on the way."""
    waiting = {work.number: work for work in works}
    suspects: list[ChunkWork] = []
    in_vain = 0
    while waiting:
        waiting |= {work.number: work for work in _given_up(ray, suspects, run.task, pools)}
        before, suspects = len(waiting), []
        for done in _stream(ray, list(waiting.values()), run.task, pools, storage):
            if done.lost:
                suspects.append(waiting[done.number])
            else:
                run.take(done, waiting.pop(done.number))
        in_vain = in_vain + 1 if len(waiting) == before else 0
        if in_vain == IN_VAIN:
            clips = [job.clip.id for work in waiting.values() for job in work.jobs]
            raise ClusterError(
                f"Ray lost the same {len(clips)} clips {IN_VAIN} times, from '{clips[0]}' to '{clips[-1]}': "
                "look at the memory of its nodes and at Ray's log, then run again; what is done is stored"
            )
        if waiting:
            log.warning("%d chunks were lost with their actors or nodes; they are sent again", len(waiting))


def _stream(ray, works: list[ChunkWork], task: ClipTask, pools: Pools, storage: Storage) -> Iterator[ChunkDone]:
    """Send chunks through the stages; yields those that came through."""
    tally = Tally.started(ray)
    decoders, models = ray.data.ActorPoolStrategy(min_size=1), ray.data.ActorPoolStrategy(min_size=1)
    with data_settings(ray):
        # one chunk a block, so that a chunk is what is scheduled, tried again and lost
        chunks = ray.data.from_items([{"work": work} for work in works], override_num_blocks=len(works))
        if pools.models:
            first = {"fn_constructor_args": (task, tally), "compute": decoders, "num_cpus": min(1, pools.cpus) or 1}
            second = {"fn_constructor_args": (task, tally, storage, pools.device), "compute": models}
            chunks = chunks.map_batches(Decode, batch_size=1, **first)
            chunks = chunks.map_batches(Model, batch_size=1, num_cpus=pools.cpus, num_gpus=pools.gpus, **second)
        else:
            only = {"fn_constructor_args": (task, tally, storage), "compute": decoders, "num_cpus": 1}
            chunks = chunks.map_batches(DecodeAndWrite, batch_size=1, **only)
        try:
            for row in chunks.iter_rows():
                done: ChunkDone = row["done"]
                if done.trouble is not None:
                    raise done.trouble
                yield done
        except ray.exceptions.RayError as error:
            log.warning("Ray gave up a part of the run, which is sent again: %s", error)
        finally:
            ray.kill(tally)


def _given_up(ray, works: list[ChunkWork], task: ClipTask, pools: Pools) -> list[ChunkWork]:
    """The chunks, with the clips named that take their actor down even alone."""
    alone = [(work, job) for work in works for job in work.jobs if job.clip.id not in work.given_up]
    if not alone:
        return works
    log.warning("%d clips are tried one by one", len(alone))
    probes = [ChunkWork(place, [job], {}) for place, (_, job) in enumerate(alone)]
    nowhere = FolderStorage(Path())  # a probe has no shards
    answers = list(_stream(ray, probes, task, pools, nowhere))
    given_up: dict[int, dict[str, str]] = {work.number: {} for work in works}
    for work, job in [alone[done.number] for done in answers if done.lost]:
        given_up[work.number][job.clip.id] = f"its Ray actor ended {TRIES} times"
    return [replace(work, given_up=work.given_up | given_up[work.number]) for work in works]


def _groups(items: Iterable, size: int) -> Iterator[list]:
    items = iter(items)
    while some := list(islice(items, size)):
        yield some


def _hash_files(ray, corpus: Corpus, store: FeatureStore) -> None:
    """Have the contents of new and changed files hashed by all nodes, so that the driver need not read them."""
    digests = FileDigests(store.root / ".cache" / "digests.jsonl")
    files = [str(path) for clip in corpus for path in (clip.video, clip.audio) if path and not digests.knows(path)]
    if len(files) < HASHED_AT_ONCE:
        return
    groups = [{"files": list(group)} for group in _groups(files, HASHED_AT_ONCE)]
    with data_settings(ray):
        rows = ray.data.from_items(groups, override_num_blocks=len(groups)).map_batches(hashed, batch_size=1)
        for row in rows.iter_rows():  # what is lost, the driver reads
            digests.add(list(row["lines"]))
    digests.save()
