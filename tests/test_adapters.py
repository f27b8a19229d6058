"""Each dataset's own files become the one manifest."""

import numpy as np
import pandas as pd
import pytest

from ecmf_lib import extract
from ecmf_lib.adapters import LEDGER_COLUMNS, open_corpus, open_mer2025, open_table
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


def test_cremad_features_say_what_became_of_their_labels(tmp_path):
    emotions = ["NEU", "HAP", "SAD", "ANG", "FEA", "DIS"]
    ids = np.array([f"10{n:02}_IEO_{emotion}_{'X' if n == 7 else 'HI'}" for n in (1, 7) for emotion in emotions])
    np.savez(tmp_path / "c.npz", id=ids, emotion=np.array(emotions * 2), actor=np.arange(12) // 6, x=np.ones((12, 2)))
    corpus = open_corpus(str(tmp_path))
    assert corpus.clips["label"].tolist() == ["neutral", "happy", "sad", "angry", "worried"] * 2
    assert corpus.left_out["id"].tolist() == [ids[5], ids[11]]
    notes = " ".join(corpus.notes)
    assert "lossy" in notes and "DIS (disgust) has no class here and is left out" in notes and "no surprise" in notes
    assert "ODbL" in corpus.licence
    ids[0] = "somebody"
    np.savez(tmp_path / "c.npz", id=ids, emotion=np.array(emotions * 2), actor=np.arange(12) // 6, x=np.ones((12, 2)))
    corpus = open_corpus(str(tmp_path))
    assert (corpus.notes, corpus.licence) == ((), "not stated")


def test_real_cremad_features(real):
    corpus = open_corpus(str(real / "cremad_features"))
    assert (len(corpus), len(corpus.left_out), len(corpus.notes)) == (4948, 1018, 3)
    assert set(corpus.classes) - set(corpus.clips["label"]) == {"surprise"}
    groups, unit = corpus.groups()
    assert (len(set(groups)), unit) == (73, "speaker")


def test_table_with_a_published_split(tmp_path):
    path = tmp_path / "clips.csv"
    path.write_text("id,label,side\na,happy,train\nb,sad,test\nc,sad,\n")
    corpus = open_table(path, columns={"part": "side"})
    assert corpus.clips["part"].tolist() == ["train", "test", ""]
    assert corpus.published_test(["c", "b", "a"]).tolist() == [-1, 0, -1]
    path.write_text("id,label,part\na,happy,train\nb,sad,dev\n")
    with pytest.raises(CorpusError, match=r"clips\.csv row 3, part \(clip 'b'\): unknown part 'dev'.*train or test"):
        open_table(path)


def test_feature_table_with_pickle_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", id=np.array([{"a": 1}], dtype=object))
    with pytest.raises(CorpusError, match="without pickle"):
        open_corpus(str(tmp_path))


def test_unknown_content_and_missing_folder(tmp_path):
    with pytest.raises(CorpusError, match="no adapter knows"):
        open_corpus(str(tmp_path))
    with pytest.raises(CorpusError, match="no corpus"):
        open_corpus(str(tmp_path / "nothing"))


def test_ravdess_upper_case_suffixes(tmp_path):
    touch(tmp_path, "01-01-05-02-01-02-12.MP4", "03-01-05-02-01-02-12.WAV")
    clips = open_corpus(f"ravdess:{tmp_path}").clips
    assert clips[["video", "audio"]].to_numpy().tolist() == [
        ["01-01-05-02-01-02-12.MP4", ""],
        ["", "03-01-05-02-01-02-12.WAV"],
    ]


def test_ravdess_names_that_are_there_twice_and_hidden_files(tmp_path):
    name = "01-01-05-02-01-02-12"
    touch(tmp_path, f"a/{name}.mp4", f"b/{name}.mp4", f"a/{name}.wav", f"a/._{name}.mp4", f".trash/{name}.mp4")
    corpus = open_corpus(str(tmp_path))
    assert corpus.clips["video"].tolist() == [f"a/{name}.mp4"]
    same = [name, f"same name as a/{name}.mp4"]
    hidden = "hidden file (its name starts with a dot)"
    assert corpus.left_out.to_numpy().tolist() == [[f"{name}.mp4", hidden], [f"._{name}.mp4", hidden], same, same]


def test_features_among_ravdess_clips_do_not_hide_them(tmp_path):
    touch(tmp_path, "01-01-05-02-01-02-12.mp4", "features.npz")
    assert len(open_corpus(str(tmp_path))) == 1


def test_folder_name_that_no_system_would_take_back(tmp_path):
    touch(tmp_path, "my: clips?/01-01-05-02-01-02-12.mp4")
    assert open_corpus(str(tmp_path / "my: clips?")).name == "my_clips"


def test_mer2025_files_that_are_no_clips(tmp_path):
    folder = mer2025(tmp_path / "mer")
    touch(
        folder, "video/._s1.mp4", "video/.DS_Store", "video/notes.txt", "video/a?.mp4", "video/s2.MP4", "video/s6.MP4"
    )
    corpus = open_corpus(str(folder))
    assert corpus.clips["id"].tolist() == ["s1", "s2", "s3", "s4", "s5", "s6"]
    assert corpus.clip("s6").video == folder / "video/s6.MP4"
    reasons = corpus.left_out.set_index("id")["reason"].to_dict()
    assert set(reasons) == {"._s1.mp4", ".DS_Store", "notes.txt", "a?.mp4", "s2.mp4"}
    assert "hidden" in reasons["._s1.mp4"]
    assert reasons["s2.mp4"] == "same name as s2.MP4"


def test_mer2025_problems_name_the_file_and_the_row(tmp_path):
    folder = mer2025(tmp_path / "mer")
    wrong = "真的吗？".encode().decode("cp1252", "replace")
    (folder / "subtitle_chieng.csv").write_text(f"name,chinese,english\nx/y,a,b\ns4,{wrong},\ns2,{wrong},\n", "utf-8")
    (folder / "track1_train_disdim.csv").write_text("name,discrete\ns1,happy\ns2,joy\n")
    with pytest.raises(CorpusError, match=r"subtitle_chieng\.csv row 4, transcript \(clip 's2'\)") as caught:
        open_corpus(str(folder))
    found = caught.value.problems
    assert found[["file", "row", "id", "column"]].to_numpy().tolist() == [
        ["subtitle_chieng.csv", 2, "x/y", "id"],
        ["subtitle_chieng.csv", 3, "s4", "transcript"],
        ["subtitle_chieng.csv", 4, "s2", "transcript"],
        ["track1_train_disdim.csv", 3, "s2", "label"],
    ]


def test_mer2025_folder_without_the_training_csv(tmp_path):
    with pytest.raises(CorpusError, match=r"belong to MER2025, but track1_train_disdim\.csv is missing"):
        open_corpus(str(mer2025(tmp_path / "mer", train=False)))


@pytest.mark.parametrize("labels", [{}, {"joy": "happy", "disgust": ""}])
def test_table_without_labels(tmp_path, labels):
    path = tmp_path / "clips.csv"
    path.write_text("id,transcript\na,Fine.\n")
    corpus = open_table(path, labels=labels)
    assert corpus.clips[["id", "split", "label"]].to_numpy().tolist() == [["a", "unlabelled", ""]]
    assert corpus.left_out.empty


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("id,label\n", "no clips"),
        ("id,transcript\n", "no clips"),
        ("id,label\na,disgust\n", r"no clips \(all 1 were left out\)"),
        ("id,lable\na,happy\n", "row 1, lable .*did you mean 'label'"),
        ("ID,Label\na,happy\n", "row 1, ID .*did you mean 'id'"),
        ("name,label\na,disgust\n", "row 1, id .*no such column"),
        ("id;label\na;happy\n", "no such column as 'id': the separator is ';'"),
        ("id,label,annotator 1\na,happy,sad\n", "rename it 'annotator_1'"),
    ],
)
def test_tables_that_cannot_be_used_say_why(tmp_path, content, words):
    path = tmp_path / "clips.csv"
    path.write_text(content)
    with pytest.raises(CorpusError, match=words):
        open_table(path, labels={"disgust": ""})


