"""The demo corpus: planned as described, made whole or not at all, and found by every face detector."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from itertools import combinations, islice
from pathlib import Path

import av
import numpy as np
import pytest

from ecmf_lib import demo, demo_plan, demo_text
from ecmf_lib.config import EMOTIONS, STREAMS
from ecmf_lib.corpus import read_csv
from ecmf_lib.demo_action import PROTOTYPES, UNITS
from ecmf_lib.demo_face import Head
from ecmf_lib.demo_head import LOOKS, SCALE, TOP
from ecmf_lib.demo_voice import VOICES, speak
from ecmf_lib.faces import get_detector

N = 6


def make(folder: Path, **settings) -> Path:
    return demo.make_demo(folder, **{"n_clips": N, "workers": 1, "progress": False} | settings)


@pytest.fixture(scope="module")
def made(six_clips) -> Path:
    return six_clips  # which `make` would make


@pytest.fixture(scope="module")
def plans() -> list[demo_plan.ClipPlan]:
    return demo_plan.plan_demo(2000, 0)


@pytest.fixture(scope="module")
def portraits() -> list[np.ndarray]:
    """Every speaker with every emotion, at full strength in its own scene: one frame each."""
    template = demo_plan.plan_demo(240, 5)[0]
    frames = []
    for speaker in range(demo_plan.MAX_SPEAKERS):
        for k, emotion in enumerate(EMOTIONS):
            shows, strength = dict.fromkeys(STREAMS, emotion), dict.fromkeys(STREAMS, 1.0)
            plan = replace(
                template, number=6 * speaker + k, speaker=speaker, shows=shows, strength=strength, duration=1.0
            )
            frames.append(next(islice(demo.draw_clip(plan, 5)[0], 9, None)))
    return frames


@pytest.fixture
def stand_ins(monkeypatch):
    """Clips that are only a few bytes, where what is in them does not matter."""

    def render(plan, folder, seed):
        (folder / f"{plan.id}.mp4").write_bytes(f"{plan.id} of seed {seed}".encode())
        return ""

    monkeypatch.setattr(demo, "_render", render)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ------------------------------------------------------------------------------------------------ the plan


def test_speakers_emotions_and_splits_are_balanced():
    table = demo_plan.manifest_table(demo_plan.plan_demo(240, 0))
    truth = demo_plan.truth_table(demo_plan.plan_demo(240, 0))
    assert set(Counter(table["speaker"]).values()) == {20} and table["speaker"].nunique() == 12
    assert set(Counter(truth["emotion"]).values()) == {40}
    assert Counter(table["split"]) == {"labelled": 204, "unlabelled": 24, "test": 12}
    assert (table[table["split"] == "labelled"].groupby("speaker")["label"].nunique() >= 3).all()
    assert Counter(table["language"]) == {"en": 120, "zh": 120}


@pytest.mark.parametrize("n", [6, 12, 24])
def test_small_corpora_have_several_speakers_and_all_emotions(n):
    plans = demo_plan.plan_demo(n, 3)
    assert len({p.speaker for p in plans}) >= 3
    assert min(Counter(p.speaker for p in plans).values()) >= 2
    assert set(Counter(p.emotion for p in plans).values()) == {n // 6}


def test_too_few_clips_are_refused():
    with pytest.raises(ValueError, match="at least 6"):
        demo_plan.plan_demo(5, 0)


def test_the_seed_decides(plans):
    assert demo_plan.plan_demo(50, 0) == demo_plan.plan_demo(50, 0)
    assert demo_plan.plan_demo(50, 0) != demo_plan.plan_demo(50, 1)


def test_label_is_the_majority_and_ties_go_to_the_first_annotator():
    assert demo_plan.majority(("sad", "happy", "happy")) == "happy"
    assert demo_plan.majority(("sad", "happy", "angry")) == "sad"
    table = demo_plan.manifest_table(demo_plan.plan_demo(240, 0))
    given = table[table["split"] == "labelled"]
    votes = given[["annotator_1", "annotator_2", "annotator_3"]].to_numpy()
    counts = np.array([[list(row).count(label) for label in EMOTIONS] for row in votes])
    chosen = np.array([EMOTIONS.index(label) for label in given["label"]])
    assert (counts[np.arange(len(chosen)), chosen] == counts.max(axis=1)).all()
    tied = counts.max(axis=1) == 1
    assert tied.any() and (given["label"].to_numpy()[tied] == votes[tied, 0]).all()
    hidden = table[table["split"] != "labelled"]
    assert (hidden[["label", "annotator_1", "annotator_2", "annotator_3"]] == "").all(axis=None)


def test_annotators_err_as_their_confusion_matrices_say(plans):
    seen = np.zeros((3, 6, 6))
    for plan in plans:
        for k, vote in enumerate(plan.annotators):
            seen[k, EMOTIONS.index(plan.emotion), EMOTIONS.index(vote)] += 1
    seen /= seen.sum(axis=2, keepdims=True)
    expected = demo_plan.confusions()
    assert np.allclose(expected.sum(axis=2), 1)
    assert np.abs(seen - expected).max() < 0.09  # four standard errors of a share of 1/3 among 333 clips is 0.10
    recognised = seen[:, range(6), range(6)].mean(axis=0)
    assert recognised[EMOTIONS.index("happy")] > recognised[EMOTIONS.index("worried")] + 0.1


def test_given_labels_are_noisy_but_mostly_right(plans):
    right = np.mean([demo_plan.majority(p.annotators) == p.emotion for p in plans])
    assert 0.90 < right < 0.97


def test_streams_express_what_their_state_says(plans):
    for plan in plans:
        assert list(plan.states.values()).count("informative") >= demo_plan.AT_LEAST
        for stream in STREAMS:
            shown, state = plan.shows[stream], plan.states[stream]
            if state == "at odds":
                assert shown != plan.emotion
            else:
                assert shown == (plan.emotion if state == "informative" else "neutral")
            assert state != "uninformative" or plan.strength[stream] <= 0.2


def test_no_stream_suffices_and_all_of_them_nearly_do(plans):
    """An ideal encoder sees what a stream expresses. Neutral counts less in the vote: it may mean nothing."""
    weight = {emotion: 0.6 if emotion == "neutral" else 1.0 for emotion in EMOTIONS}
    alone = [np.mean([p.shows[s] == p.emotion for p in plans]) for s in STREAMS]
    votes = [{e: weight[e] * list(p.shows.values()).count(e) for e in EMOTIONS} for p in plans]
    together = np.mean([max(vote, key=vote.get) == p.emotion for vote, p in zip(votes, plans, strict=True)])
    assert max(alone) < 0.80
    assert together > max(alone) + 0.1


# ------------------------------------------------------------------------------------------------ sentences


@pytest.mark.parametrize("language", demo_text.LANGUAGES)
def test_bank_has_enough_sentences_of_every_kind(language):
    for emotion in EMOTIONS:
        assert len(set(demo_text.PLAIN[language][emotion])) >= 12
        odd = [row for bank in (demo_text.MISLEADING, demo_text.SARCASTIC) for row in bank[language]]
        assert sum(emotion in meant for _, meant, _ in odd) >= 2
        assert not any(words in meant for words, meant, _ in odd)
    plain = [set(demo_text.PLAIN[language][emotion]) for emotion in EMOTIONS]
    assert not any(a & b for a, b in combinations(plain, 2))


def test_a_sentence_does_not_give_its_label_away(plans):
    """Even one who knew every sentence's most frequent emotion would often be wrong."""
    seen: dict[str, Counter] = {}
    for plan in plans:
        seen.setdefault(plan.transcript, Counter())[plan.emotion] += 1
    assert sum(max(emotions.values()) for emotions in seen.values()) / len(plans) < 0.85
    for sentence in demo_text.UNINFORMATIVE["en"] + demo_text.UNINFORMATIVE["zh"]:
        assert len(seen[sentence]) >= 2
    assert {p.text_kind for p in plans} == {"plain", "misleading", "sarcastic", "uninformative"}


