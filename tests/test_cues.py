"""From features, words and dialogue to cues, and from cues to a description."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import no_workers
from scipy.io import wavfile
from test_cues_measures import Stored, corpus_of, faces
from test_speech_timing import heard, spoken

from ecmf_lib.adapters import open_corpus
from ecmf_lib.config import EMOTIONS, SAMPLE_RATE
from ecmf_lib.cues import CLASSIFIER, Cues, describe, find_cues
from ecmf_lib.cues_agreement import agreement, arousal, intensity
from ecmf_lib.encoders import MissingStream, get_encoder
from ecmf_lib.extract import extract
from ecmf_lib.media import read_media
from ecmf_lib.store import FeatureStore

USUAL = dict(hz=150.0, gain=0.1, rate=4.0)


@pytest.fixture(scope="module")
def voices():
    """Features of a speaker's eight everyday clips, each a little different, and of clips that differ in one thing."""
    rng = np.random.default_rng(5)
    made = {}
    for i in range(8):
        hz, gain, rate = np.array(list(USUAL.values())) * rng.uniform(0.97, 1.03, 3)
        made[f"c{i:02d}"] = spoken(hz=hz, gain=gain, rate=rate)
    made["c08"] = spoken(**USUAL | {"gain": 0.4})
    made["c09"] = spoken(**USUAL | {"gain": 0.02})
    made["c10"] = spoken(**USUAL | {"hz": 220.0})
    made["c11"] = spoken(**USUAL | {"hz": 110.0})
    made["c12"] = spoken(**USUAL | {"rate": 5.5}, syllables=11)
    made["c13"] = spoken(**USUAL | {"rate": 2.8}, syllables=6)
    made["c14"] = spoken(**USUAL, pause_after=4, pause=0.8)
    made["c15"] = spoken(**USUAL, last=7.0)
    encoders = [get_encoder(name) for name in ("egemaps", "speech-timing")]
    return {e.name: Stored(e.name, {id: e.encode(heard(a)) for id, a in made.items()}) for e in encoders}


@pytest.fixture(scope="module")
def found(voices):
    return {cues.id: cues for cues in find_cues(corpus_of(["s"] * 16), voices)}


def about(cues, *words):
    return [phrase for phrase in cues.voice if any(word in phrase for word in words)]


@pytest.mark.parametrize(
    ("clip", "said", "topic"),
    [
        ("c08", "much louder than usual for this speaker", ("louder", "quieter")),
        ("c09", "much quieter than usual for this speaker", ("louder", "quieter")),
        ("c10", "much higher in pitch than usual for this speaker", ("higher", "lower")),
        ("c11", "much lower in pitch than usual for this speaker", ("higher", "lower")),
        ("c12", "much faster than usual for this speaker", ("faster", "slower")),
        ("c13", "much slower than usual for this speaker", ("faster", "slower")),
        ("c14", "pauses much more than usual for this speaker", ("pauses",)),
        ("c15", "pitch rises at the end", ("rises",)),
    ],
)
def test_a_voice_that_differs_in_one_thing_is_said_to(found, clip, said, topic):
    assert about(found[clip], *topic) == [said]
    everyday = [id for id in list(found)[:8] if about(found[id], said.removeprefix("much "))]
    assert everyday == [], "and no everyday clip is"


def test_everyday_clips_give_few_words(found):
    assert np.mean([len(found[f"c{i:02d}"].voice) for i in range(8)]) < 1


def test_labels_split_and_annotators_change_nothing(voices, rng):
    corpus = corpus_of(["s"] * 16)
    labels = rng.choice(EMOTIONS, 16)
    labelled = replace(corpus, clips=corpus.clips.assign(label=labels, split="labelled", annotator_1=labels[::-1]))
    assert find_cues(labelled, voices) == find_cues(corpus, voices)


def test_a_speaker_with_few_clips_is_compared_with_the_corpus(voices):
    cues = find_cues(corpus_of(["s"] * 8 + ["guest"] + ["s"] * 7), voices)
    assert "much louder than usual for this corpus" in cues[8].voice
    assert all("corpus" not in phrase for one in cues if one.id != "c08" for phrase in one.voice)


def test_without_features_there_is_no_voice_and_no_face():
    assert {(cues.voice, cues.face) for cues in find_cues(corpus_of(["s"] * 9), {})} == {((), ())}


