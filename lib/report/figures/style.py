"""What all figures share: style, colours (Okabe-Ito, one method has one colour everywhere), and saving."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import PIL.Image
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lib import STEMS
from lib.experiments.intervals import mean_interval
from lib.report.sentences import counted, without_kind
from lib.scoring import MEAN, MEDIANS, summarise
from lib.store.files import atomic

ORDER = (*STEMS, MEAN)
BLUE, GREY = "#0072B2", "#7F7F7F"
SEQUENTIAL, DIVERGING = sns.light_palette("#3A94CE", as_cmap=True), sns.diverging_palette(275, 45, l=68, as_cmap=True)
"""Of heat maps: light enough for black numbers."""
COLORS = {
    "MixIT": "#0072B2",
    "scratch": "#D55E00",
    "pre-trained (body)": "#0072B2",
    "pre-trained (sliced)": "#009E73",
    "pre-trained (group)": "#56B4E9",
    "pre-trained (blocks)": "#CC79A7",
    "scratch, equal compute": "#E69F00",
    "pre-trained, shuffled": "#CC79A7",
    "scratch, until it stalls": "#A34700",
    "pre-trained, until it stalls": "#00523B",
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
MIDDLE = {"errorbar": None, "linestyle": "none", "marker": "|", "ms": 20, "mew": 2, "color": "black"}
"""Of `seaborn.pointplot`: a stroke through a row at its mean or median."""


@contextlib.contextmanager
def drawn(results: Path, name: str, height: float = 3.4, **options: object) -> Iterator[tuple[Figure, np.ndarray]]:
    """Yield a new figure with its axes [rows, columns]; afterwards save it as ``figures/NAME.png`` and ``.svg``."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(squeeze=False, **{"figsize": (WIDTH, height), **options})
        figure.set_label(name)
        yield figure, axes
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            with atomic(results / "figures" / f"{name}.{kind}") as temporary:
                figure.savefig(temporary, format=kind, dpi=150, metadata=metadata)
                if kind == "png":  # which executed notebooks hold: a palette takes a third
                    whole = PIL.Image.open(temporary).convert("RGB")
                    whole.quantize(256, dither=PIL.Image.Dither.NONE).save(temporary, "png")
            figure.set_layout_engine("none")  # both look the same
        plt.close(figure)


def intervals(scores: pd.DataFrame, method: str) -> pd.DataFrame:
    """`mean_interval` of a method in a table of one metric, a row per stem and over stems; nan without scores."""
    chosen = scores[scores["method"] == method]
    if chosen.empty:
        return pd.DataFrame(np.nan, ORDER, ["mean", "low", "high"])
    chosen = chosen.assign(seed=chosen["seed"].fillna(0))
    return mean_interval(chosen, method, chosen["metric"].iloc[0]).set_index("stem").reindex(ORDER)


def over_tracks(scores: pd.DataFrame, method: str) -> pd.DataFrame:
    """`intervals` of a mean; of a metric that the field takes the median of, `summarise` alone, without an interval."""
    if scores["metric"].iloc[0] not in MEDIANS:
        return intervals(scores, method)
    value = summarise(scores[scores["method"] == method]).groupby("stem")["value"].mean().reindex(ORDER)
    return pd.DataFrame({"mean": value, "low": value, "high": value})


def per_song(scores: pd.DataFrame, method: str) -> pd.DataFrame:
    """One method's values [songs, stems], each the mean over its seeds."""
    chosen = scores[(scores["method"] == method) & np.isfinite(scores["value"])]
    return chosen.groupby(["song", "stem"])["value"].mean().unstack("stem").reindex(columns=STEMS)


def dots(
    axis: Axes, table: pd.DataFrame, offset: float, color: str, label: str, hollow: bool = False, across: bool = False
) -> None:
    """Dots with their intervals, one a row of ``table`` (mean, low, high), at 0, 1, 2, ... plus ``offset``."""
    table = table[["mean", "low", "high"]].reset_index(drop=True).dropna(subset="mean").ffill(axis=1)
    bars = [(table["mean"] - table["low"]).clip(lower=0), (table["high"] - table["mean"]).clip(lower=0)]
    look = {"fmt": "o", "ms": 6, "mfc": "white" if hollow else color, "color": color, "lw": 1.6, "zorder": 4}
    if across:
        axis.errorbar(table["mean"], table.index + offset, xerr=bars, label=label, **look)
    else:
        axis.errorbar(table.index + offset, table["mean"], yerr=bars, label=label, **look)


