"""Clips and folds: what cannot be used is refused by stream and clip, speakers are held apart, time is cut evenly."""

import numpy as np
import pandas as pd
import pytest
from fusion_clips import CLASSES, changed, clips, one_hot, with_stream

from ecmf_lib.samples import DataError, FusionData, grouped_folds, inner_folds, time_parts

levels = pytest.mark.parametrize("steps", [0, 4], ids=["clip level", "frame level"])


def apart(fold, groups):
    return bool((pd.DataFrame({"g": groups, "f": fold}).groupby("g")["f"].nunique() == 1).all())


# ---- what is refused


@levels
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused_by_stream_and_clip(rng, value, steps):
    data = clips(rng, steps=steps)
    x = data.streams["audio"].copy()
    x[17, ..., 2] = value
    with pytest.raises(DataError, match=r"'audio'.*1 clip.*clip017"):
        with_stream(data, "audio", x)
    x[17], x[5, ..., 0] = 0, value  # clip 5 has no audio, so what stands there is nobody's business
    assert (with_stream(data, "audio", x).streams["audio"][5] == 0).all()


@levels
def test_a_constant_stream_is_refused_a_constant_column_is_not(rng, steps):
    data = clips(rng, steps=steps)
    x = data.streams["audio"].copy()
    x[..., 3] = 7
    with_stream(data, "audio", x).check_varies()
    with pytest.raises(DataError, match=r"'audio': all 94 clips .*clip000"):
        with_stream(data, "audio", np.full_like(x, 7)).check_varies()
    nowhere = changed(data, present=data.present | {"audio": np.zeros(96, bool)})
    with pytest.raises(DataError, match="'audio': missing in all 96 clips"):
        nowhere.check_varies()


def test_a_stream_that_varies_only_over_time_is_not_constant(rng):
    data = clips(rng)
    with_stream(data, "audio", np.tile(np.arange(4.0)[None, :, None], (96, 1, 9))).check_varies()


@levels
def test_wrong_shapes_are_refused_by_stream_and_clip(rng, steps):
    data = clips(rng, steps=steps)
    x = data.streams["audio"]
    for wrong in (x[:-1], x[..., :0], x[:, 0] if not steps else x[..., None], np.zeros((96, 0, 9))):
        with pytest.raises(DataError, match=r"'audio': features have shape \(.*expected \(96, dim\).*clip000.*clip095"):
            with_stream(data, "audio", wrong)
    with pytest.raises(DataError, match="'face': present is int64"):
        changed(data, present=data.present | {"face": np.ones(96, np.int64)})
    with pytest.raises(DataError, match=r"'face': present is bool \(95,\)"):
        changed(data, present=data.present | {"face": np.ones(95, bool)})
    with pytest.raises(DataError, match=r"`present` has \['face'\]"):
        changed(data, present={"face": np.ones(96, bool)})
    with pytest.raises(DataError, match="no stream text"):
        data.only(["text"])


def test_wrong_labels_ids_and_speakers_are_refused(rng):
    data = clips(rng)
    with pytest.raises(DataError, match=r"clip004.*label index 9"):
        changed(data, labels=np.where(np.arange(96) == 4, 9, data.labels))
    with pytest.raises(DataError, match="float64"):
        changed(data, labels=data.labels.astype(float))
    with pytest.raises(DataError, match=r"clip000.*twice"):
        changed(data, ids=["clip000", *data.ids[:-1]])
    with pytest.raises(DataError, match="95 speakers for 96 clips"):
        changed(data, speakers=data.speakers[:-1])
    with pytest.raises(DataError, match="at least one of each"):
        data.only([])


@pytest.mark.parametrize("row", [[0.5, 0.2, 0.2], [1.2, -0.2, 0.0], [np.nan, 0.5, 0.5], [0, 0, 0]])
def test_soft_labels_that_are_no_distribution_are_refused_by_clip(rng, row):
    data = clips(rng)
    soft = one_hot(data.labels)
    soft[31] = row
    with pytest.raises(DataError, match=r"clip031.*no distribution"):
        changed(data, soft=soft)


