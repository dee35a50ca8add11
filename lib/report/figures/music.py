"""Figures of notebook 00: the music."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lib import STEMS
from lib.report.figures.style import WIDTH, drawn, names, stem_axis


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
        stem_axis(axis, STEMS)
        axis.set_ylabel("level against the mixture (dB)")
        axis.set_title(f"RMS over the song, {labelled['song'].nunique()} labelled songs")
        names(figure, axis)
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
        names(figure, axes[0, 0])
    return figure
