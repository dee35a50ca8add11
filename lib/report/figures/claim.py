"""Figures of the claim: learning curves, scores, paired differences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from lib import STEMS
from lib.experiments.intervals import LEVEL
from lib.report.figures.style import (
    COLORS,
    GREY,
    ORDER,
    budget_axis,
    direct,
    dots,
    drawn,
    intervals,
    names,
    offsets,
    over_tracks,
    per_song,
    spread,
    stem_axis,
    tested,
)
from lib.report.sentences import PRETRAINED_STALLED_ARM, STALLED_ARM, counted, primary
from lib.scoring import MEAN

SAME_STEPS, UNTIL_STALL = "both for the\nsame steps", "both until\nthey stall"


def learning_curves(results: Path, name: str, table: pd.DataFrame, unit: str) -> Figure:
    """Validation loss by step, mean over seeds and every seed as a thin line; training loss too if one run is shown."""
    panels = list(table.groupby(table["labeled_songs"].fillna(0), sort=False))
    with drawn(results, name, height=3.2, ncols=len(panels), sharey=True) as (figure, axes):
        for axis, (budget, part) in zip(axes[0], panels, strict=True):
            of_a_run = [name for name in ("method", "seed", "fold") if name in part]
            part = part.assign(run=part.groupby(of_a_run, dropna=False).ngroup())
            for method, runs in part.groupby("method", sort=False):
                losses = runs.pivot(index="step", columns=["metric", "run"], values="value")
                for run in (held := losses["validation_loss"]):
                    axis.plot(held[run].dropna(), color=COLORS[method], lw=0.6, alpha=0.3)
                # runs end where they stall, and a mean of what is left would jump there
                axis.plot(held.dropna().mean(axis=1), color=COLORS[method], lw=2, label=method)
            if part["run"].nunique() == 1:
                label = "training batches since the validation before"
                axis.plot(losses["loss"], color=GREY, lw=1, zorder=1, label=label)
            axis.set(title=counted(int(budget), "song") if budget else "")
            if part.groupby("method")["step"].max().nunique() > 1:  # equal compute takes many more steps
                axis.set_xscale("log")
                axis.xaxis.set_major_formatter("{x:g}")
                axis.xaxis.set_minor_formatter(NullFormatter())
                axis.set_xlim(left=part["step"].min())
        axes[0, 0].set_ylabel(unit)
        seeds = table["seed"].nunique()
        what = "; labelled songs above" if len(panels) > 1 else ""
        figure.supxlabel(f"step (thin: each of {seeds} seeds){what}" if seeds > 1 else "step")
        names(figure, axes[0, -1], 2)
    return figure


def claim(results: Path, table: pd.DataFrame) -> Figure:
    """Every arm minus scratch, mean over stems, by labelled songs: above zero, the arm helps."""
    table = table[(table["against"] == "scratch") & (table["stem"] == MEAN)]
    pairs = {method: (method, "scratch") for method in dict.fromkeys(table["method"])}
    return _differences(results, "claim", table, pairs, "above scratch (dB)")


def gain(results: Path, table: pd.DataFrame, method: str) -> Figure:
    """What pre-training adds where both arms have one schedule: the common one, and training on until they stall."""
    table = table[table["stem"] == MEAN]
    known = set(zip(table["method"], table["against"], strict=True))
    pairs = {SAME_STEPS: (method, "scratch"), UNTIL_STALL: (PRETRAINED_STALLED_ARM, STALLED_ARM)}
    pairs = {label: pair for label, pair in pairs.items() if pair in known}
    return _differences(results, "gain", table, pairs, "pre-trained minus scratch (dB)")


def _differences(results: Path, name: str, table: pd.DataFrame, pairs: dict[str, tuple[str, str]], what: str) -> Figure:
    """Differences of pairs of arms by labelled songs, with their intervals; the primary metric beside cSDR."""
    budgets = sorted(table["labeled_songs"].unique())
    with drawn(results, name, ncols=2, sharey=True, height=3.0 + 0.1 * len(pairs)) as (figure, axes):
        for axis, metric in zip(axes[0], (primary(table), "cSDR"), strict=True):
            chosen, ends = table[table["metric"] == metric].set_index(["method", "against"]).sort_index(), {}
            for shift, (label, pair) in zip(offsets(len(pairs), 0.5), pairs.items(), strict=True):
                rows = chosen.loc[[pair]].set_index("labeled_songs").loc[budgets]
                ends[label] = _line(axis, rows.rename(columns={"difference": "mean"}), shift, pair[0], label)
            axis.axhline(0, color=COLORS["scratch"], lw=1.6)
            axis.set(title=metric, xlabel="labelled songs")
            budget_axis(axis, budgets)
        direct(axis, ends | {"scratch": (0, COLORS["scratch"])})
        axes[0, 0].set_ylabel(what)
        figure.supxlabel(f"mean over stems, paired by song and seed; 95% interval\n{tested(table)}")
    return figure


def _line(axis: Axes, rows: pd.DataFrame, shift: float, method: str, label: str, **look: object) -> tuple[float, str]:
    """Means with their intervals by labelled songs (the index), shifted a little beside others; its end and colour."""
    bars, color = [rows["mean"] - rows["low"], rows["high"] - rows["mean"]], COLORS[method]
    look |= {"fmt": "o-" if len(rows) > 1 else "o", "ms": 6, "lw": 1.6, "color": color, "label": label}
    axis.errorbar(rows.index * 2**shift, rows["mean"], bars, **look)
    return rows["mean"].iloc[-1], color


def claim_stems(results: Path, table: pd.DataFrame, method: str) -> Figure:
    """One transfer minus scratch, stem by stem, a dot per budget; filled where Holm's correction leaves it below 5%."""
    table = table[(table["against"] == "scratch") & (table["method"] == method)]
    budgets = sorted(table["labeled_songs"].unique())
    shades = sns.color_palette("Blues_d", len(budgets))
    with drawn(results, "claim_stems", nrows=2, sharex=True, height=5.0) as (figure, axes):
        for axis, metric in zip(axes[:, 0], (primary(table), "cSDR"), strict=True):
            for shift, budget, color in zip(offsets(len(budgets), 0.5), budgets, shades, strict=True):
                rows = table[(table["metric"] == metric) & (table["labeled_songs"] == budget)]
                rows = rows.set_index("stem").reindex(ORDER).rename(columns={"difference": "mean"})
                dots(axis, rows, shift, color, counted(budget, "labelled song"), hollow=True)
                dots(axis, rows.where(rows["p_holm"] < LEVEL), shift, color, "")
            axis.axhline(0, color=COLORS["scratch"], lw=1.6)
            stem_axis(axis)
            axis.set_ylabel(f"{metric} above scratch (dB)")
        figure.supxlabel(f"pre-trained minus scratch, 95% interval; {tested(table)}\nfilled: p < 0.05 after Holm")
        names(figure, axes[0, 0], 4)
    return figure


