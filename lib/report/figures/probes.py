"""Figures of notebook 01, and of what outputs hold in 02."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lib import STEMS
from lib.report.figures.style import COLORS, ORDER, WIDTH, dots, drawn, intervals, names, offsets, per_song, stem_axis
from lib.report.sentences import counted

SHOWN = {
    "harmonic-percussive": "harmonic-percussive",
    "chosen output": "MixIT, one output, chosen before",
    "best output": "MixIT, one output, best (bound)",
    "chosen group": "MixIT, group, chosen before",
    "best group": "MixIT, group, best (bound)",
    "supervised": "supervised",
    "ideal ratio mask": "ideal ratio mask (oracle)",
}


def probes(results: Path, table: pd.DataFrame) -> Figure:
    """SNR improvement over the mixture of MixIT's outputs and groups, beside what labels, oracles and filters give."""
    table = table[(table["metric"] == "SNR") & (table["experiment"] == "test")]
    methods = [method for method in SHOWN if method in set(table["method"])]
    with drawn(results, "probes", figsize=(WIDTH, 4.4)) as (figure, axes):
        axis = axes[0, 0]
        for offset, method in zip(offsets(len(methods), 0.75), methods, strict=True):
            gain = intervals(per_song(table, method) - per_song(table, "mixture"))
            dots(axis, gain, offset, COLORS[method], SHOWN[method], hollow=method.startswith("best"))
        silence, places = intervals(-per_song(table, "mixture"))["mean"], np.arange(len(ORDER))
        ends = places - 0.45, places + 0.45
        axis.hlines(silence, *ends, COLORS["mixture"], "--", lw=1.4, label="silence as estimate")
        axis.axhline(0, color=COLORS["mixture"], lw=1.2)
        stem_axis(axis)
        axis.set(ylabel="SNR above the mixture's (dB)")
        seeds = table.loc[table["method"] == "chosen output", "seed"].nunique()
        counts = f"{counted(table['song'].nunique(), 'test song')}, 95% interval over songs"
        figure.supxlabel(f"mean of {counts}; {counted(seeds, 'pre-training')} averaged")
        names(figure, axis, 2)
    return figure


def outputs(results: Path, table: pd.DataFrame) -> Figure:
    """Every output's SNR improvement per stem, and over how many outputs each stem spreads."""
    table = table[table["experiment"] == "test"]
    snr = table[table["metric"] == "SNR"]
    count = snr["method"].str.fullmatch(r"output \d+").groupby(snr["method"]).first().sum()
    snr = snr[snr["seed"] == table["seed"].min()]
    gains = [(per_song(snr, f"output {n}") - per_song(snr, "mixture")).mean() for n in range(count)]
    spread = table[table["metric"] == "effective outputs"].groupby(["song", "stem"])["value"].mean().reset_index()
    with drawn(results, "outputs", ncols=2, figsize=(WIDTH, 2.9), width_ratios=[1.7, 1]) as (figure, axes):
        left, right = axes[0]
        _heat(left, np.transpose(gains), "SNR above the mixture's (dB), mean")
        for y, stem in enumerate(STEMS):
            values = spread.loc[spread["stem"] == stem, "value"]
            right.plot(values, [y] * len(values), "o", ms=5, alpha=0.5, mew=0, color="#0072B2")
            right.plot([values.mean()] * 2, [y - 0.3, y + 0.3], color="black", lw=1.8)
        right.set(ylim=(3.5, -0.5), yticks=[], xlim=(0.8, count + 0.2), xlabel="effective outputs")
        right.axvline(1, color="#BBBBBB", lw=0.8)
        right.set_title(f"{counted(spread['song'].nunique(), 'test song')}; bar: mean")
    return figure


