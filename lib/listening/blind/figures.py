"""Figures of the listening tests (notebook 05)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from lib.listening.blind.design import FIXED, HIDDEN
from lib.listening.blind.simulated import SIMULATED
from lib.report.figures.style import COLORS, dots, drawn, spread
from lib.report.sentences import counted
from lib.scoring import MEAN

BANDS = ("Bad", "Poor", "Fair", "Good", "Excellent")
ANCHOR_COLORS = dict(zip(FIXED, ("#4D4D4D", "#BDBDBD", "#A6A6A6", "#999999"), strict=True))
SPARE = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7")


def ratings(results: Path, table: pd.DataFrame, means: pd.DataFrame) -> Figure:
    """Violins and points of the ratings by condition, one panel per question, with means and 95% intervals.

    The title and the file name mark a simulated panel.
    """
    simulated, questions = SIMULATED in table, list(table["question"].unique())
    methods = sorted(set(table["condition"]) - set(FIXED))
    order = [HIDDEN, *methods, *(name for name in reversed(FIXED[1:]) if name in set(table["condition"]))]
    colors = {name: COLORS.get(name, SPARE[n % len(SPARE)]) for n, name in enumerate(methods)} | ANCHOR_COLORS
    name = "listening_simulated" if simulated else "listening"
    height = 0.9 + (0.6 + 0.36 * len(order)) * len(questions)
    with drawn(results, name, height, nrows=len(questions), sharex=True) as (figure, axes):
        for axis, question in zip(axes[:, 0], questions, strict=True):
            part = table[table["question"] == question]
            options = {"x": "value", "y": "condition", "order": order, "hue": "condition", "palette": colors}
            spread(part, axis, size=2, **options)
            rows = means[(means["question"] == question) & (means["stem"] == MEAN)].set_index("condition").loc[order]
            dots(axis, rows, 0, "black", "", across=True)
            axis.set(xlim=(-1, 101), xticks=range(0, 101, 20), xlabel="", title=question)
        for number, band in enumerate(BANDS):
            style = {"ha": "center", "fontsize": 9, "color": "#666666"}
            place = ((20 * number + 10, 0), (0, -26), ("data", "axes fraction"), "offset points")
            axes[-1, 0].annotate(band, *place, **style)
        people = counted(table["participant"].nunique(), "SIMULATED listener" if simulated else "listener")
        figure.supxlabel(f"\nrating; {people}, {counted(table['song'].nunique(), 'song')}; dot: mean and 95% interval")
        if simulated:
            title = "Simulated panel: demonstrates the analysis, no evidence about sounds"
            figure.suptitle(title, color="#B3261E", x=0.02, ha="left")
    return figure
