"""Pictures of the fusion study show the numbers they were given, name what they lack, and fit their figure."""

import inspect
import itertools

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib import font_manager
from matplotlib.colors import to_hex
from matplotlib.patches import Circle, FancyBboxPatch
from matplotlib.text import Text

from ecmf_lib import fusion, plots
from ecmf_lib.plots import architecture as architecture_function
from ecmf_lib.plots.marks import looks
from ecmf_lib.plots.style import cjk_fonts

FIVE = ["global", "face", "audio", "text", "enrichment"]
STRANGE = ["face", "au35", "mfcc259", "w2v2_1024"]
MODELS = ["ECMF", "late fusion", "baseline attention"]
PRACTICES = ["random clips, epoch picked on the scored fold", "random clips", "speakers held apart, nothing picked"]


@pytest.fixture(autouse=True)
def closed_afterwards():
    yield
    plt.close("all")


def spread(table, half=0.05):
    return table.assign(low=table["weighted_f1"] - half, high=table["weighted_f1"] + half)


def subsets_of(streams):
    names = [" + ".join(some) for k in range(1, len(streams) + 1) for some in itertools.combinations(streams, k)]
    return spread(pd.DataFrame({"streams": names, "weighted_f1": np.linspace(0.3, 0.8, len(names))}))


def crossed(score=0.7, **columns):
    rows = list(itertools.product(*columns.values()))
    table = pd.DataFrame(rows, columns=list(columns))
    return spread(table.assign(weighted_f1=score - 0.01 * np.arange(len(rows)) / len(rows)))


def bins(states=("raw", "after temperature scaling")):
    table = crossed(state=states, confidence_bin=range(10))
    confidence = (table["confidence_bin"] + 0.5) / 10
    return table.assign(confidence=confidence, accuracy=0.8 * confidence, share=0.1, ece=np.repeat([0.13, 0.02], 10))


def differences():
    low, high = [np.nan, -0.05, -0.01, 0.01, np.nan], [np.nan, -0.01, 0.02, 0.03, np.nan]
    names = ["ECMF", "without face", "without attention", "without residual", "without text"]
    table = pd.DataFrame({"model": names, "difference": [np.nan, -0.03, 0.005, 0.02, -0.004]})
    return table.assign(difference_low=low, difference_high=high, p_holm=[np.nan, 0.0002, 0.8, 0.031, np.nan])


def weighed(rng, streams, clips):
    table = pd.DataFrame(rng.dirichlet(np.ones(len(streams)), clips), columns=[f"w_{name}" for name in streams])
    return table.assign(label="sad", predicted=["sad", "worried", "angry", "sad", "sad", "sad"][:clips])


def assert_fits(drawn):
    """Page width, each visible text inside the figure, and no legend without words."""
    figure = drawn.figure
    assert figure.get_figwidth() <= plots.WIDTH
    figure.draw_without_rendering()
    inches = figure.get_tightbbox()
    assert inches.x0 >= -0.02 and inches.y0 >= -0.02
    assert inches.x1 <= figure.get_figwidth() + 0.02 and inches.y1 <= figure.get_figheight() + 0.02
    for legend in [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend())]:
        assert legend.get_texts() and all(text.get_text() for text in legend.get_texts())


def texts(artist):
    return [text.get_text() for text in artist.findobj(Text) if text.get_text()]


def ticks(ax):
    return [tick.get_text().replace("\n", " ") for tick in ax.get_yticklabels()]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


# --- architecture --------------------------------------------------------------------------------------------------


def in_boxes(figure):
    """Words of each box, checked to lie inside it."""
    figure.draw_without_rendering()
    (ax,) = figure.axes
    found = []
    for box in (patch for patch in ax.patches if isinstance(patch, FancyBboxPatch)):
        around = box.get_window_extent()
        for text in (text for text in ax.texts if text.get_text()):
            extent = text.get_window_extent()
            if not around.contains(*extent.get_points().mean(0)):
                continue
            assert around.x0 <= extent.x0 and extent.x1 <= around.x1, f"{text.get_text()!r} is wider than its box"
            assert around.y0 <= extent.y0 and extent.y1 <= around.y1, f"{text.get_text()!r} is higher than its box"
            found.append((text.get_text().replace("\n", " "), box.get_linestyle()))
    return dict(found)


