"""Speech models give what transformers gives for one clip alone, whatever company it is batched with."""

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import torchaudio

from ecmf_lib.encoders import get_encoder
from ecmf_lib.encoders.base import ClipInputs, EncoderError, MissingStream
from ecmf_lib.encoders.cards import CARDS
from ecmf_lib.encoders.speech import Speech, WhisperSpeech
from ecmf_lib.encoders.stand_ins_language import WRITERS
from ecmf_lib.encoders.weights import WeightsError
from ecmf_lib.encoders.windows import windows
from ecmf_lib.media import read_media

RATE = 16_000
# base and large differ in the norm of the convolutions and in where the blocks have theirs
NAMES = ["hubert-base-zh", "hubert-large-zh", "wavlm-base-plus", "wavlm-large", "wav2vec2-base", "wav2vec2-xlsr"]
WHISPER = "whisper-base-encoder"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Weights folder with a tiny checkpoint of each."""
    folder = tmp_path_factory.mktemp("weights")
    for name in [*NAMES, WHISPER]:
        (folder / name).mkdir()
        WRITERS[CARDS[name].family](CARDS[name], folder / name, "tiny", 0)
    return folder


def clip(audio, **others):
    nothing = np.zeros((0, 0, 0, 3), np.uint8)
    inputs = ClipInputs("c1", nothing, np.zeros(0), nothing, np.zeros(0, bool), audio, "", "")
    return replace(inputs, **others)


def sound(seconds, seed=0):
    """Noise whose loudness and colour change over time, so that each step is unlike the others."""
    rng, n = np.random.default_rng(seed), round(seconds * RATE)
    noise = np.convolve(rng.normal(0, 0.1, n), rng.normal(0, 1, 16), "same")
    return (noise * (1.2 + np.sin(np.arange(n) / 2000))).astype(np.float32)


def by_hand(folder, audio):
    """Hidden states of transformers' own model and feature extractor, for one clip alone."""
    from transformers import AutoFeatureExtractor, AutoModel

    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    inputs = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)(
        audio, sampling_rate=RATE, return_tensors="pt"
    )
    if model.config.model_type == "whisper":
        model = model.encoder
    with torch.inference_mode():
        given = model(next(iter(inputs.values())), output_hidden_states=True)
    # the large models' last hidden layer stands before the final norm here; "last4" counts what the model gives
    return given.last_hidden_state[0], [*(layer[0] for layer in given.hidden_states[-4:-1]), given.last_hidden_state[0]]


def close(first, second, tolerance=1e-4):
    return first.shape == second.shape and np.abs(first - second).max() <= tolerance


# --- the numbers are the model's -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_steps_are_those_of_the_model_alone(name, root):
    audio = sound(1.7)
    last, last_four = by_hand(root / name, audio)
    settings = {"pooling": "none", "precision": "full"}
    steps = get_encoder(name, weights=root, layers="last", **settings).encode(clip(audio))
    assert close(steps, last.numpy()) and np.ptp(steps, axis=0).min() > 1e-3
    assert close(
        get_encoder(name, weights=root, layers="last4", **settings).encode(clip(audio)), sum(last_four).numpy()
    )


def test_steps_of_whisper_are_those_of_the_real_sound(root):
    audio = sound(1.73)
    last, last_four = by_hand(root / WHISPER, audio)
    steps = get_encoder(WHISPER, weights=root, pooling="none").encode(clip(audio))
    assert close(steps, last[:87].numpy()), "1.73 s are 86.5 steps of 20 ms"
    four = get_encoder(WHISPER, weights=root, pooling="none", layers="last4").encode(clip(audio))
    assert close(four, sum(last_four)[:87].numpy())


@pytest.mark.parametrize("name", ["hubert-base-zh", WHISPER])
def test_poolings(name, root):
    audio = sound(1.2)
    steps = get_encoder(name, weights=root, layers="last", pooling="none").encode(clip(audio)).astype(np.float64)
    cosine = steps @ steps.mean(0) / np.linalg.norm(steps, axis=1) / np.linalg.norm(steps.mean(0))
    weights = np.exp(cosine / 0.1) / np.exp(cosine / 0.1).sum()
    expected = {
        "mean": steps.mean(0),
        "mean+std": np.concatenate([steps.mean(0), steps.std(0)]),
        "attention": weights @ steps,
        "first": steps[0],
        "last": steps[-1],
    }
    for pooling, features in expected.items():
        encoder = get_encoder(name, weights=root, layers="last", pooling=pooling)
        assert encoder.level == "clip" and encoder.dim == len(features)
        assert close(encoder.encode(clip(audio)), features, 1e-5), pooling
    assert get_encoder(name, weights=root, pooling="none").level == "frame"


