"""A manifest of a million clips: open it, filter it, split it.

Run with ``python benchmarks/manifest.py [--clips 1000000] [--speakers 50000]``.

All files of the manifest are really there, as the check of an opened manifest asks: hard links to a few one-byte files,
a thousand to a folder (so their folders have been read a moment ago; on a cold disk the check waits for it as well).
Every opening runs in a process of its own, since a peak of memory never goes down; libraries are imported before
the clock starts, but count in the memory. Half of the clips are labelled. The rival reads the same csv with pandas and
asks for each file: no check of a label, an id, a path or a text.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from own_memory import peak
from rows import Row, record
from sklearn.model_selection import StratifiedGroupKFold

from ecmf_lib.adapters import open_corpus
from ecmf_lib.config import EMOTIONS
from ecmf_lib.samples import grouped_folds

SECONDS, GIGABYTES = 10, 2  # what is allowed for opening, filtering and splitting
IN_A_FOLDER = 1000
BUSY = "processors"
FOLDS = 5
SAID = ("我没事,真的没事。", "Why didn't you call, then?", "你怎么现在才来？", "Ça va, merci.", 'He said "fine".')


def make(folder: Path, clips: int, speakers: int) -> None:
    """Files, ``clips.csv`` and ``clips.parquet``."""
    names = []
    for start in range(0, clips, IN_A_FOLDER):
        part = folder / "video" / f"{start // IN_A_FOLDER:04d}"
        part.mkdir(parents=True)
        first = f"{part}/{start:07d}.mp4"
        Path(first).write_bytes(b"x")
        for number in range(start + 1, min(start + IN_A_FOLDER, clips)):
            os.link(first, f"{part}/{number:07d}.mp4")
    rng = np.random.default_rng(0)
    ids = [f"{n:07d}" for n in range(clips)]
    names = [f"video/{n // IN_A_FOLDER:04d}/{name}.mp4" for n, name in enumerate(ids)]
    split = rng.choice(["labelled", "unlabelled", "test"], clips, p=[0.5, 0.45, 0.05])
    label = rng.choice(EMOTIONS, clips, p=[0.24, 0.21, 0.19, 0.16, 0.13, 0.07])
    # people differ in how much there is of them
    speaker = (speakers * rng.random(clips) ** 2).astype(int)
    table = {
        "id": [f"clip_{name}" for name in ids],
        "video": names,
        "audio": "",
        "transcript": [f"{SAID[n % len(SAID)]} {n}" for n in range(clips)],
        "language": [("zh", "en", "zh", "fr", "en")[n % len(SAID)] for n in range(clips)],
        "label": np.where(split == "labelled", label, ""),
        "split": split,
        "speaker": [f"speaker-{n}" for n in speaker],
    }
    table = pd.DataFrame(table)
    table.to_parquet(folder / "clips.parquet", index=False)
    table.to_csv(folder / "clips.csv", index=False)


def ours(path: str) -> dict[str, float]:
    """Seconds of each step, and the peak of memory in GB."""
    clock = Clock()
    corpus = open_corpus(path)
    clock("open")
    labelled = corpus.select(corpus.clips.loc[corpus.clips["split"] == "labelled", "id"])
    clock("filter")
    groups, unit = labelled.groups()
    clock(f"groups ({unit})")
    labels = pd.Categorical(labelled.clips["label"], categories=corpus.classes).codes
    folds = grouped_folds(labels, groups, FOLDS)
    clock("split")
    assert (np.bincount(folds) > 0).sum() == FOLDS
    assert len(corpus.fingerprint) == 16
    clock("fingerprint")
    return clock.told()


def rival(path: str) -> dict[str, float]:
    """pandas and ``os.path.isfile``."""
    clock = Clock()
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    clock("open")
    folder = os.path.dirname(path)
    assert all(os.path.isfile(os.path.join(folder, name)) for name in table["video"])
    clock("files")
    return clock.told()


def alone(path: str) -> dict[str, float]:
    """Folds where every clip is its own group, as where nobody names speakers."""
    labels = pd.factorize(pd.read_parquet(path, columns=["label"])["label"])[0]  # none is a class here
    groups = [f"clip:{n:07d}" for n in range(len(labels))]
    clock = Clock()
    grouped_folds(labels, groups, FOLDS)
    clock("split")
    return clock.told()


def sklearns(path: str) -> dict[str, float]:
    """The same folds of a fiftieth of the clips, ours and scikit-learn's: its time grows with clips and groups."""
    table = pd.read_parquet(path, columns=["label", "speaker"])
    table = table[table["label"] != ""].iloc[: len(table) // 50]
    labels = pd.Categorical(table["label"], categories=EMOTIONS).codes
    groups = table["speaker"].tolist()
    clock = Clock()
    ours = grouped_folds(labels, groups, FOLDS)
    clock("ours")
    theirs = np.empty(len(labels), int)
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    for number, (_, test) in enumerate(splitter.split(labels, labels, groups)):
        theirs[test] = number
    clock("theirs")
    assert (ours == theirs).all(), "not scikit-learn's folds"
    return clock.told()


class Clock:
    """Seconds of each step, and of processors in all: more than that is waiting, for files or for other programs."""

    def __init__(self):
        self.seconds, self.last, self.busy = {}, time.perf_counter(), time.process_time()

    def __call__(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step], self.last = now - self.last, now

    def told(self) -> dict[str, float]:
        busy = time.process_time() - self.busy
        return self.seconds | {BUSY: busy, "GB": peak() / 1e3}


def apart(work, path: Path) -> dict[str, float]:
    """In a process of its own."""
    command = [sys.executable, __file__, "--work", work.__name__, "--path", str(path)]
    told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
    print(f"{work.__name__} {path.name}: " + ", ".join(f"{name} {value:.2f}" for name, value in told.items()))
    return told


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--speakers", type=int, default=50_000)
    parser.add_argument("--work", choices=["ours", "rival", "alone", "sklearns"], help="in this very process")
    parser.add_argument("--path")
    given = parser.parse_args()
    if given.work:
        print(json.dumps(globals()[given.work](given.path)))
        return
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        start = time.perf_counter()
        make(folder, given.clips, given.speakers)
        print(f"{given.clips:,} files made in {time.perf_counter() - start:.0f} s")
        found = {kind: apart(ours, folder / f"clips.{kind}") for kind in ("csv", "parquet")}
        theirs = apart(rival, folder / "clips.csv")
        lone, small = apart(alone, folder / "clips.parquet"), apart(sklearns, folder / "clips.parquet")
    size = f"{given.clips:,} clips"
    rows = []
    for kind, steps in found.items():
        what = f"{size}, {kind}: open, filter, split by {given.speakers:,} speakers"
        seconds = total(steps)
        steps_told = ", ".join(f"{name} {value:.1f}" for name, value in steps.items() if name != "GB") + " s"
        rows.append(share(f"{what}, time", seconds, SECONDS, "s", note=steps_told))
        rows.append(share(f"{what}, peak memory", steps["GB"], GIGABYTES, "GB"))
    both = theirs["open"] + theirs["files"]
    slower = found["csv"]["open"] / both
    unchecked = "pandas.read_csv and os.path.isfile, nothing checked"
    rows.append(Row(f"{size}, csv: open with every check", found["csv"]["open"], both, "s", unchecked, slower, "times"))
    split = share(
        f"{size}: folds, every clip its own group", lone["split"], SECONDS, "s", f"processors {lone[BUSY]:.1f} s"
    )
    faster = small["theirs"] / small["ours"]
    part = f"folds of {given.clips // 50:,} labelled clips by speaker, the same as scikit-learn's"
    rows += [split, Row(part, small["ours"], small["theirs"], "s", "StratifiedGroupKFold", faster, "times faster")]
    record(rows)


def total(steps: dict[str, float]) -> float:
    """Seconds of all steps."""
    return sum(value for name, value in steps.items() if name not in (BUSY, "GB"))


def share(what: str, ours: float, allowed: float, unit: str, note: str = "") -> Row:
    """A row beside what is allowed."""
    return Row(what, ours, allowed, unit, "allowed", ours / allowed, "of what is allowed", 1, False, note)


if __name__ == "__main__":
    main()
