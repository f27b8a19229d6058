"""Training a stack of members: whose clips teach which member, soft labels and weights, and each part of the recipe."""

import dataclasses

import numpy as np
import pytest
import torch
from fusion_clips import changed, clips, one_hot
from sklearn.metrics import f1_score
from torch.nn import functional as F

from ecmf_lib import fusion, members
from ecmf_lib.fusion import FusionOutput
from ecmf_lib.members import OFFICIAL, Recipe, train_stack
from ecmf_lib.samples import inner_folds
from ecmf_lib.scaling import fit_standardiser, standardise

SMALL = {"width": 8, "experts": False}
RECIPE = Recipe(batch=32, patience=100)


def trained(data, recipe=RECIPE, *, epochs=2, kind="ecmf", x=None, fold=None, options=SMALL, seed=0):
    """Stack and loss of three inner folds."""
    x = standardise(data, fit_standardiser(data)) if x is None else x
    fold = inner_folds(data.labels, np.array(data.speakers), 3, 0) if fold is None else fold
    with members.reproducible(seed):
        return train_stack(x, data, kind, options, recipe, fold, epochs)


def said(data, stack, *, kind="ecmf", options=SMALL):
    """Log-probabilities [members, n, classes]."""
    x = standardise(data, fit_standardiser(data))
    model = fusion.build(kind, {name: z.shape[-1] for name, z in x.items()}, 3, **options)
    return members.log_probabilities(model, stack, x, data.mask())[0]


def same(one, other, member=slice(None)):
    return one.keys() == other.keys() and all(torch.equal(one[key][member], other[key][member]) for key in one)


# ---- members and their folds


def test_there_is_a_member_for_each_inner_fold_or_as_many_as_asked(rng):
    data = clips(rng)
    for asked, expected in ((0, 3), (1, 1), (2, 2), (9, 3)):
        stack, loss = trained(data, dataclasses.replace(RECIPE, members=asked), epochs=1)
        assert {len(p) for p in stack.values()} == {expected} and np.isfinite(loss)
    first = stack["project.0.weight"]
    assert not torch.allclose(first[0], first[1])  # they differ in initial weights


def test_the_fold_a_member_is_stopped_on_teaches_it_nothing(rng):
    """Other labels and features in fold 0: after one epoch, member 0 is the same and the others are not."""
    data = clips(rng)
    fold = inner_folds(data.labels, np.array(data.speakers), 3, 0)
    x = standardise(data, fit_standardiser(data))
    marked = fold == 0
    other = changed(data, labels=np.where(marked, (data.labels + 1) % 3, data.labels))
    spoilt = {name: np.where(marked[:, None], np.float32(3), z) for name, z in x.items()}
    one, two = (trained(d, epochs=1, x=z, fold=fold)[0] for d, z in ((data, x), (other, spoilt)))
    assert same(one, two, 0)
    assert not same(one, two, 1) and not same(one, two, 2)


@pytest.mark.parametrize("select", ["loss", "weighted_f1"])
def test_each_member_keeps_its_best_epoch_by_its_own_fold(rng, select):
    """With a far too large step the last epoch is not the best; what is kept has the score that is told."""
    data = clips(rng, signal=0.7)
    fold = inner_folds(data.labels, np.array(data.speakers), 3, 0)
    recipe = dataclasses.replace(RECIPE, lr=0.1, schedule="constant", select=select)
    stack, told = trained(data, recipe, epochs=12, fold=fold)
    scores = said(data, stack)
    found = []
    for member in range(3):
        held, label = scores[member][fold == member], data.labels[fold == member]
        f1 = f1_score(label, held.argmax(1), average="weighted")
        found.append(-held[np.arange(len(label)), label].mean() if select == "loss" else 1 - f1)
    assert told == pytest.approx(np.mean(found), abs=1e-5)
    fewer = [trained(data, recipe, epochs=epochs, fold=fold)[1] for epochs in (1, 3, 12)]
    assert fewer == sorted(fewer, reverse=True) and fewer[0] > fewer[2]


def test_patience_ends_training_when_no_member_gets_better(rng, monkeypatch):
    data, epochs = clips(rng), []
    real = members._inner_score
    monkeypatch.setattr(members, "_inner_score", lambda *args: epochs.append(1) or real(*args))
    trained(data, dataclasses.replace(RECIPE, lr=0.0, patience=2), epochs=30)
    assert len(epochs) == 3  # the first is the best, as nothing moves


# ---- soft labels, weights, balance, smoothing


def test_hard_labels_as_soft_ones_train_the_same(rng):
    data = clips(rng)
    assert same(trained(data)[0], trained(changed(data, soft=one_hot(data.labels), weight=np.ones(96)))[0])


