"""Clips without a transcript get one, marked as such; nothing that is wrong with a clip or a run loses anything."""

import json
import wave

import av
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import no_workers

from ecmf_lib import asr
from ecmf_lib.asr import Recogniser, transcribe
from ecmf_lib.corpus import make_corpus
from ecmf_lib.encoders.cards import ASR_CARDS
from ecmf_lib.encoders.stand_ins_language import WRITERS
from ecmf_lib.encoders.weights import WeightsError
from ecmf_lib.workers import Died

CARD = ASR_CARDS["whisper-small"]
RATE = 16_000


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Weights folder with a tiny Whisper that writes random letters."""
    folder = tmp_path_factory.mktemp("weights")
    WRITERS[CARD.family](CARD, folder / CARD.name, "tiny", 0)
    return folder


def sound(seconds, seed=0):
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    return (0.2 * np.sin(2 * np.pi * rng.uniform(80, 900) * time) * rng.normal(1, 0.3, len(time))).astype(np.float32)


def write_wav(path, samples):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((samples * 32_767).astype("<i2").tobytes())


def write_silent_film(path):
    with av.open(str(path), "w") as film:
        stream = film.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        for _ in range(5):
            picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
            film.mux(stream.encode(picture))
        film.mux(stream.encode(None))


def corpus_of(folder, rows):
    return make_corpus("spoken", folder, pd.DataFrame(rows).fillna(""))


@pytest.fixture
def corpus(tmp_path):
    """Five clips without a transcript, of which two can be heard, and one with."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    write_wav(folder / "a.wav", sound(1.0, 1))
    write_wav(folder / "b.wav", sound(1.5, 2))
    write_wav(folder / "silent.wav", np.zeros(RATE))
    (folder / "broken.wav").write_bytes(b"RIFF no sound at all")
    write_silent_film(folder / "film.mp4")
    rows = [
        {"id": "a", "audio": "a.wav", "language": "en"},
        {"id": "given", "audio": "a.wav", "transcript": "what is written stays", "language": "en"},
        {"id": "b", "audio": "b.wav"},
        {"id": "broken", "audio": "broken.wav"},
        {"id": "film", "video": "film.mp4"},
        {"id": "silent", "audio": "silent.wav"},
    ]
    return corpus_of(folder, rows)


@pytest.fixture
def heard_by(monkeypatch):
    """Ids are not known to the model, so what it is given is counted: one entry a call of listen."""
    calls = []
    listen = Recogniser.listen
    monkeypatch.setattr(
        Recogniser, "listen", lambda self, sounds, *more: calls.append(len(sounds)) or listen(self, sounds, *more)
    )
    return calls


@pytest.fixture
def in_one_process(monkeypatch):
    no_workers(monkeypatch)


def by_hand(root, samples, language):
    """Transformers' own processor and greedy generation, for one clip alone."""
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    model = WhisperForConditionalGeneration.from_pretrained(root / CARD.name).eval()
    processor = WhisperProcessor.from_pretrained(root / CARD.name)
    inputs = processor(samples, sampling_rate=RATE, return_tensors="pt")
    with torch.inference_mode():
        ids = model.generate(**inputs, language=language, task="transcribe", num_beams=1, do_sample=False)
    return processor.batch_decode(ids, skip_special_tokens=True)[0].strip()


# --- what is heard -------------------------------------------------------------------------------------------------


def test_words_are_those_of_the_model_alone(root):
    sounds = [sound(seconds, seed) for seed, seconds in enumerate([0.7, 2.0, 30.0, 1.0, 0.3, 5.0])]
    languages = ["en", "zh-CN", "English", "German", "ja", "en_GB"]
    found = Recogniser(CARD, root).listen(sounds, languages)
    assert [one.language for one in found] == ["en", "zh", "en", "de", "ja", "en"]
    for samples, one in zip(sounds, found, strict=True):
        assert one.text == by_hand(root, samples, one.language) and len(one.text) > 5
    assert len({one.text for one in found}) > 1


