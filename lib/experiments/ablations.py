"""One axis at a time around the base: pre-trained minus scratch at every level."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from lib import UserError
from lib.arms import SCRATCH, Finetuning
from lib.data import corpora
from lib.experiments import evaluate
from lib.experiments.claim import origin
from lib.experiments.intervals import holm, holm_within, paired_interval
from lib.experiments.jobs import Job, scored, train_in_parallel
from lib.experiments.records import Named, named
from lib.profile.fields import FMA, Level
from lib.scoring import MEAN
from lib.study import Study

MUSIC = "corpus.unlabeled"


def ablation_levels(study: Study, absent: bool = False) -> Iterator[tuple[str, str, bool, str, Study]]:
    """(axis, level, is base, transfer, study) of every level of every axis whose music is there, or ``absent`` too.

    An axis of which no level but one has its music is left out.
    """
    settings = study.profile.ablations
    short = study.variant(pretrain=settings.pretrain_steps, finetune=settings.finetune_steps)
    for axis in settings.axes:
        levels = [level for level in axis.levels if absent or has_music(study, level)]
        for level in levels if len(levels) > 1 else []:
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


def ablation_trainings(study: Study, absent: bool = False) -> list[tuple[str, str, bool, Finetuning]]:
    """(axis, level, is base, training); scratch stands beside every level. ``absent`` as in `ablation_levels`."""
    songs = ablation_songs(study)
    return [
        (axis, level, base, Finetuning(fold, arm, seed, songs))
        for axis, level, base, transfer, variant in ablation_levels(study, absent)
        for seed in study.profile.ablations.seeds
        for fold in variant.folds
        for arm in dict.fromkeys((SCRATCH, transfer))
    ]


def ablation_jobs(study: Study, absent: bool = False) -> list[Job]:
    """What `ablations` trains and scores; ``absent`` as in `ablation_levels`."""
    return [scored(training) for *_, training in ablation_trainings(study, absent)]


def ablation_runs(study: Study) -> list[Named]:
    """(axis, level and method; seed; labelled songs; run) of every training, trained where missing."""
    train_in_parallel(ablation_jobs(study))
    plan = ((axis, level, named(training)) for axis, level, _, training in ablation_trainings(study))
    return [(f"{axis}, {level}: {method}", *rest) for axis, level, (method, *rest) in plan]


def ablation_songs(study: Study) -> int:
    """How many labelled songs the ablations have."""
    return study.profile.ablations.labeled_songs or study.profile.finetune.labeled_songs[0]


def ablations(study: Study) -> pd.DataFrame:
    """One axis at a time around the base: ``tables/ablations.csv``.

    Columns: those of the scores, with the axis in ``experiment``, and ``level``, ``base`` and ``arm``: "scratch", or
    "pre-trained" for whatever the level transfers. Where it transfers nothing, both arms are one.
    """
    train_in_parallel(ablation_jobs(study))
    frames = []
    for axis, level, base, training in ablation_trainings(study):
        table = evaluate.scores(training)
        table = table[table["experiment"] == "test"].assign(experiment=axis, level=level, base=base)
        frames.append(table.assign(arm="scratch" if training.arm == SCRATCH else "pre-trained"))
    if not frames:
        raise UserError(f"{study.profile.name}: ablations.axes is empty; name at least one axis")
    return study.write("ablations", pd.concat(frames, ignore_index=True))


def ablation_effects(study: Study) -> pd.DataFrame:
    """Per level, pre-trained minus scratch in mean uSDR, paired by song and seed: ``tables/ablation_effects.csv``.

    ``from_base`` (with ``from_base_low`` and ``from_base_high``, 95%) is by how much that gain exceeds the base's, of
    the same songs and seeds; empty at the base, and where an axis has run no base. ``p_holm`` and
    ``from_base_p_holm`` are corrected over the levels of the axis (Holm).
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
    return study.write("ablation_effects", holm_within(effects, ["axis"]).assign(from_base_p_holm=corrected))


def _gains(part: pd.DataFrame) -> pd.DataFrame:
    """Pre-trained minus scratch, by seed, song, stem and metric; 0 where both are one."""
    wide = part.set_index(["seed", "song", "stem", "metric", "arm"])["value"].unstack("arm")
    return (wide.get("pre-trained", wide["scratch"]) - wide["scratch"]).rename("value").reset_index()


def _over_stems(study: Study, above: pd.DataFrame, below: pd.DataFrame) -> dict:
    """The paired difference of two tables of values, over stems."""
    both = pd.concat([above.assign(method="above"), below.assign(method="below")])
    found = paired_interval(both, "above", "below", "uSDR", origin(study))
    return found[found["stem"] == MEAN].drop(columns="stem").to_dict("records")[0]
