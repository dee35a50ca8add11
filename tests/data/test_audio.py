"""Decoding, resampling and writing of audio files."""

import struct
import subprocess

import numpy as np
import pytest
import soundfile

from lib.data import audio

RATE = 8000


@pytest.fixture
def wave():
    return (np.random.default_rng(0).standard_normal((2, 3 * RATE + 7)) * 0.1).astype(np.float32)


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
def test_reads_any_part_of_a_file_by_seeking(tmp_path, wave, kind):
    path = tmp_path / f"a.{kind}"
    soundfile.write(path, wave.T, RATE)
    info = audio.probe(path)
    assert (info.rate, info.channels) == (RATE, 2)
    whole = audio.read(path)
    assert whole.dtype == np.float32
    assert whole.shape == (2, info.frames)
    assert abs(info.frames - wave.shape[1]) <= 1152
    part = audio.read(path, start=5001, frames=777)
    assert part.shape == (2, 777)
    np.testing.assert_allclose(part, whole[:, 5001:5778], atol=2e-4)
    assert audio.read(path, start=info.frames - 5, frames=100).shape == (2, 5)
    if kind == "wav":
        np.testing.assert_allclose(whole, wave, atol=1e-4)


def test_always_two_channels(tmp_path, wave):
    soundfile.write(tmp_path / "mono.wav", wave[0], RATE, "FLOAT")
    mono = audio.read(tmp_path / "mono.wav")
    assert np.array_equal(mono, np.stack([wave[0], wave[0]]))
    three = np.stack([wave[0], wave[1], wave[0] * 0])
    soundfile.write(tmp_path / "three.wav", three.T, RATE, "FLOAT")
    assert np.array_equal(audio.read(tmp_path / "three.wav"), wave)


def test_resampling_keeps_a_tone(tmp_path):
    tone = np.sin(2 * np.pi * 440 * np.arange(2 * 11025) / 11025)
    soundfile.write(tmp_path / "tone.wav", tone, 11025, "FLOAT")
    for rate in (RATE, 44100, 11024):  # the last ratio is odd: thousands of phases
        got = audio.read(tmp_path / "tone.wav", rate=rate)
        assert got.dtype == np.float32
        assert got.shape == (2, -(-2 * 11025 * rate // 11025))
        expected = np.sin(2 * np.pi * 440 * np.arange(got.shape[1]) / rate)
        np.testing.assert_allclose(got[1, 500:-500], expected[500:-500], atol=2e-3)


def _make(path, wave, kind):
    soundfile.write(path, wave.T, RATE, **({"subtype": "FLOAT"} if path.suffix == ".wav" else {}))
    content = path.read_bytes()
    if kind == "cut":
        content = content[: len(content) // 2]
    elif kind == "empty":
        content = b""
    elif kind == "text":
        content = b"no music, just words\n" * 500
    elif kind == "rate":
        content = content[:24] + struct.pack("<I", 7) + content[28:]
    elif kind == "header only":
        content = content[: content.index(b"data")] + b"data" + bytes(4)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cut.wav", "cut"),
        ("cut.flac", "cut"),
        ("cut.mp3", "cut"),
        ("empty.wav", "empty"),
        ("empty.mp3", "empty"),
        ("text.mp3", "text"),
        ("text.raw.wav", "text"),
        ("slow.wav", "rate"),
        ("header.wav", "header only"),
    ],
)
def test_broken_files_give_one_line_reasons(tmp_path, wave, name, kind):
    _make(tmp_path / name, wave, kind)
    with pytest.raises(audio.UndecodableError) as error:
        audio.read(audio.seekable(tmp_path / name, tmp_path / "cache"))
    assert error.value.reason and "exist" not in error.value.reason
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("cache/*"))


def test_promised_length_is_not_allocated(tmp_path, wave):
    path = tmp_path / "huge.flac"
    soundfile.write(path, wave.T, RATE)
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F  # the upper bits of STREAMINFO's 36-bit sample count: about 64 Gi frames
    path.write_bytes(content)
    with pytest.raises(audio.UndecodableError):
        audio.read(path)


