"""Extraction, enrichment and folds on Ray: the same bytes and numbers as on one machine, begun here and ended there.

What happens when nodes and actors die is in tests/torture/test_cluster_faults.py.
"""

import hashlib
import os
import socket
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import fusion_clips
import pandas as pd
import pytest
from cluster_clips import ENVIRONMENT, content, encoders, make, with_model
from conftest import no_workers
from fault_server import clips
from joblib import Parallel, delayed
from tiny_llm import write_tiny_llm

from ecmf_lib import cluster
from ecmf_lib.chunk_work import ChunkDecoder, ChunkDone, ChunkWork, run_models, write_shards
from ecmf_lib.clip_task import ClipTask
from ecmf_lib.cluster_actors import TRIES, Tally
from ecmf_lib.cluster_session import ClusterError, ray_session
from ecmf_lib.config import SettingsError, engine_of_run
from ecmf_lib.encoders.base import EncoderError
from ecmf_lib.enrich import LocalEnricher, enrich
from ecmf_lib.extract import extract
from ecmf_lib.model_stage import ModelError, RemoteModels
from ecmf_lib.samples import DataError
from ecmf_lib.shards import StoreError
from ecmf_lib.shared_store import SharedStore
from ecmf_lib.storage import UrlStorage, storage_of
from ecmf_lib.store import FeatureStore
from ecmf_lib.train import ModelSpec, cross_validate


@pytest.fixture(scope="module")
def ray(tmp_path_factory):
    """Ray on this machine, with two cores and a GPU that is none."""
    found = pytest.importorskip("ray", reason="Ray is not installed: pip install .[cluster]")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.delenv("CUDA_VISIBLE_DEVICES")  # conftest hides GPUs; no encoder here would use one
        patch.setenv("ECMF_TEST_TRACE", str(tmp_path_factory.mktemp("trace") / "trace"))
        resources = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 100_000_000}  # Ray takes our word for the GPU
        found.init("local", **resources, include_dashboard=False, log_to_driver=False)
        yield found
        found.shutdown()


@pytest.fixture
def corpus(tmp_path):
    return make(tmp_path / "corpus", 12)


@pytest.fixture(autouse=True)
def here(request, monkeypatch):
    """Decode in this process, not beside it; Ray's actors have theirs. Not where a clip takes its process down."""
    if not request.node.name.startswith("test_a_run_begun_here"):
        no_workers(monkeypatch)
        monkeypatch.setattr("ecmf_lib.chunk_work.run_jobs", lambda jobs, task, **_: ((job, task(job)) for job in jobs))


def run(corpus, store: Path, using=None, **options) -> pd.DataFrame:
    return extract(corpus, store, using or encoders(), None, progress=False, shard_size=3, **options)


def test_a_run_begun_here_is_ended_on_ray_and_the_other_way_round(ray, corpus, tmp_path):
    using = with_model() | encoders(trouble="die")
    quiet = run(corpus, tmp_path / "local", using, workers=1)
    assert quiet["status"].tolist().count("failed") == 1 and "signal 9" in quiet["reason"][3]
    run(corpus.select(corpus.clips["id"].head(6)), tmp_path / "both", using, workers=2)
    ledger = run(corpus, tmp_path / "both", using, engine="ray", device="cpu")
    pd.testing.assert_frame_equal(ledger, quiet)
    assert content(tmp_path / "both") == content(tmp_path / "local")
    for shard in sorted((tmp_path / "both").rglob("*.safetensors"))[::2]:
        shard.unlink()
    run(corpus, tmp_path / "both", using, workers=2)
    assert content(tmp_path / "both") == content(tmp_path / "local")


def test_models_run_where_ray_gives_them_a_gpu(ray, corpus, tmp_path):
    here = run(corpus, tmp_path / "here", with_model(), device="cpu")
    there = run(corpus, tmp_path / "there", with_model(), engine="ray")
    loaded = [line for line in Path(os.environ["ECMF_TEST_TRACE"]).read_text().splitlines() if "load cuda" in line]
    assert loaded == ["load cuda 0"]  # once, with the device that was lent to this actor alone
    pd.testing.assert_frame_equal(here, there)
    shards = [{k: v for k, v in content(tmp_path / store).items() if "/shards/" in k} for store in ("here", "there")]
    assert shards[0] == shards[1]
    about = FeatureStore(tmp_path / "there").open(there.attrs["sets"]["global"]).about
    assert about["computed"]["device"] == "cuda"


def test_nodes_without_a_common_folder_use_a_url(ray, corpus, tmp_path):
    run(corpus, tmp_path / "local", workers=1)
    run(corpus.select(corpus.clips["id"].head(4)), tmp_path / "mine", workers=1)
    share = f"file://{tmp_path}/share"
    run(corpus, tmp_path / "mine", engine="ray", share=share)
    assert content(tmp_path / "mine") == content(tmp_path / "share") == content(tmp_path / "local")
    ledger = run(corpus, tmp_path / "another", engine="ray", share=share)  # by a colleague: everything is there
    assert content(tmp_path / "another") == content(tmp_path / "local") and len(ledger) == 12


