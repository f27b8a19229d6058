"""What a bundle says of new clips: of a corpus, of a submission's candidates, of files that nobody has prepared."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from conftest import no_workers
from typer.testing import CliRunner

from ecmf_lib.bundle import Bundle, BundleError, encoders_of
from ecmf_lib.clip_files import clip_files
from ecmf_lib.config import EMOTIONS, Settings
from ecmf_lib.corpus import CorpusError
from ecmf_lib.fit import ModelSpec, fit
from ecmf_lib.interchange import import_arrays
from ecmf_lib.predicting import about_project, predict_clips, predict_path, settings_of, told
from ecmf_lib.project import open_project
from ecmf_lib.run import app
from ecmf_lib.samples import FusionData
from ecmf_lib.store import FeatureStore
from ecmf_lib.submit import SubmissionError
from ecmf_lib.submitting import submit_project

HOSTILE = "<img src=x onerror=alert(1)>"


def random_bundle(sets, about, seed=0):
    """Trained on noise, for features of these dimensions: who is right does not matter here."""
    rng = np.random.default_rng(seed)
    n, dims = 60, {name: found.dim for name, found in sets.items()}
    streams = {name: rng.normal(size=(n, dim)).astype(np.float32) for name, dim in dims.items()}
    there = {name: np.ones(n, bool) for name in dims}
    labels = np.arange(n) % 6
    data = FusionData([f"t{i}" for i in range(n)], streams, there, labels, [f"s{i % 5}" for i in range(n)], EMOTIONS)
    options = {"width": 8, "inner": 2, "members": 1}
    model = fit(data, ModelSpec("ECMF", "ecmf", options=options), seed=seed, epochs=1)
    about = {"class_clips": {"sad": 9, "happy": 3}, "steps": 0} | about
    return Bundle((model,), EMOTIONS, encoders_of(sets), about, 1.5)


@pytest.fixture(scope="module")
def project(six_clips, tmp_path_factory):
    """Six demo clips of which three are candidates: one good, one that cannot be decoded, one without words."""
    root = tmp_path_factory.mktemp("predicting")
    folder = shutil.copytree(six_clips, root / "clips")
    manifest = pd.read_csv(folder / "manifest.csv", dtype=str, keep_default_na=False)
    manifest.loc[[1, 3, 5], ["split", "label"]] = ["test", ""]
    manifest.loc[5, "transcript"] = ""
    (folder / manifest.loc[3, "video"]).write_bytes(b"\0" * 500)
    (folder / "demo.json").unlink()
    manifest.to_csv(folder / "manifest.csv", index=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECMF_DATA", str(root / "data"))
        no_workers(patch)
        settings = Settings(corpus=str(folder), frames=4, workers=1)
        yield open_project(settings, progress=False)


@pytest.fixture(scope="module")
def bundle(project):
    return random_bundle(project.sets, about_project(project))


@pytest.fixture(scope="module")
def saved(bundle, tmp_path_factory):
    return bundle.save(tmp_path_factory.mktemp("bundle") / "saved")


# ---- clips whose features are stored


@pytest.fixture
def sets(tmp_path, rng):
    """Two streams of five clips; c1 lacks one of them, c3 both."""
    arrays = {name: rng.normal(size=(5, dim)).astype(np.float32) for name, dim in (("face", 4), ("audio", 6))}
    arrays["face"][[1, 3]] = arrays["audio"][3] = np.nan
    ids = [f"c{i}" for i in range(5)]
    return import_arrays(
        FeatureStore(tmp_path / "store"),
        ids=ids,
        streams=arrays,
        source="made.npz",
        corpus_name="made",
        corpus_fingerprint="0",
    )


def test_every_clip_has_a_row_also_one_of_which_nothing_can_be_said(sets):
    made = random_bundle(sets, {})
    order = ["c3", "c0", "c4", "c1"]
    table = predict_clips(made, sets, pd.DataFrame({"id": order}))
    assert table["id"].tolist() == order
    assert list(table) == [
        "id",
        "predicted",
        *(f"p_{name}" for name in EMOTIONS),
        "w_face",
        "w_audio",
        "missing",
        "reason",
    ]
    assert table["missing"].tolist() == ["face, audio", "", "", "face"]
    nothing, *others = table.to_dict("records")
    assert nothing["predicted"] == "" and "NaN" in nothing["reason"] and np.isnan(nothing["p_happy"])
    assert all(row["reason"] == "" and row["predicted"] in EMOTIONS for row in others)
    chances = table.filter(regex="^p_").iloc[1:]
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    assert table["predicted"][1:].tolist() == [EMOTIONS[i] for i in chances.to_numpy().argmax(1)]
    assert table["w_face"][3] == 0 and table["w_audio"][3] == pytest.approx(1)


def test_a_prediction_does_not_hang_on_the_other_clips(sets):
    made = random_bundle(sets, {})
    whole = predict_clips(made, sets, pd.DataFrame({"id": [f"c{i}" for i in range(5)]}))
    alone = predict_clips(made, sets, pd.DataFrame({"id": ["c4"]}))
    np.testing.assert_allclose(alone.filter(regex="^p_").iloc[0], whole.filter(regex="^p_").iloc[4], atol=1e-6)
    assert predict_clips(made, sets, pd.DataFrame({"id": []})).empty


def test_features_of_another_encoder_version_are_refused(project, bundle):
    other = bundle.encoders["face"] | {"fingerprint": "f" * 16}
    old = replace(bundle, encoders=bundle.encoders | {"face": other})
    with pytest.raises(BundleError, match="'face'.*" + "f" * 16):
        predict_clips(old, project, project.corpus.clips)


def test_another_enricher_and_other_classes_are_refused(project, bundle):
    about = bundle.about | {"extraction": bundle.about["extraction"] | {"enricher": "llm"}}
    with pytest.raises(BundleError, match=r"enricher 'llm'.*'cues'"):
        predict_clips(replace(bundle, about=about), project, project.corpus.clips)
    others = replace(project, corpus=replace(project.corpus, classes=("negative", "positive")))
    with pytest.raises(BundleError, match="negative"):
        predict_clips(bundle, others, project.corpus.clips)


def test_a_clip_that_failed_is_not_predicted_from_what_little_there_is(project, bundle):
    table = predict_clips(bundle, project, project.corpus.clips)
    broken = table.iloc[3]
    assert broken["predicted"] == "" and "not a readable media file" in broken["reason"]
    assert (table.drop(index=3)["predicted"] != "").all()
    assert table["missing"][5] == "text"


def test_new_clips_get_the_settings_that_the_bundle_was_trained_with(project, bundle):
    found = settings_of(bundle, "elsewhere", weights="", device="cpu", workers=3)
    assert (found.corpus, found.device, found.workers) == ("elsewhere", "cpu", 3)
    own = project.settings
    assert (found.profile, found.frames, found.enricher, found.asr) == (own.profile, 4, own.enricher, own.asr)
    assert found.detector == project.detector.name
    with pytest.raises(BundleError, match="does not say"):
        settings_of(replace(bundle, about={}), "elsewhere")
    odd = bundle.about | {"extraction": bundle.about["extraction"] | {"frames": 0}}
    with pytest.raises(BundleError, match="frames"):
        settings_of(replace(bundle, about=odd), "elsewhere")


def test_a_bundle_keeps_no_address_and_no_secret_of_a_language_model(project):
    llm = {"base_url": "http://secret.example/v1", "model": "m", "options": {"key": "hunter2"}, "temperature": 0.1}
    asked = replace(project, settings=project.settings.model_copy(update={"enricher": "llm", "llm": llm}))
    about = about_project(asked)
    assert about["extraction"]["llm"] == {"model": "m", "temperature": 0.1}
    assert not re.search("secret|hunter2", str(about))


# ---- submissions


def test_a_candidate_without_a_prediction_gets_the_commonest_class_and_is_named(project, bundle, tmp_path):
    made = submit_project(bundle, project, tmp_path / "submission.csv")
    candidates = project.corpus.clips["id"].iloc[[1, 3, 5]].tolist()
    lines = made.path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "name,discrete" and [line.split(",")[0] for line in lines[1:]] == candidates
    assert lines[2].endswith(",sad") and made.commonest == "sad" and made.filled == 1 and made.problems.empty
    stored = pd.read_parquet(made.parquet)
    assert stored["id"].tolist() == candidates and stored["filled"].tolist() == [False, True, False]
    assert {"p_happy", "w_face"} <= set(stored)


def test_candidates_that_the_corpus_lacks_and_no_candidates_are_refused(project, bundle, tmp_path):
    with pytest.raises(SubmissionError, match="'nobody'"):
        submit_project(bundle, project, tmp_path / "s.csv", ["nobody"])
    labelled = replace(project, corpus=project.corpus.select(project.corpus.clips["id"].iloc[[0, 2]]))
    with pytest.raises(SubmissionError, match="split 'test'"):
        submit_project(bundle, labelled, tmp_path / "s.csv")
    with pytest.raises(SubmissionError, match=r"\.csv"):
        submit_project(bundle, project, tmp_path / "s.txt")
    assert not list(tmp_path.iterdir())


def test_the_command_writes_a_submission_and_checks_files(project, saved, tmp_path):
    target, names = tmp_path / "submission.csv", tmp_path / "candidates.csv"
    run = CliRunner().invoke
    result = run(app, ["submit", str(project.corpus.root), "--bundle", str(saved), "--output", str(target)])
    assert result.exit_code == 0 and "ok, 3 rows" in result.output and "got 'sad'" in result.output, result.output
    names.write_text("name\n" + "\n".join(project.corpus.clips["id"].iloc[[1, 3, 5]]) + "\n", encoding="utf-8")
    check = ["submit", "--check", str(target), "--candidates", str(names)]
    assert run(app, check).exit_code == 0
    content = target.read_text(encoding="utf-8").splitlines()
    target.write_text("\n".join([*content[:-1], content[1], "x,Sad"]), encoding="utf-8")
    result = run(app, check)
    assert result.exit_code == 1
    for said in ("row 4", "doubled", "row 5", "did you mean 'sad'?", "not a candidate", "missing", "4 problem(s)"):
        assert said in result.output
    assert run(app, ["submit", "--check", str(target)]).exit_code == 2
    assert run(app, ["submit", str(project.corpus.root)]).exit_code == 2
    assert run(app, ["submit", str(project.corpus.root), "--bundle", str(tmp_path)]).exit_code == 2


# ---- media files


@pytest.fixture(scope="module")
def predicted(project, bundle, tmp_path_factory):
    """A folder of clips as people have them: names and words that mean harm, a broken file, a picture less."""
    folder, output = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("output") / "new"
    video = project.corpus.root / "video"
    first, second = sorted(video.glob("*.mp4"))[:2]
    shutil.copy(first, folder / f"{HOSTILE}.mp4".replace("/", ""))
    (folder / "deep").mkdir()
    shutil.copy(second, folder / "deep/=1+1.mp4")
    (folder / "deep/=1+1.txt").write_text("=HYPERLINK(1) <script>alert(2)</script>", encoding="utf-8")
    (folder / "broken.mp4").write_bytes(first.read_bytes()[:900])
    (folder / "readme.md").write_text("not media", encoding="utf-8")
    (folder / "._hidden.mp4").write_bytes(b"")
    (folder / "link.mp4").symlink_to(first)
    (folder / "bad\nname.mp4").write_bytes(b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECMF_DATA", str(output.parent / "data"))
        no_workers(patch)
        table = predict_path(bundle, folder, output, device="cpu", workers=1, progress=False)
    return table, output


def test_good_files_are_predicted_and_bad_ones_have_their_reason(predicted):
    table, _ = predicted
    rows = table.set_index("file")
    good = ["deep/=1+1.mp4", f"{HOSTILE}.mp4"]
    assert sorted(rows.index[rows["predicted"] != ""]) == sorted(good)
    assert "not a readable media file" in rows.loc["broken.mp4", "reason"]
    assert "link" in rows.loc["link.mp4", "reason"] and "hidden" in rows.loc["._hidden.mp4", "reason"]
    assert "rename" in rows.loc["bad\\u000aname.mp4", "reason"]
    assert len(table) == 6, "each file once"
    assert rows.loc[good[0], "missing"] == "" and rows.loc[good[1], "missing"] == "text"
    said = told(table)
    assert any("not predicted" in line for line in said) and all(line.isprintable() for line in said)


def test_nothing_in_the_csv_is_a_formula(predicted):
    table, output = predicted
    cells = pd.read_csv(output / "predictions.csv", dtype=str, keep_default_na=False)
    assert len(cells) == len(table)
    assert not cells.map(lambda text: text.startswith(("=", "+", "-", "@"))).any().any()
    stored = pd.read_parquet(output / "predictions.parquet")
    assert "=HYPERLINK(1) <script>alert(2)</script>" in set(stored["transcript"])


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_the_page_escapes_what_it_shows_and_asks_the_network_for_nothing(predicted):
    page = Page((predicted[1] / "report.html").read_text(encoding="utf-8"))
    assert HOSTILE in page.text and "<script>alert(2)</script>" in page.text
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "form", "a"}
    attributes = [(tag, key, value) for tag, attrs in page.tags for key, value in attrs.items()]
    assert not [key for _, key, _ in attributes if key.startswith("on")]
    sources = [value for _, key, value in attributes if key in ("src", "href")]
    assert len(sources) == 2 and all(value.startswith("data:image/jpeg;base64,") for value in sources)
    assert any("default-src 'none'" in (attrs.get("content") or "") for _, attrs in page.tags)
    assert "Not predicted" in page.text and "broken.mp4" in page.text


def test_a_bundle_of_ready_made_features_cannot_predict_files(bundle, tmp_path):
    imported = replace(bundle, about=bundle.about | {"extraction": {"imported": True}})
    with pytest.raises(BundleError, match="ready-made"):
        predict_path(imported, tmp_path, tmp_path / "out")


def test_the_command_says_whether_anything_was_predicted(project, saved, tmp_path, monkeypatch):
    no_workers(monkeypatch)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"\0" * 100)
    options = ["--bundle", str(saved), "--output", str(tmp_path / "out"), "--workers", "1"]
    result = CliRunner().invoke(app, ["predict", str(broken), *options])
    assert result.exit_code == 1 and "not predicted" in result.output, result.output
    good = sorted((project.corpus.root / "video").glob("*.mp4"))[0]
    result = CliRunner().invoke(app, ["predict", str(good), *options, "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["predicted"] == 1 and told["predictions"][0]["predicted"] in EMOTIONS
    assert (tmp_path / "out/report.html").is_file()
    assert CliRunner().invoke(app, ["predict", str(tmp_path / "nowhere"), *options]).exit_code == 2


def test_real_clips_are_predicted(real, bundle, tmp_path, monkeypatch):
    clips = sorted((real / "ravdess_clips").glob("*_face20.mp4"))[:2]
    if len(clips) < 2:
        pytest.skip("no ../shared/real/ravdess_clips beside this checkout: real clips cannot be predicted here")
    monkeypatch.setenv("ECMF_DATA", str(tmp_path / "data"))
    no_workers(monkeypatch)
    (tmp_path / "clips").mkdir()
    for clip in clips:
        shutil.copy(clip, tmp_path / "clips")
    words = tmp_path / "words.csv"
    words.write_text(f"id,transcript,language\n{clips[0].stem},Kids are talking by the door,en\n", encoding="utf-8")
    table = predict_path(bundle, tmp_path / "clips", tmp_path / "out", transcripts=words, workers=1, progress=False)
    assert (table["predicted"] != "").all() and table["missing"].tolist() == ["", "text"]
    assert table["transcript"].tolist() == ["Kids are talking by the door", ""]


# ---- files as a corpus


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_ids_are_safe_and_unlike(tmp_path):
    touch(tmp_path, "a b.mp4", "a_b.mp4", "A_B.wav", "sub/a b.mp4", "你好!.mkv", "...mp4", "x" * 200 + ".mp4")
    found = clip_files(tmp_path)
    ids = found.corpus.clips["id"].tolist()
    assert len(set(map(str.lower, ids))) == len(found.files) == 7 - len(found.failed)
    assert {"a_b", "a_b-2", "a_b-3", "A_B"} & set(ids) and "你好" in ids and max(map(len, ids)) <= 110
    row = found.corpus.clips.set_index("video")
    assert "sub/a b.mp4" in row.index and "A_B.wav" in set(found.corpus.clips["audio"])


def test_words_come_from_the_csv_else_from_the_file_beside(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", "sub/c.mp4", "d.mp4", "e.mp4")
    for name, words in (("a", "beside"), ("b", "  two\nlines "), ("d", "   ")):
        (tmp_path / f"{name}.txt").write_text(words, encoding="utf-8")
    (tmp_path / "e.txt").write_bytes("\ufffd broken".encode())
    csv = tmp_path / "words.csv"
    csv.write_text("id,transcript\na.mp4,from the csv\nsub/c,deep\n", encoding="utf-8")
    found = clip_files(tmp_path, csv)
    said = found.corpus.clips.set_index("id")["transcript"]
    assert said.to_dict() == {"a": "from the csv", "b": "two lines", "c": "deep", "d": "", "e": ""}
    assert "not used" in found.notes["e"] and "a" not in found.notes


@pytest.mark.parametrize(
    "content, said",
    [
        ("id,transcript\nz,who?\n", "'z'"),
        ("id,transcript\na,1\na,2\n", "row 3"),
        ("name,words\na,1\n", "no column id, transcript"),
    ],
)
def test_csvs_of_words_that_cannot_be_used(tmp_path, content, said):
    touch(tmp_path, "a.mp4")
    (tmp_path / "words.csv").write_text(content, encoding="utf-8")
    with pytest.raises(CorpusError, match=said):
        clip_files(tmp_path, tmp_path / "words.csv")


def test_no_media_is_said_to_be_none(tmp_path):
    with pytest.raises(CorpusError, match="no media"):
        clip_files(tmp_path)
    touch(tmp_path, "a.txt")
    with pytest.raises(CorpusError, match="no media"):
        clip_files(tmp_path / "a.txt")
    with pytest.raises(CorpusError, match="no such file"):
        clip_files(tmp_path / "b.mp4")
