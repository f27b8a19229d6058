"""Pictures of label refinement show the numbers they were given, name what they lack, and fit their figure."""

import itertools

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from ecmf_lib import plots
from ecmf_lib.config import EMOTIONS
from ecmf_lib.plots.refine import ACTION_COLOURS

ARMS = ["given labels", "refined labels", "majority", "crowdlab", "confident-learning", "dawid-skene"]
LONG = [f"a class of its own {k}" for k in range(8)]


@pytest.fixture(autouse=True)
def closed_afterwards():
    yield
    plt.close("all")


def qualities():
    return pd.DataFrame(
        {
            "source": ["text", "annotator_1", "my own scores of the text stream.csv", "fusion", "language model"],
            "family": ["text", "annotator_1", "text", "all streams", "language model"],
            "quality": [0.4, 0.86, np.nan, 0.8, 0.5],
            "clips": [204, 204, 0, 204, 7369],
        }
    )


def recoveries(kinds=("symmetric", "class-dependent", "instance-dependent"), arms=ARMS, rates=(0, 0.1, 0.2, 0.3, 0.4)):
    table = pd.DataFrame(itertools.product(kinds, arms, rates), columns=["kind", "arm", "rate"])
    table["weighted_f1"] = 0.8 - table["rate"] ** 2 + 0.01 * table["arm"].map(arms.index)
    return table.assign(low=table["weighted_f1"] - 0.03, high=table["weighted_f1"] + 0.03)


def trained(n=5):
    table = pd.DataFrame({"round": range(n), "honest": 0.6, "trap": np.linspace(0.6, 0.95, n)})
    table["added"] = 25_000 * table["round"]
    return table.assign(honest_low=0.55, honest_high=0.65, chosen=table["round"] == 2)


def counted():
    table = pd.DataFrame({"class": list(EMOTIONS), "clips": 0, "keep": [1900, 80, 90, 70, 50, 0]})
    return table.assign(relabel=[5, 30, 0, 10, 40, 0], drop=[40, 10, 0, 0, 10, 0], soften=0, human=0, refined=0)


def assert_fits(drawn):
    figure = drawn.figure
    assert figure.get_figwidth() <= plots.WIDTH
    figure.draw_without_rendering()
    inches = figure.get_tightbbox()
    assert inches.x0 >= -0.02 and inches.y0 >= -0.02
    assert inches.x1 <= figure.get_figwidth() + 0.02 and inches.y1 <= figure.get_figheight() + 0.02
    for legend in [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend())]:
        assert legend.get_texts() and all(text.get_text() for text in legend.get_texts())


def said(ax):
    return [text.get_text() for text in ax.texts if text.get_text()]


def ticks(axis):
    return [tick.get_text().replace("\n", " ") for tick in axis.get_ticklabels()]


# --- noise ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [("negative", "positive"), EMOTIONS, LONG])
def test_noise_matrix_fits_and_keeps_the_order(rng, classes):
    ax = plots.noise_matrix(rng.poisson(30, (len(classes), len(classes))), classes)
    assert_fits(ax)
    assert [name.replace("\n", " ") for name in ticks(ax.yaxis)] == list(classes)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("refined label", "given label")
    boxes = [tick.get_window_extent() for tick in ax.get_yticklabels()]
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))


def test_noise_matrix_gives_shares_of_rows_and_counts():
    matrix = pd.DataFrame([[1500, 500], [0, 0]], index=["b", "a"], columns=["b", "a"])
    ax = plots.noise_matrix(matrix, ["a", "b"], against="true")
    assert said(ax) == ["25%\n500", "75%\n1,500"], "a class without clips is left empty, and not a number"
    assert ax.get_xlabel() == "true label"
    ax = plots.noise_matrix(np.array([[2.25, 0.75], [0.01, 4]]), ["a", "b"])
    assert said(ax) == ["75%\n2.2", "25%\n0.8", "100%\n4"]
    with pytest.raises(ValueError, match="for 3 classes"):
        plots.noise_matrix(np.eye(2), ["a", "b", "c"])


def test_recovery_has_a_panel_a_kind_and_a_line_an_arm():
    figure = plots.recovery(recoveries())
    assert_fits(figure)
    assert [ax.get_title() for ax in figure.axes] == ["symmetric", "class-dependent", "instance-dependent"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ARMS
    for ax in figure.axes:
        assert len(ax.lines) == len(ax.collections) == len(ARMS)
        assert ax.lines[1].get_ydata() == pytest.approx(0.81 - np.array([0, 0.1, 0.2, 0.3, 0.4]) ** 2)
        assert to_hex(ax.lines[1].get_color()) == "#0072b2", "the refined labels are blue"
        assert len({line.get_color() for line in ax.lines}) == len(ARMS)
    assert ticks(figure.axes[0].xaxis) == ["0%", "10%", "20%", "30%", "40%"]


@pytest.mark.parametrize("kinds", [["symmetric"], ["a", "b", "c", "d"]])
def test_recovery_of_other_kinds_long_names_and_no_intervals(kinds):
    arms = [f"ECMF on labels refined by {arm}" for arm in ARMS]
    figure = plots.recovery(recoveries(kinds, arms, np.linspace(0, 0.5, 11)).assign(low=np.nan))
    assert_fits(figure)
    shown = [ax for ax in figure.axes if ax.axison]
    assert len(shown) == len(kinds) and not any(ax.collections for ax in shown)
    assert len(ticks(shown[-1].xaxis)) == 6


def test_recovery_of_an_arm_that_has_no_row_in_a_kind():
    table = recoveries(["a", "b"], ARMS[:3])
    figure = plots.recovery(table[(table["kind"] == "a") | (table["arm"] != "given labels")])
    first, second = ([line.get_color() for line in ax.lines] for ax in figure.axes)
    assert second == first[1:], "an arm has one colour in all panels"


# --- sources and what became of labels -------------------------------------------------------------------------------


def test_sources_are_ranked_and_coloured_by_family():
    ax = plots.source_quality(qualities())
    assert_fits(ax)
    names = ["annotator_1 1", "fusion 2", "language model 3", "text 4", "my own scores of the text stream.csv 5"]
    assert [" ".join(name.split()) for name in ticks(ax.yaxis)] == names
    widths = [bar.get_width() for bar in ax.patches]
    assert widths == [0.86, 0.8, 0.5, 0.4, 0]
    fills = [to_hex(bar.get_facecolor()) for bar in ax.patches]
    assert fills[3] == fills[4] == plots.STREAM_COLOURS["text"] and len(set(fills)) == 4
    assert {"0.86", "not known", "7,369 clips"} <= set(said(ax))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "annotator_1",
        "all streams",
        "language model",
        "text",
    ]


