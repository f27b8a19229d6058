"""Extraction: every clip accounted for, nothing computed twice, and the same bytes however often it was killed."""

import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
import wave
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from ecmf_lib import extract as extraction
from ecmf_lib import shards, workers
from ecmf_lib.corpus import Corpus, make_corpus
from ecmf_lib.encoders import profile
from ecmf_lib.encoders.base import Encoder, EncoderError, MissingStream
from ecmf_lib.encoders.cards import Card
from ecmf_lib.encoders.model import ModelEncoder, Prepared
from ecmf_lib.encoders.weights import Weights, WeightsError
from ecmf_lib.extract import extract, imported_ledger, read_ledger
from ecmf_lib.faces import get_detector
from ecmf_lib.interchange import import_arrays
from ecmf_lib.model_stage import ModelError
from ecmf_lib.store import FeatureStore, StoreError

IDS = [f"clip{number:02d}" for number in range(24)]


def note(id: str, encoder: str) -> None:
    """Leave a trace of each encoding, across processes."""
    if "ECMF_TEST_TRACE" in os.environ:
        with open(os.environ["ECMF_TEST_TRACE"], "a") as file:
            file.write(f"{encoder} {id}\n")


class Steps(Encoder):
    """Frame level: as many steps as the clip is long."""

    name, stream, level, licence, weights, version = "steps", "audio", "frame", "MIT", "none", 1
    uses = frozenset({"audio"})
    dim = 3
    defaults: ClassVar = {"gain": 1.0, "hostile": False}

    def encode(self, clip):
        note(clip.id, self.name)
        time.sleep(float(os.environ.get("ECMF_TEST_PAUSE", 0)))  # s; takes time and leaves the fingerprint alone
        if self.settings["hostile"]:
            HOSTILE.get(clip.id, lambda: None)()
        if clip.id == "clip05":
            raise MissingStream("audio is silent")
        steps = clip.audio[: clip.audio.size // 30 * 30].reshape(-1, 30)
        features = self.settings["gain"] * np.stack([steps.mean(1), steps.std(1), steps.max(1)], axis=1)
        return features * np.nan if clip.id == "clip07" and self.settings["hostile"] else features

    def _encode(self, clip):
        raise NotImplementedError


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def _stumble():
    raise RuntimeError("a bug")


HOSTILE = {"clip03": _die, "clip11": _stumble}


class Words(Encoder):
    name, stream, level, licence, weights, version = "words", "text", "clip", "MIT", "none", 1
    uses = frozenset({"text"})
    dim = 2

    def _encode(self, clip):
        note(clip.id, self.name)
        return np.array([len(clip.transcript), len(clip.language)])


class AlwaysBroken(Words):
    name = "always-broken"

    def encode(self, clip):
        return self.no_such_attribute


class OddStream(Words):
    name, stream = "odd", "status"


class Model(ModelEncoder):
    """A pre-trained encoder; what else is in the batch shows in its features, as rounding does in a real one."""

    common: ClassVar = ModelEncoder.common | {"trouble": ""}
    batch_cost = 4000
    width = 2
    checkpoint = Weights(Path("nowhere"), "0" * 16, "hub", "c0ffee")

    def _prepare(self, clip):
        note(clip.id, "prepare")
        if clip.id == "clip05":
            raise MissingStream("audio is silent")
        time.sleep(float(os.environ.get("ECMF_TEST_PAUSE", 0)))
        if self.settings["trouble"] == "prepare" and clip.id == "clip06":
            raise ValueError("odd sound")
        return Prepared((clip.audio,))

    def _load(self, device, dtype):
        if self.settings["trouble"] == "load":
            raise WeightsError("encoder 'model': model.safetensors is cut off; fetch it again")
        note(device, "load")
        return "loaded"

    def _forward(self, items):
        assert self._model == "loaded"
        note(str(len(items)), "batch")
        time.sleep(float(os.environ.get("ECMF_TEST_PAUSE", 0)))
        if self.settings["trouble"] == "all" or (self.settings["trouble"] == "one" and len(items[0]) == TROUBLE):
            raise RuntimeError("CUDA error: unspecified")
        company = 1e-6 * sum(len(item) for item in items)
        answers = [np.float32([[len(item), np.abs(item).mean() + company]]) for item in items]
        return [a * np.nan if self.settings["trouble"] == "nan" and a[0, 0] == TROUBLE else a for a in answers]

    def cost(self, item):
        return len(item)


TROUBLE = 1600  # samples of clip14
CARD = Card("model", "global", "none", "nobody/model", 2, 1, 1, "CC0", "ours", "audio")


def with_model(**settings) -> dict[str, Encoder]:
    return {"global": Model(CARD, **settings)} | encoders()


def tone(path: Path, number: int, seconds: float = 0.05) -> None:
    samples = (8000 * np.sin(np.arange(int(16000 * seconds)) * (0.05 + 0.01 * number))).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(samples.tobytes())


def make(folder: Path, ids=IDS) -> Corpus:
    """A corpus of tiny sound files."""
    folder.mkdir(exist_ok=True)
    for number, id in enumerate(ids):
        if not (folder / f"{id}.wav").exists():
            tone(folder / f"{id}.wav", number, seconds=0.03 + 0.005 * number)
    table = pd.DataFrame({"id": ids, "audio": [f"{id}.wav" for id in ids], "transcript": [f"{id} says" for id in ids]})
    return make_corpus("tiny", folder, table)


def encoders(**settings) -> dict[str, Encoder]:
    return {"audio": Steps(**settings), "text": Words()}


def run(corpus: Corpus, store: Path, using=None, **options) -> pd.DataFrame:
    options = {"progress": False, "workers": 2, "shard_size": 5} | options
    return extract(corpus, store, using or encoders(), None, **options)


def content(store: Path) -> dict[str, str]:
    """Digest of every file that is part of the store's content."""
    files = [path for path in sorted(store.rglob("*")) if path.is_file() and path.name != ".lock"]
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if ".cache" not in path.relative_to(store).parts
    }