@pytest.mark.parametrize("select", ["loss", "weighted_f1"])
def test_a_clip_of_weight_0_is_left_out_of_the_loss(rng, select):
    """Neither its features nor its label matter, for learning or for choosing an epoch."""
    data = clips(rng)
    fold = inner_folds(data.labels, np.array(data.speakers), 3, 0)
    x = standardise(data, fit_standardiser(data))
    nobody = np.arange(96) % 5 == 0
    weight = np.where(nobody, 0.0, 1.0)
    recipe = dataclasses.replace(RECIPE, select=select, label_smoothing=0.1, balance=True)
    stacks = []
    elsewhere = {name: np.where(nobody[:, None], 4, z) for name, z in x.items()}
    wrong = np.where(nobody, (data.labels + 1) % 3, data.labels)
    for labels, features in ((data.labels, x), (wrong, elsewhere)):
        version = changed(data, labels=labels, weight=weight)
        features = {name: z.astype(np.float32) for name, z in features.items()}
        stacks.append(trained(version, recipe, epochs=4, x=features, fold=fold))
    assert same(stacks[0][0], stacks[1][0]) and stacks[0][1] == stacks[1][1]
    assert not same(stacks[0][0], trained(data, recipe, epochs=4, fold=fold)[0])  # and at weight 1 they matter


def test_only_weights_relative_to_each_other_matter(rng):
    """The loss is a weighted mean."""
    data, recipe = clips(rng), RECIPE
    out = FusionOutput(torch.randn(3, 96, 3), None, torch.zeros(3, 96, 0, 3))
    used, there = torch.ones(3, 96), torch.ones(3, 96, 3, dtype=torch.bool)
    weight = rng.random(96).astype(np.float32)
    one, ten = (torch.from_numpy(changed(data, weight=w).targets()) for w in (weight, 10 * weight))
    loss = members._loss(out, one, used, there, recipe)
    assert torch.allclose(loss, members._loss(out, ten, used, there, recipe), atol=1e-5)
    each = F.cross_entropy(out.logits.transpose(1, 2), torch.from_numpy(data.labels).expand(3, 96), reduction="none")
    assert torch.allclose(loss, ((each * torch.from_numpy(weight)).sum(1) / weight.sum()).sum(), atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_torchs_on_the_clips_a_member_may_use(smoothing):
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 10, 3), torch.arange(10) % 3
    out = FusionOutput(logits, None, torch.zeros(2, 10, 0, 3))
    used = torch.ones(2, 10)
    used[0, :4] = used[1, 6:] = 0
    loss = members._loss(
        out, F.one_hot(labels, 3).float(), used, torch.ones(2, 10, 3).bool(), Recipe(label_smoothing=smoothing)
    )
    expected = F.cross_entropy(logits[0, 4:], labels[4:], label_smoothing=smoothing)
    expected = expected + F.cross_entropy(logits[1, :6], labels[:6], label_smoothing=smoothing)
    assert torch.allclose(loss, expected)


@pytest.mark.parametrize("joint", [False, True])
def test_the_auxiliary_loss_is_the_mean_over_the_streams_that_are_there(joint):
    """A joint expert, which a mixture has beside the streams' own, is always there."""
    torch.manual_seed(0)
    labels = torch.arange(4) % 3
    out = FusionOutput(torch.randn(1, 4, 3), None, torch.randn(1, 4, 2 + joint, 3))
    there = torch.tensor([[[1, 1], [1, 0], [0, 1], [0, 0]]]).bool()
    hard = F.one_hot(labels, 3).float()
    plain, with_own = (
        members._loss(out, hard, torch.ones(1, 4), there, Recipe(auxiliary=weight)) for weight in (0.0, 0.5)
    )
    own = F.cross_entropy(out.stream_logits[0].transpose(1, 2), labels[:, None].expand(4, 2 + joint), reduction="none")
    judges = torch.cat([there[0], torch.ones(4, 1).bool()], 1) if joint else there[0]
    mean = (own * judges).sum(1) / judges.sum(1).clamp(min=1)
    assert torch.allclose(with_own - plain, 0.5 * mean.mean(), atol=1e-6)


def test_label_smoothing_makes_members_less_sure(rng):
    data = clips(rng)
    sure = [
        said(data, trained(data, dataclasses.replace(RECIPE, label_smoothing=value), epochs=15)[0]).max(-1).mean()
        for value in (0.0, 0.5)
    ]
    assert sure[1] < sure[0] - 0.05


def test_balanced_targets_give_every_class_the_same_total():
    targets = torch.tensor([[1.0, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0.5, 0]])
    found = members._balanced(targets)
    assert torch.allclose(found.sum(0), torch.tensor([1.75, 1.75, 0])) and torch.isfinite(found).all()


def test_class_balance_gives_a_rare_class_its_due(rng):
    """Where features say nothing, a balanced model finds all classes alike, another one the common class likelier."""
    data = clips(rng, n=240, signal=0.0)
    data = data.select((data.labels == 0) | (rng.random(240) < 0.2))
    common = [
        np.exp(said(data, trained(data, dataclasses.replace(RECIPE, balance=balance), epochs=12)[0]))[..., 0].mean()
        for balance in (False, True)
    ]
    assert common[0] > 0.5 and common[1] < 0.4


