"""The embedded demo corpus: talking clips made on first use, with known truth.

About 240 clips of 12 drawn speakers in six emotions, H.264 video with AAC sound, in English and Chinese. Everything
follows from the seed. Nothing real is in it, so nothing that is measured on it says anything about people: it shows
that the chain works, and what scores look like when no stream suffices.

``manifest.csv`` is what a corpus has; ``truth.csv`` is what only a made corpus can have (see :func:`read_truth`).
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from ecmf_lib.config import SAMPLE_RATE
from ecmf_lib.demo_action import act
from ecmf_lib.demo_face import Head, homography
from ecmf_lib.demo_head import LOOKS
from ecmf_lib.demo_plan import ClipPlan, manifest_table, plan_demo, truth_table
from ecmf_lib.demo_scene import HEIGHT, WIDTH, Scene, over
from ecmf_lib.demo_voice import VOICES, speak
from ecmf_lib.workers import run_jobs

FPS = 15
VERSION = 1  # raise when the same seed gives another corpus: it is then made anew
MARKER = "demo.json"
_ABANDONED = 600  # s without a new clip after which another process's unfinished corpus is taken for dead

_README = """# Demo corpus of ecmf_lib

Made by `ecmf_lib.demo.make_demo` from a seed (see demo.json); the clips, voices and sentences are synthetic and free
of rights (CC0 1.0). No person is shown or heard. Scores on it say nothing about how people feel.

manifest.csv  one row a clip; `label` is the majority of the annotators (tie: the first annotator among those tied)
truth.csv     the true emotion, what each stream expresses (`shows_*`), whether it is informative (`state_*`), how
              strongly (`strength_*`), and the kind of sentence