@pytest.fixture
def corpus(tmp_path) -> Corpus:
    return make(tmp_path / "corpus")


@pytest.fixture
def trace(tmp_path, monkeypatch):
    """What was encoded since the last look, as "encoder id"."""
    file = tmp_path / "trace"
    monkeypatch.setenv("ECMF_TEST_TRACE", str(file))

    def look() -> list[str]:
        lines = sorted(file.read_text().splitlines()) if file.exists() else []
        file.unlink(missing_ok=True)
        return lines

    return look


@pytest.fixture(autouse=True)
def quick_workers(request, monkeypatch):
    """Forked workers start at once; what they do is the same. Tests named ``test_spawned…`` have the real ones."""
    if not request.node.name.startswith("test_spawned"):
        monkeypatch.setattr(workers, "_SPAWN", workers.multiprocessing.get_context("fork"))


def test_spawned_run_accounts_for_every_clip(corpus, tmp_path):
    (corpus.root / "clip09.wav").write_bytes(b"")
    ledger = run(corpus, tmp_path / "store")
    assert ledger["id"].tolist() == IDS
    assert ledger["status"].value_counts().to_dict() == {"done": 23, "failed": 1}
    bad = ledger.set_index("id").loc["clip09"]
    assert "clip09.wav" in bad["reason"] and str(tmp_path) not in bad["reason"]
    assert bad["audio"] == bad["reason"] and bad["text"] == "done" and np.isnan(bad["duration"])
    silent = ledger.set_index("id").loc["clip05"]
    assert (silent["status"], silent["audio"], silent["text"]) == ("done", "audio is silent", "done")
    assert ledger["duration"][2] == pytest.approx(0.04) and ledger["audio_state"][2] == "ok"
    found = FeatureStore(tmp_path / "store").open(ledger.attrs["sets"]["audio"])
    assert len(found) == 22 and found.get("clip20").shape == (0.13 * 16000 // 30, 3)


def test_the_ledger_can_be_read_again(corpus, tmp_path):
    ledger = run(corpus, tmp_path / "store")
    again = read_ledger(tmp_path / "store", "tiny")
    pd.testing.assert_frame_equal(ledger, again)
    assert again.attrs["sets"] == ledger.attrs["sets"]
    with pytest.raises(StoreError, match="no ledger of corpus 'other'"):
        read_ledger(tmp_path / "store", "other")


def test_the_store_does_not_depend_on_workers(corpus, tmp_path):
    run(corpus, tmp_path / "one", workers=1)
    run(corpus, tmp_path / "three", workers=3)
    assert content(tmp_path / "one") == content(tmp_path / "three")


def test_the_store_does_not_depend_on_where_the_corpus_lies(corpus, tmp_path):
    (corpus.root / "clip09.wav").write_bytes(b"")
    run(corpus, tmp_path / "a")
    corpus.root.rename(tmp_path / "moved")
    run(make(tmp_path / "moved"), tmp_path / "b")
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_nothing_changed_starts_no_process_and_writes_nothing(corpus, tmp_path, monkeypatch):
    first = run(corpus, tmp_path / "store")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*.[sp]*") if path.is_file()}
    monkeypatch.setattr(workers, "_Worker", None)
    pd.testing.assert_frame_equal(run(corpus, tmp_path / "store"), first)
    assert before and {path: path.stat().st_mtime_ns for path in before} == before


def test_only_the_changed_clip_is_redone(corpus, tmp_path, trace):
    run(corpus, tmp_path / "store")
    assert len(trace()) == 48
    tone(corpus.root / "clip08.wav", 99)
    run(corpus, tmp_path / "store")
    assert trace() == ["steps clip08"]  # its text has not changed
    run(corpus, tmp_path / "fresh")
    assert content(tmp_path / "store") == content(tmp_path / "fresh")


def test_only_the_added_clip_is_done(tmp_path, trace):
    run(make(tmp_path / "corpus", IDS[:7] + IDS[8:]), tmp_path / "store")
    trace()
    run(make(tmp_path / "corpus", IDS), tmp_path / "store")
    assert trace() == ["steps clip07", "words clip07"]
    trace()
    fresh = make(tmp_path / "corpus")
    run(fresh, tmp_path / "fresh")
    assert content(tmp_path / "store") == content(tmp_path / "fresh")


def test_only_the_changed_transcript_is_redone(corpus, tmp_path, trace, monkeypatch):
    run(corpus, tmp_path / "store")
    trace()
    corpus.clips.loc[4, "transcript"] = "something else"
    run(corpus, tmp_path / "store")
    assert trace() == ["words clip04"]


def test_only_the_changed_encoder_is_redone(corpus, tmp_path, trace):
    run(corpus, tmp_path / "store")
    trace()
    run(corpus, tmp_path / "store", encoders(gain=2.0))
    assert trace() == [f"steps {id}" for id in IDS]
    assert FeatureStore(tmp_path / "store").sets()["stream"].tolist() == ["audio", "audio", "text"]


def test_facts_are_of_the_settings_asked_for(corpus, tmp_path, trace):
    with_frames = run(corpus, tmp_path / "store", n_frames=4)
    trace()
    pd.testing.assert_frame_equal(run(corpus, tmp_path / "store", n_frames=8), with_frames)
    assert trace() == []  # sound does not depend on the number of frames
    assert len(list((tmp_path / "store" / "ledgers").glob("*/facts-*"))) == 2


def test_a_selection_uses_and_keeps_what_is_there(corpus, tmp_path, trace):
    run(corpus, tmp_path / "store")
    trace()
    before = content(tmp_path / "store")
    ledger = run(corpus.select(IDS[3:6]), tmp_path / "store")
    assert trace() == [] and ledger["id"].tolist() == IDS[3:6]
    changed = {name for name, digest in content(tmp_path / "store").items() if before[name] != digest}
    assert {Path(name).name for name in changed} == {"ledger.parquet"}


def test_a_hostile_encoder_costs_the_clip_and_not_the_run(corpus, tmp_path, trace):
    ledger = run(corpus, tmp_path / "store", encoders(hostile=True)).set_index("id")
    assert ledger.index[ledger["status"] == "failed"].tolist() == ["clip03", "clip07", "clip11"]
    assert "worker process died" in ledger["reason"]["clip03"] and "signal 9" in ledger["reason"]["clip03"]
    assert ledger["reason"]["clip07"].startswith("stream 'audio'")
    assert "clip 'clip07', stream 'audio': " in ledger["reason"]["clip07"] and "NaN" in ledger["reason"]["clip07"]
    assert "RuntimeError: a bug" in ledger["audio"]["clip11"] and ledger["text"]["clip11"] == "done"
    trace()
    run(corpus, tmp_path / "store", encoders(hostile=True))
    assert trace() == []  # the same content with the same settings fails the same way


def test_failed_clips_are_retried_on_request_and_when_they_are_mended(corpus, tmp_path, trace, monkeypatch):
    good = (corpus.root / "clip09.wav").read_bytes()
    (corpus.root / "clip09.wav").write_bytes(good[:20])
    run(corpus, tmp_path / "store", encoders(hostile=True))
    trace()
    (corpus.root / "clip09.wav").write_bytes(good)
    ledger = run(corpus, tmp_path / "store", encoders(hostile=True))
    assert trace() == ["steps clip09"] and ledger["status"][9] == "done"
    monkeypatch.setattr(sys.modules[__name__], "HOSTILE", {})
    ledger = run(corpus, tmp_path / "store", encoders(hostile=True), retry_failed=True)
    assert set(trace()) == {"steps clip03", "words clip03", "steps clip07", "steps clip11"}
    assert ledger["status"].value_counts().to_dict() == {"done": 23, "failed": 1}  # NaN stays NaN


def test_an_encoder_that_never_works_gives_a_ledger_all_the_same(corpus, tmp_path):
    ledger = run(corpus, tmp_path / "store", {"text": AlwaysBroken()})
    assert (ledger["status"] == "failed").all() and len(ledger) == 24
    assert ledger["reason"].str.contains("no_such_attribute").all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"using": {}}, "no encoders given"),
        ({"using": {"face": Words()}}, "'words' is for stream 'text', given for 'face'"),
        ({"using": {"status": OddStream()}}, "'status' would hide a column of the ledger"),
        ({"n_frames": 0}, "n_frames = 0"),
        ({"shard_size": 0}, "shard_size = 0"),
        ({"workers": -1}, "workers = -1"),
        ({"using": profile("light")}, "uses faces; give a detector"),
    ],
)
def test_arguments_are_checked_before_anything_is_made(corpus, tmp_path, change, said):
    using = change.pop("using", encoders())
    options = {"progress": False, "n_frames": 4} | change
    with pytest.raises(ValueError, match=said):
        extract(corpus, tmp_path / "store", using, None, **options)
    assert not (tmp_path / "store").exists()


