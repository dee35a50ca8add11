"""Figures of notebook 00: the music."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib import STEMS
from lib.report.figures.style import BLUE, GREY, MIDDLE, drawn, names, spread

STAR = {"jitter": False, "marker": "*", "color": "#D55E00", "label": "a recorded song"}


def levels(results: Path, survey: pd.DataFrame) -> Figure:
    """Level of every stem of every song against its mixture, the real song marked."""
    table = survey[survey["metric"] == "level"]
    labelled, real = (table[table["corpus"] == corpus] for corpus in ("labelled", "real song"))
    with drawn(results, "levels") as (figure, axes):
        axis = axes[0, 0]
        rows = {"x": "value", "y": "stem", "order": STEMS, "ax": axis}
        spread(labelled, **rows, color=BLUE)
        sns.pointplot(labelled, **rows, **MIDDLE, estimator="median", label="median")
        sns.stripplot(real, **rows, **STAR, size=11)
        axis.set(xlabel="level against the mixture (dB)", ylabel="")
        axis.set_title(f"RMS over the song; dot: one of {labelled['song'].nunique()} labelled songs")
        names(figure, axis)
    return figure


def variety(results: Path, composition: pd.DataFrame) -> Figure:
    """Tempo, key and groove of the rendered songs: how many songs have each."""
    with drawn(results, "variety", ncols=3, height=3.6, width_ratios=[1, 1, 1.1]) as (figure, axes):
        tempo, keys, grooves = axes[0]
        bars = {"color": BLUE, "alpha": 1, "lw": 0, "shrink": 0.9}
        sns.histplot(composition["tempo"], binrange=(40, 220), binwidth=20, **bars, ax=tempo)
        tempo.set(xlabel="beats per minute", ylabel="songs", title="tempo")
        tempo.yaxis.set_major_locator(MaxNLocator(integer=True))
        for axis, column in ((keys, "key"), (grooves, "groove")):
            order = sorted(composition[column].unique())
            sns.countplot(composition, y=column, order=order, color=BLUE, saturation=1, ax=axis)
            axis.set(xlabel="songs", ylabel="", title=column)
            axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axis.tick_params(axis="y", length=0, labelsize=8.5)
            axis.grid(False)
        figure.suptitle(f"{len(composition)} rendered songs", x=0.01, ha="left")
    return figure


def correlation(results: Path, survey: pd.DataFrame) -> Figure:
    """Correlation between stems within a song, beside stems of two different songs."""
    real, labelled = (survey[survey["corpus"] == corpus] for corpus in ("real song", "labelled"))
    pairs = [pair for pair in dict.fromkeys(labelled["stem"]) if "&" in pair]
    halves = {"split": True, "inner": None, "cut": 0, "linewidth": 0, "density_norm": "width", "saturation": 1}
    with drawn(results, "correlation", ncols=3, sharey=True, sharex=True, height=4.2) as (figure, axes):
        for axis, kind in zip(axes[0], ("waveform", "envelope", "spectrogram"), strict=True):
            found, rows = f"{kind} correlation", {"x": "value", "y": "stem", "order": pairs, "ax": axis}
            sources = {f"{found}, other song": "two different songs", found: "same song"}
            table = labelled.assign(songs=labelled["metric"].map(sources)).dropna(subset="songs")
            colors = dict(zip(sources.values(), (GREY, BLUE), strict=True))
            sns.violinplot(table, **rows, **halves, hue="songs", hue_order=colors, palette=colors)
            sns.stripplot(real[real["metric"] == found], **rows, **STAR, size=8)
            axis.axvline(0, color="black", lw=0.8)
            axis.set(title=kind, xlabel="", ylabel="")
            axis.tick_params(axis="y", length=0)
        axes[0, 1].set_xlabel(f"correlation; {labelled['song'].nunique()} songs")
        names(figure, axes[0, 0])
    return figure
