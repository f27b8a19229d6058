"""Every encoder keeps its declaration, says what is missing, and reacts to what it should react to."""

import hashlib
import multiprocessing
import sys
import types
from dataclasses import replace

import av
import cv2
import numpy as np
import pytest

from ecmf_lib.config import PROFILES, SAMPLE_RATE, STREAMS
from ecmf_lib.encoders import (
    CARDS,
    ClipInputs,
    Encoder,
    EncoderError,
    MissingStream,
    encoders,
    get_encoder,
    profile,
    register,
)
from ecmf_lib.encoders import audio as audio_module
from ecmf_lib.encoders.audio import pitch
from ecmf_lib.encoders.vision import hog, lbp

NAMES = ["char-ngram", "egemaps", "egemaps-lld", "face-measures", "hog-colour-motion", "hog-lbp-face"]
NAMES += ["hog-lbp-face-frames", "speech-timing"]


def voice(hz=160.0, seconds=1.0, gain=0.2, sr=SAMPLE_RATE):
    """A harmonic tone, which openSMILE takes for a voice."""
    time = np.arange(int(seconds * sr)) / sr
    tone = sum(np.sin(2 * np.pi * hz * k * time) / k for k in range(1, 12))
    return (gain * tone / np.abs(tone).max()).astype(np.float32)


def face(brow=0, mouth=0):
    """A crop with eyes, brows and mouth where alignment puts them; `brow` and `mouth` move them by pixels."""
    crop = np.full((112, 112, 3), 200, np.uint8)
    for x, inner in ((38, 8), (74, -8)):
        cv2.circle(crop, (x, 52), 5, (40, 40, 40), -1)
        cv2.line(crop, (x - inner, 38), (x + inner, 38 + brow), (60, 40, 20), 3)
    cv2.ellipse(crop, (56, 92), (16, 3 + mouth), 0, 0, 360, (120, 30, 30), -1)
    return crop


@pytest.fixture
def clip(rng):
    """Six frames of a smooth random picture that drifts, a face that speaks, a voice, a mixed transcript."""
    picture = cv2.resize(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8), (160, 120), interpolation=cv2.INTER_CUBIC)
    return ClipInputs(
        id="c1",
        frames=np.stack([np.roll(picture, 2 * step, axis=1) for step in range(6)]),
        times=np.arange(6) / 3,
        crops=np.stack([face(mouth=step) for step in range(6)]),
        found=np.array([True, True, False, True, True, True]),
        audio=voice() + rng.normal(0, 1e-3, SAMPLE_RATE).astype(np.float32),
        transcript="我没事。 I am fine, really?",
        language="zh",
    )


def distance(encoder, a, b):
    """Largest change of a feature, relative to the largest feature."""
    first, second = encoder.encode(a), encoder.encode(b)
    return np.abs(first - second).max() / np.abs(first).max()


# --- the declaration is kept ---------------------------------------------------------------------------------------


def test_table_lists_every_encoder():
    table = encoders()
    assert sorted(table["name"]) == sorted([*NAMES, *CARDS])
    wanted = "name stream dim licence weights parameters_m download_mb memory_mb choice"
    assert list(table.columns) == wanted.split()
    assert table["stream"].map(STREAMS.index).is_monotonic_increasing
    assert table["licence"].str.len().gt(2).all() and table["choice"].str.len().gt(2).all()
    assert set(table.loc[table["download_mb"] == 0, "name"]) >= set(NAMES), "classical descriptors need no weights"


@pytest.mark.parametrize("name", NAMES)
def test_output_is_as_declared(name, clip):
    encoder = get_encoder(name)
    features = encoder.encode(clip)
    assert features.dtype == np.float32 and np.isfinite(features).all()
    assert features.shape[-1] == encoder.dim and features.ndim == {"clip": 1, "frame": 2}[encoder.level]
    assert np.ptp(features) > 0
    if encoder.feature_names is not None:
        assert len(set(encoder.feature_names)) == encoder.dim


def test_frame_level_has_a_row_for_each_step(clip):
    assert len(get_encoder("hog-lbp-face-frames").encode(clip)) == 5  # one frame has no face of its own
    assert len(get_encoder("egemaps-lld").encode(clip)) == pytest.approx(100, abs=6)  # 1 s in steps of 10 ms


