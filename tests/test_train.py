"""Training and cross-validation: nothing leaks, everything repeats, and finished folds are read back."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from fusion_clips import CLASSES, NEURAL, changed, clips, one_hot, with_stream

from ecmf_lib import classical, evaluate, fit, train, training_part
from ecmf_lib.members import OFFICIAL
from ecmf_lib.train import KINDS, DataError, ModelSpec

#: Every kind, ECMF's main forms, the search, and the official recipe. ECMF's experts are on where not said otherwise.
SPECS = {kind: ModelSpec(kind, kind, options=NEURAL if kind in train.fusion.FUSIONS else {}) for kind in KINDS} | {
    "searched": ModelSpec("searched", "ecmf", options={"inner": 3, "width": 8}, trials=3),
    "plain": ModelSpec(
        "plain", "ecmf", options=NEURAL | {"attention": False, "residual": "none", "experts": False, "members": 1}
    ),
    "official": ModelSpec("official", "baseline-attention", options=OFFICIAL | {"width": 8, "inner": 3}, epochs=4),
}
NETWORKS = [name for name, spec in SPECS.items() if spec.neural]
#: Without weights of streams.
WEIGHTLESS = ("concat", "lmf", "tfn", "mult", "logistic", "stacked", "linear-experts", "boosting", "majority")
every_pipeline = pytest.mark.parametrize("kind", SPECS)


def run(data, kind, **settings):
    settings = {"n_folds": 2, "epochs": 2, "progress": False} | settings
    return train.cross_validate(data, SPECS[kind] if isinstance(kind, str) else kind, **settings)


@pytest.fixture
def fits(monkeypatch):
    """Training part, groups and model of each fit."""
    calls, real = [], train.fit

    def watch(data, *args, groups, **named):
        calls.append((data, groups, real(data, *args, groups=groups, **named)))
        return calls[-1][-1]

    monkeypatch.setattr(train, "fit", watch)
    return calls


@pytest.fixture
def inner(monkeypatch):
    """Clips and folds of each inner split."""
    calls, real = [], training_part.inner_folds

    def watch(labels, groups, *args):
        calls.append((groups, real(labels, groups, *args)))
        return calls[-1][1]

    for module in (training_part, classical):
        monkeypatch.setattr(module, "inner_folds", watch)
    return calls


# ---- predictions


@every_pipeline
def test_every_clip_is_predicted_once_a_seed_and_probabilities_add_up(rng, kind):
    data = clips(rng)
    table = run(data, kind, seeds=(0, 3), n_folds=2, epochs=1)
    assert table.groupby("seed")["id"].apply(sorted).tolist() == [sorted(data.ids)] * 2
    chances = table[[f"p_{name}" for name in CLASSES]].to_numpy()
    assert np.isfinite(chances).all() and np.allclose(chances.sum(1), 1)
    assert (table.predicted == np.array(CLASSES)[chances.argmax(1)]).all()
    truth = dict(zip(data.ids, np.array(CLASSES)[data.labels], strict=True))
    assert (table.label == table.id.map(truth)).all()
    weights = table[["w_face", "w_audio", "w_noise"]].to_numpy()
    assert np.isnan(weights).all() == (kind in WEIGHTLESS)
    if kind in ("ecmf", "searched", "plain", "late-logistic"):
        nothing = (table.id == "clip007").to_numpy()
        assert np.allclose(weights[~nothing].sum(1), 1) and (weights[nothing] == 0).all()
    assert (table["temperature"] > 0).all() and table["options"].str.startswith("{").all()


@pytest.mark.parametrize("kind", [name for name in NETWORKS if name not in ("searched", "official")])
def test_networks_learn_what_there_is_to_learn(rng, kind):
    data = clips(rng, n=120, signal=2.5)
    spec = dataclasses.replace(SPECS[kind], options=SPECS[kind].options | {"width": 16, "lr": 1e-2})
    assert evaluate.scores(run(data, spec, epochs=15))["weighted_f1"] > 0.75


def test_the_official_recipe_learns_too(rng):
    """As slowly as it is: a tenth of the step of ours, for four times as many epochs."""
    spec = dataclasses.replace(SPECS["official"], options=OFFICIAL | {"width": 64, "inner": 3}, epochs=25)
    assert evaluate.scores(run(clips(rng, n=120, signal=2.5), spec))["weighted_f1"] > 0.75


def test_majority_is_the_majority(rng):
    data = clips(rng)
    data = data.select((data.labels != 1) | (np.arange(96) % 2 == 0))
    table = run(data, "majority")
    assert set(table.predicted) <= {"neutral", "happy"}


# ---- leaks


@every_pipeline
def test_shuffled_labels_score_at_chance(rng, kind):
    """To within the interval over speakers; a pipeline that peeks anywhere does better."""
    data = clips(rng, n=180, speakers=18)
    shuffled = changed(data, labels=rng.permutation(data.labels))
    found = evaluate.interval(run(shuffled, kind, epochs=6), metric="accuracy")
    assert found.low <= 1 / 3 + 0.02 and found.high >= 1 / 3 - 0.06  # folds of even classes cost the majority a little


@pytest.mark.parametrize("kind", ["ecmf", "mult"])
def test_shuffled_labels_score_at_chance_at_frame_level(rng, kind):
    data = clips(rng, n=180, speakers=18, steps=3)
    shuffled = changed(data, labels=rng.permutation(data.labels))
    found = evaluate.interval(run(shuffled, kind, epochs=6), metric="accuracy")
    assert found.low <= 1 / 3 + 0.02


@pytest.mark.parametrize("kind", ["linear-experts", "boosting", "ecmf"])
def test_a_label_that_is_the_speaker_is_found_by_clip_and_not_with_speakers_apart(rng, kind):
    """What a speaker in two folds would give away: this test sees such a leak, and there is none."""
    data = clips(rng, n=180, speakers=18, signal=0.0)
    data = changed(data, labels=np.array([int(s[1:]) % 3 for s in data.speakers]))
    apart = evaluate.interval(run(data, kind), metric="accuracy")
    assert apart.low <= 1 / 3 + 0.02
    assert evaluate.scores(run(data, kind, groups=data.ids))["accuracy"] > apart.value + 0.15


@pytest.mark.parametrize("kind", ["ecmf", "searched", "official", "stacked", "majority"])
def test_no_speaker_is_in_two_folds_and_none_that_is_tested_was_trained_on(rng, fits, kind):
    data = clips(rng)
    table = run(data, kind, seeds=(0, 1), n_folds=3, epochs=1)
    assert (table.groupby(["seed", "speaker"])["fold"].nunique() == 1).all() and table.fold.nunique() == 3
    assert len(fits) == 6
    for (part, groups, _), (_, tested) in zip(fits, table.groupby(["seed", "fold"]), strict=True):
        assert not set(part.speakers) & set(tested["speaker"]) and groups.tolist() == part.speakers
        assert set(part.ids) | set(tested["id"]) == set(data.ids)


@pytest.mark.parametrize("kind", ["ecmf", "searched", "mult", "logistic", "stacked", "linear-experts", "boosting"])
def test_inner_folds_hold_speakers_apart_too(rng, inner, kind):
    data = clips(rng)
    run(data, kind, n_folds=2, epochs=1)
    assert len(inner) == 2
    for groups, fold in inner:
        assert set(groups) < set(data.speakers)
        assert (pd.DataFrame({"s": groups, "f": fold}).groupby("s")["f"].nunique() == 1).all()


def test_inner_folds_of_the_official_recipe_are_drawn_by_clip(rng, fits, monkeypatch):
    folds, real = [], training_part.train_stack
    monkeypatch.setattr(training_part, "train_stack", lambda *args: folds.append(args[5]) or real(*args))
    run(clips(rng), "official", n_folds=2)
    for (part, _, _), fold in zip(fits, folds, strict=True):
        assert (pd.DataFrame({"s": part.speakers, "f": fold}).groupby("s")["f"].nunique() > 1).any()
        assert np.ptp(np.bincount(fold)) <= 3


@every_pipeline
def test_the_scored_fold_changes_nothing_in_what_was_trained(rng, kind, fits):
    """Planted marker: the test fold gets other labels and absurd features, all that was learned stays the same."""
    data = clips(rng)
    marked = train.grouped_folds(data.labels, data.speakers, 4) == 2
    spoilt = changed(
        data,
        labels=np.where(marked, (data.labels + 1) % 3, data.labels),
        streams={name: np.where(marked[:, None], 1e6, x) for name, x in data.streams.items()},
        soft=np.where(marked[:, None], one_hot(data.labels * 0), one_hot(data.labels)),
        weight=np.where(marked, 100.0, 1.0),
    )
    for version in (data, spoilt):
        run(version, kind, test_fold=np.where(marked, 0, -1))
    first, second = (model for *_, model in fits)
    assert first.arrays.keys() == second.arrays.keys()
    assert all(np.array_equal(first.arrays[key], second.arrays[key]) for key in first.arrays)
    assert (first.temperature, first.chosen, first.options) == (second.temperature, second.chosen, second.options)
    assert ("expert.face" in first.arrays) == (kind in ("ecmf", "searched"))
    trained_on = data.select(~marked)  # trees are in no array: by what they say
    assert np.array_equal(first.predict(trained_on)[0], second.predict(trained_on)[0])


def test_options_are_chosen_on_inner_folds(rng):
    """Of a sensible and a hopeless candidate, each fold's model takes the sensible one."""
    data = clips(rng)
    spec = ModelSpec("grid", "ecmf", options=NEURAL | {"width": [8], "lr": (1e-7, 1e-2)})
    chosen, alone = run(data, spec), run(data, ModelSpec("one", "ecmf", options=NEURAL | {"lr": 1e-2}))
    assert set(chosen["options"]) == {'{"lr": 0.01, "width": 8}'} and set(alone["options"]) == {"{}"}
    of_both = ["model", "options"]
    pd.testing.assert_frame_equal(chosen.drop(columns=of_both), alone.drop(columns=of_both))


