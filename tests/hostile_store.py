"""Hostile feature stores, ledgers, bundles and caches of answers."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hostile import FACE, LEDGER, SHARD, Hostile, the_file
from safetensors.numpy import load_file, save, save_file

SET, INDEX = f"{FACE}/set.json", f"{FACE}/index.parquet"


def _changed(pattern: str, change: Callable[[Path], None]):
    """A copy of the material's folder, with something done to one of its files."""

    def make(folder: Path, good: Path) -> Path:
        top = Path(pattern).parts[0]
        shutil.copytree(good / top, folder / top)
        change(the_file(folder, pattern))
        return folder / top

    return make


def _json(**changed) -> Callable[[Path], None]:
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def _text(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(text)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(target: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.unlink()
        os.symlink(target, path)

    return change


def _gone(path: Path) -> None:
    path.unlink()


ABOUTS: dict[str, Callable[[Path], None]] = {
    "a dim of 10 million": _json(dim=10**7),
    "a dim of 10 to the 400": _json(dim=10**400),
    "a dim of -1": _json(dim=-1),
    "a dim that is a text": _json(dim="6"),
    "another dim than the shards": _json(dim=7),
    "a name that climbs": _json(name="../../evil"),
    "a name of control characters": _json(name="a\x1b[2J"),
    "a level that is none": _json(level="word"),
    "a level that the shards have not": _json(level="frame"),
    "a corpus that is a list": _json(corpus=[]),
    "settings that are a text": _json(settings="none"),
    "a format to come": _json(format=99),
    "a list": _text("[1, 2]"),
    "deep nesting": _text("[" * 200_000),
    "a number of 10,000 digits": _text('{"format": ' + "1" * 10_000 + "}"),
    "NaN": _text('{"format": NaN}'),
    "a pipe": _pipe,
    "a link to a device": _link("/dev/zero"),
    "a link to itself": _link("set.json"),
}


def _index(**changed) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        table = pq.read_table(path)
        for name, value in changed.items():
            at = table.column_names.index(name)
            table = table.remove_column(at) if value is None else table.set_column(at, name, pa.array([value] * 6))
        pq.write_table(table, path)

    return change


def _bomb(path: Path) -> None:
    """A hundred million rows in a few kB."""
    rows = 10_000_000
    ids = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), ["a"]).cast(pa.string())
    columns = {"id": ids, "key": ids, "state": ids, "reason": ids, "shard": ids}
    numbers = pa.array(np.zeros(rows, np.int64))
    pq.write_table(pa.table(columns | {"offset": numbers, "length": numbers}), path, compression="zstd")


INDICES: dict[str, Callable[[Path], None]] = {
    "10 million rows in some kB": _bomb,
    "no ids": _index(id=None),
    "no shards": _index(shard=None),
    "one clip six times": _index(id="clip0"),
    "ids that are numbers": _index(id=5),
    "shards that climb": _index(shard="../../../../../../etc/passwd"),
    "shards that are absolute": _index(shard="/etc/passwd"),
    "shards with a NUL": _index(shard="a\0.safetensors"),
    "offsets below 0": _index(offset=-3),
    "offsets beyond the end": _index(offset=10**6),
    "offsets that overflow": _index(offset=2**63 - 1, length=2**62),
    "lengths of a trillion": _index(length=10**12),
    "lengths of 0": _index(length=0),
    "lengths that are texts": _index(length="1"),
    "states that are none": _index(state="maybe"),
    "a csv": _text("id,key\na,b\n"),
    "a pipe": _pipe,
    "nothing": _gone,
}


def _shard(features: np.ndarray, rows: list | None = None, **tensors) -> Callable[[Path], None]:
    """Another shard in its place, with the old list of rows or another."""

    def change(path: Path) -> None:
        from safetensors import safe_open

        with safe_open(path, "numpy") as file:
            told = json.loads(file.metadata()["ecmf"])
        told = told if rows is None else told | {"rows": rows}
        path.write_bytes(save({"features": features, **tensors}, metadata={"ecmf": json.dumps(told)}))

    return change


def _head(header: str | bytes, length: int | None = None, data: bytes = bytes(144)) -> Callable[[Path], None]:
    """A safetensors file with this header, of which it says that it is so long."""
    header = header.encode() if isinstance(header, str) else header
    size = (len(header) if length is None else length).to_bytes(8, "little", signed=False)
    return lambda path: path.write_bytes(size + header + data)