def test_flac_from_a_pipe_is_measured(tmp_path, wave):
    soundfile.write(tmp_path / "pipe.flac", wave.T, RATE)
    content = bytearray((tmp_path / "pipe.flac").read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)  # STREAMINFO without a sample count
    (tmp_path / "pipe.flac").write_bytes(content)
    with pytest.raises(audio.UndecodableError, match="length"):
        audio.probe(tmp_path / "pipe.flac")
    assert audio.read(audio.seekable(tmp_path / "pipe.flac", tmp_path / "cache")).shape == wave.shape


def test_missing_file_and_raw_suffix(tmp_path):
    with pytest.raises(audio.UndecodableError, match="no such file"):
        audio.seekable(tmp_path / "none.wav", tmp_path)
    (tmp_path / "a.raw").write_bytes(bytes(1000))
    with pytest.raises(audio.UndecodableError):
        audio.probe(tmp_path / "a.raw")


def test_non_finite_samples_are_refused(tmp_path, wave):
    wave[1, 9000] = np.nan
    soundfile.write(tmp_path / "nan.wav", wave.T, RATE, "FLOAT")
    with pytest.raises(audio.UndecodableError, match="NaN"):
        audio.read(tmp_path / "nan.wav")
    audio.read(tmp_path / "nan.wav", frames=9000)
    with pytest.raises(audio.UserError, match="NaN"):
        audio.write(tmp_path / "out.wav", wave, RATE)
    assert not (tmp_path / "out.wav").exists()


def test_other_formats_are_decoded_once_even_with_odd_names(tmp_path, wave):
    soundfile.write(tmp_path / "a.wav", wave.T, RATE)
    odd = tmp_path / "-i pipe:0 %20 'x' é.m4a"
    subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", f"file:{odd}"], check=True)
    decoded = audio.seekable(odd, tmp_path / "cache")
    assert decoded.parent == tmp_path / "cache"
    stamp = decoded.stat().st_mtime_ns
    assert audio.seekable(odd, tmp_path / "cache") == decoded
    assert decoded.stat().st_mtime_ns == stamp
    assert abs(audio.read(decoded).shape[1] - wave.shape[1]) < 2048
    odd.write_bytes(odd.read_bytes()[:3000])  # changed and broken: the old copy must not stand in for it
    with pytest.raises(audio.UndecodableError):
        audio.seekable(odd, tmp_path / "cache")


def test_a_user_understands_why_ffmpeg_refused(tmp_path):
    (tmp_path / "words.mp4").write_bytes(b"no music, just words\n" * 500)
    (tmp_path / "table.m4a").write_bytes(b'{"a": 1}\n' * 100)
    film = tmp_path / "silent film.mp4"
    subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "color=s=16x16:d=0.1", film], check=True)
    reasons = {
        "words.mp4": "is it audio at all",
        "table.m4a": "is it audio at all.*Invalid data",
        film.name: "no audio",
    }
    for name, reason in reasons.items():
        with pytest.raises(audio.UndecodableError, match=reason) as error:
            audio.seekable(tmp_path / name, tmp_path / "cache")
        assert "0x" not in str(error.value) and "\n" not in str(error.value)


def test_a_song_longer_than_a_block_and_a_header_that_counts_too_many_frames(tmp_path, monkeypatch):
    wave = np.random.default_rng(0).normal(0, 0.1, (2, 5 * RATE)).astype(np.float32)
    audio.write(tmp_path / "a.wav", wave, RATE)
    monkeypatch.setattr(audio, "BLOCK", 4096)
    assert np.array_equal(audio.read(tmp_path / "a.wav", 11, 5 * RATE), wave[:, 11:])
    decode = soundfile.SoundFile.read  # as an MP3 header may: 50 ms of the last block are not there
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *args, **kwargs: decode(*args, **kwargs)[: -RATE // 20])
    short = audio.read(tmp_path / "a.wav", 0, 4096)
    assert np.array_equal(short[:, : -RATE // 20], wave[:, : 4096 - RATE // 20]) and not short[:, -RATE // 20 :].any()


def test_written_files_are_exact_and_equal_bytes(tmp_path, wave, monkeypatch):
    audio.write(tmp_path / "a.wav", wave, RATE)
    assert np.array_equal(audio.read(tmp_path / "a.wav"), wave)
    first = (tmp_path / "a.wav").read_bytes()
    peak = first.index(b"PEAK")
    assert first[peak + 12 : peak + 16] == bytes(4)  # libsndfile's time stamp
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]