# ---- outer folds


def test_each_seed_draws_its_own_folds_and_all_models_get_them(rng):
    data = clips(rng, speakers=20)
    tables = [run(data, kind, seeds=(0, 1), n_folds=3, epochs=1) for kind in ("majority", "ecmf", "logistic")]
    folds = [table.set_index(["seed", "id"])["fold"] for table in tables]
    assert folds[0].equals(folds[1]) and folds[0].equals(folds[2])
    assert not folds[0].loc[0].sort_index().equals(folds[0].loc[1].sort_index())
    for seed in (0, 1):
        assert folds[0].loc[seed].loc[data.ids].tolist() == train.outer_folds(data, data.speakers, 3, seed).tolist()


def test_a_published_split_is_kept_for_every_seed(rng):
    data = clips(rng)
    split = np.where(np.arange(96) < 60, -1, np.arange(96) % 2)
    table = run(data, "logistic", test_fold=split, seeds=(0, 1))
    for _, part in table.groupby("seed"):
        assert part.set_index("id")["fold"].to_dict() == {data.ids[i]: split[i] for i in range(60, 96)}


def test_a_share_of_the_speakers_trains_and_the_same_clips_are_scored(rng, fits):
    data = clips(rng, n=120, speakers=12)
    whole, half = (run(data, "logistic", share=share) for share in (1.0, 0.5))
    pd.testing.assert_frame_equal(whole[["seed", "fold", "id"]], half[["seed", "fold", "id"]])
    assert (half["trained_speakers"] == [round(0.5 * n) for n in whole["trained_speakers"]]).all()
    for (more, *_), (fewer, *_) in zip(fits[:2], fits[2:], strict=True):
        assert set(fewer.ids) < set(more.ids)
        assert set(fewer.ids) == {clip for clip, s in zip(more.ids, more.speakers, strict=True) if s in fewer.speakers}


