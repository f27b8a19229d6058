"""Profiles as tables, which stored features may be compared, and what the comparison says."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import no_workers

from ecmf_lib import evaluate, profiles, train
from ecmf_lib.config import PROFILES, FuseSettings, Settings
from ecmf_lib.corpus import Corpus
from ecmf_lib.encoders.cards import CARDS
from ecmf_lib.project import Project, open_project
from ecmf_lib.store import FeatureSet


def test_overview_counts_shared_weights_once():
    table = profiles.overview().set_index("profile")
    assert table.index.tolist() == list(PROFILES)
    assert table.loc["light", ["download_mb", "memory_mb"]].tolist() == [0, 0]
    shared, *others = (CARDS[PROFILES["base"][stream]].download for stream in ("global", "audio", "text"))
    assert table.loc["base", "download_mb"] == shared + sum(others), "both branches have the same weights"
    assert table.loc["paper", "face"] == PROFILES["paper"]["face"]


def test_choices_has_every_encoder_with_what_people_must_know():
    table = profiles.choices().set_index("encoder")
    assert set(CARDS) < set(table.index) and table.index.is_unique
    assert (table[["licence", "choice"]] != "").all(axis=None)
    for name, chosen in PROFILES.items():
        for stream, encoder in chosen.items():
            assert table.loc[encoder, "stream"] == stream and name in table.loc[encoder, "profiles"]


# ------------------------------------------------------------------------------------------------ what may be compared


@pytest.fixture(scope="module")
def demo(six_clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp("profiles")
    shutil.copytree(six_clips, folder / "demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECMF_DATA", str(folder / "data"))
        no_workers(patch)
        yield folder / "demo"


def opened(folder, **settings):
    return open_project(Settings(corpus=str(folder), workers=1, **{"frames": 3} | settings), progress=False)


def labels(project, stream="face"):
    return [profiles.label(found) for found in profiles.stored(project)[stream]]


def test_profiles_are_told_with_the_enrichment_and_without(demo):
    for settings in ({}, {"enricher": "none"}):
        project = opened(demo, **settings)
        sets = profiles.stored(project)
        own = {stream: rivals[0] for stream, rivals in sets.items()}
        assert list(profiles._whole(own, sets)) == ["light"]
        for stream in sets:
            assert labels(project, stream) == [project.sets[stream].encoder]


def test_only_sets_of_the_same_content_and_input_are_compared(demo):
    opened(demo, encoders={"face": {"orientations": 4}})
    opened(demo, encoders={"face": {"orientations": 5}}, frames=2)
    project = opened(demo)
    assert labels(project) == ["hog-lbp-face", "hog-lbp-face (orientations=4)"]
    assert labels(opened(demo, encoders={"face": {"orientations": 4}}))[0] == "hog-lbp-face (orientations=4)"
    first, second = (demo / clip.video for clip in list(project.corpus)[:2])
    second.write_bytes(first.read_bytes())  # another film in the same place
    assert labels(opened(demo)) == ["hog-lbp-face"]


def test_random_weights_are_called_that(demo):
    found = opened(demo).sets["face"]
    about = json.loads((found.folder / "set.json").read_text())
    (found.folder / "set.json").write_text(json.dumps(about | {"stand_in": True}))
    assert profiles.label(FeatureSet(found.folder)) == "hog-lbp-face (random weights)"


def test_descriptors_for_other_ends_are_no_rivals(demo):
    opened(demo, encoders={"audio": "egemaps-lld"})
    assert labels(opened(demo), "audio") == ["egemaps"]


# ------------------------------------------------------------------------------------------------ the comparison


class MadeUp:
    """Features of the clips of a corpus, without a store."""

    def __init__(self, encoder, matrix, stand_in=False):
        self.encoder, self._matrix, self.dim = encoder, matrix.astype(np.float32), matrix.shape[1]
        self.about = {"settings": {}, "fingerprint": encoder} | ({"stand_in": True} if stand_in else {})

    def matrix(self, ids):
        rows = [int(id) for id in ids]
        return self._matrix[rows], np.ones(len(rows), bool)


@pytest.fixture
def project(rng, tmp_path, monkeypatch):
    """Ten speakers; a face that shows the label, a voice that hardly does."""
    monkeypatch.setenv("ECMF_DATA", str(tmp_path))
    kinds, speakers = np.arange(120) % 3, np.repeat(np.arange(10), 12)
    clips = pd.DataFrame({"id": [str(i) for i in range(120)], "video": "", "audio": "", "transcript": "x"})
    clips["label"], clips["speaker"] = np.array(["angry", "happy", "sad"])[kinds], [f"s{s}" for s in speakers]
    clips = clips.assign(language="en", split="labelled")
    told = np.eye(3)[kinds]
    sets = {
        "face": MadeUp("clear", told + rng.normal(scale=0.3, size=(120, 3))),
        "audio": MadeUp("vague", np.c_[told, np.zeros((120, 2))] + rng.normal(scale=1.2, size=(120, 5))),
    }
    corpus = Corpus("made up", tmp_path, clips, ("angry", "happy", "sad"), "CC0")
    ledger = pd.DataFrame({"id": clips["id"], "status": "done", "digest": ""})
    return Project(Settings(workers=1), corpus, {}, None, sets, ledger)


def test_probe_scores_as_notebook_03_does(project):
    table = profiles.probe(project).set_index("encoder")
    data, _ = project.samples()
    spec = train.ModelSpec("audio alone", "logistic", streams=("audio",))
    alone = train.cross_validate(data, spec, n_folds=FuseSettings().folds, progress=False)
    expected = evaluate.interval(alone)
    row = table.loc["vague"]
    assert (row["weighted_f1"], row["low"], row["high"]) == (expected.value, expected.low, expected.high)
    assert row["stream"] == "audio" and row["numbers"] == 5
    assert (
        table.loc["clear", "weighted_f1"] > 0.9 > row["weighted_f1"] > table.loc["always the commonest", "weighted_f1"]
    )
    assert table.loc["this run", "stream"] == profiles.TOGETHER and table.loc["this run", "numbers"] == 8


def test_rivals_and_profiles_are_compared_with_the_runs_own(project, rng, monkeypatch):
    light = {"face": MadeUp("hog-lbp-face", rng.normal(size=(120, 4))), "audio": MadeUp("egemaps", np.ones((120, 2)))}
    base = {
        "face": MadeUp("siglip2-b32-face", rng.normal(size=(120, 2)), stand_in=True),
        "audio": MadeUp("mhubert-147", rng.normal(size=(120, 2))),
    }
    sets = {stream: [own, light[stream], base[stream]] for stream, own in project.sets.items()}
    monkeypatch.setattr(profiles, "stored", lambda project: sets)
    table = profiles.probe(project)
    face = table[table["stream"] == "face"].set_index("encoder")
    assert face.index[0] == "clear" and np.isnan(face.loc["clear", "difference"])
    assert (face.loc[["hog-lbp-face", "siglip2-b32-face (random weights)"], "difference"] < -0.3).all()
    assert (face["p_holm"].dropna() < 0.05).all()
    audio = table.loc[table["stream"] == "audio", "encoder"]
    assert set(audio) == {"vague", "mhubert-147"}, "one that is the same in all clips says nothing"
    together = table.loc[table["stream"] == profiles.TOGETHER, "encoder"]
    assert set(together) == {"this run", "base (random weights)"}, "a profile with a silent stream is not scored"


@pytest.mark.parametrize("column", ["label", "speaker"])
def test_nothing_is_scored_without_two_classes_and_two_speakers(project, column):
    value = "sad" if column == "label" else "s1"
    clips = project.corpus.clips.assign(**{column: value, "take": "t"})
    corpus = Corpus("made up", project.corpus.root, clips, project.corpus.classes, "CC0")
    same = Project(project.settings, corpus, {}, None, project.sets, project.ledger)
    assert profiles.probe(same) is None