@pytest.mark.parametrize("value", [-1, np.nan, np.inf])
def test_weights_that_are_none_are_refused_by_clip(rng, value):
    data = clips(rng)
    with pytest.raises(DataError, match=r"clip031.*weight"):
        changed(data, weight=np.where(np.arange(96) == 31, value, 1.0))


def test_soft_labels_and_weights_of_other_shapes_are_refused(rng):
    data = clips(rng)
    with pytest.raises(DataError, match=r"soft labels have shape \(96, 2\); expected \(96, 3\)"):
        changed(data, soft=np.full((96, 2), 0.5))
    with pytest.raises(DataError, match=r"weights have shape \(95,\)"):
        changed(data, weight=np.ones(95))


# ---- what it gives


def test_targets_are_class_probabilities_times_weight(rng):
    data = clips(rng)
    assert np.array_equal(data.targets(), one_hot(data.labels))
    soft, weight = rng.dirichlet(np.ones(3), 96).astype(np.float32), rng.random(96).astype(np.float32)
    assert np.array_equal(changed(data, soft=soft).targets(), soft)
    assert np.allclose(changed(data, weight=weight).targets(), weight[:, None] * one_hot(data.labels))
    both = changed(data, soft=soft, weight=weight)
    assert np.allclose(both.targets(), weight[:, None] * soft)
    rows = np.array([7, 3, 50])
    assert np.array_equal(both.select(rows).targets(), both.targets()[rows])
    assert both.select(rows).speakers == [data.speakers[i] for i in rows] and both.select(rows).ids[0] == "clip007"


def test_the_fingerprint_changes_with_everything(rng):
    data = clips(rng)
    x, there = data.streams["audio"].copy(), data.present["audio"].copy()
    x[20, 1] += 1e-3
    there[20] = False
    versions = [
        data,
        changed(data, soft=one_hot(data.labels)),
        changed(data, soft=one_hot(data.labels[::-1])),
        changed(data, weight=np.ones(96)),
        changed(data, weight=np.arange(96)),
        changed(data, labels=data.labels[::-1]),
        changed(data, speakers=data.speakers[::-1]),
        changed(data, classes=("neutral", "happy", "angry")),
        changed(data, ids=data.ids[::-1]),
        with_stream(data, "audio", x),
        with_stream(data, "audio", data.streams["audio"][:, None]),
        changed(data, present=data.present | {"audio": there}),
        data.only(["face", "audio"]),
    ]
    assert len({version.fingerprint() for version in versions}) == len(versions)
    assert clips(np.random.default_rng(5)).fingerprint() == clips(np.random.default_rng(5)).fingerprint()


def test_levels_of_streams(rng):
    data = clips(rng, steps=4)
    assert data.frame_level == ("audio",) and data.dims == {"face": 6, "audio": 9, "noise": 4}
    flat = data.clip_level()
    assert flat.frame_level == () and flat.dims == data.dims
    assert np.array_equal(flat.streams["audio"], data.streams["audio"].mean(1))
    assert np.array_equal(flat.streams["face"], data.streams["face"])
    assert data.select(np.arange(96) < 10).streams["audio"].shape == (10, 4, 9)


# ---- folds


def test_folds_hold_groups_apart_and_are_drawn_by_seed(rng):
    data = clips(rng, n=240, speakers=20)
    folds = [grouped_folds(data.labels, data.speakers, 5, seed=seed) for seed in (0, 1, 0)]
    assert all(apart(fold, data.speakers) and set(fold) == set(range(5)) for fold in folds)
    assert np.array_equal(folds[0], folds[2]) and not np.array_equal(folds[0], folds[1])
    for number in range(5):
        assert np.bincount(data.labels[folds[0] == number], minlength=3).min() >= 8  # classes are spread


def test_inner_folds_hold_groups_apart_as_long_as_there_are_two(rng):
    data = clips(rng)
    assert apart(inner_folds(data.labels, np.array(data.speakers), 3, seed=1), data.speakers)
    alone = inner_folds(data.labels, np.array(["s0"] * 96), 3, seed=1)
    assert np.bincount(alone).tolist() == [32, 32, 32]
    with pytest.raises(DataError, match="too few"):
        inner_folds(np.array([0]), np.array(["s0"]), 3, seed=1)


