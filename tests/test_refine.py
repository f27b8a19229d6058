"""The rule of refinement, what it gives and writes down, and that refined labels are closer to the truth."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from fusion_clips import CLASSES, changed, clips
from label_votes import mislabelled, silent

from ecmf_lib import refine as refining
from ecmf_lib import train
from ecmf_lib.consensus import METHODS, Consensus, confident_issues
from ecmf_lib.fit import ModelSpec
from ecmf_lib.refine import ADOPT, FILTER, OTHERWISE, Refiner, Rule, refine
from ecmf_lib.samples import DataError
from ecmf_lib.self_training import Rounds, SelfTrainer
from ecmf_lib.sources import FUSION, Source, hard

every_method = pytest.mark.parametrize("method", METHODS)
SURE = Rule(doubt=0.5)


def decided(data, chances, rule, **says):
    """The rule on made-up chances and sources {name: labels}; a name's family is what stands before "_"."""
    chances = np.array(chances, float)
    sources = [hard(name, labels, 3, name.split("_")[0]) for name, labels in says.items()]
    sources.append(Source(FUSION, FUSION, np.where(np.isnan(chances), 1 / 3, chances)))
    return refining._decide(data, sources, Consensus("made up", chances, {}), rule)


@pytest.fixture
def four(rng):
    """Four clips: neutral, angry, happy, neutral."""
    return clips(rng).select(np.arange(4))


def leaning(to, chance):
    return [chance if i == to else (1 - chance) / 2 for i in range(3)]


# ---- the rule


def test_each_action_is_reached(four):
    chances = [leaning(0, 0.6), leaning(2, 0.96), leaning(0, 0.8), leaning(0, 1.0)]
    says = {"given": [0, 1, 2, 0], "face": [1, 2, 0, 0], "audio": [0, 2, 0, 0]}
    rule = Rule(doubt=0.3, per_class=False, most=1.0)
    for otherwise, weight, soft in (
        ("drop", 0.0, [0, 0, 1]), ("soften", 1.0, leaning(0, 0.8)), ("down-weight", 0.1, [0, 0, 1]),
    ):  # fmt: skip
        found = decided(four, chances, dataclasses.replace(rule, otherwise=otherwise), **says)
        assert found.action == ["keep", "relabel", otherwise, "keep"]
        assert found.labels.tolist() == [0, 2, 2, 0] and found.given.tolist() == [0, 1, 2, 0]
        np.testing.assert_allclose(found.weight, [1, 1, weight, 1], atol=1e-6)
        np.testing.assert_allclose(found.soft, [[1, 0, 0], [0, 0, 1], soft, [1, 0, 0]], atol=1e-6)
        assert found.agree == [["given", "audio", FUSION], ["face", "audio", FUSION], ["given"], [*says, FUSION]]
        assert found.families.tolist() == [2, 2, 1, 3]


@pytest.mark.parametrize(
    ("says", "action"),
    [
        ({"face": 2, "audio": 2}, "relabel"),
        ({"face_a": 2, "face_b": 2, "audio": 1}, "drop"),  # one family, however many of it
        ({"face": 2, "audio": -1}, "drop"),
        ({"face": 2}, "drop"),  # the classifier of all streams is no independent family
    ],
)
def test_relabelling_takes_two_independent_families(four, says, action):
    says = {"given": [0, 1, 2, 0]} | {name: [0, label, 2, 0] for name, label in says.items()}
    chances = [leaning(0, 0.9), leaning(2, 0.98), leaning(2, 0.9), leaning(0, 0.9)]
    found = decided(four, chances, Rule(doubt=0.5, most=1.0, per_class=False), **says)
    assert found.action == ["keep", action, "keep", "keep"]
    assert found.labels[1] == (2 if action == "relabel" else 1)
    one_is_enough = decided(four, chances, Rule(doubt=0.5, most=1.0, per_class=False, families=1), **says)
    assert one_is_enough.action[1] == "relabel"


