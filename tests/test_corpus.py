"""The manifest is checked as a whole."""

import pandas as pd
import pytest

from ecmf_lib.corpus import CorpusError, inside, make_corpus


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "video").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / "video" / f"{name}.mp4").write_bytes(b"x")
    return tmp_path


@pytest.fixture
def clips():
    return pd.DataFrame(
        {
            "id": ["a", "b", "c"],
            "video": ["video/a.mp4", "video/b.mp4", "video/c.mp4"],
            "transcript": ["Fine.", "我没事", ""],
            "label": ["happy", "sad", ""],
            "speaker": ["ann", "bob", "bob"],
            "annotator_1": ["happy", "neutral", ""],
        }
    )


def problems(folder, clips, **more) -> pd.DataFrame:
    with pytest.raises(CorpusError) as caught:
        make_corpus("test", folder, clips, **more)
    return caught.value.problems


def test_good_manifest(folder, clips):
    corpus = make_corpus("test", folder, clips)
    assert len(corpus) == 3
    assert corpus.annotators == ["annotator_1"]
    assert corpus.clips["split"].tolist() == ["labelled", "labelled", "unlabelled"]
    clip = corpus.clip("b")
    assert clip.video == folder / "video/b.mp4"
    assert (clip.audio, clip.label, clip.speaker, clip.needs_files) == (None, "sad", "bob", True)
    assert corpus.clip("c").label is None
    assert [clip.id for clip in corpus.select(["c", "a"])] == ["a", "c"]
    with pytest.raises(KeyError, match="no clip 'z'"):
        corpus.clip("z")


def test_all_problems_at_once_each_with_its_row(folder, clips):
    clips["id"] = ["a", "a", "../c"]
    clips["video"] = ["../secret.mp4", "video/none.mp4", "/etc/passwd"]
    clips["transcript"] = ["   ", "cafÃ©", "nul\x00"]
    clips["label"] = ["Happy", "joy", ""]
    clips["split"] = ["labelled", "train", "labelled"]
    clips["annotator_1"] = ["sad", "bored", ""]
    found = problems(folder, clips)
    assert list(zip(found["row"], found["column"], strict=True)) == [
        (2, "label"),
        (2, "transcript"),
        (2, "video"),
        (3, "annotator_1"),
        (3, "id"),
        (3, "label"),
        (3, "split"),
        (3, "transcript"),
        (3, "video"),
        (4, "id"),
        (4, "label"),
        (4, "transcript"),
        (4, "video"),
    ]
    said = " ".join(found["problem"])
    for words in ("did you mean 'happy'", "duplicate id 'a'", "unknown split 'train'", "leaves the corpus folder"):
        assert words in said


def test_message_is_cut_but_problems_are_complete(folder):
    clips = pd.DataFrame({"id": [f"clip{i}" for i in range(100)], "label": "joy"})
    with pytest.raises(CorpusError, match=r"100 problem\(s\)") as caught:
        make_corpus("test", folder, clips)
    assert "and 70 more" in str(caught.value)
    assert len(caught.value.problems) == 100


def test_column_that_is_missing(folder, clips):
    found = problems(folder, clips.drop(columns="id"))
    assert found["problem"].tolist() == ["the manifest has no such column"]
    assert found["column"].tolist() == ["id"]


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "..\\x", "C:\\x", "C:x", "video/../..", "a\0b"])
def test_names_never_leave_the_folder(tmp_path, name):
    assert not inside(tmp_path, name)


def test_links_never_leave_the_folder(tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "secret.mp4").write_bytes(b"x")
    (tmp_path / "corpus" / "a.mp4").symlink_to(tmp_path / "secret.mp4")
    (tmp_path / "corpus" / "video").symlink_to(tmp_path)
    assert not inside(tmp_path / "corpus", "a.mp4")
    assert not inside(tmp_path / "corpus", "video/secret.mp4")
    assert inside(tmp_path / "corpus", "b/c.mp4")


def test_missing_files_can_be_left_to_the_ledger(folder, clips):
    (folder / "video/b.mp4").unlink()
    assert problems(folder, clips)["row"].tolist() == [3]
    assert len(make_corpus("test", folder, clips, missing_files="record")) == 3


def test_fingerprint_follows_content(folder, clips):
    before = make_corpus("test", folder, clips).fingerprint
    assert make_corpus("other name", folder, clips).fingerprint == before
    clips.loc[1, "label"] = "angry"
    assert make_corpus("test", folder, clips).fingerprint != before


