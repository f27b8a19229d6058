"""Consensus: unanimity, silence, adversaries, families, and the same numbers as the libraries the methods are from."""

import warnings

import numpy as np
import pandas as pd
import pytest
from label_votes import classifier, confusing, person, silent, votes

from ecmf_lib.consensus import METHODS, consensus
from ecmf_lib.sources import FUSION, Source, hard

every_method = pytest.mark.parametrize("method", METHODS)
CLASSES = 4
PEOPLE = ("a", "b", "c")


@pytest.fixture
def truth(rng):
    return rng.integers(0, CLASSES, 300)


@pytest.fixture
def crowd(rng, truth):
    """Three people of 80, 75 and 70 %, who abstain now and then, a stream and a classifier."""
    people = [
        person(rng, name, truth, right, CLASSES, 0.1) for name, right in zip(PEOPLE, (0.8, 0.75, 0.7), strict=True)
    ]
    return [*people, person(rng, "face", truth, 0.7, CLASSES), classifier(rng, truth, CLASSES)]


# ---- every method


@every_method
def test_rows_are_chances_and_every_source_gets_a_quality(crowd, truth, method):
    found = consensus(crowd, PEOPLE, method)
    assert found.method == method and found.chances.shape == (300, CLASSES)
    assert (found.chances >= 0).all() and np.allclose(found.chances.sum(1), 1)
    assert (found.labels == found.chances.argmax(1)).all() and (found.labels == truth).mean() > 0.8
    assert all(0 <= value <= 1 for value in found.quality.values())
    wanted = {
        "em": {*PEOPLE, "face", FUSION}, "crowdlab": {*PEOPLE, "face", FUSION}, "confident-learning": {"given", FUSION},
    }  # fmt: skip
    assert set(found.quality) == wanted.get(method, {*PEOPLE, "face"})


@every_method
def test_unanimous_sources_are_believed(truth, method):
    """Also in classes that nearly nobody is in."""
    labels = np.where(truth == 3, 0, truth)
    labels[:3] = 3
    chances = np.eye(CLASSES)[labels] * 0.8 + 0.05
    found = consensus(
        [*(hard(name, labels, CLASSES) for name in (*PEOPLE, "face")), Source(FUSION, FUSION, chances)], PEOPLE, method
    )
    assert (found.labels == labels).all() and (found.chances.max(1) > 0.5).all()
    assert all(value > 0.75 for value in found.quality.values())


@every_method
def test_where_all_abstain_there_is_no_consensus(crowd, method):
    quiet = np.arange(300) % 10 == 0
    found = consensus(
        [Source(s.name, s.family, np.where(quiet[:, None], np.nan, s.chances)) for s in crowd], PEOPLE, method
    )
    assert np.isnan(found.chances[quiet]).all() and (found.labels[quiet] == -1).all()
    assert np.isfinite(found.chances[~quiet]).all() and (found.labels[~quiet] >= 0).all()


@every_method
def test_a_source_that_never_speaks_changes_nothing(crowd, method):
    one, other = (consensus([*more, *crowd], (*PEOPLE, "nobody"), method) for more in ([], [silent("nobody", 300, 4)]))
    np.testing.assert_allclose(other.chances, one.chances, atol=1e-5)


@every_method
def test_copies_of_one_family_count_once(crowd, truth, method, rng):
    """And would count if they were taken for independent: the copied voter is a bad one."""
    bad = person(rng, "bad", truth, 0.3, CLASSES)
    names = ("bad", *PEOPLE, "copy", "copy too")

    def with_copies(family):
        copies = [Source(name, family, bad.chances) for name in ("copy", "copy too")]
        return consensus([bad, *crowd, *copies], names, method)

    once, copied = consensus([bad, *crowd], names, method), with_copies("bad")
    np.testing.assert_allclose(copied.chances, once.chances, atol=1e-9)
    assert copied.quality["given" if method == "confident-learning" else "bad"] == pytest.approx(
        once.quality["given" if method == "confident-learning" else "bad"]
    )
    assert (with_copies("other").labels != once.labels).any()


