"""The manifest of a corpus: one row a clip, checked on load.

Columns: ``id, video, audio, transcript, language, label, split, speaker`` and any number of ``annotator_*``.
``video`` and ``audio`` are paths relative to the corpus folder, with ``/``; an empty ``audio`` means that the sound is
inside the video. ``speaker`` is the group that folds hold apart. More columns are kept where they are there:
``take`` (several files of one performance), ``dialogue`` and ``turn`` (which conversation, and the number of the
utterance in it), ``enrichment`` (what a language model wrote about the words), ``transcript_source`` (who wrote the
transcript down, see :mod:`ecmf_lib.asr`) and ``part`` (``train`` or ``test`` of a published split whose labels are all
known; ``split`` says what is known of a clip, ``part`` on which side others have scored it). What reads a dataset's own
files into this form is in :mod:`ecmf_lib.adapters`.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa

from ecmf_lib.config import EMOTIONS
from ecmf_lib.corpus_files import file_problems, inside
from ecmf_lib.tables import CorpusError, decode_text, problem_table, read_csv, refusal, shortened, wrongly_encoded
from ecmf_lib.text_check import doubtful, matches

__all__ = [
    "ANNOTATOR",
    "COLUMNS",
    "PARTS",
    "SPLITS",
    "Clip",
    "Corpus",
    "CorpusError",
    "FeatureRows",
    "FeatureTable",
    "decode_text",
    "inside",
    "make_corpus",
    "read_csv",
    "safe_id",
    "wrongly_encoded",
]

COLUMNS = ("id", "video", "audio", "transcript", "language", "label", "split", "speaker")
OPTIONAL = ("take", "dialogue", "turn", "enrichment", "transcript_source", "part")
SPLITS = ("labelled", "unlabelled", "test")
PARTS = ("train", "test")  # of a published split
ANNOTATOR = re.compile(r"annotator_\w+")
_AT_ONCE = 50_000  # rows that are text at a time


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
    enrichment: str = ""

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
class FeatureRows:
    """Ready-made features of one stream that an adapter reads itself, from files of any other kind."""

    source: str  # names of the files; stands in the place of an encoder
    stream: str
    read: Callable[[Sequence[str]], np.ndarray] = field(repr=False)  # ids → float [n, dim], in their order


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
    features : tuple of FeatureTable or FeatureRows
        Ready-made features to import, for a corpus without clips.
    """

    name: str
    root: Path
    clips: pd.DataFrame
    classes: tuple[str, ...] = EMOTIONS
    left_out: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["id", "reason"], dtype=str))
    notes: tuple[str, ...] = ()
    licence: str = "not stated"
    features: tuple[FeatureTable | FeatureRows, ...] = ()

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[Clip]:
        for row in self.clips.itertuples(index=False):
            yield self._clip(row)

    def clip(self, clip_id: str) -> Clip:
        """The clip with this id; KeyError if there is none."""
        rows = self.clips[self.clips["id"] == clip_id]
        if rows.empty:
            looks = f"its ids look like '{self.clips['id'].iloc[0]}'" if len(self) else "it has no clips at all"
            raise KeyError(f"corpus '{self.name}' has no clip '{clip_id}'; {looks}")
        return self._clip(next(rows.itertuples(index=False)))

    def select(self, ids: Iterable[str]) -> Corpus:
        """The same corpus with only these clips, in manifest order."""
        wanted = set(ids)
        chosen = [clip in wanted for clip in self.clips["id"].tolist()]
        return replace(self, clips=self.clips[chosen].reset_index(drop=True))

    @property
    def annotators(self) -> list[str]:
        """Names of the annotator columns."""
        return [name for name in self.clips.columns if ANNOTATOR.fullmatch(name)]

    @property
    def fingerprint(self) -> str:
        """16 hex digits of the manifest and the classes. The media's own content is in the ledger's digests."""
        digest = hashlib.sha256()
        for start in range(0, max(len(self), 1), _AT_ONCE):
            part = self.clips.iloc[start : start + _AT_ONCE]
            digest.update(part.to_csv(index=False, header=start == 0, lineterminator="\n").encode())
        digest.update("|".join(self.classes).encode())
        return digest.hexdigest()[:16]

    def groups(self, ids: Iterable[str] | None = None) -> tuple[list[str], str]:
        """What folds hold apart for each clip, and its name.

        Speakers, where they are known. With a single speaker the ``take`` column is used if the adapter gave one
        (several files of one performance), else the clip. A clip whose speaker or take nobody knows is a group of
        its own.

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
        alone = "clip:" + clips["id"]
        speakers = clips["speaker"]
        if speakers[speakers != ""].nunique() >= 2:
            return speakers.where(speakers != "", alone).tolist(), "speaker"
        if "take" in clips.columns:
            return clips["take"].where(clips["take"] != "", alone).tolist(), "take"
        return clips["id"].tolist(), "clip"

    def published_test(self, ids: Iterable[str]) -> np.ndarray | None:
        """The published split as the `test_fold` of :func:`ecmf_lib.train.cross_validate`.

        Parameters
        ----------
        ids : iterable of str
            Clips of this corpus; KeyError for any other.

        Returns
        -------
        int64 [n] or None
            0 for a clip of the part ``test``, -1 for all others, in the order of `ids`. None where there is nothing to
            follow: no ``part`` column, or no clip in one of the two parts.
        """
        if "part" not in self.clips.columns:
            return None
        part = self.clips.set_index("id")["part"].loc[list(ids)]
        if not set(PARTS) <= set(part):
            return None
        return np.where(part == "test", 0, -1).astype(np.int64)

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
            enrichment=getattr(row, "enrichment", ""),
        )


def make_corpus(
    name: str,
    root: Path,
    clips: pd.DataFrame,
    *,
    classes: tuple[str, ...] = EMOTIONS,
    where: Callable[[int, str], tuple[str, int]] = lambda index, column: ("", index + 2),
    missing_files: str = "refuse",
    **described,
) -> Corpus:
    """Check a manifest and wrap it.

    Parameters
    ----------
    name : str
        Names folders, so it follows the rules of ids.
    clips : DataFrame
        The columns of :data:`COLUMNS` (all but ``id`` may be missing), all str. Columns of other names are not used.
    where : callable
        (Position of a clip, column) → file and row where people mend that cell; position -1 is the header.
    missing_files : {"refuse", "record"}
        ``"record"`` leaves a file that is not there to the extraction, whose ledger gives the reason. For
        corpora of a hundred thousand clips of which a user may hold a part.
    **described
        ``left_out``, ``notes``, ``licence``, ``features`` of :class:`Corpus`.

    Raises
    ------
    CorpusError
        With every problem of the manifest, its file and its row.
    """
    if not (isinstance(name, str) and safe_id(name)):
        raise CorpusError(f"unusable corpus name {name!r}: it names folders, so {_ID_RULES}")
    what = f"manifest of corpus '{name}' in {root}"
    found = _header_problems(clips.columns)
    clips = _complete(clips)
    found += _column_problems(clips, classes) + _split_problems(clips)
    found += _path_problems(clips, Path(root), missing_files) + _text_problems(clips)
    if found:
        ids = clips["id"].tolist() if "id" in clips.columns else []
        problems = [
            (*where(index, column), ids[index] if ids and index >= 0 else "", column, problem)
            for index, column, problem in found
        ]
        raise refusal(what, problem_table(problems))
    if clips.empty:
        left_out = described.get("left_out")
        also = f" (all {len(left_out)} were left out)" if left_out is not None and len(left_out) else ""
        raise CorpusError(f"{what}: no clips{also}; expected at least one row below the header")
    return Corpus(name=name, root=Path(root), clips=clips, classes=tuple(classes), **described)


def _complete(clips: pd.DataFrame) -> pd.DataFrame:
    """Same columns in the same order for every corpus, str everywhere, missing values empty."""
    clips = clips.copy()
    for column in COLUMNS:
        if column not in clips.columns and column != "id":
            clips[column] = _default(clips, column)
    extra = [c for c in clips.columns if ANNOTATOR.fullmatch(c)] + [c for c in OPTIONAL if c in clips.columns]
    present = [c for c in COLUMNS if c in clips.columns]
    return clips[[*present, *extra]].fillna("").astype(str).reset_index(drop=True)


def _default(clips: pd.DataFrame, column: str):
    if column != "split":
        return ""
    labels = clips["label"] if "label" in clips.columns else pd.Series("", index=clips.index)
    return np.where(labels.fillna("") != "", "labelled", "unlabelled")


_Found = tuple[int, str, str]  # index of the clip (-1: the whole manifest), column, problem


def _header_problems(names: Iterable[str]) -> list[_Found]:
    """Columns that would not be used although they are meant: "lable", "Label", "annotator 1"."""
    found = []
    names = [str(name) for name in names]
    free = [ours for ours in COLUMNS if ours not in names]
    for name in names:
        if name in COLUMNS or name in OPTIONAL or ANNOTATOR.fullmatch(name):
            continue
        near = difflib.get_close_matches(name.strip().lower(), free, n=1, cutoff=0.8)
        if name.lower().startswith("annotator"):
            mended = "annotator_" + (re.sub(r"\W+", "_", name[len("annotator") :]).strip("_") or "1")
            found.append((-1, name, f"annotator columns are called annotator_…; rename it '{mended}'"))
        elif near:
            found.append((-1, name, f"unknown column; did you mean '{near[0]}'? Rename it, or map it"))
    return found


def _column_problems(clips: pd.DataFrame, classes: tuple[str, ...]) -> list[_Found]:
    """What can be said of one column by itself, by a pandera schema."""
    label = pa.Check.isin([*classes, ""], error="label")
    schema = pa.DataFrameSchema(
        {
            "id": pa.Column(
                str,
                [pa.Check(_safe_ids, error="unsafe")],
                unique=True,
                report_duplicates="exclude_first",
            ),
            "label": pa.Column(str, label),
            "split": pa.Column(str, pa.Check.isin(SPLITS, error="split")),
            "part": pa.Column(str, pa.Check.isin([*PARTS, ""], error="part"), required=False),
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
        return f"unknown label '{shortened(str(value))}'; " + (
            f"did you mean '{near[0]}'?" if near else f"classes are {', '.join(classes)}"
        )
    if "split" in str(case.check):
        return f"unknown split '{shortened(str(value))}'; use one of {', '.join(SPLITS)}"
    if "part" in str(case.check):
        return f"unknown part '{value}' of a published split; use {' or '.join(PARTS)}, or leave it empty"
    if "unsafe" in str(case.check):
        return f"unusable id {shortened(str(value))!r}: ids name files, so {_ID_RULES}"
    return f"duplicate id '{value}'"


_ID_RULES = 'no / \\ : * ? " < > | or control characters, no dot or blank first or last, 1-150 characters'


_PLAIN_ID = r"^[\w-](?:[\w .-]{0,148}[\w-])?$"


def safe_id(name: str) -> bool:
    """Whether a name can be that of a file or folder on every system."""
    good = all(unicodedata.category(c)[0] != "C" and c not in '/\\:*?"<>|' for c in name)
    return good and 0 < len(name) <= 150 and not name.startswith((".", " ")) and not name.endswith((".", " "))


def _safe_ids(ids: pd.Series) -> pd.Series:
    """:func:`safe_id` of each; nearly all names are plain ASCII, and one search tells."""
    safe = pd.Series(matches(ids, _PLAIN_ID), index=ids.index)
    safe[~safe] = ids[~safe].map(safe_id)
    return safe


def _path_problems(clips: pd.DataFrame, root: Path, missing_files: str) -> list[_Found]:
    return [
        (index, column, problem)
        for column in ("video", "audio")
        for index, problem in file_problems(clips[column], root, missing=missing_files == "refuse")
    ]


def _text_problems(clips: pd.DataFrame) -> list[_Found]:
    found = []
    for column in ("transcript", "enrichment"):
        if column not in clips:
            continue
        for index, text in clips[column][doubtful(clips[column])].items():
            if text != "" and text.strip() == "":
                found.append((index, column, f"empty text (only blanks); leave the cell empty if there is no {column}"))
            problem = wrongly_encoded(text)
            if problem:
                found.append((index, column, problem))
    return found
