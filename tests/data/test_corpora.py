"""Readers: tiny data sets in MUSDB18-HQ's and FMA's layouts; real samples where ``MSS_AUDIO`` has some."""

import dataclasses
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lib import STEMS, UserError
from lib.data import audio, corpora, fma, folder, musdb18, tracks
from lib.profile.fields import Audio, Corpus, Profile

RATE = 8000
REAL = pytest.mark.skipif("MSS_AUDIO" not in os.environ, reason="MSS_AUDIO names no folder of real music")


def noise(seconds, seed=0, channels=2, rate=RATE):
    return np.random.default_rng(seed).normal(0, 0.1, (round(seconds * rate), channels)).astype(np.float32)


def write_song(path, seconds=1.0, mixture=True, seed=0, rate=RATE, subtype="FLOAT"):
    path.mkdir(parents=True)
    stems = {stem: noise(seconds, [seed, i], rate=rate) for i, stem in enumerate(STEMS)}
    for name, wave in (stems | ({"mixture": sum(stems.values())} if mixture else {})).items():
        soundfile.write(path / f"{name}.wav", wave, rate, subtype)
    return stems


def write_fma(root, rows, folder="", third_row=True, seconds=1.0):
    (root / "fma_metadata").mkdir(parents=True)
    head = [",set,set,track", ",split,subset,title"] + ["track_id,,,"] * third_row
    lines = [f'{track},{split},{subset},"a, ""b"""' for track, split, subset in rows]
    (root / "fma_metadata" / "tracks.csv").write_text("\n".join(head + lines) + "\n")
    for track, _, _ in rows:
        path = root / folder / f"{track // 1000:03d}" / f"{track:06d}.mp3"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, noise(seconds, track), RATE, format="MP3")
    return root


def write_profile(rate=RATE, **corpus):
    return Profile("test", "results/test", Audio(rate=rate), Corpus(segment_seconds=0.5, workers=2, **corpus))


def reasons(skipped):
    return {Path(s.path).name: s.reason for s in skipped}


