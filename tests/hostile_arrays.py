"""Hostile npz and npy files: zip bombs, shapes that are not there, Python objects, numbers that are none."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hostile_material as material
import numpy as np
from hostile import Hostile

GB = 2**30


def header(text: str | bytes, version: int = 1, length: int | None = None) -> bytes:
    """An npy header of any text."""
    text = text.encode() if isinstance(text, str) else text
    form, fill = ("<H", 10) if version == 1 else ("<I", 12)
    text = text if length is not None else text + b" " * (-(len(text) + fill + 1) % 64) + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack(form, len(text) if length is None else length) + text


def array_of(shape: str, descr: str = "'<f4'", order: str = "False", data: bytes = bytes(24)) -> bytes:
    """An npy file that says what it likes of its shape and type."""
    return header(f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}") + data


def _pickled() -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    return file.getvalue()


#: What is wrong → content of an npy file.
ARRAYS: dict[str, bytes] = {
    "a shape of a TB": array_of("(250000000000,)"),
    "a shape of 2 to the 70": array_of(f"({2**70},)"),
    "a shape whose product wraps to 0": array_of(f"({2**32}, {2**32})"),
    "a shape whose product wraps to 6": array_of(f"({2**63 + 3}, 2)"),
    "a negative shape": array_of("(-6,)"),
    "two negative sides": array_of("(-2, -3)"),
    "a shape of 100 sides": array_of("(" + "1," * 100 + ")"),
    "a shape of truths": array_of("(True, 6)"),
    "a shape of fractions": array_of("(6.0,)"),
    "a shape that is a text": array_of("'6'"),
    "no columns but a TB of rows": array_of(f"({2**60}, 0)", data=b""),
    "an item of 2 GB": array_of("(1,)", descr="'<U536870911'"),
    "items of nothing": array_of(f"({2**62},)", descr="'|S0'", data=b""),
    "a subarray of a TB": array_of("(1,)", descr="('<f4', (250000000000,))"),
    "a record type": array_of("(1,)", descr="[('a', '<f4'), ('b', 'O')]"),
    "a type that is none": array_of("(6,)", descr="'no-such'"),
    "a type that is a number": array_of("(6,)", descr="4"),
    "times": array_of("(3,)", descr="'<M8[s]'"),
    "complex numbers": array_of("(3,)", descr="'<c8'"),
    "half the type": array_of("(6,)", descr="'<f'"),
    "numbers the other way round": array_of("(6,)", descr="'>f4'"),
    "NaN and infinity": array_of("(6,)", data=np.array([np.nan, np.inf, 1, 1, 1, 1], "<f4").tobytes()),
    "an order that is none": array_of("(6,)", order="'C'"),
    "a header that calls": header("__import__('os').system('true')"),
    "a header of brackets": header("(" * 9000),
    "a header of minus signs": header("-" * 9000 + "1"),
    "a header of 60 kB": header("{'descr': '<f4', 'fortran_order': False, 'shape': (6,)" + " " * 60_000 + "}"),
    "a header of 4 GB": header("{", version=2, length=2**32 - 1),
    "a header of NULs": header(bytes(100)),
    "a header that is no text": header(b"\xff\xfe\x80" * 30, version=3),
    "a header without a shape": header("{'descr': '<f4', 'fortran_order': False}"),
    "a header with more": header("{'descr': '<f4', 'fortran_order': False, 'shape': (6,), 'x': 1}"),
    "a version that is none": b"\x93NUMPY\x09\x00" + bytes(100),
    "Python objects": _pickled(),
    "a bare pickle": b"\x80\x04cos\nsystem\n.",
    "an npz": b"PK\x03\x04" + bytes(200),
    "one number": array_of("()", data=bytes(4)),
    "three sides": array_of("(1, 2, 3)"),
    "no rows": array_of("(0, 6)", data=b""),
}


def zipped(members: dict[str, bytes], **how) -> bytes:
    """A zip with these members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how.pop("compression", zipfile.ZIP_DEFLATED), **how) as out:
        for name, content in members.items():
            out.writestr(name, content)
    return file.getvalue()


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def table(**changed) -> dict[str, bytes]:
    """The members of a good npz table, but for some: bytes as they are, arrays saved, None left out."""
    arrays = {f"{name}.npy": _npy(array) for name, array in material.labelled().items()}
    for name, new in changed.items():
        arrays[f"{name}.npy"] = _npy(new) if isinstance(new, np.ndarray) else new
    return {name: content for name, content in arrays.items() if content is not None}


