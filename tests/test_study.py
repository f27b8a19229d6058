"""The comparison of notebook 03, and how it is put into words."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ecmf_lib import evaluate, study
from ecmf_lib.config import FuseSettings
from ecmf_lib.samples import FusionData
from ecmf_lib.train import Fitted


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


def test_runs_share_folds_and_are_kept(data, tmp_path, monkeypatch):
    monkeypatch.setenv("ECMF_DATA", str(tmp_path))
    settings = FuseSettings(folds=3, seeds=2, epochs=3, workers=1)
    specs = [spec for spec in study.models(data) if spec.kind in ("ecmf", "logistic", "majority")]
    runs = study.run(data, specs, settings, groups=data.speakers)
    folds = {name: dict(zip(run["id"], run["fold"], strict=True)) for name, run in runs.items()}
    assert all(one == folds["ECMF"] for one in folds.values())
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.parquet")}
    assert len(kept) == len(runs) * 3 * 2, "a part for each model, fold and seed"
    again = study.run(data, specs, settings, groups=data.speakers)
    assert kept == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.parquet")}
    pd.testing.assert_frame_equal(again["ECMF"], runs["ECMF"])

    table = evaluate.results_table(runs, reference="ECMF", n_boot=100)
    assert study.best_single(table)["model"] == "face alone"
    assert study.two_best(table) == [], "two streams only"
    words = study.verdict(table)
    assert words.startswith(f"ECMF scores {table.set_index('model').loc['ECMF', 'weighted_f1']:.3f} [")
    assert "text alone" in words
    assert study.MAJORITY not in words


def test_the_final_model_is_kept_and_predicts_the_same(data, tmp_path, monkeypatch):
    monkeypatch.setenv("ECMF_DATA", str(tmp_path))
    corpus = SimpleNamespace(name="mine")
    project = SimpleNamespace(settings=FuseSettings(epochs=2), corpus=corpus, data_fingerprint="abc")
    fitted, folder = study.fit_final(project, data, study.models(data)[0], groups=data.speakers)
    assert folder == tmp_path / "models/mine-ecmf-abc"
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"}
    again, weights = Fitted.load(folder).predict(data)
    np.testing.assert_array_equal(again, fitted.predict(data)[0])
    np.testing.assert_array_equal(weights, fitted.predict(data)[1])


def test_two_best_streams():
    alone = [("face", 0.6), ("text", 0.3), ("audio", 0.5)]
    table = pd.DataFrame([{"model": name + study.ALONE, "weighted_f1": score} for name, score in alone])
    (spec,) = study.two_best(table)
    assert (spec.streams, spec.kind) == (("face", "audio"), "late-logistic")


def test_one_stream_is_not_fused(data):
    names = [spec.name for spec in study.models(data.only(["face"]))]
    assert "late fusion" not in names
    assert "face alone" in names


def test_every_stream_is_left_out_once(data):
    names = [spec.name for spec in study.ablations(data)]
    assert len(names) == len(set(names))
    assert not any(name in ("without face", "without text") for name in names), "one stream is no fusion"
    third = {**data.streams, "audio": data.streams["face"]}
    more = FusionData(
        data.ids, third, {name: np.ones(len(data), bool) for name in third}, data.labels, data.speakers, data.classes
    )
    left = {spec.name: spec.streams for spec in study.ablations(more) if spec.streams}
    assert left == {
        "without face": ("text", "audio"),
        "without text": ("face", "audio"),
        "without audio": ("face", "text"),
    }


def test_fold_table_counts_every_clip_once(data):
    table = study.fold_table(data, data.speakers, 4)
    assert table["clips"].sum() == len(data)
    assert table["groups"].sum() == len(set(data.speakers))
    assert (table[["a", "b"]].sum(axis=1) == table["clips"]).all()


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