def test_musdb_folder_gives_tracks_with_the_samples_of_the_files(tmp_path):
    stems = write_song(tmp_path / "in" / "train" / "B - b", seed=1)
    for i, name in enumerate(["A - a", "C - c"]):
        write_song(tmp_path / "in" / "train" / name, seed=2 + i)
    write_song(tmp_path / "in" / "test" / "T - t", mixture=False)
    songs, skipped = corpora.labeled(
        write_profile(labeled=str(tmp_path / "in"), validation_songs=1), tmp_path / "cache"
    )
    assert [(t.name, t.split) for t in songs] == [
        ("A - a", "train"), ("B - b", "train"), ("C - c", "validation"), ("T - t", "test")
    ]  # fmt: skip
    assert skipped == []
    got = songs[1].stems()
    assert got.shape == (4, 2, RATE) and got.dtype == np.float32
    for index, stem in enumerate(STEMS):
        np.testing.assert_array_equal(got[index], stems[stem].T)
    np.testing.assert_array_equal(songs[1].stems(0.25, 0.5), got[:, :, RATE // 4 : RATE * 3 // 4])
    np.testing.assert_allclose(songs[3].mixture(), songs[3].stems().sum(0), atol=1e-6)


def test_read_is_exact_in_length_resampled_and_padded(tmp_path):
    write_song(tmp_path / "train" / "A", 1.0)
    (song,), _ = musdb18.read(tmp_path, tmp_path / "cache", 1, 1)
    assert song.split == "train", "the only song stays for training"
    assert song.mixture(0.1, 0.333, 11025).shape == (2, round(0.333 * 11025))
    late = song.mixture(0.9, 0.5)
    assert late.shape == (2, 4000) and np.abs(late[:, :800]).max() > 0.1 and not late[:, 800:].any()
    assert song.stems(rate=4000).shape == (4, 2, 4000)


def test_musdb_official_validation_songs_win_over_the_count(tmp_path):
    for name in ("Leaf - Summerghost", "Z - z", "A - a"):
        write_song(tmp_path / "train" / name, 0.1)
    songs, _ = musdb18.read(tmp_path, tmp_path / "cache", 1, 2)
    assert {t.name: t.split for t in songs} == {
        "A - a": "train", "Leaf - Summerghost": "validation", "Z - z": "train"
    }  # fmt: skip


def test_musdb_skips_broken_songs_with_their_reasons(tmp_path):
    for name in ("good", "no bass", "unequal", "torn", "rates"):
        write_song(tmp_path / "train" / name, 0.2)
    (tmp_path / "train" / "no bass" / "bass.wav").unlink()
    soundfile.write(tmp_path / "train" / "unequal" / "drums.wav", noise(0.1), RATE)
    soundfile.write(tmp_path / "train" / "rates" / "drums.wav", noise(0.2), RATE // 2)
    (tmp_path / "train" / "torn" / "vocals.wav").write_bytes(b"RIFF\0\0")
    (tmp_path / "train" / "fake.stem.mp4").write_bytes(b"not a movie")
    (tmp_path / "train" / "readme.txt").write_text("hello")
    songs, skipped = musdb18.read(tmp_path, tmp_path / "cache", 2, 1)
    assert [t.name for t in songs] == ["good"]
    why = reasons(skipped)
    assert set(why) == {"test", "no bass", "unequal", "rates", "vocals.wav", "fake.stem.mp4", "readme.txt"}
    assert "no bass" in why["no bass"] and "differ" in why["unequal"] and "4000 Hz" in why["rates"]
    assert "\n" not in why["fake.stem.mp4"] and why["fake.stem.mp4"]


def test_folders_of_stems_are_what_musdb_opens(tmp_path):
    for seed, name in enumerate(("train/Leaf - Summerghost", "train/A - a", "test/T - t", "train/Z - z")):
        write_song(tmp_path / "in" / name, 0.5, seed=seed, subtype="PCM_16")
    songs, _ = musdb18.read(tmp_path / "in", tmp_path / "cache", 1, 0)
    theirs = musdb18.musdb().DB(tmp_path / "in", is_wav=True)
    assert [(song.name, song.rate, song.frames) for song in songs] == [(t.name, t.rate, t.samples) for t in theirs]
    for song, their in zip(songs, theirs, strict=True):
        assert {role: str(song.files[role]) for role in STEMS} == {s: their.sources[s].path for s in STEMS}
        np.testing.assert_array_equal(song.mixture().T, their.audio)
        np.testing.assert_array_equal(song.stems()[0].T, their.sources["bass"].audio)
    for split, part in (("train", "train"), ("validation", "valid")):
        names = [t.name for t in musdb18.musdb().DB(tmp_path / "in", is_wav=True, subsets="train", split=part)]
        assert [song.name for song in songs if song.split == split] == names


def test_stem_mp4_is_decoded_once_and_equals_musdb(tmp_path, monkeypatch):
    musdb = musdb18.musdb()
    (tmp_path / "train").mkdir()
    shutil.copy(musdb.stempeg.example_stem_path(), tmp_path / "train")
    (song,), _ = musdb18.read(tmp_path, tmp_path / "cache", 1, 0)
    (theirs,) = musdb.DB(str(tmp_path)).tracks
    assert (song.name, song.rate, song.frames) == (theirs.name, theirs.rate, len(theirs.audio))
    clip = partial(np.clip, a_min=-1, a_max=32767 / 32768)  # the example clicks where it was cut out of its song
    np.testing.assert_allclose(clip(song.mixture().T), theirs.audio, atol=1 / 65000)
    for stem, wave in zip(STEMS, song.stems(), strict=True):
        exact = song.files[stem].suffix == ".flac"
        np.testing.assert_allclose(clip(wave.T), theirs.sources[stem].audio, atol=0 if exact else 1 / 65000)
        assert exact or np.abs(wave).max() > 1
    assert song.digest.endswith("-1") == any(path.suffix == ".wav" for path in song.files.values())

    monkeypatch.setattr(musdb18, "_decode", lambda *_: pytest.fail("decoded again"))
    for table in (tmp_path / "cache").glob("scan-*.json"):
        table.unlink()
    assert musdb18.read(tmp_path, tmp_path / "cache", 1, 0)[0] == [song]


def test_real_song_has_four_stems_that_sum_to_about_the_mixture(tmp_path):
    song = corpora.real_song(tmp_path)
    assert (song.name, song.split, song.rate) == ("The Easton Ellises - Falcon 69", "test", 44100)
    mixture, total = song.mixture(), song.stems().sum(0)
    assert 10 * np.log10(np.square(mixture).sum() / np.square(mixture - total).sum()) > 10


def test_the_real_song_does_not_click_at_its_ends(tmp_path):
    stems = corpora.real_song(tmp_path).stems()
    assert np.abs(stems).max() < 2 * np.abs(stems[..., 22050:-22050]).max()


def test_fma_subsets_are_inclusive_and_splits_are_fmas(tmp_path):
    root = write_fma(
        tmp_path / "fma",
        [(5, "training", "large"), (2, "training", "small"), (1003, "validation", "medium"), (4, "test", "small")],
    )
    found = {}
    for subset in ("small", "medium", "large", "full"):
        songs, skipped = corpora.unlabeled(write_profile(unlabeled=str(root), fma_subset=subset), tmp_path / "cache")
        assert skipped == []
        found[subset] = {t.name: t.split for t in songs}
    assert found["small"] == {"000002": "train", "000004": "test"}
    assert found["medium"] == found["small"] | {"001003": "validation"}
    assert found["large"] == found["full"] == found["medium"] | {"000005": "train"}
    assert list(found["large"]) == sorted(found["large"])
    with pytest.raises(UserError, match="fma_subset"):
        fma.read(root, "tiny", tmp_path / "cache", 1, RATE, 0.5)


def test_fma_archives_side_by_side(tmp_path):
    root = write_fma(tmp_path, [(2, "training", "small")], folder="fma_medium", third_row=False)
    for subset, there in (("small", 1), ("medium", 1), ("full", 0)):
        assert len(fma.read(root, subset, tmp_path / "cache", 1, RATE, 0.5)[0]) == there


def test_fma_skips_with_reasons(tmp_path):
    root = write_fma(tmp_path, [(i, "training", "small") for i in range(1, 6)])
    mp3 = root / "000"
    (mp3 / "000001.mp3").unlink()
    (mp3 / "000002.mp3").write_bytes(b"")
    soundfile.write(mp3 / "000003.mp3", noise(1, channels=1), RATE, format="MP3")
    soundfile.write(mp3 / "000004.mp3", noise(0.4), RATE, format="MP3")
    songs, skipped = fma.read(root, "small", tmp_path / "cache", 2, RATE, 0.5)
    assert [t.name for t in songs] == ["000005"]
    why = reasons(skipped)
    assert why["000001.mp3"] == "no such file" and why["000002.mp3"] and why["000003.mp3"] == "mono"
    assert "shorter than 0.5 s" in why["000004.mp3"]
    none, low = fma.read(root, "small", tmp_path / "cache", 2, 44100, 0.5)
    assert none == [] and "below 44100 Hz" in reasons(low)["000005.mp3"]


def test_fma_wrong_table_is_a_user_error(tmp_path):
    root = write_fma(tmp_path, [(1, "training", "small")])
    (root / "fma_metadata" / "tracks.csv").write_text("track_id,title\n1,a\n")
    with pytest.raises(UserError, match=r"tracks\.csv"):
        fma.read(root, "small", tmp_path / "cache", 1, RATE, 0.5)


def test_folder_reads_every_format_and_skips_the_rest(tmp_path):
    root = tmp_path / "music"
    (root / "Zoe" / ".hidden").mkdir(parents=True)
    for name in ("a.wav", "B.FLAC", "Zoe/c.ogg", "Zoe/d.Mp3", "e.aiff"):
        soundfile.write(root / name, noise(1, len(name)), RATE, format=Path(name).suffix[1:].upper())
    soundfile.write(root / "mono.wav", noise(1, channels=1), RATE)
    soundfile.write(root / "short.wav", noise(0.3), RATE)
    subprocess.run(["ffmpeg", "-v", "error", "-i", root / "a.wav", root / "f.m4a"], check=True)
    (root / "broken.mp3").write_bytes(bytes(5000))
    (root / "cover.jpg").write_bytes(b"jpg")
    for hidden in ("._a.wav", "Zoe/.hidden/x.wav"):
        shutil.copy(root / "a.wav", root / hidden)
    (root / "Zoe" / "loop").symlink_to(root)
    (root / "gone.wav").symlink_to(root / "nowhere.wav")
    songs, skipped = corpora.unlabeled(write_profile(unlabeled=str(root)), tmp_path / "cache")
    assert [t.name for t in songs] == ["B.FLAC", "Zoe/c.ogg", "Zoe/d.Mp3", "a.wav", "e.aiff", "f.m4a", "mono.wav"]
    assert [t.split for t in songs].count("validation") == 2
    mono = next(t for t in songs if t.name == "mono.wav").mixture()
    np.testing.assert_array_equal(mono[0], mono[1])
    m4a = next(t for t in songs if t.name == "f.m4a")
    assert m4a.files["mixture"].is_relative_to(tmp_path / "cache") and np.abs(m4a.mixture()).max() > 0.1
    assert set(reasons(skipped)) == {"short.wav", "broken.mp3", "gone.wav"}
    assert "0.3 s long" in reasons(skipped)["short.wav"]


def test_several_sources_of_unlabelled_music_are_read_one_after_the_other(tmp_path):
    for name, seeds in (("one", (1, 2)), ("two", (3,))):
        (tmp_path / name).mkdir()
        for seed in seeds:
            soundfile.write(tmp_path / name / f"{seed}.wav", noise(1.0, seed), RATE)
    both = f"{tmp_path / 'one'} + {tmp_path / 'two'}"
    songs, skipped = corpora.unlabeled(write_profile(unlabeled=both), tmp_path / "cache")
    assert [song.name for song in songs] == ["one/1.wav", "one/2.wav", "two/3.wav"] and not skipped
    with pytest.raises(UserError, match="no such folder"):
        corpora.unlabeled(write_profile(unlabeled=f"{tmp_path / 'one'} + {tmp_path / 'three'}"), tmp_path / "cache")


def test_folder_survives_hostile_names(tmp_path):
    root = tmp_path / "music"
    root.mkdir()
    names = ["NA.wav", 'quo"te, comma.wav', "-dash.wav", "1999.wav", "日本.wav", "new\nline.wav"]
    for i, name in enumerate(names):
        soundfile.write(root / name, noise(1, i), RATE)
    with open(os.fsencode(root) + b"/\xff.wav", "wb") as file:
        file.write((root / "NA.wav").read_bytes())
    first = folder.read(root, tmp_path / "cache", 1, 0.5)
    assert sorted(t.name for t in first[0]) == sorted([*names[:-1], "new\\nline.wav", "\\xff.wav"])
    assert first[1] == [] and "".join(t.name for t in first[0]).isprintable()
    assert all(t.mixture().any() for t in first[0])
    assert folder.read(root, tmp_path / "cache", 1, 0.5) == first, "read back from the cache"
    with open(os.fsencode(root) + b"/\xfe\n.wav", "wb") as file:
        file.write(b"words")
    (bad,) = folder.read(root, tmp_path / "cache", 1, 0.5)[1]
    assert bad.path == f"{root}/\\xfe\\n.wav"


def test_unknown_names_are_used_where_they_decode_and_listed_where_not(tmp_path):
    root = tmp_path / "music"
    root.mkdir()
    for i, name in enumerate(("song", "a.xyz", "b.wav.1", "c.3gp")):
        soundfile.write(root / name, noise(1, i), RATE, format="WAV")
    for name in ("words.xyz", "cover.jpg", "README", "pieces.csv", "list.m3u", "song.mid", ".hidden.wav"):
        (root / name).write_bytes(b"no music" * 100)
    songs, skipped = folder.read(root, tmp_path / "cache", 1, 0.5)
    assert [song.name for song in songs] == ["a.xyz", "b.wav.1", "c.3gp", "song"]
    assert reasons(skipped).keys() == {"words.xyz"} and "is it audio at all" in skipped[0].reason


def test_a_folder_that_cannot_be_looked_into_is_listed(tmp_path, monkeypatch):
    write_song(tmp_path / "music" / "shut")
    soundfile.write(tmp_path / "music" / "open.wav", noise(1), RATE)
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    songs, skipped = folder.read(tmp_path / "music", tmp_path / "cache", 1, 0.5)
    assert [song.name for song in songs] == ["open.wav"]
    assert reasons(skipped) == {"shut": "cannot be read: Permission denied"}


def test_what_a_labelled_folder_holds_besides_is_listed(tmp_path):
    for name in ("train/a", "train/b", "test/c", "validation/d"):
        write_song(tmp_path / "in" / name)
    soundfile.write(tmp_path / "in" / "train" / "a" / "guitar.wav", noise(1), RATE)
    with open(os.fsencode(tmp_path / "in" / "train" / "b") + b"/\xe9.wav", "wb") as file:
        file.write(b"words")
    os.rename(tmp_path / "in" / "test" / "c", os.fsencode(tmp_path / "in" / "test") + b"/caf\xe9\n")
    songs, skipped = musdb18.read(tmp_path / "in", tmp_path / "cache", 1, 0)
    assert [song.name for song in songs] == ["a", "b", "caf\\xe9\\n"] and songs[2].stems().any()
    assert reasons(skipped).keys() == {"guitar.wav", "\\xe9.wav", "validation"}
    assert "none of train, valid, test" in reasons(skipped)["validation"]


def stem_file(path, gain=1.0):
    """A file of five streams, the mixture of which peaks at ``gain``."""
    waves = [np.sin(np.arange(2 * 44100) * (i + 1) / 30)[:, None].repeat(2, 1) * 0.2 for i in range(5)]
    inputs, maps = [], []
    for i, wave in enumerate([gain * 5 * waves[0], *waves[1:]]):
        soundfile.write(path.parent / f"{i}.wav", wave, 44100, "FLOAT")
        inputs, maps = [*inputs, "-i", path.parent / f"{i}.wav"], [*maps, "-map", str(i)]
    path.parent.mkdir(exist_ok=True)
    subprocess.run(["ffmpeg", "-v", "error", *inputs, *maps, "-c:a", "aac", "-b:a", "256k", path], check=True)
    for i in range(5):
        (path.parent / f"{i}.wav").unlink()


def test_a_file_of_stems_may_be_an_m4a_and_louder_than_full_scale(tmp_path):
    (tmp_path / "in" / "train").mkdir(parents=True)
    (tmp_path / "in" / "test").mkdir(parents=True)
    stem_file(tmp_path / "in" / "train" / "hot.stem.m4a", 1.5)
    stem_file(tmp_path / "in" / "test" / "soft.Stem.MP4", 0.5)
    (hot, soft), skipped = musdb18.read(tmp_path / "in", tmp_path / "cache", 1, 0)
    assert (hot.name, soft.name, skipped) == ("hot", "soft", [])
    assert 1.4 < np.abs(hot.mixture()).max() < 1.7 and 0.45 < np.abs(soft.mixture()).max() < 0.6
    assert [song.files["mixture"].suffix for song in (hot, soft)] == [".wav", ".flac"]
    assert 0.15 < np.abs(hot.stems()).max() < 0.3 and hot.digest.endswith("-1")


def test_validation_share_does_not_depend_on_where_the_folder_lies(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for i in range(4):
            soundfile.write(tmp_path / name / f"{i}.wav", noise(1, i), RATE)
    one, two = (folder.read(tmp_path / name, tmp_path / "cache", 1, 0.5)[0] for name in ("one", "two"))
    assert [t.split for t in one] == [t.split for t in two]
    assert [t.split for t in one].count("validation") == 2
    assert tracks.corpus_fingerprint(one) == tracks.corpus_fingerprint(two)
    soundfile.write(tmp_path / "two" / "3.wav", noise(1, 99), RATE)
    assert tracks.corpus_fingerprint(folder.read(tmp_path / "two", tmp_path / "cache", 1, 0.5)[0]) != (
        tracks.corpus_fingerprint(one)
    )


def test_fingerprint_sees_both_ends_of_a_file(tmp_path):
    path, wave, seen = tmp_path / "a.wav", noise(5), set()
    assert wave.nbytes > 4 * tracks.EDGE
    for position in (0, -1):
        wave[position] += 0.01
        soundfile.write(path, wave, RATE, "FLOAT")
        seen.add(tracks.corpus_fingerprint(folder.read(tmp_path, tmp_path / "cache", 1, 0.5)[0]))
    assert len(seen) == 2
    wave[0] += 0.01
    soundfile.write(path, wave, RATE, "FLOAT")
    assert tracks.corpus_fingerprint(folder.read(tmp_path, tmp_path / "cache", 1, 0.5)[0]) not in seen


@pytest.mark.parametrize("kind", ["labeled", "unlabeled"])
def test_nothing_usable_is_one_line(tmp_path, kind):
    (tmp_path / "empty").mkdir()
    for value in ("nowhere", "empty"):
        with pytest.raises(UserError) as error:
            getattr(corpora, kind)(write_profile(**{kind: str(tmp_path / value)}), tmp_path / "cache")
        assert value in str(error.value) and "\n" not in str(error.value)


def test_a_second_scan_opens_no_file_and_a_changed_file_is_scanned_again(tmp_path, monkeypatch):
    write_song(tmp_path / "in" / "train" / "A", 0.2)
    first = musdb18.read(tmp_path / "in", tmp_path / "cache", 1, 1)
    with monkeypatch.context() as patch:
        patch.setattr(audio, "probe", lambda path: pytest.fail("opened again"))
        assert musdb18.read(tmp_path / "in", tmp_path / "cache", 1, 1) == first
    for stem in (*STEMS, "mixture"):
        soundfile.write(tmp_path / "in" / "train" / "A" / f"{stem}.wav", noise(0.3), RATE)
    (again,), _ = musdb18.read(tmp_path / "in", tmp_path / "cache", 1, 1)
    assert again.seconds == pytest.approx(0.3) and again.digest != first[0][0].digest


def test_deleted_decoded_files_are_made_again(tmp_path):
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "a.wav", noise(1), RATE)
    subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", tmp_path / "in" / "a.m4a"], check=True)
    (song,), _ = folder.read(tmp_path / "in", tmp_path / "cache", 1, 0.5)
    song.files["mixture"].unlink()
    (again,), _ = folder.read(tmp_path / "in", tmp_path / "cache", 1, 0.5)
    assert again.mixture().shape == song.mixture().shape


def test_unreadable_file_is_skipped_not_raised(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", noise(1), RATE)
    soundfile.write(tmp_path / "b.wav", noise(1), RATE)
    digest = tracks.content_digest

    def denied(files):
        if files["mixture"].name == "a.wav":
            raise PermissionError(13, "Permission denied")
        return digest(files)

    monkeypatch.setattr(tracks, "content_digest", denied)
    songs, skipped = folder.read(tmp_path, tmp_path / "cache", 1, 0.5)
    assert [t.name for t in songs] == ["b.wav"] and "Permission denied" in reasons(skipped)["a.wav"]
    monkeypatch.undo()
    assert len(folder.read(tmp_path, tmp_path / "cache", 1, 0.5)[0]) == 2, "found once its cause is gone"


def test_a_full_disk_stops_the_scan(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", noise(1), RATE)

    def full(path, cache, compact):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(audio, "seekable", full)
    with pytest.raises(UserError, match="no space left"):
        folder.read(tmp_path, tmp_path / "cache", 1, 0.5)


def test_track_is_immutable():
    track = tracks.Track("a", "train", 1, 1, {}, "")
    with pytest.raises(dataclasses.FrozenInstanceError):
        track.name = "b"


@REAL
def test_real_folder_and_real_musdb_stem(tmp_path):
    root = Path(os.environ["MSS_AUDIO"])
    songs, skipped = folder.read(root / "unlabeled", tmp_path, 2, 10.0)
    assert len(songs) == 7 and skipped == [] and all(t.seconds > 25 for t in songs)
    (song,), _ = musdb18.read(root / "MUSDB18-sample", tmp_path, 2, 4)
    assert song.name == "Music Delta - 80s Rock" and song.stems().shape == (4, 2, song.frames)


def test_music_of_every_name_is_used_where_it_decodes_and_listed_where_not(tmp_path):
    root = tmp_path / "music"
    root.mkdir()
    soundfile.write(tmp_path / "a.wav", noise(1, rate=48000), 48000)
    names = ["a.webm", "b.mkv", "c.m4b", "d.mp2", "e.tta", "f.ac3", "g.wma", "h.wv"]
    for name in names:
        subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", root / name], check=True)
    (root / "broken.webm").write_bytes(bytes(5000))
    (root / "cover.jpg").write_bytes(b"jpg")
    songs, skipped = corpora.unlabeled(write_profile(unlabeled=str(root)), tmp_path / "cache")
    assert [song.name for song in songs] == names and set(reasons(skipped)) == {"broken.webm"}
    assert all(np.abs(song.mixture()).max() > 0.1 for song in songs)


def test_fingerprints_of_songs_that_are_tested_are_found_in_any_format(tmp_path):
    write_song(tmp_path / "songs" / "a", 1.0)
    write_song(tmp_path / "songs" / "b", 1.0, seed=1)
    for suffix in ("ogg", "m4a"):
        bass = tmp_path / "songs" / "a" / f"bass.{suffix}"
        subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "songs" / "b" / "bass.wav", bass], check=True)
        bass.with_name("bass.wav").unlink(missing_ok=True)
        (tmp_path / suffix).mkdir()
        shutil.copy(bass, tmp_path / suffix / f"heard.{suffix}")
        shutil.copy(tmp_path / "songs" / "b" / "mixture.wav", tmp_path / suffix / "also.wav")
        soundfile.write(tmp_path / suffix / "other.wav", noise(1, 77), RATE)
        profile = write_profile(unlabeled=str(tmp_path / suffix), labeled=str(tmp_path / "songs"), folds=2)
        songs, skipped = corpora.unlabeled(profile, tmp_path / "cache")
        assert [song.name for song in songs] == ["other.wav"]
        assert "'a', which is tested" in reasons(skipped)[f"heard.{suffix}"] and "'b'" in reasons(skipped)["also.wav"]
        bass.unlink()


def test_songs_of_one_name_keep_apart(tmp_path):
    for part in ("one/music", "two/music"):
        soundfile.write(ensured(tmp_path / part) / "a.wav", noise(1), RATE)
    parts = [f"{tmp_path}/one/music", f"{tmp_path}/two/music"]
    songs, _ = corpora.unlabeled(write_profile(unlabeled=" + ".join(parts)), tmp_path / "cache")
    assert [song.name for song in songs] == [f"{part.strip('/')}/a.wav" for part in parts]
    for part in ("train", "test"):
        ensured(tmp_path / "in" / part)
    write_song(tmp_path / "in" / "test" / "a")
    stem_file(tmp_path / "in" / "test" / "a.stem.mp4", 0.5)
    songs, _ = musdb18.read(tmp_path / "in", tmp_path / "cache", 1, 0)
    assert [song.name for song in songs] == ["a", "a (2)"]


def ensured(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return folder
