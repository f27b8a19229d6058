"""Training a neural fusion: one member for each inner fold, all at once as one stacked model.

Each member is stopped early on its own fold and their log-probabilities are averaged, so most members use each
training speaker. All fusions are trained by the same :class:`Recipe`, except where a table says otherwise.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.metrics import f1_score
from threadpoolctl import threadpool_limits
from torch.func import functional_call, stack_module_state, vmap

from ecmf_lib import fusion
from ecmf_lib.samples import FusionData


@dataclass(frozen=True)
class Recipe:
    """How a neural fusion is trained. The same for all fusions, except where a spec says otherwise."""

    lr: float = 3e-3
    weight_decay: float = 0.1  # AdamW: on matrices only
    label_smoothing: float = 0.0
    auxiliary: float = 0.5  # weight of the loss on each stream's own logits, where the fusion has them
    modality_dropout: float = 0.2  # probability that training hides a stream of a clip
    balance: bool = False  # weigh classes inversely to how common they are
    components: int = 256  # most principal components of a stream, fitted on the training part; 0 = none fitted
    inner: int = 5  # inner folds
    inner_by: str = "group"  # "clip": inner folds drawn by clip, as the official baseline draws them
    members: int = 0  # so many members in place of one for each inner fold; 1 = a single model
    batch: int = 0  # most clips a step; 0 = by their number, see `sized`
    patience: int = 8  # epochs without a better inner score in any member before all stop
    optimiser: str = "adamw"  # or "adam", with weight decay as an L2 penalty on everything
    schedule: str = "cosine"  # down to 0 over the epochs; or "constant"
    select: str = "loss"  # which epoch's weights are kept: that of the lowest inner "loss", or best "weighted_f1"

    def sized(self, n: int) -> Recipe:
        """The recipe for n training clips: its batch is at most a quarter of them, so that an epoch has some steps.

        Where the batch is left open it is 64, and 128 with √2 times the rate from :data:`MANY` clips on: on CREMA-D's
        3,960 training clips that was a fifth less time an epoch, and after 12 epochs at least as good.
        """
        recipe = self
        if not self.batch:
            many = n >= MANY
            recipe = replace(self, batch=128 if many else 64, lr=self.lr * (2**0.5 if many else 1.0))
        return replace(recipe, batch=max(1, min(recipe.batch, n // 4)))


#: Training clips from which on larger batches are taken.
MANY = 4096
#: The official baseline's own recipe, from its description; 100 epochs belong to it. Standardising and masks are ours.
OFFICIAL = {
    "lr": 1e-3, "weight_decay": 1e-5, "auxiliary": 0.0, "modality_dropout": 0.0, "components": 0, "inner_by": "clip",
    "batch": 32, "patience": 100, "optimiser": "adam", "schedule": "constant", "select": "weighted_f1",
}  # fmt: skip
OFFICIAL_EPOCHS = 100


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """One thread, deterministic algorithms and a seeded generator inside; everything as it was outside."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]), threadpool_limits(1):
        torch.manual_seed(seed)
        torch.set_num_threads(1)  # sums are split among threads, so their number would change the last digits
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict)
            torch.set_num_threads(threads)


def run_stack(
    model: fusion.Fusion,
    stack: Mapping[str, torch.Tensor],
    x: Mapping[str, torch.Tensor],
    present: torch.Tensor,
    opinions: torch.Tensor | None = None,
    *,
    own_clips: bool = False,
) -> fusion.FusionOutput:
    """All members on the same clips: outputs [members, batch, …]. `present` may be [batch, streams] or one a member.

    With `own_clips` each member has clips of its own: everything that is handed over has a first axis of members.
    """

    def one(params, x, present, opinions):
        return functional_call(model, params, (x, present, opinions) if model.takes_opinions else (x, present))

    over = 0 if own_clips else None
    ways = (0, over, 0 if present.dim() == 3 else None, over if opinions is not None else None)
    # Dropout masks are the same for all members (cheaper by far); they differ in initial weights and training clips.
    return vmap(one, in_dims=ways, randomness="same")(stack, dict(x), present, opinions)