def test_relabelling_takes_a_strong_consensus(four):
    says = {"given": [0, 1, 2, 0], "face": [0, 2, 2, 0], "audio": [0, 2, 2, 0]}
    for chance, action in ((0.89, "drop"), (0.91, "relabel")):
        chances = [leaning(0, 0.9), leaning(2, chance), leaning(2, 0.9), leaning(0, 0.9)]
        assert decided(four, chances, Rule(doubt=0.5, most=1.0, per_class=False), **says).action[1] == action


def test_an_unsure_consensus_without_a_likelier_class_keeps_the_label(four):
    chances = [leaning(0, 0.4)] * 4
    found = decided(four, chances, Rule(doubt=0.5, most=1.0, per_class=False), given=[0, 1, 2, 0])
    assert found.action == ["keep", "drop", "drop", "keep"]


def test_why_names_the_numbers(four):
    chances = [leaning(0, 0.6), leaning(2, 0.96), leaning(0, 0.8), leaning(1, 0.34)]
    says = {"given": [0, 1, 2, 0], "face": [1, 2, 0, 0], "audio": [0, 2, 0, 0]}
    rule = Rule(doubt=0.3, per_class=False, most=1.0)
    assert decided(four, chances, rule, **says).why == [
        "the consensus is neutral too (0.60)",
        "angry has a chance of 0.02, below 0.30; 2 independent families say happy, consensus 0.96",
        "happy has a chance of 0.10, below 0.30; neutral has 0.80, too little to relabel",
        "neutral keeps a chance of 0.33, 0.30 is enough",
    ]
    alone = decided(four, chances, dataclasses.replace(rule, families=3), **says)
    assert alone.why[1] == "angry has a chance of 0.02, below 0.30; only 2 families say happy, too little to relabel"


def test_each_class_has_its_own_threshold(rng):
    """A class of which the consensus is less sure as a whole takes less for doubt."""
    data = clips(rng).select(np.arange(12))
    chances = np.eye(3)[data.labels] * 0.85 + 0.05
    unsure = data.labels == 2
    chances[unsure] = [0.35, 0.25, 0.4]
    last = np.flatnonzero(unsure)[-1]
    chances[last] = [0.5, 0.2, 0.3]
    found = decided(data, chances, Rule(doubt=0.5), given=data.labels)
    left = chances[np.arange(12), data.labels]
    expected = [0.5, 0.5, 0.5 * left[unsure].mean() / left.mean()]
    np.testing.assert_allclose(found.thresholds, expected)
    assert expected[2] < 0.3 and found.action == ["keep"] * 12
    one_for_all = decided(data, chances, Rule(doubt=0.5, per_class=False), given=data.labels)
    assert one_for_all.thresholds.tolist() == [0.5] * 3 and one_for_all.action[last] == "drop"


@pytest.mark.parametrize(("most", "lost"), [(0.0, 0), (0.5, 1), (0.7, 2), (1.0, 3)])
def test_a_class_of_three_clips_never_loses_more_than_its_share(rng, most, lost):
    """The surest mistakes first."""
    data = clips(rng).select(np.arange(30))
    labels = np.where(data.labels == 2, 0, data.labels)
    labels[[4, 11, 20]] = 2
    data = changed(data, labels=labels)
    chances = np.eye(3)[labels] * 0.85 + 0.05
    chances[4], chances[11], chances[20] = [0.6, 0.2, 0.2], [0.98, 0.01, 0.01], [0.7, 0.15, 0.15]
    found = decided(data, chances, Rule(doubt=0.5, most=most, per_class=False), given=labels)
    gone = np.array(found.action) != "keep"
    assert set(np.flatnonzero(gone)) == set([11, 20, 4][:lost])
    for row in {4, 11, 20} - set(np.flatnonzero(gone)):
        doubt = f"{chances[row, 2]:.2f}"
        assert found.why[row] == f"doubted ({doubt}), but happy would lose more than {most:.0%} of its clips"


