"""Shards: complete or absent, the same bytes for the same rows, only what is missing is written."""

import os

import numpy as np
import pytest
from safetensors.numpy import save

from ecmf_lib import shards
from ecmf_lib.shards import (
    FAILED,
    MISSING,
    FileDigests,
    Pair,
    Row,
    SetWriter,
    StoreError,
    pack_shard,
    read_rows,
    shard_name,
    slug,
    write_file,
)

ABOUT = {"name": "demo", "dim": 2}


def pairs(ids: str, key: str = "k") -> list[Pair]:
    return [Pair(id, key) for id in ids]


def rows(some: list[Pair]) -> dict:
    """Features that tell from which clip and which key they were made."""
    return {pair: (Row(pair), np.full((2, 2), ord(pair.id) + len(pair.key), np.float32)) for pair in some}


def writer(folder, ids, **options) -> SetWriter:
    return SetWriter(folder / "set", folder / "scratch", list(ids), ABOUT, **options)


def fill(folder, ids: str, size: int = 2, key: str = "k", **options) -> SetWriter:
    """One run over the manifest `ids`; returns its writer."""
    made = writer(folder, ids, **options)
    for start in range(0, len(ids), size):
        chunk = pairs(ids[start : start + size], key)
        if not made.has_chunk(chunk):
            made.write_chunk(chunk, rows([pair for pair in chunk if made.row(pair) is None]))
    made.finish(pairs(ids, key))
    return made


def content(folder) -> dict:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted((folder / "set").rglob("*")) if p.is_file()}


def test_rows_round_trip(tmp_path):
    given = [
        Row(Pair("a", "1"), length=2),
        Row(Pair("b", "2"), MISSING, "no face found"),
        Row(Pair("三", "3"), FAILED, "torn", facts={"fps": 29.97}),
    ]
    path = tmp_path / "x.safetensors"
    path.write_bytes(pack_shard(given, np.ones((2, 3), np.float32)))
    assert read_rows(path) == given


def test_same_rows_same_bytes():
    given = [Row(Pair(id, "k"), facts={"b": 1, "a": 2}) for id in "abc"]
    assert len({pack_shard(given, np.ones((3, 2), np.float32)) for _ in range(20)}) == 1


@pytest.mark.parametrize("kept", [0, 4, 60, -1])
def test_torn_shard_is_refused(tmp_path, kept):
    path = tmp_path / "x.safetensors"
    path.write_bytes(pack_shard([Row(Pair("a", "1"), length=1)], np.ones((1, 3), np.float32))[:kept])
    with pytest.raises(StoreError, match=r"x\.safetensors: damaged shard"):
        read_rows(path)


def test_foreign_safetensors_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(save({"weight": np.ones(3)}))
    with pytest.raises(StoreError, match="damaged shard"):
        read_rows(path)


def test_write_file_keeps_the_old_content_when_the_disk_is_full(tmp_path, monkeypatch):
    path = tmp_path / "a"
    write_file(path, b"old", tmp_path / "scratch")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards.os, "fsync", full)
    with pytest.raises(StoreError, match=r"No space left on device.*free some space"):
        write_file(path, b"newer", tmp_path / "scratch")
    assert path.read_bytes() == b"old"
    assert not list((tmp_path / "scratch").iterdir())


def test_unchanged_content_is_not_written_again(tmp_path):
    path = tmp_path / "a"
    write_file(path, b"same", tmp_path / "scratch")
    before = path.stat().st_ino
    write_file(path, b"same", tmp_path / "scratch")
    assert path.stat().st_ino == before
    write_file(path, b"diff", tmp_path / "scratch")
    assert path.stat().st_ino != before


@pytest.mark.parametrize("text", ["../../etc", "a/b\\c", "a\0b", "..", "", "情感", "x" * 300])
def test_slug_is_a_plain_file_name(text):
    made = slug(text)
    assert made and set(made) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert not made.startswith(".") and len(made) <= 48


