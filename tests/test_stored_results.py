"""Stored predictions are found, named and told apart; what cannot be read is said with its file."""

import numpy as np
import pandas as pd
import pytest
from stored_runs import predictions, stored_run

from ecmf_lib import study
from ecmf_lib.stored_results import MAJORITY, ResultsError, StoredResults, read_run


@pytest.fixture
def run(tmp_path):
    return stored_run(tmp_path / "first")


def test_every_stored_model_is_listed_once_with_what_it_used(run):
    read = read_run(run)
    models = read.catalogue.set_index("model")
    assert models.index.is_unique and list(models.index) == list(read.tables)
    assert models["streams"].to_dict() == {
        "ECMF": ("face", "audio"),
        "concatenation": ("face", "audio"),
        "face alone": ("face",),
        "always the commonest": (),
        "ECMF (fixed recipe)": ("face", "audio"),
        "without face": ("audio",),
        "ECMF, given labels": ("face", "audio"),
        "ECMF, refined labels": ("face", "audio"),
        "ECMF on face": ("face",),
    }
    assert models["labels"].drop("ECMF, refined labels").eq("given").all()
    assert models.loc["ECMF, refined labels", "labels"] == "refined"
    assert models.loc["ECMF on face", "seeds"] == 1 and models.loc["ECMF", "clips"] == 24
    assert (read.corpus, read.streams, read.labels) == ("small", ["face", "audio"], ["given", "refined"])


def test_two_models_of_one_name_keep_their_own_predictions(run):
    read = read_run(run)
    assert read.tables["ECMF"]["predicted"].tolist() == predictions("ECMF", right=0.9)["predicted"].tolist()
    assert read.tables["ECMF (fixed recipe)"]["predicted"].tolist() != read.tables["ECMF"]["predicted"].tolist()


def test_arms_of_notebook_04_stand_beside_those_of_03(run):
    tables = run / "tables/04_refine_labels"
    tables.mkdir()
    arms = [predictions("ECMF, refined labels"), predictions("ECMF, refined + self-training")]
    pd.concat(arms).to_parquet(tables / "predictions.parquet")
    labels = read_run(run).catalogue.set_index("model")["labels"]
    assert labels["ECMF, refined labels (notebook 04)"] == "refined"
    assert labels["ECMF, refined + self-training"] == "refined + self-training"


def test_runs_are_found_and_others_refused_by_name(run):
    (run.parent / "empty").mkdir()
    stored = StoredResults(run.parent)
    assert stored.names() == ["first"]
    assert stored.run("first") is stored.run("first")
    with pytest.raises(ResultsError, match=r"run 'empty'.*runs there: first.*03_fuse_and_ablate"):
        stored.run("empty")
    with pytest.raises(ResultsError, match="no stored predictions"):
        StoredResults(run / "nowhere").run("first")


def test_corpus_is_read_from_a_headline_where_there_are_no_scores(run):
    (run / "tables/03_fuse_and_ablate/scores.csv").unlink()
    assert read_run(run).corpus == "first"
    (run / "tables/03_fuse_and_ablate/headline.json").write_text(
        '{"provenance": {"corpus": "a: b: 24 clips, 0 left out"}}'
    )
    assert read_run(run).corpus == "a: b"


@pytest.mark.parametrize("damage", ["cut", "no column", "a clip twice", "other clips", "other label"])
def test_a_table_that_cannot_be_read_is_named(run, damage):
    path = run / "tables/03_fuse_and_ablate/ablation_predictions.parquet"
    table = pd.read_parquet(path)
    expected = "ablation_predictions.parquet"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:200])
    else:
        if damage == "no column":
            table, expected = table.drop(columns="speaker"), "no column speaker"
        elif damage == "a clip twice":
            table, expected = pd.concat([table, table.head(1)]), "twice"
        elif damage == "other clips":
            table, expected = table.assign(id="x" + table["id"]), "different clips"
        else:
            table, expected = table.assign(label=np.roll(table["label"], 1)), "in the other"
        table.to_parquet(path)
    with pytest.raises(ResultsError, match=expected) as refused:
        read_run(run)
    assert str(path) in str(refused.value)


def test_names_are_those_of_the_study():
    assert MAJORITY == study.MAJORITY
