"""Every kind of file is made here, decoded, and compared with what was put in."""

from __future__ import annotations

import pickle
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ecmf_lib import media as media_module
from ecmf_lib.media import MediaError, read_media

RATE = 16_000


# ------------------------------------------------------------------------------------------------ making files


def grey_frames(levels, height=48, width=64):
    """Frames of one grey level each, so that a decoded frame tells which one it was."""
    return [np.full((height, width, 3), level, np.uint8) for level in levels]


def tone(seconds, rate=48_000, hertz=440.0, level=0.5):
    return (level * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def write(
    path,
    frames=(),
    *,
    stamps=None,
    fps=Fraction(25),
    codec="libx264",
    pixels="yuv420p",
    audio=None,
    rate=48_000,
    layout="mono",
    audio_codec="aac",
    rotation=None,
    hflip=False,
    container_options=None,
    codec_options=None,
):
    """Mux frames (uint8 RGB) and audio (float32 [channels, samples] or [samples]); stamps are in milliseconds."""
    with av.open(str(path), "w", options=container_options or {}) as out:
        if len(frames):
            video = out.add_stream(codec, rate=fps, options=codec_options or {})
            video.height, video.width = frames[0].shape[:2]
            video.pix_fmt = pixels
            if stamps is not None:
                video.codec_context.time_base = Fraction(1, 1000)
            if rotation is not None:
                video.set_display_rotation(rotation, hflip=hflip)
        if audio is not None:
            sound = out.add_stream(audio_codec, rate=rate, layout=layout)
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = index if stamps is None else stamps[index]
            frame.time_base = 1 / fps if stamps is None else Fraction(1, 1000)
            out.mux(video.encode(frame))
        if len(frames):
            out.mux(video.encode(None))
        if audio is not None:
            samples = np.atleast_2d(audio).astype(np.float32)
            step = 4800
            for begin in range(0, samples.shape[1], step):
                block = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(samples[:, begin : begin + step]), format="fltp", layout=layout
                )
                block.sample_rate, block.pts, block.time_base = rate, begin, Fraction(1, rate)
                out.mux(sound.encode(block))
            out.mux(sound.encode(None))
    return Path(path)


def levels_of(media):
    return media.frames.mean(axis=(1, 2, 3))


def loudest_hertz(audio):
    return np.fft.rfft(audio * np.hanning(audio.size)).__abs__().argmax() * RATE / audio.size


# ------------------------------------------------------------------------------------------------ sampling in time


def test_ordinary_clip_is_sampled_at_the_middle_of_equal_stretches(tmp_path):
    clip = write(tmp_path / "a.mp4", grey_frames(range(20, 220, 2)), audio=tone(4.0))
    media = read_media(clip, n_frames=10)
    assert media.frames.shape == (10, 48, 64, 3) and media.frames.dtype == np.uint8
    np.testing.assert_allclose(media.times, 0.2 + 0.4 * np.arange(10), atol=0.021)
    np.testing.assert_allclose(levels_of(media), 20 + 2 * (media.times * 25), atol=2)
    assert media.fps == pytest.approx(25) and media.duration == pytest.approx(4.0, abs=0.05)
    assert media.audio.dtype == np.float32 and media.audio.ndim == 1
    assert media.audio_state == media.video_state == "ok" and media.rotation == 0 and media.notes == ()


def test_variable_rate_is_sampled_by_time_not_by_index(tmp_path):
    # 80 frames in the first second, then 10 a second for three more: by index, most samples would fall in the first
    stamps = [round(1000 * i / 80) for i in range(80)] + [1000 + 100 * i for i in range(30)]
    clip = write(tmp_path / "v.mkv", grey_frames(range(20, 240, 2)), stamps=stamps)
    media = read_media(clip, n_frames=8)
    np.testing.assert_allclose(media.times, 0.25 + 0.5 * np.arange(8), atol=0.16)  # a frame stays for up to 0.1 s
    shown = np.searchsorted(stamps, media.times * 1000 + 1, side="right") - 1
    np.testing.assert_allclose(levels_of(media), 20 + 2 * shown, atol=2)
    assert media.fps == pytest.approx(109 / 3.9, rel=0.01)


@pytest.mark.parametrize("fps", [Fraction(30_000, 1001), Fraction(605_457, 100_000)])
def test_rate_that_is_no_integer(tmp_path, fps):
    clip = write(tmp_path / "n.mp4", grey_frames(range(20, 240, 5)), fps=fps)
    media = read_media(clip, n_frames=6)
    assert media.fps == pytest.approx(float(fps), rel=1e-3)
    np.testing.assert_allclose(levels_of(media), 20 + 5 * np.round(media.times * float(fps)), atol=2)