# ---- the recipe


def test_modality_dropout_hides_streams_but_never_the_last():
    torch.manual_seed(0)
    present = torch.ones(200, 3, dtype=torch.bool)
    present[:50, 1:] = False
    present[50] = False
    hidden = members._hide(present, 4, Recipe(modality_dropout=0.5))
    assert hidden.shape == (4, 200, 3) and not (hidden & ~present).any()
    assert hidden[:, :50, 0].all() and hidden[:, 51:].any(-1).all() and not hidden[:, 50].any()
    assert 0.4 < hidden[:, 51:].float().mean() < 0.7
    assert not torch.equal(hidden[0], hidden[1])
    assert torch.equal(members._hide(present, 2, Recipe(modality_dropout=0.0)), present.expand(2, 200, 3))


@pytest.mark.parametrize("change", [{"optimiser": "adam"}, {"schedule": "constant"}, {"balance": True}, {"lr": 1e-2},
                                    {"weight_decay": 2.0}, {"modality_dropout": 0.6}, {"auxiliary": 0.0},
                                    {"label_smoothing": 0.2}, {"batch": 16}])  # fmt: skip
def test_every_part_of_the_recipe_does_something(rng, change):
    data = clips(rng).select(np.arange(96) != 0)  # classes of unequal size, for the balance
    base, other = trained(data)[0], trained(data, dataclasses.replace(RECIPE, **change))[0]
    assert not same(base, other) and all(torch.isfinite(p).all() for p in other.values())


def test_adamw_decays_matrices_only_and_adam_everything():
    stack = {"weight": torch.ones(2, 3, 3, requires_grad=True), "bias": torch.ones(2, 3, requires_grad=True)}
    decoupled, _ = members._optimiser(stack, Recipe(weight_decay=0.3), 10)
    assert type(decoupled) is torch.optim.AdamW
    assert [(g["weight_decay"], len(g["params"])) for g in decoupled.param_groups] == [(0.3, 1), (0.0, 1)]
    assert decoupled.param_groups[0]["params"][0] is stack["weight"]
    plain, schedule = members._optimiser(stack, Recipe(weight_decay=0.3, optimiser="adam", schedule="constant"), 10)
    assert type(plain) is torch.optim.Adam and plain.param_groups[0]["weight_decay"] == 0.3
    assert len(plain.param_groups[0]["params"]) == 2
    for _ in range(12):
        plain.step()
        schedule.step()
    assert plain.param_groups[0]["lr"] == Recipe().lr


def test_the_batch_goes_by_the_number_of_clips():
    """A quarter of few clips, 64, and 128 with a larger step for many; a batch that is asked for is kept."""
    open_, asked = Recipe(), Recipe(batch=32)
    found = [(open_.sized(n).batch, open_.sized(n).lr) for n in (1, 100, 1000, members.MANY)]
    assert found == [(1, 3e-3), (25, 3e-3), (64, 3e-3), (128, pytest.approx(3e-3 * 2**0.5))]
    assert [(asked.sized(n).batch, asked.sized(n).lr) for n in (100, 9999)] == [(25, 3e-3), (32, 3e-3)]
    assert [members.steps_of(n, open_) for n in (3, 100, 1000, 4096)] == [3, 4, 16, 32]


def test_the_cosine_ends_at_0():
    stack = {"weight": torch.ones(2, 3, 3, requires_grad=True)}
    optimiser, schedule = members._optimiser(stack, Recipe(), 10)
    rates = []
    for _ in range(10):
        optimiser.step()
        schedule.step()
        rates.append(optimiser.param_groups[0]["lr"])
    assert rates == sorted(rates, reverse=True) and rates[-1] == pytest.approx(0, abs=1e-9)


def test_the_official_recipe_runs_as_it_is_described(rng):
    recipe = Recipe(**OFFICIAL)
    assert (recipe.optimiser, recipe.schedule, recipe.select, recipe.inner_by) == (
        "adam", "constant", "weighted_f1", "clip",
    )  # fmt: skip
    stack, loss = trained(clips(rng), recipe, kind="baseline-attention", options={"width": 8})
    assert 0 <= loss <= 1 and all(torch.isfinite(p).all() for p in stack.values())


def test_inside_everything_is_seeded_and_outside_nothing_changes():
    torch.manual_seed(1)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    drawn = []
    for _ in range(2):
        with pytest.raises(KeyError), members.reproducible(7):
            drawn.append(torch.rand(3))
            assert torch.get_num_threads() == 1 and torch.are_deterministic_algorithms_enabled()
            raise KeyError  # also when something goes wrong
    assert torch.equal(*drawn) and torch.equal(state, torch.get_rng_state())
    assert torch.get_num_threads() == threads and not torch.are_deterministic_algorithms_enabled()
