"""Figures hold what the tables hold, fit their canvas, and come out the same every time."""

import functools
from itertools import pairwise

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection

matplotlib.use("agg")

from lib import STEMS
from lib.experiments.intervals import holm_within, paired_interval
from lib.report import figures
from lib.report.figures.claim import SAME_STEPS, UNTIL_STALL
from lib.scoring import summarise
from lib.store.tables import table

SONGS = [f"Song {i}" for i in range(6)]
METHODS = (
    *("scratch", "pre-trained (group)", "pre-trained (sliced)"),
    *("scratch, until it stalls", "pre-trained, shuffled", "pre-trained, until it stalls"),
)
BUDGETS = (1, 4, 16)


@functools.cache
def make_scores() -> pd.DataFrame:
    rng, rows = np.random.default_rng(0), []
    for song in (*SONGS, "Real"):
        facts = {"experiment": "real song" if song == "Real" else "test", "song": song}
        for stem in STEMS[: 2 if song == SONGS[0] else 4]:  # one song lacks two stems
            level = rng.normal(4, 2)
            for metric in ("uSDR", "cSDR"):
                row = {**facts, "stem": stem, "metric": metric}
                rows += [row | {"method": "mixture", "value": -6.0}]
                rows += [row | {"method": "ideal ratio mask", "value": 11.0}]
                for i, method in enumerate(METHODS):
                    values = level + i / 5 + rng.normal(0, 0.2, (3, 3))
                    rows += [
                        row | {"method": method, "seed": seed, "labeled_songs": BUDGETS[b], "value": values[seed, b]}
                        for seed, b in np.ndindex(3, 3)
                    ]
    return table(rows)


@functools.cache
def make_claim() -> pd.DataFrame:
    scores = make_scores()
    test = scores[scores["experiment"] == "test"]
    pairs = [*((method, "scratch") for method in METHODS[1:]), METHODS[:2:-2]]
    rows = pd.concat([
        paired_interval(test[test["labeled_songs"] == budget], *pair, metric)
        .assign(labeled_songs=budget, method=pair[0], against=pair[1], metric=metric)
        for budget in BUDGETS for pair in pairs for metric in ("uSDR", "cSDR")
    ])  # fmt: skip
    return holm_within(rows, ["method", "against", "metric", "labeled_songs"])


def make_probes() -> pd.DataFrame:
    rng, rows = np.random.default_rng(0), []
    names = ["mixture", "best output", "best group", "chosen output", "chosen group"]
    names += ["harmonic-percussive", "supervised", "ideal ratio mask"]
    names += [f"output {n}" for n in range(8)]
    for song in SONGS:
        for i, stem in enumerate(STEMS):
            row = {"experiment": "test", "seed": 0, "labeled_songs": 0, "song": song, "stem": stem}
            values = rng.normal(0, 0.5, len(names)) + np.where(np.array(names) == f"output {2 * i}", 3, 0)
            values[0] = -6
            rows += [row | {"method": m, "metric": "SNR", "value": v} for m, v in zip(names, values, strict=True)]
            rows.append(row | {"method": "MixIT", "metric": "effective outputs", "value": rng.uniform(1.5, 6)})
    return table(rows)


def make_curves(budgets: tuple, methods: tuple, seeds: tuple) -> pd.DataFrame:
    rows = [
        (m, s, b, step, metric, -3 * (1 - np.exp(-step / 100)) - i * np.exp(-step / 50) + s / 10)
        for i, m in enumerate(methods) for s in seeds for b in budgets for step in range(0, 401, 20)
        for metric in ("loss", "validation_loss")
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["method", "seed", "labeled_songs", "step", "metric", "value"])