def before_after(results: Path, table: pd.DataFrame, songs: int) -> Figure:
    """Mean SNR over ``songs`` of outputs against stems at the initial weights and after MixIT, with what was chosen."""
    with drawn(results, "before_after", nrows=2, figsize=(WIDTH, 4.6), sharex=True) as (figure, axes):
        for axis, (state, part) in zip(axes[:, 0], table.groupby("state", sort=False), strict=True):
            grid = part.pivot(index="stem", columns="output", values="SNR").reindex(STEMS)
            _heat(axis, grid.to_numpy(), f"{state}: SNR (dB)", (table["SNR"].min(), table["SNR"].max()))
        final = table[table["state"] == table["state"].iloc[-1]]
        for row in final.itertuples():
            y = STEMS.index(row.stem)
            if row.chosen:
                axis.add_patch(Rectangle((row.output - 0.5, y - 0.5), 1, 1, fill=False, ec="#009E73", lw=3))
            if row.group:
                axis.plot(row.output + 0.36, y - 0.32, "o", ms=6, color="#0072B2", mec="white")
        axes[0, 0].set_xlabel("")
        axis.set_xlabel(
            "output (frame: chosen for the stem; dot: in the stem's group)\n"
            f"mean of {counted(songs, 'validation song')}, first pre-training"
        )
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


KINDS = ("as composed", "re-dealt", "one song")
TRAINED = {"as composed": "#0072B2", "re-dealt": "#E69F00", "one song": "#CC79A7"}


def correlation_table(results: Path, means: pd.DataFrame) -> Figure:
    """Gain of MixIT's outputs by what it was trained on (colour) and tested on (panel)."""
    methods = ("chosen output", "chosen group", "best output", "best group")
    tests = list(dict.fromkeys(means["tested"]))
    trained = [kind for kind in KINDS if kind in set(means["trained"])]
    labels = {"as composed": "pairs of songs as composed", "re-dealt": "pairs of re-dealt songs",
              "one song": "two passages of one song"}  # fmt: skip
    with drawn(results, "correlation_table", ncols=len(tests), sharey=True, figsize=(WIDTH, 4.2)) as (figure, axes):
        for axis, tested in zip(axes[0], tests, strict=True):
            for offset, kind in zip(offsets(len(trained), 0.5), trained, strict=True):
                rows = means[(means["trained"] == kind) & (means["tested"] == tested)]
                dots(axis, rows.set_index("method").reindex(methods), offset, TRAINED[kind], labels[kind])
            axis.set_xticks(range(len(methods)), [method.replace(" ", "\n") for method in methods])
            axis.set(title=f"tested on songs {tested}", xlim=(-0.5, len(methods) - 0.5))
            axis.tick_params(axis="x", length=0)
        axes[0, 0].set_ylabel("SNR above the mixture's (dB)")
        counts = (
            f"{counted(means['n_songs'].max(), 'test song')}, {counted(means['n_seeds'].max(), 'pre-training')} each"
        )
        figure.supxlabel(f"mean over stems, 95% interval; {counts}\ncolour: what MixIT mixed")
        names(figure, axes[0, 0], 2)
    return figure


def within_songs(results: Path, songs: pd.DataFrame, ranks: pd.DataFrame) -> Figure:
    """Gain of every test song by how far its stems go together."""
    kinds = ("waveform", "envelope", "spectrogram")
    with drawn(results, "within_songs", ncols=3, sharey=True, figsize=(WIDTH, 3.4)) as (figure, axes):
        for axis, kind in zip(axes[0], kinds, strict=True):
            rank = ranks.set_index("kind").loc[kind]
            axis.plot(songs[kind], songs["gain"], "o", ms=5, alpha=0.75, mew=0, color=COLORS["chosen group"])
            interval = f"({rank['low']:+.2f} to {rank['high']:+.2f})"
            told = f"rank correlation {rank['rho']:+.2f}\n{interval}\np {rank['p_holm']:.2g}"
            axis.locator_params(axis="x", nbins=3)  # narrow panels, long numbers
            axis.tick_params(axis="x", labelsize=8)
            axis.set_title(f"{kind}\n{told if np.isfinite(rank['rho']) else 'too few songs to rank'}")
        axes[0, 0].set_ylabel("gain of the chosen group (dB)")
        axes[0, 1].set_xlabel(
            f"mean absolute correlation between stems\n{counted(len(songs), 'test song')}; 95% interval, p after Holm"
        )
    return figure


