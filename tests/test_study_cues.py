"""What each kind of cue adds: texts with one part only, the same folds, honest references."""

import numpy as np
import pandas as pd
import pytest
from test_explore_text import project_of
from test_model import CARD, Doubling

from ecmf_lib import study_cues
from ecmf_lib.config import EnrichSettings
from ecmf_lib.cues import Cues
from ecmf_lib.encoders import get_encoder
from ecmf_lib.encoders.model import ModelEncoder, Prepared
from ecmf_lib.study import MAJORITY

SETTINGS = EnrichSettings(folds=4, bootstrap=200, workers=1)
ENCODER = get_encoder("char-ngram", reads="enrichment")


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ECMF_DATA", str(tmp_path / "data"))


def corpus_of(n=48, *, transcripts=True, voices=True, labels=True):
    """Eight speakers whose voices know the label, and whose words do not."""
    rng = np.random.default_rng(3)
    happy = np.arange(n) % 2 == 0
    words = ["The bus is late.", "It is on the table.", "We go at nine.", "He said so."]
    cues = [
        Cues(
            f"c{i:02d}",
            str(rng.choice(words)) if transcripts else "",
            voice=(("much louder" if happy[i] else "slower") + " than usual for this speaker",) if voices else (),
        )
        for i in range(n)
    ]
    label = np.where(happy, "happy", "sad") if labels else ""
    project = project_of(cues, settings=SETTINGS, label=label, speaker=[f"s{i % 16 // 2}" for i in range(n)])
    project.encoders["enrichment"] = ENCODER
    return project


def test_an_arm_tells_its_own_part_only():
    cues = [Cues("a", "Fine.", voice=("louder",), words=("question",)), Cues("b", "Go.", context=(("X", "Why?"),))]
    texts = study_cues.arms(cues)
    assert list(texts) == [
        study_cues.TRANSCRIPT, *(study_cues.ARMS[part] for part in ("voice", "words", "context")), study_cues.ALL,
    ]  # fmt: skip
    for name, (first, second) in texts.items():
        whole = name == study_cues.ALL
        assert "Fine." in first and "Go." in second
        assert ("louder" in first) == (name == study_cues.ARMS["voice"] or whole), name
        assert ("question" in first) == (name == study_cues.ARMS["words"] or whole), name
        assert ("Why?" in second) == (name == study_cues.ARMS["context"] or whole), name
    assert list(study_cues.arms(cues[1:], ["told"])) == [
        study_cues.TRANSCRIPT, study_cues.ARMS["context"], study_cues.BY_MODEL,
    ]  # fmt: skip


class Reader(Doubling):
    """A pre-trained encoder as far as batches go: its number is the length of the text."""

    def _prepare(self, clip):
        return Prepared((np.ones(len(clip.enrichment), np.float32),))


def test_texts_are_encoded_once_and_in_batches_as_alone():
    encoder = Reader(CARD, pooling="mean+std")
    texts = ["aa", "b", "aa", "cccc"]
    found = study_cues.embed(texts, encoder, "cpu")
    assert sum(map(len, encoder._model)) == 3
    assert found.shape == (4, encoder.dim) and np.array_equal(found[0], found[2])
    own = study_cues.embed(texts, ENCODER)
    assert own.shape == (4, ENCODER.dim) and not np.array_equal(own[0], own[1])


def test_a_pretrained_reader_of_too_many_texts_gives_way(monkeypatch):
    project = corpus_of(4)
    project.encoders["enrichment"] = reader = Reader(CARD)
    assert isinstance(reader, ModelEncoder)
    assert study_cues.encoder_for(project, study_cues.MANY_TEXTS) is reader
    assert study_cues.encoder_for(project, study_cues.MANY_TEXTS + 1).name == "char-ngram"


def test_cues_that_know_the_label_add_what_the_words_lack():
    runs, how = study_cues.run(corpus_of())
    assert "48 labelled clips" in how and "speakers apart" in how
    assert list(runs) == [study_cues.TRANSCRIPT, study_cues.ARMS["voice"], MAJORITY]
    assert {tuple(run["id"]) for run in runs.values()} == {tuple(runs[MAJORITY]["id"])}, "the same folds"
    assert runs[MAJORITY].groupby("speaker")["fold"].nunique().max() == 1
    table = study_cues.table(runs, n_boot=200).set_index("model")
    assert list(table.index) == [study_cues.TRANSCRIPT, study_cues.ARMS["voice"]]
    assert table.loc[study_cues.ARMS["voice"], "weighted_f1"] > 0.95 > 0.75 > table["weighted_f1"].iloc[0]
    assert table["p_holm"].iloc[1] < 0.05
    assert study_cues.ends(runs) == [study_cues.TRANSCRIPT, study_cues.ARMS["voice"]]
    first, second = study_cues.verdict(table.reset_index()).splitlines()
    assert first.startswith("transcript alone: weighted F1 0.") and "cannot tell" not in second
    assert len(study_cues.headline(table.reset_index())) == 2


def test_without_transcripts_cues_are_compared_with_guessing():
    runs, how = study_cues.run(corpus_of(transcripts=False))
    assert "no transcripts" in how and study_cues.reference(runs) == MAJORITY
    table = study_cues.table(runs, n_boot=200)
    assert table["model"].tolist() == [MAJORITY, study_cues.ARMS["voice"]] and table["difference"][1] > 0.4


@pytest.mark.parametrize(
    ("given", "said"),
    [({"labels": False}, "nothing can be scored"), ({"transcripts": False, "voices": False}, "nothing to compare")],
)
def test_what_cannot_be_scored_is_said(given, said):
    runs, how = study_cues.run(corpus_of(12, **given))
    assert runs == {} and said in how and study_cues.ends(runs) == []


def test_clips_that_failed_or_are_for_testing_are_not_scored():
    project = corpus_of(12)
    project.ledger.loc[0, "status"] = "failed"
    project.corpus.clips.loc[1, "split"] = "test"
    assert [one.id for one in study_cues.labelled_cues(project)] == [f"c{i:02d}" for i in range(2, 12)]


def test_the_text_of_a_language_model_is_an_arm_of_its_own():
    project = corpus_of()
    project.enriched.loc[:, "state"] = "enriched"
    project.enriched["text"] = pd.Series(["cheerful", "gloomy"] * 24)
    runs, _ = study_cues.run(project)
    assert study_cues.fullest(runs) == study_cues.BY_MODEL
    assert study_cues.table(runs, n_boot=50).set_index("model").loc[study_cues.BY_MODEL, "weighted_f1"] == 1