def test_table_rows_are_right_after_blank_lines(tmp_path):
    path = tmp_path / "clips.csv"
    path.write_text("id,label\n\na,happy\n\nb,joy\n")
    with pytest.raises(CorpusError, match=r"clips\.csv row 5, label \(clip 'b'\)"):
        open_table(path)


def test_mapping_onto_a_column_that_is_there_and_of_one_column_twice(tmp_path):
    path = tmp_path / "clips.csv"
    path.write_text("file,label,annotation,annotator 1,speaker\na.mp4,x,happy,sad,ann\n")
    touch(tmp_path, "a.mp4")
    columns = {"id": "file", "video": "file", "label": "annotation", "annotator_1": "annotator 1"}
    clip = open_table(path, columns=columns).clips.iloc[0]
    assert clip[["id", "video", "label", "annotator_1", "speaker"]].tolist() == [
        "a.mp4",
        "a.mp4",
        "happy",
        "sad",
        "ann",
    ]
    path.write_text("id,annotator_1\na,happy\n")
    clip = open_table(path, columns={"label": "annotator_1", "speaker": "id"}).clips.iloc[0]
    assert clip[["id", "label", "annotator_1", "speaker"]].tolist() == ["a", "happy", "happy", "a"]


def test_parquet_numbers_that_are_whole(tmp_path):
    table = pd.DataFrame({"id": [1.0, 2.0], "speaker": [7.0, None], "transcript": [0.5, 1.0]})
    table.to_parquet(tmp_path / "clips.parquet")
    clips = open_table(tmp_path / "clips.parquet").clips
    assert clips[["id", "speaker", "transcript"]].to_numpy().tolist() == [["1", "7", "0.5"], ["2", "", "1.0"]]


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ('table = "clips.csv"\nname = "../../evil"', "name: .*it names folders"),
        ('table = "clips.csv"\nname = 5', "name: .*valid string"),
        ('table = "clips.csv"\nlicence = 1', "licence: .*valid string"),
        ('table = "../up.csv"', "leaves the corpus folder"),
        ('table = "/etc/up.csv"', "leaves the corpus folder"),
        ('table = "corpus.toml"', r"table: .*expected a file \.csv or \.parquet"),
        ('table = "."', r"table: .*expected a file \.csv"),
        ("table = 5", "table: .*valid string"),
        ('table = "clips.csv"\ncolumns = "x"', "columns: .*valid dictionary"),
        ('table = "clips.csv"\n[columns]\nlabl = "x"', "'labl' is none of our columns"),
        ('table = "clips.csv"\n[labels]\njoy = "hapy"', "labels.joy: .*'happy'"),
        ('table = "clips.csv"\ntabel = "x"', "tabel: Extra inputs"),
    ],
)
def test_corpus_toml_is_not_trusted(tmp_path, toml, words):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for path in (folder / "clips.csv", tmp_path / "up.csv"):
        path.write_text("id\na\n")
    (folder / "corpus.toml").write_text(toml)
    with pytest.raises(CorpusError, match=words):
        open_corpus(str(folder))


