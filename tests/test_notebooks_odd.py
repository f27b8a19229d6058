"""Corpora that lack something are reported on, by every notebook that has something to say."""

import json
import shutil

import pandas as pd
from conftest import no_workers
from test_notebooks import TINY
from typer.testing import CliRunner
from without_kernel import without_kernels

from ecmf_lib.demo import make_demo
from ecmf_lib.run import app


def odd_corpora(folder):
    """Corpora that people have, each with a part missing: what it is → manifest, made from six talking clips."""
    make_demo(folder, n_clips=12, workers=1, progress=False)
    clips = pd.read_csv(folder / "manifest.csv", keep_default_na=False, dtype=str)
    clips["label"] = ["happy", "sad"] * 6
    clips["split"] = "labelled"
    (folder / "bad.mp4").write_bytes(b"")
    yield "no transcripts, no speakers", clips.assign(transcript="", speaker="")
    yield "no labels", clips.assign(label="", split="unlabelled")
    yield "some fail", clips.assign(video=["bad.mp4"] * 3 + clips["video"].tolist()[3:])
    yield "all fail", clips.assign(video="bad.mp4", transcript="")
    yield "text only", clips.assign(video="")


def test_odd_corpora_are_reported_not_crashed_on(tmp_path, monkeypatch):
    monkeypatch.setenv("ECMF_DATA", str(tmp_path / "data"))
    no_workers(monkeypatch)
    without_kernels(monkeypatch)
    demo = tmp_path / "demo"
    tiny = [word for setting in (*TINY, "workers=1") for word in ("--set", setting)]
    for what, manifest in odd_corpora(demo):
        folder = tmp_path / what.replace(" ", "-").replace(",", "")
        folder.mkdir()
        shutil.copytree(demo / "video", folder / "video")
        shutil.copy(demo / "bad.mp4", folder)
        manifest.to_csv(folder / "manifest.csv", index=False)
        result = CliRunner().invoke(app, ["report", str(folder), "--output", str(tmp_path / f"run {what}"), *tiny])
        assert result.exit_code == 0, f"{what}: {result.output}"
        said = json.loads((tmp_path / f"run {what}/tables/01_extract_features/headline.json").read_text())
        done = {"some fail": 9, "all fail": 0}.get(what, 12)
        assert said["figures"]["done"] == f"{done} of 12 clips", what
        skips = what in ("no labels", "all fail")
        assert skips == ("03_fuse_and_ablate: skipped" in result.output), what
        assert (what in ("all fail", "text only")) == ("00_start_here: skipped" in result.output), what
