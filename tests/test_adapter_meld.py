"""MELD's csv files become a text corpus with dialogues; what has no place is left out with its reason."""

import pytest
from typer.testing import CliRunner

from ecmf_lib.adapters import open_corpus
from ecmf_lib.corpus import CorpusError
from ecmf_lib.cues import find_cues
from ecmf_lib.run import app

HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
ROWS = (
    "1,Hi!,Joey,joy,positive,0,0,1,1,,",
    '2,"Oh, it’s you.",Ross,sadness,negative,0,1,1,1,,',
    "3,Ew!,Rachel,disgust,negative,0,2,1,1,,",
    "4,Hey!,All,joy,positive,0,3,1,1,,",
    "5,To be or not,Joey/Drake,neutral,neutral,0,4,1,1,,",
    "6,Help,Ross,fear,negative,1,0,1,2,,",
)


@pytest.fixture
def folder(tmp_path):
    def write(part="train", rows=ROWS, header=HEADER, encoding="utf-8"):
        (tmp_path / f"{part}_sent_emo.csv").write_bytes((header + "\n".join(rows) + "\n").encode(encoding))
        return tmp_path

    return write


def test_utterances_with_speaker_dialogue_and_our_label(folder):
    clips = open_corpus(f"meld:{folder()}").clips.set_index("id")
    assert clips.index.tolist() == ["train_d0_u0", "train_d0_u1", "train_d0_u4", "train_d1_u0"]
    assert clips["label"].tolist() == ["happy", "sad", "neutral", "worried"]
    assert clips["speaker"].tolist() == ["Joey", "Ross", "Joey", "Ross"], "an actor who plays is the actor"
    assert clips["dialogue"].tolist() == ["train_d0"] * 3 + ["train_d1"]
    assert clips["turn"].tolist() == ["0", "1", "4", "0"]
    assert set(clips["split"]) == {"labelled"} and set(clips["language"]) == {"en"}


def test_what_is_left_out_has_a_reason(folder):
    left_out = open_corpus(f"meld:{folder()}").left_out.set_index("id")["reason"]
    assert "disgust" in left_out["train_d0_u2"] and "several people" in left_out["train_d0_u3"]
    assert len(left_out) == 2


def test_the_same_dialogue_number_in_another_part_is_another_dialogue(folder):
    folder(), folder("test")
    corpus = open_corpus(str(folder("dev")))  # told from its content
    assert corpus.name == "meld" and len(corpus) == 12 and corpus.clips["dialogue"].nunique() == 6
    splits = corpus.clips.groupby(corpus.clips["id"].str.split("_").str[0])["split"].unique()
    assert {part: list(found) for part, found in splits.items()} == {
        "dev": ["labelled"],
        "test": ["test"],
        "train": ["labelled"],
    }


def test_cp1252_punctuation_is_read(folder):
    corpus = open_corpus(f"meld:{folder(encoding='cp1252')}")
    assert corpus.clip("train_d0_u1").transcript == "Oh, it’s you."


def test_folds_hold_speakers_apart(folder):
    corpus = open_corpus(f"meld:{folder()}")
    assert corpus.groups() == (["Joey", "Ross", "Joey", "Ross"], "speaker")
    assert any("straddle" in note for note in corpus.notes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": ("1,Hi!,Joey,bliss,positive,0,0,1,1,,",)}, "row 2 'bliss'.*neutral, anger"),
        ({"header": HEADER.replace("Speaker", "Who")}, r"no column \['Speaker'\]"),
        ({"rows": (ROWS[0], ROWS[0])}, "train_sent_emo.csv row 3.*duplicate id"),
    ],
)
def test_bad_tables_are_refused_with_the_mend(folder, change, said):
    with pytest.raises(CorpusError, match=said):
        open_corpus(f"meld:{folder(**change)}")


def test_a_folder_without_its_files_is_refused(tmp_path):
    with pytest.raises(CorpusError, match=r"train_sent_emo\.csv"):
        open_corpus(f"meld:{tmp_path}")


def test_real_meld_every_utterance_is_accounted_for(real):
    corpus = open_corpus(f"meld:{real / 'meld_text'}")
    assert len(corpus) + len(corpus.left_out) == 9989 + 1109 + 2610
    assert corpus.left_out["reason"].str.contains("disgust").sum() == 271 + 22 + 68
    assert corpus.clips["speaker"].value_counts(normalize=True).head(6).sum() > 0.8
    cues = find_cues(corpus, {})
    assert sum(bool(one.context) for one in cues) > 0.8 * len(cues)
    assert not any("and" in name.split() for name in corpus.clips["speaker"])


def test_ecmf_check_reads_it(real):
    answer = CliRunner().invoke(app, ["check", f"meld:{real / 'meld_text'}"])
    assert answer.exit_code == 0 and "folds would hold speakers apart" in answer.output