# ---- the same numbers again


@every_pipeline
def test_same_seed_same_file_other_seed_others(rng, kind, tmp_path):
    """Byte by byte, whatever has been drawn before."""
    data = clips(rng)
    for folder in ("one", "two"):
        run(data, kind, folder=tmp_path / folder)
        torch.rand(7)
        np.random.rand(7)
    one, two = (sorted((tmp_path / folder).glob("*.parquet")) for folder in ("one", "two"))
    assert [path.name for path in one] == [path.name for path in two] and len(one) == 2
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("kind", ["ecmf", "concat", "official"])
def test_another_seed_gives_other_numbers_on_the_same_folds(rng, kind):
    data = clips(rng)
    split = train.grouped_folds(data.labels, data.speakers, 2)
    one, other = (run(data, kind, seeds=(seed,), test_fold=split, epochs=1)["p_angry"] for seed in (0, 1))
    assert not np.allclose(one, other)


def test_training_leaves_torch_as_it_was(rng):
    torch.manual_seed(1)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    run(clips(rng), "searched", epochs=1)
    assert torch.equal(before, torch.get_rng_state()) and torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_threads_do_not_matter(rng):
    data = clips(rng)
    threads = torch.get_num_threads()
    tables = []
    for count in (1, 3):
        torch.set_num_threads(count)
        tables.append([run(data, kind) for kind in ("ecmf", "late-logistic", "linear-experts", "boosting")])
    torch.set_num_threads(threads)
    for one, other in zip(*tables, strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)


