"""Any labelled folder: formats, channels, stems that are absent or differ in length, songs that cannot be used."""

import shutil
import subprocess

import numpy as np
import pytest
import soundfile

from lib import STEMS, scoring
from lib.data import audio, musdb18
from lib.data.segments import stem_manifest
from lib.experiments import evaluate
from lib.scoring import summarise
from tests import toys

RATE = 8000


def noise(name, seconds=1.0, channels=2):
    return np.random.default_rng(list(name.encode())).normal(0, 0.1, (round(seconds * RATE), channels))


def song(folder, stems=STEMS, suffix="wav", seconds=1.0, channels=2):
    folder.mkdir(parents=True, exist_ok=True)
    for stem in stems:
        soundfile.write(folder / f"{stem}.wav", noise(f"{folder.name} {stem}", seconds, channels), RATE, "FLOAT")
        if suffix != "wav":
            encode(folder / f"{stem}.wav", folder / f"{stem}.{suffix}")
            (folder / f"{stem}.wav").unlink()


def encode(source, target, *options):
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", source, *options, target], check=True)


def read(folder, folds=2):
    return musdb18.read(folder, folder.parent / "cache", 1, 1, folds)


def reasons(skipped):
    return {item.path.rpartition("/")[2]: item.reason for item in skipped}


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus", "mp3", "m4a", "wv", "webm"])
@pytest.mark.parametrize("channels", [1, 2])
def test_stems_come_in_any_format(tmp_path, suffix, channels):
    song(tmp_path / "in" / "pop" / "a", suffix=suffix, channels=channels)
    (found,), skipped = read(tmp_path / "in")
    assert (found.name, found.split, skipped) == ("pop/a", "test", [])
    stems = found.stems(rate=RATE)
    assert stems.shape[:2] == (4, 2) and abs(stems.shape[2] - RATE) < 0.2 * RATE
    for stem, wave in zip(STEMS, stems, strict=True):
        original = noise(f"a {stem}", channels=channels)[:, 0]
        low = np.abs(np.fft.rfft(original, 2 * RATE))[: RATE // 4]
        assert np.corrcoef(low, np.abs(np.fft.rfft(wave[0], 2 * RATE))[: RATE // 4])[0, 1] > 0.7, stem


def test_songs_lie_in_the_folder_or_in_folders_of_sources(tmp_path):
    song(tmp_path / "in" / "alone")
    song(tmp_path / "in" / "rock" / "b")
    (tmp_path / "in" / "notes.txt").write_text("hello")
    (tmp_path / "in" / "rock" / "empty").mkdir()
    songs, skipped = read(tmp_path / "in")
    assert {one.name for one in songs} == {"alone", "rock/b"}
    assert set(reasons(skipped)) == {"notes.txt", "empty"} and "no stem" in reasons(skipped)["empty"]


def test_songs_in_valid_are_for_validation(tmp_path):
    for name in ("train/a", "train/b", "valid/c", "test/d"):
        song(tmp_path / "in" / name)
    songs, skipped = read(tmp_path / "in", folds=0)
    assert {one.name: one.split for one in songs} == {"a": "train", "b": "train", "c": "validation", "d": "test"}
    assert not skipped


def test_stems_that_differ_a_little_are_fitted_and_that_is_said(tmp_path):
    song(tmp_path / "in" / "a")
    soundfile.write(tmp_path / "in" / "a" / "bass.wav", noise("a bass", 1.02), RATE, "FLOAT")
    song(tmp_path / "in" / "b")
    soundfile.write(tmp_path / "in" / "b" / "bass.wav", noise("b bass", 1.03), RATE, "FLOAT")
    soundfile.write(tmp_path / "in" / "b" / "mixture.wav", noise("b mixture", 1.01), RATE, "FLOAT")
    song(tmp_path / "in" / "c")
    soundfile.write(tmp_path / "in" / "c" / "bass.wav", noise("c bass", 1.06), RATE, "FLOAT")
    songs, skipped = read(tmp_path / "in")
    longest, mixed = songs
    assert longest.frames == 8160 and not longest.read("drums")[:, RATE:].any()
    np.testing.assert_array_equal(longest.read("bass"), noise("a bass", 1.02).T.astype(np.float32))
    assert longest.note == "; ".join(f"{stem}: 20.0 ms of silence at its end" for stem in ("drums", "vocals", "other"))
    assert mixed.frames == 8080 and mixed.stems().shape == (4, 2, 8080)
    assert "bass: last 20.0 ms cut off" in mixed.note and "drums: 10.0 ms of silence" in mixed.note
    assert "more than 50 ms" in reasons(skipped)["c"]
    assert read(tmp_path / "in") == (songs, skipped), "read back from the cache"


def test_absent_and_silent_stems(tmp_path):
    song(tmp_path / "in" / "file missing", stems=STEMS[:3])
    song(tmp_path / "in" / "silent")
    soundfile.write(tmp_path / "in" / "silent" / "vocals.wav", 1e-5 * noise("quiet"), RATE, "FLOAT")
    song(tmp_path / "in" / "alone", stems=("drums",))
    song(tmp_path / "in" / "lost")
    total = sum(noise(f"lost {stem}") for stem in STEMS)
    soundfile.write(tmp_path / "in" / "lost" / "mixture.wav", total, RATE, "FLOAT")
    (tmp_path / "in" / "lost" / "bass.wav").unlink()
    songs, skipped = read(tmp_path / "in")
    found = {one.name: [stem for stem in STEMS if stem not in one.files] for one in songs}
    assert found == {"file missing": ["other"], "silent": ["vocals"]}
    assert [one.note for one in songs] == ["no other", "no vocals"]
    assert not songs[0].stems()[3].any() and songs[1].stems().shape == (4, 2, RATE)
    assert "drums alone sounds" in reasons(skipped)["drums.wav"]
    assert "no bass, which the mixture seems to hold" in reasons(skipped)["lost"]
    assert set(stem_manifest(songs, 0.5, tmp_path / "cache").table.query("track == 1")["role"]) == set(STEMS) - {
        "vocals"
    }


def test_unusable_songs_have_their_reasons(tmp_path):
    for name in ("twice", "torn", "rates", "good"):
        song(tmp_path / "in" / name)
    encode(tmp_path / "in" / "twice" / "bass.wav", tmp_path / "in" / "twice" / "bass.flac")
    (tmp_path / "in" / "torn" / "vocals.wav").write_bytes(b"RIFF\0\0")
    soundfile.write(tmp_path / "in" / "rates" / "bass.wav", noise("x"), RATE // 2)
    songs, skipped = read(tmp_path / "in")
    assert [one.name for one in songs] == ["good"]
    why = reasons(skipped)
    assert "several files of bass: bass.flac, bass.wav" in why["twice"] and "vocals.wav" in why
    assert "sample rate" in why["rates"]


def test_more_than_two_channels_are_folded_down_and_that_is_said(tmp_path):
    song(tmp_path / "in" / "a")
    centre = np.zeros((RATE, 6))
    centre[:, 2] = noise("centre", channels=1)[:, 0]
    soundfile.write(tmp_path / "six.wav", centre, RATE, "FLOAT")
    for suffix in ("flac", "m4a"):
        shutil.rmtree(tmp_path / "in" / "b", ignore_errors=True)
        song(tmp_path / "in" / "b", stems=STEMS[1:])
        encode(
            tmp_path / "six.wav",
            tmp_path / "in" / "b" / f"bass.{suffix}",
            "-sample_fmt",
            "s16" if suffix == "flac" else "fltp",
        )
        both = {one.name: one for one in read(tmp_path / "in")[0]}
        bass = both["b"].read("bass")
        assert 0.5 < np.abs(bass[0]).std() / np.abs(bass[1]).std() < 2 and np.square(bass).mean() > 1e-4
        assert "bass: 6 channels folded down to 2" in both["b"].note and not both["a"].note


def test_songs_without_a_stem_are_scored_for_the_others(tmp_path):
    study = toys.study(tmp_path)
    (tmp_path / "music" / "labelled" / "test" / "d" / "vocals.wav").unlink()
    again = study.variant({"corpus.workers": 1})
    untrained = again.new_separator(4, 0).eval()
    run = evaluate.Run(again.results / "runs" / "scratch-0").begin()
    table = evaluate.scored(again, run, lambda stems: evaluate.estimate(again, untrained, stems.sum(0)), "test")
    rows = table[table["experiment"] == "test"].set_index(["stem", "metric"])["value"].sort_index()
    assert rows["vocals"].isna().all() and np.isfinite(rows.drop("vocals")).all()
    stems = again.songs("test")[0].stems(rate=toys.RATE)[[0, 1, 3]]
    estimates = evaluate.estimate(again, untrained, stems.sum(0))[[0, 1, 3]]
    expected = scoring.median_of_frames(scoring.sdr_frames(stems, estimates, toys.RATE)["SDR"])
    np.testing.assert_allclose([rows[stem, "cSDR"] for stem in ("bass", "drums", "other")], expected, atol=1e-4)
    means = summarise(table.assign(method="m"))
    assert means["value"].notna().all() and "vocals" not in set(means[means["experiment"] == "test"]["stem"])
    assert again.read("adjusted").to_dict("records") == [{"corpus": "labeled", "song": "d", "note": "no vocals"}]


def test_decoded_songs_are_found_again(tmp_path, monkeypatch):
    song(tmp_path / "in" / "a", suffix="m4a")
    first = read(tmp_path / "in")
    monkeypatch.setattr(audio, "run_ffmpeg", lambda *_, **__: pytest.fail("decoded again"))
    assert read(tmp_path / "in") == first and first[0][0].digest.endswith("-1")
