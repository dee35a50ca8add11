"""From runs to tables: scores, the claim, learning curves, ablations, cost."""

from __future__ import annotations

import pandas as pd

from lib import UserError
from lib.profile import override
from lib.runs import Run
from lib.scoring import paired_interval, read_table
from lib.stages import EQUAL_COMPUTE, SCRATCH, SHUFFLED, Study

METRICS = ("uSDR", "cSDR")
NAMES = {
    SCRATCH: SCRATCH,
    EQUAL_COMPUTE: "scratch, equal compute",
    SHUFFLED: "pre-trained, shuffled",
}


def method_name(how: str) -> str:
    """The name of a method in every table and figure."""
    return NAMES.get(how, f"pre-trained ({how})")


def claim_runs(study: Study) -> list[tuple[str, int, int, Run]]:
    """(method, seed, labelled songs, run) of scratch and every transfer, trained where missing."""
    settings = study.profile.finetune
    return [
        (method_name(how), seed, songs, study.supervised(how, seed, songs))
        for songs in settings.labeled_songs
        for seed in settings.seeds
        for how in (SCRATCH, *settings.transfers)
    ]


def scores(study: Study) -> pd.DataFrame:
    """Every score of every model of the claim, and of the baselines: ``tables/scores.csv``."""
    frames = [study.baselines()]
    frames += [study.scores(run, method, seed, songs) for method, seed, songs, run in claim_runs(study)]
    return study.write("scores", pd.concat(frames, ignore_index=True))


def claim(study: Study) -> pd.DataFrame:
    """Pre-trained minus scratch, paired by song and seed, per stem and metric: ``tables/claim.csv``.

    Columns: experiment, labeled_songs, method, against, metric, stem, difference, low, high, n_songs, n_seeds; low and
    high bound the 95% interval of `lib.scoring.paired_interval`, over test songs only.
    """
    table = study.read("scores")
    rows = []
    for songs in study.profile.finetune.labeled_songs:
        chosen = table[(table["experiment"] == "test") & (table["labeled_songs"] == songs)]
        for how in study.profile.finetune.transfers:
            for metric in METRICS:
                interval = paired_interval(chosen, method_name(how), SCRATCH, metric)
                facts = {"experiment": "test", "labeled_songs": songs, "method": method_name(how), "against": SCRATCH}
                rows.append(interval.assign(**facts, metric=metric))
    columns = ["experiment", "labeled_songs", "method", "against", "metric", "stem", "difference", "low", "high"]
    return study.write("claim", pd.concat(rows, ignore_index=True)[[*columns, "n_songs", "n_seeds"]])


def learning_curves(study: Study, runs: list[tuple[str, int | None, int | None, Run]]) -> pd.DataFrame:
    """Loss and validation loss in dB of several runs: method, seed, labeled_songs, step, metric, value."""
    frames = []
    for method, seed, songs, run in runs:
        log = read_table(run.folder / "log.csv")
        long = log.melt("step", ["loss", "validation_loss"], "metric", "value").dropna(subset="value")
        frames.append(long.assign(method=method, seed=seed, labeled_songs=songs))
    return pd.concat(frames, ignore_index=True)[["method", "seed", "labeled_songs", "step", "metric", "value"]]


def ablation_studies(study: Study):
    """(axis, level, is base, study) for every level of every axis: the profile with that level's fields set."""
    settings = study.profile.ablations
    steps = {"pretrain.steps": settings.pretrain_steps, "finetune.steps": settings.finetune_steps}
    shared = {field: count for field, count in steps.items() if count}
    for axis in settings.axes:
        for level in axis.levels:
            variant = Study(override(study.profile, {**shared, **level.set}))
            yield axis.name, level.label, level.label == axis.base, variant


def ablations(study: Study) -> pd.DataFrame:
    """One axis at a time around the base: ``tables/ablations.csv``.

    Columns: those of the scores, with the axis in ``experiment``, and ``level`` and ``base``. Scratch stands beside
    every level (trained once where a level does not touch it).
    """
    settings, frames = study.profile.ablations, []
    songs = study.profile.finetune.labeled_songs[0]
    for axis, level, is_base, variant in ablation_studies(study):
        for seed in settings.seeds:
            for how in (SCRATCH, settings.transfer):
                scored = variant.scores(variant.supervised(how, seed, songs), method_name(how), seed, songs)
                scored = scored[scored["experiment"] == "test"]
                frames.append(scored.assign(experiment=axis, level=level, base=is_base))
    if not frames:
        raise UserError(f"{study.profile.name}: ablations.axes is empty; name at least one axis")
    return study.write("ablations", pd.concat(frames, ignore_index=True))


def cost(study: Study, runs: list[tuple[str, int | None, int | None, Run]]) -> pd.DataFrame:
    """What every run took, tidy (stage, method, seed, labeled_songs, metric, value): ``tables/cost.csv``."""
    rows = []
    for method, seed, songs, run in runs:
        facts = run.facts()
        values = {
            "seconds": facts["seconds"],
            "seconds waiting for data": facts["waited_seconds"],
            "steps": facts["steps"],
            "skipped steps": facts["skipped_steps"],
            "audio seconds per second": facts["audio_seconds"] / facts["seconds"],
            "peak memory in MiB": facts["peak_memory_mib"],
        }
        named = {"stage": run.name.split("-")[0], "method": method, "seed": seed, "labeled_songs": songs}
        rows += [{**named, "metric": metric, "value": value} for metric, value in values.items()]
    return study.write("cost", pd.DataFrame(rows).astype({"seed": "Int64", "labeled_songs": "Int64"}))