def test_duplicate_ids_are_refused(corpus, tmp_path):
    corpus.clips.loc[3, "id"] = "clip02"
    with pytest.raises(ValueError, match="'clip02' more than once"):
        run(corpus, tmp_path / "store")


def test_a_full_disk_ends_the_run_with_what_is_done(corpus, tmp_path, monkeypatch, trace):
    real_write, written = shards.write_file, 0

    def write(path, *rest):
        nonlocal written
        written += path.suffix == ".safetensors"
        if written > 7:
            raise StoreError(f"{path}: cannot be written (No space left on device)")
        real_write(path, *rest)

    monkeypatch.setattr(shards, "write_file", write)
    before = set(workers.multiprocessing.active_children())  # joblib keeps some for a while after other tests
    with pytest.raises(StoreError, match="No space left"):
        run(corpus, tmp_path / "store")
    assert set(workers.multiprocessing.active_children()) <= before
    monkeypatch.setattr(shards, "write_file", real_write)
    trace()
    run(corpus, tmp_path / "store")
    assert 0 < len(trace()) < 40
    run(corpus, tmp_path / "fresh")
    assert content(tmp_path / "store") == content(tmp_path / "fresh")


def test_torn_files_are_found_and_made_again(corpus, tmp_path, trace):
    run(corpus, tmp_path / "fresh")
    for kept in (0, 200, -1):
        run(corpus, tmp_path / "store")
        trace()
        torn = sorted((tmp_path / "store").rglob("*.safetensors"))[:: 3 if kept else 1]
        for path in [*torn, *(tmp_path / "store").rglob("*.parquet")]:
            path.write_bytes(path.read_bytes()[:kept])
        ledger = run(corpus, tmp_path / "store")
        assert trace() and (ledger["status"] == "done").all()
        assert content(tmp_path / "store") == content(tmp_path / "fresh")