@pytest.mark.parametrize("count", [1, 2, 5, 6])
@pytest.mark.parametrize(
    ("residual", "experts"), [("stream", True), ("none", True), ("concat", True), ("stream", False)]
)
def test_architecture_has_a_box_for_each_stream_and_texts_fit_their_boxes(count, residual, experts):
    dims = dict(zip([*FIVE, "w2v2_a_very_long_name"], [768, 1024, 1024, 768, 768, 35], strict=True))
    dims = dict(list(dims.items())[-count:])
    figure = plots.architecture(dims, width=128, heads=8, residual=residual, experts=experts)
    assert_fits(figure)
    boxes = in_boxes(figure)
    assert f"w2v2_a_very_lon… {35}" in boxes and ("face 1,024" in boxes) == (count >= 5)
    assert "self-attention over streams 8 heads" in boxes and "tokens\nof 128" in texts(figure)
    assert sum(text == "linear\nGELU" for text in texts(figure)) == count
    boundaries = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text()]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boundaries, 2)), "texts touch"
    outlines = [p.get_window_extent() for p in figure.axes[0].patches if isinstance(p, FancyBboxPatch)]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(outlines, 2)), "boxes touch"
    assert all(text.get_fontsize() >= 7.5 for text in figure.axes[0].texts)


@pytest.mark.parametrize("residual", ["stream", "none", "concat"])
def test_architecture_adds_experts_opinions_on_features_to_the_logits(residual):
    dims = {"au35": 35, "mfcc259": 259, "w2v2_1024": 1024}
    figure = plots.architecture(dims, residual=residual)
    boxes = in_boxes(figure)
    assert boxes["linear expert a stream, closed form"] == "-"
    assert boxes["weighted sum × streams present × learned trust"] == "-"
    assert ("the same weights" in texts(figure)) == (residual == "stream")
    signs = {True: summing(figure), False: summing(plots.architecture(dims, residual=residual, experts=False))}
    assert signs[True] == signs[False] + 1, "without the own opinions there is nothing else to add to the logits"
    (taps,) = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    features = [text.get_position()[1] for text in figure.axes[0].texts if text.get_text().split("\n")[0] in dims]
    assert list(taps.get_ydata()) == features, "experts take the features of each stream, before its projection"
    assert not any("expert" in said for said in texts(plots.architecture(dims, experts=False)))


def summing(figure):
    return sum(isinstance(patch, Circle) for patch in figure.axes[0].patches)


def test_architecture_dashes_what_acts_in_training_only():
    boxes = in_boxes(plots.architecture({"face": 512, "audio": 1024}))
    assert {name for name, style in boxes.items() if style == "--"} == {"modality dropout", "auxiliary losses"}
    boxes = in_boxes(plots.architecture({"face": 512, "audio": 1024}, residual="none"))
    assert boxes["each stream's own classifier"] == "--", "without the residual the opinions are for their loss only"


def test_architecture_leaves_out_what_is_off():
    figure = plots.architecture({"face": 512, "audio": 1024}, residual="none", attention=False, experts=False, parts=())
    said = " ".join(texts(figure))
    assert not any(word in said for word in ("attention", "dropout", "losses", "own", "training", "residual"))
    assert "original tokens" in said and "softmax" in said
    assert "original tokens" not in texts(plots.architecture({"face": 512}, parts=["sum_attended"]))
    assert "residual: all tokens beside the sum" in texts(plots.architecture({"face": 512}, residual="concat"))


def test_architecture_knows_what_the_fusion_knows():
    assert set(architecture_function.__globals__["RESIDUALS"]) == set(fusion.RESIDUALS)
    drawn, built = (inspect.signature(made).parameters for made in (plots.architecture, fusion.ECMF))
    for name in ("width", "heads", "residual", "experts", "attention"):
        assert drawn[name].default == built[name].default
    with pytest.raises(ValueError, match="residual = 'sum'"):
        plots.architecture({"face": 512}, residual="sum")
    with pytest.raises(ValueError, match="no part dropout"):
        plots.architecture({"face": 512}, parts=["dropout"])
    with pytest.raises(ValueError, match="at least one stream"):
        plots.architecture({})


