"""Rival fusions at clip level, from their papers: LMF, TFN, GMU and a mixture of experts (MulT has its own module).

All take and give what the fusions of :mod:`ecmf_lib.fusion` do, and obey the same rules: a missing stream is masked
*after* its projection, a clip without any stream gives finite numbers, and models can be stacked with ``vmap``.
A frame-level stream [batch, steps, dim] is averaged over its steps. The fusion itself follows the paper; the dropout,
the one-layer projections and the masks are ours, the same for all, so that a comparison is one of fusions.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ecmf_lib.fusion_base import Dropout, Fusion, FusionOutput, clip_level, masked_softmax, without_weights
from ecmf_lib.rivals_mult import MulT


def one_augmented(x: Tensor) -> Tensor:
    """Append the constant 1: float [..., dim] → [..., dim + 1]. Products of such vectors keep the lower orders too."""
    return torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)


class LMF(Fusion):
    """Low-rank Multimodal Fusion (Liu et al. 2018, arXiv 1806.00064).

    Each stream, with a constant 1 appended, is multiplied by a factor matrix for each rank; these products are
    multiplied over streams and summed over ranks. That is the weight tensor of :class:`TFN` in low-rank form, and the
    tensor is never made.

    A missing stream is a zero vector with its 1 kept, so its factor is a constant that no feature reaches.

    Parameters
    ----------
    dims : dict of str to int
        Stream name → feature dimension.
    n_classes : int
    width : int
        Of each projected stream and of the fused vector.
    rank : int
        Terms of the decomposition.
    dropout, input_dropout : float
        On projections and the fused vector, and on features.

    Notes
    -----
    Factors start Xavier-normal. The row of the constant has 1 added (ours), so that at the start no stream scales
    another away. On five made-up streams of differing strength (six classes, 800 clips to train, 2,000 to test, best
    epoch, four seeds) accuracy was .98 with it and .95 without; on three streams .91 either way.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        n_classes: int,
        *,
        width: int = 64,
        rank: int = 4,
        dropout: float = 0.5,
        input_dropout: float = 0.3,
    ):
        super().__init__(dims, n_classes)
        if rank < 1:
            raise ValueError(f"rank = {rank}; a low-rank fusion needs at least one term")
        self.project = nn.ModuleList([nn.Linear(dim, width) for dim in dims.values()])
        start = torch.empty(len(dims), rank, width + 1, width)
        for factor in start.flatten(0, 1):
            nn.init.xavier_normal_(factor)
        start[:, :, -1] += 1
        self.factors = nn.Parameter(start)
        self.rank_weights = nn.Parameter(nn.init.xavier_normal_(torch.empty(1, rank))[0])
        self.bias = nn.Parameter(torch.zeros(width))
        self.classify = nn.Linear(width, n_classes)
        self.drop = Dropout(dropout)
        self.drop_input = Dropout(input_dropout)

    def forward(self, streams: Mapping[str, Tensor], present: Tensor) -> FusionOutput:
        """Streams {name: float [batch, dim] or [batch, steps, dim]}, present bool [batch, streams]; no weights."""
        inputs = zip(self.project, self.inputs(streams), strict=True)
        own = torch.stack([F.relu(project(self.drop_input(clip_level(x)))) for project, x in inputs], dim=1)
        own = one_augmented(self.drop(own * present[..., None]))  # [batch, streams, width + 1]
        parts = torch.einsum("bsi,srio->bsro", own, self.factors)
        joint = reduce(torch.mul, parts.unbind(1))  # [batch, rank, width]
        fused = torch.einsum("bro,r->bo", joint, self.rank_weights) + self.bias
        return without_weights(self.classify(self.drop(fused)))


def tensor_size(n_streams: int, max_tensor: int, width: int) -> int:
    """Largest size (at most `width`) of each stream's vector for which (size + 1) ** n_streams ≤ max_tensor.

    Raises
    ------
    ValueError
        Not even size 1 fits.
    """
    sizes = [size for size in range(1, width + 1) if (size + 1) ** n_streams <= max_tensor]
    if not sizes:
        raise ValueError(f"max_tensor = {max_tensor}: {n_streams} streams need at least {2**n_streams}")
    return sizes[-1]