"""


def make_demo(folder: Path, *, seed: int = 0, n_clips: int = 240, workers: int = 2, progress: bool = True) -> Path:
    """Make the demo corpus, unless it is there already.

    The corpus appears at once when it is complete; an interruption leaves nothing under its name.

    Parameters
    ----------
    folder : Path
        Where it goes. A demo corpus that is there with another seed, size or version is replaced.
    seed : int
        The same seed gives the same corpus; on the same machine, byte for byte.
    n_clips : int
        At least 6.
    workers : int
        Processes; with 1 the clips are made in this one.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    FileExistsError
        If the folder holds something else.
    RuntimeError
        If a clip cannot be made, for example because the disk is full.
    """
    folder = Path(folder).resolve()
    marker = {"corpus": "demo", "version": VERSION, "seed": seed, "n_clips": n_clips}
    if _complete(folder, marker):
        return folder
    plans = plan_demo(n_clips, seed)
    if folder.exists() and not (folder / MARKER).is_file() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} holds something other than a demo corpus: name another folder, or empty it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder)
    unfinished = folder.with_name(f".{folder.name}.making-{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        (unfinished / "video").mkdir(parents=True)
        _render_all(plans, unfinished / "video", seed, workers, progress)
        manifest_table(plans).to_csv(unfinished / "manifest.csv", index=False, lineterminator="\n")
        truth_table(plans).to_csv(unfinished / "truth.csv", index=False, lineterminator="\n")
        (unfinished / "README.md").write_text(_README, encoding="utf-8")
        (unfinished / MARKER).write_text(json.dumps(marker) + "\n", encoding="utf-8")
        _put_in_place(unfinished, folder, marker)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def read_truth(folder: Path) -> pd.DataFrame:
    """Read what is known about the clips because they were made.

    Returns
    -------
    DataFrame
        One row a clip: id, emotion, shows_<stream> (the emotion that it expresses), text_kind, intensity (of the felt
        emotion, 0–1), state_<stream> ("informative", "uninformative" or "at odds"), strength_<stream> (0–1),
        duration (s).
    """
    path = Path(folder) / "truth.csv"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: only a corpus made by make_demo has a truth table")
    return pd.read_csv(path, encoding="utf-8", keep_default_na=False, dtype={"id": str})


def draw_clip(plan: ClipPlan, seed: int) -> tuple[Iterator[np.ndarray], np.ndarray]:
    """One clip before it is compressed.

    Returns
    -------
    frames : iterator of uint8 [240, 320, 3]
        RGB, 15 a second.
    samples : float32 [n]
        Mono, 16 kHz, as long as the frames.
    """
    voice_rng, action_rng, scene_rng, place_rng = (np.random.default_rng([seed, 3, plan.number, k]) for k in range(4))
    samples, opening = speak(
        plan.transcript, VOICES[plan.speaker], plan.shows["audio"], plan.strength["audio"], plan.duration, voice_rng
    )
    count = round(plan.duration * FPS)
    mouth = opening[(np.arange(count) + 0.5).astype(int) * SAMPLE_RATE // FPS]
    action = act(plan.shows["face"], plan.strength["face"], mouth, FPS, action_rng)
    look = LOOKS[plan.speaker]
    scene = Scene(plan.shows["global"], plan.strength["global"], look.clothes, look.skin, scene_rng)
    # The head's grain is the speaker's, not the clip's.
    head = Head(look, scene.light, scene.tint, np.random.default_rng([seed, 4, plan.speaker]))
    middle, size = place_rng.normal((160, 116), (4, 2)), place_rng.uniform(52, 58)

    def frames() -> Iterator[np.ndarray]:
        for i in range(count):
            drawn = head.draw(action.units[i], action.mouth[i], action.gaze[i], action.pose[i, :2])
            to_frame = homography(action.pose[i], action.place[i], middle, size)
            rgb, alpha = (cv2.warpPerspective(layer, to_frame, (WIDTH, HEIGHT)) for layer in drawn)
            image = scene.background(i / FPS, middle[0] - 160 + 0.4 * size * action.place[i, 0])
            yield scene.finish(over(image, rgb, alpha), i)

    return frames(), samples


def _render(plan: ClipPlan, folder: Path, seed: int) -> str:
    """Make one clip's file. Returns what went wrong, or nothing: a worker's task may not raise."""
    try:
        frames, samples = draw_clip(plan, seed)
        _write_mp4(folder / f"{plan.id}.mp4", frames, samples)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _write_mp4(path: Path, frames: Iterator[np.ndarray], samples: np.ndarray) -> None:
    """H.264 and AAC; bit-exact, that is without dates and versions, and on one thread."""
    with av.open(path, "w", format="mp4", options={"fflags": "+bitexact", "movflags": "+faststart"}) as out:
        video = out.add_stream("libx264", rate=FPS, options={"preset": "superfast", "crf": "24", "threads": "1"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = out.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        audio.bit_rate = 64_000
        for i, image in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(image, format="rgb24")
            picture.pts, picture.time_base = i, Fraction(1, FPS)
            out.mux(video.encode(picture))
        out.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
        out.mux(audio.encode(sound))
        out.mux(audio.encode(None))


def _render_all(plans: list[ClipPlan], folder: Path, seed: int, workers: int, progress: bool) -> None:
    task = partial(_render, folder=folder, seed=seed)
    done = ((plan, task(plan)) for plan in plans) if workers <= 1 else run_jobs(plans, task, workers=workers)
    for plan, trouble in tqdm(done, total=len(plans), desc="making the demo corpus", unit="clip", disable=not progress):
        if trouble:
            raise RuntimeError(f"demo corpus: {plan.id}.mp4 could not be made in {folder} ({trouble})")


def _complete(folder: Path, marker: dict) -> bool:
    try:
        found = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        videos = pd.read_csv(folder / "manifest.csv", usecols=["video"])["video"]
    except (OSError, ValueError):
        return False
    return found == marker and (folder / "truth.csv").is_file() and all((folder / v).is_file() for v in videos)


def _remove_abandoned(folder: Path) -> None:
    """Remove what a killed process left unfinished; one that still works has written lately."""
    for other in folder.parent.glob(f".{folder.name}.making-*"):
        newest = max((p.stat().st_mtime for p in (other, other / "video") if p.exists()), default=0.0)
        if time.time() - newest > _ABANDONED:
            shutil.rmtree(other, ignore_errors=True)


def _put_in_place(unfinished: Path, folder: Path, marker: dict) -> None:
    if _complete(folder, marker):  # another process was faster
        return
    if folder.exists():
        old = unfinished.with_name(unfinished.name + "-old")
        folder.rename(old)
        unfinished.rename(folder)
        shutil.rmtree(old)
    else:
        unfinished.rename(folder)
