"""Figures of notebook 01, and of what outputs hold in 02."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lib import STEMS
from lib.experiments.probes import above_mixture
from lib.report.figures.style import (
    BLUE,
    COLORS,
    GREY,
    ORDER,
    diverging,
    dots,
    drawn,
    heat,
    intervals,
    names,
    offsets,
    stem_axis,
    tested,
)
from lib.report.sentences import counted, p_value

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
    gains = above_mixture(table)
    with drawn(results, "probes", height=4.4) as (figure, axes):
        axis = axes[0, 0]
        for offset, method in zip(offsets(len(methods), 0.75), methods, strict=True):
            hollow = method.startswith("best")
            dots(axis, intervals(gains, method), offset, COLORS[method], SHOWN[method], hollow)
        mixture = table[table["method"] == "mixture"].groupby("stem")["value"].mean()
        silence, places = [*-mixture.reindex(STEMS), -mixture.mean()], np.arange(len(ORDER))
        axis.hlines(silence, places - 0.45, places + 0.45, GREY, "--", lw=1.4, label="silence as estimate")
        axis.axhline(0, color=GREY, lw=1.2)
        stem_axis(axis)
        axis.set_ylabel("SNR above the mixture's (dB)")
        seeds = table.loc[table["method"] == "chosen output", "seed"].nunique()
        songs = f"{counted(table['song'].nunique(), 'test song')}, 95% interval"
        figure.supxlabel(f"mean of {songs}; {counted(seeds, 'pre-training')} averaged")
        names(figure, axis, 2)
    return figure


def before_after(results: Path, table: pd.DataFrame, songs: int) -> Figure:
    """Mean SNR over ``songs`` of outputs against stems at the initial weights and after MixIT, with what was chosen."""
    with drawn(results, "before_after", nrows=2, height=4.6, sharex=True) as (figure, axes):
        for axis, (state, part) in zip(axes[:, 0], table.groupby("state", sort=False), strict=True):
            grid = part.pivot(index="stem", columns="output", values="SNR").reindex(STEMS)
            heat(axis, grid, f"{state}: SNR (dB)", vmin=table["SNR"].min(), vmax=table["SNR"].max())
            axis.set_xlabel("")
        for row in part.itertuples():
            corner = row.output, STEMS.index(row.stem)
            if row.chosen:
                axis.add_patch(Rectangle(corner, 1, 1, fill=False, ec="#009E73", lw=3, clip_on=False))
            if row.group:
                axis.plot(corner[0] + 0.86, corner[1] + 0.18, "o", ms=6, color=BLUE, mec="white")
        note = f"mean of {counted(songs, 'validation song')}, first pre-training"
        axis.set_xlabel(f"output (frame: chosen for the stem; dot: in the stem's group)\n{note}")
    return figure


KINDS = {
    "as composed": "pairs of songs\nas composed",
    "re-dealt": "pairs of\nre-dealt songs",
    "one song": "two passages\nof one song",
}


def correlation_table(results: Path, means: pd.DataFrame) -> Figure:
    """Gain of MixIT's outputs by what it was trained on (rows) and tested on (panels)."""
    methods = ["chosen output", "chosen group", "best output", "best group"]
    texts = ["{:.2f}\n({:.2f} to {:.2f})".format(*row) for row in means[["mean", "low", "high"]].to_numpy()]
    wide = means.assign(text=texts).pivot(index="trained", columns=["tested", "method"], values=["mean", "text"])
    wide = wide.loc[[kind for kind in KINDS if kind in wide.index]]
    above = wide["mean"].astype(float) - wide["mean"].loc["as composed"].astype(float)
    tests = list(dict.fromkeys(means["tested"]))
    with drawn(results, "correlation_table", 1 + 1.6 * len(tests), nrows=len(tests), sharex=True) as (figure, axes):
        for axis, test in zip(axes[:, 0], tests, strict=True):
            grid, texts = above[test][methods].rename(KINDS), wide["text"][test][methods]
            heat(axis, grid, f"tested on songs {test}", texts, **diverging(above))
            axis.set_xlabel("")
        note = (
            f"SNR above the mixture's (dB), mean over stems\n95% interval; {tested(means, seeds='pre-training')} each"
        )
        figure.supxlabel(f"row: what MixIT mixed; colour: above or below pairs of songs as composed\n{note}")
    return figure