def test_language_is_found_out_where_it_is_not_known(root):
    from transformers import WhisperFeatureExtractor

    sounds, recogniser = [sound(1.0, 3), sound(2.0, 4)], Recogniser(CARD, root)
    found = recogniser.listen(sounds, ["", "Klingon"])
    mel = WhisperFeatureExtractor.from_pretrained(root / CARD.name)(sounds, sampling_rate=RATE, return_tensors="pt")
    numbers = recogniser._model.detect_language(mel.input_features)
    names = {number: name for name, number in recogniser._model.generation_config.lang_to_id.items()}
    assert [f"<|{one.language}|>" for one in found] == [names[number] for number in numbers.tolist()]
    assert recogniser.listen(sounds[:1], ["fr"])[0].language == "fr"


def test_long_clips_are_heard_to_the_end(root, monkeypatch):
    recogniser = Recogniser(CARD, root)
    recogniser.ready("cpu")
    lengths, generate = [], recogniser._model.generate
    monkeypatch.setattr(
        recogniser._model, "generate", lambda mel, **options: lengths.append(mel.shape) or generate(mel, **options)
    )
    sounds = [sound(1.0), sound(70.0, 5), sound(2.0)]
    found = recogniser.listen(sounds, ["en"] * 3)
    assert lengths == [(2, 80, 3000), (1, 80, 7000)], "all 70 s, alone; the others together"
    alone = [recogniser.listen([one], ["en"])[0].text for one in sounds]
    assert [one.text for one in found] == alone, "in their places"
    assert all(alone)


def test_corpus_is_filled_where_it_was_empty(corpus, root, tmp_path):
    filled = transcribe(corpus, CARD, tmp_path / "cache", root=root, device="cpu", workers=1, progress=False)
    table = filled.clips.set_index("id")
    assert table["transcript_source"].to_dict() == {
        "a": "asr:whisper-small",
        "given": "manifest",
        "b": "asr:whisper-small",
        "broken": "",
        "film": "",
        "silent": "",
    }
    assert table.loc["given", "transcript"] == "what is written stays"
    assert table.loc["a", "transcript"] == by_hand(root, decoded("a.wav", corpus), "en")
    assert (table.loc[["broken", "film", "silent"], "transcript"] == "").all()
    reasons = filled.clips.attrs["asr"]
    assert set(reasons) == {"broken", "film", "silent"} and reasons["silent"] == "audio is silent"
    assert "no audio" in reasons["film"] and reasons["broken"].startswith("broken.wav: not a readable media file")
    assert corpus.clips["transcript"].tolist().count("") == 5, "the corpus that was given is as it was"
    same = [name for name in corpus.clips.columns if name != "transcript"]
    pd.testing.assert_frame_equal(filled.clips[same], corpus.clips[same])
    again = make_corpus(filled.name, filled.root, filled.clips)  # the column is one that manifests may have
    assert again.clips["transcript_source"].tolist() == filled.clips["transcript_source"].tolist()


def decoded(name, corpus):
    from ecmf_lib.media import read_media

    return read_media(None, corpus.root / name).audio


# --- the memory ----------------------------------------------------------------------------------------------------


def run(corpus, root, cache):
    return transcribe(corpus, CARD, cache, root=root, device="cpu", workers=1, progress=False)


def test_nothing_is_heard_twice(corpus, root, tmp_path, heard_by, monkeypatch, in_one_process):
    cache = tmp_path / "cache"
    first = run(corpus, root, cache)
    assert heard_by == [2]
    monkeypatch.setattr(Recogniser, "ready", lambda *_: pytest.fail("the model is not needed"))
    second = run(corpus, root, cache)
    pd.testing.assert_frame_equal(first.clips, second.clips)
    assert first.clips.attrs == second.clips.attrs


