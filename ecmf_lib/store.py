"""Features on disk: sets of safetensors shards, each with a parquet index.

One *set* is what one encoder made of one corpus, in a folder of its own::

    <store>/sets/<corpus>__<stream>__<encoder>-<digits>/
        set.json               encoder, settings, corpus, fingerprints, licence
        index.parquet          one row a clip: where its features lie, or why there are none
        shards/<name>.safetensors
    <store>/ledgers/           what became of each clip, see ecmf_lib.extract
    <store>/.cache, .lock      digests of input files, files being written; not part of the content

How shards are written is in :mod:`ecmf_lib.shards`, who writes them in :mod:`ecmf_lib.extract` (from clips) and
:mod:`ecmf_lib.interchange` (from other tools' features, with :mod:`ecmf_lib.bulk`). How many clips are read at once
is in :mod:`ecmf_lib.gather`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from itertools import repeat
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError

from ecmf_lib.bounded import parse_json
from ecmf_lib.gather import gather
from ecmf_lib.set_files import FORMAT, SET_NAME, read_about, read_index
from ecmf_lib.shards import DONE, StoreError, digest_of, index_table, open_shard, read_rows, slug

_LIBRARIES = ("av", "numpy", "opencv-python", "opensmile", "safetensors", "scikit-image", "torch")
_POOLS = {"mean": lambda steps: steps.mean(axis=0, dtype=np.float64), "max": lambda steps: steps.max(axis=0)}


def library_versions() -> dict[str, str]:
    """Versions of the libraries that features can depend on."""
    return {name: found for name in _LIBRARIES if (found := _version(name))}


@lru_cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def describe_set(
    *, stream: str, encoder: str, level: str, dim: int, licence: str, settings: dict, corpus: dict, **more
) -> dict:
    """Content of ``set.json``, with the set's name and fingerprint.

    Parameters
    ----------
    settings : dict
        JSON-able; all that changes the features apart from the input. Other settings are another set.
    corpus : dict
        ``name``, ``fingerprint``, ``clips`` (count). Only the name tells sets apart, so that a corpus may grow.
    **more
        Further JSON-able entries.
    """
    digits = digest_of(corpus["name"], stream, encoder, level, settings)[:8]
    return {
        "format": FORMAT,
        "name": f"{slug(corpus['name'])}__{slug(stream)}__{slug(encoder)}-{digits}",
        "fingerprint": digest_of(stream, encoder, level, settings, corpus)[:16],
        "stream": stream,
        "encoder": encoder,
        "level": level,
        "dim": dim,
        "licence": licence,
        "settings": settings,
        "corpus": corpus,
        "libraries": library_versions(),
        **more,
    }


class FeatureSet:
    """What one encoder made of one corpus, read only. Features stay on disk until they are asked for.

    Parameters
    ----------
    folder : Path
        Folder of the set, see :meth:`FeatureStore.open`.
    index : DataFrame, optional
        Its index, where that has just been written; by default it is read.

    Attributes
    ----------
    name, stream, encoder, level, licence : str
        ``level`` is ``"clip"`` (one vector a clip) or ``"frame"`` (one a time step).
    dim : int
    about : dict
        All of ``set.json``.
    index : DataFrame
        One row a clip, in corpus order: ``id, key, state, reason, shard, offset, length``.
    ids : list of str
        Clips that have features.
    """

    def __init__(self, folder: Path, index: pd.DataFrame | None = None):
        self.folder = Path(folder)
        self.about = read_about(self.folder)
        self.name, self.stream, self.encoder = (self.about[k] for k in ("name", "stream", "encoder"))
        self.level, self.licence, self.dim = (self.about[k] for k in ("level", "licence", "dim"))
        self.index = _read_index(self.folder) if index is None else index
        done = self.index[self.index["state"] == DONE]
        self.ids: list[str] = done["id"].tolist()
        self._at = dict(zip(self.ids, range(len(done)), strict=True))  # id → its place in the three below
        self._shard, names = pd.factorize(done["shard"])
        self._shards: list[str] = names.tolist()
        self._offset, self._length = done["offset"].to_numpy(), done["length"].to_numpy()
        self._open = lru_cache(maxsize=256)(self._map)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        size = f"{self.dim}" if self.level == "clip" else f"t × {self.dim}"
        return f"FeatureSet({self.name}: {len(self)} of {len(self.index)} clips, {size})"

    def get(self, id: str) -> np.ndarray:
        """Features of one clip: [dim] at clip level, [t, dim] at frame level, in the stored type.

        Raises
        ------
        StoreError
            If the set has none for this clip; the message gives the recorded reason.
        """
        if id not in self._at:
            known = self.index.loc[self.index["id"] == id, "reason"]
            why = known.iloc[0] if len(known) else "the set does not know this clip; extract or import it first"
            raise StoreError(f"set '{self.name}' has no features of clip '{id}': {why}")
        at = self._at[id]
        offset = int(self._offset[at])
        shard, length = self._shards[self._shard[at]], int(self._length[at])
        try:
            steps = self._open(shard)[offset : offset + length]
        except (SafetensorError, TypeError, ValueError) as error:
            raise StoreError(f"{self.folder / 'shards' / shard}: damaged shard ({error}); extract again") from None
        if steps.shape != (length, self.dim):
            raise StoreError(
                f"{self.folder / 'shards' / shard}: {steps.shape} for clip '{id}', the index expects "
                f"({length}, {self.dim}); extract again"
            )
        return steps[0] if self.level == "clip" else steps

    def matrix(self, ids: Sequence[str], pool: str = "mean") -> tuple[np.ndarray, np.ndarray]:
        """Features of many clips, one vector each.

        Parameters
        ----------
        ids : sequence of str
            Clips, in the order of the result. Those without features give zeros.
        pool : {"mean", "max"}
            How the time steps of a frame-level set become one vector.

        Returns
        -------
        features : float32 [n, dim]
        present : bool [n]
            Whether the clip has features in this set.

        Raises
        ------
        StoreError
            If not a single one of the ids is known to the set: then the set is of another corpus.
        """
        if pool not in _POOLS:
            raise ValueError(f"pool '{pool}' is not known; choose from {', '.join(_POOLS)}")
        at = np.fromiter(map(self._at.get, ids, repeat(-1)), np.int64, len(ids))
        present = at >= 0
        if len(ids) and not present.any() and not set(ids) & set(self.index["id"]):
            mine = self.index["id"].iloc[0] if len(self.index) else "none at all"
            raise StoreError(
                f"set '{self.name}' knows none of the {len(ids)} clips asked for, such as '{ids[0]}'; "
                f"its own ids look like '{mine}'. Open the set of this corpus"
            )
        # memory that nobody wrote to yet costs nothing until it is filled
        try:
            features = np.empty((len(ids), self.dim), np.float32)
        except MemoryError:
            raise StoreError(f"set '{self.name}': {len(ids)} × {self.dim} features do not fit into memory") from None
        features[~present] = 0
        at, paths = at[present], [f"{self.folder}/shards/{shard}" for shard in self._shards]
        where = self._shard[at], self._offset[at], self._length[at]
        gather(features, np.flatnonzero(present), paths, *where, None if self.level == "clip" else _POOLS[pool])
        return features, present

    def verify(self) -> list[str]:
        """Read every shard and compare it with its checksum; the damaged ones, each with its reason."""
        bad = []
        for shard in sorted(set(self.index["shard"])):
            path = self.folder / "shards" / shard
            try:
                with open_shard(path) as file:
                    promised = parse_json(file.metadata()["ecmf"])["sha256"]
                    if hashlib.sha256(np.ascontiguousarray(file.get_tensor("features"))).hexdigest() != promised:
                        bad.append(f"{path}: content differs from its checksum; delete the file and extract again")
            except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
                bad.append(f"{path}: damaged shard ({error}); delete the file and extract again")
        return bad

    def _map(self, shard: str):
        path = self.folder / "shards" / shard
        try:
            return open_shard(path).get_slice("features")
        except (SafetensorError, OSError) as error:
            raise StoreError(
                f"{path}: cannot be read ({error}); "
                "open the set again if an extraction ran meanwhile, else extract again"
            ) from None


def _read_index(folder: Path) -> pd.DataFrame:
    """Index of a set; of one whose extraction did not end, the rows that are there already."""
    try:
        return read_index(folder / "index.parquet")
    except FileNotFoundError:
        shards = sorted((folder / "shards").glob("*.safetensors"))
        table = index_table((shard.name, row) for shard in shards for row in read_rows(shard)).to_pandas()
        return table.drop_duplicates("id", ignore_index=True)


class FeatureStore:
    """A folder with feature sets.

    Parameters
    ----------
    root : path
        Made when something is first written.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        self.scratch = self.root / ".cache" / "writing"

    def folder(self, name: str) -> Path:
        """Where the set of this name lies or will lie; StoreError for what cannot be the name of a set."""
        if not SET_NAME.fullmatch(name):
            raise StoreError(f"{self.root}: no set can be called {name!r}; see the column 'name' of sets()")
        return self.root / "sets" / name

    def sets(self) -> pd.DataFrame:
        """One row a set: name, corpus, stream, encoder, dim, level, clips, without, licence, fingerprint.

        ``clips`` have features, ``without`` have none (the set's index says why).
        """
        rows = []
        for folder in sorted(path.parent for path in (self.root / "sets").glob("*/set.json")):
            found = FeatureSet(folder)
            listed = {name: found.about[name] for name in ("name", "stream", "encoder", "dim", "level")}
            counts = {"clips": len(found), "without": len(found.index) - len(found)}
            last = {"licence": found.licence, "fingerprint": found.about["fingerprint"]}
            rows.append(listed | {"corpus": found.about["corpus"]["name"]} | counts | last)
        order = "name corpus stream encoder dim level clips without licence fingerprint".split()
        return pd.DataFrame(rows, columns=order)

    def open(self, name: str) -> FeatureSet:
        """The set of this name (the column ``name`` of :meth:`sets`).

        Raises
        ------
        StoreError
            If there is none, or it cannot be read.
        """
        folder = self.folder(name)
        if not (folder / "set.json").is_file():
            there = [path.parent.name for path in sorted((self.root / "sets").glob("*/set.json"))]
            listed = ", ".join(there) or "none yet, extract first"
            raise StoreError(f"{self.root}: no set '{name}'; there are: {listed}")
        return FeatureSet(folder)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the store for writing; the lock goes with the process, however that ends.

        Raises
        ------
        StoreError
            If another process is writing into this store, or nobody can.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            held = open(self.root / ".lock", "a+", encoding="ascii")
        except OSError as error:
            raise StoreError(
                f"{self.root}: cannot be written ({error.strerror}); make the folder writable, or give another store"
            ) from error
        with held as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                raise StoreError(
                    f"{self.root}: process {file.read().strip() or '?'} is writing into this store; "
                    "wait for it to end, or give another store"
                ) from None
            with suppress(OSError):  # only told to others; a disk that is full stops the first file that counts
                os.ftruncate(file.fileno(), 0)
                os.write(file.fileno(), str(os.getpid()).encode())
            for left in self.scratch.glob("*"):  # of a process that was killed while it wrote
                left.unlink(missing_ok=True)
            yield