def test_folds_on_ray_give_the_same_numbers(ray, rng):
    data, spec = fusion_clips.clips(rng, n=60), ModelSpec("ECMF", "ecmf")
    how = {"n_folds": 2, "seeds": [0], "epochs": 2, "progress": False}
    here = cross_validate(data, spec, **how)
    with cluster.joblib_on_ray():
        there = cross_validate(data, spec, workers=2, **how)
        with pytest.raises(DataError, match="no clip"):
            Parallel(n_jobs=2, return_as="generator")(delayed(_refuse)(number) for number in range(3)).__next__()
    pd.testing.assert_frame_equal(here, there, check_exact=True)


def _refuse(number: int) -> None:
    raise DataError(f"no clip {number}")


def test_a_local_model_on_ray_gives_the_same_answers(ray, tmp_path):
    tiny = write_tiny_llm(tmp_path / "tiny")
    enricher = LocalEnricher(tiny, max_tokens=6, batch=2, device="cpu")
    cues = clips(3) + clips(1)
    here = enrich(cues, enricher, cache=tmp_path / "here.sqlite", progress=False)
    there = enrich(cues, enricher, cache=tmp_path / "there.sqlite", progress=False, engine="ray")
    assert there == here
    ray_again = enrich(cues, enricher, cache=tmp_path / "there.sqlite", progress=False)  # all of it is in the cache
    assert ray_again == here


# ------------------------------------------------------------------------------------------------ without Ray


def works_of(corpus, store: FeatureStore, task: ClipTask, size: int = 3) -> tuple[cluster.ClusterRun, list[ChunkWork]]:
    run = cluster.ClusterRun(corpus, store, task, RemoteModels(task.encoders, "cpu"), size, False)
    run.bar = cluster.tqdm(disable=True)
    return run, list(run.works())


def by_hand(corpus, folder: Path, using, url: str = "") -> None:
    """What the driver and the nodes do, in this process."""
    store, task = FeatureStore(folder), ClipTask(using, None, 12, str(corpus.root))
    with store.locked(), closing(ChunkDecoder(task)) as decode:
        shared = SharedStore(store, url)
        shared.bring()
        run, works = works_of(corpus, store, task)
        for work in works:
            results = decode(work)
            run_models(task, results, "cpu")
            run.take(write_shards(work, results, shared.storage), work)
        shared.fetch()
        assert len(run.finish()) == len(corpus)
        shared.commit()


def test_the_work_on_chunks_gives_the_store_of_a_local_run(corpus, tmp_path):
    run(corpus, tmp_path / "local", with_model(), workers=1)
    by_hand(corpus, tmp_path / "by-hand", with_model())
    assert content(tmp_path / "by-hand") == content(tmp_path / "local")


def test_a_store_can_have_its_copy_where_fsspec_reaches(corpus, tmp_path):
    url = f"memory://{tmp_path.name}/store"
    run(corpus, tmp_path / "local", workers=1)
    run(corpus.select(corpus.clips["id"].head(4)), tmp_path / "mine", workers=1)
    by_hand(corpus, tmp_path / "mine", encoders(), url)
    expected = content(tmp_path / "local")
    assert content(tmp_path / "mine") == expected
    copy = UrlStorage(url)
    assert {name: hashlib.sha256(copy.read(name)).hexdigest() for name in copy.names()} == expected


@pytest.mark.parametrize("place", ["memory://bucket/{}", "file://{}", "{}"])
def test_a_file_is_there_at_once_or_not_at_all(tmp_path, place):
    storage = storage_of(place.format(tmp_path / "store"))
    storage.write("sets/a/shards/x", b"one")
    storage.write("sets/a/shards/x", b"two")
    assert storage.read("sets/a/shards/x") == b"two"
    with pytest.raises(StoreError, match="sets/a/shards/y: cannot be read"):
        storage.read("sets/a/shards/y")
    if isinstance(storage, UrlStorage):
        assert storage.names("sets") == {"sets/a/shards/x": 3}
        storage.remove("sets/a/shards/x")
        storage.remove("sets/a/shards/x")
        assert storage.names() == {}


def test_an_unknown_kind_of_url_is_refused():
    with pytest.raises(StoreError, match="nowhere://x: fsspec cannot open it"):
        storage_of("nowhere://x").read("a")


def lossy(monkeypatch, survives) -> Counter:
    """Chunks get lost as `survives` says; how often each was sent."""
    sent: Counter = Counter()

    def stream(ray, works, task, pools, storage):
        for work in works:
            sent[work.number if work.shards else work.jobs[0].clip.id] += 1
            if survives(work):
                yield ChunkDone(work.number)
            else:
                yield ChunkDone(work.number, lost=True)

    monkeypatch.setattr(cluster, "_stream", stream)
    return sent


