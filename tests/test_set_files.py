"""set.json and index.parquet are held to their form: whoever opens a set can rely on every field."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecmf_lib.interchange import import_arrays
from ecmf_lib.set_files import read_about, read_index
from ecmf_lib.shards import StoreError
from ecmf_lib.store import FeatureStore


@pytest.fixture
def made(tmp_path):
    about = {"corpus_name": "c", "corpus_fingerprint": "f", "source": "s"}
    found = import_arrays(FeatureStore(tmp_path), ids=list("abc"), streams={"face": np.eye(3)}, **about)
    return found["face"]


def test_what_was_written_is_read(made):
    assert read_about(made.folder) == made.about
    assert read_index(made.folder / "index.parquet").equals(made.index)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("dim", value) for value in (0, -1, True, "3", 2**40, 1.5, None)),
        *(("name", value) for value in ("../x", "", 5, "a/b", "a\0")),
        *(("level", value) for value in ("frames", [], 1)),
        *(("corpus", value) for value in ("c", {}, {"name": 5})),
        *(("settings", value) for value in (None, [], {"encoder": "x"})),
        *(("stream", value) for value in (None, ["face"], "\ud800", "x" * 20_000)),
        *(("fingerprint", value) for value in (None, 5)),
    ],
)
def test_an_entry_that_cannot_be_names_the_file_and_itself(made, name, value):
    (made.folder / "set.json").write_text(json.dumps(made.about | {name: value}))
    with pytest.raises(StoreError, match=rf"set\.json: {name} missing, or not what"):
        read_about(made.folder)


@pytest.mark.parametrize("text", ["", "[]", "5", "{", "[" * 100_000, '{"format": true}', '{"format": 2}'])
def test_what_is_no_description_names_the_file(made, text):
    (made.folder / "set.json").write_text(text)
    with pytest.raises(StoreError, match=r"set\.json: not "):
        FeatureStore(made.folder.parents[1]).open(made.name)


def change(path, **columns):
    table = pq.read_table(path)
    for name, values in columns.items():
        at = table.column_names.index(name)
        table = table.remove_column(at) if values is None else table.set_column(at, name, pa.array(values))
    pq.write_table(table, path)


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"id": None}, "no column 'id'"),
        ({"id": ["a", "a", "b"]}, "more than once"),
        ({"id": [1, 2, 3]}, "column 'id' holds int64"),
        ({"key": ["x", None, "y"]}, "column 'key' has empty cells"),
        ({"state": ["done", "gone", "done"]}, "unknown state 'gone'"),
        ({"shard": ["../../../etc/passwd"] * 3}, "'../../../etc/passwd' is not the name of a shard"),
        ({"shard": ["/etc/x.safetensors"] * 3}, "is not the name of a shard"),
        ({"offset": [0, -1, 1]}, "rows that no shard has"),
        ({"length": [1, 0, 1]}, "rows that no shard has"),
        ({"length": [1, 2**62, 1]}, "rows that no shard has"),
        ({"offset": [0.0, 1.0, 2.0]}, "column 'offset' holds double"),
    ],
)
def test_an_index_that_cannot_be_says_why(made, columns, why):
    change(made.folder / "index.parquet", **columns)
    with pytest.raises(StoreError, match=rf"index\.parquet: damaged \(.*{why}"):
        read_index(made.folder / "index.parquet")


def test_an_index_that_points_beyond_a_shard_is_found_out_when_it_is_read(made):
    change(made.folder / "index.parquet", offset=[0, 1, 2**39], length=[1, 1, 1])
    again = FeatureStore(made.folder.parents[1]).open(made.name)
    for read in (lambda: again.get("c"), lambda: again.matrix(["c"])):
        with pytest.raises(StoreError, match=r"\.safetensors: .*index expects|damaged shard"):
            read()
    assert again.get("a").tolist() == [1, 0, 0]
