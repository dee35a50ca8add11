"""Figures of the claim: learning curves, scores, paired differences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from lib import STEMS
from lib.experiments.intervals import LEVEL
from lib.report.figures.search import _budgets
from lib.report.figures.style import (
    COLORS,
    METRICS,
    ORDER,
    WIDTH,
    dots,
    drawn,
    intervals,
    names,
    offsets,
    per_song,
    stem_axis,
)
from lib.report.sentences import EQUAL_ARM, LONG_ARM, counted
from lib.scoring import MEAN


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
                axis.plot(seeds.index, seeds, color=color, lw=0.6, alpha=0.3)
                common = seeds.dropna()  # runs end where they stall; a mean of what is left would jump there
                axis.plot(common.index, common.mean(axis=1), color=color, lw=2, label="validation" if one else method)
            if one:
                loss = part[part["metric"] == "loss"].set_index("step")["value"]
                axis.plot(loss, color="#7F7F7F", lw=1, zorder=1, label="training batches since the validation before")
            axis.set_title(counted(int(budget), "song") if budget else "")
            if part.groupby("method")["step"].max().nunique() > 1:  # equal compute takes many more steps
                axis.set_xscale("log")
                axis.xaxis.set_major_formatter("{x:g}")
                axis.xaxis.set_minor_formatter(NullFormatter())
                axis.set_xlim(left=part["step"][part["metric"] == "validation_loss"].min())
        axes[0, 0].set_ylabel(unit)
        seeds = table["seed"].nunique()
        what = "; labelled songs above" if len(budgets) > 1 else ""
        figure.supxlabel(f"step (thin: each of {seeds} seeds){what}" if seeds > 1 else "step")
        names(figure, axes[0, -1], 2)
    return figure


def claim(results: Path, table: pd.DataFrame) -> Figure:
    """Every arm minus scratch, mean over stems, by labelled songs: above zero, the arm helps."""
    table = table[(table["against"] == "scratch") & (table["stem"] == MEAN)]
    pairs = {method: (method, "scratch") for method in dict.fromkeys(table["method"])}
    return _differences(results, "claim", table, pairs, "scratch", "above scratch (dB)")


def gain(results: Path, table: pd.DataFrame, method: str) -> Figure:
    """What pre-training adds where both arms take the same supervised steps: the common schedule, and the long one."""
    table = table[table["stem"] == MEAN]
    known = set(zip(table["method"], table["against"], strict=True))
    pairs = {"both on the common schedule": (method, "scratch"), "both trained until they stall": (LONG_ARM, EQUAL_ARM)}
    pairs = {label: pair for label, pair in pairs.items() if pair in known}
    return _differences(results, "gain", table, pairs, "scratch with as many steps", "pre-trained above scratch (dB)")


def _differences(
    results: Path, name: str, table: pd.DataFrame, pairs: dict[str, tuple[str, str]], zero: str, what: str
) -> Figure:
    """Differences of pairs of arms by labelled songs, with their intervals; uSDR beside cSDR."""
    budgets = sorted(table["labeled_songs"].unique())
    with drawn(results, name, ncols=2, sharey=True, figsize=(WIDTH, 3.8)) as (figure, axes):
        for axis, metric in zip(axes[0], METRICS, strict=True):
            chosen = table[table["metric"] == metric].set_index(["method", "against"]).sort_index()
            for shift, (label, pair) in zip(offsets(len(pairs), 0.5), pairs.items(), strict=True):
                rows = chosen.loc[[pair]].set_index("labeled_songs").loc[budgets]
                bars = [rows["difference"] - rows["low"], rows["high"] - rows["difference"]]
                x, style = np.array(budgets) * 2**shift, {"ms": 6, "lw": 1.6, "color": COLORS[pair[0]]}
                axis.errorbar(x, rows["difference"], bars, fmt="o-" if len(budgets) > 1 else "o", label=label, **style)
            axis.axhline(0, color=COLORS["scratch"], lw=1.6, label=zero)
            axis.set(title=metric, xlabel="labelled songs")
            _budgets(axis, budgets)
        axes[0, 0].set_ylabel(what)
        figure.supxlabel(f"mean over stems of paired differences\n95% interval; {_tested(table)}")
        names(figure, axes[0, 0], 2)
    return figure


def _tested(table: pd.DataFrame) -> str:
    return f"{counted(table['n_songs'].max(), 'test song')}, {counted(table['n_seeds'].max(), 'seed')}"


def claim_stems(results: Path, table: pd.DataFrame, method: str) -> Figure:
    """One transfer minus scratch, stem by stem, a dot per budget; filled where Holm's correction leaves it below 5%."""
    table = table[(table["against"] == "scratch") & (table["method"] == method)]
    budgets = sorted(table["labeled_songs"].unique())
    shades = [_shade(i, len(budgets)) for i in range(len(budgets))]
    with drawn(results, "claim_stems", nrows=2, sharex=True, figsize=(WIDTH, 5.0)) as (figure, axes):
        for axis, metric in zip(axes[:, 0], METRICS, strict=True):
            for shift, budget, color in zip(offsets(len(budgets), 0.5), budgets, shades, strict=True):
                rows = table[(table["metric"] == metric) & (table["labeled_songs"] == budget)]
                rows = rows.set_index("stem").reindex(ORDER).rename(columns={"difference": "mean"})
                dots(axis, rows, shift, color, counted(budget, "labelled song"), hollow=True)
                sure = rows.reset_index(drop=True)
                sure = sure[sure["p_holm"] < LEVEL]
                axis.plot(sure.index + shift, sure["mean"], "o", ms=6, color=color, zorder=3)
            axis.axhline(0, color=COLORS["scratch"], lw=1.6)
            stem_axis(axis)
            axis.set_ylabel(f"{metric} above scratch (dB)")
        figure.supxlabel(f"{method}; {_tested(table)}; 95% interval\nfilled: p < 0.05 (stems: after Holm's correction)")
        names(figure, axes[0, 0], 4)
    return figure


