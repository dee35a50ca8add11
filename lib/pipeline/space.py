"""Whether the disk and the folders hold what a study needs, before it starts."""

from __future__ import annotations

import shutil
from pathlib import Path

from lib import UserError
from lib import profile as profiles
from lib.profile.fields import Profile

_PARAMETERS = {"nano": 2e6, "tiny": 4e6, "mini": 8e6, "compact": 12e6, "small": 55e6, "medium": 87e6, "large": 168e6}
"""Upper bounds of the parameter counts (tiny to compact at 16 kHz), for the estimate of disk space."""


def check(profile: Profile, results: Path) -> None:
    """Raises: UserError if a folder of music does not exist or the disk cannot hold what is planned."""
    for key, parts in profile.corpus.music.items():
        for folder in (profiles.project_path(part) for part in parts if not profiles.is_named(part)):
            if not folder.is_dir():
                raise UserError(f"corpus.{key}: there is no folder {folder}: name one that exists, or 'rendered'")
    parent = next(folder for folder in (results, *results.parents) if folder.is_dir())
    written = sum(path.stat().st_size for path in results.rglob("*") if path.is_file())
    needed, free = planned_bytes(profile) / 1e9, (shutil.disk_usage(parent).free + written) / 1e9
    if needed > free:
        raise UserError(f"{results}: {needed:.1f} GB needed, {free:.1f} GB free: make room, or set results=FOLDER")


def planned_bytes(profile: Profile) -> float:
    """Disk space that a study takes at most: rendered songs, the weights of every run, one run's checkpoints."""
    tuning, ablations = profile.finetune, profile.ablations
    total = 0.0
    if made := profile.corpus.recipe_of(profile.corpus.labeled):
        songs = made.train_songs + made.validation_songs + made.test_songs
        total += songs * made.song_seconds * profile.audio.rate * 2 * 3 * 5  # channels, bytes, files
    for made in filter(None, map(profile.corpus.recipe_of, profile.corpus.unlabeled_parts)):
        copies = 1 + profile.probes.redealt
        total += copies * made.unlabeled_songs * made.song_seconds * 32_000  # MP3, at most 256 kbit/s
    regime, budgets = profile.regime, len(tuning.labeled_songs)
    variants = profile.probes.redealt + profile.probes.same_song
    pretrainings = len(profile.pretrain.seeds) + len(profile.probes.seeds) * (1 + variants)
    schedules = len(regime.learning_rates) * len(regime.body_rates) * len(regime.steps)
    searched = (1 + len(regime.transfers)) * schedules * len(regime.searched_songs)
    mapped = (1 + 2 * len(regime.labeled_songs)) * len(regime.pretrain_steps)
    count = pretrainings + len(regime.seeds) * (searched + mapped)
    folds = max(profile.corpus.folds, 1)
    count += folds * len(tuning.seeds) * budgets * (1 + len(tuning.transfers) + len(tuning.controls))
    count += (1 + 2 * folds) * len(ablations.seeds) * sum(len(axis.levels) for axis in ablations.axes)
    # while a run trains, its best checkpoints and the last with the optimiser's moments; of a finished one a file stays
    copies = count + profile.compute.jobs * (max(profile.pretrain.average_best, tuning.average_best) + 4)
    return total + copies * 4 * _PARAMETERS[profile.model.size]