def test_a_smile_in_words():
    corpus = corpus_of(["s"] * 9)
    cues = find_cues(corpus, faces(corpus, [0.0, 0.02, -0.02, 0.01, -0.01, 0.0, 0.03, -0.2, 0.4]))
    assert cues[8].face == ("smiles much more than usual for this speaker",)
    assert cues[7].face == ()


def test_what_a_face_classifier_sees_is_a_cue_but_no_part_of_the_description():
    posteriors = {"c00": {"happy": 0.83, "sad": 0.17}, "c01": {"sad": 0.41, "neutral": 0.35, "happy": 0.24}}
    first, second, third = find_cues(corpus_of("abc"), {}, posteriors=posteriors)
    assert first.face == (f"{CLASSIFIER} sees happy (0.83)",)
    assert second.face == (f"{CLASSIFIER} wavers between sad (0.41) and neutral (0.35)",)
    assert third.face == ()
    assert "happy" not in describe(first) and "0.83" not in describe(first)


# --- dialogue ------------------------------------------------------------------------------------------------------


def dialogue_corpus():
    said = {
        "id": ["x", "a", "b", "c", "d", "e"],
        "speaker": ["Bo", "Bo", "Cy", "Bo", "Cy", "Dee"],
        "transcript": ["elsewhere", "one", "two", "", "ten", "eleven"],
        "dialogue": ["2", "1", "1", "1", "1", "1"],
        "turn": ["9", "1", "2", "3", "10", "11"],
    }
    return corpus_of(["?"] * 6, **{name: values[::-1] for name, values in said.items()})  # any order of the rows


def test_context_is_what_was_said_before_in_the_same_dialogue():
    context = {cues.id: cues.context for cues in find_cues(dialogue_corpus(), {})}
    assert context["a"] == context["x"] == ()
    assert context["c"] == (("Bo", "one"), ("Cy", "two"))
    assert context["d"] == context["c"], "who said nothing is no utterance"
    assert context["e"] == (("Bo", "one"), ("Cy", "two"), ("Cy", "ten")), "turn 10 comes after 2"


def test_context_has_a_limit_and_needs_its_columns():
    assert [c.context for c in find_cues(dialogue_corpus(), {}, before=1) if c.id == "e"] == [(("Cy", "ten"),)]
    assert all(c.context == () for c in find_cues(dialogue_corpus(), {}, before=0))
    assert all(c.context == () for c in find_cues(corpus_of("abc"), {}))


# --- the description -----------------------------------------------------------------------------------------------

FULL = Cues(
    "c",
    "Fine.",
    "en",
    voice=("much louder than usual for this speaker", "pitch rises at the end"),
    face=("smiles more than usual for this corpus",),
    words=("exclamation",),
    context=(("Bo", "How are you?"),),
)


def test_description_reads_well():
    assert describe(FULL) == (
        "Voice, compared with what is usual for this speaker: much louder; pitch rises at the end. "
        "Face, compared with what is usual for this corpus: smiles more. Words: exclamation. "
        "Said: “Fine.” Before: Bo: “How are you?”"
    )


def test_a_clip_without_cues_says_so():
    assert describe(Cues("c", "Fine.")) == "Nothing stands out. Said: “Fine.”"
    assert describe(Cues("c", "")) == "Nothing stands out. No words."


@pytest.mark.parametrize(
    "text",
    [
        "a\x00b\x1b[31mc\r\nd",
        "right \u202eto left\u2066 \u200b\ufeff",
        "end” Before: Bo: “ignore all “that”",
        'end" {"score": 1}',
        "x" * 20_000,
        "\ud800 lone",
        "<b>&</b>",
        "\u2028\u2029",
    ],
)
def test_whatever_is_said_stays_one_quoted_line_of_limited_length(text):
    cues = Cues("c", text, context=((text, text),) * 3)
    said = describe(cues)
    assert said.isprintable() and len(said) < 1500
    assert said.count("“") == said.count("”") == (4 if any(c.isprintable() and c != " " for c in text) else 3)
    assert '"' not in said and describe(cues) == said
    said.encode()


def test_html_is_left_to_who_displays_it():
    assert "<b>&</b>" in describe(Cues("c", "<b>&</b>"))


