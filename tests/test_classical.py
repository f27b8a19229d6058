"""Models without a network: what each learns, weights and soft labels, missing streams, and what cannot be kept."""

import numpy as np
import pytest
from fusion_clips import changed, clips, one_hot
from sklearn.linear_model import LogisticRegression

from ecmf_lib import classical, evaluate, fit, train
from ecmf_lib.classical import KINDS, Classical, class_scores, fit_classical, late, opinion_weights, stacked_input
from ecmf_lib.experts import log_softmax
from ecmf_lib.fit import ModelSpec
from ecmf_lib.scaling import fit_standardiser, standardise

LEARNING = [kind for kind in KINDS if kind != "majority"]
every_kind = pytest.mark.parametrize("kind", KINDS)


def fitted(data, kind, options=None, x=None):
    x = standardise(data, fit_standardiser(data)) if x is None else x
    return fit_classical(data, x, kind, options or {}, np.array(data.speakers), 0), x


def said(data, kind, found, x):
    return class_scores("majority" if "prior" in found.params else kind, found, x, data.mask())


@pytest.mark.parametrize("kind", LEARNING)
def test_it_learns_what_there_is_to_learn(rng, kind):
    data = clips(rng, n=150)
    table = train.cross_validate(data, ModelSpec("m", kind), n_folds=3, progress=False)
    assert evaluate.scores(table)["weighted_f1"] > 0.75


@pytest.mark.parametrize("kind", LEARNING)
def test_inner_scores_are_of_models_that_have_not_seen_the_clip(rng, kind):
    """Shuffled labels: in sample they are found again, out of fold they are not."""
    data = clips(rng, n=150, speakers=15)
    data = changed(data, labels=rng.permutation(data.labels))
    found, x = fitted(data, kind)
    inner = (found.inner.argmax(1) == data.labels).mean()
    assert found.inner.shape == (150, 3) and inner < 0.46
    assert (said(data, kind, found, x).argmax(1) == data.labels).mean() > inner


def test_logistic_is_scikit_learns(rng):
    data = clips(rng)
    found, x = fitted(data, "logistic", {"C": 0.05})
    joined = np.concatenate(list(x.values()), 1).astype(np.float64)
    known = LogisticRegression(C=0.05, max_iter=1000).fit(joined, data.labels).decision_function(joined)
    assert np.allclose(said(data, "logistic", found, x), known, atol=1e-6) and found.chosen == {"C of all": 0.05}


def test_c_is_chosen_on_inner_folds(rng):
    found, _ = fitted(clips(rng), "late-logistic", {"C": (1e-9, 0.03)})
    assert found.chosen["C of face"] == found.chosen["C of audio"] == 0.03


def test_late_fusion_is_the_mean_over_the_streams_that_are_there(rng):
    opinions = log_softmax(rng.normal(size=(3, 2, 3)))
    there = np.array([[1, 1], [1, 0], [0, 0]]).astype(bool)
    found = late(opinions, there)
    assert np.allclose(found[0], opinions[0].mean(0)) and np.allclose(found[1], opinions[1, 0])
    assert not found[2].any()


def test_a_stacked_head_sees_centred_opinions_and_0_for_a_missing_stream(rng):
    opinions = log_softmax(rng.normal(size=(3, 2, 3)))
    opinions[0, 0, 0] = -1e3
    there = np.array([[1, 1], [1, 0], [0, 0]]).astype(bool)
    found = stacked_input(opinions, there).reshape(3, 2, 3)
    assert np.allclose(found.sum(-1), 0) and not found[1:, 1].any() and not found[2].any() and found.min() > -8
    assert np.allclose(found[1, 0], opinions[1, 0] - opinions[1, 0].mean())


def test_a_stacked_head_trusts_streams_by_class_and_late_fusion_cannot(rng):
    """One stream knows a class, the other knows the rest but misleads about that class."""
    data = clips(rng, n=240, signal=1.0, speakers=12)
    found, _ = fitted(data, "stacked")
    head = np.abs(found.params["coef.head"]).reshape(3, 3, 3).sum((0, 2))  # by stream
    assert head[2] < 0.5 * head[:2].min() and found.chosen["C of head"] in classical.LOGISTIC_C


def test_a_noise_stream_gets_next_to_no_weight(rng):
    labels = np.arange(300) % 3
    good = log_softmax(2 * one_hot(labels) + rng.normal(size=(300, 3)))
    noise = log_softmax(2 * rng.normal(size=(300, 3)))
    weights = opinion_weights(np.stack([good, noise], 1), one_hot(labels))
    assert weights[0] > 0.5 and 0 <= weights[1] < 0.1
    harmful = opinion_weights(np.stack([good, -good], 1), one_hot(labels))
    assert (harmful >= 0).all() and harmful[1] == 0
    with_nothing = opinion_weights(np.stack([good, np.full_like(good, -np.log(3))], 1), one_hot(labels))
    assert with_nothing[1] == pytest.approx(0, abs=0.05)


