"""Hostile tables: manifests, the csv files of datasets, label sources, decisions and submissions."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from hostile import Hostile

LINE_MB = 100
HEAD = b"id,transcript,label\n"
ROW = b"a,words,happy\n"


def _text(content: bytes | Callable[[], bytes], name: str = "table.csv"):
    def make(folder: Path, good: Path) -> Path:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content())
        return folder / name

    return make


def _long(part: bytes, megabytes: int = LINE_MB, begin: bytes = b"", end: bytes = b""):
    """A file of so many MB that repeats a part, written block by block."""

    def make(folder: Path, good: Path) -> Path:
        block = part * (2**20 // len(part))
        with open(folder / "table.csv", "wb") as file:
            file.write(begin)
            for _ in range(megabytes):
                file.write(block)
            file.write(end)
        return folder / "table.csv"

    return make


#: What is wrong → content of a manifest.
TEXTS: dict[str, bytes | Callable[[], bytes]] = {
    "nothing but a header": HEAD,
    "nothing but blanks": b"  \n\n \t\n",
    "one byte": b"i",
    "a NUL in an id": HEAD + b"a\0b,words,happy\n",
    "a NUL in a label": HEAD + b"a,words,hap\0py\n",
    "nothing but NULs": bytes(5000),
    "control characters in words": HEAD + b"a,wo\x1b[2Jrds,happy\n",
    "a control character in an id": HEAD + b"a\x07,words,happy\n",
    "a bell in the header": b"id,tran\x07script,label\n" + ROW,
    "right to left in an id": HEAD + "a\u202ezip.exe,words,happy\n".encode(),
    "a path for an id": HEAD + b"../../etc/passwd,words,happy\n",
    "an id that is too long": HEAD + b"a" * 5000 + b",words,happy\n",
    "ids twice": HEAD + ROW + ROW,
    "formulas in cells": HEAD + b"=1+1,\"=cmd|'/c calc'!A0\",=happy\n-2,@SUM(A1),+3\n",
    "formulas in an id alone": HEAD + b"=HYPERLINK(A1),words,happy\n",
    "formulas in words": HEAD + b"a,\"=cmd|'/c calc'!A0\",happy\n",
    "a script in every cell": b"id,transcript,label,speaker\n" + b"<script>alert(1)</script>," * 3 + b"x\n",
    "a quote that is never closed": HEAD + b'a,"words,happy\n' + ROW * 50_000,
    "quotes in quotes": HEAD + b'a,"wo"rds",happy\n',
    "more cells than columns": HEAD + b"a,b,c,d,e,f\n",
    "fewer cells than columns": HEAD + b"a\n",
    "columns twice": b"id,id,label\na,b,happy\n",
    "unnamed columns": b",,\na,b,c\n",
    "100,000 columns": lambda: b"id," + b",".join(b"c%d" % i for i in range(100_000)) + b"\na\n",
    "5,000 columns that are nearly label": lambda: (
        b"id," + b",".join(b"labe%d" % i for i in range(5000)) + b"\na" + b",x" * 5000 + b"\n"
    ),
    "1,000 annotators": lambda: (
        b"id," + b",".join(b"annotator_%d" % i for i in range(1000)) + b"\na" + b",happy" * 1000 + b"\n"
    ),
    "100,000 unknown labels": lambda: HEAD + b"".join(b"c%d,words,lab%del\n" % (i, i) for i in range(100_000)),
    "a label of 100,000 letters": HEAD + b"a,words," + b"happ" * 25_000 + b"\n",
    "a cell of 200,000 letters": HEAD + b"a," + b"w" * 200_000 + b",happy\n",
    "words of 120,000 odd letters": lambda: HEAD + b"a," + ("Ã©â€™" * 12_000).encode() + b",happy\n",
    "words of 100,000 Chinese letters": lambda: HEAD + b"a," + ("你好 " * 25_000).encode() + b",happy\n",
    "semicolons": b"id;transcript;label\na;words;happy\n",
    "UTF-16": "id,label\na,happy\n".encode("utf-16"),
    "UTF-32": "id,label\na,happy\n".encode("utf-32"),
    "UTF-7": b"id,label\n+ADw-script+AD4-,happy\n",
    "bytes of no encoding": HEAD + b"a,\x81\x8d\x8f\x90\x9d,happy\n",
    "half a UTF-8 character": HEAD + b"a,words\xe4\xbd,happy\n",
    "overlong UTF-8": HEAD + b"a\xc0\xaf..\xc0\xaf,words,happy\n",
    "a surrogate in UTF-8": HEAD + b"a,\xed\xa0\x80,happy\n",
    "an absolute path": b"id,video,label\na,/etc/passwd,happy\n",
    "a path of another system": b"id,video,label\na,C:\\Windows\\win.ini,happy\nb,\\\\host\\share\\x.mp4,sad\n",
    "a path that climbs": b"id,video,label\na,../../../etc/passwd,happy\n",
    "a path that climbs with backslashes": b"id,audio,label\na,..\\..\\x.wav,happy\n",
    "a path with a NUL": b"id,video,label\na,x\0.mp4,happy\n",
    "a path of 5,000 letters": b"id,video,label\na," + b"x" * 5000 + b".mp4,happy\n",
    "a path of 3,000 folders": b"id,video,label\na," + b"x/" * 3000 + b"x.mp4,happy\n",
    "a home folder": b"id,video,label\na,~/.ssh/id_rsa,happy\n",
    "a url": b"id,video,label\na,http://127.0.0.1/x.mp4,happy\n",
    "a device": b"id,video,label\na,/dev/zero,happy\n",
    "splits that are none": b"id,label,split\na,happy,TEST\n",
    "numbers that are too long": HEAD + b"9" * 140 + b",words,happy\n",
    "a zip": b"PK\x03\x04" + bytes(300),
    "an html page": b"<html><body>login</body></html>\n",
    "only carriage returns": b"id,label\ra,happy\rb,sad\r",
}
LONG = {
    "100 MB of one line": _long(b"abcdefgh"),
    "100 MB of one line of commas": _long(b"a,"),
    "100 MB of one line of quotes": _long(b'""', begin=HEAD + b'a,"'),
    "100 MB of one line after good ones": _long(b"w ", begin=HEAD + ROW + b"b,", end=b",happy\n"),
    "100 MB of NULs": _long(bytes(16)),
    "100 MB of bytes that are no UTF-8": _long(b"\xff\xfe\x81\x8d"),
    "60 MB of empty lines": _long(b"\n", 60, begin=HEAD),
    "60 MB of carriage returns": _long(b"\r", 60, begin=HEAD),
    "60 MB of single letters": _long(b"x\n", 60, begin=b"id\n"),
}


def _link(target: str, name: str = "x.mp4", row: str | None = None):
    """A manifest whose file is a link."""

    def make(folder: Path, good: Path) -> Path:
        os.symlink(target.format(good=good), folder / name)
        (folder / "manifest.csv").write_text(f"id,video,label\na,{row or name},happy\n")
        return folder

    return make


def _pipe(name: str):
    """A named pipe in place of a file: whoever opens it waits for ever."""

    def make(folder: Path, good: Path) -> Path:
        os.mkfifo(folder / name)
        return folder / name

    return make


def _linked(name: str, target: str):
    def make(folder: Path, good: Path) -> Path:
        os.symlink(target.format(folder=folder), folder / name)
        return folder / name

    return make


def _folder(files: dict[str, bytes]):
    def make(folder: Path, good: Path) -> Path:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder

    return make


def _toml(text: bytes, manifest: bool = True):
    def make(folder: Path, good: Path) -> Path:
        if manifest:
            shutil.copy(good / "manifest.csv", folder)
        return _text(text, "corpus.toml")(folder, good)

    return make


TOMLS = {
    "deep nesting": b'table = "manifest.csv"\ncolumns = ' + b"[" * 50_000,
    "a deep table": b'table = "manifest.csv"\n[' + b"a." * 20_000 + b"b]\n",
    "a table that climbs": b'table = "../../../etc/passwd.csv"\n',
    "an absolute table": b'table = "/etc/passwd.csv"\n',
    "a table that is this file": b'table = "corpus.toml"\n',
    "an unknown encoding": b'table = "manifest.csv"\nencoding = "no-such"\n',
    "an encoding that decodes bytes": b'table = "manifest.csv"\nencoding = "zlib_codec"\n',
    "an encoding with a NUL": b'table = "manifest.csv"\nencoding = "utf\\u0000"\n',
    "a name that climbs": b'table = "manifest.csv"\nname = "../x"\n',
    "columns that are none": b'table = "manifest.csv"\ncolumns = {id = "no-such"}\n',
    "numbers for texts": b"table = 5\nlicence = 1979-05-27\n",
    "a number of 10,000 digits": b'table = "manifest.csv"\nname = ' + b"9" * 10_000 + b"\n",
    "not UTF-8": b'table = "manifest.csv\xff"\n',
}


def _parquet(make_table: Callable[[], pa.Table], **how):
    def make(folder: Path, good: Path) -> Path:
        pq.write_table(make_table(), folder / "table.parquet", **how)
        return folder / "table.parquet"

    return make


def _bomb(rows: int, text: str) -> pa.Table:
    """A column of one value, which parquet keeps once."""
    return pa.table({"id": pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), [text]).cast(pa.string())})


PARQUETS = {
    "5 million rows in 2 kB": _parquet(lambda: _bomb(5_000_000, "a"), compression="zstd"),
    "a text of 20 kB 50,000 times": _parquet(lambda: _bomb(50_000, "a" * 20_000), compression="zstd"),
    "no columns": _parquet(lambda: pa.table({})),
    "nested columns": _parquet(lambda: pa.table({"id": [["a"], ["b"]], "label": [{"x": 1}, {"x": 2}]})),
    "bytes that are no text": _parquet(lambda: pa.table({"id": pa.array([b"\xff\xfe", b"a"], pa.binary())})),
    "text that is no UTF-8": _parquet(lambda: pa.table({"id": pa.array([b"\xff\xfe"], pa.binary()).view(pa.string())})),
    "infinite numbers": _parquet(lambda: pa.table({"id": [float("inf"), 1e300], "label": ["happy", None]})),
    "times": _parquet(lambda: pa.table({"id": pa.array([2**60, 1], pa.timestamp("ms")), "label": ["happy", "sad"]})),
    "columns twice": _parquet(lambda: pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["id", "id"])),
    "metadata of pandas that lies": _parquet(
        lambda: pa.table({"id": ["a"]}).replace_schema_metadata({"pandas": '{"index_columns": ["no-such"], "x": ['})
    ),
    "a control character": _parquet(lambda: pa.table({"id": ["a\0"], "video": ["../../x.mp4"], "label": ["\x1b"]})),
    "a csv of that name": _text(HEAD + ROW, "table.parquet"),
}

MELD = b"Utterance,Speaker,Emotion,Dialogue_ID,Utterance_ID\n"
FOLDERS = {
    "MELD with ids that are paths": ({"train_sent_emo.csv": MELD + b"hi,Joey,joy,../x,1\n"}, "train_sent_emo.csv"),
    "MELD with emotions that are none": ({"dev_sent_emo.csv": MELD + b"hi,Joey,\x1b[31m,1,1\n"}, "dev_sent_emo.csv"),
    "MELD of NULs": ({"test_sent_emo.csv": bytes(300)}, "test_sent_emo.csv"),
    "MOSI without its files": ({"text_train0.csv": b"1,2\n"}, "text_test0.csv"),
    "MOSI of one line": (
        {f"{s}_{p}0.csv": b"1," * 50_000 + b"1\n" for s in ("text", "audio", "video") for p in ("train", "test")}
        | {"text_train.csv": b"0,1\n", "text_test.csv": b"1,1\n", "transcripts.csv": b"a_1,W,1,1\na_2,W,1,1\n"},
        "0.csv",
    ),
    "MOSI of words": (
        {f"{s}_{p}0.csv": b"x,1e999,1\n" for s in ("text", "audio", "video") for p in ("train", "test")}
        | {"text_train.csv": b"\xc2\xb2,1,2\n", "text_test.csv": b"9e9,1,2\n", "transcripts.csv": b"a_1,W,1,1\n"},
        "0.csv",
    ),
    "MER2025 of links and NULs": (
        {"track1_train_disdim.csv": b"name,discrete\na\0,happy\n", "track_all_candidates.csv": b"name\nb\n"}
        | {"subtitle_chieng.csv": b"name,chinese,english\na,x,y\n"},
        "track1_train_disdim.csv",
    ),
    "MER2025 without a column": (
        {"track1_train_disdim.csv": b"nom,discrete\na,happy\n", "track_all_candidates.csv": b"name\nb\n"}
        | {"subtitle_chieng.csv": b"name,chinese,english\na,x,y\n"},
        "track1_train_disdim.csv",
    ),
    "RAVDESS of odd codes": ({"03-01-99-01-02-01-12.mp4": b"", "03-01-05-99-09-01-12.wav": b""}, "RAVDESS"),
    "a demo without its files": ({"demo.json": b"[[["}, "manifest.csv"),
    "nothing": ({}, "manifest.csv"),
}

#: Reader → what it takes → content.
OTHERS: dict[str, dict[str, bytes]] = {
    "review": {
        "nothing but the separator": b"sep=;\n",
        "a separator of NUL": b"sep=\0\nid;decision;note\n",
        "decisions that are formulas": b'id,decision,note\nclip0,=1+1,"=cmd|x"\n',
        "an id of formulas": b"id,decision,note\n'''=clip0,keep,\n",
        "no columns": b"a,b\n1,2\n",
        "doubled columns": b"id,decision,note,id\nclip0,keep,,x\n",
        "NULs": b"id,decision,note\nclip0,ke\0ep,\n",
    },
    "source": {
        "scores that are no numbers": b"id,neutral,angry,happy,sad,worried,surprise\nclip0,nan,inf,-1,1e999,0x1,1_0\n",
        "scores that overflow": b"id,neutral,angry,happy,sad,worried,surprise\nclip0" + b",1e308" * 6 + b"\n",
        "scores that are tiny": b"id,neutral,angry,happy,sad,worried,surprise\nclip0" + b",1e-320" * 6 + b"\n",
        "ids twice": b"id,label\nclip0,happy\nclip0,sad\n",
        "labels in the wrong case": b"id,label\nclip0,Happy\n",
        "no rows": b"id,label\n",
    },
    "submission": {
        "NULs": b"name,discrete\nclip0,ha\0ppy\n",
        "a name of 100,000 letters": b"name,discrete\n" + b"c" * 100_000 + b",happy\n",
        "UTF-16": "name,discrete\nclip0,happy\n".encode("utf-16"),
        "half of UTF-16": "name,discrete\nclip0,happy\n".encode("utf-16")[:-1],
        "escapes": b"name,discrete\nclip0\x1b[2J,happy\n",
        "the wrong columns": b"a\nb\n",
    },
    "candidates": {
        "NULs": b"name\nclip\0\n",
        "nothing": b"",
        "names twice": b"name\nclip0\nclip0\n",
        "no column": b"id\nclip0\n",
        "escapes": b"na\x1b[2Jme\nclip0\n",
    },
}


def inputs() -> Iterator[Hostile]:
    """All of them."""
    for what, content in TEXTS.items():
        yield Hostile(f"csv/{what}", "csv", _text(content), "check")
    for what, make in LONG.items():
        yield Hostile(f"csv/{what}", "csv-long", make, "check", slow=what != "100 MB of one line")
    for reader in OTHERS:
        yield Hostile(f"{reader}/100 MB of one line", "csv-long", LONG["100 MB of one line"], reader, slow=True)
        yield Hostile(f"{reader}/60 MB of letters", "csv-long", LONG["60 MB of single letters"], reader, slow=True)
        yield Hostile(f"{reader}/a pipe", "pipe", _pipe("table.csv"), reader)
        for what, content in OTHERS[reader].items():
            yield Hostile(f"{reader}/{what}", f"csv-{reader}", _text(content), reader)
    for what, text in TOMLS.items():
        names = "manifest.csv" if "encod" in what or "columns" in what else ""  # what cannot be read with it
        yield Hostile(f"toml/{what}", "toml", _toml(text), "check", names)
    yield from (Hostile(f"parquet/{what}", "parquet", make, "check") for what, make in PARQUETS.items())
    for what, (files, names) in FOLDERS.items():
        yield Hostile(f"folder/{what}", "folder", _folder(files), "check", "" if names == "RAVDESS" else names)
    links = {
        "out of the folder": _link("{good}/clip.mp4"),
        "to /etc/passwd": _link("/etc/passwd"),
        "to itself": _link("x.mp4"),
        "to a loop of folders": _link("..", "up", "up/up/up/nothing.mp4"),
        "to a folder outside": _link("{good}", "out", "out/clip.mp4"),
        "to a loop in front": _link("round", "round", "round/x.mp4"),
    }
    for what, make in links.items():
        yield Hostile(f"link/a clip that links {what}", "link", make, "check", "manifest.csv")
    yield Hostile("link/a manifest that links to itself", "link", _linked("m.csv", "m.csv"), "check")
    yield Hostile("link/a manifest that links to a device", "link", _linked("m.csv", "/dev/zero"), "check", "zero")
    yield Hostile("link/a manifest that links to nothing", "link", _linked("m.csv", "no-such"), "check", "no-such")
    for name in ("m.csv", "m.parquet", "m.toml", "m.npz"):
        yield Hostile(f"pipe/{name}", "pipe", _pipe(name), "check")
    many = _text(lambda: pd.DataFrame({"id": [f"c{i}" for i in range(200_000)]}).to_csv(index=False).encode())
    yield Hostile("csv/200,000 good rows", "csv", many, "check", slow=True)
