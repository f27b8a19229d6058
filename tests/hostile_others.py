"""Hostile clips, folders of clips, notebooks, reports, prompts and parameters."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
from hostile import DAMAGE, TARGETS, Hostile, as_clip, the_file

# ------------------------------------------------------------------------------------------------ clips


def _wav(
    *, channels: int = 1, rate: int = 16_000, bits: int = 16, form: int = 1, size: int | None = None, data: bytes = b""
) -> bytes:
    """A wav file whose header says what it likes."""
    data = data or bytes(3200)
    width = max(channels * bits // 8, 1)
    head = struct.pack("<HHIIHH", form, channels % 65536, rate, rate * width % 2**32, width % 65536, bits)
    size = len(data) if size is None else size
    body = b"WAVEfmt " + struct.pack("<I", len(head)) + head + b"data" + struct.pack("<I", size) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


WAVS = {
    "65,535 channels": _wav(channels=65_535),
    "no channels": _wav(channels=0),
    "a rate of 0": _wav(rate=0),
    "a rate of 4 GHz": _wav(rate=2**32 - 1),
    "a rate of 1 Hz": _wav(rate=1, data=b"\x10\x20" * 5000),
    "samples of 0 bits": _wav(bits=0),
    "samples of 255 bits": _wav(bits=255),
    "a form that is none": _wav(form=0xFFFE),
    "NaN and infinity": _wav(form=3, bits=32, data=struct.pack("<4f", float("nan"), float("inf"), -1e38, 1e38) * 800),
    "4 GB that are not there": _wav(size=2**32 - 1),
    "silence": _wav(data=bytes(32_000)),
    "one sample": _wav(data=b"\x01\x02"),
    "no samples": b"RIFF\x24\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x80>\x00\x00\x00}\x00\x00\x02\x00\x10"
    b"\x00data\x00\x00\x00\x00",
    "an hour and a half of nothing": _wav(rate=8000, bits=8, data=bytes(8000 * 5400)),
    "200 MB of one second": _wav(channels=2, rate=2**31 - 1, data=bytes(2**20)),
}
TEXT_FILES = {
    "a playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "a list of files": b"ffconcat version 1.0\nfile /etc/passwd\nfile /dev/zero\n",
    "a description of a stream": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nt=0 0\nm=video 9 RTP/AVP 96\n",
    "subtitles": b"1\n00:00:00,000 --> 99:59:59,999\n<script>\n",
    "an svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="99999" height="99999"><image href="/etc/passwd"/></svg>',
    "a page": b"<html>login</html>" * 100,
    "escapes": b"\x1b[2J\x1b]0;x\x07" * 100,
    "one long line": b"x" * 5_000_000,
}


def _boxes(change: Callable[[bytes], bytes]):
    """The demo clip with its bytes changed."""

    def make(folder: Path, good: Path) -> Path:
        return as_clip("clip.mp4")(folder, good, change((good / "clip.mp4").read_bytes()))

    return make


def _box(kind: bytes, at: int, value: bytes) -> Callable[[bytes], bytes]:
    """Bytes put so far behind the name of each box of a kind."""

    def change(raw: bytes) -> bytes:
        out, place = bytearray(raw), raw.find(kind)
        while place >= 0:
            out[place + at : place + at + len(value)] = value
            place = raw.find(kind, place + 4)
        return bytes(out[: len(raw)])

    return change


MAX, HALF = b"\xff" * 4, b"\x7f\xff\xff\xff"
BOXES = {
    "a moov of 4 GB": _box(b"moov", -4, MAX),
    "a moov of nothing": _box(b"moov", -4, bytes(4)),
    "an mdat of 4 GB": _box(b"mdat", -4, MAX),
    "2 billion samples": _box(b"stsz", 8, b"\0\0\0\1" + HALF),
    "4 billion sizes": _box(b"stsz", 12, MAX),
    "2 billion time stamps": _box(b"stts", 8, HALF),
    "a time stamp for ever": _box(b"stts", 12, HALF + HALF),
    "time stamps that stand still": _box(b"stts", 16, bytes(4)),
    "2 billion chunks": _box(b"stsc", 8, HALF),
    "chunks beyond the end": _box(b"stco", 12, MAX),
    "a time scale of 0": _box(b"mdhd", 16, bytes(4)),
    "a time scale of 4 billion": _box(b"mdhd", 16, MAX),
    "a picture of 65,535 squared": _box(b"avc1", 28, MAX),
    "a picture of nothing": _box(b"avc1", 28, bytes(4)),
    "a matrix of rubbish": _box(b"tkhd", 44, b"\x9c" * 36),
    "a codec that is none": lambda raw: raw.replace(b"avc1", b"evil").replace(b"mp4a", b"evil"),
    "a reference to another file": lambda raw: raw.replace(b"url \0\0\0\1", b"url \0\0\0\0"),
    "parameters of rubbish": _box(b"avcC", 8, b"\xff" * 24),
    "100 moovs": lambda raw: raw + b"\0\0\0\x10moov\0\0\0\x08udta" * 100,
    "boxes in boxes": lambda raw: (
        b"".join(struct.pack(">I4s", 8 * (2000 - i), b"moov") for i in range(2000)) + raw[:1000]
    ),
}


def _every_clip(folder: Path, good: Path) -> Path:
    """All damaged mp4, wav and flac files in one corpus."""
    import random

    rows = ["id,video,audio,label"]
    for target in TARGETS[:3]:
        raw = the_file(good, target.file).read_bytes()
        for damage in DAMAGE:
            name = f"{target.kind}-{damage.__name__}.{target.kind}"
            (folder / name).write_bytes(damage(raw, random.Random(name)))
            rows.append(f"{name.split('.')[0]},{name},,happy" if target.kind == "mp4" else f"{name},,{name},happy")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


# ------------------------------------------------------------------------------------------------ folders of clips


def _folder(fill: Callable[[Path, Path], object]):
    def make(folder: Path, good: Path) -> Path:
        (folder / "clips").mkdir()
        shutil.copy(good / "clip.wav", folder / "clips" / "good.wav")
        fill(folder / "clips", good)
        return folder / "clips"

    return make


FOLDERS: dict[str, Callable[[Path, Path], object]] = {
    "a pipe": lambda folder, good: os.mkfifo(folder / "x.mp4"),
    "a link out": lambda folder, good: os.symlink(good / "clip.mp4", folder / "x.mp4"),
    "a link to itself": lambda folder, good: os.symlink("x.mp4", folder / "x.mp4"),
    "a link to a device": lambda folder, good: os.symlink("/dev/zero", folder / "x.wav"),
    "a folder that is its own": lambda folder, good: os.symlink("..", folder / "up"),
    "names of control characters": lambda folder, good: (folder / "a\x1b[2J\n.mp4").write_bytes(b"x"),
    "a name that is no UTF-8": lambda folder, good: (folder / os.fsdecode(b"\xff\xfe.mp4")).write_bytes(b"x"),
    "right to left": lambda folder, good: (folder / "a\u202e4pm.mp4").write_bytes(b"x"),
    "a name of markup": lambda folder, good: (folder / "<img src=x onerror=alert(1)>.mp4").write_bytes(b"x"),
    "a name that is a formula": lambda folder, good: (folder / "=cmd|' c'!A0.mp4").write_bytes(b"x"),
    "a name of 250 letters": lambda folder, good: (folder / ("a" * 246 + ".mp4")).write_bytes(b"x"),
    "100 folders deep": lambda folder, good: (folder / ("x/" * 100)).mkdir(parents=True),
    "words that are a pipe": lambda folder, good: os.mkfifo(folder / "good.txt"),
    "words of 100 MB": lambda folder, good: (folder / "good.txt").write_bytes(b"x" * 10**8),
    "words that are no text": lambda folder, good: (folder / "good.txt").write_bytes(bytes(500)),
    "words that link out": lambda folder, good: os.symlink("/etc/passwd", folder / "good.txt"),
    "transcripts that are a pipe": lambda folder, good: os.mkfifo(folder / "transcripts.csv"),
    "transcripts that link to themselves": lambda folder, good: os.symlink(
        "transcripts.csv", folder / "transcripts.csv"
    ),
    "transcripts of others": lambda folder, good: (folder / "transcripts.csv").write_text(
        "id,transcript\n../../x,a\nb\0,c\n"
    ),
}


# ------------------------------------------------------------------------------------------------ notebooks, reports


def _notebook(change: Callable[[dict], object] | bytes):
    """The notebook with its JSON changed, or other bytes in its place."""

    def make(folder: Path, good: Path) -> Path:
        path = folder / "00_start_here.ipynb"
        if isinstance(change, bytes):
            path.write_bytes(change)
            return path
        told = json.loads((good / "notebook.ipynb").read_text())
        path.write_text(json.dumps(change(told) or told))
        return path

    return make


def _code(source: object) -> Callable[[dict], None]:
    return lambda told: told["cells"][2].update(source=source)


NOTEBOOKS: dict[str, Callable[[dict], object] | bytes] = {
    "nested deeply": b"[" * 200_000,
    "a list": b"[]",
    "a number": b"5",
    "of NULs": bytes(500),
    "of a version to come": lambda told: told | {"nbformat": 99},
    "of version 3": lambda told: told | {"nbformat": 3},
    "without a version": lambda told: told.pop("nbformat") and None,
    "without cells": lambda told: told.pop("cells") and None,
    "cells that are a text": lambda told: told | {"cells": "x"},
    "a cell that is a number": lambda told: told | {"cells": [5]},
    "a cell of an unknown kind": lambda told: told["cells"][2].update(cell_type="evil"),
    "a cell without metadata": lambda told: told["cells"][2].pop("metadata") and None,
    "a source that is a number": _code(5),
    "metadata that is a list": lambda told: told | {"metadata": []},
}
EXECUTED: dict[str, Callable[[dict], object] | bytes] = {
    "a cell that is no Python": _code("def ("),
    "a NUL in a cell": _code("print('a\0b')"),
    "brackets in a cell": _code("(" * 5000),
    "a cell that ends its kernel": _code("import os; os._exit(3)"),
    "a cell that prints escapes": _code("print('\\x1b[2J<script>alert(1)</script>' * 100)"),
    "a cell of half a character": _code("print('\\ud800')"),
}


def _pipe_notebook(folder: Path, good: Path) -> Path:
    os.mkfifo(folder / "00_start_here.ipynb")
    return folder / "00_start_here.ipynb"


def _report(headline: object):
    """A report's folder with a page and this as its headline."""

    def make(folder: Path, good: Path) -> Path:
        tables = folder / "run" / "tables" / "00_start_here"
        tables.mkdir(parents=True)
        (folder / "SECRET.png").write_bytes(b"SECRET")
        (folder / "run" / "00_start_here.html").write_text("<p>page</p>")
        if callable(headline):
            headline(tables / "headline.json")
        else:
            content = headline if isinstance(headline, bytes) else json.dumps(headline).encode()
            (tables / "headline.json").write_bytes(content)
        return folder / "run"

    return make


