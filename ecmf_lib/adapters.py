"""Adapters: a dataset's own files → :class:`ecmf_lib.corpus.Corpus`.

``demo`` (generated), ``ravdess`` (names as published), ``mer2025`` (the official distribution), ``table`` (any
csv or parquet with a column mapping) and ``features`` (npz tables of ready-made features, no clips).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ecmf_lib.config import EMOTIONS, cache_dir
from ecmf_lib.corpus import Corpus, CorpusError, FeatureTable, make_corpus, read_csv
from ecmf_lib.demo import make_demo

#: RAVDESS's emotion codes; the last two columns are its published word and our class ("" = there is none).
RAVDESS_EMOTIONS = {
    "01": ("neutral", "neutral"),
    "02": ("calm", "neutral"),
    "03": ("happy", "happy"),
    "04": ("sad", "sad"),
    "05": ("angry", "angry"),
    "06": ("fearful", "worried"),
    "07": ("disgust", ""),
    "08": ("surprised", "surprise"),
}
RAVDESS_STATEMENTS = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}
RAVDESS_NAME = re.compile(r"(?P<codes>\d\d(?:-\d\d){6})(?:_[\w-]*)?")
RAVDESS_NOTE = (
    "RAVDESS: calm counts as neutral and fearful as worried (lossy); disgust has no class here and is left out."
)
RAVDESS_WORDS = "RAVDESS: both sentences are neutral and spoken with every emotion: the text stream knows nothing."
RAVDESS_LICENCE = "CC BY-NC-SA 4.0 (RAVDESS, Livingstone & Russo 2018, doi 10.1371/journal.pone.0196391)"

#: Words that datasets use for our classes; "" = a class that we do not have.
LABEL_WORDS = (
    {word: label for word, label in RAVDESS_EMOTIONS.values()}
    | {label: label for label in EMOTIONS}
    | {"NEU": "neutral", "HAP": "happy", "SAD": "sad", "ANG": "angry", "FEA": "worried", "DIS": ""}  # CREMA-D
)

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm")
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".m4a", ".ogg")


def open_corpus(spec: str, *, base: Path = Path()) -> Corpus:
    """Open a corpus by name or folder.

    Parameters
    ----------
    spec : str
        ``"demo"``, a folder (or csv, parquet, toml, npz file) whose kind is told from its content, or
        ``"adapter:folder"``.
    base : Path
        What a relative folder is relative to.

    Raises
    ------
    CorpusError
        Unknown adapter, missing folder, content that no adapter takes, or a bad manifest (all problems at once).
    """
    adapter, _, folder = spec.partition(":")
    if spec == "demo":
        return open_demo(make_demo(cache_dir() / "demo"))
    if folder and adapter in ADAPTERS:
        return ADAPTERS[adapter](_existing(base / folder))
    path = _existing(base / spec)
    return ADAPTERS[_kind(path)](path)


def _existing(path: Path) -> Path:
    if not path.exists():
        kinds = ", ".join(ADAPTERS)
        raise CorpusError(
            f"no corpus '{path}': give 'demo', a folder that exists, or ADAPTER:FOLDER with one of {kinds}"
        )
    return path.resolve()


def _kind(path: Path) -> str:
    """Which adapter takes this file or folder."""
    names = {path.name} if path.is_file() else {p.name for p in path.iterdir()}
    if "demo.json" in names:
        return "demo"
    if (path.is_file() and path.suffix in (".csv", ".parquet", ".toml")) or names & {"corpus.toml", "manifest.csv"}:
        return "table"
    if "track1_train_disdim.csv" in names:
        return "mer2025"
    if any(name.endswith(".npz") for name in names):
        return "features"
    if path.is_dir() and any(RAVDESS_NAME.fullmatch(p.stem) for p in _media_files(path)):
        return "ravdess"
    raise CorpusError(
        f"{path}: no adapter knows this content. Expected one of: manifest.csv or corpus.toml (table), "
        "track1_train_disdim.csv (mer2025), files named like 03-01-05-01-02-01-12.mp4 (ravdess), *.npz (features)"
    )


def open_demo(folder: Path) -> Corpus:
    """The generated corpus in ``folder`` (see :mod:`ecmf_lib.demo`)."""
    note = "Generated clips with known ground truth: they show that the chain works, not how well people are read."
    return make_corpus("demo", folder, read_csv(folder / "manifest.csv"), notes=(note,), licence="CC0 1.0 (generated)")


def open_ravdess(folder: Path) -> Corpus:
    """RAVDESS clips anywhere below ``folder``; names as published, an added ``_word`` is allowed.

    ``MM-VV-EE-II-SS-RR-AA``: modality, vocal channel, emotion, intensity, statement, repetition, actor. The same take
    exists as audio-video (MM 01), video only (02) and audio only (03): the ``take`` column ties these together.
    """
    rows, left_out = [], []
    for path in _media_files(folder):
        name = RAVDESS_NAME.fullmatch(path.stem)
        if not name:
            left_out.append((path.stem, "name is not RAVDESS's MM-VV-EE-II-SS-RR-AA"))
            continue
        modality, _, emotion, _, statement, _, actor = codes = name["codes"].split("-")
        if emotion not in RAVDESS_EMOTIONS or statement not in RAVDESS_STATEMENTS or modality not in ("01", "02", "03"):
            left_out.append((path.stem, f"unknown RAVDESS code in '{name['codes']}'"))
        elif RAVDESS_EMOTIONS[emotion][1] == "":
            left_out.append((path.stem, f"emotion '{RAVDESS_EMOTIONS[emotion][0]}' has no class among the six"))
        else:
            file = path.relative_to(folder).as_posix()
            rows.append(
                {
                    "id": path.stem,
                    "video": file if path.suffix in VIDEO_SUFFIXES else "",
                    "audio": file if path.suffix in AUDIO_SUFFIXES else "",
                    "transcript": RAVDESS_STATEMENTS[statement],
                    "language": "en",
                    "label": RAVDESS_EMOTIONS[emotion][1],
                    "speaker": f"actor-{actor}",
                    "take": "-".join(codes[1:]),
                }
            )
    if not rows:
        raise CorpusError(
            f"{folder}: no RAVDESS clip with one of the six classes; expected names like 01-01-05-01-02-01-12.mp4"
        )
    return make_corpus(
        folder.name,
        folder,
        pd.DataFrame(rows),
        left_out=pd.DataFrame(left_out, columns=["id", "reason"], dtype=str),
        notes=(
            RAVDESS_NOTE,
            RAVDESS_WORDS,
        ),
        licence=RAVDESS_LICENCE,
    )


def open_mer2025(folder: Path, *, language: str = "zh") -> Corpus:
    """MER2025 as distributed: ``subtitle_chieng.csv``, ``track1_train_disdim.csv``, ``track_all_candidates.csv``.

    Clips in the training csv are ``labelled``, candidates are ``test``, all others (named by the subtitles or by a
    file in ``video/``) are ``unlabelled``. The distribution names no speakers; a file ``speakers.csv``
    (``name,speaker``) of your own in the
    folder is used where it is. Files that are missing are left to the extraction's ledger: few people hold all
    132,171 clips.

    Parameters
    ----------
    language : {"zh", "en"}
        Which of the two subtitle columns is the transcript.
    """
    train = _named(folder / "track1_train_disdim.csv", "discrete")
    candidates = _named(folder / "track_all_candidates.csv")
    subtitles = _named(folder / "subtitle_chieng.csv", "chinese", "english")
    video = folder / "video"
    filmed = pd.Series(
        sorted(p.stem for p in video.iterdir() if p.suffix == ".mp4") if video.is_dir() else [], dtype=str
    )
    both = train["name"][train["name"].isin(set(candidates["name"]))]
    if len(both):
        raise CorpusError(
            f"{folder}: {len(both)} clip(s) are in the training csv and among the candidates, e.g. '{both.iloc[0]}'"
        )
    clips = pd.concat([train["name"], candidates["name"], subtitles["name"], filmed]).drop_duplicates().to_frame("id")
    clips["video"] = "video/" + clips["id"] + ".mp4"
    sounds = {p.stem for p in (folder / "audio").glob("*.wav")}
    clips["audio"] = clips["id"].map(lambda name: f"audio/{name}.wav" if name in sounds else "")
    clips["transcript"] = clips["id"].map(_lookup(subtitles, "chinese" if language == "zh" else "english"))
    clips["language"] = language
    clips["label"] = clips["id"].map(_lookup(train, "discrete"))
    clips["split"] = "unlabelled"
    clips.loc[clips["id"].isin(set(train["name"])), "split"] = "labelled"
    clips.loc[clips["id"].isin(set(candidates["name"])), "split"] = "test"
    notes = ["MER2025 is gated and CC BY-NC 4.0: keep clips, features and predictions off public places."]
    if (folder / "speakers.csv").is_file():
        clips["speaker"] = clips["id"].map(_lookup(_named(folder / "speakers.csv", "speaker"), "speaker"))
    else:
        notes.append("No speakers.csv: folds hold clips apart, not speakers or series, so scores are optimistic.")
    return make_corpus(
        "mer2025",
        folder,
        clips,
        rows=_rows(clips, train),
        missing_files="record",
        notes=tuple(notes),
        licence="CC BY-NC 4.0 (MER2025)",
    )


def open_table(
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    encoding: str | None = None,
    name: str | None = None,
    licence: str = "not stated",
) -> Corpus:
    """Any csv or parquet table with one row a clip.

    Parameters
    ----------
    path : Path
        The table; or a ``corpus.toml`` (or the folder that holds it) that gives ``table`` and these parameters; or a
        folder with a
        ``manifest.csv``. Media paths are relative to the folder the table is in.
    columns : mapping, optional
        Ours → theirs, e.g. ``{"id": "name", "label": "discrete"}``; columns not named keep their own name.
    labels : mapping, optional
        Theirs → ours, e.g. ``{"joy": "happy", "disgust": ""}``; "" leaves clips of that label out, with the reason.
    """
    if path.is_dir():
        path = path / ("corpus.toml" if (path / "corpus.toml").is_file() else "manifest.csv")
    if path.suffix == ".toml":
        return open_table(**_table_settings(path))
    table = read_csv(path, encoding=encoding) if path.suffix != ".parquet" else _read_parquet(path)
    absent = [theirs for theirs in (columns or {}).values() if theirs not in table.columns]
    if absent:
        raise CorpusError(f"{path}: no column {absent}; the table has {list(table.columns)}: mend the column mapping")
    table = table.rename(columns={theirs: ours for ours, theirs in (columns or {}).items()})
    table, left_out = _map_labels(table, labels or {})
    return make_corpus(
        name or (path.parent.name if path.stem == "manifest" else path.stem),
        path.parent,
        table,
        rows=table.index + 2,
        left_out=left_out,
        licence=licence,
    )


def _table_settings(path: Path) -> dict:
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path}: not a TOML file ({error})") from None
    allowed = {"table", "columns", "labels", "encoding", "name", "licence"}
    if "table" not in settings or set(settings) - allowed:
        raise CorpusError(
            f"{path}: expected 'table' and optionally {sorted(allowed - {'table'})}, found {sorted(settings)}"
        )
    return {"path": path.parent / settings.pop("table"), **settings}


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
    except Exception as error:  # pyarrow raises many kinds for a broken file
        raise CorpusError(f"{path}: not a parquet table ({error})") from None
    return table.astype(object).where(table.notna(), "").astype(str).reset_index(drop=True)


def _map_labels(table: pd.DataFrame, labels: Mapping[str, str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Labels in our words, and the clips whose label has no class here. The index stays: it tells the row."""
    columns = [c for c in table.columns if c == "label" or c.startswith("annotator_")]
    dropped = table["label"].map(lambda word: labels.get(word) == "") if "label" in table.columns else table.index < 0
    reasons = table[dropped].apply(lambda row: f"label '{row['label']}' has no class among the six", axis=1)
    left_out = pd.DataFrame(
        {"id": table.loc[dropped, "id"] if "id" in table.columns else "", "reason": reasons}, dtype=str
    )
    mapped = table.assign(**{c: table[c].map(lambda word: labels.get(word, word)) for c in columns})
    return mapped[~dropped], left_out.reset_index(drop=True)


