"""The crossed t interval: paired, over songs and seeds, nested in pre-trainings and folds; and what is read off it."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t, ttest_1samp

from lib import STEMS, UserError
from lib.experiments.intervals import (
    crossed,
    direction,
    holm,
    holm_within,
    mean_interval,
    over_stems,
    paired_interval,
    rank_correlation,
    share_interval,
    songs_worth,
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


def test_paired_interval_does_not_depend_on_order_and_has_the_right_width():
    scores = make_scores([0, 0, 0, 0], songs=50, seeds=(0,), noise=1.0)
    first = paired_interval(scores, "mixit", "scratch", "uSDR")
    pd.testing.assert_frame_equal(
        first, paired_interval(scores.sample(frac=1, random_state=0), "mixit", "scratch", "uSDR")
    )
    width = (first["high"] - first["low"]).to_numpy()
    np.testing.assert_allclose(width[:4], 2 * t.ppf(0.975, 49) / np.sqrt(50), rtol=0.25)
    assert width[4] < width[:4].min()


def test_songs_shared_by_seeds_do_not_count_once_per_seed():
    rng = np.random.default_rng(8)
    scores = make_scores([0, 0, 0, 0], songs=12, seeds=range(8))
    effect = dict(zip(sorted(set(scores["song"])), rng.standard_normal(12), strict=True))
    mixit = scores["method"] == "mixit"
    scores.loc[mixit, "value"] += scores.loc[mixit, "song"].map(effect)
    got = paired_interval(scores, "mixit", "scratch", "uSDR")
    expected = 2 * t.ppf(0.975, 11) * np.std(list(effect.values()), ddof=1) / np.sqrt(12)
    np.testing.assert_allclose(got["high"] - got["low"], expected, rtol=0.02)


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
    assert apart["high"] - apart["low"] == pytest.approx(2 * t.ppf(0.975, 7) / np.sqrt(7))
    assert nested["high"] - nested["low"] == pytest.approx(2 * t.ppf(0.975, 1))  # of two: one degree of freedom
    assert (apart["n_origins"], nested["n_origins"]) == (8, 2)


def test_effect_is_in_standard_deviations_over_songs():
    scores = make_scores([1, 1, 1, 1], songs=200, seeds=(0,), noise=0.5)
    found = paired_interval(scores, "mixit", "scratch", "uSDR").set_index("stem")["effect"]
    np.testing.assert_allclose(found[list(STEMS)], 1 / 0.5, rtol=0.2)
    assert found["mean"] > found[list(STEMS)].max()  # four stems' noise is averaged


def test_p_is_small_for_an_effect_and_belongs_to_the_interval():
    rows = paired_interval(make_scores([1, 0, 0, 0], songs=30, noise=1.0), "mixit", "scratch", "uSDR").set_index("stem")
    assert rows.loc["bass", "p"] < 0.001 < rows.loc[list(STEMS[1:]), "p"].min()
    assert ((rows["p"] < 0.05) == ~((rows["low"] <= 0) & (rows["high"] >= 0))).all()


@pytest.mark.parametrize("pretrainings", [3, 8])
@pytest.mark.parametrize("between", [0.0, 0.2])
def test_intervals_cover_what_they_say(pretrainings, between):
    """Pre-trainings, songs and what they have in common scatter; a little more than 95% where pre-trainings do not."""
    draw = np.random.default_rng(9).standard_normal
    shape = (1000, pretrainings, 16)
    gains = between * draw((*shape[:2], 1)) + 0.2 * draw((1000, 1, 16)) + 0.3 * draw(shape)
    ends = np.array([crossed(study).interval for study in gains])
    assert 0.93 <= np.mean((ends[:, 0] <= 0) & (ends[:, 1] >= 0)) <= (0.96 if between else 0.985)


def test_songs_of_a_fold_do_not_count_as_songs_of_their_own_where_folds_differ():
    draw, folds = np.random.default_rng(10).standard_normal, np.arange(16) % 4
    covered = {True: 0, False: 0}
    for _ in range(600):
        gains = (0.3 * draw(4))[folds] + 0.2 * draw((3, 16))
        for known in covered:
            low, high = crossed(gains, folds if known else None).interval
            covered[known] += low <= 0 <= high
    assert covered[True] / 600 > 0.93 > 0.85 > covered[False] / 600


def test_folds_that_do_not_differ_cost_nothing():
    gains = np.random.default_rng(11).standard_normal((3, 16))
    gains -= gains.reshape(3, 4, 4).mean(2).repeat(4, 1)  # every fold's mean is zero
    assert crossed(gains, np.repeat(np.arange(4), 4)) == crossed(gains)
    assert crossed(gains, np.zeros(16)) == crossed(gains)


def test_several_cases_at_once_are_as_each_alone():
    gains = np.random.default_rng(12).standard_normal((5, 3, 16))
    gains[0] = 0.0  # where nothing varies
    for folds in (None, np.arange(16) % 3):
        together, alone = crossed(gains, folds), [crossed(values, folds) for values in gains]
        np.testing.assert_allclose(np.transpose(together), alone)
        np.testing.assert_allclose(together.p, [one.p for one in alone])


def test_folds_are_those_of_the_scores():
    scores = make_scores([0, 0, 0, 0], songs=16, noise=0.1)
    fold = scores["song"].str[1:].astype(int) % 4
    scores.loc[scores["method"] == "mixit", "value"] += 0.5 * fold
    without, given = (
        paired_interval(table, "mixit", "scratch", "uSDR").iloc[-1] for table in (scores, scores.assign(fold=fold))
    )
    assert given["high"] - given["low"] > 1.5 * (without["high"] - without["low"])
    assert given["difference"] == without["difference"]


def test_it_is_the_t_test_where_only_one_side_scatters():
    gains = 0.3 + np.random.default_rng(10).standard_normal(5)
    alone = ttest_1samp(gains, 0)
    for values in (np.tile(gains[:, None], (1, 24)), gains[None], gains[:, None]):  # songs alike, one seed, one song
        assert crossed(values).p == pytest.approx(alone.pvalue)
        np.testing.assert_allclose(crossed(values).interval, alone.confidence_interval())
    assert crossed(np.zeros((3, 4))).p == 1
    assert np.isnan(crossed(np.ones((1, 1))).p) and np.isnan(crossed(np.ones((1, 1))).interval).all()


def test_a_stem_that_songs_lack_weighs_as_much_as_the_others():
    values = np.random.default_rng(11).standard_normal((3, 8, 4)) + np.arange(4)
    np.testing.assert_allclose(over_stems(values), values.mean(2))
    values[:, 3:, 1] = np.nan  # three of eight songs have it
    values[:, 6] = np.nan
    found = over_stems(values)
    assert np.isnan(found[:, 6]).all() and np.isfinite(np.delete(found, 6, 1)).all()
    assert np.nanmean(found) == pytest.approx(np.nanmean(values, axis=(0, 1)).mean())


def test_holm_corrects_within_a_family():
    table = pd.DataFrame({"family": ["a", "b", "a"], "p": [0.04, 0.04, 0.01], "rest": 0})
    found = holm_within(table)
    assert found["p_holm"].tolist() == [0.04, 0.04, 0.02] and list(found) == ["family", "p", "p_holm", "rest"]
    pd.testing.assert_frame_equal(holm_within(found), found)


@pytest.mark.parametrize(
    ("effect", "p", "songs", "origins", "expected"),
    [(1, 0.01, 24, 5, 1), (-1, 0.01, 24, 5, -1), (1, 0.05, 24, 5, 0), (1, np.nan, 24, 5, 0), (1, 0.01, 5, 5, 0),
     (1, 0.01, 24, 1, 0), (1, 0.01, 24, 0, 1)],
)  # fmt: skip
def test_a_direction_needs_a_small_p_songs_and_pretrainings(effect, p, songs, origins, expected):
    assert direction(effect, p, songs, origins) == expected


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


def test_an_interval_of_a_share_covers_it_and_has_no_end_where_the_whole_may_be_nothing():
    draw, covered = np.random.default_rng(12).standard_normal, 0
    facts = {"stem": "bass", "metric": "uSDR"}
    for _ in range(60):
        whole = 1 + 0.3 * draw((3, 1)) + 0.3 * draw((1, 12))
        values = {"start": 0 * whole, "part": 0.3 + 0.2 * draw((3, 12)), "whole": whole}
        rows = [
            {**facts, "seed": seed, "song": f"{song:02}", "method": method, "value": value}
            for method, table in values.items()
            for (seed, song), value in np.ndenumerate(table)
        ]
        share, low, high = share_interval(tables.table(rows), ("part", "start"), ("whole", "start"), "uSDR")
        assert low <= share <= high
        covered += low <= 0.3 <= high
    assert covered >= 52
    rows = [row | {"value": -row["value"]} if row["seed"] == 1 else row for row in rows]
    assert share_interval(tables.table(rows), ("part", "start"), ("whole", "start"), "uSDR")[1:] == (-np.inf, np.inf)


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


def test_songs_worth_has_an_interval_even_where_more_labels_score_less():
    frames = []
    for mean, songs in zip((0.0, 1.0, 0.8), (2, 4, 8), strict=True):
        arms = make_scores([0.5, 0.5, 0.5, 0.5], songs=20, noise=0.3).assign(labeled_songs=songs)
        frames.append(arms.assign(value=arms["value"] + mean))
    found = songs_worth(pd.concat(frames), "mixit", "scratch", "uSDR")
    assert found["worth"].iloc[0] == pytest.approx(2 * 2**0.5, rel=0.1)
    assert 2 < found["low"].iloc[0] < 2.8 < found["high"].iloc[0] < 4


def test_rank_correlation_finds_order_not_size():
    x = np.arange(30.0)
    assert rank_correlation(x, np.exp(x)) == pytest.approx((1, 1, 1, 0))
    rho, low, high, p = rank_correlation(x, np.random.default_rng(1).standard_normal(30))
    assert low < 0 < high and low < rho < high and p > 0.05


def test_a_share_of_one_song_and_seed_has_no_ends():
    rows = [
        {"stem": "bass", "metric": "uSDR", "seed": 0, "song": "a", "method": method, "value": value}
        for method, value in (("start", 0.1), ("part", 0.7), ("whole", 1.3))
    ]
    share, low, high = share_interval(tables.table(rows), ("part", "start"), ("whole", "start"), "uSDR")
    assert share == pytest.approx(0.5) and (low, high) == (-np.inf, np.inf)
