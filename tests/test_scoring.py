"""Scores against museval, tables and confidence intervals."""

import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lib import STEMS, UserError, scoring
from lib.store import tables

RATE = 1200


def _songs(rng, stems=2, samples=2 * RATE + RATE // 2):
    reference = rng.standard_normal((stems, samples, 2))
    return reference, reference + 0.3 * rng.standard_normal(reference.shape)


def _museval_sdr(reference, estimate, rate):
    museval = pytest.importorskip("museval")
    return museval.evaluate(reference, estimate, win=rate, hop=rate)[0]


@pytest.mark.parametrize("samples", [2 * RATE + 700, 2 * RATE, RATE, RATE - 300])
def test_csdr_is_musevals_on_random_stereo(samples):
    reference, estimate = _songs(np.random.default_rng(1), samples=samples)
    got = scoring.csdr(reference, estimate, RATE)
    expected = _museval_sdr(reference, estimate, RATE)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)


def test_csdr_is_musevals_with_silent_frames():
    reference, estimate = _songs(np.random.default_rng(2), samples=5 * RATE)
    reference[0, RATE : 2 * RATE] = 0  # a silent reference
    estimate[1, 2 * RATE : 3 * RATE] = 0  # a silent estimate
    reference[1, 3 * RATE : 4 * RATE, 1] = -reference[1, 3 * RATE : 4 * RATE, 0]  # opposite channels count as silent
    estimate[0, 4 * RATE : 5 * RATE - 1] = 0  # one sample short of silent
    got = scoring.csdr(reference, estimate, RATE)
    assert np.isnan(got[:, 1:4]).all()
    assert np.isfinite(got[:, [0, 4]]).all()
    np.testing.assert_allclose(got, _museval_sdr(reference, estimate, RATE), rtol=0, atol=1e-9)


def test_csdr_is_musevals_on_real_stereo():
    stempeg = pytest.importorskip("stempeg")
    streams, rate = stempeg.read_stems(stempeg.example_stem_path(), start=2, duration=2.2, dtype=np.float32)
    reference, estimate = streams[[1, 2]], streams[[1, 2]] + 0.2 * streams[[4, 3]]  # drums, bass, with a leak
    got = scoring.csdr(reference, estimate, int(rate))
    assert got.shape == (2, 2)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, _museval_sdr(reference, estimate, int(rate)), rtol=0, atol=1e-9)


def test_csdr_of_a_stem_silent_throughout_and_of_nothing():
    reference, estimate = _songs(np.random.default_rng(3))
    reference[1] = 0
    assert np.isnan(scoring.csdr(reference, estimate, RATE)).all()  # museval raises here
    assert scoring.csdr(reference[:, :0], estimate[:, :0], RATE).shape == (2, 0)


def test_usdr_definition_and_edges():
    rng = np.random.default_rng(4)
    stems = rng.standard_normal((3, 2, 500)).astype(np.float32)
    estimates = stems * np.float32(0.5)
    estimates[2] = stems[2]
    stems[1] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = scoring.usdr(stems, estimates)
    assert got[0] == pytest.approx(20 * np.log10(2), abs=1e-12)
    assert np.isnan(got[1])
    assert got[2] == np.inf
    with pytest.raises(ValueError, match="shape"):
        scoring.usdr(stems, estimates[:, :1])


def test_score_song_and_baselines_bracket_each_other():
    rng = np.random.default_rng(5)
    time = np.arange(2 * RATE) / RATE
    tones = np.stack([np.sin(2 * np.pi * f * time) for f in (40, 90, 200, 430)])
    stems = np.stack([tones, 0.8 * tones], axis=1).astype(np.float32)
    stems += 0.01 * rng.standard_normal(stems.shape).astype(np.float32)
    mixture = stems.sum(0)
    ceiling = scoring.ideal_ratio_mask(mixture, stems, n_fft=256, hop=64)
    np.testing.assert_allclose(ceiling.sum(0), mixture, atol=1e-5)
    floor, best = (
        scoring.score_song(stems, estimates, scoring.sdr_frames(stems, estimates, RATE))
        for estimates in (scoring.mixture_as_estimate(mixture), ceiling)
    )
    assert [(s, m) for s, m, _ in best] == [(s, m) for m in scoring.METRICS for s in STEMS]
    for (_, _, low), (_, _, high) in zip(floor, best, strict=True):
        assert low < 0 and high > 15
    silent = scoring.ideal_ratio_mask(mixture * 0, stems * 0, 256, 64)
    assert np.array_equal(silent, np.zeros_like(stems))
    assert scoring.ideal_ratio_mask(mixture[:, :50], stems[..., :50], 256, 64).shape == (4, 2, 50)