def test_a_changed_sound_language_or_model_is_heard_again(corpus, root, tmp_path, heard_by, in_one_process):
    cache = tmp_path / "cache"
    before = run(corpus, root, cache).clips.set_index("id")["transcript"]
    write_wav(corpus.root / "b.wav", sound(2.5, 9))
    after = run(corpus, root, cache).clips.set_index("id")["transcript"]
    assert heard_by == [2, 2] and before["a"] == after["a"]
    table = corpus.clips.assign(language="zh")
    run(make_corpus(corpus.name, corpus.root, table), root, cache)
    WRITERS[CARD.family](CARD, tmp_path / "other" / CARD.name, "tiny", 1)
    other = run(corpus, tmp_path / "other", cache).clips.set_index("id")["transcript"]
    assert heard_by == [2, 2, 2, 2] and other["a"] != after["a"]


@pytest.fixture
def three_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(asr, "CHUNK", 3)
    folder = tmp_path / "corpus"
    folder.mkdir()
    count = 7
    for number in range(count):
        write_wav(folder / f"{number}.wav", sound(0.3 + number / 50, number))
    return corpus_of(folder, [{"id": f"c{number:02}", "audio": f"{number}.wav"} for number in range(count)])


def test_a_run_that_was_stopped_goes_on(three_chunks, root, tmp_path, heard_by, monkeypatch, in_one_process):
    whole = run(three_chunks, root, tmp_path / "undisturbed")
    assert sorted(heard_by) == [1, 3, 3]
    cache, add = tmp_path / "cache", asr._Memory.add

    def stop_after_one(memory, heard):
        add(memory, heard)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(asr._Memory, "add", stop_after_one)
        with pytest.raises(KeyboardInterrupt):
            run(three_chunks, root, cache)
    file = cache / f"{CARD.name}.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    assert len(lines) in (1, 3)
    file.write_bytes(b"".join(lines[:-1]) + lines[-1][:20])  # the power went off in the middle of a line
    heard_by.clear()
    pd.testing.assert_frame_equal(run(three_chunks, root, cache).clips, whole.clips)
    assert sorted(heard_by) == [1, 3, 3], "the torn line's clips are heard again, together as before"
    heard_by.clear()
    run(three_chunks, root, cache)
    assert heard_by == [] and all(json.loads(line) for line in file.read_bytes().splitlines() if len(line) != 20)


def test_a_clip_that_kills_its_process_is_tried_again_another_time(corpus, root, tmp_path, monkeypatch):
    def decoded(chunks, *_):
        for chunk in chunks:
            yield chunk, {clip.id: Died(-11) if clip.id == "broken" else sound(1.0) for clip in chunk}

    monkeypatch.setattr(asr, "_decoded", decoded)
    filled = run(corpus, root, tmp_path / "cache")
    assert "worker process died" in filled.clips.attrs["asr"]["broken"]
    assert len((tmp_path / "cache" / f"{CARD.name}.jsonl").read_text().splitlines()) == 4, "and not remembered"


# --- what is needed ------------------------------------------------------------------------------------------------


def test_a_complete_corpus_needs_no_model(corpus, tmp_path):
    complete = corpus.select(["given"])
    filled = transcribe(complete, CARD, tmp_path / "cache", root=tmp_path / "nothing", progress=False)
    assert filled.clips["transcript_source"].tolist() == ["manifest"] and not (tmp_path / "cache").exists()


def test_missing_weights_show_before_any_clip(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(asr, "run_jobs", lambda *_, **__: pytest.fail("a clip was touched"))
    with pytest.raises(WeightsError, match="whisper-small"):
        run(corpus, tmp_path / "nothing", tmp_path / "cache")


def test_an_english_model_is_told_no_language(root, tmp_path):
    folder = tmp_path / CARD.name
    folder.mkdir()
    for file in (root / CARD.name).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    settings = json.loads((folder / "generation_config.json").read_text())
    settings |= {"is_multilingual": False}
    del settings["lang_to_id"], settings["task_to_id"]
    (folder / "generation_config.json").write_text(json.dumps(settings))
    (one,) = Recogniser(CARD, tmp_path).listen([sound(1.0)], ["zh"])
    assert one.language == "en" and one.text