# --- subsets of streams --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streams", [["audio"], FIVE[:3], FIVE, STRANGE])
def test_subset_scores_are_sorted_and_their_dots_say_which_streams(streams):
    table = subsets_of(streams)
    figure = plots.subset_scores(table.sample(frac=1, random_state=0))
    assert_fits(figure)
    upper, matrix = figure.axes
    numbers = [float(text.get_text()) for text in upper.texts]
    assert numbers == sorted(numbers, reverse=True) and len(numbers) == 2 ** len(streams) - 1
    assert ticks(matrix) == [name for name in FIVE if name in streams] + [s for s in streams if s not in FIVE]
    best_first = [names.split(" + ") for names in table["streams"][::-1]]
    filled = {cloud.get_label(): cloud for cloud in matrix.collections}
    palette = plots.colours(ticks(matrix), plots.STREAM_COLOURS)
    for name in streams:
        places = filled[f"{name} in"].get_offsets()[:, 0].tolist()
        assert places == [place for place, names in enumerate(best_first) if name in names]
        assert to_hex(filled[f"{name} in"].get_facecolor()[0]) == palette[name]
    assert len(set(palette.values())) == len(streams)


def test_subset_numbers_do_not_touch():
    figure = plots.subset_scores(subsets_of(FIVE))
    figure.draw_without_rendering()
    extents = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(extents))
    top = figure.axes[0].get_window_extent().y1
    assert max(extent.y1 for extent in extents) <= top


def test_subset_scores_legend_has_what_there_is():
    table = subsets_of(FIVE[:3])
    assert legend(plots.subset_scores(table).axes[0]) == ["one stream", "several", "all streams"]
    assert legend(plots.subset_scores(table[:3]).axes[0]) == ["one stream"]


# --- curves --------------------------------------------------------------------------------------------------------


def test_curves_draw_each_model_with_its_shade():
    table = crossed(model=MODELS, level=[1.0, 0.0, 0.5])
    ax = plots.curves(table, x="level", xlabel="hidden", percent=True)
    assert_fits(ax)
    assert legend(ax) == MODELS and len(ax.lines) == len(ax.collections) == 3
    assert ax.lines[0].get_xdata().tolist() == [0, 0.5, 1]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("hidden", "weighted F1")
    assert ax.xaxis.get_major_formatter()(0.5) == "50%"
    assert not plots.curves(table.drop(columns="low"), x="level").collections


def test_robustness_has_a_panel_for_each_kind_and_stream():
    table = crossed(kind=["missing", "noise"], stream=FIVE, level=[0, 0.5, 1], model=MODELS)
    figure = plots.robustness(table)
    assert_fits(figure)
    assert [ax.get_title() for ax in figure.axes] == FIVE * 2
    assert all(len(ax.lines) == 3 for ax in figure.axes) and len({ax.get_ylim() for ax in figure.axes}) == 1
    assert [text.get_text() for text in figure.legends[0].get_texts()] == MODELS
    tops = [to_hex(ax.spines["top"].get_edgecolor()) for ax in figure.axes[:4]]
    assert tops == [plots.STREAM_COLOURS[name] for name in FIVE[:4]]


def test_robustness_of_one_kind_and_many_strange_streams():
    table = crossed(kind=["missing"], stream=[*STRANGE, "text", "audio"], level=[0, 1], model=["ECMF"])
    figure = plots.robustness(table.assign(low=np.nan))
    assert_fits(figure)
    assert len(figure.axes) == 6 and not any(ax.collections for ax in figure.axes)
    with pytest.raises(ValueError, match="kind 'blur'"):
        plots.robustness(table.assign(kind="blur"))


def test_learning_curve_names_clips_and_speakers():
    table = crossed(model=MODELS, clips=[288, 576, 864, 1152])
    ax = plots.learning_curve(table.assign(speakers=table["clips"] / 48))
    assert_fits(ax)
    assert ax.get_xscale() == "linear"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["288\n(6)", "576\n(12)", "864\n(18)", "1,152\n(24)"]


