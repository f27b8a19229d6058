"""The README's numbers are those of the tracked report; its links lead somewhere."""

import re

import pandas as pd
from conftest import REPO

from ecmf_lib.speed_page import cells_of, read_speed

README = (REPO / "README.md").read_text(encoding="utf-8")


def rows(text: str) -> dict[str, list[str]]:
    """First cell → the other cells, for every line of a markdown table."""
    lines = [line.strip().strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return {cells[0].strip(" *"): [cell.strip() for cell in cells[1:]] for cells in lines}


def test_scores_are_those_of_the_tracked_report():
    results = rows(README.split("## Results")[1].split("##")[0])
    report = pd.read_csv(REPO / "reports/demo/tables/03_fuse_and_ablate/scores.csv").set_index("model")
    shown = [model for model in report.index if model in results]
    assert {"ECMF", "late fusion", "baseline attention", "concatenation", "face alone"} <= set(shown)
    for model in shown:
        row = report.loc[model]
        assert results[model][0].strip("*") == f"{row['weighted_f1']:.3f} [{row['low']:.3f}, {row['high']:.3f}]", model


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) > 8
    for link in links:
        assert link.startswith("https://") or (REPO / link).exists(), link


def test_faults_are_those_of_the_tracked_table():
    shown = rows(README.split("<!-- torture -->")[1].split("<!-- end -->")[0])
    table = pd.read_csv(REPO / "reports/torture/torture.csv")
    told = [[int(cell) for cell in cells] for cells in shown.values() if cells[0].isdigit()]
    sums = table.groupby("fault", sort=False)[["injected", "survived", "lost", "duplicated"]].sum().astype(int)
    inputs = table[table["part"] == "inputs"][["tried", "handled", "refused", "crashed"]].sum().astype(int)
    assert sorted(told) == sorted([*sums.values.tolist(), inputs.tolist()])


def test_speed_is_what_was_measured():
    table, about = read_speed(REPO / "reports" / "bench")
    told = {cells[0]: cells[1:5] for cells in cells_of(table)}
    section = README.split("## Speed")[1].split("\n## ")[0]
    shown = {what: cells for what, cells in rows(section).items() if what != "what" and set(what) != {"-"}}
    assert len(shown) >= 12 and about["date"] in section and about["machine"] in section
    for what, cells in shown.items():
        assert cells == told[what], what
