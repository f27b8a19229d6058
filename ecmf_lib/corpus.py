"""The manifest of a corpus: one row a clip, checked on load.

Columns: ``id, video, audio, transcript, language, label, split, speaker`` and any number of ``annotator_*``.
``video`` and ``audio`` are paths relative to the corpus folder, with ``/``; an empty ``audio`` means that the sound is
inside the video. ``speaker`` is the group that folds hold apart. What reads a dataset's own files into this form is
in :mod:`ecmf_lib.adapters`.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath

import pandas as pd
import pandera.pandas as pa

from ecmf_lib.config import EMOTIONS

COLUMNS = ("id", "video", "audio", "transcript", "language", "label", "split", "speaker")
SPLITS = ("labelled", "unlabelled", "test")
ANNOTATOR = re.compile(r"annotator_\w+")
#: How many problems a message spells out; all of them are in ``CorpusError.problems``.
SHOWN = 30


class CorpusError(ValueError):
    """A manifest or csv that cannot be used.

    Attributes
    ----------
    problems : DataFrame
        All of them, with columns ``row`` (line of the csv as a spreadsheet counts it, the header is row 1), ``id``,
        ``column``, ``problem``. Empty when the file could not be read at all.
    """

    def __init__(self, message: str, problems: pd.DataFrame | None = None):
        super().__init__(message)
        self.problems = pd.DataFrame(columns=["row", "id", "column", "problem"]) if problems is None else problems


@dataclass(frozen=True)
class Clip:
    """One row of a manifest with paths that are absolute and known to lie in the corpus folder."""

    id: str
    video: Path | None  # None when the clip has no picture
    audio: Path | None  # None when the sound is inside the video, or there is none
    transcript: str
    language: str
    label: str | None  # None when not labelled
    split: str  # one of SPLITS
    speaker: str  # "" when nobody knows

    @property
    def needs_files(self) -> bool:
        """Whether there is a file to decode; a corpus of imported features has none."""
        return self.video is not None or self.audio is not None


@dataclass(frozen=True)
class FeatureTable:
    """Where the ready-made features of one stream lie: a 2-D array in an npz file, one row a clip."""

    path: Path
    array: str
    stream: str


@dataclass(frozen=True)
class Corpus:
    """A checked manifest.

    Parameters
    ----------
    name : str
        Short name, used for folders and reports.
    root : Path
        The corpus folder. No path of the manifest leaves it.
    clips : DataFrame
        One row a clip, the columns of :data:`COLUMNS` and the annotators', all str.
    classes : tuple of str
        Label names in index order.
    left_out : DataFrame
        ``id, reason``: what the adapter saw and did not take, so that counts in equal counts out.
    notes : tuple of str
        What a reader of the scores has to know about this corpus.
    licence : str
        Of the data.
    features : tuple of FeatureTable
        Ready-made features to import, for a corpus without clips.
    """

    name: str
    root: Path
    clips: pd.DataFrame
    classes: tuple[str, ...] = EMOTIONS
    left_out: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["id", "reason"], dtype=str))
    notes: tuple[str, ...] = ()
    licence: str = "not stated"
    features: tuple[FeatureTable, ...] = ()

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[Clip]:
        for row in self.clips.itertuples(index=False):
            yield self._clip(row)

    def clip(self, clip_id: str) -> Clip:
        """The clip with this id; KeyError if there is none."""
        rows = self.clips[self.clips["id"] == clip_id]
        if rows.empty:
            raise KeyError(
                f"corpus '{self.name}' has no clip '{clip_id}'; its ids look like '{self.clips['id'].iloc[0]}'"
            )
        return self._clip(next(rows.itertuples(index=False)))

    def select(self, ids: Iterable[str]) -> Corpus:
        """The same corpus with only these clips, in manifest order."""
        wanted = set(ids)
        return replace(self, clips=self.clips[self.clips["id"].isin(wanted)].reset_index(drop=True))

    @property
    def annotators(self) -> list[str]:
        """Names of the annotator columns."""
        return [name for name in self.clips.columns if ANNOTATOR.fullmatch(name)]

    @property
    def fingerprint(self) -> str:
        """16 hex digits of the manifest and the classes. The media's own content is in the ledger's digests."""
        text = self.clips.to_csv(index=False, lineterminator="\n") + "|".join(self.classes)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def groups(self, ids: Iterable[str] | None = None) -> tuple[list[str], str]:
        """What folds hold apart for each clip, and its name.

        Speakers, where they are known. A clip whose speaker nobody knows is a group of its own. With a single
        speaker the ``take`` column is used if the adapter gave one (several files of one performance), else the clip.

        Parameters
        ----------
        ids : iterable of str, optional
            Only these clips, in this order; default all, in manifest order.

        Returns
        -------
        groups : list of str
            One for each clip.
        unit : str
            ``"speaker"``, ``"take"`` or ``"clip"``. With the last two, scores say nothing about new people.
        """
        clips = self.clips if ids is None else self.clips.set_index("id", drop=False).loc[list(ids)]
        speakers = clips["speaker"]
        if speakers[speakers != ""].nunique() >= 2:
            return speakers.where(speakers != "", "clip:" + clips["id"]).tolist(), "speaker"
        if "take" in clips.columns:
            return clips["take"].tolist(), "take"
        return clips["id"].tolist(), "clip"

    def _clip(self, row) -> Clip:
        def path(name: str) -> Path | None:
            return self.root / name if name else None

        return Clip(
            id=row.id,
            video=path(row.video),
            audio=path(row.audio),
            transcript=row.transcript,
            language=row.language,
            label=row.label or None,
            split=row.split,
            speaker=row.speaker,
        )


def make_corpus(
    name: str,
    root: Path,
    clips: pd.DataFrame,
    *,
    classes: tuple[str, ...] = EMOTIONS,
    rows: Iterable[int] | None = None,
    missing_files: str = "refuse",
    **described,
) -> Corpus:
    """Check a manifest and wrap it.

    Parameters
    ----------
    clips : DataFrame
        The columns of :data:`COLUMNS` (optional ones may be missing), all str.
    rows : iterable of int, optional
        Line of each clip in the file that people edit; default: header is row 1.
    missing_files : {"refuse", "record"}
        ``"record"`` leaves a file that is not there to the extraction, whose ledger gives the reason. For
        corpora of a hundred thousand clips of which a user may hold a part.
    **described
        ``left_out``, ``notes``, ``licence``, ``features`` of :class:`Corpus`.

    Raises
    ------
    CorpusError
        With every problem of the manifest and its row.
    """
    clips = _complete(clips)
    lines = list(rows) if rows is not None else list(range(2, len(clips) + 2))
    found = _column_problems(clips, classes) + _split_problems(clips)
    found += _path_problems(clips, Path(root), missing_files) + _text_problems(clips)
    if found:
        raise _refusal(f"manifest of corpus '{name}' in {root}", found, clips, lines)
    return Corpus(name=name, root=Path(root), clips=clips, classes=tuple(classes), **described)


def _complete(clips: pd.DataFrame) -> pd.DataFrame:
    """Same columns in the same order for every corpus, str everywhere, missing values empty."""
    clips = clips.copy()
    for column in COLUMNS:
        if column not in clips.columns and column != "id":
            clips[column] = _default(clips, column)
    extra = [c for c in clips.columns if ANNOTATOR.fullmatch(c)] + [c for c in ("take",) if c in clips.columns]
    present = [c for c in COLUMNS if c in clips.columns]
    return clips[[*present, *extra]].fillna("").astype(str).reset_index(drop=True)


def _default(clips: pd.DataFrame, column: str):
    if column != "split":
        return ""
    labels = clips["label"] if "label" in clips.columns else pd.Series("", index=clips.index)
    return labels.fillna("").map(lambda label: "labelled" if label else "unlabelled")


_Found = tuple[int, str, str]  # index of the clip (-1: the whole manifest), column, problem


def _column_problems(clips: pd.DataFrame, classes: tuple[str, ...]) -> list[_Found]:
    """What can be said of one column by itself, by a pandera schema."""
    label = pa.Check.isin([*classes, ""], error="label")
    schema = pa.DataFrameSchema(
        {
            "id": pa.Column(
                str,
                [pa.Check(lambda s: s.map(_safe_id), error="unsafe")],
                unique=True,
                report_duplicates="exclude_first",
            ),
            "label": pa.Column(str, label),
            "split": pa.Column(str, pa.Check.isin(SPLITS, error="split")),
            "annotator_.*": pa.Column(str, label, regex=True, required=False),
        }
    )
    try:
        schema.validate(clips, lazy=True)
    except pa.errors.SchemaErrors as error:
        cases = error.failure_cases
        return [
            (-1 if pd.isna(case.index) else int(case.index), str(case.column or case.failure_case), _say(case, classes))
            for case in cases.itertuples(index=False)
        ]
    return []


def _split_problems(clips: pd.DataFrame) -> list[_Found]:
    unlabelled = clips.index[(clips["split"] == "labelled") & (clips["label"] == "")]
    return [(i, "label", "split says 'labelled' but there is no label; use 'unlabelled' or 'test'") for i in unlabelled]


def _say(case, classes: tuple[str, ...]) -> str:
    value = case.failure_case
    if case.check == "column_in_dataframe":
        return "the manifest has no such column"
    if "label" in str(case.check):
        near = difflib.get_close_matches(str(value).strip().lower(), classes, n=1)
        return f"unknown label '{value}'; " + (
            f"did you mean '{near[0]}'?" if near else f"classes are {', '.join(classes)}"
        )
    if "split" in str(case.check):
        return f"unknown split '{value}'; use one of {', '.join(SPLITS)}"
    if "unsafe" in str(case.check):
        return (
            f"unusable id {value!r}: ids name files, so no / \\ or control characters, no leading dot, 1-150 characters"
        )
    return f"duplicate id '{value}'"


def _safe_id(name: str) -> bool:
    good = all(unicodedata.category(c)[0] != "C" and c not in '/\\:*?"<>|' for c in name)
    return good and 0 < len(name) <= 150 and not name.startswith((".", " ")) and not name.endswith((".", " "))


def inside(root: Path, name: str) -> bool:
    """Whether ``root/name`` stays in ``root``: relative, no ``..``, no link that leads out."""
    for flavour in (PurePosixPath(name), PureWindowsPath(name)):
        if flavour.is_absolute() or flavour.drive or ".." in flavour.parts or "\0" in name:
            return False
    path = root / name
    target = path.resolve() if path.is_symlink() else _resolved(path.parent)  # a folder is resolved once, not per clip
    return target.is_relative_to(_resolved(root))


@lru_cache(maxsize=4096)
def _resolved(folder: Path) -> Path:
    return folder.resolve()


def _path_problems(clips: pd.DataFrame, root: Path, missing_files: str) -> list[_Found]:
    found = []
    for column in ("video", "audio"):
        for index, name in clips[column].items():
            if name == "":
                continue
            if not inside(root, name):
                mend = "write it relative to that folder, without '..', and copy what a link points to into it"
                found.append((index, column, f"path {name!r} leaves the corpus folder; {mend}"))
            elif missing_files == "refuse" and not (root / name).is_file():
                found.append((index, column, f"no file '{name}' in {root}; add it or remove the row"))
    return found


def _text_problems(clips: pd.DataFrame) -> list[_Found]:
    found = []
    for index, text in clips["transcript"].items():
        if text != "" and text.strip() == "":
            found.append(
                (index, "transcript", "empty text (only blanks); leave the cell empty if there is no transcript")
            )
        problem = wrongly_encoded(text)
        if problem:
            found.append((index, "transcript", problem))
    return found


#: No text has these.  UTF-8 read as cp1252 leaves the pairs below: "Ã©" for é, "â€™" for ’.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_MOJIBAKE = re.compile("[ÃÂ][\u0080-\u00bf]|â€[\u2018-\u2122\u0080-\u009f\u0153\u0161\u02c6\u02dc]|ï»¿")


def wrongly_encoded(text: str) -> str:
    """Why a text cannot have been decoded with the right encoding; empty if nothing points to that."""
    reason = ""
    if "\ufffd" in text:
        reason = "it holds the replacement character U+FFFD"
    elif pair := _MOJIBAKE.search(text):
        reason = f"{pair.group()!r} is UTF-8 that was read as cp1252"
    elif odd := _CONTROL.search(text):
        reason = f"it holds the control character U+{ord(odd.group()):04X}"
    return f"wrongly encoded text: {reason}; save the file again as UTF-8" if reason else ""


def _refusal(what: str, found: list[_Found], clips: pd.DataFrame, lines: list[int]) -> CorpusError:
    ids = clips["id"].tolist() if "id" in clips.columns else [""] * len(clips)
    table = pd.DataFrame(
        [(lines[i] if i >= 0 else 1, ids[i] if i >= 0 else "", column, problem) for i, column, problem in found],
        columns=["row", "id", "column", "problem"],
    ).sort_values(["row", "column"], kind="stable", ignore_index=True)
    listed = [f"row {p.row}, {p.column} (clip '{p.id}'): {p.problem}" for p in table.head(SHOWN).itertuples()]
    more = [f"… and {len(table) - SHOWN} more"] if len(table) > SHOWN else []
    return CorpusError(f"{what}: {len(table)} problem(s)\n  " + "\n  ".join(listed + more), table)


def read_csv(path: Path, *, encoding: str | None = None) -> pd.DataFrame:
    """Read a csv of text: every cell a str, "NA" stays "NA", empty cells are "".

    Parameters
    ----------
    encoding : str, optional
        Default: UTF-8 (with or without BOM); if the bytes are not UTF-8, GBK (as GB18030) or cp1252, whichever fits.

    Raises
    ------
    CorpusError
        Unreadable, empty, or in none of these encodings.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror}); expected a csv file") from None
    text = decode_text(raw, path, encoding)
    if text.strip() == "":
        raise CorpusError(f"{path}: the file is empty; expected a csv with a header line")
    try:
        return pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, skipinitialspace=True)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise CorpusError(f"{path}: not a csv table ({error}); check quotes and the number of commas") from None


