"""The files of a whole manifest are checked as each alone would be."""

import os

import pandas as pd
import pytest

from ecmf_lib.corpus_files import file_problems, inside

NAMES = (
    "a.mp4|video/a.mp4|video/b.mp4||video/none.mp4|none/a.mp4|none.mp4|video|video/|.|"
    "../secret.mp4|video/../a.mp4|..|/etc/passwd|C:\\a.mp4|C:a|video\\a.mp4|//a/b/c|a\0b|"
    "video//a.mp4|./a.mp4|video/./a.mp4|video/.|link.mp4|near.mp4|away/secret.mp4|close/a.mp4|"
    "video/broken.mp4|video/two\nlines.mp4|video/a.mp4/x|video/…|a..mp4|..a"
).split("|")


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "corpus"
    (root / "video").mkdir(parents=True)
    for name in ("a.mp4", "video/a.mp4", "video/b.mp4", "video/two\nlines.mp4", "a..mp4", "../secret.mp4"):
        (root / name).write_bytes(b"x")
    (root / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (root / "near.mp4").symlink_to(root / "video/a.mp4")
    (root / "away").symlink_to(tmp_path)
    (root / "close").symlink_to(root / "video")
    (root / "video/broken.mp4").symlink_to(root / "nowhere")
    return root


def alone(name, root, missing) -> str:
    """What there is to say of one name."""
    if name and not inside(root, name):
        return "leaves the corpus folder"
    return "no file" if name and missing and not (root / name).is_file() else ""


@pytest.mark.parametrize("missing", [True, False])
@pytest.mark.parametrize("times", [1, 60])  # few names in a folder are asked for, many looked up in a list of it
def test_as_each_name_alone(folder, missing, times):
    names = pd.Series(NAMES * times, dtype="str")
    found = file_problems(names, folder, missing=missing)
    expected = [(i, said) for i, name in enumerate(names) if (said := alone(name, folder, missing))]
    assert [place for place, _ in found] == [place for place, _ in expected]
    assert all(said in problem for (_, problem), (_, said) in zip(found, expected, strict=True))
    assert all(repr(names[place])[1:-1] in problem or names[place] in problem for place, problem in found)


def test_a_folder_is_listed_once(folder, monkeypatch):
    for n in range(100):
        (folder / "video" / f"{n}.mp4").write_bytes(b"x")
    asked = []
    monkeypatch.setattr(os.path, "isfile", lambda path: asked.append(path))
    monkeypatch.setattr(os.path, "islink", lambda path: asked.append(path))
    assert file_problems(pd.Series([f"video/{n}.mp4" for n in range(100)], dtype="str"), folder, missing=True) == []
    assert asked == []


def test_no_names(folder):
    assert file_problems(pd.Series([], dtype="str"), folder, missing=True) == []
    assert file_problems(pd.Series(["", ""], dtype="str"), folder, missing=True) == []