def test_preparing_equals_the_feature_extractor(root):
    from transformers import Wav2Vec2FeatureExtractor

    audio = 0.3 + 2 * sound(1.0)
    for name, normalised in [("hubert-large-zh", True), ("wavlm-base-plus", False)]:
        (item,) = get_encoder(name, weights=root).prepare(clip(audio)).items
        extractor = Wav2Vec2FeatureExtractor.from_pretrained(root / name)
        (expected,) = extractor(audio, sampling_rate=RATE, return_tensors="np").input_values
        assert np.array_equal(item, expected) and item.dtype == np.float32
        assert (abs(item.mean()) < 1e-5) == normalised, name


# --- company, length and chunks change nothing ---------------------------------------------------------------------


@pytest.mark.parametrize("layers", ["last", "last4"])
@pytest.mark.parametrize("name", [*NAMES, WHISPER])
def test_batching_changes_nothing(name, layers, root):
    encoder = get_encoder(name, weights=root, pooling="none", layers=layers)
    clips = [clip(sound(seconds, seed)) for seed, seconds in enumerate([0.025, 2.0, 0.31, 1.0, 1.0, 0.74])]
    together = encoder.run([encoder.prepare(one) for one in clips])
    for one, steps in zip(clips, together, strict=True):
        assert close(encoder.encode(one), steps)


@pytest.mark.parametrize("name", NAMES)
def test_batches_as_on_a_gpu_change_nothing(name, root, monkeypatch):
    encoder = get_encoder(name, weights=root, pooling="none")
    clips = [clip(sound(seconds, seed)) for seed, seconds in enumerate([0.025, 2.0, 0.31, 1.0])]
    alone = [encoder.encode(one) for one in clips]
    monkeypatch.setattr(Speech, "_on_gpu", True)
    for one, steps in zip(alone, encoder.run([encoder.prepare(one) for one in clips]), strict=True):
        assert close(one, steps)


@pytest.mark.parametrize("name", [*NAMES, WHISPER])
def test_half_precision_runs_and_stays_close(name, root, monkeypatch):
    clips = [clip(sound(2.0)), clip(sound(1.0, 1))]
    full, half = (get_encoder(name, weights=root) for _ in range(2))
    monkeypatch.setattr(half, "_dtype", lambda device: torch.float16)  # as on a GPU
    for one, features in zip(clips, half.run([half.prepare(one) for one in clips]), strict=True):
        expected = full.encode(one)
        assert features.dtype == np.float32 and close(features, expected, 0.02 * np.abs(expected).max())
        assert not np.array_equal(features, expected)


def test_a_batch_norm_before_the_positions_sees_no_padding(tmp_path):
    """The form of a few HuBERTs, such as mhubert-base-25hz."""
    from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

    folder = tmp_path / "hubert-base-zh"
    small = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "conv_dim": (16,) * 7}
    model = HubertModel(HubertConfig(**small, num_hidden_layers=4, conv_pos_batch_norm=True))
    torch.nn.init.ones_(model.encoder.pos_conv_embed.batch_norm.bias)
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    encoder = get_encoder("hubert-base-zh", weights=tmp_path, layers="last", pooling="none")
    clips = [clip(sound(2.0)), clip(sound(1.0))]
    for one, steps in zip(clips, encoder.run([encoder.prepare(one) for one in clips]), strict=True):
        assert close(by_hand(folder, one.audio)[0].numpy(), steps)


def test_a_clip_of_any_length_has_the_steps_of_the_model(root):
    encoder = get_encoder("hubert-base-zh", weights=root, pooling="none", chunk=3, overlap=1)
    encoder.ready("cpu")
    for samples in (400, 719, 720, 48_000, 48_079, 48_080, 48_400, 100_003, 161_777):
        steps = encoder.encode(clip(sound(samples / RATE)))
        assert len(steps) == encoder._model._get_feat_extract_output_lengths(samples), samples


def quiet_attention(folder, copy):
    """A checkpoint in which each step is changed by its neighbours only: the positional convolution, no attention."""
    from transformers import AutoFeatureExtractor, AutoModel

    model = AutoModel.from_pretrained(folder)
    for layer in model.encoder.layers:
        torch.nn.init.zeros_(layer.attention.out_proj.weight)
    model.save_pretrained(copy)
    AutoFeatureExtractor.from_pretrained(folder).save_pretrained(copy)


@pytest.mark.parametrize("name", ["hubert-large-zh", "wavlm-large", "wav2vec2-xlsr"])
def test_chunks_join_without_a_seam(name, root, tmp_path):
    quiet_attention(root / name, tmp_path / name)
    audio = clip(sound(14.3))
    settings = {"weights": tmp_path, "pooling": "none"}
    whole = get_encoder(name, **settings, chunk=20).encode(audio)
    chunked = get_encoder(name, **settings, chunk=6, overlap=3)
    assert len(chunked.prepare(audio).items) == 4
    assert close(chunked.encode(audio), whole), "beyond attention, chunks give what the whole gives"
    assert not close(get_encoder(name, **settings, chunk=6, overlap=0).encode(audio), whole), "the overlap is needed"


