"""One temperature: found where it is planted, and nothing but the sureness of probabilities changes."""

import numpy as np
import pytest
from fusion_clips import NEURAL, changed, clips, one_hot

from ecmf_lib import evaluate, fit, train, training_part
from ecmf_lib.experts import log_softmax
from ecmf_lib.fit import ModelSpec
from ecmf_lib.temperature import fit_temperature


def planted(rng, n=20_000):
    """Logits whose softmax are the true probabilities, and labels drawn from them."""
    logits = rng.normal(size=(n, 3)) * 2
    chances = np.exp(log_softmax(logits))
    labels = (chances.cumsum(1) < rng.random((n, 1))).sum(1).clip(0, 2)
    return logits, one_hot(labels)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_a_planted_temperature_is_found(rng, temperature):
    logits, targets = planted(rng)
    assert fit_temperature(temperature * logits, targets) == pytest.approx(temperature, rel=0.05)


def test_soft_targets_are_fitted_too(rng):
    logits, _ = planted(rng, 500)
    assert fit_temperature(3 * logits, np.exp(log_softmax(logits))) == pytest.approx(3, rel=1e-3)


def test_clips_of_weight_0_do_not_count(rng):
    logits, targets = planted(rng, 400)
    nobody = np.arange(400) % 2 == 0
    spoilt = np.where(nobody[:, None], -20 * logits, logits)
    assert fit_temperature(spoilt, targets * ~nobody[:, None]) == pytest.approx(
        fit_temperature(logits[~nobody], targets[~nobody]), rel=1e-3
    )


def test_it_stays_within_bounds_and_is_1_where_nothing_is_known(rng):
    labels = one_hot(np.arange(60) % 3)
    assert fit_temperature(labels * 1.0, labels) == pytest.approx(0.1, rel=1e-2)
    assert fit_temperature(1000 * rng.normal(size=(60, 3)), labels) == pytest.approx(20, rel=1e-2)
    assert fit_temperature(np.zeros((0, 3)), np.zeros((0, 3))) == 1 == fit_temperature(labels, 0 * labels)


@pytest.mark.parametrize("kind", ["ecmf", "baseline-attention", "stacked", "linear-experts"])
def test_predictions_are_scaled_and_keep_their_order(rng, kind):
    data = clips(rng, signal=0.7)
    spec = ModelSpec("m", kind, options=NEURAL if kind in train.fusion.FUSIONS else {})
    model = fit.fit(data, spec, seed=0, epochs=4)
    bare, _ = changed(model, temperature=1.0).predict(data)
    scaled, _ = model.predict(data)
    expected = np.exp(log_softmax(np.log(bare) / model.temperature))
    assert model.temperature != 1 and np.allclose(scaled, expected) and not np.allclose(scaled, bare)
    assert (scaled.argmax(1) == bare.argmax(1)).all()


def test_an_overconfident_model_is_calmed_on_clips_it_has_not_seen(rng, monkeypatch):
    """Boosting on little signal is far too sure of itself; scaled, its unseen clips cost less."""
    data = clips(rng, n=180, signal=0.4, speakers=12)

    def run():
        return train.cross_validate(data, ModelSpec("m", "boosting"), n_folds=3, progress=False)

    scaled = run()
    monkeypatch.setattr(training_part, "fit_temperature", lambda *_: 1.0)
    bare = run()
    assert (scaled["temperature"] > 1.2).all() and (bare["temperature"] == 1).all()
    assert (scaled["predicted"] == bare["predicted"]).all()

    def loss(table):
        return -np.log([row[f"p_{row['label']}"] for _, row in table.iterrows()]).mean()

    assert loss(scaled) < loss(bare) and evaluate.scores(scaled) == evaluate.scores(bare)
