"""How many pre-trainings a study needs: ``python -m lib.experiments.power PROFILE [--make] [key=value ...]``.

The difference of the first pre-trained arm and scratch varies between pre-trainings, between songs, and beyond both.
How much is measured on validation songs; no score of a test song is read. For numbers of pre-trainings and test songs
the crossed t test of `lib.experiments.intervals` is then simulated at the profile's smallest effect, at the level that
Holm's correction over the label budgets begins with: ``tables/power.csv``.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib import UserError
from lib.arms import SCRATCH, Finetuning, method_name
from lib.experiments import evaluate
from lib.experiments.claim import claim_trainings
from lib.experiments.intervals import LEVEL, crossed, paired
from lib.experiments.jobs import scored, train_in_parallel
from lib.profile.load import command_line, load
from lib.study import Study

TABLE = "tables/power.csv"
PRETRAININGS = (2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32)
DRAWS = 1000
PARTS = ("pretrainings", "songs", "residual")
"""What the variance of a difference consists of."""


class Spread(NamedTuple):
    """Variances in dB^2 of a difference of two arms; ``residual``: of song and pre-training together."""

    pretrainings: float
    songs: float
    residual: float
    measured: str
    """What they were measured on, in words."""


def compared(study: Study) -> list[Finetuning]:
    """The runs of the claim by scratch and by the first transfer."""
    arms = (SCRATCH, study.profile.finetune.transfers[0])
    return [training for training in claim_trainings(study) if training.arm in arms]


def power(study: Study) -> pd.DataFrame:
    """The power at the profile's smallest effect: ``tables/power.csv``.

    Columns: pretrainings, test_songs, smallest_effect (dB), power, level, sd_pretrainings, sd_songs, sd_residual (dB),
    measured_on. Raises: UserError that names the runs to make, where no validation scores are there.
    """
    spread, settings = measured(study), study.profile
    effect, level = settings.protocol.smallest_effect, LEVEL / len(settings.finetune.labeled_songs)
    facts = {f"sd_{what}": float(np.sqrt(getattr(spread, what))) for what in PARTS}
    facts |= {"level": level, "measured_on": spread.measured}
    songs = len(study.songs("test"))
    counts = sorted({*PRETRAININGS, len(settings.pretrain.seeds)} - {1})
    rows = [
        {"pretrainings": count, "test_songs": songs, "smallest_effect": effect}
        | {"power": simulated(spread, effect, count, songs, level), **facts}
        for songs, count in itertools.product(sorted({max(2, songs // 2), songs, 2 * songs}), counts)
    ]
    return study.write("power", pd.DataFrame(rows))


def simulated(spread: Spread, effect: float, pretrainings: int, songs: int, level: float, seed: int = 0) -> float:
    """The share of `DRAWS` studies of so many pre-trainings and songs in which ``effect`` is shown at ``level``."""
    draws = np.random.default_rng([seed, pretrainings, songs])
    shown = 0
    for _ in range(DRAWS):
        values = effect + draws.normal(0, np.sqrt(spread.residual), (pretrainings, songs))
        values += draws.normal(0, np.sqrt(spread.pretrainings), (pretrainings, 1))
        values += draws.normal(0, np.sqrt(spread.songs), songs)
        found = crossed(values)
        shown += found.p < level and found.value > 0
    return shown / DRAWS


def measured(study: Study) -> Spread:
    """The spread of the difference on validation songs, mean over the budgets.

    Where a budget has validation scores of one seed alone, songs and residual are one, and the spread between
    pre-trainings is that of the lowest validation losses, in dB as well, which every finished run has recorded.
    """
    found = [spread for songs in study.profile.finetune.labeled_songs if (spread := _of_budget(study, songs))]
    if not found:
        raise UserError(f"{study.profile.name}: too few validation scores; {_to_make(study)}")
    means = np.mean([spread[:3] for spread in found], axis=0)
    return Spread(*map(float, means), found[0].measured)


def _of_budget(study: Study, songs: int) -> Spread | None:
    trainings = [training for training in compared(study) if training.songs == songs]
    tables = [table for training in trainings if (table := evaluate.known_scores(training, "validation")) is not None]
    if not tables:
        return None
    scores, metric = pd.concat(tables, ignore_index=True), study.profile.scoring.primary
    scores["song"] += scores["fold"].fillna(0).astype(str)  # a song may validate in several folds
    pretrained, scratch = (method_name(arm) for arm in (study.profile.finetune.transfers[0], SCRATCH))
    try:
        values = paired(scores, pretrained, scratch, metric)
    except UserError:  # of one arm alone
        return None
    seeds, count = values.shape
    if seeds > 1 and count > 1:
        return Spread(*components(values), f"{metric} of {count} validation songs, {seeds} seeds")
    losses = [(t.arm, t.seed, t.run.facts()["best_validation_loss"]) for t in trainings if t.run.finished]
    losses = pd.DataFrame(losses, columns=["arm", "seed", "loss"]).pivot_table("loss", "seed", "arm")
    apart = losses.diff(axis=1).iloc[:, -1].dropna()
    if len(apart) < 2 or not seeds or count < 2:
        return None
    where = f"{metric} of {count} validation songs, 1 seed; lowest validation losses of {len(apart)} seeds"
    return Spread(float(apart.var()), float(values.mean(0).var(ddof=1)), 0.0, where)


def components(values: np.ndarray) -> tuple[float, float, float]:
    """Variances between rows, between columns, and residual, of values [rows, columns], by their mean squares."""
    rows, columns = values.shape
    centred = values - values.mean(0) - values.mean(1)[:, None] + values.mean()
    residual = float((centred**2).sum() / ((rows - 1) * (columns - 1)))
    between = [values.mean(axis).var(ddof=1) - residual / values.shape[axis] for axis in (1, 0)]
    return max(float(between[0]), 0.0), max(float(between[1]), 0.0), residual


def sentence(study: Study, table: pd.DataFrame) -> str:
    """How many pre-trainings the profile needs, and whether its number suffices."""
    wanted, count, songs = study.profile.protocol.power, len(study.profile.pretrain.seeds), len(study.songs("test"))
    of_songs = table[table["test_songs"] == songs].set_index("pretrainings")["power"]
    enough = of_songs.index[of_songs >= wanted]
    needs = f"{enough.min()} pre-trainings" if len(enough) else f"more than {of_songs.index.max()}, or more songs"
    reached = of_songs.get(count, 0.0)  # of a single pre-training nothing is decided
    suffices = "suffice" if reached >= wanted else "do not suffice"
    return (
        f"{study.profile.name}: to show {study.profile.protocol.smallest_effect:g} dB with power {wanted:g} on {songs} "
        f"test songs it needs {needs}; its {count} reach {reached:.2f} and {suffices}"
    )


def _to_make(study: Study) -> str:
    """Which runs are to be made and scored on validation songs."""
    missing = [t for t in compared(study) if evaluate.known_scores(t, "validation") is None]
    calls = ["python -m lib.pipeline.train --profile " + " ".join([study.profile.name, *t.arguments]) for t in missing]
    return f"--make trains and scores what is missing: {len(calls)} runs, the first by {calls[0]}" if calls else ""


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0, or 2 for a wrong call or where there is nothing to measure the spread on."""
    parser = command_line("lib.experiments.power", "Power of a profile's test.")
    parser.add_argument("--make", action="store_true", help="train, and score on validation songs, what is missing")
    call = parser.parse_intermixed_args(arguments)
    try:
        study = Study(load(call.profile, call.changes))
        if call.make:
            train_in_parallel([scored(training, "validation") for training in compared(study)])
            for training in compared(study):
                evaluate.scores(training, "validation")
        table = power(study)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    deviations = ", ".join(f"{what} {table[f'sd_{what}'].iloc[0]:.3f}" for what in PARTS)
    print(f"{table['measured_on'].iloc[0]}; standard deviations in dB: {deviations}")
    shown = table.pivot(index="pretrainings", columns="test_songs", values="power")
    print(shown.to_string(float_format="{:.2f}".format), sentence(study, table), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