def make_before_after() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame([
        {"state": state, "stem": stem, "output": n, "SNR": rng.normal(), "chosen": n == 2 * i, "group": n // 2 == i}
        for state in ("initial weights", "after MixIT") for i, stem in enumerate(STEMS) for n in range(8)
    ])  # fmt: skip


def make_survey() -> pd.DataFrame:
    rng, rows = np.random.default_rng(0), []
    for song in (*SONGS, "Real"):
        facts = {"corpus": "real song" if song == "Real" else "labelled", "split": "test", "song": song}
        rows += [{**facts, "stem": stem, "metric": "level", "value": rng.normal(-6, 2)} for stem in STEMS]
        for kind in ("waveform", "envelope", "spectrogram"):
            for other in ("", ", other song")[: 1 if song == "Real" else 2]:
                metric = f"{kind} correlation{other}"
                pairs = [f"{a} & {b}" for i, a in enumerate(STEMS) for b in STEMS[i + 1 :]]
                rows += [{**facts, "stem": pair, "metric": metric, "value": rng.uniform(-0.2, 0.6)} for pair in pairs]
    return pd.DataFrame(rows)


def make_composition() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    keys = ["C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"]
    grooves = ["rock", "waltz", "boombap", "four on the floor"]
    columns = {"key": rng.choice(keys, 200), "tempo": rng.uniform(60, 180, 200), "groove": rng.choice(grooves, 200)}
    return pd.DataFrame(columns)


def make_effects() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    levels = {"unlabelled music": ["none", "1/8", "rendered + game music", "all"], "outputs N": ["4", "8"]}
    rows = [(axis, level) for axis, names in levels.items() for level in names] + [("kind of music", "rendered")]
    table = pd.DataFrame(rows, columns=["axis", "level"]).assign(difference=rng.normal(0, 0.3, len(rows)))
    table = table.assign(low=table["difference"] - 0.2, high=table["difference"] + 0.3, n_songs=12, n_seeds=3)
    base = table["level"].isin(["all", "8", "rendered"])
    p = np.where(base, np.nan, np.linspace(0, 0.3, len(rows)))
    return table.assign(base=base, from_base=np.where(base, np.nan, -0.1), from_base_p_holm=p, n_origins=3)


def make_regime() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [(steps, songs, rng.normal(0, 0.4)) for steps in (250, 1000, 4000) for songs in BUDGETS]
    table = pd.DataFrame(rows, columns=["pretrain_steps", "labeled_songs", "difference"])
    return table.assign(
        low=table["difference"] - 0.2, high=table["difference"] + 0.3, n_songs=8, n_seeds=2, metric="uSDR"
    )


def make_search() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        (method, rate, steps, body, rng.normal(3, 1))
        for method in METHODS[:2] for rate in (5e-4, 1e-3, 2e-3) for steps in (200, 400)
        for body in (1.0, 0.3)
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["method", "learning_rate", "steps", "body_rate", "mean"])
    best = table["mean"] == table.groupby("method")["mean"].transform("max")
    return table.assign(best=best, n_songs=6, n_seeds=1)


def make_correlation() -> pd.DataFrame:
    rng, methods = np.random.default_rng(0), ("chosen output", "chosen group", "best output", "best group")
    rows = [
        (trained, tested, method, rng.normal(3, 1))
        for trained in ("as composed", "re-dealt", "one song") for tested in ("as composed", "re-dealt")
        for method in methods
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["trained", "tested", "method", "mean"])
    return table.assign(low=table["mean"] - 0.2, high=table["mean"] + 0.3, n_songs=24, n_seeds=3)


def make_within_songs() -> tuple[pd.DataFrame, pd.DataFrame]:
    kinds = ("waveform", "envelope", "spectrogram")
    songs = pd.DataFrame(np.random.default_rng(0).random((24, 4)), columns=[*kinds, "gain"])
    ranks = pd.DataFrame([{"kind": kind, "rho": -0.31, "low": -0.62, "high": 0.11, "p_holm": 0.28} for kind in kinds])
    return songs, ranks


def make_ill_posed() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(0)
    rows = [(seed, stem, rng.uniform(1, 8)) for seed in range(3) for stem in STEMS]
    grouping = [(method, stem, rng.normal(1, 0.3)) for method in ("best group", "chosen group") for stem in STEMS]
    grouping = pd.DataFrame(grouping, columns=["method", "stem", "difference"])
    grouping = grouping.assign(low=grouping["difference"] - 0.2, high=grouping["difference"] + 0.2)
    return make_probes(), pd.DataFrame(rows, columns=["seed", "stem", "outputs"]), grouping


def make_shares() -> pd.DataFrame:
    names = ["definition", "definition, with hindsight", "correlation", "both", "whole distance"]
    table = pd.DataFrame({"what": names, "share": [0.3, 0.5, 0.05, 0.35, 1.0], "decibels": [1.2, 2, 0.2, 1.4, 4]})
    return table.assign(low=table["share"] - 0.1, high=table["share"] + 0.1, n_songs=24, n_seeds=3)


