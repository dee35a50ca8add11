"""``python -m benchmarks.intervals``: how often a 95% interval holds the true mean (a minute or two).

The t interval of `lib.experiments.intervals` beside a bootstrap that draws pre-trainings and songs independently of
each other (the pigeonhole bootstrap, Owen 2007, doi 10.1214/07-AOAS122). Writes
``results/benchmarks/tables/intervals.csv``, from which a table in results/README.md is made. Pre-trainings, songs and
what is left of either scatter as the gains of profile `study` do.
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import product

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from benchmarks.figures import FOLDER
from lib.experiments.intervals import LEVEL, crossed
from lib.store.tables import write_table

STUDIES, SONGS, RESAMPLES = 4000, 24, 1000
SCATTER = {"typical": (0.2, 0.2, 0.3), "pre-trainings most": (0.28, 0.11, 0.15), "songs most": (0.05, 0.32, 0.15)}
"""Standard deviations in dB between pre-trainings, between songs, and of the rest, and the study's extremes."""
PRETRAININGS = (3, 5, 8, 12)


def gains(scatter: tuple[float, float, float], pretrainings: int, generator: np.random.Generator) -> np.ndarray:
    """Gains [pre-trainings, songs] in dB of a study whose true mean is zero."""
    shapes = (pretrainings, 1), (1, SONGS), (pretrainings, SONGS)
    return sum(one * generator.standard_normal(shape) for one, shape in zip(scatter, shapes, strict=True))


def bootstrap(values: np.ndarray, generator: np.random.Generator) -> tuple[float, float]:
    """The percentile interval of the mean of values [pre-trainings, songs], both drawn with replacement."""
    rows, columns = (generator.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) for n in values.shape)
    means = (rows @ values * columns).sum(1) / values.size
    return tuple(np.percentile(means, [50 * LEVEL, 100 - 50 * LEVEL]))


def covered(scatter: str, pretrainings: int) -> np.ndarray:
    """In how many of `STUDIES` the t interval and the bootstrap's hold zero."""
    generator, found = np.random.default_rng([pretrainings, *map(ord, scatter)]), np.zeros(2, int)
    for _ in range(STUDIES):
        values = gains(SCATTER[scatter], pretrainings, generator)
        found += [low <= 0 <= high for low, high in (crossed(values).interval, bootstrap(values, generator))]
    return found


def coverage(count: int) -> dict:
    """A share of `STUDIES` in percent with its 95% interval (Clopper and Pearson)."""
    interval = binomtest(int(count), STUDIES).proportion_ci(0.95)
    return {"coverage": 100 * count / STUDIES, "low": 100 * interval.low, "high": 100 * interval.high}


def main() -> int:
    """Exit status 0."""
    cases = list(product(SCATTER, PRETRAININGS))
    with ProcessPoolExecutor() as pool:
        found = list(pool.map(covered, *zip(*cases, strict=True)))
    table = pd.DataFrame([
        {"interval": name, "pretrainings": pretrainings, "scatter": scatter} | coverage(count)
        for (scatter, pretrainings), counts in zip(cases, found, strict=True)
        for name, count in zip(("t interval", "bootstrap"), counts, strict=True)
    ])  # fmt: skip
    print(table.to_string(index=False))
    write_table(FOLDER / "tables" / "intervals.csv", table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