class TFN(Fusion):
    """Tensor Fusion Network (Zadeh et al. 2017, arXiv 1707.07250).

    The outer product of all streams' vectors, each with a constant 1 appended, holds every product of their numbers,
    from single streams to all together; two ReLU layers classify it.

    The tensor has (size + 1) ** streams numbers. The paper has three streams and sizes up to 128; here each stream is
    projected to the largest common size that keeps the tensor within `max_tensor`: 31 for 2 streams, 9 for 3, 4 for 4
    and 3 for 5 at the default. A missing stream is a zero vector with its 1 kept, so all products without it remain.

    Parameters
    ----------
    dims : dict of str to int
        Stream name → feature dimension.
    n_classes : int
    width : int
        Of each stream's hidden layer and of the two layers behind the tensor.
    max_tensor : int
        Most numbers in the tensor of one clip.
    dropout, input_dropout : float
        On hidden layers and the tensor, and on features.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        n_classes: int,
        *,
        width: int = 64,
        max_tensor: int = 1024,
        dropout: float = 0.5,
        input_dropout: float = 0.3,
    ):
        super().__init__(dims, n_classes)
        self.size = tensor_size(len(dims), max_tensor, width)
        self.project = nn.ModuleList([nn.Linear(dim, width) for dim in dims.values()])
        self.reduce = nn.ModuleList([nn.Linear(width, self.size) for _ in dims])
        self.first = nn.Linear((self.size + 1) ** len(dims), width)
        self.second = nn.Linear(width, width)
        self.classify = nn.Linear(width, n_classes)
        self.drop = Dropout(dropout)
        self.drop_input = Dropout(input_dropout)

    def forward(self, streams: Mapping[str, Tensor], present: Tensor) -> FusionOutput:
        """As :meth:`LMF.forward`."""
        product = self.drop(self.outer_product(self.vectors(streams, present)))
        hidden = F.relu(self.second(self.drop(F.relu(self.first(product)))))
        return without_weights(self.classify(self.drop(hidden)))

    def vectors(self, streams: Mapping[str, Tensor], present: Tensor) -> list[Tensor]:
        """Each stream's own vector, 0 where it is missing, and a 1: float [batch, size + 1]."""
        inputs = zip(self.project, self.reduce, self.inputs(streams), strict=True)
        own = [last(self.drop(F.relu(first(self.drop_input(clip_level(x)))))) for first, last, x in inputs]
        return [one_augmented(x * present[:, i, None]) for i, x in enumerate(own)]

    @staticmethod
    def outer_product(vectors: list[Tensor]) -> Tensor:
        """Vectors float [batch, n_i] → float [batch, n_1 · n_2 · …], the last stream's index running fastest."""
        return reduce(lambda left, right: (left[:, :, None] * right[:, None, :]).flatten(1), vectors)