def log_probabilities(
    model: fusion.Fusion,
    stack: Mapping[str, torch.Tensor],
    x: Mapping[str, np.ndarray],
    present: np.ndarray,
    opinions: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities float64 [members, n, classes] and stream weights float64 [members, n, streams]."""
    features = {name: torch.from_numpy(z) for name, z in x.items()}
    with torch.no_grad():
        given = None if opinions is None else torch.from_numpy(opinions)
        out = run_stack(model.eval(), stack, features, torch.from_numpy(present), given)
    return out.logits.double().log_softmax(-1).numpy(), out.weights.double().numpy()


def train_stack(
    x: Mapping[str, np.ndarray],
    data: FusionData,
    kind: str,
    options: Mapping,
    recipe: Recipe,
    fold: np.ndarray,
    epochs: int,
    opinions: np.ndarray | None = None,
) -> tuple[dict[str, torch.Tensor], float]:
    """Train one member for each inner fold, each keeping the weights of its best epoch on that fold.

    Parameters
    ----------
    x : dict of str to float32 [n, dim] or [n, steps, dim]
        Standardised features, rotated or not.
    data : FusionData
        Labels, targets and masks.
    kind, options
        Of the fusion.
    recipe : Recipe
    fold : int [n]
        Inner fold of each clip.
    epochs : int
    opinions : float32 [n, streams, classes], optional
        Of the linear experts, out of fold.

    Returns
    -------
    stack : dict of str to Tensor [members, …]
    loss : float
        Mean over members of the best cross-entropy (or 1 - weighted F1) on the fold that a member did not train on.
    """
    recipe = recipe.sized(len(data))
    members = members_of(fold, recipe)
    dims = {name: z.shape[-1] for name, z in x.items()}
    models = [fusion.build(kind, dims, len(data.classes), **options) for _ in range(members)]
    model, (stack, _) = copy.deepcopy(models[0]), stack_module_state(models)
    features = {name: torch.from_numpy(z) for name, z in x.items()}
    given = None if opinions is None else torch.from_numpy(opinions)
    true, present = torch.from_numpy(data.targets()), torch.from_numpy(data.mask())
    targets = _balanced(true) if recipe.balance else true
    held = torch.from_numpy(fold == np.arange(members)[:, None]).float()  # [members, n]
    own, counts = _held_rows(held)  # only these are needed to choose an epoch
    held_x = {key: z[own] for key, z in features.items()}
    held_given = None if given is None else given[own]
    steps = steps_of(len(data), recipe)
    optimiser, schedule = _optimiser(stack, recipe, epochs * steps)
    best = torch.full((members,), torch.inf)
    kept = {key: p.detach().clone() for key, p in stack.items()}
    best_epoch = 0
    for epoch in range(epochs):
        model.train()
        for rows in torch.randperm(len(data)).chunk(steps):
            there = _hide(present[rows], members, recipe)
            batch = {key: z[rows] for key, z in features.items()}
            hidden = None if given is None else given[rows]
            out = run_stack(model, stack, batch, there, hidden)
            loss = _loss(out, targets[rows], 1 - held[:, rows], there, recipe)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        model.eval()
        with torch.no_grad():
            logits = run_stack(model, stack, held_x, present[own], held_given, own_clips=True).logits
            now = _inner_score(logits, true[own], counts, recipe)
            better = now < best
            best = torch.where(better, now, best)
            for key, p in stack.items():
                kept[key][better] = p.detach()[better]
        if better.any():
            best_epoch = epoch
        elif epoch - best_epoch >= recipe.patience:
            break
    return kept, float(best.mean())


def members_of(fold: np.ndarray, recipe: Recipe) -> int:
    """How many members are trained on these inner folds."""
    return min(recipe.members or int(fold.max()) + 1, int(fold.max()) + 1)


def steps_of(n: int, recipe: Recipe) -> int:
    """Steps of an epoch over n clips."""
    return -(-n // recipe.sized(n).batch)


def _optimiser(stack, recipe: Recipe, steps: int):
    if recipe.optimiser == "adam":
        optimiser = torch.optim.Adam(list(stack.values()), lr=recipe.lr, weight_decay=recipe.weight_decay)
    else:
        matrices = [p for p in stack.values() if p.dim() > 2]
        vectors = [p for p in stack.values() if p.dim() <= 2]
        optimiser = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=recipe.lr,
        )
    if recipe.schedule == "constant":
        return optimiser, torch.optim.lr_scheduler.ConstantLR(optimiser, factor=1.0)
    return optimiser, torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)


def _balanced(targets: torch.Tensor) -> torch.Tensor:
    """Targets [n, classes] with every class of the same total, the sum over all as before."""
    mass = targets.sum(0)
    seen = (mass > 0).sum()
    return targets * torch.where(mass > 0, mass.sum() / (seen * mass.clamp(min=1e-12)), 0)


def _hide(present: torch.Tensor, members: int, recipe: Recipe) -> torch.Tensor:
    """Modality dropout (Neverova et al. 2016): hide streams, never a clip's last. [members, n, streams]"""
    shape = (members, *present.shape)
    if not recipe.modality_dropout:
        return present.expand(shape)
    return kept_streams(present, torch.rand(shape), recipe)


def kept_streams(present: torch.Tensor, uniform: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """What modality dropout leaves, from numbers between 0 and 1: bool as `uniform`, [members, n, streams]."""
    kept = present & (uniform >= recipe.modality_dropout)
    return torch.where(kept.any(-1, keepdim=True), kept, present)


def _cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Logits [members, n, …, classes] → losses [members, n, …].

    Targets [n, classes] for all members, or one set a member [members, n, classes]; the same for all of '…'.
    """
    own = targets if targets.dim() == 3 else targets[None]
    targets = own.reshape(*own.shape[:2], *[1] * (logits.dim() - 3), -1)
    return -(targets * logits.log_softmax(-1)).sum(-1)


def _loss(
    out: fusion.FusionOutput, targets: torch.Tensor, used: torch.Tensor, there: torch.Tensor, recipe: Recipe
) -> torch.Tensor:
    """Sum over members of the mean loss over the clips they may use (`used` float [members, n]), by weight.

    Targets [n, classes], or [members, n, classes] where each has clips of its own.
    """
    if recipe.label_smoothing:
        even = targets.sum(-1, keepdim=True) / targets.shape[-1]
        targets = (1 - recipe.label_smoothing) * targets + recipe.label_smoothing * even
    loss = _cross_entropy(out.logits, targets)
    judges = out.stream_logits.shape[-2]
    if recipe.auxiliary and judges:
        joint = there.new_ones(()).expand(*there.shape[:-1], judges - there.shape[-1])  # a joint expert is always there
        judging = torch.cat([there, joint], dim=-1)
        own = (_cross_entropy(out.stream_logits, targets) * judging).sum(-1) / judging.sum(-1).clamp(min=1)
        loss = loss + recipe.auxiliary * own
    weight = used * targets.sum(-1)
    return ((loss * used).sum(1) / weight.sum(1).clamp(min=1e-6)).sum()


def _held_rows(held: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows that each member holds out [members, most], filled up with its first; which of them count, float alike."""
    sizes = held.sum(1).long()
    order = torch.argsort(held, dim=1, descending=True, stable=True)[:, : int(sizes.max())]
    counts = (torch.arange(order.shape[1]) < sizes[:, None]).float()
    return torch.where(counts.bool(), order, order[:, :1]), counts


def _inner_score(logits: torch.Tensor, true: torch.Tensor, counts: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """What each member's epoch is chosen by; lower is better: [members].

    Logits and true [members, held, classes] of each member's own held-out clips, counts [members, held].
    """
    if recipe.select == "loss":
        losses = -(true * logits.log_softmax(-1)).sum(-1)
        return (losses * counts).sum(1) / (counts * true.sum(-1)).sum(1).clamp(min=1e-6)
    guess, label, weight = (z.cpu().numpy() for z in (logits.argmax(-1), true.argmax(-1), true.sum(-1) * counts))
    scores = [
        f1_score(label[i], guess[i], average="weighted", zero_division=0, sample_weight=weight[i])
        for i in range(len(weight))
    ]
    return 1 - torch.tensor(scores, dtype=torch.float32, device=logits.device)
