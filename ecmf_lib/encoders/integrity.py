"""Whether a file of weights is whole, and whether reading it can run foreign code; found out without loading it."""

from __future__ import annotations

import json
import os
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

#: Names that a pickled table of tensors refers to. Anything else is an object whose making runs code.
_PLAIN = re.compile(
    r"collections OrderedDict|torch (\w+Storage|Size|device|\w*float\w*|u?int\d+|bool)|torch\.serialization _get_layout"
    r"|torch\._utils _rebuild_(tensor(_v2)?|parameter)|torch\.storage (Untyped|Typed)Storage"
)

_LONGEST_HEADER = 100_000_000  # bytes; the same limit as the safetensors library


class Unfit(Exception):
    """A file that cannot or must not be read.

    Attributes
    ----------
    path : Path
    reason : str
        What is wrong with it, as the end of a sentence that begins with its name.
    safe : bool
        False if reading it could run code.
    """

    def __init__(self, path: Path, reason: str, *, safe: bool = True):
        super().__init__(f"{path.name} {reason}")
        self.path, self.reason, self.safe = path, reason, safe


def check_weights(path: Path) -> None:
    """Check a file by its ending: ``.safetensors``, ``.bin``, ``.onnx`` or ``.json``; others are refused as pickles.

    Raises
    ------
    Unfit
        If it is cut short or of another format, or if reading it could run code.
    """
    try:
        {".safetensors": _safetensors, ".bin": _torch, ".onnx": _onnx, ".json": read_json}[path.suffix](path)
    except KeyError:
        raise Unfit(path, "is of a kind that can hold pickled code", safe=False) from None
    except OSError as error:
        raise Unfit(path, f"cannot be read ({error.strerror})") from None


def read_json(path: Path) -> dict:
    """Content of a JSON file that holds an object.

    Raises
    ------
    Unfit
    """
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise Unfit(path, "is cut short or no JSON") from None
    if not isinstance(content, dict):
        raise Unfit(path, "holds no JSON object")
    return content


def shards_of(index: Path) -> list[Path]:
    """Files that an index (``*.index.json``) names, in the order of their names.

    Raises
    ------
    Unfit
        If it names nothing, or a file outside its own folder.
    """
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise Unfit(index, "names no files of weights")
    for name in sorted(set(names.values())):
        # a bare name: no folder, no "..", no drive; where a link of that name leads is its owner's business
        if name in ("", ".", "..") or re.search(r"[/\\:\0]", name):
            raise Unfit(index, f"names {name!r}, which lies outside its folder", safe=False)
    return [index.parent / name for name in sorted(set(names.values()))]


def _safetensors(path: Path) -> None:
    """The length of the file has to be what its header promises (a download that broke off is shorter)."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _LONGEST_HEADER):
            raise Unfit(path, f"is cut short or no safetensors file ({size} bytes)")
        header = file.read(length)
    try:
        tensors = json.loads(header)
        ends = [entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"]
        promised = 8 + length + max(ends, default=0)
    except (ValueError, AttributeError, KeyError, IndexError, TypeError, RecursionError):
        raise Unfit(path, "is no safetensors file") from None
    if promised != size:
        raise Unfit(path, f"is {'cut short' if size < promised else 'damaged'}: {size} of {promised} bytes")


def _torch(path: Path) -> None:
    """A file of ``torch.save``: every object that its pickles name has to be part of a plain table of tensors."""
    try:
        names = sorted(set(_names(path)))
    except (ValueError, zipfile.BadZipFile, KeyError, IndexError, EOFError, UnicodeDecodeError):
        raise Unfit(path, "is cut short or no file of torch.save") from None
    foreign = [name.replace(" ", ".") for name in names if not _PLAIN.fullmatch(name)]
    if foreign:
        raise Unfit(path, f"is a pickle that would run code ({', '.join(foreign[:3])})", safe=False)


def _names(path: Path) -> Iterator[str]:
    """Every "module name" that the pickles of a file of ``torch.save`` refer to."""
    with open(path, "rb") as file:
        zipped = (
            file.read(4) == b"PK\3\4"
        )  # as torch tells them apart: something in front of a zip is read instead of it
    if zipped:
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith(".pkl")]
            if not pickles:
                raise ValueError("no pickle")
            for name in pickles:
                yield from _globals(archive.read(name))
        return
    with open(path, "rb") as file:  # before torch 1.6: magic number, protocol, machine, table, keys, then raw numbers
        for _ in range(5):
            yield from _globals(file)


def _globals(pickled) -> Iterator[str]:
    for code, argument, _ in pickletools.genops(pickled):
        if code.name in ("GLOBAL", "INST"):
            yield argument
        elif code.name == "STACK_GLOBAL" or code.name.startswith("EXT"):  # torch.save writes neither by itself
            yield "a name put together while it is read"


def _onnx(path: Path) -> None:
    """The fields of the protocol buffer have to end where the file ends, and one of them is the graph."""
    size, found = path.stat().st_size, set()
    with open(path, "rb") as file:
        while file.tell() < size:
            key = _varint(file, path)
            found.add(key >> 3)
            kind = key & 7
            if kind == 0:
                _varint(file, path)
            elif kind in (1, 2, 5):
                file.seek({1: 8, 5: 4}.get(kind) or _varint(file, path), os.SEEK_CUR)
            else:
                raise Unfit(path, "is no ONNX file")
            if file.tell() > size:
                raise Unfit(path, f"is cut short ({size} bytes) or no ONNX file")
    if 7 not in found:  # ModelProto.graph
        raise Unfit(path, "is cut short or no ONNX file")


def _varint(file, path: Path) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise Unfit(path, "is cut short or no ONNX file")
