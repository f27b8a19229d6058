"""What a notebook opens with: settings → corpus, features, ledger, and a place for results.

A notebook's first two lines are ``settings = FuseSettings(...)`` and ``project = open_project(settings)``; from then on
everything is there, whether it was made a moment ago or last week.
"""

from __future__ import annotations

import csv
import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pandas.api.types import is_numeric_dtype
from pandas.io.formats.style import Styler

from ecmf_lib import __version__
from ecmf_lib.adapters import open_corpus
from ecmf_lib.config import ENRICHMENT, REPO, Settings, SettingsError, cache_dir, engine_of_run, resolve
from ecmf_lib.corpus import Corpus, FeatureRows, FeatureTable
from ecmf_lib.cues import Cues
from ecmf_lib.encoders import Encoder, profile
from ecmf_lib.encoders.cards import ASR_CARDS
from ecmf_lib.enriching import MEASURES, enriched_corpus, make_enricher, reader_of, with_measures
from ecmf_lib.extract import extract, imported_ledger
from ecmf_lib.faces import INSIGHTFACE_PACKS, Detector, get_detector
from ecmf_lib.interchange import import_arrays, import_npz
from ecmf_lib.review_csv import guarded_table
from ecmf_lib.samples import FusionData
from ecmf_lib.store import FeatureSet, FeatureStore

#: Packages whose version can change a number.
NUMERIC_PACKAGES = (
    "numpy",
    "scipy",
    "scikit-learn",
    "scikit-image",
    "opencv-python",
    "av",
    "opensmile",
    "torch",
    "torchvision",
    "torchaudio",
    "timm",
    "transformers",
    "onnxruntime",
    "insightface",
)


@dataclass(frozen=True)
class Project:
    """One corpus with its features, as a notebook works with it.

    Attributes
    ----------
    settings : Settings
        The notebook's checked parameters.
    corpus : Corpus
    encoders : dict of str to Encoder
        Stream → encoder; empty for a corpus of ready-made features.
    detector : Detector or None
        None where there are no faces to look for.
    sets : dict of str to FeatureSet
        Stream → its features in the store.
    ledger : DataFrame
        One row a clip: done, or the reason it is not.
    cues : list of Cues
        In manifest order; empty where nothing is enriched.
    enriched : DataFrame or None
        What became of each clip's enrichment, see :func:`ecmf_lib.enrich.enrichment_table`.
    """

    settings: Settings
    corpus: Corpus
    encoders: dict[str, Encoder]
    detector: Detector | None
    sets: dict[str, FeatureSet]
    ledger: pd.DataFrame
    cues: list[Cues] = field(default_factory=list)
    enriched: pd.DataFrame | None = None

    @property
    def data_fingerprint(self) -> str:
        """16 hex digits of the manifest, every clip's content and every feature set's settings."""
        told = [self.corpus.fingerprint, self.corpus.licence, *self.corpus.notes, self.corpus.left_out.to_csv()]
        digest = hashlib.sha256("\n".join(told).encode())
        digest.update(self.ledger[["id", "digest"]].to_csv(index=False, lineterminator="\n").encode())
        digest.update(json.dumps({s: f.about["fingerprint"] for s, f in self.sets.items()}, sort_keys=True).encode())
        return digest.hexdigest()[:16]

    def provenance(self) -> dict[str, str]:
        """What a report has to state so that its numbers can be found again."""
        packages = ", ".join(f"{name} {version(name)}" for name in NUMERIC_PACKAGES)
        return {
            "corpus": f"{self.corpus.name}: {len(self.corpus)} clips, {len(self.corpus.left_out)} left out",
            "licence of the data": self.corpus.licence,
            "encoders": ", ".join(f"{stream}: {described(found)}" for stream, found in self.sets.items()),
            "enrichment": self._enriched_by(),
            "seed": str(self.settings.seed),
            "data fingerprint": self.data_fingerprint,
            "code version": code_version(),
            "python": platform.python_version(),
            "packages": packages,
        }

    def _enriched_by(self) -> str:
        if self.enriched is None:
            return "none"
        counts = self.enriched.groupby(["by", "state"]).size()
        return ", ".join(f"{by}: {n} {state}" if by != state else f"{by}: {n}" for (by, state), n in counts.items())

    def samples(self, steps: int = 0) -> tuple[FusionData | None, dict[str, str]]:
        """Labelled clips that are done, ready for a fusion.

        Parameters
        ----------
        steps : int
            Above 0: streams stored at frame level come as so many parts of the clip's time.

        Returns
        -------
        data : FusionData or None
            None if there are not at least two such clips, or no stream says anything.
        silent : dict of str to str
            Streams that are left out because they say nothing here, and why.
        """
        done = set(self.ledger.loc[self.ledger["status"] == "done", "id"])
        clips = self.corpus.clips[self.corpus.clips["id"].isin(done)]
        labelled = clips.loc[(clips["split"] == "labelled") & (clips["label"] != ""), "id"].tolist()
        if len(labelled) < 2:
            return None, {stream: "fewer than two labelled clips have it" for stream in self.sets}
        data, silent = FusionData.from_sets(clips, self.sets, self.corpus.classes, steps=steps), {}
        for stream, matrix in data.streams.items():
            present = data.present[stream]
            if present.sum() < 2:
                silent[stream] = "fewer than two labelled clips have it"
            elif not np.ptp(matrix[present].reshape(-1, matrix.shape[-1]), axis=0).any():
                silent[stream] = "it is the same in all labelled clips"
        kept = [stream for stream in data.streams if stream not in silent]
        return data.only(kept) if kept else None, silent

    def results(self, notebook: str) -> Results:
        """Where this notebook's tables and pictures go."""
        return Results(resolve(self.settings.output) / "tables" / notebook, self.provenance())


