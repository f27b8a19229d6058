"""Self-training: who is taken, how many of each class, when rounds stop, and whose clips stay out."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from fusion_clips import CLASSES, changed, clips, one_hot
from label_votes import mislabelled

from ecmf_lib import self_training
from ecmf_lib.refine import Refiner, Rule
from ecmf_lib.self_training import Rounds, SelfTrainer, choose, self_train
from ecmf_lib.sources import FUSION, Judges, Source, hard

EVEN = np.full(3, 1 / 3)


def without_labels(data):
    return changed(data, labels=np.zeros(len(data), int), weight=np.zeros(len(data)))


def halves(rng, n=160, labelled=60, **how):
    """Labelled clips, the rest without their labels, and the labels of the rest."""
    data = clips(rng, n=n, speakers=10, **{"signal": 2.5} | how)
    rest = data.select(np.arange(labelled, n))
    return data.select(np.arange(labelled)), without_labels(rest), rest.labels


# ---- who is taken


def judged(fused, *streams, families=()):
    """Fusion chances [n, 3] and what each stream says."""
    names = families or [f"s{i}" for i in range(len(streams))]
    found = [hard(f"s{i}", labels, 3, name) for i, (labels, name) in enumerate(zip(streams, names, strict=True))]
    return [*found, Source(FUSION, FUSION, np.array(fused, float))]


def sure(label, chance=0.9):
    return [chance if i == label else (1 - chance) / 2 for i in range(3)]


def test_streams_must_agree_and_the_fusion_be_sure():
    fused = [sure(0), sure(0), sure(1), sure(1, 0.49), sure(2), sure(2)]
    rows, labels = choose(
        judged(fused, [0, 0, 1, 1, 2, 2], [0, 1, 1, 1, -1, 0], [2, 2, 0, 1, -1, -1]), EVEN, 3.0, Rounds(families=2)
    )
    # agreement of two; one only; two; unsure; its only stream; one of its two
    assert rows.tolist() == [0, 2, 4] and labels.tolist() == [0, 1, 2] and labels.dtype == np.int64


def test_a_clip_without_any_stream_is_never_taken():
    """The fusion of nothing is even, or may even seem sure."""
    for fused in (sure(0), [1 / 3] * 3, [np.nan] * 3):
        rows, _ = choose(judged([fused, sure(1)], [-1, 1]), EVEN, 3.0, Rounds(families=0, confidence=0.0))
        assert rows.tolist() == [1]


def test_streams_of_one_family_count_once():
    fused, says = [sure(0), sure(0)], ([0, 0], [0, 0], [-1, 1])
    apart, _ = choose(judged(fused, *says), EVEN, 3.0, Rounds(families=2))
    together, _ = choose(judged(fused, *says, families=["text", "text", "face"]), EVEN, 3.0, Rounds(families=2))
    assert apart.tolist() == [0, 1] and together.tolist() == [0]  # the first has one family only, which is enough


def test_every_class_gets_its_share_the_surest_first(rng):
    chance = rng.uniform(0.6, 1.0, 200)
    label = np.repeat([0, 1, 2], [150, 40, 10])
    found = judged([sure(k, p) for k, p in zip(label, chance, strict=True)], label, label)
    rows, labels = choose(found, np.array([0.2, 0.3, 0.5]), 0.5, Rounds())
    assert np.bincount(labels).tolist() == [20, 30, 10]  # a fifth and three tenths of a hundred, and all there are
    assert (np.diff(rows) > 0).all() and (label[rows] == labels).all()
    for number in (0, 1):
        own = label == number
        assert chance[rows[labels == number]].min() > np.sort(chance[own])[::-1][20 + 10 * number]


def test_shares_follow_the_classes_of_the_labelled_clips(rng):
    data, unlabelled, _ = halves(rng)
    few = np.flatnonzero(data.labels != 2)
    data = data.select(np.concatenate([few, np.flatnonzero(data.labels == 2)[:5]]))
    judge = self_training.Judges.fit(data, data.speakers, seed=2)
    rounds = Rounds(most=4, share=0.6)
    chosen = self_training._chosen(data, unlabelled, judge, 2, rounds)
    found = self_training._with_pseudo(data, np.asarray(data.speakers), unlabelled, chosen, rounds)[0]
    prior = np.bincount(data.labels) / len(data)
    counts = np.bincount(found.labels[len(data) :], minlength=3)
    assert (counts <= np.floor(prior * 0.3 * len(unlabelled))).all() and counts[:2].min() > 5 > counts[2] > 0


# ---- what comes of it


@pytest.fixture
def scored(monkeypatch):
    """Rounds with made-up honest scores."""

    def with_scores(*values):
        rows = [{"honest": value, "honest_low": value - 0.1, "honest_high": value + 0.1} for value in values]
        monkeypatch.setattr(self_training, "_honest_rounds", lambda *_: rows)

    return with_scores


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        ((0.7, 0.71, 0.72, 0.71), 2),
        ((0.7, 0.7, 0.8, 0.9), 0),  # stops where the score does not rise
        ((0.7, 0.69, 0.9, 0.9), 0),
        ((0.7, 0.8, 0.8, 0.9), 1),
        ((0.7, 0.8, 0.9, 0.95), 3),
    ],
)
def test_a_round_that_does_not_raise_the_honest_score_is_not_used(rng, scored, scores, chosen):
    data, unlabelled, truth = halves(rng)
    scored(*scores)
    found = self_train(data, data.speakers, unlabelled, rounds=Rounds(most=3))
    assert found.rounds.columns.tolist() == [
        "round", "added", "honest", "honest_low", "honest_high", "trap", "chosen",
    ]  # fmt: skip
    assert found.rounds["round"].tolist() == list(range(chosen + 1)) and found.rounds["trap"].isna().all()
    assert found.rounds["chosen"].tolist() == [False] * chosen + [True]
    assert found.rounds["honest"].tolist() == list(scores[: chosen + 1])
    assert found.rounds["added"].is_monotonic_increasing and found.rounds["added"].iloc[0] == 0
    assert len(found.data) == len(data) + found.rounds["added"].iloc[-1] and len(found.groups) == len(found.data)
    if not chosen:
        assert found.data is data and found.groups == data.speakers and found.pseudo.empty
    else:
        place = {clip: row for row, clip in enumerate(unlabelled.ids)}
        right = [
            CLASSES[truth[place[clip]]] == label
            for clip, label in zip(found.pseudo["id"], found.pseudo["label"], strict=True)
        ]
        assert np.mean(right) > 0.95 and found.groups[len(data) :] == [
            unlabelled.speakers[place[clip]] for clip in found.pseudo["id"]
        ]


def test_labelled_clips_stay_as_they_were(rng, scored):
    """Their refined targets and weights too."""
    data, unlabelled, _ = halves(rng)
    soft, weight = rng.dirichlet(np.ones(3), 60).astype("f4"), rng.random(60).astype("f4")
    data = changed(data, soft=0.5 * soft + 0.5 * one_hot(data.labels), weight=weight)
    before = changed(data)
    scored(0.5, 0.6, 0.7)
    found = self_train(data, data.speakers, unlabelled, rounds=Rounds(most=2, weight=0.25))
    own, new = found.data.select(np.arange(60)), found.data.select(np.arange(60, len(found.data)))
    for name in ("labels", "soft", "weight"):
        np.testing.assert_array_equal(getattr(own, name), getattr(before, name))
    assert own.ids == data.ids and own.fingerprint() == data.fingerprint()
    assert len(new) > 10 and set(new.ids) <= set(unlabelled.ids) and (new.weight == 0.25).all()
    np.testing.assert_array_equal(new.soft, one_hot(new.labels))
    assert found.pseudo.columns.tolist() == ["id", "label", "weight"] and found.pseudo["id"].tolist() == new.ids
    assert (unlabelled.labels == 0).all() and (unlabelled.weight == 0).all()


def test_noise_is_not_learned_from(rng):
    """Clips that show nothing, judged by models that know nothing: no round is better than none but by chance."""
    data, unlabelled, _ = halves(rng, signal=0.0)
    found = self_train(data, data.speakers, unlabelled, rounds=Rounds(most=1, confidence=0.34, families=1))
    scores = found.rounds.set_index("round")["honest"]
    assert scores[0] < 0.55 and found.rounds.loc[found.rounds["chosen"], "honest"].item() == scores.max()


def test_what_is_taken_is_more_often_right_than_what_is_left(rng, scored):
    data, unlabelled, truth = halves(rng, n=300, signal=0.6)
    scored(0.5, 0.6)
    found = self_train(data, data.speakers, unlabelled, rounds=Rounds(most=1, share=0.5))
    taken = np.isin(unlabelled.ids, found.pseudo["id"])
    said = Judges.fit(data, data.speakers, seed=1).sources(unlabelled)[-1].says
    assert 30 < taken.sum() <= 120 and (found.data.labels[len(data) :] == said[taken]).all()
    assert (said == truth)[taken].mean() > (said == truth)[~taken].mean() + 0.1


def test_the_trap_is_measured_for_all_rounds(rng, scored):
    data, unlabelled, _ = halves(rng, signal=1.5)
    scored(0.7, 0.6, 0.5)
    found = self_train(data, data.speakers, unlabelled, rounds=Rounds(most=2), trap=True)
    assert found.rounds["round"].tolist() == [0, 1, 2] and found.rounds["chosen"].tolist() == [True, False, False]
    assert found.rounds["trap"].between(0, 1).all() and found.data is data
    assert found.rounds["trap"].iloc[-1] > found.rounds["trap"].iloc[0]  # rises whether or not anything was learned


def test_the_same_again(rng):
    data, unlabelled, _ = halves(rng, signal=1.5)
    one, other = (self_train(data, data.speakers, unlabelled, seed=1, rounds=Rounds(most=1)) for _ in range(2))
    pd.testing.assert_frame_equal(one.rounds, other.rounds, check_exact=True)
    assert one.data.fingerprint() == other.data.fingerprint() and one.groups == other.groups


# ---- the honest score


def test_the_honest_score_is_on_given_labels_whatever_is_trained_on(rng):
    data, unlabelled, _ = halves(rng)
    rounds = Rounds(most=1)
    plain, turned = (
        self_training._honest_rounds(version, np.asarray(data.speakers), unlabelled, 0, rounds)
        for version in (data, changed(data, soft=one_hot((data.labels + 1) % 3)))
    )
    assert len(plain) == 2 and min(found["honest"] for found in plain) > 0.85
    assert max(found["honest"] for found in turned) < 0.15  # learns the turned labels, is scored on the given ones


def test_whoever_is_scored_has_no_clip_among_the_pseudo_labelled(rng, monkeypatch):
    data, unlabelled, _ = halves(rng)
    scored, real = [], self_training.Judges

    class Watched:
        """Judges that note who was trained on when labelled clips, those to be scored, are judged."""

        @staticmethod
        def fit(part, groups, **named):
            judge = real.fit(part, groups, **named)

            def sources(others):
                if set(others.ids) <= set(data.ids):
                    scored.append((part, others))
                return judge.sources(others)

            return SimpleNamespace(sources=sources)

    monkeypatch.setattr(self_training, "Judges", Watched)
    self_training._honest_rounds(data, np.asarray(data.speakers), unlabelled, 0, Rounds(most=1))
    assert len(scored) == 6  # three folds, without and with a round
    for part, others in scored:
        assert not set(part.speakers) & set(others.speakers)
    assert all(set(part.ids) & set(unlabelled.ids) for part, _ in scored[1::2])


# ---- as a step of cross-validation


@pytest.fixture
def handed(monkeypatch):
    """What self_train is called with."""
    calls, real = [], self_training.self_train
    monkeypatch.setattr(self_training, "self_train", lambda *args, **named: calls.append(args) or real(*args, **named))
    return calls


def test_speakers_that_are_scored_keep_their_unlabelled_clips_out(rng, handed):
    data, unlabelled, _ = halves(rng)
    unlabelled = changed(unlabelled, speakers=[s if i % 4 else "stranger" for i, s in enumerate(unlabelled.speakers)])
    part = data.select(np.array([speaker not in ("s0", "s1") for speaker in data.speakers]))
    step = SelfTrainer(unlabelled, tuple(data.speakers), rounds=Rounds(most=1))
    trained, groups = step(part, np.asarray(part.speakers), seed=0, epochs=1)
    ((_, apart, others),) = handed
    assert list(apart) == part.speakers and len(trained) == len(groups)
    assert set(others.speakers) == set(unlabelled.speakers) - {"s0", "s1"} and "stranger" in others.speakers
    assert not {"s0", "s1"} & set(groups)


def test_without_clips_of_other_speakers_nothing_is_done(rng, handed):
    data, unlabelled, _ = halves(rng)
    part = data.select(np.array([speaker != "s0" for speaker in data.speakers]))
    step = SelfTrainer(changed(unlabelled, speakers=["s0"] * len(unlabelled)), tuple(data.speakers))
    trained, groups = step(part, np.asarray(part.speakers), seed=0, epochs=1)
    assert trained is part and list(groups) == part.speakers and not handed


def test_refinement_comes_first(rng, handed):
    _, noisy = mislabelled(rng, n=160, speakers=10)
    part, rest = noisy.select(np.arange(100)), without_labels(noisy.select(np.arange(100, 160)))
    step = SelfTrainer(rest, (), Refiner(rule=Rule(doubt=0.5)), Rounds(most=1))
    trained, _ = step(part, np.asarray(part.speakers), seed=0, epochs=1)
    seed_part = handed[0][0]
    assert (seed_part.labels == part.labels).all() and (seed_part.targets().sum(1) == 0).any()
    assert (trained.labels[:100] == part.labels).all() and np.array_equal(trained.targets()[:100], seed_part.targets())


def test_kept_folds_depend_on_everything_that_self_training_depends_on(rng):
    data, unlabelled, _ = halves(rng)
    versions = [
        SelfTrainer(unlabelled),
        SelfTrainer(unlabelled.select(np.arange(50))),
        SelfTrainer(unlabelled, tuple(data.speakers)),
        SelfTrainer(unlabelled, (), Refiner()),
        SelfTrainer(unlabelled, (), Refiner(method="majority")),
        *(SelfTrainer(unlabelled, rounds=rounds) for rounds in (
            Rounds(most=1), Rounds(share=0.1), Rounds(families=1), Rounds(confidence=0.1), Rounds(weight=0.1)
        )),
    ]  # fmt: skip
    assert len({json.dumps(version.about(), sort_keys=True) for version in versions}) == len(versions)


# ---- resuming


def test_kept_rounds_are_read_again_and_give_the_same(rng, tmp_path, monkeypatch):
    data, unlabelled, _ = halves(rng)
    asked = {"seed": 3, "rounds": Rounds(most=2)}
    plain = self_train(data, data.speakers, unlabelled, **asked)
    fitted, real = [], Judges.fit.__func__
    monkeypatch.setattr(Judges, "fit", classmethod(lambda cls, *a, **k: fitted.append(k) or real(cls, *a, **k)))
    first = self_train(data, data.speakers, unlabelled, folder=tmp_path, **asked)
    whole, files = len(fitted), sorted(tmp_path.glob("*.json"))
    assert whole == len(files) >= 9, "three folds with no, one and two rounds"
    fitted.clear()
    again = self_train(data, data.speakers, unlabelled, folder=tmp_path, **asked)
    assert not fitted, "nothing is fitted twice"
    files[0].write_text(files[0].read_text()[:20])
    files[-1].unlink()
    mended = self_train(data, data.speakers, unlabelled, folder=tmp_path, **asked)
    assert len(fitted) == 2 and sorted(tmp_path.glob("*.json")) == files
    for found in (first, again, mended):
        pd.testing.assert_frame_equal(found.rounds, plain.rounds, check_exact=True)
        assert found.data.fingerprint() == plain.data.fingerprint() and found.groups == plain.groups


def test_rounds_of_another_training_part_or_setting_are_others(rng, tmp_path):
    data, unlabelled, _ = halves(rng)
    run = {"seed": 3, "rounds": Rounds(most=1), "folder": tmp_path}
    versions = [
        (data, unlabelled, run),
        (data.select(np.arange(50)), unlabelled, run),
        (data, unlabelled.select(np.arange(60)), run),
        (data, unlabelled, run | {"seed": 4}),
        (data, unlabelled, run | {"rounds": Rounds(most=1, weight=0.1)}),
    ]
    for number, (part, rest, how) in enumerate(versions, 1):
        self_train(part, part.speakers, rest, **how)
        assert len({path.name.split("-fold")[0].split("-all")[0] for path in tmp_path.glob("*.json")}) == number
