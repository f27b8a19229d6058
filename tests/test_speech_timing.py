"""Syllables, tempo, pauses and the final pitch of voices that are made with known ones."""

import numpy as np
import pytest

from ecmf_lib.config import SAMPLE_RATE
from ecmf_lib.encoders import ClipInputs, MissingStream, get_encoder


def spoken(*, hz=150.0, rate=4.0, syllables=8, gain=0.2, pause_after=0, pause=0.5, last=0.0, silence=0.3):
    """Harmonic syllables at `rate` a second; after `pause_after` of them a pause; `last` semitones on the last one."""
    time = np.arange(int(SAMPLE_RATE / rate)) / SAMPLE_RATE
    swell = np.sin(np.pi * time * rate) ** 2
    parts = [np.zeros(int(silence * SAMPLE_RATE))]
    for k in range(syllables):
        pitch = hz * 2 ** (last / 12) if k == syllables - 1 else hz
        parts.append(swell * sum(np.sin(2 * np.pi * pitch * n * time) / n for n in range(1, 12)))
        if k + 1 == pause_after:
            parts.append(np.zeros(int(pause * SAMPLE_RATE)))
    sound = np.concatenate([*parts, np.zeros(int(silence * SAMPLE_RATE))])
    noise = np.random.default_rng(0).normal(0, 1e-4, len(sound))
    return (gain * sound / np.abs(sound).max() + noise).astype(np.float32)


def heard(audio, name="c"):
    nothing = np.zeros((0, 4, 4, 3), np.uint8)
    return ClipInputs(name, nothing, np.zeros(0), nothing, np.zeros(0, bool), audio, "", "")


def timing(**voice):
    encoder = get_encoder("speech-timing")
    return dict(zip(encoder.feature_names, encoder.encode(heard(spoken(**voice))).tolist(), strict=True))


@pytest.mark.parametrize("rate", [3.0, 4.0, 5.5])
def test_syllables_are_counted_and_tempo_is_their_rate(rate):
    found = timing(rate=rate)
    assert found["syllables"] == 8
    assert found["tempo"] == pytest.approx(rate, rel=0.12)
    assert found["pause_share"] == 0


def test_silence_around_the_words_and_loudness_change_nothing():
    plain = timing()
    assert timing(silence=1.0)["tempo"] == pytest.approx(plain["tempo"], rel=0.03)
    assert timing(gain=0.02)["tempo"] == pytest.approx(plain["tempo"], rel=0.03)


def test_a_pause_is_a_pause_and_not_slowness():
    found = timing(pause_after=4, pause=0.6)
    assert found["longest_pause"] == pytest.approx(0.65, abs=0.15)
    assert found["pause_share"] == pytest.approx(0.65 / 2.6, abs=0.05)
    assert found["tempo"] == pytest.approx(timing()["tempo"], rel=0.1)


@pytest.mark.parametrize("last", [-5.0, 0.0, 6.0])
def test_the_pitch_of_the_last_syllable_against_the_rest(last):
    assert timing(last=last)["final_pitch"] == pytest.approx(last, abs=1.0)


def test_a_whisper_has_no_pitch_and_no_syllables(rng):
    encoder = get_encoder("speech-timing")
    found = encoder.encode(heard(rng.normal(0, 0.05, SAMPLE_RATE).astype(np.float32)))
    assert found[encoder.feature_names.index("final_pitch")] == 0
    assert found[encoder.feature_names.index("syllables")] <= 1


def test_without_sound_the_stream_is_missing():
    with pytest.raises(MissingStream, match="no audio"):
        get_encoder("speech-timing").encode(heard(np.zeros(0, np.float32)))


def test_real_sentences_of_seven_syllables(real):
    from ecmf_lib.media import read_media

    encoder = get_encoder("speech-timing")
    files = sorted((real / "ravdess_audio").glob("*_neutral.flac"))
    counts = [
        encoder.encode(heard(read_media(None, file).audio))[encoder.feature_names.index("syllables")] for file in files
    ]
    assert np.mean(counts) == pytest.approx(7, abs=1.2)
