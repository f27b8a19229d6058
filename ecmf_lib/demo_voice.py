"""Voice of the demo corpus: source–filter synthesis of syllables whose prosody and voice quality carry emotion.

Glottal pulses (the shape of Rosenberg 1971, J. Acoust. Soc. Am. 49) with jitter, shimmer and breath noise excite a
cascade of five formant resonators (Klatt 1980, J. Acoust. Soc. Am. 67). What each emotion does to pitch, loudness,
tempo and quality follows the review of Scherer 2003 (Speech Communication 40).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import lfilter, sosfilt

from ecmf_lib.config import SAMPLE_RATE

BLOCK = 80  # samples for which the vocal tract stands still: 5 ms
CONTROL = 16  # samples between the points of the slower tracks (pitch, loudness, opening): 1 ms


@dataclass(frozen=True)
class Voice:
    """A speaker's habits."""

    pitch: float  # habitual fundamental frequency, Hz
    tract: float  # formant scale: 1 = a vocal tract of 17 cm, larger = shorter
    tempo: float = 1.0  # relative syllable rate
    breath: float = 0.0  # added to the breathiness of the emotion
    liveliness: float = 1.0  # scales pitch movements


VOICES = (
    Voice(205, 1.16), Voice(118, 1.00, 1.05), Voice(225, 1.19, 0.95, 0.05), Voice(104, 0.97, 0.92, 0.0, 0.85),
    Voice(192, 1.12, 1.06, 0.03), Voice(132, 1.03, 1.0, 0.02, 1.15), Voice(212, 1.15, 1.02, 0.0, 1.1),
    Voice(96, 0.95, 0.96, 0.04, 0.9), Voice(238, 1.21, 1.04, 0.02), Voice(125, 1.01, 0.98),
    Voice(184, 1.10, 0.94, 0.06, 0.9), Voice(112, 0.98, 1.03, 0.0, 1.1),
)  # fmt: skip


@dataclass(frozen=True)
class Prosody:
    """How an emotion sounds at full strength."""

    pitch: float  # semitones above the speaker's habit
    span: float  # semitones between accented and unaccented syllables
    slope: float  # semitones from the first to the last syllable
    rate: float  # syllables a second
    level: float  # dB
    tilt: float  # 0 pressed and bright – 1 lax and dull
    breath: float  # share of aspiration noise
    jitter: float  # relative disturbance of a period
    shimmer: float  # relative disturbance of a pulse's height
    tremor: float = 0.0  # semitones of trembling at 6–8 Hz
    final: float = 0.0  # semitones by which the last syllables rise
    smile: float = 1.0  # scale of the formants: spread lips shorten the tract
    pause: float = 0.1  # probability of a pause after a syllable


PROSODY = {
    "neutral": Prosody(0.0, 1.6, -2.0, 4.2, 0.0, 0.50, 0.06, 0.006, 0.03),
    "angry": Prosody(2.0, 4.5, -4.0, 5.4, 10.0, 0.0, 0.02, 0.016, 0.12, pause=0.03),
    "happy": Prosody(5.5, 8.0, 0.5, 5.4, 4.0, 0.30, 0.05, 0.004, 0.03, smile=1.12, pause=0.04),
    "sad": Prosody(-3.0, 0.8, -4.0, 2.9, -9.0, 0.98, 0.32, 0.012, 0.08, smile=0.96, pause=0.30),
    "worried": Prosody(2.5, 2.0, 1.0, 5.6, -4.0, 0.60, 0.20, 0.032, 0.14, tremor=1.3, pause=0.16),
    "surprise": Prosody(8.5, 5.0, 5.0, 3.8, 4.0, 0.35, 0.16, 0.008, 0.04, final=10.0, pause=0.06),
}

#: Vowel → first three formants in Hz of a 17 cm tract, after Peterson & Barney 1952, and how far the jaw opens.
VOWELS = {
    "a": (730, 1090, 2440, 1.0),
    "e": (530, 1840, 2480, 0.65),
    "i": (280, 2250, 2900, 0.35),
    "o": (570, 840, 2410, 0.7),
    "u": (310, 870, 2240, 0.3),
}
_ONSETS = ("open", "stop", "hiss", "hum", "glide")


