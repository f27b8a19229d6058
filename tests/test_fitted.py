"""A fitted model predicts many clips in stretches, and says the same of them."""

import numpy as np
import pytest
from fusion_clips import NEURAL, clips

from ecmf_lib import fit, fitted
from ecmf_lib.fitted import ModelSpec


@pytest.mark.parametrize("kind", ["ecmf", "concat", "late-logistic", "boosting", "majority"])
def test_stretches_do_not_matter(rng, monkeypatch, kind):
    data = clips(rng)
    model = fit.fit(data, ModelSpec("m", kind, options=NEURAL if kind in ("ecmf", "concat") else {}), seed=0, epochs=1)
    chances, weights = model.predict(data)
    monkeypatch.setattr(fitted, "AT_ONCE", 40)  # 96 clips: two whole stretches and a rest
    in_parts, weights_in_parts = model.predict(data)
    assert in_parts.shape == chances.shape and np.allclose(in_parts, chances, atol=1e-6)
    assert np.allclose(weights_in_parts, weights, atol=1e-6, equal_nan=True)
