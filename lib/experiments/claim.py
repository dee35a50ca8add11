"""The claim: scores of every arm, paired differences, and how many labelled songs an arm is worth."""

from __future__ import annotations

import itertools

import pandas as pd

from lib.arms import SCRATCH, STALLED, Finetuning, method_name, of_profile, pairs, starts_pretrained
from lib.experiments import evaluate, protocol, records
from lib.experiments.intervals import Origin, holm_within, own_seed, paired_interval, songs_worth
from lib.experiments.jobs import scored, train_in_parallel
from lib.experiments.records import Named, named
from lib.scoring import MEAN, METRICS
from lib.study import Study


def claim_trainings(study: Study) -> list[Finetuning]:
    """Every arm with every budget and seed, in every fold."""
    settings = study.profile.finetune
    plan = itertools.product(settings.labeled_songs, settings.seeds, study.folds, of_profile(study))
    return [Finetuning(fold, arm, seed, songs) for songs, seed, fold, arm in plan]


def is_final(training: Finetuning) -> bool:
    """Whether it makes its arm's final model, of its fold: the first seed with the most labelled songs."""
    settings = training.study.profile.finetune
    return (training.seed, training.songs) == (settings.seeds[0], max(settings.labeled_songs))


def claim_runs(study: Study) -> list[Named]:
    """(method, seed, labelled songs, run) of every arm, trained where missing."""
    plan = claim_trainings(study)
    protocol.register(study)
    train_in_parallel(map(scored, plan))
    return [named(training) for training in plan]


def scores(study: Study) -> pd.DataFrame:
    """Every score of every model of the claim, and of the baselines: ``tables/scores.csv``.

    With ``scoring.bss_eval`` also ISR, SIR and SAR of the final models.
    """
    protocol.register(study)
    train_in_parallel(map(scored, claim_trainings(study)))
    frames = [evaluate.baselines(study), *map(evaluate.scores, claim_trainings(study))]
    if study.profile.scoring.bss_eval:
        frames += map(evaluate.bss_eval, filter(is_final, claim_trainings(study)))
    return study.write("scores", pd.concat(frames, ignore_index=True))


def origin(study: Study) -> Origin:
    """Which pre-training a supervised seed starts from, for the intervals."""
    count = len(study.profile.pretrain.seeds)
    return lambda seed: seed % count


def claim(study: Study) -> pd.DataFrame:
    """Differences of arms, paired by song and seed, per stem and metric: ``tables/claim.csv``.

    Columns: experiment, labeled_songs, method, against, metric, and those of `paired_interval`, over test songs only;
    and family, within which p_holm is corrected: the budgets of a comparison (means over stems), or the stems of one
    budget. All differences are means over songs, those of cSDR too. A metric that an arm's records lack is left out.
    validation_songs: labelled songs that a budget uses beside its training songs. What a model of ``method`` and one of
    ``against`` took (`lib.experiments.records.spent`): steps, core_seconds and petaflop, the latter with "against_".
    """
    table, rows, took = study.read("scores"), [], records.spent(study)
    table = table[table["experiment"] == "test"]
    known = table[table["seed"].notna()].groupby("method")["metric"].unique()
    metrics = [metric for metric in METRICS if all(metric in of for of in known)]
    for songs in study.profile.finetune.labeled_songs:
        chosen = table[table["labeled_songs"] == songs]
        for arm, against in pairs(study):
            start = origin(study) if starts_pretrained(arm) or starts_pretrained(against) else own_seed
            facts = {"experiment": "test", "labeled_songs": songs} | _labels(study, songs)
            names = {"method": method_name(arm), "against": method_name(against)}
            facts |= _took(took, songs, *names.values())
            for metric in metrics:
                interval = paired_interval(chosen, *names.values(), metric, start)
                rows.append(interval.assign(**facts, **names, metric=metric))
    columns = ["experiment", "labeled_songs", "method", "against", "metric"]
    table = pd.concat(rows, ignore_index=True)
    of_budget = table["labeled_songs"].map("stems, {} labelled songs".format)
    table = table.assign(family=of_budget.where(table["stem"] != MEAN, "budgets"))
    table = holm_within(table, ["family", "method", "against", "metric"])
    return study.write("claim", table[[*columns, *(name for name in table if name not in columns)]])


def _labels(study: Study, songs: int) -> dict[str, float]:
    return {"validation_songs": study.labeled_songs_used(songs)["validation_songs"]}


def _took(took: pd.DataFrame, songs: int, method: str, against: str) -> dict[str, float]:
    columns = ("steps", "core_seconds", "petaflop")
    sides = {"": method, "against_": against}
    return {f"{side}{name}": took.loc[(arm, songs), name] for side, arm in sides.items() for name in columns}


def worth(study: Study) -> pd.DataFrame:
    """How many labelled songs from scratch every other arm is worth: ``tables/songs_worth.csv``, by uSDR.

    *Pre-trained, until it stalls* is held against scratch until that stalls, where the profile has it.
    """
    table, rows = study.read("scores"), []
    table = table[table["experiment"] == "test"]
    for arm in of_profile(study)[1:]:
        names = method_name(arm), method_name(STALLED if (arm, STALLED) in pairs(study) else SCRATCH)
        found = songs_worth(table, *names, "uSDR", origin(study) if starts_pretrained(arm) else own_seed)
        held_out = [_labels(study, songs)["validation_songs"] for songs in found["labeled_songs"]]
        rows.append(found.assign(method=names[0], against=names[1], metric="uSDR", validation_songs=held_out))
    return study.write("songs_worth", pd.concat(rows, ignore_index=True))
