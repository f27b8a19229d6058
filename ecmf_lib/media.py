"""A clip file in, sampled frames and mono 16 kHz audio out, in one decode pass with PyAV.

Frames are chosen by their time stamps, not by their index, so variable and non-integer frame rates are sampled
evenly in time. The stamps come from reading the packets first, which decodes nothing; what a header says about
duration and frame count is often wrong or missing, and never needed here. Memory stays bounded: of a long video
only the chosen frames are kept, already scaled down.

Audio is resampled by FFmpeg's own resampler (through PyAV) and not by torchaudio: every decode worker would
otherwise import torch, seconds and hundreds of megabytes each, to do the same job.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import Interpolation, VideoReformatter

from ecmf_lib.config import SAMPLE_RATE

#: Peak below which a track counts as silent: -80 dBFS. Encoders (AAC) turn digital silence into tiny noise.
SILENCE = 1e-4

#: Longest audio or video that is read, in seconds. A clip holds an utterance; what is longer is a whole recording.
MAX_SECONDS = 3600.0

#: Formats FFmpeg would open although they hold text, or point to other files.
_REFUSED_FORMATS = {"tty", "hls", "dash", "concat", "sdp", "rtsp"}

#: Area averaging avoids moiré when shrinking; the other flags make the result the same on every processor.
_SCALING = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INT

_STAMP_TOLERANCE = 1e-4  # s; far below the gap between frames, far above rounding of time stamps


class MediaError(ValueError):
    """A file that cannot be used.

    Parameters
    ----------
    path : Path or None
        The file.
    reason : str
        What is wrong with it.
    mend : str
        What the user can do.
    """

    def __init__(self, path: Path | None, reason: str, mend: str):
        super().__init__(f"{path}: {reason}; {mend}")
        self.path, self.reason, self.mend = path, reason, mend

    def __reduce__(self):  # worker processes send it back to the main one
        return type(self), (self.path, self.reason, self.mend)


@dataclass(frozen=True)
class Media:
    """What one clip shows and says.

    Attributes
    ----------
    frames : uint8 [n, height, width, 3]
        RGB, upright, square pixels; n = 0 without video.
    times : float64 [n]
        Seconds from the start of the file, increasing.
    audio : float32 [samples]
        Mono, 16 kHz, full scale ±1; empty when absent.
    duration : float
        Seconds that could be decoded, the longer of video and audio.
    fps : float
        Average frame rate of the file, measured on its time stamps; 0 without video.
    audio_state : "ok", "silent" or "absent"
    video_state : "ok" or "absent"
    rotation : int
        Degrees counter-clockwise applied to bring the frames upright.
    notes : tuple of str
        Remarks for people: what was skipped or repaired.
    """

    frames: np.ndarray
    times: np.ndarray
    audio: np.ndarray
    duration: float
    fps: float
    audio_state: str
    video_state: str
    rotation: int = 0
    notes: tuple[str, ...] = ()


def read_media(video: Path | None, audio: Path | None = None, *, n_frames: int = 12, max_side: int = 640) -> Media:
    """Decode a clip once: frames spread evenly in time, and its sound.

    Parameters
    ----------
    video : Path or None
        File with the moving picture (and the sound, unless `audio` is given). A file that only has sound is fine.
    audio : Path or None
        Separate audio file; it replaces the sound inside `video`.
    n_frames : int
        Frames wanted: those on screen at the middle of `n_frames` equal stretches of time. A clip with fewer
        frames, or one whose picture stands still for long (variable rate), gives fewer; never a frame twice.
    max_side : int
        Longest side of the returned frames in pixels; larger ones are shrunk, smaller ones left as they are.

    Returns
    -------
    Media

    Raises
    ------
    MediaError
        If a file is missing, empty, no media, truncated beyond use, or nothing in it can be decoded.
    """
    if video is None and audio is None:
        raise MediaError(None, "neither a video nor an audio file is given", "fill one of the two columns")
    if n_frames < 1 or max_side < 16:
        raise ValueError(f"n_frames = {n_frames} must be ≥ 1 and max_side = {max_side} ≥ 16")
    decoded = _Decoded()
    if video is not None:
        _decode_or_say(Path(video), decoded, n_frames=n_frames, max_side=max_side, sound=audio is None)
    if audio is not None:
        _decode_or_say(Path(audio), decoded, n_frames=0, max_side=max_side, sound=True)
        if not decoded.samples:
            raise MediaError(Path(audio), "no audio in the file", "give a file with sound, or leave the column empty")
    return _finish(decoded, video, audio)


@dataclass
class _Decoded:
    """What has been collected so far; turned into a :class:`Media` at the end."""

    frames: list[np.ndarray] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    samples: list[np.ndarray] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fps: float = 0.0
    video_end: float = 0.0  # s
    rotation: int = 0


def _finish(decoded: _Decoded, video: Path | None, audio: Path | None) -> Media:
    sound = np.concatenate(decoded.samples) if decoded.samples else np.zeros(0, np.float32)
    if not np.isfinite(sound).all():
        decoded.notes.append(f"{int((~np.isfinite(sound)).sum())} audio samples were not finite and are set to 0")
        sound = np.nan_to_num(sound, nan=0.0, posinf=0.0, neginf=0.0)
    sound_end = sound.size / SAMPLE_RATE
    if video is not None and audio is not None and decoded.frames and abs(sound_end - decoded.video_end) > 0.5:
        decoded.notes.append(f"the audio file lasts {sound_end:.2f} s, the video {decoded.video_end:.2f} s")
    if not decoded.frames and not sound.size:
        raise MediaError(video or audio, "nothing in it can be decoded", "replace the file or leave the clip out")
    loud = sound.size and np.abs(sound).max() >= SILENCE
    return Media(
        frames=np.stack(decoded.frames) if decoded.frames else np.zeros((0, 0, 0, 3), np.uint8),
        times=np.array(decoded.times, np.float64),
        audio=sound,
        duration=float(max(decoded.video_end, sound_end)),
        fps=decoded.fps,
        audio_state="ok" if loud else "silent" if sound.size else "absent",
        video_state="ok" if decoded.frames else "absent",
        rotation=decoded.rotation,
        notes=tuple(decoded.notes),
    )


# ------------------------------------------------------------------------------------------------ opening


def _open(path: Path) -> av.container.InputContainer:
    if not path.is_file():
        raise MediaError(path, "no such file", "check the manifest, or leave the clip out")
    if path.stat().st_size == 0:
        raise MediaError(path, "the file is empty (0 bytes)", "copy or download it again")
    try:
        # 'file:' and the whitelist: a name or a playlist must never make FFmpeg open anything else
        container = av.open(f"file:{path}", options={"protocol_whitelist": "file"}, metadata_errors="ignore")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or str(error)
        raise MediaError(
            path,
            f"not a readable media file ({what})",
            "if it is a video, its index is missing or cut off: copy it again",
        ) from None
    if container.format.name in _REFUSED_FORMATS:
        kind = container.format.name
        container.close()
        raise MediaError(path, f"a text or playlist file ({kind}), no media", "give the media file itself")
    return container


def _stream(container, kind: str, notes: list[str]):
    """The stream of a kind ("video", "audio") to read, None if there is none; cover images are no video."""
    streams = [s for s in container.streams if s.type == kind]
    streams = [s for s in streams if not s.disposition & av.stream.Disposition.attached_pic]
    known = [s for s in streams if s.codec_context is not None]
    if len(known) < len(streams):
        _note(notes, f"{len(streams) - len(known)} {kind} stream(s) in an unknown codec, not read")
    if len(known) > 1:
        _note(notes, f"{len(known)} {kind} streams, one of them is used")
    best = container.streams.best(kind)
    return best if best in known else (known[0] if known else None)


def _note(notes: list[str], note: str) -> None:
    if note not in notes:  # a file is opened twice
        notes.append(note)


def _packets(container, streams, notes: list[str]) -> Iterator[av.Packet]:
    """Packets until the end, or until the file breaks off (noted once)."""
    try:
        yield from container.demux(streams)
    except av.error.FFmpegError as error:
        _note(notes, f"the file breaks off early ({error.strerror})")


def _start(container) -> float:
    return (container.start_time or 0) / av.time_base


# ------------------------------------------------------------------------------------------------ choosing


def _time_stamps(path: Path, notes: list[str], rate: float) -> np.ndarray:
    """Time of every frame, float64 [m] s from the start, sorted; read from the packets without decoding."""
    with _open(path) as container:
        stream, start = _stream(container, "video", notes), _start(container)
        count, stamps = 0, []
        for packet in _packets(container, stream, notes):
            stamp = packet.dts if packet.pts is None else packet.pts
            count += packet.size > 0
            if packet.size and stamp is not None and not packet.is_discard:
                stamps.append(float(stamp * packet.time_base) - start)
    if not stamps:  # a bare stream without container: all there is to go by is its nominal rate
        return np.arange(count) / rate
    return np.unique(np.array(stamps, np.float64))


def _frame_gap(times: np.ndarray, rate: float) -> float:
    """Mean time between frames in s, which is also taken for the time that the last one is shown."""
    return float((times[-1] - times[0]) / (len(times) - 1)) if len(times) > 1 else 1 / rate


def _spread(times: np.ndarray, n: int) -> np.ndarray:
    """Of the frame times [m], those on screen at the middle of n equal stretches; at most n, none twice."""
    if len(times) <= n:
        return times
    end = times[-1] + _frame_gap(times, rate=25)
    middles = times[0] + (np.arange(n) + 0.5) / n * (end - times[0])
    shown = np.searchsorted(times, middles + _STAMP_TOLERANCE, side="right") - 1
    return times[np.unique(shown)]


# ------------------------------------------------------------------------------------------------ decoding


def _decode_or_say(path: Path, decoded: _Decoded, **how) -> None:
    """:func:`_decode`, and whatever FFmpeg cannot do with a file (resample a rate of GHz, say) names the file."""
    try:
        _decode(path, decoded, **how)
    except av.error.FFmpegError as error:
        reason = f"it cannot be decoded ({error.strerror or error})"
        raise MediaError(path, reason, "replace the file or leave the clip out") from None


def _decode(path: Path, decoded: _Decoded, *, n_frames: int, max_side: int, sound: bool) -> None:
    """Decode one file into `decoded`; `n_frames` = 0 ignores its pictures, `sound` = False its audio."""
    with _open(path) as container:
        picture = _stream(container, "video", decoded.notes) if n_frames else None
        track = _stream(container, "audio", decoded.notes) if sound else None
        if picture is None and track is None:
            wanted = " or ".join(["video"] * bool(n_frames) + ["audio"] * sound)
            kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
            reason = "; ".join([f"no {wanted} that can be read (the file holds: {kinds})", *decoded.notes])
            raise MediaError(path, reason, "give a media file in a common codec, such as H.264 with AAC")
        frames = _Frames(path, picture, decoded, n_frames, max_side, _start(container)) if picture else None
        mono = _Mono(path, decoded) if track else None
        broken = 0
        for packet in _packets(container, [s for s in (picture, track) if s], decoded.notes):
            sink = frames if packet.stream is picture else mono
            try:
                for frame in packet.decode():
                    sink.add(frame)
            except av.error.FFmpegError:
                broken += 1
            if frames and frames.complete and mono is None:
                break
        if broken:
            decoded.notes.append(f"{broken} corrupt packets skipped in {path.name}")
        if frames:
            frames.close()
        if mono:
            mono.close()
        promised = (container.duration or 0) / av.time_base
        there = max(decoded.video_end, sum(block.size for block in decoded.samples) / SAMPLE_RATE)
        if promised > 1.1 * there + 0.5:
            decoded.notes.append(f"the header of {path.name} promises {promised:.2f} s, {there:.2f} s are there")


class _Frames:
    """Keeps the wanted frames of a stream, scaled and upright."""

    def __init__(self, path: Path, stream, decoded: _Decoded, n_frames: int, max_side: int, start: float):
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1  # clips are decoded in parallel, not frames
        self.decoded, self.max_side, self.start = decoded, max_side, start
        self.pixel_aspect = float(stream.sample_aspect_ratio or 1)
        self.rate = float(stream.average_rate or 25)
        self.reformatter = VideoReformatter()
        self.size: tuple[int, int] | None = None
        times = _time_stamps(path, decoded.notes, self.rate)
        if len(times) and times[-1] - times[0] > MAX_SECONDS:
            raise MediaError(
                path, f"{times[-1] / 60:.0f} minutes long", "cut it into clips first, or mend its time stamps"
            )
        self.wanted = list(_spread(times, n_frames))
        self.seen = self.taken = 0
        gap = _frame_gap(times, self.rate)
        decoded.fps = 1 / gap
        decoded.video_end = float(times[-1] - min(times[0], 0)) + gap if len(times) else 0.0

    @property
    def complete(self) -> bool:
        return self.taken == len(self.wanted)

    def add(self, frame: av.VideoFrame) -> None:
        time = self.seen / self.rate if frame.time is None else frame.time - self.start
        self.seen += 1
        if self.complete or time < self.wanted[self.taken] - _STAMP_TOLERANCE:
            return
        # usually one step; more when frames in between could not be decoded
        while not self.complete and self.wanted[self.taken] <= time + _STAMP_TOLERANCE:
            self.taken += 1
        self.decoded.frames.append(self._upright(frame))
        self.decoded.times.append(max(time, 0.0))

    def _upright(self, frame: av.VideoFrame) -> np.ndarray:
        if self.size is None:
            width, height = frame.width * self.pixel_aspect, frame.height
            shrink = min(1.0, self.max_side / max(width, height))
            self.size = max(1, round(width * shrink)), max(1, round(height * shrink))
        scaled = self.reformatter.reformat(frame, *self.size, format="rgb24", interpolation=int(_SCALING))
        image = scaled.to_ndarray()
        matrix = frame.side_data.get(SideData.DISPLAYMATRIX)
        if matrix is not None:
            image = _orient(image, np.frombuffer(bytes(matrix), "<i4").reshape(3, 3))
            self.decoded.rotation = frame.rotation
        return np.ascontiguousarray(image)

    def close(self) -> None:
        lost = len(self.wanted) - len(self.decoded.frames)
        if lost > 0:
            self.decoded.notes.append(f"{lost} of {len(self.wanted)} sampled frames could not be decoded")


def _orient(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply a display matrix (ISO 14496-12: x' = a·x + c·y, y' = b·x + d·y) to an image, to the nearest 90°."""
    (a, b), (c, d) = matrix[0, :2], matrix[1, :2]
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, flip_x, flip_y = image.transpose(1, 0, 2), c < 0, b < 0
    else:
        flip_x, flip_y = a < 0, d < 0
    return image[:: -1 if flip_y else 1, :: -1 if flip_x else 1]


