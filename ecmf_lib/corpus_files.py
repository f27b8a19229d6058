"""Whether the files of a manifest are there and lie in the corpus folder: one look at each of its folders."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ecmf_lib.tables import shortened
from ecmf_lib.text_check import text_array

#: A folder is listed if the manifest names so many of its files; for fewer, each is asked for.
_LISTED = 50
#: Names that cannot leave the folder by themselves have none of these; all others are looked at one by one.
_ODD = r"[\\:\x00]|^/|(?:^|/)\.\.(?:/|$)|(?:^|/)\.?$"


def inside(root: Path, name: str, resolved: dict[Path, Path] | None = None) -> bool:
    """Whether ``root/name`` stays in ``root``: relative, no ``..``, no link that leads out.

    Parameters
    ----------
    resolved : dict, optional
        Folder → where it really lies, filled here: a check of many names resolves each folder once.
    """
    for flavour in (PurePosixPath(name), PureWindowsPath(name)):
        if flavour.is_absolute() or flavour.drive or ".." in flavour.parts or "\0" in name:
            return False
    resolved = {} if resolved is None else resolved
    path = root / name
    try:
        for folder in (root, path.parent):
            if folder not in resolved:
                resolved[folder] = folder.resolve()
        target = path.resolve() if path.is_symlink() else resolved[path.parent]
    except (OSError, RuntimeError):  # a name that is too long, links that go round in a circle
        return False
    return target.is_relative_to(resolved[root])


def file_problems(names: pd.Series, root: Path, *, missing: bool) -> list[tuple[int, str]]:
    """Names of a manifest's column that cannot be used.

    Parameters
    ----------
    names : Series of str
        Paths relative to `root`; empty ones are passed over. Its index is 0, 1, 2, …
    root : Path
    missing : bool
        Whether a file that is not there is a problem.

    Returns
    -------
    list of (int, str)
        Position and problem, in order.
    """
    found: list[tuple[int, str]] = []
    resolved: dict[Path, Path] = {}
    for folder, places, files in _by_folder(names):
        stays = folder is not None and inside(root, f"{folder}/file" if folder else "file", resolved)
        there = _regular(root / folder) if folder is not None and len(places) >= _LISTED else frozenset()
        for place, file in zip(places.tolist(), files, strict=True):
            if stays and file in there:
                continue
            name = file if folder in (None, "") else f"{folder}/{file}"
            path = os.path.join(root, name)
            if not (inside(root, name, resolved) if folder is None or os.path.islink(path) else stays):
                mend = "write it relative to that folder, without '..', and copy what a link points to into it"
                found.append((place, f"path {shortened(name)!r} leaves the corpus folder; {mend}"))
            elif missing and not os.path.isfile(path):
                found.append((place, f"no file '{shortened(name)}' in {root}; add it or remove the row"))
    return sorted(found)


def _by_folder(names: pd.Series):
    """(Folder, places int [k], file names [k]); folder None for names that have to be looked at one by one."""
    given = np.flatnonzero((names != "").to_numpy())
    texts = text_array(names.iloc[given])
    odd = pc.match_substring_regex(texts, _ODD).to_numpy(zero_copy_only=False)
    if odd.any():
        yield None, given[odd], texts.filter(pa.array(odd)).to_pylist()
        given, texts = given[~odd], texts.filter(pa.array(~odd))
    if not len(texts):
        return
    parts = pc.extract_regex(texts, r"(?s)^(?P<folder>(?:.*/)?)(?P<file>[^/]+)$")
    folders = pc.struct_field(parts, "folder").dictionary_encode()
    files, number = pc.struct_field(parts, "file"), folders.indices.to_numpy()
    order = np.argsort(number, kind="stable")
    ends = np.cumsum(np.bincount(number))
    for folder, rows in zip(folders.dictionary.to_pylist(), np.split(order, ends[:-1]), strict=True):
        yield folder[:-1], given[rows], files.take(pa.array(rows)).to_pylist()


def _regular(folder: Path) -> set[str]:
    """Names of the files in a folder that are no links."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
    except OSError:
        return set()
