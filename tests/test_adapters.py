"""Each dataset's own files become the one manifest."""

import numpy as np
import pandas as pd
import pytest

from ecmf_lib.adapters import open_corpus, open_mer2025, open_table
from ecmf_lib.corpus import CorpusError


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_ravdess_names_as_published(tmp_path):
    folder = tmp_path / "ravdess"
    touch(
        folder,
        "Actor_12/01-01-05-02-01-02-12.mp4",
        "Actor_12/02-01-05-02-01-02-12.mp4",
        "Actor_03/03-01-06-01-02-01-03.wav",
        "Actor_03/03-01-02-01-02-01-03_calm.flac",
        "Actor_03/03-01-07-01-02-01-03.wav",
        "Actor_03/03-01-99-01-02-01-03.wav",
        "Actor_03/holiday.mp4",
    )
    corpus = open_corpus(str(folder))
    clips = corpus.clips.set_index("id")
    assert clips["label"].to_dict() == {
        "01-01-05-02-01-02-12": "angry",
        "02-01-05-02-01-02-12": "angry",
        "03-01-06-01-02-01-03": "worried",
        "03-01-02-01-02-01-03_calm": "neutral",
    }
    assert clips.loc["01-01-05-02-01-02-12", "take"] == clips.loc["02-01-05-02-01-02-12", "take"]
    assert set(clips["speaker"]) == {"actor-12", "actor-03"}
    assert clips.loc["03-01-06-01-02-01-03", ["video", "audio"]].tolist() == ["", "Actor_03/03-01-06-01-02-01-03.wav"]
    assert corpus.left_out["id"].tolist() == ["03-01-07-01-02-01-03", "03-01-99-01-02-01-03", "holiday"]
    assert len(corpus) + len(corpus.left_out) == 7


def test_ravdess_real_clips(real):
    corpus = open_corpus(str(real / "ravdess_clips"))
    assert (len(corpus), len(corpus.left_out)) == (27, 4)
    assert corpus.groups()[1] == "take"


def mer2025(folder, *, train=True):
    folder.mkdir()
    subtitles = "name,chinese,english\ns1,你好,Hello\ns2,我没事,I am fine\ns3,,\ns4,真的吗？,Really?\n"
    (folder / "subtitle_chieng.csv").write_bytes(subtitles.encode("gbk"))
    if train:
        (folder / "track1_train_disdim.csv").write_bytes(
            b"\xef\xbb\xbfname,discrete,valence\ns1,happy,0.4\ns2,worried,-1\n"
        )
    (folder / "track_all_candidates.csv").write_text("name\ns3\n")
    touch(folder, "video/s1.mp4", "video/s2.mp4", "video/s5.mp4", "audio/s1.wav")
    return folder


def test_mer2025_distribution(tmp_path):
    corpus = open_corpus(str(mer2025(tmp_path / "mer")))
    clips = corpus.clips.set_index("id")
    assert clips["split"].to_dict() == {
        "s1": "labelled",
        "s2": "labelled",
        "s3": "test",
        "s4": "unlabelled",
        "s5": "unlabelled",
    }
    assert clips.loc["s2", ["transcript", "label", "language"]].tolist() == ["我没事", "worried", "zh"]
    assert clips["audio"].tolist() == ["audio/s1.wav", "", "", "", ""]
    assert any("optimistic" in note for note in corpus.notes)
    english = open_mer2025(tmp_path / "mer", language="en")
    assert english.clip("s4").transcript == "Really?"


def test_mer2025_speakers_of_ones_own(tmp_path):
    folder = mer2025(tmp_path / "mer")
    (folder / "speakers.csv").write_text("name,speaker\ns1,series-a\ns2,series-b\n")
    corpus = open_corpus(f"mer2025:{folder}")
    assert corpus.groups() == (["series-a", "series-b", "clip:s3", "clip:s4", "clip:s5"], "speaker")


def test_mer2025_label_problems_name_the_row_of_the_csv(tmp_path):
    folder = mer2025(tmp_path / "mer")
    (folder / "track1_train_disdim.csv").write_text("name,discrete\ns1,happy\ns2,Worried\n")
    with pytest.raises(CorpusError, match=r"row 3, label \(clip 's2'\).*did you mean 'worried'"):
        open_corpus(str(folder))


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("track1_train_disdim.csv", "name,discrete\ns1,happy\ns1,sad\n", "more than once: row 3 's1'"),
        ("track1_train_disdim.csv", "clip,discrete\ns1,happy\n", r"no column \['name'\]"),
        ("track_all_candidates.csv", "name\ns1\n", "among the candidates"),
        ("subtitle_chieng.csv", "name,chinese,english\n../../x,a,b\n", "unusable id"),
    ],
)
def test_mer2025_broken_files(tmp_path, file, content, words):
    folder = mer2025(tmp_path / "mer")
    (folder / file).write_text(content)
    with pytest.raises(CorpusError, match=words):
        open_corpus(str(folder))


