"""Scores agree with scikit-learn, intervals cover, comparisons are fair, and what cannot be scored is refused."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, f1_score
from statsmodels.stats.contingency_tables import mcnemar

from ecmf_lib import evaluate

CLASSES = ("neutral", "angry", "happy")


def predictions(rng, *, speakers=12, clips=10, right=0.7, seeds=(0,), spread=0.0, model="m"):
    """Simulated table: each clip is right with probability `right` plus the speaker's own shift."""
    ids = [f"clip{i:04d}" for i in range(speakers * clips)]
    speaker = np.repeat(np.arange(speakers), clips)
    labels = np.arange(len(ids)) % 3
    chance = np.clip(right + rng.normal(0, spread, speakers)[speaker], 0.02, 0.98)
    tables = []
    for seed in seeds:
        guess = np.where(rng.random(len(ids)) < chance, labels, (labels + rng.integers(1, 3, len(ids))) % 3)
        tables.append(table_of(ids, speaker, labels, guess, seed, model))
    return pd.concat(tables, ignore_index=True)


def table_of(ids, speaker, labels, guess, seed=0, model="m", confidence=0.8):
    table = pd.DataFrame(
        {
            "model": model,
            "seed": seed,
            "fold": 0,
            "id": ids,
            "speaker": [f"s{s}" for s in speaker],
            "label": np.array(CLASSES)[labels],
            "predicted": np.array(CLASSES)[guess],
        }
    )
    for i, name in enumerate(CLASSES):
        table[f"p_{name}"] = np.where(np.asarray(guess) == i, confidence, (1 - confidence) / 2)
    return table


def test_scores_are_scikit_learns_averaged_over_seeds(rng):
    table = predictions(rng, seeds=(0, 1, 2))
    by_seed = [part for _, part in table.groupby("seed")]
    got = evaluate.scores(table)
    expected = {
        "weighted_f1": [f1_score(p.label, p.predicted, average="weighted") for p in by_seed],
        "macro_f1": [f1_score(p.label, p.predicted, average="macro") for p in by_seed],
        "accuracy": [accuracy_score(p.label, p.predicted) for p in by_seed],
    }
    assert got == pytest.approx({name: np.mean(values) for name, values in expected.items()})


def test_scores_with_a_class_that_is_never_guessed_or_not_there(rng):
    table = predictions(rng)
    table = table[table.label != "happy"].assign(predicted=lambda t: t.predicted.where(t.predicted != "happy", "angry"))
    for metric, average in (("weighted_f1", "weighted"), ("macro_f1", "macro")):
        assert evaluate.scores(table)[metric] == pytest.approx(f1_score(table.label, table.predicted, average=average))
    constant = table.assign(predicted="neutral")
    assert evaluate.scores(constant)["macro_f1"] == pytest.approx(
        f1_score(constant.label, constant.predicted, average="macro", zero_division=0)
    )


def test_macro_f1_is_over_the_classes_that_have_clips(rng):
    """A guess at a class without clips must not cost a third of the score: it is a miss of the true class, no more."""
    table = predictions(rng)
    table = table[table.label != "happy"].reset_index(drop=True)
    table["predicted"] = table.predicted.where(table.predicted != "happy", "angry")
    table.loc[table.index[table.label == "angry"][0], "predicted"] = "happy"
    there = ["neutral", "angry"]
    expected = f1_score(table.label, table.predicted, average="macro", labels=there)
    assert evaluate.scores(table)["macro_f1"] == pytest.approx(expected)
    assert evaluate.scores(table)["macro_f1"] > 1.4 * f1_score(table.label, table.predicted, average="macro")
    assert evaluate.per_class(table).loc[there, "f1"].mean() == pytest.approx(expected)


def test_per_class_and_confusion_agree_with_each_other(rng):
    table = predictions(rng, seeds=(0, 1))
    by_class, matrix = evaluate.per_class(table), evaluate.confusion(table)
    assert list(by_class.index) == list(matrix.index) == list(matrix.columns) == list(CLASSES)
    assert by_class.support.sum() == table.id.nunique() == matrix.to_numpy().sum()
    assert by_class.recall.to_numpy() == pytest.approx(np.diag(matrix) / matrix.sum(axis=1))


def test_interval_covers_the_truth_about_as_often_as_it_says(rng):
    """Studies of 20 speakers that differ: a 95 % interval covers in 87–99 % (percentiles fall a bit short)."""
    inside = 0
    for _ in range(120):
        found = evaluate.interval(predictions(rng, speakers=20, spread=0.15), metric="accuracy", n_boot=300)
        inside += found.low <= 0.7 <= found.high
    assert 0.87 <= inside / 120 <= 0.99


def test_interval_over_speakers_is_wider_than_one_over_clips_when_speakers_differ(rng):
    table = predictions(rng, speakers=12, clips=30, spread=0.25)
    by_speaker = evaluate.interval(table)
    by_clip = evaluate.interval(table.assign(speaker=table.id))
    assert by_speaker.high - by_speaker.low > 1.5 * (by_clip.high - by_clip.low)
    assert by_speaker.value == by_clip.value == evaluate.scores(table)["weighted_f1"]