def test_learning_curve_of_doubled_sizes_is_logarithmic_and_labels_do_not_touch():
    table = crossed(model=["ECMF"], clips=[50, 100, 200, 400, 800, 1600, 1610]).assign(speakers=3, low=np.nan)
    ax = plots.learning_curve(table)
    assert_fits(ax)
    labels = [tick.get_text() for tick in ax.get_xticklabels()]
    assert ax.get_xscale() == "log" and labels[0] == "50\n(3)" and labels[-1] == "1,610\n(3)" and len(labels) == 6
    assert plots.learning_curve(table[:1]).get_xscale() == "linear"


def test_reliability_shows_bins_diagonal_and_error():
    table = bins()
    table.loc[0, ["confidence", "accuracy"]] = np.nan
    ax = plots.reliability(table)
    assert_fits(ax)
    assert legend(ax) == ["raw\nECE 0.130", "after temperature\nscaling\nECE 0.020", "as sure as right"]
    assert [len(cloud.get_offsets()) for cloud in ax.collections] == [9, 10]
    assert np.allclose(ax.collections[1].get_offsets(), table[["confidence", "accuracy"]][10:])
    assert list(ax.lines[0].get_xdata()) == list(ax.lines[0].get_ydata()) == [0, 1]
    assert legend(plots.reliability(table.drop(columns="ece")))[0] == "raw"


# --- rows of scores ------------------------------------------------------------------------------------------------


def test_optimism_is_counted_from_the_honest_row():
    table = crossed(practice=PRACTICES, model=["ECMF", "late fusion"])
    table["weighted_f1"] = [0.88, 0.8, 0.74, 0.8, 0.75, 0.7]
    ax = plots.optimism(spread(table))
    assert_fits(ax)
    said = [text.get_text() for text in ax.texts]
    assert said == ["0.880 (+0.130)", "0.740 (−0.010)", "0.750", "0.800 (+0.100)", "0.800 (+0.100)", "0.700"]
    assert ticks(ax) == PRACTICES and legend(ax) == ["ECMF", "late fusion"]
    assert [tick.get_weight() for tick in ax.get_yticklabels()] == ["normal", "normal", "bold"]
    assert "0.880" in [text.get_text() for text in plots.optimism(spread(table), honest=PRACTICES[0]).texts]
    with pytest.raises(ValueError, match="no practice 'none'"):
        plots.optimism(table, honest="none")


def test_paired_differences_mark_intervals_without_0():
    ax = plots.paired_differences(differences())
    assert_fits(ax)
    assert ticks(ax) == list(differences()["model"][1:]), "the reference has no difference to itself"
    assert legend(ax) == ["interval below 0", "interval above 0", "interval contains 0", "no interval"]
    places = {box.get_label(): box.lines[0].get_ydata().tolist() for box in ax.containers}
    assert places == {"interval below 0": [0], "interval contains 0": [1], "interval above 0": [2], "no interval": [3]}
    said = [text.get_text() for text in ax.texts]
    assert said[:8] == ["−0.030", "< 0.001", "+0.005", "0.800", "+0.020", "0.031", "−0.004", "–"]
    ax.figure.draw_without_rendering()
    extents = [text.get_window_extent() for text in ax.texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(extents, 2))
    with pytest.raises(ValueError, match="no rows"):
        plots.paired_differences(differences()[:1])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_main_table_keeps_the_models_in_one_order(count):
    corpora = ["RAVDESS", "CREMA-D", "MELD", "demo", "a corpus"][:count]
    table = crossed(corpus=corpora, model=[*MODELS, "late fusion, face + audio + w2v2_1024"])
    table = table.drop(index=1)  # the first corpus lacks late fusion
    figure = plots.main_table(table)
    assert_fits(figure)
    assert [ax.get_title() for ax in figure.axes if ax.axison] == corpora
    assert ticks(figure.axes[0]) == list(dict.fromkeys(table["model"]))
    first = figure.axes[0].texts
    assert [text.get_text() for text in first] == [f"{v:.3f}" for v in table["weighted_f1"][:3]]
    assert [text.get_weight() for text in first] == ["bold", "normal", "normal"]