# ------------------------------------------------------------------------------------------------ voice


def test_voice_carries_emotion():
    def level_and_syllables(emotion):
        said = [
            speak("I told you about it before.", VOICES[k], emotion, 1.0, 2.5, np.random.default_rng(k))
            for k in range(4)
        ]
        opened = np.mean([(np.diff((opening > 0.2).astype(int)) == 1).sum() for _, opening in said])
        return np.sqrt(np.mean([samples**2 for samples, _ in said])), opened

    angry, sad = level_and_syllables("angry"), level_and_syllables("sad")
    assert angry[0] > 3 * sad[0] and angry[1] > 1.3 * sad[1]


def test_speech_is_as_long_as_asked_and_in_range(rng):
    samples, opening = speak("没想到她突然就走了。", VOICES[1], "surprise", 1.0, 2.2, rng)
    assert samples.shape == opening.shape == (35200,) and samples.dtype == np.float32
    assert 0.1 < np.abs(samples).max() <= 1 and 0.5 < opening.max() <= 1.01 and opening.min() >= 0


# ------------------------------------------------------------------------------------------------ the files


def test_manifest_and_truth_are_complete(made):
    table, truth = read_csv(made / "manifest.csv"), demo.read_truth(made)
    assert list(table.columns) == [
        "id", "video", "audio", "transcript", "language", "label", "split", "speaker",
        "annotator_1", "annotator_2", "annotator_3",
    ]  # fmt: skip
    assert len(table) == N and table["id"].is_unique and (table["transcript"] != "").all()
    assert all((made / video).is_file() for video in table["video"])
    assert list(truth["id"]) == list(table["id"])
    assert truth[["emotion", *(f"shows_{s}" for s in STREAMS)]].isin(EMOTIONS).all(axis=None)