def test_opinion_weights_have_the_lowest_cross_entropy(rng):
    labels = np.arange(300) % 3
    opinions = np.stack([log_softmax(s * one_hot(labels) + rng.normal(size=(300, 3))) for s in (1, 2)], 1)
    best = opinion_weights(opinions, one_hot(labels))

    def loss(weights):
        chances = log_softmax(np.einsum("s,nsc->nc", weights, opinions))
        return -chances[np.arange(300), labels].mean() + 1e-3 * (np.asarray(weights) ** 2).sum()

    for step in ([0.02, 0], [-0.02, 0], [0, 0.02], [0, -0.02]):
        assert loss(best) < loss(best + step)


def test_linear_experts_find_the_noise_too(rng):
    found, _ = fitted(clips(rng, n=240, speakers=12), "linear-experts")
    weights = found.params["weights"]
    assert weights.shape == (3,) and weights[2] < 0.2 * weights[:2].min()


# ---- weights, soft labels, gaps


@every_kind
def test_a_clip_of_weight_0_equals_one_that_is_not_there(rng, kind, monkeypatch):
    """The final fit: the same scaled features, one candidate, so that inner folds decide nothing."""
    monkeypatch.setattr(classical, "ROUNDS", (15,))
    monkeypatch.setattr(classical, "LOGISTIC_C", (0.03,))
    monkeypatch.setattr("ecmf_lib.experts.SHRINKAGE", (0.5,))
    monkeypatch.setattr("ecmf_lib.experts.TEMPERATURES", (2.0,))
    data = clips(rng, n=150)
    nobody = np.arange(150) % 5 == 0
    x = standardise(data, fit_standardiser(data))
    wrong = changed(data, labels=np.where(nobody, (data.labels + 1) % 3, data.labels), weight=~nobody)
    one, _ = fitted(wrong, kind, x=x)
    two, _ = fitted(data.select(~nobody), kind, x={name: z[~nobody] for name, z in x.items()})
    if kind == "boosting":
        assert np.allclose(said(data, kind, one, x), said(data, kind, two, x))
    folds_matter = {"weights"} | {key for key in one.params if "head" in key}  # learned from opinions out of fold
    assert one.params.keys() == two.params.keys()
    for key in one.params.keys() - folds_matter:
        assert np.allclose(one.params[key], two.params[key], atol=1e-6), key


@every_kind
def test_hard_labels_as_soft_ones_and_weights_of_1_change_nothing(rng, kind):
    data = clips(rng)
    one, x = fitted(data, kind)
    two, _ = fitted(changed(data, soft=one_hot(data.labels), weight=np.ones(96)), kind)
    assert np.array_equal(said(data, kind, one, x), said(data, kind, two, x))


@pytest.mark.parametrize("kind", LEARNING)
def test_what_is_learned_is_the_soft_label(rng, kind):
    data = clips(rng)
    found, x = fitted(changed(data, soft=one_hot((data.labels + 1) % 3)), kind)
    assert (said(data, kind, found, x).argmax(1) == (data.labels + 1) % 3).mean() > 0.7


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "majority"])
def test_what_stands_in_for_a_missing_stream_reaches_nothing(rng, kind):
    data = clips(rng)
    there = data.present | {"audio": np.arange(96) % 4 != 0}
    other = {name: x.copy() for name, x in data.streams.items()}
    other["audio"][::4] = 1e4
    one, two = (changed(data, present=there, streams=streams) for streams in (data.streams, other))
    (a, x), (b, z) = fitted(one, kind), fitted(two, kind)
    assert np.array_equal(said(one, kind, a, x), said(two, kind, b, z))


@every_kind
def test_one_class_only_and_a_missing_class_are_finite(rng, kind):
    data = clips(rng)
    for known in ([0], [0, 2]):
        part = data.select(np.isin(data.labels, known))
        model = fit.fit(part, ModelSpec("m", kind), seed=0, epochs=1)
        chances, _ = model.predict(data)
        assert np.isfinite(chances).all() and np.allclose(chances.sum(1), 1)
        assert set(chances.argmax(1)) <= set(known) or kind == "linear-experts"


def test_the_majority_counts_weights_and_soft_labels(rng):
    data = clips(rng)
    heavy = changed(data, weight=np.where(data.labels == 2, 2.0, 1.0))
    found, x = fitted(heavy, "majority")
    assert np.allclose(np.exp(found.params["prior"]), [32, 32, 64])
    assert np.array_equal(said(heavy, "majority", found, x).argmax(1), np.full(96, 2))


# ---- boosting


def test_rounds_are_chosen_on_inner_folds_and_noise_gets_few(rng):
    data = clips(rng, signal=0.0)
    assert fitted(data, "boosting")[0].chosen == {"rounds": classical.ROUNDS[0]}


def test_boosting_cannot_be_kept_and_says_why(rng, tmp_path):
    model = fit.fit(clips(rng), ModelSpec("trees", "boosting"), seed=0, epochs=1)
    with pytest.raises(ValueError, match=r"'trees' cannot be kept.*pickle.*fit it again"):
        model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


# ---- options


@pytest.mark.parametrize("kind", ["boosting", "linear-experts", "majority"])
def test_options_that_a_kind_has_not_are_refused(rng, kind):
    with pytest.raises(ValueError, match=r"no option C, only none"):
        fitted(clips(rng), kind, {"C": 1.0})
    with pytest.raises(ValueError, match="no option widht, only C"):
        fitted(clips(rng), "stacked", {"widht": 1.0})
    assert Classical().params == {}