FIGURES = {
    "levels": lambda folder: figures.levels(folder, make_survey()),
    "correlation": lambda folder: figures.correlation(folder, make_survey()),
    "variety": lambda folder: figures.variety(folder, make_composition()),
    "probes": lambda folder: figures.probes(folder, make_probes()),
    "before_after": lambda folder: figures.before_after(folder, make_before_after(), 6),
    "pretrain_curves": lambda folder: figures.learning_curves(
        folder, "pretrain_curves", make_curves((None,), ("MixIT",), (0,)), "MixIT loss (dB)"
    ),
    "finetune_curves": lambda folder: figures.learning_curves(
        folder, "finetune_curves", make_curves(BUDGETS, METHODS, (0, 1)), "validation loss (dB)"
    ),
    "scores": lambda folder: figures.scores(folder, make_scores(), "scores", 4),
    "real_song": lambda folder: figures.scores(folder, make_scores(), "real_song", 4, "real song"),
    "claim": lambda folder: figures.claim(folder, make_claim()),
    "gain": lambda folder: figures.gain(folder, make_claim(), METHODS[1]),
    "claim_stems": lambda folder: figures.claim_stems(folder, make_claim(), METHODS[1]),
    "budgets": lambda folder: figures.budgets(folder, make_scores()),
    "songs": lambda folder: figures.songs(folder, make_scores(), 16),
    "search": lambda folder: figures.search(folder, make_search()),
    "regime": lambda folder: figures.regime(folder, make_regime()),
    "correlation_table": lambda folder: figures.correlation_table(folder, make_correlation()),
    "within_songs": lambda folder: figures.within_songs(folder, *make_within_songs()),
    "ill_posed": lambda folder: figures.ill_posed(folder, *make_ill_posed()),
    "shares": lambda folder: figures.shares(folder, make_shares()),
    "ablations": lambda folder: figures.ablations(folder, make_effects()),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_saved_and_its_words_fit_the_canvas(name, tmp_path):
    figure = FIGURES[name](tmp_path)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {f"{name}.png", f"{name}.svg"}
    figure.set_dpi(200)  # as laid out
    figure.draw_without_rendering()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(box.x0, box.y0) > -0.02 and box.x1 < width + 0.02 and box.y1 < height + 0.02


@pytest.mark.parametrize("name", ["claim", "levels", "correlation_table", "songs", "finetune_curves"])
def test_the_same_table_gives_the_same_bytes_whatever_the_global_random_state(name, tmp_path):
    for seed, folder in enumerate(("one", "two")):
        np.random.seed(seed)
        FIGURES[name](tmp_path / folder)
    for kind in ("png", "svg"):
        one, two = ((tmp_path / folder / "figures" / f"{name}.{kind}").read_bytes() for folder in ("one", "two"))
        assert one == two


def cells(axis) -> np.ndarray:
    """What stands in the cells of a heat map [rows, columns]."""
    shape = [round(abs(end - start)) for start, end in (axis.get_ylim(), axis.get_xlim())]
    return np.array([text.get_text() for text in axis.texts]).reshape(shape)


def strips(axis) -> list[np.ndarray]:
    """Places [points, 2] of the dots of every row."""
    marks = [marks.get_offsets().data for marks in axis.collections if isinstance(marks, PathCollection)]
    return [places for places in marks if len(places)]


def ticks(axis) -> tuple[list[str], list[str]]:
    return tuple([tick.get_text() for tick in labels] for labels in (axis.get_yticklabels(), axis.get_xticklabels()))


def test_heat_maps_hold_their_tables(tmp_path):
    table = make_before_after()
    axes, states = figures.before_after(tmp_path, table, 6).axes, table.groupby("state", sort=False)
    for axis, (state, part) in zip(axes, states, strict=True):
        grid = part.pivot(index="stem", columns="output", values="SNR").loc[list(STEMS)]
        assert axis.get_title(loc="left") == f"{state}: SNR (dB)" and ticks(axis)[0] == list(STEMS)
        assert (cells(axis) == grid.map("{:z.1f}".format)).all(axis=None)
    frames = {(patch.get_x(), patch.get_y()) for patch in axis.patches}
    assert frames == {(2 * i, i) for i in range(len(STEMS))}
    assert len(axis.lines) == part["group"].sum() and ticks(axis)[1] == [str(n) for n in range(8)]


def test_the_map_of_the_gain_has_long_pre_training_above_and_no_interval_of_one_song(tmp_path):
    table = make_regime()
    axis = figures.regime(tmp_path, table).axes[0]
    assert ticks(axis) == (["4000", "1000", "250"], ["1", "4", "16"])
    row = table[(table["pretrain_steps"] == 4000) & (table["labeled_songs"] == 16)].iloc[0]
    assert cells(axis)[0, 2] == f"{row['difference']:+.2f}\n({row['low']:+.2f} to {row['high']:+.2f})"
    axis = figures.regime(tmp_path, table.assign(n_songs=1)).axes[0]
    assert cells(axis)[0, 2] == f"{row['difference']:+.2f}"


@pytest.mark.parametrize(
    "kinds", [["as composed"], ["as composed", "one song"], ["re-dealt", "one song", "as composed"]]
)
def test_effects_of_correlation_are_coloured_against_songs_as_composed(kinds, tmp_path):
    means = make_correlation()
    means = means[means["trained"].isin(kinds)]
    drawn = figures.correlation_table(tmp_path, means).axes
    assert [axis.get_title(loc="left") for axis in drawn] == ["tested on songs as composed", "tested on songs re-dealt"]
    for axis, (_, part) in zip(drawn, means.groupby("tested"), strict=True):
        mean = part.pivot(index="trained", columns="method", values="mean")
        order = [kind for kind in ("as composed", "re-dealt", "one song") if kind in kinds]
        mean = mean.loc[order, ["chosen output", "chosen group", "best output", "best group"]]
        starts = [[text.split("\n")[0] for text in row] for row in cells(axis)]
        assert (np.array(starts) == mean.map("{:.2f}".format)).all(axis=None)
        colors = axis.collections[0].get_array().reshape(mean.shape)
        np.testing.assert_allclose(colors, mean - mean.loc["as composed"], atol=1e-9)


def test_every_level_is_a_dot_in_the_row_of_its_stem(tmp_path):
    survey = make_survey()
    axis = figures.levels(tmp_path, survey).axes[0]
    levels = survey[survey["metric"] == "level"]
    assert ticks(axis)[0] == list(STEMS)
    expected = [levels[(levels["corpus"] == c) & (levels["stem"] == s)]["value"]
                for c in ("labelled", "real song") for s in STEMS]  # fmt: skip
    for places, values, row in zip(strips(axis), expected, [*range(4), *range(4)], strict=True):
        np.testing.assert_allclose(places[:, 0], values)
        assert (abs(places[:, 1] - row) <= 0.2).all()
    labelled = levels[levels["corpus"] == "labelled"].groupby("stem")["value"].median()
    np.testing.assert_allclose(axis.lines[0].get_xdata(), labelled[list(STEMS)])


def test_songs_are_drawn_as_their_gain_over_scratch(tmp_path):
    scores = make_scores()
    figure = figures.songs(tmp_path, scores, 16)
    chosen = scores[(scores["experiment"] == "test") & (scores["metric"] == "uSDR") & (scores["labeled_songs"] == 16)]
    gains = [
        (figures.per_song(chosen, method) - figures.per_song(chosen, "scratch"))[stem].dropna()
        for stem in STEMS for method in METHODS[1:3]
    ]  # fmt: skip
    for places, values in zip(strips(figure.axes[0]), gains, strict=True):
        np.testing.assert_allclose(np.sort(places[:, 0]), np.sort(values))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*METHODS[1:3], "scratch"]


