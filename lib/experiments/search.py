"""Before the claim, on validation songs alone: which schedule each arm gets, and where pre-training could matter.

With folds, those of the first: what is chosen for all folds has then seen songs that other folds test.
"""

from __future__ import annotations

import itertools

import pandas as pd

from lib.arms import SCRATCH, Finetuning, method_name
from lib.experiments import evaluate
from lib.experiments.claim import origin
from lib.experiments.intervals import paired_interval
from lib.experiments.jobs import Job, scored, train_in_parallel
from lib.scoring import MEAN, summarise
from lib.study import Study

SEARCH = ["method", "learning_rate", "steps", "body_rate"]


def search(study: Study) -> pd.DataFrame:
    """Validation scores of scratch and of every transfer under every schedule: ``tables/search.csv``.

    Columns: those of the scores, and ``learning_rate``, ``steps`` and ``body_rate``. Every model is the average of its
    checkpoints of lowest validation loss: the length of training is chosen within each run as well. What `regime_map`
    needs is trained beside them.
    """
    frames, plan = [], _search_plan(study)
    train_in_parallel([*search_jobs(study), *map_jobs(study)])
    for training, rate, steps, body in plan:
        table = evaluate.scores(training, "validation")
        frames.append(table.assign(experiment="search", learning_rate=rate, steps=steps, body_rate=body))
    return study.write("search", pd.concat(frames, ignore_index=True)) if frames else pd.DataFrame()


def search_jobs(study: Study) -> list[Job]:
    """What `search` trains and scores."""
    return [scored(training, "validation") for training, *_ in _search_plan(study)]


def _search_plan(study: Study) -> list[tuple[Finetuning, float, int, float]]:
    """(training, learning rate, steps, body rate)."""
    study = study.folds[0]
    settings, plan = study.profile.regime, []
    schedules = itertools.product(settings.learning_rates, settings.body_rates, settings.steps)
    for (rate, body, steps), arm in itertools.product(schedules, (SCRATCH, *settings.transfers)):
        rates = {"learning_rate": rate, "transfer_learning_rate": rate, "body_rate": body}
        variant = study.variant({f"finetune.{name}": value for name, value in rates.items()}, finetune=steps)
        runs = itertools.product(settings.searched_songs, settings.seeds)
        plan += [(Finetuning(variant, arm, seed, songs), rate, steps, body) for songs, seed in runs]
    return plan


def searched(table: pd.DataFrame) -> pd.DataFrame:
    """Mean uSDR over stems, songs, seeds and budgets per arm and schedule, the best of each arm marked ``best``.

    ``n_songs`` and ``n_seeds`` are what each mean is of.
    """
    parts = [summarise(part).assign(**dict(zip(SEARCH[1:], key, strict=True)))
             for key, part in table.groupby(SEARCH[1:], sort=False)]  # fmt: skip
    summary = pd.concat(parts, ignore_index=True)
    summary = summary[(summary["stem"] == MEAN) & (summary["metric"] == "uSDR")]
    means = summary.groupby(SEARCH, sort=False)["value"].agg(["mean", "min", "max"]).reset_index()
    best = means["mean"] == means.groupby("method")["mean"].transform("max")
    return means.assign(best=best, n_songs=table["song"].nunique(), n_seeds=table["seed"].nunique())


def regime_map(study: Study) -> pd.DataFrame:
    """Pre-trained minus scratch on validation songs, by pre-training steps and labelled songs: ``tables/regime.csv``.

    Columns: pretrain_steps, labeled_songs, method, against, metric, difference, low, high, n_songs, n_seeds, scratch
    (its mean uSDR).
    """
    settings, rows = study.profile.regime, []
    train_in_parallel(map_jobs(study))
    for (steps, songs), trainings in _map_plan(study).items():
        table = pd.concat([evaluate.scores(training, "validation") for training in trainings], ignore_index=True)
        names = (method_name(settings.transfers[0]), method_name(SCRATCH))
        gain = paired_interval(table, *names, "uSDR", origin(study)).set_index("stem").loc[MEAN]
        scratch = table[(table["method"] == names[1]) & (table["metric"] == "uSDR")]["value"].mean()
        facts = {"pretrain_steps": steps, "labeled_songs": songs, "method": names[0], "against": names[1]}
        kept = ["difference", "low", "high", "n_songs", "n_seeds"]
        rows.append({**facts, "metric": "uSDR", **gain[kept].to_dict(), "scratch": scratch})
    return study.write("regime", pd.DataFrame(rows)) if rows else pd.DataFrame()


def map_jobs(study: Study) -> list[Job]:
    """What `regime_map` trains and scores."""
    return [scored(training, "validation") for trainings in _map_plan(study).values() for training in trainings]


def _map_plan(study: Study) -> dict[tuple[int, int], list[Finetuning]]:
    """The trainings of every cell (steps of pre-training, labelled songs)."""
    study = study.folds[0]
    settings = study.profile.regime
    arms = list(itertools.product(settings.seeds, (SCRATCH, settings.transfers[0])))
    return {
        (steps, songs): [Finetuning(study.variant(pretrain=steps), arm, seed, songs) for seed, arm in arms]
        for steps, songs in itertools.product(settings.pretrain_steps, settings.labeled_songs)
    }