def test_worker_processes_do_not_matter(rng):
    data = clips(rng)
    one, other = (run(data, "ecmf", workers=workers) for workers in (1, 2))
    pd.testing.assert_frame_equal(one, other, check_exact=True)


@pytest.mark.parametrize("kind", [name for name in SPECS if name != "boosting"])
def test_saved_and_loaded_predicts_the_same(rng, kind, tmp_path):
    data = clips(rng)
    model = fit.fit(data, SPECS[kind], seed=0, epochs=2)
    model.save(tmp_path / "model")
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["model.json", "model.safetensors"]
    again = fit.Fitted.load(tmp_path / "model")
    assert (again.temperature, again.chosen, again.classes) == (model.temperature, model.chosen, model.classes)
    for one, other in zip(model.predict(data), again.predict(data), strict=True):
        np.testing.assert_array_equal(one, other)


# ---- soft labels and weights


@pytest.mark.parametrize("kind", ["ecmf", "official", "stacked", "linear-experts"])
def test_hard_labels_as_soft_ones_give_the_same_predictions(rng, kind):
    data = clips(rng)
    soft = changed(data, soft=one_hot(data.labels), weight=np.ones(96))
    pd.testing.assert_frame_equal(run(data, kind), run(soft, kind), check_exact=True)


@pytest.mark.parametrize("kind", ["ecmf", "linear-experts"])
def test_soft_labels_are_trained_on_and_labels_are_scored(rng, kind):
    data = clips(rng)
    table = run(changed(data, soft=one_hot((data.labels + 1) % 3)), kind, n_folds=2, epochs=10)
    assert table.set_index("id")["label"].loc[data.ids].tolist() == [CLASSES[i] for i in data.labels]
    learned = table["label"].map(dict(zip(CLASSES, np.roll(CLASSES, -1), strict=True)))
    assert (table["predicted"] == learned).mean() > 0.7 and evaluate.scores(table)["accuracy"] < 0.2


def test_weights_change_what_is_learned(rng):
    data = clips(rng, signal=0.7)
    heavy = changed(data, weight=np.where(data.labels == 1, 10.0, 1.0))
    for kind in ("ecmf", "late-logistic", "boosting"):
        one, other = (run(version, kind, epochs=15)["p_angry"].mean() for version in (data, heavy))
        assert other > one + 0.05


# ---- frame level


@pytest.mark.parametrize("kind", ["ecmf", "mult", "tfn", "official", "stacked", "linear-experts", "boosting"])
def test_frame_level_streams_run_everywhere(rng, kind):
    """ECMF pools them by attention, MulT attends to the steps, all others see the mean over time."""
    data = clips(rng, steps=3)
    frames, flat = run(data, kind, n_folds=2), run(data.clip_level(), kind, n_folds=2)
    assert np.isfinite(frames[["p_angry", "p_happy"]]).all().all()
    if SPECS[kind].neural:
        assert not np.allclose(frames["p_angry"], flat["p_angry"], rtol=0, atol=1e-6)
    else:
        pd.testing.assert_frame_equal(frames, flat)


