"""Silence rule and source-activity detection on songs whose silences are known."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from lib import STEMS
from lib.data import collection, folder, musdb18
from lib.data.segments import active_segments, audible_segments, mixture_manifest, stem_manifest
from lib.data.tracks import Rules

RATE = 8000


def tone(spans, seconds, level=0.1):
    time = np.arange(round(seconds * RATE)) / RATE
    sounding = np.any([(time >= a) & (time < b) for a, b in spans], 0) if spans else np.zeros(len(time), bool)
    return np.stack([level * np.sin(2 * np.pi * 440 * time) * sounding] * 2, 1).astype(np.float32)


def song(path, spans, seconds, suffix="wav"):
    path.mkdir(exist_ok=True)
    soundfile.write(path / f"a.{suffix}", tone(spans, seconds), RATE, format=suffix.upper())
    (track,), _ = folder.read(path, path / "cache", 1, 0.1)
    return track


def stem_song(path, spans, seconds=20.0, level=0.1, name="A"):
    (path / "train" / name).mkdir(parents=True)
    for stem in STEMS:
        wave = tone(spans.get(stem, [(0, seconds)]), seconds, level)
        soundfile.write(path / "train" / name / f"{stem}.wav", wave, RATE, "FLOAT")
    return next(t for t in musdb18.read(path, path / "cache", 1, 0)[0] if t.name == name)


def starts(segments):
    return [start for start, _ in segments]


@pytest.mark.parametrize("suffix", ["wav", "mp3"])
def test_segments_that_are_half_silent_are_dropped(tmp_path, suffix):
    track = song(tmp_path, [(0, 11), (24, 35)], 35, suffix)
    # 5-15: 6 s sound; 10-20: 1 s; 15-25: 1 s; 20-30: 6 s
    assert starts(audible_segments(track, 10, 5)) == [0, 5, 20, 25]


def test_one_half_silent_segment_drops_the_whole_track_where_the_profile_says_so(tmp_path):
    for name, spans in (("loud", [(0, 30)]), ("gap", [(0, 12), (20, 30)]), ("silent", [])):
        soundfile.write(tmp_path / f"{name}.wav", tone(spans, 29.98), RATE)
    songs, _ = folder.read(tmp_path, tmp_path / "cache", 1, 1)
    place = {track.name: i for i, track in enumerate(songs)}
    by_segment, by_track = (
        mixture_manifest(songs, 10, 5, tmp_path / "cache", drop_whole_track=whole) for whole in (False, True)
    )
    rows = by_segment.table.groupby("track").size().to_dict()
    assert rows == {place["gap.wav"]: 3, place["loud.wav"]: 5} and not by_segment.skipped
    assert by_track.table.equals(
        by_segment.table[by_segment.table["track"] == place["loud.wav"]].reset_index(drop=True)
    )
    assert [(s.path, s.reason) for s in by_track.skipped] == [(str(tmp_path / "gap.wav"), "a segment is half silent")]


def test_a_collection_drops_whole_tracks_by_the_same_rule(tmp_path):
    spans = {"a.wav": [(0, 30)], "b.wav": [(0, 12), (20, 30)], "c.wav": [(0, 4), (7, 30)]}
    for name, sounding in spans.items():
        soundfile.write(tmp_path / name, tone(sounding, 29.98), RATE)
    listed = [(name, "train") for name in spans]
    found, _ = collection.scan(tmp_path, [listed], Rules(10.0), 5.0, tmp_path / "cache", 1)
    manifest = mixture_manifest(found, 10.0, 5.0, tmp_path / "cache", drop_whole_track=True)
    assert sorted({found[i].name for i in manifest.table["track"]}) == ["a", "c"] and len(manifest.table) == 10
    assert [Path(s.path).name for s in manifest.skipped] == ["b.wav"]


def test_exactly_half_silent_is_dropped(tmp_path):
    assert starts(audible_segments(song(tmp_path, [(0, 5)], 10), 10, 5)) == []
    assert starts(audible_segments(song(tmp_path / "b", [(0, 5.5)], 10), 10, 5)) == [0]


def test_last_segment_of_a_clip_that_is_a_little_short(tmp_path):
    track = song(tmp_path, [(0, 30)], 29.98)
    segments = audible_segments(track, 10, 5)
    assert starts(segments) == [0, 5, 10, 15, 20]
    assert segments[-1][1] == pytest.approx(9.98) and segments[0][1] == 10
    assert starts(audible_segments(song(tmp_path / "b", [(0, 30)], 29.4), 10, 5)) == [0, 5, 10, 15]


def test_long_songs_are_read_in_blocks_and_agree_with_one_block(tmp_path, monkeypatch):
    track = song(tmp_path, [(0, 3), (11, 40), (52, 61)], 70)
    whole = audible_segments(track, 4, 2)
    monkeypatch.setattr("lib.data.segments.BLOCK_CHUNKS", 7)
    assert audible_segments(track, 4, 2) == whole and 0 < len(whole) < 34


def test_activity_detection_keeps_segments_with_sound_in_half_their_chunks(tmp_path):
    track = stem_song(tmp_path, {"vocals": [(0, 6)], "drums": []})
    # 8 s segments from 0, 4, 8, 12: vocals fill 7.5 chunks of the first and 2.5 of the second
    assert starts(active_segments(track, "vocals", 8)) == [0]
    assert starts(active_segments(track, "drums", 8)) == []
    bass = active_segments(track, "bass", 8)
    assert starts(bass) == pytest.approx([0, 4, 8, 12]) and all(seconds == 8 for _, seconds in bass)


def test_activity_threshold_is_an_energy_summed_over_the_chunk(tmp_path):
    # 0.8 s stereo chunks of a sine: sum of squares = level^2 * 6400; 1e-3 is reached at level 3.95e-4
    assert active_segments(stem_song(tmp_path / "a", {}, level=4.2e-4), "bass", 8)
    assert not active_segments(stem_song(tmp_path / "b", {}, level=3.7e-4), "bass", 8)


def test_activity_threshold_rises_with_the_track(tmp_path):
    # 12 of 100 chunks are 20 dB softer than the rest: well above 1e-3, yet under the track's 15% quantile
    wave = tone([(0, 80)], 80) * np.linspace(0.5, 1, 80 * RATE, dtype=np.float32)[:, None]
    wave[16 * RATE : round(25.6 * RATE)] *= 0.1
    track = stem_song(tmp_path, {}, 80)
    soundfile.write(track.files["bass"], wave, RATE, "FLOAT")
    expected = [start for start in range(0, 73, 4) if start not in (16, 20)]
    assert starts(active_segments(track, "bass", 8)) == pytest.approx(expected)


def test_a_song_shorter_than_a_segment_is_one_segment(tmp_path):
    track = stem_song(tmp_path, {"drums": []}, seconds=3.0)
    assert active_segments(track, "vocals", 8) == [(0, 3.0)]
    assert active_segments(track, "drums", 8) == []


def test_manifests_are_tables_that_are_read_back(tmp_path, monkeypatch):
    songs = [stem_song(tmp_path / n, {"vocals": [(0, 6)]}, name=n) for n in ("A", "B")]
    manifest = stem_manifest(songs, 8, tmp_path / "cache", 2)
    assert list(manifest.table.columns) == ["track", "role", "start", "seconds"] and manifest.skipped == []
    assert manifest.table.groupby("role").size().to_dict() == {"bass": 8, "drums": 8, "other": 8, "vocals": 2}
    mixtures = mixture_manifest(songs, 10, 5, tmp_path / "cache")
    assert mixtures.table["track"].tolist() == [0, 0, 0, 1, 1, 1] and set(mixtures.table["role"]) == {"mixture"}
    monkeypatch.setattr("lib.data.segments._segments", lambda *_: pytest.fail("computed again"))
    assert stem_manifest(songs, 8, tmp_path / "cache", 2).table.equals(manifest.table)
    monkeypatch.undo()
    assert set(stem_manifest(songs[1:], 8, tmp_path / "cache").table["track"]) == {0}
    assert len(mixture_manifest(songs, 5, 5, tmp_path / "cache").table) == 8


def test_a_track_that_breaks_off_is_skipped_with_its_reason(tmp_path):
    for name in ("a.flac", "b.flac"):
        noise = np.random.default_rng(0).normal(0, 0.1, (RATE * 20, 2))
        soundfile.write(tmp_path / name, noise, RATE)
    path = tmp_path / "a.flac"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    songs, _ = folder.read(tmp_path, tmp_path / "cache", 1, 1)
    for _ in range(2):  # computed, then read back
        manifest = mixture_manifest(songs, 5, 5, tmp_path / "cache")
        assert set(manifest.table["track"]) == {[t.name for t in songs].index("b.flac")}
        assert [s.path for s in manifest.skipped] == [str(path)] and manifest.skipped[0].reason
