"""Words that tables, captions, notebooks and pages share: counts, verdicts, intervals."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pandas as pd

from lib.arms import PRETRAINED_STALLED, STALLED, method_name
from lib.experiments.intervals import FEW_SONGS, direction
from lib.scoring import MEAN

STALLED_ARM, PRETRAINED_STALLED_ARM = map(method_name, (STALLED, PRETRAINED_STALLED))
UNDECIDED = "is undecided"


def counted(number: float, name: str) -> str:
    """ "1 seed", "3 seeds"."""
    return f"{int(number)} {name}" if number == 1 else f"{int(number)} {name}s"


def listed(items: Iterable[object]) -> str:
    """ "1", "1 and 4", "1, 4 and 16"."""
    *first, last = map(str, items)
    return f"{', '.join(first)} and {last}" if first else last


def labelled(budgets: Iterable[int]) -> str:
    """ "1 labelled song", "1, 4 and 16 labelled songs"."""
    return f"{listed(budgets)} labelled song{'s' if max(budgets) > 1 else ''}"


def sentence(text: str) -> str:
    """``text`` with a capital and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def p_short(p: float) -> str:
    """ "< 0.001", "0.014"."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def p_value(p: float) -> str:
    """ "p < 0.001", "p = 0.014"."""
    return f"p {p_short(p)}" if p < 0.001 else f"p = {p_short(p)}"


def without_kind(text: str) -> str:
    """The text, where it names one kind of transfer alone, as *pre-trained (sliced)*, without it: *pre-trained*."""
    kinds = set(re.findall(r"pre-trained \(\w+\)", text))
    return text.replace(kinds.pop(), "pre-trained") if len(kinds) == 1 else text


def verdict(row: pd.Series, effect: str = "difference", p: str = "p_holm") -> str:
    """What a row of n_songs and n_origins shows by its columns ``effect`` and ``p``: "helps", "hurts" or neither."""
    if row["n_songs"] < FEW_SONGS:
        return "has too few songs to tell"
    if row["n_origins"] == 1:
        return f"{UNDECIDED}, of one pre-training or seed alone,"
    shown = direction(row[effect], row[p], row["n_songs"], row["n_origins"])
    return {1: "helps", -1: "hurts", 0: UNDECIDED}[shown]


def outcome(rows: pd.DataFrame, values: bool = True) -> str:
    """Verdicts of one comparison over its label budgets, in words, and in decibels with 95% intervals if ``values``.

    "helps with 1 labelled song (+0.38 dB, +0.26 to +0.49) and is undecided with 16 labelled songs (...)"
    """
    told = []
    for word, part in rows.groupby(rows.apply(verdict, axis=1), sort=False):
        numbers = "; ".join(map(decibels, part["difference"], part["low"], part["high"]))
        told.append(f"{word} with {labelled(part['labeled_songs'])}" + f" ({numbers})" * values)
    return listed(told)


def decibels(effect: float, low: float, high: float) -> str:
    """ "+0.38 dB, +0.26 to +0.49": an effect and its 95% interval."""
    return f"{effect:+.2f} dB, {low:+.2f} to {high:+.2f}"


def primary(claim: pd.DataFrame) -> str:
    """The metric that decides, which stands first in ``claim.csv``."""
    return claim["metric"].iloc[0]


def differs(effects: pd.DataFrame) -> pd.Series:
    """Which rows of ``ablation_effects.csv`` are shown to differ from the base."""
    columns = ["from_base", "from_base_p_holm", "n_songs", "n_origins"]
    return effects[columns].apply(lambda row: direction(*row) != 0, axis=1)


def answering(claim: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``claim.csv`` that answer the study's question: the mean of the primary metric at each budget.

    The first transfer against scratch, either compute, and both trained until they stall.
    """
    chosen = claim[(claim["stem"] == MEAN) & (claim["metric"] == primary(claim))]
    pretrained = chosen["method"].str.startswith("pre-trained (")
    first = (chosen["method"] == chosen["method"][pretrained].iloc[0]) & chosen["against"].str.startswith("scratch")
    both = (chosen["method"] == PRETRAINED_STALLED_ARM) & (chosen["against"] == STALLED_ARM)
    return pd.concat([chosen[first], chosen[both]])


def markdown_table(frame: pd.DataFrame) -> str:
    """A table in Markdown, its cells as text."""
    head, *rows = [[str(cell) for cell in row] for row in [frame.columns, *frame.itertuples(index=False)]]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])