def killed_at(corpus: Corpus, store: Path, moment, using=None) -> bool:
    """Run an extraction in a process group of its own and pull the plug; whether it was still running then.

    `moment` is called in the new process with its start, and arranges or times the kill.
    """
    main = os.fork()
    if main == 0:
        os.setsid()
        try:
            moment.arm()
            run(corpus, store, using, shard_size=3)
            os._exit(0)
        finally:
            os._exit(1)
    moment.wait(main)
    status = os.waitpid(main, 0)[1]
    _until_free(store)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def _until_free(store: Path) -> None:
    """Wait for the killed workers, too: forked ones hold the store's lock until they are gone."""
    deadline = time.monotonic() + 20
    while (store / ".lock").exists() and time.monotonic() < deadline:
        with open(store / ".lock", encoding="ascii") as file:
            try:
                return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                time.sleep(0.01)


class AfterSeconds:
    def __init__(self, seconds: float):
        self.seconds = seconds

    def arm(self) -> None:
        pass

    def wait(self, main: int) -> None:
        time.sleep(self.seconds)
        try:
            os.killpg(main, signal.SIGKILL)
        except ProcessLookupError:
            pass  # its setsid was not reached, or it has ended


class AtCall:
    """Dies at the n-th call of one of os's functions, before or after it took effect, or half-way through a write."""

    def __init__(self, name: str, number: int, after: bool):
        self.name, self.left, self.after = name, number, after

    def arm(self) -> None:
        real_call = getattr(os, self.name)

        def call(*args, **kwargs):
            self.left -= 1
            if not self.left and not self.after:
                if self.name == "fsync" and not os.isatty(args[0]) and os.fstat(args[0]).st_size > 8:
                    try:
                        os.ftruncate(args[0], os.fstat(args[0]).st_size // 2)  # as if only half had been written
                    except OSError:
                        pass  # a folder
                os.killpg(0, signal.SIGKILL)
            result = real_call(*args, **kwargs)
            if not self.left:
                os.killpg(0, signal.SIGKILL)
            return result

        setattr(os, self.name, call)

    def wait(self, main: int) -> None:
        pass


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Corpus, and what its store holds after a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    corpus = make(folder / "corpus")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "_SPAWN", workers.multiprocessing.get_context("fork"))
        run(corpus, folder / "store", shard_size=3)
    return corpus, content(folder / "store")


