"""One axis at a time around the base: pre-trained minus scratch at every level."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from lib import UserError
from lib.arms import SCRATCH, Finetuning, origin
from lib.data import corpora
from lib.experiments import evaluate
from lib.experiments.intervals import holm, holm_within, mean_difference
from lib.experiments.jobs import Job, scored, train_in_parallel
from lib.experiments.records import Named, named
from lib.profile.fields import FMA, Level
from lib.study import Study

MUSIC = "corpus.unlabeled"
NOTHING = ""
"""In place of a level: no gain at all."""
KEYS = ["seed", "song", "stem", "metric"]


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
    settings = study.profile.ablations
    songs = settings.labeled_songs or study.profile.finetune.labeled_songs[0]
    return [
        (axis, level, base, Finetuning(fold, arm, seed, songs))
        for axis, level, base, transfer, variant in ablation_levels(study, absent)
        for seed in settings.seeds
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


def ablations(study: Study) -> pd.DataFrame:
    """One axis at a time around the base: ``tables/ablations.csv``.

    Columns: those of the scores, with the axis in ``experiment``, and ``level``, ``base`` and ``arm``: "scratch", or
    "pre-trained" for whatever the level transfers. Where it transfers nothing, both arms are one.
    """
    train_in_parallel(ablation_jobs(study))
    frames = []
    for axis, level, base, training in ablation_trainings(study):
        table = evaluate.scores(training)
        arm = "scratch" if training.arm == SCRATCH else "pre-trained"
        facts = {"experiment": axis, "level": level, "base": base, "arm": arm}
        frames.append(table[table["experiment"] == "test"].assign(**facts))
    if not frames:
        raise UserError(f"{study.profile.name}: ablations.axes is empty; name at least one axis")
    return study.write("ablations", pd.concat(frames, ignore_index=True))


def ablation_effects(study: Study) -> pd.DataFrame:
    """Per level, pre-trained minus scratch in the primary metric, paired by song and seed, over stems.

    ``from_base`` (with ``from_base_low`` and ``from_base_high``, 95%) is by how much that gain exceeds the base's, of
    the same songs and seeds; empty at the base, and where an axis has run no base. ``p_holm`` and
    ``from_base_p_holm`` are corrected over the levels of the axis (Holm). Writes ``tables/ablation_effects.csv``.
    """
    table, rows, given = study.read("ablations"), [], (study.profile.scoring.primary, origin(study))
    keys = {"difference": "from_base", "low": "from_base_low", "high": "from_base_high", "p": "from_base_p"}
    for axis, levels in table.groupby("experiment", sort=False):
        bases = levels.loc[levels["base"], "level"].unique()
        gains = pd.concat([_gains(part).assign(method=level) for level, part in levels.groupby("level", sort=False)])
        gains = pd.concat([gains, gains.drop_duplicates(KEYS).assign(method=NOTHING, value=0.0)])
        for level, part in levels.groupby("level", sort=False):
            row = {"axis": axis, "level": level, "base": level in bases, "method": part["method"].iloc[-1]}
            row["labeled_songs"] = part["labeled_songs"].max()
            row |= mean_difference(gains, level, NOTHING, *given)
            against = [mean_difference(gains, level, base, *given) for base in bases if base != level]
            rows.append(row | {new: against[0][old] if against else None for old, new in keys.items()})
    effects = pd.DataFrame(rows).astype(dict.fromkeys(keys.values(), float))
    tested = effects["from_base_p"].dropna()
    corrected = tested.groupby(effects["axis"], sort=False).transform(holm)
    return study.write("ablation_effects", holm_within(effects, ["axis"]).assign(from_base_p_holm=corrected))


def _gains(part: pd.DataFrame) -> pd.DataFrame:
    """Pre-trained minus scratch of a level, by seed, song, stem and metric; 0 where both arms are one."""
    wide = part.set_index([*KEYS, "arm"])["value"].unstack("arm")
    gains = (wide.get("pre-trained", wide["scratch"]) - wide["scratch"]).rename("value").reset_index()
    return gains.assign(fold=gains["song"].map(part.groupby("song")["fold"].first()))
