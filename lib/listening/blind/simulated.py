"""Simulated listeners: ratings that follow a known quality, so that the analysis can be run and tested without people.

Nothing here is evidence about sounds. Whatever is made from it says so: column ``simulated``, file names, titles.
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
    """How simulated listeners rate: spreads in points of the scale, and the share of those who do not listen.

    A listener has an offset and a range of their own; every answer has noise. Careless listeners do not recognise the
    hidden reference.
    """

    offset: float = 6.0
    spread: float = 0.15
    noise: float = 10.0
    careless: float = 0.0


def quality(settings: Blind, items: Sequence[Item]) -> dict[tuple[str, str, str], float]:
    """Points from 0 to 100 by (song, stem, condition), rising with the SDR of what is played: 0 dB 40, 10 dB 67.

    The low anchor is one to every listener, whatever its SDR, which counts the bass that it keeps.
    """
    found = {}
    for item in items:
        for name, wave in item.conditions.items():
            sdr = scoring.usdr(item.reference[None], wave[None])[0]
            points = 100 / (1 + np.exp(-(np.clip(sdr, -30, 60) - 3.6) / 9))
            found[item.song, item.stem, name] = {HIDDEN: 100.0, LOW_ANCHOR: 20.0}.get(name, float(points))
    return found


def ratings(
    settings: Blind,
    known: Mapping[tuple[str, str, str], float],
    listeners: int,
    seed: int,
    panel: SimulatedListeners = SimulatedListeners(),
) -> pd.DataFrame:
    """MUSHRA answers of ``listeners`` simulated listeners to the conditions of ``known`` quality.

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
        # who listens recognises the reference nearly always, and gives it 100
        told = draw.random(len(keys)) < (0.2 if careless[number] else 0.98)
        rated = np.where(hidden, np.where(told, 100, np.minimum(rated, 85)), rated)
        facts = {"participant": f"SIM{number:03}", SIMULATED: True}
        rows += [
            {**facts, "question": question, "song": song, "stem": stem, "condition": name, "value": value}
            for (question, song, stem, name), value in zip(keys, rated.round().clip(0, 100), strict=True)
        ]
    return pd.DataFrame(rows)


def listening_to(settings: Blind, items: Sequence[Item]) -> pd.DataFrame:
    """The panel of a profile's notebook: ratings follow the SDR of what the test would play; a tenth is careless."""
    return ratings(settings, quality(settings, items), settings.panel, settings.seed, SimulatedListeners(careless=0.1))