def test_chunks_of_a_whole_model_stay_close(root):
    audio = clip(sound(14.3))
    whole, chunked = (
        get_encoder("hubert-large-zh", weights=root, chunk=chunk, overlap=3, pooling="none").encode(audio)
        for chunk in (20, 6)
    )
    assert whole.shape == chunked.shape
    likeness = (whole * chunked).sum(1) / np.linalg.norm(whole, axis=1) / np.linalg.norm(chunked, axis=1)
    assert likeness.min() > 0.99


def test_long_clips_in_whispers_windows(root):
    audio = sound(61)
    encoder = get_encoder(WHISPER, weights=root, pooling="none")
    prepared = encoder.prepare(clip(audio))
    assert [len(item) for item in prepared.items] == [480_000] * 3
    steps = encoder.encode(clip(audio))
    assert len(steps) == 61 * 50
    # three windows start at 0, 15.5 and 31 s; the second has the steps between the middles of its overlaps
    second, _ = by_hand(root / WHISPER, audio[248_000:728_000])
    assert close(steps[1137:1912], second[1137 - 775 : 1912 - 775].numpy())


@pytest.mark.parametrize(
    "steps, size, overlap", [(1, 9, 3), (9, 9, 3), (10, 9, 3), (97, 9, 3), (98, 9, 0), (500, 9, 8)]
)
def test_windows_keep_each_step_once(steps, size, overlap):
    found = windows(steps, size, overlap)
    kept = [step for window in found for step in range(window.start + window.keep[0], window.start + window.keep[1])]
    assert kept == list(range(steps))
    assert all(window.stop - window.start == min(size, steps) for window in found)
    assert all(before.stop - after.start >= overlap for before, after in pairwise(found))
    assert found[-1].stop == steps


# --- what cannot be encoded ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hubert-base-zh", "wavlm-large", WHISPER])
def test_clips_without_sound_say_why(name, root):
    encoder = get_encoder(name, weights=root)
    for audio, reason in [
        (np.zeros(0, np.float32), "no audio track"),
        (sound(0.024), "audio shorter than 0.025 s"),
        (np.zeros(RATE, np.float32), "audio is silent"),
    ]:
        with pytest.raises(MissingStream, match=f"^{reason}$"):
            encoder.prepare(clip(audio))


def test_another_rate_is_resampled(root, tmp_path):
    folder = tmp_path / "hubert-base-zh"
    WRITERS["hf-speech"](CARDS["hubert-base-zh"], folder, "tiny", 0)
    told = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(told | {"sampling_rate": 8000, "do_normalize": False}))
    audio = sound(1.0)
    (item,) = get_encoder("hubert-base-zh", weights=tmp_path).prepare(clip(audio)).items
    assert np.array_equal(item, torchaudio.functional.resample(torch.from_numpy(audio), RATE, 8000).numpy())


def test_unusable_settings_are_refused():
    for name, settings in [
        ("hubert-base-zh", {"layers": "own"}),
        ("hubert-base-zh", {"chunk": 5, "overlap": 5}),
        ("hubert-base-zh", {"chunk": 5, "overlap": 4.995}),
        ("hubert-base-zh", {"chunk": 0.01, "overlap": 0}),
        (WHISPER, {"overlap": 30}),
        (WHISPER, {"chunk": 20}),
    ]:
        with pytest.raises(EncoderError, match=name):
            get_encoder(name, **settings)


# --- loading -------------------------------------------------------------------------------------------------------


def test_weights_in_pytorchs_own_format_and_old_names(root, tmp_path):
    """As chinese-hubert is published: pytorch_model.bin, weight_g and weight_v."""
    from safetensors.torch import load_file

    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    tensors = load_file(root / "hubert-large-zh" / "model.safetensors")
    for now, then in old.items():
        tensors = {name.replace(now, then): tensor for name, tensor in tensors.items()}
    folder = tmp_path / "hubert-large-zh"
    folder.mkdir()
    torch.save(tensors, folder / "pytorch_model.bin")
    for file in ("config.json", "preprocessor_config.json"):
        (folder / file).write_text((root / "hubert-large-zh" / file).read_text())
    audio = clip(sound(1.0))
    first, second = (get_encoder("hubert-large-zh", weights=place).encode(audio) for place in (root, tmp_path))
    assert np.array_equal(first, second)


def broken_copy(root, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    for file in (root / name).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def change_config(folder, **changed):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changed))


