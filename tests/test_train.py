"""Training and cross-validation: nothing leaks, everything repeats, and what cannot be used is refused by name."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from ecmf_lib import evaluate, fit, samples, train
from ecmf_lib.train import DataError, FusionData, ModelSpec

CLASSES = ("neutral", "angry", "happy")
NEURAL = {"width": 8, "inner": 3, "batch": 32}
SPECS = {
    "ecmf": ModelSpec("ecmf", "ecmf", options=NEURAL),
    "concat": ModelSpec("concat", "concat", options=NEURAL),
    "baseline-attention": ModelSpec("baseline-attention", "baseline-attention", options=NEURAL),
    "logistic": ModelSpec("logistic", "logistic", options={"C": (0.01, 0.1)}),
    "late-logistic": ModelSpec("late-logistic", "late-logistic", options={"C": (0.01, 0.1)}),
    "majority": ModelSpec("majority", "majority"),
}
every_kind = pytest.mark.parametrize("kind", SPECS)


def clips(rng, *, n=96, speakers=8, signal=1.5):
    """Two streams that each show part of the label, one that is pure noise; speakers shift all features."""
    labels = np.arange(n) % 3
    speaker = rng.integers(0, speakers, n)
    speaker[:speakers] = np.arange(speakers)
    streams = {}
    for name, dim, strength in (("face", 6, signal), ("audio", 9, signal), ("noise", 4, 0)):
        centres, shifts = rng.normal(size=(3, dim)), rng.normal(size=(speakers, dim))
        streams[name] = (strength * centres[labels] + shifts[speaker] + rng.normal(size=(n, dim))).astype(np.float32)
    present = {name: np.ones(n, bool) for name in streams}
    present["audio"][5] = present["face"][6] = False
    for name in streams:
        present[name][7] = False  # a clip without anything
    return FusionData([f"clip{i:03d}" for i in range(n)], streams, present, labels, [f"s{s}" for s in speaker], CLASSES)


def run(data, kind, **settings):
    settings = {"n_folds": 4, "epochs": 6, "progress": False} | settings
    return train.cross_validate(data, SPECS[kind] if isinstance(kind, str) else kind, **settings)


# ---- predictions


@every_kind
def test_every_clip_is_predicted_once_a_seed_and_probabilities_add_up(rng, kind):
    data = clips(rng)
    table = run(data, kind, seeds=(0, 3))
    assert table.groupby("seed")["id"].apply(sorted).tolist() == [sorted(data.ids)] * 2
    chances = table[[f"p_{name}" for name in CLASSES]].to_numpy()
    assert np.isfinite(chances).all() and np.allclose(chances.sum(1), 1)
    assert (table.predicted == np.array(CLASSES)[chances.argmax(1)]).all()
    truth = dict(zip(data.ids, np.array(CLASSES)[data.labels], strict=True))
    assert (table.label == table.id.map(truth)).all()
    weights = table[["w_face", "w_audio", "w_noise"]].to_numpy()
    assert np.isnan(weights).all() == (kind in ("concat", "logistic", "majority"))
    if kind == "ecmf":
        nothing = (table.id == "clip007").to_numpy()
        assert np.allclose(weights[~nothing].sum(1), 1) and (weights[nothing] == 0).all()


@pytest.mark.parametrize("kind", ["ecmf", "concat", "baseline-attention", "logistic", "late-logistic"])
def test_models_learn_what_there_is_to_learn(rng, kind):
    data = clips(rng, n=150)
    assert evaluate.scores(run(data, kind, epochs=25))["weighted_f1"] > 0.75


def test_majority_is_the_majority(rng):
    data = clips(rng)
    data = data.select((data.labels != 1) | (np.arange(96) % 2 == 0))
    table = run(data, "majority")
    assert set(table.predicted) <= {"neutral", "happy"}


# ---- leaks


@every_kind
def test_shuffled_labels_score_at_chance(rng, kind):
    """To within the interval over speakers; a pipeline that peeks anywhere does better."""
    data = clips(rng, n=240, speakers=16)
    shuffled = dataclasses.replace(data, labels=rng.permutation(data.labels))
    found = evaluate.interval(run(shuffled, kind), metric="accuracy")
    assert found.low <= 1 / 3 + 0.02


def test_no_speaker_is_in_two_folds(rng):
    table = run(clips(rng), "majority", seeds=(0, 1))
    assert (table.groupby("speaker")["fold"].nunique() == 1).all() and table.fold.nunique() == 4


@pytest.mark.parametrize("kind", ["ecmf", "logistic", "late-logistic"])
def test_the_scored_fold_changes_nothing_in_what_was_trained(rng, kind, monkeypatch):
    """Planted marker: the test fold gets other labels and absurd features, the trained arrays stay the same."""
    data = clips(rng)
    fold = train.grouped_folds(data.labels, data.speakers, 4)
    marked = fold == 2
    spoilt = dataclasses.replace(
        data,
        labels=np.where(marked, (data.labels + 1) % 3, data.labels),
        streams={name: np.where(marked[:, None], 1e6, x) for name, x in data.streams.items()},
    )
    models, real_fit = [], train.fit
    monkeypatch.setattr(train, "fit", lambda *args, **named: models.append(real_fit(*args, **named)) or models[-1])
    for version in (data, spoilt):
        run(version, kind, test_fold=np.where(marked, 0, -1))
    first, second = (model.arrays for model in models)
    assert first.keys() == second.keys() and all(np.array_equal(first[key], second[key]) for key in first)


def test_inner_folds_hold_speakers_apart_too(rng):
    data = clips(rng)
    fold = samples.inner_folds(data.labels, np.array(data.speakers), 3, seed=1)
    assert (pd.DataFrame({"s": data.speakers, "f": fold}).groupby("s")["f"].nunique() == 1).all()


def test_options_are_chosen_on_inner_folds(rng):
    """Of a sensible and a hopeless candidate, each fold's model takes the sensible one."""
    data = clips(rng)
    spec = ModelSpec("grid", "ecmf", options=NEURAL | {"width": [8], "lr": (1e-7, 1e-2)})
    chosen, alone = run(data, spec), run(data, ModelSpec("one", "ecmf", options=NEURAL | {"lr": 1e-2}))
    pd.testing.assert_frame_equal(chosen.drop(columns="model"), alone.drop(columns="model"))