def test_a_clip_of_which_nobody_speaks_keeps_its_label(rng):
    """The fusion of streams that are all missing has chances too, but it says nothing."""
    data = clips(rng)
    assert not data.mask()[7].any()
    for label in range(3):
        relabelled = changed(data, labels=np.where(np.arange(96) == 7, label, data.labels))
        others = hard("csv", np.where(np.arange(96) == 7, -1, relabelled.labels), 3)
        for rule in (ADOPT, FILTER, Rule(doubt=0.8)):
            found = refine(relabelled, [others], rule=rule, rounds=0)
            assert (found.action[7], found.labels[7], found.weight[7]) == ("keep", label, 1)
            assert found.why[7] == f"no source speaks of it, so {CLASSES[label]} stays"


@every_method
def test_where_all_sources_abstain_given_labels_stay(rng, method, monkeypatch):
    data = clips(rng).select(np.arange(30))
    monkeypatch.setattr(
        refining, "models", lambda *_, **__: [*(silent(s, 30, 3) for s in data.streams), silent(FUSION, 30, 3)]
    )
    found = refine(data, [silent("given", 30, 3)], method=method, rule=ADOPT)
    assert found.action == ["keep"] * 30 and (found.labels == data.labels).all() and (found.weight == 1).all()
    assert found.agree == [[]] * 30 and (found.audit()["confidence"] == 0).all()


@every_method
def test_unanimous_sources_leave_all_labels_alone(rng, method, monkeypatch):
    """Whatever the rule, however rare the class."""
    data = clips(rng).select(np.arange(30))
    data = changed(data, labels=np.where(data.labels == 2, 0, data.labels))
    data.labels[[4, 11, 20]] = 2
    same = [hard(name, data.labels, 3) for name in (*data.streams, FUSION)]
    monkeypatch.setattr(refining, "models", lambda *_, **__: same)
    for rule in (Rule(doubt=0.8), ADOPT, FILTER, Rule(doubt=0.99, per_class=False, otherwise="soften")):
        found = refine(data, method=method, rule=rule)
        assert found.action == ["keep"] * 30 and (found.labels == data.labels).all() and (found.weight == 1).all()
        np.testing.assert_array_equal(found.soft, np.eye(3, dtype=np.float32)[data.labels])


# ---- on data


def errors(found, truth):
    counted = found.weight > 0
    return (found.labels != truth)[counted].mean()


@every_method
def test_refined_labels_are_closer_to_the_truth(rng, method):
    data, noisy = mislabelled(rng)
    given = (noisy.labels != data.labels).mean()
    found = refine(noisy, method=method, rule=SURE)
    assert given > 0.15 and errors(found, data.labels) < given / 2
    changed_ones = np.array(found.action) != "keep"
    assert (noisy.labels != data.labels)[changed_ones].mean() > 0.9  # hardly a right label was touched
    assert np.allclose(found.soft.sum(1), 1) and (found.weight[~changed_ones] == 1).all()


def test_ours_finds_and_mends_most_errors_and_knows_how_good_the_given_labels_are(rng):
    data, noisy = mislabelled(rng)
    wrong = noisy.labels != data.labels
    found = refine(noisy, rule=SURE)
    assert (np.array(found.action) != "keep")[wrong].mean() > 0.8
    assert (found.labels == data.labels)[wrong].mean() > 0.25  # of those, many get their own label back
    assert found.found.quality["given"] == pytest.approx(1 - wrong.mean(), abs=0.05)
    assert found.found.quality["noise"] < found.found.quality["face"]


@every_method
@pytest.mark.parametrize("rule", [Rule(), SURE], ids=["chosen", "fixed"])
def test_without_noise_hardly_anything_changes(rng, method, rule):
    data = clips(rng, n=180, speakers=12, signal=2.5)
    found = refine(data, method=method, rule=rule)
    assert (np.array(found.action) != "keep").mean() <= 0.02


