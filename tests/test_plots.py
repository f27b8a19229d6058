"""Every picture has its labels and legend, shows the numbers it was given, and fits its figure."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from ecmf_lib import plots
from ecmf_lib.config import EMOTIONS, ENRICHMENT, STREAMS


@pytest.fixture(autouse=True)
def closed_afterwards():
    yield
    plt.close("all")


@pytest.fixture
def clips(rng):
    labels = np.repeat(EMOTIONS, 10)
    table = pd.DataFrame({"label": labels, "split": ["labelled"] * 45 + ["test"] * 15})
    for k in (1, 2, 3):
        table[f"annotator_{k}"] = np.where(rng.random(60) < 0.7, labels, rng.choice(EMOTIONS, 60))
    table.loc[:4, "label"] = ""
    return table


@pytest.fixture
def ledger():
    table = pd.DataFrame({"id": range(40), "status": "done"} | dict.fromkeys(STREAMS, "done"))
    table.loc[:3, "status"] = "failed"
    table.loc[:3, ["global", "face", "audio"]] = [f"/a/very/long/path/to/clip{k}.mp4: truncated" for k in range(3)]
    table.loc[10:14, "audio"] = "audio is silent"
    table.loc[20, "face"] = "no face found"
    return table


@pytest.fixture
def predictions(rng):
    table = pd.DataFrame(rng.dirichlet([2, 4, 2, 1], 60), columns=[f"w_{stream}" for stream in STREAMS])
    table["label"] = np.repeat(EMOTIONS, 10)
    table["predicted"] = rng.choice(EMOTIONS, 60)
    return table


@pytest.fixture
def scores():
    models = ["ECMF", "a model with a rather long name", "audio only"]
    columns = {"model": models, "weighted_f1": [0.8, 0.7, 0.4], "low": [0.75, 0.6, 0.3], "high": [0.85, 0.8, 0.5]}
    return pd.DataFrame(columns)


def texts(ax):
    return [text.get_text() for text in ax.texts if text.get_text()]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def assert_readable(ax, *, axis_labels=True):
    """Laid out, nothing sticks out of the figure, axes are named, and any legend says something."""
    figure = ax.figure
    assert figure.get_figwidth() <= plots.WIDTH
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    assert box.x0 >= -0.02 and box.y0 >= -0.02  # inches
    assert box.x1 <= figure.get_figwidth() + 0.02 and box.y1 <= figure.get_figheight() + 0.02
    if axis_labels:
        assert ax.get_xlabel() and ax.get_ylabel()
    if ax.get_legend():
        assert legend(ax) and all(legend(ax))


# --- the corpus ----------------------------------------------------------------------------------------------------


def test_class_balance_counts_every_clip(clips):
    ax = plots.class_balance(clips, EMOTIONS)
    assert_readable(ax)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == list(EMOTIONS)
    assert sum(bar.get_height() for bar in ax.patches) == 55
    assert legend(ax) == ["labelled", "test"] and "5 of 60" in ax.get_xlabel()
    full = {to_hex(bar.get_facecolor()) for bar in ax.patches[:6]}
    assert full == set(plots.EMOTION_COLOURS.values())


def test_class_balance_shows_a_class_without_clips(clips):
    ax = plots.class_balance(clips[clips["label"] != "sad"], EMOTIONS)
    assert len(ax.get_xticklabels()) == 6 and len(texts(ax)) == sum(bar.get_height() > 0 for bar in ax.patches)


def test_annotator_agreement_of_known_votes():
    votes = [("sad", "sad", "sad"), ("sad", "sad", "happy"), ("sad", "happy", "angry"), ("sad", "sad", "")]
    table = pd.DataFrame(votes, columns=["annotator_1", "annotator_2", "annotator_3"]).assign(label="sad")
    ax = plots.annotator_agreement(table, ["sad"])
    assert_readable(ax)
    assert legend(ax) == ["all agree", "majority", "no majority"]
    assert [bar.get_width() for bar in ax.patches] == [2, 1, 1]


def test_annotator_agreement_names_kappa(clips):
    same = clips.assign(annotator_2=clips["annotator_1"], annotator_3=clips["annotator_1"])
    assert plots.annotator_agreement(same, EMOTIONS).get_title() == "3 annotators, mean pairwise kappa 1.00"
    with pytest.raises(ValueError, match="two annotator_"):
        plots.annotator_agreement(clips[["label", "annotator_1"]], EMOTIONS)


def test_ledger_summary_accounts_for_every_clip(ledger):
    ax = plots.ledger_summary(ledger)
    assert_readable(ax)
    assert sum(bar.get_width() for bar in ax.patches) == len(ledger) * len(STREAMS)
    assert legend(ax) == ["done", "clip failed", "audio is silent", "no face found"]
    assert [bar.get_width() for bar in ax.patches[:4]] == [36, 35, 31, 40]


def test_ledger_summary_gathers_rare_and_long_reasons(ledger):
    ledger.loc[10:29, "audio"] = [f"reason {k} that goes on and on and on and on and on" for k in range(20)]
    ax = plots.ledger_summary(ledger)
    assert_readable(ax)
    assert legend(ax)[-1] == "other reasons" and len(legend(ax)) == 8
    assert sum(bar.get_width() for bar in ax.patches) == len(ledger) * len(STREAMS)


# --- one clip ------------------------------------------------------------------------------------------------------


def test_film_strip_draws_each_frame_and_found_box(rng):
    frames = rng.integers(0, 255, (7, 60, 80, 3), dtype=np.uint8)
    boxes = np.full((7, 4), np.nan)
    boxes[1], boxes[6] = [10, 5, 30, 40], [-9, 20, 200, 90]
    ax = plots.film_strip(frames, np.arange(7) / 4, boxes)
    assert_readable(ax, axis_labels=False)
    assert len(ax.images) == 7 and texts(ax)[:2] == ["0.00 s", "0.25 s"]
    drawn = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    assert len(drawn) == 2
    for index, box in zip((1, 6), drawn, strict=True):  # inside its own frame, also where the box leaves it
        left, right, bottom, top = ax.images[index].get_extent()
        assert left <= box.get_x() and box.get_x() + box.get_width() <= right
        assert top <= box.get_y() and box.get_y() + box.get_height() <= bottom
    assert (drawn[0].get_width(), drawn[0].get_height()) == (20, 35)


def test_film_strip_without_boxes(rng):
    ax = plots.film_strip(rng.integers(0, 255, (1, 60, 80, 3), dtype=np.uint8), np.zeros(1))
    assert_readable(ax, axis_labels=False)
    assert not ax.patches


def test_face_crops_marks_those_that_are_not_its_own(rng):
    crops = rng.integers(0, 150, (14, 112, 112, 3), dtype=np.uint8)
    found = np.ones(14, bool)
    found[3] = False
    ax = plots.face_crops(crops, found)
    assert_readable(ax, axis_labels=False)
    assert texts(ax) == ["carried"]
    assert np.array_equal(ax.images[0].get_array(), crops[0]) and ax.images[3].get_array().min() >= 160


def test_waveform_and_pitch_share_the_time(rng):
    audio = rng.normal(0, 0.1, 32_000).astype(np.float32)
    contour = pd.DataFrame({"time": [0.5, 1.0, 1.5], "hz": [120.0, np.nan, 180.0]})
    ax = plots.waveform_and_pitch(audio, 16_000, contour)
    assert_readable(ax)
    right = next(other for other in ax.figure.axes if other is not ax)
    assert right.get_ylabel() == "pitch (Hz)" and legend(right) == ["waveform", "pitch"]
    assert ax.get_xlim() == (0, 2) == right.get_xlim() and right.get_ylim()[1] > 180
    outline = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert outline.max() == pytest.approx(audio.max()) and outline.min() == pytest.approx(audio.min())


def test_waveform_without_pitch_or_sound():
    silent = np.zeros(1000, np.float32)
    assert_readable(plots.waveform_and_pitch(silent, 16_000, pd.DataFrame({"time": [], "hz": []})))


def test_feature_bars_take_the_largest_of_either_sign():
    ax = plots.feature_bars(["small", "most_negative", "most_positive"], np.array([0.1, -3, 2]), top=2)
    assert_readable(ax)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["most negative", "most positive"]
    assert [bar.get_width() for bar in ax.patches] == [-3, 2]


# --- two branches --------------------------------------------------------------------------------------------------


@pytest.fixture
def looks(rng):
    """Twelve frames, the face lost in one that is shown; a branch that begins late, one with gaps, and shares."""
    times = np.sort(rng.uniform(0, 3, 12))
    found = np.arange(12) != 4
    boxes = np.where(found[:, None], [10.0, 5, 30, 40], np.nan)
    changes = {
        "global: some-encoder": pd.DataFrame(rng.normal(size=(6, 11)), [f"name_{k}" for k in range(6)], times[1:]),
        "face: other-encoder (random weights)": pd.DataFrame(rng.normal(size=(3, 11)), list("abc"), times[found]),
    }
    departures = {"global": pd.Series(rng.random(11), times[1:]), "face": pd.Series(rng.random(11), times[found])}
    shares = pd.DataFrame(rng.dirichlet([1, 1], 11).T, ["happy", "sad"], times[found])
    frames, crops = (rng.integers(0, 200, (12, *size, 3), dtype=np.uint8) for size in ((60, 80), (112, 112)))
    return frames, times, boxes, crops, found, changes, departures, shares


def test_two_branches_show_frames_crops_and_what_encoders_see(looks):
    frames, times, _, _, found, changes, _, _ = looks
    figure = plots.two_branches(*looks)
    pictures, crops, first, second, classes, lines = figure.axes[:6]
    assert_readable(lines)
    assert len(pictures.images) == len(crops.images) == 6 and texts(crops) == ["no face"]
    assert len(pictures.patches) == 5
    for axes, images in ((pictures, frames), (crops, looks[3])):  # not stretched
        width, height = axes.images[0].get_window_extent().size
        assert width / height == pytest.approx(images.shape[2] / images.shape[1], rel=0.01)
    assert [axes.get_title(loc="left") for axes in (first, second)] == list(changes)
    assert [tick.get_text() for tick in first.get_yticklabels()] == [f"name {k}" for k in range(6)]
    assert [tick.get_text() for tick in classes.get_yticklabels()] == ["happy", "sad"]
    drawn = second.collections[0].get_array().reshape(3, 12)
    assert np.ma.getmaskarray(drawn).all(axis=0).tolist() == (~found).tolist(), "no colour where there is no face"
    np.testing.assert_allclose(drawn[:, found], changes["face: other-encoder (random weights)"])
    assert np.ma.getmaskarray(first.collections[0].get_array().reshape(6, 12)).all(axis=0).nonzero()[0].tolist() == [0]
    assert first.collections[0].get_clim() == second.collections[0].get_clim(), "one scale for both branches"
    assert classes.collections[0].get_clim() == (0, 1)
    assert legend(lines) == ["global", "face"]
    limits = {axes.get_xlim() for axes in (pictures, crops, first, second, classes, lines)}
    assert len(limits) == 1 and next(iter(limits))[0] <= times[0] and times[-1] <= next(iter(limits))[1]


def test_two_branches_without_face_and_classes(looks):
    frames, times, boxes, crops, found, changes, departures, _ = looks
    only = [{name: of_both[name] for name in list(of_both)[:1]} for of_both in (changes, departures)]
    figure = plots.two_branches(frames, times, boxes * np.nan, crops, found & False, *only)
    assert_readable(figure.axes[3])
    assert len(figure.axes) == 5 and texts(figure.axes[1]) == ["no face"] * 6 and not figure.axes[0].patches


def test_two_branches_of_a_single_frame_and_of_steps_between_frames(looks):
    frames, times, boxes, crops, found, _, _, _ = looks
    changes = {"global: film": pd.DataFrame([[0.5, -0.5]], ["no. 1"], [0.2, 0.4])}
    departures = {"global": pd.Series([0.5, 0.5], [0.2, 0.4])}
    figure = plots.two_branches(frames[:1], times[:1], boxes[:1], crops[:1], found[:1], changes, departures)
    assert_readable(figure.axes[3])
    assert figure.get_figheight() < 7, "a single picture does not fill the page"


# --- models --------------------------------------------------------------------------------------------------------


def test_scores_with_intervals_show_point_interval_and_chance(scores):
    ax = plots.scores_with_intervals(scores, chance=0.21)
    assert_readable(ax)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == list(scores["model"])
    assert texts(ax) == ["0.800", "0.700", "0.400"]
    assert legend(ax) == ["weighted F1, interval", "chance 0.210"]
    whiskers = ax.containers[0][2][0].get_segments()
    assert np.allclose([segment[:, 0] for segment in whiskers], scores[["low", "high"]])
    assert legend(plots.scores_with_intervals(scores)) == ["weighted F1, interval"]


def test_score_numbers_stay_inside_the_axes(scores):
    ax = plots.scores_with_intervals(scores.assign(high=1.0), chance=0.0)
    ax.figure.draw_without_rendering()
    assert max(text.get_window_extent().x1 for text in ax.texts) <= ax.get_window_extent().x1


def test_confusion_gives_share_of_the_true_class_and_count():
    matrix = pd.DataFrame([[3, 1, 0], [0, 0, 0], [2, 0, 8]], list("abc"), list("abc"))
    ax = plots.confusion(matrix)
    assert_readable(ax)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted", "true")
    assert texts(ax) == ["75%\n3", "25%\n1", "0%\n0", "0%\n0", "0%\n0", "0%\n0", "20%\n2", "0%\n0", "80%\n8"]


def test_confusion_of_the_six_classes_fits(rng):
    assert_readable(plots.confusion(pd.DataFrame(rng.integers(0, 999, (6, 6)), EMOTIONS, EMOTIONS)))


def test_per_class_f1_has_a_number_for_each_cell(rng):
    ax = plots.per_class_f1(pd.DataFrame(rng.random((4, 6)), [f"model {k}" for k in range(4)], EMOTIONS))
    assert_readable(ax)
    assert len(texts(ax)) == 24


@pytest.mark.parametrize("by", ["label", "predicted"])
def test_stream_weights_by_class(predictions, by):
    ax = plots.stream_weights(predictions, by=by)
    assert_readable(ax)
    assert legend(ax) == list(STREAMS) and ax.get_xlabel() == by
    assert [tick.get_text() for tick in ax.get_xticklabels()] == list(EMOTIONS)


def test_stream_weights_needs_weights(predictions):
    with pytest.raises(ValueError, match="no w_<stream>"):
        plots.stream_weights(predictions[["label"]])


# --- shared --------------------------------------------------------------------------------------------------------


def test_colours_are_fixed_and_different():
    assert set(plots.EMOTION_COLOURS) == set(EMOTIONS) and list(plots.STREAM_COLOURS) == [*STREAMS, ENRICHMENT]
    given = plots.colours(["face", "enrichment", *(f"stream {k}" for k in range(6))], plots.STREAM_COLOURS)
    assert given["face"] == plots.STREAM_COLOURS["face"] and given[ENRICHMENT] == plots.STREAM_COLOURS[ENRICHMENT]
    assert len(set(plots.STREAM_COLOURS.values()) | set(given.values())) == 5 + 6, "spare colours are none of the fixed"


def test_draws_into_given_axes(scores, clips):
    _, (left, right) = plt.subplots(1, 2)
    assert plots.scores_with_intervals(scores, ax=left) is left
    assert plots.class_balance(clips, EMOTIONS, ax=right) is right


def test_scores_without_intervals_are_drawn():
    table = pd.DataFrame({"model": ["a", "b"], "weighted_f1": [0.4, 0.4], "low": np.nan, "high": np.nan})
    ax = plots.scores_with_intervals(table)
    assert np.isfinite(ax.get_xlim()).all()
    assert [text.get_text() for text in ax.texts] == ["0.400", "0.400"]
