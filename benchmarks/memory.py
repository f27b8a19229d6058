"""Peak memory of extraction: it does not grow with the number of clips.

Run with ``python benchmarks/memory.py [--clips 200 2000] [--work light model]``. The corpus lists the demo's clips
again and again under other ids. Each extraction runs in a process of its own, because a peak never goes down. (Linux.)

*model* is a pre-trained encoder for each visual branch that prepares what a real one would (images of 256×256, 2.4 MB a
clip and branch) and computes next to nothing, so that workers, waiting chunks and batches are as in earnest and
what remains is the memory of the pipeline, without that of weights.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from own_memory import high_water

from ecmf_lib.adapters import open_corpus
from ecmf_lib.corpus import Corpus, make_corpus
from ecmf_lib.encoders import ClipInputs, Encoder, MissingStream, profile
from ecmf_lib.encoders.cards import Card
from ecmf_lib.encoders.model import ModelEncoder, Prepared
from ecmf_lib.encoders.weights import Weights
from ecmf_lib.extract import extract
from ecmf_lib.faces import get_detector

SIDE = 256  # px


class Pictures(ModelEncoder):
    """Takes images as a large model does and gives their mean colours."""

    width = 3
    checkpoint = Weights(Path("none"), "0" * 16, "benchmark")

    def _prepare(self, clip: ClipInputs) -> Prepared:
        pictures = clip.crops if self.stream == "face" else clip.frames
        if not len(pictures):
            raise MissingStream("no video")
        return Prepared(tuple(cv2.resize(picture, (SIDE, SIDE)) for picture in pictures))

    def _load(self, device: str, dtype: object) -> str:
        return "loaded"

    def _forward(self, items: list[np.ndarray]) -> list[np.ndarray]:
        return list(np.stack(items).mean((1, 2))[:, None].astype(np.float32))


def encoders(work: str) -> dict[str, Encoder]:
    if work == "light":
        return profile("light")
    cards = {"global": "frames", "face": "faces"}
    return {stream: Pictures(Card(f"pictures-{stream}", stream, "", "", 3, 0, 0, "", "", uses))
            for stream, uses in cards.items()}  # fmt: skip


def repeated(corpus: Corpus, clips: int) -> Corpus:
    """A corpus of so many clips, the given ones again and again."""
    table = corpus.clips.iloc[np.arange(clips) % len(corpus)].reset_index(drop=True)
    return make_corpus(corpus.name, corpus.root, table.assign(id=[f"{n:05d}-{id}" for n, id in enumerate(table["id"])]))


def peak(pid: int) -> float:
    """Most MiB that a process has ever held; 0 if it is gone."""
    try:
        return high_water(pid) / 2**20
    except (OSError, StopIteration):
        return 0.0


class Workers(threading.Thread):
    """Looks at the worker processes twice a second; what the system says of ended children counts their parent, too."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak, self.over = 0.0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.5):
            self.peak = max([self.peak, *(peak(child.pid) for child in multiprocessing.active_children())])


def one(work: str, clips: int, frames: int, workers: int) -> dict[str, float]:
    """MiB of the largest processes of one extraction."""
    corpus, watch = repeated(open_corpus("demo"), clips), Workers()
    watch.start()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as store:
        ledger = extract(
            corpus, store, encoders(work), get_detector("lbp"), n_frames=frames, workers=workers, progress=False
        )
    watch.over.set()
    found = {"work": work, "clips": clips, "done": int((ledger["status"] == "done").sum())}
    found |= {"main process": peak(os.getpid()), "largest worker": watch.peak}
    return found | {"seconds": time.perf_counter() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, nargs="+", default=[200, 2000])
    parser.add_argument("--work", nargs="+", default=["light", "model"], choices=["light", "model"])
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--workers", type=int, default=0, help="0 = one a core")
    parser.add_argument("--one", action="store_true", help="in this very process; prints JSON")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.work[0], given.clips[0], given.frames, given.workers)))
        return
    rows = []
    for work in given.work:
        for clips in given.clips:
            options = ["--work", work, "--clips", clips, "--frames", given.frames, "--workers", given.workers, "--one"]
            command = [sys.executable, __file__, *map(str, options)]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rows.append(json.loads(said.splitlines()[-1]))
    print("peak memory in MiB")
    print(pd.DataFrame(rows).to_string(index=False, float_format="%.0f"))


if __name__ == "__main__":
    main()
