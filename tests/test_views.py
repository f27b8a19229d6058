"""A view says the same after a file and a link; its tables are those of the evaluation; others are refused."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored_runs import CLASSES, stored_run

from ecmf_lib import evaluate
from ecmf_lib.stored_results import ResultsError, StoredResults
from ecmf_lib.view_page import ClipFacts, card, confusion_page
from ecmf_lib.view_text import ViewError
from ecmf_lib.views import View, commonest_error, opened

QUICK = {"n_boot": 50}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    stored_run(folder / "one")
    stored_run(folder / "two", right=0.6)
    stored_run(folder / "fewer", clips=18)
    return StoredResults(folder)


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
names = texts.filter(lambda text: text not in (".", "..") and "/" not in text and "\\" not in text)


@given(
    st.builds(
        View,
        run=names,
        models=st.lists(texts, max_size=3).map(tuple),
        streams=st.lists(texts, max_size=3).map(tuple),
        labels=texts | st.just(""),
        model=texts | st.just(""),
        cell=st.none() | st.tuples(texts, texts),
        compare=names | st.just(""),
    )
)
def test_a_view_comes_back_from_its_file_and_its_link(view):
    assert View.read(view.to_json()) == view
    assert View.read(view.to_query()) == view
    assert View.read(f"06_explore.html?{view.to_query()}") == view


def test_a_view_is_saved_and_opened(tmp_path):
    view = View("one", models=("ECMF",), cell=("sad", "angry"))
    path = view.save(tmp_path / "views/finding.json")
    assert View.load(path) == view == opened("views/finding.json", "other", tmp_path)
    assert json.loads(path.read_text(encoding="utf-8")) == {"run": "one", "models": ["ECMF"], "cell": ["sad", "angry"]}
    assert opened("", "other", tmp_path) == View("other")
    assert opened("run=one&cell=sad&cell=angry", "other", tmp_path) == View("one", cell=("sad", "angry"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "run is empty"),
        ("demo", "neither JSON nor a query"),
        ("{", "not JSON"),
        ("{" * 30_000, "not JSON"),
        ('{"run": "a", "code": 1}', "unknown code"),
        ('{"models": ["a"]}', "run is empty"),
        ('{"run": 1}', "expected a text"),
        ('{"run": "a", "models": "ECMF"}', "expected a list"),
        ('{"run": "a", "models": [1]}', "expected a list"),
        ('{"run": "a", "cell": ["sad"]}', "the label and the predicted"),
        ('{"run": "a", "cell": "so"}', "the label and the predicted"),
        ('{"run": "../../etc"}', "not a path"),
        ("run=..", "not a path"),
        ("run=a&run=b", "twice"),
        ("run=a&cell=sad", "the label and the predicted"),
        ("run=a&model=" + "x" * 600, "500 letters"),
        ("run=" + "x" * 70_000, "65,536 at most"),
        ("&".join(["run=a", *["models=b"] * 5000]), "query|list"),
    ],
)
def test_texts_that_are_no_view_are_refused(text, said):
    with pytest.raises(ViewError, match=said):
        View.read(text)


def test_a_file_that_is_no_view_is_named(tmp_path):
    (tmp_path / "odd.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(ViewError, match=r"odd\.json"):
        View.load(tmp_path / "odd.json")
    with pytest.raises(FileNotFoundError):
        View.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("view", "said"),
    [
        (View("one", models=("TFN",)), "models: no 'TFN'"),
        (View("one", streams=("text",)), "streams: no 'text'"),
        (View("one", labels="guessed"), "labels: no 'guessed'"),
        (View("one", model="TFN"), "model: no 'TFN'"),
        (View("one", cell=("sad", "happy")), "cell: no 'happy'"),
        (View("one", labels="refined", streams=("face",)), "no model uses only"),
    ],
)
def test_what_is_not_stored_is_refused(stored, view, said):
    with pytest.raises(ViewError, match=said):
        view.table(stored)
    for run in (View("none"), View("one", compare="none")):
        with pytest.raises(ResultsError, match="'none'"):
            run.checked(stored)


def test_table_is_the_evaluation_of_the_chosen_models(stored):
    table = View("one").table(stored, n_boot=300)
    runs = {name: stored.run("one").tables[name] for name in table["model"]}
    own = evaluate.results_table(dict(sorted(runs.items())), reference="ECMF", n_boot=300)
    assert set(runs) == {"ECMF", "concatenation", "face alone", "always the commonest"}, "by default the main table"
    assert table.set_index("model")["streams"].to_dict() == {
        "ECMF": "all",
        "concatenation": "all",
        "face alone": "face",
        "always the commonest": "none",
    }
    columns = ["weighted_f1", "low", "high", "difference", "difference_low", "difference_high", "p_holm"]
    pd.testing.assert_frame_equal(
        table.set_index("model")[columns].sort_index(), own.set_index("model")[columns].sort_index()
    )


@pytest.mark.parametrize(
    ("view", "models"),
    [
        (View("one", streams=("face",)), {"face alone", "always the commonest", "ECMF on face"}),
        (View("one", labels="refined"), {"ECMF, refined labels"}),
        (View("one", models=("without face", "ECMF (fixed recipe)")), {"without face", "ECMF (fixed recipe)"}),
        (View("one", models=("ECMF", "face alone"), streams=("face",)), {"face alone"}),
    ],
)
def test_models_are_chosen_by_name_streams_and_labels(stored, view, models):
    assert set(view.table(stored, **QUICK)["model"]) == models


def test_the_reference_is_in_the_table_even_if_it_was_not_chosen(stored):
    table = View("one", models=("concatenation",), reference="ECMF").table(stored, **QUICK)
    assert set(table["model"]) == {"ECMF", "concatenation"}


def test_enough_resamples_are_drawn_for_the_correction(stored):
    """With 50 resamples p is .039 at least: four models, corrected, could never be told apart."""
    p = View("one").differences(stored, **QUICK).set_index("model")["p_holm"]
    assert p["always the commonest"] < 0.05


def test_differences_are_in_words_what_they_are_in_numbers(stored):
    table = View("one").differences(stored, n_boot=500).set_index("model")
    assert table.loc["always the commonest", "in words"] == "behind"
    assert "ECMF" not in table.index
    other = View("one", reference="always the commonest").differences(stored, n_boot=500).set_index("model")
    assert other.loc["ECMF", "in words"] == "ahead"
    assert other.loc["ECMF", "difference"] == pytest.approx(-table.loc["always the commonest", "difference"])


def test_the_cells_clips_are_those_that_the_matrix_counts(stored):
    view = View("one", model="concatenation")
    matrix = view.confusion(stored)
    for label in CLASSES:
        for predicted in CLASSES:
            clips = replace(view, cell=(label, predicted)).clips(stored)
            assert clips["times"].sum() / 2 == matrix.loc[label, predicted], "two seeds"
            assert (clips["label"] == label).all() and (clips["predicted"] == predicted).all()
            assert clips["id"].is_unique and clips["times"].is_monotonic_decreasing
    clips = View("one").clips(stored)
    assert np.allclose(clips["confidence"], 0.6) and np.allclose(clips["w_face"], 0.5)
    assert "w_face" not in view.clips(stored), "concatenation weighs no streams"


def test_the_commonest_error_is_the_largest_cell_off_the_diagonal(stored):
    view = View("one", model="face alone")
    matrix, (label, predicted) = view.confusion(stored), commonest_error(view, stored)
    off = matrix.to_numpy()[~np.eye(3, dtype=bool)]
    assert label != predicted and matrix.loc[label, predicted] == off.max()


def test_two_runs_are_paired_where_they_score_the_same_clips(stored):
    table = View("one", compare="two").runs_compared(stored, n_boot=300).set_index("model")
    run = [stored.run(name).tables["ECMF"] for name in ("one", "two")]
    assert table.loc["ECMF", "difference"] == pytest.approx(evaluate.compare(*run, n_boot=300).difference)
    assert table.loc["ECMF", "low"] > 0 and table.loc["concatenation", "difference"] == 0
    other = View("one", compare="fewer").runs_compared(stored, n_boot=300).set_index("model")
    assert np.isnan(other.loc["ECMF", "low"]) and "not paired" in other.loc["ECMF", "note"]
    assert View("one").runs_compared(stored).empty


HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


def test_the_page_links_every_cell_to_its_clips_and_runs_nothing(stored):
    frame = np.zeros((24, 32, 3), np.uint8)
    facts = ClipFacts(frame, f"words {HOSTILE}", f"cues {HOSTILE}", None)
    page = confusion_page(View("one", cell=("sad", "neutral")), stored, lambda clip: facts, most=2)
    matrix = View("one").confusion(stored).to_numpy()
    assert page.count('href="#cell-') == page.count('<section id="cell-') == (matrix > 0).sum()
    assert 'id="cell-2-0" class="first"' in page, "the view's cell is shown first"
    assert "<script" not in page and "<img src=x" not in page and "words &lt;script&gt;" in page
    assert "data:image/jpeg;base64" in page and "<video" not in page
    bare = confusion_page(View("one"), stored, lambda clip: None, most=0)
    assert "href" not in bare and "<section" not in bare


def test_a_clip_is_shown_with_its_player_only_where_one_is_wanted(stored, tmp_path):
    row = View("one").clips(stored).to_dict("records")[0]
    video = tmp_path / "clip.mp4"
    video.write_bytes(b"1234")
    facts = ClipFacts(None, "", "", video)
    assert 'src="data:video/mp4;base64,MTIzNA=="' in card(row, facts, player=True)
    assert "<video" not in card(row, facts)
    assert "no picture" in card(row, ClipFacts(None, "", "", tmp_path / "gone.mp4"), player=True)
    assert "not open here" in card(row | {"confidence": np.nan}, None)
    assert "<script" not in card(row | {"id": HOSTILE, "speaker": HOSTILE, f"w_{HOSTILE}": 0.5}, facts)
