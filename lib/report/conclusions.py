"""What the whole study allows to say: a statement a row, with its effect, interval, n and verdict."""

from __future__ import annotations

import pandas as pd

from lib.arms import EQUAL_COMPUTE, PRETRAINED_STALLED, SCRATCH, SHUFFLED, STALLED, method_name
from lib.experiments import protocol
from lib.experiments.intervals import direction, paired_interval
from lib.experiments.outputs import CHOSEN, CHOSEN_GROUP
from lib.experiments.probes import COMPOSED, ONE_SONG, REDEALT, rank_correlations
from lib.experiments.records import TOOK
from lib.report.sentences import counted, p_short, without_kind
from lib.scoring import MEAN
from lib.study import Study

SUPPORTED, NOT_SUPPORTED, UNDECIDED = "supported", "not supported", "undecided"
PRETRAINING = "pre-training"


def table(study: Study) -> pd.DataFrame:
    """``tables/claims.csv``: what the profile's runs allow to say, a statement a row.

    Columns: statement, effect, low, high (95%), unit, p, p_holm (Holm's correction within the ``family`` of tests that
    the protocol names), family, n, verdict (by p_holm alone, see `lib.experiments.intervals.direction`), status
    (`lib.experiments.protocol.status`), and what a model of either arm took: steps, core_seconds, petaflop, "against_"
    the other's.
    """
    rows = pd.DataFrame([*_pretraining(study), *_limits(study)])
    rows.insert(rows.columns.get_loc("verdict") + 1, "status", protocol.status(study))
    return study.write("claims", rows)


def _row(
    statement: str, sign: int, interval: tuple[float, float, float], p: float, p_holm: float, family: str,
    songs: int, seeds: int, of: str, unit: str = "dB", origins: int = 0,
) -> dict:  # fmt: skip
    facts = {"statement": statement, **dict(zip(("effect", "low", "high"), interval, strict=True)), "unit": unit}
    facts |= {"p": p, "p_holm": p_holm, "family": family}
    shown = sign * direction(interval[0], p_holm, int(songs), int(origins or seeds))
    n = ", ".join([counted(songs, "song"), *([counted(seeds, of)] if seeds else [])])
    return facts | {"n": n, "verdict": {1: SUPPORTED, -1: NOT_SUPPORTED, 0: UNDECIDED}[shown]}


def _pretraining(study: Study):
    claim = study.read("claim")
    claim = claim[(claim["stem"] == MEAN) & (claim["metric"] == study.profile.scoring.primary)]
    transfers = [method_name(how) for how in study.profile.finetune.transfers]
    statements = {
        (SCRATCH, *transfers): "with {songs}, {method} beats scratch",
        (STALLED, method_name(PRETRAINED_STALLED)): "with {songs}, {method}, beats {against}",
        (EQUAL_COMPUTE, *transfers): "with {songs}, {method} beats scratch given the same compute",
        (SHUFFLED, *transfers): "with {songs}, {method} beats its own weights shuffled",
    }
    for (against, *methods), text in statements.items():
        chosen = claim[(claim["against"] == method_name(against)) & claim["method"].isin(methods)]
        for row in chosen.itertuples():
            songs = counted(row.labeled_songs, "labelled song")
            statement = text.format(songs=songs, method=row.method, against=row.against)
            interval, family = (row.difference, row.low, row.high), f"budgets of {row.method} and {row.against}"
            took = {f"{side}{name}": getattr(row, f"{side}{name}") for side in ("", "against_") for name in TOOK}
            yield _row(statement, 1, interval, row.p, row.p_holm, family, row.n_songs, row.n_seeds, "seed",
                       origins=row.n_origins) | took  # fmt: skip


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
            interval, family = (row.difference, row.low, row.high), f"outputs of training on {trained} songs"
            yield _row(statement, sign, interval, row.p, row.p_holm, family, row.n_songs, row.n_seeds, PRETRAINING)
    for row in rank_correlations(study.read("within_songs")).itertuples():
        if row.kind != "waveform":
            statement = f"songs whose stems' {row.kind}s correlate more are separated worse"
            interval, family = (row.rho, row.low, row.high), "kinds of correlation"
            yield _row(statement, -1, interval, row.p, row.p_holm, family, row.n, 0, "", "rank correlation")
    shares = study.read("shares").set_index("what")
    if "definition" in shares.index:
        row = shares.loc["definition"]
        statement = "labels that only group outputs close part of the distance to the supervised model"
        interval = tuple(100 * row[name] for name in ("share", "low", "high"))
        yield _row(statement, 1, interval, row["p"], row["p_holm"], "what closes the distance", row["n_songs"],
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
    interval = (row["difference"], row["low"], row["high"])
    yield _row(statement, 1, interval, row["p"], row["p"], "alone", row["n_songs"], row["n_seeds"], PRETRAINING)


def shown(claims: pd.DataFrame) -> pd.DataFrame:
    """The table of claims for readers: statement, effect, interval, p, n and verdict as text."""
    signed = {name: claims[name].map("{:+.2f}".format) for name in ("effect", "low", "high")}
    return pd.DataFrame({
        "statement": without_kind("\n".join(claims["statement"])).split("\n"),
        "effect": signed["effect"] + " " + claims["unit"],
        "95% interval": signed["low"] + " to " + signed["high"],
        "p (Holm)": claims["p_holm"].map(p_short),
        "n": claims["n"],
        "verdict": claims["verdict"],
    })  # fmt: skip
