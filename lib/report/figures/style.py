"""What all figures share: style, colours (Okabe-Ito, one method has one colour everywhere), and saving."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib import STEMS
from lib.scoring import MEAN
from lib.store.files import atomic

ORDER = (*STEMS, MEAN)
METRICS = ("uSDR", "cSDR")
COLORS = {
    "scratch": "#D55E00",
    "pre-trained (body)": "#0072B2",
    "pre-trained (sliced)": "#009E73",
    "pre-trained (group)": "#56B4E9",
    "pre-trained (blocks)": "#CC79A7",
    "scratch, equal compute": "#E69F00",
    "pre-trained, shuffled": "#CC79A7",
    "pre-trained, long": "#00523B",
    "pre-trained (frequent)": "#56B4E9",
    "pre-trained (random)": "#CC79A7",
    "pre-trained (encoder)": "#CC79A7",
    "pre-trained": "#0072B2",
    "supervised": "#D55E00",
    "harmonic-percussive": "#E69F00",
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


def dots(axis: Axes, table: pd.DataFrame, offset: float, color: str, label: str, hollow: bool = False) -> None:
    """Dots with intervals, one a row of ``table`` (mean, low, high), at 0, 1, 2, ... plus ``offset``."""
    table = table[["mean", "low", "high"]].reset_index(drop=True).dropna()
    bars = [(table["mean"] - table["low"]).clip(lower=0), (table["high"] - table["mean"]).clip(lower=0)]
    fill = "white" if hollow else color
    axis.errorbar(table.index + offset, table["mean"], bars, fmt="o", ms=6, mfc=fill, color=color, lw=1.6, label=label)


def offsets(count: int, width: float = 0.6) -> np.ndarray:
    return (np.arange(count) - (count - 1) / 2) * width / max(count, 2)


def stem_axis(axis: Axes, stems: Sequence[str] = ORDER) -> None:
    axis.set_xticks(range(len(stems)), stems)
    axis.set_xlim(-0.5, len(stems) - 0.5)
    if stems[-1] == MEAN:
        axis.axvline(len(stems) - 1.5, color="#BBBBBB", lw=0.8)
    axis.tick_params(axis="x", length=0)


def names(figure: Figure, axis: Axes, columns: int = 4) -> None:
    """Names of what is drawn, in its colours, once for the whole figure."""
    handles, labels = axis.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique, loc="outside upper left", ncols=columns, labelcolor="linecolor")