def open_features(path: Path) -> Corpus:
    """A table of ready-made features: npz files with ``id``, a label, a speaker and one 2-D array a stream.

    The label array is called ``label`` or ``emotion``, the speaker array ``speaker`` or ``actor``; every 2-D float
    array with one
    row a clip is a stream of that name. Read without pickle.
    """
    files = [path] if path.is_file() else sorted(path.glob("*.npz"))
    if len(files) != 1:
        raise CorpusError(f"{path}: {len(files)} npz files; give the one to read")
    file = files[0]
    arrays = _read_npz(file)
    label_key = next((k for k in ("label", "emotion") if k in arrays), None)
    speaker_key = next((k for k in ("speaker", "actor") if k in arrays), None)
    if "id" not in arrays or label_key is None:
        raise CorpusError(f"{file}: expected arrays 'id' and 'label' (or 'emotion'), found {sorted(arrays)}")
    ids = arrays["id"].astype(str)
    streams = [key for key, a in arrays.items() if a.ndim == 2 and a.dtype.kind == "f" and len(a) == len(ids)]
    if not streams:
        raise CorpusError(f"{file}: no 2-D float array with {len(ids)} rows, so no stream; found {sorted(arrays)}")
    table = pd.DataFrame({"id": ids, "label": arrays[label_key].astype(str)})
    table["speaker"] = [f"{speaker_key}-{name}" for name in arrays[speaker_key]] if speaker_key else ""
    table, left_out = _map_labels(table, LABEL_WORDS)
    ravdess = all(RAVDESS_NAME.fullmatch(name) for name in ids)
    return make_corpus(
        path.stem,
        file.parent,
        table,
        rows=table.index,
        left_out=left_out,
        features=tuple(FeatureTable(path=file, array=key, stream=key) for key in streams),
        notes=(RAVDESS_NOTE,) if ravdess else (),
        licence=RAVDESS_LICENCE if ravdess else "not stated",
    )


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as z:
            return {key: z[key] for key in z.files}
    except (OSError, ValueError, EOFError) as error:
        raise CorpusError(
            f"{path}: cannot be read without pickle ({error}); save plain arrays with numpy.savez"
        ) from None


