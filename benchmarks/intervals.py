"""``python -m benchmarks.intervals``: how often a study finds an effect where there is none (a minute or two).

Writes ``results/benchmarks/tables/intervals.csv``, from which README's table is made. Pre-trainings, songs and what is
left of either scatter as the gains of profile `study` do.
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import product

import numpy as np
import pandas as pd

from benchmarks.figures import FOLDER
from benchmarks.listening import share
from lib.experiments import intervals
from lib.store.tables import write_table

STUDIES, SONGS = 1000, 24
BETWEEN_PRETRAININGS, BETWEEN_SONGS, REST = 0.2, 0.2, 0.3
"""Standard deviations in dB, like those of the gains of `study`: 0.05 to 0.28, 0.11 to 0.32, 0.15 to 0.37."""
SEEDS = (3, 5, 12)


def gains(seeds: int, study: int) -> pd.DataFrame:
    """Scores of a study in which *pre-trained* differs from *scratch* by chance alone."""
    draw = np.random.default_rng([seeds, study]).standard_normal
    values = BETWEEN_PRETRAININGS * draw((seeds, 1)) + BETWEEN_SONGS * draw((1, SONGS)) + REST * draw((seeds, SONGS))
    facts = {"stem": "bass", "metric": "uSDR"}
    return pd.DataFrame(
        {**facts, "seed": seed, "song": song, "method": method, "value": value}
        for (seed, song), gain in np.ndenumerate(values)
        for method, value in (("pre-trained", gain), ("scratch", 0.0))
    )


def mistaken(case: tuple[int, int]) -> tuple[bool, bool]:
    """Whether the interval leaves out zero, and whether p is small as well."""
    row = intervals.paired_interval(gains(*case), "pre-trained", "scratch", "uSDR").iloc[-1]
    apart = not row["low"] <= 0 <= row["high"]
    return apart, apart and row["p"] < intervals.LEVEL


def main() -> int:
    """Exit status 0."""
    with ProcessPoolExecutor() as pool:
        found = list(pool.map(mistaken, product(SEEDS, range(STUDIES)), chunksize=50))
    rows = []
    for seeds, part in zip(SEEDS, np.array(found).reshape(len(SEEDS), STUDIES, 2), strict=True):
        setting = f"{STUDIES} studies without effect, {seeds} pre-trainings, {SONGS} songs"
        rows.append(share(f"bootstrap interval without zero ({setting})", part[:, 0].sum(), STUDIES))
        rows.append(share(f"and p below {intervals.LEVEL:g} ({setting})", part[:, 1].sum(), STUDIES))
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    write_table(FOLDER / "tables" / "intervals.csv", table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
