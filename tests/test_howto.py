"""Every how-to page is run, block after block, on a small corpus; its links lead somewhere."""

import re
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import REPO, no_workers
from fault_server import FaultServer
from howto import RUN, Block, blocks, run_page

from ecmf_lib import encoders, fusion, fusion_registry
from ecmf_lib.adapters import open_corpus
from ecmf_lib.demo import make_demo
from ecmf_lib.study import close_workers

PAGES = sorted((REPO / "docs/howto").glob("*.md"))
#: Blocks that tests run elsewhere, or that need what no test has.
NOT_RUN = {"own_corpus": 1, "challenge": 1, "attach_llm": 2, "cluster": 3}
TINY = {"n_folds": 2, "seeds": (0,), "epochs": 2, "progress": False}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A demo corpus of 18 clips with its features, where a run looks for the demo. A store belongs to its place."""
    from ecmf_lib.config import Settings
    from ecmf_lib.project import open_project

    folder = tmp_path_factory.mktemp("howto") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECMF_DATA", str(folder))
        no_workers(patch)
        make_demo(folder / "demo", n_clips=18, workers=1, progress=False)
        patch.setattr("ecmf_lib.adapters.make_demo", lambda place: place)
        open_project(Settings(corpus="demo"), progress=False)
    return folder


@pytest.fixture
def here(demo, tmp_path, monkeypatch):
    """An empty folder, taken for the checkout's, with the small demo corpus."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("ECMF_DATA", str(demo))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    # a reader is in the folder of the checkout, from which relative paths of settings are taken
    monkeypatch.setattr(
        "ecmf_lib.project.open_corpus", lambda spec, base: open_corpus(spec, base=base if ".." in spec else tmp_path)
    )
    monkeypatch.setattr("ecmf_lib.study_predict.resolve", lambda path: tmp_path / path)
    monkeypatch.setattr("ecmf_lib.adapters.make_demo", lambda place: place)  # the small one is there
    yield tmp_path
    close_workers()


def page(name):
    return REPO / f"docs/howto/{name}.md"


def clips_of(demo, folder, names):
    """The first demo clips under other names."""
    folder.mkdir(parents=True)
    for name, clip in zip(names, sorted((demo / "demo/video").glob("*.mp4")), strict=False):
        shutil.copy(clip, folder / f"{name}.mp4")


def test_own_corpus(here, demo, monkeypatch):
    no_workers(monkeypatch)
    clips_of(demo, here / "my_corpus/clips", ["anna_01", "anna_02", "ben_01", "ben_02", "cleo_01"])
    ran = run_page(page("own_corpus"), here)
    assert "my_corpus: 5 clips, 0 left out; folds would hold speakers apart" in ran.said[0]
    assert "my_corpus: 5 clips done, 0 failed, 0 left out" in ran.said[1]
    assert ran.names["data"].labels.tolist() == [5, 1, 0, 2] and "cleo" not in ran.names["data"].speakers
    assert "5 clips" in (here / "DATA_CARD.md").read_text(encoding="utf-8")
    pd.DataFrame(
        {"Sr No.": ["1", "2"], "Utterance": ["Hi.", "No."], "Emotion": ["joy", "disgust"], "Speaker": ["a", "b"]}
    ).to_csv(here / "theirs/utterances.csv", index=False)
    theirs = open_corpus(str(here / "theirs"))
    assert theirs.clips["label"].tolist() == ["happy"] and len(theirs.left_out) == 1


def test_challenge(here, demo, monkeypatch):
    no_workers(monkeypatch)
    monkeypatch.setattr("ecmf_lib.study_predict.usable_cores", lambda: 1)
    folder = here / "MER2025"
    manifest = pd.read_csv(demo / "demo/manifest.csv", dtype=str, keep_default_na=False)
    names = [f"samplenew_{i:08d}" for i in range(len(manifest))]
    clips_of(demo, folder / "video", names)
    known = manifest["label"] != ""
    known.iloc[-3:] = False
    table = pd.DataFrame({"name": names, "discrete": manifest["label"], "valence": 0})
    table[known].to_csv(folder / "track1_train_disdim.csv", index=False)
    table.loc[~known, ["name"]].to_csv(folder / "track_all_candidates.csv", index=False)
    words = pd.DataFrame({"name": names, "chinese": "我没事。", "english": manifest["transcript"]})
    words.to_csv(folder / "subtitle_chieng.csv", index=False)
    pd.DataFrame({"name": names, "speaker": [f"s{i % 4}" for i in range(len(names))]}).to_csv(
        folder / "speakers.csv", index=False
    )
    ran = run_page(page("challenge"), here)
    assert ran.names["case"].unit == "speaker"
    assert f"ok, {int((~known).sum())} rows" in ran.said[-1]
    assert len(pd.read_csv(here / "submission.csv")) == (~known).sum()
    card = (here / "MER2025-bundle-MODEL_CARD.md").read_text(encoding="utf-8")
    assert "CC BY-NC 4.0" in card and "Speakers with the fewest right answers" in card
    assert "| gender | f | 2 |" in card


