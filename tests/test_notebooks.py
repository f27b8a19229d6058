"""Every notebook is executed with tiny parameters, is committed without outputs, and has checked parameters."""

import ast
import json
import os
import re
import socket

import nbformat
import pandas as pd
import papermill
import pytest
from conftest import REPO
from typer.testing import CliRunner
from without_kernel import without_kernels

from ecmf_lib.config import ENRICHMENT, NOTEBOOKS, PROFILES
from ecmf_lib.demo import make_demo
from ecmf_lib.run import app

SOURCES = sorted((REPO / "notebooks").glob("*.ipynb"))
TINY = ["folds=2", "seeds=1", "epochs=3", "bootstrap=50", "frames=4", "trials=0", "side_seeds=1", "steps=3"]


def test_every_notebook_is_registered():
    assert [path.stem for path in SOURCES] == sorted(NOTEBOOKS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_source_is_clean(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [], f"{path.name} has outputs; strip them"
            assert cell.execution_count is None
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1, "one parameters cell"
    assert notebook.cells[0].cell_type == "markdown", "a notebook opens with what it shows"
    assert "Exercise" in notebook.cells[-1].source, "and closes with an exercise"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_parameters_cell_agrees_with_the_settings(path):
    fields = NOTEBOOKS[path.stem].model_fields
    cell = papermill.inspect_notebook(str(path))
    assert list(cell) == list(fields)
    for name, parameter in cell.items():
        value = ast.literal_eval(parameter["default"])
        assert (type(value), value) == (type(fields[name].default), fields[name].default), name


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The report of a small demo corpus."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECMF_DATA", str(folder / "data"))
        make_demo(folder / "demo", n_clips=36, workers=1, progress=False)
        tiny = [word for setting in TINY for word in ("--set", setting)]
        result = CliRunner().invoke(app, ["report", str(folder / "demo"), "--output", str(folder / "run"), *tiny])
    assert result.exit_code == 0, result.output
    return folder / "run"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_report_has_page_notebook_and_data(run, name):
    notebook = nbformat.read(run / f"{name}.ipynb", as_version=4)
    assert not any(output.output_type == "error" for c in notebook.cells for output in c.get("outputs", []))
    page = (run / f"{name}.html").read_text(encoding="utf-8")
    assert "data:image/png;base64" in page
    headline = json.loads((run / "tables" / name / "headline.json").read_text(encoding="utf-8"))
    assert {"seed", "data fingerprint", "code version", "packages"} <= set(headline["provenance"])
    assert all(str(value) for value in headline["figures"].values())
    assert headline["title"] in (run / "index.html").read_text(encoding="utf-8")


def test_scores_come_from_stored_predictions(run):
    folder = run / "tables/03_fuse_and_ablate"
    predictions = pd.read_parquet(folder / "predictions.parquet")
    clips = pd.read_csv(run / "tables/01_extract_features/ledger.csv")
    assert set(predictions["id"]) <= set(clips["id"])
    probabilities = predictions.filter(regex="^p_").to_numpy()
    assert abs(probabilities.sum(axis=1) - 1).max() < 1e-5
    speakers = predictions.groupby(["seed", "speaker"])["fold"].nunique()
    assert speakers.max() == 1, "a speaker is in one fold only"


def test_profile_base_runs_with_weights_from_a_folder(run, monkeypatch):
    """As for a user with a network: the real formats and loading code, with tiny random weights in the hub's place."""
    folder = run.parent
    monkeypatch.setenv("ECMF_DATA", str(folder / "data"))
    without_kernels(monkeypatch)
    assert CliRunner().invoke(app, ["stand-ins", str(folder / "weights"), "--profile", "base"]).exit_code == 0
    options = ["--profile", "base", "--weights", str(folder / "weights"), "--output", str(folder / "base")]
    tiny = [word for setting in (*TINY, "workers=1") for word in ("--set", setting)]
    result = CliRunner().invoke(app, ["report", str(folder / "demo"), *options, *tiny])
    assert result.exit_code == 0, result.output
    streams = pd.read_csv(folder / "base/tables/01_extract_features/streams.csv")
    expected = PROFILES["base"] | {ENRICHMENT: PROFILES["base"]["text"]}  # one encoder reads both
    assert dict(zip(streams["stream"], streams["encoder"].str.split(" ").str[0], strict=True)) == expected
    headline = json.loads((folder / "base/tables/03_fuse_and_ablate/headline.json").read_text(encoding="utf-8"))
    assert headline["provenance"]["encoders"].count("random weights") == 5, "a reader must not take them for results"


MACHINE = re.compile(r"(?<![\w.~-])/(home|root|tmp|Users|usr|work|opt|var)/")


@pytest.mark.parametrize("which", ["tracked", "made here"])
def test_nothing_in_a_report_names_a_machine(which, request):
    folder = REPO / "reports/demo" if which == "tracked" else request.getfixturevalue("run")
    seen = [path for path in folder.rglob("*") if path.suffix in (".html", ".ipynb", ".json", ".csv")]
    assert len(seen) > 10
    for path in seen:
        text = re.sub(r"base64,[\w+/=]+|\"image/png\": \"[^\"]*\"", "", path.read_text(encoding="utf-8"))
        text = text.replace(os.path.relpath(folder.parent, REPO), "")  # the corpus and the output are given like this
        assert not MACHINE.search(text), f"{path.name}: {MACHINE.search(text)}"
        assert socket.gethostname() not in text or len(socket.gethostname()) < 4, path.name
