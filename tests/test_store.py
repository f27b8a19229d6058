"""Reading feature sets: what was stored comes back, and what is damaged or absent is said."""

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from ecmf_lib.shards import MISSING, Pair, Row, SetWriter
from ecmf_lib.store import FeatureSet, FeatureStore, StoreError, describe_set

CORPUS = {"name": "demo", "fingerprint": "f1", "clips": 5}


def about(**changes) -> dict:
    given = {"stream": "audio", "encoder": "fake", "level": "frame", "dim": 3, "licence": "MIT", "settings": {"a": 1}}
    return describe_set(**(given | {"corpus": CORPUS} | changes))


@pytest.fixture
def steps(rng) -> dict:
    """Four clips of 1 to 40 time steps."""
    return {f"clip {n}": rng.normal(size=(n, 3)).astype(np.float32) for n in (1, 7, 40, 2)}


def make(root, features: dict, described: dict, size: int = 2, finish: bool = True) -> FeatureSet:
    """A set of these features; None stands for a clip without."""
    store = FeatureStore(root)
    with store.locked():
        writer = SetWriter(store.folder(described["name"]), store.scratch, list(features), described)
        pairs = [Pair(id, "k") for id in features]
        for start in range(0, len(pairs), size):
            chunk = pairs[start : start + size]
            missing = {pair: (Row(pair, MISSING, "no face found"), None) for pair in chunk if features[pair.id] is None}
            writer.write_chunk(chunk, {pair: (Row(pair), features[pair.id]) for pair in chunk} | missing)
        if finish:
            writer.finish(pairs)
    return store.open(described["name"])


def test_variable_length_sequences_come_back(tmp_path, steps):
    found = make(tmp_path, steps, about())
    assert found.ids == list(steps) and (found.level, found.dim, found.stream) == ("frame", 3, "audio")
    for id, given in steps.items():
        np.testing.assert_array_equal(found.get(id), given)


def test_vectors_come_back_in_their_own_type(tmp_path):
    given = {id: np.full((1, 3), number, np.float16) for number, id in enumerate("abc")}
    found = make(tmp_path, given, about(level="clip"))
    assert found.get("b").tolist() == [1, 1, 1] and found.get("b").dtype == np.float16


def test_matrix_pools_and_marks_what_is_missing(tmp_path, steps):
    steps["none"] = None
    found = make(tmp_path, steps, about())
    ids = ["clip 40", "none", "never seen", "clip 2"]
    mean, present = found.matrix(ids)
    assert present.tolist() == [True, False, False, True] and mean.dtype == np.float32 and mean.shape == (4, 3)
    np.testing.assert_allclose(mean[0], steps["clip 40"].astype(float).mean(0), rtol=1e-6)
    np.testing.assert_array_equal(mean[1:3], 0)
    np.testing.assert_array_equal(found.matrix(ids, pool="max")[0][0], steps["clip 40"].max(0))
    with pytest.raises(ValueError, match="'median' is not known; choose from mean, max"):
        found.matrix(ids, pool="median")


def test_a_set_of_another_corpus_is_not_taken_for_missing_features(tmp_path, steps):
    with pytest.raises(StoreError, match=r"knows none of the 1 clips.*'elsewhere'.*'clip 1'"):
        make(tmp_path, steps, about()).matrix(["elsewhere"])


def test_get_gives_the_reason(tmp_path, steps):
    found = make(tmp_path, steps | {"x": None}, about())
    with pytest.raises(StoreError, match="no features of clip 'x': no face found"):
        found.get("x")
    with pytest.raises(StoreError, match="clip 'y': the set does not know this clip"):
        found.get("y")
    assert len(found) == 4 and len(found.index) == 5


def test_a_set_without_any_features_can_be_read(tmp_path):
    found = make(tmp_path, {"a": None, "b": None}, about())
    matrix, present = found.matrix(["a", "b"])
    assert matrix.shape == (2, 3) and not present.any() and found.ids == []


