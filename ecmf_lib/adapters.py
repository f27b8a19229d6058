"""Adapters: a dataset's own files → :class:`ecmf_lib.corpus.Corpus`.

``demo`` (generated), ``ravdess`` (names as published), ``mer2025`` (the official distribution), ``meld`` (dialogues,
text only; in :mod:`ecmf_lib.adapter_meld`), ``mosi`` (csv features of CMU-MOSI, in :mod:`ecmf_lib.adapter_mosi`),
``table`` (any csv or parquet with a column mapping) and ``features`` (npz tables of ready-made features, no clips).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ecmf_lib.adapter_meld import open_meld
from ecmf_lib.adapter_mosi import belongs_to_mosi, open_mosi
from ecmf_lib.bounded import read_bytes
from ecmf_lib.bounded_arrays import read_npz, read_parquet
from ecmf_lib.config import EMOTIONS, cache_dir
from ecmf_lib.corpus import (
    ANNOTATOR,
    COLUMNS,
    OPTIONAL,
    Corpus,
    CorpusError,
    FeatureTable,
    inside,
    make_corpus,
    read_csv,
    safe_id,
)
from ecmf_lib.demo import make_demo
from ecmf_lib.tables import shortened

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

#: CREMA-D's codes → our class. Its clips are called <actor>_<sentence>_<emotion>_<intensity>.
CREMAD_EMOTIONS = {"NEU": "neutral", "HAP": "happy", "SAD": "sad", "ANG": "angry", "FEA": "worried", "DIS": ""}
CREMAD_NAME = re.compile(rf"\d{{4}}_[A-Z]{{3}}_(?:{'|'.join(CREMAD_EMOTIONS)})_\w{{1,2}}")
CREMAD_NOTES = (
    "CREMA-D: NEU, HAP, SAD and ANG are neutral, happy, sad and angry; FEA (fear) counts as worried (lossy); DIS "
    "(disgust) has no class here and is left out.",
    "CREMA-D has no surprise: five of the six classes are in use.",
    "CREMA-D: all emotions are acted on the same twelve sentences, so the words know next to nothing.",
)
CREMAD_LICENCE = "ODbL 1.0 and DbCL 1.0 (CREMA-D, Cao et al. 2014, doi 10.1109/TAFFC.2014.2336244)"

#: Words that datasets use for our classes; "" = a class that we do not have.
LABEL_WORDS = (
    {word: label for word, label in RAVDESS_EMOTIONS.values()} | {label: label for label in EMOTIONS} | CREMAD_EMOTIONS
)

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm")
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".m4a", ".ogg")
TABLE_SUFFIXES = (".csv", ".parquet")
_LARGEST_TOML = 2**20  # bytes

#: Columns of the extraction's ledger (:mod:`ecmf_lib.extract`), in which each stream has one of its own.
LEDGER_COLUMNS = (
    "id",
    "status",
    "reason",
    "digest",
    "n_frames",
    "duration",
    "fps",
    "face_share",
    "audio_state",
    "notes",
)


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
    path = path.resolve()
    if not path.exists():
        kinds = ", ".join(ADAPTERS)
        raise CorpusError(
            f"no corpus '{path}': give 'demo', a folder that exists, or ADAPTER:FOLDER with one of {kinds}"
        )
    if not path.is_file() and not path.is_dir():
        raise CorpusError(f"{path}: a pipe, socket or device; give a file or a folder")
    return path


def _kind(path: Path) -> str:
    """Which adapter takes this file or folder."""
    names = {path.name} if path.is_file() else {p.name for p in path.iterdir()}
    if "demo.json" in names:
        return "demo"
    table = path.is_file() and path.suffix.lower() in (*TABLE_SUFFIXES, ".toml")
    if table or names & {"corpus.toml", "manifest.csv"}:
        return "table"
    if "track1_train_disdim.csv" in names:
        return "mer2025"
    if any(name.endswith("_sent_emo.csv") for name in names) and path.is_dir():
        return "meld"
    if belongs_to_mosi(names) and path.is_dir():
        return "mosi"
    if parts := names & {"track_all_candidates.csv", "subtitle_chieng.csv"}:
        raise CorpusError(
            f"{path}: {' and '.join(sorted(parts))} belong to MER2025, but track1_train_disdim.csv is missing; "
            "copy it from the distribution into this folder"
        )
    # before the npz files: somebody's features may lie among the clips
    if path.is_dir() and any(RAVDESS_NAME.fullmatch(p.stem) for p in _media_files(path)[0]):
        return "ravdess"
    if any(name.lower().endswith(".npz") for name in names):
        return "features"
    raise CorpusError(
        f"{path}: no adapter knows this content. Expected one of: manifest.csv or corpus.toml (table), "
        "track1_train_disdim.csv (mer2025), *_sent_emo.csv (meld), text_train0.csv (mosi), "
        "files named like 03-01-05-01-02-01-12.mp4 (ravdess), *.npz (features)"
    )


def _name_after(name: str) -> str:
    """A corpus name from that of a folder or file."""
    return name if safe_id(name) else re.sub(r"[^\w.-]+", "_", name).strip("._")[:150] or "corpus"


def open_demo(folder: Path) -> Corpus:
    """The generated corpus in ``folder`` (see :mod:`ecmf_lib.demo`)."""
    note = "Generated clips with known ground truth: they show that the chain works, not how well people are read."
    return make_corpus("demo", folder, read_csv(folder / "manifest.csv"), notes=(note,), licence="CC0 1.0 (generated)")


def open_ravdess(folder: Path) -> Corpus:
    """RAVDESS clips anywhere below ``folder``; names as published, an added ``_word`` is allowed.

    ``MM-VV-EE-II-SS-RR-AA``: modality, vocal channel, emotion, intensity, statement, repetition, actor. The same take
    exists as audio-video (MM 01), video only (02) and audio only (03): the ``take`` column ties these together.
    """
    files, left_out = _media_files(folder)
    rows: dict[str, dict[str, str]] = {}
    for path in files:
        name = RAVDESS_NAME.fullmatch(path.stem)
        if not name:
            left_out.append((path.stem, "name is not RAVDESS's MM-VV-EE-II-SS-RR-AA"))
            continue
        modality, _, emotion, _, statement, _, actor = codes = name["codes"].split("-")
        if emotion not in RAVDESS_EMOTIONS or statement not in RAVDESS_STATEMENTS or modality not in ("01", "02", "03"):
            left_out.append((path.stem, f"unknown RAVDESS code in '{name['codes']}'"))
        elif RAVDESS_EMOTIONS[emotion][1] == "":
            left_out.append((path.stem, f"emotion '{RAVDESS_EMOTIONS[emotion][0]}' has no class among the six"))
        elif path.stem in rows:
            first = rows[path.stem]
            left_out.append((path.stem, f"same name as {first['video'] or first['audio']}"))
        else:
            file = path.relative_to(folder).as_posix()
            rows[path.stem] = {
                "id": path.stem,
                "video": file if path.suffix.lower() in VIDEO_SUFFIXES else "",
                "audio": file if path.suffix.lower() in AUDIO_SUFFIXES else "",
                "transcript": RAVDESS_STATEMENTS[statement],
                "language": "en",
                "label": RAVDESS_EMOTIONS[emotion][1],
                "speaker": f"actor-{actor}",
                "take": "-".join(codes[1:]),
            }
    if not rows:
        raise CorpusError(
            f"{folder}: no RAVDESS clip with one of the six classes; expected names like 01-01-05-01-02-01-12.mp4"
        )
    return make_corpus(
        _name_after(folder.name),
        folder,
        pd.DataFrame(rows.values()),
        left_out=_left_out(left_out),
        notes=(RAVDESS_NOTE, RAVDESS_WORDS),
        licence=RAVDESS_LICENCE,
    )


def open_mer2025(folder: Path, *, language: str = "zh") -> Corpus:
    """MER2025 as distributed: ``subtitle_chieng.csv``, ``track1_train_disdim.csv``, ``track_all_candidates.csv``.

    Clips in the training csv are ``labelled``, candidates are ``test``, all others (named by the subtitles or by a
    file in ``video/``) are ``unlabelled``. The distribution names no speakers; a file ``speakers.csv``
    (``name,speaker``) of your own in the folder is used where it is. Files that are missing are left to the
    extraction's ledger: few people hold all 132,171 clips.

    Parameters
    ----------
    language : {"zh", "en"}
        Which of the two subtitle columns is the transcript.
    """
    train = _named(folder / "track1_train_disdim.csv", "discrete")
    candidates = _named(folder / "track_all_candidates.csv")
    subtitles = _named(folder / "subtitle_chieng.csv", "chinese", "english")
    filmed, left_out = _files_by_clip(folder / "video", ".mp4")
    sounds, _ = _files_by_clip(folder / "audio", ".wav")
    both = train["name"][train["name"].isin(set(candidates["name"]))]
    if len(both):
        raise CorpusError(
            f"{folder}: {len(both)} clip(s) are in the training csv and among the candidates, e.g. '{both.iloc[0]}'"
        )
    names = pd.concat([train["name"], candidates["name"], subtitles["name"], pd.Series(sorted(filmed), dtype=str)])
    clips = names.drop_duplicates().to_frame("id")
    clips["video"] = clips["id"].map(lambda name: f"video/{filmed.get(name, name + '.mp4')}")
    clips["audio"] = clips["id"].map(lambda name: f"audio/{sounds[name]}" if name in sounds else "")
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
    rows = {
        "track1_train_disdim.csv": _rows(train),
        "track_all_candidates.csv": _rows(candidates),
        "subtitle_chieng.csv": _rows(subtitles),
    }

    def where(index: int, column: str) -> tuple[str, int]:
        """A transcript is mended in the subtitles, all else where the clip is named first."""
        name = clips["id"].iloc[index]
        files = ["subtitle_chieng.csv"] if column == "transcript" else list(rows)
        return next((file, rows[file][name]) for file in files if name in rows[file])

    return make_corpus(
        "mer2025",
        folder,
        clips,
        where=where,
        missing_files="record",
        left_out=_left_out(left_out),
        notes=tuple(notes),
        licence="CC BY-NC 4.0 (MER2025)",
    )


def _files_by_clip(folder: Path, suffix: str) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Clip → file name, and (name, reason) of what is no clip."""
    found: dict[str, str] = {}
    left_out = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith("."):
            left_out.append((path.name, HIDDEN))
        elif path.suffix.lower() != suffix:
            left_out.append((path.name, f"in {folder.name}/, but not a {suffix} file"))
        elif not safe_id(path.stem):
            left_out.append((path.name, "its name cannot be the id of a clip"))
        elif path.stem in found:
            left_out.append((path.name, f"same name as {found[path.stem]}"))
        else:
            found[path.stem] = path.name
    return found, left_out


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
        folder with a ``manifest.csv``. Media paths are relative to the folder the table is in.
    columns : mapping, optional
        Ours → theirs, e.g. ``{"id": "name", "label": "discrete"}``; columns not named keep their own name.
    labels : mapping, optional
        Theirs → ours, e.g. ``{"joy": "happy", "disgust": ""}``; "" leaves clips of that label out, with the reason.
    """
    if path.is_dir():
        path = path / ("corpus.toml" if (path / "corpus.toml").is_file() else "manifest.csv")
    if path.suffix.lower() == ".toml":
        settings = _table_settings(path)
        return open_table(path.parent / settings.table, **settings.model_dump(exclude={"table"}))
    path = path.absolute()
    table = _read_parquet(path) if path.suffix.lower() == ".parquet" else read_csv(path, encoding=encoding)
    table = _map_columns(table, columns or {}, path)
    table, left_out = _map_labels(table, labels or {})
    if table.empty and left_out.empty:
        raise CorpusError(f"{path}: no clips; expected at least one row below the header")
    rows = table.index + 2
    return make_corpus(
        name or _name_after(path.parent.name if path.stem == "manifest" else path.stem),
        path.parent,
        table,
        where=lambda index, column: (path.name, int(rows[index]) if index >= 0 else 1),
        left_out=left_out,
        licence=licence,
    )


def _our_column(name: str) -> str:
    if name not in (*COLUMNS, *OPTIONAL) and not ANNOTATOR.fullmatch(name):
        raise ValueError(f"'{name}' is none of our columns ({', '.join(COLUMNS)}, annotator_…)")
    return name


def _corpus_name(name: str) -> str:
    if not safe_id(name):
        raise ValueError("it names folders, so no / \\ : or control characters, and no dot first")
    return name


def _table_name(name: str) -> str:
    if Path(name).suffix.lower() not in TABLE_SUFFIXES:
        raise ValueError(f"expected a file {' or '.join(TABLE_SUFFIXES)}")
    return name


class TableSettings(BaseModel):
    """What a ``corpus.toml`` may say; see :func:`open_table`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    table: Annotated[str, AfterValidator(_table_name)]
    columns: dict[Annotated[str, AfterValidator(_our_column)], str] = Field(default_factory=dict)
    labels: dict[str, Literal[(*EMOTIONS, "")]] = Field(default_factory=dict)
    encoding: str | None = None
    name: Annotated[str, AfterValidator(_corpus_name)] | None = None
    licence: str = "not stated"