def test_the_doubt_is_chosen_where_it_helps_and_never_where_labels_are_right(rng, monkeypatch):
    """On inner folds: the one whose labels make the best models, here where half of angry is called happy."""
    data = clips(rng, n=240, speakers=12, signal=1.5)
    wrong = (data.labels == 1) & (rng.random(240) < 0.5)
    noisy = changed(data, labels=np.where(wrong, 2, data.labels))
    found = refine(noisy, rule=Rule(doubt=(0.0, 0.5)))
    assert found.thresholds.max() == 0.5 and errors(found, data.labels) < 0.5 * wrong.mean()
    # and a doubt that ruins the labels is not taken: here whoever is doubted gets another's label
    real = refining._decide
    monkeypatch.setattr(
        refining,
        "_decide",
        lambda part, sources, agreed, rule: (
            real(part, sources, agreed, rule)
            if rule.doubt < 0.5
            else dataclasses.replace(
                real(part, sources, agreed, rule), soft=np.eye(3, dtype=np.float32)[(part.labels + 1) % 3]
            )
        ),
    )
    assert refine(data, rule=Rule(doubt=(0.0, 0.5))).thresholds.tolist() == [0, 0, 0]


def test_clips_of_an_inner_fold_are_refined_by_nobody(rng, monkeypatch):
    """Choosing the doubt: who is scored is in no part that was refined, nor are others of their speaker."""
    data, parts, judged, real = clips(rng), [], [], refining.Judges
    decide = refining._decide
    monkeypatch.setattr(refining, "_decide", lambda part, *rest: parts.append(part) or decide(part, *rest))

    class Watched:
        def __init__(self, judge):
            self.judge = judge

        @classmethod
        def fit(cls, *args, **named):
            return cls(real.fit(*args, **named))

        def sources(self, held):
            judged.append(held)
            return self.judge.sources(held)

    monkeypatch.setattr(refining, "Judges", Watched)
    refine(data, rule=Rule(doubt=(0.0, 0.5, 0.7)))
    assert len(judged) == 9 and len(parts) == 10 and len(parts[-1]) == 96  # three folds and doubts; and the result
    for part, held in zip(parts, judged, strict=False):
        assert not set(part.speakers) & set(held.speakers) and len(part) + len(held) == 96


def test_adopting_is_the_consensus_itself_and_filtering_drops_what_it_flags(rng):
    _, noisy = mislabelled(rng)
    for method in ("dawid-skene", "confident-learning"):
        adopted, filtered = (refine(noisy, method=method, rule=rule) for rule in (ADOPT, FILTER))
        heard = ~np.isnan(adopted.found.chances).any(1) & (np.arange(240) != 7)
        assert (adopted.labels == adopted.found.labels)[heard].all() and set(adopted.action) == {"keep", "relabel"}
        flagged = adopted.labels != noisy.labels
        assert ((filtered.weight == 0) == flagged).all() and set(filtered.action) == {"keep", "drop"}


@pytest.fixture
def learned(monkeypatch):
    """What models are fitted on, and what they then say."""
    calls, real = [], refining.models

    def watch(part, *args, **named):
        calls.append((part, real(part, *args, **named)))
        return calls[-1][1]

    monkeypatch.setattr(refining, "models", watch)
    return calls


def test_rounds_fit_the_models_again_without_the_doubted_clips(rng, learned):
    """First those that confident learning flags, then those that the consensus doubts."""
    data, noisy = mislabelled(rng)
    found = refine(noisy, rounds=2, rule=SURE)
    parts = [part for part, _ in learned]
    assert len(parts) == 3 and parts[0].weight is None
    assert all(part.soft is None and (part.labels == noisy.labels).all() for part in parts)
    flagged = confident_issues(noisy.labels, learned[0][1][-1].chances)
    np.testing.assert_array_equal(parts[1].weight, 1 - flagged)
    for part in parts[1:]:
        assert 20 < (part.weight == 0).sum() and (noisy.labels != data.labels)[part.weight == 0].mean() > 0.8
    assert [source.name for source in found.sources] == ["given", *noisy.streams, FUSION]
    assert found.sources[-1] is learned[-1][1][-1]