def test_bss_eval_is_musevals_and_its_sdr_is_ours():
    reference, estimate = (waves.swapaxes(1, 2) for waves in _songs(np.random.default_rng(7)))
    got = scoring.bss_eval_frames(reference, estimate, RATE)
    assert list(got) == list(scoring.BSS_EVAL)
    np.testing.assert_allclose(got["SDR"], scoring.sdr_frames(reference, estimate, RATE)["SDR"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(got["SAR"], 10.5, atol=3)  # noise at -10.5 dB, of which filters explain some
    got = scoring.bss_eval_frames(reference, reference + 0.3 * reference[::-1], RATE)
    np.testing.assert_allclose(got["SIR"], 10.5, atol=2)  # a leak at -10.5 dB, and no artefact
    assert (got["SAR"] > 30).all()


@pytest.mark.parametrize("side", [0, 1])
def test_bss_eval_of_a_stem_silent_throughout_is_undefined(side):
    sides = [waves.swapaxes(1, 2) for waves in _songs(np.random.default_rng(8))]
    sides[side][1] = 0
    got = scoring.bss_eval_frames(*sides, RATE)  # museval raises here
    assert list(got) == list(scoring.BSS_EVAL)
    assert all(values.shape == (2, 2) and np.isnan(values).all() for values in got.values())


def _museval_folder(folder):
    """museval JSON of four songs with all metrics: plain, with infinite values, two with undefined frames."""
    rng, songs = np.random.default_rng(6), {}
    for song in ("A.B - one", "Two", "three: silent drums", "four"):
        songs[song] = {metric: rng.normal(5, 3, (4, 7)) for metric in scoring.BSS_EVAL}
    for values in songs["Two"].values():
        values[1, 3:5] = np.inf
    songs["Two"]["SDR"][0] = np.inf  # the mixture is that stem alone, and the estimate
    songs["three: silent drums"] = {metric: np.full((4, 7), np.nan) for metric in scoring.BSS_EVAL}
    for values in songs["four"].values():
        values[:, 2] = np.nan
    return {song: (scoring.museval_json(folder, song, frames), frames) for song, frames in songs.items()}


def test_museval_reads_our_json(tmp_path):
    museval = pytest.importorskip("museval")
    from jsonschema import validate

    schema = json.loads((Path(museval.__file__).parent / "musdb.schema.json").read_text())
    written = _museval_folder(tmp_path)
    for path, _ in written.values():
        validate(json.loads(path.read_text()), schema)
    silent = json.loads(written["three: silent drums"][0].read_text())
    assert "silent" in silent["reason"] and "reason" not in json.loads(written["four"][0].read_text())
    store = museval.EvalStore()
    store.add_eval_dir(tmp_path)
    theirs = store.agg_frames_scores()
    for song, (_, frames) in written.items():
        for metric, values in frames.items():
            expected = scoring.median_of_frames(values)
            np.testing.assert_allclose([theirs[song, stem, metric] for stem in STEMS], expected, rtol=0, atol=1e-5)
    assert "vocals" in str(store)


def test_sdr_alone_says_so(tmp_path):
    path = scoring.museval_json(tmp_path, "one", {"SDR": np.ones((4, 2))})
    found = json.loads(path.read_text())
    assert found["museval_version"].endswith("(SDR only, by lib.scoring)")
    metrics = found["targets"][0]["frames"][1]["metrics"]
    assert metrics["SDR"] == 1 and all(np.isnan(metrics[name]) for name in scoring.BSS_EVAL[1:])


def test_over_songs_is_what_eval_store_makes_of_the_same_files(tmp_path):
    museval = pytest.importorskip("museval")
    stems, rows = np.ones((4, 2, 3)), []
    for song, (_, frames) in _museval_folder(tmp_path).items():
        rows += tables.song_rows(song, scoring.score_song(stems, 0.5 * stems, frames), method="m")
    scores = tables.table(rows)
    found = scoring.over_songs(scores[np.isfinite(scores["value"])], ["method", "metric", "stem"])
    found = found.set_index(["metric", "stem"])
    store = museval.EvalStore()
    store.add_eval_dir(tmp_path)
    theirs = store.agg_frames_tracks_scores()
    for metric in scoring.BSS_EVAL:
        ours = found.loc["cSDR" if metric == "SDR" else metric]
        np.testing.assert_allclose(ours["value"][list(STEMS)], [theirs[stem, metric] for stem in STEMS], atol=1e-5)
    assert found.loc[("cSDR", "bass"), "songs"] == 2 and found.loc[("cSDR", "vocals"), "songs"] == 3
    assert found.loc[("uSDR", "bass"), "songs"] == 4
    values = scores[(scores["metric"] == "cSDR") & (scores["stem"] == "vocals")]["value"]
    assert found.loc[("cSDR", "vocals"), "value"] == np.nanmedian(values) != pytest.approx(np.nanmean(values))


def test_usdr_per_channel_averages_the_channels_that_sound():
    stems = np.random.default_rng(0).standard_normal((4, 2, 500))
    stems[1, 1] = 0.0
    stems[2] = 0.0
    estimates = stems.copy()
    estimates[:, 0] *= 0.9  # an error of -20 dB on the left
    estimates[:, 1] *= 0.0  # 0 dB on the right
    found = scoring.usdr_per_channel(stems, estimates)
    np.testing.assert_allclose(found, [10, 20, np.nan, 10])
    assert scoring.usdr(stems, estimates)[0] == pytest.approx(10 * np.log10(2 / 1.01), abs=0.5)


def test_usdr_over_songs_is_the_mean():
    rows = [row for n in (0, 1, 5) for row in tables.song_rows(str(n), [("bass", "uSDR", float(n))], method="m")]
    assert scoring.over_songs(tables.table(rows), ["metric"])[["value", "songs"]].values.tolist() == [[2.0, 3]]


def test_summary_is_the_mean_of_stem_means():
    rows = [
        *tables.song_rows("a", [("bass", "uSDR", 1.0), ("drums", "uSDR", 3.0)], experiment="e", method="m", seed=0),
        *tables.song_rows("b", [("bass", "uSDR", 2.0), ("drums", "uSDR", np.nan)], experiment="e", method="m", seed=0),
        *tables.song_rows("a", [("bass", "uSDR", -1.0), ("drums", "uSDR", np.inf)], experiment="e", method="mixture"),
    ]
    got = scoring.summarise(tables.table(rows)).set_index(["method", "stem"])
    assert got.loc[("m", "bass"), "value"] == 1.5
    assert got.loc[("m", "drums"), "value"] == 3.0
    assert got.loc[("m", "mean"), "value"] == 2.25
    assert got.loc[("mixture", "mean"), "value"] == -1.0  # a baseline without seed is kept, infinity left out
    assert list(got.loc["m", "songs"]) == [2, 1, 2]


def test_tables_come_back_and_equal_numbers_give_equal_bytes(tmp_path):
    rows = [
        *tables.song_rows("NA", [("bass", "uSDR", 1 / 3)], experiment="e", method="m, 1", seed=0, labeled_songs=8),
        *tables.song_rows("Ä", [("bass", "uSDR", np.nan)], experiment="e", method="mixture"),
        *tables.song_rows("z", [("bass", "uSDR", -1e-9)], experiment="e", method="mixture"),
    ]
    frame = tables.table(rows)
    assert tuple(frame.columns) == tables.COLUMNS
    tables.write_table(tmp_path / "t" / "scores.csv", frame)
    text = (tmp_path / "t" / "scores.csv").read_text()
    assert text.splitlines()[1] == 'e,"m, 1",0,8,,NA,bass,uSDR,0.333333'
    assert text.splitlines()[3] == "e,mixture,,,,z,bass,uSDR,0.000000"
    back = tables.read_table(tmp_path / "t" / "scores.csv")
    assert back["song"].tolist() == ["NA", "Ä", "z"]
    assert back["seed"].isna().tolist() == [False, True, True]
    tables.write_table(tmp_path / "again.csv", back)
    assert (tmp_path / "again.csv").read_text() == text
    with pytest.raises(UserError, match="no such table"):
        tables.read_table(tmp_path / "none.csv")


def test_names_that_are_numbers_stay_names(tmp_path):
    frame = pd.DataFrame(
        {"song": ["01", "2"], "level": ["4", "1e3"], "participant": ["007", None], "value": [1.0, 2.0]}
    )
    tables.write_table(tmp_path / "t.csv", frame)
    back = tables.read_table(tmp_path / "t.csv")
    assert back["song"].tolist() == ["01", "2"] and back["level"].tolist() == ["4", "1e3"]
    assert back["participant"][0] == "007" and back["participant"].isna().tolist() == [False, True]
