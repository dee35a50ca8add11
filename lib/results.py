"""From runs to tables: scores, the claim, learning curves, ablations, cost."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import pandas as pd

from lib import UserError, card, corpora, evaluation
from lib.intervals import Origin, holm, own, paired_interval, songs_worth
from lib.profile import FMA, Level
from lib.prose import EQUAL_ARM, LONG_ARM
from lib.runs import Run
from lib.scoring import MEAN, read_table
from lib.stages import EQUAL_COMPUTE, FROM_SCRATCH, LONG, SCRATCH, SHUFFLED, Study
from lib.workers import Job, ahead

METRICS = ("uSDR", "cSDR")
MUSIC = "corpus.unlabeled"
Named = tuple[str, int | None, int | None, Run]
"""Method, seed, labelled songs, run."""
NAMES = {
    SCRATCH: SCRATCH,
    EQUAL_COMPUTE: EQUAL_ARM,
    SHUFFLED: "pre-trained, shuffled",
    LONG: LONG_ARM,
}


def method_name(how: str) -> str:
    """The name of a method in every table and figure."""
    return NAMES.get(how, f"pre-trained ({how})")


def origin(study: Study) -> Origin:
    """Which pre-training a supervised seed starts from, for the intervals."""
    count = len(study.profile.pretrain.seeds)
    return lambda seed: seed % count


def arms(study: Study) -> tuple[str, ...]:
    """Scratch, the controls and the transfers of a profile."""
    settings = study.profile.finetune
    return (SCRATCH, *settings.controls, *settings.transfers)


def pairs(study: Study) -> list[tuple[str, str]]:
    """(arm, arm that it is compared with): everything with scratch, every transfer with the controls too.

    *Long* is compared with *equal compute*, which has as many steps, instead of with the transfers.
    """
    (first, *others), settings = arms(study), study.profile.finetune
    shorter = [control for control in settings.controls if control != LONG]
    found = [(how, first) for how in others] + [(how, control) for how in settings.transfers for control in shorter]
    return found + [(LONG, EQUAL_COMPUTE)] * ({LONG, EQUAL_COMPUTE} <= set(settings.controls))


def claim_runs(study: Study) -> list[Named]:
    """(method, seed, labelled songs, run) of every arm, trained where missing."""
    plan = claim_jobs(study)
    ahead(plan)
    names = [(method_name(job.how), job.seed, job.labeled_songs) for job in plan]
    runs = (study.supervised(job.how, job.seed, job.labeled_songs) for job in plan)
    return [(*name, run) for name, run in zip(names, runs, strict=True)]


def claim_jobs(study: Study) -> list[Job]:
    """What `claim_runs` trains and scores."""
    settings = study.profile.finetune
    plan = itertools.product(settings.labeled_songs, settings.seeds, arms(study))
    return [Job(study.profile, how, seed, songs, "test") for songs, seed, how in plan]


def scores(study: Study) -> pd.DataFrame:
    """Every score of every model of the claim, and of the baselines: ``tables/scores.csv``; a card of each model."""
    frames = [evaluation.baselines(study)]
    for job, (method, seed, songs, run) in zip(claim_jobs(study), claim_runs(study), strict=True):
        frames.append(evaluation.scores(study, run, method, seed, songs))
        card.write(study, run, job.how, seed, songs, frames[-1])
    return study.write("scores", pd.concat(frames, ignore_index=True))


def claim(study: Study) -> pd.DataFrame:
    """Differences of arms, paired by song and seed, per stem and metric: ``tables/claim.csv``.

    Columns: experiment, labeled_songs, method, against, metric, and those of `lib.intervals.paired_interval`, over
    test songs only.
    """
    table, rows = study.read("scores"), []
    table = table[table["experiment"] == "test"]
    for songs in study.profile.finetune.labeled_songs:
        chosen = table[table["labeled_songs"] == songs]
        for how, against in pairs(study):
            start = own if {how, against} <= set(FROM_SCRATCH) else origin(study)
            facts = {"experiment": "test", "labeled_songs": songs}
            names = {"method": method_name(how), "against": method_name(against)}
            for metric in METRICS:
                interval = paired_interval(chosen, *names.values(), metric, start)
                rows.append(interval.assign(**facts, **names, metric=metric))
    columns = ["experiment", "labeled_songs", "method", "against", "metric"]
    table = pd.concat(rows, ignore_index=True)
    return study.write("claim", table[[*columns, *(name for name in table if name not in columns)]])


def worth(study: Study) -> pd.DataFrame:
    """How many labelled songs from scratch every other arm is worth: ``tables/songs_worth.csv``, by uSDR.

    *Long* is held against scratch with as many steps, *equal compute*, where the profile has that.
    """
    table, rows = study.read("scores"), []
    table = table[table["experiment"] == "test"]
    for how in arms(study)[1:]:
        as_long = how == LONG and EQUAL_COMPUTE in study.profile.finetune.controls
        names = method_name(how), method_name(EQUAL_COMPUTE if as_long else SCRATCH)
        found = songs_worth(table, *names, "uSDR", own if how == EQUAL_COMPUTE else origin(study))
        rows.append(found.assign(method=names[0], against=names[1], metric="uSDR"))
    return study.write("songs_worth", pd.concat(rows, ignore_index=True))


def recorded(study: Study, notebook: str, runs: Iterable[Named]) -> list[Named]:
    """The runs that a notebook stands on, named in ``tables/runs.csv``: notebook, method, seed, labeled_songs, run.

    ``weights`` is the SHA-256 of what each was trained to.
    """
    runs, columns = list(runs), ["notebook", "method", "seed", "labeled_songs", "run", "weights"]
    rows = [(notebook, method, seed, songs, run.name, run.facts()["weights"]) for method, seed, songs, run in runs]
    table = pd.DataFrame(rows, columns=columns).astype({"seed": "Int64", "labeled_songs": "Int64"})
    if (study.results / "tables" / "runs.csv").exists():
        others = study.read("runs")
        table = pd.concat([others[others["notebook"] != notebook], table])
    study.write("runs", table.drop_duplicates().sort_values("notebook", kind="stable"))
    return runs


def learning_curves(study: Study, runs: list[Named]) -> pd.DataFrame:
    """Loss and validation loss in dB of several runs: method, seed, labeled_songs, step, metric, value.

    The loss at a step is the mean over the batches since the validation before; each batch's stands in the run's log.
    """
    frames = []
    for method, seed, songs, run in runs:
        log = read_table(run.folder / "log.csv").astype(float)  # a step that was skipped has the loss "nan"
        validated = log["step"].where(log["validation_loss"].notna()).bfill().rename("step")
        means = log.groupby(validated)[["loss", "validation_loss"]].mean().reset_index().astype({"step": int})
        long = means.melt("step", var_name="metric").dropna(subset="value")
        frames.append(long.assign(method=method, seed=seed, labeled_songs=songs))
    return pd.concat(frames, ignore_index=True)[["method", "seed", "labeled_songs", "step", "metric", "value"]]


def ablation_levels(study: Study, absent: bool = False) -> Iterator[tuple[str, str, bool, str, Study]]:
    """(axis, level, is base, transfer, study) of every level of every axis whose music is there, or ``absent`` too."""
    settings = study.profile.ablations
    short = study.variant(pretrain=settings.pretrain_steps, finetune=settings.finetune_steps)
    for axis in settings.axes:
        for level in axis.levels:
            if absent or has_music(study, level):
                transfer, base = level.transfer or settings.transfer, level.label == axis.base
                yield axis.name, level.label, base, transfer, short.variant(level.set)


def has_music(study: Study, level: Level) -> bool:
    """Whether the unlabelled music that a level names is there, or can be fetched: without it the level is left out."""
    return corpora.available(study.variant(level.set).profile)


def unlabelled_music(study: Study) -> pd.DataFrame:
    """What the levels of an axis that changes the music pre-train on, by source: ``tables/unlabelled_music.csv``.

    Columns: axis, level, source (``rendered``, ``fma:SUBSET``, or the first folder within the folder named: a package,
    an album), songs and hours, both of training songs.
    """
    axes = [axis.name for axis in study.profile.ablations.axes if any(MUSIC in level.set for level in axis.levels)]
    columns, rows = ["axis", "level", "source"], []
    for axis, level, _, _, variant in ablation_levels(study):
        parts = variant.profile.corpus.unlabeled_parts
        songs = corpora.of_split(variant.unlabeled, "train") if axis in axes else []
        rows += [(axis, level, _source(song.name, parts), song.seconds / 3600) for song in songs]
    found = pd.DataFrame(rows, columns=[*columns, "hours"]).groupby(columns, sort=False)["hours"]
    return study.write("unlabelled_music", found.agg(songs="count", hours="sum").reset_index())


def _source(song: str, parts: tuple[str, ...]) -> str:
    """The origin of an unlabelled song: joined corpora put the name of their folder before that of the song."""
    if parts[0].startswith(FMA):
        return parts[0]
    folder, *rest = song.split("/")
    if "rendered" in parts and (len(parts) == 1 or folder == "rendered"):
        return "rendered"
    return rest[0] if len(parts) > 1 and len(rest) > 1 else folder


def ablation_runs(study: Study) -> list[tuple[str, str, bool, str, int, Study, Run]]:
    """(axis, level, is base, how, seed, study, run), trained where missing; scratch stands beside every level."""
    songs, plan = ablation_songs(study), _ablation_plan(study)
    ahead(ablation_jobs(study))
    return [(*facts, how, seed, variant, variant.supervised(how, seed, songs)) for *facts, how, seed, variant in plan]


def ablation_jobs(study: Study, absent: bool = False) -> list[Job]:
    """What `ablation_runs` trains and scores; ``absent`` as in `ablation_levels`."""
    plan = _ablation_plan(study, absent)
    return [Job(variant.profile, how, seed, ablation_songs(study), "test") for _, _, _, how, seed, variant in plan]


def _ablation_plan(study: Study, absent: bool = False) -> list[tuple[str, str, bool, str, int, Study]]:
    return [
        (axis, level, base, how, seed, variant)
        for axis, level, base, transfer, variant in ablation_levels(study, absent)
        for seed in study.profile.ablations.seeds
        for how in dict.fromkeys((SCRATCH, transfer))
    ]


def ablation_songs(study: Study) -> int:
    """How many labelled songs the ablations have."""
    return study.profile.ablations.labeled_songs or study.profile.finetune.labeled_songs[0]


def ablations(study: Study) -> pd.DataFrame:
    """One axis at a time around the base: ``tables/ablations.csv``.

    Columns: those of the scores, with the axis in ``experiment``, and ``level``, ``base`` and ``arm``: "scratch", or
    "pre-trained" for whatever the level transfers. Where it transfers nothing, both arms are one.
    """
    frames, songs = [], ablation_songs(study)
    for axis, level, base, how, seed, variant, run in ablation_runs(study):
        scored = evaluation.scores(variant, run, method_name(how), seed, songs)
        scored = scored[scored["experiment"] == "test"].assign(experiment=axis, level=level, base=base)
        frames.append(scored.assign(arm="scratch" if how == SCRATCH else "pre-trained"))
    if not frames:
        raise UserError(f"{study.profile.name}: ablations.axes is empty; name at least one axis")
    return study.write("ablations", pd.concat(frames, ignore_index=True))


def ablation_effects(study: Study) -> pd.DataFrame:
    """Per level, pre-trained minus scratch in mean uSDR, paired by song and seed: ``tables/ablation_effects.csv``.

    ``from_base`` (with ``from_base_low`` and ``from_base_high``, 95%) is by how much that gain exceeds the base's, of
    the same songs and seeds; empty at the base, and where an axis has run no base. ``from_base_p`` is corrected over
    the levels of the axis (Holm).
    """
    table, rows = study.read("ablations"), []
    keys = {"difference": "from_base", "low": "from_base_low", "high": "from_base_high", "p": "from_base_p"}
    for axis, levels in table.groupby("experiment", sort=False):
        gains = {level: _gains(part) for level, part in levels.groupby("level", sort=False)}
        bases = dict.fromkeys(levels.loc[levels["base"], "level"])
        for level, part in levels.groupby("level", sort=False):
            facts = {"axis": axis, "level": level, "base": level in bases, "method": part["method"].iloc[-1]}
            row = _over_stems(study, gains[level], gains[level].assign(value=0.0))
            against = [_over_stems(study, gains[level], gains[base]) for base in bases if base != level]
            rows.append(facts | row | {new: against[0][old] if against else None for old, new in keys.items()})
    effects = pd.DataFrame(rows).astype(dict.fromkeys(keys.values(), float))
    tested = effects["from_base_p"].dropna()
    corrected = tested.groupby(effects["axis"], sort=False).transform(holm)
    return study.write("ablation_effects", effects.assign(from_base_p=corrected))


def _gains(part: pd.DataFrame) -> pd.DataFrame:
    """Pre-trained minus scratch, by seed, song, stem and metric; 0 where both are one."""
    wide = part.set_index(["seed", "song", "stem", "metric", "arm"])["value"].unstack("arm")
    return (wide.get("pre-trained", wide["scratch"]) - wide["scratch"]).rename("value").reset_index()


def _over_stems(study: Study, above: pd.DataFrame, below: pd.DataFrame) -> dict:
    """The paired difference of two tables of values, over stems."""
    both = pd.concat([above.assign(method="above"), below.assign(method="below")])
    found = paired_interval(both, "above", "below", "uSDR", origin(study))
    return found[found["stem"] == MEAN].drop(columns="stem").to_dict("records")[0]


def cost(study: Study, runs: list[Named]) -> pd.DataFrame:
    """What every run took, tidy (stage, method, seed, labeled_songs, metric, value): ``tables/cost.csv``."""
    rows = []
    for method, seed, songs, run in runs:
        facts = run.facts()
        values = {
            "seconds": facts["seconds"],
            "seconds waiting for data": facts["waited_seconds"],
            "steps": facts["steps"],
            "skipped steps": facts["skipped_steps"],
            "audio seconds per second": facts["audio_seconds"] / max(facts["seconds"], 1e-9),
            "peak memory in MiB": facts["peak_memory_mib"],
        }
        named = {"stage": run.name.split("-")[0], "method": method, "seed": seed, "labeled_songs": songs}
        rows += [{**named, "metric": metric, "value": value} for metric, value in values.items()]
    return study.write("cost", pd.DataFrame(rows).astype({"seed": "Int64", "labeled_songs": "Int64"}))