def test_a_round_leaves_no_class_without_half_of_its_clips(rng, learned, monkeypatch):
    _, noisy = mislabelled(rng)
    monkeypatch.setattr(refining, "confident_issues", lambda labels, _: np.ones(len(labels), bool))
    refine(noisy, rounds=1, rule=SURE)
    weight = learned[1][0].weight
    for label in range(3):
        own = noisy.labels == label
        assert weight[own].sum() == own.sum() - own.sum() // 2


def test_only_ours_has_rounds_of_its_own(rng, learned):
    _, noisy = mislabelled(rng)
    for method, count in (("em", 1 + refining.ROUNDS), ("majority", 1), ("crowdlab", 1)):
        learned.clear()
        refine(noisy, method=method, rule=SURE)
        assert len(learned) == count


# ---- what is written down


def test_the_audit_table(rng):
    _, noisy = mislabelled(rng)
    found = refine(noisy, rule=SURE)
    table = found.audit()
    assert table.columns.tolist() == [
        "id", "given", "refined", "action", "confidence", "weight", "families", "agree", "why",
        "soft_neutral", "soft_angry", "soft_happy", "says_given", "says_face", "says_audio", "says_noise",
        "says_fusion",
    ]  # fmt: skip
    assert sorted(table["id"]) == noisy.ids and table.index.tolist() == list(range(240))
    order = {"relabel": 0, "soften": 1, "down-weight": 2, "drop": 3, "keep": 4}
    place = list(zip(table["action"].map(order), -table["confidence"], strict=True))
    assert place == sorted(place) and set(table["action"]) == {"relabel", "drop", "keep"}
    rows, names = table.set_index("id").loc[noisy.ids], np.array(CLASSES)
    assert (rows["given"] == names[noisy.labels]).all() and (rows["refined"] == names[found.labels]).all()
    assert (rows["why"] == found.why).all() and (rows["weight"] == found.weight).all()
    assert rows.loc["clip007", ["says_face", "says_noise", "says_given"]].tolist() == ["", "", names[noisy.labels[7]]]
    one = rows[rows["action"] == "relabel"].iloc[0]
    assert one["given"] != one["refined"] and one["families"] >= 2 and one["confidence"] > 0.9
    assert set(one["agree"].split(", ")) == {
        name for name in ("given", *noisy.streams, FUSION) if one[f"says_{name}"] == one["refined"]
    }


def test_the_table_of_sources(rng):
    _, noisy = mislabelled(rng)
    given = hard("given", noisy.labels, 3)
    words = [hard("lines", noisy.labels, 3, "words"), hard("songs", np.where(np.arange(240) < 9, 1, -1), 3, "words")]
    for method, named in (("em", ["lines", "songs"]), ("majority", ["words"])):
        table = refine(noisy, [given, *words], method=method, rule=SURE).quality()
        assert table.columns.tolist() == ["source", "family", "quality", "clips"]
        assert table["quality"].is_monotonic_decreasing
        rows = table.set_index("source")
        assert {"given", "face", *named} <= set(rows.index)
        assert rows.loc[named, "family"].tolist() == ["words"] * len(named)
        assert rows.loc[named, "clips"].tolist() == ([240, 9] if method == "em" else [240])
        assert rows.loc["audio", "clips"] == 238


def test_refined_labels_are_for_the_very_clips_they_were_made_of(rng):
    data, noisy = mislabelled(rng)
    found = refine(noisy, rule=SURE)
    applied = found.apply(noisy)
    assert (applied.labels == noisy.labels).all() and applied.ids == noisy.ids
    np.testing.assert_array_equal(applied.targets(), found.soft * found.weight[:, None])
    for other in (
        noisy.select(np.arange(239)),
        noisy.select(np.arange(240)[::-1]),
        changed(data, ids=[f"x{i}" for i in range(240)]),
    ):
        with pytest.raises(DataError, match="other clips"):
            found.apply(other)


def test_a_rule_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=f"'remove'; choose from {', '.join(OTHERWISE)}"):
        Rule(otherwise="remove")


