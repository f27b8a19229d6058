"""The study of notebook 03: which models and folds it takes, what it keeps, and how it is put into words."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ecmf_lib import evaluate, optimism, stress, study, study_sides
from ecmf_lib.config import FuseSettings, SettingsError
from ecmf_lib.fit import Fitted, ModelSpec
from ecmf_lib.samples import FusionData
from ecmf_lib.study import Study


@pytest.fixture
def data(rng):
    n = 72
    labels = np.arange(n) % 2
    strong = labels[:, None] * 3 + rng.normal(size=(n, 4))
    streams = {"face": strong.astype("f4"), "text": rng.normal(size=(n, 4)).astype("f4")}
    present = {name: np.ones(n, bool) for name in streams}
    return FusionData(
        [f"c{i}" for i in range(n)], streams, present, labels, [f"s{i // 9}" for i in range(n)], ("a", "b")
    )


def more_streams(data, **streams):
    streams = data.streams | streams
    return replace(data, streams=streams, present={name: np.ones(len(data), bool) for name in streams})


@pytest.fixture
def case(data, tmp_path, monkeypatch):
    monkeypatch.setenv("ECMF_DATA", str(tmp_path))
    settings = FuseSettings(folds=3, seeds=2, epochs=3, workers=1, trials=0, bootstrap=50, steps=0)
    return Study(data, None, "speaker", None, settings)


def test_runs_share_folds_and_are_kept(case, tmp_path):
    specs = [spec for spec in study.models(case) if spec.kind in ("ecmf", "logistic", "majority")]
    runs = study.run(case, specs)
    folds = {name: dict(zip(zip(r["seed"], r["id"], strict=True), r["fold"], strict=True)) for name, r in runs.items()}
    assert all(one == folds["ECMF"] for one in folds.values())
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.parquet")}
    assert len(kept) == len(runs) * 3 * 2, "a part for each model, fold and seed"
    again = study.run(case, specs)
    assert kept == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.parquet")}
    pd.testing.assert_frame_equal(again["ECMF"], runs["ECMF"])

    table = evaluate.results_table(runs, reference="ECMF", n_boot=100)
    assert study.best_single(table)["model"] == "face alone"
    assert study.two_best(table) == [], "two streams only"
    words = study.verdict(table)
    assert words.startswith(f"ECMF scores {table.set_index('model').loc['ECMF', 'weighted_f1']:.3f} [")
    assert "text alone" in words
    assert study.MAJORITY not in words


def test_the_final_model_is_kept_and_predicts_the_same(case, data, tmp_path):
    project = SimpleNamespace(corpus=SimpleNamespace(name="mine"), data_fingerprint="abc")
    fitted, folder = study.fit_final(project, case, study.models(case)[0])
    assert folder.parent == tmp_path / "models" and folder.name.startswith("mine-ecmf-abc-")
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"}
    again, weights = Fitted.load(folder).predict(data)
    np.testing.assert_array_equal(again, fitted.predict(data)[0])
    np.testing.assert_array_equal(weights, fitted.predict(data)[1])


def test_two_best_streams():
    alone = [("face", 0.6), ("text", 0.3), ("audio", 0.5)]
    table = pd.DataFrame([{"model": name + study.ALONE, "weighted_f1": score} for name, score in alone])
    (spec,) = study.two_best(table)
    assert (spec.streams, spec.kind) == (("face", "audio"), "late-logistic")


def test_models_are_all_there_searched_alike_or_as_the_settings_say(case):
    specs = {spec.name: spec for spec in study.models(replace(case, settings=replace_settings(case, trials=7)))}
    rivals = set(study.RIVALS) - {"MulT"}
    assert {"ECMF", *rivals, *study.CLASSICAL, study.OFFICIAL_ENSEMBLE, study.MAJORITY} < set(specs)
    searched = {name for name, spec in specs.items() if spec.trials == 7}
    assert searched == {"ECMF", *rivals}, "one search for all fusions; the official recipe is its own"
    assert "MulT" not in specs, "it is for time, and these clips have none"
    named = replace(case, settings=replace_settings(case, fusions=["MulT"]))
    assert "MulT" in [spec.name for spec in study.models(named)]
    assert "MulT" in [spec.name for spec in study.models(replace(case, frames=case.data))]
    few = replace(case, settings=replace_settings(case, fusions=["LMF", "late fusion"]))
    names = [spec.name for spec in study.models(few)]
    assert names == ["ECMF", "LMF", "late fusion", "face alone", "text alone", study.MAJORITY]
    with pytest.raises(SettingsError, match=r"no LFM.*LMF"):
        study.models(replace(case, settings=replace_settings(case, fusions=["LFM"])))


def replace_settings(case, **changed):
    return case.settings.model_copy(update=changed)


def test_one_stream_is_not_fused(case, data):
    names = [spec.name for spec in study.models(replace(case, data=data.only(["face"])))]
    assert "late fusion" not in names
    assert "face alone" in names


def test_every_part_and_every_stream_is_left_out_once(case, data):
    names = [spec.name for spec in study.parts(case)]
    assert len(names) == len(set(names))
    assert {"without face", "without text"} < set(names)
    third = more_streams(data, audio=data.streams["face"])
    left = {spec.name: spec.streams for spec in study.parts(replace(case, data=third)) if spec.streams}
    assert left == {
        "without face": ("text", "audio"),
        "without text": ("face", "audio"),
        "without audio": ("face", "text"),
    }
    fourth = more_streams(third, **{"global": data.streams["text"]})
    left = {spec.name: spec.streams for spec in study.parts(replace(case, data=fourth)) if spec.streams}
    assert left["without both visual branches"] == ("text", "audio")
    assert study.FRAMES in [spec.name for spec in study.parts(replace(case, frames=fourth))]


def test_what_looks_at_time_gets_frames(case, data):
    frames = replace(data, streams={name: np.stack([x, x], axis=1) for name, x in data.streams.items()})
    timed = replace(case, frames=frames)
    assert study._level(timed, ModelSpec("MulT", "mult")) is frames
    assert study._level(timed, ModelSpec("ECMF", "ecmf")) is data
    assert study._level(case, ModelSpec("MulT", "mult")) is data
    runs = study.run(timed, [spec for spec in study.parts(timed) if spec.name in ("ECMF", study.FRAMES)])
    assert len(runs[study.FRAMES]) == len(runs["ECMF"])


def test_fold_table_counts_every_clip_once(case, data):
    table = study.fold_table(case)
    assert table["clips"].sum() == len(data)
    assert table["groups"].sum() == len(set(data.speakers))
    assert (table[["a", "b"]].sum(axis=1) == table["clips"]).all()
    split = study.fold_table(replace(case, test_fold=np.where(np.arange(72) < 45, -1, 0)))
    assert split.set_index("fold")["clips"].to_dict() == {"train": 45, "0": 27}


def test_a_published_split_is_the_only_thing_scored(case, data):
    split = replace(case, test_fold=np.where(np.arange(72) < 45, -1, 0))
    run = study.run(split, [ModelSpec("m", "logistic")])["m"]
    assert sorted(set(run["id"])) == sorted(data.ids[45:])
    assert split.straddling() == 0 == case.straddling()
    assert replace(case, test_fold=np.where(np.arange(72) < 47, -1, 0)).straddling() == 1, "s5 is in both parts"


def test_like_with_like_are_single_models(case):
    ecmf, official = study.singles(case)
    assert ecmf.options["members"] == official.options["members"] == 1
    assert (official.name, official.epochs, official.options["optimiser"]) == (study.OFFICIAL_SINGLE, 3, "adam")
    long = replace(case, settings=replace_settings(case, epochs=25))
    assert study.singles(long)[1].epochs == 100, "its own recipe is 100 epochs"
    assert set(study.run(case, study.singles(case))) == {study.SINGLE, study.OFFICIAL_SINGLE}


def test_what_did_not_help_is_what_costs_nothing():
    rows = [("ECMF", 0.8, np.nan, np.nan, np.nan), ("worse", 0.7, -0.1, -0.2, -0.05), ("same", 0.8, 0.0, -0.1, 0.1)]
    rows += [("classes balanced", 0.7, -0.1, -0.2, -0.05), ("labels smoothed by .1", 0.9, 0.1, 0.05, 0.2)]
    table = pd.DataFrame(rows, columns=["model", "weighted_f1", "difference", "difference_low", "difference_high"])
    assert study.no_gain(table)["model"].tolist() == ["same", "classes balanced"], "a change that harms did not help"
    few = table.assign(difference_high=np.nan)
    assert {"worse", "same"} < set(study.no_gain(few)["model"]), "nothing can be told without an interval"


def test_other_runs_stand_beside_this_one(tmp_path):
    rows = [("ECMF", 0.8, 0.7, 0.9), ("face alone", 0.6, 0.5, 0.7)]
    here = pd.DataFrame(rows, columns=["model", "weighted_f1", "low", "high"])
    for name in ("mine", "other"):
        folder = tmp_path / name / "tables/03_fuse_and_ablate"
        folder.mkdir(parents=True)
        here.assign(weighted_f1=0.5).to_csv(folder / "scores.csv", index=False)
    kept = tmp_path / "scores"
    kept.mkdir()
    here.assign(weighted_f1=0.3).to_csv(kept / "far.csv", index=False)
    here.assign(weighted_f1=0.2).to_csv(kept / "other.csv", index=False)  # the run that is here goes before
    table = study.across_corpora(tmp_path / "mine", here, "corpus")
    assert table[["corpus", "weighted_f1"]].to_numpy().tolist() == [["corpus", 0.8], ["far", 0.3], ["other", 0.5]]


# ---- side studies


def test_subsets_are_all_there_and_the_strong_stream_tells(case):
    table, predictions = study_sides.subsets(case)
    assert set(table["streams"]) == {"face", "text", "face + text"}
    scores = table.set_index("streams")["weighted_f1"]
    assert scores["face"] > 0.9 > scores["text"]
    assert set(predictions["model"]) == set(table["streams"])


def test_stress_damages_one_stream_at_a_time(case):
    stressed = study_sides.stress(case)
    table = stress.robustness_table(stressed)
    assert set(table["model"]) == set(study_sides.FOLLOWED)
    ecmf = table[table["model"] == "ECMF"].set_index(["kind", "stream", "level"])["weighted_f1"]
    whole = evaluate.scores(study.run(case, [ModelSpec("ECMF", "ecmf")], side=True)["ECMF"])["weighted_f1"]
    assert ecmf["missing", "face", 0.0] == pytest.approx(whole), "level 0 is the undamaged clip"
    assert ecmf["missing", "face", 1.0] < 0.75 < ecmf["missing", "text", 1.0]
    assert ecmf["noise", "face", 4.0] < ecmf["noise", "face", 0.5]
    never = {"face": study.run(case, [study.without(["face", "text"], "face")], side=True)["without face"]}
    missing = stress.missing_table(stressed["ECMF"], never)
    assert missing["difference"][0] == pytest.approx(
        missing["missing at test time"][0] - missing["trained without it"][0]
    )


def test_a_worthless_stream_has_real_rows_of_other_clips(data):
    noisy = stress.with_worthless_stream(data, 0)
    assert sorted(map(tuple, noisy.streams["noise"])) == sorted(map(tuple, data.streams["face"]))
    assert (noisy.streams["noise"] != data.streams["face"]).any()


def test_worthless_stream_table(case):
    table, predictions = study_sides.worthless(case)
    assert (table["difference"] - (table["with a worthless stream"] - table["without it"])).abs().max() < 1e-9
    assert "w_noise" in predictions


def test_learning_curve_trains_on_fewer_speakers_and_scores_the_same_clips(case, data):
    table, predictions = study_sides.learning_curve(case)
    ecmf = table[table["model"] == "ECMF"]
    assert ecmf["speakers"].is_monotonic_increasing and ecmf["speakers"].nunique() > 2
    for _, part in predictions.groupby(["model", "share"]):
        assert sorted(part["id"]) == sorted(data.ids)


def test_the_usual_practice_flatters_where_speakers_can_be_recognised(case, rng):
    """Speakers have a label each and a voice each: folds by clip reward knowing them, folds by speaker cannot."""
    speakers = np.repeat(np.arange(12), 6)
    voice = rng.normal(size=(12, 6))[speakers] * 3
    known = FusionData(
        [f"c{i}" for i in range(72)],
        {"audio": (voice + rng.normal(size=(72, 6)) * 0.3).astype("f4"), "text": rng.normal(size=(72, 3)).astype("f4")},
        {"audio": np.ones(72, bool), "text": np.ones(72, bool)},
        speakers % 2,
        [f"s{s}" for s in speakers],
        ("a", "b"),
    )
    settings = replace_settings(case, epochs=9)
    table, predictions = study_sides.optimism(replace(case, data=known, settings=settings))
    found = table[table["model"] == "ECMF"].set_index("practice")["weighted_f1"]
    usual, honest = found.iloc[0], found.iloc[-1]
    assert list(found.index) == [name.format(unit="speaker") for name in optimism.PRACTICES]
    assert usual > honest + 0.2
    assert set(predictions["practice"]) == set(found.index)


def test_each_speakers_own_scale(case, data):
    shifted = replace(data, streams={n: x + 100 * (np.arange(72) // 9)[:, None] for n, x in data.streams.items()})
    scaled = study_sides.by_speaker(shifted)
    for name, x in scaled.streams.items():
        for start in range(0, 72, 9):
            assert np.allclose(x[start : start + 9].mean(0), 0, atol=1e-4)
            assert np.allclose(x[start : start + 9].std(0), 1, atol=1e-3), name
    table, _ = study_sides.known_speakers(replace(case, data=shifted))
    assert table.set_index("model")["weighted_f1"]["ECMF"] > 0.9


def test_verdict_is_plain_about_doubt():
    rows = [("ECMF", 0.8, 0.7, 0.9, np.nan, np.nan), ("late fusion", 0.81, 0.7, 0.9, 0.01, 0.6)]
    rows += [("face alone", 0.6, 0.5, 0.7, -0.2, 0.001), (study.MAJORITY, 0.1, 0.1, 0.1, -0.7, 0.001)]
    table = pd.DataFrame(rows, columns=["model", "weighted_f1", "low", "high", "difference", "p_holm"])
    assert study.verdict(table).splitlines() == [
        "ECMF scores 0.800 [0.700, 0.900].",
        "It is behind late fusion by 0.010, which these data cannot tell from 0 (corrected p = 0.600).",
        "It is ahead of face alone by 0.200 (corrected p = 0.001).",
    ]
    few = table.assign(low=np.nan, high=np.nan, p_holm=np.nan)
    assert study.verdict(few).startswith("ECMF scores 0.800.\nIt is behind late fusion by 0.010")
    assert "too few speakers to test" in study.verdict(few)
