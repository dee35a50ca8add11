"""Intervals: paired, crossed over songs and seeds, nested in pre-trainings; and what is read off them."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from lib import STEMS, UserError
from lib.experiments import intervals
from lib.experiments.intervals import (
    few_p,
    holm,
    mean_interval,
    paired_interval,
    rank_correlation,
    share_interval,
    songs_worth,
    two_sided,
)
from lib.store import tables


def make_scores(difference, songs=20, seeds=(0, 1, 2), noise=0.0):
    """A scratch and a pre-trained arm, ``difference`` [stem] dB apart, songs and seeds of very different difficulty."""
    rng = np.random.default_rng(7)
    rows = []
    for seed in seeds:
        for song in range(songs):
            for i, stem in enumerate(STEMS):
                base = rng.normal(0, 5)
                facts = {"experiment": "e", "labeled_songs": 8, "seed": seed, "song": f"s{song}", "stem": stem}
                gain = difference[i] + noise * rng.standard_normal()
                rows.append({**facts, "method": "scratch", "metric": "uSDR", "value": base})
                rows.append({**facts, "method": "mixit", "metric": "uSDR", "value": base + gain})
    return tables.table(rows)


def test_paired_interval_is_paired_and_signed():
    got = paired_interval(make_scores([1, 2, 3, 4]), "mixit", "scratch", "uSDR").set_index("stem")
    np.testing.assert_allclose(got.loc[[*STEMS, "mean"], "difference"], [1, 2, 3, 4, 2.5])
    np.testing.assert_allclose(got["low"], got["difference"])  # paired: differences between songs cancel
    np.testing.assert_allclose(got["high"], got["difference"])
    assert set(got["n_songs"]) == {20} and set(got["n_seeds"]) == {3}
    back = paired_interval(make_scores([1, 2, 3, 4]), "scratch", "mixit", "uSDR")
    assert back["difference"].iloc[-1] == pytest.approx(-2.5)


def test_paired_interval_is_reproducible_and_of_the_right_width():
    scores = make_scores([0, 0, 0, 0], songs=50, seeds=(0,), noise=1.0)
    first = paired_interval(scores, "mixit", "scratch", "uSDR", seed=3)
    again = paired_interval(scores.sample(frac=1, random_state=0), "mixit", "scratch", "uSDR", seed=3)
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(paired_interval(scores, "mixit", "scratch", "uSDR", seed=4))
    width = (first["high"] - first["low"]).to_numpy()
    np.testing.assert_allclose(width[:4], 2 * 1.96 / np.sqrt(50), rtol=0.25)
    assert width[4] < width[:4].min()


def test_songs_shared_by_seeds_do_not_count_once_per_seed():
    rng = np.random.default_rng(8)
    scores = make_scores([0, 0, 0, 0], songs=12, seeds=range(8))
    effect = dict(zip(sorted(set(scores["song"])), rng.standard_normal(12), strict=True))
    mixit = scores["method"] == "mixit"
    scores.loc[mixit, "value"] += scores.loc[mixit, "song"].map(effect)
    got = paired_interval(scores, "mixit", "scratch", "uSDR")
    expected = 2 * 1.96 * np.std(list(effect.values())) / np.sqrt(12)
    np.testing.assert_allclose(got["high"] - got["low"], expected, rtol=0.15)


def test_paired_interval_leaves_out_what_one_arm_lacks():
    scores = make_scores([1, 1, 1, 1], songs=3, seeds=(0,))
    scores.loc[(scores["song"] == "s0") & (scores["stem"] == "bass"), "value"] = np.nan
    scores.loc[(scores["song"] == "s1") & (scores["stem"] == "drums") & (scores["method"] == "mixit"), "value"] = np.inf
    scores = scores[~((scores["stem"] == "other") & (scores["method"] == "scratch"))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = paired_interval(scores, "mixit", "scratch", "uSDR").set_index("stem")
    assert list(got.index) == ["bass", "drums", "vocals", "mean"]
    assert list(got["n_songs"]) == [2, 2, 3, 3]
    np.testing.assert_allclose(got["difference"], 1)
    with pytest.raises(UserError, match="nobody"):
        paired_interval(scores, "mixit", "nobody", "uSDR")


def test_seeds_of_one_pretraining_do_not_count_as_pretrainings_of_their_own():
    scores = make_scores([0, 0, 0, 0], songs=40, seeds=range(8))
    luck = np.array([-1.0, 1.0])  # of two pre-trainings, four seeds each
    mixit = scores["method"] == "mixit"
    scores.loc[mixit, "value"] += luck[scores.loc[mixit, "seed"].astype(int) % 2]
    apart, nested = (
        paired_interval(scores, "mixit", "scratch", "uSDR", origin).iloc[-1] for origin in (int, lambda seed: seed % 2)
    )
    assert apart["high"] - apart["low"] == pytest.approx(2 * 1.96 / np.sqrt(8), rel=0.15)
    assert (nested["low"], nested["high"]) == pytest.approx((-1, 1), abs=0.01)  # both draws may be the same one
    assert (apart["n_origins"], nested["n_origins"]) == (8, 2)


def test_effect_is_in_standard_deviations_over_songs():
    scores = make_scores([1, 1, 1, 1], songs=200, seeds=(0,), noise=0.5)
    found = paired_interval(scores, "mixit", "scratch", "uSDR").set_index("stem")["effect"]
    np.testing.assert_allclose(found[list(STEMS)], 1 / 0.5, rtol=0.2)
    assert found["mean"] > found[list(STEMS)].max()  # four stems' noise is averaged


def test_p_is_small_for_an_effect_and_spread_out_for_none():
    p = paired_interval(make_scores([1, 0, 0, 0], songs=30, noise=1.0), "mixit", "scratch", "uSDR").set_index("stem")
    assert p.loc["bass", "p"] < 0.001 < p.loc[list(STEMS[1:]), "p"].min()
    assert (p.loc[list(STEMS), "p_holm"] >= p.loc[list(STEMS), "p"]).all()
    assert p.loc["mean", "p_holm"] == p.loc["mean", "p"]
    assert two_sided(np.array([[-1.0], [1.0]] * 50)) == pytest.approx(1)


def test_few_seeds_need_more_than_an_interval_without_zero(monkeypatch):
    """Studies without an effect, in which pre-trainings, songs and what they have in common scatter alike."""
    monkeypatch.setattr(intervals, "RESAMPLES", 1000)  # of 10,000
    rng, found = np.random.default_rng(9), {"interval": 0, "p": 0}
    facts = {"experiment": "e", "labeled_songs": 4, "stem": "bass", "metric": "uSDR"}
    for study in range(100):
        gains = 0.2 * (rng.standard_normal((3, 1)) + rng.standard_normal((1, 24)) + rng.standard_normal((3, 24)))
        rows = [
            {**facts, "seed": seed, "song": f"{song:02}", "method": method, "value": value}
            for (seed, song), gain in np.ndenumerate(gains)
            for method, value in (("mixit", gain), ("scratch", 0.0))
        ]
        row = paired_interval(tables.table(rows), "mixit", "scratch", "uSDR", seed=study).iloc[-1]
        apart = not row["low"] <= 0 <= row["high"]
        found["interval"] += apart
        found["p"] += apart and row["p"] < 0.05
    assert found["p"] <= 8 < found["interval"]


def test_the_p_of_few_is_that_of_a_t_test_where_only_one_side_scatters():
    rng = np.random.default_rng(10)
    gains = 0.3 + rng.standard_normal(5)
    alone = ttest_1samp(gains, 0).pvalue
    np.testing.assert_allclose(few_p(np.tile(gains[:, None, None], (1, 24, 1)), range(5)), alone)  # songs alike
    np.testing.assert_allclose(few_p(gains[None, :, None], [0]), alone)  # one seed: over songs
    np.testing.assert_allclose(few_p(np.repeat(gains, 2)[:, None, None], np.repeat(range(5), 2)), alone)  # nested
    assert few_p(np.zeros((3, 4, 1)), range(3)).tolist() == [1, 1]


def test_the_p_of_few_leaves_out_songs_without_the_stem():
    gains = np.random.default_rng(11).standard_normal((3, 8, 2)) + 1
    gains[:, 5, 1] = np.nan
    without = np.delete(gains[..., 1:], 5, axis=1)
    assert few_p(gains, range(3))[1] == few_p(without, range(3))[0]


def test_holm_is_the_textbook_example():
    # p(i) times the number of hypotheses not yet rejected, never falling: 4 x 0.01, 3 x 0.015, 2 x 0.03, 1 x 0.04
    np.testing.assert_allclose(holm(np.array([0.04, 0.01, 0.03, 0.015])), [0.06, 0.04, 0.06, 0.045])
    np.testing.assert_allclose(holm(np.array([0.9, 0.8])), [1, 1])


def test_mean_and_its_interval():
    scores = make_scores([0, 0, 0, 0], songs=400, seeds=(0,))
    found = mean_interval(scores, "scratch", "uSDR").set_index("stem")
    values = scores[scores["method"] == "scratch"].groupby("stem")["value"].mean()
    np.testing.assert_allclose(found["mean"].iloc[:4], values[list(found.index[:4])])
    np.testing.assert_allclose((found["high"] - found["low"]).iloc[:4], 2 * 1.96 * 5 / np.sqrt(400), rtol=0.15)


def test_share_of_a_distance():
    half = make_scores([2, 2, 2, 2], songs=10)
    whole = half[half["method"] == "mixit"].assign(method="whole")
    whole["value"] += 2.0
    both = pd.concat([half, whole])
    assert share_interval(both, ("mixit", "scratch"), ("whole", "scratch"), "uSDR") == pytest.approx((0.5, 0.5, 0.5))


def test_songs_worth_is_read_off_the_curve_of_the_reference():
    """From scratch a doubling of the songs is worth 1 dB; pre-training half a doubling, then more than there is."""
    frames = []
    for doublings, songs in enumerate((2, 4, 8)):
        arms = make_scores([0.5, 0.5, 0.5, 0.5], songs=10).assign(labeled_songs=songs)
        frames.append(arms.assign(value=arms["value"] + doublings))
    found = songs_worth(pd.concat(frames), "mixit", "scratch", "uSDR")
    assert found["labeled_songs"].tolist() == [2, 4, 8]
    np.testing.assert_allclose(found["worth"], [2 * 2**0.5, 4 * 2**0.5, 8], rtol=1e-6)
    np.testing.assert_allclose(found["low"], found["worth"], rtol=1e-6)
    assert found["at_end"].tolist() == [False, False, True]


def test_rank_correlation_finds_order_not_size():
    x = np.arange(30.0)
    assert rank_correlation(x, np.exp(x)) == pytest.approx((1, 1, 1, 0))
    rho, low, high, p = rank_correlation(x, np.random.default_rng(1).standard_normal(30))
    assert low < 0 < high and low < rho < high and p > 0.05
