"""The search: seeded, the same space and number of trials for all, and scored on inner folds only."""

import json

import numpy as np
import pytest
from fusion_clips import NEURAL, clips

from ecmf_lib import fit, train, training_part
from ecmf_lib.fit import ModelSpec
from ecmf_lib.tune import SPACE, search

FIXED = {"inner": 3, "width": 8}


def tried(fixed, trials, seed):
    settings = []
    search(lambda options: settings.append(options) or (options["lr"] - 5e-3) ** 2, fixed, trials, seed)
    return settings


def test_the_same_seed_tries_the_same_settings():
    assert tried({}, 6, 3) == tried({}, 6, 3) != tried({}, 6, 4)


def test_the_default_counts_as_a_trial():
    assert len(tried({}, 6, 0)) == 5 and len(tried({}, 2, 0)) == 1


def test_settings_are_in_the_space_and_fixed_ones_are_not_searched():
    settings = tried({"width": 8, "residual": "concat"}, 20, 0)
    assert all(s.keys() == SPACE.keys() | {"residual"} for s in settings)
    assert {(s["width"], s["residual"]) for s in settings} == {(8, "concat")}
    for name, (kind, *values) in SPACE.items():
        found = {s[name] for s in settings}
        if name != "width":
            assert found <= set(values) if kind == "choice" else values[0] <= min(found) < max(found) <= values[1]
    assert {s["width"] for s in tried({}, 20, 0)} == {32, 64, 128}


def test_every_neural_fusion_takes_what_is_searched():
    for kind in train.fusion.FUSIONS:
        own = {key: 16 if key == "width" else 0.3 for key in ("width", "dropout", "input_dropout")}
        train.fusion.build(kind, {"face": 3, "audio": 4}, 3, **own)
    assert SPACE.keys() - own.keys() <= {name for name in train.Recipe.__dataclass_fields__}


def watched(monkeypatch):
    """What is trained on, and its inner loss."""
    calls, real = [], training_part.train_stack

    def watch(*args):
        found = real(*args)
        calls.append((args[1], args[5], found))
        return found

    monkeypatch.setattr(training_part, "train_stack", watch)
    return calls


def test_the_best_of_default_and_trials_by_inner_loss_is_kept(rng, monkeypatch):
    calls, data = watched(monkeypatch), clips(rng)
    model = fit.fit(data, ModelSpec("m", "ecmf", options=FIXED, trials=4), seed=0, epochs=2)
    assert len(calls) == 4
    losses = [loss for *_, (_, loss) in calls]
    stack, loss = min((found for *_, found in calls), key=lambda found: found[1])
    assert loss <= losses[0] and len(set(losses)) == 4
    assert all(np.array_equal(model.arrays[f"param.{key}"], p.numpy()) for key, p in stack.items())
    default = fit.fit(data, ModelSpec("m", "ecmf", options=FIXED), seed=0, epochs=2)
    same = all(np.array_equal(default.arrays[key], model.arrays[key]) for key in default.arrays if "param" in key)
    assert same is (losses.index(loss) == 0)
    if not same:
        assert model.chosen.keys() == SPACE.keys() - FIXED.keys()


@pytest.mark.parametrize("trials", [0, 1])
def test_without_trials_it_is_the_fixed_recipe(rng, monkeypatch, trials):
    calls, data = watched(monkeypatch), clips(rng)
    model = fit.fit(data, ModelSpec("m", "concat", options=NEURAL, trials=trials), seed=0, epochs=2)
    plain = fit.fit(data, ModelSpec("m", "concat", options=NEURAL), seed=0, epochs=2)
    assert len(calls) == 2 and model.chosen == {}
    assert all(np.array_equal(model.arrays[key], plain.arrays[key]) for key in plain.arrays)


def test_no_trial_sees_the_outer_fold_and_inner_folds_hold_speakers_apart(rng, monkeypatch):
    calls, data = watched(monkeypatch), clips(rng)
    table = train.cross_validate(
        data, ModelSpec("m", "concat", options=FIXED, trials=3), n_folds=2, epochs=1, progress=False
    )
    assert len(calls) == 2 * 3
    for number, trials in enumerate((calls[:3], calls[3:])):
        tested = set(table[table["fold"] == number]["id"])
        for part, fold, _ in trials:
            assert set(part.ids) == set(data.ids) - tested
            held = [{part.speakers[i] for i in np.flatnonzero(fold == n)} for n in range(3)]
            assert not held[0] & held[1] and not held[0] & held[2] and not held[1] & held[2]


def test_what_was_chosen_is_told_for_each_fold(rng):
    data = clips(rng)
    table = train.cross_validate(
        data, ModelSpec("m", "concat", options=FIXED | {"lr": [1e-7, 1e-2]}), n_folds=2, epochs=3, progress=False
    )
    assert [json.loads(text) for text in table["options"].unique()] == [{"lr": 0.01}]
    fixed = train.cross_validate(data, ModelSpec("m", "concat", options=FIXED), n_folds=2, epochs=1, progress=False)
    assert fixed["options"].unique().tolist() == ["{}"]


def test_options_that_a_spec_lists_are_settled_before_the_search(rng, monkeypatch):
    calls = watched(monkeypatch)
    options = FIXED | {"lr": [1e-7, 1e-2]}
    model = fit.fit(clips(rng), ModelSpec("m", "concat", options=options, trials=3), seed=0, epochs=3)
    assert len(calls) == 2 + 2 and model.chosen["lr"] == 1e-2