def test_groups_fall_back_from_speaker_to_take_to_clip(folder, clips):
    corpus = make_corpus("test", folder, clips)
    assert corpus.groups() == (["ann", "bob", "bob"], "speaker")
    clips["speaker"] = ["ann", "bob", ""]
    assert make_corpus("test", folder, clips).groups() == (["ann", "bob", "clip:c"], "speaker")
    clips["speaker"] = "ann"
    assert make_corpus("test", folder, clips).groups() == (["a", "b", "c"], "clip")
    clips["take"] = ["1", "1", "2"]
    assert make_corpus("test", folder, clips).groups() == (["1", "1", "2"], "take")


@pytest.mark.parametrize("name", ["../../evil", "", ".", "a/b", "a\\b", "C:x", 5, None])
def test_name_of_a_corpus_names_folders(folder, clips, name):
    with pytest.raises(CorpusError, match="unusable corpus name"):
        make_corpus(name, folder, clips)


def test_manifest_without_clips(folder, clips):
    with pytest.raises(CorpusError, match=r"no clips; expected at least one row"):
        make_corpus("test", folder, clips.head(0))
    left_out = pd.DataFrame({"id": ["a"], "reason": ["x"]})
    with pytest.raises(CorpusError, match=r"no clips \(all 1 were left out\)"):
        make_corpus("test", folder, clips.head(0), left_out=left_out)


def test_clip_of_a_selection_without_clips(folder, clips):
    with pytest.raises(KeyError, match="no clips at all"):
        make_corpus("test", folder, clips).select([]).clip("a")


def test_only_the_id_must_be_there(tmp_path):
    corpus = make_corpus("test", tmp_path, pd.DataFrame({"id": ["a"], "colour": ["red"]}))
    assert corpus.clips["split"].tolist() == ["unlabelled"]
    assert corpus.clip("a").label is None


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("lable", "did you mean 'label'"),
        ("Label", "did you mean 'label'"),
        ("annotator 1", "rename it 'annotator_1'"),
        ("annotator-2", "rename it 'annotator_2'"),
        ("Annotator_3", "rename it 'annotator_3'"),
        ("annotator", "rename it 'annotator_1'"),
    ],
)
def test_columns_that_are_meant_but_misnamed(tmp_path, column, words):
    found = problems(tmp_path, pd.DataFrame({"id": ["a"], column: ["happy"]}))
    assert found[["row", "column"]].to_numpy().tolist() == [[1, column]]
    assert words in found["problem"][0]


def test_take_that_nobody_knows_is_a_group_of_its_own(folder, clips):
    clips["speaker"] = "ann"
    clips["take"] = ["1", "", ""]
    assert make_corpus("test", folder, clips).groups() == (["1", "clip:b", "clip:c"], "take")


def test_problems_are_placed_where_they_are_mended(folder, clips):
    clips["label"] = ["happy", "joy", "glad"]
    found = problems(folder, clips, where=lambda index, column: (f"{column}.csv", 10 * index))
    assert found[["file", "row", "id"]].to_numpy().tolist() == [["label.csv", 10, "b"], ["label.csv", 20, "c"]]


def test_a_link_that_is_changed_between_two_checks(tmp_path):
    for name in ("corpus", "elsewhere", "corpus/real"):
        (tmp_path / name).mkdir()
    link = tmp_path / "corpus" / "video"
    link.symlink_to(tmp_path / "corpus/real")
    assert inside(tmp_path / "corpus", "video/a.mp4")
    link.unlink()
    link.symlink_to(tmp_path / "elsewhere")
    assert not inside(tmp_path / "corpus", "video/a.mp4")


def test_published_split(folder, clips):
    assert make_corpus("x", folder, clips).published_test(clips["id"]) is None, "no such column"
    ids = clips["id"].tolist()
    part = ["test", "train"] + [""] * (len(ids) - 2)
    corpus = make_corpus("x", folder, clips.assign(part=part))
    test = corpus.published_test(ids[::-1])
    assert (test.tolist(), test.dtype) == ([-1] * (len(ids) - 1) + [0], "int64"), "in the order of the ids"
    assert corpus.published_test(ids[1:]) is None, "nobody is tested"
    assert corpus.published_test(ids[:1]) is None, "nobody is trained on"
    with pytest.raises(KeyError):
        corpus.published_test(["nobody"])
    with pytest.raises(CorpusError, match=r"row 3, part .*unknown part 'Train'.*train or test, or leave it empty"):
        make_corpus("x", folder, clips.assign(part=["test", "Train"] + [""] * (len(ids) - 2)))