def test_a_learning_curve_ends_where_the_first_seed_ends(tmp_path):
    curves = make_curves((None,), METHODS[:2], (0, 1))
    curves = curves[(curves["seed"] == 0) | (curves["step"] <= 200)]
    axis = figures.learning_curves(tmp_path, "curves", curves, "loss (dB)").axes[0]
    lines = [line for line in axis.lines if len(line.get_xdata())]
    assert [len(line.get_xdata()) for line in lines] == [
        21,
        11,
        11,
        21,
        11,
        11,
    ]  # both seeds of an arm, then their mean
    one = curves[(curves["method"] == METHODS[0]) & (curves["metric"] == "validation_loss") & (curves["step"] <= 200)]
    np.testing.assert_allclose(lines[2].get_ydata(), one.groupby("step")["value"].mean())
    assert lines[2].get_color() == figures.COLORS[METHODS[0]]


def test_folds_have_learning_curves_of_their_own(tmp_path):
    curves = make_curves((None,), METHODS[:1], (0, 1))
    curves = pd.concat([curves.assign(fold=fold) for fold in (0, 1)])
    axis = figures.learning_curves(tmp_path, "curves", curves, "loss (dB)").axes[0]
    assert len(axis.lines) == 2 * 2 + 1


def test_the_claim_is_drawn_where_the_table_has_it(tmp_path):
    claim = make_claim()
    axis = figures.claim(tmp_path, claim).axes[0]
    for container in axis.containers:
        rows = claim[(claim["metric"] == "uSDR") & (claim["stem"] == "mean") & (claim["against"] == "scratch")]
        ordered = rows[rows["method"] == container.get_label()].set_index("labeled_songs").loc[list(BUDGETS)]
        np.testing.assert_allclose(container.lines[0].get_ydata(orig=False), ordered["difference"].to_numpy(float))
        ends = np.array([segment[:, 1] for segment in container.lines[2][0].get_segments()])
        np.testing.assert_allclose(ends, ordered[["low", "high"]].to_numpy(float), atol=1e-9)
    assert len(axis.containers) == len(METHODS) - 1