# ---- as a step of cross-validation


def test_the_same_seed_gives_the_same_labels_whatever_was_drawn_before(rng):
    _, noisy = mislabelled(rng)
    first, second, other = (refine(noisy, seed=seed, rule=Rule(doubt=0.5, otherwise="soften")) for seed in (3, 3, 4))
    np.random.seed(5)
    for name in ("labels", "soft", "weight", "thresholds"):
        assert np.array_equal(getattr(first, name), getattr(second, name))
    pd.testing.assert_frame_equal(first.audit(), second.audit(), check_exact=True)
    assert not np.array_equal(first.found.chances, other.found.chances)


def test_worker_processes_do_not_matter(rng):
    """Neither for refinement nor for self-training after it."""
    _, noisy = mislabelled(rng, n=120, speakers=8)
    refiner = Refiner((hard("given", noisy.labels, 3),), tuple(noisy.ids), rule=SURE)
    part = noisy.select(np.arange(80))
    unlabelled = changed(noisy.select(np.arange(80, 120)), labels=np.zeros(40, int), weight=np.zeros(40))
    model, how = ModelSpec("l", "linear-experts"), {"n_folds": 2, "progress": False}
    for step in (refiner, SelfTrainer(unlabelled, (), refiner, Rounds(most=1))):
        one, other = (train.cross_validate(part, model, workers=count, prepare=step, **how) for count in (1, 2))
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_a_refiner_takes_what_voters_say_of_the_training_part(rng):
    data, noisy = mislabelled(rng)
    order = rng.permutation(240)
    truth = hard("oracle", data.labels[order], 3)
    refiner = Refiner((truth,), tuple(np.array(noisy.ids)[order]), rule=SURE)
    part = noisy.select(np.arange(30, 150))
    found = refiner.refined(part, part.speakers, seed=0)
    assert (found.sources[0].says == data.labels[30:150]).all() and found.ids == part.ids
    assert errors(found, data.labels[30:150]) < 0.02
    applied, groups = refiner(part, np.asarray(part.speakers), seed=0, epochs=1)
    assert groups.tolist() == part.speakers and np.array_equal(applied.soft, found.soft)
    with pytest.raises(DataError, match=r"1 clip.*'clip150'.*`ids` of the voters"):
        Refiner((truth.select(order < 150),), tuple(np.array(noisy.ids)[order][order < 150]))(
            noisy.select(np.arange(151)), np.asarray(noisy.speakers[:151]), seed=0, epochs=1
        )


def test_kept_folds_depend_on_everything_that_refinement_depends_on(rng):
    _, noisy = mislabelled(rng)
    voters = (hard("given", noisy.labels, 3),)
    ids = tuple(noisy.ids)
    versions = [
        Refiner(),
        Refiner(voters, ids),
        Refiner((hard("given", noisy.labels[::-1], 3),), ids),
        Refiner((hard("other", noisy.labels, 3),), ids),
        Refiner(voters, ids[::-1]),
        Refiner(method="majority"),
        Refiner(rounds=1),
        Refiner(rule=Rule(doubt=0.5)),
        Refiner(rule=Rule(otherwise="soften")),
        Refiner(fusion=ModelSpec("l", "late-logistic")),
    ]
    abouts = {json.dumps(version.about(), sort_keys=True) for version in versions}
    assert len(abouts) == len(versions) and json.dumps(Refiner().about(), sort_keys=True) in abouts


def test_too_few_clips_for_folds_keep_their_labels(rng):
    """Every clip of another class: nobody can be heard out of fold, and that is no reason to stop."""
    data = clips(rng)
    few = data.select(np.array([np.flatnonzero(data.labels == number)[0] for number in range(len(data.classes))]))
    part, groups = refining.Refiner()(few, np.asarray(few.speakers), seed=0, epochs=1)
    assert part.fingerprint() == few.fingerprint() and list(groups) == few.speakers
    with pytest.raises(refining.DataError, match="too few"):
        refine(few)
