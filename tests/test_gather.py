"""Reading many clips at once: the same numbers as clip by clip, whatever the order, and nothing stays mapped."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ecmf_lib import gather
from ecmf_lib.shards import MISSING, Pair, Row, SetWriter, StoreError, pack_shard
from ecmf_lib.store import FeatureSet, FeatureStore, describe_set


def make(root, features: dict, level: str, dtype=np.float32, size: int = 5) -> FeatureSet:
    """A set of these features [t, 3] in shards of `size` clips; None stands for a clip without."""
    corpus = {"name": "demo", "fingerprint": "f1", "clips": len(features)}
    about = describe_set(
        stream="audio", encoder="fake", level=level, dim=3, licence="MIT", settings={}, corpus=corpus
    )  # fmt: skip
    store = FeatureStore(root)
    with store.locked():
        writer = SetWriter(store.folder(about["name"]), store.scratch, list(features), about)
        pairs = [Pair(id, "k") for id in features]
        for start in range(0, len(pairs), size):
            new = {}
            for pair in pairs[start : start + size]:
                steps = features[pair.id]
                row = Row(pair) if steps is not None else Row(pair, MISSING, "no face found")
                new[pair] = (row, None if steps is None else steps.astype(dtype))
            writer.write_chunk(list(new), new)
        writer.finish(pairs)
    return store.open(about["name"])


def slowly(found: FeatureSet, ids: list[str], pool: str = "mean") -> tuple[np.ndarray, np.ndarray]:
    """As :meth:`FeatureSet.matrix` says it, clip by clip."""
    known = set(found.ids)
    out = np.zeros((len(ids), found.dim), np.float32)
    for row, id in zip(out, ids, strict=True):
        if id in known:
            steps = np.atleast_2d(found.get(id)).astype(np.float32)
            row[:] = steps.mean(0, dtype=np.float64) if pool == "mean" else steps.max(0)
    return out, np.array([id in known for id in ids])


@pytest.fixture(params=[(8 << 20, 64 << 10), (100, 0), (24, 24), (1, 10)], ids=["usual", "small", "smaller", "least"])
def reads(request, monkeypatch) -> list:
    """Sizes of the reads that were done, with usual blocks and with ones that end within a shard."""
    block, gap = request.param
    monkeypatch.setattr(gather, "BLOCK", block)
    monkeypatch.setattr(gather, "_GAP", gap)
    done, preadv = [], gather.os.preadv

    def counted(file, buffers, start):
        done.append(sum(map(len, buffers)))
        return preadv(file, buffers, start)

    monkeypatch.setattr(gather.os, "preadv", counted)
    return done


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
@pytest.mark.parametrize("level", ["clip", "frame"])
def test_any_order_gives_what_clip_by_clip_gives(tmp_path, rng, reads, level, dtype):
    steps = rng.integers(1, 9, 23) if level == "frame" else np.ones(23, int)
    features = {f"clip {n}": rng.normal(size=(t, 3)) for n, t in enumerate(steps)}
    for gone in (0, 7, 22):
        features[f"clip {gone}"] = None
    found = make(tmp_path, features, level, dtype)
    ids = list(features)
    asked = {
        "all, in order": ids,
        "present, in order": found.ids,
        "backwards": ids[::-1],
        "at random": [ids[i] for i in rng.permutation(len(ids))],
        "some": ids[3:20:4],
        "again and again": ["clip 9", "clip 2", "clip 9", "clip 8", "clip 9"],
        "unknown ones": ["?", *ids[12:], "??"],
        "one": ["clip 21"],
        "none": [],
    }
    for what, wanted in asked.items():
        for pool in ("mean", "max"):
            x, present = found.matrix(wanted, pool)
            expected, there = slowly(found, wanted, pool)
            np.testing.assert_array_equal(x, expected, err_msg=what)
            np.testing.assert_array_equal(present, there, err_msg=what)
            assert x.dtype == np.float32 and present.dtype == bool and x.flags.writeable
    assert reads


def test_a_shard_in_order_is_one_read(tmp_path, rng, monkeypatch):
    found = make(tmp_path, {f"{n:02d}": rng.normal(size=(1, 3)) for n in range(20)}, "clip")
    sizes, preadv = [], gather.os.preadv
    monkeypatch.setattr(gather.os, "preadv", lambda *given: sizes.append(len(given[1][0])) or preadv(*given))
    found.matrix(found.ids)
    assert sizes == [5 * 3 * 4] * 4
    sizes.clear()
    found.matrix([found.ids[i] for i in rng.permutation(20)])
    assert sorted(sizes) == [5 * 3 * 4] * 4


def test_a_few_clips_of_a_large_shard_do_not_read_all_of_it(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(gather, "_GAP", 10)
    found = make(tmp_path, {f"{n:02d}": rng.normal(size=(1, 3)) for n in range(40)}, "clip", size=40)
    sizes, preadv = [], gather.os.preadv
    monkeypatch.setattr(gather.os, "preadv", lambda *given: sizes.append(len(given[1][0])) or preadv(*given))
    found.matrix(["39", "00", "20", "21"])
    assert sorted(sizes) == [12, 12, 24]


def test_short_reads_are_continued(tmp_path, rng, monkeypatch):
    found = make(tmp_path, {f"{n:02d}": rng.normal(size=(1, 3)) for n in range(7)}, "clip")
    expected = slowly(found, found.ids)[0]
    preadv = gather.os.preadv
    monkeypatch.setattr(gather.os, "preadv", lambda file, buffers, start: preadv(file, [buffers[0][:5]], start))
    np.testing.assert_array_equal(found.matrix(found.ids)[0], expected)


def test_no_shard_stays_mapped(tmp_path, rng):
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("no /proc/self/maps on this system")
    found = make(tmp_path, {f"{n:02d}": rng.normal(size=(1, 3)) for n in range(20)}, "clip")
    found.matrix(found.ids)
    assert str(found.folder) not in maps.read_text()


def test_a_torn_shard_and_an_absent_one_are_named(tmp_path, rng):
    found = make(tmp_path, {f"{n:02d}": rng.normal(size=(1, 3)) for n in range(20)}, "clip")
    path = found.folder / "shards" / found.index["shard"][7]
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(StoreError, match=f"{path.name}: cannot be read"):
        found.matrix(found.ids)
    path.unlink()
    with pytest.raises(StoreError, match=f"{path.name}: cannot be read"):
        found.matrix(found.ids)


def only(path: Path, offset: int, length: int, dim: int = 3) -> np.ndarray:
    """One clip of a shard."""
    out, one = np.zeros((1, dim), np.float32), np.ones(1, int)
    gather.gather(out, one * 0, [str(path)], one * 0, one * offset, one * length)
    return out


def test_an_index_that_does_not_fit_its_shard_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(pack_shard([Row(Pair("a", "k"), length=2)], np.ones((2, 3), np.float32)))
    assert only(path, 1, 1).tolist() == [[1, 1, 1]]
    with pytest.raises(StoreError, match=r"x\.safetensors: 2 time steps, the index expects more"):
        only(path, 2, 1)
    with pytest.raises(StoreError, match=r"x\.safetensors: F32 \[2, 3\]; expected floats \[steps, 4\]"):
        only(path, 0, 1, dim=4)
    for offset, length in ((-1, 1), (0, 0)):
        with pytest.raises(StoreError, match=r"x\.safetensors: the index gives rows that cannot be"):
            only(path, offset, length)


def test_features_that_are_no_floats_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"features": np.ones((2, 3), np.int32)}, path)
    with pytest.raises(StoreError, match=r"I32 .* expected floats"):
        only(path, 0, 1)
