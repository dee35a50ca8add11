"""Figures of notebook 04: one axis of the ablations at a time."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from lib.report.figures.style import COLORS, dots, drawn, intervals, names, offsets, tested
from lib.scoring import MEAN


def ablation(results: Path, table: pd.DataFrame, effects: pd.DataFrame) -> Figure:
    """One axis: uSDR over stems of both arms by level, and their paired difference (``effects``)."""
    axis_name, levels = table["experiment"].iloc[0], list(dict.fromkeys(table["level"]))
    table = table[table["metric"] == "uSDR"].assign(method=lambda rows: rows["arm"])
    by_level = [table[table["level"] == level] for level in levels]
    name = re.sub(r"\W+", "_", f"ablation {axis_name}")
    with drawn(results, name, nrows=2, sharex=True, height=4.4, height_ratios=[1.2, 1]) as (figure, axes):
        top, bottom = axes[:, 0]
        for offset, method in zip(offsets(2, 0.3), ("scratch", "pre-trained"), strict=True):
            rows = [intervals(part, method).loc[MEAN] for part in by_level]
            dots(top, pd.DataFrame(rows), offset, COLORS[method], method)
        effects = effects.set_index("level").loc[levels].rename(columns={"difference": "mean"})
        dots(bottom, effects, 0, COLORS["pre-trained"], "")
        bottom.axhline(0, color=COLORS["scratch"], lw=1.6)
        base = [levels.index(level) for level in dict.fromkeys(table.loc[table["base"], "level"])]
        for axis, title in ((top, "uSDR (dB)"), (bottom, "above scratch (dB)")):
            axis.set(ylabel=title, xlim=(-0.5, len(levels) - 0.5))
            for place in base:
                axis.axvspan(place - 0.5, place + 0.5, color="#F0F0F0", zorder=0)
        broken = [re.sub(r" (?=\+ )|(?<=[a-z)]) (?=[a-z(])", "\n", level) for level in levels]
        bottom.set_xticks(range(len(levels)), broken)
        figure.supxlabel(f"{axis_name}; grey: the base; {tested(table)}, 95% interval")
        names(figure, top, 2)
    return figure