def _bomb(zeros: int, shape: str = "", compression: int = zipfile.ZIP_DEFLATED):
    """A stream of so many zeros that takes a thousandth of it."""

    def make() -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", compression, compresslevel=1) as out:
            for name, content in table(face=None).items():
                out.writestr(name, content)
            with out.open("face.npy", "w", force_zip64=True) as member:
                member.write(array_of(shape or f"(6, {zeros // 24})", data=b""))
                block = bytes(2**22)
                for _ in range(zeros // len(block)):
                    member.write(block)
        return file.getvalue()

    return make


def _patched(find: bytes, put: bytes, at: int) -> Callable[[], bytes]:
    """A good table with bytes changed so far behind each mark of zip's directory."""

    def make() -> bytes:
        raw = bytearray(zipped(table()))
        place = raw.find(find)
        while place >= 0:
            raw[place + at : place + at + len(put)] = put
            place = raw.find(find, place + 4)
        return bytes(raw)

    return make


def _ids(*names: str) -> np.ndarray:
    return np.array([*names, *material.ids()[len(names) :]])


#: What is wrong → content of an npz file.
TABLES: dict[str, bytes | Callable[[], bytes]] = {
    "a stream of 4 GB of zeros in 4 MB": _bomb(4 * GB),
    "a stream of 2 GB of zeros, bzip2": _bomb(2 * GB, compression=zipfile.ZIP_BZIP2),
    "a stream of 600 MB that says it is small": _bomb(600 * 2**20, shape="(6, 2)"),
    "a zip of 20,000 members": lambda: zipped(table() | {f"x{i}.npy": b"" for i in range(20_000)}),
    "a zip in a zip": lambda: zipped(table(face=zipped({"face.npy": bytes(100)}))),
    "sizes that lie": _patched(b"PK\x01\x02", struct.pack("<I", 0xFFFFFFF0), 24),
    "an encrypted member": _patched(b"PK\x01\x02", struct.pack("<H", 1), 8),
    "a compression that is none": _patched(b"PK\x01\x02", struct.pack("<H", 77), 10),
    "offsets beyond the end": _patched(b"PK\x01\x02", struct.pack("<I", 0x7FFFFFFF), 42),
    "checksums that are wrong": _patched(b"PK\x01\x02", b"\0\0\0\0", 16),
    "members that climb": lambda: zipped(table() | {"../../evil.npy": _npy(np.zeros((6, 2), "f4"))}),
    "a member that is absolute": lambda: zipped(table() | {"/etc/evil.npy": _npy(np.zeros((6, 2), "f4"))}),
    "a member with a NUL": lambda: zipped(table() | {"a\x01b.npy": _npy(np.zeros((6, 2), "f4"))}),
    "a member of no name": lambda: zipped(table() | {".npy": _npy(np.zeros((6, 2), "f4"))}),
    "a member of 60,000 letters": lambda: zipped(table() | {"x" * 60_000 + ".npy": _npy(np.zeros((6, 2), "f4"))}),
    "a stream called reason": lambda: zipped(table(reason=np.zeros((6, 2), "f4"))),
    "no ids": lambda: zipped(table(id=None)),
    "no labels": lambda: zipped(table(label=None)),
    "no streams": lambda: zipped(table(face=None, audio=None)),
    "nothing": lambda: zipped({}),
    "ids that are objects": lambda: zipped(table(id=_pickled())),
    "ids of 4 MB each": lambda: zipped(table(id=_ids("a" * 2**20))),
    "ids of bytes that are no text": lambda: zipped(table(id=np.array([b"\xff\xfe"] * 6))),
    "ids that are paths": lambda: zipped(table(id=_ids("../../etc/passwd", "/x", "a\0b"))),
    "ids twice": lambda: zipped(table(id=_ids("clip5"))),
    "ids in two columns": lambda: zipped(table(id=np.array([["a", "b"]] * 6))),
    "one id": lambda: zipped(table(id=np.array("a"))),
    "labels that are none": lambda: zipped(table(label=np.array(["<script>"] * 6))),
    "labels that are numbers": lambda: zipped(table(label=np.arange(6))),
    "fewer rows in a stream": lambda: zipped(table(face=np.zeros((3, 2), "f4"))),
    "a stream without columns": lambda: zipped(table(face=np.zeros((6, 0), "f4"))),
    "nothing but NaN": lambda: zipped(table(face=np.full((6, 2), np.nan, "f4"))),
    "numbers beyond float32": lambda: zipped(table(face=np.full((6, 2), 1e300))),
    "long doubles": lambda: zipped(table(face=np.zeros((6, 2), np.longdouble))),
    "letters that are no code points": lambda: zipped(
        table(id=array_of("(6,)", descr="'<U1'", data=b"\xff" * 24)),
    ),
    "ids of surrogates": lambda: zipped(
        table(id=array_of("(6,)", descr="'<U1'", data=b"".join(struct.pack("<I", 0xD800 + i) for i in range(6)))),
    ),
}


def _alone(content: bytes | Callable[[], bytes], name: str = "table.npz"):
    def make(folder: Path, good: Path) -> Path:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content())
        return folder / name

    return make