def open_project(settings: Settings, *, corpus: Corpus | None = None, progress: bool = True) -> Project:
    """Open the corpus that the settings name and bring its features up to date.

    Parameters
    ----------
    settings : Settings
        Of any notebook.
    corpus : Corpus, optional
        In place of the one that the settings name: clips that are no dataset of anybody's.
    progress : bool
        Show a bar while clips are decoded.

    Raises
    ------
    CorpusError, DetectorError, EncoderError, StoreError
        Each names the file, what was expected and the mend. A single bad clip raises nothing: it is in the ledger.
    """
    encoders = chosen_encoders(settings)
    if corpus is None:
        if settings.corpus == "demo":
            check_weights(encoders)  # first: making the demo corpus takes a minute
        corpus = open_corpus(settings.corpus, base=REPO)
    corpus = thinned(corpus, settings.max_clips)
    store = FeatureStore(store_folder(corpus))
    if corpus.features:
        sets, ledger = _import(corpus, store)
        return Project(settings, corpus, {}, None, sets, ledger)
    weights = settings.weights if settings.weights in INSIGHTFACE_PACKS else resolve(settings.weights or ".")
    detector = get_detector(settings.detector, weights if settings.weights else None)
    enricher = make_enricher(settings)
    if settings.asr:
        check_weights(encoders)  # before hours of listening
        corpus = _transcribed(corpus, settings, store.root / "transcripts", progress)
    cues, enriched = [], None
    engine, share = engine_of_run(corpus.name)

    def features(corpus: Corpus, encoders: Mapping[str, Encoder]) -> tuple[pd.DataFrame, dict[str, FeatureSet]]:
        how = {"n_frames": settings.frames, "workers": settings.workers, "device": settings.device}
        ledger = extract(corpus, store, encoders, detector, progress=progress, engine=engine, share=share, **how)
        return ledger, {part: store.open(name) for part, name in ledger.attrs["sets"].items()}

    if enricher is not None:
        _, sets = features(corpus, with_measures(encoders))
        measured = {found.encoder: found for found in sets.values() if found.encoder in MEASURES}
        cache = store.root / "enrichment.sqlite"
        how = {"progress": progress, "engine": engine}
        corpus, cues, enriched = enriched_corpus(corpus, measured, enricher, cache, **how)
        encoders.setdefault(ENRICHMENT, reader_of(encoders, _weights_folder(settings)))
    ledger, sets = features(corpus, encoders)
    return Project(settings, corpus, encoders, detector, sets, ledger, cues, enriched)


def _transcribed(corpus: Corpus, settings: Settings, cache: Path, progress: bool) -> Corpus:
    """The corpus with what the speech recogniser heard where there was no transcript; readers of scores are told."""
    from ecmf_lib.asr import transcribe

    if settings.asr not in ASR_CARDS:
        raise SettingsError(f"asr = '{settings.asr}': no such speech recogniser; choose from {', '.join(ASR_CARDS)}")
    corpus = transcribe(
        corpus,
        ASR_CARDS[settings.asr],
        cache,
        root=_weights_folder(settings),
        device=settings.device,
        workers=settings.workers,
        progress=progress,
    )
    heard = (corpus.clips["transcript_source"] == f"asr:{settings.asr}").sum()
    note = f"{heard} of {len(corpus)} transcripts were written by the speech recogniser {settings.asr}"
    return replace(corpus, notes=(*corpus.notes, note))


def described(found: FeatureSet) -> str:
    """An encoder in words; weights that were never trained are called that."""
    return found.encoder + (" (random weights)" if found.about.get("stand_in") else "")


def chosen_encoders(settings: Settings) -> dict[str, Encoder]:
    """Stream → encoder: the profile's, with the swaps and the weights folder that the settings name."""
    return profile(settings.profile, settings.encoders, weights=_weights_folder(settings))


def check_weights(encoders: Mapping[str, Encoder]) -> None:
    """Find the weights of every encoder; raises WeightsError for the first that cannot be used."""
    for encoder in encoders.values():
        _ = encoder.fingerprint  # made of the weights


