"""A Ray cluster of three nodes whose nodes and actors die under an extraction: the store is that of a quiet local run.

Each node has one core, so that every node has something to lose.
"""

import os
import signal
import sys
import threading
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cluster_clips import ENVIRONMENT, SlowStorage, content, encoders, make, with_model

from ecmf_lib.extract import extract
from ecmf_lib.model_stage import ModelError
from ecmf_lib.shared_store import SharedStore

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install .[cluster]")
psutil = pytest.importorskip("psutil")

CLIPS = 36


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Three nodes on this machine; a test that takes one away puts another in its place."""
    from ray.cluster_utils import Cluster

    patch = pytest.MonkeyPatch()
    trace = tmp_path_factory.mktemp("trace") / "trace"
    for name, value in {**ENVIRONMENT, "ECMF_TEST_TRACE": str(trace), "ECMF_TEST_PAUSE": "0.15"}.items():
        patch.setenv(name, value)
    one = {"num_cpus": 1, "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=one | {"include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(**one)
        ray.init(address=cluster.address, log_to_driver=False)
        cluster.trace, cluster.one = trace, one
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
        patch.undo()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make(tmp_path_factory.mktemp("clips") / "corpus", CLIPS)


def run(corpus, store: Path, using, **options) -> pd.DataFrame:
    return extract(corpus, store, using, None, progress=False, shard_size=3, **options)


class Fault:
    """Something bad that happens to the cluster once a line of the trace calls for it."""

    def __init__(self, cluster, word: str, after: int):
        self.cluster, self.word, self.after = cluster, word, after
        self.struck = ""
        self.over = threading.Event()
        self.cluster.trace.unlink(missing_ok=True)
        self.thread = threading.Thread(target=self.wait, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()
        while len(self.cluster.worker_nodes) < 2:
            self.cluster.add_node(**self.cluster.one)

    def wait(self) -> None:
        workers = {raylet(node): node for node in self.cluster.worker_nodes}
        while not self.over.wait(0.02):
            lines = self.cluster.trace.read_text().splitlines() if self.cluster.trace.exists() else []
            nodes = [line.split()[1] for line in lines if line.startswith(self.word)]
            if len(nodes) >= self.after and nodes[-1] in workers:
                self.cluster.remove_node(workers[nodes[-1]], allow_graceful=False)
                self.struck = nodes[-1]
                return


def raylet(node) -> str:
    """The id that :func:`cluster_clips.node` gives on this node."""
    return str(node.all_processes["raylet"][0].process.pid)


def lines(cluster, word: str) -> list[list[str]]:
    return [line.split() for line in cluster.trace.read_text().splitlines() if line.startswith(word)]


def same(ledger: pd.DataFrame, quiet: pd.DataFrame, store: Path, other: Path) -> None:
    assert ledger["id"].tolist() == [f"clip{number:02d}" for number in range(CLIPS)]
    pd.testing.assert_frame_equal(ledger, quiet)
    assert content(store) == content(other)


def test_a_node_dies_while_it_extracts(cluster, corpus, tmp_path):
    quiet = run(corpus, tmp_path / "local", encoders(), workers=2)
    with Fault(cluster, "encode", after=8) as fault:
        ledger = run(corpus, tmp_path / "ray", encoders(), engine="ray")
    assert fault.struck, "no node was killed"
    same(ledger, quiet, tmp_path / "ray", tmp_path / "local")


def test_a_node_dies_while_it_writes(cluster, corpus, tmp_path, monkeypatch):
    quiet = run(corpus, tmp_path / "local", with_model(), workers=2)
    ready = SharedStore.__init__

    def slow(self, store, url=""):
        ready(self, store, url)
        self.storage = SlowStorage(store.root)

    monkeypatch.setattr(SharedStore, "__init__", slow)
    with Fault(cluster, "writing", after=2) as fault:
        ledger = run(corpus, tmp_path / "ray", with_model(), engine="ray")
    assert fault.struck, "no node was killed"
    begun, ended = Counter(name for *_, name in lines(cluster, "writing")), lines(cluster, "written")
    assert set(begun) == {name for *_, name in ended} and begun.total() > len(ended), "a write was cut off and repeated"
    same(ledger, quiet, tmp_path / "ray", tmp_path / "local")


def test_an_actor_is_killed_again_and_again(cluster, corpus, tmp_path):
    quiet = run(corpus, tmp_path / "local", with_model(), workers=2)
    killed, over = [], threading.Event()

    def kill() -> None:
        while not over.wait(4.0):
            actors = [
                p for p in psutil.process_iter(["cmdline"]) if "ray::MapWorker" in " ".join(p.info["cmdline"] or "")
            ]
            if actors and len(killed) < 6:
                victim = actors[len(killed) % len(actors)]
                os.kill(victim.pid, signal.SIGKILL)
                killed.append(victim.pid)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    try:
        ledger = run(corpus, tmp_path / "ray", with_model(), engine="ray")
    finally:
        over.set()
        thread.join()
    assert len(killed) > 1
    same(ledger, quiet, tmp_path / "ray", tmp_path / "local")


def test_a_clip_that_takes_its_actor_down_costs_that_clip(cluster, corpus, tmp_path):
    small = corpus.select(["clip02", "clip03", "clip04"])  # one chunk
    ledger = run(small, tmp_path / "ray", encoders(trouble="parent"), engine="ray").set_index("id")
    assert ledger.index[ledger["status"] == "failed"].tolist() == ["clip03"]
    assert (
        "worker process died" in ledger["reason"]["clip03"]
        and "its Ray actor ended 4 times" in ledger["reason"]["clip03"]
    )
    assert len(ledger) == 3


def test_a_model_that_works_for_no_clip_ends_the_run_and_the_next_one_works(cluster, corpus, tmp_path):
    small = corpus.select(corpus.clips["id"].head(6))
    with pytest.raises(ModelError, match="fails on every clip"):
        extract(small, tmp_path / "bad", with_model(trouble="all"), None, progress=False, shard_size=6, engine="ray")
    assert len(run(small, tmp_path / "good", with_model(), engine="ray")) == 6
