"""Hostile inputs of every kind through what a user calls: handled or refused in words, no traceback, no hang.

All of them: ``python tests/hostile_run.py``, or ``make torture``.
"""

import sys

import pytest
from hostile import all_inputs, quick_inputs
from hostile_run import COLUMNS, GOOD, Child, counts, is_clear, run_inputs


def test_there_are_hundreds_of_inputs_of_every_kind_and_the_same_again():
    inputs = all_inputs()
    assert len(inputs) >= 300 and [one.name for one in inputs] == [one.name for one in all_inputs()]
    kinds = {one.kind for one in inputs}
    assert kinds >= {"mp4", "wav", "flac", "csv", "npz", "npy", "safetensors", "set-json", "bundle", "ipynb", "parquet"}
    assert {one.kind for one in quick_inputs()} >= kinds - {"ipynb-run", "clips"}
    assert not any(one.slow for one in quick_inputs())


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")
def test_some_of_every_kind_are_handled_or_refused_in_words():
    names = [one.name for one in quick_inputs()]
    table = run_inputs(names)
    assert table["name"].tolist() == names and tuple(table.columns) == COLUMNS
    faults = table[~table["outcome"].isin(GOOD)]
    assert faults.empty, "\n".join(f"{row.name}: {row.outcome}\n{row.message}" for row in faults.itertuples())
    assert (table["outcome"] == "refused").sum() > len(table) / 3
    assert counts(table).loc["all", "tried"] == len(names)


@pytest.mark.parametrize(
    ("message", "clear"),
    [
        ("/a/b.csv: row 3, label: unknown label 'x'", True),
        ("b.csv", False),  # no reason
        ("something is wrong with a row", False),  # no file
        ("Traceback (most recent call last): b.csv", False),
        ("b.csv: " + "a" * 30_000, False),
    ],
)
def test_a_refusal_has_to_name_the_file_and_a_reason(message, clear):
    assert is_clear(message, "b.csv") == clear


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")
def test_what_crashes_hangs_or_takes_too_much_is_told_apart(tmp_path):
    child = Child(tmp_path, seed=0, readers="hostile_faults")
    try:
        outcomes = {name: child.ask(f"fault/{name}")["outcome"] for name in ("fine", "unclear", "crash", "memory")}
        assert outcomes == {"fine": "handled", "unclear": "unclear", "crash": "crashed", "memory": "memory"}
        assert child.ask("fault/allocation")["outcome"] == "crashed" and not child.gone()
        assert child.ask("fault/end")["outcome"] == "crashed" and child.gone()
    finally:
        child.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")
def test_what_never_ends_is_ended(tmp_path):
    child = Child(tmp_path, seed=0, readers="hostile_faults", cpu=1)
    try:
        assert child.ask("fault/loop")["outcome"] == "hung" and child.gone()
    finally:
        child.stop()