def test_a_model_of_frames_is_kept_with_its_pooling(rng, tmp_path):
    data = clips(rng, steps=3)
    model = fit.fit(data, SPECS["ecmf"], seed=0, epochs=1)
    model.save(tmp_path)
    assert tuple(model.options["temporal"]) == ("audio",)
    again = fit.Fitted.load(tmp_path)
    assert np.array_equal(again.predict(data)[0], model.predict(data)[0])
    assert np.isfinite(again.predict(data.clip_level())[0]).all()  # one step is a clip's mean


def test_attention_over_time_finds_the_one_step_that_tells(rng):
    """A step with a flag on tells the label, eleven others of far more variance do not: their mean hides it."""
    n, steps = 180, 12
    labels, speakers = np.arange(n) % 3, [f"s{i % 9}" for i in range(n)]
    x = 3 * rng.normal(size=(n, steps, 5))
    x[..., 0] = 0
    told = rng.integers(0, steps, n)
    x[np.arange(n), told] = np.c_[np.full(n, 10.0), 6 * one_hot(labels), np.zeros(n)]
    data = train.FusionData(
        [f"clip{i}" for i in range(n)], {"audio": x}, {"audio": np.ones(n, bool)}, labels, speakers, CLASSES
    )
    options = {"inner": 3, "width": 32, "experts": False, "dropout": 0.1, "input_dropout": 0.0, "lr": 1e-2}
    spec = ModelSpec("m", "ecmf", options=options)
    over_time, flat = (run(version, spec, epochs=30, n_folds=2) for version in (data, data.clip_level()))
    assert evaluate.scores(over_time)["accuracy"] > evaluate.scores(flat)["accuracy"] + 0.15


# ---- interruption


def test_finished_folds_are_read_back_and_the_rest_is_done(rng, tmp_path, monkeypatch):
    data = clips(rng)
    whole = run(data, "ecmf", n_folds=4, epochs=1)
    calls, real = [], train._one_fold

    def dies_in_third(*args, **named):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **named)

    monkeypatch.setattr(train, "_one_fold", dies_in_third)
    with pytest.raises(KeyboardInterrupt):
        run(data, "ecmf", n_folds=4, epochs=1, folder=tmp_path)
    assert len(list(tmp_path.glob("*.parquet"))) == 2
    pd.testing.assert_frame_equal(run(data, "ecmf", n_folds=4, epochs=1, folder=tmp_path), whole, check_exact=True)
    assert len(calls) == 3 + 2
    run(data, "ecmf", n_folds=4, epochs=1, folder=tmp_path)
    assert len(calls) == 3 + 2
    assert not list((tmp_path / ".writing").iterdir())


def test_many_models_at_once_are_the_same_as_one_by_one(rng, tmp_path):
    """In processes that share the features; and what one way has stored, the other reads."""
    data = clips(rng)
    models = [
        (data, SPECS["ecmf"]),
        (data, ModelSpec("late", "late-logistic")),
        (data, dataclasses.replace(SPECS["ecmf"], name="two", streams=("face", "audio"))),
    ]
    how = {"n_folds": 3, "epochs": 2, "progress": False}
    alone = [train.cross_validate(data, spec, **how) for data, spec in models]
    both = train.cross_validate_all(models, workers=2, folder=tmp_path, **how)
    for one, other in zip(alone, both, strict=True):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")}
    assert len(before) == 9
    pd.testing.assert_frame_equal(train.cross_validate(*models[2], folder=tmp_path, **how), alone[2])
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")}


def test_on_a_device_the_folds_of_all_models_are_trained_together(rng, monkeypatch):
    """On the CPU as the device: the same predictions to rounding, networks in stacks, the rest one by one."""
    data = clips(rng)
    options = NEURAL | {"width": 16}
    models = [
        (data, ModelSpec("ecmf", "ecmf", options=options)),
        (data, ModelSpec("again", "ecmf", options=options, streams=("face", "audio", "noise"))),
        (data, ModelSpec("two", "ecmf", options=options, streams=("face", "audio"))),
        (data, ModelSpec("searched", "concat", options=NEURAL, trials=2)),
        (data, ModelSpec("late", "late-logistic")),
    ]
    how = {"n_folds": 2, "seeds": (0, 1), "epochs": 2, "progress": False}
    alone = train.cross_validate_all(models, **how)
    sizes, real = [], fit.train_together
    monkeypatch.setattr(fit, "train_together", lambda jobs, *a, **k: sizes.append(len(jobs)) or real(jobs, *a, **k))
    monkeypatch.setattr(train, "_device", lambda asked: "meta-cpu")
    monkeypatch.setattr(train, "fit_together", lambda tasks, device: fit.fit_together(tasks, device="cpu"))
    together = train.cross_validate_all(models, device="auto", **how)
    assert sum(sizes) == 3 * 4 and max(sizes) >= 4
    for one, other in zip(alone, together, strict=True):
        pd.testing.assert_frame_equal(one, other, atol=1e-4, rtol=0)


