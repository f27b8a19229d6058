"""Many models trained together: the very weights of training alone, whatever the others do."""

import dataclasses

import numpy as np
import pytest
import torch
from fusion_clips import changed, clips

from ecmf_lib import fusion, members, together
from ecmf_lib.experts import fit_experts
from ecmf_lib.fusion_base import masks_from
from ecmf_lib.members import OFFICIAL, Recipe, reproducible, train_stack
from ecmf_lib.samples import inner_folds
from ecmf_lib.scaling import fit_standardiser, standardise
from ecmf_lib.together import Job, train_together

RECIPE = Recipe(batch=16, patience=100)
OPTIONS = {"width": 8}


def job(rng, seed, *, n=96, opinions=False, steps=0, **how):
    data = clips(rng, n=n, steps=steps, **how)
    x = standardise(data, fit_standardiser(data))
    fold = inner_folds(data.labels, np.array(data.speakers), 3, seed)
    said = fit_experts(x, data.present, data.targets(), fold)[1] if opinions else None
    return Job(x, data, fold, seed, said)


def alone(one, kind, options, recipe, epochs):
    with reproducible(one.seed):
        return train_stack(one.x, one.data, kind, options, recipe, one.fold, epochs, one.opinions)


def apart(one, other):
    """Largest difference of any weight.

    Two are left out that a softmax makes meaningless: what is added to all scores (``score.bias``), and the keys' bias.
    Their gradient is nothing but rounding, which Adam blows up to full steps.
    """
    assert one.keys() == other.keys()

    def difference(key):
        found = (one[key] - other[key]).abs()
        if key == "attention.qkv.bias":
            found.unflatten(-1, (3, -1))[:, 1] = 0
        return 0.0 if key == "score.bias" else float(found.max())

    return max(difference(key) for key in one)


@pytest.mark.parametrize("kind", sorted(fusion.FUSIONS))
def test_together_is_the_same_as_alone(rng, kind):
    """Same initial weights and batches, with dropout and hidden streams: the same weights after three epochs."""
    opinions = kind == "ecmf"
    jobs = [job(rng, seed, opinions=opinions, steps=3 if kind == "mult" else 0) for seed in (3, 4, 5)]
    found = train_together(jobs, kind, OPTIONS, RECIPE, 3)
    for one, (stack, loss) in zip(jobs, found, strict=True):
        expected, told = alone(one, kind, OPTIONS, RECIPE, 3)
        assert apart(stack, expected) < 1e-5 and loss == pytest.approx(told, abs=1e-5)
    assert apart(found[0][0], found[1][0]) > 0.01


@pytest.mark.parametrize(
    "change",
    [{"balance": True, "label_smoothing": 0.1}, OFFICIAL | {"batch": 16}, {"members": 1}, {"modality_dropout": 0.0}],
)
def test_for_every_recipe(rng, change):
    recipe = dataclasses.replace(RECIPE, **change)
    jobs = [job(rng, seed) for seed in (3, 4)]
    jobs[1] = dataclasses.replace(jobs[1], data=changed(jobs[1].data, weight=rng.random(96)))
    options = OPTIONS | {"experts": False}
    for one, (stack, loss) in zip(jobs, train_together(jobs, "ecmf", options, recipe, 3), strict=True):
        expected, told = alone(one, "ecmf", options, recipe, 3)
        assert apart(stack, expected) < 1e-5 and loss == pytest.approx(told, abs=1e-5)


def test_folds_of_unequal_size_and_batches_that_do_not_fill(rng):
    jobs = [job(rng, seed, n=n) for seed, n in ((3, 93), (4, 96), (5, 90))]
    options = OPTIONS | {"experts": False}
    for one, (stack, _) in zip(jobs, train_together(jobs, "ecmf", options, RECIPE, 3), strict=True):
        assert apart(stack, alone(one, "ecmf", options, RECIPE, 3)[0]) < 1e-5


def test_a_job_that_stops_early_leaves_and_the_others_go_on(rng, monkeypatch):
    """One has nothing to learn and stops; each keeps the weights it has alone."""
    jobs = [job(rng, seed, signal=signal) for seed, signal in ((3, 1.5), (4, 0.0), (5, 1.0))]
    options, recipe = OPTIONS | {"experts": False}, dataclasses.replace(RECIPE, patience=2, lr=0.02)
    left, real = [], together._Group._keep
    monkeypatch.setattr(together._Group, "_keep", lambda self, rows: left.append(len(rows)) or real(self, rows))
    found = train_together(jobs, "ecmf", options, recipe, 30)
    assert left and left[0] < 3
    for one, (stack, loss) in zip(jobs, found, strict=True):
        expected, told = alone(one, "ecmf", options, recipe, 30)
        assert loss == pytest.approx(told, abs=1e-3) and apart(stack, expected) < 1e-3  # 30 epochs of rounding


def test_masks_drawn_ahead_are_a_jobs_own_too(rng):
    """As on a GPU: other masks than on the CPU, and the same alone as together."""
    jobs = [job(rng, seed, n=n) for seed, n in ((3, 96), (4, 93))]
    options = OPTIONS | {"experts": False}
    both = train_together(jobs, "ecmf", options, RECIPE, 3, ahead=4)
    for one, (stack, _) in zip(jobs, both, strict=True):
        assert apart(stack, train_together([one], "ecmf", options, RECIPE, 3, ahead=4)[0][0]) < 1e-5
    assert apart(both[0][0], train_together(jobs[:1], "ecmf", options, RECIPE, 3)[0][0]) > 1e-3


def test_jobs_of_different_shapes_are_refused(rng):
    jobs = [job(rng, 3), job(rng, 4, n=60)]
    with pytest.raises(ValueError, match="different shapes"):
        train_together(jobs, "ecmf", OPTIONS, RECIPE, 1)
    assert train_together([], "ecmf", OPTIONS, RECIPE, 1) == []


def test_nothing_outside_is_touched(rng):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    train_together([job(rng, 3)], "concat", OPTIONS, RECIPE, 1)
    assert torch.equal(state, torch.get_rng_state())


def test_what_is_handed_to_a_mask_is_what_dropout_would_draw():
    """The one way of the layer is torch's own."""
    layer = fusion.build("concat", {"a": 4}, 3).drop
    x = torch.ones(5, 7)
    torch.manual_seed(2)
    plain = layer(x)
    torch.manual_seed(2)
    with masks_from(lambda shape, keep: torch.empty(shape).bernoulli_(keep).div_(keep)):
        assert torch.equal(layer(x), plain)
    with masks_from(lambda *_: 1 / 0):
        assert torch.equal(layer.eval()(x), x)  # no mask outside of training
    assert members.steps_of(100, Recipe(batch=64)) == 4
