"""Figures of a study. Each is drawn from tables alone, and one method has one colour everywhere (Okabe-Ito)."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib import STEMS
from lib.runs import atomic
from lib.scoring import MEAN

ORDER = (*STEMS, MEAN)
METRICS = ("uSDR", "cSDR")
COLORS = {
    "scratch": "#D55E00",
    "pre-trained (group)": "#0072B2",
    "pre-trained (sliced)": "#009E73",
    "pre-trained (blocks)": "#CC79A7",
    "chosen group": "#0072B2",
    "best group": "#0072B2",
    "chosen output": "#009E73",
    "best output": "#009E73",
    "mixture": "#7F7F7F",
    "ideal ratio mask": "#000000",
}
STYLE = {
    "font.size": 10.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#E5E5E5",
    "figure.labelsize": 10.5,
    "figure.titlesize": 10.5,
    "legend.frameon": False,
    "legend.handlelength": 1.0,
    "legend.columnspacing": 1.2,
    "legend.handletextpad": 0.4,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "mixit",
    "svg.fonttype": "none",
}
WIDTH = 6.0


@contextlib.contextmanager
def drawn(results: Path, name: str, **options: object) -> Iterator[tuple[Figure, np.ndarray]]:
    """Yield a new figure with its axes [rows, columns]; afterwards save it as ``figures/NAME.png`` and ``.svg``."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(squeeze=False, **{"figsize": (WIDTH, 3.4), **options})
        yield figure, axes
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            with atomic(results / "figures" / f"{name}.{kind}") as temporary:
                figure.savefig(temporary, format=kind, dpi=200, metadata=metadata)
        plt.close(figure)


def intervals(songs: pd.DataFrame, resamples: int = 4000) -> pd.DataFrame:
    """Mean over songs with its 95% percentile bootstrap interval, per stem and over stems (the mean of stems' means).

    ``songs`` holds a row per song and a column per stem, nan where a stem is silent; the result a row per stem and
    ``mean``, and the columns mean, low, high.
    """
    values = songs.reindex(columns=STEMS).to_numpy(float)
    draws = np.random.default_rng(0).integers(len(values), size=(resamples, len(values)))
    draws[0] = np.arange(len(values))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a stem may sound in no drawn song
        means = np.nanmean(values[draws], axis=1)
        means = np.column_stack([means, np.nanmean(means, axis=1)])
        low, high = np.nanpercentile(means, [2.5, 97.5], axis=0)
    return pd.DataFrame({"mean": means[0], "low": low, "high": high}, index=ORDER)


def per_song(scores: pd.DataFrame, method: str) -> pd.DataFrame:
    """One method's values [songs, stems], each the mean over its seeds."""
    chosen = scores[(scores["method"] == method) & np.isfinite(scores["value"])]
    return chosen.groupby(["song", "stem"])["value"].mean().unstack("stem").reindex(columns=STEMS)


def _dots(axis: Axes, table: pd.DataFrame, offset: float, color: str, label: str, hollow: bool = False) -> None:
    """Dots with intervals, one a row of ``table`` (mean, low, high), at 0, 1, 2, ... plus ``offset``."""
    table = table[["mean", "low", "high"]].reset_index(drop=True).dropna()
    bars = [(table["mean"] - table["low"]).clip(lower=0), (table["high"] - table["mean"]).clip(lower=0)]
    fill = "white" if hollow else color
    axis.errorbar(table.index + offset, table["mean"], bars, fmt="o", ms=6, mfc=fill, color=color, lw=1.6, label=label)


def _offsets(count: int, width: float = 0.6) -> np.ndarray:
    return (np.arange(count) - (count - 1) / 2) * width / max(count, 2)


def _stem_axis(axis: Axes, stems: Sequence[str] = ORDER) -> None:
    axis.set_xticks(range(len(stems)), stems)
    axis.set_xlim(-0.5, len(stems) - 0.5)
    if stems[-1] == MEAN:
        axis.axvline(len(stems) - 1.5, color="#BBBBBB", lw=0.8)
    axis.tick_params(axis="x", length=0)


def _names(figure: Figure, axis: Axes, columns: int = 4) -> None:
    """Names of what is drawn, in its colours, once for the whole figure."""
    handles, labels = axis.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique, loc="outside upper left", ncols=columns, labelcolor="linecolor")


