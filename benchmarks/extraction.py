"""Speed of extraction, next to what bounds it on the same machine with the same clips.

Run with ``python benchmarks/extraction.py [--profile light] [--stand-ins real] …``. In one run it measures

- each step alone on prepared input: decoding, following the face, each encoder;
- the *pipeline*: an extraction from an empty store to the ledger, as a user sees it, with what of it is start-up;
- the *simple loop* that most published code uses: for each stream a script of its own that takes one clip at a time,
  decodes it, searches every sampled frame for the face, encodes, and saves one ``.npy``.

Two bounds are printed, because on a CPU all steps want the same cores. *Slowest step*: that step alone on all cores,
as if everything else were free; on a machine whose models run on a GPU, this is the bound. *All the work*: as if no
core were ever idle and nothing cost anything but the steps themselves; on a CPU no pipeline can be faster.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rows import Row, record

from ecmf_lib.adapters import open_corpus
from ecmf_lib.clip_task import FACTS, MEDIA, ClipTask, Job
from ecmf_lib.corpus import Clip, Corpus
from ecmf_lib.encoders import ClipInputs, Encoder, MissingStream, profile
from ecmf_lib.encoders.cards import CARDS
from ecmf_lib.encoders.model import ModelEncoder, Prepared
from ecmf_lib.extract import extract
from ecmf_lib.faces import Detector, get_detector, track_faces
from ecmf_lib.media import read_media
from ecmf_lib.model_stage import run_clips
from ecmf_lib.shards import Pair
from ecmf_lib.workers import run_jobs, usable_cores


@dataclass(frozen=True)
class Steps:
    """A clip in a worker as always, but with the seconds that each step took."""

    task: ClipTask

    def __call__(self, job: Job) -> dict[str, float]:
        clip, seconds = job.clip, {}

        def timed(name: str, step: Callable):
            start = time.process_time()
            try:
                return step()
            except MissingStream:
                return None
            finally:
                seconds[name] = time.process_time() - start

        inputs = inputs_of(clip)
        if self.task.uses & MEDIA:
            media = timed("decode", lambda: read_media(clip.video, clip.audio, n_frames=self.task.n_frames))
            inputs |= {"frames": media.frames, "times": media.times, "audio": media.audio}
        if "faces" in self.task.uses:
            track = timed("follow the face", lambda: track_faces(media.frames, self.task.detector))
            inputs |= {"crops": track.crops, "found": track.found}
        for stream, encoder in self.task.encoders.items():
            step = encoder.prepare if isinstance(encoder, ModelEncoder) else encoder.encode
            timed(f"{stream}: {step.__name__}", lambda step=step: step(ClipInputs(**inputs)))
        return seconds


def inputs_of(clip: Clip) -> dict:
    """What an encoder gets of a clip before anything is decoded."""
    none = np.zeros((0, 1, 1, 3), np.uint8)
    said = {"transcript": clip.transcript, "language": clip.language, "enrichment": clip.enrichment}
    return {"id": clip.id, "frames": none, "times": np.zeros(0), "crops": none, "found": np.zeros(0, bool)} | {
        "audio": np.zeros(0, np.float32),
        **said,
    }


# ------------------------------------------------------------------------------------------------ the ways of working


def worker_steps(jobs: list[Job], task: ClipTask) -> pd.Series:
    """Step → CPU seconds per clip, in one worker with one thread; the first two clips are for loading."""
    seconds = [answer for _, answer in run_jobs(jobs, Steps(task), workers=1)]
    return pd.DataFrame(seconds[2:]).mean()


def all_worker_steps(jobs: list[Job], task: ClipTask, workers: int) -> tuple[float, list[dict[str, Prepared]]]:
    """Clips/s of the worker processes without a store and without models, and what they prepared for those."""
    times, prepared = [], []
    for _, results in run_jobs(jobs, task, workers=workers):
        times.append(time.perf_counter())
        prepared.append({stream: value for stream, (_, value) in results.items() if isinstance(value, Prepared)})
    warm = 2 * workers  # everybody has answered twice: started, and everything loaded
    return (len(times) - warm) / (times[-1] - times[warm - 1]), prepared


def models_alone(prepared: list[dict[str, Prepared]], encoders: dict[str, Encoder], chunk: int) -> dict[str, float]:
    """Stream → seconds per clip of its model on prepared input, batches formed as in an extraction."""
    seconds = {}
    for stream, encoder in encoders.items():
        clips = [of_clip[stream] for of_clip in prepared if stream in of_clip]
        if clips:
            run_clips(encoder, clips[:2])
            start = time.perf_counter()
            for first in range(0, len(clips), chunk):
                run_clips(encoder, clips[first : first + chunk])
            seconds[stream] = (time.perf_counter() - start) / len(prepared)
    return seconds


def cpu_time() -> float:
    """Seconds of all cores that this process and its children that have ended took."""
    return sum(os.times()[:4])


def pipeline(corpus: Corpus, task: ClipTask, workers: int, device: str, chunk: int) -> tuple[float, float]:
    """Clips/s of an extraction from an empty store, and from its first finished chunk to its last."""
    with tempfile.TemporaryDirectory() as store:
        start = time.perf_counter()
        extract(
            corpus, store, task.encoders, task.detector,
            n_frames=task.n_frames, workers=workers, progress=False, shard_size=chunk, device=device,
        )  # fmt: skip
        whole = len(corpus) / (time.perf_counter() - start)
        shards = {}
        for path in Path(store).glob("sets/*/shards/*"):
            shards.setdefault(path.parent, []).append(path.stat().st_mtime)
        written = sorted(next(iter(shards.values())))
    steady = (len(written) - 1) * chunk - (-len(corpus) % chunk)
    return whole, steady / (written[-1] - written[0]) if len(written) > 2 else float("nan")


def simple_loop(corpus: Corpus, task: ClipTask, folder: Path) -> float:
    """Clips/s of one script a stream after the other; loading of libraries and models is not counted."""
    clips, seconds = list(corpus), 0.0
    for stream, encoder in task.encoders.items():
        script(clips[:1], stream, encoder, task.detector, task.n_frames, folder)
        start = time.perf_counter()
        script(clips, stream, encoder, task.detector, task.n_frames, folder)
        seconds += time.perf_counter() - start
    return len(clips) / seconds


def script(clips: list[Clip], stream: str, encoder: Encoder, detector: Detector, n_frames: int, folder: Path) -> None:
    """What somebody would write for one stream: decode, then encode, one clip at a time."""
    for clip in clips:
        inputs = inputs_of(clip)
        if encoder.uses & {"frames", "faces"}:
            media = read_media(clip.video, n_frames=n_frames)
            inputs |= {"frames": media.frames, "times": media.times}
        if "audio" in encoder.uses:
            inputs["audio"] = read_media(None, clip.audio or clip.video).audio
        if "faces" in encoder.uses:
            track = track_faces(media.frames, EveryFrame(detector))
            inputs |= {"crops": track.crops, "found": track.found}
        try:
            np.save(folder / f"{stream}-{clip.id}.npy", encoder.encode(ClipInputs(**inputs)))
        except MissingStream:
            continue


class EveryFrame:
    """A detector that searches every frame as a whole and follows nothing."""

    def __init__(self, detector: Detector):
        self.detect = detector.detect


# ------------------------------------------------------------------------------------------------ the report


def main() -> None:
    given = arguments()
    corpus = open_corpus(given.corpus)
    corpus = corpus.select(corpus.clips["id"].iloc[: given.clips or None])
    few = corpus.select(corpus.clips["id"].iloc[: given.simple_clips])
    workers, cores = given.workers or usable_cores(), usable_cores()
    with tempfile.TemporaryDirectory() as folder:
        encoders = chosen(given, Path(folder))
        task = ClipTask(encoders, get_detector(given.detector, given.weights), given.frames, str(corpus.root))
        jobs = [Job(clip, {part: Pair(clip.id, "") for part in [*encoders, FACTS]}, 0) for clip in corpus]
        for encoder in encoders.values():
            if isinstance(encoder, ModelEncoder):
                encoder.ready(given.device)
        steps = worker_steps(jobs[:26], task)
        rows = []
        for _ in range(given.repeat):
            row = {}
            row["workers"], prepared = all_worker_steps(jobs, task, workers)
            row |= {f"model {stream}": s for stream, s in models_alone(prepared, encoders, given.chunk).items()}
            del prepared
            before = cpu_time()
            row["pipeline"], row["steady"] = pipeline(corpus, task, workers, given.device, given.chunk)
            between = cpu_time()
            row["simple"] = simple_loop(few, task, Path(folder))
            row["pipeline cpu"] = (between - before) / len(corpus)
            row["simple cpu"] = (cpu_time() - between) / len(few)
            rows.append(row)
    found = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    print(f"{len(corpus)} clips of '{corpus.name}', {given.frames} frames each, detector {task.detector.name}, "
          f"{workers} workers on {cores} cores, median of {given.repeat}; load of the machine "
          f"{os.getloadavg()[0]:.1f}: compare within this run only\n")  # fmt: skip
    report(steps, found, encoders, cores)


def report(steps: pd.Series, found: dict[str, float], encoders: dict[str, Encoder], cores: int) -> None:
    rates = {name: cores / seconds for name, seconds in steps.items()}
    models = {name.removeprefix("model "): s for name, s in found.items() if name.startswith("model ")}
    for stream, seconds in models.items():
        rates[f"{stream}: model {encoders[stream].name} ({encoders[stream]._device})"] = 1 / seconds
    print("each step alone on prepared input, clips/s (in workers: ms of one core × all cores; models: as they run)")
    for name, rate in rates.items():
        print(f"  {name:48s} {rate:8.2f}")
    slowest = min(rates, key=rates.get)
    seconds = 1 / found["workers"] + sum(s for stream, s in models.items() if encoders[stream]._device == "cpu")
    print("\nbounds, clips/s")
    print(f"  slowest step alone: {slowest:28s} {rates[slowest]:8.2f}")
    if models:
        print(f"  all models, one after the other                  {1 / sum(models.values()):8.2f}")
    print(f"  all worker steps, as the workers do them         {found['workers']:8.2f}")
    print(f"  all the work on these cores                      {1 / seconds:8.2f}")
    print("\nextraction, clips/s")
    print(f"  from an empty store, with start-up               {found['pipeline']:8.2f}")
    print(f"  steady: first to last finished chunk             {found['steady']:8.2f}")
    stage = 1 / sum(models.values()) if models else found["workers"]
    stage = min(stage, found["workers"])
    print(f"  steady / slowest step alone                      {found['steady'] / rates[slowest]:8.2f}")
    print(f"  steady / slowest stage (all workers, all models) {found['steady'] / stage:8.2f}")
    print(f"  steady / all the work on these cores             {found['steady'] * seconds:8.2f}")
    print("\nsimple loop, clips/s")
    print(f"  one script a stream, without start-up            {found['simple']:8.2f}")
    print(f"  CPU seconds of a clip: simple {found['simple cpu']:.3f}, extraction {found['pipeline cpu']:.3f}")
    print(f"  extraction, with start-up / simple loop          {found['pipeline'] / found['simple']:8.2f}")
    print(f"  extraction, steady / simple loop                 {found['steady'] / found['simple']:8.2f}\n")
    fast = found["steady"] if found["steady"] == found["steady"] else found["pipeline"]
    record([
        Row("extraction", fast, 1 / seconds, "clips/s", "all its steps alone on these cores", fast * seconds,
            "of the bound", 0.85, note="from the first to the last finished chunk"),
        Row("extraction", fast, found["simple"], "clips/s", "one script a stream, clip by clip",
            fast / found["simple"], "times faster", note=f"with start-up {found['pipeline']:.2f} clips/s"),
    ])  # fmt: skip


def chosen(given: argparse.Namespace, folder: Path) -> dict[str, Encoder]:
    """The encoders asked for; with stand-ins, random weights in the real format are written first."""
    swaps = dict(pair.split("=", 1) for pair in given.encoders)
    if given.stand_ins:
        from ecmf_lib.encoders import stand_ins

        for encoder in profile(given.profile, swaps).values():
            if encoder.name in CARDS:
                stand_ins.write(CARDS[encoder.name], folder, size=given.stand_ins)
    return profile(given.profile, swaps, weights=folder if given.stand_ins else given.weights)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", default="demo", help="as for 'ecmf report'")
    parser.add_argument("--clips", type=int, default=192, help="first clips of the corpus only; 0 = all")
    parser.add_argument("--simple-clips", type=int, default=32, help="clips that the simple loop is timed on")
    parser.add_argument("--chunk", type=int, default=32, help="clips that share batches")
    parser.add_argument("--profile", default="light")
    parser.add_argument("--encoders", nargs="*", default=[], metavar="STREAM=NAME", help="in place of the profile's")
    parser.add_argument("--stand-ins", choices=["tiny", "real"], help="random weights instead of downloaded ones")
    parser.add_argument("--weights", help="folder with weights of detectors and encoders")
    parser.add_argument("--detector", default="lbp")
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--workers", type=int, default=0, help="0 = one a core")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeat", type=int, default=1)
    return parser.parse_args()


def with_default_threads() -> None:
    """Start again if the environment limits threads: every way of working gets its libraries' own choice."""
    limits = [name for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ]
    if limits:
        free = {name: value for name, value in os.environ.items() if name not in limits}
        os.execve(sys.executable, [sys.executable, *sys.argv], free)


if __name__ == "__main__":
    with_default_threads()
    main()