def test_the_gain_is_drawn_for_arms_of_one_schedule(tmp_path):
    claim = make_claim()
    axis = figures.gain(tmp_path, claim, METHODS[1]).axes[0]
    pairs = {
        SAME_STEPS: (METHODS[1], "scratch"),
        UNTIL_STALL: METHODS[:2:-2],
    }
    rows = claim[(claim["metric"] == "uSDR") & (claim["stem"] == "mean")].set_index(["method", "against"]).sort_index()
    for container in axis.containers:
        found = rows.loc[[pairs[container.get_label()]]].set_index("labeled_songs").loc[list(BUDGETS), "difference"]
        np.testing.assert_allclose(container.lines[0].get_ydata(orig=False), found.to_numpy(float))
    assert len(axis.containers) == len(pairs)
    short = figures.gain(tmp_path, claim[claim["against"] == "scratch"], METHODS[1]).axes[0]
    assert len(short.containers) == 1


def test_every_level_of_an_axis_is_a_dot_and_an_axis_of_one_level_is_none(tmp_path):
    effects = make_effects()
    axis = figures.ablations(tmp_path, effects).axes[0]
    drawn = effects[effects["axis"] != "kind of music"]
    assert ticks(axis)[0] == drawn["level"].tolist() and [text.get_text() for text in axis.texts] == [
        "unlabelled music",
        "outputs N",
    ]
    dots = [container.lines[0] for container in axis.containers]
    np.testing.assert_allclose([dot.get_xdata()[0] for dot in dots], drawn["difference"])
    assert [dot.get_markerfacecolor() == "white" for dot in dots] == [False, False, True, False, True, False]


def test_names_beside_lines_do_not_meet(tmp_path):
    figure = figures.claim(tmp_path, make_claim())
    figure.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in figure.axes[1].texts), key=lambda box: box.y0)
    assert len(boxes) == len(METHODS) and all(below.y1 < above.y0 + 1 for below, above in pairwise(boxes))


def test_means_over_songs_are_those_of_the_score_tables():
    scores = make_scores()
    chosen = scores[(scores["experiment"] == "test") & (scores["metric"] == "uSDR") & (scores["labeled_songs"] == 4)]
    expected = summarise(chosen[chosen["method"] == "scratch"]).groupby("stem")["value"].mean()
    found = figures.intervals(chosen, "scratch")
    np.testing.assert_allclose(found["mean"], expected[list(figures.ORDER)])
    assert (found["low"] < found["mean"]).all() and (found["mean"] < found["high"]).all()


def test_csdr_is_drawn_as_the_median_over_songs():
    scores = make_scores()
    chosen = scores[(scores["experiment"] == "test") & (scores["metric"] == "cSDR") & (scores["labeled_songs"] == 4)]
    found = figures.style.over_tracks(chosen, "scratch")
    bass = chosen[(chosen["method"] == "scratch") & (chosen["stem"] == "bass")].groupby("seed")["value"]
    assert found.loc["bass", "mean"] == pytest.approx(bass.median().mean()) != pytest.approx(bass.mean().mean())


def test_every_method_has_a_colour_of_its_own():
    shown = (*METHODS, "mixture", "ideal ratio mask")
    assert len({figures.COLORS[method] for method in shown}) == len(shown)


def test_an_arm_without_scores_has_no_interval():
    scores = make_scores()
    chosen = scores[(scores["experiment"] == "test") & (scores["metric"] == "uSDR") & (scores["labeled_songs"] == 4)]
    assert figures.intervals(chosen, "nobody").isna().all(axis=None)
