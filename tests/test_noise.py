"""Injected label noise has the rate and the kind that were asked for, and its truth is known."""

import numpy as np
import pytest

from ecmf_lib import noise
from ecmf_lib.config import EMOTIONS, SettingsError

N = 12_000


def labels_of(rng, n_classes, shares=None):
    return rng.choice(n_classes, size=N, p=shares)


def chances_of(rng, n_classes):
    return rng.dirichlet(np.full(n_classes, 0.5), N)


def made(kind, labels, n_classes, rate, rng, chances=None):
    chances = chances_of(rng, n_classes) if chances is None else chances
    return noise.inject(kind, labels, n_classes, rate, rng, chances=chances)


@pytest.mark.parametrize("kind", noise.KINDS)
@pytest.mark.parametrize("n_classes", [2, 3, 6])
@pytest.mark.parametrize("rate", [0.05, 0.2, 0.4])
def test_the_expected_share_of_labels_changes(rng, kind, n_classes, rate):
    true = labels_of(rng, n_classes, rng.dirichlet(np.full(n_classes, 9)))
    before = true.copy()
    noisy = made(kind, true, n_classes, rate, rng)
    assert noisy.dtype == np.int64 and noisy.shape == true.shape
    assert set(noisy) <= set(range(n_classes)) and (true == before).all()
    assert (noisy != true).mean() == pytest.approx(rate, abs=4 * np.sqrt(rate * (1 - rate) / N))


@pytest.mark.parametrize("kind", noise.KINDS)
def test_no_noise_is_an_equal_copy_and_a_seed_is_a_seed(kind):
    true = np.arange(60) % 6
    chances = chances_of(np.random.default_rng(1), 6)[:60]
    same = made(kind, true, 6, 0, np.random.default_rng(0), chances)
    assert same is not true and (same == true).all()
    same[0] = 5
    assert true[0] == 0
    once, again, other = (made(kind, true, 6, 0.5, np.random.default_rng(s), chances) for s in (0, 0, 1))
    assert (once == again).all() and (once != other).any()


@pytest.mark.parametrize("kind", noise.KINDS)
def test_more_noise_holds_the_noise_of_a_lower_rate(kind):
    rng = np.random.default_rng(3)
    true, chances = labels_of(rng, 6), chances_of(rng, 6)
    low, high = (made(kind, true, 6, rate, np.random.default_rng(0), chances) for rate in (0.1, 0.3))
    assert (high[low != true] == low[low != true]).all()


def test_symmetric_noise_is_alike_for_all_classes(rng):
    true = labels_of(rng, 4)
    found = noise.transition(true, noise.symmetric(true, 4, 0.3, rng), 4)
    assert np.allclose(found, 0.7 * np.eye(4) + 0.1 * (1 - np.eye(4)), atol=0.04)
    assert (noise.symmetric(true, 4, 1.0, rng) != true).all()


def test_class_dependent_noise_mistakes_emotions_as_people_do(rng):
    true = labels_of(rng, 6)
    found = noise.transition(true, noise.class_dependent(true, 6, 0.2, rng), 6)
    rates = dict(zip(EMOTIONS, 1 - np.diag(found), strict=True))
    assert max(rates, key=rates.get) == "worried" and rates["worried"] > 1.7 * max(rates["neutral"], rates["angry"])
    worried, happy = EMOTIONS.index("worried"), EMOTIONS.index("happy")
    assert np.delete(found[worried], worried).argmax() == EMOTIONS.index("sad")
    assert found[happy, EMOTIONS.index("angry")] == 0, "what is never mistaken stays so"


def test_of_two_classes_the_first_changes_three_times_as_often(rng):
    true = labels_of(rng, 2, [0.3, 0.7])
    found = noise.transition(true, noise.class_dependent(true, 2, 0.1, rng), 2)
    assert found[0, 1] == pytest.approx(3 * found[1, 0], rel=0.2)


@pytest.mark.parametrize("n_classes", [2, 3, 4, 6, 8])
def test_default_confusions_never_stay_at_the_class(n_classes):
    found = noise.confusions(n_classes)
    assert (np.diag(found) == 0).all() and (found >= 0).all() and (found.sum(axis=1) > 0).all()


def test_own_confusions_are_followed(rng):
    mistaken = np.array([[9.0, 1, 0], [0, 0, 0], [0, 3, 0]])  # the diagonal is ignored
    true = np.repeat([0, 1, 2], 4000)
    found = noise.transition(true, noise.class_dependent(true, 3, 0.2, rng, mistaken), 3)
    assert np.allclose(found, [[0.85, 0.15, 0], [0, 1, 0], [0, 0.45, 0.55]], atol=0.04)
    assert mistaken[0, 0] == 9