class _Mono:
    """Mixes and resamples the audio frames of a stream to float32 mono at 16 kHz."""

    def __init__(self, path: Path, decoded: _Decoded):
        self.path, self.decoded = path, decoded
        self.form, self.resampler, self.left = None, None, MAX_SECONDS * SAMPLE_RATE

    def add(self, frame: av.AudioFrame) -> None:
        form = frame.format.name, frame.layout.name, frame.sample_rate
        if form != self.form:  # at the start, and in the rare file that changes its form on the way
            self.close()
            # maxval 1: the weights of the channels add up to 1, so a loud stereo track does not clip
            options = {"rematrix_maxval": "1"}
            self.form, self.resampler = form, AudioResampler("flt", "mono", SAMPLE_RATE, options=options)
        frame.pts = None
        self._keep(self.resampler.resample(frame))

    def _keep(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            samples = frame.to_ndarray().reshape(-1).astype(np.float32)
            self.left -= samples.size
            if self.left < 0:
                raise MediaError(
                    self.path,
                    f"more than {MAX_SECONDS / 60:.0f} minutes of audio",
                    "cut it into clips of one utterance",
                )
            if samples.size:
                self.decoded.samples.append(samples)

    def close(self) -> None:
        if self.resampler is not None:
            self._keep(self.resampler.resample(None))
