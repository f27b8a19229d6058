"""The two files that describe a feature set, held to their form: whoever opens a set can rely on every field."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ecmf_lib.bounded import read_json
from ecmf_lib.bounded_arrays import read_parquet
from ecmf_lib.shards import DONE, FAILED, MISSING, StoreError

FORMAT = 1  # of the files in a store; raised when older ones can no longer be read
SET_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
_SHARD = re.compile(r"\w[\w.-]*\.safetensors", re.ASCII)
_LARGEST = 2**20  # features of a time step
_STEPS = 2**40  # time steps in a shard, more than any disk holds
_TEXTS, _NUMBERS = ("id", "key", "state", "reason", "shard"), ("offset", "length")


def read_about(folder: Path) -> dict:
    """Content of ``set.json``.

    Raises
    ------
    StoreError
        If there is none, or it lacks an entry, or one is not what it should be.
    """
    path = folder / "set.json"
    try:
        about = read_json(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); expected a feature set, extract again") from None
    except ValueError:
        raise StoreError(f"{path}: not the JSON of a feature set; delete the folder and extract again") from None
    if not isinstance(about, dict) or about.get("format") != FORMAT or isinstance(about["format"], bool):
        raise StoreError(f"{path}: not a feature set of format {FORMAT}; delete the folder and extract again")
    if wrong := [name for name, good in _ENTRIES.items() if not good(about.get(name))]:
        told = ", ".join(wrong)
        raise StoreError(f"{path}: {told} missing, or not what a set says there; delete the folder and extract again")
    return about


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= 10_000 and not re.search("[\ud800-\udfff]", value)


def _is_settings(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("encoder", {}), dict)


#: Entry of ``set.json`` → whether a value can stand there.
_ENTRIES = {
    "name": lambda value: _is_text(value) and bool(SET_NAME.fullmatch(value)),
    "level": lambda value: value in ("clip", "frame"),
    "dim": lambda value: type(value) is int and 0 < value <= _LARGEST,
    "corpus": lambda value: isinstance(value, dict) and _is_text(value.get("name")),
    "settings": _is_settings,
    **dict.fromkeys(("stream", "encoder", "licence", "fingerprint"), _is_text),
}


def read_index(path: Path) -> pd.DataFrame:
    """An ``index.parquet``: columns id, key, state, reason, shard (text), offset, length (whole numbers).

    Raises
    ------
    FileNotFoundError
        If there is none.
    StoreError
        If it is damaged, lacks a column, or points where no features can be.
    """
    try:
        table = read_parquet(path, [*_TEXTS, *_NUMBERS])
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); delete the file and extract again") from None
    except ValueError as error:
        raise StoreError(f"{path}: damaged ({error}); delete the file and extract again") from None
    if wrong := _wrong(table):
        raise StoreError(f"{path}: damaged ({wrong}); delete the file and extract again")
    index = table.select([*_TEXTS, *_NUMBERS]).to_pandas()
    pa.default_memory_pool().release_unused()  # else what the reader needed stays taken: more than the index
    return index


def _wrong(table: pa.Table) -> str:
    """What an index cannot hold; empty if it is good."""
    kinds = {field.name: field.type for field in table.schema}
    for name in (*_TEXTS, *_NUMBERS):
        if name not in kinds:
            return f"no column '{name}'"
        text = pa.types.is_string(kinds[name]) or pa.types.is_large_string(kinds[name])
        if not (text if name in _TEXTS else pa.types.is_int64(kinds[name])):
            return f"column '{name}' holds {kinds[name]}"
        if table[name].null_count:
            return f"column '{name}' has empty cells"
    if pc.count_distinct(table["id"]).as_py() != len(table):
        return "a clip stands in it more than once"
    if odd := set(pc.unique(table["state"]).to_pylist()) - {DONE, MISSING, FAILED}:
        return f"unknown state {str(min(odd))[:50]!r}"
    done = table.filter(pc.equal(table["state"], DONE))
    odd = [name for name in pc.unique(done["shard"]).to_pylist() if not _SHARD.fullmatch(name)]
    if odd:
        return f"{odd[0][:50]!r} is not the name of a shard"
    if len(done):
        first, least = pc.min(done["offset"]).as_py(), pc.min(done["length"]).as_py()
        if first < 0 or least < 1 or max(pc.max(done[name]).as_py() for name in _NUMBERS) > _STEPS:
            return "rows that no shard has"
    return ""
