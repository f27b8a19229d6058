"""Linear experts: the formula, the folds they have not seen, missing streams and classes, and how they are kept."""

import numpy as np
import pytest
from fusion_clips import CLASSES, NEURAL, changed, clips, one_hot
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from ecmf_lib import experts, fit, training_part
from ecmf_lib.experts import Expert, discriminants, fit_expert, fit_experts, log_softmax, opinions_of
from ecmf_lib.fit import ModelSpec
from ecmf_lib.samples import inner_folds
from ecmf_lib.scaling import fit_standardiser, standardise

shapes = pytest.mark.parametrize(("n", "dim"), [(90, 12), (30, 80), (60, 59)], ids=["n > dim", "n < dim", "n ~ dim"])


def problem(rng, n, dim, strength=1.0):
    labels = np.arange(n) % 3
    mix = rng.normal(size=(dim, dim)) / dim**0.5  # features that vary together
    return (strength * rng.normal(size=(3, dim))[labels] + rng.normal(size=(n, dim))) @ mix, labels


def scores(expert, x):
    """Discriminants up to a constant for each clip."""
    z = x @ expert.coef.T + expert.intercept
    return z - z.mean(1, keepdims=True)


# ---- the formula


@shapes
@pytest.mark.parametrize("shrinkage", [0.1, 0.5, 0.9, 1.0])
def test_it_is_scikit_learns_discriminant_analysis(rng, n, dim, shrinkage):
    """With classes of one size, for which scikit-learn's mean of class covariances is the pooled one."""
    x, labels = problem(rng, n, dim)
    known = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage, priors=np.full(3, 1 / 3)).fit(x, labels)
    expected = known.decision_function(x)
    found = scores(discriminants(x, one_hot(labels), (shrinkage,))[0], x)
    assert np.allclose(found, expected - expected.mean(1, keepdims=True), atol=1e-6)


@shapes
def test_weighted_soft_labels_follow_the_formula(rng, n, dim):
    x, _ = problem(rng, n, dim)
    targets = rng.dirichlet(np.ones(3), n) * rng.random((n, 1))
    mass = targets.sum(0)
    means = targets.T @ x / mass[:, None]
    within = sum((targets[:, k, None] * (x - means[k])).T @ (x - means[k]) for k in range(3)) / mass.sum()
    shrunk = 0.7 * within + 0.3 * np.trace(within) / dim * np.eye(dim)
    coef = np.linalg.solve(shrunk, means.T).T
    expected = x @ coef.T - 0.5 * (coef * means).sum(1)
    # Shares under a thousandth are left out of the covariance, hence the tolerance.
    found = scores(discriminants(x, targets, (0.3,))[0], x)
    assert np.allclose(found, expected - expected.mean(1, keepdims=True), atol=2e-2 * np.abs(expected).max())


@shapes
def test_clips_of_weight_0_are_not_there(rng, n, dim):
    x, labels = problem(rng, n, dim)
    nobody = np.arange(n) % 5 == 0
    x[nobody] = 1e3
    one = discriminants(x, one_hot(labels) * ~nobody[:, None], (0.3,))[0]
    two = discriminants(x[~nobody], one_hot(labels[~nobody]), (0.3,))[0]
    assert np.allclose(one.coef, two.coef) and np.allclose(one.intercept, two.intercept)


def test_a_rare_class_is_not_thought_rarer(rng):
    """Opinions are for classes of equal frequency: each clip ten times more of one class hardly moves them."""
    x, labels = problem(rng, 90, 12, 0.5)
    more = np.concatenate([np.arange(90), np.repeat(np.flatnonzero(labels == 0), 9)])
    chances = np.exp(discriminants(x[more], one_hot(labels[more]), (0.5,))[0].opinion(x)).mean(0)
    assert chances[0] < 0.45


