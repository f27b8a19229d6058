"""CMU-MOSI's csv features become a corpus with its published split; files that do not fit each other are refused."""

import csv

import numpy as np
import pytest
from typer.testing import CliRunner

from ecmf_lib.adapters import open_corpus
from ecmf_lib.config import FuseSettings, Settings
from ecmf_lib.corpus import CorpusError
from ecmf_lib.project import open_project
from ecmf_lib.run import app

WORDS = [  # id, words, number of the video, label
    ["aa_1", "GOOD", "1", "1"],
    ["aa_2", "BAD", "1", "0"],
    ["b_b_1", "SO SO", "2", "0"],
    ["b_b_10", "FINE", "2", "1"],
    ["cc_1", "NEVER SCORED", "3", "0"],
]
ORDER = {"train": [3, 2], "test": [0, 1]}  # rows of WORDS, as the features' files have them
DIMS = {"text": 3, "audio": 2, "video": 4}


def value(stream: str, number: int) -> list[float]:
    return [number + k / 7 + ("text", "audio", "video").index(stream) * 10 for k in range(DIMS[stream])]


def write(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)


def change(path, row: int, cell: int, text: str):
    """Put a text into a cell; both count from 1, as people do."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    rows[row - 1][cell - 1] = text
    write(path, rows)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "features"
    path.mkdir()
    write(path / "transcripts.csv", WORDS)
    for part, order in ORDER.items():
        write(path / f"text_{part}.csv", [[n, *(f"{x:.7f}" for x in value("text", n))] for n in order])
        for stream in DIMS:
            write(path / f"{stream}_{part}0.csv", [[*value(stream, n), WORDS[n][3]] for n in order])
    return path


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("ECMF_DATA", str(tmp_path / "data"))


def test_utterances_with_video_words_and_part(folder):
    corpus = open_corpus(str(folder))  # told from its content
    clips = corpus.clips.set_index("id")
    assert (corpus.name, corpus.classes) == ("mosi", ("negative", "positive"))
    assert clips.index.tolist() == ["aa_1", "aa_2", "b_b_1", "b_b_10"]
    assert clips["label"].tolist() == ["positive", "negative", "negative", "positive"]
    assert clips["speaker"].tolist() == ["aa", "aa", "b_b", "b_b"]
    assert clips["part"].tolist() == ["test", "test", "train", "train"]
    assert clips["transcript"].tolist() == ["GOOD", "BAD", "SO SO", "FINE"]
    assert set(clips["split"]) == {"labelled"}
    assert corpus.left_out.to_numpy().tolist() == [["cc_1", "in neither part of the published split"]]
    assert corpus.published_test(["b_b_10", "aa_2"]).tolist() == [-1, 0]


def test_features_come_into_the_store_under_their_own_clips(folder, data):
    project = open_project(Settings(corpus=str(folder)))
    assert list(project.sets) == ["text", "audio", "video"]
    assert project.ledger["status"].tolist() == ["done"] * 4
    for stream, found in project.sets.items():
        for number, (id, *_) in enumerate(WORDS[:4]):
            np.testing.assert_allclose(found.get(id), value(stream, number), rtol=1e-6)
    assert project.sets["audio"].encoder == "audio_train0.csv + audio_test0.csv"
    samples, silent = project.samples()
    assert (list(samples.streams), samples.labels.tolist(), silent) == (["text", "audio", "video"], [1, 0, 0, 1], {})


def test_unchanged_features_are_not_written_again_and_changed_ones_are(folder, data):
    first = open_project(Settings(corpus=str(folder)))
    shard = next((first.sets["video"].folder / "shards").iterdir())
    before = shard.stat().st_mtime_ns
    again = open_project(Settings(corpus=str(folder)))
    assert shard.stat().st_mtime_ns == before and again.data_fingerprint == first.data_fingerprint
    change(folder / "video_test0.csv", 1, 1, "99.5")
    third = open_project(Settings(corpus=str(folder)))
    assert third.sets["video"].get("aa_1")[0] == 99.5
    assert third.data_fingerprint != first.data_fingerprint


def test_a_part_of_the_clips_gets_its_own_features(folder, data):
    project = open_project(Settings(corpus=str(folder), max_clips=2))
    for id in project.corpus.clips["id"]:
        number = [row[0] for row in WORDS].index(id)
        np.testing.assert_allclose(project.sets["audio"].get(id), value("audio", number), rtol=1e-6)


def test_what_is_not_finite_is_recorded(folder, data):
    change(folder / "audio_train0.csv", 2, 1, "nan")
    change(folder / "video_train0.csv", 2, 2, "-inf")
    project = open_project(Settings(corpus=str(folder)))
    row = project.ledger.set_index("id").loc["b_b_1"]
    assert row[["status", "text"]].tolist() == ["done", "done"]
    assert "1 of 2 values are NaN or infinite" in row["audio"] and "1 of 4" in row["video"]


@pytest.mark.parametrize(
    ("file", "row", "cell", "text", "said"),
    [
        (
            "audio_train0.csv",
            2,
            3,
            "1",
            r"audio_train0\.csv row 2, label \(clip 'b_b_1'\): '1', but '0' in trans.* row 3",
        ),
        ("transcripts.csv", 1, 4, "0", r"text_test0\.csv row 1, label \(clip 'aa_1'\): '1', but '0' in trans.* row 1"),
        ("transcripts.csv", 2, 1, "aa_1", r"transcripts\.csv row 2, id .*'aa_1' stands here again"),
        ("transcripts.csv", 2, 1, "aa2", r"transcripts\.csv row 2, video .*'aa2' is not <video>_<number>"),
        ("transcripts.csv", 2, 3, "7", r"transcripts\.csv row 2, number .*video 'aa' is number 7 here and 1 above"),
        ("transcripts.csv", 5, 4, "2", r"transcripts\.csv row 5, label .*'2'; expected 0 or 1"),
        ("transcripts.csv", 1, 2, "  ", r"transcripts\.csv row 1, transcript .*only blanks"),
        ("text_train.csv", 2, 1, "9", r"text_train\.csv row 2, cell 1 .*'9' is not the number of a row .*0 to 4"),
        ("text_train.csv", 2, 1, "-1", r"text_train\.csv row 2, cell 1 .*'-1' is not the number"),
        ("text_test.csv", 1, 1, "3", r"text_test\.csv row 1, cell 1 .*utterance number 3 is in part 'train' already"),
        ("text_test.csv", 2, 3, "8", r"text_test\.csv row 2, features .*not those of text_test0\.csv row 2"),
        ("video_test0.csv", 2, 2, "high", r"video_test0\.csv row 2, features .*'high' is no number"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_row(folder, file, row, cell, text, said):
    change(folder / file, row, cell, text)
    with pytest.raises(CorpusError, match=said):
        open_corpus(str(folder))


def test_all_problems_at_once(folder):
    change(folder / "audio_train0.csv", 2, 3, "1")
    change(folder / "video_test0.csv", 1, 5, "0")
    with pytest.raises(CorpusError) as caught:
        open_corpus(str(folder))
    assert caught.value.problems[["file", "row", "id", "column"]].to_numpy().tolist() == [
        ["audio_train0.csv", 2, "b_b_1", "label"],
        ["video_test0.csv", 1, "aa_1", "label"],
    ]


def test_files_of_different_length_or_width(folder):
    short = [[*value("video", 3), "1"]]
    write(folder / "video_train0.csv", short)
    with pytest.raises(CorpusError, match=r"video_train0\.csv row 1, rows .*1 of them; text_train\.csv has 2"):
        open_corpus(str(folder))
    write(folder / "video_train0.csv", [*short, [1, 2, 0]])
    with pytest.raises(CorpusError, match=r"video_train0\.csv: 1 row\(s\) have not 5 cells, the first is row 2 with 3"):
        open_corpus(str(folder))
    write(folder / "video_train0.csv", [[1, 2, 1], [1, 2, 0]])
    with pytest.raises(CorpusError, match=r"video_test0\.csv row 1, features .*4 of them, video_train0\.csv has 2"):
        open_corpus(str(folder))
    (folder / "video_train0.csv").write_text("\n")
    with pytest.raises(CorpusError, match=r"video_train0\.csv: the file is empty"):
        open_corpus(str(folder))


def test_a_video_in_both_parts_is_refused(folder):
    change(folder / "transcripts.csv", 2, 1, "b_b_2")
    change(folder / "transcripts.csv", 2, 3, "2")
    with pytest.raises(CorpusError, match=r"transcripts\.csv row 2, part \(clip 'b_b_2'\).*in both parts"):
        open_corpus(str(folder))


@pytest.mark.parametrize("kept", [["text_train0.csv"], ["transcripts.csv", "text_train.csv"]])
def test_an_incomplete_folder_is_refused_by_name(folder, kept):
    np.savez(folder / "mosi.npz", id=np.array(["aa_1"]))
    for path in folder.glob("*.csv"):
        if path.name not in kept:
            path.unlink()
    with pytest.raises(CorpusError, match=r"CMU-MOSI without .*video_test0\.csv.*all nine csv files"):
        open_corpus(str(folder))


def test_real_features(real, data):
    project = open_project(FuseSettings(corpus=str(real / "mosi_features")))
    corpus = project.corpus
    assert corpus.clips.groupby("part")["speaker"].agg(["size", "nunique"]).to_numpy().tolist() == [
        [752, 31],
        [1447, 62],
    ]
    samples, silent = project.samples()
    assert (len(samples), samples.dims, silent) == (2199, {"text": 100, "audio": 73, "video": 100}, {})
    assert np.bincount(samples.labels).tolist() == [1023, 1176]
    test = corpus.published_test(samples.ids)
    assert (test == 0).sum() == 752 and (test == -1).sum() == 1447
    shown = CliRunner().invoke(app, ["check", str(real / "mosi_features")])
    assert shown.exit_code == 0 and "2199 clips, 0 left out" in shown.output
    lines = [line.split() for line in shown.output.splitlines()]
    assert ["labelled", "test", "negative", "285"] in lines and ["train", "negative", "738"] in lines
