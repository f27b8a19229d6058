"""The manifest is checked as a whole; csv files in the encodings that people have are read."""

import pandas as pd
import pytest

from ecmf_lib.corpus import CorpusError, inside, make_corpus, read_csv, wrongly_encoded


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


CHINESE = "name,chinese,english\n样本1,你怎么这么晚才回来？,Why so late\n样本2,OK吗，我没事,I am fine\n"
ENGLISH = "name,text\na,I’m fine — really “café”\nb,Fine.\n"
PORTUGUESE = "name,text\na,não há situação melhor; coração\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (CHINESE, "utf-8"),
        (CHINESE, "utf-8-sig"),
        (CHINESE, "gbk"),
        ("id,text\n1,好\n", "gbk"),
        (ENGLISH, "cp1252"),
        ("name,text\na,I’m fine\n", "cp1252"),
        (PORTUGUESE, "cp1252"),
        ("name,text\na,plain\n", "ascii"),
    ],
)
def test_csv_encodings(tmp_path, text, encoding):
    path = tmp_path / "x.csv"
    path.write_bytes(text.encode(encoding))
    lines = text.splitlines()
    frame = read_csv(path)
    assert list(frame.columns) == lines[0].split(",")
    assert [",".join(row) for row in frame.itertuples(index=False)] == lines[1:]


def test_csv_keeps_what_looks_like_missing(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("id,transcript\n007,NA\nb,\nc,null\n", encoding="utf-8")
    assert read_csv(path).to_numpy().tolist() == [["007", "NA"], ["b", ""], ["c", "null"]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"id\nx\n".decode().encode("utf-16"), "UTF-16"),
        ("id,text\n1,你好你好你好\n".encode() + b"2,\xe4\xbd\n", "save it as UTF-8"),
        (b'id,text\n1,"open\n2,b,c,d\n', "not a csv table"),
    ],
)
def test_csv_that_cannot_be_read_says_why(tmp_path, content, words):
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=words) as caught:
        read_csv(path)
    assert "bad.csv" in str(caught.value)


def test_csv_that_is_not_there(tmp_path):
    with pytest.raises(CorpusError, match="cannot be read"):
        read_csv(tmp_path / "none.csv")


@pytest.mark.parametrize("text", ["café", "I’m “fine” — 50 €", "你好！🙂", "ÀÉ", "line\nbreak\ttab", "مرحبا"])
def test_good_text_is_not_called_wrong(text):
    assert wrongly_encoded(text) == ""
    assert wrongly_encoded(text.encode().decode("utf-8")) == ""


@pytest.mark.parametrize("text", ["I’m fine", "café", "“quoted”"])
def test_mojibake_is_found(text):
    assert "read as cp1252" in wrongly_encoded(text.encode().decode("cp1252", "replace").replace("\ufffd", "\x9d"))
