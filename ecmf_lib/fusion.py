"""ECMF as a plain torch module, and every fusion by name.

The paper (ECMF, arXiv 2508.05991) names self-attention for dynamic weights and residual connections that keep the
original representations; sizes and equations are not public, those below are our choice. The fusions that it is
compared with are in :mod:`ecmf_lib.rivals` and :mod:`ecmf_lib.baseline`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ecmf_lib.baseline import BaselineAttention, ConcatFusion
from ecmf_lib.fusion_base import Dropout, Fusion, FusionOutput, clip_level, masked_softmax
from ecmf_lib.rivals import RIVALS

__all__ = ["ECMF", "FUSIONS", "RESIDUALS", "Fusion", "FusionOutput", "StreamAttention", "build", "masked_softmax"]

#: How a stream's own projection reaches the classifier of :class:`ECMF` beside the fused token.
RESIDUALS = ("none", "stream", "concat")


class StreamAttention(nn.Module):
    """Multi-head self-attention over the few stream tokens of a clip (Vaswani et al. 2017), with a key mask.

    ``nn.MultiheadAttention`` gives NaN for a clip without any stream and cannot be stacked with vmap, hence this.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        """Tokens float [batch, streams, width], present bool [batch, streams] → float [batch, streams, width]."""
        batch, streams, width = tokens.shape
        parts = self.qkv(tokens).view(batch, streams, 3, self.heads, width // self.heads)
        query, key, value = parts.unbind(2)  # each [batch, streams, heads, width/heads]
        # Products and sums in place of matmul: thousands of 3 × 3 matrix products are slower than this.
        scores = (query[:, :, None] * key[:, None]).sum(-1) / (width // self.heads) ** 0.5  # [batch, query, key, heads]
        share = masked_softmax(scores.transpose(-1, -2), present[:, None, None, :]).transpose(-1, -2)
        mixed = (share[..., None] * value[:, None]).sum(2)
        return self.out(mixed.reshape(batch, streams, width))


class TimePooling(nn.Module):
    """Attention over the steps of one stream: a learned score for each step, softmax, weighted mean (our choice)."""

    def __init__(self, width: int):
        super().__init__()
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, steps: Tensor) -> Tensor:
        """Float [batch, steps, width] → float [batch, width]."""
        return (self.score(torch.tanh(steps)).softmax(1) * steps).sum(1)


class ECMF(Fusion):
    """Streams → common width → self-attention over streams → softmax weights per clip → weighted sum → classes.

    Self-attention sets the weights, and what is summed are the projections themselves: dynamic weighting that leaves
    the original representations alone. Summing attended tokens instead was 1 to 2 points worse on 12 RAVDESS actors and
    no different on all 18; this form is the cheaper one.

    Parameters
    ----------
    dims : dict of str to int
        Stream name → feature dimension.
    n_classes : int
    width : int
        Common width of the stream tokens.
    heads : int
        Attention heads; must divide `width`.
    attention : bool
        Off: the weights see the projections themselves, each stream for itself.
    dynamic : bool
        Off: one weight a stream, the same for all clips that have it. There is no attention then.
    sum_attended : bool
        The sum, too, is over attended tokens.
    residual : {"stream", "concat", "none"}
        "stream": each projection has a classifier of its own, and their weighted opinions are added to the logits;
        "concat": all projections stand beside the fused token in front of the classifier.
    experts : bool
        A second residual path, from the original features: the weighted opinions of linear experts, one a stream
        (:mod:`ecmf_lib.experts`), are added to the logits. They are handed to :meth:`forward`.
    temporal : sequence of str
        Streams that come with several steps a clip and are pooled by attention over time. Others are averaged.
    dropout, input_dropout : float
        On tokens and on features.

    Notes
    -----
    With ``attention=False, residual="none", experts=False`` what remains is the plain form: projections, weights, sum,
    classifier.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        n_classes: int,
        *,
        width: int = 64,
        heads: int = 4,
        attention: bool = True,
        dynamic: bool = True,
        sum_attended: bool = False,
        residual: str = "stream",
        experts: bool = True,
        temporal: Sequence[str] = (),
        dropout: float = 0.5,
        input_dropout: float = 0.3,
    ):
        super().__init__(dims, n_classes)
        if residual not in RESIDUALS:
            raise ValueError(f"residual = {residual!r}; choose from {', '.join(RESIDUALS)}")
        if not set(temporal) <= set(dims):
            raise ValueError(f"temporal names {sorted(set(temporal) - set(dims))}; the streams are {', '.join(dims)}")
        attention = attention and (dynamic or sum_attended)
        self.residual, self.sum_attended, self.takes_opinions = residual, sum_attended, experts
        self.project = nn.ModuleList([nn.Linear(dim, width) for dim in dims.values()])
        self.over_time = nn.ModuleDict({str(i): TimePooling(width) for i, n in enumerate(dims) if n in temporal})
        self.attention = StreamAttention(width, heads) if attention else None
        if attention:
            self.stream_code = nn.Parameter(torch.zeros(len(dims), width))
            self.norm = nn.LayerNorm(width)
        self.score = nn.Linear(width, 1) if dynamic else None
        self.prior = nn.Parameter(torch.zeros(len(dims)))
        self.opinions = nn.ModuleList([nn.Linear(width, n_classes) for _ in dims])
        if experts:
            self.trust = nn.Parameter(torch.full((1,), 0.5))
        self.classify = nn.Linear(width * (1 + len(dims) * (residual == "concat")), n_classes)
        self.drop = Dropout(dropout)
        self.drop_input = Dropout(input_dropout)

    def forward(self, streams: Mapping[str, Tensor], present: Tensor, experts: Tensor | None = None) -> FusionOutput:
        """Streams, present and, with ``experts=True``, their log-probabilities float [batch, streams, classes]."""
        own = torch.stack([self._token(i, x) for i, x in enumerate(self.inputs(streams))], dim=1)
        own = self.drop(own * present[..., None])  # [batch, streams, width]
        tokens = own + self._attend(own, present) if self.attention is not None else own
        weights = self._weights(tokens, present)
        fused = (weights[..., None] * (tokens if self.sum_attended else own)).sum(1)
        opinions = torch.stack([judge(own[:, i]) for i, judge in enumerate(self.opinions)], dim=1)
        if self.residual == "concat":
            fused = torch.cat([fused, own.flatten(1)], dim=1)
        logits = self.classify(fused)
        # Sums of log-opinions, as in late fusion, so they grow with the number of streams that agree.
        count = present.sum(1, keepdim=True)
        if self.residual == "stream":
            logits = logits + (weights[..., None] * opinions).sum(1) * count
        if self.takes_opinions:
            if experts is None:
                raise ValueError("this model has experts=True: their opinions have to be handed over")
            logits = logits + self.trust * (weights[..., None] * experts).sum(1) * count
        return FusionOutput(logits, weights, opinions)

    def _token(self, number: int, x: Tensor) -> Tensor:
        pool = self.over_time[str(number)] if str(number) in self.over_time and x.dim() == 3 else None
        x = x if pool is not None else clip_level(x)
        token = F.gelu(self.project[number](self.drop_input(x)))
        return token if pool is None else pool(token)

    def _weights(self, tokens: Tensor, present: Tensor) -> Tensor:
        # The prior has ten times the step of the other weights: streams differ more from each other than clips do.
        prior = (10 * self.prior).expand(present.shape)
        if self.score is None:
            return masked_softmax(prior, present)
        return masked_softmax(self.score(torch.tanh(tokens)).squeeze(-1) + prior, present)

    def _attend(self, own: Tensor, present: Tensor) -> Tensor:
        return self.drop(self.attention(self.norm(own + self.stream_code), present))


FUSIONS: dict[str, type[Fusion]] = {
    "ecmf": ECMF,
    "concat": ConcatFusion,
    "baseline-attention": BaselineAttention,
    **RIVALS,
}


def build(name: str, dims: Mapping[str, int], n_classes: int, **options) -> Fusion:
    """Make a fusion by name (one of :data:`FUSIONS`); initial weights come from torch's global generator.

    Raises
    ------
    ValueError
        Unknown name or option.
    """
    if name not in FUSIONS:
        raise ValueError(f"no fusion '{name}'; choose from {', '.join(FUSIONS)}")
    try:
        return FUSIONS[name](dims, n_classes, **options)
    except TypeError as error:
        raise ValueError(f"fusion '{name}': {error}") from None