def test_a_class_without_clips_is_all_but_ruled_out(rng):
    x, labels = problem(rng, 90, 12)
    expert = discriminants(x[labels != 1], one_hot(labels[labels != 1]), (0.5,))[0]
    opinion = expert.opinion(x)
    assert np.isfinite(opinion).all() and (opinion[:, 1] == experts.LOWEST).all()
    assert not expert.coef[1].any() and (opinion.argmax(1) == labels)[labels != 1].mean() > 0.8


def test_no_opinion_is_lower_than_the_lowest(rng):
    x, labels = problem(rng, 90, 12, 30.0)
    opinion = discriminants(x, one_hot(labels), (0.1,))[0].opinion(x)
    assert opinion.dtype == np.float32 and opinion.min() == experts.LOWEST and opinion.max() <= 0


@pytest.mark.parametrize("targets", [np.zeros((6, 3)), one_hot(np.zeros(6, int)), one_hot(np.arange(6) % 3)])
def test_nothing_to_learn_from_gives_finite_opinions(targets):
    for x in (np.zeros((6, 4)), np.tile(np.arange(6.0)[:, None] - 2.5, 4)):
        for fold in (np.zeros(6, int), np.arange(6) % 2, np.arange(6) // 3):
            expert, opinions = fit_expert(x, targets, fold)
            assert np.isfinite(opinions).all() and np.isfinite(expert.opinion(x)).all()
    rows = np.arange(6) < 3  # all that counts is in one fold
    expert, opinions = fit_expert(x, targets * rows[:, None], (~rows).astype(int))
    assert np.isfinite(opinions).all() and np.isfinite(expert.opinion(x)).all()


# ---- out of fold


def test_opinions_are_of_experts_that_have_not_seen_the_fold(rng, monkeypatch):
    """Other labels in fold 0: what is said of fold 0 stays the same, what is said of the others does not."""
    monkeypatch.setattr(experts, "SHRINKAGE", (0.5,))
    monkeypatch.setattr(experts, "TEMPERATURES", (2.0,))
    x, labels = problem(rng, 90, 12)
    fold = np.arange(90) // 30
    marked = fold == 0
    one, other = (
        fit_expert(x, one_hot(known), fold)[1] for known in (labels, np.where(marked, (labels + 1) % 3, labels))
    )
    assert np.array_equal(one[marked], other[marked]) and not np.allclose(one[~marked], other[~marked])
    alone = discriminants(x[~marked], one_hot(labels[~marked]), (0.5,))[0]
    assert np.allclose(one[marked], Expert(alone.coef / 2, alone.intercept / 2).opinion(x[marked]), atol=1e-5)


def test_an_expert_without_knowledge_has_no_strong_opinion(rng):
    """Shuffled labels: out of fold its opinions are near even, though the expert in sample fits them well."""
    x, labels = problem(rng, 90, 80)
    shuffled = rng.permutation(labels)
    expert, opinions = fit_expert(x, one_hot(shuffled), np.arange(90) % 3)
    assert -opinions[np.arange(90), shuffled].mean() < np.log(3) + 0.1
    assert np.exp(opinions).max() < 0.7
    assert (expert.opinion(x).argmax(1) == shuffled).mean() > 0.55


def test_shrinkage_and_temperature_are_those_of_the_lowest_loss_out_of_fold(rng):
    x, labels = problem(rng, 90, 40, 0.3)
    targets, fold = one_hot(labels), np.arange(90) // 30
    expert, opinions = fit_expert(x, targets, fold)
    losses = {}
    for shrinkage in experts.SHRINKAGE:
        logits = np.zeros((90, 3))
        for number in range(3):
            found = discriminants(x[fold != number], targets[fold != number], (shrinkage,))[0]
            logits[fold == number] = x[fold == number] @ found.coef.T + found.intercept
        for temperature in experts.TEMPERATURES:
            losses[shrinkage, temperature] = -log_softmax(logits / temperature)[np.arange(90), labels].mean()
    shrinkage, temperature = min(losses, key=losses.get)
    whole = discriminants(x, targets, (shrinkage,))[0]
    assert np.allclose(expert.coef, whole.coef / temperature)
    assert -opinions[np.arange(90), labels].mean() == pytest.approx(min(losses.values()), abs=1e-3)


# ---- one a stream


def fitted(data):
    x = standardise(data, fit_standardiser(data))
    fold = inner_folds(data.labels, np.array(data.speakers), 3, 0)
    return x, *fit_experts(x, data.present, data.targets(), fold)


@pytest.mark.parametrize("steps", [0, 4])
def test_missing_streams_say_nothing(rng, steps):
    data = clips(rng, steps=steps)
    x, arrays, opinions = fitted(data)
    told = opinions_of(x, data.present, arrays)
    for found in (opinions, told):
        assert found.shape == (96, 3, 3) and found.dtype == np.float32
        assert not found[~data.mask()].any() and found[data.mask()].any(-1).all()
    assert arrays["expert.audio"].shape == (3, 10) and arrays["expert.audio"].dtype == np.float32


def test_what_stands_in_for_a_missing_stream_teaches_no_expert(rng):
    data = clips(rng)
    x, arrays, opinions = fitted(data)
    x["audio"][~data.present["audio"]] = 5
    fold = inner_folds(data.labels, np.array(data.speakers), 3, 0)
    again, other = fit_experts(x, data.present, data.targets(), fold)
    assert np.array_equal(opinions, other) and all(np.array_equal(arrays[key], again[key]) for key in arrays)


def test_a_stream_that_no_clip_has_gets_an_expert_without_opinion(rng):
    data = clips(rng)
    data = changed(data, present=data.present | {"noise": np.zeros(96, bool)})
    x, arrays, opinions = fitted(data)
    assert not arrays["expert.noise"].any() and not opinions[:, 2].any()
    everywhere = data.present | {"noise": np.ones(96, bool)}
    assert np.allclose(opinions_of(x, everywhere, arrays)[:, 2], -np.log(3))


def test_several_steps_are_averaged(rng):
    data = clips(rng)
    flat, steps = (
        fitted(data),
        fitted(changed(data, streams={n: np.stack([z] * 3, 1) for n, z in data.streams.items()})),
    )
    assert np.allclose(flat[2], steps[2], atol=1e-4)


def test_they_tell_what_their_stream_shows(rng):
    _, _, opinions = fitted(clips(rng, n=180))
    right = (opinions.argmax(-1) == (np.arange(180) % 3)[:, None]).mean(0)
    assert right[0] > 0.6 and right[1] > 0.6 and right[2] < 0.5


# ---- in a model


def test_a_model_keeps_its_experts_and_predicts_the_same(rng, tmp_path):
    data = clips(rng)
    model = fit.fit(data, ModelSpec("m", "ecmf", options=NEURAL), seed=0, epochs=2)
    assert {key for key in model.arrays if "expert" in key} == {"expert.face", "expert.audio", "expert.noise"}
    model.save(tmp_path)
    again = fit.Fitted.load(tmp_path)
    for one, other in zip(model.predict(data), again.predict(data), strict=True):
        assert np.array_equal(one, other)
    silent = changed(model, arrays={k: np.zeros_like(v) if "expert" in k else v for k, v in model.arrays.items()})
    assert not np.allclose(model.predict(data)[0], silent.predict(data)[0], atol=1e-3)
    without = fit.fit(data, ModelSpec("m", "ecmf", options=NEURAL | {"experts": False}), seed=0, epochs=2)
    assert not [key for key in without.arrays if "expert" in key or "trust" in key]


def test_what_a_network_learns_beside_is_what_the_experts_said_out_of_fold(rng, monkeypatch):
    data, handed = clips(rng), []
    real = training_part.train_stack
    monkeypatch.setattr(training_part, "train_stack", lambda *args: handed.append(args) or real(*args))
    fit.fit(data, ModelSpec("m", "ecmf", options=NEURAL), seed=0, epochs=1)
    x, fold, opinions = standardise(data, fit_standardiser(data)), handed[0][5], handed[0][7]
    expected = fit_experts(x, data.present, data.targets(), fold)[1]
    assert np.array_equal(opinions, expected) and len(CLASSES) == opinions.shape[-1]
