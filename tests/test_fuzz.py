"""Anything at all in a manifest, in features or in parameters: taken with what it says, or refused in words.

Hypothesis draws the same examples each time. atheris (libFuzzer) runs the readers of manifests and stores on bytes that
find new paths through them, so many times and no longer.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ecmf_lib.adapters import open_corpus
from ecmf_lib.config import EMOTIONS, NOTEBOOKS, SettingsError, check_parameters
from ecmf_lib.corpus import COLUMNS, SPLITS, CorpusError, safe_id
from ecmf_lib.interchange import import_arrays, import_npz
from ecmf_lib.run import _assignments, language_model, swaps
from ecmf_lib.shards import StoreError
from ecmf_lib.store import FeatureStore

ODD = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
FEWER = settings(ODD, max_examples=60)

# ------------------------------------------------------------------------------------------------ manifests

words = st.one_of(
    st.sampled_from(["", " ", "happy", "Happy", "labelled", "test", "a", "clip1", "../x", "x.mp4", "=1+1", "NA", "0"]),
    st.text(max_size=8),
)
ids = st.one_of(st.integers(0, 99).map("clip{}".format), words)
names = st.one_of(st.sampled_from([*COLUMNS, "annotator_1", "part", "lable", "Label"]), st.text(max_size=6))


@st.composite
def manifests(draw):
    """Column → cells, most of them plausible."""
    columns = draw(st.lists(names, unique=True, max_size=5))
    rows = draw(st.integers(0, 4))
    table = {"id": draw(st.lists(ids, min_size=rows, max_size=rows))} if draw(st.booleans()) or not columns else {}
    return table | {name: draw(st.lists(words, min_size=rows, max_size=rows)) for name in columns}


def checked(path):
    """A corpus keeps what it promises: ids that can be file names, known labels and splits, paths inside."""
    corpus = open_corpus(str(path))
    clips = corpus.clips
    assert len(clips) and clips["id"].is_unique and all(map(safe_id, clips["id"]))
    assert set(clips["label"]) <= {*EMOTIONS, ""} and set(clips["split"]) <= set(SPLITS)
    assert all((clip.video or path).resolve().is_relative_to(path.parent.resolve()) for clip in corpus)
    assert len(corpus.groups()[0]) == len(corpus) and len(corpus.fingerprint) == 16
    return corpus


@ODD
@given(manifests())
@example({"id": ["a\0"], "label": ["happy"]})
@example({"id": ["a"], "video": ["x" * 5000]})
def test_any_manifest_is_a_corpus_or_refused_with_its_file(tmp_path, table):
    path = tmp_path / "table.csv"
    pd.DataFrame(table, dtype=str).to_csv(path, index=False, encoding="utf-8", errors="surrogatepass")
    try:
        corpus = checked(path)
    except CorpusError as error:
        assert "table.csv" in str(error) or "manifest of corpus 'table'" in str(error)
        return
    assert len(corpus) + len(corpus.left_out) <= len(table["id"])


@ODD
@given(
    st.one_of(
        st.binary(max_size=200), st.text(max_size=100).map(lambda text: f"id,label\n{text}".encode("utf-8", "replace"))
    )
)
@example(b'id,label\n"a"b,happy\n')
@example(b"\xff\xfei\0d\0")
@example(b"id\n\x81\x8d\n")
def test_any_bytes_are_a_corpus_or_refused_with_their_file(tmp_path, raw):
    path = tmp_path / "table.csv"
    path.write_bytes(raw)
    try:
        checked(path)
    except CorpusError as error:
        assert "table" in str(error)


@FEWER
@given(st.dictionaries(st.sampled_from(["table", "name", "encoding", "labels", "columns", "licence", "x"]), words))
def test_any_description_of_a_table_is_taken_or_refused(tmp_path, told):
    (tmp_path / "table.csv").write_text("id,label\na,happy\n")
    lines = [f"{name} = {json.dumps(value)}" for name, value in told.items()]
    (tmp_path / "corpus.toml").write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    with pytest.raises(CorpusError, match=r"corpus\.toml"):
        open_corpus(str(tmp_path / "corpus.toml"))


# ------------------------------------------------------------------------------------------------ features

arrays = hnp.arrays(
    dtype=st.one_of(
        *(hnp.floating_dtypes(), hnp.integer_dtypes(), hnp.boolean_dtypes(), hnp.complex_number_dtypes()),
        *(hnp.unicode_string_dtypes(max_len=4), hnp.byte_string_dtypes(max_len=4), hnp.datetime64_dtypes()),
    ),
    shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
ABOUT = {"corpus_name": "c", "corpus_fingerprint": "f", "source": "made"}


@ODD
@given(st.one_of(arrays, st.lists(arrays, max_size=4)), st.integers(0, 4))
def test_any_array_is_imported_as_it_is_or_refused(tmp_path_factory, features, n):
    clips = [f"clip{i}" for i in range(n)]
    store = FeatureStore(tmp_path_factory.mktemp("store"))
    try:
        made = import_arrays(store, ids=clips, streams={"face": features}, **ABOUT)["face"]
    except StoreError as error:
        assert "made" in str(error) or "face" in str(error)
        return
    assert not made.verify() and made.index["id"].tolist() == clips
    for clip, given_steps in zip(clips, features, strict=True):
        if clip in made.ids:
            steps = np.asarray(given_steps, made.get(clip).dtype)
            np.testing.assert_array_equal(made.get(clip), steps)
            assert np.isfinite(made.get(clip)).all()
        else:
            assert made.index.set_index("id")["reason"][clip]
    matrix, present = made.matrix(clips)
    assert np.isfinite(matrix).all() and [c for c, there in zip(clips, present, strict=True) if there] == made.ids


@FEWER
@given(st.dictionaries(st.sampled_from(["id", "label", "emotion", "face", "speaker", "a b"]), arrays))
def test_any_npz_is_a_corpus_and_imported_or_refused_with_its_file(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("npz")
    np.savez(folder / "table.npz", **content)
    try:
        corpus = open_corpus(str(folder / "table.npz"))
        assert len(corpus) and corpus.features
        wanted = {table.array: table.stream for table in corpus.features}
        import_npz(FeatureStore(folder / "store"), folder / "table.npz", arrays=wanted)
    except (CorpusError, StoreError) as error:
        assert "table" in str(error)


@FEWER
@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=12))
def test_a_shard_with_any_bytes_changed_is_found_out_or_read_whole(tmp_path_factory, at, new):
    store = FeatureStore(tmp_path_factory.mktemp("store"))
    face = np.arange(12, dtype=np.float32).reshape(4, 3)
    made = import_arrays(store, ids=list("abcd"), streams={"face": face}, **ABOUT)["face"]
    (path,) = (made.folder / "shards").iterdir()
    raw = bytearray(path.read_bytes())
    raw[at % len(raw) : at % len(raw) + len(new)] = new
    path.write_bytes(raw)
    try:
        matrix, _ = store.open(made.name).matrix(list("abcd"))
    except StoreError as error:
        assert path.name in str(error)
        return
    assert np.array_equal(matrix, face) or store.open(made.name).verify()


# ------------------------------------------------------------------------------------------------ parameters

fields = sorted({name for model in NOTEBOOKS.values() for name in model.model_fields})
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10), st.builds(lambda: 10**5000)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=6,
)


@ODD
@given(
    st.sampled_from(sorted(NOTEBOOKS)), st.dictionaries(st.one_of(st.sampled_from(fields), st.text(max_size=6)), values)
)
def test_any_parameters_are_taken_as_they_are_or_refused_by_name(notebook, told):
    try:
        taken = check_parameters(notebook, told)
    except SettingsError as error:
        assert str(error).startswith(f"{notebook}: ") and any(name in str(error) for name in told)
        return
    for name, value in told.items():
        assert getattr(taken, name) == value, name


signs = st.text(alphabet="=:,\"'\n\r\0-+.0123456789²٤eEinfaudiostrems\\ ", max_size=20)
pairs = st.one_of(signs, st.tuples(st.sampled_from(fields), signs).map("=".join), st.text(max_size=12))


@ODD
@given(st.lists(pairs, max_size=3), st.sampled_from([_assignments, swaps, language_model]))
@example(["seed=²"], _assignments)
@example(["streams=a\nb"], _assignments)
@example(["folder=\0"], language_model)
def test_any_options_of_the_command_line_are_taken_or_refused(options, read):
    try:
        taken = read(options)
    except SettingsError as error:
        assert "--" in str(error) or "no such file" in str(error)
        return
    assert isinstance(taken, dict) and len(taken) <= len(options)


# ------------------------------------------------------------------------------------------------ atheris

RUNS = 600


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not here: pip install .[dev]")
@pytest.mark.parametrize("target", ["manifest", "parquet", "npz", "store", "bundle"])
def test_bytes_that_find_new_paths_find_no_traceback(tmp_path, target):
    command = [
        sys.executable,
        Path(__file__).with_name("fuzz_readers.py"),
        target,
        tmp_path,
        f"-runs={RUNS}",
        "-seed=7",
    ]
    told = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert told.returncode == 0, told.stderr[-3000:]
    assert f"Done {RUNS}" in told.stderr
