"""Figures of the search of schedules and of the map of the gain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from lib.report.figures.style import COLORS, WIDTH, drawn, names
from lib.report.sentences import counted


def search(results: Path, means: pd.DataFrame) -> Figure:
    """Validation uSDR of either arm by learning rate, a panel per length; the best of each arm ringed."""
    lengths = sorted(means["steps"].unique())
    with drawn(results, "search", ncols=len(lengths), sharey=True, figsize=(WIDTH, 3.2)) as (figure, axes):
        for axis, steps in zip(axes[0], lengths, strict=True):
            chosen = means[means["steps"] == steps]
            for (method, body), part in chosen.groupby(["method", "body_rate"], sort=False):
                part, line = part.sort_values("learning_rate"), "-" if body == 1 else ":"
                label = method if body == 1 else f"{method}, body at {body:g} ×"
                axis.plot(part["learning_rate"], part["mean"], f"o{line}", color=COLORS[method], ms=5, label=label)
                best = part[part["best"]]
                axis.plot(best["learning_rate"], best["mean"], "o", ms=13, mfc="none", mew=1.6, color=COLORS[method])
            axis.set(xscale="log", title=f"{steps} steps", ymargin=0.15)
            rates = sorted(means["learning_rate"].unique())
            axis.xaxis.set_major_locator(FixedLocator(rates))
            axis.xaxis.set_minor_locator(NullLocator())
            axis.set_xticklabels([f"{1000 * rate:g}" for rate in rates])
        axes[0, 0].set_ylabel("validation uSDR (dB)")
        n = f"{counted(means['n_songs'].iloc[0], 'validation song')}, {counted(means['n_seeds'].iloc[0], 'seed')}"
        figure.supxlabel(f"learning rate (thousandths); ring: best of its arm\nmean over stems and budgets, {n}")
        names(figure, axes[0, 0], 2)
    return figure


def regime(results: Path, table: pd.DataFrame) -> Figure:
    """Gain over scratch on validation songs by labelled songs (across) and pre-training steps (up)."""
    steps, songs = (sorted(table[name].unique()) for name in ("pretrain_steps", "labeled_songs"))
    grid = table.pivot(index="pretrain_steps", columns="labeled_songs", values="difference").loc[steps[::-1], songs]
    cells = table.set_index(["pretrain_steps", "labeled_songs"])
    limit = max(0.1, float(np.nanmax(np.abs(table[["low", "high"]]))))
    with drawn(results, "regime", figsize=(WIDTH, 1.3 + 0.75 * len(steps))) as (figure, axes):
        axis = axes[0, 0]
        image = axis.imshow(grid, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto")
        for y, x in np.ndindex(grid.shape):
            cell = cells.loc[(steps[::-1][y], songs[x])]
            text = f"{cell['difference']:+.2f}"
            if cell["n_songs"] > 1:  # one song has no interval
                text += f"\n({cell['low']:+.2f} to {cell['high']:+.2f})"
            dark = abs(cell["difference"]) > 0.6 * limit
            axis.text(x, y, text, ha="center", va="center", fontsize=9, color="white" if dark else "black")
        axis.set_xticks(range(len(songs)), songs)
        axis.set_yticks(range(len(steps)), steps[::-1])
        axis.set(xlabel="labelled songs", ylabel="pre-training steps")
        axis.tick_params(length=0)
        axis.grid(False)
        figure.colorbar(image, ax=axis, label="uSDR above scratch (dB)", shrink=0.9)
        counts = f"{counted(table['n_songs'].max(), 'validation song')}, {counted(table['n_seeds'].max(), 'seed')}"
        axis.set_title(counts if table["n_songs"].max() == 1 else f"{counts}, 95% interval")
    return figure


def _budgets(axis, budgets: list[int]) -> None:
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_locator(FixedLocator(budgets))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticklabels([str(budget) for budget in budgets])
    axis.set_xlim(budgets[0] / 1.35, budgets[-1] * 1.35)
