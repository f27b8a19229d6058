"""What all fusions share: their output, masked softmax, clip level, and the form of their input."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor, nn


class FusionOutput(NamedTuple):
    """What a fusion gives for a batch.

    Attributes
    ----------
    logits : float [batch, classes]
    weights : float [batch, streams]
        Weight of each stream in each clip, 0 where it is missing; [batch, 0] for a fusion that has none.
    stream_logits : float [batch, experts, classes]
        Each stream's own opinion (for the auxiliary loss), in the order of the streams; one more where the fusion has a
        joint expert beside them; [batch, 0, classes] for a fusion that has none.
    """

    logits: Tensor
    weights: Tensor
    stream_logits: Tensor


def masked_softmax(scores: Tensor, present: Tensor) -> Tensor:
    """Softmax over the last axis among present entries; missing ones get exactly 0, and so do rows with none present.

    Parameters
    ----------
    scores : float [..., streams]
    present : bool, broadcastable to scores
    """
    lowest = torch.finfo(scores.dtype).min  # -inf would turn a row without any stream into NaN
    return scores.masked_fill(~present, lowest).softmax(-1) * present


def clip_level(x: Tensor) -> Tensor:
    """Float [batch, steps, dim] → mean over steps [batch, dim]; [batch, dim] comes back as it is."""
    return x.mean(1) if x.dim() == 3 else x


def without_weights(logits: Tensor) -> FusionOutput:
    """Logits float [batch, classes] of a fusion that has neither stream weights nor streams' own opinions."""
    return FusionOutput(logits, logits[:, :0], logits[:, None, :][:, :0])


class Dropout(nn.Dropout):
    """``nn.Dropout`` that can be handed its mask, so that many models can be trained together, each with its own.

    Inside :func:`masks_from` each call in training takes the next mask, or, for whoever has to draw them, says what
    mask it wants: (shape, probability of being kept).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Float of any shape → the same shape."""
        source = _MASKS.get()
        if source is None or not self.training or self.p == 0:
            return super().forward(x)
        return x * source(tuple(x.shape), 1 - self.p)


@contextmanager
def masks_from(source: Callable[[tuple[int, ...], float], Tensor]) -> Iterator[None]:
    """Every :class:`Dropout` in training asks `source` (shape, probability of being kept) for its mask inside."""
    token = _MASKS.set(source)
    try:
        yield
    finally:
        _MASKS.reset(token)


_MASKS: ContextVar = ContextVar("masks", default=None)


class Fusion(nn.Module):
    """The streams' names and dimensions, in the order of ``present``'s columns.

    A fusion is called with streams {name: float [batch, dim] or [batch, steps, dim]} and present bool [batch, streams].
    A missing stream is masked *after* its projection, so whatever (finite) numbers stand in its place reach nothing.
    Nothing draws random numbers except dropout and the initial weights, and all can be stacked with
    ``torch.func.vmap`` to train many members at once (:mod:`ecmf_lib.members`).
    """

    #: Whether ``forward`` takes the opinions of linear experts (:mod:`ecmf_lib.experts`) as a third argument.
    takes_opinions = False

    def __init__(self, dims: Mapping[str, int], n_classes: int):
        super().__init__()
        if not dims:
            raise ValueError("a fusion needs at least one stream")
        self.names = tuple(dims)
        self.n_classes = n_classes

    def inputs(self, streams: Mapping[str, Tensor]) -> list[Tensor]:
        """Features in the order of the streams; KeyError names those that are not handed over."""
        absent = [name for name in self.names if name not in streams]
        if absent:
            raise KeyError(f"no features for stream(s) {', '.join(absent)}; mark clips as missing in `present` instead")
        return [streams[name] for name in self.names]
