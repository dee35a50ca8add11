"""Tables: which arms are compared, and which music each level pre-trains on."""

import itertools

import numpy as np
import pandas as pd

from lib import STEMS
from lib.data import audio
from lib.experiments import ablations
from lib.profile.load import load
from lib.report import captions, readme
from lib.study import Study


def test_music_of_every_level_is_counted_by_its_source(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 16000 * 6)).astype(np.float32)
    for name in ("one/a.wav", "one/deep/b.wav", "two/c.wav"):
        audio.write(tmp_path / "music" / name, noise, 16000)
    levels = ["{label: rendered}", f"{{label: folder, set: {{corpus.unlabeled: {tmp_path}/music}}}}"]
    levels.append(f"{{label: both, set: {{corpus.unlabeled: rendered + {tmp_path}/music}}}}")
    axes = f"ablations.axes=[{{name: music, base: rendered, levels: [{', '.join(levels)}]}}]"
    small = ["corpus.rendered.unlabeled_songs=3", "corpus.rendered.song_seconds=4"]
    study = Study(load("smoke", [f"results={tmp_path / 'results'}", axes, *small]))
    found = ablations.unlabelled_music(study).set_index(["level", "source"])["songs"].to_dict()
    rendered = found[("rendered", "rendered")]
    assert rendered == sum(song.split == "train" for song in study.unlabeled)
    assert found == {
        ("rendered", "rendered"): rendered,
        ("folder", "one"): 2,
        ("folder", "two"): 1,
        ("both", "rendered"): rendered,
        ("both", "one"): 2,
        ("both", "two"): 1,
    }


def _ablations(gains, seeds=(0, 1), songs=12, folds=None):
    """Scores of an axis whose levels add ``gains`` in dB to a scratch that varies by song and seed."""
    rng, rows = np.random.default_rng(0), []
    scratch = {(seed, song): rng.normal(3, 2) for seed in seeds for song in range(songs)}
    for (level, gain), (key, value), stem in itertools.product(gains.items(), scratch.items(), STEMS):
        both = {"scratch": value} if gain is None else {"scratch": value, "pre-trained": value + gain}
        facts = {"experiment": "outputs N", "level": level, "base": level == "8", "metric": "uSDR", "stem": stem}
        facts["labeled_songs"] = 4
        named = {"seed": key[0], "song": f"song {key[1]}", "fold": folds and key[1] % folds}
        rows += [facts | named | {"arm": arm, "method": arm, "value": value} for arm, value in both.items()]
    return pd.DataFrame(rows)


def test_a_level_is_compared_with_the_base_pair_by_pair(tmp_path):
    """Songs and seeds that differ by far more than the levels do not hide what the levels have in common."""
    study = Study(load("smoke", [f"results={tmp_path}"]))
    study.write("ablations", _ablations({"4": 0.3, "8": 0.5, "none": None}))
    effects = ablations.ablation_effects(study).set_index("level")
    np.testing.assert_allclose(effects["difference"], [0.3, 0.5, 0], atol=1e-9)
    assert effects["n_songs"].tolist() == [12, 12, 12] and effects["n_seeds"].dtype == int
    gap = effects[["from_base", "from_base_low", "from_base_high"]]
    np.testing.assert_allclose(gap.loc["4"], -0.2, atol=1e-9)
    np.testing.assert_allclose(gap.loc["none"], -0.5, atol=1e-9)
    assert gap.loc["8"].isna().all()
    told = "outputs N: 4 (-0.20 dB, -0.20 to -0.20), none (-0.50 dB, -0.50 to -0.50)"
    assert captions.differing("outputs N", effects.reset_index()) == told
    study.write("claim", pd.DataFrame({"metric": ["uSDR"]}))
    table = readme.ablations(tmp_path)
    assert "| outputs N | 4 | +0.30 (+0.30 to +0.30) | **-0.20 (-0.20 to -0.20)** |" in table
    assert "|  | 8 | +0.50 (+0.50 to +0.50) | (base) |" in table


def test_an_axis_without_its_base_or_without_a_difference_says_so(tmp_path):
    study = Study(load("smoke", [f"results={tmp_path}"]))
    study.write("ablations", _ablations({"4": 0.3, "12": 0.3}))
    effects = ablations.ablation_effects(study)
    assert effects["from_base"].isna().all()
    assert captions.differing("outputs N", effects) == ""
    noise = np.random.default_rng(1).normal(0, 1, 12 * 2 * 4)
    table = _ablations({"8": 0.3, "12": 0.3})
    table.loc[(table["level"] == "12") & (table["arm"] == "pre-trained"), "value"] += noise - noise.mean()
    study.write("ablations", table)
    assert captions.differing("outputs N", ablations.ablation_effects(study)) == ""


def test_songs_of_one_fold_do_not_count_as_independent(tmp_path):
    """What differs between folds, and little within them, is known from as many folds as there are."""
    study, errors = Study(load("smoke", [f"results={tmp_path}"])), []
    for folds in (None, 3):
        table = _ablations({"8": 0.5}, folds=folds)
        later = table["song"].str[5:].astype(int) % 3 == 0
        table.loc[later & (table["arm"] == "pre-trained"), "value"] += 1.0
        study.write("ablations", table)
        row = ablations.ablation_effects(study).iloc[0]
        errors.append(row["high"] - row["low"])
    assert errors[1] > 2 * errors[0]


def test_the_luckiest_of_many_levels_is_no_finding(tmp_path):
    """A gap that one comparison would show is not shown where it is the largest of nine."""
    study, rng = Study(load("smoke", [f"results={tmp_path}"])), np.random.default_rng(5)
    by_song = pd.Series(rng.normal(0, 0.6, 12), [f"song {i}" for i in range(12)])
    gap = by_song - by_song.mean() + 2.4 * by_song.std() / 12**0.5
    verdicts = {}
    for others in ({}, {str(n): 0.5 for n in range(20, 28)}):
        table = _ablations({"8": 0.5, "4": 0.5} | others)
        chosen = (table["level"] == "4") & (table["arm"] == "pre-trained")
        table.loc[chosen, "value"] += table.loc[chosen, "song"].map(gap)
        study.write("ablations", table)
        effects = ablations.ablation_effects(study).set_index("level")
        assert effects.loc["4", "from_base_low"] > 0
        verdicts[len(others)] = captions.differing("outputs N", effects.reset_index()).partition(" (")[0]
    assert verdicts == {0: "outputs N: 4", 8: ""}
