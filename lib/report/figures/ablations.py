"""Figure of notebook 04: the gain at every level of every axis."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.report.figures.style import BLUE, COLORS, GREY, dots, drawn, tested
from lib.report.sentences import differs


def ablations(results: Path, effects: pd.DataFrame, primary: str = "uSDR") -> Figure:
    """Pre-trained minus scratch by level, an axis a block; filled where it is shown to differ from the base."""
    several = effects.groupby("axis")["level"].transform("size") > 1
    effects = effects[several] if several.any() else effects
    block = effects.groupby("axis", sort=False).ngroup().to_numpy()
    places = np.arange(len(effects)) + 1.7 * block
    with drawn(results, "ablations", height=1.0 + 0.165 * (places[-1] + 2)) as (figure, axes):
        axis = axes[0, 0]
        for place, base, shown, (_, row) in zip(
            places, effects["base"], differs(effects), effects.iterrows(), strict=True
        ):
            values, color = row[["difference", "low", "high"]].astype(float), GREY if base else BLUE
            values = pd.DataFrame([values.set_axis(["mean", "low", "high"])])
            dots(axis, values, place, color, "", hollow=not (shown or base), across=True)
        for name, first in zip(effects["axis"].unique(), places[np.diff(block, prepend=-1) > 0], strict=True):
            axis.text(0.01, first - 0.95, name, weight="bold", va="center", transform=axis.get_yaxis_transform())
        axis.axvline(0, color=COLORS["scratch"], lw=1.6)
        axis.set(yticks=places, yticklabels=effects["level"], ylim=(places[-1] + 0.8, -1.7))
        note = f"95% interval; {tested(effects)} a level\ngrey: the base; filled: differs from it"
        figure.supxlabel(f"pre-trained minus scratch, mean {primary} (dB)\n{note}")
        axis.grid(True, axis="x")
        axis.tick_params(axis="y", length=0)
    return figure
