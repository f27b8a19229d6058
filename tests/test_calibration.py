"""Probabilities before and after temperature scaling, and how honest they are."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from test_evaluate import CLASSES, table_of

from ecmf_lib import evaluate, plots
from ecmf_lib.calibration import RAW, SCALED, calibration_error, raw_probabilities, reliability_table

P = [f"p_{name}" for name in CLASSES]


def scaled(rng, *, seeds=(0, 1), temperatures=(2.0, 0.5), clips=400, dtype=float):
    """A model whose raw probabilities are honest, spoiled by a temperature for each seed; and the raw ones."""
    tables, raws = [], []
    for seed, temperature in zip(seeds, temperatures, strict=True):
        raw = rng.dirichlet([0.6, 0.6, 0.6], clips)
        labels = (raw.cumsum(axis=1) > rng.random((clips, 1))).argmax(axis=1)
        table = table_of([f"c{i}" for i in range(clips)], np.arange(clips) % 8, labels, raw.argmax(axis=1), seed)
        p = raw ** (1 / temperature)
        table[P] = p / p.sum(axis=1, keepdims=True)
        tables.append(table.assign(temperature=temperature))
        raws.append(raw)
    table = pd.concat(tables, ignore_index=True)
    return table.astype(dict.fromkeys(P, dtype)), np.concatenate(raws)


@pytest.mark.parametrize(("dtype", "close"), [(float, 1e-12), (np.float32, 1e-5)])
def test_scaling_is_undone_row_by_row(rng, dtype, close):
    table, raw = scaled(rng, dtype=dtype)
    before = table.copy()
    found = raw_probabilities(table)
    np.testing.assert_allclose(found[P], raw, atol=close)
    assert (found.drop(columns=[*P, "temperature"]) == table.drop(columns=[*P, "temperature"])).all(axis=None)
    pd.testing.assert_frame_equal(raw_probabilities(found), found)  # undone once, not twice
    pd.testing.assert_frame_equal(table, before)


def test_nothing_is_undone_where_nothing_was_scaled(rng):
    table, _ = scaled(rng)
    for same in (table.drop(columns="temperature"), table.assign(temperature=1.0), table.assign(temperature=np.nan)):
        assert raw_probabilities(same) is same
    mixed = table.assign(temperature=table["temperature"].where(table["seed"] == 1))
    found = raw_probabilities(mixed)
    np.testing.assert_allclose(found.loc[found["seed"] == 0, P], table.loc[table["seed"] == 0, P])
    assert not np.allclose(found.loc[found["seed"] == 1, P], table.loc[table["seed"] == 1, P])


@pytest.mark.parametrize("temperature", [0.01, 100.0, 1e6])
def test_probabilities_of_0_and_1_survive_any_temperature(temperature):
    table = table_of(["a", "b", "c"], range(3), [0, 0, 0], [0, 0, 0]).assign(temperature=temperature)
    table[P] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [1 - 1e-12, 1e-12, 1e-300]]
    found = raw_probabilities(table)[P].to_numpy()
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_array_equal(found[:2], [[1, 0, 0], [0.5, 0.5, 0]])


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        ({"temperature": 0.0}, "clip 'b': temperature 0; expected a number above 0"),
        ({"temperature": np.inf}, "clip 'b': temperature inf"),
        ({P[0]: -0.1}, "clip 'b': p_neutral -0.1, .*expected numbers from 0 to 1"),
        (dict.fromkeys(P, 0.0), "clip 'b'"),
        ({P[1]: np.nan}, "clip 'b'"),
    ],
)
def test_what_is_no_probability_or_temperature_is_refused_by_clip(spoil, told):
    table = table_of(["a", "b"], range(2), [0, 1], [0, 1]).assign(temperature=2.0)
    table.loc[1, list(spoil)] = list(spoil.values())
    with pytest.raises(evaluate.PredictionError, match=told):
        raw_probabilities(table)


def test_calibration_error_by_hand():
    labels = np.zeros(10, int)
    guess = np.array([0] * 6 + [1] * 4)
    table = table_of([f"c{i}" for i in range(10)], range(10), labels, guess, confidence=0.8)
    assert calibration_error(table) == pytest.approx(0.8 - 0.6)
    with pytest.raises(evaluate.PredictionError, match="p_<class>"):
        calibration_error(table.drop(columns=P))
    with pytest.raises(ValueError, match="bins = 0"):
        calibration_error(table, bins=0)


def test_reliability_by_hand():
    """Seed 0: ten clips at .85, six right; seed 1: the same clips at .55, all right."""
    ids, labels = [f"c{i}" for i in range(10)], np.zeros(10, int)
    first = table_of(ids, range(10), labels, np.array([0] * 6 + [1] * 4), 0, confidence=0.85)
    table = pd.concat([first, table_of(ids, range(10), labels, labels, 1, confidence=0.55)])
    found = reliability_table(table, bins=5)
    assert (found["state"] == RAW).all() and found["confidence_bin"].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(found["share"], [0, 0, 0.5, 0, 0.5])
    np.testing.assert_allclose(found["confidence"], [np.nan, np.nan, 0.55, np.nan, 0.85])
    np.testing.assert_allclose(found["accuracy"], [np.nan, np.nan, 1, np.nan, 0.6])
    np.testing.assert_allclose(found["ece"], (0.25 + 0.45) / 2)
    both = pd.concat([first, first.assign(seed=1, label=first["predicted"])])  # 60 and 100 % right at .85
    assert reliability_table(both)["ece"][0] == pytest.approx((0.25 + 0.15) / 2), "the mean, not the pool's .05"


def test_reliability_shows_what_scaling_did(rng):
    table, _ = scaled(rng, temperatures=(3.0, 3.0))
    found = reliability_table(table)
    assert found["state"].tolist() == [RAW] * 10 + [SCALED] * 10
    by_state = found.groupby("state")
    np.testing.assert_allclose(by_state["share"].sum(), 1)
    error = by_state["ece"].first()
    assert error[SCALED] == calibration_error(table) > 0.1 > error[RAW] == calibration_error(raw_probabilities(table))
    assert abs((found["accuracy"] - found["confidence"]) * found["share"])[:10].sum() <= error[RAW]
    sure = by_state.apply(lambda rows: (rows["confidence"] * rows["share"]).sum(), include_groups=False)
    assert sure[RAW] > sure[SCALED], "T > 1 makes less sure"
    plots.reliability(found)
    plt.close("all")


def test_results_table_has_both_errors(rng):
    table, _ = scaled(rng, temperatures=(3.0, 3.0))
    silent = table.drop(columns=[*P, "temperature"])
    plain = table.drop(columns="temperature")
    found = evaluate.results_table({"scaled": table, "plain": plain, "silent": silent}, n_boot=50).set_index("model")
    assert found.loc["scaled", "ece"] == found.loc["plain", "ece"] == found.loc["plain", "ece_raw"]
    assert found.loc["scaled", "ece_raw"] == reliability_table(table)["ece"][0] < found.loc["scaled", "ece"]
    assert found.loc["silent", ["ece", "ece_raw"]].isna().all()
