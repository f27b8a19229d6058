"""Bundles: what was changed is refused, what was saved predicts the same, and nobody scores what they trained on."""

import json
import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from fusion_clips import CLASSES, NEURAL, changed, clips

from ecmf_lib import bundle_files, evaluate, train
from ecmf_lib.bundle import Bundle, BundleError, encoders_of, train_bundle
from ecmf_lib.fit import ModelSpec

SPEC = ModelSpec("ECMF", "ecmf", options=NEURAL)
QUICK = ModelSpec("late", "late-logistic", options={"C": 0.01})


def feature_set(stream, dim, version="1"):
    about = {"settings": {"encoder": {"size": dim}, "encoder_fingerprint": version * 16, "n_frames": 12}}
    return SimpleNamespace(encoder=f"made-{stream}", level="clip", dim=dim, licence="CC0", about=about)


def sets_of(data, **versions):
    return {name: feature_set(name, dim, versions.get(name, "1")) for name, dim in data.dims.items()}


def trained(data, spec=QUICK, **how):
    how = {"n_folds": 2, "seeds": (0, 1), "epochs": 2, "progress": False, "bootstrap": 50} | how
    return train_bundle(data, spec, encoders=encoders_of(sets_of(data)), about={"corpus": "made"}, **how)


@pytest.fixture(scope="module")
def data():
    return clips(np.random.default_rng(20251121))


@pytest.fixture(scope="module")
def made(data, tmp_path_factory):
    """An ensemble of ECMF, and the folder it was saved in; copy that before changing anything in it."""
    bundle, _ = trained(data, SPEC)
    return bundle, bundle.save(tmp_path_factory.mktemp("bundle") / "saved")


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made[1], tmp_path / "copy")


# ---- an ensemble