def test_killed_at_ten_random_moments_and_resumed(undisturbed, tmp_path, rng, monkeypatch):
    corpus, expected = undisturbed
    monkeypatch.setenv("ECMF_TEST_PAUSE", "0.05")  # 0.6 s of work for two workers: more than the ten runs get
    killed = sum(killed_at(corpus, tmp_path / "store", AfterSeconds(s)) for s in rng.uniform(0, 0.12, size=10))
    assert killed >= 5
    monkeypatch.delenv("ECMF_TEST_PAUSE")
    run(corpus, tmp_path / "store", shard_size=3)
    assert content(tmp_path / "store") == expected


@pytest.mark.parametrize("name", ["fsync", "replace", "open", "unlink"])
def test_killed_while_files_are_written(undisturbed, tmp_path, name, rng):
    corpus, expected = undisturbed
    if name == "unlink":  # only of shards that a changed manifest has made useless
        for number in range(2):
            run(corpus.select(IDS[1:]), tmp_path / f"store{number}", shard_size=3)
    for round, number in enumerate(rng.choice(np.arange(1, 22), size=6, replace=False)):
        store = tmp_path / f"store{round % 2}"  # the later kills hit a store that was hit before
        killed = killed_at(corpus, store, AtCall(name, int(number), after=bool(round % 2)))
        if round < 2:
            assert killed and content(store) != expected
    for store in (tmp_path / "store0", tmp_path / "store1"):
        run(corpus, store, shard_size=3)
        assert content(store) == expected
        assert not list((store / ".cache" / "writing").iterdir())


def test_spawned_run_is_killed_and_resumed(undisturbed, tmp_path):
    corpus, expected = undisturbed
    code = "import sys, test_extract as t; t.run(t.make(t.Path(sys.argv[1])), t.Path(sys.argv[2]), "
    code += "shard_size=3)"
    store = tmp_path / "store"
    folders = os.pathsep.join(str(path) for path in (Path(__file__).parent, Path(__file__).parents[1]))
    environment = os.environ | {"PYTHONPATH": folders, "ECMF_TEST_PAUSE": "0.02"}
    main = subprocess.Popen([sys.executable, "-c", code, corpus.root, store], env=environment, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(store.rglob("*.safetensors")) and main.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(main.pid, signal.SIGKILL)
    assert main.wait() == -signal.SIGKILL
    assert content(store) != expected
    run(corpus, store, shard_size=3)
    assert content(store) == expected


@pytest.fixture(scope="module")
def undisturbed_model(tmp_path_factory):
    """As `undisturbed`, with a model beside the workers."""
    folder = tmp_path_factory.mktemp("undisturbed_model")
    corpus = make(folder / "corpus")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "_SPAWN", workers.multiprocessing.get_context("fork"))
        run(corpus, folder / "store", with_model(), shard_size=3)
    return corpus, content(folder / "store")


