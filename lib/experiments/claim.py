"""The claim: scores of every arm, paired differences, and how many labelled songs an arm is worth."""

from __future__ import annotations

import functools
import itertools

import pandas as pd

from lib.arms import ARMS, SCRATCH, STALLED, Finetuning, method_name, of_profile, origin, pairs
from lib.experiments import evaluate, protocol, records
from lib.experiments.intervals import Origin, holm_within, own_seed, paired_interval, songs_worth
from lib.experiments.jobs import scored, train_in_parallel
from lib.experiments.records import Named, named
from lib.scoring import MEAN, METRICS
from lib.study import Study


@functools.lru_cache(1)  # each identifies itself once; of one study at a time
def claim_trainings(study: Study) -> tuple[Finetuning, ...]:
    """Every arm with every budget and seed, in every fold."""
    settings = study.profile.finetune
    plan = itertools.product(settings.labeled_songs, settings.seeds, study.folds, of_profile(study))
    return tuple(Finetuning(fold, arm, seed, songs) for songs, seed, fold, arm in plan)


def is_final(training: Finetuning) -> bool:
    """Whether it makes its arm's final model, of its fold: the first seed with the most labelled songs."""
    settings = training.study.profile.finetune
    return (training.seed, training.songs) == (settings.seeds[0], max(settings.labeled_songs))


def claim_runs(study: Study) -> list[Named]:
    """The runs of `claim_trainings`, as tables name them, trained and scored where missing."""
    plan = claim_trainings(study)
    protocol.register(study)
    train_in_parallel(map(scored, plan))
    return [named(training) for training in plan]


def scores(study: Study) -> pd.DataFrame:
    """Every score of every model of the claim, and of the baselines: ``tables/scores.csv``.

    With ``scoring.bss_eval`` also ISR, SIR and SAR of the final models.
    """
    claim_runs(study)
    frames = [evaluate.baselines(study), *map(evaluate.scores, claim_trainings(study))]
    if study.profile.scoring.bss_eval:
        frames += map(evaluate.bss_eval, filter(is_final, claim_trainings(study)))
    return study.write("scores", pd.concat(frames, ignore_index=True))


def claim(study: Study) -> pd.DataFrame:
    """Differences of arms, paired by song and seed, per stem and metric: ``tables/claim.csv``.

    Columns: experiment, labeled_songs, method, against, metric (the primary one first), and those of
    `paired_interval`, over test songs only;
    and family, within which p_holm is corrected: the budgets of a comparison (means over stems), or the stems of one
    budget. All differences are means over songs, those of cSDR too. A metric that an arm's records lack is left out.
    validation_songs: labelled songs that a budget uses beside its training songs. What a model of ``method`` and one of
    ``against`` took (`lib.experiments.records.spent`): steps, core_seconds and petaflop, the latter with "against_".
    """
    table, rows, took = _tested(study), [], records.spent(study)
    known = table[table["seed"].notna()].groupby("method")["metric"].unique()
    metrics = [metric for metric in METRICS if all(metric in of for of in known)]
    metrics.sort(key=lambda metric: metric != study.profile.scoring.primary)
    for songs, pair in itertools.product(study.profile.finetune.labeled_songs, pairs(study)):
        method, against = names = [method_name(arm) for arm in pair]
        facts = {"experiment": "test", "labeled_songs": songs, "method": method, "against": against}
        sides = {"validation_songs": _held_out(study, songs)}
        for side, name in (("", method), ("against_", against)):
            spent = took.loc[(name, songs), records.TOOK]
            sides |= spent.add_prefix(side).to_dict()
        chosen = table[table["labeled_songs"] == songs]
        for metric in metrics:
            found = paired_interval(chosen, *names, metric, _origin(study, *pair)).to_dict("records")
            rows += [{**facts, "metric": metric, **row, **sides} for row in found]
    table = pd.DataFrame(rows)
    of_budget = table["labeled_songs"].map("stems, {} labelled songs".format)
    table = table.assign(family=of_budget.where(table["stem"] != MEAN, "budgets"))
    return study.write("claim", holm_within(table, ["family", "method", "against", "metric"]))


def worth(study: Study) -> pd.DataFrame:
    """How many labelled songs from scratch every other arm is worth: ``tables/songs_worth.csv``, by the primary metric.

    *Pre-trained, until it stalls* is held against scratch until that stalls, where the profile has it.
    """
    table, rows, metric = _tested(study), [], study.profile.scoring.primary
    for arm in of_profile(study)[1:]:
        names = method_name(arm), method_name(STALLED if (arm, STALLED) in pairs(study) else SCRATCH)
        found = songs_worth(table, *names, metric, _origin(study, arm))
        held_out = [_held_out(study, songs) for songs in found["labeled_songs"]]
        rows.append(found.assign(method=names[0], against=names[1], metric=metric, validation_songs=held_out))
    return study.write("songs_worth", pd.concat(rows, ignore_index=True))


def _tested(study: Study) -> pd.DataFrame:
    """The scores of test songs."""
    table = study.read("scores")
    return table[table["experiment"] == "test"]


def _origin(study: Study, *arms: str) -> Origin:
    """Which pre-training a seed starts from, where one of the arms starts from any."""
    return origin(study) if any(ARMS[arm].transfer for arm in arms) else own_seed


def _held_out(study: Study, songs: int) -> float:
    return study.labeled_songs_used(songs)["validation_songs"]
