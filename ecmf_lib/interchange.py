"""Features of other tools: npz tables, arrays, and the official baseline's folders with one ``.npy`` a clip.

The baseline (zeroQiaoba/MERTools) keeps ``<encoder>-UTT/<clip>.npy`` of shape [dim] (the time mean) and
``<encoder>-FRA/<clip>.npy`` of shape [time, dim]. Nothing is ever read with pickle, so arrays of Python objects are
refused. A clip whose features cannot be used is recorded with the reason and does not stop the rest.
"""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ecmf_lib.bounded_arrays import map_npy, npz_names, read_npz
from ecmf_lib.bulk import Block, Read, joined, write_set
from ecmf_lib.shards import StoreError, slug
from ecmf_lib.store import FeatureSet, FeatureStore, describe_set

LEVELS = {"UTT": "clip", "FRA": "frame"}  # the baseline's word → ours
_NOT_STATED = "not stated"


def import_arrays(
    store: FeatureStore,
    *,
    ids: Sequence[str],
    streams: Mapping[str, np.ndarray | Sequence[np.ndarray]],
    corpus_name: str,
    corpus_fingerprint: str,
    source: str,
    licence: str = _NOT_STATED,
) -> dict[str, FeatureSet]:
    """Make sets of features that are in memory.

    Parameters
    ----------
    store : FeatureStore
    ids : sequence of str
        Clips, in corpus order.
    streams : mapping
        Stream (any text) → float array [n, dim], or a list of n arrays [t, dim] for a frame-level set. Types other
        than float16 and float32 become float32. A clip with NaN or infinity, or without time steps, is recorded as
        missing.
    corpus_name, corpus_fingerprint : str
        Of the corpus the ids belong to.
    source : str
        Where the features are from, e.g. the name of the file; stands in the place of an encoder.
    licence : str

    Returns
    -------
    dict
        Stream → set. A set that the same source gave this corpus before is replaced.

    Raises
    ------
    StoreError
        For duplicate ids, or arrays that do not fit the ids or each other.
    """
    ids = _checked_ids(ids, source)
    made = {}
    with store.locked():
        for stream, given in streams.items():
            level, dim, read = _reader(given, stream, len(ids))
            made[stream] = _write_set(
                store,
                ids,
                read,
                stream=stream,
                encoder=source,
                level=level,
                dim=dim,
                licence=licence,
                corpus={"name": corpus_name, "fingerprint": corpus_fingerprint, "clips": len(ids)},
            )
    return made


def import_npz(
    store: FeatureStore,
    path: str | Path,
    *,
    arrays: Mapping[str, str],
    id_key: str = "id",
    corpus_name: str | None = None,
    corpus_fingerprint: str = "",
    licence: str = _NOT_STATED,
    keep: Sequence[str] | None = None,
) -> dict[str, FeatureSet]:
    """Make sets of an npz file with one row a clip.

    Parameters
    ----------
    path : path
    arrays : mapping
        Name of an array in the file ([n, dim]) → stream it becomes.
    id_key : str
        Name of the array with the clips' ids: texts or whole numbers.
    corpus_name : str, optional
        Default: name of the file without ending.
    keep : sequence of str, optional
        Only these clips, in this order (a corpus may leave out rows of the file); default all, in the file's order.

    Returns
    -------
    dict
        Stream → set.

    Raises
    ------
    StoreError
        If the file cannot be read without pickle, or something asked for is not in it.
    """
    path = Path(path)
    ids, streams = _read_npz(path, id_key, arrays)
    if keep is not None:
        row = {id: number for number, id in enumerate(_checked_ids(ids, path.name))}
        absent = [id for id in keep if id not in row]
        if absent:
            raise StoreError(f"{path}: no row of {len(absent)} clip(s) asked for, such as '{absent[0]}'")
        rows = [row[id] for id in keep]
        ids, streams = list(keep), {stream: array[rows] for stream, array in streams.items()}
    return import_arrays(
        store,
        ids=ids,
        streams=streams,
        corpus_name=corpus_name or path.stem,
        corpus_fingerprint=corpus_fingerprint,
        source=path.name,
        licence=licence,
    )