def test_a_model_killed_at_ten_random_moments_and_resumed(undisturbed_model, tmp_path, rng, monkeypatch):
    corpus, expected = undisturbed_model
    monkeypatch.setenv("ECMF_TEST_PAUSE", "0.03")
    moments = [AfterSeconds(seconds) for seconds in rng.uniform(0, 0.3, size=10)]
    killed = sum(killed_at(corpus, tmp_path / "store", moment, with_model()) for moment in moments)
    assert killed >= 5
    monkeypatch.delenv("ECMF_TEST_PAUSE")
    run(corpus, tmp_path / "store", with_model(), shard_size=3)
    assert content(tmp_path / "store") == expected


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_model_killed_while_files_are_written(undisturbed_model, tmp_path, name, rng):
    corpus, expected = undisturbed_model
    for round, number in enumerate(rng.choice(np.arange(1, 30), size=5, replace=False)):
        killed = killed_at(corpus, tmp_path / "store", AtCall(name, int(number), after=bool(round % 2)), with_model())
        assert killed or round
    run(corpus, tmp_path / "store", with_model(), shard_size=3)
    assert content(tmp_path / "store") == expected


def test_spawned_run_with_a_model_is_the_same(undisturbed_model, tmp_path):
    corpus, expected = undisturbed_model
    ledger = run(corpus, tmp_path / "store", with_model(), shard_size=3, workers=1)
    assert content(tmp_path / "store") == expected
    assert (ledger["status"] == "done").all() and ledger["global"][5] == "audio is silent"
    found = FeatureStore(tmp_path / "store").open(ledger.attrs["sets"]["global"])
    assert found.about["checkpoint"] == {"origin": "hub", "commit": "c0ffee", "digest": "0" * 16}
    assert found.about["computed"] == {"device": found.about["computed"]["device"], "precision": "float32"}
    assert found.about["settings"]["encoder"]["pooling"] == "mean" and "computed" not in found.about["settings"]
    lengths = [int(16000 * (0.03 + 0.005 * number)) for number in range(24) if number != 5]
    assert [found.get(id)[0] for id in found.ids] == lengths


def test_batches_are_of_one_chunk_and_models_loaded_once(corpus, tmp_path, trace):
    run(corpus, tmp_path / "store", with_model(), shard_size=8, device="cpu")
    seen = trace()
    assert [line for line in seen if line.startswith("load")] == ["load cpu"]
    sizes = [int(line.split()[1]) for line in seen if line.startswith("batch")]
    assert sum(sizes) == 23 and max(sizes) > 2
    run(corpus, tmp_path / "store", with_model(), shard_size=8, device="cpu")
    assert trace() == [], "nothing to do: nothing loaded"


def test_only_what_has_changed_goes_through_the_model(corpus, tmp_path, trace):
    run(corpus, tmp_path / "store", with_model())
    trace()
    tone(corpus.root / "clip08.wav", 99)
    ledger = run(corpus, tmp_path / "store", with_model())
    assert trace() == ["batch 1", f"load {_device(tmp_path, ledger)}", "prepare clip08", "steps clip08"]


def _device(folder: Path, ledger: pd.DataFrame) -> str:
    return FeatureStore(folder / "store").open(ledger.attrs["sets"]["global"]).about["computed"]["device"]


def test_bad_weights_end_the_run_before_a_clip_is_touched(corpus, tmp_path, trace):
    with pytest.raises(WeightsError, match="is cut off; fetch it again"):
        run(corpus, tmp_path / "store", with_model(trouble="load"))
    with pytest.raises(EncoderError, match="device 'tpu' is not there"):
        run(corpus, tmp_path / "store", with_model(), device="tpu")
    assert trace() == [] and not list((tmp_path / "store").rglob("*.safetensors"))
    # also where all that is stored was done without the model
    run(corpus, tmp_path / "store")
    trace()
    with pytest.raises(WeightsError):
        run(corpus, tmp_path / "store", with_model(trouble="load"))
    assert trace() == []