def test_a_round_trip_gives_identical_predictions(data, made):
    bundle, folder = made
    again = Bundle.load(folder)
    for a, b in zip(bundle.predict(data), again.predict(data), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (again.about, again.encoders, again.temperature) == (bundle.about, bundle.encoders, bundle.temperature)
    assert sorted(p.suffix for p in folder.rglob("*") if p.is_file()) == [".json"] * 5 + [".safetensors"] * 4


def test_predictions_are_the_mean_of_log_probabilities_scaled_and_renormalised(data, made):
    bundle, _ = made
    said = [model.predict(data) for model in bundle.models]
    logs = np.mean([np.log(np.maximum(chances, 1e-30)) for chances, _ in said], axis=0) / bundle.temperature
    expected = np.exp(logs) / np.exp(logs).sum(1, keepdims=True)
    chances, weights = bundle.predict(data)
    np.testing.assert_allclose(chances, expected, atol=1e-9)
    np.testing.assert_allclose(weights, np.mean([w for _, w in said], axis=0))


def test_many_clips_are_predicted_in_blocks_and_all_the_same(data, made, monkeypatch):
    whole = made[0].predict(data)
    monkeypatch.setattr("ecmf_lib.ensemble._AT_ONCE", 10)
    for a, b in zip(whole, made[0].predict(data), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_clip_is_scored_by_members_that_did_not_train_on_its_speaker(data, monkeypatch):
    parts, real = [], train.fit
    monkeypatch.setattr(train, "fit", lambda part, *a, **k: parts.append(part) or real(part, *a, **k))
    bundle, out_of_fold = trained(data)
    assert len(bundle.models) == len(parts) == 4
    used = {clip for part in parts for clip in part.ids}
    assert used == set(data.ids) == set(out_of_fold["id"])
    members = {(seed, fold): part for (seed, fold), part in zip([(0, 0), (0, 1), (1, 0), (1, 1)], parts, strict=True)}
    logs = np.zeros((len(data), 3))
    for i, clip in enumerate(data.ids):
        own = [key for key, part in members.items() if data.speakers[i] not in part.speakers]
        assert len(own) == 2, clip  # one a seed
        for seed, fold in own:
            model = bundle.models[2 * seed + fold]
            logs[i] += np.log(model.predict(data.select(np.array([i])))[0][0]) / 2
    found = out_of_fold.set_index("id").loc[data.ids, [f"p_{name}" for name in CLASSES]].to_numpy()
    expected = np.exp(logs / bundle.temperature)
    np.testing.assert_allclose(found, expected / expected.sum(1, keepdims=True), atol=1e-6)


def test_what_to_expect_is_the_score_of_those_predictions(data):
    bundle, out_of_fold = trained(data)
    assert bundle.about["expected"]["weighted_f1"] == pytest.approx(evaluate.scores(out_of_fold)["weighted_f1"])
    calibration = bundle.about["calibration"]
    assert calibration["ece_after"] == pytest.approx(evaluate.calibration_error(out_of_fold))
    raw = evaluate.raw_probabilities(out_of_fold)
    assert calibration["ece_before"] == pytest.approx(evaluate.calibration_error(raw), abs=1e-6)
    assert bundle.about["class_clips"] == {"neutral": 32, "angry": 32, "happy": 32} and bundle.commonest == "neutral"


def test_shuffled_labels_promise_no_more_than_chance(data, rng):
    bundle, _ = trained(changed(data, labels=rng.permutation(data.labels)))
    assert bundle.about["expected"]["weighted_f1"] < 0.5


def test_clips_of_a_published_test_part_train_nobody_and_give_the_expected_score(data, monkeypatch):
    test_fold = np.where(np.arange(len(data)) < 24, 0, -1)
    parts, real = [], train.fit
    monkeypatch.setattr(train, "fit", lambda part, *a, **k: parts.append(part) or real(part, *a, **k))
    bundle, out_of_fold = trained(data, test_fold=test_fold)
    tested = set(data.ids[:24])
    assert all(not tested & set(part.ids) for part in parts) and not tested & set(out_of_fold["id"])
    chances, _ = bundle.predict(data.select(test_fold == 0))
    told = bundle.about["expected"]
    scored = out_of_fold.head(24).assign(
        id=data.ids[:24],
        label=np.array(CLASSES)[data.labels[:24]],
        predicted=np.array(CLASSES)[chances.argmax(1)],
    )
    assert told["clips"] == 24 and "published" in told["how"]
    assert told["weighted_f1"] == pytest.approx(evaluate.scores(scored)["weighted_f1"])
    assert bundle.about["out_of_fold"]["clips"] == len(data) - 24


class Marker:
    """A preparation that notes what it is given and gives every clip of a part the same label."""

    def __init__(self):
        self.seen = []

    def __call__(self, part, groups, *, seed, epochs):
        self.seen.append((set(part.ids), seed, epochs))
        return replace(part, soft=np.eye(3, dtype=np.float32)[np.ones(len(part), int)]), groups

    def about(self):
        return ["marker"]


def test_labels_are_prepared_on_each_members_training_part_and_scored_against_the_given_ones(data):
    marker = Marker()
    _, out_of_fold = trained(data, prepare=marker)
    assert len(marker.seen) == 4 and all(0 < len(ids) < len(data) and epochs == 2 for ids, _, epochs in marker.seen)
    assert len({seed for _, seed, _ in marker.seen}) == 4
    truth = dict(zip(data.ids, np.array(CLASSES)[data.labels], strict=True))
    assert (out_of_fold["label"] == out_of_fold["id"].map(truth)).all()


def test_finished_members_are_read_again_and_damaged_ones_trained_again(data, tmp_path, monkeypatch):
    first, _ = trained(data, folder=tmp_path)
    kept = sorted(tmp_path.iterdir())
    assert len(kept) == 4
    weights = kept[2] / "members/00/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-3])
    calls, real = [], train.fit
    monkeypatch.setattr(train, "fit", lambda *a, **k: calls.append(a) or real(*a, **k))
    again, _ = trained(data, folder=tmp_path)
    assert len(calls) == 1
    np.testing.assert_array_equal(first.predict(data)[0], again.predict(data)[0])
    trained(data, folder=tmp_path, prepare=Marker())
    assert len(calls) == 5, "other labels are other members"


def test_what_would_need_pickle_is_refused_before_anything_is_trained(data):
    with pytest.raises(BundleError, match="pickle"):
        trained(data, ModelSpec("trees", "boosting"))


def test_a_models_weights_that_are_unknown_stay_unknown(data):
    bundle, _ = trained(data, ModelSpec("logistic", "logistic", options={"C": 0.01}))
    assert np.isnan(bundle.predict(data)[1]).all()


# ---- encoders


def test_features_of_the_same_encoder_are_taken(data, made):
    made[0].check_encoders(sets_of(data) | {"another": feature_set("another", 3)})


def test_features_of_another_version_are_refused_with_both_fingerprints(data, made):
    sets = sets_of(data, audio="2")
    with pytest.raises(BundleError, match="'audio'") as error:
        made[0].check_encoders(sets)
    assert made[0].encoders["audio"]["fingerprint"] in str(error.value)
    assert encoders_of(sets)["audio"]["fingerprint"] in str(error.value)
    assert "encoder_fingerprint" in str(error.value) and "'face'" not in str(error.value)


def test_a_stream_without_features_is_refused(data, made):
    sets = sets_of(data)
    del sets["face"]
    with pytest.raises(BundleError, match=r"'face'.*no features"):
        made[0].check_encoders(sets)


# ---- a folder that was changed


def refused(folder, said):
    with pytest.raises(BundleError, match=said) as error:
        Bundle.load(folder)
    return str(error.value)


def head(folder, change):
    """Change bundle.json and give it the right digest again: what lies below the digest is tested."""
    path = folder / "bundle.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    change(told["content"])
    told["digest"] = bundle_files._digest(told["content"])
    path.write_text(json.dumps(told), encoding="utf-8")


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_changed_byte_is_refused(copy, name):
    path = copy / "members/01" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert str(path) in refused(copy, "changed")


def test_a_file_cut_short_is_refused(copy):
    path = copy / "members/02/model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert str(path) in refused(copy, "cut short")


def test_a_missing_file_is_refused(copy):
    (copy / "members/03/model.json").unlink()
    assert "members/03/model.json" in refused(copy, "is missing")


@pytest.mark.parametrize("name", ["notes.txt", "members/00/extra.pkl", "members/09/model.json", ".hidden"])
def test_a_file_too_many_is_refused(copy, name):
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_text("{}", encoding="utf-8")
    refused(copy, "does not belong")


@pytest.mark.parametrize("name", ["members/00/model.json", "bundle.json", "members/01"])
def test_a_link_is_refused_also_to_the_same_content(copy, tmp_path, name):
    outside = tmp_path / "outside"
    shutil.move(copy / name, outside)
    os.symlink(outside, copy / name)
    refused(copy, "is a link")


@pytest.mark.parametrize(
    "name",
    ["../members/00/model.json", "/etc/passwd", "members/00/../../x", "members/٠٠/model.json", "members/00/a.pkl"],
)
def test_names_that_are_not_plain_are_refused(copy, name):
    def change(content):
        content["files"][name] = content["files"].pop("members/00/model.json")

    head(copy, change)
    assert repr(name) in refused(copy, "members/NN/")


def test_an_edit_of_the_list_itself_is_refused(copy):
    path = copy / "bundle.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    told["content"]["about"]["expected"]["weighted_f1"] = 0.99
    path.write_text(json.dumps(told), encoding="utf-8")
    refused(copy, "does not have the digest")


@pytest.mark.parametrize("version", [2, "1", None, True])
def test_an_unknown_format_is_refused(copy, version):
    path = copy / "bundle.json"
    told = json.loads(path.read_text(encoding="utf-8")) | {"format": version}
    path.write_text(json.dumps(told), encoding="utf-8")
    refused(copy, "bundle of format")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "nonsense", "[" * 100_000, '{"format": 1, "digest": "", "content": {}}', '{"a": 1, "a": 2}'],
)
def test_what_is_no_list_of_files_is_refused(copy, text):
    (copy / "bundle.json").write_text(text, encoding="utf-8")
    refused(copy, r"bundle\.json: ")


