"""What is no file, has no end or cannot be a table is known before it is read."""

import os

import pytest

from ecmf_lib import bounded
from ecmf_lib.bounded import UnfitError, check_file, parse_json, read_bytes, read_json, read_lines


def test_a_file_is_read_and_its_size_told(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"some\r\nlines\n")
    assert check_file(path) == 12
    assert read_bytes(path) == read_lines(path) == b"some\r\nlines\n"


def test_what_is_no_file_is_refused_with_its_name_and_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, why in ((tmp_path / "pipe", "pipe"), ("/dev/zero", "device"), (tmp_path / "a\0b", "no name")):
        for read in (read_bytes, read_lines, read_json):
            with pytest.raises(UnfitError, match=why) as refused:
                read(path)
            assert refused.value.filename == str(path) and why in refused.value.strerror
    with pytest.raises(IsADirectoryError):
        read_bytes(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_lines(tmp_path / "none")


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "sparse.json"
    with open(path, "wb") as file:
        file.truncate(2**40)  # a TB of nothing, which takes no room
    with pytest.raises(UnfitError, match="1,099,511,627,776 bytes"):
        read_json(path)


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_the_longest_line_counts_wherever_it_stands(tmp_path, monkeypatch, end):
    monkeypatch.setattr(bounded, "LONGEST_LINE", 100)
    monkeypatch.setattr(bounded, "_BLOCK", 64)
    path = tmp_path / "a.csv"
    for lengths in ((100, 3), (3, 100), (10, 100, 10, 100)):
        path.write_bytes(end.join(b"x" * n for n in lengths))
        assert len(read_lines(path)) == sum(lengths) + len(end) * (len(lengths) - 1)
    for lengths in ((300,), (5, 5, 300), (5, 300, 5)):
        path.write_bytes(end.join(b"x" * n for n in lengths))
        with pytest.raises(UnfitError, match="is longer than"):
            read_lines(path)


def test_millions_of_empty_lines_are_no_table_but_millions_of_rows_are(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded, "_LINES", 1000)
    path = tmp_path / "a.csv"
    path.write_bytes(b"clip_00000001\n" * 5000)
    assert read_lines(path)
    for empty in (b"\n", b"\r", b"x\n"):
        path.write_bytes(empty * 5000)
        with pytest.raises(UnfitError, match="lines of 8 bytes or less"):
            read_lines(path)


def test_json_that_is_nested_too_deeply_is_no_json():
    assert parse_json(b'{"a": [1]}') == {"a": [1]}
    for text in ("[" * 100_000, '{"a":' * 100_000, "", b"\xff\xfe", "9" * 5000):
        with pytest.raises(ValueError):
            parse_json(text)
