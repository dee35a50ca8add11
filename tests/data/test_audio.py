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


@pytest.fixture
def tone():
    """Six seconds [2, T] at 44.1 kHz, 2 s of them near silence: variable bit rates differ from part to part."""
    wave = np.random.default_rng(1).standard_normal((2, 6 * 44100)) * 0.2
    wave[:, : 2 * 44100] *= 1e-4
    return wave


def encoded(path, wave, *options):
    soundfile.write(path.with_suffix(".source.wav"), wave.T, 44100, "FLOAT")
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", path.with_suffix(".source.wav"), *options, path], check=True)
    return path


def length(path, cache):
    return audio.probe(audio.seekable(path, cache)).frames


VBR, CBR = ("-c:a", "libmp3lame", "-q:a", "4"), ("-c:a", "libmp3lame", "-b:a", "128k")
NO_XING = ("-write_xing", "0")


@pytest.mark.parametrize("options", [VBR, CBR, (*VBR, *NO_XING), (*CBR, *NO_XING)], ids=str)
@pytest.mark.parametrize("loud_first", [False, True])
def test_an_mp3_is_as_long_as_what_can_be_decoded(tmp_path, tone, options, loud_first):
    path = encoded(tmp_path / "a.mp3", tone[:, ::-1] if loud_first else tone, *options)
    assert abs(length(path, tmp_path / "cache") - tone.shape[1]) < 4 * 1152
    decoded = audio.read(audio.seekable(path, tmp_path / "cache"))
    assert np.abs(decoded[:, :44100] if loud_first else decoded[:, -44100:]).max() > 0.2


@pytest.mark.parametrize("options", [VBR, CBR, (*CBR, *NO_XING)], ids=str)
def test_mp3_files_joined_into_one_are_read_to_the_end(tmp_path, tone, options):
    path = encoded(tmp_path / "a.mp3", tone, *options, "-id3v2_version", "3", "-metadata", "title=one")
    path.write_bytes(2 * (path.read_bytes() + b"TAG" + bytes(125)))
    assert abs(length(path, tmp_path / "cache") - 2 * tone.shape[1]) < 8 * 1152


def test_an_mp3_whose_header_counts_more_frames_than_there_are_is_truncated(tmp_path, tone):
    path = encoded(tmp_path / "a.mp3", tone, *VBR)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(audio.UndecodableError, match="truncated"):
        audio.seekable(path, tmp_path / "cache")


def test_ogg_streams_in_a_chain_are_read_to_the_end(tmp_path, tone):
    path = encoded(tmp_path / "a.ogg", tone, "-c:a", "libvorbis")
    other = encoded(tmp_path / "b.ogg", tone[:, ::-1], "-c:a", "libvorbis", "-serial_offset", "77")
    path.write_bytes(path.read_bytes() + other.read_bytes())
    assert abs(length(path, tmp_path / "cache") - 2 * tone.shape[1]) < 4096


