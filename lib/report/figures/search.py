"""Figures of the search of schedules and of the map of the gain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.report.figures.style import COLORS, diverging, drawn, heat, names, tested


def search(results: Path, means: pd.DataFrame, primary: str = "uSDR") -> Figure:
    """Validation score of either arm by learning rate, a panel per length; the best of each arm ringed."""
    rates = sorted(means["learning_rate"].unique())
    rate_names = [np.format_float_scientific(rate, trim="-", exp_digits=1) for rate in rates]
    with drawn(results, "search", ncols=means["steps"].nunique(), sharey=True, height=3.2) as (figure, axes):
        for axis, (steps, chosen) in zip(axes[0], means.groupby("steps"), strict=True):
            for (method, body), part in chosen.groupby(["method", "body_rate"], sort=False):
                part, line = part.sort_values("learning_rate"), "-" if body == 1 else ":"
                label = method if body == 1 else f"{method}, body at {body:g} ×"
                best, look = part[part["best"]], {"color": COLORS[method]}
                axis.plot(part["learning_rate"], part["mean"], f"o{line}", **look, ms=5, label=label)
                axis.plot(best["learning_rate"], best["mean"], "o", **look, ms=13, mfc="none", mew=1.6)
            axis.set(xscale="log", title=f"{steps} steps", ymargin=0.15)
            axis.set_xticks(rates, rate_names)
            axis.minorticks_off()
        axes[0, 0].set_ylabel(f"validation {primary} (dB)")
        note = f"mean over stems and budgets, {tested(means, 'validation song')}"
        figure.supxlabel(f"learning rate; ring: best of its arm\n{note}")
        names(figure, axes[0, 0], 2)
    return figure


def regime(results: Path, table: pd.DataFrame) -> Figure:
    """Gain over scratch on validation songs by labelled songs (across) and pre-training steps (up)."""
    text = "{:+.2f}\n({:+.2f} to {:+.2f})" if table["n_songs"].max() > 1 else "{:+.2f}"  # one song has no interval
    texts = [text.format(*row) for row in table[["difference", "low", "high"]].to_numpy()]
    grids = table.assign(text=texts).pivot(index="pretrain_steps", columns="labeled_songs").iloc[::-1]
    with drawn(results, "regime", height=1.3 + 0.75 * len(grids)) as (figure, axes):
        title = tested(table, "validation song") + (", 95% interval" if table["n_songs"].max() > 1 else "")
        bar = {"label": f"{table['metric'].iloc[0]} above scratch (dB)", "shrink": 0.9}
        look = diverging(grids["difference"])
        heat(axes[0, 0], grids["difference"], title, grids["text"], **look, cbar=True, cbar_kws=bar)
        axes[0, 0].set(xlabel="labelled songs", ylabel="pre-training steps")
    return figure
