"""Training examples: pure functions of seed and index, with the levels, pairs and silences that the recipe asks for."""

import random
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from lib import STEMS, UserError, mixing
from lib.data.segments import Manifest, mixture_manifest, stem_manifest
from lib.data.tracks import Track
from lib.mixing import Crops, MixturesOfMixtures, StemMixtures, loader, rms, song_segments, validation_mixtures

RATE, SAMPLES = 8000, 4000
LEVEL, GAIN = (-5.0, 5.0), (-10.0, 10.0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Five songs of 4 s; every role of every song is a DC-free wave of its own level, so crops can be recognised."""
    root, tracks = tmp_path_factory.mktemp("corpus"), []
    for number in range(5):
        files = {}
        for index, role in enumerate(("mixture", *STEMS)):
            wave = np.random.default_rng([number, index]).normal(0, 0.01 * (number + 1), (4 * RATE, 2))
            if (number, role) == (4, "vocals"):
                wave[:] = 0
            files[role] = root / f"{number}-{role}.wav"
            soundfile.write(files[role], wave.astype(np.float32), RATE, "FLOAT")
        tracks.append(Track(str(number), "train", RATE, 4 * RATE, files, str(number)))
    return tracks, mixture_manifest(tracks, 2, 1, root), stem_manifest(tracks, 2, root), root


def moms(corpus, seed=0, level_db=LEVEL):
    return MixturesOfMixtures(Crops(corpus[0], corpus[1], SAMPLES, RATE), seed, level_db)


def stems_of(corpus, seed=0, silence_probability=0.05):
    return StemMixtures(Crops(corpus[0], corpus[2], SAMPLES, RATE), seed, GAIN, silence_probability)


def manifest_of(counts):
    rows = [(track, "mixture", 0.0, 2.0) for track, count in enumerate(counts) for _ in range(count)]
    return Manifest(pd.DataFrame(rows, columns=["track", "role", "start", "seconds"]), [])


def test_level_ratio_is_uniform_in_its_range(corpus):
    dataset = moms(corpus)
    items = [dataset[index] for index in range(200)]
    assert items[0].shape == (2, 2, SAMPLES) and items[0].dtype == torch.float32
    ratio = np.array([20 * np.log10(rms(item[0].numpy()) / rms(item[1].numpy())) for item in items])
    assert ratio.min() >= -5.001 and ratio.max() <= 5.001 and abs(ratio.mean()) < 0.7 and 2.4 < ratio.std() < 3.4


def test_an_epoch_uses_every_segment_once_and_pairs_different_tracks(corpus):
    dataset = moms(corpus)
    assert dataset.pairs == len(corpus[1].table) // 2 == 7
    rows = [dataset.order(epoch) for epoch in range(20)]
    for order in rows:
        assert len(set(order.ravel())) == 14
        assert (dataset.crops.track[order[0]] != dataset.crops.track[order[1]]).all()
    assert len({tuple(order.ravel()) for order in rows}) == 20, "every epoch has an order of its own"
    left_over = [set(range(15)) - set(order.ravel()) for order in rows]
    assert len({tuple(left) for left in left_over}) > 5, "an odd segment out changes from epoch to epoch"


@pytest.mark.parametrize("counts", [(10, 10), (9, 3, 3, 3), (1, 1), (5, 4, 1)])
def test_pairs_differ_whenever_that_is_possible(counts):
    dataset = MixturesOfMixtures(Crops([], manifest_of(counts), SAMPLES, RATE), 3, LEVEL)
    for epoch in range(20):
        one, two = dataset.crops.track[dataset.order(epoch)]
        assert (one != two).all()


def test_as_few_equal_pairs_as_possible_when_one_track_dominates():
    dataset = MixturesOfMixtures(Crops([], manifest_of((8, 2)), SAMPLES, RATE), 0, LEVEL)
    one, two = dataset.crops.track[dataset.order(0)]
    assert (one == two).sum() == 3
    alone = MixturesOfMixtures(Crops([], manifest_of((4,)), SAMPLES, RATE), 0, LEVEL)
    assert sorted(alone.order(0).ravel()) == [0, 1, 2, 3]


def test_too_few_segments_are_a_user_error():
    with pytest.raises(UserError, match="at least two"):
        MixturesOfMixtures(Crops([], manifest_of((1,)), SAMPLES, RATE), 0, LEVEL)


def test_crops_come_from_their_segments_and_vary(corpus):
    dataset, tracks = moms(corpus), corpus[0]
    _, row = dataset.order(0)[:, 2]
    start = dataset.crops.start[row]
    source = tracks[dataset.crops.track[row]].mixture(start, 2.0)
    crop = dataset[2][1].numpy()
    at = [i for i in range(2 * RATE - SAMPLES + 1) if source[0, i] == crop[0, 0]]
    assert any(np.array_equal(source[:, i : i + SAMPLES], crop) for i in at)
    last = np.flatnonzero(dataset.crops.start == 2)[0]
    for i in range(30):
        assert dataset.crops.draw(last, np.random.default_rng(i))[:, -1].all(), "no crop leaves the song"
    offsets = {float(dataset.crops.draw(row, np.random.default_rng(i))[0, 0]) for i in range(10)}
    assert len(offsets) == 10


def test_seed_changes_what_happens_within_an_example(corpus):
    manifest = Manifest(corpus[1].table.iloc[[0, 4]], [])
    one, two = (MixturesOfMixtures(Crops(corpus[0], manifest, SAMPLES, RATE), seed, LEVEL)[0] for seed in range(2))
    seen = [{float(wave[0, 0]) for wave in item} for item in (one, two)]
    assert not seen[0] & seen[1]


def test_silent_crops_are_redrawn(tmp_path):
    wave = np.zeros((4 * RATE, 2), np.float32)
    wave[: int(2.1 * RATE)] = 0.1
    soundfile.write(tmp_path / "a.wav", wave, RATE, "FLOAT")
    tracks = [Track(name, "train", RATE, 4 * RATE, {"mixture": tmp_path / "a.wav"}, name) for name in "ab"]
    manifest = mixture_manifest(tracks, 4, 4, tmp_path)
    dataset = MixturesOfMixtures(Crops(tracks, manifest, SAMPLES, RATE), 0, LEVEL)
    assert all(rms(wave.numpy()) > 1e-3 for index in range(40) for wave in dataset[index])


@pytest.mark.parametrize(("samples", "level"), [(SAMPLES, 2e-4), (10, 0.1)])
def test_a_crop_that_is_silent_but_for_its_end_is_kept(tmp_path, samples, level):
    wave = np.zeros((samples, 2), np.float32)
    wave[-samples // 2 :] = level
    soundfile.write(tmp_path / "a.wav", wave, RATE, "FLOAT")
    track = Track("a", "train", RATE, samples, {"mixture": tmp_path / "a.wav"}, "a")
    table = pd.DataFrame({"track": [0], "role": "mixture", "start": 0.0, "seconds": samples / RATE})
    generator = np.random.default_rng(0)
    assert np.array_equal(Crops([track], Manifest(table, []), samples, RATE).draw(0, generator), wave.T)
    assert generator.random() == np.random.default_rng(0).random(2)[1], "drawn once"


def test_gains_of_stems_are_uniform_in_their_range(corpus):
    dataset = stems_of(corpus, silence_probability=0.0)
    items = np.stack([dataset[index].numpy() for index in range(100)])
    assert items.shape == (100, 4, 2, SAMPLES) and items.dtype == np.float32
    gain = 10 * np.log10(np.square(items).mean((2, 3)))
    assert gain.min() >= -10.001 and gain.max() <= 10.001 and abs(gain.mean()) < 1 and 5 < gain.std() < 6.5


def test_every_stem_stands_in_its_own_place(corpus):
    dataset = stems_of(corpus, silence_probability=0.0)
    waves, draw = {}, dataset.crops.draw
    dataset.crops.draw = lambda row, generator: waves.setdefault(dataset.crops.role[row], draw(row, generator))
    for stem, wave in zip(STEMS, dataset[0].numpy(), strict=True):
        np.testing.assert_allclose(wave / rms(wave), waves[stem] / rms(waves[stem]), rtol=1e-4, atol=1e-6)


def test_stems_come_from_independent_tracks_and_silent_ones_are_never_drawn(corpus):
    dataset = stems_of(corpus, silence_probability=0.0)
    drawn = []
    draw = dataset.crops.draw
    dataset.crops.draw = lambda row, generator: (
        drawn.append((dataset.crops.role[row], dataset.crops.track[row])) or (draw(row, generator))
    )
    for index in range(60):
        dataset[index]
    songs = np.array([track for _, track in drawn]).reshape(-1, 4)
    assert [role for role, _ in drawn[:4]] == list(STEMS)
    assert set(songs[:, 0]) == {0, 1, 2, 3, 4} and set(songs[:, STEMS.index("vocals")]) == {0, 1, 2, 3}
    assert (songs[:, 0] == songs[:, 1]).mean() < 0.5


@pytest.mark.parametrize("probability", [0.05, 0.9])
def test_stems_are_silenced_but_never_all(corpus, probability):
    dataset = stems_of(corpus, silence_probability=probability)
    silent = np.array([(dataset[index].abs().amax((1, 2)) == 0).tolist() for index in range(120)])
    assert not silent.all(1).any()
    expected = (probability - probability**4) / (1 - probability**4)
    assert abs(silent.mean() - expected) < 0.06


def test_a_stem_that_never_sounds_is_a_user_error(corpus):
    manifest = Manifest(corpus[2].table[corpus[2].table["role"] != "vocals"], [])
    with pytest.raises(UserError, match="vocals"):
        StemMixtures(Crops(corpus[0], manifest, SAMPLES, RATE), 0, GAIN, 0.05)


def test_a_song_shorter_than_a_crop_is_padded(corpus):
    manifest = Manifest(pd.DataFrame({"track": [0, 1], "role": "mixture", "start": 0.0, "seconds": 4.0}), [])
    item = MixturesOfMixtures(Crops(corpus[0], manifest, 5 * RATE, RATE), 0, LEVEL)[0]
    assert item.shape == (2, 2, 5 * RATE) and not item[:, :, 4 * RATE :].any() and item[:, :, : 4 * RATE].any()


@pytest.mark.parametrize("make", [moms, stems_of])
def test_batches_do_not_depend_on_workers_or_on_where_training_resumed(corpus, make):
    alone = list(loader(make(corpus), 3, range(6), 0))
    assert len(alone) == 6 and len(alone[0]) == 3
    for workers, start in ((2, 0), (2, 4), (0, 4)):
        batches = list(loader(make(corpus), 3, range(start, 6), workers))
        assert len(batches) == 6 - start
        assert all(torch.equal(a, b) for a, b in zip(alone[start:], batches, strict=True))
    assert not torch.equal(alone[0], next(loader(make(corpus, seed=1), 3, range(1), 0)))


def test_ranks_share_a_step_without_overlap(corpus):
    whole = list(loader(moms(corpus), 4, range(1, 3), 0))
    shares = [list(loader(moms(corpus), 2, range(1, 3), 0, rank, 2)) for rank in range(2)]
    for step, batch in enumerate(whole):
        assert torch.equal(batch, torch.cat([share[step] for share in shares]))


def test_global_random_state_is_neither_used_nor_changed(corpus):
    seen = []
    for seed in (1, 2):
        torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
        before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        seen.append(list(loader(stems_of(corpus), 2, range(2), 1)))
        assert torch.equal(before[0], torch.get_rng_state())
        assert before[1:] == (np.random.get_state()[1].tolist(), random.getstate())
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


def test_too_little_shared_memory_is_one_line_and_more_lets_workers_go_ahead(tmp_path, monkeypatch):
    monkeypatch.setattr(mixing, "SHARED_MEMORY", tmp_path)
    disk = SimpleNamespace(free=64 * 10**6)
    monkeypatch.setattr(mixing.shutil, "disk_usage", lambda folder: disk)
    with pytest.raises(UserError, match=r"64 MB of shared memory are free, 8 processes .* need 128: .*--shm-size"):
        mixing.examples_ahead(4 * 10**6, 8)
    disk.free = 10**9
    assert mixing.examples_ahead(4 * 10**6, 8) == 15


def test_processes_share_validation_mixtures(corpus):
    make = lambda: MixturesOfMixtures(Crops(*corpus[:2], SAMPLES, RATE), 5, LEVEL)  # noqa: E731
    whole, shares = validation_mixtures(5, make()), [validation_mixtures(5, make(), rank, 2) for rank in (0, 1)]
    assert [len(share) for share in shares] == [3, 2]
    assert all(map(torch.equal, shares[0] + shares[1], whole[::2] + whole[1::2]))
    assert [len(batch) for batch in mixing.in_batches(whole, 2)] == [2, 2, 1]


def test_validation_mixtures_are_fixed_and_may_exceed_an_epoch(corpus):
    one, two = (
        validation_mixtures(10, MixturesOfMixtures(Crops(*corpus[:2], SAMPLES, RATE), 5, LEVEL)) for _ in range(2)
    )
    assert len(one) == 10 and one[0].shape == (2, 2, SAMPLES) and all(map(torch.equal, one, two))


def test_mixtures_of_one_song_come_from_its_two_halves(corpus):
    tracks, manifest = corpus[:2]
    pairs = MixturesOfMixtures(Crops(tracks, manifest, SAMPLES, RATE), 5, LEVEL, same_song=True)
    table = pairs.crops
    assert pairs.pairs == len(set(manifest.table["track"]))
    for epoch in range(3):
        first, second = pairs.order(epoch)
        np.testing.assert_array_equal(table.track[first], table.track[second])
        assert sorted(table.track[first]) == sorted(set(manifest.table["track"]))
        apart = np.abs(table.start[first] - table.start[second])
        np.testing.assert_allclose(apart, table.seconds[first])
        assert set(table.start[first] < table.start[second]) == {True, False} or len(first) < 3
    assert pairs[0].shape == (2, 2, SAMPLES)


def test_song_segments_cut_songs_into_consecutive_pieces(corpus):
    pieces = list(song_segments(corpus[0][:2], 1.5, RATE))
    assert [index for index, _ in pieces] == [0, 0, 1, 1]
    assert torch.equal(torch.cat([p for _, p in pieces[:2]], -1), torch.from_numpy(corpus[0][0].stems(0, 3.0)))
    ((_, padded),) = song_segments(corpus[0][:1], 5.0, 4000)
    assert padded.shape == (4, 2, 20000) and not padded[..., 16001:].any()
