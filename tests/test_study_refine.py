"""Does refinement help? Noise of known truth, arms on the same folds, and the table that says what was won back."""

import json

import numpy as np
import pandas as pd
import pytest
from fusion_clips import CLASSES, changed, clips, one_hot
from sklearn.metrics import f1_score

from ecmf_lib.config import FuseSettings, SettingsError
from ecmf_lib.fit import ModelSpec
from ecmf_lib.refine import Refiner, Rule
from ecmf_lib.study import Study
from ecmf_lib.study_refine import ALTERNATIVES, GIVEN_ARM, OURS, WithNoise, arms, inject, noise_study, noise_table

EXPERTS = ModelSpec("linear experts", "linear-experts")


@pytest.fixture
def case(rng, tmp_path, monkeypatch):
    monkeypatch.setenv("ECMF_DATA", str(tmp_path))
    settings = FuseSettings(folds=2, seeds=1, side_seeds=2, epochs=2, workers=1, trials=0, bootstrap=50, steps=0)
    return Study(clips(rng, n=120, speakers=8, signal=1.5), None, "speaker", None, settings)


# ---- noise in training labels


def test_noise_changes_training_labels_and_nothing_else(rng):
    data = clips(rng)
    order = rng.permutation(96)
    noisy = (data.labels + 1) % 3
    step = WithNoise(tuple(np.array(data.ids)[order]), noisy[order])
    rows = np.arange(20, 70)
    part, before = data.select(rows), data.fingerprint()
    found, groups = step(part, np.asarray(part.speakers), seed=0, epochs=1)
    assert (found.labels == noisy[rows]).all() and groups.tolist() == part.speakers
    assert changed(found, labels=part.labels).fingerprint() == part.fingerprint() and data.fingerprint() == before
    np.testing.assert_array_equal(found.targets(), one_hot(noisy[rows]))
    soft = changed(part, soft=one_hot(part.labels))  # labels that are trained on, under another name
    np.testing.assert_array_equal(step(soft, groups, seed=0, epochs=1)[0].targets(), one_hot(noisy[rows]))


def test_what_is_done_next_sees_the_noise_only(rng):
    data, seen = clips(rng), []

    class Then:
        def __call__(self, part, groups, *, seed, epochs):
            seen.append((part, seed, epochs))
            return part.select(np.arange(5)), groups[:5]

        def about(self):
            return ["then"]

    noisy = (data.labels + 2) % 3
    step = WithNoise(tuple(data.ids), noisy, Then())
    found, groups = step(data, np.asarray(data.speakers), seed=3, epochs=7)
    assert (seen[0][0].labels == noisy).all() and seen[0][1:] == (3, 7) and len(found) == len(groups) == 5
    refined = WithNoise(tuple(data.ids), noisy, Refiner(rule=Rule(doubt=0.0)))
    assert (refined(data, np.asarray(data.speakers), seed=0, epochs=1)[0].targets() == one_hot(noisy)).all()
    abouts = [step, WithNoise(tuple(data.ids), noisy), WithNoise(tuple(data.ids), data.labels, Then()), refined]
    assert len({json.dumps(version.about()) for version in abouts}) == 4


@pytest.mark.parametrize("kind", ["symmetric", "class-dependent", "instance-dependent"])
def test_each_seed_draws_its_own_noise_of_the_rate_asked_for(case, kind):
    truth = case.data.labels
    draws = [inject(case, kind, 0.3, seed) for seed in range(5)]
    assert np.mean([(labels != truth).mean() for labels in draws]) == pytest.approx(0.3, abs=0.08)
    assert all(labels.dtype == np.int64 and set(labels) <= {0, 1, 2} for labels in draws)
    assert not np.array_equal(draws[0], draws[1]) and np.array_equal(draws[0], inject(case, kind, 0.3, 0))
    assert (inject(case, kind, 0.0, 0) == truth).all()


def test_a_kind_of_noise_that_does_not_exist_is_refused(case):
    with pytest.raises(SettingsError, match="choose from symmetric, class-dependent"):
        inject(case, "systematic", 0.1, 0)


# ---- arms


def test_arms_by_name():
    few, all_of_them = arms(False), arms(True)
    assert list(few) == [GIVEN_ARM, OURS] and list(all_of_them) == [GIVEN_ARM, OURS, *ALTERNATIVES]
    assert all_of_them[GIVEN_ARM] is None and all_of_them[OURS].about() == Refiner().about()
    for name, (method, rule) in ALTERNATIVES.items():
        assert (all_of_them[name].method, all_of_them[name].rule) == (method, rule)
        assert not all_of_them[name].voters  # they hear the noisy labels, not those before the noise
    abouts = {json.dumps(arm.about()) for arm in all_of_them.values() if arm}
    assert len(abouts) == len(all_of_them) - 1


