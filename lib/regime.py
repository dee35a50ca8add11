"""Before the claim, on validation songs alone: which schedule each arm gets, and where pre-training could matter."""

from __future__ import annotations

import itertools

import pandas as pd

from lib import evaluation
from lib.intervals import paired_interval
from lib.results import method_name, origin
from lib.scoring import MEAN, summarise
from lib.stages import SCRATCH, Study
from lib.workers import Job, ahead

SEARCH = ["method", "learning_rate", "steps", "body_rate"]


def search(study: Study) -> pd.DataFrame:
    """Validation scores of scratch and of every transfer under every schedule: ``tables/search.csv``.

    Columns: those of the scores, and ``learning_rate``, ``steps`` and ``body_rate``. Every model is the average of its
    checkpoints of lowest validation loss: the length of training is chosen within each run as well. What `regime_map`
    needs is trained beside them.
    """
    frames, plan = [], _search_plan(study)
    ahead([*search_jobs(study), *map_jobs(study)])
    for variant, rate, steps, how, body, songs, seed in plan:
        run = variant.supervised(how, seed, songs)
        scored = evaluation.scores(variant, run, method_name(how), seed, songs, "validation")
        frames.append(scored.assign(experiment="search", learning_rate=rate, steps=steps, body_rate=body))
    return study.write("search", pd.concat(frames, ignore_index=True)) if frames else pd.DataFrame()


def search_jobs(study: Study) -> list[Job]:
    """What `search` trains and scores."""
    return [Job(v.profile, how, seed, songs, "validation") for v, _, _, how, _, songs, seed in _search_plan(study)]


def _search_plan(study: Study) -> list[tuple[Study, float, int, str, float, int, int]]:
    """(study, learning rate, steps, arm, body rate, labelled songs, seed)."""
    settings, plan = study.profile.regime, []
    schedules = itertools.product(settings.learning_rates, settings.body_rates, settings.steps)
    for (rate, body, steps), how in itertools.product(schedules, (SCRATCH, *settings.transfers)):
        rates = {"learning_rate": rate, "transfer_learning_rate": rate, "body_rate": body}
        variant = study.variant({f"finetune.{name}": value for name, value in rates.items()}, finetune=steps)
        runs = itertools.product(settings.searched_songs, settings.seeds)
        plan += [(variant, rate, steps, how, body, songs, seed) for songs, seed in runs]
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
    cells, arms = _map_plan(study)
    ahead(map_jobs(study))
    for steps, songs in cells:
        variant, frames = study.variant(pretrain=steps), []
        for seed, how in arms:
            run = variant.supervised(how, seed, songs)
            frames.append(evaluation.scores(variant, run, method_name(how), seed, songs, "validation"))
        scored, names = pd.concat(frames, ignore_index=True), (method_name(settings.transfers[0]), SCRATCH)
        gain = paired_interval(scored, *names, "uSDR", origin(study)).set_index("stem").loc[MEAN]
        scratch = scored[(scored["method"] == SCRATCH) & (scored["metric"] == "uSDR")]["value"].mean()
        facts = {"pretrain_steps": steps, "labeled_songs": songs, "method": names[0], "against": names[1]}
        kept = ["difference", "low", "high", "n_songs", "n_seeds"]
        rows.append({**facts, "metric": "uSDR", **gain[kept].to_dict(), "scratch": scratch})
    return study.write("regime", pd.DataFrame(rows)) if rows else pd.DataFrame()


def map_jobs(study: Study) -> list[Job]:
    """What `regime_map` trains and scores."""
    cells, arms = _map_plan(study)
    return [
        Job(study.variant(pretrain=steps).profile, how, seed, songs, "validation")
        for steps, songs in cells
        for seed, how in arms
    ]


def _map_plan(study: Study) -> tuple[list[tuple[int, int]], list[tuple[int, str]]]:
    """(steps of pre-training, labelled songs) of every cell, and (seed, arm) of every run in it."""
    settings = study.profile.regime
    cells = itertools.product(settings.pretrain_steps, settings.labeled_songs)
    return list(cells), list(itertools.product(settings.seeds, (SCRATCH, settings.transfers[0])))
