"""Analysis of blind tests: post-screening, means, paired tests, agreement with uSDR.

As pre-trainings in `lib.experiments.intervals`, participants are a random effect crossed with songs, so that results
generalise to other listeners and songs.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from lib import UserError
from lib.experiments.intervals import holm_within, mean_interval, paired_interval, rank_correlation
from lib.listening.blind import design, simulated
from lib.listening.blind.answers import collected
from lib.listening.blind.design import FIXED, HIDDEN, Item, critical_count
from lib.listening.blind.simulated import SIMULATED
from lib.listening.excerpt import Excerpt
from lib.profile.fields import Blind
from lib.scoring import MEAN, usdr
from lib.study import Study

RECOGNISED, TOLERATED = 90, 0.15
"""BS.1534-3, 4.1.2: exclude participants with the hidden reference below 90 in more than 15% of the trials."""


class Analysis(NamedTuple):
    """Tables of a MUSHRA test; ``ratings`` without participants excluded by ``screening``."""

    screening: pd.DataFrame
    ratings: pd.DataFrame
    means: pd.DataFrame
    tests: pd.DataFrame
    agreement: pd.DataFrame


def mushra(study: Study, ratings: pd.DataFrame, items: Sequence[Item]) -> Analysis:
    """All tables, also written to ``tables/listening_*.csv`` (simulated panel: ``listening_simulated_*.csv``).

    Raises: UserError if the screening excludes everyone.
    """
    simulated = bool(ratings[SIMULATED].any())
    screening = screened(ratings)
    kept = ratings[ratings["participant"].isin(screening.loc[~screening["excluded"], "participant"])]
    if kept.empty:
        raise UserError("listening: every participant failed the screening: collect more answers")
    analysis = Analysis(screening, kept, means(kept), tests(kept), agreement(kept, items))
    for name, table in analysis._asdict().items():
        table[SIMULATED] = simulated
        study.write(f"listening_{'simulated_' if simulated else ''}{name}", table)
    return analysis


def of_simulated_listeners(study: Study, excerpts: Sequence[Excerpt]) -> Analysis:
    """The MUSHRA analysis of a simulated panel on the excerpts of the profile's test."""
    settings = replace(study.profile.listening.blind, test="mushra")
    items = design.items(settings, excerpts)
    return mushra(study, simulated.listening_to(settings, items), items)


def real(study: Study, excerpts: Sequence[Excerpt]) -> Analysis | pd.DataFrame | None:
    """The results of `mushra` or `two_alternatives` for the answers so far; None before the first answer."""
    settings = study.profile.listening.blind
    answers = collected(study.results / "listening", settings.test).assign(**{SIMULATED: False})
    if answers.empty:
        return None
    if settings.test == "mushra":
        return mushra(study, answers, design.items(settings, excerpts))
    return study.write("listening_two_alternatives", two_alternatives(settings, answers))


def screened(ratings: pd.DataFrame) -> pd.DataFrame:
    """Per participant: trials, share with the hidden reference below 90, exclusion."""
    hidden = ratings[ratings["condition"] == HIDDEN]
    by = hidden.assign(missed=hidden["value"] < RECOGNISED).groupby("participant", sort=True)["missed"]
    table = by.agg(trials="count", missed="mean").reset_index()
    return table.assign(excluded=table["missed"] > TOLERATED)


def _scores(ratings: pd.DataFrame) -> pd.DataFrame:
    """Ratings as scores: participants as seeds, questions as metrics, conditions as methods."""
    codes = {code: number for number, code in enumerate(sorted(ratings["participant"].unique()))}
    names = {"condition": "method", "question": "metric"}
    return ratings.rename(columns=names).assign(seed=ratings["participant"].map(codes).astype("Int64"))


def means(ratings: pd.DataFrame) -> pd.DataFrame:
    """Mean rating with 95% interval by question, condition and stem (and over stems, "mean")."""
    scores, rows = _scores(ratings), []
    for question, condition in itertools.product(ratings["question"].unique(), ratings["condition"].unique()):
        interval = mean_interval(scores, condition, question)
        rows.append(interval.assign(question=question, condition=condition))
    table = pd.concat(rows, ignore_index=True)
    return table[["question", "condition", "stem", "mean", "low", "high"]].assign(
        participants=ratings["participant"].nunique(), songs=ratings["song"].nunique()
    )


def tests(ratings: pd.DataFrame) -> pd.DataFrame:
    """Paired differences between all methods, over stems, with 95% interval, p, and p after Holm's correction.

    A family is the pairs of methods of one question; reference and anchors are not tested.
    """
    scores, rows = _scores(ratings), []
    names = [name for name in ratings["condition"].unique() if name not in FIXED]
    for question in ratings["question"].unique():
        for first, second in itertools.combinations(names, 2):
            stems = paired_interval(scores, first, second, question)
            facts = {"question": question, "method": first, "against": second}
            rows.append({**facts, **stems[stems["stem"] == MEAN].iloc[0].drop(["stem", "n_origins"])})
    columns = ["question", "method", "against", "difference", "low", "high", "p", "effect", "n_songs", "n_seeds"]
    table = holm_within(pd.DataFrame(rows, columns=columns), ["question"])
    return table.rename(columns={"n_seeds": "n_participants"})


def agreement(ratings: pd.DataFrame, items: Sequence[Item]) -> pd.DataFrame:
    """Spearman's rho between mean rating and uSDR over all (song, stem, method), with 95% interval, by question.

    uSDR is computed on the passages at equal loudness; reference and anchors are excluded.
    """
    scored = {
        (item.song, item.stem, name): usdr(item.reference[None], wave[None])[0]
        for item in items
        for name, wave in item.conditions.items()
        if name not in FIXED
    }
    rows = []
    for question, part in ratings.groupby("question", sort=False):
        rated = part.groupby(["song", "stem", "condition"])["value"].mean()
        keys = [key for key in rated.index if np.isfinite(scored.get(key, np.nan))]
        values = ([rated[key] for key in keys], [scored[key] for key in keys])
        rho = rank_correlation(*values)[:3] if len(keys) > 2 else (np.nan,) * 3
        rows.append({"question": question, **dict(zip(("rho", "low", "high"), rho, strict=True)), "n": len(keys)})
    return pd.DataFrame(rows)


def two_alternatives(settings: Blind, answers: pd.DataFrame) -> pd.DataFrame:
    """Exact binomial tests of a preference or ABX test, per participant and pooled.

    Columns: participant ("all" last), answer (the counted method, or the pair of ABX), count, of, share, low, high
    (95%, Clopper and Pearson), p (preference: two-sided, ABX: one-sided), needed (smallest significant count).
    """
    preference = settings.test == "preference"
    counted = min(answers["condition"].unique(), default="")
    chosen = answers[answers["condition"] == counted]
    rows = []
    for who, part in [*chosen.groupby("participant", sort=True), ("all", chosen)]:
        count, of = int(part["value"].sum()), len(part)
        if of:
            test = binomtest(count, of, 0.5, alternative="two-sided" if preference else "greater")
            low, high = binomtest(count, of).proportion_ci(0.95)
            needed = critical_count(of, settings.alpha / (2 if preference else 1))
            facts = {"participant": who, "answer": counted, "count": count, "of": of, "share": count / of}
            rows.append({**facts, "low": low, "high": high, "p": test.pvalue, "needed": needed})
    columns = ["participant", "answer", "count", "of", "share", "low", "high", "p", "needed"]
    return pd.DataFrame(rows, columns=columns)