def ill_posed(results: Path, table: pd.DataFrame, constancy: pd.DataFrame, grouping: pd.DataFrame) -> Figure:
    """Three signs of an undefined source, per stem: outputs it spreads over, outputs that lead, what grouping adds."""
    outputs = table["method"].str.extract(r"output (\d+)")[0].dropna().astype(int).max() + 1
    spread = table[(table["metric"] == "effective outputs") & (table["experiment"] == "test")]
    spread = spread.groupby(["song", "stem"])["value"].mean().unstack("stem")
    with drawn(results, "ill_posed", ncols=3, figsize=(WIDTH, 3.4), sharey=True) as (figure, axes):
        left, middle, right = axes[0]
        places = np.arange(len(STEMS))
        found = intervals(spread).loc[list(STEMS)]
        left.hlines(places, found["low"], found["high"], color="#0072B2", lw=1.6)
        left.plot(found["mean"], places, "o", ms=6, color="#0072B2")
        for y, stem in enumerate(STEMS):
            values = constancy.loc[constancy["stem"] == stem, "outputs"]
            middle.plot(values, [y] * len(values), "o", ms=5, alpha=0.6, mew=0, color="#0072B2")
        for method, color, offset in (("best group", "#999999", -0.12), ("chosen group", "#0072B2", 0.12)):
            rows = grouping[grouping["method"] == method].set_index("stem").reindex(STEMS)
            right.hlines(places + offset, rows["low"], rows["high"], color=color, lw=1.6)
            right.plot(rows["difference"], places + offset, "o", ms=6, color=color,
                       label="best for each song" if method == "best group" else "chosen before")  # fmt: skip
        for axis, title, limits in ((left, "outputs a stem\nspreads over", (0.8, outputs + 0.2)),
                                    (middle, "outputs that lead\nin some song", (0.8, outputs + 0.2)),
                                    (right, "a group above\none output (dB)", None)):  # fmt: skip
            axis.set(title=title, xlim=limits, yticks=places, yticklabels=STEMS, ylim=(3.5, -0.5))
            axis.tick_params(axis="y", length=0)
            axis.grid(True, axis="x")
        right.axvline(0, color="#7F7F7F", lw=1.2)
        for axis in (left, middle):
            axis.axvline(outputs, color="#7F7F7F", lw=1, ls=":")
        counts = f"{counted(len(spread), 'test song')}, {counted(constancy['seed'].nunique(), 'pre-training')}"
        figure.supxlabel(f"{counts}; bars: 95% interval; dotted: all {outputs} outputs")
        names(figure, right, 2)
    return figure


def shares(results: Path, table: pd.DataFrame) -> Figure:
    """Which share of the distance between MixIT and the supervised model each cause explains."""
    table = table[table["what"] != "whole distance"].iloc[::-1].reset_index(drop=True)
    with drawn(results, "shares", figsize=(WIDTH, 2.6)) as (figure, axes):
        axis = axes[0, 0]
        axis.hlines(table.index, 100 * table["low"], 100 * table["high"], color="#0072B2", lw=1.6)
        axis.plot(100 * table["share"], table.index, "o", ms=7, color="#0072B2")
        for row in table.itertuples():
            axis.annotate(f"{row.decibels:+.2f} dB", (100 * row.share, row.Index), (0, 7), textcoords="offset points",
                          ha="center", fontsize=9)  # fmt: skip
        axis.axvline(0, color="#7F7F7F", lw=1.2)
        axis.set(yticks=table.index, yticklabels=table["what"].str.replace(", ", ",\n"), ylim=(-0.6, len(table) - 0.3),
                 xlabel="share of the distance to the supervised model (%)")  # fmt: skip
        axis.grid(True, axis="x")
        axis.tick_params(axis="y", length=0)
        axis.set_title(f"{counted(table['n_songs'].max(), 'test song')}, "
                       f"{counted(table['n_seeds'].max(), 'pre-training')}, 95% interval")  # fmt: skip
    return figure
