"""A notebook's opening lines: settings → corpus, features, ledger, results."""

import dataclasses
import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from ecmf_lib.config import Settings
from ecmf_lib.corpus import make_corpus
from ecmf_lib.encoders.weights import WeightsError
from ecmf_lib.project import NUMERIC_PACKAGES, Results, open_project, readable, store_folder, thinned


@pytest.fixture
def features(tmp_path, monkeypatch, rng):
    monkeypatch.setenv("ECMF_DATA", str(tmp_path / "data"))
    folder = tmp_path / "mine"
    folder.mkdir()
    face = rng.normal(size=(8, 5)).astype("f4")
    face[2, 0] = np.nan
    np.savez(
        folder / "x.npz",
        id=np.array([f"c{i}" for i in range(8)]),
        label=np.array(["happy", "sad"] * 4),
        speaker=np.arange(8) // 2,
        face=face,
        voice=rng.normal(size=(8, 3)),
    )
    return folder


def test_ready_made_features_are_imported(features):
    project = open_project(Settings(corpus=str(features)))
    assert list(project.sets) == ["face", "voice"]
    assert project.ledger["status"].tolist() == ["done"] * 8
    assert "NaN" in project.ledger.loc[2, "face"], "the reason is recorded"
    matrix, present = project.sets["face"].matrix(["c1", "c2"])
    assert (matrix.shape, present.tolist()) == ((2, 5), [True, False])
    again = open_project(Settings(corpus=str(features)))
    assert again.data_fingerprint == project.data_fingerprint


def test_data_fingerprint_follows_a_feature(features):
    before = open_project(Settings(corpus=str(features))).data_fingerprint
    with np.load(features / "x.npz") as z:
        arrays = dict(z)
    arrays["voice"][0, 0] += 1
    np.savez(features / "x.npz", **arrays)
    assert open_project(Settings(corpus=str(features))).data_fingerprint != before


def test_provenance_is_complete(features):
    facts = open_project(Settings(corpus=str(features), seed=7)).provenance()
    assert facts["seed"] == "7"
    assert "8 clips, 0 left out" in facts["corpus"]
    assert all(name in facts["packages"] for name in NUMERIC_PACKAGES)
    assert len(facts["data fingerprint"]) == 16
    assert "sources" in facts["code version"]


def test_missing_weights_of_an_encoder_show_before_anything_is_heard(six_clips, tmp_path, monkeypatch):
    monkeypatch.setenv("ECMF_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("ecmf_lib.asr.transcribe", lambda *_, **__: pytest.fail("clips were listened to"))
    (tmp_path / "weights").mkdir()
    given = {"corpus": str(six_clips), "weights": str(tmp_path / "weights"), "asr": "whisper-small"}
    with pytest.raises(WeightsError, match="encoder 'siglip2-b32': no weights on this machine"):
        open_project(Settings(**given, encoders={"global": "siglip2-b32"}))


def test_thinned_keeps_the_spread(tmp_path):
    labels = ["happy", "sad", "angry", "neutral", "worried", "surprise"] * 40
    clips = pd.DataFrame({"id": [f"c{i:03d}" for i in range(240)], "label": labels})
    corpus = make_corpus("x", tmp_path, clips)
    assert thinned(corpus, 0) is corpus
    assert thinned(corpus, 500) is corpus
    kept = thinned(corpus, 40)
    assert len(kept) == 40
    assert kept.clips["label"].nunique() == 6, "a manifest that cycles over labels does not become one label"
    assert kept.clips["id"].is_monotonic_increasing


def test_two_corpora_of_one_name_have_two_stores(tmp_path):
    clips = pd.DataFrame({"id": ["a"], "label": ["happy"]})
    folders = {store_folder(make_corpus("x", tmp_path / place, clips)) for place in ("one", "two")}
    assert len(folders) == 2


def test_data_fingerprint_follows_what_is_left_out(features):
    project = open_project(Settings(corpus=str(features)))
    other = dataclasses.replace(project.corpus, left_out=pd.DataFrame({"id": ["x"], "reason": ["no class"]}))
    assert dataclasses.replace(project, corpus=other).data_fingerprint != project.data_fingerprint


def test_samples_leave_out_what_says_nothing(features):
    with np.load(features / "x.npz") as z:
        arrays = dict(z)
    arrays |= {"flat": np.ones((8, 3)), "gone": np.full((8, 2), np.nan)}
    np.savez(features / "x.npz", **arrays)
    project = open_project(Settings(corpus=str(features)))
    data, silent = project.samples()
    assert list(data.streams) == ["face", "voice"]
    assert silent == {
        "flat": "it is the same in all labelled clips",
        "gone": "fewer than two labelled clips have it",
    }
    failed = project.ledger.assign(status=["failed"] * 3 + ["done"] * 5)
    assert dataclasses.replace(project, ledger=failed).samples()[0].ids == ["c3", "c4", "c5", "c6", "c7"]
    assert dataclasses.replace(project, ledger=failed.assign(status="failed")).samples()[0] is None


def test_headers_are_escaped_too():
    page = readable(pd.DataFrame({"<img src=x onerror=alert(1)>": [1]}), "t").to_html()
    assert "<img" not in page


def test_results_are_data_first(tmp_path):
    results = Results(tmp_path / "t", {"seed": "0"})
    shown = results.table(pd.DataFrame({"model": ["a"], "f1": [1 / 3], "more": [1]}), "scores", columns=["model", "f1"])
    assert (tmp_path / "t/scores.csv").read_text() == "model,f1,more\na,0.333333,1\n"
    assert "0.333" in shown.to_html()
    assert "more" not in shown.to_html()
    results.headline("Title", {"f1": ".33"}, figure=plt.figure())
    headline = json.loads((tmp_path / "t/headline.json").read_text())
    assert headline == {"title": "Title", "figures": {"f1": ".33"}, "provenance": {"seed": "0"}}
    assert (tmp_path / "t/thumbnail.png").stat().st_size > 100


def test_what_people_said_is_escaped_and_tables_are_the_same_again():
    frame = pd.DataFrame({"said": ["<script>alert(1)</script> & more"], "score": [np.nan]})
    page = readable(frame, "t").to_html()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert page == readable(frame, "t").to_html()