@pytest.mark.parametrize("name", NAMES)
def test_clips_before_do_not_matter(name, clip, rng):
    other = replace(
        clip,
        frames=255 - clip.frames,
        crops=clip.crops[::-1],
        audio=voice(300, seconds=0.7) + rng.normal(0, 0.1, int(0.7 * SAMPLE_RATE)).astype(np.float32),
        transcript="something else",
    )
    first = get_encoder(name).encode(clip)
    get_encoder(name).encode(other)
    assert np.array_equal(first, get_encoder(name).encode(clip))


@pytest.mark.parametrize("name", NAMES)
def test_only_declared_inputs_are_read(name, clip):
    encoder = get_encoder(name)
    unused = {"frames": ["frames"], "faces": ["crops", "found"], "audio": ["audio"], "text": ["transcript"]}
    blanked = {field: None for use, fields in unused.items() if use not in encoder.uses for field in fields}
    assert np.array_equal(encoder.encode(clip), encoder.encode(replace(clip, **blanked)))


def _digests(made, clip):
    return {e.name: (e.fingerprint, hashlib.sha256(e.encode(clip).tobytes()).hexdigest()) for e in made}


def test_same_features_in_a_spawned_process(clip):
    made = [get_encoder(name) for name in NAMES]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_digests, (made, clip)) == _digests(made, clip)


# --- registry and fingerprint --------------------------------------------------------------------------------------


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(EncoderError, match=r"no encoder 'hubert-9'.*egemaps"):
        get_encoder("hubert-9")
    with pytest.raises(EncoderError, match=r"no profile 'heavy'.*light"):
        profile("heavy")
    with pytest.raises(EncoderError, match="'char-ngram' has no setting width; it takes dim"):
        get_encoder("char-ngram", width=3)
    with pytest.raises(EncoderError, match="registered already"):
        register("egemaps", Encoder)


def test_a_class_of_a_notebooks_cell_is_refused_since_workers_cannot_import_it(monkeypatch):
    own = type("Own", (Encoder,), {"__module__": "__main__"})
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))  # a kernel's has no __file__
    with pytest.raises(EncoderError, match="file of its own"):
        register("own", own)
    assert "own" not in set(encoders()["name"])


def test_a_file_that_is_read_again_replaces_its_encoder(monkeypatch):
    monkeypatch.setattr("ecmf_lib.encoders._FACTORIES", {})
    first, second = (type("Own", (Encoder,), {"__module__": "my_encoder"}) for _ in range(2))
    register("own", first)
    register("own", second)
    with pytest.raises(EncoderError, match="registered already"):
        register("own", type("Another", (Encoder,), {"__module__": "my_encoder"}))


def test_profiles_give_each_stream_its_own_encoder():
    for name in PROFILES:
        made = profile(name)  # loads nothing
        assert tuple(made) == STREAMS
        assert all(encoder.stream == stream and encoder.level == "clip" for stream, encoder in made.items())


def test_one_encoder_of_a_profile_can_be_swapped():
    made = profile("light", {"audio": "egemaps-lld", "text": {"dim": 64}})
    assert made["audio"].name == "egemaps-lld" and made["face"].name == "hog-lbp-face"
    assert made["text"].name == "char-ngram" and made["text"].dim == 64
    assert list(made) == list(STREAMS)


@pytest.mark.parametrize(
    ("swaps", "said"),
    [
        ({"audio": "char-ngram"}, "encoder 'char-ngram' is for stream 'text', not for 'audio'"),
        ({"sound": "egemaps"}, "no stream 'sound'; choose from global, face, audio, text, enrichment"),
        ({"audio": "wav2vec9"}, r"no encoder 'wav2vec9' \(did you mean 'wav2vec2-xlsr'\?\); choose from"),
        ({"text": {"width": 3}}, "has no setting width; it takes dim"),
        ({"text": {"signed": "false"}}, r"char-ngram': signed = 'false'; expected true or false \(1 or 0\)"),
        ({"text": {"dim": "many"}}, "dim = 'many'; expected a number, as 512 is one"),
        ({"text": {"reads": 1}}, "reads = 1; expected a word, as 'transcript' is one"),
        ({"audio": {"name": "hubert-base-zh", "chunk": "ten"}}, "chunk = 'ten'; expected a number"),
        ({"enrichment": {"dim": 3}}, "profile 'light' has no stream 'enrichment'; give it a name"),
    ],
)
def test_a_swap_that_cannot_be_is_refused(swaps, said):
    with pytest.raises(EncoderError, match=said):
        profile("light", swaps)


