"""The page about speed says what the data say, goals met and missed, and escapes what it shows."""

import json

import matplotlib
import pandas as pd
import pytest
from conftest import REPO

from ecmf_lib import speed_page
from ecmf_lib.plots.speed import MET, MISSED, against_goals

matplotlib.use("agg")
ROWS = [
    {"what": "the challenge", "ours": 50.0, "against": 900.0, "unit": "s", "rival": "official recipe", "ratio": 18.0,
     "means": "times faster", "goal": 15.0, "more_is_better": True, "note": "some of it <b>timed</b>"},
    {"what": "memory", "ours": 1.5, "against": 1.0, "unit": "GB", "rival": "what is used", "ratio": 1.5,
     "means": "times the memory", "goal": 1.2, "more_is_better": False, "note": ""},
    {"what": "a difference", "ours": 0.8, "against": 0.79, "unit": "", "rival": "official recipe", "ratio": 0.01,
     "means": "more", "goal": 0.0, "more_is_better": True, "note": ""},
    {"what": "no goal", "ours": 1.0, "against": 2.0, "unit": "s", "rival": "another", "ratio": 2.0,
     "means": "times faster", "goal": None, "more_is_better": True, "note": ""},
]  # fmt: skip
ABOUT = {"date": "2026-01-02", "machine": "2 cores, Some Processor", "code": "abc", "python": "3.11", "seconds": 600,
         "libraries": {"torch": "2.11.0"}, "failed": {}}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    pd.DataFrame([{"benchmark": "x"} | row for row in ROWS]).to_csv(tmp_path / "speed.csv", index=False)
    (tmp_path / "about.json").write_text(json.dumps(ABOUT), encoding="utf-8")
    return tmp_path


def test_what_is_written_says_what_was_measured(folder):
    text = speed_page.write_speed_page(folder).read_text("utf-8")
    assert "2 of 3 goals met" in text and "2 cores, Some Processor" in text and "2026-01-02" in text
    assert "≥ 15, met" in text and "≤ 1.2, missed" in text and "18 times faster" in text
    assert "&lt;b&gt;timed" in text and "<b>" not in text and "default-src &#x27;none" not in text
    assert "failed" not in text


def test_a_benchmark_that_failed_is_not_hidden(folder):
    table, about = speed_page.read_speed(folder)
    assert "growth failed: exit code 1" in speed_page.speed_page(table, about | {"failed": {"growth": "exit code 1"}})


def test_goals_count_in_both_directions(folder):
    table, _ = speed_page.read_speed(folder)
    assert speed_page.reached(table).tolist() == [True, False, True, False]
    cells = speed_page.cells_of(table)
    assert cells[3][4] == "" and cells[0][:3] == ["the challenge", "50 s", "900 s (official recipe)"]


def test_the_figure_has_a_bar_for_each_goal_on_its_side_of_the_line():
    ax = against_goals(pd.DataFrame(ROWS))
    ends = [bar.get_x() + bar.get_width() for bar in ax.patches]
    assert len(ends) == 3
    difference, memory, challenge = ends  # the first row is drawn on top
    assert challenge == pytest.approx(1.2) and memory == pytest.approx(0.8) and difference > 1
    colours = [matplotlib.colors.to_hex(bar.get_facecolor()) for bar in ax.patches]
    assert colours == [MET, MISSED, MET]
    assert "no measurement" in against_goals(pd.DataFrame(ROWS[3:])).texts[0].get_text()


def test_what_the_repository_shows_is_of_a_whole_run():
    """The tracked page is that of the tracked data, and no benchmark failed in it."""
    folder = REPO / "reports" / "bench"
    table, about = speed_page.read_speed(folder)
    assert not about["failed"] and len(table) >= 8 and table["benchmark"].nunique() >= 6
    text = (folder / "index.html").read_text("utf-8")
    assert about["date"] in text and all(speed_page.say(what) in text for what in table["what"])