def test_a_picture_that_stands_still_gives_no_frame_twice(tmp_path):
    stamps = [40 * i for i in range(25)] + [9000]
    media = read_media(write(tmp_path / "s.mkv", grey_frames(range(20, 228, 8)), stamps=stamps), n_frames=12)
    assert 2 <= len(media.times) < 12 and (np.diff(media.times) > 0).all()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_fewer_frames_than_asked_for_are_all_returned_once(tmp_path, count):
    media = read_media(write(tmp_path / "f.mp4", grey_frames(range(40, 40 + 30 * count, 30))), n_frames=12)
    np.testing.assert_allclose(levels_of(media), range(40, 40 + 30 * count, 30), atol=3)
    np.testing.assert_allclose(media.times, np.arange(count) / 25, atol=1e-3)
    assert media.duration == pytest.approx(count / 25, abs=1e-3)


def test_exactly_as_many_frames_as_asked_for(tmp_path):
    assert len(read_media(write(tmp_path / "e.mp4", grey_frames(range(20, 140, 10))), n_frames=12).times) == 12


def test_stamps_that_do_not_start_at_zero_are_counted_from_the_start(tmp_path):
    stamps = [5000 + 40 * i for i in range(25)]
    media = read_media(write(tmp_path / "o.mkv", grey_frames(range(20, 220, 8)), stamps=stamps), n_frames=5)
    np.testing.assert_allclose(media.times, 0.1 + 0.2 * np.arange(5), atol=0.03)
    assert media.duration == pytest.approx(1.0, abs=0.05)


def test_unknown_duration_and_no_index(tmp_path):
    # a live matroska file has neither; a bare H.264 stream has no time stamps either
    live = write(tmp_path / "l.mkv", grey_frames(range(20, 220, 2)), container_options={"live": "1"})
    with av.open(str(live)) as container:
        assert container.duration is None and not container.streams.video[0].duration
    bare = write(tmp_path / "b.h264", grey_frames(range(20, 220, 2)))
    for clip in (live, bare):
        media = read_media(clip, n_frames=10)
        assert len(media.times) == 10
        np.testing.assert_allclose(levels_of(media), 30 + 20 * np.arange(10), atol=6)


# ------------------------------------------------------------------------------------------------ pictures


