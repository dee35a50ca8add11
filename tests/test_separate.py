"""Whole songs: windows, overlap, streaming, and the command."""

import os
import signal
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from lib import ROOT, STEMS, UserError, separate
from lib.data import audio
from lib.model import checkpoints
from lib.model.separator import Separator

RATE = 8000


class AllPass(nn.Module):
    """Masks of one: the real Separator's front end, with its cut last frame, becomes the identity."""

    sources = 4

    def forward(self, spectrum):
        return []

    def filter(self, masks, spectrum):
        return spectrum.unsqueeze(1).expand(-1, self.sources, -1, -1, -1)


@pytest.fixture
def identity():
    separator = Separator.from_size("tiny", sources=4, rate=RATE, n_fft=256, hop=64)
    separator.masker = AllPass()
    return separator


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "model.safetensors"
    checkpoints.save(Separator.from_size("tiny", sources=4, rate=RATE, n_fft=256, hop=64), path)
    return path


def _noise(samples, seed=0):
    return torch.randn(2, samples, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("samples", [1, 2, 63, 255, 1000, 1999, 2000, 2001, 2999, 3000, 3001, 9 * 1777 + 5])
@pytest.mark.parametrize(("window", "hop", "batch"), [(2000, 1000, 1), (2000, 1000, 3), (1777, 500, 2), (900, 900, 4)])
def test_identity_reproduces_any_length(identity, samples, window, hop, batch):
    mixture = _noise(samples)
    estimates = separate.separate(identity, mixture, window, hop, batch)
    assert estimates.shape == (4, 2, samples)
    assert estimates.dtype == torch.float32
    torch.testing.assert_close(estimates, mixture.expand(4, -1, -1), atol=2e-5, rtol=0)


def test_overlaps_are_averaged_and_batches_do_not_matter():
    class Counter(nn.Module):
        """Gives every window its own level."""

        n_fft, hop, calls = 256, 64, 0

        def forward(self, mixture):
            assert mixture.shape[-1] % self.hop == 0
            assert mixture.shape[-1] >= 2000 + self.n_fft
            levels = torch.arange(self.calls, self.calls + len(mixture), dtype=torch.float32)
            self.calls += len(mixture)
            return levels[:, None, None, None].expand(-1, 3, *mixture.shape[1:])

    for batch in (1, 2, 5):
        got = separate.separate(Counter(), torch.zeros(2, 4500), 2000, 1000, batch)
        expected = np.repeat([0, 0.5, 1.5, 2.0, 2.5, 3], [1000, 1000, 500, 500, 1000, 500])
        assert got.shape == (3, 2, 4500)
        np.testing.assert_array_equal(got[1, 0], expected)


def test_batches_that_do_not_fit_a_gpu_are_halved_and_a_window_that_does_not_is_one_line(identity, monkeypatch):
    room, whole, seen = 2, identity.forward, []

    def forward(mixtures):
        seen.append(len(mixtures))
        if len(mixtures) > room:
            raise torch.OutOfMemoryError
        return whole(mixtures)

    mixture, expected = _noise(9000), separate.separate(identity, _noise(9000), 2000, 1000, 8)
    monkeypatch.setattr(identity, "forward", forward)
    torch.testing.assert_close(separate.separate(identity, mixture, 2000, 1000, 8), expected)
    assert seen == [8, 4, 2, 2, 4, 2, 2]
    room = 0
    with pytest.raises(UserError, match=r"GPU memory ran out with one window of 0\.288 s: separate shorter windows"):
        separate.separate(identity, mixture, 2000, 1000, 8)


@pytest.mark.parametrize("device", ["cuda:1", "cuda", "cpu"])
def test_any_name_of_a_gpu_has_a_gpus_precision(checkpoint, tmp_path, monkeypatch, device):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cpu.get_capabilities", dict)
    monkeypatch.setattr(Separator, "to", lambda separator, device: separator)
    chosen = []
    monkeypatch.setattr(separate, "separate_file", lambda *call: chosen.append(call[-1]))
    assert separate.main(["song", "--checkpoint", str(checkpoint), "--out", str(tmp_path), "--device", device]) == 0
    assert chosen == [device != "cpu"]


def test_blocks_are_bounded_and_the_callers_mode_is_left_alone(identity):
    identity.train()
    calls = []
    blocks = separate.separate_blocks(
        identity, _noise(20_000), 2000, 1000, 2, progress=lambda done, total: calls.append((done, total))
    )
    lengths = []
    for block in blocks:
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        block += 1  # an ordinary tensor
        lengths.append(block.shape[-1])
    assert sum(lengths) == 20_000 and max(lengths) <= 2000
    assert identity.training
    assert calls[0] == (2, 19) and calls[-1] == (19, 19)
    with pytest.raises(ValueError, match="windows"):
        separate.separate(identity, _noise(100), 1000, 1001)


def test_mixture_consistency():
    separator = Separator.from_size("tiny", sources=3, rate=RATE, n_fft=256, hop=64)
    mixture = _noise(7777)
    free = separate.separate(separator, mixture, 4000, 2000)
    tied = separate.separate(separator, mixture, 4000, 2000, mixture_consistency=True)
    assert (free.sum(0) - mixture).abs().max() > 0.1
    torch.testing.assert_close(tied.sum(0), mixture, atol=1e-5, rtol=0)
    missing = (tied - free)[0]
    torch.testing.assert_close(tied - free, missing.expand(3, -1, -1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("rate", "new_rate"), [(8000, 8000), (8000, 11025), (11025, 8000), (8000, 4000), (1000, 1001)])
def test_songs_and_blocks_are_resampled_as_if_whole(tmp_path, rate, new_rate):
    wave = _noise(5 * rate + 123).numpy() * 0.1
    audio.write(tmp_path / "song.wav", wave, rate)
    whole = audio.resample(wave, rate, new_rate)
    song = audio.Song(tmp_path / "song.wav", new_rate)
    assert song.shape == whole.shape
    for start, stop in ((0, 10), (0, 3000), (2345, 4567), (whole.shape[1] - 50, whole.shape[1])):
        np.testing.assert_allclose(song[:, start:stop], whole[:, start:stop], atol=1e-6)
    pieces = np.split(np.stack([wave, 2 * wave]), [1, 7, 900, 901, 4000], axis=-1)
    blocks = list(audio.resample_blocks(iter(pieces), rate, new_rate, whole.shape[1]))
    np.testing.assert_allclose(np.concatenate(blocks, axis=-1), np.stack([whole, 2 * whole]), atol=1e-6)


@pytest.mark.parametrize("rate", [RATE, 11025, 44100])
def test_consistent_files_sum_to_the_song_at_its_own_rate(tmp_path, rate):
    separator = Separator.from_size("tiny", sources=4, rate=RATE, n_fft=256, hop=64)
    audio.write(tmp_path / "song.wav", _noise(2 * rate + 321).numpy() * 0.1, rate)
    separate.separate_file(separator, tmp_path / "song.wav", tmp_path / "out", 1.0, 0.5, 1, True)
    total = sum(audio.read(tmp_path / "out" / f"{stem}.wav") for stem in STEMS)
    np.testing.assert_allclose(total, audio.read(tmp_path / "song.wav"), atol=1e-6)


@pytest.mark.parametrize("rate", [RATE, 11025])
def test_file_memory_is_flat_in_length(tmp_path, identity, rate):
    peaks = []
    for seconds in (40, 160):
        path = tmp_path / f"{seconds}.flac"
        soundfile.write(path, (_noise(seconds * rate).numpy() * 0.1).T, rate)
        tracemalloc.start()
        separate.separate_file(identity, path, tmp_path / "out", 2.0, 1.0, 1, False)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert soundfile.info(tmp_path / "out" / "bass.wav").frames == seconds * rate
    assert peaks[1] < 1.2 * peaks[0] + 1e5


def test_command_keeps_going_over_a_bad_file(tmp_path, checkpoint, capsys):
    rng = np.random.default_rng(0)
    (tmp_path / "b").mkdir()
    soundfile.write(tmp_path / "mono.wav", rng.standard_normal(9000) * 0.1, 11025)
    soundfile.write(tmp_path / "b" / "mono.flac", rng.standard_normal((5001, 2)) * 0.1, RATE)
    (tmp_path / "bad.mp3").write_text("not music\n" * 99)
    soundfile.write(tmp_path / "cut.flac", rng.standard_normal((90_000, 2)) * 0.1, RATE)
    (tmp_path / "cut.flac").write_bytes((tmp_path / "cut.flac").read_bytes()[:200_000])
    songs = [str(tmp_path / name) for name in ("bad.mp3", "mono.wav", "none.wav", "cut.flac", "b/mono.flac")]
    out = tmp_path / "out"
    arguments = [*songs, "--checkpoint", str(checkpoint.parent), "--out", str(out), "--window", "1", "--batch", "2"]
    assert separate.main([*arguments, "--mixture-consistency"]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert len(errors) == 3
    for name, line in zip(("bad.mp3", "none.wav", "cut.flac"), errors, strict=True):
        assert line.startswith(f"failed: {tmp_path / name}: ")
    assert sorted(p.name for p in out.iterdir()) == ["mono", "mono (2)"]
    for folder, song in (("mono", "mono.wav"), ("mono (2)", "b/mono.flac")):
        mixture, info = audio.read(tmp_path / song), audio.probe(tmp_path / song)
        stems = np.stack([audio.read(out / folder / f"{stem}.wav") for stem in STEMS])
        assert audio.probe(out / folder / "bass.wav") == (info.rate, 2, info.frames)
        assert sorted(p.name for p in (out / folder).iterdir()) == sorted(f"{stem}.wav" for stem in STEMS)
        if song.endswith("flac"):
            np.testing.assert_allclose(stems.sum(0), mixture, atol=1e-5)
    first = (out / "mono" / "bass.wav").read_bytes()
    assert separate.main([songs[1], *arguments[5:]]) == 0  # without consistency: other bytes, then the same again
    second = (out / "mono" / "bass.wav").read_bytes()
    assert first != second
    assert separate.main([songs[1], *arguments[5:]]) == 0
    assert (out / "mono" / "bass.wav").read_bytes() == second


def separated(out):
    """Folders of stems below ``out``."""
    return sorted(str(file.parent.relative_to(out)) for file in out.rglob("bass.wav"))


def call(checkpoint, out, *songs):
    return [*map(str, songs), "--checkpoint", str(checkpoint), "--out", str(out), "--window", "1"]


def write_songs(folder, *names):
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(os.fsencode(folder / name), _noise(3000, number).numpy().T * 0.1, RATE, format="WAV")
    return [folder / name for name in names]


def test_without_a_checkpoint_the_model_that_comes_with_the_project_separates(tmp_path):
    audio.write(tmp_path / "song.wav", np.random.default_rng(0).normal(0, 0.1, (2, 16000)).astype(np.float32), 16000)
    assert separate.main([str(tmp_path / "song.wav"), "--out", str(tmp_path / "out")]) == 0
    assert {path.stem for path in (tmp_path / "out" / "song").iterdir()} == set(STEMS)


def test_no_two_songs_share_a_folder(tmp_path, checkpoint):
    songs = write_songs(tmp_path, "song.wav", "b/song.wav", "song (2).wav", "Song.wav", "c/song (2).wav", "...wav")
    assert separate.main(call(checkpoint, tmp_path / "out", *songs, songs[0])) == 0
    folders = separated(tmp_path / "out")
    assert len(folders) == len({name.casefold() for name in folders}) == 6
    for name, song in (("song", songs[0]), ("song (2)", songs[2])):
        expected = tmp_path / "alone" / name
        separate.main(call(checkpoint, tmp_path / "alone", song))
        assert (tmp_path / "out" / name / "bass.wav").read_bytes() == (expected / "bass.wav").read_bytes()


def test_folders_are_taken_and_what_is_no_music_in_them_is_said(tmp_path, checkpoint, capsys):
    write_songs(tmp_path / "music", "a.wav", "album/a.wav", "album/b.flac", "unknown.xyz")
    (tmp_path / "music" / "cover.jpg").write_bytes(b"picture")
    (tmp_path / "music" / "album" / "torn.mp3").write_bytes(b"words" * 99)
    (tmp_path / "empty").mkdir()
    out = tmp_path / "music" / "stems"
    for _ in range(2):  # its own results are not separated again
        assert separate.main(call(checkpoint, out, tmp_path / "music", tmp_path / "empty")) == 1
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
        assert lines[0] == f"failed: {tmp_path / 'empty'}: no music in this folder"
        assert lines[1].startswith(f"failed: {tmp_path / 'music' / 'album' / 'torn.mp3'}: ") and len(lines) == 2
        assert separated(out) == ["a", "album/a", "album/b", "unknown"]


def test_links_to_themselves_and_pipes_in_a_folder_are_said(tmp_path, checkpoint, capsys):
    write_songs(tmp_path / "music", "song.wav")
    (tmp_path / "music" / "loop.wav").symlink_to("loop.wav")
    (tmp_path / "music" / "gone.wav").symlink_to("nowhere.wav")
    os.mkfifo(tmp_path / "music" / "pipe.wav")
    assert separate.main(call(checkpoint, tmp_path / "out", tmp_path / "music")) == 1
    said = [line.rpartition("/")[2] for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert said == ["gone.wav: no such file", "loop.wav: no such file", "pipe.wav: a pipe or device"]
    assert separated(tmp_path / "out") == ["song"]


def test_whatever_one_song_does_the_others_are_separated(tmp_path, checkpoint, capsys, monkeypatch):
    songs = write_songs(tmp_path, "a.wav", "b.wav", "c.wav", "d.wav")
    whole = separate.separate_file

    def faulty(separator, path, *rest):
        if path.name in ("a.wav", "c.wav"):
            raise {"a.wav": ZeroDivisionError("of its own"), "c.wav": AssertionError()}[path.name]
        whole(separator, path, *rest)

    monkeypatch.setattr(separate, "separate_file", faulty)
    assert separate.main(call(checkpoint, tmp_path / "out", *songs)) == 1
    assert separated(tmp_path / "out") == ["b", "d"]
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert lines == [f"failed: {songs[0]}: of its own", f"failed: {songs[2]}: AssertionError"]


def test_channels_are_folded_down_by_their_layout_and_that_is_said_once(tmp_path, checkpoint, capsys):
    centre = np.zeros((3000, 6))
    centre[:, 2] = _noise(3000)[0] * 0.1
    soundfile.write(tmp_path / "six.flac", centre, RATE, "PCM_16")
    assert separate.main([*call(checkpoint, tmp_path / "out", tmp_path / "six.flac"), "--mixture-consistency"]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "folded" in line]
    assert said == [f"{tmp_path / 'six.flac'}: 6 channels folded down to 2"]
    total = sum(audio.read(tmp_path / "out" / "six" / f"{stem}.wav") for stem in STEMS)
    assert np.corrcoef(total[0], centre[:, 2])[0, 1] > 0.99


@pytest.mark.parametrize("lead", ["", "quiet"])
@pytest.mark.parametrize("name", ["a.mp3", "a.ogg", "a.opus", "a.m4a"])
def test_consistent_stems_sum_to_lossy_songs_to_the_last_sample(tmp_path, checkpoint, name, lead):
    wave = _noise(4 * 44100 + 321).numpy() * 0.1
    wave[:, : 2 * 44100] *= 0.0 if lead else 1.0
    soundfile.write(tmp_path / "a.wav", wave.T, 44100)
    subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", tmp_path / name], check=True)
    assert separate.main([*call(checkpoint, tmp_path / "out", tmp_path / name), "--mixture-consistency"]) == 0
    total = sum(audio.read(tmp_path / "out" / "a" / f"{stem}.wav") for stem in STEMS)
    whole = audio.read(audio.seekable(tmp_path / name, tmp_path / "cache"))
    assert total.shape == whole.shape and whole.shape[1] >= 4 * 44100
    np.testing.assert_allclose(total, whole, atol=1e-6)


def test_any_name_in_any_terminal(tmp_path, checkpoint):
    names = ["caf\udce9.wav", "\N{SNOWMAN}.wav", "new\nline.wav", "x" * 251 + ".wav", "\N{SNOWMAN}" * 83 + ".wav"]
    songs = write_songs(tmp_path, *names, "b/" + "x" * 251 + ".wav", "d" * 250 + ".xy/s.wav")
    (tmp_path / "bad\udcff.wav").write_bytes(b"words")
    arguments = call(checkpoint, tmp_path / "out", *songs, tmp_path / "bad\udcff.wav")
    program = [sys.executable, "-m", "lib.separate", *arguments]
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(program, capture_output=True, env=environment)
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith(b"failed: ")]
    assert b"bad\\udcff.wav: " in line
    assert len(done.stdout.splitlines()) == 8 and len(separated(tmp_path / "out")) == 7
    assert b"caf\\udce9" in done.stdout and b"\\u2603" in done.stdout


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_call_leaves_nothing_and_says_one_line(tmp_path, checkpoint, number, status):
    first, second = write_songs(tmp_path, "first.wav", "second.wav")
    soundfile.write(second, np.zeros((900 * RATE, 6), np.int16), RATE, format="WAV")
    (tmp_path / "tmp").mkdir()
    program = [sys.executable, "-m", "lib.separate", *call(checkpoint, tmp_path / "out", first, second)]
    environment = os.environ | {"TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline().strip() == str(tmp_path / "out" / "first").encode()
        while not list((tmp_path / "tmp").rglob("*.wav")):
            time.sleep(0.01)
        process.send_signal(number)
        error = process.stderr.read()
    assert process.returncode == status and b"Traceback" not in error
    (line,) = [line for line in error.splitlines() if line.startswith(b"failed: ")]
    assert b"after 1 of 2 songs" in line
    assert separated(tmp_path / "out") == ["first"] and [p.name for p in (tmp_path / "out").iterdir()] == ["first"]
    assert list((tmp_path / "tmp").iterdir()) == []


def test_outputs_of_other_models_are_numbered(tmp_path):
    separator = Separator.from_size("tiny", sources=3, rate=RATE, n_fft=256, hop=64)
    audio.write(tmp_path / "a.wav", _noise(3000).numpy(), RATE)
    separate.separate_file(separator, tmp_path / "a.wav", tmp_path / "a", 1.0, 0.5, 1, False)
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["output00.wav", "output01.wav", "output02.wav"]


@pytest.mark.parametrize(
    "extra",
    [
        ["--window", "0"],
        ["--window", "2", "--hop", "3"],
        ["--batch", "0"],
        ["--device", "no-such-device"],
        ["--checkpoint", "/no/such/file"],
        ["--window", "long"],
        ["--out", "/dev/null/x"],
    ],
)
def test_bad_calls_exit_with_2(tmp_path, checkpoint, capsys, extra):
    call = ["a.wav", "--checkpoint", str(checkpoint), "--out", str(tmp_path / "out"), *extra]
    with pytest.raises(SystemExit) as exit_:
        separate.main(call)
    assert exit_.value.code == 2
    assert "error: " in capsys.readouterr().err.splitlines()[-1]


def test_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "lib.separate", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "--mixture-consistency" in done.stdout


def test_ctrl_c_is_one_line_in_every_command_and_names_are_printed_whatever_they_hold():
    code = "import lib; print('caf\\udce9 \\u2603', flush=True); raise KeyboardInterrupt"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"caf\\udce9 \\u2603\n", b"interrupted\n")
