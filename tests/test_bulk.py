"""Importing in bulk: threads do not change what is written, and nothing is lost or half there when one fails."""

import os
import signal

import numpy as np
import pytest

from ecmf_lib import bulk, interchange
from ecmf_lib.bulk import Block, write_set
from ecmf_lib.interchange import import_arrays
from ecmf_lib.shards import Pair, Row, StoreError, pack_shard, read_rows
from ecmf_lib.store import FeatureStore, describe_set

IDS = [f"clip {n:03d}" for n in range(50)]
GIVEN = {"source": "t.npz", "corpus_name": "mer", "corpus_fingerprint": "f1"}


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    return FeatureStore(tmp_path / "store")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Seven clips a shard, whatever the level: 50 clips are eight shards."""
    monkeypatch.setattr(bulk, "_clips_in_shard", lambda level, dim: 7)


@pytest.fixture
def vectors(rng) -> np.ndarray:
    x = rng.normal(size=(50, 4)).astype(np.float32)
    x[[0, 13, 14]], x[20, 2] = np.nan, np.inf
    return x


def content(folder) -> dict:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_order_and_gaps_come_back(store, vectors):
    found = import_arrays(store, ids=IDS, streams={"s": vectors}, **GIVEN)["s"]
    x, present = found.matrix(IDS)
    fine = np.isfinite(vectors).all(1)
    np.testing.assert_array_equal(present, fine)
    np.testing.assert_array_equal(x, np.where(fine[:, None], vectors, 0))
    assert found.index["id"].tolist() == IDS and found.index["shard"].nunique() == 8
    said = dict(zip(found.index["id"], found.index["reason"], strict=True))
    assert said[IDS[0]] == "4 of 4 values are NaN or infinite" and said[IDS[20]].startswith("1 of 4")
    assert found.verify() == []


def test_frame_level_with_clips_without_steps(store, rng):
    steps = [rng.normal(size=(t, 3)) for t in rng.integers(0, 5, 50)]
    found = import_arrays(store, ids=IDS, streams={"s": steps}, **GIVEN)["s"]
    for id, given in zip(IDS, steps, strict=True):
        if len(given):
            np.testing.assert_array_equal(found.get(id), given.astype(np.float32))
    assert found.ids == [id for id, given in zip(IDS, steps, strict=True) if len(given)]


@pytest.mark.parametrize(
    "kind", ["float16", "float64", "int8", "bool", ">f4", "columns", "every second row", "strided"]
)
def test_arrays_of_any_kind_and_layout(store, rng, kind):
    x = rng.integers(0, 2, size=(50, 4)) if kind in ("int8", "bool") else rng.normal(size=(50, 4))
    if kind == "columns":
        x = np.asfortranarray(x.astype(np.float32))
    elif kind == "every second row":
        x = np.repeat(x.astype(np.float32), 2, 0)[::2]
    elif kind == "strided":
        x = np.repeat(x.astype(np.float32), 2, 1)[:, ::2]
    else:
        x = x.astype(kind)
    found = import_arrays(store, ids=IDS, streams={"s": x}, **GIVEN)["s"]
    np.testing.assert_array_equal(found.matrix(IDS[::-1])[0], x[::-1].astype(np.float32))
    assert found.get(IDS[3]).dtype == (np.float16 if kind == "float16" else np.float32)


def test_a_shard_is_what_the_plain_way_packs(store, vectors):
    found = import_arrays(store, ids=IDS, streams={"s": vectors}, **GIVEN)["s"]
    for name in set(found.index["shard"]):
        path = found.folder / "shards" / name
        rows = read_rows(path)
        steps = np.concatenate([vectors[IDS.index(row.pair.id)][None] for row in rows if row.length])
        assert path.read_bytes() == pack_shard(rows, steps)


def test_a_shard_without_any_features(store):
    x = np.full((50, 4), np.nan, np.float32)
    x[20:] = 1
    found = import_arrays(store, ids=IDS, streams={"s": x}, **GIVEN)["s"]
    assert found.matrix(IDS)[1].tolist() == [n >= 20 for n in range(50)]


def test_two_runs_write_the_same_bytes_and_the_second_nothing(store, tmp_path, vectors, monkeypatch):
    import_arrays(store, ids=IDS, streams={"s": vectors}, **GIVEN)
    other = FeatureStore(tmp_path / "other")
    import_arrays(other, ids=IDS, streams={"s": vectors}, **GIVEN)
    assert content(store.root / "sets") == content(other.root / "sets")
    monkeypatch.setattr(bulk, "write_file", None)
    import_arrays(store, ids=IDS, streams={"s": vectors}, **GIVEN)


def failing(monkeypatch, number: int, error: BaseException) -> None:
    """The write of the shard of this number fails."""
    write, left = bulk.write_file, [number]

    def fails(*given):
        left[0] -= 1
        if left[0] == 0:
            raise error
        write(*given)

    monkeypatch.setattr(bulk, "write_file", fails)


@pytest.mark.parametrize("number", [1, 4, 8])
@pytest.mark.parametrize("error", [StoreError("x: disk full"), KeyboardInterrupt()])
def test_what_was_written_before_a_failure_stays_and_is_not_written_again(
    store, tmp_path, vectors, monkeypatch, number, error
):
    with monkeypatch.context() as patch:
        failing(patch, number, error)
        with pytest.raises(type(error)):
            import_arrays(store, ids=IDS, streams={"s": vectors}, **GIVEN)
    (folder,) = (store.root / "sets").iterdir()
    there = {path: path.stat().st_ino for path in (folder / "shards").glob("*")}
    assert number - 1 <= len(there) < 8 and not (folder / "index.parquet").exists()
    partly = store.open(folder.name)  # what is done can be read
    assert len(partly.index) == sum(len(read_rows(path)) for path in there)
    import_arrays(store, ids=IDS, streams={"s": vectors}, **GIVEN)
    assert {path: path.stat().st_ino for path in there} == there
    other = FeatureStore(tmp_path / "other")
    import_arrays(other, ids=IDS, streams={"s": vectors}, **GIVEN)
    assert content(store.root / "sets") == content(other.root / "sets")


@pytest.mark.parametrize("kept", [0, 100, -1])
def test_torn_shards_are_written_again(store, vectors, kept):
    found = import_arrays(store, ids=IDS, streams={"s": vectors}, **GIVEN)["s"]
    before = content(store.root / "sets")
    for name in found.index["shard"][[0, 30]]:
        path = found.folder / "shards" / name
        path.write_bytes(path.read_bytes()[:kept])
    import_arrays(store, ids=IDS, streams={"s": vectors}, **GIVEN)
    assert content(store.root / "sets") == before


def test_a_failed_import_leaves_the_old_set_as_it_was(store, vectors, monkeypatch):
    found = import_arrays(store, ids=IDS, streams={"s": vectors}, **GIVEN)["s"]
    failing(monkeypatch, 3, StoreError("x: disk full"))
    with pytest.raises(StoreError, match="disk full"):
        import_arrays(store, ids=IDS, streams={"s": vectors + 1}, **GIVEN)
    fine = np.isfinite(vectors).all(1)
    np.testing.assert_array_equal(store.open(found.name).matrix(IDS)[0][fine], vectors[fine])


def test_a_changed_clip_changes_its_shard_only(store, vectors):
    first = import_arrays(store, ids=IDS, streams={"s": vectors}, **GIVEN)["s"].index
    vectors[30] += 1
    found = import_arrays(store, ids=IDS, streams={"s": vectors}, **GIVEN)["s"]
    assert (first["shard"] != found.index["shard"]).sum() == 7
    np.testing.assert_array_equal(found.get(IDS[30]), vectors[30])
    assert len(list((found.folder / "shards").iterdir())) == 8


def test_the_same_numbers_cut_otherwise_are_other_features(store):
    """Clips of 1 and 3 steps against 3 and 1, and of other clips: the same bytes, but not the same shard."""
    flat = np.arange(8, dtype=np.float32).reshape(4, 2)
    for ids, cut in ((["a", "b"], 1), (["a", "b"], 3), (["b", "a"], 3)):
        found = import_arrays(store, ids=ids, streams={"s": [flat[:cut], flat[cut:]]}, **GIVEN)["s"]
        np.testing.assert_array_equal(found.get(ids[0]), flat[:cut])
        np.testing.assert_array_equal(found.get(ids[1]), flat[cut:])


def test_a_reader_that_fails_ends_the_import(store):
    corpus = {"name": "mer", "fingerprint": "f", "clips": 50}
    described = describe_set(
        stream="s", encoder="x", level="clip", dim=2, licence="", settings={}, corpus=corpus
    )  # fmt: skip

    def read(start: int, stop: int) -> Block:
        if start >= 21:
            raise StoreError(f"rows {start} to {stop} cannot be read")
        return Block(np.ones((stop - start, 2), np.float32), [1] * (stop - start), [""] * (stop - start))

    with store.locked(), pytest.raises(StoreError, match="rows 21 to 28 cannot be read"):
        write_set(store, IDS, read, described)
    assert not (store.folder(described["name"]) / "index.parquet").exists()


@pytest.mark.parametrize(
    ("level", "dim", "clips"), [("clip", 1024, 2048), ("clip", 768, 2730), ("clip", 35, 4096), ("frame", 1024, 64)]
)
def test_sizes_of_shards(monkeypatch, level, dim, clips):
    monkeypatch.undo()
    assert bulk._clips_in_shard(level, dim) == clips
    assert bulk._clips_in_shard("clip", 10**7) == 64


def test_npy_folders_go_the_same_way(store, tmp_path, vectors):
    folder = tmp_path / "enc-UTT"
    folder.mkdir()
    for id, row in zip(IDS, vectors, strict=True):
        np.save(folder / f"{id}.npy", row)
    about = {"corpus_name": "mer", "corpus_fingerprint": "f1"}
    found = interchange.import_npy_folder(store, folder, stream="s", ids=[*IDS, "gone"], **about)
    same = import_arrays(store, ids=IDS, streams={"s": vectors}, **GIVEN)["s"]
    for one, other in zip(found.matrix(IDS[::-1]), same.matrix(IDS[::-1]), strict=True):
        np.testing.assert_array_equal(one, other)
    assert found.index["reason"].iloc[-1] == "no file gone.npy"


def killed_at(store: FeatureStore, vectors: np.ndarray, name: str, number: int) -> bool:
    """Import in another process that is killed at the n-th call of one of os's functions; whether it came to that."""
    child = os.fork()
    if child == 0:
        real, left = getattr(os, name), [number]

        def call(*given, **named):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*given, **named)

        setattr(os, name, call)
        try:
            import_arrays(store, ids=IDS, streams={"s": vectors}, **GIVEN)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_killed_while_threads_write(store, tmp_path, vectors, name):
    other = FeatureStore(tmp_path / "other")
    import_arrays(other, ids=IDS, streams={"s": vectors}, **GIVEN)
    for number in (2, 4, 2):  # each on what the one before left
        assert killed_at(store, vectors, name, number)
        for path in (store.root / "sets").rglob("*.safetensors"):
            assert read_rows(path)
    import_arrays(store, ids=IDS, streams={"s": vectors}, **GIVEN)
    assert content(store.root / "sets") == content(other.root / "sets")
    assert not list(store.scratch.iterdir())


def test_rows_say_where_they_lie(store):
    steps = [np.ones((2, 1)), np.ones((0, 1)), np.ones((3, 1))]
    found = import_arrays(store, ids=["a", "b", "c"], streams={"s": steps}, **GIVEN)["s"]
    (path,) = (found.folder / "shards").iterdir()
    key = found.index["key"][0]
    assert read_rows(path) == [
        Row(Pair("a", key), length=2),
        Row(Pair("b", key), "missing", "no time steps"),
        Row(Pair("c", key), offset=2, length=3),
    ]