def test_instance_dependent_noise_follows_what_clips_look_like(rng):
    true = labels_of(rng, 5)
    chances = 0.7 * np.eye(5)[true] + 0.3 * chances_of(rng, 5)
    noisy = noise.instance_dependent(true, chances, 0.2, rng)
    own = chances[np.arange(N), true]
    changed = noisy != true
    rates = [changed[part].mean() for part in np.array_split(np.argsort(own), 4)]
    assert rates[0] > 1.7 * rates[3] and rates[1] > rates[2] + 0.02, (
        "the less a clip looks like its class, the more often it changes"
    )
    others = np.where(np.eye(5, dtype=bool)[true], 0, chances)
    others /= others.sum(axis=1, keepdims=True)
    assert (noisy[changed] == others[changed].argmax(1)).mean() > 0.45, "by chance it would be a quarter"


def test_instance_dependent_noise_of_certain_chances_reaches_its_rate(rng):
    true = labels_of(rng, 3)
    noisy = noise.instance_dependent(true, np.eye(3)[true], 0.3, rng)
    assert (noisy != true).mean() == pytest.approx(0.3, abs=0.02)
    wrong = np.eye(3)[(true + 1) % 3]
    noisy = noise.instance_dependent(true, wrong, 0.3, rng)
    assert set((noisy - true)[noisy != true] % 3) == {1}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("symmetric", [0, 1], 2, 1.2), "from 0 to 1"),
        (("symmetric", [0, 1], 2, float("nan")), "from 0 to 1"),
        (("symmetric", [0, 0], 1, 0.1), "cannot be reached"),
        (("symmetric", [0, -1], 2, 0.1), "label -1 of row 1"),
        (("symmetric", [0, 2], 2, 0.1), "label 2 of row 1: expected 0 to 1"),
        (("symmetric", [0.0, 1.0], 2, 0.1), "class numbers"),
        (("class-dependent", [0, 1], 2, 0.7), "class 0 would change more than always; at most 0.667"),
        (("instance-dependent", [0, 1], 2, 0.1), "needs chances"),
        (("uniform", [0, 1], 2, 0.1), "choose from symmetric, class-dependent, instance-dependent"),
    ],
)
def test_what_cannot_be_done_is_refused(rng, arguments, words):
    kind, labels, n_classes, rate = arguments
    with pytest.raises(SettingsError, match=words):
        noise.inject(kind, np.array(labels), n_classes, rate, rng)


@pytest.mark.parametrize(
    ("chances", "rate", "words"),
    [
        ([[0.5, 0.5]], 0.1, "shape"),
        ([[0.5, 0.5, 0], [0.5, 0.5, 0]], 0.1, "3 columns for 2 classes"),
        ([[0.5, 0.5], [0, 0]], 0.1, "row 1"),
        ([[0.5, np.nan], [0.5, 0.5]], 0.1, "row 0"),
        ([[0.5, 0.5], [-0.1, 1.1]], 0.1, "row 1"),
        ([[0.5, 0.5], [0.5, 0.5]], 1.0, "cannot be reached"),
    ],
)
def test_chances_that_do_not_fit_are_refused(rng, chances, rate, words):
    with pytest.raises(SettingsError, match=words):
        noise.inject("instance-dependent", np.array([0, 1]), 2, rate, rng, chances=np.array(chances))


def test_confusions_that_do_not_fit_are_refused(rng):
    for mistaken, words in ((np.ones((3, 2)), "shape"), (-np.ones((2, 2)), "0 or more"), (np.eye(2), "at most 0.000")):
        with pytest.raises(SettingsError, match=words):
            noise.class_dependent(np.array([0, 1]), 2, 0.1, rng, mistaken)


@pytest.mark.parametrize("kind", noise.KINDS)
def test_no_labels_stay_none(rng, kind):
    assert made(kind, np.zeros(0, int), 3, 0.2, rng, np.zeros((0, 3))).tolist() == []


def test_transition_rows_sum_to_1_also_for_absent_classes():
    found = noise.transition(np.array([0, 0, 2]), np.array([0, 1, 2]), 4)
    assert found.tolist() == [[0.5, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    with pytest.raises(SettingsError, match="of the same clips"):
        noise.transition(np.array([0]), np.array([0, 1]), 2)