def import_npy_folder(
    store: FeatureStore,
    folder: str | Path,
    *,
    stream: str,
    corpus_name: str,
    corpus_fingerprint: str = "",
    encoder: str | None = None,
    level: str | None = None,
    ids: Sequence[str] | None = None,
    licence: str = _NOT_STATED,
) -> FeatureSet:
    """Make a set of the official baseline's folder with one ``.npy`` file a clip.

    Parameters
    ----------
    folder : path
        ``<encoder>-UTT`` or ``<encoder>-FRA``. Files below subfolders are not looked at.
    stream : str
        Stream that the features describe, any text.
    encoder : str, optional
        Default: name of the folder without its ending.
    level : {"clip", "frame"}, optional
        Default: from the ending of the folder's name.
    ids : sequence of str, optional
        The corpus's clips; those without a file are recorded. Default: all files, sorted by name.

    Returns
    -------
    FeatureSet
        Its index gives the reason for every clip whose file is absent, unreadable, of another dimension than most,
        not finite, or a link that leads out of the folder.

    Raises
    ------
    StoreError
        If there is no folder, no usable file in it, or the level is neither given nor in its name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise StoreError(f"{folder}: no such folder; expected <encoder>-UTT or <encoder>-FRA with one .npy a clip")
    name, _, ending = folder.name.rpartition("-")
    level = level or LEVELS.get(ending)
    if level not in LEVELS.values():
        raise StoreError(f"{folder}: name ends neither in -UTT nor in -FRA; give level='clip' or level='frame'")
    if ending not in LEVELS:
        name = folder.name
    ids = sorted(path.stem for path in folder.glob("*.npy")) if ids is None else _checked_ids(ids, folder.name)
    dim = _common_dim(folder, ids, level)
    with store.locked():
        return _write_set(
            store,
            ids,
            lambda start, stop: joined([_read_npy(folder, id, level, dim) for id in ids[start:stop]], dim),
            stream=stream,
            encoder=encoder or name,
            level=level,
            dim=dim,
            licence=licence,
            corpus={"name": corpus_name, "fingerprint": corpus_fingerprint, "clips": len(ids)},
        )


def export_npy_folder(features: FeatureSet, folder: str | Path, level: str = "UTT") -> Path:
    """Write a set as the official baseline's folder with one float32 ``.npy`` a clip.

    Parameters
    ----------
    features : FeatureSet
        Clips without features get no file.
    folder : path
        The baseline's ``features`` folder; ``<encoder>-UTT`` or ``<encoder>-FRA`` is made in it.
    level : {"UTT", "FRA"}
        [dim], the mean over time; or [t, dim], one step for a clip-level set.

    Returns
    -------
    Path
        The folder that was made. It appears only when it is complete.

    Raises
    ------
    StoreError
        If it exists already, or an id cannot be a file name.
    """
    if level not in LEVELS:
        raise ValueError(f"level '{level}' is not known; choose from {', '.join(LEVELS)}")
    target = Path(folder) / f"{slug(features.encoder)}-{level}"
    if target.exists():
        raise StoreError(f"{target}: is there already; remove it or export into another folder")
    for id in features.ids:
        _file_name(id)
    growing = target.with_name(f".{target.name}.growing")
    shutil.rmtree(growing, ignore_errors=True)
    growing.mkdir(parents=True)
    for id in features.ids:
        steps = np.atleast_2d(features.get(id)).astype(np.float32)
        if level == "UTT":
            steps = steps.mean(axis=0, dtype=np.float64).astype(np.float32)
        np.save(growing / _file_name(id), steps)
    growing.rename(target)
    return target


def _write_set(store: FeatureStore, ids: Sequence[str], read: Read, **about) -> FeatureSet:
    return write_set(store, ids, read, describe_set(settings={"imported": True}, **about))


def _checked_ids(ids: Sequence[str], source: str) -> list[str]:
    ids = [str(id) for id in ids]
    twice = [id for id, count in Counter(ids).items() if count > 1]
    if twice:
        raise StoreError(f"{source}: {len(twice)} id(s) more than once, such as '{twice[0]}'; expected one row a clip")
    if not ids:
        raise StoreError(f"{source}: no clips; expected one row a clip")
    return ids


def _reader(given: np.ndarray | Sequence[np.ndarray], stream: str, count: int) -> tuple[str, int, Read]:
    """Level, dimension, and what reads the features of some clips."""
    level = "clip" if isinstance(given, np.ndarray) else "frame"
    if level == "clip" and given.ndim != 2:
        raise StoreError(f"stream '{stream}': array of shape {given.shape}; expected [clips, dim]")
    if len(given) != count:
        raise StoreError(f"stream '{stream}': {len(given)} rows for {count} ids; expected one for each, in order")
    what = f"stream '{stream}'"
    arrays = [_as_float(steps, what) for steps in ([given[:1]] if level == "clip" else given)]
    shapes = Counter(array.shape[1:] for array in arrays)
    if len(shapes) != 1 or arrays[0].ndim != 2 or not arrays[0].shape[1]:
        raise StoreError(f"{what}: time steps of shapes {sorted(shapes)}; expected [t, dim], one dim")
    dim = arrays[0].shape[1]
    if level == "clip":
        return level, dim, lambda start, stop: _vectors(_as_float(given[start:stop], what))
    return level, dim, lambda start, stop: joined([_usable(steps) for steps in arrays[start:stop]], dim)


def _vectors(array: np.ndarray) -> Block:
    """The usable rows of a float array [n, dim], one vector a clip; not copied if that is all of them."""
    finite = np.isfinite(array).all(axis=1)
    if finite.all():
        return Block(array, [1] * len(array), [""] * len(array))
    reasons = [_usable(row[None])[1] for row in array]
    return Block(array[finite], finite.astype(int).tolist(), reasons)


def _as_float(array: np.ndarray, what: str) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype.kind not in "fiub":
        raise StoreError(f"{what}: type {array.dtype} holds no numbers; expected float32 or float16")
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, which is found out later
        return array if array.dtype in (np.float16, np.float32) else array.astype(np.float32)


def _usable(steps: np.ndarray) -> tuple[np.ndarray | None, str]:
    if not len(steps):
        return None, "no time steps"
    bad = int((~np.isfinite(steps)).sum())
    if bad:
        return None, f"{bad} of {steps.size} values are NaN or infinite"
    return steps, ""


def _read_npz(path: Path, id_key: str, arrays: Mapping[str, str]) -> tuple[list[str], dict[str, np.ndarray]]:
    with _refusing(path):
        names = npz_names(path)
        absent = [name for name in (id_key, *arrays) if name not in names]
        if absent:
            raise StoreError(f"{path}: no array '{absent[0]}'; there are {', '.join(names[:30]) or 'none'}")
        file = read_npz(path, (id_key, *arrays))
        ids = file[id_key]
        if ids.dtype.kind not in "USiu" or ids.ndim != 1:
            raise StoreError(f"{path}: array '{id_key}' is {ids.dtype} {ids.shape}; expected one text a clip")
        texts = [id.decode("utf-8") if isinstance(id, bytes) else str(id) for id in ids.tolist()]
        return texts, {stream: _as_float(file[name], f"{path}, array '{name}'") for name, stream in arrays.items()}


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """What is wrong with a file, with its name and what was expected."""
    try:
        yield
    except StoreError:
        raise
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise StoreError(f"{path}: {why}; expected a file of plain arrays, as numpy.save or savez write it") from None


def _common_dim(folder: Path, ids: Sequence[str], level: str) -> int:
    """Dimension that most files have; only their headers are read."""
    dims = Counter()
    for id in ids:
        steps, _ = _open_npy(folder, id, level)
        if steps is not None:
            dims[steps.shape[1]] += 1
    if not dims:
        why = _open_npy(folder, ids[0], level)[1] if ids else "the folder holds no .npy file"
        raise StoreError(f"{folder}: none of {len(ids)} clips has usable features; the first: {why}")
    return max(dims, key=lambda dim: (dims[dim], dim))


def _open_npy(folder: Path, id: str, level: str) -> tuple[np.ndarray | None, str]:
    """The array of a clip mapped into memory as [t, dim], or the reason there is none."""
    try:
        path = folder / _file_name(id)
        if not path.is_file():
            return None, f"no file {path.name}"
        if not path.resolve().is_relative_to(folder.resolve()):
            return None, f"{path.name} is a link out of the folder; copy the file"
        with _refusing(path):
            array = map_npy(path)
    except StoreError as error:
        return None, str(error).replace(f"{folder}/", "")
    if array.dtype.kind not in "fiub":
        return None, f"{path.name} holds no array of numbers"
    shape = array.shape
    # one step may have lost its time axis, and a time mean may have kept it
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or (level == "clip" and len(array) != 1):
        return None, f"{path.name} has shape {shape}; expected {'[dim]' if level == 'clip' else '[t, dim]'}"
    if not array.size:
        return None, f"{path.name} is empty, shape {shape}"
    return array, ""


def _read_npy(folder: Path, id: str, level: str, dim: int) -> tuple[np.ndarray | None, str]:
    steps, reason = _open_npy(folder, id, level)
    if steps is None:
        return None, reason
    if steps.shape[1] != dim:
        return None, f"{id}.npy has {steps.shape[1]} features; most files here have {dim}"
    return _usable(np.array(_as_float(steps, f"{id}.npy")))


def _file_name(id: str) -> str:
    """File of a clip; refuses ids that would be paths."""
    odd = any(unicodedata.category(letter) == "Cc" or letter in "/\\" for letter in id)
    if odd or not id or id.startswith(".") or len(os.fsencode(id)) > 250:
        raise StoreError(f"clip {id!r}: not a file name; use no / or \\, no leading dot, at most 250 bytes")
    return f"{id}.npy"
