"""The two plain fusions: concatenation, and the attention of the official baseline."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ecmf_lib.fusion_base import Dropout, Fusion, FusionOutput, clip_level, without_weights


class ConcatFusion(Fusion):
    """Concatenated streams → hidden layer → classes. The first layer is written as a sum of one layer a stream."""

    def __init__(
        self,
        dims: Mapping[str, int],
        n_classes: int,
        *,
        width: int = 64,
        dropout: float = 0.5,
        input_dropout: float = 0.3,
    ):
        super().__init__(dims, n_classes)
        self.project = nn.ModuleList([nn.Linear(dim, width, bias=False) for dim in dims.values()])
        self.bias = nn.Parameter(torch.zeros(width))
        self.classify = nn.Linear(width, n_classes)
        self.drop = Dropout(dropout)
        self.drop_input = Dropout(input_dropout)

    def forward(self, streams: Mapping[str, Tensor], present: Tensor) -> FusionOutput:
        """Weights and stream_logits are empty."""
        inputs = zip(self.project, self.inputs(streams), strict=True)
        parts = torch.stack([project(self.drop_input(clip_level(x))) for project, x in inputs], dim=1)
        hidden = F.relu((parts * present[..., None]).sum(1) + self.bias)
        return without_weights(self.classify(self.drop(hidden)))


class BaselineAttention(Fusion):
    """The attention fusion of the MER2025 baseline (MERTools, Lian et al.), from its description.

    Each stream: dropout → 3 × (linear, ReLU); all concatenated → the same kind of layers → one weight a stream,
    **without softmax**; the weighted sum of the streams → classes. The masks for missing streams are ours; the baseline
    has none. `dropout` is on tokens' inputs in both places, as there; `input_dropout`, if given, replaces the first.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        n_classes: int,
        *,
        width: int = 128,
        dropout: float = 0.3,
        input_dropout: float | None = None,
    ):
        super().__init__(dims, n_classes)
        first = dropout if input_dropout is None else input_dropout
        self.project = nn.ModuleList([self._layers(dim, width, first) for dim in dims.values()])
        self.attention = self._layers(width * len(dims), width, dropout)
        self.score = nn.Linear(width, len(dims))
        self.classify = nn.Linear(width, n_classes)

    @staticmethod
    def _layers(dim: int, width: int, dropout: float) -> nn.Sequential:
        layers = [Dropout(dropout), nn.Linear(dim, width), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())

    def forward(self, streams: Mapping[str, Tensor], present: Tensor) -> FusionOutput:
        """Weights may be of any size and sign, stream_logits are empty."""
        inputs = zip(self.project, self.inputs(streams), strict=True)
        own = torch.stack([project(clip_level(x)) for project, x in inputs], dim=1) * present[..., None]
        weights = self.score(self.attention(own.flatten(1))) * present
        logits = self.classify((weights[..., None] * own).sum(1))
        return without_weights(logits)._replace(weights=weights)
