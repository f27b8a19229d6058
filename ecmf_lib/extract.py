"""From a manifest to a feature store: every clip decoded once, every encoder applied, nothing lost.

Clips are decoded and encoded in worker processes; the main process alone writes, one shard for each encoder and
stretch of the manifest (see :mod:`ecmf_lib.shards`). What is stored already, under a key made of the clip's content
and the settings, is not computed again: a run that was interrupted continues, a changed clip is redone by itself,
and a run in which nothing has changed reads no clip at all.

Pre-trained models run in the main process, beside the workers that decode for them (:mod:`ecmf_lib.model_stage`).

The *ledger* has one row for each clip of the manifest: done, or the reason it is not.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from ecmf_lib.bounded import parse_json
from ecmf_lib.bounded_arrays import read_parquet
from ecmf_lib.clip_task import FACTS, MEDIA, ClipTask, Job, Result, died, to_models
from ecmf_lib.config import ENGINES
from ecmf_lib.encoders.base import Encoder
from ecmf_lib.encoders.model import Prepared
from ecmf_lib.faces import Detector
from ecmf_lib.model_stage import Answers, ModelStage, computed, provenance
from ecmf_lib.set_files import read_about
from ecmf_lib.shards import (
    DONE,
    FAILED,
    FileDigests,
    Pair,
    SetWriter,
    StoreError,
    digest_of,
    slug,
    write_table,
)
from ecmf_lib.store import FeatureSet, FeatureStore, describe_set
from ecmf_lib.workers import LIMIT, Lost, run_jobs, usable_cores

if TYPE_CHECKING:
    from ecmf_lib.corpus import Clip, Corpus

log = logging.getLogger(__name__)

#: Workers stand back a little behind a model on the same cores: its threads wait for each other, so what is taken from
#: one of them is lost twice. 3 gave as many clips/s as 10 and a third more than 0, and does not starve workers on a
#: machine that others use as well.
NICE = 3

_LEDGER = pa.schema(
    [(name, pa.string()) for name in ("id", "status", "reason", "digest")]
    + [("n_frames", pa.int64())]
    + [(name, pa.float64()) for name in ("duration", "fps", "face_share")]
    + [(name, pa.string()) for name in ("audio_state", "notes")]
)


def extract(
    corpus: Corpus,
    store: FeatureStore | str | Path,
    encoders: Mapping[str, Encoder],
    detector: Detector | None,
    *,
    n_frames: int = 12,
    workers: int = 0,
    progress: bool = True,
    shard_size: int = 32,
    retry_failed: bool = False,
    device: str = "auto",
    engine: str = "local",
    share: str = "",
    clip_limit: float = LIMIT,
) -> pd.DataFrame:
    """Features of every clip of a corpus.

    Can be stopped at any moment and in any way; called again, it goes on. The store then ends up the same, byte for
    byte, as after a run that nobody disturbed.

    Parameters
    ----------
    corpus : Corpus
        May be a selection; what the store holds of the corpus's other clips stays.
    store : FeatureStore or path
    encoders : mapping
        Stream → encoder of that stream; a second one of the same stream goes under its own name. Must be picklable.
    detector : Detector or None
        Needed only if an encoder uses faces.
    n_frames : int
        Frames sampled from each clip.
    workers : int
        Worker processes; 0 = one for each core that this process may use.
    progress : bool
        Show a progress bar.
    shard_size : int
        Clips in a shard, the ones that share batches of a model, and the unit of what an interruption can cost.
    retry_failed : bool
        Try clips again that failed with the same content and the same settings.
    device : str
        Where pre-trained models run; "auto" takes a GPU if there is one.
    engine : {"local", "ray"}
        This machine, or the nodes of a Ray cluster (see :mod:`ecmf_lib.cluster`). The store is the same either way, and
        a run of one can be finished by the other.
    share : str
        With "ray": URL of a copy of the store that all nodes reach; empty if they share the store's folder.
    clip_limit : float
        Seconds after which decoding and encoding one clip is given up: it is "failed", with the reason, and the run
        goes on. For workers, not for pre-trained models: what these get is of bounded size.

    Returns
    -------
    DataFrame
        The ledger, one row a clip in manifest order: ``id``, ``status`` ("done" or "failed"), ``reason``, ``digest``
        (of the content), ``n_frames``, ``duration`` (s), ``fps``, ``face_share`` (of the frames, NaN if nobody looked),
        ``audio_state``, ``notes``, and for each stream a column with "done" or the reason there are no features.
        ``attrs["sets"]`` maps streams to the names of their sets in the store.

    Raises
    ------
    ValueError
        For arguments that do not fit together.
    StoreError
        If the store cannot be written or another process is writing into it.
    WorkerError
        If worker processes cannot be started at all.
    EncoderError
        If the weights of a model or the device are missing or unfit: before any clip is decoded.
    ModelError
        If a model fails on every clip.
    ClusterError
        If Ray is not there, or keeps losing the same work.
    """
    store = store if isinstance(store, FeatureStore) else FeatureStore(store)
    _check(corpus, encoders, detector, n_frames, workers, shard_size)
    if engine not in ENGINES or (share and engine != "ray"):
        raise ValueError(f"engine '{engine}', share '{share}': engines are {', '.join(ENGINES)}; a share is for ray")
    if not clip_limit > 0:
        raise ValueError(f"clip_limit = {clip_limit}; expected seconds above 0")
    task = ClipTask(dict(encoders), detector, n_frames, str(corpus.root), clip_limit)
    if engine == "ray":
        from ecmf_lib.cluster import extract_on_ray

        how = {"shard_size": shard_size, "retry_failed": retry_failed, "device": device, "progress": progress}
        return extract_on_ray(corpus, store, task, share=share, **how)
    with store.locked(), closing(ModelStage(encoders, device)) as models:
        run = Run(corpus, store, task, models, shard_size, retry_failed)
        how = {"workers": workers or usable_cores(), "nice": NICE if models.device == "cpu" else 0}
        with tqdm(total=len(corpus), desc=corpus.name, unit="clip", disable=not progress) as run.bar:
            with closing(run_jobs(run.jobs(), task, limit=clip_limit, **how)) as answers:
                for job, results in answers:
                    run.receive(job, results)
            run.run_out()
        return run.finish()


def read_ledger(store: FeatureStore | str | Path, corpus_name: str) -> pd.DataFrame:
    """The ledger of the last complete extraction of a corpus, as :func:`extract` returned it.

    Raises
    ------
    StoreError
        If there is none.
    """
    store = store if isinstance(store, FeatureStore) else FeatureStore(store)
    path = _ledger_folder(store, corpus_name) / "ledger.parquet"
    try:
        table = read_parquet(path)
        told = parse_json(table.schema.metadata[b"ecmf"])
        _check_ledger(table, told["sets"])
        frame = table.to_pandas()
        frame.attrs = told
    except FileNotFoundError:
        raise StoreError(f"{store.root}: no ledger of corpus '{corpus_name}'; extract it first") from None
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path}: damaged ledger ({error}); extract again, nothing is computed twice") from None
    return frame


def _check_ledger(table: pa.Table, sets: dict[str, str]) -> None:
    """ValueError for a column that lacks or holds something else, or names of sets that are none."""
    kinds = {field.name: field.type for field in table.schema}
    expected = {field.name: field.type for field in _LEDGER} | {stream: pa.string() for stream in sets}
    wrong = [name for name, kind in expected.items() if kinds.get(name) != kind]
    if wrong or not all(isinstance(name, str) for name in sets.values()):
        raise ValueError(f"{', '.join(wrong[:10]) or 'sets'} missing, or of another kind")
    if table["id"].null_count or table["status"].null_count or table["reason"].null_count:
        raise ValueError("a clip without id, status or reason")


def imported_ledger(ids: list[str], sets: Mapping[str, FeatureSet]) -> pd.DataFrame:
    """A ledger for clips whose features were imported: nothing was decoded, so there are no facts about files.

    Parameters
    ----------
    ids : list of str
        Clips of the corpus.
    sets : mapping
        Stream → set.

    Returns
    -------
    DataFrame
        As from :func:`extract`; the digest is of its shards and of what became of it. A clip is "failed"
        if none of the sets has any.
    """
    _check_names(sets)
    said = {stream: dict(zip(found.index["id"], found.index["reason"], strict=True)) for stream, found in sets.items()}
    keys = [dict(zip(found.index["id"], found.index["key"], strict=True)) for found in sets.values()]
    rows = []
    for id in ids:
        columns = {stream: why.get(id, "not among the imported features") or DONE for stream, why in said.items()}
        done = DONE in columns.values()
        reason = "" if done else "; ".join(f"{stream}: {why}" for stream, why in columns.items())
        digest = digest_of([of_set.get(id) for of_set in keys], columns)[:32]
        rows.append({"id": id, "status": DONE if done else FAILED, "reason": reason, "digest": digest} | columns)
    ledger = _ledger_table(rows, sets).to_pandas()
    ledger.attrs = {"sets": {stream: found.name for stream, found in sets.items()}}
    return ledger


def _check_names(streams: Mapping[str, object]) -> None:
    for stream in streams:
        if stream in _LEDGER.names:
            raise ValueError(f"stream '{stream}' would hide a column of the ledger; call it otherwise")


def _check(corpus, encoders, detector, n_frames, workers, shard_size) -> None:
    if not encoders:
        raise ValueError("no encoders given; take a profile, e.g. encoders.profile('light')")
    _check_names(encoders)
    for stream, encoder in encoders.items():
        if stream not in (encoder.stream, encoder.name):
            raise ValueError(f"encoder '{encoder.name}' is for stream '{encoder.stream}', given for '{stream}'")
        if "faces" in encoder.uses and detector is None:
            raise ValueError(f"encoder '{encoder.name}' uses faces; give a detector, e.g. faces.get_detector('auto')")
    for name, value, least in (("n_frames", n_frames, 1), ("workers", workers, 0), ("shard_size", shard_size, 1)):
        if value < least:
            raise ValueError(f"{name} = {value}; expected at least {least}")
    twice = corpus.clips["id"][corpus.clips["id"].duplicated()]
    if len(twice):
        raise ValueError(f"corpus '{corpus.name}' has clip '{twice.iloc[0]}' more than once; ids must be unique")


@dataclass
class _Chunk:
    """A stretch of the manifest that becomes one shard of each part."""

    pairs: dict[str, list[Pair]]
    waiting: int = 0  # clips whose results are not there yet
    new: dict[str, dict[Pair, Result]] = field(default_factory=dict)

    def for_models(self) -> dict[str, list[tuple[Pair, Prepared]]]:
        """What models still have to run, part by part."""
        return to_models(self.pairs, self.new)


class Run:
    """Keeps the account of one extraction: what is stored, what is under way, what is still to do."""

    def __init__(
        self,
        corpus: Corpus,
        store: FeatureStore,
        task: ClipTask,
        models: ModelStage,
        shard_size: int,
        retry_failed: bool,
    ):
        self.corpus, self.store, self.task, self.models, self.shard_size = corpus, store, task, models, shard_size
        self.bar: tqdm | None = None
        self.digests = FileDigests(store.root / ".cache" / "digests.jsonl")
        self.settings = {stream: self._settings(encoder) for stream, encoder in task.encoders.items()}
        fingerprint = corpus.fingerprint
        self.sets = {part: self._about(part, fingerprint) for part in task.encoders}
        ids = corpus.clips["id"].tolist()
        self.writers = {
            stream: SetWriter(store.folder(about["name"]), store.scratch, ids, about, retry_failed=retry_failed)
            for stream, about in self.sets.items()
        }
        if task.uses & MEDIA:
            self.settings[FACTS] = self._seen(task.uses | {"frames"})
            folder = _ledger_folder(store, corpus.name) / f"facts-{digest_of(self.settings[FACTS])[:8]}"
            self.writers[FACTS] = SetWriter(folder, store.scratch, ids, None, retry_failed=retry_failed)
        self.pairs: dict[str, list[Pair]] = {part: [] for part in self.writers}
        self.clip_digests: list[str] = []
        self.open: dict[int, _Chunk] = {}
        self.failed = 0
        # only a first guess at where there is something to do: the keys of all clips need every file read
        self.first_models = [stream for stream in self.sets if not self.writers[stream].ids.issuperset(ids)]

    def _settings(self, encoder: Encoder) -> dict:
        """All that changes an encoder's features, apart from the clip."""
        own = {"encoder": encoder.settings, "encoder_fingerprint": encoder.fingerprint}
        return own | self._seen(encoder.uses)

    def _seen(self, uses: frozenset[str]) -> dict:
        """Settings of the run that change what an encoder gets to see."""
        sampled = {"n_frames": self.task.n_frames} if uses & {"frames", "faces"} else {}
        return sampled | ({"detector": self.task.detector.fingerprint} if "faces" in uses else {})

    def _about(self, part: str, corpus_fingerprint: str) -> dict:
        encoder = self.task.encoders[part]
        corpus = {"name": self.corpus.name, "fingerprint": corpus_fingerprint, "clips": len(self.corpus)}
        more = {"detector_name": self.task.detector.name} if "faces" in encoder.uses else {}
        if part in self.models:
            more |= provenance(encoder)
        about = describe_set(
            stream=encoder.stream,
            encoder=encoder.name,
            level=encoder.level,
            dim=encoder.dim,
            licence=encoder.licence,
            corpus=corpus,
            settings=self.settings[part],
            weights=encoder.weights,
            feature_names=encoder.feature_names,
            **more,
        )
        if part in self.models:
            about["computed"] = self._stored_about(about).get("computed") or computed(encoder, self.models.device)
        return about

    def _stored_about(self, about: dict) -> dict:
        """What the store says of this set, if anything."""
        try:
            return read_about(self.store.folder(about["name"]))
        except StoreError:
            return {}

    def _ready(self, streams: Iterable[str]) -> None:
        """Load models before the first clip that needs them is decoded, and note where they run."""
        for stream in self.models.ready([*self.first_models, *streams]):
            about = self.sets[stream]  # the writer's own: written at the end if there was something to do
            about["computed"] = computed(self.task.encoders[stream], self.models.device, about["computed"])

    def _chunk_of(self, clips: list[Clip]) -> _Chunk:
        pairs: dict[str, list[Pair]] = {part: [] for part in self.writers}
        for clip in clips:
            media = [self.digests.of(path) if path else "" for path in (clip.video, clip.audio)]
            self.clip_digests.append(digest_of(media, _text_of(clip))[:32])
            for part, of_part in pairs.items():
                encoder = None if part == FACTS else self.task.encoders[part]
                uses = self.task.uses & MEDIA if encoder is None else encoder.uses
                of_part.append(Pair(clip.id, row_key(clip, media, uses, self.settings[part])))
        for part, of_part in pairs.items():
            self.pairs[part] += of_part
        self.digests.save()
        return _Chunk(pairs)

    def jobs(self) -> Iterator[Job]:
        """What has to be computed, in manifest order; chunks with nothing to compute are settled on the way."""
        clips = iter(self.corpus)
        for number in range(-(-len(self.corpus) // self.shard_size)):
            clips_here = list(itertools.islice(clips, self.shard_size))
            chunk = self.open[number] = self._chunk_of(clips_here)
            jobs = []
            for place, clip in enumerate(clips_here):
                rows = {part: pairs[place] for part, pairs in chunk.pairs.items()}
                todo = {part: pair for part, pair in rows.items() if self.writers[part].row(pair) is None}
                if todo:
                    jobs.append(Job(clip, todo, number))
            chunk.waiting = len(jobs)
            self.bar.update(len(clips_here) - len(jobs))
            if jobs:
                self._ready({part for job in jobs for part in job.pairs})
            else:
                self._settle(number)
            yield from jobs

    def receive(self, job: Job, results: dict[str, Result] | Lost) -> None:
        """Take the results of one clip; with the last one of its chunk, write the shards."""
        if isinstance(results, Lost):
            results = died(job, results)
        chunk = self.open[job.chunk]
        for part, result in results.items():
            chunk.new.setdefault(part, {})[job.pairs[part]] = result
        chunk.waiting -= 1
        if not any(isinstance(value, Prepared) for _, value in results.values()):
            self._advance(1, any(row.state == FAILED for row, _ in results.values()))
        if chunk.waiting:
            return
        waiting = {part: [value for _, value in of_part] for part, of_part in chunk.for_models().items()}
        if not waiting:
            self._settle(job.chunk)
        else:
            for number, answers in self.models.give(job.chunk, waiting):
                self._conclude(number, answers)

    def run_out(self) -> None:
        """Take what the models still have to answer."""
        for number, answers in self.models.finish():
            self._conclude(number, answers)

    def _conclude(self, number: int, answers: dict[str, Answers]) -> None:
        """Take what the models made of a chunk."""
        chunk, failed, clips = self.open[number], set(), set()
        for part, waiting in chunk.for_models().items():
            for (pair, _), answer in zip(waiting, answers[part], strict=True):
                chunk.new[part][pair] = self.task.conclude(pair, self.task.encoders[part], answer)
                clips.add(pair.id)
        for of_part in chunk.new.values():
            failed |= {pair.id for pair, (row, _) in of_part.items() if row.state == FAILED}
        self._advance(len(clips), len(failed & clips))
        self._settle(number)

    def _advance(self, clips: int, failed: int) -> None:
        self.failed += failed
        self.bar.set_postfix(failed=self.failed, refresh=False)
        self.bar.update(clips)

    def _settle(self, number: int) -> None:
        chunk = self.open.pop(number)
        for part, pairs in chunk.pairs.items():
            if not self.writers[part].has_chunk(pairs):
                self.writers[part].write_chunk(pairs, chunk.new.get(part, {}))
        if chunk.new:
            log.info("%s: %d of %d clips, %d failed", self.corpus.name, self.bar.n, self.bar.total, self.failed)

    def finish(self) -> pd.DataFrame:
        """Write the indices and the ledger, and check that every clip is accounted for."""
        for part, writer in self.writers.items():
            writer.finish(self.pairs[part])
        names = {stream: about["name"] for stream, about in self.sets.items()}
        rows = (self._ledger_row(place, clip_id) for place, clip_id in enumerate(self.corpus.clips["id"].tolist()))
        about = {"corpus": self.corpus.name, "sets": names}
        table = _ledger_table(rows, names).replace_schema_metadata({"ecmf": json.dumps(about)})
        write_table(_ledger_folder(self.store, self.corpus.name) / "ledger.parquet", table, self.store.scratch)
        ledger = read_ledger(self.store, self.corpus.name)
        if ledger["id"].tolist() != self.corpus.clips["id"].tolist() or not ledger["status"].isin([DONE, FAILED]).all():
            raise RuntimeError(f"corpus '{self.corpus.name}': {len(self.corpus)} clips in, {len(ledger)} accounted for")
        return ledger

    def _ledger_row(self, place: int, clip_id: str) -> dict:
        rows = {part: writer.row(self.pairs[part][place]) for part, writer in self.writers.items()}
        facts = rows.pop(FACTS, None)
        problems = [facts.reason] if facts and facts.state == FAILED else []
        problems += [f"stream '{stream}': {row.reason}" for stream, row in rows.items() if row.state == FAILED]
        return {
            "id": clip_id,
            "status": FAILED if problems else DONE,
            "reason": problems[0] if problems else "",
            "digest": self.clip_digests[place],
            **(facts.facts if facts else {}),
            **{stream: row.reason or DONE for stream, row in rows.items()},
        }


def row_key(clip: Clip, media: list[str], uses: frozenset[str], settings: Mapping) -> str:
    """Identity of what an encoder made of a clip: all that it is given, and all settings that change the result.

    Parameters
    ----------
    clip : Clip
    media : list of str
        Digests of its video and audio file, see :class:`ecmf_lib.shards.FileDigests`.
    uses : frozenset of str
        What the encoder uses.
    settings : mapping
        As in the entry ``settings`` of a set's ``set.json``.
    """
    text = _text_of(clip, settings.get("encoder", {}).get("reads")) if "text" in uses else None
    # both files for any use of one of them: a file that cannot be read fails the clip's other streams too
    return digest_of([media if uses & MEDIA else None, text], settings)[:32]


def _text_of(clip: Clip, reads: str | None = None) -> list[str]:
    """The texts of a clip that an encoder reads: "transcript", "enrichment", or None for all there are."""
    if reads == "enrichment":
        return [clip.enrichment]
    spoken = [clip.transcript, clip.language]
    return spoken if reads == "transcript" or not clip.enrichment else [*spoken, clip.enrichment]


def _ledger_folder(store: FeatureStore, corpus_name: str) -> Path:
    return store.root / "ledgers" / f"{slug(corpus_name)}-{digest_of(corpus_name)[:8]}"


def _ledger_table(rows: Iterable[dict], streams: Mapping[str, object]) -> pa.Table:
    schema = pa.schema([*_LEDGER, *((stream, pa.string()) for stream in streams)])
    rows, parts = iter(rows), [schema.empty_table()]
    while part := [{"n_frames": 0, "audio_state": "", "notes": ""} | row for row in itertools.islice(rows, 10_000)]:
        parts.append(pa.Table.from_pylist(part, schema=schema))  # as Python's rows a part at a time: they are large
    return pa.concat_tables(parts).combine_chunks()