# 00: the music


def levels(results: Path, survey: pd.DataFrame) -> Figure:
    """Level of every stem of every song against its mixture, the real song marked."""
    table = survey[survey["metric"] == "level"]
    labelled, real = (table[table["corpus"] == corpus] for corpus in ("labelled", "real song"))
    with drawn(results, "levels") as (figure, axes):
        axis, generator = axes[0, 0], np.random.default_rng(0)
        for x, stem in enumerate(STEMS):
            values = labelled.loc[labelled["stem"] == stem, "value"]
            axis.plot(x + generator.uniform(-0.2, 0.2, len(values)), values, "o", ms=4, alpha=0.6, color="#0072B2",
                      mew=0, label="a labelled song")  # fmt: skip
            axis.plot([x - 0.3, x + 0.3], [values.median()] * 2, color="black", lw=1.6, label="median")
            star = real.loc[real["stem"] == stem, "value"]
            axis.plot([x] * len(star), star, "*", ms=11, color="#D55E00", label="the real song")
        _stem_axis(axis, STEMS)
        axis.set_ylabel("level against the mixture (dB)")
        axis.set_title(f"RMS over the song, {labelled['song'].nunique()} labelled songs")
        _names(figure, axis)
    return figure


def variety(results: Path, composition: pd.DataFrame) -> Figure:
    """Tempo, key and groove of the rendered songs: how many songs have each."""
    with drawn(results, "variety", ncols=3, figsize=(WIDTH, 3.6), width_ratios=[1, 1, 1.1]) as (figure, axes):
        tempo, keys, grooves = axes[0]
        tempo.hist(composition["tempo"], bins=np.arange(40, 221, 20), color="#0072B2", rwidth=0.9)
        tempo.set(xlabel="beats per minute", ylabel="songs")
        tempo.yaxis.set_major_locator(MaxNLocator(integer=True))
        for axis, column in ((keys, "key"), (grooves, "groove")):
            counts = composition[column].value_counts().sort_index(ascending=False)
            axis.barh(counts.index, counts, color="#0072B2")
            axis.set(xlabel="songs", title=column)
            axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axis.tick_params(axis="y", length=0, labelsize=8.5)
            axis.grid(False)
        tempo.set_title("tempo")
        figure.suptitle(f"{len(composition)} rendered songs", x=0.01, ha="left")
    return figure


def correlation(results: Path, survey: pd.DataFrame) -> Figure:
    """Correlation between stems within a song, beside stems of two different songs."""
    real, labelled = (survey[survey["corpus"] == corpus] for corpus in ("real song", "labelled"))
    pairs = [pair for pair in dict.fromkeys(labelled["stem"]) if "&" in pair]
    sources = (
        (labelled, ", other song", -0.18, "#7F7F7F", "o", "two different songs"),
        (labelled, "", 0.18, "#0072B2", "o", "same song"),
        (real, "", 0.18, "#D55E00", "*", "the real song"),
    )
    with drawn(results, "correlation", ncols=3, sharey=True, sharex=True, figsize=(WIDTH, 3.2)) as (figure, axes):
        for axis, kind in zip(axes[0], ("waveform", "envelope", "spectrogram"), strict=True):
            for table, suffix, offset, color, marker, label in sources:
                chosen = table[table["metric"] == f"{kind} correlation{suffix}"].groupby("stem")["value"]
                low, middle, high = (chosen.quantile(share).reindex(pairs) for share in (0.25, 0.5, 0.75))
                places = np.arange(len(pairs)) + offset
                axis.hlines(places, low, high, color, lw=1.6)
                axis.plot(middle, places, marker, ms=5 if marker == "o" else 8, color=color, label=label)
            axis.axvline(0, color="black", lw=0.8)
            axis.set(title=kind, yticks=range(len(pairs)), yticklabels=pairs, ylim=(len(pairs) - 0.5, -0.5))
            axis.tick_params(axis="y", length=0)
        axes[0, 1].set_xlabel(f"correlation; dot and bar: median and middle half of {labelled['song'].nunique()} songs")
        _names(figure, axes[0, 0])
    return figure


