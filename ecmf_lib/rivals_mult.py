"""MulT, the rival fusion that sees time: each stream's steps attend to every other stream's steps.

Frame-level input is [batch, steps, dim]: equal parts of the clip's time, each averaged. The rules are those of
:mod:`ecmf_lib.fusion`, so attention is written out here: ``nn.MultiheadAttention`` cannot be stacked with ``vmap``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ecmf_lib.fusion_base import Dropout, Fusion, FusionOutput, without_weights


def as_steps(x: Tensor) -> Tensor:
    """Float [batch, dim] → one step [batch, 1, dim]; [batch, steps, dim] comes back as it is."""
    return x[:, None] if x.dim() == 2 else x


def sinusoidal_positions(like: Tensor) -> Tensor:
    """Sinusoidal position codes (Vaswani et al. 2017) for [batch, steps, width] → float [steps, width]; even width."""
    steps, width = like.shape[1:]
    place = torch.arange(steps, dtype=like.dtype, device=like.device)[:, None]
    speed = 10000 ** (-torch.arange(0, width, 2, dtype=like.dtype, device=like.device) / width)
    return torch.cat([(place * speed).sin(), (place * speed).cos()], dim=-1)


class AttentionLayer(nn.Module):
    """Pre-norm transformer layer in which a target looks at a source: attention, then feed-forward, both residual.

    With target = source it is self-attention.
    """

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.norm_target, self.norm_source = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.forward_norm = nn.LayerNorm(width)
        self.widen, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.drop = Dropout(dropout)

    def forward(self, target: Tensor, source: Tensor, present: Tensor) -> Tensor:
        """Target float [batch, steps, width], source float [batch, other steps, width] → as target.

        Where `present` (bool [batch, 1, 1]) is False there is no source, and attention adds nothing.
        """
        source = self.norm_source(source)
        query = self._split(self.query(self.norm_target(target)))
        key, value = (self._split(part) for part in self.key_value(source).chunk(2, dim=-1))
        scores = torch.einsum("bthw,buhw->bhtu", query, key) / query.shape[-1] ** 0.5
        mixed = torch.einsum("bhtu,buhw->bthw", scores.softmax(-1), value).flatten(2)
        target = target + self.drop(self.out(mixed)) * present
        return target + self.drop(self.narrow(F.relu(self.widen(self.forward_norm(target)))))

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, x.shape[-1] // self.heads)


class Transformer(nn.Module):
    """Layers of attention, crossmodal or self, then a norm.

    Crossmodal layers all look at the source's first (low-level) tokens, as in the paper.
    """

    def __init__(self, width: int, heads: int, layers: int, dropout: float):
        super().__init__()
        self.layers = nn.ModuleList([AttentionLayer(width, heads, dropout) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)

    def forward(self, target: Tensor, source: Tensor | None, present: Tensor) -> Tensor:
        """As :meth:`AttentionLayer.forward`; a source of None means self-attention."""
        for layer in self.layers:
            target = layer(target, target if source is None else source, present)
        return self.norm(target)


class MulT(Fusion):
    """Multimodal Transformer (Tsai et al. 2019, arXiv 1906.00295).

    For each target stream: a crossmodal transformer from every other stream over its steps, all results side by side,
    a linear layer, self-attention over the steps, mean over the steps. The streams' summaries side by side → residual
    MLP → classes.

    A missing stream's tokens are 0, what the others hear from it is nothing, and its own summary is 0.

    Parameters
    ----------
    dims : dict of str to int
        Stream name → feature dimension.
    n_classes : int
    width : int
        Of a stream's tokens (the paper: 30 or 40).
    heads : int
        Must divide `width`, which must be even.
    layers : int
        Of each transformer (the paper: 4 to 6 on many more steps).
    dropout, input_dropout : float
        In layers and MLP, and on features.

    Notes
    -----
    Simpler than the paper: tokens come from a linear layer instead of a convolution over time, as a step is already the
    mean of a part of the clip; self-attention works on `width` instead of (streams - 1) · width numbers, hence the
    linear layer before it (five streams: a fifth of the parameters); the feed-forward layers are 2
    instead of 4 times as wide; and a summary is the mean step instead of the last.

    With one step (clip level) each softmax has one entry: a target then adds a linear map of each other stream,
    whatever the content, and streams meet only in norms, feed-forward layers and the MLP.
    With one stream there is no crossmodal part, only self-attention.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        n_classes: int,
        *,
        width: int = 32,
        heads: int = 4,
        layers: int = 1,
        dropout: float = 0.2,
        input_dropout: float = 0.3,
    ):
        super().__init__(dims, n_classes)
        if width % heads or width % 2:
            raise ValueError(f"width {width} must be even and a multiple of heads {heads}")
        if layers < 1:
            raise ValueError(f"layers = {layers}; a transformer needs at least one")
        count = len(dims)
        self.pairs = [(i, j) for i in range(count) for j in range(count) if i != j]  # target, source
        self.project = nn.ModuleList([nn.Linear(dim, width, bias=False) for dim in dims.values()])
        self.cross = nn.ModuleList([Transformer(width, heads, layers, dropout) for _ in self.pairs])
        self.join = nn.ModuleList([nn.Linear(width * max(1, count - 1), width) for _ in dims])
        self.own = nn.ModuleList([Transformer(width, heads, layers, dropout) for _ in dims])
        self.first, self.second = nn.Linear(count * width, count * width), nn.Linear(count * width, count * width)
        self.classify = nn.Linear(count * width, n_classes)
        self.drop = Dropout(dropout)
        self.drop_input = Dropout(input_dropout)

    def forward(self, streams: Mapping[str, Tensor], present: Tensor) -> FusionOutput:
        """Streams {name: float [batch, steps, dim] or [batch, dim]}, present bool [batch, streams]; no weights.

        Streams may differ in their number of steps.
        """
        there = [present[:, i, None, None] for i in range(len(self.names))]
        tokens = []
        for project, x, shown in zip(self.project, self.inputs(streams), there, strict=True):
            own = project(self.drop_input(as_steps(x))) * shown
            tokens.append(own + sinusoidal_positions(own))
        heard: list[list[Tensor]] = [[] for _ in tokens]
        for (target, source), cross in zip(self.pairs, self.cross, strict=True):
            heard[target].append(cross(tokens[target], tokens[source], there[source]))
        summaries = []
        for own, parts, join, transformer, shown in zip(tokens, heard, self.join, self.own, there, strict=True):
            joined = join(torch.cat(parts, dim=-1) if parts else own)
            summaries.append((transformer(joined, None, shown) * shown).mean(1))
        joint = torch.cat(summaries, dim=-1)
        joint = joint + self.second(self.drop(F.relu(self.first(joint))))
        return without_weights(self.classify(joint))
