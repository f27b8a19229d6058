"""How time and memory grow with the number of clips: extraction, enrichment, refinement, self-training, submission.

Run with ``python benchmarks/growth.py [--full] [--work extract …] [--clips 1000 10000 …]``.

Each measurement runs in a process of its own, because a peak of memory never goes down. By default 1,000 to 40,000
clips, and 132,171 (the challenge) where that is cheap; ``--full`` takes 132,171 everywhere. What a clip costs by itself
is kept small, so that anything that grows faster than the clips would be seen: files are a fifth of a second of sound,
one for each clip; features are generated and narrow (32 + 24 + 32 numbers); nobody is asked, answers are ready-made.

* *extract*: two encoders (sound and words), all that is around them: digests, workers, shards, index, ledger. *again*:
  the same once more, when everything is stored; *more*: when one clip in a hundred has new words.
* *enrich*: answers come one by one into the cache; *recall*: all of them are read back and checked.
* *refine*: so many given labels, and the audit table. *self-train*: three rounds, 2,000 labelled and so many unlabelled
  clips.
* *submit*: a bundle's predictions, the csv, and its check; *check*: of a file of which every name is wrong.

The exponent is the slope of log time over log clips, between the two largest sizes; 1 is linear. It is taken of
processor time (ours and that of worker processes), which other programs on the machine do not change; seconds on
the wall stand beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from own_memory import peak
from rows import Row, record

CHALLENGE = 132_171
LABELLED = 2000
DIMS = {"face": 32, "text": 24, "audio": 32}
STEEPEST = 1.1
#: kB a clip at most where nothing is to be held for each clip: a cache that is being filled.
FLAT, FLAT_STEPS = 0.1, ("MB enrich",)
BUSY = " (processors)"
Steps = dict[str, float]


class Clock:
    """Seconds of each step: on the wall, and of processors."""

    def __init__(self):
        self.seconds: Steps = {}
        self.skip()

    def skip(self) -> None:
        """What was done since the last step does not count."""
        self.last = time.perf_counter(), processors()

    def __call__(self, step: str) -> None:
        wall, busy = self.last
        self.seconds[step] = time.perf_counter() - wall
        self.seconds[f"{step}{BUSY}"] = processors() - busy
        self.skip()


def processors() -> float:
    """Seconds of processor time of this process and its children that have ended."""
    return time.process_time() + sum(os.times()[2:4])


def extraction(clips: int, folder: Path, clock: Clock) -> None:
    """Extract, extract again, and once more with some new words."""
    from growth_encoder import Loudness

    from ecmf_lib.corpus import make_corpus
    from ecmf_lib.encoders import get_encoder
    from ecmf_lib.extract import extract

    names = sounds(folder / "corpus", clips)
    ids = [f"clip{n:06d}" for n in range(clips)]
    table = pd.DataFrame({"id": ids, "audio": names, "transcript": [f"words {n % 977}" for n in range(clips)]})
    encoders = {"audio": Loudness(), "text": get_encoder("char-ngram")}
    changed = table["transcript"].mask(np.arange(clips) % 100 == 0, "other words")
    base = peak()
    for step, words in (("extract", table["transcript"]), ("again", table["transcript"]), ("more", changed)):
        clock.skip()
        corpus = make_corpus("growth", folder / "corpus", table.assign(transcript=words))
        ledger = extract(corpus, folder / "store", encoders, None, progress=False)
        clock(step)
        assert (ledger["status"] == "done").all(), ledger["reason"].iloc[0]
    clock.seconds["MB extract"] = peak() - base


def sounds(root: Path, clips: int) -> list[str]:
    """A file a clip, .2 s each, a thousand to a folder: hard links to one, with a time stamp that is not of now."""
    names = [f"audio/{n // 1000:04d}/{n:06d}.wav" for n in range(clips)]
    for start in range(0, clips, 1000):
        part = root / "audio" / f"{start // 1000:04d}"
        part.mkdir(parents=True)
        first = root / names[start]
        with wave.open(str(first), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes((3000 * np.sin(np.arange(3200) / (5 + start / 1000))).astype("<i2").tobytes())
        os.utime(first, (1e9, 1e9))
        for name in names[start + 1 : start + 1000]:
            os.link(first, root / name)
    return names


def enrichment(clips: int, folder: Path, clock: Clock) -> None:
    """Fill the cache answer by answer, then read all back."""
    from enrichment import answer, clip

    from ecmf_lib.enrich import LLMEnricher, enrich
    from ecmf_lib.enrich_cache import Replies
    from ecmf_lib.enrich_talk import Reply, Talk

    enricher = LLMEnricher("http://127.0.0.1:1/v1", "bench", replay=True)
    cues = [clip(number) for number in range(clips)]
    base = peak()
    clock.skip()
    with Replies(folder / "answers.sqlite") as replies:
        for one in cues:
            talk = Talk(one, enricher.setup)
            replies.put([(talk.request, one.id, Reply(answer(one), "stop"))])
    clock("enrich")
    clock.seconds["MB enrich"] = peak() - base
    enriched = enrich(cues, enricher, cache=folder / "answers.sqlite", progress=False)
    clock("recall")
    assert all(one.state == "enriched" for one in enriched)
    clock.seconds["MB recall"] = peak() - base


def features(clips: int, seed: int, prefix: str):
    """Clips around their class's centre; a fifth of the labels is wrong."""
    from ecmf_lib import noise
    from ecmf_lib.config import EMOTIONS
    from ecmf_lib.samples import FusionData

    rng = np.random.default_rng(seed)
    true = rng.integers(0, len(EMOTIONS), clips)
    centres = np.random.default_rng(0)
    streams = {}
    for name, dim in DIMS.items():
        around = 0.35 * centres.standard_normal((len(EMOTIONS), dim), dtype=np.float32)
        streams[name] = rng.standard_normal((clips, dim), dtype=np.float32) + around[true]
    wrong = noise.inject("class-dependent", true, len(EMOTIONS), 0.2, rng)
    speakers = [f"{prefix}{i % max(clips // 20, 2)}" for i in range(clips)]
    here = {name: np.ones(clips, bool) for name in DIMS}
    return FusionData([f"{prefix}{i:06d}" for i in range(clips)], streams, here, wrong, speakers, EMOTIONS), true