def test_few_speakers_give_a_note_instead_of_an_interval(rng):
    found = evaluate.interval(predictions(rng, speakers=3))
    assert np.isnan(found.low) and np.isnan(found.high) and "only 3 speaker" in found.note
    paired = evaluate.compare(predictions(rng, speakers=3), predictions(rng, speakers=3))
    assert np.isnan(paired.p) and np.isfinite(paired.p_mcnemar) and paired.note


def test_same_seed_same_interval(rng):
    table = predictions(rng)
    assert evaluate.interval(table, seed=3) == evaluate.interval(table.sample(frac=1, random_state=0), seed=3)
    assert evaluate.interval(table, seed=3) != evaluate.interval(table, seed=4)


def test_compare_finds_a_planted_difference_and_is_symmetric(rng):
    good, poor = predictions(rng, right=0.8, clips=20), predictions(rng, right=0.6, clips=20)
    there, back = evaluate.compare(good, poor), evaluate.compare(poor, good)
    assert there.low > 0 and there.p < 0.01 and there.p_mcnemar < 0.01
    assert there.difference == pytest.approx(-back.difference) and there.p == back.p
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert (there.only_a, there.only_b) == (back.only_b, back.only_a)


def test_compare_finds_nothing_where_there_is_nothing(rng):
    """60 pairs of equal models: p below .05 in few of them, and never for a model against itself."""
    false = sum(evaluate.compare(predictions(rng), predictions(rng), n_boot=200).p < 0.05 for _ in range(60))
    assert false <= 9
    table = predictions(rng)
    itself = evaluate.compare(table, table)
    assert (itself.difference, itself.p, itself.p_mcnemar) == (0, 1, 1)


def test_compare_takes_models_with_different_numbers_of_seeds(rng):
    three, one = predictions(rng, seeds=(0, 1, 2)), predictions(rng, seeds=(0,))
    found = evaluate.compare(three, one)
    assert found.difference == pytest.approx(
        evaluate.scores(three)["weighted_f1"] - evaluate.scores(one)["weighted_f1"]
    )


def test_mcnemar_is_statsmodels_exact_test(rng):
    a, b = predictions(rng, right=0.8), predictions(rng, right=0.7)
    right_a, right_b = a.label == a.predicted, b.label == b.predicted
    table = [[(right_a & right_b).sum(), (right_a & ~right_b).sum()], [(~right_a & right_b).sum(), 0]]
    assert evaluate.compare(a, b).p_mcnemar == pytest.approx(mcnemar(table, exact=True).pvalue)


def test_holm_by_hand():
    assert evaluate.holm([0.01, np.nan, 0.04, 0.03]) == pytest.approx([0.03, np.nan, 0.06, 0.06], nan_ok=True)
    assert np.isnan(evaluate.holm([np.nan])).all()


def test_results_table(rng):
    runs = {
        "poor": predictions(rng, right=0.5),
        "good": predictions(rng, right=0.9, seeds=(0, 1)),
        "fair": predictions(rng, right=0.7),
    }
    table = evaluate.results_table(runs, reference="good", n_boot=500)
    assert table.model.tolist() == ["good", "fair", "poor"]
    assert table.seeds.tolist() == [2, 1, 1] and (table.n_speakers == 12).all() and (table.n_clips == 120).all()
    assert np.isnan(table.p[0]) and np.isnan(table.difference[0])
    assert (table.difference[1:] < 0).all() and (table.p_holm[1:] >= table.p[1:]).all()
    second = [evaluate.compare(runs[name], runs["good"]).p_mcnemar for name in ("fair", "poor")]
    assert table.p_mcnemar[1:].tolist() == second and np.isnan(table.p_mcnemar[0])
    assert table.p_mcnemar_holm[1:].tolist() == evaluate.holm(second) and np.isnan(table.p_mcnemar_holm[0])
    assert ((table.low <= table.weighted_f1) & (table.weighted_f1 <= table.high)).all()
    with pytest.raises(evaluate.PredictionError, match="good"):
        evaluate.results_table(runs, reference="best")


def test_what_cannot_be_compared_is_refused_by_name(rng):
    a = predictions(rng)
    with pytest.raises(evaluate.PredictionError, match="clip0119"):
        evaluate.compare(a, a.iloc[:-1])
    relabelled = a.copy()
    relabelled.loc[5, "label"] = CLASSES[(CLASSES.index(a.label[5]) + 1) % 3]
    with pytest.raises(evaluate.PredictionError, match="clip0005"):
        evaluate.compare(a, relabelled)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda t: pd.concat([t, t.iloc[[4]]]), "clip0004.*twice"),
        (lambda t: t.drop(columns="speaker"), "speaker"),
        (lambda t: t.iloc[:0], "0 rows"),
        (lambda t: pd.concat([t, t.iloc[1:].assign(seed=1)]), "different clips"),
        (lambda t: t.assign(predicted="bored"), "bored"),
    ],
)
def test_tables_that_cannot_be_scored_are_refused(rng, spoil, told):
    with pytest.raises(evaluate.PredictionError, match=told):
        evaluate.scores(spoil(predictions(rng)))


def test_unknown_metric_is_refused(rng):
    with pytest.raises(evaluate.PredictionError, match="weighted_f1"):
        evaluate.interval(predictions(rng), metric="auc")