def budgets(results: Path, table: pd.DataFrame, metric: str = "uSDR") -> Figure:
    """Scores of every arm by labelled songs: how far right an equal score lies is what pre-training saves in labels."""
    table = table[(table["experiment"] == "test") & (table["metric"] == metric) & table["labeled_songs"].notna()]
    methods, budgets = table["method"].unique(), sorted(table["labeled_songs"].unique())
    with drawn(results, "budgets", height=3.6) as (figure, axes):
        axis, ends = axes[0, 0], {}
        for shift, method in zip(offsets(len(methods), 0.25), methods, strict=True):
            parts = {songs: table[table["labeled_songs"] == songs] for songs in budgets}
            rows = pd.DataFrame({songs: intervals(part, method).loc[MEAN] for songs, part in parts.items()}).T
            ends[method] = _line(axis, rows, shift, method, method, elinewidth=0.8)
        budget_axis(axis, budgets)
        direct(axis, ends)
        axis.set(xlabel="labelled songs", ylabel=f"mean {metric} (dB)")
        figure.supxlabel(f"mean of {tested(table)}\nthin bars: 95% interval of means, not of differences")
    return figure


def scores(
    results: Path, table: pd.DataFrame, name: str, budget: int, experiment: str = "test", metric: str = "uSDR"
) -> Figure:
    """Primary metric and cSDR per stem of every method at one budget, between the mixture and the ideal ratio mask."""
    table = table[(table["experiment"] == experiment) & table["labeled_songs"].fillna(budget).eq(budget)]
    methods = list(dict.fromkeys(table.loc[table["seed"].notna(), "method"]))
    with drawn(results, name, nrows=2, sharex=True, height=5.2) as (figure, axes):
        for axis, shown in zip(axes[:, 0], (metric, "cSDR"), strict=True):
            part = table[table["metric"] == shown]
            for baseline, dashes in (("ideal ratio mask", "-"), ("mixture", "--")):
                level, places = over_tracks(part, baseline)["mean"], np.arange(len(ORDER))
                axis.hlines(level, places - 0.42, places + 0.42, COLORS[baseline], dashes, lw=1.6, label=baseline)
            for offset, method in zip(offsets(len(methods)), methods, strict=True):
                dots(axis, over_tracks(part, method), offset, COLORS[method], method)
            stem_axis(axis)
            axis.set_ylabel(f"{shown} (dB)")
        note = f"{tested(table, 'song')}; {metric}: mean with 95% interval, cSDR: median over songs"
        figure.supxlabel(f"{counted(budget, 'labelled song')}\n{note}")
        names(figure, axes[0, 0], 3)
    return figure


def songs(results: Path, table: pd.DataFrame, budget: int, metric: str = "uSDR") -> Figure:
    """Pre-trained minus scratch of every test song, stem by stem."""
    table = table[(table["experiment"] == "test") & (table["metric"] == metric) & (table["labeled_songs"] == budget)]
    methods = [method for method in dict.fromkeys(table["method"]) if method.startswith("pre-trained (")]
    gains = {method: per_song(table, method) - per_song(table, "scratch") for method in methods}
    gains = pd.concat(gains, names=["method"]).reset_index().melt(["method", "song"], var_name="stem")
    with drawn(results, "songs", height=2.6 + 1.0 * len(methods)) as (figure, axes):
        axis = axes[0, 0]
        spread(gains, axis, x="value", y="stem", order=STEMS, hue="method", palette=COLORS, dodge=True)
        axis.axvline(0, color=COLORS["scratch"], lw=1.6, label="scratch")
        note = f"dot: one of {tested(table)} averaged; {counted(budget, 'labelled song')}"
        axis.set_xlabel(f"{metric} above scratch (dB)\n{note}")
        names(figure, axis, 3)
    return figure