class Account:
    """Stands for the driver's account."""

    task = None

    def __init__(self):
        self.taken: list[ChunkWork] = []

    def take(self, done: ChunkDone, work: ChunkWork) -> None:
        self.taken.append(work)


def chunks(corpus) -> list[ChunkWork]:
    return works_of(corpus, FeatureStore(corpus.root.parent / "empty"), ClipTask(encoders(), None, 12, ""))[1]


def test_a_clip_that_takes_its_actor_down_is_found_and_given_up(corpus, monkeypatch):
    def survives(work):
        return "clip04" not in {job.clip.id for job in work.jobs} - set(work.given_up)

    sent, account = lossy(monkeypatch, survives), Account()
    cluster._work_off(None, account, chunks(corpus), None, None)
    assert [work.number for work in account.taken] == [0, 2, 3, 1]
    assert account.taken[-1].given_up == {"clip04": f"its Ray actor ended {TRIES} times"}
    assert sent == Counter({0: 1, 1: 2, 2: 1, 3: 1, "clip03": 1, "clip04": 1, "clip05": 1})


def test_work_that_is_lost_again_and_again_ends_the_run(corpus, monkeypatch):
    lossy(monkeypatch, lambda work: not work.shards)
    with pytest.raises(ClusterError, match=r"lost the same 12 clips 5 times, from 'clip00' to 'clip11'"):
        cluster._work_off(None, Account(), chunks(corpus), None, None)


def test_a_tally_counts_what_was_begun_and_not_ended():
    tally = Tally()
    assert [tally.begin("a"), tally.begin("a"), tally.begin("b")] == [1, 2, 1]
    tally.end("a")
    assert tally.begin("a") == 1


def test_what_is_wrong_for_all_clips_is_raised(corpus, tmp_path):
    with pytest.raises(ModelError, match="fails on every clip"):
        by_hand_in_one_chunk(corpus, tmp_path)


def by_hand_in_one_chunk(corpus, tmp_path):
    task = ClipTask(with_model(trouble="all"), None, 12, str(corpus.root))
    with closing(ChunkDecoder(task)) as decode:
        (work,) = works_of(corpus, FeatureStore(tmp_path / "empty"), task, size=12)[1]
        run_models(task, decode(work), "cpu")


class Nodes:
    """A Ray with these resources."""

    def __init__(self, cores: list[int], gpus: int = 0):
        self.cores, self.gpus = cores, gpus

    def cluster_resources(self):
        return {"CPU": sum(self.cores)} | ({"GPU": self.gpus} if self.gpus else {})

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": n}} for n in self.cores]


@pytest.mark.parametrize(
    ("nodes", "device", "expected"),
    [
        (Nodes([8, 8], gpus=4), "auto", ("cuda", 0, 1)),
        (Nodes([8, 8], gpus=4), "cpu", ("cpu", 4, 0)),
        (Nodes([2]), "auto", ("cpu", 1, 0)),
        (Nodes([1]), "auto", ("cpu", 0.5, 0)),
    ],
)
def test_actors_ask_for_what_suits_the_cluster(nodes, device, expected):
    pools = cluster.Pools.of(nodes, ClipTask(with_model(), None, 12, ""), device)
    assert (pools.device, pools.cpus, pools.gpus) == expected and pools.models


@pytest.mark.parametrize(("device", "said"), [("cuda:1", "Ray chooses the GPU"), ("cuda", "no node .* has a GPU")])
def test_a_device_that_ray_cannot_give_is_refused(device, said):
    with pytest.raises(EncoderError, match=said):
        cluster.Pools.of(Nodes([2]), ClipTask(with_model(), None, 12, ""), device)


def test_without_ray_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"pip install 'ecmf\[cluster\]'"), ray_session():
        pass


def test_an_address_where_nobody_answers_is_refused_at_once(monkeypatch):
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install .[cluster]")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # taken, and not listened to
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{nobody.getsockname()[1]}")
        with pytest.raises(ClusterError, match="no Ray cluster at 127"), ray_session():
            pass


def test_engine_and_share_come_from_the_environment(monkeypatch):
    assert engine_of_run("demo") == ("local", "")
    monkeypatch.setenv("ECMF_ENGINE", "ray")
    monkeypatch.setenv("ECMF_SHARE", "s3://bucket/ecmf/")
    assert engine_of_run("demo") == ("ray", "s3://bucket/ecmf/demo")
    monkeypatch.setenv("ECMF_SHARE", "/mnt/ecmf")
    with pytest.raises(SettingsError, match="expected a URL"):
        engine_of_run("demo")
    monkeypatch.setenv("ECMF_ENGINE", "spark")
    with pytest.raises(SettingsError, match="engine 'spark': choose from local, ray"):
        engine_of_run("demo")


def test_a_share_is_for_ray(corpus, tmp_path):
    with pytest.raises(ValueError, match="a share is for ray"):
        run(corpus, tmp_path / "store", share="memory://x")