@every_method
def test_the_same_result_whatever_was_drawn_before(crowd, method):
    even = np.arange(300) % 2
    tied = [hard("a", even, CLASSES), hard("b", np.where(np.arange(300) < 100, even, 1 - even), CLASSES)]
    flat = Source(FUSION, FUSION, np.full((300, CLASSES), 1 / CLASSES))
    for sources in (crowd, [*tied, flat]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # cleanlab tells of ties
            np.random.seed(1)
            one = consensus(sources, PEOPLE, method)
            np.random.seed(2)
            state = np.random.get_state()[1].copy()
            other = consensus(sources, PEOPLE, method)
        assert np.array_equal(one.chances, other.chances) and one.quality == other.quality
        assert np.array_equal(np.random.get_state()[1], state)


# ---- adversaries


@pytest.mark.parametrize("adversary", ["always wrong", "always the same"])
@pytest.mark.parametrize("method", ["em", "crowdlab", "dawid-skene", "weighted"])
def test_an_adversary_is_voted_down(rng, truth, method, adversary):
    """It does harm where votes are only counted."""
    people = [person(rng, name, truth, 0.75, CLASSES) for name in PEOPLE]
    said = (truth + 1) % CLASSES if adversary == "always wrong" else np.zeros_like(truth)
    sources = [hard("bad", said, CLASSES), *people, classifier(rng, truth, CLASSES)]
    found, plain = (consensus(sources, ("bad", *PEOPLE), how) for how in (method, "majority"))
    followed, plainly = ((it.labels == said)[said != truth].mean() for it in (found, plain))
    assert plainly > 0.15 and followed < 0.5 * plainly
    assert min(found.quality, key=found.quality.get) == "bad" and found.quality["bad"] < 0.5
    if method != "crowdlab":  # which for its sake trusts all others less too, and the classifier more
        without = consensus(sources[1:], PEOPLE, method)
        assert (found.labels == truth).mean() > (without.labels == truth).mean() - 0.02


# ---- expectation-maximisation


def accuracy_and_confusions(chances, told, truth):
    """Share of right labels, and mean error of the confusions that these chances give for each voter's votes."""
    errors = []
    for said, real in told:
        counts = chances.T @ np.eye(6)[said]
        errors.append(np.abs(counts / counts.sum(1, keepdims=True) - real).mean())
    return (chances.argmax(1) == truth).mean(), np.mean(errors)


def test_em_finds_the_confusions_of_three_annotators_better_than_majority(rng):
    truth = rng.integers(0, 6, 3000)
    swapped = np.eye(6) * 0.85 + 0.025  # takes sad for worried, mostly
    swapped[3] = [0.02, 0.02, 0.02, 0.22, 0.7, 0.02]
    biased = confusing(0.55, 6) * 0.6 + np.eye(6)[0] * 0.4  # calls much neutral
    confusions = [confusing(0.8, 6), swapped / swapped.sum(1, keepdims=True), biased]
    told = [(votes(rng, truth, real), real) for real in confusions]
    sources = [hard(name, said, 6) for name, (said, _) in zip(PEOPLE, told, strict=True)]
    found = consensus(sources, PEOPLE, "em")
    right, error = accuracy_and_confusions(found.chances, told, truth)
    majority = consensus(sources, PEOPLE, "majority").labels
    plain_right, plain_error = accuracy_and_confusions(np.eye(6)[majority], told, truth)
    assert right > plain_right + 0.01 and error < 0.5 * plain_error
    real = {name: (said == truth).mean() for name, (said, _) in zip(PEOPLE, told, strict=True)}
    assert found.quality == pytest.approx(real, abs=0.05)


def test_em_takes_the_classifier_as_each_clips_prior(rng, truth):
    """One noisy label alone says little; with a classifier beside it both are better than either."""
    given = person(rng, "given", truth, 0.7, CLASSES)
    fused = classifier(rng, truth, CLASSES, strength=1.5)
    found = consensus([given, fused], ["given"], "em")
    alone = max((source.says == truth).mean() for source in (given, fused))
    assert (found.labels == truth).mean() > alone + 0.02
    assert found.quality["given"] == pytest.approx(0.7, abs=0.08)


def test_em_without_people_is_the_classifier(rng, truth):
    fused = classifier(rng, truth, CLASSES)
    found = consensus([fused, person(rng, "face", truth, 0.9, CLASSES)], [], "em")
    np.testing.assert_allclose(found.chances, fused.chances, atol=1e-5)


# ---- what the libraries say


@pytest.mark.parametrize("abstains", [0.0, 0.4])
def test_crowdlab_gives_cleanlabs_quality_of_the_consensus_label(rng, abstains):
    """With and without clips that only one person has seen."""
    from cleanlab.multiannotator import get_label_quality_multiannotator

    for n_classes in (3, 6):
        truth = rng.integers(0, n_classes, 200)
        people = [
            person(rng, name, truth, right, n_classes, abstains)
            for name, right in zip("abcd", (0.9, 0.7, 0.6, 0.3), strict=True)
        ]
        fused = classifier(rng, truth, n_classes, strength=1.0)
        found = consensus([*people, fused], "abcd", "crowdlab")
        heard = np.any([source.speaks for source in people], axis=0)
        table = np.stack([np.where(s.speaks, s.says, np.nan) for s in people], axis=1)[heard]
        known = get_label_quality_multiannotator(pd.DataFrame(table), fused.chances[heard], verbose=False)
        quality = known["label_quality"]
        own = found.chances[heard][np.arange(heard.sum()), quality["consensus_label"]]
        np.testing.assert_allclose(own, quality["consensus_quality_score"], atol=1e-6)
        stats = known["annotator_stats"]["annotator_quality"]
        assert [found.quality[name] for name in "abcd"] == pytest.approx([stats[i] for i in range(4)])
        assert heard.all() == (not abstains) and np.isnan(found.chances[~heard]).all()


def test_crowdlab_of_people_who_share_no_clip_is_each_ones_vote_and_the_model(rng, truth):
    first = np.arange(300) < 150
    one, two = hard("a", np.where(first, truth, -1), CLASSES), hard("b", np.where(first, -1, truth), CLASSES)
    fused = classifier(rng, truth, CLASSES)
    found = consensus([one, two, fused], ["a", "b"], "crowdlab")
    np.testing.assert_allclose(found.chances, (fused.chances + np.eye(CLASSES)[truth]) / 2)


def test_dawid_skene_is_crowd_kits(rng, truth):
    from crowdkit.aggregation import DawidSkene

    from ecmf_lib.consensus import EM_STEPS

    people = [
        person(rng, name, truth, right, CLASSES, 0.3) for name, right in zip(PEOPLE, (0.9, 0.7, 0.5), strict=True)
    ]
    rows = [(i, s.name, s.says[i]) for s in people for i in range(300) if s.speaks[i]]
    known = DawidSkene(n_iter=EM_STEPS).fit(pd.DataFrame(rows, columns=["task", "worker", "label"])).probas_
    found = consensus([*people, classifier(rng, truth, CLASSES)], PEOPLE, "dawid-skene")
    heard = np.any([source.speaks for source in people], axis=0)
    assert sorted(known.index) == np.flatnonzero(heard).tolist()
    np.testing.assert_allclose(found.chances[heard], known.sort_index()[range(CLASSES)].to_numpy(), atol=1e-9)
    assert not heard.all() and np.isnan(found.chances[~heard]).all()


def test_confident_learning_replaces_what_cleanlab_flags(rng, truth):
    from cleanlab.filter import find_label_issues

    truth = np.where(truth == 3, 0, truth)  # a class without clips
    given = person(rng, "given", truth, 0.8, CLASSES)
    said = np.where(given.says == 3, 0, given.says)
    fused = classifier(rng, truth, CLASSES)
    three = fused.chances[:, :3] / fused.chances[:, :3].sum(1, keepdims=True)
    flagged = find_label_issues(said, three, filter_by="prune_by_noise_rate", n_jobs=1)
    found = consensus([hard("given", said, CLASSES), fused], ["given"], "confident-learning")
    assert 10 < flagged.sum() < 150
    np.testing.assert_allclose(found.chances[flagged], fused.chances[flagged])
    np.testing.assert_allclose(found.chances[~flagged], np.eye(CLASSES)[said[~flagged]])
    assert (found.labels == truth).mean() > (said == truth).mean() + 0.05


def test_votes_are_counted():
    voters = [hard("a", [0, 1, 2, -1], 3), hard("b", [0, 1, 1, 2], 3), hard("c", [1, 1, 0, 2], 3)]
    found = consensus(voters, [], "majority")
    np.testing.assert_allclose(found.chances, [[2 / 3, 1 / 3, 0], [0, 1, 0], [1 / 3] * 3, [0, 0, 1]], atol=1e-5)
    assert found.labels.tolist() == [0, 1, 2, 2]  # a tie goes to the first
    # what share of the votes a source's own answers got, on average over the clips it speaks of
    expected = {"a": (2 / 3 + 1 + 1 / 3) / 3, "b": (2 / 3 + 1 + 1 / 3 + 1) / 4, "c": (1 / 3 + 1 + 1 / 3 + 1) / 4}
    assert found.quality == pytest.approx(expected, abs=1e-5)


# ---- refused


def test_what_makes_no_sense_is_refused(crowd):
    with pytest.raises(ValueError, match="no consensus method 'vote'; choose from em, crowdlab"):
        consensus(crowd, PEOPLE, "vote")
    with pytest.raises(ValueError, match="at least one source"):
        consensus([], [])
    with pytest.raises(ValueError, match=r"different clips or classes.*'a': \(300, 4\).*'short': \(3, 4\)"):
        consensus([*crowd, silent("short", 3, CLASSES)], PEOPLE)
    with pytest.raises(ValueError, match=f"two sources are called '{FUSION}'; rename one"):
        consensus([hard(FUSION, [0] * 300, CLASSES), *crowd], PEOPLE)
    with pytest.raises(ValueError, match="none of the sources is a person"):
        consensus(crowd[3:], [], "confident-learning")
