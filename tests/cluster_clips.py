"""A corpus, encoders and a storage for the tests of clusters; the nodes' processes import them from here."""

import hashlib
import os
import signal
import time
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from ecmf_lib.corpus import Corpus, make_corpus
from ecmf_lib.encoders.base import Encoder, MissingStream
from ecmf_lib.encoders.cards import Card
from ecmf_lib.encoders.model import ModelEncoder, Prepared
from ecmf_lib.encoders.weights import Weights
from ecmf_lib.storage import FolderStorage

#: How processes on this machine must be started to import this file; set before Ray is.
ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])]),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",  # else Ray writes a token into the home folder
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "OMP_NUM_THREADS": "1",
}


def note(*words: object) -> None:
    """Leave a trace across processes, one line a call."""
    if "ECMF_TEST_TRACE" in os.environ:
        with open(os.environ["ECMF_TEST_TRACE"], "a") as file:
            file.write(" ".join(map(str, words)) + "\n")


def node() -> str:
    """The Ray node on which this process, or the one that started it, runs: its raylet's process id."""
    return os.environ.get("RAY_RAYLET_PID", "none")


class Steps(Encoder):
    """Frame level: as many steps as the clip is long. `trouble` is what happens to some clips."""

    name, stream, level, licence, weights, version = "steps", "audio", "frame", "MIT", "none", 1
    uses = frozenset({"audio"})
    dim = 3
    defaults: ClassVar = {"gain": 1.0, "trouble": ""}

    def _encode(self, clip):
        note("encode", node(), clip.id)
        time.sleep(float(os.environ.get("ECMF_TEST_PAUSE", 0)))  # s
        if self.settings["trouble"] and clip.id == "clip03":
            os.kill({"die": os.getpid, "parent": os.getppid}[self.settings["trouble"]](), signal.SIGKILL)
            time.sleep(60)
        if clip.id == "clip05":
            raise MissingStream("audio is silent")
        steps = clip.audio[: clip.audio.size // 30 * 30].reshape(-1, 30)
        return self.settings["gain"] * np.stack([steps.mean(1), steps.std(1), steps.max(1)], axis=1)


class Words(Encoder):
    name, stream, level, licence, weights, version = "words", "text", "clip", "MIT", "none", 1
    uses = frozenset({"text"})
    dim = 2

    def _encode(self, clip):
        return np.array([len(clip.transcript), len(clip.language)])


class Model(ModelEncoder):
    """A pre-trained encoder; what else is in the batch shows in its features, as rounding does in a real one."""

    common: ClassVar = ModelEncoder.common | {"trouble": ""}
    batch_cost = 4000
    width = 2
    checkpoint = Weights(Path("nowhere"), "0" * 16, "hub", "c0ffee")

    def _prepare(self, clip):
        return Prepared((clip.audio,))

    def ready(self, device="auto"):
        """On any device, also one that this machine only says it has."""
        if self._model is None:
            self._model, self._device = self._load(device, None), device

    def _load(self, device, dtype):
        note("load", device, os.environ.get("CUDA_VISIBLE_DEVICES", ""))
        return "loaded"

    def _forward(self, items):
        assert self._model == "loaded"
        if self.settings["trouble"] == "all":
            raise RuntimeError("CUDA error: unspecified")
        company = 1e-6 * sum(len(item) for item in items)
        return [np.float32([[len(item), np.abs(item).mean() + company]]) for item in items]

    def cost(self, item):
        return len(item)


CARD = Card("model", "global", "none", "nobody/model", 2, 1, 1, "CC0", "ours", "audio")


def encoders(**settings) -> dict[str, Encoder]:
    return {"audio": Steps(**settings), "text": Words()}


def with_model(**settings) -> dict[str, Encoder]:
    return {"global": Model(CARD, **settings)} | encoders()


def make(folder: Path, n: int = 24) -> Corpus:
    """A corpus of tiny sound files."""
    folder.mkdir()
    ids = [f"clip{number:02d}" for number in range(n)]
    for number, id in enumerate(ids):
        samples = 8000 * np.sin(np.arange(480 + 80 * number) * (0.05 + 0.01 * number))
        with wave.open(str(folder / f"{id}.wav"), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes(samples.astype("<i2").tobytes())
    table = pd.DataFrame({"id": ids, "audio": [f"{id}.wav" for id in ids], "transcript": [f"{id} says" for id in ids]})
    return make_corpus("tiny", folder, table)


def content(store: Path) -> dict[str, str]:
    """Digest of every file that is part of the store's content."""
    files = [path.relative_to(store) for path in sorted(store.rglob("*")) if path.is_file()]
    kept = [path for path in files if path.name != ".lock" and ".cache" not in path.parts]
    return {str(path): hashlib.sha256((store / path).read_bytes()).hexdigest() for path in kept}


@dataclass(frozen=True)
class SlowStorage(FolderStorage):
    """Takes a second in the middle of a write, and says so."""

    def write(self, name: str, content: bytes) -> None:
        """Half of it, a pause, all of it."""
        scratch = self.root / ".cache" / "writing"
        scratch.mkdir(parents=True, exist_ok=True)
        (scratch / f"half-{os.getpid()}").write_bytes(content[: len(content) // 2])
        note("writing", node(), name)
        time.sleep(1.0)
        super().write(name, content)
        note("written", node(), name)