def test_a_changed_clip_leaves_what_a_fresh_run_would(tmp_path):
    fill(tmp_path / "a", "abcde")
    changed = [Pair("a", "k"), Pair("b", "k"), Pair("c", "NEW"), Pair("d", "k"), Pair("e", "k")]
    for folder in (tmp_path / "a", tmp_path / "b"):
        made = writer(folder, "abcde")
        for start in range(0, 5, 2):
            chunk = changed[start : start + 2]
            if not made.has_chunk(chunk):
                made.write_chunk(chunk, rows([pair for pair in chunk if made.row(pair) is None]))
        made.finish(changed)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_rows_are_copied_not_recomputed_when_chunks_shift(tmp_path):
    fill(tmp_path / "a", "abcd")
    made = writer(tmp_path / "a", "xabcd")
    known = [pair for pair in pairs("xabcd") if made.row(pair)]
    assert [pair.id for pair in known] == list("abcd")
    fill(tmp_path / "a", "xabcd")
    fill(tmp_path / "b", "xabcd")
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_a_selection_leaves_the_larger_run_alone(tmp_path):
    fill(tmp_path, "abcdef")
    before = content(tmp_path)
    fill(tmp_path, "bd")
    assert content(tmp_path) == before


def test_a_selection_after_an_interrupted_run_keeps_its_shards(tmp_path):
    made = writer(tmp_path, "abcdef")
    made.write_chunk(pairs("ab"), rows(pairs("ab")))
    made.write_chunk(pairs("cd"), rows(pairs("cd")))  # and here the plug is pulled
    fill(tmp_path, "b")
    assert all(writer(tmp_path, "abcdef").row(pair) for pair in pairs("abcd"))


def test_a_changed_clip_of_a_selection_replaces_its_row(tmp_path):
    fill(tmp_path, "abcdef")
    fill(tmp_path, "b", key="NEW")
    made = writer(tmp_path, "abcdef")
    assert made.row(Pair("b", "NEW")) and all(made.row(pair) for pair in pairs("acdef"))
    index = shards.pq.read_table(tmp_path / "set" / "index.parquet").to_pandas()
    assert sorted(index["id"]) == list("abcdef")
    assert index.set_index("id").loc["b", "key"] == "NEW"


def test_keep_others_false_replaces_the_set(tmp_path):
    fill(tmp_path / "a", "abcdef")
    fill(tmp_path / "a", "bd", keep_others=False)
    fill(tmp_path / "b", "bd")
    assert content(tmp_path / "a") == content(tmp_path / "b")


@pytest.mark.parametrize("kept", [0, 10, -3])
def test_torn_shards_and_index_are_made_again(tmp_path, kept):
    fill(tmp_path / "a", "abcd")
    fill(tmp_path / "b", "abcd")
    shard = tmp_path / "a" / "set" / "shards" / shard_name(pairs("cd"))
    for path in (shard, tmp_path / "a" / "set" / "index.parquet"):
        path.write_bytes(path.read_bytes()[:kept])
    made = writer(tmp_path / "a", "abcd")
    assert made.has_chunk(pairs("ab")) and not made.has_chunk(pairs("cd"))
    fill(tmp_path / "a", "abcd")
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_failed_rows_are_retried_only_on_request(tmp_path):
    made = writer(tmp_path, "ab")
    failed = Pair("b", "k")
    made.write_chunk(pairs("ab"), rows(pairs("a")) | {failed: (Row(failed, FAILED, "crash"), None)})
    made.finish(pairs("ab"))
    assert writer(tmp_path, "ab").row(failed).reason == "crash"
    again = writer(tmp_path, "ab", retry_failed=True)
    assert again.row(failed) is None and not again.has_chunk(pairs("ab"))
    again.write_chunk(pairs("ab"), rows(pairs("b")))
    assert writer(tmp_path, "ab").row(failed).state == "done"


