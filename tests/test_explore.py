"""Looking closely at clips and streams."""

import dataclasses

import numpy as np
import pytest
from conftest import no_workers

from ecmf_lib import explore
from ecmf_lib.config import ExtractSettings, Settings
from ecmf_lib.project import open_project
from ecmf_lib.samples import FusionData


@pytest.fixture
def data(rng):
    """A stream that knows the speaker, one that knows the label, one clip without the latter."""
    n = 60
    labels, speakers = np.arange(n) % 3, np.arange(n) // 10
    who = np.eye(6)[speakers] + rng.normal(scale=0.01, size=(n, 6))
    what = np.eye(3)[labels] + rng.normal(scale=0.01, size=(n, 3))
    present = {"who": np.ones(n, bool), "what": np.arange(n) != 4}
    streams = {"who": who.astype("f4"), "what": what.astype("f4")}
    return FusionData(
        [f"c{i}" for i in range(n)], streams, present, labels, [f"s{s}" for s in speakers], ("a", "b", "c")
    )


def test_neighbours_tell_label_from_speaker(data):
    table = explore.neighbours(data).set_index("stream")
    assert table.loc["who", "same_speaker"] == 1
    assert table.loc["who", "same_label"] < 0.6
    assert table.loc["what", "same_label"] == 1
    assert table.loc["what", "same_speaker"] < 0.6
    # 20 clips a label, 10 a speaker, of 60: the chance that another clip is of the same kind
    assert table.loc["who", "chance_label"] == pytest.approx(19 / 59)
    assert table.loc["who", "chance_speaker"] == pytest.approx(9 / 59)


def test_nobody_is_recognised_where_nobody_is_known(data):
    unknown = dataclasses.replace(data, speakers=[""] * len(data))
    table = explore.neighbours(unknown)
    assert table[["same_speaker", "chance_speaker"]].isna().all(axis=None)
    assert table["same_label"].notna().all()


def test_flat_map_takes_a_stream_of_one_number(data):
    one = {name: x[:, :1] for name, x in data.streams.items()}
    assert (explore.flat_map(dataclasses.replace(data, streams=one))["y"] == 0).all()


def test_flat_map_has_a_point_for_each_clip_that_is_there(data):
    points = explore.flat_map(data)
    assert points.groupby("stream").size().to_dict() == {"what": 59, "who": 60}
    assert np.isfinite(points[["x", "y"]].to_numpy()).all()
    assert points.equals(explore.flat_map(data))


@pytest.fixture(scope="module")
def project(six_clips, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECMF_DATA", str(tmp_path_factory.mktemp("explore")))
        no_workers(patch)
        return open_project(Settings(corpus=str(six_clips), frames=4, workers=1), progress=False)


def test_one_clip_through_every_step(project):
    assert project.ledger["status"].tolist() == ["done"] * 6
    clip = next(iter(project.corpus))
    seen = explore.look(project, clip)
    assert len(seen.media.frames) == 4
    assert seen.track.share == project.ledger.loc[0, "face_share"]
    frames, labels = explore.one_of_each(project)
    assert frames.shape == (len(labels), 180, 240, 3)
    assert labels == [name for name in project.corpus.classes if name in set(project.corpus.clips["label"])]
    top = explore.outstanding(project, clip.id, ("global", "face", "audio"), n=3)
    assert {stream: len(table) for stream, table in top.items()} == {"global": 3, "face": 3, "audio": 3}
    for table in top.values():
        assert table["z"].abs().is_monotonic_decreasing
    assert set(explore.truth(project).index) == set(project.corpus.clips["id"])


def test_numbers_without_names_stand_out_by_number(project):
    class Unnamed:
        feature_names = None

    nameless = dataclasses.replace(project, encoders=project.encoders | {"face": Unnamed()})
    clip = project.corpus.clips["id"][0]
    named, numbered = (explore.outstanding(p, clip, ("face",), n=3)["face"] for p in (project, nameless))
    names = project.encoders["face"].feature_names
    assert numbered["feature"].tolist() == [f"no. {names.index(name)}" for name in named["feature"]]


def test_the_clip_with_a_picture(project):
    clips = project.corpus.clips
    assert explore.clip_with_picture(project).id == clips.loc[clips["label"] != "", "id"].iloc[0]
    named = dataclasses.replace(project, settings=ExtractSettings(clip=clips["id"][3]))
    assert explore.clip_with_picture(named).id == clips["id"][3]
    third = clips["id"][2]
    failed = project.ledger.assign(status=["done" if id == third else "failed" for id in project.ledger["id"]])
    assert explore.clip_with_picture(dataclasses.replace(project, ledger=failed)).id == third
    none = dataclasses.replace(project, ledger=project.ledger.assign(status="failed"))
    assert explore.clip_with_picture(none) is None
