"""What npy, npz and parquet files promise is held against their size before anything is allocated."""

import io
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile_arrays import ARRAYS, array_of, zipped

from ecmf_lib.bounded_arrays import map_npy, npz_names, read_npz, read_parquet

GOOD = {"a": np.arange(6.0).reshape(2, 3), "b": np.array(["x", "yz", "好"]), "c": np.array(7), "d": np.zeros((0, 4))}


def npy(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_plain_arrays_come_back_as_they_were(tmp_path, save):
    save(tmp_path / "a.npz", **GOOD)
    assert npz_names(tmp_path / "a.npz") == list(GOOD)
    for found, names in ((read_npz(tmp_path / "a.npz"), list(GOOD)), (read_npz(tmp_path / "a.npz", ["b", "z"]), ["b"])):
        assert list(found) == names
        for name in names:
            np.testing.assert_array_equal(found[name], GOOD[name])
            assert found[name].dtype == GOOD[name].dtype


@pytest.mark.parametrize("array", [*GOOD.values(), np.asfortranarray(np.arange(6).reshape(2, 3)), np.ones(3, ">f4")])
def test_a_mapped_array_is_what_numpy_reads(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    found = map_npy(tmp_path / "a.npy")
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype and not (found.size and found.flags.writeable)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_all_versions_of_the_format_are_read(tmp_path, version):
    with open(tmp_path / "a.npy", "wb") as file:
        np.lib.format.write_array(file, np.arange(4.0), version=version)
    np.testing.assert_array_equal(map_npy(tmp_path / "a.npy"), np.arange(4.0))


BAD = {name: content for name, content in ARRAYS.items() if " shape of" in name or "header" in name or "TB" in name}


@pytest.mark.parametrize("name", BAD)
def test_headers_that_lie_are_refused_with_a_reason(tmp_path, name):
    with pytest.raises(ValueError, match=r"header|shape|promises|npy") as refused:
        map_npy(npy(tmp_path / "a.npy", ARRAYS[name]))
    assert len(str(refused.value)) < 300
    (tmp_path / "a.npz").write_bytes(zipped({"x.npy": ARRAYS[name]}))
    with pytest.raises(ValueError, match="array 'x'"):
        read_npz(tmp_path / "a.npz")


def test_a_promise_is_told_beside_what_is_there(tmp_path):
    with pytest.raises(ValueError, match=r"promises 4,000 bytes, shape \(1000,\); 24 are there"):
        map_npy(npy(tmp_path / "a.npy", array_of("(1000,)")))


def test_nothing_is_unpickled(tmp_path):
    for content in (ARRAYS["Python objects"], ARRAYS["a bare pickle"]):
        with pytest.raises(ValueError, match="pickle"):
            map_npy(npy(tmp_path / "a.npy", content))


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out, out.open("x.npy", "w") as member:
        member.write(array_of(f"({100 * 2**20},)", data=b""))
        for _ in range(100):
            member.write(bytes(2**22))
    (tmp_path / "a.npz").write_bytes(file.getvalue())
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_, **__: pytest.fail("it was unpacked"))
    with pytest.raises(ValueError, match=r"would be 419,430,\d+ when it unpacks, more than 268,435,456: a zip bomb"):
        read_npz(tmp_path / "a.npz")


def test_features_that_compress_well_are_no_bomb(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((2000, 4096), np.float32))  # 32 MB in 32 kB
    assert read_npz(tmp_path / "a.npz")["x"].shape == (2000, 4096)


def test_letters_that_are_no_characters_are_refused(tmp_path):
    points = np.array([0xD800, 0x10FFFF], np.uint32).view("<U1")
    (tmp_path / "a.npz").write_bytes(zipped({"x.npy": array_of("(2,)", "'<U1'", data=points.tobytes())}))
    with pytest.raises(ValueError, match="array 'x': holds letters that are no Unicode"):
        read_npz(tmp_path / "a.npz")


# ---- parquet


def test_a_parquet_table_comes_back_as_it_was(tmp_path):
    table = pa.table({"id": ["a", "b", None], "n": [1, 2, 3], "x": [0.5, None, 1.0], "many": ["same"] * 3})
    table = table.replace_schema_metadata({"ecmf": "{}"})
    pq.write_table(table, tmp_path / "a.parquet")
    found = read_parquet(tmp_path / "a.parquet")
    assert found.equals(table) and found.schema.equals(table.schema, check_metadata=True)
    assert read_parquet(tmp_path / "a.parquet", ["n"]).column_names == ["n"]


def test_a_parquet_table_of_one_value_many_times_is_refused(tmp_path):
    once = pa.DictionaryArray.from_arrays(pa.array([0] * 2_000_000, pa.int32()), ["a"]).cast(pa.string())
    pq.write_table(pa.table({"id": once}), tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=r"promises 2,000,000 rows in \d\d\d bytes|in [\d,]+ bytes, where each"):
        read_parquet(tmp_path / "rows.parquet")
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 50_000, pa.int32()), ["a" * 20_000])
    pq.write_table(pa.table({"id": long}), tmp_path / "text.parquet")
    with pytest.raises(ValueError, match=r"would be 1,000,\d+,\d+ when it is read"):
        read_parquet(tmp_path / "text.parquet")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(200) + b"PAR1", b"PAR1\xff\xff\xff\xffPAR1"])
def test_what_is_no_parquet_file_is_a_value_error(tmp_path, content):
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=r"[a-z]"):
        read_parquet(tmp_path / "a.parquet")
    with pytest.raises(FileNotFoundError):
        read_parquet(tmp_path / "none.parquet")