def refinement(clips: int, folder: Path, clock: Clock) -> None:
    """Refine all labels."""
    from ecmf_lib.refine import refine

    data, true = features(clips, 1, "clip")
    refine(data.select(np.arange(300)), seed=0)  # what is imported when it is used
    base = peak()
    clock.skip()
    found = refine(data, seed=0)
    found.audit()
    clock("refine")
    clock.seconds["MB refine"] = peak() - base
    assert (found.labels != true).mean() < (data.labels != true).mean()


def self_training(clips: int, folder: Path, clock: Clock) -> None:
    """2,000 labelled clips, `clips` unlabelled ones, three rounds."""
    from ecmf_lib.self_training import Rounds, self_train

    labelled, _ = features(LABELLED, 1, "train")
    others, _ = features(clips, 2, "new")
    nothing = np.zeros(clips)
    others = replace(others, labels=nothing.astype(np.int64), weight=nothing)
    few = replace(Rounds(), most=1)
    self_train(labelled, labelled.speakers, others.select(np.arange(300)), seed=0, rounds=few)
    base = peak()
    clock.skip()
    self_train(labelled, labelled.speakers, others, seed=0, rounds=Rounds(most=3))
    clock("self-train")
    clock.seconds["MB self-train"] = peak() - base


def submission(clips: int, folder: Path, clock: Clock) -> None:
    """Predict, write and check; and check a file in which no name is right."""
    from ecmf_lib.bundle import train_bundle
    from ecmf_lib.config import EMOTIONS
    from ecmf_lib.fit import ModelSpec
    from ecmf_lib.submit import check_submission, write_submission

    labelled, _ = features(LABELLED, 1, "train")
    candidates, _ = features(clips, 2, "new")
    named = {name: {} for name in DIMS}
    spec = ModelSpec("ECMF", "ecmf", options={"width": 16})
    bundle, _ = train_bundle(
        labelled, spec, n_folds=2, epochs=2, encoders=named, about={}, bootstrap=20, progress=False
    )
    bundle.predict(candidates.select(np.arange(300)))
    base = peak()
    clock.skip()
    chances, _ = bundle.predict(candidates)
    said = np.array(EMOTIONS)[chances.argmax(1)].tolist()
    path = write_submission(folder / "submission.csv", candidates.ids, said)
    assert check_submission(path, candidates.ids).empty
    clock("submit")
    clock.seconds["MB submit"] = peak() - base
    found = check_submission(path, [f"other_{name}" for name in candidates.ids])
    clock("check")
    assert len(found) == 2 * clips