def within_songs(results: Path, songs: pd.DataFrame, ranks: pd.DataFrame) -> Figure:
    """Gain of every test song by how far its stems go together."""
    with drawn(results, "within_songs", ncols=3, sharey=True) as (figure, axes):
        for axis, (kind, rank) in zip(axes[0], ranks.set_index("kind").iterrows(), strict=True):
            axis.plot(songs[kind], songs["gain"], "o", ms=5, alpha=0.75, mew=0, color=COLORS["chosen group"])
            told = "rank correlation {rho:+.2f}\n({low:+.2f} to {high:+.2f})\n".format(**rank) + p_value(rank["p_holm"])
            axis.locator_params(axis="x", nbins=3)  # narrow panels, long numbers
            axis.tick_params(axis="x", labelsize=8)
            axis.set_title(f"{kind}\n{told if np.isfinite(rank['rho']) else 'too few songs to rank'}")
        axes[0, 0].set_ylabel("gain of the chosen group (dB)")
        note = f"{counted(len(songs), 'test song')}; 95% interval, p after Holm"
        axes[0, 1].set_xlabel(f"mean absolute correlation between stems\n{note}")
    return figure


def ill_posed(results: Path, table: pd.DataFrame, constancy: pd.DataFrame, grouping: pd.DataFrame) -> Figure:
    """Three signs of an undefined source, per stem: outputs it spreads over, outputs that lead, what grouping adds."""
    count = table["method"].str.extract(r"output (\d+)")[0].dropna().astype(int).max() + 1
    effective = table[(table["metric"] == "effective outputs") & (table["experiment"] == "test")]
    with drawn(results, "ill_posed", ncols=3, sharey=True) as (figure, axes):
        left, middle, right = axes[0]
        dots(left, intervals(effective, "MixIT").loc[list(STEMS)], 0, BLUE, "", across=True)
        rows = {"y": "stem", "order": STEMS, "jitter": False, "color": BLUE}
        sns.stripplot(constancy, x="outputs", **rows, size=5, alpha=0.6, ax=middle)
        looks = {"best group": ("#999999", "best for each song"), "chosen group": (BLUE, "chosen before")}
        for offset, (method, look) in zip((-0.12, 0.12), looks.items(), strict=True):
            rows = grouping[grouping["method"] == method].set_index("stem").reindex(STEMS)
            dots(right, rows.rename(columns={"difference": "mean"}), offset, *look, across=True)
        right.axvline(0, color=GREY, lw=1.2)
        for axis in (left, middle):
            axis.axvline(count, color=GREY, lw=1, ls=":")
            axis.set_xlim(0.8, count + 0.2)
        titles = "outputs a stem\nspreads over", "outputs that lead\nin some song", "a group above\none output (dB)"
        for axis, title in zip(axes[0], titles, strict=True):
            axis.set(title=title, xlabel="", ylabel="", ylim=(3.5, -0.5))
            axis.tick_params(axis="y", length=0)
            axis.grid(True, axis="both")
        songs, seeds = (
            counted(effective["song"].nunique(), "test song"),
            counted(constancy["seed"].nunique(), "pre-training"),
        )
        figure.supxlabel(f"{songs}, {seeds}; bars: 95% interval; dotted: all {count} outputs")
        names(figure, right, 2)
    return figure


CAUSES = {
    "definition": "definition:\noutputs grouped",
    "definition, with hindsight": "the same,\nwith hindsight",
    "correlation": "correlation:\nstems shuffled",
}
"""What stands beside a share of the distance."""


def shares(results: Path, table: pd.DataFrame) -> Figure:
    """Which share of the distance between MixIT and the supervised model each cause explains."""
    table = table[table["what"] != "whole distance"].iloc[::-1].reset_index(drop=True)
    shown = table[["share", "low", "high"]].rename(columns={"share": "mean"})
    percent = 100 * shown.clip(-1, 4)  # ends may be infinite
    with drawn(results, "shares", height=2.6) as (figure, axes):
        axis = axes[0, 0]
        dots(axis, percent, 0, BLUE, "", across=True)
        for y, (share, gain) in enumerate(zip(percent["mean"], table["decibels"], strict=True)):
            axis.annotate(f"{gain:+.2f} dB", (share, y), (0, 7), textcoords="offset points", ha="center", fontsize=9)
        axis.axvline(0, color=GREY, lw=1.2)
        axis.set(yticks=table.index, yticklabels=table["what"].replace(CAUSES), ylim=(-0.6, len(table) - 0.3),
                 xlabel="share of the distance to the supervised model (%)")  # fmt: skip
        axis.grid(True, axis="x")
        axis.tick_params(axis="y", length=0)
        axis.set_title(f"{tested(table, seeds='pre-training')}, 95% interval")
    return figure
