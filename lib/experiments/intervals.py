"""Means and paired differences over songs and pre-trainings, with the t interval and the p of one crossed test.

Every seed is tested on the same songs, so that a result is to hold for other pre-trainings *and* other songs: both are
crossed random effects. The test is min F' (Clark 1973, doi 10.1016/S0022-5371(73)80014-3): a t test whose squared
error is that between pre-trainings (the means of the seeds that start from each) plus that between songs, with
Satterthwaite's degrees of freedom. Its interval knows how few pre-trainings there are, which a bootstrap does not:
`benchmarks.intervals` measures the coverage of both. Songs of one fold share their models, so that folds count as songs
do: the error between songs is that between folds where that is larger.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import ndtri, stdtr, stdtrit
from scipy.stats import spearmanr

from lib import STEMS, UserError
from lib.scoring import MEAN

LEVEL = 0.05
"""The level of tests, to which the 95% intervals belong."""
FEW_SONGS = 6
"""With fewer songs nothing is decided."""
GRID = 400
"""Points at which `songs_worth` tests."""
Origin = Callable[[int], int]
"""The pre-training that a seed starts from."""


def own_seed(seed: int) -> int:
    """Every seed stands for a pre-training, or a training, of its own."""
    return seed


class Mean(NamedTuple):
    """A mean over pre-trainings and songs, its standard error and degrees of freedom (nan where nothing varies).

    Of several cases at once, each is an array.
    """

    value: float | np.ndarray
    error: float | np.ndarray
    freedom: float | np.ndarray

    @property
    def p(self) -> float | np.ndarray:
        """Two-sided p of "the mean is zero"."""
        with np.errstate(divide="ignore", invalid="ignore"):
            p = 2 * stdtr(self.freedom, -np.abs(self.value) / self.error)
        return np.where(np.equal(self.error, 0), np.equal(self.value, 0), p)[()]

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval."""
        half = stdtrit(self.freedom, 1 - LEVEL / 2) * self.error if self.error else self.error
        return float(self.value - half), float(self.value + half)


def crossed(values: np.ndarray, folds: np.ndarray | None = None) -> Mean:
    """The mean of values [..., pre-trainings, songs], both crossed random effects; ``folds`` [songs] groups the songs.

    Of a single pre-training, or song, it is the t test over the other.
    """
    rows, columns = values.shape[-2:]
    if rows * columns < 2:
        return Mean(float(values.mean()) if values.size else np.nan, np.nan, np.nan)
    sides = [_error(values.mean(-1), np.ones(rows))] if rows > 1 else []
    if columns > 1:
        songs, groups = values.mean(-2), np.arange(columns) if folds is None else folds
        alone, grouped = _error(songs, np.ones(columns)), _of_groups(songs, groups)
        sides.append(np.where(grouped[0] > alone[0], grouped, alone))
    errors, freedoms = np.moveaxis(sides, 1, 0)
    with np.errstate(invalid="ignore"):
        freedom = errors.sum(0) ** 2 / (errors**2 / freedoms).sum(0)
    freedom = np.where(errors.any(0), freedom, np.inf)
    freedom = np.maximum(freedom - 1, freedoms.min(0))  # Satterthwaite's are a little too many (benchmarks.intervals)
    return Mean(values.mean((-2, -1)), np.sqrt(errors.sum(0)), freedom)


