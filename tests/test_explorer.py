"""The app without a browser: what a click or a choice does to the view, and to what is shown."""

import pytest
from stored_runs import CLASSES, stored_run

from ecmf_lib.explorer import Explorer
from ecmf_lib.stored_results import StoredResults
from ecmf_lib.views import View


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    stored_run(folder / "one")
    stored_run(folder / "two", right=0.6)
    return StoredResults(folder)


@pytest.fixture
def app(stored, tmp_path):
    return Explorer(stored, View("one"), n_boot=50, folder=tmp_path)


def cell(app, label, predicted):
    """The button of a cell: the grid's first row and column hold names."""
    width = len(CLASSES) + 1
    place = (CLASSES.index(label) + 1) * width + CLASSES.index(predicted) + 1
    return app.matrix.children[0].children[place]


def test_first_view(app):
    assert len(app.scores.df) == 4
    assert app.link.value == "run=one" and app.view.reference == app.view.model == "ECMF"
    assert app.shown.value.count('class="ecmf-clip"') == 4


def test_choosing_streams_and_labels_changes_the_table(app):
    app.streams.value = ("face",)
    assert set(app.scores.df["model"]) == {"face alone", "always the commonest", "ECMF on face", "ECMF"}
    app.streams.value = ()
    app.labels.value = "refined"
    assert set(app.scores.df["model"]) == {"ECMF, refined labels", "ECMF"}
    assert app.view.labels == "refined" and "labels=refined" in app.link.value and app.message.value == ""


def test_a_choice_without_models_is_said_and_what_was_shown_stays(app):
    app.labels.value = "refined"
    app.streams.value = ("face",)
    assert "no model uses only" in app.message.value
    assert app.view.streams == () and set(app.scores.df["model"]) == {"ECMF, refined labels", "ECMF"}


def test_a_click_on_a_cell_shows_its_clips(app, stored):
    app.model.value = "concatenation"
    cell(app, "sad", "neutral").click()
    clips = app.view.clips(stored)
    assert app.view.cell == ("sad", "neutral") and len(clips) == len(app.clip.options)
    assert clips["id"][0] in app.shown.value and "not open here" in app.shown.value
    assert cell(app, "sad", "neutral").layout.border_top, "the chosen cell is marked"
    assert not cell(app, "sad", "sad").layout.border_top
    app.clip.value = len(clips) - 1
    assert clips["id"].iloc[-1] in app.shown.value and clips["id"][0] not in app.shown.value


def test_an_empty_cell_says_so(app):
    app.model.value = "concatenation"
    cell(app, "sad", "angry").click()
    assert app.clip.options == () and "no clips" in app.shown.value


def test_another_run_starts_afresh_and_two_stand_side_by_side(app):
    app.model.value = "concatenation"
    app.compare.value = "two"
    assert set(app.compared.df["model"]) == {"ECMF", "concatenation", "face alone", "always the commonest"}
    assert app._compared_box.layout.display == ""
    app.run.value = "two"
    assert app.view.run == "two" and app.view.model == "ECMF"
    app.compare.value = "(none)"
    assert app._compared_box.layout.display == "none"


def test_a_finding_is_saved_sent_and_opened(app, stored, tmp_path):
    app.streams.value = ("face",)
    app.model.value = "face alone"
    cell(app, "sad", "neutral").click()
    app.save.click()
    found, line = app.view, app.link.value
    assert View.load(tmp_path / "view.json") == found
    fresh = Explorer(stored, View("two"), n_boot=50, folder=tmp_path)
    fresh.link.value = line
    assert fresh.view == found and fresh.run.value == "one" and fresh.streams.value == ("face",)
    fresh.show(View("two"))
    fresh.open.click()
    assert fresh.view == found


@pytest.mark.parametrize("line", ["run=<b>nope</b>", "nothing", "run=one&model=<script>", '{"run": 3}'])
def test_a_line_that_cannot_be_shown_is_said_escaped(app, line):
    before = app.view
    app.link.value = line
    assert "not shown" in app.message.value and app.view == before
    assert "<script" not in app.message.value and "<b>nope" not in app.message.value
    app.file.value = "none.json"
    app.open.click()
    assert "none.json" in app.message.value