@pytest.mark.parametrize("kind", ["libvorbis", "libopus"])
def test_an_ogg_file_that_breaks_off_is_truncated_and_what_follows_its_end_no_matter(tmp_path, tone, kind):
    path = encoded(tmp_path / "a.ogg", tone, "-c:a", kind)
    whole, content = length(path, tmp_path / "cache"), path.read_bytes()
    path.write_bytes(content + b"TAG" + bytes(125))
    assert length(path, tmp_path / "cache") == whole
    for cut in (len(content) * 2 // 3, content.rindex(b"OggS") + 20):
        path.write_bytes(content[:cut])
        with pytest.raises(audio.UndecodableError, match="truncated"):
            audio.seekable(path, tmp_path / "cache")


def test_a_wav_that_was_never_finished_is_read_to_its_end(tmp_path, wave):
    soundfile.write(tmp_path / "a.wav", wave.T, RATE, "PCM_16")
    content = bytearray((tmp_path / "a.wav").read_bytes())
    at = content.index(b"data") + 4
    content[4:8] = content[at : at + 4] = bytes(4)
    (tmp_path / "zero.wav").write_bytes(content)
    found = audio.read(audio.seekable(tmp_path / "zero.wav", tmp_path / "cache"))
    np.testing.assert_array_equal(found, audio.read(tmp_path / "a.wav"))


def test_what_exceeds_full_scale_is_not_clipped(tmp_path, tone):
    path = encoded(tmp_path / "a.m4a", 2 * np.sin(np.arange(44100 * 2) / 30).repeat(2).reshape(-1, 2).T, "-b:a", "256k")
    assert 1.8 < np.abs(audio.read(audio.seekable(path, tmp_path / "cache"))).max() < 2.5


def test_opus_by_any_encoder_is_read_to_the_end(tmp_path, tone):
    for number in range(3):
        rolled = np.roll(tone, 44100 * number, axis=1)
        path = encoded(tmp_path / f"{number}.opus", rolled, "-c:a", "libopus", "-b:a", "64k")
        found = audio.read(audio.seekable(path, tmp_path / "cache"))
        assert abs(found.shape[1] - 6 * 48000) < 1000


def test_opus_that_libsndfile_reads_is_decoded_once_to_find_out(tmp_path, tone, monkeypatch):
    path, decoded = tmp_path / "a.opus", []
    soundfile.write(path, tone.T[: 44100 * 2], 48000, format="OGG", subtype="OPUS")
    decodes = audio._decodes
    monkeypatch.setattr(audio, "_decodes", lambda path, whole: decoded.append(whole) or decodes(path, whole))
    assert [audio.seekable(path, tmp_path / "cache") for _ in range(3)] == [path] * 3
    assert decoded == [True]
    soundfile.write(path, tone.T[: 44100 * 3], 48000, format="OGG", subtype="OPUS")
    assert audio.seekable(path, tmp_path / "cache") == path and decoded == [True, True]


@pytest.mark.parametrize("cut", [0, 100, 441, 700])
def test_vorbis_is_read_by_seeking_to_the_last_sample(tmp_path, tone, cut):
    path = encoded(tmp_path / "a.ogg", tone[:, : 5 * 44100 + cut], "-c:a", "libvorbis")
    whole = audio.read(path)
    for start in range(whole.shape[1] - 60_000, whole.shape[1], 2503):
        np.testing.assert_array_equal(audio.read(path, start, 3000), whole[:, start : start + 3000])


@pytest.mark.parametrize("quiet", [np.s_[:, 3 * 44100 : 4 * 44100], np.s_[:, :0]])
def test_mp3_frames_that_hold_bits_of_later_ones_are_decoded_before_them(tmp_path, tone, quiet):
    tone[quiet] = 0  # small frames, in front of which bits are saved for what follows
    path = encoded(tmp_path / "a.mp3", tone, "-c:a", "libmp3lame", "-q:a", "3")
    whole = audio.read(path)
    for start in range(0, whole.shape[1], 1801):
        np.testing.assert_allclose(audio.read(path, start, 3000), whole[:, start : start + 3000], atol=1e-6)


def test_an_ogg_stream_cut_out_of_another_is_read_as_what_it_holds(tmp_path, tone):
    whole = encoded(tmp_path / "whole.ogg", tone, "-c:a", "libvorbis")
    path = tmp_path / "cut.ogg"
    subprocess.run(["ffmpeg", "-v", "error", "-ss", "2.3", "-i", whole, "-c", "copy", path], check=True)
    decoded = audio.seekable(path, tmp_path / "cache")
    everything = audio.read(decoded)
    assert everything.shape[1] > 3.6 * 44100
    for start in range(0, everything.shape[1], 30_011):
        np.testing.assert_array_equal(audio.read(decoded, start, 999), everything[:, start : start + 999])
    assert audio.seekable(whole, tmp_path / "cache") == whole


@pytest.mark.parametrize(
    ("kind", "said"), [*(("WAV", n) for n in (0, 1000, None)), ("RF64", 0), ("RF64", 1000), ("CAF", 0), ("CAF", None)]
)
def test_what_a_recorder_did_not_finish_is_read_to_the_end(tmp_path, wave, kind, said):
    path = tmp_path / f"a.{kind.lower()}"
    soundfile.write(path, wave.T, RATE, "PCM_16", format=kind)
    content = bytearray(path.read_bytes())
    if kind == "CAF":
        at, size = content.index(b"data") + 4, struct.pack(">q", -1 if said is None else said)
    else:
        at = content.index(b"ds64") + 16 if kind == "RF64" else content.index(b"data") + 4
        size = struct.pack("<q" if kind == "RF64" else "<I", 0xFFFFFFFF if said is None else said)
    content[at : at + len(size)] = size
    path.write_bytes(content)
    found = audio.read(audio.seekable(path, tmp_path / "cache"))
    np.testing.assert_allclose(found, np.round(wave * 2**15) / 2**15, atol=2**-15)


def test_tags_and_zeros_behind_the_sound_are_no_sound(tmp_path, wave):
    soundfile.write(tmp_path / "a.wav", wave.T, RATE)
    for more in (
        b"ID3\x03" + bytes(90_000),
        bytes(90_000),
        b"?" + b"LIST\x04\0\0\0" + bytes(90_000),
        b"\xff" * 1000,
        b"TAGtitle" + bytes(120),
        b"LIST\x04\0\0\0abcd",
    ):
        (tmp_path / "b.wav").write_bytes((tmp_path / "a.wav").read_bytes() + more)
        assert audio.seekable(tmp_path / "b.wav", tmp_path / "cache") == tmp_path / "b.wav"


@pytest.mark.parametrize(("gain", "suffix"), [(0.5, ".flac"), (4.0, ".wav")])
def test_a_compact_copy_is_exact_to_24_bits_and_never_clipped(tmp_path, tone, gain, suffix):
    path = encoded(tmp_path / "a.m4a", gain * tone, "-b:a", "128k")
    exact, small = (audio.seekable(path, tmp_path / str(compact), compact) for compact in (False, True))
    assert (exact.suffix, small.suffix) == (".wav", suffix)
    np.testing.assert_allclose(audio.read(small), audio.read(exact), atol=2**-23, rtol=0)
    assert suffix == ".wav" or small.stat().st_size < 0.75 * exact.stat().st_size
    assert [file.name for file in (tmp_path / "True").iterdir()] == [small.name]


def test_what_the_system_refuses_is_said(tmp_path, monkeypatch):
    with pytest.raises(audio.UndecodableError, match="a folder, no file"):
        audio.seekable(tmp_path, tmp_path / "cache")
    soundfile.write(tmp_path / "a.wav", np.zeros((99, 2)), RATE)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(audio.UndecodableError) as error:
        audio.seekable(tmp_path / "a.wav", tmp_path / "cache")
    assert error.value.reason == "Permission denied"


def test_names_that_are_no_utf8_are_opened(tmp_path, wave):
    path = tmp_path / "caf\udce9.m4a"
    soundfile.write(tmp_path / "a.wav", wave.T, RATE)
    subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", f"file:{path}"], check=True)
    assert abs(audio.read(audio.seekable(path, tmp_path / "cache")).shape[1] - wave.shape[1]) < 2048
    (tmp_path / "a.wav").rename(tmp_path / "\udcff.wav")
    assert audio.read(tmp_path / "\udcff.wav").shape == wave.shape
