"""The embedded corpus: what is composed, how it sounds by numbers, and the folders that are built."""

import hashlib
import json
import os
import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas
import pytest
import soundfile

from lib import STEMS, UserError
from lib.data.composed import corpus, render
from lib.data.composed.compose import KITS, PROGRAMS, compose
from lib.profile.fields import Rendered

RATE = 16000
SMALL = Rendered(seed=3, song_seconds=3.0, train_songs=2, validation_songs=1, test_songs=2, unlabeled_songs=5)


@pytest.fixture(scope="module")
def songs():
    return [compose(0, kind, i, 20.0) for kind, n in (("train", 8), ("valid", 4), ("unlabeled", 188)) for i in range(n)]


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    return corpus.build(SMALL, RATE, tmp_path_factory.mktemp("corpus"), workers=1)


def contents(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def parts_of(song, stem):
    return [part for part in song.parts if part.stem == stem]


def test_songs_are_varied(songs):
    tempi = [song.bpm for song in songs]
    assert 70 <= min(tempi) < 80 and 160 < max(tempi) <= 170
    assert len({song.key for song in songs}) == 12 and len({song.mode for song in songs}) == 5
    without = {stem: np.mean([not parts_of(song, stem) for song in songs]) for stem in STEMS}
    assert 0.05 < without["vocals"] < 0.2 and 0.03 < without["drums"] < 0.15
    assert without["bass"] == without["other"] == 0
    assert len({parts_of(song, "bass")[0].notes for song in songs}) == len(songs)


def test_parts_share_the_bar_lines(songs):
    """Kick drum and bass, written apart, meet far more often than two songs do."""

    def met(a, b):
        times = np.array([note.start for note in b])
        return np.mean([np.abs(times - note.start).min() < 0.04 for note in a])

    pairs = [(parts_of(s, "drums")[0].notes, parts_of(s, "bass")[0].notes) for s in songs if parts_of(s, "drums")]
    own = np.mean([met(kick, bass) for kick, bass in pairs])
    foreign = np.mean([met(kick, bass) for (kick, _), (_, bass) in pairwise(pairs)])
    assert own > foreign + 0.2


@pytest.mark.parametrize("count", [1, 2, 12])
def test_a_third_of_a_test_sets_sounds_is_never_trained_on(songs, count):
    def sounds(some, drums):
        return {part.program for song in some for part in song.parts if (part.stem == "drums") == drums}

    test = [compose(0, "test", i, 20.0) for i in range(count)]
    programs, kits = sounds(test, False), sounds(test, True)
    assert len(programs - sounds(songs, False)) >= len(programs) / 3
    assert len(kits - sounds(songs, True)) >= len(kits) / 3 or count == 1  # one song has one kit
    assert not {song.seed for song in test} & {song.seed for song in songs}


def test_no_program_is_both_common_and_kept():
    for common, kept in (*PROGRAMS.values(), KITS):
        assert not set(common) & set(kept)
    common = {program for row in PROGRAMS.values() for program in row[0]}
    assert not common & {program for row in PROGRAMS.values() for program in row[1]}


def test_the_lead_has_one_note_at_a_time_and_rests(songs):
    for song in songs:
        for part in parts_of(song, "vocals"):
            starts, ends = (np.array([getattr(note, end) for note in part.notes]) for end in ("start", "end"))
            assert (starts[1:] >= ends[:-1]).all() and (ends > starts).all()
            assert (starts[1:] - ends[:-1] > 0.4).any() or song.seconds - ends[-1] > 0.4 or starts[0] > 0.4


def test_levels_are_those_of_pop_music(songs):
    for song in [song for song in songs if len({part.stem for part in song.parts}) == 4][:5]:
        stems = render.render(song, 8000)
        assert stems.dtype == np.float32 and stems.shape == (4, 2, 160000)
        assert 0.8 < np.abs(stems.sum(0)).max() <= 0.9 or np.abs(stems).max() > np.abs(stems.sum(0)).max()
        power = np.square(stems.sum(0)).mean()
        assert -26 < 10 * np.log10(power) < -10
        balance = 10 * np.log10(np.square(stems).mean((1, 2)) / power)
        assert (balance > -14).all() and (balance < -1.5).all()


def track_pitch(wave, rate):
    """(times, MIDI pitch, clarity) by normalised autocorrelation over 50 ms, every 10 ms."""
    size, hop = rate // 20, rate // 100
    lags = np.arange(rate // 1000, rate // 60)
    frames = np.lib.stride_tricks.sliding_window_view(wave, size + lags[-1])[::hop]
    first = frames[:, :size] - frames[:, :size].mean(1, keepdims=True)
    power = np.cumsum(np.pad(frames**2, ((0, 0), (1, 0))), 1)
    spectrum = np.fft.rfft(frames, 4096) * np.fft.rfft(first, 4096).conj()
    clarity = np.fft.irfft(spectrum)[:, lags] / np.sqrt(
        (power[:, size, None] * (power[:, lags + size] - power[:, lags])) + 1e-9
    )
    # the shortest lag almost as good as the best one is the period, its multiples are not
    peaks = (clarity >= 0.93 * clarity.max(1, keepdims=True)) & (clarity >= np.roll(clarity, 1, 1))
    peaks &= clarity >= np.roll(clarity, -1, 1)
    lag = lags[peaks.argmax(1)]
    times = (np.arange(len(frames)) * hop + (size + lag) / 2) / rate
    return times, 69 + 12 * np.log2(rate / lag / 440), clarity.max(1)


@pytest.mark.parametrize("program", PROGRAMS["voice"][0] + PROGRAMS["voice"][1])
def test_the_lead_sounds_the_composed_pitch_with_glides_and_vibrato(songs, program):
    """The pitch track of the vocals alone follows the curve that the notes, glides and vibrato prescribe."""
    song = next(s for s in songs if parts_of(s, "vocals") and any(n.tied for n in parts_of(s, "vocals")[0].notes))
    part, rate = parts_of(song, "vocals")[0], 24000
    part = replace(part, program=program, send=0.0, notes=tuple(note for note in part.notes if note.end < 10))
    alone = replace(song, parts=(part,), seconds=10.0, ratio=1.0)
    wave = render.render(alone, rate)[STEMS.index("vocals"), 0].astype(float)
    times, pitch, clarity = track_pitch(wave, rate)
    curves = [render.pitch_curve(word, part.voice) for word in render.words(part.notes)]
    inside = np.zeros(len(times), bool)
    for at, _ in curves:
        inside |= (times > at[0] + 0.05) & (times < at[-1] - 0.05)
    wanted = np.interp(times, *np.concatenate(curves, 1))
    voiced = inside & (clarity > 0.6)
    assert voiced.sum() > 0.6 * inside.sum()
    error = pitch - wanted
    assert np.mean(np.abs(error[voiced]) < 0.6) > 0.8
    # it follows the curve, vibrato and glides included, better than it follows the notes
    flat = np.full(len(times), np.nan)
    for note in part.notes:
        flat[(times >= note.start) & (times < note.end)] = note.pitch
    moving = voiced & (np.abs(wanted - flat) > 0.2) & (np.abs(error) < 3)
    assert moving.sum() > 20
    assert np.median(np.abs(error[moving])) < 0.6 * np.median(np.abs((pitch - flat)[moving]))


def test_the_lead_is_silent_between_phrases(songs):
    song = next(song for song in songs if parts_of(song, "vocals"))
    part = replace(parts_of(song, "vocals")[0], send=0.0)
    wave = render.render(replace(song, parts=(part,), ratio=1.0), RATE)[STEMS.index("vocals")].mean(0)
    times = np.arange(len(wave)) / RATE
    sung, near = np.zeros((2, len(wave)), bool)
    for note in part.notes:
        sung |= (times >= note.start) & (times < note.end)
        near |= (times >= note.start - 0.45) & (times < note.end + 0.1)
    assert (~near).sum() > RATE / 2
    assert np.square(wave[~near]).mean() < 1e-5 * np.square(wave[sung]).mean()


def test_nothing_rings_over_from_one_song_into_another(songs):
    first, second = (replace(song, seconds=3.0) for song in songs[:2])
    alone = render.render(first, RATE)
    render.render(second, RATE)
    assert np.array_equal(render.render(first, RATE), alone)


def test_layout_of_the_labeled_songs(music):
    train, test = (sorted(p.name for p in (music / "labeled" / split).iterdir()) for split in ("train", "test"))
    assert len(train) == 3 and len(test) == 2
    described = json.loads((music / "songs.json").read_text())
    split = {song["name"]: song["split"] for song in described}
    assert [split[name] for name in train] == ["train", "train", "validation"]
    assert [split[name] for name in test] == ["test", "test"]
    for song in described[:5]:
        folder = music / "labeled" / ("test" if song["split"] == "test" else "train") / song["name"]
        assert {p.name for p in folder.iterdir()} == {"mixture.wav", *(f"{stem}.wav" for stem in STEMS)}
        waves = {p.stem: soundfile.read(p, dtype="float32") for p in folder.iterdir()}
        assert all(rate == RATE and wave.shape == (3 * RATE, 2) for wave, rate in waves.values())
        mixture = waves["mixture"][0]
        assert 0.3 < np.abs(mixture).max() <= 0.9
        total = sum(waves[stem][0].astype(float) for stem in STEMS)
        assert (total == mixture).all()
        silent = {stem for stem in STEMS if not waves[stem][0].any()}
        assert silent == set(STEMS) - {part["stem"] for part in song["parts"]}


def test_layout_of_the_unlabeled_songs(music):
    tracks = pandas.read_csv(music / "unlabeled" / "fma_metadata" / "tracks.csv", index_col=0, header=[0, 1])
    assert list(tracks.index) == [2, 3, 4, 5, 6] and tracks.index.name == "track_id"
    assert list(tracks["set", "split"]) == ["training"] * 4 + ["validation"]
    assert set(tracks["set", "subset"]) == {"small"}
    assert {("track", name) for name in ("title", "duration", "genre_top")} | {("artist", "name")} <= set(tracks)
    for track in tracks.index:
        wave, rate = soundfile.read(music / "unlabeled" / "000" / f"{track:06d}.mp3")
        assert rate == RATE and wave.shape == (3 * RATE, 2)
        assert 0.02 < np.sqrt(np.square(wave).mean()) < 0.5


def test_mp3_holds_the_mixture(music):
    wave, _ = soundfile.read(music / "unlabeled" / "000" / "000002.mp3")
    mixture = render.render(compose(SMALL.seed, "unlabeled", 0, SMALL.song_seconds), RATE).sum(0).T
    assert np.square(wave - mixture).mean() < 0.03 * np.square(mixture).mean()


def test_dealt_groups_use_each_song_once_and_differ_in_tempo_and_key(songs):
    unlabeled = songs[-188:]
    groups = corpus.deal(unlabeled)
    assert sorted(index for group in groups for index in group) == list(range(188))
    alike = [
        (unlabeled[a].bpm == unlabeled[b].bpm, unlabeled[a].key == unlabeled[b].key)
        for group in groups
        for i, a in enumerate(group)
        for b in group[:i]
    ]
    assert not any(tempo for tempo, _ in alike)
    assert np.mean([key for _, key in alike]) < 0.02
    assert corpus.deal(unlabeled[:3]) == []


def test_a_re_dealt_mixture_holds_one_stem_of_each_of_four_songs(tmp_path):
    settings = replace(SMALL, unlabeled_songs=4, redealt=True)
    root = corpus.build(settings, RATE, tmp_path)
    ((*group,),) = corpus.deal([compose(SMALL.seed, "unlabeled", i, SMALL.song_seconds) for i in range(4)])
    stems = [render.render(compose(SMALL.seed, "unlabeled", i, SMALL.song_seconds), RATE) for i in group]
    for first, index in enumerate(group):
        wave, _ = soundfile.read(root / "unlabeled" / "000" / f"{render.FIRST_ID + index:06d}.mp3")
        expected = sum(stems[(first + k) % 4][k] for k in range(4)).T
        expected *= min(1.0, render.PEAK / np.abs(expected).max()) if np.abs(expected).max() > 1 else 1.0
        assert np.square(wave - expected).mean() < 0.03 * np.square(expected).mean()
    plain = corpus.build(replace(settings, redealt=False), RATE, tmp_path / "plain")
    assert contents(plain / "labeled") == contents(root / "labeled")


def test_a_share_of_the_unlabelled_mixtures_holds_one_stem(tmp_path, music):
    root = corpus.build(replace(SMALL, single_share=1.0), RATE, tmp_path)
    for index in range(SMALL.unlabeled_songs):
        stems = render.render(compose(SMALL.seed, "unlabeled", index, SMALL.song_seconds), RATE)
        wave, _ = soundfile.read(root / "unlabeled" / "000" / f"{render.FIRST_ID + index:06d}.mp3")
        errors = [np.square(wave.T - stem).mean() for stem in stems if stem.any()]
        assert min(errors) < 0.03 * np.square(wave).mean() and np.square(wave).mean() > 0
    assert contents(root / "labeled") == contents(music / "labeled")


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_about_that_share_of_the_mixtures_is_single(share):
    stems, settings = list(np.ones((4, 2, 3))), replace(SMALL, single_share=share)
    single = [corpus._mixed(settings, index, stems).max() == 1 for index in range(400)]
    assert abs(np.mean(single) - share) < 0.08


def test_without_single_mixtures_the_corpus_is_what_it_was():
    assert "single_share" not in corpus.identity(SMALL) and "single_share" in corpus.identity(
        replace(SMALL, single_share=0.5)
    )


@pytest.mark.parametrize(("count", "validation", "test"), [(1, 0, 0), (2, 1, 0), (20, 2, 1), (240, 12, 12)])
def test_splits_are_about_90_5_5(tmp_path, count, validation, test):
    song = {"groove": "rock", "name": "Unlabeled 001 - Slow River", "seconds": 20.0, "genre": "Rock"}
    corpus._write_tracks(tmp_path / "tracks.csv", [song | {"track_id": i} for i in range(count)])
    splits = pandas.read_csv(tmp_path / "tracks.csv", index_col=0, header=[0, 1])["set", "split"].value_counts()
    assert (splits.get("validation", 0), splits.get("test", 0)) == (validation, test)
    assert splits["training"] == count - validation - test


def test_same_files_from_any_number_of_workers(music, tmp_path):
    assert contents(corpus.build(SMALL, RATE, tmp_path, workers=2)) == contents(music)


@pytest.mark.skipif(
    not np._core._multiarray_umath.__cpu_features__.get("AVX2"), reason="songs are the same on processors with AVX2"
)
def test_songs_are_the_same_on_every_processor(tmp_path):
    """Runs are named by these digests. With AVX-512 they were others, until songs were rendered without it."""
    settings = Rendered(song_seconds=8.0, train_songs=1, validation_songs=0, test_songs=0, unlabeled_songs=1)
    before = dict(os.environ)
    files = contents(corpus.build(settings, RATE, tmp_path))
    digests = [
        hashlib.sha256(data).hexdigest()[:12] for name, data in files.items() if "mixture" in name or "mp3" in name
    ]
    assert digests == ["2121108bd98b", "72b1171d49cf"]
    assert dict(os.environ) == before


def test_songs_do_not_depend_on_how_many_there_are(music, tmp_path):
    fewer = replace(SMALL, train_songs=1, validation_songs=0, test_songs=0, unlabeled_songs=0)
    for name, content in contents(corpus.build(fewer, RATE, tmp_path) / "labeled").items():
        assert (music / "labeled" / name).read_bytes() == content


def test_a_build_that_was_cut_off_is_completed(music, tmp_path):
    root = tmp_path / "corpus"
    shutil.copytree(music, root)
    (root / "complete.json").unlink()
    shutil.rmtree(next((root / "labeled" / "train").iterdir()))
    (root / "unlabeled" / "000" / "000004.mp3").unlink()
    (root / "partial" / "Train 001 - half a song").mkdir(parents=True)
    assert contents(corpus.build(SMALL, RATE, root, workers=1)) == contents(music)


def test_a_complete_corpus_is_left_alone_and_another_one_replaced(music, tmp_path, monkeypatch):
    root = tmp_path / "corpus"
    shutil.copytree(music, root)
    with monkeypatch.context() as patched:
        patched.setattr(corpus, "_make", None)
        assert corpus.build(SMALL, RATE, root) == root
    other = replace(SMALL, seed=4, unlabeled_songs=1, test_songs=0)
    corpus.build(other, RATE, root, workers=1)
    assert len(list(root.rglob("*.mp3"))) == 1 and not (root / "labeled" / "test").exists()
    assert {song["seed"][0] for song in json.loads((root / "songs.json").read_text())} == {4}


@pytest.mark.parametrize("rate", [44100, 22050, 24000])
def test_other_rates(tmp_path, rate):
    one = Rendered(song_seconds=2.0, train_songs=0, validation_songs=0, test_songs=0, unlabeled_songs=1)
    wave, found = soundfile.read(corpus.build(one, rate, tmp_path) / "unlabeled" / "000" / "000002.mp3")
    assert found == rate and wave.shape == (2 * rate, 2)


def test_an_mp3_that_cannot_be_written_says_so(tmp_path, monkeypatch):
    wave = np.zeros((2, RATE), np.float32)
    with pytest.raises(UserError, match="ffmpeg cannot write it"):
        corpus.write_mp3(tmp_path / "nowhere" / "a.mp3", wave, RATE)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="ffmpeg is not on PATH"):
        corpus.write_mp3(tmp_path / "a.mp3", wave, RATE)


def test_refusals_name_the_field(tmp_path):
    with pytest.raises(UserError, match=r"audio\.rate.*16000"):
        corpus.build(SMALL, 15000, tmp_path)
    with pytest.raises(UserError, match="song_seconds"):
        corpus.build(replace(SMALL, song_seconds=0.5), RATE, tmp_path)
    assert not list(tmp_path.iterdir())
