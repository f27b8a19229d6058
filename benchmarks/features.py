"""Features at challenge size: opening, reading, memory, writing.

Run with ``python benchmarks/features.py [--clips 27369] [--repeat 3] [--folder data]``; takes 1.6 GB of disk (Linux).

Three streams of 1024, 768 and 1024 numbers a clip. What a user calls, ``FeatureStore.open`` and ``FeatureSet.matrix``
for all clips, against the common practice: a folder of ``.npy`` files a stream, ``np.load`` of each, ``np.stack``. Both
must give the same arrays. Writing is ``import_arrays``, against one file of as many bytes, written in order and flushed
(fsync). Ours and the rival's take turns, so that what else the machine does falls on both, and medians are compared.

*Warm*: everything has just been read. *Cold*: everything was flushed after writing, and before each run all files are
dropped from the page cache (``posix_fadvise``), which is checked on some (``mincore``). Where
/proc/sys/vm/drop_caches may be written, names and inodes are dropped too; else the rival keeps those warm.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
from rows import Row, record

from ecmf_lib.interchange import import_arrays
from ecmf_lib.shards import Pair, SetWriter
from ecmf_lib.shards import Row as ShardRow
from ecmf_lib.store import FeatureStore, describe_set

DIMS = {"face": 1024, "text": 768, "audio": 1024}
EXTRACTED = 32  # clips in a shard of ecmf_lib.extract
CORPUS = {"name": "benchmark", "fingerprint": "0" * 16}
PIECE = 8 << 20  # bytes
DROP = Path("/proc/sys/vm/drop_caches")


def fill(store: FeatureStore, ids: list[str], streams: dict[str, np.ndarray]) -> list[str]:
    """Import the streams; names of the sets."""
    about = {"corpus_name": CORPUS["name"], "corpus_fingerprint": CORPUS["fingerprint"]}
    made = import_arrays(store, ids=ids, streams=streams, source="features.npz", **about)
    return [found.name for found in made.values()]


def fill_as_extracted(store: FeatureStore, ids: list[str], streams: dict[str, np.ndarray]) -> list[str]:
    """The same in the shards that an extraction writes; names of the sets."""
    names = []
    with store.locked():
        for stream, x in streams.items():
            about = describe_set(
                stream=stream, encoder="any", level="clip", dim=x.shape[1], licence="", settings={},
                corpus=CORPUS | {"clips": len(ids)},
            )  # fmt: skip
            writer = SetWriter(store.folder(about["name"]), store.scratch, ids, about)
            pairs = [Pair(id, hashlib.sha256(row).hexdigest()[:32]) for id, row in zip(ids, x, strict=True)]
            for start in range(0, len(pairs), EXTRACTED):
                chunk = pairs[start : start + EXTRACTED]
                writer.write_chunk(chunk, {pair: (ShardRow(pair), x[None, start + n]) for n, pair in enumerate(chunk)})
            writer.finish(pairs)
            names.append(about["name"])
    return names


def write_in_order(path: Path, arrays: Iterable[np.ndarray]) -> None:
    """What the disk takes: all bytes into one file, flushed."""
    with open(path, "wb", buffering=0) as file:
        for array in arrays:
            left = memoryview(array).cast("B")
            while left:
                left = left[file.write(left[:PIECE]) :]
        os.fsync(file.fileno())


def read_set(root: Path, names: list[str], ids: list[str]) -> list[np.ndarray]:
    """Ours: open, and all clips in the order asked for."""
    store = FeatureStore(root)
    return [store.open(name).matrix(ids)[0] for name in names]


def read_npy(root: Path, ids: list[str]) -> list[np.ndarray]:
    """The rival's: load each clip's file, and stack."""
    return [np.stack([np.load(f"{root}/{stream}-UTT/{id}.npy") for id in ids]) for stream in DIMS]


def clock(call: Callable, *given: object) -> tuple[float, object]:
    """Seconds, and what came back."""
    start = time.perf_counter()
    found = call(*given)
    return time.perf_counter() - start, found


def files(root: Path) -> Iterator[str]:
    for folder, _, names in os.walk(root):
        yield from (os.path.join(folder, name) for name in names)


def chill(roots: Iterable[Path]) -> tuple[bool, float]:
    """Drop files from the caches; whether names and inodes went too, and the share of bytes still in memory."""
    paths = [path for root in roots for path in files(root)]
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)
    kept = [in_memory(path) for path in paths[:: max(len(paths) // 500, 1)]]
    try:
        DROP.write_text("2")
    except OSError:
        return False, float(np.mean(kept))
    return True, float(np.mean(kept))


def in_memory(path: str) -> float:
    """Share of a file's pages in the page cache, without reading any."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as content:
        pages = (ctypes.c_ubyte * -(-len(content) // mmap.PAGESIZE))()
        start = ctypes.c_char.from_buffer(content)
        failed = ctypes.CDLL(None).mincore(
            ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(len(content)), pages
        )
        del start  # else the map cannot be closed
    if failed:
        raise OSError(f"{path}: mincore failed")
    return float(np.mean(np.frombuffer(pages, np.uint8) & 1))


def growth(root: Path, names: list[str], order: int) -> dict[str, float]:
    """Memory of a fresh process that opens and reads everything, MB; see :func:`measure_growth`."""
    command = [sys.executable, __file__, "--measure", str(root), *names, "--order", str(order)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_growth(root: Path, names: list[str], order: int) -> None:
    """Print peak growth and size of what was read, after a store of one clip has been opened and read.

    The peak is the kernel's own (VmHWM, set back before), with all that is mapped: nothing is left out.
    """
    with tempfile.TemporaryDirectory() as folder:
        before = memory("VmRSS")
        small = fill(FeatureStore(folder), ["one"], {"one": np.ones((1, 8), np.float32)})
        read_set(Path(folder), small, ["one"])
    base = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    store = FeatureStore(root)
    ids = shuffled(store.open(names[0]).ids, order)
    found = read_set(root, names, ids)
    told = {"peak": memory("VmHWM") - base, "libraries": base - before, "arrays": sum(x.nbytes for x in found) / 1e6}
    print(json.dumps(told))


def memory(name: str) -> float:
    """A line of /proc/self/status in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(name))


def shuffled(ids: list[str], seed: int) -> list[str]:
    return ids if not seed else [ids[i] for i in np.random.default_rng(seed).permutation(len(ids))]


def writing(folder: Path, ids: list[str], streams: dict[str, np.ndarray], repeat: int) -> tuple[list[str], list[Row]]:
    """Rows on writing; leaves the last store, its sets' names are given back."""
    megabytes = sum(x.nbytes for x in streams.values()) / 1e6
    disk, ours = [], []
    for _ in range(2 * repeat + 1):
        shutil.rmtree(folder / "store", ignore_errors=True)
        disk.append(clock(write_in_order, folder / "raw", streams.values())[0])
        (folder / "raw").unlink()
        seconds, names = clock(fill, FeatureStore(folder / "store"), ids, streams)
        ours.append(seconds)
    small = clock(fill_as_extracted, FeatureStore(folder / "extracted"), ids, streams)[0]
    rate = [megabytes / median(seconds) for seconds in (ours, disk)]
    spread = ", ".join(f"{megabytes / seconds:.0f}" for seconds in sorted(disk))
    note = f"{megabytes:.0f} MB; the disk's rate varied: {spread}; in shards of {EXTRACTED} clips, as an extraction "
    note += f"writes them while it computes: {megabytes / small:.0f} MB/s"
    what = f"write {len(ids):,} clips × {len(streams)} streams"
    means = "of the disk's rate"
    return names, [Row(what, *rate, "MB/s", "one file, flushed", rate[0] / rate[1], means, goal=0.7, note=note)]


def reading(folder: Path, names: list[str], ids: list[str], repeat: int) -> list[Row]:
    """Rows on reading, warm and cold, in the corpus's order and in a random one."""
    rows, size = [], f"{len(ids):,} clips × {len(names)} streams"
    extracted = [path.name for path in sorted((folder / "extracted" / "sets").iterdir())]
    extracted = sorted(extracted, key=lambda name: list(DIMS).index(name.split("__")[1]))
    for state in ("warm", "cold"):
        for order, asked in (("corpus order", ids), ("random order", shuffled(ids, 1))):
            ours, rivals, small, note = [], [], [], ""
            for _ in range(repeat if state == "warm" else max(repeat - 1, 1)):
                if state == "cold":
                    inodes, kept = chill([folder / "store", folder / "npy", folder / "extracted"])
                    note = f"{100 * kept:.1f} % of the bytes were still in memory; names and inodes "
                    note += "dropped too; " if inodes else "were not dropped (needs root); "
                seconds, mine = clock(read_set, folder / "store", names, asked)
                ours.append(seconds)
                seconds, theirs = clock(read_npy, folder / "npy", asked)
                rivals.append(seconds)
                for one, other in zip(mine, theirs, strict=True):
                    assert np.array_equal(one, other), "ours and the rival's features differ"
                del mine, theirs
                small.append(clock(read_set, folder / "extracted", extracted, asked)[0])
            note += f"from shards of {EXTRACTED} clips, as extraction writes them: {median(small):.3g} s"
            pair = median(ours), median(rivals)
            what, rival = f"read {size}, {state}, {order}", f"{len(ids) * len(names):,} .npy files"
            rows.append(Row(what, *pair, "s", rival, pair[1] / pair[0], "times faster", goal=20, note=note))
    told = [growth(folder / "store", names, order) for order in (0, 1)]
    most = max(told, key=lambda one: one["peak"])
    note = f"peak growth of a fresh process, random order; libraries' own {most['libraries']:.0f} MB not in it"
    rows.append(
        Row(f"memory for {size}", most["peak"], most["arrays"], "MB", "the arrays themselves",
            most["peak"] / most["arrays"], "times the arrays", goal=1.2, more_is_better=False, note=note)
    )  # fmt: skip
    return rows


def main() -> None:
    """Measure and print rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=27_369)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument(
        "--folder", type=Path, default=Path(__file__).parents[1] / "data", help="on the disk to measure"
    )
    parser.add_argument("--measure", nargs="+", metavar="STORE SET", help=argparse.SUPPRESS)
    parser.add_argument("--order", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure_growth(Path(given.measure[0]), given.measure[1:], given.order)
        return
    rng = np.random.default_rng(0)
    ids = [f"sample_{n:08d}" for n in range(given.clips)]
    streams = {name: rng.standard_normal((given.clips, dim), dtype=np.float32) for name, dim in DIMS.items()}
    given.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        for stream, x in streams.items():
            (folder / "npy" / f"{stream}-UTT").mkdir(parents=True)
            for id, row in zip(ids, x, strict=True):
                np.save(folder / "npy" / f"{stream}-UTT" / f"{id}.npy", row)
        names, rows = writing(folder, ids, streams, given.repeat)
        streams.clear()
        os.sync()
        rows = reading(folder, names, ids, given.repeat) + rows
    record(rows)


if __name__ == "__main__":
    main()