def test_corpus_toml_says_all_that_is_wrong_at_once(tmp_path):
    (tmp_path / "corpus.toml").write_text('table = "clips.txt"\nname = "a/b"\ncolour = 1')
    with pytest.raises(CorpusError) as caught:
        open_corpus(str(tmp_path))
    assert all(f"\n  {key}: " in str(caught.value) for key in ("table", "name", "colour"))


GOOD = {"id": np.array(["a", "b"]), "label": np.array(["happy", "sad"]), "face": np.ones((2, 4))}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"label": np.array(["happy"])}, r"'label' has shape \(1,\)"),
        ({"speaker": np.array([1, 2, 3])}, r"'speaker' has shape \(3,\)"),
        ({"id": np.array("a")}, r"'id' has shape \(\)"),
        ({"id": np.array([["a"], ["b"]])}, r"'id' has shape \(2, 1\)"),
        ({"label": np.array("happy")}, r"'label' has shape \(\)"),
        ({"id": np.array([1.0, 2.0])}, "'id' holds float64; expected texts or whole numbers"),
        ({"label": np.array(["glücklich".encode(), b"sad"])}, "not ASCII"),
        ({"face": np.ones((2, 0))}, "'face' has no columns"),
        ({"a b": np.ones((2, 3))}, "'a b' cannot be the name of a stream.*rename the array"),
        ({"../x": np.ones((2, 3))}, "rename the array"),
        ({"duration": np.ones((2, 3))}, "'duration' cannot be.*the ledger has a column of that name"),
        ({"extra": np.array([{}, 1], dtype=object)}, "'extra' cannot be read without pickle"),
    ],
)
def test_feature_tables_that_do_not_fit_together(tmp_path, change, words):
    np.savez(tmp_path / "x.npz", **(GOOD | change))
    with pytest.raises(CorpusError, match=words) as caught:
        open_corpus(str(tmp_path))
    assert "x.npz" in str(caught.value)


def test_feature_tables_that_are_damaged(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, **GOOD)
    whole = path.read_bytes()
    assert len(open_corpus(str(path))) == 2
    middle = whole.index(GOOD["face"].tobytes())
    for content, words in [
        (whole[: len(whole) // 2], "not an npz file, or cut short"),
        (b"junk", "not an npz file, or cut short"),
        (whole[:middle] + b"\xff" + whole[middle + 1 :], "damaged"),
    ]:
        path.write_bytes(content)
        with pytest.raises(CorpusError, match=words):
            open_corpus(str(path))


def test_stream_names_avoid_the_columns_of_the_ledger():
    assert set(LEDGER_COLUMNS) == set(extract._LEDGER.names)


def test_missing_corpus_is_named_by_its_full_path(tmp_path):
    (tmp_path / "repo").mkdir()
    with pytest.raises(CorpusError) as caught:
        open_corpus("../none", base=tmp_path / "repo")
    assert f"no corpus '{tmp_path / 'none'}'" in str(caught.value)
