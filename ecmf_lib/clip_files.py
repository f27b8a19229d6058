"""Any media files as a small corpus: ids made of file names, words from a csv or from a text file beside each clip."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ecmf_lib.adapters import AUDIO_SUFFIXES, HIDDEN, VIDEO_SUFFIXES
from ecmf_lib.corpus import Corpus, CorpusError, decode_text, inside, make_corpus, read_csv, wrongly_encoded
from ecmf_lib.pages import spelt_out

SUFFIXES = (*VIDEO_SUFFIXES, *AUDIO_SUFFIXES)
_MOST_WORDS = 2**20  # bytes of a text file; a transcript of one utterance is not longer


@dataclass(frozen=True)
class ClipFiles:
    """Media files that are to be predicted.

    Attributes
    ----------
    corpus : Corpus or None
        Those that can be clips; None without any.
    files : dict of str to str
        Id → path below the folder.
    failed : DataFrame
        file, reason: those that cannot.
    notes : dict of str to str
        Id → what a reader of the prediction has to know, for instance that its text file could not be read.
    """

    corpus: Corpus | None
    files: dict[str, str]
    failed: pd.DataFrame
    notes: dict[str, str]


def clip_files(path: Path, transcripts: Path | None = None) -> ClipFiles:
    """One media file, or all media files below a folder.

    Parameters
    ----------
    path : Path
    transcripts : Path, optional
        A csv with ``id,transcript`` (and ``language``, if known); an id is a clip's file name, its path below the
        folder, or either without its ending. Clips that it does not name, or all without it, get the words of a
        ``.txt`` file of the same name beside them, if there is one.

    Raises
    ------
    CorpusError
        No such file or folder, no media in it, or a csv that cannot be used. A single bad file raises nothing.
    """
    path = Path(path).absolute()
    if not path.exists():
        raise CorpusError(f"{path}: no such file or folder; give a media file, or a folder with such")
    root, found = (path, sorted(_below(path))) if path.is_dir() else (path.parent, [path])
    if not found or (path.is_file() and path.suffix.lower() not in SUFFIXES):
        raise CorpusError(f"{path}: no media file; expected {', '.join(SUFFIXES)}")
    words = {} if transcripts is None else _said(Path(transcripts))
    rows, files, failed, notes, used, taken, resolved = [], {}, [], {}, set(), set(), {}
    for file in found:
        name = file.relative_to(root).as_posix()
        if reason := _unusable(root, file, name, resolved):
            failed.append((spelt_out(name), reason))
            continue
        clip = _id_of(name, taken)
        files[clip] = name
        key = next((key for key in _keys(name) if key in words), None)
        used.add(key)
        text, language, note = _beside(root, file) if key is None else (*words[key], "")
        problem = wrongly_encoded(text)
        if note or problem or (text and not text.strip()):
            notes[clip] = note or f"its words are not used: {problem or 'only blanks'}"
            text = ""
        video = file.suffix.lower() in VIDEO_SUFFIXES
        media = {"video": name if video else "", "audio": "" if video else name}
        rows.append({"id": clip, **media, "transcript": text, "language": language})
    unknown = [key for key in words if key not in used]
    if unknown:
        shown = ", ".join(map(repr, unknown[:5])) + (", …" if len(unknown) > 5 else "")
        raise CorpusError(f"{transcripts}: {len(unknown)} id(s) that no media file in {root} has: {shown}")
    corpus = None
    if rows:
        name = "predict-" + (re.sub(r"[^\w-]+", "_", root.name, flags=re.ASCII).strip("_")[:100] or "clips")
        corpus = make_corpus(name, root, pd.DataFrame(rows), missing_files="record")
    return ClipFiles(corpus, files, pd.DataFrame(failed, columns=["file", "reason"], dtype=str), notes)


def _below(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.suffix.lower() in SUFFIXES and not path.is_dir():
            yield path


def _unusable(root: Path, file: Path, name: str, resolved: dict) -> str:
    """Why a file cannot be a clip; empty if it can."""
    if any(part.startswith(".") for part in Path(name).parts):
        return HIDDEN
    if spelt_out(name) != name:
        return "its name holds control characters or is no UTF-8; rename the file"
    if not inside(root, name, resolved):
        return "a link out of the folder, or a name that another system takes for a path; copy or rename the file"
    return "" if file.is_file() else "not a file that can be read"


def _id_of(name: str, taken: set[str]) -> str:
    """An id of the file's name that is safe on every system; numbered where another file has it."""
    plain = re.sub(r"[^\w.-]+", "_", Path(name).stem).strip("._")[:100] or "clip"
    clip, number = plain, 2
    while clip.lower() in taken:  # lower: one file on some systems
        clip, number = f"{plain}-{number}", number + 1
    taken.add(clip.lower())
    return clip


def _keys(name: str) -> list[str]:
    """What a csv may call a file, the most exact first."""
    path = Path(name)
    return [name, path.with_suffix("").as_posix(), path.name, path.stem]


def _said(path: Path) -> dict[str, tuple[str, str]]:
    """Id → transcript and language."""
    table = read_csv(path)
    absent = [name for name in ("id", "transcript") if name not in table.columns]
    if absent:
        raise CorpusError(f"{path}: no column {', '.join(absent)}; expected id,transcript, found {list(table.columns)}")
    twice = table.index[table["id"].duplicated()]
    if len(twice):
        raise CorpusError(f"{path}: row {twice[0] + 2}: id {table['id'][twice[0]]!r} stands there more than once")
    language = table["language"] if "language" in table.columns else [""] * len(table)
    return dict(zip(table["id"], zip(table["transcript"], language, strict=True), strict=True))


def _beside(root: Path, file: Path) -> tuple[str, str, str]:
    """Words, language and a note, from the text file of the same name."""
    text = file.with_suffix(".txt")
    if not text.is_file():
        return "", "", ""
    try:
        if not inside(root, text.relative_to(root).as_posix()) or text.stat().st_size > _MOST_WORDS:
            return "", "", f"{text.name} is not used: a link out of the folder, or larger than 1 MiB"
        return " ".join(decode_text(text.read_bytes(), Path(text.name)).split()), "", ""
    except (OSError, CorpusError) as error:
        return "", "", f"{text.name} is not used: {error}"