def decode_text(raw: bytes, path: Path, encoding: str | None = None) -> str:
    """Bytes of a text file → str; see :func:`read_csv`."""
    if not encoding and raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise CorpusError(f"{path}: UTF-16 text; save it as UTF-8 (Excel: 'CSV UTF-8')")
    tried = [encoding] if encoding else ["utf-8-sig", _guess_legacy(raw)]
    for name in tried:
        try:
            return raw.decode(name)
        except UnicodeDecodeError:
            continue
        except LookupError:
            raise CorpusError(f"{path}: Python knows no encoding '{name}'") from None
    raise CorpusError(f"{path}: neither {' nor '.join(tried)} text; save it as UTF-8 or name its encoding")


def _guess_legacy(raw: bytes) -> str:
    """``"gb18030"`` (holds GBK) or ``"cp1252"`` for bytes that are not UTF-8.

    GBK's Chinese characters are pairs of high bytes that stand in runs of their own; cp1252's accents and curly quotes
    are single bytes inside Latin words. A file that is mostly valid UTF-8 with a few bad bytes is neither: it stays
    UTF-8, and fails.
    """
    marked = raw.decode("utf-8", "surrogateescape")
    bad = sum("\udc80" <= c <= "\udcff" for c in marked)
    if sum(ord(c) > 127 for c in marked) - bad > bad:
        return "utf-8"
    runs = [m.span() for m in re.finditer(rb"[\x81-\xfe][\x40-\xfe](?:[\x81-\xfe][\x40-\xfe])*|[\x80-\xff]+", raw)]
    hanzi = re.compile(rb"(?:[\xa1-\xa3\xb0-\xf7][\xa1-\xfe])+")
    paired = sum(b - a for a, b in runs if hanzi.fullmatch(raw[a:b]) and not raw[max(a - 1, 0) : a].isalpha())
    return "gb18030" if paired >= 0.5 * sum(b - a for a, b in runs) else "cp1252"