def test_retrying_a_selection_leaves_the_failures_of_other_clips(tmp_path):
    made = writer(tmp_path, "ab")
    failed = {pair: (Row(pair, FAILED, "crash"), None) for pair in pairs("ab")}
    made.write_chunk(pairs("ab"), failed)
    made.finish(pairs("ab"))
    fill(tmp_path, "b", retry_failed=True)
    found = writer(tmp_path, "ab")
    assert [found.row(pair).state for pair in pairs("ab")] == ["failed", "done"]


def test_digests_follow_the_content(tmp_path):
    file, memory = tmp_path / "a.wav", tmp_path / "cache" / "digests.jsonl"
    file.write_bytes(b"one")
    os.utime(file, ns=(10**18, 10**18))
    first = FileDigests(memory).of(file)
    file.write_bytes(b"two")
    os.utime(file, ns=(10**18, 10**18))  # same size, same time of change: only ctime tells
    assert FileDigests(memory).of(file) != first


def test_digests_are_remembered(tmp_path, monkeypatch):
    file, memory = tmp_path / "a.wav", tmp_path / "cache" / "digests.jsonl"
    file.write_bytes(b"one")
    later = shards.time.time_ns() + 5_000_000_000
    monkeypatch.setattr(shards.time, "time_ns", lambda: later)
    digests = FileDigests(memory)
    first = digests.of(file)
    digests.save()
    memory.write_text(memory.read_text() + '["/half a li')  # torn by a kill
    monkeypatch.setattr(shards.hashlib, "file_digest", None)  # would fail if the file was read again
    assert FileDigests(memory).of(file) == first


def test_a_file_written_a_moment_ago_is_not_remembered(tmp_path):
    file, memory = tmp_path / "a.wav", tmp_path / "digests.jsonl"
    file.write_bytes(b"one")
    digests = FileDigests(memory)
    digests.of(file)
    digests.save()
    assert not memory.exists()


def test_a_memory_that_cannot_be_written_stops_nothing(tmp_path):
    file = tmp_path / "a.wav"
    file.write_bytes(b"one")
    os.utime(file, ns=(10**18, 10**18))
    digests = FileDigests(file / "digests.jsonl")  # below a file: as on a disk that is full or read-only
    digests.add(['["/b.wav", 1, 2, 3, "c0ffee"]'])
    digests.save()
    assert digests.new == [] and file.read_bytes() == b"one"


def test_digest_of_what_cannot_be_read(tmp_path):
    assert FileDigests(tmp_path / "m").of(tmp_path / "absent") == "unreadable: No such file or directory"
    assert FileDigests(tmp_path / "m").of(tmp_path) == "not a file"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("steps", [0, 1, 5])
@pytest.mark.parametrize("id", ["a", 'quote " back \\ line \n tab \t', "情感 😀", "\x00\x1f\x7f\u2028"])
def test_the_header_is_that_of_the_safetensors_library(id, steps, dtype):
    given = [Row(Pair(id, "k"), length=steps, facts={"fps": 29.97, "said": id})]
    x = np.arange(3 * steps, dtype=dtype).reshape(steps, 3)
    packed = pack_shard(given, x)
    told = shards.json.loads(packed[8 : 8 + int.from_bytes(packed[:8], "little")])["__metadata__"]
    assert packed == save({"features": x}, metadata=told)
    assert pack_shard(given, None) == save({}, metadata=shards.json.loads(pack_shard(given, None)[8:])["__metadata__"])


def test_parts_of_a_file_follow_each_other(tmp_path):
    parts = [b"one", memoryview(b"two"), b"", memoryview(b"three")]
    write_file(tmp_path / "a", parts, tmp_path / "scratch")
    assert (tmp_path / "a").read_bytes() == b"onetwothree"
    before = (tmp_path / "a").stat().st_ino
    write_file(tmp_path / "a", parts, tmp_path / "scratch")
    assert (tmp_path / "a").stat().st_ino == before