def test_one_group_cannot_be_split():
    with pytest.raises(DataError, match=r"only one group.*s0.*take"):
        grouped_folds(np.array([0, 1, 0, 1]), ["s0"] * 4, 2)


# ---- from a corpus and its features


class Set:
    """As much of a FeatureSet as is needed: at frame level where its values have two axes."""

    def __init__(self, table):
        self.table = {clip: np.asarray(x, np.float32) for clip, x in table.items()}
        first = next(iter(self.table.values()))
        self.dim, self.level, self.ids = first.shape[-1], "frame" if first.ndim == 2 else "clip", list(self.table)

    def get(self, clip):
        return self.table[clip]

    def matrix(self, ids):
        there = np.array([clip in self.table for clip in ids])
        flat = {clip: x.mean(0) if x.ndim == 2 else x for clip, x in self.table.items()}
        return np.array([flat.get(clip, np.zeros(self.dim)) for clip in ids], dtype=np.float32), there


CORPUS = pd.DataFrame(
    {
        "id": ["a", "b", "c", "d"],
        "label": ["happy", "", "angry", "neutral"],
        "split": ["labelled", "labelled", "unlabelled", "labelled"],
        "speaker": ["s1", "s1", "s2", "s3"],
    }
)


def test_from_sets_takes_labelled_clips_only():
    data = FusionData.from_sets(CORPUS, {"face": Set({"a": [1, 2], "c": [3, 4]})}, CLASSES)
    assert data.ids == ["a", "d"] and data.labels.tolist() == [2, 0] and data.speakers == ["s1", "s3"]
    assert data.present["face"].tolist() == [True, False] and data.streams["face"].tolist() == [[1, 2], [0, 0]]
    with pytest.raises(DataError, match=r"'a'.*'happy'"):
        FusionData.from_sets(CORPUS, {"face": Set({"a": [1, 2]})}, ("neutral", "angry"))


def test_from_sets_cuts_frame_level_sets_into_steps_where_asked():
    frames = {"a": [[1, 0], [3, 0], [5, 1], [7, 1]], "c": [[9, 9]]}
    sets = {"face": Set({"a": [1, 2], "d": [3, 4]}), "audio": Set(frames)}
    data = FusionData.from_sets(CORPUS, sets, CLASSES, steps=2)
    assert data.streams["face"].shape == (2, 2) and data.frame_level == ("audio",)
    assert data.streams["audio"].tolist() == [[[2, 0], [6, 1]], [[0, 0], [0, 0]]]
    assert data.present["audio"].tolist() == [True, False]
    flat = FusionData.from_sets(CORPUS, sets, CLASSES)
    assert flat.frame_level == () and flat.streams["audio"][0].tolist() == [4, 0.5]


@pytest.mark.parametrize(
    ("n", "steps", "expected"),
    [
        (6, 3, [0.5, 2.5, 4.5]),
        (6, 1, [2.5]),
        (5, 2, [1, 3]),  # the step in the middle is half in each part
        (2, 4, [0, 0, 1, 1]),
        (1, 3, [0, 0, 0]),
        (3, 5, [0, 0.5, 1, 1.5, 2]),
    ],
)
def test_parts_are_means_over_equal_shares_of_time(n, steps, expected):
    found, there = time_parts(Set({"a": np.arange(n)[:, None]}), ["z", "a"], steps)
    assert there.tolist() == [False, True] and found.dtype == np.float32
    assert found[1, :, 0].tolist() == expected and not found[0].any()


def test_steps_without_frames_are_refused_by_name():
    with pytest.raises(DataError, match=r"'audio'.*NaN.*'a'"), pytest.warns(RuntimeWarning):
        FusionData.from_sets(CORPUS, {"audio": Set({"d": [[1, 2]], "a": np.zeros((0, 2))})}, CLASSES, steps=2)