def blend(emotion: str, strength: float) -> Prosody:
    """Prosody of an emotion at a strength between 0 (neutral) and 1 (full)."""
    calm, full = PROSODY["neutral"], PROSODY[emotion]
    pairs = {name: (getattr(calm, name), getattr(full, name)) for name in Prosody.__dataclass_fields__}
    return Prosody(**{name: low + strength * (high - low) for name, (low, high) in pairs.items()})


def speak(
    transcript: str, voice: Voice, emotion: str, strength: float, duration: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Speak for a given time.

    Parameters
    ----------
    transcript : str
        Its letters choose the vowels, so that the same sentence has the same sounds.
    voice : Voice
    emotion : str
        One of :data:`PROSODY`.
    strength : float
        0–1.
    duration : float
        Seconds.
    rng : numpy.random.Generator

    Returns
    -------
    samples : float32 [duration * 16000]
        Mono, within ±1.
    opening : float32 [duration * 16000]
        How far the mouth is open, 0–1.
    """
    prosody = blend(emotion, strength)
    n = round(duration * SAMPLE_RATE)
    syllables = _schedule(transcript, prosody, voice, duration, rng)
    pitch = _to_samples(_pitch(syllables, n // CONTROL + 1, prosody, voice, rng), n)
    voiced, noise, opening = (_to_samples(gate, n) for gate in _gates(syllables, n // CONTROL + 1, rng))
    source, gap = _glottis(pitch, prosody, rng)
    white = rng.standard_normal(n)
    excitation = voiced * (source + (prosody.breath + voice.breath) * 1.2 * gap * white) + 0.12 * noise * white
    sound = _tract(excitation, syllables, voice.tract * prosody.smile)
    sound += 0.25 * noise * lfilter([1, -0.95], [1], white)  # friction arises at the teeth, past the tract
    level = 10 ** ((prosody.level + rng.uniform(-2, 2)) / 20)
    sound *= 0.055 * level / (np.sqrt(np.mean(sound**2)) + 1e-9)
    room = lfilter([1], [1, -0.9], rng.standard_normal(n)) * 0.0004
    return np.tanh(sound + room).astype(np.float32), opening.astype(np.float32)


def _schedule(transcript: str, prosody: Prosody, voice: Voice, duration: float, rng: np.random.Generator) -> list[dict]:
    """Syllables with their start and length in s, sounds and accents, until the time is up."""
    letters = [c for c in transcript.lower() if c.isalpha()] or ["a"]
    vowels = [c if c in VOWELS else "aeiou"[ord(c) % 5] for c in letters if c in VOWELS or ord(c) > 127] or ["a"]
    time, syllables = rng.uniform(0.12, 0.22), []
    while True:
        k = len(syllables)
        length = rng.uniform(0.85, 1.15) / (prosody.rate * voice.tempo)
        if time + length > duration - 0.1:
            return syllables
        onset = _ONSETS[(ord(letters[(2 * k) % len(letters)]) + k) % len(_ONSETS)]
        accent = bool(rng.random() < 0.4)
        syllables.append(
            {"start": time, "length": length, "vowel": vowels[k % len(vowels)], "onset": onset, "accent": accent}
        )
        time += length + (rng.uniform(0.15, 0.3) if rng.random() < prosody.pause else 0.0)


def _pitch(syllables: list[dict], n: int, prosody: Prosody, voice: Voice, rng: np.random.Generator) -> np.ndarray:
    """Fundamental frequency in Hz at n control points."""
    time = np.arange(n) * CONTROL / SAMPLE_RATE
    knots, semitones = [0.0], [prosody.pitch]
    for k, syllable in enumerate(syllables):
        place = k / max(1, len(syllables) - 1)
        rise = prosody.final * max(0.0, (place - 0.6) / 0.4)
        accent = prosody.span * (0.7 if syllable["accent"] else -0.4) * rng.uniform(0.8, 1.2)
        knots.append(syllable["start"] + 0.45 * syllable["length"])
        semitones.append(prosody.pitch + voice.liveliness * (accent + rise) + prosody.slope * (place - 0.3))
    curve = gaussian_filter1d(np.interp(time, knots, semitones), 0.02 * SAMPLE_RATE / CONTROL)
    curve += prosody.tremor * np.sin(2 * np.pi * (rng.uniform(6, 8) * time + 0.3 * np.sin(9 * time)))
    return voice.pitch * 2 ** (curve / 12)


def _gates(syllables: list[dict], n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Loudness of voicing and of friction, and opening of the mouth, at n control points."""
    voiced, noise, opening = np.zeros(n), np.zeros(n), np.zeros(n)
    for syllable in syllables:
        start, length = (round(syllable[key] * SAMPLE_RATE / CONTROL) for key in ("start", "length"))
        lead = round(length * {"open": 0.02, "stop": 0.28, "hiss": 0.32, "hum": 0.3, "glide": 0.15}[syllable["onset"]])
        height = (1.25 if syllable["accent"] else 0.85) * rng.uniform(0.9, 1.1)
        voiced[start + lead : start + length] = height
        opening[start + lead : start + length] = VOWELS[syllable["vowel"]][3] * min(1.0, height)
        if syllable["onset"] == "hum":
            voiced[start : start + lead] = 0.35 * height
        elif syllable["onset"] == "hiss":
            noise[start : start + lead] = height
        elif syllable["onset"] == "stop":
            noise[start + lead // 2 : start + lead] = 0.8 * height
    smooth = ((voiced, 0.012), (noise, 0.006), (opening, 0.03))  # s: lips and jaw are slower than the voice
    return tuple(gaussian_filter1d(gate, seconds * SAMPLE_RATE / CONTROL) for gate, seconds in smooth)


def _to_samples(track: np.ndarray, n: int) -> np.ndarray:
    return np.interp(np.arange(n) / CONTROL, np.arange(len(track)), track)


def _glottis(pitch: np.ndarray, prosody: Prosody, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Derivative of the glottal flow, and the opening of the glottis that lets breath noise through."""
    n = len(pitch)
    flow = np.zeros(n)
    position, open_share = 0, 0.45 + 0.35 * prosody.tilt
    while position < n:
        period = max(20, round(SAMPLE_RATE / pitch[position] * (1 + prosody.jitter * rng.standard_normal())))
        height = max(0.1, 1 + prosody.shimmer * rng.standard_normal())
        rising = max(4, round(period * open_share * 0.65))
        falling = max(3, round(period * open_share * 0.35))
        pulse = np.concatenate(
            [
                0.5 - 0.5 * np.cos(np.pi * np.arange(rising) / rising),
                np.cos(0.5 * np.pi * np.arange(falling) / falling),
            ]
        )[: n - position]
        flow[position : position + len(pulse)] += height * pulse[: n - position]
        position += period
    source = np.diff(flow, prepend=0.0) * 4
    keep = 0.25 + 0.68 * prosody.tilt  # one-pole low-pass: a lax voice loses its upper harmonics
    return lfilter([1 - keep], [1, -keep], source) / (1 - keep) ** 0.5, 0.2 + flow


def _tract(excitation: np.ndarray, syllables: list[dict], scale: float) -> np.ndarray:
    """Filter through five formants that glide from vowel to vowel."""
    starts = np.arange(0, len(excitation), BLOCK)
    middles = [s["start"] + 0.6 * s["length"] for s in syllables]
    targets = np.array([VOWELS[s["vowel"]][:3] for s in syllables], dtype=float)
    tracks = [np.interp(starts / SAMPLE_RATE, middles, targets[:, k]) for k in range(3)]
    tracks += [np.full(len(starts), 3500.0), np.full(len(starts), 4500.0)]
    frequencies = np.minimum(scale * np.stack(tracks, 1), 7400.0)
    widths = np.array([70.0, 90.0, 130.0, 220.0, 300.0])
    radius = np.exp(-np.pi * widths / SAMPLE_RATE)
    b = -2 * radius * np.cos(2 * np.pi * frequencies / SAMPLE_RATE)
    sections = np.zeros((len(starts), 5, 6))
    sections[:, :, 0] = 1 + b + radius**2  # gain 1 at 0 Hz, as in a cascade of resonators
    sections[:, :, 3], sections[:, :, 4], sections[:, :, 5] = 1, b, radius**2
    out, state = np.empty_like(excitation), np.zeros((5, 2))
    for start, section in zip(starts, sections, strict=True):
        out[start : start + BLOCK], state = sosfilt(section, excitation[start : start + BLOCK], zi=state)
    return out