REPORTS: dict[str, object] = {
    "half a headline": b'{"title": "x", "fig',
    "a headline nested deeply": b"[" * 200_000,
    "a headline that is a list": [1],
    "a headline of numbers": {"title": 5, "figures": 7, "provenance": 9, "thumbnail": 3},
    "a headline of NULs": bytes(100),
    "a headline that is no UTF-8": b'{"title": "\xff"}',
    "a headline of scripts": {
        "title": "<script>alert(1)</script>",
        "figures": {"<script>": "<script>"},
        "provenance": {"<script>": "<script>"},
    },
    "a picture that climbs": {"title": "x", "thumbnail": "../../../SECRET.png"},
    "a picture that is absolute": {"title": "x", "thumbnail": "/etc/passwd"},
    "a headline that is a pipe": os.mkfifo,
    "a headline that links to a device": lambda path: os.symlink("/dev/zero", path),
}


# ------------------------------------------------------------------------------------------------ prompts, parameters


def _file(name: str, content: bytes):
    def make(folder: Path, good: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


PROMPTS = {
    "nothing": b"",
    "no UTF-8": b"## Instructions\n\xff\xfe\n## Repair\n{problem}\n",
    "no repair": b"## Instructions\nx\n",
    "a repair without its place": b"## Instructions\nx\n## Repair\ny\n",
    "100 MB": b"x" * 10**8,
    "NULs": bytes(1000),
}
GIVEN: dict[str, object] = {
    "a number of 5,000 digits": {"seed": 10**4000},
    "NaN": {"hidden": float("nan"), "rates": [float("inf")]},
    "names that are none": {"__class__": 1, "seed; import os": 2},
    "lists for numbers": {"seed": [[[[1]]]], "folds": {}, "epochs": None},
    "texts for numbers": {"seed": "0x10", "folds": "4"},
    "numbers beyond": {"seed": -1, "folds": 10**9, "workers": 10**9, "frames": 10**9},
    "a corpus of NULs": {"corpus": "\0", "output": "\0" * 5000, "device": "cuda:\n0"},
    "a word of a million letters": {"profile": "a" * 10**6, "seed": "b" * 10**6},
    "surrogates": {"corpus": "\ud800", "profile": "\udfff", "seed": "\ud800"},
}
OPTIONS: dict[str, dict[str, list[str]]] = {
    "digits of other scripts": {"set": ["seed=²", "folds=٤", "epochs=--5", "seeds=১"]},
    "5,000 digits": {"set": ["seed=" + "9" * 5000]},
    "lists that never close": {"set": ['streams="face,audio']},
    "lists of lines": {"set": ["streams=face\naudio,x"]},
    "lists of returns": {"set": ["streams=face\raudio"]},
    "lists of NULs": {"set": ["streams=a\0b"]},
    "a cell of 200,000 letters": {"set": ["streams=" + "a" * 200_000]},
    "no name": {"set": ["=5"]},
    "no value": {"set": ["seed="]},
    "numbers that are none": {"set": ["hidden=nan", "rates=inf,1e999,-0"]},
    "an encoder of signs": {"encoder": ["=", ":", "a=b:c"]},
    "an encoder of nothing": {"encoder": ["audio=:"]},
    "a model of signs": {"llm": ["=x"]},
    "a folder of nobody": {"llm": ["folder=~nobody-here/x"]},
    "a folder of 5,000 letters": {"llm": ["folder=" + "x" * 5000]},
    "a folder of NULs": {"llm": ["folder=a\0b"]},
}


def inputs() -> Iterator[Hostile]:
    """All of them."""
    for what, content in WAVS.items():
        make = lambda folder, good, content=content: as_clip("clip.wav")(folder, good, content)  # noqa: E731
        yield Hostile(f"wav/{what}", "wav", make, "clip", "clip.wav", slow=len(content) > 10**6)
    for what, content in TEXT_FILES.items():
        for name in ("clip.mp4", "clip.wav"):
            make = lambda folder, good, content=content, name=name: as_clip(name)(folder, good, content)  # noqa: E731
            yield Hostile(f"{name[-3:]}/{what}", f"text-{name[-3:]}", make, "clip", name)
    for what, change in BOXES.items():
        yield Hostile(f"mp4/{what}", "mp4", _boxes(change), "clip", "clip.mp4")
    yield Hostile("clips/all damaged ones, with workers", "clips", _every_clip, "clips", slow=True)
    for what, fill in FOLDERS.items():
        names = "transcripts.csv" if "transcripts" in what else ""
        yield Hostile(f"files/{what}", "files", _folder(fill), "files", names)
    for what, change in NOTEBOOKS.items():
        yield Hostile(f"ipynb/{what}", "ipynb", _notebook(change), "notebook", "00_start_here")
    yield Hostile("ipynb/a pipe", "ipynb", _pipe_notebook, "notebook", "00_start_here")
    for what, change in EXECUTED.items():
        yield Hostile(f"ipynb/{what}", "ipynb-run", _notebook(change), "notebook", "00_start_here", slow=True)
    yield from (Hostile(f"report/{what}", "report", _report(told), "report_folder") for what, told in REPORTS.items())
    yield from (Hostile(f"prompt/{w}", "prompt", _file("v1.en.md", text), "prompt") for w, text in PROMPTS.items())
    for what, given in GIVEN.items():
        text = json.dumps({"given": given}).encode()
        yield Hostile(f"parameters/{what}", "parameters", _file("p.json", text), "parameters", "bad parameter")
    for what, options in OPTIONS.items():
        text, names = json.dumps(options).encode(), f"--{next(iter(options))}|bad parameter|no such file"
        yield Hostile(f"options/{what}", "parameters", _file("p.json", text), "parameters", names)


assert nbformat.current_nbformat == 4  # else "of a version to come" has come
