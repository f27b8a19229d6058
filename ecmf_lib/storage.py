"""Where the shards of a store lie, for machines that reach it together: a folder, or a URL of fsspec.

Two operations are enough, because shards are never changed: read a whole file, and write one so that a reader sees
all of it or nothing. A folder may lie on any file system that the machines share, at the same path on all of them.
A URL (``s3://bucket/store``, ``gs://…``, ``sftp://…``) needs no shared file system, only fsspec's package for it.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from ecmf_lib.shards import StoreError, write_file

#: File systems on which an upload is seen only when it is complete: no second name and no renaming are needed.
_ATOMIC = {"memory", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "hf"}


class Storage(Protocol):
    """The files of one store by their names relative to it, with ``/`` between folders."""

    def read(self, name: str) -> bytes:
        """Content of a file; StoreError if it cannot be read."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Put a file there at once; StoreError if that fails."""
        ...


@dataclass(frozen=True)
class FolderStorage:
    """A folder at the same path on all machines.

    Parameters
    ----------
    root : Path
    """

    root: Path

    def read(self, name: str) -> bytes:
        """Content of a file; StoreError if it cannot be read."""
        try:
            return (self.root / name).read_bytes()
        except OSError as error:
            raise StoreError(f"{self.root / name}: cannot be read ({error.strerror})") from error

    def write(self, name: str, content: bytes) -> None:
        """Write beside the store's content, flush to the disk, rename; StoreError if that fails."""
        write_file(self.root / name, content, self.root / ".cache" / "writing")


@dataclass(frozen=True)
class UrlStorage:
    """A place that fsspec reaches.

    Parameters
    ----------
    url : str
        Without credentials: those come from the environment, as fsspec's packages read them.
    """

    url: str

    def read(self, name: str) -> bytes:
        """Content of a file; StoreError if it cannot be read."""
        files, path = self._at(name)
        try:
            return files.cat_file(path)
        except Exception as error:  # each package has its own
            raise StoreError(f"{self.url}/{name}: cannot be read ({type(error).__name__}: {error})") from error

    def write(self, name: str, content: bytes) -> None:
        """Upload; on file systems where half an upload can be seen, under another name that is then changed."""
        files, path = self._at(name)
        protocols = {files.protocol} if isinstance(files.protocol, str) else set(files.protocol)
        folder, last = posixpath.split(path)
        growing = path if protocols & _ATOMIC else f"{folder}/.{uuid4().hex[:8]}-{last}"
        try:
            files.makedirs(folder, exist_ok=True)
            files.pipe_file(growing, content)
            if growing != path:
                files.mv(growing, path)
        except Exception as error:
            raise StoreError(
                f"{self.url}/{name}: cannot be written ({type(error).__name__}: {error}); "
                "mend it and run again, what is done stays done"
            ) from error

    def names(self, folder: str = "") -> dict[str, int]:
        """Name → size of the files below a folder; hidden ones (a write that did not end) are left out."""
        files, path = self._at(folder)
        _, root = self._at("")
        try:
            files.invalidate_cache()
            found = files.find(path, detail=True)
        except FileNotFoundError:
            return {}
        except Exception as error:
            raise StoreError(f"{self.url}: cannot be listed ({type(error).__name__}: {error})") from error
        inside = {name: about["size"] for name, about in found.items() if name.startswith(f"{root}/")}
        sizes = {name.removeprefix(f"{root}/"): size for name, size in inside.items()}
        return {name: size for name, size in sizes.items() if not any(p.startswith(".") for p in name.split("/"))}

    def remove(self, name: str) -> None:
        """Delete a file; nothing if it is not there."""
        files, path = self._at(name)
        try:
            files.rm_file(path)
        except FileNotFoundError:
            pass
        except Exception as error:
            raise StoreError(f"{self.url}/{name}: cannot be deleted ({type(error).__name__}: {error})") from error

    def _at(self, name: str):
        from fsspec.core import url_to_fs  # with its packages for object stores half a second

        try:
            files, root = url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise StoreError(f"{self.url}: fsspec cannot open it ({error})") from None
        return files, f"{root.rstrip('/')}/{name}" if name else root.rstrip("/")


def storage_of(place: str | Path) -> Storage:
    """A folder, or a URL if there is ``://`` in it."""
    return UrlStorage(str(place).rstrip("/")) if "://" in str(place) else FolderStorage(Path(place))
