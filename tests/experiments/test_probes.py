"""Probes: what separates without learning, and the measures of correlation and of an undefined source."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from lib import STEMS
from lib.data.corpora import dealt
from lib.data.tracks import Track
from lib.experiments import outputs, probes
from lib.scoring import usdr
from lib.store.tables import song_rows


def test_clicks_are_percussive_and_tones_are_harmonic():
    rate, stems = 16000, np.zeros((4, 2, 32000), np.float32)
    stems[STEMS.index("bass")] = 0.3 * np.sin(2 * np.pi * 440 * np.arange(32000) / rate)
    clicks = np.random.default_rng(0).normal(0, 0.5, 64)
    for start in range(1000, 32000, 4000):
        stems[STEMS.index("drums"), :, start : start + 64] = clicks
    estimates = probes.harmonic_percussive(stems)
    scores = usdr(stems, estimates)
    mixture = usdr(stems, np.broadcast_to(stems.sum(0), stems.shape))
    assert scores[STEMS.index("drums")] > 8 > mixture[STEMS.index("drums")]
    assert scores[STEMS.index("bass")] > 8
    drums, bass = estimates[STEMS.index("drums")], estimates[STEMS.index("bass")]
    np.testing.assert_allclose(drums + bass, stems.sum(0), atol=1e-5)


def test_effective_outputs_count_equal_shares():
    energy = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], float)
    found = outputs.effective_outputs(energy)
    np.testing.assert_allclose(found[:3], [1, 2, 4])
    assert np.isnan(found[3])


def single_outputs(winners: list[int], outputs: int = 4) -> pd.DataFrame:
    rows = []
    for song, winner in enumerate(winners):
        for n in range(outputs):
            facts = {"experiment": "test", "method": f"output {n}", "seed": 0}
            rows += song_rows(f"song {song}", [("bass", "SNR", 3.0 if n == winner else -1.0)], **facts)
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("winners", "outputs"), [([2] * 8, 1), ([0, 1] * 4, 2), ([0, 1, 2, 3] * 2, 4)])
def test_constancy_is_one_for_one_output_and_n_for_all_alike(winners, outputs):
    found = probes.constancy(single_outputs(winners)).iloc[0]
    assert found["outputs"] == pytest.approx(outputs)
    assert found["most_frequent"] == pytest.approx(1 / outputs)
    assert found["n_songs"] == 8


def test_re_dealt_songs_take_each_stem_of_each_song_once_and_never_two_of_one(tmp_path):
    songs = [
        Track(f"s{i}", "test", 8000, 8000 - i, {stem: tmp_path / f"{i}-{stem}" for stem in STEMS}, f"d{i}")
        for i in range(9)
    ]
    found = dealt(songs)
    for stem in STEMS:
        assert sorted(song.files[stem] for song in found) == sorted(song.files[stem] for song in songs)
    for song in found:
        assert len({path.name.split("-")[0] for path in song.files.values()}) == 4
        assert "mixture" not in song.files and song.frames <= 8000
    assert len({song.digest for song in found}) == 9


def gains(trained: str, method: str, value: float, songs: int = 8, seeds: int = 2) -> pd.DataFrame:
    rows = []
    for seed in range(seeds):
        for song in range(songs):
            scores = [(stem, "gain", value + 0.3 * song) for stem in STEMS]
            facts = {"experiment": "test", "method": method, "seed": seed, "labeled_songs": 0}
            rows += song_rows(f"song {song}", scores, **facts)
    return pd.DataFrame(rows).assign(trained=trained, tested=probes.COMPOSED)


def test_shares_are_of_the_distance_to_the_supervised_model():
    table = pd.concat(
        [
            gains(probes.COMPOSED, outputs.CHOSEN, 1.0),
            gains(probes.COMPOSED, outputs.CHOSEN_GROUP, 2.0),
            gains(probes.COMPOSED, outputs.BEST_GROUP, 3.0),
            gains(probes.REDEALT, outputs.CHOSEN, 1.5),
            gains(probes.REDEALT, outputs.CHOSEN_GROUP, 2.5),
        ]
    )
    supervised = gains("", probes.SUPERVISED, 5.0 - 6.0, seeds=3).assign(metric=outputs.SNR)
    mixture = supervised[supervised["seed"] == 0].assign(method="mixture", value=-6.0)
    study = SimpleNamespace(write=lambda name, frame: frame)
    found = probes.shares(study, pd.concat([supervised, mixture]), table).set_index("what")
    np.testing.assert_allclose(found["decibels"], [1.0, 2.0, 0.5, 1.5, 4.0])
    np.testing.assert_allclose(found["share"], [0.25, 0.5, 0.125, 0.375, 1.0])
    np.testing.assert_allclose(found["low"], found["share"])
    assert set(found["n_songs"]) == {8}


def test_shares_know_that_songs_of_one_fold_are_not_independent():
    supervised = gains("", probes.SUPERVISED, 5.0 - 6.0).assign(metric=outputs.SNR)
    mixture = supervised[supervised["seed"] == 0].assign(method="mixture", value=-6.0)
    table = pd.concat([gains(probes.COMPOSED, outputs.CHOSEN, 1.0), gains(probes.COMPOSED, outputs.CHOSEN_GROUP, 2.0)])
    number = table["song"].str[5:].astype(int)
    table["value"] += (number % 2) * (table["method"] == outputs.CHOSEN_GROUP)
    study, widths = SimpleNamespace(write=lambda name, frame: frame), []
    for fold in (number, number % 2):
        found = probes.shares(study, pd.concat([supervised, mixture]), table.assign(fold=fold)).set_index("what")
        widths.append(found.loc["definition", "high_db"] - found.loc["definition", "low_db"])
    assert widths[1] > 2 * widths[0]


def test_effects_of_another_training_are_paired_with_the_base():
    table = pd.concat([gains(probes.COMPOSED, outputs.CHOSEN, 1.0), gains(probes.ONE_SONG, outputs.CHOSEN, 0.4)])
    study = SimpleNamespace(write=lambda name, frame: frame)
    found = probes.correlation_effects(study, table).iloc[0]
    assert (found["trained"], found["against"]) == (probes.ONE_SONG, probes.COMPOSED)
    np.testing.assert_allclose(found[["difference", "low", "high"]].astype(float), -0.6)
    assert probes.correlation_effects(study, gains(probes.COMPOSED, outputs.CHOSEN, 1.0)).empty


def test_songs_are_ranked_within_their_fold():
    fold = np.repeat([0, 1], 12)  # one fold's models are better, and its songs happen to correlate more
    songs = pd.DataFrame({"fold": fold, "gain": np.tile(np.arange(12.0), 2) + 20 * fold, "waveform": np.nan})
    songs["envelope"] = songs["spectrogram"] = 50 * fold - songs["gain"]
    found = probes.rank_correlations(songs).set_index("kind")
    assert found.loc["envelope", "rho"] < -0.95
    assert probes.rank_correlations(songs.drop(columns="fold")).set_index("kind").loc["envelope", "rho"] > 0


def test_the_kinds_of_correlation_are_tested_together():
    rng = np.random.default_rng(3)
    songs = pd.DataFrame({"gain": np.arange(24.0), "envelope": rng.standard_normal(24), "waveform": np.nan})
    songs["spectrogram"] = -songs["gain"] + 12 * rng.standard_normal(24)
    found = probes.rank_correlations(songs).set_index("kind")
    alone = spearmanr(songs["spectrogram"], songs["gain"]).pvalue
    assert found.loc["spectrogram", "p_holm"] == pytest.approx(3 * alone) and found.loc["spectrogram", "rho"] < 0
    assert found.loc["envelope", "p_holm"] > 0.05 and found.loc["waveform", "p_holm"] == 1