def test_sets_of_the_same_stream_stand_side_by_side(tmp_path, steps):
    make(tmp_path, steps, about())
    make(tmp_path, steps | {"x": None}, about(settings={"a": 2}))
    table = FeatureStore(tmp_path).sets()
    assert table["name"].nunique() == 2 and table["stream"].tolist() == ["audio", "audio"]
    assert sorted(zip(table["clips"], table["without"], strict=True)) == [(4, 0), (4, 1)]
    assert table["fingerprint"].nunique() == 2 and set(table["corpus"]) == {"demo"}


def test_fingerprint_covers_the_corpus_but_the_name_does_not(tmp_path):
    grown = about(corpus=CORPUS | {"fingerprint": "f2"})
    assert grown["name"] == about()["name"] and grown["fingerprint"] != about()["fingerprint"]


def test_set_json_has_no_path_and_no_date(tmp_path, steps):
    folder = make(tmp_path, steps, about()).folder
    text = (folder / "set.json").read_text()
    assert str(tmp_path) not in text
    assert set(json.loads(text)) == set(about())


def test_an_empty_store_has_no_sets(tmp_path):
    assert FeatureStore(tmp_path / "new").sets().empty
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["../secret", "/etc", "a/b", "", ".hidden", "no such"])
def test_a_name_that_is_no_set_is_refused(tmp_path, name):
    with pytest.raises(StoreError):
        FeatureStore(tmp_path).open(name)


def test_names_from_outside_stay_in_the_store(tmp_path, steps):
    hostile = about(stream="../../x", encoder="a/b\0c", corpus=CORPUS | {"name": "../情感"})
    found = make(tmp_path, steps, hostile)
    assert found.folder.parent == tmp_path / "sets" and found.stream == "../../x"


def test_an_interrupted_extraction_can_be_read(tmp_path, steps):
    found = make(tmp_path, steps, about(), finish=False)
    assert sorted(found.ids) == sorted(steps)


@pytest.mark.parametrize("file", ["set.json", "index.parquet"])
@pytest.mark.parametrize("kept", [0, 20])
def test_torn_descriptions_are_named(tmp_path, steps, file, kept):
    found = make(tmp_path, steps, about())
    path = found.folder / file
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(StoreError, match=file):
        FeatureStore(tmp_path).open(found.name)


def test_a_torn_shard_is_named_when_it_is_needed(tmp_path, steps):
    found = make(tmp_path, steps, about())
    path = found.folder / "shards" / found.index["shard"][3]
    path.write_bytes(path.read_bytes()[:-5])
    assert found.get("clip 1").shape == (1, 3)
    with pytest.raises(StoreError, match=path.name):
        found.get("clip 2")


def test_verify_finds_a_flipped_bit(tmp_path, steps):
    found = make(tmp_path, steps, about())
    assert found.verify() == []
    path = found.folder / "shards" / found.index["shard"][0]
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    problems = found.verify()
    assert len(problems) == 1 and path.name in problems[0] and "checksum" in problems[0]


def test_two_writers_are_refused(tmp_path):
    code = (
        "import sys; from ecmf_lib.store import FeatureStore\n"
        "with FeatureStore(sys.argv[1]).locked(): print('held', flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match=f"process {other.pid} is writing"), FeatureStore(tmp_path).locked():
            pass
    finally:
        other.kill()
        other.communicate()
    with FeatureStore(tmp_path).locked():  # the lock went with the process
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_a_store_that_cannot_be_written_is_refused_with_a_reason(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"file/store: cannot be written .*make the folder writable"):
        with FeatureStore(tmp_path / "file" / "store").locked():
            pass

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ecmf_lib.store.os.write", full)
    with FeatureStore(tmp_path / "other").locked():  # what is full shows when something that counts is written
        pass


def test_what_a_killed_writer_left_is_cleared(tmp_path):
    store = FeatureStore(tmp_path)
    store.scratch.mkdir(parents=True)
    (store.scratch / "123-half").write_bytes(b"ha")
    with store.locked():
        assert not list(store.scratch.iterdir())