def test_many_families_have_colours_of_their_own():
    table = pd.DataFrame({"source": [f"person {k}" for k in range(12)], "quality": 0.5})
    ax = plots.source_quality(table.assign(family=table["source"]))
    assert_fits(ax)
    assert len({to_hex(bar.get_facecolor()) for bar in ax.patches}) == 12


def test_actions_are_shares_of_a_class():
    ax = plots.actions(counted())
    assert_fits(ax)
    bars = {box.get_label(): [bar.get_width() for bar in box] for box in ax.containers}
    assert list(bars) == ["keep", "relabel", "drop"], "an action that never came up is left out"
    assert bars["relabel"][1] == pytest.approx(0.25) and bars["keep"][-1] == 0
    assert np.allclose(np.sum(list(bars.values()), axis=0), [1, 1, 1, 1, 1, 0])
    assert ticks(ax.yaxis) == list(EMOTIONS)
    assert {"1,900", "1,945", "120", "clips"} <= set(said(ax)) and "5" not in said(ax)
    fills = {box.get_label(): to_hex(box[0].get_facecolor()) for box in ax.containers}
    assert fills == {name: ACTION_COLOURS[name] for name in bars}


def test_actions_of_an_audit_table_are_counted():
    table = pd.DataFrame({"given": ["sad", "", "happy", "sad"], "action": ["drop", "relabel", "keep", "keep"]})
    ax = plots.actions(table.assign(soft_happy=0.0, soft_sad=1.0, soft_angry=0.0))
    assert ticks(ax.yaxis) == ["happy", "sad", "angry", "(none)"]
    assert [bar.get_width() for bar in ax.containers[0]] == [1, 0.5, 0, 0]


def test_actions_need_an_action():
    with pytest.raises(ValueError, match="no column of an action: keep, relabel"):
        plots.actions(pd.DataFrame({"class": ["sad"], "clips": [3]}))


# --- rounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 30])
def test_rounds_show_the_trap_beside_the_honest_score(count):
    table = trained(count)
    ax = plots.rounds(table.sample(frac=1, random_state=0))
    assert_fits(ax)
    trap, honest = ax.lines[:2]
    assert np.allclose(trap.get_ydata(), table["trap"]) and np.allclose(honest.get_ydata(), table["honest"])
    assert ticks(ax.xaxis)[0] == "0 0" and len(ax.collections) == 1
    boxes = [tick.get_window_extent() for tick in ax.get_xticklabels()]
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))
    words = " ".join(text.get_text().replace("\n", " ") for text in ax.get_legend().get_texts())
    assert "the trap" in words and "honest" in words and ("is taken" in words) == (count > 2)
    if count > 2:
        assert ax.lines[2].get_xdata() == [2]


def test_rounds_without_intervals_and_without_a_trap():
    ax = plots.rounds(trained().drop(columns="chosen").assign(honest_low=None, trap=np.nan))
    assert_fits(ax)
    assert not ax.collections and np.isfinite([*ax.get_xlim(), *ax.get_ylim()]).all()


# --- what all share ------------------------------------------------------------------------------------------------

DRAWN = {
    "source_quality": (qualities(), ("source", "quality", "family")),
    "recovery": (recoveries(), ("kind", "rate", "arm", "weighted_f1", "low", "high")),
    "rounds": (trained(), ("round", "trap", "honest", "honest_low", "honest_high", "added")),
    "actions": (counted(), ("class",)),
}


@pytest.mark.parametrize("name", DRAWN)
def test_missing_columns_are_named(name):
    table, columns = DRAWN[name]
    for column in columns:
        with pytest.raises(ValueError, match=f"no column {column}"):
            getattr(plots, name)(table.drop(columns=column))
    with pytest.raises(ValueError, match="no rows"):
        getattr(plots, name)(table[:0])


@pytest.mark.parametrize("name", ["source_quality", "recovery", "actions"])
def test_names_are_not_taken_for_formulas(name):
    table, _ = DRAWN[name]
    named = {column: "a$b_c$d" for column in ("source", "family", "kind", "arm", "class") if column in table}
    assert_fits(getattr(plots, name)(table.assign(**named)))


def test_draws_into_given_axes(rng):
    _, axes = plt.subplots(4, 1)
    for ax, name in zip(axes, ("source_quality", "rounds", "actions"), strict=False):
        assert getattr(plots, name)(DRAWN[name][0], ax=ax) is ax
    assert plots.noise_matrix(np.eye(2), ["a", "b"], ax=axes[3]) is axes[3]
