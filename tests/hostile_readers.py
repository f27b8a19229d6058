"""What a user calls for a file of each kind: the ``ecmf`` command itself, or what it calls, inside ``run.refusals``.

A reader is given the hostile file or folder and the folder of good material, and says in a few words what came of it.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
from pathlib import Path

import hostile_material as material
import numpy as np
import typer
from typer.testing import CliRunner

from ecmf_lib.config import EMOTIONS, NOTEBOOKS, check_parameters
from ecmf_lib.run import _assignments, app, language_model, refusals, swaps


class Refused(Exception):
    """The user was told why; the message is what they read."""


def command(*arguments: str, fine: tuple[int, ...] = (0,)) -> str:
    """Run ``ecmf ARGUMENTS`` as a person would; exit statuses in `fine` count as handled."""
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code not in fine:
        raise Refused(result.output)
    return result.output[-200:]


@contextlib.contextmanager
def refusing():
    """The same for what a notebook or another command calls: its message in place of the exit."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), refusals():
            yield
    except typer.Exit:
        raise Refused(said.getvalue()) from None


def check(path: Path, good: Path) -> str:
    """A corpus of any kind."""
    return command("check", str(path))


def extract(path: Path, good: Path) -> str:
    """A corpus of ready-made features: opened, imported into a store, and read back."""
    return command("extract", str(path))


def clip(path: Path, good: Path) -> str:
    """A folder with a manifest and one clip: what a decoding worker makes of it, which goes into the ledger."""
    from ecmf_lib.adapters import open_corpus
    from ecmf_lib.clip_task import FACTS, ClipTask, Job
    from ecmf_lib.encoders import profile
    from ecmf_lib.faces import get_detector
    from ecmf_lib.shards import FAILED, Pair

    with refusing():
        corpus = open_corpus(str(path))
        encoders = {name: made for name, made in profile("light").items() if name != "text"}
        task = ClipTask(encoders, get_detector("lbp"), 4, str(corpus.root))
        said = []
        for one in corpus:
            pairs = {part: Pair(one.id, "key") for part in (*encoders, FACTS)}
            for part, (row, steps) in task(Job(one, pairs, 0)).items():
                assert (row.state == FAILED) <= bool(row.reason), f"{part} failed without a reason"
                assert steps is None or np.isfinite(steps).all(), part
                if row.state == FAILED:
                    said.append(row.reason)
    if said:
        raise Refused(said[0])
    return "decoded"


def clips(path: Path, good: Path) -> str:
    """A folder with many clips, through the extraction with its worker processes: each is in the ledger."""
    from ecmf_lib.adapters import open_corpus
    from ecmf_lib.encoders import profile
    from ecmf_lib.extract import extract
    from ecmf_lib.faces import get_detector

    with refusing():
        corpus = open_corpus(str(path))
        encoders = {name: made for name, made in profile("light").items() if name in ("global", "audio")}
        lbp = get_detector("lbp")
        ledger = extract(corpus, path / "store", encoders, lbp, n_frames=4, workers=2, progress=False)
    assert len(ledger) == len(corpus) and (ledger["reason"] != "")[ledger["status"] == "failed"].all()
    return f"{len(ledger)} clips, {(ledger['status'] == 'failed').sum()} failed"


def npy_folder(path: Path, good: Path) -> str:
    """The official baseline's folder with one npy a clip."""
    from ecmf_lib.interchange import import_npy_folder
    from ecmf_lib.store import FeatureStore

    with refusing():
        store = FeatureStore(path.parent / "imported")
        level = {} if path.name.endswith(("-UTT", "-FRA")) else {"level": "clip"}
        made = import_npy_folder(store, path, stream="face", corpus_name="six", **level)
        matrix, present = made.matrix(made.ids or material.ids())
    assert np.isfinite(matrix).all()
    reasons = made.index.loc[made.index["state"] != "done", "reason"]
    assert (reasons != "").all()
    if len(reasons):
        raise Refused(f"{made.index.loc[reasons.index[0], 'id']}.npy: {reasons.iloc[0]}")
    return f"{present.sum()} clips"


def store(path: Path, good: Path) -> str:
    """A feature store: listed, each set opened, checked and read."""
    from ecmf_lib.store import FeatureStore

    with refusing():
        found = FeatureStore(path)
        table, damaged = found.sets(), []
        for name in sorted(folder.name for folder in (path / "sets").iterdir()):
            one = found.open(name)
            damaged += one.verify()
            matrix, _ = one.matrix(material.ids(), pool="max")
            assert matrix.shape == (6, one.dim)
            for id in one.ids:
                one.get(id)
    if damaged:
        raise Refused(damaged[0])
    return f"{len(table)} sets"


def shards(path: Path, good: Path) -> str:
    """A store whose features are imported again on top of what is there: what is broken is written anew."""
    from ecmf_lib.interchange import import_arrays
    from ecmf_lib.store import FeatureStore

    with refusing():
        about = {"corpus_name": "six", "corpus_fingerprint": "0" * 16, "source": "made"}
        streams = {"face": material.features()["face"]}
        made = import_arrays(FeatureStore(path), ids=material.ids(), streams=streams, **about)
        matrix, present = made["face"].matrix(material.ids())
        damaged = made["face"].verify()
    assert present.all()
    if damaged:  # features that were changed under a header that is whole: found out by who looks
        raise Refused(damaged[0])
    np.testing.assert_array_equal(matrix, streams["face"])
    return "mended"


