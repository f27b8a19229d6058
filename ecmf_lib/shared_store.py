"""A store and its copy at a URL, for nodes that share no folder.

Nodes read and write the copy; the driver keeps the store in a folder of its own, because indices are made there and
training maps shards into memory. Shards are told by their names, which stand for their content, so bringing the
two together is a comparison of names. One driver at a time: the lock of a store is in its folder, not at the URL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from ecmf_lib.shards import write_file
from ecmf_lib.storage import FolderStorage, Storage, UrlStorage
from ecmf_lib.store import FeatureStore

_CONTENT = ("sets", "ledgers")
_AT_ONCE = 16  # transfers; an object store takes long to answer and does not mind many questions


class SharedStore:
    """Keeps a store and its copy alike.

    Parameters
    ----------
    store : FeatureStore
        Locked by the caller.
    url : str
        Empty: there is no copy, the store's folder itself is shared, and all methods do nothing.

    Attributes
    ----------
    storage : Storage
        What nodes use.
    """

    def __init__(self, store: FeatureStore, url: str = ""):
        self._store = store
        self._copy = UrlStorage(url.rstrip("/")) if url else None
        self.storage: Storage = self._copy or FolderStorage(store.root.resolve())
        self._before: set[str] = set()

    def bring(self) -> None:
        """Before a run: everything that is at the URL comes here, and shards that are only here go there."""
        if self._copy is None:
            return
        there = self._there()
        here = self._here()
        _each(self._pull, [name for name in there if not _is_shard(name) or here.get(name) != there[name]])
        _each(self._push, [name for name in here if _is_shard(name) and name not in there])
        self._before = set(self._here())

    def fetch(self) -> None:
        """After the nodes have written: their shards come here."""
        if self._copy is None:
            return
        there, here = self._there(), self._here()
        _each(self._pull, [name for name in there if _is_shard(name) and here.get(name) != there[name]])
        self._before |= set(self._here())

    def commit(self) -> None:
        """After the index and the ledger are written here: they go there, shards first, ledgers last."""
        if self._copy is None:
            return
        there, here = self._there(), self._here()
        _each(self._push, [name for name in here if _is_shard(name) and here[name] != there.get(name)])
        for folder in _CONTENT:
            _each(self._push, [name for name in here if name.startswith(f"{folder}/") and not _is_shard(name)])
        _each(self._copy.remove, [name for name in self._before if name in there and name not in here])

    def _there(self) -> dict[str, int]:
        found = {}
        for folder in _CONTENT:
            found |= self._copy.names(folder)
        return found

    def _here(self) -> dict[str, int]:
        root = self._store.root
        files = [path for folder in _CONTENT for path in (root / folder).rglob("*") if path.is_file()]
        return {path.relative_to(root).as_posix(): path.stat().st_size for path in sorted(files)}

    def _pull(self, name: str) -> None:
        write_file(self._store.root / name, self._copy.read(name), self._store.scratch)

    def _push(self, name: str) -> None:
        self._copy.write(name, (self._store.root / name).read_bytes())


def _is_shard(name: str) -> bool:
    return "/shards/" in name


def _each(work: Callable[[str], None], names: Iterable[str]) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(work, names):
            pass
