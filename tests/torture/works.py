"""The four kinds of long work that are disturbed: what each does, and what its results are.

:func:`run_work` is the life of a child process. It is forked from a clean server process that has imported all of this
already, so that a child is at work at once and a moment drawn at random falls into the work, not into imports.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import resource
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import fault_server
import fusion_clips
import numpy as np
import pandas as pd
from delicate import Delicate

from ecmf_lib.adapters import open_corpus
from ecmf_lib.encoders import profile
from ecmf_lib.enrich import EnrichError, LLMEnricher, enrich, enrichment_table
from ecmf_lib.extract import extract, read_ledger
from ecmf_lib.faces import get_detector
from ecmf_lib.samples import DataError
from ecmf_lib.self_training import Rounds, self_train
from ecmf_lib.shards import StoreError, write_file
from ecmf_lib.store import FeatureStore
from ecmf_lib.train import ModelSpec, cross_validate_all

CLIPS, ASKED, CONCURRENCY = 24, 150, 4
CLEAN, REFUSED, BROKEN = 0, 3, 4  # exit codes of a child
_MENDABLE = (StoreError, EnrichError, DataError, OSError)  # what the command shows as one readable message


class Extraction:
    """Light features of demo clips by two worker processes."""

    name = "extraction"

    @staticmethod
    def do(place: Path, given: dict) -> None:
        using = profile("light") | {"delicate": Delicate()}
        how = {"n_frames": 4, "shard_size": 3, "progress": False, "workers": 2} | given.get("how", {})
        extract(open_corpus(given["material"]), place / "store", using, get_detector("lbp"), **how)

    @staticmethod
    def files(place: Path) -> list[Path]:
        store = place / "store"
        hidden = {store / ".lock"}
        return [path for path in _files(store) if path not in hidden and ".cache" not in path.relative_to(store).parts]

    @staticmethod
    def rows(place: Path) -> list[tuple]:
        """Of the ledger and of the index of every set."""
        store = FeatureStore(place / "store")
        ledger = read_ledger(store, "demo")
        found = [("ledger", *map(str, row)) for row in ledger.itertuples(index=False)]
        for stream, name in ledger.attrs["sets"].items():
            features = store.open(name)
            for row in features.index.itertuples(index=False):
                digest = hashlib.sha256(features.get(row.id).tobytes()).hexdigest() if row.state == "done" else ""
                found.append((stream, row.id, row.state, row.reason, digest))
        return found

    @staticmethod
    def units(place: Path) -> dict[str, int]:
        """Finished pieces → what changes if one is made again."""
        return {path.name: path.stat().st_ino for path in _files(place / "store") if path.parent.name == "shards"}


class Enriching:
    """Answers of a server that are kept in SQLite."""

    name = "enrichment"

    @staticmethod
    def do(place: Path, given: dict) -> None:
        enricher = LLMEnricher(given["url"], "m", concurrency=CONCURRENCY, attempts=2, first_wait=0.01)
        enriched = enrich(fault_server.clips(ASKED), enricher, cache=place / "answers.sqlite", progress=False)
        _put(place / "result.csv", enrichment_table(enriched).to_csv(index=False).encode())

    @staticmethod
    def files(place: Path) -> list[Path]:
        return [path for path in [place / "result.csv"] if path.exists()]  # the cache holds times; its rows are below

    @staticmethod
    def rows(place: Path) -> list[tuple]:
        """Of the table and of the cache."""
        table = pd.read_csv(place / "result.csv", keep_default_na=False)
        return [tuple(map(str, row)) for row in table.itertuples(index=False)] + sorted(_answers(place).items())

    @staticmethod
    def units(place: Path) -> dict[str, int]:
        return {key: made for key, (*_, made) in _answers(place, "rowid").items()}


def _answers(place: Path, *more: str) -> dict[str, tuple]:
    path = place / "answers.sqlite"
    if not path.is_file():
        return {}
    base = sqlite3.connect(path)
    try:
        asked = f"SELECT hex(key), clip, text, finish, failure {''.join(', ' + name for name in more)} FROM replies"
        return {key: tuple(rest) for key, *rest in base.execute(asked)}
    except sqlite3.OperationalError:  # killed before the table was there
        return {}
    finally:
        base.close()


class Grid:
    """Folds of several models."""

    name = "grid"
    models: ClassVar = (
        ModelSpec("experts", "linear-experts"),
        ModelSpec("logistic", "logistic"),
        ModelSpec("stacked", "stacked"),
        ModelSpec("concat", "concat", options=fusion_clips.NEURAL),
    )

    @classmethod
    def do(cls, place: Path, given: dict) -> None:
        data = fusion_clips.clips(np.random.default_rng(8), n=160, speakers=10)
        models = [(data, spec) for spec in cls.models]
        how = {"n_folds": 4, "seeds": (0, 1), "epochs": 12, "progress": False} | given.get("how", {})
        _put(
            place / "result.csv", pd.concat(cross_validate_all(models, folder=place / "folds", **how)).to_csv().encode()
        )

    @staticmethod
    def files(place: Path) -> list[Path]:
        return [path for path in _files(place) if path.suffix in (".parquet", ".csv")]

    @staticmethod
    def rows(place: Path) -> list[tuple]:
        return _rows(place)

    @staticmethod
    def units(place: Path) -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in (place / "folds").glob("*.parquet")}


class SelfTraining:
    """Rounds of self-training."""

    name = "self-training"

    @staticmethod
    def do(place: Path, given: dict) -> None:
        data = fusion_clips.clips(np.random.default_rng(8), n=260, speakers=10, signal=2.5)
        few, rest = data.select(np.arange(80)), data.select(np.arange(80, 260))
        rest = fusion_clips.changed(rest, labels=np.zeros(180, int), weight=np.zeros(180))
        found = self_train(few, few.speakers, rest, rounds=Rounds(most=4), folder=place / "rounds")
        text = found.pseudo.to_csv() + found.rounds.to_csv() + found.data.fingerprint() + "\n"
        _put(place / "result.csv", text.encode())

    @staticmethod
    def files(place: Path) -> list[Path]:
        return [path for path in _files(place) if path.suffix in (".json", ".csv") and path.parent.name[0] != "."]

    @staticmethod
    def rows(place: Path) -> list[tuple]:
        return _rows(place)

    @staticmethod
    def units(place: Path) -> dict[str, int]:
        return {path.name: path.stat().st_ino for path in (place / "rounds").glob("*.json")}


WORKS = {work.name: work for work in (Extraction, Enriching, Grid, SelfTraining)}


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def _rows(place: Path) -> list[tuple]:
    return [(line,) for line in (place / "result.csv").read_text("utf-8").splitlines()]


def _put(path: Path, content: bytes) -> None:
    write_file(path, content, path.parent / "writing")


def content(kind: str, place: Path) -> dict[str, str]:
    """File of the result → digest."""
    files = WORKS[kind].files(place)
    return {str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def lost_and_duplicated(kind: str, place: Path, expected: list[tuple]) -> tuple[int, int]:
    """Rows of an undisturbed run that are not there (or are otherwise), and rows that are there too often."""
    found, wanted = Counter(WORKS[kind].rows(place)), Counter(expected)
    extra = found - wanted
    return (wanted - found).total(), sum(count for row, count in extra.items() if row in wanted)


# ------------------------------------------------------------------------------------------------ in a child


def run_work(kind: str, place: Path, given: dict) -> None:
    """Do a piece of work and end with an exit code; ``<place>.said`` holds the message if it was refused or broke."""
    os.setsid()
    os.environ.update(given.get("environment", {}))
    said = place.with_name(f"{place.name}.said")
    try:
        MISHAPS[given.get("mishap", "none")](given)
        WORKS[kind].do(place, given)
    except _MENDABLE as error:
        said.write_text(f"{type(error).__name__}: {error}", "utf-8")
        os._exit(REFUSED)  # not sys.exit: what a library does at the end is not under test
    except BaseException as error:
        said.write_text(json.dumps(f"{type(error).__name__}: {error}"), "utf-8")
        os._exit(BROKEN)
    os._exit(CLEAN)


def _clock_goes_back(given: dict) -> None:
    """Every look at the clock is ten seconds before the one before, and begins a year ago."""
    began, steps = time.time() - 365 * 86400, itertools.count()
    time.time = lambda: began - 10.0 * next(steps)
    time.time_ns = lambda: int(1e9 * time.time())


def _small_files(given: dict) -> None:
    """For a machine on which no small file system can be mounted: no file may grow over this."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (given["bytes"], resource.RLIM_INFINITY))


def _no_space(given: dict) -> None:
    """The disk is full when the n-th file is brought to it."""
    real, calls = os.fsync, itertools.count(1)

    def fsync(file: int) -> None:
        if next(calls) >= given["after"]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file)

    os.fsync = fsync


MISHAPS: dict[str, Callable[[dict], None]] = {
    "none": lambda given: None,
    "clock": _clock_goes_back,
    "small files": _small_files,
    "no space": _no_space,
}