def test_members_that_do_not_belong_together_are_refused(copy, data):
    other, _ = trained(changed(data, classes=("a", "b", "c")), seeds=(0,))
    target = copy / "members/00"
    shutil.rmtree(target)
    other.models[0].save(target)
    head(copy, lambda content: content["files"].update(_files(target)))
    refused(copy, "members/00: classes or streams differ")


def _files(folder):
    return {
        f"members/00/{p.name}": {"sha256": bundle_files._sha256(p), "bytes": p.stat().st_size} for p in folder.iterdir()
    }


@pytest.mark.parametrize("temperature", [0.0, -1.0, "1"])
def test_a_temperature_that_is_none_is_refused(copy, temperature):
    head(copy, lambda content: content.update(temperature=temperature))
    refused(copy, "temperature")


def test_no_folder_is_said_to_be_none(tmp_path):
    refused(tmp_path / "nowhere", "cannot be read")


# ---- written whole or not at all


def test_a_bundle_that_cannot_be_written_leaves_the_old_one(made, copy, monkeypatch):
    before = (copy / "bundle.json").read_bytes()
    monkeypatch.setattr("ecmf_lib.fitted.save_file", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        made[0].save(copy)
    assert (copy / "bundle.json").read_bytes() == before and Bundle.load(copy)
    assert [p.name for p in copy.parent.iterdir()] == ["copy"], "nothing half written stays"


def test_saving_replaces_a_bundle_and_nothing_else(made, copy, tmp_path):
    made[0].save(copy)
    assert Bundle.load(copy).about == made[0].about
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(BundleError, match="something else"):
        made[0].save(tmp_path / "mine")
    assert (tmp_path / "mine/thesis.txt").exists()


def test_what_json_cannot_hold_is_refused(made, tmp_path):
    with pytest.raises(BundleError, match="finite"):
        replace(made[0], about={"score": float("nan")}).save(tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