WORK: dict[str, Callable[[int, Path, Clock], None]] = {
    "extract": extraction,
    "enrich": enrichment,
    "refine": refinement,
    "self-train": self_training,
    "submit": submission,
}
#: Sizes by default; with --full all of them end at the challenge's.
SIZES = {work: [1000, 10_000] for work in WORK} | {work: [1000, 10_000, CHALLENGE] for work in ("self-train", "submit")}
SIZES["enrich"] = [10_000, 40_000]  # below, what is held is the cache of the database: 2 MB


def apart(work: str, clips: int) -> Steps:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, "--one", work, "--clips", str(clips)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = json.loads(said.splitlines()[-1])
    print(f"{work}, {clips:,} clips: " + ", ".join(f"{name} {value:.1f}" for name, value in found.items()), flush=True)
    return found


def rows_of(found: dict[int, Steps]) -> list[Row]:
    """Exponent of each step's time, and what is held for each clip."""
    before, after = sorted(found)[-2:]
    rows = []
    for step, largest in found[after].items():
        first = found[before][step]
        if step.startswith("MB "):
            each = (largest - first) * 1e3 / (after - before)
            what = f"{step.removeprefix('MB ')}: memory beyond the data, {after:,} clips against {before:,}"
            goal = FLAT if step in FLAT_STEPS else None
            rows.append(Row(what, largest, first, "MB", f"{before:,} clips", each, "kB more a clip", goal, False))
        elif not step.endswith(BUSY):
            busy, once = found[after][step + BUSY], found[before][step + BUSY]
            told = f"on the wall {exponent(first, largest, before, after):.2f}, {1e3 * largest / after:.2g} ms a clip"
            told += f"; processors: {fitted({clips: steps[step + BUSY] for clips, steps in found.items()})}"
            what = f"{step}: time, {after:,} clips against {before:,}"
            steep = exponent(once, busy, before, after)
            linear = first * after / before
            rows.append(Row(what, largest, linear, "s", "linear", steep, "exponent of time", STEEPEST, False, told))
    return rows


def exponent(first: float, last: float, before: int, after: int) -> float:
    """Slope of log time over log clips."""
    return float(np.log(last / first) / np.log(after / before))


def fitted(seconds: dict[int, float]) -> str:
    """The straight line through the times; with three or more, also how much of their variance it explains."""
    clips, times = np.array(list(seconds)), np.array(list(seconds.values()))
    slope, start = np.polyfit(clips, times, 1)
    line = f"{start:.2g} s + {1e3 * slope:.2g} ms a clip"
    if len(clips) < 3:
        return line
    missed = ((times - start - slope * clips) ** 2).sum() / ((times - times.mean()) ** 2).sum()
    return f"{line} (R² {1 - missed:.4f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help=f"up to {CHALLENGE:,} clips everywhere")
    parser.add_argument("--work", nargs="+", choices=WORK, default=list(WORK))
    parser.add_argument("--clips", type=int, nargs="+", help="in place of the sizes")
    parser.add_argument("--one", choices=WORK, help="in this very process; prints JSON")
    given = parser.parse_args()
    if given.one:
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            WORK[given.one](given.clips[0], Path(folder), clock)
        print(json.dumps(clock.seconds))
        return
    rows = []
    for work in given.work:
        sizes = given.clips or sorted({*SIZES[work], *([CHALLENGE] if given.full else [])})
        rows += rows_of({clips: apart(work, clips) for clips in sizes})
    record(rows)


if __name__ == "__main__":
    main()
