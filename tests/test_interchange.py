"""Other tools' features: read without pickle, accounted for clip by clip, written as the baseline reads them."""

import os

import numpy as np
import pytest

from ecmf_lib.interchange import export_npy_folder, import_arrays, import_npy_folder, import_npz
from ecmf_lib.store import FeatureStore, StoreError

CORPUS = {"corpus_name": "mer", "corpus_fingerprint": "f1"}


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    return FeatureStore(tmp_path / "store")


@pytest.fixture
def folder(tmp_path, rng):
    """A baseline folder of six good clips at frame level."""
    path = tmp_path / "hubert-large-FRA"
    path.mkdir()
    for n in range(1, 7):
        np.save(path / f"sample_{n}.npy", rng.normal(size=(n, 4)).astype(np.float32))
    return path


def reasons(found) -> dict:
    return dict(zip(found.index["id"], found.index["reason"], strict=True))


def test_arrays_become_sets(store, rng):
    vectors, sequences = rng.normal(size=(3, 5)), [rng.normal(size=(t, 2)).astype(np.float16) for t in (1, 4, 2)]
    sets = import_arrays(
        store, ids=["a", "b", "c"], streams={"au35": vectors, "face frames": sequences}, source="t.npz", **CORPUS
    )
    assert sets["au35"].level == "clip" and sets["face frames"].level == "frame"
    np.testing.assert_array_equal(sets["au35"].get("b"), vectors[1].astype(np.float32))
    assert sets["au35"].get("b").dtype == np.float32
    np.testing.assert_array_equal(sets["face frames"].get("b"), sequences[1])
    assert sets["face frames"].get("b").dtype == np.float16
    assert store.sets()["corpus"].tolist() == ["mer", "mer"]


def test_a_clip_that_is_not_finite_is_recorded_with_its_reason(store):
    array = np.ones((4, 3))
    array[1, 0], array[2], array[3, 1] = np.nan, np.inf, 1e300
    found = import_arrays(store, ids=list("abcd"), streams={"s": array}, source="x", **CORPUS)["s"]
    assert found.ids == ["a"]
    assert reasons(found)["b"] == "1 of 3 values are NaN or infinite"
    assert reasons(found)["c"] == "3 of 3 values are NaN or infinite"
    assert reasons(found)["d"] == "1 of 3 values are NaN or infinite"  # too large for float32


