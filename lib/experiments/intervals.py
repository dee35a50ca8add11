"""Paired differences with bootstrap intervals over songs, seeds and pre-trainings, and what is read off them.

Every seed is tested on the same songs, so seeds and songs are resampled independently of each other and crossed (the
pigeonhole bootstrap, Owen 2007, doi 10.1214/07-AOAS122): drawing songs anew within each seed would count one song once
per seed and make the interval too narrow. Seeds that start from one pre-training are nested in it: pre-trainings are
drawn first, then seeds within. How far three to five of them scatter, no bootstrap can tell: its interval is too
narrow. Each p is therefore that of a t test as well, which knows how few they are (`few_p`), and no difference counts
as shown without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from scipy.stats import spearmanr, t

from lib import STEMS, UserError
from lib.scoring import MEAN

RESAMPLES = 10_000
LEVEL = 0.05
"""The level of tests, to which the 95% intervals belong."""
Origin = Callable[[int], int]
"""The pre-training that a seed starts from."""


def own_seed(seed: int) -> int:
    """Every seed stands for a pre-training, or a training, of its own."""
    return seed


def paired_interval(
    scores: pd.DataFrame, method_a: str, method_b: str, metric: str, origin: Origin = own_seed, seed: int = 0
) -> pd.DataFrame:
    """Mean difference ``method_a - method_b`` in dB per stem and over stems, with its 95% percentile interval.

    ``scores`` holds one model per method and seed (select experiment and labeled_songs before); arms are paired by
    (seed, song).

    Columns: stem, difference, low, high; p, two-sided, the larger of the resamples' and `few_p`; p_holm, the same after
    Holm's correction over the stems (the mean over stems, one outcome named beforehand, keeps its own); effect, the
    difference as a multiple of its standard deviation over songs (Cohen's d for pairs); n_songs, n_seeds, n_origins.
    Raises UserError if no song has a finite score in both arms.
    """
    cube, seeds, stems = _cube(scores, metric, [method_a, method_b])
    difference = cube[0] - cube[1]
    origins = [origin(s) for s in seeds]
    draws = _stem_means(difference, *_counts(origins, difference.shape[1], seed))
    value = _stem_means(difference, *(np.ones((1, n)) for n in difference.shape[:2]))[0]
    low, high = np.nanpercentile(draws, [2.5, 97.5], axis=0)
    p = np.maximum(two_sided(draws), few_p(difference, origins))
    present = np.isfinite(difference)
    present = np.concatenate([present, present.any(-1, keepdims=True)], axis=-1)
    return pd.DataFrame({
        "stem": [*stems, MEAN], "difference": value, "low": low, "high": high,
        "p": p, "p_holm": [*holm(p[:-1]), p[-1]], "effect": _effect(difference),
        "n_songs": present.any(0).sum(0), "n_seeds": present.any(1).sum(0),
        "n_origins": len(set(origins)),
    })  # fmt: skip


def mean_interval(scores: pd.DataFrame, method: str, metric: str, seed: int = 0) -> pd.DataFrame:
    """Mean of one method per stem and over stems, with its 95% interval: stem, mean, low, high."""
    cube, seeds, stems = _cube(scores, metric, [method])
    draws = _stem_means(cube[0], *_counts(seeds, cube.shape[2], seed))
    value = _stem_means(cube[0], *(np.ones((1, n)) for n in cube.shape[1:3]))[0]
    low, high = np.nanpercentile(draws, [2.5, 97.5], axis=0)
    return pd.DataFrame({"stem": [*stems, MEAN], "mean": value, "low": low, "high": high})


def share_interval(
    scores: pd.DataFrame,
    part: tuple[str, str],
    whole: tuple[str, str],
    metric: str,
    seed: int = 0,
) -> tuple[float, float, float]:
    """(share, low, high) of ``part[0] - part[1]`` in ``whole[0] - whole[1]``: means over stems, songs, seeds."""
    cube, seeds, _ = _cube(scores, metric, [*part, *whole])

    def share(*counts: np.ndarray) -> np.ndarray:
        a, b, c, d = (_stem_means(side, *counts)[:, -1] for side in cube)
        return (a - b) / (c - d)

    value = share(*(np.ones((1, n)) for n in cube.shape[1:3]))[0]
    low, high = np.percentile(share(*_counts(seeds, cube.shape[2], seed)), [2.5, 97.5])
    return float(value), float(low), float(high)


def songs_worth(
    scores: pd.DataFrame, method: str, reference: str, metric: str, origin: Origin = own_seed, seed: int = 0
) -> pd.DataFrame:
    """How many labelled songs ``reference`` needs to score what ``method`` scores with fewer, or more.

    ``reference``'s mean over stems is interpolated over the logarithm of its budgets, and made to rise with them where
    it does not. Columns: labeled_songs, worth, low, high, at_end: values at either end of the budgets mean that end *or
    beyond*.
    """
    budgets = np.array(sorted(scores["labeled_songs"].dropna().unique()), float)
    cubes = [_cube(scores[scores["labeled_songs"] == budget], metric, [method, reference]) for budget in budgets]
    seeds = sorted(set.intersection(*(set(found[1]) for found in cubes)))
    kept = [cube[:, [known.index(s) for s in seeds]] for cube, known, _ in cubes]
    counts = _counts([origin(s) for s in seeds], kept[0].shape[2], seed)
    whole = tuple(np.ones((1, n)) for n in kept[0].shape[1:3])
    counts = tuple(np.concatenate(pair) for pair in zip(whole, counts, strict=True))
    quality = np.stack([[_stem_means(side, *counts)[:, -1] for side in cube] for cube in kept], axis=-1)
    rising = np.maximum.accumulate(quality[1], axis=-1)
    worth = np.exp2([np.interp(*row, np.log2(budgets)) for row in zip(quality[0], rising, strict=True)])
    low, high = np.percentile(worth[1:], [2.5, 97.5], axis=0)
    ends = np.isin(worth[0].round(9), [budgets[0], budgets[-1]])
    facts = {"labeled_songs": budgets.astype(int), "worth": worth[0], "low": low, "high": high, "at_end": ends}
    return pd.DataFrame(facts)


def rank_correlation(x: Sequence[float], y: Sequence[float], seed: int = 0) -> tuple[float, float, float, float]:
    """Spearman's rho of two values per song, its 95% percentile bootstrap interval over songs, and its p."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    rows = np.random.default_rng(seed).integers(len(x), size=(RESAMPLES, len(x)))
    rows = rows[[len(np.unique(x[row])) > 1 and len(np.unique(y[row])) > 1 for row in rows]]
    ranks = [_ranks(values[rows]) for values in (x, y)]
    low, high = np.percentile(_correlation(*ranks), [2.5, 97.5])
    found = spearmanr(x, y)
    return float(found.statistic), float(low), float(high), float(found.pvalue)


def is_significant(low: float, high: float, p: float) -> bool:
    """Whether there is an effect: its whole 95% interval on one side of zero, and p below `LEVEL` (nan is not)."""
    return bool((low > 0 or high < 0) and p < LEVEL)


def two_sided(draws: np.ndarray) -> np.ndarray:
    """Two-sided p of "zero": twice the smaller share of the resamples [draws, k] on either side of it -> [k]."""
    sides = [(1 + np.nansum(side, axis=0)) / (1 + len(draws)) for side in (draws <= 0, draws >= 0)]
    return np.minimum(1, 2 * np.minimum(*sides))


def few_p(difference: np.ndarray, origins: Sequence[int]) -> np.ndarray:
    """Two-sided p of "zero", with pre-trainings and songs as crossed random effects: [seeds, songs, k] -> [k + 1].

    The last is that of each song's mean over the k stems that it has. The test is min F' (Clark 1973, doi
    10.1016/S0022-5371(73)80014-3): a t test whose error is that between pre-trainings (the means of their seeds) plus
    that between songs, its degrees of freedom Satterthwaite's. Of a single pre-training, or song, it is the t test over
    the other.
    """
    songs = difference[:, np.isfinite(difference).any((0, 2))]
    values = np.concatenate([songs, _over_last(songs)[..., None]], axis=-1)
    nested = [values[np.array(origins) == one].mean(0) for one in dict.fromkeys(origins)]
    return np.array([_min_f(side[:, np.isfinite(side).all(0)]) for side in np.moveaxis(np.stack(nested), -1, 0)])


def _min_f(values: np.ndarray) -> float:
    """P of min F' that the mean of values [pre-trainings, songs] is zero; nan where nothing can be said."""
    sides = [values.mean(axis) for axis in (1, 0) if values.shape[1 - axis] > 1]
    if not sides or not values.size:
        return np.nan
    errors = np.array([side.var(ddof=1) / len(side) for side in sides])
    error = errors.sum()
    if error == 0:
        return float(values.mean() == 0)
    freedom = error**2 / (errors**2 / [len(side) - 1 for side in sides]).sum()
    return float(2 * t.sf(abs(values.mean()) / np.sqrt(error), freedom))


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction (Holm 1979) of several p: the level at which each falls with all tested together."""
    order = np.argsort(p)
    stepped = np.maximum.accumulate(np.asarray(p)[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1, stepped)
    return corrected


def _cube(scores: pd.DataFrame, metric: str, methods: list[str]) -> tuple[np.ndarray, list[int], list[str]]:
    """Values [methods, seeds, songs, stems], nan where one of the methods has none, with the seeds and the stems."""
    chosen = scores[(scores["metric"] == metric) & scores["method"].isin(methods) & scores["seed"].notna()]
    wide = chosen.pivot(index=["seed", "song", "stem"], columns="method", values="value")
    wide = wide.reindex(columns=list(dict.fromkeys(methods))).replace([np.inf, -np.inf], np.nan).dropna()
    if wide.empty:
        named = " and ".join(f"'{method}'" for method in dict.fromkeys(methods))
        raise UserError(f"no song has a {metric} of {named} for one seed: score them first")
    stems = [stem for stem in STEMS if stem in wide.index.unique("stem")]
    seeds, songs = (sorted(wide.index.unique(level)) for level in ("seed", "song"))
    index = pd.MultiIndex.from_product([seeds, songs, stems])
    values = wide.reindex(index).to_numpy(float).reshape(len(seeds), len(songs), len(stems), -1)
    columns = [list(wide.columns).index(method) for method in methods]
    return np.moveaxis(values[..., columns], -1, 0), [int(s) for s in seeds], stems


def _counts(origins: list[int], songs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each resample draws every seed [draws, seeds] and every song [draws, songs]."""
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(np.array(origins) == origin) for origin in dict.fromkeys(origins)]
    drawn = generator.multinomial(len(members), np.full(len(members), 1 / len(members)), size=RESAMPLES)
    seeds = np.zeros((RESAMPLES, len(origins)))
    for group, times in zip(members, drawn.T, strict=True):
        seeds[:, group] = generator.multinomial(times * len(group), np.full(len(group), 1 / len(group)))
    return seeds, generator.multinomial(songs, np.full(songs, 1 / songs), size=RESAMPLES)


