"""Good files of every kind that the library reads, small, to be broken by ``tests/hostile.py``."""

from __future__ import annotations

import json
import shutil
import wave
from pathlib import Path

import av
import nbformat
import numpy as np
import pandas as pd

from ecmf_lib.config import EMOTIONS

STREAMS = {"face": 6, "audio": 9}
#: Real files to break besides, where they lie beside the checkout.
REAL = Path(__file__).resolve().parents[2] / "shared" / "real"
REAL_FILES = {
    "real-mp4": "ravdess_clips/01-01-01-01-01-01-01_neutral_face20.mp4",
    "real-flac": "ravdess_audio/03-01-01-01-01-01-12_neutral.flac",
}


def make_material(folder: Path) -> Path:
    """Write all of it into an empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    _media(folder)
    _tables(folder)
    _arrays(folder)
    _store(folder / "store")
    _bundle(folder / "bundle")
    _cache(folder / "answers.sqlite")
    _notebook(folder / "notebook.ipynb")
    for name, path in REAL_FILES.items():
        if (REAL / path).is_file():
            shutil.copy(REAL / path, folder / f"{name}{Path(path).suffix}")
    return folder


def ids(n: int = 6) -> list[str]:
    """Ids of the clips that all this material is about."""
    return [f"clip{i}" for i in range(n)]


def _media(folder: Path) -> None:
    from ecmf_lib.demo import make_demo

    demo = make_demo(folder / "demo", n_clips=6, workers=1, progress=False)
    shutil.copy(min(demo.rglob("*.mp4"), key=lambda path: path.stat().st_size), folder / "clip.mp4")
    sound = (0.3 * np.sin(np.arange(16_000) / 20) * 32767).astype("<i2")
    with wave.open(str(folder / "clip.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(sound.tobytes())
    with av.open(str(folder / "clip.flac"), "w") as out:
        stream = out.add_stream("flac", rate=16_000)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)


def _tables(folder: Path) -> None:
    n = 6
    table = pd.DataFrame({"id": ids(n), "transcript": [f"So that is number {i}, isn’t it?" for i in range(n)]})
    table["language"], table["label"] = "en", [EMOTIONS[i % 3] for i in range(n)]
    table["speaker"], table["annotator_1"] = [f"s{i % 3}" for i in range(n)], table["label"]
    table.to_csv(folder / "manifest.csv", index=False)
    table.to_parquet(folder / "manifest.parquet")
    columns = 'columns = {id = "id", label = "label"}\n'
    (folder / "corpus.toml").write_text(f'table = "manifest.csv"\nname = "six"\n{columns}')
    table[["id", "label"]].to_csv(folder / "source.csv", index=False)
    table[["id"]].rename(columns={"id": "name"}).to_csv(folder / "candidates.csv", index=False)
    named = table[["id", "label"]].rename(columns={"id": "name", "label": "discrete"})
    named.to_csv(folder / "submission.csv", index=False)
    review = table[["id"]].assign(decision=["keep", "drop", "happy", "", "", ""], note="")
    review.to_csv(folder / "review.csv", index=False)


def features(n: int = 6, seed: int = 0) -> dict[str, np.ndarray]:
    """Stream → float32 [n, dim]."""
    rng = np.random.default_rng(seed)
    return {stream: rng.normal(size=(n, dim)).astype(np.float32) for stream, dim in STREAMS.items()}


def labelled() -> dict[str, np.ndarray]:
    """The arrays of an npz table of features."""
    return {"id": np.array(ids()), "label": np.array([EMOTIONS[i % 3] for i in range(6)]), **features()}


def _arrays(folder: Path) -> None:
    np.savez_compressed(folder / "features.npz", **labelled())
    np.save(folder / "array.npy", features()["face"][0])


def _store(root: Path) -> None:
    from ecmf_lib.extract import _ledger_folder, _ledger_table
    from ecmf_lib.interchange import import_arrays
    from ecmf_lib.shards import write_table
    from ecmf_lib.store import FeatureStore

    store, arrays = FeatureStore(root), features()
    steps = [np.repeat(row[None], 3, axis=0) for row in arrays.pop("audio")]
    about = {"corpus_name": "six", "corpus_fingerprint": "0" * 16, "source": "made"}
    made = import_arrays(store, ids=ids(), streams=arrays | {"audio": steps}, **about)
    rows = [{"id": id, "status": "done", "reason": "", "digest": "0"} | dict.fromkeys(made, "done") for id in ids()]
    named = {"sets": {stream: found.name for stream, found in made.items()}, "corpus": "six"}
    table = _ledger_table(rows, made).replace_schema_metadata({"ecmf": json.dumps(named)})
    write_table(_ledger_folder(store, "six") / "ledger.parquet", table, store.scratch)
    (root / ".lock").unlink()


def clip_data(seed: int = 0, n: int = 24):
    """Clips to train on and to predict."""
    from ecmf_lib.samples import FusionData

    labels, there = np.arange(n) % 3, {stream: np.ones(n, bool) for stream in STREAMS}
    speakers = [f"s{i % 4}" for i in range(n)]
    return FusionData([f"clip{i}" for i in range(n)], features(n, seed), there, labels, speakers, EMOTIONS[:3])


def _bundle(folder: Path) -> None:
    from ecmf_lib.bundle import train_bundle
    from ecmf_lib.fit import ModelSpec

    encoders = {stream: {"name": "made", "fingerprint": "0" * 16, "settings": {}} for stream in STREAMS}
    spec = ModelSpec("ECMF", "ecmf", options={"width": 8, "inner": 2, "batch": 16})
    how = {"n_folds": 2, "epochs": 1, "progress": False, "bootstrap": 50}
    about = {"corpus": "made", "extraction": {"imported": True}}
    train_bundle(clip_data(), spec, encoders=encoders, about=about, **how)[0].save(folder)


def requests() -> list:
    """What the cache of answers was asked."""
    from ecmf_lib.cues import Cues
    from ecmf_lib.enrich_talk import Setup, Talk

    return [Talk(Cues(id, f"words of {id}"), Setup("m", "{}", "v1")).request for id in ids()]


def _cache(path: Path) -> None:
    from ecmf_lib.enrich_cache import Replies
    from ecmf_lib.enrich_talk import Reply

    with Replies(path) as replies:
        replies.put([(request, "clip", Reply("answer " * 20, "stop", 3, 4)) for request in requests()])
        replies._base.execute("PRAGMA journal_mode = DELETE")  # all of it in one file


def _notebook(path: Path) -> None:
    cells = [nbformat.v4.new_markdown_cell("# One"), nbformat.v4.new_code_cell('corpus = "demo"\noutput = "x"')]
    cells[1].metadata["tags"] = ["parameters"]
    cells.append(nbformat.v4.new_code_cell("print(corpus)"))
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}}), path)