# 01 and 02: what the outputs hold


def probes(results: Path, table: pd.DataFrame) -> Figure:
    """SNR improvement over the mixture of the best and of the chosen outputs and groups."""
    table = table[(table["metric"] == "SNR") & (table["experiment"] == "test")]
    methods = ("chosen output", "best output", "chosen group", "best group")
    names = ("one output, chosen before", "one output, best (bound)", "group, chosen before", "group, best (bound)")
    with drawn(results, "probes") as (figure, axes):
        axis = axes[0, 0]
        for offset, method, name in zip(_offsets(4), methods, names, strict=True):
            gain = intervals(per_song(table, method) - per_song(table, "mixture"))
            _dots(axis, gain, offset, COLORS[method], name, hollow=method.startswith("best"))
        axis.axhline(0, color=COLORS["mixture"], lw=1.2)
        _stem_axis(axis)
        axis.set(ylabel="SNR above the mixture's (dB)")
        axis.set_title(f"Mean of {table['song'].nunique()} test songs, 95% interval over songs")
        _names(figure, axis, 2)
    return figure


def outputs(results: Path, table: pd.DataFrame) -> Figure:
    """Every output's SNR improvement per stem, and over how many outputs each stem spreads."""
    table = table[table["experiment"] == "test"]
    snr = table[table["metric"] == "SNR"]
    count = snr["method"].str.fullmatch(r"output \d+").groupby(snr["method"]).first().sum()
    gains = [(per_song(snr, f"output {n}") - per_song(snr, "mixture")).mean() for n in range(count)]
    spread = table[table["metric"] == "effective outputs"]
    with drawn(results, "outputs", ncols=2, figsize=(WIDTH, 2.9), width_ratios=[1.7, 1]) as (figure, axes):
        left, right = axes[0]
        _heat(left, np.transpose(gains), "SNR above the mixture's (dB), mean")
        for y, stem in enumerate(STEMS):
            values = spread.loc[spread["stem"] == stem, "value"]
            right.plot(values, [y] * len(values), "o", ms=5, alpha=0.5, mew=0, color="#0072B2")
            right.plot([values.mean()] * 2, [y - 0.3, y + 0.3], color="black", lw=1.8)
        right.set(ylim=(3.5, -0.5), yticks=[], xlim=(0.8, count + 0.2), xlabel="effective outputs")
        right.axvline(1, color="#BBBBBB", lw=0.8)
        right.set_title(f"{spread['song'].nunique()} test songs; bar: mean")
    return figure


def before_after(results: Path, table: pd.DataFrame) -> Figure:
    """SNR of every output against every stem at the initial weights and after MixIT, with what was chosen."""
    with drawn(results, "before_after", nrows=2, figsize=(WIDTH, 4.6), sharex=True) as (figure, axes):
        for axis, (state, part) in zip(axes[:, 0], table.groupby("state", sort=False), strict=True):
            grid = part.pivot(index="stem", columns="output", values="SNR").reindex(STEMS)
            _heat(axis, grid.to_numpy(), f"{state}: SNR (dB)", (table["SNR"].min(), table["SNR"].max()))
        final = table[table["state"] == table["state"].iloc[-1]]
        for row in final.itertuples():
            y = STEMS.index(row.stem)
            if row.chosen:
                axis.add_patch(plt.Rectangle((row.output - 0.5, y - 0.5), 1, 1, fill=False, ec="#009E73", lw=3))
            if row.group:
                axis.plot(row.output + 0.36, y - 0.32, "o", ms=6, color="#0072B2", mec="white")
        axes[0, 0].set_xlabel("")
        axis.set_xlabel("output (frame: chosen for the stem; dot: in the stem's group)")
    return figure


def _heat(axis: Axes, grid: np.ndarray, title: str, limits: tuple[float, float] | None = None) -> None:
    low, high = limits or (np.nanmin(grid), np.nanmax(grid))
    axis.imshow(grid, cmap="cividis", vmin=low, vmax=high, aspect="auto")
    for (y, x), value in np.ndenumerate(grid):
        dark = np.isfinite(value) and value < (low + high) / 2
        axis.text(x, y, f"{value:z.1f}", ha="center", va="center", fontsize=8.5, color="white" if dark else "black")
    axis.set(title=title, xlabel="output", xticks=range(grid.shape[1]), yticks=range(len(STEMS)), yticklabels=STEMS)
    axis.tick_params(length=0)
    axis.grid(False)