def test_fingerprint_follows_settings_and_nothing_else(clip):
    encoder = get_encoder("char-ngram")
    before = encoder.fingerprint
    encoder.encode(clip)
    assert before == encoder.fingerprint == get_encoder("char-ngram", longest=3, dim=512).fingerprint
    assert before != get_encoder("char-ngram", longest=4).fingerprint
    assert len({get_encoder(name).fingerprint for name in NAMES}) == len(NAMES)


def test_settings_change_what_they_name(clip):
    assert get_encoder("char-ngram", dim=64).encode(clip).shape == (64,)
    face_encoder = get_encoder("hog-lbp-face", orientations=6)
    assert face_encoder.encode(clip).shape == (face_encoder.dim,) and face_encoder.dim < get_encoder("hog-lbp-face").dim


class _Broken(Encoder):
    name, stream, level, dim = "broken", "text", "clip", 2
    licence, weights, uses, version = "none", "none", frozenset({"text"}), 1

    def _encode(self, clip):
        return {"nan": np.array([np.nan, 1.0]), "long": np.ones(3), "none": np.empty((0, 2))}[clip.transcript]


@pytest.mark.parametrize(
    ("transcript", "complaint"), [("nan", "NaN or infinity"), ("long", r"\(3,\), declared dim 2"), ("none", "dim 2")]
)
def test_broken_features_never_leave(clip, transcript, complaint):
    with pytest.raises(EncoderError, match=f"clip 'c1': encoder 'broken' gave .*{complaint}"):
        _Broken().encode(replace(clip, transcript=transcript))


# --- what is missing is said ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("hog-colour-motion", {"frames": np.empty((0, 9, 9, 3), np.uint8)}, "no video"),
        ("hog-lbp-face", {"crops": np.empty((0, 112, 112, 3), np.uint8), "found": np.empty(0, bool)}, "no video"),
        ("hog-lbp-face", {"found": np.zeros(6, bool)}, "no face found"),
        ("hog-lbp-face-frames", {"found": np.zeros(6, bool)}, "no face found"),
        ("egemaps", {"audio": np.empty(0, np.float32)}, "no audio track"),
        ("egemaps", {"audio": np.zeros(SAMPLE_RATE, np.float32)}, "audio is silent"),
        ("egemaps-lld", {"audio": np.full(SAMPLE_RATE, 5e-5, np.float32)}, "audio is silent"),
        ("egemaps", {"audio": voice(seconds=0.29)}, "audio shorter than 0.3 s"),
        ("char-ngram", {"transcript": ""}, "empty transcript"),
        ("char-ngram", {"transcript": " \u3000\t\n"}, "empty transcript"),
    ],
)
def test_missing_stream(clip, name, change, reason):
    with pytest.raises(MissingStream) as caught:
        get_encoder(name).encode(replace(clip, **change))
    assert str(caught.value) == reason


# --- audio ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.3, 0.35, 12.0])
def test_short_and_long_audio(clip, seconds):
    assert np.isfinite(get_encoder("egemaps").encode(replace(clip, audio=voice(seconds=seconds)))).all()


def test_audio_without_a_voice_is_finite(clip, rng):
    hiss = rng.normal(0, 0.05, SAMPLE_RATE).astype(np.float32)
    click = np.zeros(SAMPLE_RATE, np.float32)
    click[8000] = 0.5
    for audio in (hiss, click):
        for name in ("egemaps", "egemaps-lld"):
            assert np.isfinite(get_encoder(name).encode(replace(clip, audio=audio))).all()


def test_what_opensmile_leaves_undefined_becomes_zero(clip, monkeypatch):
    values = np.array([[np.nan], [np.inf], [-np.inf], [2.0]] + [[1.0]] * 84, np.float32)
    monkeypatch.setattr(audio_module, "_smile", lambda level: lambda audio, sr: values[None])
    assert get_encoder("egemaps").encode(clip)[:4].tolist() == [0, 0, 0, 2]