@pytest.mark.parametrize(
    ("ids", "array", "said"),
    [
        (["a", "a"], np.ones((2, 3)), "more than once, such as 'a'"),
        (["a"], np.ones((2, 3)), "stream 's': 2 rows for 1 ids"),
        (["a"], np.ones(3), r"stream 's': array of shape \(3,\)"),
        (["a", "b"], [np.ones((2, 3)), np.ones((2, 4))], "stream 's': time steps of shapes"),
        (["a"], np.array([["x", "y"]]), "holds no numbers"),
        ([], np.ones((0, 3)), "no clips"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(store, ids, array, said):
    with pytest.raises(StoreError, match=said):
        import_arrays(store, ids=ids, streams={"s": array}, source="x", **CORPUS)


def test_importing_again_replaces_and_an_unchanged_import_changes_nothing(store):
    first = import_arrays(store, ids=list("abc"), streams={"s": np.ones((3, 2))}, source="x", **CORPUS)["s"]
    shard = next((first.folder / "shards").iterdir())
    before = shard.stat().st_mtime_ns
    import_arrays(store, ids=list("abc"), streams={"s": np.ones((3, 2))}, source="x", **CORPUS)
    assert shard.stat().st_mtime_ns == before
    other = import_arrays(store, ids=list("bc"), streams={"s": np.zeros((2, 2))}, source="x", **CORPUS)["s"]
    assert other.name == first.name and other.ids == ["b", "c"] and not other.get("b").any()
    assert not shard.exists()


def test_npz_round_trip(store, tmp_path, rng):
    path = tmp_path / "table.npz"
    array = rng.normal(size=(4, 6)).astype(np.float32)
    np.savez(path, name=np.array([b"a", b"b", b"c", b"d"]), au=array, other=np.ones(4))
    found = import_npz(store, path, arrays={"au": "face"}, id_key="name", keep=["d", "b"])["face"]
    assert found.ids == ["d", "b"] and found.encoder == "table.npz" and found.about["corpus"]["name"] == "table"
    np.testing.assert_array_equal(found.matrix(["b", "d"])[0], array[[1, 3]])


def test_npz_refusals_name_the_file(store, tmp_path):
    path = tmp_path / "t.npz"
    np.savez(path, id=np.array(["a", "b"], object), x=np.ones((2, 2)))
    with pytest.raises(StoreError, match=r"t\.npz: array 'id': holds Python objects \(pickle\)"):
        import_npz(store, path, arrays={"x": "face"})
    np.savez(path, id=np.array(["a", "b"]), x=np.ones((2, 2)))
    with pytest.raises(StoreError, match=r"t\.npz: no array 'y'; there are id, x"):
        import_npz(store, path, arrays={"y": "face"})
    with pytest.raises(StoreError, match=r"t\.npz: no row of 1 clip\(s\) asked for, such as 'z'"):
        import_npz(store, path, arrays={"x": "face"}, keep=["a", "z"])
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StoreError, match=r"t\.npz.*expected a file of plain arrays"):
        import_npz(store, path, arrays={"x": "face"})
    with pytest.raises(StoreError, match="No such file"):
        import_npz(store, tmp_path / "absent.npz", arrays={"x": "face"})


def test_real_tables(store, real):
    path = real / "ravdess_features" / "ravdess_dev_actors01-18.npz"
    sets = import_npz(store, path, arrays={"au35": "face", "mfcc259": "audio", "w2v2_1024": "w2v2_1024"})
    with np.load(path, allow_pickle=False) as table:
        assert {stream: found.dim for stream, found in sets.items()} == {"face": 35, "audio": 259, "w2v2_1024": 1024}
        for stream, array in (("face", "au35"), ("w2v2_1024", "w2v2_1024")):
            matrix, present = sets[stream].matrix(table["id"].tolist())
            assert present.all() and len(present) == 1080
            np.testing.assert_array_equal(matrix, table[array].astype(np.float32))
    assert sets["w2v2_1024"].get(sets["face"].ids[0]).dtype == np.float16
    cremad = real / "cremad_features" / "cremad_dev_1001-1073.npz"
    found = import_npz(store, cremad, arrays={"vivit_random_768_mean": "global"}, licence="ODbL")["global"]
    assert len(found) == 5966 and found.dim == 768 and found.licence == "ODbL"


def test_baseline_folder_round_trip(store, folder, tmp_path):
    found = import_npy_folder(store, folder, stream="audio", **CORPUS)
    assert (found.encoder, found.level, found.dim, len(found)) == ("hubert-large", "frame", 4, 6)
    out = export_npy_folder(found, tmp_path / "features", level="FRA")
    assert out == tmp_path / "features" / "hubert-large-FRA"
    for file in folder.iterdir():
        np.testing.assert_array_equal(np.load(out / file.name), np.load(file))


def test_time_means_as_the_baseline_reads_them(store, folder, tmp_path):
    found = import_npy_folder(store, folder, stream="audio", **CORPUS)
    out = export_npy_folder(found, tmp_path / "features", level="UTT")
    mean = np.load(out / "sample_5.npy")
    assert mean.shape == (4,) and mean.dtype == np.float32
    np.testing.assert_allclose(mean, np.load(folder / "sample_5.npy").mean(0), rtol=1e-5)
    again = import_npy_folder(store, out, stream="audio", **CORPUS)
    assert again.level == "clip" and again.name != found.name
    np.testing.assert_array_equal(again.get("sample_5"), mean)


def test_bad_files_are_recorded_and_the_good_ones_taken(store, folder, tmp_path):
    np.save(folder / "bad_dim.npy", np.ones((2, 5)))
    np.save(folder / "bad_dim2.npy", np.ones((2, 7)))
    np.save(folder / "bad_nan.npy", np.full((2, 4), np.nan))
    np.save(folder / "bad_shape.npy", np.ones((2, 4, 4)))
    np.save(folder / "bad_empty.npy", np.ones((0, 4)))
    np.save(folder / "bad_text.npy", np.array(["a", "b"]))
    np.save(folder / "bad_objects.npy", np.array([{"a": 1}], object))
    (folder / "bad_torn.npy").write_bytes((folder / "sample_6.npy").read_bytes()[:150])
    (folder / "bad_zero.npy").write_bytes(b"")
    np.savez(tmp_path / "x.npz", a=np.ones(3))
    (folder / "bad_npz.npy").write_bytes((tmp_path / "x.npz").read_bytes())
    (folder / "bad_dir.npy").mkdir()
    np.save(tmp_path / "outside.npy", np.ones((2, 4)))
    os.symlink(tmp_path / "outside.npy", folder / "bad_link.npy")
    np.save(folder / "one_step.npy", np.ones(4))
    found = import_npy_folder(store, folder, stream="audio", **CORPUS)
    said = reasons(found)
    bad = {id for id, reason in said.items() if reason}
    assert sorted(bad) == sorted(path.stem for path in folder.glob("bad_*"))
    assert sorted(found.ids) == ["one_step", *(f"sample_{n}" for n in range(1, 7))]
    assert said["bad_dim"] == "bad_dim.npy has 5 features; most files here have 4"
    assert "7 features" in said["bad_dim2"]
    assert "8 of 8 values" in said["bad_nan"]
    assert "(2, 4, 4); expected [t, dim]" in said["bad_shape"]
    assert "is empty" in said["bad_empty"]
    assert "pickle" in said["bad_objects"]
    assert "link out of the folder" in said["bad_link"]
    assert all(str(tmp_path) not in reason for reason in said.values())


def test_a_header_that_promises_too_much_is_not_believed(store, folder):
    with open(folder / "huge.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 4)})
    found = import_npy_folder(store, folder, stream="audio", **CORPUS)
    assert "huge" not in found.ids and reasons(found)["huge"]


def test_clips_of_the_corpus_without_a_file_are_recorded(store, folder):
    found = import_npy_folder(store, folder, stream="audio", ids=["sample_2", "gone", "../sample_1"], **CORPUS)
    assert found.ids == ["sample_2"]
    assert reasons(found)["gone"] == "no file gone.npy"
    assert "not a file name" in reasons(found)["../sample_1"]


def test_a_folder_with_nothing_to_read_is_refused(store, tmp_path):
    with pytest.raises(StoreError, match="no such folder"):
        import_npy_folder(store, tmp_path / "absent-UTT", stream="audio", **CORPUS)
    (tmp_path / "x-UTT").mkdir()
    with pytest.raises(StoreError, match=r"holds no \.npy file"):
        import_npy_folder(store, tmp_path / "x-UTT", stream="audio", **CORPUS)
    (tmp_path / "features").mkdir()
    with pytest.raises(StoreError, match="neither in -UTT nor in -FRA"):
        import_npy_folder(store, tmp_path / "features", stream="audio", **CORPUS)


@pytest.mark.parametrize("id", ["../up", "a/b", "a\\b", "a\0b", ".hidden", "", "x" * 300])
def test_an_id_never_becomes_a_path(store, tmp_path, id):
    found = import_arrays(store, ids=[id, "ok"], streams={"s": np.ones((2, 2))}, source="x", **CORPUS)["s"]
    with pytest.raises(StoreError, match="not a file name"):
        export_npy_folder(found, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_export_does_not_mix_with_what_is_there(store, tmp_path):
    found = import_arrays(store, ids=["a"], streams={"s": np.ones((1, 2))}, source="x", **CORPUS)["s"]
    out = export_npy_folder(found, tmp_path / "out")
    with pytest.raises(StoreError, match="is there already"):
        export_npy_folder(found, tmp_path / "out")
    assert [path.name for path in out.iterdir()] == ["a.npy"]
