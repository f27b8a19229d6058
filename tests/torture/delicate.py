"""An encoder that gets into trouble when asked to. By itself, because every worker process imports it."""

import ctypes
import os
import signal
import time

import numpy as np

from ecmf_lib.encoders.base import Encoder

#: The clip at which there is trouble, and what kind; kept in the environment, which workers inherit.
TROUBLED, TROUBLE = "demo_0005", "ECMF_TORTURE_TROUBLE"


class Delicate(Encoder):
    """Stands for a decoder written in C: at one clip it hangs, crashes or is killed, if that is asked for."""

    name, stream, level, licence, weights, version = "delicate", "text", "clip", "MIT", "none", 1
    uses = frozenset({"audio", "text"})
    dim = 2

    def _encode(self, clip):
        trouble = os.environ.get(TROUBLE, "") if clip.id == TROUBLED else ""
        if trouble == "hangs":
            time.sleep(3600)
        elif trouble == "spins":
            while True:
                pass
        elif trouble == "crashes":
            ctypes.string_at(0)  # a segmentation fault
        elif trouble == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        return np.array([len(clip.transcript), clip.audio.size])
