"""Simulated listeners: ratings of known quality, for tests and demonstrations of the analysis.

They are no evidence about sounds; every result is labelled (column ``simulated``, file names, titles).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lib.listening.blind.design import HIDDEN, LOW_ANCHOR, MID_ANCHOR

SIMULATED = "simulated"
KNOWN = {HIDDEN: 100.0, LOW_ANCHOR: 20.0, MID_ANCHOR: 45.0}
"""Points of conditions whatever their SDR, which is high for stems without treble."""


@dataclass(frozen=True)
class SimulatedListeners:
    """Standard deviations of the listeners' ``offset`` (points), of their relative range and of their noise (points).

    A share ``careless`` of the listeners does not recognise the hidden reference.
    """

    offset: float = 6.0
    spread: float = 0.15
    noise: float = 10.0
    careless: float = 0.0


def quality(design: Mapping) -> dict[tuple[str, str, str], float]:
    """Points from 0 to 100 by (song, stem, condition): a logistic function of SDR (0 dB: 40, 10 dB: 67)."""
    points = {}
    for item in design["items"]:
        for name, facts in item["conditions"].items():
            sdr = 60.0 if facts["sdr"] is None else np.clip(facts["sdr"], -30, 60)
            logistic = 100 / (1 + np.exp(-(sdr - 3.6) / 9))
            points[item["song"], item["stem"], name] = KNOWN.get(name, float(logistic))
    return points


def ratings(
    questions: Sequence[str],
    known: Mapping[tuple[str, str, str], float],
    listeners: int,
    seed: int,
    panel: SimulatedListeners = SimulatedListeners(),
) -> pd.DataFrame:
    """MUSHRA ratings by simulated ``listeners`` of conditions of ``known`` quality.

    Columns: participant, question, song, stem, condition, value, simulated (always true).
    """
    draw, rows = np.random.default_rng(seed), []
    careless = draw.permutation(listeners) < round(panel.careless * listeners)
    keys = [(question, *key) for question in questions for key in known]
    points = np.array([known[key[1:]] for key in keys])
    hidden = np.array([key[3] == HIDDEN for key in keys])
    for number in range(listeners):
        offset, steep = panel.offset * draw.standard_normal(), 1 + panel.spread * draw.standard_normal()
        rated = 50 + steep * (points - 50) + offset + panel.noise * draw.standard_normal(len(keys))
        recognised = draw.random(len(keys)) < (0.2 if careless[number] else 0.98)
        rated = np.where(hidden, np.where(recognised, 100, np.minimum(rated, 85)), rated)
        facts = {"participant": f"SIM{number:03}", SIMULATED: True}
        rows += [
            {**facts, "question": question, "song": song, "stem": stem, "condition": name, "value": value}
            for (question, song, stem, name), value in zip(keys, rated.round().clip(0, 100), strict=True)
        ]
    return pd.DataFrame(rows)
