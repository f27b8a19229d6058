"""Broken and hostile inputs, made from a seed: each is a name, a kind, how to make it, and the reader it is for.

Bytes of good files are damaged here; files that somebody has made on purpose are in ``hostile_tables.py``,
``hostile_arrays.py``, ``hostile_store.py`` and ``hostile_others.py``.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hostile_material import REAL, REAL_FILES

Make = Callable[[Path, Path], Path]  # empty folder, good material → what the reader is given


@dataclass(frozen=True)
class Hostile:
    """One input.

    Attributes
    ----------
    name : str
        ``kind/what is wrong with it``, unique.
    kind : str
        Such as "csv".
    make : callable
        (empty folder, folder of good material) → file or folder for the reader.
    read : str
        Function of ``hostile_readers.py``.
    names : str
        What a refusal has to name; "": the name of what was made.
    slow : bool
        Not for the quick part.
    """

    name: str
    kind: str
    make: Make
    read: str
    names: str = ""
    slow: bool = False


def all_inputs(seed: int = 0) -> list[Hostile]:
    """Every input; the same for the same seed."""
    import hostile_arrays
    import hostile_others
    import hostile_store
    import hostile_tables

    found = [*_damaged(seed), *hostile_tables.inputs(), *hostile_arrays.inputs(), *hostile_store.inputs()]
    found += hostile_others.inputs()
    twice = {one.name for one in found if [other.name for other in found].count(one.name) > 1}
    assert not twice, f"names are to be unique: {sorted(twice)}"
    return found


def quick_inputs(seed: int = 0) -> list[Hostile]:
    """Some of every kind: what is quick, damaged and made on purpose."""
    kinds: dict[tuple[str, bool], list[Hostile]] = {}
    for one in all_inputs(seed):
        if not one.slow:
            kinds.setdefault((one.kind, "/damaged" in one.name), []).append(one)
    chance = random.Random(seed + 1)
    return [one for of_kind in kinds.values() for one in chance.sample(of_kind, min(3, len(of_kind)))]


# ------------------------------------------------------------------------------------------------ damage


def truncated(raw: bytes, chance: random.Random) -> bytes:
    return raw[: chance.randrange(1, max(2, len(raw)))]


def flipped(raw: bytes, chance: random.Random) -> bytes:
    """A few bits, anywhere."""
    out = bytearray(raw)
    for _ in range(chance.choice([1, 3, 20])):
        out[chance.randrange(len(out))] ^= 1 << chance.randrange(8)
    return bytes(out)


def flipped_head(raw: bytes, chance: random.Random) -> bytes:
    """Bits of the first 200 bytes, where a format keeps its sizes."""
    out = bytearray(raw)
    for _ in range(6):
        out[chance.randrange(min(200, len(out)))] ^= 1 << chance.randrange(8)
    return bytes(out)


def flipped_tail(raw: bytes, chance: random.Random) -> bytes:
    """Bits of the last 400 bytes: directories of zip and parquet, the index of an mp4."""
    out = bytearray(raw)
    for _ in range(6):
        out[-1 - chance.randrange(min(400, len(out)))] ^= 1 << chance.randrange(8)
    return bytes(out)


def huge_numbers(raw: bytes, chance: random.Random) -> bytes:
    """Four or eight bytes that say "the largest number there is", in the head or the tail."""
    out, size = bytearray(raw), chance.choice([4, 8])
    at = chance.randrange(max(1, min(300, len(raw) - size)))
    at = at if chance.random() < 0.5 else max(0, len(raw) - size - at)
    out[at : at + size] = chance.choice([b"\xff", b"\x7f"]) * size
    return bytes(out[: len(raw)])


def holes(raw: bytes, chance: random.Random) -> bytes:
    """A block of zeros, as a disk or a download leaves it."""
    at = chance.randrange(len(raw))
    size = min(chance.choice([16, 512, 4096]), len(raw) - at)
    return raw[:at] + bytes(size) + raw[at + size :]


def shuffled(raw: bytes, chance: random.Random) -> bytes:
    """Blocks in another order."""
    size = max(1, len(raw) // 8)
    blocks = [raw[at : at + size] for at in range(0, len(raw), size)]
    chance.shuffle(blocks)
    return b"".join(blocks)


def repeated(raw: bytes, chance: random.Random) -> bytes:
    """The file twice in one, or with rubbish after it."""
    return raw + (raw if chance.random() < 0.5 else chance.randbytes(1000))


def rubbish(raw: bytes, chance: random.Random) -> bytes:
    """The first bytes of the format, then noise."""
    return raw[:16] + chance.randbytes(2000)


def wrong_header(raw: bytes, chance: random.Random) -> bytes:
    other = chance.choice(
        [b"RIFF\xff\xff\xff\x7fWAVEfmt ", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"fLaC", b"PAR1", b"\xff\xfe"]
    )
    return other + raw[len(other) :]


def empty(raw: bytes, chance: random.Random) -> bytes:
    return b""


DAMAGE = (
    *(truncated, flipped, flipped_head, flipped_tail, huge_numbers, holes),
    *(shuffled, repeated, rubbish, wrong_header, empty),
)


@dataclass(frozen=True)
class Target:
    """A good file, where it lies when it is read, and how often each damage is done to it."""

    kind: str
    file: str  # in the material
    read: str
    place: Callable[[Path, Path, bytes], Path]  # folder, material, content → what the reader is given
    times: int = 1
    names: str = ""
    slow: bool = False


def the_file(folder: Path, pattern: str) -> Path:
    """The one file of this pattern: names in a store are made of digests."""
    (found,) = folder.glob(pattern)
    return found


def alone(name: str) -> Callable[[Path, Path, bytes], Path]:
    def place(folder: Path, good: Path, content: bytes) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return place


def within(file: str) -> Callable[[Path, Path, bytes], Path]:
    """The folder of the material that the file is in, with this file changed."""

    def place(folder: Path, good: Path, content: bytes) -> Path:
        top = Path(file).parts[0]
        shutil.copytree(good / top, folder / top)
        the_file(folder, file).write_bytes(content)
        return folder / top

    return place


def as_clip(name: str) -> Callable[[Path, Path, bytes], Path]:
    """A corpus of this one clip."""

    def place(folder: Path, good: Path, content: bytes) -> Path:
        column = "video" if name.endswith("mp4") else "audio"
        (folder / "manifest.csv").write_text(f"id,{column},label\na,{name},happy\n")
        (folder / name).write_bytes(content)
        return folder

    return place


def _with_table(folder: Path, good: Path, content: bytes) -> Path:
    shutil.copy(good / "manifest.csv", folder)
    return alone("corpus.toml")(folder, good, content)


def _in_npy_folder(folder: Path, good: Path, content: bytes) -> Path:
    made = folder / "face-UTT"
    made.mkdir()
    shutil.copy(good / "array.npy", made / "clip1.npy")
    (made / "clip0.npy").write_bytes(content)
    return made


FACE, LEDGER = "store/sets/six__face*", "store/ledgers/six-*/ledger.parquet"
SHARD = f"{FACE}/shards/*.safetensors"
TARGETS = (
    Target("mp4", "clip.mp4", "clip", as_clip("clip.mp4"), 3, names="clip.mp4"),
    Target("wav", "clip.wav", "clip", as_clip("clip.wav"), 2, names="clip.wav"),
    Target("flac", "clip.flac", "clip", as_clip("clip.flac"), 2, names="clip.flac"),
    Target("real-mp4", "real-mp4.mp4", "clip", as_clip("real.mp4"), names="real.mp4"),
    Target("real-flac", "real-flac.flac", "clip", as_clip("real.flac"), names="real.flac"),
    Target("csv", "manifest.csv", "check", alone("table.csv")),
    Target("csv-review", "review.csv", "review", alone("review.csv")),
    Target("csv-submission", "submission.csv", "submission", alone("submission.csv")),
    Target("csv-source", "source.csv", "source", alone("source.csv")),
    Target("parquet", "manifest.parquet", "check", alone("table.parquet"), 2),
    Target("toml", "corpus.toml", "check", _with_table),
    Target("npz", "features.npz", "extract", alone("table.npz"), 2),
    Target("npy", "array.npy", "npy_folder", _in_npy_folder, 2, names="clip0.npy"),
    Target("safetensors", SHARD, "store", within(SHARD), 2, names=".safetensors"),
    Target("safetensors-again", SHARD, "shards", within(SHARD), names=".safetensors"),
    Target("set-json", f"{FACE}/set.json", "store", within(f"{FACE}/set.json"), 2, names="set.json"),
    Target("index", f"{FACE}/index.parquet", "store", within(f"{FACE}/index.parquet"), 2, names="index.parquet"),
    Target("ledger", LEDGER, "ledger", within(LEDGER), names="ledger.parquet"),
    Target("bundle", "bundle/bundle.json", "bundle", within("bundle/bundle.json"), names="bundle.json"),
    Target("bundle", "bundle/members/00/model.safetensors", "predict", within("bundle/members/00/model.safetensors")),
    Target("sqlite", "answers.sqlite", "cache", alone("answers.sqlite"), 2),
    Target("ipynb", "notebook.ipynb", "notebook", alone("00_start_here.ipynb"), names="00_start_here", slow=True),
)


def _damaged(seed: int) -> Iterator[Hostile]:
    for target in TARGETS:
        if target.kind in REAL_FILES and not (REAL / REAL_FILES[target.kind]).is_file():
            continue
        for damage in DAMAGE:
            for number in range(1 if damage is empty else target.times):
                name = f"{target.kind}/damaged/{Path(target.file).name}: {damage.__name__} {number}"

                def make(folder, good, target=target, damage=damage, name=name) -> Path:
                    raw = the_file(good, target.file).read_bytes()
                    return target.place(folder, good, damage(raw, random.Random(f"{seed} {name}")))

                names = target.names or (Path(target.file).name if target.kind == "bundle" else "")
                yield Hostile(name, target.kind, make, target.read, names, target.slow)
