"""Simulated listeners: ratings of known quality, for tests and demonstrations of the analysis.

They are no evidence about sounds; every result is labelled (column ``simulated``, file names, titles).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lib import scoring
from lib.listening.blind.design import HIDDEN, LOW_ANCHOR, Item
from lib.profile.fields import Blind

SIMULATED = "simulated"


@dataclass(frozen=True)
class SimulatedListeners:
    """Standard deviations of the listeners' ``offset`` (points), of their relative range and of their noise (points).

    A share ``careless`` of the listeners does not recognise the hidden reference.
    """

    offset: float = 6.0
    spread: float = 0.15
    noise: float = 10.0
    careless: float = 0.0


def quality(settings: Blind, items: Sequence[Item]) -> dict[tuple[str, str, str], float]:
    """Points from 0 to 100 by (song, stem, condition): a logistic function of SDR (0 dB: 40, 10 dB: 67).

    The low anchor has 20 points, independent of its SDR, which is high for stems without treble.
    """
    points = {}
    for item in items:
        for name, wave in item.conditions.items():
            sdr = scoring.usdr(item.reference[None], wave[None])[0]
            logistic = 100 / (1 + np.exp(-(np.clip(sdr, -30, 60) - 3.6) / 9))
            points[item.song, item.stem, name] = {HIDDEN: 100.0, LOW_ANCHOR: 20.0}.get(name, float(logistic))
    return points


def ratings(
    settings: Blind,
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
    keys = [(question, *key) for question in settings.questions for key in known]
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


def listening_to(settings: Blind, items: Sequence[Item]) -> pd.DataFrame:
    """Ratings by the panel of a profile, of which a tenth is careless."""
    return ratings(settings, quality(settings, items), settings.panel, settings.seed, SimulatedListeners(careless=0.1))