def _table_settings(path: Path) -> TableSettings:
    try:
        settings = TableSettings(**tomllib.loads(read_bytes(path, _LARGEST_TOML).decode("utf-8-sig")))
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
        known = ", ".join(name for name in TableSettings.model_fields if name != "table")
        raise CorpusError(f"{path}: expected 'table' and optionally {known}\n  " + "\n  ".join(lines)) from None
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{path}: not a TOML file ({shortened(str(error))})") from None
    if not inside(path.parent, settings.table):
        raise CorpusError(f"{path}: table '{settings.table}' leaves the corpus folder; copy it into {path.parent}")
    return settings


def _read_parquet(path: Path) -> pd.DataFrame:
    """All cells as str; whole numbers without the ".0" that missing values beside them would give them."""
    try:
        read = read_parquet(path)
        odd = [field.name for field in read.schema if "binary" in str(field.type)]
        if odd:
            raise ValueError(f"column '{odd[0]}' holds bytes, not text")
        table = read.to_pandas()
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror}); expected a parquet table") from None
    except Exception as error:  # what pandas itself wrote into the file can be anything
        raise CorpusError(f"{path}: not a parquet table ({shortened(str(error))})") from None
    if not table.columns.is_unique:
        raise CorpusError(f"{path}: column names stand more than once, {list(table.columns)}; rename or remove some")
    for column in table.select_dtypes("floating"):
        values = table[column].dropna()
        if (values % 1 == 0).all():  # False for infinity
            table[column] = table[column].astype("Int64")
    for column in table:
        if table[column].dtype != "str":
            table[column] = table[column].astype(object).where(table[column].notna(), "").astype(str)
    return table.fillna("").reset_index(drop=True)


