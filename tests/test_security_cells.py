"""Tables that the project writes: a spreadsheet program runs nothing in them, numbers stay numbers, texts come back."""

import ast
import csv
import io

import numpy as np
import pandas as pd
import pytest
from conftest import REPO
from hypothesis import given
from hypothesis import strategies as st

from ecmf_lib import study
from ecmf_lib.project import Results
from ecmf_lib.review_csv import guarded_table, unguarded_table

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1", "x\n=1", "a;=1", "'=1", "''=1", '"=1']
#: Files that write csv from more than the project's own words, and how each is safe.
WRITERS = {
    "project.py": "guarded_table",
    "review_csv.py": "write_cells: whoever calls it has guarded",
    "submit.py": "the form is the organisers': names as they are, classes",
    "demo.py": "the generated corpus: our own words",
    "study_predict.py": "a broken submission in a scratch folder",
}


def runs(cell: str) -> bool:
    """Whether a spreadsheet program takes a cell for a formula, also one that drops blanks or splits elsewhere."""
    parts = [cell]
    for mark in ";\t\r\n|":
        parts = [part for whole in parts for part in whole.split(mark)]
    return any(part.strip().startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠")) for part in parts)


def test_the_check_itself_knows_a_formula():
    assert all(runs(text) for text in FORMULAS if "'" not in text and '"' not in text)
    assert not any(map(runs, ["a", "a-b", "'=1", "mail@example", ""]))


def written(frame: pd.DataFrame, folder) -> tuple[list[str], list[list[str]], pd.DataFrame]:
    results = Results(folder, {})
    results.table(frame, "t")
    text = (folder / "t.csv").read_text(encoding="utf-8")
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    return header, rows, pd.read_csv(folder / "t.csv", keep_default_na=False)


def test_texts_are_guarded_and_numbers_are_left_alone(tmp_path):
    n = len(FORMULAS)
    frame = pd.DataFrame({"id": FORMULAS, "=difference": -np.arange(n) / 3, "count": -np.arange(n), "sure": n * [True]})
    frame["mixed"] = pd.Series([-1.5, *FORMULAS[1:]], dtype=object)
    frame["kind"] = pd.Categorical(FORMULAS)
    header, rows, read = written(frame, tmp_path)
    assert header == ["id", "'=difference", "count", "sure", "mixed", "kind"]
    for row in rows:
        assert not any(runs(row[place]) for place in (0, 5))
    assert rows[3][1] == "-1" and rows[2][2] == "-2" and rows[0][4] == "-1.5" and rows[1][4] == "'+1"
    back = unguarded_table(read)
    assert back["id"].tolist() == FORMULAS and back["kind"].tolist() == FORMULAS and "=difference" in back
    np.testing.assert_allclose(back["=difference"], frame["=difference"], rtol=1e-5)


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"model": ["ECMF", None, ""], "difference": [-0.1, np.nan, 0.25], "n": [1, 2, 3]}),
        pd.DataFrame({"x": [1.5, 2], "t": pd.to_datetime(["2025-01-01", "2025-01-02"]), "b": [True, False]}),
        pd.DataFrame(columns=["id", "reason"]),
        pd.DataFrame(),
    ],
)
def test_tables_without_formulas_are_the_same_bytes(frame):
    assert guarded_table(frame).to_csv(index=False) == frame.to_csv(index=False)


text = st.text(alphabet=st.one_of(st.sampled_from("=+-@'\";,|\t\r\n ＝a1"), st.characters(exclude_categories=["Cs"])))


@given(st.lists(st.tuples(text, text), max_size=5), text)
def test_every_table_comes_back_and_nothing_in_it_runs(rows, name):
    frame = pd.DataFrame(rows, columns=["first", "x" + name], dtype=str)
    safe = guarded_table(frame)
    assert not any(runs(cell) for cell in [*safe.to_numpy().ravel(), *safe.columns])
    pd.testing.assert_frame_equal(unguarded_table(safe), frame)


def test_scores_of_other_runs_are_read_as_they_were_meant(tmp_path):
    table = pd.DataFrame(
        [("-corpus", "ECMF", 0.5, 0.4, 0.6)], columns=["corpus", "model", "weighted_f1", "low", "high"]
    )
    Results(tmp_path / "other/tables/03_fuse_and_ablate", {}).table(table, "scores")
    found = study.across_corpora(tmp_path / "mine", table.drop(columns="corpus"), "here")
    assert found["corpus"].tolist() == ["here", "-corpus"]


def csv_writers(source: str) -> list[int]:
    """Lines that write a csv: ``to_csv`` with a place to write to, ``csv.writer``, ``csv.DictWriter``."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            named = {keyword.arg for keyword in node.keywords}
            if node.func.attr == "to_csv" and (node.args or "path_or_buf" in named):
                lines.append(node.lineno)
            if node.func.attr in ("writer", "DictWriter", "savetxt"):
                lines.append(node.lineno)
    return lines


def test_every_writer_of_csv_is_known():
    assert csv_writers("frame.to_csv(path)\nframe.to_csv()\ncsv.writer(f)\nx.to_csv(path_or_buf=p)") == [1, 3, 4]
    found = {
        path.relative_to(REPO / "ecmf_lib").as_posix()
        for path in (REPO / "ecmf_lib").rglob("*.py")
        if csv_writers(path.read_text(encoding="utf-8"))
    }
    assert found == set(WRITERS), "a new writer: have it guard its texts (ecmf_lib/review_csv.py), then name it here"