def ledger(path: Path, good: Path) -> str:
    """The ledger of an extraction, and the memory of digests beside it."""
    from ecmf_lib.extract import read_ledger
    from ecmf_lib.shards import FileDigests
    from ecmf_lib.store import FeatureStore

    with refusing():
        digests = FileDigests(path / ".cache" / "digests.jsonl")
        assert isinstance(digests.of(good / "clip.wav"), str)
        table = read_ledger(FeatureStore(path), "six")
        assert all(isinstance(name, str) for pair in table.attrs["sets"].items() for name in pair)
        failed = table[table["status"] == "failed"]
    return f"{len(table)} clips, {len(failed)} failed"


def bundle(path: Path, good: Path) -> str:
    """A trained bundle: loaded, asked for its streams, and used."""
    from ecmf_lib.ensemble import Bundle
    from ecmf_lib.predicting import settings_of

    with refusing():
        found = Bundle.load(path)
        chances, _ = found.predict(material.clip_data())
        assert np.isfinite(chances).all() and chances.shape[1] == len(found.classes) and found.commonest
        settings_of(found, "files")
    return "predicted"


def predict(path: Path, good: Path) -> str:
    """``ecmf predict`` with a bundle that is to be refused before anything is decoded."""
    return command("predict", str(good / "clip.wav"), "--bundle", str(path), fine=())


def files(path: Path, good: Path) -> str:
    """Media files as ``ecmf predict`` finds them in a folder."""
    from ecmf_lib.clip_files import clip_files

    with refusing():
        csv = path / "transcripts.csv"
        found = clip_files(path, csv if csv.is_symlink() or csv.exists() else None)
    assert (found.failed["reason"] != "").all()
    return f"{len(found.files)} clips, {len(found.failed)} refused"


def submission(path: Path, good: Path) -> str:
    """``ecmf submit --check``; problems that it lists (exit status 1) are its answer."""
    return command("submit", "--check", str(path), "--candidates", str(good / "candidates.csv"), fine=(0, 1))


def candidates(path: Path, good: Path) -> str:
    """The list of candidates of the same command."""
    return command("submit", "--check", str(good / "submission.csv"), "--candidates", str(path), fine=(0, 1))


def source(path: Path, good: Path) -> str:
    """A csv that says more about labels."""
    from ecmf_lib.sources import read_source

    with refusing():
        found = read_source(path, material.ids(), EMOTIONS)
    return f"{found.speaks.sum()} clips"


def review(path: Path, good: Path) -> str:
    """A csv of a human's decisions."""
    from ecmf_lib.review import read_review

    with refusing():
        found = read_review(path, material.ids(), EMOTIONS)
    return f"{len(found)} decisions"


def cache(path: Path, good: Path) -> str:
    """The cache of a language model's answers."""
    from ecmf_lib.enrich_cache import Replies
    from ecmf_lib.enrich_talk import Reply

    asked = material.requests()
    with refusing(), Replies(path) as replies:
        found = replies.get([request.key for request in asked])
        for reply in found.values():
            assert [type(part) for part in reply] == [str, str, int, int, str]
        replies.put([(asked[0], "clip0", Reply("more", "stop"))])
    return f"{len(found)} answers"


def prompt(path: Path, good: Path) -> str:
    """A prompt file in place of the project's own."""
    from ecmf_lib import enrich_prompt

    before, enrich_prompt.PROMPTS = enrich_prompt.PROMPTS, path.parent
    enrich_prompt.load_prompt.cache_clear()
    try:
        with refusing():
            return enrich_prompt.load_prompt("v1", "en").name
    finally:
        enrich_prompt.PROMPTS = before
        enrich_prompt.load_prompt.cache_clear()


def parameters(path: Path, good: Path) -> str:
    """Notebook parameters: a json file with ``given`` (a dict) or with options of the command line."""
    told = json.loads(path.read_text("utf-8"))
    with refusing():
        if "given" in told:
            for notebook in NOTEBOOKS:
                check_parameters(notebook, told["given"])
        swaps(told.get("encoder"))
        language_model(told.get("llm"))
        chosen = _assignments(told.get("set"))
        check_parameters("03_fuse_and_ablate", {k: v for k, v in chosen.items() if k != "sources"})
    return "taken"


def notebook(path: Path, good: Path) -> str:
    """A notebook of the checkout, executed by ``ecmf report``; a cell that fails is a page that says so."""
    from ecmf_lib import report

    name = "00_start_here"
    before, report.SOURCES = report.SOURCES, path.parent
    try:
        with refusing():
            (outcome,) = report.run_notebooks(
                path.parent / "run", {}, notebooks=[name], force=True, say=lambda line: None
            )
    finally:
        report.SOURCES = before
    assert (path.parent / "run" / f"{name}.html").is_file() and (path.parent / "run" / "index.html").is_file()
    return f"{outcome.status} {outcome.error[:100]}"


def report_folder(path: Path, good: Path) -> str:
    """A folder of reports that somebody else has written: the index is made of what is there."""
    from ecmf_lib import report

    with refusing():
        report.write_index(path, report._State(path).statuses())
    page = (path / "index.html").read_text("utf-8")
    outside = [base64.b64encode(text).decode()[:7] for text in (b"SECRET", b"root:x")]
    assert "<script" not in page and not any(text in page for text in outside)
    return f"{len(page)} characters"
