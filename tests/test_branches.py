"""What the encoders of both visual branches see over time, on a demo clip and with made-up models."""

import dataclasses

import numpy as np
import pytest
from conftest import no_workers

from ecmf_lib import branches, explore
from ecmf_lib.branches import Branch
from ecmf_lib.config import Settings
from ecmf_lib.encoders.cards import Card
from ecmf_lib.encoders.model import ModelEncoder, Prepared
from ecmf_lib.encoders.weights import Weights
from ecmf_lib.project import open_project


@pytest.fixture(scope="module")
def project(six_clips, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECMF_DATA", str(tmp_path_factory.mktemp("branches")))
        no_workers(patch)
        return open_project(Settings(corpus=str(six_clips), frames=5, workers=1), progress=False)


@pytest.fixture(scope="module")
def clip(project):
    return next(iter(project.corpus))


@pytest.fixture(scope="module")
def seen(project, clip):
    return explore.look(project, clip)


def pictures(clip, uses):
    return clip.frames if uses == "frames" else clip.crops[clip.found]


class Brightness(ModelEncoder):
    """Mean of each colour; with `output`, as a classifier would give it."""

    width = 3
    checkpoint = Weights(None, "0" * 16, "here")

    def _prepare(self, clip):
        return Prepared(tuple(pictures(clip, self.card.uses)))

    def _load(self, device, dtype):
        return device

    def _forward(self, items):
        assert self._model == "cpu", "the device that the settings name"
        return [item.reshape(-1, 3).mean(0, dtype=np.float64).astype(np.float32)[None] for item in items]


class Classifier(Brightness):
    common = Brightness.common | {"output": "features"}

    @property
    def width(self):
        return 7 if self.settings["output"] == "probabilities" else 3

    def _forward(self, items):
        if self.settings["output"] == "features":
            return super()._forward(items)
        return [np.full((1, 7), 1 / 7, np.float32) for _ in items]


class Film(Brightness):
    """Two steps a clip, whatever its frames."""

    def _prepare(self, clip):
        frames = pictures(clip, self.card.uses)
        return Prepared((frames[: len(frames) // 2], frames[len(frames) // 2 :]))


class Scene(Brightness):
    """One step a clip, the mean over its frames."""

    def _prepare(self, clip):
        return Prepared((pictures(clip, self.card.uses),))


def model(kind, stream, uses):
    return kind(Card("made-up", stream, "none", "", 3, 1, 1, "CC0", "ours", uses))


def with_encoder(project, stream, encoder):
    """The project as if this encoder had made its features: spread over clips stays that of the other encoder."""
    settings = project.settings.model_copy(update={"device": "cpu"})
    return dataclasses.replace(project, settings=settings, encoders=project.encoders | {stream: encoder})


# ------------------------------------------------------------------------------------------------ light


def test_steps_of_the_face_are_those_behind_its_stored_features(project, clip, seen):
    look = branches.over_time(project, clip, seen)["face"]
    stored = project.sets["face"].get(clip.id)
    assert look.steps.shape == (5, 260) and look.encoder == "hog-lbp-face"
    np.testing.assert_allclose(look.steps.mean(0), stored[:260], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(look.times, seen.media.times)
    assert len(look.names) == 260


def test_whole_frames_are_looked_at_in_pairs(project, clip, seen):
    look = branches.over_time(project, clip, seen)["global"]
    encoder = project.encoders["global"]
    inputs = branches._inputs(clip, seen)
    pair = dataclasses.replace(inputs, **{name: getattr(inputs, name)[2:4] for name in ("frames", "times")})
    assert look.steps.shape == (4, encoder.dim)
    np.testing.assert_array_equal(look.steps[2], encoder.encode(pair))
    np.testing.assert_array_equal(look.times, seen.media.times[1:])


def test_a_branch_that_sees_nothing_is_left_out(project, clip, seen):
    faceless = dataclasses.replace(seen, track=dataclasses.replace(seen.track, found=np.zeros(5, bool)))
    assert list(branches.over_time(project, clip, faceless)) == ["global"]


def test_without_other_clips_there_is_no_yardstick(project, clip, seen):
    class One:
        ids, about, encoder = (clip.id,), {}, "made up"

        def matrix(self, ids):
            return np.ones((len(ids), 520)), np.ones(len(ids), bool)

    alone = dataclasses.replace(project, sets=project.sets | {"face": One()})
    assert list(branches.over_time(alone, clip, seen)) == ["global"]


# ------------------------------------------------------------------------------------------------ models


def test_a_model_gives_a_step_for_each_frame_with_a_face(project, clip, seen):
    found = np.array([True, False, True, True, False])
    partly = dataclasses.replace(seen, track=dataclasses.replace(seen.track, found=found))
    project = with_encoder(project, "face", model(Brightness, "face", "faces"))
    look = branches.over_time(project, clip, partly)["face"]
    np.testing.assert_array_equal(look.times, seen.media.times[found])
    np.testing.assert_allclose(look.steps, seen.track.crops[found].mean((1, 2)), rtol=1e-5)
    assert look.names is None and look.changes().index.str.fullmatch(r"no\. \d").all()


def test_steps_of_several_frames_are_spread_over_the_clip(project, clip, seen):
    project = with_encoder(project, "global", model(Film, "global", "frames"))
    look = branches.over_time(project, clip, seen)["global"]
    first, last = seen.media.times[[0, -1]]
    np.testing.assert_allclose(look.times, [first + (last - first) / 4, last - (last - first) / 4])


def test_a_model_of_whole_scenes_gets_its_frames_in_pairs(project, clip, seen):
    found = np.array([True, False, True, True, False])
    partly = dataclasses.replace(seen, track=dataclasses.replace(seen.track, found=found))
    project = with_encoder(project, "face", model(Scene, "face", "faces"))
    look = branches.over_time(project, clip, partly)["face"]
    of_frames = seen.track.crops[found].mean((1, 2))
    np.testing.assert_allclose(look.steps, (of_frames[1:] + of_frames[:-1]) / 2, rtol=1e-5)
    np.testing.assert_array_equal(look.times, seen.media.times[[2, 3]])


def test_a_classifier_tells_its_classes_over_time(project, clip, seen):
    assert branches.expressions(project, clip, seen) is None
    project = with_encoder(project, "face", model(Classifier, "face", "faces"))
    shares = branches.expressions(project, clip, seen)
    assert shares.index.tolist() == list(branches.FER_CLASSES)
    assert shares.columns.tolist() == seen.media.times.tolist()
    np.testing.assert_allclose(shares.sum(), 1, rtol=1e-6)
    faceless = dataclasses.replace(seen, track=dataclasses.replace(seen.track, found=np.zeros(5, bool)))
    assert branches.expressions(project, clip, faceless) is None


# ------------------------------------------------------------------------------------------------ numbers


def test_changes_are_in_units_of_the_spread_between_clips():
    steps = np.array([[1, 10, 5, 0], [3, 50, 5, 1]], np.float32)
    look = Branch("made up", np.array([0.0, 1.0]), steps, np.array([2.0, 10.0, 1.0, 0.0]), list("abcd"))
    changes = look.changes()
    assert changes.index.tolist() == ["b", "a", "c"], "most first; what is the same in all clips has no yardstick"
    np.testing.assert_allclose(changes.to_numpy(), [[-2, 2], [-0.5, 0.5], [0, 0]])
    np.testing.assert_allclose(look.departure(), np.sqrt((4 + 0.25) / 3))
    row = branches.summary({"face": look}).iloc[0]
    assert row.tolist() == ["face", "made up", 2, 4, pytest.approx(np.sqrt(4.25 / 3))]


def test_long_table_has_each_value_once():
    look = Branch("made up", np.array([0.0, 1.0, 2.0]), np.eye(3, 2, dtype="f4"), np.ones(2), ["a", "b"])
    table = branches.long_table({"face: made up": look.changes(), "global: made up": look.changes()[:1]})
    assert table.groupby("branch").size().tolist() == [6, 3]
    cell = table.query("branch == 'face: made up' and number == 'a' and time == 0.0")["value"]
    assert cell.item() == pytest.approx(2 / 3)