# ---- the same numbers again


@every_kind
def test_same_seed_same_predictions_other_seed_others(rng, kind):
    data = clips(rng)
    first = run(data, kind)
    torch.rand(7)  # what happened before must not matter
    pd.testing.assert_frame_equal(first, run(data, kind), check_exact=True)
    if kind in ("ecmf", "concat", "baseline-attention"):
        assert not np.allclose(first["p_angry"], run(data, kind, seeds=(1,))["p_angry"])


def test_training_leaves_torch_as_it_was(rng):
    torch.manual_seed(1)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    run(clips(rng), "ecmf", epochs=1)
    assert torch.equal(before, torch.get_rng_state()) and torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_threads_do_not_matter(rng, monkeypatch):
    data = clips(rng)
    threads = torch.get_num_threads()
    tables = []
    for count in (1, 3):
        torch.set_num_threads(count)
        tables.append([run(data, kind) for kind in ("ecmf", "late-logistic")])
    torch.set_num_threads(threads)
    for one, other in zip(*tables, strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_worker_processes_do_not_matter(rng):
    data = clips(rng)
    pd.testing.assert_frame_equal(run(data, "ecmf", epochs=2), run(data, "ecmf", epochs=2, workers=2), check_exact=True)


@every_kind
def test_saved_and_loaded_predicts_the_same(rng, kind, tmp_path):
    data = clips(rng)
    model = fit.fit(data, SPECS[kind], seed=0, epochs=3)
    model.save(tmp_path / "model")
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["model.json", "model.safetensors"]
    again = fit.Fitted.load(tmp_path / "model")
    for one, other in zip(model.predict(data), again.predict(data), strict=True):
        np.testing.assert_array_equal(one, other)


# ---- interruption


def test_finished_folds_are_read_back_and_the_rest_is_done(rng, tmp_path, monkeypatch):
    data = clips(rng)
    whole = run(data, "ecmf", epochs=2)
    calls, real = [], train._one_fold

    def dies_in_third(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(train, "_one_fold", dies_in_third)
    with pytest.raises(KeyboardInterrupt):
        run(data, "ecmf", epochs=2, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    pd.testing.assert_frame_equal(run(data, "ecmf", epochs=2, folder=tmp_path), whole, check_exact=True)
    assert len(calls) == 3 + 2
    run(data, "ecmf", epochs=2, folder=tmp_path)
    assert len(calls) == 3 + 2
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".parquet"]


def test_stored_folds_are_not_used_for_anything_else(rng, tmp_path):
    data = clips(rng)
    keys = {
        train._key(*version)
        for groups in [list(data.speakers)]
        for fold in [np.zeros(96, int)]
        for version in (
            (data, SPECS["ecmf"], groups, fold, 5),
            (data, SPECS["ecmf"], groups, fold, 6),
            (data, SPECS["ecmf"], groups, fold + 1, 5),
            (data, SPECS["ecmf"], ["g", *groups[1:]], fold, 5),
            (data, dataclasses.replace(SPECS["ecmf"], options=NEURAL | {"lr": 0.1}), groups, fold, 5),
            (data.select(np.arange(95)), SPECS["ecmf"], groups, fold, 5),
            (dataclasses.replace(data, labels=data.labels[::-1]), SPECS["ecmf"], groups, fold, 5),
        )
    }
    assert len(keys) == 7


# ---- small and awkward data


def test_fewer_speakers_than_folds_gives_fewer_folds(rng):
    assert run(clips(rng, speakers=3), "ecmf", n_folds=5, epochs=1).fold.nunique() == 3


def test_two_speakers_still_work_with_inner_folds_by_clip(rng):
    assert set(run(clips(rng, speakers=2), "ecmf", epochs=1).fold) == {0, 1}


def test_one_speaker_is_refused_until_other_groups_are_given(rng):
    data = clips(rng, speakers=1)
    with pytest.raises(DataError, match=r"only one group.*s0.*take"):
        run(data, "majority")
    table = run(data, "majority", groups=[f"take{i % 6}" for i in range(96)])
    assert (table.groupby("speaker")["fold"].nunique() == 1).all() and table.speaker.nunique() == 6


@pytest.mark.parametrize("kind", ["ecmf", "logistic", "late-logistic", "majority"])
def test_a_class_that_a_training_part_lacks_does_not_stop_the_run(rng, kind):
    data = clips(rng)
    rare = np.array([i for i in range(96) if data.labels[i] != 2 or data.speakers[i] == "s0"])
    table = run(data.select(rare), kind, epochs=2)
    assert len(table) == len(rare) and np.isfinite(table["p_happy"]).all()


def test_a_published_split_is_kept(rng):
    data = clips(rng)
    split = np.where(np.arange(96) < 60, -1, 0)
    assert run(data, "logistic", test_fold=split).id.tolist() == data.ids[60:]


# ---- what is refused


def changed(data, **what):
    return dataclasses.replace(data, **what)


def with_stream(data, name, x):
    return changed(data, streams=data.streams | {name: x})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused_by_stream_and_clip(rng, value):
    data = clips(rng)
    x = data.streams["audio"].copy()
    x[17, 2] = value
    with pytest.raises(DataError, match=r"'audio'.*1 clip.*clip017"):
        with_stream(data, "audio", x)
    x[17], x[5, 0] = 0, value  # clip 5 has no audio, so what stands there is nobody's business
    assert (with_stream(data, "audio", x).streams["audio"][5] == 0).all()


def test_a_constant_stream_is_refused_a_constant_column_is_not(rng):
    data = clips(rng)
    x = data.streams["audio"].copy()
    x[:, 3] = 7
    assert np.isfinite(run(with_stream(data, "audio", x), "ecmf", epochs=1)["p_angry"]).all()
    with pytest.raises(DataError, match=r"'audio'.*clip000"):
        run(with_stream(data, "audio", np.full_like(x, 7)), "ecmf")
    nowhere = changed(data, present=data.present | {"audio": np.zeros(96, bool)})
    with pytest.raises(DataError, match="'audio': missing in all 96 clips"):
        run(nowhere, "ecmf")


def test_wrong_shapes_and_labels_are_refused(rng):
    data = clips(rng)
    with pytest.raises(DataError, match=r"'audio'.*\(95, 9\).*\(96, dim\)"):
        with_stream(data, "audio", data.streams["audio"][:-1])
    with pytest.raises(DataError, match="'audio'"):
        with_stream(data, "audio", data.streams["audio"][:, 0])
    with pytest.raises(DataError, match=r"clip004.*label index 9"):
        changed(data, labels=np.where(np.arange(96) == 4, 9, data.labels))
    with pytest.raises(DataError, match="float64"):
        changed(data, labels=data.labels.astype(float))
    with pytest.raises(DataError, match=r"clip000.*twice"):
        changed(data, ids=["clip000", *data.ids[:-1]])
    with pytest.raises(DataError, match="'face': present is int64"):
        changed(data, present=data.present | {"face": np.ones(96, np.int64)})
    with pytest.raises(DataError, match="no stream text"):
        data.only(["text"])


def test_a_model_refuses_features_of_another_encoder(rng):
    data = clips(rng)
    model = fit.fit(data, SPECS["ecmf"], seed=0, epochs=1)
    wider = with_stream(data, "audio", np.pad(data.streams["audio"], ((0, 0), (0, 1))))
    with pytest.raises(DataError, match=r"'audio'.*clip000.*10.*expects 9"):
        model.predict(wider)


def test_unknown_kinds_and_options_are_refused():
    with pytest.raises(ValueError, match="choose from ecmf"):
        ModelSpec("m", "ecfm")


def test_a_misspelt_option_is_refused(rng):
    with pytest.raises(ValueError, match="widht"):
        run(clips(rng), ModelSpec("m", "ecmf", options={"widht": 3}))
    with pytest.raises(ValueError, match="width"):
        run(clips(rng), ModelSpec("m", "logistic", options={"width": 3}))


# ---- from a corpus and its features


class Set:
    """As much of a FeatureSet as is needed."""

    def __init__(self, table):
        self.table = table

    def matrix(self, ids):
        there = np.array([clip in self.table for clip in ids])
        dim = len(next(iter(self.table.values())))
        return np.array([self.table.get(clip, np.zeros(dim)) for clip in ids], dtype=np.float32), there


def test_from_sets_takes_labelled_clips_only():
    table = pd.DataFrame(
        {
            "id": ["a", "b", "c", "d"],
            "label": ["happy", "", "angry", "neutral"],
            "split": ["labelled", "labelled", "unlabelled", "labelled"],
            "speaker": ["s1", "s1", "s2", "s3"],
        }
    )
    data = FusionData.from_sets(table, {"face": Set({"a": [1, 2], "c": [3, 4]})}, CLASSES)
    assert data.ids == ["a", "d"] and data.labels.tolist() == [2, 0] and data.speakers == ["s1", "s3"]
    assert data.present["face"].tolist() == [True, False] and data.streams["face"].tolist() == [[1, 2], [0, 0]]
    with pytest.raises(DataError, match=r"'a'.*'happy'"):
        FusionData.from_sets(table, {"face": Set({"a": [1, 2]})}, ("neutral", "angry"))


# ---- real features


@pytest.fixture(scope="module")
def ravdess(real):
    names = {"calm": "neutral", "fearful": "worried", "surprised": "surprise"}
    classes = ("neutral", "angry", "happy", "sad", "worried", "surprise")
    with np.load(real / "ravdess_features" / "ravdess_dev_actors01-18.npz", allow_pickle=False) as stored:
        emotion = [names.get(e, e) for e in stored["emotion"].tolist()]
        keep = np.array([e in classes for e in emotion])
        streams = {name: stored[name][keep] for name in ("au35", "mfcc259", "w2v2_1024")}
        return FusionData(
            ids=stored["id"][keep].tolist(),
            streams=streams,
            present={name: np.ones(keep.sum(), bool) for name in streams},
            labels=np.array([classes.index(e) for e in emotion if e in classes]),
            speakers=[str(actor) for actor in stored["actor"][keep]],
            classes=classes,
        )


def test_late_fusion_on_real_features_gives_the_known_score(ravdess):
    """.757 weighted F1 on 6 folds that hold actors apart (scikit-learn's GroupKFold), C = .003."""
    from sklearn.model_selection import GroupKFold

    fold = np.empty(len(ravdess), int)
    for number, (_, test) in enumerate(GroupKFold(6).split(fold, groups=ravdess.speakers)):
        fold[test] = number
    spec = ModelSpec("late", "late-logistic", ("au35", "w2v2_1024"), {"C": 0.003})
    table = train.cross_validate(ravdess, spec, test_fold=fold, progress=False)
    assert evaluate.scores(table)["weighted_f1"] == pytest.approx(0.757, abs=0.01)


def test_ecmf_on_real_features_of_unseen_actors(ravdess):
    table = train.cross_validate(ravdess, ModelSpec("ecmf", "ecmf"), n_folds=3, epochs=8, progress=False)
    assert evaluate.scores(table)["weighted_f1"] > 0.70