def test_mer2025_without_a_file_says_which(tmp_path):
    with pytest.raises(CorpusError, match=r"track1_train_disdim\.csv: cannot be read"):
        open_corpus(f"mer2025:{mer2025(tmp_path / 'mer', train=False)}")


def test_table_with_a_mapping(tmp_path):
    table = pd.DataFrame({"Sr": ["1", "2", "3"], "said": ["a", "b", "c"], "mood": ["joy", "disgust", "anger"]})
    table.to_parquet(tmp_path / "clips.parquet")
    table.to_csv(tmp_path / "clips.csv", index=False)
    labels = {"joy": "happy", "disgust": "", "anger": "angry"}
    columns = {"id": "Sr", "transcript": "said", "label": "mood"}
    for name in ("clips.parquet", "clips.csv"):
        corpus = open_table(tmp_path / name, columns=columns, labels=labels)
        assert corpus.clips[["id", "transcript", "label"]].to_numpy().tolist() == [
            ["1", "a", "happy"],
            ["3", "c", "angry"],
        ]
        assert corpus.left_out.to_numpy().tolist() == [["2", "label 'disgust' has no class among the six"]]
    (tmp_path / "corpus.toml").write_text(
        'table = "clips.csv"\nname = "mine"\n[columns]\nid = "Sr"\ntranscript = "said"\nlabel = "mood"\n'
        '[labels]\njoy = "happy"\ndisgust = ""\nanger = "angry"\n'
    )
    assert open_corpus(str(tmp_path)).clips.equals(corpus.clips)


def test_table_rows_are_those_of_the_file(tmp_path):
    path = tmp_path / "clips.csv"
    path.write_text("id,label\na,disgust\nb,happy\nc,glad\n")
    with pytest.raises(CorpusError, match="row 4, label"):
        open_table(path, labels={"disgust": ""})


@pytest.mark.parametrize(
    ("toml", "words"),
    [("table = ", "not a TOML"), ('file = "x.csv"', "expected 'table'"), ('table = "x.csv"', "cannot be read")],
)
def test_bad_corpus_toml(tmp_path, toml, words):
    (tmp_path / "corpus.toml").write_text(toml)
    with pytest.raises(CorpusError, match=words):
        open_corpus(str(tmp_path))


def test_table_without_the_mapped_column(tmp_path):
    path = tmp_path / "clips.csv"
    path.write_text("name\na\n")
    with pytest.raises(CorpusError, match=r"no column \['Name'\].*mend the column mapping"):
        open_table(path, columns={"id": "Name"})


def test_real_meld_table(real):
    corpus = open_table(
        real / "meld_text/dev_sent_emo.csv",
        columns={"id": "Sr No.", "transcript": "Utterance", "label": "Emotion", "speaker": "Speaker"},
        labels={"joy": "happy", "anger": "angry", "fear": "worried", "sadness": "sad", "disgust": ""},
    )
    assert len(corpus) + len(corpus.left_out) == 1109
    assert "’" in corpus.clip("1").transcript


def test_feature_table(tmp_path):
    ids = np.array(["a", "b", "c"])
    arrays = {"id": ids, "emotion": np.array(["calm", "disgust", "happy"]), "actor": np.array([1, 1, 2])}
    np.savez(tmp_path / "x.npz", **arrays, face=np.ones((3, 4), "f2"), other=np.ones((2, 4)))
    corpus = open_corpus(str(tmp_path))
    assert [table.stream for table in corpus.features] == ["face"]
    assert corpus.clips[["id", "label", "speaker"]].to_numpy().tolist() == [
        ["a", "neutral", "actor-1"],
        ["c", "happy", "actor-2"],
    ]
    assert not corpus.clip("a").needs_files


def test_feature_table_with_pickle_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", id=np.array([{"a": 1}], dtype=object))
    with pytest.raises(CorpusError, match="without pickle"):
        open_corpus(str(tmp_path))


def test_unknown_content_and_missing_folder(tmp_path):
    with pytest.raises(CorpusError, match="no adapter knows"):
        open_corpus(str(tmp_path))
    with pytest.raises(CorpusError, match="no corpus"):
        open_corpus(str(tmp_path / "nothing"))
