"""Some of the faults of ``make torture``: killed, disk full, read-only, clock, two runs at once, a decoder that hangs.

After each, the resumed run ends in the same bytes as one that nobody disturbed.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "torture"))

import faults
import run as torture
import works


@pytest.fixture(scope="module", params=list(works.WORKS))
def on(request, tmp_path_factory):
    """One kind of work, measured undisturbed."""
    with faults.bench(request.param, tmp_path_factory.mktemp("faults"), quick=True) as bench:
        yield bench


def survived(count: faults.Count, injected: int) -> None:
    assert count.problems == []
    assert (count.injected, count.survived, count.lost, count.duplicated) == (injected, injected, 0, 0)


def test_killed_and_resumed(on):
    survived(faults.killed(on, 2, np.random.default_rng(5)), 2)


def test_a_full_disk(on):
    survived(faults.full(on, np.random.default_rng(5)), 1)


def test_a_place_that_cannot_be_written(on):
    count = faults.read_only(on, np.random.default_rng(5))
    if not count.injected:
        pytest.skip("root may not mount here, and permissions do not bind it")
    survived(count, 1)


def test_two_runs_at_once(on):
    survived(faults.twice(on), 1)


@pytest.mark.parametrize("on", ["extraction"], indirect=True)
def test_a_decoder_that_hangs_costs_that_clip(on):
    survived(faults.decoders(on, troubles=("hangs",)), 1)


def test_what_is_wrong_is_noticed(on):
    """A result that lacks a row, has one twice, or other bytes is no survival."""
    place = on.place()
    assert on.run(place)[0] == works.CLEAN
    rows = works.WORKS[on.kind].rows(place)
    assert works.lost_and_duplicated(on.kind, place, rows) == (0, 0)
    assert works.lost_and_duplicated(on.kind, place, [*rows, ("another",)]) == (1, 0)
    assert works.lost_and_duplicated(on.kind, place, rows[1:]) == (0, 0), "a row that nobody expects is no repetition"
    on.rows, kept = [*on.rows, ("another",)], on.rows
    count = faults.Count("none", on.kind)
    on.resume(place, count, [])
    on.rows = kept
    assert (count.injected, count.survived, count.lost) == (1, 0, 1)
    on.expected, kept = on.expected | {"another file": "0"}, on.expected
    on.resume(place, count, [])
    on.expected = kept
    assert count.survived == 0 and "another file" in count.problems[-1]


def test_the_table(tmp_path):
    rows = [dict(zip(torture.COLUMNS, ("kill -9", work, 5, 5, 0, 0), strict=True)) for work in ("grid", "extraction")]
    inputs = [dict(zip(torture.INPUT_COLUMNS, ("csv", 7, 3, 4, 0), strict=True))]
    assert torture.shown(rows, torture.COLUMNS).splitlines()[-1].split() == ["all", "10", "10", "0", "0"]
    torture.write(tmp_path, rows, inputs, {"date": "2026-01-01"})
    assert (tmp_path / "torture.csv").read_text().splitlines()[1:] == [
        "faults,kill -9,grid,5,5,0,0,,,,,",
        "faults,kill -9,extraction,5,5,0,0,,,,,",
        "inputs,,,,,,,csv,7,3,4,0",
    ]