def _tensor(shape: str, offsets: str, dtype: str = "F32") -> str:
    return f'{{"features": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": {offsets}}}}}'


SHARDS: dict[str, Callable[[Path], None]] = {
    "fewer rows than the index": _shard(np.zeros((2, 6), np.float32)),
    "another dim": _shard(np.zeros((6, 7), np.float32)),
    "three sides": _shard(np.zeros((6, 6, 2), np.float32)),
    "one number": _shard(np.zeros((), np.float32)),
    "whole numbers": _shard(np.zeros((6, 6), np.int64)),
    "NaN": _shard(np.full((6, 6), np.nan, np.float32)),
    "another tensor": lambda path: path.write_bytes(save({"x": np.zeros(3)}, metadata={"ecmf": "{}"})),
    "no metadata": lambda path: path.write_bytes(save({"features": np.zeros((6, 6), np.float32)})),
    "metadata that is no JSON": lambda path: path.write_bytes(save({}, metadata={"ecmf": "["})),
    "metadata nested deeply": lambda path: path.write_bytes(save({}, metadata={"ecmf": "[" * 100_000})),
    "rows of numbers": _shard(np.zeros((6, 6), np.float32), rows=[1, 2]),
    "rows that are too short": _shard(np.zeros((6, 6), np.float32), rows=[["a", "b"]]),
    "rows of other kinds": _shard(np.zeros((6, 6), np.float32), rows=[[1, [], {}, None, "0", -1, 5]]),
    "a header of 16 EB": _head("{}", length=2**64 - 1),
    "a header of 1 TB": _head("{}", length=2**40),
    "a header of 99 MB of blanks": _head(b"{" + b" " * 99_000_000),
    "a header nested deeply": _head("[" * 500_000),
    "a tensor of a TB": _head(_tensor(f"[{2**38}, 6]", f"[0, {2**38 * 24}]")),
    "a tensor whose size wraps": _head(_tensor(f"[{2**61}, 6]", "[0, 144]")),
    "a tensor before its file": _head(_tensor("[6, 6]", "[144, 0]")),
    "a tensor of bfloat16": _head(_tensor("[12, 6]", "[0, 144]", "BF16")),
    "a tensor of 8 bits": _head(_tensor("[24, 6]", "[0, 144]", "F8_E4M3")),
    "a type that is none": _head(_tensor("[6, 6]", "[0, 144]", "F99")),
    "tensors that overlap": _head(
        '{"a": {"dtype": "F32", "shape": [36], "data_offsets": [0, 144]}, '
        '"features": {"dtype": "F32", "shape": [6, 6], "data_offsets": [0, 144]}}'
    ),
    "a pickle": lambda path: path.write_bytes(b"\x80\x04cos\nsystem\n."),
    "a pipe": _pipe,
    "a link to a device": _link("/dev/zero"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "nothing": _gone,
}


def _ledger(told: object = None, **changed) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        table = pq.read_table(path)
        for name, value in changed.items():
            at = table.column_names.index(name)
            table = table.remove_column(at) if value is None else table.set_column(at, name, pa.array([value] * 6))
        if told is not None:
            table = table.replace_schema_metadata({"ecmf": told if isinstance(told, str) else json.dumps(told)})
        pq.write_table(table, path)

    return change


LEDGERS: dict[str, Callable[[Path], None]] = {
    "sets that are a list": _ledger({"sets": ["a"]}),
    "sets that are numbers": _ledger({"sets": {"face": 5}}),
    "no sets": _ledger({}),
    "a list": _ledger([1]),
    "metadata that is no JSON": _ledger("{"),
    "metadata nested deeply": _ledger("[" * 100_000),
    "no status": _ledger(status=None),
    "a status of numbers": _ledger(status=1.5),
    "10 million rows in some kB": _bomb,
    "a pipe": _pipe,
    "nothing": _gone,
}
DIGESTS = {
    "nested deeply": b"[" * 200_000 + b"\n",
    "lists and numbers": b'["a"]\n5\n[[1], 2]\n[{"a": 1}, 2]\n[]\nnull\n',
    "bytes that are no text": b"\xff\xfe\n",
    "100 MB of one line": b"[" + b"1," * (50 * 2**20),
}


def _digests(content: bytes):
    def make(folder: Path, good: Path) -> Path:
        shutil.copytree(good / "store", folder / "store")
        (folder / "store" / ".cache").mkdir(exist_ok=True)
        (folder / "store" / ".cache" / "digests.jsonl").write_bytes(content)
        return folder / "store"

    return make


# ------------------------------------------------------------------------------------------------ bundles


def _bundle(change: Callable[[Path], None], sealed: bool = False):
    """A copy of the bundle with something done to it; `sealed`: all digests are made anew, as a forger would."""

    def make(folder: Path, good: Path) -> Path:
        shutil.copytree(good / "bundle", folder / "bundle")
        change(folder / "bundle")
        if sealed:
            from ecmf_lib.bundle_files import seal

            content = json.loads((folder / "bundle" / "bundle.json").read_text())["content"]
            (folder / "bundle" / "bundle.json").unlink()
            seal(folder / "bundle", {key: value for key, value in content.items() if key != "files"})
        return folder / "bundle"

    return make


def _member(**changed) -> Callable[[Path], None]:
    return lambda folder: _json(**changed)(folder / "members/00/model.json")


def _content(**changed) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        head = json.loads((folder / "bundle.json").read_text())
        head["content"] |= changed
        (folder / "bundle.json").write_text(json.dumps(head))

    return change


def _arrays(change: Callable[[dict], dict]) -> Callable[[Path], None]:
    path = "members/00/model.safetensors"
    return lambda folder: save_file(change(load_file(folder / path)), folder / path)


def _in(name: str, change: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda folder: change(folder / name)


BUNDLES = {
    "a pipe for a head": _in("bundle.json", _pipe),
    "a head that links to a device": _in("bundle.json", _link("/dev/zero")),
    "a head nested deeply": _in("bundle.json", _text("[" * 200_000)),
    "a head of 100 MB": _in("bundle.json", _text("[" + "1," * 2**20 * 50)),
    "a head with a name twice": _in("bundle.json", _text('{"format": 1, "format": 1}')),
    "a number of 10,000 digits": _in("bundle.json", _text('{"format": ' + "1" * 10_000 + "}")),
    "a member that is a pipe": _in("members/00/model.json", _pipe),
    "a member that is a link": _in("members/00/model.json", _link("/etc/passwd")),
    "a file more": lambda folder: (folder / "evil.pkl").write_bytes(b"\x80\x04."),
    "a member that climbs": lambda folder: _content(files={"../../evil": {"sha256": "0" * 64, "bytes": 1}})(folder),
    "no members": lambda folder: shutil.rmtree(folder / "members"),
    "a folder that is empty": lambda folder: (shutil.rmtree(folder), folder.mkdir()),
}
FORGED = {
    "a kind that is none": _member(kind="pickle"),
    "boosting": _member(kind="boosting"),
    "options of a TB": _member(options={"width": 10**9}),
    "options that are none": _member(options={"no-such": 1}),
    "options that are a list": _member(options=[1]),
    "heads of 0": _member(options={"width": 8, "heads": 0}),
    "dims of a TB": _member(dims={"face": 10**11, "audio": 9}),
    "dims below 0": _member(dims={"face": -6, "audio": 9}),
    "dims that are a number": _member(dims=5),
    "no dims": _member(dims={}),
    "other streams": _member(dims={"face": 6, "voice": 9}),
    "a temperature of 0": _member(temperature=0),
    "a temperature that is a text": _member(temperature="hot"),
    "trees": _member(trees={"a": 1}),
    "an entry more": _member(evil=1),
    "classes that are a number": _member(classes=3),
    "classes that are numbers": _member(classes=[1, 2, 3]),
    "no arrays": _arrays(lambda arrays: {}),
    "an array less": _arrays(lambda arrays: dict(list(arrays.items())[1:])),
    "arrays of another shape": _arrays(lambda arrays: {name: array[..., :1] for name, array in arrays.items()}),
    "arrays of NaN": _arrays(lambda arrays: {name: np.full_like(array, np.nan) for name, array in arrays.items()}),
    "arrays of whole numbers": _arrays(lambda arrays: {name: array.astype(np.int64) for name, array in arrays.items()}),
    "a model nested deeply": _in("members/00/model.json", _text("[" * 100_000)),
    "a model that is a list": _in("members/00/model.json", _text("[]")),
    "streams without an encoder": _content(encoders={}),
    "encoders that are numbers": _content(encoders={"face": 5, "audio": 5}),
    "about of odd kinds": _content(about={"extraction": 5, "class_clips": [], "steps": "x"}),
    "an extraction that is none": _content(about={"extraction": {"imported": False, "frames": "many", "x": 1}}),
    "a temperature below 0": _content(temperature=-1.0),
    "no classes": _content(classes=[]),
}


# ------------------------------------------------------------------------------------------------ caches of answers


def _sql(*statements: str, keep: bool = True):
    def make(folder: Path, good: Path) -> Path:
        path = folder / "answers.sqlite"
        if keep:
            shutil.copy(good / "answers.sqlite", path)
        with sqlite3.connect(path) as base:
            for statement in statements:
                base.execute(statement)
        base.close()
        return path

    return make


_COLUMNS = "'m' model, 'p' prompt, 'c' clip, 'stop' finish, 1 tokens_in, 1 tokens_out, '' failure"
_KEYS = "SELECT key FROM old"
CACHES = {
    "numbers for texts": _sql("UPDATE replies SET text = 5, finish = x'ff', tokens_in = 'many'"),
    "bytes for texts": _sql("UPDATE replies SET text = x'fffe'"),
    "text that is no UTF-8": _sql("UPDATE replies SET text = CAST(x'fffe' AS TEXT)"),
    "an answer of 200 MB": _sql("UPDATE replies SET text = hex(zeroblob(100000000))"),
    "a view that never ends": _sql(
        "ALTER TABLE replies RENAME TO old",
        "CREATE VIEW replies AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        f"SELECT ({_KEYS}) key, {_COLUMNS}, 'x' text FROM n WHERE i < 0",
    ),
    "a column that unpacks": _sql(
        "CREATE TABLE replies (key BLOB PRIMARY KEY, model, prompt, clip, finish, tokens_in, tokens_out, failure, "
        "made, text TEXT GENERATED ALWAYS AS (hex(zeroblob(400000000))))",
        "PRAGMA user_version = 1",
        keep=False,
    ),
    "a trigger that deletes": _sql("CREATE TRIGGER t AFTER INSERT ON replies BEGIN DELETE FROM replies; END"),
    "a table of another form": _sql("DROP TABLE replies", "CREATE TABLE replies (key BLOB, words TEXT)"),
    "a version to come": _sql("PRAGMA user_version = 7"),
    "no table": _sql("DROP TABLE replies"),
    "another database": _sql("CREATE TABLE x (y)", keep=False),
}


def _cache_pipe(folder: Path, good: Path) -> Path:
    os.mkfifo(folder / "answers.sqlite")
    return folder / "answers.sqlite"


def inputs() -> Iterator[Hostile]:
    """All of them."""
    for what, change in ABOUTS.items():
        # what is wrong with the set itself is its own fault, but a set can also say other things than its shards do
        names = ".safetensors" if "the shards" in what else "six__face" if "itself" in what else "set.json"
        yield Hostile(f"set-json/{what}", "set-json", _changed(SET, change), "store", names)
    for what, change in INDICES.items():
        names = ".safetensors" if "beyond" in what or "trillion" in what else "index.parquet"
        yield Hostile(f"index/{what}", "index", _changed(INDEX, change), "store", names)
    for what, change in SHARDS.items():
        yield Hostile(f"safetensors/{what}", "safetensors", _changed(SHARD, change), "store", ".safetensors")
        yield Hostile(f"safetensors/{what}, again", "safetensors-again", _changed(SHARD, change), "shards", "shards")
    for what, change in LEDGERS.items():
        yield Hostile(f"ledger/{what}", "ledger", _changed(LEDGER, change), "ledger", "store")
    for what, content in DIGESTS.items():
        yield Hostile(f"digests/{what}", "ledger", _digests(content), "ledger", slow="MB" in what)
    for what, change in BUNDLES.items():
        yield Hostile(f"bundle/{what}", "bundle", _bundle(change), "predict", slow="MB" in what)
    for what, change in FORGED.items():
        yield Hostile(f"bundle/forged: {what}", "bundle-forged", _bundle(change, sealed=True), "bundle")
    yield from (Hostile(f"sqlite/{what}", "sqlite", make, "cache") for what, make in CACHES.items())
    yield Hostile("sqlite/a pipe", "sqlite", _cache_pipe, "cache")
