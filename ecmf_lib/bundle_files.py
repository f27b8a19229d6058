"""A folder that is whole or not there, and that shows when anything in it has been changed.

``bundle.json`` lists every other file with its size and sha256, and holds a digest of its own content. That detects
damage, half a copy and careless edits. It does not stop a forger, who can compute all digests anew: whoever needs that
keeps the digest (:func:`unseal` gives it) in a place of their own. Nothing here is ever unpickled or executed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from ecmf_lib.bounded import LARGEST_JSON, read_bytes

#: Raised when older bundles can no longer be read.
FORMAT = 1
HEAD = "bundle.json"
MEMBER_FILES = ("model.json", "model.safetensors")
_FILE = re.compile(rf"members/(\d{{2,4}})/({'|'.join(map(re.escape, MEMBER_FILES))})", re.ASCII)
_SHA256 = re.compile("[0-9a-f]{64}")
_MEND = "copy the bundle again, or train it anew"


class BundleError(ValueError):
    """A bundle that cannot be written, read or used; the message names the file, what was expected and the mend."""


def canonical(content: object) -> str:
    """JSON in one form only: sorted keys, no NaN; what digests are made of.

    Raises
    ------
    BundleError
        For what JSON cannot hold.
    """
    try:
        return json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BundleError(f"{HEAD}: {error}; give texts, finite numbers, lists and dicts only") from None


def member_folder(number: int) -> str:
    """Where a member lies: ``members/00``, …"""
    return f"members/{number:02d}"


def write_whole(folder: Path, fill: Callable[[Path], None], content: dict) -> None:
    """Write a sealed folder: it is there with everything in it, or as it was before.

    Parameters
    ----------
    folder : Path
        May be there only if it is empty or an older bundle, which is then replaced.
    fill : callable
        Writes the members into the folder that it is given.
    content : dict
        JSON-able; ``files`` is added.

    Raises
    ------
    BundleError
        If the folder holds anything else, or the content is not JSON-able.
    """
    folder = Path(folder)
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise BundleError(f"{folder}: is there and no folder; choose another name for the bundle")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / HEAD).is_file():
        raise BundleError(f"{folder}: holds something else than a bundle; choose another folder, or empty this one")
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        new = work / "new"
        new.mkdir()
        fill(new)
        seal(new, content)
        if folder.exists():
            os.rename(folder, work / "old")
        os.rename(new, folder)
    except BaseException:
        if (work / "old").exists() and not folder.exists():
            os.rename(work / "old", folder)
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def seal(folder: Path, content: dict) -> None:
    """Write ``bundle.json`` for the members that lie in the folder."""
    files = {
        path.relative_to(folder).as_posix(): {"sha256": _sha256(path), "bytes": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    content = content | {"files": files}
    head = {"format": FORMAT, "digest": _digest(content), "content": content}
    text = json.dumps(json.loads(canonical(head)), indent=1, ensure_ascii=False)
    (folder / HEAD).write_text(text + "\n", encoding="utf-8")


def unseal(folder: Path) -> tuple[dict, str]:
    """Read ``bundle.json`` and check every file against it.

    Returns
    -------
    content : dict
        As it was given to :func:`write_whole`, with ``files``.
    digest : str
        64 hex digits of all of it.

    Raises
    ------
    BundleError
        For a file that was changed, cut short, is missing or should not be there, a link, a name that is not plain or
        leaves the folder, and a format that this version does not know.
    """
    folder = Path(folder)
    head = _read_head(folder / HEAD)
    content, digest = head["content"], head["digest"]
    if _digest_of(folder, content) != digest:
        raise BundleError(f"{folder / HEAD}: its content does not have the digest that stands in it; {_MEND}")
    _check_names(folder, content["files"])
    _check_there(folder, set(content["files"]))
    for name, told in content["files"].items():
        _check_file(folder / name, told)
    return content, digest


def _read_head(path: Path) -> dict:
    try:
        if path.is_symlink():
            raise BundleError(f"{path}: is a link; copy the file itself into the bundle")
        head = json.loads(read_bytes(path, LARGEST_JSON), object_pairs_hook=_once)
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror}); expected a bundle's folder, as notebook 05 writes it"
        ) from None
    except BundleError:
        raise
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: no JSON of a bundle ({error}); {_MEND}") from None
    if not isinstance(head, dict) or "format" not in head:
        raise BundleError(f"{path}: not the list of a bundle's files, which has a 'format'; {_MEND}")
    if head["format"] != FORMAT or isinstance(head["format"], bool):
        raise BundleError(
            f"{path}: a bundle of format {head['format']!r}, this version reads format {FORMAT}; use the version of "
            "ecmf that wrote it, or train it anew"
        )
    whole = set(head) == {"format", "digest", "content"} and isinstance(head["digest"], str)
    if not whole or not isinstance(head["content"], dict) or not isinstance(head["content"].get("files"), dict):
        raise BundleError(f"{path}: expected format, digest and content with files, and nothing else; {_MEND}")
    return head


def _once(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in it")
    return found


def _check_names(folder: Path, files: dict) -> None:
    """Only members/NN/model.json and model.safetensors: no other name can leave the folder or hide in it."""
    for name, told in files.items():
        if not _FILE.fullmatch(name):
            raise BundleError(
                f"{folder / HEAD}: lists {name!r}; a bundle's files are called members/NN/ and then "
                f"{' or '.join(MEMBER_FILES)}; {_MEND}"
            )
        good = isinstance(told, dict) and set(told) == {"sha256", "bytes"} and type(told["bytes"]) is int
        if not good or not isinstance(told["sha256"], str) or not _SHA256.fullmatch(told["sha256"]):
            raise BundleError(f"{folder / HEAD}: {name}: expected its sha256 and bytes; {_MEND}")
    numbers = sorted({_FILE.fullmatch(name)[1] for name in files})
    expected = {f"{member_folder(i)}/{name}" for i in range(len(numbers)) for name in MEMBER_FILES}
    if not numbers or set(files) != expected:
        odd = sorted(set(files) ^ expected) or ["no member at all"]
        raise BundleError(f"{folder / HEAD}: members are not complete ({odd[0]}); {_MEND}")


def _check_there(folder: Path, names: set[str]) -> None:
    folders = {"members"} | {name.rpartition("/")[0] for name in names}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise BundleError(f"{path}: is a link; copy the file itself into the bundle")
        if not (path.is_dir() and name in folders) and not (path.is_file() and name in names | {HEAD}):
            raise BundleError(f"{path}: does not belong to this bundle, its {HEAD} does not list it; take it out")
    for name in sorted(names):
        if not (folder / name).is_file():
            raise BundleError(f"{folder / name}: is missing; {_MEND}")


def _check_file(path: Path, told: dict) -> None:
    size = path.stat().st_size
    if size != told["bytes"]:
        raise BundleError(f"{path}: has {size} bytes, expected {told['bytes']}: cut short or changed; {_MEND}")
    if _sha256(path) != told["sha256"]:
        raise BundleError(f"{path}: its content was changed (another sha256 than {HEAD} lists); {_MEND}")


def _digest_of(folder: Path, content: dict) -> str:
    try:
        return _digest(content)
    except BundleError as error:
        raise BundleError(f"{folder}: {error}") from None


def _digest(content: dict) -> str:
    return hashlib.sha256(canonical([FORMAT, content]).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
