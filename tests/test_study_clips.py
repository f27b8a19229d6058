"""Clips that are shown: which ones, with which picture, and what stands in where there is none."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from ecmf_lib import plots
from ecmf_lib.adapters import open_corpus
from ecmf_lib.media import read_media
from ecmf_lib.predictions import PredictionError
from ecmf_lib.study_clips import chosen, example_clips


def table(*rows, seeds=1):
    """Rows: id, label, p of "a", weights of face, audio, text; the same in every seed."""
    made = pd.DataFrame(rows, columns=["id", "label", "p_a", "w_face", "w_audio", "w_text"])
    made["p_b"] = 1 - made["p_a"]
    made["predicted"] = np.where(made["p_a"] >= 0.5, "a", "b")
    made["speaker"] = made["id"]
    return pd.concat([made.assign(seed=seed) for seed in range(seeds)], ignore_index=True)


CLIPS = (
    ("c0", "a", 0.70, 0.5, 0.3, 0.2),
    ("c1", "a", 0.95, 0.6, 0.3, 0.1),  # the surest right one: face on top
    ("c2", "a", 0.20, 0.1, 0.7, 0.2),  # the surest wrong one: audio on top
    ("c3", "b", 0.55, 0.2, 0.2, 0.6),  # wrong, too; most weight on text of those with all streams
    ("c4", "b", 0.40, 0.2, 0.3, 0.5),
    ("c5", "b", 0.45, np.nan, np.nan, 1.0),  # text is all it has
    ("c6", "b", 0.30, 0.8, 0.1, 0.1),
)


def test_right_wrong_and_a_clip_for_each_other_stream():
    found = chosen(table(*CLIPS), 4)
    assert found["id"].tolist() == ["c1", "c2", "c3", "c0"]
    said = ["the surest right one", "the surest wrong one", "most weight on text", "one of the surest"]
    assert found["why"].tolist() == said
    assert list(found) == ["id", "why", "label", "predicted", "confidence", "w_face", "w_audio", "w_text"]
    assert found["predicted"].tolist() == ["a", "b", "a", "a"]
    np.testing.assert_allclose(found["confidence"], [0.95, 0.8, 0.55, 0.7])


def test_the_choice_does_not_hang_on_the_order_of_rows():
    rows = table(*CLIPS, *((f"d{i}", "a", 0.95, 0.6, 0.3, 0.1) for i in range(5)))
    expected = chosen(rows)
    for k in range(3):
        pd.testing.assert_frame_equal(chosen(rows.sample(frac=1, random_state=k)), expected)


def test_weights_and_chances_are_means_over_seeds():
    rows = table(*CLIPS, seeds=2)
    second = (rows["seed"] == 1) & (rows["id"] == "c1")
    rows.loc[second, ["p_a", "p_b", "predicted", "w_face", "w_audio"]] = [0.07, 0.93, "b", 0.2, 0.7]
    found = chosen(rows, 7).set_index("id")
    assert found.loc["c1", ["w_face", "w_audio", "w_text"]].tolist() == pytest.approx([0.4, 0.5, 0.1])
    assert found.loc["c1", "confidence"] == pytest.approx(0.51) and found.loc["c1", "predicted"] == "a"
    assert found.index[0] == "c0", "one seed was sure of the opposite"
    assert found.loc["c5", ["w_face", "w_audio"]].isna().all(), "what is missing stays missing"


def test_as_many_as_there_are():
    assert len(chosen(table(*CLIPS), 50)) == 7
    assert chosen(table(*CLIPS), 1)["id"].tolist() == ["c1"]
    assert chosen(table(*CLIPS[:2]), 4)["id"].tolist() == ["c1", "c0"], "nothing is wrong here"
    (alone,) = chosen(table(CLIPS[5]), 4)["id"]
    assert alone == "c5"


def test_what_cannot_be_shown_is_refused():
    rows = table(*CLIPS)
    for lacking in (["w_face", "w_audio", "w_text"], ["p_a", "p_b"]):
        with pytest.raises(PredictionError, match="a model that weighs streams"):
            chosen(rows.drop(columns=lacking))
    with pytest.raises(PredictionError, match="twice"):
        chosen(pd.concat([rows, rows]))
    with pytest.raises(ValueError, match="n = 0"):
        chosen(rows, 0)


@pytest.fixture
def talking(six_clips, tmp_path):
    """A corpus of three clips: a good one, one that cannot be decoded, one that is only words."""
    clips = pd.read_csv(six_clips / "manifest.csv", keep_default_na=False, dtype=str)[["id", "video", "transcript"]]
    clips = clips.head(3).assign(label=["happy", "sad", "sad"], split="labelled")
    source = six_clips / clips.loc[0, "video"]
    (tmp_path / "good.mp4").write_bytes(source.read_bytes())
    (tmp_path / "bad.mp4").write_bytes(source.read_bytes()[:200])
    clips["video"] = ["good.mp4", "bad.mp4", ""]
    clips.to_csv(tmp_path / "manifest.csv", index=False)
    return SimpleNamespace(corpus=open_corpus(str(tmp_path)))


def test_pictures_and_words_stand_beside_their_clips(talking):
    corpus = talking.corpus.clips
    rows = table(*((name, "a", 0.9 - 0.2 * k, 0.5, 0.3, 0.2) for k, name in enumerate(corpus["id"])))
    frames, words, shown = example_clips(talking, rows)
    assert shown["id"].tolist() == corpus["id"].tolist()
    assert words == corpus["transcript"].tolist() and all(words)
    assert [frame is None for frame in frames] == [False, True, True]
    whole = read_media(talking.corpus.clip(shown["id"][0]).video, n_frames=3).frames[1]
    height, width = frames[0].shape[:2]
    assert frames[0].dtype == np.uint8 and height == min(240, len(whole))
    assert width / height == pytest.approx(whole.shape[1] / whole.shape[0], rel=0.02)
    assert frames[0].mean(axis=(0, 1)) == pytest.approx(whole.mean(axis=(0, 1)), abs=2), "the same picture"
    plots.clip_weights(frames, ["said"] * 3, shown).canvas.draw()  # not every font has Chinese
    plt.close("all")


def test_a_tall_picture_is_shrunk(talking, monkeypatch):
    tall = np.zeros((3, 640, 360, 3), np.uint8)
    monkeypatch.setattr("ecmf_lib.study_clips.read_media", lambda *_, **__: SimpleNamespace(frames=tall))
    frames, _, _ = example_clips(talking, table((talking.corpus.clips["id"][0], "a", 0.9, 0.5, 0.3, 0.2)))
    assert frames[0].shape == (240, 135, 3)


def test_a_clip_of_another_corpus_is_named(talking):
    with pytest.raises(KeyError, match="no clip 'c1'"):
        example_clips(talking, table(*CLIPS))
