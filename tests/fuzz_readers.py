"""atheris on the readers of manifests and stores: ``python tests/fuzz_readers.py TARGET FOLDER -runs=N``.

Whatever is no refusal of ours ends the run with a traceback and the input that made it. Seeds are good files.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["ecmf_lib"]):
    import ecmf_lib.adapters as adapters
    import ecmf_lib.bundle_files as bundle_files
    import ecmf_lib.extract  # noqa: F401  (what a store is read by)
    import ecmf_lib.interchange as interchange
    import ecmf_lib.store as stores
    from ecmf_lib.corpus import CorpusError
    from ecmf_lib.shards import StoreError

import numpy as np
import pandas as pd

IDS = ["clip0", "clip1", "clip2"]
TABLE = "id,transcript,label,speaker\n" + "".join(f"{id},words — 好,happy,s\n" for id in IDS)


class Target:
    """A file whose content is drawn, and what reads it."""

    def __init__(self, folder: Path):
        self.folder = folder

    def seeds(self) -> list[bytes]:
        raise NotImplementedError

    def read(self, content: bytes) -> None:
        raise NotImplementedError


class Manifest(Target):
    def seeds(self) -> list[bytes]:
        return [TABLE.encode(), TABLE.encode("gb18030"), b'id,label\n"a ""b""","happy"\n', b"id;label\na;happy\n"]

    def read(self, content: bytes) -> None:
        path = self.folder / "table.csv"
        path.write_bytes(content)
        adapters.open_corpus(str(path))


class Parquet(Target):
    def seeds(self) -> list[bytes]:
        file = io.BytesIO()
        pd.DataFrame({"id": IDS, "label": ["happy", "", "sad"]}).to_parquet(file)
        return [file.getvalue()]

    def read(self, content: bytes) -> None:
        path = self.folder / "table.parquet"
        path.write_bytes(content)
        adapters.open_corpus(str(path))


class Npz(Target):
    def seeds(self) -> list[bytes]:
        found = []
        for save in (np.savez, np.savez_compressed):
            file = io.BytesIO()
            save(file, id=np.array(IDS), label=np.array(["happy"] * 3), face=np.eye(3, dtype=np.float32))
            found.append(file.getvalue())
        return found

    def read(self, content: bytes) -> None:
        path = self.folder / "table.npz"
        path.write_bytes(content)
        adapters.open_corpus(str(path))


class Store(Target):
    """The first byte says which of a set's files the others are."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        about = {"corpus_name": "c", "corpus_fingerprint": "f", "source": "s"}
        store = stores.FeatureStore(folder / "store")
        self.set = interchange.import_arrays(store, ids=IDS, streams={"face": np.eye(3)}, **about)["face"]
        (shard,) = (self.set.folder / "shards").iterdir()
        self.paths = [self.set.folder / "set.json", self.set.folder / "index.parquet", shard]
        self.good = [path.read_bytes() for path in self.paths]

    def seeds(self) -> list[bytes]:
        return [bytes([number]) + good for number, good in enumerate(self.good)]

    def read(self, content: bytes) -> None:
        which = content[0] % 3 if content else 0
        for number, (path, good) in enumerate(zip(self.paths, self.good, strict=True)):
            path.write_bytes(content[1:] if number == which else good)
        store = stores.FeatureStore(self.folder / "store")
        store.sets()
        found = store.open(self.set.name)
        found.verify()
        found.matrix(IDS)
        for id in found.ids:
            found.get(id)


class Bundle(Target):
    """The list of a bundle's files."""

    def seeds(self) -> list[bytes]:
        shutil.rmtree(self.folder / "bundle", ignore_errors=True)
        member = self.folder / "bundle" / "members" / "00"
        member.mkdir(parents=True)
        for name in bundle_files.MEMBER_FILES:
            (member / name).write_text("{}")
        bundle_files.seal(self.folder / "bundle", {"classes": ["happy"]})
        head = json.loads((self.folder / "bundle" / "bundle.json").read_text())
        return [json.dumps(head).encode()]

    def read(self, content: bytes) -> None:
        (self.folder / "bundle" / "bundle.json").write_bytes(content)
        bundle_files.unseal(self.folder / "bundle")


TARGETS = {"manifest": Manifest, "parquet": Parquet, "npz": Npz, "store": Store, "bundle": Bundle}


def main() -> None:
    name, place, *options = sys.argv[1:]
    folder = Path(place)
    (folder / "seeds").mkdir(parents=True, exist_ok=True)
    target = TARGETS[name](folder)
    for number, seed in enumerate(target.seeds()):
        (folder / "seeds" / str(number)).write_bytes(seed)

    def once(content: bytes) -> None:
        try:
            target.read(content)
        except (CorpusError, StoreError, bundle_files.BundleError):
            pass

    limits = ["-max_len=20000", "-rss_limit_mb=3000", "-timeout=60", f"-artifact_prefix={folder}/"]
    atheris.Setup([sys.argv[0], *limits, *options, str(folder / "seeds")], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
