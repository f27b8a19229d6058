"""Many models trained together as one: for a device on which one small model keeps little of it busy.

The members of all jobs are stacked along one axis (``torch.func``). A job draws its batches, hidden streams and dropout
masks from a generator of its own, in the order in which it would draw them alone, so that training together changes
nothing but the speed: on the same device, the weights are those of training alone, to rounding. A job whose patience
ends leaves the stack.

On a CPU this is no faster than one process a core (``benchmarks/grid.py``).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.func import functional_call, stack_module_state, vmap

from ecmf_lib import fusion, members
from ecmf_lib.fusion_base import masks_from
from ecmf_lib.members import Recipe, kept_streams, members_of, reproducible, steps_of
from ecmf_lib.samples import FusionData

#: Steps whose dropout masks a GPU draws at once; each draw is a launch for each job and layer.
AHEAD = 16
_HELD_AT_ONCE = 2**28  # most numbers of held-out clips' features that are looked at together


@dataclass(frozen=True, eq=False)
class Job:
    """One model's training: what :func:`ecmf_lib.members.train_stack` is given, and the seed that is set before it.

    Attributes
    ----------
    x : dict of str to float32 [n, dim] or [n, steps, dim]
    data : FusionData
    fold : int [n]
    seed : int
    opinions : float32 [n, streams, classes] or None
    """

    x: Mapping[str, np.ndarray]
    data: FusionData
    fold: np.ndarray
    seed: int
    opinions: np.ndarray | None = None

    def shape(self, recipe: Recipe) -> Hashable:
        """Jobs of the same shape, kind, options and recipe can be trained together."""
        dims = tuple((name, *z.shape[1:]) for name, z in self.x.items())
        n = len(self.data)
        return dims, len(self.data.classes), members_of(self.fold, recipe), steps_of(n, recipe), recipe.sized(n).lr


def train_together(
    jobs: Sequence[Job],
    kind: str,
    options: Mapping,
    recipe: Recipe,
    epochs: int,
    *,
    device: str = "cpu",
    ahead: int | None = None,
) -> list[tuple[dict[str, torch.Tensor], float]]:
    """Train jobs of one shape together.

    Parameters
    ----------
    jobs : sequence of Job
        All of the same :meth:`Job.shape`; their numbers of clips may differ a little, as folds do.
    kind, options, recipe, epochs
        As for :func:`ecmf_lib.members.train_stack`.
    device : str
        A torch device. Numbers differ between devices, whose generators draw differently.
    ahead : int, optional
        Steps whose masks are drawn at once; 1 on a CPU, where it then draws exactly as ``train_stack`` does.

    Returns
    -------
    list of (stack, loss)
        One for each job, as from ``train_stack``; on the CPU.

    Raises
    ------
    ValueError
        Jobs of different shapes.
    """
    if len({job.shape(recipe) for job in jobs}) > 1:
        raise ValueError("jobs of different shapes (streams, members or steps an epoch) cannot be trained together")
    if not jobs:
        return []
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS cannot be deterministic
    ahead = ahead or (1 if torch.device(device).type == "cpu" else AHEAD)
    with reproducible(jobs[0].seed):
        recipe = recipe.sized(max(len(job.data) for job in jobs))
        return _Group(jobs, kind, options, recipe, epochs, torch.device(device), ahead).run()


class _Draws:
    """The random numbers of one job."""

    def __init__(self, seed: int, device: torch.device, ahead: int):
        self.order = torch.Generator()
        self.order.set_state(torch.get_rng_state())  # goes on after the initial weights, as training alone does
        self.masks = self.order if device.type == "cpu" else torch.Generator(device).manual_seed(seed)
        self.device, self.ahead, self._drawn = device, ahead, {}

    def take(self, site: int, step: int, shape: tuple[int, ...], full: tuple[int, ...], keep: float) -> torch.Tensor:
        """A mask of `shape` for one place and step; drawn with those of the next steps, at the size of a `full` one."""
        if self.ahead == 1:
            return self._mask(shape, keep)
        if step % self.ahead == 0 or site not in self._drawn:
            self._drawn[site] = self._mask((self.ahead, *full), keep)
        return self._drawn[site][step % self.ahead][tuple(slice(size) for size in shape)]

    def _mask(self, shape: tuple[int, ...], keep: float) -> torch.Tensor:
        empty = torch.empty(shape, device=self.device)
        if not keep:  # numbers between 0 and 1 for modality dropout
            return empty.uniform_(generator=self.masks)
        return empty.bernoulli_(keep, generator=self.masks).div_(keep)


class _Group:
    """Jobs under way; first axis of everything: jobs still training, or all of their members one after the other."""

    def __init__(self, jobs, kind, options, recipe: Recipe, epochs: int, device: torch.device, ahead: int):
        self.recipe, self.epochs, self.device = recipe, epochs, device
        first = jobs[0]
        self.members, self.steps = members_of(first.fold, recipe), steps_of(len(first.data), recipe)
        dims = {name: z.shape[-1] for name, z in first.x.items()}
        stacks, self.draws = [], []
        for job in jobs:
            torch.manual_seed(job.seed)
            models = [fusion.build(kind, dims, len(job.data.classes), **options) for _ in range(self.members)]
            stacks.append(stack_module_state(models)[0])
            self.draws.append(_Draws(job.seed, device, ahead))
        self.model = copy.deepcopy(models[0])
        self.stack = {
            key: torch.cat([s[key].detach() for s in stacks]).to(device).requires_grad_() for key in stacks[0]
        }
        self.optimiser, self.schedule = members._optimiser(self.stack, recipe, epochs * self.steps)
        self.n = [len(job.data) for job in jobs]
        self._load(jobs)
        self._sites: dict[int, list] = {}
        self.model.to(device)

    def _load(self, jobs: Sequence[Job]) -> None:
        """Features, targets and masks of all jobs on the device, filled up to the longest."""
        longest = max(self.n)

        def filled(arrays) -> torch.Tensor:
            whole = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), arrays[0].dtype)
            for target, array in zip(whole, arrays, strict=True):
                target[: len(array)] = array
            return torch.from_numpy(whole).to(self.device)

        self.x = {name: filled([job.x[name] for job in jobs]) for name in jobs[0].x}
        self.present = filled([job.data.mask() for job in jobs])
        self.true = filled([job.data.targets() for job in jobs])
        self.targets = self.true
        if self.recipe.balance:
            self.targets = torch.stack([members._balanced(true) for true in self.true])
        self.opinions = None if jobs[0].opinions is None else filled([job.opinions for job in jobs])
        held = [(job.fold == np.arange(self.members)[:, None]).T for job in jobs]
        self.held = filled([h.astype(np.float32) for h in held])  # [jobs, n, members]
        own, counts = members._held_rows(self.held.transpose(1, 2).flatten(0, 1))
        self.own, self.counts = own, counts  # [jobs × members, most]

    def run(self) -> list[tuple[dict[str, torch.Tensor], float]]:
        count = len(self.n)
        alive = torch.arange(count)
        best = torch.full((count, self.members), torch.inf, device=self.device)
        kept = {key: p.detach().clone().unflatten(0, (count, self.members)) for key, p in self.stack.items()}
        best_epoch = np.zeros(count, int)
        for epoch in range(self.epochs):
            self._one_epoch()
            now = self._inner_scores()  # [alive, members]
            there = alive.to(self.device)
            better = now < best[there]
            best[there] = torch.where(better, now, best[there])
            for key, p in self.stack.items():
                fresh = p.detach().unflatten(0, (len(alive), self.members))
                choose = better.view(*better.shape, *[1] * (fresh.dim() - 2))
                kept[key][there] = torch.where(choose, fresh, kept[key][there])
            improved = better.any(1).cpu().numpy()
            best_epoch[alive.numpy()[improved]] = epoch
            goes_on = epoch - best_epoch[alive.numpy()] < max(self.recipe.patience, 1)
            if not goes_on.any():
                break
            if not goes_on.all():
                self._keep(np.flatnonzero(goes_on))
                alive = alive[torch.from_numpy(goes_on)]
        means = best.mean(1).cpu()
        return [({key: p[job].cpu() for key, p in kept.items()}, float(means[job])) for job in range(count)]

    def _one_epoch(self) -> None:
        self.model.train()
        orders = [
            torch.randperm(n, generator=d.order).chunk(self.steps) for n, d in zip(self.n, self.draws, strict=True)
        ]
        for step in range(self.steps):
            rows = [order[step] for order in orders]
            sizes = [len(r) for r in rows]
            full = [len(order[0]) for order in orders]
            most = max(sizes)
            index = torch.stack([torch.cat([r, r[:1].expand(most - len(r))]) for r in rows]).to(self.device)
            counted = torch.tensor([[1.0] * size + [0.0] * (most - size) for size in sizes], device=self.device)
            loss = self._loss(step, index, counted, sizes, full)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            self.schedule.step()

    def _loss(self, step, index, counted, sizes, full) -> torch.Tensor:
        jobs = torch.arange(len(sizes), device=self.device)[:, None]
        most = index.shape[1]
        present = self.present[jobs, index]  # [jobs, batch, streams]
        there = present[:, None].expand(-1, self.members, -1, -1)
        if self.recipe.modality_dropout:
            shape = (self.members, most, present.shape[-1])
            uniform = self._drawn(-1, step, shape, 0.0, sizes, full, axis=1)
            there = kept_streams(there, uniform, self.recipe)
        there = there.flatten(0, 1)
        masks = [
            self._for_members(self._drawn(site, step, shape, keep, sizes, full, axis=0))
            for site, (shape, keep) in enumerate(self._sites_of(most))
        ]
        batch = {name: self._for_members(z[jobs, index]) for name, z in self.x.items()}
        opinions = None if self.opinions is None else self._for_members(self.opinions[jobs, index])
        out = self._outputs(batch, there, opinions, masks)
        used = (1 - self.held[jobs, index]).transpose(1, 2) * counted[:, None]  # [jobs, members, batch]
        targets = self._for_members(self.targets[jobs, index])
        return members._loss(out, targets, used.flatten(0, 1), there, self.recipe)

    def _for_members(self, z: torch.Tensor) -> torch.Tensor:
        """[jobs, …] → [jobs × members, …], the same for all members of a job."""
        return z[:, None].expand(-1, self.members, *z.shape[1:]).flatten(0, 1)

    def _drawn(self, site, step, shape, keep, sizes, full, *, axis: int) -> torch.Tensor:
        """Masks of all jobs [jobs, *shape]; a job with a smaller batch has zeros at the end of `axis`."""
        if len(sizes) == 1:
            return self._take(0, site, step, shape, keep, sizes, full, axis)[None]
        whole = torch.zeros((len(sizes), *shape), device=self.device)
        for job in range(len(sizes)):
            mask = self._take(job, site, step, shape, keep, sizes, full, axis)
            whole[job].narrow(axis, 0, sizes[job]).copy_(mask)
        return whole

    def _take(self, job, site, step, shape, keep, sizes, full, axis) -> torch.Tensor:
        own, whole = list(shape), list(shape)
        own[axis], whole[axis] = sizes[job], full[job]
        return self.draws[job].take(site, step, tuple(own), tuple(whole), keep)

    def _sites_of(self, batch: int) -> list[tuple[tuple[int, ...], float]]:
        """Shape and keeping probability of each dropout mask, in the order in which a forward pass wants them."""
        if batch not in self._sites:
            sites = []

            def note(shape, keep):
                sites.append((shape, keep))
                return torch.ones(shape, device=self.device)

            x = {name: z.new_zeros(batch, *z.shape[2:]) for name, z in self.x.items()}
            there = self.present.new_ones(batch, self.present.shape[-1])
            opinions = None if self.opinions is None else self.opinions.new_zeros(batch, *self.opinions.shape[2:])
            with masks_from(note), torch.no_grad():
                self.model(*((x, there, opinions) if self.model.takes_opinions else (x, there)))
            odd = [shape for shape, _ in sites if shape[0] != batch]
            if odd:
                raise ValueError(f"a dropout mask of shape {odd[0]} has no axis of {batch} clips in front")
            self._sites[batch] = sites
        return self._sites[batch]

    def _outputs(self, x, present, opinions, masks):
        def one(params, x, present, opinions, masks):
            order = iter(masks)
            with masks_from(lambda shape, keep: next(order)):
                given = (x, present, opinions) if self.model.takes_opinions else (x, present)
                return functional_call(self.model, params, given)

        ways = (0, 0, 0, None if opinions is None else 0, 0)
        return vmap(one, in_dims=ways)(self.stack, x, present, opinions, masks)

    def _inner_scores(self) -> torch.Tensor:
        """What each member's epoch is chosen by: [jobs, members]."""
        self.model.eval()
        job = torch.arange(len(self.own), device=self.device) // self.members
        size = self.own.shape[1] * sum(z[0, 0].numel() for z in self.x.values())
        scores = []
        with torch.no_grad():
            for some in torch.arange(len(self.own), device=self.device).split(max(1, _HELD_AT_ONCE // size)):
                jobs, own = job[some][:, None], self.own[some]
                x = {name: z[jobs, own] for name, z in self.x.items()}
                stack = {key: p[some] for key, p in self.stack.items()}
                opinions = None if self.opinions is None else self.opinions[jobs, own]
                logits = members.run_stack(
                    self.model, stack, x, self.present[jobs, own], opinions, own_clips=True
                ).logits
                scores.append(members._inner_score(logits, self.true[jobs, own], self.counts[some], self.recipe))
        return torch.cat(scores).unflatten(0, (-1, self.members))

    def _keep(self, jobs: np.ndarray) -> None:
        """Go on with some of the jobs."""
        at = torch.from_numpy(jobs).to(self.device)
        rows = (at[:, None] * self.members + torch.arange(self.members, device=self.device)).flatten()
        for p in self.stack.values():
            p.data, p.grad = p.data[rows], None
            for name, value in self.optimiser.state[p].items():
                if value.dim():  # moments; the count of steps is one for all
                    self.optimiser.state[p][name] = value[rows]
        self.x = {name: z[at] for name, z in self.x.items()}
        for name in ("present", "true", "targets", "held"):
            setattr(self, name, getattr(self, name)[at])
        self.opinions = None if self.opinions is None else self.opinions[at]
        self.own, self.counts = self.own[rows], self.counts[rows]
        self.n, self.draws = [self.n[i] for i in jobs], [self.draws[i] for i in jobs]