def _map_columns(table: pd.DataFrame, columns: Mapping[str, str], path: Path) -> pd.DataFrame:
    """Columns by our names. One of theirs may serve several of ours, and one of ours may be replaced by another."""
    absent = [theirs for theirs in columns.values() if theirs not in table.columns]
    if absent:
        there = shortened(str(list(table.columns)))
        raise CorpusError(f"{path}: no column {absent}; the table has {there}: mend the column mapping")
    ours = {ours: table[theirs] for ours, theirs in columns.items()}
    used = {name for name in columns.values() if name not in COLUMNS and not ANNOTATOR.fullmatch(name)}
    return table.drop(columns=[c for c in table.columns if c in columns or c in used]).assign(**ours)


def _map_labels(table: pd.DataFrame, labels: Mapping[str, str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Labels in our words, and the clips whose label has no class here. The index stays: it tells the row."""
    if not labels:
        return table, _left_out([])
    nothing = pd.Series("", index=table.index, dtype=str)
    words, ids = table.get("label", nothing), table.get("id", nothing)
    dropped = words.map(lambda word: labels.get(word) == "").astype(bool)
    left_out = zip(ids[dropped], words[dropped], strict=True)
    columns = [c for c in table.columns if c == "label" or c.startswith("annotator_")]
    mapped = table.assign(**{c: table[c].map(lambda word: labels.get(word, word)) for c in columns})
    return mapped[~dropped], _left_out((id, f"label '{word}' has no class among the six") for id, word in left_out)


def _left_out(rows: Iterable[tuple[str, str]]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=["id", "reason"], dtype=str)


def open_features(path: Path) -> Corpus:
    """A table of ready-made features: npz files with ``id``, a label, a speaker and one 2-D array a stream.

    The label array is called ``label`` or ``emotion``, the speaker array ``speaker`` or ``actor``; every 2-D float
    array with one row a clip is a stream of that name. Read without pickle.
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
    table = pd.DataFrame({ours: _texts(arrays, key, file) for ours, key in (("id", "id"), ("label", label_key))})
    table["speaker"] = [f"{speaker_key}-{n}" for n in _texts(arrays, speaker_key, file)] if speaker_key else ""
    streams = _stream_names(arrays, len(table), file)
    table, left_out = _map_labels(table, LABEL_WORDS)
    notes, licence = _known_by_ids(table["id"])
    rows = table.index.tolist()
    return make_corpus(
        _name_after(path.stem),
        file.parent,
        table,
        where=lambda index, column: (file.name, rows[index] if index >= 0 else 0),
        left_out=left_out,
        features=tuple(FeatureTable(path=file, array=key, stream=key) for key in streams),
        notes=notes,
        licence=licence,
    )


def _known_by_ids(ids: pd.Series) -> tuple[tuple[str, ...], str]:
    """Notes and licence of the dataset whose clips are called like this."""
    known = {RAVDESS_NAME: ((RAVDESS_NOTE,), RAVDESS_LICENCE), CREMAD_NAME: (CREMAD_NOTES, CREMAD_LICENCE)}
    for pattern, told in known.items():
        if len(ids) and all(pattern.fullmatch(name) for name in ids):
            return told
    return (), "not stated"


def _texts(arrays: Mapping[str, np.ndarray], key: str, file: Path) -> list[str]:
    """One text a clip from an array of texts or whole numbers."""
    array, ids = arrays[key], arrays["id"]
    if array.ndim != 1 or len(array) != len(ids):
        raise CorpusError(f"{file}: array '{key}' has shape {array.shape}, 'id' {ids.shape}; expected one entry a clip")
    if array.dtype.kind not in "USiu":
        raise CorpusError(f"{file}: array '{key}' holds {array.dtype}; expected texts or whole numbers")
    try:
        return array.astype(str).tolist()
    except UnicodeDecodeError:
        raise CorpusError(f"{file}: array '{key}' holds bytes that are not ASCII; save it as texts (str)") from None


def _stream_names(arrays: Mapping[str, np.ndarray], n_clips: int, file: Path) -> list[str]:
    streams = [key for key, a in arrays.items() if a.ndim == 2 and a.dtype.kind == "f" and len(a) == n_clips]
    if not streams:
        raise CorpusError(f"{file}: no 2-D float array with {n_clips} rows, so no stream; found {sorted(arrays)}")
    for key in streams:
        if arrays[key].shape[1] == 0:
            raise CorpusError(f"{file}: array '{key}' has no columns; leave it out, or save features in it")
        if not re.fullmatch(r"[\w-]+", key) or key in LEDGER_COLUMNS:
            why = "the ledger has a column of that name" if key in LEDGER_COLUMNS else "only letters, digits, _ and -"
            raise CorpusError(f"{file}: '{key}' cannot be the name of a stream ({why}); rename the array")
    return streams


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        return read_npz(path)
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror}); expected an npz file") from None
    except ValueError as error:
        if "pickle" in str(error):
            error = str(error).replace(": holds Python objects (pickle)", " cannot be read without pickle")
        raise CorpusError(f"{path}: {error}; copy it again, or save plain arrays with numpy.savez") from None


#: Why a file like ``._s1.mp4``, which macOS adds on foreign disks, is no clip.
HIDDEN = "hidden file (its name starts with a dot)"


def _media_files(folder: Path) -> tuple[list[Path], list[tuple[str, str]]]:
    """Files that may be clips, and (name, reason) of the hidden ones."""
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES + AUDIO_SUFFIXES)
    hidden = {p for p in files if any(part.startswith(".") for part in p.relative_to(folder).parts)}
    return [p for p in files if p not in hidden], [(p.name, HIDDEN) for p in sorted(hidden)]


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


def _rows(table: pd.DataFrame) -> dict[str, int]:
    """Name → its row in the file."""
    return dict(zip(table["name"], (table.index + 2).tolist(), strict=True))


ADAPTERS = {
    "demo": open_demo,
    "ravdess": open_ravdess,
    "mer2025": open_mer2025,
    "table": open_table,
    "features": open_features,
    "meld": open_meld,
    "mosi": open_mosi,
}