def _weights_folder(settings: Settings) -> Path | None:
    own = settings.weights and settings.weights not in INSIGHTFACE_PACKS
    return resolve(settings.weights) if own else None


def thinned(corpus: Corpus, max_clips: int) -> Corpus:
    """At most so many clips, drawn at random: manifests are sorted, so that every k-th clip may be of one label."""
    if not max_clips or max_clips >= len(corpus):
        return corpus
    rows = np.random.default_rng(0).permutation(len(corpus))[:max_clips]
    return corpus.select(corpus.clips["id"].iloc[rows])


def store_folder(corpus: Corpus) -> Path:
    """Folder of a corpus's features; two corpora of one name in different places do not share it."""
    place = hashlib.sha256(str(corpus.root).encode()).hexdigest()[:8]
    return cache_dir() / "store" / f"{corpus.name}-{place}"


def _import(corpus: Corpus, store: FeatureStore) -> tuple[dict[str, FeatureSet], pd.DataFrame]:
    """Bring a corpus's ready-made features into the store; the ledger looks like that of an extraction."""
    ids, sets = corpus.clips["id"].tolist(), {}
    about = {"corpus_name": corpus.name, "corpus_fingerprint": corpus.fingerprint, "licence": corpus.licence}
    tables = [table for table in corpus.features if isinstance(table, FeatureTable)]
    for path in dict.fromkeys(table.path for table in tables):
        arrays = {table.array: table.stream for table in tables if table.path == path}
        sets |= import_npz(store, path, arrays=arrays, keep=ids, **about)
    for rows in corpus.features:
        if isinstance(rows, FeatureRows):
            sets |= import_arrays(store, ids=ids, streams={rows.stream: rows.read(ids)}, source=rows.source, **about)
    return sets, imported_ledger(ids, sets)


def code_version() -> str:
    """Version and a digest of the library's and the notebooks' sources: the same for the same code on any machine."""
    digest = hashlib.sha256()
    for path in sorted([*(REPO / "ecmf_lib").rglob("*.py"), *(REPO / "notebooks").glob("*.ipynb")]):
        digest.update(path.relative_to(REPO).as_posix().encode() + path.read_bytes())
    return f"{__version__}, sources {digest.hexdigest()[:12]}"


@dataclass(frozen=True)
class Results:
    """A notebook's results: data first, pictures second.

    Parameters
    ----------
    folder : Path
        ``reports/<run>/tables/<notebook>``.
    provenance : dict
        See :meth:`Project.provenance`.
    """

    folder: Path
    provenance: dict[str, str]

    def table(self, frame: pd.DataFrame, name: str, *, columns: list[str] | None = None) -> Styler:
        """Write a small table as csv, numbers to 6 digits; gives it back for the cell to show.

        In the file, a text that a spreadsheet program would run has an apostrophe before it
        (:func:`ecmf_lib.review_csv.guarded_table`).

        Parameters
        ----------
        columns : list of str, optional
            The ones to show; all are written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        guarded = guarded_table(frame)
        # Python's csv leaves a carriage return outside quotes, where it ends the row
        split = guarded.map(lambda value: isinstance(value, str) and "\r" in value).any(axis=None)
        quoting = csv.QUOTE_ALL if split else csv.QUOTE_MINIMAL
        guarded.to_csv(
            self.folder / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n", quoting=quoting
        )
        return readable(frame if columns is None else frame[columns], name)

    def predictions(self, frame: pd.DataFrame, name: str = "predictions") -> Path:
        """Write predictions (one row a model, seed and clip) as parquet: what every score is computed from."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}.parquet"
        frame.to_parquet(path, index=False)
        return path

    def headline(self, title: str, figures: dict[str, str], *, figure: Figure) -> None:
        """What the index shows of this notebook: a title, a few figures with their names, and a picture."""
        self.folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.folder / "thumbnail.png", dpi=100, bbox_inches="tight")
        content = {"title": title, "figures": figures, "provenance": self.provenance}
        text = json.dumps(content, indent=1, ensure_ascii=False)
        (self.folder / "headline.json").write_text(text + "\n", encoding="utf-8")


def readable(frame: pd.DataFrame, name: str) -> Styler:
    """A table as a page shows it: rounded, without the row numbers, what people said escaped.

    Parameters
    ----------
    name : str
        Unique on the page. pandas would draw a random one, and no two reports would be the same.
    """
    left = [{"selector": "", "props": "text-align: left"}]  # for words; numbers stand best at the right
    return (
        Styler(frame.reset_index(drop=True), uuid=name, cell_ids=False)
        .set_table_styles({column: left for column in frame.columns if not is_numeric_dtype(frame[column])})
        .format(precision=3, na_rep="", escape="html")
        .format_index(escape="html", axis=1)
        .hide()
    )
