"""What is usual is the speaker's where there are enough clips, else the corpus's; words follow the measures."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecmf_lib.corpus import make_corpus
from ecmf_lib.cues_measures import ENCODERS, ENOUGH, FACE, VOICE, compare, measure, phrases
from ecmf_lib.encoders import get_encoder


class Stored:
    """Features as a FeatureSet gives them."""

    def __init__(self, encoder, features):
        self.encoder, self.features = encoder, features
        self.about = {"feature_names": get_encoder(encoder).feature_names}

    def matrix(self, ids):
        present = np.array([id in self.features for id in ids])
        rows = [self.features.get(id, np.zeros(len(self.about["feature_names"]))) for id in ids]
        return np.array(rows, np.float32), present


def corpus_of(speakers, **columns):
    n = len(speakers)
    table = {"id": [f"c{i:02d}" for i in range(n)], "speaker": list(speakers), "transcript": ["Fine."] * n}
    return make_corpus("made", Path(), pd.DataFrame(table | columns))


def faces(corpus, smiles):
    smiled = zip(corpus.clips["id"], smiles, strict=True)
    return {"face-measures": Stored("face-measures", {id: [smile, 0.1, 0.2, 0.05] for id, smile in smiled})}


def test_a_loud_speaker_is_not_louder_than_usual_but_a_loud_clip_is(rng):
    values = pd.Series(np.r_[rng.normal(60, 1, 8), rng.normal(80, 1, 8), 64.0])
    speakers = pd.Series(["soft"] * 8 + ["loud"] * 8 + ["soft"])
    z, reference = compare(values, speakers, 0.1)
    assert set(reference) == {"speaker"}
    assert z[8:16].abs().median() < 1 and z.iloc[-1] > 2


@pytest.mark.parametrize(("clips", "expected"), [(ENOUGH - 1, "corpus"), (ENOUGH, "speaker")])
def test_a_speaker_with_few_clips_falls_back_to_the_corpus(rng, clips, expected):
    speakers = pd.Series(["many"] * 20 + ["few"] * clips + [""] * 9)
    values = pd.Series(np.r_[rng.normal(0, 1, 20), rng.normal(8, 1, clips), rng.normal(0, 1, 9)])
    z, reference = compare(values, speakers, 0.1)
    assert set(reference[20 : 20 + clips]) == {expected}
    assert set(reference[:20]) == {"speaker"} and set(reference[-9:]) == {"corpus"}
    usual = z[20 : 20 + clips].abs().median()
    assert usual < 1.5 if expected == "speaker" else usual > 3


def test_the_spread_of_one_odd_speaker_does_not_hide_the_others(rng):
    calm, wild = rng.normal(0, 1, (9, 10)).ravel(), rng.normal(0, 50, 10)
    z, _ = compare(pd.Series(np.r_[calm, wild]), pd.Series(np.repeat(range(10), 10).astype(str)), 0.01)
    assert 0.15 < (z[:90].abs() >= 1).mean() < 0.5


def test_clips_without_a_value_count_for_nothing():
    values = pd.Series([1.0, 2.0, 3.0, 4.0, 5.0, np.nan, np.nan])
    z, reference = compare(values, pd.Series(["s"] * 7), 0.1)
    assert z.isna().all() and set(reference) == {""}, "five values are not enough for anything"


def test_differences_below_what_is_noticed_give_no_words():
    values = pd.Series([1.0, 1.001, 0.999, 1.002, 0.998, 1.01, 1.0])
    assert compare(values, pd.Series(["s"] * 7), 0.025)[0].abs().max() < 1


def test_phrases_grow_with_the_difference_and_say_with_what_they_compare():
    def said(z, whose="speaker"):
        return phrases({"loudness_z": z, "loudness_for": whose}, VOICE)

    assert said(0.9) == () and said(float("nan"), "") == ()
    assert said(1.1) == ("louder than usual for this speaker",)
    assert said(2.5) == ("much louder than usual for this speaker",)
    assert said(-1.1, "corpus") == ("quieter than usual for this corpus",)
    assert phrases({"smile_z": -3.0, "smile_for": "speaker"}, FACE) == (), (
        "drawn-down corners have not been seen to work"
    )


def test_a_final_rise_is_said_by_itself():
    assert phrases({"final_pitch": 4.0}, VOICE) == ("pitch rises at the end",)
    assert phrases({"final_pitch": 2.0}, VOICE) == () == phrases({"final_pitch": 4.0}, FACE)


def test_measures_of_every_clip_in_manifest_order(rng):
    corpus = corpus_of(["a"] * 8)
    sets = faces(corpus, [0.0] * 7 + [0.4])
    del sets["face-measures"].features["c02"]
    table = measure(corpus, sets)
    assert table["id"].tolist() == corpus.clips["id"].tolist()
    assert table["smile"].isna().tolist() == [i == 2 for i in range(8)]
    assert table["smile_z"].iloc[-1] > 2 and "loudness" not in table


def test_without_voice_pitch_is_unknown_not_low():
    corpus = corpus_of(["a"] * 8)
    names = get_encoder("egemaps").feature_names
    voiced = np.full(len(names), 30.0)
    whispered = np.where([n.startswith("F0") for n in names], 0.0, voiced)
    features = {id: voiced for id in corpus.clips["id"]} | {"c03": whispered}
    table = measure(corpus, {"egemaps": Stored("egemaps", features)})
    assert np.isnan(table["pitch"].iloc[3]) and not np.isnan(table["loudness"].iloc[3])


def test_features_under_the_wrong_name_are_refused():
    corpus = corpus_of(["a"] * 8)
    stored = faces(corpus, [0.0] * 8)["face-measures"]
    with pytest.raises(ValueError, match=r"'audio' holds features of 'face-measures'.*egemaps"):
        measure(corpus, {"audio": stored})
    with pytest.raises(ValueError, match="'egemaps' holds"):
        measure(corpus, {"egemaps": stored})


def test_every_measure_names_features_that_its_encoder_gives():
    for one in (*VOICE, *FACE):
        assert one.encoder in ENCODERS
        names = get_encoder(one.encoder).feature_names
        assert len(one.of(pd.DataFrame(np.ones((3, len(names))), columns=names))) == 3