class GMU(Fusion):
    """Gated Multimodal Unit (Arevalo et al. 2017, arXiv 1702.01992), in its form for any number of streams.

    h_i = tanh(W_i x_i); a gate for each number, z_i = sigmoid(V_i [x_1, …, x_S]), sees all streams; the fused vector is
    the sum of z_i · h_i. Both come from the features themselves, so a missing stream is masked in both.

    The weight of a stream in a clip is its mean gate: between 0 and 1 each, and their sum is free.

    Parameters
    ----------
    dims : dict of str to int
        Stream name → feature dimension.
    n_classes : int
    width : int
        Of the fused vector.
    dropout, input_dropout : float
        On the fused vector and on features.
    """

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
        self.project = nn.ModuleList([nn.Linear(dim, width) for dim in dims.values()])
        # A matrix times the concatenation, written as a sum over streams so that missing ones can be left out.
        self.gate = nn.ModuleList([nn.Linear(dim, len(dims) * width, bias=False) for dim in dims.values()])
        self.gate_bias = nn.Parameter(torch.zeros(len(dims), width))
        self.classify = nn.Linear(width, n_classes)
        self.drop = Dropout(dropout)
        self.drop_input = Dropout(input_dropout)

    def forward(self, streams: Mapping[str, Tensor], present: Tensor) -> FusionOutput:
        """As :meth:`LMF.forward`, with weights; stream_logits are empty."""
        inputs = [self.drop_input(clip_level(x)) for x in self.inputs(streams)]
        own = torch.stack([torch.tanh(project(x)) for project, x in zip(self.project, inputs, strict=True)], dim=1)
        votes = torch.stack([gate(x) for gate, x in zip(self.gate, inputs, strict=True)], dim=1)
        votes = (votes * present[..., None]).sum(1)  # [batch, streams · width]
        gates = torch.sigmoid(votes.view(own.shape) + self.gate_bias) * present[..., None]
        logits = self.classify(self.drop((gates * own).sum(1)))
        return without_weights(logits)._replace(weights=gates.mean(-1))


class MixtureOfExperts(Fusion):
    """An expert for each stream, one for all of them joined, and a gate that mixes their opinions.

    The idea is that of the runner-up of MER2025-SEMI, "More Is Better" (Xie et al. 2025, arXiv 2508.06036): a loss on
    each expert beside that on the mixture. Its code sums experts' logits with weights of any size and sign. Here the
    gate is a softmax over the experts present and mixes *probabilities* (Jacobs et al. 1991), so that logits are
    log-probabilities of the mixture. The joined expert is always there; in a clip without any stream it decides alone,
    from its biases.

    Parameters
    ----------
    dims : dict of str to int
        Stream name → feature dimension.
    n_classes : int
    width : int
        Of each stream's hidden layer, which its expert, the joined expert and the gate share, and of the latter two's.
    dropout, input_dropout : float
        On hidden layers and on features.

    Notes
    -----
    ``weights`` are the gate's shares of the stream experts alone, divided by their sum: what the joined expert gets is
    not in them. ``stream_logits`` are [batch, streams + 1, classes], the joined expert last; those of a missing
    stream's expert are its biases and should not count in a loss.
    """

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
        self.project = nn.ModuleList([nn.Linear(dim, width) for dim in dims.values()])
        self.experts = nn.ModuleList([nn.Linear(width, n_classes) for _ in dims])
        self.join, self.joined = nn.Linear(len(dims) * width, width), nn.Linear(width, n_classes)
        self.look, self.gate = nn.Linear(len(dims) * width, width), nn.Linear(width, len(dims) + 1)
        self.drop = Dropout(dropout)
        self.drop_input = Dropout(input_dropout)

    def forward(self, streams: Mapping[str, Tensor], present: Tensor) -> FusionOutput:
        """As :meth:`LMF.forward`, with weights and all experts' logits."""
        inputs = zip(self.project, self.inputs(streams), strict=True)
        own = torch.stack([F.gelu(project(self.drop_input(clip_level(x)))) for project, x in inputs], dim=1)
        own = self.drop(own * present[..., None])
        everything = own.flatten(1)
        opinions = [judge(own[:, i]) for i, judge in enumerate(self.experts)]
        opinions.append(self.joined(self.drop(F.gelu(self.join(everything)))))
        opinions = torch.stack(opinions, dim=1)  # [batch, streams + 1, classes]
        scores = self.gate(self.drop(F.gelu(self.look(everything))))
        there = F.pad(present, (0, 1), value=True)
        share = scores.masked_fill(~there, torch.finfo(scores.dtype).min).log_softmax(-1)
        logits = (share[..., None] + opinions.log_softmax(-1)).logsumexp(1)
        return FusionOutput(logits, masked_softmax(scores[:, :-1], present), opinions)


RIVALS: dict[str, type[Fusion]] = {"lmf": LMF, "tfn": TFN, "gmu": GMU, "moe": MixtureOfExperts, "mult": MulT}
