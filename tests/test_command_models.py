"""train, refine and enrich give what the notebooks' library calls give, and their caches are the same."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import no_workers
from fault_server import FaultServer
from typer.testing import CliRunner

from ecmf_lib import evaluate, study, study_predict
from ecmf_lib.bundle import Bundle
from ecmf_lib.config import FuseSettings, PredictSettings
from ecmf_lib.project import open_project
from ecmf_lib.run import app

TINY = {"folds": 2, "seeds": 1, "epochs": 2, "bootstrap": 50}
SETS = [word for name, value in TINY.items() for word in ("--set", f"{name}={value}")]


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """48 clips of ready-made features: six speakers, three classes, two streams that show part of the label."""
    rng, folder = np.random.default_rng(5), tmp_path_factory.mktemp("command") / "clips"
    folder.mkdir()
    label, speaker = np.arange(48) % 3, np.arange(48) // 8
    streams = {
        name: (rng.normal(size=(3, dim))[label] + 0.6 * rng.normal(size=(48, dim))).astype(np.float32)
        for name, dim in (("face", 5), ("audio", 7))
    }
    given = np.array(["happy", "sad", "angry"])[np.where(np.arange(48) % 12 == 1, (label + 1) % 3, label)]
    np.savez(folder / "x.npz", id=np.array([f"c{i}" for i in range(48)]), label=given, speaker=speaker, **streams)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECMF_DATA", str(folder.parent / "data"))
        yield folder


# ---- train


def test_train_scores_as_notebook_03_does(corpus, tmp_path):
    options = ["--rival", "late fusion", "--output", tmp_path / "out", "--workers", 1, "--set", "trials=0", "--json"]
    said = run("train", corpus, *SETS, *options)
    assert said.exit_code == 0, said.output
    told = json.loads(said.stdout)
    settings = FuseSettings(corpus=str(corpus), fusions=["late fusion"], trials=0, workers=1, **TINY)
    case, _ = study.open_study(open_project(settings), settings)
    runs = study.run(case, study.models(case))
    table = evaluate.results_table(runs, reference="ECMF", n_boot=50)
    assert [row["model"] for row in told["scores"]] == table["model"].tolist()
    assert {row["model"]: row["weighted_f1"] for row in told["scores"]} == dict(
        zip(table["model"], table["weighted_f1"], strict=True)
    )
    assert told["labelled"] == 48 and told["groups"] == 6 and told["folds_hold_apart"] == "speaker"
    written = pd.read_csv(tmp_path / "out/scores.csv")
    assert np.allclose(written["weighted_f1"], table["weighted_f1"], atol=1e-5)
    assert len(pd.read_parquet(tmp_path / "out/predictions.parquet")) == 48 * len(table)
    assert "ECMF scores" in said.stderr


def test_train_makes_the_bundle_of_notebook_05(corpus, tmp_path):
    options = ["--bundle", tmp_path / "made", "--no-scores", "--workers", 1, "--set", "labels=given", "--json"]
    said = run("train", corpus, *SETS, *options)
    assert said.exit_code == 0, said.output
    told = json.loads(said.stdout)
    settings = PredictSettings(corpus=str(corpus), labels="given", workers=1, bundle=str(tmp_path / "ours"), **TINY)
    project = open_project(settings)
    bundle, _, _ = study_predict.final_bundle(project, study.open_study(project, settings)[0], settings)
    assert told["bundle"]["digest"] == bundle.digest == Bundle.load(tmp_path / "made").digest
    assert told["bundle"]["members"] == 2 and "scores" not in told


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--no-scores"], "--bundle FOLDER"),
        (["--set", "labels=given"], "labels: counts for the bundle only"),
        (["--set", "hidden=0.5"], "hidden: counts for nothing"),
        (["--rival", "LFM"], "did you mean 'LMF'?"),
        (["--rival", "LMF", "--set", "fusions=TFN"], "fusions: --set says one thing"),
        (["--review", "nowhere.csv"], "--bundle FOLDER"),
    ],
)
def test_what_train_cannot_do_is_refused(corpus, options, said):
    result = run("train", corpus, *options)
    assert result.exit_code == 2 and said in " ".join(result.output.split())


def test_a_corpus_without_labels_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ECMF_DATA", str(tmp_path / "data"))
    no_workers(monkeypatch)
    (tmp_path / "manifest.csv").write_text("id,transcript,split\na,yes,unlabelled\nb,no,unlabelled\n")
    for command in (["train"], ["refine", "--output", tmp_path / "out"]):
        result = run(*command, tmp_path)
        assert result.exit_code == 2 and "needs labelled clips" in result.output


# ---- refine


def test_refine_writes_what_notebook_04_writes(corpus, tmp_path):
    said = run("refine", corpus, "--output", tmp_path / "out", "--json")
    assert said.exit_code == 0, said.output
    told = json.loads(said.stdout)
    audit = pd.read_csv(tmp_path / "out/audit.csv")
    assert len(audit) == 48 and told["changed"] == (audit["refined"] != audit["given"]).sum()
    assert sum(told["actions"].values()) == 48 and told["method"] == "em"
    assert set(told["thresholds"]) >= {"happy", "sad", "angry"}
    assert {row["source"] for row in told["sources"]} >= {"face", "audio"}
    review = pd.read_csv(tmp_path / "out/review.csv", keep_default_na=False, dtype=str)
    assert set(review["id"]) == set(audit.loc[audit["action"] != "keep", "id"]) and len(review)

    review.loc[0, "decision"] = "angry"
    review.to_csv(tmp_path / "out/review.csv", index=False)
    said = run("refine", corpus, "--output", tmp_path / "out", "--review", tmp_path / "out/review.csv")
    assert said.exit_code == 0 and "a human decided on 1 clips" in said.output
    again = pd.read_csv(tmp_path / "out/audit.csv").set_index("id")
    assert again.loc[review.loc[0, "id"], "action"] == "human"
    kept = pd.read_csv(tmp_path / "out/review.csv", keep_default_na=False, dtype=str).set_index("id")
    assert kept.loc[review.loc[0, "id"], "decision"] == "angry", "nobody's work is lost"


# ---- enrich, extract, predict


def test_enrich_says_what_became_of_each_clip(six_clips, tmp_path, monkeypatch):
    monkeypatch.setenv("ECMF_DATA", str(tmp_path / "data"))
    no_workers(monkeypatch)
    options = ["--set", "frames=4", "--workers", 1, "--json"]
    said = run("enrich", six_clips, "--output", tmp_path / "out", *options)
    assert said.exit_code == 0, said.output
    told = json.loads(said.stdout)
    assert told["done"] == 6 and told["enricher"] == "cues" and sum(row["clips"] for row in told["states"]) == 6
    assert told["bill"]["requests"] == 6 and "nothing left this machine" in said.stderr
    table = pd.read_csv(tmp_path / "out/enrichment.csv")
    assert len(table) == 6 and table["text"].str.len().min() > 0

    told = json.loads(run("extract", six_clips, *options).stdout)
    assert told["done"] == 6 and told["enrichment"] == "cues: 6" and told["encoders"]["audio"] == "egemaps"


def test_no_word_leaves_the_machine_unless_said(six_clips, tmp_path, monkeypatch):
    monkeypatch.setenv("ECMF_DATA", str(tmp_path / "data"))
    no_workers(monkeypatch)
    server = ["--enricher", "llm", "--llm", "base_url=http://192.0.2.7/v1", "--llm", "model=m"]
    said = run("enrich", six_clips, *server)
    assert said.exit_code == 2 and "allow_remote" in said.output
    said = run("enrich", six_clips, "--enricher", "cues", "--set", "enricher=llm")
    assert said.exit_code == 2 and "enricher: --set says one thing" in said.output
    assert run("enrich", six_clips, "--set", "enricher=none").exit_code == 2


def test_answers_that_failed_make_enrichment_incomplete(six_clips, tmp_path, monkeypatch):
    monkeypatch.setenv("ECMF_DATA", str(tmp_path / "data"))
    no_workers(monkeypatch)
    asked = [
        "enrich",
        six_clips,
        "--enricher",
        "llm",
        "--llm",
        "model=m",
        "--set",
        "frames=4",
        "--workers",
        1,
        "--json",
    ]
    for server, status in ((FaultServer(), 0), (FaultServer(say=lambda messages: "not JSON"), 1)):
        with server:
            said = run(*asked, "--llm", f"base_url={server.url}", "--llm", f"seed={status}")
            asks = len(server.asked)
            assert run(*asked, "--llm", f"base_url={server.url}", "--llm", f"seed={status}").exit_code == status
        told = json.loads(said.stdout)
        assert said.exit_code == status, said.output
        assert len(server.asked) == asks >= 6, "kept answers are not asked for again"
        assert {row["state"] for row in told["states"]} == {"fallback" if status else "enriched"}
        assert server.url not in said.stdout


def test_what_predict_cannot_use_is_refused_in_json(six_clips, tmp_path):
    said = run("predict", six_clips, "--bundle", tmp_path, "--json")
    assert said.exit_code == 2 and "error" in json.loads(said.stdout)