def _shade(number: int, count: int) -> str:
    """Shades of blue from light to dark."""
    shades = ("#86BCE0", "#4C97CC", "#0072B2", "#00507E", "#00304D")
    return shades[2] if count == 1 else shades[round(number * (len(shades) - 1) / (count - 1))]


def budgets(results: Path, table: pd.DataFrame) -> Figure:
    """uSDR of every arm by labelled songs: how far right an equal score lies is what pre-training saves in labels."""
    table = table[(table["experiment"] == "test") & (table["metric"] == "uSDR") & table["labeled_songs"].notna()]
    methods, counts = list(dict.fromkeys(table["method"])), sorted(int(n) for n in table["labeled_songs"].unique())
    with drawn(results, "budgets", figsize=(WIDTH, 3.6)) as (figure, axes):
        axis = axes[0, 0]
        for shift, method in zip(offsets(len(methods), 0.25), methods, strict=True):
            rows = pd.DataFrame({
                n: intervals(per_song(table[table["labeled_songs"] == n], method)).loc[MEAN] for n in counts
            }).T  # fmt: skip
            style = {"ms": 6, "lw": 1.6, "color": COLORS[method], "elinewidth": 0.8}
            bars = [rows["mean"] - rows["low"], rows["high"] - rows["mean"]]
            axis.errorbar(np.array(counts) * 2**shift, rows["mean"], bars, fmt="o-", label=method, **style)
        _budgets(axis, counts)
        axis.set(xlabel="labelled songs", ylabel="mean uSDR (dB)")
        songs, seeds = counted(table["song"].nunique(), "test song"), counted(table["seed"].nunique(), "seed")
        figure.supxlabel(f"mean of {songs}, {seeds} averaged\nthin bars: 95% interval over songs, not of differences")
        names(figure, axis, 2)
    return figure


def scores(results: Path, table: pd.DataFrame, name: str, budget: int, experiment: str = "test") -> Figure:
    """uSDR and cSDR per stem of every method at one budget, between the mixture and the ideal ratio mask."""
    table = table[(table["experiment"] == experiment) & table["labeled_songs"].fillna(budget).eq(budget)]
    methods = list(dict.fromkeys(table.loc[table["seed"].notna(), "method"]))
    with drawn(results, name, nrows=2, sharex=True, figsize=(WIDTH, 5.8)) as (figure, axes):
        for axis, metric in zip(axes[:, 0], METRICS, strict=True):
            part = table[table["metric"] == metric]
            for baseline, style in (("ideal ratio mask", "-"), ("mixture", "--")):
                level, places = intervals(per_song(part, baseline))["mean"], np.arange(len(ORDER))
                axis.hlines(level, places - 0.42, places + 0.42, COLORS[baseline], style, lw=1.6, label=baseline)
            for offset, method in zip(offsets(len(methods)), methods, strict=True):
                dots(axis, intervals(per_song(part, method)), offset, COLORS[method], method)
            stem_axis(axis)
            axis.set_ylabel(f"{metric} (dB)")
        songs = table["song"].nunique()
        spread = f"mean of {songs} test songs, 95% interval over songs" if songs > 1 else "one song"
        seeds = counted(table["seed"].nunique(), "seed")
        figure.supxlabel(f"{counted(budget, 'labelled song')}, {seeds} averaged\n{spread}")
        names(figure, axes[0, 0], 2)
    return figure


def songs(results: Path, table: pd.DataFrame, budget: int) -> Figure:
    """uSDR of every test song, from scratch across and pre-trained up: above the diagonal, pre-training helps."""
    table = table[(table["experiment"] == "test") & (table["metric"] == "uSDR") & (table["labeled_songs"] == budget)]
    methods = [method for method in dict.fromkeys(table["method"]) if method.startswith("pre-trained (")]
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
        names(figure, axes[0, 0], 3)
    return figure