def test_gain_moves_loudness_and_leaves_pitch(clip):
    encoder = get_encoder("egemaps")
    quiet, loud = (encoder.encode(replace(clip, audio=voice(gain=gain))) for gain in (0.05, 0.4))
    index = {name: i for i, name in enumerate(encoder.feature_names)}
    loudness, f0 = index["loudness_sma3_amean"], index["F0semitoneFrom27.5Hz_sma3nz_amean"]
    assert loud[loudness] > 1.5 * quiet[loudness]
    assert loud[f0] == pytest.approx(quiet[f0], abs=0.1)  # semitones
    assert quiet[f0] == pytest.approx(12 * np.log2(160 / 27.5), abs=0.5)


@pytest.mark.parametrize("sr", [16_000, 44_100])
def test_pitch_follows_a_step(sr):
    audio = np.concatenate([voice(120, sr=sr), voice(240, sr=sr), np.zeros(sr, np.float32)])
    contour = pitch(audio, sr)
    assert list(contour.columns) == ["time", "hz", "voiced"]
    low, high, none = (contour[contour["time"].between(*span)] for span in ((0.2, 0.8), (1.2, 1.8), (2.3, 2.8)))
    assert low["voiced"].all() and low["hz"].median() == pytest.approx(120, rel=0.02)
    assert high["voiced"].all() and high["hz"].median() == pytest.approx(240, rel=0.02)
    assert not none["voiced"].any() and none["hz"].isna().all()
    crossing = contour.loc[contour["hz"] > 180, "time"].min()
    assert crossing == pytest.approx(1.0, abs=0.025)


def test_pitch_of_too_little_audio_has_no_rows():
    assert pitch(np.zeros(100, np.float32), SAMPLE_RATE).empty


# --- text ----------------------------------------------------------------------------------------------------------


def test_width_case_and_spacing_of_text_do_not_matter(clip):
    encoder = get_encoder("char-ngram")
    same = ["ok, 我 没事!", "ＯＫ， 我\u3000没事！", " OK,  我 没事!\n"]
    first, *others = (encoder.encode(replace(clip, transcript=text)) for text in same)
    assert all(np.array_equal(first, other) for other in others)
    assert np.linalg.norm(first) == pytest.approx(1)


def test_texts_that_share_phrases_are_closer(clip):
    encoder = get_encoder("char-ngram")
    for sentence, near, far in [
        ("我今天很高兴", "他今天很高兴", "别碰那个杯子"),
        ("i am so happy today", "she is so happy today", "put that cup down"),
    ]:
        base, close, away = (encoder.encode(replace(clip, transcript=t)) for t in (sentence, near, far))
        assert base @ close > base @ away + 0.2


# --- vision --------------------------------------------------------------------------------------------------------


def test_hog_finds_the_direction_and_the_place():
    picture = np.zeros((32, 32), np.float32)
    picture[:, 24:] = 100  # a vertical edge in the right half: gradient along x, bin 0
    cells = hog(picture, (2, 2), 4)
    assert cells.shape == (2, 2, 4)
    assert cells[:, 1, 0].min() > 1 and np.delete(cells.reshape(-1), [4, 12]).max() < 1e-3
    turned = hog(picture.T, (2, 2), 4)
    assert turned[1, :, 2].min() > 1


def test_hog_ignores_brightness_and_contrast(rng):
    picture = cv2.GaussianBlur(rng.uniform(0, 100, (32, 32)).astype(np.float32), (5, 5), 0)
    assert np.allclose(hog(picture, (2, 2), 6), hog(1.7 * picture + 20, (2, 2), 6), atol=1e-3)


def test_hog_of_a_flat_picture_is_zero():
    assert np.array_equal(hog(np.full((32, 32), 80, np.float32), (2, 2), 6), np.zeros((2, 2, 6)))


def test_lbp_tells_flat_edge_and_spot():
    picture = np.zeros((5, 5), np.uint8)
    picture[2, 2] = 9
    assert lbp(picture)[1, 1] == 0  # brighter than all neighbours
    assert lbp(np.full((5, 5), 7, np.uint8)).tolist() == [[8] * 3] * 3
    assert lbp(np.tile(np.array([0, 0, 5, 5, 5], np.uint8), (5, 1)))[1, 1] == 5


