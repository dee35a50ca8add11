"""Before the claim, on validation songs alone: which schedule each arm gets, and where pre-training could matter.

With folds, those of the first: what is chosen for all folds has then seen songs that other folds test.
"""

from __future__ import annotations

import itertools

import pandas as pd

from lib.arms import SCRATCH, Finetuning, method_name, origin
from lib.experiments import evaluate
from lib.experiments.intervals import mean_difference
from lib.experiments.jobs import Job, scored, train_in_parallel
from lib.scoring import MEAN, METRICS, summarise
from lib.study import Study

SEARCH = ["method", "learning_rate", "steps", "body_rate"]


def search(study: Study) -> pd.DataFrame:
    """Validation scores of scratch and of every transfer under every schedule: ``tables/search.csv``.

    Columns: those of the scores, and ``learning_rate``, ``steps`` and ``body_rate``. Every model is the average of its
    checkpoints of lowest validation loss: the length of training is chosen within each run as well.
    """
    train_in_parallel(search_jobs(study))
    frames = [
        evaluate.scores(training, "validation").assign(experiment="search", **schedule)
        for training, schedule in _search_plan(study)
    ]
    return study.write("search", pd.concat(frames, ignore_index=True)) if frames else pd.DataFrame()


def search_jobs(study: Study) -> list[Job]:
    """What `search` and `regime_map` train and score."""
    searched = [training for training, _ in _search_plan(study)]
    return [scored(training, "validation") for training in itertools.chain(searched, *_map_plan(study).values())]


def _search_plan(study: Study) -> list[tuple[Finetuning, dict]]:
    """(training, its learning rate, steps and body rate)."""
    study = study.folds[0]
    settings, plan = study.profile.regime, []
    schedules = itertools.product(settings.learning_rates, settings.body_rates, settings.steps)
    for (rate, body, steps), arm in itertools.product(schedules, (SCRATCH, *settings.transfers)):
        rates = {"learning_rate": rate, "transfer_learning_rate": rate, "body_rate": body}
        variant = study.variant({f"finetune.{name}": value for name, value in rates.items()}, finetune=steps)
        schedule = {"learning_rate": rate, "steps": steps, "body_rate": body}
        runs = itertools.product(settings.searched_songs, settings.seeds)
        plan += [(Finetuning(variant, arm, seed, songs), schedule) for songs, seed in runs]
    return plan


def searched(table: pd.DataFrame, metric: str = METRICS[0]) -> pd.DataFrame:
    """Mean of a metric over stems, songs, seeds and budgets per arm and schedule, the best of each arm marked ``best``.

    ``n_songs`` and ``n_seeds`` are what each mean is of.
    """
    parts = [summarise(part).assign(**dict(zip(SEARCH[1:], key, strict=True)))
             for key, part in table.groupby(SEARCH[1:], sort=False)]  # fmt: skip
    summary = pd.concat(parts, ignore_index=True)
    summary = summary[(summary["stem"] == MEAN) & (summary["metric"] == metric)]
    means = summary.groupby(SEARCH, sort=False)["value"].agg(["mean", "min", "max"]).reset_index()
    best = means["mean"] == means.groupby("method")["mean"].transform("max")
    return means.assign(best=best, n_songs=table["song"].nunique(), n_seeds=table["seed"].nunique())


def regime_map(study: Study) -> pd.DataFrame:
    """Pre-trained minus scratch on validation songs, by pre-training steps and labelled songs: ``tables/regime.csv``.

    Columns: pretrain_steps, labeled_songs, method, against, metric, difference, low, high, n_songs, n_seeds, scratch
    (its mean).
    """
    metric, rows = study.profile.scoring.primary, []
    names = method_name(study.profile.regime.transfers[0]), method_name(SCRATCH)
    train_in_parallel(search_jobs(study))
    for (steps, songs), trainings in _map_plan(study).items():
        table = pd.concat([evaluate.scores(training, "validation") for training in trainings], ignore_index=True)
        gain = mean_difference(table, *names, metric, origin(study))
        scratch = table[(table["method"] == names[1]) & (table["metric"] == metric)]["value"].mean()
        facts = {"pretrain_steps": steps, "labeled_songs": songs, "method": names[0], "against": names[1]}
        kept = {name: float(gain[name]) for name in ("difference", "low", "high", "n_songs", "n_seeds")}
        rows.append({**facts, "metric": metric, **kept, "scratch": scratch})
    return study.write("regime", pd.DataFrame(rows)) if rows else pd.DataFrame()


def _map_plan(study: Study) -> dict[tuple[int, int], list[Finetuning]]:
    """The trainings of every cell (steps of pre-training, labelled songs)."""
    study = study.folds[0]
    settings = study.profile.regime
    arms = list(itertools.product(settings.seeds, (SCRATCH, settings.transfers[0])))
    return {
        (steps, songs): [Finetuning(study.variant(pretrain=steps), arm, seed, songs) for seed, arm in arms]
        for steps, songs in itertools.product(settings.pretrain_steps, settings.labeled_songs)
    }