def test_clips_decode_with_sound_that_lasts_as_long_as_the_picture(made):
    durations = demo.read_truth(made).set_index("id")["duration"]
    for path in sorted((made / "video").iterdir()):
        with av.open(path) as clip:
            video, audio = clip.streams.video[0], clip.streams.audio[0]
            assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
            frames = [frame.to_ndarray(format="rgb24") for frame in clip.decode(video)]
            clip.seek(0)
            sound = np.concatenate([frame.to_ndarray().ravel() for frame in clip.decode(audio)])
        assert len(frames) / demo.FPS == pytest.approx(durations[path.stem], abs=1e-3)
        assert len(sound) / audio.rate == pytest.approx(durations[path.stem], abs=0.1)
        assert np.sqrt(np.mean(sound**2)) > 0.005
        changed = [np.abs(a.astype(int) - b).mean() for a, b in zip(frames, frames[5:], strict=False)]
        assert min(changed) > 0.1, "the face stands still"


def test_full_corpus_stays_under_40_megabytes(made):
    clips = [p.stat().st_size for p in (made / "video").iterdir()]
    assert np.mean(clips) * 240 < 40e6


def test_same_seed_gives_the_same_bytes_also_from_worker_processes(made, tmp_path):
    assert files(make(tmp_path / "again", workers=2)) == files(made)


def test_a_finished_corpus_is_not_made_again(made, monkeypatch):
    before = files(made)
    monkeypatch.setattr(demo, "_render", lambda *a, **k: pytest.fail("rendered again"))
    assert make(made) == made.resolve()
    assert files(made) == before


def test_another_seed_replaces_it_and_a_lost_clip_is_mended(tmp_path, stand_ins):
    folder = make(tmp_path / "demo", seed=1)
    first = files(folder)
    make(folder, seed=2)
    assert json.loads((folder / demo.MARKER).read_text())["seed"] == 2 and files(folder) != first
    next((folder / "video").iterdir()).unlink()
    make(folder, seed=2)
    assert len(list((folder / "video").iterdir())) == N
    assert [p.name for p in tmp_path.iterdir()] == ["demo"]


def test_something_else_in_the_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="something other than a demo corpus"):
        make(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interruption_leaves_nothing(tmp_path, monkeypatch, workers):
    def interrupted(done, **_):
        next(iter(done))
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "tqdm", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "demo", workers=workers)
    assert list(tmp_path.iterdir()) == []


def test_a_clip_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    def full(path, frames, samples):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(demo, "_write_mp4", full)
    with pytest.raises(RuntimeError, match=r"demo_0000\.mp4 could not be made .*No space left"):
        make(tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_leaves_no_half_corpus(tmp_path, stand_ins):
    """kill -9 half way: nothing under the name, what is left over is removed once it is old, and the next run works."""
    code = f"from ecmf_lib.demo import make_demo; make_demo({str(tmp_path / 'demo')!r}, workers=1, progress=False)"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[1])
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".demo.making-*/video/*.mp4")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    (left,) = tmp_path.iterdir()
    assert left.name == f".demo.making-{process.pid}"
    make(tmp_path / "demo")
    assert left.is_dir(), "it might still be at work"
    for part in (left, left / "video"):
        os.utime(part, (0, 0))
    make(tmp_path / "demo", seed=1)
    assert [p.name for p in tmp_path.iterdir()] == ["demo"]


# ------------------------------------------------------------------------------------------------ the faces


def share_found(detector, frames) -> float:
    return np.mean([len(detector.detect(frame)) > 0 for frame in frames])


def test_bundled_detector_finds_every_speaker_with_every_emotion(portraits):
    assert share_found(get_detector("lbp"), portraits) >= 0.95


@pytest.mark.parametrize("name", ["yunet", "insightface"])
def test_neural_detectors_find_every_speaker_with_every_emotion(portraits, real, name):
    assert share_found(get_detector(name, real / "weights"), portraits) >= 0.95


def test_expressions_change_the_face_where_they_should():
    """Against the neutral face of the same speaker: brows move in anger, the mouth in joy, the chin in surprise."""
    head = Head(LOOKS[0], (0.3, -0.6, 0.9), (1, 1, 1), np.random.default_rng(0))

    def draw(emotion):
        units = np.zeros(len(UNITS))
        for unit, amount in PROTOTYPES[emotion].items():
            units[UNITS[unit]] = amount
        return head.draw(units, 0.0, np.zeros(2), np.zeros(2))[0].astype(int)

    def change(emotion, top, bottom):
        rows = slice(int((top + TOP) * SCALE), int((bottom + TOP) * SCALE))
        return np.abs(draw(emotion) - draw("neutral"))[rows].mean()

    brows, mouth, chin = (-0.62, -0.34), (0.45, 0.75), (0.9, 1.3)
    assert change("angry", *brows) > 2 * change("happy", *brows)
    assert change("happy", *mouth) > 1.5 * change("happy", *brows)
    assert change("surprise", *chin) > 2 * change("happy", *chin)