# --- single clips --------------------------------------------------------------------------------------------------


@pytest.fixture
def chinese_font(monkeypatch):
    """As if a font with Chinese characters were installed, whatever the machine has."""
    monkeypatch.setattr("ecmf_lib.plots.style._CJK_FONTS", ("a font that nobody has", "DejaVu Sans"))
    monkeypatch.setattr(font_manager, "get_font_names", lambda: ["DejaVu Sans", "DejaVu Serif"])


@pytest.mark.parametrize("streams", [FIVE[:3], FIVE, STRANGE])
@pytest.mark.filterwarnings("ignore:Glyph .* missing")
def test_clip_weights_show_words_as_they_are_and_each_weight(rng, streams, chinese_font):
    frames = [np.zeros((90, 160, 3), np.uint8), None, np.zeros((160, 90, 3), np.uint8)]
    words = [
        "It costs $5, not $10_000 $\\frac$.",
        None,
        "我真的不知道你为什么要这么说，我们明明已经说好了今天一起去看电影的。" * 4,
    ]
    table = weighed(rng, streams, 3)
    table.loc[1, f"w_{streams[0]}"] = np.nan
    table["label"] = ["sad", "happy", ""]
    figure = plots.clip_weights(frames, words, table)
    assert_fits(figure)
    assert len(figure.axes) == 9
    said = [figure.axes[3 * k + 1].texts[0].get_text() for k in range(3)]
    assert said[0].replace("\n", " ") == words[0] and said[1] == "(no words)"
    assert said[2].count("\n") == 4 and said[2].endswith("…")
    titles = [figure.axes[3 * k + 1].get_title(loc="left") for k in range(3)]
    assert titles == ["label sad, predicted sad", "label happy, predicted worried", "predicted angry"]
    assert texts(figure.axes[3])[0] == "no picture" and len(figure.axes[0].images) == 1
    bars = figure.axes[2]
    assert np.allclose(
        [bar.get_width() for bar in bars.patches], table.iloc[0][[f"w_{s}" for s in streams]].astype(float)
    )
    colours = plots.colours(streams, plots.STREAM_COLOURS)
    assert [to_hex(bar.get_facecolor()) for bar in bars.patches] == list(colours.values())
    assert figure.axes[5].texts[0].get_text() == "missing"
    assert figure.axes[5].lines[0].get_xdata()[0] == pytest.approx(1 / (len(streams) - 1))


@pytest.mark.filterwarnings("ignore:Glyph .* missing")
def test_clip_weights_words_stay_left_of_the_bars(rng, chinese_font):
    words = ["W" * 300, "word " * 90, "MMM mmm " * 60, "好" * 200, "Well, this is fine.", ""]
    figure = plots.clip_weights(None, words, weighed(rng, FIVE, 6))
    assert_fits(figure)
    for said, bars in zip(figure.axes[1::3], figure.axes[2::3], strict=True):
        left = min(tick.get_window_extent().x0 for tick in bars.get_yticklabels())
        lines, title = said.texts[0].get_window_extent(), said._left_title.get_window_extent()
        assert lines.x1 < left and lines.y1 < title.y0
        assert lines.y0 >= said.get_window_extent().y0 - 2


@pytest.mark.filterwarnings("error:Glyph .* missing")
def test_clip_weights_say_so_where_no_font_has_chinese(rng, monkeypatch):
    monkeypatch.setattr(font_manager, "get_font_names", lambda: ["DejaVu Sans"])
    words = ["我真的不知道你为什么要这么说。" * 9, "He said 你好 to me.", "Well, café – “this” is fine…"]
    figure = plots.clip_weights(None, words, weighed(rng, FIVE, 3))
    assert_fits(figure)
    shown = [ax.texts[0] for ax in figure.axes[1::3]]
    note = "(Chinese words: the table below has them)"
    assert [text.get_text().replace("\n", " ") for text in shown] == [note, note, words[2]]
    assert [text.get_fontstyle() for text in shown] == ["italic", "italic", "normal"]
    assert shown[0].get_color() != shown[2].get_color()