def _of_groups(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """`_error` of the mean of values [..., n], from the means of their groups."""
    names, place, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < 2:
        return np.stack([np.zeros(values.shape[:-1]), np.ones(values.shape[:-1])])
    return _error(values @ (place[:, None] == np.arange(len(names))) / counts, counts)


def _error(means: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The squared standard error of the weighted mean of independent ``means`` [..., n], and its degrees of freedom."""
    shares, count = weights / weights.sum(), len(weights)
    apart = shares * (means - (means @ shares)[..., None])
    error = np.sum(apart**2, -1) * count / (count - 1)
    return np.stack([error, np.full_like(error, count - 1)])


def paired_interval(
    scores: pd.DataFrame, method_a: str, method_b: str, metric: str, origin: Origin = own_seed
) -> pd.DataFrame:
    """Mean difference ``method_a - method_b`` in dB per stem and, last, over stems, with its 95% interval.

    ``scores`` holds one model per method and seed (select experiment and labeled_songs before); arms are paired by
    (seed, song).

    Columns: stem, difference, low, high, p (two-sided, of this row alone: see `holm_within`); effect, the difference as
    a multiple of its standard deviation over songs (Cohen's d for pairs); n_songs, n_seeds, n_origins. Raises UserError
    if no song has a finite score in both arms.
    """
    cube = _cube(scores, metric, [method_a, method_b], origin)
    return _table(cube, cube.values[0] - cube.values[1]).rename(columns={"mean": "difference"})


def mean_difference(*arms: object) -> dict:
    """`paired_interval` over stems alone: its columns but the stem."""
    return paired_interval(*arms).drop(columns="stem").to_dict("records")[-1]


def paired(scores: pd.DataFrame, method_a: str, method_b: str, metric: str) -> np.ndarray:
    """``method_a - method_b`` in dB over stems, [seeds, songs that both arms have]. Raises: as `paired_interval`."""
    (a, b), *_ = _cube(scores, metric, [method_a, method_b])
    values = over_stems(a - b)
    return values[:, np.isfinite(values).all(0)]


def mean_interval(scores: pd.DataFrame, method: str, metric: str) -> pd.DataFrame:
    """Mean of one method per stem and, last, over stems, with its 95% interval: stem, mean, low, high."""
    cube = _cube(scores, metric, [method])
    return _table(cube, cube.values[0])[["stem", "mean", "low", "high"]]


def share_interval(
    scores: pd.DataFrame, part: tuple[str, str], whole: tuple[str, str], metric: str
) -> tuple[float, float, float]:
    """(share, low, high) of ``part[0] - part[1]`` in ``whole[0] - whole[1]``, over stems, songs and seeds.

    The interval (Fieller 1954) holds every share r for which "part - r whole is zero" is not rejected; it is unbounded
    where the whole is not shown to differ from zero.
    """
    (a, b, c, d), _, folds, _ = _cube(scores, metric, [*part, *whole])
    some, all_ = over_stems(a - b), over_stems(c - d)
    known = np.isfinite(some).all(0)
    some, all_, folds = some[:, known], all_[:, known], folds[known]
    share = some.mean() / all_.mean()
    if not crossed(all_, folds).p < LEVEL:  # nan as well
        return float(share), -np.inf, np.inf
    rejected = lambda r: LEVEL - crossed(some - r * all_, folds).p  # noqa: E731
    return float(share), _edge(rejected, share, -1.0), _edge(rejected, share, 1.0)


def _edge(rejected: Callable[[float], float], start: float, step: float) -> float:
    """Where ``rejected`` turns positive, going from ``start`` in the direction of ``step``."""
    if rejected(start) > 0:  # nothing varies
        return float(start)
    for doubling in range(24):
        if rejected(beyond := start + step * 2.0**doubling / 64) > 0:
            return float(brentq(rejected, start, beyond))
    return float(np.copysign(np.inf, step))


def songs_worth(
    scores: pd.DataFrame, method: str, reference: str, metric: str, origin: Origin = own_seed
) -> pd.DataFrame:
    """How many labelled songs ``reference`` needs to score what ``method`` scores with fewer, or more.

    ``reference``'s mean over stems is interpolated over the logarithm of its budgets, and made to rise with them where
    it does not. The 95% interval holds every number of songs at which ``method`` is not shown to differ from what is
    interpolated there. Columns: labeled_songs, worth, low, high, at_end: values at either end of the budgets mean that
    end *or beyond*.
    """
    scores = scores[scores["labeled_songs"].notna() & scores["method"].isin([method, reference])]
    shared = scores.groupby("seed")["labeled_songs"].nunique()
    scores = scores[scores["seed"].isin(shared.index[shared == shared.max()])]
    budgets, sides = [], []
    for budget, part in scores.groupby("labeled_songs"):
        values, _, folds, _ = _cube(part, metric, [method, reference], origin)
        budgets.append(budget)
        sides.append([over_stems(side) for side in values])
    budgets, sides = np.array(budgets, float), np.stack(sides, axis=1)  # [2, budgets, pre-trainings, songs]
    known = np.isfinite(sides).all((0, 1, 2))
    sides, folds = sides[..., known], folds[known]
    places, grid = np.log2(budgets), np.linspace(*np.log2(budgets[[0, -1]]), GRID)
    means = sides[1].mean((1, 2))
    sides[1] = sides[1][[int(np.argmax(means[: n + 1])) for n in range(len(means))]]  # more songs are not worth less
    rising, reference_at = sides[1].mean((1, 2)), _between(sides[1], places, grid)
    rows = []
    for budget, values in zip(budgets, sides[0], strict=True):
        worth = float(np.exp2(np.interp(values.mean(), rising, places)))
        possible = grid[crossed(values - reference_at, folds).p >= LEVEL]
        low, high = np.exp2(possible[[0, -1]]) if len(possible) else (worth, worth)
        facts = {"labeled_songs": int(budget), "worth": worth, "low": min(low, worth), "high": max(high, worth)}
        rows.append(facts | {"at_end": bool(np.isclose(worth, budgets[[0, -1]]).any())})
    return pd.DataFrame(rows)


def _between(values: np.ndarray, places: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Values [budgets, pre-trainings, songs] at ``places``, interpolated linearly at every ``x``: [x, ...]."""
    if len(places) == 1:
        return np.repeat(values, len(x), 0)
    right = np.clip(np.searchsorted(places, x), 1, len(places) - 1)
    weight = ((x - places[right - 1]) / (places[right] - places[right - 1]))[:, None, None]
    return (1 - weight) * values[right - 1] + weight * values[right]


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float, float]:
    """Spearman's rho of two values per song, its 95% interval, and its p.

    The interval is Fisher's z with the standard error of Bonett and Wright (2000, doi 10.1007/BF02294183).
    """
    rho, p = spearmanr(x, y)
    error = np.sqrt((1 + rho**2 / 2) / (len(x) - 3)) if len(x) > 3 else np.inf
    low, high = np.tanh(np.arctanh(np.clip(rho, -1 + 1e-12, 1 - 1e-12)) + ndtri([LEVEL / 2, 1 - LEVEL / 2]) * error)
    return float(rho), float(low), float(high), float(p)


def direction(effect: float, p: float, songs: int, origins: int) -> int:
    """1 or -1 where an effect is shown to lie on that side of zero, 0 where it is undecided: the study's one rule.

    ``p`` is corrected within its family. Nothing is decided by fewer than `FEW_SONGS` songs, nor by one pre-training,
    which says nothing of others (0 pre-trainings: a statement about songs alone).
    """
    return int(np.sign(effect)) if p < LEVEL and songs >= FEW_SONGS and origins != 1 else 0


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction (Holm 1979) of several p: the level at which each falls with all tested together."""
    p = np.asarray(p, float)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1, stepped)
    return corrected


def holm_within(table: pd.DataFrame, family: Sequence[str] = ("family",)) -> pd.DataFrame:
    """``table`` with ``p_holm`` after its column p: Holm's correction over the rows that are alike in ``family``."""
    corrected = table.groupby(list(family), dropna=False, sort=False)["p"].transform(holm)
    table = table.drop(columns="p_holm", errors="ignore")
    table.insert(table.columns.get_loc("p") + 1, "p_holm", corrected)
    return table


def over_stems(values: np.ndarray) -> np.ndarray:
    """[pre-trainings, songs, stems] -> [pre-trainings, songs], whose mean is the mean of the stems' means.

    With every stem in every song these are means over stems. A stem that some songs lack weighs as much as the others:
    each value's distance from its stem's mean is weighted by how many songs share that stem. A song without any stem is
    nan.
    """
    present = np.isfinite(values).all(0)
    songs, count = present.any(1), present.sum(0)
    values, count = np.where(present, values, np.nan)[..., count > 0], count[count > 0]
    means = np.nanmean(values, axis=(0, 1))
    weighted = np.nansum((values - means) * songs.sum() / (len(count) * count), axis=-1)
    return np.where(songs, means.mean() + weighted, np.nan)


class Cube(NamedTuple):
    """Values [methods, pre-trainings, songs, stems], nan where one of the methods has none, and what its axes hold.

    ``folds`` [songs] holds each song's fold; without folds each is its own. A pre-training's values are means over the
    seeds that start from it, ``seeds`` in all.
    """

    values: np.ndarray
    stems: list[str]
    folds: np.ndarray
    seeds: int


def _cube(scores: pd.DataFrame, metric: str, methods: list[str], origin: Origin = own_seed) -> Cube:
    """Raises: UserError if no song has a finite value of all ``methods``."""
    chosen = scores[(scores["metric"] == metric) & scores["method"].isin(methods) & scores["seed"].notna()]
    wide = chosen.pivot(index=["seed", "song", "stem"], columns="method", values="value")
    wide = wide.reindex(columns=list(dict.fromkeys(methods))).replace([np.inf, -np.inf], np.nan).dropna()
    if wide.empty:
        named = " and ".join(f"'{method}'" for method in dict.fromkeys(methods))
        raise UserError(f"no song has a {metric} of {named} for one seed: score them first")
    stems = [stem for stem in STEMS if stem in wide.index.unique("stem")]
    seeds, songs = (sorted(wide.index.unique(level)) for level in ("seed", "song"))
    index = pd.MultiIndex.from_product([seeds, songs, stems])
    values = wide.reindex(index)[methods].to_numpy(float).reshape(len(seeds), len(songs), len(stems), -1)
    origins = np.array([origin(int(seed)) for seed in seeds])
    values = np.stack([values[origins == one].mean(0) for one in dict.fromkeys(origins)])
    folds = np.arange(len(songs))
    if "fold" in chosen and chosen["fold"].notna().any():
        folds = chosen.groupby("song")["fold"].first().reindex(songs).to_numpy()
    return Cube(np.moveaxis(values, -1, 0), stems, folds, len(seeds))


def _table(cube: Cube, values: np.ndarray) -> pd.DataFrame:
    """A row per stem, and one over stems, of values [pre-trainings, songs, stems]."""
    rows = []
    for stem, side in zip([*cube.stems, MEAN], [*np.moveaxis(values, -1, 0), over_stems(values)], strict=True):
        known = np.isfinite(side).all(0)
        mean, by_song = crossed(side[:, known], cube.folds[known]), side[:, known].mean(0)
        low, high = mean.interval
        effect = by_song.mean() / by_song.std(ddof=1) if len(by_song) > 1 and by_song.std() else np.nan
        rows.append({"stem": stem, "mean": mean.value, "low": low, "high": high, "p": mean.p, "effect": effect,
                     "n_songs": len(by_song), "n_seeds": cube.seeds, "n_origins": len(side)})  # fmt: skip
    return pd.DataFrame(rows)
