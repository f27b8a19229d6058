"""Features on one scale: learned from the clips that have a stream, one scale for all its steps."""

import numpy as np
import pytest
from fusion_clips import changed, clips, with_stream

from ecmf_lib.scaling import CLIP_AT, fit_rotation, fit_standardiser, standardise, turned

levels = pytest.mark.parametrize("steps", [0, 4], ids=["clip level", "frame level"])


@levels
def test_standardised_features_have_mean_0_and_deviation_1_where_they_are(rng, steps):
    data = clips(rng, steps=steps)
    x = standardise(data, fit_standardiser(data))
    for name, z in x.items():
        rows = z[data.present[name]].reshape(-1, z.shape[-1])
        assert z.dtype == np.float32 and z.shape == data.streams[name].shape
        assert np.allclose(rows.mean(0), 0, atol=0.02) and np.allclose(rows.std(0), 1, atol=0.02)
        assert not z[~data.present[name]].any()


@levels
def test_what_stands_in_for_a_missing_stream_is_not_learned_from(rng, steps):
    data = clips(rng, steps=steps)
    fewer = data.select(data.present["audio"]).only(["audio"])
    one, other = fit_standardiser(data.only(["audio"])), fit_standardiser(fewer)
    assert all(np.array_equal(one[key], other[key]) for key in one)


def test_a_constant_column_is_0_and_a_rare_one_is_cut(rng):
    data = clips(rng)
    x = data.streams["audio"].copy()
    x[:, 3] = 1234.5
    x[:, 4] = np.arange(96) == 20
    data = with_stream(data, "audio", x)
    z = standardise(data, fit_standardiser(data))["audio"]
    assert not z[:, 3].any() and z[20, 4] == CLIP_AT and np.isfinite(z).all()


def test_new_clips_are_scaled_by_the_training_clips(rng):
    train, new = clips(rng), clips(rng, n=48)
    scale = fit_standardiser(train)
    expected = (new.streams["face"] - scale["mean.face"]) * scale["gain.face"]
    expected[~new.present["face"]] = 0
    assert np.allclose(standardise(new, scale)["face"], np.clip(expected, -CLIP_AT, CLIP_AT), atol=1e-6)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_stream_without_any_clip_gives_zeros(rng):
    data = clips(rng)
    data = changed(data, present=data.present | {"audio": np.zeros(96, bool)})
    scale = fit_standardiser(data)
    x = standardise(data, scale)
    x = turned(x, fit_rotation(data, x, 4, 0))
    assert not x["audio"].any() and all(np.isfinite(z).all() for z in x.values())


@levels
def test_turned_features_are_uncorrelated_strong_ones_first_at_mean_variance_1(rng, steps):
    data = clips(rng, steps=steps)
    x = standardise(data, fit_standardiser(data))
    rotation = fit_rotation(data, x, 5, 0)
    assert rotation["rotate.audio"].shape == (9, 5) and rotation["rotate.noise"].shape == (4, 4)
    z = turned(x, rotation)["audio"]
    assert z.shape == (*x["audio"].shape[:-1], 5)
    covariance = np.cov(z[data.present["audio"]].reshape(-1, 5).T)
    power = np.diag(covariance)
    assert np.allclose(covariance - np.diag(power), 0, atol=0.02) and (np.diff(power) < 0).all()
    assert power.mean() == pytest.approx(1, abs=0.02)
    assert turned(x, {})["audio"] is x["audio"]