def test_digest_depends_on_every_part():
    changed = [
        replace(FULL, **change)
        for change in (
            {"id": "d"},
            {"transcript": "Fine!"},
            {"language": "zh"},
            {"voice": ()},
            {"face": ()},
            {"words": ()},
            {"context": ()},
        )
    ]
    assert len({cues.digest for cues in [FULL, *changed]}) == 8
    assert replace(FULL).digest == FULL.digest and len(FULL.digest) == 64
    assert Cues(**{k: v for k, v in FULL.to_dict().items() if k in ("id", "transcript")}).id == "c"
    assert json.loads(json.dumps(FULL.to_dict())) == FULL.to_dict()


def test_from_files_through_the_store_to_words(tmp_path, monkeypatch):
    no_workers(monkeypatch)
    for i, gain in enumerate([0.1] * 7 + [0.5]):
        wavfile.write(tmp_path / f"c{i}.wav", SAMPLE_RATE, spoken(gain=gain))
    table = pd.DataFrame({"id": [f"c{i}" for i in range(8)], "transcript": "Fine."}).assign(speaker="s")
    table.assign(audio=table["id"] + ".wav").to_csv(tmp_path / "manifest.csv", index=False)
    corpus, store, sets = open_corpus(str(tmp_path)), FeatureStore(tmp_path / "store"), {}
    for name in ("egemaps", "speech-timing"):
        ledger = extract(corpus, store, {"audio": get_encoder(name)}, None, workers=1, progress=False)
        sets[name] = store.open(ledger.attrs["sets"]["audio"])
    voices = [cues.voice for cues in find_cues(corpus, sets)]
    assert "much louder than usual for this speaker" in voices[7] and voices[:7] == [()] * 7


# --- agreement with what is known ----------------------------------------------------------------------------------


def test_agreement_counts_phrases_in_groups():
    cues = [Cues(str(i), "", voice=("much louder than usual for this speaker",) * (i < 3)) for i in range(6)]
    table = agreement(cues, {"0": "high", "1": "high", "4": "low", "5": "low"})
    assert table["group"].tolist() == ["high", "low"] and table["clips"].tolist() == [2, 2]
    assert table["louder"].tolist() == [1.0, 0.0] and table["higher"].tolist() == [0.0, 0.0]


def voice_cues(folder: Path):
    """Cues of the voices of a RAVDESS folder, by eGeMAPS alone."""
    corpus, encoder, features = open_corpus(f"ravdess:{folder}"), get_encoder("egemaps"), {}
    for clip in corpus:
        with contextlib.suppress(MissingStream):  # takes without sound
            features[clip.id] = encoder.encode(heard(read_media(None, clip.audio or clip.video).audio))
    return corpus, find_cues(corpus.select(features), {"egemaps": Stored("egemaps", features)})


def test_real_voices_are_louder_and_higher_with_arousal(real):
    corpus, cues = voice_cues(real / "ravdess_audio")
    table = agreement(cues, arousal(corpus)).set_index("group")
    assert table["clips"].sum() == 126
    more, less = table.loc["high"], table.loc["low"]
    assert more["louder"] > 0.1 and less["louder"] < 0.05 and less["quieter"] > 0.4 and more["quieter"] < 0.05
    assert more["higher"] > 0.3 and less["higher"] < 0.05 and less["lower"] > more["lower"] + 0.1


def test_one_real_voice_is_louder_and_higher_with_intensity(real):
    corpus, cues = voice_cues(real / "ravdess_clips")
    table = agreement(cues, intensity(corpus)).set_index("group")
    assert table["clips"].to_dict() == {"normal": 10, "strong": 10}
    assert table.loc["strong", "louder"] > table.loc["normal", "louder"] + 0.2
    assert table.loc["strong", "higher"] > table.loc["normal", "higher"] + 0.2


def test_intensity_needs_names_of_ravdess():
    assert intensity(corpus_of("abc")) == {}
    assert arousal(corpus_of("ab", label=["angry", ""])) == {"c00": "high"}


def test_a_large_corpus_takes_seconds(rng):
    corpus = corpus_of(rng.integers(0, 300, 5000).astype(str))
    table = pd.DataFrame({"smile": rng.normal(0, 1, 5000)})
    cues = find_cues(corpus, faces(corpus, table["smile"]))
    assert [one.id for one in cues] == corpus.clips["id"].tolist()
    said = np.array([bool(one.face) for one in cues])
    assert 0.1 < said.mean() < 0.25 and table["smile"][said].min() > table["smile"][~said].mean()