@pytest.mark.parametrize(
    ("trouble", "id", "said"),
    [
        ("one", "clip14", "encoder 'model' failed with RuntimeError: CUDA error: unspecified"),
        ("nan", "clip14", "encoder 'model' failed with ValueError: clip 'clip14', stream 'global': 2 of 2 values"),
        ("prepare", "clip06", "encoder 'model' failed with ValueError: odd sound"),
    ],
)
def test_a_clip_that_a_model_cannot_do_costs_that_clip(corpus, tmp_path, trouble, id, said):
    ledger = run(corpus, tmp_path / "store", with_model(trouble=trouble)).set_index("id")
    assert ledger.index[ledger["status"] == "failed"].tolist() == [id]
    assert ledger["global"][id].startswith(said) and ledger["audio"][id] == ledger["text"][id] == "done"


def test_a_model_that_never_works_ends_the_run_and_notes_nothing(corpus, tmp_path):
    before = set(workers.multiprocessing.active_children())
    with pytest.raises(ModelError, match="'model' fails on every clip"):
        run(corpus, tmp_path / "store", with_model(trouble="all"))
    assert set(workers.multiprocessing.active_children()) <= before
    assert not list((tmp_path / "store").rglob("*global*/shards/*"))


def test_an_interrupted_run_ends_workers_and_model(corpus, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    before = set(workers.multiprocessing.active_children())
    monkeypatch.setenv("ECMF_TEST_PAUSE", "0.01")
    monkeypatch.setattr(extraction.Run, "_conclude", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(corpus, tmp_path / "store", with_model())
    assert set(workers.multiprocessing.active_children()) <= before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("models")]


def test_enrichment_belongs_to_what_is_read(corpus, tmp_path, trace):
    corpus.clips["enrichment"] = ""
    run(corpus, tmp_path / "store")
    trace()
    corpus.clips.loc[4, "enrichment"] = "she is glad"
    ledger = run(corpus, tmp_path / "store")
    assert trace() == ["words clip04"] and ledger["digest"].is_unique
    clip = list(corpus)[4]
    assert extraction._text_of(clip, "transcript") == ["clip04 says", ""]
    assert extraction._text_of(clip, "enrichment") == ["she is glad"]


def test_workers_of_classical_encoders_do_not_import_torch():
    code = "import sys, ecmf_lib.extract, ecmf_lib.encoders; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_imported_features_have_a_ledger_too(tmp_path):
    array = np.ones((3, 2))
    array[1] = np.nan
    store = FeatureStore(tmp_path)
    sets = import_arrays(
        store, ids=list("abc"), streams={"au": array}, corpus_name="t", corpus_fingerprint="f", source="t.npz"
    )
    ledger = imported_ledger(list("cbaz"), sets)
    assert ledger["id"].tolist() == list("cbaz") and ledger["status"].tolist() == ["done", "failed", "done", "failed"]
    assert ledger["au"].tolist()[1] == "2 of 2 values are NaN or infinite"
    assert ledger["digest"][0] == ledger["digest"][2] != ledger["digest"][1]  # a and c have the same features
    assert ledger["reason"].tolist()[3] == "au: not among the imported features"
    assert list(ledger.columns[:10]) == extraction._LEDGER.names and ledger.attrs["sets"] == {"au": sets["au"].name}


def test_spawned_run_on_real_clips(real, tmp_path):
    files = sorted((real / "ravdess_clips").glob("*.mp4"))[:2]
    table = pd.DataFrame({"id": [file.stem for file in files], "video": [file.name for file in files]})
    corpus = make_corpus("real", real / "ravdess_clips", table.assign(transcript="kids are talking by the door"))
    detector = get_detector("yunet", real / "weights")
    ledger = extract(corpus, tmp_path / "store", profile("light"), detector, n_frames=4, workers=1, progress=False)
    assert (ledger["status"] == "done").all() and (ledger["n_frames"] == 4).all() and ledger["face_share"].gt(0.5).all()
    store = FeatureStore(tmp_path / "store")
    for stream, encoder in profile("light").items():
        matrix, present = store.open(ledger.attrs["sets"][stream]).matrix(ledger["id"].tolist())
        assert present.all() and matrix.shape == (2, encoder.dim) and np.isfinite(matrix).all()