def test_all_arms_are_scored_on_the_labels_before_the_noise_on_the_same_folds(case):
    runs = noise_study(case, "class-dependent", [0.0, 0.3], alternatives=False, spec=EXPERTS)
    assert list(runs) == [(rate, arm) for rate in (0.0, 0.3) for arm in (GIVEN_ARM, OURS)]
    truth = dict(zip(case.data.ids, np.array(CLASSES)[case.data.labels], strict=True))
    first = runs[0.0, GIVEN_ARM]
    assert first["seed"].unique().tolist() == [0, 1] and len(first) == 240
    for (_, arm), table in runs.items():
        assert (table["label"] == table["id"].map(truth)).all() and (table["model"] == arm).all()
        pd.testing.assert_frame_equal(table[["seed", "fold", "id"]], first[["seed", "fold", "id"]])
    chances = [runs[0.3, arm][[f"p_{name}" for name in CLASSES]].to_numpy() for arm in (GIVEN_ARM, OURS)]
    assert not np.allclose(*chances) and not np.allclose(chances[0], first[[f"p_{name}" for name in CLASSES]])


def test_alternatives_run_where_there_is_noise(case, monkeypatch):
    """And each gets the noise of the seed, the same for all arms."""
    asked = []

    def watch(self, data, spec, *, seeds, prepare):
        asked.append((spec.name, tuple(seeds), tuple(prepare.labels), prepare.then))
        return pd.DataFrame({"model": [spec.name], "seed": list(seeds)})

    monkeypatch.setattr(Study, "cross_validated", watch)
    runs = noise_study(case, "symmetric", [0.0, 0.2], seeds=[4, 5], spec=EXPERTS)
    assert [arm for rate, arm in runs if rate == 0.2] == [GIVEN_ARM, OURS, *ALTERNATIVES]
    assert [arm for rate, arm in runs if rate == 0.0] == [GIVEN_ARM, OURS]
    assert all(table["seed"].tolist() == [4, 5] for table in runs.values())
    noisy = [(seeds, labels) for _, seeds, labels, _ in asked if labels != tuple(case.data.labels)]
    assert len(set(noisy)) == 2 and len(noisy) == 2 * (2 + len(ALTERNATIVES))


# ---- the table


def predictions(rng, arm, right):
    """200 clips of 10 speakers, so many of them right."""
    label = np.array(["a", "b"])[np.arange(200) % 2]
    other = np.where(label == "a", "b", "a")
    hit = np.isin(np.arange(200), rng.permutation(200)[:right])
    return pd.DataFrame(
        {
            "model": arm, "seed": 0, "id": [f"c{i}" for i in range(200)], "speaker": [f"s{i % 10}" for i in range(200)],
            "label": label, "predicted": np.where(hit, label, other), "p_a": 0.5, "p_b": 0.5,
        }
    )  # fmt: skip


def weighted_f1(table):
    return f1_score(table["label"], table["predicted"], average="weighted")


def test_what_an_arm_wins_back_of_what_the_noise_took(rng):
    right = {
        (0.0, GIVEN_ARM): 180, (0.0, OURS): 178, (0.2, GIVEN_ARM): 140, (0.2, OURS): 170, (0.2, "majority vote"): 150,
        (0.2, "worse"): 120, (0.2, "better than without noise"): 190, (0.4, GIVEN_ARM): 185, (0.4, OURS): 186,
    }  # fmt: skip
    runs = {key: predictions(rng, key[1], count) for key, count in right.items()}
    table = noise_table(runs, "symmetric", n_boot=200)
    assert table.columns.tolist() == [
        "kind", "rate", "arm", "weighted_f1", "low", "high", "recovered",
        "difference", "difference_low", "difference_high",
    ]  # fmt: skip
    rows = table.set_index(["rate", "arm"])
    assert rows.index.tolist() == list(right) and (table["kind"] == "symmetric").all()
    clean, noisy = weighted_f1(runs[0.0, GIVEN_ARM]), weighted_f1(runs[0.2, GIVEN_ARM])
    for arm in (OURS, "majority vote", "worse", "better than without noise"):
        won = (weighted_f1(runs[0.2, arm]) - noisy) / (clean - noisy)
        assert rows.loc[(0.2, arm), "recovered"] == pytest.approx(won)
    assert rows.loc[(0.2, OURS), "recovered"] == pytest.approx(0.75, abs=0.05)  # 30 of 40 clips
    assert rows.loc[(0.2, "worse"), "recovered"] < 0 and rows.loc[(0.2, "better than without noise"), "recovered"] > 1
    # nothing lost, nothing to win back: without noise, where noise did no harm, and for the noisy labels themselves
    for key in ((0.0, GIVEN_ARM), (0.0, OURS), (0.2, GIVEN_ARM), (0.4, GIVEN_ARM), (0.4, OURS)):
        assert np.isnan(rows.loc[key, "recovered"])
    for (rate, arm), run in runs.items():
        row = rows.loc[(rate, arm)]
        assert row["weighted_f1"] == pytest.approx(weighted_f1(run)) and row["low"] < row["weighted_f1"] < row["high"]
        assert row["difference"] == pytest.approx(weighted_f1(run) - weighted_f1(runs[rate, OURS]))
        assert np.isnan(row["difference_low"]) == (arm == OURS)


def test_without_a_run_without_noise_nothing_is_said_to_be_won_back(rng):
    runs = {(0.2, arm): predictions(rng, arm, count) for arm, count in ((GIVEN_ARM, 140), (OURS, 170))}
    table = noise_table(runs, "symmetric", n_boot=50)
    assert table["recovered"].isna().all() and table["weighted_f1"].notna().all()
