"""What the whole study allows to say: a statement a row, with its effect, interval, n and verdict."""

from __future__ import annotations

import pandas as pd

from lib.arms import EQUAL_COMPUTE, LONG, SCRATCH, SHUFFLED, method_name
from lib.experiments.intervals import is_significant, paired_interval
from lib.experiments.outputs import CHOSEN, CHOSEN_GROUP
from lib.experiments.probes import COMPOSED, ONE_SONG, REDEALT, rank_correlations
from lib.report.sentences import FEW_SONGS, counted
from lib.scoring import MEAN
from lib.study import Study

SUPPORTED, NOT_SUPPORTED, UNDECIDED = "supported", "not supported", "undecided"
PRETRAINING = "pre-training"


def verdict(low: float, high: float, p: float, sign: int, songs: int, seeds: int) -> str:
    """*Supported* if the whole interval lies on the side of ``sign``, *not supported* if it lies on the other.

    *Undecided* without a p below `lib.experiments.intervals.LEVEL`, which allows for few seeds and for several tests of
    one claim, and of one seed, or pre-training, alone, which says nothing of others (0 seeds: a claim about songs).
    """
    if songs < FEW_SONGS or seeds == 1 or not is_significant(low, high, p):
        return UNDECIDED
    return SUPPORTED if (low > 0) == (sign > 0) else NOT_SUPPORTED


def table(study: Study) -> pd.DataFrame:
    """``tables/claims.csv``: statement, effect, low, high (95%), p, unit, n, verdict; of what the profile has run."""
    return study.write("claims", pd.DataFrame([*_pretraining(study), *_limits(study)]))


def _row(
    statement: str, sign: int, effect, low, high, p, songs: int, seeds: int, of: str, unit: str = "dB", origins: int = 0
) -> dict:
    n = ", ".join([counted(songs, "song"), *([counted(seeds, of)] if seeds else [])])
    facts = {"statement": statement, "effect": effect, "low": low, "high": high, "p": p, "unit": unit, "n": n}
    return facts | {"verdict": verdict(low, high, p, sign, int(songs), int(origins or seeds))}


def _pretraining(study: Study):
    claim = study.read("claim")
    claim = claim[(claim["stem"] == MEAN) & (claim["metric"] == "uSDR")]
    transfers = [method_name(how) for how in study.profile.finetune.transfers]
    statements = {
        (SCRATCH, *transfers): "with {songs}, {method} beats scratch (mean uSDR)",
        (EQUAL_COMPUTE, method_name(LONG)): "with {songs}, {method} beats scratch trained as long",
        (EQUAL_COMPUTE, *transfers): "with {songs}, {method} beats scratch given the same compute",
        (SHUFFLED, *transfers): "with {songs}, {method} beats its own weights shuffled",
    }
    for (against, *methods), text in statements.items():
        chosen = claim[(claim["against"] == method_name(against)) & claim["method"].isin(methods)]
        for row in chosen.itertuples():
            statement = text.format(songs=counted(row.labeled_songs, "labelled song"), method=row.method)
            facts = (row.difference, row.low, row.high, row.p, row.n_songs, row.n_seeds)
            yield _row(statement, 1, *facts, "seed", origins=row.n_origins)


def _limits(study: Study):
    effects = study.read("correlation_effects")
    composed = effects[effects["tested"] == COMPOSED] if len(effects) else effects
    statements = {
        (REDEALT, CHOSEN): (1, "without correlation in training, one output per stem separates better"),
        (REDEALT, CHOSEN_GROUP): (1, "without correlation in training, a group of outputs per stem separates better"),
        (ONE_SONG, CHOSEN): (-1, "mixtures of one song teach worse than mixtures of two (one output per stem)"),
    }
    for (trained, method), (sign, statement) in statements.items():
        for row in composed[(composed["trained"] == trained) & (composed["method"] == method)].itertuples():
            interval = (row.difference, row.low, row.high, row.p)
            yield _row(statement, sign, *interval, row.n_songs, row.n_seeds, PRETRAINING)
    for row in rank_correlations(study.read("within_songs")).itertuples():
        if row.kind != "waveform":
            statement = f"songs whose stems' {row.kind}s correlate more are separated worse"
            yield _row(statement, -1, row.rho, row.low, row.high, row.p_holm, row.n, 0, "", "rank correlation")
    shares = study.read("shares").set_index("what")
    if "definition" in shares.index:
        row = shares.loc["definition"]
        statement = "labels that only group outputs close part of the distance to the supervised model"
        yield _row(statement, 1, 100 * row["share"], 100 * row["low"], 100 * row["high"], row["p"], row["n_songs"],
                   row["n_seeds"], PRETRAINING, "% of it")  # fmt: skip
    yield from _contest(study)


def _contest(study: Study):
    """Definition against correlation: what grouping adds minus what training without correlation adds."""
    gains = study.read("correlation")
    gains = gains[gains["tested"] == COMPOSED]
    if REDEALT not in set(gains["trained"]):
        return
    arms = gains.assign(method=gains["trained"] + ", " + gains["method"])
    found = paired_interval(arms, f"{COMPOSED}, {CHOSEN_GROUP}", f"{REDEALT}, {CHOSEN}", "gain")
    row = found.set_index("stem").loc[MEAN]
    statement = "definition (grouping outputs) adds more than the absence of correlation in training"
    yield _row(statement, 1, row["difference"], row["low"], row["high"], row["p"], row["n_songs"],
               row["n_seeds"], PRETRAINING)  # fmt: skip