def quadrant(height=48, width=96):
    """Bright in the upper left quarter only."""
    image = np.full((height, width, 3), 40, np.uint8)
    image[: height // 2, : width // 2] = 220
    return image


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("hflip", [False, True])
def test_display_matrix_is_applied(tmp_path, degrees, hflip):
    clip = write(tmp_path / "r.mp4", [quadrant()] * 3, rotation=degrees, hflip=hflip)
    media = read_media(clip, n_frames=1)
    expected = np.rot90(quadrant(), degrees // 90)
    expected = expected[:, ::-1] if hflip else expected
    assert media.frames.shape[1:] == expected.shape
    assert np.abs(media.frames[0].astype(int) - expected).mean() < 8
    assert media.rotation % 360 == degrees or hflip


@pytest.mark.parametrize(
    "codec, pixels",
    [("ffv1", "gray"), ("ffv1", "gray10le"), ("ffv1", "yuv420p10le"), ("ffv1", "bgra"), ("mjpeg", "yuvj422p")],
)
def test_grey_ten_bit_and_other_pixel_formats(tmp_path, codec, pixels):
    media = read_media(write(tmp_path / "p.mkv", grey_frames([60, 120, 180]), codec=codec, pixels=pixels), n_frames=3)
    np.testing.assert_allclose(levels_of(media), [60, 120, 180], atol=2)
    assert media.frames.shape == (3, 48, 64, 3)


def test_odd_sizes_and_shrinking(tmp_path):
    odd = write(tmp_path / "o.mkv", grey_frames([100], height=33, width=57), codec="ffv1", pixels="bgr0")
    assert read_media(odd).frames.shape == (1, 33, 57, 3)
    large = write(tmp_path / "l.mkv", [quadrant(360, 720)], codec="ffv1", pixels="bgr0")
    small = read_media(large, max_side=120).frames
    assert small.shape == (1, 60, 120, 3)
    assert np.abs(small[0].astype(int) - quadrant(60, 120)).max() <= 1


def test_pixels_that_are_not_square_are_made_square(tmp_path):
    clip = tmp_path / "s.mp4"
    with av.open(str(clip), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 60, 60, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        frame = av.VideoFrame.from_ndarray(grey_frames([90], 60, 60)[0], format="rgb24")
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    assert read_media(clip).frames.shape == (1, 60, 80, 3)


def test_only_the_sampled_frames_are_kept(tmp_path, monkeypatch):
    clip = write(tmp_path / "long.mp4", grey_frames([i % 200 + 20 for i in range(500)]))
    scaled = []
    upright = media_module._Frames._upright
    monkeypatch.setattr(media_module._Frames, "_upright", lambda self, frame: scaled.append(1) or upright(self, frame))
    assert len(read_media(clip, n_frames=4).frames) == len(scaled) == 4


def test_the_same_file_gives_the_same_numbers(tmp_path):
    clip = write(tmp_path / "d.mp4", [quadrant(200, 400)] * 20, audio=tone(0.8))
    one, two = (read_media(clip, n_frames=3, max_side=150) for _ in range(2))
    np.testing.assert_array_equal(one.frames, two.frames)
    np.testing.assert_array_equal(one.audio, two.audio)


# ------------------------------------------------------------------------------------------------ sound


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1"])
def test_rates_and_channels_become_mono_16_khz(tmp_path, rate, layout):
    channels = {"mono": 1, "stereo": 2, "5.1": 6}[layout]
    sound = np.tile(tone(1.0, rate, level=0.5), (channels, 1))
    media = read_media(None, write(tmp_path / "a.wav", audio=sound, rate=rate, layout=layout, audio_codec="pcm_s16le"))
    assert media.audio.size == pytest.approx(RATE, abs=RATE * 0.01)
    assert loudest_hertz(media.audio) == pytest.approx(440, abs=2)
    assert np.abs(media.audio[2000:-2000]).max() == pytest.approx(
        0.5, abs=0.02
    )  # no louder than a channel: no clipping
    assert (media.video_state, media.audio_state, media.fps) == ("absent", "ok", 0.0)
    assert media.frames.shape == (0, 0, 0, 3) and media.times.size == 0


def test_both_channels_of_a_stereo_track_are_heard(tmp_path):
    sound = np.stack([tone(1.0, hertz=300), tone(1.0, hertz=900)])
    heard = read_media(None, write(tmp_path / "s.flac", audio=sound, layout="stereo", audio_codec="flac")).audio
    spectrum = np.abs(np.fft.rfft(heard * np.hanning(heard.size)))
    strongest = np.sort(np.argsort(spectrum)[-6:] * RATE / heard.size)
    assert abs(strongest[0] - 300) < 5 and abs(strongest[-1] - 900) < 5


@pytest.mark.parametrize("level, state", [(0.0, "silent"), (0.00005, "silent"), (0.001, "ok")])
def test_silence_is_recognised(tmp_path, level, state):
    clip = write(tmp_path / "q.mkv", grey_frames([50, 90]), audio=tone(0.5, level=level), audio_codec="flac")
    media = read_media(clip)
    assert media.audio_state == state and media.audio.size > 0


def test_silence_through_a_lossy_codec_is_still_silence(tmp_path):
    assert read_media(write(tmp_path / "q.mp4", grey_frames([50, 90]), audio=tone(1, level=0))).audio_state == "silent"


def test_video_without_audio(tmp_path):
    media = read_media(write(tmp_path / "m.mp4", grey_frames([50, 90])))
    assert media.audio_state == "absent" and media.audio.shape == (0,) and media.audio.dtype == np.float32


def test_audio_only_file_in_the_video_column(tmp_path):
    media = read_media(write(tmp_path / "a.m4a", audio=tone(1.0)))
    assert media.video_state == "absent" and media.audio_state == "ok" and media.duration == pytest.approx(1, abs=0.05)


def test_separate_audio_replaces_the_sound_of_the_video(tmp_path):
    video = write(tmp_path / "v.mp4", grey_frames(range(20, 220, 4)), audio=tone(2.0, hertz=300))
    audio = write(tmp_path / "a.flac", audio=tone(2.0, hertz=1000), audio_codec="flac")
    media = read_media(video, audio)
    assert loudest_hertz(media.audio) == pytest.approx(1000, abs=2) and media.notes == ()
    short = write(tmp_path / "s.wav", audio=tone(0.5), audio_codec="pcm_s16le")
    assert any("the audio file lasts 0.50 s, the video 2.00 s" in note for note in read_media(video, short).notes)


def test_cover_image_of_an_audio_file_is_no_video(tmp_path):
    path = tmp_path / "c.mp3"
    with av.open(str(path), "w", format="mp3") as out:
        sound = out.add_stream("libmp3lame", rate=44_100, layout="mono")
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        out.mux(cover.encode(av.VideoFrame.from_ndarray(grey_frames([99])[0], format="rgb24")))
        block = av.AudioFrame.from_ndarray(tone(1.0, 44_100)[None], format="fltp", layout="mono")
        block.sample_rate, block.pts = 44_100, 0
        out.mux(sound.encode(block))
        out.mux(sound.encode(None))
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1  # the trap is there
    media = read_media(path)
    assert media.video_state == "absent" and media.audio_state == "ok"


def test_rate_and_channels_may_change_within_a_file(tmp_path):
    parts = [
        write(tmp_path / "1.mp3", audio=tone(1.0, 44_100), rate=44_100, audio_codec="libmp3lame"),
        write(tmp_path / "2.mp3", audio=np.tile(tone(1.0), (2, 1)), layout="stereo", audio_codec="libmp3lame"),
    ]
    joined = tmp_path / "j.mp3"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    audio = read_media(joined).audio
    assert audio.size == pytest.approx(2 * RATE, rel=0.1)
    for half in (audio[2000:14_000], audio[-14_000:-2000]):
        assert loudest_hertz(half) == pytest.approx(440, abs=3) and np.abs(half).max() == pytest.approx(0.5, abs=0.05)


def test_samples_that_are_not_finite_are_set_to_zero(tmp_path):
    sound = tone(0.5, RATE)
    sound[100:110] = np.nan
    media = read_media(None, write(tmp_path / "n.wav", audio=sound, rate=RATE, audio_codec="pcm_f32le"))
    assert np.isfinite(media.audio).all() and any("not finite" in note for note in media.notes)


# ------------------------------------------------------------------------------------------------ damaged files


@pytest.fixture(scope="module")
def masters(tmp_path_factory):
    tmp_path, rng = tmp_path_factory.mktemp("masters"), np.random.default_rng(0)
    noise = [rng.integers(0, 255, (96, 128, 3), dtype=np.uint8) for _ in range(100)]
    return {
        "moov last": write(tmp_path / "w.mp4", noise, audio=tone(4.0)),
        "faststart": write(tmp_path / "f.mp4", noise, audio=tone(4.0), container_options={"movflags": "faststart"}),
        "matroska": write(tmp_path / "w.mkv", noise, audio=tone(4.0)),
    }


@pytest.fixture
def whole(masters, tmp_path):
    return {kind: Path(shutil.copy(path, tmp_path)) for kind, path in masters.items()}


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def test_mp4_without_its_index_is_refused(whole):
    clip = cut(whole["moov last"], 0.5)
    with pytest.raises(MediaError, match=r"not a readable media file.*copy it again") as caught:
        read_media(clip)
    assert caught.value.path == clip and str(clip) in str(caught.value)


@pytest.mark.parametrize("kind", ["faststart", "matroska"])
def test_truncated_tail_keeps_what_decodes_and_says_so(whole, kind):
    media = read_media(cut(whole[kind], 0.5), n_frames=10)
    assert len(media.times) >= 9 and 1.0 < media.duration < 3.0
    np.testing.assert_allclose(np.diff(media.times), media.duration / 10, atol=0.1)
    assert any("breaks off" in n or "promises" in n or "corrupt" in n for n in media.notes), media.notes


def test_corrupt_packets_in_the_middle_are_skipped(tmp_path):
    path = write(tmp_path / "c.mkv", grey_frames(range(20, 220, 2)), codec="ffv1", pixels="bgr0", audio=tone(4.0))
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(1)
    middle = len(data) // 2
    data[middle : middle + len(data) // 20] = rng.integers(0, 255, len(data) // 20, dtype=np.uint8).tobytes()
    path.write_bytes(data)
    media = read_media(path, n_frames=10)
    assert len(media.times) >= 5 and media.times[0] < 0.5 and media.audio.size > RATE
    assert media.notes


def test_video_that_no_decoder_knows_leaves_the_sound(whole):
    clip = whole["moov last"]
    clip.write_bytes(clip.read_bytes().replace(b"avc1", b"xyz1"))
    media = read_media(clip)
    assert (media.video_state, media.audio_state) == ("absent", "ok")
    assert media.notes == ("1 video stream(s) in an unknown codec, not read",)


def test_damage_anywhere_gives_a_usable_clip_or_a_media_error(tmp_path, rng):
    frames = [rng.integers(0, 255, (32, 48, 3), dtype=np.uint8) for _ in range(15)]
    clips = [write(tmp_path / f"a.{kind}", frames, audio=tone(0.6)) for kind in ("mp4", "mkv")]
    clips.append(write(tmp_path / "a.wav", audio=tone(0.6), audio_codec="pcm_s16le"))
    outcomes = set()
    for number in range(60):
        data = bytearray(clips[number % 3].read_bytes())
        begin = rng.integers(len(data))
        if number % 2:
            data[begin : begin + rng.integers(1, len(data) // 3)] = b""
        else:
            data[begin : begin + 20] = rng.bytes(len(data[begin : begin + 20]))
        damaged = tmp_path / f"b{clips[number % 3].suffix}"
        damaged.write_bytes(data)
        try:
            media = read_media(damaged, n_frames=4)
            assert len(media.frames) == len(media.times) <= 4 and (np.diff(media.times) > 0).all()
            assert np.isfinite(media.audio).all() and (media.audio.size or len(media.frames)) and media.duration > 0
            outcomes.add("read")
        except MediaError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_empty_missing_text_folder_and_nothing_are_refused_each_with_its_reason(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is a shopping list\n" * 200)
    (tmp_path / "text.txt").write_text("this is a shopping list\n" * 200)
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).integers(0, 255, 50_000, dtype=np.uint8).tobytes())
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXTINF:10,\n{tmp_path}/other.mp4\n#EXT-X-ENDLIST\n")
    (tmp_path / "subs.mp4").write_text("1\n00:00:00,000 --> 00:00:02,000\nhello\n\n")
    reasons = {
        "empty.mp4": "0 bytes",
        "gone.mp4": "no such file",
        "text.mp4": "not a readable media file",
        "text.txt": "no media",
        "noise.mp4": "not a readable media file|nothing in it can be decoded",
        "list.mp4": "not a readable media file|playlist",
        "subs.mp4": "no video or audio that can be read",
        ".": "no such file",
    }
    for name, reason in reasons.items():
        with pytest.raises(MediaError, match=reason):
            read_media(tmp_path / name)
    with pytest.raises(MediaError, match="neither a video nor an audio"):
        read_media(None, None)


def test_separate_audio_that_holds_none_is_refused(tmp_path):
    video = write(tmp_path / "v.mp4", grey_frames([50, 90]))
    with pytest.raises(MediaError, match="no audio that can be read") as caught:
        read_media(video, write(tmp_path / "a.mp4", grey_frames([50, 90])))
    assert caught.value.path.name == "a.mp4"


def test_whole_recordings_are_refused_before_they_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(media_module, "MAX_SECONDS", 2.0)
    with pytest.raises(MediaError, match="cut it into clips"):
        read_media(write(tmp_path / "v.mp4", grey_frames(range(20, 220, 2))))
    with pytest.raises(MediaError, match="cut it into clips"):
        read_media(None, write(tmp_path / "a.wav", audio=tone(4.0), audio_codec="pcm_s16le"))


def test_nothing_is_written_to_the_terminal(whole, tmp_path, capfd):
    read_media(cut(whole["faststart"], 0.5))
    read_media(cut(whole["matroska"], 0.5))
    with pytest.raises(MediaError):
        read_media(cut(whole["moov last"], 0.5))
    assert capfd.readouterr() == ("", "")


def test_error_survives_the_way_back_from_a_worker_process():
    error = pickle.loads(pickle.dumps(MediaError(Path("a.mp4"), "it is broken", "copy it again")))
    assert (error.path, error.reason, error.mend) == (Path("a.mp4"), "it is broken", "copy it again")
    assert str(error) == "a.mp4: it is broken; copy it again"


def test_bad_arguments():
    for options in ({"n_frames": 0}, {"max_side": 1}):
        with pytest.raises(ValueError, match="must be"):
            read_media(Path("a.mp4"), **options)


# ------------------------------------------------------------------------------------------------ real clips


def test_real_clips(real):
    clips = sorted((real / "ravdess_clips").glob("*.mp4"))
    assert len(clips) == 31
    for clip in [c for c in clips if "face20" not in c.name] + clips[1::8]:
        media = read_media(clip)
        silent = clip.name.startswith("02")
        assert media.audio_state == ("silent" if silent else "ok"), clip.name
        assert media.notes == () and len(media.times) == 12 and 3.2 < media.duration < 5.1
        if "face20" in clip.name:
            assert media.frames.shape == (12, 224, 224, 3) and 3.9 < media.fps < 6.2
        else:
            assert media.frames.shape == (12, 360, 640, 3) and media.fps == pytest.approx(29.97, abs=0.01)
            assert np.ptp(np.diff(media.times)) < 0.04
