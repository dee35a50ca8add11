"""``python -m benchmarks.precision``: do loss curves in bfloat16 stay within the seed noise of float32?

Runs MixIT pre-training of size compact on the demo's music for 200 steps, three seeds, either precision (a quarter
of an hour on two cores; finished runs are kept), writes ``results/benchmarks/tables/precision.csv`` and draws it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.cases import SMALL_STEP
from benchmarks.figures import FOLDER
from lib.arms import Pretraining
from lib.profile.load import load
from lib.report.figures import drawn
from lib.store.tables import read_table, write_table
from lib.study import Study

SEEDS, STEPS, SMOOTH = (0, 1, 2), 200, 20
PRECISIONS = {"32-true": ("float32", "#7F7F7F"), "bf16-mixed": ("bfloat16", "#0072B2")}


def curves() -> pd.DataFrame:
    """Training loss of every run: precision, seed, step, loss in dB."""
    frames = []
    for seed in SEEDS:
        for precision in PRECISIONS:
            changes = [f"results={FOLDER / 'runs' / 'precision'}", f"compute.precision={precision}"]
            changes += [f"pretrain.seeds=[{seed}]", *SMALL_STEP]
            changes += [f"pretrain.steps={STEPS}", f"pretrain.decay_start={STEPS // 2}", "pretrain.decay_every=25"]
            changes += ["pretrain.validate_every=1", "pretrain.validation_moms=1"]  # the log keeps a row a validation
            run = Pretraining(Study(load("demo", changes)), seed).trained()
            log = read_table(run.folder / "log.csv")
            frames.append(log[["step", "loss"]].assign(precision=precision, seed=seed))
    return pd.concat(frames, ignore_index=True)


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """Smoothed curves as columns (precision, seed), a row per step."""
    wide = table.pivot(index="step", columns=["precision", "seed"], values="loss")
    return wide.rolling(SMOOTH, min_periods=SMOOTH).mean()


def draw(table: pd.DataFrame) -> None:
    """Left the curves; right |bfloat16 - float32| at equal seeds beside the spread of float32 between seeds."""
    wide = differences(table)
    gaps = np.abs(wide["bf16-mixed"] - wide["32-true"]).mean(axis=1)
    noise = wide["32-true"].std(axis=1, ddof=1)
    with drawn(FOLDER, "precision", ncols=2, figsize=(8.4, 3.4)) as (_, axes):
        left, right = axes[0]
        for precision, (name, color) in PRECISIONS.items():
            for seed in SEEDS:
                label = name if seed == SEEDS[0] else None
                left.plot(wide.index, wide[precision, seed], color=color, linewidth=1.2, label=label)
        left.set(title=f"MixIT loss, mean over {SMOOTH} steps, 3 seeds", xlabel="step", ylabel="dB")
        right.plot(wide.index, noise, color="#7F7F7F", label="float32: standard deviation between seeds")
        right.plot(wide.index, gaps, color="#0072B2", label="bfloat16 - float32 at the same seed, mean of 3")
        right.set(title="Difference of the curves", xlabel="step", ylabel="dB")
        right.set_ylim(0, 1.3 * max(noise.max(), gaps.max()))  # room for the legend
        for ax in (left, right):
            ax.legend(fontsize=8.5)


def main() -> None:
    """Train what is missing, write the table, draw it."""
    write_table(FOLDER / "tables" / "precision.csv", curves())
    draw(read_table(FOLDER / "tables" / "precision.csv"))


if __name__ == "__main__":
    main()