@pytest.mark.parametrize(("part", "change"), [("brows_eyes", {"brow": 6}), ("mouth", {"mouth": 8})])
def test_a_face_part_moves_its_own_features(clip, part, change):
    encoder = get_encoder("hog-lbp-face")
    still = replace(clip, crops=np.stack([face()] * 6))
    moved = replace(clip, crops=np.stack([face(**change)] * 6))
    difference = np.abs(encoder.encode(still) - encoder.encode(moved))
    own = np.array([name.startswith(part) for name in encoder.feature_names])
    assert difference[own].max() > 0.2 and difference[~own].max() < 1e-6


def test_a_moving_face_has_change_and_a_still_one_none(clip):
    encoder = get_encoder("hog-lbp-face")
    change = np.array([name.endswith("_change") for name in encoder.feature_names])
    still = encoder.encode(replace(clip, crops=np.stack([face()] * 6)))
    assert np.abs(still[change]).max() < 1e-6
    assert encoder.encode(clip)[change].max() > 0.05


def test_frames_without_a_face_do_not_count(clip):
    crops = clip.crops.copy()
    crops[2] = 255 - crops[2]
    for name in ("hog-lbp-face", "hog-lbp-face-frames"):
        assert distance(get_encoder(name), clip, replace(clip, crops=crops)) == 0


def test_motion_features_see_motion_where_it_is(clip):
    encoder = get_encoder("hog-colour-motion")
    still = np.stack([clip.frames[0]] * 6)
    waving = still.copy()
    waving[1::2, :40, :50] = 255  # top left, every other frame
    values = dict(zip(encoder.feature_names, encoder.encode(replace(clip, frames=waving)), strict=True))
    quiet = dict(zip(encoder.feature_names, encoder.encode(replace(clip, frames=still)), strict=True))
    assert quiet["difference"] == 0 and quiet["flow"] < 0.02 < 0.5 < values["flow"]
    assert values["difference_r0c0"] > 0.1 > 1e-3 > values["difference_r2c2"]


def test_flow_measures_speed(clip):
    encoder = get_encoder("hog-colour-motion")
    speeds = []
    for step in (1, 3):
        frames = np.stack([np.roll(clip.frames[0], step * i, axis=1) for i in range(6)])
        speeds.append(encoder.encode(replace(clip, frames=frames))[encoder.feature_names.index("flow")])
    assert 2 * speeds[0] < speeds[1] < 4 * speeds[0]


def test_colour_of_the_scene_is_seen(clip):
    encoder = get_encoder("hog-colour-motion")
    scenes = {"red": (220, 30, 30), "blue": (30, 30, 220)}
    values = {}
    for colour, rgb in scenes.items():
        frames = np.broadcast_to(np.array(rgb, np.uint8), clip.frames.shape)
        values[colour] = dict(zip(encoder.feature_names, encoder.encode(replace(clip, frames=frames)), strict=True))
    assert values["red"]["hue_0deg"] > 0.99 and values["blue"]["hue_225deg"] > 0.99
    assert values["red"]["mean_blue_yellow"] > values["blue"]["mean_blue_yellow"]


def test_one_frame_is_enough(clip):
    one = replace(clip, frames=clip.frames[:1], crops=clip.crops[:1], found=clip.found[:1])
    for name in ("hog-colour-motion", "hog-lbp-face"):
        assert np.isfinite(get_encoder(name).encode(one)).all()


# --- real speech ---------------------------------------------------------------------------------------------------


def test_real_voices_angry_is_louder_than_sad(real, clip):
    encoder = get_encoder("egemaps")
    loudness = encoder.feature_names.index("loudness_sma3_amean")

    def mean_loudness(code):
        values = []
        for path in sorted((real / "ravdess_audio").glob(f"03-01-{code}-*.flac"))[:6]:
            with av.open(str(path)) as container:
                parts = [frame.to_ndarray().ravel() for frame in container.decode(audio=0)]
            audio = np.concatenate(parts)
            audio = audio.astype(np.float32) / np.iinfo(audio.dtype).max
            values.append(encoder.encode(replace(clip, audio=audio))[loudness])
        assert len(values) == 6
        return np.mean(values)

    assert mean_loudness("05") > 1.5 * mean_loudness("04")