def heat(ax: Axes, grid: pd.DataFrame, title: str, texts: pd.DataFrame | None = None, **options: object) -> None:
    """A heat map with its numbers, or ``texts``, in its cells; options as seaborn's."""
    cells = {"annot": True, "fmt": "z.1f"} if texts is None else {"annot": texts, "fmt": ""}
    look = {"cmap": SEQUENTIAL, "cbar": False, "annot_kws": {"size": 8.5, "color": "black"}}
    sns.heatmap(grid, ax=ax, **(look | cells | options))
    ax.set(title=title, ylabel="")
    ax.tick_params(length=0, rotation=0)
    ax.grid(False)


def diverging(differences: pd.DataFrame) -> dict:
    """Of `heat`: colours that say by how much differences are above or below zero."""
    limit = max(0.1, np.nanmax(np.abs(differences)))
    return {"cmap": DIVERGING, "vmin": -limit, "vmax": limit}


def spread(table: pd.DataFrame, ax: Axes, size: float = 4, **options: object) -> None:
    """A violin a row, and every value as a dot in it; options as seaborn's.

    The dots' jitter has a generator of its own: seaborn would draw it from the global one.
    """
    violins = {"inner": None, "cut": 0, "linewidth": 0, "alpha": 0.3, "saturation": 1, "density_norm": "width"}
    sns.violinplot(table, ax=ax, legend=False, **violins, **options)
    known, generator = len(ax.collections), np.random.default_rng(0)
    sns.stripplot(table, ax=ax, jitter=False, size=size, alpha=0.6, **options)
    for marks in ax.collections[known:]:
        places = marks.get_offsets()
        marks.set_offsets(places + [0, 1] * generator.uniform(-0.2, 0.2, places.shape))
    ax.set(ylabel="")
    ax.tick_params(axis="y", length=0)
    ax.grid(True, axis="x")


def offsets(count: int, width: float = 0.6) -> np.ndarray:
    return (np.arange(count) - (count - 1) / 2) * width / max(count, 2)


def stem_axis(axis: Axes) -> None:
    axis.set(xticks=range(len(ORDER)), xticklabels=ORDER, xlim=(-0.5, len(ORDER) - 0.5))
    axis.axvline(len(ORDER) - 1.5, color="#BBBBBB", lw=0.8)
    axis.tick_params(axis="x", length=0)


def direct(axis: Axes, ends: dict[str, tuple[float, str]]) -> None:
    """Names right of an axis, beside the ends of their lines: (y, colour) by name; names that would meet move apart."""
    shown = without_kind("|".join(ends)).replace(", ", ",\n").split("|")
    texts = dict(sorted(zip(shown, ends.values(), strict=True), key=lambda item: item[1][0]))
    low, high = axis.get_ylim()
    height = 0.6 * axis.figure.get_figheight() / 0.2  # of the axis, about, in lines of text
    lines = [text.count("\n") + 1 for text in texts]
    wanted = [(y - low) / (high - low) * height for y, _ in texts.values()]
    places = wanted[:1]
    for before, after, y in zip(lines, lines[1:], wanted[1:], strict=False):
        places.append(max(y, places[-1] + (before + after) / 2 + 0.15))
    shift = np.mean(places) - np.mean(wanted)
    for (text, (_, color)), place in zip(texts.items(), places, strict=True):
        axis.text(1.03, (place - shift) / height, text, color=color, va="center", transform=axis.transAxes)


def budget_axis(axis: Axes, budgets: Sequence[int]) -> None:
    axis.set_xscale("log", base=2)
    axis.set_xticks(budgets, budgets)
    axis.minorticks_off()
    axis.set_xlim(budgets[0] / 1.35, budgets[-1] * 1.35)


def tested(table: pd.DataFrame, songs: str = "test song", seeds: str = "seed") -> str:
    """How many songs and seeds are behind a table, of scores or of differences."""
    count = table[["n_songs", "n_seeds"]].max() if "n_songs" in table else table[["song", "seed"]].nunique()
    return f"{counted(count.iloc[0], songs)}, {counted(count.iloc[1], seeds)}"


def names(figure: Figure, axis: Axes, columns: int = 4) -> None:
    """Names of what is drawn, in its colours, once for the whole figure."""
    handles, labels = axis.get_legend_handles_labels()
    for panel in figure.axes:
        if legend := panel.get_legend():
            legend.remove()
    unique = dict(zip(labels, handles, strict=True))
    shown = without_kind("\n".join(unique)).split("\n")
    figure.legend(unique.values(), shown, loc="outside upper left", ncols=columns, labelcolor="linecolor")