def test_add_encoder(here, monkeypatch):
    monkeypatch.setattr("ecmf_lib.encoders._FACTORIES", dict(encoders._FACTORIES))
    monkeypatch.setattr("ecmf_lib.extract.usable_cores", lambda: 1)
    # with a real worker process, which has to find the class
    ran = run_page(page("add_encoder"), here, {"how": TINY})
    assert ran.names["mine"].sets["audio"].encoder == "loudness" and ran.names["mine"].sets["audio"].dim == 4
    kept = ran.names["usual"].sets["face"].about["fingerprint"]
    assert ran.names["mine"].sets["face"].about["fingerprint"] == kept, "the other streams are as they were"
    assert set(ran.names["ours"]["id"]) == set(ran.names["theirs"]["id"])


def test_add_fusion(here, monkeypatch):
    monkeypatch.setattr(fusion, "FUSIONS", dict(fusion.FUSIONS))
    monkeypatch.setattr(fusion_registry, "_OWN", {})
    ran = run_page(page("add_fusion"), here, {"how": TINY})  # worker processes: test_fusion_registry.py
    for table in ran.names["tables"].values():
        np.testing.assert_allclose(table.filter(regex="^p_").sum(axis=1), 1, atol=1e-5)


def test_attach_llm(here, monkeypatch):
    no_workers(monkeypatch)
    with FaultServer() as server:
        ran = run_page(page("attach_llm"), here, {"base_url": server.url})
        asked = len(server.asked)
    enriched = ran.names["project"].enriched
    assert asked >= len(enriched) and (enriched["by"] != "cues").sum() >= len(enriched) / 2
    assert "not on this machine" in ran.said[0]


def test_cluster(here, monkeypatch):
    no_workers(monkeypatch)
    ran = run_page(page("cluster"), here)
    assert "demo: 4 clips done" in ran.said[0]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_is_run_or_says_why_not(path):
    text = path.read_text(encoding="utf-8")
    found = blocks(text)
    assert text.count("```") == 2 * len(found), "a fence that is not closed, or not at the start of a line"
    left_out = [block for block in found if block.mark == "not run"]
    assert len(left_out) == NOT_RUN.get(path.stem, 0) and all(block.said for block in left_out)
    if path.stem != "README":
        assert any(block.language in RUN and block not in left_out for block in found)
        assert f"def test_{path.stem}(" in (REPO / "tests/test_howto.py").read_text(encoding="utf-8")
        assert "**You need**" in text and "| mend |" in text
        assert f"({path.name})" in (REPO / "docs/howto/README.md").read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        generated = link == "../api/index.html"  # by make docs
        assert generated or link.startswith("https://") or (path.parent / link).exists(), link


def test_the_runner_runs_skips_and_fails(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "```python\na = 1\n```\n<!-- not run: dear -->\n```sh\nrm -r x\n```\n"
    text += "<!-- fails: KeyError -->\n```python\n{}[a]\n```\n"
    (tmp_path / "page.md").write_text(text)
    assert blocks(text)[1] == Block("sh", "rm -r x\n", "not run", "dear", 6)
    ran = run_page(tmp_path / "page.md", tmp_path)
    assert (ran.names["a"], ran.skipped, ran.said) == (1, ["dear"], ["1"])
    (tmp_path / "page.md").write_text(text.replace("{}[a]", "a"))
    with pytest.raises(AssertionError, match="line 10: expected KeyError"):
        run_page(tmp_path / "page.md", tmp_path)
    (tmp_path / "page.md").write_text("```sh\nls\n```\n")
    with pytest.raises(AssertionError, match="only ecmf"):
        run_page(tmp_path / "page.md", tmp_path)
