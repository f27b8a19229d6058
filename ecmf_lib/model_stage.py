"""The stage of an extraction that runs pre-trained models: a thread of the main process, beside the workers.

Workers decode and prepare; what they prepared of one *chunk* (a stretch of the manifest) goes through the models
together, so that batches are formed across its clips. Batches never reach over the edge of a chunk: the features of a
clip then depend on its chunk alone and not on when a run was interrupted, down to the last bit on one machine.

A thread is enough, because the libraries let go of Python's lock while they compute.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from ecmf_lib.encoders.base import Encoder
from ecmf_lib.encoders.model import ModelEncoder, Prepared, choose_device

#: So few clips may all be bad; if a model works for none of more than these, the model is at fault.
FEW = 4

#: Chunks that may wait while the models are busy with another. One is enough to keep them busy; each costs memory.
WAITING = 1

Answers = list[np.ndarray | Exception]


class ModelError(RuntimeError):
    """A model that works for no clip at all: its fault, not theirs, so nothing is noted against them."""


class ModelStage:
    """Runs models chunk by chunk while the caller goes on.

    Parameters
    ----------
    encoders : mapping
        Stream → encoder; those that are no pre-trained models are left alone.
    device : str
        As for :meth:`~ecmf_lib.encoders.model.ModelEncoder.ready`.

    Attributes
    ----------
    device : str
        The device chosen; "" without models.

    Raises
    ------
    EncoderError
        If the device is not there.
    """

    def __init__(self, encoders: Mapping[str, Encoder], device: str = "auto"):
        self._encoders = {stream: model for stream, model in encoders.items() if isinstance(model, ModelEncoder)}
        self.device = choose_device(device) if self._encoders else ""
        self._ready: set[str] = set()
        self._thread: ThreadPoolExecutor | None = None
        self._ident: int | None = None
        self._under_way: deque[Future] = deque()

    def __contains__(self, stream: str) -> bool:
        return stream in self._encoders

    def ready(self, streams: Sequence[str]) -> list[str]:
        """Load the models of these streams that are not loaded yet; returns their streams.

        Raises
        ------
        WeightsError
            If weights are missing or unfit: before any clip is touched, if this is called before.
        """
        new = [stream for stream in streams if stream in self._encoders and stream not in self._ready]
        for stream in new:
            self._encoders[stream].ready(self.device)
            self._ready.add(stream)
        return new

    def give(self, number: int, prepared: Mapping[str, Sequence[Prepared]]) -> Iterator[tuple[int, dict[str, Answers]]]:
        """Hand over a chunk; waits while too much is under way, and yields what is finished.

        Parameters
        ----------
        number : int
            Of the chunk.
        prepared : mapping
            Stream → its clips, in an order that does not depend on chance.

        Yields
        ------
        (number, answers)
            Of earlier chunks: for each stream what :meth:`~ecmf_lib.encoders.model.ModelEncoder.run` gave.

        Raises
        ------
        ModelError
            If a model works for none of a chunk's clips, and there are more than :data:`FEW`.
        """
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "models", initializer=self._note_thread)
        self._under_way.append(self._thread.submit(self._run, number, prepared))
        del prepared  # else what a finished chunk was made of stays in memory until the next one
        while self._under_way and (len(self._under_way) > 1 + WAITING or self._under_way[0].done()):
            yield self._under_way.popleft().result()

    def finish(self) -> Iterator[tuple[int, dict[str, Answers]]]:
        """Wait for the rest; yields and raises as :meth:`give`."""
        while self._under_way:
            yield self._under_way.popleft().result()

    def close(self) -> None:
        """End the thread, in the middle of a chunk if need be, and let go of the models."""
        self._end_thread()
        for encoder in self._encoders.values():
            encoder.release()
        self._ready.clear()

    def _end_thread(self) -> None:
        if self._thread is None:
            return
        if any(not future.done() for future in self._under_way) and self._ident is not None:
            # ends the thread's work at its next line of Python, so between two layers: a chunk can take minutes
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._ident), ctypes.py_object(SystemExit))
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._thread = None

    def _note_thread(self) -> None:
        import threading

        self._ident = threading.get_ident()

    def _run(self, number: int, prepared: Mapping[str, Sequence[Prepared]]) -> tuple[int, dict[str, Answers]]:
        return number, {stream: run_clips(self._encoders[stream], clips) for stream, clips in prepared.items()}


class RemoteModels(ModelStage):
    """Stands for models that run on other machines: knows of them, loads none.

    Parameters
    ----------
    encoders : mapping
        Stream → encoder.
    device : str
        What they run on there.
    """

    def __init__(self, encoders: Mapping[str, Encoder], device: str):
        super().__init__(encoders, "cpu")  # this machine need not have the device
        self.device = device

    def ready(self, streams: Sequence[str]) -> list[str]:
        """The streams of these that were not named before."""
        new = [stream for stream in streams if stream in self._encoders and stream not in self._ready]
        self._ready.update(new)
        return list(dict.fromkeys(new))


def run_clips(encoder: ModelEncoder, clips: Sequence[Prepared]) -> Answers:
    """Features of clips, or what went wrong, one a clip. If all at once fail, each is tried alone.

    Raises
    ------
    ModelError
        If none of more than :data:`FEW` clips works.
    """
    try:
        answers = list(encoder.run(clips))
        if len(answers) != len(clips):
            raise RuntimeError(f"{len(answers)} answers for {len(clips)} clips")
        return answers
    except Exception as error:
        first, alone = error, [error] if len(clips) == 1 else [_alone(encoder, clip) for clip in clips]
    if len(clips) > FEW and all(isinstance(answer, Exception) for answer in alone):
        raise ModelError(
            f"encoder '{encoder.name}' fails on every clip, together ({type(first).__name__}: {first}) and alone: the "
            "model or the device is at fault; what was done before is stored, mend it and run again"
        ) from first
    return alone


def _alone(encoder: ModelEncoder, clip: Prepared) -> np.ndarray | Exception:
    try:
        (answer,) = encoder.run([clip])
        return answer
    except Exception as error:
        return error


def provenance(encoder: ModelEncoder) -> dict:
    """Where an encoder's weights come from, for people who read a store: no part of what tells sets apart.

    Returns
    -------
    dict
        ``checkpoint`` (origin, commit, digest) and, for weights that were never trained, ``stand_in``: True.
    """
    found = encoder.checkpoint
    said = {"checkpoint": {"origin": found.origin, "commit": found.commit, "digest": found.digest}}
    return said | ({"stand_in": True} if found.stand_in else {})


def computed(encoder: ModelEncoder, device: str, before: Mapping[str, str] | None = None) -> dict[str, str]:
    """Device and number format that features were computed with, joined to what a set says already."""
    now = {"device": device, "precision": str(encoder._dtype(device)).removeprefix("torch.")}
    if not before:
        return now
    return {key: " + ".join(dict.fromkeys([*before[key].split(" + "), value])) for key, value in now.items()}