def _media_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES + AUDIO_SUFFIXES)


def _named(path: Path, *columns: str) -> pd.DataFrame:
    """A csv of the official distribution with a ``name`` column, each name once."""
    table = read_csv(path)
    absent = [c for c in ("name", *columns) if c not in table.columns]
    if absent:
        raise CorpusError(f"{path}: no column {absent}; expected {['name', *columns]}, found {list(table.columns)}")
    twice = table.index[table["name"].duplicated()]
    if len(twice):
        shown = ", ".join(f"row {i + 2} '{table['name'][i]}'" for i in twice[:10])
        raise CorpusError(f"{path}: {len(twice)} name(s) more than once: {shown}")
    return table


def _lookup(table: pd.DataFrame, column: str):
    """Name → cell, "" where there is no row."""
    found = dict(zip(table["name"], table[column], strict=True))
    return lambda name: found.get(name, "")


def _rows(clips: pd.DataFrame, train: pd.DataFrame) -> list[int]:
    """Rows of the training csv for its clips (labels are what goes wrong there), 0 for the others."""
    row = {name: i + 2 for i, name in enumerate(train["name"])}
    return [row.get(name, 0) for name in clips["id"]]


ADAPTERS = {
    "demo": open_demo,
    "ravdess": open_ravdess,
    "mer2025": open_mer2025,
    "table": open_table,
    "features": open_features,
}
