"""The study of notebook 04: who speaks of the clips, what refinement does to them, and whether it helps."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from fusion_clips import CLASSES, NEURAL, changed, clips, one_hot
from label_votes import classifier, mislabelled, person
from sklearn.metrics import cohen_kappa_score

from ecmf_lib import study_labels, train
from ecmf_lib.config import FuseSettings
from ecmf_lib.consensus import METHODS, consensus
from ecmf_lib.corpus import Corpus
from ecmf_lib.fit import ModelSpec
from ecmf_lib.refine import Refiner, Rule, decided, refine
from ecmf_lib.review_csv import ReviewError
from ecmf_lib.self_training import Rounds, SelfTrainer
from ecmf_lib.sources import digest, hard
from ecmf_lib.study import REFERENCE, Study, parts
from ecmf_lib.study_labels import GIVEN, REFINED, SELF_TRAINED, Hidden, components, label_steps

EXPERTS = ModelSpec("linear experts", "linear-experts")
#: Drops every clip that the consensus doubts.
EAGER = Rule(doubt=0.9, relabel=2.0, per_class=False)


@pytest.fixture
def all_clips(rng):
    """108 clips of 12 speakers: the first 84 are labelled (a fifth of them wrongly), the others are not."""
    return mislabelled(rng, n=108, speakers=12, signal=2.5)[1]


@pytest.fixture
def data(all_clips):
    return all_clips.select(np.arange(84))


@pytest.fixture
def case(data, tmp_path, monkeypatch):
    monkeypatch.setenv("ECMF_DATA", str(tmp_path))
    settings = FuseSettings(folds=2, seeds=1, side_seeds=1, epochs=1, workers=1, trials=0, bootstrap=50, steps=0)
    return Study(data, None, "speaker", None, settings)


def project_of(found, labelled, **columns):
    """A project of these clips, as far as label studies look at one: those behind the labelled ones are unlabelled."""
    known = np.arange(len(found)) < labelled
    table = pd.DataFrame(
        {
            "id": found.ids,
            "label": np.where(known, np.array(found.classes)[found.labels], ""),
            "split": np.where(known, "labelled", "unlabelled"),
            "speaker": found.speakers,
            **columns,
        }
    )
    place = {clip: row for row, clip in enumerate(found.ids)}

    def matrix(stream):
        return lambda ids: tuple(
            array[[place[clip] for clip in ids]] for array in (found.streams[stream], found.present[stream])
        )

    sets = {stream: SimpleNamespace(level="clip", matrix=matrix(stream)) for stream in found.streams}
    ledger = pd.DataFrame({"id": found.ids, "status": "done"})
    corpus = Corpus("made", None, table, found.classes)
    return SimpleNamespace(corpus=corpus, sets=sets, ledger=ledger, enriched=None)


@pytest.fixture
def project(all_clips):
    return project_of(all_clips, 84)


def predictions_of(run):
    return run.drop(columns="model").reset_index(drop=True)


# ---- who speaks


def test_annotators_the_given_label_a_language_model_and_files_all_speak(all_clips, tmp_path):
    seen = ["happy", "", *[""] * 106]
    project = project_of(all_clips, 84, annotator_1=seen)
    scores = pd.DataFrame({"id": ["clip001", "clip099"], **{f"score_{name}": [1.0, 0] for name in CLASSES}})
    scores.loc[0, "score_angry"] = 2
    project.enriched = scores
    (tmp_path / "mine.csv").write_text("id,label\nclip002,angry\nclip099,happy\n", encoding="utf-8")
    (tmp_path / "heard.csv").write_text("id,neutral,angry,happy\nclip000,1,1,2\n", encoding="utf-8")
    ids = ["clip002", "clip001", "clip000"]  # not the order of the manifest
    csvs = [f"{tmp_path}/mine.csv", f"audio={tmp_path}/heard.csv"]
    found = {source.name: source for source in study_labels.voters_of(project, ids, csvs)}
    assert list(found) == ["given", "annotator_1", "language model", "mine", "heard"]
    assert [source.family for source in found.values()] == ["given", "annotator_1", "text", "mine", "audio"]
    given = all_clips.labels[[2, 1]].tolist()
    assert found["given"].says.tolist() == [*given, -1], "an annotator has seen clip000"
    assert found["annotator_1"].says.tolist() == [-1, -1, 2]
    np.testing.assert_allclose(found["language model"].chances[1], [0.25, 0.5, 0.25])
    assert found["mine"].says.tolist() == [1, -1, -1]
    np.testing.assert_allclose(found["heard"].chances[2], [0.25, 0.25, 0.5])


def test_agreement_is_kappa_on_the_clips_that_both_speak_of(rng):
    truth = rng.integers(0, 3, 60)
    voters = [person(rng, name, truth, right, 3, abstains=0.3) for name, right in (("a", 0.9), ("b", 0.7), ("c", 0.5))]
    elsewhere = np.where(voters[0].speaks, -1, truth)
    table = study_labels.pairwise_agreement([*voters, hard("d", elsewhere, 3)]).set_index(["source", "other"])
    assert ("a", "d") not in table.index and len(table) == 5, "a and d have no clip in common"
    a, b = voters[0].says, voters[1].says
    both = (a >= 0) & (b >= 0)
    row = table.loc[("a", "b")]
    assert row["clips"] == both.sum() < 60
    assert row["kappa"] == pytest.approx(cohen_kappa_score(a[both], b[both]))
    assert row["agreement"] == pytest.approx((a[both] == b[both]).mean())
    alike = study_labels.pairwise_agreement([hard("a", [1, 1], 3), hard("b", [1, 1], 3)]).iloc[0]
    assert alike["agreement"] == 1 and np.isnan(alike["kappa"]), "of a single class kappa is not defined"
    assert list(study_labels.pairwise_agreement([voters[0]]).columns)[-1] == "kappa"


# ---- what refinement says


def told(given, chances, sources=()):
    found = SimpleNamespace(chances=np.array(chances, float))
    return SimpleNamespace(classes=CLASSES, given=np.array(given), found=found, sources=list(sources))


def test_the_joint_counts_every_given_label_once():
    given = [0, 0, 1, 2, 2, 2]
    chances = [[0.6, 0.4, 0], [0.2, 0.8, 0], [0, 1, 0], [np.nan] * 3, [0.5, 0, 0.5], [0, 0.1, 0.9]]
    joint = study_labels.joint(told(given, chances))
    assert joint.index.tolist() == joint.columns.tolist() == list(CLASSES)
    assert joint.sum(axis=1).tolist() == pytest.approx([2, 1, 3])
    assert joint.loc["neutral"].tolist() == pytest.approx([0.8, 1.2, 0])
    assert joint.loc["happy"].tolist() == pytest.approx([0.5, 0.1, 2.4]), "where nobody speaks the given label counts"


def test_methods_hear_the_same_sources(rng):
    truth = np.arange(90) % 3
    given = np.where(rng.random(90) < 0.3, (truth + 1) % 3, truth)
    silent = np.arange(90) < 2
    voters = [hard("given", given, 3), *(person(rng, name, truth, 0.8, 3) for name in "ab")]
    voters = [hard(v.name, np.where(silent, -1, v.says), 3) for v in voters]
    refined = told(given, one_hot(given), [*voters, classifier(rng, truth, 3)])
    data = SimpleNamespace(labels=given)
    table = study_labels.methods_compared(data, refined, voters, truth).set_index("method")
    assert list(table.index) == list(METHODS)
    assert (table["given_error"] == (given != truth).mean()).all()
    votes = consensus(refined.sources, ["given", "a", "b"], "majority").labels
    votes = np.where(votes < 0, given, votes)
    assert table.loc["majority", "changed"] == (votes != given).mean() > 0
    assert table.loc["majority", "error"] == (votes != truth).mean() < (given != truth).mean()
    assert list(study_labels.methods_compared(data, refined, voters, None).columns) == ["method", "changed"]


def test_against_the_truth_by_hand():
    rows = [  # given, refined, action, weight; the truth is a
        ("a", "a", "keep", 1.0),
        ("a", "a", "keep", 1.0),
        ("a", "a", "drop", 0.0),  # a false alarm
        ("b", "a", "relabel", 1.0),  # mended
        ("b", "c", "relabel", 1.0),  # found, but not mended
        ("b", "b", "drop", 0.0),  # found
        ("b", "b", "keep", 1.0),  # missed
        ("b", "b", "keep", 1.0),  # missed
    ]
    audit = pd.DataFrame(rows, columns=["given", "refined", "action", "weight"])
    audit.insert(0, "id", [f"c{i}" for i in range(8)])
    truth = pd.Series("a", index=[f"c{i}" for i in reversed(range(9))])
    found = study_labels.against_truth(audit, truth).iloc[0].to_dict()
    assert found == {
        "clips": 8,
        "given_error": 5 / 8,
        "refined_error": 4 / 8,
        "kept_error": 3 / 6,
        "flagged": 4,
        "precision": 3 / 4,
        "recall": 3 / 5,
    }
    right = study_labels.against_truth(audit.iloc[:2], truth).iloc[0]
    assert right["given_error"] == 0 and np.isnan(right[["precision", "recall"]].astype(float)).all()


# ---- clips without a label


def test_unlabelled_clips_are_those_that_are_done_and_have_a_stream(all_clips, project, data):
    project.ledger.loc[project.ledger["id"] == "clip090", "status"] = "failed"
    absent = {name: there & (np.array(all_clips.ids) != "clip091") for name, there in all_clips.present.items()}
    project.sets = project_of(changed(all_clips, present=absent), 84).sets
    project.corpus.clips.loc[95, "speaker"] = ""
    found = study_labels.unlabelled_of(project, data.only(["audio", "face"]))
    assert found.ids == [clip for clip in all_clips.ids[84:] if clip not in ("clip090", "clip091")]
    assert list(found.streams) == ["audio", "face"]
    row = found.ids.index("clip096")
    np.testing.assert_array_equal(found.streams["face"][row], all_clips.streams["face"][96])
    assert found.speakers[row] == all_clips.speakers[96]
    assert found.speakers[found.ids.index("clip095")] == "clip:clip095", "nobody knows who it is: a group of its own"
    assert not found.targets().any(), "nothing can be learned from them"


def test_without_unlabelled_clips_there_are_none(all_clips, data):
    assert study_labels.unlabelled_of(project_of(data, 84), data) is None
    failed = project_of(all_clips, 84)
    failed.ledger.loc[84:, "status"] = "failed"
    assert study_labels.unlabelled_of(failed, data) is None
    mute = {name: there & (np.arange(108) < 84) for name, there in all_clips.present.items()}
    assert study_labels.unlabelled_of(project_of(changed(all_clips, present=mute), 84), data) is None


# ---- steps and arms


def test_steps_of_each_kind_of_labels(case, project, all_clips, data, tmp_path):
    steps = label_steps(case, project, method="majority")
    assert list(steps) == [GIVEN, REFINED, SELF_TRAINED] and steps[GIVEN] is None
    refiner, trainer = steps[REFINED], steps[SELF_TRAINED]
    assert isinstance(refiner, Refiner) and refiner.method == "majority" and refiner.ids == tuple(data.ids)
    assert digest(refiner.voters) == digest(study_labels.voters_of(project, data.ids))
    assert isinstance(trainer, SelfTrainer) and trainer.first is refiner
    assert trainer.unlabelled.ids == all_clips.ids[84:] and trainer.labelled_groups == tuple(data.speakers)
    assert list(label_steps(case, project_of(data, 84))) == [GIVEN, REFINED], "nothing to train itself on"

    (tmp_path / "mine.csv").write_text("id,label\nclip002,angry\n", encoding="utf-8")
    more = label_steps(case, project, csvs=[f"{tmp_path}/mine.csv"])[REFINED]
    assert [voter.name for voter in more.voters] == ["given", "mine"] and more.about() != refiner.about()


def written(path, decisions):
    rows = [f"{clip},{decision}," for clip, decision in decisions.items()]
    path.write_text("\n".join(["id,decision,note", *rows]) + "\n", encoding="utf-8")
    return str(path)


def test_a_humans_decisions_win_over_the_rule(data):
    half = one_hot(data.labels) * 0.5 + 1 / 6
    ruled = changed(data, soft=half, weight=np.where(np.arange(84) < 40, 0, 0.5))
    new = (data.labels[1] + 1) % 3
    decisions = {"clip001": CLASSES[new], "clip002": "keep", "clip050": "drop", "elsewhere": "drop"}
    found = decided(ruled, decisions)
    expected, weight = half.copy(), ruled.weight.copy()
    expected[[1, 2, 50]] = one_hot([new, data.labels[2], data.labels[50]])
    weight[[1, 2, 50]] = 1, 1, 0
    np.testing.assert_allclose(found.soft, expected)
    np.testing.assert_allclose(found.weight, weight)
    assert (found.labels == data.labels).all() and ruled.weight[1] == 0, "neither labels nor what was given change"
    plain = decided(data, {"clip001": "drop"})
    np.testing.assert_array_equal(plain.soft, one_hot(data.labels))
    assert plain.weight[1] == 0 and plain.weight.sum() == 83
    assert decided(data, {"elsewhere": "drop"}) is data


def test_a_humans_decisions_reach_training_and_nothing_that_is_scored(case, project, data, tmp_path, monkeypatch):
    ruled = refine(data, [hard("given", data.labels, 3)], method="em", rule=EAGER)
    by = {
        action: [clip for clip, a in zip(data.ids, ruled.action, strict=True) if a == action] for action in ruled.action
    }
    dropped, kept = by["drop"], by["keep"]
    new = CLASSES[(data.labels[data.ids.index(kept[1])] + 1) % 3]
    decisions = {dropped[0]: "keep", kept[0]: "drop", kept[1]: new, dropped[1]: "keep", kept[2]: "drop"}
    steps = label_steps(case, project, review=written(tmp_path / "review.csv", decisions))
    plain = label_steps(case, project)[REFINED]
    assert steps[REFINED].decisions == tuple(decisions.items()) and steps[SELF_TRAINED].first is steps[REFINED]
    assert steps[REFINED].about() != plain.about(), "kept folds depend on them"

    trained, fit = [], train.fit
    monkeypatch.setattr(train, "fit", lambda part, *a, **k: trained.append(part) or fit(part, *a, **k))
    step = replace(steps[REFINED], rule=EAGER)
    run = case.cross_validated(data, EXPERTS, prepare=step, progress=False)
    assert run.set_index("id").loc[data.ids, "label"].tolist() == [CLASSES[label] for label in data.labels]
    assert len(trained) == 2 and sum(len(part) for part in trained) == 84
    for part in trained:
        for clip in set(decisions) & set(part.ids):
            row, decision = part.ids.index(clip), decisions[clip]
            label = CLASSES.index(decision) if decision in CLASSES else part.labels[row]
            expected = np.zeros(3) if decision == "drop" else np.eye(3)[label]
            assert part.targets()[row].tolist() == expected.tolist(), (clip, decision)
        assert (np.delete(part.weight, [part.ids.index(c) for c in set(decisions) & set(part.ids)]) == 0).any()


def test_decisions_on_unknown_clips_are_refused(case, project, tmp_path):
    with pytest.raises(ReviewError, match="no such clip"):
        label_steps(case, project, review=written(tmp_path / "review.csv", {"clip090": "drop"}))


def test_arms_share_folds_and_given_labels_are_the_very_model_of_the_parts(case, project, data, tmp_path, monkeypatch):
    small = dict(NEURAL, members=1)
    monkeypatch.setattr(study_labels, "ModelSpec", lambda name, kind: ModelSpec(name, kind, options=small))
    review = written(tmp_path / "review.csv", dict.fromkeys(data.ids[10:30], "drop"))
    arms = study_labels.label_arms(case, project, method="majority", review=review)
    assert list(arms) == [f"{REFERENCE}, {labels}" for labels in (GIVEN, REFINED, SELF_TRAINED)]
    assert all(set(run["model"]) == {name} for name, run in arms.items())
    given, refined, trained = arms.values()
    alone = case.cross_validated(data, ModelSpec(REFERENCE, "ecmf", options=small))
    pd.testing.assert_frame_equal(predictions_of(given), predictions_of(alone))
    for run in (refined, trained):  # the human's decisions count in both
        assert (run[["id", "fold", "label"]] == given[["id", "fold", "label"]]).all(axis=None)
        assert not np.allclose(run["p_happy"], given["p_happy"])


# ---- hidden labels


def test_hidden_clips_are_a_share_drawn_by_the_seed(data):
    groups = np.asarray(data.speakers)
    few, apart, rest = Hidden(0.75, None).split(data, groups, 3)
    assert (len(few), len(rest)) == (21, 63) and sorted(few.ids + rest.ids) == data.ids
    own = {clip: (label, group) for clip, label, group in zip(data.ids, data.labels, groups, strict=True)}
    assert [own[clip] for clip in few.ids] == list(zip(few.labels, apart, strict=True))
    assert rest.speakers == [own[clip][1] for clip in rest.ids]
    assert not rest.labels.any() and not rest.targets().any(), "their labels are gone"
    again, other = (Hidden(0.75, None).split(data, groups, seed)[0] for seed in (3, 4))
    assert again.ids == few.ids != other.ids


def test_hidden_clips_come_back_with_pseudo_labels_where_there_are_rounds(rng):
    data = clips(rng, n=120, speakers=12, signal=3)
    groups = np.asarray(data.speakers)
    few, apart = Hidden(0.5, None)(data, groups, seed=0, epochs=1)
    assert len(few) == len(apart) == 60 and few.weight is None
    rounds = Rounds(most=1, confidence=0.3, families=1)
    kept, _, rest = Hidden(0.5, rounds).split(data, groups, 0)
    assert kept.ids == few.ids
    expected = study_labels.self_train(kept, apart, rest, seed=0, rounds=rounds).data
    found, more = Hidden(0.5, rounds)(data, groups, seed=0, epochs=1)
    assert found.ids == expected.ids and len(more) == len(found)
    assert found.ids[:60] == few.ids and set(found.ids[60:]) <= set(rest.ids)
    about = [Hidden(share, r).about() for share, r in ((0.5, None), (0.6, None), (0.5, rounds), (0.5, Rounds()))]
    assert len({str(one) for one in about}) == 4


def test_hidden_labels_has_three_arms_and_the_rounds_of_a_fold(case, data):
    runs, rounds = study_labels.hidden_labels(case, 0.5, rounds=Rounds(most=1), spec=EXPERTS)
    assert list(runs) == ["50% of the labels", "the same + self-training", "all labels"]
    labels = [run.set_index("id").loc[data.ids, "label"].tolist() for run in runs.values()]
    assert labels == [[CLASSES[label] for label in data.labels]] * 3, "scored are the given labels, hidden or not"
    few, _, whole = runs.values()
    assert (few["trained_on"] == whole["trained_on"]).all(), "counted before any label is hidden"
    assert not np.allclose(few["p_happy"], whole["p_happy"])
    assert rounds["round"].tolist() == [0, 1] and rounds["chosen"].sum() == 1 and rounds["trap"].notna().all()
    plain = case.cross_validated(data, EXPERTS, seeds=case.seeds(side=True))
    pd.testing.assert_frame_equal(predictions_of(whole), predictions_of(plain))


# ---- what is shown


def test_what_a_component_adds_is_what_its_absence_costs():
    columns = ["model", "difference", "difference_low", "difference_high"]
    rows = [("ECMF", np.nan, np.nan, np.nan), ("without audio", -0.1, -0.3, 0.05), ("without face", 0.02, -0.01, 0.04)]
    arms = [("given", np.nan, np.nan, np.nan), ("refined", 0.03, -0.01, 0.06)]
    arms = [(f"ECMF, {name} labels", *row) for name, *row in arms]
    table = components(pd.DataFrame(rows, columns=columns), pd.DataFrame(arms, columns=columns))
    expected = [
        ("faces", -0.02, -0.04, 0.01, "without face"),
        ("audio", 0.1, -0.05, 0.3, "without audio"),
        ("label refinement", 0.03, -0.01, 0.06, "refined labels"),
    ]
    assert list(table.itertuples(index=False, name=None)) == expected
    both = [*arms, (f"ECMF, {SELF_TRAINED}", 0.05, 0.01, 0.08)]
    last = components(pd.DataFrame(rows, columns=columns), pd.DataFrame(both, columns=columns)).iloc[-1]
    assert last.tolist() == ["… with self-training", 0.05, 0.01, 0.08, SELF_TRAINED]


def test_components_name_rows_that_the_table_of_parts_has(data, case):
    streams = dict(zip(("global", "face", "audio", "text", "enrichment"), [data.streams["face"]] * 5, strict=True))
    there = {name: data.present["face"] for name in streams}
    rows = [spec.name for spec in parts(replace(case, data=changed(data, streams=streams, present=there)))]
    assert set(study_labels.COMPONENTS.values()) <= set(rows)


def test_pictures_and_words_are_in_the_order_asked_for(monkeypatch):
    words = {"a": "one", "b": "two", "c": ""}
    corpus = SimpleNamespace(clip=lambda name: SimpleNamespace(id=name, transcript=words[name]))
    monkeypatch.setattr(study_labels, "middle_frame", lambda clip: None if clip.id == "c" else clip.id)
    found = study_labels.pictures_and_words(SimpleNamespace(corpus=corpus), pd.Series(["c", "b", "a"]))
    assert found == ([None, "b", "a"], ["", "two", "one"])