def test_fonts_with_chinese_are_those_installed_and_used(monkeypatch, chinese_font):
    assert cjk_fonts() == ["DejaVu Sans"]
    monkeypatch.setattr("ecmf_lib.plots.style._CJK_FONTS", ("DejaVu Serif",))
    with matplotlib.rc_context():
        plots.use_style()
        assert plt.rcParams["font.family"] == ["DejaVu Sans", "DejaVu Serif"]
    monkeypatch.setattr(font_manager, "get_font_names", lambda: [])
    assert cjk_fonts() == []


def test_clip_weights_need_weights_and_equal_numbers(rng):
    table = weighed(rng, FIVE, 3)
    with pytest.raises(ValueError, match="no w_<stream>"):
        plots.clip_weights(None, [""] * 3, table[["label", "predicted"]])
    with pytest.raises(ValueError, match="2 lines of words for 3 clips"):
        plots.clip_weights(None, [""] * 2, table)


# --- what all share ------------------------------------------------------------------------------------------------

SCORES = ("weighted_f1", "low", "high")
DRAWN = {
    "subset_scores": (plots.subset_scores, subsets_of(FIVE[:2]), ("streams", *SCORES)),
    "curves": (
        lambda table: plots.curves(table, x="level"),
        crossed(model=MODELS, level=[0, 1]),
        ("model", "level", "weighted_f1"),
    ),
    "robustness": (
        plots.robustness,
        crossed(kind=["noise"], stream=["face"], level=[0, 1], model=MODELS),
        ("kind", "stream", "level", "model", "weighted_f1"),
    ),
    "learning_curve": (
        plots.learning_curve,
        crossed(model=MODELS, clips=[10, 20, 30]).assign(speakers=2),
        ("model", "clips", "speakers", *SCORES),
    ),
    "reliability": (plots.reliability, bins(), ("state", "confidence_bin", "confidence", "accuracy", "share")),
    "optimism": (plots.optimism, crossed(practice=PRACTICES, model=MODELS), ("practice", "model", *SCORES)),
    "paired_differences": (plots.paired_differences, differences(), tuple(differences())),
    "main_table": (plots.main_table, crossed(corpus=["a", "b"], model=MODELS), ("corpus", "model", *SCORES)),
}


@pytest.mark.parametrize("name", DRAWN)
def test_missing_columns_are_named(name):
    draw, table, columns = DRAWN[name]
    for column in columns:
        with pytest.raises(ValueError, match=f"no column {column}"):
            draw(table.drop(columns=column))
    with pytest.raises(ValueError, match="no rows"):
        draw(table[:0])


@pytest.mark.parametrize("name", ["subset_scores", "curves", "robustness", "learning_curve", "optimism", "main_table"])
@pytest.mark.parametrize("nothing", [np.nan, None])
def test_scores_without_intervals_are_drawn(name, nothing):
    draw, table, _ = DRAWN[name]
    drawn = draw(table.assign(low=nothing, high=nothing))
    assert_fits(drawn)
    assert all(np.isfinite([*ax.get_xlim(), *ax.get_ylim()]).all() for ax in drawn.figure.axes)


@pytest.mark.parametrize("name", DRAWN)
def test_names_are_not_taken_for_formulas(name):
    draw, table, _ = DRAWN[name]
    named = {column: "a$b_c$d" for column in ("streams", "model", "practice", "corpus", "state") if column in table}
    drawn = draw(table.assign(**named))
    assert_fits(drawn)
    said = " ".join(texts(drawn.figure))
    assert r"a\$b_c\$d" in said and "a$b" not in said


def test_draws_into_given_axes():
    _, axes = plt.subplots(5, 1)
    for ax, name in zip(
        axes, ("curves", "learning_curve", "reliability", "optimism", "paired_differences"), strict=True
    ):
        _, table, _ = DRAWN[name]
        options = {"x": "level"} if name == "curves" else {}
        assert getattr(plots, name)(table, ax=ax, **options) is ax


def test_models_can_be_told_apart():
    look = looks([*(f"model {k}" for k in range(7)), "ECMF"])
    assert look["ECMF"] == ("#0072b2", "o") and len(set(look.values())) == 8
    assert len({colour for colour, _ in look.values()}) == 8