def test_stored_folds_are_not_used_for_anything_else(rng, tmp_path):
    data = clips(rng)
    keys = {
        train.part_key(*version)
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


@pytest.mark.parametrize("kind", ["ecmf", "moe", "official", *classical.KINDS])
def test_a_class_that_a_training_part_lacks_does_not_stop_the_run(rng, kind):
    data = clips(rng)
    rare = np.array([i for i in range(96) if data.labels[i] != 2 or data.speakers[i] == "s0"])
    table = run(data.select(rare), kind, epochs=2)
    assert len(table) == len(rare) and np.isfinite(table["p_happy"]).all()


# ---- what is refused


@pytest.mark.parametrize("steps", [0, 3])
def test_a_constant_stream_is_refused_a_constant_column_is_not(rng, steps):
    data = clips(rng, steps=steps)
    x = data.streams["audio"].copy()
    x[..., 3] = 7
    assert np.isfinite(run(with_stream(data, "audio", x), "ecmf", epochs=1)["p_angry"]).all()
    with pytest.raises(DataError, match=r"'audio'.*clip000"):
        run(with_stream(data, "audio", np.full_like(x, 7)), "ecmf")
    nowhere = changed(data, present=data.present | {"audio": np.zeros(96, bool)})
    with pytest.raises(DataError, match="'audio': missing in all 96 clips"):
        run(nowhere, "ecmf")


@pytest.mark.parametrize("kind", ["ecmf", "stacked"])
@pytest.mark.parametrize("steps", [0, 3])
def test_a_model_refuses_features_of_another_encoder(rng, kind, steps):
    data = clips(rng, steps=steps)
    model = fit.fit(data, SPECS[kind], seed=0, epochs=1)
    x = data.streams["audio"]
    wider = with_stream(data, "audio", np.concatenate([x, x[..., :1]], axis=-1))
    with pytest.raises(DataError, match=r"'audio'.*clip000.*10.*expects 9"):
        model.predict(wider)
    with pytest.raises(DataError, match="no stream audio"):
        model.predict(data.only(["face", "noise"]))


def test_groups_and_folds_of_other_lengths_are_refused(rng):
    with pytest.raises(DataError, match="95 groups for 96 clips"):
        run(clips(rng), "majority", groups=["g"] * 95)
    with pytest.raises(DataError, match="2 fold numbers"):
        run(clips(rng), "majority", test_fold=np.zeros(2, int))


def test_unknown_kinds_and_options_are_refused():
    with pytest.raises(ValueError, match="choose from ecmf"):
        ModelSpec("m", "ecfm")


def test_a_misspelt_option_is_refused(rng):
    with pytest.raises(ValueError, match="widht"):
        run(clips(rng), ModelSpec("m", "ecmf", options={"widht": 3}))
    with pytest.raises(ValueError, match="width"):
        run(clips(rng), ModelSpec("m", "logistic", options={"width": 3}))


# ---- real features


@pytest.fixture(scope="module")
def ravdess(real):
    names = {"calm": "neutral", "fearful": "worried", "surprised": "surprise"}
    classes = ("neutral", "angry", "happy", "sad", "worried", "surprise")
    with np.load(real / "ravdess_features" / "ravdess_dev_actors01-18.npz", allow_pickle=False) as stored:
        emotion = [names.get(e, e) for e in stored["emotion"].tolist()]
        keep = np.array([e in classes for e in emotion])
        streams = {name: stored[name][keep] for name in ("au35", "mfcc259", "w2v2_1024")}
        return train.FusionData(
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
