"""Csv files in the encodings that people have are read, and text that was read in the wrong one is found."""

import pytest

from ecmf_lib.tables import CorpusError, read_csv, wrongly_encoded

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


def written(tmp_path, content):
    path = tmp_path / "x.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_index_is_the_row_also_after_blank_lines_and_lines_in_quotes(tmp_path):
    table = read_csv(written(tmp_path, 'id,text\r\n\r\na,"two\r\nlines"\r\n,\r\nb,x\r\n'))
    assert table.to_numpy().tolist() == [["a", "two\r\nlines"], ["b", "x"]]
    assert (table.index + 2).tolist() == [3, 5]


def test_rows_that_are_short_or_end_in_commas(tmp_path):
    table = read_csv(written(tmp_path, "id,text,label\na\nb,x\nc,y,sad,,\n"))
    assert table.to_numpy().tolist() == [["a", "", ""], ["b", "x", ""], ["c", "y", "sad"]]


@pytest.mark.parametrize("header", ["id,text", "id,text,"])
def test_rows_longer_than_the_header_are_refused(tmp_path, header):
    path = written(tmp_path, f"{header}\na,Well, yes\nb,x\nc,No, no, no\n")
    with pytest.raises(CorpusError, match=r"2 row\(s\) have more cells than the 2 columns.*row 2, 4; put"):
        read_csv(path)


def test_every_row_too_long_does_not_shift_the_columns(tmp_path):
    with pytest.raises(CorpusError, match="more cells"):
        read_csv(written(tmp_path, "id,label\na,happy,x\nb,sad,y\n"))


def test_header_only_and_header_with_a_nameless_column(tmp_path):
    assert list(read_csv(written(tmp_path, "id,label\n")).columns) == ["id", "label"]
    assert read_csv(written(tmp_path, ",id,label\n0,a,sad\n")).to_dict("list") == {"id": ["a"], "label": ["sad"]}


def test_two_columns_of_one_name(tmp_path):
    with pytest.raises(CorpusError, match=r"\['label'\] stand more than once"):
        read_csv(written(tmp_path, "id,label,label \na,happy,sad\n"))


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_are_named(tmp_path, separator):
    content = f"id{separator}label\na{separator}Well, yes\n"
    with pytest.raises(CorpusError, match="no such column as 'id': the separator is") as caught:
        read_csv(written(tmp_path, content))
    assert repr(separator) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("我們還沒決定要不要去。", "gbk"),
        ("國語與臺灣話", "gbk"),
        ("陶喆", "gbk"),
        ("喆", "gbk"),
        ("應", "gbk"),
        ("OK吗？I’m fine", "gbk"),
        ("我用Python写了A和B", "gbk"),
        ("他說：「媽媽餵餵貓」……", "gb18030"),
        ("ÅÄÖ ÅÄÖ", "cp1252"),
        ("ação", "cp1252"),
        ("AÇÃO", "cp1252"),
        ("Übermut tut selten gut", "cp1252"),
        ("I don’t know", "cp1252"),
        ("“Ça va ?” – où ça…", "cp1252"),
        ("señor, größer, déjà vu", "cp1252"),
        ("5 € or 3 £", "cp1252"),
    ],
)
def test_gbk_and_cp1252_are_told_apart_by_a_single_line(tmp_path, text, encoding):
    table = read_csv(written(tmp_path, f'id,text\na,"{text}"\n'.encode(encoding)))
    assert table["text"].tolist() == [text]


def test_damaged_gbk_is_refused_not_read_as_cp1252(tmp_path):
    content = ("id,text\n" + "a,我今天真的很高兴见到你\n" * 5).encode("gbk") + b"b,\xce \n"
    with pytest.raises(CorpusError, match="neither utf-8-sig nor gb18030"):
        read_csv(written(tmp_path, content))


@pytest.mark.parametrize(
    "text",
    [
        "你好",
        "好",
        "你怎么这么晚才回来？",
        "我沒事，別擔心。",
        "OK吗",
        "联通",
        "嗯。",
        "我們還沒決定。",
        "真的！",
        "Привет",
    ],
)
def test_utf8_read_as_cp1252_is_found(text):
    try:
        misread = text.encode().decode("cp1252")
    except UnicodeDecodeError:  # five bytes mean nothing in cp1252; other programs leave them as control characters
        misread = text.encode().decode("latin-1")
    assert "wrongly encoded" in wrongly_encoded(misread)


@pytest.mark.parametrize("text", ["ä½ å¥½", "ä½\u00a0å¥½", "浣犲ソ", "OK, 浣犲ソ"])
def test_utf8_of_chinese_read_as_something_else_is_found(text):
    assert "UTF-8 that was read as" in wrongly_encoded(text)


@pytest.mark.parametrize("text", ["你好", "我没事", "你怎么这么晚才回来", "I’m", "我們還沒決定要不要去", "真的吗？"])
def test_utf8_read_as_gbk_is_found(text):
    assert "wrongly encoded" in wrongly_encoded(text.encode().decode("gb18030", "replace"))


@pytest.mark.parametrize(
    "text",
    [
        "你怎么这么晚才回来？",
        "我没事，真的。",
        "联通",
        "好",
        "嗯",
        "喆",
        "浣熊",
        "鈥",
        "你要是再这样，我就不理你了！",
        "这件事我早就跟你说过，你偏不听……",
        "爸，妈，我考上大学了！",
        "哎呀，怎么会这样啊？",
        "他姓鄭，是臺灣人。",
        "我們還沒決定要不要去。",
        "國語與臺灣話有什麼不一樣？",
        "媽媽說：「快點回家吃飯。」",
        "謝謝你，我很開心！",
        "OK，没问题，3点见。",
        "「好きです」と言った。",
        "C’est l’été à Besançon, où ça ? « Déjà… »",
        "et la liberté…»",
        "CAFÉ… NÉ… ALLÉ…",
        "été”…",
        "Schöne Grüße aus Österreich – „Übermut“ tut weh…",
        "SCHÖ… WÜ…",
        "Não há situação melhor; AMANHÃ…",
        "Привет, как дела?",
    ],
)
def test_no_false_alarm_on_real_text(text):
    assert wrongly_encoded(text) == ""


@pytest.mark.parametrize(
    ("encoding", "words"), [("hex", "no text encoding"), ("a\0", "no text"), ("punycode", "neither")]
)
def test_encodings_that_are_none(tmp_path, encoding, words):
    with pytest.raises(CorpusError, match=words):
        read_csv(written(tmp_path, "id\né\n"), encoding=encoding)