def _stem_means(cube: np.ndarray, seed_counts: np.ndarray, song_counts: np.ndarray) -> np.ndarray:
    """Means over seeds and songs drawn so often: [seeds, songs, stems] -> [draws, stems + 1], the last over stems."""
    present = np.isfinite(cube)
    total = np.einsum("rs,rg,sgk->rk", seed_counts, song_counts, np.where(present, cube, 0.0), optimize=True)
    count = np.einsum("rs,rg,sgk->rk", seed_counts, song_counts, present.astype(float), optimize=True)
    means = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    known = np.isfinite(means)
    over_stems = np.where(known, means, 0.0).sum(1) / np.maximum(known.sum(1), 1)
    return np.column_stack([means, np.where(known.any(1), over_stems, np.nan)])


def _effect(difference: np.ndarray) -> np.ndarray:
    """Mean over songs of the seeds' mean, in standard deviations over songs: [seeds, songs, stems] -> [stems + 1]."""
    songs = pd.DataFrame(_over_first(difference))
    songs["mean"] = songs.mean(axis=1)
    return (songs.mean() / songs.std().replace(0, np.nan)).to_numpy()


def _over_last(cube: np.ndarray) -> np.ndarray:
    return _over_first(np.moveaxis(cube, -1, 0))


def _over_first(cube: np.ndarray) -> np.ndarray:
    present = np.isfinite(cube)
    count = present.sum(0)
    return np.divide(np.where(present, cube, 0.0).sum(0), count, out=np.full(count.shape, np.nan), where=count > 0)


def _ranks(values: np.ndarray) -> np.ndarray:
    return pd.DataFrame(values).rank(axis=1).to_numpy()


def _correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = (values - values.mean(1, keepdims=True) for values in (x, y))
    return (x * y).sum(1) / np.sqrt(np.square(x).sum(1) * np.square(y).sum(1))