def test_broken_checkpoints_are_named(root, tmp_path):
    from safetensors.torch import load_file, save_file

    name = "hubert-base-zh"
    folder = broken_copy(root, tmp_path, name)
    tensors = load_file(folder / "model.safetensors")

    def refused(match):
        with pytest.raises(WeightsError, match=match) as caught:
            get_encoder(name, weights=tmp_path).ready("cpu")
        assert str(folder) in str(caught.value) and name in str(caught.value)

    save_file({key: tensor for key, tensor in tensors.items() if "layers.1." not in key}, folder / "model.safetensors")
    refused("tensors are missing, e.g. encoder.layers.1")
    save_file(tensors, folder / "model.safetensors")
    change_config(folder, hidden_size=64)
    refused("ecmf fetch")
    change_config(folder, hidden_size=32, model_type="data2vec-audio")
    refused("config.json: a model of type 'data2vec-audio'; expected hubert, wavlm, wav2vec2")
    change_config(folder, model_type="wav2vec2", add_adapter=True)
    refused("adapter")


def test_small_files_that_are_missing_or_damaged(root, tmp_path):
    name = "wavlm-large"
    folder = broken_copy(root, tmp_path, name)
    told = (folder / "preprocessor_config.json").read_text()
    expected = get_encoder(name, weights=tmp_path).prepare(clip(sound(1)))
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match=r"preprocessor_config\.json"):
        get_encoder(name, weights=tmp_path).prepare(clip(sound(1)))
    (folder / "processor_config.json").write_text(f'{{"feature_extractor": {told}}}')  # as transformers 5 writes it
    assert np.array_equal(get_encoder(name, weights=tmp_path).prepare(clip(sound(1))).items, expected.items)
    change_config(folder, hidden_size=None)
    with pytest.raises(WeightsError, match=r"config\.json.*hidden_size"):
        _ = get_encoder(name, weights=tmp_path).dim


def test_workers_get_no_model_and_no_torch(root, tmp_path):
    encoders = [get_encoder(name, weights=root) for name in ("hubert-large-zh", WHISPER)]
    audio = clip(sound(1.0))
    expected = [encoder.encode(audio) for encoder in encoders]
    shipped = pickle.dumps((encoders, audio))
    assert len(shipped) < 100_000, "the weights are larger, the sound has 64 kB"
    (tmp_path / "shipped").write_bytes(shipped)
    script = (
        "import pickle, sys\n"
        "encoders, clip = pickle.load(open(sys.argv[1], 'rb'))\n"
        "prepared = [encoder.prepare(clip) for encoder in encoders]\n"
        "assert 'torch' not in sys.modules, 'a worker would carry torch'\n"
        "pickle.dump(prepared, open(sys.argv[2], 'wb'))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "shipped"), str(tmp_path / "prepared")]
    subprocess.run(command, check=True, timeout=60)
    prepared = pickle.loads((tmp_path / "prepared").read_bytes())
    for encoder, inputs, features in zip(encoders, prepared, expected, strict=True):
        assert np.array_equal(encoder.run([inputs])[0], features)


def test_settings_and_weights_are_in_the_fingerprint(root, tmp_path):
    folder = tmp_path / "hubert-base-zh"
    WRITERS["hf-speech"](CARDS["hubert-base-zh"], folder, "tiny", 1)
    encoders = [get_encoder("hubert-base-zh", weights=place) for place in (root, tmp_path)]
    encoders += [get_encoder("hubert-base-zh", weights=root, **one) for one in ({"chunk": 10}, {"layers": "last"})]
    assert len({encoder.fingerprint for encoder in encoders}) == 4
    assert get_encoder("hubert-base-zh", weights=root).fingerprint == encoders[0].fingerprint


def test_stand_ins_follow_their_seed(tmp_path):
    files = []
    for place, seed in [("a", 3), ("b", 3), ("c", 4)]:
        WRITERS["hf-speech"](CARDS["wavlm-large"], tmp_path / place, "tiny", seed)
        files.append((tmp_path / place / "model.safetensors").read_bytes())
    assert files[0] == files[1] != files[2]
    assert json.loads((tmp_path / "a" / "config.json").read_text())["ecmf_stand_in"] is True


# --- real sound ----------------------------------------------------------------------------------------------------


def test_real_speech(root, real):
    clips = [clip(read_media(None, path).audio) for path in sorted((real / "ravdess_audio").glob("*.flac"))[:4]]
    encoders = {"hubert-base-zh": Speech, WHISPER: WhisperSpeech}
    for name, kind in encoders.items():
        encoder = get_encoder(name, weights=root, pooling="none", layers="last")
        assert isinstance(encoder, kind)
        for one, steps in zip(clips, encoder.run([encoder.prepare(one) for one in clips]), strict=True):
            assert len(steps) == pytest.approx(len(one.audio) / 320, abs=1.3), "50 Hz"
            expected = by_hand(root / name, one.audio)[0][: len(steps)].numpy()
            assert close(steps, expected)