def _beside_good(content: bytes, name: str = "face-UTT"):
    """A folder of npy files, the first of which is hostile."""

    def make(folder: Path, good: Path) -> Path:
        made = folder / name
        made.mkdir()
        (made / "clip0.npy").write_bytes(content)
        for i in (1, 2, 3):
            (made / f"clip{i}.npy").write_bytes((good / "array.npy").read_bytes())
        return made

    return make


def _folder(fill: Callable[[Path, Path], None], name: str = "face-UTT"):
    def make(folder: Path, good: Path) -> Path:
        (folder / name).mkdir()
        fill(folder / name, good)
        return folder / name

    return make


def _sparse(folder: Path, good: Path) -> None:
    """A TB that takes no room: its header tells the truth."""
    with open(folder / "clip0.npy", "wb") as file:
        file.write(array_of("(250000000000,)", data=b""))
        file.truncate(128 + 10**12)


FOLDERS: dict[str, Callable[[Path, Path], None]] = {
    "nothing": lambda folder, good: None,
    "links out": lambda folder, good: os.symlink(good / "array.npy", folder / "clip0.npy"),
    "links to itself": lambda folder, good: os.symlink("clip0.npy", folder / "clip0.npy"),
    "a pipe": lambda folder, good: os.mkfifo(folder / "clip0.npy"),
    "a device": lambda folder, good: os.symlink("/dev/zero", folder / "clip0.npy"),
    "a folder in place of a file": lambda folder, good: (folder / "clip0.npy").mkdir(),
    "a TB of nothing": _sparse,
    "a name of control characters": lambda folder, good: (folder / "a\x1b[2J.npy").write_bytes(array_of("(6,)")),
    "a name that is no UTF-8": lambda folder, good: (folder / os.fsdecode(b"\xff\xfe.npy")).write_bytes(b"x"),
}


def inputs() -> Iterator[Hostile]:
    """All of them."""
    for what, content in ARRAYS.items():
        yield Hostile(f"npy/{what}", "npy", _beside_good(content), "npy_folder", "clip0.npy")
    for what in ("a shape of a TB", "a shape whose product wraps to 6", "no rows", "no columns but a TB of rows"):
        make = _beside_good(ARRAYS[what], "face-FRA")
        yield Hostile(f"npy/{what}, in time", "npy", make, "npy_folder", "clip0.npy")
    for what, content in ARRAYS.items():
        made = _alone(lambda content=content: zipped(table(face=content)))
        yield Hostile(f"npz/a stream with {what}", "npz", made, "extract")
    for what, content in TABLES.items():
        slow = "GB" in what or "20,000" in what
        yield Hostile(f"npz/{what}", "npz-zip", _alone(content), "extract", slow=slow)
    for what, fill in FOLDERS.items():
        yield Hostile(f"npy-folder/{what}", "npy-folder", _folder(fill), "npy_folder")
    yield Hostile("npy-folder/a name that says nothing", "npy-folder", _folder(_sparse, "face"), "npy_folder")