# 02 and 03: learning curves


def learning_curves(results: Path, name: str, table: pd.DataFrame, unit: str) -> Figure:
    """Validation loss by step, mean over seeds and every seed as a thin line; training loss too if one run is shown."""
    budgets = list(dict.fromkeys(table["labeled_songs"].fillna(0)))
    options = {"ncols": len(budgets), "sharey": True, "figsize": (WIDTH, 3.2)}
    with drawn(results, name, **options) as (figure, axes):
        for axis, budget in zip(axes[0], budgets, strict=True):
            part = table[table["labeled_songs"].fillna(0) == budget]
            one = part.groupby(["method", "seed"], dropna=False).ngroups == 1
            for method, lines in part[part["metric"] == "validation_loss"].groupby("method", sort=False):
                seeds = lines.groupby(["step", "seed"])["value"].mean().unstack("seed")
                color = COLORS.get(method, "#0072B2")
                axis.plot(seeds.index, seeds, color=color, lw=0.7, alpha=0.45)
                axis.plot(seeds.index, seeds.mean(axis=1), color=color, lw=2, label="validation" if one else method)
            if one:
                loss = part[part["metric"] == "loss"].set_index("step")["value"]
                smooth = loss.rolling(max(1, len(loss) // 50), min_periods=1).mean()
                axis.plot(smooth, color="#7F7F7F", lw=1, zorder=1, label="training batches, running mean")
            seeds = part["seed"].nunique()
            axis.set_xlabel(f"step (thin: each of {seeds} seeds)" if seeds > 1 else "step")
            axis.set_title(f"{budget} labelled songs" if budget else "")
        axes[0, 0].set_ylabel(unit)
        _names(figure, axes[0, -1], 2)
    return figure


# 03: the claim


@contextlib.contextmanager
def _panels(results: Path, name: str, table: pd.DataFrame, unit: str, sharey: str) -> Iterator[tuple]:
    """Yield a figure and its (axis, metric, budget): a row per metric, a column per budget of labelled songs."""
    budgets = [int(budget) for budget in dict.fromkeys(table["labeled_songs"].dropna())]
    size = (WIDTH * max(1, len(budgets) * 0.7), 5.2)
    with drawn(results, name, nrows=2, ncols=len(budgets), sharex=True, sharey=sharey, figsize=size) as (figure, axes):
        places = [(metric, budget) for metric in METRICS for budget in budgets]
        yield figure, [(axis, *place) for axis, place in zip(axes.flat, places, strict=True)]
        for axis in axes.flat:
            _stem_axis(axis)
        for axis, metric in zip(axes[:, 0], METRICS, strict=True):
            axis.set_ylabel(f"{metric}{unit} (dB)")
        for axis, budget in zip(axes[0], budgets, strict=True):
            axis.set_title(f"{budget} labelled songs")
        _names(figure, axes[0, 0], 3)


def scores(results: Path, table: pd.DataFrame, name: str, experiment: str = "test") -> Figure:
    """uSDR and cSDR per stem of every method, between the mixture and the ideal ratio mask."""
    table = table[table["experiment"] == experiment]
    methods = list(dict.fromkeys(table.loc[table["seed"].notna(), "method"]))
    with _panels(results, name, table, "", "row") as (figure, panels):
        for axis, metric, budget in panels:
            part = table[(table["metric"] == metric) & table["labeled_songs"].fillna(budget).eq(budget)]
            for baseline, style in (("ideal ratio mask", "-"), ("mixture", "--")):
                level, places = intervals(per_song(part, baseline))["mean"], np.arange(len(ORDER))
                axis.hlines(level, places - 0.42, places + 0.42, COLORS[baseline], style, lw=1.6, label=baseline)
            for offset, method in zip(_offsets(len(methods)), methods, strict=True):
                _dots(axis, intervals(per_song(part, method)), offset, COLORS[method], method)
        songs = table["song"].nunique()
        spread = f"mean of {songs} test songs, 95% interval over songs" if songs > 1 else "one song"
        figure.supxlabel(f"{spread}; {table['seed'].nunique()} seeds averaged")
    return figure


def claim(results: Path, table: pd.DataFrame) -> Figure:
    """Pre-trained minus scratch per stem with its 95% interval: above zero, pre-training helps."""
    methods = list(dict.fromkeys(table["method"]))
    with _panels(results, "claim", table, " above scratch", "all") as (figure, panels):
        for axis, metric, budget in panels:
            part = table[(table["metric"] == metric) & (table["labeled_songs"] == budget)]
            for offset, method in zip(_offsets(len(methods), 0.5), methods, strict=True):
                rows = part[part["method"] == method].set_index("stem").reindex(ORDER)
                _dots(axis, rows.rename(columns={"difference": "mean"}), offset, COLORS[method], method)
            axis.axhline(0, color=COLORS["scratch"], lw=1.6, label="scratch")
        counts = f"{table['n_songs'].max()} test songs, {table['n_seeds'].max()} seeds"
        figure.supxlabel(f"mean of paired differences, 95% interval; {counts}")
    return figure


def songs(results: Path, table: pd.DataFrame, budget: int) -> Figure:
    """uSDR of every test song, from scratch across and pre-trained up: above the diagonal, pre-training helps."""
    table = table[(table["experiment"] == "test") & (table["metric"] == "uSDR") & (table["labeled_songs"] == budget)]
    methods = [method for method in dict.fromkeys(table["method"]) if method != "scratch"]
    with drawn(results, "songs", nrows=2, ncols=2, figsize=(WIDTH, 5.8)) as (figure, axes):
        for axis, stem in zip(axes.flat, STEMS, strict=True):
            across = per_song(table, "scratch")[stem]
            for method in methods:
                up = per_song(table, method)[stem].reindex(across.index)
                axis.plot(across, up, "o", ms=5, alpha=0.75, mew=0, color=COLORS[method], label=method)
            middle = (across.mean(), across.mean())
            axis.axline(middle, slope=1, color=COLORS["scratch"], lw=1.2, label="equal to scratch")
            axis.set_title(stem)
            axis.set_aspect("equal", adjustable="datalim")
        counts = f"{budget} labelled songs, mean of {table['seed'].nunique()} seeds"
        figure.supxlabel(f"uSDR from scratch (dB), {counts}")
        figure.supylabel("uSDR pre-trained (dB)")
        _names(figure, axes[0, 0], 3)
    return figure


# 04: ablations


def ablation(results: Path, table: pd.DataFrame, effects: pd.DataFrame) -> Figure:
    """One axis: uSDR over stems of both methods by level, and their paired difference (``effects``)."""
    axis_name, levels = table["experiment"].iloc[0], list(dict.fromkeys(table["level"]))
    table = table[table["metric"] == "uSDR"]
    methods, by_level = list(dict.fromkeys(table["method"])), [table[table["level"] == level] for level in levels]
    name = re.sub(r"\W+", "_", f"ablation {axis_name}")
    with drawn(results, name, ncols=2, width_ratios=[1.2, 1]) as (figure, axes):
        left, right = axes[0]
        for offset, method in zip(_offsets(len(methods), 0.4), methods, strict=True):
            rows = [intervals(per_song(part, method)).loc[MEAN] for part in by_level]
            _dots(left, pd.DataFrame(rows), offset, COLORS[method], method)
        effects = effects.set_index("level").loc[levels].rename(columns={"difference": "mean"})
        _dots(right, effects, 0, COLORS[methods[-1]], "")
        right.axhline(0, color=COLORS["scratch"], lw=1.6)
        base = set(table.loc[table["base"], "level"])
        for axis, title in ((left, "uSDR (dB)"), (right, "above scratch (dB)")):
            axis.set(title=title, xlim=(-0.5, len(levels) - 0.5))
            axis.set_xticks(range(len(levels)), [f"{level}\n(base)" if level in base else level for level in levels])
        seeds = table["seed"].nunique()
        counts = f"{table['song'].nunique()} test songs, {seeds} seed{'s' * (seeds > 1)}, 95% interval"
        figure.supxlabel(f"{axis_name}; {counts}")
        _names(figure, left, 2)
    return figure
